//! Sockets: the protocols that a policy can name, and the kinds of socket that these tell apart.
//!
//! The kernel's tables have one column per [`SocketKind`], so a protocol may depend on nothing else of a socket. The
//! function is here and, the same, in `ebpf/bpf` as `pc_socket_kind`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Address families, as in `linux/socket.h`.
pub const AF_UNIX: u16 = 1;
/// See [`AF_UNIX`].
pub const AF_INET: u16 = 2;
/// See [`AF_UNIX`].
pub const AF_INET6: u16 = 10;
/// See [`AF_UNIX`].
pub const AF_NETLINK: u16 = 16;
/// See [`AF_UNIX`].
pub const AF_PACKET: u16 = 17;
/// See [`AF_UNIX`]. Its sockets are TCP connections that may turn to shared memory.
pub const AF_SMC: u16 = 43;

/// Socket types, as in `linux/net.h`.
pub const SOCK_STREAM: u16 = 1;
/// See [`SOCK_STREAM`].
pub const SOCK_DGRAM: u16 = 2;
/// See [`SOCK_STREAM`].
pub const SOCK_RAW: u16 = 3;
/// See [`SOCK_STREAM`].
pub const SOCK_RDM: u16 = 4;
/// See [`SOCK_STREAM`].
pub const SOCK_SEQPACKET: u16 = 5;
/// See [`SOCK_STREAM`].
pub const SOCK_DCCP: u16 = 6;

const IPPROTO_ICMP: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_DCCP: u16 = 33;
const IPPROTO_ICMPV6: u16 = 58;
const IPPROTO_SCTP: u16 = 132;
const IPPROTO_UDPLITE: u16 = 136;
const IPPROTO_SMC: u16 = 256;
const IPPROTO_MPTCP: u16 = 262;

/// A socket, as `socket(2)` is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Socket {
    /// `AF_*`
    pub family: u16,
    /// `SOCK_*`, without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
    pub kind: u16,
    /// The protocol; 0 is the family's choice.
    pub protocol: u16,
}

/// What `matchProtocols[].protocol` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP and what falls back to it (MPTCP, SMC), over IPv4 or IPv6.
    Tcp,
    /// UDP and UDP-Lite, over IPv4 or IPv6.
    Udp,
    /// ICMP over IPv4: ping sockets and raw ones.
    Icmp,
    /// ICMP over IPv6: ping sockets and raw ones.
    Icmpv6,
    /// SCTP, one-to-one and one-to-many. A raw IP socket of protocol 132 is [`Protocol::Raw`].
    Sctp,
    /// DCCP.
    Dccp,
    /// `SOCK_RAW` of IPv4, IPv6 and packet sockets.
    Raw,
    /// Packet sockets.
    Packet,
    /// `SOCK_STREAM` of every family but netlink.
    Stream,
    /// `SOCK_DGRAM` of every family but netlink.
    Dgram,
    /// `SOCK_SEQPACKET` of every family but netlink.
    SeqPacket,
    /// `SOCK_RDM` of every family but netlink.
    Rdm,
    /// Everything but Unix and netlink sockets.
    All,
}

/// The text names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no protocol; known are {list}", list = Protocol::ALL.map(Protocol::name).join(", "))]
pub struct UnknownProtocol(pub String);

impl Protocol {
    /// All there are.
    pub const ALL: [Protocol; 13] = [
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Icmp,
        Protocol::Icmpv6,
        Protocol::Sctp,
        Protocol::Dccp,
        Protocol::Raw,
        Protocol::Packet,
        Protocol::Stream,
        Protocol::Dgram,
        Protocol::SeqPacket,
        Protocol::Rdm,
        Protocol::All,
    ];

    /// Whether a rule on this protocol speaks of such a socket.
    pub fn covers(self, socket: Socket) -> bool {
        self.covers_kind(SocketKind::of(socket))
    }

