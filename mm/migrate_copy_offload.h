/* SPDX-License-Identifier: GPL-2.0 */
/* Interface between mm/migrate.c and the copy offload */
#ifndef _MM_MIGRATE_COPY_OFFLOAD_H
#define _MM_MIGRATE_COPY_OFFLOAD_H

#include <linux/bits.h>
#include <linux/fs.h>
#include <linux/jump_label.h>
#include <linux/limits.h>
#include <linux/migrate.h>
#include <linux/migrate_copy_offload.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/vmstat.h>

/* Sources and, in the same order, destinations, linked by their lru */
struct migrate_list {
	struct list_head src;
	struct list_head dst;
};

/**
 * struct migrate_budget - limits of a chunk while a migrator copies
 * @limited: the limits apply: a migrator is wanted
 * @alone: finish the chunk before another one is unmapped, since nothing has
 *	been measured yet, or since the CPU copies a part
 * @latency_ns: how long a folio may be inaccessible, or 0 for no limit
 * @max_bytes: maximum size of the chunk in bytes
 * @max_nr: number of folios that end it
 * @bytes: size of the folios that were added
 * @nr: number of the folios that were added
 * @unmap_ns: how long it should take to unmap them
 * @move_ns: how long it should take to move them, without the copy
 */
struct migrate_budget {
	bool limited;
	bool alone;
	u64 latency_ns;
	size_t max_bytes;
	unsigned int max_nr;
	size_t bytes;
	unsigned int nr;
	u64 unmap_ns;
	u64 move_ns;
};

/**
 * struct migrate_chunk_times - times of a chunk in nanoseconds, and counts
 * @start: when unmapping began
 * @unmapped: when the folios were unmapped and flushed from the TLBs
 * @submit: when the migrator was given the batch
 * @submit_ns: how long it took to fill the batch and to submit it
 * @copied: when the migrator was done
 * @first_moved: when the first folio was accessible again
 * @move_ns: how long it took to move the batch list
 * @nr_folios: number of folios that were unmapped
 * @nr_pages: number of their pages
 * @nr_copied: number of folios that the migrator copied
 * @order: order of the first folio
 * @bytes: size of the folios that the migrator took
 * @offload: a migrator was wanted
 */
struct migrate_chunk_times {
	u64 start;
	u64 unmapped;
	u64 submit;
	u64 submit_ns;
	u64 copied;
	u64 first_moved;
	u64 move_ns;
	unsigned int nr_folios;
	unsigned int nr_pages;
	unsigned int nr_copied;
	unsigned int order;
	size_t bytes;
	bool offload;
};

/**
 * mapping_migrates_by_copy - test whether __migrate_folio() migrates its folios
 * @mapping: of a folio
 *
 * A filesystem with a migrate_folio() of its own may lock more than the folio
 * before it copies, as for buffer heads, or refuse to copy, as secretmem does.
 * So this is a list of what is known to do nothing else.
 *
 * Block devices are left out, even without buffer heads: a filesystem may
 * write to the cache of its device with nothing but a reference to the folio,
 * as ntfs does.
 *
 * Return: true if to migrate a folio of @mapping is to copy its content and
 * to exchange the folio in the mapping.
 */
static inline bool mapping_migrates_by_copy(const struct address_space *mapping)
{
	/* The swap cache has no host */
	if (mapping->host && S_ISBLK(mapping->host->i_mode))
		return false;
	return mapping->a_ops->migrate_folio == migrate_folio ||
	       mapping->a_ops->migrate_folio == filemap_migrate_folio;
}

/**
 * folio_has_hwpoison - test whether a page of a folio has failed
 * @folio: locked, and isolated for migration
 *
 * folio_contain_hwpoisoned_page() does not know of a page in the middle of a
 * folio before memory_failure() has the lock of the folio. memory_failure() may
 * even give up without the lock, since it cannot handle an isolated folio. It
 * has counted the page by then. If it waits for the lock instead, it holds a
 * reference, and the folio does not move.
 *
 * Return: true if a page is known to have failed.
 */
