// SPDX-License-Identifier: GPL-2.0-only
/*
 * A UNIX socket that takes one client.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listener.h"

/*
 * Make way for a new socket. Connecting in earnest would use up the one client
 * that a server there accepts. A connection of the wrong type is refused with
 * EPROTOTYPE where a server lives and with ECONNREFUSED where none does, and
 * the server does not notice.
 */
static int remove_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	int err = 0;
	int fd;

	if (lstat(addr->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ||
	    errno == EPROTOTYPE)
		err = -EADDRINUSE;
	else if (errno != ECONNREFUSED)
		err = -errno;
	close(fd);
	if (err)
		return err;

	return unlink(addr->sun_path) && errno != ENOENT ? -errno : 0;
}

int listener_open(struct listener *l, const char *path)
{
	size_t len = strlen(path);
	int err;

	memset(l, 0, sizeof(*l));
	l->fd = -1;
	l->addr.sun_family = AF_UNIX;
	if (!len)
		return -ENOENT;
	if (len >= sizeof(l->addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(l->addr.sun_path, path, len);

	err = remove_stale(&l->addr);
	if (err)
		return err;

	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return -errno;
	if (bind(l->fd, (struct sockaddr *)&l->addr, sizeof(l->addr))) {
		err = -errno;
		close(l->fd);
		return err;
	}
	if (listen(l->fd, 1) || lstat(path, &l->id)) {
		err = -errno;
		unlink(path);
		close(l->fd);
		return err;
	}
	return 0;
}

int listener_accept(struct listener *l)
{
	int fd;

	do {
		fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));

	if (fd < 0)
		return errno == EINVAL ? -ECANCELED : -errno;

	/* The socket stays bound: it shows that a server lives here. */
	shutdown(l->fd, SHUT_RDWR);
	return fd;
}

void listener_cancel(struct listener *l)
{
	shutdown(l->fd, SHUT_RDWR);
}

void listener_close(struct listener *l)
{
	struct stat st;

	if (!lstat(l->addr.sun_path, &st) && st.st_dev == l->id.st_dev &&
	    st.st_ino == l->id.st_ino)
		unlink(l->addr.sun_path);
	close(l->fd);
}
