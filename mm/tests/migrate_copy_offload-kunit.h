/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tests of the copy offload in page migration: which folios are offered to a
 * migrator, and what becomes of what it says of them. The folios are made by
 * hand and belong to nobody else; the migrator is a fake that copies nothing,
 * but records what it is given.
 */
#ifndef _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H
#define _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H

#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/buffer_head.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/nodemask.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "../swap.h"

/* More than one call takes, and one pair for a third call */
#define TEST_MAX_PAIRS	(2 * MIGRATE_OFFLOAD_MAX_PAIRS + 1)
#define TEST_MAX_CALLS	3

/* What the fake migrator was given in one call */
struct test_call {
	size_t bytes;
	unsigned int nr;
	int src_nid;
	int dst_nid;
	enum migrate_mode mode;
	enum migrate_reason reason;
};

struct offload_test {
	struct list_head src;
	struct list_head dst;
	struct list_head lost_src;
	struct list_head lost_dst;

	/* All pairs that were handed in, and those that arrived */
	unsigned int nr;
	struct migrate_pair pairs[TEST_MAX_PAIRS];
	unsigned int nr_offered;
	struct migrate_pair offered[TEST_MAX_PAIRS];

	unsigned int nr_calls;
	struct test_call calls[TEST_MAX_CALLS];

	/* What the migrator does besides */
	void (*act)(struct offload_test *t,
		    struct migrate_offload_batch *batch);

	struct address_space mapping;
	struct inode inode;
};

static void test_copy(struct migrate_offload_batch *batch)
{
	struct kunit *test = kunit_get_current_test();
	struct offload_test *t;
	struct test_call *call;
	unsigned int i;

	/* Somebody else's migration, should there be one */
	if (!test)
		return;
	t = test->priv;

	/* No assertions, which would leave this with the SRCU lock held */
	KUNIT_EXPECT_LT(test, t->nr_calls, TEST_MAX_CALLS);
	KUNIT_EXPECT_LE(test, t->nr_offered + batch->nr, TEST_MAX_PAIRS);
	if (t->nr_calls >= TEST_MAX_CALLS ||
	    t->nr_offered + batch->nr > TEST_MAX_PAIRS)
		return;
	KUNIT_EXPECT_GT(test, batch->nr, 0);
	KUNIT_EXPECT_LE(test, batch->nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(batch->copied,
					     MIGRATE_OFFLOAD_MAX_PAIRS));
	KUNIT_EXPECT_TRUE(test, bitmap_empty(batch->lost,
					     MIGRATE_OFFLOAD_MAX_PAIRS));

	call = &t->calls[t->nr_calls++];
	call->bytes = batch->bytes;
	call->nr = batch->nr;
	call->src_nid = batch->src_nid;
	call->dst_nid = batch->dst_nid;
	call->mode = batch->mode;
	call->reason = batch->reason;
	for (i = 0; i < batch->nr; i++)
		t->offered[t->nr_offered++] = batch->pairs[i];

	if (t->act)
		t->act(t, batch);
}

static const struct migrator test_migrator = {
	.name = "kunit",
	.copy = test_copy,
};

static unsigned int test_others_calls;

static void test_others_copy(struct migrate_offload_batch *batch)
{
	test_others_calls++;
}

static const struct migrator test_others_migrator = {
	.name = "kunit-other",
	.copy = test_others_copy,
};

/* What a file's folio can be migrated with */
static const struct address_space_operations test_aops = {
	.migrate_folio = migrate_folio,
};

static const struct address_space_operations test_filemap_aops = {
	.migrate_folio = filemap_migrate_folio,
};

static const struct address_space_operations test_buffer_aops = {
	.migrate_folio = buffer_migrate_folio,
};

static const struct address_space_operations test_norefs_aops = {
	.migrate_folio = buffer_migrate_folio_norefs,
};

static const struct address_space_operations test_no_aops;

static int test_migrate_folio(struct address_space *mapping, struct folio *dst,
			      struct folio *src, enum migrate_mode mode)
{
	return migrate_folio(mapping, dst, src, mode);
}

static const struct address_space_operations test_own_aops = {
	.migrate_folio = test_migrate_folio,
};

/* As most machines are; whether this one is too is a test of its own */
static bool test_plain_bytes(struct folio *folio)
{
	return true;
}

static bool test_no_plain_bytes(struct folio *folio)
{
	return false;
}

/* Folios as migration has them: locked, and with one reference, its own */
static struct folio *test_folio(struct kunit *test, unsigned int order, int nid)
{
	struct folio *folio;

	folio = __folio_alloc(GFP_KERNEL | __GFP_THISNODE, order, nid, NULL);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	__folio_set_locked(folio);
	INIT_LIST_HEAD(&folio->lru);
	return folio;
}

static void test_folio_free(struct folio *folio)
{
	folio->mapping = NULL;
	folio_set_count(folio, 1);
	folio->migrate_info = 0;
	__folio_clear_locked(folio);
	folio_put(folio);
}

static struct migrate_pair *test_add_nid(struct kunit *test,
					 unsigned int src_order, int src_nid,
					 unsigned int dst_order, int dst_nid)
{
	struct offload_test *t = test->priv;
	struct migrate_pair *pair = &t->pairs[t->nr];

	KUNIT_ASSERT_LT(test, t->nr, TEST_MAX_PAIRS);
	pair->src = test_folio(test, src_order, src_nid);
	pair->dst = test_folio(test, dst_order, dst_nid);
	t->nr++;
	pair->dst->migrate_info = FOLIO_WAS_MAPPED;
	list_add_tail(&pair->src->lru, &t->src);
	list_add_tail(&pair->dst->lru, &t->dst);
	return pair;
}

static struct migrate_pair *test_add(struct kunit *test, unsigned int order)
{
	int nid = numa_node_id();

	return test_add_nid(test, order, nid, order, nid);
}

static void test_run(struct kunit *test)
{
	struct offload_test *t = test->priv;

	migrate_offload_copy(&t->src, &t->dst, &t->lost_src, &t->lost_dst,
			     MIGRATE_ASYNC, MR_SYSCALL);
}

