//! The plugin at the end of a real connection, with a runtime of every dialect at the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nri::proto::{Container, ContainerAdjustment, ContainerState, Hooks, PodSandbox, ValidateContainerAdjustmentRequest};
use nri::testing::{FakeError, FakePlugin, FakeRuntime, Profile};
use nri::{Events, Verdict};
use portcullis_enforcer::{Expected, FailPolicy, Started};
use portcullis_nri_plugin::{Connection, ConnectionStatus, Enforcement, Failure, GATE_ANNOTATION, Gate, Link, Plugin, Running};
use portcullis_policy::ContainerFacts;

const HOOK: &str = "/usr/libexec/portcullis/portcullis-hook";

/// An enforcer that does what the test says, and remembers what it was asked.
#[derive(Default)]
struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    permit: bool,
    delay: Duration,
    /// Containers that have a policy, by name.
    selected: BTreeSet<String>,
    expect_fails: bool,
    start: Option<Result<Started, String>>,
    expected: Vec<ContainerFacts>,
    started: Vec<(String, u32)>,
    unprotected: Vec<(String, String)>,
    running: Vec<Running>,
    created: Vec<ContainerFacts>,
    listed: BTreeSet<String>,
    left: Vec<String>,
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn work(&self) {
        let delay = self.state().delay;
        std::thread::sleep(delay);
    }
}

impl Enforcement for Fake {
    fn fail_policy(&self) -> FailPolicy {
        if self.state().permit { FailPolicy::Permit } else { FailPolicy::Enforce }
    }

    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure> {
        self.work();
        let mut state = self.state();
        state.expected.push(facts.clone());
        if state.expect_fails {
            return Err("the state directory is full; make room".into());
        }
        Ok(if state.selected.contains(&facts.name) { Expected::Enforce } else { Expected::Nothing })
    }

    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure> {
        self.work();
        let mut state = self.state();
        state.started.push((facts.id.clone(), pid));
        state.start.clone().unwrap_or(Ok(Started::Armed)).map_err(Failure::from)
    }

    fn record_unprotected(&self, id: &str, _name: &str, reason: &str) -> Result<(), Failure> {
        self.state().unprotected.push((id.to_owned(), reason.to_owned()));
        Ok(())
    }

    fn synchronized(
        &self,
        running: Vec<Running>,
        created: Vec<ContainerFacts>,
        listed: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        let mut state = self.state();
        (state.running, state.created, state.listed) = (running, created, listed.clone());
        Ok(())
    }

    fn leaving(&self, id: &str) {
        self.state().left.push(id.to_owned());
    }
}

struct Place {
    _temporary: tempfile::TempDir,
    fake: Arc<Fake>,
    runtime: FakeRuntime,
    plugin: FakePlugin,
    status: Box<dyn Fn() -> ConnectionStatus>,
}

async fn place(profile: Profile) -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::listen(temporary.path().join("nri.sock"), profile).unwrap();
    let fake = Arc::new(Fake::default());
    fake.state().selected.insert("web".to_owned());
    let connection = Connection::prepare(Plugin::new(Arc::clone(&fake), Gate::new(Path::new(HOOK))), runtime.path()).unwrap();
    let status = connection.status();
    tokio::spawn(connection.run(std::future::pending()));
    let connected = runtime.connect().await;
    let plugin = connected.unwrap_or_else(|error| panic!("{error}: {:?}", status()));
    Place { _temporary: temporary, fake, runtime, plugin, status: Box::new(status) }
}

fn dialects() -> [Profile; 5] {
    [
        Profile::containerd_1_7(),
        Profile::containerd_2_1(),
        Profile::containerd_2_2(),
        Profile::containerd_2_3(),
        Profile::cri_o_1_35(),
    ]
}

fn pod() -> PodSandbox {
    PodSandbox {
        id: "p1".to_owned(),
        name: "shop-1".to_owned(),
        namespace: "shop".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
        ..PodSandbox::default()
    }
}

fn container(id: &str, name: &str) -> Container {
    Container { id: id.to_owned(), pod_sandbox_id: "p1".to_owned(), name: name.to_owned(), ..Container::default() }
}

fn with_pid(mut container: Container, pid: u32) -> Container {
    container.pid = pid;
    container
}

