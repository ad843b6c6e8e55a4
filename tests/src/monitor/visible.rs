//! Visibilities that containers have of their own: what each asks for is told of it and of nobody else, from the first who asks on; its
//! alerts are told in any case.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_ebpf::monitor::{Classes, Monitor};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::agent::{ready, status};
use super::counted::{Counted, Read, read_until};
use super::unusable;
use crate::bundle::Bundle;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::podman::Podman;
use crate::process::{Dialogue, Talk as _};
use crate::report::Report;
use crate::runtime::{Container, Runtime, START_LIMIT};
use crate::{Failure, Result, image};

type Outcome = Result<std::result::Result<(), String>>;

/// What a container says of itself.
const VISIBILITY_ANNOTATION: &str = "kubearmor-visibility";
/// From SIGTERM to the agent's end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Until the agent has done what follows from a record that came or went. On an emulated processor it loads programs for 16 s, and for more than a
/// minute beside other work.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Programs of processes: those that are in force where nobody asks for more.
const PROCESS_PROGRAMS: usize = 3;
/// What is executed while the others are loaded.
const TIMES: u64 = 100;
/// What who asks for files executes: its shell, and what is denied a file.
const EXECUTED: u64 = 2;
/// A denial, for which there is an alert.
const DENIED: [&str; 3] = ["/bin/cat", "/srv/secret", "two words"];

/// Who looks, and at whom.
struct Scene<'a> {
    guest: Guest,
    runtime: Runtime,
    root: &'a Path,
    agent: Dialogue,
    reader: Dialogue,
    /// Accesses that the kernel had raised and lost before, for others' agents: its numbers go on from one to the next.
    before: [u64; 2],
}

/// Whether these alone were asked for.
pub(super) fn are_meant(guest: &Guest) -> bool {
    guest.only.as_ref().is_some_and(|only| only.starts_with("monitor/visible"))
}

/// Runs this part of the suite. Nobody else may read the kernel's rings.
pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let Some(&runtime) = guest.runtimes.first() else { return Ok(()) };
    let root = guest.work.join("monitor/visible-root");
    image::make(&root)?;
    guest::make_directory(&root.join("srv"))?;
    guest::write(&root.join("srv/secret"), b"secret\n")?;
    guest::copy(&guest.tiny, &root.join("srv/tiny"))?;
    let mut guest = guest.clone();
    guest.set_policies(&[("monitored", super::POLICY)])?;
    guest.settings.push_str(
        "nri:\n  enabled: false\nmonitor:\n  enabled: true\n  visibility: [process]\n  namespaces:\n    shop: [file]\n",
    );
    guest.configure("enforce", "audit")?;
    let mut agent = Dialogue::start(guest.command().arg("agent"))?;
    report.run("monitor/visible/ready", || ready(&guest, &mut agent));
    let reader = follow(&guest)?;
    let before = Monitor::open().and_then(|monitor| monitor.counts()).map_err(unusable)?;
    let before = [before.accesses, before.accesses_lost];
    let mut scene = Scene { guest, runtime, root: &root, agent, reader, before };
    report.run("monitor/visible/nobody-asks", nobody_asks);
    let mut asking = None;
    report.run("monitor/visible/the-first-who-asks", || scene.the_first_who_asks(&mut asking));
    report.run("monitor/visible/none", || scene.none());
    // Where tests are kept short, the kernel's part of it is that of an annotation, and `plain` is who says nothing.
    if !scene.guest.ci {
        report.run("monitor/visible/namespace", || scene.namespace());
    }
    if let Some(asking) = &mut asking {
        report.run("monitor/visible/said", || scene.said());
        report.run("monitor/visible/agent-killed", || scene.restarted(asking, Signal::KILL));
        if !scene.guest.ci {
            report.run("monitor/visible/agent-ends", || scene.restarted(asking, Signal::TERM));
        }
    }
    report.run("monitor/visible/gone", || gone(asking.take()));
    match Podman::prepare(&scene.guest)? {
        None => report.skip("monitor/visible/podman", "there is no podman"),
        Some(podman) => report.run("monitor/visible/podman", || scene.podman(&podman)),
    }
    println!("# visibilities: {} s", begun.elapsed().as_secs());
    scene.agent.signal(Signal::TERM);
    let code = scene.agent.close(STOP_LIMIT);
    let is_well = code == Some(0);
    report.check("monitor/visible/stop", if is_well { Ok(()) } else { Err(format!("{code:?}: {}", scene.agent.errors())) });
    Ok(())
}

