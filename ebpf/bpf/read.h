/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading the kernel's memory and writing to an array, in ways that every supported verifier takes. */
#ifndef PORTCULLIS_READ_H
#define PORTCULLIS_READ_H

#include "kernel.h"

/* Keeps an index inside its array in a way that clang can't undo. */
#define bounded(index, mask)                                                                                             \
	({                                                                                                               \
		u64 __i = (u64)(index);                                                                                  \
		asm volatile("%[i] &= %[m]" : [i] "+r"(__i) : [m] "i"(mask));                                            \
		__i;                                                                                                     \
	})

static __always_inline u64 mount_of(struct vfsmount *mnt)
{
	return (u64)mnt - bpf_core_field_offset(struct mount, mnt);
}

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

#define field_address(type, field, address) ((address) + bpf_core_field_offset(type, field))

#endif
