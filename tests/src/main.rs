//! End-to-end tests: what the kernel does to real containers, compared with what the policies mean.
//!
//! Runs as root on a machine whose kernel enforces (see hack/vm); everything else it needs is in this one file and in the
//! directory of the binaries under test. README.md beside this crate tells what each suite proves.

mod apparmor;
mod attacks;
mod bundle;
mod conformance;
mod cri;
mod events;
mod faults;
mod guest;
mod harmless;
mod image;
mod monitor;
mod podman;
mod process;
mod report;
mod restarts;
mod runtime;
mod scale;
mod starts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use guest::Guest;
use report::Report;
use runtime::Runtime;

/// Why a test could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file, or the start of a program.
    #[error("{what}: {source}")]
    Io {
        /// The file or the command.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It took too long and was ended.
    #[error("`{what}` gave no answer in {} s", limit.as_secs())]
    Timeout {
        /// The command.
        what: String,
        /// What it was given.
        limit: Duration,
    },
    /// It ended with an error.
    #[error("`{what}` failed: {complaint}")]
    Command {
        /// The command.
        what: String,
        /// Exit code and the end of standard error.
        complaint: String,
    },
    /// A call was answered with a refusal.
    #[error("{what} was refused (status {code}): {message}")]
    Refused {
        /// The call.
        what: String,
        /// gRPC's status.
        code: i32,
        /// What was said.
        message: String,
    },
    /// An answer that is none.
    #[error("{what} answered {text:?}")]
    Answer {
        /// Who.
        what: String,
        /// What it said.
        text: String,
    },
}

impl Failure {
    fn io(what: impl std::fmt::Display, source: std::io::Error) -> Self {
        Failure::Io { what: what.to_string(), source }
    }
}

/// A result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Conformance,
    Attacks,
    Starts,
    Harmless,
    Restarts,
    Faults,
    Scale,
    Monitor,
    Cri,
    Apparmor,
}

const SUITES: [Suite; 10] = [
    Suite::Conformance,
    Suite::Attacks,
    Suite::Starts,
    Suite::Harmless,
    Suite::Restarts,
    Suite::Faults,
    Suite::Scale,
    Suite::Monitor,
    Suite::Cri,
    Suite::Apparmor,
];

/// End-to-end tests of Portcullis. Changes this machine's containers and kernel state: for a virtual machine.
#[derive(Debug, Parser)]
#[command(name = "portcullis-e2e")]
struct Arguments {
    /// Suites to run; all without any
    suites: Vec<Suite>,
    /// But not these
    #[arg(long)]
    except: Vec<Suite>,
    /// Directory of portcullis and portcullis-hook [default: this program's]
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Directory of conformance documents [default: those of the repository, which are in this program]
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Where to put root file systems; not a tmpfs
    #[arg(long, default_value = "/var/tmp/portcullis-e2e")]
    work: PathBuf,
    /// Few repetitions, one runtime where two prove the same
    #[arg(long)]
    ci: bool,
    /// Repetitions where a suite repeats
    #[arg(long)]
    count: Option<u32>,
    /// The clock counts instructions, as in a guest of `hack/vm run --icount`: limits of time are those that are promised
    #[arg(long)]
    counted_time: bool,
    /// Only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Use these runtimes [default: those that are installed]
    #[arg(long)]
    runtime: Vec<Runtime>,
    /// Leave Portcullis out: shows what the tests see without it
    #[arg(long)]
    without: bool,
    /// Write the probe and the attacks here and end
    #[arg(long)]
    unpack: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portcullis-e2e: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let own = std::env::current_exe().map_err(|source| Failure::io("this program", source))?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let work = arguments.unpack.clone().unwrap_or(arguments.work);
    let guest = Guest {
        binaries: arguments.bin.unwrap_or(beside),
        probe: work.join("portcullis-probe"),
        attack: work.join("portcullis-attack"),
        observer: work.join("portcullis-observer"),
        tiny: work.join("tiny"),
        policies: work.join("policies"),
        config: work.join("config.yaml"),
        settings: String::new(),
        work,
        runtimes: if arguments.runtime.is_empty() { Runtime::available() } else { arguments.runtime },
        ci: arguments.ci,
        counted_time: arguments.counted_time,
        count: arguments.count,
        only: arguments.only,
        without: arguments.without,
        carried: false,
    };
    guest.prepare()?;
    if arguments.unpack.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut suites = if arguments.suites.is_empty() { SUITES.to_vec() } else { arguments.suites };
    suites.retain(|suite| !arguments.except.contains(suite));
    let mut report = Report::default();
    for suite in suites {
        let begin = Instant::now();
        let result = guest.load().and_then(|()| match suite {
            Suite::Conformance => conformance::run(&guest, arguments.corpus.as_deref(), &mut report),
            Suite::Attacks => attacks::run(&guest, &mut report),
            Suite::Starts => starts::run(&guest, "starts", &mut report),
            Suite::Harmless => harmless::run(&guest, &mut report),
            Suite::Restarts => restarts::run(&guest, &mut report),
            Suite::Faults => faults::run(&guest, &mut report),
            Suite::Scale => scale::run(&guest, &mut report),
            Suite::Monitor => monitor::run(&guest, &mut report),
            Suite::Cri => cri::run(&guest, &mut report),
            Suite::Apparmor => apparmor::run(&guest, arguments.corpus.as_deref(), &mut report),
        });
        if let Err(error) = result {
            report.fail(&format!("{suite:?}").to_lowercase(), error);
        }
        println!("# {}: {} s", format!("{suite:?}").to_lowercase(), begin.elapsed().as_secs());
    }
    Ok(report.finish())
}
