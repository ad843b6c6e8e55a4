//! The files of a document, in a root file system of the host: put there, and put back before each case.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use portcullis_policy::expectation::{Case, Expectation, File, FileCall, FileKind, Op, keeps_last_link};

use super::call::{self, Needs};
use super::{driver, probe_at};
use crate::guest::{self, Guest};
use crate::{Failure, Result, image};

/// What a container mounts over its root file system.
pub(crate) const MOUNTED: &[&str] = &["/proc", "/sys", "/dev"];
/// As in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;
/// The probe's file for capabilities, of a user that is none of the cases'.
const FOREIGN: &str = ".portcullis/foreign";
const FOREIGN_UID: u32 = 1234;

/// A root file system with a document's files.
pub(crate) struct Tree<'a> {
    guest: &'a Guest,
    root: PathBuf,
    files: Vec<File>,
    program: Vec<u8>,
}

impl<'a> Tree<'a> {
    /// Puts the links there, where they are not yet.
    pub(crate) fn new(guest: &'a Guest, root: &Path, document: &Expectation) -> Result<Self> {
        let program = std::fs::read(&guest.tiny).map_err(|source| Failure::io(guest.tiny.display(), source))?;
        let tree = Self { guest, root: root.to_owned(), files: document.files.clone(), program };
        // Links first: what else is declared may lie behind them.
        for file in tree.files.iter().filter(|file| matches!(file.kind, FileKind::Symlink(_))) {
            tree.declared(file)?;
        }
        Ok(tree)
    }

    /// Everything as it has to be before a case.
    pub(crate) fn prepare(&self, case: &Case) -> Result<()> {
        self.foreign()?;
        for file in &self.files {
            self.declared(file)?;
        }
        match &case.op {
            Op::File { call, path, to } => {
                if let Some(to) = to.as_ref().filter(|to| !self.is_declared(to)) {
                    self.absent(to)?;
                }
                match call {
                    call if call.creates() => self.absent(path)?,
                    FileCall::Rmdir => self.directory(path)?,
                    _ => self.present(path, false)?,
                }
            }
            Op::Exec(path) | Op::ExecDeleted(path) => self.present(path, true)?,
            Op::Syscall { call, path: Some(path), to, .. } => {
                if let Some(to) = to.as_ref().filter(|to| !self.is_declared(to)) {
                    self.absent(to)?;
                }
                match call::needs(*call) {
                    _ if self.is_declared(path) => {}
                    Needs::Nothing => self.absent(path)?,
                    Needs::Directory => self.directory(path)?,
                    Needs::File => self.present(path, false)?,
                    Needs::Executable => self.present(path, true)?,
                }
            }
            Op::Memfd | Op::Socket(..) | Op::Capability(_) | Op::Syscall { path: None, .. } => {}
        }
        let subject = self.resolve(&driver::subject(case), false)?;
        let size = |path: &Path| path.metadata().map(|data| data.len()).ok();
        if size(&subject) != size(&self.guest.probe) {
            probe_at(self.guest, &subject)?;
        }
        Ok(())
    }

    /// Where the operation's paths lead, as the container sees them; empty where it has none.
    pub(crate) fn real(&self, op: &Op) -> Result<(String, Option<String>)> {
        let inside = |path: &[u8], keep_last: bool| -> Result<String> {
            let path = self.resolve(path, keep_last)?;
            let below = path.strip_prefix(&self.root).unwrap_or(&path);
            Ok(format!("/{}", String::from_utf8_lossy(below.as_os_str().as_bytes())))
        };
        Ok(match op {
            Op::File { call, path, to } => {
                (inside(path, call.keeps_last_link())?, to.as_ref().map(|to| inside(to, true)).transpose()?)
            }
            Op::Exec(path) | Op::ExecDeleted(path) => (inside(path, false)?, None),
            Op::Syscall { call, path: Some(path), to, .. } => {
                let keep_last = keeps_last_link(*call);
                (inside(path, keep_last)?, to.as_ref().map(|to| inside(to, true)).transpose()?)
            }
            Op::Memfd | Op::Socket(..) | Op::Capability(_) | Op::Syscall { path: None, .. } => (String::new(), None),
        })
    }

