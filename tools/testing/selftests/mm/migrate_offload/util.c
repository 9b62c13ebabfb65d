// SPDX-License-Identifier: GPL-2.0
/*
 * What the tests of the migration copy offload have in common: folios of an
 * exactly known size on a given node, their content, moving them, and the
 * parameters of dcbm.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
#include "util.h"

#define MAX_WRONG_SHOWN	8

/* No errno and no node: the kernel wrote nothing to this place of status[] */
#define STATUS_UNTOUCHED	INT_MIN

uint64_t seed;
int node_a = -1, node_b = -1;
int pagemap_fd, kpageflags_fd;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

const char *size_name(size_t size)
{
	static char bufs[4][24];
	static int next;
	char *buf = bufs[next++ % ARRAY_SIZE(bufs)];

	if (size >= 1UL << 20 && !(size & ((1UL << 20) - 1)))
		snprintf(buf, sizeof(bufs[0]), "%zuM", size >> 20);
	else
		snprintf(buf, sizeof(bufs[0]), "%zuK", size >> 10);
	return buf;
}

/* Of process @pid, or our own memory if it is 0 */
long move_pages_of(pid_t pid, size_t nr, void **addrs, const int *nodes,
		   int *status, int flags)
{
	return syscall(__NR_move_pages, pid, nr, addrs, nodes, status, flags);
}

long move_pages(size_t nr, void **addrs, const int *nodes, int *status)
{
	return move_pages_of(0, nr, addrs, nodes, status,
			     nodes ? MPOL_MF_MOVE : 0);
}

/* Read a small file, without the newline at its end. Return 0 or -errno. */
int read_text(const char *path, char *buf, size_t len)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	if (n < 0) {
		n = -errno;
		close(fd);
		return n;
	}
	close(fd);
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	return 0;
}

/* The helpers of vm_util exit when a write fails; here an errno is wanted. */
int write_text(const char *path, const char *val)
{
	ssize_t n;
	int fd;

	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	n = write(fd, val, strlen(val));
	if (n < 0)
		n = -errno;
	else
		n = n == (ssize_t)strlen(val) ? 0 : -EIO;
	close(fd);
	return n;
}

/* ---- memory nodes ------------------------------------------------------ */

static void add_node_list(const char *list, bool *set)
{
	const char *p = list;

	while (*p) {
		char *end;
		long a, b;

		a = strtol(p, &end, 10);
		if (end == p)
			return;
		b = a;
		if (*end == '-') {
			p = end + 1;
			b = strtol(p, &end, 10);
			if (end == p)
				return;
		}
		for (; a <= b; a++)
			if (a >= 0 && a < MAX_NODES)
				set[a] = true;
		if (*end != ',')
			return;
		p = end + 1;
	}
}

/* Mark the nodes which have memory and which this task may use. */
static bool usable_nodes(bool *usable)
{
	static bool has_memory[MAX_NODES], allowed[MAX_NODES];
	const char *key = "Mems_allowed_list:";
	char buf[4096];
	FILE *f;
	int i;

	if (read_text(NODE_SYSFS "has_memory", buf, sizeof(buf)))
		return false;
	add_node_list(buf, has_memory);

	f = fopen("/proc/self/status", "r");
	if (f && check_for_pattern(f, key, buf, sizeof(buf))) {
		char *p = buf + strlen(key);

		add_node_list(p + strspn(p, " \t"), allowed);
	} else {
		memset(allowed, 1, sizeof(allowed));
	}
	if (f)
		fclose(f);

	for (i = 0; i < MAX_NODES; i++)
		usable[i] = has_memory[i] && allowed[i];
	return true;
}

static void choose_nodes(void)
{
	static bool usable[MAX_NODES];
	int i;

	if (!usable_nodes(usable))
		ksft_exit_skip("no NUMA: " NODE_SYSFS "has_memory is missing\n");

	if (node_a >= 0) {
		if (!usable[node_a] || !usable[node_b])
			ksft_exit_skip("node %d or %d has no memory or is not allowed\n",
				       node_a, node_b);
		return;
	}

	for (i = 0; i < MAX_NODES; i++) {
		if (!usable[i])
			continue;
		if (node_a < 0) {
			node_a = i;
		} else {
			node_b = i;
			return;
		}
	}
	ksft_exit_skip("needs two nodes with memory\n");
}

