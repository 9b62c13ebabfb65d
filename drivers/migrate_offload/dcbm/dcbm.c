// SPDX-License-Identifier: GPL-2.0
/*
 * DMA core batch migrator
 *
 * Copies batches of folios for page migration with the memory to memory
 * channels of dmaengine. A batch is spread over the channels by bytes. Each
 * channel gets a contiguous share of it, which is mapped as one scatterlist a
 * side, cut into descriptors, and waited for. A folio counts as copied when
 * every byte of it was in a descriptor that completed without an error; the
 * CPU copies all others.
 *
 * An engine that stops answering is the one thing that the CPU cannot make up
 * for at once, since it may still write to the destinations that it was given.
 * These are given up ("lost"), and stay allocated until the engine says that it
 * is done. Its channel is out of service from then on.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* Channels that can be in service */
#define DCBM_MAX_CHANS		32
/* Segments that a channel is given at once */
#define DCBM_MAX_SEGS		512
/* What a channel must get at least to be worth waking up */
#define DCBM_MIN_SHARE		SZ_64K
/* How long to wait for a channel while others use them all */
#define DCBM_BUSY_JIFFIES	msecs_to_jiffies(20)
/* The slowest rate that is still work, on top of timeout_ms: 16 MiB/s */
#define DCBM_BYTES_PER_MS	SZ_16K

/*
 * What makes bulk migrations. Promotion by NUMA hints and compaction move few
 * folios while someone waits for them, and memory that fails is better read by
 * the CPU, which can survive it.
 */
#define DCBM_DEFAULT_REASONS						\
	(BIT(MR_MEMORY_HOTPLUG) | BIT(MR_SYSCALL) |			\
	 BIT(MR_MEMPOLICY_MBIND) | BIT(MR_CONTIG_RANGE) |		\
	 BIT(MR_DEMOTION) | BIT(MR_DAMON))

enum dcbm_state {
	DCBM_IDLE,		/* in service, nobody uses it */
	DCBM_BUSY,		/* belongs to a batch */
	DCBM_STUCK,		/* descriptors are open, out of service */
	DCBM_RECOVERED,		/* was stuck, has answered since */
};

static const char * const dcbm_state_names[] = {
	[DCBM_IDLE] = "idle",
	[DCBM_BUSY] = "busy",
	[DCBM_STUCK] = "stuck",
	[DCBM_RECOVERED] = "recovered",
};

/* A place in a batch */
struct dcbm_pos {
	unsigned int pair;
	size_t offset;
};

struct dcbm_desc {
	struct dcbm_chan *dc;
	unsigned int pair;
	size_t len;
	bool ok;
};

/*
 * A channel, and its share of the batch that it works for. All of the share
 * belongs to whoever took the channel, but for @state, @open and the @ok of
 * descriptors, which the callback uses too, under @lock.
 */
struct dcbm_chan {
	struct list_head node;		/* dcbm_lock */
	struct dma_chan *chan;
	struct device *dev;
	size_t max_seg;

	spinlock_t lock;		/* what the callback uses too */
	enum dcbm_state state;
	unsigned int open;		/* descriptors not answered, or not out */
	struct completion done;
	struct work_struct recover;

	struct dcbm_pos start;
	unsigned int last_pair;
	size_t bytes;
	bool mapped;
	struct sg_table src;
	struct sg_table dst;

	unsigned int nr_descs;
	unsigned int nr_held;
	struct dcbm_desc descs[DCBM_MAX_SEGS];
	struct folio *held[DCBM_MAX_SEGS];
	struct scatterlist src_sgl[DCBM_MAX_SEGS];
	struct scatterlist dst_sgl[DCBM_MAX_SEGS];
};

/* How much of a folio has been copied so far; shares come in order */
struct dcbm_tally {
	unsigned int pair;
	size_t bytes;
};

/* Parameters, and what turns the driver on and off */
static DEFINE_MUTEX(dcbm_mutex);
static enum {
	DCBM_LOADING,
	DCBM_LIVE,
	DCBM_GOING,
} dcbm_phase;
static bool dcbm_offloading;
static unsigned int dcbm_nr_dma_chan = 16;
static unsigned long dcbm_reasons = DCBM_DEFAULT_REASONS;
static unsigned int dcbm_min_bytes = SZ_64K;
static unsigned int dcbm_timeout_ms = 2000;

