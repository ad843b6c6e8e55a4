//! Alerts from the kernel, in order, with what was lost between them.

use crate::Error;
use crate::abi::{self, EVENT_ALERT, PATH_MAX};
use crate::pins::Place;
use crate::ring::{self, Reader, Record};

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
pub type Events = Reader<Event>;

impl Events {
    pub(crate) fn of(place: &Place) -> Result<Events, Error> {
        let only_reader = place.lock_reader("events.lock")?.ok_or(Error::EventsTaken)?;
        Reader::open(&place.map("pc_alerts"), "alerts", only_reader)
    }
}

impl Record for Event {
    fn decode(record: &[u8]) -> Option<Event> {
        let (header, path) = decode(record)?;
        Some(Event { header, path: path.to_vec(), lost_before: 0 })
    }

    fn number(&self) -> (u32, u64) {
        (self.header.cpu, self.header.seq)
    }

    fn set_lost_before(&mut self, lost: u64) {
        self.lost_before = lost;
    }
}

/// Header and path of a record: its lengths decide what is read here.
fn decode(record: &[u8]) -> Option<(abi::Event, &[u8])> {
    let (header, rest): (abi::Event, _) = ring::header(record)?;
    if header.kind != EVENT_ALERT || header.path_len >= PATH_MAX {
        return None;
    }
    Some((header, rest.get(..header.path_len as usize)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ledger;

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
            assert_eq!(ledger.take::<Event>(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(ledger.malformed, whole.len() as u64);
        assert_eq!(ledger.lost, 0);
        assert!(ledger.take::<Event>(&whole).is_some());
    }

    #[test]
    fn hostile_lengths_and_kinds_are_counted() {
        let mut ledger = Ledger::new(2);
        let path = vec![b'a'; PATH_MAX as usize];
        assert_eq!(ledger.take::<Event>(&record(0, 1, &path)), None, "longer than any path");
        for length in [u32::MAX, u32::MAX - 111, PATH_MAX, 12] {
            let header = abi::Event { kind: EVENT_ALERT, path_len: length, ..Default::default() };
            assert_eq!(ledger.take::<Event>(&[bytemuck::bytes_of(&header), b"/etc/shadow"].concat()), None, "{length}");
        }
        let header = abi::Event { kind: 7, ..Default::default() };
        assert_eq!(ledger.take::<Event>(bytemuck::bytes_of(&header)), None, "unknown kind");
        assert_eq!(ledger.take::<Event>(&record(2, 1, b"/")), None, "no such CPU");
        assert_eq!(ledger.take::<Event>(&[0xff; 8192]), None, "noise");
        assert_eq!(ledger.malformed, 8);
        assert!(ledger.is_untouched());
    }

    #[test]
    fn the_longest_path_is_delivered() {
        let path = vec![b'a'; PATH_MAX as usize - 1];
        assert_eq!(Ledger::new(1).take::<Event>(&record(0, 1, &path)).expect("whole").path, path);
    }

    #[test]
    fn gaps_are_losses_of_their_cpu() {
        let mut ledger = Ledger::new(2);
        let mut lost = |cpu, seq| ledger.take::<Event>(&record(cpu, seq, b"/")).expect("whole").lost_before;
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
            assert!(ledger.take::<Event>(&record(0, seq, b"/")).is_some());
        }
        assert_eq!(ledger.lost, 0);
        let end = ledger.take::<Event>(&record(0, u64::MAX, b"/")).expect("whole");
        assert_eq!(end.lost_before, u64::MAX - 5);
    }
}