/* Free memory and page cache of a node in bytes, 0 if it cannot be told */
unsigned long node_available(int node)
{
	unsigned long kb, sum = 0;
	char path[128], line[256];
	FILE *f;

	snprintf(path, sizeof(path), NODE_SYSFS "node%d/meminfo", node);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Node %*d MemFree: %lu", &kb) == 1 ||
		    sscanf(line, "Node %*d Active(file): %lu", &kb) == 1 ||
		    sscanf(line, "Node %*d Inactive(file): %lu", &kb) == 1)
			sum += kb << 10;
	fclose(f);
	return sum;
}

/* Make room for large folios on both nodes; best effort. */
void compact_nodes(bool drop_caches)
{
	char path[128];

	if (drop_caches)
		write_text("/proc/sys/vm/drop_caches", "3");
	snprintf(path, sizeof(path), NODE_SYSFS "node%d/compact", node_a);
	write_text(path, "1");
	snprintf(path, sizeof(path), NODE_SYSFS "node%d/compact", node_b);
	write_text(path, "1");
}

/* @flags are those of mbind(2). Return 0 or -errno. */
int mbind_to_node(void *addr, size_t len, int node, unsigned int flags)
{
	unsigned long mask[MAX_NODES / (8 * sizeof(long))] = { 0 };
	const unsigned int bits = 8 * sizeof(long);

	mask[node / bits] = 1UL << (node % bits);
	if (syscall(__NR_mbind, addr, len, MPOL_BIND, mask, MAX_NODES + 1,
		    flags))
		return -errno;
	return 0;
}

int bind_to_node(void *addr, size_t len, int node)
{
	return mbind_to_node(addr, len, node, 0);
}

/* ---- parameters of dcbm ------------------------------------------------ */

static char saved_offloading[8], saved_channels[32];
static bool dcbm_touched;

bool dcbm_present(void)
{
	return !access(DCBM_PARAMS "offloading", F_OK);
}

int dcbm_read(const char *name, char *buf, size_t len)
{
	char path[128];

	snprintf(path, sizeof(path), DCBM_PARAMS "%s", name);
	return read_text(path, buf, len);
}

int dcbm_write(const char *name, const char *val)
{
	char path[128];
	int err;

	snprintf(path, sizeof(path), DCBM_PARAMS "%s", name);
	err = write_text(path, val);
	if (err)
		ksft_print_msg("cannot write %s to dcbm's %s: %s\n", val, name,
			       strerror(-err));
	return err;
}

bool dcbm_counter(const char *name, unsigned long *val)
{
	char buf[32], *end;

	if (dcbm_read(name, buf, sizeof(buf)))
		return false;
	errno = 0;
	*val = strtoul(buf, &end, 10);
	return end != buf && !*end && !errno;
}

int dcbm_restore(void)
{
	int err;

	if (!dcbm_touched)
		return 0;
	dcbm_touched = false;

	err = dcbm_write("offloading", "N");
	if (!err)
		err = dcbm_write("nr_dma_chan", saved_channels);
	if (!err && saved_offloading[0] == 'Y')
		err = dcbm_write("offloading", "Y");
	return err;
}

static void dcbm_restore_atexit(void)
{
	dcbm_restore();
}

void dcbm_save(void)
{
	if (dcbm_read("offloading", saved_offloading, sizeof(saved_offloading)) ||
	    dcbm_read("nr_dma_chan", saved_channels, sizeof(saved_channels)))
		ksft_exit_fail_msg("cannot read the parameters of dcbm\n");
	dcbm_touched = true;
	atexit(dcbm_restore_atexit);
}

