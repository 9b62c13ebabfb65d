// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of dcbm: how a batch is spread over channels, cut into descriptors and
 * counted, and what becomes of channels that do not answer. The channels are
 * fakes that record what they are given, and copy with the CPU if told to.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/jiffies.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/prandom.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "../dcbm.h"

#define TEST_CHANS	4
/* More than a share has, to see it if it ever were one more */
#define TEST_TXS	(DCBM_MAX_SEGS + 8)
#define TEST_BASE_SRC	0x100000000ULL
#define TEST_BASE_DST	0x900000000ULL

/* A list of sizes, which ends with 0 */
#define SIZES(...)	((const size_t[]) { __VA_ARGS__, 0 })
#define K(n)		((size_t)(n) * SZ_1K)

/* How a channel deceives its client, with reports_errors set */
enum test_lie {
	LIE_NONE,
	LIE_NOTHING,		/* copies nothing */
	LIE_HALF,		/* copies half */
	LIE_LAST_BYTE,		/* gets the last byte wrong */
	LIE_SWAP,		/* copies from the destination to the source */
	LIE_RESIDUE,		/* copies all, and denies one byte */
	LIE_EARLY,		/* answers, and copies with the next one */
	LIE_HIDE_ERROR,		/* fails to copy one, and answers for others */
	LIE_TWICE,		/* answers twice */
	LIE_IDLE,		/* drops what is submitted while it is busy */
	LIE_SILENT,		/* never answers */
	LIE_SUBMIT,		/* answers what it refused at submission */
	LIE_SG,			/* copies only the first segment of a list */
};

struct test_tx {
	struct dma_async_tx_descriptor tx;
	bool sg;
	dma_addr_t dst;
	dma_addr_t src;
	size_t len;
};

struct test_chan {
	struct kunit *test;
	struct dma_device device;
	struct dma_chan chan;
	struct dma_chan_dev chan_dev;
	struct device_dma_parameters parms;
	struct dcbm_chan *dc;

	/* Numbers of descriptors, from 1; 0 is none, of refuse_from on all */
	unsigned int refuse_from;
	unsigned int refuse_submit;
	bool refuse_sg;
	unsigned int fail;
	unsigned int residue;
	/* What is left of the first list, with an error or without */
	u32 residue_sg;
	/* The first that it does not answer; UINT_MAX: answers all at once */
	unsigned int silent_from;
	bool copies;
	enum test_lie lie;

	bool prepared;
	unsigned int nr_refused;
	unsigned int nr_txs;
	unsigned int nr_issued;
	struct test_tx txs[TEST_TXS];
};

struct dcbm_test {
	struct rnd_state rnd;
	struct test_chan chans[TEST_CHANS];
	struct dcbm_chan *dcs[TEST_CHANS];
	struct migrate_offload_batch batch;
	unsigned int nr_folios;
	struct folio *folios[2 * MIGRATE_OFFLOAD_MAX_PAIRS];
	/* To be put back */
	unsigned int timeout_ms;
	s64 migrated;
	s64 failures;
};

static unsigned int test_random(struct dcbm_test *t, unsigned int below)
{
	return prandom_u32_state(&t->rnd) % below;
}

/* ---- the fake channel ---- */

static void test_copy(struct test_chan *tc, unsigned int i, size_t len)
{
	struct device *dev = tc->dc->dev;
	u8 *src = phys_to_virt(dma_to_phys(dev, tc->txs[i].src));
	u8 *dst = phys_to_virt(dma_to_phys(dev, tc->txs[i].dst));

	switch (tc->lie) {
	case LIE_NOTHING:
		return;
	case LIE_HALF:
		len /= 2;
		break;
	case LIE_SWAP:
		swap(src, dst);
		break;
	case LIE_HIDE_ERROR:
		if (i == 3)
			return;
		break;
	default:
		break;
	}
	memcpy(dst, src, len);
	if (tc->lie == LIE_LAST_BYTE)
		dst[len - 1] ^= 1;
}

static void test_answer(struct test_chan *tc, unsigned int i)
{
	struct test_tx *ttx = &tc->txs[i];
	struct dmaengine_result result = {
		.result = i + 1 == tc->fail ? DMA_TRANS_READ_FAILED :
					      DMA_TRANS_NOERROR,
		.residue = i + 1 == tc->residue ? 1 : 0,
	};

	if (ttx->sg)
		result.residue = tc->residue_sg;
	else if (tc->copies && tc->lie == LIE_EARLY && i)
		test_copy(tc, i - 1, tc->txs[i - 1].len);
	else if (tc->copies && tc->lie != LIE_EARLY &&
		 result.result == DMA_TRANS_NOERROR)
		test_copy(tc, i, ttx->len - result.residue);
	if (tc->lie == LIE_RESIDUE)
		result.residue = 1;
	ttx->tx.callback_result(ttx->tx.callback_param, &result);
	if (tc->lie == LIE_TWICE)
		ttx->tx.callback_result(ttx->tx.callback_param, &result);
}

static struct test_chan *to_test_chan(struct dma_chan *chan)
{
	return container_of(chan, struct test_chan, chan);
}

static dma_cookie_t test_tx_submit(struct dma_async_tx_descriptor *tx)
{
	struct test_chan *tc = to_test_chan(tx->chan);

	tc->prepared = false;
	if (tc->nr_txs + 1 == tc->refuse_submit) {
		tc->nr_refused++;
		if (tc->lie == LIE_SUBMIT)
			test_answer(tc, tc->nr_txs);
		return -ENOMEM;
	}
	return ++tc->nr_txs;
}

static struct dma_async_tx_descriptor *
test_prep(struct dma_chan *chan, dma_addr_t dst, dma_addr_t src, size_t len,
	  unsigned long flags)
{
	struct test_chan *tc = to_test_chan(chan);
	struct kunit *test = tc->test;
	struct test_tx *ttx = &tc->txs[tc->nr_txs];

	if (tc->refuse_from && tc->nr_txs + 1 >= tc->refuse_from)
		return NULL;
	/* A driver may hold a lock from here to submission */
	KUNIT_EXPECT_FALSE(test, tc->prepared);
	KUNIT_EXPECT_LT(test, tc->nr_txs, TEST_TXS);
	if (tc->nr_txs >= TEST_TXS)
		return NULL;
	tc->prepared = true;

	memset(ttx, 0, sizeof(*ttx));
	dma_async_tx_descriptor_init(&ttx->tx, chan);
	ttx->tx.tx_submit = test_tx_submit;
	ttx->dst = dst;
	ttx->src = src;
	ttx->len = len;
	return &ttx->tx;
}

static size_t test_sg_bytes(struct scatterlist *sgl, unsigned int nents)
{
	struct scatterlist *sg;
	size_t bytes = 0;
	unsigned int i;

	for_each_sg(sgl, sg, nents, i)
		bytes += sg_dma_len(sg);
	return bytes;
}

static void test_copy_sg(struct test_chan *tc, struct scatterlist *dst,
			 struct scatterlist *src, size_t bytes)
{
	size_t src_done = 0, dst_done = 0, len;
	struct device *dev = tc->dc->dev;

	for (; bytes; bytes -= len) {
		len = min3(bytes, sg_dma_len(src) - src_done,
			   sg_dma_len(dst) - dst_done);
		memcpy(phys_to_virt(dma_to_phys(dev, sg_dma_address(dst)) +
				    dst_done),
		       phys_to_virt(dma_to_phys(dev, sg_dma_address(src)) +
				    src_done), len);
		src_done += len;
		if (src_done == sg_dma_len(src)) {
			src = sg_next(src);
			src_done = 0;
		}
		dst_done += len;
		if (dst_done == sg_dma_len(dst)) {
			dst = sg_next(dst);
			dst_done = 0;
		}
	}
}

/* Copies at once, since it has no lists later */
static struct dma_async_tx_descriptor *
test_prep_sg(struct dma_chan *chan, struct scatterlist *dst,
	     unsigned int dst_nents, struct scatterlist *src,
	     unsigned int src_nents, unsigned long flags)
{
	struct test_chan *tc = to_test_chan(chan);
	struct kunit *test = tc->test;
	struct dma_async_tx_descriptor *tx;
	size_t bytes = test_sg_bytes(src, src_nents);

	KUNIT_EXPECT_EQ(test, test_sg_bytes(dst, dst_nents), bytes);
	if (tc->refuse_sg)
		return NULL;
	tx = test_prep(chan, sg_dma_address(dst), sg_dma_address(src), bytes,
		       flags);
	if (tx)
		container_of(tx, struct test_tx, tx)->sg = true;
	if (tc->lie == LIE_SG)
		bytes = min(sg_dma_len(src), sg_dma_len(dst));
	if (tx && tc->copies && tc->residue_sg < bytes)
		test_copy_sg(tc, dst, src, bytes - tc->residue_sg);
	return tx;
}

static void test_issue_pending(struct dma_chan *chan)
{
	struct test_chan *tc = to_test_chan(chan);

	/* As ae4dma: one for each call */
	if (tc->nr_issued == tc->nr_txs)
		return;
	tc->nr_issued++;
	if (tc->lie == LIE_SILENT || (tc->lie == LIE_IDLE && tc->nr_issued > 1))
		return;
	if (tc->nr_issued < tc->silent_from)
		test_answer(tc, tc->nr_issued - 1);
}

static int test_terminate_all(struct dma_chan *chan)
{
	return 0;
}

/* What it did not answer, it answers now */
static void test_answer_late(struct test_chan *tc)
{
	unsigned int i;

	for (i = tc->silent_from - 1; i < tc->nr_issued; i++)
		test_answer(tc, i);
	tc->silent_from = UINT_MAX;
}

static void test_chan_init(struct kunit *test, unsigned int i)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[i];
	struct device *dev;
	char name[16];

	snprintf(name, sizeof(name), "engine%u", i);
	dev = kunit_device_register(test, name);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	KUNIT_ASSERT_EQ(test, dma_set_mask(dev, DMA_BIT_MASK(64)), 0);
	dev->dma_parms = &tc->parms;
	dma_set_max_seg_size(dev, SZ_1G);

	tc->test = test;
	tc->device.dev = dev;
	tc->device.reports_errors = true;
	tc->device.device_prep_dma_memcpy = test_prep;
	tc->device.device_prep_dma_memcpy_sg = test_prep_sg;
	tc->device.device_issue_pending = test_issue_pending;
	tc->device.device_terminate_all = test_terminate_all;
	tc->chan.device = &tc->device;
	tc->chan.dev = &tc->chan_dev;
	tc->chan_dev.device.init_name = dev_name(dev);
	tc->silent_from = UINT_MAX;

	tc->dc = kunit_kzalloc(test, sizeof(*tc->dc), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, tc->dc);
	KUNIT_ASSERT_EQ(test, dcbm_chan_init(tc->dc, &tc->chan), 0);
	t->dcs[i] = tc->dc;
}

static void test_chan_reset(struct test_chan *tc)
{
	if (tc->dc)
		ewma_dcbm_speed_init(&tc->dc->speed);
	tc->refuse_from = 0;
	tc->refuse_submit = 0;
	tc->refuse_sg = false;
	tc->fail = 0;
	tc->residue = 0;
	tc->residue_sg = 0;
	tc->silent_from = UINT_MAX;
	tc->prepared = false;
	tc->lie = LIE_NONE;
	tc->nr_refused = 0;
	tc->nr_txs = 0;
	tc->nr_issued = 0;
}

/* ---- the batch ---- */

static struct folio *test_folio(struct kunit *test, unsigned int order)
{
	struct dcbm_test *t = test->priv;
	struct folio *folio = folio_alloc(GFP_KERNEL, order);

	KUNIT_ASSERT_NOT_NULL(test, folio);
	t->folios[t->nr_folios++] = folio;
	return folio;
}

static void test_add_to(struct kunit *test, struct migrate_offload_batch *batch,
			unsigned int order)
{
	struct migrate_pair *pair = &batch->pairs[batch->nr];

	KUNIT_ASSERT_LT(test, batch->nr, MIGRATE_OFFLOAD_MAX_PAIRS);
	pair->src = test_folio(test, order);
	pair->dst = test_folio(test, order);
	batch->bytes += folio_size(pair->src);
	batch->nr++;
}

static void test_add(struct kunit *test, unsigned int order)
{
	struct dcbm_test *t = test->priv;

	test_add_to(test, &t->batch, order);
}

static void test_add_many(struct kunit *test, unsigned int nr,
			  unsigned int order)
{
	while (nr--)
		test_add(test, order);
}

/* An empty batch, and channels that have not been used */
static void test_forget(struct dcbm_test *t)
{
	unsigned int i;

	while (t->nr_folios)
		folio_put(t->folios[--t->nr_folios]);
	memset(&t->batch, 0, sizeof(t->batch));
	t->batch.src_nid = NUMA_NO_NODE;
	t->batch.dst_nid = NUMA_NO_NODE;
	for (i = 0; i < TEST_CHANS; i++)
		test_chan_reset(&t->chans[i]);
}

/* Return how many bytes of folio @i dcbm has reported as copied */
static size_t test_bytes(struct dcbm_test *t, unsigned int i)
{
	return atomic_long_read(&t->batch.pairs[i].copied);
}

static bool test_copied(struct dcbm_test *t, unsigned int i)
{
	return test_bytes(t, i) == folio_size(t->batch.pairs[i].src);
}

static bool test_lost(struct dcbm_test *t, unsigned int i)
{
	return test_bit(i, t->batch.lost);
}

