// SPDX-License-Identifier: GPL-2.0
/*
 * Hand the content of a batch of unmapped folios to a registered migrator.
 *
 * migrate_pages_batch() unmaps folios, flushes the TLB once, and then moves
 * folio by folio. With a migrator registered, the content of those folios that
 * qualify is copied in between, all at once. A destination that has been
 * filled is marked FOLIO_CONTENT_COPIED, and the move skips the copy; all
 * others are copied by the CPU in the move, as ever.
 *
 * Copying early moves the copy ahead of checks that otherwise precede it, so
 * folio_offload_cause() lets only those folios through for which nothing but
 * plain bytes, which nobody can change any more, has to get to the other side.
 */
#include <kunit/static_stub.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/migrate.h>
#include <linux/migrate_copy_offload.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/static_call.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/vmstat.h>
#ifdef CONFIG_ARM64_MTE
#include <asm/mte.h>
#endif
#include <trace/events/migrate.h>

#include "internal.h"
#include "migrate_copy_offload.h"

DEFINE_STATIC_KEY_FALSE(migrate_offload_enabled);
unsigned long migrate_offload_reasons __read_mostly;

static void migrate_offload_nop(struct migrate_offload_batch *batch)
{
}

DEFINE_STATIC_CALL(migrate_offload_call, migrate_offload_nop);
DEFINE_STATIC_SRCU(migrate_offload_srcu);

/* Serialises registration, and protects the two below */
static DEFINE_MUTEX(migrate_offload_mutex);
static const struct migrator *migrate_offload_migrator;

/* Smaller folios are not worth it, as the migrator has it */
static size_t migrate_offload_min_bytes __read_mostly;

/* A batch that is not in use, so that one need not be allocated each time */
static struct migrate_offload_batch *migrate_offload_spare;

/*
 * Does copy_highpage() move more than bytes here? An engine does not see tags
 * or shadow memory.
 */
static bool folio_is_plain_bytes(struct folio *folio)
{
	KUNIT_STATIC_STUB_REDIRECT(folio_is_plain_bytes, folio);

	if (IS_ENABLED(CONFIG_KMSAN) || kasan_hw_tags_enabled())
		return false;
#if defined(CONFIG_ARM64_MTE)
	if (system_supports_mte()) {
		long i, nr = folio_nr_pages(folio);

		for (i = 0; i < nr; i++)
			if (page_mte_tagged(folio_page(folio, i)))
				return false;
	}
#elif defined(__HAVE_ARCH_COPY_HIGHPAGE) && !defined(CONFIG_ARM64)
	return false;
#endif
	return true;
}

/*
 * What speaks against copying the content of @src to @dst now, ahead of the
 * move? Both are locked, and @src is unmapped and flushed from the TLBs, so no
 * new user can come by way of page tables. The references tell whether one is
 * left from before, and are looked at last.
 *
 * Documentation/mm/migrate_offload.rst numbers the hazards behind these checks:
 * movable_ops H6a, hugetlb H9, device memory H6b, order H13, poison H5a,
 * inaccessible H2, mapping H1a and H1b, tags H4, pins H3b, references H3a.
 */
static enum migrate_cause folio_offload_cause(struct folio *src,
					      struct folio *dst)
{
	struct address_space *mapping;

	if (folio_size(src) < READ_ONCE(migrate_offload_min_bytes))
		return MC_TOO_SMALL;
	if (page_has_movable_ops(&src->page))
		return MC_MOVABLE_OPS;
	if (folio_test_hugetlb(src))
		return MC_HUGETLB;
	if (folio_is_zone_device(src) || folio_is_zone_device(dst))
		return MC_ZONE_DEVICE;
	if (folio_order(src) != folio_order(dst))
		return MC_ORDER;
	if (folio_contain_hwpoisoned_page(src))
		return MC_HWPOISON;
	mapping = folio_mapping(src);
	if (mapping && mapping_inaccessible(mapping))
		return MC_INACCESSIBLE;
	if (mapping && !mapping_migrates_by_copy(mapping))
		return MC_MAPPING;
	if (arch_make_folio_accessible(src))
		return MC_INACCESSIBLE;
	if (!folio_is_plain_bytes(src))
		return MC_TAGGED;
	if (folio_maybe_dma_pinned(src))
		return MC_PINNED;
	if (folio_ref_count(src) != folio_expected_ref_count(src) + 1)
		return MC_REFERENCES;
	return MC_NONE;
}

