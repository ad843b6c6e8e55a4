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
    #[cfg(feature = "replay")]
    is_replay: bool,
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
        Ok(Ring {
            fd,
            consumer,
            producer,
            units: bytes / 8,
            read,
            written: read,
            has_read: false,
            record: Vec::new(),
            #[cfg(feature = "replay")]
            is_replay: false,
        })
    }

    /// Gives the next record to `take`, and its room back to the kernel. Nothing where no record is complete: then the kernel
    /// wakes who waits for the descriptor when one is.
    pub(crate) fn next<T>(&mut self, mut take: impl FnMut(&[u8]) -> T) -> Option<T> {
        loop {
            if self.read == self.written {
                self.show_what_was_read();
                #[cfg(feature = "replay")]
                self.take_wake();
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

    /// The descriptor of a ring of the kernel can be read as long as there is something in it; that of another until this.
    #[cfg(feature = "replay")]
    fn take_wake(&self) {
        if self.is_replay {
            // There is nothing to take where nobody was woken.
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
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

/// A ring that this process writes as the kernel writes its own, for who measures the reading where the kernel raises no such events.
#[cfg(feature = "replay")]
pub(crate) struct Writer {
    consumer: Mapping,
    producer: Mapping,
    units: usize,
    written: u64,
    wake: OwnedFd,
}

#[cfg(feature = "replay")]
impl Writer {
    /// A ring of so many bytes, a power of two, and its writer.
    pub(crate) fn with_ring(bytes: usize) -> io::Result<(Writer, Ring)> {
        use rustix::event::{EventfdFlags, eventfd};
        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        let page = rustix::param::page_size();
        if !bytes.is_power_of_two() || bytes < page {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no size of a ring"));
        }
        let memory = memfd_create("ring", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, (2 * page + bytes) as u64)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let consumer = Mapping::new(memory.as_fd(), page)?;
        let ring = Ring {
            fd: wake.try_clone()?,
            consumer: Mapping::new(memory.as_fd(), page)?,
            producer: Mapping::to_read(memory.as_fd(), page, page + bytes)?,
            units: bytes / 8,
            read: 0,
            written: 0,
            has_read: false,
            record: Vec::new(),
            is_replay: true,
        };
        let producer = Mapping::to_write(memory.as_fd(), page, page + bytes)?;
        Ok((Writer { consumer, producer, units: bytes / 8, written: 0, wake }, ring))
    }

    /// Writes a record, which is read once its reader is woken or looks for more. Whether there was room for it.
    pub(crate) fn write(&mut self, record: &[u8]) -> bool {
        let length = HEADER_UNITS + record.len().div_ceil(8);
        let used = (self.written - self.consumer.units()[0].load(Ordering::Acquire)) as usize / 8;
        let Ok(bytes) = u32::try_from(record.len()) else { return false };
        if bytes & (BUSY | WITHDRAWN) != 0 || used + length > self.units {
            return false;
        }
        let records = &self.producer.units()[rustix::param::page_size() / 8..];
        let at = (self.written / 8) as usize;
        let unit = |number: usize| &records[(at + number) & (self.units - 1)];
        let mut header = [0; 8];
        header[..4].copy_from_slice(&bytes.to_ne_bytes());
        unit(0).store(u64::from_ne_bytes(header), Ordering::Relaxed);
        for (number, chunk) in record.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            unit(HEADER_UNITS + number).store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.written += 8 * length as u64;
        self.producer.units()[0].store(self.written, Ordering::Release);
        true
    }

    /// Wakes the reader.
    pub(crate) fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
