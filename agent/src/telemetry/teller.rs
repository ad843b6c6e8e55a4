//! What events become for their readers: named, and explained by the table of processes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use portcullis_ebpf::Event;
use portcullis_ebpf::monitor::ProcessEvent;
use portcullis_ebpf::monitor::abi::{EXEC, NO_SLOT};
use tracing::warn;

use super::watched::Watched;
use crate::alerts::clock::Clock;
use crate::alerts::fanout::Fanout;
use crate::alerts::{Alert, Names};
use crate::logs::{Log, is_contained};
use crate::processes::Key;

/// How long the first alerts wait for who was there before. Reading `/proc` takes about 0.1 ms for each process.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How soon it is looked again after events were not told.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How soon it is asked again whether some were not, by events that tell no loss themselves.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Turns events into what readers get.
pub(super) struct Teller {
    names: Names,
    watched: Watched,
    alerts: Fanout<Alert>,
    logs: Fanout<Log>,
    clock: Clock,
    looked: Option<Instant>,
    asked: Instant,
}

impl Teller {
    pub(super) fn new(names: Names, watched: Watched, alerts: Fanout<Alert>, logs: Fanout<Log>) -> Teller {
        Teller { names, watched, alerts, logs, clock: Clock::now(), looked: None, asked: Instant::now() }
    }

    pub(super) fn compare_clocks(&mut self) {
        self.clock = Clock::now();
    }

    /// Passes an alert on, with what is known of its process.
    pub(super) fn alert(&mut self, event: &Event) {
        let process = self.watched.table().facts_of(event);
        match self.names.alert(event, self.clock.at(event.header.time_ns), process) {
            Ok(alert) => self.alerts.publish(alert),
            Err(error) => warn!("an alert cannot be named: {error}"),
        }
    }

    /// Notes what a process did, and passes on what is worth it.
    pub(super) fn process(&mut self, event: &ProcessEvent) {
        let header = &event.header;
        self.watched.table().apply(event);
        if self.looked.is_some_and(|looked| looked.elapsed() >= LOOK_AGAIN) && (event.lost_before > 0 || self.is_behind()) {
            self.look();
        }
        if header.kind == EXEC && self.watched.tells_executions(is_contained(header)) {
            self.executed(event);
        }
    }

    fn is_behind(&mut self) -> bool {
        if self.asked.elapsed() < ASK_AGAIN {
            return false;
        }
        self.asked = Instant::now();
        self.watched.is_behind()
    }

    fn executed(&mut self, event: &ProcessEvent) {
        let header = &event.header;
        let container = if header.slot == NO_SLOT { Ok(None) } else { self.names.container(header.slot, header.epoch) };
        let container = container.unwrap_or_else(|error| {
            warn!("the container of a process cannot be named: {error}");
            None
        });
        let facts = {
            let table = self.watched.table();
            let key = Key { tgid: header.tgid, started_ns: header.started_ns };
            table.by_key(key, header.time_ns).map(|view| table.facts(view, header.time_ns)).unwrap_or_default()
        };
        let time = self.clock.at(header.time_ns);
        self.logs.publish(Log::executed(event, time, container, facts, self.names.host()));
    }

    /// Looks who is there, and waits for that, but not for long.
    pub(super) fn look_around(&mut self) {
        match self.look().recv_timeout(LOOK_PATIENCE) {
            // The thread has ended, and with it the other end.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => warn!("alerts are told while it is still being read who runs here"),
        }
    }

    fn look(&mut self) -> Receiver<()> {
        self.looked = Some(Instant::now());
        let (done, ended) = channel();
        let watched = self.watched.clone();
        let work = move || {
            watched.look_around();
            drop(done);
        };
        if let Err(error) = std::thread::Builder::new().name("processes".to_owned()).spawn(work) {
            warn!("alerts lack who ran here before: the thread that looks cannot be started: {error}");
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use portcullis_enforcer::StateDir;

    use super::*;
    use crate::fake;
    use crate::kubearmor::Host;

    /// How long a thread may take to read `/proc`.
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn after_a_loss_it_is_looked_again_who_lives() {
        let state = tempfile::tempdir().unwrap();
        let names = Names::new(StateDir::at(state.path()), Host::default());
        let watched = Watched::default();
        let mut teller = Teller::new(names, watched.clone(), Fanout::default(), Fanout::default());
        let own = std::process::id();
        let is_known = || watched.table().get(own, u64::MAX).is_some();
        let mut event = fake::exec();
        event.lost_before = 1;
        teller.looked = Some(Instant::now());
        teller.process(&event);
        teller.looked = Instant::now().checked_sub(LOOK_AGAIN);
        event.lost_before = 0;
        teller.process(&event);
        assert!(!is_known(), "not so soon again, and not without a loss");
        event.lost_before = 1;
        teller.process(&event);
        let since = Instant::now();
        while !is_known() {
            assert!(since.elapsed() < SOON, "nobody looked");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
