//! What containers do, and hosts where that is asked for: told because somebody may want to know it, forbidden or not.
//!
//! That is what they execute, and their accesses: files, sockets, capabilities. An event of another class is another constructor here,
//! and another schema of [`line`].

mod access;
pub mod line;
mod words;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_ebpf::FIRST_PID_NS;
use portcullis_ebpf::monitor::{AccessEvent, Classes, abi, abi::NO_SLOT};
use prost::Message;

pub(crate) use self::access::AccessLine;
pub(crate) use self::words::strerror;

use self::line::Line;
use crate::alerts::ProcessFacts;
use crate::alerts::clock::{EventId, Moment};
use crate::alerts::fanout::{Item, PLACE_BYTES};
use crate::alerts::format::{FORMATS, Format, Renderings, json_bytes_of};
use crate::alerts::line::{Container, operation};
use crate::alerts::turns::Owner;
use crate::control::EventFormat;
use crate::json;
use crate::kubearmor::{self, Host};
use crate::ocsf;

/// Whether a process is a container's, by the slot and the pid namespace of its events: labelled, or in a namespace of its own.
pub(crate) fn is_contained(slot: u32, pid_ns: u32) -> bool {
    slot != NO_SLOT || pid_ns != FIRST_PID_NS
}

/// An event on its way. What it says is put together when somebody writes it: most of the time that is another thread than the one
/// that reads the kernel's rings.
#[derive(Debug)]
pub struct Log {
    event: What,
    named: Named,
    bytes: usize,
    renderings: Renderings,
}

#[derive(Debug)]
enum What {
    /// A program was started, with so many events missing before it. There are many more accesses than these, and each would be as large.
    Executed(Box<abi::Process>, u64),
    Accessed(Arc<AccessEvent>),
    /// That an access, which was told, was repeated: as often as the event has it.
    Repeated(Arc<AccessEvent>),
}

/// Whose an event is, and when it was, as far as anybody knows.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) moment: Moment,
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) process: Option<ProcessFacts>,
    pub(crate) host: Arc<Host>,
}

impl Named {
    fn event_id(&self, kind: u8, cpu: u32, sequence: u64) -> EventId {
        EventId { kind, boot: self.host.boot, raised_ns: self.moment.raised_ns, cpu, sequence }
    }

    /// What its container asks for itself.
    pub(crate) fn own_visibility(&self) -> Option<Classes> {
        self.container.as_ref()?.visibility
    }
}

impl Log {
    /// A program that was started, with so many events missing before it.
    pub(crate) fn executed(header: &abi::Process, lost_before: u64, named: Named) -> Log {
        Log::new(What::Executed(Box::new(*header), lost_before), named)
    }

    /// An access.
    pub(crate) fn accessed(event: Arc<AccessEvent>, named: Named) -> Log {
        Log::new(What::Accessed(event), named)
    }

    /// That an access, which was told, was repeated: as often as the event has it.
    pub(crate) fn repeated(event: Arc<AccessEvent>, named: Named) -> Log {
        Log::new(What::Repeated(event), named)
    }

    fn new(event: What, named: Named) -> Log {
        let mut log = Log { event, named, bytes: 0, renderings: Renderings::default() };
        log.bytes = log.own_bytes();
        log
    }

    /// What it says.
    pub(crate) fn line(&self) -> Line<'_> {
        match &self.event {
            What::Executed(header, lost_before) => Line::executed(header, *lost_before, &self.named),
            What::Accessed(event) => Line::accessed(event, &self.named),
            What::Repeated(event) => Line::accessed(event, &self.named).only_repeats(),
        }
    }

    /// `process`; of accesses `file`, `network` or `capability`.
    pub(crate) fn class(&self) -> &'static str {
        self.access().map_or("process", |event| operation(event.header.op, 0).1)
    }

    /// Of an access, whether it was denied.
    pub(crate) fn is_denied(&self) -> Option<bool> {
        Some(self.access()?.header.result != 0)
    }

    pub(crate) fn container(&self) -> Option<&Container> {
        self.named.container.as_deref()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.named.host
    }

    /// It is no container's that anybody knows.
    pub(crate) fn is_of_host(&self) -> bool {
        self.named.container.is_none() && self.owner().0 == NO_SLOT
    }

    fn access(&self) -> Option<&AccessEvent> {
        match &self.event {
            What::Executed(..) => None,
            What::Accessed(event) | What::Repeated(event) => Some(event),
        }
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
    pub fn rendered(&self, format: Format) -> Bytes {
        self.renderings.get(format, || match format {
            Format::Line => json::line_by(|lines| self.put(lines, EventFormat::Json)),
            Format::KubeArmor => json::line_by(|lines| self.put(lines, EventFormat::Kubearmor)),
            Format::Feeder => kubearmor::Log::from(self).encode_to_vec(),
        })
    }

    fn put(&self, lines: &mut Vec<u8>, format: EventFormat) {
        match format {
            EventFormat::Json => json::write(lines, &self.line()),
            EventFormat::Kubearmor => json::write(lines, &kubearmor::Log::from(self)),
            EventFormat::Ocsf => json::write(lines, &ocsf::Event::of_log(self, &self.line())),
        }
    }

    /// What it takes while nothing is kept of what is written of it. What events share is counted with each, as for alerts.
    fn own_bytes(&self) -> usize {
        let event = self.access().map_or(size_of::<abi::Process>(), |event| {
            size_of::<AccessEvent>() + event.path.capacity() + event.second.capacity() + event.address.capacity()
        });
        PLACE_BYTES
            + size_of::<Log>()
            + event
            + self.named.process.as_ref().map_or(0, ProcessFacts::bytes)
            + self.named.container.as_deref().map_or(0, Container::bytes)
    }

    /// What may be kept of what is written of it.
    fn renderings_bytes(&self) -> usize {
        /// Names of fields, numbers and times: more than any of the formats has.
        const FRAME_BYTES: usize = 1024;
        let own = match &self.event {
            What::Executed(header, _) => json_bytes_of(&header.comm),
            What::Accessed(event) | What::Repeated(event) => json_bytes_of(&event.header.comm) + access::json_bytes(event),
        };
        let text = own
            + self.named.process.as_ref().map_or(0, ProcessFacts::json_bytes)
            + self.named.container.as_deref().map_or(0, Container::json_bytes);
        FORMATS * (FRAME_BYTES + text)
    }
}

impl Item for Log {
    const MAX_QUEUED_BYTES: usize = 8 << 20;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn share(&mut self) {
        self.renderings.share();
        self.bytes += self.renderings_bytes();
    }

    fn owner(&self) -> Owner {
        match &self.event {
            What::Executed(header, _) => Owner(header.slot, header.epoch),
            What::Accessed(event) | What::Repeated(event) => Owner(event.header.slot, event.header.epoch),
        }
    }

    fn raised_ns(&self) -> u64 {
        self.named.moment.raised_ns
    }
}

#[cfg(test)]
mod tests;
