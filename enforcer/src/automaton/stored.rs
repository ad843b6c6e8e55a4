//! A compiled set as a file, and back.
//!
//! The kernel trusts its tables as far as a mask keeps it in the segment, so what is read back is checked as if somebody had
//! tampered with it: the checksum first, then every offset, state and decision id.

use portcullis_ebpf::abi;
use sha2::{Digest, Sha256};

use super::layout::CLASSES_WORDS;
use super::{Compiled, Stats};

const MAGIC: &[u8; 8] = b"PCSET\x03\0\0";
const CHECKSUM_BYTES: usize = 32;
const STATS_WORDS: usize = 6;
/// Everything before the words.
const HEADER_BYTES: usize = MAGIC.len() + size_of::<abi::Set>() + (2 + STATS_WORDS) * 4;
/// Largest file that [`Compiled::to_bytes`] makes.
pub const MAX_STORED_BYTES: u64 = (HEADER_BYTES + CHECKSUM_BYTES) as u64 + abi::SEGMENT_BYTES as u64;

impl Compiled {
    /// The set as a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let s = self.stats;
        let stats = [s.states_built, s.states, s.classes, s.decisions, s.sources, s.bytes].map(|number| number as u32);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.words.len() * 4 + CHECKSUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(bytemuck::bytes_of(&self.set));
        bytes.extend_from_slice(bytemuck::bytes_of(&[self.rows, self.row_words]));
        bytes.extend_from_slice(bytemuck::bytes_of(&stats));
        bytes.extend_from_slice(bytemuck::cast_slice(&self.words));
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads what [`Compiled::to_bytes`] wrote, of this layout, and only if nothing in it leads astray.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Compiled> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if Sha256::digest(body)[..] != *checksum {
            return None;
        }
        let body = body.strip_prefix(MAGIC)?;
        let (set, body) = body.split_at_checked(size_of::<abi::Set>())?;
        let (shape, body) = body.split_at_checked((2 + STATS_WORDS) * 4)?;
        let numbers: Vec<u32> = shape.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        if body.len() % 4 != 0 || body.len() > abi::SEGMENT_BYTES as usize {
            return None;
        }
        let number = |index: usize| numbers[index] as usize;
        let compiled = Compiled {
            set: bytemuck::pod_read_unaligned(set),
            rows: numbers[0],
            row_words: numbers[1],
            stats: Stats {
                states_built: number(2),
                states: number(3),
                classes: number(4),
                decisions: number(5),
                sources: number(6),
                bytes: number(7),
            },
            words: body.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
        };
        compiled.is_sound().then_some(compiled)
    }

    /// Whether every index in the words and in the entry stays where it should.
    fn is_sound(&self) -> bool {
        let abi::Set { flags, segment, base, length, classes, sink, sources, .. } = self.set;
        let words = self.words.len();
        let fixed = flags & abi::SET_USED != 0
            && (segment, base, classes) == (0, 0, 0)
            && length as usize == words * 4
            && sources > 0
            && (sources as usize) <= words
            && self.row_words > abi::ROW_FIRST_CLASS
            && self.row_words <= 256
            && self.rows as usize >= CLASSES_WORDS
            && (self.rows as usize) < words
            && (words - self.rows as usize).is_multiple_of(self.row_words as usize);
        if !fixed {
            return false;
        }
        let table = |at: u32, rows: u32, row: u32| {
            at == 0 || at as usize >= CLASSES_WORDS && u64::from(at) + u64::from(rows) * u64::from(row) <= u64::from(self.rows)
        };
        let tables = self.set.starts != 0
            && table(self.set.starts, sources, 1)
            && table(self.set.name_starts, sources, 1)
            && table(self.set.network, sources, abi::KINDS)
            && table(self.set.capabilities, sources, abi::CAPS)
            && table(self.set.calls, 1, abi::call::END)
            && table(self.set.call_entries, sources, self.set.call_columns)
            && table(self.set.call_starts, sources, self.set.call_classes)
            && self.calls_are_sound()
            && self.set.decisions != 0
            && table(self.set.decisions, self.set.decisions_len, abi::DECISION_WORDS);
        if !tables {
            return false;
        }
        let is_row = |at: u32| at >= self.rows && (at as usize) < words && (at - self.rows).is_multiple_of(self.row_words);
        let is_state = |offset: u32| offset.is_multiple_of(4) && is_row(offset / 4);
        let columns: &[u16] = bytemuck::cast_slice(&self.words[..CLASSES_WORDS]);
        let is_class = |class: u32| class >= abi::ROW_FIRST_CLASS && class < self.row_words;
        let is_byte = |column: &u16| column.is_multiple_of(4) && is_class(u32::from(*column) / 4);
        // A source automaton's column is a class and a path automaton's a decision: either way an index of a table.
        let limit = self.set.decisions_len.max(sources);
        let is_column = |row: &[u32]| row[0] < limit;
        columns.iter().all(is_byte)
            && is_state(sink)
            && (self.set.source_start == 0 || is_state(self.set.source_start))
            && self.state_words().all(|index| is_state(self.words[index]))
            && self.words[self.rows as usize..].chunks_exact(self.row_words as usize).all(is_column)
    }
}

