/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kind of a socket: the twin of SocketKind::of in policies/src/network.rs. Plain C that a host compiler takes too, so that
 * ebpf/tests/kinds.rs can compare the two over every family, type and protocol.
 */
#ifndef PORTCULLIS_KINDS_H
#define PORTCULLIS_KINDS_H

#include "abi.h"

enum { AF_UNIX_ = 1, AF_INET_ = 2, AF_INET6_ = 10, AF_NETLINK_ = 16, AF_PACKET_ = 17, AF_SMC_ = 43 };
enum { STREAM_ = 1, DGRAM_ = 2, RAW_ = 3, RDM_ = 4, SEQPACKET_ = 5, DCCP_ = 6 };
enum {
	PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_DCCP = 33, PROTO_ICMPV6 = 58, PROTO_SCTP = 132, PROTO_UDPLITE = 136,
	PROTO_SMC = 256, PROTO_MPTCP = 262,
};

static inline __attribute__((always_inline)) unsigned int other_kind(unsigned int type)
{
	if (type == STREAM_)
		return PC_KIND_OTHER_STREAM;
	if (type == DGRAM_)
		return PC_KIND_OTHER_DGRAM;
	if (type == RAW_)
		return PC_KIND_OTHER_RAW;
	if (type == RDM_)
		return PC_KIND_OTHER_RDM;
	if (type == SEQPACKET_)
		return PC_KIND_OTHER_SEQPACKET;
	return PC_KIND_OTHER;
}

static inline __attribute__((always_inline)) unsigned int inet_kind(unsigned int family, unsigned int type, unsigned int protocol)
{
	int icmp = family == AF_INET_ && protocol == PROTO_ICMP;
	int icmpv6 = family == AF_INET6_ && protocol == PROTO_ICMPV6;

	if (type == RAW_) {
		if (icmp)
			return PC_KIND_ICMP_RAW;
		return icmpv6 ? PC_KIND_ICMPV6_RAW : PC_KIND_INET_RAW;
	}
	if (type == DCCP_)
		return PC_KIND_DCCP;
	if (type == SEQPACKET_) /* SCTP is the one protocol of IP that has it */
		return PC_KIND_SCTP_SEQPACKET;
	if (protocol == PROTO_DCCP)
		return PC_KIND_DCCP;
	if (type == STREAM_) {
		if (protocol == 0 || protocol == PROTO_TCP || protocol == PROTO_MPTCP || protocol == PROTO_SMC)
			return PC_KIND_TCP;
		return protocol == PROTO_SCTP ? PC_KIND_SCTP_STREAM : PC_KIND_OTHER_STREAM;
	}
	if (type == DGRAM_) {
		if (protocol == 0 || protocol == PROTO_UDP || protocol == PROTO_UDPLITE)
			return PC_KIND_UDP;
		if (icmp)
			return PC_KIND_ICMP_DGRAM;
		return icmpv6 ? PC_KIND_ICMPV6_DGRAM : PC_KIND_OTHER_DGRAM;
	}
	return other_kind(type);
}

static inline __attribute__((always_inline)) unsigned int socket_kind(unsigned int family, unsigned int type, unsigned int protocol)
{
	if (family == AF_UNIX_) {
		if (type == STREAM_)
			return PC_KIND_UNIX_STREAM;
		return type == SEQPACKET_ ? PC_KIND_UNIX_SEQPACKET : PC_KIND_UNIX_DGRAM;
	}
	if (family == AF_NETLINK_)
		return PC_KIND_NETLINK;
	if (family == AF_INET_ || family == AF_INET6_)
		return inet_kind(family, type, protocol);
	if (family == AF_PACKET_)
		return type == DGRAM_ ? PC_KIND_PACKET_DGRAM : PC_KIND_PACKET_RAW;
	if (family == AF_SMC_ && type == STREAM_) /* falls back to TCP with any peer that does not speak it */
		return PC_KIND_TCP;
	return other_kind(type);
}

#endif
