//! The reference model: what a rule set says of one operation. Every backend, alert and report agrees with this.
//!
//! Written to be read. It looks at every rule for every operation; the kernel walks an automaton instead, and tests compare
//! the two.
//!
//! # Which rule decides
//!
//! Each rule stands in the order of precedence once per object it names, as a [`Candidate`]. The first candidate that covers
//! the operation decides. The order is [`precedence`]'s:
//!
//! 1. with a source before without;
//! 2. path, execname, pattern (the longer literal prefix first), directory (the longer first; of the same directory, the
//!    immediate entries before every depth); protocols are as specific as each other, and so are capabilities;
//! 3. block before audit before allow;
//! 4. the stricter: of two allows the `readOnly` one, then the `ownerOnly` one; of two blocks or audits the one that is not
//!    `ownerOnly`, since that lets nobody through in silence;
//! 5. kind, namespace, name and field of the origin, then everything else that a rule has: so two orders of the same rules
//!    never differ in what they decide.
//!
//! # What a rule covers, and what it then says
//!
//! | rule | read | change |
//! |---|---|---|
//! | allow | allow | allow |
//! | allow, `readOnly` | allow | block |
//! | audit | audit | audit |
//! | audit, `readOnly` | not covered | audit |
//! | block | block | block |
//! | block, `readOnly` | not covered | block |
//!
//! With `ownerOnly` the owner is allowed whatever the table has, in silence, and for everybody else an allow becomes a
//! block. The exception is the change that `Allow` with `readOnly` denies: that is denied to the owner too.
//!
//! # Readings
//!
//! Where the words leave room, the safe reading was taken:
//!
//! - `readOnly` says nothing about execution, sockets and capabilities: a rule of those classes is read as if it were not there.
//!   So is `ownerOnly` for sockets and capabilities, which have no owner.
//! - An unlinked executable has the last name it had, as far as blocks and audits go. Where the deciding rule would *allow* it
//!   (an `Allow` rule, or the owner under `ownerOnly`), nothing is decided by that name: it is treated as matched by no rule.
//!   The rules that rank below the one that would have allowed are not asked.
//! - An executable without a path is matched by no process rule, and a subject without a path by no rule with a source.
//! - The last component of `/` is empty, and no `execname` is.
//! - A class is an allow-list as soon as one of its rules has the action `Allow`, whatever its source. An `ownerOnly` rule with
//!   another action does not make one, though it allows its owner.
//! - Unix and netlink sockets are not judged by a posture ([`SocketKind::has_posture`]).
//! - A rule on system calls audits whatever its action, and makes no allow-list: there is nothing that could deny a call by its
//!   number. The call itself and each path that it uses are operations of their own, so that a rule on the one hides none on the
//!   other; and a call that does two things to a path (make it and open it) uses it once.

use serde::{Deserialize, Serialize};

use std::cmp::{Ordering, Reverse};

use crate::capability::Capability;
use crate::glob::Glob;
use crate::meaning::{Action, Class, Location, Object, Posture, Rule, RuleSet, directory_covers};
use crate::network::{Protocol, Socket, SocketKind};
use crate::syscall::Syscall;

/// What is about to be done. Paths are those of the container, absolute and canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation<'a> {
    /// Opening a file to read it.
    Read {
        /// The file.
        path: &'a [u8],
    },
    /// Any change of a file or of a directory's entry.
    Change {
        /// The file or entry.
        path: &'a [u8],
    },
    /// Execution.
    Exec {
        /// The file; `None` where it never had a name (memfd, `O_TMPFILE`).
        path: Option<&'a [u8]>,
        /// Whether `path` is the name that it had until it was unlinked.
        unlinked: bool,
    },
    /// Anything done with a socket.
    Socket(Socket),
    /// Use of a capability.
    Capability(Capability),
    /// A system call, whatever comes of it; or its use of a path that the kernel has found.
    Syscall {
        /// Which.
        call: Syscall,
        /// The path; `None` for the call itself.
        path: Option<&'a [u8]>,
    },
}

impl Operation<'_> {
    /// The class that decides on it.
    pub fn class(&self) -> Class {
        match self {
            Operation::Read { .. } | Operation::Change { .. } => Class::File,
            Operation::Exec { .. } => Class::Process,
            Operation::Socket(_) => Class::Network,
            Operation::Capability(_) => Class::Capability,
            Operation::Syscall { .. } => Class::Syscall,
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Subject<'a> {
    /// The path of the executable that the task runs: for an execution, the one that calls `execve`. `None` if it has none.
    pub exe: Option<&'a [u8]>,
    /// Whether the task's filesystem uid owns the object.
    pub owner: bool,
}

/// What happens to an operation. Ordered by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is let through in silence.
    Allow,
    /// It is let through, with an alert.
    Audit,
    /// It is denied, with an alert.
    Block,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The rule with this index in the set.
    Rule(usize),
    /// The default posture of an allow-list.
    Posture,
    /// No rule speaks of it.
    Unmatched,
}

