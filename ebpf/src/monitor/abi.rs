//! The layouts and constants of `bpf/monitor_abi.h`, for user space.
//!
//! Names are those of the C header without their `PC_MON_` and `pc_mon_` prefixes, and so is the meaning: where this page is
//! short, the header says more. A test compares every size and offset with the BTF of the compiled object.

use bytemuck::{Pod, Zeroable};

/// Version of everything in this module; part of the path of the pins.
pub const LAYOUT: u32 = 2;

/// Class: births, executions and ends of processes.
pub const CLASS_PROCESS: u32 = 0x1;
/// Class: accesses with the numbers [`op::READ`](crate::abi::op::READ) to [`op::TRUNCATE`](crate::abi::op::TRUNCATE).
pub const CLASS_FILE: u32 = 0x2;
/// Class: accesses with the numbers [`op::SOCKET`](crate::abi::op::SOCKET) to [`op::SEND`](crate::abi::op::SEND).
pub const CLASS_NETWORK: u32 = 0x4;
/// Class: accesses with the number [`op::CAPABLE`](crate::abi::op::CAPABLE).
pub const CLASS_CAPABILITY: u32 = 0x8;

/// Cgroups that can have classes of their own.
pub const OVERRIDES_MAX: u32 = 1024;
/// So many levels of cgroups, a task's own among them, are looked at for such.
pub const OVERRIDE_LEVELS: u32 = 8;
/// How long the same access is only counted after it was told, if nobody says otherwise.
pub const WINDOW_NS: u32 = 1_000_000_000;

/// Configuration, one element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Config {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Every class that is told of somebody.
    pub any: u32,
    /// Classes told of the host's processes.
    pub host: u32,
    /// Classes told of containers' processes: labelled, or in a pid namespace other than the first.
    pub containers: u32,
    /// How many cgroups have classes of their own.
    pub overrides: u32,
    /// Unused.
    pub zero: u32,
    /// For so long repeats of an access are counted and not told; 0: each is told.
    pub window_ns: u64,
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

/// Longest address of a socket.
pub const ADDRESS_MAX: u32 = 128;

/// Header of an access. [`Access::path_len`] bytes of a path, [`Access::second_len`] of a second one and [`Access::address_len`] of
/// a socket's address follow it. Which operation has which is in the C header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Access {
    /// [`crate::abi::op`].
    pub op: u32,
    /// The CPU that raised it.
    pub cpu: u32,
    /// Per CPU, counts every access that was to be told, delivered or lost.
    pub seq: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub time_ns: u64,
    /// When the process was born: with [`Access::tgid`] it is [`Process::started_ns`] with [`Process::tgid`].
    pub started_ns: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Slot of its container, or [`NO_SLOT`].
    pub slot: u32,
    /// [`crate::abi::Slot::epoch`] for which it was labelled.
    pub epoch: u32,
    /// The process, in the initial pid namespace.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The user id that files are accessed with (fsuid), in the initial user namespace.
    pub uid: u32,
    /// Inode number of its pid namespace.
    pub pid_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// 0, or the number of the error that the security modules answered.
    pub result: u32,
    /// So many of the same were counted and not told since it was told the last time.
    pub repeats: u64,
    /// Arguments of the operation, see the C header.
    pub arg: [u32; 3],
    /// `PATH_*` of the path.
    pub path_flags: u32,
    /// `PATH_*` of the second path.
    pub second_flags: u32,
    /// Bytes of the path.
    pub path_len: u32,
    /// Bytes of the second path.
    pub second_len: u32,
    /// Bytes of the address.
    pub address_len: u32,
    /// Name of the thread, padded with zeros.
    pub comm: [u8; 16],
}

/// Most kinds of access that are remembered at a time.
pub const REPEATS_MAX: u32 = 16384;
/// Bytes of what tells one object from another.
pub const OBJECT_MAX: u32 = 64;

/// What makes two accesses the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Repeat {
    /// [`Access::started_ns`].
    pub started_ns: u64,
    /// [`Access::tgid`].
    pub tgid: u32,
    /// [`Access::op`].
    pub op: u16,
    /// [`Access::result`].
    pub result: u16,
    /// [`Access::arg`].
    pub arg: [u32; 3],
    /// Bytes of `object`.
    pub object_len: u32,
    /// The kernel programs' business.
    pub object: [u8; OBJECT_MAX as usize],
}

/// What is remembered of an access.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Repeated {
    /// When it was told, `CLOCK_BOOTTIME`.
    pub since_ns: u64,
    /// How many of the same were counted since.
    pub repeats: u64,
    /// [`Access::seq`] of the event that told it.
    pub seq: u64,
    /// [`Access::cpu`] of that.
    pub cpu: u32,
    /// Unused.
    pub zero: u32,
}

/// Per-CPU counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Stats {
    /// Events of processes.
    pub seq: u64,
    /// Those that found no room in the ring.
    pub lost: u64,
    /// Accesses that were to be told.
    pub access_seq: u64,
    /// Those that found no room in the ring, or no working memory.
    pub access_lost: u64,
    /// Accesses that were counted and not told.
    pub aggregated: u64,
}

const _: () = assert!(size_of::<Process>().is_multiple_of(8) && size_of::<Access>().is_multiple_of(8));
