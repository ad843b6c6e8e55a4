/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the kernel programs and user space share. ebpf/src/abi.rs mirrors it; a test compares every size and offset with
 * the BTF of the compiled object. Change anything here and PC_LAYOUT goes up: pins of another layout are never reused.
 *
 * A container's state is three small steps:  cgroup id -> slot -> set -> tables in a segment.
 */
#ifndef PORTCULLIS_ABI_H
#define PORTCULLIS_ABI_H

#define PC_LAYOUT 4u

/* ---- segments: the memory that holds compiled policy sets --------------------------------------------------------- */
/* One element of an ARRAY map inside an array of maps. Several sets share a segment; a set never crosses one. */
#define PC_SEGMENT_BYTES (4u << 20)
#define PC_SEGMENT_WORDS (PC_SEGMENT_BYTES / 4)
/* Its memory goes on for what a column may add to a state's place, so that the two can be checked each for itself. */
#define PC_SEGMENT_SIZE (PC_SEGMENT_BYTES + 65536)
#define PC_MAX_SEGMENTS 64u
/* Sets begin at a multiple of this. */
#define PC_SET_ALIGN 512u

/*
 * The automaton. A state is the absolute byte offset of its row in the segment (so: premultiplied, relocated on loading).
 *   row[0]            decision id of a path that ends here
 *   row[1]            subtree summary of the directory at this path, see PC_SUB_*
 *   row[class(byte)]  next state, for the classes 2..
 * The byte classes are u16[256]: for each byte the offset of its column in a row, 4 * class; the classes 0 and 1 are never those
 * of a byte.
 * States >= sink loop to themselves on every byte: the walk may stop there.
 * Every state, decision id and offset in a table is trusted by the kernel programs only as far as a mask keeps it inside the
 * segment; the builder is what makes it right.
 */
#define PC_ROW_DECISION 0u
#define PC_ROW_SUBTREE 1u
#define PC_ROW_FIRST_CLASS 2u

/* Operation groups that a path decision tells apart. */
#define PC_READ 0u
#define PC_CHANGE 1u
#define PC_EXEC 2u
#define PC_GROUPS 3u

/*
 * Subtree summary of a state that stands for directory D: over every path strictly below D, per group g and for the owner
 * (o=0) and everybody else (o=1), bit (2*g+o):
 *   low byte     some path below is blocked      second byte   every path below is blocked
 */
#define PC_SUB_ANY(w) ((w) & 0x3fu)
#define PC_SUB_ALL(w) (((w) >> 8) & 0x3fu)

/* ---- verdicts ------------------------------------------------------------------------------------------------------ */
#define PC_NONE 0u  /* no rule, no posture: allowed, silent */
#define PC_ALLOW 1u /* by a rule */
#define PC_AUDIT 2u /* allowed, alert */
#define PC_BLOCK 3u /* denied, alert */

/* Rule ids beside the index of a rule in its set. */
#define PC_RULE_POSTURE 0xffffu    /* an allow-list's default posture */
#define PC_RULE_NONE 0xfffeu       /* no rule */
#define PC_RULE_GUARD 0xfffdu      /* Portcullis protects itself */
#define PC_RULE_ALIAS 0xfffcu      /* a second name for something that a rule protects */
#define PC_RULE_UNRESOLVED 0xfffbu /* the path can't be told (detached mount, outside the container, too deep) */
#define PC_RULE_ORPHAN 0xfffau     /* the task's container is gone */

/* Rank of a verdict: the smaller wins when two automata speak. Ranks of rules are their place in the order of precedence. */
#define PC_RANK_POSTURE 0xfffffffeu
#define PC_RANK_NONE 0xffffffffu

/* A decision: 8 words. op[g] is owner verdict | other verdict << 8 | rule << 16, then its rank. */
struct pc_decision {
	struct {
		unsigned int verdicts;
		unsigned int rank;
	} op[PC_GROUPS];
	unsigned int zero[2];
};
#define PC_DECISION_WORDS 8u

