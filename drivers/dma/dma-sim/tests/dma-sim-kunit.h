/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KUnit tests of the simulated DMA engine. They use it as any client does, by
 * way of dmaengine, but for its knobs.
 */
#ifndef _DMA_SIM_KUNIT_H
#define _DMA_SIM_KUNIT_H

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/jiffies.h>

#define SIM_NR		8	/* descriptors at most */
#define SIM_SLOT	8192	/* memory that each has on either side */
/* Neither of the two is aligned, and they cross a page at different places */
#define SIM_SRC_OFF	7
#define SIM_DST_OFF	2051
#define SIM_LEN		5001
#define SIM_UNTOUCHED	0xee

/* What has to happen does so much sooner; what must not is not waited for */
#define SIM_PATIENCE	(10 * HZ)

struct sim_tx {
	struct sim_test *t;
	struct dma_async_tx_descriptor *tx;
	dma_cookie_t cookie;
	/* Written by the callback */
	enum dmaengine_tx_result result;
	u32 residue;
	int order;		/* when it was called, -1: not yet */
	int calls;
};

struct sim_test {
	struct platform_device *pdev;
	struct dma_chan *chan;
	struct dma_sim_chan *c;
	u8 *src;
	u8 *dst;
	dma_addr_t src_dma;
	dma_addr_t dst_dma;
	u8 salt;
	wait_queue_head_t wait;
	atomic_t nr_called;
	struct sim_tx tx[SIM_NR];
};

static u8 *sim_src(struct sim_test *t, int i)
{
	return t->src + i * SIM_SLOT + SIM_SRC_OFF;
}

static u8 *sim_dst(struct sim_test *t, int i)
{
	return t->dst + i * SIM_SLOT + SIM_DST_OFF;
}

static u8 sim_byte(struct sim_test *t, int i, size_t k)
{
	/* Never SIM_UNTOUCHED */
	return (t->salt + i * 31 + k * 7 + (k >> 8)) % 223;
}

/* New content for all sources, and none in the destinations */
static void sim_fill(struct sim_test *t)
{
	size_t k;
	int i;

	t->salt += 101;
	for (i = 0; i < SIM_NR; i++)
		for (k = 0; k < SIM_LEN; k++)
			sim_src(t, i)[k] = sim_byte(t, i, k);
	memset(t->dst, SIM_UNTOUCHED, SIM_NR * SIM_SLOT);
}

/* How many bytes were copied: the right ones from the first on, nothing else */
static size_t sim_copied(struct kunit *test, int i)
{
	struct sim_test *t = test->priv;
	const u8 *slot = t->dst + i * SIM_SLOT;
	size_t len = 0;

	while (len < SIM_LEN && sim_dst(t, i)[len] == sim_byte(t, i, len))
		len++;
	KUNIT_EXPECT_PTR_EQ(test, NULL,
			    memchr_inv(slot, SIM_UNTOUCHED, SIM_DST_OFF));
	KUNIT_EXPECT_PTR_EQ(test, NULL,
			    memchr_inv(sim_dst(t, i) + len, SIM_UNTOUCHED,
				       SIM_SLOT - SIM_DST_OFF - len));
	return len;
}

static void sim_callback(void *param, const struct dmaengine_result *result)
{
	struct sim_tx *tx = param;

	tx->result = result->result;
	tx->residue = result->residue;
	tx->calls++;
	tx->order = atomic_inc_return(&tx->t->nr_called) - 1;
	wake_up(&tx->t->wait);
}

static void sim_set(struct kunit *test, enum dma_sim_knob knob, int value)
{
	struct sim_test *t = test->priv;
	char buf[16];

	snprintf(buf, sizeof(buf), "%d\n", value);
	KUNIT_ASSERT_EQ(test, 0, dma_sim_set(&t->c->set[knob], buf));
}

