//! The driver: makes the connection to the runtime, keeps it, and makes it again.

mod backoff;
mod identity;
mod session;
mod socket;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::dispatch::Pace;
use crate::events::Events;
use crate::handle::RuntimeHandle;
use crate::plugin::Plugin;
use crate::state::{ConnectionState, Disconnect};

use backoff::Backoff;
pub use identity::{Identity, IdentityError};
pub use session::{REGISTRATION_TIMEOUT, SYNCHRONIZE_TIMEOUT};

/// Where runtimes listen unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";

/// Why a plugin cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StubError {
    /// A bad name or index.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The runtime has started the plugin, but the socket it left for it is unusable.
    #[error("NRI_PLUGIN_SOCKET={value:?} is no usable socket: {source}; it is set by the runtime for the plugins it starts")]
    Inherited {
        /// The variable's value.
        value: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
}

/// How the plugin comes to its connection.
#[derive(Debug)]
enum Way {
    /// It connects to the runtime's socket, again and again.
    Connect(PathBuf),
    /// The runtime started it and gave it one connection.
    Inherited(std::os::unix::net::UnixStream),
}

type StateHook = Box<dyn Fn(&ConnectionState) + Send + Sync>;

/// Builds a [`Stub`]; from [`Stub::builder`].
pub struct StubBuilder<P> {
    plugin: P,
    name: Option<String>,
    index: Option<String>,
    socket: PathBuf,
    pace: Pace,
    on_state_change: Option<StateHook>,
}

impl<P: Plugin> StubBuilder<P> {
    /// The plugin's name: letters, digits and `_.+-`. A runtime that starts the plugin says the name itself.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The plugin's index, two digits: plugins are called in the order of their indices. A runtime that starts the plugin
    /// says the index itself.
    #[must_use]
    pub fn index(mut self, index: impl Into<String>) -> Self {
        self.index = Some(index.into());
        self
    }

    /// The runtime's socket; [`DEFAULT_SOCKET`] otherwise. In a container, mount its directory and not the socket: a
    /// runtime that restarts makes a new one.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }

    /// Lets handlers run beyond the time that the runtime gives them. The runtime then goes on without their answer and
    /// closes the connection. The default is to answer with a failure just in time; see [`Plugin`].
    #[must_use]
    pub fn answer_late(mut self) -> Self {
        self.pace = Pace::Late;
        self
    }

    /// Calls `hook` with each new state of the connection, in order. It must not block.
    #[must_use]
    pub fn on_state_change(mut self, hook: impl Fn(&ConnectionState) + Send + Sync + 'static) -> Self {
        self.on_state_change = Some(Box::new(hook));
        self
    }

    /// Checks name and index, and finds out who starts whom: a runtime that started this process has set
    /// `NRI_PLUGIN_NAME`, `NRI_PLUGIN_IDX` and `NRI_PLUGIN_SOCKET`, and nothing else in its environment.
    pub fn build(self) -> Result<Stub<P>, StubError> {
        let way = match socket::inherited()? {
            Some(stream) => Way::Inherited(stream),
            None => Way::Connect(self.socket),
        };
        Ok(Stub {
            plugin: Arc::new(self.plugin),
            identity: Identity::from_environment(self.name, self.index)?,
            way,
            pace: self.pace,
            handle: RuntimeHandle::new(),
            on_state_change: self.on_state_change,
        })
    }
}

/// A plugin with its connection to the runtime.
pub struct Stub<P> {
    plugin: Arc<P>,
    identity: Identity,
    way: Way,
    pace: Pace,
    handle: RuntimeHandle,
    on_state_change: Option<StateHook>,
}

impl<P: Plugin> Stub<P> {
    /// Begins with the plugin itself.
    pub fn builder(plugin: P) -> StubBuilder<P> {
        StubBuilder {
            plugin,
            name: None,
            index: None,
            socket: PathBuf::from(DEFAULT_SOCKET),
            pace: Pace::InTime,
            on_state_change: None,
        }
    }