void dcbm_show(void)
{
	static const char * const names[] = {
		"remote", "patience_ms", "timeout_ms",
	};
	static const char * const knobs[] = {
		"reasons", "min_folio_bytes", "min_batch_bytes", "chunk_bytes",
		"share",
	};
	char buf[256], path[128];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!dcbm_read(names[i], buf, sizeof(buf)))
			ksft_print_msg("dcbm %s: %s\n", names[i], buf);
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		snprintf(path, sizeof(path), KNOBS "%s", knobs[i]);
		if (!read_text(path, buf, sizeof(buf)))
			ksft_print_msg("migrate %s: %s\n", knobs[i], buf);
	}
}

/* Number of claimed channels: one line each, but for engines passed over */
unsigned int dcbm_nr_claimed(void)
{
	unsigned int nr = 0;
	char line[256];
	FILE *f;

	f = fopen(DCBM_PARAMS "channels", "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (line[strspn(line, " \t\n")] && !strstr(line, " unfit: "))
			nr++;
	fclose(f);
	return nr;
}

/* ---- the limit of a batch ---------------------------------------------- */

static char saved_limit[32];
static bool limit_touched;

bool batch_limit_present(void)
{
	return !access(CHUNK_BYTES, F_OK);
}

int batch_limit_restore(void)
{
	if (!limit_touched)
		return 0;
	limit_touched = false;
	return write_text(CHUNK_BYTES, saved_limit);
}

static void batch_limit_restore_atexit(void)
{
	batch_limit_restore();
}

void batch_limit_save(void)
{
	if (read_text(CHUNK_BYTES, saved_limit, sizeof(saved_limit)))
		ksft_exit_fail_msg("cannot read %s\n", CHUNK_BYTES);
	limit_touched = true;
	atexit(batch_limit_restore_atexit);
}

int batch_limit_set(size_t bytes)
{
	char buf[32];

	snprintf(buf, sizeof(buf), "%zu", bytes);
	return write_text(CHUNK_BYTES, buf);
}

/* ---- memory of an exact folio size ------------------------------------- */

/* Why folios of this size cannot be had here, or NULL */
const char *size_unsupported(size_t size)
{
	if (size < psize())
		return "smaller than a page";
	if (size == psize())
		return NULL;
	if (!thp_available())
		return "no transparent huge pages";
	if (thp_supported_orders() & (1UL << sz2ord(size, psize())))
		return NULL;
	if (size == read_pmd_pagesize())
		return NULL;
	return "no mTHP control for this size";
}

void push_settings(size_t size)
{
	struct thp_settings settings;
	int i;

	if (!thp_available())
		return;

	thp_read_settings(&settings);
	settings.thp_enabled = THP_NEVER;
	settings.thp_defrag = THP_DEFRAG_MADVISE;
	/* What is there shall stay as it is: keep khugepaged away. */
	settings.khugepaged.defrag = 0;
	settings.khugepaged.pages_to_scan = 1;
	settings.khugepaged.scan_sleep_millisecs = 3600 * 1000;
	for (i = 0; i < NR_ORDERS; i++)
		settings.hugepages[i].enabled = THP_NEVER;

	if (size > psize()) {
		int order = sz2ord(size, psize());

		if (thp_supported_orders() & (1UL << order))
			settings.hugepages[order].enabled = THP_MADVISE;
		else
			settings.thp_enabled = THP_MADVISE;
	}
	thp_push_settings(&settings);
}

void pop_settings(void)
{
	if (thp_available())
		thp_pop_settings();
}

static bool pread_all(int fd, void *buf, size_t len, off_t off)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, off);

		if (n <= 0)
			return false;
		buf = (char *)buf + n;
		len -= n;
		off += n;
	}
	return true;
}

/*
 * Is this one folio of exactly @nr pages? @map and @flags are the entries of
 * its pages in pagemap and kpageflags, @next the flags of the page behind it.
 */
