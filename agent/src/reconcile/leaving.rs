//! Containers that are being stopped, until their last task has ended.
//!
//! A runtime tells of a stop before the first signal, and the grace period may be minutes. The policy stays until nothing of the
//! container is left, so that is asked again and again, at growing intervals; when nobody is leaving, never.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long after it was told a container is first looked at, and then after each look that found it.
const INTERVALS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// How long after a runtime was found not to know a container that was announced it is looked at.
const NEVER_CAME: Duration = Duration::from_secs(60);
/// Longest that one is followed; the sweep finds it afterwards.
const MAX_LOOKS: usize = 40;
/// Most that are followed at once; the sweep finds the others.
const MAX_LEAVING: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Leaving {
    containers: BTreeMap<String, Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    looks: usize,
}

impl Leaving {
    /// A container was stopped or removed. Said again, it is looked at soon again.
    pub(super) fn add(&mut self, id: String, now: Instant) {
        self.look_at(id, now + INTERVALS[0]);
    }

    /// A container was announced, and its runtime does not know it. It may be about to: a creation that was under way when the
    /// connection broke is not listed yet.
    pub(super) fn add_never_came(&mut self, id: String, now: Instant) {
        self.look_at(id, now + NEVER_CAME);
    }

    fn look_at(&mut self, id: String, at: Instant) {
        if self.containers.len() < MAX_LEAVING || self.containers.contains_key(&id) {
            self.containers.insert(id, Look { at, looks: 0 });
        }
    }

    /// When the next one is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.containers.values().map(|look| look.at).min()
    }

    /// Those that are to be looked at now.
    pub(super) fn take_due(&self, now: Instant) -> Vec<String> {
        self.containers.iter().filter(|(_, look)| look.at <= now).map(|(id, _)| id.clone()).collect()
    }

    /// It was looked at, and some of it is left.
    pub(super) fn stays(&mut self, id: &str, now: Instant) {
        let Some(look) = self.containers.get_mut(id) else { return };
        look.looks += 1;
        look.at = now + INTERVALS[look.looks.min(INTERVALS.len() - 1)];
        if look.looks >= MAX_LOOKS {
            self.containers.remove(id);
        }
    }

    /// Nothing of it is left.
    pub(super) fn gone(&mut self, id: &str) {
        self.containers.remove(id);
    }

    pub(super) fn len(&self) -> usize {
        self.containers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rare_and_end() {
        let mut leaving = Leaving::default();
        assert_eq!(leaving.due(), None);
        let mut now = Instant::now();
        leaving.add("c1".to_owned(), now);
        let mut waits = Vec::new();
        while let Some(due) = leaving.due() {
            assert!(leaving.take_due(due - Duration::from_millis(1)).is_empty());
            waits.push(due - now);
            now = due;
            assert_eq!(leaving.take_due(now), ["c1"]);
            leaving.stays("c1", now);
        }
        assert_eq!(waits[..3], INTERVALS[..3]);
        assert_eq!((waits.len(), waits.last()), (MAX_LOOKS, INTERVALS.last()));
    }

    #[test]
    fn a_second_word_has_it_looked_at_soon() {
        let mut leaving = Leaving::default();
        let now = Instant::now();
        leaving.add("c1".to_owned(), now);
        for _ in 0..5 {
            leaving.stays("c1", now);
        }
        leaving.add("c1".to_owned(), now);
        assert_eq!((leaving.len(), leaving.due()), (1, Some(now + INTERVALS[0])));
        leaving.gone("c1");
        assert_eq!(leaving.due(), None);
    }
}
