/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Interface between page migration and a migrator: a driver that copies a
 * batch of unmapped folios with something other than the CPU, while the CPU
 * goes on with what it has to copy itself.
 */
#ifndef _LINUX_MIGRATE_COPY_OFFLOAD_H
#define _LINUX_MIGRATE_COPY_OFFLOAD_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/migrate_mode.h>
#include <linux/sizes.h>
#include <linux/types.h>

struct folio;

/* With so many, a batch fits 8 KiB, which can mostly be allocated in reclaim */
#define MIGRATE_OFFLOAD_MAX_PAIRS	256

/* Bytes of a batch that a migrator has for itself */
#define MIGRATE_OFFLOAD_CB_SIZE		360

/* Every reason that a folio can be migrated for, as a mask of BIT(reason) */
#define MIGRATE_OFFLOAD_ALL_REASONS	(BIT(MR_NEVER) - 1)

/* Why a migrator did not copy a folio, but left it to the CPU */
enum migrate_left_cause {
	MIGRATE_LEFT_NONE,		/* it was not */
	MIGRATE_LEFT_SHARED,		/* the CPU is quicker */
	MIGRATE_LEFT_SINGLE,		/* alone in its chunk, and small */
	MIGRATE_LEFT_TOO_SMALL,		/* does not pay */
	MIGRATE_LEFT_SMALL_BATCH,	/* all of the batch does not pay */
	MIGRATE_LEFT_INACCESSIBLE,	/* for the kernel, too */
	MIGRATE_LEFT_MAPPING,		/* the mapping does more than to copy */
	MIGRATE_LEFT_PINNED,		/* may be the target of DMA */
	MIGRATE_LEFT_REFERENCES,	/* unexpected ones */
	MIGRATE_LEFT_MOVABLE_OPS,	/* not a folio */
	MIGRATE_LEFT_HUGETLB,
	MIGRATE_LEFT_ZONE_DEVICE,
	MIGRATE_LEFT_ORDER,		/* the destination is of another size */
	MIGRATE_LEFT_HWPOISON,
	MIGRATE_LEFT_TAGGED,		/* has tags or shadow memory as well */
	MIGRATE_LEFT_NO_MEMORY,		/* for a batch */
	MIGRATE_LEFT_NO_ROOM,		/* the batch is full */
	MIGRATE_LEFT_REFUSED,		/* by the migrator */
	MIGRATE_LEFT_MIGRATOR,		/* the migrator failed to copy it */
	MIGRATE_LEFT_LOST,		/* an engine may still write it */
	MIGRATE_LEFT_WASTED,		/* copied, but did not move */
};

/**
 * struct migrate_pair - a source folio and the folio that replaces it
 * @src: locked, unmapped everywhere, referenced by nobody but migration and
 *	its mapping. Only to be read.
 * @dst: locked, of the same size, not visible to anyone yet.
 * @copied: bytes that are in the destination by now; see
 *	migrate_offload_add_copied()
 */
struct migrate_pair {
	struct folio *src;
	struct folio *dst;
	atomic_long_t copied;
};

/**
 * struct migrate_offload_batch - folios whose content is to be copied
 * @bytes: sum of the sizes of all folios, in bytes
 * @nr: number of pairs, 1 to %MIGRATE_OFFLOAD_MAX_PAIRS
 * @src_nid: node that all sources are on, or %NUMA_NO_NODE if they differ
 * @dst_nid: node that all destinations are on, or %NUMA_NO_NODE
 * @mode: how long migration may wait; in %MIGRATE_ASYNC many folios are locked
 * @reason: why the folios migrate
 * @busy_ns: how long the CPU is going to unmap and move other folios meanwhile,
 *	in nanoseconds. A faster copy does not help.
 * @cpu_ns: how long the CPU would take to copy all of the batch, in
 *	nanoseconds, or 0 if it is not to take part; see
 *	migrate_offload_copy_pages()
 * @copy_ns: how long the copy took, in nanoseconds, for wait() to set. If it is
 *	0, the core takes the time in submit() and wait() instead.
 * @shared: the CPU copied a part of the batch, for the migrator to set. The
 *	core gives it less of the next one.
 * @cb: control block, for the migrator from submit() to wait()
 * @submit: when submit() was called, in nanoseconds; the core's
 * @submit_ns: how long submit() took, in nanoseconds; the core's
 * @slot: of the migrator that took the batch; the core's
 * @srcu_idx: keeps that migrator from going; the core's
 * @lost: set with migrate_offload_set_lost()
 * @pairs: the folios
 *
 * Belongs to the migrator from the start of submit() to the end of wait(), and
 * to the core otherwise.
 */
