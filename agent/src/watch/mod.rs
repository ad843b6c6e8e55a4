//! Watches the policy directory, and the records of the containers that doors let in.
//!
//! inotify says that something changed; what is there is read anew each time. Every directory on the way to the policy
//! directory is watched too, so that it may be renamed, removed, created again, or be a symbolic link that is switched. What
//! inotify cannot see (a file that is a link to somewhere else, a network file system, a lost event) a slow look finds.
//!
//! Used with nothing but inotify itself rather than through a portable crate: those also ask for the opening of files, and every
//! hook that reads the policies would wake the agent once for each of them.

mod inotify;
mod settling;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::inotify::{Inotify, Saw};
use self::settling::{Happened, Settling};
use crate::Error;

/// How often the policy directory is looked at without any event.
const RESCAN: Duration = Duration::from_secs(30);
/// The same where inotify cannot be used at all.
const RESCAN_BLIND: Duration = Duration::from_secs(5);
/// How long records of containers are collected before they are told.
const KNOWN_QUIET: Duration = Duration::from_millis(50);
/// Most names in the policy directory that are looked at; the enforcer refuses far fewer.
const MAX_NAMES: usize = 65_536;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Something in the policy directory.
    Policies,
    /// The records of these containers were written.
    Known(BTreeSet<String>),
    /// Those of these were removed.
    Left(BTreeSet<String>),
}

impl Change {
    fn is_of_nobody(&self) -> bool {
        matches!(self, Change::Known(ids) | Change::Left(ids) if ids.is_empty())
    }
}

/// A running watch; ends when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The watcher polls the other end, which hangs up with this one.
    _running: UnixStream,
}

impl Watch {
    /// Begins to watch. What changes after this returns is told to `tell`, on a thread of its own.
    pub(crate) fn start(policy_dir: &Path, known_dir: &Path, tell: impl Fn(Change) + Send + 'static) -> Result<Watch, Error> {
        let failed = |source| Error::Thread { name: "watch", source };
        let (running, stop) = UnixStream::pair().map_err(failed)?;
        let mut watcher = Watcher {
            policy_dir: policy_dir.to_owned(),
            known_dir: known_dir.to_owned(),
            inotify: None,
            way: Vec::new(),
            replaced: false,
            seen: 0,
            settling: Settling::default(),
            known: BTreeSet::new(),
            left: BTreeSet::new(),
            known_since: Instant::now(),
            looked: Instant::now(),
            tell: Box::new(tell),
        };
        watcher.watch_anew();
        watcher.seen = fingerprint(&watcher.policy_dir);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || watcher.run(&stop)).map_err(failed)?;
        Ok(Watch { _running: running })
    }
}

/// Device and inode, if there is something.
type Identity = Option<(u64, u64)>;

struct Watcher {
    policy_dir: PathBuf,
    known_dir: PathBuf,
    inotify: Option<Inotify>,
    /// What stands on the way to the policy directory, and it.
    way: Vec<Identity>,
    /// Something on the way was replaced. The identities need not show it: a directory that is removed and made again may well
    /// get the inode number that has just come free.
    replaced: bool,
    /// The fingerprint of the policy directory when it was last told.
    seen: u64,
    settling: Settling,
    known: BTreeSet<String>,
    left: BTreeSet<String>,
    known_since: Instant,
    looked: Instant,
    tell: Box<dyn Fn(Change) + Send>,
}

impl Watcher {
    fn run(mut self, stop: &UnixStream) {
        loop {
            let stopped = inotify::wait(self.inotify.as_ref(), stop, self.patience());
            if stopped {
                return;
            }
            let force = self.take_events();
            let now = Instant::now();
            if force || self.settling.is_settled(now) || now.duration_since(self.looked) >= self.rescan() {
                self.look(force);
            }
            if self.has_known() && now.duration_since(self.known_since) >= KNOWN_QUIET {
                let changes = [Change::Known(std::mem::take(&mut self.known)), Change::Left(std::mem::take(&mut self.left))];
                changes.into_iter().filter(|change| !change.is_of_nobody()).for_each(&self.tell);
            }
        }
    }

