/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tests of the copy offload in page migration: which folios a migrator gets,
 * and what the core does with what the migrator says about them. The folios are
 * made by hand and belong to nobody else. The migrator is a fake that copies
 * nothing, but records its batches.
 */
#ifndef _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H
#define _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H

#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/buffer_head.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/nodemask.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "../swap.h"

/* A few more than a batch has room for */
#define TEST_MAX_PAIRS	(MIGRATE_OFFLOAD_MAX_PAIRS + 4)
#define TEST_MAX_CALLS	3

struct test_pair {
	struct folio *src;
	struct folio *dst;
};

/* One batch, as the fake migrator got it */
struct test_call {
	struct migrate_offload_batch *batch;
	size_t bytes;
	unsigned int nr;
	int src_nid;
	int dst_nid;
	enum migrate_mode mode;
	enum migrate_reason reason;
	u64 busy_ns;
};

struct offload_test {
	struct migrate_list single;
	struct migrate_list batched;
	struct migrate_list lost;

	/* All pairs of the test, and those that arrived in batches */
	unsigned int nr;
	struct test_pair pairs[TEST_MAX_PAIRS];
	unsigned int nr_offered;
	struct test_pair offered[TEST_MAX_PAIRS];

	/* Calls of submit() and of wait() */
	unsigned int nr_calls;
	struct test_call calls[TEST_MAX_CALLS];
	unsigned int nr_waits;

	/* What migrate_offload_wait() returned last */
	unsigned int nr_copied;

	/* What the migrator does in submit() and wait(), if anything */
	int (*submit)(struct offload_test *t,
		      struct migrate_offload_batch *batch);
	void (*wait)(struct offload_test *t,
		     struct migrate_offload_batch *batch);

	/* To be put back */
	unsigned int min_batch_bytes;
	char wanted[MIGRATE_OFFLOAD_NAME_LEN];

	/* PF_MEMALLOC_NOIO as submit() and wait() found it */
	unsigned int submit_noio;
	unsigned int wait_noio;

	struct address_space mapping;
	struct inode inode;
	unsigned long events[NR_VM_EVENT_ITEMS];
};

static int test_submit(struct migrate_offload_batch *batch)
{
	struct kunit *test = kunit_get_current_test();
	struct offload_test *t;
	struct test_call *call;
	unsigned int i;

	/* The batch may be of a task that is not a test */
	if (!test)
		return -EBUSY;
	t = test->priv;

	/* No assertions, which would leave this with the SRCU lock held */
	KUNIT_EXPECT_LT(test, t->nr_calls, TEST_MAX_CALLS);
	KUNIT_EXPECT_LE(test, t->nr_offered + batch->nr, TEST_MAX_PAIRS);
	if (t->nr_calls >= TEST_MAX_CALLS ||
	    t->nr_offered + batch->nr > TEST_MAX_PAIRS)
		return -EBUSY;
	KUNIT_EXPECT_GT(test, batch->nr, 0);
	KUNIT_EXPECT_LE(test, batch->nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(batch->lost,
					     MIGRATE_OFFLOAD_MAX_PAIRS));

	call = &t->calls[t->nr_calls++];
	call->batch = batch;
	call->bytes = batch->bytes;
	call->nr = batch->nr;
	call->src_nid = batch->src_nid;
	call->dst_nid = batch->dst_nid;
	call->mode = batch->mode;
	call->reason = batch->reason;
	call->busy_ns = batch->busy_ns;
	for (i = 0; i < batch->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		KUNIT_EXPECT_EQ(test, atomic_long_read(&pair->copied), 0);
		t->offered[t->nr_offered++] = (struct test_pair) {
			.src = pair->src,
			.dst = pair->dst,
		};
	}
	t->submit_noio = current->flags & PF_MEMALLOC_NOIO;

	return t->submit ? t->submit(t, batch) : 0;
}

static void test_wait(struct migrate_offload_batch *batch)
{
	struct kunit *test = kunit_get_current_test();
	struct offload_test *t;

	if (!test)
		return;
	t = test->priv;
	t->nr_waits++;
	t->wait_noio = current->flags & PF_MEMALLOC_NOIO;
	if (t->wait)
		t->wait(t, batch);
}

static const struct migrate_offload_ops test_migrator = {
	.name = "kunit",
	.submit = test_submit,
	.wait = test_wait,
};

static unsigned int test_others_calls;
static unsigned int test_others_waits;

static int test_others_submit(struct migrate_offload_batch *batch)
{
	test_others_calls++;
	return 0;
}

static void test_others_wait(struct migrate_offload_batch *batch)
{
	test_others_waits++;
}

static const struct migrate_offload_ops test_others_migrator = {
	.name = "kunit-other",
	.submit = test_others_submit,
	.wait = test_others_wait,
};

/* Folios of any size are worth it */
static int test_register(const struct migrate_offload_ops *ops,
			 unsigned long reasons)
{
	return migrate_offload_register(ops, reasons, 0);
}

