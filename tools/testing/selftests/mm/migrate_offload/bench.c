// SPDX-License-Identifier: GPL-2.0
/*
 * Benchmark and verification of page migration with copy offload.
 *
 * Folios of an exactly known size are moved back and forth between two memory
 * nodes, all of them by one move_pages(2) call, so that the kernel forms the
 * batches which a migrator such as dcbm may copy with DMA channels. Only the
 * system call is measured. Every word carries a pattern which depends on its
 * address, on the move and on the run, and all of it is compared after every
 * move: a folio that was marked as copied but was not, was copied from or to
 * the wrong place, or is an older version of itself, cannot go unnoticed.
 *
 * Run without dcbm, it measures and verifies the copies made by the CPU.
 *
 * How large a batch may be is a matter of throughput against the time for which
 * the first folio of it is not mapped. Both are measured for a list of limits, on
 * request. A kernel without such a limit gets that many bytes by a call instead.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/mempolicy.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "latency.h"
#include "util.h"

#define MAX_SIZES	20
#define MAX_BATCHES	20
#define MAX_ROWS	17
#define EXIT_USAGE	2

struct row {
	char label[32];
	unsigned int channels;	/* 0: copied by the CPU */
};

struct cell {
	double mean;
	double stddev;
	double first_us;	/* -1: not measured */
	unsigned long moved;
	long offloaded;		/* -1: no dcbm to ask */
	bool measured;
};

enum row_state { ROW_RUN, ROW_SKIP, ROW_FAIL };

/* Command line */
static size_t sizes[MAX_SIZES];
static int nr_sizes;
static unsigned int channels[MAX_ROWS - 1];
static int nr_channels;
/* One that is 0 if there is no list of them */
static size_t batches[MAX_BATCHES];
static int nr_batches = 1;
static size_t bench_bytes = 32UL << 20;
static unsigned int rounds = 3;
static bool run_cpu = true, run_dcbm = true, dcbm_required;
static bool all_offloaded, keep_going, hugetlb_only;
static unsigned int stress_seconds;
static FILE *csv;

static uint64_t generation;
static sig_atomic_t interrupted;

static bool trace_latency;

static struct row rows[MAX_ROWS];
static int nr_rows;
static struct cell cells[MAX_BATCHES][MAX_ROWS][MAX_SIZES];

/* ---- small helpers ----------------------------------------------------- */

static void on_signal(int sig)
{
	interrupted = sig;
}

static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGQUIT, &sa, NULL);
}

static void check_interrupted(void)
{
	int sig = FORCE_READ(interrupted);

	if (sig)
		ksft_exit_fail_msg("interrupted by signal %d\n", sig);
}

/* Number of decimals which show @v with three significant digits */
static int decimals(double v)
{
	int d = 0;

	for (; d < 9 && v > 0 && v < 99.95; d++)
		v *= 10;
	return d;
}

/* Set dcbm up for a row of the table; @why tells why the row cannot run. */
static enum row_state dcbm_setup(const struct row *row, char *why, size_t len)
{
	unsigned int claimed;
	char buf[32];
	int err;

	if (!dcbm_present()) {
		if (!row->channels)
			return ROW_RUN;
		snprintf(why, len, "dcbm is not loaded");
		return ROW_SKIP;
	}

	if (dcbm_write("offloading", "N")) {
		snprintf(why, len, "cannot turn offloading off");
		return ROW_FAIL;
	}
	if (!row->channels)
		return ROW_RUN;

	snprintf(buf, sizeof(buf), "%u", row->channels);
	if (dcbm_write("nr_dma_chan", buf)) {
		snprintf(why, len, "cannot set nr_dma_chan");
		return ROW_FAIL;
	}
	err = dcbm_write("offloading", "Y");
	if (err == -ENODEV) {
		snprintf(why, len, "no DMA channel");
		return ROW_SKIP;
	}
	if (err || dcbm_read("offloading", buf, sizeof(buf)) || buf[0] != 'Y') {
		snprintf(why, len, "cannot turn offloading on");
		return ROW_FAIL;
	}

	claimed = dcbm_nr_claimed();
	if (claimed > row->channels) {
		snprintf(why, len, "dcbm claimed %u channels", claimed);
		return ROW_FAIL;
	}
	if (claimed < row->channels) {
		snprintf(why, len, "only %u channel%s", claimed,
			 claimed == 1 ? "" : "s");
		return ROW_SKIP;
	}
	return ROW_RUN;
}

/* ---- one cell of the table --------------------------------------------- */

enum move_result { MOVE_OK, MOVE_FAILED, MOVE_SPLIT };

