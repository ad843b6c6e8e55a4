//! A reader of one value in a BoltDB file: libpod's `bolt_state.db` (podman before 5, and 4.8 and later where it was there
//! already). Podman has no other place for labels, and asking podman would wait for the lock that podman holds right now.
//!
//! Format: go.etcd.io/bbolt, page.go, db.go, bucket.go. A file is an array of pages. Pages 0 and 1 are the two meta pages;
//! the valid one with the higher transaction id names the root of a B+tree of buckets. Branch pages lead to leaf pages; a
//! leaf element is a key with a value, or with a bucket whose root is another page or, when small, follows in the value.
//!
//! Writers never change pages of the last committed transaction: transaction N+1 writes to free pages and N+2 is the first
//! that may reuse what N used. So a reader without a lock has read a whole state if the meta page is still the same one
//! after. No lock is taken: podman would wait for it.
//!
//! Every number in the file is checked before it is used, and the whole walk has a budget of bytes: a file made to harm
//! costs [`MAX_BYTES_READ`] and is an error.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that one lookup may read. The largest honest page run is one container's configuration, about 100 KiB.
pub const MAX_BYTES_READ: u64 = 32 << 20;
/// Depth of the B+tree of one bucket: 4096-byte pages hold at least two children, honest trees have a depth under 6.
const MAX_DEPTH: u32 = 16;
/// Repeats while another process commits. A commit takes milliseconds (it syncs the disk), a lookup microseconds.
const MAX_TRIES: u32 = 8;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const META_BYTES: usize = 64;
const BUCKET_HEADER: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const ELEMENT_IS_BUCKET: u32 = 0x01;
/// bbolt takes the system's page size; the largest Linux has is 64 KiB.
const PAGE_SIZES: [u32; 5] = [4096, 8192, 16384, 32768, 65536];

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// The file could not be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not a BoltDB file, or a damaged one.
    #[error("the BoltDB file is damaged: {0}")]
    Damaged(&'static str),
    /// The walk went over its budget.
    #[error("the BoltDB file needs more than {MAX_BYTES_READ} bytes to be read for one value")]
    TooMuch,
    /// Somebody wrote all the time.
    #[error("the BoltDB file changed each of {MAX_TRIES} times that it was read")]
    Changing,
}

/// The value of `key` in the nested buckets `path`; `None` when one of them is not there.
pub fn lookup(file: &File, path: &[&[u8]], key: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
    let mut damage = None;
    for _ in 0..MAX_TRIES {
        let before = Reader::open(file)?;
        let mut reader = before.clone();
        let found = reader.find(path, key);
        let after = Reader::open(file)?;
        if before.transaction == after.transaction {
            return found;
        }
        damage = found.err();
    }
    Err(damage.unwrap_or(BoltError::Changing))
}

#[derive(Clone)]
struct Reader<'f> {
    file: &'f File,
    page_size: u32,
    transaction: u64,
    root: u64,
    /// Pages in use: no page id reaches it.
    high_water: u64,
    budget: u64,
}

enum Entry {
    Value(Vec<u8>),
    Bucket(Vec<u8>),
}

impl<'f> Reader<'f> {
    fn open(file: &'f File) -> Result<Self, BoltError> {
        let mut best: Option<Reader<'f>> = None;
        let offsets = std::iter::once(0).chain(PAGE_SIZES.iter().map(|size| u64::from(*size)));
        for offset in offsets {
            let mut page = [0; PAGE_HEADER + META_BYTES];
            if file.read_exact_at(&mut page, offset).is_err() {
                continue;
            }
            if let Some(reader) = Reader::from_meta(file, &page[PAGE_HEADER..], offset)
                && best.as_ref().is_none_or(|best| best.transaction < reader.transaction)
            {
                best = Some(reader);
            }
        }
        best.ok_or(BoltError::Damaged("no valid meta page"))
    }

