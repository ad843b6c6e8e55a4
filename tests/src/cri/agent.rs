//! The agent under test: a process of ours that is killed, frozen and started again.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::log::Log;
use super::until;
use crate::guest::Guest;
use crate::process::{self, Dialogue};
use crate::{Failure, Result};

/// Where it is asked.
const SOCKET: &str = "/run/portcullis-cri/agent.sock";
/// From its start until it is registered with the runtime, or from a loss of the runtime until it is again; under emulation.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// One answer; that to `reload` comes when every container has been brought to the policies.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// `portcullis agent`.
#[derive(Debug)]
pub(super) struct Agent {
    process: Option<Dialogue>,
    log: Log,
    /// The configuration that it was started with.
    configuration: String,
}

/// What the configuration says besides what every suite's says.
pub(super) fn settings(guest: &Guest, state: &str, nri: &Path) -> String {
    format!(
        "stateDir: {state}\ncontrolSocket: {SOCKET}\nnri:\n  enabled: true\n  sockets: [{}]\n  hook: {}\n",
        nri.display(),
        guest.binaries.join("portcullis-hook").display()
    )
}

impl Agent {
    /// Starts it, and waits until the runtime has it.
    pub(super) fn start(guest: &Guest) -> Result<Self> {
        let mut agent = Self { process: None, log: Log::default(), configuration: String::new() };
        agent.launch(guest)?;
        Ok(agent)
    }

    /// Starts it again.
    pub(super) fn launch(&mut self, guest: &Guest) -> Result<()> {
        self.configuration = read(&guest.config)?;
        if guest.without {
            return Ok(());
        }
        self.process = Some(Dialogue::start(guest.command().arg("agent"))?);
        self.ready(guest)
    }

    /// Waits until it answers and the runtime has it.
    pub(super) fn ready(&mut self, guest: &Guest) -> Result<()> {
        if guest.without {
            return Ok(());
        }
        until("the agent's being ready", READY_LIMIT, || {
            if let Some(process) = &mut self.process
                && !process.running()
            {
                return Err(Failure::Answer { what: "portcullis agent".to_owned(), text: process.errors() });
            }
            let Ok(status) = ask(&json!({ "method": "status" })) else { return Ok(None) };
            let mut links = status["nri"]["connections"].as_array().into_iter().flatten();
            Ok(links.any(|connection| connection["link"] == "up").then_some(()))
        })
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Dialogue::pid)
    }

    /// A test begins.
    pub(super) fn begin_log(&mut self) {
        self.log.begin(self.process.as_ref());
    }

    /// What it wrote last, since a test began.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.log.last(self.process.as_ref())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            self.log.keep(&process);
        }
    }

    /// SIGTERM, and waits; whether it ended by itself with 0.
    pub(super) fn stop(&mut self) -> bool {
        self.process.take().is_some_and(|mut process| {
            process.signal(Signal::TERM);
            let code = process.close(STOP_LIMIT);
            self.log.keep(&process);
            code == Some(0)
        })
    }

    /// SIGSTOP.
    pub(super) fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::STOP);
        }
    }

    /// SIGCONT.
    pub(super) fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::CONT);
        }
    }

    /// Replaces the policies, and waits until they hold for new containers.
    pub(super) fn put(&self, guest: &Guest, policies: &[(&str, &str)]) -> Result<()> {
        guest.set_policies(policies)?;
        self.settle(guest)
    }

    /// Starts anew where the configuration has changed, and waits until the policies hold for new containers.
    pub(super) fn follow_configuration(&mut self, guest: &Guest) -> Result<()> {
        if read(&guest.config)? != self.configuration {
            self.stop();
            self.launch(guest)?;
        }
        self.settle(guest)
    }

    /// Has it read the policy directory as it is now, and waits until that is done.
    pub(super) fn settle(&self, guest: &Guest) -> Result<()> {
        if guest.without { Ok(()) } else { ask(&json!({ "method": "reload" })).map(drop) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Failure::io(path.display(), source))
}

/// One question to the control socket, as `portcullis` itself asks it; starting that would cost more than the answer.
pub(super) fn ask(question: &Value) -> Result<Value> {
    let failed = |source| Failure::io(SOCKET, source);
    let mut stream = UnixStream::connect(SOCKET).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(failed)?;
    let mut question = question.clone();
    question["v"] = json!(1);
    stream.write_all(format!("{question}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    let mut json: Value = serde_json::from_str(&answer).unwrap_or_default();
    match json["ok"].take() {
        Value::Null => Err(Failure::Answer { what: "the agent".to_owned(), text: answer }),
        ok => Ok(ok),
    }
}

/// Whether the agent looks after this container.
pub(super) fn knows(container: &str) -> Result<bool> {
    match ask(&json!({ "method": "who", "container": container })) {
        Ok(_) => Ok(true),
        Err(Failure::Answer { text, .. }) if text.contains("notFound") => Ok(false),
        Err(error) => Err(error),
    }
}

/// A second agent beside the first: what it says.
pub(super) fn second(guest: &Guest) -> Result<process::Outcome> {
    process::run(guest.command().arg("agent"), b"", READY_LIMIT)
}
