//! The monitor of processes as the agent has it: loaded or not and why, and the table that its events fill.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_ebpf::monitor::abi::WINDOW_NS;
use portcullis_ebpf::monitor::{AccessEvents, Classes, Monitor, ProcessEvents, Repeat, Visibility, Watch};
use portcullis_ebpf::{Error, monitor};
use portcullis_enforcer::MonitorEnabled;
use rustix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};

use super::ring::Reading;
use crate::control::{AccessesStatus, MonitorStatus};
use crate::processes::{Processes, seed};

/// The classes of accesses.
const ACCESSES: [Classes; 3] = [Classes::FILE, Classes::NETWORK, Classes::CAPABILITY];
/// For how long an access that was told is only counted when it is repeated.
const WINDOW: Duration = Duration::from_nanos(WINDOW_NS as u64);

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
    /// Why accesses are not told, though processes are and both are wanted.
    accesses_trouble: Option<String>,
    table: Mutex<Processes>,
    /// Events that were not told, as it was counted when it was last looked who lives.
    untold: AtomicU64,
    reading: Reading,
    reading_accesses: Reading,
}

impl Watched {
    /// Puts the monitor in force as the configuration says. That it can't be is told, and stops nobody.
    pub(crate) fn load(config: portcullis_enforcer::Monitor) -> Watched {
        let is_required = config.enabled == MonitorEnabled::Yes;
        let tells = config.visibility;
        let (loaded, accesses_trouble) = match config.enabled {
            MonitorEnabled::Auto | MonitorEnabled::Yes => load(tells),
            // What another configuration has left in force would go on for nobody.
            MonitorEnabled::No => (Monitor::unload().map(|()| None), None),
        };
        let (monitor, trouble) = match loaded {
            Ok(monitor) => (monitor, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let said = match (&trouble, &accesses_trouble) {
            (Some(trouble), _) => {
                Some(("the monitor is not as configured, so that alerts do not say what their processes run", trouble))
            }
            (None, Some(trouble)) => {
                Some(("accesses are not told, though monitor.visibility or monitor.hostVisibility says so", trouble))
            }
            (None, None) => None,
        };
        match said {
            Some((what, trouble)) if is_required => error!("{what}: {trouble}"),
            Some((what, trouble)) => info!("{what}: {trouble}"),
            None => {}
        }
        Watched(Arc::new(Inner { is_required, tells, monitor, trouble, accesses_trouble, ..Inner::default() }))
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

    /// Whether accesses of somebody are to be told, and can be.
    pub(super) fn tells_accesses(&self) -> bool {
        self.is_loaded() && self.0.accesses_trouble.is_none() && wants_accesses(self.0.tells)
    }

    pub(super) fn reading(&self) -> Reading {
        self.0.reading.clone()
    }

    pub(super) fn reading_accesses(&self) -> Reading {
        self.0.reading_accesses.clone()
    }

    fn monitor(&self) -> Result<&Monitor, Error> {
        self.0.monitor.as_ref().ok_or(Error::MonitorNotLoaded)
    }

    /// Begins to have all processes told: the table is about the host's, too, which are the parents of containers'.
    pub(super) fn events(&self) -> Result<ProcessEvents, Error> {
        let events = self.monitor()?.process_events()?;
        self.ask()?;
        Ok(events)
    }

    /// Begins to have the accesses told that the configuration wants.
    pub(super) fn access_events(&self) -> Result<AccessEvents, Error> {
        let monitor = self.monitor()?;
        let events = monitor.access_events()?;
        monitor.set_window(WINDOW)?;
        self.ask()?;
        Ok(events)
    }

    /// What was counted of accesses that were not told again.
    pub(super) fn take_repeats(&self) -> Result<Vec<Repeat>, Error> {
        self.monitor()?.take_repeats()
    }

    /// Asks the kernel for all that somebody wants. Accesses are asked for even while the other ring is not opened: they wait there.
    fn ask(&self) -> Result<(), Error> {
        let Visibility { host, containers } = if self.tells_accesses() { self.0.tells } else { Visibility::default() };
        let visibility = Visibility { host: host | Classes::PROCESS, containers: containers | Classes::PROCESS };
        self.monitor()?.set_visibility(visibility)
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

    /// How it is, and how accesses are as far as the kernel knows.
    pub(crate) fn status(&self) -> (MonitorStatus, AccessesStatus) {
        let inner = &*self.0;
        let counts = inner.monitor.as_ref().map(Monitor::counts).transpose();
        let (counts, uncounted) = match counts {
            Ok(counts) => (counts.unwrap_or_default(), None),
            Err(error) => (monitor::Counts::default(), Some(error.to_string())),
        };
        let table = self.table();
        let accesses = AccessesStatus {
            wanted: inner.monitor.is_some() && wants_accesses(inner.tells),
            trouble: inner.accesses_trouble.clone().or_else(|| inner.reading_accesses.trouble()),
            raised: counts.accesses,
            lost: counts.accesses_lost,
            aggregated: counts.accesses_aggregated,
            ..AccessesStatus::default()
        };
        let monitor = MonitorStatus {
            required: inner.is_required,
            loaded: inner.monitor.is_some(),
            trouble: inner.trouble.clone().or_else(|| inner.reading.trouble()).or(uncounted),
            host: self.tells_executions(false),
            events: counts.events,
            lost: counts.lost,
            missed: counts.missed,
            processes: table.len(),
            evicted: table.evicted(),
        };
        (monitor, accesses)
    }
}

fn wants_accesses(tells: Visibility) -> bool {
    ACCESSES.into_iter().any(|class| tells.host.contain(class) || tells.containers.contain(class))
}

/// Loads what is needed to tell so much; where a kernel does not take the programs of accesses, those of processes, and why.
fn load(tells: Visibility) -> (Result<Option<Monitor>, Error>, Option<String>) {
    if !wants_accesses(tells) {
        return (Monitor::load(Watch::Processes).map(Some), None);
    }
    match Monitor::load(Watch::Accesses) {
        Ok(monitor) => {
            monitor.notes().iter().for_each(|note| info!("{note}"));
            (Ok(Some(monitor)), None)
        }
        Err(error) => (Monitor::load(Watch::Processes).map(Some), Some(error.to_string())),
    }
}
