//! What the agent costs a runtime, and a host.
//!
//! `cargo run --release -p portcullis-agent --example nri_bench [CREATIONS]`
//!
//! A fake runtime in this process creates containers through NRI; the agent, with the real enforcer and 200 policies, is a process
//! of its own. No kernel programs are needed: a creation selects policies and writes a record, and arms nothing.
//!
//! `nri_bench serve SOCKET` is that agent alone, for another runtime's end: `nri-plugin/nri/tests/go-peer/run -- nri_bench serve
//! {socket}`; with an address, metrics are there (`hack/check-metrics`). Its policies are for other containers of the namespace `peer` than the Go peer's, whose containers have no processes.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nri::proto::{Container, ContainerState, PodSandbox};
use nri::testing::{FakePlugin, FakeRuntime, Profile, sample_container, sample_pod};
use portcullis_agent::control::{AgentStatus, Call, Client, Outcome};
use portcullis_agent::kubearmor::Host;
use portcullis_agent::service::{Service, Settings, runtime};
use portcullis_agent::{Messages, Telemetry};
use portcullis_enforcer::{Config, Enforcer, Sinks};
use tokio::signal::unix::{SignalKind, signal};

type Failed = Box<dyn Error>;

const POLICIES: usize = 200;
const RULES: usize = 20;
const CREATIONS: usize = 5000;
/// Containers that stay.
const STAY: usize = 1000;
const IDLE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["agent", directory] => agent(Path::new(directory)),
        ["serve", socket] => serve(Path::new(socket), None),
        ["serve", socket, metrics] => serve(Path::new(socket), Some(metrics.parse()?)),
        [] => runtime()?.block_on(measure(CREATIONS)),
        [count] => runtime()?.block_on(measure(count.parse()?)),
        _ => Err("usage: nri_bench [CREATIONS | serve SOCKET [METRICS_ADDRESS]]".into()),
    }
}

fn settings(directory: &Path, socket: &Path, metrics_listen: Option<SocketAddr>, enforcer: &Enforcer) -> Settings {
    Settings {
        policy_dir: directory.join("policies"),
        known_dir: enforcer.state().known_dir(),
        control_socket: directory.join("agent.sock"),
        feeder_socket: directory.join("feeder.sock"),
        feeder_tcp: None,
        sinks: Sinks::default(),
        metrics_listen,
        uid: rustix::process::geteuid().as_raw(),
        host: Host::default(),
        nri_sockets: vec![socket.to_owned()],
        nri_required: true,
        gate_hook: PathBuf::from("/usr/libexec/portcullis/portcullis-hook"),
        started_by_runtime: false,
    }
}

/// The agent's process; ends with its standard input.
fn agent(directory: &Path) -> Result<(), Failed> {
    runtime()?.block_on(async {
        let service = start(directory, &directory.join("nri.sock"), None).await?;
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
        service.stop().await;
        Ok(())
    })
}

/// The agent for somebody else's runtime; ends with SIGTERM.
fn serve(socket: &Path, metrics: Option<SocketAddr>) -> Result<(), Failed> {
    let temporary = tempfile::tempdir()?;
    write_policies(&temporary.path().join("policies"), "peer")?;
    runtime()?.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        let service = start(temporary.path(), socket, metrics).await?;
        ended.recv().await;
        service.stop().await;
        Ok(())
    })
}

async fn start(directory: &Path, socket: &Path, metrics: Option<SocketAddr>) -> Result<Service, Failed> {
    let config = Config { policy_dir: directory.join("policies"), state_dir: directory.join("state"), ..Config::default() };
    let enforcer = Arc::new(Enforcer::open(config)?);
    let settings = settings(directory, socket, metrics, &enforcer);
    Ok(Service::start(enforcer, &settings, Telemetry::default(), Messages::default()).await?)
}

struct Agent {
    process: Child,
    directory: PathBuf,
}

impl Agent {
    fn start(directory: &Path) -> Result<Agent, Failed> {
        let process = Command::new(std::env::current_exe()?).arg("agent").arg(directory).stdin(Stdio::piped()).spawn()?;
        Ok(Agent { process, directory: directory.to_owned() })
    }

