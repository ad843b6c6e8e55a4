//! OpenTelemetry: events as log records, to a collector that speaks OTLP over gRPC.
//!
//! A batch is what waits when the one before has been taken, so there is no timer: a quiet node's events go out at once, and a
//! storm's in large batches. A collector that is not there is tried again a few times; then the batch is dropped, counted, and the
//! next one begins by saying so.

mod names;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use portcullis_enforcer::OtlpSink;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::warn;

use self::names::{attributes, pair};
use super::{Account, class, stops};
use crate::Error;
use crate::control::{EventClass, EventFormat, Fed, Feed, LOST_SCHEMA, Lost};
use crate::json;
use crate::kubearmor::Host;
use crate::telemetry::Telemetry;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Most records of a batch.
const BATCH_RECORDS: usize = 512;
/// Most bytes of a batch; one record more may make it longer. Collectors take 4 MiB if nobody says otherwise.
const BATCH_BYTES: usize = 1 << 20;
/// How often a batch is tried, and how long before the second time. Each further time it is twice as long.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long a collector may take for a connection, and for a batch.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const EXPORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last batch may take when the agent stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Starts it, or says in the account why it can't be: the agent goes on without.
pub(super) fn start(
    config: &OtlpSink,
    host: &Host,
    telemetry: &Telemetry,
    account: &Account,
    mut stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<Result<(), Error>>,
) {
    let channel = match channel(config) {
        Ok(channel) => channel,
        Err(reason) => return account.fails(reason),
    };
    let exporter = Exporter {
        feed: Feed::of(telemetry, class(config.what)),
        client: LogsServiceClient::new(channel),
        resource: resource(host),
        account: account.clone(),
        batch: Batch::default(),
        unsaid: Vec::new(),
    };
    tasks.spawn(async move {
        exporter.run(&mut stopped).await;
        Ok(())
    });
}

fn channel(config: &OtlpSink) -> Result<Channel, String> {
    let unusable = |error: tonic::transport::Error| format!("the endpoint cannot be used: {error}");
    let mut endpoint = Endpoint::from_shared(config.endpoint.clone()).map_err(unusable)?;
    if let Some(path) = &config.ca {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))).map_err(unusable)?;
    }
    Ok(endpoint.connect_timeout(CONNECT_PATIENCE).timeout(EXPORT_PATIENCE).connect_lazy())
}

/// Who tells it. The node's name and number are the conventions' `host`.
fn resource(host: &Host) -> Resource {
    let texts = [
        ("service.name", "portcullis"),
        ("service.version", VERSION),
        ("os.type", "linux"),
        ("host.name", &host.name),
        ("host.id", &host.id),
        ("k8s.cluster.name", &host.cluster),
    ];
    let attributes = texts.map(|(name, text)| pair(name, Any::StringValue(text.to_owned())));
    Resource { attributes: attributes.into(), ..Resource::default() }
}

/// Records that go together.
#[derive(Default)]
struct Batch {
    records: Vec<LogRecord>,
    bytes: usize,
    /// Those of them that are events, and not about some.
    events: u64,
}

struct Exporter {
    feed: Feed,
    client: LogsServiceClient<Channel>,
    resource: Resource,
    account: Account,
    batch: Batch,
    /// Losses that the collector has not been told yet.
    unsaid: Vec<(EventClass, u64)>,
}

impl Exporter {
    async fn run(mut self, stopped: &mut watch::Receiver<bool>) {
        loop {
            tokio::select! {
                fed = self.feed.next() => self.take(&fed),
                () = stops(stopped) => break,
            }
            self.fill();
            tokio::select! {
                () = self.deliver() => {}
                () = stops(stopped) => break,
            }
        }
        if timeout(STOP_PATIENCE, self.finish()).await.is_err() {
            self.account.fails(format!("the last events are not taken after {} s", STOP_PATIENCE.as_secs()));
        }
        self.account.ends_without(self.batch.events);
    }

    /// Sends what waits, as long as it is taken.
    async fn finish(&mut self) {
        self.feed.end();
        loop {
            self.fill();
            let has_something = self.batch.events > 0 || !self.unsaid.is_empty();
            if !has_something || !matches!(self.export().await, Exported::Taken) {
                return;
            }
        }
    }