/* One move of all folios with a new content, verified */
static enum move_result run_move(struct region *r, struct move *m, int from,
				 int to, unsigned long *offloaded)
{
	struct counters before, after;
	size_t whole;
	bool sane;

	if (!move_all_on(m, from)) {
		ksft_print_msg("the memory is not on node %d\n", from);
		return MOVE_FAILED;
	}
	region_fill(r, ++generation);

	read_counters(&before);
	sane = move_to(m, to, false);
	read_counters(&after);

	if (!region_verify(r, generation))
		return MOVE_FAILED;
	if (after.failures != before.failures)
		ksft_print_msg("dcbm could not copy %lu folios\n",
			       after.failures - before.failures);

	whole = count_folios(r, NULL);
	if (whole < r->nr) {
		ksft_print_msg("%s: %zu of %zu folios lost their size on the way to node %d\n",
			       size_name(r->size), r->nr - whole, r->nr, to);
		return MOVE_SPLIT;
	}
	if (!sane)
		return MOVE_FAILED;
	if (m->unmoved) {
		ksft_print_msg("%zu of %zu folios did not move to node %d\n",
			       m->unmoved, m->nr, to);
		return MOVE_FAILED;
	}
	*offloaded = after.migrated - before.migrated;
	return MOVE_OK;
}

static void write_csv(const struct row *row, const struct region *r,
		      const struct move *m, size_t batch, unsigned int nr,
		      unsigned long offloaded, const struct latency *latency)
{
	fprintf(csv, "%zu,%s,%u,%u,%llu,%zu,%lu,%zu,", r->size,
		row->channels ? "dcbm" : "cpu", row->channels, nr,
		(unsigned long long)m->ns, r->len, offloaded, batch);
	if (latency->first_us >= 0)
		fprintf(csv, "%ld", latency->first_us);
	fprintf(csv, ",");
	if (latency->max_us >= 0)
		fprintf(csv, "%ld", latency->max_us);
	fprintf(csv, "\n");
}

static bool run_moves(const struct row *row, struct region *r, struct move *m,
		      size_t batch, struct cell *cell)
{
	const unsigned int nr_moves = 2 * rounds * (trace_latency ? 2 : 1);
	unsigned int i = 0, attempt = 0, nr_rates = 0, nr_firsts = 0;
	double sum = 0, squares = 0, firsts = 0;

	*cell = (struct cell) {
		.offloaded = dcbm_present() ? 0 : -1,
		.first_us = -1,
	};

	while (i < nr_moves) {
		const int from = i & 1 ? node_b : node_a;
		const int to = i & 1 ? node_a : node_b;
		/* Tracing takes time, so the throughput is that of other rounds. */
		const bool traced = trace_latency && i & 2;
		struct latency latency = { .first_us = -1, .max_us = -1 };
		enum move_result result;
		unsigned long offloaded;
		double rate;

		check_interrupted();
		if (attempt && !region_renew(r, from))
			return false;

		if (traced)
			latency_begin(r);
		result = run_move(r, m, from, to, &offloaded);
		if (traced)
			latency_end(r, &latency);

		switch (result) {
		case MOVE_FAILED:
			return false;
		case MOVE_SPLIT:
			if (++attempt == MAX_ATTEMPTS)
				return false;
			compact_nodes(true);
			continue;
		case MOVE_OK:
			break;
		}
		attempt = 0;
		i++;

		cell->moved += m->nr;
		if (cell->offloaded >= 0)
			cell->offloaded += offloaded;
		if (csv && (!traced || latency.first_us >= 0))
			write_csv(row, r, m, batch, i, offloaded, &latency);
		if (traced) {
			if (latency.first_us >= 0) {
				firsts += latency.first_us;
				nr_firsts++;
			}
			continue;
		}
		rate = (double)r->len / m->ns;
		sum += rate;
		squares += rate * rate;
		nr_rates++;
	}

	cell->mean = sum / nr_rates;
	squares -= sum * cell->mean;
	/* Rounding may leave a little less than nothing. */
	if (squares > 0)
		cell->stddev = sqrt(squares / (nr_rates - 1));
	if (nr_firsts)
		cell->first_us = firsts / nr_firsts;
	cell->measured = true;
	return true;
}

