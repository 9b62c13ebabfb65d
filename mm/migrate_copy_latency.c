// SPDX-License-Identifier: GPL-2.0
/*
 * Choose how much migrate_pages() unmaps at once while a migrator copies.
 *
 * A folio is inaccessible from when it is unmapped until it has been moved.
 * While a migrator copies one chunk, the CPU moves the chunk before it and
 * unmaps the next one. A larger chunk has lower fixed costs for each folio, but
 * makes its folios inaccessible for longer. So the longest time that is allowed
 * decides how large a chunk is.
 *
 * By default, that is how long the CPU alone would make such a folio
 * inaccessible: without a migrator, migrate_pages() unmaps up to 512 pages,
 * then copies and moves them one by one.
 *
 * The kernel measures how long unmapping, moving and copying take, chunk by
 * chunk. If several tasks update an average at once, it can lose a value, which
 * does no harm.
 */
#include <linux/average.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sizes.h>
#include <linux/time64.h>

#include "internal.h"
#include "migrate_copy_offload.h"

/* Pages that the CPU unmaps at once if it copies them itself */
#define CPU_CHUNK_PAGES		512

/*
 * By default, allow less than the CPU alone would need, since some chunks take
 * longer than the average: a third less up to PAGE_ALLOC_COSTLY_ORDER, since
 * the allocator frees such pages in bulk from its lists for each CPU, and a
 * sixteenth less above.
 */
#define SMALL_LATENCY_MARGIN	3
#define LARGE_LATENCY_MARGIN	16

/* By default, a batch of folios below 16 KiB needs 192 KiB */
#define MIN_CHUNK_BYTES		SZ_256K

/* End a pause early by this time, since to wake up takes some */
#define PAUSE_MARGIN_NS		(5 * NSEC_PER_USEC)

/* A shorter sleep costs more than it saves */
#define MIN_PAUSE_NS		(50 * NSEC_PER_USEC)
#define MAX_PAUSE_NS		(10L * NSEC_PER_MSEC)

DECLARE_EWMA(migrate_ns, 4, 8)

/* How long a folio of each order takes, in nanoseconds */
static struct {
	struct ewma_migrate_ns unmap;
	struct ewma_migrate_ns move;
	struct ewma_migrate_ns copy;	/* a MiB, by the migrator in use */
	bool shared;			/* the CPU helps that migrator */
} migrate_folio_ns[MAX_PAGE_ORDER + 1];

/* How long it takes to submit a batch */
static struct ewma_migrate_ns migrate_submit_ns;

/* How long the CPU takes to copy a MiB */
static unsigned long migrate_cpu_copy_ns __read_mostly;

/* The migrator has refused the last batch */
static bool migrate_refused __read_mostly;

/* Values of the operator, or 0 for "auto"; see migrate_copy_policy.c */
unsigned int migrate_latency_us __read_mostly;
unsigned int migrate_chunk_bytes __read_mostly;

/* The CPU copies a part of a batch if the migrator is slower */
bool migrate_share __read_mostly = true;

/* The last values of "auto", to be shown */
static unsigned long migrate_latency_ns_last;
static unsigned long migrate_chunk_bytes_last;

static u64 bytes_ns(size_t bytes, unsigned long ns_per_mib)
{
	return mul_u64_u32_shr(bytes, ns_per_mib, ilog2(SZ_1M));
}

/* Return how long the migrator takes for folios of an order */
static u64 copy_ns(unsigned int order, size_t bytes)
{
	struct ewma_migrate_ns *average = &migrate_folio_ns[order].copy;

	return bytes_ns(bytes, ewma_migrate_ns_read(average));
}

/**
 * migrate_latency_is_shared - whether the CPU takes part in the copy
 * @order: order of the folios
 *
 * Context: Any.
 *
 * Return: true if the migrator alone would take longer.
 */
bool migrate_latency_is_shared(unsigned int order)
{
	return READ_ONCE(migrate_share) &&
	       READ_ONCE(migrate_folio_ns[order].shared);
}

