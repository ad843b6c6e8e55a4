//! An alert as a line of JSON: written by the agent, and by serde_json from the same definition.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use portcullis_agent::alerts::clock::Clock;
use portcullis_agent::alerts::{Alert, Names, ProcessFacts, Program};
use portcullis_agent::control::EventFormat;
use portcullis_agent::kubearmor::Host;
use portcullis_ebpf::abi::{self, op};
use portcullis_ebpf::{Event, monitor};
use portcullis_enforcer::StateDir;

use crate::Failed;

const LINES: u32 = 200_000;
const ROUNDS: usize = 5;

pub(crate) fn compare() -> Result<(), Failed> {
    let alert = alert()?;
    let mut lines = Vec::new();
    alert.write(&mut lines, EventFormat::Json);
    if lines != serde_json::to_vec(&alert.line())? {
        return Err("the two lines differ".into());
    }
    println!("a line of {} bytes", lines.len());
    let mut best = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        let ours = each(|lines| {
            alert.write(lines, EventFormat::Json);
            Ok(())
        })?;
        let theirs = each(|lines| Ok(serde_json::to_writer(lines, &alert.line())?))?;
        best = [best[0].min(ours), best[1].min(theirs)];
    }
    println!("written by the agent: {:.0} ns; by serde_json: {:.0} ns; ratio {:.2}", best[0], best[1], best[0] / best[1]);
    Ok(())
}

/// Nanoseconds for each line.
fn each(mut write: impl FnMut(&mut Vec<u8>) -> Result<(), Failed>) -> Result<f64, Failed> {
    let mut lines = Vec::new();
    let begun = Instant::now();
    for _ in 0..LINES {
        lines.clear();
        write(&mut lines)?;
        black_box(&lines);
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(LINES))
}

/// A denial that nobody knows the container of, by a process that is known.
fn alert() -> Result<Alert, Failed> {
    let mut header =
        abi::Event { seq: 7, verdict: abi::BLOCK, op: op::READ, tgid: 4711, tid: 4711, uid: 33, ..abi::Event::default() };
    header.comm[..6].copy_from_slice(b"worker");
    let texts = ["/usr/local/bin/worker", "/srv/data", "worker\0--directory\0/srv/data\0"].map(|text| text.as_bytes().to_vec());
    let facts = ProcessFacts {
        ns_pid: Some(7),
        program: Some(Arc::new(Program::new(texts, [0, 0, 0]))),
        exec_id: Some(monitor::abi::WINDOW_NS.into()),
        ..ProcessFacts::default()
    };
    let nowhere = tempfile::tempdir()?;
    let mut names = Names::new(StateDir::at(nowhere.path()), Host::this("default"));
    let now_ns = portcullis_ebpf::boottime_ns();
    let event = Event { header, path: b"/srv/data/secret/4711".to_vec(), lost_before: 0 };
    Ok(names.alert(event, Clock::now().moment(now_ns, now_ns), Some(facts))?)
}
