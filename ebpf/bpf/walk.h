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
		u64 __in = (u64)(address);                                                                               \
		u64 __id = bpf_core_type_id_kernel(type);                                                                \
		void *__out;                                                                                             \
		asm volatile("r1 = %[in]\n"                                                                              \
			     "r2 = %[id]\n"                                                                              \
			     ".byte 0x85, 0x20, 0, 0, 0x01, 0x00, 0xad, 0x7e\n"                                          \
			     "%[out] = r0"                                                                               \
			     : [out] "=r"(__out)                                                                         \
			     : [in] "r"(__in), [id] "r"(__id)                                                            \
			     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");                                            \
		(type *)__out;                                                                                           \
	})

/* Keeps an index inside its array in a way that clang can't undo. */
#define bounded(index, mask)                                                                                             \
	({                                                                                                               \
		u64 __i = (u64)(index);                                                                                  \
		asm volatile("%[i] &= %[m]" : [i] "+r"(__i) : [m] "i"(mask));                                            \
		__i;                                                                                                     \
	})

static __always_inline struct pc_scratch *scratch_at(u32 id)
{
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

static __always_inline u32 byte_at(struct pc_segment *segment, u32 index)
{
	return ((u8 *)segment->words)[bounded(index, PC_SEGMENT_BYTES - 1)];
}

static __always_inline u64 mount_of(struct vfsmount *mnt)
{
	return (u64)mnt - bpf_core_field_offset(struct mount, mnt);
}

struct climb {
	u64 dentry;
	u64 mount;
	u64 root;
	u64 mount_root;
	u32 depth;
	u32 outcome;
	struct pc_scratch *scratch;
};

static __always_inline void climb_cast(struct climb *c, struct pc_component *slot)
{
	struct dentry *d = rdonly_cast(struct dentry, c->dentry);
	u64 parent = (u64)d->d_parent;

	if (c->dentry == c->mount_root) {
		struct mount *m = rdonly_cast(struct mount, c->mount);
		u64 above = (u64)m->mnt_parent;

		if (above == c->mount) {
			c->outcome = PC_PATH_OUTSIDE;
		} else {
			struct mount *a = rdonly_cast(struct mount, above);

			c->dentry = (u64)m->mnt_mountpoint;
			c->mount = above;
			c->mount_root = (u64)a->mnt.mnt_root;
		}
	} else if (parent == c->dentry) {
		c->outcome = PC_PATH_OUTSIDE;
	} else {
		slot->name = (u64)d->d_name.name;
		slot->len = d->d_name.len;
		c->dentry = parent;
		c->depth += 1;
	}
}

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

#define field_address(type, field, address) ((address) + bpf_core_field_offset(type, field))

static __always_inline void climb_read(struct climb *c, struct pc_component *slot)
{
	/* d_parent and d_name are neighbours in every kernel so far, but nothing says that they stay so: two reads. */
	u64 parent = read_u64(field_address(struct dentry, d_parent, c->dentry));

	if (c->dentry == c->mount_root) {
		u64 above = read_u64(field_address(struct mount, mnt_parent, c->mount));

		if (above == c->mount || !above) {
			c->outcome = PC_PATH_OUTSIDE;
		} else {
			c->dentry = read_u64(field_address(struct mount, mnt_mountpoint, c->mount));
			c->mount = above;
			c->mount_root = read_u64(field_address(struct mount, mnt.mnt_root, above));
		}
	} else if (parent == c->dentry || !parent) {
		c->outcome = PC_PATH_OUTSIDE;
	} else {
		struct qstr name = {};

		bpf_probe_read_kernel(&name, sizeof(name), (void *)field_address(struct dentry, d_name, c->dentry));
		slot->name = (u64)name.name;
		slot->len = name.len;
		c->dentry = parent;
		c->depth += 1;
	}
}

static long climb_step(u32 index, struct climb *c)
{
	struct pc_scratch *s = c->scratch;

	if (c->dentry == c->root) {
		c->outcome = PC_PATH_FOUND;
	} else if (c->depth >= PC_MAX_DEPTH) {
		c->outcome = PC_PATH_DEEP;
	} else {
		struct pc_component *slot = &s->chain[bounded(c->depth, PC_MAX_DEPTH - 1)];

		if (pc_ladder == 1)
			climb_cast(c, slot);
		else
			climb_read(c, slot);
	}
	return c->outcome ? 1 : 0;
}

/* Fills chain, depth and outcome from dentry, mount and root. Mount crossings count as steps: twice the depth suffices. */
__attribute__((noinline)) int pc_climb(u32 id)
{
	struct pc_scratch *s = scratch_at(id);
	struct climb c = {};

	if (!s)
		return 0;
	c.scratch = s;
	c.dentry = s->dentry;
	c.mount = s->mount;
	c.root = s->root;
	if (c.mount && pc_ladder == 1) {
		struct mount *m = rdonly_cast(struct mount, c.mount);

		c.mount_root = (u64)m->mnt.mnt_root;
	} else if (c.mount) {
		c.mount_root = read_u64(field_address(struct mount, mnt.mnt_root, c.mount));
	}
	bpf_loop(2 * PC_MAX_DEPTH, climb_step, &c, 0);
	s->depth = c.depth;
	s->outcome = c.outcome ? c.outcome : PC_PATH_DEEP;
	return 0;
}

/* ---- the automaton -------------------------------------------------------------------------------------------------- */

struct matching {
	struct pc_scratch *scratch;
	struct pc_segment *segment;
};

static __always_inline u32 advance(struct pc_segment *segment, u32 classes, u32 state, u32 byte)
{
	return word_at(segment, state + byte_at(segment, classes + byte));
}

/* Eight bytes of a name a step. */
static long match_step(u32 index, struct matching *m)
{
	struct pc_scratch *s = m->scratch;
	struct pc_segment *segment = m->segment;
	u32 state = s->state, classes = s->classes, left, offset = s->offset;
	u64 word = 0;

	if (!offset) { /* a component begins: its slash */
		struct pc_component *c = &s->chain[bounded(s->at, PC_MAX_DEPTH - 1)];

		if (state >= s->sink)
			return 1;
		s->name = c->name;
		s->name_len = c->len;
		state = word_at(segment, state + s->slash);
		if (pc_ladder != 1)
			bpf_probe_read_kernel(s->name_bytes, bounded(c->len, PC_NAME_MAX), (void *)c->name);
	}
	if (pc_ladder == 1) {
		struct qstr *eight = rdonly_cast(struct qstr, s->name + offset);

		word = eight->hash_len;
	} else {
		word = *(u64 *)(s->name_bytes + bounded(offset, 0xf8));
	}
	left = s->name_len - offset;

#define ONE_BYTE(n)                                                                                                      \
	if (left > n) {                                                                                                  \
		state = advance(segment, classes, state, (u32)(word >> (8 * n)) & 0xff);
	ONE_BYTE(0) ONE_BYTE(1) ONE_BYTE(2) ONE_BYTE(3) ONE_BYTE(4) ONE_BYTE(5) ONE_BYTE(6) ONE_BYTE(7)
	}}}}}}}}
