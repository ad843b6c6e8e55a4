//! Root file systems, made of what the guest has: a static busybox, the probe, the attacks, a dynamic program with its loader.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::{Failure, Result, process};

/// Directories of every root file system.
const DIRECTORIES: &[&str] = &[
    "data",
    "dev",
    "etc",
    "home",
    "lib64",
    "opt",
    "out",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/local/bin",
    "usr/sbin",
    "var/lib",
    "var/log",
    ".portcullis",
];

/// As distributions have it: rules name the links, and mean where they lead.
const LINKS: &[(&str, &str)] = &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("var/run", "../run")];

/// Applets of busybox that get a name in /bin.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "cp", "mv", "rm", "ln", "mkdir", "rmdir", "touch", "chmod", "chown", "echo", "sleep", "tar", "true",
    "false", "id", "head", "grep", "find", "dd", "stat", "kill", "ps", "nc", "wget", "mknod", "test", "sync", "seq", "wc",
];

/// A program loader and the one library that `touch` needs; a file that is not there is left out.
const DYNAMIC: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/aarch64-linux-gnu/libc.so.6",
];

/// Where a static busybox may be.
const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox", "/usr/local/bin/busybox"];

/// The guest's busybox.
pub(crate) fn busybox() -> Result<PathBuf> {
    BUSYBOX
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::io("busybox (install busybox-static)", std::io::Error::from(std::io::ErrorKind::NotFound)))
}

/// Whether the layout has a link at this path of the container.
pub(crate) fn is_link(path: &[u8]) -> bool {
    LINKS.iter().any(|(name, _)| path.strip_prefix(b"/") == Some(name.as_bytes()))
}

/// Makes a root file system at `root`, from nothing.
pub(crate) fn make(root: &Path) -> Result<()> {
    guest::remove_tree(root)?;
    for directory in DIRECTORIES {
        guest::make_directory(&root.join(directory))?;
    }
    for (name, target) in LINKS {
        let name = root.join(name);
        std::os::unix::fs::symlink(target, &name).map_err(|source| Failure::io(name.display(), source))?;
    }
    guest::make_open_directory(&root.join("tmp"))?;
    guest::make_open_directory(&root.join(".portcullis"))?;
    guest::copy(&busybox()?, &root.join("bin/busybox"))?;
    for applet in APPLETS {
        let name = root.join("bin").join(applet);
        std::os::unix::fs::symlink("busybox", &name).map_err(|source| Failure::io(name.display(), source))?;
    }
    for file in DYNAMIC {
        if Path::new(file).is_file() {
            guest::copy(Path::new(file), &root.join(file.trim_start_matches('/')))?;
        }
    }
    guest::write(&root.join("etc/passwd"), b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")?;
    guest::write(&root.join("etc/hosts"), b"127.0.0.1 localhost\n")
}

/// A root file system with the programs as a tar, for engines that import it; made once by each run.
pub(crate) fn archive(guest: &Guest) -> Result<PathBuf> {
    let (root, archive) = (guest.work.join("image/root"), guest.work.join("image/image.tar"));
    static MADE: AtomicBool = AtomicBool::new(false);
    if !MADE.load(Ordering::Relaxed) {
        make(&root)?;
        add_programs(guest, &root)?;
        process::must(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."), b"", COMMAND_LIMIT)?;
        MADE.store(true, Ordering::Relaxed);
    }
    Ok(archive)
}

/// An overlay over `lower`; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// The merged tree.
    pub merged: PathBuf,
}

impl Overlay {
    /// Mounts one whose upper directory is empty, below `place`.
    pub(crate) fn mount(lower: &Path, place: &Path) -> Result<Self> {
        let merged = place.join("merged");
        unmount(&merged);
        guest::remove_tree(place)?;
        for part in ["upper", "work", "merged"] {
            guest::make_directory(&place.join(part))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            place.join("upper").display(),
            place.join("work").display()
        );
        process::must(
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged),
            b"",
            Duration::from_secs(30),
        )?;
        Ok(Self { merged })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.merged);
    }
}

fn unmount(path: &Path) {
    if path.exists() {
        let _ = process::run(Command::new("umount").arg("-l").arg(path), b"", Duration::from_secs(30));
    }
}

/// The programs of this crate, in a root file system.
pub(crate) fn add_programs(guest: &Guest, root: &Path) -> Result<()> {
    guest::copy(&guest.probe, &root.join("probe"))?;
    guest::copy(&guest.attack, &root.join("attack"))?;
    guest::copy(&guest.observer, &root.join("observer"))
}
