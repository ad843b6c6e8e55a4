//! Accesses that were only counted, because the same was told a moment before.
//!
//! One that goes on tells with each telling how often it was repeated. What no telling follows is taken from the kernel here, which
//! knows the telling by CPU and number alone. So what was told is kept for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use portcullis_ebpf::Error;
use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::{AccessEvent, Repeat};
use tracing::warn;

/// How soon counts are looked for after an access was told. The kernel's window is over by then, and who has ended since is still in
/// the table of processes (`DEAD_FOR_NS`).
pub(super) const LOOK_AFTER: Duration = Duration::from_secs(8);
/// How long a wait lasts at most while a thread looks: up to 16,384 entries are read one by one, in some 50 ms.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of accesses that are kept. Of one that had to go it is told only what the kernel knows: not the path.
const MAX_TOLD_BYTES: usize = 4 << 20;
/// What one takes besides its texts: the event and its place in a queue that may be half empty.
const TOLD_BYTES: usize = size_of::<AccessEvent>() + 2 * size_of::<Arc<AccessEvent>>();

/// A telling: CPU and number.
type Place = (u32, u64);

/// Takes what was counted out of the kernel.
pub(super) type Take = Arc<dyn Fn() -> Result<Vec<Repeat>, Error> + Send + Sync>;

/// The search for repeats.
pub(super) struct Repeats {
    take: Take,
    told: Told,
    /// When it is looked next; never as long as no access comes.
    due: Option<Instant>,
    /// Whether one came since it was looked the last time.
    is_stirred: bool,
    looking: Option<Receiver<Vec<Repeat>>>,
    found: std::vec::IntoIter<Repeat>,
    /// What those are repeats of.
    events: HashMap<Place, Arc<AccessEvent>>,
}

impl Repeats {
    pub(super) fn new(take: Take) -> Repeats {
        let (told, found) = (Told::default(), Vec::new().into_iter());
        Repeats { take, told, due: None, is_stirred: false, looking: None, found, events: HashMap::new() }
    }

    /// Has it looked for what was counted before anybody read.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due.get_or_insert(now + LOOK_AFTER);
    }

    /// Notes an access that is told.
    pub(super) fn note(&mut self, event: Arc<AccessEvent>, now: Instant) {
        self.is_stirred = true;
        self.begin(now);
        self.told.note(event);
    }

    /// Looks, if that is due.
    pub(super) fn look_in_time(&mut self, now: Instant) {
        let is_busy = self.looking.is_some() || self.found.len() > 0;
        if is_busy || self.due.is_none_or(|due| now < due) {
            return;
        }
        // What was told since may be repeated until its window is over.
        self.due = std::mem::take(&mut self.is_stirred).then_some(now + LOOK_AFTER);
        let (found, looking) = channel();
        let take = Arc::clone(&self.take);
        let look = move || match take() {
            // The other end ends with the process alone.
            Ok(repeats) => drop(found.send(repeats)),
            Err(error) => warn!("repeats of accesses are counted and not told: {error}"),
        };
        match std::thread::Builder::new().name("repeats".to_owned()).spawn(look) {
            Ok(_) => self.looking = Some(looking),
            Err(error) => warn!("repeats of accesses are not told now: the thread that looks cannot be started: {error}"),
        }
    }

    /// How long there is nothing to do.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        if self.looking.is_some() {
            return LOOK_PAUSE;
        }
        self.due.map_or(Duration::MAX, |due| due.saturating_duration_since(now))
    }

    /// The next that was found, with the access where it is still known.
    pub(super) fn next(&mut self) -> Option<(Repeat, Option<Arc<AccessEvent>>)> {
        if let Some(looking) = &self.looking {
            match looking.try_recv() {
                Ok(found) => {
                    self.events = self.told.of(&found);
                    (self.found, self.looking) = (found.into_iter(), None);
                }
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => self.looking = None,
            }
        }
        let repeat = self.found.next()?;
        let event = self.events.remove(&repeat.told);
        Some((repeat, event))
    }
}

/// What was told, the newest that fit, the oldest first.
#[derive(Default)]
struct Told {
    events: VecDeque<Arc<AccessEvent>>,
    bytes: usize,
}

impl Told {
    fn note(&mut self, event: Arc<AccessEvent>) {
        // The kernel tells each of these.
        if matches!(event.header.op, op::RENAME | op::LINK | op::SYMLINK) {
            return;
        }
        self.bytes += bytes(&event);
        self.events.push_back(event);
        while self.bytes > MAX_TOLD_BYTES
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= bytes(&oldest);
        }
    }

    /// The accesses that these repeats are of, as far as they are still known. What is looked for is rare, and what is told is not: so
    /// there is no index of it but for a moment.
    fn of(&self, repeats: &[Repeat]) -> HashMap<Place, Arc<AccessEvent>> {
        let wanted: HashSet<Place> = repeats.iter().map(|repeat| repeat.told).collect();
        // Numbers begin again where the monitor was unloaded and loaded: the last one counts.
        let known = self.events.iter().map(|event| ((event.header.cpu, event.header.seq), event));
        known.filter(|(place, _)| wanted.contains(place)).map(|(place, event)| (place, Arc::clone(event))).collect()
    }
}

