//! All that the hook and the runtime ask of the enforcer, in one place. A test puts its own in the place of [`Real`].

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use portcullis_enforcer::apparmor::ProfileName;
use portcullis_enforcer::place::Place;
use portcullis_enforcer::program::Program;
use portcullis_enforcer::{Carrier, Known};
use portcullis_policy::Policy;

use crate::args::FailPolicy;
use crate::bundle::Process;

mod real;

pub use real::Real;

/// The enforcer as `portcullis-runtime` needs it.
pub trait Carrying: Enforcement {
    /// Whether containers are confined by labels: AppArmor enforces on this host.
    fn carries(&self) -> Result<bool, Failure>;
    /// The program of the gate hook.
    fn gate(&self) -> Result<PathBuf, Failure>;
    /// A container's bundle and profile; nothing for one that has none.
    fn confined(&self, id: &str) -> Result<Option<(PathBuf, ProfileName)>, Failure>;
    /// Refuses a container that waits for its first instruction and will not have its profile. Others are none of its affair.
    fn check_confined(&self, id: &str) -> Result<(), Failure>;
    /// Refuses a program that the rules of a container deny.
    fn judge(&self, id: &str, program: &Program) -> Result<(), Failure>;
}

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
    /// Its bundle's directory.
    pub bundle: PathBuf,
    /// What is executed in it first.
    pub process: Process,
    /// Who has given it its label.
    pub carrier: Carrier,
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
    /// Nothing is armed for a container that is to start: where AppArmor enforces, it gets a profile that denies nothing if its label
    /// wants one, or if the label is not known.
    fn let_start(&self, id: &str, label: Option<&str>) -> Result<(), Failure>;
    /// Leaves a record that a container runs without protection, for `portcullis status`.
    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure>;
}

/// Whether a failure is none, but what a policy says.
pub(crate) fn is_denial(failure: &Failure) -> bool {
    matches!(failure.downcast_ref(), Some(portcullis_enforcer::Error::Denied { .. }))
}
