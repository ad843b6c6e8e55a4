//! One event as one JSON line. The schema's name is in every line; fields are added, never changed.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_ebpf::monitor::{AccessEvent, abi};
use serde::Serialize;

use super::access::{AccessLine, Reference};
use crate::alerts::ProcessFacts;
use crate::alerts::clock::Timestamp;
use crate::alerts::line::{Container, ProcessLine, operation};

/// Name and version of the schema of events of processes.
pub const PROCESS_SCHEMA: &str = "portcullis.process/1";
/// Name and version of the schema of accesses.
pub const ACCESS_SCHEMA: &str = "portcullis.access/1";

/// An event, named.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub(crate) schema: &'static str,
    pub(crate) time: Timestamp,
    /// Absent, with the sequence, where the line tells of no event of its own but of repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<u32>,
    /// Counts the events of this schema of this CPU, delivered or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<u64>,
    /// Such events of this CPU, just before this one, that were not delivered.
    pub(crate) lost_before: u64,
    /// What was done: `exec`, or an operation as of alerts.
    pub(crate) operation: &'static str,
    /// `process`; of accesses `file`, `network` or `capability`.
    pub(crate) class: &'static str,
    #[serde(flatten)]
    pub(crate) access: Option<AccessLine>,
    /// Whose process it is, if that is on record.
    pub(crate) container: Option<Arc<Container>>,
    /// Cgroup id of the process.
    pub(crate) cgroup: u64,
    pub(crate) process: ProcessLine,
}

impl Line {
    pub(super) fn executed(
        header: &abi::Process,
        lost_before: u64,
        time: SystemTime,
        container: Option<Arc<Container>>,
        process: Option<ProcessFacts>,
    ) -> Line {
        Line {
            schema: PROCESS_SCHEMA,
            time: Timestamp(time),
            cpu: Some(header.cpu),
            sequence: Some(header.seq),
            lost_before,
            operation: "exec",
            class: "process",
            access: None,
            container,
            cgroup: header.cgroup,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, process),
        }
    }

    pub(super) fn accessed(
        event: &AccessEvent,
        time: SystemTime,
        container: Option<Arc<Container>>,
        process: Option<ProcessFacts>,
    ) -> Line {
        let header = &event.header;
        let (operation, class) = operation(header.op, header.arg[0]);
        Line {
            schema: ACCESS_SCHEMA,
            time: Timestamp(time),
            cpu: Some(header.cpu),
            sequence: Some(header.seq),
            lost_before: event.lost_before,
            operation,
            class,
            access: Some(AccessLine::new(event)),
            container,
            cgroup: header.cgroup,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, process),
        }
    }

    /// That an access was repeated, in place of the access.
    pub(super) fn only_repeats(mut self) -> Line {
        let reference = self.cpu.take().zip(self.sequence.take()).map(|(cpu, sequence)| Reference { cpu, sequence });
        if let Some(access) = &mut self.access {
            access.repeats_of = reference;
        }
        self
    }
}
