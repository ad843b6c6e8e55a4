/* SPDX-License-Identifier: GPL-2.0-only */
/* What is told of whom. */
#ifndef PORTCULLIS_MONITOR_SEE_H
#define PORTCULLIS_MONITOR_SEE_H

#include "monitor_maps.h"

#define PC_MON_PID_LEVELS 63u /* a mask: the kernel has 32 (MAX_PID_NS_LEVEL) */

/* The configuration if this class is told of anybody. The one look that everybody pays for. */
static __always_inline struct pc_mon_config *visible(u32 class)
{
	struct pc_mon_config *cfg;
	u32 zero = 0;

	cfg = bpf_map_lookup_elem(&pc_mon_config, &zero);
	if (!cfg || cfg->build != pc_mon_build || !(cfg->any & class))
		return NULL;
	return cfg;
}

/*
 * The classes that are told of a task: those of its cgroup, or of the nearest above it that has some of its own; else those of
 * where it belongs.
 */
static __always_inline u32 classes_of(struct pc_mon_config *cfg, struct task_struct *task, struct pc_task *label)
{
	struct cgroup *cgroup;
	u32 *found, i;

	if (cfg->overrides) {
		cgroup = task->cgroups->dfl_cgrp;
#pragma unroll
		for (i = 0; i < PC_MON_OVERRIDE_LEVELS; i++) {
			u64 id = cgroup->kn->id;

			found = bpf_map_lookup_elem(&pc_mon_override, &id);
			if (found)
				return *found;
			cgroup = cgroup->self.parent->cgroup; /* what is above the topmost reads as zero, and has no classes */
		}
	}
	if (label || task->group_leader->thread_pid->level)
		return cfg->containers;
	return cfg->host;
}

/* A process's number in one of its namespaces, at this address. */
static __always_inline u64 number_at(u64 pid, u32 level)
{
	return field_address(struct pid, numbers, pid) + bounded(level, PC_MON_PID_LEVELS) * bpf_core_type_size(struct upid);
}

#endif
