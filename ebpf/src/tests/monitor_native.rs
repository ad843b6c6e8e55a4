//! The monitor on the running kernel: small programs are really started, and each of their events must come exactly once. The host
//! that runs this does other things meanwhile; those are passed over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::native::{Cgroup, Room};
use crate::load::{Object, Options};
use crate::monitor::abi::{self, EXEC, EXIT, FORK, NO_SLOT};
use crate::monitor::load::Sizes;
use crate::monitor::{Monitor, ProcessEvent, ProcessEvents, Visibility};
use crate::{Error, Kernel, MONITOR_PROGRAMS};

const ALL: Visibility = Visibility { host: true, containers: true };
/// An event that does not come within this time will not come.
const PATIENCE: Duration = Duration::from_secs(20);

fn load(room: &Room, sizes: Sizes) -> Monitor {
    Monitor::load_at(room.place(), MONITOR_PROGRAMS, sizes).expect("loading the monitor")
}

/// A monitor that tells everything, and its reader.
fn watch(room: &Room) -> (Monitor, ProcessEvents) {
    let monitor = load(room, Sizes::default());
    let events = monitor.process_events().expect("the one reader");
    monitor.set_visibility(ALL).expect("config");
    (monitor, events)
}

fn inode(path: &str) -> u32 {
    u32::try_from(fs::metadata(path).expect("a namespace").ino()).expect("an inode number of a namespace")
}

/// Whether an event is of a process that has this number here.
fn is(event: &ProcessEvent, pid: u32, pid_ns: u32) -> bool {
    event.header.ns_pid == pid && event.header.pid_ns == pid_ns
}

/// The events of the given children, each up to its end.
fn lives(events: &mut ProcessEvents, pids: &[u32]) -> BTreeMap<u32, Vec<ProcessEvent>> {
    let here = inode("/proc/self/ns/pid");
    let mut found: BTreeMap<u32, Vec<ProcessEvent>> = BTreeMap::new();
    let (mut ended, deadline) = (0, Instant::now() + PATIENCE);
    while ended < pids.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.next(left).expect("waiting").unwrap_or_else(|| panic!("{ended} of {} have ended", pids.len()));
        if let Some(pid) = pids.iter().find(|pid| is(&event, **pid, here)) {
            ended += usize::from(event.header.kind == EXIT);
            found.entry(*pid).or_default().push(event);
        }
    }
    found
}

/// The events of one program that is run to its end.
fn life(events: &mut ProcessEvents, command: &mut Command) -> Vec<ProcessEvent> {
    let mut child = command.stdin(Stdio::null()).spawn().expect("a child");
    child.wait().expect("its end");
    lives(events, &[child.id()]).remove(&child.id()).expect("its events")
}

fn kinds(events: &[ProcessEvent]) -> Vec<u32> {
    events.iter().map(|event| event.header.kind).collect()
}

fn real(path: &str) -> Vec<u8> {
    fs::canonicalize(path).expect("a program").into_os_string().into_encoded_bytes()
}

