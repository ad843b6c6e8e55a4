//! `portcullis who`: the policies and rules of an armed container.

use std::path::Path;

use portcullis_agent::alerts::line::meant;
use portcullis_agent::control::{Call, Trouble, Visibility, Who};
use portcullis_enforcer::{ArmedContainer, Config, Enforcer, Status};
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::report::summary;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, agent, output};

/// An armed container and its rules.
pub(crate) struct Known {
    pub(crate) container: ArmedContainer,
    pub(crate) set: RuleSet,
}

/// The armed container that is called so.
pub(crate) fn find(config: Config, name: &str) -> Result<Known, Failure> {
    let enforcer = Enforcer::open(config)?;
    let mut found = meant(enforcer.list()?, name, |container| (&container.record.id, &container.record.name));
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
    /// Why the agent could not bring it to the present policies.
    trouble: Option<&'a Trouble>,
    /// What is told of it.
    visibility: Option<&'a Visibility>,
}

#[derive(Serialize)]
struct Untouched<'a> {
    #[serde(flatten)]
    known: &'a portcullis_enforcer::Known,
    visibility: Option<&'a Visibility>,
}

#[derive(Serialize)]
struct ShownRule {
    policy: String,
    file: String,
    line: u32,
    says: String,
}

pub(crate) fn who(config: Option<&Path>, name: &str, format: Output) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    let known = match find(config.clone(), name) {
        Err(Failure::NoSuchContainer(_)) => return untouched(config, name, format),
        found => found?,
    };
    let id = known.container.record.id.clone();
    let (agents, _): (Option<Who>, _) = agent::ask_or_tell(&config, Call::Who { container: id });
    let (trouble, visibility) = agents.map(|who| (who.trouble, who.visibility)).unwrap_or_default();
    let (trouble, visibility) = (trouble.as_ref(), visibility.as_ref());
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
        Output::Json => output::json(&Shown { container: &known.container, rules, trouble, visibility })?,
        Output::Table => show(&known.container, &rules, trouble, visibility)?,
    }
    Ok(Answer::Yes)
}

/// A container that is known and for which no policy is.
fn untouched(config: Config, name: &str, format: Output) -> Result<Answer, Failure> {
    let mut found =
        meant(Enforcer::open(config.clone())?.state().all_known()?, name, |known| (&known.facts.id, &known.facts.name));
    if found.len() > 1 {
        return Err(Failure::Ambiguous { prefix: name.to_owned(), count: found.len() });
    }
    let known = found.pop().ok_or_else(|| Failure::NoSuchContainer(name.to_owned()))?;
    let (agents, _): (Option<Who>, _) = agent::ask_or_tell(&config, Call::Who { container: known.facts.id.clone() });
    let visibility = agents.and_then(|who| who.visibility);
    match format {
        Output::Json => output::json(&Untouched { known: &known, visibility: visibility.as_ref() })?,
        Output::Table => {
            let facts = &known.facts;
            output::line(&format!("{}  {}", output::printable(&facts.name), facts.id))?;
            output::line(&format!("  image     {}", output::printable(&facts.image)))?;
            output::line("  state     not armed: no policy is for it")?;
            visibility.iter().flat_map(visibility_lines).try_for_each(|line| output::line(&line))?;
            for (key, value) in &facts.labels {
                output::line(&format!("  label     {}", output::printable(&format!("{key}={value}"))))?;
            }
        }
    }
    Ok(Answer::Yes)
}

/// What is told of a container, as lines.
fn visibility_lines(visibility: &Visibility) -> Vec<String> {
    let Visibility { classes, by, untold } = visibility;
    let classes = if classes.is_empty() { "nothing but alerts".to_owned() } else { classes.join(", ") };
    let told = format!("  told      {}, by {by}", output::printable(&classes));
    std::iter::once(told).chain(untold.as_ref().map(|why| format!("  NOT TOLD: {}", output::printable(why)))).collect()
}

fn show(
    container: &ArmedContainer,
    rules: &[ShownRule],
    trouble: Option<&Trouble>,
    visibility: Option<&Visibility>,
) -> Result<(), Failure> {
    let record = &container.record;
    let state = match container.status {
        Status::Armed if record.audited => "armed, audited only: nothing is denied",
        Status::Armed => "armed",
        Status::Leaving => "stopped; its last tasks are still under its policy",
        Status::Lost if record.confinement.is_some() => "NOT in force: no task of it has its AppArmor profile",
        Status::Lost => "NOT in force: the kernel programs were unloaded",
    };
    output::line(&format!("{}  {}", output::printable(&record.name), record.id))?;
    output::line(&format!("  image     {}", output::printable(&record.image)))?;
    output::line(&format!("  state     {state}"))?;
    if let Some(trouble) = trouble {
        output::line(&format!("  NOT UP TO DATE: {}", output::printable(&trouble.error)))?;
    }
    output::line(&match &record.confinement {
        Some(confinement) => format!("  by        AppArmor, profile {}", confinement.profile),
        None => "  by        BPF LSM".to_owned(),
    })?;
    if let Some(shortfall) = record.confinement.as_ref().and_then(|confinement| confinement.carrier.shortfall()) {
        output::line(&format!("  PARTIAL   {shortfall}"))?;
    }
    output::line(&format!("  tasks     {}", container.tasks))?;
    visibility.into_iter().flat_map(visibility_lines).try_for_each(|line| output::line(&line))?;
    let policies = if record.policies.is_empty() { "none any more".to_owned() } else { record.policies.join(", ") };
    output::line(&format!("  policies  {} (generation {})", output::printable(&policies), record.generation))?;
    if record.unenforced > 0 {
        output::line(&format!("  {} things that they say are not enforced: portcullis policy check", record.unenforced))?;
    }
    for rule in rules {
        output::line(&format!("  {}:{}  {}", rule.file, rule.line, output::printable(&rule.says)))?;
    }
    Ok(())
}
