// SPDX-License-Identifier: GPL-2.0
/*
 * Hold memory with a known content while somebody else migrates it.
 *
 * Allocates small and PMD sized folios on a node, fills them with a pattern,
 * and then obeys commands on stdin, one a line. Each is answered by one line
 * that begins with "ok" or says what is wrong; lines that begin with a "#" may
 * come before. All numbers of pages are base pages.
 *
 *   verify             compare the content
 *   mark               remember which page frames the memory is in
 *   moved              number of pages that are in another frame than marked
 *   on NODE            number of pages on this node
 *   within FIRST NR    number of pages in this range of page frames
 *   move NODE          move_pages(2)
 *   mbind NODE         mbind(2) with MPOL_MF_MOVE
 *   touch NODE SECONDS read all of it until it is on the node, at most so long;
 *                      number of pages that are
 *   pin                register it as a buffer of io_uring, a long-term pin
 *   unpin              and give that up
 *   splice             put its first page into a pipe, a reference
 *   unsplice           and empty that
 *   offline NR         soft-offline the frames of so many small folios
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
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/io_uring.h>
#include <linux/mempolicy.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "util.h"

#define NR_REGIONS	2
#define GENERATION	1

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

static struct region regions[NR_REGIONS];
static int nr_regions;
static struct move folios, pages;
static unsigned long *marked;
static int ring = -1;
static int pipes[2] = { -1, -1 };

static void hold(size_t size, size_t nr)
{
	const char *reason = size_unsupported(size);
	struct region *r = &regions[nr_regions];

	if (!nr)
		return;
	if (reason)
		ksft_exit_skip("%s: %s\n", size_name(size), reason);

	push_settings(size);
	if (!region_alloc(r, size, nr * size))
		ksft_exit_fail_msg("cannot get folios of %s\n",
				   size_name(size));
	pop_settings();

	/* Whoever migrates it shall not be hindered by a policy of ours. */
	if (syscall(__NR_mbind, r->mem, r->len, MPOL_DEFAULT, NULL, 0, 0))
		ksft_exit_fail_perror("mbind");
	region_fill(r, GENERATION);
	nr_regions++;
}

static unsigned long last_frame(const char *mem, size_t len)
{
	unsigned long last = 0, pfn;
	size_t off;

	for (off = 0; off < len; off += psize()) {
		pfn = pagemap_get_pfn(pagemap_fd, (char *)mem + off);
		if (pfn > last)
			last = pfn;
	}
	return last;
}

/*
 * Compaction moves what is at low addresses to gaps at high ones, in pageblocks
 * that are in use. So that ours moves, allocate more than is to be held, hold
 * the part that is lowest, and give back every other page of what is above it.
 */
static void hold_below_gaps(size_t nr, size_t nr_gaps)
{
	struct region *r = &regions[nr_regions];
	const size_t len = nr * psize();
	unsigned long lowest = ULONG_MAX, last, pfn;
	size_t off, held = 0, made = 0;

	hold(psize(), nr + 2 * nr_gaps);
	for (off = 0; off + len <= r->len; off += len) {
		last = last_frame(r->mem + off, len);
		if (last < lowest) {
			lowest = last;
			held = off;
		}
	}
	for (off = 0; off < r->len; off += 2 * psize()) {
		if (off >= held && off < held + len)
			continue;
		pfn = pagemap_get_pfn(pagemap_fd, r->mem + off);
		if (pfn > lowest)
			made += !madvise(r->mem + off, psize(), MADV_DONTNEED);
	}
	ksft_print_msg("%zu gaps above frame %#lx\n", made, lowest);
	r->mem += held;
	r->len = len;
	r->nr = nr;
}

static void list_addresses(void)
{
	size_t nr_folios = 0, nr_pages = 0, off;
	int i;

	for (i = 0; i < nr_regions; i++) {
		nr_folios += regions[i].nr;
		nr_pages += regions[i].len / psize();
	}
	move_alloc(&folios, nr_folios);
	move_alloc(&pages, nr_pages);
	marked = calloc(nr_pages, sizeof(*marked));
	if (!marked)
		ksft_exit_fail_msg("out of memory\n");

	folios.nr = 0;
	pages.nr = 0;
	for (i = 0; i < nr_regions; i++) {
		for (off = 0; off < regions[i].len; off += regions[i].size)
			folios.addrs[folios.nr++] = regions[i].mem + off;
		for (off = 0; off < regions[i].len; off += psize())
			pages.addrs[pages.nr++] = regions[i].mem + off;
	}
}

static bool verify(void)
{
	bool right = true;
	int i;

	for (i = 0; i < nr_regions; i++)
		right &= region_verify(&regions[i], GENERATION);
	return right;
}

static size_t nr_on(int node)
{
	size_t i, nr = 0;

	if (move_pages(pages.nr, pages.addrs, NULL, pages.query))
		ksft_exit_fail_perror("move_pages query");
	for (i = 0; i < pages.nr; i++)
		nr += pages.query[i] == node;
	return nr;
}

static unsigned long frame(size_t i)
{
	/* What is not there has been reclaimed, which is nothing to test. */
	if (!pagemap_is_populated(pagemap_fd, pages.addrs[i]))
		ksft_exit_fail_msg("%p is not in memory\n", pages.addrs[i]);
	return pagemap_get_pfn(pagemap_fd, pages.addrs[i]);
}

