//! What goes wrong around containers: the agent, the runtime, the disk, the numbers of processes. A container that could not
//! be protected is refused or held, what is protected stays so, and when it is over all is as before.

mod agent;
mod disk;
mod engine;
mod numbers;

use std::path::PathBuf;
use std::time::Duration;

use super::agent::Agent;
use super::engine::{Engine, handler};
use super::live::{empty_out, version};
use super::observer::Observer;
use super::pods::{ContainerSpec, Ended, Pod, PodSpec};
use super::starts::{RAN, attack, denied, marked};
use crate::Result;
use crate::guest::Guest;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::starts::POLICY;

/// A result that is judged.
type Verdict = std::result::Result<(), String>;

/// What every test here has.
struct World<'a> {
    guest: &'a Guest,
    engine: &'a mut Engine,
    agent: &'a mut Agent,
    out: PathBuf,
    runtime: Runtime,
    /// Two pods whose containers meet our hook even where the runtime lost the plugin: of the policy that denies a program, and
    /// of the one that has two versions. They are there before anything goes wrong, and stay for all tests.
    starts: Pod,
    live: Pod,
}

type Test = fn(&mut World<'_>) -> Result<Verdict>;

/// Runs the tests.
pub(super) fn run(guest: &Guest, engine: &mut Engine, agent: &mut Agent, report: &mut Report) -> Result<()> {
    const TESTS: &[(&str, Test)] = &[
        ("killed-before-create", agent::killed_before_create),
        ("killed-before-start", agent::killed_before_start),
        ("killed-while-running", agent::killed_while_running),
        ("killed-while-stopping", agent::killed_while_stopping),
        ("frozen", agent::frozen),
        ("two-agents", agent::two),
        ("agent-after-containers", agent::after_containers),
        ("containerd-restarted", engine::restarted),
        ("socket-recreated", engine::socket_recreated),
        ("policies-corrupted", disk::corrupted),
        ("policies-replaced", disk::replaced),
        ("policies-emptied", disk::emptied),
        ("state-disk-full", disk::full),
        ("init-dies-before-start", numbers::init_dies),
        ("pid-of-a-dead-container", numbers::pid_of_the_dead),
        ("pid-in-another-container", numbers::pid_in_another),
    ];
    for runtime in guest.runtimes.iter().copied().take(if guest.ci { 1 } else { 2 }) {
        let name = |test: &str| format!("cri/faults/{}/{test}", runtime.name());
        let wanted = TESTS.iter().filter(|(test, _)| guest.wants(&name(test)));
        if wanted.clone().next().is_none() {
            continue;
        }
        let pod = |app: &str| {
            let spec = PodSpec::new(&format!("faults-{app}-{}", runtime.name()), app, &handler(runtime, true));
            Pod::run(guest, engine, spec)
        };
        let (starts, live) = (pod("starts")?, pod("live")?);
        let mut world = World { guest, engine: &mut *engine, agent: &mut *agent, out: empty_out(guest)?, runtime, starts, live };
        for (test, run) in wanted {
            let name = name(test);
            world.out = empty_out(guest)?;
            world.engine.begin_log();
            world.agent.begin_log();
            let result = world.policies().and_then(|()| run(&mut world));
            // Whatever came of it, the next test has an agent.
            let repaired = world.repair();
            let words = super::last_words(world.engine, world.agent);
            report.run(&name, || {
                let verdict = result.and_then(|verdict| repaired.map(|()| verdict));
                if !matches!(verdict, Ok(Ok(()))) {
                    print!("{words}");
                }
                verdict
            });
        }
    }
    Ok(())
}

impl World<'_> {
    /// The policies of every test here.
    fn policies(&mut self) -> Result<()> {
        self.agent.put(self.guest, &[("starts", POLICY), ("live", &version(0))])
    }

    fn repair(&mut self) -> Result<()> {
        self.agent.thaw();
        if self.agent.pid().is_none() {
            self.agent.launch(self.guest)?;
        }
        self.agent.ready(self.guest)
    }

    fn attack(&self, name: &str) -> ContainerSpec {
        attack(name, &self.out)
    }

    fn observer(&self, name: &str) -> Result<Observer> {
        Observer::start(&self.live, name, &self.out, Duration::ZERO)
    }

    /// The program did not run, whatever the reason.
    fn held(&self, ended: &Ended) -> Result<Verdict> {
        Ok(if marked(&self.out)? || ended.code == RAN { Err(format!("the denied program ran: {ended}")) } else { Ok(()) })
    }

    /// New containers are protected, and only from what is denied.
    fn recovered(&self) -> Result<Verdict> {
        if let Err(why) = denied(&self.starts.complete(&self.attack("denied"))?, &self.out)? {
            return Ok(Err(format!("afterwards: {why}")));
        }
        let ended = self.starts.complete(&ContainerSpec::new("allowed", &["/bin/true"]))?;
        Ok(if ended.success() { Ok(()) } else { Err(format!("afterwards an allowed program: {ended}")) })
    }
}