#[test]
fn a_program_is_told_once_with_all_that_it_is() {
    let Some(room) = Room::new("process") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let odd: [&[u8]; 5] = [b"", b"a b", b"\xff\xfe", b"new\nline", b"--last="];
    let mut command = Command::new("/bin/true");
    command.args(odd.map(OsStr::from_bytes)).current_dir("/usr/lib");
    let told = life(&mut events, &mut command);
    assert_eq!(kinds(&told), [FORK, EXEC, EXIT]);
    let exec = &told[1];
    assert_eq!(exec.exe, real("/bin/true"));
    assert_eq!(exec.cwd, b"/usr/lib");
    assert_eq!(exec.arguments().collect::<Vec<_>>(), [&[&b"/bin/true"[..]], &odd[..]].concat());
    let h = &exec.header;
    assert_eq!((h.exe_flags, h.cwd_flags, h.args_flags), (0, 0, 0));
    assert_eq!((h.slot, h.epoch, h.uid, h.gid, h.status), (NO_SLOT, 0, 0, 0, 0));
    assert_eq!((h.mnt_ns, h.pid_ns), (inode("/proc/self/ns/mnt"), inode("/proc/self/ns/pid")));
    assert_eq!((h.ns_parent, h.tid), (std::process::id(), h.tgid));
    assert_eq!(&h.comm, b"true\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(told[0].header.started_ns <= told[0].header.time_ns);
    for event in &told {
        let first = &told[0].header;
        assert_eq!((event.header.tgid, event.header.started_ns), (first.tgid, first.started_ns), "one process");
        assert_eq!((event.header.parent, event.header.parent_started_ns), (first.parent, first.parent_started_ns));
        assert_eq!(event.header.cgroup, first.cgroup);
    }
    assert!(told.is_sorted_by_key(|event| event.header.time_ns));
    // The root of a file system has no name of its own, and has not lost one.
    let told = life(&mut events, Command::new("/bin/true").current_dir("/proc"));
    assert_eq!((told[1].cwd.as_slice(), told[1].header.cwd_flags), (&b"/proc"[..], 0));
    assert_eq!((events.lost(), events.malformed()), (0, 0));
}

#[test]
fn the_end_is_told_as_wait_tells_it() {
    let Some(room) = Room::new("status") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    for (script, status) in [("exit 7", 7 << 8), ("kill -9 $$", 9), ("exit 0", 0)] {
        let told = life(&mut events, Command::new("/bin/sh").args(["-c", script]));
        assert_eq!(told.last().expect("its end").header.status, status, "{script}");
    }
}

#[test]
fn a_long_command_line_is_cut_and_said_to_be() {
    let Some(room) = Room::new("long") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let long: String = (0..1 << 16).map(|at| char::from(b'a' + u8::try_from(at % 23).expect("small"))).collect();
    // "/bin/true" and its zero byte are ten, that of the argument is the eleventh.
    for (length, flags) in [(long.len(), abi::ARGS_CUT), (4096 - 10, abi::ARGS_CUT), (4096 - 11, 0)] {
        let told = life(&mut events, Command::new("/bin/true").arg(&long[..length]));
        let exec = told.iter().find(|event| event.header.kind == EXEC).expect("it was executed");
        let wanted = [b"/bin/true\0", &long.as_bytes()[..length], b"\0"].concat();
        assert_eq!(exec.args, wanted[..wanted.len().min(4096)], "{length}");
        assert_eq!(exec.header.args_flags, flags, "{length}");
    }
}

#[test]
fn programs_of_five_milliseconds_are_all_told() {
    let Some(room) = Room::new("short") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let mut pids = Vec::new();
    for _ in 0..20 {
        let children: Vec<_> = (0..5).map(|_| Command::new("/bin/sleep").arg("0.005").spawn().expect("a child")).collect();
        for mut child in children {
            child.wait().expect("its end");
            pids.push(child.id());
        }
    }
    let told = lives(&mut events, &pids);
    assert_eq!(told.len(), 100);
    for (pid, events) in &told {
        assert_eq!(kinds(events), [FORK, EXEC, EXIT], "{pid}");
        assert_eq!(events[1].arguments().collect::<Vec<_>>(), [&b"/bin/sleep"[..], b"0.005"]);
    }
    assert_eq!(events.lost(), 0);
}

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h: the first pid namespace.
const FIRST_PID_NS: u32 = 0xefff_fffc;

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

    monitor.set_visibility(Visibility { host: false, containers: true }).expect("config");
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
    monitor.set_visibility(Visibility { host: false, containers: true }).expect("config");
    run();
    monitor.set_visibility(Visibility::default()).expect("config");
    assert_eq!(marked(&mut events, "portcullis-outer"), [], "a process of the host");

    monitor.set_visibility(Visibility { host: true, containers: false }).expect("config");
    run();
    monitor.set_visibility(Visibility::default()).expect("config");
    let outer = marked(&mut events, "portcullis-outer");
    assert_eq!(kinds(&outer), [FORK, EXEC, EXIT]);
    assert!(outer.iter().all(|event| event.header.pid_ns == here));
}

