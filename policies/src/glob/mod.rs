//! AppArmor globs: the one pattern syntax, on every backend and in alerts.
//!
//! | written | matches |
//! |---|---|
//! | `*` | any run of bytes other than `/`, also an empty one |
//! | `**` | any run of bytes, also an empty one |
//! | `?` | one byte other than `/` |
//! | `[abc]`, `[a-z]`, `[^abc]` | one byte of the set, or not of it; never `/` |
//! | `{a,b}` | either; groups nest, and an alternative may be empty |
//! | `\x` | the byte `x` itself |
//!
//! A `*` or `**` that ends the pattern right after a `/` needs at least one byte, as in AppArmor's own parser: `/dir/**` is
//! everything below `/dir/` and not `/dir/` itself, and `/**` is not `/`. With groups this is said of each way to expand
//! them: `/{,a}*` is `/*` or `/a*`, so it matches `/a` and not `/`.
//!
//! Matching is by bytes, because that is what paths are; `?` is one byte of a multi-byte character.
//!
//! This module owns the syntax and a matcher that is easy to believe. It does not own speed: the kernel walks an automaton
//! that the enforcer builds from [`Glob::ast`], and its tests compare that automaton with [`Glob::matches`].

mod advance;
mod expand;
mod parse;

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use advance::advance;
use expand::{Ambiguous, Begin, begins, expand, expansions, mark_tail};
use parse::Parser;

/// Longest pattern, in bytes: as long as the longest path the kernel tells.
pub const MAX_PATTERN_BYTES: usize = 4096;
/// Deepest nesting of `{}`. Keeps the parser's recursion, and everybody else's over the tree, small.
pub const MAX_GLOB_DEPTH: usize = 8;
/// Most patterns that the groups of one pattern may expand to: `{a,b}{c,d}` is four. Bounds the automaton, which is where
/// a pattern of a few hundred bytes could otherwise cost gigabytes.
pub const MAX_GLOB_ALTERNATIVES: usize = 256;

/// A parsed pattern.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Vec<u8>,
    literal_prefix: Vec<u8>,
    nodes: Vec<Node>,
}

/// One element of a pattern; a pattern is a sequence of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// These bytes.
    Literal(Vec<u8>),
    /// `?`
    AnyChar,
    /// `[...]`; see [`class_contains`].
    Class {
        /// Inclusive ranges, as written: they may overlap, and may contain `/`, which a class matches nevertheless never.
        ranges: Vec<(u8, u8)>,
        /// Whether it began with `^`.
        negated: bool,
    },
    /// `*`
    Star {
        /// Fewest bytes that it matches: 0 or 1.
        min: u8,
    },
    /// `**`
    DoubleStar {
        /// Fewest bytes that it matches: 0 or 1.
        min: u8,
    },
    /// `{a,b}`: any of these sequences. An empty one matches nothing at all, successfully.
    Alternatives(Vec<Vec<Node>>),
}

/// Why a pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobError {
    /// The empty text.
    #[error("the pattern is empty")]
    Empty,
    /// More than [`MAX_PATTERN_BYTES`].
    #[error("the pattern has {0} bytes, and {MAX_PATTERN_BYTES} are the most there may be")]
    TooLong(usize),
    /// Some expansion does not begin with `/`, so it could match no path.
    #[error("the pattern does not begin with `/` and would match no path; write `{suggestion}`")]
    NotAbsolute {
        /// The pattern that was probably meant.
        suggestion: String,
    },
    /// A zero byte: no path has one.
    #[error("the pattern has a zero byte at offset {0}, which no path has")]
    Zero(usize),
    /// A `\` ends the pattern.
    #[error("the pattern ends with a lone `\\`; write `\\\\` for a backslash")]
    LoneEscape,
    /// `[` without `]`.
    #[error("the `[` at offset {0} has no `]`; write `\\[` for the bracket itself")]
    UnclosedClass(usize),
    /// `[]` or `[^]`.
    #[error("the class at offset {0} is empty")]
    EmptyClass(usize),
    /// `[z-a]`
    #[error("the class at offset {at} has the range `{}-{}`, which runs backwards", .first.escape_ascii(), .last.escape_ascii())]
    BackwardRange {
        /// Offset of the `[`.
        at: usize,
        /// As written.
        first: u8,
        /// As written.
        last: u8,
    },
    /// `{` without `}`.
    #[error("the `{{` at offset {0} has no `}}`; write `\\{{` for the brace itself")]
    UnclosedGroup(usize),
    /// `{}`
    #[error("the group at offset {0} is empty")]
    EmptyGroup(usize),
    /// `}` without `{`.
    #[error("the `}}` at offset {0} closes nothing; write `\\}}` for the brace itself")]
    UnopenedGroup(usize),
    /// More than [`MAX_GLOB_DEPTH`].
    #[error("the group at offset {0} is nested deeper than {MAX_GLOB_DEPTH}")]
    TooDeep(usize),
    /// More than [`MAX_GLOB_ALTERNATIVES`].
    #[error("the groups of the pattern expand to more than {MAX_GLOB_ALTERNATIVES} patterns; split it into several rules")]
    TooManyAlternatives,
}

