//! How the agent is.

use serde::{Deserialize, Serialize};

use super::{ConnectionStatus, Trouble};

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
    /// The monitor of processes.
    #[serde(default)]
    pub monitor: MonitorStatus,
    /// The other events that go through it.
    #[serde(default)]
    pub logs: LogsStatus,
    /// The accesses among them.
    #[serde(default)]
    pub accesses: AccessesStatus,
    /// Of how many containers what is told.
    #[serde(default)]
    pub visibility: VisibilityStatus,
    /// Where it puts events by itself.
    #[serde(default)]
    pub sinks: Vec<SinkStatus>,
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

/// The monitor of processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitorStatus {
    /// Whether there has to be one, by the configuration.
    pub required: bool,
    /// Whether there is one.
    pub loaded: bool,
    /// Why there is none, though it is wanted, or why its events are not read.
    pub trouble: Option<String>,
    /// Whether what the host's processes execute is told.
    pub host: bool,
    /// Events of processes that it raised.
    pub events: u64,
    /// Those that found no room in the ring.
    pub lost: u64,
    /// Events that the kernel skipped the program for; see `ARCHITECTURE.md`.
    pub missed: u64,
    /// Processes that are known, those that ended a moment ago included.
    pub processes: usize,
    /// Processes that were forgotten for want of room.
    pub evicted: u64,
}

/// Programs that were started, as events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsStatus {
    /// Events since the agent was started.
    pub logs: u64,
    /// Those who follow them now.
    pub readers: u64,
    /// Events that wait for somebody to follow.
    pub waiting: u64,
    /// Events that a follower did not get, as for alerts.
    pub lost: u64,
}

/// Accesses: files, sockets and capabilities. All that there were are those that were raised and those that were aggregated; of those that
/// were raised, the ones that were not lost have been told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessesStatus {
    /// Whether any class of them is to be told of anybody.
    pub wanted: bool,
    /// Why none is told, though they are wanted.
    pub trouble: Option<String>,
    /// Accesses to files that were told since the agent was started.
    pub file: VerdictCounts,
    /// Those to sockets.
    pub network: VerdictCounts,
    /// Those to capabilities.
    pub capability: VerdictCounts,
    /// Accesses that the kernel was to tell, since the monitor was loaded.
    pub raised: u64,
    /// Those of them that found no room.
    pub lost: u64,
    /// Accesses that it only counted, since the same was told a moment before.
    pub aggregated: u64,
    /// Accesses that came and were not told, since their container does not want it: those of its first steps, and where the kernel has
    /// no room for its visibility.
    #[serde(default)]
    pub withheld: u64,
    /// Those who follow accesses now.
    pub readers: u64,
    /// Lines that wait for somebody to follow.
    pub waiting: u64,
    /// Lines that a follower did not get, as for alerts.
    pub unread: u64,
}

/// What is told of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VisibilityStatus {
    /// Containers whose executions are told.
    pub process: usize,
    /// Those whose files are.
    pub file: usize,
    /// Those whose sockets are.
    pub network: usize,
    /// Those whose capabilities are.
    pub capabilities: usize,
    /// Containers that, or whose namespaces, say themselves what is told.
    pub own: usize,
    /// Those of them that the kernel has no room for: their accesses are told as the configuration says.
    pub left_out: usize,
    /// What containers ask for in vain; of no more than 64.
    pub untold: Vec<UntoldVisibility>,
    /// Why the kernel does not have what containers ask for.
    pub trouble: Option<String>,
}

/// What a container asks for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UntoldVisibility {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it asks for, as a sentence.
    pub why: String,
}

/// Accesses by what the security modules answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictCounts {
    /// None of them denied.
    pub passed: u64,
    /// One did.
    pub denied: u64,
}

/// A place where the agent puts events by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// Its kind: `file` or `otlp`.
    pub sink: String,
    /// Where that is.
    pub to: String,
    /// Events that were written there.
    pub written: u64,
    /// Events that are missing there.
    pub lost: u64,
    /// Why it cannot write now; what comes meanwhile waits, within limits.
    pub trouble: Option<String>,
}
