//! The runtime goes away and comes back under its containers.

use super::{Verdict, World};
use crate::Result;
use crate::cri::engine::Engine;
use crate::cri::pods::ContainerSpec;
use crate::cri::starts::denied;
use crate::guest;

/// With many containers: they stay protected, the agent comes back to the runtime, and new ones are protected.
pub(super) fn restarted(world: &mut World<'_>) -> Result<Verdict> {
    let count = if world.guest.ci { 10 } else { 50 };
    let mut containers = Vec::new();
    for number in 0..count {
        let stays = ContainerSpec::new(&format!("c{number}"), &["/bin/sleep", "100000"]);
        containers.push(world.starts.start(&stays.with(&world.out, "/out"))?);
    }
    world.engine.stop();
    world.engine.start()?;
    world.agent.ready(world.guest)?;
    for container in [containers.first(), containers.last()].into_iter().flatten() {
        if let Err(why) = denied(&container.exec(&["/attack", "--mark"])?, &world.out)? {
            return Ok(Err(why));
        }
    }
    for container in containers {
        container.kill()?;
    }
    world.recovered()
}

/// The runtime comes back with another socket of the same name, after a while without any.
pub(super) fn socket_recreated(world: &mut World<'_>) -> Result<Verdict> {
    world.engine.stop();
    guest::remove_tree(&Engine::nri_socket())?;
    // Long enough to fail several times.
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.engine.start()?;
    world.agent.ready(world.guest)?;
    world.recovered()
}
