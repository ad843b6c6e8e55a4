//! What repeats is told once and then counted: told + counted + lost is all there was, to the unit.

use std::time::Duration;

use super::super::native::Room;
use super::access::{Shell, drain};
use super::load_all;
use crate::abi::op;
use crate::monitor::load::Sizes;
use crate::monitor::{AccessEvent, Classes, Counts, Repeat};

const TIMES: u64 = 10_000;
/// The loop takes many.
const SHORT: Duration = Duration::from_millis(1);
/// Opens one file as often as that, in the shell itself.
const SCRIPT: &str = "i=0; while [ $i -lt 10000 ]; do : < \"$1\"; i=$((i+1)); done";

struct Seen {
    told: Vec<AccessEvent>,
    taken: Vec<Repeat>,
    counts: Counts,
    lost: u64,
}

/// All that one shell did, which alone is visible.
fn see(name: &str, window: Duration, sizes: Sizes) -> Option<Seen> {
    let room = Room::new(name)?;
    let monitor = load_all(&room, sizes)?;
    let mut events = monitor.access_events().expect("the one reader");
    monitor.set_window(window).expect("config");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let shell = Shell::waiting(name, SCRIPT, file.path())?;
    monitor.set_override(shell.cgroup.id(), Classes::FILE).expect("an override");
    let _cgroup = shell.run();
    let told = drain(&mut events);
    let counts = monitor.counts().expect("counts");
    assert!(told.iter().all(|event| event.header.op == op::READ), "nothing but the loop: {told:?}");
    assert_eq!(counts.accesses + counts.accesses_aggregated, TIMES);
    assert_eq!(told.len() as u64 + counts.accesses_lost, counts.accesses);
    // The last window has to be over.
    std::thread::sleep(SHORT);
    Some(Seen { told, taken: monitor.take_repeats().expect("repeats"), counts, lost: events.lost() })
}

#[test]
fn the_same_is_told_once_within_the_window() {
    let Some(seen) = see("once", Duration::from_secs(3600), Sizes::default()) else {
        return;
    };
    assert_eq!((seen.told.len(), seen.told[0].header.repeats), (1, 0));
    assert_eq!(seen.counts.accesses_aggregated, TIMES - 1);
    assert_eq!(seen.taken, [], "the window is not over");
}

#[test]
fn what_was_counted_is_told_with_the_next_or_taken() {
    let Some(seen) = see("next", SHORT, Sizes::default()) else {
        return;
    };
    assert!(seen.told.len() > 1, "it took longer than the window");
    let with_next: u64 = seen.told.iter().map(|event| event.header.repeats).sum();
    let taken: u64 = seen.taken.iter().map(|repeat| repeat.repeats).sum();
    assert_eq!(with_next + taken, seen.counts.accesses_aggregated);
    for repeat in &seen.taken {
        let last = seen.told.last().expect("it was told");
        assert_eq!(repeat.told, (last.header.cpu, last.header.seq));
        assert_eq!((repeat.what.tgid, repeat.what.started_ns), (last.header.tgid, last.header.started_ns));
        assert_eq!(u32::from(repeat.what.op), op::READ);
    }
}

#[test]
fn without_a_window_each_is_told() {
    let Some(seen) = see("each", Duration::ZERO, Sizes::default()) else {
        return;
    };
    assert_eq!((seen.told.len() as u64, seen.counts.accesses_aggregated, seen.counts.accesses_lost), (TIMES, 0, 0));
}

#[test]
fn what_finds_no_room_is_counted() {
    let Some(seen) = see("full", Duration::ZERO, Sizes { rings: Some(64 << 10) }) else {
        return;
    };
    assert!(seen.counts.accesses_lost > 0, "the ring was too small, as intended");
    assert_eq!(seen.lost, 0, "no gap: what came last was lost");
}