static inline bool folio_has_hwpoison(struct folio *folio)
{
#ifdef CONFIG_MEMORY_FAILURE
	long i, nr = folio_nr_pages(folio);

	if (folio_contain_hwpoisoned_page(folio))
		return true;
	if (likely(!atomic_long_read(&num_poisoned_pages)))
		return false;
	for (i = 1; i < nr; i++)
		if (PageHWPoison(folio_page(folio, i)))
			return true;
#endif
	return false;
}

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD
DECLARE_STATIC_KEY_FALSE(migrate_offload_enabled);
extern unsigned long migrate_offload_reasons;
extern unsigned int migrate_min_folio_bytes;
extern unsigned int migrate_min_batch_bytes;
extern unsigned int migrate_latency_us;
extern unsigned int migrate_chunk_bytes;
extern bool migrate_share;

struct migrate_offload_batch *
migrate_offload_submit(struct migrate_list *single,
		       struct migrate_list *batched, enum migrate_mode mode,
		       enum migrate_reason reason, u64 busy_ns);
unsigned int migrate_offload_wait(struct migrate_offload_batch *batch,
				  struct migrate_list *lost);
int migrate_offload_choose(const char *name);
int migrate_offload_show_migrators(char *buf);

void migrate_policy_use(unsigned long reasons, unsigned int min_folio_bytes);
size_t migrate_policy_min_bytes(void);
bool migrate_policy_takes(size_t bytes, unsigned int nr);

void migrate_budget_init(struct migrate_budget *budget);
bool migrate_budget_add(struct migrate_budget *budget, struct folio *folio);
void migrate_latency_pause(const struct migrate_chunk_times *times,
			   const struct migrate_budget *next);
void migrate_latency_learn(const struct migrate_chunk_times *times);
void migrate_latency_learn_copy(unsigned int order, size_t bytes, u64 ns,
				bool shared);
bool migrate_latency_is_shared(unsigned int order);
u64 migrate_latency_cpu_ns(size_t bytes);
u64 migrate_latency_move_ns(unsigned int order, size_t bytes);
size_t migrate_latency_part(unsigned int order, size_t bytes);
void migrate_latency_refused(bool refused);
void migrate_latency_unshare(unsigned int order);
unsigned long migrate_latency_last_us(void);
unsigned long migrate_latency_last_bytes(void);
void migrate_latency_reset(void);

#ifdef CONFIG_DEBUG_MIGRATE_OFFLOAD
void migrate_offload_verify(const struct address_space *mapping,
			    struct folio *dst, struct folio *src);
#else
static inline void migrate_offload_verify(const struct address_space *mapping,
					  struct folio *dst, struct folio *src)
{
}
#endif

void migrate_offload_left(struct folio *src, enum migrate_reason reason,
			  enum migrate_left_cause cause);

/**
 * migrate_should_offload - test whether a migrator is wanted for a reason
 * @reason: why the folios migrate
 *
 * Without a migrator, the feature costs this branch, three times a chunk and
 * once a folio, and the larger struct migrate_chunk.
 *
 * Return: true if migrate_offload_submit() is worth calling.
 */
static inline bool migrate_should_offload(enum migrate_reason reason)
{
	return static_branch_unlikely(&migrate_offload_enabled) &&
	       (READ_ONCE(migrate_offload_reasons) & BIT(reason));
}

/**
 * migrate_offload_used - count a folio that a migrator has copied early
 * @mapping: what the folio belongs to, or NULL
 * @dst: the destination, which has replaced the source in @mapping
 * @src: the source, which nobody can find any more
 * @used: whether the early copy was good enough; otherwise, the CPU has copied,
 *	since memory of @src has failed
 *
 * At the move, since the early copy may be of no use before that.
 *
 * Context: Process context, may sleep.
 */
