//! What is armed stays armed: an attacker in a container tries without a pause while our processes are killed and the
//! kernel programs are upgraded.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::attacks;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::process::{self, Dialogue, Talk};
use crate::report::Report;
use crate::runtime::Runtime;
use crate::{Failure, Result};

/// Waiting for the attacker's last words.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Under the attacker's eyes, between two events.
const BETWEEN: Duration = Duration::from_millis(200);
/// Until an upgrade is killed, at most; it grows eightfold from a millisecond, to meet every phase of loading.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Host processes that open files without a pause, so that tasks are preempted inside of our programs.
const BUSY: usize = 3;
/// How long the attacker tries among them.
const BUSY_SECONDS: u32 = 10;

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let Some(runtime) = guest.runtimes.first().copied() else {
        report.skip("restarts", "neither crun nor runc is installed");
        return Ok(());
    };
    let count = guest.repetitions(5, 100);
    // Programs are loaded anew while the attacker tries: under emulation that is half a minute each time.
    let upgrades = guest.repetitions(2, 100);
    if guest.wants("restarts/killed") {
        report.run("restarts/killed", || {
            under_attack(guest, runtime, 2 * count, |guest| {
                // A follower of the events is the process of ours that stays; it dies without a word.
                let follower = Dialogue::start(guest.command().arg("events"))?;
                std::thread::sleep(BETWEEN);
                drop(follower);
                Ok(())
            })
        });
    }
    if guest.wants("restarts/upgrade") {
        report.run("restarts/upgrade", || under_attack(guest, runtime, upgrades, Guest::upgrade));
    }
    if guest.wants("restarts/upgrade-killed") {
        report.run("restarts/upgrade-killed", || {
            let mut pause = Duration::from_millis(1);
            under_attack(guest, runtime, count, |guest| {
                // Killed at a different moment of its work each time.
                let load = Dialogue::start(guest.command().args(["load", "--anew"]))?;
                std::thread::sleep(pause);
                pause = if pause > LONGEST_PAUSE { Duration::from_millis(1) } else { pause * 8 };
                drop(load);
                guest.load()
            })
        });
    }
    if guest.wants("restarts/policies-gone") {
        report.run("restarts/policies-gone", || {
            under_attack(guest, runtime, 1, |guest| {
                guest.set_policies(&[])?;
                guest.load()?;
                std::thread::sleep(Duration::from_secs(1));
                Ok(())
            })
        });
    }
    if guest.wants("restarts/preempted") && !guest.without {
        report.run("restarts/preempted", || preempted(guest, runtime));
    }
    Ok(())
}

/// With the kernel preempting everywhere: nothing passes, or the programs are not loaded at all.
fn preempted(guest: &Guest, runtime: Runtime) -> Result<std::result::Result<(), String>> {
    let debugfs = guest.work.join("debugfs");
    guest::make_directory(&debugfs)?;
    process::must(Command::new("mount").args(["-t", "debugfs", "debugfs"]).arg(&debugfs), b"", COMMAND_LIMIT)?;
    let model = debugfs.join("sched/preempt");
    let before = fs::read_to_string(&model).map_err(|source| Failure::io(model.display(), source))?;
    let is_to_refuse = labels_get_lost()?;
    guest::write(&model, b"full")?;
    let outcome = if is_to_refuse { refused(guest) } else { among_busy_tasks(guest, runtime) };
    let usual = before.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("full", |(usual, _)| usual);
    guest::write(&model, usual.as_bytes())?;
    process::must(Command::new("umount").arg(&debugfs), b"", COMMAND_LIMIT)?;
    outcome
}

/// Before Linux 6.2: see `ebpf/src/preempt.rs`.
fn labels_get_lost() -> Result<bool> {
    const RELEASE: &str = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(RELEASE).map_err(|source| Failure::io(RELEASE, source))?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    Ok((numbers.next(), numbers.next()) < (Some(6), Some(2)))
}

fn refused(guest: &Guest) -> Result<std::result::Result<(), String>> {
    let load = guest.portcullis(&["load", "--anew"])?;
    let doctor = guest.portcullis(&["doctor"])?;
    let told = |text: &str| text.contains("preempt=voluntary");
    let is_refused = load.code != Some(0) && told(&load.stderr) && doctor.code != Some(0) && told(&doctor.stdout);
    Ok(if is_refused { Ok(()) } else { Err(format!("{}\n{}\n{}", load.complaint(), doctor.complaint(), doctor.stdout)) })
}

fn among_busy_tasks(guest: &Guest, runtime: Runtime) -> Result<std::result::Result<(), String>> {
    guest.upgrade()?;
    let start = |_| Dialogue::start(Command::new("sh").args(["-c", "while :; do : </etc/hostname; done"]));
    let busy = (0..BUSY).map(start).collect::<Result<Vec<_>>>()?;
    let outcome = under_attack(guest, runtime, BUSY_SECONDS, |_| {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    });
    drop(busy);
    outcome
}

/// Starts the attacker, does `disturb` so often, and asks the attacker what it got.
fn under_attack(
    guest: &Guest,
    runtime: Runtime,
    count: u32,
    mut disturb: impl FnMut(&Guest) -> Result<()>,
) -> Result<std::result::Result<(), String>> {
    let (_arena, mut container) = attacks::start_loop(guest, runtime)?;
    let begin = Instant::now();
    for round in 0..count {
        disturb(guest)?;
        if let Some(line) = container.dialogue.pending().first() {
            return Ok(Err(format!("round {round}: {line}")));
        }
        if !container.dialogue.running() {
            return Ok(Err(format!("round {round}: the container ended")));
        }
    }
    std::thread::sleep(BETWEEN);
    // Its input ends, and it says how often it tried.
    container.dialogue.end_of_input();
    let line = container.dialogue.line(LAST_WORDS)?;
    let tried: Option<u64> = line.strip_prefix("TRIED ").and_then(|number| number.parse().ok());
    Ok(match tried {
        Some(0) => Err("the attacker never came to try".to_owned()),
        Some(_) => Ok(()),
        None => Err(format!("{line} in {} s", begin.elapsed().as_secs())),
    })
}
