//! One alert as one JSON line. The schema's name is in every line; fields are added, never changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_ebpf::abi::op;
use portcullis_ebpf::{Event, abi};
use portcullis_enforcer::{ContainerRecord, Error, StateDir};
use portcullis_policy::capability::Capability;
use portcullis_policy::meaning::{Action, Rule, RuleSet};
use serde::Serialize;

/// Name and version of the schema.
pub const SCHEMA: &str = "portcullis.alert/1";
/// Fewest characters of an id that stand for it.
const MIN_PREFIX: usize = 3;

/// Whether `name` means a container: by its name, its id, or the beginning of its id.
#[must_use]
pub fn means(name: &str, id: &str, container_name: &str) -> bool {
    container_name == name || id == name || (name.len() >= MIN_PREFIX && id.starts_with(name))
}

/// An alert, named.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
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
    /// Whose process it was, if that is on record.
    pub container: Option<ContainerLine>,
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

/// The container of an alert.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerLine {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
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
pub struct Names {
    state: StateDir,
    known: HashMap<Tenant, Arc<Named>>,
    unknown: HashMap<Tenant, Instant>,
    sets: HashMap<String, Arc<RuleSet>>,
}

/// Slot, epoch and generation: one policy of one container.
type Tenant = (u32, u32, u32);

/// A container, and its rules in one generation of its policy.
struct Named {
    container: ContainerLine,
    rules: Arc<RuleSet>,
}

/// Most containers that are remembered; then all are looked up anew.
const MAX_KNOWN: usize = 4096;
/// Most rule sets that are remembered, likewise. Containers with the same rules share one.
const MAX_SETS: usize = 64;
/// A switch is told by the kernel before it is on record, by as long as it takes to write a file.
const RECORD_PATIENCE: Duration = Duration::from_millis(5);
const RECORD_LOOKS: usize = 20;
/// How long a container that nobody knows is not asked for again: a look goes through all records.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

impl Names {
    /// By the records of a state directory.
    #[must_use]
    pub fn new(state: StateDir) -> Names {
        Names { state, known: HashMap::new(), unknown: HashMap::new(), sets: HashMap::new() }
    }

    fn of(&mut self, tenant: Tenant) -> Result<Option<Arc<Named>>, Error> {
        if let Some(known) = self.known.get(&tenant) {
            return Ok(Some(Arc::clone(known)));
        }
        if self.unknown.get(&tenant).is_some_and(|since| since.elapsed() < UNKNOWN_FOR) {
            return Ok(None);
        }
        let found = self.look_up(tenant)?;
        if self.known.len() + self.unknown.len() >= MAX_KNOWN {
            self.known.clear();
            self.unknown.clear();
        }
        match &found {
            Some(named) => drop(self.known.insert(tenant, Arc::clone(named))),
            None => drop(self.unknown.insert(tenant, Instant::now())),
        }
        Ok(found)
    }

    fn look_up(&mut self, (slot, epoch, generation): Tenant) -> Result<Option<Arc<Named>>, Error> {
        let Some(mut record) = self.state.tenant(slot, epoch)? else { return Ok(None) };
        for _ in 0..RECORD_LOOKS {
            if generation <= record.generation {
                break;
            }
            std::thread::sleep(RECORD_PATIENCE);
            match self.state.tenant(slot, epoch)? {
                Some(newer) => record = newer,
                None => break,
            }
        }
        let rules = self.rules(&record, generation)?;
        Ok(Some(Arc::new(Named { container: ContainerLine::of(&record), rules })))
    }

    /// The rules of a generation; none if nobody knows them any more, rather than another generation's.
    fn rules(&mut self, record: &ContainerRecord, generation: u32) -> Result<Arc<RuleSet>, Error> {
        let recorded = record.generation == generation || record.earlier.iter().any(|earlier| earlier.generation == generation);
        if !recorded {
            return Ok(Arc::default());
        }
        let hash = record.hash_in(generation);
        if let Some(rules) = self.sets.get(hash) {
            return Ok(Arc::clone(rules));
        }
        let rules = Arc::new(self.state.rules_in(record, generation)?.unwrap_or_default());
        if self.sets.len() >= MAX_SETS {
            self.sets.clear();
        }
        self.sets.insert(hash.to_owned(), Arc::clone(&rules));
        Ok(rules)
    }

    /// The line of an alert that was raised at a time.
    ///
    /// # Errors
    /// If the records that name it cannot be read. An alert that no record names has a line all the same.
    pub fn line(&mut self, event: &Event, time: SystemTime) -> Result<Line, Error> {
        let header = &event.header;
        let known = self.of((header.slot, header.epoch, header.generation))?;
        let rule = known.as_ref().and_then(|known| known.rules.rules.get(header.rule as usize));
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
            container: known.as_ref().map(|known| known.container.clone()),
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
        let ContainerRecord { id, name, image, namespace, .. } = record;
        ContainerLine { id: id.clone(), name: name.clone(), image: image.clone(), namespace: namespace.clone() }
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
