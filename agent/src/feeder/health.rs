//! `grpc.health.v1.Health`, for probes: the agent serves as long as it answers.

use bytes::Bytes;
use prost::Message;
use tonic::Status;

/// What can be asked for.
const SERVICES: [&str; 3] = ["", "feeder.LogService", "grpc.health.v1.Health"];

const SERVING: i32 = 1;
const SERVICE_UNKNOWN: i32 = 3;

/// Asks for the health of a service; of all with an empty name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// The health of a service.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// Answers `Check`.
pub(super) fn check(request: &HealthCheckRequest) -> Result<Bytes, Status> {
    match SERVICES.contains(&request.service.as_str()) {
        true => Ok(answer(SERVING)),
        false => Err(Status::not_found("there is no such service here")),
    }
}

/// The first answer to `Watch`, and the last: it never changes.
pub(super) fn watch(request: &HealthCheckRequest) -> Bytes {
    answer(if SERVICES.contains(&request.service.as_str()) { SERVING } else { SERVICE_UNKNOWN })
}

fn answer(status: i32) -> Bytes {
    HealthCheckResponse { status }.encode_to_vec().into()
}
