//! The pinned state, opened: what user space reads and writes while the programs run.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use crate::abi::{self, LAYOUT, MAX_SETS, MAX_SLOTS};
use crate::events::Events;
use crate::load::{self, Options};
use crate::mmap::Mapping;
use crate::pins::Place;
use crate::probe::Probe;
use crate::programs::Program;
use crate::segment::Segment;
use crate::table::Table;
use crate::{Error, PROGRAMS, sys};

pub(crate) const ZERO: [u8; 4] = [0; 4];

/// The programs that are in force on this host and the maps that they share.
///
/// Opening takes no lock, and neither does reading. Writers of slots, sets and segments agree among themselves: the
/// enforcer's lock is what they hold.
pub struct Kernel {
    pub(crate) place: Place,
    segments: sys::Map,
    pub(crate) adoption: sys::Map,
    cgroups: sys::Map,
    config: sys::Map,
    stats: sys::Map,
    sets: Table<abi::Set>,
    slots: Table<abi::Slot>,
    notes: Vec<String>,
}

impl Kernel {
    /// What this host can do. Changes nothing.
    #[must_use]
    pub fn probe() -> Probe {
        Probe::host(&Place::system())
    }

    /// Puts the programs of this build in force, if they are not: loads, attaches, tests and pins them, then removes an
    /// older build. What was armed stays armed all the while.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::MissingHook`] and [`Error::NotRunning`] are the host's; what was in force before
    /// stays in force.
    pub fn load(options: Options) -> Result<Kernel, Error> {
        Self::load_at(Place::system(), PROGRAMS, options, |_| true)
    }

    pub(crate) fn load_at(
        place: Place,
        object: load::Object<'_>,
        options: Options,
        wanted: impl Fn(&Program) -> bool,
    ) -> Result<Kernel, Error> {
        let notes = load::load(&place, object, options, wanted)?;
        let device = place.device()?;
        let mut kernel = Self::open_at(place)?;
        kernel.notes = notes;
        kernel.change_config(|config| {
            config.layout = LAYOUT;
            config.pin_dev = device;
        })?;
        Ok(kernel)
    }

    /// Opens what is in force.
    ///
    /// # Errors
    /// [`Error::NotLoaded`] if nothing of this layout is.
    pub fn open() -> Result<Kernel, Error> {
        Self::open_at(Place::system())
    }

    pub(crate) fn open_at(place: Place) -> Result<Kernel, Error> {
        if place.builds()?.is_empty() {
            return Err(Error::NotLoaded);
        }
        let sets = open_map(&place, "pc_sets", size_of::<abi::Set>(), MAX_SETS)?;
        let slots = open_map(&place, "pc_slots", size_of::<abi::Slot>(), MAX_SLOTS)?;
        Ok(Kernel {
            segments: open_map(&place, "pc_segments", 4, abi::MAX_SEGMENTS)?,
            adoption: open_map(&place, "pc_adoption", size_of::<abi::Adoption>(), 1)?,
            cgroups: open_map(&place, "pc_cgroups", size_of::<abi::Cgroup>(), 4 * MAX_SLOTS)?,
            config: open_map(&place, "pc_config", size_of::<abi::Config>(), 1)?,
            stats: open_map(&place, "pc_stats", size_of::<abi::Stats>(), 1)?,
            sets: Table::new("policy set", map_memory(&sets)?, MAX_SETS),
            slots: Table::new("slot", map_memory(&slots)?, MAX_SLOTS),
            place,
            notes: Vec::new(),
        })
    }

    /// Takes everything out of force, the monitor too, and forgets what was armed.
    ///
    /// # Errors
    /// If a pin can't be removed.
    pub fn unload() -> Result<(), Error> {
        Self::unload_at(&Place::system())
    }

    pub(crate) fn unload_at(place: &Place) -> Result<(), Error> {
        let _lock = place.lock()?;
        place.clear()
    }

    /// What loading had to do or to leave out, in sentences.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A set's entry. [`abi::Set::flags`] 0 is a free one.
    ///
    /// # Errors
    /// [`Error::Range`], as for all that take an index.
    pub fn read_set(&self, index: u32) -> Result<abi::Set, Error> {
        self.sets.read(index)
    }

