//! Why something is not, or not fully, enforced. Every such sentence is here, and nowhere else, so that what this version
//! cannot do is told the same way to everybody, and in one place when it changes.

use crate::meaning::{Action, Class, Object, Rule};
use crate::report::{Backend, Support};
use crate::syscall::{PathSeen, Syscall};
use crate::written::Kind;

/// `apparmor`.
pub(crate) const APPARMOR: &str = "rules in AppArmor's own language hold for AppArmor alone, which this version does not use; write them as `file`, `process`, `network` or `capabilities` rules";

/// Rules of a host policy.
const HOST: &str = "this version confines containers and not the host, so nothing of a host policy is enforced";

/// File rules under BPF LSM: `inode_setattr` and `inode_setxattr` are called without the mount (`notify_change` and
/// `__vfs_setxattr_locked` in the kernel's `fs/attr.c` and `fs/xattr.c`), so a file of a volume has no path there.
const VOLUME_ATTRIBUTES: &str = "changes of times, extended attributes and ACLs of files on a volume are not judged";

/// Rules on what system calls do to paths: the path is the kernel's own, told where it asks its security modules.
const NOT_FOUND: &str =
    "a call that fails before the kernel has found the path and file permissions have allowed it is not reported";

/// Rules on system calls anywhere but on x86-64.
const OTHER_MACHINE: &str = "this version knows the system calls of x86-64 alone; nothing is reported for this rule";

/// How far `backend` enforces `rule` of a policy of `kind`.
pub(crate) fn support(rule: &Rule, kind: Kind, backend: Backend) -> Support {
    let Backend::Bpf = backend;
    match (kind, rule.class) {
        (Kind::KubeArmorHostPolicy, _) => Support::None(HOST.to_owned()),
        (_, Class::File) => Support::Partial(vec![VOLUME_ATTRIBUTES.to_owned()]),
        (_, Class::Process | Class::Network | Class::Capability) => Support::Full,
        (_, Class::Syscall) if cfg!(not(target_arch = "x86_64")) => Support::None(OTHER_MACHINE.to_owned()),
        (_, Class::Syscall) => of_calls(rule),
    }
}

/// What a rule on system calls does not do.
fn of_calls(rule: &Rule) -> Support {
    let mut reasons = Vec::new();
    if rule.action != Action::Audit {
        let missing = if rule.action == Action::Block { "not refused" } else { "no others are refused" };
        reasons.push(format!("system calls are reported, and {missing}; write `action: Audit`"));
    }
    let calls = || {
        rule.objects.iter().filter_map(|object| match object {
            Object::Syscall { call, at } => Some((*call, at.is_some())),
            _ => None,
        })
    };
    let listed = |wanted: &dyn Fn(Syscall, bool) -> bool| {
        let mut names: Vec<&str> = Vec::new();
        for (call, _) in calls().filter(|&(call, at)| wanted(call, at)) {
            if !names.contains(&call.name()) {
                names.push(call.name());
            }
        }
        names.join(", ")
    };
    if calls().any(|(_, at)| at) {
        reasons.push(NOT_FOUND.to_owned());
    }
    let inodes = listed(&|call, at| at && call.path_seen() == PathSeen::InodeAttributes);
    if !inodes.is_empty() {
        reasons.push(format!("what {inodes} does to files on a volume is not reported"));
    }
    let shortcuts = listed(&|call, at| !at && call.has_shortcut());
    if !shortcuts.is_empty() {
        reasons.push(format!("programs mostly do {shortcuts} without the kernel (vdso(7)), and then it is not reported"));
    }
    if reasons.is_empty() { Support::Full } else { Support::Partial(reasons) }
}

/// Why a rule of `syscalls.matchPaths` on this call does nothing; `None` where it does.
pub(crate) fn unseen(call: Syscall) -> Option<String> {
    match call.path_seen() {
        PathSeen::Unseen => Some(format!(
            "this version does not see the path of {call}: nothing is reported for it; `matchSyscalls` reports it for every path"
        )),
        PathSeen::NoPath => Some(format!("{call} takes no path: nothing is reported for it; `matchSyscalls` reports it")),
        _ => None,
    }
}

/// `network.matchDNSQueries`.
pub(crate) fn dns(domains: &[String], action: Action) -> String {
    let what = match action {
        Action::Block => "names are still resolved",
        Action::Audit => "queries are not reported",
        Action::Allow => "queries for other names are let through, and the rule makes no allow-list",
    };
    format!("this version does not read DNS queries: for {} {what}", domains.join(", "))
}

/// `device.matchDevice`.
pub(crate) fn device(class: &str) -> String {
    format!("this version does not authorise USB devices: class {class} is neither blocked nor reported")
}

/// `presets`.
pub(crate) fn preset(name: &str) -> String {
    let instead = match name {
        "filelessExec" => {
            "; where `process` is an allow-list with default posture `block`, executables that have no path are denied"
        }
        "protectEnv" => "; a `file` rule with pattern `/proc/*/environ` comes near it",
        _ => "",
    };
    format!("this version does not have the preset {name}{instead}")
}

/// `ingress` and `egress`.
pub(crate) fn traffic(quota: bool) -> &'static str {
    if quota {
        "this version does not limit bandwidth: traffic is neither counted nor limited"
    } else {
        "this version does not filter packets by address or port: traffic is neither blocked nor reported"
    }
}

/// A rule whose limit (`allowedArgs`, `pts`) is not enforced.
///
/// Without its limit a `Block` rule would deny what its author expressly permits, and an `Allow` rule would permit what its
/// author does not. Neither is done.
pub(crate) fn narrowed(limit: &str, action: Action) -> String {
    let cannot = match limit {
        "allowedArgs" => "this version does not examine the arguments of an executable",
        _ => "this version does not tell tasks with a terminal from others",
    };
    match action {
        Action::Block => format!("{cannot}: the rule is left out and blocks nothing; without `{limit}` it would be enforced"),
        Action::Audit => format!("{cannot}: the rule is left out and reports nothing; without `{limit}` it would be enforced"),
        Action::Allow => format!(
            "{cannot}: the rule lets nothing through, while its class remains an allow-list under the default posture; \
             without `{limit}` it would be enforced"
        ),
    }
}
