//! What an event costs the agent, from the kernel's ring to a line of JSON in a file.
//!
//! `cargo run --release -p portcullis-agent --example monitor_bench processes|files|replay [SECONDS]`, as root, on a machine where the
//! monitor is not loaded. Files are told only where the kernel takes BPF as a security module; `replay` is for where it does not. `json`
//! is for what it costs to write a line, and no more.
//!
//! The agent is a process of its own, with the real monitor, told to tell everything that the host executes, or opens. It is held
//! while a storm fills the ring, and let go: so its time is measured and not that of the storm. Round by round for so many seconds.
//!
//! In a replay the agent is the same, and the rings are memory that a thread of it fills as the kernel would: processes open files, a few
//! hundred each. That thread's time does not count.

mod agent;
mod json;
mod lines;
mod replay;

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_ebpf::monitor::{self, Classes};
use rustix::process::Signal;

use self::agent::{Agent, STORM_THREAD, be_agent};
use self::lines::Lines;

type Failed = Box<dyn Error>;

/// Storms before the same files are opened again: by then the kernel does not only count it.
const DIRECTORIES: usize = 20;
const DEFAULT_SECONDS: u64 = 30;
/// How long a storm's lines may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens in a storm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storm {
    Executions,
    Opens,
    /// Opens that the kernel has not seen.
    Replayed,
}

impl Storm {
    fn named(name: &str) -> Result<Storm, Failed> {
        match name {
            "processes" => Ok(Storm::Executions),
            "files" => Ok(Storm::Opens),
            "replay" => Ok(Storm::Replayed),
            _ => Err(format!("`{name}` is neither processes nor files nor replay").into()),
        }
    }

    fn classes(self) -> Classes {
        match self {
            Storm::Executions => Classes::PROCESS,
            Storm::Opens | Storm::Replayed => Classes::FILE,
        }
    }

    /// How often: about what the ring holds.
    fn events(self) -> usize {
        match self {
            Storm::Executions => 2_500,
            Storm::Opens | Storm::Replayed => 12_000,
        }
    }

    /// Makes it happen while the agent is held; each event has `mark` in its line.
    fn rage(self, agent: &mut Agent, directory: &Path, mark: &str) -> Result<(), Failed> {
        if self == Storm::Replayed {
            return agent.order(mark).map(drop);
        }
        agent.signal(Signal::STOP)?;
        for number in 0..self.events() {
            match self {
                Storm::Executions => drop(Command::new("/bin/true").arg(format!("{mark}{number}")).status()?),
                _ => drop(File::open(directory.join(format!("{mark}{number}")))?),
            }
        }
        agent.signal(Signal::CONT)
    }
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["agent", storm, directory] => be_agent(Storm::named(storm)?, Path::new(directory)),
        ["json"] => json::compare(),
        [storm] => measure(storm, DEFAULT_SECONDS),
        [storm, seconds] => measure(storm, seconds.parse()?),
        _ => Err("usage: monitor_bench processes|files|replay [SECONDS], or monitor_bench json".into()),
    }
}

/// Events that were put into the kernel's rings.
fn taken(storm: Storm) -> Result<u64, Failed> {
    if storm == Storm::Replayed {
        return Ok(0);
    }
    let counts = monitor::Monitor::open()?.counts()?;
    Ok(counts.events - counts.lost + counts.accesses - counts.accesses_lost)
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
        match storm {
            Storm::Replayed => storm.rage(&mut agent, temporary.path(), "first-")?,
            _ => drop(Command::new("/bin/true").status()?),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The first round does not count.
    let mut lines = Lines::after(&agent.events)?;
    let mut now = (Duration::ZERO, Vec::new());
    let mut counted = (agent.times()?, agent.allocations()?, taken(storm)?);
    let (mut rounds, mut told) = (0, 0);
    let begun = Instant::now();
    while rounds <= 1 || begun.elapsed() < Duration::from_secs(seconds) {
        if rounds == 1 {
            (now, told, lines.all) = (<_>::default(), 0, 0);
            counted = (agent.times()?, agent.allocations()?, taken(storm)?);
        }
        let mark = mark(rounds);
        lines.begin(mark.clone());
        storm.rage(&mut agent, temporary.path(), &mark)?;
        now.0 += lines.wait_for(storm.events() as u64)?;
        told += lines.own;
        now.1.push(agent.memory_kib()?);
        rounds += 1;
    }
    rounds -= 1;
    let (after, allocated, taken) = (agent.times()?, agent.allocations()? - counted.1, taken(storm)? - counted.2);
    let per_line = |number: u64| number as f64 / lines.all as f64;
    let raised = rounds as u64 * storm.events() as u64;
    println!(
        "{rounds} storms of {} {name}: {told} of {raised} in lines, which are {} with the machine's own",
        storm.events(),
        lines.all
    );
    let spent = after.iter().map(|(thread, time)| (thread, time.saturating_sub(counted.0.get(thread).copied().unwrap_or(0))));
    let mut all = 0;
    for (thread, time) in spent.filter(|(thread, _)| *thread != STORM_THREAD) {
        all += time;
        if per_line(time) >= 1.0 {
            println!("thread {thread}: {:.0} ns for each line", per_line(time));
        }
    }
    println!("all threads: {:.0} ns for each line, {:.0} lines a second and core", per_line(all), 1e9 / per_line(all));
    if taken > 0 {
        // Births and ends of processes are read as well, for the table that says who did it.
        let per_event = all as f64 / taken as f64;
        println!("of {taken} events of the kernel: {per_event:.0} ns for each, {:.0} a second and core", 1e9 / per_event);
    }
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
