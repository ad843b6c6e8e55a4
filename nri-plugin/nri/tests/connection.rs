//! Making, losing and making again the connection, against the fake runtime.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nri::testing::{FakeError, FakePlugin, FakeRuntime, Profile};
use nri::version::NriVersion;
use nri::{ConnectionState, Disconnect, Events};
use support::{Behaviour, PATIENCE, Running, container, pod, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test]
async fn a_runtime_that_comes_later_and_restarts() {
    let (directory, path) = socket();
    let mut running = Running::start(Events::ALL, directory);
    assert!(matches!(running.disconnect().await, Disconnect::Connect { .. }));
    for round in 0..3 {
        let runtime = FakeRuntime::listen(&path, Profile::containerd_2_1()).unwrap();
        let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
        running.call_like("Synchronize 0 0").await;
        plugin.create_container(&pod("p"), &container(&round.to_string())).await.unwrap();
        // Once for each connection: nothing is said twice.
        assert_eq!(running.call().await, format!("CreateContainer p {round}"));
        drop((plugin, runtime));
        assert!(running.call().await.starts_with("closed: "));
    }
    running.stop().await.unwrap();
}

/// The old runtime hangs with its connection open, and a new one listens at the same path.
#[tokio::test]
async fn a_socket_made_anew_is_noticed() {
    let (directory, path) = socket();
    let old = FakeRuntime::listen(&path, Profile::containerd_2_1()).unwrap();
    let mut running = Running::start(Events::ALL, directory);
    let hanging = timeout(PATIENCE, old.connect()).await.unwrap().unwrap();
    let new = FakeRuntime::listen(&path, Profile::containerd_2_2()).unwrap();
    let plugin = timeout(PATIENCE, new.connect()).await.unwrap().unwrap();
    assert!(matches!(running.disconnect().await, Disconnect::SocketReplaced));
    plugin.create_container(&pod("p"), &container("c")).await.unwrap();
    timeout(PATIENCE, hanging.closed()).await.unwrap();
    running.stop().await.unwrap();
}

/// With late answers allowed the runtime drops the plugin, which comes back and is told everything again.
#[tokio::test]
async fn dropped_for_being_late_and_back_again() {
    let (directory, path) = socket();
    let profile = Profile::containerd_2_1().request_timeout(Duration::from_millis(300));
    let runtime = FakeRuntime::listen(&path, profile).unwrap();
    let mut running = Running::start_with(Events::ALL, directory, true);
    let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    running.plugin.behave(Behaviour::Sleep(PATIENCE));
    let error = plugin.create_container(&pod("p"), &container("slow")).await.unwrap_err();
    // Whose clock runs out first is chance; a real runtime closes in either case that is its own.
    plugin.hang_up();
    assert!(matches!(error, FakeError::TimedOut(_) | FakeError::Failed { code: 4, .. }), "{error}");
    running.plugin.behave(Behaviour::Annotate);
    let plugin = timeout(PATIENCE, runtime.accept()).await.unwrap().unwrap();
    plugin.synchronize(&[pod("p")], &[container("slow")]).await.unwrap();
    assert_eq!(running.call_like("Synchronize 1").await, "Synchronize 1 1");
    plugin.create_container(&pod("p"), &container("next")).await.unwrap();
    running.stop().await.unwrap();
}

/// Old runtimes keep a connection whose Synchronize failed, and never send an event on it.
#[tokio::test]
async fn a_failed_or_late_synchronize_ends_the_connection() {
    for (behaviour, late) in [
        (Behaviour::FailSynchronize, false),
        (Behaviour::SleepSynchronize(PATIENCE), false),
        (Behaviour::SleepSynchronize(PATIENCE), true),
    ] {
        let (directory, path) = socket();
        let profile = Profile::containerd_1_7().request_timeout(Duration::from_millis(300));
        let runtime = FakeRuntime::listen(&path, profile).unwrap();
        let mut running = Running::start_with(Events::ALL, directory, late);
        running.plugin.behave(behaviour);
        let plugin = timeout(PATIENCE, runtime.accept()).await.unwrap().unwrap();
        plugin.synchronize(&[], &[]).await.unwrap_err();
        timeout(PATIENCE, plugin.closed()).await.unwrap();
        let reason = running.disconnect().await;
        assert!(matches!(reason, Disconnect::Synchronize(_)), "{reason}");
        running.plugin.behave(Behaviour::Annotate);
        timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
        running.stop().await.unwrap();
    }
}

