// SPDX-License-Identifier: Apache-2.0
/*
 * What system calls cost: prints "NAME NANOSECONDS" for each operation, without the clock's own part. Of many batches the first
 * quartile counts: what else the machine does can only add. Under `hack/vm run --icount` a nanosecond is a guest instruction.
 *
 *   ops PATH64 PATH12     two files; beside PATH12 there is room for more.
 *   ops enter ROOT ...    the same by /ops in a mount namespace of its own, whose root is ROOT
 *   true                 (the same program under this name) ends at once: /true is what is executed
 *
 * With OPS_PROFILE set it first changes to that AppArmor profile. The kernel lets nobody but the opener write to the file.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 41
#define BATCH 16

static const char *path64, *path12;
static char fresh[4096], data[4096];
static int descriptor;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* As runtimes do it. After a chroot AppArmor's names would still begin at the root of the mount namespace (d_namespace_path in the
 * kernel's security/apparmor/path.c), and be other names than those in the rules. */
static void enter(const char *root)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(root, root, NULL, MS_BIND | MS_REC, NULL) || chdir(root) || syscall(SYS_pivot_root, ".", ".") ||
	    umount2(".", MNT_DETACH) || chdir("/"))
		fail(root);
}

static void nothing(void)
{
}

static void open_close(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail(path);
	close(fd);
}

static void open_long(void)
{
	open_close(path64);
}

static void open_short(void)
{
	open_close(path12);
}

static void write1(void)
{
	if (pwrite(descriptor, "x", 1, 0) != 1)
		fail("pwrite");
}

static void stat_long(void)
{
	struct stat s;

	if (stat(path64, &s))
		fail("stat");
}

static void create_unlink(void)
{
	int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		fail(fresh);
	close(fd);
	if (unlink(fresh))
		fail("unlink");
}

/* A datagram socket and its peer: nothing is sent, and nobody needs to be there. */
static void connect_loopback(void)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)))
		fail("connect");
	close(fd);
}

/* The shortest call that asks for a capability and changes nothing. */
static void capable(void)
{
	if (chroot("/"))
		fail("chroot");
}

static void fork_exec(void)
{
	char *const arguments[] = { "/true", NULL };
	char *const environment[] = { NULL };
	int status;
	pid_t child = fork();

	if (child == 0) {
		execve("/true", arguments, environment);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		fail("fork and exec");
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

/* First quartile of BATCHES, each of `batch` operations. */
static double quartile(void (*operation)(void), int batch)
{
	static long long times[BATCHES];
	int i, j;

	for (i = 0; i < BATCHES; i++) {
		long long begun = now();

		for (j = 0; j < batch; j++)
			operation();
		times[i] = now() - begun;
	}
	qsort(times, BATCHES, sizeof(times[0]), ascending);
	return (double)times[BATCHES / 4] / batch;
}

static void tell(const char *name, void (*operation)(void), int batch)
{
	double harness = quartile(nothing, batch);

	quartile(operation, 1); /* caches, lazily bound pages */
	printf("%s %.0f\n", name, quartile(operation, batch) - harness);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *profile = getenv("OPS_PROFILE");

	if (argc == 1 && !strcmp(argv[0], "/true"))
		return 0;
	if (argc == 5 && !strcmp(argv[1], "enter")) {
		enter(argv[2]);
		argv[2] = "/ops";
		execv(argv[2], argv + 2);
		fail(argv[2]);
	}
	if (argc != 3) {
		fprintf(stderr, "usage: ops PATH64 PATH12\n");
		return 2;
	}
	if (profile) {
		char request[256];
		int length = snprintf(request, sizeof(request), "changeprofile %s", profile);
		int fd = open("/proc/self/attr/apparmor/current", O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, request, length) != length)
			fail("changeprofile");
		close(fd);
	}
	path64 = argv[1];
	path12 = argv[2];
	snprintf(fresh, sizeof(fresh), "%s.new", path12);
	snprintf(data, sizeof(data), "%s.data", path12);
	descriptor = open(data, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (descriptor < 0)
		fail(data);
	tell("open64", open_long, BATCH);
	tell("open12", open_short, BATCH);
	tell("write1", write1, BATCH);
	tell("stat64", stat_long, BATCH);
	tell("create_unlink", create_unlink, BATCH);
	tell("connect", connect_loopback, BATCH);
	tell("capable", capable, BATCH);
	tell("fork_exec", fork_exec, 4);
	return 0;
}
