//! The wall clock at a moment of the boot clock, which the kernel's events carry.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

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
