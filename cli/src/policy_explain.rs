//! `portcullis policy explain`: what happens to an operation, and which line of which file decides it.
//!
//! Asked of the reference model, not of the kernel: the two agree (tests/conformance), and the model can say why.

use std::path::Path;
use std::sync::Arc;

use portcullis_enforcer::Config;
use portcullis_policy::capability::Capability;
use portcullis_policy::decide::{Cause, Decision, Operation, Subject, Verdict, decide, unmatched_verdict};
use portcullis_policy::meaning::{Object, Rule, RuleSet};
use portcullis_policy::network::{Protocol, Socket, SocketKind};
use portcullis_policy::report::summary;
use portcullis_policy::select::CONTAINER_NAMESPACE;
use portcullis_policy::{ContainerFacts, Mode, Options, Policy, Selection, select};
use serde::Serialize;

use crate::args::{Explain, OperationName, Output};
use crate::failure::Failure;
use crate::{Answer, output, policy_files, who};

#[derive(Serialize)]
struct Explanation {
    verdict: &'static str,
    why: String,
    rule: Option<DecidingRule>,
    /// Policies that apply.
    policies: Vec<String>,
}

#[derive(Serialize)]
struct DecidingRule {
    policy: String,
    file: String,
    line: u32,
    field: String,
    says: String,
}

pub(crate) fn explain(config: Option<&Path>, asked: &Explain) -> Result<Answer, Failure> {
    let (set, policies, audited) = rules(config, asked)?;
    let subject = Subject { exe: asked.from.as_deref().map(str::as_bytes), owner: asked.owner };
    let operation = operation(asked)?;
    let decision = decide(&set, &subject, &operation);
    let explanation = tell(&set, &operation, decision, policies, audited);
    match asked.format.output {
        Output::Json => output::json(&explanation)?,
        Output::Table => {
            output::line(&format!("{}: {}", explanation.verdict, explanation.why))?;
            if let Some(rule) = &explanation.rule {
                output::line(&format!("  {}:{}  {}", rule.file, rule.line, rule.field))?;
                output::line(&format!("  {}: {}", rule.policy, output::printable(&rule.says)))?;
            }
        }
    }
    Ok(Answer::Yes)
}

/// The rules in question, the policies they come from, and whether the container is only audited.
fn rules(config: Option<&Path>, asked: &Explain) -> Result<(RuleSet, Vec<String>, bool), Failure> {
    let config = Config::read(config)?;
    if let Some(name) = &asked.container {
        let known = who::find(config, name)?;
        return Ok((known.set, known.container.record.policies, known.container.record.audited));
    }
    let paths = if asked.policies.is_empty() { vec![config.policy_dir.clone()] } else { asked.policies.clone() };
    let mut policies: Vec<Policy> = Vec::new();
    for path in policy_files::policies(&paths)? {
        let file = policy_files::read(&path, Options::default())?;
        let errors = file.parsed.errors().count();
        if errors > 0 {
            return Err(Failure::Refused { path, errors });
        }
        policies.extend(file.parsed.policies().cloned());
    }
    let facts = ContainerFacts {
        name: asked.name.clone(),
        image: asked.image.clone(),
        labels: asked.labels.iter().cloned().collect(),
        annotations: asked.annotations.iter().cloned().collect(),
        namespace: CONTAINER_NAMESPACE.to_owned(),
        ..ContainerFacts::default()
    };
    let Selection { set, policies, mode, .. } = select(&policies, &facts, config.postures);
    let set = if mode == Mode::Disabled { RuleSet::default() } else { set };
    Ok((set, policies, mode == Mode::Audited))
}

