/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files: decided when a name is used (open, create, unlink, rename, ...) by the access that is asked for; never per read or
 * write. io_uring, openat2, open_by_handle_at and compat calls all end in these hooks.
 *
 * Bypasses closed here: aliases by link and rename (pc_alias), descriptors passed over sockets (file_receive), io_uring
 * workers (identity is inherited), truncation without a writable open (file_truncate), O_TMPFILE + linkat (path_link).
 */
#ifndef PORTCULLIS_HOOKS_FILE_H
#define PORTCULLIS_HOOKS_FILE_H

#include "calls.h"

/* include/uapi/linux/magic.h */
#define BPF_FS_MAGIC 0xcafe4a11

#define G_READ (1u << PC_READ)
#define G_CHANGE (1u << PC_CHANGE)
#define G_EXEC (1u << PC_EXEC)

/* Mounts of the kernel's own (pipes, memfds, the layers of an overlay) carry MNT_NS_INTERNAL, an error pointer. */
static __always_inline bool internal_mount(struct vfsmount *mnt)
{
	return peek(field_address(struct mount, mnt_ns, mount_of(mnt))) >= (u64)-4095;
}

/* The file system that holds our pins is nobody's business inside a container, whatever its policy. */
static __always_inline bool holds_pins(struct super_block *sb)
{
	struct pc_config *cfg;

	/* Hardly any file lies in a bpffs: the look-up is for those that do. */
	if (sb->s_magic != BPF_FS_MAGIC)
		return false;
	cfg = config();
	return cfg && cfg->pin_dev && sb->s_dev == cfg->pin_dev;
}

/* Judges one path for the calling task. */
static __always_inline int judge_path(struct view *v, struct vfsmount *mnt, struct dentry *dentry, u64 inode, u32 groups, u32 op)
{
	struct pc_scratch *s;
	u32 id;
	int denied;

	s = begin(v, &id, op);
	if (!s)
		return -EACCES;
	s->dentry = (u64)dentry;
	s->mount = mnt ? mount_of(mnt) : 0;
	s->inode = inode;
	s->groups = groups;
	if (holds_pins(dentry->d_sb)) {
		denied = pc_conclude(id, PC_BLOCK, PC_RULE_GUARD, 0);
	} else if (orphan(v)) {
		denied = pc_conclude(id, PC_BLOCK, PC_RULE_ORPHAN, 0);
	} else if (!(v->set->flags & PC_SET_FILE)) {
		denied = 0;
	} else {
		denied = pc_decide(id, s, v->set);
	}
	release(s);
	if (denied)
		return -EACCES;
	return 0;
}

/* Whether a path operation needs a look at all. */
static __always_inline bool concerned(struct view *v, struct super_block *sb)
{
	return v->set->flags & PC_SET_FILE || orphan(v) || holds_pins(sb);
}

static __always_inline int judge_file(struct file *file, u32 op, u32 at)
{
	struct view v;
	struct dentry *dentry;
	u32 groups = 0;

	if (!view_of_current(&v))
		return 0;
	dentry = file->f_path.dentry;
	if (!concerned(&v, dentry->d_sb) && !(at && v.set->flags & PC_SET_CALL_PATHS))
		return 0;
	/*
	 * An overlay opens its layer's file behind the one that was asked for. Before 6.5 that second file carries the overlay's
	 * path with the layer's inode; since then it lies on a private mount (backing_file_open, fs/backing-file.c).
	 */
	if (file->f_inode->i_sb != dentry->d_sb || internal_mount(file->f_path.mnt))
		return 0;
	if (at)
		tell_call(&v, at, file->f_path.mnt, dentry);
	if (!concerned(&v, dentry->d_sb))
		return 0;
	if (file->f_mode & FMODE_READ)
		groups |= G_READ;
	if (file->f_mode & FMODE_WRITE || file->f_flags & O_TRUNC) {
		groups |= G_CHANGE;
		if (op == PC_OP_READ)
			op = PC_OP_WRITE;
	}
	return judge_path(&v, file->f_path.mnt, dentry, (u64)file->f_inode, groups, op);
}

SEC("lsm/file_open")
int BPF_PROG(pc_file_open, struct file *file)
{
	/* Opened to be executed: a process operation, judged in hooks_exec.h. */
	if (file->f_flags & FMODE_EXEC_FLAG)
		return 0;
	return judge_file(file, PC_OP_READ, PC_AT_OPEN);
}

SEC("lsm/file_receive")
int BPF_PROG(pc_file_receive, struct file *file)
{
	return judge_file(file, PC_OP_RECEIVE, 0);
}

