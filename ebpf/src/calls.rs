//! Watching system calls, while somebody needs it.
//!
//! The program at the tracepoint is pinned like all others, but not attached: every system call of the host would run it. Its link is
//! pinned beside it while it is; whether it is there is all the state there is, and it outlives us as any link does.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::kernel::Kernel;
use crate::pins::Place;
use crate::{Error, sys};

/// The program.
pub(crate) const PROGRAM: &str = "pc_sys_enter";
/// Its link.
pub(crate) const LINK: &str = "pc_sys_enter_link";

impl Kernel {
    /// Has system calls watched, or no longer.
    ///
    /// # Errors
    /// If the program can't be attached, or its pin can't be removed.
    pub fn set_calls_watched(&self, watched: bool) -> Result<(), Error> {
        let as_wanted = |place: &Place| Ok::<_, Error>(builds(place)?.into_iter().all(|(_, is)| is == watched));
        if as_wanted(&self.place)? {
            return Ok(());
        }
        let _lock = self.place.lock()?;
        for (directory, is) in builds(&self.place)? {
            match (is, watched) {
                (false, true) => watch(&directory)?,
                (true, false) => unwatch(&directory)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether system calls are watched.
    ///
    /// # Errors
    /// If the pins can't be read.
    pub fn calls_watched(&self) -> Result<bool, Error> {
        is_watched(&self.place)
    }
}

/// Whether some build in force watches.
pub(crate) fn is_watched(place: &Place) -> Result<bool, Error> {
    Ok(builds(place)?.into_iter().any(|(_, watched)| watched))
}

/// The directory of each build in force, and whether it watches.
fn builds(place: &Place) -> Result<Vec<(PathBuf, bool)>, Error> {
    let directory = |build: String| {
        let directory = place.build(&build);
        let watched = directory.join(LINK).try_exists().map_err(|error| Error::file(&directory, error))?;
        Ok((directory, watched))
    };
    place.builds()?.into_iter().map(directory).collect()
}

/// Attaches the program that is pinned in the directory of a build. The caller holds the lock.
pub(crate) fn watch(directory: &Path) -> Result<(), Error> {
    let (pin, link) = (directory.join(PROGRAM), directory.join(LINK));
    let program = sys::open_pin(&pin).map_err(|error| Error::file(&pin, error))?;
    let attached = sys::attach_tracepoint(program.as_fd()).map_err(|error| Error::system("watching system calls", error))?;
    match sys::pin(attached.as_fd(), &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file(link, error)),
        _ => Ok(()),
    }
}

fn unwatch(directory: &Path) -> Result<(), Error> {
    let link = directory.join(LINK);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(link, error)),
        _ => Ok(()),
    }
}
