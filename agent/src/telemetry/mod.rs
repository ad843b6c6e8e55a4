//! All that goes out: alerts and other events, on their way from the kernel to any number of readers.
//!
//! ```text
//! ring of alerts ────────┐                  ┌─ names: containers and rules, from the state directory
//! ring of processes ─────┼─ pump (1 thread) ┼─ table: who was who, for alerts that say who
//! ring of accesses ──────┤                  └─> fanouts: alerts, logs, accesses
//! counts of repeats ─────┘
//! ```

mod pump;
mod repeats;
mod ring;
mod tally;
mod teller;
#[cfg(test)]
mod tests;
mod watched;

use std::sync::Arc;

use portcullis_ebpf::monitor::{AccessEvent, ProcessEvent};
use portcullis_ebpf::{Event, Kernel};
use portcullis_enforcer::{Monitor, StateDir};
use portcullis_policy::Backend;

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
    pub(crate) tally: Tally,
    pub(crate) watched: Watched,
    reading: Reading,
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
        let telemetry = Telemetry { watched: Watched::load(monitor), ..Telemetry::default() };
        let Telemetry { watched, reading, .. } = telemetry.clone();
        let of_processes = watched.is_loaded().then(|| {
            let watched = watched.clone();
            Source::new("events of processes", watched.reading(), move || Ok(watched.events()?))
        });
        let of_accesses = watched.tells_accesses().then(|| {
            let watched = watched.clone();
            Source::new("accesses", watched.reading_accesses(), move || Ok(watched.access_events()?))
        });
        let teller = Teller::new(Names::new(state.clone(), host), &telemetry, Arc::new(move || watched.take_repeats()));
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

    /// Why no alerts are read now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.reading.trouble()
    }

    /// How the monitor is, and how accesses are.
    pub(crate) fn watched_status(&self) -> (MonitorStatus, AccessesStatus) {
        let (monitor, accesses) = self.watched.status();
        let ([file, network, capability], counters) = (self.tally.counts(), self.accesses.counters());
        let Counters { readers, waiting, lost: unread, .. } = counters;
        (monitor, AccessesStatus { file, network, capability, readers, waiting, unread, ..accesses })
    }

    /// Lets the kernel tell only what is told without an agent, which are alerts.
    pub fn rest(&self) {
        self.watched.rest();
    }
}
