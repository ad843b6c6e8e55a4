/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which system call a task is in, and what a policy says of its use of a path.
 *
 * The path is that of the hook which asks: the kernel's own, found once and for all, where the strings that a call is entered with
 * can be exchanged by another thread while they are read. The call is what the task's saved registers say, so nothing has to be
 * noted when it is entered, and a container without such rules pays nothing for those that have some.
 */
#ifndef PORTCULLIS_CALLS_H
#define PORTCULLIS_CALLS_H

#include "judge.h"

/* arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_SOCKETCALL 102u
#define I386_IPC 117u

/* Where the table of calls has a call: by its number, by how it was entered and, where several share a number, its first argument. */
static __always_inline u32 call_index(u32 number, bool compat, u32 first)
{
	if (compat) {
		if (number == I386_SOCKETCALL)
			return first < PC_CALL_ARGUMENTS ? PC_CALL_SOCKETCALL + first : PC_CALL_END;
		if (number == I386_IPC) {
			first &= 0xffff; /* a version is above it (ipc/syscall.c, ksys_ipc) */
			return first < PC_CALL_ARGUMENTS ? PC_CALL_IPC + first : PC_CALL_END;
		}
		return number < PC_CALL_NUMBERS ? PC_CALL_I386 + number : PC_CALL_END;
	}
	if (number & X32_SYSCALL_BIT) {
		number &= ~X32_SYSCALL_BIT;
		if (number >= PC_CALL_NUMBERS) {
			number -= PC_CALL_NUMBERS;
			return number < PC_CALL_ARGUMENTS ? PC_CALL_X32 + number : PC_CALL_END;
		}
	}
	return number < PC_CALL_NUMBERS ? PC_CALL_X86_64 + number : PC_CALL_END;
}

#ifdef __TARGET_ARCH_x86
static __always_inline u32 index_of(struct task_struct *task, u32 number, struct pt_regs *regs)
{
	return call_index(number, task->thread_info.status & TS_COMPAT, (u32)regs->bx);
}

/*
 * The call that the task is in. None for the workers of io_uring, whose registers are those of the thread that set the ring up, nor
 * for a task that dies: it writes its core file from within whatever it was doing.
 */
static __always_inline u32 call_under_way(struct task_struct *task)
{
	struct pt_regs *regs;

	if (task->flags & (PF_IO_WORKER | PF_DUMPCORE | PF_EXITING))
		return PC_CALL_END;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	return index_of(task, (u32)regs->orig_ax, regs);
}
#else
/* Rules name calls as x86-64 does; elsewhere they are reported as not enforced (policies/src/reasons.rs). */
static __always_inline u32 index_of(struct task_struct *task, u32 number, struct pt_regs *regs)
{
	return PC_CALL_END;
}

static __always_inline u32 call_under_way(struct task_struct *task)
{
	return PC_CALL_END;
}
#endif

static __always_inline u32 source_of(const struct view *v)
{
	return v->task->source < v->set->sources ? v->task->source : 0;
}

/* Where something is. In memory, because the verifier lets a global function have numbers and memory, and no pointer of the kernel's. */
struct pc_where {
	u64 dentry;
	u64 mount; /* struct mount, or 0 */
};

/* Tells the use of a path by the call under way, if a rule says so. Never denies: the return value means nothing. */
__attribute__((noinline)) int pc_call_path(u32 at, struct pc_where *where)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_segment *segment;
	struct pc_scratch *s;
	struct pc_stats *st;
	struct verdict said;
	struct view v;
	u32 id, index, word, class;

	if (!where || !view_of_current(&v) || orphan(&v))
		return 0;
	segment = segment_at(v.set->segment);
	index = call_under_way(task);
	if (!segment || index >= PC_CALL_END)
		return 0;
	word = word_at(segment, v.set->calls + index);
	class = PC_CALL_PATHS(word);
	if (!class || !(PC_CALL_AT(word) & at))
		return 0;
	s = begin_alert(&v, &id, PC_OP_SYSCALL);
	if (!s)
		return 0;
	s->dentry = where->dentry;
	s->mount = where->mount;
	s->event.arg[0] = index;
	s->state = word_at(segment, v.set->call_starts + s->source * v.set->call_classes + class - 1);
	locate(s, segment);
	if (s->outcome == PC_PATH_FOUND) {
		said = entry_at(segment, v.set, s->state, PC_CALLED);
		if (said.other == PC_AUDIT)
			pc_conclude(id, PC_AUDIT, said.rule, 1);
	} else {
		st = stats();
		if (st)
			__sync_fetch_and_add(&st->unresolved, 1);
	}
	release(s);
	return 0;
}

/* The same, for hooks: one look at the set's flags where there are no such rules. */
static __always_inline void tell_call(const struct view *v, u32 at, struct vfsmount *mnt, struct dentry *dentry)
{
	if (v->set->flags & PC_SET_CALL_PATHS) {
		struct pc_where where = { .dentry = (u64)dentry, .mount = mnt ? mount_of(mnt) : 0 };

		pc_call_path(at, &where);
	}
}

#endif
