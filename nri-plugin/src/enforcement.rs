//! All that the plugin asks of the enforcer, in one place. A test puts its own in the agent's place.

use std::collections::BTreeSet;

use portcullis_enforcer::{Expected, FailPolicy, Started};
use portcullis_policy::ContainerFacts;

/// A sentence of the enforcer: what went wrong and what to do.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A container that runs already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Who it is.
    pub facts: ContainerFacts,
    /// Its init, in the host's pid namespace.
    pub pid: u32,
}

/// The enforcer as the plugin needs it. Calls may block, but for [`Enforcement::leaving`], and may come from any thread.
pub trait Enforcement: Send + Sync + 'static {
    /// What happens to a container that cannot be armed.
    fn fail_policy(&self) -> FailPolicy;

    /// A container is about to be created: from here on, the gate hook finds out who it is.
    ///
    /// # Errors
    /// If that cannot be assured; then it must not be created.
    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure>;

    /// A container's init waits to execute the entrypoint: when this returns, its policies are in force.
    ///
    /// # Errors
    /// If they are not; then it must not start.
    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure>;

    /// A container runs without protection, by fail policy `permit`.
    ///
    /// # Errors
    /// If no record of it could be left.
    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure>;

    /// A runtime has told all that it has: containers that run, others that were created and have no process yet, and the
    /// ids of all. What runs is armed in the background: it ran before, so no answer of ours holds anything back, and what
    /// fails is told in the status and tried again.
    ///
    /// # Errors
    /// If not even the beginning could be made.
    fn synchronized(&self, running: Vec<Running>, created: Vec<ContainerFacts>, listed: &BTreeSet<String>)
    -> Result<(), Failure>;

    /// A container is being stopped, was removed, or failed to be created; perhaps one that nobody has seen, perhaps said
    /// before. It stays under its policy until its last task has ended. Must not block.
    fn leaving(&self, id: &str);
}
