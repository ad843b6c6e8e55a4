//! One alert as one JSON line. The schema's name is in every line; fields are added, never changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::{Event, abi};
use portcullis_enforcer::{ContainerRecord, StateDir};
use portcullis_policy::capability::Capability;
use portcullis_policy::meaning::{Action, Rule, RuleSet};
use serde::Serialize;

use crate::failure::Failure;

/// Name and version of the schema.
const SCHEMA: &str = "portcullis.alert/1";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    schema: &'static str,
    time: String,
    cpu: u32,
    /// Counts the alerts of this CPU, delivered or not.
    sequence: u64,
    /// Alerts of this CPU, just before this one, that were not delivered.
    lost_before: u64,
    /// `block` or `audit`: what was done.
    verdict: &'static str,
    /// What was tried.
    operation: &'static str,
    /// `file`, `process`, `network`, `capability`, `mount` or `self-protection`.
    class: &'static str,
    /// A path, a socket as FAMILY,TYPE,PROTOCOL, or a capability.
    object: String,
    /// The path is longer, or begins outside the container.
    object_cut: bool,
    /// `rule`, `default-posture`, `alias`, `unresolved`, `self-protection` or `orphan`: what the verdict rests on.
    reason: &'static str,
    /// Name of the policy whose rule decided, or `DefaultPosture`.
    policy: String,
    rule: Option<RuleLine>,
    pub(crate) container: Option<ContainerLine>,
    /// Goes up each time the container's policies are switched.
    generation: u32,
    process: ProcessLine,
}

#[derive(Debug, Serialize)]
struct RuleLine {
    kind: String,
    namespace: String,
    policy: String,
    file: String,
    line: u32,
    column: u32,
    field: String,
    action: Action,
    severity: u8,
    tags: Vec<String>,
    message: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct ContainerLine {
    pub(crate) id: String,
    pub(crate) name: String,
    image: String,
    namespace: String,
}

#[derive(Debug, Serialize)]
struct ProcessLine {
    /// In the initial pid namespace.
    pid: u32,
    tid: u32,
    /// File system uid in the initial user namespace.
    uid: u32,
    comm: String,
}

/// Containers and rules by the numbers of the kernel.
pub(crate) struct Names {
    state: StateDir,
    known: HashMap<(u32, u32), Arc<(ContainerRecord, RuleSet)>>,
}

/// Most containers that are remembered; then all are looked up anew.
const MAX_KNOWN: usize = 16_384;

impl Names {
    pub(crate) fn new(state: StateDir) -> Names {
        Names { state, known: HashMap::new() }
    }

    fn of(&mut self, slot: u32, epoch: u32) -> Result<Option<Arc<(ContainerRecord, RuleSet)>>, Failure> {
        if let Some(known) = self.known.get(&(slot, epoch)) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(record) = self.state.tenant(slot, epoch)? else { return Ok(None) };
        let set = self.state.rules_of(&record)?.unwrap_or_default();
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let known = Arc::new((record, set));
        self.known.insert((slot, epoch), Arc::clone(&known));
        Ok(Some(known))
    }

    pub(crate) fn line(&mut self, event: &Event, time: SystemTime) -> Result<Line, Failure> {
        let header = &event.header;
        let known = self.of(header.slot, header.epoch)?;
        let rule = known.as_ref().and_then(|known| known.1.rules.get(header.rule as usize));
        let (operation, class) = operation(header.op);
        let reason = reason(header.rule);
        let policy = match (rule, reason) {
            (Some(rule), _) => rule.origin.policy.to_string(),
            (None, "default-posture") => "DefaultPosture".to_owned(),
            (None, _) => String::new(),
        };
        Ok(Line {
            schema: SCHEMA,
            time: humantime::format_rfc3339_micros(time).to_string(),
            cpu: header.cpu,
            sequence: header.seq,
            lost_before: event.lost_before,
            verdict: if header.verdict == abi::BLOCK { "block" } else { "audit" },
            operation,
            class,
            object: object(event, class),
            object_cut: header.path_cut != 0,
            reason,
            policy,
            rule: rule.map(|rule| RuleLine::of(rule)),
            container: known.as_ref().map(|known| ContainerLine::of(&known.0)),
            generation: header.generation,
            process: ProcessLine {
                pid: header.tgid,
                tid: header.tid,
                uid: header.uid,
                comm: text(header.comm.split(|&byte| byte == 0).next().unwrap_or_default()),
            },
        })
    }
}

impl RuleLine {
    fn of(rule: &Rule) -> RuleLine {
        let origin = &rule.origin;
        RuleLine {
            kind: origin.kind.to_string(),
            namespace: origin.namespace.to_string(),
            policy: origin.policy.to_string(),
            file: origin.file.display().to_string(),
            line: origin.line,
            column: origin.column,
            field: origin.field.clone(),
            action: rule.action,
            severity: rule.severity,
            tags: rule.tags.clone(),
            message: rule.message.clone(),
        }
    }
}

impl ContainerLine {
    fn of(record: &ContainerRecord) -> ContainerLine {
        let ContainerRecord { id, name, image, namespace, .. } = record.clone();
        ContainerLine { id, name, image, namespace }
    }
}

/// Bytes as text: what is no UTF-8 is written as U+FFFD, and JSON escapes control characters.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn object(event: &Event, class: &str) -> String {
    let [a, b, c] = event.header.arg;
    match class {
        "network" => format!("{a},{b},{c}"),
        "capability" => {
            u8::try_from(a).ok().and_then(Capability::from_number).map_or_else(|| a.to_string(), |cap| cap.to_string())
        }
        _ => text(&event.path),
    }
}

fn reason(rule: u32) -> &'static str {
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

fn operation(code: u32) -> (&'static str, &'static str) {
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
        _ => ("unknown", "unknown"),
    }
}
