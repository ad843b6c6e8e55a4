//! Lines of JSON.

#[cfg(test)]
mod tests;
mod writer;

use serde::Serialize;
use serde::ser::SerializeStruct;

use self::writer::Writer;

/// What most lines fit in.
const USUAL_BYTES: usize = 1024;

/// Writes a value as one line, without its end, after what is there.
///
/// # Panics
/// Never for what has only texts, numbers, lists and maps by text, as all lines here.
pub(crate) fn write(lines: &mut Vec<u8>, value: &impl Serialize) {
    value.serialize(&mut Writer(lines)).expect("texts and numbers have a JSON");
}

/// A value as a line by itself.
#[cfg(any(test, feature = "otlp"))]
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    line_by(|lines| write(lines, value))
}

/// What somebody writes, by itself.
pub(crate) fn line_by(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL_BYTES);
    put(&mut line);
    line
}

/// A field that is absent where it is not known.
pub(crate) fn known<S: SerializeStruct>(
    line: &mut S,
    name: &'static str,
    value: &Option<impl Serialize>,
) -> Result<(), S::Error> {
    value.as_ref().map_or(Ok(()), |value| line.serialize_field(name, value))
}
