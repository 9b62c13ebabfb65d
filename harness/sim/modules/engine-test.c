// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: test that the simulated engine has the rate of its parameters.
 *
 * Keeps all channels busy for a while, with the CPU idle and with the CPU busy
 * and interrupts off most of the time. The rate must be what the bandwidth of
 * the channels allows, within 1 %. Loading fails if it is not.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dmaengine.h>
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sizes.h>

static unsigned int bandwidth = 3000;
module_param(bandwidth, uint, 0444);
MODULE_PARM_DESC(bandwidth, "MiB that a channel copies in a second");

#define CHANS		16
/* So many that an interrupt that is late does not matter */
#define DESCS		64
#define LEN		SZ_1M

static struct dma_chan *chans[CHANS];
static ktime_t start[CHANS], end[CHANS];
static atomic_t left;
static DECLARE_COMPLETION(done);

static void completed(void *param)
{
	*(ktime_t *)param = ktime_get();
	if (atomic_dec_and_test(&left))
		complete(&done);
}

static int submit(int chan, dma_addr_t dst, dma_addr_t src)
{
	struct dma_async_tx_descriptor *tx;
	int i;

	for (i = 0; i < DESCS; i++) {
		tx = dmaengine_prep_dma_memcpy(chans[chan], dst, src, LEN,
					       DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
		if (!tx)
			return -ENOMEM;
		tx->callback = completed;
		tx->callback_param = &end[chan];
		dmaengine_submit(tx);
	}
	start[chan] = ktime_get();
	dma_async_issue_pending(chans[chan]);
	return 0;
}

/* Interrupts are late by up to 50 us, unless they wait for us to be idle */
static void keep_busy(void)
{
	while (!completion_done(&done)) {
		local_irq_disable();
		udelay(50);
		local_irq_enable();
	}
}

static int measure(dma_addr_t dst, dma_addr_t src, bool busy)
{
	const s64 want = div_u64((u64)DESCS * LEN * NSEC_PER_SEC / bandwidth,
				 SZ_1M);
	s64 ns = 0;
	int i, ret;

	atomic_set(&left, CHANS * DESCS);
	reinit_completion(&done);
	for (i = 0; i < CHANS; i++) {
		ret = submit(i, dst, src);
		if (ret)
			return ret;
	}
	if (busy)
		keep_busy();
	wait_for_completion(&done);
	for (i = 0; i < CHANS; i++)
		ns = max(ns, ktime_to_ns(ktime_sub(end[i], start[i])));
	pr_info("%s CPU: %lld ns, %lld by the bandwidth\n",
		busy ? "busy" : "idle", ns, want);
	return abs(ns - want) > want / 100 ? -ERANGE : 0;
}

static int claim(void)
{
	dma_cap_mask_t mask;
	int i;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	for (i = 0; i < CHANS; i++) {
		chans[i] = dma_request_chan_by_mask(&mask);
		if (IS_ERR(chans[i]))
			return PTR_ERR(chans[i]);
	}
	return 0;
}

static int __init engine_test_init(void)
{
	const unsigned int order = get_order(LEN);
	struct page *src = alloc_pages(GFP_KERNEL, order);
	struct page *dst = alloc_pages(GFP_KERNEL, order);
	int ret = -ENOMEM, i;

	/* What the boot has left behind would make interrupts late */
	msleep(2000);
	if (src && dst)
		ret = claim();
	/* The machine has no IOMMU */
	if (!ret)
		ret = measure(page_to_phys(dst), page_to_phys(src), false);
	if (!ret)
		ret = measure(page_to_phys(dst), page_to_phys(src), true);
	for (i = 0; i < CHANS; i++)
		if (!IS_ERR_OR_NULL(chans[i]))
			dma_release_channel(chans[i]);
	if (dst)
		__free_pages(dst, order);
	if (src)
		__free_pages(src, order);
	return ret;
}
module_init(engine_test_init);

static void __exit engine_test_exit(void)
{
}
module_exit(engine_test_exit);

MODULE_DESCRIPTION("Test of the engine of the simulated machine");
MODULE_LICENSE("GPL");
