//! The monitor of processes as the agent has it: loaded or not and why, and the table that its events fill.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use portcullis_ebpf::monitor::abi::WINDOW_NS;
use portcullis_ebpf::monitor::{AccessEvents, Classes, Monitor, ProcessEvents, Repeat, Visibility, Watch};
use portcullis_ebpf::{Error, monitor};
use portcullis_enforcer::{Known, MonitorEnabled};
use portcullis_policy::ContainerFacts;
use rustix::event::{EventfdFlags, eventfd};
use tracing::{error, info, warn};

use super::own::Own;
use super::ring::{Awaited, Reading};
use crate::control::{AccessesStatus, MonitorStatus, VisibilityStatus};
use crate::processes::{Processes, seed};

/// The classes of accesses.
pub(super) const ACCESSES: [Classes; 3] = [Classes::FILE, Classes::NETWORK, Classes::CAPABILITY];
/// For how long an access that was told is only counted when it is repeated.
const WINDOW: Duration = Duration::from_nanos(WINDOW_NS as u64);

/// The monitor. By default there is none.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Inner>);

#[derive(Default)]
struct Inner {
    config: Arc<portcullis_enforcer::Monitor>,
    monitor: Option<Monitor>,
    /// Why there is none, though it is wanted.
    trouble: Option<String>,
    accesses: Mutex<Accesses>,
    /// Can be read once the programs of accesses are there.
    accesses_signal: OnceLock<Arc<OwnedFd>>,
    own: Mutex<Own>,
    table: Mutex<Processes>,
    /// Events that were not told, as it was counted when it was last looked who lives.
    untold: AtomicU64,
    reading: Reading,
    reading_accesses: Reading,
}

/// The programs that tell of accesses. They are loaded when somebody asks for the first time, and stay as long as the agent.
#[derive(Debug, Clone, Default)]
enum Accesses {
    /// Nobody has asked for them.
    #[default]
    Unasked,
    /// They are being loaded.
    Loading,
    /// They are there.
    Loaded,
    /// The kernel does not take them.
    Refused(String),
}

impl Accesses {
    /// Why they are not told, though somebody asks for them.
    fn trouble(&self) -> Option<&String> {
        match self {
            Accesses::Refused(trouble) => Some(trouble),
            Accesses::Unasked | Accesses::Loading | Accesses::Loaded => None,
        }
    }
}