impl Glob {
    /// Parses a pattern.
    pub fn parse(text: &[u8]) -> Result<Glob, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(GlobError::TooLong(text.len()));
        }
        if let Some(at) = text.iter().position(|&byte| byte == 0) {
            return Err(GlobError::Zero(at));
        }
        let mut parser = Parser { text, at: 0 };
        let mut nodes = parser.sequence(0)?;
        if parser.at < text.len() {
            return Err(GlobError::UnopenedGroup(parser.at));
        }
        if expansions(&nodes) > MAX_GLOB_ALTERNATIVES {
            return Err(GlobError::TooManyAlternatives);
        }
        if begins(&nodes) != Begin::Slash {
            let written = String::from_utf8_lossy(text);
            let suggestion = if text.starts_with(b"**") { format!("/{written}") } else { format!("/**/{written}") };
            return Err(GlobError::NotAbsolute { suggestion });
        }
        let literal_prefix = match nodes.first() {
            Some(Node::Literal(bytes)) => bytes.clone(),
            _ => Vec::new(),
        };
        let mut marked = nodes.clone();
        nodes = match mark_tail(&mut marked, Some(false)) {
            Ok(()) => marked,
            Err(Ambiguous) => {
                let mut flat = expand(&nodes);
                for sequence in &mut flat {
                    // A sequence without groups always says what stands before its tail.
                    let _ = mark_tail(sequence, Some(false));
                }
                vec![Node::Alternatives(flat)]
            }
        };
        Ok(Glob { text: text.to_vec(), literal_prefix, nodes })
    }

    /// Whether it matches the whole of `path`.
    ///
    /// Takes time in proportion to the length of the pattern times the length of the path, whatever they hold.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut start = vec![false; path.len() + 1];
        start[0] = true;
        advance(&self.nodes, path, start)[path.len()]
    }

    /// The bytes before the first wildcard, class or group, unescaped. The longer, the more specific the pattern.
    pub fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// The pattern with the first `length` bytes of its literal prefix replaced by the path `to`. `None` if the prefix is
    /// shorter, or the result would be no pattern (too long, say).
    pub fn rebase(&self, length: usize, to: &[u8]) -> Option<Glob> {
        if length > self.literal_prefix.len() {
            return None;
        }
        let mut rest = &self.text[..];
        for _ in 0..length {
            rest = rest.strip_prefix(b"\\").unwrap_or(rest).split_first()?.1;
        }
        Glob::parse(&[&escape(to), rest].concat()).ok()
    }

    /// The pattern as a tree, for those that build automata from it.
    pub fn ast(&self) -> &[Node] {
        &self.nodes
    }

    /// The pattern as written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Whether a [`Node::Class`] matches `byte`. No class matches `/`.
pub fn class_contains(ranges: &[(u8, u8)], negated: bool, byte: u8) -> bool {
    byte != b'/' && ranges.iter().any(|&(first, last)| (first..=last).contains(&byte)) != negated
}

/// The pattern that matches exactly `path`.
pub fn escape(path: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(path.len());
    for &byte in path {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b',' | b'\\' | b'^') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({self})")
    }
}

/// As its text; as a list of bytes where that is not UTF-8.
impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.text) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Glob, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Glob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a glob")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Glob, E> {
                Glob::parse(text.as_bytes()).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Glob, A::Error> {
                let mut text = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    if text.len() == MAX_PATTERN_BYTES {
                        return Err(de::Error::custom(GlobError::TooLong(text.len() + 1)));
                    }
                    text.push(byte);
                }
                Glob::parse(&text).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests;
