/* SPDX-License-Identifier: Apache-2.0 */
/* Depth and length: a path that a limited walk would cut is made to look like another one. */
#include "attack.h"

#define DEEP 300
#define LONG_NAME 200
#define LONG_LEVELS 19 /* with LONG_NAME and the slash: just below 4,000 bytes */

/* Goes down `levels` directories named `name` from work(), making them. The cwd is then deeper than PATH_MAX may say. */
static int descend(const char *name, int levels)
{
	int i;

	if (chdir(work())) {
		held("chdir");
		return -1;
	}
	for (i = 0; i < levels; i++) {
		if (mkdir(name, 0777) && errno != EEXIST) {
			held("mkdir");
			return -1;
		}
		if (chdir(name)) {
			held("chdir");
			return -1;
		}
	}
	return 0;
}

static void climb(char *out, int levels)
{
	*out = 0;
	while (levels--)
		strcat(out, "../");
}

/* From far below, up again: the path walked has 300 components and as many "..". */
static void deep_up(void)
{
	static char path[PATH_LONG];

	if (descend("d", DEEP))
		return;
	climb(path, DEEP + 2);
	strcat(path, "data/vault/inner");
	through(path);
}

static void long_path(void)
{
	static char path[PATH_LONG];

	memset(path, 0, sizeof(path));
	while (strlen(path) < 3900)
		strcat(path, "/data/vault/../..");
	strcat(path, "/data/vault/inner");
	through(path);
}

/* A protected tree is moved to a depth where a walk may give up; no rule names that place. */
static void deep_move(void)
{
	if (descend("d", DEEP))
		return;
	if (rename(TREE, "inner"))
		held("rename");
	through("inner");
}

static void deep_link(void)
{
	if (descend("d", DEEP))
		return;
	if (link(SECRET, "secret.txt"))
		held("link");
	try_read("secret.txt");
}

/* The last components look like those of an allowed program: only a walk to the root tells the difference. */
static void deep_program(void)
{
	static const char *const tail[] = { "usr", "bin" };
	size_t i;

	if (descend("d", DEEP))
		return;
	for (i = 0; i < 2; i++) {
		mkdir(tail[i], 0777);
		if (chdir(tail[i]))
			held("chdir");
	}
	if (own_program("busybox") == 0)
		try_exec("./busybox");
}

static void long_program(void)
{
	static char name[LONG_NAME + 1];

	memset(name, 'n', LONG_NAME);
	if (descend(name, LONG_LEVELS))
		return;
	if (own_program("attack") == 0)
		try_exec("./attack");
}

/* Deeper than PATH_MAX can say, and the secret from there. */
static void beyond_path_max(void)
{
	static char name[LONG_NAME + 1], path[PATH_LONG];
	int i;

	memset(name, 'm', LONG_NAME);
	if (descend(name, 3 * LONG_LEVELS))
		return;
	climb(path, 3 * LONG_LEVELS + 2);
	strcat(path, "data/vault/inner");
	through(path);
	/* And a name for it down there. */
	if (link(SECRET, "secret.txt") == 0)
		try_read("secret.txt");
	if (rename(VAULT, "vault") == 0)
		through("vault/inner");
	for (i = 0; i < 3 * LONG_LEVELS; i++)
		if (chdir(".."))
			break;
}

static void beyond_path_max_program(void)
{
	static char name[LONG_NAME + 1];

	memset(name, 'p', LONG_NAME);
	if (descend(name, 3 * LONG_LEVELS))
		return;
	if (own_program("attack") == 0)
		try_exec("./attack");
}

const struct attack deep_attacks[] = {
	{ "deep-up", deep_up, 0 },
	{ "deep-move", deep_move, 0 },
	{ "deep-link", deep_link, 0 },
	{ "deep-program", deep_program, ONLY_ALLOW_LIST },
	{ "long-path", long_path, 0 },
	{ "long-program", long_program, ONLY_ALLOW_LIST },
	{ "beyond-path-max", beyond_path_max, 0 },
	{ "beyond-path-max-program", beyond_path_max_program, ONLY_ALLOW_LIST },
	{ NULL, NULL, 0 },
};
