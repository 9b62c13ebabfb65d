// SPDX-License-Identifier: GPL-2.0
/*
 * DMA core batch migrator: its channels
 *
 * Claim channels, test them, lend them to batches, recover them after a late
 * answer, and release them, also when their driver unregisters them.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/average.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/hash.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/sched/isolation.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "dcbm.h"

/* Folios of one page that a channel copies to be tested */
#define DCBM_TEST_PAIRS		8
/* Stop claiming after this many channels that did not answer their test */
#define DCBM_MAX_SILENT		4

static const char * const dcbm_state_names[] = {
	[DCBM_IDLE] = "idle",
	[DCBM_BUSY] = "busy",
	[DCBM_STUCK] = "stuck",
	[DCBM_RECOVERED] = "recovered",
	[DCBM_FAILED] = "failed",
	[DCBM_RELEASING] = "releasing",
	[DCBM_GONE] = "gone",
};

/*
 * Claiming channels. The lock of a device may be held whose driver is being
 * unbound, so nothing may wait for such a lock in here, nor for an engine.
 */
static DEFINE_MUTEX(dcbm_claim_mutex);
/* dmaengine_get() has been called */
static bool dcbm_has_shared;

/* All channels that are claimed, and those who wait for what becomes of them */
DEFINE_SPINLOCK(dcbm_lock);
LIST_HEAD(dcbm_chans);
static LIST_HEAD(dcbm_unfits);
static DECLARE_WAIT_QUEUE_HEAD(dcbm_wait);
/* For callbacks to find a channel, or to see that it no longer exists */
DEFINE_XARRAY_ALLOC1(dcbm_ids);
static u32 dcbm_next_id;
/* Batches that have channels, or are about to take some */
atomic_t dcbm_batches;

/* How near is an engine to a batch? The lower the better. */
enum dcbm_rank {
	DCBM_NEAR,		/* on the node of its sources or destinations */
	DCBM_NOWHERE,		/* on no node */
	DCBM_FAR,
};

static enum dcbm_rank dcbm_rank(struct dcbm_chan *dc, int src_nid, int dst_nid)
{
	int nid = dev_to_node(dc->dev);

	if (nid == NUMA_NO_NODE)
		return DCBM_NOWHERE;
	return nid == src_nid || nid == dst_nid ? DCBM_NEAR : DCBM_FAR;
}

/*
 * Take up to @max channels that are free, the nearest first, and no more than
 * an equal part of all if other batches have some. Returns how many it got.
 */
unsigned int dcbm_take(struct dcbm_chan **dcs, unsigned int max, int src_nid,
		       int dst_nid)
{
	enum dcbm_rank rank, last = DCBM_FAR;
	unsigned int nr = 0, usable = 0;
	struct dcbm_chan *dc;

	if (!READ_ONCE(dcbm_remote))
		last = DCBM_NOWHERE;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dcbm_rank(dc, src_nid, dst_nid) <= last)
			usable += dc->state == DCBM_BUSY ||
				  dc->state == DCBM_IDLE;
	}
	max = min(max, max(usable / max(atomic_read(&dcbm_batches), 1), 1));

	for (rank = DCBM_NEAR; rank <= last; rank++) {
		list_for_each_entry(dc, &dcbm_chans, node) {
			if (nr == max)
				return nr;
			guard(spinlock_irq)(&dc->lock);
			if (dc->state != DCBM_IDLE || dc->leaving ||
			    dcbm_rank(dc, src_nid, dst_nid) != rank)
				continue;
			dc->state = DCBM_BUSY;
			dcs[nr++] = dc;
		}
	}
	return nr;
}

/* Entries of channels that were given up are NULL */
void dcbm_put(struct dcbm_chan **dcs, unsigned int nr)
{
	unsigned int i;

	scoped_guard(spinlock, &dcbm_lock) {
		for (i = 0; i < nr; i++) {
			if (!dcs[i])
				continue;
			guard(spinlock_irq)(&dcs[i]->lock);
			if (dcs[i]->state == DCBM_BUSY)
				dcs[i]->state = DCBM_IDLE;
		}
	}
	wake_up_all(&dcbm_wait);
}

/* ---- the test of a channel ----------------------------------------------- */

static u64 dcbm_pattern(unsigned int pass, unsigned int pair, unsigned int word)
{
	return hash_64(((u64)pass << 48 | (u64)pair << 32 | word) + 1, 64);
}

