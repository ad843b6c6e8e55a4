//! What events become for their readers: named, and explained by the table of processes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use portcullis_ebpf::Event;
use portcullis_ebpf::monitor::abi::{self, EXEC, NO_SLOT};
use portcullis_ebpf::monitor::{AccessEvent, Classes, ProcessEvent, Repeat};
use tracing::warn;

use super::Telemetry;
use super::complete::Complete;
use super::repeats::{Repeats, Take};
use super::tally::Tally;
use super::watched::Watched;
use crate::alerts::clock::Clock;
use crate::alerts::fanout::Fanout;
use crate::alerts::line::operation;
use crate::alerts::{Alert, Names};
use crate::logs::{Log, Named, is_contained};
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
    accesses: Fanout<Log>,
    complete: Complete,
    tally: Tally,
    repeats: Repeats,
    clock: Clock,
    /// The boot clock as it was when it was last looked at.
    now_ns: u64,
    looked: Option<Instant>,
    asked: Instant,
}

impl Teller {
    /// For the readers of `telemetry`. Counts of repeats are what `take` takes.
    pub(super) fn new(names: Names, telemetry: &Telemetry, take: Take) -> Teller {
        let Telemetry { alerts, logs, accesses, complete, tally, watched, .. } = telemetry.clone();
        let (repeats, clock) = (Repeats::new(take), Clock::now());
        let (now_ns, asked) = (portcullis_ebpf::boottime_ns(), Instant::now());
        Teller { names, watched, alerts, logs, accesses, complete, tally, repeats, clock, now_ns, looked: None, asked }
    }

    /// Wakes the readers of what was passed on. They take it together, and so they write it. All that was raised until
    /// `complete_ns` has been passed on. Where something younger has, readers may hold it, and are woken once more the next time.
    pub(super) fn wake_readers(&self, complete_ns: u64, is_some_held: bool) {
        self.complete.reach(complete_ns);
        self.alerts.wake();
        self.logs.wake_again(is_some_held);
        self.accesses.wake_again(is_some_held);
    }

    /// Looks at the clock: what is told next is told now.
    pub(super) fn look_at_clock(&mut self) {
        self.now_ns = portcullis_ebpf::boottime_ns();
    }

    pub(super) fn compare_clocks(&mut self) {
        self.clock = Clock::now();
    }

    /// Passes an alert on, with what is known of its process.
    pub(super) fn alert(&mut self, event: Event) {
        let process = self.watched.table().facts_of(&event);
        let moment = self.clock.moment(event.header.time_ns, self.now_ns);
        match self.names.alert(event, moment, process) {
            Ok(alert) => self.alerts.queue(alert),
            Err(error) => warn!("an alert cannot be named: {error}"),
        }
    }

    /// Notes what a process did, and passes on what is worth it.
    pub(super) fn process(&mut self, event: ProcessEvent, now: Instant) {
        let (header, lost_before) = (event.header, event.lost_before);
        self.watched.table().apply(event);
        let is_due = self.looked.is_some_and(|looked| now.saturating_duration_since(looked) >= LOOK_AGAIN);
        if is_due && (lost_before > 0 || self.is_behind(now)) {
            self.look();
        }
        let is_contained = is_contained(header.slot, header.pid_ns);
        // What is told of a container, its name says.
        if header.kind == EXEC && (is_contained || self.watched.tells(Classes::PROCESS, false, None)) {
            let key = Key { tgid: header.tgid, started_ns: header.started_ns };
            let named = self.named((header.slot, header.epoch), (header.cgroup, header.pid_ns), key, header.time_ns);
            if self.watched.tells(Classes::PROCESS, is_contained, named.own_visibility()) {
                self.logs.queue(Log::executed(&header, lost_before, named));
            }
        }
    }

    /// Whether a container that has a visibility of its own wants this told. Of the others the kernel tells what is wanted.
    fn wants(&self, op: u32, named: &Named) -> bool {
        let class = match operation(op, 0).1 {
            "network" => Classes::NETWORK,
            "capability" => Classes::CAPABILITY,
            _ => Classes::FILE,
        };
        named.own_visibility().is_none_or(|own| own.contain(class))
    }

