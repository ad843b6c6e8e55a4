//! Numbers of the kernel's interfaces by the names that its headers and manual pages have for them.

use std::borrow::Cow;
use std::fmt;

use portcullis_policy::network::{AF_INET, AF_INET6};
use rustix::fs::{OFlags, RenameFlags};
use serde::{Serialize, Serializer};

/// include/linux/socket.h, by number.
const FAMILIES: [&str; 46] = [
    "AF_UNSPEC",
    "AF_UNIX",
    "AF_INET",
    "AF_AX25",
    "AF_IPX",
    "AF_APPLETALK",
    "AF_NETROM",
    "AF_BRIDGE",
    "AF_ATMPVC",
    "AF_X25",
    "AF_INET6",
    "AF_ROSE",
    "AF_DECnet",
    "AF_NETBEUI",
    "AF_SECURITY",
    "AF_KEY",
    "AF_NETLINK",
    "AF_PACKET",
    "AF_ASH",
    "AF_ECONET",
    "AF_ATMSVC",
    "AF_RDS",
    "AF_SNA",
    "AF_IRDA",
    "AF_PPPOX",
    "AF_WANPIPE",
    "AF_LLC",
    "AF_IB",
    "AF_MPLS",
    "AF_CAN",
    "AF_TIPC",
    "AF_BLUETOOTH",
    "AF_IUCV",
    "AF_RXRPC",
    "AF_ISDN",
    "AF_PHONET",
    "AF_IEEE802154",
    "AF_CAIF",
    "AF_ALG",
    "AF_NFC",
    "AF_VSOCK",
    "AF_KCM",
    "AF_QIPCRTR",
    "AF_SMC",
    "AF_XDP",
    "AF_MCTP",
];

/// include/linux/net.h. Without the flags that socket(2) takes in the same argument: the kernel has removed them by then.
const TYPES: [(u32, &str); 7] = [
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (6, "SOCK_DCCP"),
    (10, "SOCK_PACKET"),
];

/// Those of IP that have sockets, as IANA calls them; 0 is the family's choice and no name.
const PROTOCOLS: [(u32, &str); 9] = [
    (1, "ICMP"),
    (2, "IGMP"),
    (6, "TCP"),
    (17, "UDP"),
    (33, "DCCP"),
    (58, "IPv6-ICMP"),
    (132, "SCTP"),
    (136, "UDPLite"),
    (262, "MPTCP"),
];

/// Errors that security modules answer with, by errno(3) and strerror(3).
const ERRORS: [(u32, &str, &str); 14] = [
    (1, "EPERM", "Operation not permitted"),
    (2, "ENOENT", "No such file or directory"),
    (4, "EINTR", "Interrupted system call"),
    (5, "EIO", "Input/output error"),
    (11, "EAGAIN", "Resource temporarily unavailable"),
    (12, "ENOMEM", "Cannot allocate memory"),
    (13, "EACCES", "Permission denied"),
    (14, "EFAULT", "Bad address"),
    (16, "EBUSY", "Device or resource busy"),
    (18, "EXDEV", "Invalid cross-device link"),
    (22, "EINVAL", "Invalid argument"),
    (30, "EROFS", "Read-only file system"),
    (36, "ENAMETOOLONG", "File name too long"),
    (95, "EOPNOTSUPP", "Operation not supported"),
];

/// include/uapi/asm-generic/fcntl.h. rustix takes `DSYNC` for `O_SYNC`, and has no name for the other.
const O_DSYNC: u32 = 0o10_000;
const O_ASYNC: u32 = 0o20_000;

/// The flags of open(2) besides its mode, in the order in which KubeArmor lists them. `O_LARGEFILE` is not among them: the kernel adds it
/// to every call of a 64-bit program (fs/open.c, `force_o_largefile`). `O_SYNC` and `O_TMPFILE` have the bit of another in them, and stand
/// before it.
const OPEN_FLAGS: [(OFlags, &str); 16] = [
    (OFlags::CREATE, "O_CREAT"),
    (OFlags::EXCL, "O_EXCL"),
    (OFlags::NOCTTY, "O_NOCTTY"),
    (OFlags::TRUNC, "O_TRUNC"),
    (OFlags::APPEND, "O_APPEND"),
    (OFlags::NONBLOCK, "O_NONBLOCK"),
    (OFlags::SYNC, "O_SYNC"),
    (OFlags::from_bits_retain(O_DSYNC), "O_DSYNC"),
    (OFlags::from_bits_retain(O_ASYNC), "O_ASYNC"),
    (OFlags::TMPFILE, "O_TMPFILE"),
    (OFlags::DIRECTORY, "O_DIRECTORY"),
    (OFlags::NOFOLLOW, "O_NOFOLLOW"),
    (OFlags::CLOEXEC, "O_CLOEXEC"),
    (OFlags::DIRECT, "O_DIRECT"),
    (OFlags::NOATIME, "O_NOATIME"),
    (OFlags::PATH, "O_PATH"),
];

const RENAME_FLAGS: [(RenameFlags, &str); 3] = [
    (RenameFlags::NOREPLACE, "RENAME_NOREPLACE"),
    (RenameFlags::EXCHANGE, "RENAME_EXCHANGE"),
    (RenameFlags::WHITEOUT, "RENAME_WHITEOUT"),
];

/// An address family.
pub(super) fn family(number: u32) -> Cow<'static, str> {
    usize::try_from(number).ok().and_then(|at| FAMILIES.get(at)).map_or_else(|| unnamed(number), |name| Cow::Borrowed(name))
}

