//! The container's init, and which process that is.
//!
//! A pid is a number that the kernel gives away again. Every fact is therefore read through one directory descriptor of
//! `/proc/PID`, which stays with the process that it was opened for (fs/proc/base.c: reads fail with ESRCH once it is gone),
//! and the start time tells that the number still means the same process when the hook is done.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::host::{self, Host, ReadError, because};

/// Files of /proc/PID that are one line or a few.
const MAX_PROC_BYTES: u64 = 1 << 20;
/// Arguments of one process that are looked at. conmon's have 3 to 5 KiB.
const MAX_ARGV_BYTES: u64 = 1 << 20;

/// A process, held by its directory in proc.
#[derive(Debug)]
pub struct Process {
    /// The number it had when it was opened.
    pub pid: u32,
    dir: OwnedFd,
    shown: PathBuf,
    start: u64,
}

/// Why a process is not a container's init.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The process is gone.
    #[error("process {pid} of the container is gone; start the container again")]
    Gone {
        /// Its pid.
        pid: u32,
    },
    /// The pid belongs to another process now.
    #[error("process {pid} is not the container's any more, its pid was reused; start the container again")]
    Reused {
        /// Its pid.
        pid: u32,
    },
    /// A file of proc could not be read.
    #[error("{0}; the hook needs the host's /proc, mounted for the runtime's pid namespace")]
    Read(#[from] ReadError),
    /// A file of proc has not the form that it has in Linux.
    #[error("{path} is not what Linux writes there; the hook needs the host's /proc")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The process shares the runtime's mount namespace.
    #[error(
        "process {pid} is in the runtime's own mount namespace; Portcullis protects containers that have a mount namespace of their own"
    )]
    SameMounts {
        /// Its pid.
        pid: u32,
    },
    /// A container on the runtime's own root directory, which is how the kernel programs tell the runtime from a container.
    #[error(
        "process {pid} is to run on the runtime's own root directory; Portcullis protects containers that have a root file system of their own"
    )]
    SameRoot {
        /// Its pid.
        pid: u32,
    },
    /// The root file system can't be opened where the configuration says it is.
    #[error("cannot open the container's root file system {root} in the mount namespace of process {pid}: {}; check root.path in config.json", because(*errno))]
    Root {
        /// Its pid.
        pid: u32,
        /// `root.path`.
        root: PathBuf,
        /// What the kernel answered.
        errno: Errno,
    },
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

struct Stat {
    state: u8,
    parent: u32,
    start: u64,
}

impl Process {
    /// Opens a live process.
    pub fn open(host: &Host, pid: u32) -> Result<Process, ProcessError> {
        let mut process = Process::open_named(host, &pid.to_string(), pid)?;
        let stat = process.stat()?;
        if matches!(stat.state, b'Z' | b'X') {
            return Err(ProcessError::Gone { pid });
        }
        process.start = stat.start;
        Ok(process)
    }

    /// Opens the calling process itself.
    pub fn own(host: &Host) -> Result<Process, ProcessError> {
        let mut process = Process::open_named(host, "self", std::process::id())?;
        process.start = process.stat()?.start;
        Ok(process)
    }

    fn open_named(host: &Host, name: &str, pid: u32) -> Result<Process, ProcessError> {
        let shown = host.proc.join(name);
        let dir = match host::open_dir(&shown) {
            Err(error) if error.is_absent() && host.proc.exists() => return Err(ProcessError::Gone { pid }),
            opened => opened?,
        };
        Ok(Process { pid, dir, shown, start: 0 })
    }

    /// The process lives, and its pid still means it.
    pub fn check_unchanged(&self, host: &Host) -> Result<(), ProcessError> {
        let now = Process::open(host, self.pid)?;
        if now.start == self.start { Ok(()) } else { Err(ProcessError::Reused { pid: self.pid }) }
    }

    /// A process that a runtime made before it ran this hook cannot be younger than the hook.
    pub fn check_not_younger_than(&self, hook: &Process) -> Result<(), ProcessError> {
        if self.start <= hook.start { Ok(()) } else { Err(ProcessError::Reused { pid: self.pid }) }
    }

    /// Inode of the process's mount namespace.
    pub fn mount_namespace(&self) -> Result<u32, ProcessError> {
        let shown = self.shown.join("ns/mnt");
        let link = rustix::fs::readlinkat(&self.dir, "ns/mnt", Vec::new()).map_err(|errno| self.system(&shown, errno))?;
        link.to_str()
            .ok()
            .and_then(|text| text.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok())
            .ok_or(ProcessError::Malformed { path: shown })
    }

    /// Text of `/proc/PID/cgroup`.
    pub fn cgroup(&self) -> Result<Vec<u8>, ProcessError> {
        self.read("cgroup", MAX_PROC_BYTES)
    }

    /// Text of `/proc/PID/mountinfo`.
    pub fn mountinfo(&self) -> Result<Vec<u8>, ProcessError> {
        /// A node with 500 containers has about 5 MiB.
        const MAX_MOUNTINFO_BYTES: u64 = 64 << 20;
        self.read("mountinfo", MAX_MOUNTINFO_BYTES)
    }

