//! What a subscriber lost because it did not keep up, told in the log and so to all who watch the agent's messages.

use std::time::{Duration, Instant};

use tracing::warn;

/// How often one subscriber's losses are told at most. One that is always behind loses something before everything it gets.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The account of one subscriber.
#[derive(Debug)]
pub(super) struct Losses {
    subscriber: u64,
    /// What it reads.
    what: &'static str,
    untold: u64,
    total: u64,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn new(subscriber: u64, what: &'static str) -> Losses {
        Losses { subscriber, what, untold: 0, total: 0, told_at: None }
    }

    pub(super) fn add(&mut self, lost: u64) {
        self.untold += lost;
        self.total += lost;
        self.tell_in_time();
    }

    /// Tells what is untold, unless something was told just before.
    pub(super) fn tell_in_time(&mut self) {
        if self.untold > 0 && self.told_at.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let Losses { subscriber, what, untold, total, .. } = self;
        warn!("subscriber {subscriber} lost {untold} {what} ({total} in all): it reads them more slowly than they come");
        self.untold = 0;
        self.told_at = Some(Instant::now());
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        if self.untold > 0 {
            self.tell();
        }
    }
}
