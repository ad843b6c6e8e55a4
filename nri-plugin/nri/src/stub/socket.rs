//! The runtime's socket: connecting to it, inheriting it, and seeing that it is another one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::{CONNECT_TIMEOUT, StubError};
use crate::state::Disconnect;

const SOCKET_VARIABLE: &str = "NRI_PLUGIN_SOCKET";
/// How often the path is looked at while waiting. Looking costs one stat(2).
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the path is looked at while connected.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Which socket is at a path; two sockets never have the same change time and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketId {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// Looked at here and now: a runtime's socket lies in memory, and handing this to another thread costs twenty times as much.
fn socket_id(path: &Path) -> Option<SocketId> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some(SocketId { device: metadata.dev(), inode: metadata.ino(), changed })
}

/// Connects, and says to which socket.
pub(super) async fn connect(path: &Path) -> Result<(UnixStream, Option<SocketId>), Disconnect> {
    // Looked at first: should it be replaced in between, it counts as replaced.
    let id = socket_id(path);
    let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
    match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Ok((stream, id)),
        Err(error) => Err(Disconnect::Connect { path: path.to_owned(), source: Arc::new(error) }),
    }
}

/// Waits `wait`, or less if another socket appears at the path meanwhile.
pub(super) async fn wait_for_change(path: &Path, wait: Duration) {
    let until = Instant::now() + wait;
    let before = socket_id(path);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK_INTERVAL)).await;
        let now = socket_id(path);
        if now.is_some() && now != before {
            return;
        }
    }
}

/// Sees that the socket of a connection has been made anew.
pub(super) struct Watch {
    path: PathBuf,
    connected_to: Option<SocketId>,
}

impl Watch {
    pub(super) fn new(path: &Path, connected_to: Option<SocketId>) -> Watch {
        Watch { path: path.to_owned(), connected_to }
    }

    /// Waits until there is another socket at the path. That it is gone is no reason to leave: a runtime that stops closes
    /// the connection, too.
    pub(super) async fn replaced(&self) {
        loop {
            sleep(WATCH_INTERVAL).await;
            let now = socket_id(&self.path);
            // A socket has its owner or mode set after it was made, which changes it: only another inode counts here.
            let another = |id: SocketId| self.connected_to.is_some_and(|ours| (ours.device, ours.inode) != (id.device, id.inode));
            if now.is_some_and(another) {
                return;
            }
        }
    }
}

/// The connection that the runtime left for a plugin it started; `None` if it did not start this process.
pub(super) fn inherited() -> Result<Option<StdUnixStream>, StubError> {
    let Some(value) = std::env::var(SOCKET_VARIABLE).ok().filter(|value| !value.is_empty()) else { return Ok(None) };
    take(&value).map(Some).map_err(|source| StubError::Inherited { value, source })
}

/// Takes a copy of an inherited file descriptor. The number itself cannot be taken over in safe code, so it stays open
/// until the process ends; the trunk is shut down when it ends, so that the runtime sees it nevertheless.
fn take(number: &str) -> io::Result<StdUnixStream> {
    let number: i32 = number.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a number"))?;
    if number < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "negative"));
    }
    let own: Pid = getpid();
    let process = pidfd_open(own, PidfdFlags::empty())?;
    let fd: OwnedFd = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
    let stream = StdUnixStream::from(fd);
    // Also says whether it is a socket, and a connected one.
    stream.peer_addr()?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
