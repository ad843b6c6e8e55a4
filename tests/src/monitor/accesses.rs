//! Accesses as the agent tells them: each once, with container, process and answer; and of a storm, all that there was.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::agent::{only, ready, status, told, told_until};
use crate::bundle::Bundle;
use crate::conformance::driver;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::process::{Dialogue, Talk as _};
use crate::report::Report;
use crate::runtime::{Container, Runtime, START_LIMIT};
use crate::{Failure, Result, image};

/// From SIGTERM to the agent's end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Repeats follow the last access by about ten seconds.
const QUIET: Duration = Duration::from_secs(15);
/// A storm is over, and told, within this.
const STORM_LIMIT: Duration = Duration::from_secs(300);
/// Often enough within a second.
const TIMES: u64 = 50;
/// What each container of the storm but one opens, the same file again and again.
const OPENS: u64 = 2_000;
/// What the other one makes, each of another name: more than a slow reader's queue holds, and fewer.
const MANY: u64 = 5_000;
const FEW: u64 = 200;

/// What the probe is told to do: the line, and the operation, the object and the answer that are told of it.
type Case = (&'static str, &'static str, &'static str, Option<&'static str>);

const CASES: [Case; 6] = [
    ("read\t/etc/hosts", "read", "/etc/hosts", None),
    ("read\t/srv/secret", "read", "/srv/secret", Some("EACCES")),
    ("connect\t2\t1\t0", "connect", "127.0.0.1:9", None),
    ("socket\t2\t3\t1", "socket", "", Some("EACCES")),
    ("cap\tsys_chroot", "capable", "sys_chroot", None),
    ("cap\tnet_raw", "capable", "net_raw", Some("EPERM")),
];

/// Runs this part of the suite. Nobody else may read the kernel's rings.
pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    guest.set_policies(&[("monitored", super::POLICY)])?;
    let root = guest.work.join("monitor/accesses-root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    guest::write(&root.join("srv/secret"), b"secret\n")?;
    let all = "visibility: [process, file, network, capabilities]";
    with_agent(guest, report, "containers", all, |guest, report| {
        // Whoever started a container, the kernel tells of it by the same programs.
        let enough = if guest.ci { 1 } else { guest.runtimes.len() };
        for runtime in guest.runtimes.iter().take(enough).copied() {
            if let Err(error) = container(guest, report, runtime, &root) {
                report.fail(&format!("monitor/accesses/{}", runtime.name()), error);
            }
        }
        report.run("monitor/accesses/host-is-not-told", || of_host(guest, 0));
        if let Some(runtime) = guest.runtimes.first().copied() {
            report.run("monitor/accesses/by-time", || by_time(guest, runtime, &root));
            report.run("monitor/accesses/all-is-told", || storm(guest, runtime, &root, FEW));
            report.run("monitor/accesses/storm", || storm(guest, runtime, &root, MANY));
        }
    })?;
    with_agent(guest, report, "host", "visibility: []\n  hostVisibility: [network]", |guest, report| {
        report.run("monitor/accesses/host", || of_host(guest, 1));
    })
}

/// Runs tests beside an agent that tells so much.
fn with_agent(
    guest: &Guest,
    report: &mut Report,
    name: &str,
    tells: &str,
    tests: impl FnOnce(&Guest, &mut Report),
) -> Result<()> {
    let mut guest = guest.clone();
    guest.settings.push_str(&format!("nri:\n  enabled: false\nmonitor:\n  enabled: true\n  {tells}\n"));
    guest.configure("enforce", "audit")?;
    let mut agent = Dialogue::start(guest.command().arg("agent"))?;
    report.run(&format!("monitor/accesses/{name}/ready"), || ready(&guest, &mut agent));
    tests(&guest, report);
    agent.signal(Signal::TERM);
    let code = agent.close(STOP_LIMIT);
    let stopped = if code == Some(0) { Ok(()) } else { Err(format!("{code:?}: {}", agent.errors())) };
    report.check(&format!("monitor/accesses/{name}/stop"), stopped);
    Ok(())
}