static void test_forget(struct offload_test *t)
{
	while (t->nr) {
		struct migrate_pair *pair = &t->pairs[--t->nr];

		test_folio_free(pair->src);
		test_folio_free(pair->dst);
	}
	INIT_LIST_HEAD(&t->src);
	INIT_LIST_HEAD(&t->dst);
	INIT_LIST_HEAD(&t->lost_src);
	INIT_LIST_HEAD(&t->lost_dst);
	t->nr_offered = 0;
	t->nr_calls = 0;
}

static int test_init_folios(struct kunit *test)
{
	struct offload_test *t;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	if (!t)
		return -ENOMEM;
	test_forget(t);
	t->mapping.a_ops = &test_aops;
	test->priv = t;
	kunit_activate_static_stub(test, folio_is_plain_bytes,
				   test_plain_bytes);
	return 0;
}

static int test_init(struct kunit *test)
{
	int ret;

	ret = test_init_folios(test);
	if (ret)
		return ret;
	/* For no reason, so that all others stay with the CPU */
	ret = migrate_offload_register(&test_migrator, 0);
	/* One of ours would be left from the test before: no excuse */
	if (ret == -EBUSY && migrate_offload_migrator != &test_migrator &&
	    migrate_offload_migrator != &test_others_migrator)
		kunit_skip(test, "another migrator is in use");
	return ret;
}

static void test_exit(struct kunit *test)
{
	migrate_offload_unregister(&test_migrator);
	migrate_offload_unregister(&test_others_migrator);
	if (test->priv)
		test_forget(test->priv);
}

/* ---- which folios are offered ---- */

/*
 * Offer @pair between two others for which nothing speaks against it, so that
 * a pair that is left out does not drag others along, or pair them wrongly.
 */
static struct migrate_pair *test_add_between(struct kunit *test,
					     unsigned int src_order,
					     unsigned int dst_order)
{
	struct offload_test *t = test->priv;
	int nid = numa_node_id();

	test_forget(t);
	test_add(test, 0);
	test_add_nid(test, src_order, nid, dst_order, nid);
	test_add(test, 0);
	return &t->pairs[1];
}

static bool test_is_offered(struct kunit *test)
{
	struct offload_test *t = test->priv;
	bool offered;
	unsigned int i, j;

	t->nr_calls = 0;
	t->nr_offered = 0;
	test_run(test);

	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	offered = t->nr_offered == t->nr;
	if (!offered)
		KUNIT_EXPECT_EQ(test, t->nr_offered, t->nr - 1);
	for (i = 0, j = 0; i < t->nr; i++) {
		if (i == 1 && !offered)
			continue;
		KUNIT_EXPECT_PTR_EQ(test, t->offered[j].src, t->pairs[i].src);
		KUNIT_EXPECT_PTR_EQ(test, t->offered[j].dst, t->pairs[i].dst);
		j++;
	}
	return offered;
}

/* What kept the pair in the middle from being offered, if something did */
static enum migrate_cause test_cause(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_pair *pair = &t->pairs[1];
	enum migrate_cause cause;

	cause = folio_offload_cause(pair->src, pair->dst);
	KUNIT_EXPECT_EQ(test, test_is_offered(test), cause == MC_NONE);
	return cause;
}

static const unsigned int test_orders[] = { 0, 1, 4 };

static void test_order_desc(const unsigned int *order, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "order %u", *order);
}

KUNIT_ARRAY_PARAM(test_order, test_orders, test_order_desc);

static unsigned int test_param_order(struct kunit *test)
{
	return *(const unsigned int *)test->param_value;
}

static void test_plain(struct kunit *test)
{
	unsigned int order = test_param_order(test);

	test_add_between(test, order, order);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

/* Smaller ones do not pay, as the migrator has said */
static void test_small(struct kunit *test)
{
	unsigned int order = test_param_order(test);

	test_forget(test->priv);
	test_add(test, order + 1);
	test_add(test, order);
	test_add(test, order + 1);
	WRITE_ONCE(migrate_offload_min_bytes, (PAGE_SIZE << order) + 1);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_TOO_SMALL);
	WRITE_ONCE(migrate_offload_min_bytes, PAGE_SIZE << order);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	WRITE_ONCE(migrate_offload_min_bytes, 0);
}

