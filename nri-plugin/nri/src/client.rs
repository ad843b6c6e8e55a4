//! Calling a method of the other end.

use std::time::Duration;

use prost::Message;
use ttrpc::r#async::Client;

/// How much later than the client itself a call is given up.
const CLIENT_SLACK: Duration = Duration::from_millis(100);

/// What can go wrong with a call, as far as it matters here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The other end answered with a status.
    #[error("{message}")]
    Status {
        /// The status' code.
        code: i32,
        /// The status' text.
        message: String,
    },
    /// There was no answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The connection is lost, or the answer is none.
    #[error("{0}")]
    Failed(String),
}

/// Sends a request and waits for its answer, as long as `timeout`.
pub(crate) async fn call<A: Message + Default>(
    client: &Client,
    method: (&str, &str),
    request: &impl Message,
    timeout: Duration,
) -> Result<A, CallError> {
    let answer = call_encoded(client, method, request.encode_to_vec(), timeout).await?;
    A::decode(answer.as_slice())
        .map_err(|error| CallError::Failed(format!("the answer to {} does not decode: {error}", method.1)))
}

/// The same with request and answer as bytes.
pub(crate) async fn call_encoded(
    client: &Client,
    (service, method): (&str, &str),
    payload: Vec<u8>,
    timeout: Duration,
) -> Result<Vec<u8>, CallError> {
    let mut envelope = ttrpc::Request::new();
    envelope.set_service(service.to_owned());
    envelope.set_method(method.to_owned());
    envelope.set_timeout_nano(i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
    envelope.payload = payload;
    // The client has the same time limit, but its error cannot be told from others. So this one is a little longer than
    // that, and what fails at its end failed for it.
    let started = tokio::time::Instant::now();
    match tokio::time::timeout(timeout.saturating_add(CLIENT_SLACK), client.request(envelope)).await {
        Ok(Ok(response)) => Ok(response.payload),
        Ok(Err(ttrpc::Error::RpcStatus(status))) => Err(CallError::Status { code: status.code.value(), message: status.message }),
        Ok(Err(error)) if started.elapsed() < timeout => Err(CallError::Failed(error.to_string())),
        _ => Err(CallError::TimedOut(timeout)),
    }
}
