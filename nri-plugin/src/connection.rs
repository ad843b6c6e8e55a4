//! A plugin's connection to one runtime, made again for ever, and how it stands.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nri::{ConnectionState, Disconnect, Stub, StubError};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::enforcement::Enforcement;
use crate::plugin::{Counts, Plugin};

/// The name under which the plugin registers.
pub const NAME: &str = "portcullis";
/// Its place among a runtime's plugins.
pub const INDEX: &str = "10";

/// How a connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// There is none; it is tried again and again.
    #[default]
    Down,
    /// It is being made.
    Connecting,
    /// Events come.
    Up,
}

/// A connection as `portcullis status` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// The runtime's socket; nothing if the runtime started the agent.
    pub socket: Option<PathBuf>,
    /// How it stands.
    pub link: Link,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// The runtime, its version and that of its NRI, while there is a connection.
    pub runtime: Option<String>,
    /// Whether the runtime refuses containers when the plugin fails it (NRI 0.10).
    pub validates: bool,
    /// Why there is no connection.
    pub trouble: Option<String>,
    /// What came through the door.
    pub counts: Counts,
}

/// A connection that was prepared.
pub struct Connection<E: Enforcement> {
    stub: Stub<Plugin<E>>,
    plugin: Plugin<E>,
    status: Arc<Mutex<ConnectionStatus>>,
}

impl<E: Enforcement> Connection<E> {
    /// To the runtime at a socket; or to the one that started this process, which says so in the environment.
    ///
    /// # Errors
    /// If the environment says so and what it says is unusable.
    pub fn prepare(plugin: Plugin<E>, socket: &Path) -> Result<Connection<E>, StubError> {
        let status: Arc<Mutex<ConnectionStatus>> = Arc::default();
        let told = Arc::clone(&status);
        let stub = Stub::builder(plugin.clone())
            .name(NAME)
            .index(INDEX)
            .socket(socket)
            .on_state_change(move |state| note(&told, state))
            .build()?;
        let by_runtime = stub.is_started_by_runtime();
        change(&status, |status| status.socket = (!by_runtime).then(|| socket.to_owned()));
        Ok(Connection { stub, plugin, status })
    }

    /// Tells how it stands, for as long as anybody asks.
    pub fn status(&self) -> impl Fn() -> ConnectionStatus + Send + Sync + use<E> {
        let (plugin, status) = (self.plugin.clone(), Arc::clone(&self.status));
        move || {
            let status = status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            ConnectionStatus { counts: plugin.counts(), ..status }
        }
    }

    /// Keeps the connection until `stop` is done.
    ///
    /// # Errors
    /// Only if the runtime started this process: then the end of the connection is the end.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Disconnect> {
        self.stub.run(stop).await
    }
}

fn note(status: &Mutex<ConnectionStatus>, state: &ConnectionState) {
    match state {
        ConnectionState::Connecting | ConnectionState::Registering => change(status, |status| {
            // Attempts that fail alike are one state, not many.
            if status.trouble.is_none() {
                status.link = Link::Connecting;
            }
        }),
        ConnectionState::Configured(session) => change(status, |status| {
            status.link = Link::Connecting;
            status.runtime = Some(session.runtime.to_string());
        }),
        ConnectionState::Synchronized(session) => {
            info!(runtime = %session.runtime, "containers come through NRI now");
            change(status, |status| {
                (status.link, status.trouble) = (Link::Up, None);
                status.runtime = Some(session.runtime.to_string());
                status.validates = session.subscribed.contains(nri::Events::VALIDATE_CONTAINER_ADJUSTMENT);
            });
        }
        ConnectionState::Disconnected { reason, .. } => {
            let trouble = reason.to_string();
            change(status, |status| {
                if status.trouble.as_ref() != Some(&trouble) {
                    match reason {
                        // No runtime with NRI on this host, as far as anybody knows: nothing to be alarmed about.
                        Disconnect::Connect { .. } if status.runtime.is_none() => info!("{trouble}"),
                        _ => warn!("{trouble}"),
                    }
                }
                (status.link, status.trouble, status.validates) = (Link::Down, Some(trouble), false);
            });
        }
        ConnectionState::Stopped => change(status, |status| {
            (status.link, status.trouble) = (Link::Down, Some("the agent is stopping".to_owned()));
        }),
        _ => {}
    }
}

fn change(status: &Mutex<ConnectionStatus>, change: impl FnOnce(&mut ConnectionStatus)) {
    let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
    let before = status.link;
    change(&mut status);
    if status.link != before || status.since == 0 {
        status.since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    }
}
