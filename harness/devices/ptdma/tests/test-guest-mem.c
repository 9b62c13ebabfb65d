// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the table of DMA mappings.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest-mem.h"
#include "tap.h"

#define PAGE	((uint64_t)GUEST_MEM_PAGE)
#define PAGES	64
#define RW	(GUEST_MEM_READ | GUEST_MEM_WRITE)
#define RO	GUEST_MEM_READ
#define WO	GUEST_MEM_WRITE
#define IOVA	0x40000000ull

struct fixture {
	struct guest_mem *gm;
	int fd;
	uint8_t *ram;
	size_t size;
};

static void setup(struct fixture *f, size_t pages)
{
	f->size = pages * PAGE;
	f->gm = guest_mem_create();
	f->fd = memfd_create("test", MFD_CLOEXEC);
	if (!f->gm || f->fd < 0 || ftruncate(f->fd, f->size))
		abort();
	f->ram = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      f->fd, 0);
	if (f->ram == MAP_FAILED)
		abort();
}

static void teardown(struct fixture *f)
{
	guest_mem_destroy(f->gm);
	munmap(f->ram, f->size);
	close(f->fd);
}

static size_t maps(struct guest_mem *gm)
{
	size_t maps, files;

	guest_mem_count(gm, &maps, &files);
	return maps;
}

static size_t files(struct guest_mem *gm)
{
	size_t maps, files;

	guest_mem_count(gm, &maps, &files);
	return files;
}

static void bad_maps(struct tap *t)
{
	static const struct {
		uint64_t iova, size, offset;
		uint32_t prot;
	} bad[] = {
		{ IOVA, 0, 0, RW },
		{ IOVA, PAGE, 0, 0 },
		{ IOVA, PAGE, 0, 4 | RW },
		{ IOVA + 1, PAGE, 0, RW },
		{ IOVA, PAGE + 1, 0, RW },
		{ IOVA, PAGE, 1, RW },
		{ IOVA, PAGE, PAGES * PAGE, RW },
		{ IOVA, (PAGES + 1) * PAGE, 0, RW },
		{ IOVA, 2 * PAGE, -PAGE, RW },
		{ IOVA, PAGE, -PAGE, RW },
		{ IOVA, -PAGE, 2 * PAGE, RW },
		{ -PAGE, 2 * PAGE, 0, RW },
		{ IOVA, -PAGE, 0, RW },
	};
	struct fixture f;
	size_t i;

	setup(&f, PAGES);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = guest_mem_map(f.gm, bad[i].iova, bad[i].size,
					bad[i].prot, f.fd, bad[i].offset);

		if (!EQUAL(t, -err, EINVAL))
			printf("# bad[%zu]\n", i);
	}
	EQUAL(t, maps(f.gm), 0);
	EQUAL(t, files(f.gm), 0);
	/* The highest page is no overflow. */
	EQUAL(t, guest_mem_map(f.gm, -PAGE, PAGE, RW, f.fd, 0), 0);
	teardown(&f);
}

static void file_access(struct tap *t)
{
	char path[32];
	struct fixture f;
	int ro, p[2];

	setup(&f, PAGES);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f.fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(t, ro >= 0);
	EQUAL(t, -guest_mem_map(f.gm, IOVA, PAGE, RW, ro, 0), EACCES);
	EQUAL(t, guest_mem_map(f.gm, IOVA, PAGE, RO, ro, 0), 0);
	/* That the file is mapped read-only must not spoil this one. */
	EQUAL(t, guest_mem_map(f.gm, IOVA + PAGE, PAGE, RW, f.fd, PAGE), 0);
	EQUAL(t, files(f.gm), 2);
	close(ro);

	CHECK(t, !pipe(p));
	EQUAL(t, -guest_mem_map(f.gm, IOVA + 2 * PAGE, PAGE, RO, p[0], 0),
	      EINVAL);
	close(p[0]);
	close(p[1]);
	EQUAL(t, -guest_mem_map(f.gm, IOVA + 2 * PAGE, PAGE, RO, p[0], 0),
	      EBADF);
	EQUAL(t, maps(f.gm), 2);
	teardown(&f);
}