static bool is_folio(const uint64_t *map, const uint64_t *flags, uint64_t next,
		     unsigned long nr)
{
	const uint64_t compound = KPF_COMPOUND_HEAD | KPF_COMPOUND_TAIL;
	const uint64_t pfn = PAGEMAP_PFN(map[0]);
	unsigned long i;

	if (nr == 1)
		return !(flags[0] & (compound | KPF_THP | KPF_HUGE));
	if (pfn & (nr - 1))
		return false;

	for (i = 0; i < nr; i++) {
		if (!PAGEMAP_PRESENT(map[i]) || PAGEMAP_PFN(map[i]) != pfn + i)
			return false;
		if (!(flags[i] & KPF_THP) || (flags[i] & KPF_HUGE))
			return false;
		if ((flags[i] & compound) !=
		    (i ? KPF_COMPOUND_TAIL : KPF_COMPOUND_HEAD))
			return false;
	}
	/* The folio must end here. */
	return !(next & KPF_COMPOUND_TAIL);
}

/*
 * Count the folios of the right size; @good, if given, tells which they are.
 */
size_t count_folios(const struct region *r, bool *good)
{
	const unsigned long nr = r->size / psize();
	uint64_t *map, *flags;
	size_t i, found = 0;

	map = malloc(nr * sizeof(*map));
	flags = malloc((nr + 1) * sizeof(*flags));
	if (!map || !flags)
		ksft_exit_fail_msg("out of memory\n");

	for (i = 0; i < r->nr; i++) {
		uintptr_t addr = (uintptr_t)r->mem + i * r->size;
		bool ok = false;

		if (!pread_all(pagemap_fd, map, nr * sizeof(*map),
			       addr / psize() * sizeof(*map)))
			ksft_exit_fail_msg("cannot read /proc/self/pagemap\n");

		if (PAGEMAP_PRESENT(map[0])) {
			off_t off = PAGEMAP_PFN(map[0]) * sizeof(*flags);

			if (!PAGEMAP_PFN(map[0]))
				ksft_exit_fail_msg("pagemap shows no frame numbers\n");
			if (!pread_all(kpageflags_fd, flags,
				       nr * sizeof(*flags), off))
				ksft_exit_fail_msg("cannot read /proc/kpageflags\n");
			/* Behind the last page of memory, no folio goes on. */
			if (!pread_all(kpageflags_fd, flags + nr,
				       sizeof(*flags),
				       off + nr * sizeof(*flags)))
				flags[nr] = 0;
			ok = is_folio(map, flags, flags[nr], nr);
		}
		if (good)
			good[i] = ok;
		found += ok;
	}
	free(map);
	free(flags);
	return found;
}

static void region_touch(const struct region *r, size_t i)
{
	size_t off;

	/* The first touch should get all of it; if it doesn't, get the rest. */
	for (off = 0; off < r->size; off += psize())
		r->mem[i * r->size + off] = 1;
}

/*
 * (Re)populate what is not there, or not of the right size, with some help
 * from compaction. THP settings must have been made. The memory wants large
 * folios for no longer than that, or khugepaged would collapse it to yet larger
 * ones while it is moved.
 */
static bool region_populate(struct region *r)
{
	size_t found = 0, i;
	int attempt;
	bool *good;

	if (r->size > psize() && madvise(r->mem, r->len, MADV_HUGEPAGE))
		ksft_exit_fail_perror("MADV_HUGEPAGE");

	good = calloc(r->nr, sizeof(*good));
	if (!good)
		ksft_exit_fail_msg("out of memory\n");

	found = count_folios(r, good);
	for (attempt = 0; found < r->nr && attempt < MAX_ATTEMPTS; attempt++) {
		if (attempt) {
			ksft_print_msg("%s: %zu of %zu folios have this size, compacting\n",
				       size_name(r->size), found, r->nr);
			compact_nodes(attempt > 1);
		}
		for (i = 0; i < r->nr; i++) {
			char *p = r->mem + i * r->size;

			if (good[i])
				continue;
			if (madvise(p, r->size, MADV_DONTNEED))
				ksft_exit_fail_perror("MADV_DONTNEED");
			region_touch(r, i);
		}
		found = count_folios(r, good);
	}
	free(good);
	/* Without THP in the kernel there is nothing to advise against. */
	madvise(r->mem, r->len, MADV_NOHUGEPAGE);

	if (found < r->nr)
		ksft_print_msg("%s: only %zu of %zu folios have this size\n",
			       size_name(r->size), found, r->nr);
	return found == r->nr;
}

