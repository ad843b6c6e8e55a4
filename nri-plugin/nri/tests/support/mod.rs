//! A plugin that writes down what it is asked, and a stub that writes down its states.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nri::proto::{
    Container, ContainerAdjustment, ContainerUpdate, LinuxResources, PodSandbox, ValidateContainerAdjustmentRequest,
};
use nri::{
    Answer, Code, Configuration, ConnectionState, Context, Creation, Disconnect, Events, Failure, Plugin, RuntimeHandle, Stub,
    Verdict,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Recorder {
    pub events: Events,
    pub calls: mpsc::UnboundedSender<String>,
    pub behaviour: Mutex<Behaviour>,
    pub handle: Mutex<Option<RuntimeHandle>>,
    pub seen: Mutex<Vec<Container>>,
}

/// What the container's creation does.
#[derive(Clone, Default)]
pub enum Behaviour {
    #[default]
    Annotate,
    Fail,
    Panic,
    Sleep(Duration),
    FailSynchronize,
    SleepSynchronize(Duration),
    FailConfigure,
    UpdateInside,
    /// An annotation of this many bytes.
    Long(usize),
}

impl Recorder {
    fn note(&self, cx: &Context, what: &str) {
        let _ = self.calls.send(format!("{} {what}", cx.method));
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn behaviour(&self) -> Behaviour {
        self.behaviour.lock().unwrap().clone()
    }
}

impl Plugin for Recorder {
    fn events(&self) -> Events {
        self.events
    }

    async fn configure(&self, cx: &Context, configuration: Configuration) -> Answer<()> {
        let _ = self.calls.send(format!("Configure {} [{}]", cx.runtime, configuration.config));
        match self.behaviour() {
            Behaviour::FailConfigure => Err(Failure::new(Code::InvalidArgument, "no such setting")),
            _ => Ok(()),
        }
    }

    async fn synchronize(&self, _: &Context, pods: Vec<PodSandbox>, containers: Vec<Container>) -> Answer<Vec<ContainerUpdate>> {
        let _ = self.calls.send(format!("Synchronize {} {}", pods.len(), containers.len()));
        *self.seen.lock().unwrap() = containers.clone();
        match self.behaviour() {
            Behaviour::FailSynchronize => return Err(Failure::new(Code::Unavailable, "the store is gone")),
            Behaviour::SleepSynchronize(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        Ok(containers.first().map(|container| ContainerUpdate::new(&*container.id)).into_iter().collect())
    }

    async fn run_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        self.note(cx, &pod.id);
        Ok(())
    }

    async fn update_pod_sandbox(
        &self,
        cx: &Context,
        pod: PodSandbox,
        overhead: LinuxResources,
        resources: LinuxResources,
    ) -> Answer<()> {
        let limit = |resources: LinuxResources| resources.pids.map_or(0, |pids| pids.limit);
        self.note(cx, &format!("{} {} {}", pod.id, limit(overhead), limit(resources)));
        Ok(())
    }

    async fn post_update_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        self.note(cx, &pod.id);
        Ok(())
    }

    async fn stop_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        self.note(cx, &pod.id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        self.note(cx, &pod.id);
        Ok(())
    }

    async fn create_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<Creation> {
        self.note(cx, &format!("{} {}", pod.id, container.id));
        let mut adjust = ContainerAdjustment::default();
        match self.behaviour() {
            Behaviour::Fail => return Err(Failure::new(Code::FailedPrecondition, "not this one")),
            Behaviour::Panic => panic!("a bug"),
            Behaviour::Sleep(time) => tokio::time::sleep(time).await,
            Behaviour::Long(bytes) => {
                adjust.set_annotation("long", "x".repeat(bytes));
            }
            Behaviour::UpdateInside => {
                let handle = self.handle.lock().unwrap().clone().unwrap();
                let error = handle.update_containers(Vec::new()).await.unwrap_err();
                return Err(Failure::new(Code::Internal, error.to_string()));
            }
            _ => {
                adjust.set_annotation("seen", &*container.id);
            }
        }
        Ok(Creation { adjust, update: vec![ContainerUpdate::new("other")] })
    }

    async fn post_create_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<()> {
        self.note(cx, &container.id);
        Ok(())
    }

    async fn start_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<()> {
        self.note(cx, &container.id);
        Ok(())
    }

    async fn post_start_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<()> {
        self.note(cx, &container.id);
        Ok(())
    }

    async fn update_container(
        &self,
        cx: &Context,
        _: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> Answer<Vec<ContainerUpdate>> {
        self.note(cx, &format!("{} {}", container.id, resources.pids.map_or(0, |pids| pids.limit)));
        Ok(vec![ContainerUpdate::new(container.id)])
    }

    async fn post_update_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<()> {
        self.note(cx, &container.id);
        Ok(())
    }

    async fn stop_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<Vec<ContainerUpdate>> {
        self.note(cx, &container.id);
        Ok(vec![ContainerUpdate::new("neighbour")])
    }

    async fn remove_container(&self, cx: &Context, _: PodSandbox, container: Container) -> Answer<()> {
        self.note(cx, &container.id);
        Ok(())
    }

    async fn validate_container_adjustment(&self, cx: &Context, request: ValidateContainerAdjustmentRequest) -> Answer<Verdict> {
        self.note(cx, &request.plugins.len().to_string());
        Ok(match request.adjust {
            Some(adjust) if !adjust.env.is_empty() => Verdict::Reject("no variables".to_owned()),
            _ => Verdict::Accept,
        })
    }

    async fn shutdown(&self, _: &Context) {
        let _ = self.calls.send("Shutdown".to_owned());
    }

    async fn closed(&self, reason: &Disconnect) {
        let _ = self.calls.send(format!("closed: {reason}"));
    }
}

/// A recorder that runs.
pub struct Running {
    pub plugin: Arc<Recorder>,
    pub calls: mpsc::UnboundedReceiver<String>,
    pub states: mpsc::UnboundedReceiver<ConnectionState>,
    pub handle: RuntimeHandle,
    pub directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Disconnect>>,
}

/// Where the test's runtime listens.
pub fn socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nri.sock");
    (directory, path)
}

impl Running {
    pub fn start(events: Events, directory: tempfile::TempDir) -> Running {
        Running::start_with(events, directory, false)
    }

    pub fn start_with(events: Events, directory: tempfile::TempDir, late: bool) -> Running {
        let (call, calls) = mpsc::unbounded_channel();
        let (state, states) = mpsc::unbounded_channel();
        let recorder =
            Recorder { events, calls: call, behaviour: Mutex::default(), handle: Mutex::default(), seen: Mutex::default() };
        let mut builder =
            Stub::builder(recorder).name("recorder").index("42").socket(directory.path().join("nri.sock")).on_state_change(
                move |new| {
                    let _ = state.send(new.clone());
                },
            );
        if late {
            builder = builder.answer_late();
        }
        let stub = builder.build().unwrap();
        let (plugin, handle) = (stub.plugin().clone(), stub.handle());
        *plugin.handle.lock().unwrap() = Some(handle.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(stub.run(async {
            let _ = stopped.await;
        }));
        Running { plugin, calls, states, handle, directory, stop: Some(stop), task }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("nri.sock")
    }

    /// The next call of the plugin.
    pub async fn call(&mut self) -> String {
        timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("a plugin")
    }

    /// Waits for a call that begins so.
    pub async fn call_like(&mut self, start: &str) -> String {
        loop {
            let call = self.call().await;
            if call.starts_with(start) {
                return call;
            }
        }
    }

    /// Waits for a state.
    pub async fn state_like(&mut self, wanted: impl Fn(&ConnectionState) -> bool) -> ConnectionState {
        loop {
            let state = timeout(PATIENCE, self.states.recv()).await.expect("a state").expect("a stub");
            if wanted(&state) {
                return state;
            }
        }
    }

    /// Waits for the connection to end.
    pub async fn disconnect(&mut self) -> Disconnect {
        let state = self.state_like(|state| matches!(state, ConnectionState::Disconnected { .. })).await;
        match state {
            ConnectionState::Disconnected { reason, .. } => reason,
            _ => unreachable!(),
        }
    }

    pub async fn stop(mut self) -> Result<(), Disconnect> {
        self.stop.take();
        timeout(PATIENCE, self.task).await.expect("a stub that stops").unwrap()
    }
}

pub fn pod(id: &str) -> PodSandbox {
    PodSandbox { id: id.to_owned(), name: format!("pod-{id}"), namespace: "test".to_owned(), ..PodSandbox::default() }
}

pub fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        name: format!("container-{id}"),
        labels: BTreeMap::from([("app".to_owned(), "test".to_owned())]),
        ..Container::default()
    }
}

pub fn limited(pids: i64) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_pids_limit(pids);
    resources
}

/// The example of this name. `cargo test` builds the examples before the tests; a build from here would be with other features of
/// the dependencies than the workspace's, and so of everything once more.
pub fn example(name: &str) -> PathBuf {
    // tests/x-HASH is in deps/, beside examples/.
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(example.exists(), "{} is not built; `cargo test --test` does not build examples", example.display());
    example
}
