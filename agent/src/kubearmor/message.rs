//! The messages of `proto/feeder.proto`, for protobuf and for JSON.
//!
//! The JSON is what Go's `encoding/json` makes of KubeArmor's messages: fields in the order in which its schema declares them, empty
//! ones left out, but for `PPID` and `UID`, which 0 is a value of.

use std::collections::BTreeMap;

use serde::Serialize;

/// Asks for health.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NonceMessage {
    /// Any number.
    #[prost(int32, tag = "1")]
    pub nonce: i32,
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplyMessage {
    /// The number that was asked with.
    #[prost(int32, tag = "1")]
    pub retval: i32,
}

/// Asks for a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestMessage {
    /// What is wanted of it.
    #[prost(string, tag = "1")]
    pub filter: String,
}

/// What the agent has to say of itself.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    pub timestamp: i64,
    /// The same as text, in UTC, with microseconds.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated_time: String,
    /// The cluster, `default` where nobody named it.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The node.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_name: String,
    /// Not used.
    #[prost(string, tag = "5")]
    #[serde(rename = "HostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// `Message`.
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// `ERROR`, `WARN` or `INFO`.
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub level: String,
    /// What the agent has to say.
    #[prost(string, tag = "8")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The workload that a pod belongs to.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Podowner {
    /// Its kind, e.g. `Deployment`.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#ref: String,
    /// Its name.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// An execution.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecEvent {
    /// Tells it from all others of the node.
    #[prost(string, tag = "1")]
    #[serde(rename = "ExecID", skip_serializing_if = "String::is_empty")]
    pub exec_id: String,
    /// What the process calls itself: the name of its thread.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executable_name: String,
}

/// A denial or an audited operation.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Alert {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    pub timestamp: i64,
    /// The same as text, in UTC, with microseconds.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated_time: String,
    /// The cluster, `default` where nobody named it.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The node.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_name: String,
    /// The pod's namespace.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace_name: String,
    /// The workload that the pod belongs to.
    #[prost(message, optional, tag = "31")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Podowner>,
    /// The pod; outside Kubernetes the container.
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// The pod's labels, `name=value`, separated by commas.
    #[prost(string, tag = "29")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub labels: String,
    /// The engine's id of the container.
    #[prost(string, tag = "7")]
    #[serde(rename = "ContainerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Its name.
    #[prost(string, tag = "8")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// Its image.
    #[prost(string, tag = "24")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_image: String,
    /// The parent, in the initial pid namespace.
    #[prost(int32, tag = "27")]
    #[serde(rename = "HostPPID", skip_serializing_if = "is_zero")]
    pub host_ppid: i32,
    /// The process, in the initial pid namespace.
    #[prost(int32, tag = "9")]
    #[serde(rename = "HostPID", skip_serializing_if = "is_zero")]
    pub host_pid: i32,
    /// The parent, in the container's pid namespace.
    #[prost(int32, tag = "10")]
    #[serde(rename = "PPID")]
    pub ppid: i32,
    /// The process, in the container's pid namespace.
    #[prost(int32, tag = "11")]
    #[serde(rename = "PID", skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Its user, in the initial user namespace.
    #[prost(int32, tag = "12")]
    #[serde(rename = "UID")]
    pub uid: i32,
    /// The parent's executable.
    #[prost(string, tag = "25")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_process_name: String,
    /// The executable.
    #[prost(string, tag = "26")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_name: String,
    /// The policy that decided.
    #[prost(string, tag = "13")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_name: String,
    /// 1 to 10, as text.
    #[prost(string, tag = "14")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// The policy's tags, separated by commas.
    #[prost(string, tag = "15")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tags: String,
    /// The same, one by one.
    #[prost(string, repeated, tag = "30")]
    #[serde(rename = "ATags", skip_serializing_if = "Vec::is_empty")]
    pub atags: Vec<String>,
    /// What the policy says.
    #[prost(string, tag = "16")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `MatchedPolicy` or `MatchedHostPolicy`.
    #[prost(string, tag = "17")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Who did it: the executable with its arguments; for an execution, the one who called exec.
    #[prost(string, tag = "18")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `Process`, `File`, `Network`, `Capabilities` or `Syscall`.
    #[prost(string, tag = "19")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// To what it was done.
    #[prost(string, tag = "20")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Which hook saw it, as words.
    #[prost(string, tag = "21")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// The words of `Data`, and for sockets of `Resource`, that are pairs.
    #[prost(btree_map = "string, string", tag = "43")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub event_data: BTreeMap<String, String>,
    /// `BPFLSM`.
    #[prost(string, tag = "28")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub enforcer: String,
    /// `Block`, `Audit` or `Audit (Block)`.
    #[prost(string, tag = "22")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// `Permission denied` or `Passed`.
    #[prost(string, tag = "23")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The working directory, with a slash at the end.
    #[prost(string, tag = "32")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cwd: String,
    /// The terminal.
    #[prost(string, tag = "33")]
    #[serde(rename = "TTY", skip_serializing_if = "String::is_empty")]
    pub tty: String,
    /// Not used: nothing is throttled.
    #[prost(int32, tag = "34")]
    #[serde(skip_serializing_if = "is_zero")]
    pub max_alerts_per_sec: i32,
    /// Not used: nothing is throttled.
    #[prost(int32, tag = "35")]
    #[serde(skip_serializing_if = "is_zero")]
    pub dropping_alerts_interval: i32,
    /// The execution that made the process what it is.
    #[prost(message, optional, tag = "36")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_event: Option<ExecEvent>,
    /// The version of the agent.
    #[prost(string, tag = "37")]
    #[serde(rename = "KubeArmorVersion", skip_serializing_if = "String::is_empty")]
    pub kubearmor_version: String,
    /// The machine id of the node.
    #[prost(string, tag = "38")]
    #[serde(rename = "NodeID", skip_serializing_if = "String::is_empty")]
    pub node_id: String,
    /// Not used.
    #[prost(string, tag = "39")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_hash: String,
    /// Not used.
    #[prost(string, tag = "40")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_hash: String,
    /// Not used.
    #[prost(string, tag = "41")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_hash: String,
    /// Not used.
    #[prost(string, tag = "42")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash_algo: String,
    /// The name of the user; of hosts only.
    #[prost(string, tag = "44")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_name: String,
}

