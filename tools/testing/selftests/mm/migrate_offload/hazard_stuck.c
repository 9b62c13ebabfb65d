// SPDX-License-Identifier: GPL-2.0
/* An engine that does not answer, and may still read what it was to copy. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <linux/mempolicy.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"

#define MEMORY		"/sys/devices/system/memory/"

/* A memory block, and what to write to its state to have it back as it was */
struct block {
	char state[64];
	const char *online;
	unsigned long first_pfn, nr_pfns;
};

static void interrupt(int sig)
{
}

/* Offline the block, for @seconds at most. Return 0 or -errno. */
static int block_offline(const struct block *k, unsigned int seconds)
{
	const struct sigaction sa = { .sa_handler = interrupt };
	int err;

	sigaction(SIGALRM, &sa, NULL);
	alarm(seconds);
	err = write_text(k->state, "offline");
	alarm(0);
	return err;
}

/*
 * Have a memory block of node_a as ZONE_MOVABLE, where memory of ours goes
 * first. False if no block of the node goes offline.
 */
static bool block_take(struct block *k)
{
	unsigned long size, nr;
	char path[96], text[64];

	*k = (struct block) { };
	if (read_text(MEMORY "block_size_bytes", text, sizeof(text)))
		return false;
	size = strtoul(text, NULL, 16);
	for (nr = 4096; nr--; ) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/memory%lu/valid_zones",
			 node_a, nr);
		if (read_text(path, text, sizeof(text)))
			continue;
		snprintf(k->state, sizeof(k->state), MEMORY "memory%lu/state",
			 nr);
		k->online = strncmp(text, "Movable", strlen("Movable")) ?
			    "online_kernel" : "online_movable";
		k->nr_pfns = size / psize();
		k->first_pfn = nr * k->nr_pfns;
		if (block_offline(k, 5))
			continue;
		if (!write_text(k->state, "online_movable"))
			return true;
		write_text(k->state, k->online);
	}
	return false;
}

static void block_give(const struct block *k)
{
	char state[16];

	if (read_text(k->state, state, sizeof(state)) ||
	    strncmp(state, "offline", strlen("offline")))
		block_offline(k, 30);
	if (!write_text(k->state, k->online))
		return;
	ksft_print_msg("%s is not as it was\n", k->state);
}

static bool block_has(const struct block *k, void *addr)
{
	return pfn_of(addr) - k->first_pfn < k->nr_pfns;
}

static bool fails(const char *what, int want, int err)
{
	if (err == -want)
		return true;
	ksft_print_msg("%s: %s, should be %s\n", what, strerror(-err),
		       strerror(want));
	return false;
}

/* A migration of what the engine may still read fails with an error */
static bool stuck_fails(struct batch *b, struct region *special,
			const struct block *k)
{
	bool ok;

	ok = batch_run(b) && batch_check_unmoved(b);
	ok &= fails("mbind", EIO,
		    mbind_to_node(special->mem, special->len, node_b,
				  MPOL_MF_MOVE | MPOL_MF_STRICT));
	if (!no_hwpoison())
		ok &= fails("soft offline", EBUSY,
			    madvise(special->mem, psize(), MADV_SOFT_OFFLINE) ?
			    -errno : 0);
	if (k)
		ok &= fails("offline", EINTR, block_offline(k, 2));
	return ok;
}

/*
 * An engine gets stuck, and its batch is given up. It may still read the
 * sources, so these stay where they are, in use and with the right content,
 * until it has answered.
 */
HAZARD(stuck_source, "memory that an engine which is stuck may read")
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region special = { };
	struct block block;
	bool ok, have_block;
	struct batch b;

	have_block = block_take(&block);
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	if (have_block && !block_has(&block, special.mem)) {
		block_give(&block);
		have_block = false;
	}
	if (!have_block)
		ksft_print_msg("no memory block of ours can go offline\n");

	/* In less time, an engine of a debug kernel gets less than all at once */
	ok = ok && !dcbm_write("timeout_ms", "2000") &&
	     batch_give_up(&b, want.offloaded) && batch_check_unmoved(&b) &&
	     channel_is(" stuck");
	if (ok) {
		/* What is written now must be there afterwards */
		region_fill(&special, 1);
		ok = stuck_fails(&b, &special, have_block ? &block : NULL);
		ok &= region_verify(&special, 1);
	}

	ok &= engine_set("stall", 0) && wait_for(!channel_is(" stuck"));
	ok &= !dcbm_write("timeout_ms", HOLD_MS) &&
	      !dcbm_write("offloading", "N") && !dcbm_write("offloading", "Y");
	if (ok && have_block)
		ok = fails("offline", 0, block_offline(&block, 30)) &&
		     !block_has(&block, special.mem) &&
		     region_verify(&special, 1);
	ok = ok && batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, &special, &want, 1);
	batch_free(&b);
	region_free(&special);
	if (have_block)
		block_give(&block);
	return result(ok);
}
