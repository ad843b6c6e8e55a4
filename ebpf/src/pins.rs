//! The file system with the pins: what is in force is what is pinned.
//!
//! ```text
//! /sys/fs/bpf/portcullis/v<layout>/maps/<map>
//! /sys/fs/bpf/portcullis/v<layout>/links/<build>/<program>
//! /sys/fs/bpf/portcullis/monitor-v<layout>/                 the same for the monitor
//! ```
//!
//! A directory of links is made under the name `<build>-new` and renamed when it is whole, so a crash never leaves half a
//! build that looks like a whole one. Directories on their way out are `<build>-old`. Removing a link's pin detaches it.
//!
//! Another layout's directory is left alone until unloading: containers that were armed under it keep their rules. Another layout's
//! monitor decides nothing, and goes when one is loaded.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use crate::abi::LAYOUT;
use crate::{Error, monitor};

/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

const NEW: &str = "-new";
const OLD: &str = "-old";

/// Where pins and locks are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where the BPF file system is mounted.
    mount: PathBuf,
    /// Directory of ours in it.
    root: PathBuf,
    /// Directory of the locks.
    run: PathBuf,
    /// Name of the directory of what is loaded here, and the version of its layout, which is the end of that name.
    layout: (&'static str, u32),
}

impl Place {
    /// The one place that is in force on a host.
    pub(crate) fn system() -> Place {
        Place::named("portcullis")
    }

    /// A place beside it, for benchmarks and tests.
    pub(crate) fn named(name: &str) -> Place {
        let mount = PathBuf::from("/sys/fs/bpf");
        Place { root: mount.join(name), mount, run: Path::new("/run").join(name), layout: ("v", LAYOUT) }
    }

    /// The monitor's part of this place. The locks are the same.
    pub(crate) fn monitor(&self) -> Place {
        Place { layout: ("monitor-v", monitor::abi::LAYOUT), ..self.clone() }
    }

    fn layout(&self) -> PathBuf {
        let (name, version) = self.layout;
        self.root.join(format!("{name}{version}"))
    }

    /// Version of the layout of what is here.
    pub(crate) fn version(&self) -> u32 {
        self.layout.1
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.layout().join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    fn links(&self) -> PathBuf {
        self.layout().join("links")
    }

    /// Whether the BPF file system is mounted where it belongs.
    pub(crate) fn mounted(&self) -> bool {
        statfs(&self.mount).is_ok_and(|info| info.f_type.cast_unsigned() == BPF_FS_MAGIC)
    }

    /// Mounts the BPF file system where it is not; true if that was needed.
    pub(crate) fn mount(&self) -> Result<bool, Error> {
        if self.mounted() {
            return Ok(false);
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &self.mount, "bpf", flags, c"mode=0700")
            .map_err(|error| Error::system(format!("mounting the BPF file system at {}", self.mount.display()), error))?;
        Ok(true)
    }

    /// Makes the directories for maps and links.
    pub(crate) fn create(&self) -> Result<(), Error> {
        create_dir(&self.maps())?;
        create_dir(&self.links())
    }

    /// The device number of the BPF file system as the kernel holds it in `s_dev` (include/linux/kdev_t.h `MKDEV`).
    pub(crate) fn device(&self) -> Result<u64, Error> {
        let info = rustix::fs::stat(&self.mount).map_err(|error| Error::file(&self.mount, error))?;
        Ok(u64::from(rustix::fs::major(info.st_dev)) << 20 | u64::from(rustix::fs::minor(info.st_dev)))
    }

    /// Waits until nobody else changes what is loaded. Held until the file is dropped.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        self.lock_exclusive("bpf.lock")
    }

    /// Waits until nobody else loads a monitor, likewise. Taken before the other.
    pub(crate) fn lock_loading(&self) -> Result<File, Error> {
        self.lock_exclusive("monitor.lock")
    }