static atomic64_t dcbm_migrated;
static atomic64_t dcbm_failures;

/* All channels that are claimed, and those who wait for one */
static DEFINE_SPINLOCK(dcbm_lock);
static LIST_HEAD(dcbm_chans);
static DECLARE_WAIT_QUEUE_HEAD(dcbm_wait);

/* Called by the engine's driver, from any context */
static void dcbm_callback(void *param, const struct dmaengine_result *result)
{
	struct dcbm_desc *desc = param;
	struct dcbm_chan *dc = desc->dc;

	guard(spinlock_irqsave)(&dc->lock);

	desc->ok = result->result == DMA_TRANS_NOERROR && !result->residue;
	if (--dc->open)
		return;
	if (dc->state == DCBM_STUCK)
		schedule_work(&dc->recover);
	else
		complete(&dc->done);
}

static void dcbm_unmap(struct dcbm_chan *dc)
{
	if (!dc->mapped)
		return;
	dma_unmap_sgtable(dc->dev, &dc->src, DMA_TO_DEVICE, 0);
	dma_unmap_sgtable(dc->dev, &dc->dst, DMA_FROM_DEVICE, 0);
	dc->mapped = false;
}

/* The engine has finished after all: nothing will be written any more */
static void dcbm_recover(struct work_struct *work)
{
	struct dcbm_chan *dc = container_of(work, struct dcbm_chan, recover);

	dcbm_unmap(dc);
	while (dc->nr_held)
		folio_put(dc->held[--dc->nr_held]);

	scoped_guard(spinlock_irq, &dc->lock)
		dc->state = DCBM_RECOVERED;
	pr_info("%s answers again; turn offloading off and on to use it\n",
		dma_chan_name(dc->chan));
	complete(&dc->done);

	/* dcbm_exit() waits for this function to return */
	if (!dc->chan->device->device_terminate_all)
		module_put(THIS_MODULE);
}

/*
 * Take up to @max channels, those on @nid first. Waits a little if others have
 * them all. Returns how many it got.
 */
static unsigned int dcbm_take(struct dcbm_chan **dcs, unsigned int max, int nid)
{
	struct dcbm_chan *dc;
	unsigned int nr = 0;
	bool busy = false;
	int local;

	guard(spinlock)(&dcbm_lock);
	for (local = 1; local >= 0; local--) {
		list_for_each_entry(dc, &dcbm_chans, node) {
			if (nr == max)
				return nr;
			guard(spinlock_irq)(&dc->lock);
			busy |= dc->state == DCBM_BUSY;
			if (dc->state != DCBM_IDLE ||
			    (dev_to_node(dc->dev) == nid) != local)
				continue;
			dc->state = DCBM_BUSY;
			dcs[nr++] = dc;
		}
	}
	return nr ?: (busy ? UINT_MAX : 0);
}

static unsigned int dcbm_take_wait(struct dcbm_chan **dcs, unsigned int max,
				   int nid)
{
	unsigned int nr;

	wait_event_timeout(dcbm_wait,
			   (nr = dcbm_take(dcs, max, nid)) != UINT_MAX,
			   DCBM_BUSY_JIFFIES);
	return nr == UINT_MAX ? 0 : nr;
}

static void dcbm_put(struct dcbm_chan **dcs, unsigned int nr)
{
	unsigned int i;

	scoped_guard(spinlock, &dcbm_lock) {
		for (i = 0; i < nr; i++) {
			guard(spinlock_irq)(&dcs[i]->lock);
			if (dcs[i]->state == DCBM_BUSY)
				dcs[i]->state = DCBM_IDLE;
		}
	}
	wake_up(&dcbm_wait);
}

/*
 * Give the channel some @share bytes of the batch from @pos on, and move @pos
 * behind it. Small folios are not cut in two.
 */