/* With the two above, one more than can be registered */
static const struct migrate_offload_ops
test_idle_migrators[MIGRATE_OFFLOAD_SLOTS - 1] = {
	{ "kunit-idle-1", test_others_submit, test_others_wait },
	{ "kunit-idle-2", test_others_submit, test_others_wait },
	{ "kunit-idle-3", test_others_submit, test_others_wait },
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

static struct test_pair *test_add_nid(struct kunit *test,
				      unsigned int src_order, int src_nid,
				      unsigned int dst_order, int dst_nid)
{
	struct offload_test *t = test->priv;
	struct test_pair *pair = &t->pairs[t->nr];

	KUNIT_ASSERT_LT(test, t->nr, TEST_MAX_PAIRS);
	pair->src = test_folio(test, src_order, src_nid);
	pair->dst = test_folio(test, dst_order, dst_nid);
	t->nr++;
	return pair;
}

static struct test_pair *test_add(struct kunit *test, unsigned int order)
{
	int nid = numa_node_id();

	return test_add_nid(test, order, nid, order, nid);
}

static void test_list_init(struct migrate_list *list)
{
	INIT_LIST_HEAD(&list->src);
	INIT_LIST_HEAD(&list->dst);
}

/* Put all pairs in the single list, as migration does once they are unmapped */
static void test_list(struct offload_test *t)
{
	unsigned int i;

	test_list_init(&t->single);
	test_list_init(&t->batched);
	test_list_init(&t->lost);
	for (i = 0; i < t->nr; i++) {
		t->pairs[i].dst->migrate_info = FOLIO_WAS_MAPPED;
		list_add_tail(&t->pairs[i].src->lru, &t->single.src);
		list_add_tail(&t->pairs[i].dst->lru, &t->single.dst);
	}
}

static struct migrate_offload_batch *test_begin(struct offload_test *t)
{
	test_list(t);
	return migrate_offload_submit(&t->single, &t->batched, MIGRATE_ASYNC,
				      MR_SYSCALL, 0);
}

static void test_end(struct offload_test *t,
		     struct migrate_offload_batch *batch)
{
	t->nr_copied = batch ? migrate_offload_wait(batch, &t->lost) : 0;
}

static void test_run(struct kunit *test)
{
	struct offload_test *t = test->priv;

	test_end(t, test_begin(t));
}

static void test_forget(struct offload_test *t)
{
	while (t->nr) {
		struct test_pair *pair = &t->pairs[--t->nr];

		test_folio_free(pair->src);
		test_folio_free(pair->dst);
	}
	t->nr_offered = 0;
	t->nr_calls = 0;
	t->nr_waits = 0;
}

static void test_copy(struct migrate_offload_batch *batch, unsigned int i)
{
	migrate_offload_add_copied(batch, i, folio_size(batch->pairs[i].src));
}

/* Count from here on */
static void test_events_begin(struct kunit *test)
{
	struct offload_test *t = test->priv;

	all_vm_events(t->events);
}

static void test_expect_event(struct kunit *test, enum vm_event_item event,
			      unsigned long pages)
{
	struct offload_test *t = test->priv;
	unsigned long *now;

	if (!IS_ENABLED(CONFIG_VM_EVENT_COUNTERS))
		return;
	now = kunit_kcalloc(test, NR_VM_EVENT_ITEMS, sizeof(*now), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, now);
	all_vm_events(now);
	KUNIT_EXPECT_EQ_MSG(test, now[event] - t->events[event], pages,
			    "event %d", event);
}

/*
 * Wait until every SRCU section that is open now has ended. Return false if
 * that takes too long: then a batch has left its section open, for good.
 */
static bool test_srcu_ends(void)
{
	const unsigned long end = jiffies + 10 * HZ;
	static bool stuck;
	unsigned long cookie;

	cookie = start_poll_synchronize_srcu(&migrate_offload_srcu);
	while (!poll_state_synchronize_srcu(&migrate_offload_srcu, cookie)) {
		if (stuck || time_after(jiffies, end)) {
			stuck = true;
			return false;
		}
		usleep_range(500, 1000);
	}
	return true;
}

/* Where copy_highpage() moves more than bytes, no folio is offered */
static void test_need_plain_bytes(struct kunit *test)
{
	if (IS_ENABLED(CONFIG_KMSAN) || kasan_hw_tags_enabled())
		kunit_skip(test, "no folio is plain bytes here");
#if defined(__HAVE_ARCH_COPY_HIGHPAGE) && !defined(CONFIG_ARM64)
	kunit_skip(test, "copy_highpage() does more than copy here");
#endif
}

static int test_init(struct kunit *test)
{
	const struct migrate_offload_ops *used;
	struct offload_test *t;
	int ret;

	test_need_plain_bytes(test);
	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	if (!t)
		return -ENOMEM;
	t->mapping.a_ops = &test_aops;
	/* Batches are small here */
	t->min_batch_bytes = migrate_min_batch_bytes;
	migrate_min_batch_bytes = 0;
	scoped_guard(mutex, &migrate_offload_mutex) {
		strscpy(t->wanted, migrate_offload_wanted);
		strscpy(migrate_offload_wanted, "");
	}
	test->priv = t;

	/* For no reason, so that no other task gets to the migrator */
	ret = test_register(&test_migrator, 0);
	if (ret)
		return ret;
	scoped_guard(mutex, &migrate_offload_mutex)
		used = migrate_offload_slots[migrate_offload_slot].ops;
	/* One of ours would be left from the test before: no excuse */
	if (used == &test_others_migrator)
		return -EBUSY;
	if (used != &test_migrator)
		kunit_skip(test, "another migrator is in use");
	return 0;
}

static void test_exit(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	/* Unregistration would hang. Let test_init() of the next test fail. */
	if (!test_srcu_ends()) {
		KUNIT_FAIL(test, "a batch has left its SRCU section open");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(test_idle_migrators); i++)
		migrate_offload_unregister(&test_idle_migrators[i]);
	migrate_offload_unregister(&test_others_migrator);
	/* Before the last of ours goes, or another could come into use */
	if (t) {
		scoped_guard(mutex, &migrate_offload_mutex)
			strscpy(migrate_offload_wanted, t->wanted);
	}
	migrate_offload_unregister(&test_migrator);
	if (t) {
		migrate_min_batch_bytes = t->min_batch_bytes;
		test_forget(t);
	}
}

/* ---- which folios are offered ---- */

/*
 * Offer @pair between two others for which nothing speaks against it, so that
 * a pair that is left out does not drag others along, or pair them wrongly.
 */
static struct test_pair *test_add_between(struct kunit *test,
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

/* @which are indices of the pairs that @list holds, in this order */
static void test_expect_list(struct kunit *test, struct migrate_list *list,
			     const unsigned int *which, unsigned int nr)
{
	struct offload_test *t = test->priv;
	struct folio *folio;
	unsigned int i = 0;

	/* No assertions: a batch may be under way */
	KUNIT_EXPECT_EQ(test, list_count_nodes(&list->src), nr);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&list->dst), nr);
	if (list_count_nodes(&list->src) != nr ||
	    list_count_nodes(&list->dst) != nr)
		return;
	list_for_each_entry(folio, &list->src, lru)
		KUNIT_EXPECT_PTR_EQ(test, folio, t->pairs[which[i++]].src);
	i = 0;
	list_for_each_entry(folio, &list->dst, lru)
		KUNIT_EXPECT_PTR_EQ(test, folio, t->pairs[which[i++]].dst);
}

static bool test_is_offered(struct kunit *test)
{
	static const unsigned int middle[] = { 1 };
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
	test_expect_list(test, &t->single, middle, offered ? 0 : 1);
	return offered;
}

/* What kept the pair in the middle from being offered, if something did */
static enum migrate_left_cause test_cause(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct test_pair *pair = &t->pairs[1];
	enum migrate_left_cause cause;

	cause = folio_offload_cause(pair->src, pair->dst);
	KUNIT_EXPECT_EQ(test, test_is_offered(test),
			cause == MIGRATE_LEFT_NONE);
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
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

/* Smaller ones do not pay */
static void test_small(struct kunit *test)
{
	unsigned int order = test_param_order(test);

	test_forget(test->priv);
	test_add(test, order + 1);
	test_add(test, order);
	test_add(test, order + 1);
	WRITE_ONCE(migrate_min_folio_bytes, (PAGE_SIZE << order) + 1);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_TOO_SMALL);
	WRITE_ONCE(migrate_min_folio_bytes, PAGE_SIZE << order);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	WRITE_ONCE(migrate_min_folio_bytes, 0);
}

/* Somebody else has a reference, such as direct I/O into the folio */
static void test_reference(struct kunit *test)
{
	unsigned int order = test_param_order(test);
	struct test_pair *pair = test_add_between(test, order, order);

	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
	folio_put(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

/* A reference that is missing is as wrong as one too many */
static void test_reference_of_mapping(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int order = test_param_order(test);
	struct test_pair *pair = test_add_between(test, order, order);

	pair->src->mapping = &t->mapping;
	folio_ref_add(pair->src, folio_nr_pages(pair->src) - 1);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
}

/* The reference that the mapping's private data takes is an expected one */
static void test_reference_of_private(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct test_pair *pair = test_add_between(test, 0, 0);

	pair->src->mapping = &t->mapping;
	folio_ref_add(pair->src, 1);
	folio_set_private(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	folio_clear_private(pair->src);
}

/*
 * A small folio counts pins as references. It takes both rules away to let it
 * pass; what it looks like from outside is the same.
 */
static void test_pinned_small(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 0, 0);

	folio_ref_add(pair->src, GUP_PIN_COUNTING_BIAS);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_PINNED);
	folio_ref_sub(pair->src, GUP_PIN_COUNTING_BIAS);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

/*
 * A large folio has a count of pins, which alone must be reason enough: the
 * references are as expected here.
 */
static void test_pinned_large(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 2, 2);

	if (!folio_has_pincount(pair->src))
		kunit_skip(test, "no count of pins");
	atomic_inc(&pair->src->_pincount);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_PINNED);
	atomic_dec(&pair->src->_pincount);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
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
	struct test_pair *pair = test_add_between(test, 0, 0);

	test_need_poison(test);
	test_poison(pair->src, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_HWPOISON);
	test_heal(pair->src, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

static void test_poison_large(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 2, 2);

	test_need_poison(test);
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	test_poison(pair->src, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_HWPOISON);
	test_heal(pair->src, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

/* memory_failure() marks a page first, and the folio when it has the lock */
static void test_poison_tail(struct kunit *test)
{
#ifdef CONFIG_MEMORY_FAILURE
	struct test_pair *pair = test_add_between(test, 2, 2);

	SetPageHWPoison(folio_page(pair->src, 3));
	atomic_long_inc(&num_poisoned_pages);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_HWPOISON);
	ClearPageHWPoison(folio_page(pair->src, 3));
	atomic_long_dec(&num_poisoned_pages);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
#else
	kunit_skip(test, "needs CONFIG_MEMORY_FAILURE");
#endif
}

static void test_hugetlb(struct kunit *test)
{
#ifdef CONFIG_HUGETLB_PAGE
	struct test_pair *pair = test_add_between(test, 2, 2);

	__folio_set_hugetlb(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_HUGETLB);
	__folio_clear_hugetlb(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
#else
	kunit_skip(test, "needs CONFIG_HUGETLB_PAGE");
#endif
}

static void test_movable_ops(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 0, 0);
	struct page *page = &pair->src->page;

	__folio_set_offline(pair->src);
	SetPageMovableOps(page);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_MOVABLE_OPS);
	clear_bit(PG_movable_ops, &page->flags.f);
	__folio_clear_offline(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

#ifdef CONFIG_ZONE_DEVICE
static void test_zone_device_of(struct kunit *test, struct folio *folio)
{
	enum zone_type zone = folio_zonenum(folio);

	set_page_zone(&folio->page, ZONE_DEVICE);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_ZONE_DEVICE);
	set_page_zone(&folio->page, zone);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
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
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_ORDER);
	test_add_between(test, 0, 2);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_ORDER);
	test_add_between(test, 2, 3);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_ORDER);
}

