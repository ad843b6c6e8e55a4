//! Profiles compiled, and in the kernel.
//!
//! The parser only compiles (`-Q`): its answer is kept by what it was given, so a profile is compiled once. Loading is one write
//! to `.replace` of AppArmor's directory in securityfs: all profiles of the set take effect together, for running tasks too.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::features::FEATURES;
use super::{Generated, PREFIX};
use crate::files;

/// Where the kernel shows AppArmor.
const SECURITY: &str = "/sys/kernel/security/apparmor";
/// Where distributions put the parser.
const PARSERS: &[&str] = &["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
/// How long the parser may take. The most path rules that it is given take it 3 s of a processor.
const PARSER_LIMIT: Duration = Duration::from_secs(30);
const PARSER_POLL: Duration = Duration::from_millis(2);
/// Largest compiled set.
const MAX_COMPILED_BYTES: u64 = 64 << 20;
/// Most of what the parser complains of that is passed on.
const MAX_COMPLAINT_BYTES: u64 = 4096;
/// Most compiled sets that are kept.
const MAX_CACHED: usize = 512;
/// Most bytes of the kernel's list of profiles.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// Longest label of a task: the kernel gives no more than a page.
const MAX_LABEL_BYTES: u64 = 4096;
/// The first pid namespace, that of the host (`PROC_PID_INIT_INO` in the kernel's `include/linux/proc_ns.h`).
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Why a profile is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no AppArmor in this kernel, or securityfs is not mounted.
    #[error("{} is not there: AppArmor is not active in this kernel, or securityfs is not mounted (mount -t securityfs none /sys/kernel/security)", path.display())]
    NotActive {
        /// The directory.
        path: PathBuf,
    },
    /// There is no parser.
    #[error("apparmor_parser is in none of {}; install AppArmor's user-space tools (on Debian and Ubuntu: apt-get install apparmor)", PARSERS.join(", "))]
    NoParser,
    /// The parser did not take the text. That is a defect of this program.
    #[error("{} did not accept the profile {name}: {complaint}", parser.display())]
    NotAccepted {
        /// The parser.
        parser: PathBuf,
        /// The profile.
        name: String,
        /// What it said, or how it ended.
        complaint: String,
    },
    /// The parser took too long and was stopped.
    #[error("{} took more than {} s to compile the profile {name}; name directories in place of long lists of paths, or avoid `**` in the middle of patterns", parser.display(), PARSER_LIMIT.as_secs())]
    TooSlow {
        /// The parser.
        parser: PathBuf,
        /// The profile.
        name: String,
    },
    /// The kernel did not take the compiled profile.
    #[error("the kernel did not load the profile {name}: {source}; `dmesg` has AppArmor's reason")]
    NotLoaded {
        /// The profile.
        name: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not remove a profile.
    #[error("the kernel did not remove the profile {name}: {source}")]
    NotRemoved {
        /// The profile.
        name: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// Whom a profile confines cannot be told from here.
    #[error(
        "not all tasks of the host can be seen from this pid namespace, so no profile is removed: one that confines a task would leave it unconfined"
    )]
    SeesFewTasks,
    /// A file or directory can't be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] Box<crate::Error>),
}

/// The compiled form of a set of profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledProfiles {
    /// The profile that a container is started with.
    pub name: String,
    bytes: Vec<u8>,
}

/// The cache of compiled profiles, the parser, and the kernel's profiles.
#[derive(Debug, Clone)]
pub struct Profiles {
    cache: PathBuf,
    security: PathBuf,
    proc: PathBuf,
    parsers: Vec<PathBuf>,
}

impl Profiles {
    /// Those of this host, with the cache in a directory of its own in the state directory.
    #[must_use]
    pub fn of_host(state: &Path) -> Profiles {
        Profiles {
            cache: state.join("apparmor"),
            security: SECURITY.into(),
            proc: "/proc".into(),
            parsers: PARSERS.iter().map(PathBuf::from).collect(),
        }
    }