/**
 * migrate_latency_move_ns - how long the CPU takes to copy and to move folios
 * @order: order of the folios
 * @bytes: their size
 *
 * Context: Any.
 *
 * Return: nanoseconds.
 */
u64 migrate_latency_move_ns(unsigned int order, size_t bytes)
{
	u64 move = ewma_migrate_ns_read(&migrate_folio_ns[order].move);

	return bytes_ns(bytes, migrate_cpu_copy_ns) +
	       move * (bytes >> (PAGE_SHIFT + order));
}

/* Return how long a folio is inaccessible if the CPU alone migrates it */
static u64 cpu_latency_ns(unsigned int order)
{
	const unsigned int nr = max(CPU_CHUNK_PAGES >> order, 1);
	u64 unmap = ewma_migrate_ns_read(&migrate_folio_ns[order].unmap);
	u64 move = ewma_migrate_ns_read(&migrate_folio_ns[order].move);
	u64 latency;

	move += bytes_ns(PAGE_SIZE << order, migrate_cpu_copy_ns);
	latency = nr * max(unmap, move);
	return latency - latency / (order <= PAGE_ALLOC_COSTLY_ORDER ?
				    SMALL_LATENCY_MARGIN :
				    LARGE_LATENCY_MARGIN);
}

/*
 * Return how long a folio is inaccessible if its chunk takes this long to
 * unmap, to copy and to move. While the migrator copies the chunk, the CPU
 * moves the chunk before it and unmaps the next one, which takes as long as its
 * own two steps. If the copy takes longer, migrate_latency_pause() delays the
 * next one.
 */
static u64 chunk_latency_ns(u64 unmap, u64 copy, u64 move)
{
	const u64 submit = ewma_migrate_ns_read(&migrate_submit_ns);

	return unmap + max3(unmap, copy, move) + move + 2 * submit;
}

/**
 * migrate_budget_init - begin to choose the folios of a chunk
 * @budget: takes the limits, and later counts the folios
 *
 * Call it only if a migrator is wanted for these folios.
 *
 * Context: Any.
 */
void migrate_budget_init(struct migrate_budget *budget)
{
	const unsigned int fixed = READ_ONCE(migrate_chunk_bytes);

	*budget = (struct migrate_budget) {
		.limited = true,
		.max_bytes = fixed ?: SIZE_MAX,
		.max_nr = MIGRATE_OFFLOAD_MAX_PAIRS,
	};
}

/* Set the limits of a chunk whose first folio has this order */
static void budget_set_limits(struct migrate_budget *budget, unsigned int order)
{
	u64 unmap = ewma_migrate_ns_read(&migrate_folio_ns[order].unmap);
	const unsigned int us = READ_ONCE(migrate_latency_us);

	/*
	 * Nothing was measured, or the CPU may have to copy this chunk, too. If
	 * it takes part in the copy, it has no time for the next chunk.
	 */
	budget->alone = !unmap || !copy_ns(order, SZ_1M);
	if (migrate_latency_is_shared(order)) {
		budget->alone = true;
		budget->max_nr = CPU_CHUNK_PAGES;
	}
	if (budget->alone || READ_ONCE(migrate_refused))
		budget->max_bytes = CPU_CHUNK_PAGES * PAGE_SIZE;
	if (!budget->alone || us)
		budget->latency_ns = us ? us * NSEC_PER_USEC :
					  cpu_latency_ns(order);
}

/**
 * migrate_budget_add - add a folio to a chunk
 * @budget: limits and counts of the chunk
 * @folio: the folio, which is always added
 *
 * Context: Any.
 *
 * Return: true if the chunk is full now.
 */
