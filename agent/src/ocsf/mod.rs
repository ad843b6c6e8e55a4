//! Events in the words of OCSF, the schema that security data lakes and their detections read (schema.ocsf.io).
//!
//! An alert is the activity that was denied or audited, of the class of that activity, with the profile `security_control` saying
//! what was decided and by which policy. It is no Detection Finding: those have a life of their own (they are updated, suppressed,
//! resolved), and OCSF says to model atomic alerts as activities with this profile. What is executed is a Process Activity.
//!
//! [`activity`] says which activity an operation is, and what is told of it goes through [`Told`]: a new kind of line is one more
//! constructor. What OCSF has no attribute for is in `unmapped`, by the names of our own lines. An attribute that nobody can fill is
//! left out, but for those that OCSF requires.

mod activity;
mod outcome;
mod schema;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

pub(crate) use self::schema::Event;

use self::activity::{Activity, activity};
use self::outcome::Outcome;
use self::schema::{Device, Metadata, Os, Product};
use crate::alerts::clock::{EventId, Timestamp};
use crate::alerts::line::{Container, ProcessLine, RuleLine};
use crate::alerts::{Alert, ProcessFacts, Program, line as alerts};
use crate::kubearmor::Host;
use crate::logs::{Log, line as logs};

/// The version of OCSF that is written.
const VERSION: &str = "1.7.0";
/// What a follower is told that follows. Each line names OCSF's version, too.
pub(crate) const OCSF_SCHEMA: &str = "ocsf/1.7.0";

/// What a line says of something that was done, or tried.
struct Told<'a> {
    schema: &'a str,
    time: Timestamp,
    id: Option<EventId>,
    cpu: Option<u32>,
    /// Not of what tells of no event of its own.
    sequence: Option<u64>,
    lost_before: u64,
    class: &'static str,
    operation: &'static str,
    /// A path or a capability; nothing where the process itself is what it was done to.
    object: Option<&'a str>,
    /// Family, type and protocol.
    socket: Option<[u32; 3]>,
    /// Where the other end is, or for what is bound this one.
    address: Option<SocketAddr>,
    container: Option<&'a Container>,
    process: &'a ProcessLine<'a>,
    host: &'a Host,
    outcome: Outcome<'a>,
    /// What only this kind of line has, and OCSF has no attribute for.
    unmapped: BTreeMap<&'static str, Value>,
}

