// SPDX-License-Identifier: GPL-2.0
/*
 * For tests: a client of one PTDMA channel that does what dmatest does not
 *
 * Loading the module runs the test that the parameter "test" names, and fails
 * if the test does. All memory and the channel are given back before that.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/array_size.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/gfp.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

static char *test;
module_param(test, charp, 0444);
MODULE_PARM_DESC(test, "Which test, by the name in tests[]");

#define BUF_ORDER	9
#define BUF_SIZE	((size_t)PAGE_SIZE << BUF_ORDER)
#define SEGS		512
#define PART		SZ_256K

static struct dma_chan *chan;
static u8 *src, *dst;
static dma_addr_t src_dma, dst_dma;

static bool ok = true;

static bool check(bool good, const char *what, int line)
{
	if (!good) {
		pr_err("line %d: %s\n", line, what);
		ok = false;
	}
	return good;
}
#define CHECK(cond) check(cond, #cond, __LINE__)

/* Copies */

struct copy {
	struct completion done;
	enum dmaengine_tx_result result;
};

static void copy_done(void *param, const struct dmaengine_result *result)
{
	struct copy *copy = param;

	copy->result = result->result;
	complete(&copy->done);
}

static bool submit(struct copy *copy, struct dma_async_tx_descriptor *tx)
{
	init_completion(&copy->done);
	if (!CHECK(tx))
		return false;
	tx->callback_result = copy_done;
	tx->callback_param = copy;
	if (!CHECK(!dma_submit_error(dmaengine_submit(tx))))
		return false;
	dma_async_issue_pending(chan);
	return true;
}

static struct dma_async_tx_descriptor *prep_part(size_t at, unsigned long flags)
{
	return dmaengine_prep_dma_memcpy(chan, dst_dma + at, src_dma + at, PART,
					 flags);
}

static bool submit_part(struct copy *copy, size_t at)
{
	return submit(copy, prep_part(at, DMA_PREP_INTERRUPT));
}

static bool done_well(struct copy *copy)
{
	return wait_for_completion_timeout(&copy->done, 20 * HZ) &&
	       copy->result == DMA_TRANS_NOERROR;
}

static bool copied(size_t at, size_t len)
{
	return !memcmp(dst + at, src + at, len);
}

static bool untouched(size_t at, size_t len)
{
	return !memchr_inv(dst + at, 0, len);
}

/* A length that a descriptor cannot hold is refused, not cut. */
static void lengths(void)
{
	CHECK(dmaengine_prep_dma_memcpy(chan, dst_dma, src_dma, U32_MAX, 0));
	CHECK(!dmaengine_prep_dma_memcpy(chan, dst_dma, src_dma, SZ_4G, 0));
	CHECK(!dmaengine_prep_dma_memcpy(chan, dst_dma, src_dma,
					 SZ_4G + PART, 0));
	CHECK(chan->device->directions == BIT(DMA_MEM_TO_MEM));
}

/* A channel that is paused starts nothing, also not what has been waiting. */
static void paused(void)
{
	struct copy first, second, third;
	int i;

	if (!submit_part(&first, 0) || !submit_part(&second, PART))
		return;
	CHECK(!dmaengine_pause(chan));
	/* The engine finishes what it has begun, which may be nothing yet */
	for (i = 0; i < 50 && !copied(0, PART); i++)
		msleep(100);
	CHECK(copied(0, PART) || untouched(0, PART));
	msleep(500);
	CHECK(untouched(PART, PART));
	if (!submit_part(&third, 2 * PART))
		return;
	msleep(500);
	CHECK(untouched(PART, 2 * PART));
	CHECK(!completion_done(&second.done));
	CHECK(!completion_done(&third.done));

	CHECK(!dmaengine_resume(chan));
	CHECK(done_well(&first));
	CHECK(done_well(&second));
	CHECK(done_well(&third));
	CHECK(copied(PART, 2 * PART));
}

/* Nor does it go on, once it may, with what has been terminated. */
static void terminated(void)
{
	struct copy first, second;

	CHECK(!dmaengine_pause(chan));
	if (!submit_part(&first, 0))
		return;
	msleep(100);
	CHECK(!dmaengine_terminate_sync(chan));
	CHECK(!dmaengine_resume(chan));
	msleep(500);
	CHECK(untouched(0, PART));

	if (!submit_part(&second, PART))
		return;
	CHECK(done_well(&second));
	CHECK(copied(PART, PART));
	CHECK(untouched(0, PART));
	CHECK(!completion_done(&first.done));
}

static bool is_ptdma(struct dma_chan *c, void *param)
{
	return !strcmp(dev_driver_string(c->device->dev), "ptdma");
}

static bool take_channel(void)
{
	dma_cap_mask_t mask;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	chan = dma_request_channel(mask, is_ptdma, NULL);
	return chan;
}

/* How much of @dst has been written since it was zeroed; @src has no zeroes */
static size_t written(void)
{
	return strnlen(dst, BUF_SIZE);
}

