//! `portcullis load` and `portcullis unload`.

use std::path::Path;

use portcullis_ebpf::{Kernel, Options};
use portcullis_enforcer::{Config, Enforcer};

use crate::failure::Failure;
use crate::{Answer, output};

pub(crate) fn load(anew: bool) -> Result<Answer, Failure> {
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
    let enforcer = Enforcer::open(Config::read(config)?)?;
    let armed = enforcer.list()?;
    if !force && !armed.is_empty() {
        return Err(Failure::StillArmed { count: armed.len() });
    }
    Kernel::unload()?;
    enforcer.forget()?;
    output::line("nothing is in force any more")?;
    Ok(Answer::Yes)
}
