// SPDX-License-Identifier: GPL-2.0
/*
 * Simulated DMA engines that copy memory
 *
 * An engine for those who write or test clients of dmaengine without having
 * the hardware. Each channel takes as long as it is told to, and fails in the
 * ways that engines can fail. This file is the interface to dmaengine and
 * debugfs; the engine that copies is in thread.c.
 *
 * The interface is described in Documentation/driver-api/dmaengine/dma-sim.rst.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/align.h>
#include <linux/array_size.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/kstrtox.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/nodemask.h>
#include <linux/numa.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "dma-sim.h"

#define DMA_SIM_NAME		"dma-sim"
#define DMA_SIM_MAX_ENGINES	16
#define DMA_SIM_MAX_CHANS	64
/* The large page of an I/O page table; the small one is PAGE_SIZE */
#define DMA_SIM_LARGE_PAGE	SZ_2M

static const struct {
	const char *name;
	int min;
	int max;
} dma_sim_knobs[] = {
	[DMA_SIM_FAIL_READ] =		{ "fail_read", 0, INT_MAX },
	[DMA_SIM_FAIL_WRITE] =		{ "fail_write", 0, INT_MAX },
	[DMA_SIM_SHORT_COPY] =		{ "short_copy", 0, INT_MAX },
	[DMA_SIM_REFUSE_PREP] =		{ "refuse_prep", 0, INT_MAX },
	[DMA_SIM_REFUSE_SUBMIT] =	{ "refuse_submit", 0, INT_MAX },
	[DMA_SIM_LOSE_CALLBACK] =	{ "lose_callback", 0, INT_MAX },
	[DMA_SIM_CORRUPT] =		{ "corrupt", 0, INT_MAX },
	[DMA_SIM_STALL] =		{ "stall", 0, INT_MAX },
	[DMA_SIM_TIMES] =		{ "times", -1, INT_MAX },
	[DMA_SIM_REORDER] =		{ "reorder", 0, 4096 },
	[DMA_SIM_DELAY_US] =		{ "delay_us", 0, 10 * USEC_PER_SEC },
	[DMA_SIM_BANDWIDTH] =		{ "bandwidth", 0, SZ_1M },
	[DMA_SIM_DESCRIPTOR_NS] =	{ "descriptor_ns", 0, NSEC_PER_MSEC },
	[DMA_SIM_PAGE_NS] =		{ "page_ns", 0, NSEC_PER_MSEC },
};

/* What an engine is made with */
struct dma_sim_config {
	unsigned int channels;
	unsigned int bandwidth;
	unsigned int descriptor_ns;
	unsigned int page_ns;
	bool public;
	bool sg;
	bool reports_errors;
};

/* Lives until the last client has released its channel */
struct dma_sim {
	struct dma_device dma;
	unsigned int nr;
	struct dma_sim_chan chans[] __counted_by(nr);
};

static struct dentry *dma_sim_root;

static struct dma_sim_chan *to_dma_sim_chan(struct dma_chan *chan)
{
	return container_of(chan, struct dma_sim_chan, vc.chan);
}

static struct dma_sim_desc *to_dma_sim_desc(struct virt_dma_desc *vd)
{
	return container_of(vd, struct dma_sim_desc, vd);
}

static void dma_sim_desc_free(struct virt_dma_desc *vd)
{
	kfree(to_dma_sim_desc(vd));
}

/* ---- faults ------------------------------------------------------------- */

/* Is it this descriptor's turn? */
static bool dma_sim_due(struct dma_sim_chan *c, enum dma_sim_knob knob)
{
	struct dma_sim_setting *s = &c->set[knob];

	lockdep_assert_held(&c->vc.lock);

	if (!s->value || ++s->count < s->value)
		return false;
	s->count = 0;
	return true;
}

