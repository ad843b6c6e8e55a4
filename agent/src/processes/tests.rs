//! The table against histories: real ones in any order, and ones that try to fill it.

use portcullis_ebpf::monitor::abi::{self, EXEC, EXIT, FORK, NO_SLOT};
use proptest::prelude::*;

use super::*;
use crate::alerts::Program;

const MS: u64 = 1_000_000;

fn event(kind: u32, key: (u32, u64), parent: (u32, u64), time_ns: u64) -> ProcessEvent {
    let header = abi::Process {
        kind,
        tgid: key.0,
        tid: key.0,
        started_ns: key.1,
        parent: parent.0,
        parent_started_ns: parent.1,
        time_ns,
        slot: NO_SLOT,
        ..Default::default()
    };
    ProcessEvent { header, exe: Vec::new(), cwd: Vec::new(), args: Vec::new(), lost_before: 0 }
}

fn fork(key: (u32, u64), parent: (u32, u64)) -> ProcessEvent {
    event(FORK, key, parent, key.1 + 1)
}

fn exec(key: (u32, u64), parent: (u32, u64), time_ns: u64, exe: &[u8]) -> ProcessEvent {
    let args = [exe, b"\0-x\0"].concat();
    ProcessEvent { exe: exe.to_vec(), cwd: b"/".to_vec(), args, ..event(EXEC, key, parent, time_ns) }
}

fn exit(key: (u32, u64), parent: (u32, u64), time_ns: u64) -> ProcessEvent {
    event(EXIT, key, parent, time_ns)
}

fn exe(processes: &Processes, tgid: u32, at_ns: u64) -> Option<Vec<u8>> {
    Some(processes.get(tgid, at_ns)?.image?.program.exe().unwrap_or_default().as_bytes().to_vec())
}

fn table(events: &[ProcessEvent]) -> Processes {
    let mut processes = Processes::new(Limits::default());
    events.iter().for_each(|event| processes.apply(event.clone()));
    processes
}

/// What `/proc` told.
fn seeded_image(exe: &[u8]) -> Image {
    Image { since_ns: 1_230 * MS, program: Arc::new(Program::new([exe.to_vec(), Vec::new(), Vec::new()], [0; 3])) }
}

const INIT: (u32, u64) = (1, 5);
const SHELL: (u32, u64) = (40, 1_003);
const CHILD: (u32, u64) = (41, 2_003);

/// A shell that starts a program of five milliseconds.
fn history() -> Vec<ProcessEvent> {
    vec![
        exec(INIT, (0, 0), 10, b"/init"),
        fork(SHELL, INIT),
        exec(SHELL, INIT, 1_100, b"/bin/sh"),
        fork(CHILD, SHELL),
        exec(CHILD, SHELL, 2_100, b"/usr/bin/\xff\xfe"),
        exit(CHILD, SHELL, 2_100 + 5 * MS),
    ]
}

fn check_history(processes: &Processes) {
    assert_eq!(exe(processes, 41, 2_050).as_deref(), Some(&b"/bin/sh"[..]), "between fork and exec it is the shell");
    assert_eq!(exe(processes, 41, 2_100).as_deref(), Some("/usr/bin/\u{fffd}\u{fffd}".as_bytes()));
    assert_eq!(exe(processes, 40, 1_050).as_deref(), Some(&b"/init"[..]));
    let child = processes.get(41, 3_000).expect("it lives").process;
    let ancestors: Vec<_> = processes.ancestors(child, 3_000).map(|view| view.process.key.tgid).collect();
    assert_eq!(ancestors, [40, 1]);
    assert_eq!(child.exit, Some(Exit { time_ns: 2_100 + 5 * MS, status: Some(0) }));
    assert_eq!(processes.len(), 3);
}

#[test]
fn a_life_of_five_milliseconds_is_known_while_it_lasts_and_after() {
    let processes = table(&history());
    check_history(&processes);
    let image = processes.get(41, 2_100 + 2 * MS).unwrap().image.unwrap();
    assert_eq!(image.program.args().unwrap().collect::<Vec<_>>(), ["/usr/bin/\u{fffd}\u{fffd}", "-x"]);
    assert!(processes.get(41, 2_000).is_none(), "before it was born");
    assert!(processes.get(41, 2_100 + 6 * MS).is_some(), "threads that end with it");
    assert!(processes.get(41, 2_100 + 50 * MS).is_none(), "who has its number then is somebody else");
}