static bool sim_prep(struct sim_test *t, int i)
{
	dma_addr_t dst = t->dst_dma + i * SIM_SLOT + SIM_DST_OFF;
	dma_addr_t src = t->src_dma + i * SIM_SLOT + SIM_SRC_OFF;
	struct sim_tx *tx = &t->tx[i];

	tx->t = t;
	tx->order = -1;
	tx->calls = 0;
	tx->cookie = 0;
	tx->tx = dmaengine_prep_dma_memcpy(t->chan, dst, src, SIM_LEN,
					   DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
	if (!tx->tx)
		return false;
	tx->tx->callback_result = sim_callback;
	tx->tx->callback_param = tx;
	return true;
}

static bool sim_submit(struct sim_test *t, int i)
{
	t->tx[i].cookie = dmaengine_submit(t->tx[i].tx);
	return !dma_submit_error(t->tx[i].cookie);
}

/* Start descriptors @first to @last, with new content, all at once */
static void sim_start(struct kunit *test, int first, int last)
{
	struct sim_test *t = test->priv;
	int i;

	atomic_set(&t->nr_called, 0);
	sim_fill(t);
	for (i = first; i <= last; i++) {
		KUNIT_ASSERT_TRUE(test, sim_prep(t, i));
		KUNIT_ASSERT_TRUE(test, sim_submit(t, i));
	}
	dma_async_issue_pending(t->chan);
}

static void sim_wait(struct kunit *test, int calls)
{
	struct sim_test *t = test->priv;

	KUNIT_ASSERT_NE(test, 0,
			wait_event_timeout(t->wait,
					   atomic_read(&t->nr_called) >= calls,
					   SIM_PATIENCE));
}

static void sim_run(struct kunit *test, int first, int last)
{
	sim_start(test, first, last);
	sim_wait(test, last - first + 1);
}

/* As an ordinary descriptor ends; @copied is what is there of its bytes */
static void sim_expect(struct kunit *test, int i,
		       enum dmaengine_tx_result result, size_t copied)
{
	struct sim_test *t = test->priv;
	size_t residue = SIM_LEN - copied;

	if (result == DMA_TRANS_READ_FAILED)
		residue = 0;
	KUNIT_EXPECT_EQ_MSG(test, t->tx[i].calls, 1, "descriptor %d", i);
	KUNIT_EXPECT_EQ_MSG(test, t->tx[i].result, result, "descriptor %d", i);
	KUNIT_EXPECT_EQ_MSG(test, t->tx[i].residue, residue,
			    "descriptor %d", i);
	KUNIT_EXPECT_EQ_MSG(test, sim_copied(test, i), copied,
			    "descriptor %d", i);
}

static enum dma_status sim_status(struct sim_test *t, int i, u32 *residue)
{
	struct dma_tx_state state;
	enum dma_status status;

	status = dmaengine_tx_status(t->chan, t->tx[i].cookie, &state);
	if (residue)
		*residue = state.residue;
	return status;
}

static void sim_wait_stalled(struct kunit *test)
{
	struct sim_test *t = test->priv;
	unsigned long end = jiffies + SIM_PATIENCE;

	while (!READ_ONCE(t->c->stalled) && time_before(jiffies, end))
		usleep_range(100, 1000);
	KUNIT_ASSERT_TRUE(test, t->c->stalled);
}

/* ---- tests -------------------------------------------------------------- */

static void dma_sim_test_copy(struct kunit *test)
{
	struct sim_test *t = test->priv;
	u64 bytes = t->c->bytes, descriptors = t->c->descriptors;
	u32 residue;
	int i;

	sim_run(test, 0, SIM_NR - 1);
	for (i = 0; i < SIM_NR; i++) {
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
		KUNIT_EXPECT_EQ(test, t->tx[i].order, i);
		KUNIT_EXPECT_EQ(test, sim_status(t, i, &residue), DMA_COMPLETE);
		KUNIT_EXPECT_EQ(test, residue, 0);
	}
	KUNIT_EXPECT_EQ(test, t->c->bytes - bytes, SIM_NR * SIM_LEN);
	KUNIT_EXPECT_EQ(test, t->c->descriptors - descriptors, SIM_NR);
	KUNIT_EXPECT_EQ(test, t->c->faults, 0);
}

static void dma_sim_test_lengths(struct kunit *test)
{
	struct sim_test *t = test->priv;

	KUNIT_EXPECT_NULL(test, dmaengine_prep_dma_memcpy(t->chan, t->dst_dma,
							  t->src_dma, 0, 0));
	KUNIT_EXPECT_NULL(test, dmaengine_prep_dma_memcpy(t->chan, t->dst_dma,
							  t->src_dma,
							  1ULL << 32, 0));
}

/* Every third fails, and the others do not notice */
static void sim_test_fault(struct kunit *test, enum dma_sim_knob knob,
			   enum dmaengine_tx_result result, size_t copied)
{
	struct sim_test *t = test->priv;
	bool failed;
	int i;

	sim_set(test, knob, 3);
	sim_run(test, 0, SIM_NR - 1);
	for (i = 0; i < SIM_NR; i++) {
		failed = i % 3 == 2;
		sim_expect(test, i, failed ? result : DMA_TRANS_NOERROR,
			   failed ? copied : SIM_LEN);
		failed &= result != DMA_TRANS_NOERROR;
		KUNIT_EXPECT_EQ(test, sim_status(t, i, NULL),
				failed ? DMA_ERROR : DMA_COMPLETE);
	}
	KUNIT_EXPECT_EQ(test, t->c->faults, SIM_NR / 3);

	sim_set(test, knob, 0);
	sim_run(test, 0, 3);
	for (i = 0; i < 4; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
}

static void dma_sim_test_fail_read(struct kunit *test)
{
	sim_test_fault(test, DMA_SIM_FAIL_READ, DMA_TRANS_READ_FAILED, 0);
}

static void dma_sim_test_fail_write(struct kunit *test)
{
	sim_test_fault(test, DMA_SIM_FAIL_WRITE, DMA_TRANS_WRITE_FAILED,
		       SIM_LEN / 2);
}

static void dma_sim_test_short_copy(struct kunit *test)
{
	sim_test_fault(test, DMA_SIM_SHORT_COPY, DMA_TRANS_NOERROR,
		       SIM_LEN / 2);
}

static void dma_sim_test_bad_address(struct kunit *test)
{
	const dma_addr_t nowhere = 1ULL << 50;
	struct dma_async_tx_descriptor *tx;
	struct sim_test *t = test->priv;
	int i;

	for (i = 0; i < 2; i++) {
		tx = dmaengine_prep_dma_memcpy(t->chan,
					       i ? nowhere : t->dst_dma,
					       i ? t->src_dma : nowhere, 64, 0);
		KUNIT_ASSERT_NOT_NULL(test, tx);
		t->tx[i].t = t;
		tx->callback_result = sim_callback;
		tx->callback_param = &t->tx[i];
		KUNIT_ASSERT_GT(test, dmaengine_submit(tx), 0);
	}
	dma_async_issue_pending(t->chan);
	sim_wait(test, 2);
	KUNIT_EXPECT_EQ(test, t->tx[0].result, DMA_TRANS_READ_FAILED);
	KUNIT_EXPECT_EQ(test, t->tx[1].result, DMA_TRANS_WRITE_FAILED);
	KUNIT_EXPECT_EQ(test, t->tx[0].residue, 0);
	KUNIT_EXPECT_EQ(test, t->tx[1].residue, 64);
}

/* The count begins anew when it is written */
static void dma_sim_test_count(struct kunit *test)
{
	int i;

	sim_set(test, DMA_SIM_FAIL_READ, 3);
	sim_run(test, 0, 1);
	for (i = 0; i < 2; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);

	sim_set(test, DMA_SIM_FAIL_READ, 3);
	sim_run(test, 0, 2);
	for (i = 0; i < 2; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
	sim_expect(test, 2, DMA_TRANS_READ_FAILED, 0);
}

static void dma_sim_test_times(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, DMA_SIM_TIMES, 2);
	sim_set(test, DMA_SIM_FAIL_READ, 2);
	/* What another fault is in the way of does not count */
	sim_set(test, DMA_SIM_SHORT_COPY, 2);
	sim_run(test, 0, 7);
	for (i = 0; i < 8; i++) {
		if (i == 1 || i == 3)
			sim_expect(test, i, DMA_TRANS_READ_FAILED, 0);
		else
			sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
	}
	KUNIT_EXPECT_EQ(test, t->c->set[DMA_SIM_TIMES].value, 0);
	KUNIT_EXPECT_EQ(test, t->c->faults, 2);

	sim_set(test, DMA_SIM_TIMES, -1);
	sim_run(test, 0, 1);
	sim_expect(test, 1, DMA_TRANS_READ_FAILED, 0);
	KUNIT_EXPECT_EQ(test, t->c->set[DMA_SIM_TIMES].value, -1);
}

static void dma_sim_test_refuse_prep(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_fill(t);
	sim_set(test, DMA_SIM_REFUSE_PREP, 2);
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ(test, sim_prep(t, i), i % 2 == 0);
		if (t->tx[i].tx)
			KUNIT_EXPECT_TRUE(test, sim_submit(t, i));
	}
	dma_async_issue_pending(t->chan);
	sim_wait(test, 2);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);
	sim_expect(test, 2, DMA_TRANS_NOERROR, SIM_LEN);
	KUNIT_EXPECT_EQ(test, sim_copied(test, 1), 0);
	KUNIT_EXPECT_EQ(test, t->c->faults, 2);
}

