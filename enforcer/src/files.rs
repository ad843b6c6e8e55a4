//! Reading with limits, and writing so that nobody ever sees half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::OFlags;

use crate::Error;

/// Reads a regular file of at most `limit` bytes. Never blocks on a FIFO, never reads a device.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let failed = |source: std::io::Error| Error::file("read", path, source);
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let what = format!("has more than {limit} bytes, the most that is read");
        return Err(Error::Limit { path: path.to_owned(), what, help: "split it, or remove it if it is not ours" });
    }
    Ok(bytes)
}

/// Replaces a file in one step: whoever opens it sees the old bytes or the new ones.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(".{}.{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary: PathBuf = directory.join(unique);
    let failed = |source: std::io::Error| Error::file("write", path, source);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file: File| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The error that matters is the first.
        drop(fs::remove_file(&temporary));
        return Err(failed(error));
    }
    Ok(())
}

/// Removes a file; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("remove", path, error)),
    }
}

/// Makes a directory that root alone may look into, with its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| Error::file("create", path, error))
}

/// The names in a directory, sorted; none if there is no such directory.
pub(crate) fn list(path: &Path, limit: usize) -> Result<Vec<String>, Error> {
    let failed = |source: std::io::Error| Error::file("list", path, source);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours, and no policy's.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
        if names.len() > limit {
            let what = format!("has more than {limit} entries");
            return Err(Error::Limit { path: path.to_owned(), what, help: "remove what does not belong there" });
        }
    }
    names.sort();
    Ok(names)
}
