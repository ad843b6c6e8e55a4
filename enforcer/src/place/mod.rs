//! Where a container is on this host: its init, its cgroup, its root file system.
//!
//! Every door asks the same of a container, so it is asked here: by a pid that a runtime tells, through `/proc`, with a limit on
//! each read.

mod cgroup;
pub mod host;
mod process;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cgroup::{Cgroup, CgroupError};
pub use host::{Host, ReadError};
pub use process::{Process, ProcessError};

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Its init, in the host's pid namespace.
    pub pid: u32,
    /// When that process was started, in clock ticks since boot: with it, the pid means one process.
    pub started: u64,
    /// The top of its cgroups, as the kernel programs call it.
    pub cgroup_id: u64,
    /// The same for people: the path below the root of the hierarchy.
    pub cgroup_path: PathBuf,
    /// Inode of the runtime's mount namespace: execs there are the runtime's own.
    pub runtime_mntns: u32,
    /// Device and inode of its root directory, by which it is found again whatever its init does to itself.
    pub root: (u64, u64),
}

/// Why a container's place can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Its init.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// No task of it is where it was started.
    #[error(
        "process {pid} of the container has changed its root directory, so that links in it cannot be followed; the policy that was in force stays; start the container again"
    )]
    MovedRoot {
        /// Its pid.
        pid: u32,
    },
}

impl Place {
    /// Of a container whose init has entered its root already, seen from a process in the runtime's own namespaces; with
    /// its root.
    ///
    /// # Errors
    /// If the process is gone or has no mount namespace or cgroup of its own.
    pub fn of_running(host: &Host, id: &str, pid: u32) -> Result<(Place, OwnedFd), PlaceError> {
        let own = Process::own(host)?;
        let init = Process::open(host, pid)?;
        let runtime_mntns = own.mount_namespace()?;
        if init.mount_namespace()? == runtime_mntns {
            return Err(ProcessError::SameMounts { pid }.into());
        }
        let root = init.current_root()?;
        Ok((Place::new(&init, Cgroup::of(&own, &init, id)?, runtime_mntns, identity(&root, pid)?), root))
    }

    /// From its parts, as a door finds them out one after the other.
    ///
    /// # Errors
    /// If the root directory can't be looked at.
    pub fn of_starting(init: &Process, cgroup: Cgroup, runtime_mntns: u32, root: &OwnedFd) -> Result<Place, ProcessError> {
        Ok(Place::new(init, cgroup, runtime_mntns, identity(root, init.pid)?))
    }

    fn new(init: &Process, cgroup: Cgroup, runtime_mntns: u32, root: (u64, u64)) -> Place {
        Place { pid: init.pid, started: init.started(), cgroup_id: cgroup.id, cgroup_path: cgroup.path, runtime_mntns, root }
    }

    /// The container's root, if its init still lives.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] and [`ProcessError::Reused`] if it does not; [`PlaceError::MovedRoot`] if it is elsewhere.
    pub fn open_root(&self, host: &Host) -> Result<OwnedFd, PlaceError> {
        let init = Process::open(host, self.pid)?;
        if init.started() != self.started {
            return Err(ProcessError::Reused { pid: self.pid }.into());
        }
        let root = init.current_root()?;
        if identity(&root, self.pid)? != self.root {
            return Err(PlaceError::MovedRoot { pid: self.pid });
        }
        Ok(root)
    }

    /// Whether its init is the process that it was.
    #[must_use]
    pub fn is_alive(&self, host: &Host) -> bool {
        Process::open(host, self.pid).is_ok_and(|init| init.started() == self.started)
    }
}

fn identity(root: &OwnedFd, pid: u32) -> Result<(u64, u64), ProcessError> {
    let failed = |errno| ProcessError::Root { pid, root: PathBuf::from("/"), errno };
    let stat = rustix::fs::fstat(root).map_err(failed)?;
    Ok((stat.st_dev, stat.st_ino))
}