static int test_init(struct kunit *test)
{
	struct dcbm_test *t;
	unsigned int i;

	if (PAGE_SIZE != SZ_4K)
		kunit_skip(test, "sizes are those of 4K pages");
	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	if (!t)
		return -ENOMEM;
	scoped_guard(mutex, &dcbm_mutex) {
		if (dcbm_phase != DCBM_LIVE || dcbm_offloading)
			kunit_skip(test, "dcbm is in use");
		if (!list_empty(&dcbm_chans))
			kunit_skip(test, "dcbm has channels that are stuck");
		/* Nobody turns it on now */
		dcbm_phase = DCBM_GOING;
	}

	t->timeout_ms = dcbm_timeout_ms;
	t->migrated = atomic64_read(&dcbm_migrated);
	t->failures = atomic64_read(&dcbm_failures);
	prandom_seed_state(&t->rnd, 2026);
	test->priv = t;
	dcbm_forget_speed();
	for (i = 0; i < TEST_CHANS; i++)
		test_chan_init(test, i);
	test_forget(t);
	return 0;
}

static void test_exit(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	if (!t)
		return;
	for (i = 0; i < TEST_CHANS; i++) {
		struct dcbm_chan *dc = t->dcs[i];

		if (!dc)
			continue;
		xa_erase(&dcbm_ids, dc->id);
		flush_work(&dc->recover);
		dcbm_unmap(dc);
		while (dc->nr_held) {
			struct migrate_pair *pair = &dc->held[--dc->nr_held];

			folio_put(pair->src);
			folio_put(pair->dst);
		}
	}
	scoped_guard(spinlock, &dcbm_lock)
		INIT_LIST_HEAD(&dcbm_chans);
	test_forget(t);

	dcbm_timeout_ms = t->timeout_ms;
	atomic64_set(&dcbm_migrated, t->migrated);
	atomic64_set(&dcbm_failures, t->failures);
	/* A test that failed may not have waited for its batch */
	atomic_set(&dcbm_batches, 0);
	guard(mutex)(&dcbm_mutex);
	dcbm_phase = DCBM_LIVE;
}

/* ---- planning ---- */

/*
 * The rules that each share has to obey: it begins at @pos, has no gap, both
 * sides are alike, and nothing is longer than the engine can do or leaves its
 * folio. Returns where it ends.
 */
static struct dcbm_pos test_share(struct kunit *test, struct dcbm_chan *dc,
				  struct dcbm_pos pos)
{
	struct dcbm_test *t = test->priv;
	struct scatterlist *src = dc->src.sgl, *dst = dc->dst.sgl;
	size_t bytes = 0;
	unsigned int nr;

	KUNIT_ASSERT_EQ(test, dc->start.pair, pos.pair);
	KUNIT_ASSERT_EQ(test, dc->start.offset, pos.offset);
	KUNIT_ASSERT_EQ(test, dc->nr_descs, 0);
	KUNIT_ASSERT_LE(test, dc->src.orig_nents, DCBM_MAX_SEGS);
	KUNIT_ASSERT_EQ(test, dc->src.orig_nents, dc->dst.orig_nents);

	for (nr = 0; nr < dc->src.orig_nents; nr++) {
		struct migrate_pair *pair = &t->batch.pairs[pos.pair];
		size_t size;

		KUNIT_ASSERT_LT(test, pos.pair, t->batch.nr);
		size = folio_size(pair->src);
		KUNIT_ASSERT_NOT_NULL(test, src);
		KUNIT_ASSERT_NOT_NULL(test, dst);
		KUNIT_ASSERT_GT(test, src->length, 0);
		KUNIT_ASSERT_EQ(test, src->length, dst->length);
		KUNIT_ASSERT_LE(test, src->length, dc->max_seg);
		KUNIT_ASSERT_LE(test, pos.offset + src->length, size);
		KUNIT_ASSERT_TRUE(test, sg_phys(src) ==
				  PFN_PHYS(folio_pfn(pair->src)) + pos.offset);
		KUNIT_ASSERT_TRUE(test, sg_phys(dst) ==
				  PFN_PHYS(folio_pfn(pair->dst)) + pos.offset);
		KUNIT_ASSERT_GE(test, dc->last_pair, pos.pair);

		bytes += src->length;
		pos.offset += src->length;
		if (pos.offset == size) {
			pos.pair++;
			pos.offset = 0;
		}
		src = sg_next(src);
		dst = sg_next(dst);
	}
	/* The lists end where the share ends */
	if (nr) {
		KUNIT_ASSERT_NULL(test, src);
		KUNIT_ASSERT_NULL(test, dst);
		KUNIT_ASSERT_EQ(test, dc->last_pair,
				pos.offset ? pos.pair : pos.pair - 1);
	}
	KUNIT_ASSERT_EQ(test, dc->bytes, bytes);
	return pos;
}

/* Plan as dcbm_begin_round() does, and expect these shares */
static void test_plan(struct kunit *test, unsigned int nr,
		      const size_t *shares)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_pos pos = {}, seen = {};
	size_t left = t->batch.bytes;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct dcbm_chan *dc = t->dcs[i];

		dcbm_fill(dc, &t->batch, &pos, DIV_ROUND_UP(left, nr - i),
			  SIZE_MAX);
		seen = test_share(test, dc, seen);
		KUNIT_EXPECT_EQ(test, seen.pair, pos.pair);
		KUNIT_EXPECT_EQ(test, seen.offset, pos.offset);
		KUNIT_EXPECT_EQ(test, dc->bytes, shares[i]);
		left -= dc->bytes;
	}
}

static void test_fill_small(struct kunit *test)
{
	test_add_many(test, 64, 0);
	test_plan(test, 4, SIZES(K(64), K(64), K(64), K(64)));
	test_plan(test, 1, SIZES(K(256)));
	/* Shares that are no whole number of folios are rounded up */
	test_plan(test, 3, SIZES(K(88), K(84), K(84)));
}

/* By bytes, not by folios */
static void test_fill_mixed(struct kunit *test)
{
	test_add(test, 6);		/* 256K */
	test_add_many(test, 64, 0);	/* 256K */
	test_plan(test, 2, SIZES(K(256), K(256)));
	test_plan(test, 4, SIZES(K(128), K(128), K(128), K(128)));
}

static void test_fill_large(struct kunit *test)
{
	test_add(test, 9);
	test_plan(test, 4, SIZES(K(512), K(512), K(512), K(512)));
	/* At multiples of DCBM_MIN_SHARE */
	test_plan(test, 3, SIZES(K(704), K(704), K(640)));
}

/* What is not worth waking up a channel stays in one piece */
static void test_fill_min_share(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_add(test, 5);		/* 128K */
	test_plan(test, 4, SIZES(K(64), K(64), 0, 0));

	test_forget(t);
	test_add(test, 4);		/* 64K */
	test_plan(test, 4, SIZES(K(64), 0, 0, 0));

	/* Less than that is never cut, wherever the share ends */
	test_forget(t);
	test_add_many(test, 4, 3);	/* 32K each */
	test_plan(test, 3, SIZES(K(64), K(32), K(32)));
}

static void test_fill_max_segs(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_pos pos = {};
	struct dcbm_chan *dc = t->dcs[0];

	static_assert(DCBM_MAX_SEGS == 2 * MIGRATE_OFFLOAD_MAX_PAIRS);
	test_add_many(test, MIGRATE_OFFLOAD_MAX_PAIRS - 1, 1);
	test_add(test, 2);
	/* The last folio takes four segments, two more than there are */
	dc->max_seg = PAGE_SIZE;
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	pos = test_share(test, dc, (struct dcbm_pos) {});
	KUNIT_EXPECT_EQ(test, dc->src.orig_nents, DCBM_MAX_SEGS);
	KUNIT_EXPECT_EQ(test, pos.pair, MIGRATE_OFFLOAD_MAX_PAIRS - 1);
	KUNIT_EXPECT_EQ(test, pos.offset, 2 * PAGE_SIZE);

	/* What is left comes in the next round */
	dcbm_fill(dc, &t->batch, &pos, 2 * PAGE_SIZE, SIZE_MAX);
	KUNIT_EXPECT_EQ(test, dc->bytes, 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, pos.pair, MIGRATE_OFFLOAD_MAX_PAIRS);
}

static void test_fill_max_seg(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_add(test, 5);
	t->dcs[0]->max_seg = 3 * PAGE_SIZE;
	test_plan(test, 1, SIZES(K(128)));
	KUNIT_EXPECT_EQ(test, t->dcs[0]->src.orig_nents, 11);
	/* Each engine has its own */
	t->dcs[1]->max_seg = SZ_16K;
	test_plan(test, 2, SIZES(K(72), K(56)));
}

/* A list that was short once may be longer the next time, and the reverse */
static void test_fill_again(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	for (i = 1; i <= 3; i++) {
		test_forget(t);
		test_add_many(test, i & 1 ? 5 : 3, 0);
		test_plan(test, 1, SIZES(t->batch.bytes));
	}
}

static void test_random_batch(struct kunit *test)
{
	static const unsigned int orders[] = { 0, 0, 0, 1, 2, 4, 5, 6, 8 };
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_forget(t);
	for (i = test_random(t, 24) + 1; i; i--)
		test_add(test, orders[test_random(t, ARRAY_SIZE(orders))]);
	for (i = 0; i < TEST_CHANS; i++)
		t->dcs[i]->max_seg = PAGE_SIZE << test_random(t, 10);
}

static void test_fill_random(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int run, i, nr;

	for (run = 0; run < 200; run++) {
		struct dcbm_pos pos = {}, seen = {};
		size_t left;

		test_random_batch(test);
		nr = test_random(t, TEST_CHANS) + 1;
		for (left = t->batch.bytes, i = 0; left; i = (i + 1) % nr) {
			dcbm_fill(t->dcs[i], &t->batch, &pos,
				  DIV_ROUND_UP(left, nr - i), SIZE_MAX);
			seen = test_share(test, t->dcs[i], seen);
			KUNIT_ASSERT_GT(test, t->dcs[i]->bytes, 0);
			left -= t->dcs[i]->bytes;
		}
		KUNIT_ASSERT_EQ(test, seen.pair, t->batch.nr);
		KUNIT_ASSERT_EQ(test, pos.pair, t->batch.nr);
	}
}

static struct kunit_case plan_test_cases[] = {
	KUNIT_CASE(test_fill_small),
	KUNIT_CASE(test_fill_mixed),
	KUNIT_CASE(test_fill_large),
	KUNIT_CASE(test_fill_min_share),
	KUNIT_CASE(test_fill_max_segs),
	KUNIT_CASE(test_fill_max_seg),
	KUNIT_CASE(test_fill_again),
	KUNIT_CASE(test_fill_random),
	{}
};

static struct kunit_suite plan_test_suite = {
	.name = "dcbm_plan",
	.init = test_init,
	.exit = test_exit,
	.test_cases = plan_test_cases,
};

/* ---- cutting into descriptors ---- */

/*
 * Map one side as an IOMMU could: to segments of these sizes, in the order of
 * the share, but anywhere. A list of sizes ends with 0. Merged segments are
 * fewer than the pages' own; those behind them are not to be looked at.
 */
static void test_merge(struct kunit *test, struct sg_table *table,
		       dma_addr_t addr, const size_t *sizes)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sg(table->sgl, sg, table->orig_nents, i) {
		if (*sizes) {
			sg_dma_address(sg) = addr;
			sg_dma_len(sg) = *sizes;
			/* The next is not behind this one, but before it */
			addr -= *sizes + sizes[1] + SZ_4K;
			sizes++;
		} else {
			sg_dma_address(sg) = 0;
			sg_dma_len(sg) = 0;
		}
	}
	KUNIT_ASSERT_EQ(test, *sizes, 0);
}

/* The address of byte @at of the share, and how much follows in one piece */
static dma_addr_t test_addr(struct kunit *test, struct sg_table *table,
			    size_t at, size_t *follows)
{
	struct scatterlist *sg = table->sgl;

	while (sg && at >= sg_dma_len(sg)) {
		at -= sg_dma_len(sg);
		sg = sg_next(sg);
	}
	KUNIT_ASSERT_NOT_NULL(test, sg);
	*follows = sg_dma_len(sg) - at;
	return sg_dma_address(sg) + at;
}

/*
 * Every descriptor has to read what is at its place in the share and to write
 * it to the same place on the other side. Returns how many bytes they cover.
 */
static size_t test_descs(struct kunit *test, struct test_chan *tc)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = dc->start;
	size_t at = 0, src_follows, dst_follows;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, dc->nr_descs, tc->nr_txs + tc->nr_refused);
	KUNIT_ASSERT_EQ(test, tc->nr_issued, tc->nr_txs);
	for (i = 0; i < tc->nr_txs; i++) {
		struct test_tx *ttx = &tc->txs[i];
		size_t size;

		KUNIT_ASSERT_LT(test, pos.pair, t->batch.nr);
		size = folio_size(t->batch.pairs[pos.pair].src);
		KUNIT_ASSERT_GT(test, ttx->len, 0);
		KUNIT_ASSERT_TRUE(test, ttx->src ==
				  test_addr(test, &dc->src, at, &src_follows));
		KUNIT_ASSERT_TRUE(test, ttx->dst ==
				  test_addr(test, &dc->dst, at, &dst_follows));
		KUNIT_ASSERT_LE(test, ttx->len, src_follows);
		KUNIT_ASSERT_LE(test, ttx->len, dst_follows);
		KUNIT_ASSERT_LE(test, ttx->len, dc->max_seg);
		KUNIT_ASSERT_LE(test, pos.offset + ttx->len, size);
		KUNIT_ASSERT_PTR_EQ(test, ttx->tx.callback_param,
				    dcbm_token(dc, i));
		KUNIT_ASSERT_EQ(test, dc->descs[i].pos.pair, pos.pair);
		KUNIT_ASSERT_EQ(test, dc->descs[i].pos.offset, pos.offset);
		KUNIT_ASSERT_EQ(test, dc->descs[i].len, ttx->len);

		at += ttx->len;
		pos.offset += ttx->len;
		if (pos.offset == size) {
			pos.pair++;
			pos.offset = 0;
		}
	}
	return at;
}

