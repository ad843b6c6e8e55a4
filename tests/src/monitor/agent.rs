//! What the agent makes of it: alerts that say who it was, executions as events, and the tree of a container.

use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_ebpf::monitor::{Monitor, Visibility};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::process::{self, Dialogue, Talk};
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};
use crate::{Failure, Result, image};

/// From the agent's start until it answers, under emulation.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to its end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Until what has happened is told, on a busy machine, and how often it was repeated.
const TOLD_LIMIT: Duration = Duration::from_secs(40);
/// Between two questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(200);
/// Where every program of the image is.
const PROGRAM: &str = "/usr/bin/busybox";
/// A denial in another directory than the first, by a child of the first process.
const SCRIPT: [&str; 3] = ["/bin/sh", "-c", "cd /srv; /bin/cat /srv/secret 'two words'; exit 3"];
const ARGUMENTS: [&str; 3] = ["/bin/cat", "/srv/secret", "two words"];

/// Runs this part of the suite. Nobody else may read the kernel's rings.
pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let mut guest = guest.clone();
    guest.settings.push_str("nri:\n  enabled: false\nmonitor:\n  enabled: true\n");
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[("monitored", super::POLICY)])?;
    let root = guest.work.join("monitor/agent-root");
    image::make(&root)?;
    guest::make_directory(&root.join("srv"))?;
    guest::write(&root.join("srv/secret"), b"secret\n")?;
    let mut agent = Dialogue::start(guest.command().arg("agent"))?;
    report.run("monitor/agent/ready", || ready(&guest, &mut agent));
    for runtime in guest.runtimes.iter().copied() {
        let bundle = |arguments: &[&str]| {
            let mut bundle = Bundle::new("monitored", &root, arguments);
            bundle.facts.labels.insert("app".to_owned(), "monitored".to_owned());
            bundle
        };
        let name = runtime.name();
        report.run(&format!("monitor/agent/{name}/own-lines"), || own_lines(&guest, runtime, &bundle(&SCRIPT)));
        report.run(&format!("monitor/agent/{name}/kubearmor"), || kubearmor(&guest, runtime, &bundle(&SCRIPT)));
        let waits = ["/bin/sh", "-c", "echo up; /bin/cat /dev/stdin -; exit 0"];
        report.run(&format!("monitor/agent/{name}/tree"), || tree(&guest, runtime, &bundle(&waits)));
        let free = Bundle::new("free", &root, &waits);
        report.run(&format!("monitor/agent/{name}/without-policies"), || without_policies(&guest, runtime, &free));
    }
    report.run("monitor/agent/host-is-not-told", || host_is_not_told(&guest));
    report.run("monitor/agent/status", || {
        let status = status(&guest)?["agent"]["monitor"].clone();
        let is_well = status["events"].as_u64() > Some(0) && status["processes"].as_u64() > Some(0);
        let told = status.to_string();
        println!("# monitor: the agent says {told}");
        Ok(if is_well && status["lost"] == 0 && status["trouble"].is_null() { Ok(()) } else { Err(told) })
    });
    agent.signal(Signal::TERM);
    let code = agent.close(STOP_LIMIT);
    report.check("monitor/agent/stop", if code == Some(0) { Ok(()) } else { Err(format!("{code:?}: {}", agent.errors())) });
    let left = Monitor::open().and_then(|monitor| monitor.visibility()).map_err(super::unusable)?;
    let is_quiet = left == Visibility::default();
    report
        .check("monitor/agent/leaves-it-quiet", if is_quiet { Ok(()) } else { Err(format!("{left:?}, though nobody reads it")) });
    Ok(())
}

pub(super) fn status(guest: &Guest) -> Result<Value> {
    let outcome = guest.portcullis(&["status", "-o", "json"])?;
    serde_json::from_str(&outcome.stdout)
        .map_err(|_| Failure::Answer { what: "portcullis status".to_owned(), text: outcome.stdout + &outcome.stderr })
}

