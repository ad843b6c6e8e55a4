/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Birth, programs and end of processes. Tracepoints with typed arguments and not security hooks: they are there also where BPF is
 * no active security module, and nothing is decided here.
 */
#ifndef PORTCULLIS_MONITOR_PROCESS_H
#define PORTCULLIS_MONITOR_PROCESS_H

#include "monitor_path.h"
#include "monitor_see.h"

static __always_inline void tell_numbers(struct pc_mon_process *e, u64 pid, u64 parent)
{
	u32 level = read_u32(field_address(struct pid, level, pid));
	u64 number = number_at(pid, level), ns;

	ns = read_u64(field_address(struct upid, ns, number));
	e->ns_pid = read_u32(field_address(struct upid, nr, number));
	e->pid_ns = read_u32(field_address(struct pid_namespace, ns.inum, ns));
	number = number_at(parent, level);
	if (read_u32(field_address(struct pid, level, parent)) >= level && read_u64(field_address(struct upid, ns, number)) == ns)
		e->ns_parent = read_u32(field_address(struct upid, nr, number));
	else
		e->ns_parent = 0;
}

/* Fills in all but the number and the text. Returns 0 when nobody wants to know of this process. */
static __always_inline u32 describe(struct pc_mon_process *e, struct task_struct *task, u32 kind, struct pc_mon_config *cfg)
{
	struct task_struct *leader = task->group_leader, *parent = task->real_parent, *parent_leader = parent->group_leader;
	struct pc_task *label = bpf_task_storage_get(&pc_tasks, task, NULL, 0);
	u64 pid = (u64)leader->thread_pid;
	struct tty_struct *tty;

	if (task->flags & PF_KTHREAD || !(classes_of(cfg, task, label) & PC_MON_CLASS_PROCESS))
		return 0;
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->started_ns = leader->start_boottime;
	e->parent_started_ns = parent_leader->start_boottime;
	e->cgroup = task->cgroups->dfl_cgrp->kn->id;
	e->slot = label ? label->slot : PC_MON_NO_SLOT;
	e->epoch = label ? label->epoch : 0;
	e->tgid = task->tgid;
	e->tid = task->pid;
	e->parent = parent->tgid;
	tell_numbers(e, pid, (u64)parent_leader->thread_pid);
	e->mnt_ns = task->nsproxy->mnt_ns->ns.inum;
	e->uid = task->cred->uid.val;
	e->gid = task->cred->gid.val;
	e->loginuid = -1;
	e->sessionid = -1;
	if (bpf_core_field_exists(task->loginuid)) {
		e->loginuid = task->loginuid.val;
		e->sessionid = task->sessionid;
	}
	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), task->comm);
	tty = task->signal->tty;
	if (tty)
		bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), tty->name);
	return 1;
}

/* Numbers and sends. The number advances whether or not there was room: gaps are losses, to the unit. */
static __always_inline void send(struct pc_mon_process *e, u32 text)
{
	struct pc_mon_stats *st;
	u32 zero = 0;

	st = bpf_map_lookup_elem(&pc_mon_stats, &zero);
	if (!st)
		return;
	e->cpu = bpf_get_smp_processor_id();
	e->seq = __sync_fetch_and_add(&st->seq, 1);
	if (bpf_ringbuf_output(&pc_mon_process, e, sizeof(*e) + text, 0))
		__sync_fetch_and_add(&st->lost, 1);
}

/*
 * The arguments, from where the kernel has just put them (fs/exec.c, copy_strings): nothing of the new program has run, and no
 * other thread has its memory. So this is what it gets, whatever the caller does to its own memory meanwhile.
 */
static __always_inline void tell_args(struct pc_mon_scratch *s, struct mm_struct *mm)
{
	u64 start = mm->arg_start, len = mm->arg_end - start;

	if (len > PC_MON_ARGS_MAX) {
		len = PC_MON_ARGS_MAX;
		s->event.args_flags = PC_MON_ARGS_CUT;
	}
	len = bounded(len, PC_MON_TEXT_PATHS);
	if (bpf_probe_read_user(&s->text[bounded(s->length, PC_MON_TEXT_PATHS)], len, (void *)start)) {
		s->event.args_flags |= PC_MON_ARGS_UNREADABLE;
		return;
	}
	s->event.args_len = len;
	s->length += len;
}

/* Once for an execution, after the last interpreter was loaded, and only if it succeeded (fs/exec.c, exec_binprm). */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(pc_mon_exec, struct task_struct *task)
{
	struct pc_mon_scratch *s;
	struct mm_struct *mm;
	struct file *exe;
	struct pc_mon_config *cfg = visible(PC_MON_CLASS_PROCESS);
	u32 which = PC_MON_SCRATCH_EXEC;

	if (!cfg)
		return 0;
	s = bpf_map_lookup_elem(&pc_mon_scratch, &which);
	mm = task->mm;
	if (!s || !mm || !describe(&s->event, task, PC_MON_EXEC, cfg))
		return 0;
	tell_for(s, task);
	exe = mm->exe_file;
	if (exe) {
		s->event.exe_len = tell_path(s, (u64)exe->f_path.dentry, (u64)exe->f_path.mnt);
		s->event.exe_flags = s->flags;
	}
	s->event.cwd_len = tell_path(s, (u64)task->fs->pwd.dentry, (u64)task->fs->pwd.mnt);
	s->event.cwd_flags = s->flags;
	tell_args(s, mm);
	send(&s->event, bounded(s->length, PC_MON_TEXT - 1));
	return 0;
}

/* The fork can no longer fail (kernel/fork.c, copy_process), the child has its cgroup, and it has not run. */
SEC("tp_btf/task_newtask")
int BPF_PROG(pc_mon_fork, struct task_struct *child, unsigned long clone_flags)
{
	struct pc_mon_config *cfg = visible(PC_MON_CLASS_PROCESS);
	struct pc_mon_process e;

	if (!cfg || clone_flags & CLONE_THREAD)
		return 0;
	if (describe(&e, child, PC_MON_FORK, cfg))
		send(&e, 0);
	return 0;
}

/*
 * Each thread counts down signal->live before it comes here (kernel/exit.c, do_exit), so when the last two come at once both can
 * find none alive: the first to enter the process in pc_mon_ended tells. (Linux 6.16 passes an argument that says who it is;
 * one way for all is enough.)
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(pc_mon_exit, struct task_struct *task)
{
	struct pc_mon_config *cfg = visible(PC_MON_CLASS_PROCESS);
	struct pc_mon_process e;
	struct pc_mon_life life = {};
	struct signal_struct *signal;
	u32 one = 1, status;

	if (!cfg)
		return 0;
	signal = task->signal;
	if (signal->live.counter > 0)
		return 0;
	if (!describe(&e, task, PC_MON_EXIT, cfg))
		return 0;
	life.tgid = e.tgid;
	life.started_ns = e.started_ns;
	if (bpf_map_update_elem(&pc_mon_ended, &life, &one, BPF_NOEXIST) == -EEXIST)
		return 0;
	/* What wait(2) says (kernel/exit.c, wait_task_zombie). */
	status = task->group_leader->exit_code;
	asm volatile("" : "+r"(status)); /* else clang may choose between the two addresses, and the verifier wants one type for each load */
	if (signal->flags & SIGNAL_GROUP_EXIT)
		status = signal->group_exit_code;
	e.status = status;
	send(&e, 0);
	return 0;
}

#endif
