use std::path::Path;
use std::time::{Duration, Instant};

use nri::proto::{Container, ContainerState, PodSandbox};
use nri::testing::{FakePlugin, FakeRuntime, Profile};
use portcullis_enforcer::Door;
use portcullis_nri_plugin::Link;

use super::*;
use crate::control::{AgentStatus, Call, Client, Outcome, PolicyTable, Tree, Who};
use crate::fake::{FakeNode, policy};

struct Place {
    temporary: tempfile::TempDir,
    node: Arc<FakeNode>,
    settings: Settings,
    service: Option<Service>,
}

async fn place(sockets: &[&str]) -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    for name in ["policies", "known"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let node = FakeNode::new(at("policies"));
    let settings = Settings {
        policy_dir: at("policies"),
        known_dir: at("known"),
        control_socket: at("agent.sock"),
        feeder_socket: at("feeder.sock"),
        feeder_tcp: None,
        sinks: Sinks::default(),
        metrics_listen: None,
        uid: rustix::process::geteuid().as_raw(),
        host: Host::default(),
        nri_sockets: sockets.iter().map(|name| at(name)).collect(),
        nri_required: false,
        gate_hook: PathBuf::from("/usr/libexec/portcullis/portcullis-hook"),
        started_by_runtime: false,
    };
    let mut place = Place { temporary, node, settings, service: None };
    place.start().await;
    place
}