#undef ONE_BYTE
	s->state = state;
	if (left > 8) {
		s->offset = offset + 8;
		return 0;
	}
	s->offset = 0;
	if (!s->at)
		return 1;
	s->at -= 1;
	return 0;
}

/* Walks the chain from s->state; the end state is in s->state. The sink may end it early: its decision is the end's. */
__attribute__((noinline)) int pc_match(u32 id)
{
	struct pc_scratch *s = scratch_at(id);
	struct matching m = {};

	if (!s)
		return 0;
	m.scratch = s;
	m.segment = segment_at(s->segment);
	if (!m.segment)
		return 0;
	s->slash = byte_at(m.segment, s->classes + '/');
	s->offset = 0;
	if (!s->depth) { /* the root itself */
		s->state = word_at(m.segment, s->state + s->slash);
		return 0;
	}
	s->at = s->depth - 1;
	bpf_loop(PC_MAX_DEPTH * ((PC_NAME_MAX + 8) / 8), match_step, &m, 0);
	return 0;
}

static long name_step(u32 index, struct matching *m)
{
	struct pc_scratch *s = m->scratch;
	u32 offset = s->offset;

	if (offset >= s->name_len)
		return 1;
	s->state = advance(m->segment, s->classes, s->state, s->name_bytes[bounded(offset, 0xff)]);
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
	len = bounded(s->chain[0].len, PC_NAME_MAX);
	if (!s->depth)
		len = 0;
	bpf_probe_read_kernel(s->name_bytes, len, (void *)s->chain[0].name);
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
	u32 len;

	if (!s->at)
		return 1;
	s->at -= 1;
	c = &s->chain[bounded(s->at, PC_MAX_DEPTH - 1)];
	len = bounded(c->len, PC_NAME_MAX);
	if (s->length + len + 1 > PC_PATH_MAX)
		return 1;
	s->text[bounded(s->length, PC_PATH_MAX - 1)] = '/';
	bpf_probe_read_kernel(&s->text[bounded(s->length + 1, PC_PATH_MAX - 1)], len, (void *)c->name);
	s->length += len + 1;
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
