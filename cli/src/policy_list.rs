//! `portcullis policy list`: the policies in force, and how many containers each selects.

use std::path::Path;

use portcullis_agent::control::{Call, PolicyTable};
use portcullis_agent::policy_table;
use portcullis_enforcer::{Config, Enforcer};

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, agent, output};

pub(crate) fn list(config: Option<&Path>, format: Output) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    let table: PolicyTable = match agent::ask(&config, Call::Policies)? {
        Some(table) => table,
        // Without an agent, the policies in force for the next container are those that its hook will read.
        None => {
            let enforcer = Enforcer::open(config)?;
            policy_table(&*enforcer.policies()?, &enforcer.state().all_known()?, None)
        }
    };
    match format {
        Output::Json => output::json(&table)?,
        Output::Table => show(&table)?,
    }
    Ok(if table.problems.is_empty() { Answer::Yes } else { Answer::No })
}

fn show(table: &PolicyTable) -> Result<(), Failure> {
    if let Some(generation) = table.generation {
        output::line(&format!("generation {generation}, in force for running containers and new ones"))?;
    }
    for problem in &table.problems {
        output::line(&output::refused(&problem.message, &problem.kept))?;
    }
    if table.policies.is_empty() {
        return output::line("no policy");
    }
    let rows: Vec<Vec<String>> = table
        .policies
        .iter()
        .map(|policy| {
            let place = format!("{}:{}", policy.file.display(), policy.line);
            let note = if policy.kept { "an older version; see REFUSED" } else { "" };
            let numbers = [policy.rules, policy.unenforced, policy.containers].map(|number| number.to_string());
            [policy.id.clone()].into_iter().chain(numbers).chain([place, note.to_owned()]).collect()
        })
        .collect();
    output::table(&["POLICY", "RULES", "NOT ENFORCED", "CONTAINERS", "PLACE", ""], &rows)
}
