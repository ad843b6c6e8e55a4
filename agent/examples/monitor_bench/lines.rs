//! What the agent has written.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Failed, PATIENCE};

/// What is not written so long after the last line is not going to be.
const QUIET: Duration = Duration::from_millis(300);

/// What the file of events has since it was looked at the last time.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
    /// Of which storm, in the paths.
    mark: String,
    rest: Vec<u8>,
    /// All lines, and those of this storm's files.
    pub(crate) all: u64,
    pub(crate) own: u64,
}

impl Lines {
    /// From the end of the file on.
    pub(crate) fn after(path: &Path) -> Result<Lines, Failed> {
        let mut lines =
            Lines { path: path.to_owned(), file: File::open(path)?, mark: String::new(), rest: Vec::new(), all: 0, own: 0 };
        lines.read()?;
        Ok(lines)
    }

    pub(crate) fn begin(&mut self, mark: String) {
        (self.mark, self.own) = (mark, 0);
    }

    /// Waits until so many are there, or no more come. How long they took.
    pub(crate) fn wait_for(&mut self, events: u64) -> Result<Duration, Failed> {
        let begun = Instant::now();
        let mut last = begun;
        while self.own < events && (self.own == 0 || last.elapsed() < QUIET) {
            std::thread::sleep(Duration::from_millis(2));
            let before = self.own;
            self.read()?;
            if self.own != before {
                last = Instant::now();
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} of {events} events were written in {PATIENCE:?}", self.own).into());
            }
        }
        Ok(last - begun)
    }

    fn read(&mut self) -> Result<(), Failed> {
        self.read_file()?;
        // A full one has made room for another.
        match std::fs::metadata(&self.path) {
            Ok(now) if now.ino() != self.file.metadata()?.ino() => {
                self.read_file()?;
                self.file = File::open(&self.path)?;
                self.read_file()
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn read_file(&mut self) -> Result<(), Failed> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(whole);
        for line in String::from_utf8_lossy(&bytes).lines() {
            self.all += 1;
            self.own += u64::from(line.contains(&self.mark));
        }
        Ok(())
    }
}