impl Place {
    async fn start(&mut self) {
        let node = Arc::clone(&self.node);
        let service = Service::start(node, &self.settings, Telemetry::default(), Messages::default()).await.unwrap();
        self.service = Some(service);
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.temporary.path(), name)
    }

    fn write_policy(&self, name: &str) {
        std::fs::write(self.path(&format!("policies/{name}.yaml")), policy(name)).unwrap();
    }

    async fn ask<T: serde::de::DeserializeOwned + Send + 'static>(&self, call: Call) -> T {
        let path = self.settings.control_socket.clone();
        let asked = move || Client::connect(&path).unwrap().unwrap().call(call).unwrap();
        tokio::task::spawn_blocking(asked).await.unwrap()
    }

    async fn eventually(&self, what: &str, is_so: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        let since = Instant::now();
        loop {
            let status = self.ask(Call::Status).await;
            if is_so(&status) {
                return status;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "never: {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A plugin that is synchronized with what there is.
async fn synchronized(runtime: &FakeRuntime, containers: &[Container]) -> FakePlugin {
    let pod = PodSandbox { id: "p".to_owned(), labels: [("app".to_owned(), "web".to_owned())].into(), ..PodSandbox::default() };
    for _ in 0..5 {
        let plugin = runtime.accept().await.unwrap();
        if plugin.synchronize(std::slice::from_ref(&pod), containers).await.is_ok() {
            return plugin;
        }
    }
    panic!("the plugin cannot be synchronized");
}

fn running(id: &str, pid: u32) -> Container {
    let mut container = Container { id: id.to_owned(), pod_sandbox_id: "p".to_owned(), pid, ..Container::default() };
    container.set_state(ContainerState::Running);
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_written_reaches_every_known_container() {
    let place = place(&[]).await;
    for number in 0..50 {
        place.node.let_in(&format!("c{number}"), Door::Hook, Some(7));
    }
    place.write_policy("a");
    let status = place.eventually("read", |status| status.policies.count == 1).await;
    assert_eq!((status.policies.generation, status.containers.known), (2, 50));
    place.node.eventually("every container is brought to it", |state| state.refreshed.len() == 50);
    let table: PolicyTable = place.ask(Call::Policies).await;
    assert_eq!((table.generation, table.policies.len(), table.policies[0].containers), (Some(2), 1, 50));
    assert_eq!((table.policies[0].id.as_str(), table.policies[0].line), ("KubeArmorPolicy/a", 11));
    let who: Who = place.ask(Call::Who { container: "name-of-c7".to_owned() }).await;
    assert_eq!((who.known.facts.id.as_str(), who.policies), ("c7", vec!["KubeArmorPolicy/a".to_owned()]));
    std::fs::remove_dir_all(place.path("policies")).unwrap();
    place.eventually("withdrawn", |status| status.policies.count == 0).await;
    let outcome: Outcome = place.ask(Call::Reload).await;
    assert_eq!((outcome.policies, outcome.containers), (0, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feeder_that_cannot_listen_keeps_no_agent_from_its_doors() {
    let mut place = place(&["nri.sock"]).await;
    place.service.take().unwrap().stop().await;
    place.settings.feeder_socket = place.path("no-such-directory/feeder.sock");
    let runtime = FakeRuntime::listen(place.path("nri.sock"), Profile::containerd_2_1()).unwrap();
    place.start().await;
    let _plugin = synchronized(&runtime, &[running("r1", 11)]).await;
    let status = place.eventually("up", |status| status.nri.connections[0].link == Link::Up).await;
    let trouble = status.alerts.feeder_trouble.unwrap();
    assert!(trouble.contains("no-such-directory"), "{trouble}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_come_in_by_two_doors() {
    let place = place(&["containerd.sock", "crio.sock"]).await;
    let containerd = FakeRuntime::listen(place.path("containerd.sock"), Profile::containerd_2_3()).unwrap();
    let crio = FakeRuntime::listen(place.path("crio.sock"), Profile::cri_o_1_35()).unwrap();
    place.node.let_in("expected-through-the-other", Door::Nri, None);
    let first = synchronized(&containerd, &[running("r1", 11)]).await;
    let _second = synchronized(&crio, &[running("r2", 12)]).await;
    place.node.eventually("both are adopted", |state| {
        let mut adopted = state.adopted.clone();
        adopted.sort();
        adopted == [("r1".to_owned(), 11), ("r2".to_owned(), 12)]
    });
    let status = place.eventually("both are up", |status| status.nri.connections.iter().all(|nri| nri.link == Link::Up)).await;
    assert_eq!(status.nri.connections.len(), 2);
    assert!(place.node.state().known.contains_key("expected-through-the-other"));
    first.remove_container(&PodSandbox::default(), &running("r1", 0)).await.unwrap();
    place.node.eventually("it has left", |state| state.forgotten == ["r1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_started_again_finds_everything() {
    let mut place = place(&["nri.sock"]).await;
    let runtime = FakeRuntime::listen(place.path("nri.sock"), Profile::containerd_2_1()).unwrap();
    let before = synchronized(&runtime, &[running("r1", 11)]).await;
    place.node.eventually("adopted", |state| state.known.contains_key("r1"));
    place.write_policy("a");
    place.eventually("read", |status| status.policies.count == 1).await;
    place.service.take().unwrap().stop().await;
    before.closed().await;
    assert!(!place.settings.control_socket.exists() && !place.settings.feeder_socket.exists());
    // Meanwhile a policy changes, and a container comes and another goes.
    place.write_policy("b");
    place.node.state().refreshed.clear();
    place.node.state().adopted.clear();
    place.start().await;
    assert_eq!(place.node.state().refreshed, ["r1"], "before it says that it is ready");
    let _after = synchronized(&runtime, &[running("r2", 12)]).await;
    place.node.eventually("the new one is adopted", |state| state.adopted == [("r2".to_owned(), 12)]);
    let status = place.eventually("up", |status| status.nri.connections[0].link == Link::Up).await;
    assert_eq!((status.policies.count, status.containers.known), (2, 2));
    assert_eq!(place.node.state().sweeps, 2, "what left is looked for at each start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_with_a_thousand_containers_is_answered_at_once() {
    let place = place(&["nri.sock"]).await;
    place.node.state().delay = Duration::from_millis(2);
    let runtime = FakeRuntime::listen(place.path("nri.sock"), Profile::containerd_2_3()).unwrap();
    let containers: Vec<Container> = (1..=1000).map(|pid| running(&format!("r{pid}"), pid)).collect();
    let since = Instant::now();
    let plugin = synchronized(&runtime, &containers).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    // Containers are created while the others are being armed.
    let web = Container { id: "new".to_owned(), name: "web".to_owned(), ..Container::default() };
    plugin.create_container(&PodSandbox::default(), &web).await.unwrap();
    place.eventually("all are known", |status| status.containers.known == 1001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_can_be_asked_for_by_signal_and_by_socket_alike() {
    let place = place(&[]).await;
    place.service.as_ref().unwrap().reload().await;
    assert_eq!(place.node.state().reloads, 2);
    assert_eq!(place.service.as_ref().unwrap().summary(), "0 policies (generation 2), 0 containers not up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_monitor_nobody_knows_processes_and_that_is_said() {
    let place = place(&[]).await;
    place.node.let_in("c1", Door::Hook, Some(7));
    let path = place.settings.control_socket.clone();
    let call = Call::Tree { container: "c1".to_owned() };
    let asked = move || Client::connect(&path).unwrap().unwrap().call::<Tree>(call).unwrap_err().to_string();
    let refused = tokio::task::spawn_blocking(asked).await.unwrap();
    assert!(refused.contains("the monitor is not loaded: the configuration says so"), "{refused}");
    let status: AgentStatus = place.ask(Call::Status).await;
    assert_eq!((status.monitor.loaded, status.monitor.trouble), (false, None));
}
