//! A socket for one user: whoever else connects is told from the others by the kernel.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::Error;

/// How soon connections are accepted again when the system had no room for one.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket, with who may use it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
}

impl Socket {
    /// Listens at `path` for whoever has the user id `uid`. A socket that a former agent left is replaced; the caller is the
    /// only agent.
    pub(crate) fn bind(path: &Path, uid: u32) -> Result<Socket, Error> {
        let failed = |source| Error::File { what: "listen on", path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(failed(io::Error::other("there is something else than a socket"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Socket { listener, path: path.to_owned(), uid })
    }

    /// The next connection, and whether it is the user's.
    pub(crate) async fn accept(&self) -> (UnixStream, bool) {
        loop {
            match self.listener.accept().await {
                // The permissions say so already; a socket that was made in somebody else's directory is safe, too.
                Ok((stream, _)) => {
                    let is_users = stream.peer_cred().is_ok_and(|peer| peer.uid() == self.uid);
                    return (stream, is_users);
                }
                Err(error) => {
                    warn!("a connection to {} could not be accepted: {error}", self.path.display());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Left behind it would only be in the way of the next agent, which removes it.
        drop(std::fs::remove_file(&self.path));
    }
}
