//! The objects of OCSF that events here have, with the attributes that can be filled, by OCSF's names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use crate::alerts::clock::{EventId, Timestamp};

/// An event.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    pub(super) activity_id: u32,
    pub(super) activity_name: &'static str,
    pub(super) category_uid: u32,
    pub(super) category_name: &'static str,
    pub(super) class_uid: u32,
    pub(super) class_name: &'static str,
    pub(super) type_uid: u32,
    pub(super) type_name: String,
    /// Milliseconds since 1970.
    pub(super) time: u64,
    pub(super) severity_id: u32,
    pub(super) severity: &'static str,
    pub(super) status_id: u32,
    pub(super) status: &'static str,
    pub(super) message: String,
    pub(super) metadata: Metadata<'a>,
    pub(super) actor: Actor<'a>,
    pub(super) device: Device<'a>,
    #[serde(flatten)]
    pub(super) target: Target<'a>,
    #[serde(flatten)]
    pub(super) control: Option<Control<'a>>,
    pub(super) unmapped: BTreeMap<&'static str, Value>,
}

/// What says who tells it.
#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) version: &'static str,
    pub(super) product: Product,
    pub(super) profiles: &'static [&'static str],
    /// The schema of our own line.
    pub(super) log_name: &'a str,
    pub(super) original_time: Timestamp,
    /// The event's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) vendor_name: &'static str,
    pub(super) version: &'static str,
}

/// The profile `security_control`: what was decided, and by which policy.
#[derive(Debug, Serialize)]
pub(super) struct Control<'a> {
    pub(super) action_id: u32,
    pub(super) action: &'static str,
    pub(super) disposition_id: u32,
    pub(super) disposition: &'static str,
    pub(super) is_alert: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Policy<'a> {
    pub(super) name: &'a str,
    pub(super) is_applied: bool,
    /// The generation of the container's policies.
    pub(super) version: String,
}

/// Who did it.
#[derive(Debug, Serialize)]
pub(super) struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process<'a>>,
    pub(super) user: User,
}

#[derive(Debug, Serialize)]
pub(super) struct User {
    pub(super) uid: String,
}

/// The node.
#[derive(Debug, Serialize)]
pub(super) struct Device<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) uid: &'a str,
    pub(super) type_id: u32,
    pub(super) os: Os,
}

#[derive(Debug, Serialize)]
pub(super) struct Os {
    pub(super) name: &'static str,
    pub(super) type_id: u32,
}

/// What it was done to: the attributes that the class requires besides those that all have.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Target<'a> {
    Nothing {},
    File {
        file: File<'a>,
    },
    Kernel {
        kernel: Kernel<'a>,
    },
    Module {
        module: Module<'a>,
    },
    Process {
        process: Box<Process<'a>>,
        launch_type_id: u32,
        launch_type: &'static str,
    },
    Network {
        src_endpoint: Endpoint<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dst_endpoint: Option<Address>,
        connection_info: Connection,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) type_id: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Kernel<'a> {
    pub(super) name: &'a str,
    pub(super) type_id: u32,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Module<'a> {
    pub(super) file: File<'a>,
    pub(super) load_type_id: u32,
    pub(super) load_type: &'static str,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace_pid: Option<u32>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    /// The name of the execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmd_line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) working_directory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<File<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent_process: Option<Box<Process<'a>>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Container<'a> {
    pub(super) uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Image<'a>>,
}

/// An image by its reference, which is all that runtimes tell of it.
#[derive(Debug, Serialize)]
pub(super) struct Image<'a> {
    pub(super) uid: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct Endpoint<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
    #[serde(flatten)]
    pub(super) address: Option<Address>,
}

/// An end by its address.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

#[derive(Debug, Serialize)]
pub(super) struct Connection {
    pub(super) direction_id: u32,
    pub(super) direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol_num: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol_ver_id: Option<u32>,
}
