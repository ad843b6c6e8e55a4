/* SPDX-License-Identifier: GPL-2.0-only */
/* From a located object to a verdict, and from a verdict to an alert. */
#ifndef PORTCULLIS_JUDGE_H
#define PORTCULLIS_JUDGE_H

#include "identity.h"

/* ---- alerts ------------------------------------------------------------------------------------------------------------- */

/* Counts and sends what s->op did. The sequence number advances whether or not there was room: gaps are losses, to the unit. */
static __always_inline void alert(struct pc_scratch *s, u32 verdict, u32 rule, u32 path_len)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_stats *st = stats();
	struct pc_slot *slot = slot_at(s->slot);
	struct pc_event *e = &s->event;
	u64 ids = bpf_get_current_pid_tgid();

	if (!st)
		return;
	e->type = PC_EVENT_ALERT;
	e->cpu = bpf_get_smp_processor_id();
	e->seq = __sync_fetch_and_add(&st->seq, 1);
	e->time_ns = bpf_ktime_get_boot_ns();
	e->cgroup = slot ? slot->cgroup : 0;
	e->slot = s->slot;
	e->epoch = s->epoch;
	e->gen = s->gen;
	e->set = s->set;
	e->rule = rule;
	e->op = s->op;
	e->verdict = verdict;
	e->source = s->source;
	e->tgid = ids >> 32;
	e->tid = (u32)ids;
	e->uid = task->cred->fsuid.val;
	e->path_len = path_len;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	if (verdict == PC_BLOCK)
		__sync_fetch_and_add(&st->blocked, 1);
	else
		__sync_fetch_and_add(&st->audited, 1);
	if (path_len > PC_PATH_MAX)
		path_len = PC_PATH_MAX;
	if (bpf_ringbuf_output(&pc_alerts, e, sizeof(*e) + path_len, 0))
		__sync_fetch_and_add(&st->lost, 1);
}

/* Tells a verdict with the path in the chain, and turns it into what the hook returns: 1 denies. */
__attribute__((noinline)) int pc_conclude(u32 id, u32 verdict, u32 rule, u32 with_path)
{
	struct pc_scratch *s = scratch_at(id);
	struct pc_slot *slot;
	u32 len = 0;

	if (!s || verdict < PC_AUDIT)
		return 0;
	slot = slot_at(s->slot);
	if (slot && slot->flags & PC_SLOT_AUDITED)
		verdict = PC_AUDIT;
	if (with_path) {
		pc_text(id);
		len = s->length;
	} else {
		s->event.path_cut = 0;
	}
	alert(s, verdict, rule, len);
	if (verdict == PC_BLOCK)
		return 1;
	return 0;
}

/* ---- entering a hook ---------------------------------------------------------------------------------------------------- */

struct view {
	struct pc_task *task;
	struct pc_slot *slot;
	struct pc_set *set;
	struct policy policy;
};

/* The policy of the calling task, or false when it is in no container. */
static __always_inline bool view_of_current(struct view *v)
{
	v->task = identity(bpf_get_current_task_btf());
	if (!v->task)
		return false;
	v->slot = slot_at(v->task->slot);
	if (!v->slot)
		return false;
	v->policy = policy_of(v->slot);
	if (v->task->gen != v->policy.gen)
		pc_refresh(v->policy.set, v->policy.gen);
	v->set = set_at(v->policy.set);
	return v->set != NULL;
}

/* A task whose container is gone has no policy that could be asked, and is refused everything that is policed. */
static __always_inline bool orphan(const struct view *v)
{
	return v->slot->epoch != v->task->epoch;
}

/* Claims and fills a scratch. A NULL means that none is free. */
static __always_inline struct pc_scratch *describe(const struct view *v, u32 *id, u32 op)
{
	struct pc_scratch *s;

	s = claim(id);
	if (!s)
		return NULL;
	s->slot = v->task->slot;
	s->epoch = v->task->epoch;
	s->gen = v->policy.gen;
	s->set = v->policy.set;
	s->source = v->task->source < v->set->sources ? v->task->source : 0;
	s->op = op;
	s->unlinked = 0;
	s->inode = 0;
	s->event.arg[0] = 0;
	s->event.arg[1] = 0;
	s->event.arg[2] = 0;
	s->event.repeats = 0;
	prepare(s, v->set, v->slot->root);
	return s;
}

/* The same for what may be denied: with a NULL the caller denies, and it is counted. */
static __always_inline struct pc_scratch *begin(const struct view *v, u32 *id, u32 op)
{
	struct pc_scratch *s = describe(v, id, op);
	struct pc_stats *st;

	if (!s) {
		st = stats();
		if (st)
			__sync_fetch_and_add(&st->busy, 1);
	}
	return s;
}

/* The same for what is only told: with a NULL it is counted as an alert that was lost. */
static __always_inline struct pc_scratch *begin_alert(const struct view *v, u32 *id, u32 op)
{
	struct pc_scratch *s = describe(v, id, op);
	struct pc_stats *st;

	if (!s) {
		st = stats();
		if (st) {
			__sync_fetch_and_add(&st->seq, 1);
			__sync_fetch_and_add(&st->lost, 1);
		}
	}
	return s;
}

/* ---- path verdicts -------------------------------------------------------------------------------------------------------- */

static __always_inline bool is_owner(u64 inode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 uid = 0;

	if (!inode)
		return true;
	bpf_probe_read_kernel(&uid, sizeof(uid), (void *)field_address(struct inode, i_uid, inode));
	return uid == task->cred->fsuid.val;
}

struct verdict {
	u32 owner;
	u32 other;
	u32 rule;
	u32 rank;
};

