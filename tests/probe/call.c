/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `syscall ABI NUMBER ARGUMENT...`: a system call by its number, past the C library, which would choose another one for the same job.
 * ABI is 64 or 32; a 64-bit program makes the latter's calls with `int 0x80`. An argument that begins with `s` is a string, any
 * other a number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "probe.h"

#define ARGUMENTS 6
#define TEXT 16384

#if defined(__x86_64__)
static long int80(long number, const long *a)
{
	long result;

	/* The sixth argument is in a register that the compiler needs; no call here has one. Older kernels clear r8 to r11. */
	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
		     : "memory", "r8", "r9", "r10", "r11");
	result = (int)result;
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		return -1;
	}
	return result;
}
#else
static long int80(long number, const long *a)
{
	(void)number;
	(void)a;
	errno = ENOSYS;
	return -1;
}
#endif

struct outcome do_call(const char *op, char **args, int n, int *known)
{
	long a[ARGUMENTS] = { 0 }, number, result;
	char *text, *end;
	int i;

	*known = !strcmp(op, "syscall") && n >= 2 && n <= 2 + ARGUMENTS;
	if (!*known)
		return OK();
	/* Where a 32-bit pointer reaches. */
	text = mmap(NULL, TEXT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (text == MAP_FAILED)
		return FAILED("mmap");
	end = text;
	number = atol(args[1]);
	for (i = 2; i < n; i++) {
		size_t length = strlen(args[i]);

		if (args[i][0] != 's') {
			a[i - 2] = atol(args[i]);
			continue;
		}
		if (end + length > text + TEXT)
			return (struct outcome){ E2BIG, "arguments" };
		memcpy(end, args[i] + 1, length);
		a[i - 2] = (long)end;
		end += length;
	}
	if (!strcmp(args[0], "32"))
		result = int80(number, a);
	else
		result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	return result < 0 ? FAILED("syscall") : OK();
}