/* Both sides differ in each word until it is copied, and nothing is yet */
static void dcbm_test_fill(struct migrate_offload_batch *batch,
			   unsigned int pass)
{
	unsigned int i, k;

	for (i = 0; i < batch->nr; i++) {
		u64 *src = folio_address(batch->pairs[i].src);
		u64 *dst = folio_address(batch->pairs[i].dst);

		atomic_long_set(&batch->pairs[i].copied, 0);
		for (k = 0; k < PAGE_SIZE / sizeof(*src); k++) {
			src[k] = dcbm_pattern(pass, i, k);
			dst[k] = ~src[k];
		}
	}
}

static bool dcbm_test_is_right(struct migrate_offload_batch *batch,
			       unsigned int pass)
{
	unsigned int i, k;

	for (i = 0; i < batch->nr; i++) {
		const u64 *src = folio_address(batch->pairs[i].src);
		const u64 *dst = folio_address(batch->pairs[i].dst);

		for (k = 0; k < PAGE_SIZE / sizeof(*src); k++)
			if (src[k] != dcbm_pattern(pass, i, k) ||
			    dst[k] != src[k])
				return false;
	}
	return true;
}

/* An engine that lies may still write: nobody else gets these folios */
static void dcbm_test_keep(struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		folio_get(batch->pairs[i].src);
		folio_get(batch->pairs[i].dst);
	}
}

/* Copy all of @batch once, and return what was wrong with that, or NULL */
static const char *dcbm_test_pass(struct dcbm_chan *dc,
				  struct migrate_offload_batch *batch,
				  unsigned int pass)
{
	struct dcbm_job *job = dcbm_job(batch);

	job->nr = 1;
	job->dcs[0] = dc;
	dcbm_test_fill(batch, pass);
	dcbm_begin(batch);
	if (!dcbm_end(batch))
		return "it did not answer in a test";
	if (dcbm_nr_copied(batch) != batch->nr)
		return "it failed to copy in a test";
	if (!dcbm_test_is_right(batch, pass)) {
		dcbm_test_keep(batch);
		return "it copied wrong data in a test, without an error";
	}
	guard(spinlock_irq)(&dc->lock);
	if (!dc->spurious)
		return NULL;
	dcbm_test_keep(batch);
	return "it answered twice in a test";
}

static bool dcbm_test_alloc(struct migrate_offload_batch *batch)
{
	struct migrate_pair *pair;

	while (batch->nr < DCBM_TEST_PAIRS) {
		pair = &batch->pairs[batch->nr];
		pair->src = folio_alloc(GFP_KERNEL, 0);
		if (!pair->src)
			return false;
		pair->dst = folio_alloc(GFP_KERNEL, 0);
		if (!pair->dst) {
			folio_put(pair->src);
			return false;
		}
		batch->nr++;
		batch->bytes += PAGE_SIZE;
	}
	return true;
}

/*
 * Have a channel copy a pattern the way it would copy a batch: with descriptors
 * that are submitted while others run, with a list where there are lists, and
 * once more with what the first pass has left behind. Returns why the channel
 * must not be used, or NULL. The channel belongs to the caller. It is stuck
 * afterwards if it did not answer within timeout_ms.
 */
VISIBLE_IF_KUNIT const char *dcbm_test_chan(struct dcbm_chan *dc)
{
	struct migrate_offload_batch *batch;
	const char *why = "there is no memory to test it";
	unsigned int pass;

	batch = kvzalloc_obj(*batch, GFP_KERNEL);
	if (!batch)
		return why;
	batch->src_nid = NUMA_NO_NODE;
	batch->dst_nid = NUMA_NO_NODE;

	if (dcbm_test_alloc(batch)) {
		why = NULL;
		scoped_guard(spinlock_irq, &dc->lock)
			dc->spurious = 0;
		dc->no_sg = true;
		for (pass = 0; pass < 2 && !why; pass++)
			why = dcbm_test_pass(dc, batch, pass);
		dc->no_sg = false;
		if (!why && dc->sg)
			why = dcbm_test_pass(dc, batch, pass);
	}
	while (batch->nr--) {
		folio_put(batch->pairs[batch->nr].src);
		folio_put(batch->pairs[batch->nr].dst);
	}
	kvfree(batch);
	return why;
}

