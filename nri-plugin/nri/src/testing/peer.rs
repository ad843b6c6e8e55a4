//! The connection to one plugin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use ttrpc::r#async::transport::{Listener, Socket};
use ttrpc::r#async::{Client, MethodHandler, Server, Service, TtrpcContext};

use super::{FakeError, Profile};
use crate::Identity;
use crate::client::{call, call_encoded};
use crate::events::Events;
use crate::mux::{ConnId, Mux};
use crate::proto::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, PLUGIN_SERVICE, PodSandbox, RUNTIME_SERVICE,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest, UpdateContainersResponse,
};

/// How the runtime answers UpdateContainers.
type UpdateAnswer = Result<Vec<ContainerUpdate>, String>;

/// A plugin, as the runtime sees it. Dropping it closes the connection.
pub struct FakePlugin {
    pub(super) profile: Profile,
    pub(super) client: Client,
    mux: Mux,
    /// In a mutex to be shareable: the server itself is not.
    server: Mutex<Server>,
    registration: RegisterPluginRequest,
    events: Events,
    updates: tokio::sync::Mutex<mpsc::UnboundedReceiver<UpdateContainersRequest>>,
    update_answer: Arc<Mutex<UpdateAnswer>>,
}

impl FakePlugin {
    /// Takes the plugin at the other end of `stream` to where it is registered and configured.
    pub async fn start(stream: UnixStream, profile: Profile) -> Result<FakePlugin, FakeError> {
        let opened = Mux::new(stream, [ConnId::PLUGIN, ConnId::RUNTIME]);
        let (mux, [plugin, runtime]) = opened.map_err(|error| FakeError::Closed(error.to_string()))?;
        let (registered, mut registrations) = mpsc::unbounded_channel();
        let (updated, updates) = mpsc::unbounded_channel();
        let update_answer = Arc::new(Mutex::new(Ok(Vec::new())));
        let connections = futures::stream::iter([Ok(runtime)]).chain(futures::stream::pending());
        let mut server = Server::new().add_listener(Listener::new(connections)).register_service(runtime_service(
            registered,
            updated,
            update_answer.clone(),
        ));
        server.start().await.map_err(|error| FakeError::Closed(error.to_string()))?;
        let client = Client::new(Socket::new(plugin));
        let registration = tokio::select! {
            came = timeout(profile.registration_timeout, registrations.recv()) => came.ok().flatten(),
            end = mux.closed() => return Err(closed(end)),
        };
        let registration = registration.ok_or(FakeError::NotRegistered)?;
        Identity::new(&registration.plugin_name, &registration.plugin_idx)
            .map_err(|error| FakeError::RegistrationRefused(error.to_string()))?;
        let mut peer = FakePlugin {
            profile,
            client,
            mux,
            server: Mutex::new(server),
            registration,
            events: Events::NONE,
            updates: tokio::sync::Mutex::new(updates),
            update_answer,
        };
        peer.events = peer.configure().await?;
        Ok(peer)
    }

    async fn configure(&self) -> Result<Events, FakeError> {
        let profile = &self.profile;
        let milliseconds = |time: std::time::Duration| match profile.says_timeouts() {
            true => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
            false => 0,
        };
        let request = ConfigureRequest {
            config: profile.config.clone(),
            runtime_name: profile.name.clone(),
            runtime_version: profile.version.clone(),
            registration_timeout: milliseconds(profile.registration_timeout),
            request_timeout: milliseconds(profile.request_timeout),
            nri_version: if profile.says_nri { format!("v{}", profile.nri) } else { String::new() },
        };
        let result = self.call::<ConfigureResponse>("Configure", &request).await;
        let mask = match result {
            Ok(response) => response.events,
            Err(error) => {
                self.hang_up();
                return Err(error);
            }
        };
        let valid = profile.nri.events();
        if mask & !valid.mask() != 0 {
            self.hang_up();
            return Err(FakeError::InvalidEvents(mask & !valid.mask()));
        }
        Ok(Events::from_mask(mask).ok().filter(|events| !events.is_empty()).unwrap_or(valid))
    }

    /// What the plugin registered as.
    pub fn registration(&self) -> &RegisterPluginRequest {
        &self.registration
    }

    /// What the plugin subscribed to.
    pub fn events(&self) -> Events {
        self.events
    }

    /// Tells the plugin what exists, in one message.
    pub async fn synchronize(&self, pods: &[PodSandbox], containers: &[Container]) -> Result<Vec<ContainerUpdate>, FakeError> {
        self.synchronize_in_parts(pods, containers, usize::MAX).await
    }