/* @batch is what may be in a batch, or without such a limit in a call, if not 0 */
static void run_cell(const struct row *row, const char *name, size_t size,
		     size_t batch, struct cell *cell)
{
	const char *reason = size_unsupported(size);
	unsigned long room;
	struct region r;
	struct move m;
	char copied[64];
	bool passed;

	if (reason) {
		ksft_test_result_skip("%s: %s\n", name, reason);
		return;
	}

	room = min(node_available(node_a), node_available(node_b));
	if (room < bench_bytes + bench_bytes / 4) {
		ksft_test_result_skip("%s: only %lu MB available on a node\n",
				      name, room >> 20);
		return;
	}

	if (batch && batch_limit_present() && batch_limit_set(batch)) {
		ksft_test_result_fail("%s: the limit cannot be set\n", name);
		return;
	}
	if (size > psize())
		compact_nodes(false);
	push_settings(size);
	if (!region_alloc(&r, size, bench_bytes)) {
		pop_settings();
		ksft_test_result_fail("%s: cannot get folios of this size\n",
				      name);
		return;
	}
	move_alloc(&m, r.nr);
	move_set_region(&m, &r);
	if (batch && !batch_limit_present())
		m.call = max(batch / size, 1);
	passed = run_moves(row, &r, &m, batch, cell);
	move_free(&m);
	region_free(&r);
	pop_settings();

	if (!passed) {
		ksft_test_result_fail("%s: see above\n", name);
		return;
	}

	if (cell->offloaded < 0)
		snprintf(copied, sizeof(copied), "copied by CPU");
	else
		snprintf(copied, sizeof(copied), "%ld offloaded", cell->offloaded);

	if (!row->channels && cell->offloaded > 0)
		ksft_test_result_fail("%s: %lu folios moved, %s while offloading is off\n",
				      name, cell->moved, copied);
	else if (row->channels && cell->offloaded <= 0)
		ksft_test_result_fail("%s: %lu folios moved, none offloaded\n",
				      name, cell->moved);
	else if (row->channels && all_offloaded &&
		 (unsigned long)cell->offloaded < cell->moved)
		ksft_test_result_fail("%s: %lu folios moved, only %s\n",
				      name, cell->moved, copied);
	else
		ksft_test_result_pass("%s: %lu folios moved, %s, content verified\n",
				      name, cell->moved, copied);
}

/* ---- tables ------------------------------------------------------------ */

#define CELL_WIDTH	17
#define LABEL_WIDTH	16
#define LINE_SIZE	1024	/* more than MAX_SIZES or MAX_ROWS cells take */

/* Append @s, centred by what it looks like: UTF-8 has more bytes than that. */
static void append_cell(char *line, size_t len, const char *s)
{
	int width = 0, pad;
	const char *p;

	for (p = s; *p; p++)
		width += (*p & 0xc0) != 0x80;
	pad = width < CELL_WIDTH ? CELL_WIDTH - width : 0;

	len -= strlen(line);
	line += strlen(line);
	snprintf(line, len, "%*s%s%*s|", pad / 2, "", s, pad - pad / 2, "");
}

typedef void (*cell_text)(const struct cell *cell, char *buf, size_t len);

static void throughput_text(const struct cell *cell, char *buf, size_t len)
{
	const int d = decimals(cell->mean);

	snprintf(buf, len, "%.*f±%.*f", d, cell->mean, d, cell->stddev);
}

static void offloaded_text(const struct cell *cell, char *buf, size_t len)
{
	snprintf(buf, len, "%lu/%lu", cell->offloaded > 0 ? cell->offloaded : 0UL,
		 cell->moved);
}

static void latency_text(const struct cell *cell, char *buf, size_t len)
{
	int n = snprintf(buf, len, "%.*f | ", decimals(cell->mean), cell->mean);

	if (cell->first_us < 0)
		snprintf(buf + n, len - n, "-");
	else
		snprintf(buf + n, len - n, "%.0f", cell->first_us);
}

static void append_measured(char *line, size_t len, const struct cell *cell,
			    cell_text text)
{
	char buf[64] = "-";

	if (cell->measured)
		text(cell, buf, sizeof(buf));
	append_cell(line, len, buf);
}

static void print_table(const char *title, cell_text text)
{
	char line[LINE_SIZE];
	int i, j;

	ksft_print_msg("\n");
	ksft_print_msg("%s\n", title);
	snprintf(line, sizeof(line), "%-*s|", LABEL_WIDTH, "");
	for (i = 0; i < nr_sizes; i++)
		append_cell(line, sizeof(line), size_name(sizes[i]));
	ksft_print_msg("%s\n", line);
	for (i = 0; i < nr_rows; i++) {
		snprintf(line, sizeof(line), "%-*s|", LABEL_WIDTH, rows[i].label);
		for (j = 0; j < nr_sizes; j++)
			append_measured(line, sizeof(line), &cells[0][i][j], text);
		ksft_print_msg("%s\n", line);
	}
}

static void print_batches(int size)
{
	char line[LINE_SIZE];
	int i, j;

	ksft_print_msg("\n");
	ksft_print_msg("%s folios by size of the %s: GB/s | first folio unmapped for (us)\n",
		       size_name(sizes[size]),
		       batch_limit_present() ? "batch" : "call");
	snprintf(line, sizeof(line), "%-*s|", LABEL_WIDTH, "");
	for (i = 0; i < nr_rows; i++)
		append_cell(line, sizeof(line), rows[i].label);
	ksft_print_msg("%s\n", line);
	for (i = 0; i < nr_batches; i++) {
		snprintf(line, sizeof(line), "%-*s|", LABEL_WIDTH,
			 size_name(batches[i]));
		for (j = 0; j < nr_rows; j++)
			append_measured(line, sizeof(line), &cells[i][j][size],
					latency_text);
		ksft_print_msg("%s\n", line);
	}
}