/* Causes that an operator does the same about are counted together */
static enum vm_event_item cause_event(enum migrate_cause cause)
{
	switch (cause) {
	case MC_SINGLE:
	case MC_TOO_SMALL:
		return PGMIGRATE_OFFLOAD_SMALL;
	case MC_INACCESSIBLE:
	case MC_MAPPING:
		return PGMIGRATE_OFFLOAD_MAPPING;
	case MC_PINNED:
	case MC_REFERENCES:
		return PGMIGRATE_OFFLOAD_BUSY;
	case MC_NO_MEMORY:
	case MC_MIGRATOR:
	case MC_LOST:
		return PGMIGRATE_OFFLOAD_FAILED;
	default:
		return PGMIGRATE_OFFLOAD_UNFIT;
	}
}

/* The CPU is going to copy it, or nobody if it is lost */
static void folio_left(struct folio *src, enum migrate_reason reason,
		       enum migrate_cause cause)
{
	const long nr_pages = folio_nr_pages(src);

	count_vm_events(PGMIGRATE_OFFLOAD_FALLBACK, nr_pages);
	count_vm_events(cause_event(cause), nr_pages);
	trace_mm_migrate_folio_not_offloaded(src, reason, cause);
}

static struct migrate_offload_batch *migrate_offload_get_batch(void)
{
	struct migrate_offload_batch *batch;

	batch = xchg(&migrate_offload_spare, NULL);
	if (!batch)
		batch = kmalloc(sizeof(*batch), GFP_NOWAIT | __GFP_NOMEMALLOC);
	return batch;
}

static void migrate_offload_put_batch(struct migrate_offload_batch *batch)
{
	if (cmpxchg(&migrate_offload_spare, NULL, batch))
		kfree(batch);
}

static void batch_reset(struct migrate_offload_batch *batch)
{
	batch->nr = 0;
	batch->bytes = 0;
	bitmap_zero(batch->copied, MIGRATE_OFFLOAD_MAX_PAIRS);
	bitmap_zero(batch->lost, MIGRATE_OFFLOAD_MAX_PAIRS);
}

static void batch_add(struct migrate_offload_batch *batch, struct folio *src,
		      struct folio *dst)
{
	struct migrate_pair *pair = &batch->pairs[batch->nr];

	if (!batch->nr) {
		batch->src_nid = folio_nid(src);
		batch->dst_nid = folio_nid(dst);
	}
	if (batch->src_nid != folio_nid(src))
		batch->src_nid = NUMA_NO_NODE;
	if (batch->dst_nid != folio_nid(dst))
		batch->dst_nid = NUMA_NO_NODE;

	pair->src = src;
	pair->dst = dst;
	batch->bytes += folio_size(src);
	batch->nr++;
}

/*
 * Let the migrator copy, then take over what it says of each folio. Whatever
 * it read of memory that has failed since may be wrong, so that is copied again
 * by the CPU, which can tell, and fails the migration of this folio alone.
 */
static unsigned int batch_run(struct migrate_offload_batch *batch,
			      struct list_head *lost_src,
			      struct list_head *lost_dst)
{
	unsigned int i, nr_copied = 0;
	long nr_pages = 0;

	static_call(migrate_offload_call)(batch);

	for (i = 0; i < batch->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		if (test_bit(i, batch->lost)) {
			list_move_tail(&pair->src->lru, lost_src);
			list_move_tail(&pair->dst->lru, lost_dst);
			folio_left(pair->src, batch->reason, MC_LOST);
		} else if (!test_bit(i, batch->copied)) {
			folio_left(pair->src, batch->reason, MC_MIGRATOR);
		} else if (folio_contain_hwpoisoned_page(pair->src)) {
			folio_left(pair->src, batch->reason, MC_HWPOISON);
		} else {
			pair->dst->migrate_info |= FOLIO_CONTENT_COPIED;
			nr_copied++;
			nr_pages += folio_nr_pages(pair->src);
		}
	}
	count_vm_events(PGMIGRATE_OFFLOAD_SUCCESS, nr_pages);
	batch_reset(batch);
	return nr_copied;
}

/**
 * migrate_offload_copy - copy the content of unmapped folios ahead of the move
 * @src_folios: sources, unmapped and flushed from the TLBs, locked
 * @dst_folios: their destinations, in the same order
 * @lost_src: takes sources whose copy was given up; the migrator holds a
 *	reference, so they cannot migrate now, and are to be restored
 * @lost_dst: takes their destinations; they are to be given up, not reused
 * @mode: how long migration may wait
 * @reason: why the folios migrate
 *
 * Marks the destinations that have been filled FOLIO_CONTENT_COPIED, and leaves
 * all others to the CPU. Never fails: without a migrator, without memory, or
 * with a migrator that does nothing, nothing is marked.
 *
 * Context: Process context, may sleep, folio locks held, possibly in reclaim.
 *
 * Return: how many folios have been copied.
 */
