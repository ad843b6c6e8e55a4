//! What a plugin is: the events it wants and what it does about them.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::Events;
use crate::failure::Failure;
use crate::proto::{
    Container, ContainerAdjustment, ContainerUpdate, Event, LinuxResources, PodSandbox, ValidateContainerAdjustmentRequest,
};
use crate::state::Disconnect;
use crate::version::RuntimeInfo;

/// What a handler answers.
pub type Answer<T> = Result<T, Failure>;

/// The circumstances of one request.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who asks.
    pub runtime: Arc<RuntimeInfo>,
    /// The method that was called, by the name of the event's own method in either dialect.
    pub method: &'static str,
    /// The event; `None` for Configure, Synchronize and Shutdown.
    pub event: Option<Event>,
    /// The time that the runtime gives for this request, if it says so. containerd's default is two seconds.
    pub timeout: Option<Duration>,
    /// When this crate answers for a handler that is still at work; see [`Plugin`] for why. `None` without a timeout.
    pub deadline: Option<Instant>,
}

impl Context {
    /// What is left of the time; `None` without a timeout.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// What Configure said.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The text of the plugin's file in `/etc/nri/conf.d`. Empty for a plugin that connects by itself.
    pub config: String,
    /// Who asks.
    pub runtime: Arc<RuntimeInfo>,
    /// What will be subscribed to: [`Plugin::events`] as far as this runtime knows them.
    pub subscribed: Events,
    /// The rest of [`Plugin::events`], which this runtime will never send.
    pub unavailable: Events,
}

/// What a plugin wants of a container being created.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Creation {
    /// Changes of the container; see [`crate::adjust`].
    pub adjust: ContainerAdjustment,
    /// Changes of other containers.
    pub update: Vec<ContainerUpdate>,
}

impl From<ContainerAdjustment> for Creation {
    fn from(adjust: ContainerAdjustment) -> Creation {
        Creation { adjust, update: Vec::new() }
    }
}

/// A judgement of what all plugins want of a new container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The container may be created.
    Accept,
    /// It may not, for this reason.
    Reject(String),
}

/// A plugin: the events it wants, and a handler for each.
///
/// All handlers have a default that does nothing, and only those in [`Plugin::events`] are called. Implement them as
/// `async fn`; each call runs in a task of its own.
///
/// # What an answer does
///
/// A [`Failure`] fails the request in the runtime where the table of events ([`Events`]) says so, and the plugin stays
/// connected. A panic is answered with a failure too (with `panic = "unwind"`; a build with `panic = "abort"` dies).
///
/// **No answer is not a failure.** A runtime that waited too long, or lost the connection, goes on without the plugin and
/// creates the container: it fails open. So this crate answers [`DeadlineExceeded`](crate::Code::DeadlineExceeded) for a
/// handler that is still at work shortly before its time is up, see [`Context::deadline`], and drops the handler's future:
/// the request fails, and the plugin stays connected. [`StubBuilder::answer_late`](crate::StubBuilder::answer_late) turns
/// this off. A handler that blocks its thread cannot be dropped; use `tokio::task::spawn_blocking` for work that blocks.
///
/// # What to expect
///
/// Requests come one at a time, but a request can overlap with a handler that was dropped for being late. After each
/// [`Plugin::closed`] the next connection begins with `configure` and `synchronize` again, which is the time to forget
/// containers that are gone. Stop and remove events come for containers never seen, more than once, and for containers whose
/// creation failed. A pod is empty (all defaults) if the runtime sent none.
pub trait Plugin: Send + Sync + 'static {
    /// The events this plugin wants. Asked once for each connection, before [`Plugin::configure`].
    fn events(&self) -> Events;

    /// The runtime introduces itself. A failure closes the connection.
    fn configure(&self, cx: &Context, configuration: Configuration) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, configuration);
        ready(Ok(()))
    }

    /// All pods and containers that exist; whatever the plugin knew before is to be replaced by them.
    ///
    /// A runtime may send them in many parts, which this crate puts together. The answer may change any of the containers.
    /// Containers that are created meanwhile can be missing with containerd before 1.7.26, 2.0.3 and 2.1, and with CRI-O.
    /// If this fails or is late the connection is closed and made anew, because old runtimes would keep a connection on
    /// which no event ever comes.
    fn synchronize(
        &self,
        cx: &Context,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> impl Future<Output = Answer<Vec<ContainerUpdate>>> + Send {
        let _ = (cx, pods, containers);
        ready(Ok(Vec::new()))
    }

    /// A pod's sandbox runs. A failure fails the pod.
    fn run_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod);
        ready(Ok(()))
    }

    /// A pod's resources are about to change; since NRI 0.10.
    fn update_pod_sandbox(
        &self,
        cx: &Context,
        pod: PodSandbox,
        overhead: LinuxResources,
        resources: LinuxResources,
    ) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, overhead, resources);
        ready(Ok(()))
    }

    /// A pod's resources have changed; since NRI 0.10.
    fn post_update_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod);
        ready(Ok(()))
    }

    /// A pod has been stopped. A failure is logged.
    fn stop_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod);
        ready(Ok(()))
    }

    /// A pod has been removed. A failure is logged.
    fn remove_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod);
        ready(Ok(()))
    }

    /// A container is about to be created; nothing of it exists yet. A failure fails its creation.
    fn create_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Answer<Creation>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(Creation::default()))
    }

    /// A container has been created. A failure is logged.
    ///
    /// In containerd it has no process yet, in CRI-O the OCI runtime has been called and the init waits.
    fn post_create_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(()))
    }

    /// A container is about to be started: its init exists and waits. A failure fails the start in containerd; CRI-O logs
    /// it and goes on.
    fn start_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(()))
    }

    /// A container has been started. A failure is logged.
    fn post_start_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(()))
    }

    /// A container's resources are about to change. The answer may change this and any other container.
    fn update_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> impl Future<Output = Answer<Vec<ContainerUpdate>>> + Send {
        let _ = (cx, pod, container, resources);
        ready(Ok(Vec::new()))
    }

    /// A container's resources have changed. A failure is logged.
    fn post_update_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(()))
    }

    /// A container has been stopped. The answer may change other containers.
    fn stop_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
    ) -> impl Future<Output = Answer<Vec<ContainerUpdate>>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(Vec::new()))
    }

    /// A container has been removed. A failure is logged.
    fn remove_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> impl Future<Output = Answer<()>> + Send {
        let _ = (cx, pod, container);
        ready(Ok(()))
    }

    /// What all plugins want of a new container is to be judged; since NRI 0.10. A rejection, a failure, and no answer in
    /// time all fail the creation: with this event even a plugin that has just died does.
    fn validate_container_adjustment(
        &self,
        cx: &Context,
        request: ValidateContainerAdjustmentRequest,
    ) -> impl Future<Output = Answer<Verdict>> + Send {
        let _ = (cx, request);
        ready(Ok(Verdict::Accept))
    }

    /// The runtime shuts down. No runtime up to NRI 0.12 sends this.
    fn shutdown(&self, cx: &Context) -> impl Future<Output = ()> + Send {
        let _ = cx;
        ready(())
    }

    /// A connection has ended.
    fn closed(&self, reason: &Disconnect) -> impl Future<Output = ()> + Send {
        let _ = reason;
        ready(())
    }
}
