//! What is told, in which words, and to whom.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_ebpf::abi;
use portcullis_nri_plugin::{ConnectionStatus, Counts, Link};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::ProcessSample;
use super::*;
use crate::control::{
    AccessesStatus, AlertsStatus, ContainersStatus, LogsStatus, MonitorStatus, NriStatus, PoliciesStatus, RefusalKind,
    VerdictCounts, VisibilityStatus,
};
use crate::reconcile::Trouble;

fn agent() -> AgentStatus {
    let trouble = Trouble { id: "a".to_owned(), name: "web".to_owned(), error: "no".to_owned(), attempts: 3, since: 1 };
    let connection = ConnectionStatus {
        socket: Some(PathBuf::from("/run/\"nri\"\n.sock")),
        link: Link::Up,
        counts: Counts { created: 9, gated: 8, refused: 2, permitted: 1, ..Counts::default() },
        ..ConnectionStatus::default()
    };
    AgentStatus {
        version: "1.2.3".to_owned(),
        pid: 7,
        started_at: 1_700_000_000,
        policies: PoliciesStatus { generation: 4, read_at: 5, count: 6, problems: 7, unreadable: Some("why".to_owned()) },
        containers: ContainersStatus { known: 11, leaving: 12, troubles: vec![trouble] },
        nri: NriStatus { required: true, connections: vec![connection, ConnectionStatus::default()] },
        alerts: AlertsStatus { alerts: 13, readers: 14, waiting: 15, lost: 16, trouble: None, feeder_trouble: None },
        metrics_trouble: None,
        monitor: MonitorStatus {
            loaded: true,
            events: 41,
            lost: 42,
            missed: 43,
            processes: 44,
            evicted: 45,
            ..MonitorStatus::default()
        },
        logs: LogsStatus { logs: 46, lost: 47, ..LogsStatus::default() },
        visibility: VisibilityStatus::default(),
        accesses: AccessesStatus {
            file: VerdictCounts { passed: 51, denied: 52 },
            network: VerdictCounts { passed: 53, denied: 54 },
            capability: VerdictCounts { passed: 55, denied: 56 },
            lost: 57,
            aggregated: 58,
            unread: 59,
            ..AccessesStatus::default()
        },
        sinks: Vec::new(),
    }
}

fn sample() -> Sample {
    let counts = abi::Stats { seq: 21, lost: 22, blocked: 23, audited: 24, unresolved: 25, busy: 26, torn: 27, repeated: 28 };
    Sample {
        agent: agent(),
        kernel: Some(KernelSample { programs: 37, missed: 29, memory_bytes: 1 << 20, counts }),
        process: ProcessSample { cpu_seconds: 1.5, resident_bytes: 4096, open_fds: 31 },
    }
}