unsigned int migrate_offload_copy(struct list_head *src_folios,
				  struct list_head *dst_folios,
				  struct list_head *lost_src,
				  struct list_head *lost_dst,
				  enum migrate_mode mode,
				  enum migrate_reason reason)
{
	struct migrate_offload_batch *batch;
	struct folio *src, *src2, *dst, *dst2;
	enum migrate_cause cause;
	unsigned int nr_copied = 0;
	int idx;

	src = list_first_entry_or_null(src_folios, struct folio, lru);
	if (!src)
		return 0;
	/* The CPU has copied a single small folio before any engine woke up */
	if (list_is_singular(src_folios) && !folio_test_large(src)) {
		folio_left(src, reason, MC_SINGLE);
		return 0;
	}

	idx = srcu_read_lock(&migrate_offload_srcu);

	batch = migrate_offload_get_batch();
	if (!batch) {
		list_for_each_entry(src, src_folios, lru)
			folio_left(src, reason, MC_NO_MEMORY);
		goto unlock;
	}
	batch_reset(batch);
	batch->mode = mode;
	batch->reason = reason;

	dst = list_first_entry(dst_folios, struct folio, lru);
	list_for_each_entry_safe(src, src2, src_folios, lru) {
		dst2 = list_next_entry(dst, lru);
		cause = folio_offload_cause(src, dst);
		if (cause)
			folio_left(src, reason, cause);
		else
			batch_add(batch, src, dst);
		if (batch->nr == MIGRATE_OFFLOAD_MAX_PAIRS)
			nr_copied += batch_run(batch, lost_src, lost_dst);
		dst = dst2;
		cond_resched();
	}
	if (batch->nr)
		nr_copied += batch_run(batch, lost_src, lost_dst);

	migrate_offload_put_batch(batch);
unlock:
	srcu_read_unlock(&migrate_offload_srcu, idx);
	return nr_copied;
}

/**
 * migrate_offload_register - let a migrator copy for page migration
 * @migrator: who copies; must stay until it is unregistered
 * @reasons: what to offload, a mask of BIT(enum migrate_reason)
 *
 * There can be one at a time. A module must unregister its migrator before it
 * goes, in its exit function at the latest; that is what makes its code safe
 * to free, and a pin on the module would only make it impossible to unload.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, -EINVAL for a migrator that is not complete or a mask that has
 * unknown reasons, -EBUSY if there is one already.
 */
int migrate_offload_register(const struct migrator *migrator,
			     unsigned long reasons)
{
	if (!migrator || !migrator->name || !migrator->copy ||
	    (reasons & ~MIGRATE_OFFLOAD_ALL_REASONS))
		return -EINVAL;

	guard(mutex)(&migrate_offload_mutex);

	if (migrate_offload_migrator)
		return -EBUSY;

	migrate_offload_migrator = migrator;
	WRITE_ONCE(migrate_offload_reasons, reasons);
	WRITE_ONCE(migrate_offload_min_bytes, 0);
	static_call_update(migrate_offload_call, migrator->copy);
	static_branch_enable(&migrate_offload_enabled);
	pr_info("migrate: %s copies batches of folios\n", migrator->name);
	return 0;
}
EXPORT_SYMBOL_GPL(migrate_offload_register);

/**
 * migrate_offload_unregister - stop using a migrator
 * @migrator: as registered; one that is not registered is ignored
 *
 * When this returns, no batch is in the migrator's copy function and none will
 * enter it any more.
 *
 * Context: Process context. Waits for the batches that are being copied.
 */
void migrate_offload_unregister(const struct migrator *migrator)
{
	guard(mutex)(&migrate_offload_mutex);

	if (!migrator || migrate_offload_migrator != migrator)
		return;

	static_branch_disable(&migrate_offload_enabled);
	static_call_update(migrate_offload_call, migrate_offload_nop);
	synchronize_srcu(&migrate_offload_srcu);
	migrate_offload_migrator = NULL;
	kfree(xchg(&migrate_offload_spare, NULL));
	pr_info("migrate: %s no longer copies\n", migrator->name);
}
EXPORT_SYMBOL_GPL(migrate_offload_unregister);