    fn is_behind(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.asked) < ASK_AGAIN {
            return false;
        }
        self.asked = now;
        self.watched.is_behind()
    }

    /// Passes an access on.
    pub(super) fn access(&mut self, event: AccessEvent, now: Instant) {
        let event = Arc::new(event);
        let header = &event.header;
        let key = Key { tgid: header.tgid, started_ns: header.started_ns };
        let named = self.named((header.slot, header.epoch), (header.cgroup, header.pid_ns), key, header.time_ns);
        if !self.wants(header.op, &named) {
            return self.tally.withhold();
        }
        let log = Log::accessed(Arc::clone(&event), named);
        self.tally.count(&log);
        self.repeats.note(event, now);
        self.accesses.queue(log);
    }

    /// The ring of accesses is read from now on.
    pub(super) fn begin_accesses(&mut self, now: Instant) {
        self.repeats.begin(now);
    }

    /// Has the kernel's counts looked at, if that is due.
    pub(super) fn look_for_repeats(&mut self, now: Instant) {
        self.repeats.look_in_time(now);
    }

    /// How long there is nothing to do but wait for events.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.repeats.rest(now)
    }

    /// Passes on how often an access was repeated, if there is one that was. It is told with the time of the access: the repeats came
    /// within a window of that.
    pub(super) fn repeat(&mut self) -> bool {
        let Some((repeat, event)) = self.repeats.next() else { return false };
        let mut event = event.map_or_else(|| self.forgotten(&repeat), Arc::unwrap_or_clone);
        (event.header.repeats, event.lost_before) = (repeat.repeats, 0);
        let header = &event.header;
        let key = Key { tgid: header.tgid, started_ns: header.started_ns };
        let named = self.named((header.slot, header.epoch), (header.cgroup, header.pid_ns), key, header.time_ns);
        if self.wants(header.op, &named) {
            self.accesses.queue(Log::repeated(Arc::new(event), named));
        }
        true
    }

    /// What the kernel's count and the table of processes say of an access that is no longer known: all but its texts.
    fn forgotten(&self, repeat: &Repeat) -> AccessEvent {
        let what = &repeat.what;
        let mut header = abi::Access {
            op: what.op.into(),
            cpu: repeat.told.0,
            seq: repeat.told.1,
            time_ns: repeat.told_ns,
            started_ns: what.started_ns,
            slot: NO_SLOT,
            tgid: what.tgid,
            tid: what.tgid,
            result: what.result.into(),
            arg: what.arg,
            ..abi::Access::default()
        };
        let table = self.watched.table();
        let key = Key { tgid: what.tgid, started_ns: what.started_ns };
        if let Some(process) = table.by_key(key, repeat.told_ns).map(|view| view.process) {
            (header.cgroup, header.uid, header.pid_ns, header.mnt_ns) =
                (process.cgroup, process.uid, process.pid_ns, process.mnt_ns);
            if let Some(container) = process.container {
                (header.slot, header.epoch) = (container.slot, container.epoch);
            }
        }
        AccessEvent { header, path: Vec::new(), second: Vec::new(), address: Vec::new(), lost_before: 0 }
    }

    /// Who a process is, and whose, at a time.
    fn named(&mut self, (slot, epoch): (u32, u32), (cgroup, pid_ns): (u64, u32), key: Key, time_ns: u64) -> Named {
        let container = if slot != NO_SLOT {
            self.names.container(slot, epoch)
        } else if is_contained(slot, pid_ns) {
            let watched = &self.watched;
            self.names.resident(cgroup, || watched.table().line(key, time_ns))
        } else {
            Ok(None)
        };
        let container = container.unwrap_or_else(|error| {
            warn!("the container of a process cannot be named: {error}");
            None
        });
        let process = {
            let table = self.watched.table();
            table.by_key(key, time_ns).map(|view| table.facts(view, time_ns))
        };
        Named { moment: self.clock.moment(time_ns, self.now_ns), container, process, host: self.names.host() }
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
        let telemetry = Telemetry { watched: watched.clone(), ..Telemetry::default() };
        let mut teller = Teller::new(names, &telemetry, Arc::new(|| Ok(Vec::new())));
        let own = std::process::id();
        let is_known = || watched.table().get(own, u64::MAX).is_some();
        let mut event = fake::exec();
        event.lost_before = 1;
        teller.looked = Some(Instant::now());
        teller.process(event.clone(), Instant::now());
        teller.looked = Instant::now().checked_sub(LOOK_AGAIN);
        event.lost_before = 0;
        teller.process(event.clone(), Instant::now());
        assert!(!is_known(), "not so soon again, and not without a loss");
        event.lost_before = 1;
        teller.process(event.clone(), Instant::now());
        let since = Instant::now();
        while !is_known() {
            assert!(since.elapsed() < SOON, "nobody looked");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