/// A verdict and its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
}

/// One object of one rule: what stands in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Index in [`RuleSet::rules`].
    pub rule: usize,
    /// Index in [`Rule::objects`].
    pub object: usize,
}

/// What `set` says of `op`, done by `subject`.
pub fn decide(set: &RuleSet, subject: &Subject<'_>, op: &Operation<'_>) -> Decision {
    for candidate in precedence(set) {
        let rule = &*set.rules[candidate.rule];
        let covered =
            rule.class == op.class() && source_matches(rule, subject.exe) && object_matches(&rule.objects[candidate.object], op);
        if !covered {
            continue;
        }
        let Some(verdict) = verdict(rule, op, subject.owner) else { continue };
        if verdict == Verdict::Allow && matches!(op, Operation::Exec { unlinked: true, .. }) {
            break;
        }
        return Decision { verdict, cause: Cause::Rule(candidate.rule) };
    }
    unmatched(set, op)
}

/// Every candidate of the set, the strongest first. Its order depends on what the rules say, not on how they stand in the set.
pub fn precedence(set: &RuleSet) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = set
        .rules
        .iter()
        .enumerate()
        .flat_map(|(rule, meant)| (0..meant.objects.len()).map(move |object| Candidate { rule, object }))
        .collect();
    let of = |candidate: &Candidate| {
        let rule = &*set.rules[candidate.rule];
        (rule, &rule.objects[candidate.object])
    };
    candidates.sort_by(|a, b| compare(of(a), of(b)));
    candidates
}

/// What an operation of this class gets where no rule covers it, sockets without a posture aside: `Allow` where the class is
/// no allow-list, else its posture.
pub fn unmatched_verdict(set: &RuleSet, class: Class) -> Verdict {
    if !is_allow_list(set, class) {
        return Verdict::Allow;
    }
    let posture = match class {
        Class::Process | Class::File => set.postures.file,
        Class::Network => set.postures.network,
        Class::Capability => set.postures.capabilities,
        Class::Syscall => return Verdict::Allow,
    };
    match posture {
        Posture::Audit => Verdict::Audit,
        Posture::Block => Verdict::Block,
    }
}

/// Whether some rule of the class has the action `Allow`.
pub fn is_allow_list(set: &RuleSet, class: Class) -> bool {
    class != Class::Syscall && set.rules.iter().any(|rule| rule.class == class && rule.action == Action::Allow)
}

fn unmatched(set: &RuleSet, op: &Operation<'_>) -> Decision {
    let judged = match op {
        Operation::Socket(socket) => SocketKind::of(*socket).has_posture(),
        _ => true,
    };
    if judged && is_allow_list(set, op.class()) {
        Decision { verdict: unmatched_verdict(set, op.class()), cause: Cause::Posture }
    } else {
        Decision { verdict: Verdict::Allow, cause: Cause::Unmatched }
    }
}

fn source_matches(rule: &Rule, exe: Option<&[u8]>) -> bool {
    rule.sources.is_empty() || exe.is_some_and(|exe| rule.sources.iter().any(|source| source.covers(exe)))
}

fn object_matches(object: &Object, op: &Operation<'_>) -> bool {
    match *op {
        Operation::Read { path } | Operation::Change { path } => path_matches(object, path),
        Operation::Exec { path, .. } => path.is_some_and(|path| path_matches(object, path)),
        Operation::Socket(socket) => matches!(object, Object::Protocol(protocol) if protocol.covers(socket)),
        Operation::Capability(used) => matches!(object, Object::Capability(capability) if *capability == used),
        Operation::Syscall { call: made, path } => match object {
            Object::Syscall { call, at } if *call == made => match (at, path) {
                (None, None) => true,
                (Some(at), Some(path)) => at.covers(path),
                _ => false,
            },
            _ => false,
        },
    }
}

/// Whether an object that names files covers this one.
fn path_matches(object: &Object, path: &[u8]) -> bool {
    match object {
        Object::Path(exact) => exact == path,
        Object::ExecName(name) => !name.is_empty() && path.rsplit(|&byte| byte == b'/').next() == Some(&name[..]),
        Object::Directory { dir, recursive } => directory_covers(dir, *recursive, path),
        Object::Pattern(glob) => glob.matches(path),
        Object::Protocol(_) | Object::Capability(_) | Object::Syscall { .. } => false,
    }
}

