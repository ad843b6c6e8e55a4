//! Programs and their ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use portcullis_ebpf::monitor::abi::{EXEC, EXIT, NO_SLOT};
use portcullis_ebpf::monitor::{Classes, Monitor, ProcessEvent, ProcessEvents, Visibility};

use super::unusable;
use crate::bundle::Bundle;
use crate::guest::{COMMAND_LIMIT, Guest};
use crate::report::Report;
use crate::runtime::Runtime;
use crate::{Result, process};

/// Events of what has ended are there within this, under emulation too.
const QUIET: Duration = Duration::from_millis(500);
/// What the containers end with.
const CODE: u32 = 3;

/// Runs containers, and a program of the host.
pub(super) fn run(guest: &Guest, report: &mut Report, monitor: &Monitor, events: &mut ProcessEvents, root: &Path) {
    for runtime in guest.runtimes.iter().copied() {
        for (name, app) in [("labelled", "monitored"), ("without-a-policy", "nobody")] {
            report.run(&format!("monitor/{}/{name}", runtime.name()), || {
                see(monitor, events, false)?;
                let mut bundle =
                    Bundle::new("monitored", root, &["/bin/sh", "-c", "/bin/true one 'two words'; /bin/false; exit 3"]);
                bundle.facts.labels.insert("app".to_owned(), app.to_owned());
                container(guest, runtime, &bundle, events, app == "monitored")
            });
        }
    }
    report.run("monitor/host", || {
        see(monitor, events, false)?;
        let unseen = host(events)?;
        see(monitor, events, true)?;
        let seen = host(events)?;
        Ok(match (unseen, seen) {
            (0, 1) => Ok(()),
            (unseen, seen) => Err(format!("told {unseen} times when not asked for, and {seen} times when it was")),
        })
    });
}

/// Sees containers, and the host or not, from now on.
fn see(monitor: &Monitor, events: &mut ProcessEvents, host: bool) -> Result<()> {
    let host = if host { Classes::PROCESS } else { Classes::NONE };
    monitor.set_visibility(Visibility { host, containers: Classes::PROCESS }).map_err(unusable)?;
    drain(events).map(drop)
}

fn drain(events: &mut ProcessEvents) -> Result<Vec<ProcessEvent>> {
    let mut all = Vec::new();
    while let Some(event) = events.next(QUIET).map_err(unusable)? {
        all.push(event);
    }
    Ok(all)
}

fn container(
    guest: &Guest,
    runtime: Runtime,
    bundle: &Bundle,
    events: &mut ProcessEvents,
    labelled: bool,
) -> Result<std::result::Result<(), String>> {
    let outcome = runtime.run(guest, bundle)?;
    let told = drain(events)?;
    let executed = |arguments: &[&str]| {
        let same = |event: &&ProcessEvent| {
            event.header.kind == EXEC
                && event.exe == b"/usr/bin/busybox" // where the link /bin leads
                && event.cwd == b"/"
                && event.arguments().eq(arguments.iter().map(|word| word.as_bytes()))
                && (event.header.slot != NO_SLOT) == labelled
        };
        told.iter().filter(same).map(|event| event.header.tgid).collect::<Vec<_>>()
    };
    let script = bundle.arguments.iter().map(String::as_str).collect::<Vec<_>>();
    let [init] = executed(&script)[..] else {
        return Ok(Err(format!("its entrypoint was not told once ({outcome:?}): {told:#?}")));
    };
    let [child] = executed(&["/bin/true", "one", "two words"])[..] else {
        return Ok(Err(format!("its child was not told once: {told:#?}")));
    };
    let ended = |tgid: u32| {
        let of = |event: &&ProcessEvent| event.header.kind == EXIT && event.header.tgid == tgid;
        told.iter().filter(of).map(|event| (event.header.status, event.header.ns_pid)).collect::<Vec<_>>()
    };
    let parent =
        told.iter().find(|event| event.header.kind == EXEC && event.header.tgid == child).map(|event| event.header.parent);
    Ok(match (&ended(init)[..], &ended(child)[..], parent) {
        ([(status, 1)], [(0, ns_pid)], Some(parent)) if *status == CODE << 8 && *ns_pid > 1 && parent == init => Ok(()),
        ends => Err(format!("the ends of init and child, and the child's parent: {ends:?}")),
    })
}

/// How often a program of the host was told.
fn host(events: &mut ProcessEvents) -> Result<usize> {
    let word = format!("portcullis-{}", std::process::id());
    process::must(Command::new("true").arg(&word), b"", COMMAND_LIMIT)?;
    let is_it = |event: &ProcessEvent| event.header.kind == EXEC && event.arguments().last() == Some(word.as_bytes());
    Ok(drain(events)?.iter().filter(|event| is_it(event)).count())
}
