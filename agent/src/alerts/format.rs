//! The formats in which events are written once, for all who want them. OCSF's is not among them: few follow that, and an event's
//! place in a queue is counted with all that may be kept of it.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::control::EventFormat;
use crate::json;

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
    /// Writes the event as a line after what is there, by what is kept of it if anything is. Nothing is kept of what is written now.
    pub(crate) fn write(&self, lines: &mut Vec<u8>, format: EventFormat, put: impl FnOnce(&mut Vec<u8>)) {
        match kept(format).and_then(|format| self.0[format as usize].get()) {
            Some(line) => lines.extend_from_slice(line),
            None => put(lines),
        }
    }

    /// The event as a line, which is kept where it is one of those.
    pub(crate) fn line(&self, format: EventFormat, put: impl FnOnce(&mut Vec<u8>)) -> Cow<'_, [u8]> {
        match kept(format) {
            Some(format) => Cow::Borrowed(self.get(format, || json::line_by(put))),
            None => Cow::Owned(json::line_by(put)),
        }
    }

    /// The event in a format. The first who wants it waits for it to be written.
    pub(crate) fn get(&self, format: Format, write: impl FnOnce() -> Vec<u8>) -> &Bytes {
        self.0[format as usize].get_or_init(|| Bytes::from(write().into_boxed_slice()))
    }
}

/// Where a line of a format is kept.
fn kept(format: EventFormat) -> Option<Format> {
    match format {
        EventFormat::Json => Some(Format::Line),
        EventFormat::Kubearmor => Some(Format::KubeArmor),
        EventFormat::Ocsf => None,
    }
}

/// Bytes of a text in JSON at most.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' { 6 } else { 1 + usize::from(byte == b'"' || byte == b'\\') }).sum()
}
