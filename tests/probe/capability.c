/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cap NAME`: a system call that the kernel lets through only for that capability, chosen so that a success changes
 * nothing outside of this process. An errno other than EPERM and EACCES came after the check: the capability was granted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

/* The runner makes these: a file of uid 1234 without any permission bit, and a directory to make nodes in. */
#define FOREIGN_FILE "/.portcullis/foreign"
#define NODE "/.portcullis/node"
#define FOREIGN_UID 1234

static int cap_chown(void)
{
	return fchown(memfd_create("chown", 0), FOREIGN_UID, FOREIGN_UID);
}

static int cap_dac_override(void)
{
	return open(FOREIGN_FILE, O_WRONLY | O_CLOEXEC);
}

static int cap_dac_read_search(void)
{
	struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h = { .handle = { .handle_bytes = 8, .handle_type = 1 } };

	return open_by_handle_at(AT_FDCWD, &h.handle, O_PATH);
}

static int cap_fowner(void)
{
	return chmod(FOREIGN_FILE, 0);
}

static int cap_kill(void)
{
	int status, value, error;
	pid_t pid = fork();

	if (pid == 0) {
		if (setuid(FOREIGN_UID))
			_exit(1);
		pause();
		_exit(0);
	}
	usleep(100000);
	value = kill(pid, SIGUSR1);
	error = errno;
	kill(pid, SIGKILL);
	if (value)
		_exit(100 + error); /* the child cannot be reaped by us: the caller reads the errno off the status */
	waitpid(pid, &status, 0);
	return 0;
}

static int cap_setgid(void)
{
	return setgid(FOREIGN_UID);
}

static int cap_setuid(void)
{
	return setuid(FOREIGN_UID);
}

static int cap_setpcap(void)
{
	return prctl(PR_CAPBSET_DROP, 31, 0, 0, 0);
}

static int cap_net_bind_service(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(7) };

	return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address));
}

static int cap_net_admin(void)
{
	int size = 4096;

	return setsockopt(socket(AF_UNIX, SOCK_DGRAM, 0), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

static int cap_net_raw(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
}

static int cap_ipc_lock(void)
{
	static char page[4096];
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &none))
		return -1;
	return mlock(page, sizeof(page));
}

static int cap_sys_module(void)
{
	return (int)syscall(SYS_delete_module, "portcullis_no_such_module", O_NONBLOCK);
}

static int cap_sys_rawio(void)
{
#if defined(__x86_64__)
	return ioperm(0x80, 1, 1);
#else
	errno = ENOSYS;
	return -1;
#endif
}

static int cap_sys_chroot(void)
{
	return chroot("/");
}

static int cap_sys_pacct(void)
{
	return acct(NULL);
}

static int cap_sys_admin(void)
{
	char name[65] = "";

	gethostname(name, sizeof(name) - 1);
	return sethostname(name, strlen(name));
}

static int cap_sys_boot(void)
{
	/* The magic numbers are wrong: EINVAL is what the capability gets. */
	return (int)syscall(SYS_reboot, 1, 2, 3, NULL);
}

static int cap_sys_nice(void)
{
	return setpriority(PRIO_PROCESS, 0, -1);
}

static int cap_sys_resource(void)
{
	struct rlimit limit = { 64, 64 };

	if (setrlimit(RLIMIT_NOFILE, &limit))
		return -1;
	limit.rlim_max = 65;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

static int cap_sys_time(void)
{
	/* More than 15 hours west: EINVAL is what the capability gets. */
	struct timezone tz = { .tz_minuteswest = 100 * 60 };

	return (int)syscall(SYS_settimeofday, NULL, &tz);
}

static int cap_sys_tty_config(void)
{
	return vhangup();
}

static int cap_mknod(void)
{
	return mknod(NODE, S_IFCHR | 0600, makedev(1, 3));
}

static int cap_syslog(void)
{
	char text[16];

	return klogctl(3, text, sizeof(text)); /* needs it where kernel.dmesg_restrict is set */
}

static int cap_wake_alarm(void)
{
	return timerfd_create(CLOCK_BOOTTIME_ALARM, 0);
}

static const struct {
	const char *name;
	int (*use)(void);
} uses[] = {
	{ "chown", cap_chown }, { "dac_override", cap_dac_override }, { "dac_read_search", cap_dac_read_search },
	{ "fowner", cap_fowner }, { "kill", cap_kill }, { "setgid", cap_setgid }, { "setuid", cap_setuid },
	{ "setpcap", cap_setpcap }, { "net_bind_service", cap_net_bind_service }, { "net_admin", cap_net_admin },
	{ "net_raw", cap_net_raw }, { "ipc_lock", cap_ipc_lock }, { "sys_module", cap_sys_module },
	{ "sys_rawio", cap_sys_rawio }, { "sys_chroot", cap_sys_chroot }, { "sys_pacct", cap_sys_pacct },
	{ "sys_admin", cap_sys_admin }, { "sys_boot", cap_sys_boot }, { "sys_nice", cap_sys_nice },
	{ "sys_resource", cap_sys_resource }, { "sys_time", cap_sys_time }, { "sys_tty_config", cap_sys_tty_config },
	{ "mknod", cap_mknod }, { "syslog", cap_syslog }, { "wake_alarm", cap_wake_alarm },
};

struct outcome do_capability(const char *op, char **args, int n, int *known)
{
	const char *name;
	size_t i;

	*known = !strcmp(op, "cap") && n >= 1;
	if (!*known)
		return OK();
	name = args[0];
	if (!strncasecmp(name, "cap_", 4))
		name += 4;
	for (i = 0; i < sizeof(uses) / sizeof(uses[0]); i++) {
		int status;
		pid_t pid;

		if (strcasecmp(uses[i].name, name))
			continue;
		pid = fork();
		if (pid < 0)
			return FAILED("fork");
		if (pid == 0) {
			errno = 0;
			_exit(uses[i].use() < 0 && (errno == EPERM || errno == EACCES) ? errno : 0);
		}
		waitpid(pid, &status, 0);
		if (!WIFEXITED(status))
			return (struct outcome){ EINTR, "killed" };
		status = WEXITSTATUS(status) % 100;
		return (struct outcome){ status, "capability" };
	}
	return (struct outcome){ ENOSYS, "no call for this capability" };
}
