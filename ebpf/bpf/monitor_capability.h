/* SPDX-License-Identifier: GPL-2.0-only */
/* Capabilities that a process uses or is refused. */
#ifndef PORTCULLIS_MONITOR_CAPABILITY_H
#define PORTCULLIS_MONITOR_CAPABILITY_H

#include "monitor_access.h"

/* The function's answer is the kernel's: 0 where the task has the capability and no module objects, -EPERM elsewhere. */
SEC("fexit/security_capable")
int BPF_PROG(pc_mon_capable, const struct cred *cred, void *ns, int capability, unsigned int options, int answer)
{
	struct pc_mon_scratch *s;
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_CAPABILITY))
		return 0;
	/*
	 * Without audit the kernel only asks which of two ways to go, as for each mapping (mm/util.c, __vm_enough_memory). With
	 * credentials that are not the task's own it acts for the task (an overlay copying a file up, access(2)), or asks about
	 * another one.
	 */
	if (options & CAP_OPT_NOAUDIT || d.task->cred != d.task->real_cred || cred != d.task->cred)
		return 0;
	d.key.arg[0] = capability;
	s = begin(&d, PC_OP_CAPABLE, answer);
	if (s)
		end(&d, s);
	return 0;
}

#endif
