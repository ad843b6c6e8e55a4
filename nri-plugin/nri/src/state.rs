//! Where a connection to the runtime stands, and why it ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::events::Events;
use crate::mux::MuxError;
use crate::version::RuntimeInfo;

/// Where the connection stands.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Not connected yet.
    #[default]
    Connecting,
    /// Connected, and registering.
    Registering,
    /// The runtime has accepted the plugin and introduced itself.
    Configured(Session),
    /// The plugin has been told what exists, and gets events.
    Synchronized(Session),
    /// The connection has ended, or could not be made.
    Disconnected {
        /// Why.
        reason: Disconnect,
        /// When it will be tried again at the latest.
        retry_in: Option<Duration>,
    },
    /// The plugin was asked to stop.
    Stopped,
}

impl ConnectionState {
    /// Whether events come.
    pub fn is_synchronized(&self) -> bool {
        matches!(self, ConnectionState::Synchronized(_))
    }
}

/// What was agreed on with the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The runtime.
    pub runtime: Arc<RuntimeInfo>,
    /// The events that will come.
    pub subscribed: Events,
    /// The events that the plugin wants and this runtime does not have.
    pub unavailable: Events,
}

/// Why a connection ended or could not be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The socket cannot be connected to.
    #[error(
        "cannot connect to {path}: {source}; is the runtime running, with NRI enabled (containerd before 2.0 has it off)?",
        path = path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// The runtime does not want the plugin.
    #[error("the runtime refused the registration: {0}")]
    RegistrationRefused(String),
    /// No answer to the registration, or no Configure after it.
    #[error("the runtime did not complete the registration within {} s; it may be waiting for another plugin", .0.as_secs())]
    RegistrationTimeout(Duration),
    /// The plugin's own `configure` failed.
    #[error("the plugin cannot be configured: {0}")]
    Configure(String),
    /// The runtime closed the connection right after it was told the events.
    #[error("the runtime closed the connection after Configure, probably because it does not know one of the events {0}")]
    EventsRefused(Events),
    /// The runtime never said what exists.
    #[error("the runtime did not synchronize the plugin within {} s of its registration", .0.as_secs())]
    SynchronizeMissing(Duration),
    /// The plugin's own `synchronize` failed or was late.
    #[error("the plugin could not be synchronized: {0}")]
    Synchronize(String),
    /// There is another socket at the path: a new runtime listens there.
    #[error("the socket was made anew: another instance of the runtime listens on it")]
    SocketReplaced,
    /// The runtime closed the connection, or died.
    #[error("the runtime closed the connection; if it still runs, a request was probably not answered in time")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Broken(MuxError),
    /// The plugin was asked to stop.
    #[error("the plugin was stopped")]
    Stopped,
}
