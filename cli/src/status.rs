//! `portcullis status`: what is loaded, which containers are armed, what was denied and lost.

use std::path::Path;

use portcullis_agent::control::{AgentStatus, Call};
use portcullis_ebpf::Kernel;
use portcullis_enforcer::{ArmedContainer, Config, Enforcer, Problem, Status, Unprotected};
use portcullis_policy::Backend;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, agent, agent_status, output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    backend: Backend,
    /// Why it is that one.
    backend_reason: String,
    /// Why it cannot enforce.
    backend_trouble: Option<String>,
    loaded: bool,
    /// Nothing if there is none, or it does not answer.
    agent: Option<AgentStatus>,
    kernel: Option<InKernel>,
    policies: usize,
    problems: Vec<RefusedFile>,
    containers: Vec<ArmedContainer>,
    unprotected: Vec<Unprotected>,
    /// Records that cannot be read: changed policies do not reach their containers.
    damaged_records: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InKernel {
    programs: usize,
    instructions: u64,
    verified_instructions: u64,
    memory_bytes: u64,
    alerts: u64,
    alerts_lost: u64,
    /// Audited system calls that were counted and raised no alert.
    alerts_repeated: u64,
    blocked: u64,
    audited: u64,
    unresolved_paths: u64,
    denied_for_want_of_memory: u64,
    walks_repeated: u64,
}

#[derive(Serialize)]
struct RefusedFile {
    file: String,
    message: String,
    /// Versions of its policies that were accepted before and are still in force.
    kept: Vec<String>,
}

pub(crate) fn status(config: Option<&Path>, format: Output) -> Result<Answer, Failure> {
    let enforcer = Enforcer::open(Config::read(config)?)?;
    let (agent, agent_is_silent) = agent::ask_or_tell(enforcer.config(), Call::Status);
    let kernel = in_kernel()?;
    let policies = enforcer.policies()?;
    let chosen = enforcer.chosen();
    // That there are no programs yet is no trouble: the first container loads them.
    let trouble = if chosen.backend == Backend::AppArmor { enforcer.load().err() } else { None };
    let report = Report {
        backend: chosen.backend,
        backend_reason: chosen.reason.to_string(),
        backend_trouble: trouble.map(|error| error.to_string()),
        loaded: kernel.is_some(),
        agent,
        kernel,
        policies: policies.policies.len(),
        problems: policies.problems.iter().map(refused).collect(),
        containers: enforcer.list()?,
        unprotected: enforcer.state().unprotected()?,
        damaged_records: enforcer.state().damaged()?.iter().map(ToString::to_string).collect(),
    };
    match format {
        Output::Json => output::json(&report)?,
        Output::Table => show(&report)?,
    }
    let well = (report.loaded || report.backend == Backend::AppArmor)
        && report.backend_trouble.is_none()
        && report.problems.is_empty()
        && report.unprotected.is_empty()
        && report.damaged_records.is_empty()
        && !agent_is_silent
        && report.agent.as_ref().is_none_or(agent_status::is_well)
        && report.containers.iter().all(|container| container.status != Status::Lost);
    Ok(if well { Answer::Yes } else { Answer::No })
}

fn refused(problem: &Problem) -> RefusedFile {
    RefusedFile { file: problem.file.display().to_string(), message: problem.message.clone(), kept: problem.kept.clone() }
}

fn in_kernel() -> Result<Option<InKernel>, Failure> {
    let kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(portcullis_ebpf::Error::NotLoaded) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let programs = kernel.programs()?;
    let counts = kernel.counts()?;
    Ok(Some(InKernel {
        programs: programs.iter().filter(|program| program.attached).count(),
        instructions: programs.iter().map(|program| u64::from(program.xlated_insns)).sum(),
        verified_instructions: programs.iter().map(|program| u64::from(program.verified_insns)).sum(),
        memory_bytes: kernel.memory()?,
        alerts: counts.seq,
        alerts_lost: counts.lost,
        alerts_repeated: counts.repeated,
        blocked: counts.blocked,
        audited: counts.audited,
        unresolved_paths: counts.unresolved,
        denied_for_want_of_memory: counts.busy,
        walks_repeated: counts.torn,
    }))
}

fn show(report: &Report) -> Result<(), Failure> {
    let name = if report.backend == Backend::AppArmor { "AppArmor" } else { "BPF LSM" };
    output::line(&format!("{name} enforces on this host: {}", report.backend_reason))?;
    if let Some(trouble) = &report.backend_trouble {
        output::line(&format!("NOT READY: {}", output::printable(trouble)))?;
    }
    match &report.kernel {
        None if report.backend == Backend::AppArmor => {}
        None => output::line("not loaded: nothing is enforced until `portcullis load` or the first container with a policy")?,
        Some(kernel) => {
            output::line(&format!(
                "loaded: {} programs, {} instructions, {} KiB of kernel memory",
                kernel.programs,
                kernel.instructions,
                kernel.memory_bytes / 1024
            ))?;
            output::line(&format!(
                "denied {}, audited {}, alerts {} of which {} lost, {} repeated and only counted",
                kernel.blocked, kernel.audited, kernel.alerts, kernel.alerts_lost, kernel.alerts_repeated
            ))?;
        }
    }
    output::line(&format!("{} {}", report.policies, if report.policies == 1 { "policy" } else { "policies" }))?;
    for problem in &report.problems {
        output::line(&output::refused(&problem.message, &problem.kept))?;
    }
    if let Some(agent) = &report.agent {
        agent_status::show(agent)?;
    }
    for container in &report.unprotected {
        let (name, reason) = (output::printable(&container.name), output::printable(&container.reason));
        output::line(&format!("UNPROTECTED {name} {}: {reason}", container.id))?;
    }
    for record in &report.damaged_records {
        output::line(&format!("DAMAGED RECORD, changed policies do not reach its container: {}", output::printable(record)))?;
    }
    for container in &report.containers {
        if let Some(shortfall) = shortfall(container) {
            output::line(&format!("PARTIAL {} {}: {shortfall}", output::printable(&container.record.name), container.record.id))?;
        }
    }
    if report.containers.is_empty() {
        return output::line("no container is armed");
    }
    let rows: Vec<Vec<String>> = report
        .containers
        .iter()
        .map(|container| {
            let record = &container.record;
            let status = match container.status {
                Status::Armed if record.audited => "audited",
                Status::Armed if shortfall(container).is_some() => "partial",
                Status::Armed => "armed",
                Status::Leaving => "leaving",
                Status::Lost => "LOST",
            };
            let id = record.id.get(..12).unwrap_or(&record.id).to_owned();
            let policies = record.policies.join(", ");
            vec![id, record.name.clone(), status.to_owned(), container.tasks.to_string(), policies]
        })
        .collect();
    output::table(&["CONTAINER", "NAME", "STATE", "TASKS", "POLICIES"], &rows)
}

/// What is not confined in a container that AppArmor confines.
fn shortfall(container: &ArmedContainer) -> Option<&'static str> {
    container.record.confinement.as_ref()?.carrier.shortfall()
}
