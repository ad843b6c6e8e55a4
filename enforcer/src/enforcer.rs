//! Plan, arm, disarm, list: what every door calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use portcullis_ebpf::{Kernel, Options, abi};
use portcullis_policy::Backend;
use serde::Serialize;

use crate::apparmor::{Profiles, Variant};
use crate::arming::{arm_in, disarm_in};
use crate::backend::Chosen;
use crate::clock::seconds_since_1970;
use crate::plan::{self, Confining, Container, Enforce, Form, Plan, Target};
use crate::policy_dir::{Policies, PolicyDir};
use crate::record::{ContainerRecord, Unprotected};
use crate::state::StateDir;
use crate::tables::Tables;
use crate::{Config, Error, confine, sets};

/// The enforcer of this host.
///
/// Cheap to open: policies are read, and the kernel's state opened, when they are first asked for.
pub struct Enforcer {
    config: Config,
    state: StateDir,
    policies: RwLock<Option<Arc<Policies>>>,
    kernel: Mutex<Option<Arc<Kernel>>>,
    profiles: Profiles,
    chosen: OnceLock<Chosen>,
}

/// A record joined with what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmedContainer {
    /// What was armed.
    #[serde(flatten)]
    pub record: ContainerRecord,
    /// What of it is in force.
    pub status: Status,
    /// Tasks under its policy.
    pub tasks: u32,
}

/// What of a record is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is armed.
    Armed,
    /// It was disarmed, and some of its tasks are still there, under its policy.
    Leaving,
    /// The kernel knows nothing of it: the programs were unloaded, or its slot is another's.
    Lost,
}

