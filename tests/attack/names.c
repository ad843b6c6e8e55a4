/* SPDX-License-Identifier: Apache-2.0 */
/* Other names for a protected file, made by moving names about: links, renames, dots, the /proc ways to a root or cwd. */
#include "attack.h"

static void hardlink(void)
{
	static const char *const files[] = { "secret.txt", "prog", "protected.txt" };
	char from[256];
	size_t i;

	for (i = 0; i < 3; i++) {
		snprintf(from, sizeof(from), TREE "/%s", files[i]);
		if (link(from, in_work(files[i])))
			held("link");
	}
	through(work());
}

/* The link is made from a descriptor: the old name is never said. */
static void hardlink_descriptor(void)
{
	int fd = open(SECRET, O_PATH | O_CLOEXEC);
	char name[64];

	if (linkat(fd, "", AT_FDCWD, in_work("empty"), AT_EMPTY_PATH) == 0)
		try_read(in_work("empty"));
	else
		held("linkat(AT_EMPTY_PATH)");
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, name, AT_FDCWD, in_work("proc"), AT_SYMLINK_FOLLOW) == 0)
		try_read(in_work("proc"));
	else
		held("linkat(/proc/self/fd)");
}

static void symlinks(void)
{
	if (symlink(TREE, in_work("dir")) || symlink(SECRET, in_work("file")))
		held("symlink");
	try_read(in_work("file"));
	through(in_work("dir"));
	if (symlink("../../data/vault", in_work("relative")) == 0) {
		char path[512];

		snprintf(path, sizeof(path), "%s/inner", in_work("relative"));
		through(path);
	}
}

static void rename_parent(void)
{
	if (rename(TREE, VAULT "/renamed"))
		held("rename of the parent");
	through(VAULT "/renamed");
}

static void rename_ancestor(void)
{
	char path[512];

	if (rename(VAULT, in_work("vault")))
		held("rename of an ancestor");
	snprintf(path, sizeof(path), "%s/inner", in_work("vault"));
	through(path);
}

static void rename_top(void)
{
	if (rename(DATA, WORK "/top"))
		held("rename of the top");
	through(WORK "/top/vault/inner");
	rename(WORK "/top", DATA);
}

static void rename_exchange(void)
{
	mkdir(in_work("dir"), 0777);
	if (renameat2(AT_FDCWD, in_work("dir"), AT_FDCWD, TREE, RENAME_EXCHANGE))
		held("renameat2(RENAME_EXCHANGE)");
	through(in_work("dir"));
}

/* The harmless side of an exchange is moved to where a rule protects, the protected one to where none does. */
static void rename_exchange_files(void)
{
	int fd = open(in_work("file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0666);

	close(fd);
	if (renameat2(AT_FDCWD, in_work("file"), AT_FDCWD, SECRET, RENAME_EXCHANGE))
		held("renameat2(RENAME_EXCHANGE)");
	try_read(in_work("file"));
}

static void rename_file(void)
{
	if (rename(SECRET, in_work("secret.txt")))
		held("rename");
	try_read(in_work("secret.txt"));
}

/* What is protected is replaced, not opened. */
static void rename_over(void)
{
	int fd = open(in_work("new"), O_CREAT | O_WRONLY | O_CLOEXEC, 0666);

	if (fd >= 0)
		close(fd);
	if (rename(in_work("new"), PROTECTED) == 0)
		escaped(ESCAPED_CHANGE);
	else
		held("rename over");
}

/* A directory with the protected name is put aside and another is built in its place. */
static void rebuild(void)
{
	if (rename(VAULT, DATA "/aside")) {
		held("rename");
		return;
	}
	mkdir(VAULT, 0777);
	mkdir(TREE, 0777);
	through(DATA "/aside/inner");
}

static void dots(void)
{
	through("/data/vault/../vault/./inner");
	through("//data///vault//inner/.");
	through(WORK "/../data/vault/inner");
	through("/data/vault/inner/../../vault/inner");
	through("/../../data/vault/inner");
}

static void proc_root(void)
{
	char path[256];

	through("/proc/self/root" TREE);
	through("/proc/1/root" TREE);
	through("/proc/thread-self/root" TREE);
	snprintf(path, sizeof(path), "/proc/%d/root/proc/self/root" TREE, getppid());
	through(path);
}

static void proc_cwd(void)
{
	if (chdir(TREE))
		held("chdir");
	through(".");
	through("/proc/self/cwd");
	through("../inner");
}

/* A directory descriptor that was opened before its name changes. */
static void directory_descriptor(void)
{
	int dir = open(TREE, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0) {
		held("open(O_PATH)");
		return;
	}
	through_dir(dir);
}

static void case_and_bytes(void)
{
	try_read("/data/vault/inner/secret.txt/");
	try_read("/data/vault/inner/secret.txt/.");
	try_read("/data/vault/inner//secret.txt");
}

const struct attack names_attacks[] = {
	{ "hardlink", hardlink, 0 },
	{ "hardlink-descriptor", hardlink_descriptor, 0 },
	{ "symlink", symlinks, 0 },
	{ "rename-parent", rename_parent, 0 },
	{ "rename-ancestor", rename_ancestor, 0 },
	{ "rename-top", rename_top, 0 },
	{ "rename-exchange", rename_exchange, 0 },
	{ "rename-exchange-files", rename_exchange_files, 0 },
	{ "rename-file", rename_file, 0 },
	{ "rename-over", rename_over, 0 },
	{ "rebuild", rebuild, 0 },
	{ "dots", dots, 0 },
	{ "proc-root", proc_root, 0 },
	{ "proc-cwd", proc_cwd, 0 },
	{ "directory-descriptor", directory_descriptor, 0 },
	{ "trailing", case_and_bytes, 0 },
	{ NULL, NULL, 0 },
};
