//! Policy sets in the kernel: found by hash, placed in a segment, retired when no slot uses them, freed later.
//!
//! All of it under the lock of the state directory.

use portcullis_ebpf::abi;

use crate::automaton::Compiled;
use crate::tables::Tables;
use crate::{Error, slots};

/// How long a set that no container uses stays, in seconds, for the next container that wants the same.
const KEEP_RETIRED_SECONDS: u32 = 300;

/// The set with these contents, if the kernel has it.
pub(crate) fn find<T: Tables>(tables: &T, hash: [u64; 2]) -> Result<Option<u32>, Error> {
    for index in 0..abi::MAX_SETS {
        let set = tables.read_set(index)?;
        if set.flags & abi::SET_USED != 0 && set.hash == hash {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Puts a compiled set into the kernel.
pub(crate) fn place<T: Tables>(tables: &T, compiled: &Compiled, now: u32) -> Result<u32, Error> {
    if let Some(index) = try_place(tables, compiled)? {
        return Ok(index);
    }
    retire_unused(tables, now)?;
    free_retired(tables, now, 0)?;
    try_place(tables, compiled)?.ok_or(Error::NoRoom { bytes: compiled.size() })
}

fn try_place<T: Tables>(tables: &T, compiled: &Compiled) -> Result<Option<u32>, Error> {
    let mut free = None;
    let mut used: Vec<(u32, u32, u32)> = Vec::new();
    for index in 0..abi::MAX_SETS {
        let set = tables.read_set(index)?;
        if set.flags == 0 {
            free.get_or_insert(index);
        } else {
            used.push((set.segment, set.base, set.base.saturating_add(set.length)));
        }
    }
    let Some(index) = free else { return Ok(None) };
    used.sort_unstable();
    let mut segments = tables.segments()?;
    // The last segment is never used: waiting for readers may need its place, see Kernel::wait_readers.
    segments.extend((0..abi::MAX_SEGMENTS - 1).find(|index| !segments.contains(index)));
    for segment in segments {
        let taken = used.iter().filter(|(of, ..)| *of == segment).map(|&(_, from, to)| (from, to));
        if let Some((set, bytes)) = gap(taken, compiled.size()).and_then(|base| compiled.relocate(segment, base)) {
            tables.write_segment(segment, set.base, &bytes)?;
            tables.write_set(index, &set)?;
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The first gap between ranges, sorted, that holds `length` bytes at the alignment of sets.
fn gap(taken: impl Iterator<Item = (u32, u32)>, length: u32) -> Option<u32> {
    let mut from = 0u32;
    for (start, end) in taken {
        if start >= from && start - from >= length {
            return Some(from);
        }
        from = from.max(end.checked_next_multiple_of(abi::SET_ALIGN)?);
    }
    (abi::SEGMENT_BYTES.checked_sub(from)? >= length).then_some(from)
}

/// Notes the time in sets that no slot uses any more, and takes it from those that one does. System calls are watched no longer if none
/// of the latter has rules on them.
pub(crate) fn retire_unused<T: Tables>(tables: &T, now: u32) -> Result<(), Error> {
    let used = slots::sets_in_use(tables)?;
    let mut on_calls = false;
    for index in 0..abi::MAX_SETS {
        let set = tables.read_set(index)?;
        if set.flags == 0 {
            continue;
        }
        on_calls |= set.flags & abi::SET_CALLS != 0 && used.contains(&index);
        match (used.contains(&index), set.retired_at) {
            (true, 0) | (false, 1..) => {}
            (true, _) => tables.store_set_retired(index, 0)?,
            (false, 0) => tables.store_set_retired(index, now.max(1))?,
        }
    }
    if !on_calls {
        tables.set_calls_watched(false)?;
    }
    Ok(())
}

/// Frees what was retired long ago. Waits for the programs that may still walk it.
pub(crate) fn free_retired<T: Tables>(tables: &T, now: u32, seconds: u32) -> Result<(), Error> {
    let used = slots::sets_in_use(tables)?;
    let mut old = Vec::new();
    for index in 0..abi::MAX_SETS {
        let set = tables.read_set(index)?;
        let is_old = set.retired_at != 0 && now.saturating_sub(set.retired_at) >= seconds;
        if set.flags != 0 && is_old && !used.contains(&index) {
            old.push(index);
        }
    }
    if old.is_empty() {
        return Ok(());
    }
    tables.wait_readers()?;
    for index in old {
        tables.write_set(index, &abi::Set::default())?;
    }
    Ok(())
}

/// What is done when a container has left.
pub(crate) fn sweep<T: Tables>(tables: &T, now: u32) -> Result<(), Error> {
    retire_unused(tables, now)?;
    free_retired(tables, now, KEEP_RETIRED_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_aligned_and_within_the_segment() {
        let gap = |taken: &[(u32, u32)], length| gap(taken.iter().copied(), length);
        assert_eq!(gap(&[], 100), Some(0));
        assert_eq!(gap(&[(0, 100)], 100), Some(512));
        assert_eq!(gap(&[(0, 100), (1024, 1100)], 512), Some(512));
        assert_eq!(gap(&[(0, 100), (1024, 1100)], 513), Some(1536));
        assert_eq!(gap(&[], abi::SEGMENT_BYTES), Some(0));
        assert_eq!(gap(&[(0, 1)], abi::SEGMENT_BYTES - 511), None);
        assert_eq!(gap(&[(0, u32::MAX)], 1), None, "a damaged entry hides its segment");
    }
}
