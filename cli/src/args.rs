//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portcullis_agent::alerts;
use portcullis_agent::control::EventClass;

/// Enforces policies on containers before their first instruction.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = "Exit codes: 0 yes or done, 1 no or failed, 2 not understood.")]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent: live policy updates, containerd and CRI-O, alerts for many readers.
    Agent,
    /// Load the kernel programs, or upgrade them without a gap.
    Load {
        /// Also when this build is in force: attach it once more, then take the old one out.
        #[arg(long)]
        anew: bool,
    },
    /// Remove the kernel programs and everything that is in force.
    Unload {
        /// Also when containers are armed: they go on unprotected.
        #[arg(long)]
        force: bool,
    },
    /// What is loaded, which containers are armed, what was denied and lost.
    Status {
        #[command(flatten)]
        format: Format,
    },
    /// What this host can do, and the line that fixes what is missing.
    Doctor {
        #[command(flatten)]
        format: Format,
    },
    /// The policies and rules of an armed container.
    Who {
        /// Its id, the beginning of its id, or its name.
        container: String,
        #[command(flatten)]
        format: Format,
    },
    /// The process tree of a container.
    Tree {
        /// Its id, the beginning of its id, or its name.
        container: String,
        #[command(flatten)]
        format: Format,
    },
    /// Watch containers, their processes and what is denied to them.
    Top {
        /// Print one frame as text.
        #[arg(long)]
        once: bool,
    },
    /// List the policies in force; check, explain and test policies.
    #[command(subcommand)]
    Policy(Policy),
    /// Follow denials and audited operations, and what is executed.
    Events(Events),
    /// Add the gate hook to an OCI runtime configuration: from standard input to standard output.
    OciSpecWithGate,
    /// Print shell completions.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// The policies in force, and how many containers each selects.
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Say what is wrong with policies, and what becomes of each rule.
    Check {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Unknown fields are warnings.
        #[arg(long)]
        lenient: bool,
        /// What is to enforce the rules: `auto` is what does on this host.
        #[arg(long, value_enum, default_value = "bpf")]
        backend: BackendChoice,
        #[command(flatten)]
        format: Format,
    },
    /// Say what happens to an operation, and which line of which file decides it.
    Explain(Explain),
    /// Run expectation files: what policies should allow, audit and block.
    Test {
        /// Expectation files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What is done.
    pub operation: OperationName,
    /// To what: a path, a protocol or FAMILY,TYPE,PROTOCOL numbers, a capability, or a system call: CALL itself, or CALL,PATH.
    pub object: String,
    /// The executable that does it.
    #[arg(long, value_name = "PATH")]
    pub from: Option<String>,
    /// The one who does it owns the object.
    #[arg(long)]
    pub owner: bool,
    /// An armed container: its rules as they are in force.
    #[arg(long, conflicts_with_all = ["policies", "name", "image", "labels", "annotations"])]
    pub container: Option<String>,
    /// Policy files or directories; by default the configured directory.
    #[arg(long = "policy", value_name = "PATH")]
    pub policies: Vec<PathBuf>,
    /// Name of the container that is imagined.
    #[arg(long, default_value = "")]
    pub name: String,
    /// Its image.
    #[arg(long, default_value = "")]
    pub image: String,
    /// A label of it.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// An annotation of it.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    pub annotations: Vec<(String, String)>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// BPF LSM.
    Bpf,
    /// AppArmor.
    Apparmor,
    /// BPF LSM where this host's kernel runs it, else AppArmor.
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OperationName {
    Read,
    #[value(alias = "write")]
    Change,
    Exec,
    Socket,
    Capability,
    Syscall,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Events {
    /// Which events.
    #[arg(long, value_enum, default_value_t = Class::Alert)]
    pub class: Class,
    /// Stop after this many.
    #[arg(short = 'n', value_name = "COUNT")]
    pub count: Option<u64>,
    /// Stop when none came for this long.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Only of this container (id, beginning of it, or name).
    #[arg(long)]
    pub container: Option<String>,
    /// Only of containers of this namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only of this pod.
    #[arg(long)]
    pub pod: Option<String>,
    /// Only of containers whose image's name has this in it.
    #[arg(long)]
    pub image: Option<String>,
    /// Only alerts (block, audit) or accesses (passed, denied) with this verdict.
    #[arg(long, value_enum)]
    pub verdict: Option<Verdict>,
    /// Only alerts of this policy, or as POLICY:LINE of this rule of it.
    #[arg(long, value_name = "POLICY")]
    pub rule: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = EventOutput::Json)]
    pub output: EventOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Class {
    /// Denials and audited operations.
    Alert,
    /// What containers execute, where monitor.visibility or their annotation says so; hosts where hostVisibility does.
    Process,
    /// What they open and change, where one of these has file.
    File,
    /// Their sockets, where it has network.
    Network,
    /// The capabilities that they use, where it has capabilities.
    Capabilities,
    /// The last three.
    Access,
    /// All but the alerts.
    Logs,
    /// All of them.
    All,
}

impl From<Class> for EventClass {
    fn from(class: Class) -> EventClass {
        match class {
            Class::Alert => EventClass::Alert,
            Class::Process => EventClass::Process,
            Class::File => EventClass::File,
            Class::Network => EventClass::Network,
            Class::Capabilities => EventClass::Capabilities,
            Class::Access => EventClass::Access,
            Class::Logs => EventClass::Logs,
            Class::All => EventClass::All,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verdict {
    /// An alert: denied.
    Block,
    /// An alert: told.
    Audit,
    /// An access that nothing denied.
    Passed,
    /// An access that a policy or another security module denied.
    Denied,
}

impl From<Verdict> for alerts::Verdict {
    fn from(verdict: Verdict) -> alerts::Verdict {
        match verdict {
            Verdict::Block => alerts::Verdict::Block,
            Verdict::Audit => alerts::Verdict::Audit,
            Verdict::Passed => alerts::Verdict::Passed,
            Verdict::Denied => alerts::Verdict::Denied,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventOutput {
    /// All that is known of an event.
    Json,
    /// A line for people.
    Compact,
    /// Columns for people.
    Table,
    /// The JSON of KubeArmor.
    Kubearmor,
    /// Events of OCSF 1.7, as JSON.
    Ocsf,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
