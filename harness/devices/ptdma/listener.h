/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A UNIX socket that takes one client.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include <sys/stat.h>
#include <sys/un.h>

struct listener {
	int fd;
	struct sockaddr_un addr;
	struct stat id;			/* of the socket in the file system */
};

/*
 * Bind and listen. The socket of a server that died is replaced. Returns 0 or
 * a negative errno: -ENAMETOOLONG, -EADDRINUSE if a server lives there,
 * -EEXIST if there is something else than a socket.
 */
int listener_open(struct listener *l, const char *path);

/*
 * Wait for the client; all others are refused from then on. Returns its file
 * descriptor, or -ECANCELED after listener_cancel().
 */
int listener_accept(struct listener *l);

/* From another thread: end listener_accept(), now or when it is called. */
void listener_cancel(struct listener *l);

/* Also removes the socket, unless it is another's by now. */
void listener_close(struct listener *l);

#endif /* LISTENER_H */
