// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that read, write, rename or pin while a batch is held, and have to wait
 * for it; and two CPUs, one for who moves, one for who gets in the way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/udmabuf.h>

#include "kselftest.h"
#include "window.h"
#include "io.h"

void run_on(const cpu_set_t *cpus)
{
	sched_setaffinity(0, sizeof(*cpus), cpus);
}

/* From here on, this thread and those that it creates run on the first one */
bool two_cpus_take(struct two_cpus *c)
{
	int cpu;

	CPU_ZERO(&c->first);
	CPU_ZERO(&c->last);
	if (sched_getaffinity(0, sizeof(c->all), &c->all) ||
	    CPU_COUNT(&c->all) < 2)
		return false;
	for (cpu = 0; !CPU_ISSET(cpu, &c->all); cpu++)
		;
	CPU_SET(cpu, &c->first);
	for (cpu = CPU_SETSIZE - 1; !CPU_ISSET(cpu, &c->all); cpu--)
		;
	CPU_SET(cpu, &c->last);
	run_on(&c->first);
	return true;
}

void two_cpus_give(struct two_cpus *c)
{
	run_on(&c->all);
}

/* Have the folios of a memfd pinned, without a page table, and write to them */
static ssize_t udmabuf_write(const struct io *io)
{
	struct udmabuf_create create = {
		.memfd = io->fd, .offset = io->off, .size = io->len,
	};
	int dmabuf = ioctl(io->udmabuf, UDMABUF_CREATE, &create);
	ssize_t ret = -1;
	char *mem;

	if (dmabuf < 0)
		return -1;
	mem = mmap(NULL, io->len, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, 0);
	if (mem != MAP_FAILED) {
		memcpy(mem, io->buf, io->len);
		munmap(mem, io->len);
		ret = io->len;
	}
	close(dmabuf);
	return ret;
}

static void *io_thread(void *arg)
{
	struct io *io = arg;

	if (io->cpus)
		sched_setaffinity(0, sizeof(*io->cpus), io->cpus);
	io->tid = gettid();
	errno = 0;
	if (io->from)
		io->ret = rename(io->from, io->to);
	else if (io->udmabuf)
		io->ret = udmabuf_write(io);
	else if (io->is_write)
		io->ret = pwrite(io->fd, io->buf, io->len, io->off);
	else
		io->ret = pread(io->fd, io->buf, io->len, io->off);
	io->err = errno;
	io->done = true;
	return NULL;
}

bool io_start(struct io *io)
{
	return !pthread_create(&io->thread, NULL, io_thread, io);
}

bool io_blocks(struct io *io)
{
	if (wait_for(io->done || thread_blocks(io->tid)) && !io->done)
		return true;
	ksft_print_msg("input or output did not wait for the batch\n");
	return false;
}

bool io_join(struct io *io, ssize_t want)
{
	if (!wait_for(io->done)) {
		ksft_print_msg("input or output does not end\n");
		return false;
	}
	pthread_join(io->thread, NULL);
	if (io->ret == want)
		return true;
	ksft_print_msg("input or output: %zd of %zd: %s\n", io->ret, want,
		       strerror(io->err));
	return false;
}
