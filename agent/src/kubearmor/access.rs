//! An access in KubeArmor's words: operation, resource, data and result.
//!
//! KubeArmor sees system calls, the monitor what they come to. Where its documentation has a call for an operation
//! (getting-started/kubearmor-events.md) that call is named, else the hook, as in its alerts. A path that is told is absolute, for which
//! a directory to begin at is as good as none: `fd=-100` is that. Other descriptors nobody knows here, so `fd` is left out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::convert::{hook, operation};
use crate::logs::{AccessLine, strerror};

/// `NAME=VALUE`, in their order.
type Pairs = Vec<(&'static str, String)>;

/// What an access is to KubeArmor.
pub(super) struct Told {
    pub(super) operation: &'static str,
    pub(super) resource: String,
    pub(super) data: String,
    /// The pairs of data, and of a socket's resource, their names with a capital.
    pub(super) event_data: BTreeMap<String, String>,
    pub(super) result: String,
}

impl Told {
    pub(super) fn new(class: &str, name: &str, access: &AccessLine<'_>) -> Told {
        let how = how(name, access);
        let mut data = words(&how);
        let mut event_data = map(&how);
        let resource = match class {
            "network" => {
                let socket = socket(name, access);
                event_data.extend(map(&socket));
                words(&socket)
            }
            "capability" => {
                let capability = access.object.as_deref().unwrap_or_default();
                // One that this build does not know is told by its number.
                let is_named = capability.starts_with(|first: char| first.is_ascii_alphabetic());
                let resource = format!("{}{}", if is_named { "CAP_" } else { "" }, capability.to_ascii_uppercase());
                data = format!("{data} {resource}");
                resource
            }
            _ => access.object.as_deref().unwrap_or_default().to_owned(),
        };
        let repeats = match access.repeats_of {
            // One log is one access, so this one is the first of those that it is about.
            Some(_) => access.repeats.saturating_sub(1),
            None => access.repeats,
        };
        if repeats > 0 {
            event_data.insert("Repeats".to_owned(), repeats.to_string());
        }
        if let Some(second) = &access.second_object {
            event_data.insert("SecondResource".to_owned(), second.clone().into_owned());
        }
        Told { operation: operation(class), resource, data, event_data, result: result(access) }
    }
}

fn how(name: &str, access: &AccessLine<'_>) -> Pairs {
    let call = |call: &str| ("syscall", call.to_owned());
    let id = |id: Option<u32>| id.map_or_else(|| "-1".to_owned(), |id| id.to_string());
    match name {
        "read" | "write" => {
            vec![
                call("SYS_OPENAT"),
                ("fd", "-100".to_owned()),
                ("flags", access.flags.map(|flags| flags.to_string()).unwrap_or_default()),
            ]
        }
        // The only flag that there is would make it an rmdir.
        "unlink" => vec![call("SYS_UNLINKAT"), ("flags", String::new())],
        "rmdir" => vec![call("SYS_RMDIR")],
        "chown" => vec![call("SYS_CHOWN"), ("userid", id(access.user)), ("group", id(access.group))],
        "socket" => vec![call("SYS_SOCKET")],
        "connect" => vec![call("SYS_CONNECT")],
        "bind" => vec![call("SYS_BIND")],
        "listen" => vec![call("SYS_LISTEN")],
        "accept" => vec![call("SYS_ACCEPT")],
        _ => {
            let mode = access.mode.map(|mode| ("mode", mode.to_string()));
            let flags = access.flags.map(|flags| ("flags", flags.to_string()));
            std::iter::once(("lsm", hook(name).to_owned())).chain(mode).chain(flags).collect()
        }
    }
}

/// A new socket by what was asked for, another by the address.
fn socket(name: &str, access: &AccessLine<'_>) -> Pairs {
    let field = |field: &Option<Cow<'static, str>>| field.as_deref().unwrap_or_default().to_owned();
    if name == "socket" {
        return vec![("domain", field(&access.family)), ("type", field(&access.r#type)), ("protocol", field(&access.protocol))];
    }
    // A socket of IPv6 may be given an address of IPv4.
    let family = access.address.map(|address| if address.is_ipv4() { "AF_INET" } else { "AF_INET6" });
    let family = family.map_or_else(|| field(&access.family), str::to_owned);
    let port = access.port.map(|port| ("sin_port", port.to_string()));
    let address = match (access.address, &access.object) {
        (Some(address), _) => Some(("sin_addr", address.to_string())),
        (None, Some(name)) => Some(("sun_path", name.clone().into_owned())),
        (None, None) => None,
    };
    std::iter::once(("sa_family", family)).chain(port).chain(address).collect()
}

fn words(pairs: &Pairs) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn map(pairs: &Pairs) -> BTreeMap<String, String> {
    let capital = |name: &str| {
        let mut name = name.to_owned();
        name.get_mut(..1).iter_mut().for_each(|first| first.make_ascii_uppercase());
        name
    };
    // An empty one says nothing.
    pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (capital(name), value.clone())).collect()
}

fn result(access: &AccessLine<'_>) -> String {
    match access.errno.as_deref() {
        None => "Passed".to_owned(),
        Some(name) => strerror(name).map_or_else(|| format!("Unknown (-{name})"), str::to_owned),
    }
}