    /// Whether records were written or removed.
    fn has_known(&self) -> bool {
        !self.known.is_empty() || !self.left.is_empty()
    }

    fn rescan(&self) -> Duration {
        if self.inotify.is_some() { RESCAN } else { RESCAN_BLIND }
    }

    /// How long there is nothing to do if no event comes.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let left = |since: Instant, whole: Duration| whole.saturating_sub(now.duration_since(since));
        let mut patience = left(self.looked, self.rescan());
        if let Some(settles) = self.settling.settles_in(now) {
            patience = patience.min(settles);
        }
        if self.has_known() {
            patience = patience.min(left(self.known_since, KNOWN_QUIET));
        }
        patience
    }

    /// Whether events were lost, so that anything may have changed.
    fn take_events(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut lost = false;
        let now = Instant::now();
        let (settling, known, left, known_since) = (&mut self.settling, &mut self.known, &mut self.left, &mut self.known_since);
        let replaced = &mut self.replaced;
        inotify.drain(|saw| match saw {
            Saw::Way => {
                *replaced = true;
                settling.changed(now);
            }
            // What is being written under a name that is not read is of no interest until it gets another one.
            Saw::Policies(name, Happened::Written) if !may_be_policy(name.as_encoded_bytes()) => {}
            Saw::Policies(name, what) => settling.file(name, what, now),
            Saw::Known(name, is_there) => {
                if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| !id.starts_with('.')) {
                    if known.is_empty() && left.is_empty() {
                        *known_since = now;
                    }
                    // Who wants to know reads what is there by then.
                    if is_there {
                        known.insert(id.to_owned())
                    } else {
                        left.insert(id.to_owned())
                    };
                }
            }
            Saw::Lost => lost = true,
        });
        lost
    }

    /// Looks at the directory, and tells if it is not what it was.
    fn look(&mut self, force: bool) {
        self.settling = Settling::default();
        self.looked = Instant::now();
        let moved = self.replaced || way(&self.policy_dir) != self.way;
        if moved || self.inotify.is_none() {
            self.watch_anew();
        }
        let seen = fingerprint(&self.policy_dir);
        if force || moved || seen != self.seen {
            self.seen = seen;
            (self.tell)(Change::Policies);
        }
    }

    /// Sets the watches from nothing. An event between the old ones and the new ones is not missed: the directory is looked at
    /// afterwards, and telling that policies changed has every known container looked at.
    fn watch_anew(&mut self) {
        (self.way, self.replaced) = (way(&self.policy_dir), false);
        let blind = self.inotify.is_none() && self.seen != 0;
        match Inotify::watch(&self.policy_dir, &self.known_dir) {
            Ok(inotify) => {
                if blind {
                    info!("{} is watched again", self.policy_dir.display());
                }
                self.inotify = Some(inotify);
            }
            Err(errno) => {
                if !blind {
                    warn!(
                        "{} cannot be watched ({errno}) and is looked at every {} seconds instead; raise fs.inotify.max_user_instances and max_user_watches",
                        self.policy_dir.display(),
                        RESCAN_BLIND.as_secs()
                    );
                }
                self.inotify = None;
            }
        }
    }
}

/// Identities of all that stands on the way to a directory, and of it; links are followed, as they are when it is read.
fn way(directory: &Path) -> Vec<Identity> {
    directory.ancestors().map(|path| std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))).collect()
}

/// Changes with the set of policy files, and with each file's identity, size and times. Never 0.
fn fingerprint(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_NAMES);
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name()).filter(|name| may_be_policy(name.as_encoded_bytes())).collect();
    names.sort();
    let mut hasher = DefaultHasher::new();
    for name in names {
        let stamp = std::fs::metadata(directory.join(&name)).ok().map(|data| {
            (data.dev(), data.ino(), data.size(), (data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()))
        });
        (name, stamp).hash(&mut hasher);
    }
    hasher.finish().max(1)
}

/// Whether the enforcer might read a file of this name as a policy.
fn may_be_policy(name: &[u8]) -> bool {
    !name.starts_with(b".") && (name.ends_with(b".yaml") || name.ends_with(b".yml"))
}

#[cfg(test)]
mod tests;