static void dma_sim_test_refuse_submit(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_fill(t);
	sim_set(test, DMA_SIM_REFUSE_SUBMIT, 2);
	for (i = 0; i < 4; i++) {
		KUNIT_ASSERT_TRUE(test, sim_prep(t, i));
		KUNIT_EXPECT_EQ(test, sim_submit(t, i), i % 2 == 0);
	}
	dma_async_issue_pending(t->chan);
	sim_wait(test, 2);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);
	sim_expect(test, 2, DMA_TRANS_NOERROR, SIM_LEN);
	KUNIT_EXPECT_EQ(test, sim_copied(test, 1), 0);
	KUNIT_EXPECT_EQ(test, t->tx[1].calls, 0);
	KUNIT_EXPECT_EQ(test, t->c->faults, 2);
}

static void dma_sim_test_lose_callback(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, DMA_SIM_LOSE_CALLBACK, 3);
	sim_start(test, 0, 3);
	/* That of the fourth comes after where the third's would have been */
	sim_wait(test, 3);
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ(test, t->tx[i].calls, i == 2 ? 0 : 1);
		KUNIT_EXPECT_EQ(test, sim_copied(test, i), SIM_LEN);
		KUNIT_EXPECT_EQ(test, sim_status(t, i, NULL), DMA_COMPLETE);
	}
}

static void dma_sim_test_corrupt(struct kunit *test)
{
	struct sim_test *t = test->priv;
	size_t k;

	sim_set(test, DMA_SIM_CORRUPT, 2);
	sim_run(test, 0, 1);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);
	KUNIT_EXPECT_EQ(test, t->tx[1].result, DMA_TRANS_NOERROR);
	KUNIT_EXPECT_EQ(test, t->tx[1].residue, 0);
	KUNIT_EXPECT_EQ(test, sim_dst(t, 1)[0], sim_byte(t, 1, 0) ^ 1);
	for (k = 1; k < SIM_LEN; k++)
		KUNIT_ASSERT_EQ(test, sim_dst(t, 1)[k], sim_byte(t, 1, k));
	KUNIT_EXPECT_EQ(test, t->c->faults, 1);
}

static void dma_sim_test_reorder(struct kunit *test)
{
	static const int order[] = { 2, 1, 0, 5, 4, 3, 7, 6 };
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, DMA_SIM_REORDER, 3);
	sim_set(test, DMA_SIM_FAIL_READ, 5);
	sim_run(test, 0, 7);
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ(test, t->tx[order[i]].order, i);
		KUNIT_EXPECT_EQ(test, sim_status(t, i, NULL),
				i == 4 ? DMA_ERROR : DMA_COMPLETE);
		if (i == 4)
			sim_expect(test, i, DMA_TRANS_READ_FAILED, 0);
		else
			sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
	}

	sim_set(test, DMA_SIM_REORDER, 1);
	sim_run(test, 0, 3);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, t->tx[i].order, i);
}

/* What waits to be reordered does not wait for the end of a stall */
static void dma_sim_test_reorder_stall(struct kunit *test)
{
	struct sim_test *t = test->priv;

	sim_set(test, DMA_SIM_REORDER, 8);
	sim_set(test, DMA_SIM_STALL, 3);
	sim_start(test, 0, 3);
	sim_wait(test, 2);
	KUNIT_EXPECT_EQ(test, t->tx[1].order, 0);
	KUNIT_EXPECT_EQ(test, t->tx[0].order, 1);
	sim_set(test, DMA_SIM_STALL, 0);
	sim_wait(test, 4);
	KUNIT_EXPECT_EQ(test, t->tx[3].order, 2);
	KUNIT_EXPECT_EQ(test, t->tx[2].order, 3);
}

static void dma_sim_test_stall(struct kunit *test)
{
	struct sim_test *t = test->priv;
	u32 residue;
	int i;

	sim_set(test, DMA_SIM_STALL, 3);
	sim_start(test, 0, 4);
	sim_wait(test, 2);
	sim_wait_stalled(test);
	for (i = 0; i < 2; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
	for (i = 2; i < 5; i++) {
		KUNIT_EXPECT_EQ(test, t->tx[i].calls, 0);
		KUNIT_EXPECT_EQ(test, sim_copied(test, i), 0);
		KUNIT_EXPECT_EQ(test, sim_status(t, i, &residue),
				DMA_IN_PROGRESS);
		KUNIT_EXPECT_EQ(test, residue, SIM_LEN);
	}

	/* Any other value is not the one that ends it */
	sim_set(test, DMA_SIM_STALL, 100);
	KUNIT_EXPECT_TRUE(test, t->c->stalled);

	/* It copies what is there when it goes on */
	sim_fill(t);
	sim_set(test, DMA_SIM_STALL, 0);
	sim_wait(test, 5);
	for (i = 2; i < 5; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
}

static void dma_sim_test_terminate(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, DMA_SIM_STALL, 2);
	sim_start(test, 0, 5);
	sim_wait(test, 1);
	sim_wait_stalled(test);
	KUNIT_EXPECT_EQ(test, 0, dmaengine_terminate_sync(t->chan));
	KUNIT_EXPECT_FALSE(test, t->c->stalled);

	/* From here on, what has not been copied belongs to somebody else */
	sim_set(test, DMA_SIM_STALL, 0);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);
	for (i = 1; i < 6; i++) {
		KUNIT_EXPECT_EQ(test, t->tx[i].calls, 0);
		KUNIT_EXPECT_EQ(test, sim_copied(test, i), 0);
	}

	/* It is as good as new */
	sim_run(test, 6, 7);
	for (i = 6; i < 8; i++)
		sim_expect(test, i, DMA_TRANS_NOERROR, SIM_LEN);
	for (i = 1; i < 6; i++)
		KUNIT_EXPECT_EQ(test, sim_copied(test, i), 0);
}

