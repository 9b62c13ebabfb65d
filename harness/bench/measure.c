// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: measure move_pages() on the machine in simulated time.
 *
 * One line of CSV for each cell: throughput, the time for which the first folio
 * of a batch and any folio was not mapped, and instructions per folio. The QEMU
 * plugin counts and times without a cost to the guest, and fills and verifies
 * the memory; see sim/sim-call.h.
 *
 * The process runs on CPU 0. It visits CPU 1 before each move, so that the
 * kernel believes that its TLB has to be flushed too, and defers that to one
 * flush a batch, as it does for most processes of real machines.
 *
 * Instructions are counted until the machine has been quiet for a while, so that
 * no work can be left for later. What the machine does in the same time without
 * a move is subtracted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
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
#include "util.h"
#include "sim-call.h"

#define MAX_LIST	32
/* The machine is quiet when so long a time has no more instructions than idle */
#define WINDOW_NS	(20 * 1000 * 1000)
#define MAX_WINDOWS	200
/* What two windows of an idle machine may differ by, in instructions */
#define IDLE_SLACK	6000

struct list {
	size_t item[MAX_LIST];
	int nr;
};

static const char *preset = "", *kernel = "patched", *migrator = "none";
static struct list sizes, channels, batches;
static size_t bytes = 64UL << 20, call_bytes;
static unsigned int rounds = 1, movers = 1;
static bool timed = true;
static FILE *csv;
static uint64_t generation;
/* The folio size that a profile is named after */
static size_t profile_kib;

#define MAX_MOVERS	16
#define MAX_MOVES	64
/* Where folios are cheap, one tick of the timer would show among fewer */
#define MIN_FOLIOS	128

/* One value for each counted move */
struct figures {
	double ns[MAX_MOVES];
	double first_ns[MAX_MOVES];
	double max_ns[MAX_MOVES];
	double insns[MAX_MOVES];
	int moves;
	bool no_latency;
};

/* ---- parameters of the migrator ------------------------------------------ */

static void set_param(const char *name, const char *value)
{
	char path[128];
	int err;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s",
		 strcmp(migrator, "dcbm") ? "rfc_like" : "dcbm", name);
	err = write_text(path, value);
	if (err)
		ksft_exit_fail_msg("%s: cannot write %s: %s\n", path, value,
				   strerror(-err));
}

static void migrator_off(void)
{
	if (strcmp(migrator, "none"))
		set_param("offloading", "0");
}

static void migrator_on(unsigned int nr)
{
	char buf[16];

	if (!strcmp(migrator, "none"))
		return;
	snprintf(buf, sizeof(buf), "%u", nr);
	set_param("nr_dma_chan", buf);
	set_param("offloading", "1");
	if (!strcmp(migrator, "dcbm") && dcbm_nr_claimed() != nr)
		ksft_exit_fail_msg("dcbm has %u channels, not %u\n",
				   dcbm_nr_claimed(), nr);
}

/*
 * How many bytes to unmap at once, or 0 for what the kernel chooses. The RFC
 * has what vanilla has, and copies before it unmaps more.
 */
static size_t limit(size_t batch)
{
	return batch ?: strcmp(migrator, "rfc-like") ? 0 : 2UL << 20;
}

/* Base pages that a migrator has copied */
static unsigned long offloaded_pages(void)
{
	unsigned long nr = 0;
	char line[128];
	FILE *f = fopen("/proc/vmstat", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "pgmigrate_offload_success %lu", &nr) == 1)
			break;
	if (f)
		fclose(f);
	return nr;
}

/* ---- the machine --------------------------------------------------------- */

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		ksft_exit_fail_perror("sched_setaffinity");
}

static unsigned long call(enum sim_call name, unsigned long *args)
{
	unsigned long ret = sim_call(name, args);

	if (ret == name)
		ksft_exit_fail_msg("this machine is not simulated: boot it with harness/sim/boot\n");
	return ret;
}

static uint64_t count(void)
{
	unsigned long args[SIM_CALL_ARGS] = { profile_kib };

	call(SIM_END, args);
	return args[0];
}

/* Sleep for a window; return the instructions that the machine executed */
static int64_t sleep_window(void)
{
	const struct timespec ts = { .tv_nsec = WINDOW_NS };
	uint64_t before = count();

	nanosleep(&ts, NULL);
	return count() - before;
}

/* Wait until the machine is idle; return what a window costs then */
static int64_t idle_window(void)
{
	unsigned long args[SIM_CALL_ARGS] = { sim_now() };
	int64_t before = 0, insns;
	int i;

	call(SIM_BEGIN, args);
	for (i = 0; i < MAX_WINDOWS; i++) {
		insns = sleep_window();
		if (i && llabs(insns - before) <= IDLE_SLACK)
			return min(insns, before);
		before = insns;
	}
	ksft_exit_fail_msg("the machine does not become idle\n");
}