    /// The plugin.
    pub fn plugin(&self) -> &Arc<P> {
        &self.plugin
    }

    /// Name and index.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the runtime started this process, and will not start it again when its connection ends.
    pub fn is_started_by_runtime(&self) -> bool {
        matches!(self.way, Way::Inherited(_))
    }

    /// The way to the runtime.
    pub fn handle(&self) -> RuntimeHandle {
        self.handle.clone()
    }

    /// Runs the plugin until `stop` is done.
    ///
    /// A plugin that connects by itself does so again for ever: it waits for a runtime that is not there, and for one that
    /// restarts. Of a plugin that the runtime started, the one connection is all there is: its end is an error here.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Disconnect> {
        let mut stop = pin!(stop);
        let Stub { plugin, identity, way, pace, handle, on_state_change } = self;
        let states = handle.clone();
        let report = move |state: ConnectionState| {
            log::debug!("{state:?}");
            if let Some(hook) = &on_state_change {
                hook(&state);
            }
            states.set_state(state);
        };
        let mut driver = Driver { plugin, identity, pace, handle, report: Box::new(report) };
        match way {
            Way::Inherited(stream) => driver.run_once(stream, &mut stop).await,
            Way::Connect(path) => {
                driver.run_for_ever(&path, &mut stop).await;
                Ok(())
            }
        }
    }
}

/// What all connections of a plugin share.
struct Driver<P> {
    plugin: Arc<P>,
    identity: Identity,
    pace: Pace,
    handle: RuntimeHandle,
    report: Box<dyn Fn(ConnectionState) + Send + Sync>,
}

/// The end of a session.
struct Ended {
    reason: Disconnect,
    /// It had come to where events come.
    was_synchronized: bool,
}

impl<P: Plugin> Driver<P> {
    async fn run_once(
        &mut self,
        stream: std::os::unix::net::UnixStream,
        stop: &mut (impl Future<Output = ()> + Unpin + Send),
    ) -> Result<(), Disconnect> {
        let broken = |error| Disconnect::Broken(crate::mux::MuxError::Io(Arc::new(error)));
        let stream = UnixStream::from_std(stream).map_err(broken)?;
        let ended = self.session(stream, None, Events::ALL, stop).await;
        (self.report)(match ended.reason {
            Disconnect::Stopped => ConnectionState::Stopped,
            ref reason => ConnectionState::Disconnected { reason: reason.clone(), retry_in: None },
        });
        match ended.reason {
            Disconnect::Stopped => Ok(()),
            reason => Err(reason),
        }
    }

    async fn run_for_ever(&mut self, path: &std::path::Path, stop: &mut (impl Future<Output = ()> + Unpin + Send)) {
        let mut backoff = Backoff::default();
        let mut limit = Events::ALL;
        loop {
            (self.report)(ConnectionState::Connecting);
            let connected = tokio::select! {
                () = &mut *stop => break,
                connected = socket::connect(path) => connected,
            };
            let ended = match connected {
                Ok((stream, identity)) => {
                    let watch = socket::Watch::new(path, identity);
                    self.session(stream, Some(watch), limit, stop).await
                }
                Err(reason) => Ended { reason, was_synchronized: false },
            };
            if matches!(ended.reason, Disconnect::Stopped) {
                break;
            }
            // One narrower attempt: should the drop have had another reason, the attempt after it is a full one again.
            limit = match ended.reason {
                Disconnect::EventsRefused(_) => Events::BEFORE_0_10,
                _ => Events::ALL,
            };
            if ended.was_synchronized {
                backoff = Backoff::default();
            }
            let wait = backoff.next();
            log::warn!("{}; next attempt within {} ms", ended.reason, wait.as_millis());
            (self.report)(ConnectionState::Disconnected { reason: ended.reason, retry_in: Some(wait) });
            tokio::select! {
                () = &mut *stop => break,
                () = socket::wait_for_change(path, wait) => {}
            }
        }
        (self.report)(ConnectionState::Stopped);
    }
}

/// How long a runtime may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
