//! The network rules of a profile.
//!
//! The kernel asks AppArmor about the family and the type of a socket and not about its protocol (`aa_af_perm` in
//! `security/apparmor/net.c`). A family and type are judged as the socket that protocol 0 would make there, so `inet stream` is TCP and
//! `inet dgram` UDP; raw sockets, which have no such default, as the strictest that there is among them.

use portcullis_policy::decide::{Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::{Object, RuleSet};
use portcullis_policy::network::{AF_INET, AF_INET6, SOCK_RAW, Socket, SocketKind};

use super::Shortfall;
use super::paths::Effect;

/// The families that the parser has words for, with their numbers in `linux/socket.h`.
const FAMILIES: &[(&str, u16)] = &[
    ("unix", 1),
    ("inet", AF_INET),
    ("ax25", 3),
    ("ipx", 4),
    ("appletalk", 5),
    ("netrom", 6),
    ("bridge", 7),
    ("atmpvc", 8),
    ("x25", 9),
    ("inet6", AF_INET6),
    ("rose", 11),
    ("netbeui", 13),
    ("security", 14),
    ("key", 15),
    ("netlink", 16),
    ("packet", 17),
    ("ash", 18),
    ("econet", 19),
    ("atmsvc", 20),
    ("rds", 21),
    ("sna", 22),
    ("irda", 23),
    ("pppox", 24),
    ("wanpipe", 25),
    ("llc", 26),
    ("ib", 27),
    ("mpls", 28),
    ("can", 29),
    ("tipc", 30),
    ("bluetooth", 31),
    ("iucv", 32),
    ("rxrpc", 33),
    ("isdn", 34),
    ("phonet", 35),
    ("ieee802154", 36),
    ("caif", 37),
    ("alg", 38),
    ("nfc", 39),
    ("vsock", 40),
    ("kcm", 41),
    ("qipcrtr", 42),
    ("smc", 43),
    ("xdp", 44),
];

/// The types that the parser has words for, with their numbers in `linux/net.h`. DCCP's is not among them.
const TYPES: &[(&str, u16)] = &[("stream", 1), ("dgram", 2), ("raw", SOCK_RAW), ("rdm", 4), ("seqpacket", 5), ("packet", 10)];

/// The number of a family by the word that AppArmor has for it, in profiles and in what it tells.
#[must_use]
pub fn socket_family(word: &[u8]) -> Option<u16> {
    FAMILIES.iter().find(|(name, _)| name.as_bytes() == word).map(|(_, number)| *number)
}

/// The same of a type.
#[must_use]
pub fn socket_type(word: &[u8]) -> Option<u16> {
    TYPES.iter().find(|(name, _)| name.as_bytes() == word).map(|(_, number)| *number)
}

/// Protocols that make a raw IP socket of some kind: ICMP, ICMPv6, and any other.
const RAW_PROTOCOLS: &[u16] = &[1, 58, 255];

/// One line: what is done, and with which sockets. An empty `sockets` is all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkRule {
    pub(super) effect: Effect,
    pub(super) sockets: String,
}

/// The network rules for a subject.
pub(super) fn rules(set: &RuleSet, exe: Option<&[u8]>, audited: bool) -> Vec<NetworkRule> {
    let judged = |kind: SocketKind| verdict(set, exe, kind, audited);
    if SocketKind::ALL.into_iter().all(|kind| judged(kind) == Verdict::Allow) {
        return vec![NetworkRule { effect: Effect::Allow, sockets: String::new() }];
    }
    // DCCP has no word of its own: it is allowed with all there is, or not at all.
    let listed = judged(SocketKind::Dccp) == Verdict::Block;
    let mut rules = Vec::new();
    if !listed {
        rules.push(NetworkRule { effect: Effect::Allow, sockets: String::new() });
    }
    let effect = |verdict: Verdict| match verdict {
        Verdict::Allow => listed.then_some(Effect::Allow),
        Verdict::Audit => Some(Effect::Audit),
        Verdict::Block => (!listed).then_some(Effect::Deny),
    };
    for &(family, number) in FAMILIES {
        let of_type = |&(_, kind): &(&str, u16)| {
            let socket = |protocol| SocketKind::of(Socket { family: number, kind, protocol });
            let protocols = if kind == SOCK_RAW { RAW_PROTOCOLS } else { &[0] };
            protocols.iter().map(|&protocol| judged(socket(protocol))).max().unwrap_or(Verdict::Block)
        };
        let verdicts: Vec<Verdict> = TYPES.iter().map(of_type).collect();
        let mut add = |verdict: Verdict, sockets: String| {
            rules.extend(effect(verdict).map(|effect| NetworkRule { effect, sockets }));
        };
        if verdicts.iter().all(|verdict| *verdict == verdicts[0]) {
            add(verdicts[0], family.to_owned());
        } else {
            TYPES.iter().zip(verdicts).for_each(|((name, _), verdict)| add(verdict, format!("{family} {name}")));
        }
    }
    rules
}

fn verdict(set: &RuleSet, exe: Option<&[u8]>, kind: SocketKind, audited: bool) -> Verdict {
    let subject = Subject { exe, owner: false };
    match decide(set, &subject, &Operation::Socket(kind.example())).verdict {
        Verdict::Block if audited => Verdict::Audit,
        verdict => verdict,
    }
}

/// What rules say of sockets that AppArmor cannot tell from others, for a subject.
pub(super) fn shortfalls(set: &RuleSet, exe: Option<&[u8]>) -> Vec<Shortfall> {
    use SocketKind as K;
    let judged = |kind: K| verdict(set, exe, kind, false);
    let mut shortfalls = Vec::new();
    let mut compare = |kind: K, name: &str, other: K, others: &str, done: Verdict| {
        if judged(kind) == done {
            return;
        }
        let done = match done {
            Verdict::Allow => "let through in silence",
            Verdict::Audit => "let through and reported",
            Verdict::Block => "denied",
        };
        let reason = format!("AppArmor cannot tell {name} from {others}: both are {done}");
        let covers = |object: &Object| matches!(object, Object::Protocol(protocol) if protocol.covers_kind(kind) || protocol.covers_kind(other));
        let rules = set.rules.iter().enumerate().filter(|(_, rule)| rule.objects.iter().any(covers));
        shortfalls.extend(rules.map(|(rule, _)| Shortfall { rule, reason: reason.clone() }));
    };
    compare(K::IcmpDgram, "ICMP's datagram sockets", K::Udp, "UDP's", judged(K::Udp));
    compare(K::Icmpv6Dgram, "ICMPv6's datagram sockets", K::Udp, "UDP's", judged(K::Udp));
    compare(K::SctpStream, "SCTP's stream sockets", K::Tcp, "TCP's", judged(K::Tcp));
    let strictest = |kind: K| judged(kind).max(judged(K::InetRaw));
    for (icmp, name) in [(K::IcmpRaw, "ICMP's raw sockets"), (K::Icmpv6Raw, "ICMPv6's raw sockets")] {
        compare(icmp, name, K::InetRaw, "other raw sockets", strictest(icmp));
        compare(K::InetRaw, "other raw sockets", icmp, name, strictest(icmp));
    }
    if judged(K::Dccp) == Verdict::Audit {
        compare(K::Dccp, "DCCP's sockets", K::Dccp, "those that no rule names", Verdict::Allow);
    }
    shortfalls
}
