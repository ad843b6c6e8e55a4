//! Maps of the kernel seen as memory. The kernel reads and writes them at the same time, so every access is atomic.
#![expect(unsafe_code, reason = "a mapping is an address until it is given a type and a lifetime")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of a map.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    /// Bytes, a multiple of the page size.
    length: usize,
}

// SAFETY: the memory stays mapped until the value is dropped, and it is only ever reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of the map, rounded up to whole pages (kernel/bpf/arraymap.c rounds its memory too).
    pub(crate) fn new(fd: BorrowedFd<'_>, length: usize) -> io::Result<Mapping> {
        Mapping::of(fd, 0, length, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// The same of `length` bytes from `offset` on, a multiple of the page size, that can only be read: a store ends the process, and
    /// so may a load that is not [`Ordering::Relaxed`](std::sync::atomic::Ordering::Relaxed) (std's `sync::atomic`, "read-only memory").
    pub(crate) fn to_read(fd: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Mapping> {
        Mapping::of(fd, offset as u64, length, ProtFlags::READ)
    }

    /// The same, to be written.
    #[cfg(feature = "replay")]
    pub(crate) fn to_write(fd: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Mapping> {
        Mapping::of(fd, offset as u64, length, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn of(fd: BorrowedFd<'_>, offset: u64, length: usize, protection: ProtFlags) -> io::Result<Mapping> {
        let length = length.next_multiple_of(rustix::param::page_size());
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing that exists is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, fd, offset)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Mapping { start, length })
    }

    /// The memory as 64-bit units.
    pub(crate) fn units(&self) -> &[AtomicU64] {
        // SAFETY: mapped readable, page-aligned, of that length, for as long as self; zeroed or written memory is
        // initialised, and AtomicU64 may be shared with writers that also write atomically, as the kernel does.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length / 8) }
    }

    /// The memory as 32-bit words.
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: as in units; AtomicU32 has no stricter alignment.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length / 4) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what new has mapped; every borrow of it has ended. It can't fail for a valid range.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