static void dcbm_fill(struct dcbm_chan *dc, struct migrate_offload_batch *batch,
		      struct dcbm_pos *pos, size_t share)
{
	unsigned int nr = 0;

	dc->start = *pos;
	dc->bytes = 0;
	dc->nr_descs = 0;

	while (pos->pair < batch->nr && dc->bytes < share &&
	       nr < DCBM_MAX_SEGS) {
		struct migrate_pair *pair = &batch->pairs[pos->pair];
		size_t size = folio_size(pair->src);
		size_t len = min(size - pos->offset, dc->max_seg);

		if (len > DCBM_MIN_SHARE)
			len = min(len, round_up(share - dc->bytes,
						DCBM_MIN_SHARE));

		sg_unmark_end(&dc->src_sgl[nr]);
		sg_unmark_end(&dc->dst_sgl[nr]);
		sg_set_folio(&dc->src_sgl[nr], pair->src, len, pos->offset);
		sg_set_folio(&dc->dst_sgl[nr], pair->dst, len, pos->offset);
		nr++;

		dc->bytes += len;
		dc->last_pair = pos->pair;
		pos->offset += len;
		if (pos->offset == size) {
			pos->pair++;
			pos->offset = 0;
		}
	}

	if (nr) {
		sg_mark_end(&dc->src_sgl[nr - 1]);
		sg_mark_end(&dc->dst_sgl[nr - 1]);
	}
	dc->src.orig_nents = nr;
	dc->dst.orig_nents = nr;
}

static bool dcbm_map(struct dcbm_chan *dc)
{
	if (dma_map_sgtable(dc->dev, &dc->src, DMA_TO_DEVICE, 0))
		return false;
	if (dma_map_sgtable(dc->dev, &dc->dst, DMA_FROM_DEVICE, 0)) {
		dma_unmap_sgtable(dc->dev, &dc->src, DMA_TO_DEVICE, 0);
		return false;
	}
	dc->mapped = true;
	return true;
}

/* Some engines hold a lock from prep to submit, so nothing may come between */
static bool dcbm_submit_one(struct dcbm_chan *dc, unsigned int pair,
			    dma_addr_t dst, dma_addr_t src, size_t len)
{
	struct dma_async_tx_descriptor *tx;
	struct dcbm_desc *desc;

	if (dc->nr_descs == DCBM_MAX_SEGS)
		return false;
	tx = dmaengine_prep_dma_memcpy(dc->chan, dst, src, len,
				       DMA_PREP_INTERRUPT | DMA_CTRL_ACK);
	if (!tx)
		return false;

	desc = &dc->descs[dc->nr_descs];
	desc->dc = dc;
	desc->pair = pair;
	desc->len = len;
	desc->ok = false;
	tx->callback_result = dcbm_callback;
	tx->callback_param = desc;

	scoped_guard(spinlock_irqsave, &dc->lock)
		dc->open++;
	if (dma_submit_error(dmaengine_submit(tx))) {
		guard(spinlock_irqsave)(&dc->lock);
		dc->open--;
		return false;
	}
	dc->nr_descs++;
	/* Some engines start no more than one descriptor for each of these */
	dma_async_issue_pending(dc->chan);
	return true;
}

/*
 * Cut the share into descriptors and start them. An IOMMU merges segments as it
 * likes, so those of the two sides need not match each other, nor the folios,
 * nor what the engine can do at once. What the engine refuses is not copied.
 */
static void dcbm_submit(struct dcbm_chan *dc,
			struct migrate_offload_batch *batch)
{
	struct scatterlist *src = dc->src.sgl, *dst = dc->dst.sgl;
	size_t src_done = 0, dst_done = 0, left = dc->bytes, len;
	struct dcbm_pos pos = dc->start;

	/* One for ourselves, or it could be done before all is submitted */
	dc->open = 1;
	reinit_completion(&dc->done);

	while (left) {
		size_t size = folio_size(batch->pairs[pos.pair].src);

		len = min(sg_dma_len(src) - src_done,
			  sg_dma_len(dst) - dst_done);
		len = min3(len, size - pos.offset, dc->max_seg);

		if (!dcbm_submit_one(dc, pos.pair,
				     sg_dma_address(dst) + dst_done,
				     sg_dma_address(src) + src_done, len))
			break;

		left -= len;
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
		pos.offset += len;
		if (pos.offset == size) {
			pos.pair++;
			pos.offset = 0;
		}
	}

