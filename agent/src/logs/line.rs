//! One event as one JSON line. The schema's name is in every line; fields are added, never changed.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_ebpf::monitor::ProcessEvent;
use serde::Serialize;

use crate::alerts::ProcessFacts;
use crate::alerts::line::{Container, ProcessLine};

/// Name and version of the schema of events of processes.
pub const PROCESS_SCHEMA: &str = "portcullis.process/1";

/// An event, named.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub(crate) schema: &'static str,
    pub(crate) time: String,
    pub(crate) cpu: u32,
    /// Counts the events of processes of this CPU, delivered or not.
    pub(crate) sequence: u64,
    /// Events of processes of this CPU, just before this one, that were not delivered.
    pub(crate) lost_before: u64,
    /// What was done: `exec`.
    pub(crate) operation: &'static str,
    /// `process`.
    pub(crate) class: &'static str,
    /// Whose process it is, if that is on record.
    pub(crate) container: Option<Arc<Container>>,
    /// Cgroup id of the process.
    pub(crate) cgroup: u64,
    pub(crate) process: ProcessLine,
}

impl Line {
    pub(super) fn executed(
        event: &ProcessEvent,
        time: SystemTime,
        container: Option<Arc<Container>>,
        process: ProcessFacts,
    ) -> Line {
        let header = &event.header;
        Line {
            schema: PROCESS_SCHEMA,
            time: humantime::format_rfc3339_micros(time).to_string(),
            cpu: header.cpu,
            sequence: header.seq,
            lost_before: event.lost_before,
            operation: "exec",
            class: "process",
            container,
            cgroup: header.cgroup,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, Some(process)),
        }
    }
}
