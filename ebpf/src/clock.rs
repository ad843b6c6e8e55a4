//! The clock of the kernel's events and tables.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` as it is now, in nanoseconds.
#[must_use]
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