    fn fill(&mut self) {
        while self.batch.records.len() < BATCH_RECORDS
            && self.batch.bytes < BATCH_BYTES
            && let Some(fed) = self.feed.try_next()
        {
            self.take(&fed);
        }
    }

    fn take(&mut self, fed: &Fed) {
        let record = match fed {
            Fed::Alert(alert) => record(&alert.written(EventFormat::Json), severity(alert.is_denial())),
            Fed::Log(log) => record(&log.written(EventFormat::Json), SeverityNumber::Info),
            Fed::Lost(class, lost) => {
                self.account.lost(*lost);
                return self.say(*class, *lost);
            }
        };
        self.batch.bytes += record.encoded_len();
        self.batch.records.push(record);
        self.batch.events += 1;
    }

    /// Has the next batch say what is missing.
    fn say(&mut self, class: EventClass, lost: u64) {
        match self.unsaid.iter_mut().find(|(of, _)| *of == class) {
            Some((_, count)) => *count += lost,
            None => self.unsaid.push((class, lost)),
        }
    }

    /// Gets the batch to the collector, or gives it up.
    async fn deliver(&mut self) {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            match self.export().await {
                Exported::Taken => return,
                Exported::Later if attempt < ATTEMPTS => {
                    sleep(pause).await;
                    pause *= 2;
                }
                Exported::Later | Exported::Never => break,
            }
        }
        let Batch { events, .. } = std::mem::take(&mut self.batch);
        if events > 0 {
            self.account.lost(events);
            self.say(EventClass::All, events);
        }
    }

    async fn export(&mut self) -> Exported {
        let losses = self.unsaid.iter().map(|(class, lost)| {
            let lost = Lost { schema: LOST_SCHEMA.to_owned(), class: *class, lost: *lost };
            record(&json::line(&lost), SeverityNumber::Warn)
        });
        let scope = InstrumentationScope { name: "portcullis".to_owned(), version: VERSION.to_owned(), ..Default::default() };
        let log_records = losses.chain(self.batch.records.iter().cloned()).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
        let logs = ResourceLogs { resource: Some(self.resource.clone()), scope_logs, ..ResourceLogs::default() };
        match self.client.export(ExportLogsServiceRequest { resource_logs: vec![logs] }).await {
            Ok(answer) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                let rejected = u64::try_from(partial.rejected_log_records).unwrap_or(0).min(self.batch.events);
                if rejected > 0 {
                    warn!("the collector refuses {rejected} of {} events: {}", self.batch.events, partial.error_message);
                }
                self.account.lost(rejected);
                self.account.wrote(self.batch.events - rejected);
                self.batch = Batch::default();
                self.unsaid.clear();
                Exported::Taken
            }
            Err(status) => {
                self.account.fails(format!("{:?}: {}", status.code(), status.message()));
                if is_worth_another_try(status.code()) { Exported::Later } else { Exported::Never }
            }
        }
    }
}

/// What a collector did with a batch.
enum Exported {
    Taken,
    /// It may take it another time.
    Later,
    Never,
}

/// As OTLP's specification has it (section "Failures" of OTLP/gRPC).
fn is_worth_another_try(code: Code) -> bool {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable};
    matches!(code, Aborted | Cancelled | DataLoss | DeadlineExceeded | OutOfRange | ResourceExhausted | Unavailable)
}

fn severity(is_denial: bool) -> SeverityNumber {
    if is_denial { SeverityNumber::Error } else { SeverityNumber::Warn }
}

/// A line as a record.
fn record(line: &[u8], severity: SeverityNumber) -> LogRecord {
    let line: Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let now = nanoseconds(SystemTime::now());
    let time = humantime::parse_rfc3339(text("time")).map_or(now, nanoseconds);
    let (schema, _) = text("schema").split_once('/').unwrap_or((text("schema"), ""));
    let words = [text("verdict"), text("operation"), text("object")];
    let body = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        body: Some(AnyValue { value: Some(Any::StringValue(body)) }),
        attributes: attributes(&line),
        event_name: schema.to_owned(),
        ..LogRecord::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