static void overlap(struct tap *t)
{
	static const struct {
		int first, nr;
	} bad[] = {
		{ 10, 10 }, { 9, 2 }, { 19, 2 }, { 12, 2 }, { 5, 20 },
		{ 10, 1 }, { 19, 1 }, { 0, 11 }, { 0, 40 }, { 25, 10 },
	};
	struct fixture f;
	size_t i;

	setup(&f, PAGES);
	EQUAL(t, guest_mem_map(f.gm, IOVA + 30 * PAGE, 10 * PAGE, RW, f.fd, 0),
	      0);
	EQUAL(t, guest_mem_map(f.gm, IOVA + 10 * PAGE, 10 * PAGE, RW, f.fd, 0),
	      0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = guest_mem_map(f.gm, IOVA + bad[i].first * PAGE,
					bad[i].nr * PAGE, RW, f.fd, 0);

		if (!EQUAL(t, -err, EEXIST))
			printf("# bad[%zu]\n", i);
	}
	EQUAL(t, maps(f.gm), 2);
	/* Exactly in between, before and after. */
	EQUAL(t, guest_mem_map(f.gm, IOVA + 20 * PAGE, 10 * PAGE, RW, f.fd, 0),
	      0);
	EQUAL(t, guest_mem_map(f.gm, IOVA, 10 * PAGE, RW, f.fd, 0), 0);
	EQUAL(t, guest_mem_map(f.gm, IOVA + 40 * PAGE, PAGE, RW, f.fd, 0), 0);
	EQUAL(t, maps(f.gm), 5);
	EQUAL(t, files(f.gm), 1);
	teardown(&f);
}

static void unmapping(struct tap *t)
{
	struct fixture f;
	uint64_t n;
	int i;

	setup(&f, PAGES);
	for (i = 0; i < 8; i++)
		EQUAL(t, guest_mem_map(f.gm, IOVA + 4 * i * PAGE, 2 * PAGE, RW,
				       f.fd, 0), 0);

	/* Cutting a mapping, at either end, changes nothing. */
	EQUAL(t, -guest_mem_unmap(f.gm, IOVA, PAGE, &n), EINVAL);
	EQUAL(t, -guest_mem_unmap(f.gm, IOVA + PAGE, 9 * PAGE, &n), EINVAL);
	EQUAL(t, -guest_mem_unmap(f.gm, IOVA, 9 * PAGE, &n), EINVAL);
	EQUAL(t, n, 0);
	EQUAL(t, -guest_mem_unmap(f.gm, IOVA, 0, &n), EINVAL);
	EQUAL(t, -guest_mem_unmap(f.gm, IOVA + 1, PAGE, &n), EINVAL);
	EQUAL(t, -guest_mem_unmap(f.gm, -PAGE, 2 * PAGE, &n), EINVAL);
	EQUAL(t, maps(f.gm), 8);

	/* Nothing there */
	EQUAL(t, guest_mem_unmap(f.gm, IOVA + 2 * PAGE, 2 * PAGE, &n), 0);
	EQUAL(t, n, 0);
	EQUAL(t, maps(f.gm), 8);

	/* One, then several with gaps, then all */
	EQUAL(t, guest_mem_unmap(f.gm, IOVA + 4 * PAGE, 2 * PAGE, &n), 0);
	EQUAL(t, n, 2 * PAGE);
	EQUAL(t, guest_mem_unmap(f.gm, IOVA + 11 * PAGE, 12 * PAGE, &n), 0);
	EQUAL(t, n, 6 * PAGE);
	EQUAL(t, maps(f.gm), 4);
	EQUAL(t, files(f.gm), 1);
	EQUAL(t, guest_mem_unmap_all(f.gm), 8 * PAGE);
	EQUAL(t, maps(f.gm), 0);
	EQUAL(t, files(f.gm), 0);
	EQUAL(t, guest_mem_unmap_all(f.gm), 0);
	teardown(&f);
}

/* Pages in the order of 5, 10, ... modulo the prime 20011. */
#define MANY	20011

static void many(struct tap *t)
{
	struct fixture f;
	size_t i, wrong = 0;
	uint64_t n;

	setup(&f, MANY);
	for (i = 0; i < MANY; i++) {
		uint64_t iova = IOVA + i * 5 % MANY * PAGE;
		uint64_t off = i * 7 % MANY * PAGE;
		uint32_t id = i * 5 % MANY;

		memcpy(f.ram + off, &id, sizeof(id));
		if (guest_mem_map(f.gm, iova, PAGE, RO, f.fd, off))
			wrong++;
	}
	EQUAL(t, wrong, 0);
	EQUAL(t, maps(f.gm), MANY);
	EQUAL(t, files(f.gm), 1);

	for (i = 0; i < MANY; i++) {
		uint32_t id;

		if (guest_mem_read(f.gm, &id, IOVA + i * PAGE, sizeof(id)) ||
		    id != i)
			wrong++;
	}
	EQUAL(t, wrong, 0);
	EQUAL(t, guest_mem_unmap(f.gm, IOVA, MANY * PAGE, &n), 0);
	EQUAL(t, n, MANY * PAGE);

	/* A limit holds, and is the announced one. */
	for (i = 0; i < GUEST_MEM_MAX_MAPS; i++)
		wrong += !!guest_mem_map(f.gm, i * PAGE, PAGE, RO, f.fd, 0);
	EQUAL(t, wrong, 0);
	EQUAL(t, -guest_mem_map(f.gm, i * PAGE, PAGE, RO, f.fd, 0), ENOSPC);
	teardown(&f);
}