/* Cut all of the batch, mapped so, and expect descriptors of these lengths */
static void test_cut(struct kunit *test, const size_t *src_sizes,
		     const size_t *dst_sizes, const size_t *lens)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = {};
	unsigned int i;

	test_chan_reset(tc);
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	test_merge(test, &dc->src, TEST_BASE_SRC, src_sizes);
	test_merge(test, &dc->dst, TEST_BASE_DST, dst_sizes);
	dcbm_submit(dc, &t->batch);

	KUNIT_EXPECT_EQ(test, test_descs(test, tc), t->batch.bytes);
	for (i = 0; lens[i]; i++)
		KUNIT_EXPECT_EQ(test, tc->txs[i].len, lens[i]);
	KUNIT_EXPECT_EQ(test, tc->nr_txs, i);
	KUNIT_EXPECT_EQ(test, dc->open, 0);
	KUNIT_EXPECT_TRUE(test, completion_done(&dc->done));
}

static void test_cut_plain(struct kunit *test)
{
	test_add_many(test, 3, 0);
	test_cut(test, SIZES(K(4), K(4), K(4)), SIZES(K(4), K(4), K(4)),
		 SIZES(K(4), K(4), K(4)));
}

/* One side is merged, the other is not */
static void test_cut_merged(struct kunit *test)
{
	test_add_many(test, 3, 0);
	test_cut(test, SIZES(K(12)), SIZES(K(4), K(4), K(4)),
		 SIZES(K(4), K(4), K(4)));
	test_cut(test, SIZES(K(4), K(4), K(4)), SIZES(K(12)),
		 SIZES(K(4), K(4), K(4)));
	test_cut(test, SIZES(K(8), K(4)), SIZES(K(4), K(8)),
		 SIZES(K(4), K(4), K(4)));
}

/* Though both are merged, a descriptor belongs to one folio */
static void test_cut_folios(struct kunit *test)
{
	test_add(test, 0);
	test_add(test, 2);
	test_add(test, 1);
	test_cut(test, SIZES(K(28)), SIZES(K(28)), SIZES(K(4), K(16), K(8)));
	test_cut(test, SIZES(K(12), K(16)), SIZES(K(28)),
		 SIZES(K(4), K(8), K(8), K(8)));
}

/* Two cursors: sides that are split at different places inside of a folio */
static void test_cut_split(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_add(test, 2);
	t->dcs[0]->max_seg = SZ_8K;	/* so that there are two segments */
	test_cut(test, SIZES(K(12), K(4)), SIZES(K(4), K(12)),
		 SIZES(K(4), K(8), K(4)));
	test_cut(test, SIZES(K(1), K(15)), SIZES(K(10), K(6)),
		 SIZES(K(1), K(8), K(1), K(6)));
}

/* An IOMMU merges beyond what the engine can do at once */
static void test_cut_max_seg(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_add(test, 4);
	t->dcs[0]->max_seg = SZ_16K;
	test_cut(test, SIZES(K(64)), SIZES(K(64)),
		 SIZES(K(16), K(16), K(16), K(16)));
	test_cut(test, SIZES(K(64)), SIZES(K(24), K(40)),
		 SIZES(K(16), K(8), K(16), K(16), K(8)));
}

/* A share that begins and ends in the middle of a folio */
static void test_cut_middle(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[1];
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = {};

	test_add(test, 0);
	test_add(test, 6);		/* 256K */
	test_add(test, 0);
	dcbm_fill(t->dcs[0], &t->batch, &pos, SZ_4K + SZ_64K, SIZE_MAX);
	KUNIT_ASSERT_EQ(test, pos.pair, 1);
	KUNIT_ASSERT_EQ(test, pos.offset, SZ_64K);
	dcbm_fill(dc, &t->batch, &pos, SZ_64K, SIZE_MAX);
	test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(64)));
	test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(K(64)));
	dcbm_submit(dc, &t->batch);
	KUNIT_EXPECT_EQ(test, test_descs(test, tc), SZ_64K);
	KUNIT_EXPECT_EQ(test, tc->nr_txs, 1);

	/* The rest, with what comes behind the folio */
	test_chan_reset(tc);
	dcbm_fill(dc, &t->batch, &pos, SZ_1M, SIZE_MAX);
	test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(132)));
	test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(K(128), K(4)));
	dcbm_submit(dc, &t->batch);
	KUNIT_EXPECT_EQ(test, test_descs(test, tc), K(132));
	KUNIT_EXPECT_EQ(test, tc->nr_txs, 2);
}

/* Sizes that make up @bytes, at random, not more of them than @max */
static void test_random_sizes(struct dcbm_test *t, size_t *sizes, size_t bytes,
			      unsigned int max)
{
	while (bytes) {
		size_t size = bytes;

		if (max > 1 && test_random(t, 8))
			size = min(bytes, K(1) * (test_random(t, 64) + 1));
		*sizes++ = size;
		bytes -= size;
		max--;
	}
	*sizes = 0;
}

static void test_cut_random(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	size_t *sizes, done;
	unsigned int run;

	sizes = kunit_kcalloc(test, DCBM_MAX_SEGS + 1, sizeof(*sizes),
			      GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, sizes);
	for (run = 0; run < 200; run++) {
		struct dcbm_pos pos = {};

		test_random_batch(test);
		/* From anywhere on */
		dcbm_fill(dc, &t->batch, &pos,
			  test_random(t, t->batch.bytes / 2), SIZE_MAX);
		dcbm_fill(dc, &t->batch, &pos,
			  test_random(t, t->batch.bytes) + 1, SIZE_MAX);
		test_random_sizes(t, sizes, dc->bytes, dc->src.orig_nents);
		test_merge(test, &dc->src, TEST_BASE_SRC, sizes);
		test_random_sizes(t, sizes, dc->bytes, dc->dst.orig_nents);
		test_merge(test, &dc->dst, TEST_BASE_DST, sizes);
		dcbm_submit(dc, &t->batch);
		done = test_descs(test, tc);
		if (dc->nr_descs < DCBM_MAX_SEGS)
			KUNIT_ASSERT_EQ(test, done, dc->bytes);
	}
}

/* What it does not take is not waited for, and what it took is */
static void test_refused(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	unsigned int i;

	test_add_many(test, 4, 0);
	for (i = 0; i < 4; i++) {
		struct dcbm_pos pos = {};

		test_chan_reset(tc);
		if (i & 1)
			tc->refuse_from = 3;
		else
			tc->refuse_submit = 3;
		tc->silent_from = i & 2 ? 2 : UINT_MAX;
		dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
		test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(16)));
		test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(K(16)));
		dcbm_submit(dc, &t->batch);
		KUNIT_EXPECT_EQ(test, test_descs(test, tc), SZ_8K);
		KUNIT_EXPECT_EQ(test, tc->nr_txs, 2);
		KUNIT_EXPECT_EQ(test, dc->open, i & 2 ? 1 : 0);
		KUNIT_EXPECT_EQ(test, completion_done(&dc->done), !(i & 2));
		if (i & 2)
			test_answer_late(tc);
		KUNIT_EXPECT_EQ(test, dc->open, 0);
		KUNIT_EXPECT_TRUE(test, completion_done(&dc->done));
	}
}

static void test_refused_all(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_pos pos = {};

	test_add_many(test, 4, 0);
	tc->refuse_from = 1;
	dcbm_fill(tc->dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	test_merge(test, &tc->dc->src, TEST_BASE_SRC, SIZES(K(16)));
	test_merge(test, &tc->dc->dst, TEST_BASE_DST, SIZES(K(16)));
	dcbm_submit(tc->dc, &t->batch);
	KUNIT_EXPECT_EQ(test, tc->nr_txs, 0);
	KUNIT_EXPECT_EQ(test, tc->dc->open, 0);
	KUNIT_EXPECT_TRUE(test, completion_done(&tc->dc->done));
}

/* Cut finer than there is room for: what is beyond that is not copied */
static void test_cut_too_fine(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = {};

	test_add(test, 9);		/* 512 pages */
	test_add(test, 0);
	dc->max_seg = SZ_4K;
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	KUNIT_ASSERT_EQ(test, dc->bytes, SZ_2M);
	/* One boundary that is not at a page's end makes it one more */
	test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(1), SZ_2M - K(1)));
	test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(SZ_2M));
	dcbm_submit(dc, &t->batch);
	KUNIT_EXPECT_EQ(test, tc->nr_txs, DCBM_MAX_SEGS);
	KUNIT_EXPECT_EQ(test, test_descs(test, tc), SZ_2M - K(3));
	KUNIT_EXPECT_TRUE(test, completion_done(&dc->done));
	dcbm_count(dc, &t->batch);
	KUNIT_EXPECT_FALSE(test, test_copied(t, 0));
}

/* An engine that takes lists gets one, however its sides are merged */
static void test_sg(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = {};
	unsigned int i;

	dc->sg = true;
	test_add_many(test, 3, 1);
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(8), K(16)));
	test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(K(24)));
	dc->src.nents = 2;
	dc->dst.nents = 1;
	dcbm_submit(dc, &t->batch);
	KUNIT_ASSERT_EQ(test, tc->nr_txs, 1);
	KUNIT_EXPECT_TRUE(test, tc->txs[0].sg);
	KUNIT_EXPECT_EQ(test, tc->txs[0].len, t->batch.bytes);
	KUNIT_EXPECT_EQ(test, dc->nr_descs, 1);
	KUNIT_EXPECT_EQ(test, dc->open, 0);
	KUNIT_EXPECT_TRUE(test, completion_done(&dc->done));

	/* What is too long for it goes piece by piece; so does one segment */
	for (i = 0; i < 2; i++) {
		test_forget(t);
		test_add_many(test, i ? 1 : 3, 1);
		tc->refuse_sg = !i;
		pos = (struct dcbm_pos) {};
		dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
		test_merge(test, &dc->src, TEST_BASE_SRC,
			   SIZES(t->batch.bytes));
		test_merge(test, &dc->dst, TEST_BASE_DST,
			   SIZES(t->batch.bytes));
		dc->src.nents = 1;
		dc->dst.nents = 1;
		dcbm_submit(dc, &t->batch);
		KUNIT_EXPECT_EQ(test, tc->nr_txs, i ? 1 : 3);
		KUNIT_EXPECT_FALSE(test, tc->txs[0].sg);
		KUNIT_EXPECT_EQ(test, test_descs(test, tc), t->batch.bytes);
	}
}

/* What a list has copied is not copied again, wherever that ends */
static void test_cut_resume(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	struct dcbm_pos pos = {};
	size_t follows;
	unsigned int i;

	test_add_many(test, 3, 1);
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	test_merge(test, &dc->src, TEST_BASE_SRC, SIZES(K(24)));
	test_merge(test, &dc->dst, TEST_BASE_DST, SIZES(K(4), K(20)));
	dc->nr_descs = 1;
	dc->resume = (struct dcbm_pos) { .pair = 1 };
	dc->resume_at = K(8);
	dcbm_submit(dc, &t->batch);

	KUNIT_ASSERT_EQ(test, tc->nr_txs, 2);
	KUNIT_ASSERT_EQ(test, dc->nr_descs, 3);
	for (i = 0; i < 2; i++) {
		struct test_tx *ttx = &tc->txs[i];

		KUNIT_EXPECT_EQ(test, ttx->len, K(8));
		KUNIT_EXPECT_EQ(test, dc->descs[i + 1].pos.pair, i + 1);
		KUNIT_EXPECT_TRUE(test, ttx->src ==
				  test_addr(test, &dc->src, K(8) * (i + 1),
					    &follows));
		KUNIT_EXPECT_TRUE(test, ttx->dst ==
				  test_addr(test, &dc->dst, K(8) * (i + 1),
					    &follows));
	}
}

static struct kunit_case cut_test_cases[] = {
	KUNIT_CASE(test_cut_plain),
	KUNIT_CASE(test_cut_merged),
	KUNIT_CASE(test_cut_folios),
	KUNIT_CASE(test_cut_split),
	KUNIT_CASE(test_cut_max_seg),
	KUNIT_CASE(test_cut_middle),
	KUNIT_CASE(test_cut_random),
	KUNIT_CASE(test_refused),
	KUNIT_CASE(test_refused_all),
	KUNIT_CASE(test_cut_too_fine),
	KUNIT_CASE(test_sg),
	KUNIT_CASE(test_cut_resume),
	{}
};

static struct kunit_suite cut_test_suite = {
	.name = "dcbm_descriptors",
	.init = test_init,
	.exit = test_exit,
	.test_cases = cut_test_cases,
};

/* ---- counting ---- */

static void test_desc(struct dcbm_chan *dc, unsigned int pair, size_t len,
		      bool ok)
{
	struct dcbm_desc *desc = &dc->descs[dc->nr_descs++];

	desc->pos = (struct dcbm_pos) { .pair = pair };
	desc->len = len;
	desc->good = ok ? len : 0;
}

static void test_count_all(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_add(test, 0);
	test_add(test, 1);
	test_add(test, 0);
	test_desc(t->dcs[0], 0, SZ_4K, true);
	test_desc(t->dcs[0], 1, SZ_4K, true);
	test_desc(t->dcs[0], 1, SZ_4K, true);
	dcbm_count(t->dcs[0], &t->batch);
	KUNIT_EXPECT_TRUE(test, test_copied(t, 0));
	KUNIT_EXPECT_TRUE(test, test_copied(t, 1));
	/* No descriptor at all */
	KUNIT_EXPECT_FALSE(test, test_copied(t, 2));
}

/* One bad descriptor spoils its folio, whichever it is, and no other */
static void test_count_failed(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int bad, i;

	for (bad = 0; bad < 6; bad++) {
		test_forget(t);
		test_add_many(test, 3, 1);
		t->dcs[0]->nr_descs = 0;
		for (i = 0; i < 6; i++)
			test_desc(t->dcs[0], i / 2, SZ_4K, i != bad);
		dcbm_count(t->dcs[0], &t->batch);
		for (i = 0; i < 3; i++)
			KUNIT_EXPECT_EQ(test, test_copied(t, i), i != bad / 2);
	}
}

