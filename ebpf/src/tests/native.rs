//! Maps, pins and tracing programs on the running kernel. Security hooks are left out: where kernel lockdown refuses them,
//! as on build machines, everything else still works; the tests in virtual machines cover them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use crate::abi::{self, SEGMENT_BYTES};
use crate::load::Object;
use crate::load::{MAPS, Options};
use crate::pins::Place;
use crate::programs::{Attach, Ladder, Program};
use crate::{Error, Kernel, OBJECT, PROGRAMS, ProgramInfo};

/// A place of its own for each test, removed at its end.
pub(super) struct Room {
    name: String,
}

impl Room {
    /// Nothing, and why, where this process may not load programs.
    pub(super) fn new(name: &str) -> Option<Room> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: loading programs needs root");
            return None;
        }
        let room = Room { name: format!("portcullis-test-{name}-{}", process::id()) };
        match room.place().mount() {
            Ok(_) => Some(room),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::named(&self.name)
    }

    pub(super) fn root(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    pub(super) fn load(&self, options: Options) -> Result<Kernel, Error> {
        Kernel::load_at(self.place(), PROGRAMS, options, tracing)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.place().clear();
        let _ = fs::remove_dir_all(Path::new("/run").join(&self.name));
    }
}

fn tracing(program: &Program) -> bool {
    !matches!(program.attach, Attach::Lsm(_))
}

fn by(ladder: Ladder) -> Options {
    Options { ladder: Some(ladder), anew: false }
}

fn names(programs: &[ProgramInfo]) -> Vec<&str> {
    programs.iter().map(|program| program.name.as_str()).collect()
}

#[test]
fn what_is_loaded_is_pinned_and_found_again() {
    let Some(room) = Room::new("pins") else {
        return;
    };
    assert!(matches!(Kernel::open_at(room.place()), Err(Error::NotLoaded)));
    let kernel = room.load(Options::default()).expect("loading");
    let first = kernel.programs().expect("programs");
    assert_eq!(names(&first), ["pc_adopt", "pc_labels", "pc_stamp", "pc_sys_enter"]);
    assert!(
        first.iter().all(|p| p.xlated_insns > 0 && p.attached != ["pc_stamp", "pc_sys_enter"].contains(&p.name.as_str())),
        "{first:?}"
    );
    assert_eq!(room.place().pinned_maps().expect("maps"), MAPS);
    let config = kernel.config().expect("config");
    assert_eq!((config.layout, config.armed), (abi::LAYOUT, 0));
    assert_ne!(config.pin_dev, 0);

    let links = |kernel: &Kernel| {
        let build = kernel.programs().expect("programs")[0].build.clone();
        fs::metadata(kernel.place.build(&build).join("pc_labels")).expect("a pin").ino()
    };
    let pinned = links(&kernel);
    drop(kernel);
    let again = room.load(Options::default()).expect("loading again");
    assert_eq!(links(&again), pinned, "nothing is loaded twice");
    assert_eq!(Kernel::open_at(room.place()).expect("opening").programs().expect("programs"), first);

    Kernel::unload_at(&room.place()).expect("unloading");
    assert!(!room.root().exists());
    assert!(matches!(Kernel::open_at(room.place()), Err(Error::NotLoaded)));
}

#[test]
fn an_upgrade_keeps_what_is_armed() {
    let Some(room) = Room::new("upgrade") else {
        return;
    };
    let kernel = room.load(by(Ladder::Read)).expect("loading");
    let slot = abi::Slot { flags: abi::SLOT_ARMED, epoch: 3, cgroup: 77, ..Default::default() };
    kernel.write_slot(5, &slot).expect("a slot");
    kernel.cgroup_arm(77, abi::Cgroup { slot: 5, epoch: 3 }).expect("arming");
    kernel.set_armed(1).expect("config");
    let old = kernel.programs().expect("programs");

    let upgraded = room.load(by(Ladder::Cast)).expect("upgrading");
    let new = upgraded.programs().expect("programs");
    assert_eq!(names(&old), names(&new));
    assert_ne!(old[0].build, new[0].build);
    assert_eq!(upgraded.read_slot(5).expect("slot"), slot);
    assert_eq!(upgraded.cgroup_list().expect("list"), [(77, abi::Cgroup { slot: 5, epoch: 3 })]);
    assert_eq!(upgraded.config().expect("config").armed, 1);
}

