//! The tables of what has no path: by source class, then by socket kind, capability or class of system calls.

use portcullis_ebpf::abi;
use portcullis_policy::meaning::{Action, Class, Object, RuleSet};
use portcullis_policy::network::SocketKind;

use super::calls::CallClasses;
use super::candidates::Candidates;

/// What both tables have for nothing: no verdict, no rule.
const NOTHING: u32 = abi::NONE | abi::RULE_NONE << 16;

/// `u32[sources][KINDS]`; empty without network rules.
pub(super) fn network(set: &RuleSet, candidates: &Candidates) -> Vec<u32> {
    let row = abi::KINDS as usize;
    let mut unmatched = vec![NOTHING; row];
    for kind in SocketKind::ALL {
        if kind.has_posture() {
            unmatched[kind as usize] = posture(candidates.unmatched_network);
        }
    }
    fill(set, candidates, Class::Network, &unmatched, |object| match object {
        Object::Protocol(protocol) => {
            SocketKind::ALL.into_iter().filter(|kind| protocol.covers_kind(*kind)).map(|kind| kind as usize).collect()
        }
        _ => Vec::new(),
    })
}

/// `u32[sources][CAPS]`; empty without capability rules.
pub(super) fn capabilities(set: &RuleSet, candidates: &Candidates) -> Vec<u32> {
    // Capabilities that a newer kernel adds have no name here. An allow-list does not allow them.
    let unmatched = [posture(candidates.unmatched_capability); abi::CAPS as usize];
    fill(set, candidates, Class::Capability, &unmatched, |object| match object {
        Object::Capability(capability) => vec![usize::from(capability.number())],
        _ => Vec::new(),
    })
}

/// `u32[sources][columns]`, a column for each class of calls; empty without rules on calls themselves.
pub(super) fn calls(set: &RuleSet, candidates: &Candidates, columns: &CallClasses) -> Vec<u32> {
    fill(set, candidates, Class::Syscall, &vec![NOTHING; columns.len()], |object| match object {
        Object::Syscall { call, at: None } => columns.spoken_for_by(*call).map(|class| class as usize).into_iter().collect(),
        _ => Vec::new(),
    })
}

fn posture(verdict: u32) -> u32 {
    if verdict == abi::NONE { NOTHING } else { verdict | abi::RULE_POSTURE << 16 }
}

/// Writes the rules into the rows of their source classes, the strongest first, each column once.
fn fill(
    set: &RuleSet,
    candidates: &Candidates,
    class: Class,
    unmatched: &[u32],
    columns: impl Fn(&Object) -> Vec<usize>,
) -> Vec<u32> {
    let of_class: Vec<_> = candidates.others.iter().filter(|(rule, _)| set.rules[*rule].class == class).collect();
    if of_class.is_empty() {
        return Vec::new();
    }
    let row = unmatched.len();
    let mut table: Vec<Option<u32>> = vec![None; row * candidates.classes];
    for &&(index, object) in &of_class {
        let rule = &set.rules[index];
        let verdict = match rule.action {
            // Whatever it says, see `portcullis_policy::decide`.
            _ if class == Class::Syscall => abi::AUDIT,
            Action::Allow => abi::ALLOW,
            Action::Audit => abi::AUDIT,
            Action::Block => abi::BLOCK,
        };
        let everybody: Vec<u32>;
        let sources = if rule.sources.is_empty() {
            everybody = (0..candidates.classes as u32).collect();
            &everybody
        } else {
            &candidates.classes_of[index]
        };
        for column in columns(&rule.objects[object]) {
            for &source in sources {
                table[source as usize * row + column].get_or_insert(verdict | (index as u32) << 16);
            }
        }
    }
    table.iter().enumerate().map(|(at, entry)| entry.unwrap_or(unmatched[at % row])).collect()
}
