// SPDX-License-Identifier: GPL-2.0
/* A target node without memory: a batch that is cut short. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "hazards.h"
#include "window.h"

/*
 * Fill node_b until nothing can be moved there any more. Huge pages do most of
 * that, since nobody has to clear them, and memory that is moved the rest.
 */
#define FILL_BYTES	(16UL << 20)

static bool fill_node(struct region *filler)
{
	const size_t chunk = 64;
	bool full = false;
	struct move m;
	size_t i, done;

	hugetlb_pool(node_b, (node_available(node_b) - FILL_BYTES) /
		     default_huge_page_size());
	if (node_available(node_a) < 8 * FILL_BYTES ||
	    !region_alloc(filler, psize(), 4 * FILL_BYTES))
		return false;
	move_alloc(&m, chunk);
	for (done = 0; !full && done < filler->nr; done += chunk) {
		for (i = 0; i < chunk; i++)
			m.addrs[i] = filler->mem + (done + i) * psize();
		if (!move_to(&m, node_b, true))
			break;
		full = m.unmoved;
	}
	move_free(&m);
	return full;
}

/* The target node is full amid the batch: what fits is moved, nothing is lost */
HAZARD(no_memory, "no memory on the target node")
{
	struct region filler = { }, r = { };
	struct counters before, now;
	size_t moved, some = 0, i;
	unsigned long had;
	struct move m;
	bool ok;

	if (!default_huge_page_size() || !region_alloc(&r, psize(), 8UL << 20))
		return skip("no hugetlb pages to fill the node with");
	region_fill(&r, 1);
	had = hugetlb_pool(node_b, 0);
	ok = fill_node(&filler);
	if (!ok)
		skip("node %d cannot be filled", node_b);
	move_alloc(&m, r.nr);
	move_set_region(&m, &r);
	for (i = 0; ok && i < 3; i++) {
		hugetlb_pool(node_b, -1);
		read_counters(&before);
		ok = move_to(&m, node_b, true);
		read_counters(&now);
		moved = r.nr - m.unmoved;
		some += moved > 1 && m.unmoved &&
			now.migrated != before.migrated;
		ok = region_verify(&r, 1) && ok;
		ksft_print_msg("%zu of %zu folios found room, %lu offloaded\n",
			       moved, r.nr, now.migrated - before.migrated);
		ok = move_to(&m, node_a, true) && region_verify(&r, 1) && ok;
	}
	hugetlb_pool(node_b, had - hugetlb_pool(node_b, 0));
	move_free(&m);
	region_free(&r);
	region_free(&filler);
	if (*why)
		return KSFT_SKIP;
	if (ok && !some)
		ksft_print_msg("no batch was cut short\n");
	return result(ok && some);
}
