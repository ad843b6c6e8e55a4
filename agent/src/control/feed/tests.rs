use portcullis_ebpf::abi::op;

use super::*;
use crate::fake::{access, accessed, alert_of, event, executed_with, named};

const MS: u64 = 1_000_000;
/// The time of a test.
const NOW: u64 = 1_000 * MS;

/// Queues that a test fills, and a reader of all of them who came long before.
struct Place {
    telemetry: Telemetry,
    feed: Feed,
}

fn place() -> Place {
    let telemetry = Telemetry::default();
    let feed = Feed { since_ns: 0, ..Feed::of(&telemetry, EventClass::All) };
    Place { telemetry, feed }
}

impl Place {
    fn alert(&self, container: u32, raised_ns: u64) {
        let mut event = event(1, b"/etc/shadow");
        (event.header.slot, event.header.time_ns) = (container, raised_ns);
        self.telemetry.alerts.publish(alert_of(&event, named("aaaa"), &portcullis_policy::meaning::RuleSet::default()));
    }

    fn execution(&self, raised_ns: u64) {
        self.telemetry.logs.publish(executed_with(None, |event| event.header.time_ns = raised_ns));
    }

    fn access(&self, raised_ns: u64) {
        let mut event = access(op::READ, b"/etc/hosts");
        event.header.time_ns = raised_ns;
        self.telemetry.accesses.publish(accessed(None, &event));
    }

    fn turn(&mut self) -> Turn {
        self.feed.turn(|| NOW)
    }

    /// All that is given out now, by its class and when it was raised.
    fn all(&mut self) -> Vec<(&'static str, u64)> {
        let told = |fed| match fed {
            Fed::Alert(alert) => ("alert", alert.raised_ns()),
            Fed::Log(log) => (log.class(), log.raised_ns()),
            Fed::Lost(class, lost) => panic!("{lost} of {class:?} were lost"),
        };
        let next = || {
            let turn = self.turn();
            self.feed.take(&turn)
        };
        std::iter::from_fn(next).map(told).collect()
    }
}

#[test]
fn what_was_raised_first_comes_first_whatever_queue_it_is_in() {
    let mut place = place();
    for number in (0..30).rev() {
        let raised_ns = NOW - number * MS / 4;
        match number % 3 {
            0 => place.alert(1, raised_ns),
            1 => place.execution(raised_ns),
            _ => place.access(raised_ns),
        }
    }
    place.telemetry.complete.reach(NOW);
    let told = place.all();
    assert_eq!(told.len(), 30);
    assert!(told.is_sorted_by_key(|(_, raised_ns)| *raised_ns), "{told:?}");
    assert_eq!([told[0].0, told[1].0, told[2].0], ["file", "process", "alert"]);
}

#[test]
fn containers_that_take_turns_are_told_by_time_all_the_same() {
    let mut place = place();
    // As they were raised; their owners take turns in the queue.
    for (container, age) in [(1, 9), (1, 8), (1, 7), (2, 6), (1, 5), (2, 4)] {
        place.alert(container, NOW - age * MS);
    }
    let told = place.all();
    assert!(told.len() == 6 && told.is_sorted(), "{told:?}");
}

#[test]
fn what_may_have_something_before_it_is_held_until_that_is_known_or_for_a_while() {
    let mut place = place();
    place.execution(NOW - 10 * MS);
    assert_eq!(place.turn(), Turn::Wait(HELD - Duration::from_millis(10)));
    assert!(place.all().is_empty());
    place.telemetry.complete.reach(NOW - 11 * MS);
    assert!(place.all().is_empty(), "something between them may come");
    place.telemetry.complete.reach(NOW - 10 * MS);
    assert_eq!(place.all(), [("process", NOW - 10 * MS)]);
    place.access(NOW - 5 * MS);
    place.execution(NOW - 4 * MS);
    assert!(place.all().is_empty());
    place.alert(1, NOW - 3 * MS);
    assert_eq!(place.all(), [("file", NOW - 5 * MS), ("process", NOW - 4 * MS), ("alert", NOW - 3 * MS)], "an alert comes last");
    place.access(NOW - 101 * MS);
    assert_eq!(place.all(), [("file", NOW - 101 * MS)], "nobody waits for ever");
    place.access(NOW + 101 * MS);
    assert_eq!(place.all(), [("file", NOW + 101 * MS)], "nor for a clock that is wrong");
}

#[test]
fn what_is_held_comes_at_the_end() {
    let mut place = place();
    place.access(NOW);
    assert_eq!(place.turn(), Turn::Wait(HELD));
    place.feed.end();
    assert_eq!(place.turn(), Turn::Access);
}

#[test]
fn an_alert_that_has_waited_goes_ahead_of_what_is_older() {
    let mut place = place();
    place.access(NOW - 40 * MS);
    place.telemetry.complete.reach(NOW);
    place.alert(1, NOW - 20 * MS);
    assert_eq!(place.turn(), Turn::Access);
    place.feed.since_ns = NOW - 30 * MS;
    let ahead = |feed: &mut Feed| feed.turn(|| NOW + MS);
    assert_eq!(ahead(&mut place.feed), Turn::Alert);
    place.feed.since_ns = NOW - 10 * MS;
    assert_eq!(ahead(&mut place.feed), Turn::Access, "it was there before its reader");
}

#[tokio::test]
async fn who_waits_is_woken_when_it_has_been_held_for_long_enough() {
    let mut place = place();
    place.execution(boottime_ns());
    let next = tokio::time::timeout(Duration::from_secs(20), place.feed.next()).await;
    assert!(matches!(next, Ok(Fed::Log(_))), "though nothing else happens");
}

#[tokio::test]
async fn one_stream_is_not_held() {
    let telemetry = Telemetry::default();
    let mut feed = Feed::of(&telemetry, EventClass::Process);
    assert!(feed.try_next().is_none());
    telemetry.logs.publish(executed_with(None, |event| event.header.time_ns = boottime_ns()));
    assert!(matches!(feed.try_next(), Some(Fed::Log(_))));
}

#[test]
fn what_was_looked_at_and_not_given_out_waits_for_the_next_reader() {
    let mut place = place();
    place.execution(NOW);
    place.access(NOW + MS);
    assert!(matches!(place.turn(), Turn::Wait(_)));
    drop(place.feed);
    let feed = Feed::of(&place.telemetry, EventClass::All);
    place.telemetry.complete.reach(NOW + MS);
    let told = Place { feed, telemetry: place.telemetry }.all();
    assert_eq!(told, [("process", NOW), ("file", NOW + MS)]);
}
