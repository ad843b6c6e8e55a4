/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A path as text. The climb of walk.h, with two differences: it ends at the task's own root directory (this is what the task would
 * call the file, and nothing is decided by it), and it always reads through bpf_probe_read_kernel, an exec being rare.
 */
#ifndef PORTCULLIS_MONITOR_PATH_H
#define PORTCULLIS_MONITOR_PATH_H

#include "monitor_maps.h"

#define PC_MON_FOUND 1u
#define PC_MON_OUTSIDE 2u
#define PC_MON_DEEP 3u

static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static long mon_climb_step(u32 index, struct pc_mon_scratch **context)
{
	struct pc_mon_scratch *s = *context;
	u64 dentry = s->at_dentry, mount = s->at_mount, up;

	if (dentry == s->root && mount == s->root_mount) {
		s->outcome = PC_MON_FOUND;
	} else if (s->depth >= PC_MON_DEPTH) {
		s->outcome = PC_MON_DEEP;
	} else if (dentry == s->at_mount_root) {
		up = read_u64(field_address(struct mount, mnt_parent, mount));
		if (up == mount || !up) {
			s->outcome = PC_MON_OUTSIDE;
		} else {
			s->at_dentry = read_u64(field_address(struct mount, mnt_mountpoint, mount));
			s->at_mount = up;
			s->at_mount_root = read_u64(field_address(struct mount, mnt.mnt_root, up));
		}
	} else {
		up = read_u64(field_address(struct dentry, d_parent, dentry));
		if (!up || (up == dentry && s->depth)) {
			s->outcome = PC_MON_OUTSIDE;
		} else {
			struct pc_mon_component *component = &s->chain[bounded(s->depth, PC_MON_DEPTH - 1)];

			component->name = read_u64(field_address(struct dentry, d_name.name, dentry));
			component->len = read_u32(field_address(struct dentry, d_name.len, dentry));
			s->depth += 1;
			if (up == dentry) /* what has no parent has a name all the same: memfd:x */
				s->outcome = PC_MON_OUTSIDE;
			else
				s->at_dentry = up;
		}
	}
	return s->outcome ? 1 : 0;
}

/* Counts from the leaf how many components fit. */
static long mon_total_step(u32 index, struct pc_mon_scratch **context)
{
	struct pc_mon_scratch *s = *context;
	u32 len;

	if (s->at >= s->depth)
		return 1;
	len = bounded(s->chain[bounded(s->at, PC_MON_DEPTH - 1)].len, PC_MON_NAME_MAX) + 1;
	if (s->bytes + len >= PC_MON_PATH_MAX)
		return 1;
	s->bytes += len;
	s->at += 1;
	return 0;
}

static long mon_text_step(u32 index, struct pc_mon_scratch **context)
{
	struct pc_mon_scratch *s = *context;
	struct pc_mon_component *c;
	u32 len;

	if (!s->at)
		return 1;
	s->at -= 1;
	c = &s->chain[bounded(s->at, PC_MON_DEPTH - 1)];
	len = bounded(c->len, PC_MON_NAME_MAX);
	s->text[bounded(s->length, PC_MON_TEXT_PATHS)] = '/';
	bpf_probe_read_kernel(&s->text[bounded(s->length + 1, PC_MON_TEXT_PATHS)], len, (void *)c->name);
	s->length += len + 1;
	return 0;
}

/* Appends the path of s->dentry and s->mount to the text. Returns 1 when a rename or a mount came between. */
__attribute__((noinline)) int pc_mon_path(struct pc_mon_scratch *s)
{
	u32 renames, mounts;

	if (!s)
		return 0;
	renames = pc_rename_lock ? read_u32(pc_rename_lock) : 0;
	mounts = pc_mount_lock ? read_u32(pc_mount_lock) : 0;
	s->at_dentry = s->dentry;
	s->at_mount = s->mount;
	s->at_mount_root = read_u64(field_address(struct mount, mnt.mnt_root, s->mount));
	s->depth = 0;
	s->outcome = 0;
	/* Mount crossings count as steps: twice the depth suffices. */
	bpf_loop(2 * PC_MON_DEPTH, mon_climb_step, &s, 0);
	s->at = 0;
	s->bytes = 0;
	bpf_loop(PC_MON_DEPTH, mon_total_step, &s, 0);
	s->flags = 0;
	if (s->at < s->depth || !s->outcome || s->outcome == PC_MON_DEEP)
		s->flags = PC_MON_PATH_CUT;
	if (s->outcome == PC_MON_OUTSIDE)
		s->flags |= PC_MON_PATH_OUTSIDE;
	bpf_loop(PC_MON_DEPTH, mon_text_step, &s, 0);
	if (!s->depth) {
		s->text[bounded(s->length, PC_MON_TEXT_PATHS)] = '/';
		s->length += 1;
	}
	asm volatile("" ::: "memory");
	if ((renames | mounts) & 1)
		return 1;
	if (pc_rename_lock && renames != read_u32(pc_rename_lock))
		return 1;
	if (pc_mount_lock && mounts != read_u32(pc_mount_lock))
		return 1;
	return 0;
}

#define PC_MON_TRIES 4

/* fs/d_path.c says (deleted) for the same. What has no parent is not hashed, and not gone: the root of a file system. */
static __always_inline bool lost_its_name(u64 dentry)
{
	return !read_u64(field_address(struct dentry, d_hash.pprev, dentry)) &&
	       read_u64(field_address(struct dentry, d_parent, dentry)) != dentry;
}

/* Paths are told as this task calls them. */
static __always_inline void tell_for(struct pc_mon_scratch *s, struct task_struct *task)
{
	s->root = (u64)task->fs->root.dentry;
	s->root_mount = (u64)task->fs->root.mnt - bpf_core_field_offset(struct mount, mnt);
	s->length = 0;
}

/* Appends the path of a name, whether anything has it or not; its flags are left in s->flags. Returns its length. */
static __always_inline u32 tell_name(struct pc_mon_scratch *s, u64 dentry, u64 vfsmount)
{
	u32 start = s->length, torn = 1;
	int i;

	s->dentry = dentry;
	s->mount = vfsmount - bpf_core_field_offset(struct mount, mnt);
#pragma clang loop unroll(disable)
	for (i = 0; i < PC_MON_TRIES; i++) {
		s->length = start;
		torn = pc_mon_path(s);
		if (!torn)
			break;
	}
	if (torn)
		s->flags |= PC_MON_PATH_TORN;
	return s->length - start;
}

/* The kernel's own mounts carry MNT_NS_INTERNAL, an error pointer. */
static __always_inline bool internal(u64 mount)
{
	return read_u64(field_address(struct mount, mnt_ns, mount)) >= (u64)-4095;
}

/* The same for something that exists. */
static __always_inline u32 tell_path(struct pc_mon_scratch *s, u64 dentry, u64 vfsmount)
{
	u32 length = tell_name(s, dentry, vfsmount);

	if (internal(s->mount)) /* of these only memfds and their like are executed */
		s->flags |= PC_MON_PATH_INTERNAL;
	else if (lost_its_name(dentry))
		s->flags |= PC_MON_PATH_UNLINKED;
	return length;
}

#endif
