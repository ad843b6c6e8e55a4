//! Any bytes as each message that a peer may send: no panic, and what decodes encodes to what decodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nri::proto;
use prost::Message;

fn round_trip<M: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        let again = M::decode(message.encode_to_vec().as_slice()).expect("what was encoded decodes");
        assert!(again == message);
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (which, bytes) = input;
    match which % 16 {
        0 => round_trip::<proto::ConfigureRequest>(bytes),
        1 => round_trip::<proto::SynchronizeRequest>(bytes),
        2 => round_trip::<proto::StateChangeEvent>(bytes),
        3 => round_trip::<proto::CreateContainerRequest>(bytes),
        4 => round_trip::<proto::UpdateContainerRequest>(bytes),
        5 => round_trip::<proto::StopContainerRequest>(bytes),
        6 => round_trip::<proto::StartContainerRequest>(bytes),
        7 => round_trip::<proto::UpdatePodSandboxRequest>(bytes),
        8 => round_trip::<proto::ValidateContainerAdjustmentRequest>(bytes),
        9 => round_trip::<proto::RegisterPluginRequest>(bytes),
        10 => round_trip::<proto::UpdateContainersRequest>(bytes),
        11 => round_trip::<proto::UpdateContainersResponse>(bytes),
        12 => round_trip::<proto::ConfigureResponse>(bytes),
        13 => round_trip::<proto::SynchronizeResponse>(bytes),
        14 => round_trip::<proto::CreateContainerResponse>(bytes),
        _ => round_trip::<proto::ValidateContainerAdjustmentResponse>(bytes),
    }
});
