use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use portcullis_ebpf::abi::op;

use super::*;
use crate::alerts::Filter;
use crate::control::{Client, ClientError, EventClass, EventFormat, Line};
use crate::fake::{access, accessed, alert, executed, named};

struct Fake(Telemetry);

impl Answers for Fake {
    fn answer(&self, call: Call) -> Result<serde_json::Value, Refusal> {
        match call {
            Call::Who { container } => Err(Refusal::new(RefusalKind::NotFound, format!("no {container}"))),
            Call::Reload => panic!("in an answer"),
            call => Ok(serde_json::json!({ "asked": format!("{call:?}") })),
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.0
    }
}

struct Place {
    _temporary: tempfile::TempDir,
    path: PathBuf,
    telemetry: Telemetry,
    runtime: tokio::runtime::Runtime,
}

fn place_for(uid: u32) -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("agent.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let telemetry = Telemetry::default();
    let socket = runtime.block_on(async { Socket::bind(&path, uid) }).unwrap();
    runtime.spawn(serve(socket, Arc::new(Fake(telemetry.clone()))));
    Place { _temporary: temporary, path, telemetry, runtime }
}

fn place() -> Place {
    place_for(rustix::process::geteuid().as_raw())
}

impl Place {
    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap().unwrap()
    }

    /// Writes bytes, closes that half, and reads to the end.
    fn raw(&self, bytes: &[u8]) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&self.path).unwrap();
        // Whoever is turned away may find that nobody listens any more.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    }

    fn publish(&self, number: u64, container: &str) {
        self.telemetry.alerts.publish(alert(number, b"/etc/shadow", container));
    }
}

