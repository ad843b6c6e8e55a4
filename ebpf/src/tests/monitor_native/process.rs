//! Processes: what is told of each.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use super::super::native::Room;
use super::{PATIENCE, inode, kinds, life, lives, real, watch};
use crate::monitor::abi::{self, EXEC, EXIT, FORK, NO_SLOT};

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
        command.args(["--exact", "tests::monitor_native::process::threads_for_another_test"]).stdout(Stdio::null());
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
