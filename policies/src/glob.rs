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

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

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
    #[error(
        "the groups of the pattern expand to more than {MAX_GLOB_ALTERNATIVES} patterns; split it into several rules"
    )]
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

/// Where a match may have come to in `path` after `nodes`, given where it may have been before them.
fn advance(nodes: &[Node], path: &[u8], mut from: Vec<bool>) -> Vec<bool> {
    for node in nodes {
        let mut to = vec![false; path.len() + 1];
        match node {
            Node::Literal(bytes) => step(&from, &mut to, bytes.len(), |at| path[at..].starts_with(bytes)),
            Node::AnyChar => step(&from, &mut to, 1, |at| path.get(at).is_some_and(|&byte| byte != b'/')),
            Node::Class { ranges, negated } => {
                step(&from, &mut to, 1, |at| path.get(at).is_some_and(|&byte| class_contains(ranges, *negated, byte)))
            }
            Node::Star { min } => run(&from, &mut to, *min, |at| path[at] != b'/'),
            Node::DoubleStar { min } => run(&from, &mut to, *min, |_| true),
            Node::Alternatives(alternatives) => {
                for alternative in alternatives {
                    for (at, reached) in advance(alternative, path, from.clone()).into_iter().enumerate() {
                        to[at] |= reached;
                    }
                }
            }
        }
        from = to;
    }
    from
}

/// From each position where `here` holds, exactly `width` further.
fn step(from: &[bool], to: &mut [bool], width: usize, here: impl Fn(usize) -> bool) {
    for at in 0..from.len() {
        if from[at] && here(at) {
            to[at + width] = true;
        }
    }
}

/// From each position, as far as `passes` lets, but at least `min` (0 or 1) bytes.
fn run(from: &[bool], to: &mut [bool], min: u8, passes: impl Fn(usize) -> bool) {
    for at in 0..from.len() {
        if from[at] && min == 0 {
            to[at] = true;
        }
        let come_from_here = from[at] || to[at];
        if come_from_here && at + 1 < from.len() && passes(at) {
            to[at + 1] = true;
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// A sequence up to the end of the text or, within a group, up to its `,` or `}`, which is left unread.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, GlobError> {
        let mut nodes = Vec::new();
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'*' => {
                    let stars = self.text[self.at..].iter().take_while(|&&next| next == b'*').count();
                    self.at += stars;
                    nodes.push(if stars == 1 { Node::Star { min: 0 } } else { Node::DoubleStar { min: 0 } });
                }
                b'?' => {
                    self.at += 1;
                    nodes.push(Node::AnyChar);
                }
                b'[' => nodes.push(self.class()?),
                b'{' => nodes.push(self.group(depth + 1)?),
                b'}' => return Ok(nodes),
                b',' if depth > 0 => return Ok(nodes),
                b'\\' => {
                    let escaped = *self.text.get(self.at + 1).ok_or(GlobError::LoneEscape)?;
                    self.at += 2;
                    push_literal(&mut nodes, escaped);
                }
                _ => {
                    self.at += 1;
                    push_literal(&mut nodes, byte);
                }
            }
        }
        Ok(nodes)
    }

    fn group(&mut self, depth: usize) -> Result<Node, GlobError> {
        let start = self.at;
        if depth > MAX_GLOB_DEPTH {
            return Err(GlobError::TooDeep(start));
        }
        let mut alternatives = Vec::new();
        loop {
            self.at += 1; // the `{` or `,`
            alternatives.push(self.sequence(depth)?);
            match self.text.get(self.at) {
                Some(b',') => {}
                Some(_) => break, // sequence() stops at `,` and `}` only
                None => return Err(GlobError::UnclosedGroup(start)),
            }
        }
        self.at += 1;
        if alternatives.iter().all(Vec::is_empty) {
            return Err(GlobError::EmptyGroup(start));
        }
        Ok(Node::Alternatives(alternatives))
    }

    fn class(&mut self) -> Result<Node, GlobError> {
        let start = self.at;
        self.at += 1;
        let negated = self.text.get(self.at) == Some(&b'^');
        if negated {
            self.at += 1;
        }
        let mut ranges = Vec::new();
        loop {
            match self.text.get(self.at) {
                None => return Err(GlobError::UnclosedClass(start)),
                Some(b']') => break,
                Some(_) => {}
            }
            let first = self.class_byte(start)?;
            // A `-` right before the `]` is a member, as in every other dialect.
            let ranged = self.text.get(self.at) == Some(&b'-') && self.text.get(self.at + 1) != Some(&b']');
            if !ranged {
                ranges.push((first, first));
                continue;
            }
            self.at += 1;
            let last = self.class_byte(start)?;
            if last < first {
                return Err(GlobError::BackwardRange { at: start, first, last });
            }
            ranges.push((first, last));
        }
        self.at += 1;
        if ranges.is_empty() {
            return Err(GlobError::EmptyClass(start));
        }
        Ok(Node::Class { ranges, negated })
    }

    fn class_byte(&mut self, start: usize) -> Result<u8, GlobError> {
        if self.text.get(self.at) == Some(&b'\\') {
            self.at += 1;
        }
        let byte = *self.text.get(self.at).ok_or(GlobError::UnclosedClass(start))?;
        self.at += 1;
        Ok(byte)
    }
}

