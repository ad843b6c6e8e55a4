//! What a decision costs on this machine: the kernel's own functions, run by `BPF_PROG_TEST_RUN`, beside the usual way.
//! With `--guest OPS`, what system calls cost in a virtual machine.
//!
//! Prints tables on stdout and, with `--json FILE`, appends one line for each number. `hack/bench` calls it.

mod apparmor;
mod guest;
mod monitor;
mod paths;
mod report;
mod rules;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use portcullis_ebpf::Ladder;
use portcullis_ebpf::bench::{Bench, Mode};
use portcullis_enforcer::automaton::{Budget, Compiled, compile};

use report::{Gate, Guest, Report};
use rules::Mix;

/// Rules in a set.
const RULES: [usize; 4] = [10, 100, 1_000, 10_000];
/// The set that single numbers are told for.
const USUAL_RULES: usize = 100;
/// Bytes and components of the paths.
const PATHS: [(usize, usize); 4] = [(12, 3), (64, 7), (200, 16), (1_000, 80)];
/// The path that gates speak of.
const USUAL_PATH: usize = 64;
/// Timings taken of each mode; the least of them is told, for what else the machine does can only add.
const TRIES: u32 = 40;
/// How long one timing should last.
const TRY: Duration = Duration::from_millis(4);

/// A decision on a path of 64 bytes, in nanoseconds.
const GATE_DECISION_NS: f64 = 250.0;
/// A decision with 1,000 rules against one with 10.
const GATE_RULES_RATIO: f64 = 1.25;