static void test_plain_bytes_here(struct kunit *test)
{
	test_add_between(test, 0, 0);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	test_add_between(test, 2, 2);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
}

static void test_mte_tags(struct kunit *test)
{
#ifdef CONFIG_ARM64_MTE
	struct test_pair *pair;
	unsigned int i;

	if (!system_supports_mte())
		kunit_skip(test, "no MTE");

	for (i = 0; i < 4; i++) {
		pair = test_add_between(test, 2, 2);
		set_page_mte_tagged(folio_page(pair->src, i));
		KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_TAGGED);
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
	enum migrate_left_cause cause;
	umode_t mode;
} test_mappings[] = {
	{ "migrate_folio", &test_aops },
	{ "filemap_migrate_folio", &test_filemap_aops },
	{ "buffer_migrate_folio", &test_buffer_aops, true,
	  MIGRATE_LEFT_MAPPING },
	{ "buffer_migrate_folio_norefs", &test_norefs_aops, true,
	  MIGRATE_LEFT_MAPPING },
	{ "none", &test_no_aops, .cause = MIGRATE_LEFT_MAPPING },
	{ "one of its own", &test_own_aops, .cause = MIGRATE_LEFT_MAPPING },
	{ "of a file", &test_filemap_aops, .mode = S_IFREG },
	/* Whatever it says, filesystems may write to it */
	{ "of a block device", &test_filemap_aops,
	  .cause = MIGRATE_LEFT_MAPPING, .mode = S_IFBLK },
};

KUNIT_ARRAY_PARAM_DESC(test_mapping, test_mappings, name);

static void test_mapping(struct kunit *test)
{
	struct offload_test *t = test->priv;
	const struct test_mapping *param = test->param_value;
	struct test_pair *pair = test_add_between(test, 0, 0);

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
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_INACCESSIBLE);
}

/* The anon_vma is not looked at, so a number does in place of one */
static void test_anon(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 0, 0);

	pair->src->mapping = (void *)(PAGE_SIZE | FOLIO_MAPPING_ANON);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	folio_get(pair->src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
}

static void test_swap_cache(struct kunit *test)
{
	struct test_pair *pair = test_add_between(test, 2, 2);
	struct folio *src = pair->src;

	if (!IS_ENABLED(CONFIG_SWAP))
		kunit_skip(test, "needs CONFIG_SWAP");

	src->mapping = (void *)(PAGE_SIZE | FOLIO_MAPPING_ANON);
	folio_set_swapbacked(src);
	folio_set_swapcache(src);
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_REFERENCES);
	folio_ref_add(src, folio_nr_pages(src));
	KUNIT_EXPECT_EQ(test, test_cause(test), MIGRATE_LEFT_NONE);
	folio_clear_swapcache(src);
	folio_clear_swapbacked(src);
}

/* ---- batches ---- */

/* The pool of these tests: batches hold garbage at first, and can run out */
static bool test_no_memory;
static unsigned int test_nr_batches;

static void *test_batch_alloc(gfp_t gfp, void *unused)
{
	struct migrate_offload_batch *batch;

	if (test_no_memory)
		return NULL;
	batch = kmalloc_obj(*batch, gfp);
	if (batch) {
		memset(batch, 0xff, sizeof(*batch));
		test_nr_batches++;
	}
	return batch;
}

static void test_batch_free(void *batch, void *unused)
{
	test_nr_batches--;
	kfree(batch);
}

static int test_init_batch(struct kunit *test)
{
	int ret = test_init(test);

	if (ret)
		return ret;
	test_no_memory = false;
	test_nr_batches = 0;
	mempool_exit(&migrate_offload_batches);
	return mempool_init(&migrate_offload_batches, 1, test_batch_alloc,
			    test_batch_free, NULL);
}

static void test_exit_batch(struct kunit *test)
{
	test_exit(test);
	KUNIT_EXPECT_EQ(test, test_nr_batches, 0);
}

static void test_single(struct kunit *test)
{
	struct offload_test *t = test->priv;

	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);

	test_add(test, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);

	/* It is worth while once there are two, or if the one is large */
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
	static const unsigned int both[] = { 0, 1 };
	struct offload_test *t = test->priv;

	folio_get(test_add(test, 0)->src);
	folio_get(test_add(test, 1)->src);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 0);
	test_expect_list(test, &t->single, both, 2);
	test_expect_list(test, &t->batched, NULL, 0);
	KUNIT_EXPECT_TRUE(test, test_srcu_ends());
}

static void test_batch(struct kunit *test)
{
	static const unsigned int batched[] = { 0, 1, 3 };
	static const unsigned int left[] = { 2 };
	struct offload_test *t = test->priv;
	struct test_call *call = &t->calls[0];
	unsigned int i;

	test_add(test, 0);
	test_add(test, 3);
	/* One that is left out does not count */
	folio_get(test_add(test, 4)->src);
	test_add(test, 0);
	test_list(t);
	test_end(t, migrate_offload_submit(&t->single, &t->batched,
					   MIGRATE_SYNC, MR_DEMOTION, 1234));

	KUNIT_ASSERT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, call->nr, 3);
	KUNIT_EXPECT_EQ(test, call->bytes, 10 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, call->mode, MIGRATE_SYNC);
	KUNIT_EXPECT_EQ(test, call->reason, MR_DEMOTION);
	KUNIT_EXPECT_EQ(test, call->busy_ns, 1234);
	KUNIT_EXPECT_EQ(test, call->src_nid, folio_nid(t->pairs[0].src));
	KUNIT_EXPECT_EQ(test, call->dst_nid, folio_nid(t->pairs[0].dst));

	/* A migrator that says nothing changes nothing */
	KUNIT_EXPECT_EQ(test, t->nr_copied, 0);
	test_expect_list(test, &t->lost, NULL, 0);
	test_expect_list(test, &t->single, left, ARRAY_SIZE(left));
	test_expect_list(test, &t->batched, batched, ARRAY_SIZE(batched));
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ(test, t->pairs[i].dst->migrate_info,
				FOLIO_WAS_MAPPED);
}

/* The CPU keeps what does not qualify, and both lists keep the order */
static void test_lists(struct kunit *test)
{
	static const unsigned int batched[] = { 1, 3, 4, 6 };
	static const unsigned int left[] = { 0, 2, 5 };
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;
	unsigned int i;

	for (i = 0; i < 7; i++)
		test_add(test, i % 2);
	for (i = 0; i < ARRAY_SIZE(left); i++)
		folio_get(t->pairs[left[i]].src);
	batch = test_begin(t);
	KUNIT_EXPECT_NOT_NULL(test, batch);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 0);
	test_expect_list(test, &t->single, left, ARRAY_SIZE(left));
	test_expect_list(test, &t->batched, batched, ARRAY_SIZE(batched));
	test_end(t, batch);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
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

