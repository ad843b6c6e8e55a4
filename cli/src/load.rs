//! `portcullis load` and `portcullis unload`.

use std::path::Path;

use portcullis_agent::control::{AgentStatus, Call};
use portcullis_ebpf::{Kernel, Options};
use portcullis_enforcer::{Config, Enforcer};
use portcullis_policy::Backend;

use crate::failure::Failure;
use crate::{Answer, agent, output};

pub(crate) fn load(config: Option<&Path>, anew: bool) -> Result<Answer, Failure> {
    let enforcer = Enforcer::open(Config::read(config)?)?;
    let chosen = enforcer.chosen();
    if chosen.backend == Backend::AppArmor {
        enforcer.load()?;
        output::line(&format!(
            "AppArmor enforces on this host ({}): its profiles are loaded with each container",
            chosen.reason
        ))?;
        return Ok(Answer::Yes);
    }
    let kernel = Kernel::load(Options { anew, ..Options::default() })?;
    for note in kernel.notes() {
        eprintln!("portcullis: {note}");
    }
    let programs = kernel.programs()?;
    let attached = programs.iter().filter(|program| program.attached).count();
    output::line(&format!("{attached} programs in force, {} KiB of kernel memory", kernel.memory()? / 1024))?;
    Ok(Answer::Yes)
}

pub(crate) fn unload(config: Option<&Path>, force: bool) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    // It would go on reading alerts from programs that are gone.
    if let Some(AgentStatus { pid, .. }) = agent::ask(&config, Call::Status)? {
        return Err(Failure::AgentRuns { pid });
    }
    let enforcer = Enforcer::open(config)?;
    let armed = enforcer.list()?;
    if !force && !armed.is_empty() {
        return Err(Failure::StillArmed { count: armed.len() });
    }
    Kernel::unload()?;
    enforcer.forget()?;
    output::line("nothing is in force any more")?;
    Ok(Answer::Yes)
}