/*
 * Pass a channel from its test on to batches, or out of service. Returns false
 * if it did not answer: it is stuck, or may even have answered since and be
 * somebody else's.
 */
static bool dcbm_test_done(struct dcbm_chan *dc, enum dcbm_state state)
{
	bool ours;

	scoped_guard(spinlock, &dcbm_lock) {
		guard(spinlock_irq)(&dc->lock);
		ours = dc->state == DCBM_BUSY;
		if (ours)
			dc->state = state;
	}
	wake_up_all(&dcbm_wait);
	return ours;
}

/* ---- channels that answer again ------------------------------------------ */

/* Return whether a channel that was stuck is to serve again if it can */
static bool dcbm_take_recovered(struct dcbm_chan *dc)
{
	unsigned int nr = 0;
	struct dcbm_chan *other;
	bool take = false;

	scoped_guard(spinlock, &dcbm_lock) {
		list_for_each_entry(other, &dcbm_chans, node) {
			guard(spinlock_irq)(&other->lock);
			nr += other->state == DCBM_IDLE ||
			      other->state == DCBM_BUSY;
		}
		guard(spinlock_irq)(&dc->lock);
		if (dc->state == DCBM_STUCK) {
			take = READ_ONCE(dcbm_offloading) && !dc->leaving &&
			       nr < dcbm_nr_dma_chan;
			dc->state = take ? DCBM_BUSY : DCBM_RECOVERED;
		}
	}
	wake_up_all(&dcbm_wait);
	return take;
}

/*
 * The engine has finished after all: it neither reads nor writes any more. Let
 * go of what it was given, and have it serve again once it passed the test.
 */
static void dcbm_recover(struct work_struct *work)
{
	struct dcbm_chan *dc = container_of(work, struct dcbm_chan, recover);
	bool pins = dc->pins;
	const char *why;
	bool gone;

	scoped_guard(spinlock_irq, &dc->lock)
		gone = dc->state == DCBM_GONE;
	/* Without a driver, the device no longer has a DMA mapping to undo */
	if (!gone)
		dcbm_unmap(dc);
	while (dc->nr_held) {
		struct migrate_pair *pair = &dc->held[--dc->nr_held];

		folio_put(pair->src);
		folio_put(pair->dst);
	}
	dc->pins = false;

	if (gone) {
		pr_info("%s answers again, and is gone\n", dc->name);
		wake_up_all(&dcbm_wait);
	} else if (!dcbm_take_recovered(dc)) {
		pr_info("%s answers again\n", dc->name);
	} else {
		why = dcbm_test_chan(dc);
		if (why)
			pr_warn("%s answers again, but stays out of service: %s\n",
				dc->name, why);
		else
			pr_info("%s answers again, passed its test and is back in service\n",
				dc->name);
		dcbm_test_done(dc, why ? DCBM_FAILED : DCBM_IDLE);
	}

	/* dcbm_exit() waits for this function to return */
	if (pins)
		module_put(THIS_MODULE);
}

/* ---- claiming channels --------------------------------------------------- */

/* Does @names, which are separated by commas, have @name? Empty has all. */
VISIBLE_IF_KUNIT bool dcbm_names_have(const char *names, const char *name)
{
	size_t len;

	if (!*names)
		return true;
	for (;; names += len + 1) {
		len = strcspn(names, ",");
		if (len == strlen(name) && !strncmp(names, name, len))
			return true;
		if (!names[len])
			return false;
	}
}

/* Why a channel must not be used, or NULL */
VISIBLE_IF_KUNIT const char *dcbm_chan_unfit(struct dma_chan *chan)
{
	struct device *dev = dmaengine_get_dma_device(chan);
	struct dma_device *engine = chan->device;

	if (!dcbm_names_have(dcbm_engines, dev_driver_string(engine->dev)))
		return "its driver is not among \"engines\"";
	if (!engine->reports_errors)
		return "its driver does not report failed copies";
	/* One channel of it that is taken keeps all from peripherals */
	if (dma_has_cap(DMA_SLAVE, engine->cap_mask) ||
	    dma_has_cap(DMA_CYCLIC, engine->cap_mask))
		return "it serves peripherals";
	/* A bounce buffer would be one more copy, by the CPU */
	if (dma_addressing_limited(dev) ||
	    dma_max_mapping_size(dev) != SIZE_MAX)
		return "it needs bounce buffers";
	if (dma_get_max_seg_size(dev) < PAGE_SIZE)
		return "its segments are shorter than a page";
	if (engine->copy_align > PAGE_SHIFT)
		return "it copies nothing as small as a page";
	return NULL;
}