/// What a rule says of an operation that its object and source cover; `None` where its access does not cover it.
fn verdict(rule: &Rule, op: &Operation<'_>, owner: bool) -> Option<Verdict> {
    let (read_only, owner_only) = match op {
        Operation::Read { .. } | Operation::Change { .. } => (rule.read_only, rule.owner_only),
        Operation::Exec { .. } => (false, rule.owner_only),
        Operation::Socket(_) | Operation::Capability(_) => (false, false),
        Operation::Syscall { .. } => return Some(Verdict::Audit),
    };
    let is_change = matches!(op, Operation::Change { .. });
    if read_only && rule.action == Action::Allow && is_change {
        return Some(Verdict::Block);
    }
    if read_only && rule.action != Action::Allow && !is_change {
        return None;
    }
    Some(match (rule.action, owner_only, owner) {
        (_, true, true) => Verdict::Allow,
        (Action::Allow, true, false) => Verdict::Block,
        (Action::Allow, false, _) => Verdict::Allow,
        (Action::Audit, _, _) => Verdict::Audit,
        (Action::Block, _, _) => Verdict::Block,
    })
}

/// `Less` is the stronger.
fn compare((a, object_a): (&Rule, &Object), (b, object_b): (&Rule, &Object)) -> Ordering {
    let any_subject = |rule: &Rule| rule.sources.is_empty();
    any_subject(a)
        .cmp(&any_subject(b))
        .then_with(|| specificity(object_a).cmp(&specificity(object_b)).reverse())
        .then_with(|| a.action.cmp(&b.action).reverse())
        .then_with(|| leniency(a).cmp(&leniency(b)))
        .then_with(|| identity(a).cmp(&identity(b)))
        .then_with(|| object_key(object_a).cmp(&object_key(object_b)))
        .then_with(|| a.objects.iter().map(object_key).cmp(b.objects.iter().map(object_key)))
}

/// The greater, the more specific: the sort of object, then the length of what it pins down, then how little it reaches.
fn specificity(object: &Object) -> (u8, usize, bool) {
    match object {
        Object::Path(_) => (3, 0, false),
        Object::ExecName(_) => (2, 0, false),
        Object::Pattern(glob) => (1, glob.literal_prefix().len(), false),
        Object::Directory { dir, recursive } => (0, dir.len(), !recursive),
        // Never compared with the others: their classes are apart.
        Object::Protocol(_) | Object::Capability(_) | Object::Syscall { at: None, .. } => (0, 0, false),
        Object::Syscall { at: Some(Location::Path(_)), .. } => (3, 0, false),
        Object::Syscall { at: Some(Location::Directory { dir, recursive }), .. } => (0, dir.len(), !recursive),
    }
}

/// Of two rules with the same action, the lesser is the stricter.
fn leniency(rule: &Rule) -> (bool, bool) {
    match rule.action {
        Action::Allow => (!rule.read_only, !rule.owner_only),
        Action::Audit | Action::Block => (rule.owner_only, rule.read_only),
    }
}

/// Tells any two rules apart that could decide differently, and many that could not.
fn identity(rule: &Rule) -> impl Ord + '_ {
    let origin = &rule.origin;
    let written = (&origin.kind, &origin.namespace, &origin.policy, &origin.field);
    let place = (&origin.file, origin.line, origin.column);
    (rule.class, written, place, (&rule.sources, Reverse(rule.severity), &rule.message, &rule.tags))
}

/// Any total order will do.
fn object_key(object: &Object) -> (u8, &[u8], Option<Protocol>, u16) {
    match object {
        Object::Path(path) => (0, path, None, 0),
        Object::ExecName(name) => (1, name, None, 0),
        Object::Pattern(glob) => (2, Glob::text(glob), None, 0),
        Object::Directory { dir, recursive } => (3 + u8::from(*recursive), dir, None, 0),
        Object::Protocol(protocol) => (5, &[], Some(*protocol), 0),
        Object::Capability(capability) => (6, &[], None, capability.number().into()),
        Object::Syscall { call, at: None } => (7, &[], None, call.number()),
        Object::Syscall { call, at: Some(Location::Path(path)) } => (8, path, None, call.number()),
        Object::Syscall { call, at: Some(Location::Directory { dir, recursive }) } => {
            (9 + u8::from(*recursive), dir, None, call.number())
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
