//! portcullis-runtime: an OCI runtime that has another one do the work.
//!
//! Where AppArmor enforces, a container is confined by the label in its configuration, and by nothing else that could be said later.
//! Engines write that configuration and give no one else a word in it, but for the runtime that they run. So this is one: it gives
//! containers that a policy is for their label, and what is executed in them later as well, and then becomes the real runtime, with
//! the same words, descriptors and process. Everything else, and everything where the kernel programs enforce, it passes through
//! untouched. What the label means the gate hook says, which it adds.

mod command;
mod config;
mod log;
pub mod precreate;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use portcullis_enforcer::Carrier;
use portcullis_enforcer::apparmor::{Label, ProfileName};
use portcullis_enforcer::place::{Host, ReadError, host};
use portcullis_enforcer::program::Program;
use portcullis_enforcer::unknown::{self, Undecided};
use portcullis_policy::select::applies;

use self::command::{Exec, Request, UnknownWord};
use self::config::Config;
use crate::args::FailPolicy;
use crate::bundle::{Bundle, BundleError, CONFIG, MAX_CONFIG_BYTES, Process, WrittenProcess};
use crate::enforcement::{Carrying, Enforcement, Failure, is_denial};
use crate::run::{HookError, line, one_line, who};
use crate::state::{State, StateError, object};

/// What the name begins with by which this program is to run another: `portcullis-crun` runs `crun`.
const LINK_PREFIX: &str = "portcullis-";
/// The runtimes that are run without such a name, of those that are installed the first.
const RUNTIMES: &[&str] = &["crun", "runc"];
/// Where runtimes are installed. The environment is the engine's, and not asked.
const DIRECTORIES: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What the process is to become, or why it must not.
#[derive(Debug, PartialEq, Eq)]
pub struct Carried {
    /// The runtime's words; nothing where it must not run.
    pub words: Option<Vec<OsString>>,
    /// Lines for standard error.
    pub lines: Vec<String>,
}

/// Why a container or a program in it is not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The command line.
    #[error(transparent)]
    Words(#[from] UnknownWord),
    /// The container's id.
    #[error(transparent)]
    State(#[from] StateError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A configuration could not be read.
    #[error("the configuration is unusable: {0}")]
    Read(#[from] ReadError),
    /// Not a configuration.
    #[error("{path} is not a configuration: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// A container without a program.
    #[error("{path} has no process, which is what AppArmor would confine")]
    NoProcess {
        /// The file.
        path: PathBuf,
    },
    /// Hooks that are none.
    #[error("{path} has hooks that are none, so that the gate cannot be among them")]
    Hooks {
        /// The file.
        path: PathBuf,
    },
    /// Annotations that are none.
    #[error("{path} has annotations that are none, so that it cannot be noted who has given the label")]
    Annotations {
        /// The file.
        path: PathBuf,
    },
    /// A configuration could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A label that would come from elsewhere.
    #[error(
        "the container is to be restored with --lsm-profile, which would take the place of its policy's; leave that option out"
    )]
    Restored,
    /// A configuration of nobody, or of several.
    #[error(
        "its configuration is that of a Podman container, and one, by the name of its cgroup, the mount of /run/.containerenv and the working directory, but these say {found:?}; only Podman is to run this hook, as its stage `precreate`"
    )]
    WhichContainer {
        /// The ids.
        found: Vec<String>,
    },
    /// Podman's files are not where they should be.
    #[error("Podman's directory of the container {id} is not beside its root file system (DRIVER-containers/ID/userdata)")]
    NoStorage {
        /// The id.
        id: String,
    },
    /// Who the container is.
    #[error(transparent)]
    Who(#[from] HookError),
    /// A policy that nobody can tell whether it applies.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// The enforcer.
    #[error("{0}")]
    Enforcement(Failure),
    /// Rootless.
    #[error(
        "containers without root are not protected: AppArmor profiles are loaded by root; run the container as root, or by another runtime than portcullis-runtime"
    )]
    Rootless,
}

impl From<Failure> for CarrierError {
    fn from(failure: Failure) -> Self {
        CarrierError::Enforcement(failure)
    }
}

