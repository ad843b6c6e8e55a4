//! What an event costs the agent, from the kernel's ring to a line of JSON in a file.
//!
//! `cargo run --release -p portcullis-agent --example monitor_bench processes|files [SECONDS]`, as root, on a machine where the monitor
//! is not loaded. Files are told only where the kernel takes BPF as a security module.
//!
//! The agent is a process of its own, with the real monitor, told to tell everything that the host executes, or opens. It is held
//! while a storm fills the ring, and let go: so its time is measured and not that of the storm. Round by round for so many seconds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_agent::kubearmor::Host;
use portcullis_agent::service::{Service, Settings, runtime};
use portcullis_agent::{Messages, Telemetry};
use portcullis_ebpf::monitor::{self, Classes, Visibility};
use portcullis_enforcer::{Config, Enforcer, FileSink, LineFormat, Monitor, MonitorEnabled, SinkEvents, Sinks};
use portcullis_policy::Backend;
use rustix::process::{Pid, Signal, kill_process};

type Failed = Box<dyn Error>;

/// Storms before the same files are opened again: by then the kernel does not only count it.
const DIRECTORIES: usize = 20;
const DEFAULT_SECONDS: u64 = 30;
const SINK_BYTES: u64 = 1 << 30;
/// What is not written so long after the last line is not going to be.
const QUIET: Duration = Duration::from_millis(300);
/// How long a storm's lines may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

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

/// What happens in a storm.
#[derive(Clone, Copy)]
enum Storm {
    Executions,
    Opens,
}

impl Storm {
    fn named(name: &str) -> Result<Storm, Failed> {
        match name {
            "processes" => Ok(Storm::Executions),
            "files" => Ok(Storm::Opens),
            _ => Err(format!("`{name}` is neither processes nor files").into()),
        }
    }

    fn classes(self) -> Classes {
        match self {
            Storm::Executions => Classes::PROCESS,
            Storm::Opens => Classes::FILE,
        }
    }

    /// How often: about what the ring holds.
    fn events(self) -> usize {
        match self {
            Storm::Executions => 2_500,
            Storm::Opens => 12_000,
        }
    }

    /// Makes it happen; each event has `mark` in its line.
    fn rage(self, directory: &Path, mark: &str) -> Result<(), Failed> {
        for number in 0..self.events() {
            match self {
                Storm::Executions => {
                    Command::new("/bin/true").arg(format!("{mark}{number}")).status()?;
                }
                Storm::Opens => drop(File::open(directory.join(format!("{mark}{number}")))?),
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["agent", storm, directory] => agent(Storm::named(storm)?, Path::new(directory)),
        [storm] => measure(storm, DEFAULT_SECONDS),
        [storm, seconds] => measure(storm, seconds.parse()?),
        _ => Err("usage: monitor_bench processes|files [SECONDS]".into()),
    }
}

/// The agent's process: for each line on its standard input it says how often it has allocated memory; ends with it.
fn agent(storm: Storm, directory: &Path) -> Result<(), Failed> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    runtime()?.block_on(async {
        let config = Config { policy_dir: directory.join("policies"), state_dir: directory.join("state"), ..Config::default() };
        let enforcer = Arc::new(Enforcer::open(config)?);
        let visibility = Visibility { host: storm.classes(), containers: Classes::NONE };
        let monitor = Monitor { enabled: MonitorEnabled::Yes, visibility, ..Monitor::default() };
        let telemetry = Telemetry::from_kernel(enforcer.state().clone(), Host::default(), monitor, Backend::Bpf)?;
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
        tokio::task::spawn_blocking(|| -> std::io::Result<()> {
            for line in std::io::stdin().lock().lines() {
                line?;
                println!("{}", ALLOCATIONS.load(Ordering::Relaxed));
            }
            Ok(())
        })
        .await??;
        service.stop().await;
        telemetry.rest();
        Ok(())
    })
}

struct Agent {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    events: PathBuf,
}

impl Agent {
    fn start(storm: &str, directory: &Path) -> Result<Agent, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.args(["agent", storm]).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        Ok(Agent { process, orders, answers, events: directory.join("events") })
    }

    fn allocations(&mut self) -> Result<u64, Failed> {
        self.orders.as_mut().ok_or("no pipe")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Nanoseconds on a processor, by the name of the thread (`/proc/PID/task/TID/schedstat`).
    fn times(&self) -> Result<BTreeMap<String, u64>, Failed> {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
            let time: u64 = fs::read_to_string(task.join("schedstat"))?.split(' ').next().unwrap_or_default().parse()?;
            *times.entry(name).or_default() += time;
        }
        Ok(times)
    }

    fn memory_kib(&self) -> Result<u64, Failed> {
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
        if let Err(error) = monitor::Monitor::unload() {
            eprintln!("the monitor stays loaded: {error}");
        }
    }
}

