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

use serde::Serialize;

/// One line of JSON, without its end.
///
/// # Panics
/// Never for what has only texts, numbers, lists and maps by text, as everything here.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers have a JSON")
}

#[cfg(test)]
pub(crate) mod tests;
