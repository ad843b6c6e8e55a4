//! One stream of alerts to many readers.
//!
//! Each reader has a bounded queue. One that is too slow loses its oldest alerts and is told how many; nobody waits for it, least
//! of all the reader of the kernel's ring. What comes while nobody listens is kept, also within bounds, and goes to the next who
//! does: the agent may run or not, `portcullis events` shows what happened just before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Most bytes that wait for one reader. All readers that keep up with each other share the alerts, not copies of them.
const MAX_QUEUED_BYTES: usize = 2 << 20;
/// What an alert takes besides its text.
const OVERHEAD_BYTES: usize = 256;

/// An alert as it goes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    /// One line of JSON, without its end.
    pub(crate) line: String,
    /// Id and name of the container, for readers that want one container's only.
    pub(crate) container: Option<(String, String)>,
}

impl Alert {
    fn bytes(&self) -> usize {
        let container = self.container.as_ref().map_or(0, |(id, name)| id.len() + name.len());
        OVERHEAD_BYTES + self.line.len() + container
    }
}

/// What a reader gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// An alert.
    Alert(Arc<Alert>),
    /// So many alerts were dropped just before the next one, because this reader did not keep up, or nobody listened.
    Lost(u64),
}

/// A bounded queue: the newest that fit.
#[derive(Debug, Default)]
struct Queue {
    alerts: VecDeque<Arc<Alert>>,
    bytes: usize,
    lost: u64,
}

impl Queue {
    fn push(&mut self, alert: Arc<Alert>) {
        self.bytes += alert.bytes();
        self.alerts.push_back(alert);
        while self.bytes > MAX_QUEUED_BYTES && self.alerts.len() > 1 {
            if let Some(oldest) = self.alerts.pop_front() {
                self.bytes -= oldest.bytes();
                self.lost += 1;
            }
        }
    }

    fn pop(&mut self) -> Option<Next> {
        if self.lost > 0 {
            return Some(Next::Lost(std::mem::take(&mut self.lost)));
        }
        let alert = self.alerts.pop_front()?;
        self.bytes -= alert.bytes();
        Some(Next::Alert(alert))
    }
}

#[derive(Debug, Default)]
struct State {
    readers: HashMap<u64, (Queue, Arc<Notify>)>,
    next_id: u64,
    /// What nobody has got yet.
    waiting: Queue,
    counters: Counters,
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Alerts that came.
    pub(crate) alerts: u64,
    /// Readers now.
    pub(crate) readers: u64,
    /// Alerts that wait for a reader.
    pub(crate) waiting: u64,
}

/// Where alerts come in and go out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fanout {
    state: Arc<Mutex<State>>,
}

impl Fanout {
    /// Gives an alert to all who listen.
    pub(crate) fn publish(&self, alert: Alert) {
        let alert = Arc::new(alert);
        let mut state = self.lock();
        state.counters.alerts += 1;
        if state.readers.is_empty() {
            return state.waiting.push(alert);
        }
        for (queue, notify) in state.readers.values_mut() {
            queue.push(Arc::clone(&alert));
            notify.notify_one();
        }
    }

    /// Begins to listen, with what nobody has got yet.
    pub(crate) fn subscribe(&self) -> Subscription {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let notify = Arc::new(Notify::new());
        let queue = std::mem::take(&mut state.waiting);
        state.readers.insert(id, (queue, Arc::clone(&notify)));
        Subscription { fanout: self.clone(), id, notify }
    }

    /// What went through so far.
    pub(crate) fn counters(&self) -> Counters {
        let state = self.lock();
        Counters { readers: state.readers.len() as u64, waiting: state.waiting.alerts.len() as u64, ..state.counters }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's end.
#[derive(Debug)]
pub(crate) struct Subscription {
    fanout: Fanout,
    id: u64,
    notify: Arc<Notify>,
}

impl Subscription {
    /// Waits for what comes next. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let notified = self.notify.notified();
            if let Some(next) = self.try_next() {
                return next;
            }
            notified.await;
        }
    }

    /// What waits already.
    pub(crate) fn try_next(&self) -> Option<Next> {
        self.fanout.lock().readers.get_mut(&self.id)?.0.pop()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.fanout.lock();
        // The last one out leaves what it did not take to the next one in.
        if let Some((queue, _)) = state.readers.remove(&self.id)
            && state.readers.is_empty()
        {
            state.waiting = queue;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(number: usize) -> Alert {
        Alert { line: format!("{number:07}"), container: None }
    }

    fn numbers(reader: &Subscription) -> (Vec<usize>, u64) {
        let (mut numbers, mut lost) = (Vec::new(), 0);
        while let Some(next) = reader.try_next() {
            match next {
                Next::Alert(alert) => numbers.push(alert.line.parse().unwrap()),
                Next::Lost(count) => lost += count,
            }
        }
        (numbers, lost)
    }

    #[test]
    fn everybody_gets_everything_and_what_waited_goes_to_the_first() {
        let fanout = Fanout::default();
        fanout.publish(alert(0));
        assert_eq!(fanout.counters(), Counters { alerts: 1, readers: 0, waiting: 1 });
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
    }

    #[test]
    fn nobody_listening_is_bounded_too() {
        let fanout = Fanout::default();
        for number in 0..3 {
            fanout.publish(Alert { line: "x".repeat(MAX_QUEUED_BYTES) + &number.to_string(), container: None });
        }
        let reader = fanout.subscribe();
        assert_eq!(reader.try_next(), Some(Next::Lost(2)));
        assert!(matches!(reader.try_next(), Some(Next::Alert(alert)) if alert.line.ends_with('2')), "one always fits");
        assert_eq!(reader.try_next(), None);
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
        assert!(matches!(next, Next::Alert(alert) if alert.line == "0000007"));
    }
}
