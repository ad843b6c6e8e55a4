//! All that goes out: alerts and other events, on their way from the kernel to any number of readers.
//!
//! ```text
//! ring of alerts ────────┐                  ┌─ names: containers and rules, from the state directory
//! ring of processes ─────┼─ pump (1 thread) ┼─ table: who was who, for alerts that say who
//! ring of accesses ──────┤                  └─> fanouts: alerts, logs, accesses; and until when they are complete
//! counts of repeats ─────┘
//! ```

mod complete;
mod own;
mod pump;
mod repeats;
mod ring;
mod tally;
mod teller;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use portcullis_ebpf::monitor::{AccessEvent, AccessEvents, Classes, ProcessEvent, ProcessEvents, Visibility};
use portcullis_ebpf::{Event, Events, Kernel};
use portcullis_enforcer::{Monitor, StateDir};
use portcullis_policy::Backend;
use tracing::warn;

pub(crate) use self::complete::Complete;
pub(crate) use self::tally::Tally;
pub(crate) use self::watched::Watched;

use self::pump::Pump;
use self::ring::{Reading, Ring, Source};
use self::teller::Teller;
use crate::Error;
use crate::alerts::fanout::{Counters, Fanout};
use crate::alerts::{Alert, Names};
use crate::audit::Denials;
use crate::control::{AccessesStatus, MonitorStatus};
use crate::kubearmor::Host;
use crate::logs::Log;

/// The events of this host, for any number of readers. By default they come from nowhere.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub(crate) alerts: Fanout<Alert>,
    /// What is executed.
    pub(crate) logs: Fanout<Log>,
    /// Files, sockets and capabilities: there are many more of them, which must not displace what is executed.
    pub(crate) accesses: Fanout<Log>,
    /// How far these three are.
    pub(crate) complete: Complete,
    pub(crate) tally: Tally,
    pub(crate) watched: Watched,
    reading: Reading,
    /// Who keeps the visibilities of containers; nobody where there is no monitor.
    keeper: Option<Sender<own::Changed>>,
}

fn run<A, P, X>(pump: Pump<A, P, X>) -> Result<(), Error>
where
    A: Ring<Event = Event> + Send + 'static,
    P: Ring<Event = ProcessEvent> + Send + 'static,
    X: Ring<Event = AccessEvent> + Send + 'static,
{
    let failed = |source| Error::Thread { name: "telemetry", source };
    std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || pump.run()).map(drop).map_err(failed)
}

impl Telemetry {
    /// From the kernel's rings, named by the records of a state directory of this host. While another process reads a ring, or
    /// nothing is loaded, it is tried again. Loads the monitor of processes, if it is wanted; without it alerts say less.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn from_kernel(state: StateDir, host: Host, monitor: Monitor, backend: Backend) -> Result<Telemetry, Error> {
        let running = state.all_known().unwrap_or_else(|error| {
            warn!("which containers ask for what is not known yet: {error}");
            Vec::new()
        });
        let mut telemetry = Telemetry { watched: Watched::load(monitor, &running), ..Telemetry::default() };
        if telemetry.watched.is_loaded() {
            // Before anything is read: those that run have what they ask for from the first event on.
            own::look(&telemetry.watched, &state, None);
            telemetry.keeper = Some(own::keep(telemetry.watched.clone(), state.clone())?);
        }
        let Telemetry { watched, reading, .. } = telemetry.clone();
        let of_processes = watched.is_loaded().then(|| {
            let watched = watched.clone();
            Source::new("events of processes", watched.reading(), move || Ok(watched.events()?))
        });
        let of_accesses = match watched.is_loaded() {
            true => {
                let (watched, awaited) = (watched.clone(), watched.awaited_accesses()?);
                let source = Source::new("accesses", watched.reading_accesses(), move || Ok(watched.access_events()?));
                Some(source.after(awaited))
            }
            false => None,
        };
        let names = Names::new(state.clone(), host).by(Arc::clone(watched.config())).under(backend);
        let teller = Teller::new(names, &telemetry, Arc::new(move || watched.take_repeats()));
        match backend {
            Backend::Bpf => {
                let of_alerts = Source::new("alerts", reading, || Ok(Kernel::open()?.events()?));
                run(Pump::new(of_alerts, of_processes, of_accesses, teller))?;
            }
            Backend::AppArmor => {
                let open = move || Ok(Denials::open(state.clone())?);
                run(Pump::new(Source::new("alerts", reading, open), of_processes, of_accesses, teller))?;
            }
        }
        Ok(telemetry)
    }

    /// From rings that somebody else fills, of a host whose processes and accesses are all to be told; there are no alerts. For who
    /// measures what an event costs where the kernel raises none.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn of_rings(state: StateDir, host: Host, processes: ProcessEvents, accesses: AccessEvents) -> Result<Telemetry, Error> {
        let all = Classes::PROCESS | Classes::FILE | Classes::NETWORK | Classes::CAPABILITY;
        let watched = Watched::telling(Visibility { host: all, containers: all });
        let telemetry = Telemetry { watched: watched.clone(), ..Telemetry::default() };
        let teller = Teller::new(Names::new(state, host), &telemetry, Arc::new(|| Ok(Vec::new())));
        let no_alerts = || -> Result<Events, ring::Trouble> { Err("nobody raises them".into()) };
        run(Pump::new(
            Source::new("alerts", telemetry.reading.clone(), no_alerts),
            Some(Source::opened("events of processes", watched.reading(), processes)),
            Some(Source::opened("accesses", watched.reading_accesses(), accesses)),
            teller,
        ))?;
        Ok(telemetry)
    }

    /// Why no alerts are read now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.reading.trouble()
    }

    /// How the monitor is, and how accesses are.
    pub(crate) fn watched_status(&self) -> (MonitorStatus, AccessesStatus) {
        let (monitor, accesses) = self.watched.status();
        let ([file, network, capability], counters) = (self.tally.counts(), self.accesses.counters());
        let withheld = self.tally.withheld();
        let Counters { readers, waiting, lost: unread, .. } = counters;
        (monitor, AccessesStatus { file, network, capability, readers, waiting, unread, withheld, ..accesses })
    }

    /// The records of these containers may have changed, or those of any: some may ask for another visibility.
    pub(crate) fn records_changed(&self, ids: Option<BTreeSet<String>>) {
        if let Some(keeper) = &self.keeper {
            // It ends with the process alone.
            drop(keeper.send(ids));
        }
    }

    /// Lets the kernel tell only what is told without an agent, which are alerts.
    pub fn rest(&self) {
        self.watched.rest();
    }
}
