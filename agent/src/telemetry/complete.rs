//! Until when all is told: what a reader of several streams has to know to merge them by time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The moment until which everything that was raised has been given to readers, but for what the kernel's programs were still writing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Complete(Arc<AtomicU64>);

impl Complete {
    /// In nanoseconds of the boot clock.
    pub(crate) fn until_ns(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Everything until then is in the queues now. It never goes back.
    pub(crate) fn reach(&self, ns: u64) {
        self.0.fetch_max(ns, Ordering::Release);
    }
}