/* ---- sockets: the kinds that the network tables tell apart (the same function on both sides: pc_socket_kind) ------- */
enum pc_kind {
	PC_KIND_UNIX_STREAM,
	PC_KIND_UNIX_DGRAM,
	PC_KIND_UNIX_SEQPACKET,
	PC_KIND_NETLINK,
	PC_KIND_TCP,         /* AF_INET, AF_INET6; SOCK_STREAM; protocol 0, TCP or MPTCP; and AF_SMC */
	PC_KIND_UDP,         /* AF_INET, AF_INET6; SOCK_DGRAM; protocol 0, UDP or UDPLITE */
	PC_KIND_ICMP_DGRAM,  /* AF_INET; SOCK_DGRAM; ICMP */
	PC_KIND_ICMP_RAW,    /* AF_INET; SOCK_RAW; ICMP */
	PC_KIND_ICMPV6_DGRAM,
	PC_KIND_ICMPV6_RAW,
	PC_KIND_SCTP_STREAM,
	PC_KIND_SCTP_SEQPACKET,
	PC_KIND_DCCP,
	PC_KIND_INET_RAW,    /* any other SOCK_RAW of AF_INET, AF_INET6 */
	PC_KIND_PACKET_RAW,   /* AF_PACKET, any type but SOCK_DGRAM: whole frames */
	PC_KIND_PACKET_DGRAM,
	PC_KIND_OTHER_STREAM, /* every other family */
	PC_KIND_OTHER_DGRAM,
	PC_KIND_OTHER_RAW,
	PC_KIND_OTHER_RDM,
	PC_KIND_OTHER_SEQPACKET,
	PC_KIND_OTHER,
	PC_KINDS = 32,       /* rows are this long */
};
#define PC_CAPS 64u
/* An entry of the network and capability tables: verdict | rule << 16. */

/* ---- system calls: the indexes that the table of calls has for them ------------------------------------------------ */
/* One index for each way to ask for a call; user space puts the same word behind all that are the same call. */
#define PC_CALL_X86_64 0u       /* + number of a 64-bit program, below PC_CALL_NUMBERS; x32 has most of them too */
#define PC_CALL_I386 512u       /* + number of int 0x80, below PC_CALL_NUMBERS */
#define PC_CALL_X32 1024u       /* + number of x32 from 512 on, below PC_CALL_ARGUMENTS */
#define PC_CALL_SOCKETCALL 1088u /* + first argument of i386's socketcall, below PC_CALL_ARGUMENTS */
#define PC_CALL_IPC 1152u       /* + the same of i386's ipc */
#define PC_CALL_END 1216u       /* the table has this many words; the index of what is no call */
#define PC_CALL_NUMBERS 512u
#define PC_CALL_ARGUMENTS 64u

/* A word of the table: column of the call's rules, class of its path rules, where its paths are told. Both count from 1; 0 is none. */
#define PC_CALL_COLUMN(w) ((w) & 0x3ffu)
#define PC_CALL_PATHS(w) (((w) >> 10) & 0x3ffu)
#define PC_CALL_AT(w) ((w) >> 20)

/*
 * Where a call's path is told: in one family of hooks, so that a call that does two things to a path (make and open it) tells
 * it once.
 */
#define PC_AT_OPEN 0x1u
#define PC_AT_EXEC 0x2u
#define PC_AT_NAME 0x4u      /* names that come and go */
#define PC_AT_ATTRIBUTE 0x8u
#define PC_AT_MOUNT 0x10u

/* Operation group in decisions on paths of calls, which are an automaton of their own. */
#define PC_CALLED 0u

/* ---- sets ---------------------------------------------------------------------------------------------------------- */
#define PC_MAX_SETS 4096u

#define PC_SET_FILE 0x1u          /* some file rule */
#define PC_SET_PROCESS 0x2u
#define PC_SET_NETWORK 0x4u
#define PC_SET_CAPABILITY 0x8u
#define PC_SET_BLOCKS_PATHS 0x10u /* some file or process operation can be denied: names are worth protecting */
#define PC_SET_PROC_RULES 0x20u   /* some rule reaches below /proc: mounting proc elsewhere would be an alias */
#define PC_SET_SYS_RULES 0x40u
#define PC_SET_CALLS 0x80u        /* some rule on system calls themselves: pc_sys_enter is attached */
#define PC_SET_CALL_PATHS 0x100u  /* some rule on what system calls do to paths */
#define PC_SET_USED 0x80000000u