/* A channel that was passed over, for the operator to see why */
struct dcbm_unfit {
	struct list_head node;		/* dcbm_lock */
	int nid;
	const char *why;
	char name[32];
	char driver[32];
};

void dcbm_forget_unfit(void)
{
	struct dcbm_unfit *unfit, *tmp;
	LIST_HEAD(forget);

	scoped_guard(spinlock, &dcbm_lock)
		list_splice_init(&dcbm_unfits, &forget);
	list_for_each_entry_safe(unfit, tmp, &forget, node)
		kfree(unfit);
}

static bool dcbm_is_unfit(struct dma_chan *chan)
{
	struct dcbm_unfit *unfit;

	lockdep_assert_held(&dcbm_claim_mutex);
	list_for_each_entry(unfit, &dcbm_unfits, node)
		if (!strcmp(unfit->name, dma_chan_name(chan)))
			return true;
	return false;
}

/* Returns false without memory; claiming has to end then */
static bool dcbm_note_unfit(struct dma_chan *chan, const char *why)
{
	const char *driver = dev_driver_string(chan->device->dev);
	struct dcbm_unfit *unfit;

	pr_info("%s (%s, %s) is not used: %s\n", dma_chan_name(chan), driver,
		dev_name(chan->device->dev), why);
	unfit = kzalloc_obj(*unfit, GFP_KERNEL);
	if (!unfit)
		return false;
	unfit->nid = dev_to_node(dmaengine_get_dma_device(chan));
	unfit->why = why;
	strscpy(unfit->name, dma_chan_name(chan));
	strscpy(unfit->driver, driver);
	guard(spinlock)(&dcbm_lock);
	list_add_tail(&unfit->node, &dcbm_unfits);
	return true;
}

/* Channels are claimed one by one, so each is looked at again and again */
static bool dcbm_chan_fits(struct dma_chan *chan)
{
	const char *why;

	if (chan->going || chan->device->going || dcbm_is_unfit(chan))
		return false;
	why = dcbm_chan_unfit(chan);
	if (why)
		dcbm_note_unfit(chan, why);
	return !why;
}

/* Taking one channel of a public engine would take all from everybody else */
static bool dcbm_chan_filter(struct dma_chan *chan, void *unused)
{
	return dma_has_cap(DMA_PRIVATE, chan->device->cap_mask) &&
	       dcbm_chan_fits(chan);
}

VISIBLE_IF_KUNIT int dcbm_chan_init(struct dcbm_chan *dc, struct dma_chan *chan)
{
	int ret;

	dc->chan = chan;
	dc->dev = dmaengine_get_dma_device(chan);
	dc->max_seg = min(dma_get_max_seg_size(dc->dev), SZ_1G) & PAGE_MASK;
	dc->sg = dma_has_cap(DMA_MEMCPY_SG, chan->device->cap_mask);
	strscpy(dc->name, dma_chan_name(chan));
	spin_lock_init(&dc->lock);
	init_completion(&dc->done);
	ewma_dcbm_speed_init(&dc->speed);
	INIT_WORK(&dc->recover, dcbm_recover);
	sg_init_table(dc->src_sgl, DCBM_MAX_SEGS);
	sg_init_table(dc->dst_sgl, DCBM_MAX_SEGS);
	dc->src.sgl = dc->src_sgl;
	dc->dst.sgl = dc->dst_sgl;
	/* An ID is not used again before all others have been */
	ret = xa_alloc_cyclic(&dcbm_ids, &dc->id, dc, XA_LIMIT(1, U16_MAX),
			      &dcbm_next_id, GFP_KERNEL);
	return min(ret, 0);
}

/* Return the entry of @chan, or NULL if it is not ours */
static struct dcbm_chan *dcbm_entry(struct dma_chan *chan)
{
	struct dcbm_chan *dc;

	lockdep_assert_held(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node)
		if (dc->chan == chan)
			return dc;
	return NULL;
}

static bool dcbm_has_chan(struct dma_chan *chan)
{
	guard(spinlock)(&dcbm_lock);
	return dcbm_entry(chan);
}

