//! One stream of alerts, or of the agent's messages, to many readers.
//!
//! Each reader has a bounded queue. One that is too slow loses old items and is told how many; nobody waits for it, least
//! of all the reader of the kernel's ring. Containers take turns in it, and what is lost is lost of those who have the most there. What
//! comes while nobody listens is kept, also within bounds, and goes to the next who does: the agent may run or not, `portcullis events`
//! shows what happened just before.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::turns::{Owner, Turns};

/// What goes out.
pub(crate) trait Item: Send + Sync + 'static {
    /// Most bytes that wait for one reader. All readers that keep up with each other share the items, not copies of them.
    const MAX_QUEUED_BYTES: usize;

    /// What it takes, always the same once it is queued: it is added then and subtracted when it is taken.
    fn bytes(&self) -> usize;

    /// Several readers are going to get it: what one has written is kept for the others, and is part of what it takes.
    fn share(&mut self) {}

    /// Whose it is. By default all are of one.
    fn owner(&self) -> Owner {
        Owner::default()
    }
}

/// What an item takes besides itself: its place in a queue, counters of who has it, and what the allocator puts before each of its parts.
pub(crate) const PLACE_BYTES: usize = 96;
/// How much a reader takes at once at most, so that it and who publishes do not meet for each item.
const TAKEN: usize = 64;
/// The same in bytes; one more item may go beyond it.
const TAKEN_BYTES: usize = 256 << 10;

/// What a reader gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// An item.
    Item(Arc<T>),
    /// So many items were dropped just before the next one, because this reader did not keep up, or nobody listened.
    Lost(u64),
}

/// A bounded queue: the newest that fit, in equal shares where there are too many.
#[derive(Debug)]
struct Queue<T> {
    items: Turns<Arc<T>>,
    lost: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { items: Turns::default(), lost: 0 }
    }
}

impl<T: Item> Queue<T> {
    /// How many had to go for it.
    fn push(&mut self, item: Arc<T>) -> u64 {
        let (before, owner, bytes) = (self.lost, item.owner(), item.bytes());
        self.items.push(owner, item, bytes);
        while self.items.bytes() > T::MAX_QUEUED_BYTES && self.items.len() > 1 {
            if self.items.displace(owner).is_none() {
                break;
            }
            self.lost += 1;
        }
        self.lost - before
    }

    /// Moves out what comes next, as much as is taken together.
    fn take(&mut self, taken: &mut VecDeque<Next<T>>) {
        if self.lost > 0 {
            taken.push_back(Next::Lost(std::mem::take(&mut self.lost)));
        }
        let mut bytes = 0;
        while taken.len() < TAKEN
            && bytes < TAKEN_BYTES
            && let Some(item) = self.items.pop()
        {
            bytes += item.bytes();
            taken.push_back(Next::Item(item));
        }
    }

    /// Puts what was taken back to where it was.
    fn put_back(&mut self, taken: VecDeque<Next<T>>) {
        for next in taken.into_iter().rev() {
            match next {
                Next::Item(item) => {
                    let (owner, bytes) = (item.owner(), item.bytes());
                    self.items.put_back(owner, item, bytes);
                }
                Next::Lost(lost) => self.lost += lost,
            }
        }
    }
}

#[derive(Debug)]
struct Reader<T> {
    id: u64,
    queue: Queue<T>,
    notify: Arc<Notify>,
    /// See [`Subscription::may_have`].
    may_have: Arc<AtomicBool>,
}

impl<T: Item> Reader<T> {
    fn push(&mut self, item: Arc<T>) -> u64 {
        self.may_have.store(true, Ordering::Release);
        self.queue.push(item)
    }
}

#[derive(Debug)]
struct State<T> {
    readers: Vec<Reader<T>>,
    next_id: u64,
    /// What nobody has got yet.
    waiting: Queue<T>,
    /// Whether something was queued since readers were woken.
    is_stirred: bool,
    counters: Counters,
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Items that came.
    pub(crate) items: u64,
    /// Readers now.
    pub(crate) readers: u64,
    /// Items that wait for a reader.
    pub(crate) waiting: u64,
    /// Items that a reader did not get, counted for each reader.
    pub(crate) lost: u64,
}

/// Where items come in and go out.
#[derive(Debug)]
pub(crate) struct Fanout<T> {
    state: Arc<Mutex<State<T>>>,
}

impl<T> Clone for Fanout<T> {
    fn clone(&self) -> Fanout<T> {
        Fanout { state: Arc::clone(&self.state) }
    }
}

