/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System calls themselves, by number and source. Nothing is decided: what is to be denied is denied where it is done, whichever call
 * asks for it.
 *
 * The one tracepoint of enforcement. Every system call of the host runs it while it is attached, so it is attached only while a set
 * in use has such rules (set_calls_watched in ebpf/src/calls.rs), and looks first at what most tasks lack: a label. A call
 * that seccomp refuses never comes here (kernel/entry/common.c, syscall_trace_enter), nor what io_uring does without a call.
 *
 * Linux 6.13 and newer may preempt a task in here, and then skip the program for whoever makes a call on that CPU meanwhile
 * (kernel/trace/bpf_trace.c, __bpf_trace_run): those are counted as missed, of all tasks of the host. The hooks that tell paths
 * are not skipped.
 */
#ifndef PORTCULLIS_HOOKS_SYSCALL_H
#define PORTCULLIS_HOOKS_SYSCALL_H

#include "calls.h"

/*
 * Whether the same was told a moment ago: then it is only counted. What is counted and never told with another is in the counters of
 * the CPUs alone. *repeats is how many there were since it was last told.
 */
static __always_inline bool call_repeated(const struct view *v, struct task_struct *task, u32 index, u32 rule, u32 *repeats)
{
	struct pc_call_repeat *told, fresh = { .since_ns = bpf_ktime_get_boot_ns() };
	struct task_struct *leader = task->group_leader;
	struct pc_call_told key = {
		.started_ns = leader->start_boottime,
		.tgid = task->tgid,
		.slot = v->task->slot,
		.epoch = v->task->epoch,
		.gen = v->policy.gen,
		.rule = rule,
		.index = index,
	};
	struct pc_stats *st;

	*repeats = 0;
	told = bpf_map_lookup_elem(&pc_calls_told, &key);
	if (!told) {
		/* Without room in the map the next one is told too. */
		bpf_map_update_elem(&pc_calls_told, &key, &fresh, BPF_NOEXIST);
		return false;
	}
	/* Another CPU may have told it just after this one looked at the clock. */
	if ((s64)(fresh.since_ns - told->since_ns) < (s64)PC_CALL_WINDOW_NS) {
		__sync_fetch_and_add(&told->repeats, 1);
		st = stats();
		if (st) {
			__sync_fetch_and_add(&st->audited, 1);
			__sync_fetch_and_add(&st->repeated, 1);
		}
		return true;
	}
	told->since_ns = fresh.since_ns;
	*repeats = __sync_lock_test_and_set(&told->repeats, 0);
	return false;
}

/* Tells the call at `index`, which some rule of the set names. */
static __always_inline void judge_call(struct view *v, struct pc_segment *segment, u32 index, u32 column)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_scratch *s;
	u32 id, entry, repeats;

	entry = word_at(segment, v->set->call_entries + source_of(v) * v->set->call_columns + column - 1);
	if ((entry & 0xff) != PC_AUDIT || call_repeated(v, task, index, entry >> 16, &repeats))
		return;
	s = begin_alert(v, &id, PC_OP_SYSCALL);
	if (!s)
		return;
	s->event.arg[0] = index;
	s->event.repeats = repeats;
	pc_conclude(id, PC_AUDIT, entry >> 16, 0);
	release(s);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(pc_sys_enter, struct pt_regs *regs, long number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_segment *segment;
	u32 index, column;
	struct view v;

	v.task = identity(task);
	if (!v.task)
		return 0;
	v.slot = slot_at(v.task->slot);
	if (!v.slot || orphan(&v))
		return 0;
	v.policy = policy_of(v.slot);
	v.set = set_at(v.policy.set);
	if (!v.set || !(v.set->flags & PC_SET_CALLS))
		return 0;
	segment = segment_at(v.set->segment);
	index = index_of(task, (u32)number, regs);
	if (!segment || index >= PC_CALL_END)
		return 0;
	column = PC_CALL_COLUMN(word_at(segment, v.set->calls + index));
	if (!column)
		return 0;
	if (v.task->gen != v.policy.gen)
		pc_refresh(v.policy.set, v.policy.gen);
	judge_call(&v, segment, index, column);
	return 0;
}

#endif
