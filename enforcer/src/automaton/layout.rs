//! The words, as `abi.h` has them.
//!
//! ```text
//! word 0            byte classes, u16[256]
//!                   u32[sources]            start states of paths
//!                   u32[sources]            start states of last components, if there are execnames
//!                   u32[sources][KINDS]     if there are network rules
//!                   u32[sources][CAPS]      if there are capability rules
//!                   u32[END]                the table of calls, if there are rules on system calls
//!                   u32[sources][columns]   what is said of calls themselves, if there are such rules
//!                   u32[sources][classes]   start states of the paths of calls, if there are such rules
//!                   Decision[decisions]
//!                   rows of the automaton
//! ```
//!
//! States are byte offsets of rows. Here they count from the start of the set; [`Compiled::relocate`] adds the place in the
//! segment. The byte classes come first so that no table has index 0, which says "absent" in `pc_set`.

use portcullis_ebpf::abi;
use portcullis_policy::decide::{Decision, Operation};
use portcullis_policy::meaning::{Class, RuleSet};

use super::calls::{self, CallClasses};
use super::candidates::Candidates;
use super::minimise::Minimal;
use super::nfa::Nfa;
use super::subset::{Dfa, Label};
use super::summary::{RULE_BIT, Summary, blocks};
use super::walk::View;
use super::{Budget, CompileError, Stats, hash, tables};

/// Words of the byte classes.
pub(super) const CLASSES_WORDS: usize = 256 / 2;

/// A compiled rule set, free of the place where it will be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Its entry, as it would be at the start of segment 0.
    pub(super) set: abi::Set,
    /// All that belongs to it.
    pub(super) words: Vec<u32>,
    /// Word index of the first row. Rows go on to the end.
    pub(super) rows: u32,
    /// Words of a row.
    pub(super) row_words: u32,
    pub(super) stats: Stats,
}

impl Compiled {
    /// The content hash of the rule set.
    #[must_use]
    pub fn hash(&self) -> [u64; 2] {
        self.set.hash
    }

    /// `SET_*`, what the rules speak about.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.set.flags
    }

    /// Sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes that it takes in a segment.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.set.length
    }

    /// What to write at byte `base` of segment `segment`, and the entry that leads there.
    ///
    /// `base` is a multiple of [`abi::SET_ALIGN`] and `base + self.size()` at most [`abi::SEGMENT_BYTES`]; `None` otherwise.
    #[must_use]
    pub fn relocate(&self, segment: u32, base: u32) -> Option<(abi::Set, Vec<u8>)> {
        let end = base.checked_add(self.set.length)?;
        if !base.is_multiple_of(abi::SET_ALIGN) || end > abi::SEGMENT_BYTES || segment >= abi::MAX_SEGMENTS {
            return None;
        }
        let delta = base / 4;
        let present = |index: u32| if index == 0 { 0 } else { index + delta };
        let set = abi::Set {
            segment,
            base,
            classes: self.set.classes + base,
            sink: self.set.sink + base,
            source_start: if self.set.source_start == 0 { 0 } else { self.set.source_start + base },
            starts: present(self.set.starts),
            name_starts: present(self.set.name_starts),
            decisions: present(self.set.decisions),
            network: present(self.set.network),
            capabilities: present(self.set.capabilities),
            calls: present(self.set.calls),
            call_entries: present(self.set.call_entries),
            call_starts: present(self.set.call_starts),
            ..self.set
        };
        let mut words = self.words.clone();
        for state in self.state_words() {
            words[state] += base;
        }
        Some((set, bytemuck::cast_slice(&words).to_vec()))
    }

    /// Indexes of all words that hold a state.
    pub(super) fn state_words(&self) -> impl Iterator<Item = usize> + use<> {
        let table = |index: u32, row: u32| match index {
            0 => 0..0,
            _ => index as usize..(index as usize + self.set.sources as usize * row as usize),
        };
        let starts = table(self.set.starts, 1).chain(table(self.set.name_starts, 1));
        let starts = starts.chain(table(self.set.call_starts, self.set.call_classes));
        let (rows, row_words, end) = (self.rows as usize, self.row_words as usize, self.words.len());
        let next_states = move |row: usize| row + abi::ROW_FIRST_CLASS as usize..row + row_words;
        let rows = (rows..end).step_by(row_words).flat_map(next_states);
        starts.chain(rows)
    }

    /// The words with their entry, for evaluation.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::new(&self.words, &self.set)
    }

    /// What the kernel will say of an operation of a task that runs `exe`. See [`View::evaluate`].
    #[must_use]
    pub fn evaluate(&self, exe: Option<&[u8]>, owner: bool, op: &Operation<'_>) -> Decision {
        self.view().evaluate(exe, owner, op)
    }
}

/// What the steps before made.
pub(super) struct Parts<'a> {
    pub(super) set: &'a RuleSet,
    pub(super) candidates: &'a Candidates,
    pub(super) nfa: &'a Nfa,
    pub(super) dfa: &'a Dfa,
    pub(super) minimal: &'a Minimal,
    pub(super) summary: &'a Summary,
}