#[test]
fn loading_anew_replaces_every_program_of_the_same_build() {
    let Some(room) = Room::new("anew") else {
        return;
    };
    let ids = |kernel: &Kernel| kernel.programs().expect("programs").len();
    let kernel = room.load(Options::default()).expect("loading");
    let links = room.root().join(format!("v{}", abi::LAYOUT)).join("links");
    let before = crate::pins::entries(&links).expect("links");
    let pin = links.join(&before[0]).join("pc_labels");
    let old = fs::metadata(&pin).expect("a pin").ino();

    let again = room.load(Options { anew: true, ..Options::default() }).expect("loading anew");
    assert_eq!(ids(&kernel), ids(&again));
    assert_eq!(crate::pins::entries(&links).expect("links"), before);
    let new = fs::metadata(&pin).expect("a pin").ino();
    assert_ne!(old, new, "the pin is of another link");
}

#[test]
fn an_upgrade_that_fails_leaves_what_was_in_force() {
    let Some(room) = Room::new("failure") else {
        return;
    };
    let kernel = room.load(by(Ladder::Read)).expect("loading");
    let before = kernel.programs().expect("programs");
    // The same programs with a call that no kernel has: the verifier refuses it.
    let broken = crate::elf::resolve_casts(OBJECT, Some(u32::MAX >> 1)).expect("the object");
    let broken: Vec<u64> = broken
        .chunks(8)
        .map(|bytes| {
            let mut unit = [0u8; 8];
            unit[..bytes.len()].copy_from_slice(bytes);
            u64::from_ne_bytes(unit)
        })
        .collect();
    let refused = Kernel::load_at(
        room.place(),
        Object { bytes: bytemuck::cast_slice(&broken), hash: "0badc0de" },
        by(Ladder::Cast),
        |_| true,
    );
    let message = refused.err().expect("refused").to_string();
    assert!(message.starts_with("the kernel refused the program pc_"), "{message}");
    assert_eq!(Kernel::open_at(room.place()).expect("opening").programs().expect("programs"), before);
    let links = room.root().join(format!("v{}", abi::LAYOUT)).join("links");
    assert_eq!(crate::pins::entries(&links).expect("links"), [before[0].build.as_str()]);
}

#[test]
fn an_upgrade_that_was_cut_short_is_cleaned_up() {
    let Some(room) = Room::new("crash") else {
        return;
    };
    room.load(by(Ladder::Read)).expect("loading");
    let kernel = room.load(by(Ladder::Cast)).expect("upgrading");
    let build = kernel.programs().expect("programs")[0].build.clone();
    let links = room.root().join(format!("v{}", abi::LAYOUT)).join("links");
    for left in ["0123456789abcdef-1", "0123456789abcdef-2-new", "0123456789abcdef-2-old"] {
        fs::create_dir(links.join(left)).expect("a directory on the BPF file system");
    }
    assert_eq!(room.place().builds().expect("builds").len(), 2, "both are attached, the stricter wins");
    room.load(by(Ladder::Cast)).expect("loading");
    assert_eq!(crate::pins::entries(&links).expect("links"), [build.as_str()]);

    // A pin that somebody has removed is a reason to load anew, and what is left stays until then.
    fs::remove_file(links.join(&build).join("pc_labels")).expect("removing a pin");
    let mended = room.load(by(Ladder::Cast)).expect("loading");
    assert_eq!(names(&mended.programs().expect("programs")), ["pc_adopt", "pc_labels", "pc_stamp", "pc_sys_enter"]);
    assert_eq!(crate::pins::entries(&links).expect("links"), [build.as_str()]);
}

