//! All that the agent asks of this node's enforcer, in one place. A test puts its own in the place of [`Enforcer`].

use std::sync::Arc;

use portcullis_enforcer::place::{PlaceError, ProcessError};
use portcullis_enforcer::{Enforcer, Error, Expected, FailPolicy, Known, Missing, Policies, Refreshed, Started, unknown};
use portcullis_nri_plugin::Failure;
use portcullis_policy::ContainerFacts;
use portcullis_policy::select::applies;
use tracing::warn;

/// The enforcer as the agent needs it. Every call may block for as long as files and the kernel do, and may come from any
/// thread.
pub trait Node: Send + Sync + 'static {
    /// What happens to a container that cannot be armed.
    fn fail_policy(&self) -> FailPolicy;
    /// A container is announced.
    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure>;
    /// A container's process waits to execute its entrypoint.
    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure>;
    /// A container runs without protection, by fail policy `permit`.
    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure>;
    /// The policies as they were last read.
    fn policies(&self) -> Result<Arc<Policies>, Failure>;
    /// Reads the policies anew.
    fn reload(&self) -> Result<Arc<Policies>, Failure>;
    /// All containers that doors have let in.
    fn known(&self) -> Result<Vec<Known>, Failure>;
    /// How many they are.
    fn count_known(&self) -> Result<usize, Failure>;
    /// Slot and epoch of a container that is armed, which is how the kernel labels its processes.
    fn label(&self, id: &str) -> Result<Option<(u32, u32)>, Failure>;
    /// Brings a container to the policies as they were last read.
    fn refresh(&self, id: &str) -> Result<Refreshed, Failure>;
    /// Arms a container that runs already.
    fn adopt(&self, facts: &ContainerFacts, pid: u32) -> Result<Refreshed, Failure>;
    /// Forgets a container if nothing of it is left; whether that is so.
    fn gone(&self, id: &str) -> Result<bool, Failure>;
    /// Forgets all containers that have left without anybody telling; their ids.
    fn sweep(&self) -> Result<Vec<String>, Failure>;
}

impl Node for Enforcer {
    fn fail_policy(&self) -> FailPolicy {
        self.config().fail_policy
    }

    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure> {
        // Every runtime that is known tells the image. One that does not must not let a policy for it pass by.
        if facts.image.is_empty() {
            let reason = Some("the runtime did not tell it to its plugin".to_owned());
            let missing = Missing { image: reason, ..Missing::default() };
            unknown::check(&Enforcer::policies(self)?.policies, facts, &missing)?;
        }
        Ok(Enforcer::expect(self, facts)?)
    }

    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure> {
        match self.verify_start(facts, pid) {
            Ok(started) => Ok(started),
            Err(error) if is_selected(self, facts)? => Err(error.into()),
            // A container that cannot be placed, on a host without cgroup2 say, is none of our business as long as no policy
            // is for it. Policies that are written later will not reach it.
            Err(error) => {
                warn!(id = facts.id, name = facts.name, "later policies will not reach this container: {error}");
                Ok(Started::Untouched)
            }
        }
    }

    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure> {
        Ok(Enforcer::record_unprotected(self, id, name, reason)?)
    }

    fn policies(&self) -> Result<Arc<Policies>, Failure> {
        Ok(Enforcer::policies(self)?)
    }

    fn reload(&self) -> Result<Arc<Policies>, Failure> {
        Ok(Enforcer::reload(self)?)
    }

    fn known(&self) -> Result<Vec<Known>, Failure> {
        Ok(self.state().all_known()?)
    }

    fn count_known(&self) -> Result<usize, Failure> {
        Ok(self.state().count_known()?)
    }

    fn label(&self, id: &str) -> Result<Option<(u32, u32)>, Failure> {
        Ok(self.state().container(id)?.map(|record| (record.slot, record.epoch)))
    }

    fn refresh(&self, id: &str) -> Result<Refreshed, Failure> {
        ended_is_gone(Enforcer::refresh(self, id))
    }

    fn adopt(&self, facts: &ContainerFacts, pid: u32) -> Result<Refreshed, Failure> {
        ended_is_gone(Enforcer::adopt(self, facts, pid))
    }

    fn gone(&self, id: &str) -> Result<bool, Failure> {
        Ok(Enforcer::gone(self, id)?)
    }

    fn sweep(&self) -> Result<Vec<String>, Failure> {
        for error in self.state().damaged()? {
            warn!("changed policies do not reach the container of a record: {error}");
        }
        Ok(Enforcer::sweep(self)?)
    }
}

/// A container that ends while it is looked at is no failure.
fn ended_is_gone(result: Result<Refreshed, Error>) -> Result<Refreshed, Failure> {
    match result {
        Err(Error::Place(PlaceError::Process(ProcessError::Gone { .. } | ProcessError::Reused { .. }))) => Ok(Refreshed::Gone),
        other => Ok(other?),
    }
}

/// Whether any policy is for a container.
fn is_selected(enforcer: &Enforcer, facts: &ContainerFacts) -> Result<bool, Failure> {
    Ok(enforcer.policies()?.policies.iter().any(|policy| applies(policy, facts).is_ok()))
}
