//! Events in both dialects, answers, failures and limits, against the fake runtime.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use nri::proto::{ContainerAdjustment, ContainerUpdate, Event, StateChangeEvent, ValidateContainerAdjustmentRequest};
use nri::testing::{FakeError, FakePlugin, FakeRuntime, Profile};
use nri::version::NriVersion;
use nri::{ConnectionState, Disconnect, Events, UpdateError, Verdict};
use prost::Message;
use support::{Behaviour, PATIENCE, Running, container, limited, pod, socket};
use tokio::time::{Instant, timeout};

async fn connected(profile: Profile, events: Events) -> (FakeRuntime, FakePlugin, Running) {
    let (directory, path) = socket();
    let runtime = FakeRuntime::listen(path, profile).unwrap();
    let mut running = Running::start(events, directory);
    let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    assert!(running.call().await.starts_with("Configure"));
    assert_eq!(running.call().await, "Synchronize 0 0");
    (runtime, plugin, running)
}

/// Every event reaches its handler, and answers come back, in each version.
#[tokio::test]
async fn all_events_of_all_versions() {
    for profile in [
        Profile::containerd_1_7(),
        Profile::containerd_2_1(),
        Profile::containerd_2_2(),
        Profile::containerd_2_3(),
        Profile::cri_o_1_35(),
    ] {
        let known = match profile {
            ref p if format!("{p:?}").contains("minor: 6") || format!("{p:?}").contains("minor: 8") => Events::BEFORE_0_10,
            _ => Events::ALL,
        };
        let (_runtime, plugin, mut running) = connected(profile, Events::ALL).await;
        assert_eq!(plugin.events(), known);
        assert_eq!(plugin.registration().plugin_name, "recorder");
        assert_eq!(plugin.registration().plugin_idx, "42");
        let (pod, container) = (pod("p"), container("c"));

        plugin.run_pod_sandbox(&pod).await.unwrap();
        plugin.update_pod_sandbox(&pod, &limited(1), &limited(2)).await.unwrap();
        plugin.post_update_pod_sandbox(&pod).await.unwrap();
        let creation = plugin.live_and_die(&pod, &container).await.unwrap();
        assert_eq!(creation.adjust.annotations["seen"], "c");
        assert_eq!(creation.update, [ContainerUpdate::new("other")]);
        assert_eq!(plugin.update_container(&pod, &container, &limited(7)).await.unwrap(), [ContainerUpdate::new("c")]);
        plugin.post_update_container(&pod, &container).await.unwrap();
        assert_eq!(plugin.stop_container(&pod, &container).await.unwrap(), [ContainerUpdate::new("neighbour")]);
        plugin.stop_pod_sandbox(&pod).await.unwrap();
        plugin.remove_pod_sandbox(&pod).await.unwrap();
        plugin.shutdown().await.unwrap();

        let mut expected = vec!["RunPodSandbox p"];
        if known == Events::ALL {
            expected.extend(["UpdatePodSandbox p 1 2", "PostUpdatePodSandbox p"]);
        }
        expected.extend([
            "CreateContainer p c",
            "PostCreateContainer c",
            "StartContainer c",
            "PostStartContainer c",
            "StopContainer c",
            "RemoveContainer c",
            "UpdateContainer c 7",
            "PostUpdateContainer c",
            "StopContainer c",
            "StopPodSandbox p",
            "RemovePodSandbox p",
            "Shutdown",
        ]);
        for call in expected {
            assert_eq!(running.call().await, call);
        }
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn validation_accepts_and_rejects() {
    let (_runtime, plugin, running) = connected(Profile::containerd_2_2(), Events::ALL).await;
    let mut request = ValidateContainerAdjustmentRequest::default();
    assert_eq!(plugin.validate_container_adjustment(&request).await.unwrap(), Verdict::Accept);
    let mut adjust = ContainerAdjustment::default();
    adjust.set_env("A", "b");
    request.adjust = Some(adjust);
    let verdict = plugin.validate_container_adjustment(&request).await.unwrap();
    assert_eq!(verdict, Verdict::Reject("no variables".to_owned()));
    running.stop().await.unwrap();
}

/// The subscription is what the plugin wants and the runtime knows, and what is missing is said.
#[tokio::test]
async fn subscriptions_are_cut() {
    let (_runtime, plugin, mut running) =
        connected(Profile::containerd_2_1(), Events::CREATE_CONTAINER | Events::VALIDATE_CONTAINER_ADJUSTMENT).await;
    assert_eq!(plugin.events(), Events::CREATE_CONTAINER);
    let state = running.state_like(|state| state.is_synchronized()).await;
    let ConnectionState::Synchronized(session) = state else { unreachable!() };
    assert_eq!(session.unavailable, Events::VALIDATE_CONTAINER_ADJUSTMENT);
    assert_eq!(session.runtime.request_timeout, Some(Duration::from_secs(2)));
    running.stop().await.unwrap();

    // 0.6.1 says no time-outs, and an unknown runtime is taken for old.
    let (_runtime, _plugin, mut running) = connected(Profile::containerd_1_7(), Events::ALL).await;
    let ConnectionState::Synchronized(session) = running.state_like(|state| state.is_synchronized()).await else {
        unreachable!()
    };
    assert_eq!(session.runtime.request_timeout, None);
    assert_eq!(session.runtime.nri.version(), Some(NriVersion::new(0, 6, 1)));
    running.stop().await.unwrap();
    let unknown = Profile::new("frakti", "3.0", NriVersion::new(0, 11, 0));
    let (_runtime, plugin, running) = connected(unknown, Events::ALL).await;
    assert_eq!(plugin.events(), Events::BEFORE_0_10);
    running.stop().await.unwrap();
}

/// No event wanted is not the empty mask, which would mean every event.
#[tokio::test]
async fn a_plugin_that_wants_nothing_is_told_nothing() {
    let (_runtime, plugin, mut running) = connected(Profile::containerd_2_3(), Events::NONE).await;
    assert_eq!(plugin.events(), Events::REMOVE_POD_SANDBOX);
    plugin.remove_pod_sandbox(&pod("p")).await.unwrap();
    plugin.shutdown().await.unwrap();
    assert_eq!(running.call().await, "Shutdown");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn failures_and_panics_fail_the_request_only() {
    let (_runtime, plugin, running) = connected(Profile::containerd_2_1(), Events::ALL).await;
    running.plugin.behave(Behaviour::Fail);
    let error = plugin.create_container(&pod("p"), &container("c")).await.unwrap_err();
    assert!(matches!(&error, FakeError::Failed { code: 9, message } if message == "not this one"), "{error}");
    running.plugin.behave(Behaviour::Panic);
    let error = plugin.create_container(&pod("p"), &container("c")).await.unwrap_err();
    assert!(matches!(&error, FakeError::Failed { code: 13, message } if message.ends_with("panicked: a bug")), "{error}");
    running.plugin.behave(Behaviour::Annotate);
    plugin.create_container(&pod("p"), &container("c")).await.unwrap();
    running.stop().await.unwrap();
}

/// The trap: a runtime that waits too long creates the container. So the request is failed before.
#[tokio::test]
async fn a_slow_handler_fails_the_request_in_time() {
    let profile = Profile::containerd_2_1().request_timeout(Duration::from_millis(800));
    let (_runtime, plugin, running) = connected(profile, Events::ALL).await;
    running.plugin.behave(Behaviour::Sleep(PATIENCE));
    let started = Instant::now();
    let error = plugin.create_container(&pod("p"), &container("c")).await.unwrap_err();
    assert!(matches!(error, FakeError::Failed { code: 4, .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(700));
    running.plugin.behave(Behaviour::Annotate);
    plugin.create_container(&pod("p"), &container("c")).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn long_messages_pass_in_both_directions() {
    let (_runtime, plugin, running) = connected(Profile::containerd_2_1(), Events::ALL).await;
    for bytes in [1, 4000, 4086, 4087, 20_000, 70_000, 1 << 20, (4 << 20) - 4096] {
        running.plugin.behave(Behaviour::Long(bytes));
        let mut container = container("c");
        container.annotations.insert("long".to_owned(), "y".repeat(bytes));
        let creation = plugin.create_container(&pod("p"), &container).await.unwrap();
        assert_eq!(creation.adjust.annotations["long"].len(), bytes);
    }
    // An answer longer than ttrpc allows fails that request, and the connection lives.
    running.plugin.behave(Behaviour::Long(5 << 20));
    let error = plugin.create_container(&pod("p"), &container("c")).await.unwrap_err();
    assert!(matches!(error, FakeError::Failed { .. }), "{error}");
    running.plugin.behave(Behaviour::Annotate);
    plugin.create_container(&pod("p"), &container("c")).await.unwrap();
    running.stop().await.unwrap();
}

/// What a later or a broken runtime sends is answered so that a good runtime would know what to do.
#[tokio::test]
async fn unknown_and_broken_requests() {
    let (_runtime, plugin, mut running) = connected(Profile::containerd_2_1(), Events::ALL).await;
    let code = |result: Result<Vec<u8>, FakeError>| match result {
        Ok(_) => 0,
        Err(FakeError::Failed { code, .. }) => code,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(code(plugin.call_raw("FreezeContainer", Vec::new()).await), 12);
    assert_eq!(code(plugin.call_raw("CreateContainer", vec![0xff; 9]).await), 3);
    assert_eq!(code(plugin.call_raw("CreateContainer", Vec::new()).await), 3);
    assert_eq!(code(plugin.call_raw("StateChange", vec![0x0a]).await), 3);
    let future = StateChangeEvent { event: 99, pod: None, container: None };
    assert_eq!(code(plugin.call_raw("StateChange", future.encode_to_vec()).await), 0);
    // Fields that do not exist yet.
    let mut known = StateChangeEvent { event: Event::RunPodSandbox.into(), pod: Some(pod("p")), container: None }.encode_to_vec();
    known.extend_from_slice(&[0xaa, 0x06, 3, b'a', b'b', b'c', 0xa0, 0x06, 1]);
    assert_eq!(code(plugin.call_raw("StateChange", known).await), 0);
    assert_eq!(running.call_like("RunPodSandbox").await, "RunPodSandbox p");
    running.stop().await.unwrap();
}

/// Synchronize in any number of parts is one call.
#[tokio::test]
async fn synchronize_in_parts() {
    for (pods, containers, most) in [(0, 0, 1), (1, 0, 1), (3, 10, 4), (200, 1000, 7), (5, 5, 100)] {
        let (directory, path) = socket();
        let runtime = FakeRuntime::listen(path, Profile::containerd_2_1()).unwrap();
        let mut running = Running::start(Events::ALL, directory);
        let plugin = timeout(PATIENCE, runtime.accept()).await.unwrap().unwrap();
        let all_pods: Vec<_> = (0..pods).map(|at| pod(&at.to_string())).collect();
        let all: Vec<_> = (0..containers).map(|at| container(&at.to_string())).collect();
        let update = plugin.synchronize_in_parts(&all_pods, &all, most).await.unwrap();
        assert_eq!(update.len(), usize::from(containers > 0));
        assert_eq!(running.call_like("Synchronize").await, format!("Synchronize {pods} {containers}"));
        assert_eq!(*running.plugin.seen.lock().unwrap(), all);
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn updates_outside_events() {
    let (_runtime, plugin, mut running) = connected(Profile::containerd_2_1(), Events::ALL).await;
    running.state_like(|state| state.is_synchronized()).await;
    let handle = running.handle.clone();
    let update = vec![ContainerUpdate::new("a"), ContainerUpdate::new("b")];
    assert_eq!(handle.update_containers(update.clone()).await.unwrap(), []);
    assert_eq!(plugin.next_update().await.unwrap().update, update);
    plugin.answer_updates_with(Ok(vec![ContainerUpdate::new("b")]));
    assert_eq!(handle.update_containers(update.clone()).await.unwrap(), [ContainerUpdate::new("b")]);
    plugin.answer_updates_with(Err("no".to_owned()));
    let error = handle.update_containers(update.clone()).await.unwrap_err();
    assert!(matches!(&error, UpdateError::Refused(text) if text == "no"), "{error}");

    running.plugin.behave(Behaviour::UpdateInside);
    let error = plugin.create_container(&pod("p"), &container("c")).await.unwrap_err();
    assert!(error.to_string().contains("within a handler"), "{error}");

    plugin.hang_up();
    assert!(matches!(running.disconnect().await, Disconnect::Closed));
    assert!(matches!(handle.update_containers(update).await, Err(UpdateError::NotConnected)));
    running.stop().await.unwrap();
}

/// Both connections at once: events one way, updates the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_at_once() {
    let (_runtime, plugin, mut running) = connected(Profile::containerd_2_1(), Events::ALL).await;
    running.state_like(|state| state.is_synchronized()).await;
    running.plugin.behave(Behaviour::Long(30_000));
    let handle = running.handle.clone();
    let updates = tokio::spawn(async move {
        for at in 0..300 {
            let mut update = ContainerUpdate::new(format!("c{at}"));
            update.resources().set_unified("file", "z".repeat(at * 200));
            handle.update_containers(vec![update]).await.unwrap();
        }
    });
    for at in 0..300 {
        plugin.create_container(&pod("p"), &container(&at.to_string())).await.unwrap();
    }
    updates.await.unwrap();
    for at in 0..300 {
        assert_eq!(plugin.next_update().await.unwrap().update[0].container_id, format!("c{at}"));
    }
    running.stop().await.unwrap();
}
