//! What containers do, and hosts where that is asked for: told because somebody may want to know it, forbidden or not.
//!
//! That is what they execute, and their accesses: files, sockets, capabilities. An event of another class is another constructor here,
//! and another schema of [`line`].

mod access;
pub mod line;
mod words;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use portcullis_ebpf::FIRST_PID_NS;
use portcullis_ebpf::monitor::{AccessEvent, Classes, abi, abi::NO_SLOT};
use prost::Message;

pub(crate) use self::access::AccessLine;
pub(crate) use self::words::strerror;

use self::line::Line;
use crate::alerts::ProcessFacts;
use crate::alerts::fanout::Item;
use crate::alerts::format::{FORMATS, Format, Renderings, json_bytes};
use crate::alerts::line::Container;
use crate::alerts::turns::Owner;
use crate::control::EventFormat;
use crate::json;
use crate::kubearmor::{self, Host};
use crate::ocsf;

/// Whether a process is a container's, by the slot and the pid namespace of its events: labelled, or in a namespace of its own.
pub(crate) fn is_contained(slot: u32, pid_ns: u32) -> bool {
    slot != NO_SLOT || pid_ns != FIRST_PID_NS
}

/// An event on its way.
#[derive(Debug)]
pub struct Log {
    pub(crate) line: Line,
    /// It is no container's.
    pub(crate) is_of_host: bool,
    pub(crate) host: Arc<Host>,
    owner: Owner,
    bytes: usize,
    renderings: Renderings,
}

/// Whose an event is, and when it was, as far as anybody knows.
pub(crate) struct Named {
    pub(crate) time: SystemTime,
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) process: Option<ProcessFacts>,
    pub(crate) host: Arc<Host>,
}

impl Named {
    /// What its container asks for itself.
    pub(crate) fn own_visibility(&self) -> Option<Classes> {
        self.container.as_ref()?.visibility
    }
}

impl Log {
    /// A program that was started, with so many events missing before it.
    pub(crate) fn executed(header: &abi::Process, lost_before: u64, named: Named) -> Log {
        let is_of_host = !is_contained(header.slot, header.pid_ns);
        let Named { time, container, process, host } = named;
        let owner = Owner(header.slot, header.epoch);
        Log::new(Line::executed(header, lost_before, time, container, process), is_of_host, owner, host)
    }

    /// An access.
    pub(crate) fn accessed(event: &AccessEvent, named: Named) -> Log {
        Log::of_access(event, named, |line| line)
    }

    /// That an access, which was told, was repeated: as often as the event has it.
    pub(crate) fn repeated(event: &AccessEvent, named: Named) -> Log {
        Log::of_access(event, named, Line::only_repeats)
    }

    fn of_access(event: &AccessEvent, named: Named, tell: impl FnOnce(Line) -> Line) -> Log {
        let is_of_host = !is_contained(event.header.slot, event.header.pid_ns);
        let Named { time, container, process, host } = named;
        let owner = Owner(event.header.slot, event.header.epoch);
        Log::new(tell(Line::accessed(event, time, container, process)), is_of_host, owner, host)
    }

    fn new(line: Line, is_of_host: bool, owner: Owner, host: Arc<Host>) -> Log {
        let mut log = Log { line, is_of_host, host, owner, bytes: 0, renderings: Renderings::default() };
        log.bytes = log.account();
        log
    }

    /// Writes the event as a line, without its end, after what is there.
    pub fn write(&self, lines: &mut Vec<u8>, format: EventFormat) {
        self.renderings.write(lines, format, |lines| self.put(lines, format));
    }

    /// The event as a line, without its end. The first who wants it waits for it to be written.
    #[must_use]
    pub fn written(&self, format: EventFormat) -> Cow<'_, [u8]> {
        self.renderings.line(format, |lines| self.put(lines, format))
    }

    /// The event in a format, likewise.
    #[must_use]
    pub fn rendered(&self, format: Format) -> &Bytes {
        self.renderings.get(format, || match format {
            Format::Line => json::line_by(|lines| self.put(lines, EventFormat::Json)),
            Format::KubeArmor => json::line_by(|lines| self.put(lines, EventFormat::Kubearmor)),
            Format::Feeder => kubearmor::Log::from(self).encode_to_vec(),
        })
    }

    fn put(&self, lines: &mut Vec<u8>, format: EventFormat) {
        match format {
            EventFormat::Json => json::write(lines, &self.line),
            EventFormat::Kubearmor => json::write(lines, &kubearmor::Log::from(self)),
            EventFormat::Ocsf => json::write(lines, &ocsf::Event::from(self)),
        }
    }

    /// What it takes with all its renderings, as for alerts.
    fn account(&self) -> usize {
        /// Names of fields, numbers and times: more than any of the formats has.
        const FRAME_BYTES: usize = 1024;
        let process = &self.line.process;
        let text = json_bytes(&process.comm)
            + process.facts.as_ref().map_or(0, ProcessFacts::json_bytes)
            + self.line.access.as_ref().map_or(0, AccessLine::json_bytes)
            + self.line.container.as_deref().map_or(0, Container::json_bytes);
        size_of::<Log>() + text + FORMATS * (FRAME_BYTES + text)
    }
}

impl Item for Log {
    const MAX_QUEUED_BYTES: usize = 8 << 20;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn owner(&self) -> Owner {
        self.owner
    }
}

#[cfg(test)]
mod tests;
