//! What a line tells of an access besides who did it: to what, how, and the answer.

use std::borrow::Cow;
use std::net::IpAddr;

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::{AccessEvent, Address};
use rustix::fs::{major, minor};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::words::{self, Flags, Octal};
use crate::alerts::PathFlags;
use crate::alerts::format::json_bytes_of;
use crate::alerts::line::{capability, text};
use crate::json::known;

/// A user or group that stays.
const UNCHANGED: u32 = u32::MAX;
/// The bits of a mode that say what kind of file it is of, and those of the kinds that have a number (inode(7)).
const KIND: u32 = 0o170_000;
const DEVICES: [u32; 2] = [0o020_000, 0o060_000];

/// An access. What an operation does not have is absent.
#[derive(Debug, Default)]
pub(crate) struct AccessLine<'a> {
    /// `passed` or `denied`: what the security modules answered.
    pub(crate) verdict: &'static str,
    /// The error that they denied it with, by its name.
    pub(crate) errno: Option<Cow<'static, str>>,
    /// A path, an address with its port, the name of a unix socket, or a capability.
    pub(crate) object: Option<Cow<'a, str>>,
    /// What is wrong with that path, as for executables.
    object_flags: PathFlags,
    /// The new path of a rename or link; of a symbolic link, what it leads to, as written.
    pub(crate) second_object: Option<Cow<'a, str>>,
    second_object_flags: PathFlags,
    /// Where there is one of IP.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// Names joined by `|`.
    pub(crate) flags: Option<Flags>,
    /// In octal.
    pub(crate) mode: Option<Octal>,
    /// Its number, as MAJOR:MINOR.
    device: Option<String>,
    /// The new owner; absent where it stays.
    pub(crate) user: Option<u32>,
    /// The new group, likewise.
    pub(crate) group: Option<u32>,
    /// Of a socket, like the next two.
    pub(crate) family: Option<Cow<'static, str>>,
    pub(crate) r#type: Option<Cow<'static, str>>,
    pub(crate) protocol: Option<Cow<'static, str>>,
    /// The three as numbers.
    pub(crate) socket: Option<[u32; 3]>,
    /// So many of the same were only counted since it was told the last time.
    pub(crate) repeats: u64,
    /// The line tells of no access itself, but that this one was repeated so often.
    pub(crate) repeats_of: Option<Reference>,
}

impl AccessLine<'_> {
    /// Its members in a line.
    pub(super) fn fields<S: SerializeStruct>(&self, line: &mut S) -> Result<(), S::Error> {
        line.serialize_field("verdict", self.verdict)?;
        known(line, "errno", &self.errno)?;
        known(line, "object", &self.object)?;
        self.object_flags.field(line, "objectFlags")?;
        known(line, "secondObject", &self.second_object)?;
        self.second_object_flags.field(line, "secondObjectFlags")?;
        known(line, "address", &self.address)?;
        known(line, "port", &self.port)?;
        known(line, "flags", &self.flags)?;
        known(line, "mode", &self.mode)?;
        known(line, "device", &self.device)?;
        known(line, "user", &self.user)?;
        known(line, "group", &self.group)?;
        known(line, "family", &self.family)?;
        known(line, "type", &self.r#type)?;
        known(line, "protocol", &self.protocol)?;
        line.serialize_field("repeats", &self.repeats)?;
        known(line, "repeatsOf", &self.repeats_of)
    }
}

impl Serialize for AccessLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("AccessLine", 2)?;
        self.fields(&mut line)?;
        line.end()
    }
}

/// An access that a line has told.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) cpu: u32,
    pub(crate) sequence: u64,
}

impl<'a> AccessLine<'a> {
    pub(super) fn new(event: &'a AccessEvent) -> AccessLine<'a> {
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
            op::CAPABLE => line.object = Some(capability(first).into()),
            op::SOCKET..=op::SEND => line.set_address(event.address()),
            _ => line.object = Some(text(&event.path)).filter(|path| !path.is_empty()),
        }
        line.second_object = Some(text(&event.second)).filter(|path| !path.is_empty());
        line
    }

    fn set_address(&mut self, address: Option<Address<'a>>) {
        match address {
            Some(Address::Inet(address)) => {
                self.object = Some(address.to_string().into());
                (self.address, self.port) = (Some(address.ip()), Some(address.port()));
            }
            Some(Address::Unix(name)) => self.object = unix(name),
            // Nobody here reads the addresses of other families.
            Some(Address::Other { .. }) | None => {}
        }
    }
}

/// Bytes of an access's texts in any format at most.
pub(super) fn json_bytes(event: &AccessEvent) -> usize {
    /// An object is a resource, and a value in KubeArmor's map, as text and in memory.
    const TIMES: usize = 3;
    /// An address as text, or the name of a capability, is shorter.
    const NAME_BYTES: usize = 64;
    let texts = [&event.path, &event.second, &event.address];
    TIMES * (NAME_BYTES + texts.into_iter().map(|text| json_bytes_of(text)).sum::<usize>())
}

/// The name of a unix socket as `/proc/net/unix` writes it (`net/unix/af_unix.c`, `unix_seq_show`): `@` for the zero byte that an abstract
/// one begins with. Nothing for none.
fn unix(name: &[u8]) -> Option<Cow<'_, str>> {
    match name {
        [] => None,
        [0, rest @ ..] => Some(format!("@{}", text(rest)).into()),
        path => Some(text(path)),
    }
}
