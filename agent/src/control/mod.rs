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
mod events;
mod feed;
mod server;
mod status;
mod tree;

use std::path::PathBuf;

pub use portcullis_nri_plugin::{ConnectionStatus, Counts, Link};
use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError, Line};
pub use events::{EventClass, EventFormat, Following, KUBEARMOR_SCHEMA, LOST_SCHEMA, Lost, Wanted};
pub(crate) use feed::{Fed, Feed};
pub(crate) use server::{Answers, serve};
pub use status::{
    AccessesStatus, AgentStatus, AlertsStatus, ContainersStatus, LogsStatus, MonitorStatus, NriStatus, PoliciesStatus,
    SinkStatus, UntoldVisibility, VerdictCounts, VisibilityStatus,
};
pub use tree::{Tree, TreeProcess};

pub use crate::reconcile::{Outcome, Trouble};

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
    /// The processes of a container; answered with [`Tree`].
    Tree {
        /// Its id, the beginning of its id, or its name.
        container: String,
    },
    /// The policies in force; answered with [`PolicyTable`].
    Policies,
    /// Read the policies now; answered with [`Outcome`] when every container has been brought to them.
    Reload,
    /// Follow events: after an answer with [`Following`] each further line is an event, or says what was lost.
    Events(Wanted),
}

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
    /// What is told of it.
    #[serde(default)]
    pub visibility: Option<Visibility>,
}

/// What is told of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visibility {
    /// The classes, in KubeArmor's words.
    pub classes: Vec<String>,
    /// What says so.
    pub by: portcullis_enforcer::VisibleBy,
    /// What was asked for and is not told, as a sentence.
    pub untold: Option<String>,
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
