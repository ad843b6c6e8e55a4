//! `portcullis agent`, and asking the one that runs.

use std::path::Path;

use portcullis_agent::control::{Call, Client, ClientError, RefusalKind};
use portcullis_agent::{AgentOptions, run};
use portcullis_enforcer::Config;
use serde::de::DeserializeOwned;

use crate::Answer;
use crate::failure::Failure;

/// Set by a runtime for the plugins that it starts itself; nothing else is in their environment.
const STARTED_BY_RUNTIME: &str = "NRI_PLUGIN_SOCKET";

/// Whether a runtime has started this program as its plugin: then it has no arguments, and whatever name the runtime's plugin
/// directory gives it.
pub(crate) fn is_started_by_runtime() -> bool {
    std::env::var_os(STARTED_BY_RUNTIME).is_some() && std::env::args_os().len() <= 1
}

pub(crate) fn agent(config: Option<&Path>, started_by_runtime: bool) -> Result<Answer, Failure> {
    run(&AgentOptions { config: config.map(Path::to_owned), started_by_runtime })?;
    Ok(Answer::Yes)
}

/// What the agent of this host answers; nothing if there is no agent.
pub(crate) fn ask<T: DeserializeOwned>(config: &Config, call: Call) -> Result<Option<T>, Failure> {
    match Client::connect(&config.control_socket())? {
        Some(mut client) => Ok(Some(client.call(call)?)),
        None => Ok(None),
    }
}

/// The same, for answers that only add to what is known without an agent: that one does not answer is said, and is no failure.
/// Also whether it did not.
pub(crate) fn ask_or_tell<T: DeserializeOwned>(config: &Config, call: Call) -> (Option<T>, bool) {
    match ask(config, call) {
        Ok(answer) => (answer, false),
        Err(Failure::Client(ClientError::Refused(refusal))) if refusal.kind == RefusalKind::NotFound => (None, false),
        Err(failure) => {
            eprintln!("portcullis: {failure}");
            (None, true)
        }
    }
}
