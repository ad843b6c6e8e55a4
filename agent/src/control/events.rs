//! What is asked of events, and what is said before and between them.

use serde::{Deserialize, Serialize};

use crate::alerts::Filter;
use crate::alerts::line::SCHEMA;
use crate::logs::line::PROCESS_SCHEMA;
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
    /// All of them.
    All,
}

impl EventClass {
    pub(super) fn has_alerts(self) -> bool {
        self != EventClass::Process
    }

    pub(super) fn has_processes(self) -> bool {
        self != EventClass::Alert
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
        let [alert, process] = match self {
            EventFormat::Json => [SCHEMA, PROCESS_SCHEMA],
            EventFormat::Kubearmor => [KUBEARMOR_SCHEMA, KUBEARMOR_LOG_SCHEMA],
            EventFormat::Ocsf => return OCSF_SCHEMA.to_owned(),
        };
        match class {
            EventClass::Alert => alert.to_owned(),
            EventClass::Process => process.to_owned(),
            EventClass::All => format!("{alert},{process}"),
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