/* Changes of one name. */
static __always_inline int change(struct vfsmount *mnt, struct dentry *dentry, u32 op, u32 at)
{
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, at, mnt, dentry);
	if (!concerned(&v, dentry->d_sb) || (mnt && internal_mount(mnt)))
		return 0;
	return judge_path(&v, mnt, dentry, (u64)dentry->d_inode, G_CHANGE, op);
}

SEC("lsm/path_mknod")
int BPF_PROG(pc_path_mknod, const struct path *dir, struct dentry *dentry, unsigned short mode)
{
	/* vfs_create asks here too: S_IFREG or no type is open(O_CREAT). */
	if ((mode & 0170000) == 0100000 || !(mode & 0170000))
		return change(dir->mnt, dentry, PC_OP_CREATE, PC_AT_NAME);
	return change(dir->mnt, dentry, PC_OP_MKNOD, PC_AT_NAME);
}

SEC("lsm/path_mkdir")
int BPF_PROG(pc_path_mkdir, const struct path *dir, struct dentry *dentry)
{
	return change(dir->mnt, dentry, PC_OP_MKDIR, PC_AT_NAME);
}

SEC("lsm/path_symlink")
int BPF_PROG(pc_path_symlink, const struct path *dir, struct dentry *dentry)
{
	return change(dir->mnt, dentry, PC_OP_SYMLINK, PC_AT_NAME);
}

SEC("lsm/path_unlink")
int BPF_PROG(pc_path_unlink, const struct path *dir, struct dentry *dentry)
{
	return change(dir->mnt, dentry, PC_OP_UNLINK, PC_AT_NAME);
}

SEC("lsm/path_rmdir")
int BPF_PROG(pc_path_rmdir, const struct path *dir, struct dentry *dentry)
{
	return change(dir->mnt, dentry, PC_OP_RMDIR, PC_AT_NAME);
}

SEC("lsm/path_chmod")
int BPF_PROG(pc_path_chmod, const struct path *path)
{
	return change(path->mnt, path->dentry, PC_OP_CHMOD, PC_AT_ATTRIBUTE);
}

SEC("lsm/path_chown")
int BPF_PROG(pc_path_chown, const struct path *path)
{
	return change(path->mnt, path->dentry, PC_OP_CHOWN, PC_AT_ATTRIBUTE);
}

SEC("lsm/path_truncate")
int BPF_PROG(pc_path_truncate, const struct path *path)
{
	return change(path->mnt, path->dentry, PC_OP_TRUNCATE, PC_AT_ATTRIBUTE);
}

/* 6.2 and newer: ftruncate and open(O_TRUNC) go here and no longer through path_truncate. */
SEC("lsm/file_truncate")
int BPF_PROG(pc_file_truncate, struct file *file)
{
	if (file->f_inode->i_sb != file->f_path.dentry->d_sb)
		return 0;
	return change(file->f_path.mnt, file->f_path.dentry, PC_OP_TRUNCATE, PC_AT_ATTRIBUTE);
}

/*
 * Attributes that have no path hook. There is no mount to climb through, so only what lies under the container's root by its
 * dentries alone has a name here; files of a volume have none and pass (SECURITY.md).
 */
static __always_inline int change_inode(struct dentry *dentry, u32 op)
{
	struct pc_scratch *s;
	struct view v;
	u32 id;
	int denied = 0;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_ATTRIBUTE, NULL, dentry);
	if (!(v.set->flags & PC_SET_FILE))
		return 0;
	s = begin(&v, &id, op);
	if (!s)
		return -EACCES;
	s->dentry = (u64)dentry;
	s->mount = 0;
	s->inode = (u64)dentry->d_inode;
	s->groups = G_CHANGE;
	pc_find(id);
	if (s->outcome == PC_PATH_FOUND)
		denied = pc_judge(id);
	release(s);
	if (denied)
		return -EACCES;
	return 0;
}

/*
 * utimes(2) only: modes, owners and sizes come through the path hooks above. The hook gained the mount's idmap as its first
 * argument in 6.9 (evm became an LSM); the loader tells from the kernel's BTF how many arguments there are.
 */
/* By an instruction that clang can't merge with its neighbour: a context is read at constant offsets only. */
#define argument(ctx, n)                                                                                                 \
	({                                                                                                               \
		u64 __value;                                                                                             \
		asm volatile("%[v] = *(u64 *)(%[c] + %[o])" : [v] "=r"(__value) : [c] "r"(ctx), [o] "i"(8 * (n)));        \
		(void *)__value;                                                                                         \
	})

SEC("lsm/inode_setattr")
int pc_inode_setattr(unsigned long long *ctx)
{
	struct dentry *dentry;
	struct iattr *attr;

	if (pc_setattr_args == 3) {
		dentry = argument(ctx, 1);
		attr = argument(ctx, 2);
	} else {
		dentry = argument(ctx, 0);
		attr = argument(ctx, 1);
	}
	if (!(attr->ia_valid & (ATTR_ATIME_SET | ATTR_MTIME_SET | ATTR_TOUCH)))
		return 0;
	return change_inode(dentry, PC_OP_SETATTR);
}