static void test_wait_all(struct offload_test *t,
			  struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		test_copy(batch, i);
}

/* Folios that the batch has no room for stay with the CPU */
static void test_many(struct kunit *test)
{
	/* One that is left out takes no room */
	const unsigned int out = 10, last = MIGRATE_OFFLOAD_MAX_PAIRS;
	const unsigned int left[] = { out, last + 1, last + 2, last + 3 };
	struct offload_test *t = test->priv;
	unsigned int i, j;

	for (i = 0; i < TEST_MAX_PAIRS; i++)
		test_add(test, 0);
	folio_get(t->pairs[out].src);
	t->wait = test_wait_all;
	test_events_begin(test);
	test_run(test);

	KUNIT_ASSERT_EQ(test, t->nr_calls, 1);
	KUNIT_ASSERT_EQ(test, t->nr_offered, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->nr_copied, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->calls[0].nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_EQ(test, t->calls[0].bytes,
			MIGRATE_OFFLOAD_MAX_PAIRS * PAGE_SIZE);
	test_expect_list(test, &t->single, left, ARRAY_SIZE(left));
	for (i = 0, j = 0; i < t->nr; i++) {
		bool offered = i != out && i <= last;

		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), offered);
		if (!offered)
			continue;
		KUNIT_EXPECT_PTR_EQ(test, t->offered[j].src, t->pairs[i].src);
		KUNIT_EXPECT_PTR_EQ(test, t->offered[j].dst, t->pairs[i].dst);
		j++;
	}

	test_expect_event(test, PGMIGRATE_OFFLOAD_FAILED, 3);
}

static void test_wait_some(struct offload_test *t,
			   struct migrate_offload_batch *batch)
{
	/* The second of the chunk is left out */
	test_copy(batch, 1);
	test_copy(batch, 3);
}

static void test_copied(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 6; i++)
		test_add(test, i % 2);
	folio_get(t->pairs[1].src);
	t->wait = test_wait_some;
	test_run(test);

	KUNIT_EXPECT_EQ(test, t->nr_copied, 2);
	for (i = 0; i < t->nr; i++) {
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 2 || i == 4);
		/* What is recorded beside it stays */
		KUNIT_EXPECT_EQ(test, t->pairs[i].dst->migrate_info &
				~FOLIO_CONTENT_COPIED, FOLIO_WAS_MAPPED);
	}
}

/* The first piece is copied in submit(), the others in wait() */
static const struct test_pieces {
	unsigned int order;
	size_t bytes[3];
	bool copied;
} test_pieces[] = {
	{ 0, { PAGE_SIZE }, true },
	{ 0, { 0, PAGE_SIZE }, true },
	{ 0, { 1, PAGE_SIZE - 2, 1 }, true },
	{ 0, { } },
	{ 0, { PAGE_SIZE - 1 } },
	{ 0, { 1, PAGE_SIZE - 3, 1 } },
	{ 0, { PAGE_SIZE + 1 } },
	{ 0, { PAGE_SIZE, 0, 1 } },
	{ 0, { PAGE_SIZE, PAGE_SIZE } },
	{ 2, { 4 * PAGE_SIZE }, true },
	{ 2, { PAGE_SIZE, 2 * PAGE_SIZE, PAGE_SIZE }, true },
	{ 2, { PAGE_SIZE } },
	{ 2, { 2 * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE - 1 } },
};

static int test_submit_pieces(struct offload_test *t,
			      struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		migrate_offload_add_copied(batch, i, test_pieces[i].bytes[0]);
	return 0;
}

static void test_wait_pieces(struct offload_test *t,
			     struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		migrate_offload_add_copied(batch, i, test_pieces[i].bytes[1]);
		migrate_offload_add_copied(batch, i, test_pieces[i].bytes[2]);
	}
}

/* A folio is copied once its bytes add up to its size, and not otherwise */
static void test_bytes(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i, nr_copied = 0;

	for (i = 0; i < ARRAY_SIZE(test_pieces); i++) {
		test_add(test, test_pieces[i].order);
		nr_copied += test_pieces[i].copied;
	}
	t->submit = test_submit_pieces;
	t->wait = test_wait_pieces;
	test_run(test);

	KUNIT_ASSERT_EQ(test, t->nr_offered, t->nr);
	KUNIT_EXPECT_EQ(test, t->nr_copied, nr_copied);
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ_MSG(test, test_is_copied(t, i),
				    test_pieces[i].copied, "line %u", i);
}

static void test_wait_cpu(struct offload_test *t,
			  struct migrate_offload_batch *batch)
{
	migrate_offload_copy_pages(batch, 0, 1, 2);
	migrate_offload_add_copied(batch, 0, 2 * PAGE_SIZE);
	migrate_offload_copy_pages(batch, 1, 0, 1);
}

/* A folio is right that the migrator and the CPU have copied together */
static void test_cpu(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct test_pair *pair = t->pairs;
	u8 *dst;

	test_add(test, 2);
	test_add(test, 1);
	memset(folio_address(pair->src), 0x5a, 4 * PAGE_SIZE);
	memset(folio_address(pair->dst), 0, 4 * PAGE_SIZE);
	t->wait = test_wait_cpu;
	test_run(test);

	dst = folio_address(pair->dst);
	KUNIT_EXPECT_NULL(test, memchr_inv(dst, 0, PAGE_SIZE));
	KUNIT_EXPECT_NULL(test,
			  memchr_inv(dst + PAGE_SIZE, 0x5a, 2 * PAGE_SIZE));
	KUNIT_EXPECT_NULL(test, memchr_inv(dst + 3 * PAGE_SIZE, 0, PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, test_is_copied(t, 0));
	KUNIT_EXPECT_FALSE(test, test_is_copied(t, 1));
}

static void test_wait_lost(struct offload_test *t,
			   struct migrate_offload_batch *batch)
{
	test_copy(batch, 0);
	migrate_offload_set_lost(batch, 1);
	/* Both: it was written to, and may be so again */
	migrate_offload_set_lost(batch, 3);
	test_copy(batch, 3);
	migrate_offload_set_lost(batch, 4);
}

static void test_lost(struct kunit *test)
{
	static const unsigned int lost[] = { 1, 3, 4 };
	static const unsigned int rest[] = { 0, 2, 5 };
	static const unsigned int all[] = { 0, 1, 2, 3, 4, 5 };
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 6; i++)
		test_add(test, i % 2);
	t->wait = test_wait_lost;
	test_run(test);

	KUNIT_EXPECT_EQ(test, t->nr_copied, 1);
	test_expect_list(test, &t->lost, lost, ARRAY_SIZE(lost));
	test_expect_list(test, &t->batched, rest, ARRAY_SIZE(rest));
	test_expect_list(test, &t->single, NULL, 0);
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 0);

	/* The next batch knows nothing of that */
	t->wait = NULL;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 0);
	test_expect_list(test, &t->lost, NULL, 0);
	test_expect_list(test, &t->batched, all, ARRAY_SIZE(all));
}

/* What the memory of a batch held before says nothing about its folios */
static void test_stale(struct kunit *test)
{
	static const unsigned int both[] = { 0, 1 };
	struct offload_test *t = test->priv;

	test_add(test, 0);
	test_add(test, 1);
	t->wait = test_wait_all;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 2);
	test_expect_list(test, &t->lost, NULL, 0);
	test_expect_list(test, &t->batched, both, 2);
}

static int test_submit_refuse(struct offload_test *t,
			      struct migrate_offload_batch *batch)
{
	/* What it said before it refused does not count */
	test_copy(batch, 0);
	migrate_offload_set_lost(batch, 1);
	return -EBUSY;
}