/* It is, so may it happen? */
static bool dma_sim_fault(struct dma_sim_chan *c)
{
	int *times = &c->set[DMA_SIM_TIMES].value;

	lockdep_assert_held(&c->vc.lock);

	if (!*times)
		return false;
	if (*times > 0)
		--*times;
	c->faults++;
	return true;
}

static unsigned long dma_sim_small_pages(dma_addr_t src, size_t len)
{
	return DIV_ROUND_UP(offset_in_page(src) + len, PAGE_SIZE);
}

/*
 * Return how many pages of an I/O page table the engine walks for the first
 * @len bytes of a piece, not 0. A page is large where one fits in and is
 * aligned on both sides.
 */
static unsigned long dma_sim_pages(const struct dma_sim_piece *p, size_t len)
{
	size_t head = ALIGN(p->src, DMA_SIM_LARGE_PAGE) - p->src;
	unsigned long pages = 0;

	if (!IS_ALIGNED(p->src ^ p->dst, DMA_SIM_LARGE_PAGE) || len <= head)
		return dma_sim_small_pages(p->src, len);
	if (head)
		pages = dma_sim_small_pages(p->src, head);
	len -= head;
	pages += len / DMA_SIM_LARGE_PAGE;
	return pages + DIV_ROUND_UP(len % DMA_SIM_LARGE_PAGE, PAGE_SIZE);
}

/* Return for how many nanoseconds an engine would copy a descriptor */
static u64 dma_sim_busy_ns(struct dma_sim_chan *c, struct dma_sim_desc *d)
{
	unsigned int bandwidth = c->set[DMA_SIM_BANDWIDTH].value;
	unsigned int page_ns = c->set[DMA_SIM_PAGE_NS].value;
	u64 ns = c->set[DMA_SIM_DESCRIPTOR_NS].value;
	const struct dma_sim_piece *p = d->pieces;
	size_t left = d->todo, len;

	if (bandwidth)
		ns += mul_u64_u64_div_u64(d->todo, NSEC_PER_SEC,
					  (u64)bandwidth * SZ_1M);
	for (; page_ns && left; p++, left -= len) {
		len = min(left, p->len);
		ns += (u64)page_ns * dma_sim_pages(p, len);
	}
	return ns;
}

/* Decide what will become of a descriptor, from the knobs as they are now */
static void dma_sim_plan(struct dma_sim_chan *c, struct dma_sim_desc *d)
{
	/* All count it, though no more than one of the first three happens */
	bool read = dma_sim_due(c, DMA_SIM_FAIL_READ);
	bool write = dma_sim_due(c, DMA_SIM_FAIL_WRITE);
	bool cut = dma_sim_due(c, DMA_SIM_SHORT_COPY);
	bool lose = dma_sim_due(c, DMA_SIM_LOSE_CALLBACK);
	bool corrupt = dma_sim_due(c, DMA_SIM_CORRUPT);
	bool stall = dma_sim_due(c, DMA_SIM_STALL);

	d->todo = d->len;
	if (read && dma_sim_fault(c)) {
		d->todo = 0;
		d->vd.tx_result.result = DMA_TRANS_READ_FAILED;
	} else if (write && dma_sim_fault(c)) {
		d->todo = d->len / 2;
		d->vd.tx_result.result = DMA_TRANS_WRITE_FAILED;
	} else if (cut && dma_sim_fault(c)) {
		d->todo = d->len / 2;
	}
	d->lose = lose && dma_sim_fault(c);
	d->corrupt = corrupt && dma_sim_fault(c);
	d->stall = stall && dma_sim_fault(c);
	d->delay_ns = (u64)c->set[DMA_SIM_DELAY_US].value * NSEC_PER_USEC;
	d->busy_ns = dma_sim_busy_ns(c, d);
}

/* ---- from one descriptor to the next ------------------------------------ */

