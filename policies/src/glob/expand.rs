//! What the groups of a pattern expand to, and what that says of its ends.

use super::Node;

/// How many patterns without groups `nodes` stands for.
pub(super) fn expansions(nodes: &[Node]) -> usize {
    let of_group = |node: &Node| match node {
        Node::Alternatives(alternatives) => {
            alternatives.iter().fold(0usize, |sum, sequence| sum.saturating_add(expansions(sequence)))
        }
        _ => 1,
    };
    nodes.iter().map(of_group).fold(1usize, usize::saturating_mul)
}

/// All of them.
pub(super) fn expand(nodes: &[Node]) -> Vec<Vec<Node>> {
    let mut flat = vec![Vec::new()];
    for node in nodes {
        let tails = match node {
            Node::Alternatives(alternatives) => alternatives.iter().flat_map(|sequence| expand(sequence)).collect(),
            other => vec![vec![other.clone()]],
        };
        flat = flat.iter().flat_map(|head: &Vec<Node>| tails.iter().map(move |tail| [&head[..], tail].concat())).collect();
    }
    flat
}

/// What every expansion of a sequence begins with.
#[derive(PartialEq, Eq)]
pub(super) enum Begin {
    Slash,
    Nothing,
    Other,
}

pub(super) fn begins(nodes: &[Node]) -> Begin {
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
pub(super) struct Ambiguous;

/// Gives the stars that end the pattern their `min`. `after_slash` says whether a `/` stands right before `nodes`, if that is known.
pub(super) fn mark_tail(nodes: &mut [Node], after_slash: Option<bool>) -> Result<(), Ambiguous> {
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