/// The sentence with which a request was refused.
fn refusal<T: std::fmt::Debug>(result: Result<T, FakeError>) -> String {
    match result {
        Err(FakeError::Failed { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_in_every_dialect() {
    for profile in dialects() {
        let shown = format!("{profile:?}");
        let place = place(profile).await;
        let validates = place.plugin.events().contains(Events::VALIDATE_CONTAINER_ADJUSTMENT);
        let web = container("c1", "web");
        let creation = place.plugin.create_container(&pod(), &web).await.unwrap();
        assert_eq!(creation.adjust.annotations[GATE_ANNOTATION], "nri", "{shown}");
        let hooks = creation.adjust.hooks.clone().unwrap();
        assert_eq!((hooks.create_runtime.len(), hooks.create_runtime[0].path.as_str()), (1, HOOK));
        assert_eq!(place.fake.state().expected[0].labels["app"], "shop", "{shown}");
        assert_eq!(place.fake.state().expected[0].namespace, "shop");
        place.plugin.start_container(&pod(), &with_pid(web.clone(), 4711)).await.unwrap();
        assert_eq!(place.fake.state().started, [("c1".to_owned(), 4711)], "{shown}");
        place.plugin.stop_container(&pod(), &web).await.unwrap();
        place.plugin.stop_container(&pod(), &web).await.unwrap();
        place.plugin.remove_container(&pod(), &web).await.unwrap();
        place.plugin.remove_container(&PodSandbox::default(), &container("never-seen", "")).await.unwrap();
        assert_eq!(place.fake.state().left, ["c1", "c1", "c1", "never-seen"], "{shown}");
        let other = place.plugin.create_container(&pod(), &container("c2", "sidecar")).await.unwrap();
        assert_eq!(other.adjust, ContainerAdjustment::default(), "no policy is for it");
        let status = (place.status)();
        assert_eq!((status.link, status.validates), (Link::Up, validates), "{shown}");
        assert_eq!((status.counts.created, status.counts.gated, status.counts.started), (2, 1, 1));
        assert!(status.runtime.unwrap().contains("NRI 0."));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_has_the_gate_hook_does_not_get_it_twice() {
    let place = place(Profile::containerd_2_3()).await;
    let hooks = Gate::new(Path::new(HOOK)).adjustment(&Container::default()).hooks;
    let web = Container { hooks, ..container("c1", "web") };
    let creation = place.plugin.create_container(&pod(), &web).await.unwrap();
    assert_eq!(creation.adjust, ContainerAdjustment::default());
    let request = validation(&web, None);
    assert_eq!(place.plugin.validate_container_adjustment(&request).await.unwrap(), Verdict::Accept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_expected_is_refused_or_permitted() {
    for profile in dialects() {
        let place = place(profile).await;
        place.fake.state().expect_fails = true;
        let sentence = refusal(place.plugin.create_container(&pod(), &container("c1", "web")).await);
        assert_eq!(sentence, "portcullis refuses container web: the state directory is full; make room");
        place.fake.state().permit = true;
        let creation = place.plugin.create_container(&pod(), &container("c2", "web")).await.unwrap();
        assert_eq!(creation.adjust, ContainerAdjustment::default());
        eventually("a record of it", || place.fake.state().unprotected.len() == 1).await;
        let (id, reason) = place.fake.state().unprotected[0].clone();
        assert!(id == "c2" && reason.contains("make room"), "{reason}");
        let counts = (place.status)().counts;
        assert_eq!((counts.refused, counts.permitted), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_enforcer_is_a_refusal_and_not_a_timeout() {
    for profile in dialects() {
        let place = place(profile.request_timeout(Duration::from_millis(400))).await;
        place.fake.state().delay = Duration::from_millis(900);
        let sentence = refusal(place.plugin.create_container(&pod(), &container("c1", "web")).await);
        assert!(sentence.contains("not in force within"), "{sentence}");
        let sentence = refusal(place.plugin.start_container(&pod(), &with_pid(container("c2", "web"), 4_000_000)).await);
        assert!(sentence.contains("not in force within"), "{sentence}");
        assert!(!place.plugin.is_closed(), "the runtime would go on without us");
        place.fake.state().permit = true;
        place.plugin.create_container(&pod(), &container("c3", "web")).await.unwrap();
        eventually("a record of it", || !place.fake.state().unprotected.is_empty()).await;
        place.fake.state().delay = Duration::ZERO;
        place.plugin.create_container(&pod(), &container("c4", "web")).await.unwrap();
    }
}

/// A process that stands for an init, and an id that its cgroup has in its path.
fn init() -> (Child, String) {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let id = cgroup.lines().next().unwrap().to_owned();
    (child, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_error_at_start_is_only_logged_the_init_is_killed() {
    for (profile, killed) in [(Profile::containerd_2_3(), false), (Profile::cri_o_1_35(), true)] {
        let place = place(profile).await;
        let (mut child, id) = init();
        place.fake.state().start = Some(Err("the kernel has no room".to_owned()));
        let web = with_pid(container(&id, "web"), child.id());
        assert!(refusal(place.plugin.start_container(&pod(), &web).await).contains("no room"));
        assert_eq!((place.status)().counts.killed, u64::from(killed));
        if !killed {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // Nor is another's process killed, whatever pid the runtime tells.
        let (mut other, _) = init();
        let web = with_pid(container("0123456789abcdef", "web"), other.id());
        assert!(refusal(place.plugin.start_container(&pod(), &web).await).contains("no room"));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_hook_that_somebody_dropped_is_seen_at_start() {
    let place = place(Profile::containerd_1_7()).await;
    place.fake.state().start = Some(Ok(Started::ArmedNow));
    let web = container("c1", "web");
    place.plugin.create_container(&pod(), &web).await.unwrap();
    place.plugin.start_container(&pod(), &with_pid(web, 7)).await.unwrap();
    assert_eq!((place.status)().counts.armed_at_start, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_process_only_what_has_a_policy_is_refused() {
    let place = place(Profile::containerd_2_1()).await;
    let web = container("c1", "web");
    place.plugin.create_container(&pod(), &web).await.unwrap();
    assert!(refusal(place.plugin.start_container(&pod(), &web).await).contains("did not tell its process"));
    let other = container("c2", "sidecar");
    place.plugin.create_container(&pod(), &other).await.unwrap();
    place.plugin.start_container(&pod(), &other).await.unwrap();
    assert!(place.fake.state().started.is_empty());
}

fn validation(container: &Container, hooks: Option<Hooks>) -> ValidateContainerAdjustmentRequest {
    ValidateContainerAdjustmentRequest {
        pod: Some(pod()),
        container: Some(container.clone()),
        adjust: Some(ContainerAdjustment { hooks, ..ContainerAdjustment::default() }),
        ..ValidateContainerAdjustmentRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_lost_its_gate_hook_is_rejected() {
    for profile in [Profile::containerd_2_2(), Profile::containerd_2_3(), Profile::cri_o_1_35()] {
        let place = place(profile).await;
        let web = container("c1", "web");
        let adjust = place.plugin.create_container(&pod(), &web).await.unwrap().adjust;
        let whole = validation(&web, adjust.hooks);
        assert_eq!(place.plugin.validate_container_adjustment(&whole).await.unwrap(), Verdict::Accept);
        let verdict = place.plugin.validate_container_adjustment(&validation(&web, None)).await.unwrap();
        assert!(
            matches!(&verdict, Verdict::Reject(reason) if reason.contains("took away its createRuntime hook")),
            "{verdict:?}"
        );
        let other = validation(&container("c2", "sidecar"), None);
        assert_eq!(place.plugin.validate_container_adjustment(&other).await.unwrap(), Verdict::Accept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_told_whole_or_in_parts() {
    let containers: Vec<Container> = (0..1000)
        .map(|number| {
            let mut container = with_pid(container(&format!("c{number}"), "web"), number);
            let state = if number == 1 { ContainerState::Stopped } else { ContainerState::Running };
            container.set_state(if number == 0 { ContainerState::Created } else { state });
            container
        })
        .collect();
    for profile in dialects() {
        let parts = if format!("{profile:?}").contains("1.7.24") { usize::MAX } else { 150 };
        let place = place(profile).await;
        let again = place.plugin;
        again.hang_up();
        let plugin = place.runtime.accept().await.unwrap();
        let told = plugin.synchronize_in_parts(&[pod()], &containers, parts).await;
        assert!(told.is_ok(), "{told:?} {parts} {:?}", (place.status)());
        let state = place.fake.state();
        assert_eq!((state.running.len(), state.created.len(), state.listed.len()), (998, 1, 1000));
        assert!(state.running.iter().all(|running| running.facts.labels["app"] == "shop" && running.pid >= 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_made_again_and_told() {
    let place = place(Profile::containerd_2_1()).await;
    place.plugin.hang_up();
    eventually("down", || (place.status)().link == Link::Down).await;
    assert!((place.status)().trouble.is_some());
    let plugin = place.runtime.connect().await.unwrap();
    eventually("up", || (place.status)().link == Link::Up).await;
    assert_eq!((place.status)().trouble, None);
    plugin.create_container(&pod(), &container("c1", "web")).await.unwrap();
}
