//! Alerts from the kernel, in order, with what was lost between them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::abi::{self, EVENT_ALERT, PATH_MAX};
use crate::pins::Place;
use crate::{Error, sys};

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who, what, by which rule.
    pub header: abi::Event,
    /// The path, where there is one; its beginning is cut off if [`abi::Event::path_cut`] says so.
    pub path: Vec<u8>,
    /// Alerts of the same CPU that were raised just before this one and not delivered.
    pub lost_before: u64,
}

/// The one reader of the alerts.
pub struct Events {
    ring: RingBuf<MapData>,
    ledger: Ledger,
    _only_reader: File,
}

impl Events {
    pub(crate) fn open(place: &Place) -> Result<Events, Error> {
        let only_reader = place.lock_events()?;
        let pin = place.map("pc_alerts");
        let bad = |error: aya::maps::MapError| Error::Object(format!("pc_alerts can't be read: {error}"));
        let map = Map::from_map_data(MapData::from_pin(&pin).map_err(bad)?).map_err(bad)?;
        let ring = RingBuf::try_from(map).map_err(bad)?;
        let cpus = sys::possible_cpus().map_err(|error| Error::file("/sys/devices/system/cpu/possible", error))?;
        Ok(Events { ring, ledger: Ledger::new(cpus), _only_reader: only_reader })
    }

    /// The next alert, or nothing if none came within the timeout.
    ///
    /// # Errors
    /// Only if waiting itself fails. Records that can't be understood are counted and passed over.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            while let Some(record) = self.ring.next() {
                if let Some(event) = self.ledger.take(&record) {
                    return Ok(Some(event));
                }
            }
            let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            // A timeout that does not fit is no timeout.
            let timeout = Timespec::try_from(left).ok();
            let mut wait = [PollFd::from_borrowed_fd(self.ring.as_fd(), PollFlags::IN)];
            match poll(&mut wait, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::system("waiting for alerts", error)),
            }
        }
    }

    /// Alerts that were raised since the first one delivered here, and that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ledger.lost
    }

    /// Records that could not be understood. Anything but 0 is a defect.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.ledger.malformed
    }
}

/// Decodes records and keeps count of those that are missing.
struct Ledger {
    cpus: usize,
    /// By CPU: the highest sequence number seen.
    last: HashMap<u32, u64>,
    lost: u64,
    malformed: u64,
}

impl Ledger {
    fn new(cpus: usize) -> Ledger {
        Ledger { cpus, last: HashMap::new(), lost: 0, malformed: 0 }
    }

    fn take(&mut self, record: &[u8]) -> Option<Event> {
        match decode(record).filter(|(header, _)| (header.cpu as usize) < self.cpus) {
            Some((header, path)) => {
                let lost_before = self.count(&header);
                Some(Event { header, path: path.to_vec(), lost_before })
            }
            None => {
                self.malformed += 1;
                None
            }
        }
    }

    /// A decision can be interrupted by another one's on the same CPU between taking a number and delivering, so numbers may
    /// come in another order: a late one was counted as lost before and is not.
    fn count(&mut self, header: &abi::Event) -> u64 {
        let Some(last) = self.last.get_mut(&header.cpu) else {
            self.last.insert(header.cpu, header.seq);
            return 0;
        };
        if header.seq > *last {
            let missing = header.seq - *last - 1;
            *last = header.seq;
            self.lost = self.lost.saturating_add(missing);
            missing
        } else {
            self.lost = self.lost.saturating_sub(1);
            0
        }
    }
}

/// Header and path of a record. The ring rounds records up to 8 bytes, so there may be more bytes than the path needs; never
/// fewer. Nothing in the record is taken for granted: its lengths decide what is read here.
fn decode(record: &[u8]) -> Option<(abi::Event, &[u8])> {
    let (header, rest) = record.split_at_checked(size_of::<abi::Event>())?;
    let header: abi::Event = bytemuck::pod_read_unaligned(header);
    if header.kind != EVENT_ALERT || header.path_len >= PATH_MAX {
        return None;
    }
    Some((header, rest.get(..header.path_len as usize)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cpu: u32, seq: u64, path: &[u8]) -> Vec<u8> {
        let path_len = u32::try_from(path.len()).expect("a short path");
        let header = abi::Event { kind: EVENT_ALERT, cpu, seq, path_len, ..Default::default() };
        [bytemuck::bytes_of(&header), path].concat()
    }

    #[test]
    fn a_record_is_its_header_and_path() {
        let mut bytes = record(1, 9, b"/etc/shadow");
        bytes.extend([0xaa; 5]);
        let (header, path) = decode(&bytes).expect("a whole record");
        assert_eq!((header.cpu, header.seq, path), (1, 9, &b"/etc/shadow"[..]));
        assert_eq!(decode(&record(0, 1, b"")).expect("no path").1, b"");
    }

    #[test]
    fn a_truncated_record_is_counted() {
        let whole = record(0, 1, b"/etc/shadow");
        let mut ledger = Ledger::new(2);
        for end in 0..whole.len() {
            assert_eq!(ledger.take(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(ledger.malformed, whole.len() as u64);
        assert_eq!(ledger.lost, 0);
        assert!(ledger.take(&whole).is_some());
    }

    #[test]
    fn hostile_lengths_and_kinds_are_counted() {
        let mut ledger = Ledger::new(2);
        let path = vec![b'a'; PATH_MAX as usize];
        assert_eq!(ledger.take(&record(0, 1, &path)), None, "longer than any path");
        for length in [u32::MAX, u32::MAX - 111, PATH_MAX, 12] {
            let header = abi::Event { kind: EVENT_ALERT, path_len: length, ..Default::default() };
            assert_eq!(ledger.take(&[bytemuck::bytes_of(&header), b"/etc/shadow"].concat()), None, "{length}");
        }
        let header = abi::Event { kind: 7, ..Default::default() };
        assert_eq!(ledger.take(bytemuck::bytes_of(&header)), None, "unknown kind");
        assert_eq!(ledger.take(&record(2, 1, b"/")), None, "no such CPU");
        assert_eq!(ledger.take(&[0xff; 8192]), None, "noise");
        assert_eq!(ledger.malformed, 8);
        assert!(ledger.last.is_empty());
    }

    #[test]
    fn the_longest_path_is_delivered() {
        let path = vec![b'a'; PATH_MAX as usize - 1];
        assert_eq!(Ledger::new(1).take(&record(0, 1, &path)).expect("whole").path, path);
    }

    #[test]
    fn gaps_are_losses_of_their_cpu() {
        let mut ledger = Ledger::new(2);
        let mut lost = |cpu, seq| ledger.take(&record(cpu, seq, b"/")).expect("whole").lost_before;
        assert_eq!(lost(0, 40), 0, "the first sets the start");
        assert_eq!(lost(0, 41), 0);
        assert_eq!(lost(1, 7), 0);
        assert_eq!(lost(0, 45), 3);
        assert_eq!(lost(1, 8), 0);
        assert_eq!(ledger.lost, 3);
    }

    #[test]
    fn a_late_number_was_not_lost() {
        let mut ledger = Ledger::new(1);
        for seq in [1, 3, 2, 4] {
            assert!(ledger.take(&record(0, seq, b"/")).is_some());
        }
        assert_eq!(ledger.lost, 0);
        let end = ledger.take(&record(0, u64::MAX, b"/")).expect("whole");
        assert_eq!(end.lost_before, u64::MAX - 5);
    }
}