	guard(spinlock_irq)(&dc->lock);
	if (!--dc->open)
		complete(&dc->done);
}

/* Keep what the engine may still write to, and the channel away from use */
static void dcbm_give_up(struct dcbm_chan *dc,
			 struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = dc->start.pair; i <= dc->last_pair; i++) {
		struct folio *dst = batch->pairs[i].dst;

		folio_get(dst);
		dc->held[dc->nr_held++] = dst;
		migrate_offload_set_lost(batch, i);
	}
	dc->state = DCBM_STUCK;

	/* Without a way to stop callbacks, dcbm_callback() has to stay */
	if (!dc->chan->device->device_terminate_all)
		__module_get(THIS_MODULE);
}

/*
 * Wait until the engine has done its share or is out of time. Returns false if
 * it did not answer.
 */
static bool dcbm_finish(struct dcbm_chan *dc,
			struct migrate_offload_batch *batch,
			unsigned long deadline)
{
	unsigned int open, held;
	long wait;

	if (!dc->mapped)
		return true;

	wait = max(0L, (long)(deadline - jiffies));
	wait_for_completion_timeout(&dc->done, wait);
	scoped_guard(spinlock_irq, &dc->lock) {
		open = dc->open;
		/* Before the callback can think of recovery */
		if (open)
			dcbm_give_up(dc, batch);
		held = dc->nr_held;
	}
	if (!open) {
		dcbm_unmap(dc);
		return true;
	}
	pr_warn("%s (%s) did not answer in time and is out of service: %u of %u descriptors open, %u folios kept for it\n",
		dma_chan_name(dc->chan), dev_name(dc->dev), open,
		dc->nr_descs, held);
	return false;
}

static void dcbm_count(struct dcbm_chan *dc,
		       struct migrate_offload_batch *batch,
		       struct dcbm_tally *tally)
{
	unsigned int i;

	for (i = 0; i < dc->nr_descs; i++) {
		struct dcbm_desc *desc = &dc->descs[i];

		if (desc->pair != tally->pair) {
			tally->pair = desc->pair;
			tally->bytes = 0;
		}
		if (desc->ok)
			tally->bytes += desc->len;
		if (tally->bytes == folio_size(batch->pairs[desc->pair].src))
			migrate_offload_set_copied(batch, desc->pair);
	}
}

/*
 * One round: as much as the channels can take at once. Moves @pos and @left on.
 * Returns false if an engine got stuck: what is left is for the CPU then.
 */
static bool dcbm_round(struct migrate_offload_batch *batch,
		       struct dcbm_chan **dcs, unsigned int nr,
		       struct dcbm_pos *pos, size_t *left,
		       struct dcbm_tally *tally)
{
	unsigned long ms = READ_ONCE(dcbm_timeout_ms);
	unsigned long deadline;
	size_t most = 0;
	bool ok = true;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct dcbm_chan *dc = dcs[i];

		dcbm_fill(dc, batch, pos, DIV_ROUND_UP(*left, nr - i));
		*left -= dc->bytes;
		most = max(most, dc->bytes);
		if (dc->bytes && dcbm_map(dc))
			dcbm_submit(dc, batch);
	}

	/* One deadline for all, however many engines fail to meet it */
	ms += most / DCBM_BYTES_PER_MS;
	deadline = jiffies + msecs_to_jiffies(ms);
	for (i = 0; i < nr; i++) {
		if (dcbm_finish(dcs[i], batch, deadline))
			dcbm_count(dcs[i], batch, tally);
		else
			ok = false;
	}
	return ok;
}

