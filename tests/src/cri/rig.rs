//! What every other test of this suite stands on: pods start, say what they say, and outlive containerd.

use std::time::{Duration, Instant};

use super::api::RUNNING;
use super::engine::{Engine, handler};
use super::pods::{ContainerSpec, Pod, PodSpec};
use crate::Result;
use crate::guest::Guest;
use crate::report::Report;

/// Runs the tests.
pub(super) fn run(guest: &Guest, engine: &mut Engine, report: &mut Report) -> Result<()> {
    for (index, runtime) in guest.runtimes.iter().enumerate() {
        for gated in [false, true] {
            // With `--ci` each runtime in one way.
            if guest.ci && gated != (index == 0) {
                continue;
            }
            let handler = handler(*runtime, gated);
            let name = format!("cri/rig/{handler}");
            if guest.wants(&name) {
                report.run(&name, || life(guest, engine, &handler));
            }
        }
    }
    if let Some(runtime) = guest.runtimes.first()
        && guest.wants("cri/rig/restart")
    {
        report.run("cri/rig/restart", || restart(guest, engine, &handler(*runtime, false)));
    }
    Ok(())
}

fn life(guest: &Guest, engine: &Engine, handler: &str) -> Result<std::result::Result<(), String>> {
    let begin = Instant::now();
    let pod = Pod::run(guest, engine, PodSpec::new("rig", "rig", handler))?;
    let ready = begin.elapsed();
    let ended = pod.complete(&ContainerSpec::new("hello", &["/bin/echo", "hello"]))?;
    println!(
        "# {handler}: a pod in {} ms, a container's life in {} ms",
        ready.as_millis(),
        (begin.elapsed() - ready).as_millis()
    );
    if !ended.success() || ended.said != "hello" {
        return Ok(Err(ended.to_string()));
    }
    let stays = pod.start(&ContainerSpec::new("stays", &["/bin/sleep", "100000"]))?;
    let answer = stays.exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])?;
    if (answer.said.as_str(), answer.code) != ("out\nerr\n", 3) {
        return Ok(Err(format!("exec answered {answer}")));
    }
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", stays.pid()?)).unwrap_or_default();
    Ok(if comm.trim_end() == "sleep" { Ok(()) } else { Err(format!("the container's first process is {comm:?}")) })
}

fn restart(guest: &Guest, engine: &mut Engine, handler: &str) -> Result<std::result::Result<(), String>> {
    let pod = Pod::run(guest, engine, PodSpec::new("rig-restart", "rig", handler))?;
    let stays = pod.start(&ContainerSpec::new("stays", &["/bin/sleep", "100000"]))?;
    engine.stop();
    engine.start()?;
    let listed = engine.client().containers()?;
    if !listed.iter().any(|listed| listed.id == stays.id && listed.state == RUNNING) {
        return Ok(Err("the container did not outlive containerd".to_owned()));
    }
    let answer = stays.exec(&["/bin/true"])?;
    stays.stop(Duration::ZERO)?;
    Ok(if answer.success() { Ok(()) } else { Err(format!("exec answered {answer}")) })
}