/*
 * Get what is not there, or not of the right size, on @node. The settings for
 * this size must have been pushed.
 */
bool region_get(struct region *r, int node)
{
	int err;

	err = bind_to_node(r->mem, r->len, node);
	if (err) {
		ksft_print_msg("mbind to node %d: %s\n", node, strerror(-err));
		return false;
	}
	return region_populate(r);
}

bool region_renew(struct region *r, int node)
{
	if (madvise(r->mem, r->len, MADV_DONTNEED))
		ksft_exit_fail_perror("MADV_DONTNEED");
	return region_get(r, node);
}

void region_free(struct region *r)
{
	if (r->map)
		munmap(r->map, r->map_len);
	r->map = NULL;
}

bool region_alloc(struct region *r, size_t size, size_t bytes)
{
	const uintptr_t align = max(size, read_pmd_pagesize());

	*r = (struct region) {
		.size = size,
		.nr = bytes / size,
		.len = bytes / size * size,
	};
	r->map_len = r->len + align;
	r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		ksft_perror("mmap");
		return false;
	}
	r->mem = (char *)(((uintptr_t)r->map + align - 1) & ~(align - 1));

	if (region_get(r, node_a))
		return true;
	region_free(r);
	return false;
}

/* ---- content ----------------------------------------------------------- */

static inline uint64_t pattern(uint64_t key, uintptr_t addr)
{
	uint64_t x = (key ^ addr) * 0x9e3779b97f4a7c15ULL;

	return x ^ (x >> 29);
}

static uint64_t pattern_key(uint64_t gen)
{
	return pattern(seed, gen << 8) ^ seed;
}

void region_fill(const struct region *r, uint64_t gen)
{
	const uint64_t key = pattern_key(gen);
	uint64_t *p = (uint64_t *)r->mem;
	size_t i;

	for (i = 0; i < r->len / sizeof(*p); i++)
		p[i] = pattern(key, (uintptr_t)(p + i));
}

static void show_wrong(const struct region *r, size_t off,
		       unsigned long long want, unsigned long long got)
{
	ksft_print_msg("WRONG CONTENT at %p (%s folio %zu, offset %#zx):\n",
		       r->mem + off, size_name(r->size), off / r->size,
		       off % r->size);
	ksft_print_msg("expected %#018llx, got %#018llx\n", want, got);
}

bool region_verify(const struct region *r, uint64_t gen)
{
	const uint64_t key = pattern_key(gen);
	const uint64_t *p = (const uint64_t *)r->mem;
	size_t i, wrong = 0;

	for (i = 0; i < r->len / sizeof(*p); i++) {
		uint64_t want = pattern(key, (uintptr_t)(p + i));
		uint64_t got = p[i];

		if (got == want)
			continue;
		if (wrong++ < MAX_WRONG_SHOWN)
			show_wrong(r, i * sizeof(*p), want, got);
	}
	if (wrong)
		ksft_print_msg("WRONG CONTENT: %zu of %zu words\n", wrong,
			       r->len / sizeof(*p));
	return !wrong;
}

/* ---- moving ------------------------------------------------------------ */

void move_alloc(struct move *m, size_t nr)
{
	*m = (struct move) {
		.addrs = calloc(nr, sizeof(*m->addrs)),
		.nodes = calloc(nr, sizeof(*m->nodes)),
		.status = calloc(nr, sizeof(*m->status)),
		.query = calloc(nr, sizeof(*m->query)),
		.nr = nr,
	};
	if (!m->addrs || !m->nodes || !m->status || !m->query)
		ksft_exit_fail_msg("out of memory\n");
}

void move_free(struct move *m)
{
	free(m->addrs);
	free(m->nodes);
	free(m->status);
	free(m->query);
}

void move_set_region(struct move *m, const struct region *r)
{
	size_t i;

	for (i = 0; i < r->nr; i++)
		m->addrs[i] = r->mem + i * r->size;
}

