//! The closed set of `bpf(2)` commands that are made by hand: what the loader library lacks, on plain bytes.
//!
//! Everything here takes and gives owned descriptors, slices and plain-old-data, so that no caller needs unsafe code.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for maps in maps, object information and run statistics")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

/// Commands of `bpf(2)`, include/uapi/linux/bpf.h `enum bpf_cmd`.
mod command {
    pub(super) const MAP_CREATE: i64 = 0;
    pub(super) const MAP_LOOKUP_ELEM: i64 = 1;
    pub(super) const MAP_UPDATE_ELEM: i64 = 2;
    pub(super) const MAP_DELETE_ELEM: i64 = 3;
    pub(super) const MAP_GET_NEXT_KEY: i64 = 4;
    pub(super) const OBJ_PIN: i64 = 6;
    pub(super) const OBJ_GET: i64 = 7;
    pub(super) const RAW_TRACEPOINT_OPEN: i64 = 17;
    pub(super) const PROG_TEST_RUN: i64 = 10;
    pub(super) const PROG_GET_FD_BY_ID: i64 = 13;
    pub(super) const MAP_GET_FD_BY_ID: i64 = 14;
    pub(super) const OBJ_GET_INFO_BY_FD: i64 = 15;
    pub(super) const MAP_LOOKUP_AND_DELETE_ELEM: i64 = 21;
    pub(super) const ENABLE_STATS: i64 = 32;
}

/// `BPF_MAP_TYPE_ARRAY`.
pub(crate) const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
pub(crate) const MMAPABLE: u32 = 1 << 10;
/// `BPF_MAP_TYPE_RINGBUF`.
pub(crate) const RINGBUF: u32 = 27;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ElementAttr {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TracepointAttr {
    name: u64,
    prog_fd: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
    pub(crate) name: [u8; 16],
}

/// `struct bpf_prog_info` up to `verified_insns` (Linux 5.16; older kernels leave the end zero).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct ProgInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    tag: [u8; 8],
    pub(crate) jited_len: u32,
    pub(crate) xlated_len: u32,
    pointers: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    pub(crate) name: [u8; 16],
    ifindex: u32,
    gpl: u32,
    netns: [u64; 2],
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited: [u64; 2],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    pub(crate) run_cnt: u64,
    pub(crate) recursion_misses: u64,
    pub(crate) verified_insns: u32,
    end: u32,
}

/// The beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    end: u32,
}

/// Calls `bpf(2)`. Pointers inside `attr` must be valid for the command; only this module builds them.
fn bpf<T: Pod>(command: i64, attr: &mut T) -> io::Result<i64> {
    // SAFETY: attr is initialised memory of the length that is told; every address in it comes from a slice or string that
    // the calling function keeps borrowed until this returns, with the length that the kernel takes from the object.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same, for commands that return a descriptor.
fn bpf_fd<T: Pod>(command: i64, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

/// An array of one element that user space can map.
pub(crate) fn create_array(name: &str, value_size: u32) -> io::Result<OwnedFd> {
    let mut attr = CreateAttr::zeroed();
    attr.map_type = MAP_TYPE_ARRAY;
    attr.key_size = 4;
    attr.value_size = value_size;
    attr.max_entries = 1;
    attr.map_flags = MMAPABLE;
    let length = name.len().min(15);
    attr.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    bpf_fd(command::MAP_CREATE, &mut attr)
}

/// A map and the sizes that the kernel says it has: element access checks its slices against them.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    pub(crate) info: MapInfo,
    /// Bytes that a lookup writes: per-CPU maps give a value for each possible CPU, each rounded up to 8.
    lookup: usize,
}

impl Map {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Map> {
        let info: MapInfo = info(fd.as_fd())?;
        let lookup = match info.kind {
            // BPF_MAP_TYPE_PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE
            5 | 6 | 10 | 21 => (info.value_size as usize).next_multiple_of(8) * possible_cpus()?,
            // Maps in maps give the id of the inner map.
            12 | 13 => 4,
            _ => info.value_size as usize,
        };
        Ok(Map { fd, info, lookup })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The value of `key`, or nothing where the map has no such key.
    pub(crate) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key.len(), self.info.key_size as usize)?;
        let mut value = vec![0u8; self.lookup];
        let mut attr = self.element(key, value.as_mut_ptr() as u64, 0);
        match bpf(command::MAP_LOOKUP_ELEM, &mut attr) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, and takes the key out of the map in one step (hash maps, Linux 5.14).
    pub(crate) fn take(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key.len(), self.info.key_size as usize)?;
        let mut value = vec![0u8; self.lookup];
        let mut attr = self.element(key, value.as_mut_ptr() as u64, 0);
        match bpf(command::MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key.len(), self.info.key_size as usize)?;
        self.check(value.len(), self.lookup)?;
        bpf(command::MAP_UPDATE_ELEM, &mut self.element(key, address(value), 0)).map(drop)
    }

    /// Puts a map into a map of maps, whose values are descriptors on the way in.
    pub(crate) fn insert_map(&self, key: &[u8], inner: &OwnedFd) -> io::Result<()> {
        self.update(key, &raw(inner.as_fd()).to_ne_bytes())
    }

    /// Whether the key was there.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key.len(), self.info.key_size as usize)?;
        match bpf(command::MAP_DELETE_ELEM, &mut self.element(key, 0, 0)) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The key after `key`, or the first.
    pub(crate) fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let size = self.info.key_size as usize;
        let mut next = vec![0u8; size];
        let mut attr = ElementAttr { map_fd: raw(self.fd()), zero: 0, key: 0, value: next.as_mut_ptr() as u64, flags: 0 };
        if let Some(key) = key {
            self.check(key.len(), size)?;
            attr.key = address(key);
        }
        match bpf(command::MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn element(&self, key: &[u8], value: u64, flags: u64) -> ElementAttr {
        ElementAttr { map_fd: raw(self.fd()), zero: 0, key: address(key), value, flags }
    }

    /// The kernel copies as many bytes as the map says: a shorter slice would be read or written past its end.
    fn check(&self, given: usize, wanted: usize) -> io::Result<()> {
        if given == wanted { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
    }
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf_fd(command::OBJ_GET, &mut attr)
}

/// Pins an object.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: raw(object), flags: 0 };
    bpf(command::OBJ_PIN, &mut attr).map(drop)
}

pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(command::MAP_GET_FD_BY_ID, &mut IdAttr { id, next: 0, flags: 0 })
}

pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(command::PROG_GET_FD_BY_ID, &mut IdAttr { id, next: 0, flags: 0 })
}

/// Attaches a program to the typed tracepoint that it was loaded for; closing the link detaches it, unless it is pinned.
pub(crate) fn attach_tracepoint(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf_fd(command::RAW_TRACEPOINT_OPEN, &mut TracepointAttr { name: 0, prog_fd: raw(program), zero: 0 })
}

/// Runs a raw tracepoint program once, in the context of this thread (net/bpf/test_run.c `bpf_prog_test_run_raw_tp`), and
/// returns what it returns. A program may read as many arguments as are given, and the kernel refuses others.
pub(crate) fn run(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<u32> {
    let mut attr = RunAttr::zeroed();
    attr.prog_fd = raw(program);
    attr.ctx_size_in = u32::try_from(size_of_val(arguments)).map_err(|_| io::ErrorKind::InvalidInput)?;
    attr.ctx_in = arguments.as_ptr() as u64;
    bpf(command::PROG_TEST_RUN, &mut attr)?;
    Ok(attr.retval)
}

/// Information about a map, program or link; `T` is the beginning of the kernel's structure.
pub(crate) fn info<T: Pod>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::zeroed();
    let info_len = u32::try_from(size_of::<T>()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut attr = InfoAttr { fd: raw(fd), len: info_len, info: std::ptr::from_mut(&mut info) as u64 };
    bpf(command::OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Counts runs of all programs while the descriptor lives (`BPF_STATS_RUN_TIME`, Linux 5.8).
pub(crate) fn enable_run_statistics() -> io::Result<OwnedFd> {
    bpf_fd(command::ENABLE_STATS, &mut 0u32)
}

/// How many values a per-CPU map has: the kernel's `num_possible_cpus()`.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    parse_cpus(text.trim()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// `0-3` or `0,2-5`: per-CPU values are told for as many CPUs as are listed.
fn parse_cpus(list: &str) -> Option<usize> {
    let mut count = 0usize;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// Gives memory that was freed back to the system. The kernel's type information takes tens of megabytes while a load reads it, and
/// whoever goes on running afterwards would keep them.
pub(crate) fn return_free_memory() {
    // SAFETY: malloc_trim(3) takes no pointer, may be called from any thread, and touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(parse_cpus("0"), Some(1));
        assert_eq!(parse_cpus("0-127"), Some(128));
        assert_eq!(parse_cpus("0,2-5"), Some(5));
        assert_eq!(parse_cpus("3-1"), None);
        assert_eq!(parse_cpus("all"), None);
        assert_eq!(parse_cpus(""), None);
    }

    #[test]
    fn the_information_of_a_program_ends_where_the_kernel_says() {
        assert_eq!(std::mem::offset_of!(ProgInfo, name), 64);
        assert_eq!(std::mem::offset_of!(ProgInfo, run_cnt), 200);
        assert_eq!(std::mem::offset_of!(ProgInfo, verified_insns), 216);
    }
}
