//! Numbers of the kernel's interfaces by the names that its headers and manual pages have for them.

use portcullis_policy::network::{AF_INET, AF_INET6};
use rustix::fs::{OFlags, RenameFlags};

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
pub(super) fn family(number: u32) -> String {
    usize::try_from(number).ok().and_then(|at| FAMILIES.get(at)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// A type of sockets.
pub(super) fn socket_type(number: u32) -> String {
    named(&TYPES, number)
}

/// A protocol of a family.
pub(super) fn protocol(family: u32, number: u32) -> String {
    let is_ip = [AF_INET, AF_INET6].into_iter().any(|ip| u32::from(ip) == family);
    if is_ip { named(&PROTOCOLS, number) } else { number.to_string() }
}

fn named(names: &[(u32, &str)], number: u32) -> String {
    names.iter().find(|(known, _)| *known == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The name of an error.
pub(super) fn errno(number: u32) -> String {
    let known = ERRORS.iter().find(|(known, ..)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name, _)| (*name).to_owned())
}

/// What strerror(3) says of an error, by its name; nothing of one that has none here.
pub(crate) fn strerror(name: &str) -> Option<&'static str> {
    ERRORS.iter().find(|(_, known, _)| *known == name).map(|(.., text)| *text)
}

/// Flags as of open(2).
pub(super) fn open_flags(flags: u32) -> String {
    let mut left = OFlags::from_bits_retain(flags) - OFlags::LARGEFILE - OFlags::RWMODE;
    let mode = match OFlags::from_bits_retain(flags) & OFlags::RWMODE {
        OFlags::WRONLY => "O_WRONLY",
        OFlags::RDWR => "O_RDWR",
        // The fourth is for device control alone: it can neither read nor write.
        OFlags::RWMODE => "O_ACCMODE",
        _ => "O_RDONLY",
    };
    let mut names = vec![mode.to_owned()];
    for (flag, name) in OPEN_FLAGS {
        if left.contains(flag) {
            left -= flag;
            names.push(name.to_owned());
        }
    }
    joined(names, left.bits())
}

/// Flags as of renameat2(2); nothing where there is none.
pub(super) fn rename_flags(flags: u32) -> Option<String> {
    let mut left = RenameFlags::from_bits_retain(flags);
    let mut names = Vec::new();
    for (flag, name) in RENAME_FLAGS {
        if left.contains(flag) {
            left -= flag;
            names.push(name.to_owned());
        }
    }
    Some(joined(names, left.bits())).filter(|text| !text.is_empty())
}

fn joined(mut names: Vec<String>, unknown: u32) -> String {
    if unknown != 0 {
        names.push(format!("{unknown:#x}"));
    }
    names.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn flags_of_renames_are_absent_where_there_is_none() {
        assert_eq!(rename_flags(0), None);
        assert_eq!(rename_flags(5).as_deref(), Some("RENAME_NOREPLACE|RENAME_WHITEOUT"));
        assert_eq!(rename_flags(0x12).as_deref(), Some("RENAME_EXCHANGE|0x10"));
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
            assert_eq!((errno(number).as_str(), strerror(name)), (name, Some(text)));
        }
        assert_eq!((errno(4095), strerror("4095")), ("4095".to_owned(), None));
    }
}
