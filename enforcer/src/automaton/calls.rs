//! System calls: where the kernel's table has them, and which are the same to a rule set.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_ebpf::abi::call;
use portcullis_policy::meaning::{Location, Object, RuleSet};
use portcullis_policy::syscall::{PathSeen, Syscall};

/// The call at an index of the table, which an event tells: see [`call`].
#[must_use]
pub fn call_at(index: u32) -> Option<Syscall> {
    let of = |first: u32, meant: fn(u16) -> Option<Syscall>| u16::try_from(index - first).ok().and_then(meant);
    match index {
        call::X86_64..call::I386 => of(call::X86_64, Syscall::from_number),
        call::I386..call::X32 => of(call::I386, Syscall::from_i386),
        call::X32..call::SOCKETCALL => of(call::X32 - call::NUMBERS, Syscall::from_x32),
        call::SOCKETCALL..call::IPC => of(call::SOCKETCALL, Syscall::from_socketcall),
        call::IPC..call::END => of(call::IPC, Syscall::from_ipc),
        _ => None,
    }
}

/// Calls by the rules that name them: those that the same rules name are one class.
#[derive(Debug, Default)]
pub(super) struct CallClasses {
    /// Classes count from 0.
    class_of: BTreeMap<Syscall, u32>,
    /// One call of each class.
    speakers: Vec<Syscall>,
}

impl CallClasses {
    /// By the rules on calls themselves.
    pub(super) fn of_calls(set: &RuleSet) -> CallClasses {
        CallClasses::by(set, |at| at.is_none())
    }

    /// By the rules, and their places, on what calls do to paths.
    pub(super) fn of_paths(set: &RuleSet) -> CallClasses {
        CallClasses::by(set, Option::is_some)
    }

    fn by(set: &RuleSet, wanted: impl Fn(&Option<Location>) -> bool) -> CallClasses {
        let mut named: BTreeMap<Syscall, BTreeSet<(usize, &Option<Location>)>> = BTreeMap::new();
        for (index, rule) in set.rules.iter().enumerate() {
            for object in &rule.objects {
                if let Object::Syscall { call, at } = object
                    && wanted(at)
                {
                    named.entry(*call).or_default().insert((index, at));
                }
            }
        }
        let mut classes = BTreeMap::new();
        let mut made = CallClasses::default();
        for (call, rules) in named {
            let class = *classes.entry(rules).or_insert_with(|| {
                made.speakers.push(call);
                made.speakers.len() as u32 - 1
            });
            made.class_of.insert(call, class);
        }
        made
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.speakers.len()
    }

    /// The class of a call, if some rule names it.
    pub(super) fn of(&self, call: Syscall) -> Option<u32> {
        self.class_of.get(&call).copied()
    }

    /// The class of a call that speaks for it: what rules say of the others is the same.
    pub(super) fn spoken_for_by(&self, call: Syscall) -> Option<u32> {
        self.of(call).filter(|&class| self.speakers[class as usize] == call)
    }
}

/// The table of calls: `u32[call::END]`, empty where no rule names any.
pub(super) fn table(calls: &CallClasses, paths: &CallClasses) -> Vec<u32> {
    if calls.len() + paths.len() == 0 {
        return Vec::new();
    }
    let from_one = |class: Option<u32>| class.map_or(0, |class| class + 1);
    let word = |made: Syscall| call::word(from_one(calls.of(made)), from_one(paths.of(made)), told_at(made.path_seen()));
    (0..call::END).map(|index| call_at(index).map_or(0, word)).collect()
}

/// The hooks that tell a call's path.
fn told_at(seen: PathSeen) -> u32 {
    match seen {
        PathSeen::Open => call::AT_OPEN,
        PathSeen::Exec => call::AT_EXEC,
        PathSeen::Name => call::AT_NAME,
        PathSeen::Attributes | PathSeen::InodeAttributes => call::AT_ATTRIBUTE,
        PathSeen::Mount => call::AT_MOUNT,
        PathSeen::Unseen | PathSeen::NoPath => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Option<Syscall> {
        Some(name.parse().unwrap())
    }

    #[test]
    fn an_index_says_which_call_however_it_was_entered() {
        assert_eq!(call_at(call::X86_64 + 87), named("unlink"));
        assert_eq!(call_at(call::I386 + 10), named("unlink"));
        assert_eq!(call_at(call::I386 + 437), named("openat2"));
        assert_eq!(call_at(call::X32), named("rt_sigaction"));
        assert_eq!(call_at(call::X32 + 8), named("execve"));
        assert_eq!(call_at(call::SOCKETCALL + 2), named("bind"));
        assert_eq!(call_at(call::IPC + 21), named("shmat"));
        assert_eq!([call::I386 - 1, call::END, u32::MAX].map(call_at), [None; 3]);
        assert_eq!([call::X32 + 63, call::SOCKETCALL + 63, call::IPC + 63].map(call_at), [None; 3], "the ends of the ranges");
    }

    #[test]
    fn every_call_has_its_number_as_an_index() {
        for made in Syscall::all() {
            assert_eq!(call_at(call::X86_64 + u32::from(made.number())), Some(made));
        }
    }
}
