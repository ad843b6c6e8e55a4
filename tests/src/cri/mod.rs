//! Pods of a real containerd, made through the CRI as a kubelet makes them, with `portcullis agent` as its NRI plugin.

mod agent;
mod api;
mod archive;
mod client;
pub(crate) mod confined;
mod crowd;
mod documents;
mod engine;
mod faults;
mod grpc;
mod live;
mod log;
mod numbers;
mod observer;
mod pods;
mod rig;
mod starts;
mod visible;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::guest::Guest;
use crate::report::Report;
use crate::{Failure, Result};
use agent::Agent;
use engine::Engine;

/// What everything of ours reads that is told no other.
const CONFIG: &str = "/etc/portcullis/config.yaml";
/// The agent's state directory: its own, on a tmpfs as an installation has it.
const STATE: &str = "/run/portcullis-cri/agent";
/// Between two looks at a condition that is waited for. A look may be a question to the runtime, which on an emulated processor
/// keeps it from its work.
const POLL: Duration = Duration::from_millis(50);

/// Waits for a condition that `look` finds.
fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(Failure::Timeout { what: what.to_owned(), limit });
        }
        std::thread::sleep(POLL);
    }
}

/// The end of what the runtime and the agent wrote since a test began, for whoever has to find out why it failed.
fn last_words(engine: &Engine, agent: &Agent) -> String {
    let of = |who: &'static str, lines: Vec<String>| lines.into_iter().map(move |line| format!("# {who}: {line}\n"));
    of("containerd", engine.last_lines()).chain(of("agent", agent.last_lines())).collect()
}

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    // The gate hook that a container gets is told no configuration: it reads the usual one.
    let guest =
        &Guest { config: PathBuf::from(CONFIG), settings: agent::settings(guest, STATE, &Engine::nri_socket()), ..guest.clone() };
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[])?;
    let mut engine = match Engine::prepare(guest)? {
        Ok(engine) => engine,
        Err(why) => {
            report.skip("cri", why);
            return Ok(());
        }
    };
    println!("# containerd {}", engine.version);
    let begin = Instant::now();
    let mut agent = Agent::start(guest)?;
    let done = |part: &str| println!("# {part}: after {} s", begin.elapsed().as_secs());
    rig::run(guest, &mut engine, report)?;
    done("rig");
    numbers::run(guest, &engine, &mut agent, report)?;
    done("numbers");
    starts::run(guest, &engine, &agent, report)?;
    done("starts");
    live::run(guest, &engine, &agent, report)?;
    done("live");
    visible::run(guest, &engine, report);
    done("visibility");
    documents::run(guest, &engine, &mut agent, report)?;
    done("conformance");
    guest.configure("enforce", "audit")?;
    agent.follow_configuration(guest)?;
    faults::run(guest, &mut engine, &mut agent, report)?;
    done("faults");
    let ended = agent.stop();
    report.check("cri/agent-ends", if ended { Ok(()) } else { Err("SIGTERM did not end the agent with 0".to_owned()) });
    Ok(())
}