impl Compiled {
    /// Whether the table of calls, where there is one, names columns and classes that there are.
    fn calls_are_sound(&self) -> bool {
        let abi::Set { calls, call_entries, call_columns, call_starts, call_classes, .. } = self.set;
        // The kernel looks into them by these flags alone.
        let has = |flag: u32| self.set.flags & flag != 0;
        let flagged = (!has(abi::SET_CALLS) || call_entries != 0) && (!has(abi::SET_CALL_PATHS) || call_starts != 0);
        if calls == 0 {
            return flagged && call_entries == 0 && call_starts == 0;
        }
        let words = &self.words[calls as usize..][..abi::call::END as usize];
        let columns = if call_entries == 0 { 0 } else { call_columns };
        let classes = if call_starts == 0 { 0 } else { call_classes };
        flagged && words.iter().all(|&word| abi::call::column(word) <= columns && abi::call::paths(word) <= classes)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::meaning::RuleSet;

    use super::super::{Budget, compile};
    use super::*;

    #[test]
    fn a_stored_set_comes_back_as_it_was() {
        let compiled = compile(&RuleSet::default(), Budget::default()).unwrap();
        assert_eq!(Compiled::from_bytes(&compiled.to_bytes()), Some(compiled));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let bytes = compile(&RuleSet::default(), Budget::default()).unwrap().to_bytes();
        for length in [0, 7, 40, bytes.len() - 1] {
            assert_eq!(Compiled::from_bytes(&bytes[..length]), None, "cut at {length}");
        }
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Compiled::from_bytes(&damaged), None, "byte {at}");
        }
    }

    /// The checksum is no signature: what leads out of the tables is found behind a right one too.
    #[test]
    fn a_state_that_leads_astray_is_refused() {
        let compiled = compile(&RuleSet::default(), Budget::default()).unwrap();
        let last = compiled.words.len() - 1;
        let tampered = |change: &dyn Fn(&mut Compiled)| {
            let mut tampered = compiled.clone();
            change(&mut tampered);
            Compiled::from_bytes(&tampered.to_bytes())
        };
        assert!(tampered(&|_| {}).is_some());
        assert_eq!(tampered(&|set| set.words[last] += 1), None);
        assert_eq!(tampered(&|set| set.words[last] = u32::MAX), None);
        assert_eq!(tampered(&|set| set.words[0] = 0), None, "a byte of class 0");
        assert_eq!(tampered(&|set| set.words[set.rows as usize] = 99), None, "a decision that is not there");
        assert_eq!(tampered(&|set| set.set.network = set.rows), None);
        assert_eq!(tampered(&|set| set.set.sources = u32::MAX), None);
        assert_eq!(tampered(&|set| set.set.sink += 1), None);
    }
}
