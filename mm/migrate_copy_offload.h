/* SPDX-License-Identifier: GPL-2.0 */
/* What mm/migrate.c needs to hand a batch of folios to a migrator. */
#ifndef _MM_MIGRATE_COPY_OFFLOAD_H
#define _MM_MIGRATE_COPY_OFFLOAD_H

#include <linux/bits.h>
#include <linux/fs.h>
#include <linux/jump_label.h>
#include <linux/migrate.h>
#include <linux/pagemap.h>

struct list_head;

/**
 * mapping_migrates_by_copy - is __migrate_folio() what migrates its folios?
 * @mapping: of a folio
 *
 * A filesystem with a migrate_folio() of its own may lock more than the folio
 * before it copies, as for buffer heads, or refuse to copy, as secretmem does.
 * So this is a list of what is known to do nothing else.
 *
 * Block devices are none of it, even without buffer heads: a filesystem may
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

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD
DECLARE_STATIC_KEY_FALSE(migrate_offload_enabled);
extern unsigned long migrate_offload_reasons;

unsigned int migrate_offload_copy(struct list_head *src_folios,
				  struct list_head *dst_folios,
				  struct list_head *lost_src,
				  struct list_head *lost_dst,
				  enum migrate_mode mode,
				  enum migrate_reason reason);

/**
 * migrate_should_offload - is a migrator there for this reason to migrate?
 * @reason: why the folios migrate
 *
 * What a kernel without a migrator pays for the feature, once a batch.
 *
 * Return: true if migrate_offload_copy() is worth calling.
 */
static inline bool migrate_should_offload(enum migrate_reason reason)
{
	return static_branch_unlikely(&migrate_offload_enabled) &&
	       (READ_ONCE(migrate_offload_reasons) & BIT(reason));
}
#else /* CONFIG_MIGRATION_COPY_OFFLOAD */
static inline unsigned int
migrate_offload_copy(struct list_head *src_folios, struct list_head *dst_folios,
		     struct list_head *lost_src, struct list_head *lost_dst,
		     enum migrate_mode mode, enum migrate_reason reason)
{
	return 0;
}

static inline bool migrate_should_offload(enum migrate_reason reason)
{
	return false;
}
#endif /* CONFIG_MIGRATION_COPY_OFFLOAD */
#endif /* _MM_MIGRATE_COPY_OFFLOAD_H */