static void dcbm_copy(struct migrate_offload_batch *batch)
{
	struct dcbm_chan *dcs[DCBM_MAX_CHANS];
	struct dcbm_tally tally = { .pair = UINT_MAX };
	struct dcbm_pos pos = {};
	size_t left = batch->bytes;
	unsigned int nr, copied;

	if (batch->bytes < READ_ONCE(dcbm_min_bytes))
		return;

	nr = clamp(batch->bytes / DCBM_MIN_SHARE, 1, DCBM_MAX_CHANS);
	nr = dcbm_take_wait(dcs, nr, batch->dst_nid);

	while (nr && left && dcbm_round(batch, dcs, nr, &pos, &left, &tally))
		cond_resched();

	dcbm_put(dcs, nr);

	copied = bitmap_weight(batch->copied, batch->nr);
	atomic64_add(copied, &dcbm_migrated);
	atomic64_add(batch->nr - copied, &dcbm_failures);
}

static const struct migrator dcbm_migrator = {
	.name = KBUILD_MODNAME,
	.copy = dcbm_copy,
};

/* Why a channel must not be used, or NULL */
static const char *dcbm_chan_unfit(struct dma_chan *chan)
{
	struct device *dev = dmaengine_get_dma_device(chan);
	const char *driver = dev_driver_string(chan->device->dev);

	/* A bounce buffer would be one more copy, by the CPU */
	if (dma_addressing_limited(dev) || dma_max_mapping_size(dev) != SIZE_MAX)
		return "it needs bounce buffers";
	if (dma_get_max_seg_size(dev) < PAGE_SIZE)
		return "its segments are shorter than a page";
	/* It spins in issue_pending, without end if the engine hangs */
	if (!strcmp(driver, "ae4dma"))
		return "its driver waits for the engine";
	return NULL;
}

static bool dcbm_chan_filter(struct dma_chan *chan, void *tell)
{
	const char *why = dcbm_chan_unfit(chan);

	if (why && tell)
		pr_info("%s (%s) is not used: %s\n", dma_chan_name(chan),
			dev_name(chan->device->dev), why);
	return !why;
}

static void dcbm_chan_init(struct dcbm_chan *dc, struct dma_chan *chan)
{
	dc->chan = chan;
	dc->dev = dmaengine_get_dma_device(chan);
	dc->max_seg = min(dma_get_max_seg_size(dc->dev), SZ_1G) & PAGE_MASK;
	spin_lock_init(&dc->lock);
	init_completion(&dc->done);
	INIT_WORK(&dc->recover, dcbm_recover);
	sg_init_table(dc->src_sgl, DCBM_MAX_SEGS);
	sg_init_table(dc->dst_sgl, DCBM_MAX_SEGS);
	dc->src.sgl = dc->src_sgl;
	dc->dst.sgl = dc->dst_sgl;
}

/* Ask dmaengine for one more channel, and @tell of those that are passed over */
static struct dcbm_chan *dcbm_chan_claim(bool tell)
{
	struct dcbm_chan *dc = kvzalloc(sizeof(*dc), GFP_KERNEL);
	struct dma_chan *chan;
	dma_cap_mask_t mask;

	if (!dc)
		return NULL;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	chan = dma_request_channel(mask, dcbm_chan_filter,
				   tell ? &tell : NULL);
	if (!chan) {
		kvfree(dc);
		return NULL;
	}
	dcbm_chan_init(dc, chan);
	return dc;
}

/* Nobody uses the channels now, but for engines that are stuck */
static void dcbm_release_chans(void)
{
	struct dcbm_chan *dc, *tmp;
	LIST_HEAD(release);

	scoped_guard(spinlock, &dcbm_lock) {
		list_for_each_entry_safe(dc, tmp, &dcbm_chans, node) {
			guard(spinlock_irq)(&dc->lock);
			if (dc->state != DCBM_STUCK)
				list_move(&dc->node, &release);
		}
	}
	list_for_each_entry_safe(dc, tmp, &release, node) {
		/* The last callback may just be returning */
		dmaengine_terminate_sync(dc->chan);
		flush_work(&dc->recover);
		dma_release_channel(dc->chan);
		kvfree(dc);
	}
}

