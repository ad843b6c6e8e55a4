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

#define PC_MON_LAYOUT 2u

/* ---- configuration, one element ------------------------------------------------------------------------------------- */
/* Classes of what is told; the numbers of the operations of each are in abi.h, enum pc_op. */
#define PC_MON_CLASS_PROCESS 0x1u    /* births, executions, ends */
#define PC_MON_CLASS_FILE 0x2u       /* PC_OP_READ .. PC_OP_TRUNCATE */
#define PC_MON_CLASS_NETWORK 0x4u    /* PC_OP_SOCKET .. PC_OP_SEND */
#define PC_MON_CLASS_CAPABILITY 0x8u /* PC_OP_CAPABLE */

/* Cgroups that can have classes of their own. */
#define PC_MON_OVERRIDES_MAX 1024u
/* So many levels up an override still counts: runtimes and init systems make cgroups below a container's. */
#define PC_MON_OVERRIDE_LEVELS 8u

/* How long the same is only counted after it was told, if nobody says otherwise. */
#define PC_MON_WINDOW_NS 1000000000u

struct pc_mon_config {
	unsigned int layout;
	unsigned int any;        /* every class that is told of somebody; a program of another class ends after this look */
	unsigned int host;       /* classes told of the host's processes */
	unsigned int containers; /* and of containers': labelled, or in a pid namespace other than the first */
	unsigned int overrides;  /* entries of pc_mon_override, which come before either; 0 saves the look */
	unsigned int zero;
	unsigned long long window_ns; /* repeats within it are counted and not told; 0: each is told */
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

/* ---- accesses ------------------------------------------------------------------------------------------------------- */
/* Longest address of a socket (sizeof struct sockaddr_storage, include/uapi/linux/socket.h). */
#define PC_MON_ADDRESS_MAX 128u

/*
 * What a process asked of the kernel, and what the security modules answered. Followed by path_len bytes of a path, second_len
 * bytes of a second one and address_len bytes of a socket's address, a struct sockaddr as the kernel holds it.
 *
 *   READ, WRITE           path; arg: flags as of open(2)
 *   CREATE, MKNOD         path; arg: mode, device
 *   MKDIR, CHMOD          path; arg: mode
 *   CHOWN                 path; arg: user and group, 0xffffffff where they stay
 *   UNLINK, RMDIR, TRUNCATE   path
 *   RENAME                old and new path; arg: flags as of renameat2(2)
 *   LINK                  old and new path
 *   SYMLINK               path, and as the second what it leads to, as written
 *   SOCKET                arg: family, type, protocol
 *   CONNECT, BIND, SEND   the address that was asked for; arg as SOCKET
 *   LISTEN                the socket's own address; arg as SOCKET
 *   ACCEPT                the peer's address; arg as SOCKET
 *   CAPABLE               arg: the capability
 */
struct pc_mon_access {
	unsigned int op;            /* enum pc_op */
	unsigned int cpu;
	unsigned long long seq;     /* per CPU, counts every access that was to be told, delivered or lost */
	unsigned long long time_ns; /* CLOCK_BOOTTIME, like the next */
	unsigned long long started_ns; /* with tgid the process, see above */
	unsigned long long cgroup;
	unsigned int slot;          /* PC_MON_NO_SLOT outside */
	unsigned int epoch;
	unsigned int tgid;
	unsigned int tid;
	unsigned int uid;           /* fsuid, initial user namespace */
	unsigned int pid_ns;        /* inode number */
	unsigned int mnt_ns;
	unsigned int result;        /* 0, or the number of the error that the security modules gave */
	unsigned long long repeats; /* of the same that were counted and not told, since it was told the last time */
	unsigned int arg[3];
	unsigned int path_flags;    /* PC_MON_PATH_* */
	unsigned int second_flags;
	unsigned int path_len;
	unsigned int second_len;
	unsigned int address_len;
	char comm[16];              /* of the thread, padded with zeros */
};

/* Most kinds of access that are remembered at a time; the least recently used is forgotten first. */
#define PC_MON_REPEATS_MAX 16384u
#define PC_MON_OBJECT_MAX 64u

/* Two accesses are the same when all of this is. */
struct pc_mon_repeat {
	unsigned long long started_ns;
	unsigned int tgid;
	unsigned short op;
	unsigned short result;
	unsigned int arg[3];
	unsigned int object_len;
	unsigned char object[PC_MON_OBJECT_MAX]; /* file or address, see monitor_access.h */
};

struct pc_mon_repeated {
	unsigned long long since_ns; /* when it was told */
	unsigned long long repeats;  /* that were only counted since */
	unsigned long long seq;      /* by what event it was told */
	unsigned int cpu;
	unsigned int zero;
};

/* ---- per-CPU counters, one element ----------------------------------------------------------------------------------- */
struct pc_mon_stats {
	unsigned long long seq;         /* events of processes */
	unsigned long long lost;        /* those that found no room in the ring */
	unsigned long long access_seq;  /* the same of accesses */
	unsigned long long access_lost; /* here also for want of working memory */
	unsigned long long aggregated;  /* accesses that were counted and not told: all there were are access_seq + aggregated */
};

#endif
