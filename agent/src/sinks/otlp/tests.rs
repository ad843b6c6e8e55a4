use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use portcullis_enforcer::{SinkEvents, Sinks};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::*;
use crate::control::SinkStatus;
use crate::fake::{alert, executed, named};
use crate::sinks;

/// A collector that does what a test says, one answer for each batch, and takes all when there is none.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<Vec<Result<ExportLogsServiceResponse, Status>>>>,
    taken: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(&self, batch: Request<ExportLogsServiceRequest>) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let answer = self.answers.lock().unwrap().pop().unwrap_or_else(|| Ok(ExportLogsServiceResponse::default()));
        if answer.is_ok() {
            self.taken.lock().unwrap().push(batch.into_inner());
        }
        answer.map(Response::new)
    }
}

impl Collector {
    fn records(&self) -> Vec<LogRecord> {
        let batches = self.taken.lock().unwrap().clone();
        let scopes = batches.into_iter().flat_map(|batch| batch.resource_logs).flat_map(|logs| logs.scope_logs);
        scopes.flat_map(|scope| scope.log_records).collect()
    }

    async fn listen(&self, at: &str) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = LogsServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }
}

struct Place {
    telemetry: Telemetry,
    account: Account,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), Error>>,
}

fn place(address: SocketAddr) -> Place {
    let (telemetry, mut tasks) = (Telemetry::default(), JoinSet::new());
    let (stop, stopped) = watch::channel(false);
    let otlp = OtlpSink { endpoint: format!("http://{address}"), ca: None, what: SinkEvents::All };
    let host = Host { cluster: "c1".to_owned(), name: "node".to_owned(), id: "d1e2".to_owned(), ..Host::default() };
    let config = Sinks { otlp: Some(otlp), ..Sinks::default() };
    let accounts = sinks::start(&config, &host, &telemetry, &stopped, &mut tasks).unwrap();
    Place { telemetry, account: accounts[0].clone(), stop, tasks }
}

impl Place {
    async fn until(&self, what: &str, is_so: impl Fn(&SinkStatus) -> bool) {
        let since = Instant::now();
        while !is_so(&self.account.status()) {
            assert!(since.elapsed() < Duration::from_secs(60), "never: {what}: {:?}", self.account.status());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn publish(&self, number: u64) {
        self.telemetry.alerts.publish(alert(number, b"/etc/shadow", "aaaa"));
    }

    async fn end(&mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn texts(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.as_str(), text(&pair.value))).collect()
}

#[tokio::test]
async fn a_collector_gets_each_event_once_by_the_conventions_names() {
    let collector = Collector::default();
    let mut place = place(collector.listen("127.0.0.1:0").await);
    place.publish(1);
    place.telemetry.logs.publish(executed(Some(named("bbbb"))));
    place.until("both", |status| status.written == 2).await;
    place.end().await;
    let resource = collector.taken.lock().unwrap()[0].resource_logs[0].resource.clone().unwrap();
    let resource = texts(&resource.attributes);
    assert_eq!(
        (resource["service.name"].as_str(), resource["host.name"].as_str(), resource["host.id"].as_str()),
        ("portcullis", "node", "d1e2")
    );
    let records = collector.records();
    assert_eq!(records.len(), 2);
    let of = |name: &str| records.iter().find(|record| record.event_name == name).unwrap();
    let (alert, process) = (of("portcullis.alert"), of("portcullis.process"));
    assert_eq!((alert.severity_number(), process.severity_number()), (SeverityNumber::Error, SeverityNumber::Info));
    assert_eq!(alert.body.as_ref().unwrap().value, Some(Any::StringValue("block read /etc/shadow".to_owned())));
    assert!(alert.time_unix_nano == 0 && alert.observed_time_unix_nano > 0, "the event's own time");
    let attributes = texts(&alert.attributes);
    assert_eq!((attributes["container.id"].as_str(), attributes["portcullis.object"].as_str()), ("aaaa", "/etc/shadow"));
    let attributes = texts(&process.attributes);
    assert_eq!((attributes["process.pid"].as_str(), attributes["process.executable.path"].as_str()), ("7", "/bin/cat"));
}

#[tokio::test]
async fn what_a_collector_can_not_take_now_is_tried_again() {
    let collector = Collector::default();
    *collector.answers.lock().unwrap() = vec![Err(Status::unavailable("later")), Err(Status::resource_exhausted("later"))];
    let mut place = place(collector.listen("127.0.0.1:0").await);
    place.publish(1);
    place.until("trouble", |status| status.trouble.is_some()).await;
    place.until("the event", |status| status.written == 1 && status.trouble.is_none()).await;
    place.end().await;
    assert_eq!((collector.records().len(), place.account.status().lost), (1, 0));
}

#[tokio::test]
async fn what_a_collector_never_takes_is_counted_and_the_next_batch_says_so() {
    let collector = Collector::default();
    let some = ExportLogsPartialSuccess { rejected_log_records: 1, error_message: "too old".to_owned() };
    let partly = Ok(ExportLogsServiceResponse { partial_success: Some(some) });
    *collector.answers.lock().unwrap() = vec![partly, Err(Status::invalid_argument("never"))];
    let mut place = place(collector.listen("127.0.0.1:0").await);
    place.publish(1);
    place.until("a refusal", |status| status.lost == 1).await;
    place.publish(2);
    place.until("another", |status| status.lost == 2).await;
    place.end().await;
    let records = collector.records();
    let names: Vec<&str> = records.iter().map(|record| record.event_name.as_str()).collect();
    assert_eq!(names, ["portcullis.lost", "portcullis.alert"]);
    assert_eq!(texts(&records[0].attributes)["portcullis.lost"], "1");
    assert_eq!(place.account.status().written, 0);
}

#[tokio::test]
async fn a_collector_that_is_not_there_delays_nobody_and_gets_what_is_left_later() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut place = place(address);
    place.publish(1);
    place.until("trouble", |status| status.trouble.is_some()).await;
    let mut other = place.telemetry.alerts.subscribe();
    place.publish(2);
    assert!(other.try_next().is_some());
    let collector = Collector::default();
    collector.listen(&address.to_string()).await;
    place.until("both", |status| status.written == 2 && status.trouble.is_none()).await;
    place.end().await;
    assert_eq!((collector.records().len(), place.account.status().lost), (2, 0));
}

#[tokio::test]
async fn what_is_left_when_the_agent_stops_is_sent_or_counted() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut place = place(address);
    place.publish(1);
    place.until("trouble", |status| status.trouble.is_some()).await;
    place.publish(2);
    place.end().await;
    assert_eq!((place.account.status().written, place.account.status().lost), (0, 2));
}
