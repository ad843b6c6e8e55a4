//! Where the hook looks: the proc file system of the host it runs on, and the one way in which it reads a file.
//!
//! Everything that the hook reads was written by somebody else, so each read has a limit and no read can block: a FIFO or a
//! device in the place of a file is refused before the first byte.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The host's proc file system. A test puts a directory of plain files in its place.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/proc`, mounted for the pid namespace that the runtime's pids belong to.
    pub proc: PathBuf,
    /// The effective user that the hook runs as.
    pub uid: u32,
}

impl Default for Host {
    fn default() -> Self {
        Host { proc: PathBuf::from("/proc"), uid: rustix::process::geteuid().as_raw() }
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused.
    #[error("cannot read {path}: {}", because(*errno))]
    System {
        /// The file as it was named.
        path: PathBuf,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A directory, a device, a FIFO or a symbolic link where a file should be.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file as it was named.
        path: PathBuf,
    },
    /// More bytes than the limit.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file as it was named.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

impl ReadError {
    /// The file, or a directory on the way to it, does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, ReadError::System { errno, .. } if *errno == Errno::NOENT || *errno == Errno::NOTDIR)
    }
}

/// The kernel's own words, without the "(os error 2)" that [`std::io::Error`] adds.
pub fn because(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Opens a regular file below `dir` for reading. The last component is not followed when it is a symbolic link.
pub fn open_regular(dir: impl AsFd, name: &Path, shown: &Path) -> Result<File, ReadError> {
    let system = |errno| ReadError::System { path: shown.to_owned(), errno };
    // O_NONBLOCK: opening a FIFO for reading would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => {
            return Err(ReadError::NotAFile { path: shown.to_owned() });
        }
        opened => opened.map_err(system)?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(system)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotAFile { path: shown.to_owned() });
    }
    Ok(File::from(fd))
}

/// Reads a whole regular file of at most `limit` bytes.
pub fn read_at(dir: impl AsFd, name: &Path, shown: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = open_regular(dir, name, shown)?;
    read_to_limit(file, shown, limit)
}

/// As [`read_at`], for a path.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    read_at(rustix::fs::CWD, path, path, limit)
}

/// Reads to the end of a stream that must not be longer than `limit` bytes.
pub fn read_to_limit(stream: impl Read, shown: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes).map_err(|error| ReadError::System {
        path: shown.to_owned(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: shown.to_owned(), limit });
    }
    Ok(bytes)
}

/// Opens a directory for looking things up in it. Symbolic links are followed.
pub fn open_dir(path: &Path) -> Result<OwnedFd, ReadError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| ReadError::System { path: path.to_owned(), errno })
}
