/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: re-opened, received, taken, made from handles, opened by io_uring; files without a name. */
#include "attack.h"

#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HELPER OUT "/helper.sock"
#define SERVED 2 /* the secret for reading, the protected file for writing */

/* Outside: hands out the files, opened for reading and writing, to whoever connects. Runs until it is killed. */
int serve(const char *socket_path, char **files, int n)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), fds[8], i;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	unlink(socket_path);
	if (n > 8 || bind(listener, (struct sockaddr *)&address, sizeof(address)) || chmod(socket_path, 0777) ||
	    listen(listener, 8))
		return 2;
	printf("READY\n");
	fflush(stdout);
	for (;;) {
		char control[CMSG_SPACE(sizeof(fds))] = "", byte = 'f';
		struct iovec data = { &byte, 1 };
		struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control };
		struct cmsghdr *header;
		/* Nothing is asked for: of all events only the end of the connection is waited for. */
		struct pollfd gone = { .events = 0 };
		int peer = accept(listener, NULL, NULL);

		if (peer < 0)
			continue;
		/* Opened anew for each: the runner puts the files back between attacks. */
		for (i = 0; i < n; i++)
			fds[i] = open(files[i], O_RDWR | O_CLOEXEC);
		message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)n);
		sendmsg(peer, &message, MSG_NOSIGNAL);
		/* The files stay open here until the peer has gone, for who takes descriptors instead of asking for them. */
		gone.fd = peer;
		poll(&gone, 1, 2000);
		for (i = 0; i < n; i++)
			close(fds[i]);
		close(peer);
	}
}

static int connected(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = HELPER };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		held("connect to the helper");
		return -1;
	}
	return fd;
}

/* The byte comes once the helper has opened the files. They are not received: without room for them they are dropped. */
static void await_files(int helper)
{
	char byte;

	if (read(helper, &byte, 1) != 1)
		held("read from the helper");
}

static void received(void)
{
	char control[CMSG_SPACE(sizeof(int) * SERVED)] = "", byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	int fds[SERVED], fd = connected();

	if (fd < 0)
		return;
	if (recvmsg(fd, &message, 0) < 0) {
		held("recvmsg");
		return;
	}
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_len != CMSG_LEN(sizeof(fds))) {
		/* The kernel leaves out what the receiver may not have. */
		held_as(EACCES, "descriptors were left out");
		if (!header)
			return;
	}
	memcpy(fds, CMSG_DATA(header), sizeof(fds));
	try_read_fd(fds[0]);
	if (header->cmsg_len == CMSG_LEN(sizeof(fds)) && write(fds[1], "changed", 7) == 7)
		escaped(ESCAPED_CHANGE);
}

/* pidfd_getfd on the helper, which a container that sees the host's processes can name (HELPER_PID). */
static void taken(void)
{
	const char *pid = getenv("HELPER_PID");
	int pidfd, fd, asked = connected();

	if (!pid || asked < 0) {
		held_as(ESRCH, "no helper in sight");
		return;
	}
	await_files(asked);
	pidfd = (int)syscall(SYS_pidfd_open, atoi(pid), 0);
	if (pidfd < 0) {
		held("pidfd_open");
		return;
	}
	for (fd = 3; fd < 32; fd++) {
		int mine = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

		if (mine < 0) {
			if (errno != EBADF)
				held("pidfd_getfd");
			continue;
		}
		try_read_fd(mine);
		close(mine);
	}
}

/* The same through /proc/PID/fd. */
static void taken_by_proc(void)
{
	const char *pid = getenv("HELPER_PID");
	char path[64];
	int fd, asked = connected();

	if (!pid || asked < 0) {
		held_as(ESRCH, "no helper in sight");
		return;
	}
	await_files(asked);
	for (fd = 3; fd < 32; fd++) {
		snprintf(path, sizeof(path), "/proc/%s/fd/%d", pid, fd);
		if (access(path, F_OK) == 0 || errno != ENOENT)
			try_read(path);
	}
}

