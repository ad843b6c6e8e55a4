//! Lines of JSON, as serde_json writes them and three times as fast.
//!
//! Every event goes through here, often in several formats, and half of a line are names of fields that nobody has to look at byte by
//! byte. What this does not write it leaves to serde_json: numbers with fractions, and what no line has.

use std::fmt::{self, Display, Write};

use serde::ser::{self, Serialize, Serializer};

/// What most lines fit in.
const USUAL_BYTES: usize = 1024;

/// One line of JSON, without its end.
///
/// # Panics
/// Never for what has only texts, numbers, lists and maps by text, as all lines here.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL_BYTES);
    write(&mut line, value);
    line
}

/// The same, after what is there.
pub(crate) fn write(lines: &mut Vec<u8>, value: &impl Serialize) {
    let begin = lines.len();
    if value.serialize(Writer(lines)).is_err() {
        lines.truncate(begin);
        serde_json::to_writer(lines, value).expect("texts and numbers have a JSON");
    }
}

/// What is left to serde_json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotHere;

impl Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not among what lines have")
    }
}

impl std::error::Error for NotHere {}

impl ser::Error for NotHere {
    fn custom<T: Display>(_: T) -> NotHere {
        NotHere
    }
}

type Written = Result<(), NotHere>;

/// Writes one value.
struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    fn raw(self, text: &str) -> Written {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn integer(self, number: impl itoa::Integer) -> Written {
        self.raw(itoa::Buffer::new().format(number))
    }

    fn many(self, open: u8, close: u8) -> Many<'a> {
        self.0.push(open);
        Many { out: self.0, is_first: true, close }
    }
}

/// A list or a map that is being written.
struct Many<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
    close: u8,
}

impl Many<'_> {
    fn next(&mut self) -> Writer<'_> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        Writer(self.out)
    }

    fn end(self) -> Written {
        self.out.push(self.close);
        Ok(())
    }
}

/// A byte eight times.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether one of eight bytes is escaped in JSON: a control character, `"` or `\`. (Bit Twiddling Hacks: "Determine if a word has a
/// byte less than n", and with n = 1 of the difference, "equal to n".)
fn has_special(eight: u64) -> bool {
    let has_less = |word: u64, than: u8| word.wrapping_sub(each(than)) & !word & each(0x80);
    (has_less(eight, b' ') | has_less(eight ^ each(b'"'), 1) | has_less(eight ^ each(b'\\'), 1)) != 0
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// The bytes of a text that are written as they are, up to the first that is not.
fn plain(bytes: &[u8]) -> usize {
    let (eights, _) = bytes.as_chunks::<8>();
    let whole = eights.iter().take_while(|eight| !has_special(u64::from_ne_bytes(**eight))).count() * 8;
    whole + bytes[whole..].iter().take_while(|byte| !is_special(**byte)).count()
}

fn escape(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    loop {
        let (as_they_are, special) = rest.split_at(plain(rest));
        out.extend_from_slice(as_they_are);
        let Some((byte, after)) = special.split_first() else { break };
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => b'u',
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let [high, low] = [byte >> 4, byte & 0xf].map(|half| DIGITS[usize::from(half)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
        rest = after;
    }
}

/// Escapes what is written to it.
struct Escaped<'a>(&'a mut Vec<u8>);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = NotHere;
    type SerializeSeq = Many<'a>;
    type SerializeTuple = Many<'a>;
    type SerializeTupleStruct = ser::Impossible<(), NotHere>;
    type SerializeTupleVariant = ser::Impossible<(), NotHere>;
    type SerializeMap = Many<'a>;
    type SerializeStruct = Many<'a>;
    type SerializeStructVariant = ser::Impossible<(), NotHere>;

    fn serialize_bool(self, value: bool) -> Written {
        self.raw(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Written {
        self.integer(value)
    }

    fn serialize_i16(self, value: i16) -> Written {
        self.integer(value)
    }

    fn serialize_i32(self, value: i32) -> Written {
        self.integer(value)
    }

    fn serialize_i64(self, value: i64) -> Written {
        self.integer(value)
    }

    fn serialize_u8(self, value: u8) -> Written {
        self.integer(value)
    }

    fn serialize_u16(self, value: u16) -> Written {
        self.integer(value)
    }

    fn serialize_u32(self, value: u32) -> Written {
        self.integer(value)
    }

    fn serialize_u64(self, value: u64) -> Written {
        self.integer(value)
    }

    fn serialize_f32(self, _: f32) -> Written {
        Err(NotHere)
    }

    fn serialize_f64(self, _: f64) -> Written {
        Err(NotHere)
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Written {
        self.0.push(b'"');
        escape(self.0, value);
        self.0.push(b'"');
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(NotHere)
    }

    fn serialize_none(self) -> Written {
        self.raw("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.raw("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.raw("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Written {
        Err(NotHere)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Many<'a>, NotHere> {
        Ok(self.many(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Many<'a>, NotHere> {
        Ok(self.many(b'[', b']'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NotHere> {
        Err(NotHere)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotHere> {
        Err(NotHere)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Many<'a>, NotHere> {
        Ok(self.many(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Many<'a>, NotHere> {
        Ok(self.many(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotHere> {
        Err(NotHere)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Written {
        self.0.push(b'"');
        write!(Escaped(self.0), "{value}").map_err(|_| NotHere)?;
        self.0.push(b'"');
        Ok(())
    }
}

impl ser::SerializeSeq for Many<'_> {
    type Ok = ();
    type Error = NotHere;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(self.next())
    }

    fn end(self) -> Written {
        Many::end(self)
    }
}

impl ser::SerializeTuple for Many<'_> {
    type Ok = ();
    type Error = NotHere;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(self.next())
    }

    fn end(self) -> Written {
        Many::end(self)
    }
}

impl ser::SerializeMap for Many<'_> {
    type Ok = ();
    type Error = NotHere;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        let next = self.next();
        let begin = next.0.len();
        key.serialize(next)?;
        // What is not a text is no name in JSON.
        if self.out.get(begin) == Some(&b'"') { Ok(()) } else { Err(NotHere) }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.out.push(b':');
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Written {
        Many::end(self)
    }
}

impl ser::SerializeStruct for Many<'_> {
    type Ok = ();
    type Error = NotHere;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Written {
        let next = self.next();
        // A name of Rust's, or one that was given to it here.
        debug_assert_eq!(plain(key.as_bytes()), key.len());
        next.0.push(b'"');
        next.0.extend_from_slice(key.as_bytes());
        next.0.extend_from_slice(b"\":");
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Written {
        Many::end(self)
    }
}

#[cfg(test)]
mod tests;