    /// Whether root of the process's user namespace is root of the host: `/proc/PID/uid_map` maps everything to itself.
    pub fn is_in_initial_user_namespace(&self) -> Result<bool, ProcessError> {
        let map = self.read("uid_map", MAX_PROC_BYTES)?;
        let words: Vec<&[u8]> = map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        Ok(words == [b"0".as_slice(), b"0", b"4294967295"])
    }

    /// The arguments, and the pid of the parent.
    pub fn arguments(&self) -> Result<(Vec<Vec<u8>>, u32), ProcessError> {
        let parent = self.stat()?.parent;
        let bytes = self.read("cmdline", MAX_ARGV_BYTES)?;
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        Ok((bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(), parent))
    }

    /// Opens a directory as this process sees it. Symbolic links lead where they would lead the process, never out of its
    /// mount namespace (`RESOLVE_IN_ROOT`): the runtime has not entered the container's root yet, but has made its mounts.
    pub fn open_root(&self, path: &Path) -> Result<OwnedFd, ProcessError> {
        let refused = |errno| match errno {
            Errno::SRCH => ProcessError::Gone { pid: self.pid },
            errno => ProcessError::Root { pid: self.pid, root: path.to_owned(), errno },
        };
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let slash = rustix::fs::openat(&self.dir, "root", dir, Mode::empty()).map_err(refused)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // EAGAIN: a rename or a mount raced with the walk (openat2(2)); the kernel asks for another try.
        const MAX_TRIES: u32 = 16;
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&slash, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < MAX_TRIES => {}
                Err(errno) => return Err(refused(errno)),
                Ok(root) if is_same(&root, &slash).map_err(refused)? => return Err(ProcessError::SameRoot { pid: self.pid }),
                Ok(root) => return Ok(root),
            }
        }
    }

    /// Opens the directory that is this process's root now.
    pub fn current_root(&self) -> Result<OwnedFd, ProcessError> {
        let refused = |errno| match errno {
            Errno::SRCH | Errno::NOENT => ProcessError::Gone { pid: self.pid },
            errno => ProcessError::Root { pid: self.pid, root: PathBuf::from("/"), errno },
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, "root", flags, Mode::empty()).map_err(refused)
    }

    /// When it was started, in clock ticks since boot.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.start
    }

    fn stat(&self) -> Result<Stat, ProcessError> {
        let text = self.read("stat", MAX_PROC_BYTES)?;
        parse_stat(&text).ok_or_else(|| ProcessError::Malformed { path: self.shown.join("stat") })
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ProcessError> {
        let shown = self.shown.join(name);
        host::read_at(&self.dir, Path::new(name), &shown, limit).map_err(|error| match error {
            ReadError::System { path, errno } => self.system(&path, errno),
            error => error.into(),
        })
    }

    fn system(&self, shown: &Path, errno: Errno) -> ProcessError {
        // The directory outlives its process, the files in it do not.
        if errno == Errno::SRCH || (errno == Errno::NOENT && !self.shown.join("stat").exists()) {
            ProcessError::Gone { pid: self.pid }
        } else {
            ReadError::System { path: shown.to_owned(), errno }.into()
        }
    }
}

/// The second field is the command's name in parentheses, which may itself hold spaces and parentheses: count from the last.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_start_time() {
        let text = b"7 (a) R 1 1 1) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 1 1 1\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), (b'S', 42, 987));
        for text in [b"".as_slice(), b"7 (a", b"7 (a)", b"7 (a) S 1", b"7 (a) S x 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 9"] {
            assert!(parse_stat(text).is_none());
        }
    }

    #[test]
    fn the_hook_itself_is_a_live_process() {
        let host = Host::default();
        let own = Process::own(&host).unwrap();
        own.check_unchanged(&host).unwrap();
        own.check_not_younger_than(&own).unwrap();
        assert!(own.mount_namespace().unwrap() > 0);
        assert!(own.open_root(Path::new("/etc")).is_ok());
        assert!(own.open_root(Path::new("/etc/passwd")).unwrap_err().to_string().contains("not a directory"));
        assert!(!own.arguments().unwrap().0.is_empty());
    }

    #[test]
    fn a_vanished_process_is_told() {
        let host = Host::default();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::open(&host, child.id()).unwrap();
        process.check_unchanged(&host).unwrap();
        child.kill().unwrap();
        // A zombie is as gone as one that was reaped.
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        let gone = format!("process {} of the container is gone; start the container again", child.id());
        assert_eq!(process.check_unchanged(&host).unwrap_err().to_string(), gone);
        child.wait().unwrap();
        assert_eq!(process.check_unchanged(&host).unwrap_err().to_string(), gone);
        assert_eq!(process.cgroup().unwrap_err().to_string(), gone);
        assert_eq!(process.mount_namespace().unwrap_err().to_string(), gone);
    }
}
