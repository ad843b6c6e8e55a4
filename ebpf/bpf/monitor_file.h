/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files: where a name is used, by what is asked for, as in hooks_file.h; never per read or write. io_uring, openat2,
 * open_by_handle_at and compat calls all come by here.
 */
#ifndef PORTCULLIS_MONITOR_FILE_H
#define PORTCULLIS_MONITOR_FILE_H

#include "monitor_access.h"

/* As the object of a repeat: the same file by the same name. */
struct file_object {
	u64 inode;
	u64 dentry;
	u64 mount;
	u32 device;
	u32 generation; /* numbers of inodes are used again */
};

#define PC_MON_SHORT_NAME 31u

/* A name in a directory, whether there is something of that name or not. Longer ones are never taken for the same. */
struct name_object {
	u64 directory;
	u32 device;
	u32 len;
	u8 name[PC_MON_SHORT_NAME + 1];
};

_Static_assert(sizeof(struct file_object) <= PC_MON_OBJECT_MAX, "an object fits");
_Static_assert(sizeof(struct name_object) <= PC_MON_OBJECT_MAX, "and a name");
_Static_assert(__builtin_offsetof(struct pc_mon_repeat, object) % 8 == 0, "where its words are aligned");

/* Opens of what nobody can name: pipes, memfds, and the layers of an overlay, which are opened behind what was asked for. */
static __always_inline bool nameless(struct file *file)
{
	return file->f_inode->i_sb != file->f_path.dentry->d_sb || internal(mount_of(file->f_path.mnt));
}

static __always_inline void file_is_object(struct doing *d, struct dentry *dentry, struct vfsmount *mnt)
{
	struct file_object *object = (struct file_object *)d->key.object;

	object->inode = dentry->d_inode->i_ino;
	object->generation = dentry->d_inode->i_generation;
	object->device = dentry->d_sb->s_dev;
	object->dentry = (u64)dentry;
	object->mount = (u64)mnt;
	d->key.object_len = sizeof(*object);
}

static __always_inline void name_is_object(struct doing *d, struct dentry *dentry)
{
	struct name_object *object = (struct name_object *)d->key.object;
	u32 len = dentry->d_name.len;

	if (len > PC_MON_SHORT_NAME) {
		d->key.object_len = PC_MON_EACH;
		return;
	}
	object->directory = dentry->d_parent->d_inode->i_ino;
	object->device = dentry->d_sb->s_dev;
	object->len = len;
	bpf_probe_read_kernel(object->name, bounded(len, PC_MON_SHORT_NAME), dentry->d_name.name);
	d->key.object_len = sizeof(*object);
}

/* What is there already. */
static __always_inline void tell_file(struct doing *d, struct dentry *dentry, struct vfsmount *mnt, u32 op, int answer)
{
	struct pc_mon_scratch *s;

	file_is_object(d, dentry, mnt);
	s = begin(d, op, answer);
	if (!s)
		return;
	s->access.path_len = tell_path(s, (u64)dentry, (u64)mnt);
	s->access.path_flags = s->flags;
	end(d, s);
}

/* A name that comes or goes. */
static __always_inline void tell_one_name(struct doing *d, const struct path *dir, struct dentry *dentry, u32 op, int answer)
{
	struct pc_mon_scratch *s;

	name_is_object(d, dentry);
	s = begin(d, op, answer);
	if (!s)
		return;
	s->access.path_len = tell_name(s, (u64)dentry, (u64)dir->mnt);
	s->access.path_flags = s->flags;
	end(d, s);
}

/* Something gets a second name or another one. Each is told: it would be the same only with four things the same. */
static __always_inline void tell_two_names(struct doing *d, struct dentry *from, struct vfsmount *from_mnt, struct dentry *to,
					   struct vfsmount *to_mnt, u32 op, int answer)
{
	struct pc_mon_scratch *s;

	d->key.object_len = PC_MON_EACH;
	s = begin(d, op, answer);
	if (!s)
		return;
	s->access.path_len = tell_name(s, (u64)from, (u64)from_mnt);
	s->access.path_flags = s->flags;
	s->access.second_len = tell_name(s, (u64)to, (u64)to_mnt);
	s->access.second_flags = s->flags;
	end(d, s);
}

SEC("fexit/security_file_open")
int BPF_PROG(pc_mon_open, struct file *file, int answer)
{
	struct doing d;
	u32 op = PC_OP_READ;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	/* Opened to be executed: that is told of the process. */
	if (file->f_flags & FMODE_EXEC_FLAG || nameless(file))
		return 0;
	if (file->f_mode & FMODE_WRITE || file->f_flags & O_TRUNC)
		op = PC_OP_WRITE;
	d.key.arg[0] = file->f_flags;
	tell_file(&d, file->f_path.dentry, file->f_path.mnt, op, answer);
	return 0;
}

