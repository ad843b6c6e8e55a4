//! containerd under test: a process of ours with its own configuration, directories and sockets, that can be restarted
//! under its containers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::client::Client;
use super::log::Log;
use super::{archive, until};
use crate::guest::{self, COMMAND_LIMIT, Guest, installed};
use crate::process::{self, Dialogue};
use crate::runtime::Runtime;
use crate::{Failure, Result};

/// The image of every pod and container; its entrypoint waits for ever.
pub(super) const IMAGE: &str = "localhost/portcullis-cri:1";
/// The parent of every cgroup of this suite.
pub(super) const CGROUPS: &str = "/portcullis-cri";
/// Sockets have short names.
const RUN: &str = "/run/portcullis-cri";
/// From the start of the process to the first answer, under emulation.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// From SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The first version with NRI v1 in Debian's builds.
const FIRST_WITH_NRI: (u32, u32) = (1, 7);

/// containerd.
#[derive(Debug)]
pub(super) struct Engine {
    daemon: Option<Dialogue>,
    log: Log,
    client: Client,
    /// As it says itself.
    pub version: String,
    config: PathBuf,
    state: PathBuf,
}

impl Engine {
    /// Writes the configuration, starts it, imports the image. The inner error is why there can be none here.
    pub(super) fn prepare(guest: &Guest) -> Result<std::result::Result<Self, String>> {
        if !installed("containerd") {
            return Ok(Err("containerd is not installed".to_owned()));
        }
        let said = process::must(Command::new("containerd").arg("--version"), b"", COMMAND_LIMIT)?.stdout;
        let Some((version, number)) = version(&said) else {
            return Err(Failure::Answer { what: "containerd --version".to_owned(), text: said });
        };
        if number < FIRST_WITH_NRI {
            return Ok(Err(format!("containerd {version} has no NRI")));
        }
        let place = guest.work.join("cri");
        for directory in [&place.join("root"), &PathBuf::from(RUN)] {
            guest::remove_tree(directory)?;
            guest::make_directory(directory)?;
        }
        let run = Path::new(RUN);
        let mut engine = Self {
            daemon: None,
            log: Log::default(),
            client: Client::new(run.join("containerd.sock")),
            version,
            config: place.join("config.toml"),
            state: run.join("state"),
        };
        let gate = Self::write_gate(guest, &place)?;
        guest::write(&engine.config, configuration(number, &place.join("root"), &gate, guest).as_bytes())?;
        engine.start()?;
        engine.import(&archive::make(guest, &place)?)?;
        Ok(Ok(engine))
    }

    /// Where plugins connect.
    pub(super) fn nri_socket() -> PathBuf {
        Path::new(RUN).join("nri.sock")
    }

    /// What answers CRI calls.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The root file system of a container that runs, as the host sees it.
    pub(super) fn root_of(&self, container: &str) -> PathBuf {
        self.state.join("io.containerd.runtime.v2.task/k8s.io").join(container).join("rootfs")
    }

    /// The end of a container's standard input that is not the container's.
    pub(super) fn stdin_of(&self, container: &str) -> Result<PathBuf> {
        let places = self.state.join("io.containerd.grpc.v1.cri/containers").join(container).join("io");
        let entries = std::fs::read_dir(&places).map_err(|source| Failure::io(places.display(), source))?;
        let found = entries.flatten().map(|entry| entry.path().join(format!("{container}-stdin"))).find(|path| path.exists());
        found.ok_or_else(|| Failure::io(places.display(), std::io::Error::from(std::io::ErrorKind::NotFound)))
    }

    /// Starts the process, and waits until it answers.
    pub(super) fn start(&mut self) -> Result<()> {
        // It is ours before it answers: if it never does, its log says why.
        let daemon = self.daemon.insert(Dialogue::start(Command::new("containerd").arg("--config").arg(&self.config))?);
        until("an answer of containerd", READY_LIMIT, || {
            if !daemon.running() {
                let text = daemon.errors();
                return Err(Failure::Answer { what: "containerd".to_owned(), text });
            }
            Ok(self.client.version().ok())
        })
        .map(drop)
    }

