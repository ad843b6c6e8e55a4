//! Patterns as sequences: what the edges of the trie are made of.

use std::collections::HashMap;

use portcullis_policy::glob::{Node, class_contains};

/// One element of a flattened pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    Byte(u8),
    AnyChar,
    /// Index into [`ByteSets`].
    Set(u32),
    Star {
        at_least_one: bool,
    },
    DoubleStar {
        at_least_one: bool,
    },
}

/// The `[...]` of all patterns, each once: which bytes it holds.
#[derive(Debug, Default)]
pub(super) struct ByteSets {
    sets: Vec<[bool; 256]>,
    ids: HashMap<(Vec<(u8, u8)>, bool), u32>,
}

impl ByteSets {
    /// The sequences that a pattern stands for, one for each way to expand its groups. [`MAX_GLOB_ALTERNATIVES`] bounds them.
    ///
    /// [`MAX_GLOB_ALTERNATIVES`]: portcullis_policy::glob::MAX_GLOB_ALTERNATIVES
    pub(super) fn flatten(&mut self, nodes: &[Node]) -> Vec<Vec<Item>> {
        let mut patterns = vec![Vec::new()];
        self.expand(nodes, &mut patterns);
        patterns.iter_mut().for_each(|items| relax(items));
        patterns
    }

    /// The bytes of a set. NUL is in no path.
    pub(super) fn members(&self, id: u32) -> impl Iterator<Item = usize> + '_ {
        (1..256).filter(move |&byte| self.sets[id as usize][byte])
    }

    /// All sets.
    pub(super) fn all(&self) -> impl Iterator<Item = &[bool; 256]> {
        self.sets.iter()
    }

    fn expand(&mut self, nodes: &[Node], heads: &mut Vec<Vec<Item>>) {
        for node in nodes {
            let item = match node {
                Node::Literal(bytes) => {
                    for head in heads.iter_mut() {
                        head.extend(bytes.iter().map(|&byte| Item::Byte(byte)));
                    }
                    continue;
                }
                Node::Alternatives(alternatives) => {
                    let mut expanded = Vec::new();
                    for alternative in alternatives {
                        let mut tails = heads.clone();
                        self.expand(alternative, &mut tails);
                        expanded.append(&mut tails);
                    }
                    *heads = expanded;
                    continue;
                }
                Node::AnyChar => Item::AnyChar,
                Node::Class { ranges, negated } => Item::Set(self.id(ranges, *negated)),
                Node::Star { min } => Item::Star { at_least_one: *min > 0 },
                Node::DoubleStar { min } => Item::DoubleStar { at_least_one: *min > 0 },
            };
            heads.iter_mut().for_each(|head| head.push(item));
        }
    }

    fn id(&mut self, ranges: &[(u8, u8)], negated: bool) -> u32 {
        let key = (ranges.to_vec(), negated);
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        let id = self.sets.len() as u32;
        self.sets.push(std::array::from_fn(|byte| class_contains(ranges, negated, byte as u8)));
        self.ids.insert(key, id);
        id
    }
}

/// A star that ends the pattern right after a `/` needs a byte. No path ends in `/`, so it may as well need none, and then
/// `/usr/**` is settled at `/usr/` like a directory. The root itself is decided elsewhere.
fn relax(items: &mut [Item]) {
    let is_star = |item: &Item| matches!(item, Item::Star { .. } | Item::DoubleStar { .. });
    let tail = items.iter().rposition(|item| !is_star(item)).map_or(0, |last| last + 1);
    if tail == 0 || items[tail - 1] != Item::Byte(b'/') {
        return;
    }
    if let Some(Item::Star { at_least_one } | Item::DoubleStar { at_least_one }) = items.get_mut(tail) {
        *at_least_one = false;
    }
}