/**
 * migrate_offload_set_reasons - change what is offloaded
 * @migrator: as registered; one that is not registered is ignored
 * @reasons: a mask of BIT(enum migrate_reason); unknown reasons are dropped
 *
 * Batches that are under way are not affected.
 *
 * Context: Process context, may sleep.
 */
void migrate_offload_set_reasons(const struct migrator *migrator,
				 unsigned long reasons)
{
	guard(mutex)(&migrate_offload_mutex);

	if (migrator && migrate_offload_migrator == migrator)
		WRITE_ONCE(migrate_offload_reasons,
			   reasons & MIGRATE_OFFLOAD_ALL_REASONS);
}
EXPORT_SYMBOL_GPL(migrate_offload_set_reasons);

/**
 * migrate_offload_set_min_bytes - change from what size on folios are offloaded
 * @migrator: as registered; one that is not registered is ignored
 * @min_bytes: size of a folio in bytes; smaller ones are left to the CPU
 *
 * What an engine costs for each folio, its set-up and its answer, has no part
 * in how large the folio is, so small ones do not pay. Batches that are under
 * way are not affected.
 *
 * Context: Process context, may sleep.
 */
void migrate_offload_set_min_bytes(const struct migrator *migrator,
				   size_t min_bytes)
{
	guard(mutex)(&migrate_offload_mutex);

	if (migrator && migrate_offload_migrator == migrator)
		WRITE_ONCE(migrate_offload_min_bytes, min_bytes);
}
EXPORT_SYMBOL_GPL(migrate_offload_set_min_bytes);

static int reason_by_name(const char *name, size_t len)
{
	int i;

	for (i = 0; i < MR_NEVER; i++)
		if (strlen(migrate_reason_names[i]) == len &&
		    !strncmp(migrate_reason_names[i], name, len))
			return i;
	return -EINVAL;
}

/**
 * migrate_offload_parse_reasons - read a set of reasons to migrate
 * @buf: names as in the migrate tracepoints with commas between them, or "all",
 *	or "none", or the mask as a number
 * @reasons: takes the mask of BIT(enum migrate_reason); only written on success
 *
 * A line feed at the end is ignored. Allocates nothing, since parameters on the
 * kernel's command line are read before anything can be allocated.
 *
 * Return: 0, -EINVAL if @buf is none of these, -ERANGE for a number that does
 * not fit.
 */
int migrate_offload_parse_reasons(const char *buf, unsigned long *reasons)
{
	unsigned long mask = 0;
	size_t len;
	int ret;

	if (sysfs_streq(buf, "all")) {
		*reasons = MIGRATE_OFFLOAD_ALL_REASONS;
		return 0;
	}
	if (sysfs_streq(buf, "none")) {
		*reasons = 0;
		return 0;
	}

	ret = kstrtoul(buf, 0, &mask);
	if (ret == -ERANGE)
		return ret;
	if (!ret) {
		if (mask & ~MIGRATE_OFFLOAD_ALL_REASONS)
			return -EINVAL;
		*reasons = mask;
		return 0;
	}

	mask = 0;
	buf = skip_spaces(buf);
	for (;;) {
		len = strcspn(buf, ", \t\n");
		ret = reason_by_name(buf, len);
		if (ret < 0)
			return ret;
		mask |= BIT(ret);
		buf += len;
		if (*buf != ',')
			break;
		buf++;
	}
	if (*skip_spaces(buf))
		return -EINVAL;
	*reasons = mask;
	return 0;
}
EXPORT_SYMBOL_GPL(migrate_offload_parse_reasons);

/**
 * migrate_offload_show_reasons - print a set of reasons to migrate
 * @buf: a page, as for sysfs
 * @reasons: a mask of BIT(enum migrate_reason)
 *
 * What is printed can be read by migrate_offload_parse_reasons().
 *
 * Return: number of characters printed.
 */
int migrate_offload_show_reasons(char *buf, unsigned long reasons)
{
	int len = 0, i;

	reasons &= MIGRATE_OFFLOAD_ALL_REASONS;
	if (!reasons)
		return sysfs_emit(buf, "none\n");

	for_each_set_bit(i, &reasons, MR_NEVER)
		len += sysfs_emit_at(buf, len, "%s%s", len ? "," : "",
				     migrate_reason_names[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}
EXPORT_SYMBOL_GPL(migrate_offload_show_reasons);

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD_KUNIT_TEST
#include "tests/migrate_copy_offload-kunit.h"
#endif
