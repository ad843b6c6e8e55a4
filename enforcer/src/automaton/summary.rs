//! The subtree summary: for a state that stands for a directory, what is decided below it.
//!
//! A rename, link or mount of a directory gives new names to all that is below. The kernel lets it pass only if nothing
//! below is blocked by its old names, or everything is by the new ones; it reads both from here.
//!
//! Exact for the path automaton: a path below is `/`, a name of one byte or more, and so on; `//` and NUL never occur.
//! Execnames are another automaton. They do not count as *some path is blocked*, since a directory's move leaves the last
//! component of everything below it as it is. Where one of them lets something through, nothing counts as *all executions
//! are blocked*, since it may outrank the block.

use portcullis_ebpf::abi;

use super::candidates::Candidates;
use super::minimise::Minimal;
use super::subset::Label;

/// Bits of [`Summary::any`] that are blocks, as in `PC_SUB_ANY`.
pub(super) const BLOCK_BITS: u32 = 0x3f;
/// Bit of [`Summary::any`]: a rule decides, whatever it says.
pub(super) const RULE_BIT: u32 = 0x40;

/// By state, over the paths strictly below.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) any: Vec<u32>,
    pub(super) all: Vec<u32>,
}

impl Summary {
    /// The word of the subtree column.
    pub(super) fn word(&self, state: u32) -> u32 {
        self.any[state as usize] & BLOCK_BITS | (self.all[state as usize] & BLOCK_BITS) << 8
    }
}

/// The bits that a decision sets: (2 * group + 0 for the owner, 1 for everybody else) where it blocks.
pub(super) fn blocks(decision: &abi::Decision) -> u32 {
    let mut bits = 0;
    for (group, op) in decision.op.iter().enumerate() {
        bits |= u32::from(op.verdicts & 0xff == abi::BLOCK) << (2 * group);
        bits |= u32::from(op.verdicts >> 8 & 0xff == abi::BLOCK) << (2 * group + 1);
    }
    bits
}

/// Whether some group of a decision is decided by a rule.
fn by_rule(decision: &abi::Decision) -> bool {
    decision.op.iter().any(|op| op.verdicts >> 16 < abi::RULE_ORPHAN)
}

/// Summarises every state.
pub(super) fn summarise(minimal: &Minimal, decisions: &[abi::Decision], candidates: &Candidates) -> Summary {
    let states = minimal.labels.len();
    let (successors, ranges) = name_successors(minimal);
    let here: Vec<u32> = minimal
        .labels
        .iter()
        .map(|label| match label {
            Label::Decision(id) => {
                let decision = &decisions[*id as usize];
                blocks(decision) | if by_rule(decision) { RULE_BIT } else { 0 }
            }
            // Not below anything; what is below it is asked for right after its slash.
            Label::Root(_) | Label::Source(_) => 0,
        })
        .collect();
    // For each state, over what can follow: within or after a name, and right after a slash, where a name must begin.
    let (mut any_name, mut any_slash) = (here.clone(), vec![0; states]);
    let (mut all_name, mut all_slash) = (here, vec![u32::MAX; states]);
    let mut changed = true;
    while changed {
        changed = false;
        // Successors mostly have greater numbers, so backwards most of it settles in one pass.
        for state in (0..states).rev() {
            let slash = minimal.row(state as u32)[minimal.slash] as usize;
            let (mut any, mut all) = (0, u32::MAX);
            for &next in &successors[ranges[state]..ranges[state + 1]] {
                any |= any_name[next as usize];
                all &= all_name[next as usize];
            }
            let now = (any, all, any_name[state] | any | any_slash[slash], all_name[state] & all & all_slash[slash]);
            let before = (any_slash[state], all_slash[state], any_name[state], all_name[state]);
            if now != before {
                changed = true;
                (any_slash[state], all_slash[state], any_name[state], all_name[state]) = now;
            }
        }
    }
    let lost = let_through_by_name(candidates);
    let below = |of: &[u32]| -> Vec<u32> {
        let after_slash = |state: usize| match minimal.labels[state] {
            Label::Root(_) => state,
            Label::Decision(_) | Label::Source(_) => minimal.row(state as u32)[minimal.slash] as usize,
        };
        (0..states).map(|state| of[after_slash(state)]).collect()
    };
    let (any, mut all) = (below(&any_slash), below(&all_slash));
    all.iter_mut().for_each(|bits| *bits &= !lost);
    Summary { any, all }
}

/// Each state's successors by bytes other than `/`, each once.
fn name_successors(minimal: &Minimal) -> (Vec<u32>, Vec<usize>) {
    let states = minimal.labels.len();
    let mut seen = vec![u32::MAX; states];
    let (mut successors, mut ranges) = (Vec::new(), vec![0]);
    for state in 0..states as u32 {
        for (class, &next) in minimal.row(state).iter().enumerate() {
            if class != minimal.slash && seen[next as usize] != state {
                seen[next as usize] = state;
                successors.push(next);
            }
        }
        ranges.push(successors.len());
    }
    (successors, ranges)
}

/// The execution bits of those that some execname lets through.
fn let_through_by_name(candidates: &Candidates) -> u32 {
    let exec = abi::EXEC as usize;
    let verdicts = candidates.paths.iter().filter(|c| c.is_name).filter_map(|c| c.groups[exec]);
    verdicts.fold(0, |bits, said| {
        let owner = u32::from(said.owner != abi::BLOCK) << (2 * exec);
        bits | owner | u32::from(said.other != abi::BLOCK) << (2 * exec + 1)
    })
}