/// What a line tells, if one comes soon.
fn next(client: &mut Client) -> serde_json::Value {
    match client.next_line(Some(Duration::from_secs(10))).unwrap() {
        Line::Text(line) => serde_json::from_slice(&line).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn questions_are_answered_one_after_the_other() {
    let place = place();
    let mut client = place.client();
    for _ in 0..3 {
        let answer: serde_json::Value = client.call(Call::Status).unwrap();
        assert_eq!(answer["asked"], "Status");
        let refused = client.call::<serde_json::Value>(Call::Who { container: "web".to_owned() });
        assert!(matches!(refused, Err(ClientError::Refused(Refusal { kind: RefusalKind::NotFound, .. }))));
    }
    let mode = std::fs::metadata(&place.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_answer_that_panics_is_a_refusal() {
    let place = place();
    let mut client = place.client();
    let refused = client.call::<serde_json::Value>(Call::Reload);
    assert!(matches!(refused, Err(ClientError::Refused(Refusal { kind: RefusalKind::Failed, .. }))));
    client.call::<serde_json::Value>(Call::Status).unwrap();
}

#[test]
fn hostile_requests_get_a_sentence_and_nothing_more() {
    let place = place();
    let long = [&vec![b'x'; 10 * MAX_REQUEST_BYTES][..], b"\n"].concat();
    let just_too_long = [&vec![b' '; MAX_REQUEST_BYTES + 1][..], b"\n"].concat();
    let deep = [&vec![b'['; 2000][..], b"\n"].concat();
    let binary: Vec<u8> = (0..=255u8).filter(|&byte| byte != b'\n').chain(*b"\n").collect();
    let cases: [(&[u8], &str); 12] = [
        (b"\n", "badRequest"),
        (b"{}\n", "badRequest"),
        (b"{\"v\":1}\n", "badRequest"),
        (b"{\"v\":1,\"method\":\"shutdown\"}\n", "badRequest"),
        (b"{\"v\":1,\"method\":\"who\"}\n", "badRequest"),
        (b"{\"v\":-1,\"method\":\"status\"}\n", "badRequest"),
        (b"{\"v\":2,\"method\":\"status\"}\n", "version"),
        (b"{\"v\":9,\"whatever\":[1]}\n", "version"),
        (&deep, "badRequest"),
        (&binary, "badRequest"),
        (&just_too_long, "badRequest"),
        (&long, "badRequest"),
    ];
    for (request, kind) in cases {
        let answer = place.raw(request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]).into_owned();
        assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{shown}: {answer}");
        assert_eq!(answer.lines().count(), 1, "{shown}");
    }
    assert_eq!(place.raw(b"{\"v\":1,\"method\":\"sta"), "", "half a request");
    assert_eq!(place.raw(b""), "");
    assert_eq!(place.raw(b"{\"v\":1,\"method\":\"status\",\"more\":1}\n{\"v\":1,\"method\":\"policies\"}\n").lines().count(), 2);
}

#[test]
fn others_than_root_are_turned_away() {
    let place = place_for(rustix::process::geteuid().as_raw() + 1);
    let refused = place.client().call::<serde_json::Value>(Call::Status);
    assert!(matches!(refused, Err(ClientError::Refused(Refusal { kind: RefusalKind::Forbidden, .. }))), "{refused:?}");
}

#[test]
fn there_is_a_limit_to_connections_and_they_come_free_again() {
    let place = place();
    let mut clients: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| place.client()).collect();
    for client in &mut clients {
        client.call::<serde_json::Value>(Call::Status).unwrap();
    }
    let refused = place.client().call::<serde_json::Value>(Call::Status);
    assert!(matches!(refused, Err(ClientError::Refused(Refusal { kind: RefusalKind::Busy, .. }))), "{refused:?}");
    drop(clients);
    let since = std::time::Instant::now();
    while place.client().call::<serde_json::Value>(Call::Status).is_err() {
        assert!(since.elapsed() < Duration::from_secs(5));
    }
}

fn of(container: &str) -> Wanted {
    Wanted { filter: Filter { container: Some(container.to_owned()), ..Filter::default() }, ..Wanted::default() }
}

#[test]
fn followers_get_what_waited_and_what_comes() {
    let place = place();
    place.publish(0, "aaaa");
    let mut client = place.client();
    client.follow(Wanted { count: Some(3), ..Wanted::default() }).unwrap();
    place.publish(1, "aaaa");
    place.publish(2, "bbbb");
    for number in 0..3 {
        let line = next(&mut client);
        assert_eq!((&line["schema"], &line["sequence"]), (&"portcullis.alert/1".into(), &number.into()));
    }
    assert_eq!(client.next_line(Some(Duration::from_secs(5))).unwrap(), Line::End);
}

#[test]
fn a_follower_may_want_one_container_and_be_patient() {
    let place = place();
    let mut client = place.client();
    client.follow(of("name-of-bbbb")).unwrap();
    assert_eq!(client.next_line(Some(Duration::from_millis(50))).unwrap(), Line::Quiet);
    place.publish(0, "aaaa");
    place.publish(1, "bbbb");
    assert_eq!(next(&mut client)["sequence"], 1);
}

#[test]
fn a_follower_may_want_kubearmors_format() {
    let place = place();
    let (mut ours, mut theirs) = (place.client(), place.client());
    ours.follow(Wanted::default()).unwrap();
    theirs.follow(Wanted { format: EventFormat::Kubearmor, ..Wanted::default() }).unwrap();
    place.publish(1, "aaaa");
    assert_eq!(next(&mut ours)["object"], "/etc/shadow");
    let line = next(&mut theirs);
    assert_eq!((&line["Resource"], &line["ContainerName"]), (&"/etc/shadow".into(), &"name-of-aaaa".into()));
}

#[test]
fn a_follower_may_want_other_events_too() {
    let place = place();
    let (mut processes, mut all) = (place.client(), place.client());
    processes.follow(Wanted { class: EventClass::Process, ..of("name-of-aaaa") }).unwrap();
    all.follow(Wanted { class: EventClass::All, count: Some(3), ..Wanted::default() }).unwrap();
    place.publish(1, "aaaa");
    for container in ["bbbb", "aaaa"] {
        place.telemetry.logs.publish(executed(Some(named(container))));
    }
    let line = next(&mut processes);
    assert_eq!((&line["schema"], &line["container"]["id"]), (&"portcullis.process/1".into(), &"aaaa".into()));
    assert_eq!(line["process"]["args"], serde_json::json!(["cat", "/etc/shadow"]));
    let mut schemas: Vec<_> = (0..3).map(|_| next(&mut all)["schema"].as_str().unwrap().to_owned()).collect();
    schemas.sort();
    assert_eq!(schemas, ["portcullis.alert/1", "portcullis.process/1", "portcullis.process/1"]);
    assert_eq!(all.next_line(Some(Duration::from_secs(5))).unwrap(), Line::End);
}

#[test]
fn a_follower_may_want_one_class_of_accesses() {
    let place = place();
    let follow = |class| {
        let mut client = place.client();
        client.follow(Wanted { class, count: Some(1), ..Wanted::default() }).unwrap();
        client
    };
    let classes = [EventClass::File, EventClass::Network, EventClass::Capabilities];
    let mut clients = classes.map(follow);
    let (mut any, mut all, mut processes) = (follow(EventClass::Access), follow(EventClass::All), follow(EventClass::Process));
    for operation in [op::CAPABLE, op::SOCKET, op::READ] {
        place.telemetry.accesses.publish(accessed(Some(named("aaaa")), &access(operation, b"")));
    }
    for (client, class) in clients.iter_mut().zip(["file", "network", "capability"]) {
        let line = next(client);
        assert_eq!((&line["schema"], &line["class"]), (&"portcullis.access/1".into(), &class.into()));
        assert_eq!(client.next_line(Some(Duration::from_secs(5))).unwrap(), Line::End);
    }
    assert_eq!([&next(&mut any)["class"], &next(&mut all)["class"]], ["capability", "capability"]);
    assert_eq!(processes.next_line(Some(Duration::from_millis(50))).unwrap(), Line::Quiet);
}

/// What older command lines send, and what newer ones may.
#[test]
fn what_is_wanted_is_said_in_one_line() {
    let asked = |text: &str| request(text.as_bytes()).unwrap();
    assert_eq!(asked(r#"{"v":1,"method":"events"}"#), Call::Events(Wanted::default()));
    let line = r#"{"v":1,"method":"events","container":"web","count":3,"format":"kubearmor","class":"all","namespace":"n"}"#;
    let Call::Events(wanted) = asked(line) else { panic!("{line}") };
    assert_eq!((wanted.class, wanted.count, wanted.format), (EventClass::All, Some(3), EventFormat::Kubearmor));
    assert_eq!((wanted.filter.container.as_deref(), wanted.filter.namespace.as_deref()), (Some("web"), Some("n")));
    let sent = serde_json::to_vec(&Request { v: VERSION, call: Call::Events(wanted.clone()) }).unwrap();
    assert_eq!(request(&sent).unwrap(), Call::Events(wanted));
}

#[test]
fn a_follower_that_hangs_up_is_forgotten() {
    let place = place();
    let mut client = place.client();
    client.follow(Wanted::default()).unwrap();
    assert_eq!(place.telemetry.alerts.counters().readers, 1);
    drop(client);
    let since = std::time::Instant::now();
    while place.telemetry.alerts.counters().readers > 0 {
        assert!(since.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_slow_follower_holds_up_nobody_and_is_told_what_it_lost() {
    let place = place();
    let (mut slow, mut fast) = (place.client(), place.client());
    slow.follow(Wanted::default()).unwrap();
    fast.follow(Wanted::default()).unwrap();
    const ALERTS: u64 = 20_000;
    const AT_ONCE: u64 = 100;
    let path = [b'x'; 200];
    for first in (0..ALERTS).step_by(AT_ONCE as usize) {
        (first..first + AT_ONCE).for_each(|number| place.telemetry.alerts.publish(alert(number, &path, "aaaa")));
        for number in first..first + AT_ONCE {
            assert_eq!(next(&mut fast)["sequence"], number);
        }
    }
    let (mut got, mut lost, mut last) = (0, 0, 0);
    while got + lost < ALERTS {
        let line = next(&mut slow);
        match line["lost"].as_u64() {
            Some(count) => lost += count,
            None => {
                got += 1;
                last = line["sequence"].as_u64().unwrap();
            }
        }
    }
    assert!(lost > 0, "it did not even have to lose any");
    assert_eq!((got + lost, last), (ALERTS, ALERTS - 1));
    assert_eq!(slow.next_line(Some(Duration::from_millis(20))).unwrap(), Line::Quiet);
}

#[test]
fn a_socket_that_was_left_is_replaced_and_anything_else_is_not() {
    let place = place();
    let path = place.path.with_file_name("other.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = place.runtime.block_on(async { Socket::bind(&path, 0) });
    drop(bound.unwrap());
    assert!(!path.exists(), "it takes its socket with it");
    std::fs::write(&path, "").unwrap();
    let error = place.runtime.block_on(async { Socket::bind(&path, 0) }).unwrap_err().to_string();
    assert!(error.contains("something else than a socket"), "{error}");
    assert!(Client::connect(Path::new("/nowhere/at/all")).unwrap().is_none());
}