    /// Compiles, or finds what was compiled before. The text is kept beside it, for people.
    ///
    /// # Errors
    /// If there is no parser, or it fails, or nothing can be written to the cache.
    pub fn compile(&self, generated: &Generated) -> Result<CompiledProfiles, StoreError> {
        let parser = self.parsers.iter().find(|path| path.exists()).ok_or(StoreError::NoParser)?;
        let key = key(generated, parser)?;
        let kept = self.cache.join(format!("{key}.bin"));
        if let Ok(bytes) = files::read(&kept, MAX_COMPILED_BYTES) {
            return Ok(CompiledProfiles { name: generated.name.clone(), bytes });
        }
        files::make_dir(&self.cache).map_err(Box::new)?;
        self.make_room()?;
        let features = self.cache.join("features");
        files::write(&features, FEATURES.as_bytes()).map_err(Box::new)?;
        let source = self.cache.join(format!("{key}.profile"));
        files::write(&source, generated.text.as_bytes()).map_err(Box::new)?;
        let bytes = self.run(parser, &generated.name, &features, &source)?;
        files::write(&kept, &bytes).map_err(Box::new)?;
        Ok(CompiledProfiles { name: generated.name.clone(), bytes })
    }

    /// Puts profiles in force, or in the place of those that have their names.
    ///
    /// # Errors
    /// If the kernel does not take them: then all are as before.
    pub fn load(&self, compiled: &CompiledProfiles) -> Result<(), StoreError> {
        self.tell(".replace", &compiled.bytes)?.map_err(|source| StoreError::NotLoaded { name: compiled.name.clone(), source })
    }

    /// The names of our profiles that the kernel has.
    ///
    /// # Errors
    /// If there is no AppArmor, or its list cannot be read.
    pub fn loaded(&self) -> Result<BTreeSet<String>, StoreError> {
        let path = self.security.join("profiles");
        let list = self.read(&path, MAX_LIST_BYTES)?;
        let name = |line: &str| line.split(" (").next().filter(|name| name.starts_with(PREFIX)).map(str::to_owned);
        Ok(list.lines().filter_map(name).collect())
    }

    /// Removes our profiles that neither `wanted` nor a task has. A task whose profile is removed would be unconfined.
    ///
    /// # Errors
    /// If it cannot be told who has which, or the kernel refuses.
    pub fn remove_unused(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let mut unused: BTreeSet<String> = self.loaded()?.into_iter().filter(|name| !wanted(name)).collect();
        if unused.is_empty() {
            return Ok(Vec::new());
        }
        let carried = self.carried()?;
        unused.retain(|name| !carried.contains(name));
        for name in &unused {
            let told = self.tell(".remove", name.as_bytes())?;
            told.map_err(|source| StoreError::NotRemoved { name: name.clone(), source })?;
        }
        Ok(unused.into_iter().collect())
    }

    /// Our profiles that tasks have, or will have when they execute something. A profile leads to its set's others, so whoever has
    /// one has them all.
    fn carried(&self) -> Result<Carried, StoreError> {
        let namespace = self.proc.join("self/ns/pid");
        let seen = fs::read_link(&namespace).map_err(|source| StoreError::File { what: "read", path: namespace, source })?;
        if seen != Path::new(HOST_PID_NAMESPACE) {
            return Err(StoreError::SeesFewTasks);
        }
        let mut carried = Carried::default();
        for process in numbered(&self.proc)? {
            for task in numbered(&process.join("task"))? {
                for attribute in ["attr/apparmor/current", "attr/apparmor/exec"] {
                    carried.note(&self.label(&task.join(attribute))?);
                }
            }
        }
        Ok(carried)
    }

    /// A label of a task; empty for one that is gone.
    fn label(&self, path: &Path) -> Result<String, StoreError> {
        match self.read(path, MAX_LABEL_BYTES) {
            // A kernel thread and a task that dies have none, which the kernel calls an invalid argument (`proc_pid_attr_read`).
            Err(StoreError::File { source, .. }) if is_gone(&source) || source.kind() == std::io::ErrorKind::InvalidInput => {
                Ok(String::new())
            }
            label => label,
        }
    }

