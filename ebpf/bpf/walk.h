/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a dentry to a decision, without building a string.
 *
 * resolve() climbs from the object to the container's root and notes where each component's name lies; match() walks the
 * automaton over those names, root first. Names are those of the container's own tree: the climb ends at the root dentry that
 * the container was started with (not at the caller's chroot, which CAP_SYS_CHROOT moves, and not at its mount namespace's
 * root, which unshare and setns move), so neither can rename anything. bpf_d_path() has both faults.
 *
 * Every matcher is a global function: the verifier checks it once for each program, whatever the caller's state (as static
 * functions the same code exceeds a million instructions on 7.2). Their state is in a map value and not in registers, because
 * values that come from memory are unknown to the verifier and its states converge.
 */
#ifndef PORTCULLIS_WALK_H
#define PORTCULLIS_WALK_H

#include "maps.h"
#include "read.h"

#define PC_PATH_FOUND 1u    /* the chain leads to the container's root */
#define PC_PATH_OUTSIDE 2u  /* it ends elsewhere: another mount tree, a detached mount */
#define PC_PATH_INTERNAL 3u /* pipes, sockets, memfds, an overlay's own layers: no name to judge */
#define PC_PATH_DEEP 4u     /* more than PC_MAX_DEPTH components */

/*
 * bpf_rdonly_cast(), a kfunc that costs nothing (6.2 and newer). Emitted as raw bytes because no loader for this toolchain knows
 * kfuncs: the loader finds the pattern and writes the function's BTF id, or a plain move where the kernel lacks it.
 */
#define rdonly_cast(type, address)                                                                                       \
	({                                                                                                               \
		register u64 __in asm("r1") = (u64)(address);                                                            \
		register u64 __id asm("r2") = bpf_core_type_id_kernel(type);                                             \
		register void *__out asm("r0");                                                                          \
		asm volatile(".byte 0x85, 0x20, 0, 0, 0x01, 0x00, 0xad, 0x7e"                                            \
			     : "=r"(__out), "+r"(__in), "+r"(__id)                                                       \
			     :                                                                                           \
			     : "r3", "r4", "r5", "memory");                                                              \
		(type *)__out;                                                                                           \
	})

static __always_inline struct pc_scratch *scratch_at(u32 id)
{
	if (id == PC_SCRATCH_OWN)
		return bpf_task_storage_get(&pc_own_scratch, bpf_get_current_task_btf(), NULL, 0);
	return bpf_map_lookup_elem(&pc_scratch, &id);
}

