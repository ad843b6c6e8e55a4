//! All that the hook asks of the enforcer, in one place. A test puts its own in the place of [`Real`].

use std::os::fd::OwnedFd;

use portcullis_enforcer::Known;
use portcullis_enforcer::place::Place;
use portcullis_policy::Policy;

use crate::args::FailPolicy;

mod real;

pub use real::Real;

/// A sentence of the enforcer: what went wrong and what to do.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A container that is about to start.
#[derive(Debug)]
pub struct Container {
    /// Who it is.
    pub known: Known,
    /// Where it is.
    pub place: Place,
    /// Its root file system with all mounts made, for resolving symbolic links in it.
    pub root: OwnedFd,
}

/// The enforcer as the hook needs it. Called from one thread at a time, but for [`Enforcement::disarm`], which the deadline
/// may call while [`Enforcement::arm`] hangs.
pub trait Enforcement: Send + Sync + 'static {
    /// What is to be armed for one container.
    type Plan;

    /// The configuration's fail policy.
    fn fail_policy(&self) -> Result<FailPolicy, Failure>;
    /// All policies of this host; nothing where there is no policy directory.
    fn policies(&self) -> Result<Option<&[Policy]>, Failure>;
    /// What is wrong with policy files, a sentence each; what they say is not among [`Enforcement::policies`].
    fn problems(&self) -> Vec<String>;
    /// What was recorded of a container before: the NRI plugin's announcement, or what it was when it ran the last time.
    fn known(&self, id: &str) -> Result<Option<Known>, Failure>;
    /// Records who and where a container is, for policies that come later.
    fn remember(&self, container: &Container) -> Result<(), Failure>;
    /// Compiles what selects the container; `None` when nothing has to be armed. Changes nothing in the kernel.
    fn plan(&self, container: &Container) -> Result<Option<Self::Plan>, Failure>;
    /// Opens the pinned kernel programs, or loads them.
    fn load(&self) -> Result<(), Failure>;
    /// Arms; replaces what was armed for the same id.
    fn arm(&self, plan: &Self::Plan, container: &Container) -> Result<(), Failure>;
    /// Takes out of force whatever was armed or recorded for an id. Not an error when there is nothing.
    fn disarm(&self, id: &str) -> Result<(), Failure>;
    /// Leaves a record that a container runs without protection, for `portcullis status`.
    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure>;
}
