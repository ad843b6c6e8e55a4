/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PORTCULLIS_TESTS_PROBE_H
#define PORTCULLIS_TESTS_PROBE_H

/* What one operation gave: 0 or an errno, and the step that gave it where an operation has several. */
struct outcome {
	int error;
	const char *step;
};

#define OK() ((struct outcome){ 0, "" })
#define FAILED(s) ((struct outcome){ errno, s })

/* `fd` is the descriptor the outcome will be written to: it must stay close-on-exec. */
struct outcome do_file(const char *op, char **args, int n, int *known);
struct outcome do_exec(const char *op, char **args, int n, int *known);
struct outcome do_socket(const char *op, char **args, int n, int *known);
struct outcome do_call(const char *op, char **args, int n, int *known);
struct outcome do_capability(const char *op, char **args, int n, int *known);

/* Reads what to do again and again from stdin. Returns the exit code. */
int do_storms(void);

/* Makes cgroups below a directory, and a process in each, until the end of stdin. Returns the exit code. */
int make_crowd(const char *directory, long count);

#endif
