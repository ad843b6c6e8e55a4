/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many processes that do nothing, each in a cgroup, a mount namespace and a process namespace of its own, as the inits of
 * containers are: `--crowd DIRECTORY COUNT` makes the cgroups DIRECTORY/0, DIRECTORY/1 ..., prints the pid of each, waits for
 * the end of its input, ends them and removes the cgroups.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

#define MAX_CROWD 10000

static pid_t start(const char *cgroup)
{
	struct clone_args args = { 0 };
	int directory = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
	pid_t pid;

	if (directory < 0)
		return -1;
	args.flags = CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWPID;
	args.exit_signal = SIGCHLD;
	args.cgroup = (uint64_t)directory;
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	close(directory);
	return pid;
}

int make_crowd(const char *directory, long count)
{
	static pid_t members[MAX_CROWD];
	char path[4096];
	long made = 0;
	int code = 0;

	if (count < 1 || count > MAX_CROWD) {
		fprintf(stderr, "a crowd is of 1 to %d processes\n", MAX_CROWD);
		return 2;
	}
	if (mkdir(directory, 0755) && errno != EEXIST) {
		perror(directory);
		return 1;
	}
	for (; made < count; made++) {
		snprintf(path, sizeof(path), "%s/%ld", directory, made);
		if ((mkdir(path, 0755) && errno != EEXIST) || (members[made] = start(path)) < 0) {
			perror(path);
			code = 1;
			break;
		}
		printf("%d\n", (int)members[made]);
	}
	fflush(stdout);
	while (!code && getchar() != EOF)
		;
	while (made--) {
		kill(members[made], SIGKILL);
		waitpid(members[made], NULL, 0);
		snprintf(path, sizeof(path), "%s/%ld", directory, made);
		if (rmdir(path)) {
			perror(path);
			code = 1;
		}
	}
	if (rmdir(directory)) {
		perror(directory);
		code = 1;
	}
	return code;
}