/// Does what has to be done before the real runtime is given these words.
pub fn carry<E: Carrying>(host: &Host, enforcement: &E, words: Vec<OsString>) -> Carried {
    let (id, done) = match command::parse(&words) {
        Ok(Request::Other) => return Carried { words: Some(words), lines: Vec::new() },
        Ok(Request::Create { id, bundle, config, lsm_profile }) => {
            let file = config.unwrap_or_else(|| CONFIG.into());
            let done = create(host, enforcement, &id, &bundle, &file, lsm_profile);
            (id, done.map(|()| words.clone()))
        }
        Ok(Request::Start { id }) => {
            let done = start(enforcement, &id);
            (id, done.map(|()| words.clone()))
        }
        Ok(Request::Exec(asked)) => {
            let done = exec(enforcement, &asked, &words);
            (asked.id, done)
        }
        Err(error) => (
            String::new(),
            enforces(enforcement).and_then(|enforces| if enforces { Err(error.into()) } else { Ok(words.clone()) }),
        ),
    };
    match done {
        Ok(words) => Carried { words: Some(words), lines: Vec::new() },
        Err(error) => refuse_or_permit(enforcement, &id, &error, words),
    }
}

/// Whether there is anything to do: AppArmor enforces, and there are policies to enforce.
fn enforces<E: Carrying>(enforcement: &E) -> Result<bool, CarrierError> {
    Ok(enforcement.carries()? && enforcement.policies()?.is_some())
}

fn create<E: Carrying>(
    host: &Host,
    enforcement: &E,
    id: &str,
    directory: &Path,
    file: &Path,
    lsm_profile: bool,
) -> Result<(), CarrierError> {
    if !enforces(enforcement)? {
        return Ok(());
    }
    if host.uid != 0 {
        return Err(CarrierError::Rootless);
    }
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let file = directory.join(file);
    let bytes = host::read(&file, MAX_CONFIG_BYTES)?;
    let create = Create { id, directory: &directory, file: &file, carrier: Carrier::Runtime, lsm_profile };
    configure(host, enforcement, &create, &bytes)?.map_or(Ok(()), |config| config.write())
}

/// A container that is to be made.
struct Create<'a> {
    id: &'a str,
    /// Its bundle.
    directory: &'a Path,
    /// Where its configuration is written.
    file: &'a Path,
    carrier: Carrier,
    /// The runtime is told another label.
    lsm_profile: bool,
}

/// The configuration that a container is to have, where that is another than it has.
fn configure<E: Carrying>(
    host: &Host,
    enforcement: &E,
    create: &Create<'_>,
    bytes: &[u8],
) -> Result<Option<Config>, CarrierError> {
    let Some(policies) = enforcement.policies()? else { return Ok(None) };
    let Create { id, directory, file, carrier, lsm_profile } = *create;
    let bundle = Bundle::parse(directory.to_owned(), bytes)?;
    let state = State::of_bundle(id, directory)?;
    let selected = match who(host, enforcement, &bundle, state) {
        Ok(None) => false,
        Ok(Some(known)) => {
            unknown::check(policies, &known.facts, &known.missing)?;
            policies.iter().any(|policy| applies(policy, &known.facts).is_ok())
        }
        // No policy could speak of it, so who it is matters to nobody.
        Err(_) if policies.is_empty() => false,
        Err(error) => return Err(error.into()),
    };
    let mut config = Config::parse(file, bytes)?;
    if !selected {
        // The same bundle may have been run when a policy was for it.
        return Ok(if config.label(None)? { Some(config) } else { None });
    }
    if lsm_profile {
        return Err(CarrierError::Restored);
    }
    // Who could not say what the label means gives none: then it is for the fail policy to say what becomes of the container.
    enforcement.load()?;
    config.label(Some(&ProfileName::of(id)))?;
    config.carried_by(carrier)?;
    config.gate(&enforcement.gate()?)?;
    Ok(Some(config))
}

/// The label is what the runtime has given the init for its next execution, which it now waits for. Which policies there are is not
/// read again: the record says whether it is to have one.
fn start<E: Carrying>(enforcement: &E, id: &str) -> Result<(), CarrierError> {
    if enforcement.carries()? { Ok(enforcement.check_confined(id)?) } else { Ok(()) }
}

