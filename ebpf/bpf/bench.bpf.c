// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a decision costs, measured on the very functions that decide.
 *
 * LSM programs can't be test-run, so this is a raw tracepoint program, run by BPF_PROG_TEST_RUN and never attached: it judges
 * the calling process' working directory as if that were opened for reading, many times over, and takes the time itself (the
 * kernel reports a duration of 0 for this program type). bench_way.h holds the way it is compared with.
 */
#include "judge.h"
#include "bench_way.h"

/* The working directory is of no concern to the real programs. The part after ___ is dropped when names are resolved. */
struct fs_struct___bench {
	struct path root;
	struct path pwd;
} __attribute__((preserve_access_index));

enum bench_mode {
	BENCH_SETUP,    /* labels the calling task and takes its root for the container's */
	BENCH_EMPTY,    /* the harness alone, to be subtracted */
	BENCH_DECIDE,   /* all that judge_path does */
	BENCH_IDENTITY, /* the part before the path */
	BENCH_CLIMB,    /* the components' places */
	BENCH_MATCH,    /* the automaton over them */
	BENCH_WAY_PATH, /* the other way: a copied path */
	BENCH_WAY_MATCH,
	BENCH_WAY,
};

struct bench_result {
	u64 ns;
	u64 runs;     /* counted by the callbacks: a decision that did not happen must not look fast */
	u64 denied;
	u64 failed;
	u64 depth;    /* of the path */
	u64 rule;     /* the decision that the end state has */
	u64 address;  /* of this value: stands in for the sequence locks where their addresses are hidden */
	u64 still;    /* and what is read there: never odd, never changed */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct bench_result);
} pc_bench_result SEC(".maps");

struct bench {
	struct bench_result *r;
	u64 dentry;
	u64 mount;
	u64 root;
	u32 id;
	u32 start;
};

static long empty_step(u32 index, struct bench *b)
{
	b->r->runs += 1;
	return 0;
}

static __always_inline struct pc_scratch *bench_begin(struct bench *b, struct view *v, u32 *id)
{
	struct pc_scratch *s;

	if (!view_of_current(v))
		return NULL;
	s = begin(v, id, PC_OP_READ);
	if (!s)
		return NULL;
	s->dentry = b->dentry;
	s->mount = b->mount;
	s->groups = 1u << PC_READ;
	return s;
}

static long identity_step(u32 index, struct bench *b)
{
	struct pc_scratch *s;
	struct view v;
	u32 id;

	s = bench_begin(b, &v, &id);
	if (!s) {
		b->r->failed += 1;
		return 1;
	}
	release(s);
	b->r->runs += 1;
	return 0;
}

static long decide_step(u32 index, struct bench *b)
{
	struct pc_scratch *s;
	struct view v;
	u32 id;

	s = bench_begin(b, &v, &id);
	if (!s) {
		b->r->failed += 1;
		return 1;
	}
	if (!orphan(&v)) {
		if (pc_decide(id, s, v.set))
			b->r->denied += 1;
	}
	b->r->depth = s->depth;
	b->r->rule = s->outcome;
	release(s);
	b->r->runs += 1;
	return 0;
}

__attribute__((noinline)) int bench_climb(u32 id)
{
	struct pc_scratch *s = scratch_at(id);

	if (s)
		climb(pc_ladder == 1, s);
	return 0;
}

__attribute__((noinline)) int bench_match(u32 id, u32 start)
{
	struct pc_scratch *s = scratch_at(id);
	struct pc_segment *segment;

	if (!s)
		return 0;
	segment = segment_at(s->segment);
	if (!segment)
		return 0;
	s->state = start;
	match(s, segment);
	return 0;
}

static long climb_only_step(u32 index, struct bench *b)
{
	bench_climb(b->id);
	b->r->runs += 1;
	return 0;
}

static long match_only_step(u32 index, struct bench *b)
{
	bench_match(b->id, b->start);
	b->r->runs += 1;
	return 0;
}

static long way_path_step(u32 index, struct bench *b)
{
	way_path();
	b->r->runs += 1;
	return 0;
}

