//! What the agent costs: a container's start with and without it in the same run, its memory, its idle processor time.
//! Under emulation a time says nothing by itself; the ratio does.

use std::time::{Duration, Instant};

use super::agent::Agent;
use super::crowd;
use super::engine::{Engine, handler};
use super::pods::{ContainerSpec, Pod, PodSpec};
use crate::guest::Guest;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::starts::POLICY;
use crate::{Failure, Result};

/// What SPECIFICATION.md promises for a thousand containers.
pub(super) const RESIDENT_KIB: u64 = 30 << 10;
/// Of a processor while nothing happens: 0.2 natively, and under emulation an instruction costs twenty times as much.
pub(super) const IDLE_PERCENT: f64 = 0.2 * 20.0;
/// A start with us may take so much longer than one without; far above what is measured, and a hang is above it.
const MOST: f64 = 4.0;

/// Runs the tests.
pub(super) fn run(guest: &Guest, engine: &Engine, agent: &mut Agent, report: &mut Report) -> Result<()> {
    if guest.wants("cri/numbers/crowd") && !guest.without {
        crowd::run(guest, agent, report)?;
    }
    if let Some(runtime) = guest.runtimes.first()
        && guest.wants("cri/numbers/start")
    {
        report.run("cri/numbers/start", || starts(guest, engine, agent, *runtime, if guest.ci { 6 } else { 100 }));
    }
    Ok(())
}

fn starts(
    guest: &Guest,
    engine: &Engine,
    agent: &mut Agent,
    runtime: Runtime,
    count: u32,
) -> Result<std::result::Result<(), String>> {
    agent.put(guest, &[("starts", POLICY)])?;
    let pod = Pod::run(guest, engine, PodSpec::new("numbers", "starts", &handler(runtime, false)))?;
    // Whatever is slower the first time is so for neither.
    one(&pod, "warm")?;
    let mut times = [Vec::new(), Vec::new()];
    // Twice in turn, so that what else changes meanwhile is in both.
    for turn in 0..2 {
        for with in [false, true] {
            if with {
                agent.launch(guest)?;
            } else {
                agent.stop();
            }
            for round in 0..count.div_ceil(2) {
                times[usize::from(with)].push(one(&pod, &format!("c{turn}-{with}-{round}"))?);
            }
        }
    }
    let [without, with] = times.map(|mut times| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    let ratio = with.as_secs_f64() / without.as_secs_f64().max(f64::EPSILON);
    println!(
        "# {count} starts by {}: median {} ms without us, {} ms with us: {ratio:.2} times",
        runtime.name(),
        without.as_millis(),
        with.as_millis()
    );
    Ok(if ratio <= MOST { Ok(()) } else { Err(format!("a start takes {ratio:.1} times as long")) })
}

/// What the creation and the start of a container take.
fn one(pod: &Pod, name: &str) -> Result<Duration> {
    let begin = Instant::now();
    let container = pod.start(&ContainerSpec::new(name, &["/bin/sleep", "100000"]))?;
    let time = begin.elapsed();
    container.kill()?;
    Ok(time)
}

/// The share of a processor that a process takes, in per cent.
pub(super) fn idle_percent(pid: u32, span: Duration) -> Result<f64> {
    let before = ticks(pid)?;
    std::thread::sleep(span);
    let spent = ticks(pid)?.saturating_sub(before);
    // A tick is a hundredth of a second (USER_HZ).
    Ok(spent as f64 / span.as_secs_f64())
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).map_err(|source| Failure::io(path, source))
}

/// User and system time; `proc(5)`, fields 14 and 15, counted after the name, which may hold anything.
fn ticks(pid: u32) -> Result<u64> {
    let text = read(pid, "stat")?;
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// KiB.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let text = read(pid, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0))
}
