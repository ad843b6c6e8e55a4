/* SPDX-License-Identifier: GPL-2.0-only */
/* The monitor's own maps. All are pinned. pc_tasks is that of enforcement, whichever of the two is loaded first. */
#ifndef PORTCULLIS_MONITOR_MAPS_H
#define PORTCULLIS_MONITOR_MAPS_H

#include "monitor_abi.h"
#include "read.h"
#include "task.h"

/* As in maps.h. */
#define PC_MON_DEPTH 256u
#define PC_MON_NAME_MAX 255u

/* Two paths and the arguments, or two paths and an address, with room for what the verifier can't rule out: offsets and lengths are kept in by masks. */
#define PC_MON_TEXT 16384u
#define PC_MON_TEXT_PATHS 0x1fffu

_Static_assert(2 * (PC_MON_PATH_MAX - 1) <= PC_MON_TEXT_PATHS, "arguments begin inside the mask");
_Static_assert(PC_MON_TEXT_PATHS + PC_MON_ARGS_MAX <= PC_MON_TEXT, "and end inside the text");

struct pc_mon_component {
	u64 name;
	u32 len;
	u32 zero;
};

/*
 * Working memory of one event, by PC_MON_SCRATCH_*. The first is for executions: a program of a tracepoint is not run while it is
 * already running on the same CPU (kernel/trace/bpf_trace.c, __bpf_trace_run), and only pc_mon_exec takes it. The programs
 * of accesses are many, and newer kernels let one be preempted by another: they claim one of the others.
 */
#define PC_MON_SCRATCH_EXEC 0u
#define PC_MON_SCRATCH_ACCESS 1u
#define PC_MON_SCRATCH_END 5u

struct pc_mon_scratch {
	/* in */
	u64 dentry;
	u64 mount;
	u64 root;
	u64 root_mount;
	/* climb */
	u64 at_dentry;
	u64 at_mount;
	u64 at_mount_root;
	u32 depth;
	u32 outcome;
	/* text */
	u32 at;     /* component, counts down */
	u32 bytes;  /* of the components that fit */
	u32 flags;  /* PC_MON_PATH_* */
	u32 length; /* of all text so far */
	struct pc_mon_component chain[PC_MON_DEPTH];
	u32 busy;
	u32 zero;
	union {
		struct pc_mon_process event;
		struct {
			u8 before[sizeof(struct pc_mon_process) - sizeof(struct pc_mon_access)];
			struct pc_mon_access access;
		};
	};
	u8 text[PC_MON_TEXT]; /* behind either */
};

_Static_assert(sizeof(struct pc_mon_scratch) <= 32768, "a value of a per-CPU map is no larger (include/linux/percpu.h)");
_Static_assert(sizeof(struct pc_mon_process) % 8 == 0, "the text follows the event without a gap");
_Static_assert(__builtin_offsetof(struct pc_mon_scratch, access) + sizeof(struct pc_mon_access) ==
		       __builtin_offsetof(struct pc_mon_scratch, text), "and an access");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PC_MON_SCRATCH_END);
	__type(key, u32);
	__type(value, struct pc_mon_scratch);
} pc_mon_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pc_mon_config);
} pc_mon_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pc_mon_stats);
} pc_mon_stats SEC(".maps");

/*
 * Of processes alone, and not the ring of the alerts: however many of them there are, they displace no denial.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} pc_mon_process SEC(".maps");

/* Of accesses alone: there are many more of them than of processes, and these must not be displaced either. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} pc_mon_access SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PC_MON_REPEATS_MAX);
	__type(key, struct pc_mon_repeat);
	__type(value, struct pc_mon_repeated);
} pc_mon_repeats SEC(".maps");

/* Cgroup id to PC_MON_CLASS_*. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PC_MON_OVERRIDES_MAX);
	__type(key, u64);
	__type(value, u32);
} pc_mon_override SEC(".maps");

/* Processes whose end was told just now: see pc_mon_exit. */
struct pc_mon_life {
	u64 started_ns;
	u32 tgid;
	u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct pc_mon_life);
	__type(value, u32);
} pc_mon_ended SEC(".maps");

/* Set by the loader. */
volatile const u64 pc_mon_build = 0;
volatile const u64 pc_rename_lock = 0; /* address of rename_lock, or 0 */
volatile const u64 pc_mount_lock = 0;  /* address of mount_lock, or 0 */

#endif