static void print_tables(void)
{
	int i;

	if (batches[0]) {
		for (i = 0; i < nr_sizes; i++)
			print_batches(i);
	} else {
		print_table("Throughput of move_pages() in GB/s, by folio size (mean±stddev):",
			    throughput_text);
		print_table("Folios offloaded / folios moved:", offloaded_text);
	}
	ksft_print_msg("\n");
}

static void add_row(unsigned int nr)
{
	struct row *row = &rows[nr_rows++];

	row->channels = nr;
	if (nr)
		snprintf(row->label, sizeof(row->label), "dcbm %u channel%s",
			 nr, nr == 1 ? "" : "s");
	else
		snprintf(row->label, sizeof(row->label), "CPU");
}

static void run_row(int i)
{
	const struct row *row = &rows[i];
	char why[64] = "", name[64];
	enum row_state state;
	int j, b;

	state = dcbm_setup(row, why, sizeof(why));
	for (j = 0; j < nr_sizes; j++) {
		for (b = 0; b < nr_batches; b++) {
			int n = snprintf(name, sizeof(name), "%s %s",
					 size_name(sizes[j]), row->label);

			if (batches[b])
				snprintf(name + n, sizeof(name) - n, " by %s",
					 size_name(batches[b]));
			check_interrupted();
			if (state == ROW_RUN)
				run_cell(row, name, sizes[j], batches[b],
					 &cells[b][i][j]);
			else if (state == ROW_SKIP)
				ksft_test_result_skip("%s: %s\n", name, why);
			else
				ksft_test_result_fail("%s: %s\n", name, why);
		}
	}
}

static void prepare_latency(void)
{
	const char *why = latency_open();

	trace_latency = !why;
	if (why)
		ksft_print_msg("no latency: %s\n", why);
}

static void prepare_batches(void)
{
	if (batch_limit_present())
		batch_limit_save();
	else
		ksft_print_msg("no limit of batches: less memory a call instead\n");
}

static void run_tables(void)
{
	int i;

	if (run_dcbm && dcbm_required && !dcbm_present())
		ksft_exit_skip("dcbm is not loaded\n");

	if (run_cpu)
		add_row(0);
	for (i = 0; run_dcbm && i < nr_channels; i++)
		add_row(channels[i]);

	ksft_set_plan(nr_rows * nr_sizes * nr_batches);
	ksft_print_msg("%s between node %d and node %d, %u rounds each way, seed %#llx\n",
		       size_name(bench_bytes), node_a, node_b, rounds,
		       (unsigned long long)seed);
	if (dcbm_present()) {
		dcbm_save();
		dcbm_show();
	}
	if (batches[0] || csv)
		prepare_latency();
	if (batches[0])
		prepare_batches();
	if (csv)
		fprintf(csv, "size,mode,channels,round,ns,bytes,offloaded,batch,first_us,max_us\n");

	for (i = 0; i < nr_rows; i++)
		run_row(i);

	if (dcbm_restore())
		ksft_exit_fail_msg("the parameters of dcbm could not be restored\n");
	if (batch_limit_restore())
		ksft_exit_fail_msg("the limit of batches could not be restored\n");
	print_tables();
}

/* ---- moving for a while ------------------------------------------------ */

/* How many folios were on @node when the last move had ended */
static size_t nr_left_on(const struct move *m, int node)
{
	size_t i, nr = 0;

	for (i = 0; i < m->nr; i++)
		nr += m->query[i] == node;
	return nr;
}

