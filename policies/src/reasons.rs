//! Why something is not, or not fully, enforced. Every such sentence is here, and nowhere else, so that what this version
//! cannot do is told the same way to everybody, and in one place when it changes.

use crate::meaning::{Action, Class, Object, Rule};
use crate::network::Protocol;
use crate::report::{Backend, Support};
use crate::syscall::{PathSeen, Syscall};
use crate::written::Kind;

/// `apparmor`.
pub(crate) const APPARMOR: &str = "rules in AppArmor's own language are not read by this version; write them as `file`, `process`, `network` or `capabilities` rules";

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
    if kind == Kind::KubeArmorHostPolicy {
        return Support::None(HOST.to_owned());
    }
    match (backend, rule.class) {
        (_, Class::Syscall) if cfg!(not(target_arch = "x86_64")) => Support::None(OTHER_MACHINE.to_owned()),
        (Backend::Bpf, Class::Syscall) => of_calls(rule),
        (Backend::AppArmor, Class::Syscall) => Support::None(CALLS.to_owned()),
        (Backend::Bpf, Class::File) => Support::Partial(vec![VOLUME_ATTRIBUTES.to_owned()]),
        (Backend::Bpf, Class::Process | Class::Network | Class::Capability) => Support::Full,
        (Backend::AppArmor, _) => apparmor(rule),
    }
}

/// Rules on system calls: AppArmor's hooks are about objects, and none tells it which call brought the task there.
const CALLS: &str = "AppArmor is not asked about system calls: nothing is reported for this rule; BPF LSM reports it";

/// AppArmor has hooks for `chmod` and `chown` and none for other attributes (`apparmor_hooks` in the kernel's
/// `security/apparmor/lsm.c`).
const ATTRIBUTES: &str = "AppArmor does not judge changes of times, extended attributes and ACLs";
/// A rename is judged by the names of what is renamed, and of a directory that is its own.
const DIRECTORIES: &str = "AppArmor lets a directory above what the rule names be renamed, and what is in it then has a name that the rule does not cover";
/// `open_tree` has no hook, and with `attach_disconnected`, which engines' own profiles have too, the path begins at that mount
/// (`disconnect` in `security/apparmor/path.c`).
const DETACHED: &str = "with CAP_SYS_ADMIN a task can make a detached mount, and AppArmor has other names for the files on it";
/// A link is judged by its new name (`profile_path_link`).
const LINKS: &str = "AppArmor does not report that a file gets another name by a link";
/// A rename asks what may be done with a file, and not whether it may be executed.
const EXECUTABLES: &str =
    "AppArmor lets an executable be renamed where no file rule denies it, and by its new name it may be executed";
/// `apparmor_bprm_creds_for_exec` is called once for an execution, for the file that was asked for.
const INTERPRETERS: &str = "AppArmor judges the execution of a script and not that of its interpreter";
/// The runtime is told the profile for its next execution, and AppArmor does not ask a profile whether it may be entered so
/// (`handle_onexec` in `security/apparmor/domain.c`).
const ENTRYPOINT: &str = "AppArmor does not judge the execution of the container's first program, nor of those that the engine executes in it later: they are judged by name before, without an alert, and a file that is exchanged in between is not";
const LOADER: &str = "AppArmor does not tell a program that a program loader runs (`ld.so /path`) from a library";
/// With `mediate_deleted`, without which no removed file could be opened, a removed executable has its last name.
const REMOVED: &str = "under AppArmor an executable that was removed still has its last name";
///
/// And what is executed is mapped under the new profile: `aa_file_perm` in `security/apparmor/file.c` remembers what was permitted
/// for the old one.
const SOURCE: &str = "AppArmor knows a script as a source and not its interpreter, takes the container's first program for no source, and cannot execute a source whose own file its rules do not let it read";
/// `check_nnp` in `security/apparmor/domain.c`.
const NO_NEW_PRIVILEGES: &str = "in a container with no_new_privs AppArmor cannot tell sources: the rule does nothing there";
/// `aa_af_perm` is asked about family and type.
const TCP: &str = "AppArmor knows no protocols of sockets: SCTP's stream sockets are treated as TCP's";
const UDP: &str = "AppArmor knows no protocols of sockets: ICMP's datagram sockets are treated as UDP's";
const ICMP: &str = "AppArmor knows no protocols of sockets: ICMP's datagram sockets are treated as UDP's, and its raw ones as the strictest rule on raw sockets says";
const SCTP: &str = "AppArmor knows no protocols of sockets: SCTP's stream sockets are treated as TCP's, and those of sequenced packets as the rule says";
const DCCP: &str = "AppArmor's parser has no word for DCCP: it is denied, or let through in silence";

/// What AppArmor does not do of a rule.
fn apparmor(rule: &Rule) -> Support {
    let mut reasons = Vec::new();
    let is_one = |object: &Object| matches!(object, Object::Path(_) | Object::ExecName(_));
    match rule.class {
        Class::File => {
            reasons.push(ATTRIBUTES);
            if rule.action == Action::Audit {
                reasons.push(LINKS);
            }
        }
        Class::Process => {
            reasons.extend([ENTRYPOINT, INTERPRETERS]);
            if rule.action != Action::Allow {
                reasons.push(EXECUTABLES);
            }
            if rule.action == Action::Allow || !rule.objects.iter().all(is_one) {
                reasons.push(LOADER);
            }
            if rule.action == Action::Allow || rule.owner_only {
                reasons.push(REMOVED);
            }
        }
        Class::Network => {
            let protocols = rule.objects.iter().filter_map(|object| match object {
                Object::Protocol(protocol) => Some(*protocol),
                _ => None,
            });
            reasons.extend(protocols.filter_map(|protocol| match protocol {
                Protocol::Tcp => Some(TCP),
                Protocol::Udp => Some(UDP),
                Protocol::Icmp | Protocol::Icmpv6 => Some(ICMP),
                Protocol::Sctp => Some(SCTP),
                Protocol::Dccp if rule.action != Action::Block => Some(DCCP),
                _ => None,
            }));
        }
        Class::Capability | Class::Syscall => {}
    }
    if rule.action != Action::Allow && matches!(rule.class, Class::File | Class::Process) {
        reasons.extend([DIRECTORIES, DETACHED]);
    }
    if !rule.sources.is_empty() {
        reasons.extend([SOURCE, NO_NEW_PRIVILEGES]);
    }
    if reasons.is_empty() { Support::Full } else { Support::Partial(reasons.into_iter().map(str::to_owned).collect()) }
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