/// Lays out the words.
pub(super) fn lay_out(parts: &Parts<'_>, budget: Budget) -> Result<Compiled, CompileError> {
    let Parts { set, candidates, nfa, dfa, minimal, summary } = *parts;
    let row_words = minimal.classes + abi::ROW_FIRST_CLASS as usize;
    let states = minimal.labels.len();
    let network = tables::network(set, candidates);
    let capabilities = tables::capabilities(set, candidates);
    let call_columns = CallClasses::of_calls(set);
    let calls = calls::table(&call_columns, &candidates.call_classes);
    let call_entries = tables::calls(set, candidates, &call_columns);

    let mut words = vec![0; CLASSES_WORDS];
    let columns: &mut [u16] = bytemuck::cast_slice_mut(&mut words);
    for (column, &class) in columns.iter_mut().zip(&nfa.class_of) {
        *column = 4 * u16::from(class);
    }
    let starts = words.len();
    let name_starts = starts + minimal.path_starts.len();
    let network_at = name_starts + minimal.name_starts.len();
    let capabilities_at = network_at + network.len();
    let calls_at = capabilities_at + capabilities.len();
    let call_entries_at = calls_at + calls.len();
    let call_starts_at = call_entries_at + call_entries.len();
    let decisions_at = call_starts_at + minimal.call_starts.len();
    let rows = decisions_at + dfa.decisions.len() * abi::DECISION_WORDS as usize;
    let end = rows + states * row_words;

    let stats = Stats {
        states_built: dfa.labels.len(),
        states,
        classes: minimal.classes,
        decisions: dfa.decisions.len(),
        sources: candidates.classes,
        bytes: end * 4,
    };
    let max = budget.max_bytes.min(abi::SEGMENT_BYTES as usize);
    if stats.bytes > max {
        let contributors = dfa.contributors.clone();
        return Err(CompileError::TooLarge { bytes: stats.bytes, max, states, classes: minimal.classes, contributors });
    }

    words.reserve_exact(end - words.len());
    let place = |state: u32| 4 * (rows + state as usize * row_words) as u32;
    words.extend(minimal.path_starts.iter().map(|&state| place(state)));
    words.extend(minimal.name_starts.iter().map(|&state| place(state)));
    words.extend(&network);
    words.extend(&capabilities);
    words.extend(&calls);
    words.extend(&call_entries);
    words.extend(minimal.call_starts.iter().map(|&state| place(state)));
    words.extend_from_slice(bytemuck::cast_slice(&dfa.decisions));
    for state in 0..states as u32 {
        let (label, below) = match minimal.labels[state as usize] {
            Label::Decision(id) | Label::Root(id) => (id, summary.word(state)),
            Label::Source(class) => (class, 0),
        };
        words.extend([label, below]);
        words.extend(minimal.row(state).iter().map(|&next| place(next)));
    }

    let present = |index: usize, len: usize| if len == 0 { 0 } else { index as u32 };
    let header = abi::Set {
        flags: flags(parts) | if call_entries.is_empty() { 0 } else { abi::SET_CALLS },
        length: stats.bytes as u32,
        sink: place(minimal.first_sink),
        sources: candidates.classes as u32,
        source_start: minimal.source_start.map_or(0, place),
        starts: starts as u32,
        name_starts: present(name_starts, minimal.name_starts.len()),
        decisions: decisions_at as u32,
        decisions_len: dfa.decisions.len() as u32,
        network: present(network_at, network.len()),
        capabilities: present(capabilities_at, capabilities.len()),
        calls: present(calls_at, calls.len()),
        call_entries: present(call_entries_at, call_entries.len()),
        call_columns: call_columns.len() as u32,
        call_starts: present(call_starts_at, minimal.call_starts.len()),
        call_classes: candidates.call_classes.len() as u32,
        rules: set.rules.len() as u32,
        hash: hash::content_hash(set),
        unmatched: candidates.unmatched.iter().rev().fold(0, |all, verdict| all << 8 | verdict),
        ..abi::Set::default()
    };
    Ok(Compiled { set: header, words, rows: rows as u32, row_words: row_words as u32, stats })
}

fn flags(parts: &Parts<'_>) -> u32 {
    let mut flags = abi::SET_USED;
    for rule in &parts.set.rules {
        flags |= match rule.class {
            Class::File => abi::SET_FILE,
            Class::Process => abi::SET_PROCESS,
            Class::Network => abi::SET_NETWORK,
            Class::Capability => abi::SET_CAPABILITY,
            // By what of it has tables: a rule may name calls, paths of calls, or both.
            Class::Syscall => 0,
        };
    }
    flags |= if parts.candidates.call_classes.len() > 0 { abi::SET_CALL_PATHS } else { 0 };
    if parts.dfa.decisions.iter().any(|decision| blocks(decision) != 0) {
        flags |= abi::SET_BLOCKS_PATHS;
    }
    for (directory, flag) in [(&b"/proc"[..], abi::SET_PROC_RULES), (b"/sys", abi::SET_SYS_RULES)] {
        let decided = |&start: &u32| {
            let at = directory.iter().fold(start, |state, &byte| {
                let class = parts.nfa.class_of[usize::from(byte)] - abi::ROW_FIRST_CLASS as u8;
                parts.minimal.row(state)[usize::from(class)]
            });
            parts.summary.any[at as usize] & RULE_BIT != 0
        };
        if parts.minimal.path_starts.iter().any(decided) {
            flags |= flag;
        }
    }
    flags
}
