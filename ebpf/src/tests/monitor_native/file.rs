//! Files: each operation, once.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::super::native::Room;
use super::access::{done_by, drain, watch};
use super::{inode, load_all};
use crate::abi::op;
use crate::monitor::abi::{self, EXEC, NO_SLOT};
use crate::monitor::load::Sizes;
use crate::monitor::{AccessEvent, Classes, Visibility};

/// A directory whose path has no symbolic link in it.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = fs::canonicalize(directory.path()).expect("its path");
    (directory, path)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The operations below a directory, and their paths from there.
fn below(directory: &Path, told: &[AccessEvent]) -> Vec<(u32, String, String)> {
    let rest = |path: &[u8]| {
        let path = path.strip_prefix(bytes(directory)).unwrap_or(path);
        String::from_utf8_lossy(path).into_owned()
    };
    let inside = |event: &&AccessEvent| event.path.starts_with(bytes(directory));
    told.iter().filter(inside).map(|event| (event.header.op, rest(&event.path), rest(&event.second))).collect()
}

#[test]
fn each_operation_on_a_file_is_told_once() {
    let Some(room) = Room::new("files") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::FILE) else {
        return;
    };
    let (_guard, at) = directory();
    let d = at.clone();
    let told = done_by(&mut events, "pc-files", move || {
        let file = d.join("a");
        drop(File::create_new(&file).expect("a file"));
        drop(File::open(&file).expect("the file"));
        let open = OpenOptions::new().append(true).open(&file).expect("the file");
        open.set_len(9).expect("its length");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("its mode");
        std::os::unix::fs::chown(&file, Some(7), None).expect("its owner");
        fs::hard_link(&file, d.join("b")).expect("a link");
        fs::rename(d.join("b"), d.join("c")).expect("another name");
        symlink("../where", d.join("s")).expect("a symbolic link");
        fs::create_dir(d.join("sub")).expect("a directory");
        mknodat(CWD, d.join("sub/fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
        fs::remove_file(d.join("sub/fifo")).expect("gone");
        fs::remove_dir(d.join("sub")).expect("gone");
    });
    let one = |op: u32, path: &str| (op, path.to_owned(), String::new());
    let two = |op: u32, path: &str, second: &str| (op, path.to_owned(), second.to_owned());
    let wanted = [
        one(op::CREATE, "/a"),
        one(op::WRITE, "/a"),
        one(op::READ, "/a"),
        one(op::WRITE, "/a"),
        one(op::TRUNCATE, "/a"),
        one(op::CHMOD, "/a"),
        one(op::CHOWN, "/a"),
        two(op::LINK, "/a", "/b"),
        two(op::RENAME, "/b", "/c"),
        two(op::SYMLINK, "/s", "../where"),
        one(op::MKDIR, "/sub"),
        one(op::MKNOD, "/sub/fifo"),
        one(op::UNLINK, "/sub/fifo"),
        one(op::RMDIR, "/sub"),
    ];
    assert_eq!(below(&at, &told), wanted);
    let of = |wanted: u32| &told.iter().find(|event| event.header.op == wanted).expect("it was told").header;
    assert_eq!(of(op::CHMOD).arg[0] & 0o7777, 0o640);
    assert_eq!(of(op::CHOWN).arg[..2], [7, u32::MAX]);
    assert_eq!(of(op::READ).arg[0] & 3, 0, "O_RDONLY");
    assert_eq!(of(op::WRITE).arg[0] & 0o303, 0o302, "O_RDWR, O_CREAT, O_EXCL");
    for event in &told {
        let h = &event.header;
        assert_eq!((h.result, h.repeats, h.slot, h.epoch, h.uid), (0, 0, NO_SLOT, 0, 0), "{event:?}");
        assert_eq!((h.mnt_ns, h.pid_ns), (inode("/proc/self/ns/mnt"), inode("/proc/self/ns/pid")));
        assert_eq!((h.path_flags, h.second_flags, h.tgid == h.tid), (0, 0, false), "{event:?}");
    }
    assert!(told.is_sorted_by_key(|event| event.header.time_ns));
    assert_eq!((events.lost(), events.malformed()), (0, 0));
}

/// What is opened to be executed is told of the process; what has no name in a file system, of nobody.
#[test]
fn an_execution_is_no_access_and_joins_with_those_of_its_process() {
    let Some(room) = Room::new("joined") else {
        return;
    };
    let Some(monitor) = load_all(&room, Sizes::default()) else {
        return;
    };
    let (mut processes, mut events) = (monitor.process_events().expect("reader"), monitor.access_events().expect("reader"));
    let both = Classes::PROCESS | Classes::FILE;
    monitor.set_visibility(Visibility { host: both, containers: both }).expect("config");
    let (_guard, at) = directory();
    let file = at.join("read-by-cat");
    fs::write(&file, "x").expect("a file");
    assert!(Command::new("cat").arg(&file).output().expect("a child").status.success());
    let told = drain(&mut events);
    let exec = std::iter::from_fn(|| processes.next(std::time::Duration::ZERO).expect("waiting"))
        .find(|event| event.header.kind == EXEC && event.arguments().last() == Some(bytes(&file)))
        .expect("its execution");
    let reads: Vec<_> = told.iter().filter(|event| event.path == bytes(&file) && event.header.op == op::READ).collect();
    let [read] = reads[..] else {
        panic!("one read: {reads:?}");
    };
    let who = |tgid: u32, started: u64, cgroup: u64| (tgid, started, cgroup);
    assert_eq!(
        who(read.header.tgid, read.header.started_ns, read.header.cgroup),
        who(exec.header.tgid, exec.header.started_ns, exec.header.cgroup)
    );
    let its = |event: &&AccessEvent| event.header.tgid == exec.header.tgid && event.header.comm.starts_with(b"cat\0");
    assert!(told.iter().filter(its).all(|event| event.path != exec.exe), "what it executes");
}

#[test]
fn memory_without_a_name_is_not_told_and_what_lost_its_name_is() {
    let Some(room) = Room::new("unnamed") else {
        return;
    };
    let Some((_monitor, mut events)) = watch(&room, Classes::FILE) else {
        return;
    };
    let (_guard, at) = directory();
    let file = at.join("gone");
    let kept = file.clone();
    let told = done_by(&mut events, "pc-unnamed", move || {
        use std::os::fd::AsRawFd;
        let memory = rustix::fs::memfd_create("portcullis", rustix::fs::MemfdFlags::empty()).expect("a memfd");
        drop(File::open(format!("/proc/self/fd/{}", memory.as_raw_fd())).expect("the same"));
        let open = File::create(&file).expect("a file");
        fs::remove_file(&file).expect("gone");
        drop(File::open(format!("/proc/self/fd/{}", open.as_raw_fd())).expect("the same"));
    });
    assert!(told.iter().all(|event| !event.path.starts_with(b"/memfd:")), "{told:?}");
    let reads: Vec<_> = told.iter().filter(|event| event.header.op == op::READ && event.path == bytes(&kept)).collect();
    assert_eq!(reads.iter().map(|event| event.header.path_flags).collect::<Vec<_>>(), [abi::PATH_UNLINKED]);
}
