//! The compile report: what becomes of each rule, told before anything runs.

use std::fmt;

use serde::Serialize;

use crate::meaning::{Action, Class, Location, Object, Origin, Rule};
use crate::policy::Policy;
use crate::reasons;

/// What enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// BPF LSM.
    Bpf,
    /// A generated AppArmor profile.
    AppArmor,
}

impl Backend {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Backend::Bpf => "bpf",
            Backend::AppArmor => "apparmor",
        }
    }
}

/// How far something is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "level", content = "reasons")]
pub enum Support {
    /// Exactly as written.
    Full,
    /// With these exceptions.
    Partial(Vec<String>),
    /// Not at all, for this reason.
    None(String),
}

impl Support {
    /// The same with another exception.
    #[must_use]
    pub fn except(self, reason: String) -> Support {
        match self {
            Support::Full => Support::Partial(vec![reason]),
            Support::Partial(mut reasons) => {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
                Support::Partial(reasons)
            }
            none @ Support::None(_) => none,
        }
    }
}

/// What becomes of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Where it is written.
    pub origin: Origin,
    /// What it says, in words.
    pub summary: String,
    /// How far it is enforced.
    pub support: Support,
}

/// What becomes of each rule of `policy` on `backend`, in the order of the file.
///
/// For AppArmor this is what holds for every rule of its kind; what comes of rules that stand together is the enforcer's to say.
#[must_use]
pub fn report(policy: &Policy, backend: Backend) -> Vec<RuleReport> {
    let unenforced = policy.unenforced.iter().map(|left_out| RuleReport {
        origin: left_out.origin.clone(),
        summary: left_out.feature.to_owned(),
        support: Support::None(left_out.reason.clone()),
    });
    // A rule that is in both lists is inert, and is reported as what it is: not enforced.
    let inert = |rule: &Rule| policy.unenforced.iter().any(|left_out| left_out.origin == rule.origin);
    let enforced = policy.rules.iter().filter(|rule| !inert(rule)).map(|rule| RuleReport {
        origin: rule.origin.clone(),
        summary: summary(rule),
        support: reasons::support(rule, policy.kind, backend),
    });
    let mut reports: Vec<RuleReport> = unenforced.chain(enforced).collect();
    reports.sort_by(|a, b| {
        (a.origin.line, a.origin.column, &a.origin.field).cmp(&(b.origin.line, b.origin.column, &b.origin.field))
    });
    reports
}

/// What `rule` says, in one line: `Block change /etc/passwd from /usr/bin/vi`.
#[must_use]
pub fn summary(rule: &Rule) -> String {
    let action = match rule.action {
        Action::Allow => "Allow",
        Action::Audit => "Audit",
        Action::Block => "Block",
    };
    let verb = match (rule.class, rule.action, rule.read_only) {
        (Class::Process, ..) => "exec",
        (Class::File, Action::Allow, true) => "read (not change)",
        (Class::File, _, true) => "change",
        (Class::File, _, false) => "read and change",
        (Class::Network, ..) => "network",
        (Class::Capability, ..) => "capability",
        (Class::Syscall, ..) => "syscall",
    };
    let objects: Vec<String> = rule.objects.iter().map(|object| Shown(object).to_string()).collect();
    let mut out = format!("{action} {verb} {}", objects.join(", "));
    if rule.owner_only {
        out.push_str(if rule.action == Action::Allow { " for its owner only" } else { " except for its owner" });
    }
    if !rule.sources.is_empty() {
        let sources: Vec<String> = rule.sources.iter().map(Location::to_string).collect();
        out.push_str(&format!(" from {}", sources.join(", ")));
    }
    out
}

/// An object as a policy would name it.
struct Shown<'a>(&'a Object);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.0 {
            Object::Path(path) => f.write_str(&text(path)),
            Object::ExecName(name) => write!(f, "any {}", text(name)),
            Object::Directory { dir, recursive } => Location::Directory { dir: dir.clone(), recursive: *recursive }.fmt(f),
            Object::Pattern(glob) => f.write_str(&text(glob.text())),
            Object::Protocol(protocol) => f.write_str(protocol.name()),
            Object::Capability(capability) => f.write_str(capability.name()),
            Object::Syscall { call, at: None } => call.fmt(f),
            Object::Syscall { call, at: Some(at) } => write!(f, "{call} on {at}"),
        }
    }
}
