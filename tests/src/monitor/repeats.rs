//! Repeats: told once and then counted, to the unit; and the visibility of one container alone.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::{AccessEvents, Classes, Monitor, Visibility};

use super::access::drain;
use super::unusable;
use crate::bundle::Bundle;
use crate::guest::{COMMAND_LIMIT, Guest};
use crate::process::Talk as _;
use crate::report::Report;
use crate::runtime::{Container, Runtime};
use crate::{Failure, Result};

const TIMES: u64 = 10_000;
/// The loop takes less.
const LONG: Duration = Duration::from_secs(3600);
/// The loop takes many.
const SHORT: Duration = Duration::from_millis(20);
/// Opens one file as often as that, in the shell itself: it starts nothing.
const SCRIPT: &str = "echo ready; read go; i=0; while [ $i -lt 10000 ]; do : < /etc/hosts; i=$((i+1)); done; echo done; read end";

pub(super) fn run(guest: &Guest, report: &mut Report, monitor: &Monitor, events: &mut AccessEvents, root: &Path) {
    let Some(runtime) = guest.runtimes.first().copied() else {
        report.fail("monitor/repeats", "no runtime is installed");
        return;
    };
    for (name, window) in [("within-the-window", LONG), ("over-windows", SHORT)] {
        report.run(&format!("monitor/repeats/{name}"), || {
            monitor.set_window(window).map_err(unusable)?;
            loop_in(guest, monitor, events, root, runtime, Some(Classes::FILE), Classes::NONE).map(|seen| check(&seen, window))
        });
    }
    report.run("monitor/override/silent", || {
        let seen = loop_in(guest, monitor, events, root, runtime, Some(Classes::NONE), Classes::FILE)?;
        Ok(if seen.emitted + seen.aggregated == 0 {
            Ok(())
        } else {
            Err(format!("a container that is not to be seen: {seen:?}"))
        })
    });
}

/// What was told, and counted, while the loop ran.
#[derive(Debug)]
struct Seen {
    emitted: u64,
    aggregated: u64,
    lost: u64,
    delivered: u64,
    /// As told with later events.
    repeats: u64,
    /// As taken from the map.
    taken: u64,
}

fn check(seen: &Seen, window: Duration) -> std::result::Result<(), String> {
    let once = window == LONG;
    let whole = seen.emitted + seen.aggregated == TIMES && seen.delivered + seen.lost == seen.emitted;
    let repeats = if once { seen.delivered == 1 } else { seen.repeats + seen.taken == seen.aggregated && seen.delivered > 1 };
    println!("# monitor: of {TIMES} opens with a window of {window:?}: {seen:?}");
    if whole && repeats { Ok(()) } else { Err(format!("{TIMES} opens: {seen:?}")) }
}

/// Runs the loop in a container whose cgroup has these classes, while containers have those.
fn loop_in(
    guest: &Guest,
    monitor: &Monitor,
    events: &mut AccessEvents,
    root: &Path,
    runtime: Runtime,
    own: Option<Classes>,
    others: Classes,
) -> Result<Seen> {
    let bundle = Bundle::new("repeating", root, &["/bin/sh", "-c", SCRIPT]);
    let mut container: Container = runtime.start(guest, &bundle)?;
    container.line(crate::runtime::START_LIMIT)?;
    let cgroup = PathBuf::from("/sys/fs/cgroup/portcullis-e2e").join(&bundle.id);
    let cgroup = std::fs::metadata(&cgroup).map_err(|source| Failure::io(cgroup.display(), source))?.ino();
    if let Some(own) = own {
        monitor.set_override(cgroup, own).map_err(unusable)?;
    }
    monitor.set_visibility(Visibility { host: Classes::NONE, containers: others }).map_err(unusable)?;
    drain(events)?;
    let before = monitor.counts().map_err(unusable)?;
    container.tell("go")?;
    container.line(COMMAND_LIMIT)?;
    let after = monitor.counts().map_err(unusable)?;
    let told = drain(events)?;
    // The last window has to be over.
    std::thread::sleep(SHORT);
    let taken = monitor.take_repeats().map_err(unusable)?;
    monitor.set_visibility(Visibility::default()).map_err(unusable)?;
    monitor.remove_override(cgroup).map_err(unusable)?;
    container.stop();
    // What earlier loops left is taken with it.
    let of_this = |tgid: u32, started_ns: u64| {
        told.first().is_some_and(|event| (event.header.tgid, event.header.started_ns) == (tgid, started_ns))
    };
    let of_the_loop = |number: u32, path: &[u8]| number == op::READ && path == b"/etc/hosts";
    Ok(Seen {
        emitted: after.accesses - before.accesses,
        aggregated: after.accesses_aggregated - before.accesses_aggregated,
        lost: after.accesses_lost - before.accesses_lost,
        delivered: told.iter().filter(|event| of_the_loop(event.header.op, &event.path)).count() as u64,
        repeats: told.iter().map(|event| event.header.repeats).sum(),
        taken: taken.iter().filter(|repeat| of_this(repeat.what.tgid, repeat.what.started_ns)).map(|repeat| repeat.repeats).sum(),
    })
}
