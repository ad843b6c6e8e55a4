//! `portcullis who`: the policies and rules of an armed container.

use std::path::Path;

use portcullis_enforcer::{ArmedContainer, Config, Enforcer, Status};
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::report::summary;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, output};

/// An armed container and its rules.
pub(crate) struct Known {
    pub(crate) container: ArmedContainer,
    pub(crate) set: RuleSet,
}

/// Fewest characters of an id that stand for it.
const MIN_PREFIX: usize = 3;

/// Whether `name` means the container: by its name, its id, or the beginning of its id.
pub(crate) fn means(name: &str, id: &str, container_name: &str) -> bool {
    container_name == name || id == name || (name.len() >= MIN_PREFIX && id.starts_with(name))
}

/// The armed container that is called so.
pub(crate) fn find(config: Config, name: &str) -> Result<Known, Failure> {
    let enforcer = Enforcer::open(config)?;
    let mut found: Vec<ArmedContainer> = enforcer.list()?;
    found.retain(|container| means(name, &container.record.id, &container.record.name));
    if found.len() > 1 {
        return Err(Failure::Ambiguous { prefix: name.to_owned(), count: found.len() });
    }
    let container = found.pop().ok_or_else(|| Failure::NoSuchContainer(name.to_owned()))?;
    let set = enforcer.state().rules_of(&container.record)?.unwrap_or_default();
    Ok(Known { container, set })
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    container: &'a ArmedContainer,
    rules: Vec<ShownRule>,
}

#[derive(Serialize)]
struct ShownRule {
    policy: String,
    file: String,
    line: u32,
    says: String,
}

pub(crate) fn who(config: Option<&Path>, name: &str, format: Output) -> Result<Answer, Failure> {
    let known = find(Config::read(config)?, name)?;
    let rules: Vec<ShownRule> = known
        .set
        .rules
        .iter()
        .map(|rule| ShownRule {
            policy: rule.origin.policy.to_string(),
            file: rule.origin.file.display().to_string(),
            line: rule.origin.line,
            says: summary(rule),
        })
        .collect();
    match format {
        Output::Json => output::json(&Shown { container: &known.container, rules })?,
        Output::Table => show(&known.container, &rules)?,
    }
    Ok(Answer::Yes)
}

fn show(container: &ArmedContainer, rules: &[ShownRule]) -> Result<(), Failure> {
    let record = &container.record;
    let state = match container.status {
        Status::Armed if record.audited => "armed, audited only: nothing is denied",
        Status::Armed => "armed",
        Status::Leaving => "stopped; its last tasks are still under its policy",
        Status::Lost => "NOT in force: the kernel programs were unloaded",
    };
    output::line(&format!("{}  {}", output::printable(&record.name), record.id))?;
    output::line(&format!("  image     {}", output::printable(&record.image)))?;
    output::line(&format!("  state     {state}"))?;
    output::line(&format!("  tasks     {}", container.tasks))?;
    output::line(&format!("  policies  {}", output::printable(&record.policies.join(", "))))?;
    if record.unenforced > 0 {
        output::line(&format!("  {} things that they say are not enforced: portcullis policy check", record.unenforced))?;
    }
    for rule in rules {
        output::line(&format!("  {}:{}  {}", rule.file, rule.line, output::printable(&rule.says)))?;
    }
    Ok(())
}
