// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: a migrator to compare dcbm with. It is never posted.
 *
 * It follows the algorithm that the public RFC describes for its driver. Each
 * batch claims channels of dmaengine and allocates scatterlists. It deals whole
 * folios to the channels in contiguous runs, with one descriptor for each
 * segment and one callback for the last descriptor of each channel. It waits for
 * all channels and gives everything back. A channel that fails leaves its folios
 * to the CPU.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/jiffies.h>
#include <linux/kstrtox.h>
#include <linux/migrate_copy_offload.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#define MAX_CHANS	16
#define TIMEOUT		(10 * HZ)

static unsigned int nr_dma_chan = 16;
module_param(nr_dma_chan, uint, 0644);
MODULE_PARM_DESC(nr_dma_chan, "Channels for a batch at most, 1 to 16");

/* A channel's part of a batch */
struct work {
	struct dma_chan *chan;
	struct device *dev;
	unsigned int first;		/* pair */
	unsigned int nr;
	struct sg_table src;
	struct sg_table dst;
	struct completion done;
	enum dmaengine_tx_result result;
	bool submitted;
};

static void done(void *param, const struct dmaengine_result *result)
{
	struct work *w = param;

	w->result = result->result;
	complete(&w->done);
}

static unsigned int claim(struct work *works, unsigned int max)
{
	struct dma_chan *chan;
	dma_cap_mask_t mask;
	unsigned int nr;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	for (nr = 0; nr < max; nr++) {
		chan = dma_request_chan_by_mask(&mask);
		if (IS_ERR(chan))
			break;
		works[nr].chan = chan;
		works[nr].dev = dmaengine_get_dma_device(chan);
		init_completion(&works[nr].done);
	}
	return nr;
}

static bool map(struct work *w, struct migrate_offload_batch *batch)
{
	struct scatterlist *src, *dst;
	unsigned int i;

	if (sg_alloc_table(&w->src, w->nr, GFP_NOWAIT))
		return false;
	if (sg_alloc_table(&w->dst, w->nr, GFP_NOWAIT))
		goto free_src;
	src = w->src.sgl;
	dst = w->dst.sgl;
	for (i = 0; i < w->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[w->first + i];

		sg_set_folio(src, pair->src, folio_size(pair->src), 0);
		sg_set_folio(dst, pair->dst, folio_size(pair->dst), 0);
		src = sg_next(src);
		dst = sg_next(dst);
	}
	if (dma_map_sgtable(w->dev, &w->src, DMA_TO_DEVICE, 0))
		goto free_dst;
	if (dma_map_sgtable(w->dev, &w->dst, DMA_FROM_DEVICE, 0))
		goto unmap_src;
	if (w->src.nents == w->dst.nents)
		return true;
	/* An IOMMU merged them differently */
	dma_unmap_sgtable(w->dev, &w->dst, DMA_FROM_DEVICE, 0);
unmap_src:
	dma_unmap_sgtable(w->dev, &w->src, DMA_TO_DEVICE, 0);
free_dst:
	sg_free_table(&w->dst);
free_src:
	sg_free_table(&w->src);
	return false;
}

static void unmap(struct work *w)
{
	dma_unmap_sgtable(w->dev, &w->dst, DMA_FROM_DEVICE, 0);
	dma_unmap_sgtable(w->dev, &w->src, DMA_TO_DEVICE, 0);
	sg_free_table(&w->dst);
	sg_free_table(&w->src);
}

static bool submit(struct work *w)
{
	struct scatterlist *src = w->src.sgl, *dst = w->dst.sgl;
	struct dma_async_tx_descriptor *tx;
	unsigned int i;

	for (i = 0; i < w->src.nents; i++) {
		bool last = i == w->src.nents - 1;

		tx = dmaengine_prep_dma_memcpy(w->chan, sg_dma_address(dst),
					       sg_dma_address(src),
					       sg_dma_len(src), DMA_CTRL_ACK |
					       (last ? DMA_PREP_INTERRUPT : 0));
		if (!tx)
			return false;
		if (last) {
			tx->callback_result = done;
			tx->callback_param = w;
		}
		if (dma_submit_error(dmaengine_submit(tx)))
			return false;
		src = sg_next(src);
		dst = sg_next(dst);
	}
	dma_async_issue_pending(w->chan);
	return true;
}

static void finish(struct work *w, struct migrate_offload_batch *batch)
{
	unsigned int i;

	if (!w->submitted || !wait_for_completion_timeout(&w->done, TIMEOUT)) {
		dmaengine_terminate_sync(w->chan);
		return;
	}
	if (w->result != DMA_TRANS_NOERROR)
		return;
	for (i = 0; i < w->nr; i++)
		migrate_offload_add_copied(batch, w->first + i,
					   folio_size(batch->pairs[w->first + i].src));
}

/* Copy and wait here: the RFC's driver has no separate wait */
static int rfc_like_submit(struct migrate_offload_batch *batch)
{
	unsigned int nr, first = 0, i;
	struct work *works;

	nr = min3(READ_ONCE(nr_dma_chan), batch->nr, MAX_CHANS);
	works = kcalloc(nr, sizeof(*works), GFP_NOWAIT);
	if (!works)
		return -ENOMEM;
	nr = claim(works, nr);
	for (i = 0; i < nr; i++) {
		struct work *w = &works[i];

		w->first = first;
		w->nr = batch->nr / nr + (i < batch->nr % nr);
		first += w->nr;
		if (!map(w, batch))
			w->nr = 0;
		else
			w->submitted = submit(w);
	}
	for (i = 0; i < nr; i++) {
		if (works[i].nr) {
			finish(&works[i], batch);
			unmap(&works[i]);
		}
		dma_release_channel(works[i].chan);
	}
	kfree(works);
	return 0;
}

static void rfc_like_wait(struct migrate_offload_batch *batch)
{
}

static const struct migrate_offload_ops rfc_like_ops = {
	.name = KBUILD_MODNAME,
	.submit = rfc_like_submit,
	.wait = rfc_like_wait,
};

static DEFINE_MUTEX(mutex);
static bool offloading;

static int offloading_set(const char *val, const struct kernel_param *kp)
{
	bool on;
	int ret;

	ret = kstrtobool(val, &on);
	if (ret)
		return ret;
	guard(mutex)(&mutex);
	if (on == offloading)
		return 0;
	if (on) {
		ret = migrate_offload_register(&rfc_like_ops,
					       BIT(MR_SYSCALL), 0);
		if (ret)
			return ret;
	} else {
		migrate_offload_unregister(&rfc_like_ops);
	}
	offloading = on;
	return 0;
}

static const struct kernel_param_ops offloading_ops = {
	.set = offloading_set,
	.get = param_get_bool,
};
module_param_cb(offloading, &offloading_ops, &offloading, 0644);
MODULE_PARM_DESC(offloading, "Copy with DMA channels");

static int __init rfc_like_init(void)
{
	return 0;
}
module_init(rfc_like_init);

static void __exit rfc_like_exit(void)
{
	guard(mutex)(&mutex);
	if (offloading)
		migrate_offload_unregister(&rfc_like_ops);
}
module_exit(rfc_like_exit);

MODULE_DESCRIPTION("The algorithm of the RFC's driver, for measuring only");
MODULE_LICENSE("GPL");
