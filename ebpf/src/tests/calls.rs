//! System calls of a labelled process, on the running kernel.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::native::{Cgroup, Room};
use crate::abi::{self, call};
use crate::{Event, Events, Kernel, Options};

/// `chdir`, which a shell calls by itself, once, when it is told to.
const CHDIR: u32 = 80;
const RULE: u32 = 7;
const SET: u32 = 5;
const SLOT: u32 = 3;
/// Word indexes of the tables.
const CALLS: u32 = 512;
const ENTRIES: u32 = CALLS + call::END;

/// A shell with the label, that does a line at a time.
struct Shell {
    child: Child,
    input: ChildStdin,
    _cgroup: Cgroup,
}

impl Shell {
    fn labelled(kernel: &Kernel, name: &str) -> Option<Shell> {
        let Some(cgroup) = Cgroup::make(name) else {
            eprintln!("skipped: no cgroup can be made");
            return None;
        };
        let mut child = Command::new("sh").stdin(Stdio::piped()).spawn().expect("a shell");
        cgroup.hold(child.id());
        let asked = abi::Adoption { cgroup: cgroup.id(), slot: SLOT, epoch: 4, init: child.id(), ..Default::default() };
        assert_eq!(kernel.adopt(asked).expect("a pass").labelled, 1);
        let input = child.stdin.take().expect("its input");
        Some(Shell { child, input, _cgroup: cgroup })
    }

    fn tell(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).expect("a line");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A slot whose set names `chdir`.
fn armed(kernel: &Kernel) {
    let word = |index: u32, value: u32| {
        kernel.segment(0).and_then(|segment| segment.write(4 * index, &value.to_ne_bytes())).expect("a word");
    };
    word(CALLS + call::X86_64 + CHDIR, call::word(1, 0, 0));
    word(ENTRIES, abi::AUDIT | RULE << 16);
    let set = abi::Set {
        flags: abi::SET_USED | abi::SET_CALLS,
        sources: 1,
        calls: CALLS,
        call_entries: ENTRIES,
        call_columns: 1,
        ..Default::default()
    };
    kernel.write_set(SET, &set).expect("a set");
    // A mount namespace and a root that are nobody's: no task here is taken for the runtime.
    let slot = abi::Slot {
        flags: abi::SLOT_ARMED,
        epoch: 4,
        set: SET,
        generation: 2,
        runtime_mntns: 1,
        runtime_root: 1,
        ..Default::default()
    };
    kernel.write_slot(SLOT, &slot).expect("a slot");
}

fn next(events: &mut Events) -> Option<Event> {
    events.next(Duration::from_secs(2)).expect("the ring")
}

#[test]
fn a_call_that_a_rule_names_is_told_once_a_second_and_then_counted() {
    let Some(room) = Room::new("calls") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    armed(&kernel);
    let Some(mut shell) = Shell::labelled(&kernel, "calls") else {
        return;
    };
    let mut events = kernel.events().expect("the reader");
    shell.tell("cd /\n");
    assert_eq!(next(&mut events), None, "nobody watches");

    kernel.set_calls_watched(true).expect("attaching");
    assert!(kernel.calls_watched().expect("pins"));
    shell.tell("cd /; cd /; cd /; umask 022\n");
    let told = next(&mut events).expect("an alert").header;
    assert_eq!((told.op, told.verdict, told.rule), (abi::op::SYSCALL, abi::AUDIT, RULE));
    assert_eq!((told.arg[0], told.tgid, told.repeats), (call::X86_64 + CHDIR, shell.child.id(), 0));
    assert_eq!((told.slot, told.epoch, told.generation, told.set, told.path_len), (SLOT, 4, 2, SET, 0));
    assert_eq!(next(&mut events), None, "the same is counted, and another call is not named");
    let counts = kernel.counts().expect("counts");
    assert_eq!((counts.audited, counts.repeated, counts.seq, counts.lost), (3, 2, 1, 0));

    shell.tell("cd /\n");
    assert_eq!(next(&mut events).expect("a second later").header.repeats, 2);

    kernel.set_calls_watched(false).expect("detaching");
    assert!(!kernel.calls_watched().expect("pins"));
    shell.tell("cd /\n");
    assert_eq!(next(&mut events), None, "nobody watches any more");
}

#[test]
fn an_upgrade_goes_on_watching() {
    let Some(room) = Room::new("calls-upgrade") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    kernel.set_calls_watched(true).expect("attaching");
    let attached = |kernel: &Kernel| {
        let programs = kernel.programs().expect("programs");
        programs.iter().filter(|program| program.name == crate::calls::PROGRAM && program.attached).count()
    };
    assert_eq!(attached(&kernel), 1);
    let upgraded = room.load(Options { anew: true, ..Options::default() }).expect("upgrading");
    assert!(upgraded.calls_watched().expect("pins"));
    assert_eq!(attached(&upgraded), 1, "the old one is out");
    upgraded.set_calls_watched(false).expect("detaching");
    assert_eq!(attached(&upgraded), 0);
    let quiet = room.load(Options { anew: true, ..Options::default() }).expect("upgrading");
    assert!(!quiet.calls_watched().expect("pins"), "nobody asked");
}
