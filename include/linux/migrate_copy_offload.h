/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Interface between page migration and a migrator: a driver that copies a
 * batch of unmapped folios with something other than the CPU.
 */
#ifndef _LINUX_MIGRATE_COPY_OFFLOAD_H
#define _LINUX_MIGRATE_COPY_OFFLOAD_H

#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/migrate_mode.h>
#include <linux/types.h>

struct folio;

/* A batch of base pages is 512 of them unless the limit has been raised */
#define MIGRATE_OFFLOAD_MAX_PAIRS	512

/* Every reason that a folio can be migrated for, as a mask of BIT(reason) */
#define MIGRATE_OFFLOAD_ALL_REASONS	(BIT(MR_NEVER) - 1)

/**
 * struct migrate_pair - a source folio and the folio that replaces it
 * @src: locked, unmapped everywhere, referenced by nobody but migration and
 *	its mapping. Only to be read.
 * @dst: locked, of the same size, not visible to anyone yet.
 */
struct migrate_pair {
	struct folio *src;
	struct folio *dst;
};

/**
 * struct migrate_offload_batch - folios whose content is to be copied
 * @bytes: sum of the sizes of all folios, in bytes
 * @nr: number of pairs, 1 to %MIGRATE_OFFLOAD_MAX_PAIRS
 * @src_nid: node that all sources are on, or %NUMA_NO_NODE if they differ
 * @dst_nid: node that all destinations are on, or %NUMA_NO_NODE
 * @mode: how long migration may wait; in %MIGRATE_ASYNC many folios are locked
 * @reason: why the folios migrate
 * @copied: set with migrate_offload_set_copied()
 * @lost: set with migrate_offload_set_lost()
 * @pairs: the folios
 *
 * Belongs to the core, and is valid until the migrator returns.
 */
struct migrate_offload_batch {
	size_t bytes;
	unsigned int nr;
	int src_nid;
	int dst_nid;
	enum migrate_mode mode;
	enum migrate_reason reason;
	DECLARE_BITMAP(copied, MIGRATE_OFFLOAD_MAX_PAIRS);
	DECLARE_BITMAP(lost, MIGRATE_OFFLOAD_MAX_PAIRS);
	struct migrate_pair pairs[MIGRATE_OFFLOAD_MAX_PAIRS];
};

/**
 * migrate_offload_set_copied - say that a folio has been copied
 * @batch: the batch
 * @i: index of the pair
 *
 * To be called once all bytes of the source are in the destination and the
 * CPU can see them there. Whatever is not said to be copied is copied by the
 * CPU afterwards. Not atomic: only from the context of the migrator's call.
 */
static inline void
migrate_offload_set_copied(struct migrate_offload_batch *batch, unsigned int i)
{
	__set_bit(i, batch->copied);
}

/**
 * migrate_offload_set_lost - say that the copy of a folio was given up
 * @batch: the batch
 * @i: index of the pair
 *
 * For an engine that stopped answering, and may still read the source and write
 * to the destination at any time. The migrator must take a reference to both
 * folios before its copy function returns, and hold them until the engine is
 * done. The core gives the destination up, and gives the source its page-table
 * mappings back. The source cannot migrate, nor can its memory be taken
 * offline, while the migrator holds its reference. Context and locking are
 * those of migrate_offload_set_copied().
 */
static inline void
migrate_offload_set_lost(struct migrate_offload_batch *batch, unsigned int i)
{
	__set_bit(i, batch->lost);
}

/**
 * struct migrator - what can copy a batch
 * @name: for messages
 * @copy: copies what it can of the batch and marks it with
 *	migrate_offload_set_copied(). Runs in process context and may sleep,
 *	but not for long, since faults on the folios wait meanwhile. Must not
 *	allocate memory in a way that enters reclaim: it may be called from
 *	there, with folio locks held. May run on several CPUs at once.
 */
struct migrator {
	const char *name;
	void (*copy)(struct migrate_offload_batch *batch);
};

int migrate_offload_register(const struct migrator *migrator,
			     unsigned long reasons);
void migrate_offload_unregister(const struct migrator *migrator);
void migrate_offload_set_reasons(const struct migrator *migrator,
				 unsigned long reasons);
void migrate_offload_set_min_bytes(const struct migrator *migrator,
				   size_t min_bytes);
int migrate_offload_parse_reasons(const char *buf, unsigned long *reasons);
int migrate_offload_show_reasons(char *buf, unsigned long reasons);

#endif /* _LINUX_MIGRATE_COPY_OFFLOAD_H */
