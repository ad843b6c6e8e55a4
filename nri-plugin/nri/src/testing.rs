//! The runtime's end of the protocol, for the tests of plugins.
//!
//! It behaves as the runtimes' common code does: it refuses unknown events, closes the connection of a plugin that is late,
//! does not ask a plugin for events it has not subscribed to, and speaks either dialect.
//!
//! ```
//! # use nri::{Answer, Context, Creation, Events, Plugin, Stub};
//! # use nri::proto::{Container, PodSandbox, ContainerAdjustment};
//! use nri::testing::{FakeRuntime, Profile};
//!
//! # struct Marker;
//! # impl Plugin for Marker {
//! #     fn events(&self) -> Events { Events::CREATE_CONTAINER }
//! #     async fn create_container(&self, _: &Context, _: PodSandbox, _: Container) -> Answer<Creation> {
//! #         let mut adjust = ContainerAdjustment::default();
//! #         adjust.set_annotation("seen", "yes");
//! #         Ok(adjust.into())
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let socket = directory.path().join("nri.sock");
//! let runtime = FakeRuntime::listen(&socket, Profile::containerd_2_1())?;
//! let stub = Stub::builder(Marker).name("marker").index("10").socket(&socket).build()?;
//! tokio::spawn(stub.run(std::future::pending()));
//!
//! let plugin = runtime.connect().await?; // registered, configured and synchronized
//! let creation = plugin.create_container(&PodSandbox::default(), &Container::default()).await?;
//! assert_eq!(creation.adjust.annotations["seen"], "yes");
//! # Ok(())
//! # }
//! ```

mod events;
mod peer;
mod profile;
mod samples;

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::client::CallError;
pub use peer::FakePlugin;
pub use profile::Profile;
pub use samples::{sample_container, sample_pod};

/// What went wrong between the fake runtime and a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FakeError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// No registration came in time.
    #[error("the plugin did not register in time")]
    NotRegistered,
    /// The registration was refused.
    #[error("the plugin's registration was refused: {0}")]
    RegistrationRefused(String),
    /// The plugin subscribed to something the runtime does not know; the connection was closed.
    #[error("invalid plugin events: {0:#x}")]
    InvalidEvents(i32),
    /// The plugin answered a part of a Synchronize as if it were the whole; the connection was closed.
    #[error("the plugin does not handle split sync requests")]
    SplitNotHandled,
    /// The plugin answered with a failure.
    #[error("the plugin failed the request: {message}")]
    Failed {
        /// The status code of ttrpc.
        code: i32,
        /// What it said.
        message: String,
    },
    /// The plugin did not answer in time; the connection was closed.
    #[error("the plugin did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The connection is closed.
    #[error("the connection to the plugin is closed: {0}")]
    Closed(String),
}

impl From<CallError> for FakeError {
    fn from(error: CallError) -> FakeError {
        match error {
            CallError::Status { code, message } => FakeError::Failed { code, message },
            CallError::TimedOut(time) => FakeError::TimedOut(time),
            CallError::Failed(text) => FakeError::Closed(text),
        }
    }
}

/// A runtime that waits for plugins.
#[derive(Debug)]
pub struct FakeRuntime {
    listener: UnixListener,
    path: PathBuf,
    profile: Profile,
}

impl FakeRuntime {
    /// Listens on a new socket, in place of one that is there. Needs a tokio runtime.
    pub fn listen(path: impl AsRef<Path>, profile: Profile) -> Result<FakeRuntime, FakeError> {
        let path = path.as_ref();
        if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        Ok(FakeRuntime { listener: UnixListener::bind(path)?, path: path.to_owned(), profile })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what runtime this is, for the plugins accepted from now on.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Accepts a plugin, and takes it to where it is registered and configured.
    pub async fn accept(&self) -> Result<FakePlugin, FakeError> {
        FakePlugin::start(self.accept_raw().await?, self.profile.clone()).await
    }

    /// Accepts a plugin, and takes it to where it is synchronized with a runtime that has no pods.
    pub async fn connect(&self) -> Result<FakePlugin, FakeError> {
        let plugin = self.accept().await?;
        plugin.synchronize(&[], &[]).await?;
        Ok(plugin)
    }

    /// Accepts a connection and does nothing with it: for frames of the test's own.
    pub async fn accept_raw(&self) -> Result<UnixStream, FakeError> {
        Ok(self.listener.accept().await?.0)
    }
}
