//! The monitor of processes as the agent has it: loaded or not and why, and the table that its events fill.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_ebpf::monitor::{Classes, Monitor, ProcessEvents, Visibility, Watch};
use portcullis_ebpf::{Error, monitor};
use portcullis_enforcer::MonitorEnabled;
use rustix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};

use super::ring::Reading;
use crate::control::MonitorStatus;
use crate::processes::{Processes, seed};

/// The monitor. By default there is none.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_required: bool,
    tells: Visibility,
    monitor: Option<Monitor>,
    /// Why there is none, though it is wanted.
    trouble: Option<String>,
    table: Mutex<Processes>,
    /// Events that were not told, as it was counted when it was last looked who lives.
    untold: AtomicU64,
    reading: Reading,
}

impl Watched {
    /// Puts the monitor in force as the configuration says. That it can't be is told, and stops nobody.
    pub(crate) fn load(config: portcullis_enforcer::Monitor) -> Watched {
        let is_required = config.enabled == MonitorEnabled::Yes;
        let loaded = match config.enabled {
            MonitorEnabled::Auto | MonitorEnabled::Yes => Monitor::load(Watch::Processes).map(Some),
            // What another configuration has left in force would go on for nobody.
            MonitorEnabled::No => Monitor::unload().map(|()| None),
        };
        let (monitor, trouble) = match loaded {
            Ok(monitor) => (monitor, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(trouble) = &trouble {
            let what = "the monitor is not as configured, so that alerts do not say what their processes run";
            match is_required {
                true => error!("{what}: {trouble}"),
                false => info!("{what}: {trouble}"),
            }
        }
        let tells = config.visibility;
        Watched(Arc::new(Inner { is_required, tells, monitor, trouble, ..Inner::default() }))
    }

    /// One without a monitor.
    #[cfg(test)]
    pub(super) fn telling(tells: Visibility) -> Watched {
        Watched(Arc::new(Inner { tells, ..Inner::default() }))
    }

    /// The table, for a moment: the thread that reads the kernel's rings waits for it.
    pub(crate) fn table(&self) -> MutexGuard<'_, Processes> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether readers are told what a container's processes execute, or those of the host.
    pub(super) fn tells_executions(&self, is_contained: bool) -> bool {
        let Visibility { host, containers } = self.0.tells;
        if is_contained { containers } else { host }.contain(Classes::PROCESS)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.0.monitor.is_some()
    }

    pub(super) fn reading(&self) -> Reading {
        self.0.reading.clone()
    }

    /// Begins to have all processes told: the table is about the host's, too, which are the parents of containers'.
    pub(super) fn events(&self) -> Result<ProcessEvents, Error> {
        let monitor = self.0.monitor.as_ref().ok_or(Error::MonitorNotLoaded)?;
        let events = monitor.process_events()?;
        monitor.set_visibility(Visibility { host: Classes::PROCESS, containers: Classes::PROCESS })?;
        Ok(events)
    }

    /// Has nothing told any more: nobody is going to read it.
    pub(crate) fn rest(&self) {
        let resting = self.0.monitor.as_ref().map_or(Ok(()), |monitor| monitor.set_visibility(Visibility::default()));
        if let Err(error) = resting {
            warn!("the monitor goes on telling, though nobody reads it: {error}");
        }
    }

    /// Whether events were not told since it was last looked who lives: there was no room for them, or the kernel skipped the program.
    pub(crate) fn is_behind(&self) -> bool {
        self.untold().is_some_and(|untold| untold != self.0.untold.load(Ordering::Relaxed))
    }

    fn untold(&self) -> Option<u64> {
        let counts = self.0.monitor.as_ref()?.counts();
        counts
            .map(|counts| counts.lost + counts.missed)
            .inspect_err(|error| warn!("the monitor's losses cannot be read: {error}"))
            .ok()
    }

    /// Notes who runs now. Those of whom nothing was told since, and who are not among them, have ended unseen.
    pub(crate) fn look_around(&self) {
        if let Some(untold) = self.untold() {
            self.0.untold.store(untold, Ordering::Relaxed);
        }
        let now = clock_gettime(ClockId::Boottime);
        let now_ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        let found = seed::read(Path::new("/proc"));
        if found.is_empty() {
            warn!("alerts lack who ran here before: /proc cannot be read");
            return;
        }
        let mut alive: Vec<_> = found.iter().map(|process| process.key).collect();
        alive.sort_unstable();
        // Not for all at once: events are waiting.
        found.into_iter().for_each(|process| self.table().add(process, now_ns));
        self.table().end_others(&alive, now_ns);
    }

    /// How it is.
    pub(crate) fn status(&self) -> MonitorStatus {
        let inner = &*self.0;
        let counts = inner.monitor.as_ref().map(Monitor::counts).transpose();
        let (counts, uncounted) = match counts {
            Ok(counts) => (counts.unwrap_or_default(), None),
            Err(error) => (monitor::Counts::default(), Some(error.to_string())),
        };
        let table = self.table();
        MonitorStatus {
            required: inner.is_required,
            loaded: inner.monitor.is_some(),
            trouble: inner.trouble.clone().or_else(|| inner.reading.trouble()).or(uncounted),
            host: self.tells_executions(false),
            events: counts.events,
            lost: counts.lost,
            missed: counts.missed,
            processes: table.len(),
            evicted: table.evicted(),
        }
    }
}