/* Good parts of folios that are as long together as one of them */
static void test_count_parts(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_add_many(test, 3, 1);
	for (i = 0; i < 3; i++)
		test_desc(t->dcs[0], i, SZ_4K, true);
	dcbm_count(t->dcs[0], &t->batch);
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_FALSE(test, test_copied(t, i));
}

/* The two halves of the folio in the middle are on two channels */
static void test_count_two_channels(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int bad;

	for (bad = 0; bad < 3; bad++) {
		test_forget(t);
		test_add(test, 0);
		test_add(test, 5);
		test_add(test, 0);
		t->dcs[0]->nr_descs = 0;
		t->dcs[1]->nr_descs = 0;
		test_desc(t->dcs[0], 0, SZ_4K, true);
		test_desc(t->dcs[0], 1, SZ_64K, bad != 1);
		test_desc(t->dcs[1], 1, SZ_64K, bad != 2);
		test_desc(t->dcs[1], 2, SZ_4K, true);
		dcbm_count(t->dcs[0], &t->batch);
		KUNIT_EXPECT_FALSE(test, test_copied(t, 1));
		dcbm_count(t->dcs[1], &t->batch);
		KUNIT_EXPECT_TRUE(test, test_copied(t, 0));
		KUNIT_EXPECT_EQ(test, test_copied(t, 1), bad == 0);
		KUNIT_EXPECT_TRUE(test, test_copied(t, 2));
	}
}

/* One descriptor for three folios is good up to some byte, and no further */
static void test_count_sg(struct kunit *test)
{
	static const struct {
		size_t good;
		unsigned int copied;
	} cases[] = {
		{ K(24), 3 }, { K(24) - 1, 2 }, { K(16), 2 }, { K(12), 1 },
		{ K(8), 1 }, { K(8) - 1, 0 }, { 0, 0 },
	};
	struct dcbm_test *t = test->priv;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		test_forget(t);
		test_add_many(test, 3, 1);
		t->dcs[0]->nr_descs = 0;
		test_desc(t->dcs[0], 0, K(24), true);
		t->dcs[0]->descs[0].good = cases[i].good;
		dcbm_count(t->dcs[0], &t->batch);
		for (j = 0; j < 3; j++)
			KUNIT_EXPECT_EQ(test, test_copied(t, j),
					j < cases[i].copied);
	}
}

/* It begins in the middle of a folio, whose first half another one copied */
static void test_count_sg_middle(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[1];
	unsigned int first;

	for (first = 0; first < 2; first++) {
		test_forget(t);
		test_add(test, 5);
		test_add(test, 0);
		t->dcs[0]->nr_descs = 0;
		dc->nr_descs = 0;
		test_desc(t->dcs[0], 0, SZ_64K, first);
		test_desc(dc, 0, SZ_64K + SZ_4K, true);
		dc->descs[0].pos.offset = SZ_64K;
		dcbm_count(t->dcs[0], &t->batch);
		dcbm_count(dc, &t->batch);
		KUNIT_EXPECT_EQ(test, test_copied(t, 0), first);
		KUNIT_EXPECT_TRUE(test, test_copied(t, 1));
	}
}

static const struct test_result {
	const char *name;
	enum dmaengine_tx_result result;
	u32 residue;
	bool ok;
} test_results[] = {
	{ "no error", DMA_TRANS_NOERROR, 0, true },
	{ "read failed", DMA_TRANS_READ_FAILED, 0 },
	{ "write failed", DMA_TRANS_WRITE_FAILED, 0 },
	{ "aborted", DMA_TRANS_ABORTED, 0 },
	{ "residue", DMA_TRANS_NOERROR, 1 },
	{ "all is residue", DMA_TRANS_NOERROR, SZ_4K },
};

KUNIT_ARRAY_PARAM_DESC(test_result, test_results, name);

static void test_callback(struct kunit *test)
{
	const struct test_result *param = test->param_value;
	struct dmaengine_result result = {
		.result = param->result,
		.residue = param->residue,
	};
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];

	test_desc(dc, 0, SZ_4K, false);
	test_desc(dc, 1, SZ_4K, false);
	dc->open = 2;
	/* The last one first */
	dcbm_callback(dcbm_token(dc, 1), &result);
	KUNIT_EXPECT_EQ(test, dc->descs[1].good == SZ_4K, param->ok);
	KUNIT_EXPECT_EQ(test, dc->descs[0].good, 0);
	KUNIT_EXPECT_EQ(test, dc->open, 1);
	KUNIT_EXPECT_FALSE(test, completion_done(&dc->done));
	dcbm_callback(dcbm_token(dc, 0), &result);
	KUNIT_EXPECT_EQ(test, dc->descs[0].good == SZ_4K, param->ok);
	KUNIT_EXPECT_TRUE(test, completion_done(&dc->done));
}

/* Answers that come twice, or that belong to another share or channel */
static void test_callback_spurious(struct kunit *test)
{
	const struct dmaengine_result good = { .result = DMA_TRANS_NOERROR };
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];
	struct dcbm_pos pos = {};
	void *late = dcbm_token(dc, 0);

	test_add_many(test, 2, 0);
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	test_desc(dc, 0, SZ_4K, false);
	test_desc(dc, 1, SZ_4K, false);
	dc->open = 2;
	reinit_completion(&dc->done);

	dcbm_callback(late, &good);
	KUNIT_EXPECT_EQ(test, dc->open, 2);
	KUNIT_EXPECT_EQ(test, dc->descs[0].good, 0);
	dcbm_callback(dcbm_token(dc, 1), &good);
	dcbm_callback(dcbm_token(dc, 1), &good);
	KUNIT_EXPECT_EQ(test, dc->open, 1);
	KUNIT_EXPECT_EQ(test, dc->spurious, 2);
	KUNIT_EXPECT_FALSE(test, completion_done(&dc->done));

	/* A channel that no longer exists */
	late = dcbm_token(dc, 0);
	xa_erase(&dcbm_ids, dc->id);
	dcbm_callback(late, &good);
	KUNIT_EXPECT_EQ(test, dc->open, 1);
	dc->open = 0;
}

static struct kunit_case count_test_cases[] = {
	KUNIT_CASE(test_count_all),
	KUNIT_CASE(test_count_failed),
	KUNIT_CASE(test_count_parts),
	KUNIT_CASE(test_count_two_channels),
	KUNIT_CASE(test_count_sg),
	KUNIT_CASE(test_count_sg_middle),
	KUNIT_CASE_PARAM(test_callback, test_result_gen_params),
	KUNIT_CASE(test_callback_spurious),
	{}
};

static struct kunit_suite count_test_suite = {
	.name = "dcbm_count",
	.init = test_init,
	.exit = test_exit,
	.test_cases = count_test_cases,
};

/* ---- channels and their states ---- */

/* Put the first @nr channels into service, as dcbm_start() does */
static void test_serve(struct kunit *test, unsigned int nr)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	dcbm_nr_claimed = nr;
	guard(spinlock)(&dcbm_lock);
	for (i = 0; i < nr; i++)
		list_add_tail(&t->dcs[i]->node, &dcbm_chans);
}

static unsigned int test_take(struct dcbm_chan **dcs, unsigned int max)
{
	return dcbm_take(dcs, max, NUMA_NO_NODE, NUMA_NO_NODE);
}

static void test_take_none(struct kunit *test)
{
	struct dcbm_chan *dcs[TEST_CHANS];

	KUNIT_EXPECT_EQ(test, test_take(dcs, TEST_CHANS), 0);
}

static void test_take_some(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dcs[TEST_CHANS];
	int i;

	test_serve(test, 3);
	KUNIT_ASSERT_EQ(test, test_take(dcs, 2), 2);
	KUNIT_EXPECT_PTR_NE(test, dcs[0], dcs[1]);
	KUNIT_EXPECT_EQ(test, dcs[0]->state, DCBM_BUSY);
	KUNIT_EXPECT_EQ(test, dcs[1]->state, DCBM_BUSY);

	/* The one that is left, though more are wanted */
	KUNIT_ASSERT_EQ(test, test_take(dcs + 2, 2), 1);
	KUNIT_EXPECT_PTR_NE(test, dcs[2], dcs[0]);
	KUNIT_EXPECT_PTR_NE(test, dcs[2], dcs[1]);

	/* All are busy */
	KUNIT_EXPECT_EQ(test, test_take(dcs + 3, 1), 0);

	dcbm_put(dcs, 3);
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_IDLE);
	KUNIT_EXPECT_EQ(test, test_take(dcs, TEST_CHANS), 3);
	dcbm_put(dcs, 3);
}

static void test_take_local(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dcs[TEST_CHANS];

	if (!IS_ENABLED(CONFIG_NUMA))
		kunit_skip(test, "needs CONFIG_NUMA");
	set_dev_node(t->dcs[0]->dev, 0);
	set_dev_node(t->dcs[1]->dev, 1);
	set_dev_node(t->dcs[2]->dev, NUMA_NO_NODE);
	set_dev_node(t->dcs[3]->dev, 1);
	test_serve(test, 4);

	KUNIT_ASSERT_EQ(test, dcbm_take(dcs, 1, 1, 1), 1);
	KUNIT_EXPECT_PTR_EQ(test, dcs[0], t->dcs[1]);
	dcbm_put(dcs, 1);

	KUNIT_ASSERT_EQ(test, dcbm_take(dcs, 3, 1, 1), 3);
	KUNIT_EXPECT_PTR_EQ(test, dcs[0], t->dcs[1]);
	KUNIT_EXPECT_PTR_EQ(test, dcs[1], t->dcs[3]);
	KUNIT_EXPECT_PTR_EQ(test, dcs[2], t->dcs[2]);
	dcbm_put(dcs, 3);

	/* Where memory comes from is as near as where it goes */
	KUNIT_ASSERT_EQ(test, dcbm_take(dcs, 3, 0, 1), 3);
	KUNIT_EXPECT_PTR_EQ(test, dcs[2], t->dcs[3]);
	dcbm_put(dcs, 3);
	KUNIT_ASSERT_EQ(test, dcbm_take(dcs, 4, 1, 1), 4);
	KUNIT_EXPECT_PTR_EQ(test, dcs[2], t->dcs[2]);
	KUNIT_EXPECT_PTR_EQ(test, dcs[3], t->dcs[0]);
	dcbm_put(dcs, 4);

	/* Those far away only if that is allowed */
	dcbm_remote = false;
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, 4, 1, 1), 3);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs + 3, 1, 7, 7), 0);
	dcbm_put(dcs, 3);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, 4, 7, 7), 1);
	KUNIT_EXPECT_PTR_EQ(test, dcs[0], t->dcs[2]);
	dcbm_put(dcs, 1);
	t->dcs[2]->state = DCBM_STUCK;
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, 4, 7, 7), 0);
	t->dcs[2]->state = DCBM_IDLE;
	dcbm_remote = true;

	/* Nothing is local: whatever there is */
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, 4, 7, 7), 4);
	dcbm_put(dcs, 4);
}

/* Whoever comes first does not get all if there are others */
static void test_take_fair(struct kunit *test)
{
	struct dcbm_chan *dcs[TEST_CHANS];

	test_serve(test, TEST_CHANS);
	atomic_set(&dcbm_batches, 2);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, TEST_CHANS, 0, 0), 2);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs + 2, TEST_CHANS, 0, 0), 2);
	dcbm_put(dcs, 4);
	/* One is the least that is any use */
	atomic_set(&dcbm_batches, 9);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, TEST_CHANS, 0, 0), 1);
	dcbm_put(dcs, 1);
	atomic_set(&dcbm_batches, 1);
	KUNIT_EXPECT_EQ(test, dcbm_take(dcs, TEST_CHANS, 0, 0), TEST_CHANS);
	dcbm_put(dcs, TEST_CHANS);
	atomic_set(&dcbm_batches, 0);
}

static void test_take_leaving(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dcs[TEST_CHANS];

	test_serve(test, 2);
	t->dcs[0]->leaving = true;
	KUNIT_ASSERT_EQ(test, dcbm_take(dcs, 2, 0, 0), 1);
	KUNIT_EXPECT_PTR_EQ(test, dcs[0], t->dcs[1]);
	dcbm_put(dcs, 1);
}

static void test_take_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dcs[TEST_CHANS];

	test_serve(test, 3);
	t->dcs[0]->state = DCBM_STUCK;
	t->dcs[1]->state = DCBM_RECOVERED;
	KUNIT_ASSERT_EQ(test, test_take(dcs, 3), 1);
	KUNIT_EXPECT_PTR_EQ(test, dcs[0], t->dcs[2]);

	/* One that gets stuck while it is busy does not become idle */
	t->dcs[2]->state = DCBM_STUCK;
	dcbm_put(dcs, 1);
	KUNIT_EXPECT_EQ(test, t->dcs[2]->state, DCBM_STUCK);
	KUNIT_EXPECT_EQ(test, test_take(dcs, 3), 0);
}

/* Start a share of the whole batch on the first channel */
static struct dcbm_chan *test_start(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];
	struct dcbm_pos pos = {};

	dc->state = DCBM_BUSY;
	dcbm_fill(dc, &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	KUNIT_ASSERT_TRUE(test, dcbm_map(dc));
	dcbm_submit(dc, &t->batch);
	return dc;
}

static void test_finish(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc;

	test_add_many(test, 3, 0);
	dc = test_start(test);
	/* Even at the deadline: it has answered already */
	KUNIT_EXPECT_TRUE(test, dcbm_finish(dc, &t->batch, jiffies));
	KUNIT_EXPECT_FALSE(test, dc->mapped);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_BUSY);
	KUNIT_EXPECT_EQ(test, dc->nr_held, 0);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(t->batch.lost, t->batch.nr));
}

/* Not mapped: nothing was started, so there is nothing to wait for */
static void test_finish_unmapped(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_pos pos = {};
	unsigned long start = jiffies;

	test_add_many(test, 3, 0);
	dcbm_fill(t->dcs[0], &t->batch, &pos, t->batch.bytes, SIZE_MAX);
	KUNIT_EXPECT_TRUE(test, dcbm_finish(t->dcs[0], &t->batch,
					    start + 10 * HZ));
	KUNIT_EXPECT_TRUE(test, time_before(jiffies, start + 5 * HZ));
	KUNIT_EXPECT_EQ(test, t->dcs[0]->nr_descs, 0);
}

