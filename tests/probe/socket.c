/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: `OP FAMILY TYPE PROTOCOL` in numbers. What nobody answers on loopback is an outcome of the network and not of
 * a policy: a refused connection, an unreachable network or an address family without this operation count as let through.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "probe.h"

#define DISCARD_PORT 9

static socklen_t loopback(int family, int port, struct sockaddr_storage *address)
{
	memset(address, 0, sizeof(*address));
	address->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)address;

		in->sin_port = htons((uint16_t)port);
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*in);
	}
	if (family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;

		in6->sin6_port = htons((uint16_t)port);
		in6->sin6_addr = in6addr_loopback;
		return sizeof(*in6);
	}
	if (family == AF_UNIX) {
		/* An abstract name: nothing is created in the file system. */
		struct sockaddr_un *un = (struct sockaddr_un *)address;
		int length = snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, "portcullis-probe-%d", getpid());

		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	}
	return sizeof(sa_family_t);
}

/* What says "the network", and so is not a refusal. */
static int is_network(int error)
{
	return error == ECONNREFUSED || error == ENETUNREACH || error == EHOSTUNREACH || error == EADDRNOTAVAIL ||
	       error == EDESTADDRREQ || error == ENOTCONN || error == EOPNOTSUPP || error == EINVAL ||
	       error == EAFNOSUPPORT || error == ENETDOWN || error == EPIPE || error == EPROTOTYPE || error == ENXIO ||
	       error == EINPROGRESS || error == EAGAIN || error == ENODEV;
}

static struct outcome after(int value, const char *step)
{
	if (value >= 0 || is_network(errno))
		return OK();
	return FAILED(step);
}

/* Connects to itself and accepts that. Returns 0, or -1 with errno. */
static int accept_itself(int fd, int family, int type, const struct sockaddr_storage *address, socklen_t length)
{
	int client, taken;

	if (bind(fd, (const struct sockaddr *)address, length) || listen(fd, 1))
		return -1;
	client = socket(family, type | SOCK_CLOEXEC, 0);
	if (client < 0)
		return -1;
	if (connect(client, (const struct sockaddr *)address, length)) {
		close(client);
		return -1;
	}
	taken = accept(fd, NULL, NULL);
	close(client);
	return taken < 0 ? -1 : close(taken);
}

struct outcome do_socket(const char *op, char **args, int n, int *known)
{
	struct sockaddr_storage address;
	struct outcome outcome;
	socklen_t length;
	int family, fd;

	*known = 0;
	if (n < 3)
		return OK();
	if (strcmp(op, "socket") && strcmp(op, "connect") && strcmp(op, "bind") && strcmp(op, "listen") &&
	    strcmp(op, "sendto") && strcmp(op, "accept"))
		return OK();
	*known = 1;
	family = atoi(args[0]);
	fd = socket(family, atoi(args[1]) | SOCK_NONBLOCK | SOCK_CLOEXEC, atoi(args[2]));
	if (fd < 0)
		return FAILED("socket");
	length = loopback(family, !strcmp(op, "bind") || !strcmp(op, "listen") ? 0 : DISCARD_PORT, &address);
	if (!strcmp(op, "connect")) {
		outcome = after(connect(fd, (struct sockaddr *)&address, length), "connect");
	} else if (!strcmp(op, "bind")) {
		outcome = after(bind(fd, (struct sockaddr *)&address, length), "bind");
	} else if (!strcmp(op, "listen")) {
		outcome = after(bind(fd, (struct sockaddr *)&address, length), "bind");
		if (!outcome.error)
			outcome = after(listen(fd, 1), "listen");
	} else if (!strcmp(op, "accept")) {
		outcome = after(accept_itself(fd, family, atoi(args[1]), &address, length), "accept");
	} else if (!strcmp(op, "sendto")) {
		outcome = after((int)sendto(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address, length),
				"sendto");
	} else {
		outcome = OK();
	}
	close(fd);
	return outcome;
}
