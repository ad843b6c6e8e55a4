/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every attack shares. The policies under attack deny, by exact path,
 *
 *   reading and changing TREE/secret.txt and TREE/prog, changing TREE/protected.txt, executing TREE/prog and TREE/dyn,
 *   changing anything below LOCKED, and reading /proc/version,
 *
 * or, as allow-lists, allow everything else that an attack needs. TREE's ancestors are covered by no deny rule.
 * The runner puts everything back, from outside, before each attack.
 */
#ifndef PORTCULLIS_TESTS_ATTACK_H
#define PORTCULLIS_TESTS_ATTACK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define DATA "/data"
#define VAULT "/data/vault"
#define TREE "/data/vault/inner"
#define SECRET TREE "/secret.txt"
#define PROG TREE "/prog"
#define DYN TREE "/dyn"
#define PROTECTED TREE "/protected.txt"
#define LOCKED "/data/locked"
#define WORK "/allowed"
#define OUT "/out"
#define MARK OUT "/mark"
#define SELF "/attack"
#define SECRET_PREFIX "PORTCULLIS-SECRET"
#define PATH_LONG 8192

#define ESCAPED_READ 1
#define ESCAPED_EXEC 2
#define ESCAPED_CHANGE 4
#define ESCAPED_OTHER 8

/* Only an allow-list forbids what the attack does: it runs a program of its own. */
#define ONLY_ALLOW_LIST 1
/* Takes some seconds on purpose. */
#define SLOW 2

struct attack {
	const char *name;
	void (*run)(void);
	int flags;
};

extern const struct attack names_attacks[], deep_attacks[], mount_attacks[], identity_attacks[], exec_attacks[],
	descriptor_attacks[], change_attacks[], kernel_attacks[], race_attacks[];

/* Records; shared with the children of the attack. */
void escaped(int what);
int has_escaped(void);
/* Records the first refusal: errno and the step. */
void held(const char *step);
void held_as(int error, const char *step);

/* Try to get at one thing by a path or a descriptor. 0 when it was got. */
int try_read(const char *path);
int try_read_fd(int fd);
int try_exec(const char *path);
int try_exec_fd(int fd);
int try_change(const char *path);
/* All three, below `base`, which is another name for TREE. */
void through(const char *base);
void through_dir(int dir);
/* The same from a new program image: executes SELF with `--through`. */
void through_exec(const char *base);
/* Runs `f` in a child and waits for it. */
void in_child(void (*f)(void));
/* WORK/<attack's name>, made. */
const char *work(void);
/* A path in work(). The result is one of four static buffers. */
const char *in_work(const char *name);
/* Becomes root of a new user namespace (with `flags` beside). */
int new_userns(int flags);
/* A copy of this program at `path`: a program that is on no list. 0 when written. */
int own_program(const char *path);
int copy_file(const char *from, const char *to, int mode);
int marked(void);
void unmark(void);

#endif
