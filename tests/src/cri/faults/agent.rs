//! The agent dies, stands still, is there twice, or comes late.

use std::time::Duration;

use super::{Verdict, World};
use crate::Result;
use crate::cri::agent::{knows, second};
use crate::cri::engine::handler;
use crate::cri::live::switch;
use crate::cri::observer::{FILES, Seen};
use crate::cri::pods::{Container, ContainerSpec, Pod, PodSpec};
use crate::cri::until;

/// From a policy's change to its effect.
pub(super) const EFFECT_LIMIT: Duration = Duration::from_secs(60);
/// What a container that does not listen to SIGTERM is given.
const GRACE: Duration = Duration::from_secs(3);

pub(super) fn killed_before_create(world: &mut World<'_>) -> Result<Verdict> {
    world.agent.kill();
    let ended = world.starts.complete(&world.attack("attack"))?;
    if let Err(why) = world.held(&ended)? {
        return Ok(Err(why));
    }
    world.agent.launch(world.guest)?;
    world.recovered()
}

pub(super) fn killed_before_start(world: &mut World<'_>) -> Result<Verdict> {
    let container = world.starts.create(&world.attack("attack"))?;
    world.agent.kill();
    let ended = container.complete()?;
    container.kill()?;
    if let Err(why) = world.held(&ended)? {
        return Ok(Err(why));
    }
    world.agent.launch(world.guest)?;
    world.recovered()
}

/// What is armed stays armed without the agent, and the next one takes it over.
pub(super) fn killed_while_running(world: &mut World<'_>) -> Result<Verdict> {
    let observer = world.observer("observer")?;
    world.agent.kill();
    let orphan = observer.container.exec(&["/bin/cat", FILES[0]])?;
    world.agent.launch(world.guest)?;
    let begin = switch(world.guest, 1)?;
    until("the new version in a container of an earlier agent", EFFECT_LIMIT, || Ok(Seen::first(&observer.seen(), 1, begin)))?;
    if orphan.success() {
        return Ok(Err("without an agent an exec could read what is denied".to_owned()));
    }
    Ok(observer.end()?.expect([0, 1]))
}

/// A container in its grace period, that does not obey, tries on; it is armed to its end, and is then forgotten.
pub(super) fn killed_while_stopping(world: &mut World<'_>) -> Result<Verdict> {
    let script = format!("trap '' TERM; echo begun; while :; do /bin/cat {} && echo read >/out/read; done", FILES[0]);
    let container = world.live.start(&ContainerSpec::new("stubborn", &["/bin/sh", "-c", &script]).with(&world.out, "/out"))?;
    until("the container's first word", EFFECT_LIMIT, || Ok((!container.said().is_empty()).then_some(())))?;
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| container.stop(GRACE));
        world.agent.kill();
        stop.join().unwrap_or(Ok(()))
    })?;
    world.agent.launch(world.guest)?;
    container.kill()?;
    if world.out.join("read").exists() {
        return Ok(Err("in its grace period the container could read what is denied".to_owned()));
    }
    forgotten(&container)?;
    world.recovered()
}

/// Waits until the agent has forgotten a container that has ended.
pub(super) fn forgotten(container: &Container) -> Result<()> {
    until("the end of what is in force for a container that has ended", EFFECT_LIMIT, || {
        Ok((!knows(&container.id)?).then_some(()))
    })
}

/// The runtime gives its plugins two seconds, and then goes on without them.
pub(super) fn frozen(world: &mut World<'_>) -> Result<Verdict> {
    world.agent.freeze();
    let ended = world.starts.complete(&world.attack("attack"));
    world.agent.thaw();
    if let Err(why) = world.held(&ended?)? {
        return Ok(Err(why));
    }
    // It takes a moment until it sees that the runtime has given it up, and until then says that it is connected.
    until("the loss of the connection", EFFECT_LIMIT, || {
        Ok(world.agent.last_lines().iter().any(|line| line.contains("the runtime closed the connection")).then_some(()))
    })?;
    world.agent.ready(world.guest)?;
    world.recovered()
}

pub(super) fn two(world: &mut World<'_>) -> Result<Verdict> {
    let outcome = second(world.guest)?;
    if outcome.success() || outcome.code.is_none() || outcome.stderr.trim().is_empty() {
        return Ok(Err(format!("the second one: {}", outcome.complaint())));
    }
    world.agent.ready(world.guest)?;
    world.recovered()
}

/// A process that already runs meets the policies from the moment in which the agent learns of its container.
pub(super) fn after_containers(world: &mut World<'_>) -> Result<Verdict> {
    world.agent.kill();
    // The gate would refuse it: this pod is one of the runtime's usual ones.
    let pod = Pod::run(world.guest, world.engine, PodSpec::new("after-containers", "live", &handler(world.runtime, false)))?;
    // The shell itself opens the file; nothing is executed.
    let script = format!("while read line <{}; do echo free; done; echo denied; exec /bin/sleep 100000", FILES[0]);
    let container = pod.start(&ContainerSpec::new("early", &["/bin/sh", "-c", &script]))?;
    until("the container's reading", EFFECT_LIMIT, || Ok(container.said().contains("free").then_some(())))?;
    world.agent.launch(world.guest)?;
    until("a denial for a process that ran before the agent", EFFECT_LIMIT, || {
        Ok(container.said().contains("denied").then_some(()))
    })?;
    if container.exec(&["/bin/cat", FILES[0]])?.success() {
        return Ok(Err("an exec could read what is denied".to_owned()));
    }
    world.recovered()
}