/* The copy comes first, then the delay; and it can be cut short */
static void dma_sim_test_delay(struct kunit *test)
{
	struct sim_test *t = test->priv;
	unsigned long end;
	ktime_t begin;

	sim_set(test, DMA_SIM_DELAY_US, 200000);
	begin = ktime_get();
	sim_start(test, 0, 0);
	end = jiffies + SIM_PATIENCE;
	while (sim_copied(test, 0) < SIM_LEN && time_before(jiffies, end) &&
	       !atomic_read(&t->nr_called))
		usleep_range(100, 1000);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_called), 0);
	KUNIT_EXPECT_EQ(test, sim_status(t, 0, NULL), DMA_IN_PROGRESS);
	memset(sim_src(t, 0), 0, SIM_LEN);
	sim_wait(test, 1);
	KUNIT_EXPECT_GE(test, ktime_us_delta(ktime_get(), begin), 200000);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);

	sim_set(test, DMA_SIM_DELAY_US, 10 * USEC_PER_SEC);
	begin = ktime_get();
	sim_start(test, 0, 1);
	while (sim_copied(test, 0) < SIM_LEN &&
	       ktime_ms_delta(ktime_get(), begin) < 5 * MSEC_PER_SEC)
		usleep_range(100, 1000);
	KUNIT_EXPECT_EQ(test, 0, dmaengine_terminate_sync(t->chan));
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), begin),
			8 * MSEC_PER_SEC);
	KUNIT_EXPECT_EQ(test, t->tx[0].calls, 0);
	KUNIT_EXPECT_EQ(test, t->tx[1].calls, 0);
	KUNIT_EXPECT_EQ(test, sim_copied(test, 1), 0);
}

static void dma_sim_test_bandwidth(struct kunit *test)
{
	ktime_t begin;

	/* 39 KiB at 1 MiB/s */
	sim_set(test, DMA_SIM_BANDWIDTH, 1);
	begin = ktime_get();
	sim_run(test, 0, SIM_NR - 1);
	KUNIT_EXPECT_GE(test, ktime_us_delta(ktime_get(), begin),
			SIM_NR * SIM_LEN * 95 / 100);
}

/* Each descriptor occupies the channel for that long, besides its bytes */
static void dma_sim_test_descriptor_ns(struct kunit *test)
{
	ktime_t begin;

	sim_set(test, DMA_SIM_DESCRIPTOR_NS, NSEC_PER_MSEC);
	begin = ktime_get();
	sim_run(test, 0, SIM_NR - 1);
	KUNIT_EXPECT_GE(test, ktime_us_delta(ktime_get(), begin),
			SIM_NR * USEC_PER_MSEC * 95 / 100);
}

/* So does each page that a source is in */
static void dma_sim_test_page_ns(struct kunit *test)
{
	struct sim_test *t = test->priv;
	unsigned long pages = 0;
	ktime_t begin;
	int i;

	for (i = 0; i < SIM_NR; i++)
		pages += DIV_ROUND_UP(offset_in_page(sim_src(t, i)) + SIM_LEN,
				      PAGE_SIZE);
	sim_set(test, DMA_SIM_PAGE_NS, NSEC_PER_MSEC);
	begin = ktime_get();
	sim_run(test, 0, SIM_NR - 1);
	KUNIT_EXPECT_GE(test, ktime_us_delta(ktime_get(), begin),
			pages * USEC_PER_MSEC * 95 / 100);
}

/* How many pages of an I/O page table a piece is in */
static void dma_sim_test_pages(struct kunit *test)
{
	static const struct {
		struct dma_sim_piece piece;
		unsigned long pages;
	} cases[] = {
		{ { .dst = 0, .src = 0, .len = 1 }, 1 },
		{ { .dst = 0, .src = 0, .len = PAGE_SIZE }, 1 },
		{ { .dst = 0, .src = 1, .len = PAGE_SIZE }, 2 },
		{ { .dst = 0, .src = 0, .len = SZ_1M }, SZ_1M / PAGE_SIZE },
		{ { .dst = SZ_2M, .src = SZ_4M, .len = SZ_2M }, 1 },
		{ { .dst = SZ_2M, .src = SZ_4M, .len = SZ_4M + 1 }, 3 },
		/* Large pages only where both sides have one */
		{ { .dst = SZ_1M, .src = 0, .len = SZ_2M }, SZ_2M / PAGE_SIZE },
		{ { .dst = SZ_1M, .src = SZ_1M, .len = SZ_1M + SZ_2M },
		  SZ_1M / PAGE_SIZE + 1 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dma_sim_piece *p = &cases[i].piece;

		KUNIT_EXPECT_EQ_MSG(test, dma_sim_pages(p, p->len),
				    cases[i].pages, "case %u", i);
	}
}

static void dma_sim_test_unbind(struct kunit *test)
{
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, DMA_SIM_STALL, 2);
	sim_start(test, 0, 3);
	sim_wait(test, 1);
	sim_wait_stalled(test);
	KUNIT_ASSERT_TRUE(test, sim_prep(t, 4));
	KUNIT_ASSERT_TRUE(test, sim_submit(t, 4));
	KUNIT_ASSERT_TRUE(test, sim_prep(t, 5));

	device_release_driver(&t->pdev->dev);

	sim_wait(test, 5);
	sim_expect(test, 0, DMA_TRANS_NOERROR, SIM_LEN);
	for (i = 1; i < 5; i++) {
		sim_expect(test, i, DMA_TRANS_ABORTED, 0);
		KUNIT_EXPECT_EQ(test, t->tx[i].order, i);
		KUNIT_EXPECT_EQ(test, sim_status(t, i, NULL), DMA_ERROR);
	}
	/* The channel is ours still, and of no use */
	KUNIT_EXPECT_FALSE(test, sim_submit(t, 5));
	KUNIT_EXPECT_FALSE(test, sim_prep(t, 6));
	dma_async_issue_pending(t->chan);
	KUNIT_EXPECT_EQ(test, 0, dmaengine_terminate_sync(t->chan));
	KUNIT_EXPECT_GT(test, strlen(dma_chan_name(t->chan)), 0);
}

static bool sim_chan_of(struct dma_chan *chan, void *dev)
{
	return chan->device->dev == dev;
}

