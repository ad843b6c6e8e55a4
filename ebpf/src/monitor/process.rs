//! Events of processes, decoded.

use super::abi::{self, ARGS_MAX, EXEC, EXIT, FORK, PATH_MAX};
use crate::Error;
use crate::pins::Place;
use crate::ring::{self, Reader, Record};

/// Something that a process did. The texts are empty but for [`abi::EXEC`].
///
/// All of it was read by the kernel program, when it happened. Texts are bytes of the process's choice: not UTF-8, and not to be
/// shown on a terminal as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// Who, what, when.
    pub header: abi::Process,
    /// Path of the executable from the process's root directory, see [`abi::Process::exe_flags`]. Of a script, its interpreter's.
    pub exe: Vec<u8>,
    /// Path of the working directory.
    pub cwd: Vec<u8>,
    /// The arguments as they lie in the new program's memory, see [`ProcessEvent::arguments`].
    pub args: Vec<u8>,
    /// Events of the same CPU that were raised just before this one and not delivered.
    pub lost_before: u64,
}

impl ProcessEvent {
    /// The arguments one by one; the last may be cut short, see [`abi::ARGS_CUT`].
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        arguments(&self.args)
    }
}

/// Takes an argument vector apart: each argument is ended by a zero byte, and one may be empty.
fn arguments(args: &[u8]) -> impl Iterator<Item = &[u8]> {
    args.split_inclusive(|byte| *byte == 0).map(|argument| argument.strip_suffix(&[0]).unwrap_or(argument))
}

/// The one reader of the events of processes.
pub type ProcessEvents = Reader<ProcessEvent>;

impl ProcessEvents {
    /// `place` is the monitor's.
    pub(super) fn of(place: &Place) -> Result<ProcessEvents, Error> {
        let only_reader = place.lock_reader("process-events.lock")?.ok_or(Error::ProcessEventsTaken)?;
        Reader::open(&place.map("pc_mon_process"), "events of processes", only_reader)
    }
}

impl Record for ProcessEvent {
    fn decode(record: &[u8]) -> Option<ProcessEvent> {
        let (header, rest): (abi::Process, _) = ring::header(record)?;
        let lengths = [header.exe_len, header.cwd_len, header.args_len];
        let plausible = match header.kind {
            EXEC => header.exe_len < PATH_MAX && header.cwd_len < PATH_MAX && header.args_len <= ARGS_MAX,
            FORK | EXIT => lengths == [0; 3],
            _ => false,
        };
        if !plausible {
            return None;
        }
        let [exe, cwd, args] = ring::texts(rest, lengths)?;
        Some(ProcessEvent { header, exe, cwd, args, lost_before: 0 })
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

    fn record(cpu: u32, seq: u64, texts: [&[u8]; 3]) -> Vec<u8> {
        let length = |text: &[u8]| u32::try_from(text.len()).expect("a short text");
        let [exe_len, cwd_len, args_len] = texts.map(length);
        let header = abi::Process { kind: EXEC, cpu, seq, exe_len, cwd_len, args_len, ..Default::default() };
        [bytemuck::bytes_of(&header), texts[0], texts[1], texts[2]].concat()
    }

    #[test]
    fn a_record_is_its_header_and_texts() {
        let mut bytes = record(1, 9, [b"/bin/sh", b"/", b"sh\0-c\0\0\xff\0"]);
        bytes.extend([0xaa; 5]);
        let event = ProcessEvent::decode(&bytes).expect("a whole record");
        assert_eq!((&event.exe[..], &event.cwd[..]), (&b"/bin/sh"[..], &b"/"[..]));
        assert_eq!(event.arguments().collect::<Vec<_>>(), [&b"sh"[..], b"-c", b"", b"\xff"]);
        assert_eq!(ProcessEvent::decode(&record(0, 1, [b""; 3])).expect("no text").arguments().count(), 0);
    }

    #[test]
    fn arguments_that_are_cut_keep_their_beginning() {
        assert_eq!(arguments(b"a\0bc").collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
        assert_eq!(arguments(b"\0").collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn truncated_and_hostile_records_are_counted() {
        let whole = record(0, 1, [b"/bin/true", b"/tmp", b"true\0"]);
        let mut ledger = Ledger::new(2);
        for end in 0..whole.len() {
            assert_eq!(ledger.take::<ProcessEvent>(&whole[..end]), None, "{end} bytes");
        }
        let mut refused = |change: fn(&mut abi::Process), what: &str| {
            let mut header: abi::Process = bytemuck::pod_read_unaligned(&whole[..size_of::<abi::Process>()]);
            change(&mut header);
            let bytes = [bytemuck::bytes_of(&header), &[b'a'; 20_000]].concat();
            assert_eq!(ledger.take::<ProcessEvent>(&bytes), None, "{what}");
        };
        refused(|header| header.exe_len = PATH_MAX, "longer than any path");
        refused(|header| header.cwd_len = u32::MAX, "wraps around");
        refused(|header| header.args_len = ARGS_MAX + 1, "more than is told");
        refused(|header| header.kind = FORK, "a fork has no text");
        refused(|header| header.kind = EXIT, "an exit has no text");
        refused(|header| header.kind = 0, "no kind");
        refused(|header| header.kind = EXIT + 1, "unknown kind");
        refused(|header| header.cpu = 2, "no such CPU");
        assert_eq!(ledger.malformed, whole.len() as u64 + 8);
        assert!(ledger.is_untouched());
        assert!(ledger.take::<ProcessEvent>(&whole).is_some());
    }

    #[test]
    fn the_longest_texts_are_delivered() {
        let path = vec![b'p'; PATH_MAX as usize - 1];
        let args = vec![b'a'; ARGS_MAX as usize];
        let event = ProcessEvent::decode(&record(0, 0, [&path, &path, &args])).expect("whole");
        assert_eq!((event.exe, event.cwd, event.args), (path.clone(), path, args));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_event_that_lies_inside_them_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            kind in 0u32..5,
            lengths in proptest::array::uniform3(prop_oneof![0u32..200, any::<u32>()]),
        ) {
            let mut bytes = bytes;
            if let Some(header) = bytes.get_mut(..size_of::<abi::Process>()) {
                let mut parsed: abi::Process = bytemuck::pod_read_unaligned(header);
                parsed.kind = kind;
                [parsed.exe_len, parsed.cwd_len, parsed.args_len] = lengths;
                header.copy_from_slice(bytemuck::bytes_of(&parsed));
            }
            if let Some(event) = ProcessEvent::decode(&bytes) {
                let text = [event.exe, event.cwd, event.args].concat();
                let start = size_of::<abi::Process>();
                prop_assert_eq!(&bytes[start..start + text.len()], &text[..]);
                prop_assert!((1..=3).contains(&event.header.kind));
            } else if bytes.len() >= size_of::<abi::Process>() && (1..=3).contains(&kind) {
                prop_assert!(lengths.iter().map(|l| u64::from(*l)).sum::<u64>() > 0, "only its lengths can be wrong");
            }
        }

        #[test]
        fn what_is_numbered_is_delivered_or_counted(kept in proptest::collection::vec(any::<bool>(), 2..300)) {
            let mut ledger = Ledger::new(1);
            let mut delivered = 0u64;
            let last = kept.len() - 1;
            for (seq, kept) in kept.iter().enumerate() {
                if *kept || seq == 0 || seq == last {
                    let event: Option<ProcessEvent> = ledger.take(&record(0, seq as u64, [b""; 3]));
                    prop_assert!(event.is_some());
                    delivered += 1;
                }
            }
            prop_assert_eq!(delivered + ledger.lost, kept.len() as u64);
        }
    }
}