/* The channel that dmaengine would have clients on this CPU share */
static void dcbm_find_chan(void *chan)
{
	*(struct dma_chan **)chan = dma_find_channel(DMA_MEMCPY);
}

/* One more channel that is shared with other clients, of any CPU's */
static struct dma_chan *dcbm_next_shared(void)
{
	struct dma_chan *chan;
	unsigned int cpu;

	for_each_cpu_and(cpu, cpu_online_mask,
			 housekeeping_cpumask(HK_TYPE_DOMAIN)) {
		chan = NULL;
		/* Fails if the CPU has just gone */
		smp_call_function_single(cpu, dcbm_find_chan, &chan, true);
		if (chan && !dcbm_has_chan(chan) && dcbm_chan_fits(chan))
			return chan;
	}
	return NULL;
}

/* Once nothing of it is in use, not even by an engine that is stuck */
static void dcbm_put_shared(void)
{
	struct dcbm_chan *dc;

	lockdep_assert_held(&dcbm_claim_mutex);
	if (!dcbm_has_shared)
		return;
	scoped_guard(spinlock, &dcbm_lock)
		list_for_each_entry(dc, &dcbm_chans, node)
			if (dc->shared && dc->chan)
				return;
	dmaengine_put();
	dcbm_has_shared = false;
}

/*
 * Ask dmaengine for one more channel, best for ourselves, otherwise one that is
 * public, and shared with other clients. It belongs to the caller.
 */
static struct dcbm_chan *dcbm_chan_claim(void)
{
	struct dcbm_chan *dc = kvzalloc_obj(*dc, GFP_KERNEL);
	struct dma_chan *chan;
	dma_cap_mask_t mask;

	if (!dc)
		return NULL;

	guard(mutex)(&dcbm_claim_mutex);
	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	chan = dma_request_channel(mask, dcbm_chan_filter, NULL);
	if (!chan) {
		if (!dcbm_has_shared) {
			dmaengine_get();
			dcbm_has_shared = true;
		}
		chan = dcbm_next_shared();
		dc->shared = true;
	}
	if (!chan || dcbm_chan_init(dc, chan)) {
		if (chan && !dc->shared)
			dma_release_channel(chan);
		kvfree(dc);
		dcbm_put_shared();
		return NULL;
	}
	dc->state = DCBM_BUSY;
	get_device(dc->dev);
	guard(spinlock)(&dcbm_lock);
	list_add_tail(&dc->node, &dcbm_chans);
	return dc;
}

/*
 * Give the channel back to dmaengine. Whatever it was given is done, or was
 * given up. Some drivers wait here for their engine, and without a bound, so
 * hold no lock that dmaengine or a batch needs.
 */
static void dcbm_chan_release(struct dcbm_chan *dc, bool stuck)
{
	if (!dc->shared && stuck && dcbm_can_terminate(dc))
		dmaengine_terminate_sync(dc->chan);
	else if (!dc->shared)
		dmaengine_synchronize(dc->chan);
	/* A callback may still run after it dropped @lock: wait for it */
	synchronize_rcu();
	/* A dcbm_recover() that did not see GONE ends before the driver does */
	if (stuck) {
		guard(spinlock_irq)(&dc->lock);
		dc->state = DCBM_GONE;
	}
	flush_work(&dc->recover);
	if (!dc->shared)
		dma_release_channel(dc->chan);
}

/* Release a channel whose entry stays, with all that its engine still has */
static void dcbm_chan_drop(struct dcbm_chan *dc, bool stuck)
{
	dcbm_chan_release(dc, stuck);
	scoped_guard(spinlock, &dcbm_lock) {
		guard(spinlock_irq)(&dc->lock);
		dc->state = DCBM_GONE;
		dc->chan = NULL;
		dc->releasing = false;
	}
	wake_up_all(&dcbm_wait);
}

static void dcbm_chan_free(struct dcbm_chan *dc)
{
	scoped_guard(spinlock, &dcbm_lock)
		list_del(&dc->node);
	xa_erase(&dcbm_ids, dc->id);
	/* A late callback may just have found it */
	synchronize_rcu();
	flush_work(&dc->recover);
	put_device(dc->dev);
	kvfree(dc);
	wake_up_all(&dcbm_wait);
}

