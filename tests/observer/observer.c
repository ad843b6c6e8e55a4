/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches from inside of a container which version of a policy is in force, as fast as it can.
 *
 *   portcullis-observer OUT PAUSE_US A B
 *
 * Version 0 denies reading A and allows B; version 1 the other way round. The files are opened in turn, A B B A A B B A ...,
 * and each answer by itself tells the version: where one atomic switch comes between two opens, the answers before it say one
 * version and those after it the other. A mix of two versions, a moment in which neither rule holds and one in which both do
 * all give answers that contradict their neighbours, which is one change too many.
 *
 * Every change is a line "NANOSECONDS VERSION" in OUT, appended, the clock being CLOCK_MONOTONIC right after the open; the
 * first answer is the first line. Another errno than that of a denial is "NANOSECONDS error FILE ERRNO". SIGTERM ends it, with
 * "NANOSECONDS end OPENS".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* One write per line: several observers may share a file. */
static void say(int out, long long time, const char *format, ...)
{
	char line[128];
	va_list list;
	int length = snprintf(line, sizeof(line), "%lld ", time);

	va_start(list, format);
	length += vsnprintf(line + length, sizeof(line) - length, format, list);
	va_end(list);
	if (write(out, line, length) != length)
		_exit(4);
}

int main(int argc, char **argv)
{
	/* Which file each of four opens takes. */
	static const int turn[4] = { 0, 1, 1, 0 };
	int out, version = -1, failed[2] = { 0, 0 };
	long long opens = 0;
	useconds_t pause;

	if (argc != 5)
		return 2;
	pause = (useconds_t)atol(argv[2]);
	out = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (out < 0)
		return 3;
	signal(SIGTERM, stop);
	while (!stopped) {
		int which = turn[opens++ & 3], said, error;
		int fd = open(argv[3 + which], O_RDONLY | O_CLOEXEC);
		long long time = now();

		error = fd < 0 ? errno : 0;
		if (fd >= 0)
			close(fd);
		if (error && error != EACCES && error != EPERM) {
			if (failed[which] != error)
				say(out, time, "error %d %d\n", which, error);
			failed[which] = error;
			continue;
		}
		/* A denied, or B allowed: version 0. */
		said = (error != 0) == which;
		if (said != version)
			say(out, time, "%d\n", said);
		version = said;
		if (pause && !(opens & 3))
			usleep(pause);
	}
	say(out, now(), "end %lld\n", opens);
	return 0;
}
