//! The control socket: what people and programs on this host ask the agent.
//!
//! A Unix socket for root alone. A request is one line of JSON, an answer one line of JSON, or many for
//! [`events`](Call::Events):
//!
//! ```text
//! > {"v":1,"method":"status"}
//! < {"v":1,"ok":{"version":"0.1.0","pid":312,…}}
//! > {"v":1,"method":"who","container":"web"}
//! < {"v":1,"error":{"kind":"notFound","message":"no container is called `web`; …"}}
//! ```
//!
//! Fields are added, never changed; what is unknown is ignored. Another `v` is refused.

mod client;
mod server;

use std::path::PathBuf;

pub use portcullis_nri_plugin::{ConnectionStatus, Counts, Link};
use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError, Line};
pub(crate) use server::{Answers, serve};

pub use crate::reconcile::{Outcome, Trouble};

use crate::alerts::Format;
use crate::alerts::line::SCHEMA;

/// The version of the protocol.
pub const VERSION: u32 = 1;
/// Longest request, in bytes with its line's end.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "camelCase")]
pub enum Call {
    /// How the agent is; answered with [`AgentStatus`].
    Status,
    /// Who a container is and what selects it; answered with [`Who`].
    Who {
        /// Its id, the beginning of its id, or its name.
        container: String,
    },
    /// The policies in force; answered with [`PolicyTable`].
    Policies,
    /// Read the policies now; answered with [`Outcome`] when every container has been brought to them.
    Reload,
    /// Follow alerts: after an answer with [`Following`] each further line is an alert, or says what was lost.
    Events {
        /// Only of this container: its id, the beginning of its id, or its name.
        #[serde(default)]
        container: Option<String>,
        /// End after this many.
        #[serde(default)]
        count: Option<u64>,
        /// As lines of this format.
        #[serde(default)]
        format: EventFormat,
    },
}

/// How alerts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventFormat {
    /// As our own JSON.
    #[default]
    Json,
    /// As KubeArmor's JSON.
    Kubearmor,
}

impl EventFormat {
    /// Name and version of the schema of its lines.
    #[must_use]
    pub fn schema(self) -> &'static str {
        match self {
            EventFormat::Json => SCHEMA,
            EventFormat::Kubearmor => KUBEARMOR_SCHEMA,
        }
    }
}

impl From<EventFormat> for Format {
    fn from(format: EventFormat) -> Format {
        match format {
            EventFormat::Json => Format::Line,
            EventFormat::Kubearmor => Format::KubeArmor,
        }
    }
}

/// What a follower is told that follows: KubeArmor's schema has no name of its own, and its lines name none.
pub const KUBEARMOR_SCHEMA: &str = "kubearmor.alert";

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply<T> {
    /// [`VERSION`].
    pub v: u32,
    /// What came of it.
    #[serde(flatten)]
    pub body: Body<T>,
}

/// What came of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body<T> {
    /// The answer.
    Ok(T),
    /// None.
    Error(Refusal),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RefusalKind {
    /// The request is not understood.
    BadRequest,
    /// It is of another version of the protocol.
    Version,
    /// There is nothing by that name, or more than one.
    NotFound,
    /// Whoever asks may not.
    Forbidden,
    /// Too many ask at once.
    Busy,
    /// The agent failed.
    Failed,
    /// A kind that this side does not know.
    #[serde(other)]
    Unknown,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, in seconds since 1970.
    pub started_at: u64,
    /// Its policies.
    pub policies: PoliciesStatus,
    /// The containers it looks after.
    pub containers: ContainersStatus,
    /// Its connections to runtimes.
    pub nri: NriStatus,
    /// The alerts that go through it.
    pub alerts: AlertsStatus,
    /// Why nobody can read metrics, where the configuration says that somebody may.
    #[serde(default)]
    pub metrics_trouble: Option<String>,
}

/// The agent's policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoliciesStatus {
    /// Counts how often they were read.
    pub generation: u64,
    /// When they were read last, in seconds since 1970.
    pub read_at: u64,
    /// How many there are.
    pub count: usize,
    /// Things wrong with policy files.
    pub problems: usize,
    /// Why they could not be read the last time; then those that were read before are in force.
    pub unreadable: Option<String>,
}

/// The agent's containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainersStatus {
    /// Those that doors have let in.
    pub known: usize,
    /// Those that were stopped and have tasks left, under their policy.
    pub leaving: usize,
    /// Those whose policies are not up to date.
    pub troubles: Vec<Trouble>,
}

/// The agent's connections to runtimes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NriStatus {
    /// Whether there has to be one, by the configuration.
    pub required: bool,
    /// Each of them.
    pub connections: Vec<ConnectionStatus>,
}

/// The alerts that go through the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertsStatus {
    /// Alerts since it was started.
    pub alerts: u64,
    /// Those who follow them now.
    pub readers: u64,
    /// Alerts that wait for somebody to follow.
    pub waiting: u64,
    /// Alerts that a follower did not get because it read too slowly, or nobody followed for long; counted for each.
    #[serde(default)]
    pub lost: u64,
    /// Why they are not read.
    pub trouble: Option<String>,
    /// Why nobody can follow them in KubeArmor's protocol.
    #[serde(default)]
    pub feeder_trouble: Option<String>,
}

/// A container that the agent looks after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    /// Who and where it is.
    pub known: portcullis_enforcer::Known,
    /// The policies that select it now, as ids.
    pub policies: Vec<String>,
    /// Why they are not in force for it.
    pub trouble: Option<Trouble>,
}

/// The policies in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTable {
    /// Counts how often the agent has read them; nothing without an agent.
    pub generation: Option<u64>,
    /// Each of them.
    pub policies: Vec<PolicyRow>,
    /// What is wrong with policy files.
    pub problems: Vec<PolicyProblem>,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// Kind, namespace and name.
    pub id: String,
    /// The file it is in.
    pub file: PathBuf,
    /// The line of its first rule; 0 if it has none.
    pub line: u32,
    /// Rules that are enforced.
    pub rules: usize,
    /// Things it says that are not enforced.
    pub unenforced: usize,
    /// Known containers that it selects.
    pub containers: usize,
    /// An older version of it is in force, because what its file says now was refused.
    pub kept: bool,
}

/// Something wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, with its place.
    pub message: String,
    /// The policies of older versions that are in force in its stead.
    pub kept: Vec<String>,
}

/// Alerts follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// The schema of the lines that follow.
    pub schema: String,
}

/// The line that says that alerts were lost on the way to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// [`LOST_SCHEMA`].
    pub schema: String,
    /// How many.
    pub lost: u64,
}

/// The schema of [`Lost`].
pub const LOST_SCHEMA: &str = "portcullis.lost/1";