    fn lock_exclusive(&self, name: &str) -> Result<File, Error> {
        let (file, path) = self.lock_file(name)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| Error::file(path, error))?;
        Ok(file)
    }

    /// The right to read a ring, which only one process can have; nothing if another has it.
    pub(crate) fn lock_reader(&self, name: &str) -> Result<Option<File>, Error> {
        let (file, path) = self.lock_file(name)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::file(path, error)),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(File, PathBuf), Error> {
        create_dir(&self.run)?;
        let path = self.run.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        Ok((file.map_err(|error| Error::file(&path, error))?, path))
    }

    /// The whole builds that are attached: usually one, two after an upgrade that did not come to its end.
    pub(crate) fn builds(&self) -> Result<Vec<String>, Error> {
        let mut builds = entries(&self.links())?;
        builds.retain(|name| !name.ends_with(NEW) && !name.ends_with(OLD));
        Ok(builds)
    }

    /// Directory of a whole build.
    pub(crate) fn build(&self, build: &str) -> PathBuf {
        self.links().join(build)
    }

    /// An empty directory to pin a new build's links in. What an earlier attempt has left there is removed.
    pub(crate) fn begin(&self, build: &str) -> Result<PathBuf, Error> {
        let path = self.links().join(format!("{build}{NEW}"));
        remove(&path)?;
        create_dir(&path)?;
        Ok(path)
    }

    /// Removes what was begun.
    pub(crate) fn abandon(&self, build: &str) -> Result<(), Error> {
        remove(&self.links().join(format!("{build}{NEW}")))
    }

    /// Makes what was begun the one build in force. In every instant at least one whole build is attached.
    pub(crate) fn finish(&self, build: &str) -> Result<(), Error> {
        self.settle(build)?;
        self.keep_only(build)
    }

    /// Makes what was begun a whole build, beside the one that was in force.
    pub(crate) fn settle(&self, build: &str) -> Result<(), Error> {
        let (from, to) = (self.links().join(format!("{build}{NEW}")), self.build(build));
        if to.exists() {
            // Somebody has removed pins from it; what is left of it stays attached until the new one is in place.
            let aside = self.links().join(format!("{build}{OLD}"));
            remove(&aside)?;
            rename(&to, &aside)?;
        }
        rename(&from, &to)
    }

    /// Puts what was begun to what is there of the same build.
    pub(crate) fn join(&self, build: &str) -> Result<(), Error> {
        let (from, to) = (self.links().join(format!("{build}{NEW}")), self.build(build));
        entries(&from)?.iter().try_for_each(|name| rename(&from.join(name), &to.join(name)))?;
        remove(&from)
    }

    /// Removes the links of a build that are of other programs than these.
    pub(crate) fn keep_programs(&self, build: &str, is_kept: impl Fn(&str) -> bool) -> Result<(), Error> {
        let directory = self.build(build);
        for name in entries(&directory)?.into_iter().filter(|name| !is_kept(name)) {
            let pin = directory.join(name);
            fs::remove_file(&pin).map_err(|error| Error::file(pin, error))?;
        }
        Ok(())
    }

    /// Removes every directory of links but that of one build.
    pub(crate) fn keep_only(&self, build: &str) -> Result<(), Error> {
        for name in entries(&self.links())? {
            if name != build {
                remove(&self.links().join(name))?;
            }
        }
        Ok(())
    }

    /// Removes everything of every layout, the monitor's too: links first, so that no program runs without its maps' meaning.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        let layouts = entries(&self.root)?;
        for name in &layouts {
            remove_links(&self.root.join(name).join("links"))?;
        }
        for name in &layouts {
            remove(&self.root.join(name).join("maps"))?;
            remove(&self.root.join(name))?;
        }
        remove(&self.root)
    }

    /// Removes this layout, and the directory of all if it was the last.
    pub(crate) fn clear_layout(&self) -> Result<(), Error> {
        remove_links(&self.links())?;
        remove(&self.maps())?;
        remove(&self.layout())?;
        if entries(&self.root)?.is_empty() { remove(&self.root) } else { Ok(()) }
    }

    /// Removes every other layout of what is here.
    pub(crate) fn clear_other_layouts(&self) -> Result<(), Error> {
        let (name, version) = self.layout;
        for found in entries(&self.root)? {
            match found.strip_prefix(name).and_then(|found| found.parse().ok()) {
                Some(other) if other != version => Place { layout: (name, other), ..self.clone() }.clear_layout()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The names of the pinned maps.
    pub(crate) fn pinned_maps(&self) -> Result<Vec<String>, Error> {
        entries(&self.maps())
    }
}

/// Names in a directory; none where there is no such directory.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>, Error> {
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file(path, error)),
    };
    let names = directory.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(|error| Error::file(path, error))?;
    names.sort();
    Ok(names)
}

fn create_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| Error::file(path, error))
}

/// Removes every build in a directory of links.
fn remove_links(links: &Path) -> Result<(), Error> {
    for build in entries(links)? {
        if !build.ends_with(OLD) && !build.ends_with(NEW) {
            // Half a build must not look like a whole one if this ends early.
            let aside = links.join(format!("{build}{OLD}"));
            remove(&aside)?;
            rename(&links.join(&build), &aside)?;
        }
    }
    for build in entries(links)? {
        remove(&links.join(build))?;
    }
    remove(links)
}

/// Removes a directory of pins.
fn remove(path: &Path) -> Result<(), Error> {
    for name in entries(path)? {
        let pin = path.join(name);
        fs::remove_file(&pin).map_err(|error| Error::file(pin, error))?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| Error::file(from, error))
}