/* Wait until the machine is idle again; return the instructions above @idle */
static int64_t leftovers(int64_t idle)
{
	int64_t sum = 0, insns;
	int i;

	for (i = 0; i < MAX_WINDOWS; i++) {
		insns = sleep_window() - idle;
		sum += insns;
		if (insns <= IDLE_SLACK)
			return sum;
	}
	ksft_exit_fail_msg("the machine does not become idle again\n");
}

static void fill(const struct region *r)
{
	unsigned long args[SIM_CALL_ARGS] = {
		(uintptr_t)r->mem, r->len, ++generation
	};

	if (call(SIM_FILL, args))
		ksft_exit_fail_msg("the memory cannot be filled\n");
}

static void verify(const struct region *r)
{
	unsigned long args[SIM_CALL_ARGS] = {
		(uintptr_t)r->mem, r->len, generation
	};
	unsigned long wrong = call(SIM_VERIFY, args);

	if (wrong)
		ksft_exit_fail_msg("WRONG CONTENT: %lu of %zu words\n", wrong,
				   r->len / 8);
}

/* Wait for a tick of the timer: moves that begin with one see equally many */
static void wait_for_tick(void)
{
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &begin);
	do
		clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	while (now.tv_nsec == begin.tv_nsec);
}

/* ---- one cell ------------------------------------------------------------ */

/* The folios that one of several movers moves */
struct part {
	struct move *move;
	size_t begin, end;
	int node, cpu;
};

static void *move_part(void *arg)
{
	const struct part *part = arg;
	struct move *m = part->move;
	const size_t each = m->call ? m->call : m->nr;
	size_t i;

	run_on(part->cpu);
	for (i = part->begin; i < part->end; i += each)
		if (move_pages(min(each, part->end - i), m->addrs + i,
			       m->nodes + i, m->status + i))
			ksft_exit_fail_msg("folios do not move to node %d\n",
					   part->node);
	return NULL;
}

/* Movers are threads, on both CPUs in turn. The first one is this thread. */
static void move_all(struct move *m, int node)
{
	struct part parts[MAX_MOVERS];
	pthread_t threads[MAX_MOVERS];
	unsigned int i;

	for (i = 0; i < movers; i++)
		parts[i] = (struct part) {
			.move = m,
			.begin = m->nr * i / movers,
			.end = m->nr * (i + 1) / movers,
			.node = node,
			.cpu = i % 2,
		};
	for (i = 1; i < movers; i++)
		if (pthread_create(&threads[i], NULL, move_part, &parts[i]))
			ksft_exit_fail_msg("no thread\n");
	move_part(&parts[0]);
	for (i = 1; i < movers; i++)
		pthread_join(threads[i], NULL);
}

static void one_move(struct move *m, int node, struct figures *f)
{
	unsigned long args[SIM_CALL_ARGS];
	uint64_t start, end;
	int64_t idle;
	size_t i;

	for (i = 0; i < m->nr; i++)
		m->nodes[i] = node;
	run_on(1);
	run_on(0);
	idle = idle_window();

	wait_for_tick();
	start = sim_now();
	args[0] = start;
	call(SIM_BEGIN, args);
	move_all(m, node);
	end = sim_now();
	args[0] = end;
	f->no_latency |= call(SIM_MOVED, args) || args[0] < m->nr;
	f->ns[f->moves] = end - start;
	f->first_ns[f->moves] = args[2];
	f->max_ns[f->moves] = args[3];
	f->insns[f->moves] = count();
	f->insns[f->moves] += leftovers(idle);
	f->moves++;
	if (!move_all_on(m, node))
		ksft_exit_fail_msg("not all folios are on node %d\n", node);
}

static void measure(struct region *r, struct move *m, bool offload,
		    struct figures *f)
{
	unsigned long pages = offloaded_pages();
	/* Rounds that fill the kernel's lists of free pages are not counted */
	const unsigned int warm_up = r->size == read_pmd_pagesize() ? 3 : 1;
	/* Vanilla splits a large folio that PTEs map at its second move */
	bool splits = false;
	unsigned int i;

