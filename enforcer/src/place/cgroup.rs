//! The container's cgroup: the key by which the kernel finds what is armed.
//!
//! The path is the kernel's (`/proc/PID/cgroup`, line `0::`), not the configuration's `linux.cgroupsPath`, which the systemd
//! and cgroupfs drivers of runc and crun turn into different paths. The id that BPF programs see is the inode number of the
//! directory in the cgroup2 file system (kernel: kernfs_id in fs/kernfs/dir.c; on 64-bit hosts the inode is the whole id).
//!
//! It has to be the top of the container's own subtree: crun under systemd puts init into `…scope/container` and `crun exec`
//! puts others beside it, and a workload may make children. And it must not hold anything else: arming a cgroup in which the
//! runtime itself runs (podman's `--cgroups=disabled`) would put the host under a container's policy.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::host::{self, Host, ReadError};
use super::process::{Process, ProcessError};

/// The container's subtree in the cgroup2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// What BPF programs call it.
    pub id: u64,
    /// Relative to the root of the hierarchy, for people.
    pub path: PathBuf,
}

/// Why a container's cgroup can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// proc could not be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Only cgroup v1.
    #[error(
        "no cgroup2 file system is mounted; boot with systemd.unified_cgroup_hierarchy=1, or mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoHierarchy,
    /// The process is in no cgroup that can be seen from here.
    #[error(
        "process {pid} has no cgroup in the cgroup2 hierarchy that the hook sees ({path:?}); run the runtime in the host's cgroup namespace, with a runtime that uses cgroup2"
    )]
    Invisible {
        /// Its pid.
        pid: u32,
        /// What /proc/PID/cgroup says.
        path: String,
    },
    /// The container shares its cgroup with the runtime.
    #[error(
        "the container has no cgroup of its own (it is in {path:?} with its runtime); don't start it with --cgroups=disabled, nor by a runtime without cgroup2 support"
    )]
    Shared {
        /// The cgroup.
        path: PathBuf,
    },
    /// The directory could not be opened.
    #[error("the container's cgroup is unusable: {0}; start the container again")]
    Read(#[from] ReadError),
}

struct Mount {
    device: (u32, u32),
    root: PathBuf,
    point: PathBuf,
}

impl Cgroup {
    /// The top of the subtree of the container `id`, whose init is `init` and whose hook is `own`.
    pub fn of(own: &Process, init: &Process, id: &str) -> Result<Cgroup, CgroupError> {
        let path = membership(init)?;
        let top = own_subtree(&path, id);
        if membership(own)?.starts_with(&top) {
            return Err(CgroupError::Shared { path: top });
        }
        let (_, id) = find(own, &top)?;
        Ok(Cgroup { id, path: top })
    }

