//! Pods and containers as a kubelet makes them: in the machine's network, so that no plugin for it is needed, and without
//! seccomp, as the other suites have it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::api::{
    ContainerConfig, ContainerMetadata, ContainerSecurity, EXITED, Image, LinuxContainer, LinuxPod, Mount, NAMESPACE_CONTAINER,
    NAMESPACE_NODE, NAMESPACE_TARGET, NamespaceOption, PROFILE_UNCONFINED, PodConfig, PodMetadata, PodSecurity, Resources,
    SecurityProfile,
};
use super::client::Client;
use super::engine::{CGROUPS, Engine, IMAGE};
use super::until;
use crate::guest::{self, Guest};
use crate::{Failure, Result};

/// From a start to the end of a program that has nothing to do, under emulation.
pub(super) const END_LIMIT: Duration = Duration::from_secs(60);

/// Tells pods and containers of one name apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pod to be.
#[derive(Debug, Clone, Default)]
pub(super) struct PodSpec {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The runtime's; see [`super::engine::handler`].
    pub handler: String,
    /// Its containers see the machine's processes.
    pub host_pid: bool,
}

impl PodSpec {
    /// A pod in the namespace `default` with one label, `app`.
    pub(super) fn new(name: &str, app: &str, handler: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            handler: handler.to_owned(),
            ..Self::default()
        }
    }

    fn namespaces(&self) -> NamespaceOption {
        let pid = if self.host_pid { NAMESPACE_NODE } else { NAMESPACE_CONTAINER };
        NamespaceOption { network: NAMESPACE_NODE, pid, target_id: String::new() }
    }
}

/// A pod; removed when dropped.
#[derive(Debug)]
pub(super) struct Pod {
    client: Client,
    config: PodConfig,
    spec: PodSpec,
    /// The sandbox's id.
    pub id: String,
}

/// A container to be.
#[derive(Debug, Clone, Default)]
pub(super) struct ContainerSpec {
    pub name: String,
    pub command: Vec<String>,
    /// Bind mounts, outside to inside.
    pub binds: Vec<(PathBuf, String)>,
    /// Its share of the processor; 0 is the runtime's default.
    pub cpu_shares: i64,
    /// It can be spoken to; see `Engine::stdin_of`.
    pub stdin: bool,
    /// The container whose processes it sees.
    pub processes_of: Option<String>,
}

impl ContainerSpec {
    /// A container that runs this.
    pub(super) fn new(name: &str, command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { name: name.to_owned(), command, ..Self::default() }
    }

    /// The same, with this directory.
    pub(super) fn with(mut self, outside: &Path, inside: &str) -> Self {
        self.binds.push((outside.to_owned(), inside.to_owned()));
        self
    }
}

impl Pod {
    /// Starts the sandbox.
    pub(super) fn run(guest: &Guest, engine: &Engine, spec: PodSpec) -> Result<Self> {
        let logs = guest.work.join("cri/logs");
        guest::make_directory(&logs)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: spec.name.clone(),
                uid: format!("{}-{number}", spec.name),
                namespace: spec.namespace.clone(),
            }),
            log_directory: logs.display().to_string(),
            labels: spec.labels.clone().into_iter().collect(),
            annotations: spec.annotations.clone().into_iter().collect(),
            linux: Some(LinuxPod {
                cgroup_parent: CGROUPS.to_owned(),
                security_context: Some(PodSecurity {
                    namespace_options: Some(spec.namespaces()),
                    seccomp: Some(SecurityProfile { profile_type: PROFILE_UNCONFINED }),
                }),
            }),
        };
        let id = engine.client().run_pod(&config, &spec.handler)?;
        Ok(Self { client: engine.client().clone(), config, spec, id })
    }

    /// Creates a container, which does not run yet.
    pub(super) fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let attempt = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = format!("{}-{}-{attempt}.log", self.spec.name, spec.name);
        let mut namespaces = self.spec.namespaces();
        if let Some(target) = &spec.processes_of {
            namespaces = NamespaceOption { pid: NAMESPACE_TARGET, target_id: target.clone(), ..namespaces };
        }
        let labels = [
            // What the kubelet adds.
            ("io.kubernetes.container.name", &spec.name),
            ("io.kubernetes.pod.name", &self.spec.name),
            ("io.kubernetes.pod.namespace", &self.spec.namespace),
        ];
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: spec.name.clone(), attempt }),
            image: Some(Image { image: IMAGE.to_owned() }),
            command: spec.command.clone(),
            mounts: spec
                .binds
                .iter()
                .map(|(outside, inside)| Mount { container_path: inside.clone(), host_path: outside.display().to_string() })
                .collect(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect::<HashMap<_, _>>(),
            log_path: log.clone(),
            stdin: spec.stdin,
            linux: Some(LinuxContainer {
                resources: Some(Resources { cpu_shares: spec.cpu_shares }),
                security_context: Some(ContainerSecurity {
                    namespace_options: Some(namespaces),
                    seccomp: Some(SecurityProfile { profile_type: PROFILE_UNCONFINED }),
                }),
            }),
        };
        let id = self.client.create(&self.id, &self.config, &config)?;
        Ok(Container { client: self.client.clone(), id, log: Path::new(&self.config.log_directory).join(log) })
    }

    /// Creates a container and starts it.
    pub(super) fn start(&self, spec: &ContainerSpec) -> Result<Container> {
        let container = self.create(spec)?;
        container.start()?;
        Ok(container)
    }

    /// Runs a container to its end.
    pub(super) fn complete(&self, spec: &ContainerSpec) -> Result<Ended> {
        let container = match self.create(spec) {
            Ok(container) => container,
            Err(error) => return Ended::refused(error),
        };
        let ended = container.complete();
        self.client.remove(&container.id)?;
        ended
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.client.remove_pod(&self.id);
    }
}