struct migrate_offload_batch {
	size_t bytes;
	unsigned int nr;
	int src_nid;
	int dst_nid;
	enum migrate_mode mode;
	enum migrate_reason reason;
	u64 busy_ns;
	u64 cpu_ns;
	u64 copy_ns;
	bool shared;
	char cb[MIGRATE_OFFLOAD_CB_SIZE] __aligned(8);
	u64 submit;
	u64 submit_ns;
	unsigned int slot;
	int srcu_idx;
	DECLARE_BITMAP(lost, MIGRATE_OFFLOAD_MAX_PAIRS);
	struct migrate_pair pairs[MIGRATE_OFFLOAD_MAX_PAIRS];
};

static_assert(sizeof(struct migrate_offload_batch) <= SZ_8K);

/**
 * migrate_offload_add_copied - say that a part of a folio has been copied
 * @batch: the batch
 * @i: index of the pair
 * @bytes: how many bytes of the folio were copied, none of them counted before
 *
 * To be called once these bytes of the source are in the destination and the
 * CPU can see them there. Several workers may each copy a piece of a folio, in
 * any order. The CPU copies each folio whose bytes do not add up to its size
 * when wait() returns. Counting bytes twice loses data, since the sum then
 * hides bytes that were not copied.
 *
 * Context: Any, between the start of submit() and the end of wait().
 */
static inline void
migrate_offload_add_copied(struct migrate_offload_batch *batch, unsigned int i,
			   size_t bytes)
{
	atomic_long_add(bytes, &batch->pairs[i].copied);
}

/**
 * migrate_offload_set_lost - say that the copy of a folio was given up
 * @batch: the batch
 * @i: index of the pair
 *
 * For an engine that stopped answering, and may still read the source and write
 * to the destination at any time. The migrator must take a reference to both
 * folios before wait() returns, and hold them until the engine is done. The
 * core gives the destination up, and gives the source its page-table mappings
 * back. The source cannot migrate, nor can its memory be taken offline, while
 * the migrator holds its reference.
 *
 * Context: Any, between the start of submit() and the end of wait().
 */
static inline void
migrate_offload_set_lost(struct migrate_offload_batch *batch, unsigned int i)
{
	set_bit(i, batch->lost);
}

/**
 * struct migrate_offload_ops - a migrator: what copies batches
 * @name: by which the operator chooses, and for messages
 * @submit: starts to copy a batch, and returns without waiting for the copy, or
 *	for an engine to be free. Returns 0 if the migrator takes the batch, or
 *	an error if it does not. After an error, the migrator must not touch the
 *	batch, and the CPU copies all of it.
 * @wait: returns when the result of each pair is final. Called once for each
 *	batch that submit() took. Faults on its folios wait meanwhile, so it has
 *	to be bounded, by the time that the copy should take.
 *
 * Both run in process context, in the task that migrates, with the locks of the
 * folios held, and possibly in reclaim. They may sleep. What memory they need
 * should be there beforehand: allocations happen in a memalloc_noio_save()
 * section, and may fail. Several tasks may be in either function at once, each
 * with a batch of its own.
 */
struct migrate_offload_ops {
	const char *name;
	int (*submit)(struct migrate_offload_batch *batch);
	void (*wait)(struct migrate_offload_batch *batch);
};

void migrate_offload_copy_pages(struct migrate_offload_batch *batch,
				unsigned int i, unsigned long n,
				unsigned long nr);
int migrate_offload_register(const struct migrate_offload_ops *ops,
			     unsigned long reasons,
			     unsigned int min_folio_bytes);
void migrate_offload_unregister(const struct migrate_offload_ops *ops);

#endif /* _LINUX_MIGRATE_COPY_OFFLOAD_H */
