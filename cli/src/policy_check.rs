//! `portcullis policy check`: everything that is wrong, and what becomes of each rule.

use std::path::{Path, PathBuf};

use portcullis_enforcer::{Chosen, Config, Reason, apparmor};
use portcullis_policy::{Backend, Diagnostic, Options, Policy, RuleReport, Support, report};
use serde::Serialize;

use crate::args::{BackendChoice, Output};
use crate::failure::Failure;
use crate::{Answer, output, policy_files};

#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    backend: Backend,
    policies: Vec<CheckedPolicy>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct CheckedPolicy {
    policy: String,
    rules: Vec<RuleReport>,
}

#[derive(Default)]
struct Totals {
    accepted: usize,
    refused: usize,
    full: usize,
    partial: usize,
    none: usize,
}

pub(crate) fn check(
    config: Option<&Path>,
    paths: &[PathBuf],
    lenient: bool,
    choice: BackendChoice,
    format: Output,
) -> Result<Answer, Failure> {
    let backend = backend(config, choice)?;
    let mut totals = Totals::default();
    for path in policy_files::policies(paths)? {
        let file = policy_files::read(&path, Options { lenient })?;
        let policies: Vec<CheckedPolicy> =
            file.parsed.policies().map(|policy| CheckedPolicy { policy: policy.id(), rules: rules(policy, backend) }).collect();
        totals.accepted += policies.len();
        totals.refused += file.parsed.documents.iter().filter(|document| document.is_err()).count();
        for rule in policies.iter().flat_map(|policy| &policy.rules) {
            match rule.support {
                Support::Full => totals.full += 1,
                Support::Partial(_) => totals.partial += 1,
                Support::None(_) => totals.none += 1,
            }
        }
        match format {
            Output::Json => {
                let errors = file.parsed.errors().cloned().collect();
                output::json(&Checked { file: path, backend, policies, errors, warnings: file.parsed.warnings })?;
            }
            Output::Table => {
                for error in file.parsed.errors() {
                    eprint!("error: {}", error.render(&file.text));
                }
                for warning in &file.parsed.warnings {
                    eprint!("warning: {}", warning.render(&file.text));
                }
                policies.iter().try_for_each(show)?;
            }
        }
    }
    if format == Output::Table {
        output::line(&format!(
            "{} accepted, {} refused; rules under {}: {} full, {} partial, {} not enforced",
            totals.accepted,
            totals.refused,
            backend.name(),
            totals.full,
            totals.partial,
            totals.none
        ))?;
    }
    Ok(if totals.refused == 0 { Answer::Yes } else { Answer::No })
}

/// The backend that was chosen.
fn backend(config: Option<&Path>, choice: BackendChoice) -> Result<Backend, Failure> {
    match choice {
        BackendChoice::Bpf => Ok(Backend::Bpf),
        BackendChoice::Apparmor => Ok(Backend::AppArmor),
        BackendChoice::Auto => match Chosen::of_host(Config::read(config)?.backend) {
            Chosen { reason: Reason::Nothing, .. } => Err(Failure::NoBackend),
            chosen => Ok(chosen.backend),
        },
    }
}

fn rules(policy: &Policy, backend: Backend) -> Vec<RuleReport> {
    match backend {
        Backend::Bpf => report(policy, backend),
        Backend::AppArmor => apparmor::report(policy),
    }
}

fn show(policy: &CheckedPolicy) -> Result<(), Failure> {
    output::line(&policy.policy)?;
    for rule in &policy.rules {
        let (level, reasons) = match &rule.support {
            Support::Full => ("full   ", Vec::new()),
            Support::Partial(reasons) => ("partial", reasons.clone()),
            Support::None(reason) => ("none   ", vec![reason.clone()]),
        };
        let origin = &rule.origin;
        output::line(&format!("  {level} {}:{}: {}", origin.file.display(), origin.line, output::printable(&rule.summary)))?;
        for reason in reasons {
            output::line(&format!("          {}", output::printable(&reason)))?;
        }
    }
    Ok(())
}
