/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Portcullis' own kernel state: maps, programs and links by id and the pins. "other" escapes when
 * a descriptor of any of it is had. Without Portcullis loaded there is nothing to get, and the attack says ENOENT.
 */
#include "attack.h"

#include "abi.h" /* of ebpf/bpf: the pins are in a directory by layout */

#include <linux/bpf.h>

#define MAP_PREFIX "pc_"
#define MAX_IDS 4096

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* Maps and programs of Portcullis have names of their own. */
static int is_ours(int fd, int program)
{
	struct bpf_map_info map;
	struct bpf_prog_info prog;
	union bpf_attr attr;

	memset(&map, 0, sizeof(map));
	memset(&prog, 0, sizeof(prog));
	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info_len = program ? sizeof(prog) : sizeof(map);
	attr.info.info = (uint64_t)(uintptr_t)(program ? (void *)&prog : (void *)&map);
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
		return 0;
	return !strncmp(program ? prog.name : map.name, MAP_PREFIX, strlen(MAP_PREFIX));
}

static void check_map(int fd)
{
	if (is_ours(fd, 0))
		escaped(ESCAPED_OTHER);
}

static void check_program(int fd)
{
	if (is_ours(fd, 1))
		escaped(ESCAPED_OTHER);
}

/* A descriptor of a link is nothing yet; to detach it, or to put another program in its place, would end enforcement. */
static void check_link(int fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.link_detach.link_fd = (uint32_t)fd;
	if (bpf(BPF_LINK_DETACH, &attr) == 0)
		escaped(ESCAPED_OTHER);
	else
		held("BPF_LINK_DETACH");
}

static void each_id(int next, int get, void (*check)(int))
{
	union bpf_attr attr;
	uint32_t id = 0;
	int count;

	for (count = 0; count < MAX_IDS; count++) {
		int fd;

		memset(&attr, 0, sizeof(attr));
		attr.start_id = id;
		if (bpf(next, &attr)) {
			if (errno != ENOENT)
				held("BPF_*_GET_NEXT_ID");
			return;
		}
		id = attr.next_id;
		memset(&attr, 0, sizeof(attr));
		attr.map_id = id;
		fd = bpf(get, &attr);
		if (fd < 0) {
			held("BPF_*_GET_FD_BY_ID");
			continue;
		}
		check(fd);
		close(fd);
	}
}

static void maps_by_id(void)
{
	each_id(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID, check_map);
	held_as(ENOENT, "no such map");
}

static void links_by_id(void)
{
	each_id(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID, check_link);
	held_as(ENOENT, "no link");
}

static void programs_by_id(void)
{
	each_id(BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, check_program);
	held_as(ENOENT, "no such program");
}

static void pins_in(const char *root)
{
	static const char *const pins[] = { "/maps/pc_slots", "/maps/slots", "/links", "" };
	union bpf_attr attr;
	char path[512];
	size_t i;

	for (i = 0; i < sizeof(pins) / sizeof(pins[0]); i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/portcullis/v%u%s", root, PC_LAYOUT, pins[i]);
		memset(&attr, 0, sizeof(attr));
		attr.pathname = (uint64_t)(uintptr_t)path;
		fd = bpf(BPF_OBJ_GET, &attr);
		if (fd >= 0)
			escaped(ESCAPED_OTHER);
		else
			held("BPF_OBJ_GET");
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			escaped(ESCAPED_OTHER);
	}
	snprintf(path, sizeof(path), "%s/portcullis", root);
	if (rename(path, in_work("pins")) == 0)
		escaped(ESCAPED_OTHER);
}

static void pins(void)
{
	mkdir(in_work("bpf"), 0777);
	if (mount("bpf", in_work("bpf"), "bpf", 0, NULL) == 0)
		pins_in(in_work("bpf"));
	else
		held("mount(bpf)");
	pins_in("/sys/fs/bpf");
	pins_in("/proc/1/root/sys/fs/bpf");
}

static void pins_of_host(void)
{
	int ns = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (ns < 0 || setns(ns, CLONE_NEWNS)) {
		held("setns(mount namespace of pid 1)");
		return;
	}
	pins_in("/sys/fs/bpf");
}

const struct attack kernel_attacks[] = {
	{ "bpf-maps", maps_by_id, 0 },
	{ "bpf-links", links_by_id, 0 },
	{ "bpf-programs", programs_by_id, 0 },
	{ "bpf-pins", pins, 0 },
	{ "bpf-pins-of-host", pins_of_host, 0 },
	{ NULL, NULL, 0 },
};
