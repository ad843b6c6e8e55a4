//! What the table knows of a process, in words.

use std::sync::Arc;

use portcullis_ebpf::Event;

use super::{Container, Image, Process, Processes, View};
use crate::alerts::{ParentFacts, ProcessFacts};

impl Processes {
    /// Who raised an alert. Nothing where the table has another container's process by that number: then the end of that one and
    /// the birth of this one were both lost.
    #[must_use]
    pub fn facts_of(&self, event: &Event) -> Option<ProcessFacts> {
        let header = &event.header;
        let view = self.get(header.tgid, header.time_ns)?;
        let label = Container { slot: header.slot, epoch: header.epoch };
        let is_another = view.process.container.is_some_and(|container| container != label);
        (!is_another).then(|| self.facts(view, header.time_ns))
    }

    /// What is known of a process at a time.
    #[must_use]
    pub fn facts(&self, view: View<'_>, at_ns: u64) -> ProcessFacts {
        let View { process, image } = view;
        ProcessFacts {
            ns_pid: (process.ns_pid != 0).then_some(process.ns_pid),
            program: image.map(|image| Arc::clone(&image.program)),
            tty: process.tty,
            exec_id: image.and_then(|image| exec_id(process, image)),
            parent: self.parent_facts(process, at_ns),
        }
    }

    fn parent_facts(&self, process: &Process, at_ns: u64) -> Option<ParentFacts> {
        let pid = process.parent.tgid;
        let parent = self.parent(process, at_ns);
        let ns_pid = match &parent {
            // The number that an event tells may be that of who adopted it since.
            Some(view) if view.process.pid_ns != 0 && process.pid_ns != 0 => {
                Some(if view.process.pid_ns == process.pid_ns { view.process.ns_pid } else { 0 })
            }
            _ => None,
        };
        let program = parent.and_then(|view| view.image.map(|image| Arc::clone(&image.program)));
        (pid != 0).then_some(ParentFacts { pid, ns_pid, program })
    }
}

/// The name of an execution: its time, with the process in the upper bits, which a boot has to last for 73 minutes to reach. Nothing
/// for a program that was inherited, or started before anybody looked: when that was, nobody knows.
fn exec_id(process: &Process, image: &Image) -> Option<u64> {
    (image.since_ns > process.key.started_ns).then_some(image.since_ns ^ u64::from(process.key.tgid) << 42)
}

#[cfg(test)]
mod tests {
    use portcullis_ebpf::monitor::ProcessEvent;
    use portcullis_ebpf::monitor::abi::{self, ARGS_UNREADABLE, EXEC, FORK, PATH_OUTSIDE, PATH_TORN, PATH_UNLINKED};

    use super::*;
    use crate::fake;
    use crate::processes::Limits;

    const SHELL: (u32, u64) = (40, 1_003);
    const CHILD: (u32, u64) = (41, 2_003);

    fn told(kind: u32, key: (u32, u64), parent: (u32, u64), time_ns: u64) -> ProcessEvent {
        let mut header = abi::Process { kind, tgid: key.0, started_ns: key.1, time_ns, slot: 3, epoch: 9, ..Default::default() };
        (header.parent, header.parent_started_ns) = parent;
        (header.pid_ns, header.ns_pid, header.ns_parent) = (77, key.0 - 39, if key == SHELL { 0 } else { 1 });
        header.tty[..4].copy_from_slice(b"pts1");
        ProcessEvent { header, exe: Vec::new(), cwd: Vec::new(), args: Vec::new(), lost_before: 0 }
    }

    fn exec(key: (u32, u64), parent: (u32, u64), time_ns: u64, exe: &[u8], args: &[u8]) -> ProcessEvent {
        ProcessEvent { exe: exe.to_vec(), cwd: b"/srv".to_vec(), args: args.to_vec(), ..told(EXEC, key, parent, time_ns) }
    }

