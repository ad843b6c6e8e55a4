//! Profiles compiled.
//!
//! The parser only compiles (`-Q`): its answer is kept by what it was given, so a profile is compiled once. Which answer is a rule
//! set's is kept by the set's content hash, so that its text, which takes longer to write than all else of a start, is written only
//! if there is none: 41 of the 49 million instructions of a plan for 100 rules. Loading is one write to `.replace` of AppArmor's directory in securityfs (`in_kernel.rs`): all profiles of the set take effect together, for running
//! tasks too.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::features::FEATURES;
use super::label::ProfileName;
use super::text::WRITES;
use super::{Generated, UNNAMED, Variant};
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
/// Most compiled sets that are kept, and most rule sets of which it is kept which of them is theirs.
const MAX_CACHED: usize = 512;
/// Digits of a key.
const KEY_DIGITS: usize = 32;

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
    pub(super) bytes: Vec<u8>,
}

impl CompiledProfiles {
    /// The same as a container's. What is compiled has no check sum, names of profiles are text in it, and paths are tables
    /// (`unpack_profile` in the kernel's `security/apparmor/policy_unpack.c`).
    pub(super) fn named(&self, name: &ProfileName) -> Vec<u8> {
        let (unnamed, name) = (UNNAMED.as_bytes(), name.as_str().as_bytes());
        let mut bytes = self.bytes.clone();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(unnamed.len()).position(|window| window == unnamed) {
            at += found;
            bytes[at..at + name.len()].copy_from_slice(name);
            at += name.len();
        }
        bytes
    }
}

/// The cache of compiled profiles, the parser, and the kernel's profiles.
#[derive(Debug, Clone)]
pub struct Profiles {
    cache: PathBuf,
    pub(super) security: PathBuf,
    pub(super) proc: PathBuf,
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

    pub(super) fn parser(&self) -> Result<&Path, StoreError> {
        self.parsers.iter().find(|path| path.exists()).map(PathBuf::as_path).ok_or(StoreError::NoParser)
    }

    /// The profiles of a rule set by its content hash, as they were compiled before. If they were not, or are not kept any more, then
    /// they are `generate`d and compiled.
    ///
    /// # Errors
    /// As `generate`, and as [`Profiles::compile`].
    pub fn of_set<E: From<StoreError>>(
        &self,
        hash: [u64; 2],
        variant: Variant,
        generate: impl FnOnce() -> Result<Generated, E>,
    ) -> Result<CompiledProfiles, E> {
        let build = build(self.parser()?)?;
        let known = self.cache.join(format!("{}.set", key_of_set(hash, variant, &build)));
        if let Some(compiled) = self.known(&known) {
            return Ok(compiled);
        }
        let generated = generate()?;
        let compiled = self.compile(&generated)?;
        self.make_room(".set")?;
        files::write(&known, key(&generated, &build).as_bytes()).map_err(|error| E::from(error.into()))?;
        Ok(compiled)
    }

    /// What a file of the cache says is a rule set's. Nothing if it says nothing, or that is gone: it is made again.
    fn known(&self, path: &Path) -> Option<CompiledProfiles> {
        let key = String::from_utf8(files::read(path, KEY_DIGITS as u64).ok()?).ok()?;
        let is_key = key.len() == KEY_DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = files::read(&self.cache.join(format!("{key}.bin")), MAX_COMPILED_BYTES).ok().filter(|_| is_key)?;
        Some(CompiledProfiles { bytes })
    }

    /// Compiles, or finds what was compiled before. The text is kept beside it, for people.
    ///
    /// # Errors
    /// If there is no parser, or it fails, or nothing can be written to the cache.
    pub fn compile(&self, generated: &Generated) -> Result<CompiledProfiles, StoreError> {
        let parser = self.parser()?;
        let key = key(generated, &build(parser)?);
        let kept = self.cache.join(format!("{key}.bin"));
        if let Ok(bytes) = files::read(&kept, MAX_COMPILED_BYTES) {
            return Ok(CompiledProfiles { bytes });
        }
        files::make_dir(&self.cache).map_err(Box::new)?;
        self.make_room(".bin")?;
        let features = self.cache.join("features");
        files::write(&features, FEATURES.as_bytes()).map_err(Box::new)?;
        let source = self.cache.join(format!("{key}.profile"));
        files::write(&source, generated.text.as_bytes()).map_err(Box::new)?;
        let bytes = self.run(parser, &generated.name, &features, &source)?;
        files::write(&kept, &bytes).map_err(Box::new)?;
        Ok(CompiledProfiles { bytes })
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
    fn make_room(&self, suffix: &str) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        for name in files::list(&self.cache, 4 * MAX_CACHED).map_err(Box::new)?.into_iter().filter(|name| name.ends_with(suffix))
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

/// Which build of the parser this is.
fn build(parser: &Path) -> Result<String, StoreError> {
    let failed = |source| StoreError::File { what: "look at", path: parser.to_owned(), source };
    let data = fs::metadata(parser).map_err(failed)?;
    let modified = data.modified().map_err(failed)?;
    Ok(format!("{} {modified:?}", data.len()))
}

/// What a compiled set is kept by: the text, what it is written for, and the build of the parser that reads it.
fn key(generated: &Generated, build: &str) -> String {
    digest(&[generated.text.as_bytes(), FEATURES.as_bytes(), build.as_bytes()])
}

/// What it is kept by which compiled set is a rule set's: the rules, and all else that decides how they are written and read.
fn key_of_set(hash: [u64; 2], variant: Variant, build: &str) -> String {
    let Variant { audited, no_new_privileges } = variant;
    let words = hash.map(u64::to_le_bytes);
    let flags = [u8::from(audited), u8::from(no_new_privileges)];
    let writer = [WRITES, env!("CARGO_PKG_VERSION")].map(str::as_bytes);
    digest(&[&words[0], &words[1], &flags, writer[0], writer[1], FEATURES.as_bytes(), build.as_bytes()])
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()[..KEY_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
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

pub(super) fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
