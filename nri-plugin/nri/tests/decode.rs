//! Whatever bytes come as a request, they are answered, quickly and within bounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nri::testing::{FakeError, FakeRuntime, Profile};
use nri::{Events, proto};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;
use support::{Running, socket};

/// Every method and a good request for it, to be spoilt.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let (pod, container) = (Some(support::pod("p")), Some(support::container("c")));
    let start = proto::StartContainerRequest { pod: pod.clone(), container: container.clone() }.encode_to_vec();
    let validate = proto::ValidateContainerAdjustmentRequest {
        pod: pod.clone(),
        container: container.clone(),
        adjust: Some(proto::ContainerAdjustment::default()),
        plugins: vec![proto::PluginInstance { name: "a".to_owned(), index: "01".to_owned() }],
        ..Default::default()
    };
    let event =
        |event: proto::Event| proto::StateChangeEvent { event: event.into(), pod: pod.clone(), container: container.clone() };
    let mut requests = vec![
        ("StateChange", event(proto::Event::StartContainer).encode_to_vec()),
        ("ValidateContainerAdjustment", validate.encode_to_vec()),
        ("Shutdown", Vec::new()),
    ];
    for method in [
        "RunPodSandbox",
        "UpdatePodSandbox",
        "PostUpdatePodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
    ] {
        requests.push((method, start.clone()));
    }
    requests
}

fn spoilt(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = good.len();
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (0..=length).prop_map({
            let good = good.clone();
            move |end| good[..end].to_vec()
        }),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6).prop_map(move |changes| {
            let mut bytes = good.clone();
            for (at, value) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
            }
            bytes
        }),
    ]
}

/// Each request is spoilt many times, over one connection that has to live through all of it.
#[test]
fn spoilt_requests_are_answered() {
    const CASES: usize = 60;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runtime.block_on(async {
        let (directory, path) = socket();
        let listening = FakeRuntime::listen(path, Profile::containerd_2_3()).unwrap();
        let running = Running::start(Events::ALL, directory);
        let plugin = listening.connect().await.unwrap();
        for (method, good) in requests() {
            let strategy = spoilt(good);
            for _ in 0..CASES {
                let bytes = strategy.new_tree(&mut runner).unwrap().current();
                match plugin.call_raw(method, bytes.clone()).await {
                    Ok(_) | Err(FakeError::Failed { code: 3 | 9, .. }) => {}
                    Err(error) => panic!("{method} {bytes:02x?}: {error}"),
                }
            }
        }
        plugin.create_container(&support::pod("p"), &support::container("c")).await.unwrap();
        running.stop().await.unwrap();
    });
}

/// A request that is two bytes for each of two million containers is refused before it is decoded.
#[tokio::test]
async fn a_synchronize_that_would_grow_is_refused() {
    let (directory, path) = socket();
    let listening = FakeRuntime::listen(path, Profile::containerd_2_3()).unwrap();
    let running = Running::start(Events::ALL, directory);
    let plugin = listening.accept().await.unwrap();
    let bytes = [0x12, 0x00].repeat(2_000_000);
    let error = plugin.call_raw("Synchronize", bytes).await.unwrap_err();
    assert!(matches!(&error, FakeError::Failed { code: 8, .. }), "{error}");
    running.stop().await.unwrap();
}

macro_rules! survives {
    ($bytes:expr, $($message:ident),* $(,)?) => {$(
        if let Ok(message) = proto::$message::decode($bytes) {
            // What decodes, encodes again to something that is no longer, but for fields that were repeated.
            let again = message.encode_to_vec();
            prop_assert_eq!(proto::$message::decode(&again[..]).unwrap(), message);
        }
    )*};
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives!(
            &bytes[..],
            ConfigureRequest, ConfigureResponse, RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse,
            UpdateContainersRequest, UpdateContainersResponse, CreateContainerRequest, CreateContainerResponse,
            UpdateContainerRequest, UpdateContainerResponse, StopContainerRequest, StopContainerResponse,
            StartContainerRequest, StateChangeEvent, UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
            ValidateContainerAdjustmentResponse,
        );
    }
}