    /// Fills a free entry; its flags are stored last.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn write_set(&self, index: u32, set: &abi::Set) -> Result<(), Error> {
        self.sets.write(index, set)
    }

    /// Stores [`abi::Set::retired_at`] alone.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn store_set_retired(&self, index: u32, seconds: u32) -> Result<(), Error> {
        self.sets.word(index, offset_of!(abi::Set, retired_at))?.store(seconds, Ordering::Release);
        Ok(())
    }

    /// A slot. [`abi::Slot::flags`] 0 is a free one.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn read_slot(&self, index: u32) -> Result<abi::Slot, Error> {
        self.slots.read(index)
    }

    /// Fills a free slot; its flags are stored last. Not for a slot in use: the kernel writes some of its fields.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn write_slot(&self, index: u32, slot: &abi::Slot) -> Result<(), Error> {
        self.slots.write(index, slot)
    }

    /// Stores a slot's flags alone.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn store_slot_flags(&self, index: u32, flags: u32) -> Result<(), Error> {
        self.slots.word(index, offset_of!(abi::Slot, flags))?.store(flags, Ordering::Release);
        Ok(())
    }

    /// Switches a container to another set: one store changes set and generation together.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn store_slot_set(&self, index: u32, set: u32, generation: u32) -> Result<(), Error> {
        const { assert!(offset_of!(abi::Slot, set) == 8 && offset_of!(abi::Slot, generation) == 12) };
        self.slots.store_pair(index, offset_of!(abi::Slot, set), set, generation)
    }

    /// Notes in a slot what the kernel tells of this process: its mount namespace and root are the runtime's. To be called by
    /// a door, in the runtime's own context, before the slot is armed.
    ///
    /// # Errors
    /// [`Error::Range`], or if the program can't be run.
    pub fn stamp(&self, slot: u32) -> Result<(), Error> {
        if slot >= MAX_SLOTS {
            return Err(Error::Range { what: "slot", index: slot.into(), limit: MAX_SLOTS.into() });
        }
        let build = self.place.builds()?.pop().ok_or(Error::NotLoaded)?;
        let pin = self.place.build(&build).join("pc_stamp");
        let program = sys::open_pin(&pin).map_err(|error| Error::file(&pin, error))?;
        let failed = |error| Error::system("stamping a slot", error);
        match sys::run(std::os::fd::AsFd::as_fd(&program), &[slot.into()]).map_err(failed)? {
            1 => Ok(()),
            _ => Err(Error::Object(format!("pc_stamp knows no slot {slot}"))),
        }
    }

    /// A segment, made where there is none.
    ///
    /// # Errors
    /// [`Error::Range`], or if there is no memory for it.
    pub fn segment(&self, index: u32) -> Result<Segment, Error> {
        let _lock = self.place.lock()?;
        Segment::open(&self.segments, index)
    }

    /// Which segments there are.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn segments(&self) -> Result<Vec<u32>, Error> {
        let failed = |error| Error::system("reading pc_segments", error);
        let there = |index: &u32| self.segments.lookup(&index.to_ne_bytes()).map(|id| id.is_some());
        (0..abi::MAX_SEGMENTS)
            .filter_map(|index| there(&index).map(|is| is.then_some(index)).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    /// Arms a cgroup: tasks that execute in it from now on belong to its slot.
    ///
    /// # Errors
    /// If the map is full: its limit is four cgroups for each slot.
    pub fn cgroup_arm(&self, cgroup_id: u64, cgroup: abi::Cgroup) -> Result<(), Error> {
        let failed = |error| Error::system(format!("arming cgroup {cgroup_id}"), error);
        self.cgroups.update(&cgroup_id.to_ne_bytes(), bytemuck::bytes_of(&cgroup)).map_err(failed)
    }

    /// Forgets a cgroup; whether it was armed. Tasks that belong to its slot keep belonging to it.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn cgroup_disarm(&self, cgroup_id: u64) -> Result<bool, Error> {
        let failed = |error| Error::system(format!("disarming cgroup {cgroup_id}"), error);
        self.cgroups.delete(&cgroup_id.to_ne_bytes()).map_err(failed)
    }

    /// Every armed cgroup. One that is armed or disarmed meanwhile may be in it or not.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn cgroup_list(&self) -> Result<Vec<(u64, abi::Cgroup)>, Error> {
        let failed = |error| Error::system("reading pc_cgroups", error);
        let mut list = Vec::new();
        let mut key = self.cgroups.next_key(None).map_err(failed)?;
        // A key that is deleted during the walk starts it over: the bound keeps that from going on for ever.
        for _ in 0..2 * self.cgroups.info.max_entries {
            let Some(current) = key else { break };
            if let Some(value) = self.cgroups.lookup(&current).map_err(failed)? {
                list.push((bytemuck::pod_read_unaligned(&current), bytemuck::pod_read_unaligned(&value)));
            }
            key = self.cgroups.next_key(Some(&current)).map_err(failed)?;
        }
        list.sort_by_key(|(id, _)| *id);
        list.dedup_by_key(|(id, _)| *id);
        Ok(list)
    }

    /// The configuration.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn config(&self) -> Result<abi::Config, Error> {
        let value = self.config.lookup(&ZERO).map_err(|error| Error::system("reading pc_config", error))?;
        Ok(value.map(|value| bytemuck::pod_read_unaligned(&value)).unwrap_or_default())
    }

    /// Tells the programs how many slots are in use.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_armed(&self, slots: u32) -> Result<(), Error> {
        self.change_config(|config| config.armed = slots)
    }

    fn change_config(&self, change: impl FnOnce(&mut abi::Config)) -> Result<(), Error> {
        let _lock = self.place.lock()?;
        let before = self.config()?;
        let mut config = before;
        change(&mut config);
        if config == before {
            return Ok(());
        }
        let failed = |error| Error::system("writing pc_config", error);
        self.config.update(&ZERO, bytemuck::bytes_of(&config)).map_err(failed)
    }

    /// The counters of each possible CPU.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn stats(&self) -> Result<Vec<abi::Stats>, Error> {
        let value = self.stats.lookup(&ZERO).map_err(|error| Error::system("reading pc_stats", error))?;
        Ok(value.unwrap_or_default().chunks_exact(size_of::<abi::Stats>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// The counters of all CPUs together.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn counts(&self) -> Result<abi::Stats, Error> {
        Ok(self.stats()?.into_iter().fold(abi::Stats::default(), |all, cpu| abi::Stats {
            seq: all.seq + cpu.seq,
            lost: all.lost + cpu.lost,
            blocked: all.blocked + cpu.blocked,
            audited: all.audited + cpu.audited,
            unresolved: all.unresolved + cpu.unresolved,
            busy: all.busy + cpu.busy,
            torn: all.torn + cpu.torn,
            repeated: all.repeated + cpu.repeated,
        }))
    }

    /// The alerts.
    ///
    /// # Errors
    /// [`Error::EventsTaken`] if another process reads them.
    pub fn events(&self) -> Result<Events, Error> {
        Events::of(&self.place)
    }

    /// Waits until every program that may have seen an older state has ended: after it, what was replaced can be reused.
    ///
    /// # Errors
    /// If the kernel can do it in neither of two ways.
    pub fn wait_readers(&self) -> Result<(), Error> {
        use rustix::thread::{MembarrierCommand, membarrier};
        // Programs of security hooks run as RCU readers; this is synchronize_rcu (kernel/sched/membarrier.c).
        if membarrier(MembarrierCommand::Global).is_ok() {
            return Ok(());
        }
        // Refused with nohz_full CPUs. Deleting from a map of maps waits as well (kernel/bpf/syscall.c,
        // maybe_wait_bpf_programs), and there is never a last segment while fewer than the limit are in use.
        let failed = |error| Error::system("waiting for the kernel programs", error);
        let inner = sys::create_array("pc_segment", abi::SEGMENT_SIZE).map_err(failed)?;
        let last = (abi::MAX_SEGMENTS - 1).to_ne_bytes();
        if self.segments.lookup(&last).map_err(failed)?.is_some() {
            return Err(failed(std::io::ErrorKind::ResourceBusy.into()));
        }
        self.segments.insert_map(&last, &inner).map_err(failed)?;
        self.segments.delete(&last).map(drop).map_err(failed)
    }
}

pub(crate) fn open_map(place: &Place, name: &'static str, value_size: usize, entries: u32) -> Result<sys::Map, Error> {
    let pin = place.map(name);
    let map = sys::open_pin(&pin).and_then(sys::Map::new).map_err(|error| Error::file(&pin, error))?;
    let shape = (map.info.value_size as usize, map.info.max_entries);
    if shape == (value_size, entries) { Ok(map) } else { Err(Error::Shape { map: name, layout: place.version() }) }
}

fn map_memory(map: &sys::Map) -> Result<Mapping, Error> {
    let length = map.info.value_size as usize * map.info.max_entries as usize;
    Mapping::new(map.fd(), length).map_err(|error| Error::system("mapping a table of the kernel programs", error))
}
