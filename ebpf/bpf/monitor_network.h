/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sockets. An address is the kernel's own copy of what the caller gave (net/socket.c, move_addr_to_kernel), or what the kernel
 * has of the socket.
 */
#ifndef PORTCULLIS_MONITOR_NETWORK_H
#define PORTCULLIS_MONITOR_NETWORK_H

#include "kinds.h"
#include "monitor_access.h"

/* struct sockaddr_in6, whose beginning is that of struct sockaddr_in. */
struct inet_address {
	u16 family;
	u16 port; /* big-endian */
	u32 word; /* the address, or the flow label */
	struct in6_addr v6;
	u32 scope;
};
#define PC_MON_INET_BYTES 8u
#define PC_MON_INET6_BYTES 28u

/* The address in the kernel's memory, and how much of it is an address. */
struct address {
	u64 at;
	u32 len;
};

static __always_inline void socket_is_object(struct doing *d, struct sock *sk)
{
	d->key.arg[0] = sk->__sk_common.skc_family;
	d->key.arg[1] = sk->sk_type;
	d->key.arg[2] = sk->sk_protocol;
}

/* What follows the address proper is padding of the caller's choice, and no part of it. */
static __always_inline struct address address_of(u64 at, u32 len)
{
	struct address a = { .at = at, .len = len };
	u16 family = 0;

	if (!at)
		a.len = 0;
	if (a.len >= sizeof(family))
		bpf_probe_read_kernel(&family, sizeof(family), (void *)at);
	if (family == AF_INET_ && a.len > PC_MON_INET_BYTES)
		a.len = PC_MON_INET_BYTES;
	if (family == AF_INET6_ && a.len > PC_MON_INET6_BYTES)
		a.len = PC_MON_INET6_BYTES;
	return a;
}

static __always_inline bool is_inet(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET_ || sk->__sk_common.skc_family == AF_INET6_;
}

/* One end of an inet socket, as the address that getsockname(2) or getpeername(2) gives. */
static __always_inline void end_is_object(struct doing *d, struct sock *sk, bool peer)
{
	struct inet_address *a = (struct inet_address *)d->key.object;

	a->family = sk->__sk_common.skc_family;
	a->port = peer ? sk->__sk_common.skc_dport : __builtin_bswap16(sk->__sk_common.skc_num);
	if (a->family == AF_INET_) {
		a->word = peer ? sk->__sk_common.skc_daddr : sk->__sk_common.skc_rcv_saddr;
		d->key.object_len = PC_MON_INET_BYTES;
	} else if (bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) { /* CONFIG_IPV6 */
		a->v6 = peer ? sk->__sk_common.skc_v6_daddr : sk->__sk_common.skc_v6_rcv_saddr;
		d->key.object_len = PC_MON_INET6_BYTES;
	}
}

/* The name of a unix socket; nothing where it has none (net/unix/af_unix.c, unix_getname). */
static __always_inline struct address unix_name(u64 sk)
{
	struct address a = {};

	if (bpf_core_type_exists(struct unix_sock)) { /* CONFIG_UNIX may be a module */
		u64 name = read_u64(field_address(struct unix_sock, addr, sk));

		if (name) {
			a.at = field_address(struct unix_address, name, name);
			a.len = read_u32(field_address(struct unix_address, len, name));
		}
	}
	return a;
}

/* Long addresses, which only sockets with a path have, are never taken for the same. */
static __always_inline void address_is_object(struct doing *d, struct address a)
{
	u32 len = a.len;

	if (len >= PC_MON_OBJECT_MAX) {
		d->key.object_len = PC_MON_EACH;
		return;
	}
	len = bounded(len, PC_MON_OBJECT_MAX - 1);
	if (bpf_probe_read_kernel(d->key.object, len, (void *)a.at))
		len = 0;
	d->key.object_len = len;
}