/// Events that were put into the kernel's rings.
fn taken() -> Result<u64, Failed> {
    let counts = monitor::Monitor::open()?.counts()?;
    Ok(counts.events - counts.lost + counts.accesses - counts.accesses_lost)
}

/// What the file of events has since it was looked at the last time.
struct Lines {
    file: File,
    /// Of which storm, in the paths.
    mark: String,
    rest: Vec<u8>,
    /// All lines, and those of this storm's files.
    all: u64,
    own: u64,
}

impl Lines {
    fn after(file: &Path) -> Result<Lines, Failed> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Lines { file, mark: String::new(), rest: Vec::new(), all: 0, own: 0 })
    }

    fn begin(&mut self, mark: String) {
        (self.mark, self.own) = (mark, 0);
    }

    /// Waits until so many are there, or no more come. How long they took.
    fn wait_for(&mut self, events: u64) -> Result<Duration, Failed> {
        let begun = Instant::now();
        let mut last = begun;
        while self.own < events && (self.own == 0 || last.elapsed() < QUIET) {
            std::thread::sleep(Duration::from_millis(2));
            let before = self.own;
            self.read()?;
            if self.own != before {
                last = Instant::now();
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} of {events} events were written in {PATIENCE:?}", self.own).into());
            }
        }
        Ok(last - begun)
    }

    fn read(&mut self) -> Result<(), Failed> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(whole);
        for line in String::from_utf8_lossy(&bytes).lines() {
            self.all += 1;
            self.own += u64::from(line.contains(&self.mark));
        }
        Ok(())
    }
}

fn measure(name: &str, seconds: u64) -> Result<(), Failed> {
    let storm = Storm::named(name)?;
    let temporary = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let mark = |round: usize| format!("storm-{}/", round % DIRECTORIES);
    if matches!(storm, Storm::Opens) {
        for round in 0..DIRECTORIES {
            fs::create_dir(temporary.path().join(mark(round)))?;
            for number in 0..storm.events() {
                File::create(temporary.path().join(format!("{}{number}", mark(round))))?;
            }
        }
    }
    fs::create_dir_all(temporary.path().join("policies"))?;
    let mut agent = Agent::start(name, temporary.path())?;
    let begun = Instant::now();
    while !agent.events.exists() {
        if begun.elapsed() > PATIENCE || agent.process.try_wait()?.is_some() {
            return Err("the agent wrote no event: see above".into());
        }
        Command::new("/bin/true").status()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    // The first round does not count.
    let mut lines = Lines::after(&agent.events)?;
    let mut now = (Duration::ZERO, Vec::new());
    let mut counted = (agent.times()?, agent.allocations()?, taken()?);
    let (mut rounds, mut told) = (0, 0);
    let begun = Instant::now();
    while rounds <= 1 || begun.elapsed() < Duration::from_secs(seconds) {
        if rounds == 1 {
            (now, told, lines.all) = (<_>::default(), 0, 0);
            counted = (agent.times()?, agent.allocations()?, taken()?);
        }
        lines.begin(mark(rounds));
        agent.signal(Signal::STOP)?;
        storm.rage(temporary.path(), &lines.mark)?;
        agent.signal(Signal::CONT)?;
        now.0 += lines.wait_for(storm.events() as u64)?;
        told += lines.own;
        now.1.push(agent.memory_kib()?);
        rounds += 1;
    }
    rounds -= 1;
    let (after, allocated, taken) = (agent.times()?, agent.allocations()? - counted.1, taken()? - counted.2);
    let per_line = |number: u64| number as f64 / lines.all as f64;
    let raised = rounds as u64 * storm.events() as u64;
    println!(
        "{rounds} storms of {} {name}: {told} of {raised} in lines, which are {} with the machine's own",
        storm.events(),
        lines.all
    );
    let spent = after.iter().map(|(thread, time)| (thread, time.saturating_sub(counted.0.get(thread).copied().unwrap_or(0))));
    let mut all = 0;
    for (thread, time) in spent {
        all += time;
        if per_line(time) >= 1.0 {
            println!("thread {thread}: {:.0} ns for each line", per_line(time));
        }
    }
    println!("all threads: {:.0} ns for each line, {:.0} lines a second and core", per_line(all), 1e9 / per_line(all));
    // Births and ends of processes are read as well, for the table that says who did it.
    let per_event = all as f64 / taken as f64;
    println!("of {taken} events of the kernel: {per_event:.0} ns for each, {:.0} a second and core", 1e9 / per_event);
    println!("by the clock: {:.0} lines a second", told as f64 / now.0.as_secs_f64());
    println!("allocations for each line: {:.1}", per_line(allocated));
    let third = now.1.len().div_ceil(3);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    println!(
        "resident: {} KiB at most in the first third, {} in the last",
        most(&now.1[..third]),
        most(&now.1[now.1.len() - third..])
    );
    Ok(())
}
