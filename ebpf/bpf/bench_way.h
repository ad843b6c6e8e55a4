/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For comparison only: how path rules are commonly enforced, so that the numbers of bench.bpf.c have something to stand beside.
 *
 * The path is copied component by component into a buffer, backwards (parent, mount root, name, its bytes: four
 * bpf_probe_read_kernel each); then a hash whose key is the whole 256-byte path buffer is asked for the path itself and for
 * each directory above it. This is a lower bound: no second pass for the executable, no look-up by namespace, no posture. The
 * limits are the usual ones too: 20 components, 256 bytes, directories in the first 64 bytes.
 */
#ifndef PORTCULLIS_BENCH_WAY_H
#define PORTCULLIS_BENCH_WAY_H

#include "walk.h"

#define WAY_COMPONENTS 20
#define WAY_KEY 256
#define WAY_PREFIXES 64
#define WAY_BUFFER 8192u

struct way_key {
	char path[WAY_KEY];
};

struct way {
	struct way_key key;
	struct way_key zero;
	u64 dentry; /* the object */
	u64 mount;
	u64 root;
	u32 offset; /* of the path in the buffer */
	u32 pad;
	char buffer[WAY_BUFFER + 256];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct way);
} pc_bench_way SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct way_key);
	__type(value, u64);
} pc_bench_rules SEC(".maps");

static __always_inline struct way *way_memory(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&pc_bench_way, &zero);
}

__attribute__((noinline)) int way_path(void)
{
	struct way *w = way_memory();
	u32 offset = WAY_BUFFER - 1, len;
	u64 dentry, mount, root;
	int i;

	if (!w)
		return 0;
	dentry = w->dentry;
	mount = w->mount;
	root = w->root;
	w->buffer[WAY_BUFFER - 1] = 0;
	for (i = 0; i < WAY_COMPONENTS; i++) {
		struct qstr name = {};
		u64 parent, mount_root;

		if (dentry == root)
			break;
		mount_root = read_u64(field_address(struct mount, mnt.mnt_root, mount));
		parent = read_u64(field_address(struct dentry, d_parent, dentry));
		if (dentry == mount_root) {
			dentry = read_u64(field_address(struct mount, mnt_mountpoint, mount));
			mount = read_u64(field_address(struct mount, mnt_parent, mount));
			continue;
		}
		if (parent == dentry)
			break;
		bpf_probe_read_kernel(&name, sizeof(name), (void *)field_address(struct dentry, d_name, dentry));
		len = bounded(name.len, PC_NAME_MAX);
		if (offset < len + 1)
			break;
		offset -= len + 1;
		w->buffer[bounded(offset, WAY_BUFFER - 1)] = '/';
		bpf_probe_read_kernel(&w->buffer[bounded(offset + 1, WAY_BUFFER - 1)], len, name.name);
		dentry = parent;
	}
	w->offset = offset;
	return 0;
}

/* Returns 1 when a rule matches. */
__attribute__((noinline)) int way_match(void)
{
	struct way *w = way_memory();
	u32 i, start;

	if (!w)
		return 0;
	start = w->offset;
	w->key = w->zero;
	bpf_probe_read_kernel_str(w->key.path, WAY_KEY, &w->buffer[bounded(start, WAY_BUFFER - 1)]);
	if (bpf_map_lookup_elem(&pc_bench_rules, &w->key))
		return 1;
	w->key = w->zero;
	for (i = 0; i < WAY_PREFIXES; i++) {
		char c = w->buffer[bounded(start + i, WAY_BUFFER - 1)];

		if (!c)
			break;
		w->key.path[i] = c;
		if (c == '/' && bpf_map_lookup_elem(&pc_bench_rules, &w->key))
			return 1;
	}
	return 0;
}

#endif