/* The CPU copies all of a batch that the migrator refuses */
static void test_refused(struct kunit *test)
{
	static const unsigned int all[] = { 0, 1, 2, 3, 4 };
	static const unsigned int left_first[] = { 1, 3, 0, 2, 4 };
	struct offload_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < 5; i++)
		test_add(test, i % 2);
	t->submit = test_submit_refuse;
	test_events_begin(test);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 0);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 0);
	test_expect_list(test, &t->single, all, ARRAY_SIZE(all));
	test_expect_list(test, &t->batched, NULL, 0);
	for (i = 0; i < t->nr; i++)
		KUNIT_EXPECT_EQ(test, t->pairs[i].dst->migrate_info,
				FOLIO_WAS_MAPPED);
	KUNIT_EXPECT_TRUE(test, test_srcu_ends());
	test_expect_event(test, PGMIGRATE_OFFLOAD_FAILED, 7);

	/* Those that were not in the batch have not moved */
	folio_get(t->pairs[1].src);
	folio_get(t->pairs[3].src);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 2);
	test_expect_list(test, &t->single, left_first, ARRAY_SIZE(left_first));
	test_expect_list(test, &t->batched, NULL, 0);
}

/* A batch that does not pay is left to the CPU, and that is no failure */
static void test_small_batch(struct kunit *test)
{
	struct offload_test *t = test->priv;

	test_add(test, 0);
	test_add(test, 0);
	folio_get(test_add(test, 0)->src);
	/* More than there is, and more than is left without the third one */
	migrate_min_batch_bytes = 3 * PAGE_SIZE + 1;
	test_events_begin(test);
	test_run(test);
	test_expect_event(test, PGMIGRATE_OFFLOAD_SMALL, 3);
	migrate_min_batch_bytes = 2 * PAGE_SIZE + 1;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
	test_expect_event(test, PGMIGRATE_OFFLOAD_SMALL, 5);
	test_expect_event(test, PGMIGRATE_OFFLOAD_BUSY, 1);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FAILED, 0);
	migrate_min_batch_bytes = 2 * PAGE_SIZE;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
}

/* Neither function may enter reclaim that writes: the folios are locked */
static void test_noio(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;
	unsigned int between, after, noio;

	test_add(test, 0);
	test_add(test, 0);
	batch = test_begin(t);
	between = current->flags & PF_MEMALLOC_NOIO;
	test_end(t, batch);
	after = current->flags & PF_MEMALLOC_NOIO;
	KUNIT_ASSERT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_NE(test, t->submit_noio, 0);
	KUNIT_EXPECT_EQ(test, between, 0);
	KUNIT_EXPECT_NE(test, t->wait_noio, 0);
	KUNIT_EXPECT_EQ(test, after, 0);

	/* A task that has the limit already keeps it */
	noio = memalloc_noio_save();
	batch = test_begin(t);
	between = current->flags & PF_MEMALLOC_NOIO;
	test_end(t, batch);
	after = current->flags & PF_MEMALLOC_NOIO;
	memalloc_noio_restore(noio);
	KUNIT_EXPECT_NE(test, between, 0);
	KUNIT_EXPECT_NE(test, after, 0);

	t->submit = test_submit_refuse;
	test_run(test);
	KUNIT_EXPECT_EQ(test, current->flags & PF_MEMALLOC_NOIO, 0);
}

static int test_submit_cb(struct offload_test *t,
			  struct migrate_offload_batch *batch)
{
	memset(batch->cb, 0x5a, sizeof(batch->cb));
	return 0;
}

static void test_wait_cb(struct offload_test *t,
			 struct migrate_offload_batch *batch)
{
	struct kunit *test = kunit_get_current_test();

	KUNIT_EXPECT_NULL(test, memchr_inv(batch->cb, 0x5a, sizeof(batch->cb)));
	KUNIT_EXPECT_PTR_EQ(test, batch, t->calls[0].batch);
	test_wait_all(t, batch);
}

/* The control block reaches wait() as submit() left it */
static void test_cb(struct kunit *test)
{
	static const unsigned int both[] = { 0, 1 };
	struct offload_test *t = test->priv;

	test_add(test, 0);
	test_add(test, 1);
	t->submit = test_submit_cb;
	t->wait = test_wait_cb;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 2);
	test_expect_list(test, &t->batched, both, 2);
	test_expect_list(test, &t->lost, NULL, 0);
}

/* Memory fails while it is being copied; engines need not notice */
static void test_wait_poison(struct offload_test *t,
			     struct migrate_offload_batch *batch)
{
	test_poison(batch->pairs[1].src, 0);
	if (folio_test_large(batch->pairs[3].src))
		test_poison(batch->pairs[3].src, 1);
	test_wait_all(t, batch);
}

static void test_poison_meanwhile(struct kunit *test)
{
	static const unsigned int all[] = { 0, 1, 2, 3, 4 };
	struct offload_test *t = test->priv;
	bool large = IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE);
	unsigned int i;

	test_need_poison(test);
	for (i = 0; i < 5; i++)
		test_add(test, i == 3 && large ? 2 : 0);
	t->wait = test_wait_poison;
	test_run(test);
	test_heal(t->pairs[1].src, 0);
	if (large)
		test_heal(t->pairs[3].src, 1);

	KUNIT_ASSERT_EQ(test, t->nr_offered, 5);
	KUNIT_EXPECT_EQ(test, t->nr_copied, large ? 3 : 4);
	for (i = 0; i < 5; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i),
				i != 1 && !(i == 3 && large));
	/* It is for the CPU's copy to fail, not for this one */
	test_expect_list(test, &t->lost, NULL, 0);
	test_expect_list(test, &t->batched, all, ARRAY_SIZE(all));
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

/*
 * The fake migrator copies nothing, so the content tells whether the CPU did.
 * CONFIG_DEBUG_MIGRATE_OFFLOAD would warn about that, and it warns only once.
 * With it, both have the same content, and only the counter tells.
 */
#define TEST_SRC_BYTE	'a'
#define TEST_DST_BYTE	(IS_ENABLED(CONFIG_DEBUG_MIGRATE_OFFLOAD) ? 'a' : 'b')

static struct test_pair *test_add_filled(struct kunit *test, unsigned int order)
{
	struct test_pair *pair = test_add(test, order);

	test_fill(pair->src, TEST_SRC_BYTE);
	test_fill(pair->dst, TEST_DST_BYTE);
	KUNIT_ASSERT_EQ(test, 0, mem_cgroup_charge(pair->src, NULL,
						   GFP_KERNEL));
	return pair;
}

/* Move a folio that was copied, as migrate_folio_move() does */
static void test_move(struct kunit *test, unsigned int i)
{
	struct offload_test *t = test->priv;
	struct test_pair *pair = &t->pairs[i];

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
	t->wait = test_wait_all;
	test_events_begin(test);
	test_run(test);
	test_expect_event(test, PGMIGRATE_OFFLOAD_SUCCESS, 0);
	for (i = 0; i < 2; i++) {
		test_move(test, i);
		KUNIT_EXPECT_TRUE(test, test_is_filled(t->pairs[i].dst,
						       TEST_DST_BYTE));
	}
	test_expect_event(test, PGMIGRATE_OFFLOAD_SUCCESS, 5);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FALLBACK, 0);
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
	t->wait = test_wait_all;
	test_events_begin(test);
	test_run(test);
	test_poison(t->pairs[1].src, 0);
	test_fill(t->pairs[1].dst, 'b');
	if (large) {
		test_poison(t->pairs[3].src, 1);
		test_fill(t->pairs[3].dst, 'b');
	}
	for (i = 0; i < 4; i++)
		test_move(test, i);
	test_heal(t->pairs[1].src, 0);
	if (large)
		test_heal(t->pairs[3].src, 1);
	for (i = 0; i < 4; i++) {
		bool poisoned = i == 1 || (i == 3 && large);

		KUNIT_EXPECT_TRUE(test, test_is_filled(t->pairs[i].dst,
						       poisoned ?
						       TEST_SRC_BYTE :
						       TEST_DST_BYTE));
	}
	test_expect_event(test, PGMIGRATE_OFFLOAD_SUCCESS, large ? 2 : 3);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FALLBACK, large ? 5 : 1);
	test_expect_event(test, PGMIGRATE_OFFLOAD_UNFIT, large ? 5 : 1);
}

