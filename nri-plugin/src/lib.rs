//! The door for containerd and CRI-O: an NRI plugin.
//!
//! | event | what is done | why then |
//! |---|---|---|
//! | CREATE | the enforcer is told who is coming; if a policy is for it, the container gets the *gate hook* | labels are told here and nowhere else; an error fails the creation |
//! | VALIDATE (NRI 0.10) | a container that has lost its gate hook to another plugin is rejected | a plugin that has died fails the next creation instead of letting it pass |
//! | START | what the gate hook did is verified, or done now | the init exists and has executed nothing |
//! | STOP, REMOVE | the container is left to be disarmed once its last task has ended | the grace period has to be covered, too |
//! | Synchronize | what runs already is armed | the plugin may come after the containers |
//!
//! Runtimes fail open: one that waits too long for an answer, or loses the connection, goes on without the plugin. So every
//! request is answered in time, with an error if need be; and so the gate hook, which the runtime runs by itself and which fails
//! closed, is what arms. A pause container has no CREATE, and needs none.
//!
//! Nothing is decided here: [`Enforcement`] is asked. Nothing is asked of the runtime, which would wait for this plugin while
//! this plugin waits for it.

#![warn(missing_docs)]

mod connection;
mod enforcement;
mod facts;
mod gate;
mod init;
mod plugin;

pub use connection::{Connection, ConnectionStatus, INDEX, Link, NAME};
pub use enforcement::{Enforcement, Failure, Running};
pub use facts::facts_of;
pub use gate::{GATE_ANNOTATION, Gate, HOOK_TIMEOUT_SECONDS};
pub use plugin::{Cause, Counts, Plugin, Refused};