/* Everything that the share touches stays with the engine */
static void test_expect_stuck(struct kunit *test, struct dcbm_chan *dc)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, dc->state, DCBM_STUCK);
	KUNIT_EXPECT_TRUE(test, dc->mapped);
	KUNIT_EXPECT_EQ(test, dc->nr_held, t->batch.nr);
	for (i = 0; i < t->batch.nr; i++) {
		KUNIT_EXPECT_TRUE(test, test_lost(t, i));
		KUNIT_EXPECT_EQ(test, folio_ref_count(t->batch.pairs[i].dst),
				2);
		KUNIT_EXPECT_EQ(test, folio_ref_count(t->batch.pairs[i].src),
				2);
	}
}

static void test_silent(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dcs[TEST_CHANS], *dc;

	test_serve(test, 1);
	test_add_many(test, 3, 0);
	/* The first is answered; the engine may still access all others */
	t->chans[0].silent_from = 2;
	dc = test_start(test);
	KUNIT_EXPECT_FALSE(test, dcbm_finish(dc, &t->batch, jiffies + 1));
	test_expect_stuck(test, dc);
	KUNIT_EXPECT_EQ(test, dc->open, 2);

	dcbm_put(&dc, 1);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_STUCK);
	KUNIT_EXPECT_EQ(test, test_take(dcs, 1), 0);

	/* Turning it off does not free it either, however often */
	dcbm_release_chans();
	KUNIT_EXPECT_FALSE(test, list_empty(&dcbm_chans));
	test_expect_stuck(test, dc);
}

static void test_late(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dcs[TEST_CHANS], *dc;
	unsigned int i;

	test_serve(test, 1);
	test_add_many(test, 3, 1);
	tc->silent_from = 1;
	dc = test_start(test);
	KUNIT_EXPECT_FALSE(test, dcbm_finish(dc, &t->batch, jiffies));
	dcbm_put(&dc, 1);

	/* Not before the last one */
	test_answer(tc, 2);
	test_answer(tc, 0);
	flush_work(&dc->recover);
	test_expect_stuck(test, dc);

	test_answer(tc, 1);
	flush_work(&dc->recover);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_RECOVERED);
	KUNIT_EXPECT_FALSE(test, dc->mapped);
	KUNIT_EXPECT_EQ(test, dc->nr_held, 0);
	for (i = 0; i < t->batch.nr; i++) {
		KUNIT_EXPECT_EQ(test, folio_ref_count(t->batch.pairs[i].dst),
				1);
		KUNIT_EXPECT_EQ(test, folio_ref_count(t->batch.pairs[i].src),
				1);
		/* What was said of them stays: it came too late */
		KUNIT_EXPECT_TRUE(test, test_lost(t, i));
		KUNIT_EXPECT_FALSE(test, test_copied(t, i));
	}
	KUNIT_EXPECT_EQ(test, test_take(dcs, 1), 0);
}

/* It may have answered, and be somebody else's, before its batch ends */
static void test_late_taken(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	struct dcbm_chan *dc = t->dcs[0];

	test_serve(test, 1);
	test_add_many(test, 3, 0);
	t->chans[0].silent_from = 1;
	dcbm_timeout_ms = 1;
	job->nr = test_take(job->dcs, 1);
	KUNIT_ASSERT_EQ(test, job->nr, 1);
	dcbm_begin(&t->batch);
	KUNIT_EXPECT_FALSE(test, dcbm_end_round(&t->batch));
	test_expect_stuck(test, dc);

	test_answer_late(&t->chans[0]);
	flush_work(&dc->recover);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_RECOVERED);
	dc->state = DCBM_BUSY;
	dcbm_put(job->dcs, job->nr);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_BUSY);
}

/* A channel in service that answered nothing in time */
static struct dcbm_chan *test_start_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc;

	test_serve(test, 1);
	test_add_many(test, 3, 0);
	t->chans[0].silent_from = 1;
	dc = test_start(test);
	KUNIT_EXPECT_FALSE(test, dcbm_finish(dc, &t->batch, jiffies));
	return dc;
}

/* A channel that is being released is nobody else's, even if it answers */
static void test_late_releasing(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc;

	dc = test_start_stuck(test);
	KUNIT_EXPECT_PTR_EQ(test, dcbm_next_stuck(false), dc);
	KUNIT_EXPECT_NULL(test, dcbm_next_stuck(false));

	test_answer_late(&t->chans[0]);
	flush_work(&dc->recover);
	KUNIT_EXPECT_EQ(test, dc->state, DCBM_RECOVERED);
	KUNIT_EXPECT_NULL(test, dcbm_next_release());
	dc->releasing = false;
	KUNIT_EXPECT_PTR_EQ(test, dcbm_next_release(), dc);
}

/* Stopped for a reboot, once, and released later */
static void test_stop_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc;

	dc = test_start_stuck(test);
	dcbm_stop_stuck();
	KUNIT_EXPECT_NULL(test, dcbm_next_stuck(true));
	KUNIT_EXPECT_PTR_EQ(test, dcbm_next_stuck(false), dc);

	test_answer_late(&t->chans[0]);
	flush_work(&dc->recover);
}

static const char *test_unfit_of(struct test_chan *tc)
{
	return dcbm_chan_unfit(&tc->chan);
}

static void test_unfit(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct device *dev = tc->device.dev;

	if (dma_max_mapping_size(dev) != SIZE_MAX)
		kunit_skip(test, "all devices need bounce buffers here");
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	dma_set_max_seg_size(dev, PAGE_SIZE - 1);
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	dma_set_max_seg_size(dev, PAGE_SIZE);
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	*dev->dma_mask = DMA_BIT_MASK(20);
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	*dev->dma_mask = DMA_BIT_MASK(64);
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	tc->device.reports_errors = false;
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	tc->device.reports_errors = true;
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	dma_cap_set(DMA_SLAVE, tc->device.cap_mask);
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	dma_cap_clear(DMA_SLAVE, tc->device.cap_mask);
	dma_cap_set(DMA_CYCLIC, tc->device.cap_mask);
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	dma_cap_clear(DMA_CYCLIC, tc->device.cap_mask);
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	tc->device.copy_align = PAGE_SHIFT + 1;
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	tc->device.copy_align = PAGE_SHIFT;
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));

	strscpy(dcbm_engines, "another");
	KUNIT_EXPECT_NOT_NULL(test, test_unfit_of(tc));
	dcbm_engines[0] = '\0';
	KUNIT_EXPECT_NULL(test, test_unfit_of(tc));
}

static void test_names(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, dcbm_names_have("", "ptdma"));
	KUNIT_EXPECT_TRUE(test, dcbm_names_have("ptdma", "ptdma"));
	KUNIT_EXPECT_TRUE(test, dcbm_names_have("idxd,ptdma", "ptdma"));
	KUNIT_EXPECT_TRUE(test, dcbm_names_have("ptdma,idxd", "ptdma"));
	KUNIT_EXPECT_FALSE(test, dcbm_names_have("ptdma2", "ptdma"));
	KUNIT_EXPECT_FALSE(test, dcbm_names_have("ptdm", "ptdma"));
	KUNIT_EXPECT_FALSE(test, dcbm_names_have("idxd,ptdm", "ptdma"));
}

static void test_engines_set(struct kunit *test)
{
	static const char * const bad[] = {
		",", "a,", ",a", "a,,b", "a b", "a\nb", "a\x01", "a;b", "*",
	};
	char *longest = kunit_kzalloc(test, DCBM_MAX_ENGINES + 1, GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, longest);
	KUNIT_EXPECT_EQ(test, dcbm_engines_set("ptdma,dma-sim\n", NULL), 0);
	KUNIT_EXPECT_STREQ(test, dcbm_engines, "ptdma,dma-sim");
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_EQ_MSG(test, dcbm_engines_set(bad[i], NULL),
				    -EINVAL, "'%s'", bad[i]);
	memset(longest, 'x', DCBM_MAX_ENGINES);
	KUNIT_EXPECT_EQ(test, dcbm_engines_set(longest, NULL), -EINVAL);
	KUNIT_EXPECT_STREQ(test, dcbm_engines, "ptdma,dma-sim");
	KUNIT_EXPECT_EQ(test, dcbm_engines_set("\n", NULL), 0);
	KUNIT_EXPECT_STREQ(test, dcbm_engines, "");
}

/* Small folios pay if all engines take lists */
static void test_min_folio_bytes(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_serve(test, 2);
	guard(mutex)(&dcbm_mutex);
	t->dcs[0]->sg = true;
	KUNIT_EXPECT_EQ(test, dcbm_min_folio_bytes(), DCBM_MIN_FOLIO_BYTES);
	t->dcs[1]->sg = true;
	KUNIT_EXPECT_EQ(test, dcbm_min_folio_bytes(), 0);
}

static struct kunit_case chans_test_cases[] = {
	KUNIT_CASE(test_take_none),
	KUNIT_CASE(test_take_some),
	KUNIT_CASE(test_take_local),
	KUNIT_CASE(test_take_fair),
	KUNIT_CASE(test_take_leaving),
	KUNIT_CASE(test_take_stuck),
	KUNIT_CASE(test_finish),
	KUNIT_CASE(test_finish_unmapped),
	KUNIT_CASE(test_silent),
	KUNIT_CASE(test_late),
	KUNIT_CASE(test_late_taken),
	KUNIT_CASE(test_late_releasing),
	KUNIT_CASE(test_stop_stuck),
	KUNIT_CASE(test_unfit),
	KUNIT_CASE(test_names),
	KUNIT_CASE(test_engines_set),
	KUNIT_CASE(test_min_folio_bytes),
	{}
};

static struct kunit_suite chans_test_suite = {
	.name = "dcbm_channels",
	.init = test_init,
	.exit = test_exit,
	.test_cases = chans_test_cases,
};

/* ---- how fast a channel is ---- */

/* Have dcbm believe that the channel takes @ns nanoseconds per KiB */
static void test_set_speed(struct dcbm_chan *dc, unsigned long ns)
{
	ewma_dcbm_speed_init(&dc->speed);
	ewma_dcbm_speed_add(&dc->speed, ns);
}

static unsigned long test_speed(struct dcbm_chan *dc)
{
	return ewma_dcbm_speed_read(&dc->speed);
}

/*
 * Learn from a share of two descriptors of 32 KiB: the engine copies @good0 and
 * @good1 bytes in @ns nanoseconds.
 */
static void test_took(struct dcbm_chan *dc, size_t good0, size_t good1, s64 ns)
{
	dc->nr_descs = 0;
	dc->bytes = K(64);
	test_desc(dc, 0, K(32), true);
	dc->descs[0].good = good0;
	test_desc(dc, 1, K(32), true);
	dc->descs[1].good = good1;
	dc->begun = ns_to_ktime(NSEC_PER_SEC);
	dc->ended = ktime_add_ns(dc->begun, ns);
	dcbm_learn(dc);
}

/* dcbm learns from a share only if the engine copied all of it */
static void test_learn(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];

	KUNIT_EXPECT_EQ(test, test_speed(dc), 0);
	/* One descriptor fails, both fail, and one is cut short */
	test_took(dc, K(32), 0, 64000);
	test_took(dc, 0, 0, 64000);
	test_took(dc, K(32) - 1, K(32), 64000);
	/* The clock has not moved */
	test_took(dc, K(32), K(32), 0);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 0);
	/* The engine refuses the second descriptor */
	dc->nr_descs = 1;
	dc->ended = ktime_add_ns(dc->begun, 64000);
	dcbm_learn(dc);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 0);
	/* Nothing was mapped */
	dc->nr_descs = 0;
	dcbm_learn(dc);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 0);

	test_took(dc, K(32), K(32), 64000);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 1000);
	/* A new value counts one eighth */
	test_took(dc, K(32), K(32), 128000);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 1125);
	test_took(dc, K(32), 0, 128000);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 1125);

	/* 0 would mean that the speed is not known */
	ewma_dcbm_speed_init(&dc->speed);
	test_took(dc, K(32), K(32), 1);
	KUNIT_EXPECT_EQ(test, test_speed(dc), 1);
}

static void test_may_take(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];

	dcbm_timeout_ms = 2000;
	dc->bytes = K(1000);
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc), 2000);

	/* It should take 10 ms */
	test_set_speed(dc, 10 * NSEC_PER_USEC);
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc),
			10 * DCBM_PATIENCE + dcbm_patience_ms);
	dc->bytes = 0;
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc), dcbm_patience_ms);

	/* Never more than the operator allows */
	dc->bytes = K(1000);
	dcbm_timeout_ms = dcbm_patience_ms - 1;
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc), dcbm_patience_ms - 1);
	dcbm_timeout_ms = 2000;
	test_set_speed(dc, NSEC_PER_MSEC);
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc), 2000);

	/* The slowest channel and the largest share do not overflow */
	dc->bytes = SZ_1G;
	dcbm_timeout_ms = 60 * MSEC_PER_SEC;
	test_set_speed(dc, 10 * NSEC_PER_SEC);
	KUNIT_EXPECT_EQ(test, dcbm_may_take_ms(dc), 60 * MSEC_PER_SEC);
}

/* A channel copies a MiB in @copy_us, and a share costs @share_us */
static unsigned int test_worth(unsigned int copy_us, unsigned int share_us,
			       size_t bytes, unsigned int busy_us)
{
	dcbm_forget_speed();
	ewma_dcbm_speed_add(&dcbm_all_speed, copy_us * 1000 / 1024);
	ewma_dcbm_ns_add(&dcbm_share_ns, share_us * 1000);
	return dcbm_nr_worth(bytes, busy_us * NSEC_PER_USEC);
}