/// Gives an execution its label; the words, of which one may have been changed.
fn exec<E: Carrying>(enforcement: &E, asked: &Exec, words: &[OsString]) -> Result<Vec<OsString>, CarrierError> {
    let mut words = words.to_vec();
    // Whether or not there still are policies, or another backend was chosen meanwhile: the container is confined.
    let Some((bundle, profile)) = enforcement.confined(&asked.id)? else { return Ok(words) };
    let config = bundle.join(CONFIG);
    let of_container = Bundle::parse(bundle, &host::read(&config, MAX_CONFIG_BYTES)?)?.process;
    let Some(file) = &asked.process else {
        enforcement.judge(&asked.id, &by_words(asked, &of_container))?;
        if let Some((index, before)) = &asked.label {
            let word = words[*index].as_bytes();
            let label = String::from_utf8_lossy(&word[before.len()..]).into_owned();
            words[*index] = OsString::from_vec([before, Label::new(&label).with(&profile).as_bytes()].concat());
        }
        return Ok(words);
    };
    let bytes = host::read(file, MAX_CONFIG_BYTES)?;
    let written: WrittenProcess = object(&bytes).map_err(|source| CarrierError::Json { path: file.clone(), source })?;
    enforcement.judge(&asked.id, &written.meant().program)?;
    let mut config = Config::parse(file, &bytes)?;
    if config.label_execution(&of_container.label, &profile) {
        config.write()?;
    }
    Ok(words)
}

/// What is executed by the words of a command line, which leave out what is as for the container.
fn by_words(asked: &Exec, of_container: &Process) -> Program {
    let Program { path, directory, uid, .. } = of_container.program.clone();
    Program {
        name: asked.program.clone().unwrap_or_default(),
        path: asked.path.clone().or(path),
        directory: asked.directory.clone().unwrap_or(directory),
        uid: asked.uid.unwrap_or(uid),
    }
}

fn refuse_or_permit<E: Enforcement>(enforcement: &E, id: &str, error: &CarrierError, words: Vec<OsString>) -> Carried {
    let shown = if id.is_empty() { "of unknown id" } else { id };
    if !permits(enforcement, None, error) {
        let refusal = line(PROGRAM, &format!("container {shown} refused: {error}"));
        let untold = log::tell(&words, &refusal).err().map(|error| line(PROGRAM, &error.to_string()));
        return Carried { words: None, lines: std::iter::once(refusal).chain(untold).collect() };
    }
    Carried { words: Some(words), lines: vec![line(PROGRAM, &unprotected(enforcement, id, error))] }
}

/// Whether a container is to go on that cannot be protected.
fn permits<E: Enforcement>(enforcement: &E, asked: Option<FailPolicy>, error: &CarrierError) -> bool {
    // A program that a policy denies is denied, whatever happens to what cannot be told.
    let denied = matches!(error, CarrierError::Enforcement(failure) if is_denial(failure));
    !denied && asked.or_else(|| enforcement.fail_policy().ok()) == Some(FailPolicy::Permit)
}

/// Records a container that goes on all the same; a line that says so.
fn unprotected<E: Enforcement>(enforcement: &E, id: &str, error: &CarrierError) -> String {
    let recorded = match enforcement.record_unprotected(id, "", &one_line(&error.to_string())) {
        Ok(()) => String::new(),
        Err(failure) => format!(" (and no record of this could be written: {failure})"),
    };
    let shown = if id.is_empty() { "of unknown id" } else { id };
    format!("WARNING: container {shown} goes on WITHOUT PROTECTION, by fail policy permit: {error}{recorded}")
}

/// What this program calls itself.
pub const PROGRAM: &str = "portcullis-runtime";

/// The runtime that is to be run by a program of this name. Nothing if it is not installed.
#[must_use]
pub fn runtime(own: &OsStr) -> Option<PathBuf> {
    let name = Path::new(own).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let named = name.strip_prefix(LINK_PREFIX).filter(|_| name != PROGRAM);
    let candidates = named.as_ref().map_or(RUNTIMES, std::slice::from_ref);
    candidates.iter().find_map(|name| installed(name))
}

fn installed(name: &str) -> Option<PathBuf> {
    let own = std::fs::canonicalize("/proc/self/exe").ok();
    let others = |path: &PathBuf| path.is_file() && std::fs::canonicalize(path).ok() != own;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(others)
}

#[cfg(test)]
mod tests;
