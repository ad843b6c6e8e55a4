/* SPDX-License-Identifier: GPL-2.0-only */
/* Every map. All are pinned: together they are what is in force. abi.h says what they hold. */
#ifndef PORTCULLIS_MAPS_H
#define PORTCULLIS_MAPS_H

#include "kernel.h"
#include "abi.h"
#include "task.h"

struct pc_segment {
	u32 words[PC_SEGMENT_SIZE / 4];
};

/* One component of a path: where its name is. */
struct pc_component {
	u64 name;
	u32 len;
	u32 zero;
};

/*
 * Deepest path that is followed. Deeper ones are unresolvable and denied where names matter: bounded work, no truncation
 * (a truncated path is a way to look like another one).
 */
#define PC_MAX_DEPTH 256u
#define PC_NAME_MAX 255u

/*
 * Working memory of one decision. Not a per-CPU array: BPF LSM programs can be preempted by another task's on the same CPU
 * (there is no recursion guard for them, kernel/bpf/trampoline.c). So each CPU has several and a decision claims one; where
 * many tasks were preempted within a decision (an attacker's SCHED_IDLE threads can be held there for long), a task gets one
 * of its own, in task storage. Less than 8 KiB: the most that the kernel allocates without sleeping (mm/slub.c, kmalloc_nolock).
 */
struct pc_scratch {
	u32 busy;
	/* who: see enter() */
	u32 slot;
	u32 epoch;
	u32 gen;
	u32 set;
	u32 source;
	/* what */
	u32 op;
	u32 groups;   /* 1 << PC_READ | ... */
	u32 unlinked; /* the object has lost its name */
	u32 zero;
	u64 inode;    /* for the owner; 0: it is being made, by its owner to be */
	/* a second name of the same object: see pc_alias */
	u32 old_state;
	u32 old_name_state;
	u32 name_state;
	u32 is_dir;
	/* in */
	u32 segment;
	u64 dentry;
	u64 mount; /* struct mount, or 0: climb by d_parent alone */
	u64 root;  /* where a path begins */
	/* climb */
	u64 at_dentry;
	u64 at_mount;
	u64 at_mount_root;
	/* out */
	u32 depth; /* components */
	u32 outcome;
	/* walk */
	u32 state;
	u32 offset; /* in the current component */
	u32 at;     /* component, counts down */
	u32 classes;
	u32 sink;
	u32 length;   /* of the text */
	u32 name_len; /* of the current component */
	u64 name;
	u16 slash;    /* its column */
	u16 pad[3];
	struct pc_component chain[PC_MAX_DEPTH];
	struct pc_event event;
	u8 text[PC_PATH_MAX + PC_NAME_MAX + 1]; /* behind the event; while names are matched, one that was copied */
};

_Static_assert(sizeof(struct pc_scratch) <= 8192 - 256, "a scratch must fit kmalloc with its storage element");

#define PC_SCRATCH_PER_CPU 4u
#define PC_SCRATCH_OWN 0x40000000 /* as an index: the calling task's own */

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pc_scratch);
} pc_own_scratch SEC(".maps");

struct pc_segment_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	/* sizes and not types: clang leaves a forward declaration for the types of a map inside a map */
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct pc_segment));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, PC_MAX_SEGMENTS);
	__type(key, u32);
	__array(values, struct pc_segment_map);
} pc_segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PC_MAX_SETS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct pc_set);
} pc_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PC_MAX_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct pc_slot);
} pc_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * PC_MAX_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct pc_cgroup);
} pc_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pc_config);
} pc_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pc_adoption);
} pc_adoption SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pc_stats);
} pc_stats SEC(".maps");

/* The loader sizes it: PC_SCRATCH_PER_CPU for each possible CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PC_SCRATCH_PER_CPU);
	__type(key, u32);
	__type(value, struct pc_scratch);
} pc_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} pc_alerts SEC(".maps");

/*
 * File systems that a contained task has made anew: attaching them gives no second name to anything. Keyed by super block;
 * an entry that outlives its super block could only concern another fresh one, since the map is consulted for the same slot.
 */
struct pc_fresh {
	u32 slot;
	u32 epoch;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct pc_fresh);
} pc_fresh_sb SEC(".maps");

/* System calls that were told: what makes two of them the same, and when. */
struct pc_call_told {
	u64 started_ns; /* of the process, whose number is used again */
	u32 tgid;
	u32 slot;
	u32 epoch;
	u32 gen;
	u32 rule;
	u32 index;
};

struct pc_call_repeat {
	u64 since_ns;
	u64 repeats;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PC_CALL_REPEATS_MAX);
	__type(key, struct pc_call_told);
	__type(value, struct pc_call_repeat);
} pc_calls_told SEC(".maps");

/* Set by the loader. */
volatile const u32 pc_ladder = 2;      /* 1: bpf_rdonly_cast (6.2 and newer), 2: bpf_probe_read_kernel */
volatile const u32 pc_setattr_args = 3; /* arguments of bpf_lsm_inode_setattr */
volatile const u64 pc_rename_lock = 0; /* address of rename_lock, or 0 */
volatile const u64 pc_mount_lock = 0;  /* address of mount_lock, or 0 */

static __always_inline struct pc_stats *stats(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&pc_stats, &zero);
}

#endif
