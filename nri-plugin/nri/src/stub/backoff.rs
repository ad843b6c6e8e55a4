//! How long to wait before the next attempt.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first wait: a runtime that restarts is back soon, and containers that start meanwhile go unseen.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Twice as long each time, and by chance up to half of that shorter, so that the plugins of a node do not all come at once.
#[derive(Debug)]
pub(super) struct Backoff {
    wait: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { wait: FIRST }
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST);
        // Each RandomState has keys of its own: chance enough for this.
        let chance = RandomState::new().build_hasher().finish() % 512;
        wait - wait / 1024 * u32::try_from(chance).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LONGEST && *wait >= FIRST / 2));
        assert!(waits[19] >= LONGEST / 2);
    }
}
