/* SPDX-License-Identifier: Apache-2.0 */
/* Executions: by path with and without a fork, by descriptor, of files that have no name. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "elf.h"
#include "probe.h"

static int execute_fd(int fd, const char *name)
{
	char *argv[] = { (char *)name, "--noop", NULL };
	char *envp[] = { NULL };

	return (int)syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
}

/* Forks, lets `fd` or `path` be executed in the child, and learns the errno from a pipe that a success closes. */
static struct outcome forked(int fd, const char *path)
{
	char *argv[] = { (char *)path, "--noop", NULL };
	int result[2], error = 0, status;
	pid_t pid;

	if (pipe2(result, O_CLOEXEC))
		return FAILED("pipe");
	pid = fork();
	if (pid < 0)
		return FAILED("fork");
	if (pid == 0) {
		/* The executed program must not eat the driver's input. */
		close(0);
		if (fd >= 0)
			execute_fd(fd, path);
		else
			execv(path, argv);
		error = errno;
		if (write(result[1], &error, sizeof(error)) < 0)
			_exit(126);
		_exit(127);
	}
	close(result[1]);
	if (read(result[0], &error, sizeof(error)) < 0)
		error = errno;
	close(result[0]);
	waitpid(pid, &status, 0);
	if (!error && WIFSIGNALED(status))
		return (struct outcome){ EACCES, "killed" };
	return (struct outcome){ error, "execve" };
}

static struct outcome from_memory(int keep_fork)
{
	struct tiny_elf elf = tiny_elf();
	int fd = memfd_create("program", keep_fork ? 0 : MFD_CLOEXEC);

	if (fd < 0)
		return FAILED("memfd_create");
	if (write(fd, &elf, sizeof(elf)) != (ssize_t)sizeof(elf))
		return FAILED("write");
	return forked(fd, "memfd");
}

/* `path` loses its name before it is executed. O_PATH: the open is no operation of its own. */
static struct outcome unlinked(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return FAILED("open");
	if (unlink(path))
		return FAILED("unlink");
	return forked(fd, path);
}

static struct outcome by_descriptor(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return FAILED("open");
	return forked(fd, path);
}

/* A program that never had a name, in directory `dir`. */
static struct outcome unnamed(const char *dir)
{
	struct tiny_elf elf = tiny_elf();
	char name[64];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0777), readable;

	if (fd < 0)
		return FAILED("open");
	if (write(fd, &elf, sizeof(elf)) != (ssize_t)sizeof(elf))
		return FAILED("write");
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	readable = open(name, O_PATH | O_CLOEXEC);
	if (readable < 0)
		return FAILED("open");
	close(fd);
	return forked(readable, "tmpfile");
}

struct outcome do_exec(const char *op, char **args, int n, int *known)
{
	*known = 1;
	if (!strcmp(op, "memfd"))
		return from_memory(1);
	if (n < 1) {
		*known = 0;
		return OK();
	}
	if (!strcmp(op, "exec"))
		return forked(-1, args[0]);
	if (!strcmp(op, "execve")) {
		char *argv[] = { args[0], "--noop", NULL };

		execv(args[0], argv);
		return FAILED("execve");
	}
	if (!strcmp(op, "fexecve"))
		return by_descriptor(args[0]);
	if (!strcmp(op, "exec-deleted"))
		return unlinked(args[0]);
	if (!strcmp(op, "exec-tmpfile"))
		return unnamed(args[0]);
	*known = 0;
	return OK();
}