/* A compiled policy set. Offsets are absolute in its segment. 112 bytes. */
struct pc_set {
	unsigned int flags;        /* PC_SET_*; 0 is a free entry */
	unsigned int segment;
	unsigned int base;         /* byte offset and length in the segment of all that belongs to this set */
	unsigned int length;
	unsigned int classes;      /* byte offset of the byte classes */
	unsigned int sink;         /* a state */
	unsigned int sources;      /* number of source classes, at least 1; class 0 is "none that a rule names" */
	unsigned int source_start; /* start state for an executable's path; the decision column is the source class; 0: only class 0 */
	unsigned int starts;       /* word index of u32[sources]: start state for paths */
	unsigned int name_starts;  /* word index of u32[sources]: start state for the last component of an executable; 0: no execname */
	unsigned int decisions;    /* word index of struct pc_decision[decisions_len] */
	unsigned int decisions_len;
	unsigned int network;      /* word index of u32[sources][PC_KINDS]; 0: no network rule */
	unsigned int capabilities; /* word index of u32[sources][PC_CAPS]; 0: no capability rule */
	unsigned int rules;        /* number of rules, for bounds in user space */
	unsigned int retired_at;   /* user space: 0, or when the last slot left it (CLOCK_BOOTTIME seconds) */
	unsigned long long hash[2];   /* content hash of the rule set */
	unsigned int unmatched;    /* byte g: verdict (PC_NONE, PC_AUDIT, PC_BLOCK) of group g for what no rule covers */
	unsigned int calls;        /* word index of u32[PC_CALL_END]; 0: no rule on system calls */
	unsigned int call_entries; /* word index of u32[sources][call_columns]: as in the network table; 0: no columns */
	unsigned int call_columns;
	unsigned int call_starts;  /* word index of u32[sources][call_classes]: start state for paths; 0: no classes */
	unsigned int call_classes;
	unsigned int spare[2];
};

/* ---- slots: one per armed container -------------------------------------------------------------------------------- */
#define PC_MAX_SLOTS 8192u

#define PC_SLOT_ARMED 0x1u
#define PC_SLOT_AUDITED 0x2u /* deny nothing, alert instead (annotation kubearmor-policy: audited) */
#define PC_SLOT_DYING 0x4u   /* container removed; user space frees the slot when no task has its label, see pc_labels */

struct pc_slot {
	unsigned int flags;   /* PC_SLOT_*; 0 is a free slot */
	unsigned int epoch;   /* goes up each time the slot is taken by another container, never 0 while used */
	unsigned int set;     /* one store switches the container to another set */
	unsigned int gen;     /* policy generation, goes up at each switch; told in events */
	unsigned int runtime_mntns; /* inode of the runtime's mount namespace: execs there are the runtime's own */
	unsigned int unused;
	unsigned long long root;    /* the container's root dentry; kernel writes it at the first labelled exec */
	unsigned long long cgroup;  /* cgroup id it was armed for */
	unsigned long long armed_ns; /* CLOCK_BOOTTIME */
	unsigned long long runtime_root; /* the runtime's root dentry; written by pc_stamp, run by the door in the runtime's context */
	unsigned long long spare;
};

/* pc_stamp (raw_tp, run by BPF_PROG_TEST_RUN in the door's own context) takes one argument, the slot, and notes in it what
 * only the kernel can see of the runtime: its root dentry and its mount namespace. */

/* value of the cgroup map (key: cgroup id) */
struct pc_cgroup {
	unsigned int slot;
	unsigned int epoch;
};

/*
 * A container that runs already: reading the pin of pc_adopt (a task iterator) labels its tasks. User space fills in the first
 * part, under its lock, and reads the second.
 */
