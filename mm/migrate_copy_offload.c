// SPDX-License-Identifier: GPL-2.0
/*
 * Have a registered migrator copy unmapped folios, a batch at a time.
 *
 * migrate_pages_batch() unmaps a chunk of folios, flushes the TLB once, and
 * then moves folio by folio. If a migrator is registered, the folios that
 * qualify first go to the batch list. The migrator copies them while the CPU
 * copies and moves the others, those of the single list. A destination that has
 * been filled is marked FOLIO_CONTENT_COPIED, and the move skips the copy. In
 * the move, the CPU copies what the migrator left.
 *
 * Copying early moves the copy ahead of checks that otherwise precede it, so
 * folio_offload_cause() lets only those folios through for which nothing but
 * plain bytes, which nobody can change any more, has to get to the other side.
 */
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mempool.h>
#include <linux/migrate.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/static_call.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>
#ifdef CONFIG_ARM64_MTE
#include <asm/mte.h>
#endif
#include <trace/events/migrate.h>

#include "internal.h"
#include "migrate_copy_offload.h"

/* Migrators that can be registered at a time; one of them is in use */
#define MIGRATE_OFFLOAD_SLOTS	4

/* A name, with its end */
#define MIGRATE_OFFLOAD_NAME_LEN	32

/* Batches that are there for movers that can get no memory */
#define MIGRATE_OFFLOAD_RESERVE	16

DEFINE_STATIC_KEY_FALSE(migrate_offload_enabled);

static int submit_nop(struct migrate_offload_batch *batch)
{
	return -ENODEV;
}

static void wait_nop(struct migrate_offload_batch *batch)
{
}

DEFINE_STATIC_CALL(migrate_offload_submit_0, submit_nop);
DEFINE_STATIC_CALL(migrate_offload_wait_0, wait_nop);
DEFINE_STATIC_CALL(migrate_offload_submit_1, submit_nop);
DEFINE_STATIC_CALL(migrate_offload_wait_1, wait_nop);
DEFINE_STATIC_CALL(migrate_offload_submit_2, submit_nop);
DEFINE_STATIC_CALL(migrate_offload_wait_2, wait_nop);
DEFINE_STATIC_CALL(migrate_offload_submit_3, submit_nop);
DEFINE_STATIC_CALL(migrate_offload_wait_3, wait_nop);

DEFINE_STATIC_SRCU(migrate_offload_srcu);

/* Serialises registration and choice, and protects what follows */
static DEFINE_MUTEX(migrate_offload_mutex);

/* What has registered, and what suits it */
static struct migrate_offload_slot {
	const struct migrate_offload_ops *ops;
	unsigned long reasons;
	unsigned int min_folio_bytes;
} migrate_offload_slots[MIGRATE_OFFLOAD_SLOTS];

/* The slot in use, or MIGRATE_OFFLOAD_SLOTS; also read in SRCU sections */
static unsigned int migrate_offload_slot = MIGRATE_OFFLOAD_SLOTS;

/* What the operator has chosen, also "none", or "" for the first one */
static char migrate_offload_wanted[MIGRATE_OFFLOAD_NAME_LEN];

/* Valid in an SRCU section in which a slot is in use, while there is a batch */
static mempool_t migrate_offload_batches;

static int slot_submit(struct migrate_offload_batch *batch)
{
	switch (batch->slot) {
	case 0:
		return static_call(migrate_offload_submit_0)(batch);
	case 1:
		return static_call(migrate_offload_submit_1)(batch);
	case 2:
		return static_call(migrate_offload_submit_2)(batch);
	case 3:
		return static_call(migrate_offload_submit_3)(batch);
	default:
		return -ENODEV;
	}
}

static void slot_wait(struct migrate_offload_batch *batch)
{
	switch (batch->slot) {
	case 0:
		static_call(migrate_offload_wait_0)(batch);
		break;
	case 1:
		static_call(migrate_offload_wait_1)(batch);
		break;
	case 2:
		static_call(migrate_offload_wait_2)(batch);
		break;
	case 3:
		static_call(migrate_offload_wait_3)(batch);
		break;
	}
}