/* Adjoining for the device, in the opposite order in the file. */
static void crossing(struct tap *t)
{
	uint8_t buf[3 * 4096];
	struct fixture f;
	size_t i, taken, wrong = 0;

	setup(&f, PAGES);
	for (i = 0; i < 8; i++)
		EQUAL(t, guest_mem_map(f.gm, IOVA + i * PAGE, PAGE, RW, f.fd,
				       (8 - i) * PAGE), 0);
	for (i = 0; i < 9 * PAGE; i++)
		f.ram[i] = i / PAGE;

	EQUAL(t, guest_mem_read(f.gm, buf, IOVA + PAGE - 4, 2 * PAGE), 0);
	for (i = 0; i < 2 * PAGE; i++)
		wrong += buf[i] != (i < 4 ? 8 : i < 4 + PAGE ? 7 : 6);
	EQUAL(t, wrong, 0);

	/* 2 pages, with different alignments of both ends. */
	memset(buf, 0xee, sizeof(buf));
	EQUAL(t, guest_mem_take(f.gm, buf + 1, IOVA + 5 * PAGE + 100,
				IOVA + 10, 2 * PAGE, &taken), 0);
	EQUAL(t, taken, 2 * PAGE);
	for (i = 0; i < 2 * PAGE; i++)
		wrong += buf[i + 1] != 8 - (i + 10) / PAGE;
	EQUAL(t, wrong, 0);
	/* Not a byte more on either side, and nothing written there */
	EQUAL(t, buf[0], 0xee);
	EQUAL(t, buf[2 * PAGE + 1], 0xee);
	for (i = 0; i < 9 * PAGE; i++)
		wrong += f.ram[i] != i / PAGE;
	EQUAL(t, wrong, 0);
	teardown(&f);
}

static void faults(struct tap *t)
{
	const uint64_t ro = IOVA + 8 * PAGE, wo = IOVA + 16 * PAGE;
	const uint64_t none = IOVA + 24 * PAGE, top = -PAGE;
	struct fixture f;
	uint8_t buf[4096];
	size_t n;

	setup(&f, PAGES);
	EQUAL(t, guest_mem_map(f.gm, IOVA, PAGE, RW, f.fd, 0), 0);
	EQUAL(t, guest_mem_map(f.gm, ro, PAGE, RO, f.fd, PAGE), 0);
	EQUAL(t, guest_mem_map(f.gm, wo, PAGE, WO, f.fd, 2 * PAGE), 0);
	EQUAL(t, guest_mem_map(f.gm, none, PAGE, RW, -1, 0), 0);
	EQUAL(t, guest_mem_map(f.gm, top, PAGE, RW, f.fd, 3 * PAGE), 0);
	EQUAL(t, guest_mem_map(f.gm, 0, PAGE, RW, f.fd, 4 * PAGE), 0);

	EQUAL(t, guest_mem_take(f.gm, buf, IOVA, IOVA + PAGE, 8, &n),
	      GUEST_MEM_READ_UNMAPPED);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA, IOVA - 1, 8, &n),
	      GUEST_MEM_READ_UNMAPPED);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA, wo, 8, &n), GUEST_MEM_READ_DENIED);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA, none, 8, &n),
	      GUEST_MEM_READ_DENIED);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA + PAGE, IOVA, 8, &n),
	      GUEST_MEM_WRITE_UNMAPPED);
	EQUAL(t, guest_mem_take(f.gm, buf, ro, IOVA, 8, &n),
	      GUEST_MEM_WRITE_DENIED);
	EQUAL(t, guest_mem_take(f.gm, buf, none, IOVA, 8, &n),
	      GUEST_MEM_WRITE_DENIED);
	EQUAL(t, guest_mem_take(f.gm, buf, wo, ro, PAGE, &n), GUEST_MEM_OK);
	EQUAL(t, n, PAGE);

	/* In the middle: what was before it, and no more, is taken. */
	memset(f.ram, 0x55, PAGE);
	memset(buf, 0, sizeof(buf));
	EQUAL(t, guest_mem_take(f.gm, buf, wo, IOVA + PAGE - 10, 20, &n),
	      GUEST_MEM_READ_UNMAPPED);
	EQUAL(t, n, 10);
	EQUAL(t, buf[9], 0x55);
	EQUAL(t, buf[10], 0);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA + PAGE - 10, IOVA, 20, &n),
	      GUEST_MEM_WRITE_UNMAPPED);
	EQUAL(t, n, 10);

	EQUAL(t, guest_mem_read(f.gm, buf, wo, 8), GUEST_MEM_READ_DENIED);
	EQUAL(t, guest_mem_read(f.gm, buf, ro + PAGE - 4, 8),
	      GUEST_MEM_READ_UNMAPPED);

	/* The address space has an end: no way around to page 0. */
	EQUAL(t, guest_mem_read(f.gm, buf, -4ull, 4), GUEST_MEM_OK);
	EQUAL(t, guest_mem_read(f.gm, buf, -4ull, 8), GUEST_MEM_READ_UNMAPPED);
	EQUAL(t, guest_mem_take(f.gm, buf, IOVA, -4ull, 8, &n),
	      GUEST_MEM_READ_UNMAPPED);
	EQUAL(t, guest_mem_take(f.gm, buf, -4ull, IOVA, 8, &n),
	      GUEST_MEM_WRITE_UNMAPPED);
	EQUAL(t, n, 0);
	teardown(&f);
}

