/* SPDX-License-Identifier: GPL-2.0 */
/* What mm/migrate.c needs to hand a batch of folios to a migrator. */
#ifndef _MM_MIGRATE_COPY_OFFLOAD_H
#define _MM_MIGRATE_COPY_OFFLOAD_H

#include <linux/bits.h>
#include <linux/jump_label.h>
#include <linux/migrate_mode.h>

struct list_head;

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
