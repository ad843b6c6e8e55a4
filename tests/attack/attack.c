/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks of a contained process that knows the policy.
 *
 *   portcullis-attack --list            NAME FLAGS, one per line
 *   portcullis-attack --drive           reads names from stdin, answers each with one line
 *   portcullis-attack NAME              one attack
 *   portcullis-attack --mark            the denied program: leaves a mark
 *   portcullis-attack --through DIR     tries the three things below DIR, as a new program image
 *   portcullis-attack --loop            attacks by the plain names until its input ends; answers "TRIED n" at the end
 *   portcullis-attack --serve SOCKET F  the helper outside: hands out descriptors of F... over a unix socket
 *
 * Answers: "ESCAPED NAME read exec change other (ERRNO STEP)", with the first refusal all the same, or "HELD NAME ERRNO STEP".
 */
#include "attack.h"

#include <poll.h>
#include <sys/mman.h>

#define ATTACK_SECONDS_DEFAULT 30

int serve(const char *socket, char **files, int n);

struct record {
	volatile int escaped;
	volatile int error;
	char step[96];
};

static struct record *record;
static const struct attack *current;

void escaped(int what)
{
	__sync_fetch_and_or(&record->escaped, what);
}

int has_escaped(void)
{
	return record->escaped;
}

void held_as(int error, const char *step)
{
	if (__sync_bool_compare_and_swap(&record->error, 0, error))
		snprintf(record->step, sizeof(record->step), "%s", step);
}

void held(const char *step)
{
	held_as(errno, step);
}

int marked(void)
{
	return access(MARK, F_OK) == 0;
}

void unmark(void)
{
	unlink(MARK);
}

int try_read_fd(int fd)
{
	char text[64] = "";
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);

	if (got < 0)
		return -1;
	if (!strncmp(text, SECRET_PREFIX, strlen(SECRET_PREFIX))) {
		escaped(ESCAPED_READ);
		return 0;
	}
	errno = ENODATA;
	return -1;
}

int try_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), result;

	if (fd < 0) {
		held("open for reading");
		return -1;
	}
	result = try_read_fd(fd);
	close(fd);
	return result;
}

static int run_marked(int fd, const char *path)
{
	char *argv[] = { "prog", "--mark", NULL };
	char *envp[] = { NULL };
	int status, error = 0, report[2];
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid == 0) {
		if (path)
			execve(path, argv, envp);
		else
			syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
		error = errno;
		if (write(report[1], &error, sizeof(error)) < 0)
			_exit(126);
		_exit(127);
	}
	close(report[1]);
	if (read(report[0], &error, sizeof(error)) < 0)
		error = errno;
	close(report[0]);
	waitpid(pid, &status, 0);
	/* 77 is said by the program itself: OUT need not be reachable where it ran. */
	if (marked() || (WIFEXITED(status) && WEXITSTATUS(status) == 77)) {
		escaped(ESCAPED_EXEC);
		return 0;
	}
	held_as(error ? error : EIO, "execve");
	return -1;
}

int try_exec(const char *path)
{
	return run_marked(-1, path);
}

int try_exec_fd(int fd)
{
	return run_marked(fd, NULL);
}

int try_change(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0) {
		held("open for writing");
		return -1;
	}
	if (write(fd, "changed", 7) == 7)
		escaped(ESCAPED_CHANGE);
	close(fd);
	return 0;
}

void through(const char *base)
{
	char path[PATH_LONG];

	snprintf(path, sizeof(path), "%s/secret.txt", base);
	try_read(path);
	snprintf(path, sizeof(path), "%s/prog", base);
	try_exec(path);
	snprintf(path, sizeof(path), "%s/protected.txt", base);
	try_change(path);
}

void through_dir(int dir)
{
	char base[64];
	int fd = openat(dir, "secret.txt", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		try_read_fd(fd);
	else
		held("openat");
	snprintf(base, sizeof(base), "/proc/self/fd/%d", dir);
	through(base);
	if (fchdir(dir) == 0)
		through(".");
}

void through_exec(const char *base)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execl(SELF, SELF, "--through", base, NULL);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status))
		escaped(WEXITSTATUS(status) & 0xf);
}

