//! The OCI runtimes, run directly: `run` in the foreground with a dialogue on standard input and output, `exec`, `delete`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::bundle::Bundle;
use crate::guest::{COMMAND_LIMIT, Guest, installed};
use crate::process::{self, Dialogue, Outcome, Talk};

/// From the runtime's start to the first line of what it runs.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(120);

/// A runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runtime {
    /// crun.
    Crun,
    /// runc.
    Runc,
}

impl Runtime {
    /// The ones that are installed.
    pub(crate) fn available() -> Vec<Runtime> {
        [Runtime::Crun, Runtime::Runc].into_iter().filter(|runtime| installed(runtime.name())).collect()
    }

    /// The name of its program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Runtime::Crun => "crun",
            Runtime::Runc => "runc",
        }
    }

    fn command(self, guest: &Guest) -> Command {
        let mut command = Command::new(guest.runtime_program(self));
        let root: PathBuf = guest.work.join("run").join(self.name());
        command.arg("--root").arg(root);
        if self == Runtime::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }

    fn delete_command(self, guest: &Guest, id: &str) -> Command {
        let mut command = self.command(guest);
        command.args(["delete", "--force", id]);
        command
    }

    /// Runs a container in the foreground.
    pub(crate) fn start(self, guest: &Guest, bundle: &Bundle) -> Result<Container> {
        let directory = bundle.write(guest)?;
        let mut command = self.command(guest);
        command.args(["run", "--bundle"]).arg(directory).arg(&bundle.id);
        let dialogue = Dialogue::start(&mut command)?;
        let delete = self.delete_command(guest, &bundle.id);
        Ok(Container { dialogue, delete })
    }

    /// Runs a container to its end.
    pub(crate) fn run(self, guest: &Guest, bundle: &Bundle) -> Result<Outcome> {
        self.run_under(guest, bundle, &[])
    }

    /// The same by another program, which is given the runtime's command line.
    pub(crate) fn run_under(self, guest: &Guest, bundle: &Bundle, prefix: &[&str]) -> Result<Outcome> {
        let directory = bundle.write(guest)?;
        let runtime = self.command(guest);
        let mut command = match prefix.split_first() {
            None => runtime,
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(runtime.get_program()).args(runtime.get_args());
                command
            }
        };
        command.args(["run", "--bundle"]).arg(directory).arg(&bundle.id);
        let outcome = process::run(&mut command, b"", COMMAND_LIMIT);
        let _ = process::run(&mut self.delete_command(guest, &bundle.id), b"", COMMAND_LIMIT);
        outcome
    }

    /// Runs a program in a container that runs.
    pub(crate) fn exec(self, guest: &Guest, id: &str, arguments: &[&str]) -> Result<Outcome> {
        process::run(self.command(guest).arg("exec").arg(id).args(arguments), b"", COMMAND_LIMIT)
    }
}

/// A container in the foreground; removed when dropped.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its standard input and output.
    pub dialogue: Dialogue,
    delete: Command,
}

impl Container {
    /// Closes its input, waits for its end, removes it.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.dialogue.close(Duration::from_secs(10))
    }
}

impl Talk for Container {
    fn tell(&mut self, line: &str) -> Result<()> {
        self.dialogue.tell(line)
    }

    fn line(&mut self, limit: Duration) -> Result<String> {
        self.dialogue.line(limit)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = process::run(&mut self.delete, b"", COMMAND_LIMIT);
    }
}