/// A container of a pod, which removes it.
#[derive(Debug, Clone)]
pub(super) struct Container {
    client: Client,
    /// Its id.
    pub id: String,
    log: PathBuf,
}

/// What became of a container that should have run to its end.
#[derive(Debug)]
pub(super) struct Ended {
    /// Why it was not started.
    pub refusal: Option<String>,
    /// What its program ended with.
    pub code: i32,
    /// What it said.
    pub said: String,
}

impl Ended {
    /// By the runtime; any other failure is not the container's.
    fn refused(error: Failure) -> Result<Self> {
        match error {
            Failure::Refused { message, .. } => Ok(Self { refusal: Some(message), code: -1, said: String::new() }),
            other => Err(other),
        }
    }

    /// The program ended well.
    pub(super) fn success(&self) -> bool {
        self.refusal.is_none() && self.code == 0
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.refusal {
            Some(why) => write!(f, "not started: {why}"),
            None => write!(f, "exit {}: {}", self.code, self.said.trim_end()),
        }
    }
}

impl Container {
    /// Starts it.
    pub(super) fn start(&self) -> Result<()> {
        self.client.start(&self.id)
    }

    /// Starts it and waits for its end.
    pub(super) fn complete(&self) -> Result<Ended> {
        match self.start() {
            Ok(()) => self.wait(),
            Err(error) => Ok(Ended { said: self.said(), ..Ended::refused(error)? }),
        }
    }

    /// Waits for its end.
    pub(super) fn wait(&self) -> Result<Ended> {
        until("the container's end", END_LIMIT, || self.ended())
    }

    /// What it came to, if it has ended.
    pub(super) fn ended(&self) -> Result<Option<Ended>> {
        let status = self.client.status(&self.id)?;
        Ok((status.state == EXITED).then(|| Ended { refusal: None, code: status.exit_code, said: self.said() }))
    }

    /// The process id of its first process, in the machine's numbers.
    pub(super) fn pid(&self) -> Result<i32> {
        let info = self.client.facts(&self.id)?;
        let json: serde_json::Value = serde_json::from_str(&info).unwrap_or_default();
        json["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| Failure::Answer { what: "ContainerStatus".to_owned(), text: info })
    }

    /// Runs a program in it to its end.
    pub(super) fn exec(&self, command: &[&str]) -> Result<Ended> {
        match self.client.exec(&self.id, command) {
            Ok(answer) => {
                let said = [answer.stdout, answer.stderr].concat();
                Ok(Ended { refusal: None, code: answer.exit_code, said: String::from_utf8_lossy(&said).into_owned() })
            }
            Err(error) => Ended::refused(error),
        }
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub(super) fn stop(&self, grace: Duration) -> Result<()> {
        self.client.stop(&self.id, grace)
    }

    /// SIGKILL, and removes it.
    pub(super) fn kill(&self) -> Result<()> {
        self.stop(Duration::ZERO)?;
        self.client.remove(&self.id)
    }

    /// Every whole line that it wrote, both streams.
    pub(super) fn lines(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        // TIME stdout|stderr F|P TEXT, as kubernetes/cri-client logs have it.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned).collect()
    }

    /// The same as one text.
    pub(super) fn said(&self) -> String {
        self.lines().join("\n")
    }
}
