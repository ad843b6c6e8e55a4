/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts to stop being the container: other namespaces, another root, another cgroup, an older or younger process. */
#include "attack.h"

#include <linux/sched.h>
#include <sys/prctl.h>

static void both(const char *base)
{
	through(base);
	through_exec(base);
}

static void after_unshare(int flags, const char *step)
{
	pid_t pid;

	if (unshare(flags)) {
		held(step);
		return;
	}
	/* A pid namespace is that of the children. */
	pid = fork();
	if (pid == 0) {
		both(TREE);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	both(TREE);
}

static void unshare_pid(void)
{
	after_unshare(CLONE_NEWPID, "unshare(CLONE_NEWPID)");
}

static void unshare_mnt(void)
{
	after_unshare(CLONE_NEWNS, "unshare(CLONE_NEWNS)");
}

static void unshare_cgroup(void)
{
	after_unshare(CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC, "unshare(CLONE_NEWCGROUP)");
}

static void unshare_user(void)
{
	if (new_userns(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP) == 0) {
		in_child(unshare_pid);
		both(TREE);
	}
}

static void unshare_nested(void)
{
	int depth;

	for (depth = 0; depth < 4; depth++)
		if (new_userns(CLONE_NEWNS))
			break;
	both(TREE);
}

static void do_chroot(void)
{
	if (chroot(VAULT)) {
		held("chroot");
		return;
	}
	through("/inner");
	if (chdir("/") == 0)
		through("inner");
}

static void change_root(void)
{
	do_chroot();
}

static void chroot_tree(void)
{
	if (chroot(TREE)) {
		held("chroot");
		return;
	}
	through("/");
	through("");
}

static void chroot_userns(void)
{
	if (new_userns(CLONE_NEWNS) == 0)
		do_chroot();
}

/* Out of a chroot by the old way: a cwd above the root. */
static void chroot_escape(void)
{
	int i;

	mkdir(in_work("jail"), 0777);
	if (chroot(in_work("jail"))) {
		held("chroot");
		return;
	}
	for (i = 0; i < 64; i++)
		if (chdir(".."))
			break;
	if (chroot("."))
		held("chroot");
	through(TREE);
}

static int join(const char *procs)
{
	int fd = open(procs, O_WRONLY | O_CLOEXEC);
	int result;

	if (fd < 0)
		return -1;
	result = write(fd, "0", 1) == 1 ? 0 : -1;
	close(fd);
	return result;
}

/* The root of the cgroup2 hierarchy as far as this process can see: the mounted one, or one mounted for the purpose. */
static const char *cgroups(void)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	char path[256];
	size_t i;

	mkdir(in_work("cg"), 0777);
	if (mount("cgroup2", in_work("cg"), "cgroup2", 0, NULL) == 0)
		return in_work("cg");
	held("mount(cgroup2)");
	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", places[i]);
		if (access(path, W_OK) == 0)
			return places[i];
	}
	return NULL;
}

static void move_in(const char *root)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/portcullis-attack", root);
	mkdir(path, 0755);
	strcat(path, "/cgroup.procs");
	if (join(path))
		held("cgroup.procs of a new cgroup");
	else
		both(TREE);
	snprintf(path, sizeof(path), "%s/cgroup.procs", root);
	if (join(path))
		held("cgroup.procs of the root");
	else
		both(TREE);
}

static void cgroup_move(void)
{
	const char *root = cgroups();

	if (root)
		move_in(root);
}

/* With the host's processes in sight, the host's cgroup namespace is in reach: its root is that of all. */
static void cgroup_move_host(void)
{
	int ns = open("/proc/1/ns/cgroup", O_RDONLY | O_CLOEXEC);
	const char *root;

	if (ns < 0 || setns(ns, CLONE_NEWCGROUP)) {
		held("setns(cgroup of pid 1)");
		return;
	}
	root = cgroups();
	if (root)
		move_in(root);
}

static void clone_into_cgroup(void)
{
	const char *root = cgroups();
	struct clone_args args;
	char path[512];
	pid_t pid;
	int fd;

	if (!root)
		return;
	snprintf(path, sizeof(path), "%s/portcullis-clone", root);
	mkdir(path, 0755);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		held("open of the cgroup");
		return;
	}
	memset(&args, 0, sizeof(args));
	args.flags = CLONE_INTO_CGROUP;
	args.exit_signal = SIGCHLD;
	args.cgroup = (uint64_t)fd;
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0) {
		held("clone3(CLONE_INTO_CGROUP)");
		return;
	}
	if (pid == 0) {
		both(TREE);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void spawn_vfork(void)
{
	pid_t pid = vfork();
	int status;

	if (pid == 0) {
		execl(PROG, "prog", "--mark", NULL);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		escaped(ESCAPED_EXEC);
	else
		held_as(EACCES, "execve after vfork");
}

/* A daemon whose parents are gone, re-parented to the container's init, some time later. */
static void daemonised(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		if (fork() == 0) {
			usleep(300000);
			both(TREE);
			_exit(0);
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	usleep(1500000);
	held_as(EACCES, "daemon");
}

/* A mount namespace made by a child, entered by its parent. */
static void setns_mount(void)
{
	char path[64];
	int ready[2], ns;
	pid_t pid;
	char byte;

	if (pipe(ready))
		return;
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS))
			_exit(1);
		if (write(ready[1], "r", 1) == 1)
			sleep(5);
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) {
		held_as(EPERM, "unshare(CLONE_NEWNS)");
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNS))
		held("setns");
	else
		both(TREE);
	kill(pid, SIGKILL);
}

/* Privileged and with the host's pids: the host's mount namespace, and there the file by the host's path. */
static void enter_host(void)
{
	const char *root = getenv("HOST_ROOT");
	int ns = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
	char path[1024];

	if (!root || ns < 0 || setns(ns, CLONE_NEWNS)) {
		held("setns(mount namespace of pid 1)");
		return;
	}
	snprintf(path, sizeof(path), "%s" TREE, root);
	through(path);
}

static void host_by_proc(void)
{
	const char *root = getenv("HOST_ROOT");
	char path[1024];

	if (!root)
		return;
	snprintf(path, sizeof(path), "/proc/1/root%s" TREE, root);
	through(path);
}

static void undumpable(void)
{
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	both(TREE);
}

const struct attack identity_attacks[] = {
	{ "plain", undumpable, 0 },
	{ "unshare-pid", unshare_pid, 0 },
	{ "unshare-mnt", unshare_mnt, 0 },
	{ "unshare-cgroup", unshare_cgroup, 0 },
	{ "unshare-user", unshare_user, 0 },
	{ "unshare-nested", unshare_nested, 0 },
	{ "chroot", change_root, 0 },
	{ "chroot-tree", chroot_tree, 0 },
	{ "chroot-userns", chroot_userns, 0 },
	{ "chroot-escape", chroot_escape, 0 },
	{ "cgroup-move", cgroup_move, 0 },
	{ "cgroup-move-host", cgroup_move_host, 0 },
	{ "clone-into-cgroup", clone_into_cgroup, 0 },
	{ "vfork", spawn_vfork, 0 },
	{ "daemon", daemonised, 0 },
	{ "setns-mount", setns_mount, 0 },
	{ "enter-host", enter_host, 0 },
	{ "host-by-proc", host_by_proc, 0 },
	{ NULL, NULL, 0 },
};