/* A channel of an engine that is gone is given to nobody */
static void dma_sim_test_unbound(struct kunit *test)
{
	struct sim_test *t = test->priv;
	dma_cap_mask_t mask;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	device_release_driver(&t->pdev->dev);
	KUNIT_EXPECT_NULL(test, dma_request_channel(mask, sim_chan_of,
						    &t->pdev->dev));
}

/* Create an engine: does dmaengine have a channel for everybody then? */
static bool sim_is_found(struct kunit *test, bool public)
{
	const struct dma_sim_config config = {
		.channels = 1,
		.public = public,
	};
	struct platform_device *pdev;
	struct dma_sim *sim;
	bool found;

	pdev = dma_sim_create(PLATFORM_DEVID_AUTO, NUMA_NO_NODE, &config);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, pdev);
	sim = platform_get_drvdata(pdev);
	KUNIT_EXPECT_NE(test, public,
			dma_has_cap(DMA_PRIVATE, sim->dma.cap_mask));
	dmaengine_get();
	found = dma_find_channel(DMA_MEMCPY);
	dmaengine_put();
	platform_device_unregister(pdev);
	return found;
}

static void dma_sim_test_public(struct kunit *test)
{
	if (sim_is_found(test, false))
		kunit_skip(test, "there is another public engine");
	KUNIT_EXPECT_TRUE(test, sim_is_found(test, true));
}

static void dma_sim_test_knobs(struct kunit *test)
{
	static const char * const bad[] = {
		"", "\n", " ", "-1", "-2", "x", "1x", "0x", "1 2", "1.5",
		"2147483648", "99999999999999999999999", "\x01\xff", "on",
	};
	struct sim_test *t = test->priv;
	unsigned int i, k;

	for (k = 0; k < DMA_SIM_NR_KNOBS; k++) {
		struct dma_sim_setting *s = &t->c->set[k];

		KUNIT_EXPECT_EQ(test, 0, dma_sim_set(s, "7\n"));
		KUNIT_EXPECT_EQ(test, s->value, 7);
		s->count = 3;
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			if (k == DMA_SIM_TIMES && !strcmp(bad[i], "-1"))
				continue;
			KUNIT_EXPECT_LT_MSG(test, dma_sim_set(s, bad[i]), 0,
					    "%s = '%s'", dma_sim_knobs[k].name,
					    bad[i]);
			KUNIT_EXPECT_EQ(test, s->value, 7);
			KUNIT_EXPECT_EQ(test, s->count, 3);
		}
		KUNIT_EXPECT_EQ(test, 0, dma_sim_set(s, "0"));
		KUNIT_EXPECT_EQ(test, s->value, 0);
	}
	KUNIT_EXPECT_EQ(test, 0, dma_sim_set(&t->c->set[DMA_SIM_TIMES], "-1"));

	/* These have limits of their own */
	KUNIT_EXPECT_EQ(test, -ERANGE,
			dma_sim_set(&t->c->set[DMA_SIM_REORDER], "4097"));
	KUNIT_EXPECT_EQ(test, -ERANGE,
			dma_sim_set(&t->c->set[DMA_SIM_DELAY_US], "10000001"));
	KUNIT_EXPECT_EQ(test, -ERANGE,
			dma_sim_set(&t->c->set[DMA_SIM_BANDWIDTH], "1048577"));
}

/* ---- scatterlists ------------------------------------------------------- */

#define SIM_SG_MAX	8	/* entries of a list; not all are used */
#define SIM_SG_LEN	15000

struct sim_seg {
	unsigned int off;	/* in the memory of its side */
	unsigned int len;
};

/* Not in order, nor at the same places in both, nor aligned; one is empty */
static const struct sim_seg sim_src_segs[] = {
	{ 40000, 1000 }, { 7, 5000 }, { 20001, 1 }, { 100, 0 }, { 30000, 6000 },
	{ 9000, 2999 },
};

static const struct sim_seg sim_dst_segs[] = {
	{ 12345, 6000 }, { 0, 3500 }, { 50001, 5500 },
};

/* What is contiguous in both, and its place among all bytes */
static const struct {
	unsigned int dst;
	unsigned int src;
	unsigned int len;
} sim_pieces[] = {
	{ 12345, 40000, 1000 }, { 13345, 7, 5000 }, { 0, 20001, 1 },
	{ 1, 30000, 3499 }, { 50001, 33499, 2501 }, { 52502, 9000, 2999 },
};

struct sim_lists {
	struct scatterlist dst[SIM_SG_MAX];
	struct scatterlist src[SIM_SG_MAX];
	unsigned int dst_nents;
	unsigned int src_nents;
};

/* Entries that are not used lead nowhere */
static void sim_list(struct scatterlist *sgl, const struct sim_seg *segs,
		     unsigned int nr, dma_addr_t base)
{
	unsigned int i;

	sg_init_table(sgl, SIM_SG_MAX);
	for (i = 0; i < SIM_SG_MAX; i++) {
		sg_dma_address(&sgl[i]) = i < nr ? base + segs[i].off :
						   1ULL << 50;
		sg_dma_len(&sgl[i]) = i < nr ? segs[i].len : 4096;
	}
}

static struct sim_lists *sim_lists(struct kunit *test)
{
	struct sim_test *t = test->priv;
	struct sim_lists *l;

	l = kunit_kzalloc(test, sizeof(*l), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, l);
	l->dst_nents = ARRAY_SIZE(sim_dst_segs);
	l->src_nents = ARRAY_SIZE(sim_src_segs);
	sim_list(l->dst, sim_dst_segs, l->dst_nents, t->dst_dma);
	sim_list(l->src, sim_src_segs, l->src_nents, t->src_dma);
	return l;
}

