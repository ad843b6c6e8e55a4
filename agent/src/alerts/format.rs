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

/// An event as it is written, in each format that somebody has asked for. Kept only where several readers get the event: for one alone it
/// would be written into memory that is thrown away at once.
#[derive(Debug, Default)]
pub(crate) struct Renderings(Option<Box<[OnceLock<Bytes>; FORMATS]>>);

impl Renderings {
    /// Several readers get the event.
    pub(crate) fn share(&mut self) {
        self.0 = Some(Box::default());
    }

    /// Writes the event as a line after what is there, by what is kept of it if anything is. Nothing is kept of what is written now.
    pub(crate) fn write(&self, lines: &mut Vec<u8>, format: EventFormat, put: impl FnOnce(&mut Vec<u8>)) {
        match self.place(format).and_then(OnceLock::get) {
            Some(line) => lines.extend_from_slice(line),
            None => put(lines),
        }
    }

    /// The event as a line, which is kept where it is one of those.
    pub(crate) fn line(&self, format: EventFormat, put: impl FnOnce(&mut Vec<u8>)) -> Cow<'_, [u8]> {
        match self.place(format) {
            Some(place) => Cow::Borrowed(place.get_or_init(|| json::line_by(put).into_boxed_slice().into())),
            None => Cow::Owned(json::line_by(put)),
        }
    }

    /// The event in a format. The first who wants it waits for it to be written, and so do the others.
    pub(crate) fn get(&self, format: Format, write: impl FnOnce() -> Vec<u8>) -> Bytes {
        match &self.0 {
            Some(places) => places[format as usize].get_or_init(|| write().into_boxed_slice().into()).clone(),
            None => write().into(),
        }
    }

    fn place(&self, format: EventFormat) -> Option<&OnceLock<Bytes>> {
        Some(&self.0.as_ref()?[kept(format)? as usize])
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

/// Bytes of what is written as a text in JSON, where what is no UTF-8 is U+FFFD, at most.
pub(crate) fn json_bytes_of(bytes: &[u8]) -> usize {
    let each = |&byte: &u8| match byte {
        0..b' ' => 6,
        b'"' | b'\\' => 2,
        // Of a character of several, or by itself.
        0x80.. => 3,
        _ => 1,
    };
    bytes.iter().map(each).sum()
}