bool migrate_budget_add(struct migrate_budget *budget, struct folio *folio)
{
	const unsigned int order = min(folio_order(folio), MAX_PAGE_ORDER);
	const size_t size = folio_size(folio);
	u64 unmap = ewma_migrate_ns_read(&migrate_folio_ns[order].unmap);
	u64 move = ewma_migrate_ns_read(&migrate_folio_ns[order].move);
	unsigned int step;
	bool full;
	u64 copy;

	/* Is chunk_bytes "auto"? */
	if (!budget->nr && budget->max_bytes == SIZE_MAX)
		budget_set_limits(budget, order);
	else if (!budget->nr)
		budget->alone = migrate_latency_is_shared(order);
	budget->nr++;
	budget->bytes += size;
	budget->unmap_ns += unmap;
	budget->move_ns += move;

	full = budget->nr == budget->max_nr ||
	       budget->bytes >= budget->max_bytes;
	/* In steps of up to an eighth, so that noise seldom changes the size */
	step = max(rounddown_pow_of_two(budget->nr) / 8, 1);
	if (budget->latency_ns && budget->bytes >= MIN_CHUNK_BYTES &&
	    !(budget->nr % step)) {
		copy = copy_ns(order, budget->bytes + step * size);
		full |= chunk_latency_ns(budget->unmap_ns + step * unmap, copy,
					 budget->move_ns + step * move) >
			budget->latency_ns;
	}
	if (full) {
		WRITE_ONCE(migrate_latency_ns_last, budget->latency_ns);
		WRITE_ONCE(migrate_chunk_bytes_last, budget->bytes);
	}
	return full;
}

/* Return how long the next chunk need not be unmapped yet, or less than 0 */
static s64 pause_ns(const struct migrate_chunk_times *times,
		    const struct migrate_budget *next, u64 now)
{
	/* The migrator has begun to copy while the batch was submitted */
	u64 copied = times->submit + copy_ns(times->order, times->bytes);

	return copied - now - next->unmap_ns - PAUSE_MARGIN_NS;
}

/**
 * migrate_latency_pause - wait before the next chunk is unmapped
 * @times: times of the chunk that the migrator copies
 * @next: the next chunk
 *
 * Folios that are unmapped early wait for a slow engine to copy the chunk
 * before them. Sleep until the engine is about to finish that chunk. Without
 * this, the task would sleep after it has unmapped the folios.
 *
 * Context: Process context, may sleep, with the folios of the chunk locked.
 */
void migrate_latency_pause(const struct migrate_chunk_times *times,
			   const struct migrate_budget *next)
{
	s64 ns;

	if (!next->latency_ns)
		return;
	/* The averages of other chunks may be wrong for this one */
	ns = min(pause_ns(times, next, ktime_get_ns()), MAX_PAUSE_NS);
	if (ns > MIN_PAUSE_NS)
		usleep_range_state(div_u64(ns, NSEC_PER_USEC),
				   div_u64(ns, NSEC_PER_USEC) + 1,
				   TASK_UNINTERRUPTIBLE);
}

/**
 * migrate_latency_learn - update how long unmapping and moving take
 * @times: times of a chunk of which all folios have been moved at once
 *
 * Context: Any.
 */
void migrate_latency_learn(const struct migrate_chunk_times *times)
{
	const unsigned int nr = times->nr_folios;
	u64 ns;

	/* Folios of one size, none of which the CPU copied */
	if (!nr || !times->start || times->nr_copied != nr ||
	    times->nr_pages != nr << times->order)
		return;
	ns = div_u64(times->unmapped - times->start, nr);
	ewma_migrate_ns_add(&migrate_folio_ns[times->order].unmap, max(ns, 1));
	ns = div_u64(times->move_ns, nr);
	ewma_migrate_ns_add(&migrate_folio_ns[times->order].move, max(ns, 1));
	ewma_migrate_ns_add(&migrate_submit_ns, times->submit_ns);
}

/**
 * migrate_latency_learn_copy - update how fast the migrator copies
 * @order: order of the folios of a batch
 * @bytes: size of the batch, all of which was copied
 * @ns: how long the migrator took, in nanoseconds
 * @shared: it is slower than the CPU, which has helped
 *
 * Context: Any.
 */
void migrate_latency_learn_copy(unsigned int order, size_t bytes, u64 ns,
				bool shared)
{
	if (READ_ONCE(migrate_folio_ns[order].shared) != shared)
		WRITE_ONCE(migrate_folio_ns[order].shared, shared);
	ewma_migrate_ns_add(&migrate_folio_ns[order].copy,
			    clamp(div64_u64(ns * SZ_1M, bytes), 1, UINT_MAX));
}