static void reopened(void)
{
	int fd = open(SECRET, O_PATH | O_CLOEXEC), change = open(PROTECTED, O_PATH | O_CLOEXEC);
	char path[64];

	if (fd < 0 || change < 0) {
		held("open(O_PATH)");
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	try_read(path);
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
	try_read(path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", change);
	try_change(path);
	if (truncate(path, 1) == 0)
		escaped(ESCAPED_CHANGE);
}

static void deleted_reopened(void)
{
	int fd = open(SECRET, O_PATH | O_CLOEXEC);
	char path[64];

	if (unlink(SECRET))
		held("unlink");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	try_read(path);
	if (linkat(AT_FDCWD, path, AT_FDCWD, in_work("back"), AT_SYMLINK_FOLLOW) == 0)
		try_read(in_work("back"));
}

static void by_handle(void)
{
	struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h = { .handle = { .handle_bytes = MAX_HANDLE_SZ } };
	int mount_id, fd, mount_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (name_to_handle_at(AT_FDCWD, SECRET, &h.handle, &mount_id, 0)) {
		held("name_to_handle_at");
		return;
	}
	fd = open_by_handle_at(mount_fd < 0 ? AT_FDCWD : mount_fd, &h.handle, O_RDONLY);
	if (fd < 0)
		held("open_by_handle_at");
	else
		try_read_fd(fd);
}

/* A file that never had a name is given one where nothing may be created. */
static void tmpfile_link(void)
{
	int fd = open(work(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	char path[64];

	if (fd < 0) {
		held("open(O_TMPFILE)");
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, AT_FDCWD, LOCKED "/new", AT_SYMLINK_FOLLOW) == 0)
		escaped(ESCAPED_CHANGE);
	else
		held("linkat");
	fd = open(LOCKED, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (fd < 0)
		held("open(O_TMPFILE)");
	else
		escaped(ESCAPED_CHANGE);
}

/* One request, by a worker thread of the kernel (IOSQE_ASYNC), without liburing. */
static int uring(struct io_uring_sqe request)
{
	struct io_uring_params p;
	unsigned char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *done;
	int ring, result;

	memset(&p, 0, sizeof(p));
	ring = (int)syscall(SYS_io_uring_setup, 4, &p);
	if (ring < 0) {
		held("io_uring_setup");
		return -errno;
	}
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED,
		  ring, IORING_OFF_CQ_RING);
	sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqes == MAP_FAILED) {
		held("mmap of the ring");
		close(ring);
		return -ENOMEM;
	}
	sqes[0] = request;
	((uint32_t *)(sq + p.sq_off.array))[0] = 0;
	__atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
		held("io_uring_enter");
		close(ring);
		return -errno;
	}
	done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	result = done->res;
	close(ring);
	return result;
}

static void uring_open(void)
{
	static const int async[] = { 0, IOSQE_ASYNC };
	size_t i;

	for (i = 0; i < 2; i++) {
		struct io_uring_sqe request = { .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .flags = (uint8_t)async[i] };
		int fd;

		request.addr = (uint64_t)(uintptr_t)SECRET;
		fd = uring(request);
		if (fd >= 0)
			try_read_fd(fd);
		else
			held_as(-fd, "openat by io_uring");
		request.addr = (uint64_t)(uintptr_t)PROTECTED;
		request.open_flags = O_WRONLY;
		fd = uring(request);
		if (fd >= 0 && write(fd, "changed", 7) == 7)
			escaped(ESCAPED_CHANGE);
	}
}

static void uring_names(void)
{
	struct io_uring_sqe request = { .opcode = IORING_OP_RENAMEAT, .fd = AT_FDCWD };
	int error;

	request.addr = (uint64_t)(uintptr_t)SECRET;
	request.addr2 = (uint64_t)(uintptr_t)in_work("renamed");
	request.len = (uint32_t)AT_FDCWD;
	error = uring(request);
	if (error == 0)
		try_read(in_work("renamed"));
	else
		held_as(-error, "renameat by io_uring");
	request.opcode = IORING_OP_LINKAT;
	request.addr2 = (uint64_t)(uintptr_t)in_work("linked");
	error = uring(request);
	if (error == 0)
		try_read(in_work("linked"));
}

const struct attack descriptor_attacks[] = {
	{ "scm-rights", received, 0 },
	{ "pidfd-getfd", taken, 0 },
	{ "proc-fd-of-helper", taken_by_proc, 0 },
	{ "reopen", reopened, 0 },
	{ "deleted-reopen", deleted_reopened, 0 },
	{ "open-by-handle", by_handle, 0 },
	{ "tmpfile-link", tmpfile_link, 0 },
	{ "io-uring-open", uring_open, 0 },
	{ "io-uring-names", uring_names, 0 },
	{ NULL, NULL, 0 },
};