static struct dma_async_tx_descriptor *sim_prep_lists(struct sim_test *t,
						      struct sim_lists *l)
{
	return dmaengine_prep_dma_memcpy_sg(t->chan, l->dst, l->dst_nents,
					    l->src, l->src_nents,
					    DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
}

static void sim_sg_fill(struct sim_test *t)
{
	size_t k;

	t->salt += 101;
	for (k = 0; k < SIM_NR * SIM_SLOT; k++)
		t->src[k] = sim_byte(t, 0, k);
	memset(t->dst, SIM_UNTOUCHED, SIM_NR * SIM_SLOT);
}

/* Submit a copy of @l as descriptor @i; the lists are gone before it begins */
static void sim_sg_submit(struct kunit *test, int i, struct sim_lists *l)
{
	struct sim_test *t = test->priv;
	struct sim_tx *tx = &t->tx[i];

	sim_sg_fill(t);
	atomic_set(&t->nr_called, 0);
	memset(tx, 0, sizeof(*tx));
	tx->t = t;
	tx->order = -1;
	tx->tx = sim_prep_lists(t, l);
	KUNIT_ASSERT_NOT_NULL(test, tx->tx);
	memset(l, 0xff, sizeof(*l));
	tx->tx->callback_result = sim_callback;
	tx->tx->callback_param = tx;
	KUNIT_ASSERT_TRUE(test, sim_submit(t, i));
	dma_async_issue_pending(t->chan);
}

static void sim_sg_run(struct kunit *test, struct sim_lists *l)
{
	sim_sg_submit(test, 0, l);
	sim_wait(test, 1);
}

/* The first so many bytes of the lists are copied, and nothing else */
static void sim_sg_expect_copied(struct kunit *test, size_t copied)
{
	const size_t size = SIM_NR * SIM_SLOT;
	struct sim_test *t = test->priv;
	unsigned int i;
	size_t len;
	u8 *dst;

	dst = kunit_kmalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, dst);
	memset(dst, SIM_UNTOUCHED, size);
	for (i = 0; i < ARRAY_SIZE(sim_pieces); i++) {
		len = min_t(size_t, copied, sim_pieces[i].len);
		memcpy(dst + sim_pieces[i].dst, t->src + sim_pieces[i].src,
		       len);
		copied -= len;
	}
	KUNIT_EXPECT_TRUE(test, !memcmp(dst, t->dst, size));
	kunit_kfree(test, dst);
}

static void sim_sg_expect(struct kunit *test, enum dmaengine_tx_result result,
			  size_t copied)
{
	struct sim_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, t->tx[0].calls, 1);
	KUNIT_EXPECT_EQ(test, t->tx[0].result, result);
	KUNIT_EXPECT_EQ(test, t->tx[0].residue, SIM_SG_LEN - copied);
	KUNIT_EXPECT_EQ(test, sim_status(t, 0, NULL),
			result == DMA_TRANS_NOERROR ? DMA_COMPLETE : DMA_ERROR);
	sim_sg_expect_copied(test, copied);
}

/* What all providers use */
static void dma_sim_test_sg_pieces(struct kunit *test)
{
	struct sim_test *t = test->priv;
	struct dma_memcpy_sg_iter it;
	dma_addr_t dst, src;
	struct sim_lists *l;
	unsigned int i;
	u32 len = 0;

	l = sim_lists(test);
	dma_memcpy_sg_begin(&it, l->dst, l->dst_nents, l->src, l->src_nents,
			    UINT_MAX);
	KUNIT_EXPECT_EQ(test, dma_memcpy_sg_count(&it, &len),
			ARRAY_SIZE(sim_pieces));
	KUNIT_EXPECT_EQ(test, len, SIM_SG_LEN);
	for (i = 0; i < ARRAY_SIZE(sim_pieces); i++) {
		KUNIT_EXPECT_EQ(test, dma_memcpy_sg_next(&it, &dst, &src),
				sim_pieces[i].len);
		KUNIT_EXPECT_EQ(test, dst - t->dst_dma, sim_pieces[i].dst);
		KUNIT_EXPECT_EQ(test, src - t->src_dma, sim_pieces[i].src);
	}
	KUNIT_EXPECT_EQ(test, dma_memcpy_sg_next(&it, &dst, &src), 0);
}

/* What is longer than the hardware can is cut: 6 pieces into 17 */
static void dma_sim_test_sg_max_len(struct kunit *test)
{
	unsigned int i = 0, off = 0, nr = 0, n, more;
	struct sim_test *t = test->priv;
	struct dma_memcpy_sg_iter it;
	dma_addr_t dst, src;
	struct sim_lists *l;
	u32 len = 0;

	l = sim_lists(test);
	dma_memcpy_sg_begin(&it, l->dst, l->dst_nents, l->src, l->src_nents,
			    1000);
	more = dma_memcpy_sg_count(&it, &len);
	KUNIT_EXPECT_EQ(test, more, 1 + 5 + 1 + 4 + 3 + 3);
	KUNIT_EXPECT_EQ(test, len, SIM_SG_LEN);
	while ((n = dma_memcpy_sg_next(&it, &dst, &src))) {
		KUNIT_EXPECT_LE(test, n, 1000);
		KUNIT_ASSERT_LT(test, i, ARRAY_SIZE(sim_pieces));
		KUNIT_EXPECT_EQ(test, dst - t->dst_dma,
				sim_pieces[i].dst + off);
		KUNIT_EXPECT_EQ(test, src - t->src_dma,
				sim_pieces[i].src + off);
		off += n;
		if (off == sim_pieces[i].len) {
			off = 0;
			i++;
		}
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, more);
	KUNIT_EXPECT_EQ(test, i, ARRAY_SIZE(sim_pieces));
}

static void sim_sg_expect_refused(struct kunit *test, struct sim_lists *l,
				  const char *why)
{
	struct sim_test *t = test->priv;

	KUNIT_EXPECT_NULL_MSG(test, sim_prep_lists(t, l), "%s", why);
}

static void dma_sim_test_sg_lengths(struct kunit *test)
{
	struct sim_test *t = test->priv;
	struct sim_lists *l;
	int i;

	l = sim_lists(test);
	KUNIT_EXPECT_NOT_NULL(test, sim_prep_lists(t, l));

	l->dst_nents--;
	sim_sg_expect_refused(test, l, "a segment too few to go to");
	l->dst_nents++;
	l->src_nents--;
	sim_sg_expect_refused(test, l, "a segment too few to come from");
	l->src_nents++;
	sg_dma_len(&l->dst[2])++;
	sim_sg_expect_refused(test, l, "a byte too many to go to");
	sg_dma_len(&l->src[5]) += 2;
	sim_sg_expect_refused(test, l, "a byte too many to come from");
	sg_dma_len(&l->dst[2])++;
	KUNIT_EXPECT_NOT_NULL(test, sim_prep_lists(t, l));

	l->dst_nents = 0;
	sim_sg_expect_refused(test, l, "nothing to go to");
	l->src_nents = 0;
	sim_sg_expect_refused(test, l, "nothing at all");
	l->dst_nents = 1;
	l->src_nents = 1;
	sg_dma_len(&l->dst[0]) = 0;
	sg_dma_len(&l->src[0]) = 0;
	sim_sg_expect_refused(test, l, "no bytes");

	/* A residue has 32 bits */
	sg_dma_len(&l->dst[0]) = U32_MAX;
	sg_dma_len(&l->src[0]) = U32_MAX;
	KUNIT_EXPECT_NOT_NULL(test, sim_prep_lists(t, l));
	for (i = 0; i < 2; i++) {
		sg_dma_len(&l->dst[i]) = BIT(31);
		sg_dma_len(&l->src[i]) = BIT(31);
	}
	l->dst_nents = 2;
	l->src_nents = 2;
	sim_sg_expect_refused(test, l, "4 GiB");
}

