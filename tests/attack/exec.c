/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to run a program other than by its name: descriptors, memory, loaders, interpreters, files without a name. */
#include "attack.h"

#include <pthread.h>
#include <sys/mman.h>

/* Where distributions put the program loader. */
static const char *const loaders[] = {
	"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1",
};

static void by_name(void)
{
	try_exec(PROG);
	through_exec(TREE);
}

static void script(void)
{
	int fd = open(in_work("script"), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	static const char line[] = "#!" PROG " --mark\n";

	if (fd < 0 || write(fd, line, sizeof(line) - 1) < 0) {
		held("script");
		return;
	}
	close(fd);
	try_exec(in_work("script"));
}

/* A script whose interpreter is a script whose interpreter is the denied program. */
static void script_nested(void)
{
	char line[600];
	int fd;

	script();
	snprintf(line, sizeof(line), "#!%s\n", in_work("script"));
	fd = open(in_work("outer"), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	if (fd < 0 || write(fd, line, strlen(line)) < 0) {
		held("script");
		return;
	}
	close(fd);
	try_exec(in_work("outer"));
}

/* DYN is a dynamic `touch`: the mark is the file it makes. */
static void loader(void)
{
	size_t i;

	for (i = 0; i < sizeof(loaders) / sizeof(loaders[0]); i++) {
		pid_t pid;
		int status;

		if (access(loaders[i], X_OK))
			continue;
		pid = fork();
		if (pid == 0) {
			execl(loaders[i], loaders[i], DYN, MARK, NULL);
			_exit(126);
		}
		waitpid(pid, &status, 0);
		if (marked()) {
			escaped(ESCAPED_EXEC);
			return;
		}
		held_as(WIFEXITED(status) && WEXITSTATUS(status) == 126 ? EPERM : EACCES, "the loader");
	}
	held_as(ENOENT, "no loader in the image");
}

static void memory_of(const char *program)
{
	int fd = memfd_create("m", 0), in = open(program, O_RDONLY | O_CLOEXEC);
	char buffer[65536];
	ssize_t got;

	if (in < 0) {
		held("open for reading");
		return;
	}
	while ((got = read(in, buffer, sizeof(buffer))) > 0)
		if (write(fd, buffer, (size_t)got) != got)
			break;
	try_exec_fd(fd);
	snprintf(buffer, sizeof(buffer), "/proc/self/fd/%d", fd);
	try_exec(buffer);
}

static void memfd_denied(void)
{
	memory_of(PROG);
}

static void memfd_own(void)
{
	memory_of("/proc/self/exe");
}

static void by_descriptor(void)
{
	int fd = open(PROG, O_PATH | O_CLOEXEC);
	char path[64];

	if (fd < 0) {
		held("open(O_PATH)");
		return;
	}
	try_exec_fd(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	try_exec(path);
	snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	try_exec(path);
}

static void by_directory(void)
{
	int dir = open(TREE, O_PATH | O_DIRECTORY | O_CLOEXEC), status;
	char *argv[] = { "prog", "--mark", NULL };
	char *envp[] = { NULL };
	pid_t pid = fork();

	if (pid == 0) {
		syscall(SYS_execveat, dir, "prog", argv, envp, 0);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		escaped(ESCAPED_EXEC);
	else
		held_as(EACCES, "execveat");
}

/* The denied program loses its name first, if it may. */
static void deleted(void)
{
	int fd = open(PROG, O_PATH | O_CLOEXEC);

	if (unlink(PROG))
		held("unlink");
	try_exec_fd(fd);
}

/* A program of an allowed name that loses it: it has no path that a list could hold. */
static void deleted_own(void)
{
	int fd;

	if (own_program(in_work("p")))
		return;
	fd = open(in_work("p"), O_PATH | O_CLOEXEC);
	unlink(in_work("p"));
	try_exec_fd(fd);
}

static void own(void)
{
	if (own_program(in_work("p")) == 0)
		try_exec(in_work("p"));
	/* Beside and over the names that are allowed. */
	if (own_program("/usr/bin/portcullis-own") == 0)
		try_exec("/usr/bin/portcullis-own");
}

/* An own program takes the name of an allowed one. */
static void own_over_allowed(void)
{
	if (own_program(in_work("p")))
		return;
	if (rename(in_work("p"), "/bin/busybox"))
		held("rename");
	else
		try_exec("/bin/busybox");
}

/* The name of an allowed program, seen from another root. */
static void own_chroot(void)
{
	mkdir(in_work("bin"), 0777);
	if (own_program(in_work("bin/busybox")) || own_program(in_work("attack")))
		return;
	if (chroot(work())) {
		held("chroot");
		return;
	}
	try_exec("/bin/busybox");
	try_exec("/attack");
}

static void own_bind(void)
{
	if (own_program(in_work("p")))
		return;
	if (mount(in_work("p"), "/bin/busybox", NULL, MS_BIND, NULL)) {
		held("mount(MS_BIND)");
		return;
	}
	try_exec("/bin/busybox");
	umount2("/bin/busybox", MNT_DETACH);
}

static void own_tmpfile(void)
{
	char path[64];
	int fd = open(work(), O_TMPFILE | O_RDWR, 0755), again;

	if (fd < 0) {
		held("open(O_TMPFILE)");
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (own_program(path))
		return;
	again = open(path, O_PATH);
	close(fd); /* a file that is open for writing is not executed */
	try_exec_fd(again);
}

static void own_tmpfs(void)
{
	mkdir(in_work("t"), 0777);
	if (mount("tmpfs", in_work("t"), "tmpfs", 0, NULL)) {
		held("mount(tmpfs)");
		return;
	}
	if (own_program(in_work("t/busybox")) == 0)
		try_exec(in_work("t/busybox"));
	umount2(in_work("t"), MNT_DETACH);
}

static void *thread_exec(void *unused)
{
	execl(PROG, "prog", "--mark", NULL);
	held("execve in a thread");
	return unused;
}

static void from_thread(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, thread_exec, NULL) == 0)
			pthread_join(thread, NULL);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		escaped(ESCAPED_EXEC);
}

const struct attack exec_attacks[] = {
	{ "exec", by_name, 0 },
	{ "exec-thread", from_thread, 0 },
	{ "script", script, 0 },
	{ "script-nested", script_nested, 0 },
	{ "loader", loader, 0 },
	{ "memfd", memfd_denied, 0 },
	{ "exec-descriptor", by_descriptor, 0 },
	{ "exec-directory", by_directory, 0 },
	{ "exec-deleted", deleted, 0 },
	{ "own-program", own, ONLY_ALLOW_LIST },
	{ "own-memfd", memfd_own, ONLY_ALLOW_LIST },
	{ "own-deleted", deleted_own, ONLY_ALLOW_LIST },
	{ "own-over-allowed", own_over_allowed, ONLY_ALLOW_LIST },
	{ "own-chroot", own_chroot, ONLY_ALLOW_LIST },
	{ "own-bind", own_bind, ONLY_ALLOW_LIST },
	{ "own-tmpfile", own_tmpfile, ONLY_ALLOW_LIST },
	{ "own-tmpfs", own_tmpfs, ONLY_ALLOW_LIST },
	{ NULL, NULL, 0 },
};