impl<T> Default for Fanout<T> {
    fn default() -> Fanout<T> {
        let state = State {
            readers: Vec::new(),
            next_id: 0,
            waiting: Queue::default(),
            is_stirred: false,
            counters: Counters::default(),
        };
        Fanout { state: Arc::new(Mutex::new(state)) }
    }
}

impl<T: Item> Fanout<T> {
    /// Gives an item to all who listen.
    pub(crate) fn publish(&self, item: T) {
        self.queue(item);
        self.wake();
    }

    /// Gives an item to all who listen, when they come for it or are woken.
    pub(crate) fn queue(&self, mut item: T) {
        let mut state = self.lock();
        let State { readers, waiting, counters, .. } = &mut *state;
        counters.items += 1;
        if readers.len() > 1 {
            item.share();
        }
        let item = Arc::new(item);
        let Some((last, others)) = readers.split_last_mut() else {
            counters.lost += waiting.push(item);
            return;
        };
        for reader in others {
            counters.lost += reader.push(Arc::clone(&item));
        }
        counters.lost += last.push(item);
        state.is_stirred = true;
    }

    /// Wakes those who have got something since they were woken the last time.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.is_stirred) {
            state.readers.iter().for_each(|reader| reader.notify.notify_one());
        }
    }

    /// Begins to listen, with what nobody has got yet.
    pub(crate) fn subscribe(&self) -> Subscription<T> {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let (notify, may_have) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
        let queue = std::mem::take(&mut state.waiting);
        state.readers.push(Reader { id, queue, notify: Arc::clone(&notify), may_have: Arc::clone(&may_have) });
        Subscription { fanout: self.clone(), id, notify, may_have, taken: Mutex::default() }
    }

    /// What went through so far.
    pub(crate) fn counters(&self) -> Counters {
        let state = self.lock();
        Counters { readers: state.readers.len() as u64, waiting: state.waiting.items.len() as u64, ..state.counters }
    }
}

impl<T> Fanout<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's end.
#[derive(Debug)]
pub(crate) struct Subscription<T: Item> {
    fanout: Fanout<T>,
    id: u64,
    notify: Arc<Notify>,
    /// Whether it is worth a look. Who reads several streams asks most of them for nothing most of the time, and a look takes a lock.
    may_have: Arc<AtomicBool>,
    /// Out of its queue, and not given out yet.
    taken: Mutex<VecDeque<Next<T>>>,
}

impl<T: Item> Subscription<T> {
    /// Waits for what comes next. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&self) -> Next<T> {
        loop {
            let notified = self.notify.notified();
            if let Some(next) = self.try_next() {
                return next;
            }
            notified.await;
        }
    }

    /// What waits already.
    pub(crate) fn try_next(&self) -> Option<Next<T>> {
        if !self.may_have.load(Ordering::Acquire) {
            return None;
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_empty() {
            let mut state = self.fanout.lock();
            state.readers.iter_mut().find(|reader| reader.id == self.id)?.queue.take(&mut taken);
            // Locked: whoever puts something there does it before or after this.
            self.may_have.store(!taken.is_empty(), Ordering::Relaxed);
        }
        taken.pop_front()
    }
}

