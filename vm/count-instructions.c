// SPDX-License-Identifier: GPL-2.0
/*
 * How many instructions does the CPU execute to migrate a folio?
 *
 * Runs in a machine that QEMU emulates with -icount shift=0, and on its only
 * CPU. The time stamp counter then counts instructions: those of everything
 * that runs, whoever asked for it. Two things are not work and have to go:
 *
 * - An idle CPU. QEMU lets time pass while it halts, so time is not instructions
 *   any more. So the CPU must never be idle: a thread with the policy SCHED_IDLE
 *   spins whenever nothing else wants to run. It counts its rounds, each of
 *   which is two instructions, and these are subtracted. It is a thread of this
 *   process, so switching to it is as cheap as switching to the idle task, which
 *   keeps the address space of whoever ran before. An idle CPU has no ticks of
 *   the timer, and a spinning one has, so their share of the time that it spins,
 *   some 0.1 %, is measured first and subtracted too.
 *
 * - The engine. A channel of dma-sim is a kernel thread, and its copying is what
 *   an engine does. The run time of these threads, which the scheduler knows to
 *   the nanosecond, is subtracted. Waking them and their completions are left
 *   in, in place of a doorbell and an interrupt. Engines of PTDMA are not in the
 *   machine, so there is nothing to subtract.
 *
 * What is left is what a CPU can do no other work in: the system call,
 * interrupts, softirqs, workers, and switching between them.
 *
 * Neither caches nor the time that an access takes are part of this, and all
 * instructions count the same. A CPU without ERMS copies a folio with memcpy()'s
 * loop, some 12 instructions for each 32 bytes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "vm_util.h"
#include "migrate_offload_util.h"

#define MAX_ENGINES	64
/* Each round of the spinner: see there */
#define SPIN_INSNS	2

static uint64_t spins;
/* Instructions of the timer for each of the spinner */
static double ticks;
static clockid_t engines[MAX_ENGINES];
static unsigned int nr_engines;

struct count {
	uint64_t all;
	uint64_t spun;
	uint64_t engine;
};

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static void *spin(void *arg)
{
	const struct sched_param param = { };

	/* pthread_attr_setschedpolicy() does not know this policy */
	if (sched_setscheduler(0, SCHED_IDLE, &param))
		ksft_exit_fail_perror("SCHED_IDLE");
	asm volatile("1:	incq %0\n"
		     "	jmp 1b\n" : "+m" (spins));
	return arg;
}

static void spin_start(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, spin, NULL))
		ksft_exit_fail_msg("cannot make a thread\n");
}

/* The threads of dma-sim have the names of their channels */
static void find_engines(void)
{
	char path[300], comm[32], *end;
	struct dirent *d;
	DIR *dir;
	long pid;

	if (access("/sys/module/dma_sim", F_OK))
		return;
	dir = opendir("/proc");
	while (dir && (d = readdir(dir))) {
		unsigned int dev, chan;
		int n = 0;

		pid = strtol(d->d_name, &end, 10);
		if (pid <= 0 || *end)
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
		if (read_text(path, comm, sizeof(comm)) ||
		    sscanf(comm, "dma%uchan%u%n", &dev, &chan, &n) != 2 ||
		    comm[n])
			continue;
		if (nr_engines == MAX_ENGINES)
			ksft_exit_fail_msg("too many engines\n");
		if (clock_getcpuclockid(pid, &engines[nr_engines++]))
			ksft_exit_fail_msg("no clock of %s\n", comm);
	}
	if (dir)
		closedir(dir);
	if (!nr_engines)
		ksft_exit_fail_msg("dma-sim has no threads\n");
}

/* Reads the counts of the engines apart from the rest, which is short */
static void count_read(struct count *c, bool before)
{
	struct timespec ts;
	unsigned int i;
	int pass;

	for (pass = 0; pass < 2; pass++) {
		if (pass == before) {
			c->spun = FORCE_READ(spins) * SPIN_INSNS;
			c->all = tsc();
			continue;
		}
		c->engine = 0;
		for (i = 0; i < nr_engines; i++) {
			if (clock_gettime(engines[i], &ts))
				ksft_exit_fail_perror("clock of an engine");
			c->engine += ts.tv_sec * 1000000000ULL + ts.tv_nsec;
		}
	}
}

static void count_sub(struct count *c, const struct count *before)
{
	c->all -= before->all;
	c->spun -= before->spun;
	c->engine -= before->engine;
}

static int64_t count_work(const struct count *c)
{
	return c->all - c->spun - c->engine - (int64_t)(ticks * c->spun);
}

/*
 * Does the counter count instructions, and nothing but these? Interrupts may
 * come in between, so the shortest of many counts.
 */
