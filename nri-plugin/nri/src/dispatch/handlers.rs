//! Each request, from its bytes to the bytes of its answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use crate::events::{Events, method_name};
use crate::failure::{Code, Failure};
use crate::plugin::{Configuration, Context, Plugin, Verdict};
use crate::proto::{
    ConfigureRequest, ConfigureResponse, Container, CreateContainerResponse, Event, PodSandbox, StartContainerRequest,
    StateChangeEvent, StopContainerResponse, SynchronizeResponse, UpdateContainerRequest, UpdateContainerResponse,
    UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse,
};
use crate::state::{Disconnect, Session};
use crate::version::{RuntimeInfo, known};

use super::call::{Pace, run, timeout};
use super::session::{Progress, Shared};
use super::{Method, decode};

/// What is subscribed to for a plugin that wants nothing: an empty set would mean everything.
const RAREST: Events = Events::REMOVE_POD_SANDBOX;

/// The answer without fields.
const EMPTY: Vec<u8> = Vec::new();

/// The requests of one connection.
pub(crate) struct Dispatch<P> {
    plugin: Arc<P>,
    shared: Arc<Shared>,
    pace: Pace,
}

type Payload = Result<Vec<u8>, Failure>;

impl<P: Plugin> Dispatch<P> {
    pub(crate) fn new(plugin: Arc<P>, shared: Arc<Shared>, pace: Pace) -> Dispatch<P> {
        Dispatch { plugin, shared, pace }
    }

    pub(super) async fn handle(&self, method: Method, timeout_nano: i64, payload: &[u8]) -> Payload {
        let time = timeout(timeout_nano);
        match method {
            Method::Configure => self.configure(time, payload).await,
            Method::Synchronize => self.synchronize(time, payload).await,
            Method::Shutdown => {
                let cx = self.context("Shutdown", None, time);
                self.call(cx, |plugin, cx| async move {
                    plugin.shutdown(&cx).await;
                    Ok(EMPTY)
                })
                .await
            }
            Method::StateChange => {
                let StateChangeEvent { event, pod, container } = decode(payload)?;
                // An event that this crate does not know is none that the plugin subscribed to.
                match Event::try_from(event) {
                    Ok(event) => self.lifecycle(event, time, pod, container).await,
                    Err(_) => Ok(EMPTY),
                }
            }
            Method::Event(event) => self.event(event, time, payload).await,
        }
    }

