//! The matcher: sets of places in the path, one step for each node.

use super::{Node, class_contains};

/// Where a match may have come to in `path` after `nodes`, given where it may have been before them.
pub(super) fn advance(nodes: &[Node], path: &[u8], mut from: Vec<bool>) -> Vec<bool> {
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
