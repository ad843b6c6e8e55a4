//! Capabilities, by the names and numbers of `linux/capability.h`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

/// The text names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no capability; write one of capabilities(7), such as `net_raw` or `CAP_NET_RAW`")]
pub struct UnknownCapability(pub String);

/// By number.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

impl Capability {
    /// All that there are, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Capability> {
        (0u8..).zip(NAMES).map(|(number, _)| Capability(number))
    }

    /// The one with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Capability> {
        (usize::from(number) < NAMES.len()).then_some(Capability(number))
    }

    /// As `capable()` sees it.
    pub fn number(self) -> u8 {
        self.0
    }

    /// In lower case and without `cap_`, as policies write it.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// With or without `CAP_`, in any letter case.
    fn from_str(text: &str) -> Result<Capability, UnknownCapability> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("cap_").unwrap_or(&lower);
        Capability::all().find(|capability| capability.name() == name).ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

impl TryFrom<String> for Capability {
    type Error = UnknownCapability;

    fn try_from(text: String) -> Result<Capability, UnknownCapability> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> String {
        capability.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_the_kernel() {
        for (name, number) in
            [("chown", 0), ("net_raw", 13), ("sys_admin", 21), ("syslog", 34), ("bpf", 39), ("checkpoint_restore", 40)]
        {
            assert_eq!(name.parse::<Capability>().map(Capability::number), Ok(number));
        }
        assert_eq!(Capability::all().count(), 41);
        assert_eq!(Capability::from_number(40).map(Capability::name), Some("checkpoint_restore"));
        assert_eq!(Capability::from_number(41), None);
    }

    #[test]
    fn every_spelling_is_one_capability() {
        for capability in Capability::all() {
            let name = capability.name();
            for spelling in [name.to_owned(), name.to_uppercase(), format!("cap_{name}"), format!("CAP_{}", name.to_uppercase())]
            {
                assert_eq!(spelling.parse(), Ok(capability));
            }
        }
        assert!("net raw".parse::<Capability>().is_err());
    }
}
