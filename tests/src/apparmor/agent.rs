//! With the agent: denials are alerts with their rule, and policies change on running containers.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bundle::Bundle;
use crate::events::{Alert, Events};
use crate::guest::Guest;
use crate::process::{Dialogue, Talk};
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};
use crate::{Result, image};

/// From the agent's start until it answers, and from a change until it holds; under emulation.
const LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to the agent's end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);

type Checked = std::result::Result<(), String>;

pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    if !guest.wants("apparmor/agent") {
        return Ok(());
    }
    let root = guest.work.join("apparmor/agent-root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    guest.set_policies(&[("agent", &denying("/etc/hosts"))])?;
    let mut agent = Dialogue::start(guest.command().arg("agent"))?;
    report.run("apparmor/agent/ready", || ready(guest, &mut agent));
    for runtime in guest.runtimes.iter().copied() {
        report.run(&format!("apparmor/agent/{}/alerts", runtime.name()), || alerts(guest, &root, runtime));
        report.run(&format!("apparmor/agent/{}/refused", runtime.name()), || refused(guest, &root, runtime));
        report.run(&format!("apparmor/agent/{}/live", runtime.name()), || live(guest, &root, runtime));
    }
    report.run("apparmor/agent/commands", || commands(guest, &root));
    agent.signal(Signal::TERM);
    let code = agent.close(STOP_LIMIT);
    report.check("apparmor/agent/stop", if code == Some(0) { Ok(()) } else { Err(format!("{code:?}: {}", agent.errors())) });
    Ok(())
}

fn denying(path: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: agent\n  namespace: default\nspec:\n  selector:\n    matchLabels:\n      app: agent\n  file:\n    matchPaths:\n      - path: {path}\n  process:\n    matchPaths:\n      - path: /attack\n  network:\n    matchProtocols:\n      - protocol: raw\n  capabilities:\n    matchCapabilities:\n      - capability: chown\n  action: Block\n"
    )
}

fn bundle(root: &Path, id: &str, arguments: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(id, root, arguments);
    bundle.facts.labels.insert("app".to_owned(), "agent".to_owned());
    bundle
}

