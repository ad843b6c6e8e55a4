//! The pump with rings that no kernel fills.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use portcullis_ebpf::monitor::abi::NO_SLOT;
use portcullis_ebpf::monitor::{Classes, ProcessEvent, Visibility};
use portcullis_ebpf::{Error as KernelError, Event};

use super::ring::Ring;
use super::*;
use crate::alerts::fanout::Next;
use crate::alerts::{ProcessFacts, fanout::Item, fanout::Subscription};
use crate::fake;

/// A ring that says what a test has put in.
struct FakeRing<E> {
    queue: Queue<E>,
    file: File,
}

type Queue<E> = Arc<Mutex<VecDeque<Result<E, KernelError>>>>;

impl<E> Ring for FakeRing<E> {
    type Event = E;

    fn take(&mut self) -> Result<Option<E>, KernelError> {
        self.queue.lock().unwrap().pop_front().transpose()
    }

    fn malformed(&self) -> u64 {
        0
    }
}

impl<E> AsFd for FakeRing<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A ring that is never empty.
struct Storm {
    file: File,
    taken: Arc<Mutex<u64>>,
}

impl Ring for Storm {
    type Event = ProcessEvent;

    fn take(&mut self) -> Result<Option<ProcessEvent>, KernelError> {
        *self.taken.lock().unwrap() += 1;
        Ok(Some(fake::exec()))
    }

    fn malformed(&self) -> u64 {
        0
    }
}

impl AsFd for Storm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

struct Place {
    _state: tempfile::TempDir,
    alerts: Queue<Event>,
    processes: Queue<ProcessEvent>,
    telemetry: Telemetry,
    teller: Option<Teller>,
}

fn file() -> File {
    File::open("/dev/null").unwrap()
}

fn source<E: Send + 'static>(queue: &Queue<E>, reading: &Reading) -> Source<FakeRing<E>> {
    let queue = Arc::clone(queue);
    Source::new("events", reading.clone(), move || Ok(FakeRing { queue: Arc::clone(&queue), file: file() }))
}

fn place(tells: Visibility) -> Place {
    let state = tempfile::tempdir().unwrap();
    let telemetry = Telemetry { watched: Watched::telling(tells), ..Telemetry::default() };
    let Telemetry { alerts, logs, watched, .. } = telemetry.clone();
    let teller = Teller::new(Names::new(StateDir::at(state.path()), Host::default()), watched, alerts, logs);
    Place { _state: state, alerts: Queue::default(), processes: Queue::default(), telemetry, teller: Some(teller) }
}

impl Place {
    /// A pump with both rings open, and nothing read yet.
    fn pump(&mut self) -> Pump<FakeRing<Event>, FakeRing<ProcessEvent>> {
        let of_processes = source(&self.processes, &self.telemetry.watched.reading());
        let alerts = source(&self.alerts, &self.telemetry.reading);
        let mut pump = Pump::new(alerts, Some(of_processes), self.teller.take().unwrap());
        pump.open();
        pump
    }

    fn raise(&self, tgid: u32, time_ns: u64) {
        let mut event = fake::event(1, b"/etc/shadow");
        (event.header.tgid, event.header.time_ns, event.header.slot) = (tgid, time_ns, NO_SLOT);
        self.alerts.lock().unwrap().push_back(Ok(event));
    }

    fn happens(&self, change: impl FnOnce(&mut ProcessEvent)) {
        let mut event = fake::exec();
        change(&mut event);
        self.processes.lock().unwrap().push_back(Ok(event));
    }
}

fn all<T: Item>(stream: &Subscription<T>) -> Vec<Arc<T>> {
    let item = |next| match next {
        Next::Item(item) => item,
        Next::Lost(lost) => panic!("{lost} were lost"),
    };
    std::iter::from_fn(|| stream.try_next()).map(item).collect()
}

fn facts(telemetry: &Telemetry) -> Vec<Option<ProcessFacts>> {
    all(&telemetry.alerts.subscribe()).iter().map(|alert| alert.line.process.facts.clone()).collect()
}