static void test_nr_worth(struct kunit *test)
{
	/* Nothing is known: as many as there is a share for */
	dcbm_forget_speed();
	KUNIT_EXPECT_EQ(test, dcbm_nr_worth(SZ_1M, 0), 16);
	KUNIT_EXPECT_EQ(test, dcbm_nr_worth(SZ_1G, 0), DCBM_MAX_CHANS);
	KUNIT_EXPECT_EQ(test, dcbm_nr_worth(K(4), 0), 1);

	/* The CPU is busy for as long as one channel takes, or two */
	KUNIT_EXPECT_EQ(test, test_worth(320, 5, SZ_1M, 320), 1);
	KUNIT_EXPECT_EQ(test, test_worth(320, 5, SZ_1M, 160), 2);
	KUNIT_EXPECT_EQ(test, test_worth(320, 5, SZ_1M, 100), 3);
	/* It is idle: 5 us for each more, until the copy takes no longer */
	KUNIT_EXPECT_EQ(test, test_worth(320, 5, SZ_1M, 0), 8);
	/* A share costs more than it saves */
	KUNIT_EXPECT_EQ(test, test_worth(320, 400, SZ_1M, 0), 1);
	/* A share costs nothing, but there are no smaller ones */
	KUNIT_EXPECT_EQ(test, test_worth(320, 0, SZ_1M, 0), 16);
	KUNIT_EXPECT_EQ(test, test_worth(320000, 5, SZ_1G, 0), DCBM_MAX_CHANS);
	dcbm_forget_speed();
}

static void test_max_share(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];

	dcbm_timeout_ms = 100 * DCBM_PATIENCE;
	KUNIT_EXPECT_EQ(test, dcbm_max_share(dc), SIZE_MAX);
	test_set_speed(dc, NSEC_PER_MSEC);
	KUNIT_EXPECT_EQ(test, dcbm_max_share(dc), K(100));
	/* The share grows with timeout_ms */
	dcbm_timeout_ms = 200 * DCBM_PATIENCE;
	KUNIT_EXPECT_EQ(test, dcbm_max_share(dc), K(200));
	/* A smaller share is not worth waking up the channel */
	test_set_speed(dc, NSEC_PER_SEC);
	KUNIT_EXPECT_EQ(test, dcbm_max_share(dc), DCBM_MIN_SHARE);
}

/*
 * Begin a round on the first @nr channels. Returns how many jiffies are left
 * until its deadline.
 */
static unsigned long test_begin(struct kunit *test, unsigned int nr)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	unsigned int i;

	job->nr = nr;
	for (i = 0; i < nr; i++)
		job->dcs[i] = t->dcs[i];
	dcbm_begin(&t->batch);
	return job->deadline - jiffies;
}

/* One deadline serves all channels, and leaves the slowest enough time */
static void test_deadline(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned long known, slow, most;

	test_add_many(test, 4, 5);	/* 128K each */
	dcbm_timeout_ms = 60 * MSEC_PER_SEC;
	most = msecs_to_jiffies(dcbm_timeout_ms);
	test_set_speed(t->dcs[0], 100);
	test_set_speed(t->dcs[1], 100);
	known = test_begin(test, 2);
	KUNIT_EXPECT_LE(test, known, msecs_to_jiffies(dcbm_patience_ms) + 2);
	KUNIT_EXPECT_TRUE(test, dcbm_end_round(&t->batch));

	/* 256K at 1 ms per KiB */
	test_forget(t);
	test_add_many(test, 4, 5);
	test_set_speed(t->dcs[0], NSEC_PER_MSEC);
	test_set_speed(t->dcs[1], 100);
	slow = test_begin(test, 2);
	KUNIT_EXPECT_GT(test, slow, msecs_to_jiffies(256 * DCBM_PATIENCE));
	KUNIT_EXPECT_LT(test, slow, most / 2);
	KUNIT_EXPECT_TRUE(test, dcbm_end_round(&t->batch));

	/* The speed of the second channel is not known */
	test_forget(t);
	test_add_many(test, 4, 5);
	test_set_speed(t->dcs[0], 100);
	KUNIT_EXPECT_GT(test, test_begin(test, 2), most / 2);
	KUNIT_EXPECT_TRUE(test, dcbm_end_round(&t->batch));
}

/* dcbm learns nothing from a round in which the engine fails */
static void test_learn_round(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	unsigned int i;

	for (i = 0; i < 6; i++) {
		test_forget(t);
		test_add_many(test, 4, 5);
		tc->copies = true;
		tc->dc->sg = i == 4;
		switch (i) {
		case 0:
			tc->fail = 2;
			break;
		case 1:
			tc->residue = 4;
			break;
		case 2:
			tc->refuse_from = 4;
			break;
		case 3:
			tc->refuse_submit = 1;
			break;
		case 4:
			/* All is good in the end, but at the second try */
			tc->residue_sg = SZ_64K;
			break;
		}
		test_begin(test, 1);
		KUNIT_EXPECT_TRUE(test, dcbm_end_round(&t->batch));
		/* The last one is good */
		KUNIT_EXPECT_EQ(test, test_speed(tc->dc) > 0, i == 5);
	}
}

static struct kunit_case speed_test_cases[] = {
	KUNIT_CASE(test_learn),
	KUNIT_CASE(test_learn_round),
	KUNIT_CASE(test_may_take),
	KUNIT_CASE(test_nr_worth),
	KUNIT_CASE(test_max_share),
	KUNIT_CASE(test_deadline),
	{}
};

static struct kunit_suite speed_test_suite = {
	.name = "dcbm_speed",
	.init = test_init,
	.exit = test_exit,
	.test_cases = speed_test_cases,
};

/* ---- the test of a channel ---- */

static const struct test_liar {
	const char *name;
	enum test_lie lie;
	bool sg;
	bool fits;		/* honest, or harmless */
	bool stuck;
} test_liars[] = {
	{ "honest", LIE_NONE, .fits = true },
	{ "honest, with lists", LIE_NONE, .sg = true, .fits = true },
	{ "copies nothing", LIE_NOTHING },
	{ "copies half", LIE_HALF },
	{ "last byte is wrong", LIE_LAST_BYTE },
	{ "copies the wrong way", LIE_SWAP },
	{ "wrong residue", LIE_RESIDUE },
	{ "answers before it copies", LIE_EARLY },
	{ "hides an error", LIE_HIDE_ERROR },
	{ "answers twice", LIE_TWICE },
	{ "drops what comes while it is busy", LIE_IDLE, .stuck = true },
	{ "no interrupt", LIE_SILENT, .stuck = true },
	{ "answers what it refused", LIE_SUBMIT },
	{ "copies one segment of a list", LIE_SG, .sg = true },
};

KUNIT_ARRAY_PARAM_DESC(test_liar, test_liars, name);

static void test_chan_test(struct kunit *test)
{
	const struct test_liar *liar = test->param_value;
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = tc->dc;
	const char *why;

	dcbm_timeout_ms = 20;
	dc->state = DCBM_BUSY;
	dc->sg = liar->sg;
	tc->copies = true;
	tc->lie = liar->lie;
	tc->refuse_submit = liar->lie == LIE_SUBMIT ? 4 : 0;
	why = dcbm_test_chan(dc);
	KUNIT_EXPECT_EQ_MSG(test, !why, liar->fits, "%s", why ?: "it fits");
	KUNIT_EXPECT_EQ(test, dc->state == DCBM_STUCK, liar->stuck);
	KUNIT_EXPECT_EQ(test, dc->mapped, liar->stuck);
	KUNIT_EXPECT_EQ(test, !!dc->nr_held, liar->stuck);
	KUNIT_EXPECT_EQ(test, !!dc->open, liar->stuck);
	dc->open = 0;
}

/* Stuck, and it answers: back in service if it passes the test */
static void test_back(struct kunit *test)
{
	const struct test_liar *liar = test->param_value;
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc;
	unsigned int i;

	test_serve(test, 1);
	test_add_many(test, 3, 1);
	dcbm_timeout_ms = 20;
	tc->silent_from = 1;
	dc = test_start(test);
	KUNIT_EXPECT_FALSE(test, dcbm_finish(dc, &t->batch, jiffies));
	dcbm_put(&dc, 1);

	dcbm_offloading = true;
	tc->copies = true;
	dc->sg = liar->sg;
	tc->lie = liar->lie;
	tc->refuse_submit = liar->lie == LIE_SUBMIT ? 7 : 0;
	tc->silent_from = UINT_MAX;
	for (i = 0; i < 3; i++)
		test_answer(tc, i);
	flush_work(&dc->recover);
	KUNIT_EXPECT_EQ(test, dc->state,
			liar->fits ? DCBM_IDLE :
			liar->stuck ? DCBM_STUCK : DCBM_FAILED);
	dcbm_offloading = false;
	dc->open = 0;
}

static struct kunit_case test_test_cases[] = {
	KUNIT_CASE_PARAM(test_chan_test, test_liar_gen_params),
	KUNIT_CASE_PARAM(test_back, test_liar_gen_params),
	{}
};

static struct kunit_suite test_test_suite = {
	.name = "dcbm_self_test",
	.init = test_init,
	.exit = test_exit,
	.test_cases = test_test_cases,
};

/* ---- all of it ---- */

/* Content that differs everywhere, and nothing like it in the destinations */
static void test_content(struct kunit *test,
			 struct migrate_offload_batch *batch)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		prandom_bytes_state(&t->rnd, folio_address(pair->src),
				    folio_size(pair->src));
		memset(folio_address(pair->dst), 0xa5, folio_size(pair->dst));
	}
}

static bool test_same(struct migrate_pair *pair)
{
	return !memcmp(folio_address(pair->src), folio_address(pair->dst),
		       folio_size(pair->src));
}

/* Whatever is said to be copied is; returns how many folios that are */
static unsigned int test_run(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	s64 migrated = atomic64_read(&dcbm_migrated);
	s64 failures = atomic64_read(&dcbm_failures);
	unsigned int i, copied = 0;
	int err;

	for (i = 0; i < t->batch.nr; i++)
		atomic_long_set(&t->batch.pairs[i].copied, 0);
	bitmap_zero(t->batch.lost, t->batch.nr);
	test_content(test, &t->batch);
	for (i = 0; i < TEST_CHANS; i++)
		t->chans[i].copies = true;
	/* As many channels as there are shares, whatever was measured before */
	dcbm_forget_speed();
	err = dcbm_submit_batch(&t->batch);
	if (!err)
		dcbm_wait_batch(&t->batch);

	for (i = 0; i < t->batch.nr; i++) {
		struct migrate_pair *pair = &t->batch.pairs[i];

		/* No byte is reported twice */
		KUNIT_ASSERT_LE(test, test_bytes(t, i), folio_size(pair->src));
		if (!test_copied(t, i))
			continue;
		copied++;
		KUNIT_ASSERT_TRUE(test, test_same(pair));
		KUNIT_ASSERT_FALSE(test, test_lost(t, i));
	}
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_migrated) - migrated, copied);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_failures) - failures,
			err == -EINVAL ? 0 : t->batch.nr - copied);
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 0);
	return copied;
}

static void test_copy_all(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_serve(test, 4);
	test_add_many(test, 20, 0);
	test_add(test, 9);
	test_add_many(test, 3, 4);
	KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_GT(test, t->chans[i].nr_txs, 0);
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_IDLE);
	}
}

/* Shares that a channel cannot take at once come in rounds */
static void test_copy_rounds(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_serve(test, 1);
	t->dcs[0]->max_seg = PAGE_SIZE;
	test_add(test, 1);
	test_add(test, 9);
	test_add(test, 0);
	KUNIT_EXPECT_EQ(test, t->batch.bytes, (DCBM_MAX_SEGS + 3) * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, test_run(test), 3);
	KUNIT_EXPECT_EQ(test, t->chans[0].nr_txs, DCBM_MAX_SEGS + 3);
}

/* The channel gets the smallest share possible, for at least 9 rounds */
static void test_set_slow(struct dcbm_chan *dc)
{
	test_set_speed(dc, 10 * NSEC_PER_MSEC);
	dcbm_timeout_ms = 2000;
}

/* A slow channel copies all of a batch, in many small rounds */
static void test_copy_slow(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	u64 share = t->dcs[0]->share;

	test_serve(test, 1);
	test_add_many(test, 4, 4);	/* 64K each */
	test_add(test, 6);		/* 256K */
	test_add_many(test, 8, 1);	/* 8K each */
	test_set_slow(t->dcs[0]);
	KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
	KUNIT_EXPECT_EQ(test, t->dcs[0]->share - share,
			t->batch.bytes / DCBM_MIN_SHARE);
}

/* The fast channel gets what is too much for the slow one, in one round */
static void test_copy_slow_and_fast(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_serve(test, 2);
	test_add_many(test, 16, 4);
	test_set_slow(t->dcs[0]);
	KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
	KUNIT_EXPECT_EQ(test, t->chans[0].nr_txs, 1);
	KUNIT_EXPECT_EQ(test, t->chans[1].nr_txs, 15);
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_EQ(test, t->dcs[i]->share, 1);
}

/*
 * A slow channel gets stuck in the third of many rounds. Only the folio of that
 * round is lost; later ones were never given to an engine.
 */
static void test_copy_slow_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_serve(test, 1);
	test_add_many(test, 8, 4);
	test_set_slow(t->dcs[0]);
	dcbm_timeout_ms = 10;
	t->chans[0].silent_from = 3;
	KUNIT_EXPECT_EQ(test, test_run(test), 2);
	KUNIT_EXPECT_EQ(test, t->chans[0].nr_txs, 3);
	for (i = 0; i < t->batch.nr; i++) {
		KUNIT_EXPECT_EQ(test, test_copied(t, i), i < 2);
		KUNIT_EXPECT_EQ(test, test_lost(t, i), i == 2);
	}
}

static void test_copy_no_channel(struct kunit *test)
{
	test_add_many(test, 16, 0);
	KUNIT_EXPECT_EQ(test, test_run(test), 0);
}

