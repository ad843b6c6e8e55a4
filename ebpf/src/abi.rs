//! The layouts and constants of `bpf/abi.h`, for user space.
//!
//! Names are those of the C header without their `PC_` and `pc_` prefixes, and so is the meaning: where this page is
//! short, the header says more. A test compares every size and offset with the BTF of the compiled object, so the two
//! cannot drift apart. [`LAYOUT`] goes up with any change; pins of another layout are never reused.

use bytemuck::{Pod, Zeroable};

pub mod call;

/// Version of everything in this module; part of the path of the pins.
pub const LAYOUT: u32 = 4;

/// Bytes of a segment: the memory that holds compiled policy sets.
pub const SEGMENT_BYTES: u32 = 4 << 20;
/// 32-bit words of a segment.
pub const SEGMENT_WORDS: u32 = SEGMENT_BYTES / 4;
/// Bytes of a segment's memory: what a column may add to the place of the last state is there, so that the verifier can check
/// the two each for itself.
pub const SEGMENT_SIZE: u32 = SEGMENT_BYTES + 65_536;
/// Segments at most.
pub const MAX_SEGMENTS: u32 = 64;
/// Sets begin at a multiple of this many bytes.
pub const SET_ALIGN: u32 = 512;

/// Column of a state's row with the decision id of a path that ends there.
pub const ROW_DECISION: u32 = 0;
/// Column of a state's row with the summary of the subtree below it, see [`sub_any`] and [`sub_all`].
pub const ROW_SUBTREE: u32 = 1;
/// The first column that holds a next state; classes 0 and 1 are never the class of a byte.
pub const ROW_FIRST_CLASS: u32 = 2;

/// Operation group: reads.
pub const READ: u32 = 0;
/// Operation group: everything that changes an object or its name.
pub const CHANGE: u32 = 1;
/// Operation group: executions.
pub const EXEC: u32 = 2;
/// How many operation groups a path decision tells apart.
pub const GROUPS: u32 = 3;

/// The bits (2 * group + 0 for the owner, 1 for everybody else) of what is blocked for some path below.
#[must_use]
pub const fn sub_any(summary: u32) -> u32 {
    summary & 0x3f
}

/// The bits (2 * group + 0 for the owner, 1 for everybody else) of what is blocked for every path below.
#[must_use]
pub const fn sub_all(summary: u32) -> u32 {
    (summary >> 8) & 0x3f
}

/// Verdict: no rule, no posture; allowed, silent.
pub const NONE: u32 = 0;
/// Verdict: allowed by a rule.
pub const ALLOW: u32 = 1;
/// Verdict: allowed, with an alert.
pub const AUDIT: u32 = 2;
/// Verdict: denied, with an alert.
pub const BLOCK: u32 = 3;

/// Rule id: an allow-list's default posture.
pub const RULE_POSTURE: u32 = 0xffff;
/// Rule id: no rule.
pub const RULE_NONE: u32 = 0xfffe;
/// Rule id: Portcullis protects itself.
pub const RULE_GUARD: u32 = 0xfffd;
/// Rule id: a second name for something that a rule protects.
pub const RULE_ALIAS: u32 = 0xfffc;
/// Rule id: the path can't be told (detached mount, outside the container, too deep).
pub const RULE_UNRESOLVED: u32 = 0xfffb;
/// Rule id: the task's container is gone.
pub const RULE_ORPHAN: u32 = 0xfffa;

/// Rank of a default posture; the smaller rank wins, ranks of rules are their place in the order of precedence.
pub const RANK_POSTURE: u32 = 0xffff_fffe;
/// Rank of no verdict at all.
pub const RANK_NONE: u32 = 0xffff_ffff;

/// What a decision says for one operation group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct DecisionOp {
    /// Verdict for the owner | verdict for everybody else << 8 | rule << 16.
    pub verdicts: u32,
    /// Rank of the verdict.
    pub rank: u32,
}

/// A decision: [`DECISION_WORDS`] words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Decision {
    /// By operation group.
    pub op: [DecisionOp; GROUPS as usize],
    /// Room to make it a power of two.
    pub zero: [u32; 2],
}

/// 32-bit words of a [`Decision`].
pub const DECISION_WORDS: u32 = 8;

