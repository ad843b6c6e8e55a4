//! Arrays of structures that user space and the kernel programs share as memory.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use bytemuck::Pod;

use crate::Error;
use crate::mmap::Mapping;

/// An array of `T`, whose first word tells whether an element is in use. `T` is made of 8-byte units.
pub(crate) struct Table<T> {
    what: &'static str,
    mapping: Mapping,
    length: u32,
    element: PhantomData<T>,
}

impl<T: Pod> Table<T> {
    const UNITS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() > 0, "elements are made of 8-byte units");
        size_of::<T>() / 8
    };

    pub(crate) fn new(what: &'static str, mapping: Mapping, length: u32) -> Table<T> {
        assert!(mapping.units().len() >= length as usize * Self::UNITS, "the mapping holds the table");
        Table { what, mapping, length, element: PhantomData }
    }

    /// A copy. Units are read one by one: the caller holds the lock that writers hold, or copes with a mix of old and new.
    pub(crate) fn read(&self, index: u32) -> Result<T, Error> {
        let start = self.start(index)?;
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        for (unit, bytes) in self.mapping.units()[start..][..Self::UNITS].iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&unit.load(Ordering::Acquire).to_ne_bytes());
        }
        Ok(value)
    }

    /// Writes all of an element, its first unit last: the kernel sees it in use only when the rest is there.
    pub(crate) fn write(&self, index: u32, value: &T) -> Result<(), Error> {
        let start = self.start(index)?;
        let units = &self.mapping.units()[start..][..Self::UNITS];
        let mut bytes = bytemuck::bytes_of(value).chunks_exact(8).map(to_unit);
        let first = bytes.next().unwrap_or(0);
        for (unit, value) in units[1..].iter().zip(bytes) {
            unit.store(value, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        units[0].store(first, Ordering::Release);
        Ok(())
    }

    /// One store of 8 bytes at a byte offset that is a multiple of 8.
    pub(crate) fn store_pair(&self, index: u32, offset: usize, low: u32, high: u32) -> Result<(), Error> {
        debug_assert!(offset.is_multiple_of(8) && offset / 8 < Self::UNITS, "a unit of the element");
        let mut bytes = [0u8; 8];
        bytes[..4].copy_from_slice(&low.to_ne_bytes());
        bytes[4..].copy_from_slice(&high.to_ne_bytes());
        let unit = self.start(index)? + offset / 8;
        self.mapping.units()[unit].store(u64::from_ne_bytes(bytes), Ordering::Release);
        Ok(())
    }

    /// The 32-bit word at a byte offset that is a multiple of 4.
    pub(crate) fn word(&self, index: u32, offset: usize) -> Result<&AtomicU32, Error> {
        debug_assert!(offset.is_multiple_of(4) && offset / 8 < Self::UNITS, "a word of the element");
        let word = self.start(index)? * 2 + offset / 4;
        Ok(&self.mapping.words()[word])
    }

    fn start(&self, index: u32) -> Result<usize, Error> {
        if index < self.length {
            Ok(index as usize * Self::UNITS)
        } else {
            Err(Error::Range { what: self.what, index: index.into(), limit: self.length.into() })
        }
    }
}

fn to_unit(bytes: &[u8]) -> u64 {
    let mut unit = [0u8; 8];
    unit.copy_from_slice(bytes);
    u64::from_ne_bytes(unit)
}
