/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same operation again and again, in this process itself and as fast as it goes, or with a pause after each. Reads lines
 * `OP COUNT PAUSE_US ARGUMENT` (tab separated) from stdin, and answers each with a JSON line: how often it was done, how many were
 * refused with EPERM or EACCES, and the nanoseconds that all took.
 *
 *   open PATH      opens it for reading, and closes it
 *   create PREFIX  makes the files PREFIX0, PREFIX1 ..., so that no two operations are the same
 *   exec PATH      executes it in a child of its own, and waits for that
 *   socket PROTO   makes a datagram socket of IPv4 with this protocol, and closes it
 *   connect PORT   connects a datagram socket to 127.0.0.1, port PORT, PORT+1 ...: nothing is sent
 *   same PORT      the same, always to that port
 *   chroot PATH    changes to this root directory, which needs a capability
 *   call           umask(2), which touches no object
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

#define MAX_LINE 4096
#define PORTS 32768

/* Each returns 0, or -1 with errno. */
static int storm_open(const char *path, long i)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	(void)i;
	return fd < 0 ? -1 : close(fd);
}

static int storm_create(const char *prefix, long i)
{
	char path[MAX_LINE + 32];
	int fd;

	snprintf(path, sizeof(path), "%s%ld", prefix, i);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : close(fd);
}

static int storm_exec(const char *path, long i)
{
	char *const argv[] = { (char *)path, NULL }, *const none[] = { NULL };
	volatile int error = 0; /* the child has this memory until it executes or ends */
	int status;
	pid_t pid = vfork();

	(void)i;
	if (pid == 0) {
		execve(path, argv, none);
		error = errno;
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	errno = error;
	return error ? -1 : 0;
}

static int storm_socket(const char *protocol, long i)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, atoi(protocol));

	(void)i;
	return fd < 0 ? -1 : close(fd);
}

static int storm_connect(const char *port, long i)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result, error;

	if (fd < 0)
		return -1;
	in.sin_port = htons((uint16_t)(atoi(port) + i % PORTS));
	result = connect(fd, (const struct sockaddr *)&in, sizeof(in));
	error = errno;
	close(fd);
	errno = error;
	return result;
}

static int storm_same(const char *port, long i)
{
	(void)i;
	return storm_connect(port, 0);
}

static int storm_chroot(const char *path, long i)
{
	(void)i;
	return chroot(path);
}

static int storm_call(const char *nothing, long i)
{
	(void)nothing;
	(void)i;
	umask(0);
	return 0;
}

static const struct {
	const char *name;
	int (*once)(const char *argument, long i);
} storms[] = {
	{ "open", storm_open },	  { "create", storm_create }, { "exec", storm_exec },	  { "socket", storm_socket },
	{ "same", storm_same },	  { "connect", storm_connect }, { "chroot", storm_chroot }, { "call", storm_call },
};

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void storm(int (*once)(const char *, long), long count, long pause_us, const char *argument)
{
	struct timespec pause = { .tv_sec = pause_us / 1000000, .tv_nsec = pause_us % 1000000 * 1000 };
	long long begun = now();
	long done = 0, denied = 0, i;

	for (i = 0; i < count; i++) {
		if (!once(argument, i))
			done++;
		else if (errno == EPERM || errno == EACCES)
			denied++;
		else
			break; /* it is told: fewer were done than were asked for */
		if (pause_us)
			nanosleep(&pause, NULL);
	}
	printf("{\"done\":%ld,\"denied\":%ld,\"errno\":%d,\"ns\":%lld}\n", done, denied, i < count ? errno : 0, now() - begun);
	fflush(stdout);
}

int do_storms(void)
{
	char line[MAX_LINE];

	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		char *save = NULL, *op, *count, *pause, *argument;
		size_t i;

		line[strcspn(line, "\n")] = 0;
		op = strtok_r(line, "\t", &save);
		count = strtok_r(NULL, "\t", &save);
		pause = strtok_r(NULL, "\t", &save);
		argument = strtok_r(NULL, "\t", &save);
		for (i = 0; op && i < sizeof(storms) / sizeof(storms[0]); i++)
			if (!strcmp(op, storms[i].name))
				break;
		if (!op || !count || !pause || i == sizeof(storms) / sizeof(storms[0])) {
			printf("not understood\n");
			return 2;
		}
		storm(storms[i].once, atol(count), atol(pause), argument ? argument : "");
	}
	return 0;
}
