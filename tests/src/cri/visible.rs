//! What is told of a pod that says so itself: its annotation reaches the agent by NRI.

use std::time::{Duration, Instant};

use portcullis_ebpf::monitor::Monitor;
use serde_json::Value;

use super::engine::{Engine, handler};
use super::pods::{ContainerSpec, Pod, PodSpec};
use super::until;
use crate::guest::Guest;
use crate::process::{Dialogue, Talk as _};
use crate::report::Report;
use crate::{Failure, Result};

/// Until the programs of accesses are in force, which were not as long as nobody asked; under emulation they take seconds.
const LOAD_LIMIT: Duration = Duration::from_secs(180);
/// Programs of processes alone.
const PROCESS_PROGRAMS: usize = 3;
/// Until an access is told.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
/// Events of one moment come within this.
const QUIET: Duration = Duration::from_secs(2);

/// Runs the test, where tests are not kept short: programs are loaded in it, which takes half a minute on an emulated processor.
pub(super) fn run(guest: &Guest, engine: &Engine, report: &mut Report) {
    const NAME: &str = "cri/visibility";
    if guest.wants(NAME) && !guest.without && !guest.ci {
        let begun = Instant::now();
        report.run(NAME, || annotated(guest, engine));
        println!("# visibility of a pod: {} s", begun.elapsed().as_secs());
    }
}

fn annotated(guest: &Guest, engine: &Engine) -> Result<std::result::Result<(), String>> {
    let Some(&runtime) = guest.runtimes.first() else { return Ok(Err("no runtime".to_owned())) };
    let mut reader = Dialogue::start(guest.command().args(["events", "--class", "access"]))?;
    let mut asking = PodSpec::new("asking", "visible", &handler(runtime, false));
    asking.annotations.insert("kubearmor-visibility".to_owned(), "process,file".to_owned());
    let pods = [asking, PodSpec::new("plain", "visible", &handler(runtime, false))].map(|spec| Pod::run(guest, engine, spec));
    let mut containers = Vec::new();
    for pod in &pods {
        let Ok(pod) = pod else { return Ok(Err(format!("{pod:?}"))) };
        let spec = ContainerSpec::new(if containers.is_empty() { "asks" } else { "plain" }, &["/bin/sleep", "600"]);
        containers.push(pod.start(&spec)?);
    }
    until("the programs of accesses", LOAD_LIMIT, || {
        let programs = Monitor::open().and_then(|monitor| monitor.programs());
        let programs = programs.map_err(|error| Failure::Answer { what: "the monitor".to_owned(), text: error.to_string() })?;
        Ok((programs.len() > PROCESS_PROGRAMS).then_some(()))
    })?;
    let (mut lines, since) = (Vec::<Value>::new(), Instant::now());
    let of = |lines: &[Value], name: &str| lines.iter().filter(|line| line["container"]["name"] == name).count();
    let is_told = |lines: &[Value]| {
        lines.iter().any(|line| line["container"]["name"] == "asks" && line["class"] == "file" && line["object"] == "/etc/hosts")
    };
    // Each time by another process: programs are put in force one after the other.
    while !is_told(&lines) && since.elapsed() < TOLD_LIMIT {
        for container in &containers {
            let ended = container.exec(&["/bin/sh", "-c", ": < /etc/hosts"])?;
            if !ended.success() {
                return Ok(Err(ended.to_string()));
            }
        }
        loop {
            match reader.line(QUIET) {
                Ok(line) => lines.extend(serde_json::from_str::<Value>(&line)),
                Err(Failure::Timeout { .. }) => break,
                Err(error) => return Err(error),
            }
        }
    }
    let (of_asking, of_plain) = (of(&lines, "asks"), of(&lines, "plain"));
    let other_class = lines.iter().any(|line| line["container"]["name"] == "asks" && line["class"] != "file");
    println!("# visibility of a pod: {of_asking} accesses of the one that asks, {of_plain} of the other");
    containers.iter().try_for_each(super::pods::Container::kill)?;
    Ok(if is_told(&lines) && of_plain == 0 && !other_class { Ok(()) } else { Err(format!("{lines:#?}")) })
}