#[test]
fn the_dead_are_remembered_for_a_while() {
    let mut processes = table(&history());
    let end = 2_100 + 5 * MS;
    processes.expire(end + Limits::default().dead_for_ns);
    assert!(processes.get(41, end).is_some());
    processes.expire(end + Limits::default().dead_for_ns + 1);
    assert!(processes.get(41, end).is_none());
    assert_eq!((processes.len(), processes.evicted()), (2, 0));
}

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let again = (41, 900 * MS);
    let mut events = history();
    events.extend([fork(again, SHELL), exec(again, SHELL, 901 * MS, b"/bin/other")]);
    let processes = table(&events);
    assert_eq!(exe(&processes, 41, 3_000).as_deref(), Some("/usr/bin/\u{fffd}\u{fffd}".as_bytes()));
    assert_eq!(exe(&processes, 41, 901 * MS).as_deref(), Some(&b"/bin/other"[..]));
    assert_eq!(exe(&processes, 41, 500 * MS), None);

    // The same when the end of the first was lost: the second tells of it.
    events.retain(|event| event.header.kind != EXIT);
    let processes = table(&events);
    let first = processes.get(41, 3_000).expect("remembered").process;
    assert_eq!(first.exit, Some(Exit { time_ns: 900 * MS, status: None }));
    assert_eq!(exe(&processes, 41, 901 * MS).as_deref(), Some(&b"/bin/other"[..]));
}

#[test]
fn every_program_of_a_process_is_known_for_its_time() {
    let mut processes = table(&history());
    for n in 0..10u64 {
        processes.apply(exec(SHELL, INIT, 10 * MS + n, format!("/step{n}").as_bytes()));
    }
    assert_eq!(exe(&processes, 40, 10 * MS + 8).as_deref(), Some(&b"/step8"[..]));
    assert_eq!(exe(&processes, 40, 10 * MS + 6).as_deref(), Some(&b"/step6"[..]));
    // The child was forked from the shell that has since been forgotten, and remembers it.
    assert_eq!(exe(&processes, 41, 2_050).as_deref(), Some(&b"/bin/sh"[..]));
}

#[test]
fn a_label_stays_and_an_older_event_changes_nothing() {
    let mut late = exec(SHELL, INIT, 1_100, b"/bin/sh");
    let mut newer = exec(SHELL, INIT, 5_000, b"/bin/new");
    newer.header.uid = 7;
    newer.header.slot = 3;
    newer.header.epoch = 9;
    late.header.uid = 1;
    let processes = table(&[newer, late]);
    let shell = processes.get(40, 6_000).unwrap();
    assert_eq!((shell.process.uid, shell.process.container), (7, Some(Container { slot: 3, epoch: 9 })));
    assert_eq!(shell.image.unwrap().program.exe(), Some("/bin/new"));
}

#[test]
fn what_proc_has_told_is_the_same_process() {
    let started = 123 * 10 * MS + 4_567;
    let mut seeded = Process::new(Key { tgid: 40, started_ns: 1_230 * MS });
    seeded.images = vec![Arc::new(seeded_image(b"/seeded"))];
    let mut processes = Processes::new(Limits::default());
    processes.add(seeded.clone(), started + MS);
    processes.apply(fork((41, started + MS), (40, started)));
    assert_eq!(exe(&processes, 41, started + 2 * MS).as_deref(), Some(&b"/seeded"[..]));
    processes.apply(exit((40, started), INIT, started + 3 * MS));
    assert_eq!(processes.len(), 2);
    processes.add(seeded, started + 4 * MS);
    assert!(processes.get(40, started).unwrap().process.exit.is_some(), "an event knows more");
    assert!(!Key { tgid: 40, started_ns: 1_240 * MS }.is(Key { tgid: 40, started_ns: started }));
}