static void run_stress(void)
{
	unsigned long moves = 0, moved = 0, unmoved = 0, split = 0;
	struct region regions[MAX_SIZES];
	uint64_t end, calls_ns = 0, longest_ns = 0;
	size_t nr_folios = 0, i, there;
	int nr = 0, j, node;
	bool ok = true;
	struct move m;

	ksft_set_plan(1);
	ksft_print_msg("moving for %u s between node %d and node %d, seed %#llx\n",
		       stress_seconds, node_a, node_b, (unsigned long long)seed);

	/* No large folios but those which are asked for below */
	push_settings(psize());
	for (j = 0; j < nr_sizes; j++) {
		const char *reason = size_unsupported(sizes[j]);
		const size_t bytes = max(bench_bytes / nr_sizes, sizes[j]);

		if (reason) {
			ksft_print_msg("without %s: %s\n", size_name(sizes[j]),
				       reason);
			continue;
		}
		push_settings(sizes[j]);
		if (!region_alloc(&regions[nr], sizes[j], bytes))
			ksft_exit_fail_msg("cannot get folios of %s\n",
					   size_name(sizes[j]));
		pop_settings();
		nr_folios += regions[nr++].nr;
	}
	if (!nr)
		ksft_exit_skip("none of these folio sizes exists here\n");

	/* Mix the sizes, so that they share batches. */
	move_alloc(&m, nr_folios);
	m.nr = 0;
	for (i = 0; m.nr < nr_folios; i++)
		for (j = 0; j < nr; j++)
			if (i < regions[j].nr)
				m.addrs[m.nr++] = regions[j].mem +
						  i * regions[j].size;

	ksft_print_msg("begin: %zu folios\n", m.nr);
	end = now_ns() + stress_seconds * 1000000000ULL;
	node = node_b;
	/* There and back at least once */
	while (ok && !FORCE_READ(interrupted) && (moves < 2 || now_ns() < end)) {
		generation++;
		for (j = 0; j < nr; j++)
			region_fill(&regions[j], generation);

		/* What could not be moved away has not to be moved back */
		there = moves ? nr_left_on(&m, node) : 0;
		ok = move_to(&m, node, keep_going);
		moves++;
		calls_ns += m.ns;
		longest_ns = max(longest_ns, m.ns);
		unmoved += m.unmoved;
		moved += m.nr - m.unmoved - there;
		if (m.unmoved && !keep_going) {
			ksft_print_msg("%zu folios could not be moved\n",
				       m.unmoved);
			ok = false;
		}

		for (j = 0; j < nr; j++) {
			struct region *r = &regions[j];
			size_t lost;

			if (!region_verify(r, generation))
				ok = false;
			lost = r->nr - count_folios(r, NULL);
			if (!lost)
				continue;
			/* Get them again, or ever less would be moved. */
			split += lost;
			push_settings(r->size);
			if (!region_get(r, node) && !keep_going)
				ok = false;
			pop_settings();
		}
		node = node == node_a ? node_b : node_a;
	}

	ksft_print_msg("%lu moves of %zu folios: %lu folios moved, %lu not moved, %lu split\n",
		       moves, m.nr, moved, unmoved, split);
	ksft_print_msg("%.3f s of that in move_pages(), %.3f s in the longest\n",
		       calls_ns / 1e9, longest_ns / 1e9);
	if (!moved)
		ok = false;
	ksft_test_result(ok, "%lu moves: %lu folios moved, %lu not moved, content %s\n",
			 moves, moved, unmoved, ok ? "verified" : "or moves wrong");
	move_free(&m);
	for (j = 0; j < nr; j++)
		region_free(&regions[j]);
	pop_settings();
}

/* ---- hugetlb ----------------------------------------------------------- */

/*
 * A huge page whose target node has no free one is moved to a freshly
 * allocated "temporary" page. That mark lives in the private word of the
 * destination folio, where migration keeps its own notes about folios that
 * are not hugetlb: one must not be taken for the other.
 */

struct hugetlb_node {
	int node;
	unsigned long saved;
	bool touched;
};

static struct hugetlb_node hugetlb_nodes[2];
static unsigned long hugetlb_size, saved_overcommit;
static bool overcommit_touched;

static void hugetlb_path(char *path, size_t len, int node, const char *attr)
{
	snprintf(path, len, NODE_SYSFS "node%d/hugepages/hugepages-%lukB/%s",
		 node, hugetlb_size >> 10, attr);
}

static unsigned long hugetlb_get(int node, const char *attr)
{
	char path[192];

	hugetlb_path(path, sizeof(path), node, attr);
	return read_num(path);
}

/* Pages which count as persistent, which is what nr_hugepages takes */
static unsigned long hugetlb_persistent(int node)
{
	return hugetlb_get(node, "nr_hugepages") -
	       hugetlb_get(node, "surplus_hugepages");
}

static int hugetlb_set(struct hugetlb_node *n, unsigned long nr)
{
	char path[192], val[32];

	hugetlb_path(path, sizeof(path), n->node, "nr_hugepages");
	snprintf(val, sizeof(val), "%lu", nr);
	n->touched = true;
	return write_text(path, val);
}

/* Give the free huge pages of a node back; false if it keeps some. */
static bool hugetlb_drain(struct hugetlb_node *n)
{
	unsigned long free = hugetlb_get(n->node, "free_hugepages");

	if (free)
		hugetlb_set(n, hugetlb_persistent(n->node) - free);
	return !hugetlb_get(n->node, "free_hugepages");
}

static void hugetlb_overcommit_path(char *path, size_t len)
{
	snprintf(path, len,
		 "/sys/kernel/mm/hugepages/hugepages-%lukB/nr_overcommit_hugepages",
		 hugetlb_size >> 10);
}