fn follow(guest: &Guest) -> Result<Dialogue> {
    Dialogue::start(guest.command().args(["events", "--class", "all"]))
}

/// The programs of accesses cost nothing where nobody asks for them: they are not there, even if they were for an agent before.
fn nobody_asks() -> Outcome {
    let programs = Monitor::open().and_then(|monitor| monitor.programs()).map_err(unusable)?;
    let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    Ok(if names.len() == PROCESS_PROGRAMS { Ok(()) } else { Err(format!("{names:?} are in force")) })
}

/// Waits for something of the kernel's.
fn until(what: &str, is_so: impl Fn(&Monitor) -> std::result::Result<bool, portcullis_ebpf::Error>) -> Result<()> {
    let since = Instant::now();
    loop {
        if Monitor::open().and_then(|monitor| is_so(&monitor)).map_err(unusable)? {
            return Ok(());
        }
        if since.elapsed() > LIMIT {
            return Err(Failure::Timeout { what: what.to_owned(), limit: LIMIT });
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_access_of(read: &Read, id: &str, object: &str) -> bool {
    read.is_access() && read.is_of(id) && read.line["object"] == object
}

impl Scene<'_> {
    fn bundle(&self, id: &str, visibility: Option<&str>, arguments: &[&str]) -> Bundle {
        let mut bundle = Bundle::new(id, self.root, arguments);
        bundle.facts.labels.insert("app".to_owned(), "monitored".to_owned());
        let annotation = visibility.map(|text| (VISIBILITY_ANNOTATION.to_owned(), text.to_owned()));
        bundle.facts.annotations.extend(annotation);
        bundle
    }

    fn start(&self, bundle: &Bundle) -> Result<Container> {
        let mut container = self.runtime.start(&self.guest, bundle)?;
        container.line(START_LIMIT)?;
        Ok(container)
    }

    /// One container executes without a pause while another comes that asks for files.
    fn the_first_who_asks(&mut self, asking: &mut Option<Container>) -> Outcome {
        let script = format!(
            "echo up; read go; i=0; while [ $i -lt {TIMES} ]; do /srv/tiny; i=$((i+1)); done; : < /etc/hosts; echo done; read end"
        );
        let mut plain = self.start(&self.bundle("plain", None, &["/bin/sh", "-c", &script]))?;
        let script = "echo up; while read word; do : < /etc/hosts; /bin/cat /srv/secret; echo done; done";
        let bundle = self.bundle("asking", Some("process,file,dns"), &["/bin/sh", "-c", script]);
        let counted = Counted::now()?;
        plain.tell("go")?;
        let asking = asking.insert(self.start(&bundle)?);
        let started = Instant::now();
        // An older kernel lacks one.
        until("the programs of accesses", |monitor| Ok(monitor.programs()?.len() + 1 >= super::PROGRAMS))?;
        let loading = started.elapsed();
        plain.line(COMMAND_LIMIT)?;
        asking.tell("go")?;
        asking.line(COMMAND_LIMIT)?;
        plain.stop();
        let is_asked = |lines: &[Read]| Ok(lines.iter().any(|read| is_access_of(read, "asking", "/etc/hosts")));
        let lines = read_until(&mut self.reader, is_asked)?;
        let counted = Counted::now()?.since(counted);
        let count = |is_it: &dyn Fn(&Read) -> bool| lines.iter().filter(|read| is_it(read)).count() as u64;
        let told = count(&|read| read.is_execution() && read.is_of("plain") && read.line["process"]["exe"] == "/srv/tiny");
        let files_of_plain = count(&|read| read.is_access() && read.is_of("plain"));
        let asked = count(&|read| is_access_of(read, "asking", "/etc/hosts"));
        let executed = count(&|read| read.is_execution() && read.is_of("asking"));
        let denied = count(&|read| is_access_of(read, "asking", "/srv/secret") && read.line["verdict"] == "denied");
        let of_others = count(&|read| read.is_access() && read.line["class"] != "file");
        println!(
            "# visibilities: {told} of {TIMES} executions told while programs were loaded, {} missed, {} lost; of plain {files_of_plain} files; in force at most {loading:.1?} after the first line of who asks",
            counted.missed, counted.processes_lost
        );
        let is_whole = told <= TIMES && told + counted.missed >= TIMES && counted.processes_lost == 0;
        let is_right = (files_of_plain, asked, denied, of_others) == (0, 1, 1, 0);
        // Whose execution the kernel skipped the program for, it does not say.
        let is_executed = executed <= EXECUTED && executed + counted.missed >= EXECUTED;
        Ok(if is_whole && is_right && is_executed {
            Ok(())
        } else {
            Err(format!(
                "{asked} opens, {denied} denied, {executed} executions of asking, {of_others} of other classes, {counted:?}: {lines:#?}"
            ))
        })
    }

    /// Nothing is told of it but its alerts, and those say who raised them.
    fn none(&mut self) -> Outcome {
        let script = "cd /srv; /bin/cat /srv/secret 'two words'; : < /etc/hosts; exit 0";
        self.runtime.run(&self.guest, &self.bundle("silent", Some("none"), &["/bin/sh", "-c", script]))?;
        let is_enough = |lines: &[Read]| Ok(lines.iter().any(|read| read.is_alert() && read.is_of("silent")));
        let lines = read_until(&mut self.reader, is_enough)?;
        let of_it: Vec<&Read> = lines.iter().filter(|read| read.is_of("silent")).collect();
        Ok(match of_it[..] {
            [read] if read.is_alert() => {
                let process = &read.line["process"];
                let (exe, args) = (json!("/usr/bin/busybox"), json!(DENIED));
                let is_named = (&process["exe"], &process["args"]) == (&exe, &args) && process["parent"]["exe"] == exe;
                if is_named { Ok(()) } else { Err(format!("{:#}", read.line)) }
            }
            _ => Err(format!("{of_it:#?}")),
        })
    }

    /// What the configuration says of a namespace is told of a container in it.
    fn namespace(&mut self) -> Outcome {
        let mut bundle = self.bundle("sold", None, &["/bin/sh", "-c", ": < /etc/hosts; exit 0"]);
        bundle.facts.namespace = "shop".to_owned();
        self.runtime.run(&self.guest, &bundle)?;
        let is_enough = |lines: &[Read]| Ok(lines.iter().any(|read| is_access_of(read, "sold", "/etc/hosts")));
        let lines = read_until(&mut self.reader, is_enough)?;
        let count = |is_it: fn(&Read) -> bool| lines.iter().filter(|read| read.is_of("sold") && is_it(read)).count();
        let (opens, executions) =
            (lines.iter().filter(|read| is_access_of(read, "sold", "/etc/hosts")).count(), count(Read::is_execution));
        Ok(if (opens, executions) == (1, 0) { Ok(()) } else { Err(format!("{lines:#?}")) })
    }

    /// What the agent and the kernel say of it.
    fn said(&self) -> Outcome {
        let status = status(&self.guest)?["agent"].clone();
        let visibility = &status["visibility"];
        let who = self.guest.portcullis(&["who", "asking", "-o", "json"])?;
        let who: Value = serde_json::from_str(&who.stdout).unwrap_or_default();
        let accesses = &status["accesses"];
        let number = |name: &str| accesses[name].as_u64().unwrap_or_default();
        let told: u64 = ["file", "network", "capability"]
            .iter()
            .flat_map(|class| ["passed", "denied"].map(|verdict| accesses[class][verdict].as_u64().unwrap_or_default()))
            .sum();
        let overrides = Monitor::open().and_then(|monitor| monitor.overrides()).map_err(unusable)?;
        let is_in_force = matches!(overrides[..], [(_, classes)] if classes == Classes::PROCESS | Classes::FILE);
        let is_said = visibility["own"] == 1
            && visibility["file"] == 1
            && visibility["untold"][0]["name"] == "asking"
            && visibility["untold"][0]["why"].as_str().is_some_and(|why| why.contains("\"dns\""))
            && who["visibility"]["classes"] == json!(["process", "file"])
            && who["visibility"]["by"] == "annotation";
        let [raised, lost] = self.before;
        let is_whole = number("raised") + lost == raised + told + number("lost") + number("withheld");
        println!("# visibilities: {visibility}, accesses {accesses}");
        Ok(if is_in_force && is_said && is_whole { Ok(()) } else { Err(format!("{overrides:?}, {who:#}, {status:#}")) })
    }

    /// Another agent comes: what is asked for is told by it.
    fn restarted(&mut self, asking: &mut Container, signal: Signal) -> Outcome {
        self.agent.signal(signal);
        self.agent.close(STOP_LIMIT);
        if signal == Signal::TERM {
            let left = Monitor::open().and_then(|monitor| monitor.overrides()).map_err(unusable)?;
            if !left.is_empty() {
                return Ok(Err(format!("{left:?} though nobody reads what is told")));
            }
        }
        self.agent = Dialogue::start(self.guest.command().arg("agent"))?;
        if let Err(why) = ready(&self.guest, &mut self.agent)? {
            return Ok(Err(why));
        }
        self.reader = follow(&self.guest)?;
        asking.tell("again")?;
        asking.line(COMMAND_LIMIT)?;
        let is_enough = |lines: &[Read]| Ok(lines.iter().any(|read| is_access_of(read, "asking", "/etc/hosts")));
        let lines = read_until(&mut self.reader, is_enough)?;
        Ok(if is_enough(&lines)? { Ok(()) } else { Err(format!("{lines:#?}, {}", self.agent.errors())) })
    }

    /// Podman's containers say it by an annotation of their own.
    fn podman(&mut self, podman: &Podman) -> Outcome {
        let annotation = format!("{VISIBILITY_ANNOTATION}=process file");
        let script = ": < /etc/hosts; /bin/cat /dev/null; exit 0";
        let containers = [("with", &["--annotation", annotation.as_str()][..]), ("without", &[])];
        let both = if self.guest.ci { 1 } else { 2 };
        for (name, options) in containers.into_iter().take(both) {
            let options = [&["--rm", "--name", name][..], options].concat();
            let outcome = podman.run(&options, &["/bin/sh", "-c", script])?;
            if !outcome.success() {
                return Ok(Err(outcome.complaint()));
            }
        }
        let executed = |lines: &[Read], id: &str| lines.iter().filter(|read| read.is_of(id) && read.is_execution()).count();
        let opened = |lines: &[Read], id: &str| lines.iter().filter(|read| is_access_of(read, id, "/etc/hosts")).count();
        let is_enough = |lines: &[Read]| Ok((both == 1 || executed(lines, "without") >= 2) && opened(lines, "with") >= 1);
        let lines = read_until(&mut self.reader, is_enough)?;
        let files_of_other = lines.iter().filter(|read| read.is_of("without") && read.is_access()).count();
        let left = Monitor::open().and_then(|monitor| monitor.overrides()).map_err(unusable)?;
        let is_right = executed(&lines, "with") >= 2 && opened(&lines, "with") == 1 && is_enough(&lines)?;
        Ok(if is_right && files_of_other == 0 && left.is_empty() { Ok(()) } else { Err(format!("{left:?}, {lines:#?}")) })
    }
}

/// A container that is gone leaves nothing behind.
fn gone(asking: Option<Container>) -> Outcome {
    let before = Monitor::open().and_then(|monitor| monitor.overrides()).map_err(unusable)?;
    drop(asking);
    until("the end of what a container asked for", |monitor| Ok(monitor.overrides()?.is_empty()))?;
    Ok(if before.is_empty() { Err("it had none".to_owned()) } else { Ok(()) })
}