#[test]
fn a_program_whose_start_was_not_told_is_found_in_proc() {
    let found = |exe: &[u8]| {
        let mut process = Process::new(Key { tgid: 40, started_ns: 1_230 * MS });
        process.images = vec![Arc::new(seeded_image(exe))];
        process
    };
    let started = 1_230 * MS + 4_567;
    let mut processes = table(&[exec((40, started), INIT, started + MS, b"/bin/sh")]);
    let before = processes.text_bytes();
    processes.add(found(b"/srv/root/bin/sh"), started + 2 * MS);
    assert_eq!(processes.text_bytes(), before, "the same, from another root directory");
    processes.add(found(b"/bin/cat"), started + 3 * MS);
    assert_eq!(exe(&processes, 40, started + 2 * MS).as_deref(), Some(&b"/bin/sh"[..]));
    assert_eq!(exe(&processes, 40, started + 3 * MS).as_deref(), Some(&b"/bin/cat"[..]));
    processes.apply(exec((40, started), INIT, started + 2 * MS, b"/bin/cat"));
    assert_eq!(exe(&processes, 40, started + 2 * MS).as_deref(), Some(&b"/bin/cat"[..]), "told late");
    processes.apply(exit((40, started), INIT, started + 4 * MS));
    processes.expire(u64::MAX);
    assert_eq!((processes.len(), processes.text_bytes()), (0, 0));
}

#[test]
fn a_host_that_forks_without_end_stays_within_bounds() {
    let limits = Limits { processes: 1_000, dead: 200, text_bytes: 300_000, dead_for_ns: 1_000 * MS };
    let mut processes = Processes::new(limits);
    for n in 0..20_000u32 {
        let key = (n % 3_000 + 2, u64::from(n + 1) * MS + 3);
        processes.apply(fork(key, INIT));
        processes.apply(exec(key, INIT, key.1 + 10, &vec![b'a'; n as usize % 4_000]));
        if n % 3 == 0 {
            processes.apply(exit(key, INIT, key.1 + 20));
        }
        assert!(processes.len() <= limits.processes && processes.dead.len() <= limits.dead);
        assert!(processes.text_bytes() <= limits.text_bytes);
        assert_eq!(processes.len(), processes.lives.values().map(Vec::len).sum::<usize>());
    }
    assert!(processes.evicted() > 0);
    processes.expire(u64::MAX);
    assert!(processes.dead.is_empty());
}

#[test]
fn fifty_thousand_processes_share_the_text_of_their_parent() {
    let mut processes = table(&history());
    let before = processes.text_bytes();
    for n in 0..50_000u32 {
        processes.apply(fork((100 + n, 3 * MS + u64::from(n)), SHELL));
    }
    assert_eq!((processes.len(), processes.text_bytes(), processes.evicted()), (50_003, before, 0));
    assert_eq!(exe(&processes, 50_000, 4 * MS).as_deref(), Some(&b"/bin/sh"[..]));
}

/// A history that could have happened: each process is forked by one that lives, runs some programs and may end.
fn histories() -> impl Strategy<Value = Vec<ProcessEvent>> {
    proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4), 1..40).prop_map(|steps| {
        let mut events = vec![exec(INIT, (0, 0), 10, b"/init")];
        let (mut alive, mut free, mut now) = (vec![(INIT, (0, 0))], vec![9u32, 8, 7, 6, 5, 4, 3, 2], 1_001u64);
        for (which, what) in steps {
            now += 101;
            let at = which.index(alive.len());
            let (key, parent) = alive[at];
            match what {
                0 if !free.is_empty() => {
                    let child = (free.pop().unwrap_or(2), now);
                    events.push(fork(child, key));
                    alive.push((child, key));
                }
                1 if at > 0 => {
                    events.push(exit(key, parent, now));
                    alive.remove(at);
                    // Late enough that it is somebody else's beyond doubt.
                    now += 2 * EXIT_SLACK_NS;
                    free.push(key.0);
                }
                _ => events.push(exec(key, parent, now, format!("/program/{now}").as_bytes())),
            }
        }
        events
    })
}

/// What a process runs at that time, from the history alone.
fn model(events: &[ProcessEvent], key: (u32, u64), at_ns: u64) -> Option<Vec<u8>> {
    let of = |event: &&ProcessEvent| (event.header.tgid, event.header.started_ns) == key && event.header.time_ns <= at_ns;
    let own: Vec<&ProcessEvent> = events.iter().filter(of).collect();
    if let Some(exec) = own.iter().rev().find(|event| event.header.kind == EXEC) {
        return Some(exec.exe.clone());
    }
    let fork = own.iter().find(|event| event.header.kind == FORK)?;
    model(events, (fork.header.parent, fork.header.parent_started_ns), fork.header.time_ns)
}