static void dma_sim_complete(struct dma_sim_chan *c, struct virt_dma_desc *vd)
{
	struct dma_sim_desc *d = to_dma_sim_desc(vd);

	list_del(&vd->node);
	if (vd->tx_result.result != DMA_TRANS_NOERROR)
		c->failed[c->nr_failed++ % DMA_SIM_NR_FAILED] = vd->tx.cookie;
	/*
	 * Many an engine does not know how far it got when it cannot read, and
	 * only for lists there is a rule what to say then.
	 */
	if (d->sg || vd->tx_result.result != DMA_TRANS_READ_FAILED)
		vd->tx_result.residue = d->len - d->done;
	c->descriptors++;
	c->bytes += d->done;

	if (d->lose)
		dma_sim_desc_free(vd);
	else
		vchan_cookie_complete(vd);
}

/* Complete what is held back. All at once, so cookies are seen in order. */
static void dma_sim_complete_held(struct dma_sim_chan *c)
{
	struct virt_dma_desc *vd, *tmp;
	dma_cookie_t last;

	lockdep_assert_held(&c->vc.lock);

	if (list_empty(&c->held))
		return;
	last = list_first_entry(&c->held, typeof(*vd), node)->tx.cookie;
	list_for_each_entry_safe(vd, tmp, &c->held, node)
		dma_sim_complete(c, vd);
	c->vc.chan.completed_cookie = last;
	c->nr_held = 0;
}

/**
 * dma_sim_begin - take up the next descriptor
 * @c: the channel, with vc.lock held
 *
 * Return: c->active, or NULL if no descriptor has been issued. If its @stall is
 * set, it must wait until c->stalled is not, or it is terminated.
 */
struct dma_sim_desc *dma_sim_begin(struct dma_sim_chan *c)
{
	struct virt_dma_desc *vd;
	struct dma_sim_desc *d;

	lockdep_assert_held(&c->vc.lock);

	vd = vchan_next_desc(&c->vc);
	if (!vd)
		return NULL;
	list_del(&vd->node);
	d = to_dma_sim_desc(vd);
	dma_sim_plan(c, d);
	c->active = d;
	c->stalled = d->stall;
	if (d->stall)
		dma_sim_complete_held(c);
	return d;
}

/**
 * dma_sim_end - be done with c->active
 * @c: the channel, with vc.lock held
 * @abort: the engine stops, so the descriptor ends with DMA_TRANS_ABORTED
 *
 * Completes the descriptor, unless it is held back to be reordered, or frees it
 * if it has been terminated.
 */
void dma_sim_end(struct dma_sim_chan *c, bool abort)
{
	struct dma_sim_desc *d = c->active;

	lockdep_assert_held(&c->vc.lock);

	c->active = NULL;
	c->stalled = false;
	if (d->terminated) {
		kfree(d);
	} else {
		if (abort)
			d->vd.tx_result.result = DMA_TRANS_ABORTED;
		list_add(&d->vd.node, &c->held);
		c->nr_held++;
	}
	if (!vchan_next_desc(&c->vc) ||
	    c->nr_held >= c->set[DMA_SIM_REORDER].value)
		dma_sim_complete_held(c);
}

/* ---- what dmaengine calls ----------------------------------------------- */

static int dma_sim_alloc_chan_resources(struct dma_chan *chan)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);

	guard(spinlock_irqsave)(&c->vc.lock);
	return c->gone ? -ESHUTDOWN : 0;
}

static dma_cookie_t dma_sim_submit(struct dma_async_tx_descriptor *tx)
{
	struct dma_sim_chan *c = to_dma_sim_chan(tx->chan);
	struct virt_dma_desc *vd = container_of(tx, struct virt_dma_desc, tx);

	guard(spinlock_irqsave)(&c->vc.lock);

	if (!c->gone && !(dma_sim_due(c, DMA_SIM_REFUSE_SUBMIT) &&
			  dma_sim_fault(c))) {
		list_move_tail(&vd->node, &c->vc.desc_submitted);
		return dma_cookie_assign(tx);
	}

	list_del(&vd->node);
	dma_sim_desc_free(vd);
	return c->gone ? -ENODEV : -EIO;
}

