//! Where the agent puts events by itself, as the section `sinks` of the configuration says.
//!
//! A sink is one more reader of the fanouts ([`crate::alerts::fanout`]): it has queues of its own, and one that is slow, full or
//! unreachable costs nobody else anything. While it cannot write, what it has got waits, and its queues lose their oldest. What it
//! missed is counted in the agent's status and told where it writes.

mod file;
#[cfg_attr(not(feature = "otlp"), path = "no_otlp.rs")]
mod otlp;
mod rotated;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_enforcer::{SinkEvents, Sinks};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::Error;
use crate::control::{EventClass, SinkStatus};
use crate::kubearmor::Host;
use crate::telemetry::Telemetry;

/// Starts all sinks; they end when `stopped` says so.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn start(
    sinks: &Sinks,
    host: &Host,
    telemetry: &Telemetry,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<Vec<Account>, Error> {
    let mut accounts = Vec::new();
    if let Some(config) = &sinks.file {
        let account = Account::new("file", config.path.display().to_string());
        file::start(config, telemetry, account.clone(), stopped, tasks)?;
        accounts.push(account);
    }
    if let Some(config) = &sinks.otlp {
        let account = Account::new("otlp", config.endpoint.clone());
        otlp::start(config, host, telemetry, &account, stopped.clone(), tasks);
        accounts.push(account);
    }
    Ok(accounts)
}

/// Waits for the agent to stop.
async fn stops(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

fn class(what: SinkEvents) -> EventClass {
    match what {
        SinkEvents::Alerts => EventClass::Alert,
        SinkEvents::Logs => EventClass::Logs,
        SinkEvents::All => EventClass::All,
    }
}

/// How a sink is.
#[derive(Debug, Clone)]
pub(crate) struct Account(Arc<Mutex<SinkStatus>>);

impl Account {
    fn new(sink: &str, to: String) -> Account {
        Account(Arc::new(Mutex::new(SinkStatus { sink: sink.to_owned(), to, ..SinkStatus::default() })))
    }

    pub(crate) fn status(&self) -> SinkStatus {
        self.lock().clone()
    }

    /// So many events were written.
    fn wrote(&self, events: u64) {
        let mut status = self.lock();
        status.written += events;
        if status.trouble.take().is_some() {
            info!("the sink `{}` writes to {} again", status.sink, status.to);
        }
    }

    /// So many events are missing there.
    fn lost(&self, events: u64) {
        self.lock().lost += events;
    }

    /// The agent stops, and so many events that came before are not there.
    fn ends_without(&self, events: u64) {
        self.lost(events);
        if events > 0 {
            let status = self.lock();
            warn!("the sink `{}` ends without {events} events: {} could not be written to in time", status.sink, status.to);
        }
    }

    /// It cannot write now.
    fn fails(&self, trouble: String) {
        let mut status = self.lock();
        if status.trouble.as_ref() != Some(&trouble) {
            warn!("the sink `{}` cannot write to {}: {trouble}", status.sink, status.to);
        }
        status.trouble = Some(trouble);
    }

    fn lock(&self) -> MutexGuard<'_, SinkStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
