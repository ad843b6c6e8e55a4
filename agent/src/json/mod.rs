//! Lines of JSON.

use serde::Serialize;

/// What most lines fit in.
const USUAL_BYTES: usize = 1024;

/// Writes a value as one line, without its end, after what is there.
///
/// # Panics
/// Never for what has only texts, numbers, lists and maps by text, as all lines here.
pub(crate) fn write(lines: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(lines, value).expect("texts and numbers have a JSON");
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