fn operation(asked: &Explain) -> Result<Operation<'_>, Failure> {
    let path = || match asked.object.starts_with('/') {
        true => Ok(asked.object.as_bytes()),
        false => Err(Failure::NotUnderstood { text: asked.object.clone(), wanted: "an absolute path" }),
    };
    Ok(match asked.operation {
        OperationName::Read => Operation::Read { path: path()? },
        OperationName::Change => Operation::Change { path: path()? },
        OperationName::Exec => Operation::Exec { path: Some(path()?), unlinked: false },
        OperationName::Socket => Operation::Socket(socket(&asked.object)?),
        OperationName::Capability => Operation::Capability(capability(&asked.object)?),
        OperationName::Syscall => syscall(&asked.object)?,
    })
}

fn capability(text: &str) -> Result<Capability, Failure> {
    text.parse().map_err(|_| Failure::NotUnderstood { text: text.to_owned(), wanted: "a capability, like net_raw" })
}

/// A call itself, or what it does to a path.
fn syscall(text: &str) -> Result<Operation<'_>, Failure> {
    let (name, path) = text.split_once(',').map_or((text, None), |(name, path)| (name, Some(path.as_bytes())));
    let wanted = "a system call, like unlink, nor one with an absolute path, like unlink,/etc/passwd";
    let not_understood = || Failure::NotUnderstood { text: text.to_owned(), wanted };
    let call = name.parse().map_err(|_| not_understood())?;
    match path {
        Some(path) if !path.starts_with(b"/") => Err(not_understood()),
        _ => Ok(Operation::Syscall { call, path }),
    }
}

/// A protocol's name stands for the plainest socket of it.
fn socket(text: &str) -> Result<Socket, Failure> {
    let numbers: Vec<u16> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if let [family, kind, protocol] = numbers[..] {
        return Ok(Socket { family, kind, protocol });
    }
    let wanted = "a protocol, like tcp, nor FAMILY,TYPE,PROTOCOL numbers";
    let protocol: Protocol = text.parse().map_err(|_| Failure::NotUnderstood { text: text.to_owned(), wanted })?;
    SocketKind::ALL
        .iter()
        .map(|kind| kind.example())
        .find(|&socket| protocol.covers(socket))
        .ok_or_else(|| Failure::NotUnderstood { text: text.to_owned(), wanted })
}

fn tell(set: &RuleSet, operation: &Operation<'_>, decision: Decision, policies: Vec<String>, audited: bool) -> Explanation {
    let verdict = match decision.verdict {
        Verdict::Allow => "allow",
        Verdict::Audit => "audit",
        Verdict::Block if audited => "audit",
        Verdict::Block => "block",
    };
    let rule = match decision.cause {
        Cause::Rule(index) => set.rules.get(index),
        Cause::Posture | Cause::Unmatched => None,
    };
    let mut why = match decision.cause {
        Cause::Rule(_) => "the most specific rule that covers it".to_owned(),
        Cause::Posture => format!(
            "no rule covers it, the class is an allow-list, and its default posture is {}",
            if unmatched_verdict(set, operation.class()) == Verdict::Block { "block" } else { "audit" }
        ),
        Cause::Unmatched if policies.is_empty() => "no policy applies".to_owned(),
        Cause::Unmatched => "no rule covers it, and its class is no allow-list".to_owned(),
    };
    if audited && decision.verdict == Verdict::Block {
        why.push_str("; it would be denied, but the container is only audited (annotation kubearmor-policy)");
    }
    Explanation { verdict, why, rule: rule.map(deciding), policies }
}

fn is_path(object: &Object) -> bool {
    matches!(object, Object::Path(_) | Object::Directory { .. })
}

fn deciding(rule: &Arc<Rule>) -> DecidingRule {
    let origin = &rule.origin;
    let mut says = summary(rule);
    if rule.objects.len() > 1 && rule.objects.iter().any(is_path) {
        says.push_str(" (with where it leads through symlinks)");
    }
    DecidingRule {
        policy: origin.policy.to_string(),
        file: origin.file.display().to_string(),
        line: origin.line,
        field: origin.field.clone(),
        says,
    }
}
