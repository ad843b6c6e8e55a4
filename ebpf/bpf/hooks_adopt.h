/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A container that runs already gets its policy, with all its tasks: the ones that the cgroup will label at their next exec are
 * labelled now. Nothing is decided here.
 *
 * The container's root is noted in a pass of its own before its cgroup is armed: else the first task that executes something would
 * give it (label()), and in a container that runs that may be one that has called chroot.
 *
 * The bypass closed: a task that forks while the tasks are visited. Its child inherits the label (task_alloc) unless the parent
 * had none at that moment; then the parent is labelled in this very pass, or was in it. So user space reads the pin again
 * until a pass has labelled nobody: every parent had its label before that pass began.
 */
#ifndef PORTCULLIS_HOOKS_ADOPT_H
#define PORTCULLIS_HOOKS_ADOPT_H

#include "identity.h"

struct ancestry {
	u64 cgroup; /* struct cgroup */
	u64 wanted; /* id */
	u32 found;
};

static long ancestry_step(u32 level, struct ancestry *a)
{
	u64 node, parent;

	if (!a->cgroup)
		return 1;
	node = read_u64(field_address(struct cgroup, kn, a->cgroup));
	if (node && read_u64(field_address(struct kernfs_node, id, node)) == a->wanted) {
		a->found = 1;
		return 1;
	}
	parent = read_u64(field_address(struct cgroup, self.parent, a->cgroup));
	a->cgroup = parent ? parent - bpf_core_field_offset(struct cgroup, self) : 0;
	return 0;
}

static __always_inline bool lives_below(struct task_struct *task, u64 cgroup)
{
	struct ancestry a = { .cgroup = (u64)task->cgroups->dfl_cgrp, .wanted = cgroup };

	bpf_loop(PC_MAX_CGROUP_DEPTH, ancestry_step, &a, 0);
	return a.found;
}

SEC("iter/task")
int pc_adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct pc_task fresh = {};
	struct pc_adoption *a;
	struct pc_slot *slot;
	u32 zero = 0;
	u64 root;

	a = bpf_map_lookup_elem(&pc_adoption, &zero);
	if (!task || !a)
		return 0;
	slot = slot_at(a->slot);
	if (!slot || slot->epoch != a->epoch || task->flags & PF_EXITING)
		return 0;
	root = (u64)task->fs->root.dentry;
	if ((u32)task->tgid == a->init) {
		if (!slot->root)
			slot->root = root;
		a->rooted = 1;
	}
	if (!a->cgroup || !lives_below(task, a->cgroup))
		return 0;
	/* The runtime on its way in: as in label(). */
	if (task->nsproxy->mnt_ns->ns.inum == slot->runtime_mntns || root == slot->runtime_root)
		return 0;
	if (bpf_task_storage_get(&pc_tasks, task, NULL, 0))
		return 0;
	fresh.slot = a->slot;
	fresh.epoch = a->epoch;
	fresh.gen = slot->gen - 1; /* its source class is found at its next decision */
	if (!bpf_task_storage_get(&pc_tasks, task, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE)) {
		a->failed += 1;
		return 0;
	}
	a->labelled += 1;
	return 0;
}

/*
 * Which labels tasks have: what user space has to know before it gives a slot to another container. They are looked at and not
 * counted at births and ends: where tracepoints can be preempted (Linux 7), the kernel skips their programs for some of these.
 *
 * A child is born with its label before it is in the list, and its parent is in the list until it is. User space reads twice: a task
 * that was born during the first pass is there during the second.
 */
SEC("iter/task")
int pc_labels(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct pc_label label;
	struct pc_task *t;

	if (!task || task->flags & PF_EXITING)
		return 0;
	t = bpf_task_storage_get(&pc_tasks, task, NULL, 0);
	if (!t)
		return 0;
	label.slot = t->slot;
	label.epoch = t->epoch;
	bpf_seq_write(ctx->meta->seq, &label, sizeof(label)); /* without room it is asked for again (kernel/bpf/bpf_iter.c) */
	return 0;
}

#endif
