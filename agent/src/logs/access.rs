//! What a line tells of an access besides who did it: to what, how, and the answer.

use std::borrow::Cow;
use std::net::IpAddr;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::{AccessEvent, Address};
use rustix::fs::{major, minor};
use serde::Serialize;

use super::words::{self, Flags, Octal};
use crate::alerts::PathFlags;
use crate::alerts::format::json_bytes;
use crate::alerts::line::{capability, text};

/// A user or group that stays.
const UNCHANGED: u32 = u32::MAX;
/// The bits of a mode that say what kind of file it is of, and those of the kinds that have a number (inode(7)).
const KIND: u32 = 0o170_000;
const DEVICES: [u32; 2] = [0o020_000, 0o060_000];

/// An access. What an operation does not have is absent.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessLine {
    /// `passed` or `denied`: what the security modules answered.
    pub(crate) verdict: &'static str,
    /// The error that they denied it with, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<Cow<'static, str>>,
    /// A path, an address with its port, the name of a unix socket, or a capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// What is wrong with that path, as for executables.
    #[serde(skip_serializing_if = "PathFlags::are_none")]
    object_flags: PathFlags,
    /// The new path of a rename or link; of a symbolic link, what it leads to, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) second_object: Option<String>,
    #[serde(skip_serializing_if = "PathFlags::are_none")]
    second_object_flags: PathFlags,
    /// Where there is one of IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Names joined by `|`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flags: Option<Flags>,
    /// In octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Octal>,
    /// Its number, as MAJOR:MINOR.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// The new owner; absent where it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<u32>,
    /// The new group, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<u32>,
    /// Of a socket, like the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) family: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#type: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Cow<'static, str>>,
    /// The three as numbers.
    #[serde(skip)]
    pub(crate) socket: Option<[u32; 3]>,
    /// So many of the same were only counted since it was told the last time.
    pub(crate) repeats: u64,
    /// The line tells of no access itself, but that this one was repeated so often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repeats_of: Option<Reference>,
}

/// An access that a line has told.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) cpu: u32,
    pub(crate) sequence: u64,
}

impl AccessLine {
    pub(super) fn new(event: &AccessEvent) -> AccessLine {
        let header = &event.header;
        let [first, second, third] = header.arg;
        let is_denied = header.result != 0;
        let mut line = AccessLine {
            verdict: if is_denied { "denied" } else { "passed" },
            errno: is_denied.then(|| words::errno(header.result)),
            object_flags: PathFlags::of(header.path_flags),
            second_object_flags: PathFlags::of(header.second_flags),
            repeats: header.repeats,
            ..AccessLine::default()
        };
        match header.op {
            op::READ | op::WRITE => line.flags = Some(Flags::Open(first)),
            op::RENAME => line.flags = (first != 0).then_some(Flags::Rename(first)),
            op::CREATE | op::MKDIR | op::CHMOD => line.mode = Some(Octal(first)),
            op::MKNOD => {
                line.mode = Some(Octal(first));
                let number = u64::from(second);
                line.device = DEVICES.contains(&(first & KIND)).then(|| format!("{}:{}", major(number), minor(number)));
            }
            op::CHOWN => {
                let changed = |id: u32| (id != UNCHANGED).then_some(id);
                (line.user, line.group) = (changed(first), changed(second));
            }
            op::SOCKET..=op::SEND => {
                line.family = Some(words::family(first));
                line.r#type = Some(words::socket_type(second));
                line.protocol = Some(words::protocol(first, third));
                line.socket = Some(header.arg);
            }
            _ => {}
        }
        match header.op {
            op::CAPABLE => line.object = Some(capability(first)),
            op::SOCKET..=op::SEND => line.set_address(event.address()),
            _ => line.object = Some(text(&event.path)).filter(|path| !path.is_empty()),
        }
        line.second_object = Some(text(&event.second)).filter(|path| !path.is_empty());
        line
    }

    fn set_address(&mut self, address: Option<Address<'_>>) {
        match address {
            Some(Address::Inet(address)) => {
                self.object = Some(address.to_string());
                (self.address, self.port) = (Some(address.ip()), Some(address.port()));
            }
            Some(Address::Unix(name)) => self.object = unix(name),
            // Nobody here reads the addresses of other families.
            Some(Address::Other { .. }) | None => {}
        }
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.errno.is_some()
    }

    /// Bytes of its texts in any format at most.
    pub(super) fn json_bytes(&self) -> usize {
        /// An object is a resource, and a value in KubeArmor's map, as text and in memory.
        const TIMES: usize = 3;
        TIMES * [&self.object, &self.second_object].into_iter().flatten().map(|text| json_bytes(text)).sum::<usize>()
    }
}

/// The name of a unix socket as `/proc/net/unix` writes it (`net/unix/af_unix.c`, `unix_seq_show`): `@` for the zero byte that an abstract
/// one begins with. Nothing for none.
fn unix(name: &[u8]) -> Option<String> {
    match name {
        [] => None,
        [0, rest @ ..] => Some(format!("@{}", text(rest))),
        path => Some(text(path)),
    }
}