/* Somebody else has a reference, such as direct I/O into the folio */
static void test_reference(struct kunit *test)
{
	unsigned int order = test_param_order(test);
	struct migrate_pair *pair = test_add_between(test, order, order);

	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
	folio_put(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

/* A reference that is missing is as wrong as one too many */
static void test_reference_of_mapping(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int order = test_param_order(test);
	struct migrate_pair *pair = test_add_between(test, order, order);

	pair->src->mapping = &t->mapping;
	folio_ref_add(pair->src, folio_nr_pages(pair->src) - 1);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
}

/* The reference that the mapping's private data takes is an expected one */
static void test_reference_of_private(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_pair *pair = test_add_between(test, 0, 0);

	pair->src->mapping = &t->mapping;
	folio_ref_add(pair->src, 1);
	folio_set_private(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	folio_clear_private(pair->src);
}

/*
 * A small folio counts pins as references. It takes both rules away to let it
 * pass; what it looks like from outside is the same.
 */
static void test_pinned_small(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 0, 0);

	folio_ref_add(pair->src, GUP_PIN_COUNTING_BIAS);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_PINNED);
	folio_ref_sub(pair->src, GUP_PIN_COUNTING_BIAS);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

/*
 * A large folio has a count of pins, which alone must be reason enough: the
 * references are as expected here.
 */
static void test_pinned_large(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 2, 2);

	if (!folio_has_pincount(pair->src))
		kunit_skip(test, "no count of pins");
	atomic_inc(&pair->src->_pincount);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_PINNED);
	atomic_dec(&pair->src->_pincount);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

static void test_need_poison(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		kunit_skip(test, "needs CONFIG_MEMORY_FAILURE");
}

/* Flag a page as memory_failure() does, but do not count it */
static void test_poison(struct folio *folio, unsigned int i)
{
	SetPageHWPoison(folio_page(folio, i));
	if (folio_test_large(folio))
		folio_set_has_hwpoisoned(folio);
}

static void test_heal(struct folio *folio, unsigned int i)
{
	ClearPageHWPoison(folio_page(folio, i));
	if (folio_test_large(folio))
		folio_clear_has_hwpoisoned(folio);
}

static void test_poison_small(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 0, 0);

	test_need_poison(test);
	test_poison(pair->src, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_HWPOISON);
	test_heal(pair->src, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

static void test_poison_large(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 2, 2);

	test_need_poison(test);
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	test_poison(pair->src, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_HWPOISON);
	test_heal(pair->src, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

static void test_hugetlb(struct kunit *test)
{
#ifdef CONFIG_HUGETLB_PAGE
	struct migrate_pair *pair = test_add_between(test, 2, 2);

	__folio_set_hugetlb(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_HUGETLB);
	__folio_clear_hugetlb(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
#else
	kunit_skip(test, "needs CONFIG_HUGETLB_PAGE");
#endif
}

static void test_movable_ops(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 0, 0);
	struct page *page = &pair->src->page;

	__folio_set_offline(pair->src);
	SetPageMovableOps(page);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_MOVABLE_OPS);
	clear_bit(PG_movable_ops, &page->flags.f);
	__folio_clear_offline(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

#ifdef CONFIG_ZONE_DEVICE
static void test_zone_device_of(struct kunit *test, struct folio *folio)
{
	enum zone_type zone = folio_zonenum(folio);

	set_page_zone(&folio->page, ZONE_DEVICE);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_ZONE_DEVICE);
	set_page_zone(&folio->page, zone);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}
#else
static void test_zone_device_of(struct kunit *test, struct folio *folio)
{
	kunit_skip(test, "needs CONFIG_ZONE_DEVICE");
}
#endif

static void test_zone_device_src(struct kunit *test)
{
	test_zone_device_of(test, test_add_between(test, 0, 0)->src);
}

static void test_zone_device_dst(struct kunit *test)
{
	test_zone_device_of(test, test_add_between(test, 0, 0)->dst);
}

static void test_order_mismatch(struct kunit *test)
{
	test_add_between(test, 2, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_ORDER);
	test_add_between(test, 0, 2);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_ORDER);
	test_add_between(test, 2, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_ORDER);
}

/* Tags, shadow memory: copy_highpage() knows of them, an engine does not */
static void test_not_plain_bytes(struct kunit *test)
{
	struct offload_test *t = test->priv;

	test_add_between(test, 0, 0);
	kunit_activate_static_stub(test, folio_is_plain_bytes,
				   test_no_plain_bytes);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
}

static void test_plain_bytes_here(struct kunit *test)
{
	if (IS_ENABLED(CONFIG_KMSAN) || kasan_hw_tags_enabled())
		kunit_skip(test, "no folio is plain bytes here");

	kunit_deactivate_static_stub(test, folio_is_plain_bytes);
	test_add_between(test, 0, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	test_add_between(test, 2, 2);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
}

static void test_mte_tags(struct kunit *test)
{
#ifdef CONFIG_ARM64_MTE
	struct migrate_pair *pair;
	unsigned int i;

	if (!system_supports_mte())
		kunit_skip(test, "no MTE");

	kunit_deactivate_static_stub(test, folio_is_plain_bytes);
	for (i = 0; i < 4; i++) {
		pair = test_add_between(test, 2, 2);
		set_page_mte_tagged(folio_page(pair->src, i));
		KUNIT_EXPECT_EQ(test, test_cause(test), MC_TAGGED);
	}
#else
	kunit_skip(test, "needs CONFIG_ARM64_MTE");
#endif
}

/* ---- mappings ---- */

static const struct test_mapping {
	const char *name;
	const struct address_space_operations *a_ops;
	bool buffers;
	enum migrate_cause cause;
	umode_t mode;
} test_mappings[] = {
	{ "migrate_folio", &test_aops },
	{ "filemap_migrate_folio", &test_filemap_aops },
	{ "buffer_migrate_folio", &test_buffer_aops, true, MC_MAPPING },
	{ "buffer_migrate_folio_norefs", &test_norefs_aops, true, MC_MAPPING },
	{ "none", &test_no_aops, .cause = MC_MAPPING },
	{ "one of its own", &test_own_aops, .cause = MC_MAPPING },
	{ "of a file", &test_filemap_aops, .mode = S_IFREG },
	/* Whatever it says, filesystems may write to it */
	{ "of a block device", &test_filemap_aops, .cause = MC_MAPPING,
	  .mode = S_IFBLK },
};

KUNIT_ARRAY_PARAM_DESC(test_mapping, test_mappings, name);

static void test_mapping(struct kunit *test)
{
	struct offload_test *t = test->priv;
	const struct test_mapping *param = test->param_value;
	struct migrate_pair *pair = test_add_between(test, 0, 0);

	if (param->buffers && !IS_ENABLED(CONFIG_BUFFER_HEAD))
		kunit_skip(test, "needs CONFIG_BUFFER_HEAD");

	t->mapping.a_ops = param->a_ops;
	if (param->mode) {
		t->inode.i_mode = param->mode;
		t->mapping.host = &t->inode;
	}
	pair->src->mapping = &t->mapping;
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), param->cause);

	/* No matter how, if even the kernel is not to look at the content */
	set_bit(AS_INACCESSIBLE, &t->mapping.flags);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_INACCESSIBLE);
}

/* The anon_vma is not looked at, so a number does in place of one */
static void test_anon(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 0, 0);

	pair->src->mapping = (void *)(PAGE_SIZE | FOLIO_MAPPING_ANON);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
}

static void test_swap_cache(struct kunit *test)
{
	struct migrate_pair *pair = test_add_between(test, 2, 2);
	struct folio *src = pair->src;

	if (!IS_ENABLED(CONFIG_SWAP))
		kunit_skip(test, "needs CONFIG_SWAP");

	src->mapping = (void *)(PAGE_SIZE | FOLIO_MAPPING_ANON);
	folio_set_swapbacked(src);
	folio_set_swapcache(src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_REFERENCES);
	folio_ref_add(src, folio_nr_pages(src));
	KUNIT_EXPECT_EQ(test, test_cause(test), MC_NONE);
	folio_clear_swapcache(src);
	folio_clear_swapbacked(src);
}

