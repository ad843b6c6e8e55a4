//! Symbolic links in a container's root file system.
//!
//! The container may change its links as it likes, but not yet: rules are resolved before its first instruction. Still every
//! step is made with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)`, because images are written by strangers: no link leads
//! out of the root, and none is followed but by [`ContainerRoot::leads`] itself, which counts them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::program::{Executable, interpreter};

/// Most links that are followed for one path, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Longest path that is looked up.
const MAX_PATH_BYTES: usize = 4096;

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// A container's root directory, with what was learnt of it.
#[derive(Debug)]
pub struct ContainerRoot<'a> {
    fd: BorrowedFd<'a>,
    seen: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> ContainerRoot<'a> {
    /// The root that `fd` is open on, all mounts made.
    #[must_use]
    pub fn new(fd: BorrowedFd<'a>) -> ContainerRoot<'a> {
        ContainerRoot { fd, seen: HashMap::new() }
    }

    /// The other names of an absolute, canonical path: with the links in its parents followed, and with the last component
    /// followed too. What does not exist has no links. A loop leads nowhere.
    pub fn leads(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let Some(last) = path.iter().rposition(|&byte| byte == b'/') else { return names };
        if let Ok(mut parent) = self.follow(&path[..last]) {
            parent.extend_from_slice(&path[last..]);
            if let Ok(end) = self.follow(&parent) {
                names.push(end);
            }
            names.push(parent);
        }
        names.retain(|name| !name.is_empty() && name != path);
        names.dedup();
        names
    }

    /// The executable file that a path leads to, whatever dots and links are in it; nothing where no runtime would find one. What lies
    /// in a proc file system is another thing for whoever looks, and so has no path.
    ///
    /// # Errors
    /// If it cannot be told: what cannot be looked at here may well be executed by somebody else.
    pub(crate) fn executable(&mut self, path: &[u8]) -> io::Result<Option<Executable>> {
        let path = match self.follow(path) {
            Ok(path) => path,
            // The kernel follows no more of them either.
            Err(Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if self.is_in_proc(&path) {
            return Ok(Some(Executable { path: None, uid: None, interpreter: None }));
        }
        let there = match self.open(&path, OFlags::PATH) {
            Ok(there) => there,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(there)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0 {
            return Ok(None);
        }
        let file = self.open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        Ok(Some(Executable { path: Some(path), uid: Some(stat.st_uid), interpreter: interpreter(File::from(file))? }))
    }

    /// Whether what is there of a path is in a proc file system.
    fn is_in_proc(&self, path: &[u8]) -> bool {
        let ends = (0..=path.len()).rev().filter(|&end| end == path.len() || path[end] == b'/');
        let there = ends.filter_map(|end| self.open(&path[..end], OFlags::PATH).ok()).next();
        there.is_some_and(|file| rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == PROC_SUPER_MAGIC))
    }

    /// Opens what a path without links leads to; the root is empty.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix(b"/").filter(|relative| !relative.is_empty()).unwrap_or(b".");
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let relative = Path::new(OsStr::from_bytes(relative));
        rustix::fs::openat2(self.fd, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Follows every link of a path; the root is empty.
    fn follow(&mut self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut done: Vec<u8> = Vec::new();
        let mut waiting: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = waiting.pop() {
            if name == b".." {
                done.truncate(done.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                continue;
            }
            let parent = done.len();
            done.push(b'/');
            done.extend_from_slice(&name);
            if done.len() > MAX_PATH_BYTES || waiting.len() > MAX_PATH_BYTES {
                return Err(Errno::NAMETOOLONG);
            }
            if let Some(target) = self.link(&done) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                done.truncate(if target.starts_with(b"/") { 0 } else { parent });
                waiting.append(&mut components(&target));
            }
        }
        Ok(done)
    }

    /// The target of a link whose parents hold none.
    fn link(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        if let Some(known) = self.seen.get(path) {
            return known.clone();
        }
        let target = self.read_link(path);
        self.seen.insert(path.to_vec(), target.clone());
        target
    }

    fn read_link(&self, path: &[u8]) -> Option<Vec<u8>> {
        let file = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return None;
        }
        // /proc/self and its like lead elsewhere for everybody who reads them: here it would be the hook.
        if rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type as u64 == PROC_SUPER_MAGIC) {
            return None;
        }
        rustix::fs::readlinkat(&file, "", Vec::new()).ok().map(|target| target.into_bytes())
    }
}

/// The components of a path, the first at the end.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn leads(root: &Path, path: &str) -> Vec<String> {
        let directory = File::open(root).unwrap();
        let names = ContainerRoot::new(directory.as_fd()).leads(path.as_bytes());
        names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn links_lead_within_the_root_only() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("etc/alternatives")).unwrap();
        fs::write(root.join("usr/bin/mawk"), "").unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/etc/alternatives/awk", root.join("usr/bin/awk")).unwrap();
        symlink("/usr/bin/mawk", root.join("etc/alternatives/awk")).unwrap();
        symlink("../../../../../../etc/shadow", root.join("out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/gone/below", root.join("dangling")).unwrap();
        symlink("/", root.join("top")).unwrap();
        for (path, expected) in [
            ("/usr/bin/mawk", &[][..]),
            ("/bin", &["/usr/bin"]),
            ("/bin/ls", &["/usr/bin/ls"]),
            ("/bin/awk", &["/usr/bin/mawk", "/usr/bin/awk"]),
            ("/bin/new/deep", &["/usr/bin/new/deep"]),
            ("/out", &["/etc/shadow"]),
            ("/loop", &[]),
            ("/loop/x", &[]),
            ("/dangling", &["/gone/below"]),
            ("/dangling/x", &["/gone/below/x"]),
            ("/top/usr", &["/usr"]),
            ("/top", &[]),
            ("/absent/x", &[]),
        ] {
            assert_eq!(leads(root, path), expected, "{path}");
        }
    }
}