/* Room for as many pieces, unless it is refused */
static struct dma_sim_desc *dma_sim_desc_alloc(struct dma_sim_chan *c,
					       unsigned int nr)
{
	struct dma_sim_desc *d;

	scoped_guard(spinlock_irqsave, &c->vc.lock) {
		if (c->gone || (dma_sim_due(c, DMA_SIM_REFUSE_PREP) &&
				dma_sim_fault(c)))
			return NULL;
	}

	d = kzalloc_flex(*d, pieces, nr, GFP_NOWAIT);
	if (d)
		d->nr = nr;
	return d;
}

static struct dma_async_tx_descriptor *
dma_sim_tx_prep(struct dma_sim_chan *c, struct dma_sim_desc *d,
		unsigned long flags)
{
	struct dma_async_tx_descriptor *tx;

	tx = vchan_tx_prep(&c->vc, &d->vd, flags);
	tx->tx_submit = dma_sim_submit;
	return tx;
}

static struct dma_async_tx_descriptor *
dma_sim_prep_memcpy(struct dma_chan *chan, dma_addr_t dst, dma_addr_t src,
		    size_t len, unsigned long flags)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);
	struct dma_sim_desc *d;

	/* A residue has 32 bits */
	if (!len || len > U32_MAX)
		return NULL;

	d = dma_sim_desc_alloc(c, 1);
	if (!d)
		return NULL;
	d->len = len;
	d->pieces[0].dst = dst;
	d->pieces[0].src = src;
	d->pieces[0].len = len;
	return dma_sim_tx_prep(c, d, flags);
}

static struct dma_async_tx_descriptor *
dma_sim_prep_memcpy_sg(struct dma_chan *chan, struct scatterlist *dst_sg,
		       unsigned int dst_nents, struct scatterlist *src_sg,
		       unsigned int src_nents, unsigned long flags)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);
	struct dma_memcpy_sg_iter it;
	struct dma_sim_desc *d;
	unsigned int nr, i;
	u32 len;

	dma_memcpy_sg_begin(&it, dst_sg, dst_nents, src_sg, src_nents,
			    dma_get_max_seg_size(chan->device->dev));
	nr = dma_memcpy_sg_count(&it, &len);
	if (!nr)
		return NULL;

	d = dma_sim_desc_alloc(c, nr);
	if (!d)
		return NULL;
	d->len = len;
	d->sg = true;
	for (i = 0; i < nr; i++)
		d->pieces[i].len = dma_memcpy_sg_next(&it, &d->pieces[i].dst,
						      &d->pieces[i].src);
	return dma_sim_tx_prep(c, d, flags);
}

static void dma_sim_issue_pending(struct dma_chan *chan)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);

	scoped_guard(spinlock_irqsave, &c->vc.lock) {
		if (!vchan_issue_pending(&c->vc))
			return;
	}
	dma_sim_engine_wake(c);
}

static size_t dma_sim_residue(struct dma_sim_chan *c, dma_cookie_t cookie)
{
	struct virt_dma_desc *vd;

	if (c->active && c->active->vd.tx.cookie == cookie)
		return c->active->len - READ_ONCE(c->active->done);
	list_for_each_entry(vd, &c->vc.desc_issued, node)
		if (vd->tx.cookie == cookie)
			return to_dma_sim_desc(vd)->len;
	list_for_each_entry(vd, &c->vc.desc_submitted, node)
		if (vd->tx.cookie == cookie)
			return to_dma_sim_desc(vd)->len;
	return 0;
}

