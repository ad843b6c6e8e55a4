/* SPDX-License-Identifier: Apache-2.0 */
/* Other names made by mounting: in the container's mount namespace, in a new one, detached from every namespace. */
#include "attack.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/sysmacros.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#define MOVE_EMPTY 0x4 /* MOVE_MOUNT_F_EMPTY_PATH */

static int sys_open_tree(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE);
}

static int sys_move_mount(int from, const char *to)
{
	return (int)syscall(SYS_move_mount, from, "", AT_FDCWD, to, MOVE_EMPTY);
}

static const char *target(const char *name)
{
	const char *path = in_work(name);

	mkdir(path, 0777);
	return path;
}

static void through_below(const char *dir, const char *rest)
{
	char path[1024];

	snprintf(path, sizeof(path), "%s/%s", dir, rest);
	through(path);
}

static void do_bind(void)
{
	const char *b = target("b");

	if (mount(TREE, b, NULL, MS_BIND, NULL))
		held("mount(MS_BIND)");
	through(b);
	b = target("data");
	if (mount(DATA, b, NULL, MS_BIND | MS_REC, NULL))
		held("mount(MS_BIND)");
	through_below(b, "vault/inner");
	b = target("root");
	if (mount("/", b, NULL, MS_BIND | MS_REC, NULL))
		held("mount(MS_BIND)");
	through_below(b, "data/vault/inner");
	/* The file itself, over a file. */
	close(open(in_work("f"), O_CREAT | O_WRONLY, 0666));
	if (mount(SECRET, in_work("f"), NULL, MS_BIND, NULL) == 0)
		try_read(in_work("f"));
}

static void bind(void)
{
	do_bind();
}

static void bind_userns(void)
{
	if (new_userns(CLONE_NEWNS) == 0)
		do_bind();
}

static void bind_mntns(void)
{
	if (unshare(CLONE_NEWNS)) {
		held("unshare(CLONE_NEWNS)");
		return;
	}
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	do_bind();
}

/* The mount is moved over an allowed place, and what is at the protected one afterwards is something else. */
static void move_old(void)
{
	const char *a = target("a"), *b = target("b");

	if (mount(VAULT, a, NULL, MS_BIND, NULL)) {
		held("mount(MS_BIND)");
		return;
	}
	if (mount(a, b, NULL, MS_MOVE, NULL))
		held("mount(MS_MOVE)");
	through_below(b, "inner");
	through_below(a, "inner");
}

static void clone_tree(const char *what, const char *rest)
{
	int tree = sys_open_tree(what), dir;

	if (tree < 0) {
		held("open_tree(OPEN_TREE_CLONE)");
		return;
	}
	dir = rest ? openat(tree, rest, O_PATH | O_DIRECTORY | O_CLOEXEC) : tree;
	if (dir >= 0)
		through_dir(dir);
	else
		held("openat");
	if (sys_move_mount(tree, target("moved")) == 0)
		through_below(in_work("moved"), rest ? rest : ".");
	else
		held("move_mount");
}

static void open_tree_clone(void)
{
	clone_tree(TREE, NULL);
	clone_tree(DATA, "vault/inner");
	clone_tree("/", "data/vault/inner");
}

static void open_tree_userns(void)
{
	if (new_userns(CLONE_NEWNS) == 0)
		open_tree_clone();
}

/* The detached tree becomes the cwd and the root of the attacker. */
static void detached_chroot(void)
{
	int tree = sys_open_tree("/");

	if (tree < 0 || fchdir(tree)) {
		held("open_tree(OPEN_TREE_CLONE)");
		return;
	}
	if (chroot("."))
		held("chroot");
	through("." TREE);
	through(TREE);
}

/* A new file system by the new interface, with the tree bound into it. */
static void new_mount_api(void)
{
	int fs = (int)syscall(SYS_fsopen, "tmpfs", 1), mnt;
	const char *at = target("fs");

	if (fs < 0) {
		held("fsopen");
		return;
	}
	syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0);
	mnt = (int)syscall(SYS_fsmount, fs, 1, 0);
	if (mnt < 0 || sys_move_mount(mnt, at)) {
		held("fsmount, move_mount");
		return;
	}
	mkdir(in_work("fs/in"), 0777);
	if (mount(TREE, in_work("fs/in"), NULL, MS_BIND, NULL))
		held("mount(MS_BIND)");
	through(in_work("fs/in"));
}

static void overlay_over(const char *lower)
{
	const char *m = target("m");
	char options[1024];

	target("t");
	if (mount("tmpfs", in_work("t"), "tmpfs", 0, NULL)) {
		held("mount(tmpfs)");
		return;
	}
	mkdir(in_work("t/up"), 0777);
	mkdir(in_work("t/wk"), 0777);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", lower, in_work("t/up"), in_work("t/wk"));
	if (mount("overlay", m, "overlay", 0, options)) {
		held("mount(overlay)");
		return;
	}
	through_below(m, strcmp(lower, TREE) ? "vault/inner" : ".");
}