    /// [`Protocol::covers`], for those that have the kind.
    pub fn covers_kind(self, kind: SocketKind) -> bool {
        use SocketKind as K;
        match self {
            Protocol::Tcp => matches!(kind, K::Tcp),
            Protocol::Udp => matches!(kind, K::Udp),
            Protocol::Icmp => matches!(kind, K::IcmpDgram | K::IcmpRaw),
            Protocol::Icmpv6 => matches!(kind, K::Icmpv6Dgram | K::Icmpv6Raw),
            Protocol::Sctp => matches!(kind, K::SctpStream | K::SctpSeqPacket),
            Protocol::Dccp => matches!(kind, K::Dccp),
            Protocol::Raw => matches!(kind, K::IcmpRaw | K::Icmpv6Raw | K::InetRaw | K::PacketRaw),
            Protocol::Packet => matches!(kind, K::PacketRaw | K::PacketDgram),
            Protocol::Stream => matches!(kind, K::UnixStream | K::Tcp | K::SctpStream | K::OtherStream),
            Protocol::Dgram => {
                matches!(kind, K::UnixDgram | K::Udp | K::IcmpDgram | K::Icmpv6Dgram | K::PacketDgram | K::OtherDgram)
            }
            Protocol::SeqPacket => matches!(kind, K::UnixSeqPacket | K::SctpSeqPacket | K::OtherSeqPacket),
            Protocol::Rdm => matches!(kind, K::OtherRdm),
            Protocol::All => kind.has_posture(),
        }
    }

    /// As policies write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::Icmpv6 => "icmpv6",
            Protocol::Sctp => "sctp",
            Protocol::Dccp => "dccp",
            Protocol::Raw => "raw",
            Protocol::Packet => "packet",
            Protocol::Stream => "stream",
            Protocol::Dgram => "dgram",
            Protocol::SeqPacket => "seqpacket",
            Protocol::Rdm => "rdm",
            Protocol::All => "all",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// In any letter case.
    fn from_str(text: &str) -> Result<Protocol, UnknownProtocol> {
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

/// The kinds of socket that protocols tell apart. The values are those of `enum pc_kind` in `ebpf/bpf/abi.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SocketKind {
    /// `AF_UNIX`, `SOCK_STREAM`.
    UnixStream = 0,
    /// `AF_UNIX`, `SOCK_DGRAM`; and `SOCK_RAW`, which `unix_create` makes a datagram socket.
    UnixDgram,
    /// `AF_UNIX`, `SOCK_SEQPACKET`.
    UnixSeqPacket,
    /// `AF_NETLINK`.
    Netlink,
    /// IP, `SOCK_STREAM`, protocol 0, TCP, MPTCP or SMC; and `AF_SMC`, which falls back to TCP.
    Tcp,
    /// IP, `SOCK_DGRAM`, protocol 0, UDP or UDP-Lite.
    Udp,
    /// IPv4, `SOCK_DGRAM`, ICMP.
    IcmpDgram,
    /// IPv4, `SOCK_RAW`, ICMP.
    IcmpRaw,
    /// IPv6, `SOCK_DGRAM`, ICMPv6.
    Icmpv6Dgram,
    /// IPv6, `SOCK_RAW`, ICMPv6.
    Icmpv6Raw,
    /// IP, `SOCK_STREAM`, SCTP.
    SctpStream,
    /// IP, `SOCK_SEQPACKET`, whose only protocol is SCTP.
    SctpSeqPacket,
    /// IP, `SOCK_DCCP` or protocol DCCP.
    Dccp,
    /// Every other `SOCK_RAW` of IP.
    InetRaw,
    /// `AF_PACKET`, other than `SOCK_DGRAM`: so `SOCK_PACKET` too, which sees link headers just as well.
    PacketRaw,
    /// `AF_PACKET`, `SOCK_DGRAM`.
    PacketDgram,
    /// `SOCK_STREAM` of everything else.
    OtherStream,
    /// `SOCK_DGRAM` of everything else.
    OtherDgram,
    /// `SOCK_RAW` of everything else.
    OtherRaw,
    /// `SOCK_RDM` of everything else.
    OtherRdm,
    /// `SOCK_SEQPACKET` of everything else.
    OtherSeqPacket,
    /// What remains.
    Other,
}

impl SocketKind {
    /// All there are, each at the index that is its value.
    pub const ALL: [SocketKind; 22] = [
        SocketKind::UnixStream,
        SocketKind::UnixDgram,
        SocketKind::UnixSeqPacket,
        SocketKind::Netlink,
        SocketKind::Tcp,
        SocketKind::Udp,
        SocketKind::IcmpDgram,
        SocketKind::IcmpRaw,
        SocketKind::Icmpv6Dgram,
        SocketKind::Icmpv6Raw,
        SocketKind::SctpStream,
        SocketKind::SctpSeqPacket,
        SocketKind::Dccp,
        SocketKind::InetRaw,
        SocketKind::PacketRaw,
        SocketKind::PacketDgram,
        SocketKind::OtherStream,
        SocketKind::OtherDgram,
        SocketKind::OtherRaw,
        SocketKind::OtherRdm,
        SocketKind::OtherSeqPacket,
        SocketKind::Other,
    ];