static void mark(void)
{
	size_t i;

	for (i = 0; i < pages.nr; i++)
		marked[i] = frame(i);
}

static size_t nr_moved(void)
{
	size_t i, nr = 0;

	for (i = 0; i < pages.nr; i++)
		nr += frame(i) != marked[i];
	return nr;
}

static size_t nr_within(unsigned long first, unsigned long nr_frames)
{
	size_t i, nr = 0;

	for (i = 0; i < pages.nr; i++)
		nr += frame(i) - first < nr_frames;
	return nr;
}

static int bind_all(int node)
{
	int i, err;

	for (i = 0; i < nr_regions; i++) {
		err = mbind_to_node(regions[i].mem, regions[i].len, node,
				    MPOL_MF_MOVE | MPOL_MF_STRICT);
		if (err)
			return err;
	}
	return 0;
}

static bool touch(int node, unsigned int seconds)
{
	const uint64_t end = now_ns() + seconds * 1000000000ULL;

	while (now_ns() < end && nr_on(node) < pages.nr)
		if (!verify())
			return false;
	return true;
}

static int pin(void)
{
	struct io_uring_params params = { };
	struct iovec buffers[NR_REGIONS];
	int i;

	ring = syscall(__NR_io_uring_setup, 1, &params);
	if (ring < 0)
		return -errno;
	for (i = 0; i < nr_regions; i++) {
		buffers[i].iov_base = regions[i].mem;
		buffers[i].iov_len = regions[i].len;
	}
	if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		    buffers, nr_regions))
		return -errno;
	return 0;
}

static int splice_first(void)
{
	struct iovec first = {
		.iov_base = regions[0].mem,
		.iov_len = psize(),
	};

	if (pipe(pipes) || vmsplice(pipes[1], &first, 1, 0) < 0)
		return -errno;
	return 0;
}

static int soft_offline(size_t nr)
{
	const struct region *r = &regions[0];
	size_t i;

	mark();
	for (i = 0; i < nr && i < r->nr; i++) {
		if (madvise(r->mem + i * r->size, r->size, MADV_SOFT_OFFLINE))
			return -errno;
	}
	return 0;
}

/* Give the frames back that soft_offline() took out of use; best effort. */
static void unpoison(size_t nr)
{
	size_t i;

	for (i = 0; i < nr && i < regions[0].nr; i++)
		if (unpoison_memory(marked[i]))
			ksft_print_msg("frame %#lx stays out of use\n",
				       marked[i]);
}

static void answer(bool good, const char *what)
{
	if (good)
		printf("ok\n");
	else
		printf("%s\n", what);
}

static void answer_errno(int err)
{
	answer(!err, strerror(-err));
}

static void answer_nr(size_t nr)
{
	printf("ok %zu\n", nr);
}

static void obey(const char *line)
{
	unsigned long a = 0, b = 0;
	char word[16] = "";

	if (sscanf(line, "%15s %lu %lu", word, &a, &b) < 1)
		return answer(false, "no command");

	if (!strcmp(word, "verify")) {
		answer(verify(), "wrong content");
	} else if (!strcmp(word, "mark")) {
		mark();
		answer_nr(pages.nr);
	} else if (!strcmp(word, "moved")) {
		answer_nr(nr_moved());
	} else if (!strcmp(word, "on")) {
		answer_nr(nr_on(a));
	} else if (!strcmp(word, "within")) {
		answer_nr(nr_within(a, b));
	} else if (!strcmp(word, "move")) {
		answer(move_to(&folios, a, false) && !folios.unmoved,
		       "not everything was moved");
	} else if (!strcmp(word, "mbind")) {
		answer_errno(bind_all(a));
	} else if (!strcmp(word, "touch")) {
		if (touch(a, b))
			answer_nr(nr_on(a));
		else
			answer(false, "wrong content");
	} else if (!strcmp(word, "pin")) {
		answer_errno(pin());
	} else if (!strcmp(word, "unpin")) {
		close(ring);
		answer(true, "");
	} else if (!strcmp(word, "splice")) {
		answer_errno(splice_first());
	} else if (!strcmp(word, "unsplice")) {
		close(pipes[0]);
		close(pipes[1]);
		answer(true, "");
	} else if (!strcmp(word, "offline")) {
		answer_errno(soft_offline(a));
		unpoison(a);
	} else {
		answer(false, "no such command");
	}
}

int main(int argc, char **argv)
{
	size_t nr_small, nr_gaps;
	char line[64];

	if (argc != 5) {
		fprintf(stderr,
			"usage: hold NODE SMALL LARGE GAPS\n"
			"Holds that many small and PMD sized folios of NODE, and takes commands. So many\n"
			"GAPS of a page are left in what is allocated above them.\n");
		return KSFT_FAIL;
	}
	node_a = atoi(argv[1]);
	node_b = node_a;
	seed = now_ns() * 0x9e3779b97f4a7c15ULL ^ getpid();

	migrate_offload_setup();
	nr_small = strtoul(argv[2], NULL, 0);
	nr_gaps = strtoul(argv[4], NULL, 0);
	if (nr_gaps)
		hold_below_gaps(nr_small, nr_gaps);
	else
		hold(psize(), nr_small);
	hold(read_pmd_pagesize(), strtoul(argv[3], NULL, 0));
	list_addresses();

	do {
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin))
			break;
		obey(line);
	} while (true);
	return KSFT_PASS;
}
