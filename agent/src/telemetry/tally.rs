//! How many accesses were told, by class and verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::VerdictCounts;
use crate::logs::Log;

/// The counters.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Inner>);

#[derive(Default)]
struct Inner {
    told: [Verdicts; CLASSES.len()],
    withheld: AtomicU64,
}

/// Passed, and denied.
#[derive(Default)]
struct Verdicts([AtomicU64; 2]);

const CLASSES: [&str; 3] = ["file", "network", "capability"];

impl Tally {
    /// Counts an access. One of no class cannot come: its record would not have been understood.
    pub(super) fn count(&self, log: &Log) {
        let class = log.class();
        let at = CLASSES.iter().position(|other| *other == class);
        if let (Some(at), Some(is_denied)) = (at, log.is_denied()) {
            self.0.told[at].0[usize::from(is_denied)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted, of files, networks and capabilities.
    pub(crate) fn counts(&self) -> [VerdictCounts; 3] {
        [0, 1, 2].map(|at: usize| {
            let [passed, denied] = self.0.told[at].0.each_ref().map(|count| count.load(Ordering::Relaxed));
            VerdictCounts { passed, denied }
        })
    }

    /// Counts an access of a container that does not want it told. The kernel tells it between a container's first step and its record,
    /// and where it has no room for what the container wants.
    pub(super) fn withhold(&self) {
        self.0.withheld.fetch_add(1, Ordering::Relaxed);
    }

    /// How many those were.
    pub(crate) fn withheld(&self) -> u64 {
        self.0.withheld.load(Ordering::Relaxed)
    }
}
