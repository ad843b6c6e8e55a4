/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One operation, one answer: the subject of the conformance tests inside a container.
 *
 *   portcullis-probe --drive            reads cases from stdin, one per line, tab separated:
 *                                       ID  SUBJECT  UID  OP  ARGUMENT...
 *                                       starts SUBJECT (a copy of this program, "-" for /proc/self/exe) for each and
 *                                       answers with one JSON line.
 *   portcullis-probe --one FD UID OP ARGUMENT...
 *                                       the subject: performs OP as UID (-1: as it is) and writes "ERRNO STEP" to FD.
 *   portcullis-probe --chroot DIR ...   enters DIR first.
 *   portcullis-probe --tiny FILE        writes the smallest program there is
 *   portcullis-probe --storm            does operations again and again, see storm.c
 *   portcullis-probe --crowd DIR COUNT  many processes in cgroups of their own, see crowd.c
 *   portcullis-probe OP ARGUMENT...     by hand: performs OP and prints the JSON line.
 *
 * The subject is executed, and not only forked, because a rule's source is an executable. An execution that succeeds
 * closes FD unwritten: that is how the driver tells success from failure without asking the executed program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "elf.h"
#include "probe.h"

#define MAX_FIELDS 16
#define MAX_LINE 65536
#define SUBJECT_SECONDS 20

static struct outcome perform(char **args, int n, int *known)
{
	struct outcome outcome;

	*known = 1;
	outcome = do_file(args[0], args + 1, n - 1, known);
	if (!*known)
		outcome = do_exec(args[0], args + 1, n - 1, known);
	if (!*known)
		outcome = do_socket(args[0], args + 1, n - 1, known);
	if (!*known)
		outcome = do_capability(args[0], args + 1, n - 1, known);
	if (!*known)
		outcome = do_call(args[0], args + 1, n - 1, known);
	return outcome;
}

static void answer(const char *id, const char *stage, int error, const char *step)
{
	const char *name = error ? strerrorname_np(error) : "";

	printf("{\"id\":\"%s\",\"stage\":\"%s\",\"errno\":%d,\"name\":\"%s\",\"step\":\"%s\"}\n", id, stage, error,
	       name ? name : "?", step);
	fflush(stdout);
}

/* The subject: never returns. */
static int one(char **args, int n)
{
	int fd = atoi(args[0]);
	int uid = atoi(args[1]);
	int known;
	struct outcome outcome;

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	umask(0);
	alarm(SUBJECT_SECONDS);
	if (uid >= 0 && (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))) {
		dprintf(fd, "%d setuid\n", errno);
		return 3;
	}
	outcome = perform(args + 2, n - 2, &known);
	if (!known)
		dprintf(fd, "-1 unknown\n");
	else
		dprintf(fd, "%d %s\n", outcome.error, outcome.step);
	return 0;
}

/* Starts the subject of one case and tells what became of it. */
static void drive_one(char **field, int n)
{
	const char *subject = strcmp(field[1], "-") ? field[1] : "/proc/self/exe";
	int result[2], status = 0, error = 0;
	char text[256] = "", number[16];
	ssize_t got;
	pid_t pid;

	if (pipe(result)) {
		answer(field[0], "driver", errno, "pipe");
		return;
	}
	pid = fork();
	if (pid < 0) {
		answer(field[0], "driver", errno, "fork");
		close(result[0]);
		close(result[1]);
		return;
	}
	if (pid == 0) {
		char *argv[MAX_FIELDS + 4] = { (char *)subject, "--one", number };
		int i;

		close(result[0]);
		snprintf(number, sizeof(number), "%d", result[1]);
		for (i = 2; i < n; i++)
			argv[i + 1] = field[i];
		execv(subject, argv);
		dprintf(result[1], "%d subject\n", errno);
		_exit(127);
	}
	close(result[1]);
	got = read(result[0], text, sizeof(text) - 1);
	close(result[0]);
	waitpid(pid, &status, 0);
	if (got > 0) {
		char *step = strchr(text, ' ');

		text[strcspn(text, "\n")] = 0;
		error = atoi(text);
		step = step ? step + 1 : "";
		if (error < 0)
			answer(field[0], "driver", EINVAL, "unknown operation");
		else if (!strcmp(step, "subject") || !strcmp(step, "setuid"))
			answer(field[0], "subject", error, step);
		else
			answer(field[0], "op", error, step);
	} else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM) {
		/* A new program that was killed while it was set up: the kernel tells it so where it is too late to return. */
		answer(field[0], "op", EACCES, "killed");
	} else if (WIFSIGNALED(status)) {
		answer(field[0], "driver", ETIMEDOUT, "subject");
	} else {
		answer(field[0], "op", 0, "executed");
	}
}

/* %XX stands for a byte, so that tabs and newlines can be in a path. */
static void decode(char *text)
{
	char *out = text;

	for (; *text; text++) {
		unsigned int byte;

		if (*text == '%' && sscanf(text + 1, "%2x", &byte) == 1) {
			*out++ = (char)byte;
			text += 2;
		} else {
			*out++ = *text;
		}
	}
	*out = 0;
}

static int drive(void)
{
	static char line[MAX_LINE];

	printf("{\"id\":\"\",\"stage\":\"ready\",\"errno\":0,\"name\":\"\",\"step\":\"\"}\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		char *field[MAX_FIELDS], *next = line;
		int n = 0;

		line[strcspn(line, "\n")] = 0;
		while (n < MAX_FIELDS && next) {
			field[n] = strsep(&next, "\t");
			decode(field[n++]);
		}
		if (n < 4)
			answer(n ? field[0] : "", "driver", EINVAL, "line");
		else
			drive_one(field, n);
	}
	return 0;
}

/* The smallest program, as a file. */
static int write_tiny(const char *path)
{
	struct tiny_elf elf = tiny_elf();
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	if (fd < 0 || write(fd, &elf, sizeof(elf)) != (ssize_t)sizeof(elf) || fchmod(fd, 0755)) {
		perror(path);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	char **args = argv + 1;
	int n = argc - 1, known;
	struct outcome outcome;

	if (n >= 2 && !strcmp(args[0], "--chroot")) {
		if (chroot(args[1]) || chdir("/")) {
			perror("chroot");
			return 2;
		}
		args += 2;
		n -= 2;
	}
	if (n < 1)
		return 2;
	if (!strcmp(args[0], "--drive"))
		return drive();
	if (!strcmp(args[0], "--storm"))
		return do_storms();
	if (!strcmp(args[0], "--crowd") && n == 3)
		return make_crowd(args[1], strtol(args[2], NULL, 10));
	if (!strcmp(args[0], "--noop"))
		return 0;
	if (!strcmp(args[0], "--tiny") && n == 2)
		return write_tiny(args[1]);
	if (!strcmp(args[0], "--one"))
		return n >= 4 ? one(args + 1, n - 1) : 2;
	outcome = perform(args, n, &known);
	if (!known) {
		fprintf(stderr, "unknown operation %s\n", args[0]);
		return 2;
	}
	answer("", "op", outcome.error, outcome.step);
	return outcome.error ? 1 : 0;
}
