//! Loading, upgrading, losing, and the label that enforcement gives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::super::native::{Cgroup, Room};
use super::{PROCESSES, kinds, lives, load, watch};
use crate::load::{Object, Options};
use crate::monitor::abi::{self, EXEC, EXIT, FORK, NO_SLOT};
use crate::monitor::load::Sizes;
use crate::monitor::{Monitor, ProcessEvents, Visibility, Watch};
use crate::{Error, Kernel, MONITOR_PROGRAMS};

fn directory(room: &Room) -> PathBuf {
    room.root().join(format!("monitor-v{}", abi::LAYOUT))
}

fn links(room: &Room) -> PathBuf {
    directory(room).join("links")
}

/// Each decision to tell is delivered or counted, to the unit: seq = delivered + lost.
#[test]
fn a_storm_loses_nothing_unseen() {
    let Some(room) = Room::new("storm") else {
        return;
    };
    let monitor = load(&room, Sizes { rings: Some(64 << 10) });
    let mut events = monitor.process_events().expect("the one reader");
    monitor.set_visibility(PROCESSES).expect("config");
    let mut delivered = 0u64;
    let mut drain = |events: &mut ProcessEvents| {
        while events.next(Duration::ZERO).expect("waiting").is_some() {
            delivered += 1;
        }
    };
    // A gap lies between two numbers of a CPU: each raises an event before the storm and one after it.
    let cpus = rustix::thread::sched_getaffinity(None).expect("affinity");
    let mut on_each_cpu = |events: &mut ProcessEvents| {
        for cpu in (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)) {
            let mut one = rustix::thread::CpuSet::new();
            one.set(cpu);
            rustix::thread::sched_setaffinity(None, &one).expect("affinity");
            assert!(Command::new("/bin/true").status().expect("a child").success());
            drain(events);
        }
        rustix::thread::sched_setaffinity(None, &cpus).expect("affinity");
    };
    on_each_cpu(&mut events);
    for _ in 0..200 {
        assert!(Command::new("/bin/true").arg("x".repeat(2000)).status().expect("a child").success());
    }
    assert!(monitor.counts().expect("counts").lost > 0, "the ring was too small, as intended");
    on_each_cpu(&mut events);
    // Those that fell into a ring that was full until then.
    on_each_cpu(&mut events);
    monitor.set_visibility(Visibility::default()).expect("config");
    // Programs that looked before that end now.
    thread::sleep(Duration::from_millis(20));
    drain(&mut events);
    let counts = monitor.counts().expect("counts");
    assert_eq!(counts.events, delivered + counts.lost);
    assert_eq!(counts.lost, events.lost(), "what the kernel counts is what the gaps say");
    assert_eq!((counts.missed, events.malformed()), (0, 0));
    assert!(counts.events >= 600);
}