    fn table(events: &[ProcessEvent]) -> Processes {
        let mut table = Processes::new(Limits::default());
        events.iter().for_each(|event| table.apply(event.clone()));
        table
    }

    /// An alert of the child.
    fn alert(time_ns: u64) -> Event {
        let mut event = fake::event(1, b"/etc/shadow");
        (event.header.tgid, event.header.time_ns, event.header.slot, event.header.epoch) = (CHILD.0, time_ns, 3, 9);
        event
    }

    fn history() -> Vec<ProcessEvent> {
        vec![
            exec(SHELL, (1, 5), 1_100, b"/bin/sh", b"sh\0"),
            told(FORK, CHILD, SHELL, 2_004),
            exec(CHILD, SHELL, 2_100, b"/bin/cat", b"cat\0/etc/shadow\0"),
        ]
    }

    fn exe(facts: &ProcessFacts) -> Option<&str> {
        facts.program.as_ref()?.exe()
    }

    #[test]
    fn an_alert_says_who_it_was_then() {
        let table = table(&history());
        let after = table.facts_of(&alert(2_200)).unwrap();
        let program = after.program.as_ref().unwrap();
        assert_eq!((program.exe(), program.cwd(), after.tty().as_deref()), (Some("/bin/cat"), Some("/srv"), Some("pts1")));
        assert_eq!((program.args().unwrap().collect::<Vec<_>>(), after.ns_pid), (vec!["cat", "/etc/shadow"], Some(2)));
        let parent = after.parent.as_ref().unwrap();
        assert_eq!((parent.pid, parent.ns_pid, parent.exe()), (40, Some(1), Some("/bin/sh")));
        assert_eq!(after.exec_id, Some(2_100 ^ 41 << 42));
        let before = table.facts_of(&alert(2_050)).unwrap();
        assert_eq!((exe(&before), before.exec_id), (Some("/bin/sh"), None), "forked, and executing nothing of its own yet");
        assert_eq!(table.facts_of(&alert(2_000)), None, "not born");
        let later = table.facts_of(&alert(2_300)).unwrap();
        assert!(Arc::ptr_eq(program, later.program.as_ref().unwrap()), "one execution is written down once");
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let facts = table(&[told(FORK, CHILD, SHELL, 2_004)]).facts_of(&alert(2_200)).unwrap();
        assert_eq!((&facts.program, facts.exec_id), (&None, None));
        assert_eq!(facts.parent, Some(ParentFacts { pid: 40, ns_pid: None, program: None }));
    }

    #[test]
    fn a_process_of_another_container_is_somebody_else() {
        let table = table(&history());
        let mut event = alert(2_200);
        event.header.epoch = 10;
        assert_eq!(table.facts_of(&event), None);
    }

    #[test]
    fn arguments_and_paths_say_where_they_end_early() {
        /// Most arguments that are told.
        const MOST: usize = 256;
        let mut events = history();
        events[2].args = b"x\0".repeat(MOST);
        let program = |events: &[ProcessEvent]| table(events).facts_of(&alert(2_200)).unwrap().program.unwrap();
        let told = |events: &[ProcessEvent]| {
            let program = program(events);
            (program.args().map(Iterator::count), program.args_cut())
        };
        assert_eq!(told(&events), (Some(MOST), false));
        events[2].args.push(b'x');
        assert_eq!(told(&events), (Some(MOST), true));
        events[2].header.exe_flags = PATH_OUTSIDE | PATH_UNLINKED | 1 << 31;
        events[0].header.exe_flags = PATH_TORN;
        let facts = table(&events).facts_of(&alert(2_200)).unwrap();
        let flags: Vec<_> = program(&events).exe_flags().words().collect();
        assert_eq!((&flags[..], facts.named_exe()), (&["outside", "unlinked"][..], None));
        assert_eq!(facts.parent.unwrap().exe(), None, "another path than the one that leads there");
        events[2].header.args_flags = ARGS_UNREADABLE;
        assert_eq!(told(&events), (None, false));
    }
}
