//! Accesses and their repeats beside alerts and executions.

use super::*;

#[test]
fn an_access_says_who_it_was_by_what_is_in_the_other_ring_already() {
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    place.accesses(1, |event| event.lost_before = 4);
    place.happens(|_| {});
    assert!(pump.turn() && !pump.turn());
    let told = place.told().remove(0);
    assert_eq!((&told["sequence"], &told["lostBefore"], &told["repeats"]), (&1.into(), &4.into(), &0.into()));
    assert_eq!((&told["object"], &told["process"]["exe"]), (&"/etc/hosts".into(), &"/bin/cat".into()));
    place.accesses(2, |event| event.header.tgid = 99);
    assert!(pump.turn());
    let told = place.told().remove(0);
    assert_eq!((&told["process"]["pid"], &told["process"]["exe"]), (&99.into(), &serde_json::Value::Null), "nobody knows");
}

/// Three alerts come while more accesses wait than could be told before them.
#[test]
fn a_flood_of_accesses_holds_up_no_alert_and_loses_none_of_its_own() {
    const FLOOD: u64 = 10_000;
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    (0..FLOOD).for_each(|seq| place.accesses(seq, |_| {}));
    for number in 1..=3 {
        place.raise(7, 2_200 + number);
        assert!(pump.turn());
        let (alerts, accesses) = (place.telemetry.alerts.counters().items, place.telemetry.accesses.counters().items);
        assert_eq!((alerts, accesses), (number, number * pump::MAX_ACCESSES as u64));
    }
    while pump.turn() {}
    assert_eq!(place.telemetry.accesses.counters().items, FLOOD);
    let counted = place.telemetry.watched_status().1;
    assert_eq!((counted.file.passed, counted.file.denied, counted.network.passed), (FLOOD, 0, 0));
}

#[test]
fn a_reader_that_is_too_slow_for_accesses_is_told_how_many_it_lost() {
    const FLOOD: u64 = 10_000;
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    let mut slow = place.telemetry.accesses.subscribe();
    (0..FLOOD).for_each(|seq| place.accesses(seq, |event| event.path = vec![b'x'; 1000]));
    while pump.turn() {}
    let (mut got, mut lost) = (0, 0);
    while let Some(next) = slow.try_next() {
        match next {
            Next::Item(_) => got += 1,
            Next::Lost(count) => lost += count,
        }
    }
    assert!(lost > 0, "it did not even have to lose any");
    assert_eq!((got + lost, place.telemetry.watched_status().1.unread), (FLOOD, lost));
}

#[test]
fn repeats_are_told_as_such_whether_the_access_is_known_or_not() {
    let mut place = place(Visibility::default());
    let mut pump = place.pump();
    place.happens(|_| {});
    place.accesses(5, |event| event.header.result = 13);
    assert!(pump.turn());
    assert_eq!(place.told()[0]["repeats"], 0);
    place.counted.lock().unwrap().extend([fake::repeat(5, 41), fake::repeat(6, 3)]);
    let begun = std::time::Instant::now();
    pump.look(begun + repeats::LOOK_AFTER);
    while !pump.turn() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "nothing was found");
    }
    let told = place.told();
    let [known, forgotten] = &told[..] else { panic!("{told:?}") };
    for (line, repeats, sequence) in [(known, 41, 5), (forgotten, 3, 6)] {
        assert_eq!((&line["schema"], &line["repeats"]), (&"portcullis.access/1".into(), &repeats.into()));
        assert_eq!(line["repeatsOf"], serde_json::json!({"cpu": 0, "sequence": sequence}));
        assert_eq!((&line["operation"], &line["process"]["exe"]), (&"read".into(), &"/bin/cat".into()));
        assert!(line["sequence"].is_null(), "it is no access: {line}");
    }
    assert_eq!([&known["object"], &known["verdict"], &known["errno"]], ["/etc/hosts", "denied", "EACCES"]);
    assert_eq!((&forgotten["object"], &forgotten["cgroup"]), (&serde_json::Value::Null, &99.into()));
    let counted = place.telemetry.watched_status().1;
    assert_eq!((counted.file.denied, counted.file.passed), (1, 0), "what was told itself");
}

#[test]
fn a_ring_that_nobody_asks_for_is_opened_with_the_first_who_does() {
    use std::os::fd::AsRawFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    let place = place(Visibility::default());
    let signal = Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
    let asked = Arc::new(AtomicBool::new(false));
    let is_asked = Arc::clone(&asked);
    let is_there = Box::new(move || is_asked.load(Ordering::Relaxed));
    let mut source = source(&place.accesses, &Reading::default()).after(ring::Awaited { signal: Arc::clone(&signal), is_there });
    place.accesses(1, |_| {});
    let now = std::time::Instant::now();
    assert!(!source.open_in_time(now) && source.take().is_none());
    assert_eq!(source.rest(now), std::time::Duration::MAX, "it waits for the signal alone");
    assert_eq!(source.fd().unwrap().as_raw_fd(), signal.as_raw_fd());
    asked.store(true, Ordering::Relaxed);
    assert!(source.open_in_time(now) && source.take().is_some());
    assert_ne!(source.fd().unwrap().as_raw_fd(), signal.as_raw_fd());
}