/// The label that enforcement gives is told, whichever of the two was loaded first.
#[test]
fn a_labelled_process_is_a_containers() {
    let Some(room) = Room::new("labelled") else {
        return;
    };
    let Some(cgroup) = Cgroup::make("labelled") else {
        eprintln!("skipped: no cgroup can be made");
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let kernel = room.load(Options::default()).expect("loading");
    let mut child = Command::new("sleep").arg("100").spawn().expect("a child");
    cgroup.hold(child.id());
    let slot =
        crate::abi::Slot { flags: crate::abi::SLOT_ARMED, epoch: 4, runtime_mntns: 1, runtime_root: 1, ..Default::default() };
    kernel.write_slot(3, &slot).expect("a slot");
    let asked = crate::abi::Adoption { cgroup: cgroup.id(), slot: 3, epoch: 4, init: child.id(), ..Default::default() };
    assert_eq!(kernel.adopt(asked).expect("a pass").labelled, 1);
    child.kill().expect("a kill");
    child.wait().expect("its end");
    let told = lives(&mut events, &[child.id()]).remove(&child.id()).expect("its events");
    assert_eq!(kinds(&told), [FORK, EXEC, EXIT]);
    assert_eq!((told[1].header.slot, told[1].header.epoch), (NO_SLOT, 0), "before it was labelled");
    let end = &told[2].header;
    assert_eq!((end.slot, end.epoch, end.cgroup, end.status), (3, 4, cgroup.id(), 9));
}

#[test]
fn an_upgrade_misses_nothing() {
    let Some(room) = Room::new("handover") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let old = crate::pins::entries(&links(&room)).expect("builds");
    let starter = thread::spawn(|| {
        let run = |_| {
            let mut child = Command::new("/bin/true").spawn().expect("a child");
            child.wait().expect("its end");
            child.id()
        };
        (0..300).map(run).collect::<Vec<u32>>()
    });
    for hash in ["0000000000000001", "0000000000000002"] {
        Monitor::load_at(room.place(), Object { hash, ..MONITOR_PROGRAMS }, Sizes::default(), Watch::Processes)
            .expect("an upgrade");
        thread::sleep(Duration::from_millis(20));
    }
    let pids = starter.join().expect("all were started");
    let told = lives(&mut events, &pids);
    let double: usize = told.values().map(|told| told.len().saturating_sub(3)).sum();
    assert!(double <= 2, "one for each time that the old build hands over to the new: {double}");
    for (pid, told) in &told {
        let mut kinds = kinds(told);
        kinds.dedup();
        assert_eq!(kinds, [FORK, EXEC, EXIT], "{pid}");
    }
    assert_eq!(events.lost(), 0);
    let new = crate::pins::entries(&links(&room)).expect("builds");
    assert_eq!((old.len(), new.len()), (1, 1));
    assert!(new[0].starts_with("0000000000000002-"), "{new:?}");
}

#[test]
fn a_monitor_of_another_layout_is_taken_out() {
    let Some(room) = Room::new("layouts") else {
        return;
    };
    drop(load(&room, Sizes::default()));
    let old = room.root().join(format!("monitor-v{}", abi::LAYOUT - 1));
    fs::rename(directory(&room), &old).expect("what an older build has left");
    let enforcement = room.load(Options::default()).expect("enforcement");
    load(&room, Sizes::default());
    assert!(!old.exists());
    assert!(!enforcement.programs().expect("programs").is_empty(), "enforcement of any layout stays");
}

#[test]
fn the_monitor_is_opened_again_and_taken_out() {
    let Some(room) = Room::new("again") else {
        return;
    };
    assert!(matches!(Monitor::open_at(room.place()), Err(Error::MonitorNotLoaded)));
    let monitor = load(&room, Sizes::default());
    let pin = |name: &str| {
        let links = links(&room);
        let build = crate::pins::entries(&links).expect("builds").pop().expect("one");
        fs::metadata(links.join(build).join(name)).expect("a pin").ino()
    };
    let first = pin("pc_mon_exec");
    monitor.set_visibility(PROCESSES).expect("config");
    let reader = monitor.process_events().expect("the first reader");
    assert!(matches!(monitor.process_events(), Err(Error::ProcessEventsTaken)));
    drop((reader, monitor));
    let again = load(&room, Sizes::default());
    assert_eq!(pin("pc_mon_exec"), first, "nothing is loaded twice");
    assert_eq!(again.visibility().expect("config"), PROCESSES, "and it goes on as it was");
    assert!(matches!(Kernel::open_at(room.place()), Err(Error::NotLoaded)), "enforcement is something else");

    Monitor::unload_at(&room.place()).expect("unloading");
    assert!(!room.root().exists(), "with the map that nobody uses");

    room.load(Options::default()).expect("enforcement");
    load(&room, Sizes::default());
    Monitor::unload_at(&room.place()).expect("unloading");
    assert!(!directory(&room).exists());
    Kernel::open_at(room.place()).expect("enforcement stays");
    load(&room, Sizes::default());
    Kernel::unload_at(&room.place()).expect("unloading all");
    assert!(!room.root().exists());
}