/* ---- batches ---- */

static void test_single(struct kunit *test)
{
	struct offload_test *t = test->priv;

	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);

	test_add(test, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);

	/* Nor is it worth while once there are two, or if the one is large */
	test_add(test, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);

	test_forget(t);
	test_add(test, 1);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_offered, 1);
}

static void test_all_left_out(struct kunit *test)
{
	struct offload_test *t = test->priv;

	folio_get(test_add(test, 0)->src);
	folio_get(test_add(test, 1)->src);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
}

static void test_batch(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct test_call *call = &t->calls[0];
	unsigned int i;

	test_add(test, 0);
	test_add(test, 3);
	/* One that is left out does not count */
	folio_get(test_add(test, 4)->src);
	test_add(test, 0);
	migrate_offload_copy(&t->src, &t->dst, &t->lost_src, &t->lost_dst,
			     MIGRATE_SYNC, MR_DEMOTION);

	KUNIT_ASSERT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, call->nr, 3);
	KUNIT_EXPECT_EQ(test, call->bytes, 10 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, call->mode, MIGRATE_SYNC);
	KUNIT_EXPECT_EQ(test, call->reason, MR_DEMOTION);
	KUNIT_EXPECT_EQ(test, call->src_nid, folio_nid(t->pairs[0].src));
	KUNIT_EXPECT_EQ(test, call->dst_nid, folio_nid(t->pairs[0].dst));

	/* A migrator that says nothing changes nothing */
	KUNIT_EXPECT_TRUE(test, list_empty(&t->lost_src));
	KUNIT_EXPECT_TRUE(test, list_empty(&t->lost_dst));
	KUNIT_EXPECT_EQ(test, list_count_nodes(&t->src), t->nr);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&t->dst), t->nr);
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ(test, t->pairs[i].dst->migrate_info,
				FOLIO_WAS_MAPPED);
}

static void test_nodes(struct kunit *test)
{
	struct offload_test *t = test->priv;
	int a = first_memory_node;
	int b = next_memory_node(a);

	if (b >= MAX_NUMNODES)
		kunit_skip(test, "needs two nodes with memory");

	/* All on one node each, which are not the same */
	test_add_nid(test, 0, a, 0, b);
	test_add_nid(test, 0, a, 0, b);
	test_run(test);
	KUNIT_ASSERT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->calls[0].src_nid, a);
	KUNIT_EXPECT_EQ(test, t->calls[0].dst_nid, b);

	/* Sources differ, and stay so when the last is as the first */
	test_add_nid(test, 0, b, 0, b);
	test_add_nid(test, 0, a, 0, b);
	test_run(test);
	KUNIT_ASSERT_EQ(test, t->nr_calls, 2);
	KUNIT_EXPECT_EQ(test, t->calls[1].src_nid, NUMA_NO_NODE);
	KUNIT_EXPECT_EQ(test, t->calls[1].dst_nid, b);

	/* And destinations */
	test_forget(t);
	test_add_nid(test, 0, a, 0, b);
	test_add_nid(test, 0, a, 0, a);
	test_add_nid(test, 0, a, 0, b);
	test_run(test);
	KUNIT_ASSERT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->calls[0].src_nid, a);
	KUNIT_EXPECT_EQ(test, t->calls[0].dst_nid, NUMA_NO_NODE);
}

static bool test_is_copied(struct offload_test *t, unsigned int i)
{
	return t->pairs[i].dst->migrate_info & FOLIO_CONTENT_COPIED;
}

/* Everything of the first call, nothing of what comes later */
static void test_act_first_call(struct offload_test *t,
				struct migrate_offload_batch *batch)
{
	if (t->nr_calls == 1)
		bitmap_fill(batch->copied, batch->nr);
}

static void test_many(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < TEST_MAX_PAIRS; i++)
		test_add(test, 0);
	t->act = test_act_first_call;
	test_run(test);

	KUNIT_ASSERT_EQ(test, t->nr_calls, 3);
	KUNIT_ASSERT_EQ(test, t->nr_offered, TEST_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->calls[0].nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->calls[1].nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->calls[2].nr, 1);
	KUNIT_EXPECT_EQ(test, t->calls[0].bytes,
			MIGRATE_OFFLOAD_MAX_PAIRS * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, t->calls[1].bytes,
			MIGRATE_OFFLOAD_MAX_PAIRS * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, t->calls[2].bytes, PAGE_SIZE);
	for (i = 0; i < TEST_MAX_PAIRS; i++) {
		KUNIT_EXPECT_PTR_EQ(test, t->offered[i].src, t->pairs[i].src);
		KUNIT_EXPECT_PTR_EQ(test, t->offered[i].dst, t->pairs[i].dst);
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i),
				i < MIGRATE_OFFLOAD_MAX_PAIRS);
	}
}

static void test_act_copied(struct offload_test *t,
			    struct migrate_offload_batch *batch)
{
	/* The second that was handed in is left out */
	migrate_offload_set_copied(batch, 1);
	migrate_offload_set_copied(batch, 3);
}

static void test_copied(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 6; i++)
		test_add(test, i % 2);
	folio_get(t->pairs[1].src);
	t->act = test_act_copied;
	test_run(test);

	for (i = 0; i < t->nr; i++) {
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 2 || i == 4);
		/* What is recorded beside it stays */
		KUNIT_EXPECT_EQ(test, t->pairs[i].dst->migrate_info &
				~FOLIO_CONTENT_COPIED, FOLIO_WAS_MAPPED);
	}
}

static void test_act_lost(struct offload_test *t,
			  struct migrate_offload_batch *batch)
{
	migrate_offload_set_copied(batch, 0);
	migrate_offload_set_lost(batch, 1);
	/* Both: it was written to, and may be so again */
	migrate_offload_set_lost(batch, 3);
	migrate_offload_set_copied(batch, 3);
	migrate_offload_set_lost(batch, 4);
}