fn container(guest: &Guest, report: &mut Report, runtime: Runtime, root: &Path) -> Result<()> {
    let mut probe = start(guest, runtime, root, "monitored", &["/probe", "--drive"])?;
    for (line, operation, object, errno) in CASES {
        let name = runtime.name();
        report.run(&format!("monitor/accesses/{name}/{}", line.replace('\t', " ")), || {
            told(guest, &[])?;
            driver::ask(&mut probe, &format!("1\t-\t-1\t{line}"))?;
            let is_it = |line: &Value| is_access(line, operation, object);
            let lines = told_until(guest, &["--container", "monitored"], |lines| lines.iter().any(is_it))?;
            let expected = [
                ("/verdict", json!(if errno.is_some() { "denied" } else { "passed" })),
                ("/errno", errno.map_or(Value::Null, |errno| json!(errno))),
                ("/repeats", json!(0)),
                ("/container/name", json!("monitored")),
                ("/process/exe", json!("/probe")),
                // For each case the probe has a child.
                ("/process/parent/exe", json!("/probe")),
            ];
            Ok(only(&lines, "the access", is_it).and_then(|access| {
                let differs = |(pointer, value): &&(&str, Value)| access.pointer(pointer).unwrap_or(&Value::Null) != value;
                let all: Vec<&str> = expected.iter().filter(differs).map(|(pointer, _)| *pointer).collect();
                if all.is_empty() { Ok(()) } else { Err(format!("{all:?} are other than expected in {access:#}")) }
            }))
        });
    }
    probe.stop();
    report.run(&format!("monitor/accesses/{}/repeats", runtime.name()), || {
        let script = format!("echo ready; read go; for i in $(seq {TIMES}); do : < /etc/passwd; done; echo done; read end");
        let mut shell = start(guest, runtime, root, "monitored", &["/bin/sh", "-c", &script])?;
        told(guest, &[])?;
        shell.tell("go")?;
        shell.line(COMMAND_LIMIT)?;
        let sum = |lines: &[Value]| lines.iter().filter(|line| is_access(line, "read", "/etc/passwd")).map(times).sum::<u64>();
        let lines = told_until(guest, &["--container", "monitored"], |lines| sum(lines) >= TIMES)?;
        let sum = sum(&lines);
        let is_counted = lines.iter().any(|line| is_access(line, "read", "/etc/passwd") && !line["repeatsOf"].is_null());
        shell.stop();
        Ok(match (sum == TIMES, is_counted) {
            (true, true) => Ok(()),
            _ => Err(format!("{TIMES} accesses were told as {sum}, repeats among them: {is_counted}: {lines:#?}")),
        })
    });
    Ok(())
}

fn start(guest: &Guest, runtime: Runtime, root: &Path, id: &str, arguments: &[&str]) -> Result<Container> {
    let mut bundle = Bundle::new(id, root, arguments);
    bundle.facts.labels.insert("app".to_owned(), "monitored".to_owned());
    let mut container = runtime.start(guest, &bundle)?;
    container.line(START_LIMIT)?;
    Ok(container)
}

fn is_access(line: &Value, operation: &str, object: &str) -> bool {
    line["schema"] == "portcullis.access/1"
        && line["operation"] == operation
        && line["object"].as_str().unwrap_or_default() == object
}

/// For how many accesses a line stands.
fn times(line: &Value) -> u64 {
    line["repeats"].as_u64().unwrap_or_default() + u64::from(line["repeatsOf"].is_null())
}