static void hugetlb_restore(void)
{
	char path[128], val[32];
	unsigned int i;

	if (overcommit_touched) {
		hugetlb_overcommit_path(path, sizeof(path));
		snprintf(val, sizeof(val), "%lu", saved_overcommit);
		write_text(path, val);
		overcommit_touched = false;
	}
	for (i = 0; i < ARRAY_SIZE(hugetlb_nodes); i++) {
		struct hugetlb_node *n = &hugetlb_nodes[i];

		if (n->touched)
			hugetlb_set(n, n->saved);
		n->touched = false;
	}
}

static bool hugetlb_is_huge(const struct region *r, size_t i)
{
	unsigned long pfn = pagemap_get_pfn(pagemap_fd, r->mem + i * r->size);
	uint64_t flags;

	return pfn != -1UL && !pageflags_get(pfn, kpageflags_fd, &flags) &&
	       (flags & KPF_HUGE);
}

static void run_hugetlb(void)
{
	struct hugetlb_node *from = &hugetlb_nodes[0], *to = &hugetlb_nodes[1];
	const unsigned long nr = 4;
	unsigned long temporary = 0, want;
	char path[192], val[32];
	struct region r = { };
	struct move m;
	bool ok = true;
	unsigned int i;

	hugetlb_size = default_huge_page_size();
	if (!hugetlb_size)
		ksft_exit_skip("no hugetlb pages\n");
	if (hugetlb_size > 64UL << 20)
		ksft_exit_skip("hugetlb pages of %s are too large for this test\n",
			       size_name(hugetlb_size));
	from->node = node_a;
	to->node = node_b;
	for (i = 0; i < ARRAY_SIZE(hugetlb_nodes); i++) {
		hugetlb_path(path, sizeof(path), hugetlb_nodes[i].node,
			     "nr_hugepages");
		if (access(path, W_OK))
			ksft_exit_skip("no %s\n", path);
		hugetlb_nodes[i].saved = hugetlb_persistent(hugetlb_nodes[i].node);
	}
	hugetlb_overcommit_path(path, sizeof(path));
	saved_overcommit = read_num(path);
	atexit(hugetlb_restore);

	overcommit_touched = true;
	snprintf(val, sizeof(val), "%lu", max(saved_overcommit, 2 * nr));
	if (write_text(path, val))
		ksft_exit_skip("cannot set nr_overcommit_hugepages\n");

	for (i = 0; i < MAX_ATTEMPTS; i++) {
		unsigned long free = hugetlb_get(from->node, "free_hugepages");

		if (free >= nr)
			break;
		want = hugetlb_persistent(from->node) + nr - free;
		if (i)
			compact_nodes(i > 1);
		if (hugetlb_set(from, want))
			ksft_exit_skip("cannot set nr_hugepages of node %d\n",
				       from->node);
	}
	if (hugetlb_get(from->node, "free_hugepages") < nr)
		ksft_exit_skip("cannot get %lu huge pages on node %d\n", nr,
			       from->node);

	ksft_set_plan(1);
	r.size = hugetlb_size;
	r.nr = nr;
	r.len = nr * hugetlb_size;
	r.map_len = r.len;
	r.map = mmap(NULL, r.len, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (r.map == MAP_FAILED)
		ksft_exit_fail_perror("mmap of huge pages");
	r.mem = r.map;
	if (bind_to_node(r.mem, r.len, from->node))
		ksft_exit_fail_msg("mbind of huge pages failed\n");

	region_fill(&r, ++generation);
	move_alloc(&m, nr);
	move_set_region(&m, &r);
	if (!move_all_on(&m, from->node))
		ksft_exit_fail_msg("the huge pages are not on node %d\n",
				   from->node);
	for (i = 0; i < nr; i++)
		if (!hugetlb_is_huge(&r, i))
			ksft_exit_fail_msg("%p is no hugetlb page\n", m.addrs[i]);

	for (i = 0; ok && i < 2 * rounds; i++) {
		struct hugetlb_node *n = i & 1 ? from : to;

		check_interrupted();
		if (!hugetlb_drain(n)) {
			ksft_print_msg("node %d keeps free huge pages\n", n->node);
			ok = false;
			break;
		}
		region_fill(&r, ++generation);
		ok = move_to(&m, n->node, false);
		if (!region_verify(&r, generation))
			ok = false;
		if (m.unmoved) {
			ksft_print_msg("%zu of %zu huge pages did not move to node %d\n",
				       m.unmoved, m.nr, n->node);
			ok = false;
		}
		/* No page was free there, so each had to be allocated. */
		temporary += m.nr - m.unmoved;
	}

	region_free(&r);
	move_free(&m);
	hugetlb_restore();
	ksft_test_result(ok, "hugetlb %s: %lu pages moved to temporary pages, content %s\n",
			 size_name(hugetlb_size), temporary,
			 ok ? "verified" : "or moves wrong");
}

/* ---- command line ------------------------------------------------------ */

static void print_usage(FILE *f)
{
	static const char text[] =
		"usage: bench [options]\n"
		"\n"
		"Move folios between two memory nodes by move_pages(2), with copy offload\n"
		"(dcbm) and without, measure it and verify every byte after every move.\n"
		"\n"
		"  -s, --sizes LIST     folio sizes (4K,16K,64K,256K,1M,2M)\n"
		"  -b, --bytes SIZE     memory for each folio size (32M)\n"
		"  -r, --rounds N       moves in each direction (3)\n"
		"  -m, --mode MODE      cpu, dcbm, or both (both)\n"
		"  -c, --channels LIST  numbers of DMA channels to use (1,2,4)\n"
		"  -a, --all            fail unless dcbm copied every folio\n"
		"  -n, --nodes A,B      memory nodes (the first two)\n"
		"  -N, --batch LIST     for each folio size, by the limit of a batch instead, such\n"
		"                       as 512K,2M,8M: throughput, and for how long the first\n"
		"                       folio is not mapped; where there is no such limit, by\n"
		"                       the memory that a call of move_pages() gets\n"
		"  -x, --csv FILE       write each move to FILE: size,mode,channels,round,ns,\n"
		"                       bytes,offloaded,batch,first_us,max_us. As many moves\n"
		"                       again are traced. They alone have first_us, for how long\n"
		"                       the first folio was not mapped, and max_us, the longest\n"
		"                       time of any folio, which is empty if events were lost\n"
		"  -t, --time SECONDS   no tables: move all sizes, mixed, back and forth for\n"
		"                       that long or until a signal, without any change of the\n"
		"                       parameters of dcbm; -b is the memory for all sizes\n"
		"  -k, --keep-going     with -t: go on if folios cannot be moved\n"
		"  -H, --hugetlb        no tables: move hugetlb pages to a node without free\n"
		"                       ones, without any change of the parameters of dcbm\n"
		"  -S, --seed N         seed of the pattern (from the clock)\n"
		"  -h, --help           this text\n";

	fputs(text, f);
}

static void __noreturn __printf(1, 2) usage_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "bench: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "\nTry 'bench --help'.\n");
	va_end(args);
	exit(EXIT_USAGE);
}