/* One descriptor goes wrong, in each of the ways, on a folio on two channels */
static void test_copy_faults(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_serve(test, 2);
	test_add_many(test, 8, 0);
	test_add(test, 6);
	test_add_many(test, 8, 0);
	for (i = 0; i < 4; i++) {
		struct test_chan *tc = &t->chans[1];

		test_chan_reset(&t->chans[0]);
		test_chan_reset(tc);
		/* The first of the second channel is half of the large one */
		switch (i) {
		case 0:
			tc->fail = 1;
			break;
		case 1:
			tc->residue = 1;
			break;
		case 2:
			tc->refuse_from = 1;
			break;
		case 3:
			tc->refuse_submit = 1;
			break;
		}
		KUNIT_EXPECT_EQ(test, test_run(test), i < 2 ? 16 : 8);
		KUNIT_EXPECT_FALSE(test, test_copied(t, 8));
	}
}

/* A folio on four channels is not copied if one of them fails */
static void test_copy_split(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int i, bad;

	test_serve(test, TEST_CHANS);
	test_add(test, 6);		/* 256K */
	for (bad = 0; bad < TEST_CHANS; bad++) {
		for (i = 0; i < TEST_CHANS; i++)
			test_chan_reset(&t->chans[i]);
		t->chans[bad].fail = 1;
		KUNIT_EXPECT_EQ(test, test_run(test), 0);
		KUNIT_EXPECT_EQ(test, test_bytes(t, 0), 3 * SZ_64K);
		KUNIT_EXPECT_FALSE(test, test_lost(t, 0));
		for (i = 0; i < TEST_CHANS; i++)
			KUNIT_EXPECT_EQ(test, t->chans[i].nr_txs, 1);
	}

	/* Nor if one gets stuck; then the folio is lost as well */
	test_chan_reset(&t->chans[3]);
	t->chans[3].silent_from = 1;
	dcbm_timeout_ms = 1;
	KUNIT_EXPECT_EQ(test, test_run(test), 0);
	KUNIT_EXPECT_TRUE(test, test_lost(t, 0));
}

/*
 * An error in a list: what was copied before is not copied again, and what
 * comes after it piece by piece, so that only the folio that fails is left to
 * the CPU.
 */
static void test_copy_spoilt(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	struct dcbm_chan *dc = t->dcs[0];
	unsigned int good;

	test_serve(test, 1);
	dc->sg = true;
	dc->max_seg = SZ_16K;
	test_add_many(test, 8, 1);
	test_add_many(test, 8, 2);
	test_add(test, 3);
	for (good = 0; good <= 17; good++) {
		unsigned int left = 17 - good;
		size_t bytes = 0;
		unsigned int i;

		for (i = 0; i < good; i++)
			bytes += folio_size(t->batch.pairs[i].src);
		test_chan_reset(tc);
		/* And a little of the folio in which it happened */
		tc->residue_sg = t->batch.bytes - bytes - !!left;
		/* It happens again */
		tc->fail = left ? 2 : 0;
		KUNIT_EXPECT_EQ(test, test_run(test), left ? 16 : 17);
		if (left)
			KUNIT_EXPECT_FALSE(test, test_copied(t, good));
		/* The last folio is two pieces */
		KUNIT_EXPECT_EQ(test, tc->nr_txs, left ? 1 + left + 1 : 1);
	}

	/* If it cannot be tried again, what is good stays good */
	test_chan_reset(tc);
	tc->residue_sg = SZ_32K;
	tc->refuse_from = 2;
	KUNIT_EXPECT_EQ(test, test_run(test), 16);
}

/* The second channel does not answer; the first one's share is still good */
static void test_copy_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[1];
	unsigned int i;

	test_serve(test, 2);
	test_add_many(test, 8, 0);
	test_add(test, 6);
	test_add_many(test, 8, 0);
	dcbm_timeout_ms = 1;
	tc->silent_from = 4;
	KUNIT_EXPECT_EQ(test, test_run(test), 8);
	for (i = 0; i < t->batch.nr; i++) {
		/* Also those of which it said that they were copied */
		KUNIT_EXPECT_EQ(test, test_lost(t, i), i >= 8);
		KUNIT_EXPECT_EQ(test, test_copied(t, i), i < 8);
	}
	KUNIT_EXPECT_EQ(test, t->dcs[0]->state, DCBM_IDLE);
	KUNIT_EXPECT_EQ(test, t->dcs[1]->state, DCBM_STUCK);

	/* From now on, all goes to the first, until the other one answers */
	test_chan_reset(&t->chans[0]);
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ(test, 2,
				folio_ref_count(t->batch.pairs[9 + i].dst));
		KUNIT_EXPECT_EQ(test, 2,
				folio_ref_count(t->batch.pairs[9 + i].src));
	}
	test_answer_late(tc);
	flush_work(&t->dcs[1]->recover);
	KUNIT_EXPECT_EQ(test, t->dcs[1]->state, DCBM_RECOVERED);
	KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
	KUNIT_EXPECT_EQ(test, tc->nr_txs, 9);
}

/* All get stuck over what their lists have spoilt: that is waited for once */
static void test_copy_spoilt_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned long start;
	unsigned int i;

	test_serve(test, TEST_CHANS);
	test_add_many(test, 4 * TEST_CHANS, 4);
	for (i = 0; i < TEST_CHANS; i++) {
		t->dcs[i]->sg = true;
		t->chans[i].residue_sg = 2 * SZ_64K;
		t->chans[i].silent_from = 2;
	}
	dcbm_timeout_ms = 500;
	start = jiffies;
	KUNIT_EXPECT_EQ(test, test_run(test), 0);
	KUNIT_EXPECT_LT(test, jiffies - start, msecs_to_jiffies(1000));
	for (i = 0; i < TEST_CHANS; i++)
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_STUCK);
}

static void test_copy_random(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	unsigned int run, i;

	test_serve(test, TEST_CHANS);
	for (run = 0; run < 100; run++) {
		bool bad = run & 1, slow = run & 2;

		test_random_batch(test);
		for (i = 0; i < TEST_CHANS && bad; i++) {
			t->chans[i].fail = test_random(t, 20);
			t->chans[i].residue = test_random(t, 20);
			t->chans[i].refuse_from = test_random(t, 40);
			t->chans[i].refuse_submit = test_random(t, 40);
		}
		/* Room for what the fakes record of several rounds */
		for (i = 0; i < TEST_CHANS; i++)
			t->dcs[i]->max_seg = max(t->dcs[i]->max_seg, SZ_16K);
		for (i = 0; i < TEST_CHANS && slow; i++)
			test_set_slow(t->dcs[i]);
		if (!bad)
			KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
		else
			test_run(test);
	}
}

static struct kunit_case copy_test_cases[] = {
	KUNIT_CASE(test_copy_all),
	KUNIT_CASE(test_copy_rounds),
	KUNIT_CASE(test_copy_slow),
	KUNIT_CASE(test_copy_slow_and_fast),
	KUNIT_CASE(test_copy_slow_stuck),
	KUNIT_CASE(test_copy_no_channel),
	KUNIT_CASE(test_copy_faults),
	KUNIT_CASE(test_copy_split),
	KUNIT_CASE(test_copy_spoilt),
	KUNIT_CASE(test_copy_stuck),
	KUNIT_CASE(test_copy_spoilt_stuck),
	KUNIT_CASE(test_copy_random),
	{}
};

static struct kunit_suite copy_test_suite = {
	.name = "dcbm_copy",
	.init = test_init,
	.exit = test_exit,
	.test_cases = copy_test_cases,
};

/* ---- submit and wait ---- */

static struct migrate_offload_batch *test_batch(struct kunit *test)
{
	struct migrate_offload_batch *batch;

	batch = kunit_kzalloc(test, sizeof(*batch), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, batch);
	batch->src_nid = NUMA_NO_NODE;
	batch->dst_nid = NUMA_NO_NODE;
	return batch;
}

static bool test_all_same(struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		if (atomic_long_read(&pair->copied) != folio_size(pair->src) ||
		    !test_same(pair))
			return false;
	}
	return bitmap_empty(batch->lost, batch->nr);
}

/* Serve with channels that copy only in test_answer_late() */
static void test_serve_late(struct kunit *test, unsigned int nr)
{
	struct dcbm_test *t = test->priv;
	unsigned int i;

	test_serve(test, nr);
	for (i = 0; i < nr; i++) {
		t->chans[i].copies = true;
		t->chans[i].silent_from = 1;
	}
}

/* If all channels are busy, dcbm refuses at once, and touches nothing */
static void test_submit_busy(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct migrate_offload_batch *was = test_batch(test);
	struct dcbm_chan *dcs[TEST_CHANS];
	unsigned long switches;
	unsigned int i;

	test_serve(test, TEST_CHANS);
	test_add_many(test, 8, 4);
	test_content(test, &t->batch);
	*was = t->batch;
	KUNIT_ASSERT_EQ(test, test_take(dcs, TEST_CHANS), TEST_CHANS);

	switches = current->nvcsw;
	KUNIT_EXPECT_EQ(test, dcbm_submit_batch(&t->batch), -EBUSY);
	/* dcbm has not slept */
	KUNIT_EXPECT_EQ(test, current->nvcsw, switches);

	KUNIT_EXPECT_EQ(test, t->batch.nr, was->nr);
	KUNIT_EXPECT_EQ(test, t->batch.bytes, was->bytes);
	KUNIT_EXPECT_MEMEQ(test, t->batch.pairs, was->pairs,
			   sizeof(was->pairs));
	KUNIT_EXPECT_MEMEQ(test, t->batch.lost, was->lost, sizeof(was->lost));
	for (i = 0; i < t->batch.nr; i++) {
		struct migrate_pair *pair = &t->batch.pairs[i];

		KUNIT_EXPECT_EQ(test, folio_ref_count(pair->src), 1);
		KUNIT_EXPECT_EQ(test, folio_ref_count(pair->dst), 1);
	}
	for (i = 0; i < TEST_CHANS; i++) {
		KUNIT_EXPECT_EQ(test, t->chans[i].nr_txs, 0);
		KUNIT_EXPECT_EQ(test, t->dcs[i]->share, 0);
		KUNIT_EXPECT_FALSE(test, t->dcs[i]->mapped);
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_BUSY);
	}

	/* The next batch need not share channels with the refused one */
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 0);
	dcbm_put(dcs, TEST_CHANS);
	KUNIT_EXPECT_EQ(test, test_run(test), t->batch.nr);
	for (i = 0; i < TEST_CHANS; i++)
		KUNIT_EXPECT_EQ(test, t->chans[i].nr_txs, 2);
}

/* Folios count as failures if no channel is free */
static void test_submit_counts(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc;

	test_serve(test, 1);
	test_add_many(test, 16, 0);
	KUNIT_ASSERT_EQ(test, test_take(&dc, 1), 1);
	atomic64_set(&dcbm_failures, 0);
	atomic64_set(&dcbm_migrated, 0);
	KUNIT_EXPECT_EQ(test, dcbm_submit_batch(&t->batch), -EBUSY);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_failures), 16);
	dcbm_put(&dc, 1);

	/* A batch that was taken counts at the end of its wait */
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_migrated), 0);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_migrated), 16);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_failures), 16);
}

/* From submit to wait, channels belong to the batch, and to nobody else */
static void test_submit_owns(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct migrate_offload_batch *other = test_batch(test);
	struct dcbm_job *job = dcbm_job(&t->batch);
	struct dcbm_chan *dcs[TEST_CHANS], *found;
	unsigned long switches;
	unsigned int i;
	bool stuck;

	test_serve_late(test, 2);
	test_add_many(test, 4, 4);
	test_add_to(test, other, 4);
	test_content(test, &t->batch);

	switches = current->nvcsw;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_EQ(test, current->nvcsw, switches);
	KUNIT_ASSERT_EQ(test, job->nr, 2);
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_PTR_EQ(test, job->dcs[i], t->dcs[i]);
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_BUSY);
		KUNIT_EXPECT_TRUE(test, t->dcs[i]->mapped);
	}

	/* Nobody may take them, not even once the engines are done */
	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, test_take(dcs, TEST_CHANS), 0);
		KUNIT_ASSERT_EQ(test, dcbm_submit_batch(other), -EBUSY);
		KUNIT_EXPECT_NULL(test, dcbm_next_release());
		KUNIT_EXPECT_FALSE(test, dcbm_take_leaving(&t->chans[0].chan,
							   &found, &stuck));
		test_answer_late(&t->chans[0]);
		test_answer_late(&t->chans[1]);
	}

	/* dcbm reports nothing before the wait */
	for (i = 0; i < t->batch.nr; i++)
		KUNIT_EXPECT_EQ(test, test_bytes(t, i), 0);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_IDLE);
		KUNIT_EXPECT_FALSE(test, t->dcs[i]->mapped);
	}
	KUNIT_EXPECT_EQ(test, test_take(dcs, TEST_CHANS), 2);
	dcbm_put(dcs, 2);
}

