//! An alert as KubeArmor tells it.

use std::collections::BTreeMap;

use portcullis_policy::Backend;
use portcullis_policy::capability::Capability;
use portcullis_policy::network::{AF_INET, AF_INET6, SOCK_DCCP, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, SOCK_STREAM};
use portcullis_policy::select::CONTAINER_NAMESPACE;
use portcullis_policy::written::Kind;

use super::message::{Alert, ExecEvent, Podowner};
use crate::alerts;
use crate::alerts::clock::Timestamp;
use crate::alerts::line::{Container, Line};
use crate::alerts::{ParentFacts, ProcessFacts, Program};

/// What stands for KubeArmor's version.
const VERSION: &str = concat!("portcullis-", env!("CARGO_PKG_VERSION"));

impl From<&alerts::Alert> for Alert {
    fn from(alert: &alerts::Alert) -> Alert {
        let line = alert.line();
        let unknown = ProcessFacts::default();
        let process = line.process.facts.unwrap_or(&unknown);
        let parent = process.parent.as_ref();
        let exe = process.named_exe().unwrap_or_default();
        let resource = resource(alert, &line);
        let data = data(&line, &resource);
        let mut told = Alert {
            timestamp: seconds(line.time),
            updated_time: line.time.to_string(),
            cluster_name: alert.host.cluster.clone(),
            host_name: alert.host.name.clone(),
            host_ppid: parent.map_or(0, |parent| number(parent.pid)),
            host_pid: number(line.process.pid),
            ppid: parent.and_then(|parent| parent.ns_pid).map_or(0, number),
            pid: process.ns_pid.map_or(0, number),
            // -1 and -2 are users to Go, too.
            uid: line.process.uid.cast_signed(),
            parent_process_name: parent.and_then(ParentFacts::exe).unwrap_or_default().to_owned(),
            process_name: exe.to_owned(),
            policy_name: line.policy.to_owned(),
            r#type: "MatchedPolicy".to_owned(),
            source: command(exe, process),
            operation: operation(line.class).to_owned(),
            event_data: event_data(&line, &data, &resource),
            resource,
            data,
            enforcer: match alert.backend() {
                Backend::Bpf => "BPFLSM".to_owned(),
                Backend::AppArmor => "AppArmor".to_owned(),
            },
            action: action(alert).to_owned(),
            result: if alert.is_denial() { "Permission denied" } else { "Passed" }.to_owned(),
            cwd: process.named_cwd().map(directory).unwrap_or_default(),
            tty: process.tty().map(|tty| tty.to_string()).unwrap_or_default(),
            // KubeArmor always sends one.
            exec_event: Some(ExecEvent {
                exec_id: process.exec_id.map(|id| id.to_string()).unwrap_or_default(),
                executable_name: line.process.comm.to_string(),
            }),
            kubearmor_version: VERSION.to_owned(),
            node_id: alert.host.id.clone(),
            ..Alert::default()
        };
        if line.class == "process" && line.operation == "exec" {
            // Who calls exec is the source and, to KubeArmor, the parent of what it would have become.
            exe.clone_into(&mut told.source);
            told.parent_process_name.clone_from(&told.source);
            told.process_name.clone_from(&told.resource);
        }
        if let Some(container) = line.container {
            told.container(container);
        }
        match line.rule {
            Some(rule) => {
                if *rule.origin.kind == *Kind::KubeArmorHostPolicy.as_str() {
                    told.r#type = "MatchedHostPolicy".to_owned();
                    told.user_name = alert.host.user(line.process.uid);
                }
                if rule.severity > 0 {
                    told.severity = rule.severity.to_string();
                }
                told.tags = rule.tags.join(",");
                told.atags.clone_from(&rule.tags);
                told.message.clone_from(&rule.message);
            }
            None => told.message = without_rule(line.reason).to_owned(),
        }
        told
    }
}

impl Alert {
    fn container(&mut self, container: &Container) {
        self.container_id.clone_from(&container.id);
        self.container_name.clone_from(&container.name);
        self.container_image.clone_from(&container.image);
        self.labels.clone_from(&container.labels);
        (self.namespace_name, self.pod_name, self.owner) = pod(container);
    }
}

/// Namespace, pod and owner of a container.
pub(super) fn pod(container: &Container) -> (String, String, Option<Podowner>) {
    if container.namespace.is_empty() {
        // Outside Kubernetes, KubeArmor takes each container for a pod.
        return (CONTAINER_NAMESPACE.to_owned(), container.name.clone(), None);
    }
    let owner = container.owner.as_ref().map(|owner| Podowner {
        r#ref: owner.kind.clone(),
        name: owner.name.clone(),
        namespace: container.namespace.clone(),
    });
    (container.namespace.clone(), container.pod.clone(), owner)
}

/// Since 1970.
pub(super) fn seconds(time: Timestamp) -> i64 {
    i64::try_from(time.since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// A process id. They end at 2^22.
pub(super) fn number(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(i32::MAX)
}

/// The executable with its arguments.
pub(super) fn command(exe: &str, process: &ProcessFacts) -> String {
    if exe.is_empty() {
        return String::new();
    }
    let arguments = process.program.as_deref().and_then(Program::args).into_iter().flatten().skip(1);
    std::iter::once(exe).chain(arguments).collect::<Vec<_>>().join(" ")
}

pub(super) fn directory(path: &str) -> String {
    if path.ends_with('/') { path.to_owned() } else { format!("{path}/") }
}

pub(super) fn operation(class: &str) -> &'static str {
    match class {
        "process" => "Process",
        "file" => "File",
        "network" => "Network",
        "capability" => "Capabilities",
        "syscall" => "Syscall",
        // Mounts and what protects ourselves: KubeArmor tells of mounts as system calls.
        _ => "Syscall",
    }
}

fn action(alert: &alerts::Alert) -> &'static str {
    match (alert.is_denial(), alert.spared) {
        (true, _) => "Block",
        (false, true) => "Audit (Block)",
        (false, false) => "Audit",
    }
}

