//! Segments: the memory that holds compiled policy sets.

use std::sync::atomic::{Ordering, fence};

use crate::abi::{MAX_SEGMENTS, SEGMENT_BYTES, SEGMENT_SIZE};
use crate::mmap::Mapping;
use crate::{Error, sys};

/// A segment, mapped. The kernel programs read it at any time; what they may read is what the sets say.
pub struct Segment {
    mapping: Mapping,
}

impl Segment {
    /// Opens the segment with that index, and makes it first where there is none. The caller holds the load lock.
    pub(crate) fn open(segments: &sys::Map, index: u32) -> Result<Segment, Error> {
        if index >= MAX_SEGMENTS {
            return Err(Error::Range { what: "segment", index: index.into(), limit: MAX_SEGMENTS.into() });
        }
        let failed = |error: std::io::Error| Error::system(format!("opening segment {index}"), error);
        let key = index.to_ne_bytes();
        // The value of a map in a map is, for user space, the id of the inner map.
        let id = segments.lookup(&key).map_err(failed)?;
        let id = id.and_then(|id| Some(u32::from_ne_bytes(id.as_slice().try_into().ok()?))).filter(|id| *id != 0);
        let inner = match id {
            Some(id) => sys::map_by_id(id).map_err(failed)?,
            None => {
                let inner = sys::create_array("pc_segment", SEGMENT_SIZE).map_err(failed)?;
                segments.insert_map(&key, &inner).map_err(failed)?;
                inner
            }
        };
        let inner = sys::Map::new(inner).map_err(failed)?;
        if inner.info.value_size != SEGMENT_SIZE {
            return Err(Error::Shape { map: "pc_segments", layout: crate::abi::LAYOUT });
        }
        let mapping = Mapping::new(inner.fd(), SEGMENT_BYTES as usize).map_err(failed)?;
        Ok(Segment { mapping })
    }

    /// Copies bytes to a byte offset that is a multiple of 4; a last word that is only partly given is filled with zeros.
    ///
    /// # Errors
    /// [`Error::Range`] if they do not fit.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let start = self.place(offset, bytes.len())?;
        let words = &self.mapping.words()[start..];
        for (word, bytes) in words.iter().zip(bytes.chunks(4)) {
            let mut value = [0u8; 4];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_ne_bytes(value), Ordering::Relaxed);
        }
        // Whoever sees a set that is stored after this also sees its tables.
        fence(Ordering::Release);
        Ok(())
    }

    /// Copies bytes from a byte offset that is a multiple of 4.
    ///
    /// # Errors
    /// [`Error::Range`] if there are not as many.
    pub fn read(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let start = self.place(offset, bytes.len())?;
        for (word, bytes) in self.mapping.words()[start..].iter().zip(bytes.chunks_mut(4)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..bytes.len()]);
        }
        Ok(())
    }

    fn place(&self, offset: u32, length: usize) -> Result<usize, Error> {
        let end = u64::from(offset) + length as u64;
        if !offset.is_multiple_of(4) || end > u64::from(SEGMENT_BYTES) {
            return Err(Error::Range { what: "byte of a segment", index: end, limit: SEGMENT_BYTES.into() });
        }
        Ok(offset as usize / 4)
    }
}