proptest! {
    /// In whatever order the events come, each process is known for all its time.
    #[test]
    fn the_order_of_events_does_not_matter(
        (events, shuffled) in histories().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let limits = Limits { dead_for_ns: u64::MAX / 2, ..Limits::default() };
        let mut processes = Processes::new(limits);
        shuffled.iter().for_each(|event| processes.apply(event.clone()));
        let executions = |key| events.iter().filter(|e| e.header.kind == EXEC && (e.header.tgid, e.header.started_ns) == key).count();
        for event in &events {
            let header = &event.header;
            let key = (header.tgid, header.started_ns);
            for at_ns in [header.time_ns, header.time_ns + 50] {
                // Of a process's programs the last four are kept.
                if events.iter().all(|e| executions((e.header.tgid, e.header.started_ns)) <= 4) {
                    prop_assert_eq!(exe(&processes, key.0, at_ns), model(&events, key, at_ns));
                }
                let found = processes.get(key.0, at_ns).map(|view| view.process.key);
                prop_assert_eq!(found, Some(Key { tgid: key.0, started_ns: key.1 }));
            }
        }
        let texts: usize = events.iter().filter(|e| e.header.kind == EXEC).map(|e| Image::of(e.clone()).bytes()).sum();
        prop_assert!(processes.text_bytes() <= texts);
    }

    /// Whatever comes, even from a kernel gone mad, bounds and books hold.
    #[test]
    fn any_events_leave_the_books_in_order(
        events in proptest::collection::vec((0u32..5, 0u32..6, 0u64..50, 0u32..6, 0u64..50, 0u64..100, 0usize..300), 0..200),
    ) {
        let limits = Limits { processes: 20, dead: 5, text_bytes: 3_000, dead_for_ns: 40 * MS };
        let mut processes = Processes::new(limits);
        for (kind, tgid, started, parent, parent_started, time, length) in events {
            let mut event = event(kind, (tgid, started * MS), (parent, parent_started * MS), time * MS);
            event.exe = vec![b'x'; length];
            processes.apply(event);
            prop_assert!(processes.len() <= limits.processes && processes.dead.len() <= limits.dead);
            prop_assert!(processes.text_bytes() <= limits.text_bytes || processes.living.len() <= 1);
            prop_assert_eq!(processes.len(), processes.lives.values().map(Vec::len).sum::<usize>());
            for view in (0..6).filter_map(|tgid| processes.get(tgid, time * MS)) {
                prop_assert!(processes.ancestors(view.process, time * MS).count() <= MAX_ANCESTORS);
            }
            let mut held = BTreeSet::new();
            let images = processes.lives.values().flatten().flat_map(|p| p.images.iter().chain(&p.inherited));
            let bytes: usize = images.filter(|image| held.insert(Arc::as_ptr(image))).map(|image| image.bytes()).sum();
            prop_assert_eq!(processes.text_bytes(), bytes);
        }
    }
}

#[test]
fn whoever_is_not_found_among_the_living_has_ended_unseen() {
    let events = [fork(SHELL, INIT), fork(CHILD, SHELL), fork((50, 30 * MS), SHELL), fork((60, 90 * MS), SHELL)];
    let mut processes = table(&events);
    // As /proc has it: rounded.
    let alive = [Key { tgid: 40, started_ns: 0 }, Key { tgid: 50, started_ns: 30 * MS }];
    processes.end_others(&alive, 80 * MS);
    let ended = |tgid, at_ns| processes.get(tgid, at_ns).unwrap().process.exit;
    assert_eq!((ended(40, 100 * MS), ended(50, 100 * MS)), (None, None));
    assert_eq!(ended(60, 100 * MS), None, "born since");
    assert_eq!(ended(41, 85 * MS), Some(Exit { time_ns: 80 * MS, status: None }));
    assert!(processes.get(41, 100 * MS).is_none(), "whoever has its number then is somebody else");
}
