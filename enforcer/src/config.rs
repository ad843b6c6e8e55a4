//! `/etc/portcullis/config.yaml`.
//!
//! ```yaml
//! policyDir: /etc/portcullis/policies
//! stateDir: /run/portcullis
//! backend: auto              # bpf or apparmor; auto: BPF LSM where the kernel runs it, else AppArmor
//! failPolicy: enforce        # or permit: a container that cannot be armed starts all the same, with a record
//! defaultPosture:            # for what an allow-list does not list: audit or block
//!   file: audit
//!   network: audit
//!   capabilities: audit
//! controlSocket: /run/portcullis/agent.sock   # by default agent.sock in stateDir
//! nri:                       # containerd and CRI-O
//!   enabled: auto            # true and false say whether its absence is worth a warning, or it is not to be used
//!   sockets: [/var/run/nri/nri.sock]
//!   hook: /usr/libexec/portcullis/portcullis-hook   # the gate hook that containers get
//! clusterName: default       # what alerts in KubeArmor's formats call the cluster
//! feeder:                    # KubeArmor's gRPC service: alerts for karmor, the relay and their like
//!   socket: /run/portcullis/feeder.sock   # for root; by default feeder.sock in stateDir
//!   listen: 0.0.0.0:32767    # for others, too; then either tls or insecure has to say whom
//!   tls:                     # those who have a certificate of clientCa; PEM, read when the agent starts
//!     certificate: /etc/portcullis/tls/tls.crt
//!     key: /etc/portcullis/tls/tls.key
//!     clientCa: /etc/portcullis/tls/ca.crt
//!   insecure: true           # without tls: whoever reaches the port reads all alerts
//! metrics:
//!   listen: 127.0.0.1:9465   # numbers for Prometheus at /metrics; by default nowhere
//! monitor:                   # who executes and uses what: for alerts that say who, and as events of their own
//!   enabled: auto            # true and false say whether its absence is trouble, or it is not to be used
//!   visibility: [process]    # what containers do that is an event, of process (what they execute), file, network, capabilities
//!   hostVisibility: []       # the same of the host's processes
//!   namespaces: {}           # in place of visibility for containers of these, as in `shop: [process, file]`
//! sinks:                     # where the agent puts events by itself
//!   file:                    # a file of lines, rotated by its size
//!     path: /var/log/portcullis/events.json
//!     format: lines          # or kubearmor, ocsf
//!     what: all              # or alerts, logs (what is no alert)
//!     maxBytes: 67108864     # then it becomes events.json.1, and that one .2
//!     keep: 5                # older ones that stay
//!   otlp:                    # a collector of OpenTelemetry's, over gRPC; in builds with the feature otlp
//!     endpoint: https://collector:4317
//!     ca: /etc/portcullis/tls/collector-ca.crt   # of https: the authorities of its certificate
//!     what: all
//! ```
//!
//! Every field may be left out, and so may the file.

mod feeder;
mod fields;
mod monitor;
mod sinks;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_policy::meaning::{Posture, Postures};

pub use self::feeder::{Feeder, Protection, Tcp, Tls};
use self::fields::{Field, Wrong, fields};
pub use self::monitor::{Monitor, MonitorEnabled};
pub use self::sinks::{FileSink, LineFormat, OtlpSink, SinkEvents, Sinks};
use crate::backend::BackendChoice;
use crate::{Error, files};

/// Where the configuration is if nothing else is said.
pub const CONFIG_FILE: &str = "/etc/portcullis/config.yaml";
/// Largest configuration file that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 64 << 10;

/// The field that is a list of paths.
const SOCKETS_FIELD: &str = "nri.sockets";
/// The field whose fields are lists, by the names of namespaces.
const NAMESPACES_FIELD: &str = "monitor.namespaces.NAME";
/// The fields that are lists: of what, and an example.
const LISTS: [(&str, &str, &str); 4] = [
    (SOCKETS_FIELD, "paths", "sockets: [/var/run/nri/nri.sock]"),
    ("monitor.visibility", "classes", "visibility: [process]"),
    ("monitor.hostVisibility", "classes", "hostVisibility: [process]"),
    (NAMESPACES_FIELD, "classes", "NAME: [process]"),
];
/// Most sockets that can be named.
const MAX_SOCKETS: usize = 16;

