//! Evaluates finished words, step for step as `ebpf/bpf` does.

use portcullis_ebpf::abi;
use portcullis_policy::decide::{Cause, Decision, Operation, Verdict};
use portcullis_policy::network::SocketKind;
use portcullis_policy::syscall::Syscall;

/// A segment and the entry of a set in it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    words: &'a [u32],
    set: &'a abi::Set,
}

impl<'a> View<'a> {
    /// A set in a segment. `words` is the segment from its start; the set was made by this crate.
    #[must_use]
    pub fn new(words: &'a [u32], set: &'a abi::Set) -> View<'a> {
        View { words, set }
    }

    /// What the kernel says of an operation of a task that runs `exe`.
    #[must_use]
    pub fn evaluate(&self, exe: Option<&[u8]>, owner: bool, op: &Operation<'_>) -> Decision {
        let source = exe.map_or(0, |exe| self.source_class(exe));
        match *op {
            Operation::Read { path } => self.told(self.path(source, path).op[abi::READ as usize], owner),
            Operation::Change { path } => self.told(self.path(source, path).op[abi::CHANGE as usize], owner),
            Operation::Exec { path: None, .. } => self.unmatched_exec(),
            Operation::Exec { path: Some(path), unlinked } => {
                let decision = self.told(self.exec(source, path), owner);
                let by_rule = matches!(decision.cause, Cause::Rule(_));
                if unlinked && by_rule && decision.verdict == Verdict::Allow {
                    return self.unmatched_exec();
                }
                decision
            }
            Operation::Socket(socket) => self.entry(self.set.network, source, abi::KINDS, SocketKind::of(socket) as u32),
            Operation::Capability(capability) => {
                self.entry(self.set.capabilities, source, abi::CAPS, u32::from(capability.number()))
            }
            Operation::Syscall { call, path } => self.call(source, call, path),
        }
    }

    /// The source class of an executable.
    #[must_use]
    pub fn source_class(&self, exe: &[u8]) -> u32 {
        match self.set.source_start {
            0 => 0,
            start => self.column(self.walk(start, exe), abi::ROW_DECISION),
        }
    }

    /// The decision on a path, for a source class; without execnames.
    #[must_use]
    pub fn path(&self, source: u32, path: &[u8]) -> abi::Decision {
        self.decision(self.walk(self.word(self.set.starts + source), path))
    }

    /// The summary of what is strictly below a directory, for a source class.
    #[must_use]
    pub fn subtree(&self, source: u32, directory: &[u8]) -> u32 {
        self.column(self.walk(self.word(self.set.starts + source), directory), abi::ROW_SUBTREE)
    }

    /// Both automata speak of an execution, and the smaller rank wins.
    fn exec(&self, source: u32, path: &[u8]) -> abi::DecisionOp {
        let by_path = self.path(source, path).op[abi::EXEC as usize];
        if self.set.name_starts == 0 {
            return by_path;
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let start = self.word(self.set.name_starts + source);
        let by_name = self.decision(name.iter().fold(start, |state, &byte| self.step(state, byte))).op[abi::EXEC as usize];
        if by_name.rank < by_path.rank { by_name } else { by_path }
    }

    /// Component by component, as the kernel meets them. The root has none, and is its slash.
    fn walk(&self, start: u32, path: &[u8]) -> u32 {
        if path == b"/" {
            return self.step(start, b'/');
        }
        let mut state = start;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            if state >= self.set.sink {
                break;
            }
            state = self.step(state, b'/');
            state = name.iter().fold(state, |state, &byte| self.step(state, byte));
        }
        state
    }

    fn step(&self, state: u32, byte: u8) -> u32 {
        let columns: &[u16] = bytemuck::cast_slice(self.words);
        self.column(state + u32::from(columns[self.set.classes as usize / 2 + usize::from(byte)]), 0)
    }

    fn decision(&self, state: u32) -> abi::Decision {
        let id = self.column(state, abi::ROW_DECISION);
        let at = (self.set.decisions + id * abi::DECISION_WORDS) as usize;
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&self.words[at..at + abi::DECISION_WORDS as usize]))
    }

    /// A column of a state's row.
    fn column(&self, state: u32, column: u32) -> u32 {
        self.word(state / 4 + column)
    }

    fn word(&self, index: u32) -> u32 {
        self.words[index as usize]
    }

    fn told(&self, op: abi::DecisionOp, owner: bool) -> Decision {
        let verdict = if owner { op.verdicts & 0xff } else { op.verdicts >> 8 & 0xff };
        told(verdict, op.verdicts >> 16)
    }

    fn unmatched_exec(&self) -> Decision {
        let verdict = self.set.unmatched >> (8 * abi::EXEC) & 0xff;
        told(verdict, if verdict == abi::NONE { abi::RULE_NONE } else { abi::RULE_POSTURE })
    }

    /// A call itself, or its use of a path.
    fn call(&self, source: u32, made: Syscall, path: Option<&[u8]>) -> Decision {
        let nothing = told(abi::NONE, abi::RULE_NONE);
        if self.set.calls == 0 {
            return nothing;
        }
        let word = self.word(self.set.calls + abi::call::X86_64 + u32::from(made.number()));
        match (path, abi::call::column(word).checked_sub(1), abi::call::paths(word).checked_sub(1)) {
            (None, Some(column), _) => self.entry(self.set.call_entries, source, self.set.call_columns, column),
            (Some(path), _, Some(class)) => {
                let start = self.word(self.set.call_starts + source * self.set.call_classes + class);
                self.told(self.decision(self.walk(start, path)).op[abi::call::CALLED as usize], false)
            }
            _ => nothing,
        }
    }

    fn entry(&self, table: u32, source: u32, row: u32, column: u32) -> Decision {
        if table == 0 {
            return told(abi::NONE, abi::RULE_NONE);
        }
        let entry = self.word(table + source * row + column);
        told(entry & 0xff, entry >> 16)
    }
}

fn told(verdict: u32, rule: u32) -> Decision {
    let verdict = match verdict {
        abi::NONE | abi::ALLOW => Verdict::Allow,
        abi::AUDIT => Verdict::Audit,
        _ => Verdict::Block,
    };
    let cause = match rule {
        abi::RULE_POSTURE => Cause::Posture,
        abi::RULE_NONE => Cause::Unmatched,
        rule => Cause::Rule(rule as usize),
    };
    Decision { verdict, cause }
}
