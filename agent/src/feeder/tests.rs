use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use portcullis_ebpf::abi::op;
use portcullis_enforcer::{Protection, Tcp, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Streaming};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::Error;
use crate::fake::{access, accessed, alert, executed};
use crate::kubearmor::{Alert, Log, Message as Told};

const SOON: Duration = Duration::from_secs(20);

struct Place {
    temporary: tempfile::TempDir,
    telemetry: Telemetry,
    messages: Messages,
    address: Option<String>,
    _serving: Serving,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn place_with(uid: u32, protection: Option<Protection>) -> Result<Place, Error> {
    let temporary = tempfile::tempdir().unwrap();
    let (telemetry, messages) = (Telemetry::default(), Messages::default());
    let tcp = protection.map(|protection| Tcp { listen: ([127, 0, 0, 1], 0).into(), protection });
    let server = Server::bind(&temporary.path().join("feeder.sock"), uid, tcp.as_ref()).await?;
    let address = server.address().map(|address| address.to_string());
    let host = Host { name: "node-1".to_owned(), cluster: "c1".to_owned(), id: "id".to_owned(), ..Host::default() };
    let feeder = Feeder::new(telemetry.clone(), messages.clone(), host);
    let serving = Serving(tokio::spawn(server.serve(feeder)));
    Ok(Place { temporary, telemetry, messages, address, _serving: serving })
}

async fn place() -> Place {
    place_with(own_uid(), None).await.unwrap()
}

impl Place {
    fn socket(&self) -> PathBuf {
        self.temporary.path().join("feeder.sock")
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let path = self.socket();
        let connect = move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        // As much as a client in Go lets come unread.
        let endpoint = Endpoint::from_static("http://feeder");
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        endpoint.connect_with_connector(tower::service_fn(connect)).await
    }

    async fn channel(&self) -> Channel {
        self.connect().await.unwrap()
    }

    fn publish(&self, number: u64) {
        self.telemetry.alerts.publish(alert(number, b"/etc/shadow", "aaaa"));
    }
}

/// Calls a method with an encoded request.
async fn ask<A>(channel: &Channel, path: &'static str, request: Vec<u8>) -> Result<Streaming<A>, Status>
where
    A: Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    let asked = tonic::Request::new(Bytes::from(request));
    grpc.server_streaming(asked, path, Encoded::<A>::default()).await.map(tonic::Response::into_inner)
}

async fn watch<A: Message + Default + 'static>(channel: &Channel, what: &'static str, filter: &str) -> Streaming<A> {
    ask(channel, what, RequestMessage { filter: filter.to_owned() }.encode_to_vec()).await.unwrap()
}

const ALERTS: &str = "/feeder.LogService/WatchAlerts";
const LOGS: &str = "/feeder.LogService/WatchLogs";
const MESSAGES: &str = "/feeder.LogService/WatchMessages";

