/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What an access goes through: is it visible, was the same told a moment ago, and only then is it written out.
 *
 * All of its programs run when a function security_x() returns, which the kernel calls at the point where it asks its security modules
 * (fexit, a trampoline at the function itself). So they work where BPF is no active module, see what the kernel has copied and
 * resolved and never a caller's memory, and know the answer: what enforcement or AppArmor denied is told with its error. The
 * functions are called from other files than security/security.c, where they are, so no compiler has inlined them.
 * What file permissions deny before the modules are asked is not told; nor is what fails after they agreed told as failed.
 */
#ifndef PORTCULLIS_MONITOR_ACCESS_H
#define PORTCULLIS_MONITOR_ACCESS_H

#include "abi.h"
#include "monitor_path.h"
#include "monitor_see.h"

/* Not the object's length: each such access is told. */
#define PC_MON_EACH 0xffffffffu

/* An access on its way. The key is all that makes two of them the same. */
struct doing {
	struct pc_mon_repeat key;
	struct pc_mon_config *cfg;
	struct task_struct *task;
	struct pc_task *label;
	struct pc_mon_repeated *told; /* when the same was told before */
	u64 now;
};

/* Whether this class is told of the current task. */
static __always_inline bool seen(struct doing *d, u32 class)
{
	d->cfg = visible(class);
	if (!d->cfg)
		return false;
	d->task = bpf_get_current_task_btf();
	if (d->task->flags & PF_KTHREAD)
		return false;
	d->label = bpf_task_storage_get(&pc_tasks, d->task, NULL, 0);
	if (!(classes_of(d->cfg, d->task, d->label) & class))
		return false;
	__builtin_memset(&d->key, 0, sizeof(d->key));
	return true;
}

/*
 * Counts the access if the same was told within the window. The counter of the CPU is what makes the sum right; that of the entry
 * may be forgotten with it, and in the instant when an entry is used again (kernel/bpf/hashtab.c, its memory is not waited for)
 * it may count for another.
 */
static __always_inline bool repeated(struct doing *d, struct pc_mon_stats *st)
{
	struct pc_mon_repeated *told;

	d->told = NULL;
	if (!d->cfg->window_ns || d->key.object_len == PC_MON_EACH)
		return false;
	told = bpf_map_lookup_elem(&pc_mon_repeats, &d->key);
	if (!told)
		return false;
	/* Another CPU may have told it just after this one looked at the clock. */
	if ((s64)(d->now - told->since_ns) < (s64)d->cfg->window_ns) {
		__sync_fetch_and_add(&told->repeats, 1);
		__sync_fetch_and_add(&st->aggregated, 1);
		return true;
	}
	d->told = told;
	return false;
}

static __always_inline struct pc_mon_scratch *scratch(void)
{
	struct pc_mon_scratch *s = NULL;
	u32 i, which;

	/* Unrolled: the verifier of 6.1 does not see that a key on the stack goes on, and takes it for endless. */
#pragma unroll
	for (i = PC_MON_SCRATCH_ACCESS; i < PC_MON_SCRATCH_END; i++) {
		which = i;
		s = bpf_map_lookup_elem(&pc_mon_scratch, &which);
		if (!s || !__sync_val_compare_and_swap(&s->busy, 0, 1))
			break;
		s = NULL;
	}
	return s;
}

/*
 * Working memory in which the access is described, but for its texts: NULL where it was only counted, as a repeat or as lost. `answer` is
 * what the security modules gave, 0 or a negative error.
 */
static __always_inline struct pc_mon_scratch *begin(struct doing *d, u32 op, int answer)
{
	struct task_struct *task = d->task, *leader = task->group_leader;
	struct pc_mon_scratch *s;
	struct pc_mon_access *e;
	struct pc_mon_stats *st;
	u32 zero = 0;
	u64 pid;

	st = bpf_map_lookup_elem(&pc_mon_stats, &zero);
	if (!st)
		return NULL;
	d->now = bpf_ktime_get_boot_ns();
	d->key.op = op;
	d->key.result = answer < 0 ? -answer : 0;
	d->key.tgid = task->tgid;
	d->key.started_ns = leader->start_boottime;
	if (repeated(d, st))
		return NULL;
	s = scratch();
	if (!s) {
		__sync_fetch_and_add(&st->access_seq, 1);
		__sync_fetch_and_add(&st->access_lost, 1);
		return NULL;
	}
	e = &s->access;
	__builtin_memset(e, 0, sizeof(*e));
	e->op = op;
	e->time_ns = d->now;
	e->started_ns = d->key.started_ns;
	e->cgroup = task->cgroups->dfl_cgrp->kn->id;
	e->slot = d->label ? d->label->slot : PC_MON_NO_SLOT;
	e->epoch = d->label ? d->label->epoch : 0;
	e->tgid = d->key.tgid;
	e->tid = task->pid;
	e->uid = task->cred->fsuid.val;
	e->result = d->key.result;
	e->arg[0] = d->key.arg[0];
	e->arg[1] = d->key.arg[1];
	e->arg[2] = d->key.arg[2];
	pid = (u64)leader->thread_pid;
	pid = number_at(pid, read_u32(field_address(struct pid, level, pid)));
	pid = read_u64(field_address(struct upid, ns, pid));
	e->pid_ns = read_u32(field_address(struct pid_namespace, ns.inum, pid));
	e->mnt_ns = task->nsproxy->mnt_ns->ns.inum;
	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), task->comm);
	tell_for(s, task);
	return s;
}

/* Notes that the access was told, so that the same is only counted from now on. */
static __always_inline void remember(struct doing *d, struct pc_mon_access *e)
{
	struct pc_mon_repeated fresh = { .since_ns = d->now, .seq = e->seq, .cpu = e->cpu };

	if (d->told) {
		d->told->seq = e->seq;
		d->told->cpu = e->cpu;
		d->told->since_ns = d->now;
	} else if (d->cfg->window_ns && d->key.object_len != PC_MON_EACH) {
		/* Without room in the map the next one is told too. */
		bpf_map_update_elem(&pc_mon_repeats, &d->key, &fresh, BPF_NOEXIST);
	}
}

/* Numbers and sends, as for processes. */
static __always_inline void end(struct doing *d, struct pc_mon_scratch *s)
{
	struct pc_mon_access *e = &s->access;
	struct pc_mon_stats *st;
	u32 zero = 0;

	st = bpf_map_lookup_elem(&pc_mon_stats, &zero);
	if (st) {
		e->cpu = bpf_get_smp_processor_id();
		e->seq = __sync_fetch_and_add(&st->access_seq, 1);
		e->repeats = d->told ? __sync_lock_test_and_set(&d->told->repeats, 0) : 0;
		if (!bpf_ringbuf_output(&pc_mon_access, e, sizeof(*e) + bounded(s->length, PC_MON_TEXT - 1), 0)) {
			remember(d, e);
		} else {
			__sync_fetch_and_add(&st->access_lost, 1);
			if (d->told) /* the next one tells of them */
				__sync_fetch_and_add(&d->told->repeats, e->repeats);
		}
	}
	*(volatile u32 *)&s->busy = 0; /* only this CPU claims it: an ordinary store will do */
}

#endif