struct pc_adoption {
	unsigned long long cgroup; /* the top of its cgroups; 0: only its root directory is noted, no task is labelled */
	unsigned int slot;
	unsigned int epoch;
	unsigned int init; /* its init's thread group: its root directory is the container's */
	unsigned int rooted;   /* init was met, and its root noted if the slot had none */
	unsigned int labelled; /* tasks that got the label in this pass */
	unsigned int failed;   /* tasks for whose label there was no memory */
};

/* What reading the pin of pc_labels (a task iterator) gives, one for each labelled task that has not ended. */
struct pc_label {
	unsigned int slot;
	unsigned int epoch;
};

/* ---- configuration, one element -------------------------------------------------------------------------------------- */
struct pc_config {
	unsigned int layout;
	unsigned int armed;      /* slots in use; 0 lets an exec outside any container skip the look at its cgroups */
	unsigned long long pin_dev; /* s_dev (kernel encoding) of the bpffs that holds our pins */
	unsigned long long spare[2];
};

/* ---- events -------------------------------------------------------------------------------------------------------------- */
#define PC_EVENT_ALERT 1u

enum pc_op {
	PC_OP_READ = 1, PC_OP_WRITE, PC_OP_CREATE, PC_OP_UNLINK, PC_OP_RENAME, PC_OP_LINK, PC_OP_SYMLINK, PC_OP_MKDIR,
	PC_OP_RMDIR, PC_OP_MKNOD, PC_OP_CHMOD, PC_OP_CHOWN, PC_OP_TRUNCATE, PC_OP_SETATTR, PC_OP_SETXATTR, PC_OP_RECEIVE,
	PC_OP_EXEC = 32, PC_OP_MAP_EXEC,
	PC_OP_SOCKET = 48, PC_OP_CONNECT, PC_OP_BIND, PC_OP_LISTEN, PC_OP_ACCEPT, PC_OP_SEND,
	PC_OP_CAPABLE = 64,
	PC_OP_MOUNT = 80, PC_OP_UMOUNT, PC_OP_MOVE_MOUNT, PC_OP_PIVOT_ROOT,
	PC_OP_BPF = 96, PC_OP_URING_CREDS,
	PC_OP_SYSCALL = 112,
};

#define PC_PATH_MAX 3072u

/* Followed by path_len bytes of path (not terminated; the last PC_PATH_MAX-1 bytes where it is longer, then path_cut). */
struct pc_event {
	unsigned int type;      /* PC_EVENT_* */
	unsigned int cpu;
	unsigned long long seq;     /* per CPU, counts every alert, delivered or lost */
	unsigned long long time_ns; /* CLOCK_BOOTTIME */
	unsigned long long cgroup;
	unsigned int slot;
	unsigned int epoch;
	unsigned int gen;
	unsigned int set;
	unsigned int rule;      /* index in the set, or PC_RULE_* */
	unsigned int op;        /* enum pc_op */
	unsigned int verdict;   /* PC_AUDIT or PC_BLOCK: what was done */
	unsigned int source;    /* source class of the task */
	unsigned int tgid;      /* in the initial pid namespace */
	unsigned int tid;
	unsigned int uid;       /* fsuid, initial user namespace */
	unsigned int arg[3];    /* sockets: family, type, protocol; capability: number; system call: PC_CALL_* index */
	unsigned int path_len;
	unsigned int path_cut;  /* 1: the path begins before what is told */
	unsigned int repeats;   /* the same of the same process that were only counted since it was last told */
	unsigned int zero;
	char comm[16];
};

/* A system call of a process is told once within this time; more of the same are counted, and told with the next that is. */
#define PC_CALL_WINDOW_NS 1000000000u
/* Such calls that are remembered as told; the least recently used is forgotten first, and told again. */
#define PC_CALL_REPEATS_MAX 4096u

/* per-CPU counters, one element */
struct pc_stats {
	unsigned long long seq;        /* alerts raised */
	unsigned long long lost;       /* alerts that found no room in the ring */
	unsigned long long blocked;    /* operations denied */
	unsigned long long audited;
	unsigned long long unresolved; /* paths that could not be told */
	unsigned long long busy;       /* no scratch buffer was free: denied */
	unsigned long long torn;       /* walks repeated because a rename or a mount came between */
	unsigned long long repeated;   /* audited operations that were counted and not raised */
};

#endif