static __always_inline struct pc_segment *segment_at(u32 id)
{
	struct pc_segment_map *inner = bpf_map_lookup_elem(&pc_segments, &id);
	u32 zero = 0;

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

static __always_inline u32 word_at(struct pc_segment *segment, u32 index)
{
	return segment->words[bounded(index, PC_SEGMENT_WORDS - 1)];
}

/* A column of a state's row. */
static __always_inline u32 column_at(struct pc_segment *segment, u32 state, u32 column)
{
	return *(u32 *)((u8 *)segment->words + bounded(state + 4 * column, PC_SEGMENT_BYTES - 4));
}

/*
 * The word at an address, as a number. Reading a pointer through its own type would give the verifier a different state for
 * each way that leads to it.
 */
static __always_inline u64 peek_by(bool cast, u64 address)
{
	if (cast) {
		struct qstr *word = rdonly_cast(struct qstr, address);

		return word->hash_len;
	}
	return read_u64(address);
}

static __always_inline u64 peek(u64 address)
{
	return peek_by(pc_ladder == 1, address);
}

/* What the climb wants of a dentry. */
struct link {
	u64 parent;
	u64 hash_len; /* of its name; the length is the high half on the little-endian machines that are supported */
	u64 name;
};

/*
 * The name follows the parent in a dentry (include/linux/dcache.h), so one cast will do for both: each costs what three bytes of
 * a name cost. It is to a structure of the kernel's that is four plain words. The comparison is of constants when the program is
 * verified, and the way that is not taken is removed.
 */
static __always_inline void peek_link(bool cast, struct link *link, u64 dentry)
{
	u64 parent = bpf_core_field_offset(struct dentry, d_parent), name = bpf_core_field_offset(struct dentry, d_name);

	if (cast && name == parent + 8) {
		struct itimerspec64 *words = rdonly_cast(struct itimerspec64, dentry + parent);

		link->parent = words->it_interval.tv_sec;
		link->hash_len = words->it_interval.tv_nsec;
		link->name = words->it_value.tv_sec;
	} else if (cast) {
		link->parent = peek_by(cast, dentry + parent);
		link->hash_len = peek_by(cast, dentry + name);
		link->name = peek_by(cast, dentry + name + 8);
	} else {
		struct qstr copy = {};

		link->parent = peek_by(cast, dentry + parent);
		bpf_probe_read_kernel(&copy, sizeof(copy), (void *)(dentry + name));
		link->hash_len = copy.hash_len;
		link->name = (u64)copy.name;
	}
}

struct climb {
	u64 dentry;
	u64 mount;
	u64 mount_root;
	u64 root;
	u32 depth;
	u32 outcome;
};

static __always_inline void climb_one(bool cast, struct pc_scratch *s, struct climb *c)
{
	struct link link;
	u64 above;

	if (c->dentry == c->root) {
		c->outcome = PC_PATH_FOUND;
	} else if (c->depth >= PC_MAX_DEPTH) {
		c->outcome = PC_PATH_DEEP;
	} else if (c->dentry == c->mount_root) {
		above = peek_by(cast, field_address(struct mount, mnt_parent, c->mount));
		if (above == c->mount || !above) {
			c->outcome = PC_PATH_OUTSIDE;
		} else {
			c->dentry = peek_by(cast, field_address(struct mount, mnt_mountpoint, c->mount));
			c->mount = above;
			c->mount_root = peek_by(cast, field_address(struct mount, mnt.mnt_root, above));
		}
	} else {
		peek_link(cast, &link, c->dentry);
		if (link.parent == c->dentry || !link.parent) {
			c->outcome = PC_PATH_OUTSIDE;
		} else {
			struct pc_component *component = &s->chain[bounded(c->depth, PC_MAX_DEPTH - 1)];

			component->name = link.name;
			component->len = link.hash_len >> 32;
			c->dentry = link.parent;
			c->depth += 1;
		}
	}
}

/*
 * So many components a step: what is known of the climb stays in registers meanwhile, and each return from a callback is
 * dear where the kernel guards returns (on AMD, CONFIG_MITIGATION_SRSO): 93 ns became 50 for seven components. Eight a step save
 * another 11, and cost 14,000 instructions in all programs together and a third more for the verifier.
 */
#define PC_CLIMB_STRIDE 4

static long climb_step(u32 index, struct pc_scratch **context)
{
	struct pc_scratch *s = *context;
	struct climb c = {
		.dentry = s->at_dentry,
		.mount = s->at_mount,
		.mount_root = s->at_mount_root,
		.root = s->root,
		.depth = s->depth,
	};
	bool cast = pc_ladder == 1; /* read once: each look at it is a load */
	int i;

#pragma unroll
	for (i = 0; i < PC_CLIMB_STRIDE; i++) {
		climb_one(cast, s, &c);
		if (c.outcome)
			break;
	}
	s->at_dentry = c.dentry;
	s->at_mount = c.mount;
	s->at_mount_root = c.mount_root;
	s->depth = c.depth;
	s->outcome = c.outcome;
	return c.outcome ? 1 : 0;
}

/* Fills chain, depth and outcome from dentry, mount and root. Mount crossings count as steps: twice the depth suffices. */
static __always_inline void climb(bool cast, struct pc_scratch *s)
{
	s->at_dentry = s->dentry;
	s->at_mount = s->mount;
	s->at_mount_root = s->mount ? peek_by(cast, field_address(struct mount, mnt.mnt_root, s->mount)) : 0;
	s->depth = 0;
	s->outcome = 0;
	bpf_loop(2 * PC_MAX_DEPTH / PC_CLIMB_STRIDE, climb_step, &s, 0);
	if (!s->outcome)
		s->outcome = PC_PATH_DEEP;
}

/* ---- the automaton -------------------------------------------------------------------------------------------------- */

struct matching {
	struct pc_scratch *scratch;
	struct pc_segment *segment;
	const u16 *classes;
};

/* The byte classes of a set. They begin at a multiple of PC_SET_ALIGN, so a mask keeps all of them inside the segment. */
static __always_inline const u16 *classes_at(struct pc_segment *segment, u32 offset)
{
	return (u16 *)((u8 *)segment->words + bounded(offset, PC_SEGMENT_BYTES - PC_SET_ALIGN));
}

/* Where a slash leads. */
static __always_inline u32 after_slash(struct pc_segment *segment, u32 classes, u32 state)
{
	return column_at(segment, state + classes_at(segment, classes)['/'], 0);
}

/*
 * row[class(byte)], for a byte that was shifted left by one, which is its offset in the classes; what else is in the register does
 * not matter. Written out because most of a decision is spent here: offsets become addresses in their own registers, where clang
 * copies the base first, and what does not need the state comes before it, so that from state to state there is a mask, an
 * addition and a load.
 */
#define FOLLOW                                                                                                           \
	"%[column] += %[segment]\n\t"                                                                                    \
	"%[state] &= %[mask]\n\t"                                                                                        \
	"%[column] += %[state]\n\t"                                                                                      \
	"%[state] = *(u32 *)(%[column] + 0)"

static __always_inline u64 advance(struct pc_segment *segment, const u16 *classes, u64 state, u64 column)
{
	asm volatile("%[column] &= 0x1fe\n\t"
		     "%[column] += %[classes]\n\t"
		     "%[column] = *(u16 *)(%[column] + 0)\n\t" FOLLOW
		     : [column] "+&r"(column), [state] "+&r"(state)
		     : [classes] "r"(classes), [segment] "r"(segment), [mask] "i"(PC_SEGMENT_BYTES - 4));
	return state;
}

/* The same for a column that is known. */
static __always_inline u64 follow(struct pc_segment *segment, u64 state, u64 column)
{
	asm volatile(FOLLOW
		     : [column] "+&r"(column), [state] "+&r"(state)
		     : [segment] "r"(segment), [mask] "i"(PC_SEGMENT_BYTES - 4));
	return state;
}
#undef FOLLOW

struct walk {
	u64 name;
	u32 left;   /* of the current component's bytes; 0: the next one begins */
	u32 offset;
	u32 state;
	u32 at;     /* components that are left */
};

/* Up to eight bytes of a name. Returns true when the walk has ended. */
static __always_inline bool match_eight(bool cast, struct pc_scratch *s, const struct matching *m, struct walk *w)
{
	struct pc_segment *segment = m->segment;
	const u16 *classes = m->classes;
	u64 state = w->state, word;
	u32 left;

	if (!w->left) { /* a component begins: its slash */
		struct pc_component *c;

		if (state >= s->sink)
			return true;
		w->at -= 1;
		c = &s->chain[bounded(w->at, PC_MAX_DEPTH - 1)];
		w->name = c->name;
		w->left = c->len;
		w->offset = 0;
		state = follow(segment, state, s->slash);
		if (!cast)
			bpf_probe_read_kernel(s->text, bounded(c->len, PC_NAME_MAX), (void *)c->name);
	}
	if (cast)
		word = peek_by(cast, w->name + w->offset);
	else
		word = *(u64 *)(s->text + bounded(w->offset, 0xf8));
	left = w->left;

	/* By halves: asking before each byte whether it is there would be a sixth of the work. */
#define FIRST_BYTE state = advance(segment, classes, state, word << 1);
#define BYTE(n) state = advance(segment, classes, state, word >> (8 * (n) - 1));
	if (left >= 4) {
		FIRST_BYTE BYTE(1) BYTE(2) BYTE(3)
		if (left >= 8) {
			BYTE(4) BYTE(5) BYTE(6) BYTE(7)
			goto done;
		}
		word >>= 32;
	}
	if (left & 2) {
		FIRST_BYTE BYTE(1)
		word >>= 16;
	}
	if (left & 1) {
		FIRST_BYTE
	}
done:
#undef BYTE
#undef FIRST_BYTE
	w->state = state;
	w->left = left > 8 ? left - 8 : 0;
	w->offset += 8;
	return !w->left && !w->at;
}

/* So many times eight bytes a step, for the reason given at PC_CLIMB_STRIDE. */
#define PC_MATCH_STRIDE 4

static long match_step(u32 index, struct matching *m)
{
	struct pc_scratch *s = m->scratch;
	struct walk w = { .name = s->name, .left = s->name_len, .offset = s->offset, .state = s->state, .at = s->at };
	bool cast = pc_ladder == 1;
	long ended = 0;
	int i;

#pragma unroll
	for (i = 0; i < PC_MATCH_STRIDE; i++) {
		if (match_eight(cast, s, m, &w)) {
			ended = 1;
			break;
		}
	}
	s->name = w.name;
	s->name_len = w.left;
	s->offset = w.offset;
	s->state = w.state;
	s->at = w.at;
	return ended;
}

/* Walks the chain from s->state; the end state is in s->state. The sink may end it early: its decision is the end's. */
static __always_inline void match(struct pc_scratch *s, struct pc_segment *segment)
{
	struct matching m = { .scratch = s, .segment = segment };

	if (!s->depth) { /* the root itself */
		s->state = after_slash(m.segment, s->classes, s->state);
		return;
	}
	m.classes = classes_at(segment, s->classes);
	s->slash = m.classes['/'];
	s->name_len = 0;
	s->at = s->depth;
	bpf_loop(PC_MAX_DEPTH * ((PC_NAME_MAX + 8) / 8), match_step, &m, 0);
}

static long name_step(u32 index, struct matching *m)
{
	struct pc_scratch *s = m->scratch;
	u32 offset = s->offset;

	if (offset >= s->name_len)
		return 1;
	s->state = advance(m->segment, m->classes, s->state, (u64)s->text[bounded(offset, 0xff)] << 1);
	s->offset = offset + 1;
	return 0;
}

/* Walks the last component alone (execname rules). Only at exec: a read by probe_read is cheap enough. */
__attribute__((noinline)) int pc_match_name(u32 id)
{
	struct pc_scratch *s = scratch_at(id);
	struct matching m = {};
	u32 len;

	if (!s)
		return 0;
	m.scratch = s;
	m.segment = segment_at(s->segment);
	if (!m.segment)
		return 0;
	m.classes = classes_at(m.segment, s->classes);
	len = bounded(s->chain[0].len, PC_NAME_MAX);
	if (!s->depth)
		len = 0;
	bpf_probe_read_kernel(s->text, len, (void *)s->chain[0].name);
	s->name_len = len;
	s->offset = 0;
	bpf_loop(PC_NAME_MAX, name_step, &m, 0);
	return 0;
}

/* ---- text, for alerts only -------------------------------------------------------------------------------------------- */

struct total {
	struct pc_scratch *scratch;
	u32 bytes;
	u32 at;
};

static long text_step(u32 index, struct total *t)
{
	struct pc_scratch *s = t->scratch;
	struct pc_component *c;
	u64 end = s->length;
	u32 len;

	asm volatile("" : "+r"(end)); /* one register that is compared and then used */
	if (!s->at || end >= PC_PATH_MAX)
		return 1;
	s->at -= 1;
	c = &s->chain[bounded(s->at, PC_MAX_DEPTH - 1)];
	len = bounded(c->len, PC_NAME_MAX);
	s->text[end] = '/';
	bpf_probe_read_kernel(&s->text[end + 1], len, (void *)c->name);
	s->length = end + len + 1;
	return 0;
}

/* Counts from the leaf how many components fit. */
static long total_step(u32 index, struct total *t)
{
	u32 len;

	if (t->at >= t->scratch->depth)
		return 1;
	len = bounded(t->scratch->chain[bounded(t->at, PC_MAX_DEPTH - 1)].len, PC_NAME_MAX) + 1;
	if (t->bytes + len >= PC_PATH_MAX)
		return 1;
	t->bytes += len;
	t->at += 1;
	return 0;
}

/* Writes the path of the chain into s->text, its length into s->length; the end of it where it is too long. */
__attribute__((noinline)) int pc_text(u32 id)
{
	struct pc_scratch *s = scratch_at(id);
	struct total t = {};

	if (!s)
		return 0;
	t.scratch = s;
	bpf_loop(PC_MAX_DEPTH, total_step, &t, 0);
	s->event.path_cut = t.at < s->depth || s->outcome != PC_PATH_FOUND;
	s->at = t.at;
	s->length = 0;
	bpf_loop(PC_MAX_DEPTH, text_step, &t, 0);
	if (!s->depth) {
		s->text[0] = '/';
		s->length = 1;
	}
	return 0;
}

#endif