/* Return a channel that nobody uses and that is not stuck, for release */
VISIBLE_IF_KUNIT struct dcbm_chan *dcbm_next_release(void)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dc->releasing)
			continue;
		switch (dc->state) {
		case DCBM_IDLE:
		case DCBM_RECOVERED:
		case DCBM_FAILED:
			dc->state = DCBM_RELEASING;
			return dc;
		case DCBM_GONE:
			/* What an engine that is gone was given stays taken */
			if (dc->nr_held || dc->chan)
				break;
			dc->state = DCBM_RELEASING;
			return dc;
		default:
			break;
		}
	}
	return NULL;
}

static bool dcbm_any_in(enum dcbm_state state)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dc->state == state)
			return true;
	}
	return false;
}

/*
 * Return a channel that is stuck, that can be terminated, and that nobody else
 * lets go of now. With @once, none that has been returned so before.
 */
VISIBLE_IF_KUNIT struct dcbm_chan *dcbm_next_stuck(bool once)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dc->state != DCBM_STUCK || dc->releasing ||
		    !dcbm_can_terminate(dc) || (once && dc->stopped))
			continue;
		dc->stopped |= once;
		dc->releasing = true;
		return dc;
	}
	return NULL;
}

/*
 * Stop engines that are stuck as far as their drivers can, but wait for none:
 * one that hangs must not hold up a reboot or the restore of an image.
 */
void dcbm_stop_stuck(void)
{
	struct dcbm_chan *dc;

	while ((dc = dcbm_next_stuck(true))) {
		dmaengine_terminate_async(dc->chan);
		scoped_guard(spinlock_irq, &dc->lock)
			dc->releasing = false;
		wake_up_all(&dcbm_wait);
	}
}

/* Release all channels, except those of engines that are stuck */
void dcbm_release_chans(void)
{
	struct dcbm_chan *dc;

	/* There are no batches, so a busy channel is being tested */
	wait_event(dcbm_wait, !dcbm_any_in(DCBM_BUSY));
	while ((dc = dcbm_next_release())) {
		if (dc->chan)
			dcbm_chan_release(dc, false);
		dcbm_chan_free(dc);
	}
	guard(mutex)(&dcbm_claim_mutex);
	dcbm_put_shared();
}

/*
 * With offloading off for good, drop all channels. Those that are left are
 * stuck. Nothing but the engine knows when it is done, and it can no longer
 * tell us: its folios stay taken.
 */
void dcbm_drop_stuck(void)
{
	struct dcbm_chan *dc;

	while ((dc = dcbm_next_stuck(false)))
		dcbm_chan_drop(dc, true);
	/*
	 * A batch can have given up one that cannot be terminated, after it was
	 * too late to pin the module. Its callback must find us here.
	 */
	if (dcbm_any_in(DCBM_STUCK))
		pr_warn("waiting for an engine to answer\n");
	wait_event(dcbm_wait, !dcbm_any_in(DCBM_STUCK));
	dcbm_release_chans();
	dcbm_forget_unfit();
}

/* After dcbm_drop_stuck(), once no notifier releases a channel any more */
void dcbm_drop_rest(void)
{
	struct dcbm_chan *dc;

	/* The notifier leaves the entry of a channel that it released */
	dcbm_release_chans();

	list_for_each_entry(dc, &dcbm_chans, node)
		pr_warn("%s never answered: %u pairs of folios are lost until reboot\n",
			dc->name, dc->nr_held);
	xa_destroy(&dcbm_ids);
}

/* ---- all channels -------------------------------------------------------- */

/* Can all channels copy lists of segments? */
bool dcbm_all_sg(void)
{
	struct dcbm_chan *dc;
	bool sg = true;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node)
		sg &= dc->sg;
	return sg;
}

static bool dcbm_is_of_driver(struct dcbm_chan *dc, const char *name)
{
	return dc->chan &&
	       !strcmp(dev_driver_string(dc->chan->device->dev), name);
}

/* Tell of each name in "engines" that has no channel here, and why */
void dcbm_check_engines(void)
{
	const char *names = dcbm_engines, *why;
	struct dcbm_unfit *unfit;
	struct dcbm_chan *dc;
	char name[32];
	size_t len;

	for (; *names; names += len + !!names[len]) {
		len = strcspn(names, ",");
		strscpy(name, names, min(len + 1, sizeof(name)));
		why = "no driver of that name has a free channel that copies memory";
		scoped_guard(spinlock, &dcbm_lock) {
			list_for_each_entry(unfit, &dcbm_unfits, node)
				if (!strcmp(unfit->driver, name))
					why = unfit->why;
			list_for_each_entry(dc, &dcbm_chans, node)
				if (dcbm_is_of_driver(dc, name))
					why = NULL;
		}
		if (why)
			pr_warn("engines: %s is not used: %s\n", name, why);
	}
}