static int dcbm_start(void)
{
	struct dcbm_chan *dc;
	unsigned int nr;
	int ret;

	/* Those that have recovered by now are as good as new */
	dcbm_release_chans();

	for (nr = 0; nr < dcbm_nr_dma_chan; nr++) {
		dc = dcbm_chan_claim(!nr);
		if (!dc)
			break;
		scoped_guard(spinlock, &dcbm_lock)
			list_add_tail(&dc->node, &dcbm_chans);
	}
	if (!nr) {
		pr_info("no DMA channel that can copy memory is free\n");
		return -ENODEV;
	}

	ret = migrate_offload_register(&dcbm_migrator, dcbm_reasons);
	if (ret) {
		dcbm_release_chans();
		return ret;
	}
	pr_info("%u channels\n", nr);
	dcbm_offloading = true;
	return 0;
}

static void dcbm_stop(void)
{
	/* Waits for the batches that are being copied */
	migrate_offload_unregister(&dcbm_migrator);
	dcbm_release_chans();
	dcbm_offloading = false;
}

static int dcbm_offloading_set(const char *val, const struct kernel_param *kp)
{
	bool on;
	int ret;

	ret = kstrtobool(val, &on);
	if (ret)
		return ret;

	guard(mutex)(&dcbm_mutex);
	switch (dcbm_phase) {
	case DCBM_LOADING:
		/* A wish, for dcbm_init() to fulfil */
		dcbm_offloading = on;
		return 0;
	case DCBM_GOING:
		return -ENODEV;
	case DCBM_LIVE:
		break;
	}

	if (on == dcbm_offloading)
		return 0;
	if (on)
		return dcbm_start();
	dcbm_stop();
	return 0;
}

static const struct kernel_param_ops dcbm_offloading_ops = {
	.set = dcbm_offloading_set,
	.get = param_get_bool,
};
module_param_cb(offloading, &dcbm_offloading_ops, &dcbm_offloading, 0644);
MODULE_PARM_DESC(offloading,
		 "Claim DMA channels and copy with them (default: N)");

static int dcbm_nr_dma_chan_set(const char *val, const struct kernel_param *kp)
{
	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase == DCBM_LIVE && dcbm_offloading)
		return -EBUSY;
	return param_set_uint_minmax(val, kp, 1, DCBM_MAX_CHANS);
}

static const struct kernel_param_ops dcbm_nr_dma_chan_ops = {
	.set = dcbm_nr_dma_chan_set,
	.get = param_get_uint,
};
module_param_cb(nr_dma_chan, &dcbm_nr_dma_chan_ops, &dcbm_nr_dma_chan, 0644);
MODULE_PARM_DESC(nr_dma_chan,
		 "DMA channels to claim at most, 1 to 32, to be set while offloading is off (default: 16)");

static int dcbm_reason_mask_set(const char *val, const struct kernel_param *kp)
{
	unsigned long reasons;
	int ret;

	ret = migrate_offload_parse_reasons(val, &reasons);
	if (ret)
		return ret;

	guard(mutex)(&dcbm_mutex);
	WRITE_ONCE(dcbm_reasons, reasons);
	migrate_offload_set_reasons(&dcbm_migrator, reasons);
	return 0;
}

static int dcbm_reason_mask_get(char *buf, const struct kernel_param *kp)
{
	return migrate_offload_show_reasons(buf, READ_ONCE(dcbm_reasons));
}

static const struct kernel_param_ops dcbm_reason_mask_ops = {
	.set = dcbm_reason_mask_set,
	.get = dcbm_reason_mask_get,
};
module_param_cb(reason_mask, &dcbm_reason_mask_ops, NULL, 0644);
MODULE_PARM_DESC(reason_mask,
		 "Reasons to migrate that are offloaded: names with commas, \"all\", \"none\" or a number");

static int dcbm_min_bytes_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, SZ_1G);
}

static const struct kernel_param_ops dcbm_min_bytes_ops = {
	.set = dcbm_min_bytes_set,
	.get = param_get_uint,
};
module_param_cb(min_bytes, &dcbm_min_bytes_ops, &dcbm_min_bytes, 0644);
MODULE_PARM_DESC(min_bytes,
		 "Batches of fewer bytes are left to the CPU (default: 65536)");