    /// The kind of a socket.
    ///
    /// Protocol 0 is the kind of the protocol that `inet_create` would choose, so that a socket is of one kind whether its
    /// creation is looked at, where the caller's 0 is seen, or its use, where the choice is.
    pub fn of(socket: Socket) -> SocketKind {
        let Socket { family, kind, protocol } = socket;
        match (family, kind) {
            (AF_UNIX, SOCK_STREAM) => SocketKind::UnixStream,
            (AF_UNIX, SOCK_SEQPACKET) => SocketKind::UnixSeqPacket,
            (AF_UNIX, _) => SocketKind::UnixDgram,
            (AF_NETLINK, _) => SocketKind::Netlink,
            (AF_INET | AF_INET6, SOCK_RAW) => match (family, protocol) {
                (AF_INET, IPPROTO_ICMP) => SocketKind::IcmpRaw,
                (AF_INET6, IPPROTO_ICMPV6) => SocketKind::Icmpv6Raw,
                _ => SocketKind::InetRaw,
            },
            (AF_INET | AF_INET6, SOCK_DCCP) => SocketKind::Dccp,
            (AF_INET | AF_INET6, SOCK_SEQPACKET) => SocketKind::SctpSeqPacket,
            (AF_INET | AF_INET6, _) if protocol == IPPROTO_DCCP => SocketKind::Dccp,
            (AF_INET | AF_INET6, SOCK_STREAM) => match protocol {
                0 | IPPROTO_TCP | IPPROTO_MPTCP | IPPROTO_SMC => SocketKind::Tcp,
                IPPROTO_SCTP => SocketKind::SctpStream,
                _ => SocketKind::OtherStream,
            },
            (AF_INET | AF_INET6, SOCK_DGRAM) => match (family, protocol) {
                (_, 0 | IPPROTO_UDP | IPPROTO_UDPLITE) => SocketKind::Udp,
                (AF_INET, IPPROTO_ICMP) => SocketKind::IcmpDgram,
                (AF_INET6, IPPROTO_ICMPV6) => SocketKind::Icmpv6Dgram,
                _ => SocketKind::OtherDgram,
            },
            (AF_PACKET, SOCK_DGRAM) => SocketKind::PacketDgram,
            (AF_PACKET, _) => SocketKind::PacketRaw,
            (AF_SMC, SOCK_STREAM) => SocketKind::Tcp,
            (_, SOCK_STREAM) => SocketKind::OtherStream,
            (_, SOCK_DGRAM) => SocketKind::OtherDgram,
            (_, SOCK_RAW) => SocketKind::OtherRaw,
            (_, SOCK_RDM) => SocketKind::OtherRdm,
            (_, SOCK_SEQPACKET) => SocketKind::OtherSeqPacket,
            _ => SocketKind::Other,
        }
    }