static void test_expect_lists(struct kunit *test, struct list_head *src,
			      struct list_head *dst, const unsigned int *which,
			      unsigned int nr)
{
	struct offload_test *t = test->priv;
	struct folio *folio;
	unsigned int i = 0;

	KUNIT_ASSERT_EQ(test, list_count_nodes(src), nr);
	KUNIT_ASSERT_EQ(test, list_count_nodes(dst), nr);
	list_for_each_entry(folio, src, lru)
		KUNIT_EXPECT_PTR_EQ(test, folio, t->pairs[which[i++]].src);
	i = 0;
	list_for_each_entry(folio, dst, lru)
		KUNIT_EXPECT_PTR_EQ(test, folio, t->pairs[which[i++]].dst);
}

static void test_lost(struct kunit *test)
{
	static const unsigned int lost[] = { 1, 3, 4 };
	static const unsigned int rest[] = { 0, 2, 5 };
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 6; i++)
		test_add(test, i % 2);
	t->act = test_act_lost;
	test_run(test);

	test_expect_lists(test, &t->lost_src, &t->lost_dst, lost,
			  ARRAY_SIZE(lost));
	test_expect_lists(test, &t->src, &t->dst, rest, ARRAY_SIZE(rest));
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 0);

	/* The next batch knows nothing of that */
	t->act = NULL;
	test_run(test);
	test_expect_lists(test, &t->lost_src, &t->lost_dst, lost,
			  ARRAY_SIZE(lost));
	test_expect_lists(test, &t->src, &t->dst, rest, ARRAY_SIZE(rest));
}

/* Memory fails while it is being copied; engines need not notice */
static void test_act_poison(struct offload_test *t,
			    struct migrate_offload_batch *batch)
{
	unsigned int i;

	test_poison(batch->pairs[1].src, 0);
	if (folio_test_large(batch->pairs[3].src))
		test_poison(batch->pairs[3].src, 1);
	for (i = 0; i < batch->nr; i++)
		migrate_offload_set_copied(batch, i);
}

static void test_poison_meanwhile(struct kunit *test)
{
	struct offload_test *t = test->priv;
	bool large = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE);
	unsigned int i;

	test_need_poison(test);
	for (i = 0; i < 5; i++)
		test_add(test, i == 3 && large ? 2 : 0);
	t->act = test_act_poison;
	test_run(test);
	test_heal(t->pairs[1].src, 0);
	if (large)
		test_heal(t->pairs[3].src, 1);

	KUNIT_ASSERT_EQ(test, t->nr_offered, 5);
	for (i = 0; i < 5; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i),
				i != 1 && !(i == 3 && large));
	/* It is for the CPU's copy to fail, not for this one */
	KUNIT_EXPECT_TRUE(test, list_empty(&t->lost_src));
	KUNIT_EXPECT_EQ(test, list_count_nodes(&t->src), 5);
}

/* What is in a folio, if it is one byte all over */
static void test_fill(struct folio *folio, u8 byte)
{
	long i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		memset(page_address(folio_page(folio, i)), byte, PAGE_SIZE);
}

static bool test_is_filled(struct folio *folio, u8 byte)
{
	long i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		if (memchr_inv(page_address(folio_page(folio, i)), byte,
			       PAGE_SIZE))
			return false;
	return true;
}

static void test_act_all(struct offload_test *t,
			 struct migrate_offload_batch *batch)
{
	bitmap_fill(batch->copied, batch->nr);
}

/* The fake migrator copies nothing, so the content tells whether the CPU did */
static void test_add_filled(struct kunit *test, unsigned int order)
{
	struct migrate_pair *pair = test_add(test, order);

	test_fill(pair->src, 'a');
	test_fill(pair->dst, 'b');
	KUNIT_ASSERT_EQ(test, 0, mem_cgroup_charge(pair->src, NULL,
						   GFP_KERNEL));
}

/* Move a folio that was copied, as migrate_folio_move() does */
static void test_move(struct kunit *test, unsigned int i)
{
	struct offload_test *t = test->priv;
	struct migrate_pair *pair = &t->pairs[i];

	KUNIT_EXPECT_TRUE(test, test_is_copied(t, i));
	/* All else has been extracted by then */
	pair->dst->migrate_info = FOLIO_CONTENT_COPIED;
	KUNIT_EXPECT_EQ(test, 0, migrate_folio(NULL, pair->dst, pair->src,
					       MIGRATE_ASYNC));
	/* It is the private data of an ordinary folio from now on */
	KUNIT_EXPECT_EQ(test, pair->dst->migrate_info, 0);
}

static void test_mark_used(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	test_add_filled(test, 0);
	test_add_filled(test, 2);
	t->act = test_act_all;
	test_run(test);
	for (i = 0; i < 2; i++) {
		test_move(test, i);
		KUNIT_EXPECT_TRUE(test, test_is_filled(t->pairs[i].dst, 'b'));
	}
}

/* Memory fails after the batch is done and before the folio is moved */
static void test_poison_before_move(struct kunit *test)
{
	struct offload_test *t = test->priv;
	bool large = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE);
	unsigned int i;

	test_need_poison(test);
	for (i = 0; i < 4; i++)
		test_add_filled(test, i == 3 && large ? 2 : 0);
	t->act = test_act_all;
	test_run(test);
	test_poison(t->pairs[1].src, 0);
	if (large)
		test_poison(t->pairs[3].src, 1);
	for (i = 0; i < 4; i++)
		test_move(test, i);
	test_heal(t->pairs[1].src, 0);
	if (large)
		test_heal(t->pairs[3].src, 1);
	for (i = 0; i < 4; i++) {
		u8 byte = i == 1 || (i == 3 && large) ? 'a' : 'b';

		KUNIT_EXPECT_TRUE(test,
				  test_is_filled(t->pairs[i].dst, byte));
	}
}

/* Another CPU migrates while this one's migrator copies */
static void test_act_nested(struct offload_test *t,
			    struct migrate_offload_batch *batch)
{
	LIST_HEAD(src);
	LIST_HEAD(dst);
	LIST_HEAD(lost);

	if (t->nr_calls > 1)
		return;