	*f = (struct figures) { };
	for (i = 0; i < 2 * (warm_up + rounds); i++) {
		bool back = i % 2;
		int from = back ? node_b : node_a, to = back ? node_a : node_b;

		if (i == 2 * warm_up)
			*f = (struct figures) { };
		if (splits) {
			if (back)
				continue;
			if (!region_renew(r, from))
				ksft_exit_fail_msg("no folios of %s\n",
						   size_name(r->size));
		}
		fill(r);
		one_move(m, to, f);
		verify(r);
		if (r->size == psize() || count_folios(r, NULL) == r->nr)
			continue;
		if (i != 1 || r->size == read_pmd_pagesize())
			ksft_exit_fail_msg("%s: folios were split\n",
					   size_name(r->size));
		splits = true;
	}
	pages = offloaded_pages() - pages;
	if (offload != !!pages)
		ksft_exit_fail_msg("%s, %s: %lu pages were offloaded\n",
				   migrator, size_name(r->size), pages);
}

static int compare(const void *a, const void *b)
{
	return *(const double *)a < *(const double *)b ? -1 :
	       *(const double *)a > *(const double *)b;
}

/* The mean of the middle half. Values may have two modes, and a median jumps. */
static double middle(double *values, int nr)
{
	int first = nr / 4, i;
	double sum = 0;

	qsort(values, nr, sizeof(*values), compare);
	for (i = first; i < nr - first; i++)
		sum += values[i];
	return sum / (nr - 2 * first);
}

/*
 * The upper quartile: a tick of the timer may prolong the longest time of a move
 * or not, and half of one kind and half of the other must not be averaged.
 */
static double upper(double *values, int nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[nr * 3 / 4];
}

static void write_row(unsigned int chans, size_t size, size_t batch,
		      size_t folios, struct figures *f)
{
	const int nr = f->moves;

	fprintf(csv, "%s,%s,%s,%u,%zu,", preset, kernel, migrator, chans, size);
	if (batch)
		fprintf(csv, "%zu", batch);
	fprintf(csv, ",");
	if (timed)
		fprintf(csv, "%.4f", folios * size / middle(f->ns, nr));
	if (timed && !f->no_latency)
		fprintf(csv, ",%.1f,%.1f", middle(f->first_ns, nr) / 1e3,
			upper(f->max_ns, nr) / 1e3);
	else
		fprintf(csv, ",,");
	fprintf(csv, ",%.1f\n", middle(f->insns, nr) / folios);
	fflush(csv);
	ksft_print_msg("%s %u, %s%s%s\n", migrator, chans, size_name(size),
		       batch ? " by " : "", batch ? size_name(batch) : "");
}

static void run_size(size_t size)
{
	struct region r;
	struct move m;
	int c, b;

	profile_kib = size >> 10;
	push_settings(size);
	if (size > psize())
		compact_nodes(false);
	if (!region_alloc(&r, size, max(bytes, size * MIN_FOLIOS)))
		ksft_exit_fail_msg("no folios of %s\n", size_name(size));
	move_alloc(&m, r.nr);
	move_set_region(&m, &r);
	if (call_bytes)
		m.call = max(call_bytes / size, 1);
	for (c = 0; c < channels.nr; c++) {
		migrator_on(channels.item[c]);
		for (b = 0; b < batches.nr; b++) {
			struct figures f;

			if (limit(batches.item[b]) &&
			    batch_limit_set(limit(batches.item[b])))
				ksft_exit_fail_msg("the limit of a batch cannot be set\n");
			measure(&r, &m, strcmp(migrator, "none"), &f);
			write_row(channels.item[c], size, batches.item[b], r.nr,
				  &f);
		}
		migrator_off();
	}
	move_free(&m);
	region_free(&r);
	pop_settings();
}

/* ---- the instrument itself ------------------------------------------------ */

/* Two instructions a round */
static void spin(unsigned long rounds)
{
	asm volatile("1: dec %0; jnz 1b" : "+r" (rounds));
}

/* Interrupts may come in between, so the best of several */
static int test_count(void)
{
	const unsigned long rounds = 500000;
	uint64_t insns = UINT64_MAX, ns = UINT64_MAX;
	int i;

	for (i = 0; i < 5; i++) {
		unsigned long args[SIM_CALL_ARGS] = { sim_now() };
		uint64_t before, start;

		call(SIM_BEGIN, args);
		before = count();
		start = sim_now();
		spin(rounds);
		ns = min(ns, sim_now() - start);
		insns = min(insns, count() - before);
	}
	ksft_print_msg("%lu instructions: %lu counted, %lu ns\n", 2 * rounds,
		       (unsigned long)insns, (unsigned long)ns);
	return insns < 2 * rounds || insns > 2 * rounds * 1.01 ||
	       ns < 2 * rounds || ns > 2 * rounds * 1.01;
}

