/* SPDX-License-Identifier: GPL-2.0 */
/* Threads that are in the kernel while a batch is held, and where they run. */
#ifndef _MIGRATE_OFFLOAD_IO_H
#define _MIGRATE_OFFLOAD_IO_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

struct two_cpus {
	cpu_set_t all, first, last;
};

void run_on(const cpu_set_t *cpus);
bool two_cpus_take(struct two_cpus *c);
void two_cpus_give(struct two_cpus *c);

struct io {
	int fd;
	void *buf;
	size_t len;
	off_t off;
	bool is_write;
	const char *from, *to;		/* to rename instead */
	int udmabuf;			/* to pin and write through, if any */
	const cpu_set_t *cpus;		/* where it runs, unless anywhere */

	pthread_t thread;
	atomic_int tid;
	atomic_bool done;
	ssize_t ret;
	int err;
};

bool io_start(struct io *io);
bool io_blocks(struct io *io);
bool io_join(struct io *io, ssize_t want);

#endif /* _MIGRATE_OFFLOAD_IO_H */
