//! Keeps what is in force equal to what the policies say.
//!
//! One thread takes what has happened (policies changed, a container came, ran already, or left), does what follows from it, on
//! several threads where there are many containers, and tries again what failed. It sleeps when there is nothing to do. What is
//! in force stays in force while it works, waits or fails: it only ever replaces.

mod book;
mod leaving;
mod retry;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use portcullis_enforcer::{Known, Refreshed};
use portcullis_nri_plugin::{Failure, Running};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

pub(crate) use self::book::{Book, seconds_since_1970};
pub use self::book::{Outcome, Trouble};
use self::leaving::Leaving;
use self::retry::Again;
use crate::Error;
use crate::node::Node;

/// How often containers are looked for that left without anybody telling.
const SWEEP_PERIOD: Duration = Duration::from_secs(300);
/// How long after policies were read a container may turn up that was armed by the older ones: the hook reads them at its start
/// and has a deadline of 8 seconds, and something to spare.
const LATE_COMERS: Duration = Duration::from_secs(15);
/// How long after much was read or adopted the memory that it took is given back: a runtime's account is held until it is answered.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(2);
/// Most threads that refresh containers at once.
const MAX_WORKERS: usize = 4;
/// Fewer containers than this are not worth a thread.
const MIN_PER_WORKER: usize = 4;

/// Something that has happened.
pub(crate) enum Task {
    /// Policies may have changed; who wants to know what came of it.
    Reload(Option<oneshot::Sender<Result<Outcome, String>>>),
    /// Doors have recorded these containers.
    Recorded(BTreeSet<String>),
    /// A runtime says that these run.
    Adopt(Vec<Running>),
    /// A container is being stopped or removed.
    Leave(String),
    /// These were announced, and a runtime that has told all that it has does not know them.
    NeverCame(Vec<String>),
}

/// Sends tasks to the reconciler.
#[derive(Clone)]
pub(crate) struct Inbox(Sender<Task>);

impl Inbox {
    /// Never blocks. When the reconciler is gone the process is about to be.
    pub(crate) fn send(&self, task: Task) {
        drop(self.0.send(task));
    }
}

/// What is to be done next, merged from all tasks that wait.
#[derive(Default)]
struct Work {
    reload: bool,
    askers: Vec<oneshot::Sender<Result<Outcome, String>>>,
    recorded: BTreeSet<String>,
    adopt: BTreeMap<String, Running>,
}

struct Reconciler<N> {
    node: Arc<N>,
    inbox: Receiver<Task>,
    book: Book,
    leaving: Leaving,
    again: Again,
    read_at: Instant,
    swept_at: Instant,
    /// When to give memory back that is free.
    give_back_at: Option<Instant>,
}

/// Reads the policies, brings every known container to them, and starts the thread that keeps it so. It ends when every
/// [`Inbox`] is gone.
pub(crate) fn start<N: Node>(node: Arc<N>) -> Result<(Inbox, Book), Error> {
    let (send, inbox) = channel();
    let book = Book::default();
    let mut reconciler = Reconciler {
        node,
        inbox,
        book: book.clone(),
        leaving: Leaving::default(),
        again: Again::default(),
        read_at: Instant::now(),
        swept_at: Instant::now(),
        give_back_at: None,
    };
    reconciler.sweep();
    reconciler.do_work(Work { reload: true, ..Work::default() });
    let failed = |source| Error::Thread { name: "reconcile", source };
    std::thread::Builder::new().name("reconcile".to_owned()).spawn(move || reconciler.run()).map_err(failed)?;
    Ok((Inbox(send), book))
}

