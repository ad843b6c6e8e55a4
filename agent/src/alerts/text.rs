//! Short texts of events, which need no memory of their own.

use std::ops::Deref;

use serde::{Serialize, Serializer};

/// Bytes of a name as the kernel has it: of a task (`TASK_COMM_LEN`), or of a terminal.
const NAME_BYTES: usize = 16;
/// Such a name as text: where it is no UTF-8, each byte is U+FFFD.
const TEXT_BYTES: usize = NAME_BYTES * '\u{fffd}'.len_utf8();

/// A short name as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    text: [u8; TEXT_BYTES],
    length: u8,
}

impl Short {
    /// The text that a name begins with: it ends at the first zero byte.
    #[must_use]
    pub fn new(name: &[u8; NAME_BYTES]) -> Short {
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        let mut short = Short { text: [0; TEXT_BYTES], length: 0 };
        for chunk in name[..length].utf8_chunks() {
            short.push(chunk.valid());
            if !chunk.invalid().is_empty() {
                short.push("\u{fffd}");
            }
        }
        short
    }

    fn push(&mut self, text: &str) {
        let from = usize::from(self.length);
        self.text[from..from + text.len()].copy_from_slice(text.as_bytes());
        // At most TEXT_BYTES.
        self.length += text.len() as u8;
    }
}

impl Deref for Short {
    type Target = str;

    fn deref(&self) -> &str {
        // It was put together of texts.
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_the_first_zero_and_is_text_whatever_it_is() {
        let name = |bytes: &[u8]| {
            let mut name = [0; NAME_BYTES];
            name[..bytes.len()].copy_from_slice(bytes);
            Short::new(&name).to_string()
        };
        assert_eq!([name(b""), name(b"bash\0garbage"), name("caf\u{e9}".as_bytes())], ["", "bash", "caf\u{e9}"]);
        assert_eq!(name(&[0xff; NAME_BYTES]), "\u{fffd}".repeat(NAME_BYTES), "as long as it can be");
        for bytes in [&b"a\xe2\x82"[..], b"\xe2\x82b", b"\xf0\x9f\x92\xa9\xf0\x9f"] {
            assert_eq!(name(bytes), String::from_utf8_lossy(bytes));
        }
    }
}