#[test]
fn a_program_without_a_name_is_told_as_such() {
    let Some(room) = Room::new("nameless") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let memory = rustix::fs::memfd_create("portcullis", rustix::fs::MemfdFlags::empty()).expect("a memfd");
    let mut memory = fs::File::from(memory);
    memory.write_all(&fs::read("/bin/true").expect("a program")).expect("memory");
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    // Opened for writing, it could not be executed.
    let sealed = fs::File::open(&path).expect("the same, to read");
    drop(memory);
    let path = format!("/proc/{}/fd/{}", std::process::id(), sealed.as_raw_fd());
    let told = life(&mut events, &mut Command::new(path));
    assert_eq!(told[1].exe, b"/memfd:portcullis");
    assert_eq!(told[1].header.exe_flags & abi::PATH_INTERNAL, abi::PATH_INTERNAL);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gone");
    fs::copy("/bin/true", &file).expect("a program");
    let script = r#"cd "$1"; exec 3<"$1/gone"; rm -r "$1"; exec /proc/self/fd/3"#;
    let told = life(&mut events, Command::new("/bin/sh").args(["-c", script, "sh"]).arg(directory.path()));
    let exec = &told[told.len() - 2];
    assert_eq!((exec.header.kind, exec.header.exe_flags), (EXEC, abi::PATH_UNLINKED));
    assert_eq!(exec.exe, file.as_os_str().as_bytes());
    assert_eq!((exec.cwd.as_slice(), exec.header.cwd_flags), (directory.path().as_os_str().as_bytes(), abi::PATH_UNLINKED));
}

/// What lies at the root is told from there, even when the same directory is also mounted elsewhere.
#[test]
fn paths_begin_at_the_tasks_own_root() {
    let Some(room) = Room::new("root") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let directory = tempfile::tempdir().expect("a directory");
    let script = r#"mount --bind / "$1" && cd /usr && exec chroot "$1" /bin/true"#;
    let told = life(&mut events, Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(directory.path()));
    let exec = &told[told.len() - 2];
    assert_eq!((exec.header.kind, exec.header.exe_flags, exec.header.cwd_flags), (EXEC, 0, 0));
    assert_eq!((exec.exe.as_slice(), exec.cwd.as_slice()), (&real("/bin/true")[..], &b"/"[..]));
    assert_ne!(exec.header.mnt_ns, inode("/proc/self/ns/mnt"));

    // Left behind by chroot, a working directory outside is told up to where its tree ends.
    let script = r#"mkdir -p "$1/in" && mount -t tmpfs none "$1" && mkdir "$1/in" && mount --bind / "$1/in" && cd "$1" \
        && exec chroot "$1/in" sh -c 'exec /bin/true'"#;
    let told = life(&mut events, Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(directory.path()));
    let exec = &told[told.len() - 2];
    assert_eq!((exec.exe.as_slice(), exec.header.exe_flags), (&real("/bin/true")[..], 0));
}

#[test]
fn threads_are_no_processes_and_the_last_one_ends_it() {
    let Some(room) = Room::new("threads") else {
        return;
    };
    let (_monitor, mut events) = watch(&room);
    let helper = || {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "tests::monitor_native::threads_for_another_test"]).stdout(Stdio::null());
        command
    };
    let children: Vec<_> = (0..20).map(|_| helper().env("PORTCULLIS_TEST", "end").spawn().expect("a child")).collect();
    let pids: Vec<u32> = children.iter().map(std::process::Child::id).collect();
    children.into_iter().for_each(|mut child| assert!(child.wait().expect("its end").success()));
    for (pid, told) in lives(&mut events, &pids) {
        assert_eq!(kinds(&told), [FORK, EXEC, EXIT], "{pid}");
    }
    // Twice at the end would come after the first, and so before what follows.
    let told = life(&mut events, helper().env("PORTCULLIS_TEST", "exec"));
    assert_eq!(kinds(&told), [FORK, EXEC, EXEC, EXIT]);
    assert_eq!(told[2].exe, real("/bin/true"));
    assert!(told.iter().all(|e| e.header.started_ns == told[0].header.started_ns && e.header.tid == e.header.tgid), "{told:?}");
}

