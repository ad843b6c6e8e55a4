//! AppArmor's path expressions (AARE), as sequences without groups, and how they are written.
//!
//! What is printed here is read by `apparmor_parser`, so a name that comes from a policy or an image must not be able to end its
//! quotes, become a wildcard or name a variable. Only letters, digits, `_`, `.`, `-` and `/` are written as they are; every other
//! byte as the octal escape that the parser's lexer (`processquoted` in its `parser_misc.c`) turns into the byte, escaped
//! once more where it would be a wildcard.
//!
//! The parser gives a star a second meaning: right after a `/`, and before another or the end, `*` and `**` need one byte. They are
//! written `{,*}` and `{,**}` there, which need none; who wants one writes `?` before it.

use std::fmt;

/// Some of the bytes that a path can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// No byte.
    pub(super) const EMPTY: ByteSet = ByteSet([0; 4]);
    /// What a name can have: everything but NUL and `/`.
    pub(super) const NAME: ByteSet = ByteSet([!(1 | 1 << b'/'), u64::MAX, u64::MAX, u64::MAX]);
    /// The separator.
    pub(super) const SLASH: ByteSet = ByteSet([1 << b'/', 0, 0, 0]);

    pub(super) fn of(byte: u8) -> ByteSet {
        let mut set = ByteSet::EMPTY;
        set.insert(byte);
        set
    }

    pub(super) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn contains(self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & 1 << (byte & 63) != 0
    }

    pub(super) fn meets(self, other: ByteSet) -> bool {
        self.0.iter().zip(other.0).any(|(mine, theirs)| mine & theirs != 0)
    }

    pub(super) fn and(self, other: ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    pub(super) fn or(self, other: ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub(super) fn without(self, other: ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The byte, where it is only one.
    pub(super) fn single(self) -> Option<u8> {
        let mut bytes = self.bytes();
        bytes.next().filter(|_| bytes.next().is_none())
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        (1..=255).filter(move |&byte| self.contains(byte))
    }

    /// Its longest runs of consecutive bytes.
    fn runs(self) -> Vec<(u8, u8)> {
        let mut runs: Vec<(u8, u8)> = Vec::new();
        for byte in self.bytes() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == byte => *last = byte,
                _ => runs.push((byte, byte)),
            }
        }
        runs
    }
}

/// One element of a path expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Element {
    /// One byte of these.
    One(ByteSet),
    /// Any run of bytes without `/`, also an empty one.
    Star,
    /// Any run of bytes, also an empty one.
    DoubleStar,
}

/// Elements one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Sequence(Vec<Element>);

impl Sequence {
    pub(super) fn literal(bytes: &[u8]) -> Sequence {
        Sequence(bytes.iter().map(|&byte| Element::One(ByteSet::of(byte))).collect())
    }

    /// Adds an element. Of stars beside each other the wider says it all.
    pub(super) fn push(&mut self, element: Element) {
        match (self.0.last_mut(), element) {
            (Some(Element::DoubleStar), Element::Star | Element::DoubleStar) | (Some(Element::Star), Element::Star) => {}
            (Some(last @ Element::Star), Element::DoubleStar) => *last = Element::DoubleStar,
            _ => self.0.push(element),
        }
    }

    pub(super) fn extend(&mut self, elements: &[Element]) {
        elements.iter().for_each(|&element| self.push(element));
    }

    /// With another element.
    pub(super) fn then(mut self, element: Element) -> Sequence {
        self.push(element);
        self
    }

    /// This one, after another.
    pub(super) fn after(&self, head: &Sequence) -> Sequence {
        let mut whole = head.clone();
        whole.extend(&self.0);
        whole
    }

    /// Whether it could match a path at all. None has an empty name or a byte of no set in it; and the parser would read two slashes
    /// as one (`filter_slashes` in its `parser_regex.c`).
    pub(super) fn is_possible(&self) -> bool {
        let slash = Element::One(ByteSet::SLASH);
        !self.0.contains(&Element::One(ByteSet::EMPTY)) && !self.0.windows(2).any(|pair| pair == [slash, slash])
    }

    pub(super) fn elements(&self) -> &[Element] {
        &self.0
    }

