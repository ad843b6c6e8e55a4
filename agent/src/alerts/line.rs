//! One alert as one JSON line. The schema's name is in every line; fields are added, never changed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::Classes;
use portcullis_ebpf::{Event, abi};
use portcullis_enforcer::ContainerRecord;
use portcullis_enforcer::automaton::call_at;
use portcullis_policy::capability::Capability;
use portcullis_policy::meaning::{Action, Rule};
use portcullis_policy::select::Owner;
use portcullis_policy::syscall::Syscall;
use portcullis_policy::{Backend, ContainerFacts};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::clock::{EventId, Moment, Timestamp, microseconds};
use super::format::json_bytes;
use super::process::ProcessFacts;
use super::text::Short;

/// Name and version of the schema.
pub const SCHEMA: &str = "portcullis.alert/1";
/// Longest text of labels that goes along with alerts. Whole labels are left out beyond it: a pod may have a megabyte of them.
const MAX_LABELS_BYTES: usize = 16 << 10;
/// Fewest characters of an id that stand for it.
const MIN_PREFIX: usize = 3;

/// Whether `name` means a container: by its name, its id, or the beginning of its id.
#[must_use]
pub fn means(name: &str, id: &str, container_name: &str) -> bool {
    container_name == name || id == name || (name.len() >= MIN_PREFIX && id.starts_with(name))
}

/// Those that `name` means, of all that are called ID and NAME: a whole name or id comes before the beginning of others.
pub fn meant<T>(mut all: Vec<T>, name: &str, called: impl Fn(&T) -> (&str, &str)) -> Vec<T> {
    let is_called = |one: &T| <[&str; 2]>::from(called(one)).contains(&name);
    let whole = all.iter().any(is_called);
    all.retain(|one| if whole { is_called(one) } else { means(name, called(one).0, called(one).1) });
    all
}

/// An alert, named.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    pub(crate) schema: &'static str,
    pub(crate) time: Timestamp,
    pub(crate) id: EventId,
    /// From when it was raised until it was given to readers, in microseconds.
    pub(crate) latency_us: u64,
    pub(crate) cpu: u32,
    /// Counts the alerts of this CPU, delivered or not.
    pub(crate) sequence: u64,
    /// Alerts of this CPU, just before this one, that were not delivered.
    pub(crate) lost_before: u64,
    /// `block` or `audit`: what was done.
    verdict: &'static str,
    /// `bpf` or `apparmor`: who enforces.
    pub(crate) backend: &'static str,
    /// What was tried; of system calls, which.
    pub(crate) operation: &'static str,
    /// `file`, `process`, `network`, `capability`, `syscall`, `mount` or `self-protection`.
    pub(crate) class: &'static str,
    /// A path, a socket as FAMILY,TYPE,PROTOCOL, or a capability. Nothing of a system call whose rule is about no path.
    pub(crate) object: Cow<'a, str>,
    /// The path is longer, or begins outside the container.
    pub(crate) object_cut: bool,
    /// `rule`, `default-posture`, `alias`, `unresolved`, `self-protection` or `orphan`: what the verdict rests on.
    pub(crate) reason: &'static str,
    /// Name of the policy whose rule decided, or `DefaultPosture`.
    pub(crate) policy: &'a str,
    #[serde(serialize_with = "rule_line")]
    pub(crate) rule: Option<&'a Rule>,
    /// Whose process it was, if that is on record.
    pub(crate) container: Option<&'a Container>,
    /// The same of the same process that were only counted since it was last told.
    #[serde(skip_serializing_if = "is_zero")]
    repeats: u32,
    /// Goes up each time the container's policies are switched.
    pub(crate) generation: u32,
    pub(crate) process: ProcessLine<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuleLine<'a> {
    kind: &'a str,
    namespace: &'a str,
    policy: &'a str,
    file: String,
    line: u32,
    column: u32,
    field: &'a str,
    action: Action,
    severity: u8,
    tags: &'a [String],
    message: &'a str,
}

/// The container of an alert. What is not in the line is for KubeArmor's formats.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Container {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    pub(crate) image: String,
    pub(crate) namespace: String,
    /// The pod's name.
    #[serde(skip)]
    pub(crate) pod: String,
    /// `name=value`, separated by commas.
    #[serde(skip)]
    pub(crate) labels: String,
    #[serde(skip)]
    pub(crate) owner: Option<Owner>,
    /// What is told of it, where it or its namespace says so.
    #[serde(skip)]
    pub(crate) visibility: Option<Classes>,
}