    /// Whether the cgroup that had this path and id is there, with processes in it or below it.
    ///
    /// # Errors
    /// If that can't be told.
    pub fn is_populated(host: &Host, path: &Path, id: u64) -> Result<bool, CgroupError> {
        /// A few short lines (Documentation/admin-guide/cgroup-v2.rst).
        const MAX_EVENTS_BYTES: u64 = 4096;
        let (directory, found) = match find(&Process::own(host)?, path) {
            Err(CgroupError::Read(error)) if error.is_absent() => return Ok(false),
            found => found?,
        };
        if found != id {
            return Ok(false);
        }
        match host::read(&directory.join("cgroup.events"), MAX_EVENTS_BYTES) {
            Ok(text) => Ok(text.split(|byte| *byte == b'\n').any(|line| line == b"populated 1")),
            // ENODEV: removed between the two (kernfs).
            Err(ReadError::System { errno, .. }) if errno == Errno::NODEV || errno == Errno::NOENT => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The directory of a cgroup in a mount that shows it, and its inode.
fn find(own: &Process, path: &Path) -> Result<(PathBuf, u64), CgroupError> {
    let mut mounts = parse_mountinfo(&own.mountinfo()?);
    if mounts.is_empty() {
        return Err(CgroupError::NoHierarchy);
    }
    // A mount of the whole hierarchy rather than one of a part of it (a container's view, bind-mounted somewhere).
    mounts.sort_by_key(|mount| mount.root.as_os_str().len());
    let mut last = None;
    for mount in &mounts {
        let Ok(below) = path.strip_prefix(&mount.root) else {
            continue;
        };
        let dir = mount.point.join(below);
        match directory(&dir) {
            // Another device: something else was mounted over the hierarchy.
            Ok((device, _)) if device != mount.device => {}
            Ok((_, inode)) => return Ok((dir, inode)),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => Err(CgroupError::NoHierarchy),
    }
}

/// Path of a process in the cgroup2 hierarchy.
fn membership(process: &Process) -> Result<PathBuf, CgroupError> {
    let text = process.cgroup()?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = Path::new(OsStr::from_bytes(line.unwrap_or_default()));
    let visible = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if visible && !path.as_os_str().as_bytes().ends_with(b" (deleted)") {
        Ok(path.to_owned())
    } else {
        Err(CgroupError::Invisible { pid: process.pid, path: path.display().to_string() })
    }
}

/// The container's own subtree. Engines put the id into the directory's name (`libpod-ID.scope`, `crio-ID.scope`,
/// `cri-containerd-ID.scope`, `docker-ID.scope`, `…/ID`): the topmost directory that has it. Else the directory the init is
/// in, without the `container` that crun makes below a systemd scope (cgroup-systemd.c).
fn own_subtree(path: &Path, id: &str) -> PathBuf {
    /// Shorter ids turn up in names by accident.
    const MIN_TELLING_ID: usize = 32;
    if id.len() >= MIN_TELLING_ID {
        let has_id =
            |dir: &&Path| dir.file_name().is_some_and(|name| name.as_bytes().windows(id.len()).any(|part| part == id.as_bytes()));
        if let Some(top) = path.ancestors().filter(has_id).last() {
            return top.to_owned();
        }
    }
    match path.parent() {
        Some(scope) if path.ends_with("container") && scope.extension() == Some(OsStr::new("scope")) => scope.to_owned(),
        _ => path.to_owned(),
    }
}

fn directory(path: &Path) -> Result<((u32, u32), u64), ReadError> {
    let fd = host::open_dir(path)?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| ReadError::System { path: path.to_owned(), errno })?;
    Ok(((rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)), stat.st_ino))
}

/// cgroup2 mounts of a mountinfo (proc_pid_mountinfo(5)):
/// `41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw`
fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let dash = fields.iter().position(|field| *field == b"-")?;
            if *fields.get(dash + 1)? != b"cgroup2" || dash < 6 {
                return None;
            }
            let (major, minor) = std::str::from_utf8(fields[2]).ok()?.split_once(':')?;
            Some(Mount {
                device: (major.parse().ok()?, minor.parse().ok()?),
                root: unescape(fields[3]),
                point: unescape(fields[4]),
            })
        })
        .collect()
}

/// Space, tab, newline and backslash are written as `\040` and so on.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits
                .iter()
                .try_fold(0u32, |value, digit| (b'0'..=b'7').contains(digit).then(|| value * 8 + u32::from(digit - b'0')))
        };
        match (first, tail.get(..3).and_then(octal).and_then(|value| u8::try_from(value).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6a63c4a301f4710a6e201838bf6e1bbd5f5260f0196fecc48a5b5494a1516b30";

    #[test]
    fn the_subtree_is_the_topmost_directory_with_the_id() {
        for (path, top) in [
            ("/machine.slice/libpod-ID.scope/container", "/machine.slice/libpod-ID.scope"),
            ("/machine.slice/libpod-ID.scope", "/machine.slice/libpod-ID.scope"),
            ("/machine.slice/libpod-ID.scope/container/init.scope", "/machine.slice/libpod-ID.scope"),
            ("/libpod_parent/libpod-ID", "/libpod_parent/libpod-ID"),
            ("/kubepods/burstable/podX/ID", "/kubepods/burstable/podX/ID"),
            ("/system.slice/x.service/libpod-payload-ID", "/system.slice/x.service/libpod-payload-ID"),
            ("/a.scope/container", "/a.scope"),
            ("/a.slice/container", "/a.slice/container"),
            ("/container", "/container"),
            ("/", "/"),
        ] {
            let (path, top) = (path.replace("ID", ID), top.replace("ID", ID));
            assert_eq!(own_subtree(Path::new(&path), ID), Path::new(&top), "{path}");
        }
        assert_eq!(own_subtree(Path::new("/web.slice/web"), "web"), Path::new("/web.slice/web"));
    }

    #[test]
    fn mountinfo_is_read_by_its_fields() {
        let text = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:4 - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/un\\040ified rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n\
            42 31 0:39 /x /y rw - cgroup2 cgroup2 rw\n\
            garbage\n- cgroup2\n1 2 3 4 5 - cgroup2\n\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].device, (0, 38));
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/un ified"));
        assert_eq!(mounts[1].root, Path::new("/x"));
        assert_eq!(unescape(b"a\\134b\\9\\"), Path::new("a\\b\\9\\"));
    }
}