static void dma_sim_test_sg_capability(struct kunit *test)
{
	const struct dma_sim_config config = { .channels = 1 };
	struct dma_async_tx_descriptor *tx = NULL;
	struct sim_test *t = test->priv;
	struct platform_device *pdev;
	struct sim_lists *l;
	struct dma_sim *sim;
	struct dma_device dma = {};

	l = sim_lists(test);
	KUNIT_EXPECT_TRUE(test, dma_has_cap(DMA_MEMCPY_SG,
					    t->chan->device->cap_mask));

	pdev = dma_sim_create(PLATFORM_DEVID_AUTO, NUMA_NO_NODE, &config);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, pdev);
	sim = platform_get_drvdata(pdev);
	KUNIT_EXPECT_FALSE(test, dma_has_cap(DMA_MEMCPY_SG, sim->dma.cap_mask));
	tx = dmaengine_prep_dma_memcpy_sg(&sim->chans[0].vc.chan,
					  l->dst, l->dst_nents,
					  l->src, l->src_nents, 0);
	KUNIT_EXPECT_NULL(test, tx);

	/* Who says so has to have it */
	INIT_LIST_HEAD(&dma.channels);
	dma.dev = &pdev->dev;
	dma.device_tx_status = dma_sim_tx_status;
	dma.device_issue_pending = dma_sim_issue_pending;
	dma_cap_set(DMA_MEMCPY_SG, dma.cap_mask);
	KUNIT_EXPECT_EQ(test, dma_async_device_register(&dma), -EIO);
	platform_device_unregister(pdev);
}

static void dma_sim_test_sg_copy(struct kunit *test)
{
	struct sim_test *t = test->priv;
	u64 bytes = t->c->bytes, descriptors = t->c->descriptors;

	sim_sg_run(test, sim_lists(test));
	sim_sg_expect(test, DMA_TRANS_NOERROR, SIM_SG_LEN);
	KUNIT_EXPECT_EQ(test, t->c->bytes - bytes, SIM_SG_LEN);
	KUNIT_EXPECT_EQ(test, t->c->descriptors - descriptors, 1);
}

/* Every second fails, however many segments it has */
static void sim_sg_test_fault(struct kunit *test, enum dma_sim_knob knob,
			      enum dmaengine_tx_result result, size_t copied)
{
	struct sim_test *t = test->priv;
	int i;

	sim_set(test, knob, 2);
	for (i = 0; i < 2; i++) {
		sim_sg_run(test, sim_lists(test));
		sim_sg_expect(test, DMA_TRANS_NOERROR, SIM_SG_LEN);
		sim_sg_run(test, sim_lists(test));
		sim_sg_expect(test, result, copied);
	}
	KUNIT_EXPECT_EQ(test, t->c->faults, 2);
}

static void dma_sim_test_sg_fail_read(struct kunit *test)
{
	sim_sg_test_fault(test, DMA_SIM_FAIL_READ, DMA_TRANS_READ_FAILED, 0);
}

static void dma_sim_test_sg_fail_write(struct kunit *test)
{
	sim_sg_test_fault(test, DMA_SIM_FAIL_WRITE, DMA_TRANS_WRITE_FAILED,
			  SIM_SG_LEN / 2);
}

static void dma_sim_test_sg_short_copy(struct kunit *test)
{
	sim_sg_test_fault(test, DMA_SIM_SHORT_COPY, DMA_TRANS_NOERROR,
			  SIM_SG_LEN / 2);
}

static void dma_sim_test_sg_bad_source(struct kunit *test)
{
	struct sim_lists *l = sim_lists(test);

	sg_dma_address(&l->src[4]) = 1ULL << 50;
	sim_sg_run(test, l);
	sim_sg_expect(test, DMA_TRANS_READ_FAILED, 6001);
}

static void dma_sim_test_sg_bad_destination(struct kunit *test)
{
	struct sim_lists *l = sim_lists(test);

	sg_dma_address(&l->dst[2]) = 1ULL << 50;
	sim_sg_run(test, l);
	sim_sg_expect(test, DMA_TRANS_WRITE_FAILED, 9500);
}

static void dma_sim_test_sg_refuse(struct kunit *test)
{
	struct sim_test *t = test->priv;
	struct sim_lists *l;

	l = sim_lists(test);
	sim_set(test, DMA_SIM_REFUSE_PREP, 2);
	KUNIT_EXPECT_NOT_NULL(test, sim_prep_lists(t, l));
	sim_sg_expect_refused(test, l, "the knob says so");
	sim_set(test, DMA_SIM_REFUSE_PREP, 0);

	sim_set(test, DMA_SIM_REFUSE_SUBMIT, 1);
	t->tx[0].tx = sim_prep_lists(t, l);
	KUNIT_ASSERT_NOT_NULL(test, t->tx[0].tx);
	KUNIT_EXPECT_FALSE(test, sim_submit(t, 0));
	KUNIT_EXPECT_EQ(test, t->c->faults, 2);
}

static void dma_sim_test_sg_stall(struct kunit *test)
{
	struct sim_test *t = test->priv;
	u32 residue;

	sim_set(test, DMA_SIM_STALL, 1);
	sim_sg_submit(test, 0, sim_lists(test));
	sim_wait_stalled(test);
	KUNIT_EXPECT_EQ(test, sim_status(t, 0, &residue), DMA_IN_PROGRESS);
	KUNIT_EXPECT_EQ(test, residue, SIM_SG_LEN);
	sim_sg_expect_copied(test, 0);
	sim_set(test, DMA_SIM_STALL, 0);
	sim_wait(test, 1);
	sim_sg_expect(test, DMA_TRANS_NOERROR, SIM_SG_LEN);

	sim_set(test, DMA_SIM_STALL, 1);
	sim_sg_submit(test, 0, sim_lists(test));
	sim_wait_stalled(test);
	KUNIT_EXPECT_EQ(test, 0, dmaengine_terminate_sync(t->chan));
	sim_set(test, DMA_SIM_STALL, 0);
	KUNIT_EXPECT_EQ(test, t->tx[0].calls, 0);
	sim_sg_expect_copied(test, 0);
}