/// What comes next, which it does soon.
async fn next<A>(stream: &mut Streaming<A>) -> Option<A> {
    timeout(SOON, stream.message()).await.expect("something comes").unwrap()
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn health_is_told_in_both_ways() {
    let place = place().await;
    assert_eq!(std::fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let channel = place.channel().await;
    let nonce = NonceMessage { nonce: -5 }.encode_to_vec();
    let mut answer = ask::<ReplyMessage>(&channel, "/feeder.LogService/HealthCheck", nonce).await.unwrap();
    assert_eq!(next(&mut answer).await, Some(ReplyMessage { retval: -5 }));
    assert_eq!(next(&mut answer).await, None, "one answer");
    for (service, healthy) in [("", true), ("feeder.LogService", true), ("nobody", false)] {
        let request = health::HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
        let check = ask::<health::HealthCheckResponse>(&channel, "/grpc.health.v1.Health/Check", request.clone()).await;
        match check {
            Ok(mut answer) => assert_eq!((next(&mut answer).await.unwrap().status, healthy), (1, true)),
            Err(status) => assert_eq!((status.code(), healthy), (Code::NotFound, false)),
        }
        let mut stream = ask::<health::HealthCheckResponse>(&channel, "/grpc.health.v1.Health/Watch", request).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().status, if healthy { 1 } else { 3 });
        assert!(timeout(Duration::from_millis(20), stream.message()).await.is_err(), "it stays open");
    }
}

#[tokio::test]
async fn alerts_come_to_all_who_watch_and_first_what_waited() {
    let place = place().await;
    place.publish(1);
    let (first, second) = (place.channel().await, place.channel().await);
    let mut all = watch::<Alert>(&first, ALERTS, "all").await;
    let mut policy = watch::<Alert>(&second, ALERTS, "policy").await;
    place.publish(2);
    for stream in [&mut all, &mut policy] {
        let alert = next(stream).await.unwrap();
        assert_eq!((alert.resource.as_str(), alert.action.as_str()), ("/etc/shadow", "Block"));
        assert_eq!((alert.container_id.as_str(), alert.enforcer.as_str()), ("aaaa", "BPFLSM"));
    }
    assert!(next(&mut all).await.is_some(), "the one that waited was one more");
    assert!(timeout(Duration::from_millis(20), policy.message()).await.is_err());
}

#[tokio::test]
async fn filters_that_want_nothing_end_the_stream() {
    let place = place().await;
    place.publish(1);
    place.telemetry.logs.publish(executed(None));
    let channel = place.channel().await;
    for (what, filter) in [(ALERTS, "system"), (ALERTS, ""), (LOGS, "policy"), (LOGS, "")] {
        assert_eq!(next(&mut watch::<Alert>(&channel, what, filter).await).await, None, "{what} {filter}");
    }
    let waiting = (place.telemetry.alerts.counters().waiting, place.telemetry.logs.counters().waiting);
    assert_eq!(waiting, (1, 1), "nobody took them");
}

#[tokio::test]
async fn logs_come_to_all_who_watch_them_and_to_nobody_else() {
    let place = place().await;
    place.telemetry.logs.publish(executed(None));
    let channel = place.channel().await;
    let mut alerts = watch::<Alert>(&channel, ALERTS, "all").await;
    let mut logs = watch::<Log>(&channel, LOGS, "system").await;
    let told = next(&mut logs).await.unwrap();
    assert_eq!((told.r#type.as_str(), told.operation.as_str(), told.result.as_str()), ("HostLog", "Process", "Passed"));
    assert_eq!((told.process_name.as_str(), told.resource.as_str()), ("/bin/cat", "/bin/cat /etc/shadow"));
    assert!(timeout(Duration::from_millis(20), logs.message()).await.is_err(), "it stays open");
    place.telemetry.accesses.publish(accessed(None, &access(op::READ, b"/etc/hosts")));
    let told = next(&mut logs).await.unwrap();
    assert_eq!((told.operation.as_str(), told.resource.as_str()), ("File", "/etc/hosts"), "in the same stream");
    assert!(timeout(Duration::from_millis(20), alerts.message()).await.is_err(), "it is no alert");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let place = place().await;
    let channel = place.channel().await;
    let code = async |path, request| ask::<Alert>(&channel, path, request).await.unwrap_err().code();
    assert_eq!(code("/feeder.LogService/Shutdown", Vec::new()).await, Code::Unimplemented);
    assert_eq!(code("/policy.PolicyService/containerPolicy", Vec::new()).await, Code::Unimplemented);
    assert_eq!(code(ALERTS, b"\xff\xff\xff".to_vec()).await, Code::InvalidArgument);
    assert_eq!(code(ALERTS, b"\x0a\x02\xff\xfe".to_vec()).await, Code::InvalidArgument);
    let long = RequestMessage { filter: "x".repeat(MAX_REQUEST_BYTES) }.encode_to_vec();
    assert_eq!(code(ALERTS, long).await, Code::OutOfRange);
}

#[tokio::test]
async fn others_than_root_are_disconnected() {
    let place = place_with(own_uid() + 1, None).await.unwrap();
    let nonce = NonceMessage::default().encode_to_vec();
    let asked = async {
        match place.connect().await {
            Ok(channel) => ask::<ReplyMessage>(&channel, "/feeder.LogService/HealthCheck", nonce).await.is_ok(),
            Err(_) => false,
        }
    };
    assert!(!asked.await);
}

/// Takes the log of the test's own thread, on which all of its tasks run, at the agent's level.
fn log(place: &Place) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(LevelFilter::INFO).with(place.messages.clone()))
}

#[tokio::test]
async fn messages_are_the_lines_of_the_log() {
    let place = place().await;
    let _log = log(&place);
    let channel = place.channel().await;
    let mut stream = watch::<Told>(&channel, MESSAGES, "").await;
    tracing::warn!(id = "c1", "later policies will not reach {}", "this container");
    let told = next(&mut stream).await.unwrap();
    assert_eq!(told.level, "WARN");
    assert_eq!(told.message, "later policies will not reach this container id=\"c1\"");
    assert_eq!((told.r#type.as_str(), told.host_name.as_str(), told.cluster_name.as_str()), ("Message", "node-1", "c1"));
    assert!(told.timestamp > 1_700_000_000 && told.updated_time.ends_with('Z'));
}

#[tokio::test]
async fn a_slow_subscriber_is_told_what_it_lost_and_holds_up_nobody() {
    const COUNT: u64 = 10_000;
    let place = place().await;
    let _log = log(&place);
    let (slow, fast) = (place.channel().await, place.channel().await);
    let mut messages = watch::<Told>(&place.channel().await, MESSAGES, "").await;
    let mut unread = watch::<Alert>(&slow, ALERTS, "all").await;
    let mut read = watch::<Alert>(&fast, ALERTS, "all").await;
    for number in 0..COUNT {
        place.publish(number);
        if number % 100 == 99 {
            for _ in 0..100 {
                assert!(next(&mut read).await.is_some());
            }
        }
    }
    // The last one to come is known by its path.
    place.telemetry.alerts.publish(alert(COUNT, b"/last", "aaaa"));
    let mut got = 1;
    while next(&mut unread).await.unwrap().resource != "/last" {
        got += 1;
    }
    assert_eq!(next(&mut read).await.unwrap().resource, "/last");
    let lost = COUNT + 1 - got;
    assert!(lost > 0, "it did not even have to lose any");
    assert_eq!(place.telemetry.alerts.counters().lost, lost);
    drop((unread, slow));
    let mut told = 0;
    while told < lost {
        let message = next(&mut messages).await.unwrap().message;
        if let Some(rest) = message.split_once(" lost ").map(|(_, rest)| rest) {
            told += rest.split_once(" alerts").unwrap().0.parse::<u64>().unwrap();
        }
    }
    assert_eq!(told, lost);
}

#[tokio::test]
async fn a_subscriber_that_leaves_is_forgotten() {
    let place = place().await;
    for _ in 0..3 {
        let channel = place.channel().await;
        let _stream = watch::<Alert>(&channel, ALERTS, "all").await;
        assert_eq!(place.telemetry.alerts.counters().readers, 1);
        drop((channel, _stream));
        eventually("it is forgotten", || place.telemetry.alerts.counters().readers == 0).await;
    }
}

#[tokio::test]
async fn there_is_a_limit_to_subscribers_and_places_come_free_again() {
    let place = place().await;
    let mut streams = Vec::new();
    let mut channels = Vec::new();
    while streams.len() < MAX_SUBSCRIBERS {
        let channel = place.channel().await;
        for _ in 0..10 {
            streams.push(watch::<Log>(&channel, LOGS, "all").await);
        }
        channels.push(channel);
    }
    let channel = place.channel().await;
    let request = RequestMessage { filter: "all".to_owned() }.encode_to_vec();
    let refused = ask::<Alert>(&channel, ALERTS, request.clone()).await.unwrap_err();
    assert_eq!((refused.code(), place.telemetry.alerts.counters().readers), (Code::ResourceExhausted, 0));
    assert!(refused.message().contains("100 subscribers"), "{refused}");
    streams.pop();
    let left = || (place.telemetry.logs.counters().readers, place.telemetry.accesses.counters().readers);
    assert_eq!(left().0, left().1, "one place for both");
    let since = Instant::now();
    while ask::<Alert>(&channel, ALERTS, request.clone()).await.is_err() {
        assert!(since.elapsed() < SOON);
    }
}

/// An authority, with a certificate that it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, as PEM.
    fn signs(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn files(directory: &Path, authority: &Authority) -> Tls {
    let (certificate, key) = authority.signs("node-1");
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Tls { certificate: write("tls.crt", certificate), key: write("tls.key", key), client_ca: write("ca.crt", authority.0.pem()) }
}

#[tokio::test]
async fn over_tls_only_who_has_a_certificate_gets_anything() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let tls = files(directory.path(), &authority);
    let place = place_with(own_uid(), Some(Protection::Tls(tls))).await.unwrap();
    let ask_with = async |identity: Option<(String, String)>, encrypted: bool| {
        let address = place.address.as_ref().unwrap();
        let mut endpoint = Endpoint::from_shared(format!("{}://{address}", if encrypted { "https" } else { "http" })).unwrap();
        if encrypted {
            let ca = Certificate::from_pem(authority.0.pem());
            let mut config = ClientTlsConfig::new().ca_certificate(ca).domain_name("node-1");
            if let Some((certificate, key)) = identity {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(config).unwrap();
        }
        let channel = timeout(SOON, endpoint.connect()).await.unwrap().map_err(|error| Status::unavailable(error.to_string()))?;
        let nonce = NonceMessage { nonce: 1 }.encode_to_vec();
        let asked = ask::<ReplyMessage>(&channel, "/feeder.LogService/HealthCheck", nonce);
        timeout(SOON, asked).await.unwrap()?.message().await
    };
    assert_eq!(ask_with(Some(authority.signs("relay")), true).await.unwrap(), Some(ReplyMessage { retval: 1 }));
    ask_with(Some(other.signs("relay")), true).await.unwrap_err();
    ask_with(None, true).await.unwrap_err();
    ask_with(None, false).await.unwrap_err();
    assert!(ask_with(Some(authority.signs("relay")), true).await.is_ok(), "nobody was in its way");
}

#[tokio::test]
async fn tls_that_cannot_be_had_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &Authority::new());
    let attempt = async |tls: Tls| place_with(own_uid(), Some(Protection::Tls(tls))).await.err().unwrap().to_string();
    let absent = attempt(Tls { key: "/nowhere/tls.key".into(), ..tls.clone() }).await;
    assert!(absent.starts_with("/nowhere/tls.key cannot be used for the feeder's TLS: "), "{absent}");
    let swapped = attempt(Tls { certificate: tls.key.clone(), ..tls.clone() }).await;
    assert!(swapped.contains("tls.key cannot be used") && swapped.contains("no certificate"), "{swapped}");
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = files(elsewhere.path(), &Authority::new());
    let mismatched = attempt(Tls { key: foreign.key, ..tls }).await;
    assert!(mismatched.contains("tls.crt cannot be used"), "{mismatched}");
}

#[tokio::test]
async fn without_tls_whoever_reaches_the_port_is_served() {
    let place = place_with(own_uid(), Some(Protection::Nothing)).await.unwrap();
    place.publish(1);
    let address = format!("http://{}", place.address.as_ref().unwrap());
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    assert_eq!(next(&mut watch::<Alert>(&channel, ALERTS, "all").await).await.unwrap().container_name, "name-of-aaaa");
}
