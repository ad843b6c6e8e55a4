//! Why a command could not do what was asked.

use std::path::{Path, PathBuf};

/// A failure, as a sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Kernel(#[from] portcullis_ebpf::Error),
    #[error("{0}")]
    Enforcer(#[from] portcullis_enforcer::Error),
    #[error("{0}")]
    Agent(#[from] portcullis_agent::Error),
    #[error("{0}")]
    Client(#[from] portcullis_agent::control::ClientError),
    #[error(
        "an agent is running, as process {pid}, and would be without its kernel programs; stop it first: systemctl stop portcullis"
    )]
    AgentRuns { pid: u32 },
    #[error(
        "standard input is no OCI runtime configuration ({reason}); pipe one into this, like: ctr oci spec | portcullis oci-spec-with-gate"
    )]
    NoSpec { reason: String },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("more than {limit} policy files; name fewer")]
    TooManyFiles { limit: usize },
    #[error("no armed container is called `{0}`; `portcullis status` lists them")]
    NoSuchContainer(String),
    #[error("`{prefix}` could be {count} containers; give more of its id")]
    Ambiguous { prefix: String, count: usize },
    #[error("{count} containers are armed and would go on unprotected; stop them, or say --force")]
    StillArmed { count: usize },
    #[error("`{text}` is not {wanted}")]
    NotUnderstood { text: String, wanted: &'static str },
    #[error("{path}: {errors} of its policies are refused; run `portcullis policy check {path}`", path = path.display())]
    Refused { path: PathBuf, errors: usize },
    #[error(
        "only alerts and accesses have a verdict, and only alerts a rule; leave out --verdict and --rule, or choose another --class"
    )]
    NoVerdict,
    #[error("where AppArmor enforces, the agent reads what is denied, and none runs; start it: systemctl start portcullis")]
    NoDenials,
    #[error("only the agent knows processes and accesses, and none runs; start it: systemctl start portcullis")]
    NoAgent,
    #[error("standard input and output have to be a terminal; `portcullis top --once` prints one frame")]
    NoTerminal,
    #[error("the terminal cannot be used: {0}")]
    Terminal(std::io::Error),
    #[error("nothing can be shown: {0}")]
    NoSample(String),
    #[error("the system gives no thread: {0}; raise the limit of tasks")]
    Thread(std::io::Error),
    #[error(
        "this kernel runs neither BPF LSM nor AppArmor, or /sys/kernel/security/lsm cannot be read; name the backend: --backend bpf or --backend apparmor"
    )]
    NoBackend,
    #[error("no cases in there; name expectation files, or directories that hold files called *{ending}")]
    NothingToTest { ending: &'static str },
    #[error("writing the answer: {0}")]
    Output(std::io::Error),
}

impl Failure {
    pub(crate) fn file(path: &Path, error: std::io::Error) -> Failure {
        Failure::File { path: path.to_owned(), error }
    }
}
