//! The wall clock at a moment of the boot clock, which the kernel's events carry.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

/// When this host was booted, by the wall clock as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Compares the clocks.
    #[must_use]
    pub fn now() -> Clock {
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(since_boot.tv_sec.unsigned_abs(), u32::try_from(since_boot.tv_nsec).unwrap_or(0));
        Clock { boot: SystemTime::now().checked_sub(since_boot).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    /// The time of an event.
    #[must_use]
    pub fn at(self, boot_ns: u64) -> SystemTime {
        self.boot.checked_add(Duration::from_nanos(boot_ns)).unwrap_or(self.boot)
    }
}

/// The time of an event, which is written as of RFC 3339 in UTC, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Timestamp {
    /// Since 1970; nothing of what was before.
    pub(crate) fn since_epoch(self) -> Duration {
        self.0.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros(self.0).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