pub(super) fn ready(guest: &Guest, agent: &mut Dialogue) -> Result<std::result::Result<(), String>> {
    let since = Instant::now();
    while since.elapsed() < READY_LIMIT && agent.running() {
        let monitor = status(guest)?["agent"]["monitor"].clone();
        if monitor["loaded"] == true && monitor["trouble"].is_null() && monitor["processes"].as_u64() > Some(0) {
            return Ok(Ok(()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Err(agent.errors()))
}

/// Everything that the agent has to tell, once nothing more comes for a second.
pub(super) fn told(guest: &Guest, arguments: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["events", "--class", "all", "--timeout", "1"][..], arguments].concat();
    let outcome = guest.portcullis(&arguments)?;
    if !outcome.success() {
        return Err(Failure::Answer { what: "portcullis events".to_owned(), text: outcome.complaint() });
    }
    let parse = |line| serde_json::from_str(line);
    let lines: std::result::Result<Vec<Value>, _> = outcome.stdout.lines().map(parse).collect();
    lines.map_err(|_| Failure::Answer { what: "portcullis events".to_owned(), text: outcome.stdout })
}

/// The same until it is enough, or has not become so for long: on a busy machine an agent may be silent with more to come.
pub(super) fn told_until(guest: &Guest, arguments: &[&str], is_enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
    let (mut lines, since) = (told(guest, arguments)?, Instant::now());
    while !is_enough(&lines) && since.elapsed() < TOLD_LIMIT {
        lines.extend(told(guest, arguments)?);
    }
    Ok(lines)
}

/// The only one of these; what was wrong otherwise.
pub(super) fn only<'a>(lines: &'a [Value], what: &str, is_it: impl Fn(&Value) -> bool) -> std::result::Result<&'a Value, String> {
    let found: Vec<&Value> = lines.iter().filter(|line| is_it(line)).collect();
    match found[..] {
        [one] => Ok(one),
        _ => Err(format!("{what} was told {} times in {lines:#?}", found.len())),
    }
}

/// What differs, by the pointer to it.
fn differences(line: &Value, expected: &[(&str, Value)]) -> std::result::Result<(), String> {
    let differs = |(pointer, value): &&(&str, Value)| line.pointer(pointer) != Some(value);
    let all: Vec<&str> = expected.iter().filter(differs).map(|(pointer, _)| *pointer).collect();
    if all.is_empty() { Ok(()) } else { Err(format!("{all:?} are other than expected in {line:#}")) }
}

fn own_lines(guest: &Guest, runtime: Runtime, bundle: &Bundle) -> Result<std::result::Result<(), String>> {
    told(guest, &[])?;
    runtime.run(guest, bundle)?;
    let has = |lines: &[Value], is_it: &dyn Fn(&Value) -> bool| lines.iter().any(is_it);
    let is_alert = |line: &Value| line["schema"] == "portcullis.alert/1";
    let is_cat = |line: &Value| line["schema"] == "portcullis.process/1" && line["process"]["args"] == json!(ARGUMENTS);
    let is_first = |line: &Value| line["schema"] == "portcullis.process/1" && line["process"]["args"] == json!(SCRIPT);
    let is_enough = |lines: &[Value]| has(lines, &is_alert) && has(lines, &is_cat) && has(lines, &is_first);
    let lines = told_until(guest, &["--container", "monitored"], is_enough)?;
    let process = [
        ("/container/name", json!("monitored")),
        ("/process/exe", json!(PROGRAM)),
        ("/process/args", json!(ARGUMENTS)),
        ("/process/cwd", json!("/srv")),
        ("/process/parent/exe", json!(PROGRAM)),
        ("/process/parent/nsPid", json!(1)),
    ];
    let check = || {
        let alert = only(&lines, "the denial", is_alert)?;
        differences(alert, &process)?;
        differences(alert, &[("/verdict", json!("block")), ("/object", json!("/srv/secret"))])?;
        let execution = only(&lines, "the execution", is_cat)?;
        differences(execution, &process)?;
        let same = ["/process/pid", "/process/nsPid", "/process/execId", "/process/parent/pid"];
        let same = same.map(|pointer| (pointer, execution.pointer(pointer).cloned().unwrap_or_default()));
        differences(alert, &same)?;
        let first = only(&lines, "the entrypoint", is_first)?;
        differences(first, &[("/process/nsPid", json!(1)), ("/process/parent/nsPid", json!(0))])
    };
    Ok(check())
}

