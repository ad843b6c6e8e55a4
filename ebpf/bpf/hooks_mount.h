/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What gives a file a second name without touching the first: mounts. A contained task whose policy can deny paths gets no
 * bind mounts, moves, pivot_root, nor file systems that show what is already there (overlay, FUSE, the block device again).
 * Fresh, empty file systems and the kernel's own are let through where nothing that is protected would be hidden by them.
 */
#ifndef PORTCULLIS_HOOKS_MOUNT_H
#define PORTCULLIS_HOOKS_MOUNT_H

#include "hooks_file.h"

static __always_inline bool same(const char *name, const char *wanted, int len)
{
	int i;

	for (i = 0; i < len; i++)
		if (name[i] != wanted[i])
			return false;
	return true;
}

#define is_type(name, wanted) same(name, wanted, sizeof(wanted))

/* File systems that can show nothing under a new name which a rule of this set speaks of. */
static __always_inline bool harmless_type(const char *type, u32 set_flags)
{
	char name[16] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), type);
	if (is_type(name, "proc"))
		return !(set_flags & PC_SET_PROC_RULES);
	if (is_type(name, "sysfs"))
		return !(set_flags & PC_SET_SYS_RULES);
	return is_type(name, "tmpfs") || is_type(name, "ramfs") || is_type(name, "devpts") || is_type(name, "mqueue") ||
	       is_type(name, "cgroup") || is_type(name, "cgroup2");
}

static __always_inline int refuse(struct view *v, u32 op, u32 rule)
{
	struct pc_scratch *s;
	u32 id;
	int denied;

	s = begin(v, &id, op);
	if (!s)
		return -EPERM;
	denied = pc_conclude(id, PC_BLOCK, rule, 0);
	release(s);
	if (denied)
		return -EPERM;
	return 0;
}

/* Mounting on a place changes it, and all that is below it: nothing there may be protected from change. */
static __always_inline int covers(struct view *v, const struct path *at, u32 op)
{
	struct pc_segment *segment = segment_at(v->set->segment);
	struct pc_scratch *s;
	u32 id;
	int denied = 0;
	u32 below;

	s = begin(v, &id, op);
	if (!s || !segment)
		return -EPERM;
	s->dentry = (u64)at->dentry;
	s->mount = mount_of(at->mnt);
	s->inode = (u64)at->dentry->d_inode;
	s->groups = G_CHANGE;
	pc_find(id);
	denied = pc_judge(id);
	if (!denied && s->outcome == PC_PATH_FOUND) {
		below = PC_SUB_ANY(column_at(segment, s->state, PC_ROW_SUBTREE));
		if (below & (3u << (2 * PC_CHANGE)))
			denied = pc_conclude(id, PC_BLOCK, PC_RULE_ALIAS, 1);
	}
	release(s);
	if (denied)
		return -EPERM;
	return 0;
}

static __always_inline bool mounts_matter(struct view *v)
{
	return v->set->flags & PC_SET_BLOCKS_PATHS || orphan(v);
}

SEC("lsm/sb_mount")
int BPF_PROG(pc_sb_mount, const char *device, const struct path *path, const char *type, unsigned long flags)
{
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_MOUNT, path->mnt, path->dentry);
	if (!mounts_matter(&v))
		return 0;
	if (flags & MS_REMOUNT || (flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE) && !(flags & (MS_BIND | MS_MOVE))))
		return 0;
	/* The source of a bind mount is a string here that the kernel resolves later: nothing that could be judged. */
	if (flags & (MS_BIND | MS_MOVE) || !type || !harmless_type(type, v.set->flags))
		return refuse(&v, PC_OP_MOUNT, PC_RULE_ALIAS);
	return covers(&v, path, PC_OP_MOUNT);
}

/* Asked for every new file system, by mount(2) and by fsmount(2). */
SEC("lsm/sb_kern_mount")
int BPF_PROG(pc_sb_kern_mount, struct super_block *sb)
{
	struct pc_fresh fresh = {};
	u64 key = (u64)sb;
	struct view v;

	if (!view_of_current(&v) || !mounts_matter(&v)) {
		bpf_map_delete_elem(&pc_fresh_sb, &key);
		return 0;
	}
	if (!harmless_type(sb->s_type->name, v.set->flags))
		return refuse(&v, PC_OP_MOUNT, PC_RULE_ALIAS);
	fresh.slot = v.task->slot;
	fresh.epoch = v.task->epoch;
	bpf_map_update_elem(&pc_fresh_sb, &key, &fresh, BPF_ANY);
	return 0;
}

SEC("lsm/move_mount")
int BPF_PROG(pc_move_mount, const struct path *from, const struct path *to)
{
	struct pc_fresh *fresh;
	u64 key;
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_MOUNT, from->mnt, from->dentry);
	tell_call(&v, PC_AT_MOUNT, to->mnt, to->dentry);
	if (!mounts_matter(&v))
		return 0;
	key = (u64)from->mnt->mnt_sb;
	fresh = bpf_map_lookup_elem(&pc_fresh_sb, &key);
	if (!fresh || fresh->slot != v.task->slot || fresh->epoch != v.task->epoch)
		return refuse(&v, PC_OP_MOVE_MOUNT, PC_RULE_ALIAS);
	return covers(&v, to, PC_OP_MOVE_MOUNT);
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(pc_sb_pivotroot, const struct path *old, const struct path *new)
{
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_MOUNT, new->mnt, new->dentry);
	tell_call(&v, PC_AT_MOUNT, old->mnt, old->dentry);
	if (!mounts_matter(&v))
		return 0;
	return refuse(&v, PC_OP_PIVOT_ROOT, PC_RULE_ALIAS);
}

/* Decides nothing: a path is told from the container's root, wherever the caller's is. */
SEC("lsm/path_chroot")
int BPF_PROG(pc_path_chroot, const struct path *path)
{
	struct view v;

	if (view_of_current(&v))
		tell_call(&v, PC_AT_MOUNT, path->mnt, path->dentry);
	return 0;
}

SEC("lsm/sb_umount")
int BPF_PROG(pc_sb_umount, struct vfsmount *mnt)
{
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_MOUNT, mnt, mnt->mnt_root);
	if (!holds_pins(mnt->mnt_sb))
		return 0;
	return refuse(&v, PC_OP_UMOUNT, PC_RULE_GUARD);
}

#endif