SEC("fexit/security_path_mknod")
int BPF_PROG(pc_mon_mknod, const struct path *dir, struct dentry *dentry, unsigned short mode, unsigned int device, int answer)
{
	struct doing d;
	u32 op = PC_OP_MKNOD;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	if ((mode & 0170000) == 0100000 || !(mode & 0170000)) /* open(O_CREAT) asks here too */
		op = PC_OP_CREATE;
	d.key.arg[0] = mode;
	d.key.arg[1] = device;
	tell_one_name(&d, dir, dentry, op, answer);
	return 0;
}

SEC("fexit/security_path_mkdir")
int BPF_PROG(pc_mon_mkdir, const struct path *dir, struct dentry *dentry, unsigned short mode, int answer)
{
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	d.key.arg[0] = mode;
	tell_one_name(&d, dir, dentry, PC_OP_MKDIR, answer);
	return 0;
}

SEC("fexit/security_path_unlink")
int BPF_PROG(pc_mon_unlink, const struct path *dir, struct dentry *dentry, int answer)
{
	struct doing d;

	if (seen(&d, PC_MON_CLASS_FILE))
		tell_one_name(&d, dir, dentry, PC_OP_UNLINK, answer);
	return 0;
}

SEC("fexit/security_path_rmdir")
int BPF_PROG(pc_mon_rmdir, const struct path *dir, struct dentry *dentry, int answer)
{
	struct doing d;

	if (seen(&d, PC_MON_CLASS_FILE))
		tell_one_name(&d, dir, dentry, PC_OP_RMDIR, answer);
	return 0;
}

/* What it leads to is the kernel's copy of the caller's string (fs/namei.c, do_symlinkat). */
SEC("fexit/security_path_symlink")
int BPF_PROG(pc_mon_symlink, const struct path *dir, struct dentry *dentry, const char *target, int answer)
{
	struct pc_mon_scratch *s;
	struct doing d;
	long len;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	d.key.object_len = PC_MON_EACH;
	s = begin(&d, PC_OP_SYMLINK, answer);
	if (!s)
		return 0;
	s->access.path_len = tell_name(s, (u64)dentry, (u64)dir->mnt);
	s->access.path_flags = s->flags;
	len = bpf_probe_read_kernel_str(&s->text[bounded(s->length, PC_MON_TEXT_PATHS)], PC_MON_PATH_MAX, target);
	if (len > 0) { /* with the zero byte at its end */
		s->access.second_len = len - 1;
		s->length += len - 1;
	}
	end(&d, s);
	return 0;
}

/* link(2) demands one mount for both names. */
SEC("fexit/security_path_link")
int BPF_PROG(pc_mon_link, struct dentry *from, const struct path *dir, struct dentry *to, int answer)
{
	struct doing d;

	if (seen(&d, PC_MON_CLASS_FILE))
		tell_two_names(&d, from, dir->mnt, to, dir->mnt, PC_OP_LINK, answer);
	return 0;
}

SEC("fexit/security_path_rename")
int BPF_PROG(pc_mon_rename, const struct path *from_dir, struct dentry *from, const struct path *to_dir, struct dentry *to,
	     unsigned int flags, int answer)
{
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	d.key.arg[0] = flags;
	tell_two_names(&d, from, from_dir->mnt, to, to_dir->mnt, PC_OP_RENAME, answer);
	return 0;
}

SEC("fexit/security_path_chmod")
int BPF_PROG(pc_mon_chmod, const struct path *path, unsigned short mode, int answer)
{
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	d.key.arg[0] = mode;
	tell_file(&d, path->dentry, path->mnt, PC_OP_CHMOD, answer);
	return 0;
}

/* The ids are structures of four bytes, passed as such: trampolines take them since Linux 6.1. */
SEC("fexit/security_path_chown")
int BPF_PROG(pc_mon_chown, const struct path *path, unsigned int uid, unsigned int gid, int answer)
{
	struct doing d;

	if (!seen(&d, PC_MON_CLASS_FILE))
		return 0;
	d.key.arg[0] = uid;
	d.key.arg[1] = gid;
	tell_file(&d, path->dentry, path->mnt, PC_OP_CHOWN, answer);
	return 0;
}

SEC("fexit/security_path_truncate")
int BPF_PROG(pc_mon_trunc, const struct path *path, int answer)
{
	struct doing d;

	if (seen(&d, PC_MON_CLASS_FILE))
		tell_file(&d, path->dentry, path->mnt, PC_OP_TRUNCATE, answer);
	return 0;
}

/* 6.2 and newer: ftruncate and open(O_TRUNC) come here and no longer through security_path_truncate. */
SEC("fexit/security_file_truncate")
int BPF_PROG(pc_mon_ftrunc, struct file *file, int answer)
{
	struct doing d;

	if (seen(&d, PC_MON_CLASS_FILE) && !nameless(file))
		tell_file(&d, file->f_path.dentry, file->f_path.mnt, PC_OP_TRUNCATE, answer);
	return 0;
}

#endif