/*
 * Claim up to nr_dma_chan channels that pass the test, and return how many did.
 * Each that does not answer costs timeout_ms, so a few of them are enough.
 */
unsigned int dcbm_claim_chans(void)
{
	unsigned int nr = 0, silent = 0;
	struct dcbm_chan *dc;
	const char *why;
	bool noted;

	while (nr < dcbm_nr_dma_chan && silent < DCBM_MAX_SILENT &&
	       (dc = dcbm_chan_claim())) {
		why = dcbm_test_chan(dc);
		if (!why) {
			dcbm_test_done(dc, DCBM_IDLE);
			nr++;
			continue;
		}
		if (!dcbm_test_done(dc, DCBM_RELEASING)) {
			silent++;
			continue;
		}
		scoped_guard(mutex, &dcbm_claim_mutex)
			noted = dcbm_note_unfit(dc->chan, why);
		dcbm_chan_release(dc, false);
		dcbm_chan_free(dc);
		if (!noted)
			break;
	}
	return nr;
}

int dcbm_show_channels(char *buf)
{
	struct dcbm_unfit *unfit;
	struct dcbm_chan *dc;
	int len = 0;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		len += sysfs_emit_at(buf, len, "%s %d %s%s\n", dc->name,
				     dev_to_node(dc->dev),
				     dc->shared ? "shared " : "",
				     dcbm_state_names[dc->state]);
	}
	list_for_each_entry(unfit, &dcbm_unfits, node)
		len += sysfs_emit_at(buf, len, "%s %d unfit: %s\n",
				     unfit->name, unfit->nid, unfit->why);
	return len;
}

/* ---- channels that go ---------------------------------------------------- */

/* Mark @chan as leaving. Returns whether it is ours. */
static bool dcbm_mark_leaving(struct dma_chan *chan)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	dc = dcbm_entry(chan);
	if (!dc)
		return false;
	guard(spinlock_irq)(&dc->lock);
	dc->leaving = true;
	return true;
}

/*
 * Take @chan from service once nobody uses it. Returns false as long as
 * somebody does, else true, with @found, or NULL if it is no longer ours.
 */
VISIBLE_IF_KUNIT bool dcbm_take_leaving(struct dma_chan *chan,
					struct dcbm_chan **found, bool *stuck)
{
	struct dcbm_chan *dc;

	*found = NULL;
	guard(spinlock)(&dcbm_lock);
	dc = dcbm_entry(chan);
	if (!dc)
		return true;
	guard(spinlock_irq)(&dc->lock);
	if (dc->state == DCBM_BUSY || dc->state == DCBM_RELEASING ||
	    dc->releasing)
		return false;
	*stuck = dc->state == DCBM_STUCK;
	/* Its callback has to see that it is stuck */
	if (*stuck)
		dc->releasing = true;
	else
		dc->state = DCBM_RELEASING;
	*found = dc;
	return true;
}

/*
 * A channel is about to be unregistered: let go of it before it goes, for many
 * drivers free what their clients still point to. A batch that uses it finishes
 * first, which is bounded. Nobody will ever tell of an engine that is stuck
 * whether it has stopped, so it keeps what it was given.
 */
static int dcbm_chan_goes(struct notifier_block *nb, unsigned long event,
			  void *data)
{
	struct dma_chan *chan = data;
	struct dcbm_chan *dc;
	bool stuck;

	if (event != DMA_CHAN_GOING)
		return NOTIFY_DONE;

	/* A claim that did not see chan->going has ended; others see it */
	scoped_guard(mutex, &dcbm_claim_mutex)
		if (!dcbm_mark_leaving(chan))
			return NOTIFY_DONE;

	wait_event(dcbm_wait, dcbm_take_leaving(chan, &dc, &stuck));
	if (dc) {
		pr_info("%s (%s) is unregistered by its driver, and released\n",
			dc->name, dev_name(dc->dev));
		dcbm_chan_drop(dc, stuck);
	}
	return NOTIFY_DONE;
}

struct notifier_block dcbm_going_nb = {
	.notifier_call = dcbm_chan_goes,
};