static int dcbm_timeout_ms_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, 60 * MSEC_PER_SEC);
}

static const struct kernel_param_ops dcbm_timeout_ms_ops = {
	.set = dcbm_timeout_ms_set,
	.get = param_get_uint,
};
module_param_cb(timeout_ms, &dcbm_timeout_ms_ops, &dcbm_timeout_ms, 0644);
MODULE_PARM_DESC(timeout_ms,
		 "How long an engine may take, besides 1 ms for each 16 KiB, 1 to 60000 (default: 2000)");

static int dcbm_counter_set(const char *val, const struct kernel_param *kp)
{
	atomic64_set((atomic64_t *)kp->arg, 0);
	return 0;
}

static int dcbm_counter_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%lld\n",
			  atomic64_read((atomic64_t *)kp->arg));
}

static const struct kernel_param_ops dcbm_counter_ops = {
	.set = dcbm_counter_set,
	.get = dcbm_counter_get,
};
module_param_cb(folios_migrated, &dcbm_counter_ops, &dcbm_migrated, 0644);
MODULE_PARM_DESC(folios_migrated,
		 "Folios that were copied; any write resets the count");
module_param_cb(folios_failures, &dcbm_counter_ops, &dcbm_failures, 0644);
MODULE_PARM_DESC(folios_failures,
		 "Folios that should have been copied and were left to the CPU; any write resets the count");

static int dcbm_channels_get(char *buf, const struct kernel_param *kp)
{
	struct dcbm_chan *dc;
	int len = 0;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		len += sysfs_emit_at(buf, len, "%s %d %s\n",
				     dma_chan_name(dc->chan),
				     dev_to_node(dc->dev),
				     dcbm_state_names[dc->state]);
	}
	return len;
}

/* Not there, it would be called all the same when the module is loaded */
static int dcbm_channels_set(const char *val, const struct kernel_param *kp)
{
	return -EPERM;
}

static const struct kernel_param_ops dcbm_channels_ops = {
	.set = dcbm_channels_set,
	.get = dcbm_channels_get,
};
module_param_cb(channels, &dcbm_channels_ops, NULL, 0444);
MODULE_PARM_DESC(channels,
		 "Claimed channels: name, NUMA node, and idle, busy, stuck or recovered");

static int __init dcbm_init(void)
{
	guard(mutex)(&dcbm_mutex);
	dcbm_phase = DCBM_LIVE;
	if (dcbm_offloading) {
		dcbm_offloading = false;
		if (dcbm_start())
			pr_warn("offloading stays off; turn it on once there are channels\n");
	}
	return 0;
}
late_initcall(dcbm_init); /* built in, after the drivers of the engines */

static bool dcbm_is_stuck(struct dcbm_chan *dc)
{
	guard(spinlock_irq)(&dc->lock);
	return dc->state == DCBM_STUCK;
}

static void __exit dcbm_exit(void)
{
	struct dcbm_chan *dc;

	guard(mutex)(&dcbm_mutex);
	dcbm_phase = DCBM_GOING;
	dcbm_stop();

	/*
	 * What is left is stuck. Nothing but the engine knows when it is done,
	 * and it can no longer tell us: its channel and folios stay taken.
	 */
	list_for_each_entry(dc, &dcbm_chans, node) {
		/*
		 * A batch can have given it up after it was too late to pin
		 * the module. Its callback must find us here.
		 */
		if (dcbm_is_stuck(dc) && !dc->chan->device->device_terminate_all) {
			pr_warn("waiting for %s to answer\n",
				dma_chan_name(dc->chan));
			wait_for_completion(&dc->done);
		}
		dmaengine_terminate_sync(dc->chan);
		flush_work(&dc->recover);
		if (dcbm_is_stuck(dc))
			pr_warn("%s never answered: it and %u folios are lost until reboot\n",
				dma_chan_name(dc->chan), dc->nr_held);
	}
	dcbm_release_chans();
}
module_exit(dcbm_exit);

MODULE_DESCRIPTION("DMA core batch migrator");
MODULE_LICENSE("GPL");

#include "tests/dcbm-kunit.h"