    fn from_meta(file: &'f File, meta: &[u8], offset: u64) -> Option<Self> {
        let page_size = u32_at(meta, 8)?;
        let valid = u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, 56)? == fnv1a(meta.get(..56)?)
            && PAGE_SIZES.contains(&page_size)
            && (offset == 0 || offset == u64::from(page_size));
        valid.then_some(Reader {
            file,
            page_size,
            root: u64_at(meta, 16)?,
            high_water: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
            budget: MAX_BYTES_READ,
        })
    }

    fn find(&mut self, path: &[&[u8]], key: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
        let mut page = self.page(self.root)?;
        for name in path {
            let Some(entry) = self.search(page, name)? else {
                return Ok(None);
            };
            let Entry::Bucket(value) = entry else {
                return Err(BoltError::Damaged("a value where a bucket should be"));
            };
            let root = u64_at(&value, 0).ok_or(BoltError::Damaged("a bucket is cut short"))?;
            page = match root {
                // An inline bucket: its only page follows the header.
                0 => value.get(BUCKET_HEADER..).unwrap_or_default().to_vec(),
                root => self.page(root)?,
            };
        }
        match self.search(page, key)? {
            None => Ok(None),
            Some(Entry::Value(value)) => Ok(Some(value)),
            Some(Entry::Bucket(_)) => Err(BoltError::Damaged("a bucket where a value should be")),
        }
    }

    /// Searches the B+tree whose root page this is.
    fn search(&mut self, mut page: Vec<u8>, key: &[u8]) -> Result<Option<Entry>, BoltError> {
        for _ in 0..MAX_DEPTH {
            let flags = u16_at(&page, 8).ok_or(BoltError::Damaged("a page is cut short"))?;
            if flags == LEAF {
                return leaf(&page, key);
            }
            if flags != BRANCH {
                return Err(BoltError::Damaged("a page that is neither branch nor leaf"));
            }
            match child(&page, key)? {
                Some(id) => page = self.page(id)?,
                None => return Ok(None),
            }
        }
        Err(BoltError::Damaged("the tree is too deep"))
    }

    /// A page with its overflow.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, BoltError> {
        if id < 2 || id >= self.high_water {
            return Err(BoltError::Damaged("a page id out of range"));
        }
        let size = u64::from(self.page_size);
        let offset = id.checked_mul(size).ok_or(BoltError::Damaged("a page id out of range"))?;
        let mut header = [0; PAGE_HEADER];
        self.file.read_exact_at(&mut header, offset)?;
        if u64_at(&header, 0) != Some(id) {
            return Err(BoltError::Damaged("a page that is not the one looked for"));
        }
        let overflow = u64::from(u32_at(&header, 12).unwrap_or_default());
        let length = (overflow + 1) * size;
        self.budget = self.budget.checked_sub(length).ok_or(BoltError::TooMuch)?;
        let mut page = vec![0; usize::try_from(length).map_err(|_| BoltError::TooMuch)?];
        self.file.read_exact_at(&mut page, offset)?;
        Ok(page)
    }
}

/// Leaf element: flags u32, position u32 (from the element), key size u32, value size u32.
fn leaf(page: &[u8], key: &[u8]) -> Result<Option<Entry>, BoltError> {
    for index in 0..usize::from(u16_at(page, 10).unwrap_or_default()) {
        let at = PAGE_HEADER + index * ELEMENT;
        let entry = (|| {
            let key_at = at.checked_add(u32_at(page, at + 4)? as usize)?;
            let value_at = key_at.checked_add(u32_at(page, at + 8)? as usize)?;
            let end = value_at.checked_add(u32_at(page, at + 12)? as usize)?;
            Some((u32_at(page, at)?, page.get(key_at..value_at)?, page.get(value_at..end)?))
        })();
        let (flags, found, value) = entry.ok_or(BoltError::Damaged("a leaf element leaves its page"))?;
        if found == key {
            let value = value.to_vec();
            let is_bucket = flags & ELEMENT_IS_BUCKET != 0;
            return Ok(Some(if is_bucket { Entry::Bucket(value) } else { Entry::Value(value) }));
        }
    }
    Ok(None)
}

/// Branch element: position u32 (from the element), key size u32, page id u64. The child with the last key that is not
/// after ours may hold it.
fn child(page: &[u8], key: &[u8]) -> Result<Option<u64>, BoltError> {
    let mut child = None;
    for index in 0..usize::from(u16_at(page, 10).unwrap_or_default()) {
        let at = PAGE_HEADER + index * ELEMENT;
        let entry = (|| {
            let key_at = at.checked_add(u32_at(page, at)? as usize)?;
            let end = key_at.checked_add(u32_at(page, at + 4)? as usize)?;
            Some((page.get(key_at..end)?, u64_at(page, at + 8)?))
        })();
        let (first, id) = entry.ok_or(BoltError::Damaged("a branch element leaves its page"))?;
        if first > key {
            break;
        }
        child = Some(id);
    }
    Ok(child)
}

/// The checksum of a meta page.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

// bbolt writes numbers in the machine's order; every machine that Portcullis runs on is little-endian.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[path = "bolt_tests.rs"]
mod tests;