/// `enum pc_kind`: the socket kinds that the network tables tell apart.
pub mod kind {
    /// `AF_UNIX`, `SOCK_STREAM`.
    pub const UNIX_STREAM: u32 = 0;
    /// `AF_UNIX`, `SOCK_DGRAM`.
    pub const UNIX_DGRAM: u32 = 1;
    /// `AF_UNIX`, `SOCK_SEQPACKET`.
    pub const UNIX_SEQPACKET: u32 = 2;
    /// `AF_NETLINK`.
    pub const NETLINK: u32 = 3;
    /// `AF_INET` and `AF_INET6`, `SOCK_STREAM`, protocol 0, TCP or MPTCP.
    pub const TCP: u32 = 4;
    /// `AF_INET` and `AF_INET6`, `SOCK_DGRAM`, protocol 0, UDP or UDPLITE.
    pub const UDP: u32 = 5;
    /// `AF_INET`, `SOCK_DGRAM`, ICMP.
    pub const ICMP_DGRAM: u32 = 6;
    /// `AF_INET`, `SOCK_RAW`, ICMP.
    pub const ICMP_RAW: u32 = 7;
    /// `AF_INET6`, `SOCK_DGRAM`, `ICMPv6`.
    pub const ICMPV6_DGRAM: u32 = 8;
    /// `AF_INET6`, `SOCK_RAW`, `ICMPv6`.
    pub const ICMPV6_RAW: u32 = 9;
    /// SCTP, `SOCK_STREAM`.
    pub const SCTP_STREAM: u32 = 10;
    /// SCTP, `SOCK_SEQPACKET`.
    pub const SCTP_SEQPACKET: u32 = 11;
    /// DCCP.
    pub const DCCP: u32 = 12;
    /// Any other `SOCK_RAW` of `AF_INET` and `AF_INET6`.
    pub const INET_RAW: u32 = 13;
    /// `AF_PACKET`, `SOCK_RAW`.
    pub const PACKET_RAW: u32 = 14;
    /// `AF_PACKET`, `SOCK_DGRAM`.
    pub const PACKET_DGRAM: u32 = 15;
    /// `SOCK_STREAM` of every other family.
    pub const OTHER_STREAM: u32 = 16;
    /// `SOCK_DGRAM` of every other family.
    pub const OTHER_DGRAM: u32 = 17;
    /// `SOCK_RAW` of every other family.
    pub const OTHER_RAW: u32 = 18;
    /// `SOCK_RDM` of every other family.
    pub const OTHER_RDM: u32 = 19;
    /// `SOCK_SEQPACKET` of every other family.
    pub const OTHER_SEQPACKET: u32 = 20;
    /// Whatever is left.
    pub const OTHER: u32 = 21;
}

/// Length of a row of the network table.
pub const KINDS: u32 = 32;
/// Length of a row of the capability table. An entry of both tables is verdict | rule << 16.
pub const CAPS: u32 = 64;

/// Compiled policy sets at most.
pub const MAX_SETS: u32 = 4096;

/// Set flag: some file rule.
pub const SET_FILE: u32 = 0x1;
/// Set flag: some process rule.
pub const SET_PROCESS: u32 = 0x2;
/// Set flag: some network rule.
pub const SET_NETWORK: u32 = 0x4;
/// Set flag: some capability rule.
pub const SET_CAPABILITY: u32 = 0x8;
/// Set flag: some file or process operation can be denied, so names are worth protecting.
pub const SET_BLOCKS_PATHS: u32 = 0x10;
/// Set flag: some rule reaches below `/proc`, so mounting proc elsewhere would be an alias.
pub const SET_PROC_RULES: u32 = 0x20;
/// Set flag: the same for `/sys`.
pub const SET_SYS_RULES: u32 = 0x40;
/// Set flag: some rule on system calls themselves.
pub const SET_CALLS: u32 = 0x80;
/// Set flag: some rule on what system calls do to paths.
pub const SET_CALL_PATHS: u32 = 0x100;
/// Set flag: the entry is in use.
pub const SET_USED: u32 = 0x8000_0000;

