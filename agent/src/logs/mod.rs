//! What containers do, and hosts where that is asked for: things that nobody forbade, told because somebody may want to know.
//!
//! Until now that is what they execute. An event of another class is another constructor here, and another schema of [`line`].

pub mod line;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use portcullis_ebpf::FIRST_PID_NS;
use portcullis_ebpf::monitor::ProcessEvent;
use portcullis_ebpf::monitor::abi::{self, NO_SLOT};
use prost::Message;

use self::line::Line;
use crate::alerts::ProcessFacts;
use crate::alerts::fanout::Item;
use crate::alerts::format::{FORMATS, Format, Renderings, json_bytes};
use crate::alerts::line::Container;
use crate::control::EventFormat;
use crate::kubearmor::{self, Host};
use crate::ocsf;

/// Whether a process is a container's: labelled, or in a pid namespace of its own.
pub(crate) fn is_contained(header: &abi::Process) -> bool {
    header.slot != NO_SLOT || header.pid_ns != FIRST_PID_NS
}

/// An event on its way.
#[derive(Debug)]
pub struct Log {
    pub(crate) line: Line,
    /// When it was, in seconds since 1970.
    pub(crate) seconds: i64,
    /// It is no container's.
    pub(crate) is_of_host: bool,
    pub(crate) host: Arc<Host>,
    bytes: usize,
    renderings: Renderings,
}

impl Log {
    /// A program that was started.
    pub(crate) fn executed(
        event: &ProcessEvent,
        time: SystemTime,
        container: Option<Arc<Container>>,
        process: ProcessFacts,
        host: Arc<Host>,
    ) -> Log {
        let is_of_host = !is_contained(&event.header);
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = Line::executed(event, time, container, process);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let mut log = Log { line, seconds, is_of_host, host, bytes: 0, renderings: Renderings::default() };
        log.bytes = log.account();
        log
    }

    /// The event as a line, without its end.
    #[must_use]
    pub fn written(&self, format: EventFormat) -> Cow<'_, [u8]> {
        match format {
            EventFormat::Json => Cow::Borrowed(self.rendered(Format::Line)),
            EventFormat::Kubearmor => Cow::Borrowed(self.rendered(Format::KubeArmor)),
            EventFormat::Ocsf => Cow::Owned(kubearmor::json(&ocsf::Event::from(self))),
        }
    }

    /// The event in a format. The first who wants it waits for it to be written.
    #[must_use]
    pub fn rendered(&self, format: Format) -> &Bytes {
        self.renderings.get(format, || match format {
            Format::Line => kubearmor::json(&self.line),
            Format::KubeArmor => kubearmor::json(&kubearmor::Log::from(self)),
            Format::Feeder => kubearmor::Log::from(self).encode_to_vec(),
        })
    }

    /// What it takes with all its renderings, as for alerts.
    fn account(&self) -> usize {
        /// Names of fields, numbers and times: more than any of the formats has.
        const FRAME_BYTES: usize = 1024;
        let process = &self.line.process;
        let text = json_bytes(&process.comm)
            + process.facts.as_ref().map_or(0, ProcessFacts::json_bytes)
            + self.line.container.as_deref().map_or(0, Container::json_bytes);
        size_of::<Log>() + text + FORMATS * (FRAME_BYTES + text)
    }
}

impl Item for Log {
    const MAX_QUEUED_BYTES: usize = 8 << 20;

    fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
