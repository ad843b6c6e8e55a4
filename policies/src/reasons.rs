//! Why something is not, or not fully, enforced. Every such sentence is here, and nowhere else, so that what this version
//! cannot do is told the same way to everybody, and in one place when it changes.

use crate::meaning::{Action, Class, Rule};
use crate::report::{Backend, Support};
use crate::written::Kind;

/// `apparmor`.
pub(crate) const APPARMOR: &str = "rules in AppArmor's own language hold for AppArmor alone, which this version does not use; write them as `file`, `process`, `network` or `capabilities` rules";

/// Rules of a host policy.
const HOST: &str = "this version confines containers and not the host, so nothing of a host policy is enforced";

/// File rules under BPF LSM: `inode_setattr` and `inode_setxattr` are called without the mount (`notify_change` and
/// `__vfs_setxattr_locked` in the kernel's `fs/attr.c` and `fs/xattr.c`), so a file of a volume has no path there.
const VOLUME_ATTRIBUTES: &str = "changes of times, extended attributes and ACLs of files on a volume are not judged";

/// How far `backend` enforces `rule` of a policy of `kind`.
pub(crate) fn support(rule: &Rule, kind: Kind, backend: Backend) -> Support {
    let Backend::Bpf = backend;
    match (kind, rule.class) {
        (Kind::KubeArmorHostPolicy, _) => Support::None(HOST.to_owned()),
        (_, Class::File) => Support::Partial(vec![VOLUME_ATTRIBUTES.to_owned()]),
        (_, Class::Process | Class::Network | Class::Capability) => Support::Full,
    }
}

/// `syscalls`, for these system calls.
pub(crate) fn syscalls(names: &[String]) -> String {
    let mut reason = "this version does not audit system calls by name; nothing is reported for this rule".to_owned();
    let files = ["unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "chmod", "chown", "truncate", "mkdir", "link"];
    if names.iter().any(|name| files.contains(&name.as_str())) {
        reason.push_str("; an `Audit` rule with `readOnly: true` in `file` reports changes to files, whichever call makes them");
    }
    reason
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
