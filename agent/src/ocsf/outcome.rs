//! What came of what was done or tried: status, severity, and what a policy had to do with it.

use super::schema::{Control, Policy};

/// What came of it.
pub(super) enum Outcome<'a> {
    /// It was done.
    Done,
    /// A security module refused it, be it this one or another.
    Refused { errno: &'a str },
    /// A decision was made about it.
    Decided {
        is_denial: bool,
        policy: Option<&'a str>,
        /// What the decision rests on.
        reason: &'static str,
        /// Of the container's policies.
        generation: u32,
        /// 1 to 10, or 0 where the rule has none.
        severity: u8,
    },
}

impl<'a> Outcome<'a> {
    pub(super) fn status(&self) -> (u32, &'static str) {
        match self {
            Outcome::Done => (1, "Success"),
            Outcome::Refused { .. } => (2, "Failure"),
            Outcome::Decided { is_denial: true, .. } => (2, "Failure"),
            // Others may have denied it later: file permissions, another security module.
            Outcome::Decided { is_denial: false, .. } => (0, "Unknown"),
        }
    }

    /// KubeArmor's ten degrees on the five of OCSF.
    pub(super) fn severity(&self) -> (u32, &'static str) {
        match self {
            Outcome::Done | Outcome::Refused { .. } => (1, "Informational"),
            Outcome::Decided { severity, .. } => match severity {
                0 => (0, "Unknown"),
                1..=2 => (1, "Informational"),
                3..=4 => (2, "Low"),
                5..=6 => (3, "Medium"),
                7..=8 => (4, "High"),
                _ => (5, "Critical"),
            },
        }
    }

    pub(super) fn message(&self, operation: &str) -> String {
        match self {
            Outcome::Done => operation.to_owned(),
            Outcome::Refused { errno } => format!("{operation} denied: {errno}"),
            Outcome::Decided { is_denial, policy, reason, .. } => {
                let done = if *is_denial { "denied" } else { "audited" };
                let by = policy.map_or_else(|| (*reason).to_owned(), |policy| format!("policy {policy}"));
                format!("{operation} {done}: {by}")
            }
        }
    }

    pub(super) fn profiles(&self) -> &'static [&'static str] {
        match self {
            Outcome::Done | Outcome::Refused { .. } => &["container", "host"],
            Outcome::Decided { .. } => &["container", "host", "security_control"],
        }
    }

    pub(super) fn control(&self) -> Option<Control<'a>> {
        let Outcome::Decided { is_denial, policy, generation, .. } = *self else { return None };
        let (action_id, action, disposition_id, disposition) =
            if is_denial { (2, "Denied", 2, "Blocked") } else { (3, "Observed", 19, "Alert") };
        let policy = policy.map(|name| Policy { name, is_applied: true, version: generation.to_string() });
        Some(Control { action_id, action, disposition_id, disposition, is_alert: true, policy })
    }
}
