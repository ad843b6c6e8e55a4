//! All that goes out: alerts and other events, on their way from the kernel to any number of readers.
//!
//! ```text
//! ring of alerts ────────┐                  ┌─ names: containers and rules, from the state directory
//! ring of processes ─────┼─ pump (1 thread) ┼─ table: who was who, for alerts that say who
//!                        ┘                  └─> fanouts: alerts, logs
//! ```

mod pump;
mod ring;
mod teller;
#[cfg(test)]
mod tests;
mod watched;

use portcullis_ebpf::Kernel;
use portcullis_enforcer::{Monitor, StateDir};

pub(crate) use self::watched::Watched;

use self::pump::Pump;
use self::ring::{Reading, Source};
use self::teller::Teller;
use crate::Error;
use crate::alerts::fanout::Fanout;
use crate::alerts::{Alert, Names};
use crate::kubearmor::Host;
use crate::logs::Log;

/// The events of this host, for any number of readers. By default they come from nowhere.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub(crate) alerts: Fanout<Alert>,
    pub(crate) logs: Fanout<Log>,
    pub(crate) watched: Watched,
    reading: Reading,
}

impl Telemetry {
    /// From the kernel's rings, named by the records of a state directory of this host. While another process reads a ring, or
    /// nothing is loaded, it is tried again. Loads the monitor of processes, if it is wanted; without it alerts say less.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn from_kernel(state: StateDir, host: Host, monitor: Monitor) -> Result<Telemetry, Error> {
        let telemetry = Telemetry { watched: Watched::load(monitor), ..Telemetry::default() };
        let Telemetry { alerts, logs, watched, reading } = telemetry.clone();
        let of_processes = watched.is_loaded().then(|| {
            let watched = watched.clone();
            Source::new("events of processes", watched.reading(), move || watched.events())
        });
        let of_alerts = Source::new("alerts", reading, || Kernel::open()?.events());
        let pump = Pump::new(of_alerts, of_processes, Teller::new(Names::new(state, host), watched, alerts, logs));
        let failed = |source| Error::Thread { name: "telemetry", source };
        std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || pump.run()).map_err(failed)?;
        Ok(telemetry)
    }

    /// Why no alerts are read now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.reading.trouble()
    }

    /// Lets the kernel tell only what is told without an agent, which are alerts.
    pub fn rest(&self) {
        self.watched.rest();
    }
}