static enum dma_status dma_sim_tx_status(struct dma_chan *chan,
					 dma_cookie_t cookie,
					 struct dma_tx_state *state)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);
	enum dma_status status;
	unsigned int i;

	guard(spinlock_irqsave)(&c->vc.lock);

	status = dma_cookie_status(chan, cookie, state);
	if (status != DMA_COMPLETE) {
		dma_set_residue(state, dma_sim_residue(c, cookie));
		return status;
	}
	for (i = 0; i < DMA_SIM_NR_FAILED; i++)
		if (c->failed[i] == cookie)
			return DMA_ERROR;
	return DMA_COMPLETE;
}

/* Like a reset of the channel: it does not stay stalled either */
static int dma_sim_terminate_all(struct dma_chan *chan)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);
	LIST_HEAD(head);

	scoped_guard(spinlock_irqsave, &c->vc.lock) {
		list_splice_tail_init(&c->vc.desc_submitted, &head);
		list_splice_tail_init(&c->vc.desc_issued, &head);
		list_splice_tail_init(&c->vc.desc_completed, &head);
		list_splice_tail_init(&c->held, &head);
		c->nr_held = 0;
		if (c->active)
			WRITE_ONCE(c->active->terminated, true);
	}
	dma_sim_engine_wake(c);
	vchan_dma_desc_free_list(&c->vc, &head);
	return 0;
}

/* Nothing that was terminated is written to, or called back, after this */
static void dma_sim_synchronize(struct dma_chan *chan)
{
	struct dma_sim_chan *c = to_dma_sim_chan(chan);

	dma_sim_engine_synchronize(c);
	vchan_synchronize(&c->vc);
}

static void dma_sim_free_chan_resources(struct dma_chan *chan)
{
	dma_sim_terminate_all(chan);
	dma_sim_synchronize(chan);
	vchan_free_chan_resources(to_virt_chan(chan));
}

/* ---- debugfs ------------------------------------------------------------ */

static int dma_sim_set(struct dma_sim_setting *s, const char *buf)
{
	struct dma_sim_chan *c = s->c;
	int value, ret;

	ret = kstrtoint(buf, 0, &value);
	if (ret)
		return ret;
	if (value < dma_sim_knobs[s->knob].min ||
	    value > dma_sim_knobs[s->knob].max)
		return -ERANGE;

	scoped_guard(spinlock_irq, &c->vc.lock) {
		s->value = value;
		s->count = 0;
		if (s->knob == DMA_SIM_STALL && !value)
			c->stalled = false;
	}
	dma_sim_engine_wake(c);
	return 0;
}

static ssize_t dma_sim_knob_write(struct file *file, const char __user *ubuf,
				  size_t len, loff_t *ppos)
{
	char buf[32];
	int ret;

	/* What comes in pieces would set something at each of them */
	if (*ppos || len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;
	buf[len] = '\0';
	if (strlen(buf) != len)
		return -EINVAL;

	ret = dma_sim_set(file->private_data, buf);
	if (ret)
		return ret;
	*ppos += len;
	return len;
}

static ssize_t dma_sim_knob_read(struct file *file, char __user *ubuf,
				 size_t len, loff_t *ppos)
{
	struct dma_sim_setting *s = file->private_data;
	char buf[16];
	int n;

	n = scnprintf(buf, sizeof(buf), "%d\n", READ_ONCE(s->value));
	return simple_read_from_buffer(ubuf, len, ppos, buf, n);
}

static const struct file_operations dma_sim_knob_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = dma_sim_knob_read,
	.write = dma_sim_knob_write,
	.llseek = default_llseek,
};

static void dma_sim_debugfs_create(struct dma_sim_chan *c)
{
	unsigned int i;

	c->dir = debugfs_create_dir(dma_chan_name(&c->vc.chan), dma_sim_root);
	for (i = 0; i < DMA_SIM_NR_KNOBS; i++)
		debugfs_create_file(dma_sim_knobs[i].name, 0644, c->dir,
				    &c->set[i], &dma_sim_knob_fops);
	debugfs_create_u64("descriptors", 0444, c->dir, &c->descriptors);
	debugfs_create_u64("bytes", 0444, c->dir, &c->bytes);
	debugfs_create_u64("faults", 0444, c->dir, &c->faults);
}