impl<'a> Event<'a> {
    /// The event of an alert, which says this.
    pub(crate) fn of_alert(alert: &'a Alert, line: &'a alerts::Line<'a>) -> Event<'a> {
        let rule = line.rule;
        let mut unmapped = BTreeMap::from([
            ("object", json!(line.object)),
            ("reason", json!(line.reason)),
            ("backend", json!(line.backend)),
            ("latencyUs", json!(line.latency_us)),
        ]);
        if line.object_cut {
            unmapped.insert("objectCut", json!(true));
        }
        if alert.spared {
            // It would have been denied, if the container were not one that is only audited.
            unmapped.insert("spared", json!(true));
        }
        if let Some(rule) = rule {
            unmapped.insert("rule", json!(RuleLine::from(rule)));
        }
        let told = Told {
            schema: line.schema,
            time: line.time,
            id: Some(line.id),
            cpu: Some(line.cpu),
            sequence: Some(line.sequence),
            lost_before: line.lost_before,
            class: line.class,
            operation: line.operation,
            object: Some(&line.object),
            socket: (line.class == "network").then(|| alert.arg()),
            address: None,
            container: line.container,
            process: &line.process,
            host: &alert.host,
            outcome: Outcome::Decided {
                is_denial: alert.is_denial(),
                policy: Some(line.policy).filter(|policy| !policy.is_empty()),
                reason: line.reason,
                generation: line.generation,
                severity: rule.map_or(0, |rule| rule.severity),
            },
            unmapped,
        };
        told.event()
    }

    /// The event of what is no alert, which says this.
    pub(crate) fn of_log(log: &'a Log, line: &'a logs::Line<'a>) -> Event<'a> {
        let mut unmapped = BTreeMap::from([("cgroup", json!(line.cgroup))]);
        if let Some(latency) = line.latency_us {
            unmapped.insert("latencyUs", json!(latency));
        }
        let access = line.access.as_ref();
        if let Some(access) = access {
            // By our names: more of it than OCSF has places for, and repeats.
            unmapped.insert("access", json!(access));
        }
        let told = Told {
            schema: line.schema,
            time: line.time,
            id: line.id,
            cpu: line.cpu,
            sequence: line.sequence,
            lost_before: line.lost_before,
            class: line.class,
            operation: line.operation,
            // Of a socket without an address there is nothing to say but what kind of socket it is.
            object: access.map(|access| access.object.as_deref().unwrap_or_default()),
            socket: access.and_then(|access| access.socket),
            address: access.and_then(|access| access.address.zip(access.port)).map(SocketAddr::from),
            container: line.container,
            process: &line.process,
            host: log.host(),
            outcome: match access.and_then(|access| access.errno.as_deref()) {
                Some(errno) => Outcome::Refused { errno },
                None => Outcome::Done,
            },
            unmapped,
        };
        told.event()
    }
}

impl<'a> Told<'a> {
    fn event(mut self) -> Event<'a> {
        self.put_aside();
        let Activity { class, id, name } = activity(self.class, self.operation);
        let (category_uid, category_name) = class.category();
        let (severity_id, severity) = self.outcome.severity();
        let (status_id, status) = self.outcome.status();
        let (actor, target) = self.actor_and_target(class);
        Event {
            activity_id: id,
            activity_name: name,
            category_uid,
            category_name,
            class_uid: class.uid(),
            class_name: class.name(),
            type_uid: class.uid() * 100 + id,
            type_name: format!("{}: {name}", class.name()),
            time: milliseconds(self.time),
            severity_id,
            severity,
            status_id,
            status,
            message: self.outcome.message(self.operation),
            metadata: Metadata {
                version: VERSION,
                product: Product { name: "Portcullis", vendor_name: "Portcullis", version: env!("CARGO_PKG_VERSION") },
                profiles: self.outcome.profiles(),
                log_name: self.schema,
                original_time: self.time,
                uid: self.id,
                sequence: self.sequence,
            },
            actor,
            device: Device { hostname: &self.host.name, uid: &self.host.id, type_id: 0, os: Os { name: "Linux", type_id: 200 } },
            target,
            control: self.outcome.control(),
            unmapped: self.unmapped,
        }
    }

    /// What OCSF has no attribute for, and is told by every kind of line.
    fn put_aside(&mut self) {
        let facts = self.process.facts;
        let program = facts.and_then(|facts| facts.program.as_deref());
        let container = self.container;
        let tty = facts.and_then(ProcessFacts::tty);
        let texts = [
            ("cluster", Some(self.host.cluster.as_str())),
            ("namespace", container.map(|container| container.namespace.as_str())),
            ("pod", container.map(|container| container.pod.as_str())),
            ("labels", container.map(|container| container.labels.as_str())),
            ("tty", tty.as_deref()),
            // Not the path by which it is found; the flags say why.
            ("exe", program.filter(|program| program.named_exe().is_none()).and_then(Program::exe)),
            ("cwd", program.filter(|program| program.named_cwd().is_none()).and_then(Program::cwd)),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.filter(|text| !text.is_empty())?)));
        self.unmapped.extend(texts.map(|(name, text)| (name, json!(text))));
        self.unmapped.extend([
            ("operation", json!(self.operation)),
            ("class", json!(self.class)),
            ("lostBefore", json!(self.lost_before)),
        ]);
        if let Some(cpu) = self.cpu {
            self.unmapped.insert("cpu", json!(cpu));
        }
        if let Some(owner) = container.and_then(|container| container.owner.as_ref()) {
            self.unmapped.insert("owner", json!({ "kind": owner.kind, "name": owner.name }));
        }
        let Some(program) = program else { return };
        for (name, flags) in [("exeFlags", program.exe_flags()), ("cwdFlags", program.cwd_flags())] {
            if !flags.are_none() {
                self.unmapped.insert(name, json!(flags));
            }
        }
        if program.args_cut() {
            self.unmapped.insert("argsCut", json!(true));
        }
    }
}

/// Since 1970.
fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.since_epoch().as_millis()).unwrap_or(u64::MAX)
}
