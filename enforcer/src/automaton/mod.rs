//! Compiles a [`RuleSet`] into the tables that the kernel programs walk.
//!
//! One automaton decides every path operation of a container: its states are rows of a dense table, a byte costs one load,
//! and the number of rules costs nothing. The steps, each a file of its own:
//!
//! 1. [`candidates`]: every (rule, object) in order of precedence, with what it says for reads, changes and executions;
//!    the executables that `fromSource` names, grouped into *source classes* that the same rules apply to.
//!    [`sources`] has the latter, and [`calls`] groups the system calls that the same rules are about.
//! 2. [`nfa`]: all objects in one trie whose edges are literal bytes and wildcards, so that common prefixes, literal or not,
//!    exist once. A start state for each source class; execnames, sources, and the paths of each class of
//!    system calls in tries of their own.
//! 3. [`subset`]: determinisation. A state that has entered `/usr/**` forgets all that can no longer win against it.
//! 4. [`minimise`]: states that decide alike become one. The name of the rule is part of a decision: an alert must tell it.
//! 5. [`summary`]: what is blocked somewhere, and what everywhere, below a directory: the guard against renames and links.
//! 6. [`layout`]: the words as `abi.h` has them, free of the place where they will be put.
//!
//! [`walk`] evaluates the finished words as the kernel does. It exists to be compared with
//! [`portcullis_policy::decide::decide`], and for `simulate`.
//!
//! Paths have no slash at their end, but for the root directory, which is nothing else. So its state is one of a kind.

mod calls;
mod candidates;
mod hash;
mod layout;
mod minimise;
mod nfa;
mod pattern;
mod sources;
mod stored;
mod subset;
mod summary;
mod tables;
mod walk;

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod refusals;

use portcullis_ebpf::abi;
use portcullis_policy::meaning::{MAX_RULES, RuleSet};

pub use calls::call_at;
pub(crate) use candidates::Candidates;
pub use hash::content_hash;
pub use layout::Compiled;
pub(crate) use sources::Source;
pub use stored::MAX_STORED_BYTES;
pub use walk::View;

/// How much a policy set may cost. A set over budget is refused with the reason; no rule is ever dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// States of the automaton, before minimisation.
    pub max_states: usize,
    /// Bytes of the finished tables. Never more than a segment, whatever is written here.
    pub max_bytes: usize,
    /// Steps of the builder; about 10 ns each. It bounds the time that a hostile set of patterns can take.
    pub max_steps: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { max_states: 65_536, max_bytes: abi::SEGMENT_BYTES as usize, max_steps: 200_000_000 }
    }
}

/// Sizes of a compiled set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// States after determinisation.
    pub states_built: usize,
    /// States after minimisation: rows of the table.
    pub states: usize,
    /// Byte classes.
    pub classes: usize,
    /// Different decisions.
    pub decisions: usize,
    /// Source classes, the one without a name included.
    pub sources: usize,
    /// Bytes of everything.
    pub bytes: usize,
}

/// What helps against a set that is too large.
const ADVICE: &str =
    "name directories in place of long lists of paths, avoid `**` in the middle of patterns, or narrow the selectors";

/// Why a policy set was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Rule ids are 16 bits in the kernel.
    #[error(
        "the container has {rules} rules and a policy set holds {MAX_RULES}; narrow the selectors or merge rules into directories and patterns"
    )]
    TooManyRules {
        /// Rules of the set.
        rules: usize,
    },
    /// The automaton grew over the budget.
    #[error("the automaton has more than {max} states; most come from {}; {ADVICE}", list(contributors))]
    TooManyStates {
        /// The limit.
        max: usize,
        /// The rules behind most states, the biggest first.
        contributors: Vec<Contributor>,
    },
    /// The tables are larger than the budget or a segment.
    #[error(
        "the tables take {bytes} bytes ({states} states of {classes} byte classes) and {max} are allowed; most come from {}; {ADVICE}",
        list(contributors)
    )]
    TooLarge {
        /// Bytes that would be needed.
        bytes: usize,
        /// The limit.
        max: usize,
        /// States of the automaton.
        states: usize,
        /// Byte classes.
        classes: usize,
        /// The rules behind most states, the biggest first.
        contributors: Vec<Contributor>,
    },
    /// The builder took more steps than the budget has.
    #[error("compiling takes more than {max} steps; most come from {}; {ADVICE}", list(contributors))]
    TooComplex {
        /// The limit.
        max: u64,
        /// The rules behind most states, the biggest first.
        contributors: Vec<Contributor>,
    },
    /// A byte class is one byte wide in the table and two values are reserved.
    #[error(
        "the rules tell {classes} different bytes apart and a policy set can tell {max}; use `?` or `*` in place of unusual bytes"
    )]
    TooManyByteClasses {
        /// Classes that would be needed.
        classes: usize,
        /// The limit.
        max: usize,
    },
}

/// A rule that makes an automaton large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributor {
    /// Index of the rule in its set.
    pub rule: usize,
    /// The object, as it would be written.
    pub object: String,
    /// Where the rule was written: `file:line`.
    pub place: String,
    /// States it has a part in.
    pub states: usize,
}

fn list(contributors: &[Contributor]) -> String {
    let each = |c: &Contributor| format!("`{}` ({}, in {} states)", c.object, c.place, c.states);
    if contributors.is_empty() {
        return "no single rule".to_owned();
    }
    contributors.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Compiles a rule set.
///
/// # Errors
/// When the set is larger or more complex than the budget allows. Nothing is left out to make it fit.
pub fn compile(set: &RuleSet, budget: Budget) -> Result<Compiled, CompileError> {
    if set.rules.len() > MAX_RULES {
        return Err(CompileError::TooManyRules { rules: set.rules.len() });
    }
    let candidates = Candidates::of(set);
    let nfa = nfa::Nfa::build(set, &candidates, budget)?;
    let dfa = subset::determinise(set, &candidates, &nfa, budget)?;
    let minimal = minimise::minimise(&dfa);
    let summary = summary::summarise(&minimal, &dfa.decisions, &candidates);
    layout::lay_out(
        &layout::Parts { set, candidates: &candidates, nfa: &nfa, dfa: &dfa, minimal: &minimal, summary: &summary },
        budget,
    )
}