#[test]
fn tables_are_the_kernels_own_memory() {
    let Some(room) = Room::new("tables") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    let set = abi::Set { flags: abi::SET_USED, segment: 1, hash: [u64::MAX, 2], unmatched: 9, ..Default::default() };
    kernel.write_set(abi::MAX_SETS - 1, &set).expect("the last set");
    kernel.store_set_retired(abi::MAX_SETS - 1, 55).expect("retired");
    let other = Kernel::open_at(room.place()).expect("opening");
    assert_eq!(other.read_set(abi::MAX_SETS - 1).expect("set"), abi::Set { retired_at: 55, ..set });
    assert!(matches!(kernel.read_set(abi::MAX_SETS), Err(Error::Range { .. })));
    assert!(matches!(kernel.write_slot(abi::MAX_SLOTS, &abi::Slot::default()), Err(Error::Range { .. })));

    let slot = abi::Slot { flags: abi::SLOT_ARMED, epoch: 1, unused: 4, runtime_mntns: 8, ..Default::default() };
    kernel.write_slot(0, &slot).expect("slot");
    kernel.store_slot_set(0, 12, 3).expect("switching");
    kernel.store_slot_flags(0, abi::SLOT_DYING).expect("flags");
    let wanted = abi::Slot { flags: abi::SLOT_DYING, set: 12, generation: 3, ..slot };
    assert_eq!(other.read_slot(0).expect("slot"), wanted);
    other.wait_readers().expect("no reader is left");
}

#[test]
fn a_segment_is_made_once_and_shared() {
    let Some(room) = Room::new("segments") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    assert_eq!(kernel.segments().expect("segments"), [0u32; 0]);
    let before = kernel.memory().expect("memory");
    let segment = kernel.segment(2).expect("a segment");
    segment.write(256, b"abcde").expect("inside");
    segment.write(SEGMENT_BYTES - 4, &[1, 2, 3, 4]).expect("the end");
    for (offset, bytes) in [(SEGMENT_BYTES - 4, &[0u8; 5][..]), (2, &[0]), (SEGMENT_BYTES + 4, &[]), (u32::MAX - 3, &[0])] {
        assert!(matches!(segment.write(offset, bytes), Err(Error::Range { .. })), "{offset}");
    }
    let again = Kernel::open_at(room.place()).expect("opening").segment(2).expect("the same");
    let mut read = [0u8; 8];
    again.read(256, &mut read).expect("inside");
    assert_eq!(&read, b"abcde\0\0\0");
    assert_eq!(kernel.segments().expect("segments"), [2]);
    assert!(kernel.memory().expect("memory") >= before + u64::from(SEGMENT_BYTES));
    assert!(matches!(kernel.segment(abi::MAX_SEGMENTS), Err(Error::Range { .. })));
}

#[test]
fn cgroups_are_armed_and_forgotten() {
    let Some(room) = Room::new("cgroups") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    for id in 1..=100u64 {
        kernel.cgroup_arm(id << 33, abi::Cgroup { slot: 1, epoch: 2 }).expect("arming");
    }
    assert!(kernel.cgroup_disarm(7 << 33).expect("disarming"));
    assert!(!kernel.cgroup_disarm(7 << 33).expect("twice"));
    let list = kernel.cgroup_list().expect("list");
    assert_eq!(list.len(), 99);
    assert!(list.iter().all(|(id, cgroup)| *id != 7 << 33 && *cgroup == abi::Cgroup { slot: 1, epoch: 2 }));
}

#[test]
fn a_slot_is_stamped_with_the_namespace_of_the_caller() {
    let Some(room) = Room::new("stamp") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    kernel.stamp(9).expect("stamping");
    let slot = kernel.read_slot(9).expect("slot");
    let own = fs::metadata("/proc/self/ns/mnt").expect("a namespace").ino();
    assert_eq!(u64::from(slot.runtime_mntns), own);
    assert_ne!(slot.runtime_root, 0);
    assert!(matches!(kernel.stamp(abi::MAX_SLOTS), Err(Error::Range { .. })));
}