	list_cut_before(&src, &t->src, &t->pairs[2].src->lru);
	list_cut_before(&dst, &t->dst, &t->pairs[2].dst->lru);
	migrate_offload_copy(&src, &dst, &lost, &lost, MIGRATE_ASYNC,
			     MR_SYSCALL);
	list_splice(&src, &t->src);
	list_splice(&dst, &t->dst);
	migrate_offload_set_copied(batch, 3);
}

static void test_nested(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 4; i++)
		test_add(test, 0);
	/* So that there is a batch already, for both to want */
	test_run(test);
	t->nr_calls = 0;
	t->nr_offered = 0;
	t->act = test_act_nested;
	test_run(test);

	KUNIT_ASSERT_EQ(test, t->nr_calls, 2);
	KUNIT_EXPECT_EQ(test, t->calls[0].nr, 4);
	KUNIT_EXPECT_EQ(test, t->calls[1].nr, 2);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 3);
}

static void test_act_counted(struct offload_test *t,
			     struct migrate_offload_batch *batch)
{
	migrate_offload_set_copied(batch, 0);
	/* The second is neither */
	migrate_offload_set_lost(batch, 2);
}

/* Each page once, as copied or as left, and what is left under its cause */
static void test_counted(struct kunit *test)
{
	static const struct {
		enum vm_event_item event;
		unsigned long pages;
	} expected[] = {
		{ PGMIGRATE_OFFLOAD_SUCCESS, 8 },
		{ PGMIGRATE_OFFLOAD_FALLBACK, 13 },
		{ PGMIGRATE_OFFLOAD_SMALL, 1 },
		{ PGMIGRATE_OFFLOAD_MAPPING, 4 },
		{ PGMIGRATE_OFFLOAD_BUSY, 1 },
		{ PGMIGRATE_OFFLOAD_UNFIT, 4 },
		{ PGMIGRATE_OFFLOAD_FAILED, 3 },
	};
	struct offload_test *t = test->priv;
	unsigned long *before, *after;
	unsigned int i;

	if (!IS_ENABLED(CONFIG_VM_EVENT_COUNTERS))
		kunit_skip(test, "needs CONFIG_VM_EVENT_COUNTERS");
	before = kunit_kcalloc(test, NR_VM_EVENT_ITEMS, sizeof(*before),
			       GFP_KERNEL);
	after = kunit_kcalloc(test, NR_VM_EVENT_ITEMS, sizeof(*after),
			      GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, before);
	KUNIT_ASSERT_NOT_NULL(test, after);
	all_vm_events(before);

	test_add(test, 3);
	folio_get(test_add(test, 0)->src);
	test_add(test, 1);
	t->mapping.a_ops = &test_own_aops;
	test_add(test, 2)->src->mapping = &t->mapping;
	test_add_nid(test, 2, numa_node_id(), 3, numa_node_id());
	test_add(test, 0);
	t->act = test_act_counted;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_offered, 3);

	test_forget(t);
	test_add(test, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_offered, 0);

	all_vm_events(after);
	for (i = 0; i < ARRAY_SIZE(expected); i++)
		KUNIT_EXPECT_EQ_MSG(test, expected[i].pages,
				    after[expected[i].event] -
				    before[expected[i].event], "line %u", i);
}

static struct kunit_case folios_test_cases[] = {
	KUNIT_CASE_PARAM(test_plain, test_order_gen_params),
	KUNIT_CASE_PARAM(test_small, test_order_gen_params),
	KUNIT_CASE_PARAM(test_reference, test_order_gen_params),
	KUNIT_CASE_PARAM(test_reference_of_mapping, test_order_gen_params),
	KUNIT_CASE(test_reference_of_private),
	KUNIT_CASE(test_pinned_small),
	KUNIT_CASE(test_pinned_large),
	KUNIT_CASE(test_poison_small),
	KUNIT_CASE(test_poison_large),
	KUNIT_CASE(test_hugetlb),
	KUNIT_CASE(test_movable_ops),
	KUNIT_CASE(test_zone_device_src),
	KUNIT_CASE(test_zone_device_dst),
	KUNIT_CASE(test_order_mismatch),
	KUNIT_CASE(test_not_plain_bytes),
	KUNIT_CASE(test_plain_bytes_here),
	KUNIT_CASE(test_mte_tags),
	KUNIT_CASE_PARAM(test_mapping, test_mapping_gen_params),
	KUNIT_CASE(test_anon),
	KUNIT_CASE(test_swap_cache),
	{}
};

static struct kunit_suite folios_test_suite = {
	.name = "migrate_offload_folios",
	.init = test_init,
	.exit = test_exit,
	.test_cases = folios_test_cases,
};

static struct kunit_case batch_test_cases[] = {
	KUNIT_CASE(test_single),
	KUNIT_CASE(test_all_left_out),
	KUNIT_CASE(test_batch),
	KUNIT_CASE(test_nodes),
	KUNIT_CASE(test_many),
	KUNIT_CASE(test_copied),
	KUNIT_CASE(test_lost),
	KUNIT_CASE(test_poison_meanwhile),
	KUNIT_CASE(test_poison_before_move),
	KUNIT_CASE(test_mark_used),
	KUNIT_CASE(test_counted),
	KUNIT_CASE(test_nested),
	{}
};

static struct kunit_suite batch_test_suite = {
	.name = "migrate_offload_batch",
	.init = test_init,
	.exit = test_exit,
	.test_cases = batch_test_cases,
};

/* ---- registration ---- */

static int test_init_registration(struct kunit *test)
{
	int ret = test_init(test);

	if (!ret) {
		migrate_offload_unregister(&test_migrator);
		test_others_calls = 0;
		test_add(test, 0);
		test_add(test, 0);
	}
	return ret;
}

static void test_incomplete(struct kunit *test)
{
	static const struct migrator no_name = { .copy = test_copy };
	static const struct migrator no_copy = { .name = "kunit" };
	struct offload_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, migrate_offload_register(NULL, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&no_name, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&no_copy, 0), -EINVAL);
	/* Should it have been taken, do not call it */
	migrate_offload_unregister(&no_copy);
	migrate_offload_unregister(&no_name);

	/* None of these is in the way */
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&test_migrator, 0), 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
}