/* The next copy works, and what was terminated writes no more */
static void check_stopped(size_t at, size_t before)
{
	struct copy next;

	if (submit_part(&next, at)) {
		CHECK(done_well(&next));
		CHECK(copied(at, PART));
	}
	msleep(500);
	CHECK(written() == before);
	memset(dst, 0, BUF_SIZE);
}

/* terminate_sync() waits for the engine, whether interrupts are masked or not */
static void stopped(void)
{
	static const unsigned long flags[] = { DMA_PREP_INTERRUPT, 0 };
	static struct scatterlist to[8], from[8];
	struct copy copy;
	size_t len;
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (!submit(&copy, prep_part(0, flags[i])))
			return;
		msleep(50);
		CHECK(!dmaengine_terminate_sync(chan));
		check_stopped(3 * PART, written());
		CHECK(!completion_done(&copy.done));
	}

	/* Of a list, the engine executes no more than it had begun */
	sg_init_table(to, ARRAY_SIZE(to));
	sg_init_table(from, ARRAY_SIZE(from));
	for (i = 0; i < ARRAY_SIZE(to); i++) {
		sg_dma_address(&from[i]) = src_dma + i * PART / 2;
		sg_dma_address(&to[i]) = dst_dma + i * PART / 2;
		sg_dma_len(&from[i]) = PART / 2;
		sg_dma_len(&to[i]) = PART / 2;
	}
	if (!submit(&copy, dmaengine_prep_dma_memcpy_sg(chan, to, i, from, i,
							DMA_PREP_INTERRUPT)))
		return;
	msleep(50);
	CHECK(!dmaengine_terminate_sync(chan));
	len = written();
	CHECK(len <= PART);
	check_stopped(6 * PART, len);
}

/* So does releasing the channel, which also ends a pause. */
static void released(void)
{
	struct copy copy;

	CHECK(!dmaengine_pause(chan));
	dma_release_channel(chan);
	if (!CHECK(take_channel()) || !submit_part(&copy, 0))
		return;
	CHECK(done_well(&copy));
	memset(dst, 0, BUF_SIZE);

	if (!submit_part(&copy, 0))
		return;
	msleep(50);
	dma_release_channel(chan);
	if (CHECK(take_channel()))
		check_stopped(3 * PART, written());
}

/* Whether a descriptor interrupts is up to its own flags. */
static void interrupts(void)
{
	struct dma_async_tx_descriptor *tx;
	struct copy copy;

	tx = prep_part(0, DMA_PREP_INTERRUPT);
	CHECK(prep_part(PART, 0));
	if (submit(&copy, tx))
		CHECK(done_well(&copy));
}

/* A callback from dma_async_is_tx_complete() */

struct polled {
	struct work_struct work;
	dma_cookie_t cookie;
	struct completion begun;
	bool over;
};

static void poll_status(struct work_struct *work)
{
	struct polled *p = container_of(work, struct polled, work);

	while (dma_async_is_tx_complete(chan, p->cookie, NULL, NULL) ==
	       DMA_IN_PROGRESS)
		usleep_range(1000, 2000);
}

static void slow_callback(void *param)
{
	struct polled *p = param;

	complete(&p->begun);
	msleep(500);
	WRITE_ONCE(p->over, true);
}

static void polled(void)
{
	struct dma_async_tx_descriptor *tx = prep_part(0, 0);
	struct polled p = {};

	if (!CHECK(tx))
		return;
	INIT_WORK_ONSTACK(&p.work, poll_status);
	init_completion(&p.begun);
	tx->callback = slow_callback;
	tx->callback_param = &p;
	p.cookie = dmaengine_submit(tx);
	dma_async_issue_pending(chan);
	schedule_work(&p.work);
	CHECK(wait_for_completion_timeout(&p.begun, 20 * HZ));
	CHECK(!dmaengine_terminate_sync(chan));
	CHECK(READ_ONCE(p.over));
	flush_work(&p.work);
	destroy_work_on_stack(&p.work);
}

/* A system that sleeps, with a device that loses what is in its registers */
static void suspended(void)
{
	struct device *dev = chan->device->dev;
	const struct dev_pm_ops *pm = dev->driver->pm;
	struct copy copy;
	u8 __iomem *regs;
	int i;

	if (!CHECK(pm) || !submit_part(&copy, 0))
		return;
	msleep(50);
	/* Waits for the engine */
	CHECK(!pm->suspend_late(dev));
	CHECK(copied(0, PART));
	CHECK(done_well(&copy));

	if (submit_part(&copy, PART))
		CHECK(wait_for_completion_timeout(&copy.done, HZ) &&
		      copy.result == DMA_TRANS_ABORTED);

	regs = pci_ioremap_bar(to_pci_dev(dev), 2);
	if (!CHECK(regs))
		return;
	/* Control, tail, head, interrupt enable */
	for (i = 0; i < 4; i++)
		iowrite32(0, regs + 0x1000 + i * 4);
	iounmap(regs);

	CHECK(!pm->resume_early(dev));
	CHECK(untouched(PART, PART));
	for (i = 1; i < 4 && submit_part(&copy, i * PART); i++) {
		CHECK(done_well(&copy));
		CHECK(copied(i * PART, PART));
	}
}

