//! What is told of whom.

use std::process::Command;
use std::time::Duration;

use super::super::native::Room;
use super::access::{Shell, drain};
use super::{inode, kinds, load, load_all};
use crate::monitor::abi::{self, EXEC, EXIT, FORK};
use crate::monitor::load::Sizes;
use crate::monitor::{Classes, Monitor, ProcessEvent, ProcessEvents, Visibility};
use crate::{Error, FIRST_PID_NS};

const HOST: Visibility = Visibility { host: Classes::PROCESS, containers: Classes::NONE };
const CONTAINERS: Visibility = Visibility { host: Classes::NONE, containers: Classes::PROCESS };

/// All that was told, and in it the one process that was started with this argument.
fn marked(events: &mut ProcessEvents, mark: &str) -> Vec<ProcessEvent> {
    let mut all = Vec::new();
    while let Some(event) = events.next(Duration::from_millis(50)).expect("waiting") {
        all.push(event);
    }
    let started = |e: &&ProcessEvent| e.header.kind == EXEC && e.arguments().last() == Some(mark.as_bytes());
    let at: Vec<_> = all.iter().filter(started).map(|e| (e.header.tgid, e.header.started_ns)).collect();
    // `unshare` itself is started with it, too, where the host is told.
    let at = at.last().copied();
    all.retain(|e| Some((e.header.tgid, e.header.started_ns)) == at);
    all
}

#[test]
fn host_and_containers_are_told_apart() {
    let Some(room) = Room::new("visible") else {
        return;
    };
    let monitor = load(&room, Sizes::default());
    let mut events = monitor.process_events().expect("the one reader");
    let here = inode("/proc/self/ns/pid");
    let run = || {
        let inner = Command::new("unshare").args(["--fork", "--pid", "/bin/true", "portcullis-inner"]).status().expect("unshare");
        assert!(inner.success(), "a pid namespace can be made");
        assert!(Command::new("/bin/true").arg("portcullis-outer").status().expect("a child").success());
    };
    assert_eq!(monitor.visibility().expect("config"), Visibility::default(), "nothing at first");
    run();
    assert_eq!(events.next(Duration::from_millis(50)).expect("waiting"), None);
    assert_eq!(monitor.counts().expect("counts").events, 0);

    monitor.set_visibility(CONTAINERS).expect("config");
    run();
    monitor.set_visibility(Visibility::default()).expect("config");
    let inner = marked(&mut events, "portcullis-inner");
    assert_eq!(kinds(&inner), [FORK, EXEC, EXIT]);
    let first = &inner[0].header;
    assert_ne!(first.pid_ns, here);
    assert_eq!((first.ns_pid, first.ns_parent), (1, 0), "the first of its namespace, its parent outside");

    if here != FIRST_PID_NS {
        eprintln!("skipped: all children of this test are a container's");
        return;
    }
    assert_eq!(first.tid, first.tgid);
    monitor.set_visibility(CONTAINERS).expect("config");
    run();
    monitor.set_visibility(Visibility::default()).expect("config");
    assert_eq!(marked(&mut events, "portcullis-outer"), [], "a process of the host");

    monitor.set_visibility(HOST).expect("config");
    run();
    monitor.set_visibility(Visibility::default()).expect("config");
    let outer = marked(&mut events, "portcullis-outer");
    assert_eq!(kinds(&outer), [FORK, EXEC, EXIT]);
    assert!(outer.iter().all(|event| event.header.pid_ns == here));
}

#[test]
fn classes_and_cgroups_choose_what_is_told() {
    let Some(room) = Room::new("classes") else {
        return;
    };
    let Some(monitor) = load_all(&room, Sizes::default()) else {
        return;
    };
    let mut events = monitor.access_events().expect("the one reader");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut told = |monitor: &Monitor, own: Option<Classes>, above: Option<Classes>| {
        let shell = Shell::waiting("classes", ": < \"$1\"", file.path())?;
        let (id, above_id) = (shell.cgroup.id(), shell.cgroup.above());
        for (id, classes) in [(id, own), (above_id, above)] {
            if let Some(classes) = classes {
                monitor.set_override(id, classes).expect("an override");
            }
        }
        drain(&mut events);
        let _cgroup = shell.run();
        let count = drain(&mut events).iter().filter(|event| event.header.cgroup == id).count();
        for (id, classes) in [(id, own), (above_id, above)] {
            assert_eq!(monitor.remove_override(id).expect("an override"), classes.is_some());
        }
        Some(count)
    };
    let everybody = |classes| Visibility { host: classes, containers: classes };
    for (visible, own, above, wanted) in [
        (Classes::NONE, None, None, 0),
        (Classes::FILE, None, None, 1),
        (Classes::NETWORK | Classes::PROCESS, None, None, 0),
        (Classes::NONE, Some(Classes::FILE), None, 1),
        (Classes::FILE, Some(Classes::NONE), None, 0),
        (Classes::FILE, Some(Classes::NETWORK), None, 0),
        (Classes::NETWORK, Some(Classes::ALL), None, 1),
        // The nearest counts.
        (Classes::NONE, None, Some(Classes::FILE), 1),
        (Classes::NONE, Some(Classes::FILE), Some(Classes::NONE), 1),
        (Classes::FILE, Some(Classes::NONE), Some(Classes::FILE), 0),
    ] {
        monitor.set_visibility(everybody(visible)).expect("config");
        let Some(count) = told(&monitor, own, above) else {
            return;
        };
        assert_eq!(count, wanted, "{visible:?}, its own {own:?}, above {above:?}");
    }
    assert_eq!(monitor.overrides().expect("none"), []);
    assert!(!monitor.remove_override(1).expect("none"));
}

#[test]
fn overrides_are_limited_and_say_so() {
    let Some(room) = Room::new("overrides") else {
        return;
    };
    let monitor = load(&room, Sizes::default());
    for cgroup in 0..u64::from(abi::OVERRIDES_MAX) {
        monitor.set_override(cgroup << 32, Classes::NONE).expect("one more");
    }
    assert_eq!(monitor.overrides().expect("all").len(), abi::OVERRIDES_MAX as usize);
    assert!(matches!(monitor.set_override(1, Classes::FILE), Err(Error::TooManyOverrides { limit: abi::OVERRIDES_MAX })));
    monitor.set_override(1 << 32, Classes::FILE).expect("one that is there");
    assert!(monitor.overrides().expect("all").contains(&(1 << 32, Classes::FILE)));
}

#[test]
fn many_overrides_change_at_once_and_those_without_room_are_said() {
    let Some(room) = Room::new("overrides-at-once") else {
        return;
    };
    let monitor = load(&room, Sizes::default());
    let most = u64::from(abi::OVERRIDES_MAX);
    let give: Vec<(u64, Classes)> = (1..=most + 2).map(|cgroup| (cgroup, Classes::FILE)).collect();
    let left_out = monitor.change_overrides(&[], &give).expect("a change");
    assert_eq!(left_out, [most + 1, most + 2]);
    assert_eq!(monitor.overrides().expect("all").len(), abi::OVERRIDES_MAX as usize);
    let left_out = monitor.change_overrides(&[1, 2, most + 9], &[(most + 1, Classes::NONE)]).expect("a change");
    assert_eq!(left_out, [0; 0], "what is taken makes room first");
    let mut all = monitor.overrides().expect("all");
    all.sort_unstable_by_key(|(cgroup, _)| *cgroup);
    assert_eq!(
        (all.len() as u64, all.first().copied(), all.last().copied()),
        (most - 1, Some((3, Classes::FILE)), Some((most + 1, Classes::NONE)))
    );
}