void in_child(void (*f)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		f();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

const char *work(void)
{
	static char path[256];

	snprintf(path, sizeof(path), WORK "/%s", current ? current->name : "none");
	mkdir(path, 0777);
	return path;
}

const char *in_work(const char *name)
{
	static char buffer[4][512];
	static int next;
	char *path = buffer[next++ & 3];

	snprintf(path, sizeof(buffer[0]), "%s/%s", work(), name);
	return path;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	ssize_t wrote = fd < 0 ? -1 : write(fd, text, strlen(text));

	if (fd >= 0)
		close(fd);
	return wrote < 0 ? -1 : 0;
}

int new_userns(int flags)
{
	char map[64];
	int uid = (int)getuid(), gid = (int)getgid();

	if (unshare(CLONE_NEWUSER | flags)) {
		held("unshare(CLONE_NEWUSER)");
		return -1;
	}
	write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 %d 1", uid);
	if (write_text("/proc/self/uid_map", map)) {
		held("uid_map");
		return -1;
	}
	snprintf(map, sizeof(map), "0 %d 1", gid);
	write_text("/proc/self/gid_map", map);
	if (flags & CLONE_NEWNS)
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return 0;
}

int copy_file(const char *from, const char *to, int mode)
{
	char buffer[65536];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	ssize_t got;

	if (in < 0)
		return -1;
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (out < 0) {
		close(in);
		return -1;
	}
	while ((got = read(in, buffer, sizeof(buffer))) > 0)
		if (write(out, buffer, (size_t)got) != got)
			break;
	close(in);
	close(out);
	return got == 0 ? 0 : -1;
}

int own_program(const char *path)
{
	if (copy_file("/proc/self/exe", path, 0755)) {
		held("copy of the own program");
		return -1;
	}
	return 0;
}

static const struct attack *const families[] = {
	names_attacks, deep_attacks, mount_attacks, identity_attacks, exec_attacks,
	descriptor_attacks, change_attacks, kernel_attacks, race_attacks,
};

static const struct attack *find(const char *name)
{
	size_t i;
	const struct attack *a;

	for (i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		for (a = families[i]; a->name; a++)
			if (!strcmp(a->name, name))
				return a;
	return NULL;
}

/* The attack is a process group of its own, and is ended with all that it started. */
static int run(const char *name)
{
	const char *limit = getenv("ATTACK_SECONDS");
	int seconds = limit ? atoi(limit) : ATTACK_SECONDS_DEFAULT, status, tenths;
	pid_t pid;

	current = find(name);
	if (!current) {
		printf("HELD %s EINVAL no such attack\n", name);
		fflush(stdout);
		return 2;
	}
	memset(record, 0, sizeof(*record));
	unmark();
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		close(0); /* the driver's input */
		umask(0);
		current->run();
		_exit(0);
	}
	for (tenths = 0; tenths < seconds * 20; tenths++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		usleep(50000);
	}
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	while (waitpid(-1, &status, WNOHANG) > 0)
		;
	if (marked())
		escaped(ESCAPED_EXEC);
	if (record->escaped)
		printf("ESCAPED %s%s%s%s%s (%s %s)\n", name, record->escaped & ESCAPED_READ ? " read" : "",
		       record->escaped & ESCAPED_EXEC ? " exec" : "", record->escaped & ESCAPED_CHANGE ? " change" : "",
		       record->escaped & ESCAPED_OTHER ? " other" : "",
		       record->error ? strerrorname_np(record->error) : "no error", record->step);
	else if (tenths == seconds * 20)
		printf("HELD %s ETIMEDOUT %s\n", name, record->step);
	else
		printf("HELD %s %s %s\n", name, record->error ? strerrorname_np(record->error) : "none", record->step);
	fflush(stdout);
	return record->escaped ? 1 : 0;
}

static int drive(void)
{
	char line[256];

	printf("READY\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		run(line);
	}
	return 0;
}

/* What the runner does meanwhile is the test: each escape is said at once. */
static int loop(void)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	unsigned long tried = 0;

	printf("READY\n");
	fflush(stdout);
	while (poll(&input, 1, 0) == 0) {
		try_read(SECRET);
		try_exec(PROG);
		try_change(PROTECTED);
		tried++;
		if (record->escaped) {
			printf("ESCAPED loop%s%s%s after %lu\n", record->escaped & ESCAPED_READ ? " read" : "",
			       record->escaped & ESCAPED_EXEC ? " exec" : "",
			       record->escaped & ESCAPED_CHANGE ? " change" : "", tried);
			fflush(stdout);
			record->escaped = 0;
		}
	}
	printf("TRIED %lu\n", tried);
	return 0;
}

int main(int argc, char **argv)
{
	size_t i;
	const struct attack *a;

	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "--mark")) {
		int fd = open(MARK, O_WRONLY | O_CREAT, 0666);

		if (fd >= 0)
			close(fd);
		return 77;
	}
	if (!strcmp(argv[1], "--serve") && argc > 3)
		return serve(argv[2], argv + 3, argc - 3);
	record = mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (record == MAP_FAILED)
		return 2;
	if (!strcmp(argv[1], "--through") && argc > 2) {
		through(argv[2]);
		return record->escaped;
	}
	if (!strcmp(argv[1], "--list")) {
		for (i = 0; i < sizeof(families) / sizeof(families[0]); i++)
			for (a = families[i]; a->name; a++)
				printf("%s %d\n", a->name, a->flags);
		return 0;
	}
	if (!strcmp(argv[1], "--drive"))
		return drive();
	if (!strcmp(argv[1], "--loop"))
		return loop();
	return run(argv[1]);
}