impl<T: Item> Drop for Subscription<T> {
    fn drop(&mut self) {
        let taken = std::mem::take(self.taken.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.fanout.lock();
        // The last one out leaves what it did not get to the next one in.
        if let Some(at) = state.readers.iter().position(|reader| reader.id == self.id) {
            let Reader { mut queue, .. } = state.readers.remove(at);
            if state.readers.is_empty() {
                queue.put_back(taken);
                state.waiting = queue;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_QUEUED_BYTES: usize = 100_000;

    #[derive(Debug, PartialEq, Eq)]
    struct Text(String);

    impl Item for Text {
        const MAX_QUEUED_BYTES: usize = MAX_QUEUED_BYTES;

        fn bytes(&self) -> usize {
            256 + self.0.len()
        }
    }

    fn alert(number: usize) -> Text {
        Text(format!("{number:07}"))
    }

    fn numbers(reader: &Subscription<Text>) -> (Vec<usize>, u64) {
        let (mut numbers, mut lost) = (Vec::new(), 0);
        while let Some(next) = reader.try_next() {
            match next {
                Next::Item(alert) => numbers.push(alert.0.parse().unwrap()),
                Next::Lost(count) => lost += count,
            }
        }
        (numbers, lost)
    }

    #[test]
    fn everybody_gets_everything_and_what_waited_goes_to_the_first() {
        let fanout = Fanout::default();
        fanout.publish(alert(0));
        assert_eq!(fanout.counters(), Counters { items: 1, readers: 0, waiting: 1, lost: 0 });
        let (first, second) = (fanout.subscribe(), fanout.subscribe());
        fanout.publish(alert(1));
        assert_eq!(numbers(&first), (vec![0, 1], 0));
        assert_eq!(numbers(&second), (vec![1], 0));
    }

    #[test]
    fn what_the_last_reader_leaves_waits_for_the_next() {
        let fanout = Fanout::default();
        let (first, second) = (fanout.subscribe(), fanout.subscribe());
        fanout.publish(alert(0));
        drop(first);
        assert_eq!(fanout.counters().waiting, 0, "the other has it");
        drop(second);
        fanout.publish(alert(1));
        assert_eq!(numbers(&fanout.subscribe()), (vec![0, 1], 0));
    }

    #[test]
    fn what_is_taken_together_is_given_out_one_by_one_or_put_back() {
        let fanout = Fanout::default();
        let first = fanout.subscribe();
        (0..3 * TAKEN).for_each(|number| fanout.publish(alert(number)));
        assert_eq!(first.try_next(), Some(Next::Item(Arc::new(alert(0)))));
        fanout.publish(alert(3 * TAKEN));
        drop(first);
        let (rest, lost) = numbers(&fanout.subscribe());
        assert_eq!((rest, lost), ((1..=3 * TAKEN).collect(), 0));
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let fanout = Fanout::default();
        let (slow, fast) = (fanout.subscribe(), fanout.subscribe());
        let fit = MAX_QUEUED_BYTES / alert(0).bytes();
        for number in 0..fit + 10 {
            fanout.publish(alert(number));
            assert_eq!(numbers(&fast), (vec![number], 0));
        }
        assert_eq!(slow.try_next(), Some(Next::Lost(10)), "before the first that is left");
        let (left, lost) = numbers(&slow);
        assert_eq!((left.len(), left[0], left.last().copied(), lost), (fit, 10, Some(fit + 9), 0));
        assert_eq!(fanout.counters().lost, 10);
    }

    #[test]
    fn nobody_listening_is_bounded_too() {
        let fanout = Fanout::default();
        for number in 0..3 {
            fanout.publish(Text("x".repeat(MAX_QUEUED_BYTES) + &number.to_string()));
        }
        let reader = fanout.subscribe();
        assert_eq!(reader.try_next(), Some(Next::Lost(2)));
        assert!(matches!(reader.try_next(), Some(Next::Item(alert)) if alert.0.ends_with('2')), "one always fits");
        assert_eq!(reader.try_next(), None);
    }

    #[test]
    fn only_what_several_get_is_shared_and_takes_as_much() {
        #[derive(Debug, PartialEq, Eq)]
        struct Event(usize);

        impl Item for Event {
            const MAX_QUEUED_BYTES: usize = MAX_QUEUED_BYTES;

            fn bytes(&self) -> usize {
                self.0
            }

            fn share(&mut self) {
                self.0 *= 10;
            }
        }

        let fanout = Fanout::default();
        fanout.publish(Event(1000));
        let first = fanout.subscribe();
        fanout.publish(Event(1001));
        let second = fanout.subscribe();
        (0..12).for_each(|number| fanout.publish(Event(1000 + number)));
        let taken: Vec<_> = std::iter::from_fn(|| first.try_next()).collect();
        assert_eq!(taken[0], Next::Lost(5), "the first two, and three of those that are ten times as large");
        assert_eq!((taken.len(), &taken[1]), (10, &Next::Item(Arc::new(Event(10_030)))));
        drop(first);
        while second.try_next().is_some() {}
        fanout.publish(Event(7));
        assert_eq!(second.try_next(), Some(Next::Item(Arc::new(Event(7)))), "it is alone again");
    }

    #[tokio::test]
    async fn a_reader_sleeps_until_there_is_something() {
        let fanout = Fanout::default();
        let reader = fanout.subscribe();
        let publisher = fanout.clone();
        let (next, ()) = tokio::join!(reader.next(), async move {
            tokio::task::yield_now().await;
            publisher.publish(alert(7));
        });
        assert!(matches!(next, Next::Item(alert) if alert.0 == "0000007"));
    }
}
