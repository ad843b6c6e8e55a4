//! When an event was, by its moment of the boot clock, which the kernel's events carry.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_ebpf::boottime_ns;
use serde::{Serialize, Serializer};

/// The longest id.
const ID_BYTES: usize = "k-bbbbbbbb-nnnnnnnnnnnnnnnn-cccccccc-ssssssssssssssss".len();

/// When this host was booted, by the wall clock as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Compares the clocks.
    #[must_use]
    pub fn now() -> Clock {
        let since_boot = Duration::from_nanos(boottime_ns());
        Clock { boot: SystemTime::now().checked_sub(since_boot).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    /// A time of the boot clock, in nanoseconds.
    #[must_use]
    pub fn at(self, boot_ns: u64) -> SystemTime {
        self.boot.checked_add(Duration::from_nanos(boot_ns)).unwrap_or(self.boot)
    }

    /// The moment of an event that was raised at one time of the boot clock and is told at another.
    #[must_use]
    pub fn moment(self, raised_ns: u64, told_ns: u64) -> Moment {
        Moment { time: self.at(raised_ns), raised_ns, latency: Duration::from_nanos(told_ns.saturating_sub(raised_ns)) }
    }
}

/// When an event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock.
    pub time: SystemTime,
    /// By the boot clock, in nanoseconds.
    pub raised_ns: u64,
    /// From then until it was given to its readers.
    pub latency: Duration,
}

/// As lines have it: what is beyond 584,000 years is that.
pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What an event is called, once and for ever: its kind, when this host was booted, when the event was raised, on which CPU, and as the
/// how-manieth of its kind there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventId {
    pub(crate) kind: u8,
    /// See [`crate::kubearmor::Host::boot`].
    pub(crate) boot: u32,
    pub(crate) raised_ns: u64,
    pub(crate) cpu: u32,
    pub(crate) sequence: u64,
}

impl EventId {
    /// `KIND-BOOT-NS-CPU-SEQUENCE`, the numbers in hexadecimal digits, and its length. Each event has one: written by `format!`, it would
    /// be a tenth of what an event costs.
    fn text(&self) -> ([u8; ID_BYTES], usize) {
        let (mut text, mut length) = ([b'-'; ID_BYTES], 0);
        let mut put = |part: &[u8]| {
            text[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        };
        put(&[self.kind]);
        for number in [self.boot.into(), self.raised_ns, self.cpu.into(), self.sequence] {
            let digits = number.checked_ilog2().map_or(1, |bits| bits / 4 + 1);
            put(b"-");
            for place in (0..digits).rev() {
                put(&[b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]]);
            }
        }
        (text, length)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (text, length) = self.text();
        // All of it is ASCII.
        serializer.serialize_str(std::str::from_utf8(&text[..length]).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_its_parts_in_hexadecimal_digits() {
        let id = |raised_ns, cpu, sequence| {
            serde_json::to_string(&EventId { kind: b'x', boot: 0xb007_b007, raised_ns, cpu, sequence })
        };
        assert_eq!(id(0, 0, 0).unwrap(), r#""x-b007b007-0-0-0""#);
        assert_eq!(id(0x10, 0xff, 0x1_0000).unwrap(), r#""x-b007b007-10-ff-10000""#);
        let longest = id(u64::MAX, u32::MAX, u64::MAX).unwrap();
        assert_eq!((longest.len() - 2, longest.ends_with("-ffffffff-ffffffffffffffff\"")), (ID_BYTES, true));
    }
}
