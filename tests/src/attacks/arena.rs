//! The place of the attacks: the protected files, put back from outside before each attack, and looked at after it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::guest::{self, Guest};
use crate::image::{self, Overlay};
use crate::process::{Dialogue, Talk};

/// `SECRET_PREFIX` in attack.h.
const SECRET: &[u8] = b"PORTCULLIS-SECRET of the tests\n";
const PROTECTED: &[u8] = b"protected\n";
const NOTE: &[u8] = b"note\n";
/// A program with one library; the mark it leaves is the file it makes. Some distributions have it as one of many names.
const TOUCH: &str = "/usr/bin/touch";

/// What the container's root file system is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A directory of the host.
    Directory,
    /// An overlay, as engines make it.
    Overlay,
}

impl Ground {
    /// For names of tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ground::Directory => "directory",
            Ground::Overlay => "overlay",
        }
    }
}

/// A root file system with the protected files, and the helper outside.
#[derive(Debug)]
pub(crate) struct Arena {
    /// What it is on.
    pub ground: Ground,
    /// The directory that is shared with the container.
    pub out: PathBuf,
    root: PathBuf,
    helper: Dialogue,
    _overlay: Option<Overlay>,
}

impl Arena {
    /// Makes one.
    pub(crate) fn make(guest: &Guest, ground: Ground) -> Result<Self> {
        let place = guest.work.join("attacks");
        let lower = place.join("root");
        image::make(&lower)?;
        image::add_programs(guest, &lower)?;
        guest::make_open_directory(&lower.join("allowed"))?;
        let out = place.join("out");
        guest::make_open_directory(&out)?;
        let overlay = match ground {
            Ground::Directory => None,
            Ground::Overlay => Some(Overlay::mount(&lower, &place.join("overlay"))?),
        };
        let root = overlay.as_ref().map_or(lower, |overlay| overlay.merged.clone());
        let inner = root.join("data/vault/inner");
        let mut helper = Dialogue::start(
            Command::new(&guest.attack)
                .arg("--serve")
                .arg(out.join("helper.sock"))
                .arg(inner.join("secret.txt"))
                .arg(inner.join("protected.txt")),
        )?;
        helper.line(Duration::from_secs(60))?;
        Ok(Self { ground, out, root, helper, _overlay: overlay })
    }

    /// The root file system, as the host sees it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The helper outside.
    pub(crate) fn helper_pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Puts everything back.
    pub(crate) fn reset(&mut self, guest: &Guest) -> Result<()> {
        let root = &self.root;
        guest::remove_tree(&root.join("data"))?;
        guest::remove_tree(&self.out.join("mark"))?;
        let allowed = root.join("allowed");
        for entry in std::fs::read_dir(&allowed).into_iter().flatten().flatten() {
            // A mount in the container's namespace keeps its directory busy there, not here.
            guest::remove_tree(&entry.path())?;
        }
        let inner = root.join("data/vault/inner");
        for directory in ["data", "data/vault", "data/vault/inner", "data/locked"] {
            guest::make_open_directory(&root.join(directory))?;
        }
        for (path, bytes) in [(inner.join("secret.txt"), SECRET), (inner.join("protected.txt"), PROTECTED), (self.note(), NOTE)] {
            guest::write(&path, bytes)?;
            guest::set_mode(&path, 0o666)?;
        }
        guest::copy(&guest.attack, &inner.join("prog"))?;
        guest::copy(&guest.attack, &root.join("data/locked/tool"))?;
        if Path::new(TOUCH).is_file() {
            guest::copy(Path::new(TOUCH), &inner.join("dyn"))?;
        }
        let busybox = image::busybox()?;
        let inside = root.join("bin/busybox");
        let size = |path: &Path| path.metadata().map(|data| data.len()).ok();
        if size(&inside) != size(&busybox) {
            guest::copy(&busybox, &inside)?;
        }
        Ok(())
    }

    /// What an attack changed or ran, whatever it says itself.
    pub(crate) fn damage(&self) -> Option<String> {
        let inner = self.root.join("data/vault/inner");
        if self.out.join("mark").exists() {
            return Some("the denied program ran: its mark is there".to_owned());
        }
        for (path, bytes) in [(inner.join("secret.txt"), SECRET), (inner.join("protected.txt"), PROTECTED), (self.note(), NOTE)] {
            match std::fs::read(&path) {
                Ok(found) if found == bytes => {}
                Ok(_) => return Some(format!("{} was changed", path.display())),
                Err(error) => return Some(format!("{}: {error}", path.display())),
            }
        }
        let locked = std::fs::read_dir(self.root.join("data/locked")).into_iter().flatten().flatten().count();
        (locked != 2).then(|| "something was made or removed below the locked directory".to_owned())
    }

    fn note(&self) -> PathBuf {
        self.root.join("data/locked/note")
    }
}