#[test]
fn an_alert_is_explained_by_what_is_in_the_other_ring_already() {
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    place.raise(7, 2_200);
    place.happens(|event| event.header.tgid = 8);
    place.happens(|_| {});
    assert!(pump.turn(), "there may be more");
    assert!(!pump.turn());
    let facts = facts(&place.telemetry).remove(0).unwrap();
    assert_eq!((facts.exe.as_deref(), facts.cwd.as_deref()), (Some("/bin/cat"), Some("/")));
    assert_eq!(facts.args.unwrap(), ["cat", "/etc/shadow"]);
}

#[test]
fn a_storm_of_processes_holds_up_no_alert() {
    let mut place = place(Visibility::default());
    let taken = Arc::new(Mutex::new(0));
    let storm = Storm { file: file(), taken: Arc::clone(&taken) };
    let mut storm = Some(storm);
    let of_processes = Source::new("storm", Reading::default(), move || storm.take().ok_or(KernelError::MonitorNotLoaded));
    let of_alerts = source(&place.alerts, &place.telemetry.reading);
    let mut pump = Pump::new(of_alerts, Some(of_processes), place.teller.take().unwrap());
    pump.open();
    let before = *taken.lock().unwrap();
    for number in 0..3 {
        place.raise(7, 2_200 + number);
        assert!(pump.turn());
        assert_eq!(place.telemetry.alerts.counters().items, number + 1);
    }
    let taken = *taken.lock().unwrap() - before;
    assert_eq!(taken, 3 * pump::MAX_PER_ALERT as u64, "each alert waits for so many and no more");
}

#[test]
fn without_a_monitor_alerts_say_less() {
    let mut place = place(Visibility::default());
    let of_alerts = source(&place.alerts, &place.telemetry.reading);
    let mut pump = Pump::<_, FakeRing<ProcessEvent>>::new(of_alerts, None, place.teller.take().unwrap());
    pump.open();
    place.raise(7, 2_200);
    while pump.turn() {}
    assert_eq!(facts(&place.telemetry), [None]);
}

#[test]
fn a_ring_that_cannot_be_read_is_told_and_the_other_one_goes_on() {
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    place.processes.lock().unwrap().push_back(Err(KernelError::ProcessEventsTaken));
    place.raise(7, 2_200);
    while pump.turn() {}
    assert_eq!(facts(&place.telemetry), [None]);
    let trouble = place.telemetry.watched.status().trouble.unwrap();
    assert!(trouble.contains("another process already reads"), "{trouble}");
    assert_eq!(place.telemetry.trouble(), None);
    place.happens(|_| {});
    pump.open();
    assert!(!pump.turn(), "not tried again at once");
    assert_eq!(place.telemetry.watched.table().get(7, 2_200).map(|view| view.process.key.started_ns), None);
}

#[test]
fn what_happened_before_anybody_read_is_noted_before_the_first_alert() {
    let mut place = place(Visibility::default());
    place.happens(|_| {});
    place.raise(7, 2_200);
    let mut pump = place.pump();
    assert!(place.telemetry.watched.table().get(7, 2_200).is_some());
    let own = std::process::id();
    assert!(place.telemetry.watched.table().get(own, u64::MAX).is_some(), "and so is who runs already");
    while pump.turn() {}
    assert!(facts(&place.telemetry)[0].is_some());
}

#[test]
fn executions_are_told_of_whom_it_is_asked_for() {
    let (none, process) = (Classes::NONE, Classes::PROCESS);
    for (host, containers, expected) in
        [(none, none, &[][..]), (none, process, &[8][..]), (process, none, &[7][..]), (process, process, &[7, 8][..])]
    {
        let mut place = place(Visibility { host, containers });
        let mut pump = place.pump();
        place.happens(|event| event.header.pid_ns = 0xefff_fffc);
        place.happens(|event| event.header.tgid = 8);
        place.happens(|event| (event.header.tgid, event.header.kind) = (9, 0));
        while pump.turn() {}
        let told: Vec<u32> = all(&place.telemetry.logs.subscribe()).iter().map(|log| log.line.process.pid).collect();
        assert_eq!(told, expected, "{host:?} {containers:?}");
        assert!(place.telemetry.watched.table().get(7, 2_200).is_some(), "who is who is known in any case");
    }
}
