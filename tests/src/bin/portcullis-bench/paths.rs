//! The directories whose paths are judged: a root of their own, so that each path has exactly the wanted bytes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Letters of the components.
const LETTERS: &[u8] = b"environmentproductionreleaseservice";

/// A path of that many bytes and components.
pub(crate) fn path(bytes: usize, components: usize) -> Vec<u8> {
    let letters = bytes - components;
    let mut path = Vec::with_capacity(bytes);
    for index in 0..components {
        let length = letters / components + usize::from(index < letters % components);
        path.push(b'/');
        path.extend((0..length).map(|at| LETTERS[(index * 7 + at) % LETTERS.len()]));
    }
    path
}

/// The process' root directory is one that holds the paths and nothing else. Left by the end of the process; what it held is
/// removed when this is dropped.
pub(crate) struct Jail;

impl Jail {
    /// Makes the directories and enters. Files of the machine can't be opened from here on.
    pub(crate) fn enter(paths: &[Vec<u8>]) -> io::Result<Jail> {
        let root = std::env::temp_dir().join(format!("portcullis-bench.{}", std::process::id()));
        for path in paths {
            fs::create_dir_all(inside(&root, path))?;
        }
        rustix::process::chroot(&root)?;
        std::env::set_current_dir("/")?;
        Ok(Jail)
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir("/") else { return };
        for entry in entries.flatten() {
            // What can't be removed stays in the temporary directory: no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn inside(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(&path[1..]))
}

/// Makes a path the one that is judged.
pub(crate) fn go(path: &[u8]) -> io::Result<()> {
    std::env::set_current_dir(OsStr::from_bytes(path))
}
