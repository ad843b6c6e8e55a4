//! From the kernel's ring to the readers: the one thread that waits for alerts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_ebpf::{Events, Kernel, abi};
use tracing::{info, warn};

use super::clock::Clock;
use super::fanout::Fanout;
use super::{Alert, Names};
use crate::Error;

/// How long one wait for the ring lasts; then the clocks are compared anew.
const TICK: Duration = Duration::from_secs(600);
/// How soon the ring is tried again when another process reads it, or nothing is loaded.
const RETRY: Duration = Duration::from_secs(10);

/// Why alerts are not read now; nothing when they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading(Arc<Mutex<Option<String>>>);

impl Reading {
    /// The reason, as a sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, trouble: Option<String>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != trouble {
            match &trouble {
                Some(trouble) => warn!("alerts are not read: {trouble}"),
                None => info!("alerts are read"),
            }
            *now = trouble;
        }
    }
}

/// Starts the thread. It ends with the process.
pub(super) fn start(mut names: Names, fanout: Fanout<Alert>, told: Reading) -> Result<(), Error> {
    let work = move || {
        loop {
            let opened = Kernel::open().and_then(|kernel| kernel.events());
            let ended = opened.and_then(|mut events| {
                told.is(None);
                read(&mut events, &mut names, &fanout)
            });
            if let Err(error) = ended {
                told.is(Some(error.to_string()));
            }
            std::thread::sleep(RETRY);
        }
    };
    let failed = |source| Error::Thread { name: "alerts", source };
    std::thread::Builder::new().name("alerts".to_owned()).spawn(work).map(drop).map_err(failed)
}

/// Reads for as long as that is possible.
fn read(events: &mut Events, names: &mut Names, fanout: &Fanout<Alert>) -> Result<(), portcullis_ebpf::Error> {
    let mut clock = Clock::now();
    let mut malformed = 0;
    loop {
        let Some(event) = events.next(TICK)? else {
            clock = Clock::now();
            continue;
        };
        if events.malformed() != malformed {
            malformed = events.malformed();
            warn!("{malformed} events could not be understood; the programs and this binary differ: restart the agent");
        }
        if event.header.kind != abi::EVENT_ALERT {
            continue;
        }
        match names.alert(&event, clock.at(event.header.time_ns), None) {
            Ok(alert) => fanout.publish(alert),
            Err(error) => warn!("an alert cannot be named: {error}"),
        }
    }
}