/* Change through it is a change of the copy, not of the protected file: only reading and executing count. */
static void overlay(void)
{
	overlay_over(TREE);
	if (!has_escaped())
		overlay_over(DATA);
}

static void overlay_userns(void)
{
	if (new_userns(CLONE_NEWNS) == 0)
		overlay();
}

static void do_pivot(void)
{
	const char *root = target("root");

	if (mount("/", root, NULL, MS_BIND | MS_REC, NULL)) {
		held("mount(MS_BIND)");
		return;
	}
	if (chdir(root) || syscall(SYS_pivot_root, ".", ".")) {
		held("pivot_root");
		return;
	}
	umount2(".", MNT_DETACH);
	if (chdir("/"))
		held("chdir");
	through(TREE);
}

static void pivot(void)
{
	if (unshare(CLONE_NEWNS)) {
		held("unshare(CLONE_NEWNS)");
		return;
	}
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	do_pivot();
}

/* The new root is VAULT itself: paths below it are short, and look like those of nothing protected. */
static void pivot_below(void)
{
	if (unshare(CLONE_NEWNS)) {
		held("unshare(CLONE_NEWNS)");
		return;
	}
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	if (mount(VAULT, VAULT, NULL, MS_BIND | MS_REC, NULL)) {
		held("mount(MS_BIND)");
		return;
	}
	if (chdir(VAULT) || syscall(SYS_pivot_root, ".", ".")) {
		held("pivot_root");
		return;
	}
	through("/inner");
}

static void pivot_userns(void)
{
	if (new_userns(CLONE_NEWNS) == 0)
		do_pivot();
}

/* Every block device is mounted again, and the container's root looked for in it (HOST_ROOT: its path there). */
static void block_device(void)
{
	const char *host = getenv("HOST_ROOT");
	FILE *list = fopen("/proc/partitions", "re");
	char line[256], name[64], path[1024];
	unsigned int major, minor;

	if (!list || !host) {
		held("partitions");
		return;
	}
	while (fgets(line, sizeof(line), list)) {
		const char *m = target("m");

		if (sscanf(line, " %u %u %*u %63s", &major, &minor, name) != 3)
			continue;
		unlink(in_work("node"));
		if (mknod(in_work("node"), S_IFBLK | 0600, makedev(major, minor))) {
			held("mknod");
			continue;
		}
		if (mount(in_work("node"), m, "ext4", 0, NULL)) {
			held("mount(block device)");
			continue;
		}
		snprintf(path, sizeof(path), "%s%s" TREE, m, host);
		through(path);
		umount2(m, MNT_DETACH);
	}
	fclose(list);
}

/* /proc/version is denied: another instance of proc is another name for it. */
static void proc_elsewhere(void)
{
	char text[16] = "";
	int fd;

	if (mount("proc", target("p"), "proc", 0, NULL)) {
		held("mount(proc)");
		/* A bind of the one that is there. */
		if (mount("/proc", in_work("p"), NULL, MS_BIND | MS_REC, NULL)) {
			held("mount(MS_BIND)");
			return;
		}
	}
	fd = open(in_work("p/version"), O_RDONLY);
	if (fd >= 0 && read(fd, text, 5) == 5 && !strcmp(text, "Linux"))
		escaped(ESCAPED_READ);
	else
		held("open of version");
	through(in_work("p/self/root" TREE));
}

/* What is mounted over a protected name is at that name; what is below can be seen again by taking it off. */
static void cover(void)
{
	int dir = open(TREE, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (mount("tmpfs", VAULT, "tmpfs", 0, NULL)) {
		held("mount(tmpfs)");
		return;
	}
	through_dir(dir);
	umount2(VAULT, MNT_DETACH);
}

/* A mount that was taken off lazily belongs to no namespace. */
static void lazy_umount(void)
{
	const char *b = target("b");
	int dir;

	if (mount(VAULT, b, NULL, MS_BIND, NULL)) {
		held("mount(MS_BIND)");
		return;
	}
	dir = open(in_work("b/inner"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	umount2(b, MNT_DETACH);
	if (dir < 0)
		held("open(O_PATH)");
	else
		through_dir(dir);
}

const struct attack mount_attacks[] = {
	{ "bind", bind, 0 },
	{ "bind-mntns", bind_mntns, 0 },
	{ "bind-userns", bind_userns, 0 },
	{ "move-mount-old", move_old, 0 },
	{ "open-tree", open_tree_clone, 0 },
	{ "open-tree-userns", open_tree_userns, 0 },
	{ "detached-chroot", detached_chroot, 0 },
	{ "new-mount-api", new_mount_api, 0 },
	{ "overlay", overlay, 0 },
	{ "overlay-userns", overlay_userns, 0 },
	{ "pivot-root", pivot, 0 },
	{ "pivot-below", pivot_below, 0 },
	{ "pivot-userns", pivot_userns, 0 },
	{ "block-device", block_device, 0 },
	{ "proc-elsewhere", proc_elsewhere, 0 },
	{ "cover", cover, 0 },
	{ "lazy-umount", lazy_umount, 0 },
	{ NULL, NULL, 0 },
};