/// The version of the runtime promises an event that it then does not know.
#[tokio::test]
async fn refused_events_are_tried_once_without() {
    let (directory, path) = socket();
    // Calls itself 2.2.0, which should have NRI 0.10.
    let liar = Profile::new("containerd", "2.2.0", NriVersion::new(0, 8, 0));
    let mut runtime = FakeRuntime::listen(&path, liar).unwrap();
    let mut running = Running::start(Events::ALL, directory);
    let error = timeout(PATIENCE, runtime.accept()).await.unwrap().err().expect("a refusal");
    assert!(matches!(error, FakeError::InvalidEvents(0x3800)), "{error}");
    let reason = running.disconnect().await;
    assert!(matches!(reason, Disconnect::EventsRefused(Events::ALL)), "{reason}");
    let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    assert_eq!(plugin.events(), Events::BEFORE_0_10);
    let state = running.state_like(ConnectionState::is_synchronized).await;
    assert!(
        matches!(state, ConnectionState::Synchronized(session) if session.unavailable == Events::ALL.without(Events::BEFORE_0_10))
    );
    // The runtime is upgraded: the next connection asks for everything again.
    runtime.set_profile(Profile::containerd_2_2());
    plugin.hang_up();
    let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    assert_eq!(plugin.events(), Events::ALL);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_cannot_be_configured() {
    let (directory, path) = socket();
    let runtime = FakeRuntime::listen(&path, Profile::containerd_2_1().config("a = b")).unwrap();
    let mut running = Running::start(Events::ALL, directory);
    running.plugin.behave(Behaviour::FailConfigure);
    let error = timeout(PATIENCE, runtime.accept()).await.unwrap().err().expect("a failure");
    assert!(matches!(error, FakeError::Failed { code: 3, .. }), "{error}");
    assert!(running.call().await.ends_with("[a = b]"));
    let reason = running.disconnect().await;
    assert!(matches!(&reason, Disconnect::Configure(text) if text == "no such setting"), "{reason}");
    running.plugin.behave(Behaviour::Annotate);
    timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    running.stop().await.unwrap();
}

/// Whatever arrives in place of NRI, the plugin says why it left, and tries again.
#[tokio::test]
async fn peers_that_do_not_speak_nri() {
    let (directory, path) = socket();
    let runtime = FakeRuntime::listen(&path, Profile::containerd_2_1()).unwrap();
    let mut running = Running::start(Events::ALL, directory);
    for (frames, wanted) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "longer than"),
        (&[0, 0, 0, 1, 0, 0, 0, 50, 1, 2, 3][..], "within a frame"),
        (&[][..], "closed the connection"),
        // Frames for connections that do not exist are no reason to leave.
        (&[0, 0, 0, 9, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 5][..], "closed the connection"),
    ] {
        let mut raw = timeout(PATIENCE, runtime.accept_raw()).await.unwrap().unwrap();
        raw.write_all(frames).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut register = Vec::new();
        timeout(PATIENCE, raw.read_to_end(&mut register)).await.unwrap().unwrap();
        let reason = running.disconnect().await.to_string();
        assert!(reason.contains(wanted), "{reason}");
    }
    timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_waits_for_the_handler_at_work() {
    let (directory, path) = socket();
    let runtime = FakeRuntime::listen(&path, Profile::containerd_2_1()).unwrap();
    let mut running = Running::start(Events::ALL, directory);
    let plugin = timeout(PATIENCE, runtime.connect()).await.unwrap().unwrap();
    running.plugin.behave(Behaviour::Sleep(Duration::from_millis(500)));
    let creating = tokio::spawn(async move { plugin.create_container(&pod("p"), &container("c")).await });
    running.call_like("CreateContainer").await;
    running.stop().await.unwrap();
    creating.await.unwrap().unwrap();
}

/// The runtime starts the plugin: file descriptor, three variables, nothing else.
#[tokio::test]
async fn started_by_the_runtime() {
    let logger = tokio::task::spawn_blocking(|| support::example("logger")).await.unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = tokio::net::UnixStream::from_std(ours).unwrap();
    // The standard input is a number that a child can be given in safe code; a runtime uses 3.
    let child = Command::new(logger)
        .env_clear()
        .env("NRI_PLUGIN_NAME", "logger")
        .env("NRI_PLUGIN_IDX", "77")
        .env("NRI_PLUGIN_SOCKET", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let profile = Profile::containerd_2_1().config("# settings\nannotate=by=config\n");
    let plugin = timeout(PATIENCE, FakePlugin::start(ours, profile)).await.unwrap().unwrap();
    assert_eq!(plugin.registration().plugin_name, "logger");
    assert_eq!(plugin.registration().plugin_idx, "77");
    plugin.synchronize(&[], &[]).await.unwrap();
    let creation = plugin.create_container(&pod("p"), &container("c")).await.unwrap();
    assert_eq!(creation.adjust.annotations["by"], "config");
    plugin.hang_up();
    // It does not stay behind: the runtime would not talk to it again.
    let status = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let output = String::from_utf8(status.stdout).unwrap();
    assert!(output.contains("CreateContainer test/pod-p/container-c c pid 0"), "{output}");
    assert_eq!(status.status.code(), Some(1));
}
