//! The layouts and constants of `bpf/monitor_abi.h`, for user space.
//!
//! Names are those of the C header without their `PC_MON_` and `pc_mon_` prefixes, and so is the meaning: where this page is
//! short, the header says more. A test compares every size and offset with the BTF of the compiled object.

use bytemuck::{Pod, Zeroable};

/// Version of everything in this module; part of the path of the pins.
pub const LAYOUT: u32 = 1;

/// [`Config::visible`]: processes of the host are told.
pub const HOST: u32 = 0x1;
/// [`Config::visible`]: processes of containers are told, those that are labelled or in a pid namespace other than the first.
pub const CONTAINER: u32 = 0x2;

/// Configuration, one element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Config {
    /// [`LAYOUT`].
    pub layout: u32,
    /// [`HOST`] | [`CONTAINER`]; 0: nothing is told.
    pub visible: u32,
    /// Only the programs of this build speak.
    pub build: u64,
}

/// [`Process::kind`]: a process runs another program, whose first instruction has not run yet.
pub const EXEC: u32 = 1;
/// [`Process::kind`]: a process was born. Threads are not told.
pub const FORK: u32 = 2;
/// [`Process::kind`]: the last thread of a process is gone.
pub const EXIT: u32 = 3;

/// Longest path in an event is one byte less; of a longer one, its end is told.
pub const PATH_MAX: u32 = 4096;
/// Most bytes of an argument vector in an event; of a longer one, its beginning is told.
pub const ARGS_MAX: u32 = 4096;

/// Path flag: it begins before what is told.
pub const PATH_CUT: u32 = 0x1;
/// Path flag: it does not lead to the task's root: another mount tree, a detached mount.
pub const PATH_OUTSIDE: u32 = 0x2;
/// Path flag: this name is gone.
pub const PATH_UNLINKED: u32 = 0x4;
/// Path flag: it never had a name in a file system that is mounted: a memfd.
pub const PATH_INTERNAL: u32 = 0x8;
/// Path flag: renames or mounts came between each time it was read.
pub const PATH_TORN: u32 = 0x10;

/// Arguments flag: there are more.
pub const ARGS_CUT: u32 = 0x1;
/// Arguments flag: their memory could not be read.
pub const ARGS_UNREADABLE: u32 = 0x2;

/// [`Process::slot`] of a task without a label.
pub const NO_SLOT: u32 = u32::MAX;

/// Header of an event of a process. [`Process::exe_len`] bytes of the executable's path, [`Process::cwd_len`] of the working
/// directory's and [`Process::args_len`] of arguments follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Process {
    /// [`EXEC`], [`FORK`] or [`EXIT`].
    pub kind: u32,
    /// The CPU that raised it.
    pub cpu: u32,
    /// Per CPU, counts every event, delivered or lost.
    pub seq: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub time_ns: u64,
    /// When the process was born, on the same clock. With [`Process::tgid`] it names a process for ever.
    pub started_ns: u64,
    /// When its parent was born.
    pub parent_started_ns: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Slot of its container, or [`NO_SLOT`].
    pub slot: u32,
    /// [`crate::abi::Slot::epoch`] for which it was labelled.
    pub epoch: u32,
    /// The process, in the initial pid namespace; of [`FORK`], the child.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Its real parent's thread group.
    pub parent: u32,
    /// The process in its own pid namespace.
    pub ns_pid: u32,
    /// Its parent there; 0 where the parent is outside.
    pub ns_parent: u32,
    /// Inode number of its pid namespace.
    pub pid_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Login user id; `u32::MAX` where it is not set.
    pub loginuid: u32,
    /// Audit session; `u32::MAX` where it is not set.
    pub sessionid: u32,
    /// [`EXIT`]: what `wait(2)` gives.
    pub status: u32,
    /// `ARGS_*`.
    pub args_flags: u32,
    /// `PATH_*` of the executable.
    pub exe_flags: u32,
    /// `PATH_*` of the working directory.
    pub cwd_flags: u32,
    /// Bytes of the executable's path.
    pub exe_len: u32,
    /// Bytes of the working directory's path.
    pub cwd_len: u32,
    /// Bytes of arguments, each ended by a zero byte.
    pub args_len: u32,
    /// Name of the thread, padded with zeros.
    pub comm: [u8; 16],
    /// Name of the controlling terminal, padded with zeros; empty without one.
    pub tty: [u8; 16],
}

/// Per-CPU counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Stats {
    /// Events of processes.
    pub seq: u64,
    /// Those that found no room in the ring.
    pub lost: u64,
}

const _: () = assert!(size_of::<Process>().is_multiple_of(8));