static void test_unknown_reasons(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_NEVER)),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&test_migrator, ~0UL),
			-EINVAL);
	KUNIT_EXPECT_FALSE(test, static_key_enabled(&migrate_offload_enabled));
}

static void test_second(struct kunit *test)
{
	struct offload_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION)), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&test_others_migrator,
						       BIT(MR_SYSCALL)),
			-EBUSY);
	KUNIT_EXPECT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_SYSCALL)),
			-EBUSY);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, test_others_calls, 0);
}

static void test_unregister_others(struct kunit *test)
{
	struct offload_test *t = test->priv;

	migrate_offload_unregister(NULL);
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION)), 0);
	migrate_offload_unregister(NULL);
	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
}

static void test_set_reasons(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION)), 0);
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_LONGTERM_PIN));

	migrate_offload_set_reasons(NULL, 0);
	migrate_offload_set_reasons(&test_others_migrator, 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));

	migrate_offload_set_reasons(&test_migrator, BIT(MR_LONGTERM_PIN));
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_LONGTERM_PIN));

	migrate_offload_set_reasons(&test_migrator, ~0UL);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons,
			MIGRATE_OFFLOAD_ALL_REASONS);
	migrate_offload_set_reasons(&test_migrator, 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, 0);

	migrate_offload_unregister(&test_migrator);
	migrate_offload_set_reasons(&test_migrator, BIT(MR_DEMOTION));
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, 0);
}

static void test_set_min_bytes(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION)), 0);
	/* All, until somebody says otherwise */
	KUNIT_EXPECT_EQ(test, migrate_offload_min_bytes, 0);

	migrate_offload_set_min_bytes(NULL, SZ_16K);
	migrate_offload_set_min_bytes(&test_others_migrator, SZ_16K);
	KUNIT_EXPECT_EQ(test, migrate_offload_min_bytes, 0);
	migrate_offload_set_min_bytes(&test_migrator, SZ_16K);
	KUNIT_EXPECT_EQ(test, migrate_offload_min_bytes, SZ_16K);

	/* The next one does not begin with what the last one wanted */
	migrate_offload_unregister(&test_migrator);
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION)), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_min_bytes, 0);
	migrate_offload_unregister(&test_migrator);
}

static void test_unregister(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;
	int ret;

	for (i = 1; i <= 3; i++) {
		ret = migrate_offload_register(&test_migrator,
					       BIT(MR_DEMOTION));
		KUNIT_ASSERT_EQ(test, ret, 0);
		KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
		test_run(test);
		KUNIT_EXPECT_EQ(test, t->nr_calls, i);
		t->nr_offered = 0;

		migrate_offload_unregister(&test_migrator);
		KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
		/* As somebody does who found the branch open just before */
		test_run(test);
		KUNIT_EXPECT_EQ(test, t->nr_calls, i);
	}
}

static DECLARE_COMPLETION(test_slow_entered);
static bool test_slow_left;

static void test_slow_copy(struct migrate_offload_batch *batch)
{
	int i;

	complete(&test_slow_entered);
	/* Until unregistration has closed the door, and some time more */
	for (i = 0; i < 1000 && static_key_enabled(&migrate_offload_enabled);
	     i++)
		usleep_range(1000, 2000);
	msleep(50);
	WRITE_ONCE(test_slow_left, true);
}

static const struct migrator test_slow_migrator = {
	.name = "kunit-slow",
	.copy = test_slow_copy,
};

static int test_slow_thread(void *data)
{
	struct offload_test *t = data;

	migrate_offload_copy(&t->src, &t->dst, &t->lost_src, &t->lost_dst,
			     MIGRATE_ASYNC, MR_SYSCALL);
	return 0;
}

/* A module's code must not go while a batch is in there */
static void test_unregister_waits(struct kunit *test)
{
	struct task_struct *thread;
	unsigned long entered;
	bool left;

	reinit_completion(&test_slow_entered);
	WRITE_ONCE(test_slow_left, false);
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_slow_migrator, 0),
			0);
	thread = kthread_run(test_slow_thread, test->priv, "offload-kunit");
	if (IS_ERR(thread)) {
		migrate_offload_unregister(&test_slow_migrator);
		kunit_skip(test, "no thread");
	}
	get_task_struct(thread);
	entered = wait_for_completion_timeout(&test_slow_entered, 10 * HZ);
	migrate_offload_unregister(&test_slow_migrator);
	left = READ_ONCE(test_slow_left);
	kthread_stop_put(thread);

	KUNIT_EXPECT_NE(test, entered, 0);
	KUNIT_EXPECT_TRUE(test, left);
}

static struct kunit_case registration_test_cases[] = {
	KUNIT_CASE(test_incomplete),
	KUNIT_CASE(test_unknown_reasons),
	KUNIT_CASE(test_second),
	KUNIT_CASE(test_unregister_others),
	KUNIT_CASE(test_set_reasons),
	KUNIT_CASE(test_set_min_bytes),
	KUNIT_CASE(test_unregister),
	KUNIT_CASE(test_unregister_waits),
	{}
};

static struct kunit_suite registration_test_suite = {
	.name = "migrate_offload_registration",
	.init = test_init_registration,
	.exit = test_exit,
	.test_cases = registration_test_cases,
};

/* ---- sets of reasons ---- */

#define TEST_UNTOUCHED	0xbadUL

static const struct test_good {
	const char *text;
	unsigned long reasons;
} test_goods[] = {
	{ "all", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "all\n", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "none", 0 },
	{ "none\n", 0 },
	{ "0", 0 },
	{ "0x0\n", 0 },
	{ "1", BIT(0) },
	{ "0x3ff", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "0X108\n", BIT(MR_DEMOTION) | BIT(MR_SYSCALL) },
	{ "010", BIT(MR_SYSCALL) },
	{ "264", BIT(MR_DEMOTION) | BIT(MR_SYSCALL) },
	{ "demotion", BIT(MR_DEMOTION) },
	{ "demotion\n", BIT(MR_DEMOTION) },
	{ " \t demotion", BIT(MR_DEMOTION) },
	{ "demotion \t", BIT(MR_DEMOTION) },
	{ "demotion,demotion", BIT(MR_DEMOTION) },
	{ "damon,compaction,demotion\n",
	  BIT(MR_COMPACTION) | BIT(MR_DEMOTION) | BIT(MR_DAMON) },
};

