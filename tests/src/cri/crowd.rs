//! The agent with a full node's work: the kernel programs and the monitor, 200 policies, a thousand containers that are armed, and
//! a Synchronize of all of them. With `--ci` 40 are armed, and the others have ended when the runtime tells of them: its account is
//! as long, and what stays of it is measured against what was there before. The kernel and the processes are real, only the runtime
//! is not: a thousand containers of a real one would need a machine of their own, and the agent sees nothing else of it than these
//! messages.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nri::proto::{Container, ContainerState, PodSandbox};
use nri::testing::{FakeError, FakePlugin, FakeRuntime, Profile, sample_container, sample_pod};
use serde_json::json;

use super::agent::{Agent, ask, settings};
use super::numbers::{IDLE_PERCENT, RESIDENT_KIB, idle_percent, resident};
use super::{STATE, until};
use crate::guest::Guest;
use crate::process::{Dialogue, Talk};
use crate::report::Report;
use crate::{Failure, Result};

const CGROUPS: &str = "/sys/fs/cgroup/portcullis-crowd";
const POLICIES: usize = 200;
const RULES: usize = 20;
/// Two policies are for each of these, and none for a container in six.
const APPS: usize = 100;
/// Containers that the runtime tells of. Those for which there is no process have ended.
const TOLD: usize = 1000;
/// How often it does. What stays depends on where each thing came to lie: after one account it may be little, though much could.
const ACCOUNTS: u32 = 5;
/// What may stay of its accounts, each of tens of megabytes for a moment. With 40 armed 0.3 MiB were measured at most; where nothing is
/// given back 15, and 2.7 to 18 with huge pages and a heap for each thread.
const KEPT_KIB: u64 = 2 << 10;
/// The runtime waits so long for an answer; the emulated processor is twenty times slower than a real one.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the two seconds after which the agent gives memory back.
const SETTLED: Duration = Duration::from_secs(4);
const START_LIMIT: Duration = Duration::from_secs(120);

/// Runs the test. The agent is connected to the real runtime again afterwards.
pub(super) fn run(guest: &Guest, agent: &mut Agent, report: &mut Report) -> Result<()> {
    let socket = guest.work.join("cri/crowd.sock");
    let apart = Guest { settings: settings(guest, STATE, &socket), ..guest.clone() };
    agent.stop();
    apart.configure("enforce", "audit")?;
    let policies = policies();
    apart.set_policies(&policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>())?;
    let measured = measure(&apart, agent, &socket, guest.repetitions(40, 1000) as usize);
    report.check("cri/numbers/crowd", measured.unwrap_or_else(|error| Err(error.to_string())));
    agent.stop();
    guest.set_policies(&[])?;
    guest.configure("enforce", "audit")?;
    agent.launch(guest)
}

fn measure(guest: &Guest, agent: &mut Agent, socket: &Path, count: usize) -> Result<std::result::Result<(), String>> {
    let mut crowd = Crowd::start(guest, count)?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let tokio = tokio.map_err(|source| Failure::io("a tokio runtime", source))?;
    let profile = Profile::containerd_2_1().request_timeout(PATIENCE);
    let runtime = tokio.block_on(async { FakeRuntime::listen(socket, profile) }).map_err(fake)?;
    let (plugin, launched) = std::thread::scope(|scope| {
        let launched = scope.spawn(|| agent.launch(guest));
        let plugin = tokio.block_on(runtime.connect());
        (plugin, launched.join())
    });
    launched.map_err(|_| Failure::Answer { what: "the start of the agent".to_owned(), text: "panicked".to_owned() })??;
    let mut plugin = plugin.map_err(fake)?;
    let Some(pid) = agent.pid() else { return Ok(Err("there is no agent".to_owned())) };
    let status = ask(&json!({ "method": "status" }))?;
    if status["monitor"]["loaded"] != true {
        return Ok(Err(format!("the monitor is not loaded: {}", status["monitor"])));
    }
    let empty = resident(pid)?;

    let begin = Instant::now();
    tokio.block_on(live(&plugin, &crowd.pids)).map_err(fake)?;
    let each = begin.elapsed().as_millis() / count as u128;
    // The policies are read once more, as they are after the accounts: what that leaves is in both.
    agent.settle(guest)?;
    let armed = kib_when_settled(pid)?;
    let percent = idle_percent(pid, Duration::from_secs(if guest.ci { 5 } else { 60 }))?;

    let mut synchronize = Duration::ZERO;
    for _ in 0..ACCOUNTS {
        drop(plugin);
        let begin = Instant::now();
        plugin = tokio.block_on(synchronized(&runtime, &crowd.pids)).map_err(fake)?;
        synchronize = synchronize.max(begin.elapsed());
    }
    // The first may be answered before those of the last account are looked at, with which it was taken up; the second is after that.
    agent.settle(guest)?;
    agent.settle(guest)?;
    let adopted = kib_when_settled(pid)?;
    let holding = holding(guest)?;
    println!(
        "# agent with the programs, the monitor and {POLICIES} policies: {empty} KiB resident; {count} containers armed, {each} ms each: \
         {armed} KiB, {percent:.2} % of a processor while nothing happens; after {ACCOUNTS} times a Synchronize of {}, \
         in {} ms at most: {adopted} KiB",
        TOLD.max(count),
        synchronize.as_millis()
    );
    drop(plugin);
    let left = crowd.end();
    let expected = (0..count).filter(|number| is_selected(*number)).count();
    Ok(match () {
        () if holding != expected => Err(format!("{holding} containers are armed, not {expected}")),
        () if armed.max(adopted) > RESIDENT_KIB => Err(format!("{} KiB resident, not {RESIDENT_KIB}", armed.max(adopted))),
        () if adopted > armed + KEPT_KIB => Err(format!("{} KiB stay of a runtime's accounts, not {KEPT_KIB}", adopted - armed)),
        () if percent > IDLE_PERCENT => Err(format!("{percent:.2} % of a processor while nothing happens")),
        () => left,
    })
}