/* ---- from the beginning to the end of an engine ------------------------- */

/* The engine stops, and what was given to it ends with an error */
static void dma_sim_chan_stop(struct dma_sim_chan *c)
{
	struct virt_dma_desc *vd, *tmp;

	scoped_guard(spinlock_irq, &c->vc.lock)
		c->gone = true;
	dma_sim_engine_stop(c);

	guard(spinlock_irq)(&c->vc.lock);
	dma_sim_complete_held(c);
	vchan_issue_pending(&c->vc);
	list_for_each_entry_safe(vd, tmp, &c->vc.desc_issued, node) {
		vd->tx_result.result = DMA_TRANS_ABORTED;
		dma_sim_complete(c, vd);
	}
}

static int dma_sim_chan_start(struct dma_sim_chan *c)
{
	int ret;

	ret = dma_sim_engine_start(c);
	if (!ret)
		dma_sim_debugfs_create(c);
	return ret;
}

static int dma_sim_chan_init(struct dma_sim *sim, struct dma_sim_chan *c,
			     const struct dma_sim_config *config)
{
	unsigned int i;

	c->vc.desc_free = dma_sim_desc_free;
	vchan_init(&c->vc, &sim->dma);
	INIT_LIST_HEAD(&c->held);
	for (i = 0; i < DMA_SIM_NR_KNOBS; i++) {
		c->set[i].c = c;
		c->set[i].knob = i;
	}
	c->set[DMA_SIM_TIMES].value = -1;
	c->set[DMA_SIM_BANDWIDTH].value = config->bandwidth;
	c->set[DMA_SIM_DESCRIPTOR_NS].value = config->descriptor_ns;
	c->set[DMA_SIM_PAGE_NS].value = config->page_ns;
	return dma_sim_engine_init(c);
}

static void dma_sim_free(struct dma_sim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->nr; i++)
		kfree(sim->chans[i].engine);
	kfree(sim);
}

static void dma_sim_release(struct dma_device *dma)
{
	struct dma_sim *sim = container_of(dma, struct dma_sim, dma);
	unsigned int i;

	for (i = 0; i < sim->nr; i++)
		put_device(&sim->chans[i].vc.chan.dev->device);
	put_device(dma->dev);
	dma_sim_free(sim);
}

static void dma_sim_stop(struct dma_sim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->nr; i++) {
		debugfs_remove(sim->chans[i].dir);
		dma_sim_chan_stop(&sim->chans[i]);
	}
	dma_async_device_unregister(&sim->dma);
}