/* A whole number within bounds, which ends at @end */
static bool parse_number(const char *s, unsigned long long lo,
			 unsigned long long hi, unsigned long long *val,
			 char **end)
{
	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*val = strtoull(s, end, 0);
	return !errno && *val >= lo && *val <= hi;
}

static unsigned long long number_arg(const char *what, const char *s,
				     unsigned long long lo,
				     unsigned long long hi)
{
	unsigned long long val;
	char *end;

	if (!parse_number(s, lo, hi, &val, &end) || *end)
		usage_error("%s: '%s' is not a number from %llu to %llu", what,
			    s, lo, hi);
	return val;
}

/* A size such as 64K or 2M */
static size_t size_arg(const char *s)
{
	unsigned long long val;
	unsigned int shift = 0;
	char *end;

	if (!parse_number(s, 1, 1ULL << 40, &val, &end))
		usage_error("'%s' is not a size", s);
	switch (*end) {
	case 'k':
	case 'K':
		shift = 10;
		break;
	case 'm':
	case 'M':
		shift = 20;
		break;
	case 'g':
	case 'G':
		shift = 30;
		break;
	}
	if (shift)
		end++;
	if (*end || val > (1ULL << 40) >> shift || val << shift > SIZE_MAX)
		usage_error("'%s' is not a size", s);
	return val << shift;
}

/* Call @add for each item of a comma separated list. */
static void parse_list(const char *what, const char *list,
		       void (*add)(const char *item))
{
	char *copy = strdup(list), *rest = copy, *item;

	if (!copy)
		ksft_exit_fail_msg("out of memory\n");
	while ((item = strsep(&rest, ","))) {
		if (!*item)
			usage_error("%s: empty item in '%s'", what, list);
		add(item);
	}
	free(copy);
}

static void add_size(const char *item)
{
	size_t size = size_arg(item);
	int i;

	if (size & (size - 1))
		usage_error("'%s' is not a power of two", item);
	if (size < 1024)
		usage_error("'%s' is no folio size", item);
	for (i = 0; i < nr_sizes; i++)
		if (sizes[i] == size)
			usage_error("folio size %s is there twice", item);
	if (nr_sizes == MAX_SIZES)
		usage_error("too many folio sizes");
	sizes[nr_sizes++] = size;
}

