//! A case, by the reference model.

use std::fmt;

use super::tree::Tree;
use super::{Case, DEFAULT_POSTURE, Expectation, FileCall, Op, keeps_last_link};
use crate::decide::{Cause, Operation, Subject, Verdict, decide};
use crate::meaning::{Origin, RuleSet};
use crate::select::{Mode, Selection};

/// How a case ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

/// Why an operation ends as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The rule that stands there decided.
    Rule(Box<Origin>),
    /// The default posture did.
    Posture,
    /// The new name of a link or a rename would let something through that the old one denies.
    Alias,
    /// No rule speaks of it.
    Unmatched,
}

impl Reason {
    /// What a case's `rule` calls it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Reason::Rule(origin) => Some(&origin.policy),
            Reason::Posture => Some(DEFAULT_POSTURE),
            Reason::Alias | Reason::Unmatched => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule(origin) => {
                write!(f, "`{}` ({}:{}: {})", origin.policy, origin.file.display(), origin.line, origin.field)
            }
            Reason::Posture => f.write_str("the default posture"),
            Reason::Alias => f.write_str("the protection of the old name"),
            Reason::Unmatched => f.write_str("no rule"),
        }
    }
}

pub(super) fn evaluate(document: &Expectation, selection: &Selection, case: &Case) -> Outcome {
    let tree = Tree::new(&document.files);
    let set = document.rules(selection);
    let model = Model { set: &set, tree: &tree, exe: case.source.as_ref().map(|path| tree.walk(path, false)), uid: case.uid };
    let mut outcome = model.outcome(&case.op);
    if selection.mode == Mode::Audited {
        outcome.verdict = outcome.verdict.min(Verdict::Audit);
    }
    outcome
}

struct Model<'a> {
    set: &'a RuleSet,
    tree: &'a Tree<'a>,
    exe: Option<Vec<u8>>,
    uid: u32,
}

impl Model<'_> {
    fn outcome(&self, op: &Op) -> Outcome {
        match op {
            Op::File { call: FileCall::Read, path, .. } => {
                let path = self.tree.walk(path, false);
                self.ask(&Operation::Read { path: &path }, self.owns(&path))
            }
            Op::File { call, path, to: None } => {
                let path = self.tree.walk(path, call.keeps_last_link());
                self.ask(&Operation::Change { path: &path }, call.creates() || self.owns(&path))
            }
            Op::File { path, to: Some(to), .. } => self.second_name(path, to),
            Op::Exec(path) | Op::ExecDeleted(path) => {
                let path = self.tree.walk(path, false);
                let unlinked = matches!(op, Op::ExecDeleted(_));
                self.ask(&Operation::Exec { path: Some(&path), unlinked }, self.owns(&path))
            }
            Op::Memfd => self.ask(&Operation::Exec { path: None, unlinked: false }, true),
            Op::Socket(_, socket) => self.ask(&Operation::Socket(*socket), false),
            Op::Capability(capability) => self.ask(&Operation::Capability(*capability), false),
            Op::Syscall { call, path, to, .. } => {
                let paths = [path, to].into_iter().flatten().map(|path| self.tree.walk(path, keeps_last_link(*call)));
                let used = paths.map(|path| self.ask(&Operation::Syscall { call: *call, path: Some(&path) }, false));
                let itself = || self.ask(&Operation::Syscall { call: *call, path: None }, false);
                used.into_iter().find(|outcome| outcome.verdict != Verdict::Allow).unwrap_or_else(itself)
            }
        }
    }

    /// A link or a rename: a change of both names, the stronger verdict; and no way to a name that denies less.
    fn second_name(&self, from: &[u8], to: &[u8]) -> Outcome {
        let (from, to) = (self.tree.walk(from, true), self.tree.walk(to, true));
        let owner = self.owns(&from);
        let old = self.ask(&Operation::Change { path: &from }, owner);
        let new = self.ask(&Operation::Change { path: &to }, owner);
        let worse = if new.verdict > old.verdict { new } else { old };
        let denied = |op: Operation<'_>, owner| self.ask(&op, owner).verdict == Verdict::Block;
        let looser = [false, true].into_iter().any(|owner| {
            let read = denied(Operation::Read { path: &from }, owner) && !denied(Operation::Read { path: &to }, owner);
            let change = denied(Operation::Change { path: &from }, owner) && !denied(Operation::Change { path: &to }, owner);
            let exec = |path| Operation::Exec { path: Some(path), unlinked: false };
            read || change || (denied(exec(&from), owner) && !denied(exec(&to), owner))
        });
        if looser && worse.verdict != Verdict::Block {
            return Outcome { verdict: Verdict::Block, reason: Reason::Alias };
        }
        worse
    }

    fn ask(&self, op: &Operation<'_>, owner: bool) -> Outcome {
        let decision = decide(self.set, &Subject { exe: self.exe.as_deref(), owner }, op);
        let reason = match decision.cause {
            Cause::Rule(index) => Reason::Rule(Box::new(self.set.rules[index].origin.clone())),
            Cause::Posture => Reason::Posture,
            Cause::Unmatched => Reason::Unmatched,
        };
        Outcome { verdict: decision.verdict, reason }
    }

    fn owns(&self, path: &[u8]) -> bool {
        self.tree.owner(path) == self.uid
    }
}
