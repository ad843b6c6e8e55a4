/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the monitor's programs and user space share. ebpf/src/monitor/abi.rs mirrors it; a test compares every size and offset with
 * the BTF of the compiled object. Change anything here and PC_MON_LAYOUT goes up: pins of another layout are never reused.
 *
 * Names of maps and programs begin with pc_ like those of enforcement, because that is what keeps a contained task from
 * getting hold of them (hooks_guard.h).
 */
#ifndef PORTCULLIS_MONITOR_ABI_H
#define PORTCULLIS_MONITOR_ABI_H

#define PC_MON_LAYOUT 1u

/* ---- configuration, one element ------------------------------------------------------------------------------------- */
#define PC_MON_HOST 0x1u      /* processes of the host are told */
#define PC_MON_CONTAINER 0x2u /* and those of containers: labelled, or in a pid namespace other than the first */

struct pc_mon_config {
	unsigned int layout;
	unsigned int visible; /* PC_MON_HOST | PC_MON_CONTAINER; 0: nothing is told, and a program ends after this look */
	/*
	 * Only programs of this build speak. During an upgrade two are attached, and one store hands over from the old to the new:
	 * what happens in that very instant may be told twice, and is never lost.
	 */
	unsigned long long build;
};

/* ---- processes ------------------------------------------------------------------------------------------------------ */
enum pc_mon_kind {
	PC_MON_EXEC = 1, /* a process runs another program; its first instruction has not run yet */
	PC_MON_FORK,     /* a process was born; threads are not told */
	PC_MON_EXIT,     /* the last thread of a process is gone */
};

/* Longest path that is told is one byte less; where a path is longer, its end. */
#define PC_MON_PATH_MAX 4096u
/* Most bytes of an argument vector that are told: its beginning, cut anywhere. */
#define PC_MON_ARGS_MAX 4096u

/* What is wrong with a path. */
#define PC_MON_PATH_CUT 0x1u      /* it begins before what is told */
#define PC_MON_PATH_OUTSIDE 0x2u  /* it does not lead to the task's root: another mount tree, a detached mount */
#define PC_MON_PATH_UNLINKED 0x4u /* this name is gone */
#define PC_MON_PATH_INTERNAL 0x8u /* it never had a name: a memfd */
#define PC_MON_PATH_TORN 0x10u    /* renames or mounts came between each time it was read */

/* What is wrong with the arguments. */
#define PC_MON_ARGS_CUT 0x1u
#define PC_MON_ARGS_UNREADABLE 0x2u /* their memory could not be read: swapped out already */

/* As a slot: the task has no label. */
#define PC_MON_NO_SLOT 0xffffffffu

/*
 * Followed, for PC_MON_EXEC only, by exe_len bytes of the executable's path, cwd_len bytes of the working directory's and args_len
 * bytes of arguments. Paths begin at the task's own root directory and are not terminated; each argument is, by a zero byte.
 *
 * A process is known by its thread group id and by the start of its leader: ids are used again, and the pair never is. It stays
 * the same when a thread executes something and thereby becomes the leader (fs/exec.c, de_thread).
 */
struct pc_mon_process {
	unsigned int kind;          /* enum pc_mon_kind */
	unsigned int cpu;
	unsigned long long seq;     /* per CPU, counts every event, delivered or lost */
	unsigned long long time_ns; /* CLOCK_BOOTTIME, like the next two */
	unsigned long long started_ns;
	unsigned long long parent_started_ns;
	unsigned long long cgroup;
	unsigned int slot;          /* PC_MON_NO_SLOT outside */
	unsigned int epoch;
	unsigned int tgid;          /* of the process: for PC_MON_FORK, of the child */
	unsigned int tid;
	unsigned int parent;        /* thread group of the real parent */
	unsigned int ns_pid;        /* the process in its own pid namespace */
	unsigned int ns_parent;     /* its parent there, 0 where the parent is outside, as getppid(2) has it */
	unsigned int pid_ns;        /* inode number */
	unsigned int mnt_ns;
	unsigned int uid;           /* real ids, initial user namespace */
	unsigned int gid;
	unsigned int loginuid;      /* 0xffffffff: not set, or the kernel has no audit */
	unsigned int sessionid;     /* the same */
	unsigned int status;        /* PC_MON_EXIT: as wait(2) gives it */
	unsigned int args_flags;    /* PC_MON_ARGS_* */
	unsigned int exe_flags;     /* PC_MON_PATH_* */
	unsigned int cwd_flags;
	unsigned int exe_len;
	unsigned int cwd_len;
	unsigned int args_len;
	char comm[16];              /* padded with zeros, like tty */
	char tty[16];               /* name of the controlling terminal, empty without one */
};

/* per-CPU counters, one element */
struct pc_mon_stats {
	unsigned long long seq;  /* events of processes */
	unsigned long long lost; /* those that found no room in the ring */
};

#endif
