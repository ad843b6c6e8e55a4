//! A file that is appended to, and makes room for a new one when it is full.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::warn;

/// The file, as far as it is open.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// The last line has no end: a write broke off, now or in an earlier life, and what it left could not be taken back.
    is_torn: bool,
}

impl Rotated {
    pub(super) fn new(path: &Path, max_bytes: u64, keep: u32) -> Rotated {
        Rotated { path: path.to_owned(), max_bytes, keep, open: None }
    }

    /// Appends lines, each with its end; all of them or none.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        if open.bytes > 0 && open.bytes + lines.len() as u64 > self.max_bytes {
            self.rotate()?;
            open = Open::at(&self.path)?;
        }
        // What failed is opened anew: it may have been moved, or its file system be another.
        open.append(lines)?;
        self.open = Some(open);
        Ok(())
    }

    /// Gives the file the number 1, and each older one the next. The one that has the last goes.
    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return absent_is_fine(std::fs::remove_file(&self.path));
        }
        for number in (1..self.keep).rev() {
            absent_is_fine(std::fs::rename(self.numbered(number), self.numbered(number + 1)))?;
        }
        absent_is_fine(std::fs::rename(&self.path, self.numbered(1)))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Open> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut open = Open { file, bytes: 0, is_torn: false };
        open.bytes = open.file.seek(SeekFrom::End(0))?;
        if open.bytes > 0 {
            let mut last = [0];
            open.file.seek(SeekFrom::End(-1))?;
            open.file.read_exact(&mut last)?;
            open.is_torn = last != *b"\n";
        }
        Ok(open)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.bytes += 1;
            self.is_torn = false;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.bytes += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A full disk takes part of it. Where that stays, whoever opens the file next sees a torn line.
                if let Err(uncut) = self.file.set_len(self.bytes) {
                    warn!("half a line stays in a file of events: {uncut}");
                }
                Err(error)
            }
        }
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("e.json");
        let mut file = Rotated::new(&path, 10, 2);
        for number in 0..8 {
            file.append(format!("{number:04}\n").as_bytes()).unwrap();
        }
        assert_eq!(names(temporary.path()), ["e.json", "e.json.1", "e.json.2"]);
        assert_eq!(text(&path), "0006\n0007\n");
        assert_eq!(text(&temporary.path().join("e.json.1")), "0004\n0005\n");
        assert_eq!(text(&temporary.path().join("e.json.2")), "0002\n0003\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "events hold secrets");
        file.append(&[b"x".repeat(20), b"\n".to_vec()].concat()).unwrap();
        assert_eq!(text(&path).len(), 21, "a line that is longer has a file of its own");
        assert_eq!(text(&temporary.path().join("e.json.1")), "0006\n0007\n");
    }

    #[test]
    fn without_older_ones_the_file_begins_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("e.json");
        let mut file = Rotated::new(&path, 10, 0);
        (0..3).for_each(|number| file.append(format!("{number:04}\n").as_bytes()).unwrap());
        assert_eq!((text(&path).as_str(), names(temporary.path()).len()), ("0002\n", 1));
    }

    #[test]
    fn it_goes_on_where_an_earlier_one_ended_and_a_torn_line_gets_its_end() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("e.json");
        std::fs::write(&path, "{\"whole\":1}\n{\"tor").unwrap();
        let mut file = Rotated::new(&path, 1000, 1);
        file.append(b"{}\n").unwrap();
        file.append(b"{}\n").unwrap();
        assert_eq!(text(&path), "{\"whole\":1}\n{\"tor\n{}\n{}\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_device_no_file() {
        let mut open = Open { file: OpenOptions::new().append(true).open("/dev/full").unwrap(), bytes: 0, is_torn: false };
        assert_eq!(open.append(b"{}\n").unwrap_err().kind(), ErrorKind::StorageFull);
        let refused = Rotated::new(Path::new("/dev/full"), 10, 1).append(b"{}\n").unwrap_err();
        assert_eq!(refused.to_string(), "it is no regular file");
    }

    #[test]
    fn what_failed_is_tried_from_the_start() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("later/e.json");
        let mut file = Rotated::new(&path, 10, 1);
        assert_eq!(file.append(b"{}\n").unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::create_dir(temporary.path().join("later")).unwrap();
        file.append(b"{}\n").unwrap();
        assert_eq!(text(&path), "{}\n");
    }
}
