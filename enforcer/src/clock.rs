//! The clocks that records and the kernel's tables are stamped with.

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_ebpf::boottime_ns;

pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn boottime_seconds() -> u32 {
    (boottime_ns() / 1_000_000_000).min(u64::from(u32::MAX)) as u32
}
