use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;

/// What can go wrong between user space and the kernel programs. Each says what to do next where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is pinned on this host.
    #[error("the kernel programs are not loaded on this host; run: portcullis load")]
    NotLoaded,
    /// This host can't enforce.
    #[error("this host cannot enforce with BPF: {reason}; {fix}")]
    Unsupported {
        /// What is missing.
        reason: String,
        /// The next step.
        fix: String,
    },
    /// A hook that enforcement can't do without does not exist in this kernel.
    #[error("this kernel has no LSM hook {hook}, which the program {program} needs; Linux 5.17 or newer is needed")]
    MissingHook {
        /// The program.
        program: String,
        /// Its hook.
        hook: String,
    },
    /// The object does not hold what its headers promise. A defect of the build, never of the host.
    #[error("the compiled kernel object is not as expected: {0}; build it again with a supported clang")]
    Object(String),
    /// `/sys/kernel/btf/vmlinux` or the object's type information can't be read.
    #[error("kernel type information cannot be used: {0}; the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    Btf(String),
    /// The loader refused the object or a map.
    #[error("the kernel refused the maps of the programs: {}", chain(.0.as_ref()))]
    Maps(#[source] Box<aya::EbpfError>),
    /// The verifier or the kernel's policy refused a program.
    #[error("the kernel refused the program {program}: {}", refusal(source))]
    Program {
        /// The program.
        program: String,
        /// Why, with the verifier's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link could not be pinned.
    #[error("the link of {program} could not be pinned: {}", chain(source))]
    Pin {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: aya::pin::PinError,
    },
    /// The programs are attached and yet the kernel does not call them.
    #[error(
        "the programs are attached but the kernel does not run them: BPF is not among the active security modules; \
         add bpf to lsm= on the kernel command line and restart"
    )]
    NotRunning,
    /// A system call failed.
    #[error("{what} failed: {source}")]
    System {
        /// What was tried, with its object.
        what: String,
        /// The reason of the system.
        #[source]
        source: io::Error,
    },
    /// A file or directory can't be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The reason of the system.
        #[source]
        source: io::Error,
    },
    /// A pinned map is not what this version of the layout says.
    #[error("the pinned map {map} has another shape than layout {layout}; run: portcullis unload, then load again")]
    Shape {
        /// The map.
        map: &'static str,
        /// This build's layout.
        layout: u32,
    },
    /// An index or an offset is outside of its table.
    #[error("{what} {index} is out of range, the limit is {limit}")]
    Range {
        /// What was addressed.
        what: &'static str,
        /// Where.
        index: u64,
        /// The first that does not exist.
        limit: u64,
    },
    /// Another process reads the alerts.
    #[error("another process already reads the alerts; stop it first, each alert is delivered once")]
    EventsTaken,
    /// The monitor is not loaded on this host.
    #[error("the monitor's programs are not loaded on this host")]
    MonitorNotLoaded,
    /// Another process reads the events of processes.
    #[error("another process already reads the events of processes; stop it first, each event is delivered once")]
    ProcessEventsTaken,
    /// Another process reads the events of accesses.
    #[error("another process already reads the events of accesses; stop it first, each event is delivered once")]
    AccessEventsTaken,
    /// No cgroup more can have a visibility of its own.
    #[error("{limit} cgroups already have a visibility of their own, and no more can; take one back first")]
    TooManyOverrides {
        /// How many can.
        limit: u32,
    },
}

impl Error {
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { what: what.into(), source: source.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Error {
        Error::File { path: path.into(), source: source.into() }
    }
}

/// Lines of the verifier's log that an error carries: its reason is at the end, and the rest can be a million lines.
const VERIFIER_LINES: usize = 12;

/// Why a program was refused, and the next step.
fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return chain(error);
    };
    // EPERM comes from capabilities or from kernel lockdown (security/lockdown, LOCKDOWN_BPF_*), which look alike.
    let step = match io_error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run as root with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, on a host whose kernel lockdown allows it"
        }
        _ => "",
    };
    format!("{io_error}{step}{}", last_lines(&verifier_log.to_string()))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return String::new();
    }
    let last = &lines[lines.len().saturating_sub(VERIFIER_LINES)..];
    format!("; the verifier ended with:\n{}", last.join("\n"))
}

/// The whole chain of reasons: the loader keeps the kernel's words in the sources of its errors.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_is_told_by_its_end() {
        assert_eq!(last_lines(" \n\n"), "");
        let log: String = (0..1000).map(|line| format!("{line}\n")).collect();
        let told = last_lines(&log);
        assert_eq!(told.lines().count(), 1 + VERIFIER_LINES);
        assert!(told.ends_with("\n998\n999"));
    }
}
