//! What is armed stays armed: an attacker in a container tries without a pause while our processes are killed and the
//! kernel programs are upgraded.

use std::time::{Duration, Instant};

use crate::Result;
use crate::attacks;
use crate::guest::Guest;
use crate::process::{Dialogue, Talk};
use crate::report::Report;
use crate::runtime::Runtime;

/// Waiting for the attacker's last words.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// Under the attacker's eyes, between two events.
const BETWEEN: Duration = Duration::from_millis(200);
/// Until an upgrade is killed, at most; it grows eightfold from a millisecond, to meet every phase of loading.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let Some(runtime) = guest.runtimes.first().copied() else {
        report.skip("restarts", "neither crun nor runc is installed");
        return Ok(());
    };
    let count = guest.repetitions(5, 100);
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
        report.run("restarts/upgrade", || under_attack(guest, runtime, count, Guest::upgrade));
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
    Ok(())
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