const FIELDS: [&str; 32] = [
    "policyDir",
    "stateDir",
    "backend",
    "failPolicy",
    "defaultPosture",
    "defaultPosture.file",
    "defaultPosture.network",
    "defaultPosture.capabilities",
    "controlSocket",
    "nri.enabled",
    SOCKETS_FIELD,
    "nri.hook",
    "clusterName",
    "feeder.socket",
    "feeder.listen",
    "feeder.tls.certificate",
    "feeder.tls.key",
    "feeder.tls.clientCa",
    "feeder.insecure",
    "metrics.listen",
    "monitor.enabled",
    "monitor.visibility",
    "monitor.hostVisibility",
    NAMESPACES_FIELD,
    "sinks.file.path",
    "sinks.file.format",
    "sinks.file.what",
    "sinks.file.maxBytes",
    "sinks.file.keep",
    "sinks.otlp.endpoint",
    "sinks.otlp.ca",
    "sinks.otlp.what",
];

/// Whether to connect to the runtimes' NRI sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NriEnabled {
    /// When there is one; that there is none is no trouble.
    #[default]
    Auto,
    /// Always; that there is none is told as trouble.
    Yes,
    /// Never.
    No,
}

/// How containers of containerd and CRI-O come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nri {
    /// Whether they do.
    pub enabled: NriEnabled,
    /// Where runtimes listen.
    pub sockets: Vec<PathBuf>,
    /// The program of the gate hook.
    pub hook: PathBuf,
}

impl Default for Nri {
    fn default() -> Nri {
        Nri {
            enabled: NriEnabled::default(),
            sockets: vec![PathBuf::from("/var/run/nri/nri.sock")],
            hook: PathBuf::from("/usr/libexec/portcullis/portcullis-hook"),
        }
    }
}

/// What happens to a container that cannot be armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailPolicy {
    /// It does not start.
    #[default]
    Enforce,
    /// It starts, and that is said and recorded.
    Permit,
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the policies are.
    pub policy_dir: PathBuf,
    /// What is armed, and with what.
    pub state_dir: PathBuf,
    /// What enforces.
    pub backend: BackendChoice,
    /// What happens to a container that cannot be armed.
    pub fail_policy: FailPolicy,
    /// The postures where no annotation sets one.
    pub postures: Postures,
    /// Where the agent answers, if that was said; see [`Config::control_socket`].
    pub control_socket: Option<PathBuf>,
    /// containerd and CRI-O.
    pub nri: Nri,
    /// What alerts in KubeArmor's formats call the cluster.
    pub cluster_name: String,
    /// KubeArmor's gRPC service.
    pub feeder: Feeder,
    /// Where numbers are told to Prometheus, to whoever asks.
    pub metrics_listen: Option<SocketAddr>,
    /// The monitor of processes.
    pub monitor: Monitor,
    /// Where the agent puts events by itself.
    pub sinks: Sinks,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            policy_dir: PathBuf::from("/etc/portcullis/policies"),
            state_dir: PathBuf::from("/run/portcullis"),
            backend: BackendChoice::default(),
            fail_policy: FailPolicy::default(),
            postures: Postures::default(),
            control_socket: None,
            nri: Nri::default(),
            cluster_name: "default".to_owned(),
            feeder: Feeder::default(),
            metrics_listen: None,
            monitor: Monitor::default(),
            sinks: Sinks::default(),
        }
    }
}