/// A compiled policy set. Offsets are absolute in its segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Set {
    /// `SET_*`; 0 is a free entry.
    pub flags: u32,
    /// Index of the segment.
    pub segment: u32,
    /// Byte offset in the segment of all that belongs to this set.
    pub base: u32,
    /// Bytes of all that belongs to this set.
    pub length: u32,
    /// Byte offset of the byte classes.
    pub classes: u32,
    /// States from here on loop to themselves on every byte.
    pub sink: u32,
    /// Source classes, at least 1; class 0 is "none that a rule names".
    pub sources: u32,
    /// Start state for an executable's path, whose decision column is the source class; 0: only class 0.
    pub source_start: u32,
    /// Word index of `u32[sources]`: start state for paths.
    pub starts: u32,
    /// Word index of `u32[sources]`: start state for the last component of an executable; 0: no such rule.
    pub name_starts: u32,
    /// Word index of `[Decision; decisions_len]`.
    pub decisions: u32,
    /// Number of decisions.
    pub decisions_len: u32,
    /// Word index of `u32[sources][KINDS]`; 0: no network rule.
    pub network: u32,
    /// Word index of `u32[sources][CAPS]`; 0: no capability rule.
    pub capabilities: u32,
    /// Number of rules, for bounds in user space.
    pub rules: u32,
    /// User space: 0, or when the last slot left it (`CLOCK_BOOTTIME` seconds).
    pub retired_at: u32,
    /// Content hash of the rule set.
    pub hash: [u64; 2],
    /// Byte g: verdict of group g for what no rule covers.
    pub unmatched: u32,
    /// Word index of `u32[call::END]`; 0: no rule on system calls.
    pub calls: u32,
    /// Word index of `u32[sources][call_columns]`; 0: no columns.
    pub call_entries: u32,
    /// Columns of calls.
    pub call_columns: u32,
    /// Word index of `u32[sources][call_classes]`: start state for paths; 0: no classes.
    pub call_starts: u32,
    /// Classes of calls whose paths the same rules are about.
    pub call_classes: u32,
    /// Room for later.
    pub spare: [u32; 2],
}

/// Armed containers at most.
pub const MAX_SLOTS: u32 = 8192;

/// Slot flag: a container is armed here.
pub const SLOT_ARMED: u32 = 0x1;
/// Slot flag: deny nothing, alert instead.
pub const SLOT_AUDITED: u32 = 0x2;
/// Slot flag: the container was removed; the slot can be freed when no task has its label, see [`crate::Kernel::labels`].
pub const SLOT_DYING: u32 = 0x4;

/// One armed container.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Slot {
    /// `SLOT_*`; 0 is a free slot.
    pub flags: u32,
    /// Goes up each time the slot is taken by another container, never 0 while used.
    pub epoch: u32,
    /// Index of the set; one store switches the container to another.
    pub set: u32,
    /// Policy generation, goes up at each switch; told in events.
    pub generation: u32,
    /// Inode of the runtime's mount namespace: execs there are the runtime's own. Stamped like [`Slot::runtime_root`].
    pub runtime_mntns: u32,
    /// Room for later.
    pub unused: u32,
    /// The container's root dentry; the kernel writes it at the first labelled exec.
    pub root: u64,
    /// Cgroup id it was armed for.
    pub cgroup: u64,
    /// When it was armed (`CLOCK_BOOTTIME`, ns).
    pub armed_ns: u64,
    /// The runtime's root dentry; the program `pc_stamp` writes it.
    pub runtime_root: u64,
    /// Room for later.
    pub spare: u64,
}

/// Value of the cgroup map, whose key is a cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Cgroup {
    /// Index of the slot.
    pub slot: u32,
    /// [`Slot::epoch`] it was made for.
    pub epoch: u32,
}

/// Configuration, one element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Config {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Slots in use; 0 lets an exec outside any container skip the look at its cgroups.
    pub armed: u32,
    /// `s_dev` (kernel encoding) of the BPF file system that holds the pins.
    pub pin_dev: u64,
    /// Room for later.
    pub spare: [u64; 2],
}

/// [`Event::kind`] of an alert.
pub const EVENT_ALERT: u32 = 1;