impl Enforcer {
    /// Opens the state directory, creating it if need be.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(config: Config) -> Result<Enforcer, Error> {
        let state = StateDir::at(&config.state_dir);
        state.create()?;
        let profiles = Profiles::of_host(&config.state_dir);
        let (policies, kernel, chosen) = (RwLock::new(None), Mutex::new(None), OnceLock::new());
        Ok(Enforcer { config, state, policies, kernel, profiles, chosen })
    }

    /// What enforces on this host.
    pub fn chosen(&self) -> Chosen {
        *self.chosen.get_or_init(|| Chosen::by(self.config.backend, || self.kernel().is_ok()))
    }

    pub(crate) fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The policies of this host, as they were when they were last read.
    ///
    /// # Errors
    /// As [`PolicyDir::read`].
    pub fn policies(&self) -> Result<Arc<Policies>, Error> {
        if let Some(policies) = &*self.policies.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(policies));
        }
        self.reload()
    }

    /// Reads the policies anew. Who has the former ones keeps them.
    ///
    /// # Errors
    /// As [`PolicyDir::read`]; then the former ones stay.
    pub fn reload(&self) -> Result<Arc<Policies>, Error> {
        let policies = Arc::new(PolicyDir::new(&self.config.policy_dir, Some(&self.state.policies())).read()?);
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&policies));
        Ok(policies)
    }

    /// Selects the rules of a container, resolves their paths in its root, and makes their tables, unless the kernel has
    /// them. Changes nothing in the kernel.
    ///
    /// # Errors
    /// [`Error::Compile`], or if the policies cannot be read.
    pub fn plan(&self, container: &Container<'_>) -> Result<Plan, Error> {
        let policies = self.policies()?;
        plan::plan(&self.config, &policies.policies, container, |set, hash, audited| match self.chosen().backend {
            Backend::Bpf if self.kernel().is_ok_and(|kernel| matches!(sets::find(&*kernel, hash), Ok(Some(_)))) => {
                Ok(Form::Tables(None))
            }
            Backend::Bpf => Ok(Form::Tables(Some(plan::tables(&self.state, set, hash, container.facts)?))),
            Backend::AppArmor => {
                let no_new_privileges = container.no_new_privileges;
                let variant = Variant { audited, no_new_privileges };
                let compiled = confine::compile(&self.profiles, set, hash, variant, container.facts)?;
                Ok(Form::Profiles(Confining { compiled, no_new_privileges }))
            }
        })
    }

    /// Makes sure that this host can enforce: that the kernel programs of this build are in force, whatever was opened before, or
    /// that AppArmor is there.
    ///
    /// # Errors
    /// If it cannot.
    pub fn load(&self) -> Result<(), Error> {
        if self.chosen().backend == Backend::AppArmor {
            return Ok(self.profiles.check()?);
        }
        let kernel = Kernel::load(Options::default())?;
        *self.kernel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(kernel));
        Ok(())
    }

    /// Arms a container, in place of what was armed for the same id. If any step fails, nothing of it remains.
    ///
    /// To be called in the runtime's mount namespace, before the container's first instruction.
    ///
    /// # Errors
    /// If the kernel programs are not loaded, or have no room.
    pub fn arm(&self, plan: &Enforce, target: &Target<'_>) -> Result<(), Error> {
        match plan.form {
            Form::Tables(_) => arm_in(&*self.kernel()?, &self.state, plan, target).map(drop),
            Form::Profiles(ref profile) => confine::arm(&self.profiles, &self.state, plan, profile, target),
        }
    }

    /// Takes out of force whatever was armed or recorded for an id; whether there was anything.
    ///
    /// # Errors
    /// If something of it could not be undone; everything else was, and it may be tried again.
    pub fn disarm(&self, id: &str) -> Result<bool, Error> {
        self.hide(id);
        let known = self.state.remove_known(id)?;
        let unprotected = self.state.remove_unprotected(id)?;
        let _lock = self.state.lock()?;
        let Some(record) = self.state.container(id)? else { return Ok(known || unprotected) };
        if let Some(confinement) = &record.confinement {
            confine::disarm(&self.profiles, &self.state, &record, &confinement.profile)?;
            return Ok(true);
        }
        match self.kernel() {
            Ok(kernel) => disarm_in(&*kernel, &self.state, &record)?,
            Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => {
                self.state.remove_container(id)?;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Every container that was armed and not disarmed.
    ///
    /// # Errors
    /// If the records or the kernel's tables cannot be read.
    pub fn list(&self) -> Result<Vec<ArmedContainer>, Error> {
        let kernel = match self.kernel() {
            Ok(kernel) => Some(kernel),
            Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => None,
            Err(error) => return Err(error),
        };
        let labels = kernel.as_ref().map(|kernel| kernel.labels()).transpose()?.unwrap_or_default();
        let records = self.state.containers()?;
        let confined = match records.iter().any(|record| record.confinement.is_some()) {
            true => confine::InForce::of(&self.profiles)?,
            false => confine::InForce::default(),
        };
        let joined = |record: ContainerRecord| match &record.confinement {
            Some(confinement) => Ok(confined.join(&confinement.profile.clone(), record)),
            None => join(kernel.as_deref(), &labels, record),
        };
        records.into_iter().map(joined).collect()
    }

    /// Leaves a record that a container runs without protection.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Error> {
        let at = seconds_since_1970();
        self.state.write_unprotected(&Unprotected { id: id.to_owned(), name: name.to_owned(), reason: reason.to_owned(), at })
    }

    /// Forgets what was armed, after the kernel programs have been unloaded. Profiles that tasks have deny nothing any more.
    ///
    /// # Errors
    /// If a record cannot be removed, or a profile not replaced.
    pub fn forget(&self) -> Result<(), Error> {
        let mut confined = self.state.containers()?.into_iter().filter(|record| record.confinement.is_some());
        confined.try_for_each(|record| self.confine_to_nothing(&record.id))?;
        let _lock = self.state.lock()?;
        self.state.forget()
    }

    pub(crate) fn kernel(&self) -> Result<Arc<Kernel>, Error> {
        let mut opened = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*opened {
            return Ok(Arc::clone(kernel));
        }
        let kernel = Arc::new(Kernel::open()?);
        *opened = Some(Arc::clone(&kernel));
        Ok(kernel)
    }
}

fn join<T: Tables>(
    tables: Option<&T>,
    labels: &BTreeMap<abi::Label, u32>,
    record: ContainerRecord,
) -> Result<ArmedContainer, Error> {
    let slot = tables.map(|tables| tables.read_slot(record.slot)).transpose()?;
    let slot = slot.filter(|slot| slot.epoch == record.epoch && slot.flags != 0);
    let status = match slot {
        Some(slot) if slot.flags & abi::SLOT_ARMED != 0 => Status::Armed,
        Some(_) => Status::Leaving,
        None => Status::Lost,
    };
    let label = slot.map(|slot| abi::Label { slot: record.slot, epoch: slot.epoch });
    let tasks = label.and_then(|label| labels.get(&label).copied()).unwrap_or(0);
    Ok(ArmedContainer { record, status, tasks })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook's deadline disarms from another thread.
    #[test]
    fn threads_may_share_it() {
        fn shared<T: Send + Sync>() {}
        shared::<Enforcer>();
    }

    #[test]
    fn what_was_never_armed_is_not_disarmed_but_no_error() {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config { state_dir: temporary.path().join("state"), ..Config::default() };
        let enforcer = Enforcer::open(config).unwrap();
        assert!(!enforcer.disarm("nobody").unwrap());
        enforcer.record_unprotected("c1", "web", "the kernel is too old").unwrap();
        assert_eq!(enforcer.state().unprotected().unwrap()[0].name, "web");
        assert!(enforcer.disarm("c1").unwrap());
        assert!(enforcer.state().unprotected().unwrap().is_empty());
    }
}
