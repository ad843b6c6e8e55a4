//! One event as one JSON line. The schema's name is in every line; fields are added, never changed.

use portcullis_ebpf::monitor::{AccessEvent, abi};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Named;
use super::access::{AccessLine, Reference};
use crate::alerts::clock::{EventId, Timestamp, microseconds};
use crate::alerts::line::{Container, ProcessLine, operation};
use crate::json;

/// Name and version of the schema of events of processes.
pub const PROCESS_SCHEMA: &str = "portcullis.process/1";
/// Name and version of the schema of accesses.
pub const ACCESS_SCHEMA: &str = "portcullis.access/1";

/// An event, named.
#[derive(Debug)]
pub struct Line<'a> {
    pub(crate) schema: &'static str,
    pub(crate) time: Timestamp,
    /// Absent, like the next three, where the line tells of no event of its own but of repeats.
    pub(crate) id: Option<EventId>,
    /// From when it was raised until it was given to readers, in microseconds.
    pub(crate) latency_us: Option<u64>,
    pub(crate) cpu: Option<u32>,
    /// Counts the events of this schema of this CPU, delivered or not.
    pub(crate) sequence: Option<u64>,
    /// Such events of this CPU, just before this one, that were not delivered.
    pub(crate) lost_before: u64,
    /// What was done: `exec`, or an operation as of alerts.
    pub(crate) operation: &'static str,
    /// `process`; of accesses `file`, `network` or `capability`.
    pub(crate) class: &'static str,
    pub(crate) access: Option<AccessLine<'a>>,
    /// Whose process it is, if that is on record.
    pub(crate) container: Option<&'a Container>,
    /// Cgroup id of the process.
    pub(crate) cgroup: u64,
    pub(crate) process: ProcessLine<'a>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 8)?;
        line.serialize_field("schema", self.schema)?;
        line.serialize_field("time", &self.time)?;
        json::known(&mut line, "id", &self.id)?;
        json::known(&mut line, "latencyUs", &self.latency_us)?;
        json::known(&mut line, "cpu", &self.cpu)?;
        json::known(&mut line, "sequence", &self.sequence)?;
        line.serialize_field("lostBefore", &self.lost_before)?;
        line.serialize_field("operation", self.operation)?;
        line.serialize_field("class", self.class)?;
        if let Some(access) = &self.access {
            access.fields(&mut line)?;
        }
        line.serialize_field("container", &self.container)?;
        line.serialize_field("cgroup", &self.cgroup)?;
        line.serialize_field("process", &self.process)?;
        line.end()
    }
}

impl<'a> Line<'a> {
    pub(super) fn executed(header: &abi::Process, lost_before: u64, named: &'a Named) -> Line<'a> {
        Line {
            schema: PROCESS_SCHEMA,
            time: Timestamp(named.moment.time),
            id: Some(named.event_id(b'p', header.cpu, header.seq)),
            latency_us: Some(microseconds(named.moment.latency)),
            cpu: Some(header.cpu),
            sequence: Some(header.seq),
            lost_before,
            operation: "exec",
            class: "process",
            access: None,
            container: named.container.as_deref(),
            cgroup: header.cgroup,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, named.process.as_ref()),
        }
    }

    pub(super) fn accessed(event: &'a AccessEvent, named: &'a Named) -> Line<'a> {
        let header = &event.header;
        let (operation, class) = operation(header.op, header.arg[0]);
        Line {
            schema: ACCESS_SCHEMA,
            time: Timestamp(named.moment.time),
            id: Some(named.event_id(b'x', header.cpu, header.seq)),
            latency_us: Some(microseconds(named.moment.latency)),
            cpu: Some(header.cpu),
            sequence: Some(header.seq),
            lost_before: event.lost_before,
            operation,
            class,
            access: Some(AccessLine::new(event)),
            container: named.container.as_deref(),
            cgroup: header.cgroup,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, named.process.as_ref()),
        }
    }

    /// That an access was repeated, in place of the access.
    pub(super) fn only_repeats(mut self) -> Line<'a> {
        (self.id, self.latency_us) = (None, None);
        let reference = self.cpu.take().zip(self.sequence.take()).map(|(cpu, sequence)| Reference { cpu, sequence });
        if let Some(access) = &mut self.access {
            access.repeats_of = reference;
        }
        self
    }
}