    fn read(&self, path: &Path, limit: u64) -> Result<String, StoreError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound if path.starts_with(&self.security) => {
                StoreError::NotActive { path: self.security.clone() }
            }
            _ => StoreError::File { what: "read", path: path.to_owned(), source },
        };
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)).map_err(failed)?;
        Ok(text)
    }

    /// Writes to a file of AppArmor's in one call, which is what the kernel reads as one request. The inner result is its answer.
    fn tell(&self, file: &str, bytes: &[u8]) -> Result<std::io::Result<()>, StoreError> {
        let path = self.security.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        let mut file = opened.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => StoreError::NotActive { path: self.security.clone() },
            _ => StoreError::File { what: "open", path, source },
        })?;
        Ok(file.write(bytes).and_then(|written| match written == bytes.len() {
            true => Ok(()),
            false => Err(std::io::Error::other(format!("it took {written} of {} bytes", bytes.len()))),
        }))
    }

    fn run(&self, parser: &Path, name: &str, features: &Path, source: &Path) -> Result<Vec<u8>, StoreError> {
        // By the name of this process: another may compile the same meanwhile.
        let output = source.with_extension(format!("{}.out", std::process::id()));
        let complaints = source.with_extension(format!("{}.err", std::process::id()));
        let done = self.parse(parser, name, features, source, &output, &complaints);
        let bytes = done.and_then(|()| files::read(&output, MAX_COMPILED_BYTES).map_err(|error| Box::new(error).into()));
        for path in [output, complaints] {
            files::remove(&path).map_err(Box::new)?;
        }
        bytes
    }

    fn parse(
        &self,
        parser: &Path,
        name: &str,
        features: &Path,
        source: &Path,
        output: &Path,
        complaints: &Path,
    ) -> Result<(), StoreError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { what, path, source }
        };
        let errors = File::create(complaints).map_err(failed("write", complaints))?;
        let mut command = Command::new(parser);
        // The host's configuration of the parser is for the host's own profiles, and so is its cache.
        command.args(["--config-file=/dev/null", "--skip-kernel-load", "--skip-cache", "--quiet", "--features-file"]);
        command.arg(features).arg("-o").arg(output).arg(source);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut child = command.spawn().map_err(failed("execute", parser))?;
        let ended = wait(&mut child).map_err(failed("wait for", parser))?;
        let status = ended.ok_or_else(|| StoreError::TooSlow { parser: parser.to_owned(), name: name.to_owned() })?;
        if status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        let read = File::open(complaints).and_then(|file| file.take(MAX_COMPLAINT_BYTES).read_to_end(&mut said));
        read.map_err(failed("read", complaints))?;
        let complaint = match String::from_utf8_lossy(&said).trim() {
            "" => status.to_string(),
            said => said.replace('\n', "; "),
        };
        Err(StoreError::NotAccepted { parser: parser.to_owned(), name: name.to_owned(), complaint })
    }

    /// The oldest go. What is in use is in the kernel, and compiled again when it is wanted once more.
    fn make_room(&self) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        for name in files::list(&self.cache, 4 * MAX_CACHED).map_err(Box::new)?.into_iter().filter(|name| name.ends_with(".bin"))
        {
            let path = self.cache.join(name);
            match fs::metadata(&path).and_then(|data| data.modified()) {
                Ok(when) => kept.push((when, path)),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(StoreError::File { what: "look at", path, source }),
            }
        }
        kept.sort();
        for (_, path) in kept.iter().take((kept.len() + 1).saturating_sub(MAX_CACHED)) {
            for path in [path.clone(), path.with_extension("profile")] {
                files::remove(&path).map_err(Box::new)?;
            }
        }
        Ok(())
    }
}

impl From<crate::Error> for StoreError {
    fn from(error: crate::Error) -> StoreError {
        StoreError::Cache(Box::new(error))
    }
}

/// The sets whose profiles tasks have.
#[derive(Default)]
struct Carried(BTreeSet<String>);

impl Carried {
    /// Notes a label: `engine//&portcullis.… (enforce)`.
    fn note(&mut self, label: &str) {
        let label = label.split(" (").next().unwrap_or(label).trim_end_matches(['\n', '\0']);
        self.0.extend(label.split("//&").filter(|name| name.starts_with(PREFIX)).map(set_of));
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(&set_of(name))
    }
}

/// The prefix and the hash, which all profiles of a set have in common.
fn set_of(name: &str) -> String {
    let hash = name.strip_prefix(PREFIX).unwrap_or(name);
    format!("{PREFIX}{}", hash.split('.').next().unwrap_or(hash))
}

/// What a compiled set is kept by: the text, what it is written for, and the parser that reads it.
fn key(generated: &Generated, parser: &Path) -> Result<String, StoreError> {
    let data = fs::metadata(parser).map_err(|source| StoreError::File { what: "look at", path: parser.to_owned(), source })?;
    let modified = data.modified().map_err(|source| StoreError::File { what: "look at", path: parser.to_owned(), source })?;
    let mut hasher = Sha256::new();
    let build = format!("{} {modified:?}", data.len());
    for part in [generated.text.as_bytes(), FEATURES.as_bytes(), build.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Ok(hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Waits for the parser. `None` if it took too long: then it is killed.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + PARSER_LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(PARSER_POLL);
    }
}

/// The entries of a directory of `/proc` that are numbers. One that is gone meanwhile has none.
fn numbered(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::File { what: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) => numbered.push(entry.path()),
            Ok(_) => {}
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(numbered)
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