fn ready(guest: &Guest, agent: &mut Dialogue) -> Result<Checked> {
    let since = Instant::now();
    while since.elapsed() < LIMIT && agent.running() {
        let status = guest.portcullis(&["status"])?;
        if status.stdout.contains("agent ") && !status.stdout.contains("NOT READ") {
            return Ok(Ok(()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Err(agent.errors()))
}

/// Each with the container, the rule, and what it was.
fn alerts(guest: &Guest, root: &Path, runtime: Runtime) -> Result<Checked> {
    let id = format!("agent-alerts-{}", runtime.name());
    let mut container = runtime.start(guest, &bundle(root, &id, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    let mut events = Events::follow(guest)?;
    for arguments in [&["/bin/cat", "/etc/hosts"][..], &["/bin/sh", "-c", "touch /tmp/c; chown 7 /tmp/c"]] {
        let done = runtime.exec(guest, &id, arguments)?;
        if done.success() {
            return Ok(Err(format!("{} is not denied", arguments[1])));
        }
    }
    let alerts = events.drain()?;
    container.stop();
    let of = |class: &str, object: &str, field: &str| {
        let found = alerts.iter().find(|alert| alert.class == class && alert.object == object && alert.container == id);
        let says = |line: &str| [field, r#""verdict":"block","backend":"apparmor""#].iter().all(|part| line.contains(part));
        match found {
            Some(alert) if alert.policy == "agent" && says(&alert.line) => Ok(()),
            Some(alert) => Err(format!("the alert does not say {field}, or who denied it: {}", alert.line)),
            None => Err(format!("no alert of {object} among {alerts:?}")),
        }
    };
    Ok(of("file", "/etc/hosts", "spec.file.matchPaths[0]")
        .and_then(|()| of("capability", "chown", "spec.capabilities.matchCapabilities[0]")))
}

/// What was refused before the kernel could judge it is an alert like any other: the first program, and what is executed by hand.
fn refused(guest: &Guest, root: &Path, runtime: Runtime) -> Result<Checked> {
    let mut events = Events::follow(guest)?;
    let first = format!("agent-refused-{}", runtime.name());
    let outcome = runtime.run(guest, &bundle(root, &first, &["/attack", "--list"]))?;
    if outcome.success() {
        return Ok(Err("a denied first program runs".to_owned()));
    }
    let later = format!("agent-refused-later-{}", runtime.name());
    let mut container = runtime.start(guest, &bundle(root, &later, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    if runtime.exec(guest, &later, &["/attack", "--list"])?.success() {
        return Ok(Err("a denied program is executed".to_owned()));
    }
    let alerts = events.drain()?;
    container.stop();
    for id in [first, later] {
        let told: Vec<&Alert> = alerts.iter().filter(|alert| alert.container == id).collect();
        match told.as_slice() {
            [alert]
                if (alert.class.as_str(), alert.operation.as_str(), alert.object.as_str()) == ("process", "exec", "/attack")
                    && alert.policy == "agent"
                    && alert.line.contains("spec.process.matchPaths[0]")
                    && alert.line.contains("\"block\"") => {}
            told => return Ok(Err(format!("{id} is not told once and as it is: {told:?}"))),
        }
    }
    Ok(Ok(()))
}

/// What is asked of an agent without kernel programs is answered, and says what enforces.
fn commands(guest: &Guest, root: &Path) -> Result<Checked> {
    let id = "agent-commands";
    let runtime = guest.runtimes[0];
    let mut container = runtime.start(guest, &bundle(root, id, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    for (arguments, expected) in [
        (&["status"][..], &["AppArmor", id, "armed"][..]),
        (&["status", "-o", "json"], &[id]),
        (&["who", id], &["state     armed", "AppArmor, profile portcullis.", "/etc/hosts"]),
        (&["doctor"], &["AppArmor"]),
        (&["tree", id], &["/probe"]),
        (&["top", "--once"], &[id]),
        (&["policy", "list"], &["agent"]),
    ] {
        let said = guest.portcullis(arguments)?;
        if let Some(missing) = expected.iter().find(|text| !said.stdout.contains(**text)) {
            return Ok(Err(format!("{}: not a word of {missing:?}: {} {}", arguments[0], said.stdout, said.complaint())));
        }
    }
    container.stop();
    Ok(Ok(()))
}

/// Another policy, and none any more.
fn live(guest: &Guest, root: &Path, runtime: Runtime) -> Result<Checked> {
    let id = format!("agent-live-{}", runtime.name());
    guest.set_policies(&[("agent", &denying("/etc/hosts"))])?;
    let mut container = runtime.start(guest, &bundle(root, &id, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    let reads = |path: &str| runtime.exec(guest, &id, &["/bin/cat", path]).map(|done| done.success());
    if reads("/etc/hosts")? || !reads("/etc/passwd")? {
        return Ok(Err("the first policy is not in force".to_owned()));
    }
    for (what, policy, hosts, passwd) in [
        ("another policy", Some(denying("/etc/passwd")), true, false),
        ("no policy", None, true, true),
        ("the first again", Some(denying("/etc/hosts")), false, true),
    ] {
        guest.set_policies(&policy.iter().map(|text| ("agent", text.as_str())).collect::<Vec<_>>())?;
        let since = Instant::now();
        while (reads("/etc/hosts")?, reads("/etc/passwd")?) != (hosts, passwd) {
            if since.elapsed() > LIMIT {
                return Ok(Err(format!(
                    "{what} is not in force after {} s: {}",
                    LIMIT.as_secs(),
                    guest.portcullis(&["status"])?.stdout
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }
    container.stop();
    Ok(Ok(()))
}