/// Whether a connection of this program with itself is told so often.
fn of_host(guest: &Guest, wanted: usize) -> Result<std::result::Result<(), String>> {
    told(guest, &[])?;
    let failed = |source| Failure::io("a connection of this guest with itself", source);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let _stream = TcpStream::connect(address).map_err(failed)?;
    listener.accept().map_err(failed)?;
    let is_it = |line: &&Value| is_access(line, "connect", &address.to_string());
    let lines = told_until(guest, &[], |lines| lines.iter().filter(is_it).count() >= wanted)?;
    let mut connections = lines.iter().filter(is_it);
    let found = connections.clone().count();
    let is_own = |line: &Value| line["process"]["pid"] == std::process::id() && line["container"].is_null();
    let as_wanted = found == wanted && connections.all(is_own);
    Ok(if as_wanted { Ok(()) } else { Err(format!("told {found} times instead of {wanted}: {lines:#?}")) })
}

/// The kernel's and the agent's counters.
#[derive(Debug, Clone, Copy)]
struct Counts {
    raised: u64,
    lost: u64,
    aggregated: u64,
    told: u64,
    unread: u64,
    missed: u64,
}

impl Counts {
    fn of(guest: &Guest) -> Result<Counts> {
        let agent = status(guest)?["agent"].clone();
        let accesses = &agent["accesses"];
        let number = |name: &str| accesses[name].as_u64().unwrap_or_default();
        let told = |class: &str| ["passed", "denied"].iter().filter_map(|verdict| accesses[class][verdict].as_u64()).sum::<u64>();
        Ok(Counts {
            raised: number("raised"),
            lost: number("lost"),
            aggregated: number("aggregated"),
            told: ["file", "network", "capability"].into_iter().map(told).sum(),
            unread: number("unread"),
            missed: agent["monitor"]["missed"].as_u64().unwrap_or_default(),
        })
    }

    fn since(self, before: Counts) -> Counts {
        Counts {
            raised: self.raised - before.raised,
            lost: self.lost - before.lost,
            aggregated: self.aggregated - before.aggregated,
            told: self.told - before.told,
            unread: self.unread - before.unread,
            missed: self.missed - before.missed,
        }
    }
}

/// Four containers open and make files in loops, one of them so many files.
fn storm(guest: &Guest, runtime: Runtime, root: &Path, files: u64) -> Result<std::result::Result<(), String>> {
    let script = |times: u64, what: &str| {
        format!("echo ready; read go; i=0; while [ $i -lt {times} ]; do : {what}; i=$((i+1)); done; echo done; read end")
    };
    let (repeating, flooding) = (script(OPENS, "< /etc/hosts"), script(files, "> /data/$i"));
    guest::remove_tree(&root.join("data"))?;
    guest::make_directory(&root.join("data"))?;
    let mut containers = Vec::new();
    for (id, script) in [("storm-0", &repeating), ("storm-1", &repeating), ("storm-2", &repeating), ("flood", &flooding)] {
        containers.push(start(guest, runtime, root, id, &["/bin/sh", "-c", script])?);
    }
    let mut follower = Dialogue::start(guest.command().args(["events", "--class", "access"]))?;
    // What their starts have brought about is told by then, and its repeats are.
    lines_until_quiet(&mut follower)?;
    let before = Counts::of(guest)?;
    containers.iter_mut().try_for_each(|container| container.tell("go"))?;
    for container in &mut containers {
        container.line(COMMAND_LIMIT)?;
    }
    let lines = lines_until_quiet(&mut follower)?;
    let counts = Counts::of(guest)?.since(before);
    drop(containers);
    let told_of = |id: &str| lines.iter().filter(|line| line["container"]["name"] == id).map(times).sum::<u64>();
    let (repeating, flood) = (["storm-0", "storm-1", "storm-2"].map(told_of), told_of("flood"));
    let unread: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    println!(
        "# monitor: of 3 times {OPENS} opens and {files} files: {counts:?}; lines say {repeating:?}, {flood}, {unread} lost"
    );
    // A file that is made is an access of its own, and the writing to it another.
    let done = 3 * OPENS + 2 * files;
    let (counted, of_lines) = (counts.raised + counts.aggregated, repeating.iter().sum::<u64>() + flood);
    let is_whole = counts.lost + unread == 0;
    let wrong = [
        // Where the kernel has skipped a program, it may have been for somebody who is not told of.
        (counted > done || counted + counts.missed < done, "raised, aggregated and missed are not what was done"),
        (counts.told + counts.lost != counts.raised, "told and lost are not what was raised"),
        (unread != counts.unread, "what the reader lost is not what it was told to have lost"),
        (of_lines + counts.lost + unread > counted, "the lines tell more than there was"),
        (is_whole && of_lines != counted, "nothing was lost, and the lines tell less than there was"),
        (is_whole && counts.missed == 0 && repeating != [OPENS; 3], "nor missed, and the lines tell another number of opens"),
        (files == FEW && !is_whole, "so few need not have been lost"),
    ];
    let wrong: Vec<&str> = wrong.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, what)| what).collect();
    Ok(if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{done} accesses, {counts:?}, lines {repeating:?}, {flood}: {wrong:?}"))
    })
}