    async fn configure(&self, time: Option<Duration>, payload: &[u8]) -> Payload {
        let request: ConfigureRequest = decode(payload)?;
        let milliseconds = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0).map(Duration::from_millis);
        let nri = known(&request.nri_version, &request.runtime_name, &request.runtime_version);
        let runtime = Arc::new(RuntimeInfo {
            name: request.runtime_name,
            version: request.runtime_version,
            nri,
            request_timeout: milliseconds(request.request_timeout),
            registration_timeout: milliseconds(request.registration_timeout),
        });
        let wanted = self.plugin.events();
        // What the runtime itself says it knows needs no second, narrower attempt.
        let limit = if matches!(nri, crate::version::Known::Said(_)) { Events::ALL } else { self.shared.limit };
        let subscribed = wanted.intersection(nri.events()).intersection(limit);
        let session = Session { runtime: runtime.clone(), subscribed, unavailable: wanted.without(subscribed) };
        let configuration =
            Configuration { config: request.config, runtime: runtime.clone(), subscribed, unavailable: session.unavailable };
        let cx = Context { runtime, method: "Configure", event: None, timeout: time, deadline: self.pace.deadline(time) };
        let result = self.call(cx, |plugin, cx| async move { plugin.configure(&cx, configuration).await }).await;
        if let Err(failure) = result {
            self.shared.advance(Progress::Failed(Disconnect::Configure(failure.to_string())));
            return Err(failure);
        }
        self.shared.advance(Progress::Configured(session));
        let mask = if subscribed.is_empty() { RAREST } else { subscribed };
        Ok(ConfigureResponse { events: mask.mask() }.encode_to_vec())
    }

    async fn synchronize(&self, time: Option<Duration>, payload: &[u8]) -> Payload {
        // Dropped without having been defused when the request is cut off: no answer is as bad as a failure.
        let mut fatal = FatalOnDrop { shared: &self.shared, reason: Some("it was not done in time".to_owned()) };
        let result = self.synchronize_part(time, payload).await;
        fatal.reason = result.as_ref().err().map(Failure::to_string);
        result
    }

    async fn synchronize_part(&self, time: Option<Duration>, payload: &[u8]) -> Payload {
        let Some(session) = self.shared.session() else {
            return Err(Failure::new(Code::FailedPrecondition, "Synchronize came before Configure"));
        };
        self.shared.advance(Progress::Synchronizing(session.clone()));
        let whole = self.shared.parts().add(payload)?;
        let Some((pods, containers)) = whole else {
            return Ok(SynchronizeResponse { more: true, update: Vec::new() }.encode_to_vec());
        };
        let cx = self.context("Synchronize", None, time);
        let update = self.call(cx, |plugin, cx| async move { plugin.synchronize(&cx, pods, containers).await }).await?;
        self.shared.advance(Progress::Synchronized(session));
        Ok(SynchronizeResponse { more: false, update }.encode_to_vec())
    }

    async fn event(&self, event: Event, time: Option<Duration>, payload: &[u8]) -> Payload {
        match event {
            Event::CreateContainer => {
                // The same fields with the same numbers: pod 1, container 2.
                let StartContainerRequest { pod, container } = decode(payload)?;
                let container = required(event, container)?;
                self.answer(event, time, |plugin, cx| async move {
                    let creation = plugin.create_container(&cx, pod.unwrap_or_default(), container).await?;
                    let adjust = Some(creation.adjust);
                    Ok(CreateContainerResponse { adjust, update: creation.update, evict: Vec::new() }.encode_to_vec())
                })
                .await
            }
            Event::UpdateContainer => {
                let UpdateContainerRequest { pod, container, linux_resources } = decode(payload)?;
                let container = required(event, container)?;
                self.answer(event, time, |plugin, cx| async move {
                    let (pod, resources) = (pod.unwrap_or_default(), linux_resources.unwrap_or_default());
                    let update = plugin.update_container(&cx, pod, container, resources).await?;
                    Ok(UpdateContainerResponse { update, evict: Vec::new() }.encode_to_vec())
                })
                .await
            }
            Event::StopContainer => {
                let StartContainerRequest { pod, container } = decode(payload)?;
                let container = required(event, container)?;
                self.answer(event, time, |plugin, cx| async move {
                    let update = plugin.stop_container(&cx, pod.unwrap_or_default(), container).await?;
                    Ok(StopContainerResponse { update }.encode_to_vec())
                })
                .await
            }
            Event::UpdatePodSandbox => {
                let UpdatePodSandboxRequest { pod, overhead_linux_resources, linux_resources } = decode(payload)?;
                self.answer(event, time, |plugin, cx| async move {
                    let (overhead, resources) =
                        (overhead_linux_resources.unwrap_or_default(), linux_resources.unwrap_or_default());
                    plugin.update_pod_sandbox(&cx, pod.unwrap_or_default(), overhead, resources).await?;
                    Ok(EMPTY)
                })
                .await
            }
            Event::ValidateContainerAdjustment => {
                let request: ValidateContainerAdjustmentRequest = decode(payload)?;
                self.answer(event, time, |plugin, cx| async move {
                    let response = match plugin.validate_container_adjustment(&cx, request).await? {
                        Verdict::Accept => ValidateContainerAdjustmentResponse::default(),
                        Verdict::Reject(reason) => ValidateContainerAdjustmentResponse { reject: true, reason },
                    };
                    Ok(response.encode_to_vec())
                })
                .await
            }
            _ => {
                let StartContainerRequest { pod, container } = decode(payload)?;
                self.lifecycle(event, time, pod, container).await
            }
        }
    }

    /// The events that exist in both dialects.
    async fn lifecycle(
        &self,
        event: Event,
        time: Option<Duration>,
        pod: Option<PodSandbox>,
        container: Option<Container>,
    ) -> Payload {
        let pod = pod.unwrap_or_default();
        let container = match event {
            Event::PostCreateContainer
            | Event::StartContainer
            | Event::PostStartContainer
            | Event::PostUpdateContainer
            | Event::RemoveContainer => required(event, container)?,
            _ => Container::default(),
        };
        self.answer(event, time, |plugin, cx| async move {
            match event {
                Event::RunPodSandbox => plugin.run_pod_sandbox(&cx, pod).await,
                Event::PostUpdatePodSandbox => plugin.post_update_pod_sandbox(&cx, pod).await,
                Event::StopPodSandbox => plugin.stop_pod_sandbox(&cx, pod).await,
                Event::RemovePodSandbox => plugin.remove_pod_sandbox(&cx, pod).await,
                Event::PostCreateContainer => plugin.post_create_container(&cx, pod, container).await,
                Event::StartContainer => plugin.start_container(&cx, pod, container).await,
                Event::PostStartContainer => plugin.post_start_container(&cx, pod, container).await,
                Event::PostUpdateContainer => plugin.post_update_container(&cx, pod, container).await,
                Event::RemoveContainer => plugin.remove_container(&cx, pod, container).await,
                // Those with an answer of their own never come this way, but from a runtime that is none.
                _ => Ok(()),
            }?;
            Ok(EMPTY)
        })
        .await
    }

    /// Calls the handler of an event that the plugin subscribed to; any other is answered with nothing.
    async fn answer<F>(&self, event: Event, time: Option<Duration>, handler: impl FnOnce(Arc<P>, Context) -> F) -> Payload
    where
        F: Future<Output = Payload> + Send + 'static,
    {
        let wanted = self.shared.session().is_some_and(|session| session.subscribed.contains(event.into()));
        if !wanted {
            return Ok(EMPTY);
        }
        self.call(self.context(method_name(event), Some(event), time), handler).await
    }

    async fn call<T: Send + 'static, F>(&self, cx: Context, handler: impl FnOnce(Arc<P>, Context) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        // Late answers are cut off by the ttrpc server, at the runtime's own time-out.
        let _at_work = self.shared.work();
        let deadline = cx.deadline.filter(|_| self.pace == Pace::InTime);
        run(cx.method, deadline, handler(self.plugin.clone(), cx)).await
    }

    fn context(&self, method: &'static str, event: Option<Event>, time: Option<Duration>) -> Context {
        Context { runtime: self.shared.runtime(), method, event, timeout: time, deadline: self.pace.deadline(time) }
    }
}

fn required(event: Event, container: Option<Container>) -> Result<Container, Failure> {
    container.ok_or_else(|| Failure::new(Code::InvalidArgument, format!("{} came without a container", method_name(event))))
}

/// Ends the session when a Synchronize does not succeed.
struct FatalOnDrop<'a> {
    shared: &'a Shared,
    reason: Option<String>,
}

impl Drop for FatalOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason.take() {
            self.shared.advance(Progress::Failed(Disconnect::Synchronize(reason)));
        }
    }
}
