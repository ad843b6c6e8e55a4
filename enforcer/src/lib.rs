//! From meaning to kernel state.
//!
//! [`automaton`] turns the rules of one container into the tables that the kernel programs walk. [`PolicyDir`] says which
//! policies are in force, whatever state their files are in. [`Enforcer`] is what every door calls: `plan` a container,
//! `arm` it, `refresh` it when policies change, `disarm` it, `list` what is armed.
//!
//! Two processes may do so at once; a lock in the state directory orders what they write. Nothing here has to stay alive for
//! what it armed.

pub mod apparmor;
mod arming;
pub mod automaton;
mod backend;
mod clock;
mod config;
mod confine;
mod enforcer;
mod error;
mod files;
mod index;
mod known;
mod live;
#[cfg(test)]
mod model;
pub mod place;
mod plan;
mod policy_dir;
pub mod program;
mod record;
mod refusals;
mod residents;
mod root;
mod sets;
mod slots;
mod state;
mod tables;
mod tenants;
pub mod unknown;
mod visibility;

pub use backend::{BackendChoice, Chosen, Reason};
pub use config::{
    CONFIG_FILE, Config, FailPolicy, Feeder, FileSink, LineFormat, MAX_CONFIG_BYTES, Monitor, MonitorEnabled, Nri, NriEnabled,
    OtlpSink, Protection, SinkEvents, Sinks, Tcp, Tls,
};
pub use enforcer::{ArmedContainer, Enforcer, Status};
pub use error::Error;
pub use known::{Door, Known};
pub use live::{Expected, Refreshed, Started};
pub use plan::{Container, Enforce, Plan, Starting, Target};
pub use policy_dir::{MAX_POLICY_BYTES, MAX_POLICY_FILES, Policies, PolicyDir, Problem};
pub use record::{Carrier, Confinement, ContainerRecord, Earlier, Unprotected};
pub use refusals::{MAX_REFUSAL_BYTES, Refusals};
pub use residents::Residents;
pub use root::ContainerRoot;
pub use state::{StateDir, hex};
pub use tenants::Tenants;
pub use unknown::Missing;
pub use visibility::{Asks, MAX_VISIBILITY_BYTES, VISIBILITY_ANNOTATION, Visible, VisibleBy, words_of};
