//! The formats in which events are written once, for all who want them. OCSF's is not among them: few follow that, and an event's
//! place in a queue is counted with all that may be kept of it.

use std::sync::OnceLock;

use bytes::Bytes;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line of JSON of our own schema, without its end.
    Line,
    /// One line of KubeArmor's JSON, without its end.
    KubeArmor,
    /// KubeArmor's protobuf message.
    Feeder,
}

/// The number of formats.
pub(crate) const FORMATS: usize = 3;

/// An event as it is written, in each format that somebody has asked for.
#[derive(Debug, Default)]
pub(crate) struct Renderings([OnceLock<Bytes>; FORMATS]);

impl Renderings {
    /// The event in a format, if somebody has had it written.
    pub(crate) fn written(&self, format: Format) -> Option<&Bytes> {
        self.0[format as usize].get()
    }

    /// The event in a format. The first who wants it waits for it to be written.
    pub(crate) fn get(&self, format: Format, write: impl FnOnce() -> Vec<u8>) -> &Bytes {
        self.0[format as usize].get_or_init(|| Bytes::from(write().into_boxed_slice()))
    }
}

/// Bytes of a text in JSON at most.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' { 6 } else { 1 + usize::from(byte == b'"' || byte == b'\\') }).sum()
}