static void add_batch(const char *item)
{
	if (nr_batches == MAX_BATCHES)
		usage_error("too many batch sizes");
	batches[nr_batches++] = size_arg(item);
}

static void add_channels(const char *item)
{
	if (nr_channels == ARRAY_SIZE(channels))
		usage_error("too many numbers of channels");
	channels[nr_channels++] = number_arg("--channels", item, 1, 4096);
}

static void add_nodes(const char *item)
{
	int node = number_arg("--nodes", item, 0, MAX_NODES - 1);

	if (node_a < 0)
		node_a = node;
	else if (node_b < 0)
		node_b = node;
	else
		usage_error("--nodes wants two nodes");
}

static void parse_mode(const char *mode)
{
	if (!strcmp(mode, "cpu")) {
		run_dcbm = false;
	} else if (!strcmp(mode, "dcbm")) {
		run_cpu = false;
		dcbm_required = true;
	} else if (strcmp(mode, "both")) {
		usage_error("mode '%s' is none of cpu, dcbm, both", mode);
	}
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "sizes", required_argument, NULL, 's' },
		{ "bytes", required_argument, NULL, 'b' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "mode", required_argument, NULL, 'm' },
		{ "channels", required_argument, NULL, 'c' },
		{ "all", no_argument, NULL, 'a' },
		{ "nodes", required_argument, NULL, 'n' },
		{ "batch", required_argument, NULL, 'N' },
		{ "csv", required_argument, NULL, 'x' },
		{ "time", required_argument, NULL, 't' },
		{ "keep-going", no_argument, NULL, 'k' },
		{ "hugetlb", no_argument, NULL, 'H' },
		{ "seed", required_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *csv_path = NULL;
	int opt, i;

	seed = now_ns() * 0x9e3779b97f4a7c15ULL ^ getpid();

	while ((opt = getopt_long(argc, argv, "s:b:r:m:c:an:N:x:t:kHS:h", options,
				  NULL)) != -1) {
		switch (opt) {
		case 's':
			nr_sizes = 0;
			parse_list("--sizes", optarg, add_size);
			break;
		case 'b':
			bench_bytes = size_arg(optarg);
			break;
		case 'r':
			rounds = number_arg("--rounds", optarg, 1, 1000000);
			break;
		case 'm':
			run_cpu = true;
			run_dcbm = true;
			dcbm_required = false;
			parse_mode(optarg);
			break;
		case 'c':
			nr_channels = 0;
			parse_list("--channels", optarg, add_channels);
			break;
		case 'a':
			all_offloaded = true;
			break;
		case 'n':
			node_a = -1;
			node_b = -1;
			parse_list("--nodes", optarg, add_nodes);
			if (node_b < 0 || node_a == node_b)
				usage_error("--nodes wants two nodes");
			break;
		case 'N':
			nr_batches = 0;
			parse_list("--batch", optarg, add_batch);
			break;
		case 'x':
			csv_path = optarg;
			break;
		case 't':
			stress_seconds = number_arg("--time", optarg, 1, 1000000);
			break;
		case 'k':
			keep_going = true;
			break;
		case 'H':
			hugetlb_only = true;
			break;
		case 'S':
			seed = number_arg("--seed", optarg, 0, UINT64_MAX);
			break;
		case 'h':
			print_usage(stdout);
			exit(KSFT_PASS);
		default:
			usage_error("see above");
		}
	}
	if (optind < argc)
		usage_error("unexpected argument '%s'", argv[optind]);
	if (keep_going && !stress_seconds)
		usage_error("--keep-going goes with --time");
	if (hugetlb_only && stress_seconds)
		usage_error("--hugetlb and --time exclude each other");
	if (csv_path && (hugetlb_only || stress_seconds))
		usage_error("--csv goes with the tables");

	if (!nr_sizes)
		parse_list("--sizes", "4K,16K,64K,256K,1M,2M", add_size);
	if (!nr_channels)
		parse_list("--channels", "1,2,4", add_channels);
	for (i = 0; i < nr_sizes; i++)
		if (bench_bytes < sizes[i])
			usage_error("--bytes %s holds no folio of %s",
				    size_name(bench_bytes), size_name(sizes[i]));

	if (csv_path) {
		csv = fopen(csv_path, "w");
		if (!csv)
			usage_error("%s: %s", csv_path, strerror(errno));
	}
}

int main(int argc, char **argv)
{
	parse_options(argc, argv);

	ksft_print_header();
	migrate_offload_setup();
	/* Finish at a known place rather than inside of a signal handler. */
	catch_signals();

	if (stress_seconds)
		run_stress();
	else if (hugetlb_only)
		run_hugetlb();
	else
		run_tables();

	if (csv && fclose(csv))
		ksft_exit_fail_msg("cannot write the CSV file\n");
	ksft_finished();
}