/* Memory that is not there when a list is prepared */

static struct task_struct *starved;

asm(".pushsection .text\n"
    ".type return_at_once, @function\n"
    "return_at_once:\n"
    ANNOTATE_NOENDBR "\n"
    ASM_RET "\n"
    ".size return_at_once, . - return_at_once\n"
    ".popsection\n");
void return_at_once(void);

static int fail_alloc(struct kprobe *kp, struct pt_regs *regs)
{
	if (READ_ONCE(starved) != current)
		return 0;
	regs_set_return_value(regs, 0);
	instruction_pointer_set(regs, (unsigned long)return_at_once);
	return 1;
}

static struct kprobe allocs[] = {
	{ .symbol_name = "kmem_cache_alloc_noprof", .pre_handler = fail_alloc },
	{ .symbol_name = "__kmalloc_noprof", .pre_handler = fail_alloc },
	{ .symbol_name = "__kmalloc_cache_noprof", .pre_handler = fail_alloc },
};

static struct scatterlist src_sg[SEGS], dst_sg[SEGS];

/* As many segments as dcbm has, which nowhere end at the same places. */
static void fill_lists(void)
{
	size_t len, at = 0;
	int i;

	sg_init_table(src_sg, SEGS);
	sg_init_table(dst_sg, SEGS);
	for (i = 0; i < SEGS; i++) {
		sg_dma_address(&src_sg[i]) = src_dma + i * SZ_4K;
		sg_dma_len(&src_sg[i]) = SZ_4K;

		len = i ? SZ_4K : SZ_2K;
		if (i == SEGS - 1)
			len = SEGS * SZ_4K - at;
		sg_dma_address(&dst_sg[i]) = dst_dma + at;
		sg_dma_len(&dst_sg[i]) = len;
		at += len;
	}
}

static void memory(void)
{
	struct dma_async_tx_descriptor *tx;
	struct copy copy;
	int i, probes;

	fill_lists();
	for (probes = 0; probes < ARRAY_SIZE(allocs); probes++)
		if (!CHECK(!register_kprobe(&allocs[probes])))
			break;
	/* More than once: what was used is there again */
	for (i = 0; ok && i < 3; i++) {
		memset(dst, 0, BUF_SIZE);
		WRITE_ONCE(starved, current);
		CHECK(!kmalloc(64, GFP_NOWAIT));
		tx = dmaengine_prep_dma_memcpy_sg(chan, dst_sg, SEGS, src_sg,
						  SEGS, DMA_PREP_INTERRUPT);
		WRITE_ONCE(starved, NULL);
		if (!submit(&copy, tx))
			break;
		CHECK(done_well(&copy));
		CHECK(copied(0, BUF_SIZE));
	}
	while (probes--)
		unregister_kprobe(&allocs[probes]);
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "lengths", lengths },
	{ "paused", paused },
	{ "terminated", terminated },
	{ "stopped", stopped },
	{ "released", released },
	{ "interrupts", interrupts },
	{ "polled", polled },
	{ "suspended", suspended },
	{ "memory", memory },
};

static void run(void)
{
	struct device *dev = chan->device->dev;
	size_t i;

	for (i = 0; i < BUF_SIZE; i++)
		src[i] = (i * 2654435761u) >> 24 | 1;
	src_dma = dma_map_single(dev, src, BUF_SIZE, DMA_TO_DEVICE);
	dst_dma = dma_map_single(dev, dst, BUF_SIZE, DMA_FROM_DEVICE);
	if (CHECK(!dma_mapping_error(dev, src_dma)) &&
	    CHECK(!dma_mapping_error(dev, dst_dma))) {
		for (i = 0; i < ARRAY_SIZE(tests); i++)
			if (!strcmp(tests[i].name, test))
				break;
		if (CHECK(i < ARRAY_SIZE(tests)))
			tests[i].run();
	}
	dmaengine_terminate_sync(chan);
	/* An engine that ought to be at rest may not be, if a test has failed */
	if (!ok)
		msleep(5000);
	dma_unmap_single(dev, dst_dma, BUF_SIZE, DMA_FROM_DEVICE);
	dma_unmap_single(dev, src_dma, BUF_SIZE, DMA_TO_DEVICE);
}

static int __init client_init(void)
{
	if (!test)
		return -EINVAL;

	if (!take_channel())
		return -ENODEV;

	src = (u8 *)__get_free_pages(GFP_KERNEL, BUF_ORDER);
	dst = (u8 *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, BUF_ORDER);
	if (CHECK(src && dst))
		run();
	free_pages((unsigned long)dst, BUF_ORDER);
	free_pages((unsigned long)src, BUF_ORDER);
	dma_release_channel(chan);
	return ok ? 0 : -EIO;
}
module_init(client_init);

static void __exit client_exit(void)
{
}
module_exit(client_exit);

MODULE_DESCRIPTION("Client of a PTDMA channel, for tests");
MODULE_LICENSE("GPL");
