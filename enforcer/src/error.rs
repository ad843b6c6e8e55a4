use std::path::PathBuf;

use crate::apparmor::{GenerateError, ProfileName, StoreError};
use crate::automaton::CompileError;

/// Why something could not be planned, armed, disarmed or told. Each says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file is wrong.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, and the fix.
        message: String,
    },
    /// A file or directory can't be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried, e.g. `read`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A limit on what is read was exceeded.
    #[error("{} {what}; {help}", path.display())]
    Limit {
        /// The file or directory.
        path: PathBuf,
        /// What it has too much of.
        what: String,
        /// The next step.
        help: &'static str,
    },
    /// A file of the state directory is not what was written there.
    #[error("{} is damaged: {reason}; remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process holds the lock.
    #[error("another process has been changing the state in {} for {seconds} seconds; find it with: fuser {}", path.display(), path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A container's id could not be the name of a file.
    #[error("`{}` cannot be a container's id: 1 to {max} letters, digits, `-`, `_`, `.` or `:` are expected", id.escape_debug())]
    Id {
        /// As given.
        id: String,
        /// The longest there may be.
        max: usize,
    },
    /// The rules of the container are too many or too complex.
    #[error("the policies of container `{container}` cannot be compiled: {source}")]
    Compile {
        /// Its name or id.
        container: String,
        /// Why.
        #[source]
        source: CompileError,
    },
    /// The rules of the container cannot be profiles.
    #[error("the policies of container `{container}` cannot be AppArmor profiles: {source}")]
    Generate {
        /// Its name or id.
        container: String,
        /// Why.
        #[source]
        source: GenerateError,
    },
    /// AppArmor, its parser or its profiles.
    #[error(transparent)]
    AppArmor(#[from] StoreError),
    /// Nobody gave a container the label that AppArmor confines it by.
    #[error(
        "AppArmor is to confine container `{container}`, and its configuration has not got it the label {profile}; have the engine run it by portcullis-runtime, see contrib/runtime"
    )]
    NoCarrier {
        /// Its name or id.
        container: String,
        /// The profile.
        profile: ProfileName,
    },
    /// A process has not the label that it must have.
    #[error(
        "process {pid} of container `{container}` is not confined by its AppArmor profile {profile}, but by `{label}`; start the container again"
    )]
    Unconfined {
        /// Its name or id.
        container: String,
        /// Its pid.
        pid: u32,
        /// The profile.
        profile: ProfileName,
        /// What confines it.
        label: String,
    },
    /// A container that AppArmor confines, and nobody knows where or by which rules.
    #[error("the records of container `{container}` are gone, so what may be executed in it cannot be told; start it again")]
    NoRecord {
        /// Its name or id.
        container: String,
    },
    /// A policy denies what a runtime is about to execute.
    #[error("permission denied: {policy} ({place}) denies executing {path}{untold}")]
    Denied {
        /// What was to be executed.
        path: String,
        /// The policy; a posture, where no rule speaks of it.
        policy: String,
        /// Where the rule is written.
        place: String,
        /// Whose file it is, where that can be told.
        owner: Option<u32>,
        /// Why no alert tells it, as the end of the sentence.
        untold: String,
    },
    /// Which program a runtime is about to execute cannot be told.
    #[error("whether {path} may be executed cannot be told: {source}")]
    Unjudged {
        /// As it was asked for.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// All slots are taken.
    #[error("{limit} containers are armed on this host, which is the most there can be; stop one")]
    NoSlot {
        /// The limit.
        limit: u32,
    },
    /// All entries for policy sets, or all memory for them, is taken.
    #[error(
        "the kernel tables have no room for another policy set of {bytes} bytes; let more containers share their policies, or stop some"
    )]
    NoRoom {
        /// Size of the set.
        bytes: u32,
    },
    /// A container's place.
    #[error(transparent)]
    Place(#[from] crate::place::PlaceError),
    /// A policy that nobody can tell whether it selects the container.
    #[error(transparent)]
    Undecided(#[from] crate::unknown::Undecided),
    /// The tasks of a container that ran already could not all be labelled.
    #[error(
        "{failed} tasks of the container that run already could not be put under its policy: the kernel has no memory; try again when it has"
    )]
    Unlabelled {
        /// How many.
        failed: u32,
    },
    /// They fork faster than they are labelled.
    #[error(
        "the container makes new tasks faster than they can be put under its policy ({passes} passes over all tasks); it is tried again"
    )]
    Restless {
        /// How often all tasks were visited.
        passes: u32,
    },
    /// The kernel programs.
    #[error(transparent)]
    Kernel(#[from] portcullis_ebpf::Error),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Error {
        Error::File { what, path: path.into(), source: source.into() }
    }
}
