/* SPDX-License-Identifier: Apache-2.0 */
/* File operations, one system call each: nothing but the operation on trial touches the path. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "probe.h"

static struct outcome opened(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0666);

	if (fd < 0)
		return FAILED("open");
	close(fd);
	return OK();
}

static struct outcome read_file(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return FAILED("open");
	if (read(fd, &byte, 1) < 0 && errno != EISDIR)
		return FAILED("read");
	close(fd);
	return OK();
}

static struct outcome write_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		return FAILED("open");
	if (write(fd, "x", 1) != 1)
		return FAILED("write");
	close(fd);
	return OK();
}

static struct outcome map_shared(const char *path)
{
	struct outcome outcome = OK();
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *page;

	if (fd < 0)
		return FAILED("open");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		outcome = FAILED("mmap");
	close(fd);
	return outcome;
}

static struct outcome list(const char *path)
{
	DIR *dir = opendir(path);

	if (!dir)
		return FAILED("open");
	closedir(dir);
	return OK();
}

static struct outcome shorten_opened(const char *path)
{
	struct outcome outcome = OK();
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return FAILED("open");
	if (ftruncate(fd, 1))
		outcome = FAILED("ftruncate");
	close(fd);
	return outcome;
}

static struct outcome result(int value, const char *step)
{
	if (value)
		return FAILED(step);
	return OK();
}

struct outcome do_file(const char *op, char **args, int n, int *known)
{
	const char *path = n > 0 ? args[0] : "";
	const char *other = n > 1 ? args[1] : "";

	*known = n > 0;
	if (!*known)
		return OK();
	if (!strcmp(op, "read"))
		return read_file(path);
	if (!strcmp(op, "write"))
		return write_file(path, O_WRONLY);
	if (!strcmp(op, "readwrite"))
		return write_file(path, O_RDWR);
	if (!strcmp(op, "append"))
		return write_file(path, O_WRONLY | O_APPEND);
	if (!strcmp(op, "trunc"))
		return opened(path, O_WRONLY | O_TRUNC);
	if (!strcmp(op, "create"))
		return opened(path, O_WRONLY | O_CREAT | O_EXCL);
	if (!strcmp(op, "tmpfile"))
		return opened(path, O_RDWR | O_TMPFILE);
	if (!strcmp(op, "map"))
		return map_shared(path);
	if (!strcmp(op, "unlink"))
		return result(unlink(path), "unlink");
	if (!strcmp(op, "rename"))
		return result(rename(path, other), "rename");
	if (!strcmp(op, "exchange"))
		return result(renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE), "renameat2");
	if (!strcmp(op, "link"))
		return result(link(path, other), "link");
	if (!strcmp(op, "symlink")) /* symlink NEW TARGET: the new name is what is judged */
		return result(symlink(n > 1 ? other : "/", path), "symlink");
	if (!strcmp(op, "mkdir"))
		return result(mkdir(path, 0777), "mkdir");
	if (!strcmp(op, "rmdir"))
		return result(rmdir(path), "rmdir");
	if (!strcmp(op, "mknod"))
		return result(mknod(path, S_IFIFO | 0666, 0), "mknod");
	if (!strcmp(op, "chmod"))
		return result(chmod(path, 0755), "chmod");
	if (!strcmp(op, "chown"))
		return result(chown(path, getuid(), getgid()), "chown");
	if (!strcmp(op, "truncate"))
		return result(truncate(path, 1), "truncate");
	if (!strcmp(op, "ftruncate"))
		return shorten_opened(path);
	if (!strcmp(op, "utimes"))
		return result(utimensat(AT_FDCWD, path, (struct timespec[2]){ { 1, 0 }, { 1, 0 } }, 0), "utimensat");
	if (!strcmp(op, "setxattr"))
		return result(setxattr(path, "user.portcullis", "1", 1, 0), "setxattr");
	if (!strcmp(op, "removexattr"))
		return result(removexattr(path, "user.portcullis"), "removexattr");
	if (!strcmp(op, "opendir"))
		return list(path);
	if (!strcmp(op, "stat")) {
		struct stat st;

		return result(stat(path, &st), "stat");
	}
	*known = 0;
	return OK();
}