static long way_match_step(u32 index, struct bench *b)
{
	b->r->denied += way_match();
	b->r->runs += 1;
	return 0;
}

static long way_step(u32 index, struct bench *b)
{
	way_path();
	b->r->denied += way_match();
	b->r->runs += 1;
	return 0;
}

static __always_inline void label_caller(struct bench *b)
{
	struct pc_task fresh = {};
	struct pc_slot *slot = slot_at(0);
	struct pc_task *t;

	if (!slot)
		return;
	slot->root = b->root;
	fresh.epoch = slot->epoch;
	fresh.gen = slot->gen;
	t = bpf_task_storage_get(&pc_tasks, bpf_get_current_task_btf(), &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (t)
		*t = fresh;
	else
		b->r->failed += 1;
	b->r->address = (u64)&b->r->still;
}

/* One decision before the clock starts: it fills the scratch for the partial modes, and the caches for all. */
static __always_inline void warm(struct bench *b)
{
	struct way *w = way_memory();
	struct pc_segment *segment;
	struct pc_scratch *s;
	struct view v;
	u32 id;

	if (w) {
		w->dentry = b->dentry;
		w->mount = b->mount;
		w->root = b->root;
	}
	s = bench_begin(b, &v, &id);
	if (!s)
		return;
	pc_find(id);
	b->id = id;
	segment = segment_at(s->segment);
	if (segment)
		b->start = word_at(segment, v.set->starts + s->source);
	release(s);
}

SEC("raw_tp/sys_enter")
int pc_bench(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct___bench *fs = (void *)task->fs;
	u32 mode = ctx->args[0], runs = ctx->args[1], zero = 0;
	struct bench b = {};
	u64 begun;

	b.r = bpf_map_lookup_elem(&pc_bench_result, &zero);
	if (!b.r)
		return 1;
	b.dentry = (u64)fs->pwd.dentry;
	b.mount = mount_of(fs->pwd.mnt);
	b.root = (u64)fs->root.dentry;
	b.r->runs = 0;
	b.r->denied = 0;
	b.r->failed = 0;
	if (mode == BENCH_SETUP) {
		label_caller(&b);
		return 0;
	}
	warm(&b);
	begun = bpf_ktime_get_ns();
	if (mode == BENCH_EMPTY)
		bpf_loop(runs, empty_step, &b, 0);
	else if (mode == BENCH_DECIDE)
		bpf_loop(runs, decide_step, &b, 0);
	else if (mode == BENCH_IDENTITY)
		bpf_loop(runs, identity_step, &b, 0);
	else if (mode == BENCH_CLIMB)
		bpf_loop(runs, climb_only_step, &b, 0);
	else if (mode == BENCH_MATCH)
		bpf_loop(runs, match_only_step, &b, 0);
	else if (mode == BENCH_WAY_PATH)
		bpf_loop(runs, way_path_step, &b, 0);
	else if (mode == BENCH_WAY_MATCH)
		bpf_loop(runs, way_match_step, &b, 0);
	else if (mode == BENCH_WAY)
		bpf_loop(runs, way_step, &b, 0);
	b.r->ns = bpf_ktime_get_ns() - begun;
	return 0;
}

/* bpf_d_path() is not allowed in raw tracepoints but in iterators; one read of the iterator runs this once for each task. */
#define BENCH_D_PATH_RUNS 256

SEC("iter/task")
int pc_bench_d_path(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	u32 zero = 0, i;
	struct fs_struct___bench *fs;
	struct bench_result *r = bpf_map_lookup_elem(&pc_bench_result, &zero);
	struct way *w = bpf_map_lookup_elem(&pc_bench_way, &zero);
	u64 begun;

	if (!task || !r || !w || (u32)task->pid != (u32)bpf_get_current_pid_tgid())
		return 0;
	fs = (void *)task->fs;
	if (!fs)
		return 0;
	r->runs = 0;
	begun = bpf_ktime_get_ns();
	for (i = 0; i < BENCH_D_PATH_RUNS; i++) {
		if (bpf_d_path(&fs->pwd, w->buffer, 4096) > 0)
			r->runs += 1;
	}
	r->ns = bpf_ktime_get_ns() - begun;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