/* One wrong bit is found, and its address is part of the pattern */
static int test_verify(void)
{
	uint64_t *mem = aligned_alloc(4096, 1 << 21);
	unsigned long args[SIM_CALL_ARGS] = { (uintptr_t)mem, 1 << 21, 7 };
	unsigned long right, wrong, moved;

	memset(mem, 0, 1 << 21);
	call(SIM_FILL, args);
	right = call(SIM_VERIFY, args);
	mem[100000] ^= 1UL << 63;
	wrong = call(SIM_VERIFY, args);
	memcpy(mem, mem + 512, 4096);
	moved = call(SIM_VERIFY, args);
	free(mem);
	ksft_print_msg("wrong words: %lu, %lu with one changed, %lu with a page of another place\n",
		       right, wrong, moved);
	return right || wrong != 1 || moved != 513;
}

static int test_instrument(void)
{
	if (test_count() || test_verify()) {
		ksft_print_msg("the instrument is wrong\n");
		return 1;
	}
	return 0;
}

/* ---- command line -------------------------------------------------------- */

static void usage(FILE *f)
{
	fputs("usage: measure [options]\n"
	      "\n"
	      "Measure move_pages() between two nodes of the simulated machine, and append\n"
	      "preset,kernel,migrator,channels,folio_bytes,batch_bytes,gbps,first_us,max_us,\n"
	      "instructions to a CSV file, one line for each cell.\n"
	      "\n"
	      "  -o FILE   the CSV file (standard output)\n"
	      "  -p NAME   the first column (empty)\n"
	      "  -k NAME   the second column (patched)\n"
	      "  -m NAME   none, dcbm or rfc-like, which must be loaded (none)\n"
	      "  -c LIST   numbers of channels (0)\n"
	      "  -s LIST   folio sizes in KiB (4,16,64,256,1024,2048)\n"
	      "  -N LIST   limits of a batch in KiB (as the kernel has it)\n"
	      "  -C KIB    memory that a call of move_pages() moves (all)\n"
	      "  -b MIB    memory that is moved, 128 folios or more (64)\n"
	      "  -r N      counted rounds there and, unless the kernel splits the folios, back (1)\n"
	      "  -j N      threads that move at the same time, each its part, 1 to 16 (1)\n"
	      "  -V        only test the instrument: does it count and verify as it should?\n"
	      "  -T        engines work in real time: only count instructions\n", f);
}

static size_t number(const char *s)
{
	char *end;
	size_t n;

	errno = 0;
	n = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno || n > 1UL << 30) {
		fprintf(stderr, "measure: '%s' is not a number; see measure -h\n", s);
		exit(2);
	}
	return n;
}

static void parse_list(char *s, size_t unit, struct list *list)
{
	char *item;

	list->nr = 0;
	while ((item = strsep(&s, ","))) {
		if (list->nr == MAX_LIST) {
			fprintf(stderr, "measure: a list has more than %d items\n",
				MAX_LIST);
			exit(2);
		}
		list->item[list->nr++] = number(item) * unit;
	}
}

int main(int argc, char **argv)
{
	char default_sizes[] = "4,16,64,256,1024,2048", zero[] = "0";
	int opt, i;

	csv = stdout;
	parse_list(default_sizes, 1024, &sizes);
	parse_list(zero, 1, &channels);
	parse_list((char []) { "0" }, 1, &batches);
	while ((opt = getopt(argc, argv, "o:p:k:m:c:s:N:C:b:r:j:TVh")) != -1) {
		switch (opt) {
		case 'o':
			csv = fopen(optarg, "a");
			if (!csv) {
				perror(optarg);
				return 2;
			}
			break;
		case 'p': preset = optarg; break;
		case 'k': kernel = optarg; break;
		case 'm': migrator = optarg; break;
		case 'c': parse_list(optarg, 1, &channels); break;
		case 's': parse_list(optarg, 1024, &sizes); break;
		case 'N': parse_list(optarg, 1024, &batches); break;
		case 'C': call_bytes = number(optarg) << 10; break;
		case 'b': bytes = number(optarg) << 20; break;
		case 'r': rounds = number(optarg); break;
		case 'j': movers = number(optarg); break;
		case 'T': timed = false; break;
		case 'V': return test_instrument();
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (optind < argc || !rounds || rounds > MAX_MOVES / 2 || !bytes ||
	    !movers || movers > MAX_MOVERS) {
		usage(stderr);
		return 2;
	}
	migrate_offload_setup();
	if (sysconf(_SC_NPROCESSORS_ONLN) != 2)
		ksft_exit_fail_msg("the machine must have two CPUs\n");
	if (limit(batches.item[0]))
		batch_limit_save();
	for (i = 0; i < sizes.nr; i++)
		run_size(sizes.item[i]);
	if (csv != stdout && fclose(csv))
		ksft_exit_fail_perror("the CSV file");
	return 0;
}