static void check_counter(void)
{
	const uint64_t rounds = 10000;
	uint64_t best = UINT64_MAX;
	int i;

	for (i = 0; i < 50; i++) {
		uint64_t n = rounds, start = tsc();

		asm volatile("1:	dec %0\n"
			     "	jnz 1b\n" : "+r" (n));
		start = tsc() - start;
		if (start < best)
			best = start;
	}
	if (best < 2 * rounds || best > 2 * rounds + 30)
		ksft_exit_fail_msg("%llu instructions counted as %llu: QEMU has to run with -icount shift=0\n",
				   (unsigned long long)(2 * rounds),
				   (unsigned long long)best);
}

/* What is counted while nothing is done: the timer, above all */
static void check_idle(void)
{
	const struct timespec ts = { .tv_nsec = 200 * 1000 * 1000 };
	struct count a, b;

	count_read(&a, true);
	nanosleep(&ts, NULL);
	count_read(&b, false);
	count_sub(&b, &a);
	ksft_print_msg("asleep: %lld of %llu instructions were not of the spinner\n",
		       (long long)count_work(&b), (unsigned long long)b.all);
	/* One that is ever halted, or spins in another way than is thought */
	if (count_work(&b) < 0 || count_work(&b) > (int64_t)b.all / 50)
		ksft_exit_fail_msg("the spinner does not take what is left\n");
	ticks = (double)count_work(&b) / b.spun;
}

/* One line for each run; the first, which fills caches of the kernel, is none */
static void run(FILE *csv, const char *label, size_t size, size_t bytes,
		size_t call, unsigned int runs)
{
	uint64_t generation = 0;
	struct region r;
	struct move m;
	unsigned int i;

	push_settings(size);
	if (size > (size_t)getpagesize())
		compact_nodes(false);
	if (!region_alloc(&r, size, bytes))
		ksft_exit_fail_msg("no folios of %s\n", size_name(size));
	move_alloc(&m, r.nr);
	move_set_region(&m, &r);

	for (i = 0; i <= runs; i++) {
		size_t each = call / size, done;
		struct counters before, after;
		struct count a, b;

		/* A folio of many pages may be split when it is moved again */
		if (i && !region_renew(&r, node_a))
			ksft_exit_fail_msg("no folios of %s\n", size_name(size));
		region_fill(&r, ++generation);
		for (done = 0; done < m.nr; done++)
			m.nodes[done] = node_b;

		read_counters(&before);
		count_read(&a, true);
		for (done = 0; done < m.nr; done += each)
			if (move_pages(min(each, m.nr - done), m.addrs + done,
				       m.nodes + done, m.status + done))
				ksft_exit_fail_msg("%s: folios are not moved\n",
						   size_name(size));
		count_read(&b, false);
		read_counters(&after);
		count_sub(&b, &a);

		if (!region_verify(&r, generation) || !move_all_on(&m, node_b) ||
		    count_folios(&r, NULL) != r.nr)
			ksft_exit_fail_msg("%s: wrong content, place or size\n",
					   size_name(size));
		if (i)
			fprintf(csv, "%s,%zu,%zu,%u,%zu,%lld,%llu,%llu,%lu\n",
				label, size, call, i, m.nr,
				(long long)count_work(&b),
				(unsigned long long)b.engine,
				(unsigned long long)b.spun,
				after.migrated - before.migrated);
	}
	fflush(csv);
	ksft_print_msg("%s %s, %s a call\n", label, size_name(size),
		       size_name(call));
	move_free(&m);
	region_free(&r);
	pop_settings();
}

static size_t number(const char *s, char **end)
{
	size_t n = strtoul(s, end, 10);

	if (*end == s || !n) {
		fprintf(stderr, "count-instructions: '%s' is no number\n", s);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned int runs;
	size_t bytes;
	char *end;
	FILE *csv;
	int i;

	if (argc < 6) {
		fprintf(stderr,
			"usage: count-instructions CSV LABEL RUNS KIB SIZE[/CALL]...\n"
			"Moves KIB of folios of each SIZE RUNS times, in calls of CALL or of\n"
			"everything, both in KiB, and appends to CSV for each run: LABEL, size and\n"
			"bytes a call, run, folios, instructions, those of the engines and of the\n"
			"spinner, which are not in them, and folios that dcbm copied\n");
		return 2;
	}
	runs = number(argv[3], &end);
	bytes = number(argv[4], &end) << 10;
	if (sysconf(_SC_NPROCESSORS_ONLN) != 1)
		ksft_exit_fail_msg("there must be one CPU, or others count as well\n");

	csv = fopen(argv[1], "a");
	if (!csv)
		ksft_exit_fail_perror(argv[1]);
	seed = 1;
	migrate_offload_setup();
	check_counter();
	find_engines();
	spin_start();
	check_idle();

	for (i = 5; i < argc; i++) {
		size_t size = number(argv[i], &end) << 10, call = bytes;

		if (*end == '/')
			call = number(end + 1, &end) << 10;
		run(csv, argv[2], size, bytes, call, runs);
	}
	if (fclose(csv))
		ksft_exit_fail_perror(argv[1]);
	/* The spinner does not end by itself */
	return 0;
}
