//! What the monitor adds to system calls, by what is told of them. Without enforcement, and of the host, so that nothing else is in it.
//!
//! Nobody reads the rings meanwhile: they hold all that one state tells, which is checked, and on the guest's one processor a reader's
//! instructions would be counted too.

use std::time::Duration;

use portcullis_ebpf::monitor::{Classes, Monitor, Visibility, Watch};

use crate::Failure;
use crate::guest::{Container, Costs};
use crate::report::Guest;

/// A repeat is within it, whatever the emulation takes.
const LONG: Duration = Duration::from_secs(3600);

/// What is told, and whether the same again is only counted.
const STATES: [(&str, Classes, Duration); 8] = [
    ("monitor, nothing told", Classes::NONE, LONG),
    ("monitor, processes", Classes::PROCESS, LONG),
    ("monitor, files, repeats", Classes::FILE, LONG),
    ("monitor, files, each told", Classes::FILE, Duration::ZERO),
    ("monitor, network, repeats", Classes::NETWORK, LONG),
    ("monitor, network, each", Classes::NETWORK, Duration::ZERO),
    ("monitor, capab., repeats", Classes::CAPABILITY, LONG),
    ("monitor, capab., each", Classes::CAPABILITY, Duration::ZERO),
];

/// Measures all of them against `none`, where nothing is loaded.
pub(crate) fn measure(container: &Container, none: &Costs, report: &mut Guest) -> Result<(), Failure> {
    let monitor = Monitor::load(Watch::Accesses)?;
    monitor.notes().iter().for_each(|note| println!("monitor: {note}"));
    for (state, host, window) in STATES {
        let (mut processes, mut accesses) = (monitor.process_events()?, monitor.access_events()?);
        monitor.set_window(window)?;
        monitor.set_visibility(Visibility { host, containers: Classes::NONE })?;
        let before = monitor.counts()?;
        let costs = container.run("/sys/fs/cgroup", "")?;
        monitor.set_visibility(Visibility::default())?;
        let counts = monitor.counts()?;
        let (mut told, mut accessed) = (0, 0);
        while processes.next(Duration::ZERO)?.is_some() {
            told += 1;
        }
        while accesses.next(Duration::ZERO)?.is_some() {
            accessed += 1;
        }
        let raised = (counts.events - before.events, counts.accesses - before.accesses);
        if raised != (told, accessed) || (raised == (0, 0)) != (host == Classes::NONE) {
            return Err(format!("{state}: {raised:?} events were raised, and {told} and {accessed} told").into());
        }
        let aggregated = counts.accesses_aggregated - before.accesses_aggregated;
        println!("{state}: {told} events of processes, {accessed} accesses told, {aggregated} counted");
        report.add(state, Some(none), &costs);
    }
    Monitor::unload()?;
    Ok(())
}