    /// Some socket of this kind.
    pub fn example(self) -> Socket {
        /// Any family that is none of the above; `AF_VSOCK`.
        const OTHER: u16 = 40;
        let (family, kind, protocol) = match self {
            SocketKind::UnixStream => (AF_UNIX, SOCK_STREAM, 0),
            SocketKind::UnixDgram => (AF_UNIX, SOCK_DGRAM, 0),
            SocketKind::UnixSeqPacket => (AF_UNIX, SOCK_SEQPACKET, 0),
            SocketKind::Netlink => (AF_NETLINK, SOCK_RAW, 0),
            SocketKind::Tcp => (AF_INET, SOCK_STREAM, 0),
            SocketKind::Udp => (AF_INET, SOCK_DGRAM, 0),
            SocketKind::IcmpDgram => (AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
            SocketKind::IcmpRaw => (AF_INET, SOCK_RAW, IPPROTO_ICMP),
            SocketKind::Icmpv6Dgram => (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6),
            SocketKind::Icmpv6Raw => (AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
            SocketKind::SctpStream => (AF_INET, SOCK_STREAM, IPPROTO_SCTP),
            SocketKind::SctpSeqPacket => (AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP),
            SocketKind::Dccp => (AF_INET, SOCK_DCCP, IPPROTO_DCCP),
            SocketKind::InetRaw => (AF_INET, SOCK_RAW, IPPROTO_TCP),
            SocketKind::PacketRaw => (AF_PACKET, SOCK_RAW, 0),
            SocketKind::PacketDgram => (AF_PACKET, SOCK_DGRAM, 0),
            SocketKind::OtherStream => (OTHER, SOCK_STREAM, 0),
            SocketKind::OtherDgram => (OTHER, SOCK_DGRAM, 0),
            SocketKind::OtherRaw => (OTHER, SOCK_RAW, 0),
            SocketKind::OtherRdm => (OTHER, SOCK_RDM, 0),
            SocketKind::OtherSeqPacket => (OTHER, SOCK_SEQPACKET, 0),
            SocketKind::Other => (OTHER, SOCK_DCCP, 0),
        };
        Socket { family, kind, protocol }
    }

    /// Whether the default posture of an allow-list judges such sockets. Unix and netlink sockets are how libraries talk to
    /// their own host (name service, syslog, interface lists); "only TCP" has never meant to take these away.
    pub fn has_posture(self) -> bool {
        !matches!(self, SocketKind::UnixStream | SocketKind::UnixDgram | SocketKind::UnixSeqPacket | SocketKind::Netlink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_socket() -> impl Strategy<Value = Socket> {
        let family = prop_oneof![Just(AF_UNIX), Just(AF_INET), Just(AF_INET6), Just(AF_NETLINK), Just(AF_PACKET), 0u16..50];
        let protocol = prop_oneof![
            Just(0u16),
            Just(1),
            Just(6),
            Just(17),
            Just(33),
            Just(58),
            Just(132),
            Just(136),
            250u16..270,
            any::<u16>()
        ];
        (family, 0u16..12, protocol).prop_map(|(family, kind, protocol)| Socket { family, kind, protocol })
    }

    proptest! {
        #[test]
        fn a_protocol_depends_on_nothing_but_the_kind(socket in any_socket()) {
            let same_kind = SocketKind::of(socket).example();
            for protocol in Protocol::ALL {
                prop_assert_eq!(protocol.covers(socket), protocol.covers(same_kind));
            }
        }

        #[test]
        fn no_protocol_covers_netlink(kind in 0u16..12, protocol in any::<u16>()) {
            let netlink = Socket { family: AF_NETLINK, kind, protocol };
            prop_assert!(Protocol::ALL.iter().all(|rule| !rule.covers(netlink)));
        }

        #[test]
        fn tcp_udp_raw_and_all_never_cover_unix(kind in 0u16..12, protocol in any::<u16>()) {
            let unix = Socket { family: AF_UNIX, kind, protocol };
            for rule in [Protocol::Tcp, Protocol::Udp, Protocol::Raw, Protocol::All] {
                prop_assert!(!rule.covers(unix));
            }
        }
    }

    #[test]
    fn kinds_and_their_examples_agree() {
        for (value, kind) in SocketKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, value);
            assert_eq!(SocketKind::of(kind.example()), kind);
        }
    }

    #[test]
    fn a_default_protocol_is_the_kind_that_the_kernel_chooses() {
        for family in [AF_INET, AF_INET6] {
            for (kind, chosen) in [(SOCK_STREAM, 6), (SOCK_DGRAM, 17), (SOCK_SEQPACKET, 132), (SOCK_DCCP, 33)] {
                let asked = SocketKind::of(Socket { family, kind, protocol: 0 });
                assert_eq!(asked, SocketKind::of(Socket { family, kind, protocol: chosen }));
            }
        }
    }

    #[test]
    fn mptcp_and_smc_are_no_way_around_tcp() {
        for (family, protocol) in
            [(AF_INET, IPPROTO_MPTCP), (AF_INET6, IPPROTO_MPTCP), (AF_INET, IPPROTO_SMC), (AF_SMC, 0), (AF_SMC, 1)]
        {
            assert!(Protocol::Tcp.covers(Socket { family, kind: SOCK_STREAM, protocol }));
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_others_refused_with_a_list() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.name().parse(), Ok(protocol));
            assert_eq!(protocol.name().to_uppercase().parse(), Ok(protocol));
        }
        let error = "http".parse::<Protocol>().unwrap_err().to_string();
        assert!(error.contains("`http`") && error.contains("tcp, udp"), "{error}");
    }
}
