/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Execution, and with it the birth, inheritance and end of identity.
 *
 * bprm_check_security is asked for the script and again for its interpreter, and each must be allowed. The exec that labels a
 * container's first task is itself the first decision: an entrypoint that is denied never runs an instruction.
 */
#ifndef PORTCULLIS_HOOKS_EXEC_H
#define PORTCULLIS_HOOKS_EXEC_H

#include "hooks_file.h"

/* A file that is executed: by its name, by a descriptor, or nameless. */
static __always_inline int judge_exec(struct view *v, struct file *file, u32 op)
{
	struct dentry *dentry = file->f_path.dentry;
	struct pc_scratch *s;
	u32 id;
	int denied;

	s = begin(v, &id, op);
	if (!s)
		return -EACCES;
	s->dentry = (u64)dentry;
	s->mount = mount_of(file->f_path.mnt);
	s->inode = (u64)file->f_inode;
	s->groups = G_EXEC;
	s->unlinked = !file->f_inode->i_nlink || !dentry->d_hash.pprev;
	if (orphan(v)) {
		denied = pc_conclude(id, PC_BLOCK, PC_RULE_ORPHAN, 0);
	} else if (internal_mount(file->f_path.mnt)) {
		/* A memfd: no rule can name it, an allow-list doesn't list it. */
		s->outcome = PC_PATH_INTERNAL;
		s->depth = 0;
		denied = pc_conclude(id, (v->set->unmatched >> (8 * PC_EXEC)) & 0xff, PC_RULE_POSTURE, 0);
	} else {
		denied = pc_decide(id, s, v->set);
	}
	release(s);
	if (denied)
		return -EACCES;
	return 0;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(pc_bprm_check, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool began = identity(task);
	struct view v;

	if (!began) {
		int labelled = label(task);

		if (!labelled)
			return 0;
		if (labelled < 0)
			return -ENOMEM;
	}
	if (!view_of_current(&v))
		return 0;
	/* The call that gives the label was still the runtime's. */
	if (began)
		tell_call(&v, PC_AT_EXEC, bprm->file->f_path.mnt, bprm->file->f_path.dentry);
	if (!(v.set->flags & PC_SET_PROCESS) && !orphan(&v))
		return 0;
	return judge_exec(&v, bprm->file, PC_OP_EXEC);
}

/*
 * Is it a program loader that is run by hand (`ld.so /bin/x`)? Such a file is a shared object whose first program header is
 * neither PT_PHDR nor PT_INTERP, which a dynamic executable's is. Static-pie programs look the same and are treated the same:
 * what they map as code is judged, and they rarely map any.
 */
static __always_inline bool is_loader(struct linux_binprm *bprm)
{
	u8 head[72] = {};
	u16 type;
	u64 phoff;
	u32 first;

	bpf_probe_read_kernel(head, sizeof(head), (void *)field_address(struct linux_binprm, buf, (u64)bprm));
	type = *(u16 *)(head + 16);
	phoff = *(u64 *)(head + 32);
	first = *(u32 *)(head + 64);
	if (head[0] != 0x7f || head[1] != 'E' || head[4] != 2 || type != 3)
		return false;
	return phoff != 64 || (first != 6 && first != 3);
}

SEC("lsm/bprm_committed_creds")
int BPF_PROG(pc_bprm_committed, struct linux_binprm *bprm)
{
	struct pc_scratch *s;
	struct view v;
	u16 source = 0;
	u32 id, gen;

	if (!view_of_current(&v))
		return 0;
	gen = v.policy.gen;
	v.task->flags = 0;
	if (is_loader(bprm))
		v.task->flags |= PC_TASK_LOADER;
	if (v.set->sources > 1) {
		s = claim(&id);
		if (s) {
			source = classify(s, v.slot, v.set, bprm->file);
			release(s);
		} else {
			gen -= 1; /* no memory: the next decision looks again, or rules for this program would not bind it */
		}
	}
	v.task->source = source;
	v.task->gen = gen;
	return 0;
}

SEC("lsm/mmap_file")
int BPF_PROG(pc_mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_task *t;
	struct view v;

	if (!file || !(prot & PROT_EXEC))
		return 0;
	t = identity(task);
	if (!t || !(t->flags & PC_TASK_LOADER) || task->mm->exe_file == file)
		return 0;
	if (!view_of_current(&v) || !(v.set->flags & PC_SET_PROCESS))
		return 0;
	return judge_exec(&v, file, PC_OP_MAP_EXEC);
}

/* ---- inheritance -------------------------------------------------------------------------------------------------------- */

SEC("lsm/task_alloc")
int BPF_PROG(pc_task_alloc, struct task_struct *child, unsigned long clone_flags)
{
	struct pc_task *parent = identity(bpf_get_current_task_btf()), copy;

	if (!parent)
		return 0;
	copy = *parent;
	if (!bpf_task_storage_get(&pc_tasks, child, &copy, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	return 0;
}

/*
 * Run by a door in its own context (BPF_PROG_TEST_RUN): notes in the slot what only the kernel can see of the runtime. label()
 * tells by it the runtime's own set-up from the workload.
 */
SEC("raw_tp/sys_enter")
int pc_stamp(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pc_slot *slot = slot_at((u32)ctx->args[0]);

	if (!slot)
		return 0;
	slot->runtime_root = (u64)task->fs->root.dentry;
	slot->runtime_mntns = task->nsproxy->mnt_ns->ns.inum;
	return 1;
}

#endif