    /// Ends the process; its containers go on.
    pub(super) fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::TERM);
            daemon.close(STOP_LIMIT);
            self.log.keep(&daemon);
        }
    }

    /// A test begins.
    pub(super) fn begin_log(&mut self) {
        self.log.begin(self.daemon.as_ref());
    }

    /// What it wrote last, since a test began.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.log.last(self.daemon.as_ref())
    }

    /// The specification that gated handlers begin with: the runtime's usual one with our hook, as an administrator makes it.
    fn write_gate(guest: &Guest, place: &Path) -> Result<PathBuf> {
        let mut specification = process::must(Command::new("ctr").args(["oci", "spec"]), b"", COMMAND_LIMIT)?.stdout;
        if !guest.without {
            let mut add = guest.command();
            specification = process::must(add.arg("oci-spec-with-gate"), specification.as_bytes(), COMMAND_LIMIT)?.stdout;
        }
        let path = place.join("gate.json");
        guest::write(&path, specification.as_bytes())?;
        Ok(path)
    }

    fn import(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(Path::new(RUN).join("containerd.sock"));
        process::must(command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive), b"", COMMAND_LIMIT)?;
        // The CRI part learns of it by an event.
        until("the imported image", READY_LIMIT, || Ok(self.client.has_image(IMAGE)?.then_some(())))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for pod in self.client.pods().unwrap_or_default() {
            let _ = self.client.remove_pod(&pod);
        }
        self.stop();
    }
}

/// `containerd REPOSITORY VERSION COMMIT`.
fn version(said: &str) -> Option<(String, (u32, u32))> {
    let version = said.split_whitespace().nth(2)?.trim_start_matches('v').to_owned();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let number = (numbers.next()?, numbers.next()?);
    Some((version, number))
}

/// The handlers of a runtime: as it is, and with the gate in every container's specification.
pub(super) fn handler(runtime: Runtime, gated: bool) -> String {
    format!("{}{}", runtime.name(), if gated { "-gated" } else { "" })
}

fn configuration(version: (u32, u32), root: &Path, gate: &Path, guest: &Guest) -> String {
    let state = Path::new(RUN).join("state");
    let (format, cri, sandbox) = if version < (2, 0) {
        let cri = "io.containerd.grpc.v1.cri";
        (2, cri, format!("[plugins.'{cri}']\n  sandbox_image = '{IMAGE}'\n"))
    } else {
        let images = "io.containerd.cri.v1.images";
        (3, "io.containerd.cri.v1.runtime", format!("[plugins.'{images}'.pinned_images]\n  sandbox = '{IMAGE}'\n"))
    };
    let mut text = format!(
        "version = {format}\nroot = '{}'\nstate = '{}'\n[grpc]\n  address = '{RUN}/containerd.sock'\n\
         [ttrpc]\n  address = '{RUN}/containerd.sock.ttrpc'\n[debug]\n  level = 'info'\n{sandbox}\
         [plugins.'{cri}'.containerd]\n  default_runtime_name = 'runc'\n",
        root.display(),
        state.display(),
    );
    for runtime in &guest.runtimes {
        let program = guest.runtime_program(*runtime);
        for gated in [false, true] {
            let name = handler(*runtime, gated);
            let section = format!("plugins.'{cri}'.containerd.runtimes.{name}");
            text.push_str(&format!("[{section}]\n  runtime_type = 'io.containerd.runc.v2'\n"));
            if gated {
                text.push_str(&format!("  base_runtime_spec = '{}'\n", gate.display()));
            }
            text.push_str(&format!("[{section}.options]\n  BinaryName = '{}'\n  SystemdCgroup = false\n", program.display()));
        }
    }
    // Registration and requests keep their defaults, 5 s and 2 s: they are what an installation has.
    text.push_str(&format!(
        "[plugins.'io.containerd.nri.v1.nri']\n  disable = false\n  socket_path = '{}'\n  plugin_path = '{RUN}/plugins'\n  \
         plugin_config_path = '{RUN}/plugins.conf'\n  disable_connections = false\n",
        Engine::nri_socket().display()
    ));
    text
}