fn kubearmor(guest: &Guest, runtime: Runtime, bundle: &Bundle) -> Result<std::result::Result<(), String>> {
    told(guest, &[])?;
    runtime.run(guest, bundle)?;
    let command = ARGUMENTS.join(" ").replacen("/bin/cat", PROGRAM, 1);
    let is_alert = |line: &Value| line["Type"] == "MatchedPolicy";
    let is_log = |line: &Value| line["Type"] == "ContainerLog" && line["Resource"] == json!(command);
    let is_enough = |lines: &[Value]| lines.iter().any(is_alert) && lines.iter().any(is_log);
    let lines = told_until(guest, &["--namespace", "default", "-o", "kubearmor"], is_enough)?;
    let process = [
        ("/ProcessName", json!(PROGRAM)),
        ("/ParentProcessName", json!(PROGRAM)),
        ("/PPID", json!(1)),
        ("/Cwd", json!("/srv/")),
        ("/ContainerName", json!("monitored")),
        ("/NamespaceName", json!("default")),
    ];
    let check = || {
        let alert = only(&lines, "the denial", is_alert)?;
        differences(alert, &process)?;
        differences(alert, &[("/Source", json!(command)), ("/Resource", json!("/srv/secret"))])?;
        let log = only(&lines, "the execution", is_log)?;
        differences(log, &process)?;
        differences(log, &[("/Source", json!(PROGRAM)), ("/Operation", json!("Process")), ("/Result", json!("Passed"))])
    };
    Ok(check())
}

fn tree(guest: &Guest, runtime: Runtime, bundle: &Bundle) -> Result<std::result::Result<(), String>> {
    let mut container = runtime.start(guest, bundle)?;
    container.line(START_LIMIT)?;
    let since = Instant::now();
    let mut last = String::new();
    // The child may not have been started when the shell says that it is up.
    while since.elapsed() < READY_LIMIT {
        let drawn = guest.portcullis(&["tree", "monitored"])?;
        last = drawn.stdout + &drawn.stderr;
        let has = |line: &&str| line.starts_with("└─ ") && line.ends_with(&format!("{PROGRAM} /dev/stdin -"));
        let lines: Vec<&str> = last.lines().collect();
        if lines.len() == 3 && lines[0] == "monitored  monitored" && lines[1].contains(" (1)  ") && has(&lines[2]) {
            container.stop();
            return Ok(Ok(()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Err(last))
}

/// A container that no policy is for has no label, and a name all the same: by its first process, by a child of it, and by what the
/// runtime executes beside that.
fn without_policies(guest: &Guest, runtime: Runtime, bundle: &Bundle) -> Result<std::result::Result<(), String>> {
    told(guest, &[])?;
    let mut container = runtime.start(guest, bundle)?;
    container.line(START_LIMIT)?;
    runtime.exec(guest, &bundle.id, &[PROGRAM, "echo", "beside"])?;
    container.stop();
    let has = |line: &Value, word: &str| line["process"]["args"].as_array().is_some_and(|args| args.contains(&json!(word)));
    let missing = |lines: &[Value]| {
        let mut words = vec!["/bin/sh", "/dev/stdin", "beside"];
        words.retain(|word| !lines.iter().any(|line| has(line, word)));
        words
    };
    let lines = told_until(guest, &["--container", "free"], |lines| missing(lines).is_empty())?;
    let missing = missing(&lines);
    Ok(if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not among {lines:#?}")) })
}

fn host_is_not_told(guest: &Guest) -> Result<std::result::Result<(), String>> {
    let word = format!("portcullis-{}", std::process::id());
    process::must(Command::new("true").arg(&word), b"", COMMAND_LIMIT)?;
    let lines = told(guest, &[])?;
    let of_host = lines.iter().find(|line| line.to_string().contains(&word));
    Ok(of_host.map_or(Ok(()), |line| Err(line.to_string())))
}