/* Tests of several batches at once have a chunk for each */
struct test_chunk {
	struct migrate_list single;
	struct migrate_list batched;
	struct migrate_offload_batch *batch;
};

static void test_chunk_begin(struct offload_test *t, struct test_chunk *chunk,
			     unsigned int from, unsigned int to)
{
	unsigned int i;

	test_list_init(&chunk->single);
	test_list_init(&chunk->batched);
	for (i = from; i < to; i++) {
		list_add_tail(&t->pairs[i].src->lru, &chunk->single.src);
		list_add_tail(&t->pairs[i].dst->lru, &chunk->single.dst);
	}
	chunk->batch = migrate_offload_submit(&chunk->single, &chunk->batched,
					      MIGRATE_ASYNC, MR_SYSCALL, 0);
}

static void test_wait_nth(struct offload_test *t,
			  struct migrate_offload_batch *batch)
{
	test_copy(batch, t->nr_waits - 1);
}

/* Another CPU migrates while this one's migrator copies */
static void test_nested(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct test_chunk chunks[2];
	unsigned int i;

	for (i = 0; i < 4; i++)
		test_add(test, 0);
	t->wait = test_wait_nth;
	test_list_init(&t->lost);
	for (i = 0; i < 2; i++)
		test_chunk_begin(t, &chunks[i], 2 * i, 2 * i + 2);
	KUNIT_EXPECT_PTR_NE(test, chunks[0].batch, chunks[1].batch);
	for (i = 0; i < 2; i++)
		test_end(t, chunks[i].batch);

	KUNIT_ASSERT_EQ(test, t->nr_calls, 2);
	KUNIT_EXPECT_EQ(test, t->calls[0].nr, 2);
	KUNIT_EXPECT_EQ(test, t->calls[1].nr, 2);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 2);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, test_is_copied(t, i), i == 0 || i == 3);
}

/* Without memory, the reserve is used. The pool of this test has one batch. */
static void test_reserve(struct kunit *test)
{
	static const unsigned int second[] = { 2, 3 };
	struct offload_test *t = test->priv;
	struct test_chunk chunks[3];
	unsigned int i;

	for (i = 0; i < 4; i++)
		test_add(test, 0);
	t->wait = test_wait_all;
	test_list_init(&t->lost);
	test_events_begin(test);
	test_no_memory = true;
	test_chunk_begin(t, &chunks[0], 0, 2);
	test_chunk_begin(t, &chunks[1], 2, 4);
	KUNIT_EXPECT_NOT_NULL(test, chunks[0].batch);
	KUNIT_EXPECT_NULL(test, chunks[1].batch);
	test_expect_list(test, &chunks[1].single, second, 2);
	test_expect_list(test, &chunks[1].batched, NULL, 0);
	test_end(t, chunks[0].batch);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 2);
	KUNIT_EXPECT_TRUE(test, test_srcu_ends());

	/* The wait has put it back */
	test_chunk_begin(t, &chunks[2], 2, 4);
	KUNIT_EXPECT_NOT_NULL(test, chunks[2].batch);
	test_end(t, chunks[2].batch);
	KUNIT_EXPECT_EQ(test, t->nr_copied, 2);
	test_no_memory = false;

	test_expect_event(test, PGMIGRATE_OFFLOAD_FAILED, 2);
}

static void test_wait_counted(struct offload_test *t,
			      struct migrate_offload_batch *batch)
{
	test_copy(batch, 0);
	/* The second is neither */
	migrate_offload_set_lost(batch, 2);
}

/*
 * Each page is counted once under its cause. Who has copied it is counted when
 * it has moved, not here.
 */
static void test_counted(struct kunit *test)
{
	static const struct {
		enum vm_event_item event;
		unsigned long pages;
	} expected[] = {
		{ PGMIGRATE_OFFLOAD_SUCCESS, 0 },
		{ PGMIGRATE_OFFLOAD_FALLBACK, 0 },
		{ PGMIGRATE_OFFLOAD_SMALL, 1 },
		{ PGMIGRATE_OFFLOAD_MAPPING, 4 },
		{ PGMIGRATE_OFFLOAD_BUSY, 1 },
		{ PGMIGRATE_OFFLOAD_UNFIT, 4 },
		{ PGMIGRATE_OFFLOAD_FAILED, 3 },
	};
	struct offload_test *t = test->priv;
	unsigned int i;

	if (!IS_ENABLED(CONFIG_VM_EVENT_COUNTERS))
		kunit_skip(test, "needs CONFIG_VM_EVENT_COUNTERS");

	test_events_begin(test);
	test_add(test, 3);
	folio_get(test_add(test, 0)->src);
	test_add(test, 1);
	t->mapping.a_ops = &test_own_aops;
	test_add(test, 2)->src->mapping = &t->mapping;
	test_add_nid(test, 2, numa_node_id(), 3, numa_node_id());
	test_add(test, 0);
	t->wait = test_wait_counted;
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_offered, 3);

	test_forget(t);
	test_add(test, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_offered, 0);

	for (i = 0; i < ARRAY_SIZE(expected); i++)
		test_expect_event(test, expected[i].event, expected[i].pages);
}

/* Pages are counted, not folios, and only if a migrator is wanted */
static void test_moved(struct kunit *test)
{
	struct test_pair *pair;

	if (!IS_ENABLED(CONFIG_VM_EVENT_COUNTERS))
		kunit_skip(test, "needs CONFIG_VM_EVENT_COUNTERS");

	pair = test_add(test, 3);
	migrate_policy_use(BIT(MR_LONGTERM_PIN), 0);
	test_events_begin(test);
	migrate_offload_moved(pair->dst, MR_MEMORY_FAILURE);
	migrate_offload_uncopied(pair->src, MR_MEMORY_FAILURE);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FALLBACK, 0);
	test_expect_event(test, PGMIGRATE_OFFLOAD_UNCOPIED, 0);
	migrate_offload_moved(pair->dst, MR_LONGTERM_PIN);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FALLBACK, 8);
	test_expect_event(test, PGMIGRATE_OFFLOAD_UNCOPIED, 0);
	migrate_offload_uncopied(pair->src, MR_LONGTERM_PIN);
	test_expect_event(test, PGMIGRATE_OFFLOAD_FALLBACK, 8);
	test_expect_event(test, PGMIGRATE_OFFLOAD_UNCOPIED, 8);
	test_expect_event(test, PGMIGRATE_OFFLOAD_SUCCESS, 0);
	migrate_policy_use(0, 0);
}

#ifdef CONFIG_DEBUG_MIGRATE_OFFLOAD
static void test_differ_at(struct kunit *test, struct test_pair *pair,
			   size_t at)
{
	u8 *byte = (u8 *)folio_address(pair->dst) + at;

	*byte ^= 1;
	KUNIT_EXPECT_TRUE_MSG(test, folios_differ(pair->dst, pair->src),
			      "byte %zu", at);
	*byte ^= 1;
}