/// `enum pc_op`: what was attempted.
pub mod op {
    /// A read of a file or directory.
    pub const READ: u32 = 1;
    /// A write.
    pub const WRITE: u32 = 2;
    /// Creation of a regular file.
    pub const CREATE: u32 = 3;
    /// Removal of a name.
    pub const UNLINK: u32 = 4;
    /// A rename, either side.
    pub const RENAME: u32 = 5;
    /// A hard link.
    pub const LINK: u32 = 6;
    /// A symbolic link.
    pub const SYMLINK: u32 = 7;
    /// Creation of a directory.
    pub const MKDIR: u32 = 8;
    /// Removal of a directory.
    pub const RMDIR: u32 = 9;
    /// Creation of a device, fifo or socket.
    pub const MKNOD: u32 = 10;
    /// A change of mode.
    pub const CHMOD: u32 = 11;
    /// A change of owner.
    pub const CHOWN: u32 = 12;
    /// A truncation.
    pub const TRUNCATE: u32 = 13;
    /// A change of times or other attributes.
    pub const SETATTR: u32 = 14;
    /// A change of extended attributes.
    pub const SETXATTR: u32 = 15;
    /// A file descriptor received over a socket.
    pub const RECEIVE: u32 = 16;
    /// An execution.
    pub const EXEC: u32 = 32;
    /// A mapping of a file as code.
    pub const MAP_EXEC: u32 = 33;
    /// `socket(2)`, `socketpair(2)`.
    pub const SOCKET: u32 = 48;
    /// `connect(2)`.
    pub const CONNECT: u32 = 49;
    /// `bind(2)`.
    pub const BIND: u32 = 50;
    /// `listen(2)`.
    pub const LISTEN: u32 = 51;
    /// `accept(2)`.
    pub const ACCEPT: u32 = 52;
    /// `sendmsg(2)` and its kin.
    pub const SEND: u32 = 53;
    /// Use of a capability.
    pub const CAPABLE: u32 = 64;
    /// `mount(2)` and its kin.
    pub const MOUNT: u32 = 80;
    /// `umount(2)`.
    pub const UMOUNT: u32 = 81;
    /// `move_mount(2)`.
    pub const MOVE_MOUNT: u32 = 82;
    /// `pivot_root(2)`.
    pub const PIVOT_ROOT: u32 = 83;
    /// `bpf(2)`.
    pub const BPF: u32 = 96;
    /// Registration of credentials with io_uring.
    pub const URING_CREDS: u32 = 97;
    /// A system call.
    pub const SYSCALL: u32 = 112;
}

/// Longest path in an event, with its terminator in the kernel; an event carries one byte less at most.
pub const PATH_MAX: u32 = 3072;

/// A container that runs already and whose tasks are to be labelled, see [`crate::Kernel::adopt`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Adoption {
    /// The top of its cgroups.
    pub cgroup: u64,
    /// Its slot.
    pub slot: u32,
    /// [`Slot::epoch`].
    pub epoch: u32,
    /// The process whose root directory is the container's.
    pub init: u32,
    /// 1 when that process was met. This and what follows is the kernel's answer.
    pub rooted: u32,
    /// Tasks that got the label.
    pub labelled: u32,
    /// Tasks for whose label there was no memory.
    pub failed: u32,
}

/// The label of a task, see [`crate::Kernel::labels`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct Label {
    /// The slot of its container.
    pub slot: u32,
    /// [`Slot::epoch`] it was made for.
    pub epoch: u32,
}

/// Header of an event; [`Event::path_len`] bytes of path follow it, not terminated.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Event {
    /// `EVENT_*` (`type` in C).
    pub kind: u32,
    /// The CPU that raised it.
    pub cpu: u32,
    /// Per CPU, counts every alert, delivered or lost.
    pub seq: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub time_ns: u64,
    /// Cgroup id of the task.
    pub cgroup: u64,
    /// Slot of the container.
    pub slot: u32,
    /// [`Slot::epoch`] at the time.
    pub epoch: u32,
    /// [`Slot::generation`] at the time.
    pub generation: u32,
    /// Index of the set that decided.
    pub set: u32,
    /// Index of the rule in the set, or `RULE_*`.
    pub rule: u32,
    /// What was attempted, see [`op`].
    pub op: u32,
    /// [`AUDIT`] or [`BLOCK`]: what was done.
    pub verdict: u32,
    /// Source class of the task.
    pub source: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// File system user id in the initial user namespace.
    pub uid: u32,
    /// Sockets: family, type, protocol. Capabilities: the number. System calls: the index, see [`call`].
    pub arg: [u32; 3],
    /// Bytes of path that follow.
    pub path_len: u32,
    /// 1: the path begins before what is told.
    pub path_cut: u32,
    /// The same of the same process that were only counted since it was last told.
    pub repeats: u32,
    /// Nothing.
    pub zero: u32,
    /// Name of the thread, padded with NUL.
    pub comm: [u8; 16],
}

/// Per-CPU counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Stats {
    /// Alerts raised.
    pub seq: u64,
    /// Alerts that found no room in the ring.
    pub lost: u64,
    /// Operations denied.
    pub blocked: u64,
    /// Operations allowed with an alert.
    pub audited: u64,
    /// Paths that could not be told.
    pub unresolved: u64,
    /// Denied because no scratch buffer was free.
    pub busy: u64,
    /// Walks repeated because a rename or a mount came between.
    pub torn: u64,
    /// Audited operations that were counted and not raised.
    pub repeated: u64,
}

const _: () = {
    assert!(size_of::<Decision>() == DECISION_WORDS as usize * 4);
    assert!(size_of::<Set>() == 112);
    assert!(size_of::<Slot>() == 64);
    assert!(size_of::<Event>() == 120);
};
