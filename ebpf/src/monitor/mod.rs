//! The monitor: programs that tell what processes do, and decide nothing.
//!
//! They are an object of their own (`bpf/monitor.bpf.c`) with pins of their own (`monitor-v<layout>` beside those of
//! enforcement), on tracepoints alone: where BPF is no active security module they work all the same. With enforcement they share one
//! map, the label that says which container a task belongs to.
//!
//! Once loaded nothing is told until [`Monitor::set_visibility`] asks for it. Like enforcement, the programs stay when every process of
//! ours is gone; what nobody reads fills the ring, and then is counted as lost.

pub mod abi;
pub(crate) mod load;
mod process;

use std::os::fd::AsFd;

pub use process::{ProcessEvent, ProcessEvents, arguments};

use crate::kernel::open_map;
use crate::pins::{self, Place};
use crate::{Error, MONITOR_PROGRAMS, inventory, sys};

/// Whose processes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Those of the host.
    pub host: bool,
    /// Those of containers: labelled by enforcement, or in a pid namespace other than the first.
    pub containers: bool,
}

/// What was counted on all CPUs together, since the monitor was first loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of processes.
    pub events: u64,
    /// Those that found no room in the ring.
    pub lost: u64,
    /// Times that the kernel did not run a program because it was running already on that CPU, since the last upgrade. Such an
    /// event has no number.
    pub missed: u64,
}

/// The monitor's programs in force on this host.
pub struct Monitor {
    place: Place,
    config: sys::Map,
    stats: sys::Map,
}

impl Monitor {
    /// Puts the programs of this build in force, if they are not: loads, attaches and pins them, lets them take over, then
    /// removes an older build. Visibility stays as it was, at first nothing.
    ///
    /// # Errors
    /// If the kernel refuses a program; what was in force before stays in force.
    pub fn load() -> Result<Monitor, Error> {
        Self::load_at(Place::system(), MONITOR_PROGRAMS, load::Sizes::default())
    }

    pub(crate) fn load_at(place: Place, object: crate::load::Object<'_>, sizes: load::Sizes) -> Result<Monitor, Error> {
        load::load(&place, object, sizes)?;
        Self::open_at(place)
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
        Ok(Monitor { place, config, stats })
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

    /// Whose processes are told.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn visibility(&self) -> Result<Visibility, Error> {
        let visible = load::read_config(&self.config)?.visible;
        Ok(Visibility { host: visible & abi::HOST != 0, containers: visible & abi::CONTAINER != 0 })
    }

    /// Sets whose processes are told, from the next event on.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_visibility(&self, visibility: Visibility) -> Result<(), Error> {
        let _lock = self.place.lock()?;
        let bit = |wanted: bool, bit: u32| if wanted { bit } else { 0 };
        let visible = bit(visibility.host, abi::HOST) | bit(visibility.containers, abi::CONTAINER);
        load::change_config(&self.config, |config| config.visible = visible)
    }

    /// The events of processes.
    ///
    /// # Errors
    /// [`Error::ProcessEventsTaken`] if another process reads them.
    pub fn process_events(&self) -> Result<ProcessEvents, Error> {
        ProcessEvents::of(&self.place)
    }

    /// The counters of each possible CPU.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn stats(&self) -> Result<Vec<abi::Stats>, Error> {
        let value = self.stats.lookup(&[0; 4]).map_err(|error| Error::system("reading pc_mon_stats", error))?;
        Ok(value.unwrap_or_default().chunks_exact(size_of::<abi::Stats>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// What was counted, on all CPUs together. At rest, `events` is what was delivered and what was lost.
    ///
    /// # Errors
    /// If a map or a program can't be read.
    pub fn counts(&self) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        for cpu in self.stats()? {
            counts.events += cpu.seq;
            counts.lost += cpu.lost;
        }
        for build in self.place.builds()? {
            let directory = self.place.build(&build);
            for name in pins::entries(&directory)? {
                let pin = directory.join(&name);
                let failed = |error| Error::file(&pin, error);
                let (program, _) = sys::open_pin(&pin).and_then(inventory::program_of).map_err(failed)?;
                let info: sys::ProgInfo = sys::info(program.as_fd()).map_err(failed)?;
                counts.missed += info.recursion_misses;
            }
        }
        Ok(counts)
    }
}