static void dma_sim_test_sg_lose_callback(struct kunit *test)
{
	struct sim_test *t = test->priv;

	sim_set(test, DMA_SIM_LOSE_CALLBACK, 1);
	sim_sg_submit(test, 0, sim_lists(test));
	while (sim_status(t, 0, NULL) == DMA_IN_PROGRESS)
		usleep_range(100, 1000);
	KUNIT_EXPECT_EQ(test, t->tx[0].calls, 0);
	sim_sg_expect_copied(test, SIM_SG_LEN);
}

static void dma_sim_test_sg_unbind(struct kunit *test)
{
	struct sim_test *t = test->priv;

	sim_set(test, DMA_SIM_STALL, 1);
	sim_sg_submit(test, 0, sim_lists(test));
	sim_wait_stalled(test);
	device_release_driver(&t->pdev->dev);
	sim_wait(test, 1);
	sim_sg_expect(test, DMA_TRANS_ABORTED, 0);
	sim_sg_expect_refused(test, sim_lists(test), "the engine is gone");
}

/* ---- an engine for each test -------------------------------------------- */

static int dma_sim_test_init(struct kunit *test)
{
	const struct dma_sim_config config = { .channels = 2, .sg = true };
	const size_t size = SIM_NR * SIM_SLOT;
	struct sim_test *t;
	dma_cap_mask_t mask;
	struct device *dev;

	t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t);
	init_waitqueue_head(&t->wait);
	t->src = kunit_kmalloc(test, size, GFP_KERNEL);
	t->dst = kunit_kmalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->src);
	KUNIT_ASSERT_NOT_NULL(test, t->dst);

	t->pdev = dma_sim_create(PLATFORM_DEVID_AUTO, NUMA_NO_NODE, &config);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, t->pdev);
	test->priv = t;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	dev = &t->pdev->dev;
	t->chan = dma_request_channel(mask, sim_chan_of, dev);
	KUNIT_ASSERT_NOT_NULL(test, t->chan);
	t->c = to_dma_sim_chan(t->chan);

	t->src_dma = dma_map_single(dev, t->src, size, DMA_TO_DEVICE);
	KUNIT_ASSERT_FALSE(test, dma_mapping_error(dev, t->src_dma));
	t->dst_dma = dma_map_single(dev, t->dst, size, DMA_BIDIRECTIONAL);
	KUNIT_ASSERT_FALSE(test, dma_mapping_error(dev, t->dst_dma));
	return 0;
}

/* Runs after a test that failed in the middle, too */
static void dma_sim_test_exit(struct kunit *test)
{
	const size_t size = SIM_NR * SIM_SLOT;
	struct sim_test *t = test->priv;

	if (!t)
		return;
	if (t->chan) {
		dmaengine_terminate_sync(t->chan);
		dma_release_channel(t->chan);
	}
	if (t->src_dma)
		dma_unmap_single(&t->pdev->dev, t->src_dma, size,
				 DMA_TO_DEVICE);
	if (t->dst_dma)
		dma_unmap_single(&t->pdev->dev, t->dst_dma, size,
				 DMA_BIDIRECTIONAL);
	platform_device_unregister(t->pdev);
}

static struct kunit_case dma_sim_test_cases[] = {
	KUNIT_CASE(dma_sim_test_copy),
	KUNIT_CASE(dma_sim_test_lengths),
	KUNIT_CASE(dma_sim_test_fail_read),
	KUNIT_CASE(dma_sim_test_fail_write),
	KUNIT_CASE(dma_sim_test_short_copy),
	KUNIT_CASE(dma_sim_test_bad_address),
	KUNIT_CASE(dma_sim_test_count),
	KUNIT_CASE(dma_sim_test_times),
	KUNIT_CASE(dma_sim_test_refuse_prep),
	KUNIT_CASE(dma_sim_test_refuse_submit),
	KUNIT_CASE(dma_sim_test_lose_callback),
	KUNIT_CASE(dma_sim_test_corrupt),
	KUNIT_CASE(dma_sim_test_reorder),
	KUNIT_CASE(dma_sim_test_reorder_stall),
	KUNIT_CASE(dma_sim_test_stall),
	KUNIT_CASE(dma_sim_test_terminate),
	KUNIT_CASE(dma_sim_test_delay),
	KUNIT_CASE(dma_sim_test_bandwidth),
	KUNIT_CASE(dma_sim_test_descriptor_ns),
	KUNIT_CASE(dma_sim_test_page_ns),
	KUNIT_CASE(dma_sim_test_pages),
	KUNIT_CASE(dma_sim_test_unbind),
	KUNIT_CASE(dma_sim_test_unbound),
	KUNIT_CASE(dma_sim_test_public),
	KUNIT_CASE(dma_sim_test_knobs),
	KUNIT_CASE(dma_sim_test_sg_pieces),
	KUNIT_CASE(dma_sim_test_sg_max_len),
	KUNIT_CASE(dma_sim_test_sg_lengths),
	KUNIT_CASE(dma_sim_test_sg_capability),
	KUNIT_CASE(dma_sim_test_sg_copy),
	KUNIT_CASE(dma_sim_test_sg_fail_read),
	KUNIT_CASE(dma_sim_test_sg_fail_write),
	KUNIT_CASE(dma_sim_test_sg_short_copy),
	KUNIT_CASE(dma_sim_test_sg_bad_source),
	KUNIT_CASE(dma_sim_test_sg_bad_destination),
	KUNIT_CASE(dma_sim_test_sg_refuse),
	KUNIT_CASE(dma_sim_test_sg_stall),
	KUNIT_CASE(dma_sim_test_sg_lose_callback),
	KUNIT_CASE(dma_sim_test_sg_unbind),
	{ }
};

static struct kunit_suite dma_sim_test_suite = {
	.name = "dma-sim",
	.init = dma_sim_test_init,
	.exit = dma_sim_test_exit,
	.test_cases = dma_sim_test_cases,
};

kunit_test_suites(&dma_sim_test_suite);

#endif /* _DMA_SIM_KUNIT_H */
