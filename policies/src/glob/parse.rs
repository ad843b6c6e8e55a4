//! From text to nodes.

use super::{GlobError, MAX_GLOB_DEPTH, Node};

/// A place in a pattern.
pub(super) struct Parser<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

impl Parser<'_> {
    /// A sequence up to the end of the text or, within a group, up to its `,` or `}`, which is left unread.
    pub(super) fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, GlobError> {
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
