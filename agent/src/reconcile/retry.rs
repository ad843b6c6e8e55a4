//! What failed and is to be tried again, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis_nri_plugin::Running;

/// How long after a failure it is tried again.
const INTERVALS: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(60)];
/// How long after the policies could not be read they are read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Most containers that are tried again one by one; others wait for the next change of the policies.
const MAX_WAITING: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Again {
    reload: Option<Instant>,
    containers: BTreeMap<String, (Instant, Option<Running>)>,
}

/// What is to be tried now.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) reload: bool,
    pub(super) refresh: Vec<String>,
    pub(super) adopt: Vec<Running>,
}

impl Again {
    pub(super) fn reload_failed(&mut self, now: Instant) {
        self.reload = Some(now + RELOAD_INTERVAL);
    }

    pub(super) fn reload_succeeded(&mut self) {
        self.reload = None;
    }

    /// A container failed, for the so-manieth time. What a runtime told of it is kept: perhaps nothing is on record yet.
    pub(super) fn failed(&mut self, id: &str, running: Option<&Running>, attempts: u32, now: Instant) {
        let before = self.containers.remove(id).and_then(|(_, running)| running);
        if self.containers.len() >= MAX_WAITING {
            return;
        }
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(INTERVALS.len() - 1);
        self.containers.insert(id.to_owned(), (now + INTERVALS[index], running.cloned().or(before)));
    }

    pub(super) fn succeeded(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// When the next is to be tried.
    pub(super) fn due(&self) -> Option<Instant> {
        self.containers.values().map(|(at, _)| *at).chain(self.reload).min()
    }

    /// What is to be tried now. Whoever does so says what came of it; if nobody does, it is tried again all the same.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let mut due = Due { reload: self.reload.take_if(|at| *at <= now).is_some(), ..Due::default() };
        for (id, (at, running)) in &mut self.containers {
            match running {
                _ if *at > now => continue,
                Some(running) => due.adopt.push(running.clone()),
                None => due.refresh.push(id.clone()),
            }
            *at = now + INTERVALS[INTERVALS.len() - 1];
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_at_growing_intervals() {
        let now = Instant::now();
        let mut again = Again::default();
        assert_eq!(again.due(), None);
        for (attempts, wait) in [(1, 1), (2, 3), (3, 10), (9, 60)] {
            again.failed("c1", None, attempts, now);
            assert_eq!(again.due(), Some(now + Duration::from_secs(wait)));
        }
        assert!(again.take_due(now).refresh.is_empty());
        assert_eq!(again.take_due(now + Duration::from_secs(60)).refresh, ["c1"]);
        again.succeeded("c1");
        assert_eq!(again.due(), None);
    }

    #[test]
    fn what_a_runtime_told_is_kept_until_it_succeeds() {
        let now = Instant::now();
        let mut again = Again::default();
        let running = Running { pid: 7, ..Running::default() };
        again.failed("c1", Some(&running), 1, now);
        again.failed("c1", None, 2, now);
        let due = again.take_due(now + Duration::from_secs(3));
        assert_eq!((due.adopt.len(), due.adopt[0].pid, due.refresh.len()), (1, 7, 0));
    }
}
