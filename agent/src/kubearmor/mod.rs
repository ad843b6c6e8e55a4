//! KubeArmor's own formats of events, so that what reads KubeArmor's reads ours: `karmor logs`, its relay, dashboards.
//!
//! Nothing is known here that an alert does not tell. A field that nobody can fill is left out, as KubeArmor leaves out its empty
//! ones; what these formats have no place for is in our own lines ([`crate::alerts::line`]).

mod access;
mod convert;
mod host;
mod log;
mod message;

pub use host::Host;
pub use message::{Alert, ExecEvent, Log, Message, NonceMessage, Podowner, ReplyMessage, RequestMessage};

#[cfg(test)]
pub(crate) mod tests;
