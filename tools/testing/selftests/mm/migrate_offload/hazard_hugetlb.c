// SPDX-License-Identifier: GPL-2.0
/* A hugetlb page in a batch of other folios, and the pools of such pages. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "hazards.h"
#include "window.h"

/* How many there were, before @add is added */
static unsigned long hugetlb_knob(const char *path, long add)
{
	unsigned long nr;
	char text[32];

	if (read_text(path, text, sizeof(text)))
		return 0;
	nr = strtoul(text, NULL, 0);
	if (add) {
		snprintf(text, sizeof(text), "%ld", (long)nr + add);
		write_text(path, text);
	}
	return nr;
}

static unsigned long hugetlb_node_knob(int node, const char *name, long add)
{
	char path[128];

	snprintf(path, sizeof(path),
		 NODE_SYSFS "node%d/hugepages/hugepages-%lukB/%s", node,
		 default_huge_page_size() >> 10, name);
	return hugetlb_knob(path, add);
}

unsigned long hugetlb_pool(int node, long add)
{
	return hugetlb_node_knob(node, "nr_hugepages", add);
}

static unsigned long hugetlb_free(int node)
{
	return hugetlb_node_knob(node, "free_hugepages", 0);
}

/*
 * The node where it goes has no free hugetlb page. So a temporary one is
 * allocated, and that is a flag of hugetlb in the word that has our mark.
 */
HAZARD(hugetlb, "a hugetlb page in the batch")
{
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = 1 };
	struct region special = { .size = default_huge_page_size(), .nr = 1 };
	unsigned long had_a, had_b;
	int ret = KSFT_FAIL;
	struct batch b;

	if (!special.size || special.size > 64UL << 20)
		return skip("no hugetlb pages of a decent size");
	had_a = hugetlb_pool(node_a, 1);
	had_b = hugetlb_pool(node_b, 0);
	hugetlb_pool(node_b, -had_b);
	special.len = special.size;
	special.map_len = special.size;
	special.map = mmap(NULL, special.len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (special.map == MAP_FAILED) {
		special.map = NULL;
		ret = skip("no hugetlb page can be had");
		goto restore;
	}
	special.mem = special.map;
	bind_to_node(special.mem, special.len, node_a);
	region_fill(&special, 0);
	if (hugetlb_free(node_b)) {
		ret = skip("node %d has free hugetlb pages", node_b);
	} else if (batch_init(&b, 1)) {
		batch_add_region(&b, 0, &special);
		ret = result(batch_home(&b) && batch_run(&b) &&
			     special_moved(&b, &special, &want, 0));
		batch_free(&b);
	}
restore:
	region_free(&special);
	hugetlb_pool(node_a, had_a - hugetlb_pool(node_a, 0));
	hugetlb_pool(node_b, had_b - hugetlb_pool(node_b, 0));
	return ret;
}