#[derive(Debug)]
pub(crate) struct ProcessLine<'a> {
    /// In the initial pid namespace.
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// In the initial user namespace; of alerts and accesses the uid for file systems, else the real one.
    pub(crate) uid: u32,
    pub(crate) comm: Short,
    pub(crate) facts: Option<&'a ProcessFacts>,
}

impl<'a> ProcessLine<'a> {
    pub(crate) fn new((pid, tid): (u32, u32), uid: u32, comm: &[u8; 16], facts: Option<&'a ProcessFacts>) -> ProcessLine<'a> {
        ProcessLine { pid, tid, uid, comm: Short::new(comm), facts }
    }
}

impl Serialize for ProcessLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("ProcessLine", 4)?;
        line.serialize_field("pid", &self.pid)?;
        line.serialize_field("tid", &self.tid)?;
        line.serialize_field("uid", &self.uid)?;
        line.serialize_field("comm", &self.comm)?;
        if let Some(facts) = self.facts {
            facts.fields(&mut line)?;
        }
        line.end()
    }
}

impl<'a> Line<'a> {
    /// The line of an event that was raised at a time, and what it was about.
    pub(crate) fn new(
        event: &'a Event,
        moment: Moment,
        id: EventId,
        backend: Backend,
        (rule, container, process): (Option<&'a Rule>, Option<&'a Container>, Option<&'a ProcessFacts>),
    ) -> Line<'a> {
        let header = &event.header;
        let (operation, class) = operation(header.op, header.arg[0]);
        Line {
            schema: SCHEMA,
            time: Timestamp(moment.time),
            id,
            latency_us: microseconds(moment.latency),
            cpu: header.cpu,
            sequence: header.seq,
            lost_before: event.lost_before,
            verdict: if is_denial(event) { "block" } else { "audit" },
            backend: backend.name(),
            operation,
            class,
            object: object(event, class),
            object_cut: header.path_cut != 0,
            reason: reason(header.rule),
            policy: policy(event, rule),
            rule,
            container,
            repeats: header.repeats,
            generation: header.generation,
            process: ProcessLine::new((header.tgid, header.tid), header.uid, &header.comm, process),
        }
    }
}

/// Whether what was tried was denied, and not only told.
pub(crate) fn is_denial(event: &Event) -> bool {
    event.header.verdict == abi::BLOCK
}

/// Name of the policy whose rule decided, or `DefaultPosture`.
pub(crate) fn policy<'a>(event: &Event, rule: Option<&'a Rule>) -> &'a str {
    match (rule, reason(event.header.rule)) {
        (Some(rule), _) => &rule.origin.policy,
        (None, "default-posture") => "DefaultPosture",
        (None, _) => "",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn rule_line<S: Serializer>(rule: &Option<&Rule>, serializer: S) -> Result<S::Ok, S::Error> {
    rule.map(RuleLine::from).serialize(serializer)
}

impl<'a> From<&'a Rule> for RuleLine<'a> {
    fn from(rule: &'a Rule) -> RuleLine<'a> {
        RuleLine {
            kind: &rule.origin.kind,
            namespace: &rule.origin.namespace,
            policy: &rule.origin.policy,
            file: rule.origin.file.display().to_string(),
            line: rule.origin.line,
            column: rule.origin.column,
            field: &rule.origin.field,
            action: rule.action,
            severity: rule.severity,
            tags: &rule.tags,
            message: &rule.message,
        }
    }
}

impl Container {
    pub(crate) fn of(record: &ContainerRecord) -> Container {
        Container {
            id: record.id.clone(),
            name: record.name.clone(),
            image: record.image.clone(),
            namespace: record.namespace.clone(),
            pod: record.pod.clone(),
            labels: labels(&record.labels),
            owner: record.owner.clone(),
            visibility: None,
        }
    }

    /// One that has no record of its own, since it has no policies.
    pub(crate) fn of_facts(facts: ContainerFacts) -> Container {
        let ContainerFacts { id, name, image, namespace, pod, owner, .. } = facts;
        Container { id, name, image, namespace, pod, labels: labels(&facts.labels), owner, visibility: None }
    }

    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let Container { id, name, image, namespace, pod, labels, owner, visibility: _ } = self;
        let owner = owner.as_ref().map_or(0, |owner| owner.kind.len() + owner.name.len());
        owner + [id, name, image, namespace, pod, labels].into_iter().map(String::len).sum::<usize>()
    }

    /// Bytes of its texts in JSON at most.
    pub(crate) fn json_bytes(&self) -> usize {
        let Container { id, name, image, namespace, pod, labels, owner, visibility: _ } = self;
        let owner = owner.iter().flat_map(|owner| [&owner.kind, &owner.name, namespace]);
        [id, name, image, namespace, pod, labels].into_iter().chain(owner).map(|text| json_bytes(text)).sum()
    }
}

