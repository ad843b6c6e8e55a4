/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's structures, as far as they are read. preserve_access_index makes every access a CO-RE relocation, so the order
 * and the offsets here mean nothing; only names and nesting do. Hand-written on purpose: a dumped vmlinux.h is 3 MB of which
 * we would use 200 lines, and says nothing of what we depend on.
 */
#ifndef PORTCULLIS_KERNEL_H
#define PORTCULLIS_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define EPERM 1
#define ENOMEM 12
#define EACCES 13
#define EEXIST 17

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	unsigned int val;
} kuid_t;

typedef struct {
	unsigned int val;
} kgid_t;

typedef struct {
	int counter;
} atomic_t;

struct qstr {
	union {
		struct {
			u32 hash;
			u32 len;
		};
		u64 hash_len;
	};
	const unsigned char *name;
};

/* Four words, and nothing else. See peek_link in walk.h. */
struct timespec64 {
	long long tv_sec;
	long tv_nsec;
};

struct itimerspec64 {
	struct timespec64 it_interval;
	struct timespec64 it_value;
};

struct hlist_bl_node {
	struct hlist_bl_node *next, **pprev;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	unsigned int s_dev;
	struct file_system_type *s_type;
	unsigned long s_magic;
	struct dentry *s_root;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	u32 i_generation;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t fsuid;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	atomic_t live;
	struct tty_struct *tty;
	unsigned int flags;
	int group_exit_code;
};

struct kernfs_node {
	u64 id;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct thread_info {
	u32 status; /* on x86 */
};

struct pt_regs {
	unsigned long bx;
	unsigned long orig_ax;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int pid;
	int tgid;
	int exit_code;
	u64 start_boottime;
	kuid_t loginuid;
	unsigned int sessionid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct signal_struct *signal;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	const struct cred *real_cred;
	const struct cred *cred;
	struct css_set *cgroups;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct linux_binprm {
	struct file *file;
	char buf[256];
};

struct iattr {
	unsigned int ia_valid;
};

struct in6_addr {
	u8 bytes[16];
};

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport; /* big-endian, unlike the next */
	u16 skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_type;
	u16 sk_protocol;
};

struct socket {
	struct sock *sk;
};

struct sockaddr_un {
	unsigned short sun_family;
};

struct unix_address {
	int len; /* of the name, with its family */
	struct sockaddr_un name[1];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
	unsigned int msg_flags;
};

struct bpf_map {
	char name[16];
};

struct bpf_prog_aux {
	char name[16];
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

#pragma clang attribute pop

/* include/linux/fs.h */
#define FMODE_READ 0x1u
#define FMODE_WRITE 0x2u
#define FMODE_EXEC_FLAG 0x20u /* __FMODE_EXEC in f_flags: user space can't set it, VALID_OPEN_FLAGS lacks it */
#define O_TRUNC 01000u
#define ATTR_ATIME_SET (1u << 7)
#define ATTR_MTIME_SET (1u << 8)
#define ATTR_TOUCH (1u << 17)

/* include/uapi/linux/mount.h */
#define MS_REMOUNT 32ul
#define MS_BIND 4096ul
#define MS_MOVE 8192ul
#define MS_UNBINDABLE (1ul << 17)
#define MS_PRIVATE (1ul << 18)
#define MS_SLAVE (1ul << 19)
#define MS_SHARED (1ul << 20)

#define RENAME_EXCHANGE (1u << 1)
#define MSG_FASTOPEN 0x20000000u
#define CAP_OPT_NOAUDIT 2u
#define PROT_EXEC 4ul

/* include/linux/sched.h */
#define PF_EXITING 0x4u
#define PF_IO_WORKER 0x10u
#define PF_DUMPCORE 0x200u
#define TS_COMPAT 0x2u /* arch/x86/include/asm/thread_info.h */
#define X32_SYSCALL_BIT 0x40000000u /* arch/x86/include/uapi/asm/unistd.h */
#define PF_KTHREAD 0x00200000u
#define CLONE_THREAD 0x00010000ul
#define SIGNAL_GROUP_EXIT 0x4u /* include/linux/sched/signal.h */

#endif