static int dma_sim_probe(struct platform_device *pdev)
{
	const struct dma_sim_config *config = dev_get_platdata(&pdev->dev);
	struct device *dev = &pdev->dev;
	struct dma_device *dma;
	struct dma_sim *sim;
	unsigned int i;
	int ret;

	/* The CPU must be able to tell what is at a DMA address */
	if (!config || device_iommu_mapped(dev) || get_dma_ops(dev))
		return -ENXIO;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	dma_set_max_seg_size(dev, UINT_MAX);

	sim = kzalloc_flex(*sim, chans, config->channels);
	if (!sim)
		return -ENOMEM;
	sim->nr = config->channels;

	dma = &sim->dma;
	dma->dev = dev;
	INIT_LIST_HEAD(&dma->channels);
	dma_cap_set(DMA_MEMCPY, dma->cap_mask);
	if (!config->public)
		dma_cap_set(DMA_PRIVATE, dma->cap_mask);
	dma->copy_align = DMAENGINE_ALIGN_1_BYTE;
	dma->directions = BIT(DMA_MEM_TO_MEM);
	dma->reports_errors = config->reports_errors;
	dma->residue_granularity = DMA_RESIDUE_GRANULARITY_BURST;
	dma->device_alloc_chan_resources = dma_sim_alloc_chan_resources;
	dma->device_free_chan_resources = dma_sim_free_chan_resources;
	dma->device_prep_dma_memcpy = dma_sim_prep_memcpy;
	if (config->sg) {
		dma_cap_set(DMA_MEMCPY_SG, dma->cap_mask);
		dma->device_prep_dma_memcpy_sg = dma_sim_prep_memcpy_sg;
	}
	dma->device_issue_pending = dma_sim_issue_pending;
	dma->device_tx_status = dma_sim_tx_status;
	dma->device_terminate_all = dma_sim_terminate_all;
	dma->device_synchronize = dma_sim_synchronize;
	dma->device_release = dma_sim_release;
	for (i = 0; i < sim->nr && !ret; i++)
		ret = dma_sim_chan_init(sim, &sim->chans[i], config);
	if (!ret)
		ret = dma_async_device_register(dma);
	if (ret) {
		dma_sim_free(sim);
		return ret;
	}
	/* Clients look at these, and may do so until they are gone */
	get_device(dev);
	for (i = 0; i < sim->nr; i++)
		get_device(&sim->chans[i].vc.chan.dev->device);

	for (i = 0; i < sim->nr; i++) {
		ret = dma_sim_chan_start(&sim->chans[i]);
		if (ret) {
			dma_sim_stop(sim);
			return ret;
		}
	}
	platform_set_drvdata(pdev, sim);
	return 0;
}

static void dma_sim_remove(struct platform_device *pdev)
{
	dma_sim_stop(platform_get_drvdata(pdev));
}