static void test_differ(struct kunit *test)
{
	struct test_pair *pair = test_add(test, test_param_order(test));
	const size_t size = folio_size(pair->src);

	test_fill(pair->src, 'a');
	test_fill(pair->dst, 'a');
	KUNIT_EXPECT_FALSE(test, folios_differ(pair->dst, pair->src));
	test_differ_at(test, pair, 0);
	test_differ_at(test, pair, 255);
	test_differ_at(test, pair, 256);
	test_differ_at(test, pair, size / 2);
	test_differ_at(test, pair, size - PAGE_SIZE);
	test_differ_at(test, pair, size - 1);
	KUNIT_EXPECT_FALSE(test, folios_differ(pair->dst, pair->src));
}
#else
static void test_differ(struct kunit *test)
{
	kunit_skip(test, "needs CONFIG_DEBUG_MIGRATE_OFFLOAD");
}
#endif

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
	KUNIT_CASE(test_poison_tail),
	KUNIT_CASE(test_hugetlb),
	KUNIT_CASE(test_movable_ops),
	KUNIT_CASE(test_zone_device_src),
	KUNIT_CASE(test_zone_device_dst),
	KUNIT_CASE(test_order_mismatch),
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
	KUNIT_CASE(test_lists),
	KUNIT_CASE(test_nodes),
	KUNIT_CASE(test_many),
	KUNIT_CASE(test_copied),
	KUNIT_CASE(test_cpu),
	KUNIT_CASE(test_bytes),
	KUNIT_CASE(test_lost),
	KUNIT_CASE(test_stale),
	KUNIT_CASE(test_refused),
	KUNIT_CASE(test_small_batch),
	KUNIT_CASE(test_noio),
	KUNIT_CASE(test_cb),
	KUNIT_CASE(test_poison_meanwhile),
	KUNIT_CASE(test_poison_before_move),
	KUNIT_CASE(test_mark_used),
	KUNIT_CASE(test_counted),
	KUNIT_CASE(test_moved),
	KUNIT_CASE(test_nested),
	KUNIT_CASE(test_reserve),
	KUNIT_CASE_PARAM(test_differ, test_order_gen_params),
	{}
};

static struct kunit_suite batch_test_suite = {
	.name = "migrate_offload_batch",
	.init = test_init_batch,
	.exit = test_exit_batch,
	.test_cases = batch_test_cases,
};

/* ---- registration ---- */

static int test_init_registration(struct kunit *test)
{
	int ret = test_init(test);

	if (!ret) {
		migrate_offload_unregister(&test_migrator);
		test_others_calls = 0;
		test_others_waits = 0;
		test_add(test, 0);
		test_add(test, 0);
	}
	return ret;
}

static void test_incomplete(struct kunit *test)
{
	static const struct migrate_offload_ops no_name = {
		.submit = test_submit,
		.wait = test_wait,
	};
	static const struct migrate_offload_ops no_submit = {
		.name = "kunit",
		.wait = test_wait,
	};
	static const struct migrate_offload_ops no_wait = {
		.name = "kunit",
		.submit = test_submit,
	};
	struct offload_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, test_register(NULL, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_register(&no_name, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_register(&no_submit, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_register(&no_wait, 0), -EINVAL);
	/* Should it have been taken, do not call it */
	migrate_offload_unregister(&no_wait);
	migrate_offload_unregister(&no_submit);
	migrate_offload_unregister(&no_name);

	/* None of these is in the way */
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, 0), 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
}

static void test_unknown_reasons(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, BIT(MR_NEVER)),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, ~0UL), -EINVAL);
	KUNIT_EXPECT_FALSE(test, static_key_enabled(&migrate_offload_enabled));
}

/* The first copies, and the second is idle */
static void test_second(struct kunit *test)
{
	struct offload_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_SYSCALL)), 0);
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, BIT(MR_SYSCALL)),
			-EEXIST);
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_SYSCALL)), -EEXIST);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, test_others_calls, 0);
	KUNIT_EXPECT_EQ(test, test_others_waits, 0);
}

static void test_slots(struct kunit *test)
{
	const struct migrate_offload_ops *idle = test_idle_migrators;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	for (i = 0; i < MIGRATE_OFFLOAD_SLOTS - 1; i++)
		KUNIT_ASSERT_EQ(test, test_register(&idle[i], 0), 0);
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, test_register(&idle[0], 0), -EEXIST);

	/* There is room again once one is gone, no matter which */
	migrate_offload_unregister(&idle[1]);
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator, 0), 0);
	migrate_offload_unregister(&test_migrator);
	KUNIT_EXPECT_EQ(test, test_register(&idle[1], 0), 0);
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, 0), -EBUSY);
}

/* An idle migrator takes over, with its own settings, when the first goes */
static void test_take_over(struct kunit *test)
{
	struct offload_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_LONGTERM_PIN)), 0);
	migrate_offload_unregister(&test_migrator);
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_LONGTERM_PIN));
	KUNIT_EXPECT_GT(test, migrate_offload_batches.curr_nr, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
	KUNIT_EXPECT_EQ(test, test_others_calls, 1);
	KUNIT_EXPECT_EQ(test, test_others_waits, 1);

	/* Nothing changes if an idle one comes or goes */
	KUNIT_EXPECT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
	migrate_offload_unregister(&test_migrator);
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_LONGTERM_PIN));
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 0);
	KUNIT_EXPECT_EQ(test, test_others_calls, 2);

	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_LONGTERM_PIN));
	test_run(test);
	KUNIT_EXPECT_EQ(test, test_others_calls, 2);
}

/* What suits an idle migrator applies once it is in use */
static void test_defaults(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_migrator,
						       BIT(MR_DEMOTION),
						       SZ_16K), 0);
	KUNIT_ASSERT_EQ(test, migrate_offload_register(&test_others_migrator,
						       BIT(MR_LONGTERM_PIN),
						       SZ_64K), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, SZ_16K);

	migrate_offload_unregister(&test_migrator);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, SZ_64K);

	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, 0);
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, 0);
}

/* The operator's choice has the batches from then on */
static void test_choose(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_LONGTERM_PIN)), 0);
	batch = test_begin(t);
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("kunit-other\n"), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));
	/* Who took a batch completes it */
	test_end(t, batch);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, test_others_waits, 0);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, test_others_calls, 1);

	/* When it goes, the other one takes over, until it is back */
	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_LONGTERM_PIN)), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));
}

/* With "auto", what is in use stays, and what comes does not replace it */
static void test_choose_auto(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_LONGTERM_PIN)), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("kunit-other"), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("auto\n"), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));
	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_LONGTERM_PIN)), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("none"), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("auto"), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_DEMOTION));
}

static void test_choose_none(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	batch = test_begin(t);
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("none"), 0);
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
	test_end(t, batch);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);

	/* A migrator that registers or goes does not change that */
	KUNIT_EXPECT_EQ(test, test_register(&test_others_migrator,
					    BIT(MR_DEMOTION)), 0);
	migrate_offload_unregister(&test_migrator);
	KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, test_others_calls, 0);

	KUNIT_EXPECT_EQ(test, migrate_offload_choose("kunit-other"), 0);
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, test_others_calls, 1);
}

static void test_choose_bad(struct kunit *test)
{
	static const char * const bad[] = {
		"", "\n", "kuni", "kunit-other2", "None", "kunit kunit-other",
	};
	static const struct migrate_offload_ops bad_names[] = {
		{ "", test_submit, test_wait },
		{ "none", test_submit, test_wait },
		{ "auto", test_submit, test_wait },
		{ "two words", test_submit, test_wait },
		{ "line\n", test_submit, test_wait },
		{ "[kunit]", test_submit, test_wait },
		{ "a-name-of-thirty-two-characters-", test_submit, test_wait },
	};
	static const struct migrate_offload_ops again = {
		.name = "kunit",
		.submit = test_others_submit,
		.wait = test_others_wait,
	};
	unsigned int i;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator, 0), 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_EQ_MSG(test, migrate_offload_choose(bad[i]),
				    -ENODEV, "\"%s\"", bad[i]);
	scoped_guard(mutex, &migrate_offload_mutex)
		KUNIT_EXPECT_EQ(test, migrate_offload_slot,
				slot_of(&test_migrator));
	/* A name stands for one */
	for (i = 0; i < ARRAY_SIZE(bad_names); i++)
		KUNIT_EXPECT_EQ_MSG(test, test_register(&bad_names[i], 0),
				    -EINVAL, "\"%s\"", bad_names[i].name);
	KUNIT_EXPECT_EQ(test, test_register(&again, 0), -EEXIST);
}