/// `name=value`, separated by commas.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if text.len() + name.len() + value.len() + 2 <= MAX_LABELS_BYTES {
            let comma = if text.is_empty() { "" } else { "," };
            text.extend([comma, name, "=", value]);
        }
    }
    text
}

/// Bytes as text: what is no UTF-8 is written as U+FFFD, and JSON escapes control characters.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly all is, and that is found out several bytes at a time.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn object<'a>(event: &'a Event, class: &str) -> Cow<'a, str> {
    let [a, b, c] = event.header.arg;
    match class {
        "network" => format!("{a},{b},{c}").into(),
        "capability" => capability(a).into(),
        _ => text(&event.path),
    }
}

/// A capability by its number, without `CAP_`.
pub(crate) fn capability(number: u32) -> String {
    let known = u8::try_from(number).ok().and_then(Capability::from_number);
    known.map_or_else(|| number.to_string(), |capability| capability.to_string())
}

pub(crate) fn reason(rule: u32) -> &'static str {
    match rule {
        abi::RULE_POSTURE => "default-posture",
        abi::RULE_GUARD => "self-protection",
        abi::RULE_ALIAS => "alias",
        abi::RULE_UNRESOLVED => "unresolved",
        abi::RULE_ORPHAN => "orphan",
        abi::RULE_NONE => "none",
        _ => "rule",
    }
}

pub(crate) fn operation(code: u32, detail: u32) -> (&'static str, &'static str) {
    match code {
        op::READ => ("read", "file"),
        op::WRITE => ("write", "file"),
        op::CREATE => ("create", "file"),
        op::UNLINK => ("unlink", "file"),
        op::RENAME => ("rename", "file"),
        op::LINK => ("link", "file"),
        op::SYMLINK => ("symlink", "file"),
        op::MKDIR => ("mkdir", "file"),
        op::RMDIR => ("rmdir", "file"),
        op::MKNOD => ("mknod", "file"),
        op::CHMOD => ("chmod", "file"),
        op::CHOWN => ("chown", "file"),
        op::TRUNCATE => ("truncate", "file"),
        op::SETATTR => ("setattr", "file"),
        op::SETXATTR => ("setxattr", "file"),
        op::RECEIVE => ("receive", "file"),
        op::EXEC => ("exec", "process"),
        op::MAP_EXEC => ("map_exec", "process"),
        op::SOCKET => ("socket", "network"),
        op::CONNECT => ("connect", "network"),
        op::BIND => ("bind", "network"),
        op::LISTEN => ("listen", "network"),
        op::ACCEPT => ("accept", "network"),
        op::SEND => ("send", "network"),
        op::CAPABLE => ("capable", "capability"),
        op::MOUNT => ("mount", "mount"),
        op::UMOUNT => ("umount", "mount"),
        op::MOVE_MOUNT => ("move_mount", "mount"),
        op::PIVOT_ROOT => ("pivot_root", "mount"),
        op::BPF => ("bpf", "self-protection"),
        op::URING_CREDS => ("uring_creds", "self-protection"),
        op::SYSCALL => (call_at(detail).map_or("unknown", Syscall::name), "syscall"),
        _ => ("unknown", "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_comes_before_the_beginning_of_others() {
        let all = vec![("web-10", "a"), ("web-1", "b"), ("4f2a", "web"), ("4f2b", "c")];
        let found = |name| meant(all.clone(), name, |one| *one).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(found("web-1"), ["web-1"]);
        assert_eq!(found("web"), ["4f2a"]);
        assert_eq!(found("web-"), ["web-10", "web-1"]);
        assert_eq!(found("4f2"), ["4f2a", "4f2b"]);
        assert!(found("4f").is_empty() && found("nobody").is_empty());
    }
}