static struct platform_driver dma_sim_driver = {
	.probe = dma_sim_probe,
	.remove = dma_sim_remove,
	.driver = {
		.name = DMA_SIM_NAME,
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};

/* ---- the module --------------------------------------------------------- */

static int dma_sim_nodes[DMA_SIM_MAX_ENGINES] = { NUMA_NO_NODE };
static unsigned int dma_sim_nr_engines = 1;
module_param_array_named(nodes, dma_sim_nodes, int, &dma_sim_nr_engines, 0444);
MODULE_PARM_DESC(nodes,
		 "Create an engine on each of these NUMA nodes, -1 is none (default: -1)");

static unsigned int dma_sim_channels = 4;
module_param_named(channels, dma_sim_channels, uint, 0444);
MODULE_PARM_DESC(channels, "Channels of each engine, 1 to 64 (default: 4)");

static bool dma_sim_public;
module_param_named(public, dma_sim_public, bool, 0444);
MODULE_PARM_DESC(public,
		 "Let dmaengine share the channels between clients (default: N)");

static bool dma_sim_sg;
module_param_named(sg, dma_sim_sg, bool, 0444);
MODULE_PARM_DESC(sg,
		 "Copy scatterlists as well, with one descriptor (default: N)");

static bool dma_sim_reports_errors = true;
module_param_named(reports_errors, dma_sim_reports_errors, bool, 0444);
MODULE_PARM_DESC(reports_errors,
		 "State that failed copies are reported, as some clients require (default: Y)");

static unsigned int dma_sim_bandwidth;
module_param_named(bandwidth, dma_sim_bandwidth, uint, 0444);
MODULE_PARM_DESC(bandwidth,
		 "What a channel copies in a second in MiB, 0: no limit (default: 0)");

static unsigned int dma_sim_descriptor_ns;
module_param_named(descriptor_ns, dma_sim_descriptor_ns, uint, 0444);
MODULE_PARM_DESC(descriptor_ns,
		 "Nanoseconds that each descriptor takes besides (default: 0)");

static unsigned int dma_sim_page_ns;
module_param_named(page_ns, dma_sim_page_ns, uint, 0444);
MODULE_PARM_DESC(page_ns,
		 "Nanoseconds that each page of an I/O page table takes besides (default: 0)");

static struct platform_device *dma_sim_pdevs[DMA_SIM_MAX_ENGINES];

static struct platform_device *
dma_sim_create(int id, int node, const struct dma_sim_config *config)
{
	struct platform_device *pdev;
	int ret;

	pdev = platform_device_alloc(DMA_SIM_NAME, id);
	if (!pdev)
		return ERR_PTR(-ENOMEM);
	set_dev_node(&pdev->dev, node);
	ret = platform_device_add_data(pdev, config, sizeof(*config));
	if (!ret)
		ret = platform_device_add(pdev);
	if (ret) {
		platform_device_put(pdev);
		return ERR_PTR(ret);
	}
	if (!device_is_bound(&pdev->dev)) {
		platform_device_unregister(pdev);
		return ERR_PTR(-ENXIO);
	}
	return pdev;
}

static void dma_sim_destroy_all(void)
{
	unsigned int i;

	for (i = 0; i < DMA_SIM_MAX_ENGINES; i++)
		platform_device_unregister(dma_sim_pdevs[i]);
}

static int dma_sim_create_all(void)
{
	const struct dma_sim_config config = {
		.channels = dma_sim_channels,
		.bandwidth = dma_sim_bandwidth,
		.descriptor_ns = dma_sim_descriptor_ns,
		.page_ns = dma_sim_page_ns,
		.public = dma_sim_public,
		.sg = dma_sim_sg,
		.reports_errors = dma_sim_reports_errors,
	};
	struct platform_device *pdev;
	unsigned int i;

	for (i = 0; i < dma_sim_nr_engines; i++) {
		pdev = dma_sim_create(i, dma_sim_nodes[i], &config);
		if (IS_ERR(pdev)) {
			dma_sim_destroy_all();
			return PTR_ERR(pdev);
		}
		dma_sim_pdevs[i] = pdev;
	}
	return 0;
}

static int dma_sim_check_params(void)
{
	unsigned int i;

	if (!in_range(dma_sim_channels, 1, DMA_SIM_MAX_CHANS))
		return -EINVAL;
	if (dma_sim_bandwidth > dma_sim_knobs[DMA_SIM_BANDWIDTH].max ||
	    dma_sim_descriptor_ns > dma_sim_knobs[DMA_SIM_DESCRIPTOR_NS].max ||
	    dma_sim_page_ns > dma_sim_knobs[DMA_SIM_PAGE_NS].max)
		return -EINVAL;
	for (i = 0; i < dma_sim_nr_engines; i++) {
		int node = dma_sim_nodes[i];

		if (node != NUMA_NO_NODE &&
		    (!in_range(node, 0, MAX_NUMNODES) || !node_online(node)))
			return -EINVAL;
	}
	return 0;
}

static int __init dma_sim_init(void)
{
	int ret;

	ret = dma_sim_check_params();
	if (ret)
		return ret;

	dma_sim_root = debugfs_create_dir(DMA_SIM_NAME, NULL);
	ret = platform_driver_register(&dma_sim_driver);
	if (ret)
		goto err_debugfs;
	ret = dma_sim_create_all();
	if (ret)
		goto err_driver;
	return 0;

err_driver:
	platform_driver_unregister(&dma_sim_driver);
err_debugfs:
	debugfs_remove(dma_sim_root);
	return ret;
}
module_init(dma_sim_init);

static void __exit dma_sim_exit(void)
{
	dma_sim_destroy_all();
	platform_driver_unregister(&dma_sim_driver);
	debugfs_remove(dma_sim_root);
}
module_exit(dma_sim_exit);

MODULE_DESCRIPTION("Simulated DMA engines that copy memory");
MODULE_LICENSE("GPL");

#ifdef CONFIG_DMA_SIM_KUNIT_TEST
#include "tests/dma-sim-kunit.h"
#endif