/// Creates and starts a container around each of these processes.
async fn live(plugin: &FakePlugin, pids: &[u32]) -> std::result::Result<(), FakeError> {
    for (number, pid) in pids.iter().enumerate() {
        let (pod, mut container) = (pod(number), sample_container(number));
        plugin.create_container(&pod, &container).await?;
        container.pid = *pid;
        plugin.start_container(&pod, &container).await?;
    }
    Ok(())
}

/// The runtime was started again, and tells what runs and what has ended, in an order of its own.
async fn synchronized(runtime: &FakeRuntime, pids: &[u32]) -> std::result::Result<FakePlugin, FakeError> {
    let plugin = runtime.accept().await?;
    let told = TOLD.max(pids.len());
    let pods: Vec<PodSandbox> = (0..told).map(pod).collect();
    let mut numbers: Vec<usize> = (0..told).collect();
    // Those that run are spread among the others.
    numbers.sort_by_key(|number| number.reverse_bits());
    let container = |number: usize| {
        let (pid, state) = match pids.get(number) {
            Some(pid) => (*pid, ContainerState::Running),
            None => (0, ContainerState::Stopped),
        };
        let mut container = Container { pid, ..sample_container(number) };
        container.set_state(state);
        container
    };
    let containers: Vec<Container> = numbers.into_iter().map(container).collect();
    // As containerd splits what is longer than a message.
    plugin.synchronize_in_parts(&pods, &containers, 500).await?;
    Ok(plugin)
}

/// How many containers of the crowd the kernel enforces something in.
fn holding(guest: &Guest) -> Result<usize> {
    let status = guest.portcullis(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let of_crowd = |container: &&serde_json::Value| container["namespace"] == "crowd";
    Ok(status["containers"].as_array().map_or(0, |containers| containers.iter().filter(of_crowd).count()))
}

/// What is resident when it has not changed for a while: memory that was freed is given back a little later.
fn kib_when_settled(pid: u32) -> Result<u64> {
    let mut last = resident(pid)?;
    until("memory that stays the same", START_LIMIT, || {
        std::thread::sleep(SETTLED);
        let now = resident(pid)?;
        Ok((std::mem::replace(&mut last, now) == now).then_some(now))
    })
}

fn is_selected(number: usize) -> bool {
    number % (APPS + APPS / 5) < APPS
}

fn policies() -> Vec<(String, String)> {
    let rule = |number: usize, rule: usize| {
        format!("    - path: /etc/secret-{number}-{rule}/token\n      fromSource:\n      - path: /usr/bin/reader-{rule}\n")
    };
    let policy = |number: usize| {
        let rules: String = (0..RULES).map(|n| rule(number, n)).collect();
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: policy-{number}\n  namespace: crowd\n\
             spec:\n  selector:\n    matchLabels:\n      app: app-{}\n  file:\n    matchPaths:\n{rules}  action: Block\n",
            number % APPS
        )
    };
    (0..POLICIES).map(|number| (format!("policy-{number:03}"), policy(number))).collect()
}

fn pod(number: usize) -> PodSandbox {
    sample_pod(number, "crowd", &format!("app-{}", number % (APPS + APPS / 5)))
}

fn fake(error: FakeError) -> Failure {
    Failure::Answer { what: "the agent, over NRI".to_owned(), text: error.to_string() }
}

/// The processes.
struct Crowd {
    probe: Dialogue,
    pids: Vec<u32>,
}

impl Crowd {
    fn start(guest: &Guest, count: usize) -> Result<Crowd> {
        let mut probe = Dialogue::start(Command::new(&guest.probe).args(["--crowd", CGROUPS, &count.to_string()]))?;
        let pid = |line: String| line.parse().map_err(|_| Failure::Answer { what: "the probe".to_owned(), text: line });
        let pids = (0..count).map(|_| probe.line(START_LIMIT).and_then(pid)).collect::<Result<Vec<u32>>>()?;
        Ok(Crowd { probe, pids })
    }

    fn end(&mut self) -> std::result::Result<(), String> {
        match self.probe.close(START_LIMIT) {
            Some(0) => Ok(()),
            code => Err(format!("the crowd ended with {code:?}: {}", self.probe.errors())),
        }
    }
}