impl Config {
    /// Reads `file`, or [`CONFIG_FILE`] if none is given; only the latter may be absent.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of what is wrong.
    pub fn read(file: Option<&Path>) -> Result<Config, Error> {
        let path = file.unwrap_or(Path::new(CONFIG_FILE));
        match files::read(path, MAX_CONFIG_BYTES) {
            Ok(bytes) => Config::parse(path, &bytes),
            Err(Error::File { source, .. }) if file.is_none() && source.kind() == ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(file: &Path, text: &[u8]) -> Result<Config, Error> {
        let wrong =
            |(line, column): (usize, usize), message: String| Error::Config { file: file.to_owned(), line, column, message };
        let text = std::str::from_utf8(text).map_err(|_| wrong((1, 1), "the file is not UTF-8; save it as UTF-8".to_owned()))?;
        let mut config = Config::default();
        let mut feeder = feeder::Written::default();
        let mut sinks = sinks::Written::default();
        for field in fields(text).map_err(|(at, message)| wrong(at, message))? {
            config.set(&field, &mut feeder, &mut sinks).map_err(|message| wrong(field.at, message))?;
        }
        config.feeder = feeder.meant().map_err(|(at, message)| wrong(at, message))?;
        config.sinks = sinks.meant().map_err(|(at, message)| wrong(at, message))?;
        Ok(config)
    }

    /// Where the agent answers.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.control_socket.clone().unwrap_or_else(|| self.state_dir.join("agent.sock"))
    }

    /// Where KubeArmor's gRPC service is for root.
    #[must_use]
    pub fn feeder_socket(&self) -> PathBuf {
        self.feeder.socket.clone().unwrap_or_else(|| self.state_dir.join("feeder.sock"))
    }

    fn set(&mut self, field: &Field, feeder: &mut feeder::Written, sinks: &mut sinks::Written) -> Result<(), String> {
        if let (Some((_, _, example)), None) = (list(&field.name), &field.list) {
            return Err(format!("{} is a list, like `{example}`", field.name));
        }
        let value = field.value.as_str();
        match field.name.as_str() {
            "policyDir" => self.policy_dir = absolute(field)?,
            "stateDir" => self.state_dir = absolute(field)?,
            "backend" => {
                self.backend = match value {
                    "auto" => BackendChoice::Auto,
                    "bpf" => BackendChoice::Bpf,
                    "apparmor" => BackendChoice::AppArmor,
                    _ => return Err(format!("backend is `{value}`; write auto, bpf or apparmor")),
                }
            }
            "failPolicy" => {
                self.fail_policy = match value {
                    "enforce" => FailPolicy::Enforce,
                    "permit" => FailPolicy::Permit,
                    _ => return Err(format!("failPolicy is `{value}`; write enforce or permit")),
                }
            }
            "defaultPosture.file" => self.postures.file = posture(field)?,
            "defaultPosture.network" => self.postures.network = posture(field)?,
            "defaultPosture.capabilities" => self.postures.capabilities = posture(field)?,
            "controlSocket" => self.control_socket = Some(absolute(field)?),
            "nri.enabled" => {
                self.nri.enabled = match value {
                    "auto" => NriEnabled::Auto,
                    "true" => NriEnabled::Yes,
                    "false" => NriEnabled::No,
                    _ => return Err(format!("nri.enabled is `{value}`; write auto, true or false")),
                }
            }
            SOCKETS_FIELD => self.nri.sockets = sockets(field)?,
            "nri.hook" => self.nri.hook = absolute(field)?,
            "nri" => return Err("nri is a mapping with enabled, sockets and hook".to_owned()),
            "defaultPosture" => return Err("defaultPosture is a mapping with file, network and capabilities".to_owned()),
            "clusterName" if value.is_empty() => return Err("clusterName is empty; write a name, or leave it out".to_owned()),
            "clusterName" => self.cluster_name = field.value.clone(),
            "metrics" => return Err("metrics is a mapping with listen".to_owned()),
            "metrics.listen" => self.metrics_listen = Some(address(field)?),
            _ if feeder.set(field)? || self.monitor.set(field)? || sinks.set(field)? => {}
            unknown => return Err(format!("there is no field `{unknown}`; known are {}", FIELDS.join(", "))),
        }
        Ok(())
    }
}

/// The list by this name.
fn list(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let name = if monitor::namespace(name).is_some() { NAMESPACES_FIELD } else { name };
    LISTS.into_iter().find(|(list, ..)| *list == name)
}

fn absolute(field: &Field) -> Result<PathBuf, String> {
    absolute_path(&field.name, &field.value)
}

fn absolute_path(name: &str, value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(format!("{name} is `{value}`; write an absolute path")) }
}

fn address(field: &Field) -> Result<SocketAddr, String> {
    let wrong = |_| format!("{} is `{}`; write an address with a port, like 127.0.0.1:32767", field.name, field.value);
    field.value.parse().map_err(wrong)
}

fn sockets(field: &Field) -> Result<Vec<PathBuf>, String> {
    let values = field.list.as_deref().unwrap_or_default();
    match values.len() {
        0 => Err(format!("{SOCKETS_FIELD} is empty; name a socket, or write `enabled: false`")),
        1..=MAX_SOCKETS => values.iter().map(|value| absolute_path(&field.name, value)).collect(),
        _ => Err(format!("{SOCKETS_FIELD} has more than {MAX_SOCKETS} sockets; name fewer")),
    }
}

fn posture(field: &Field) -> Result<Posture, String> {
    match field.value.as_str() {
        "audit" => Ok(Posture::Audit),
        "block" => Ok(Posture::Block),
        value => Err(format!("{} is `{value}`; write audit or block", field.name)),
    }
}

#[cfg(test)]
mod tests;