/* Without @ops, take what was there out of the calls */
static void slot_set(unsigned int slot, const struct migrate_offload_ops *ops)
{
	int (*submit)(struct migrate_offload_batch *batch) = submit_nop;
	void (*wait)(struct migrate_offload_batch *batch) = wait_nop;

	if (ops) {
		submit = ops->submit;
		wait = ops->wait;
	}
	switch (slot) {
	case 0:
		static_call_update(migrate_offload_submit_0, submit);
		static_call_update(migrate_offload_wait_0, wait);
		break;
	case 1:
		static_call_update(migrate_offload_submit_1, submit);
		static_call_update(migrate_offload_wait_1, wait);
		break;
	case 2:
		static_call_update(migrate_offload_submit_2, submit);
		static_call_update(migrate_offload_wait_2, wait);
		break;
	case 3:
		static_call_update(migrate_offload_submit_3, submit);
		static_call_update(migrate_offload_wait_3, wait);
		break;
	}
	migrate_offload_slots[slot].ops = ops;
}

/*
 * Does copy_highpage() move more than bytes here? An engine does not see tags
 * or shadow memory.
 */
static bool folio_is_plain_bytes(struct folio *folio)
{
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
 * Return why the content of @src must not be copied to @dst now, ahead of the
 * move, or MIGRATE_LEFT_NONE. Both are locked, and @src is unmapped and flushed
 * from the TLBs, so no new user can come through page tables. The references
 * tell whether one is left from before.
 *
 * Documentation/mm/migrate_offload.rst numbers the hazards behind these checks:
 * movable_ops H6a, hugetlb H9, device memory H6b, order H13, poison H5a,
 * inaccessible H2, mapping H1a and H1b, tags H4, pins H3b, references H3a.
 */
static enum migrate_left_cause folio_offload_cause(struct folio *src,
						   struct folio *dst)
{
	struct address_space *mapping;

	if (folio_size(src) < READ_ONCE(migrate_min_folio_bytes))
		return MIGRATE_LEFT_TOO_SMALL;
	if (page_has_movable_ops(&src->page))
		return MIGRATE_LEFT_MOVABLE_OPS;
	if (folio_test_hugetlb(src))
		return MIGRATE_LEFT_HUGETLB;
	if (folio_is_zone_device(src) || folio_is_zone_device(dst))
		return MIGRATE_LEFT_ZONE_DEVICE;
	if (folio_order(src) != folio_order(dst))
		return MIGRATE_LEFT_ORDER;
	if (folio_has_hwpoison(src))
		return MIGRATE_LEFT_HWPOISON;
	mapping = folio_mapping(src);
	if (mapping && mapping_inaccessible(mapping))
		return MIGRATE_LEFT_INACCESSIBLE;
	if (mapping && !mapping_migrates_by_copy(mapping))
		return MIGRATE_LEFT_MAPPING;
	if (!folio_is_plain_bytes(src))
		return MIGRATE_LEFT_TAGGED;
	if (folio_maybe_dma_pinned(src))
		return MIGRATE_LEFT_PINNED;
	if (folio_ref_count(src) != folio_expected_ref_count(src) + 1)
		return MIGRATE_LEFT_REFERENCES;
	/* Changes what it looks at, so only if all others have no objection */
	if (arch_make_folio_accessible(src))
		return MIGRATE_LEFT_INACCESSIBLE;
	return MIGRATE_LEFT_NONE;
}

/* Causes that an operator does the same about are counted together */
static enum vm_event_item cause_event(enum migrate_left_cause cause)
{
	switch (cause) {
	case MIGRATE_LEFT_SINGLE:
	case MIGRATE_LEFT_TOO_SMALL:
	case MIGRATE_LEFT_SMALL_BATCH:
		return PGMIGRATE_OFFLOAD_SMALL;
	case MIGRATE_LEFT_SHARED:
		return PGMIGRATE_OFFLOAD_SHARED;
	case MIGRATE_LEFT_INACCESSIBLE:
	case MIGRATE_LEFT_MAPPING:
		return PGMIGRATE_OFFLOAD_MAPPING;
	case MIGRATE_LEFT_PINNED:
	case MIGRATE_LEFT_REFERENCES:
	case MIGRATE_LEFT_WASTED:
		return PGMIGRATE_OFFLOAD_BUSY;
	case MIGRATE_LEFT_NO_MEMORY:
	case MIGRATE_LEFT_NO_ROOM:
	case MIGRATE_LEFT_REFUSED:
	case MIGRATE_LEFT_MIGRATOR:
	case MIGRATE_LEFT_LOST:
		return PGMIGRATE_OFFLOAD_FAILED;
	default:
		return PGMIGRATE_OFFLOAD_UNFIT;
	}
}

/**
 * migrate_offload_left - count and trace why a folio is left to the CPU
 * @src: the source, for which a migrator is wanted
 * @reason: why it is to migrate
 * @cause: why the migrator did not copy it, or %MIGRATE_LEFT_WASTED if it did,
 *	but the move failed
 *
 * What becomes of the folio is counted when it has moved. If it is tried again,
 * it may be left again.
 *
 * Context: Any.
 */
void migrate_offload_left(struct folio *src, enum migrate_reason reason,
			  enum migrate_left_cause cause)
{
	count_vm_events(cause_event(cause), folio_nr_pages(src));
	trace_mm_migrate_folio_not_offloaded(src, reason, cause);
}

static void folios_left(struct list_head *src_folios,
			enum migrate_reason reason,
			enum migrate_left_cause cause)
{
	struct folio *src;

	list_for_each_entry(src, src_folios, lru)
		migrate_offload_left(src, reason, cause);
}

static size_t folios_size(struct list_head *src_folios)
{
	struct folio *src;
	size_t size = 0;

	list_for_each_entry(src, src_folios, lru)
		size += folio_size(src);
	return size;
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
	atomic_long_set(&pair->copied, 0);
	batch->bytes += folio_size(src);
	batch->nr++;
}

/* Return an empty batch, or NULL. It keeps its migrator from going. */
static struct migrate_offload_batch *batch_get(enum migrate_mode mode,
					       enum migrate_reason reason,
					       struct list_head *src_folios)
{
	struct migrate_offload_batch *batch = NULL;
	unsigned int slot;
	int idx;

	idx = srcu_read_lock(&migrate_offload_srcu);
	/* Pairs with the release in slot_use() */
	slot = smp_load_acquire(&migrate_offload_slot);
	/* The migrator may have gone since the branch was taken */
	if (slot == MIGRATE_OFFLOAD_SLOTS)
		goto unlock;

	batch = mempool_alloc(&migrate_offload_batches, GFP_NOWAIT);
	if (!batch) {
		folios_left(src_folios, reason, MIGRATE_LEFT_NO_MEMORY);
		goto unlock;
	}
	batch->bytes = 0;
	batch->nr = 0;
	batch->copy_ns = 0;
	batch->shared = false;
	batch->mode = mode;
	batch->reason = reason;
	batch->slot = slot;
	batch->srcu_idx = idx;
	bitmap_zero(batch->lost, MIGRATE_OFFLOAD_MAX_PAIRS);
	return batch;

unlock:
	srcu_read_unlock(&migrate_offload_srcu, idx);
	return NULL;
}

static void batch_put(struct migrate_offload_batch *batch)
{
	const int idx = batch->srcu_idx;

	mempool_free(batch, &migrate_offload_batches);
	srcu_read_unlock(&migrate_offload_srcu, idx);
}

/*
 * Move pairs that qualify from @single to @batched, and add them to @batch, but
 * for the first @skip bytes. The last folios of a chunk have been unmapped
 * last, so they can wait for the migrator.
 */
static void batch_fill(struct migrate_offload_batch *batch,
		       struct migrate_list *single,
		       struct migrate_list *batched, size_t skip)
{
	struct folio *src, *src2, *dst, *dst2;
	enum migrate_left_cause cause;

	dst = list_first_entry(&single->dst, struct folio, lru);
	list_for_each_entry_safe(src, src2, &single->src, lru) {
		dst2 = list_next_entry(dst, lru);
		if (skip >= folio_size(src))
			cause = MIGRATE_LEFT_SHARED;
		else if (batch->nr == MIGRATE_OFFLOAD_MAX_PAIRS)
			cause = MIGRATE_LEFT_NO_ROOM;
		else
			cause = folio_offload_cause(src, dst);
		if (cause) {
			migrate_offload_left(src, batch->reason, cause);
		} else {
			batch_add(batch, src, dst);
			list_move_tail(&src->lru, &batched->src);
			list_move_tail(&dst->lru, &batched->dst);
		}
		skip = cause == MIGRATE_LEFT_SHARED ? skip - folio_size(src) :
						      0;
		dst = dst2;
		cond_resched();
	}
}

/* Have the migrator take @batch, or return its error */
static int batch_submit(struct migrate_offload_batch *batch, u64 busy_ns)
{
	unsigned int noio;
	int err;

	batch->busy_ns = busy_ns;
	batch->cpu_ns = migrate_latency_cpu_ns(batch->bytes);
	batch->submit = ktime_get_ns();
	/*
	 * The folios are locked. Reclaim could write through a filesystem or a
	 * loop device, and wait for one of these locks. GFP_NOFS would not rule
	 * out the loop device.
	 */
	noio = memalloc_noio_save();
	err = slot_submit(batch);
	memalloc_noio_restore(noio);
	batch->submit_ns = ktime_get_ns() - batch->submit;
	return err;
}

/**
 * migrate_offload_submit - have a migrator copy what it can of a chunk
 * @single: unmapped folios, flushed from the TLBs, locked, and destinations
 * @batched: empty; takes those that the migrator is going to copy
 * @mode: how long migration may wait
 * @reason: why the folios migrate
 * @busy_ns: how long the CPU has something else to do meanwhile, in nanoseconds
 *
 * Never fails: without a migrator, without memory, or with a migrator that
 * refuses, all folios are in @single afterwards, and the CPU copies them.
 *
 * Context: Process context, may sleep, but not for an engine. The folios are
 * locked; possibly in reclaim.
 *
 * Return: the batch, to be passed to migrate_offload_wait() before anything is
 * done with the folios in @batched, or NULL if there are none.
 */
struct migrate_offload_batch *
migrate_offload_submit(struct migrate_list *single,
		       struct migrate_list *batched, enum migrate_mode mode,
		       enum migrate_reason reason, u64 busy_ns)
{
	struct migrate_offload_batch *batch;
	enum migrate_left_cause cause = MIGRATE_LEFT_SMALL_BATCH;
	size_t bytes, part, skip = 0;
	struct folio *src;
	unsigned int order;
	int err;

	src = list_first_entry_or_null(&single->src, struct folio, lru);
	if (!src)
		return NULL;
	/* The CPU has copied a single small folio before any engine woke up */
	if (list_is_singular(&single->src) && !folio_test_large(src)) {
		migrate_offload_left(src, reason, MIGRATE_LEFT_SINGLE);
		return NULL;
	}

	bytes = folios_size(&single->src);
	if (bytes < migrate_policy_min_bytes()) {
		folios_left(&single->src, reason, cause);
		return NULL;
	}
	batch = batch_get(mode, reason, &single->src);
	if (!batch)
		return NULL;
	order = folio_order(src);
	if (migrate_latency_is_shared(order)) {
		part = max(migrate_latency_part(order, bytes),
			   migrate_policy_min_bytes());
		part = min3(bytes, part,
			    MIGRATE_OFFLOAD_MAX_PAIRS * folio_size(src));
		skip = bytes - part;
	}
	batch_fill(batch, single, batched, skip);
	if (!batch->nr) {
		if (skip)
			migrate_latency_unshare(order);
		goto put;
	}

	/* The CPU copies and moves what it has kept meanwhile */
	if (skip)
		busy_ns += migrate_latency_move_ns(order, bytes - batch->bytes);
	err = -EINVAL;
	if (migrate_policy_takes(batch->bytes, batch->nr)) {
		cause = MIGRATE_LEFT_REFUSED;
		err = batch_submit(batch, busy_ns);
		migrate_latency_refused(err);
	}
	if (!err)
		return batch;
	/* It is not busy, but does not get or want so little */
	if (skip && err != -EBUSY)
		migrate_latency_unshare(order);

	folios_left(&batched->src, reason, cause);
	list_splice_tail_init(&batched->src, &single->src);
	list_splice_tail_init(&batched->dst, &single->dst);
put:
	batch_put(batch);
	return NULL;
}

#ifdef CONFIG_DEBUG_MIGRATE_OFFLOAD
/* Return true if the contents differ; false also if the memory of @src fails */
static bool folios_differ(struct folio *dst, struct folio *src)
{
	const size_t size = folio_size(src);
	const u8 *from = folio_address(src);
	const u8 *to = folio_address(dst);
	u8 bytes[256];
	size_t at;

	for (at = 0; at < size; at += sizeof(bytes)) {
		/* The only way to read that survives a machine check */
		if (copy_mc_to_kernel(bytes, from + at, sizeof(bytes)))
			return false;
		if (memcmp(bytes, to + at, sizeof(bytes)))
			return true;
		if (PAGE_ALIGNED(at))
			cond_resched();
	}
	return false;
}

/**
 * migrate_offload_verify - warn if a folio has changed after its early copy
 * @mapping: what the folio belongs to, or NULL
 * @dst: the destination, locked
 * @src: the source, locked, and no longer in @mapping
 *
 * Context: Process context, may sleep. No lock is held but those of the folios.
 */
void migrate_offload_verify(const struct address_space *mapping,
			    struct folio *dst, struct folio *src)
{
	WARN_ONCE(folios_differ(dst, src),
		  "migrate: an early copy differs from its source, mapping operations %ps\n",
		  mapping ? mapping->a_ops : NULL);
}
#endif

/**
 * migrate_offload_wait - wait until the migrator is done with a batch
 * @batch: from migrate_offload_submit(), which this function frees
 * @lost: takes the folios whose copy was given up, and their destinations. The
 *	migrator holds a reference to both, so the sources cannot migrate now,
 *	and the destinations are to be given up.
 *
 * Marks the destinations that have been filled FOLIO_CONTENT_COPIED, and leaves
 * all others to the CPU. What the migrator read of memory that has failed since
 * may be wrong, so that is copied again by the CPU, which can tell, and fails
 * the migration of this folio alone.
 *
 * Context: Process context, may sleep, as the task that submitted the batch.
 *
 * Return: how many folios have been copied.
 */
unsigned int migrate_offload_wait(struct migrate_offload_batch *batch,
				  struct migrate_list *lost)
{
	const enum migrate_reason reason = batch->reason;
	unsigned int i, noio, nr_copied = 0;
	u64 wait_ns = ktime_get_ns();

	noio = memalloc_noio_save();
	slot_wait(batch);
	memalloc_noio_restore(noio);
	wait_ns = ktime_get_ns() - wait_ns;

	for (i = 0; i < batch->nr; i++) {
		enum migrate_left_cause cause = MIGRATE_LEFT_NONE;
		struct migrate_pair *pair = &batch->pairs[i];

		if (test_bit(i, batch->lost)) {
			list_move_tail(&pair->src->lru, &lost->src);
			list_move_tail(&pair->dst->lru, &lost->dst);
			cause = MIGRATE_LEFT_LOST;
		} else if (atomic_long_read(&pair->copied) !=
			   folio_size(pair->src)) {
			cause = MIGRATE_LEFT_MIGRATOR;
		} else if (folio_has_hwpoison(pair->src)) {
			cause = MIGRATE_LEFT_HWPOISON;
		} else {
			pair->dst->migrate_info |= FOLIO_CONTENT_COPIED;
			nr_copied++;
		}
		if (cause)
			migrate_offload_left(pair->src, reason, cause);
	}
	/*
	 * A failed copy says nothing of how long the next one takes, nor does
	 * that of a migrator that has been replaced.
	 */
	if (nr_copied == batch->nr &&
	    batch->slot == READ_ONCE(migrate_offload_slot))
		migrate_latency_learn_copy(folio_order(batch->pairs[0].src),
					   batch->bytes, batch->copy_ns ?:
					   batch->submit_ns + wait_ns,
					   batch->shared);
	batch_put(batch);
	return nr_copied;
}

/**
 * migrate_offload_copy_pages - have the CPU copy pages of a batch
 * @batch: the batch
 * @i: index of the pair
 * @n: index of the first page in its folio
 * @nr: number of pages
 *
 * For wait(), while an engine that is slower than the CPU copies other pages of
 * the batch. None of these pages may be mapped for an engine, since unmapping
 * could discard what the CPU writes. A page whose memory fails is not counted
 * as copied, so the move finds the error.
 *
 * Context: Process context, may sleep, between the start of submit() and the
 * end of wait().
 */
void migrate_offload_copy_pages(struct migrate_offload_batch *batch,
				unsigned int i, unsigned long n,
				unsigned long nr)
{
	struct page *src = folio_page(batch->pairs[i].src, n);
	struct page *dst = folio_page(batch->pairs[i].dst, n);
	size_t copied = 0;

	while (nr--) {
		if (!copy_mc_highpage(dst++, src++))
			copied += PAGE_SIZE;
		cond_resched();
	}
	migrate_offload_add_copied(batch, i, copied);
}
EXPORT_SYMBOL_GPL(migrate_offload_copy_pages);

/* The first slot with @ops, or without a migrator if that is NULL */
static unsigned int find_slot(const struct migrate_offload_ops *ops)
{
	unsigned int slot = 0;

	lockdep_assert_held(&migrate_offload_mutex);
	while (slot < MIGRATE_OFFLOAD_SLOTS &&
	       migrate_offload_slots[slot].ops != ops)
		slot++;
	return slot;
}

/* The slot of the migrator with this name, or MIGRATE_OFFLOAD_SLOTS */
static unsigned int slot_by_name(const char *name)
{
	unsigned int slot;

	lockdep_assert_held(&migrate_offload_mutex);
	for (slot = 0; slot < MIGRATE_OFFLOAD_SLOTS; slot++)
		if (migrate_offload_slots[slot].ops &&
		    sysfs_streq(name, migrate_offload_slots[slot].ops->name))
			break;
	return slot;
}

/* The slot of a migrator, or MIGRATE_OFFLOAD_SLOTS if it is not registered */
static unsigned int slot_of(const struct migrate_offload_ops *ops)
{
	return ops ? find_slot(ops) : MIGRATE_OFFLOAD_SLOTS;
}

/* Let the migrator in a slot have the batches that begin from now on */
static void slot_use(unsigned int slot)
{
	struct migrate_offload_slot *used = &migrate_offload_slots[slot];

	migrate_latency_reset();
	migrate_policy_use(used->reasons, used->min_folio_bytes);
	/* A CPU that sees the slot sees its static calls and the mempool */
	smp_store_release(&migrate_offload_slot, slot);
	/* The one before it may have taught something until now */
	migrate_latency_reset();
	static_branch_enable(&migrate_offload_enabled);
	pr_info("migrate: %s copies batches of folios\n", used->ops->name);
}

/* Let no migrator have the batches that begin from now on */
static void slot_use_none(void)
{
	static_branch_disable(&migrate_offload_enabled);
	WRITE_ONCE(migrate_offload_slot, MIGRATE_OFFLOAD_SLOTS);
	migrate_policy_use(0, 0);
}

/* Does the operator want no migrator? */
static bool wants_none(void)
{
	return !strcmp(migrate_offload_wanted, "none");
}

/* The first slot with a migrator, or MIGRATE_OFFLOAD_SLOTS */
static unsigned int first_taken_slot(void)
{
	unsigned int slot = 0;

	while (slot < MIGRATE_OFFLOAD_SLOTS && !migrate_offload_slots[slot].ops)
		slot++;
	return slot;
}

/* Use what the operator has chosen if it is there, or else what there is */
static void slot_use_any(void)
{
	unsigned int slot = slot_by_name(migrate_offload_wanted);

	if (slot == MIGRATE_OFFLOAD_SLOTS)
		slot = first_taken_slot();
	if (slot != MIGRATE_OFFLOAD_SLOTS && slot != migrate_offload_slot)
		slot_use(slot);
}

/* Words that can be told apart in a list, and from what is not a name */
static bool name_is_valid(const char *name)
{
	return name && *name && strlen(name) < MIGRATE_OFFLOAD_NAME_LEN &&
	       !strpbrk(name, " \t\n[]") && strcmp(name, "none") &&
	       strcmp(name, "auto");
}

/**
 * migrate_offload_register - let a migrator copy for page migration
 * @ops: what copies; must stay until it is unregistered
 * @reasons: what to offload unless the operator says otherwise, a mask of
 *	BIT(enum migrate_reason)
 * @min_folio_bytes: what a folio must have to be worth it, in bytes, unless the
 *	operator says otherwise; for engines that cost the CPU something for
 *	each folio, however small
 *
 * Of several, the first copies, or the one that the operator has chosen, and
 * the others are idle. A module must unregister its migrator before it
 * goes, in its exit function at the latest. That is what makes its code safe to
 * free, and a pin on the module would only make it impossible to unload.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, -EINVAL for a migrator that is not complete, a name that is no
 * word of up to 31 characters, or a mask that has unknown reasons, -EEXIST for
 * one that is registered or has the name of one, -EBUSY if all slots are taken,
 * -ENOMEM.
 */
int migrate_offload_register(const struct migrate_offload_ops *ops,
			     unsigned long reasons,
			     unsigned int min_folio_bytes)
{
	const size_t size = sizeof(struct migrate_offload_batch);
	unsigned int slot;
	int ret;

	if (!ops || !name_is_valid(ops->name) || !ops->submit || !ops->wait ||
	    (reasons & ~MIGRATE_OFFLOAD_ALL_REASONS))
		return -EINVAL;

	guard(mutex)(&migrate_offload_mutex);

	if (slot_by_name(ops->name) != MIGRATE_OFFLOAD_SLOTS)
		return -EEXIST;
	slot = find_slot(NULL);
	if (slot == MIGRATE_OFFLOAD_SLOTS)
		return -EBUSY;

	if (first_taken_slot() == MIGRATE_OFFLOAD_SLOTS) {
		ret = mempool_init_kmalloc_pool(&migrate_offload_batches,
						min(num_online_cpus(),
						    MIGRATE_OFFLOAD_RESERVE),
						size);
		if (ret)
			return ret;
	}
	slot_set(slot, ops);
	migrate_offload_slots[slot].reasons = reasons;
	migrate_offload_slots[slot].min_folio_bytes = min_folio_bytes;
	if (migrate_offload_slot == MIGRATE_OFFLOAD_SLOTS ?
	    !wants_none() : !strcmp(ops->name, migrate_offload_wanted))
		slot_use(slot);
	return 0;
}
EXPORT_SYMBOL_GPL(migrate_offload_register);

/**
 * migrate_offload_unregister - stop using a migrator
 * @ops: as registered; what is not registered is ignored
 *
 * When this returns, the migrator has no batch and will get none.
 *
 * Context: Process context. Waits for all batches that are in flight.
 */
void migrate_offload_unregister(const struct migrate_offload_ops *ops)
{
	unsigned int slot;
	bool used;

	guard(mutex)(&migrate_offload_mutex);

	slot = slot_of(ops);
	if (slot == MIGRATE_OFFLOAD_SLOTS)
		return;

	used = slot == migrate_offload_slot;
	if (used)
		slot_use_none();
	/* A batch holds a read lock from before submit() to after wait() */
	synchronize_srcu(&migrate_offload_srcu);
	slot_set(slot, NULL);
	pr_info("migrate: %s has unregistered\n", ops->name);

	if (first_taken_slot() == MIGRATE_OFFLOAD_SLOTS)
		mempool_exit(&migrate_offload_batches);
	else if (used)
		slot_use_any();
}
EXPORT_SYMBOL_GPL(migrate_offload_unregister);

static int choose(const char *name)
{
	unsigned int slot;

	lockdep_assert_held(&migrate_offload_mutex);
	if (sysfs_streq(name, "none")) {
		strscpy(migrate_offload_wanted, "none");
		slot_use_none();
		return 0;
	}
	if (sysfs_streq(name, "auto")) {
		/* What is in use may stay */
		strscpy(migrate_offload_wanted, "");
		if (migrate_offload_slot == MIGRATE_OFFLOAD_SLOTS)
			slot_use_any();
		return 0;
	}
	slot = slot_by_name(name);
	if (slot == MIGRATE_OFFLOAD_SLOTS)
		return -ENODEV;
	strscpy(migrate_offload_wanted, migrate_offload_slots[slot].ops->name);
	slot_use_any();
	return 0;
}

/**
 * migrate_offload_choose - let a migrator have the batches from now on
 * @name: of a migrator that is registered, "none", or "auto" for the first one
 *	that registers; a line feed may follow
 *
 * The migrator that has taken a batch completes it. What is chosen is used
 * again if it goes and comes back, and another one in the meantime. After
 * "none", none is used until something else is chosen.
 *
 * Context: Process context, may sleep.
 *
 * Return: 0, -ENODEV if no such migrator is registered, -ERESTARTSYS.
 */
int migrate_offload_choose(const char *name)
{
	int ret;

	/* Unregistration holds it while it waits for engines */
	if (mutex_lock_interruptible(&migrate_offload_mutex))
		return -ERESTARTSYS;
	ret = choose(name);
	mutex_unlock(&migrate_offload_mutex);
	return ret;
}

/**
 * migrate_offload_show_migrators - print what can be chosen
 * @buf: a page, as for sysfs
 *
 * Context: Process context, may sleep.
 *
 * Return: number of characters printed: the names of those that are registered,
 * and "none", with brackets around what is in use; or -ERESTARTSYS.
 */
int migrate_offload_show_migrators(char *buf)
{
	unsigned int slot;
	int len = 0;
	bool used;

	if (mutex_lock_interruptible(&migrate_offload_mutex))
		return -ERESTARTSYS;
	for (slot = 0; slot < MIGRATE_OFFLOAD_SLOTS; slot++) {
		if (!migrate_offload_slots[slot].ops)
			continue;
		used = slot == migrate_offload_slot;
		len += sysfs_emit_at(buf, len, "%s%s%s ", used ? "[" : "",
				     migrate_offload_slots[slot].ops->name,
				     used ? "]" : "");
	}
	used = migrate_offload_slot == MIGRATE_OFFLOAD_SLOTS;
	len += sysfs_emit_at(buf, len, "%s\n", used ? "[none]" : "none");
	mutex_unlock(&migrate_offload_mutex);
	return len;
}

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD_KUNIT_TEST
#include "tests/migrate_copy_offload-kunit.h"
#endif
