//! The watches, and what their events mean.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::settling::Happened;

/// Room for some hundred events at once.
const BUFFER_BYTES: usize = 16 << 10;

/// What an event tells.
pub(super) enum Saw<'a> {
    /// Something on the way to the policy directory.
    Way,
    /// A name in the policy directory.
    Policies(&'a OsStr, Happened),
    /// A record of a container, and whether it is there.
    Known(&'a OsStr, bool),
    /// The kernel had no room for an event.
    Lost,
}

/// What a watched directory is to us. One may be several things.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// On the way; only this name in it matters.
    Way(OsString),
    Policies,
    Known,
}

#[derive(Debug)]
pub(super) struct Inotify {
    fd: OwnedFd,
    roles: HashMap<i32, Vec<Role>>,
}

impl Inotify {
    /// Watches what there is of the way to the policy directory, of it, and of the records.
    pub(super) fn watch(policy_dir: &Path, known_dir: &Path) -> Result<Inotify, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut watched = Inotify { fd, roles: HashMap::new() };
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let contents = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        // From the root down: whatever is put in place of a part that is being watched below is seen by its parent.
        let mut way: Vec<&Path> = policy_dir.ancestors().skip(1).collect();
        way.reverse();
        for (index, directory) in way.iter().enumerate() {
            let below = way.get(index + 1).copied().unwrap_or(policy_dir);
            let Some(name) = below.file_name() else { continue };
            watched.add(directory, names | own, Role::Way(name.to_owned()))?;
        }
        watched.add(policy_dir, names | own | contents, Role::Policies)?;
        watched.add(known_dir, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE, Role::Known)?;
        Ok(watched)
    }

    fn add(&mut self, directory: &Path, flags: WatchFlags, role: Role) -> Result<(), Errno> {
        // MASK_ADD: a directory may have two roles.
        match inotify::add_watch(&self.fd, directory, flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD) {
            Ok(watch) => {
                self.roles.entry(watch).or_default().push(role);
                Ok(())
            }
            // Not there yet, or not a directory: its parent tells when that changes.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Tells all events that are waiting.
    pub(super) fn drain(&self, mut tell: impl FnMut(Saw<'_>)) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                // WOULDBLOCK is the end. Any other failure cannot be told from a loss.
                Err(Errno::WOULDBLOCK) => return,
                Err(_) => return tell(Saw::Lost),
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(Saw::Lost);
                continue;
            }
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            for role in self.roles.get(&event.wd()).into_iter().flatten() {
                match (role, name) {
                    (Role::Way(child), Some(name)) if name == child => tell(Saw::Way),
                    (Role::Policies, Some(name)) => tell(Saw::Policies(name, happened(flags))),
                    (Role::Known, Some(name)) => tell(Saw::Known(name, !flags.contains(ReadFlags::DELETE))),
                    // The directory itself was removed, moved or unmounted.
                    (Role::Way(_) | Role::Policies, None) => tell(Saw::Way),
                    (Role::Way(_), Some(_)) | (Role::Known, None) => {}
                }
            }
        }
    }
}

fn happened(flags: ReadFlags) -> Happened {
    let whole = ReadFlags::CLOSE_WRITE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
    if flags.contains(ReadFlags::MODIFY) && !flags.intersects(whole) { Happened::Written } else { Happened::Whole }
}

/// Waits for events; whether it is time to stop.
pub(super) fn wait(inotify: Option<&Inotify>, stop: &UnixStream, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).ok();
    let mut waited = vec![PollFd::new(stop, PollFlags::IN)];
    if let Some(inotify) = inotify {
        waited.push(PollFd::from_borrowed_fd(inotify.fd.as_fd(), PollFlags::IN));
    }
    match poll(&mut waited, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => !waited[0].revents().is_empty(),
        Err(_) => true,
    }
}
