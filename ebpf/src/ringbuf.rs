//! The kernel's ring of records (`BPF_MAP_TYPE_RINGBUF`), mapped once.
//!
//! The kernel would map the records twice over, so that one that goes round the end lies in one piece, and a reader would have each
//! page twice among its resident ones. Here every record is copied out, unit by unit, which also takes it round the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::mmap::Mapping;
use crate::sys;

/// Bits of a record's length (`include/uapi/linux/bpf.h`): still being written, and withdrawn.
const BUSY: u32 = 1 << 31;
const WITHDRAWN: u32 = 1 << 30;
/// Units of 8 bytes before a record: its length, and what the kernel keeps for itself.
const HEADER_UNITS: usize = 1;

/// The one consumer of a ring.
pub(crate) struct Ring {
    fd: OwnedFd,
    /// How far it was read. The kernel writes nothing behind it, and wakes a reader that waits there.
    consumer: Mapping,
    /// How far it was written, in a page of its own, and the records.
    producer: Mapping,
    /// Units of records, a power of two.
    units: usize,
    /// Bytes read and written since the ring was made, as far as is known here.
    read: u64,
    written: u64,
    /// Whether something was read since the kernel was last looked at for more.
    has_read: bool,
    /// The record that is being read.
    record: Vec<u64>,
}

impl Ring {
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Ring> {
        let info: sys::MapInfo = sys::info(fd.as_fd())?;
        let bytes = info.max_entries as usize;
        let page = rustix::param::page_size();
        if info.kind != sys::RINGBUF || !bytes.is_power_of_two() || bytes < page {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this map is no ring"));
        }
        let consumer = Mapping::new(fd.as_fd(), page)?;
        let producer = Mapping::to_read(fd.as_fd(), page, page + bytes)?;
        let read = consumer.units()[0].load(Ordering::Acquire);
        Ok(Ring { fd, consumer, producer, units: bytes / 8, read, written: read, has_read: false, record: Vec::new() })
    }

    /// Gives the next record to `take`, and its room back to the kernel. Nothing where no record is complete: then the kernel
    /// wakes who waits for the descriptor when one is.
    pub(crate) fn next<T>(&mut self, mut take: impl FnMut(&[u8]) -> T) -> Option<T> {
        loop {
            if self.read == self.written {
                self.show_what_was_read();
                self.written = self.producer.units()[0].load(Ordering::Relaxed);
                // What was written is seen after how far it was.
                fence(Ordering::Acquire);
                if self.read == self.written {
                    return None;
                }
            }
            let at = self.at(self.read);
            let header = self.records()[at].load(Ordering::Relaxed);
            // The record is complete once this says so (kernel/bpf/ringbuf.c `bpf_ringbuf_commit`).
            fence(Ordering::Acquire);
            // The length is the first half of the unit in memory.
            let length = u32::from_ne_bytes([0, 1, 2, 3].map(|byte| header.to_ne_bytes()[byte]));
            if length & BUSY != 0 {
                if !self.show_what_was_read() {
                    return None;
                }
                continue;
            }
            let bytes = (length & !WITHDRAWN) as usize;
            let taken = (length & WITHDRAWN == 0).then(|| {
                self.copy(at + HEADER_UNITS, bytes);
                take(&bytemuck::cast_slice(&self.record)[..bytes])
            });
            self.read += ((HEADER_UNITS * 8 + bytes) as u64).next_multiple_of(8);
            // After the last look at the record: the kernel may write there now.
            self.consumer.units()[0].store(self.read, Ordering::Release);
            self.has_read = true;
            if taken.is_some() {
                return taken;
            }
        }
    }

    /// Either the kernel sees how far it was read, and wakes for the next record, or the record is seen here when it is looked
    /// for again. Whether that is worth it.
    fn show_what_was_read(&mut self) -> bool {
        let had_read = std::mem::take(&mut self.has_read);
        if had_read {
            fence(Ordering::SeqCst);
        }
        had_read
    }

    fn records(&self) -> &[AtomicU64] {
        &self.producer.units()[rustix::param::page_size() / 8..]
    }

    fn at(&self, position: u64) -> usize {
        (position / 8) as usize & (self.units - 1)
    }

    /// Copies so many bytes, which begin at that unit, and go on at the beginning where the ring ends. No
    /// length that the kernel writes is more than the ring.
    fn copy(&mut self, from: usize, bytes: usize) {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        let records = self.records();
        record.extend((from..from + bytes.div_ceil(8)).map(|unit| records[unit & (self.units - 1)].load(Ordering::Relaxed)));
        self.record = record;
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
