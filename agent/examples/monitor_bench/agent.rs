//! The agent that is measured, a process of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_agent::kubearmor::Host;
use portcullis_agent::service::{Service, Settings, runtime};
use portcullis_agent::{Messages, Telemetry};
use portcullis_ebpf::monitor::{self, Classes, Visibility};
use portcullis_enforcer::{Config, Enforcer, FileSink, LineFormat, Monitor, MonitorEnabled, SinkEvents, Sinks};
use portcullis_policy::Backend;
use rustix::process::{Pid, Signal, kill_process};

use crate::replay::Rings;
use crate::{Failed, Storm};

/// When the file of lines makes room for another.
const SINK_BYTES: u64 = 1 << 30;
/// The thread of a replay that is not the agent's.
pub(crate) const STORM_THREAD: &str = "storm";

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Those of the thread that replays.
static OWN_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, size) }
    }
}

/// The agent's process: for each line on its standard input it says how often it has allocated memory; ends with it. A line that is not
/// empty is a storm that is to be replayed.
pub(crate) fn be_agent(storm: Storm, directory: &Path) -> Result<(), Failed> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    runtime()?.block_on(async {
        let config = Config { policy_dir: directory.join("policies"), state_dir: directory.join("state"), ..Config::default() };
        let enforcer = Arc::new(Enforcer::open(config)?);
        let visibility = Visibility { host: storm.classes(), containers: Classes::NONE };
        let monitor = Monitor { enabled: MonitorEnabled::Yes, visibility, ..Monitor::default() };
        let state = enforcer.state().clone();
        let (telemetry, mut rings) = match storm {
            Storm::Replayed => {
                let (rings, of_processes, of_accesses) = Rings::new()?;
                let telemetry = Telemetry::of_rings(state, Host::default(), of_processes, of_accesses)?;
                (telemetry, Some(rings))
            }
            _ => (Telemetry::from_kernel(state, Host::default(), monitor, Backend::Bpf)?, None),
        };
        let file = FileSink {
            path: directory.join("events"),
            format: LineFormat::Lines,
            what: SinkEvents::Logs,
            max_bytes: SINK_BYTES,
            keep: 0,
        };
        let settings = Settings {
            policy_dir: directory.join("policies"),
            known_dir: enforcer.state().known_dir(),
            control_socket: directory.join("agent.sock"),
            feeder_socket: directory.join("feeder.sock"),
            feeder_tcp: None,
            sinks: Sinks { file: Some(file), otlp: None },
            metrics_listen: None,
            uid: rustix::process::geteuid().as_raw(),
            host: Host::default(),
            nri_sockets: Vec::new(),
            nri_required: false,
            gate_hook: PathBuf::from("/usr/libexec/portcullis/portcullis-hook"),
            started_by_runtime: false,
        };
        let service = Service::start(enforcer, &settings, telemetry.clone(), Messages::default()).await?;
        let (done, ended) = tokio::sync::oneshot::channel();
        let mut obey = move || -> Result<(), Failed> {
            for line in std::io::stdin().lock().lines() {
                let (mark, before) = (line?, ALLOCATIONS.load(Ordering::Relaxed));
                if let Some(rings) = rings.as_mut().filter(|_| !mark.is_empty()) {
                    rings.rage(&mark)?;
                    OWN_ALLOCATIONS.fetch_add(ALLOCATIONS.load(Ordering::Relaxed) - before, Ordering::Relaxed);
                }
                println!("{}", ALLOCATIONS.load(Ordering::Relaxed) - OWN_ALLOCATIONS.load(Ordering::Relaxed));
            }
            Ok(())
        };
        std::thread::Builder::new()
            .name(STORM_THREAD.to_owned())
            .spawn(move || drop(done.send(obey().map_err(|error| error.to_string()))))?;
        ended.await??;
        service.stop().await;
        telemetry.rest();
        Ok(())
    })
}

/// The agent, to the one who measures.
pub(crate) struct Agent {
    pub(crate) process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) events: PathBuf,
    /// It has loaded the monitor.
    is_real: bool,
}

impl Agent {
    pub(crate) fn start(storm: &str, directory: &Path) -> Result<Agent, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.args(["agent", storm]).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        Ok(Agent { process, orders, answers, events: directory.join("events"), is_real: storm != "replay" })
    }

    pub(crate) fn allocations(&mut self) -> Result<u64, Failed> {
        self.order("")
    }

    pub(crate) fn order(&mut self, mark: &str) -> Result<u64, Failed> {
        self.orders.as_mut().ok_or("no pipe")?.write_all(format!("{mark}\n").as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Nanoseconds on a processor, by the name of the thread (`/proc/PID/task/TID/schedstat`).
    pub(crate) fn times(&self) -> Result<BTreeMap<String, u64>, Failed> {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
            let time: u64 = fs::read_to_string(task.join("schedstat"))?.split(' ').next().unwrap_or_default().parse()?;
            *times.entry(name).or_default() += time;
        }
        Ok(times)
    }

    pub(crate) fn memory_kib(&self) -> Result<u64, Failed> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.process.wait());
        // Unloaded by whoever loaded it: this.
        if self.is_real
            && let Err(error) = monitor::Monitor::unload()
        {
            eprintln!("the monitor stays loaded: {error}");
        }
    }
}
