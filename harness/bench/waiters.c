// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: how migration slows writers of a file, and how writers make
 * migration fail. A writer that finds a folio locked sleeps with a reference to
 * it, which makes the move of that folio fail: it is tried again, and copied once
 * more. The longer a chunk is unmapped, the more writers come.
 *
 * Moves a file of tmpfs between two nodes while threads write to it, and prints
 * one line: folios that were to be moved, attempts to move that failed, folios
 * that stayed where they were, and writes a millisecond.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/mempolicy.h>
#include <linux/perf_event.h>

#define FAILED	"/sys/kernel/tracing/events/migrate/mm_migrate_folio_move_failed/id"
#define MAX_WRITERS	16

static size_t page, nr = 8192;
static int fd;
static atomic_bool stop;
static atomic_ulong writes;

static void die(const char *what)
{
	fprintf(stderr, "waiters: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *write_all_over(void *seed)
{
	uint64_t x = (uintptr_t)seed;

	while (!atomic_load(&stop)) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		if (pwrite(fd, &x, 1, (x >> 33) % nr * page) != 1)
			die("pwrite");
		atomic_fetch_add(&writes, 1);
	}
	return NULL;
}

/* Open a counter of failed moves on one CPU, for all tasks */
static int count_event(int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
	};
	FILE *f = fopen(FAILED, "r");

	if (!f || fscanf(f, "%llu", &attr.config) != 1)
		die(FAILED);
	fclose(f);
	return syscall(__NR_perf_event_open, &attr, -1, cpu, -1, 0);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	unsigned long nr_writers = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
	unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 10;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu, i, stayed = 0, r;
	pthread_t threads[MAX_WRITERS];
	uint64_t failed = 0, count, start;
	int counters[64], *nodes, *status;
	void **pages;
	char *mem;

	if (nr_writers > MAX_WRITERS || cpus > 64) {
		fprintf(stderr, "usage: waiters [WRITERS [ROUNDS]]\n");
		return 2;
	}
	page = sysconf(_SC_PAGESIZE);
	fd = memfd_create("waiters", 0);
	if (fd < 0 || ftruncate(fd, nr * page))
		die("memfd");
	mem = mmap(NULL, nr * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		die("mmap");
	memset(mem, 1, nr * page);
	pages = calloc(nr, sizeof(*pages));
	nodes = calloc(nr, sizeof(*nodes));
	status = calloc(nr, sizeof(*status));
	for (i = 0; i < (long)nr; i++)
		pages[i] = mem + i * page;
	if (syscall(__NR_move_pages, 0, nr, pages, nodes, status, MPOL_MF_MOVE) < 0)
		die("move_pages");
	for (cpu = 0; cpu < cpus; cpu++) {
		counters[cpu] = count_event(cpu);
		if (counters[cpu] < 0)
			die("perf_event_open");
	}

	for (i = 0; i < (long)nr_writers; i++)
		if (pthread_create(&threads[i], NULL, write_all_over, (void *)(i + 1)))
			die("thread");
	start = now_ns();
	for (r = 0; r < (long)rounds; r++) {
		for (i = 0; i < (long)nr; i++)
			nodes[i] = !(r % 2);
		if (syscall(__NR_move_pages, 0, nr, pages, nodes, status,
			    MPOL_MF_MOVE) < 0)
			die("move_pages");
		syscall(__NR_move_pages, 0, nr, pages, NULL, status, 0);
		for (i = 0; i < (long)nr; i++)
			stayed += status[i] != nodes[i];
	}
	start = now_ns() - start;
	atomic_store(&stop, true);
	for (i = 0; i < (long)nr_writers; i++)
		pthread_join(threads[i], NULL);
	for (cpu = 0; cpu < cpus; cpu++)
		if (read(counters[cpu], &count, sizeof(count)) == sizeof(count))
			failed += count;
	printf("%lu to be moved, %lu attempts failed, %ld stayed, %lu writes/ms\n",
	       rounds * nr, failed, stayed, atomic_load(&writes) * 1000000 / start);
	return 0;
}
