//! From the kernel's rings to the readers: the one thread that waits for events.
//!
//! What an alert or an access says of its process comes from events of another ring, which may be read later than they happened. So
//! whatever is in that ring is read before either is named, within a limit.
//!
//! Alerts are taken from their ring sooner than they can be named, and containers take turns from there on: one that floods is behind
//! itself, and delays the others by no more than it takes to look through what it has put into the ring.

use std::time::{Duration, Instant};

use portcullis_ebpf::Event;
use portcullis_ebpf::monitor::{AccessEvent, ProcessEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::warn;

use super::ring::{Ring, Source};
use super::teller::Teller;
use crate::alerts::turns::{Owner, Turns};

/// How long one wait lasts at most.
const TICK: Duration = Duration::from_secs(600);
/// How soon the clocks are compared anew: whoever sets the wall clock finds it in what is told from then on.
const COMPARE: Duration = Duration::from_secs(1);
/// Most events of processes that are read before one alert. Each takes microseconds, and the ring holds about 10,000: what is left
/// behind, the next alerts make up for.
pub(super) const MAX_PER_ALERT: usize = 4096;
/// Most alerts that are taken before some are named. To take one is to copy it.
pub(super) const MAX_TAKEN: usize = 1024;
/// What alerts that are taken and not named may take in memory: more than the ring holds. What does not fit stays there.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Most alerts that are told in one turn, after its accesses: an alert of a container must not wait for 64 of these after each of another's.
const MAX_ALERTS: usize = 64;
/// Most accesses that are told in one turn, and most events between two looks at the clock: each takes some microseconds.
pub(super) const MAX_ACCESSES: usize = 64;
/// Most lines about repeats, likewise. They have a share of their own, which no flood of accesses takes from them.
const MAX_REPEATS: usize = 16;
/// How often so many are read at once when a ring was opened: more than it holds.
const BACKLOG: usize = 8;
/// How long a failed wait is followed by none.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread's work.
pub(super) struct Pump<A, P, X> {
    alerts: Source<A>,
    processes: Option<Source<P>>,
    accesses: Option<Source<X>>,
    teller: Teller,
    /// Alerts that have been taken and not told yet.
    waiting: Turns<Event>,
    /// Accesses that have been taken and not told yet.
    taken: Vec<AccessEvent>,
}

/// What one turn took out of a ring.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    /// When the last event was raised; 0 if there was none.
    last_ns: u64,
    /// There may be more.
    is_behind: bool,
}

impl Taken {
    /// Until when there is nothing more in it.
    fn complete_ns(self) -> u64 {
        if self.is_behind { self.last_ns } else { u64::MAX }
    }
}

impl<A, P, X> Pump<A, P, X>
where
    A: Ring<Event = Event>,
    P: Ring<Event = ProcessEvent>,
    X: Ring<Event = AccessEvent>,
{
    pub(super) fn new(
        alerts: Source<A>,
        processes: Option<Source<P>>,
        accesses: Option<Source<X>>,
        teller: Teller,
    ) -> Pump<A, P, X> {
        Pump { alerts, processes, accesses, teller, waiting: Turns::default(), taken: Vec::with_capacity(MAX_ACCESSES) }
    }

    /// Works for as long as this process lives.
    pub(super) fn run(mut self) {
        let mut compared = Instant::now();
        loop {
            self.open();
            if compared.elapsed() >= COMPARE {
                self.teller.compare_clocks();
                compared = Instant::now();
            }
            if self.turn() {
                continue;
            }
            if let Err(error) = self.wait() {
                warn!("waiting for the kernel's events failed: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Opens what is due to be.
    pub(super) fn open(&mut self) {
        let now = Instant::now();
        // First who is who: alerts may wait to be named by it.
        if self.processes.as_mut().is_some_and(|source| source.open_in_time(now)) {
            // What happened while nobody read.
            for _ in 0..BACKLOG {
                if !self.read_processes().is_behind {
                    break;
                }
            }
            self.teller.look_around();
        }
        self.alerts.open_in_time(now);
        if self.accesses.as_mut().is_some_and(|source| source.open_in_time(now)) {
            self.teller.begin_accesses(now);
        }
        self.look(now);
    }

    /// Looks for repeats, if that is due.
    pub(super) fn look(&mut self, now: Instant) {
        self.teller.look_for_repeats(now);
    }

    /// Some alerts, some accesses, and the events that may explain them. Whether there may be more to do.
    pub(super) fn turn(&mut self) -> bool {
        let begun_ns = portcullis_ebpf::boottime_ns();
        // What is taken now was raised before the events that are read next, and can be explained by those.
        for _ in 0..MAX_TAKEN {
            if self.waiting.bytes() >= MAX_WAITING_BYTES {
                break;
            }
            let Some(alert) = self.alerts.take() else { break };
            let bytes = size_of::<Event>() + alert.path.len();
            self.waiting.push(Owner(alert.header.slot, alert.header.epoch), alert, bytes);
        }
        let accesses = self.accesses.iter_mut().flat_map(|source| std::iter::from_fn(|| source.take()));
        self.taken.extend(accesses.take(MAX_ACCESSES));
        let processes = self.read_processes();
        let accesses = Taken {
            last_ns: self.taken.last().map_or(0, |event| event.header.time_ns),
            is_behind: self.taken.len() == MAX_ACCESSES,
        };
        let is_told = !self.taken.is_empty();
        self.teller.look_at_clock();
        let now = Instant::now();
        // Before the alerts: who finds an alert in its queue finds there what is older.
        self.taken.drain(..).for_each(|event| self.teller.access(event, now));
        let alerts = (0..MAX_ALERTS).map_while(|_| self.waiting.pop());
        let are_alerts_told = alerts.map(|alert| self.teller.alert(alert)).count() > 0;
        let is_repeated = (0..MAX_REPEATS).take_while(|_| self.teller.repeat()).count() > 0;
        // What waits may be of any age.
        let complete_ns = match self.waiting.len() {
            0 => begun_ns.min(accesses.complete_ns()).min(processes.complete_ns()),
            _ => 0,
        };
        let is_some_held = accesses.last_ns.max(processes.last_ns) > complete_ns;
        self.teller.wake_readers(complete_ns, is_some_held);
        are_alerts_told || is_told || processes.is_behind || is_repeated || is_some_held
    }

    /// Reads events of processes.
    fn read_processes(&mut self) -> Taken {
        let mut taken = Taken::default();
        let Some(source) = &mut self.processes else { return taken };
        let mut now = Instant::now();
        for number in 0..MAX_PER_ALERT {
            if number % MAX_ACCESSES == 0 {
                self.teller.look_at_clock();
                now = Instant::now();
            }
            let Some(event) = source.take() else { return taken };
            taken.last_ns = event.header.time_ns;
            self.teller.process(event, now);
        }
        taken.is_behind = true;
        taken
    }

    fn wait(&self) -> Result<(), Errno> {
        let now = Instant::now();
        let rest = self.processes.as_ref().map_or(Duration::MAX, |source| source.rest(now));
        let rest = rest.min(self.accesses.as_ref().map_or(Duration::MAX, |source| source.rest(now)));
        let rest = rest.min(self.alerts.rest(now)).min(self.teller.rest(now)).min(TICK);
        let open = self.alerts.fd().into_iter().chain(self.processes.as_ref().and_then(Source::fd));
        let open = open.chain(self.accesses.as_ref().and_then(Source::fd));
        let mut open: Vec<PollFd<'_>> = open.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX), tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut open, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
