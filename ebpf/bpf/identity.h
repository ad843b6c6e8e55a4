/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose task is this? Task-local storage says: it is set when a task first executes something inside an armed cgroup, copied
 * to every child in task_alloc, and nothing a task can do drops it: not unshare, setns, chroot, another cgroup, nor the death
 * of its parent. Namespaces are no identity (one unshare changes them), and the cgroup only seeds it.
 */
#ifndef PORTCULLIS_IDENTITY_H
#define PORTCULLIS_IDENTITY_H

#include "walk.h"

#define PC_MAX_CGROUP_DEPTH 32

static __always_inline struct pc_task *identity(struct task_struct *task)
{
	return bpf_task_storage_get(&pc_tasks, task, NULL, 0);
}

static __always_inline struct pc_slot *slot_at(u32 id)
{
	return bpf_map_lookup_elem(&pc_slots, &id);
}

static __always_inline struct pc_set *set_at(u32 id)
{
	return bpf_map_lookup_elem(&pc_sets, &id);
}

static __always_inline struct pc_config *config(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&pc_config, &zero);
}

struct search {
	struct pc_cgroup found;
	u32 any;
};

static long search_step(u32 level, struct search *s)
{
	u64 id = bpf_get_current_ancestor_cgroup_id(level + 1);
	struct pc_cgroup *entry;

	if (!id)
		return 1;
	entry = bpf_map_lookup_elem(&pc_cgroups, &id);
	if (entry) {
		s->found = *entry;
		s->any = 1;
	}
	return 0;
}

/*
 * Labels an unlabelled task that executes something: the innermost armed cgroup above it counts. Returns 1 when labelled, 0
 * outside, -ENOMEM where the label could not be stored: then the exec must fail, or it would run unpoliced.
 *
 * runc and crun do their own set-up inside the container's cgroup, and `runc exec` re-executes runc there (CVE-2019-5736).
 * That is not the workload: an exec counts once the task has left the runtime's mount namespace and its root directory, which
 * is what pivot_root does last. createContainer hooks (still on the host's root) are thereby the runtime's own, too.
 */