/* Two batches share the channels, and may end in any order */
static void test_submit_two(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct migrate_offload_batch *other = test_batch(test);
	struct dcbm_job *job = dcbm_job(&t->batch);
	struct dcbm_job *other_job = dcbm_job(other);
	unsigned int i;

	test_serve_late(test, TEST_CHANS);
	test_add_many(test, 16, 0);	/* 64K, for one channel */
	for (i = 0; i < 4; i++)
		test_add_to(test, other, 4);
	test_content(test, &t->batch);
	test_content(test, other);

	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(other), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 2);
	KUNIT_ASSERT_EQ(test, job->nr, 1);
	KUNIT_EXPECT_PTR_EQ(test, job->dcs[0], t->dcs[0]);
	/* It could use four channels, but it is not alone */
	KUNIT_ASSERT_EQ(test, other_job->nr, 2);
	KUNIT_ASSERT_PTR_EQ(test, other_job->dcs[0], t->dcs[1]);
	KUNIT_ASSERT_PTR_EQ(test, other_job->dcs[1], t->dcs[2]);

	test_answer_late(&t->chans[1]);
	test_answer_late(&t->chans[2]);
	dcbm_wait_batch(other);
	KUNIT_EXPECT_TRUE(test, test_all_same(other));
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 1);
	/* The first batch still runs */
	KUNIT_EXPECT_EQ(test, t->dcs[0]->state, DCBM_BUSY);
	KUNIT_EXPECT_EQ(test, t->dcs[0]->open, 16);
	KUNIT_EXPECT_EQ(test, t->dcs[1]->state, DCBM_IDLE);
	KUNIT_EXPECT_EQ(test, t->dcs[2]->state, DCBM_IDLE);

	test_answer_late(&t->chans[0]);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
	KUNIT_EXPECT_EQ(test, t->dcs[0]->state, DCBM_IDLE);
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 0);
	KUNIT_EXPECT_EQ(test, atomic64_read(&dcbm_migrated) - t->migrated, 20);
}

/* The engine of one batch gets stuck; the other batch is copied */
static void test_submit_two_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct migrate_offload_batch *other = test_batch(test);
	unsigned int i;

	test_serve_late(test, 2);
	test_add_many(test, 16, 0);
	for (i = 0; i < 16; i++)
		test_add_to(test, other, 0);
	test_content(test, &t->batch);
	test_content(test, other);
	dcbm_timeout_ms = 10;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(other), 0);
	KUNIT_ASSERT_PTR_EQ(test, dcbm_job(other)->dcs[0], t->dcs[1]);

	dcbm_wait_batch(&t->batch);
	test_expect_stuck(test, t->dcs[0]);
	test_answer_late(&t->chans[1]);
	dcbm_wait_batch(other);
	KUNIT_EXPECT_TRUE(test, test_all_same(other));
	KUNIT_EXPECT_EQ(test, t->dcs[1]->state, DCBM_IDLE);
	KUNIT_EXPECT_EQ(test, atomic_read(&dcbm_batches), 0);
}

/* An answer after the deadline is in time if it comes before the wait */
static void test_wait_late(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	unsigned int i;

	test_serve_late(test, 2);
	test_add_many(test, 4, 4);
	test_content(test, &t->batch);
	dcbm_timeout_ms = 1;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	while (time_before_eq(jiffies, job->deadline))
		msleep(20);
	test_answer_late(&t->chans[1]);
	test_answer_late(&t->chans[0]);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, t->dcs[i]->state, DCBM_IDLE);
		KUNIT_EXPECT_EQ(test, t->dcs[i]->spurious, 0);
	}
}

/* One descriptor is open at the wait: the whole share is lost */
static void test_wait_late_some(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct test_chan *tc = &t->chans[0];
	unsigned int i;

	test_serve_late(test, 1);
	test_add_many(test, 4, 4);
	test_content(test, &t->batch);
	dcbm_timeout_ms = 1;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	for (i = 0; i < 3; i++)
		test_answer(tc, i);
	dcbm_wait_batch(&t->batch);
	test_expect_stuck(test, tc->dc);
	for (i = 0; i < t->batch.nr; i++)
		KUNIT_EXPECT_EQ(test, test_bytes(t, i), 0);

	/* Its answer comes once the batch has ended, and changes nothing */
	test_answer(tc, 3);
	flush_work(&tc->dc->recover);
	KUNIT_EXPECT_EQ(test, tc->dc->state, DCBM_RECOVERED);
	for (i = 0; i < t->batch.nr; i++)
		KUNIT_EXPECT_EQ(test, test_bytes(t, i), 0);
}

static struct kunit_case submit_test_cases[] = {
	KUNIT_CASE(test_submit_busy),
	KUNIT_CASE(test_submit_counts),
	KUNIT_CASE(test_submit_owns),
	KUNIT_CASE(test_submit_two),
	KUNIT_CASE(test_submit_two_stuck),
	KUNIT_CASE(test_wait_late),
	KUNIT_CASE(test_wait_late_some),
	{}
};

static struct kunit_suite submit_test_suite = {
	.name = "dcbm_submit",
	.init = test_init,
	.exit = test_exit,
	.test_cases = submit_test_cases,
};

/* ---- the CPU takes part ---- */

/*
 * Of the batch, the CPU copies a KiB in @cpu_ns nanoseconds, and each channel
 * in @chan_ns.
 */
static void test_share_speed(struct dcbm_test *t, unsigned long cpu_ns,
			     unsigned long chan_ns)
{
	unsigned int i;

	dcbm_forget_speed();
	ewma_dcbm_speed_add(&dcbm_all_speed, chan_ns);
	dcbm_is_rough = false;
	for (i = 0; i < TEST_CHANS; i++) {
		t->chans[i].copies = true;
		test_set_speed(t->dcs[i], chan_ns);
	}
	t->batch.cpu_ns = (u64)cpu_ns * t->batch.bytes / SZ_1K;
}

/* Submit the batch, of which the CPU copies three times as much as a channel */
static void test_share_submit(struct kunit *test)
{
	struct dcbm_test *t = test->priv;

	test_content(test, &t->batch);
	test_share_speed(t, 100, 300);
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
}

/* A channel does not get what the CPU has, not even of a large folio */
static void test_share_fill(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_chan *dc = t->dcs[0];
	struct dcbm_pos pos = {};

	test_add_many(test, 2, 6);
	dcbm_fill(dc, &t->batch, &pos, SZ_256K, SZ_256K + PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dc->bytes, SZ_256K);
	dcbm_fill(dc, &t->batch, &pos, SZ_4K, SZ_4K);
	KUNIT_EXPECT_EQ(test, dc->bytes, SZ_4K);
	KUNIT_EXPECT_EQ(test, pos.pair, 1);
	KUNIT_EXPECT_EQ(test, pos.offset, SZ_4K);
	/* There is less left than it was to get, or nothing */
	dcbm_fill(dc, &t->batch, &pos, SZ_32K, SZ_4K);
	KUNIT_EXPECT_EQ(test, dc->bytes, SZ_4K);
	KUNIT_EXPECT_EQ(test, dc->src.orig_nents, 1);
	dcbm_fill(dc, &t->batch, &pos, SZ_32K, 0);
	KUNIT_EXPECT_EQ(test, dc->bytes, 0);
	KUNIT_EXPECT_EQ(test, dc->src.orig_nents, 0);
}

static void test_share_part(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);

	test_add(test, 9);
	test_share_speed(t, 100, 300);
	job->nr = 1;
	job->left = SZ_2M;
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), SZ_2M);
	job->shares = true;
	/* A quarter is for the channel, less an eighth of that */
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), SZ_2M * 7 / 32);
	/* The CPU comes later: half of it, and a quarter of the rest */
	KUNIT_EXPECT_EQ(test,
			dcbm_part(&t->batch, 300 * SZ_1K),
			SZ_1M + SZ_1M * 7 / 32);
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 600 * SZ_1K), SZ_2M);
	/* Three channels are as fast as the CPU */
	job->nr = 3;
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), SZ_2M * 7 / 16);
	/* The CPU copies all that is left sooner than a channel its least */
	job->left = 3 * SZ_32K;
	KUNIT_EXPECT_GT(test, dcbm_part(&t->batch, 0), 0);
	job->left -= PAGE_SIZE;
	job->dcs[0] = t->dcs[0];
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), 0);
	/* But now and then, it is tried */
	t->dcs[0]->share = 7;
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), SZ_32K);
	job->given = SZ_32K;
	KUNIT_EXPECT_EQ(test, dcbm_part(&t->batch, 0), 0);
}

/* A channel that was slow only once is seen to be fast again */
static void test_share_recovers(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	unsigned int i, given = 0;

	test_serve(test, 1);
	test_add(test, 9);
	test_content(test, &t->batch);
	/* The CPU copies all of it before the channel copies a piece */
	test_share_speed(t, 1, 100000);
	for (i = 0; i < 16; i++) {
		atomic_long_set(&t->batch.pairs[0].copied, 0);
		KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
		dcbm_wait_batch(&t->batch);
		KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
		given += !!job->given;
		/* The core does not take the CPU's time for the engine's */
		KUNIT_EXPECT_GT(test, t->batch.copy_ns, t->batch.cpu_ns);
		t->batch.copy_ns = 0;
	}
	KUNIT_EXPECT_GE(test, given, 2);
	KUNIT_EXPECT_LT(test, given, 16);
	KUNIT_EXPECT_LT(test, ewma_dcbm_speed_read(&dcbm_all_speed), 100000);
}

/* The CPU goes from the end of the batch to what channels have, not further */
static void test_share_tail(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	struct migrate_pair *pair = t->batch.pairs;
	u8 *byte;

	test_serve_late(test, 1);
	test_add(test, 9);
	test_add_many(test, 3, 0);
	test_share_submit(test);
	KUNIT_ASSERT_TRUE(test, job->shares);
	KUNIT_ASSERT_GT(test, job->given, 0);
	KUNIT_ASSERT_LT(test, job->given, SZ_2M);

	dcbm_copy_tail(&t->batch);
	KUNIT_EXPECT_EQ(test, job->left, 0);
	KUNIT_EXPECT_EQ(test, test_bytes(t, 0), SZ_2M - job->given);
	KUNIT_EXPECT_TRUE(test, test_same(&pair[1]));
	KUNIT_EXPECT_TRUE(test, test_same(&pair[3]));
	/* What is mapped for the channel has not been touched */
	byte = folio_address(pair->dst);
	KUNIT_EXPECT_NULL(test, memchr_inv(byte, 0xa5, job->given));
	KUNIT_EXPECT_MEMEQ(test, byte + job->given,
			   folio_address(pair->src) + job->given,
			   SZ_2M - job->given);

	test_answer_late(&t->chans[0]);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
}

/* Channels that are done get more, until the rest is not worth it */
static void test_share_rounds(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);

	test_serve(test, 2);
	test_add_many(test, 16, 4);
	test_add(test, 9);
	test_share_submit(test);
	KUNIT_ASSERT_EQ(test, job->nr, 2);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_TRUE(test, test_all_same(&t->batch));
	KUNIT_EXPECT_GT(test, t->dcs[0]->share, 1);
	/* These channels are quick, but the CPU has copied the end */
	KUNIT_EXPECT_LT(test, job->given, t->batch.bytes);
	KUNIT_EXPECT_GT(test, job->given, t->batch.bytes / 2);
}

/* What a test of a channel says of its speed is not taken at its word */
static void test_share_rough(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);

	test_serve(test, 1);
	test_add_many(test, 8, 6);
	test_content(test, &t->batch);
	test_share_speed(t, 100, 399);
	dcbm_is_rough = true;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_FALSE(test, job->shares);
	dcbm_wait_batch(&t->batch);

	test_share_speed(t, 100, 401);
	dcbm_is_rough = true;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_TRUE(test, job->shares);
	dcbm_wait_batch(&t->batch);
	/* Now it is known */
	KUNIT_EXPECT_FALSE(test, dcbm_is_rough);
}

/* The CPU has no part if the channels are faster, or if nobody wants it to */
static void test_share_not(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);

	test_serve(test, 2);
	test_add_many(test, 8, 6);
	test_content(test, &t->batch);
	test_share_speed(t, 200, 300);
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_FALSE(test, job->shares);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_EQ(test, job->given, t->batch.bytes);

	test_share_speed(t, 100, 300);
	t->batch.cpu_ns = 0;
	KUNIT_ASSERT_EQ(test, dcbm_submit_batch(&t->batch), 0);
	KUNIT_EXPECT_FALSE(test, job->shares);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_EQ(test, job->given, t->batch.bytes);
}

/* What the channels would take alone is what the core learns */
static void test_share_time(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);

	test_serve_late(test, 1);
	test_add(test, 9);
	test_share_submit(test);
	dcbm_copy_tail(&t->batch);
	test_answer_late(&t->chans[0]);
	t->dcs[0]->ended = ktime_add_ns(job->begun, job->given);
	t->batch.copy_ns = 0;
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_EQ(test, t->batch.copy_ns, t->batch.bytes);
}

/* An engine that gets stuck costs what it had begun, and no more */
static void test_share_stuck(struct kunit *test)
{
	struct dcbm_test *t = test->priv;
	struct dcbm_job *job = dcbm_job(&t->batch);
	unsigned int i;

	test_serve_late(test, 1);
	test_add_many(test, 32, 4);
	dcbm_timeout_ms = 1;
	test_share_submit(test);
	dcbm_wait_batch(&t->batch);
	KUNIT_EXPECT_EQ(test, t->dcs[0]->state, DCBM_STUCK);
	for (i = 0; i < t->batch.nr; i++) {
		bool given = i * SZ_64K < job->given;

		KUNIT_EXPECT_EQ(test, test_lost(t, i), given);
		KUNIT_EXPECT_EQ(test, test_copied(t, i), !given);
		KUNIT_EXPECT_EQ(test, test_same(&t->batch.pairs[i]), !given);
	}
	test_answer_late(&t->chans[0]);
	flush_work(&t->dcs[0]->recover);
}

static struct kunit_case share_test_cases[] = {
	KUNIT_CASE(test_share_fill),
	KUNIT_CASE(test_share_part),
	KUNIT_CASE(test_share_recovers),
	KUNIT_CASE(test_share_tail),
	KUNIT_CASE(test_share_rounds),
	KUNIT_CASE(test_share_rough),
	KUNIT_CASE(test_share_not),
	KUNIT_CASE(test_share_time),
	KUNIT_CASE(test_share_stuck),
	{}
};

static struct kunit_suite share_test_suite = {
	.name = "dcbm_share",
	.init = test_init,
	.exit = test_exit,
	.test_cases = share_test_cases,
};

kunit_test_suites(&plan_test_suite, &cut_test_suite, &count_test_suite,
		  &chans_test_suite, &speed_test_suite, &test_test_suite,
		  &copy_test_suite, &submit_test_suite, &share_test_suite);
