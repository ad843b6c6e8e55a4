//! The pump with rings that no kernel fills.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::abi::NO_SLOT;
use portcullis_ebpf::monitor::{AccessEvent, Classes, ProcessEvent, Repeat, Visibility};
use portcullis_ebpf::{Error as KernelError, Event};
use portcullis_enforcer::{Door, VISIBILITY_ANNOTATION};

use super::ring::Ring;
use super::*;
use crate::alerts::fanout::Next;
use crate::alerts::{Format, ProcessFacts, fanout::Item, fanout::Subscription};
use crate::fake;

mod accesses;

/// A ring that says what a test has put in.
struct FakeRing<E> {
    queue: Queue<E>,
    file: File,
}

type Queue<E> = Arc<Mutex<VecDeque<Result<E, KernelError>>>>;

impl<E> Ring for FakeRing<E> {
    type Event = E;

    fn take(&mut self) -> Result<Option<E>, ring::Trouble> {
        Ok(self.queue.lock().unwrap().pop_front().transpose()?)
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

    fn take(&mut self) -> Result<Option<ProcessEvent>, ring::Trouble> {
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
    state: tempfile::TempDir,
    alerts: Queue<Event>,
    processes: Queue<ProcessEvent>,
    accesses: Queue<AccessEvent>,
    /// What the kernel has counted.
    counted: Arc<Mutex<Vec<Repeat>>>,
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
    let counted: Arc<Mutex<Vec<Repeat>>> = Arc::default();
    let taken = Arc::clone(&counted);
    let take = Arc::new(move || Ok(std::mem::take(&mut *taken.lock().unwrap())));
    let names = Names::new(StateDir::at(state.path()), Host::default()).by(Arc::clone(telemetry.watched.config()));
    let teller = Teller::new(names, &telemetry, take);
    let (alerts, processes, accesses) = (Queue::default(), Queue::default(), Queue::default());
    Place { state, alerts, processes, accesses, counted, telemetry, teller: Some(teller) }
}

impl Place {
    /// A pump with all rings open, and nothing read yet.
    fn pump(&mut self) -> Pump<FakeRing<Event>, FakeRing<ProcessEvent>, FakeRing<AccessEvent>> {
        let of_processes = source(&self.processes, &self.telemetry.watched.reading());
        let alerts = source(&self.alerts, &self.telemetry.reading);
        let accesses = source(&self.accesses, &self.telemetry.watched.reading_accesses());
        let mut pump = Pump::new(alerts, Some(of_processes), Some(accesses), self.teller.take().unwrap());
        pump.open();
        pump
    }

    fn raise(&self, tgid: u32, time_ns: u64) {
        let mut event = fake::event(1, b"/etc/shadow");
        (event.header.tgid, event.header.time_ns, event.header.slot) = (tgid, time_ns, NO_SLOT);
        self.alerts.lock().unwrap().push_back(Ok(event));
    }

    fn accesses(&self, seq: u64, change: impl FnOnce(&mut AccessEvent)) {
        let mut event = fake::access(op::READ, b"/etc/hosts");
        event.header.seq = seq;
        change(&mut event);
        self.accesses.lock().unwrap().push_back(Ok(event));
    }

    /// The lines about accesses since it was asked the last time.
    fn told(&self) -> Vec<serde_json::Value> {
        let lines = all(&mut self.telemetry.accesses.subscribe());
        lines.iter().map(|log| serde_json::from_slice(&log.rendered(Format::Line)).unwrap()).collect()
    }

    fn happens(&self, change: impl FnOnce(&mut ProcessEvent)) {
        let mut event = fake::exec();
        change(&mut event);
        self.processes.lock().unwrap().push_back(Ok(event));
    }
}

fn all<T: Item>(stream: &mut Subscription<T>) -> Vec<Arc<T>> {
    let item = |next| match next {
        Next::Item(item) => item,
        Next::Lost(lost) => panic!("{lost} were lost"),
    };
    std::iter::from_fn(|| stream.try_next()).map(item).collect()
}

fn facts(telemetry: &Telemetry) -> Vec<Option<ProcessFacts>> {
    all(&mut telemetry.alerts.subscribe()).iter().map(|alert| alert.line().process.facts.cloned()).collect()
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
    let program = facts.program.unwrap();
    assert_eq!((program.exe(), program.cwd()), (Some("/bin/cat"), Some("/")));
    assert_eq!(program.args().unwrap().collect::<Vec<_>>(), ["cat", "/etc/shadow"]);
}

#[test]
fn a_storm_of_processes_holds_up_no_alert() {
    let mut place = place(Visibility::default());
    let taken = Arc::new(Mutex::new(0));
    let storm = Storm { file: file(), taken: Arc::clone(&taken) };
    let mut storm = Some(storm);
    let of_processes = Source::new("storm", Reading::default(), move || storm.take().ok_or(KernelError::MonitorNotLoaded.into()));
    let of_alerts = source(&place.alerts, &place.telemetry.reading);
    let mut pump = Pump::<_, _, FakeRing<AccessEvent>>::new(of_alerts, Some(of_processes), None, place.teller.take().unwrap());
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
    let teller = place.teller.take().unwrap();
    let mut pump = Pump::<_, FakeRing<ProcessEvent>, FakeRing<AccessEvent>>::new(of_alerts, None, None, teller);
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
    let trouble = place.telemetry.watched_status().0.trouble.unwrap();
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

/// What readers of several streams hold until nothing older can come.
#[test]
fn it_is_known_until_when_all_is_told() {
    let mut place = place(Visibility { host: Classes::NONE, containers: Classes::PROCESS });
    let mut pump = place.pump();
    let complete = place.telemetry.complete.clone();
    let begun_ns = portcullis_ebpf::boottime_ns();
    assert!(!pump.turn());
    assert!(complete.until_ns() >= begun_ns, "there is nothing");
    let soon_ns = portcullis_ebpf::boottime_ns() + 1_000_000_000;
    place.happens(|event| event.header.time_ns = soon_ns);
    assert!(pump.turn(), "it was raised after the other rings were looked at");
    assert!(complete.until_ns() < soon_ns);
    // More than is taken at once: what is left may be older than what else was told.
    let before = complete.until_ns();
    (0..pump::MAX_TAKEN as u64).for_each(|number| place.raise(7, before + number));
    assert!(pump.turn());
    assert_eq!(complete.until_ns(), before);
    while pump.turn() {}
    assert!(complete.until_ns() > before);
    let (first_ns, last_ns) = (complete.until_ns() + 1, complete.until_ns() + pump::MAX_ACCESSES as u64);
    (first_ns..=last_ns + 1).for_each(|time_ns| place.accesses(time_ns, |event| event.header.time_ns = time_ns));
    assert!(pump.turn());
    assert_eq!(complete.until_ns(), last_ns);
    while pump.turn() {}
    assert!(complete.until_ns() > last_ns);
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
        let told: Vec<u32> = all(&mut place.telemetry.logs.subscribe()).iter().map(|log| log.line().process.pid).collect();
        assert_eq!(told, expected, "{host:?} {containers:?}");
        assert!(place.telemetry.watched.table().get(7, 2_200).is_some(), "who is who is known in any case");
    }
}

/// Ten alerts of another container come behind as many as the kernel's ring holds, and the reader reads nothing meanwhile.
#[test]
fn a_flood_of_one_container_neither_delays_nor_displaces_the_alerts_of_another() {
    const FLOOD: usize = 14_000;
    const FEW: usize = 10;
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    let (mut slow, mut quick) = (place.telemetry.alerts.subscribe(), place.telemetry.alerts.subscribe());
    for number in 0..FLOOD + FEW {
        let mut event = fake::event(number as u64, b"/etc/shadow");
        (event.header.slot, event.header.tgid) = if number < FLOOD { (1, 1) } else { (2, 2) };
        place.alerts.lock().unwrap().push_back(Ok(event));
    }
    let looked = (FLOOD + FEW).div_ceil(pump::MAX_TAKEN);
    (0..=looked).for_each(|_| assert!(pump.turn()));
    let told = all(&mut quick);
    assert_eq!(told.iter().filter(|alert| alert.line().process.pid == 2).count(), FEW, "of {} that were told", told.len());
    assert!(told.len() < FLOOD / 10, "{} were told meanwhile", told.len());
    while pump.turn() {}
    let (mut of_each, mut lost, mut first) = ([0; 2], 0, Vec::new());
    while let Some(next) = slow.try_next() {
        match next {
            Next::Item(alert) => {
                of_each[alert.line().process.pid as usize - 1] += 1;
                first.push(alert.line().process.pid);
            }
            Next::Lost(count) => lost += count as usize,
        }
    }
    assert!(lost > 0, "it did not even have to lose any");
    assert_eq!((of_each[0] + lost, of_each[1]), (FLOOD, FEW), "all that is lost is the flood's");
    assert_eq!(first[..2 * FEW].iter().filter(|&&pid| pid == 2).count(), FEW, "and they are read in turn");
}

/// Puts a container on record whose cgroup is that of [`fake::exec`], and which asks for this.
fn asks_for(place: &Place, visibility: &str) {
    let mut known = fake::known("asking", Door::Hook, Some(40));
    known.facts.annotations.insert(VISIBILITY_ANNOTATION.to_owned(), visibility.to_owned());
    known.place.as_mut().unwrap().cgroup_id = fake::exec().header.cgroup;
    let directory = StateDir::at(place.state.path()).known_dir();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("asking.json"), serde_json::to_vec(&known).unwrap()).unwrap();
}

#[test]
fn a_container_is_told_of_as_it_asks_whatever_others_are() {
    let default = Visibility { host: Classes::NONE, containers: Classes::PROCESS };
    let quiet = Visibility::default();
    for (visibility, asked, executions, files) in [
        (default, "none", 0, 0),
        (default, "file", 0, 1),
        (default, "process,file", 1, 1),
        (quiet, "process", 1, 0),
        (default, "network", 0, 0),
    ] {
        let mut place = place(visibility);
        asks_for(&place, asked);
        let mut pump = place.pump();
        // Of a container without policies, which has no label.
        place.happens(|event| event.header.slot = NO_SLOT);
        place.accesses(1, |event| event.header.slot = NO_SLOT);
        place.raise(7, 2_200);
        while pump.turn() {}
        assert_eq!(all(&mut place.telemetry.logs.subscribe()).len(), executions, "{asked}: executions");
        assert_eq!(place.told().len(), files, "{asked}: files");
        assert_eq!(place.telemetry.tally.withheld(), 1 - files as u64, "{asked}: what came and was not told is counted");
        let facts = facts(&place.telemetry).remove(0).unwrap();
        assert_eq!(facts.program.unwrap().exe(), Some("/bin/cat"), "{asked}: the alert is told, and who raised it");
    }
}
