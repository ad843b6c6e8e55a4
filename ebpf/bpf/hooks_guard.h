/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A contained task gets no descriptor of our maps and programs, however privileged it is. Links can be neither updated nor
 * detached for LSM programs (EINVAL, EOPNOTSUPP), and the file system with the pins is guarded in hooks_file.h.
 */
#ifndef PORTCULLIS_HOOKS_GUARD_H
#define PORTCULLIS_HOOKS_GUARD_H

#include "hooks_mount.h"

/* Names are all that a map and a program have in common with their makers. Who takes ours only hinders himself. */
static __always_inline bool ours(const char *name)
{
	char head[3] = {};

	bpf_probe_read_kernel(head, sizeof(head), name);
	return head[0] == 'p' && head[1] == 'c' && head[2] == '_';
}

SEC("lsm/bpf_map")
int BPF_PROG(pc_bpf_map, struct bpf_map *map)
{
	struct view v;

	if (!view_of_current(&v) || !ours(map->name))
		return 0;
	return refuse(&v, PC_OP_BPF, PC_RULE_GUARD);
}

SEC("lsm/bpf_prog")
int BPF_PROG(pc_bpf_prog, struct bpf_prog *prog)
{
	struct view v;

	if (!view_of_current(&v) || !ours(prog->aux->name))
		return 0;
	return refuse(&v, PC_OP_BPF, PC_RULE_GUARD);
}

/* A borrowed identity would look to pc_capable like the kernel acting on its own: see there. */
SEC("lsm/uring_override_creds")
int BPF_PROG(pc_uring_creds)
{
	struct view v;

	if (!view_of_current(&v) || !(v.set->flags & PC_SET_CAPABILITY))
		return 0;
	return refuse(&v, PC_OP_URING_CREDS, PC_RULE_GUARD);
}

#endif