/**
 * migrate_latency_part - how many bytes of a chunk the migrator should get
 * @order: order of the folios
 * @bytes: size of the chunk
 *
 * A migrator that is slower than the CPU gets a quarter more than it should
 * be able to copy while the CPU copies and moves the other folios. Of what it
 * has not begun by then, the CPU copies a part, too.
 *
 * Context: Any.
 *
 * Return: bytes, which may be more than there are.
 */
size_t migrate_latency_part(unsigned int order, size_t bytes)
{
	u64 cpu, ns;

	cpu = migrate_latency_move_ns(order, bytes);
	ns = copy_ns(order, bytes);
	return max(mul_u64_u64_div_u64(bytes + bytes / 4, cpu, cpu + ns),
		   MIN_CHUNK_BYTES);
}

/**
 * migrate_latency_cpu_ns - how long the CPU takes for its part of a batch
 * @bytes: size of the batch
 *
 * Context: Any.
 *
 * Return: nanoseconds for all of the batch, or 0 if the CPU is to have no part.
 */
u64 migrate_latency_cpu_ns(size_t bytes)
{
	return READ_ONCE(migrate_share) ? bytes_ns(bytes, migrate_cpu_copy_ns) :
					  0;
}

/**
 * migrate_latency_refused - note whether the migrator takes batches
 * @refused: the migrator has refused a batch, or has taken one
 *
 * Context: Any.
 */
void migrate_latency_refused(bool refused)
{
	if (READ_ONCE(migrate_refused) != refused)
		WRITE_ONCE(migrate_refused, refused);
}

/**
 * migrate_latency_unshare - offer the migrator a whole chunk again
 * @order: order of the folios
 *
 * For a migrator that does not take the part that it was to have.
 *
 * Context: Any.
 */
void migrate_latency_unshare(unsigned int order)
{
	WRITE_ONCE(migrate_folio_ns[order].shared, false);
}

/**
 * migrate_latency_last_us - what "auto" has come to for latency_us
 *
 * Context: Any.
 *
 * Return: the bound of the last chunk, in microseconds.
 */
unsigned long migrate_latency_last_us(void)
{
	return READ_ONCE(migrate_latency_ns_last) / NSEC_PER_USEC;
}

/**
 * migrate_latency_last_bytes - what "auto" has come to for chunk_bytes
 *
 * Context: Any.
 *
 * Return: the size of the last chunk that was full, in bytes.
 */
unsigned long migrate_latency_last_bytes(void)
{
	return READ_ONCE(migrate_chunk_bytes_last);
}

/**
 * migrate_latency_reset - forget how fast a migrator was, before the next one
 *
 * Context: Process context, may sleep. Measures how fast the CPU copies if that
 * is not known.
 */
void migrate_latency_reset(void)
{
	unsigned int order, pass;
	struct folio *src, *dst;
	u64 start, best = 0;

	for (order = 0; order <= MAX_PAGE_ORDER; order++) {
		ewma_migrate_ns_init(&migrate_folio_ns[order].copy);
		WRITE_ONCE(migrate_folio_ns[order].shared, false);
	}
	migrate_refused = false;
	if (migrate_cpu_copy_ns)
		return;

	order = min(ilog2(SZ_2M) - PAGE_SHIFT, MAX_PAGE_ORDER);
	src = folio_alloc(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, order);
	dst = folio_alloc(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, order);
	for (pass = 0; src && dst && pass < 4; pass++) {
		start = ktime_get_ns();
		if (folio_mc_copy(dst, src))
			break;
		start = ktime_get_ns() - start;
		best = best ? min(best, start) : start;
	}
	/* Without memory for that, assume 4 GiB/s */
	migrate_cpu_copy_ns = best ? div_u64(best * SZ_1M, PAGE_SIZE << order) :
				     250 * NSEC_PER_USEC;
	if (src)
		folio_put(src);
	if (dst)
		folio_put(dst);
}

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD_KUNIT_TEST
#include "tests/migrate_copy_latency-kunit.h"
#endif