static __always_inline int label(struct task_struct *task)
{
	struct pc_config *cfg = config();
	struct search s = {};
	struct pc_task fresh = {};
	struct pc_slot *slot;
	u64 root;

	if (!cfg || !cfg->armed)
		return 0;
	bpf_loop(PC_MAX_CGROUP_DEPTH, search_step, &s, 0);
	if (!s.any)
		return 0;
	slot = slot_at(s.found.slot);
	if (!slot || slot->epoch != s.found.epoch || !(slot->flags & PC_SLOT_ARMED))
		return 0;
	root = (u64)task->fs->root.dentry;
	if (task->nsproxy->mnt_ns->ns.inum == slot->runtime_mntns || root == slot->runtime_root)
		return 0;
	fresh.slot = s.found.slot;
	fresh.epoch = s.found.epoch;
	fresh.gen = slot->gen;
	if (!bpf_task_storage_get(&pc_tasks, task, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	if (!slot->root)
		slot->root = root;
	return 1;
}

/* Set and generation belong together, and so one load reads what one store wrote: see store_slot_set in ebpf/src/kernel.rs. */
struct policy {
	u32 set;
	u32 gen;
};

static __always_inline struct policy policy_of(struct pc_slot *slot)
{
	u64 both = *(volatile u64 *)&slot->set;
	struct policy p = { .set = (u32)both, .gen = both >> 32 };

	return p;
}

_Static_assert(__builtin_offsetof(struct pc_slot, set) % 8 == 0, "set and gen are one unit");
_Static_assert(__builtin_offsetof(struct pc_slot, gen) == __builtin_offsetof(struct pc_slot, set) + 4, "gen is its high half");

/* ---- working memory --------------------------------------------------------------------------------------------------- */

/* Returns a free scratch of this CPU, else the task's own, or NULL where there is no memory for that; its index in *id. */
static __always_inline struct pc_scratch *claim(u32 *id)
{
	u32 base = bpf_get_smp_processor_id() * PC_SCRATCH_PER_CPU;
	int i;

	for (i = 0; i < PC_SCRATCH_PER_CPU; i++) {
		struct pc_scratch *s = scratch_at(base + i);

		if (s && !__sync_val_compare_and_swap(&s->busy, 0, 1)) {
			*id = base + i;
			return s;
		}
	}
	*id = PC_SCRATCH_OWN;
	return bpf_task_storage_get(&pc_own_scratch, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline void release(struct pc_scratch *s)
{
	*(volatile u32 *)&s->busy = 0; /* only this CPU claims it: an ordinary store will do */
}

/* ---- source class ------------------------------------------------------------------------------------------------------ */

static __always_inline u32 sequence(bool cast, u64 address)
{
	return address ? (u32)peek_by(cast, address) : 0;
}

/*
 * Once from dentry to state. Returns 1 when a rename or a mount came between: such a path may never have been. Pointers and not
 * indexes are passed here: to look them up again in each function costs what ten bytes of a path cost.
 * (The segment as its words: clang would declare the struct forward, see pc_segment_map, and the verifier wants its size.)
 */
__attribute__((noinline)) int pc_attempt(struct pc_scratch *s, u32 (*words)[PC_SEGMENT_SIZE / 4], u32 start)
{
	struct pc_segment *segment = (struct pc_segment *)words;
	bool cast = pc_ladder == 1;
	u32 renames, mounts;

	if (!s || !segment)
		return 0;
	renames = sequence(cast, pc_rename_lock);
	mounts = sequence(cast, pc_mount_lock);
	s->state = start;
	climb(cast, s);
	if (s->outcome == PC_PATH_FOUND)
		match(s, segment);
	asm volatile("" ::: "memory");
	if ((renames | mounts) & 1 || renames != sequence(cast, pc_rename_lock) || mounts != sequence(cast, pc_mount_lock))
		return 1;
	return 0;
}

#define PC_TRIES 8

/* Finds the state of the object in s, started from s->state. Given up as unresolvable after PC_TRIES attempts. */
static __always_inline void locate(struct pc_scratch *s, struct pc_segment *segment)
{
	struct pc_stats *st;
	u32 start = s->state;
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < PC_TRIES; i++) {
		if (!pc_attempt(s, &segment->words, start))
			return;
		st = stats();
		if (st)
			st->torn += 1;
	}
	s->outcome = PC_PATH_OUTSIDE;
}

/* What a set needs in a scratch before locate(). */
static __always_inline void prepare(struct pc_scratch *s, struct pc_set *set, u64 root)
{
	s->segment = set->segment;
	s->classes = set->classes;
	s->sink = set->sink;
	s->root = root;
}

/* The source class of an executable. */
static __always_inline u32 classify(struct pc_scratch *s, struct pc_slot *slot, struct pc_set *set, struct file *exe)
{
	struct pc_segment *segment;

	if (!set->source_start || set->sources <= 1)
		return 0;
	segment = segment_at(set->segment);
	if (!segment)
		return 0;
	prepare(s, set, slot->root);
	s->dentry = (u64)exe->f_path.dentry;
	s->mount = mount_of(exe->f_path.mnt);
	s->state = set->source_start;
	locate(s, segment);
	if (s->outcome != PC_PATH_FOUND)
		return 0;
	return column_at(segment, s->state, PC_ROW_DECISION);
}

/* The container's policy was switched since this task's source class was found: find it again, for the policy that is asked. */
__attribute__((noinline)) int pc_refresh(u32 set_id, u32 gen)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_task *t = identity(task);
	struct pc_scratch *s;
	struct pc_slot *slot;
	struct pc_set *set;
	struct mm_struct *mm;
	struct file *exe;
	u32 id;

	if (!t)
		return 0;
	t->source = 0; /* a class of another policy means nothing in this one */
	slot = slot_at(t->slot);
	if (!slot)
		return 0;
	set = set_at(set_id);
	mm = task->mm;
	if (!set || !mm)
		return 0;
	exe = mm->exe_file;
	if (!exe)
		return 0;
	s = claim(&id);
	if (!s)
		return 0;
	t->source = classify(s, slot, set, exe);
	t->gen = gen;
	release(s);
	return 0;
}

#endif