fn bytes(event: &AccessEvent) -> usize {
    TOLD_BYTES + event.path.len() + event.second.len() + event.address.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fake::{access, repeat};

    /// How long a thread may take.
    const SOON: Duration = Duration::from_secs(20);

    fn numbered(seq: u64) -> Arc<AccessEvent> {
        let mut event = access(op::READ, b"/etc/hosts");
        event.header.seq = seq;
        Arc::new(event)
    }

    /// A kernel that has counted this.
    fn repeats_of(counted: Vec<Repeat>) -> (Repeats, Arc<Mutex<u64>>) {
        let (looks, counted) = (Arc::new(Mutex::new(0)), Mutex::new(counted));
        let counter = Arc::clone(&looks);
        let take = move || {
            *counter.lock().unwrap() += 1;
            Ok(std::mem::take(&mut *counted.lock().unwrap()))
        };
        (Repeats::new(Arc::new(take)), looks)
    }

    fn eventually(repeats: &mut Repeats) -> Option<(Repeat, Option<Arc<AccessEvent>>)> {
        let since = Instant::now();
        while repeats.looking.is_some() && since.elapsed() < SOON {
            if let Some(found) = repeats.next() {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        repeats.next()
    }

    #[test]
    fn what_was_counted_is_found_with_its_access_and_once() {
        let (mut repeats, looks) = repeats_of(vec![repeat(7, 41), repeat(8, 3)]);
        let start = Instant::now();
        assert_eq!(repeats.rest(start), Duration::MAX, "nothing to look for");
        repeats.note(numbered(7), start);
        repeats.look_in_time(start);
        assert_eq!((repeats.rest(start), *looks.lock().unwrap()), (LOOK_AFTER, 0), "not yet");
        repeats.look_in_time(start + LOOK_AFTER);
        let (found, event) = eventually(&mut repeats).unwrap();
        assert_eq!((found.repeats, event), (41, Some(numbered(7))));
        let (found, event) = repeats.next().unwrap();
        assert_eq!((found.repeats, event), (3, None), "one that nobody here has told");
        assert_eq!(repeats.next(), None);
    }

    #[test]
    fn it_is_looked_until_no_access_comes() {
        let (mut repeats, looks) = repeats_of(Vec::new());
        let start = Instant::now();
        repeats.note(numbered(1), start);
        for (round, due) in [(1, true), (2, true), (2, false)] {
            repeats.look_in_time(start + LOOK_AFTER * 2 * round);
            assert_eq!(eventually(&mut repeats), None);
            assert_eq!(*looks.lock().unwrap(), u64::from(round), "the second is for what was repeated after the first");
            assert_eq!(repeats.due.is_some(), due && round == 1);
        }
        repeats.note(numbered(2), start);
        assert!(repeats.due.is_some(), "and again");
    }

    #[test]
    fn what_cannot_be_read_is_not_looked_for_at_once_again() {
        let mut repeats = Repeats::new(Arc::new(|| Err(Error::MonitorNotLoaded)));
        let start = Instant::now();
        repeats.note(numbered(1), start);
        repeats.look_in_time(start + LOOK_AFTER);
        assert_eq!(eventually(&mut repeats), None);
        assert_eq!(repeats.rest(start + LOOK_AFTER), LOOK_AFTER);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let mut told = Told::default();
        let mut event = access(op::READ, &[b'x'; 4000]);
        for seq in 0..10_000 {
            event.header.seq = seq;
            told.note(Arc::new(event.clone()));
        }
        assert!(told.bytes <= MAX_TOLD_BYTES && told.events.len() > 900, "{} bytes of {}", told.bytes, told.events.len());
        let of = |seq| told.of(&[repeat(seq, 1)]).into_values().next();
        assert_eq!((of(0), of(9_999)), (None, Some(Arc::new(event.clone()))));
        let before = told.bytes;
        event.header.op = op::RENAME;
        told.note(Arc::new(event.clone()));
        assert_eq!(told.bytes, before, "each rename is told");
    }

    #[test]
    fn of_a_number_that_comes_again_the_last_is_known() {
        let mut told = Told::default();
        let mut later = access(op::READ, b"/etc/passwd");
        later.header.seq = 1;
        [numbered(1), Arc::new(later.clone())].into_iter().for_each(|event| told.note(event));
        assert_eq!(told.of(&[repeat(1, 3), repeat(2, 3)]), HashMap::from([((0, 1), Arc::new(later))]));
    }
}