fn values(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn every_number_of_a_sample_is_told() {
    let text = text::text(&sample()).unwrap();
    assert_eq!(
        values(&text),
        [
            "portcullis_policies 6",
            "portcullis_policy_problems 7",
            "portcullis_policy_reads_total 4",
            "portcullis_policies_unreadable 1",
            "portcullis_containers 11",
            "portcullis_containers_leaving 12",
            "portcullis_containers_not_up_to_date 1",
            "portcullis_alerts_total 13",
            "portcullis_alert_readers 14",
            "portcullis_alerts_waiting 15",
            "portcullis_alerts_unread_total 16",
            "portcullis_alerts_read 1",
            "portcullis_kernel_loaded 1",
            "portcullis_kernel_programs 37",
            "portcullis_kernel_memory_bytes 1048576",
            "portcullis_decisions_total{verdict=\"block\"} 23",
            "portcullis_decisions_total{verdict=\"audit\"} 24",
            "portcullis_kernel_alerts_total 21",
            "portcullis_kernel_alerts_lost_total 22",
            "portcullis_kernel_alerts_repeated_total 28",
            "portcullis_kernel_syscalls_missed_total 29",
            "portcullis_unresolved_paths_total 25",
            "portcullis_denied_for_want_of_memory_total 26",
            "portcullis_repeated_walks_total 27",
            "portcullis_monitor_loaded 1",
            "portcullis_monitor_events_total 41",
            "portcullis_monitor_events_lost_total 42",
            "portcullis_monitor_events_missed_total 43",
            "portcullis_monitor_processes 44",
            "portcullis_monitor_processes_evicted_total 45",
            "portcullis_logs_total 46",
            "portcullis_logs_unread_total 47",
            "portcullis_accesses_total{class=\"file\",verdict=\"passed\"} 51",
            "portcullis_accesses_total{class=\"file\",verdict=\"denied\"} 52",
            "portcullis_accesses_total{class=\"network\",verdict=\"passed\"} 53",
            "portcullis_accesses_total{class=\"network\",verdict=\"denied\"} 54",
            "portcullis_accesses_total{class=\"capability\",verdict=\"passed\"} 55",
            "portcullis_accesses_total{class=\"capability\",verdict=\"denied\"} 56",
            "portcullis_accesses_lost_total 57",
            "portcullis_accesses_aggregated_total 58",
            "portcullis_accesses_unread_total 59",
            "portcullis_nri_connected{socket=\"/run/\\\"nri\\\"\\n.sock\"} 1",
            "portcullis_nri_connected{socket=\"started-by-runtime\"} 0",
            "portcullis_nri_containers_total{socket=\"/run/\\\"nri\\\"\\n.sock\",outcome=\"created\"} 9",
            "portcullis_nri_containers_total{socket=\"/run/\\\"nri\\\"\\n.sock\",outcome=\"gated\"} 8",
            "portcullis_nri_containers_total{socket=\"/run/\\\"nri\\\"\\n.sock\",outcome=\"refused\"} 2",
            "portcullis_nri_containers_total{socket=\"/run/\\\"nri\\\"\\n.sock\",outcome=\"unprotected\"} 1",
            "portcullis_nri_containers_total{socket=\"started-by-runtime\",outcome=\"created\"} 0",
            "portcullis_nri_containers_total{socket=\"started-by-runtime\",outcome=\"gated\"} 0",
            "portcullis_nri_containers_total{socket=\"started-by-runtime\",outcome=\"refused\"} 0",
            "portcullis_nri_containers_total{socket=\"started-by-runtime\",outcome=\"unprotected\"} 0",
            "portcullis_build_info{version=\"1.2.3\"} 1",
            "process_cpu_seconds_total 1.5",
            "process_resident_memory_bytes 4096",
            "process_start_time_seconds 1700000000",
            "process_open_fds 31",
        ]
    );
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn where_nothing_is_loaded_the_kernel_has_no_numbers() {
    let text = text::text(&Sample { kernel: None, ..sample() }).unwrap();
    assert!(values(&text).contains(&"portcullis_kernel_loaded 0"));
    assert!(!text.contains("portcullis_decisions"), "a zero would be a lie");
}

/// Names of metrics in a text, with what a histogram or a label set would follow.
fn names(text: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_word(c));
    words.filter(|word| word.starts_with("portcullis_") || word.starts_with("process_")).collect()
}

#[test]
fn the_specification_the_dashboard_and_the_rules_know_the_names_there_are() {
    let text = text::text(&sample()).unwrap();
    let told: BTreeSet<&str> = values(&text).iter().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let specification = read("SPECIFICATION.md");
    let documented = names(&specification);
    for name in &told {
        assert!(documented.contains(name), "SPECIFICATION.md does not tell of {name}");
    }
    for file in ["SPECIFICATION.md", "contrib/grafana/portcullis.json", "contrib/prometheus/portcullis.rules.yml"] {
        let text = read(file);
        for name in names(&text) {
            assert!(told.contains(name), "{file} has {name}, which nobody tells");
        }
    }
}

async fn serve(status: StatusTeller) -> SocketAddr {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.serve(Metrics::new(status)));
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn whoever_asks_for_metrics_gets_them_and_nothing_else() {
    let address = serve(Arc::new(|| Ok(agent()))).await;
    let answer = ask(address, &request("GET", "/metrics")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\ncontent-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(answer.contains("\nportcullis_policies 6\n") && answer.ends_with("# EOF\n"), "{answer}");
    assert!(ask(address, &request("GET", "/")).await.starts_with("HTTP/1.1 404 "));
    assert!(ask(address, &request("POST", "/metrics")).await.starts_with("HTTP/1.1 405 "));
    let long = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(!ask(address, &long).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_cannot_be_told_is_no_zero() {
    let address =
        serve(Arc::new(|| Err(Refusal { kind: RefusalKind::Failed, message: "the records are gone".to_owned() }))).await;
    let answer = ask(address, &request("GET", "/metrics")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("the records are gone\n"), "{answer}");
}
