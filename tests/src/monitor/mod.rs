//! What the monitor tells of containers: each program that one executes and its end, and each file, socket and capability that it uses,
//! once, with the label that enforcement gave it; the host's only when they are asked for.

mod access;
mod accesses;
mod agent;
mod counted;
mod odd;
mod processes;
mod repeats;
mod storms;
mod visible;

use portcullis_ebpf::monitor::{Monitor, Watch};

use crate::guest::Guest;
use crate::report::Report;
use crate::{Failure, Result, image};

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: monitored
  namespace: default
spec:
  selector:
    matchLabels:
      app: monitored
  file:
    matchPaths:
      - path: /srv/secret
  network:
    matchProtocols:
      - protocol: icmp
  capabilities:
    matchCapabilities:
      - capability: net_raw
  action: Block
";

/// Of the monitor, where the kernel lacks nothing.
const PROGRAMS: usize = 23;

/// What this kernel may lack, and for each of the monitor's programs that it has, what the kernel makes of it.
fn loaded(monitor: &Monitor) -> std::result::Result<(), String> {
    let programs = monitor.programs().map_err(|error| error.to_string())?;
    for program in &programs {
        println!(
            "# monitor: {} has {} instructions, {} were verified",
            program.name, program.xlated_insns, program.verified_insns
        );
    }
    let notes = monitor.notes();
    let known = |note: &String| note.contains("security_file_truncate"); // Linux 6.2
    if programs.len() + notes.len() == PROGRAMS && notes.len() <= 1 && notes.iter().all(known) {
        Ok(())
    } else {
        Err(format!("{} programs, and left out: {notes:?}", programs.len()))
    }
}

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    if guest.without {
        report.skip("monitor", "there is nothing to see without Portcullis");
        return Ok(());
    }
    if storms::are_meant(guest) {
        return storms::run(guest, report);
    }
    if visible::are_meant(guest) {
        return visible::run(guest, report);
    }
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[("monitored", POLICY)])?;
    let root = guest.work.join("monitor/root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    let monitor = match Monitor::load(Watch::Accesses) {
        Ok(monitor) => monitor,
        Err(error) => {
            report.fail("monitor/load", error);
            return Ok(());
        }
    };
    report.check("monitor/load", loaded(&monitor));
    let mut processes = monitor.process_events().map_err(unusable)?;
    let mut accesses = monitor.access_events().map_err(unusable)?;
    processes::run(guest, report, &monitor, &mut processes, &root);
    access::run(guest, report, &monitor, &mut accesses, &root);
    repeats::run(guest, report, &monitor, &mut accesses, &root);
    // What the kernel did not run is counted too, and told: newer kernels let a task be preempted within a program.
    let counts = monitor.counts().map_err(unusable)?;
    println!("# monitor: {counts:?}");
    report.check(
        "monitor/nothing-lost",
        match (
            [processes.lost(), processes.malformed(), counts.lost],
            [accesses.lost(), accesses.malformed(), counts.accesses_lost],
        ) {
            ([0, 0, 0], [0, 0, 0]) => Ok(()),
            all => Err(format!("of processes and accesses: lost, malformed, and lost by the kernel's count: {all:?}")),
        },
    );
    // The agent reads the rings itself.
    drop((processes, accesses));
    agent::run(guest, report)?;
    accesses::run(guest, report)?;
    visible::run(guest, report)?;
    storms::run(guest, report)?;
    report.run("monitor/unload", || {
        Monitor::unload().map_err(unusable)?;
        let status = guest.portcullis(&["status"])?.stdout;
        Ok(if status.lines().any(|line| line.starts_with("loaded: ")) {
            Ok(())
        } else {
            Err(format!("enforcement went too: {status}"))
        })
    });
    Ok(())
}

fn unusable(error: portcullis_ebpf::Error) -> Failure {
    Failure::Answer { what: "the monitor".to_owned(), text: error.to_string() }
}