    /// Where a path of the container leads on the host; never out of the root, whatever the links say. Missing parents are
    /// made, open to everybody: the permission bits are not what is tested.
    fn resolve(&self, path: &[u8], keep_last: bool) -> Result<PathBuf> {
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).rev().collect()
        };
        let mut ahead = split(path);
        let mut at = self.root.clone();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == b".." {
                if at != self.root {
                    at.pop();
                }
                continue;
            }
            let next = at.join(OsStr::from_bytes(&part));
            let is_last = ahead.is_empty();
            match next.symlink_metadata() {
                Ok(data) if data.is_symlink() && !(is_last && keep_last) && links < MAX_LINKS => {
                    links += 1;
                    let target = std::fs::read_link(&next).map_err(|source| Failure::io(next.display(), source))?;
                    if target.is_absolute() {
                        at = self.root.clone();
                    }
                    ahead.extend(split(target.as_os_str().as_bytes()));
                    continue;
                }
                Ok(data) if !is_last && !data.is_dir() => {
                    guest::remove_tree(&next)?;
                    guest::make_open_directory(&next)?;
                }
                Err(_) if !is_last => guest::make_open_directory(&next)?,
                _ => {}
            }
            at = next;
        }
        Ok(at)
    }

    fn declared(&self, file: &File) -> Result<()> {
        if MOUNTED.iter().any(|mount| file.path.starts_with(mount.as_bytes())) {
            return Ok(());
        }
        let path = self.resolve(&file.path, true)?;
        let found = path.symlink_metadata().ok();
        let usual = match &file.kind {
            FileKind::Symlink(target) => {
                if !found.is_some_and(|data| data.is_symlink()) {
                    guest::remove_tree(&path)?;
                    std::os::unix::fs::symlink(OsStr::from_bytes(target), &path)
                        .map_err(|source| Failure::io(path.display(), source))?;
                }
                return Ok(());
            }
            FileKind::Dir => {
                if !found.is_some_and(|data| data.is_dir()) {
                    guest::remove_tree(&path)?;
                    guest::make_directory(&path)?;
                }
                0o777
            }
            FileKind::File => self.regular(&path, b"content\n", 0o666)?,
            FileKind::Exe => self.regular(&path, &self.program, 0o777)?,
        };
        std::os::unix::fs::chown(&path, Some(file.owner), Some(file.owner))
            .map_err(|source| Failure::io(path.display(), source))?;
        guest::set_mode(&path, file.mode.unwrap_or(usual))
    }

    /// A regular file with this content; a probe that an earlier case put there stays.
    fn regular(&self, path: &Path, content: &[u8], mode: u32) -> Result<u32> {
        let probe = self.guest.probe.metadata().map(|data| data.len()).ok();
        match path.symlink_metadata() {
            Ok(data) if data.is_file() && (data.len() == content.len() as u64 || Some(data.len()) == probe) => {}
            _ => {
                guest::remove_tree(path)?;
                guest::write(path, content)?;
            }
        }
        Ok(mode)
    }

    fn is_declared(&self, path: &[u8]) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    /// Whether the document or the image's layout has a link at this path.
    fn is_link(&self, path: &[u8]) -> bool {
        let declared = |file: &File| file.path == path && matches!(file.kind, FileKind::Symlink(_));
        self.files.iter().any(declared) || image::is_link(path)
    }

    fn absent(&self, path: &[u8]) -> Result<()> {
        let path = self.resolve(path, true)?;
        if path == self.root { Ok(()) } else { guest::remove_tree(&path) }
    }

    fn directory(&self, path: &[u8]) -> Result<()> {
        let path = self.resolve(path, true)?;
        guest::remove_tree(&path)?;
        guest::make_open_directory(&path)
    }

    fn present(&self, path: &[u8], executable: bool) -> Result<()> {
        if self.is_declared(path) || MOUNTED.iter().any(|mount| path.starts_with(mount.as_bytes())) {
            return Ok(());
        }
        // A link of the image at this place is not what the case is about.
        let place = self.resolve(path, true)?;
        if place.is_symlink() && !self.is_link(path) {
            guest::remove_tree(&place)?;
        }
        let path = self.resolve(path, false)?;
        if path.is_dir() && (path == self.root || !executable) {
            return Ok(());
        }
        let (content, mode) = if executable { (&self.program[..], 0o777) } else { (&b"content\n"[..], 0o666) };
        self.regular(&path, content, mode)?;
        // An earlier case may have given it away.
        std::os::unix::fs::chown(&path, Some(0), Some(0)).map_err(|source| Failure::io(path.display(), source))?;
        guest::set_mode(&path, mode)
    }

    fn foreign(&self) -> Result<()> {
        guest::remove_tree(&self.root.join(".portcullis/node"))?;
        let path = self.root.join(FOREIGN);
        if !path.exists() {
            guest::write(&path, b"")?;
        }
        guest::set_mode(&path, 0)?;
        std::os::unix::fs::chown(&path, Some(FOREIGN_UID), Some(FOREIGN_UID))
            .map_err(|source| Failure::io(path.display(), source))
    }
}
