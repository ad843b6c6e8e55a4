//! An alert on its way: named once, and rendered once in each format that some reader asks for.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use portcullis_ebpf::{Event, abi};
use portcullis_policy::meaning::{Action, Posture, RuleSet};
use prost::Message;

use super::fanout::Item;
use super::format::{FORMATS, Format, Renderings, json_bytes};
use super::line::{Container, Line};
use super::process::ProcessFacts;
use super::turns::Owner;
use crate::control::EventFormat;
use crate::json;
use crate::kubearmor::{self, Host};
use crate::ocsf;

/// An alert.
#[derive(Debug)]
pub struct Alert {
    pub(crate) line: Line,
    /// It would have been denied, if the container were not one that is only audited.
    pub(crate) spared: bool,
    /// [`abi::Event::arg`]
    pub(crate) arg: [u32; 3],
    pub(crate) host: Arc<Host>,
    owner: Owner,
    bytes: usize,
    renderings: Renderings,
}

impl Alert {
    /// The alert of an event, with the container and the rules that decided, as far as they are known.
    pub(crate) fn new(
        event: &Event,
        time: SystemTime,
        named: Option<(Arc<Container>, &RuleSet)>,
        process: Option<ProcessFacts>,
        host: Arc<Host>,
    ) -> Alert {
        let (container, rules) = named.unzip();
        let rule = rules.and_then(|rules| rules.rules.get(event.header.rule as usize)).map(Arc::clone);
        let line = Line::new(event, time, rule, container, process);
        let spared = event.header.verdict == abi::AUDIT && would_deny(&line, rules);
        let mut alert = Alert {
            line,
            spared,
            arg: event.header.arg,
            host,
            owner: Owner(event.header.slot, event.header.epoch),
            bytes: 0,
            renderings: Renderings::default(),
        };
        alert.bytes = alert.account();
        alert
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
    pub fn rendered(&self, format: Format) -> &Bytes {
        self.renderings.get(format, || match format {
            Format::Line => json::line_by(|lines| self.put(lines, EventFormat::Json)),
            Format::KubeArmor => json::line_by(|lines| self.put(lines, EventFormat::Kubearmor)),
            Format::Feeder => kubearmor::Alert::from(self).encode_to_vec(),
        })
    }

    fn put(&self, lines: &mut Vec<u8>, format: EventFormat) {
        match format {
            EventFormat::Json => json::write(lines, &self.line),
            EventFormat::Kubearmor => json::write(lines, &kubearmor::Alert::from(self)),
            EventFormat::Ocsf => json::write(lines, &ocsf::Event::from(self)),
        }
    }

    /// What it takes with all its renderings, none of which may be there yet. What alerts share is counted with each, so that
    /// a queue is bounded even if no two of its alerts share anything.
    fn account(&self) -> usize {
        /// Names of fields, numbers and times: more than any of the formats has.
        const FRAME_BYTES: usize = 1024;
        let line = &self.line;
        // What is executed is a resource and a process.
        let mut text = 2 * json_bytes(&line.object) + json_bytes(&line.process.comm) + line.policy.len();
        text += line.container.as_deref().map_or(0, Container::json_bytes);
        if let Some(rule) = &line.rule {
            let origin = &rule.origin;
            // Tags are there twice, joined and one by one.
            text += 2 * rule.tags.iter().map(|tag| json_bytes(tag) + 3).sum::<usize>() + json_bytes(&rule.message);
            text += json_bytes(&origin.field) + origin.file.as_os_str().len() + origin.namespace.len() + origin.kind.len();
        }
        text += line.process.facts.as_ref().map_or(0, ProcessFacts::json_bytes);
        size_of::<Alert>() + text + FORMATS * (FRAME_BYTES + text)
    }
}

impl Item for Alert {
    const MAX_QUEUED_BYTES: usize = 8 << 20;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn owner(&self) -> Owner {
        self.owner
    }
}

/// Whether what was only audited is denied where the container's policies are enforced. A rule that does not say `Audit` alerts
/// when it denies and not otherwise. What else can be said of an alias or an unresolved path is not on record: then this says no.
fn would_deny(line: &Line, rules: Option<&RuleSet>) -> bool {
    let Some(rules) = rules else { return false };
    let posture = match line.class {
        "file" | "process" => rules.postures.file,
        "network" => rules.postures.network,
        "capability" => rules.postures.capabilities,
        _ => return false,
    };
    match (&line.rule, line.reason) {
        (Some(rule), _) => rule.action != Action::Audit,
        (None, "default-posture") => posture == Posture::Block,
        _ => false,
    }
}
