/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets by kind, and capabilities: one table look-up each. */
#ifndef PORTCULLIS_HOOKS_NET_H
#define PORTCULLIS_HOOKS_NET_H

#include "judge.h"
#include "kinds.h"

/* Looks an entry of the network or capability table up and tells it. Returns 1 to deny. */
static __always_inline int judge_entry(struct view *v, u32 table, u32 row, u32 column, u32 op, u32 a0, u32 a1, u32 a2,
				       bool silent)
{
	struct pc_segment *segment = segment_at(v->set->segment);
	struct pc_scratch *s;
	u32 source, word, verdict;
	u32 id;
	int denied;

	if (orphan(v)) {
		word = PC_BLOCK | PC_RULE_ORPHAN << 16;
	} else {
		if (!segment || !table)
			return 0;
		source = v->task->source < v->set->sources ? v->task->source : 0;
		word = word_at(segment, table + source * row + column);
	}
	verdict = word & 0xff;
	if (verdict < PC_AUDIT)
		return 0;
	if (silent)
		return verdict == PC_BLOCK && !(v->slot->flags & PC_SLOT_AUDITED);
	s = begin(v, &id, op);
	if (!s)
		return 1;
	s->event.arg[0] = a0;
	s->event.arg[1] = a1;
	s->event.arg[2] = a2;
	denied = pc_conclude(id, verdict, word >> 16, 0);
	release(s);
	return denied;
}

static __always_inline int judge_socket(u32 family, u32 type, u32 protocol, u32 op)
{
	struct view v;

	if (!view_of_current(&v) || (!(v.set->flags & PC_SET_NETWORK) && !orphan(&v)))
		return 0;
	if (judge_entry(&v, v.set->network, PC_KINDS, socket_kind(family, type, protocol), op, family, type, protocol, false))
		return -EACCES;
	return 0;
}

static __always_inline int judge_sock(struct socket *sock, u32 op)
{
	struct sock *sk = sock->sk;

	if (!sk)
		return 0;
	return judge_socket(sk->__sk_common.skc_family, sk->sk_type, sk->sk_protocol, op);
}

SEC("lsm/socket_create")
int BPF_PROG(pc_socket_create, int family, int type, int protocol, int kern)
{
	if (kern)
		return 0;
	return judge_socket(family, type, protocol, PC_OP_SOCKET);
}

/* Sockets that were made elsewhere and passed in never met socket_create here: each use that reaches out is judged too. */
SEC("lsm/socket_connect")
int BPF_PROG(pc_socket_connect, struct socket *sock)
{
	return judge_sock(sock, PC_OP_CONNECT);
}

SEC("lsm/socket_bind")
int BPF_PROG(pc_socket_bind, struct socket *sock)
{
	return judge_sock(sock, PC_OP_BIND);
}

SEC("lsm/socket_listen")
int BPF_PROG(pc_socket_listen, struct socket *sock)
{
	return judge_sock(sock, PC_OP_LISTEN);
}

SEC("lsm/socket_accept")
int BPF_PROG(pc_socket_accept, struct socket *sock)
{
	return judge_sock(sock, PC_OP_ACCEPT);
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(pc_socket_sendmsg, struct socket *sock, struct msghdr *msg)
{
	/* Only sends that name their peer: an unconnected datagram, or TCP Fast Open, which connects without connect(2). */
	if (!msg->msg_name && !(msg->msg_flags & MSG_FASTOPEN))
		return 0;
	return judge_sock(sock, PC_OP_SEND);
}

SEC("lsm/capable")
int BPF_PROG(pc_capable, const struct cred *cred, void *ns, int cap, unsigned int opts)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct view v;

	if (!view_of_current(&v) || (!(v.set->flags & PC_SET_CAPABILITY) && !orphan(&v)))
		return 0;
	/*
	 * The kernel acts for the task with credentials that are not the task's own (an overlay copying a file up, access(2)):
	 * that is no use of the task's capability. io_uring personalities could imitate it, see pc_uring_creds.
	 */
	if (task->cred != task->real_cred)
		return 0;
	if (judge_entry(&v, v.set->capabilities, PC_CAPS, cap & (PC_CAPS - 1), PC_OP_CAPABLE, cap, 0, 0,
			opts & CAP_OPT_NOAUDIT))
		return -EPERM;
	return 0;
}

#endif