    /// Tells the plugin what exists, in messages of at most so many pods and so many containers.
    pub async fn synchronize_in_parts(
        &self,
        mut pods: &[PodSandbox],
        mut containers: &[Container],
        most: usize,
    ) -> Result<Vec<ContainerUpdate>, FakeError> {
        loop {
            let (some_pods, other_pods) = pods.split_at(pods.len().min(most));
            let (some_containers, other_containers) = containers.split_at(containers.len().min(most));
            (pods, containers) = (other_pods, other_containers);
            let more = !pods.is_empty() || !containers.is_empty();
            let request = SynchronizeRequest { pods: some_pods.to_vec(), containers: some_containers.to_vec(), more };
            let result = self.call::<SynchronizeResponse>("Synchronize", &request).await;
            // NRI up to 0.6.1 keeps the connection whatever happens here.
            let keep = !self.profile.says_timeouts();
            match result {
                Ok(response) if !more => return Ok(response.update),
                Ok(response) if response.more && response.update.is_empty() => {}
                Ok(_) => {
                    self.hang_up();
                    return Err(FakeError::SplitNotHandled);
                }
                Err(error) => {
                    if !keep {
                        self.hang_up();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Sends a request to any method, encoded, and gives back the answer, encoded. Does not close the connection.
    pub async fn call_raw(&self, method: &str, payload: Vec<u8>) -> Result<Vec<u8>, FakeError> {
        self.check_open()?;
        Ok(call_encoded(&self.client, (PLUGIN_SERVICE, method), payload, self.profile.request_timeout).await?)
    }

    pub(super) async fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, FakeError> {
        self.check_open()?;
        Ok(call(&self.client, (PLUGIN_SERVICE, method), request, self.profile.request_timeout).await?)
    }

    fn check_open(&self) -> Result<(), FakeError> {
        if self.is_closed() { Err(FakeError::Closed("already".to_owned())) } else { Ok(()) }
    }

    /// Waits for the plugin to update containers by itself.
    pub async fn next_update(&self) -> Option<UpdateContainersRequest> {
        self.updates.lock().await.recv().await
    }

    /// Sets how such updates are answered: with those that failed, or with an error.
    pub fn answer_updates_with(&self, answer: Result<Vec<ContainerUpdate>, String>) {
        *self.update_answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Closes the connection at once, as a runtime does that is dissatisfied.
    pub fn hang_up(&self) {
        self.mux.abort();
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.mux.is_closed()
    }

    /// Waits until the connection is closed, by either end.
    pub async fn closed(&self) {
        let _ = self.mux.closed().await;
    }

    /// Closes the connection after what is on its way has been sent.
    pub async fn disconnect(self) {
        self.mux.close().await;
        let _ = self.server.into_inner().unwrap_or_else(PoisonError::into_inner).shutdown().await;
    }
}

fn closed(end: Result<(), crate::mux::MuxError>) -> FakeError {
    FakeError::Closed(end.err().map_or_else(|| "by the plugin".to_owned(), |error| error.to_string()))
}

type Handle = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, ttrpc::Status> + Send + Sync>;

fn runtime_service(
    registered: mpsc::UnboundedSender<RegisterPluginRequest>,
    updated: mpsc::UnboundedSender<UpdateContainersRequest>,
    answer: Arc<Mutex<UpdateAnswer>>,
) -> HashMap<String, Service> {
    let invalid = |error: prost::DecodeError| ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, error);
    let register: Handle = Box::new(move |payload| {
        let request = RegisterPluginRequest::decode(payload).map_err(invalid)?;
        let checked = Identity::new(&request.plugin_name, &request.plugin_idx);
        let _ = registered.send(request);
        checked.map_err(|error| ttrpc::get_status(ttrpc::Code::UNKNOWN, error))?;
        Ok(Vec::new())
    });
    let update: Handle = Box::new(move |payload| {
        let _ = updated.send(UpdateContainersRequest::decode(payload).map_err(invalid)?);
        match &*answer.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(failed) => Ok(UpdateContainersResponse { failed: failed.clone() }.encode_to_vec()),
            Err(text) => Err(ttrpc::get_status(ttrpc::Code::UNKNOWN, text)),
        }
    });
    let entry = |handle| Box::new(Entry(handle)) as Box<dyn MethodHandler + Send + Sync>;
    let methods = HashMap::from([("RegisterPlugin".to_owned(), entry(register)), ("UpdateContainers".to_owned(), entry(update))]);
    HashMap::from([(RUNTIME_SERVICE.to_owned(), Service { methods, streams: HashMap::new() })])
}

struct Entry(Handle);

#[async_trait]
impl MethodHandler for Entry {
    async fn handler(&self, _: TtrpcContext, request: ttrpc::Request) -> ttrpc::Result<ttrpc::Response> {
        let mut response = ttrpc::Response::new();
        match (self.0)(&request.payload) {
            Ok(payload) => {
                response.set_status(ttrpc::get_status(ttrpc::Code::OK, ""));
                response.payload = payload;
            }
            Err(status) => response.set_status(status),
        }
        Ok(response)
    }
}
