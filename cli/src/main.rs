//! `portcullis`: the one binary that people type. It shows and asks; what is enforced, other crates decide.

mod agent;
mod agent_status;
mod args;
mod doctor;
mod events;
mod failure;
mod load;
mod oci_spec;
mod output;
mod policy_check;
mod policy_explain;
mod policy_files;
mod policy_list;
mod policy_test;
mod status;
mod top;
mod tree;
mod who;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Policy};
use crate::failure::Failure;

/// What a command found: its exit code, unless it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

fn main() -> ExitCode {
    let done = if agent::is_started_by_runtime() { agent::agent(None, true) } else { run(Cli::parse()) };
    match done {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever reads has seen enough: `portcullis events | head`.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("portcullis: {failure}");
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<Answer, Failure> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Agent => agent::agent(config, false),
        Command::Load { anew } => load::load(config, anew),
        Command::Unload { force } => load::unload(config, force),
        Command::Status { format } => status::status(config, format.output),
        Command::Doctor { format } => doctor::doctor(config, format.output),
        Command::Who { container, format } => who::who(config, &container, format.output),
        Command::Tree { container, format } => tree::tree(config, &container, format.output),
        Command::Policy(Policy::Check { paths, lenient, backend, format }) => {
            policy_check::check(config, &paths, lenient, backend, format.output)
        }
        Command::Policy(Policy::List { format }) => policy_list::list(config, format.output),
        Command::Policy(Policy::Explain(explain)) => policy_explain::explain(config, &explain),
        Command::Policy(Policy::Test { paths, format }) => policy_test::test(&paths, format.output),
        Command::Top { once } => top::top(config, once),
        Command::Events(events) => events::follow(config, &events),
        Command::OciSpecWithGate => oci_spec::with_gate(config),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut std::io::stdout());
            Ok(Answer::Yes)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(Failure::Output)?;
            Ok(Answer::Yes)
        }
    }
}
