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

    /// When it was raised, in nanoseconds of the boot clock. What is taken together is given out in this order.
    fn raised_ns(&self) -> u64 {
        0
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

/// When what a reader has taken and not got yet was raised, in nanoseconds of the boot clock. That something was lost is told before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// What comes next.
    pub(crate) next_ns: u64,
    /// What comes last of it.
    pub(crate) newest_ns: u64,
}

impl<T: Item> Next<T> {
    fn raised_ns(&self) -> u64 {
        match self {
            Next::Item(item) => item.raised_ns(),
            Next::Lost(_) => 0,
        }
    }
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
        // They come as their owners take turns. A line of one owner stays as it is but for what two CPUs put there at once.
        taken.make_contiguous().sort_by_key(Next::raised_ns);
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
        self.wake_again(false);
    }

    /// The same; and the next time once more, if they may hold what they have got.
    pub(crate) fn wake_again(&self, again: bool) {
        let mut state = self.lock();
        if state.is_stirred {
            state.is_stirred = again;
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
        Subscription { fanout: self.clone(), id, notify, may_have, taken: VecDeque::new() }
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
    taken: VecDeque<Next<T>>,
}

impl<T: Item> Subscription<T> {
    /// Waits for what comes next. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&mut self) -> Next<T> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.stirred().await;
        }
    }

    /// What waits already.
    pub(crate) fn try_next(&mut self) -> Option<Next<T>> {
        self.taken()?.pop_front()
    }

    /// When that was raised.
    pub(crate) fn peek(&mut self) -> Option<Span> {
        let taken = self.taken()?;
        Some(Span { next_ns: taken.front()?.raised_ns(), newest_ns: taken.back()?.raised_ns() })
    }

    /// Waits until there may be more. Whoever is woken before it waits does not wait.
    pub(crate) async fn stirred(&self) {
        self.notify.notified().await;
    }

    /// What is out of the queue, with more where that was nothing; nothing if it is not worth a look.
    fn taken(&mut self) -> Option<&mut VecDeque<Next<T>>> {
        if !self.may_have.load(Ordering::Acquire) {
            return None;
        }
        if self.taken.is_empty() {
            let mut state = self.fanout.lock();
            state.readers.iter_mut().find(|reader| reader.id == self.id)?.queue.take(&mut self.taken);
            // Locked: whoever puts something there does it before or after this.
            self.may_have.store(!self.taken.is_empty(), Ordering::Relaxed);
        }
        Some(&mut self.taken)
    }
}

impl<T: Item> Drop for Subscription<T> {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken);
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
mod tests;