static inline void migrate_offload_used(const struct address_space *mapping,
					struct folio *dst, struct folio *src,
					bool used)
{
	const long nr_pages = folio_nr_pages(dst);

	if (used) {
		migrate_offload_verify(mapping, dst, src);
		count_vm_events(PGMIGRATE_OFFLOAD_SUCCESS, nr_pages);
	} else {
		count_vm_events(PGMIGRATE_OFFLOAD_FALLBACK, nr_pages);
		count_vm_events(PGMIGRATE_OFFLOAD_UNFIT, nr_pages);
	}
}

/**
 * migrate_offload_moved - count a folio that has migrated with the CPU's copy
 * @dst: where it is now
 * @reason: why it migrated
 *
 * With migrate_offload_used() and migrate_offload_uncopied(), counts each page
 * once that counts as PGMIGRATE_SUCCESS, if a migrator is wanted for its
 * reason.
 *
 * Context: Any.
 */
static inline void migrate_offload_moved(const struct folio *dst,
					 enum migrate_reason reason)
{
	if (migrate_should_offload(reason))
		count_vm_events(PGMIGRATE_OFFLOAD_FALLBACK,
				folio_nr_pages(dst));
}

/**
 * migrate_offload_uncopied - count what migrates without a copy of ours
 * @folio: freed before it could be copied, or not a folio, but memory that its
 *	driver moves
 * @reason: why it was to migrate
 *
 * Context: Any.
 */
static inline void migrate_offload_uncopied(const struct folio *folio,
					    enum migrate_reason reason)
{
	if (migrate_should_offload(reason))
		count_vm_events(PGMIGRATE_OFFLOAD_UNCOPIED,
				folio_nr_pages(folio));
}

/**
 * migrate_offload_max_folios - how many folios to unmap together at most
 * @reason: why the folios migrate
 *
 * A chunk of more would keep folios locked that no batch has room for.
 *
 * Return: the number, which is no limit without a migrator.
 */
static inline unsigned int
migrate_offload_max_folios(enum migrate_reason reason)
{
	return migrate_should_offload(reason) ? MIGRATE_OFFLOAD_MAX_PAIRS :
						UINT_MAX;
}
#else /* CONFIG_MIGRATION_COPY_OFFLOAD */
static inline void migrate_budget_init(struct migrate_budget *budget)
{
}

static inline bool migrate_budget_add(struct migrate_budget *budget,
				      struct folio *folio)
{
	return true;
}

static inline void
migrate_latency_pause(const struct migrate_chunk_times *times,
		      const struct migrate_budget *next)
{
}

static inline void
migrate_latency_learn(const struct migrate_chunk_times *times)
{
}

static inline struct migrate_offload_batch *
migrate_offload_submit(struct migrate_list *single,
		       struct migrate_list *batched, enum migrate_mode mode,
		       enum migrate_reason reason, u64 busy_ns)
{
	return NULL;
}

static inline unsigned int
migrate_offload_wait(struct migrate_offload_batch *batch,
		     struct migrate_list *lost)
{
	return 0;
}

static inline void migrate_offload_used(const struct address_space *mapping,
					struct folio *dst, struct folio *src,
					bool used)
{
}

static inline void migrate_offload_moved(const struct folio *dst,
					 enum migrate_reason reason)
{
}

static inline void migrate_offload_uncopied(const struct folio *folio,
					    enum migrate_reason reason)
{
}

static inline void migrate_offload_left(struct folio *src,
					enum migrate_reason reason,
					enum migrate_left_cause cause)
{
}

static inline bool migrate_should_offload(enum migrate_reason reason)
{
	return false;
}

static inline unsigned int
migrate_offload_max_folios(enum migrate_reason reason)
{
	return UINT_MAX;
}
#endif /* CONFIG_MIGRATION_COPY_OFFLOAD */
#endif /* _MM_MIGRATE_COPY_OFFLOAD_H */