bool move_all_on(struct move *m, int node)
{
	size_t i;

	if (move_pages(m->nr, m->addrs, NULL, m->query)) {
		ksft_perror("move_pages query");
		return false;
	}
	for (i = 0; i < m->nr; i++)
		if (m->query[i] != node)
			return false;
	return true;
}

/* In calls of no more than m->call folios, until one of them does not move all */
static long move_by_calls(struct move *m)
{
	const size_t call = m->call ? m->call : m->nr;
	long ret = 0;
	size_t i;

	for (i = 0; i < m->nr && !ret; i += call)
		ret = move_pages(min(call, m->nr - i), m->addrs + i,
				 m->nodes + i, m->status + i);
	return ret;
}

/*
 * Move everything to @node. Return false if the kernel contradicts itself or
 * the call fails as a whole; m->unmoved is the number of folios that are not
 * there after a call which otherwise went well.
 */
bool move_to(struct move *m, int node, bool quiet)
{
	size_t i, shown = 0;
	bool sane = true;
	uint64_t start;
	long ret;

	for (i = 0; i < m->nr; i++) {
		m->nodes[i] = node;
		m->status[i] = STATUS_UNTOUCHED;
	}

	errno = 0;
	start = now_ns();
	ret = move_by_calls(m);
	m->ns = now_ns() - start;
	m->unmoved = 0;

	if (ret < 0 && errno != ENOMEM && errno != EBUSY && errno != EAGAIN) {
		ksft_perror("move_pages");
		return false;
	}
	if (ret && !quiet)
		ksft_print_msg("move_pages to node %d returned %ld%s%s\n", node,
			       ret, ret < 0 ? ": " : "",
			       ret < 0 ? strerror(errno) : "");

	if (move_pages(m->nr, m->addrs, NULL, m->query)) {
		ksft_perror("move_pages query");
		return false;
	}

	for (i = 0; i < m->nr; i++) {
		const bool there = m->query[i] == node;
		const bool claimed = m->status[i] == node;
		const bool stored = m->status[i] != STATUS_UNTOUCHED;
		/*
		 * When folios fail, the call ends without a status for those
		 * which went with them. Else there is one for all.
		 */
		const bool contradiction = stored ? claimed != there : !ret;

		if (!there)
			m->unmoved++;
		if (contradiction)
			sane = false;
		if (there && !contradiction)
			continue;
		if ((quiet && !contradiction) || shown++ >= MAX_WRONG_SHOWN)
			continue;
		if (stored)
			ksft_print_msg("%p: status %d, is on node %d, should be on %d\n",
				       m->addrs[i], m->status[i], m->query[i],
				       node);
		else
			ksft_print_msg("%p: no status, is on node %d, should be on %d\n",
				       m->addrs[i], m->query[i], node);
	}
	return sane;
}

void read_counters(struct counters *c)
{
	*c = (struct counters) { };
	if (!dcbm_present())
		return;
	if (!dcbm_counter("folios_migrated", &c->migrated) ||
	    !dcbm_counter("folios_failures", &c->failures))
		ksft_exit_fail_msg("cannot read the counters of dcbm\n");
}

/* ---- all of it --------------------------------------------------------- */

/*
 * Choose the nodes, open what shows folios, and have the settings of THP
 * restored at exit. Skips the whole test if something is missing.
 */
void migrate_offload_setup(void)
{
	if (geteuid())
		ksft_exit_skip("must be run as root\n");
	choose_nodes();

	pagemap_fd = open("/proc/self/pagemap", O_RDONLY);
	if (pagemap_fd < 0)
		ksft_exit_skip("no /proc/self/pagemap\n");
	kpageflags_fd = open("/proc/kpageflags", O_RDONLY);
	if (kpageflags_fd < 0)
		ksft_exit_skip("no /proc/kpageflags (CONFIG_PROC_PAGE_MONITOR)\n");

	/* It would be inherited from a parent. */
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);

	if (thp_available()) {
		struct thp_settings settings;

		/* Restores at exit, whatever the reason */
		thp_save_settings();
		thp_read_settings(&settings);
		thp_push_settings(&settings);
	}
}