KUNIT_ARRAY_PARAM_DESC(test_good, test_goods, text);

static void test_parse_good(struct kunit *test)
{
	const struct test_good *param = test->param_value;
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_EXPECT_EQ(test, migrate_offload_parse_reasons(param->text,
							    &reasons), 0);
	KUNIT_EXPECT_EQ(test, reasons, param->reasons);
}

static const struct test_bad {
	const char *text;
	int error;
} test_bads[] = {
	{ "", -EINVAL },
	{ "\n", -EINVAL },
	{ "  ", -EINVAL },
	{ "-1", -EINVAL },
	{ "-0x1", -EINVAL },
	/* One more than there are; all that fit in a long; more than fit */
	{ "0x400", -EINVAL },
	{ "0x401", -EINVAL },
	{ "0xffffffffffffffff", -EINVAL },
	{ "0x10000000000000000", -ERANGE },
	{ "99999999999999999999999999", -ERANGE },
	{ "1 2", -EINVAL },
	{ "1,2", -EINVAL },
	{ "0x", -EINVAL },
	{ "1.5", -EINVAL },
	{ "demotio", -EINVAL },
	{ "demotions", -EINVAL },
	{ "Demotion", -EINVAL },
	{ "All", -EINVAL },
	{ "all,demotion", -EINVAL },
	{ "demotion,all", -EINVAL },
	{ "demotion,none", -EINVAL },
	{ "demotion,1", -EINVAL },
	{ "demotion,", -EINVAL },
	{ ",demotion", -EINVAL },
	{ ",", -EINVAL },
	{ "demotion,,damon", -EINVAL },
	{ "demotion, damon", -EINVAL },
	{ "demotion ,damon", -EINVAL },
	{ "demotion damon", -EINVAL },
	{ "demotion\ndamon", -EINVAL },
	{ "damon,demotio", -EINVAL },
	{ "demotion;damon", -EINVAL },
	{ "\x01\x02\xff", -EINVAL },
	{ "demotion\xff", -EINVAL },
};

/* Some are empty or not fit to be printed */
static void test_bad_desc(const struct test_bad *param, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "\"%*pE\"",
		 (int)strlen(param->text), param->text);
}

KUNIT_ARRAY_PARAM(test_bad, test_bads, test_bad_desc);

static void test_parse_bad(struct kunit *test)
{
	const struct test_bad *param = test->param_value;
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_EXPECT_EQ(test, migrate_offload_parse_reasons(param->text,
							    &reasons),
			param->error);
	KUNIT_EXPECT_EQ(test, reasons, TEST_UNTOUCHED);
}

static void test_parse_names(struct kunit *test)
{
	int i;

	for (i = 0; i < MR_NEVER; i++) {
		const char *name = migrate_reason_names[i];
		unsigned long reasons = TEST_UNTOUCHED;
		int ret = migrate_offload_parse_reasons(name, &reasons);

		KUNIT_EXPECT_EQ_MSG(test, ret, 0, "%s", name);
		KUNIT_EXPECT_EQ_MSG(test, reasons, BIT(i), "%s", name);
	}
}

/* A page's worth of anything is refused, but not overrun */
static void test_parse_long(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_ASSERT_NOT_NULL(test, text);
	memset(text, 'x', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, migrate_offload_parse_reasons(text, &reasons),
			-EINVAL);
	memset(text, ',', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, migrate_offload_parse_reasons(text, &reasons),
			-EINVAL);
	memset(text, '9', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, migrate_offload_parse_reasons(text, &reasons),
			-ERANGE);
	KUNIT_EXPECT_EQ(test, reasons, TEST_UNTOUCHED);
}

/* Every set that there is can be read back as it was shown */
static void test_round_trip(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	unsigned long in, out;

	KUNIT_ASSERT_NOT_NULL(test, text);
	/* sysfs_emit() insists on a page */
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(text));
	for (in = 0; in <= MIGRATE_OFFLOAD_ALL_REASONS; in++) {
		int len = migrate_offload_show_reasons(text, in);
		int ret;

		out = TEST_UNTOUCHED;
		KUNIT_ASSERT_EQ(test, len, strlen(text));
		KUNIT_ASSERT_EQ(test, text[len - 1], '\n');
		ret = migrate_offload_parse_reasons(text, &out);
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "%s", text);
		KUNIT_ASSERT_EQ_MSG(test, in, out, "%s", text);
	}
}

static void test_show(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, text);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(text));
	migrate_offload_show_reasons(text, 0);
	KUNIT_EXPECT_STREQ(test, text, "none\n");
	migrate_offload_show_reasons(text, BIT(MR_DEMOTION));
	KUNIT_EXPECT_STREQ(test, text, "demotion\n");
	migrate_offload_show_reasons(text, BIT(MR_DEMOTION) |
				     BIT(MR_COMPACTION));
	KUNIT_EXPECT_STREQ(test, text, "compaction,demotion\n");
	/* There are no names for these */
	migrate_offload_show_reasons(text, ~MIGRATE_OFFLOAD_ALL_REASONS);
	KUNIT_EXPECT_STREQ(test, text, "none\n");
	migrate_offload_show_reasons(text, BIT(MR_NEVER) | BIT(MR_DAMON));
	KUNIT_EXPECT_STREQ(test, text, "damon\n");
}

static struct kunit_case reasons_test_cases[] = {
	KUNIT_CASE_PARAM(test_parse_good, test_good_gen_params),
	KUNIT_CASE_PARAM(test_parse_bad, test_bad_gen_params),
	KUNIT_CASE(test_parse_names),
	KUNIT_CASE(test_parse_long),
	KUNIT_CASE(test_round_trip),
	KUNIT_CASE(test_show),
	{}
};

static struct kunit_suite reasons_test_suite = {
	.name = "migrate_offload_reasons",
	.test_cases = reasons_test_cases,
};

kunit_test_suites(&folios_test_suite, &batch_test_suite,
		  &registration_test_suite, &reasons_test_suite);

#endif /* _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H */