/// Times policy decisions in the kernel.
#[derive(Parser)]
struct Args {
    /// Exit with 1 when a number is over its limit.
    #[arg(long)]
    gate: bool,
    /// In a virtual machine that counts instructions: the cost of system calls, by this measuring program (tests/bench/ops.c).
    /// Loads and unloads the kernel programs: not for a machine that is in use.
    #[arg(long, value_name = "OPS")]
    guest: Option<std::path::PathBuf>,
    /// Load what this machine takes of the kernel programs, with stand-ins for the security programs that it refuses, so that
    /// the hook can be timed. `portcullis unload` ends it.
    #[arg(long)]
    stand_in: bool,
    /// Append a JSON line for each number to this file.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let kept = match &args.guest {
        None if args.stand_in => stand_in(args.json.as_deref()),
        Some(ops) => {
            Guest::open(args.json.as_deref()).map_err(Failure::from).and_then(|mut report| guest::measure(ops, &mut report))
        }
        None => measure(&args),
    };
    match kept {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(u8::from(args.gate)),
        Err(error) => {
            eprintln!("portcullis-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stand_in(json: Option<&std::path::Path>) -> Result<bool, Failure> {
    let (time, absent) = portcullis_ebpf::bench::stand_in()?;
    Report::open(json)?.stand_in(time, absent);
    Ok(true)
}

pub(crate) type Failure = Box<dyn std::error::Error>;

/// A compiled set, or why there is none.
pub(crate) struct Set {
    pub(crate) mix: Mix,
    compiled: Result<Compiled, String>,
}

fn measure(args: &Args) -> Result<bool, Failure> {
    let mut report = Report::open(args.json.as_deref())?;
    let paths: Vec<Vec<u8>> = PATHS.iter().map(|&(bytes, depth)| paths::path(bytes, depth)).collect();
    let sets: Vec<Set> = RULES.iter().map(|&count| build(count, &paths, &mut report)).collect();

    let mut loaded = Vec::new();
    for ladder in Bench::ladders()? {
        let (bench, cost) = Bench::load(ladder)?;
        report.loaded(name(ladder), &cost);
        loaded.push((ladder, bench));
    }
    // Before the jail, which has no parser.
    apparmor::compiling(&sets, &mut report)?;
    let _jail = paths::Jail::enter(&paths)?;
    for (ladder, bench) in &mut loaded {
        ours(*ladder, bench, &sets, &paths, &mut report)?;
    }
    if let Some((ladder, bench)) = loaded.first_mut() {
        parts(*ladder, bench, &sets, &paths, &mut report)?;
        other_ways(bench, &sets, &paths, &mut report)?;
    }
    let decision = |rules| report.find("decision", "cast", rules, USUAL_PATH);
    let usual = decision(USUAL_RULES);
    let ratio = decision(1_000).zip(decision(10)).map(|(many, few)| many / few);
    let gates = [
        Gate { what: "decision on 64 bytes, 100 rules, ns", value: usual, limit: GATE_DECISION_NS },
        Gate { what: "1,000 rules against 10, ratio", value: ratio, limit: GATE_RULES_RATIO },
    ];
    report.end();
    Ok(report::gates(&gates))
}

fn name(ladder: Ladder) -> &'static str {
    match ladder {
        Ladder::Cast => "cast",
        Ladder::Read => "read",
    }
}

fn build(count: usize, paths: &[Vec<u8>], report: &mut Report) -> Set {
    let mix = rules::mix(count, paths);
    let mut best = Duration::MAX;
    let mut compiled = Err(String::new());
    for _ in 0..3 {
        let begun = Instant::now();
        compiled = compile(&mix.set, Budget::default()).map_err(|error| error.to_string());
        best = best.min(begun.elapsed());
    }
    report.compiled(count, best, &compiled);
    Set { mix, compiled }
}

/// The least time of one repetition of a mode, without the harness.
fn time(bench: &mut Bench, mode: Mode) -> Result<f64, Failure> {
    let once = bench.run(mode, 1_000)?.each().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and some millions")]
    let runs = (TRY.as_secs_f64() * 1e9 / once).clamp(1.0, 4e6) as u32;
    let mut least = f64::MAX;
    for _ in 0..TRIES {
        least = least.min(bench.run(mode, runs)?.each());
    }
    Ok(least)
}

fn net(bench: &mut Bench, mode: Mode) -> Result<f64, Failure> {
    let harness = time(bench, Mode::Empty)?;
    Ok((time(bench, mode)? - harness).max(0.0))
}

fn place(bench: &mut Bench, compiled: &Compiled) -> Result<(), Failure> {
    let (set, tables) = compiled.relocate(0, 0).ok_or("the set does not fit a segment")?;
    bench.place(&set, &tables);
    bench.run(Mode::Setup, 0)?;
    Ok(())
}

/// Whole decisions: every path with every set.
fn ours(ladder: Ladder, bench: &mut Bench, sets: &[Set], paths: &[Vec<u8>], report: &mut Report) -> Result<(), Failure> {
    for set in sets {
        let Ok(compiled) = &set.compiled else { continue };
        for path in paths {
            paths::go(path)?;
            place(bench, compiled)?;
            let check = bench.run(Mode::Decide, 1)?;
            if check.denied != 0 || check.outcome != 1 {
                return Err(format!("the decision went wrong: {check:?}").into());
            }
            report.add("decision", name(ladder), set.mix.count, path.len(), net(bench, Mode::Decide)?);
        }
    }
    Ok(())
}

/// Where the time goes, with the usual set.
fn parts(ladder: Ladder, bench: &mut Bench, sets: &[Set], paths: &[Vec<u8>], report: &mut Report) -> Result<(), Failure> {
    let Some(set) = sets.iter().find(|set| set.mix.count == USUAL_RULES) else { return Ok(()) };
    let Ok(compiled) = &set.compiled else { return Ok(()) };
    for path in paths {
        paths::go(path)?;
        place(bench, compiled)?;
        for (what, mode) in [("identity", Mode::Identity), ("climb", Mode::Climb), ("match", Mode::Match)] {
            report.add(what, name(ladder), USUAL_RULES, path.len(), net(bench, mode)?);
        }
    }
    Ok(())
}

/// What is commonly done instead.
fn other_ways(bench: &mut Bench, sets: &[Set], paths: &[Vec<u8>], report: &mut Report) -> Result<(), Failure> {
    for set in sets {
        bench.way_rules(&set.mix.keys)?;
        for path in paths.iter().filter(|path| path.len() < rules::WAY_PATH_MAX) {
            paths::go(path)?;
            report.add("copy and hash", "", set.mix.count, path.len(), net(bench, Mode::Way)?);
        }
    }
    for path in paths {
        paths::go(path)?;
        if path.len() < rules::WAY_PATH_MAX {
            report.add("copied path", "", USUAL_RULES, path.len(), net(bench, Mode::WayPath)?);
            report.add("hash look-ups", "", USUAL_RULES, path.len(), net(bench, Mode::WayMatch)?);
        }
        let mut least = f64::MAX;
        for _ in 0..TRIES {
            least = least.min(bench.d_path()?.each());
        }
        report.add("bpf_d_path", "", USUAL_RULES, path.len(), least);
    }
    Ok(())
}
