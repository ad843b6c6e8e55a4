//! In place of [`super::otlp`] in builds without the feature.

use portcullis_enforcer::OtlpSink;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Account;
use crate::Error;
use crate::kubearmor::Host;
use crate::telemetry::Telemetry;

/// Says in the account that nothing will come.
pub(super) fn start(
    _: &OtlpSink,
    _: &Host,
    _: &Telemetry,
    account: &Account,
    _: watch::Receiver<bool>,
    _: &mut JoinSet<Result<(), Error>>,
) {
    account.fails("this build has no OTLP; build it with --features otlp, or leave sinks.otlp out".to_owned());
}