    /// The bytes, where it matches nothing else.
    pub(super) fn as_literal(&self) -> Option<Vec<u8>> {
        let byte = |element: &Element| match element {
            Element::One(set) => set.single(),
            Element::Star | Element::DoubleStar => None,
        };
        self.0.iter().map(byte).collect()
    }
}

impl From<&[Element]> for Sequence {
    fn from(elements: &[Element]) -> Sequence {
        let mut sequence = Sequence::default();
        sequence.extend(elements);
        sequence
    }
}

/// As it is written between quotes.
impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut after_slash = false;
        for element in &self.0 {
            match element {
                Element::One(set) => one(*set, f)?,
                Element::Star => f.write_str(if after_slash { "{,*}" } else { "*" })?,
                Element::DoubleStar => f.write_str(if after_slash { "{,**}" } else { "**" })?,
            }
            after_slash = *element == Element::One(ByteSet::SLASH);
        }
        Ok(())
    }
}

/// Writes a byte so that it is nothing but itself between quotes.
fn literal(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte) {
        write!(f, "{}", char::from(byte))
    } else {
        write!(f, "\\{byte:03o}")
    }
}

/// What has a meaning in a class or is kept escaped by the lexer, so that it cannot begin or end a range.
const NO_BOUND: &[u8] = b"-]^[\\*?{},";

/// A negated class would match `/` and NUL, so a set is written as what it has.
fn one(set: ByteSet, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if set == ByteSet::NAME {
        return f.write_str("?");
    }
    if let Some(byte) = set.single() {
        return literal(byte, f);
    }
    let (mut ranges, mut alone) = (Vec::new(), Vec::new());
    for (mut first, mut last) in set.runs() {
        while first < last && NO_BOUND.contains(&first) {
            alone.push(first);
            first += 1;
        }
        while first < last && NO_BOUND.contains(&last) {
            alone.push(last);
            last -= 1;
        }
        if NO_BOUND.contains(&first) { alone.push(first) } else { ranges.push((first, last)) }
    }
    let group = !alone.is_empty();
    if group {
        f.write_str("{")?;
    }
    for (place, byte) in alone.iter().enumerate() {
        if place > 0 {
            f.write_str(",")?;
        }
        literal(*byte, f)?;
    }
    if !ranges.is_empty() {
        f.write_str(if group { ",[" } else { "[" })?;
        for (first, last) in ranges {
            literal(first, f)?;
            if first < last {
                f.write_str("-")?;
                literal(last, f)?;
            }
        }
        f.write_str("]")?;
    }
    if group { f.write_str("}") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bytes: &[u8]) -> ByteSet {
        bytes.iter().fold(ByteSet::EMPTY, |set, &byte| set.or(ByteSet::of(byte)))
    }

    #[test]
    fn what_is_not_plain_is_escaped() {
        let hostile = Sequence::literal(b"/a b\"\n}@{x}*?[]^,\\//&\xff#");
        let written = r"/a\040b\042\012\175\100\173x\175\052\077\133\135\136\054\134//\046\377\043";
        assert_eq!(hostile.to_string(), written);
    }

    #[test]
    fn a_star_after_a_slash_may_be_empty() {
        let mut sequence = Sequence::literal(b"/");
        sequence.push(Element::Star);
        sequence.extend(Sequence::literal(b"a").elements());
        sequence.push(Element::Star);
        sequence.push(Element::DoubleStar);
        assert_eq!(sequence.to_string(), "/{,*}a**");
    }

    #[test]
    fn what_has_a_meaning_in_a_class_stands_beside_it() {
        assert_eq!(Sequence(vec![Element::One(set(b"abcx"))]).to_string(), "[a-cx]");
        assert_eq!(Sequence(vec![Element::One(set(b"]^-a"))]).to_string(), r"{-,\135,\136,[a]}");
        assert_eq!(Sequence(vec![Element::One(ByteSet::NAME.without(set(b"a")))]).to_string(), r"[\001-.0-\140b-\377]");
        assert_eq!(Sequence(vec![Element::One(ByteSet::NAME)]).to_string(), "?");
    }
}