static void growing_file(struct tap *t)
{
	struct fixture f;
	uint8_t byte;

	setup(&f, PAGES);
	EQUAL(t, guest_mem_map(f.gm, 0, PAGE, RW, f.fd, 0), 0);
	EQUAL(t, ftruncate(f.fd, 2 * PAGES * PAGE), 0);
	EQUAL(t, guest_mem_map(f.gm, PAGE, PAGE, RW, f.fd, PAGES * PAGE), 0);
	byte = 0x77;
	EQUAL(t, pwrite(f.fd, &byte, 1, PAGES * PAGE), 1);
	byte = 0;
	EQUAL(t, guest_mem_read(f.gm, &byte, PAGE, 1), 0);
	EQUAL(t, byte, 0x77);
	teardown(&f);
}

#define BIG	4096			/* pages */

struct reader {
	struct guest_mem *gm;
	uint8_t *buf;
	atomic_bool running;
	enum guest_mem_fault fault;
};

static void *read_until_fault(void *arg)
{
	struct reader *r = arg;
	size_t n;

	do {
		r->fault = guest_mem_take(r->gm, r->buf, IOVA + BIG * PAGE,
					  IOVA, BIG * PAGE, &n);
		r->running = true;
	} while (!r->fault);
	return NULL;
}

/* What is read after the unmap, when the memory has another owner, is wrong. */
static void unmap_in_flight(struct tap *t)
{
	struct reader r = { .buf = malloc(BIG * PAGE) };
	struct fixture f;
	pthread_t thread;
	int round;

	setup(&f, BIG);
	r.gm = f.gm;
	CHECK(t, r.buf);
	EQUAL(t, guest_mem_map(f.gm, IOVA + BIG * PAGE, BIG * PAGE, RW, f.fd,
			       0), 0);

	for (round = 0; round < 5; round++) {
		size_t i, late = 0;
		uint64_t n;

		memset(f.ram, 0x11, BIG * PAGE);
		EQUAL(t, guest_mem_map(f.gm, IOVA, BIG * PAGE, RO, f.fd, 0), 0);
		r.running = false;
		pthread_create(&thread, NULL, read_until_fault, &r);
		while (!r.running)
			usleep(100);
		usleep(1000 + 700 * round);
		EQUAL(t, guest_mem_unmap(f.gm, IOVA, BIG * PAGE, &n), 0);
		memset(f.ram, 0xee, BIG * PAGE);
		pthread_join(thread, NULL);
		for (i = 0; i < BIG * PAGE; i++)
			late += r.buf[i] != 0x11;
		EQUAL(t, late, 0);
		EQUAL(t, r.fault, GUEST_MEM_READ_UNMAPPED);
	}
	free(r.buf);
	teardown(&f);
}

const struct test guest_mem_tests[] = {
	{ "guest-mem: bad mappings are refused", bad_maps },
	{ "guest-mem: a file's access mode is honoured", file_access },
	{ "guest-mem: overlaps are refused", overlap },
	{ "guest-mem: unmapping", unmapping },
	{ "guest-mem: many small mappings of one file", many },
	{ "guest-mem: accesses across mappings", crossing },
	{ "guest-mem: faults tell read from write", faults },
	{ "guest-mem: a file that grows", growing_file },
	{ "guest-mem: unmap waits for a read in flight", unmap_in_flight },
	{ }
};