impl<N: Node> Reconciler<N> {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = [self.again.due(), self.leaving.due(), Some(self.swept_at + SWEEP_PERIOD), self.give_back_at];
            let patience = due.into_iter().flatten().map(|due| due.saturating_duration_since(now)).min().unwrap_or(SWEEP_PERIOD);
            let first = match self.inbox.recv_timeout(patience) {
                Ok(task) => Some(task),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let work = self.merge(first);
            self.do_work(work);
            self.leave();
            if self.swept_at.elapsed() >= SWEEP_PERIOD {
                self.sweep();
            }
            if self.give_back_at.is_some_and(|at| at <= Instant::now()) {
                self.give_back_at = None;
                crate::memory::give_back();
            }
        }
    }

    /// All tasks that wait, as one piece of work, and what is due again.
    fn merge(&mut self, first: Option<Task>) -> Work {
        let mut work = Work::default();
        let waiting = std::iter::from_fn(|| self.inbox.try_recv().ok());
        for task in first.into_iter().chain(waiting) {
            match task {
                Task::Reload(asker) => {
                    work.reload = true;
                    work.askers.extend(asker);
                }
                // Later ones were armed by policies at least as new as ours.
                Task::Recorded(ids) if self.read_at.elapsed() < LATE_COMERS => work.recorded.extend(ids),
                Task::Recorded(_) => {}
                Task::Adopt(running) => {
                    work.adopt.extend(running.into_iter().map(|running| (running.facts.id.clone(), running)));
                }
                Task::Leave(id) => self.leaving.add(id, Instant::now()),
                Task::NeverCame(ids) => {
                    let now = Instant::now();
                    ids.into_iter().for_each(|id| self.leaving.add_never_came(id, now));
                }
            }
        }
        let due = self.again.take_due(Instant::now());
        work.reload |= due.reload;
        work.recorded.extend(due.refresh);
        for running in due.adopt {
            work.adopt.entry(running.facts.id.clone()).or_insert(running);
        }
        work
    }

    fn do_work(&mut self, work: Work) {
        if work.reload || !work.adopt.is_empty() {
            self.give_back_at = Some(Instant::now() + GIVE_BACK_AFTER);
        }
        if work.reload {
            let outcome = self.reload();
            for asker in work.askers {
                drop(asker.send(outcome.clone()));
            }
        } else if !work.recorded.is_empty() {
            self.refresh(&Vec::from_iter(work.recorded));
        }
        if !work.adopt.is_empty() {
            self.adopt(&Vec::from_iter(work.adopt.into_values()));
        }
    }

    /// Reads the policies and brings every known container to them.
    fn reload(&mut self) -> Result<Outcome, String> {
        let started = Instant::now();
        self.read_at = started;
        let policies = match self.node.reload() {
            Ok(policies) => policies,
            Err(error) => {
                let error = error.to_string();
                warn!("the policies cannot be read, those that were read before stay in force: {error}");
                self.book.policies_unreadable(&error);
                self.again.reload_failed(Instant::now());
                return Err(error);
            }
        };
        self.again.reload_succeeded();
        let generation = self.book.policies_read(policies.policies.len(), policies.problems.len());
        for problem in &policies.problems {
            warn!("{}", problem.message);
        }
        let known = match self.node.known() {
            Ok(known) => known,
            Err(error) => {
                let error = error.to_string();
                warn!("the known containers cannot be listed: {error}");
                self.book.policies_unreadable(&error);
                self.again.reload_failed(Instant::now());
                return Err(error);
            }
        };
        // Whom nobody knows any more has nothing to try again.
        let ids: Vec<String> = known.into_iter().map(|Known { facts, .. }| facts.id).collect();
        let mut outcome = self.refresh(&ids);
        outcome.generation = generation;
        outcome.policies = policies.policies.len();
        outcome.problems = policies.problems.len();
        outcome.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(
            generation,
            policies = outcome.policies,
            problems = outcome.problems,
            containers = outcome.containers,
            changed = outcome.changed,
            failed = outcome.failed,
            milliseconds = outcome.milliseconds,
            "policies read"
        );
        Ok(outcome)
    }

    fn refresh(&mut self, ids: &[String]) -> Outcome {
        let node = &self.node;
        let results = each(ids, |id| node.refresh(id));
        self.note(ids.iter().map(|id| (id.as_str(), None)).zip(results))
    }

    fn adopt(&mut self, running: &[Running]) {
        let started = Instant::now();
        let node = &self.node;
        let results = each(running, |running| node.adopt(&running.facts, running.pid));
        let whom = running.iter().map(|running| (running.facts.id.as_str(), Some(running)));
        let outcome = self.note(whom.zip(results));
        info!(
            containers = outcome.containers,
            changed = outcome.changed,
            failed = outcome.failed,
            milliseconds = started.elapsed().as_millis(),
            "running containers brought under their policies"
        );
    }

    /// Keeps account of what came of each container.
    fn note<'a>(
        &mut self,
        results: impl Iterator<Item = ((&'a str, Option<&'a Running>), Result<Refreshed, Failure>)>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        for ((id, running), result) in results {
            outcome.containers += 1;
            match result {
                Ok(refreshed) => {
                    debug!(id, ?refreshed);
                    outcome.changed +=
                        usize::from(matches!(refreshed, Refreshed::Switched | Refreshed::Adopted | Refreshed::Withdrawn));
                    if refreshed == Refreshed::Gone {
                        self.leaving.add(id.to_owned(), Instant::now());
                    }
                    self.book.well(id);
                    self.again.succeeded(id);
                }
                Err(error) => {
                    outcome.failed += 1;
                    let name = running.map_or("", |running| running.facts.name.as_str());
                    let error = error.to_string();
                    let attempts = self.book.failed(id, name, &error);
                    // One that is just being started may not be what it is going to be: the next attempt, a second later, tells.
                    if attempts == 1 {
                        info!(id, "the container's policies are not up to date yet, which is tried again: {error}");
                    } else {
                        warn!(id, attempts, "the container's policies could not be brought up to date: {error}");
                    }
                    self.again.failed(id, running, attempts, Instant::now());
                }
            }
        }
        outcome
    }

    /// Looks at the containers that are leaving.
    fn leave(&mut self) {
        for id in self.leaving.take_due(Instant::now()) {
            match self.node.gone(&id) {
                Ok(true) => self.forget(&id),
                Ok(false) => self.leaving.stays(&id, Instant::now()),
                Err(error) => {
                    warn!(id, "the container has left and cannot be taken out of force yet: {error}");
                    self.leaving.stays(&id, Instant::now());
                }
            }
        }
        self.book.leaving(self.leaving.len());
    }

    fn sweep(&mut self) {
        self.swept_at = Instant::now();
        match self.node.sweep() {
            Ok(ids) => ids.iter().for_each(|id| self.forget(id)),
            Err(error) => warn!("containers that have left cannot be looked for: {error}"),
        }
    }

    fn forget(&mut self, id: &str) {
        debug!(id, "gone");
        self.leaving.gone(id);
        self.again.succeeded(id);
        self.book.well(id);
    }
}

/// Does the same for each, on several threads where there are many; the results are in the same order.
fn each<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cpus.min(MAX_WORKERS).min(items.len() / MIN_PER_WORKER);
    if workers < 2 {
        return items.iter().map(act).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, act(item)));
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
