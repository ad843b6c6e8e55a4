/* SPDX-License-Identifier: Apache-2.0 */
/* Every way to change a file other than to open it for writing. Each succeeds or not by its own return value. */
#include "attack.h"

#include <sys/mman.h>
#include <sys/xattr.h>

static void changed(int result, const char *step)
{
	if (result == 0)
		escaped(ESCAPED_CHANGE);
	else
		held(step);
}

static void do_truncate(void)
{
	changed(truncate(PROTECTED, 1), "truncate");
	changed(truncate(LOCKED "/note", 1), "truncate");
}

static void do_ftruncate(void)
{
	int fd = open(PROTECTED, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		held("open for writing");
	else
		changed(ftruncate(fd, 1), "ftruncate");
}

static void do_open_truncate(void)
{
	int fd = open(PROTECTED, O_RDONLY | O_TRUNC | O_CLOEXEC);

	changed(fd < 0 ? -1 : 0, "open(O_TRUNC)");
	/* A mode of 3 asks for both rights and gives neither. */
	fd = open(PROTECTED, O_ACCMODE | O_TRUNC | O_CLOEXEC);
	changed(fd < 0 ? -1 : 0, "open(O_ACCMODE|O_TRUNC)");
}

static void do_chmod(void)
{
	int fd = open(PROTECTED, O_PATH | O_CLOEXEC);
	char path[64];

	changed(chmod(PROTECTED, 0777), "chmod");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	changed(chmod(path, 0777), "chmod");
#ifdef SYS_fchmodat2
	changed((int)syscall(SYS_fchmodat2, fd, "", 0777, AT_EMPTY_PATH), "fchmodat2");
#endif
	changed(chmod(LOCKED "/note", 0777), "chmod");
}

static void do_chown(void)
{
	int fd = open(PROTECTED, O_PATH | O_CLOEXEC);

	changed(chown(PROTECTED, 1, 1), "chown");
	changed(fchownat(fd, "", 1, 1, AT_EMPTY_PATH), "fchownat");
	changed(chown(LOCKED "/note", 1, 1), "chown");
}

static void do_utimes(void)
{
	struct timespec times[2] = { { 1, 0 }, { 1, 0 } };

	changed(utimensat(AT_FDCWD, PROTECTED, times, 0), "utimensat");
	changed(utimensat(AT_FDCWD, LOCKED "/note", times, 0), "utimensat");
	changed(utimensat(AT_FDCWD, PROTECTED, NULL, 0), "utimensat");
}

static void do_setxattr(void)
{
	changed(setxattr(PROTECTED, "user.attack", "1", 1, 0), "setxattr");
	changed(setxattr(LOCKED "/note", "user.attack", "1", 1, 0), "setxattr");
	changed(setxattr(PROTECTED, "system.posix_acl_access", "\2\0\0\0", 4, 0), "setxattr of an acl");
}

/* A file that may be read is open; its descriptor is asked for changes. */
static void by_readable(void)
{
	int fd = open(LOCKED "/note", O_RDONLY | O_CLOEXEC);
	struct timespec times[2] = { { 1, 0 }, { 1, 0 } };
	void *page;

	if (fd < 0) {
		held("open for reading");
		return;
	}
	changed(fchmod(fd, 0777), "fchmod");
	changed(fchown(fd, 1, 1), "fchown");
	changed(futimens(fd, times), "futimens");
	changed(fsetxattr(fd, "user.attack", "1", 1, 0), "fsetxattr");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	changed(page == MAP_FAILED ? -1 : 0, "mmap(MAP_SHARED)");
}

static void do_unlink(void)
{
	changed(unlink(PROTECTED), "unlink");
	changed(unlink(LOCKED "/note"), "unlink");
}

static void create_below(void)
{
	int fd = open(LOCKED "/new", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

	changed(fd < 0 ? -1 : 0, "open(O_CREAT)");
	changed(mkdir(LOCKED "/dir", 0777), "mkdir");
	changed(symlink("/", LOCKED "/symlink"), "symlink");
	changed(mknod(LOCKED "/fifo", S_IFIFO | 0666, 0), "mknod");
	changed(link(SELF, LOCKED "/link"), "link");
	fd = open(in_work("f"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	close(fd);
	changed(rename(in_work("f"), LOCKED "/renamed"), "rename");
}

/* CVE-2019-5736: a program that runs is written through its /proc/PID/exe as soon as it no longer runs. */
static void running_program(void)
{
	char path[64];
	int fd, status, again, out[2];
	char byte;
	pid_t pid;

	if (pipe(out))
		return;
	pid = fork();
	if (pid == 0) {
		dup2(out[1], 1);
		close(out[1]);
		execl(LOCKED "/tool", "tool", "--drive", NULL);
		_exit(126);
	}
	close(out[1]);
	if (read(out[0], &byte, 1) != 1) {
		held_as(EIO, "the tool did not start");
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	fd = open(path, O_PATH | O_CLOEXEC);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (fd < 0) {
		held("open(O_PATH) of /proc/PID/exe");
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_WRONLY | O_CLOEXEC);
	if (again < 0)
		held("open for writing");
	else if (pwrite(again, "#", 1, 0) == 1)
		escaped(ESCAPED_CHANGE);
}

const struct attack change_attacks[] = {
	{ "truncate", do_truncate, 0 },
	{ "ftruncate", do_ftruncate, 0 },
	{ "open-truncate", do_open_truncate, 0 },
	{ "chmod", do_chmod, 0 },
	{ "chown", do_chown, 0 },
	{ "utimes", do_utimes, 0 },
	{ "setxattr", do_setxattr, 0 },
	{ "readable-descriptor", by_readable, 0 },
	{ "unlink", do_unlink, 0 },
	{ "create-below", create_below, 0 },
	{ "running-program", running_program, 0 },
	{ NULL, NULL, 0 },
};
