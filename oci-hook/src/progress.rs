//! What the thread that works and the thread that watches the clock know of each other.
//!
//! The one thing they must agree on is whether the container may still be armed. Whoever moves [`Phase`] first decides: the
//! deadline forbids arming, or arming has begun and is waited for.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::args::FailPolicy;

const FINDING_OUT: u8 = 0;
const ARMING: u8 = 1;
const CANCELLED: u8 = 2;

/// Shared state of one run.
#[derive(Debug)]
pub(crate) struct Progress {
    commit: AtomicU8,
    /// The container, as soon as its state was read.
    pub(crate) id: OnceLock<String>,
    /// Its name, as soon as it is known.
    pub(crate) name: OnceLock<String>,
    /// The configuration's fail policy, as soon as it was read.
    pub(crate) fail_policy: OnceLock<FailPolicy>,
    /// What has to be said even if all goes well.
    pub(crate) warning: OnceLock<String>,
    phases: Mutex<Phases>,
}

#[derive(Debug)]
struct Phases {
    current: &'static str,
    since: Instant,
    done: Vec<(&'static str, u128)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Progress {
            commit: AtomicU8::new(FINDING_OUT),
            id: OnceLock::new(),
            name: OnceLock::new(),
            fail_policy: OnceLock::new(),
            warning: OnceLock::new(),
            phases: Mutex::new(Phases { current: "start", since: Instant::now(), done: Vec::new() }),
        }
    }

    /// Begins a phase and ends the one before.
    pub(crate) fn enter(&self, phase: &'static str) {
        let mut phases = self.phases();
        let ended = (phases.current, phases.since.elapsed().as_micros());
        phases.done.push(ended);
        phases.current = phase;
        phases.since = Instant::now();
    }

    /// What is being done.
    pub(crate) fn phase(&self) -> &'static str {
        self.phases().current
    }

    /// `start=12 reading-the-state=40 … total=1234`, in microseconds.
    pub(crate) fn timings(&self) -> String {
        self.enter("end");
        let phases = self.phases();
        let total: u128 = phases.done.iter().map(|(_, micros)| micros).sum();
        let parts = phases.done.iter().map(|(phase, micros)| format!("{}={micros} ", phase.replace(' ', "-")));
        format!("{}total={total}", parts.collect::<String>())
    }

    /// The worker is about to arm; false if the deadline came first.
    pub(crate) fn begin_arming(&self) -> bool {
        self.take(ARMING)
    }

    /// The deadline came; false if arming has begun.
    pub(crate) fn cancel(&self) -> bool {
        self.take(CANCELLED)
    }

    fn take(&self, to: u8) -> bool {
        self.commit.compare_exchange(FINDING_OUT, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn phases(&self) -> MutexGuard<'_, Phases> {
        // A panic between two stores of this lock leaves nothing that matters.
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
