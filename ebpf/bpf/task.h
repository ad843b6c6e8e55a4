/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose task this is: the one map that the programs of enforcement and those of the monitor share. */
#ifndef PORTCULLIS_TASK_H
#define PORTCULLIS_TASK_H

#include "kernel.h"

/* Identity of a task. Set once, inherited by fork, never dropped: see identity.h. */
struct pc_task {
	u32 slot;
	u32 epoch;
	u32 gen;    /* slot generation for which source was found */
	u16 source; /* source class of the current executable */
	u16 flags;
};
#define PC_TASK_LOADER 0x1u  /* runs a program loader by hand: what it maps as code is an execution */

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pc_task);
} pc_tasks SEC(".maps");

#endif