impl Watched {
    /// Puts the monitor in force as the configuration and those who run ask for it. That it can't be is told, and stops nobody.
    pub(crate) fn load(config: portcullis_enforcer::Monitor, running: &[Known]) -> Watched {
        let is_required = config.enabled == MonitorEnabled::Yes;
        let asks = |known: &Known| ACCESSES.into_iter().any(|class| config.of(&known.facts).classes.contain(class));
        let wants_accesses = wants_accesses(config.visibility) || running.iter().any(asks);
        let (loaded, accesses) = match config.enabled {
            MonitorEnabled::Auto | MonitorEnabled::Yes => load(wants_accesses),
            // What another configuration has left in force would go on for nobody.
            MonitorEnabled::No => (Monitor::unload().map(|()| None), Accesses::Unasked),
        };
        let (monitor, trouble) = match loaded {
            Ok(monitor) => (monitor, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let said = match (&trouble, accesses.trouble()) {
            (Some(trouble), _) => {
                Some(("the monitor is not as configured, so that alerts do not say what their processes run", trouble))
            }
            (None, Some(trouble)) => {
                Some(("accesses are not told, though the configuration or a container asks for them", trouble))
            }
            (None, None) => None,
        };
        match said {
            Some((what, trouble)) if is_required => error!("{what}: {trouble}"),
            Some((what, trouble)) => info!("{what}: {trouble}"),
            None => {}
        }
        let accesses = Mutex::new(accesses);
        Watched(Arc::new(Inner { config: Arc::new(config), monitor, trouble, accesses, ..Inner::default() }))
    }

    /// One without a monitor.
    pub(super) fn telling(visibility: Visibility) -> Watched {
        let config = portcullis_enforcer::Monitor { visibility, ..portcullis_enforcer::Monitor::default() };
        Watched(Arc::new(Inner { config: Arc::new(config), ..Inner::default() }))
    }

    /// The table, for a moment: the thread that reads the kernel's rings waits for it.
    pub(crate) fn table(&self) -> MutexGuard<'_, Processes> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the configuration says.
    pub(crate) fn config(&self) -> &Arc<portcullis_enforcer::Monitor> {
        &self.0.config
    }

    /// The visibilities that containers have of their own.
    pub(super) fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel's part, if there is one.
    pub(super) fn kernel(&self) -> Option<&Monitor> {
        self.0.monitor.as_ref()
    }

    /// Whether readers are told this of a process: of the host, or of a container, which may have said so itself.
    pub(super) fn tells(&self, class: Classes, is_contained: bool, own: Option<Classes>) -> bool {
        let Visibility { host, containers } = self.0.config.visibility;
        if is_contained { own.unwrap_or(containers) } else { host }.contain(class)
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.0.monitor.is_some()
    }

    fn accesses(&self) -> MutexGuard<'_, Accesses> {
        self.0.accesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the ring of accesses waits for.
    pub(super) fn awaited_accesses(&self) -> Result<Awaited, crate::Error> {
        let failed = |errno: rustix::io::Errno| crate::Error::Thread { name: "telemetry", source: errno.into() };
        let signal = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?);
        let signal = Arc::clone(self.0.accesses_signal.get_or_init(|| signal));
        let watched = self.clone();
        Ok(Awaited { signal, is_there: Box::new(move || matches!(*watched.accesses(), Accesses::Loaded)) })
    }

    /// Loads the programs of accesses, if nobody has asked for them before. Those of processes go on, and so do all numbers.
    pub(super) fn want_accesses(&self) {
        {
            let mut accesses = self.accesses();
            if !self.is_loaded() || !matches!(*accesses, Accesses::Unasked) {
                return;
            }
            // Not locked while it is done: who reads the rings looks at it.
            *accesses = Accesses::Loading;
        }
        let loaded = match Monitor::load(Watch::Accesses) {
            Ok(monitor) => {
                monitor.notes().iter().for_each(|note| info!("{note}"));
                info!("accesses are told from now on, as a container asks for them");
                Accesses::Loaded
            }
            Err(error) => {
                warn!("accesses are not told, though a container asks for them: {error}");
                Accesses::Refused(error.to_string())
            }
        };
        let signal = self.0.accesses_signal.get().filter(|_| matches!(loaded, Accesses::Loaded));
        *self.accesses() = loaded;
        if let Some(signal) = signal
            && let Err(error) = rustix::io::write(signal, &1u64.to_ne_bytes())
        {
            warn!("accesses are read when something else happens: {error}");
        }
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

    /// Begins to have the accesses told that somebody wants.
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

    /// Asks the kernel for all that the configuration wants. Accesses are asked for even while the other ring is not opened: they wait
    /// there.
    fn ask(&self) -> Result<(), Error> {
        let is_told = matches!(*self.accesses(), Accesses::Loaded);
        let Visibility { host, containers } = if is_told { self.0.config.visibility } else { Visibility::default() };
        let visibility = Visibility { host: host | Classes::PROCESS, containers: containers | Classes::PROCESS };
        self.monitor()?.set_visibility(visibility)
    }

    /// Has nothing told any more: nobody is going to read it.
    pub(crate) fn rest(&self) {
        let rest = |monitor: &Monitor| self.own().rest(monitor).and(monitor.set_visibility(Visibility::default()));
        let resting = self.0.monitor.as_ref().map_or(Ok(()), rest);
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
        let now_ns = portcullis_ebpf::boottime_ns();
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
        let wanted = inner.monitor.is_some() && (wants_accesses(inner.config.visibility) || self.own().asks_for(&ACCESSES));
        let accesses_trouble = self.accesses().trouble().cloned().or_else(|| inner.reading_accesses.trouble());
        let table = self.table();
        let accesses = AccessesStatus {
            wanted,
            trouble: accesses_trouble.filter(|_| wanted),
            raised: counts.accesses,
            lost: counts.accesses_lost,
            aggregated: counts.accesses_aggregated,
            ..AccessesStatus::default()
        };
        let monitor = MonitorStatus {
            required: inner.config.enabled == MonitorEnabled::Yes,
            loaded: inner.monitor.is_some(),
            trouble: inner.trouble.clone().or_else(|| inner.reading.trouble()).or(uncounted),
            host: self.tells(Classes::PROCESS, false, None),
            events: counts.events,
            lost: counts.lost,
            missed: counts.missed,
            processes: table.len(),
            evicted: table.evicted(),
        };
        (monitor, accesses)
    }

    /// What is told of how many of so many containers.
    pub(crate) fn visibility_status(&self, known: usize) -> VisibilityStatus {
        self.own().status(known, self.0.config.visibility.containers)
    }

    /// What is told of a container.
    pub(crate) fn visible(&self, facts: &ContainerFacts) -> crate::control::Visibility {
        let visible = self.0.config.of(facts);
        let classes = portcullis_enforcer::words_of(visible.classes).into_iter().map(str::to_owned).collect();
        crate::control::Visibility { classes, by: visible.by, untold: visible.untold }
    }
}

fn wants_accesses(tells: Visibility) -> bool {
    ACCESSES.into_iter().any(|class| tells.host.contain(class) || tells.containers.contain(class))
}

/// Loads what is needed; where a kernel does not take the programs of accesses, those of processes, and why.
fn load(with_accesses: bool) -> (Result<Option<Monitor>, Error>, Accesses) {
    if !with_accesses {
        return (Monitor::load(Watch::Processes).map(Some), Accesses::Unasked);
    }
    match Monitor::load(Watch::Accesses) {
        Ok(monitor) => {
            monitor.notes().iter().for_each(|note| info!("{note}"));
            (Ok(Some(monitor)), Accesses::Loaded)
        }
        Err(error) => (Monitor::load(Watch::Processes).map(Some), Accesses::Refused(error.to_string())),
    }
}