static __always_inline struct verdict entry_at(struct pc_segment *segment, struct pc_set *set, u32 state, u32 group)
{
	u32 at = set->decisions + column_at(segment, state, PC_ROW_DECISION) * PC_DECISION_WORDS + group * 2;
	u32 word = word_at(segment, at);
	struct verdict v;

	v.owner = word & 0xff;
	v.other = (word >> 8) & 0xff;
	v.rule = word >> 16;
	v.rank = word_at(segment, at + 1);
	return v;
}

/* As entry_at, with execname rules, which an automaton of their own decides. */
static __always_inline struct verdict verdict_at(struct pc_segment *segment, struct pc_set *set, u32 state, u32 name_state,
						 u32 group)
{
	struct verdict v = entry_at(segment, set, state, group);

	if (group == PC_EXEC && set->name_starts) {
		struct verdict n = entry_at(segment, set, name_state, group);

		if (n.rank < v.rank)
			v = n;
	}
	return v;
}

/*
 * Judges the located object for each group in s->groups; the sternest verdict is told. Returns 1 to deny.
 * An object whose place can't be told is denied where the set could deny any path: else hiding would be a way out.
 */
static __always_inline int judge(u32 id, struct pc_scratch *s, struct pc_set *set, struct pc_segment *segment)
{
	struct pc_stats *st;
	u32 group, worst = PC_NONE, rule = PC_RULE_NONE;

	if (!set || !segment)
		return 1;
	if (s->outcome != PC_PATH_FOUND) {
		st = stats();
		if (st)
			__sync_fetch_and_add(&st->unresolved, 1);
		if (!(set->flags & PC_SET_BLOCKS_PATHS))
			return 0;
		return pc_conclude(id, PC_BLOCK, PC_RULE_UNRESOLVED, 1);
	}
	for (group = 0; group < PC_GROUPS; group++) {
		if (s->groups & (1u << group)) {
			struct verdict v = verdict_at(segment, set, s->state, s->name_state, group);
			u32 verdict = v.other;

			if (v.owner != v.other && is_owner(s->inode))
				verdict = v.owner;
			if (group == PC_EXEC && s->unlinked && verdict == PC_ALLOW) {
				/* an Allow rule names a file by its name, and this one has lost its name */
				verdict = (set->unmatched >> (8 * PC_EXEC)) & 0xff;
				v.rule = PC_RULE_POSTURE;
			}
			if (verdict > worst) {
				worst = verdict;
				rule = v.rule;
			}
		}
	}
	if (worst < PC_AUDIT)
		return 0;
	return pc_conclude(id, worst, rule, 1);
}

/* s->state := start of paths for the task's source class; s->name_state likewise, walked when the set has execnames. */
static __always_inline void find(u32 id, struct pc_scratch *s, struct pc_set *set, struct pc_segment *segment)
{
	u32 state;

	if (!set || !segment)
		return;
	s->state = word_at(segment, set->starts + s->source);
	locate(s, segment);
	if (set->name_starts && s->outcome == PC_PATH_FOUND) {
		state = s->state;
		s->state = word_at(segment, set->name_starts + s->source);
		pc_match_name(id);
		s->name_state = s->state;
		s->state = state;
	}
}

/* Each as a function of its own, for hooks that do something in between; pc_decide for those that don't: a return is dear. */
__attribute__((noinline)) int pc_find(u32 id)
{
	struct pc_scratch *s = scratch_at(id);

	if (s)
		find(id, s, set_at(s->set), segment_at(s->segment));
	return 0;
}

__attribute__((noinline)) int pc_judge(u32 id)
{
	struct pc_scratch *s = scratch_at(id);

	return s ? judge(id, s, set_at(s->set), segment_at(s->segment)) : 0;
}

__attribute__((noinline)) int pc_decide(u32 id, struct pc_scratch *s, struct pc_set *set)
{
	struct pc_segment *segment;

	if (!s)
		return 0;
	segment = segment_at(s->segment);
	find(id, s, set, segment);
	return judge(id, s, set, segment);
}

/*
 * Would the second name (s->state) let something through that the first (s->old_state) denies? For a directory, also anything
 * below it: the same state after the slash means the same future; else the subtree summaries decide, on the safe side.
 * Returns 1 to deny.
 */
__attribute__((noinline)) int pc_alias(u32 id)
{
	struct pc_scratch *s = scratch_at(id);
	struct pc_segment *segment;
	struct pc_set *set;
	u32 group, looser = 0;

	if (!s)
		return 0;
	set = set_at(s->set);
	segment = segment_at(s->segment);
	if (!set || !segment)
		return 1;
	for (group = 0; group < PC_GROUPS; group++) {
		struct verdict before = verdict_at(segment, set, s->old_state, s->old_name_state, group);
		struct verdict after = verdict_at(segment, set, s->state, s->name_state, group);

		if (before.owner == PC_BLOCK && after.owner != PC_BLOCK)
			looser = 1;
		if (before.other == PC_BLOCK && after.other != PC_BLOCK)
			looser = 1;
	}
	if (s->is_dir) {
		if (after_slash(segment, s->classes, s->old_state) != after_slash(segment, s->classes, s->state)) {
			u32 before = column_at(segment, s->old_state, PC_ROW_SUBTREE);
			u32 after = column_at(segment, s->state, PC_ROW_SUBTREE);

			if (PC_SUB_ANY(before) & ~PC_SUB_ALL(after))
				looser = 1;
		}
	}
	if (!looser)
		return 0;
	return pc_conclude(id, PC_BLOCK, PC_RULE_ALIAS, 1);
}

#endif
