//! The enforcer of this host.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use portcullis_enforcer::apparmor::{Label, ProfileName};
use portcullis_enforcer::program::Program;
use portcullis_enforcer::{self as enforcer, Chosen, Config, Enforce, Enforcer, Known, Plan, Policies, Starting, Target};
use portcullis_policy::{Backend, Policy};

use super::{Carrying, Container, Enforcement, Failure};
use crate::args::FailPolicy;

/// The record of a container whose state could not be read.
const UNKNOWN_ID: &str = "unknown";

/// The enforcer, opened when it is first needed: a host without policies pays for a look at two directories.
pub struct Real {
    file: Option<PathBuf>,
    config: OnceLock<Config>,
    enforcer: OnceLock<Enforcer>,
    policies: OnceLock<Arc<Policies>>,
}

impl Real {
    /// With a configuration file, or the one at its usual place.
    pub fn new(file: Option<PathBuf>) -> Real {
        Real { file, config: OnceLock::new(), enforcer: OnceLock::new(), policies: OnceLock::new() }
    }

    fn config(&self) -> Result<&Config, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::read(self.file.as_deref())?;
        Ok(self.config.get_or_init(|| config))
    }

    fn enforcer(&self) -> Result<&Enforcer, Failure> {
        if let Some(enforcer) = self.enforcer.get() {
            return Ok(enforcer);
        }
        let enforcer = Enforcer::open(self.config()?.clone())?;
        Ok(self.enforcer.get_or_init(|| enforcer))
    }

    /// Whether a directory is certainly absent. One that cannot be looked at is not: what is in it would be ignored.
    fn is_absent(path: &std::path::Path) -> bool {
        matches!(path.try_exists(), Ok(false))
    }
}

impl Enforcement for Real {
    type Plan = Box<Enforce>;

    fn fail_policy(&self) -> Result<FailPolicy, Failure> {
        Ok(match self.config()?.fail_policy {
            enforcer::FailPolicy::Enforce => FailPolicy::Enforce,
            enforcer::FailPolicy::Permit => FailPolicy::Permit,
        })
    }

    fn policies(&self) -> Result<Option<&[Policy]>, Failure> {
        if Real::is_absent(&self.config()?.policy_dir) {
            return Ok(None);
        }
        let policies = self.enforcer()?.policies()?;
        Ok(Some(&self.policies.get_or_init(|| policies).policies))
    }

    fn problems(&self) -> Vec<String> {
        let policies = self.policies.get();
        policies.map_or_else(Vec::new, |policies| policies.problems.iter().map(|problem| problem.message.clone()).collect())
    }

    fn known(&self, id: &str) -> Result<Option<Known>, Failure> {
        Ok(self.enforcer()?.known(id)?)
    }

    fn remember(&self, container: &Container) -> Result<(), Failure> {
        let known = Known { place: Some(container.place.clone()), ..container.known.clone() };
        Ok(self.enforcer()?.remember(&known)?)
    }

    fn plan(&self, container: &Container) -> Result<Option<Box<Enforce>>, Failure> {
        let plan = self.enforcer()?.plan(&enforcer::Container {
            facts: &container.known.facts,
            root: Some(container.root.as_fd()),
            no_new_privileges: container.process.no_new_privileges,
        })?;
        Ok(match plan {
            Plan::Untouched { .. } => None,
            Plan::Enforce(rules) => Some(rules),
        })
    }

    fn load(&self) -> Result<(), Failure> {
        Ok(self.enforcer()?.load()?)
    }

    fn arm(&self, plan: &Box<Enforce>, container: &Container) -> Result<(), Failure> {
        let starting = Starting {
            bundle: &container.bundle,
            label: &container.process.label,
            carrier: container.carrier,
            program: &container.process.program,
            root: container.root.as_fd(),
        };
        let target = Target { facts: &container.known.facts, place: &container.place, running: false, starting: Some(starting) };
        self.enforcer()?.arm(plan, &target)?;
        Ok(())
    }

    fn disarm(&self, id: &str) -> Result<(), Failure> {
        // Nothing was ever armed or recorded here.
        if Real::is_absent(&self.config()?.state_dir) {
            return Ok(());
        }
        self.enforcer()?.disarm(id)?;
        Ok(())
    }

    fn let_start(&self, id: &str, label: Option<&str>) -> Result<(), Failure> {
        let enforcer = self.enforcer()?;
        let name = ProfileName::of(id);
        let wanted = label.is_none_or(|label| Label::new(label).has(&name));
        if wanted && enforcer.chosen().backend == Backend::AppArmor {
            enforcer.confine_to_nothing(id)?;
        }
        Ok(())
    }

    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure> {
        let id = if id.is_empty() { UNKNOWN_ID } else { id };
        Ok(self.enforcer()?.record_unprotected(id, name, reason)?)
    }
}

impl Carrying for Real {
    fn carries(&self) -> Result<bool, Failure> {
        Ok(Chosen::of_host(self.config()?.backend).backend == Backend::AppArmor)
    }

    fn gate(&self) -> Result<PathBuf, Failure> {
        Ok(self.config()?.nri.hook.clone())
    }

    fn confined(&self, id: &str) -> Result<Option<(PathBuf, ProfileName)>, Failure> {
        if Real::is_absent(&self.config()?.state_dir) {
            return Ok(None);
        }
        let confinement = self.enforcer()?.confinement(id)?;
        Ok(confinement.map(|confinement| (confinement.bundle, confinement.profile)))
    }

    fn check_confined(&self, id: &str) -> Result<(), Failure> {
        if Real::is_absent(&self.config()?.state_dir) {
            return Ok(());
        }
        Ok(self.enforcer()?.check_confined(id)?)
    }

    fn judge(&self, id: &str, program: &Program) -> Result<(), Failure> {
        Ok(self.enforcer()?.judge_exec(id, program)?)
    }
}
