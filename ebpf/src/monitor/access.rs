//! Accesses, decoded.

use super::abi::{self, ADDRESS_MAX, PATH_MAX};
use super::address::Address;
use crate::Error;
use crate::abi::op;
use crate::pins::Place;
use crate::ring::{self, Reader, Record};

/// Something that a process asked of the kernel, and what the security modules answered.
///
/// All of it was read by the kernel program from the kernel's own memory, when it was decided. Texts are bytes of the process's
/// choice: not UTF-8, and not to be shown on a terminal as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEvent {
    /// Who, what, when, and the answer.
    pub header: abi::Access,
    /// The path from the process's root directory, of operations on files.
    pub path: Vec<u8>,
    /// The new path of a rename or link; of a symbolic link, what it leads to, as written.
    pub second: Vec<u8>,
    /// The address of operations on sockets as a `struct sockaddr`, see [`AccessEvent::address`].
    pub address: Vec<u8>,
    /// Accesses of the same CPU that were to be told just before this one and not delivered.
    pub lost_before: u64,
}

impl AccessEvent {
    /// The address of an operation on sockets, where there is one.
    #[must_use]
    pub fn address(&self) -> Option<Address<'_>> {
        Address::parse(&self.address)
    }
}

/// The one reader of accesses.
pub type AccessEvents = Reader<AccessEvent>;

impl AccessEvents {
    /// `place` is the monitor's.
    pub(super) fn of(place: &Place) -> Result<AccessEvents, Error> {
        let only_reader = place.lock_reader("access-events.lock")?.ok_or(Error::AccessEventsTaken)?;
        Reader::open(&place.map("pc_mon_access"), "events of accesses", only_reader)
    }
}

/// Whether the operation has this: a path, a second one, an address.
fn texts(number: u32) -> Option<[bool; 3]> {
    Some(match number {
        op::RENAME | op::LINK | op::SYMLINK => [true, true, false],
        op::READ..=op::TRUNCATE => [true, false, false],
        op::CONNECT..=op::SEND => [false, false, true],
        op::SOCKET | op::CAPABLE => [false; 3],
        _ => return None,
    })
}

impl Record for AccessEvent {
    fn decode(record: &[u8]) -> Option<AccessEvent> {
        let (header, rest): (abi::Access, _) = ring::header(record)?;
        let [path, second, address] = texts(header.op)?;
        let fits = |there: bool, len: u32, most: u32| if there { len <= most } else { len == 0 };
        let plausible = fits(path, header.path_len, PATH_MAX - 1)
            && fits(second, header.second_len, PATH_MAX - 1)
            && fits(address, header.address_len, ADDRESS_MAX);
        if !plausible {
            return None;
        }
        let [path, second, address] = ring::texts(rest, [header.path_len, header.second_len, header.address_len])?;
        Some(AccessEvent { header, path, second, address, lost_before: 0 })
    }

    fn number(&self) -> (u32, u64) {
        (self.header.cpu, self.header.seq)
    }

    fn set_lost_before(&mut self, lost: u64) {
        self.lost_before = lost;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::Ledger;

    fn record(op: u32, texts: [&[u8]; 3]) -> Vec<u8> {
        let length = |text: &[u8]| u32::try_from(text.len()).expect("a short text");
        let [path_len, second_len, address_len] = texts.map(length);
        let header = abi::Access { op, cpu: 1, seq: 9, path_len, second_len, address_len, ..Default::default() };
        [bytemuck::bytes_of(&header), texts[0], texts[1], texts[2]].concat()
    }

    #[test]
    fn a_record_is_its_header_and_texts() {
        let mut bytes = record(op::RENAME, [b"/a", b"/b/\xff", b""]);
        bytes.extend([0xaa; 5]);
        let event = AccessEvent::decode(&bytes).expect("a whole record");
        assert_eq!((&event.path[..], &event.second[..], event.address()), (&b"/a"[..], &b"/b/\xff"[..], None));
        assert_eq!(event.number(), (1, 9));
        let event = AccessEvent::decode(&record(op::CONNECT, [b"", b"", b"\x02\x00\x00\x50\x7f\x00\x00\x01"])).expect("whole");
        assert_eq!(event.address(), Some(Address::Inet("127.0.0.1:80".parse().expect("an address"))));
    }

    #[test]
    fn truncated_and_hostile_records_are_counted() {
        let whole = record(op::LINK, [b"/bin/true", b"/tmp/x", b""]);
        let mut ledger = Ledger::new(2);
        for end in 0..whole.len() {
            assert_eq!(ledger.take::<AccessEvent>(&whole[..end]), None, "{end} bytes");
        }
        let mut refused = |change: fn(&mut abi::Access), what: &str| {
            let mut header: abi::Access = bytemuck::pod_read_unaligned(&whole[..size_of::<abi::Access>()]);
            change(&mut header);
            let bytes = [bytemuck::bytes_of(&header), &[b'a'; 20_000]].concat();
            assert_eq!(ledger.take::<AccessEvent>(&bytes), None, "{what}");
        };
        refused(|header| header.path_len = PATH_MAX, "longer than any path");
        refused(|header| header.second_len = u32::MAX, "wraps around");
        refused(|header| header.address_len = 2, "a link has no address");
        refused(|header| header.op = op::READ, "a file has one path");
        refused(|header| header.op = op::CAPABLE, "a capability has no text");
        refused(|header| header.op = op::SOCKET, "a new socket has no text");
        refused(|header| (header.op, header.path_len, header.second_len, header.address_len) = (op::BIND, 0, 0, 129), "long");
        refused(|header| header.op = 0, "no operation");
        refused(|header| header.op = op::EXEC, "told elsewhere");
        refused(|header| header.cpu = 2, "no such CPU");
        assert_eq!(ledger.malformed, whole.len() as u64 + 10);
        assert!(ledger.is_untouched());
        assert!(ledger.take::<AccessEvent>(&whole).is_some());
    }

    #[test]
    fn the_longest_texts_are_delivered() {
        let path = vec![b'p'; PATH_MAX as usize - 1];
        let event = AccessEvent::decode(&record(op::RENAME, [&path, &path, b""])).expect("whole");
        assert_eq!((event.path, event.second), (path.clone(), path));
        let address = [7; ADDRESS_MAX as usize];
        assert_eq!(AccessEvent::decode(&record(op::SEND, [b"", b"", &address])).expect("whole").address, address);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_event_that_lies_inside_them_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            number in 0u32..70,
            lengths in proptest::array::uniform3(prop_oneof![Just(0u32), 0u32..150, any::<u32>()]),
        ) {
            let mut bytes = bytes;
            if let Some(header) = bytes.get_mut(..size_of::<abi::Access>()) {
                let mut parsed: abi::Access = bytemuck::pod_read_unaligned(header);
                parsed.op = number;
                [parsed.path_len, parsed.second_len, parsed.address_len] = lengths;
                header.copy_from_slice(bytemuck::bytes_of(&parsed));
            }
            if let Some(event) = AccessEvent::decode(&bytes) {
                let _ = event.address();
                let text = [event.path, event.second, event.address].concat();
                let start = size_of::<abi::Access>();
                prop_assert_eq!(&bytes[start..start + text.len()], &text[..]);
                prop_assert!(texts(event.header.op).is_some());
            } else if bytes.len() >= size_of::<abi::Access>() && texts(number).is_some() {
                prop_assert!(lengths.iter().map(|l| u64::from(*l)).sum::<u64>() > 0, "only its lengths can be wrong");
            }
        }
    }
}