/// Alerts, executions and accesses of two containers at once come by three rings and are one stream, for who comes later to read it.
fn by_time(guest: &Guest, runtime: Runtime, root: &Path) -> Result<std::result::Result<(), String>> {
    const ROUNDS: usize = 10;
    let script =
        format!("echo up; read go; for i in $(seq {ROUNDS}); do /bin/cat /srv/secret; : > /tmp/$i; done; echo done; read end");
    let start = |id| start(guest, runtime, root, id, &["/bin/sh", "-c", &script]);
    let mut containers = [start("first")?, start("second")?];
    told(guest, &[])?;
    let counts = Counts::of(guest)?;
    containers.iter_mut().try_for_each(|container| container.tell("go"))?;
    for container in &mut containers {
        container.line(COMMAND_LIMIT)?;
    }
    // The agent has taken all of it by then, and nobody has read it.
    until_taken(guest, counts, 4 * ROUNDS as u64)?;
    let lines = told(guest, &[])?;
    drop(containers);
    // A line about repeats has the time of the access that was repeated.
    let lines: Vec<&Value> = lines.iter().filter(|line| line["repeatsOf"].is_null()).collect();
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    let of = |schema: &str| lines.iter().filter(|line| line["schema"] == schema).count();
    let counted = ["portcullis.alert/1", "portcullis.process/1", "portcullis.access/1"].map(of);
    let late: Vec<&str> = times.windows(2).filter(|pair| pair[0] > pair[1]).map(|pair| pair[1]).collect();
    println!("# monitor: by time {counted:?} alerts, executions, accesses of two containers, {} out of order", late.len());
    // The kernel may have skipped the program of an execution.
    let is_mixed = counted[0] == 2 * ROUNDS && counted[1] > ROUNDS && counted[2] >= 4 * ROUNDS;
    Ok(if late.is_empty() && is_mixed { Ok(()) } else { Err(format!("{counted:?}, late are {late:?} of {times:?}")) })
}

/// Waits until the agent has taken so many accesses.
fn until_taken(guest: &Guest, before: Counts, accesses: u64) -> Result<()> {
    let since = Instant::now();
    while Counts::of(guest)?.since(before).told < accesses {
        if since.elapsed() > COMMAND_LIMIT {
            return Err(Failure::Timeout { what: "what the agent takes of accesses".to_owned(), limit: COMMAND_LIMIT });
        }
    }
    Ok(())
}

/// What is told until nothing has come for so long that repeats would have been told, too.
fn lines_until_quiet(follower: &mut Dialogue) -> Result<Vec<Value>> {
    let (mut lines, since) = (Vec::new(), Instant::now());
    loop {
        match follower.line(QUIET) {
            Ok(line) => lines.extend(serde_json::from_str::<Value>(&line)),
            Err(Failure::Timeout { .. }) => return Ok(lines),
            Err(error) => return Err(error),
        }
        if since.elapsed() > STORM_LIMIT {
            return Err(Failure::Timeout { what: "the end of all accesses".to_owned(), limit: STORM_LIMIT });
        }
    }
}