/// A task of a cgroup of its own gets the label, and is listed with it until it ends; others don't.
#[test]
fn running_tasks_are_labelled_by_their_cgroup() {
    let Some(room) = Room::new("adopt") else {
        return;
    };
    let Some(cgroup) = Cgroup::make("adopt") else {
        eprintln!("skipped: no cgroup can be made");
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    let mut child = process::Command::new("sleep").arg("100").spawn().expect("a child");
    cgroup.hold(child.id());
    // A mount namespace and a root that are nobody's: no task here is taken for the runtime.
    let slot = abi::Slot { flags: abi::SLOT_ARMED, epoch: 4, runtime_mntns: 1, runtime_root: 1, ..Default::default() };
    kernel.write_slot(3, &slot).expect("a slot");
    let root = abi::Adoption { slot: 3, epoch: 4, init: child.id(), ..Default::default() };
    let noted = kernel.adopt(root).expect("a pass");
    assert_eq!((noted.rooted, noted.labelled), (1, 0), "the root alone");
    assert_ne!(kernel.read_slot(3).expect("slot").root, 0);
    let asked = abi::Adoption { cgroup: cgroup.id(), slot: 3, epoch: 4, init: child.id(), ..Default::default() };
    let first = kernel.adopt(asked).expect("a pass");
    assert_eq!((first.labelled, first.rooted, first.failed), (1, 1, 0));
    let second = kernel.adopt(asked).expect("a pass");
    assert_eq!((second.labelled, second.rooted), (0, 1), "it has its label");
    let there = kernel.read_slot(3).expect("slot");
    assert_ne!(there.root, 0);
    let label = abi::Label { slot: 3, epoch: 4 };
    assert_eq!(kernel.labels().expect("a pass"), [(label, 1)].into());
    child.kill().expect("a kill");
    child.wait().expect("its end");
    assert!(kernel.labels().expect("a pass").is_empty());
    let stranger = kernel.adopt(abi::Adoption { cgroup: 1 << 60, ..asked }).expect("a pass");
    assert_eq!((stranger.labelled, stranger.rooted), (0, 0));
}

/// A cgroup below the unified hierarchy, removed at its end.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    pub(super) fn make(name: &str) -> Option<Cgroup> {
        let path = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists())?
            .join(format!("portcullis-test-{name}-{}", process::id()));
        fs::create_dir(&path).ok()?;
        Some(Cgroup(path))
    }

    pub(super) fn id(&self) -> u64 {
        fs::metadata(&self.0).expect("the cgroup").ino()
    }

    pub(super) fn above(&self) -> u64 {
        fs::metadata(self.0.parent().expect("a cgroup")).expect("the cgroup above").ino()
    }

    pub(super) fn hold(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("moving a process");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn alerts_have_one_reader() {
    let Some(room) = Room::new("events") else {
        return;
    };
    let kernel = room.load(Options::default()).expect("loading");
    let mut events = kernel.events().expect("the first reader");
    assert!(matches!(kernel.events(), Err(Error::EventsTaken)));
    assert_eq!(events.next(Duration::from_millis(1)).expect("waiting"), None);
    assert_eq!((events.lost(), events.malformed()), (0, 0));
    drop(events);
    kernel.events().expect("the next reader");
    assert_eq!(kernel.stats().expect("stats").len(), crate::sys::possible_cpus().expect("cpus"));
}

#[test]
fn probing_changes_nothing_and_says_what_to_do() {
    let probe = Kernel::probe();
    let text = probe.to_string();
    assert!(text.starts_with("BPF security module: "));
    assert_eq!(probe.can_enforce(), !text.contains("\nerror: "));
}
