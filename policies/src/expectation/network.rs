//! The names of socket families and types, as cases write them. A number will do for what has no name here.

use crate::network::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_SMC, AF_UNIX, SOCK_DCCP, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET,
    SOCK_STREAM,
};

pub(super) const FAMILIES: [(&str, u16); 9] = [
    ("unix", AF_UNIX),
    ("inet", AF_INET),
    ("inet6", AF_INET6),
    ("netlink", AF_NETLINK),
    ("packet", AF_PACKET),
    ("alg", 38),
    ("vsock", 40),
    ("smc", AF_SMC),
    ("xdp", 44),
];

pub(super) const TYPES: [(&str, u16); 6] = [
    ("stream", SOCK_STREAM),
    ("dgram", SOCK_DGRAM),
    ("raw", SOCK_RAW),
    ("rdm", SOCK_RDM),
    ("seqpacket", SOCK_SEQPACKET),
    ("dccp", SOCK_DCCP),
];

pub(super) const PROTOCOLS: [(&str, u16); 9] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
    ("smc", 256),
    ("mptcp", 262),
];