fn push_literal(nodes: &mut Vec<Node>, byte: u8) {
    match nodes.last_mut() {
        Some(Node::Literal(bytes)) => bytes.push(byte),
        _ => nodes.push(Node::Literal(vec![byte])),
    }
}

/// How many patterns without groups `nodes` stands for.
fn expansions(nodes: &[Node]) -> usize {
    let of_group = |node: &Node| match node {
        Node::Alternatives(alternatives) => {
            alternatives.iter().fold(0usize, |sum, sequence| sum.saturating_add(expansions(sequence)))
        }
        _ => 1,
    };
    nodes.iter().map(of_group).fold(1usize, usize::saturating_mul)
}

/// All of them.
fn expand(nodes: &[Node]) -> Vec<Vec<Node>> {
    let mut flat = vec![Vec::new()];
    for node in nodes {
        let tails = match node {
            Node::Alternatives(alternatives) => alternatives.iter().flat_map(|sequence| expand(sequence)).collect(),
            other => vec![vec![other.clone()]],
        };
        flat =
            flat.iter().flat_map(|head: &Vec<Node>| tails.iter().map(move |tail| [&head[..], tail].concat())).collect();
    }
    flat
}

/// What every expansion of a sequence begins with.
#[derive(PartialEq, Eq)]
enum Begin {
    Slash,
    Nothing,
    Other,
}

fn begins(nodes: &[Node]) -> Begin {
    let Some((first, rest)) = nodes.split_first() else { return Begin::Nothing };
    match first {
        Node::Literal(bytes) if bytes.first() == Some(&b'/') => Begin::Slash,
        Node::Alternatives(alternatives) => {
            let all_slash = alternatives.iter().all(|alternative| match begins(alternative) {
                Begin::Nothing => begins(rest) == Begin::Slash,
                begin => begin == Begin::Slash,
            });
            let all_nothing = alternatives.iter().all(|alternative| begins(alternative) == Begin::Nothing);
            match (all_slash, all_nothing) {
                (true, _) => Begin::Slash,
                (false, true) => begins(rest),
                (false, false) => Begin::Other,
            }
        }
        _ => Begin::Other,
    }
}

/// What stands before the tail differs from one expansion to another.
struct Ambiguous;

/// Gives the stars that end the pattern their `min`. `after_slash` says whether a `/` stands right before `nodes`, if that is known.
fn mark_tail(nodes: &mut [Node], after_slash: Option<bool>) -> Result<(), Ambiguous> {
    if nodes.is_empty() && after_slash.is_none() {
        return Err(Ambiguous); // so what stands before `nodes` is the tail
    }
    let is_star = |node: &Node| matches!(node, Node::Star { .. } | Node::DoubleStar { .. });
    let stars = nodes.iter().rev().take_while(|node| is_star(node)).count();
    let ends_with_group = matches!(nodes.last(), Some(Node::Alternatives(_)));
    if stars == 0 && !ends_with_group {
        return Ok(());
    }
    let tail = nodes.len() - stars.max(1);
    let slash = match nodes[..tail].last() {
        None => after_slash,
        Some(Node::Literal(bytes)) => Some(bytes.last() == Some(&b'/')),
        Some(Node::Alternatives(_)) => None,
        // Within the group the run of stars would go on.
        Some(node) if is_star(node) && ends_with_group => None,
        Some(_) => Some(false),
    };
    match &mut nodes[tail] {
        Node::Star { min } | Node::DoubleStar { min } => *min = u8::from(slash.ok_or(Ambiguous)?),
        Node::Alternatives(alternatives) => {
            for alternative in alternatives {
                mark_tail(alternative, slash)?;
            }
        }
        _ => {}
    }
    Ok(())
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
#[path = "glob_tests.rs"]
mod tests;