/// A type of sockets.
pub(super) fn socket_type(number: u32) -> Cow<'static, str> {
    named(&TYPES, number)
}

/// A protocol of a family.
pub(super) fn protocol(family: u32, number: u32) -> Cow<'static, str> {
    let is_ip = [AF_INET, AF_INET6].into_iter().any(|ip| u32::from(ip) == family);
    if is_ip { named(&PROTOCOLS, number) } else { unnamed(number) }
}

fn named(names: &[(u32, &'static str)], number: u32) -> Cow<'static, str> {
    names.iter().find(|(known, _)| *known == number).map_or_else(|| unnamed(number), |(_, name)| Cow::Borrowed(name))
}

/// The name of an error.
pub(super) fn errno(number: u32) -> Cow<'static, str> {
    ERRORS.iter().find(|(known, ..)| *known == number).map_or_else(|| unnamed(number), |(_, name, _)| Cow::Borrowed(name))
}

fn unnamed(number: u32) -> Cow<'static, str> {
    Cow::Owned(number.to_string())
}

/// What strerror(3) says of an error, by its name; nothing of one that has none here.
pub(crate) fn strerror(name: &str) -> Option<&'static str> {
    ERRORS.iter().find(|(_, known, _)| *known == name).map(|(.., text)| *text)
}

/// The flags of an operation, which are written as names joined by `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    /// As of open(2).
    Open(u32),
    /// As of renameat2(2).
    Rename(u32),
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Flags::Open(flags) => {
                let left = OFlags::from_bits_retain(flags) - OFlags::LARGEFILE - OFlags::RWMODE;
                let mode = match OFlags::from_bits_retain(flags) & OFlags::RWMODE {
                    OFlags::WRONLY => "O_WRONLY",
                    OFlags::RDWR => "O_RDWR",
                    // The fourth is for device control alone: it can neither read nor write.
                    OFlags::RWMODE => "O_ACCMODE",
                    _ => "O_RDONLY",
                };
                f.write_str(mode)?;
                joined(f, true, &OPEN_FLAGS.map(|(flag, name)| (flag.bits(), name)), left.bits())
            }
            Flags::Rename(flags) => joined(f, false, &RENAME_FLAGS.map(|(flag, name)| (flag.bits(), name)), flags),
        }
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Those of the flags that are set, and the others as one number; after something else or not.
fn joined(f: &mut fmt::Formatter<'_>, mut is_after: bool, names: &[(u32, &str)], mut left: u32) -> fmt::Result {
    for (flag, name) in names {
        if left & flag == *flag {
            left &= !flag;
            f.write_str(if std::mem::replace(&mut is_after, true) { "|" } else { "" })?;
            f.write_str(name)?;
        }
    }
    match (left, is_after) {
        (0, _) => Ok(()),
        (left, true) => write!(f, "|{left:#x}"),
        (left, false) => write!(f, "{left:#x}"),
    }
}

/// A mode, which is written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Octal(pub(super) u32);

impl fmt::Display for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:o}", self.0)
    }
}

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_flags(flags: u32) -> String {
        Flags::Open(flags).to_string()
    }

    fn bits(flags: OFlags) -> u32 {
        flags.bits()
    }

    #[test]
    fn flags_of_open_are_named_each_once() {
        assert_eq!(open_flags(0), "O_RDONLY");
        assert_eq!(open_flags(bits(OFlags::LARGEFILE | OFlags::CLOEXEC)), "O_RDONLY|O_CLOEXEC");
        let documented = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        assert_eq!(open_flags(bits(documented)), "O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC");
        assert_eq!(open_flags(bits(OFlags::WRONLY | OFlags::SYNC)), "O_WRONLY|O_SYNC", "which has O_DSYNC in it");
        assert_eq!(open_flags(O_DSYNC), "O_RDONLY|O_DSYNC");
        assert_eq!(open_flags(bits(OFlags::RDWR | OFlags::TMPFILE)), "O_RDWR|O_TMPFILE", "which has O_DIRECTORY in it");
        assert_eq!(open_flags(bits(OFlags::DIRECTORY)), "O_RDONLY|O_DIRECTORY");
        assert_eq!(open_flags(3), "O_ACCMODE");
        assert_eq!(open_flags(1 << 31), "O_RDONLY|0x80000000");
    }

    #[test]
    fn flags_of_renames_are_named() {
        assert_eq!(Flags::Rename(5).to_string(), "RENAME_NOREPLACE|RENAME_WHITEOUT");
        assert_eq!(Flags::Rename(0x12).to_string(), "RENAME_EXCHANGE|0x10");
        assert_eq!(Flags::Rename(0x10).to_string(), "0x10");
    }

    #[test]
    fn sockets_are_named_and_what_has_no_name_is_a_number() {
        assert_eq!([family(1), family(10), family(45), family(46)], ["AF_UNIX", "AF_INET6", "AF_MCTP", "46"]);
        assert_eq!([socket_type(1), socket_type(10), socket_type(7)], ["SOCK_STREAM", "SOCK_PACKET", "7"]);
        assert_eq!([protocol(2, 6), protocol(10, 58), protocol(2, 0), protocol(16, 6)], ["TCP", "IPv6-ICMP", "0", "6"]);
    }

    #[test]
    fn errors_are_named_as_the_c_library_names_them() {
        for (number, name, text) in ERRORS {
            let error = std::io::Error::from_raw_os_error(number.cast_signed()).to_string();
            assert_eq!(error, format!("{text} (os error {number})"));
            assert_eq!((&*errno(number), strerror(name)), (name, Some(text)));
        }
        assert_eq!((&*errno(4095), strerror("4095")), ("4095", None));
    }
}
