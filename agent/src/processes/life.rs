//! One process, from its birth to its end.

use std::sync::Arc;

use portcullis_ebpf::monitor::ProcessEvent;
use portcullis_ebpf::monitor::abi::{self, NO_SLOT};

use crate::alerts::Program;

/// `/proc` tells times in units of this (`USER_HZ` is 100 on every architecture that is supported).
pub(super) const TICK_NS: u64 = 10_000_000;
/// How long the events of a living process leave it in its place.
const PLACE_NS: u64 = 100_000_000;
/// Programs of one process that are remembered, the newest.
const MAX_IMAGES: usize = 4;
/// What a program takes besides its texts.
const IMAGE_BYTES: usize = 192;

/// A process, for ever: its number, which is used again, and when it was born (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its thread group in the initial pid namespace.
    pub tgid: u32,
    /// When it was born; of one that was found in `/proc`, to 10 ms.
    pub started_ns: u64,
}

impl Key {
    /// A process by what `/proc` says of its birth, in ticks.
    #[must_use]
    pub fn of_ticks(tgid: u32, ticks: u64) -> Key {
        Key { tgid, started_ns: ticks.saturating_mul(TICK_NS) }
    }

    /// Whether both name the same process. One of the two may come from `/proc`: its time is a multiple of ten milliseconds, within
    /// which no number is used twice.
    #[must_use]
    pub fn is(self, other: Key) -> bool {
        let (a, b) = (self.started_ns, other.started_ns);
        let rounded = a.is_multiple_of(TICK_NS) || b.is_multiple_of(TICK_NS);
        self.tgid == other.tgid && (a == b || rounded && a / TICK_NS == b / TICK_NS)
    }
}

/// The container of a process, as enforcement has labelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its slot.
    pub slot: u32,
    /// Tells the containers apart that have this slot one after another.
    pub epoch: u32,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// As `wait(2)` gives it; unknown where the end was not told and only the number was used again.
    pub status: Option<u32>,
}

/// A program that a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Since when.
    pub since_ns: u64,
    /// What it is.
    pub program: Arc<Program>,
}

impl Image {
    pub(super) fn of(event: ProcessEvent) -> Image {
        let ProcessEvent { header, exe, cwd, args, .. } = event;
        let program = Program::new([exe, cwd, args], [header.exe_flags, header.cwd_flags, header.args_flags]);
        Image { since_ns: header.time_ns, program: Arc::new(program) }
    }

    pub(super) fn bytes(&self) -> usize {
        IMAGE_BYTES + self.program.bytes()
    }
}

/// What is known of a process. Fields that can change are as its last event has them.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Its name.
    pub key: Key,
    /// The process that it was born from; where its birth was not seen, the parent that it had when it was first seen.
    pub parent: Key,
    /// Its number in its own pid namespace.
    pub ns_pid: u32,
    /// That of its parent there, 0 where the parent is outside.
    pub ns_parent: u32,
    /// Inode number of its pid namespace.
    pub pid_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Cgroup id; 0 where it is not known.
    pub cgroup: u64,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Name of its controlling terminal, padded with zeros.
    pub tty: [u8; 16],
    /// Its container. A label is never lost, so once known it stays.
    pub container: Option<Container>,
    /// Its end, when it has one.
    pub exit: Option<Exit>,
    /// When its birth was told.
    pub(super) forked_ns: Option<u64>,
    /// The parent's program at that time, as it was known then.
    pub(super) inherited: Option<Arc<Image>>,
    /// Its own programs, the oldest first.
    pub(super) images: Vec<Arc<Image>>,
    /// Time of the newest event that concerns it.
    pub(super) touched_ns: u64,
    /// Time of the event that the fields are of.
    updated_ns: Option<u64>,
}

impl Process {
    pub(super) fn new(key: Key) -> Process {
        Process { key, ..Process::default() }
    }

    /// Where it is in the order of leaving the table. Of the living roughly: that order is not put right for each event.
    pub(super) fn place(&self) -> (u64, Key) {
        (self.exit.map_or(self.touched_ns / PLACE_NS, |exit| exit.time_ns), self.key)
    }

    /// Takes over what an event says, unless a newer one has said it.
    pub(super) fn update(&mut self, header: &abi::Process) {
        if header.slot != NO_SLOT {
            self.container = Some(Container { slot: header.slot, epoch: header.epoch });
        }
        self.touched_ns = self.touched_ns.max(header.time_ns);
        if self.forked_ns.is_none() && self.updated_ns.is_none_or(|updated| header.time_ns < updated) {
            self.parent = Key { tgid: header.parent, started_ns: header.parent_started_ns };
        }
        if self.updated_ns.is_some_and(|updated| updated > header.time_ns) {
            return;
        }
        self.updated_ns = Some(header.time_ns);
        self.ns_pid = header.ns_pid;
        self.ns_parent = header.ns_parent;
        self.pid_ns = header.pid_ns;
        self.mnt_ns = header.mnt_ns;
        self.cgroup = header.cgroup;
        self.uid = header.uid;
        self.tty = header.tty;
    }

    /// Whether its program, as `/proc` names it, may be this one. `/proc` tells the path from the reader's root directory, which may
    /// have the process's own in front.
    pub(super) fn runs(&self, image: &Image) -> bool {
        self.images.last().is_none_or(|own| own.program.ends_with(&image.program))
    }

    /// Notes a program; returns one that is forgotten for it.
    pub(super) fn run(&mut self, image: Arc<Image>) -> Option<Arc<Image>> {
        let at = self.images.partition_point(|other| other.since_ns <= image.since_ns);
        self.images.insert(at, image);
        (self.images.len() > MAX_IMAGES).then(|| self.images.remove(0))
    }

    /// The program that it had started itself by that time.
    pub(super) fn image_at(&self, at_ns: u64) -> Option<&Arc<Image>> {
        self.images.iter().rev().find(|image| image.since_ns <= at_ns)
    }
}
