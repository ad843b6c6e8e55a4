//! An alert on its way: named once, and rendered once in each format that some reader asks for.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_ebpf::{Event, abi};
use portcullis_policy::Backend;
use portcullis_policy::meaning::{Action, Posture, Rule, RuleSet};
use prost::Message;

use super::clock::{EventId, Moment};
use super::fanout::{Item, PLACE_BYTES};
use super::format::{FORMATS, Format, Renderings, json_bytes, json_bytes_of};
use super::line::{self, Container, Line, operation, reason};
use super::process::ProcessFacts;
use super::turns::Owner;
use crate::control::EventFormat;
use crate::json;
use crate::kubearmor::{self, Host};
use crate::ocsf;

/// An alert. What it says is put together when somebody writes it: most of the time that is another thread than the one that reads
/// the kernel's ring.
#[derive(Debug)]
pub struct Alert {
    event: Event,
    moment: Moment,
    /// Who enforces.
    backend: Backend,
    rule: Option<Arc<Rule>>,
    container: Option<Arc<Container>>,
    process: Option<ProcessFacts>,
    /// It would have been denied, if the container were not one that is only audited.
    pub(crate) spared: bool,
    pub(crate) host: Arc<Host>,
    bytes: usize,
    renderings: Renderings,
}

impl Alert {
    /// The alert of an event, with the container and the rules that decided, as far as they are known.
    pub(crate) fn new(
        event: Event,
        (moment, backend): (Moment, Backend),
        named: Option<(Arc<Container>, &RuleSet)>,
        process: Option<ProcessFacts>,
        host: Arc<Host>,
    ) -> Alert {
        let (container, rules) = named.unzip();
        let rule = rules.and_then(|rules| rules.rules.get(event.header.rule as usize)).map(Arc::clone);
        let spared = event.header.verdict == abi::AUDIT && would_deny(&event, rule.as_deref(), rules);
        let renderings = Renderings::default();
        let mut alert = Alert { event, moment, backend, rule, container, process, spared, host, bytes: 0, renderings };
        alert.bytes = alert.own_bytes();
        alert
    }

    /// What it says.
    #[must_use]
    pub fn line(&self) -> Line<'_> {
        let header = &self.event.header;
        let (raised_ns, cpu, sequence) = (self.moment.raised_ns, header.cpu, header.seq);
        Line::new(
            &self.event,
            self.moment,
            EventId { kind: b'a', boot: self.host.boot, raised_ns, cpu, sequence },
            self.backend,
            (self.rule.as_deref(), self.container.as_deref(), self.process.as_ref()),
        )
    }

    /// [`abi::Event::arg`]
    pub(crate) fn arg(&self) -> [u32; 3] {
        self.event.header.arg
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    pub(crate) fn is_denial(&self) -> bool {
        line::is_denial(&self.event)
    }

    pub(crate) fn rule(&self) -> Option<&Rule> {
        self.rule.as_deref()
    }

    /// Name of the policy whose rule decided, or `DefaultPosture`.
    pub(crate) fn policy(&self) -> &str {
        line::policy(&self.event, self.rule())
    }

    pub(crate) fn container(&self) -> Option<&Container> {
        self.container.as_deref()
    }

    /// Writes the alert as a line, without its end, after what is there.
    pub fn write(&self, lines: &mut Vec<u8>, format: EventFormat) {
        self.renderings.write(lines, format, |lines| self.put(lines, format));
    }

    /// The alert as a line, without its end. The first who wants it waits for it to be written.
    #[must_use]
    pub fn written(&self, format: EventFormat) -> Cow<'_, [u8]> {
        self.renderings.line(format, |lines| self.put(lines, format))
    }

    /// The alert in a format, likewise.
    #[must_use]
    pub fn rendered(&self, format: Format) -> Bytes {
        self.renderings.get(format, || match format {
            Format::Line => json::line_by(|lines| self.put(lines, EventFormat::Json)),
            Format::KubeArmor => json::line_by(|lines| self.put(lines, EventFormat::Kubearmor)),
            Format::Feeder => kubearmor::Alert::from(self).encode_to_vec(),
        })
    }

    fn put(&self, lines: &mut Vec<u8>, format: EventFormat) {
        match format {
            EventFormat::Json => json::write(lines, &self.line()),
            EventFormat::Kubearmor => json::write(lines, &kubearmor::Alert::from(self)),
            EventFormat::Ocsf => json::write(lines, &ocsf::Event::of_alert(self, &self.line())),
        }
    }

    /// What it takes while nothing is kept of what is written of it. What alerts share is counted with each, so that a queue is bounded
    /// even if no two of its alerts share anything.
    fn own_bytes(&self) -> usize {
        PLACE_BYTES
            + size_of::<Alert>()
            + self.event.path.capacity()
            + self.container().map_or(0, Container::bytes)
            + self.process.as_ref().map_or(0, ProcessFacts::bytes)
    }

    /// What may be kept of what is written of it.
    fn renderings_bytes(&self) -> usize {
        /// Names of fields, numbers and times: more than any of the formats has.
        const FRAME_BYTES: usize = 1024;
        /// A socket as three numbers, or the name of a capability, is shorter.
        const NAME_BYTES: usize = 64;
        // What is executed is a resource and a process.
        let mut text = 2 * (NAME_BYTES + json_bytes_of(&self.event.path)) + json_bytes_of(&self.event.header.comm);
        text += self.policy().len() + self.container().map_or(0, Container::json_bytes);
        if let Some(rule) = &self.rule {
            let origin = &rule.origin;
            // Tags are there twice, joined and one by one.
            text += 2 * rule.tags.iter().map(|tag| json_bytes(tag) + 3).sum::<usize>() + json_bytes(&rule.message);
            text += json_bytes(&origin.field) + origin.file.as_os_str().len() + origin.namespace.len() + origin.kind.len();
        }
        text += self.process.as_ref().map_or(0, ProcessFacts::json_bytes);
        FORMATS * (FRAME_BYTES + text)
    }
}

impl Item for Alert {
    const MAX_QUEUED_BYTES: usize = 8 << 20;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn share(&mut self) {
        self.renderings.share();
        self.bytes += self.renderings_bytes();
    }

    fn owner(&self) -> Owner {
        Owner(self.event.header.slot, self.event.header.epoch)
    }

    fn raised_ns(&self) -> u64 {
        self.moment.raised_ns
    }
}

/// Whether what was only audited is denied where the container's policies are enforced. A rule that does not say `Audit` alerts
/// when it denies and not otherwise. What else can be said of an alias or an unresolved path is not on record: then this says no.
fn would_deny(event: &Event, rule: Option<&Rule>, rules: Option<&RuleSet>) -> bool {
    let Some(rules) = rules else { return false };
    let posture = match operation(event.header.op, event.header.arg[0]).1 {
        "file" | "process" => rules.postures.file,
        "network" => rules.postures.network,
        "capability" => rules.postures.capabilities,
        _ => return false,
    };
    match (rule, reason(event.header.rule)) {
        (Some(rule), _) => rule.action != Action::Audit,
        (None, "default-posture") => posture == Posture::Block,
        _ => false,
    }
}
