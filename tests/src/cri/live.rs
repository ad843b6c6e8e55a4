//! A changed policy reaches the containers that run: all of them, soon, and each from one moment to the next.
//!
//! Two versions of one policy deny one file each and leave the other alone. Observers in the containers say which version each
//! of their opens met. A switch that is not atomic makes one of them see a version come, go and come again.

use std::path::PathBuf;
use std::time::Duration;

use super::agent::Agent;
use super::engine::{Engine, handler};
use super::observer::{FILES, Observer, Seen, monotonic};
use super::pods::{Pod, PodSpec};
use super::until;
use crate::Result;
use crate::guest::{self, Guest};
use crate::report::Report;

/// Containers that share a pod: each pod costs a process of the runtime's own and a container that waits.
const IN_A_POD: u32 = 10;
/// What a switch may take before the test gives up; what it should take is `PROMISE`.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
/// From the renaming of the file to the first observation of the new version, for 99 of 100.
const PROMISE: Duration = Duration::from_secs(1);
/// What an emulated processor that is shared with others may make of it. Within that, a change that is not noticed at all is.
const EMULATED: u32 = 10;
/// All observers together open so many times four files a second: they watch the processor's idle time, not use it up.
const FLEET_ROUNDS_A_SECOND: u32 = 200;

/// The policy in one of its versions.
pub(super) fn version(number: u8) -> String {
    let file = FILES[usize::from(number)];
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: live\n  namespace: default\nspec:\n  \
         selector:\n    matchLabels:\n      app: live\n  file:\n    matchPaths:\n      - path: {file}\n  action: Block\n"
    )
}

/// Puts a version of the policy in the place of another, as `mv` does; tells when.
pub(super) fn switch(guest: &Guest, number: u8) -> Result<Duration> {
    let new = guest.policies.join(".live.new");
    guest::write(&new, version(number).as_bytes())?;
    let begin = monotonic();
    let file = guest.policies.join("live.yaml");
    std::fs::rename(&new, &file).map_err(|source| crate::Failure::io(file.display(), source))?;
    Ok(begin)
}

/// A directory for what observers write, empty.
pub(super) fn empty_out(guest: &Guest) -> Result<PathBuf> {
    let out = guest.work.join("cri/out");
    guest::remove_tree(&out)?;
    guest::make_open_directory(&out)?;
    Ok(out)
}

/// Runs the tests.
pub(super) fn run(guest: &Guest, engine: &Engine, agent: &Agent, report: &mut Report) -> Result<()> {
    if guest.wants("cri/live/atomic") {
        report.run("cri/live/atomic", || atomic(guest, engine, agent, if guest.ci { 20 } else { 200 }));
    }
    if guest.wants("cri/live/fleet") {
        report.run("cri/live/fleet", || fleet(guest, engine, agent, if guest.ci { 20 } else { 100 }, 5));
    }
    Ok(())
}

/// One container of each runtime, observed without a pause through many switches.
fn atomic(guest: &Guest, engine: &Engine, agent: &Agent, switches: u32) -> Result<std::result::Result<(), String>> {
    agent.put(guest, &[("live", &version(0))])?;
    let out = empty_out(guest)?;
    // What is dropped first takes the other with it: removing a pod costs less than each of its containers.
    let mut observers = Vec::new();
    let mut pods = Vec::new();
    for runtime in &guest.runtimes {
        let pod =
            Pod::run(guest, engine, PodSpec::new(&format!("atomic-{}", runtime.name()), "live", &handler(*runtime, false)))?;
        observers.push(Observer::start(&pod, runtime.name(), &out, Duration::ZERO)?);
        pods.push(pod);
    }
    follow(guest, &observers, switches)?;
    let mut opens = 0;
    for observer in &observers {
        let seen = observer.end()?;
        opens += seen.opens.unwrap_or(0);
        if let Err(why) = seen.expect(versions(switches)) {
            return Ok(Err(why));
        }
    }
    println!("# {switches} switches under {opens} observations in {} containers", observers.len());
    Ok(Ok(()))
}

/// Many containers, of which each tells when it first met the new version.
fn fleet(guest: &Guest, engine: &Engine, agent: &Agent, count: u32, switches: u32) -> Result<std::result::Result<(), String>> {
    agent.put(guest, &[("live", &version(0))])?;
    let out = empty_out(guest)?;
    let pause = Duration::from_secs(1) * count / FLEET_ROUNDS_A_SECOND;
    let mut observers = Vec::new();
    let mut pods: Vec<Pod> = Vec::new();
    for number in 0..count {
        if number % IN_A_POD == 0 {
            let runtime = guest.runtimes[pods.len() % guest.runtimes.len()];
            pods.push(Pod::run(guest, engine, PodSpec::new(&format!("fleet-{number}"), "live", &handler(runtime, false)))?);
        }
        if let Some(pod) = pods.last() {
            observers.push(Observer::start(pod, &format!("c{number}"), &out, pause)?);
        }
    }
    let mut late = follow(guest, &observers, switches)?;
    late.sort();
    let at = |share: usize| late.get((late.len() * share).div_ceil(100).max(1) - 1).copied().unwrap_or_default();
    println!(
        "# {count} containers, {switches} switches: p50 {} ms, p99 {} ms, most {} ms",
        at(50).as_millis(),
        at(99).as_millis(),
        at(100).as_millis()
    );
    for observer in &observers {
        if let Err(why) = observer.end()?.expect(versions(switches)) {
            return Ok(Err(why));
        }
    }
    Ok(if at(99) <= PROMISE * EMULATED {
        Ok(())
    } else {
        Err(format!("the new version was met after {} ms", at(99).as_millis()))
    })
}

/// 0, 1, 0 and so on.
fn versions(switches: u32) -> impl Iterator<Item = u8> {
    [0, 1].into_iter().cycle().take(switches as usize + 1)
}

/// Switches so often, each time when every observer has met the version before; how long each took to meet each.
fn follow(guest: &Guest, observers: &[Observer], switches: u32) -> Result<Vec<Duration>> {
    let mut late = Vec::new();
    for version in versions(switches).skip(1) {
        let begin = switch(guest, version)?;
        let met = until("every container's meeting the new version", SWITCH_LIMIT, || {
            let seen = observers.iter().map(|observer| Seen::first(&observer.seen(), version, begin));
            Ok(seen.collect::<Option<Vec<Duration>>>())
        })?;
        let met = met.into_iter().map(|time| time.saturating_sub(begin));
        println!("# a switch was met within {} ms", met.clone().max().unwrap_or_default().as_millis());
        late.extend(met);
    }
    Ok(late)
}
