//! Asking the runtime for something outside any event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use ttrpc::r#async::Client;

use crate::client::{CallError, call};
use crate::dispatch::IN_HANDLER;
use crate::proto::{ContainerUpdate, RUNTIME_SERVICE, UpdateContainersRequest, UpdateContainersResponse};
use crate::state::ConnectionState;

/// How long the runtime may take to update containers: it waits for the requests of other plugins first.
pub const UPDATE_TIMEOUT: Duration = Duration::from_secs(60);

/// A way to the runtime that outlives single connections. Clones are the same.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    shared: Arc<Shared>,
}

struct Shared {
    client: Mutex<Option<Client>>,
    state: watch::Sender<ConnectionState>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// Why containers were not updated.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The runtime holds its lock during each event, and this call needs it: both would wait for each other.
    #[error("containers cannot be updated from within a handler; return the updates from it, or do it in a task of its own")]
    InsideHandler,
    /// There is no runtime at the moment.
    #[error("there is no synchronized connection to the runtime; wait for ConnectionState::Synchronized and try again")]
    NotConnected,
    /// The runtime said no.
    #[error("the runtime refused the update: {0}")]
    Refused(String),
    /// The runtime did not answer.
    #[error("the runtime did not answer within {} s; what was asked for may still happen", .0.as_secs())]
    TimedOut(Duration),
    /// The connection was lost meanwhile.
    #[error("the connection was lost ({0}); what was asked for may have happened or not")]
    Lost(String),
}

impl RuntimeHandle {
    pub(crate) fn new() -> RuntimeHandle {
        RuntimeHandle { shared: Arc::new(Shared { client: Mutex::default(), state: watch::Sender::default() }) }
    }

    /// Changes the resources of containers; gives back those that the runtime could not change.
    ///
    /// Must not be called, nor waited for, from within a handler: the runtime holds its lock until the handler has answered.
    /// In the handler's own task this is an error; in a task that a handler started it cannot be seen, so such a task must
    /// not be waited for. Some runtimes deadlock even when the call meets an event (containerd#10085, #13733; fixed with NRI
    /// 0.12.2), so use this rarely.
    pub async fn update_containers(&self, update: Vec<ContainerUpdate>) -> Result<Vec<ContainerUpdate>, UpdateError> {
        if IN_HANDLER.try_with(|()| ()).is_ok() {
            return Err(UpdateError::InsideHandler);
        }
        let client = self.client().clone().ok_or(UpdateError::NotConnected)?;
        let request = UpdateContainersRequest { update, evict: Vec::new() };
        let method = (RUNTIME_SERVICE, "UpdateContainers");
        match call::<UpdateContainersResponse>(&client, method, &request, UPDATE_TIMEOUT).await {
            Ok(response) => Ok(response.failed),
            Err(CallError::Status { message, .. }) => Err(UpdateError::Refused(message)),
            Err(CallError::TimedOut(time)) => Err(UpdateError::TimedOut(time)),
            Err(CallError::Failed(text)) => Err(UpdateError::Lost(text)),
        }
    }

    /// Where the connection stands, now and from now on. Only the latest state is kept;
    /// [`StubBuilder::on_state_change`](crate::StubBuilder::on_state_change) sees each.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    /// Waits until events come.
    pub async fn synchronized(&self) {
        // The sender is in self.
        let _ = self.state().wait_for(ConnectionState::is_synchronized).await;
    }

    pub(crate) fn set_state(&self, state: ConnectionState) {
        self.shared.state.send_replace(state);
    }

    pub(crate) fn set_client(&self, client: Option<Client>) {
        *self.client() = client;
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.shared.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