/// The process that `threads_are_no_processes_and_the_last_one_ends_it` starts, which tells it what to do: many threads that end at
/// once, or one of them that executes something. By itself it is no test; the count of programs in the other is what fails.
#[test]
fn threads_for_another_test() {
    let Ok(wanted) = std::env::var("PORTCULLIS_TEST") else {
        return;
    };
    for _ in 0..20 {
        thread::spawn(|| thread::sleep(PATIENCE));
    }
    if wanted == "exec" {
        thread::spawn(|| Command::new("/bin/true").exec()).join().expect("not to come back").to_string();
    }
    std::process::exit(0);
}

/// Each decision to tell is delivered or counted, to the unit: seq = delivered + lost.
#[test]
fn a_storm_loses_nothing_unseen() {
    let Some(room) = Room::new("storm") else {
        return;
    };
    let monitor = load(&room, Sizes { ring: Some(64 << 10) });
    let mut events = monitor.process_events().expect("the one reader");
    monitor.set_visibility(ALL).expect("config");
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
    let old = crate::pins::entries(&room.root().join("monitor-v1/links")).expect("builds");
    let starter = thread::spawn(|| {
        let run = |_| {
            let mut child = Command::new("/bin/true").spawn().expect("a child");
            child.wait().expect("its end");
            child.id()
        };
        (0..300).map(run).collect::<Vec<u32>>()
    });
    for hash in ["0000000000000001", "0000000000000002"] {
        Monitor::load_at(room.place(), Object { hash, ..MONITOR_PROGRAMS }, Sizes::default()).expect("an upgrade");
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
    let new = crate::pins::entries(&room.root().join("monitor-v1/links")).expect("builds");
    assert_eq!((old.len(), new.len()), (1, 1));
    assert!(new[0].starts_with("0000000000000002-"), "{new:?}");
}

#[test]
fn the_monitor_is_opened_again_and_taken_out() {
    let Some(room) = Room::new("again") else {
        return;
    };
    assert!(matches!(Monitor::open_at(room.place()), Err(Error::MonitorNotLoaded)));
    let monitor = load(&room, Sizes::default());
    let pin = |name: &str| {
        let links = room.root().join("monitor-v1/links");
        let build = crate::pins::entries(&links).expect("builds").pop().expect("one");
        fs::metadata(links.join(build).join(name)).expect("a pin").ino()
    };
    let first = pin("pc_mon_exec");
    monitor.set_visibility(ALL).expect("config");
    let reader = monitor.process_events().expect("the first reader");
    assert!(matches!(monitor.process_events(), Err(Error::ProcessEventsTaken)));
    drop((reader, monitor));
    let again = load(&room, Sizes::default());
    assert_eq!(pin("pc_mon_exec"), first, "nothing is loaded twice");
    assert_eq!(again.visibility().expect("config"), ALL, "and it goes on as it was");
    assert!(matches!(Kernel::open_at(room.place()), Err(Error::NotLoaded)), "enforcement is something else");

    Monitor::unload_at(&room.place()).expect("unloading");
    assert!(!room.root().exists(), "with the map that nobody uses");

    room.load(Options::default()).expect("enforcement");
    load(&room, Sizes::default());
    Monitor::unload_at(&room.place()).expect("unloading");
    assert!(!Path::new(&room.root()).join("monitor-v1").exists());
    Kernel::open_at(room.place()).expect("enforcement stays");
    load(&room, Sizes::default());
    Kernel::unload_at(&room.place()).expect("unloading all");
    assert!(!room.root().exists());
}
