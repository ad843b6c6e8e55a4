//! Podman, with the hooks directory that an installation has.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::guest::{self, Guest, installed};
use crate::process::{self, Outcome};
use crate::runtime::Runtime;
use crate::{Failure, Result, image};

/// One podman command, under emulation.
const LIMIT: Duration = Duration::from_secs(240);
const IMAGE: &str = "localhost/portcullis-test:1";

/// Podman with one image.
#[derive(Debug, Clone)]
pub(crate) struct Podman {
    hooks: PathBuf,
    with_hooks: bool,
    systemd: bool,
    runtime: Option<PathBuf>,
}

impl Podman {
    /// Imports the test image and writes the hook's JSON. `None` without podman.
    pub(crate) fn prepare(guest: &Guest) -> Result<Option<Self>> {
        if !installed("podman") {
            return Ok(None);
        }
        let archive = image::archive(guest)?;
        let hooks = guest.work.join("podman/hooks.d");
        guest::make_directory(&hooks)?;
        for (file, stage) in [("portcullis.json", "createRuntime"), ("portcullis-poststop.json", "poststop")] {
            let hook = json!({
                "version": "1.0.0",
                "hook": {
                    "path": guest.binaries.join("portcullis-hook"),
                    "args": ["portcullis-hook", "--config", guest.config, "--deadline", "50", stage],
                    "timeout": 60,
                },
                "when": { "always": true },
                "stages": [stage],
            });
            guest::write(&hooks.join(file), hook.to_string().as_bytes())?;
        }
        let podman = Self {
            hooks,
            with_hooks: !guest.without && !guest.carried,
            systemd: std::path::Path::new("/run/systemd/system").is_dir(),
            runtime: None,
        };
        let imported = podman.call(&["import", &archive.to_string_lossy(), IMAGE])?;
        if imported.success() {
            return Ok(Some(podman));
        }
        Err(Failure::Command { what: "podman import".to_owned(), complaint: imported.complaint() })
    }

    /// The same with this runtime.
    pub(crate) fn with(&self, guest: &Guest, runtime: Runtime) -> Self {
        Self { runtime: Some(guest.runtime_program(runtime)), ..self.clone() }
    }

    /// Runs podman.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Outcome> {
        process::run(self.command().args(arguments), b"", LIMIT)
    }

    /// `podman run` of the test image with these options, then these arguments.
    pub(crate) fn run(&self, options: &[&str], arguments: &[&str]) -> Result<Outcome> {
        let mut command = self.command();
        command.args(["run", "--network=none"]).args(options).arg(IMAGE).args(arguments);
        process::run(&mut command, b"", LIMIT)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--events-backend=file");
        if !self.systemd {
            command.arg("--cgroup-manager=cgroupfs");
        }
        if let Some(runtime) = &self.runtime {
            command.arg("--runtime").arg(runtime);
        }
        if self.with_hooks {
            command.arg("--hooks-dir").arg(&self.hooks);
        }
        command
    }
}