fn resource(alert: &alerts::Alert, line: &Line<'_>) -> String {
    let [first, second, third] = alert.arg();
    match line.class {
        "network" => socket(first, second, third),
        "capability" => {
            let known = u8::try_from(first).ok().and_then(Capability::from_number);
            known.map_or_else(|| first.to_string(), |capability| format!("CAP_{}", capability.to_string().to_ascii_uppercase()))
        }
        _ => line.object.clone().into_owned(),
    }
}

/// A socket in KubeArmor's words: by its protocol where it was asked for by one that has a word, else by its type.
fn socket(family: u32, kind: u32, protocol: u32) -> String {
    let is_ip = [AF_INET, AF_INET6].into_iter().any(|ip| u32::from(ip) == family);
    let by_protocol = match protocol {
        1 => "protocol=ICMP type=SOCK_RAW",
        6 => "protocol=TCP type=SOCK_STREAM",
        17 => "protocol=UDP type=SOCK_DGRAM",
        58 => "protocol=IPv6-ICMP type=SOCK_RAW",
        132 => "protocol=SCTP type=SOCK_STREAM|SOCK_SEQPACKET",
        _ => "",
    };
    if is_ip && !by_protocol.is_empty() {
        return by_protocol.to_owned();
    }
    match u16::try_from(kind).unwrap_or_default() {
        SOCK_STREAM => "type=SOCK_STREAM".to_owned(),
        SOCK_DGRAM => "type=SOCK_DGRAM".to_owned(),
        SOCK_RAW => "type=SOCK_RAW".to_owned(),
        SOCK_RDM => "type=SOCK_RDM".to_owned(),
        SOCK_SEQPACKET => "type=SOCK_SEQPACKET".to_owned(),
        SOCK_DCCP => "type=SOCK_DCCP".to_owned(),
        10 => "type=SOCK_PACKET".to_owned(),
        _ => format!("type={kind}"),
    }
}

/// The hook, by KubeArmor's name of it where it has one.
pub(super) fn hook(operation: &str) -> &'static str {
    match operation {
        "read" | "write" => "FILE_OPEN",
        "create" | "mknod" => "FILE_MKNOD",
        "unlink" => "FILE_UNLINK",
        "rename" => "FILE_RENAME",
        "link" => "FILE_LINK",
        "symlink" => "FILE_SYMLINK",
        "mkdir" => "FILE_MKDIR",
        "rmdir" => "FILE_RMDIR",
        "chmod" => "FILE_CHMOD",
        "chown" => "FILE_CHOWN",
        "truncate" => "FILE_TRUNCATE",
        "setattr" => "FILE_SETATTR",
        "setxattr" => "FILE_SETXATTR",
        "receive" => "FILE_RECEIVE",
        "exec" => "SECURITY_BPRM_CHECK",
        "map_exec" => "MMAP_FILE",
        "socket" => "SOCKET_CREATE",
        "connect" => "SOCKET_CONNECT",
        "bind" => "SOCKET_BIND",
        "listen" => "SOCKET_LISTEN",
        "accept" => "SOCKET_ACCEPT",
        "send" => "SOCKET_SENDMSG",
        "capable" => "CAPABLE",
        "mount" => "SB_MOUNT",
        "umount" => "SB_UMOUNT",
        "move_mount" => "MOVE_MOUNT",
        "pivot_root" => "SB_PIVOTROOT",
        "bpf" => "BPF",
        "uring_creds" => "URING_OVERRIDE_CREDS",
        _ => "UNKNOWN",
    }
}

fn data(line: &Line<'_>, resource: &str) -> String {
    if line.class == "syscall" {
        return format!("syscall=SYS_{}", line.operation.to_ascii_uppercase());
    }
    let hook = hook(line.operation);
    match line.class {
        "network" | "capability" => format!("lsm={hook} {resource}"),
        _ => format!("lsm={hook}"),
    }
}

/// Pairs as a map, their names with a capital. One of ours is among them: what the kernel could not deliver just before, so that
/// nobody who only reads this format takes the stream for complete.
fn event_data(line: &Line<'_>, data: &str, resource: &str) -> BTreeMap<String, String> {
    let resource = if line.class == "network" { resource } else { "" };
    let words = data.split_whitespace().chain(resource.split_whitespace());
    let mut pairs: BTreeMap<String, String> = words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| {
            let mut name = name.to_owned();
            name.get_mut(..1).iter_mut().for_each(|first| first.make_ascii_uppercase());
            (name, value.to_owned())
        })
        .collect();
    if line.lost_before > 0 {
        pairs.insert("LostBefore".to_owned(), line.lost_before.to_string());
    }
    pairs
}

/// What a verdict rests on that no rule is behind.
fn without_rule(reason: &str) -> &'static str {
    match reason {
        "alias" => "another name for a file would escape the policy",
        "unresolved" => "the path cannot be resolved",
        "self-protection" => "it would undo the enforcement",
        "orphan" => "the container's policy is gone",
        _ => "",
    }
}