static void test_show_migrators(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	int len;

	KUNIT_ASSERT_NOT_NULL(test, text);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(text));
	KUNIT_EXPECT_EQ(test, migrate_offload_show_migrators(text), 7);
	KUNIT_EXPECT_STREQ(test, text, "[none]\n");
	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator, 0), 0);
	len = migrate_offload_show_migrators(text);
	KUNIT_EXPECT_STREQ(test, text, "[kunit] kunit-other none\n");
	KUNIT_EXPECT_EQ(test, len, strlen(text));
	KUNIT_EXPECT_EQ(test, migrate_offload_choose("none"), 0);
	migrate_offload_show_migrators(text);
	KUNIT_EXPECT_STREQ(test, text, "kunit kunit-other [none]\n");
}

/*
 * A batch goes back to the migrator that took it, whichever is in use by then.
 * Unregistration would wait for the batch, so only the slot is changed here.
 */
static void test_wait_slot(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;
	unsigned int slot, other;

	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator, 0), 0);
	scoped_guard(mutex, &migrate_offload_mutex) {
		slot = slot_of(&test_migrator);
		other = slot_of(&test_others_migrator);
	}
	batch = test_begin(t);
	WRITE_ONCE(migrate_offload_slot, other);
	test_end(t, batch);
	WRITE_ONCE(migrate_offload_slot, slot);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, test_others_waits, 0);
}

/* The reserve has a batch for each CPU, up to a limit */
static void test_reserve_size(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_batches.curr_nr,
			min(num_online_cpus(), MIGRATE_OFFLOAD_RESERVE));
	KUNIT_EXPECT_EQ(test, migrate_offload_batches.min_nr,
			migrate_offload_batches.curr_nr);
}

static void test_unregister_others(struct kunit *test)
{
	struct offload_test *t = test->priv;

	migrate_offload_unregister(NULL);
	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, BIT(MR_DEMOTION)),
			0);
	migrate_offload_unregister(NULL);
	migrate_offload_unregister(&test_others_migrator);
	KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
}

static void test_unregister(struct kunit *test)
{
	struct offload_test *t = test->priv;
	unsigned int i;
	bool used;
	int ret;

	for (i = 1; i <= 3; i++) {
		ret = test_register(&test_migrator, BIT(MR_DEMOTION));
		KUNIT_ASSERT_EQ(test, ret, 0);
		KUNIT_EXPECT_TRUE(test, migrate_should_offload(MR_DEMOTION));
		test_run(test);
		KUNIT_EXPECT_EQ(test, t->nr_calls, i);
		t->nr_offered = 0;

		migrate_offload_unregister(&test_migrator);
		KUNIT_EXPECT_FALSE(test, migrate_should_offload(MR_DEMOTION));
		used = static_key_enabled(&migrate_offload_enabled);
		KUNIT_EXPECT_FALSE(test, used);
		/* As somebody does who found the branch open just before */
		test_run(test);
		KUNIT_EXPECT_EQ(test, t->nr_calls, i);
	}
}

static DECLARE_COMPLETION(test_slow_entered);
static bool test_slow_left;

/* Wait until unregistration has closed the door, and some time more */
static void test_wait_unregistering(void)
{
	int i;

	for (i = 0; i < 1000 && static_key_enabled(&migrate_offload_enabled);
	     i++)
		usleep_range(1000, 2000);
	msleep(50);
}

static int test_slow_submit(struct migrate_offload_batch *batch)
{
	complete(&test_slow_entered);
	test_wait_unregistering();
	return 0;
}

static void test_slow_wait(struct migrate_offload_batch *batch)
{
	msleep(50);
	WRITE_ONCE(test_slow_left, true);
}

static const struct migrate_offload_ops test_slow_migrator = {
	.name = "kunit-slow",
	.submit = test_slow_submit,
	.wait = test_slow_wait,
};

/* A thread that can be stopped with kthread_stop_put() even if it has ended */
static struct task_struct *test_thread(int (*run)(void *), void *data)
{
	struct task_struct *thread = kthread_create(run, data, "offload-kunit");

	if (IS_ERR(thread))
		return NULL;
	get_task_struct(thread);
	wake_up_process(thread);
	return thread;
}

static int test_slow_thread(void *data)
{
	struct offload_test *t = data;

	test_end(t, test_begin(t));
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
	KUNIT_ASSERT_EQ(test, test_register(&test_slow_migrator, 0), 0);
	thread = test_thread(test_slow_thread, test->priv);
	if (!thread) {
		migrate_offload_unregister(&test_slow_migrator);
		kunit_skip(test, "no thread");
	}
	entered = wait_for_completion_timeout(&test_slow_entered, 10 * HZ);
	migrate_offload_unregister(&test_slow_migrator);
	left = READ_ONCE(test_slow_left);
	kthread_stop_put(thread);

	KUNIT_EXPECT_NE(test, entered, 0);
	KUNIT_EXPECT_TRUE(test, left);
}

static DECLARE_COMPLETION(test_unregistered);

static int test_unregister_thread(void *data)
{
	migrate_offload_unregister(&test_migrator);
	complete(&test_unregistered);
	return 0;
}

/* Unregistration waits for a batch from submit() on, before anyone waits */
static void test_unregister_in_flight(struct kunit *test)
{
	struct offload_test *t = test->priv;
	struct migrate_offload_batch *batch;
	struct task_struct *thread;
	unsigned long unregistered;
	struct test_chunk chunk;
	bool early;

	reinit_completion(&test_unregistered);
	test_add(test, 0);
	test_add(test, 0);
	KUNIT_ASSERT_EQ(test, test_register(&test_migrator, 0), 0);
	KUNIT_ASSERT_EQ(test, test_register(&test_others_migrator, 0), 0);
	t->nr = 2;
	batch = test_begin(t);
	t->nr = 4;
	thread = test_thread(test_unregister_thread, NULL);
	if (!thread) {
		test_end(t, batch);
		kunit_skip(test, "no thread");
	}
	test_wait_unregistering();
	early = completion_done(&test_unregistered);
	/* Another task may have found the branch open just before */
	test_chunk_begin(t, &chunk, 2, 4);
	test_end(t, chunk.batch);
	test_end(t, batch);
	unregistered = wait_for_completion_timeout(&test_unregistered, 10 * HZ);
	if (unregistered)
		kthread_stop_put(thread);

	KUNIT_EXPECT_NOT_NULL(test, batch);
	KUNIT_EXPECT_FALSE(test, early);
	KUNIT_EXPECT_NULL(test, chunk.batch);
	KUNIT_EXPECT_NE(test, unregistered, 0);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, t->nr_waits, 1);
	KUNIT_EXPECT_EQ(test, test_others_calls, 0);

	/* Now the other takes over */
	test_run(test);
	KUNIT_EXPECT_EQ(test, t->nr_calls, 1);
	KUNIT_EXPECT_EQ(test, test_others_calls, 1);
}

static struct kunit_case registration_test_cases[] = {
	KUNIT_CASE(test_incomplete),
	KUNIT_CASE(test_unknown_reasons),
	KUNIT_CASE(test_second),
	KUNIT_CASE(test_slots),
	KUNIT_CASE(test_take_over),
	KUNIT_CASE(test_defaults),
	KUNIT_CASE(test_choose),
	KUNIT_CASE(test_choose_auto),
	KUNIT_CASE(test_choose_none),
	KUNIT_CASE(test_choose_bad),
	KUNIT_CASE(test_show_migrators),
	KUNIT_CASE(test_wait_slot),
	KUNIT_CASE(test_reserve_size),
	KUNIT_CASE(test_unregister_others),
	KUNIT_CASE(test_unregister),
	KUNIT_CASE(test_unregister_waits),
	KUNIT_CASE(test_unregister_in_flight),
	{}
};

static struct kunit_suite registration_test_suite = {
	.name = "migrate_offload_registration",
	.init = test_init_registration,
	.exit = test_exit,
	.test_cases = registration_test_cases,
};

kunit_test_suites(&folios_test_suite, &batch_test_suite,
		  &registration_test_suite);

#endif /* _MM_MIGRATE_COPY_OFFLOAD_KUNIT_H */
