/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Races: a name that changes while it is judged, and many judgements at once. They win, if at all, seldom: each runs
 * for RACE_SECONDS. Unlike the other attacks they get at the secret by its own name, so that one wrong answer is enough.
 */
#include "attack.h"

#include <pthread.h>

#define RACE_SECONDS 3
#define RACERS 8

static volatile int over;

static void *storm(void *unused)
{
	char aside[512], back[512];

	snprintf(aside, sizeof(aside), "%s", in_work("aside"));
	snprintf(back, sizeof(back), "%s", in_work("storm"));
	mkdir(back, 0777);
	while (!over) {
		/* The protected tree's parents, where that is allowed, and a tree of the same shape that is open to all. */
		rename(VAULT, DATA "/vault2");
		rename(DATA "/vault2", VAULT);
		rename(back, aside);
		rename(aside, back);
	}
	return unused;
}

static void wait_for(pthread_t *threads, int n)
{
	int i;

	sleep(RACE_SECONDS);
	over = 1;
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void *opener(void *unused)
{
	static const char *const ways[] = { SECRET, DATA "/vault2/inner/secret.txt" };
	unsigned int i = 0;

	while (!over) {
		int fd = open(ways[i++ & 1], O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			continue;
		try_read_fd(fd);
		close(fd);
	}
	return unused;
}

static void rename_storm(void)
{
	pthread_t threads[3];

	pthread_create(&threads[0], NULL, storm, NULL);
	pthread_create(&threads[1], NULL, opener, NULL);
	pthread_create(&threads[2], NULL, opener, NULL);
	wait_for(threads, 3);
	rename(DATA "/vault2", VAULT);
	held_as(EACCES, "every open in the storm");
}

static char beside[512];

/* Half of them open what is allowed, half what is denied: scratch that two tasks share would mix them up. */
static void *mixed(void *index)
{
	int denied = (int)(intptr_t)index & 1;

	while (!over) {
		int fd = open(denied ? SECRET : beside, O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			/* An open of the allowed file that fails is a wrong answer too. */
			if (!denied) {
				held("open of the allowed file");
				escaped(ESCAPED_OTHER);
			}
			continue;
		}
		if (denied)
			try_read_fd(fd);
		close(fd);
		sched_yield();
	}
	return NULL;
}

static void preemption(void)
{
	pthread_t threads[RACERS];
	int i, fd;

	snprintf(beside, sizeof(beside), "%s", in_work("beside"));
	fd = open(beside, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	if (fd < 0) {
		held("open of the allowed file");
		return;
	}
	close(fd);
	for (i = 0; i < RACERS; i++)
		pthread_create(&threads[i], NULL, mixed, (void *)(intptr_t)i);
	wait_for(threads, RACERS);
	held_as(EACCES, "every open");
}

static char turning[256];

static void *turn(void *unused)
{
	char next[512];

	snprintf(next, sizeof(next), "%s.next", turning);
	while (!over) {
		unlink(next);
		if (symlink(SECRET, next) == 0)
			rename(next, turning);
		unlink(next);
		if (symlink(beside, next) == 0)
			rename(next, turning);
	}
	return unused;
}

static void *follow(void *unused)
{
	while (!over) {
		int fd = open(turning, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			continue;
		try_read_fd(fd);
		close(fd);
	}
	return unused;
}

/* A symlink that leads now here, now there: what is judged must be what is opened. */
static void symlink_race(void)
{
	pthread_t threads[3];

	snprintf(beside, sizeof(beside), "%s", in_work("beside"));
	snprintf(turning, sizeof(turning), "%s", in_work("turning"));
	close(open(beside, O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
	pthread_create(&threads[0], NULL, turn, NULL);
	pthread_create(&threads[1], NULL, follow, NULL);
	pthread_create(&threads[2], NULL, follow, NULL);
	wait_for(threads, 3);
	held_as(EACCES, "every open");
}

const struct attack race_attacks[] = {
	{ "rename-storm", rename_storm, SLOW },
	{ "preemption", preemption, SLOW },
	{ "symlink-race", symlink_race, SLOW },
	{ NULL, NULL, 0 },
};