/* With the address that lies there, or else with that which is the object. */
static __always_inline void tell_socket(struct doing *d, struct address a, u32 op, int answer)
{
	struct pc_mon_scratch *s;
	u32 len = a.len;

	s = begin(d, op, answer);
	if (!s)
		return;
	if (a.at) {
		if (len > PC_MON_ADDRESS_MAX)
			len = PC_MON_ADDRESS_MAX;
		if (bpf_probe_read_kernel(s->text, bounded(len, 255), (void *)a.at))
			len = 0;
	} else {
		__builtin_memcpy(s->text, d->key.object, PC_MON_OBJECT_MAX);
		len = d->key.object_len;
	}
	s->access.address_len = len;
	s->length = len;
	end(d, s);
}

/* A call that names an address. */
static __always_inline int tell_address(struct socket *sock, u64 at, int len, u32 op, int answer)
{
	struct address a;
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_NETWORK) || !sock->sk)
		return 0;
	a = address_of(at, len > 0 ? len : 0);
	socket_is_object(&d, sock->sk);
	address_is_object(&d, a);
	tell_socket(&d, a, op, answer);
	return 0;
}

SEC("fexit/security_socket_create")
int BPF_PROG(pc_mon_socket, int family, int type, int protocol, int kern, int answer)
{
	struct address none = {};
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_NETWORK) || kern)
		return 0;
	d.key.arg[0] = family;
	d.key.arg[1] = type;
	d.key.arg[2] = protocol;
	tell_socket(&d, none, PC_OP_SOCKET, answer);
	return 0;
}

SEC("fexit/security_socket_connect")
int BPF_PROG(pc_mon_connect, struct socket *sock, void *address, int len, int answer)
{
	return tell_address(sock, (u64)address, len, PC_OP_CONNECT, answer);
}

SEC("fexit/security_socket_bind")
int BPF_PROG(pc_mon_bind, struct socket *sock, void *address, int len, int answer)
{
	return tell_address(sock, (u64)address, len, PC_OP_BIND, answer);
}

/* Only sends that name their peer: what a connected socket sends is no news. */
SEC("fexit/security_socket_sendmsg")
int BPF_PROG(pc_mon_send, struct socket *sock, struct msghdr *msg, int size, int answer)
{
	if (!visible(PC_MON_CLASS_NETWORK) || !msg->msg_name)
		return 0;
	return tell_address(sock, (u64)msg->msg_name, msg->msg_namelen, PC_OP_SEND, answer);
}

SEC("fexit/security_socket_listen")
int BPF_PROG(pc_mon_listen, struct socket *sock, int backlog, int answer)
{
	struct address a = {};
	struct sock *sk;
	struct doing d;

	sk = sock->sk;
	if (!seen(&d, PC_MON_CLASS_NETWORK) || !sk)
		return 0;
	socket_is_object(&d, sk);
	if (is_inet(sk)) {
		end_is_object(&d, sk, false);
	} else if (sk->__sk_common.skc_family == AF_UNIX_) {
		a = unix_name((u64)sk);
		address_is_object(&d, a);
	}
	tell_socket(&d, a, PC_OP_LISTEN, answer);
	return 0;
}

/* When the modules are asked there is no connection yet, and so no peer: only a refusal is told here. */
SEC("fexit/security_socket_accept")
int BPF_PROG(pc_mon_refused, struct socket *sock, struct socket *fresh, int answer)
{
	struct address none = {};
	struct doing d;

	if (!answer || !seen(&d, PC_MON_CLASS_NETWORK) || !sock->sk)
		return 0;
	socket_is_object(&d, sock->sk);
	tell_socket(&d, none, PC_OP_ACCEPT, answer);
	return 0;
}

/*
 * Every protocol's accept ends here, in the context of who accepts, with the connection that it has taken (include/net/sock.h,
 * sock_graft); nothing else does.
 */
SEC("fexit/security_sock_graft")
int BPF_PROG(pc_mon_accept, struct sock *sk)
{
	struct address a = {};
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_NETWORK))
		return 0;
	socket_is_object(&d, sk);
	if (is_inet(sk)) {
		end_is_object(&d, sk, true);
	} else if (sk->__sk_common.skc_family == AF_UNIX_ && bpf_core_type_exists(struct unix_sock)) {
		u64 peer = read_u64(field_address(struct unix_sock, peer, (u64)sk));

		if (peer)
			a = unix_name(peer);
		address_is_object(&d, a);
	}
	tell_socket(&d, a, PC_OP_ACCEPT, 0);
	return 0;
}

#endif