    fn memory_kib(&self, what: &str) -> Result<u64, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(what)).ok_or("no such line")?;
        Ok(line.trim_start_matches(':').split_whitespace().next().ok_or("no number")?.parse()?)
    }

    /// Time on CPUs, in ticks of 10 ms.
    fn cpu_ticks(&self) -> Result<u64, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, Failed> {
        let client = Client::connect(&self.directory.join("agent.sock"))?;
        Ok(client.ok_or("the agent does not listen")?.call(call)?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

fn write_policies(directory: &Path, namespace: &str) -> Result<(), Failed> {
    std::fs::create_dir_all(directory)?;
    for number in 0..POLICIES {
        let mut text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: policy-{number}\n  namespace: {namespace}\n\
             spec:\n  selector:\n    matchLabels:\n      app: app-{}\n  file:\n    matchPaths:\n",
            number % 100
        );
        for rule in 0..RULES {
            text += &format!(
                "    - path: /etc/secret-{number}-{rule}/token\n      fromSource:\n      - path: /usr/bin/reader-{rule}\n"
            );
        }
        text += "  action: Block\n";
        std::fs::write(directory.join(format!("policy-{number:03}.yaml")), text)?;
    }
    Ok(())
}

fn pod(number: usize) -> PodSandbox {
    sample_pod(number, "shop", &format!("app-{}", number % 120))
}

async fn measure(creations: usize) -> Result<(), Failed> {
    let temporary = tempfile::tempdir()?;
    write_policies(&temporary.path().join("policies"), "shop")?;
    let runtime = FakeRuntime::listen(temporary.path().join("nri.sock"), Profile::containerd_2_3())?;
    let agent = Agent::start(temporary.path())?;
    let plugin = connected(&runtime, &[], &[]).await?;
    println!(
        "with {POLICIES} policies of {RULES} rules, connected: {} KiB, of which {} are its own",
        agent.memory_kib("VmRSS")?,
        agent.memory_kib("RssAnon")?
    );

    let mut times = Vec::with_capacity(creations);
    let mut gated = 0;
    for number in 0..creations {
        let (pod, container) = (pod(number), sample_container(number));
        let since = Instant::now();
        let creation = plugin.create_container(&pod, &container).await?;
        times.push(since.elapsed());
        gated += usize::from(creation.adjust.hooks.is_some());
        if number + STAY < creations {
            plugin.remove_container(&pod, &container).await?;
        }
    }
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "CREATE, {creations} times, {gated} gated: p50 {:?}, p99 {:?}, p99.9 {:?}, worst {:?}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );

    while agent.ask::<AgentStatus>(Call::Status)?.containers.leaving > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status: AgentStatus = agent.ask(Call::Status)?;
    println!(
        "{} containers known: {} KiB, of which {} are its own, at most {} KiB",
        status.containers.known,
        agent.memory_kib("VmRSS")?,
        agent.memory_kib("RssAnon")?,
        agent.memory_kib("VmHWM")?
    );
    let outcome: Outcome = agent.ask(Call::Reload)?;
    println!("policies read and {} containers looked at in {} ms", outcome.containers, outcome.milliseconds);

    let policies = temporary.path().join("policies");
    std::fs::copy(policies.join("policy-000.yaml"), policies.join(".new"))?;
    let since = Instant::now();
    std::fs::rename(policies.join(".new"), policies.join("policy-000.yaml"))?;
    let generation = outcome.generation;
    while agent.ask::<AgentStatus>(Call::Status)?.policies.generation == generation {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("a file renamed into place was read after {:?}", since.elapsed());

    let before = agent.cpu_ticks()?;
    tokio::time::sleep(IDLE).await;
    let idle = agent.cpu_ticks()? - before;
    println!("idle for {} s: {} ms of CPU time, {:.2} %", IDLE.as_secs(), idle * 10, idle as f64 / IDLE.as_secs_f64());

    // The runtime is started again, with processes that end while they are looked at.
    drop(plugin);
    let numbers = creations.saturating_sub(STAY)..creations;
    let pods: Vec<PodSandbox> = numbers.clone().map(pod).collect();
    let containers: Vec<Container> = numbers
        .map(|number| {
            let mut running = Container { pid: 4_000_000, ..sample_container(number) };
            running.set_state(ContainerState::Running);
            running
        })
        .collect();
    let since = Instant::now();
    connected(&runtime, &pods, &containers).await?;
    println!("Synchronize of {} containers, with the connection: {:?}", containers.len(), since.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "after it {} KiB, of which {} are its own, at most {} KiB",
        agent.memory_kib("VmRSS")?,
        agent.memory_kib("RssAnon")?,
        agent.memory_kib("VmHWM")?
    );
    Ok(())
}

async fn connected(runtime: &FakeRuntime, pods: &[PodSandbox], containers: &[Container]) -> Result<FakePlugin, Failed> {
    let plugin = runtime.accept().await?;
    // As containerd splits what is longer than a message.
    plugin.synchronize_in_parts(pods, containers, 500).await?;
    Ok(plugin)
}
