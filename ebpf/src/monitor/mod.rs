//! The monitor: programs that tell what processes do and use, and decide nothing.
//!
//! They are an object of their own (`bpf/monitor.bpf.c`) with pins of their own (`monitor-v<layout>` beside those of
//! enforcement), on tracepoints and where functions of the kernel return: where BPF is no active security module they work all the
//! same. With enforcement they share one map, the label that says which container a task belongs to.
//!
//! There are two rings: processes ([`ProcessEvents`]), and accesses, which are what they open, change, connect to and which capabilities
//! they use ([`AccessEvents`]). An access that repeats within a window is told once, and then counted.
//!
//! Once loaded nothing is told until [`Monitor::set_visibility`] asks for it. Like enforcement, the programs stay when every process of
//! ours is gone; what nobody reads fills the rings, and then is counted as lost.

pub mod abi;
mod access;
mod address;
pub(crate) mod load;
mod process;
mod repeats;
#[cfg(feature = "replay")]
pub mod replay;
mod visibility;

pub use access::{AccessEvent, AccessEvents};
pub use address::Address;
pub use process::{ProcessEvent, ProcessEvents};
pub use repeats::Repeat;
pub use visibility::{Classes, Visibility};

use crate::kernel::open_map;
use crate::pins::Place;
use crate::{Error, MONITOR_PROGRAMS, ProgramInfo, inventory, sys};

/// What was counted on all CPUs together, since the monitor was first loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of processes.
    pub events: u64,
    /// Those that found no room in the ring.
    pub lost: u64,
    /// Accesses that were to be told.
    pub accesses: u64,
    /// Those that found no room in the ring, or no working memory.
    pub accesses_lost: u64,
    /// Accesses that were counted and not told, as repeats. All that were visible are these and `accesses`.
    pub accesses_aggregated: u64,
    /// Times that the kernel did not run a program because it was running already on that CPU, since the last upgrade. Such an
    /// event has no number.
    pub missed: u64,
}

/// Which programs are attached. What is not visible costs a look where a program is, and nothing where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Those of processes.
    Processes,
    /// Those of processes and of accesses.
    Accesses,
}

/// The monitor's programs in force on this host.
pub struct Monitor {
    place: Place,
    config: sys::Map,
    stats: sys::Map,
    overrides: sys::Map,
    repeats: sys::Map,
    notes: Vec<String>,
}

impl Monitor {
    /// Puts the programs of this build in force, if they are not: loads, attaches and pins them, lets them take over, then
    /// removes an older build. Visibility stays as it was, at first nothing.
    ///
    /// # Errors
    /// If the kernel refuses a program; what was in force before stays in force.
    pub fn load(watch: Watch) -> Result<Monitor, Error> {
        Self::load_at(Place::system(), MONITOR_PROGRAMS, load::Sizes::default(), watch)
    }

    pub(crate) fn load_at(
        place: Place,
        object: crate::load::Object<'_>,
        sizes: load::Sizes,
        watch: Watch,
    ) -> Result<Monitor, Error> {
        let notes = load::load(&place, object, sizes, watch)?;
        Ok(Monitor { notes, ..Self::open_at(place)? })
    }

    /// Opens what is in force.
    ///
    /// # Errors
    /// [`Error::MonitorNotLoaded`] if nothing of this layout is.
    pub fn open() -> Result<Monitor, Error> {
        Self::open_at(Place::system())
    }

    pub(crate) fn open_at(place: Place) -> Result<Monitor, Error> {
        let place = place.monitor();
        if place.builds()?.is_empty() {
            return Err(Error::MonitorNotLoaded);
        }
        let config = open_map(&place, "pc_mon_config", size_of::<abi::Config>(), 1)?;
        let stats = open_map(&place, "pc_mon_stats", size_of::<abi::Stats>(), 1)?;
        let overrides = open_map(&place, "pc_mon_override", size_of::<u32>(), abi::OVERRIDES_MAX)?;
        let repeats = open_map(&place, "pc_mon_repeats", size_of::<abi::Repeated>(), abi::REPEATS_MAX)?;
        Ok(Monitor { place, config, stats, overrides, repeats, notes: Vec::new() })
    }

    /// Takes the monitor out of force. Enforcement is not touched; [`crate::Kernel::unload`] takes out both.
    ///
    /// # Errors
    /// If a pin can't be removed.
    pub fn unload() -> Result<(), Error> {
        Self::unload_at(&Place::system())
    }

    pub(crate) fn unload_at(place: &Place) -> Result<(), Error> {
        let _lock = place.lock()?;
        place.monitor().clear_layout()?;
        // The shared map alone, without anybody to fill it, is what loading the monitor first has left there.
        if place.builds()?.is_empty() && place.pinned_maps()?.iter().all(|name| name == load::SHARED) {
            place.clear_layout()?;
        }
        Ok(())
    }

    /// What loading had to leave out, in sentences: hooks that this kernel does not have.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Every pinned program.
    ///
    /// # Errors
    /// If a pin can't be read.
    pub fn programs(&self) -> Result<Vec<ProgramInfo>, Error> {
        inventory::programs_in(&self.place)
    }

    /// The events of processes.
    ///
    /// # Errors
    /// [`Error::ProcessEventsTaken`] if another process reads them.
    pub fn process_events(&self) -> Result<ProcessEvents, Error> {
        ProcessEvents::of(&self.place)
    }

    /// The accesses.
    ///
    /// # Errors
    /// [`Error::AccessEventsTaken`] if another process reads them.
    pub fn access_events(&self) -> Result<AccessEvents, Error> {
        AccessEvents::of(&self.place)
    }

    /// The counters of each possible CPU.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn stats(&self) -> Result<Vec<abi::Stats>, Error> {
        let value = self.stats.lookup(&[0; 4]).map_err(|error| Error::system("reading pc_mon_stats", error))?;
        Ok(value.unwrap_or_default().chunks_exact(size_of::<abi::Stats>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// What was counted, on all CPUs together. At rest, `events` is what was delivered and what was lost, and so is `accesses`.
    ///
    /// # Errors
    /// If a map or a program can't be read.
    pub fn counts(&self) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        for cpu in self.stats()? {
            counts.events += cpu.seq;
            counts.lost += cpu.lost;
            counts.accesses += cpu.access_seq;
            counts.accesses_lost += cpu.access_lost;
            counts.accesses_aggregated += cpu.aggregated;
        }
        counts.missed = self.programs()?.iter().map(|program| program.missed).sum();
        Ok(counts)
    }
}