/* These have had the idmap (once the user namespace) first since 5.12. */
SEC("lsm/inode_setxattr")
int BPF_PROG(pc_inode_setxattr, void *idmap, struct dentry *dentry)
{
	return change_inode(dentry, PC_OP_SETXATTR);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(pc_inode_removexattr, void *idmap, struct dentry *dentry)
{
	return change_inode(dentry, PC_OP_SETXATTR);
}

SEC("lsm/inode_set_acl")
int BPF_PROG(pc_inode_set_acl, void *idmap, struct dentry *dentry)
{
	return change_inode(dentry, PC_OP_SETXATTR);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(pc_inode_remove_acl, void *idmap, struct dentry *dentry)
{
	return change_inode(dentry, PC_OP_SETXATTR);
}

/* ---- second names --------------------------------------------------------------------------------------------------------- */

static __always_inline bool is_dir(struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;

	return inode && (inode->i_mode & 0170000) == 0040000;
}

/*
 * The object at (mnt, from) gets the name (mnt, to). Both are judged as changes where `both` says so, and the new name must
 * not let through what the old one denies.
 */
static __always_inline int second_name(struct view *v, struct vfsmount *from_mnt, struct dentry *from, struct vfsmount *to_mnt,
				       struct dentry *to, bool both, u32 op)
{
	struct pc_scratch *s;
	u64 inode = (u64)from->d_inode;
	bool files = v->set->flags & PC_SET_FILE, unnamed;
	u32 id;
	int denied = 0;

	s = begin(v, &id, op);
	if (!s)
		return -EACCES;
	s->groups = G_CHANGE;
	s->is_dir = is_dir(from);
	s->inode = inode;
	if (holds_pins(to->d_sb)) {
		denied = pc_conclude(id, PC_BLOCK, PC_RULE_GUARD, 0);
	} else if (orphan(v)) {
		denied = pc_conclude(id, PC_BLOCK, PC_RULE_ORPHAN, 0);
	} else {
		s->dentry = (u64)from;
		s->mount = mount_of(from_mnt);
		pc_find(id);
		s->old_state = s->state;
		s->old_name_state = s->name_state;
		unnamed = s->outcome != PC_PATH_FOUND;
		if ((both && files) || unnamed)
			denied = pc_judge(id);
		if (!denied) {
			s->dentry = (u64)to;
			s->mount = mount_of(to_mnt);
			pc_find(id);
			if (files || s->outcome != PC_PATH_FOUND)
				denied = pc_judge(id);
			if (!denied && !unnamed && s->outcome == PC_PATH_FOUND && v->set->flags & PC_SET_BLOCKS_PATHS)
				denied = pc_alias(id);
		}
	}
	release(s);
	if (denied)
		return -EACCES;
	return 0;
}

static __always_inline bool names_matter(struct view *v, struct super_block *sb)
{
	return concerned(v, sb) || v->set->flags & PC_SET_BLOCKS_PATHS;
}

SEC("lsm/path_link")
int BPF_PROG(pc_path_link, struct dentry *from, const struct path *dir, struct dentry *to)
{
	struct view v;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_NAME, dir->mnt, from);
	tell_call(&v, PC_AT_NAME, dir->mnt, to);
	if (!names_matter(&v, to->d_sb) || internal_mount(dir->mnt))
		return 0;
	/* link(2) demands one mount for both names, so the directory's is the old name's too. */
	return second_name(&v, dir->mnt, from, dir->mnt, to, true, PC_OP_LINK);
}

SEC("lsm/path_rename")
int BPF_PROG(pc_path_rename, const struct path *from_dir, struct dentry *from, const struct path *to_dir, struct dentry *to,
	     unsigned int flags)
{
	struct view v;
	int denied;

	if (!view_of_current(&v))
		return 0;
	tell_call(&v, PC_AT_NAME, from_dir->mnt, from);
	tell_call(&v, PC_AT_NAME, to_dir->mnt, to);
	if (!names_matter(&v, to->d_sb) || internal_mount(to_dir->mnt))
		return 0;
	/* An exchange asks this hook twice on kernels up to 5.18, and passes the flag afterwards: both ways are judged here. */
	denied = second_name(&v, from_dir->mnt, from, to_dir->mnt, to, true, PC_OP_RENAME);
	if (!denied && flags & RENAME_EXCHANGE)
		denied = second_name(&v, to_dir->mnt, to, from_dir->mnt, from, false, PC_OP_RENAME);
	if (denied)
		return -EACCES;
	return 0;
}

#endif
