//! The machine under test: where the binaries are, where things are put, and what differs on it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Outcome};
use crate::runtime::Runtime;
use crate::{Failure, Result};

const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis-probe"));
const ATTACK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis-attack"));
const OBSERVER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis-observer"));

/// A command of ours or of a runtime, under emulation.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// What every suite is given.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// `portcullis`, `portcullis-hook`.
    pub binaries: PathBuf,
    /// Everything that is made goes below this; it is on a file system that holds extended attributes.
    pub work: PathBuf,
    /// The probe and the attacks, unpacked.
    pub probe: PathBuf,
    /// See `probe`.
    pub attack: PathBuf,
    /// Tells from inside of a container which of two policies is in force.
    pub observer: PathBuf,
    /// A program that ends with 0, in a hundred bytes or two.
    pub tiny: PathBuf,
    /// Policies that the hook reads.
    pub policies: PathBuf,
    /// The configuration that the hook is told to read.
    pub config: PathBuf,
    /// Lines that it has besides the policy directory, the fail policy and the postures.
    pub settings: String,
    /// What starts containers.
    pub runtimes: Vec<Runtime>,
    /// Few repetitions.
    pub ci: bool,
    /// The clock counts instructions: what else the machine does takes no time.
    pub counted_time: bool,
    /// Repetitions that were asked for.
    pub count: Option<u32>,
    /// Only tests whose name contains this.
    pub only: Option<String>,
    /// Portcullis is left out: what would happen without it.
    pub without: bool,
    /// Runtimes are run by `portcullis-runtime`.
    pub carried: bool,
}

impl Guest {
    /// Makes the places and unpacks the programs.
    pub(crate) fn prepare(&self) -> Result<()> {
        for directory in [&self.work, &self.policies] {
            make_directory(directory)?;
        }
        write_executable(&self.probe, PROBE)?;
        write_executable(&self.attack, ATTACK)?;
        write_executable(&self.observer, OBSERVER)?;
        process::must(Command::new(&self.probe).arg("--tiny").arg(&self.tiny), b"", COMMAND_LIMIT)?;
        self.configure("enforce", "audit")
    }

    /// Writes the configuration: the fail policy, and the default posture of every class.
    pub(crate) fn configure(&self, fail: &str, posture: &str) -> Result<()> {
        self.configure_postures(fail, posture, posture, posture)
    }

    /// The same with a posture for each class.
    pub(crate) fn configure_postures(&self, fail: &str, file: &str, network: &str, capabilities: &str) -> Result<()> {
        if let Some(directory) = self.config.parent() {
            make_directory(directory)?;
        }
        write(
            &self.config,
            format!(
                "policyDir: {}\nfailPolicy: {fail}\ndefaultPosture:\n  file: {file}\n  network: {network}\n  capabilities: {capabilities}\n{}",
                self.policies.display(),
                self.settings
            )
            .as_bytes(),
        )
    }

    /// Replaces what is in the policy directory, by policies without a mistake: a test under none would prove nothing.
    pub(crate) fn set_policies(&self, documents: &[(&str, &str)]) -> Result<()> {
        self.put_policies(documents)?;
        if self.without || documents.is_empty() {
            return Ok(());
        }
        process::must(self.command().args(["policy", "check"]).arg(&self.policies), b"", COMMAND_LIMIT).map(|_| ())
    }

    /// The same, whatever they are.
    pub(crate) fn put_policies(&self, documents: &[(&str, &str)]) -> Result<()> {
        remove_tree(&self.policies)?;
        make_directory(&self.policies)?;
        for (name, text) in documents {
            write(&self.policies.join(format!("{name}.yaml")), text.as_bytes())?;
        }
        Ok(())
    }

    /// `portcullis`, told the configuration of the tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.binaries.join("portcullis"));
        command.arg("--config").arg(&self.config);
        command
    }

    /// Runs `portcullis` with these arguments.
    pub(crate) fn portcullis(&self, arguments: &[&str]) -> Result<Outcome> {
        process::run(self.command().args(arguments), b"", COMMAND_LIMIT)
    }

    /// Loads the kernel programs, or fails with what `portcullis load` says.
    pub(crate) fn load(&self) -> Result<()> {
        if self.without {
            return Ok(());
        }
        process::must(self.command().arg("load"), b"", COMMAND_LIMIT).map(|_| ())
    }

    /// Upgrades the kernel programs: to the same build, which is attached once more before the old one goes.
    pub(crate) fn upgrade(&self) -> Result<()> {
        if self.without {
            return Ok(());
        }
        process::must(self.command().args(["load", "--anew"]), b"", COMMAND_LIMIT).map(|_| ())
    }

    /// The program that is run for a runtime.
    pub(crate) fn runtime_program(&self, runtime: Runtime) -> PathBuf {
        if self.carried { self.work.join(format!("portcullis-{}", runtime.name())) } else { runtime.name().into() }
    }

    /// Whether a test by this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// The number of repetitions: what was asked for, else one of two defaults.
    pub(crate) fn repetitions(&self, ci: u32, full: u32) -> u32 {
        self.count.unwrap_or(if self.ci { ci } else { full })
    }
}

/// Whether a program is installed here.
pub(crate) fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|source| Failure::io(path.display(), source))
}

/// Writes a file that can be executed by everybody. An old one is removed first: it may be running.
pub(crate) fn write_executable(path: &Path, bytes: &[u8]) -> Result<()> {
    let _ = std::fs::remove_file(path);
    write(path, bytes)?;
    set_mode(path, 0o755)
}

/// Makes a directory with its parents.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| Failure::io(path.display(), source))
}

/// Makes a directory that everybody may write in.
pub(crate) fn make_open_directory(path: &Path) -> Result<()> {
    make_directory(path)?;
    set_mode(path, 0o777)
}

/// Sets the permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|source| Failure::io(path.display(), source))
}

/// Removes whatever is there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(data) if data.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    result.map_err(|source| Failure::io(path.display(), source))
}

/// Copies a file with its mode.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        make_directory(parent)?;
    }
    let _ = std::fs::remove_file(to);
    std::fs::copy(from, to).map(|_| ()).map_err(|source| Failure::io(format!("{} to {}", from.display(), to.display()), source))
}
