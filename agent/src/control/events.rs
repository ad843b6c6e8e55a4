//! What is asked of events, and what is said before and between them.

use serde::{Deserialize, Serialize};

use crate::alerts::Filter;
use crate::alerts::line::SCHEMA;
use crate::logs::Log;
use crate::logs::line::{ACCESS_SCHEMA, PROCESS_SCHEMA};
use crate::ocsf::OCSF_SCHEMA;

/// What events a follower wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Of this class.
    #[serde(default)]
    pub class: EventClass,
    /// Of these.
    #[serde(flatten)]
    pub filter: Filter,
    /// End after this many.
    #[serde(default)]
    pub count: Option<u64>,
    /// As lines of this format.
    #[serde(default)]
    pub format: EventFormat,
}

/// Classes of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventClass {
    /// Denials and audited operations.
    #[default]
    Alert,
    /// What is executed.
    Process,
    /// What is opened or changed.
    File,
    /// Sockets and whom they speak with.
    Network,
    /// Capabilities that are used, or refused.
    Capabilities,
    /// The last three.
    Access,
    /// All but the alerts.
    Logs,
    /// All of them.
    All,
}

impl EventClass {
    pub(super) fn has_alerts(self) -> bool {
        matches!(self, EventClass::Alert | EventClass::All)
    }

    pub(super) fn has_processes(self) -> bool {
        matches!(self, EventClass::Process | EventClass::Logs | EventClass::All)
    }

    pub(super) fn has_accesses(self) -> bool {
        !matches!(self, EventClass::Alert | EventClass::Process)
    }

    /// Whether an event of a stream that this class has is of this class.
    pub(super) fn takes(self, log: &Log) -> bool {
        match self {
            EventClass::File => log.class() == "file",
            EventClass::Network => log.class() == "network",
            EventClass::Capabilities => log.class() == "capability",
            EventClass::Alert | EventClass::Process | EventClass::Access | EventClass::Logs | EventClass::All => true,
        }
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventFormat {
    /// As our own JSON.
    #[default]
    Json,
    /// As KubeArmor's JSON.
    Kubearmor,
    /// As events of OCSF.
    Ocsf,
}

impl EventFormat {
    /// Name and version of the schemas of its lines, separated by commas.
    #[must_use]
    pub fn schema(self, class: EventClass) -> String {
        let [alert, process, access] = match self {
            EventFormat::Json => [SCHEMA, PROCESS_SCHEMA, ACCESS_SCHEMA],
            EventFormat::Kubearmor => [KUBEARMOR_SCHEMA, KUBEARMOR_LOG_SCHEMA, KUBEARMOR_LOG_SCHEMA],
            EventFormat::Ocsf => return OCSF_SCHEMA.to_owned(),
        };
        match class {
            EventClass::Alert => alert.to_owned(),
            EventClass::Process => process.to_owned(),
            EventClass::File | EventClass::Network | EventClass::Capabilities | EventClass::Access => access.to_owned(),
            EventClass::Logs if access == process => process.to_owned(),
            EventClass::Logs => format!("{process},{access}"),
            EventClass::All if access == process => format!("{alert},{process}"),
            EventClass::All => format!("{alert},{process},{access}"),
        }
    }
}

/// What a follower is told that follows: KubeArmor's schema has no name of its own, and its lines name none.
pub const KUBEARMOR_SCHEMA: &str = "kubearmor.alert";
/// The same for what is no alert.
const KUBEARMOR_LOG_SCHEMA: &str = "kubearmor.log";

/// Events follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// The schemas of the lines that follow.
    pub schema: String,
}

/// The line that says that events were lost on the way to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// [`LOST_SCHEMA`].
    pub schema: String,
    /// Of this class.
    #[serde(default)]
    pub class: EventClass,
    /// How many.
    pub lost: u64,
}

/// The schema of [`Lost`].
pub const LOST_SCHEMA: &str = "portcullis.lost/1";