/// Something that a container did.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Log {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    pub timestamp: i64,
    /// The same as text, in UTC, with microseconds.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub updated_time: String,
    /// The cluster, `default` where nobody named it.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The node.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_name: String,
    /// The pod's namespace.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace_name: String,
    /// The workload that the pod belongs to.
    #[prost(message, optional, tag = "24")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Podowner>,
    /// The pod; outside Kubernetes the container.
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// The pod's labels, `name=value`, separated by commas.
    #[prost(string, tag = "23")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub labels: String,
    /// The engine's id of the container.
    #[prost(string, tag = "7")]
    #[serde(rename = "ContainerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Its name.
    #[prost(string, tag = "8")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// Its image.
    #[prost(string, tag = "19")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_image: String,
    /// The parent's executable.
    #[prost(string, tag = "20")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_process_name: String,
    /// The executable.
    #[prost(string, tag = "21")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_name: String,
    /// The parent, in the initial pid namespace.
    #[prost(int32, tag = "22")]
    #[serde(rename = "HostPPID", skip_serializing_if = "is_zero")]
    pub host_ppid: i32,
    /// The process, in the initial pid namespace.
    #[prost(int32, tag = "9")]
    #[serde(rename = "HostPID", skip_serializing_if = "is_zero")]
    pub host_pid: i32,
    /// The parent, in the container's pid namespace.
    #[prost(int32, tag = "10")]
    #[serde(rename = "PPID")]
    pub ppid: i32,
    /// The process, in the container's pid namespace.
    #[prost(int32, tag = "11")]
    #[serde(rename = "PID", skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Its user, in the initial user namespace.
    #[prost(int32, tag = "12")]
    #[serde(rename = "UID")]
    pub uid: i32,
    /// `ContainerLog` or `HostLog`.
    #[prost(string, tag = "13")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Who did it: the executable with its arguments; for an execution, the one who called exec.
    #[prost(string, tag = "14")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `Process`, `File`, `Network`, `Capabilities` or `Syscall`.
    #[prost(string, tag = "15")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// To what it was done.
    #[prost(string, tag = "16")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Which hook saw it, as words.
    #[prost(string, tag = "17")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// The words of `Data`, and for sockets of `Resource`, that are pairs.
    #[prost(btree_map = "string, string", tag = "33")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub event_data: BTreeMap<String, String>,
    /// `Passed`, or the error as text.
    #[prost(string, tag = "18")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// The working directory, with a slash at the end.
    #[prost(string, tag = "25")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cwd: String,
    /// The terminal.
    #[prost(string, tag = "26")]
    #[serde(rename = "TTY", skip_serializing_if = "String::is_empty")]
    pub tty: String,
    /// The execution that made the process what it is.
    #[prost(message, optional, tag = "27")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_event: Option<ExecEvent>,
    /// The machine id of the node.
    #[prost(string, tag = "28")]
    #[serde(rename = "NodeID", skip_serializing_if = "String::is_empty")]
    pub node_id: String,
    /// Not used.
    #[prost(string, tag = "29")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_hash: String,
    /// Not used.
    #[prost(string, tag = "30")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_hash: String,
    /// Not used.
    #[prost(string, tag = "31")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_hash: String,
    /// Not used.
    #[prost(string, tag = "32")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash_algo: String,
    /// The name of the user; of hosts only.
    #[prost(string, tag = "34")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_name: String,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
