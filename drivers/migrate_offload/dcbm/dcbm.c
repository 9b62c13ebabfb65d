// SPDX-License-Identifier: GPL-2.0
/*
 * DMA core batch migrator
 *
 * Copies batches of folios for page migration with the memory to memory
 * channels of dmaengine. A batch is spread by bytes over the channels that are
 * free; if none is, the CPU copies it. Each channel gets a contiguous share,
 * which is mapped as one scatterlist a side, and cut into descriptors. The core
 * moves other folios meanwhile, and then waits. A folio counts as copied when
 * every byte of it was in a descriptor that completed without an error; the
 * CPU copies all others.
 *
 * An engine that can copy a list of segments gets the whole share as one
 * descriptor, and answers once. How far it says that it got tells which folios
 * are good if it fails.
 *
 * An engine that stops answering is the one thing that the CPU cannot make up
 * for at once, since it may still read the sources and write to the
 * destinations that it was given. Their copy is given up ("lost"): dcbm holds a
 * reference to both folios until the engine says that it is done, and the
 * source cannot migrate until then. The channel is out of service meanwhile.
 *
 * dcbm uses engines whose driver states that it reports failed copies, and
 * tests each channel before it trusts the channel with a batch.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/average.h>
#include <linux/bitfield.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/math.h>
#include <linux/math64.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/scatterlist.h>
#include <linux/sched/isolation.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <linux/sysfs.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

/* Channels that can be in service */
#define DCBM_MAX_CHANS		32
/* Segments that a channel is given at once */
#define DCBM_MAX_SEGS		512
/* What a channel must get at least to be worth waking up */
#define DCBM_MIN_SHARE		SZ_64K
/*
 * Without lists, each folio has a descriptor and mostly an interrupt of its
 * own. That costs the CPU more instructions than to copy 4 KiB, and fewer than
 * 16.
 */
#define DCBM_MIN_BYTES		SZ_16K
/* Poll if less time is left: to sleep and wake up costs the CPU as much */
#define DCBM_POLL_NS		(10 * NSEC_PER_USEC)
/* Learn how fast a channel is from one share of so many */
#define DCBM_LEARN_EVERY	8
/* For each descriptor: tell us, and nobody looks at it afterwards */
#define DCBM_FLAGS		(DMA_PREP_INTERRUPT | DMA_CTRL_ACK)
/*
 * Wait so many times as long as a share should take at the measured speed of
 * the channel, and patience_ms more, in case a busy machine delays a thread.
 */
#define DCBM_PATIENCE		16
/*
 * Wait so long after the deadline: a virtual machine that did not run may not
 * have seen the answers yet.
 */
#define DCBM_GRACE_MS		50
/* Folios of one page that a channel copies to be tested */
#define DCBM_TEST_PAIRS		8
/* Stop claiming after this many channels that did not answer their test */
#define DCBM_MAX_SILENT		4
/* Names of drivers in "engines", with commas */
#define DCBM_MAX_ENGINES	128

/*
 * Each descriptor carries a token, by which dcbm_answer() matches its answer:
 * the ID of the channel, the number of the share, and the index of the
 * descriptor in that share. A late or repeated answer matches nothing, and is
 * only counted.
 */
#define DCBM_TOKEN_CHAN		GENMASK_ULL(63, 48)
#define DCBM_TOKEN_SHARE	GENMASK_ULL(47, 12)
#define DCBM_TOKEN_DESC		GENMASK_ULL(11, 0)
static_assert(DCBM_MAX_SEGS <= 1 << 12);

/*
 * Offload bulk migrations. NUMA hint promotion and compaction move few folios
 * at a time while someone waits for them. Failing memory is left to the CPU,
 * which can survive an error when it reads.
 */
#define DCBM_DEFAULT_REASONS						\
	(BIT(MR_MEMORY_HOTPLUG) | BIT(MR_SYSCALL) |			\
	 BIT(MR_MEMPOLICY_MBIND) | BIT(MR_CONTIG_RANGE) |		\
	 BIT(MR_DEMOTION) | BIT(MR_DAMON))

enum dcbm_state {
	DCBM_IDLE,		/* in service, nobody uses it */
	DCBM_BUSY,		/* belongs to a batch, or is tested */
	DCBM_STUCK,		/* descriptors are open, out of service */
	DCBM_RECOVERED,		/* was stuck, has answered since */
	DCBM_FAILED,		/* failed the test after it had been stuck */
	DCBM_RELEASING,		/* about to be given back */
	DCBM_GONE,		/* its driver has unregistered it */
};

static const char * const dcbm_state_names[] = {
	[DCBM_IDLE] = "idle",
	[DCBM_BUSY] = "busy",
	[DCBM_STUCK] = "stuck",
	[DCBM_RECOVERED] = "recovered",
	[DCBM_FAILED] = "failed",
	[DCBM_RELEASING] = "releasing",
	[DCBM_GONE] = "gone",
};

/* A place in a batch */
struct dcbm_pos {
	unsigned int pair;
	size_t offset;
};

/* How long a channel takes for a KiB, in nanoseconds */
DECLARE_EWMA(dcbm_speed, 4, 8)
/* Nanoseconds */
DECLARE_EWMA(dcbm_ns, 4, 8)

/* What it copies begins at @pos, and may go on through many folios */
struct dcbm_desc {
	struct dcbm_pos pos;
	size_t len;
	size_t good;			/* so many bytes, from its begin on */
};

/*
 * A channel, and its share of the batch that it works for. All of the share
 * belongs to the owner of the channel, except @state, @share, @open, @answered,
 * @spurious, @learns, @ended and the @good of descriptors, which the callback
 * uses too, under @lock.
 */
struct dcbm_chan {
	struct list_head node;		/* dcbm_lock */
	struct dma_chan *chan;
	struct device *dev;
	size_t max_seg;
	bool sg;			/* it can copy lists of segments */
	bool no_sg;			/* but shall not, for a test */
	bool shared;			/* with other clients of dmaengine */
	bool leaving;			/* it is being unregistered */
	bool releasing;			/* stuck, and somebody lets go of it */
	bool stopped;			/* terminated, but not released */
	bool pins;			/* the module, until it answers */
	u32 id;				/* in dcbm_ids */
	char name[32];

	spinlock_t lock;		/* what the callback uses too */
	enum dcbm_state state;
	u64 share;			/* number of the share, modulo 2^36 */
	unsigned int open;		/* descriptors with no answer yet */
	unsigned int spurious;		/* answers that came late or twice */
	bool learns;			/* how fast it is, from this share */
	ktime_t ended;			/* when the last answer came */
	DECLARE_BITMAP(answered, DCBM_MAX_SEGS);
	struct completion done;
	struct work_struct recover;

	struct dcbm_pos start;
	struct dcbm_pos resume;		/* what comes before has been copied */
	size_t resume_at;		/* that place, in bytes of the share */
	unsigned int last_pair;
	size_t bytes;
	ktime_t begun;
	struct ewma_dcbm_speed speed;
	bool mapped;
	struct sg_table src;
	struct sg_table dst;

	unsigned int nr_descs;
	unsigned int nr_held;
	struct dcbm_desc descs[DCBM_MAX_SEGS];
	struct migrate_pair held[DCBM_MAX_SEGS];
	struct scatterlist src_sgl[DCBM_MAX_SEGS];
	struct scatterlist dst_sgl[DCBM_MAX_SEGS];
};

/* What a batch keeps from submit() to wait() */
struct dcbm_job {
	struct dcbm_pos pos;		/* first byte that no channel has yet */
	size_t left;			/* bytes from there to the end */
	unsigned long deadline;		/* of the channels that are at work */
	unsigned long limit;		/* no channel begins after that */
	ktime_t begun;			/* this round */
	ktime_t expected;		/* when all should be done */
	unsigned int nr;
	struct dcbm_chan *dcs[DCBM_MAX_CHANS];
};

static_assert(sizeof(struct dcbm_job) <= MIGRATE_OFFLOAD_CB_SIZE);

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
static bool dcbm_remote = true;
static unsigned int dcbm_min_bytes = DCBM_MIN_BYTES;
static bool dcbm_min_bytes_auto = true;
static unsigned int dcbm_min_batch_bytes = SZ_64K;
static unsigned int dcbm_patience_ms = 200;
static unsigned int dcbm_timeout_ms = 2000;
static char dcbm_engines[DCBM_MAX_ENGINES];
/* The system sleeps, or is about to; whether to be on when it wakes up */
static bool dcbm_sleeping;
static bool dcbm_on_wakeup;

static atomic64_t dcbm_migrated;
static atomic64_t dcbm_failures;

/*
 * Claiming channels. The lock of a device may be held whose driver is being
 * unbound, so nothing may wait for such a lock in here, nor for an engine.
 */
static DEFINE_MUTEX(dcbm_claim_mutex);
/* dmaengine_get() has been called */
static bool dcbm_has_shared;

/* What a share costs the CPU, and how long a channel takes for a KiB */
static struct ewma_dcbm_ns dcbm_share_ns;
static struct ewma_dcbm_speed dcbm_all_speed;

/* All channels that are claimed, and those who wait for what becomes of them */
static DEFINE_SPINLOCK(dcbm_lock);
static LIST_HEAD(dcbm_chans);
static LIST_HEAD(dcbm_unfits);
static DECLARE_WAIT_QUEUE_HEAD(dcbm_wait);
/* For callbacks to find a channel, or to see that it no longer exists */
static DEFINE_XARRAY_ALLOC1(dcbm_ids);
static u32 dcbm_next_id;
/* Batches that have channels, or are about to take some */
static atomic_t dcbm_batches;

/*
 * How many bytes are right, from the begin of the descriptor on? An error
 * without a residue comes from an engine that does not know how far it got.
 */
static size_t dcbm_good(size_t len, const struct dmaengine_result *result)
{
	if (result->result != DMA_TRANS_NOERROR && !result->residue)
		return 0;
	return len - min_t(size_t, len, result->residue);
}

/* Count off one answer, with @lock held, and return whether it was the last */
static bool dcbm_was_last(struct dcbm_chan *dc)
{
	if (--dc->open)
		return false;
	dc->ended = ktime_get();
	return true;
}

static void dcbm_answer(struct dcbm_chan *dc, u64 token,
			const struct dmaengine_result *result)
{
	unsigned int i = FIELD_GET(DCBM_TOKEN_DESC, token);
	struct dcbm_desc *desc = &dc->descs[i];

	guard(spinlock_irqsave)(&dc->lock);

	if (FIELD_GET(DCBM_TOKEN_SHARE, token) != dc->share ||
	    __test_and_set_bit(i, dc->answered)) {
		dc->spurious++;
		return;
	}
	desc->good = dcbm_good(desc->len, result);
	if (!dcbm_was_last(dc))
		return;
	if (dc->state == DCBM_STUCK || dc->state == DCBM_GONE)
		schedule_work(&dc->recover);
	else
		complete(&dc->done);
}

static void *dcbm_token(struct dcbm_chan *dc, unsigned int desc)
{
	u64 token = FIELD_PREP(DCBM_TOKEN_CHAN, dc->id) |
		    FIELD_PREP(DCBM_TOKEN_SHARE, dc->share) |
		    FIELD_PREP(DCBM_TOKEN_DESC, desc);

	return (void *)(unsigned long)token;
}

/* Called by the engine's driver, from any context */
static void dcbm_callback(void *param, const struct dmaengine_result *result)
{
	u64 token = (unsigned long)param;
	struct dcbm_chan *dc;

	guard(rcu)();
	dc = xa_load(&dcbm_ids, FIELD_GET(DCBM_TOKEN_CHAN, token));
	if (dc)
		dcbm_answer(dc, token, result);
}

static void dcbm_unmap(struct dcbm_chan *dc)
{
	if (!dc->mapped)
		return;
	dma_unmap_sgtable(dc->dev, &dc->src, DMA_TO_DEVICE, 0);
	dma_unmap_sgtable(dc->dev, &dc->dst, DMA_FROM_DEVICE, 0);
	dc->mapped = false;
}

/* Can callbacks be stopped, without those of others? */
static bool dcbm_can_terminate(struct dcbm_chan *dc)
{
	return dc->chan->device->device_terminate_all && !dc->shared;
}

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
static unsigned int dcbm_take(struct dcbm_chan **dcs, unsigned int max,
			      int src_nid, int dst_nid)
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
static void dcbm_put(struct dcbm_chan **dcs, unsigned int nr)
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

/*
 * Give the channel some @share bytes of the batch from @pos on, and move @pos
 * behind it. Small folios are not cut in two.
 */
static void dcbm_fill(struct dcbm_chan *dc, struct migrate_offload_batch *batch,
		      struct dcbm_pos *pos, size_t share)
{
	unsigned int nr = 0;

	scoped_guard(spinlock_irq, &dc->lock) {
		dc->share = (dc->share + 1) & FIELD_MAX(DCBM_TOKEN_SHARE);
		bitmap_zero(dc->answered, DCBM_MAX_SEGS);
		dc->learns = !ewma_dcbm_speed_read(&dc->speed) ||
			     !(dc->share % DCBM_LEARN_EVERY);
	}
	dc->start = *pos;
	dc->resume = *pos;
	dc->resume_at = 0;
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
static bool dcbm_start_desc(struct dcbm_chan *dc,
			    struct dma_async_tx_descriptor *tx,
			    const struct dcbm_pos *pos, size_t len)
{
	unsigned int i = dc->nr_descs;
	struct dcbm_desc *desc = &dc->descs[i];

	if (!tx)
		return false;

	desc->pos = *pos;
	desc->len = len;
	desc->good = 0;
	tx->callback_result = dcbm_callback;
	tx->callback_param = dcbm_token(dc, i);

	/* An answer may come from the next line on, even if that fails */
	dc->nr_descs++;
	scoped_guard(spinlock_irqsave, &dc->lock)
		dc->open++;
	if (dma_submit_error(dmaengine_submit(tx))) {
		guard(spinlock_irqsave)(&dc->lock);
		if (!__test_and_set_bit(i, dc->answered))
			dc->open--;
		desc->good = 0;
		return false;
	}
	/* Some engines start no more than one descriptor for each of these */
	dma_async_issue_pending(dc->chan);
	return true;
}

static bool dcbm_submit_one(struct dcbm_chan *dc, const struct dcbm_pos *pos,
			    dma_addr_t dst, dma_addr_t src, size_t len)
{
	if (dc->nr_descs == DCBM_MAX_SEGS)
		return false;
	return dcbm_start_desc(dc,
			       dmaengine_prep_dma_memcpy(dc->chan, dst, src,
							 len, DCBM_FLAGS),
			       pos, len);
}

/*
 * All of the share at once. The engine cuts the segments as it needs them, and
 * may refuse what is too long for it, which then goes piece by piece.
 */
static bool dcbm_submit_sg(struct dcbm_chan *dc)
{
	struct dma_async_tx_descriptor *tx;

	/* What it says of how far it got has 32 bits */
	if (!dc->sg || dc->no_sg || dc->src.orig_nents == 1 ||
	    dc->bytes > U32_MAX)
		return false;
	tx = dmaengine_prep_dma_memcpy_sg(dc->chan, dc->dst.sgl, dc->dst.nents,
					  dc->src.sgl, dc->src.nents,
					  DCBM_FLAGS);
	return dcbm_start_desc(dc, tx, &dc->start, dc->bytes);
}

/* The segment that byte @at of a mapped list is in, and where in there */
static struct scatterlist *dcbm_seek(struct scatterlist *sg, size_t at,
				     size_t *done)
{
	while (at >= sg_dma_len(sg)) {
		at -= sg_dma_len(sg);
		sg = sg_next(sg);
	}
	*done = at;
	return sg;
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
	size_t src_done, dst_done, left = dc->bytes - dc->resume_at, len;
	struct dcbm_pos pos = dc->resume;

	/* One for ourselves, or it could be done before all is submitted */
	dc->open = 1;
	reinit_completion(&dc->done);

	src = dcbm_seek(src, dc->resume_at, &src_done);
	dst = dcbm_seek(dst, dc->resume_at, &dst_done);
	/* If there is a descriptor, that has been tried */
	if (!dc->nr_descs && dcbm_submit_sg(dc))
		left = 0;
	while (left) {
		size_t size = folio_size(batch->pairs[pos.pair].src);

		len = min(sg_dma_len(src) - src_done,
			  sg_dma_len(dst) - dst_done);
		len = min3(len, size - pos.offset, dc->max_seg);

		if (!dcbm_submit_one(dc, &pos, sg_dma_address(dst) + dst_done,
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
	if (dcbm_was_last(dc))
		complete(&dc->done);
}

/* Keep what the engine may still access, and the channel away from use */
static void dcbm_give_up(struct dcbm_chan *dc,
			 struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = dc->start.pair; i <= dc->last_pair; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		folio_get(pair->src);
		folio_get(pair->dst);
		dc->held[dc->nr_held++] = *pair;
		migrate_offload_set_lost(batch, i);
	}
	dc->state = DCBM_STUCK;

	/* Without a way to stop callbacks, dcbm_callback() has to stay */
	dc->pins = !dcbm_can_terminate(dc);
	if (dc->pins)
		__module_get(THIS_MODULE);
}

/* Wait until the engine has done its share, or until @deadline */
static bool dcbm_is_done(struct dcbm_chan *dc, unsigned long deadline)
{
	scoped_guard(spinlock_irq, &dc->lock)
		if (!dc->open)
			return true;
	wait_for_completion_timeout(&dc->done,
				    max(0L, (long)(deadline - jiffies)));
	guard(spinlock_irq)(&dc->lock);
	return !dc->open;
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

	if (!dc->mapped)
		return true;

	dcbm_is_done(dc, deadline);
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
	pr_warn("%s (%s) did not answer in time and is out of service: %u of %u descriptors open, %u folios and their destinations kept for it\n",
		dc->name, dev_name(dc->dev), open, dc->nr_descs, held);
	return false;
}

/*
 * An error in a list spoils all that comes after it, and an engine may not even
 * know how far it got. Is there something to be done again, piece by piece,
 * from the first folio on that may not be good? Only those that fail on their
 * own are left to the CPU then.
 */
static bool dcbm_spoilt(struct dcbm_chan *dc,
			struct migrate_offload_batch *batch)
{
	struct dcbm_desc *desc = dc->descs;
	struct dcbm_pos pos = dc->start;
	size_t keep = 0, size;

	if (dc->nr_descs != 1 || desc->good == dc->bytes ||
	    desc->len != dc->bytes || dc->src.orig_nents == 1)
		return false;

	for (;;) {
		size = folio_size(batch->pairs[pos.pair].src) - pos.offset;
		if (keep + size > desc->good)
			break;
		keep += size;
		pos.pair++;
		pos.offset = 0;
	}
	dc->resume = pos;
	dc->resume_at = keep;
	desc->len = keep;
	desc->good = keep;
	return true;
}

/* Go through the folios that a descriptor was to copy, to the last good byte */
static void dcbm_count_desc(struct dcbm_desc *desc,
			    struct migrate_offload_batch *batch)
{
	struct dcbm_pos pos = desc->pos;
	size_t good = desc->good;

	while (good) {
		size_t size = folio_size(batch->pairs[pos.pair].src);
		size_t len = min(good, size - pos.offset);

		migrate_offload_add_copied(batch, pos.pair, len);
		good -= len;
		pos.pair++;
		pos.offset = 0;
	}
}

static void dcbm_count(struct dcbm_chan *dc,
		       struct migrate_offload_batch *batch)
{
	unsigned int i;

	for (i = 0; i < dc->nr_descs; i++)
		dcbm_count_desc(&dc->descs[i], batch);
}

/* How long a channel of that speed should take, in nanoseconds */
static u64 dcbm_copy_ns(struct ewma_dcbm_speed *speed, size_t bytes)
{
	return (u64)ewma_dcbm_speed_read(speed) * (bytes / SZ_1K);
}

/* How long a channel may take for its share, in milliseconds */
static unsigned int dcbm_may_take_ms(struct dcbm_chan *dc)
{
	const unsigned int limit = READ_ONCE(dcbm_timeout_ms);
	u64 ns = dcbm_copy_ns(&dc->speed, dc->bytes);

	/* Nothing is known before the first share */
	if (!ewma_dcbm_speed_read(&dc->speed))
		return limit;
	return min(div_u64(ns * DCBM_PATIENCE, NSEC_PER_MSEC) +
		   READ_ONCE(dcbm_patience_ms), limit);
}

/* How many bytes the channel should be able to copy well within timeout_ms */
static size_t dcbm_max_share(struct dcbm_chan *dc)
{
	const unsigned long ns = ewma_dcbm_speed_read(&dc->speed);
	u64 limit = (u64)READ_ONCE(dcbm_timeout_ms) * NSEC_PER_MSEC;

	if (!ns)
		return SIZE_MAX;
	return max(div64_u64(limit, ns * DCBM_PATIENCE) * SZ_1K,
		   DCBM_MIN_SHARE);
}

/* Learn from a share that was copied how fast the channel is */
static void dcbm_learn(struct dcbm_chan *dc)
{
	s64 ns = ktime_to_ns(ktime_sub(dc->ended, dc->begun));
	unsigned int i;
	size_t good = 0;

	for (i = 0; i < dc->nr_descs; i++)
		good += dc->descs[i].good;
	if (good && good == dc->bytes && ns > 0) {
		ns = max(div_u64(ns, dc->bytes / SZ_1K), 1);
		ewma_dcbm_speed_add(&dc->speed, ns);
		ewma_dcbm_speed_add(&dcbm_all_speed, ns);
	}
}

static void dcbm_forget_speed(void)
{
	ewma_dcbm_ns_init(&dcbm_share_ns);
	ewma_dcbm_speed_init(&dcbm_all_speed);
}

static struct dcbm_job *dcbm_job(struct migrate_offload_batch *batch)
{
	return (struct dcbm_job *)batch->cb;
}

/* One deadline for all channels of a job, however many do not meet it */
static void dcbm_set_deadline(struct dcbm_job *job, unsigned int ms)
{
	job->deadline = jiffies + msecs_to_jiffies(ms) + 1;
}

/* Have all channels begin, each with as much as it can take at once */
static void dcbm_begin_round(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	unsigned int i, ms = 0;
	u64 ns = 0;

	job->begun = ktime_get();

	for (i = 0; i < job->nr; i++) {
		struct dcbm_chan *dc = job->dcs[i];

		dcbm_fill(dc, batch, &job->pos,
			  min(DIV_ROUND_UP(job->left, job->nr - i),
			      dcbm_max_share(dc)));
		job->left -= dc->bytes;
		if (!dc->bytes)
			continue;
		dc->begun = job->begun;
		if (dcbm_map(dc))
			dcbm_submit(dc, batch);
		ms = max(ms, dcbm_may_take_ms(dc));
		ns = max(ns, dcbm_copy_ns(&dc->speed, dc->bytes));
	}
	job->expected = ktime_add_ns(job->begun, ns);
	dcbm_set_deadline(job, ms);
}

static bool dcbm_is_open(const struct dcbm_chan *dc)
{
	return dc && READ_ONCE(dc->open);
}

/*
 * Poll for what is left if that is less than it costs to sleep and wake up, for
 * a little longer than the channels should take.
 */
static void dcbm_poll(struct dcbm_job *job)
{
	const ktime_t until = ktime_add_ns(job->expected, DCBM_POLL_NS);
	ktime_t now = ktime_get();
	unsigned int i = job->nr;

	if (ktime_sub(job->expected, now) > DCBM_POLL_NS)
		return;
	while (ktime_before(now, until)) {
		while (i && !dcbm_is_open(job->dcs[i - 1]))
			i--;
		if (!i)
			return;
		cpu_relax();
		now = ktime_get();
	}
}

/*
 * Wait for all channels. If one misses the deadline, extend it once for all,
 * and return false.
 */
static bool dcbm_await(struct dcbm_job *job)
{
	unsigned int i;

	dcbm_poll(job);
	/* The last channel mostly ends last, so one sleep is enough */
	for (i = job->nr; i--; ) {
		if (job->dcs[i] && job->dcs[i]->mapped &&
		    !dcbm_is_done(job->dcs[i], job->deadline)) {
			dcbm_set_deadline(job, DCBM_GRACE_MS);
			return false;
		}
	}
	return true;
}

/*
 * Wait for the channels, and count what they have copied. Returns false if an
 * engine got stuck: what is left is for the CPU then. Its entry becomes NULL,
 * for the channel may answer and have another owner before the batch ends.
 */
static bool dcbm_end_round(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	DECLARE_BITMAP(done, DCBM_MAX_CHANS) = {};
	ktime_t ended = 0;
	unsigned int i, ms = 0;
	bool all;

	all = dcbm_await(job);
	for (i = 0; i < job->nr; i++) {
		if (all)
			dcbm_unmap(job->dcs[i]);
		if (all || dcbm_finish(job->dcs[i], batch, job->deadline))
			__set_bit(i, done);
		else
			job->dcs[i] = NULL;
	}

	/* And once more for all that has to be done again */
	for_each_set_bit(i, done, job->nr) {
		struct dcbm_chan *dc = job->dcs[i];

		if (dc->learns)
			dcbm_learn(dc);
		if (dc->nr_descs)
			ended = max(ended, dc->ended);
		if (time_after(jiffies, job->limit) || !dcbm_spoilt(dc, batch))
			continue;
		if (dcbm_map(dc))
			dcbm_submit(dc, batch);
		ms = max(ms, dcbm_may_take_ms(dc));
	}
	if (ended > job->begun)
		batch->copy_ns += ktime_to_ns(ended - job->begun);
	dcbm_set_deadline(job, ms);
	dcbm_await(job);
	for_each_set_bit(i, done, job->nr) {
		if (dcbm_finish(job->dcs[i], batch, job->deadline)) {
			dcbm_count(job->dcs[i], batch);
		} else {
			__clear_bit(i, done);
			job->dcs[i] = NULL;
		}
	}
	return bitmap_full(done, job->nr);
}

/* Have the channels of a job begin with all of the batch */
static void dcbm_begin(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);

	job->pos = (struct dcbm_pos) {};
	job->left = batch->bytes;
	job->limit = jiffies + msecs_to_jiffies(READ_ONCE(dcbm_timeout_ms));
	dcbm_begin_round(batch);
}

/*
 * Wait until the batch is done, or as much of it as time allows: the CPU is to
 * copy the rest. Returns false if an engine got stuck.
 */
static bool dcbm_end(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	bool ended;

	while ((ended = dcbm_end_round(batch)) && job->left &&
	       time_before(jiffies, job->limit))
		dcbm_begin_round(batch);
	return ended;
}

static unsigned int dcbm_nr_copied(struct migrate_offload_batch *batch)
{
	unsigned int i, nr = 0;

	for (i = 0; i < batch->nr; i++) {
		struct migrate_pair *pair = &batch->pairs[i];

		nr += atomic_long_read(&pair->copied) == folio_size(pair->src);
	}
	return nr;
}

/*
 * Return how many channels are worth it. Each makes the copy shorter, and costs
 * the CPU a share. While the CPU is busy with other folios, it does not wait,
 * and a shorter copy is of no use.
 */
static unsigned int dcbm_nr_worth(size_t bytes, u64 busy_ns)
{
	const u64 share_ns = ewma_dcbm_ns_read(&dcbm_share_ns);
	const u64 copy_ns = dcbm_copy_ns(&dcbm_all_speed, bytes);
	unsigned int max, nr;

	max = clamp(bytes / DCBM_MIN_SHARE, 1, DCBM_MAX_CHANS);
	for (nr = 1; nr < max; nr++)
		if (copy_ns && copy_ns <= nr * (busy_ns + nr * share_ns))
			break;
	return nr;
}

static int dcbm_submit_batch(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	unsigned int max;

	if (batch->bytes < READ_ONCE(dcbm_min_batch_bytes))
		return -EINVAL;

	atomic_inc(&dcbm_batches);
	max = dcbm_nr_worth(batch->bytes, batch->busy_ns);
	job->nr = dcbm_take(job->dcs, max, batch->src_nid, batch->dst_nid);
	if (!job->nr) {
		atomic_dec(&dcbm_batches);
		atomic64_add(batch->nr, &dcbm_failures);
		return -EBUSY;
	}

	dcbm_begin(batch);
	/* The interrupt and the way back cost about as much */
	ewma_dcbm_ns_add(&dcbm_share_ns, 2 *
			 div_u64(ktime_to_ns(ktime_sub(ktime_get(),
						       job->begun)), job->nr));
	return 0;
}

static void dcbm_wait_batch(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	unsigned int copied;

	dcbm_end(batch);
	dcbm_put(job->dcs, job->nr);
	atomic_dec(&dcbm_batches);

	copied = dcbm_nr_copied(batch);
	atomic64_add(copied, &dcbm_migrated);
	atomic64_add(batch->nr - copied, &dcbm_failures);
}

static const struct migrate_offload_ops dcbm_ops = {
	.name = KBUILD_MODNAME,
	.submit = dcbm_submit_batch,
	.wait = dcbm_wait_batch,
};

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
static const char *dcbm_test_chan(struct dcbm_chan *dc)
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
static bool dcbm_names_have(const char *names, const char *name)
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
static const char *dcbm_chan_unfit(struct dma_chan *chan)
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

static void dcbm_forget_unfit(void)
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

static int dcbm_chan_init(struct dcbm_chan *dc, struct dma_chan *chan)
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

static bool dcbm_has_chan(struct dma_chan *chan)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node)
		if (dc->chan == chan)
			return true;
	return false;
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
static struct dcbm_chan *dcbm_next_release(void)
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
static struct dcbm_chan *dcbm_next_stuck(bool once)
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
static void dcbm_stop_stuck(void)
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
static void dcbm_release_chans(void)
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

/* ---- channels that go ---------------------------------------------------- */

/* Mark @chan as leaving. Returns whether it is ours. */
static bool dcbm_mark_leaving(struct dma_chan *chan)
{
	struct dcbm_chan *dc;

	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dc->chan != chan)
			continue;
		dc->leaving = true;
		return true;
	}
	return false;
}

/*
 * Take @chan from service once nobody uses it. Returns false as long as
 * somebody does, else true, with @found, or NULL if it is no longer ours.
 */
static bool dcbm_take_leaving(struct dma_chan *chan, struct dcbm_chan **found,
			      bool *stuck)
{
	struct dcbm_chan *dc;

	*found = NULL;
	guard(spinlock)(&dcbm_lock);
	list_for_each_entry(dc, &dcbm_chans, node) {
		guard(spinlock_irq)(&dc->lock);
		if (dc->chan != chan)
			continue;
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

static struct notifier_block dcbm_going_nb = {
	.notifier_call = dcbm_chan_goes,
};

/* ---- on and off ---------------------------------------------------------- */

/* What pays, with the channels that there are, unless somebody knows better */
static void dcbm_apply_min_bytes(void)
{
	struct dcbm_chan *dc;
	bool sg = true;

	lockdep_assert_held(&dcbm_mutex);
	if (dcbm_min_bytes_auto) {
		scoped_guard(spinlock, &dcbm_lock)
			list_for_each_entry(dc, &dcbm_chans, node)
				sg &= dc->sg;
		dcbm_min_bytes = sg ? 0 : DCBM_MIN_BYTES;
	}
	migrate_offload_set_min_bytes(&dcbm_ops, dcbm_min_bytes);
}

static bool dcbm_is_of_driver(struct dcbm_chan *dc, const char *name)
{
	return dc->chan &&
	       !strcmp(dev_driver_string(dc->chan->device->dev), name);
}

/* Tell of each name in "engines" that has no channel here, and why */
static void dcbm_check_engines(void)
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
static unsigned int dcbm_claim_chans(void)
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

static int dcbm_start(void)
{
	unsigned int nr;
	int ret;

	/* Those that have recovered by now are as good as new */
	dcbm_release_chans();

	dcbm_forget_unfit();
	dcbm_forget_speed();
	nr = dcbm_claim_chans();
	dcbm_check_engines();
	if (!nr) {
		pr_info("no DMA channel that can copy memory is free\n");
		dcbm_release_chans();
		return -ENODEV;
	}

	ret = migrate_offload_register(&dcbm_ops, dcbm_reasons);
	if (ret) {
		dcbm_release_chans();
		return ret;
	}
	dcbm_apply_min_bytes();
	pr_info("%u channels\n", nr);
	WRITE_ONCE(dcbm_offloading, true);
	return 0;
}

static void dcbm_stop(void)
{
	WRITE_ONCE(dcbm_offloading, false);
	/* Waits for the batches that are being copied */
	migrate_offload_unregister(&dcbm_ops);
	dcbm_release_chans();
}

/*
 * While the system sleeps, engines lose their state, and their drivers seldom
 * bring it back: give all channels back before, and claim and test them after.
 */
static int dcbm_pm_notify(struct notifier_block *nb, unsigned long event,
			  void *unused)
{
	guard(mutex)(&dcbm_mutex);
	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		/* An open /dev/snapshot is a sleep that can hold others */
		if (!dcbm_sleeping)
			dcbm_on_wakeup = dcbm_offloading;
		dcbm_sleeping = true;
		if (dcbm_offloading) {
			dcbm_stop();
			pr_info("off while the system sleeps\n");
		}
		/* The image goes to memory that these may still write to */
		if (event == PM_RESTORE_PREPARE)
			dcbm_stop_stuck();
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		dcbm_sleeping = false;
		if (dcbm_phase == DCBM_LIVE && dcbm_on_wakeup && dcbm_start())
			pr_warn("offloading stays off after sleep; turn it on once there are channels\n");
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block dcbm_pm_nb = {
	.notifier_call = dcbm_pm_notify,
};

/*
 * The next kernel uses the same memory, and does not know what engines still
 * write to. Let batches finish, allow no others, and stop engines that are
 * stuck as far as their drivers can. The driver core then shuts devices down.
 */
static int dcbm_reboot_notify(struct notifier_block *nb, unsigned long event,
			      void *unused)
{
	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase != DCBM_LIVE)
		return NOTIFY_DONE;
	dcbm_phase = DCBM_GOING;
	if (dcbm_offloading) {
		dcbm_stop();
		pr_info("off for a reboot\n");
	}
	dcbm_stop_stuck();
	return NOTIFY_DONE;
}

static struct notifier_block dcbm_reboot_nb = {
	.notifier_call = dcbm_reboot_notify,
};

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

	if (dcbm_sleeping) {
		dcbm_on_wakeup = on;
		return 0;
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

static int dcbm_engines_set(const char *val, const struct kernel_param *kp)
{
	size_t len = strcspn(val, "\n"), i;

	if (len >= sizeof(dcbm_engines) || (val[len] && val[len + 1]))
		return -EINVAL;
	/* Names of at least one character, separated by single commas */
	for (i = 0; i < len; i++)
		if (val[i] == ',' ? !i || val[i - 1] == ',' || i == len - 1 :
				    !isalnum(val[i]) && !strchr("_-.", val[i]))
			return -EINVAL;

	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase == DCBM_LIVE && dcbm_offloading)
		return -EBUSY;
	strscpy(dcbm_engines, val, len + 1);
	return 0;
}

static int dcbm_engines_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%s\n", dcbm_engines);
}

static const struct kernel_param_ops dcbm_engines_ops = {
	.set = dcbm_engines_set,
	.get = dcbm_engines_get,
};
module_param_cb(engines, &dcbm_engines_ops, NULL, 0644);
MODULE_PARM_DESC(engines,
		 "Drivers whose engines to use, with commas, to be set while offloading is off (default: all that report failed copies)");

static int dcbm_reason_mask_set(const char *val, const struct kernel_param *kp)
{
	unsigned long reasons;
	int ret;

	ret = migrate_offload_parse_reasons(val, &reasons);
	if (ret)
		return ret;

	guard(mutex)(&dcbm_mutex);
	WRITE_ONCE(dcbm_reasons, reasons);
	migrate_offload_set_reasons(&dcbm_ops, reasons);
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

static int dcbm_bytes_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, SZ_1G);
}

static int dcbm_min_bytes_set(const char *val, const struct kernel_param *kp)
{
	int ret;

	guard(mutex)(&dcbm_mutex);
	if (sysfs_streq(val, "auto")) {
		dcbm_min_bytes_auto = true;
	} else {
		ret = dcbm_bytes_set(val, kp);
		if (ret)
			return ret;
		dcbm_min_bytes_auto = false;
	}
	if (dcbm_phase == DCBM_LIVE && dcbm_offloading)
		dcbm_apply_min_bytes();
	return 0;
}

static const struct kernel_param_ops dcbm_min_bytes_ops = {
	.set = dcbm_min_bytes_set,
	.get = param_get_uint,
};
module_param_cb(min_bytes, &dcbm_min_bytes_ops, &dcbm_min_bytes, 0644);
MODULE_PARM_DESC(min_bytes,
		 "Folios of fewer bytes are left to the CPU; \"auto\" is 0 if the engines can copy lists, otherwise 16384 (default: auto)");

static const struct kernel_param_ops dcbm_min_batch_bytes_ops = {
	.set = dcbm_bytes_set,
	.get = param_get_uint,
};
module_param_cb(min_batch_bytes, &dcbm_min_batch_bytes_ops,
		&dcbm_min_batch_bytes, 0644);
MODULE_PARM_DESC(min_batch_bytes,
		 "Batches of fewer bytes are left to the CPU (default: 65536)");

module_param_named(remote, dcbm_remote, bool, 0644);
MODULE_PARM_DESC(remote,
		 "Use engines of nodes that memory neither comes from nor goes to (default: Y)");

static int dcbm_patience_ms_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, 60 * MSEC_PER_SEC);
}

static const struct kernel_param_ops dcbm_patience_ms_ops = {
	.set = dcbm_patience_ms_set,
	.get = param_get_uint,
};
module_param_cb(patience_ms, &dcbm_patience_ms_ops, &dcbm_patience_ms, 0644);
MODULE_PARM_DESC(patience_ms,
		 "Milliseconds that an engine gets in addition to 16 times the expected time of its share, 0 to 60000 (default: 200)");

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
		 "Milliseconds that an engine gets at most for its share, 1 to 60000 (default: 2000)");

static int dcbm_counter_set(const char *val, const struct kernel_param *kp)
{
	unsigned int zero;
	int ret;

	ret = kstrtouint(val, 0, &zero);
	if (ret)
		return ret;
	if (zero)
		return -EINVAL;
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
		 "Folios that were copied; 0 resets the count");
module_param_cb(folios_failures, &dcbm_counter_ops, &dcbm_failures, 0644);
MODULE_PARM_DESC(folios_failures,
		 "Folios that should have been copied and were left to the CPU; 0 resets the count");

static int dcbm_channels_get(char *buf, const struct kernel_param *kp)
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
		 "Channels: name, NUMA node, and idle, busy, stuck, recovered, failed, releasing, gone, or unfit and why");

static void dcbm_unregister_notifiers(void)
{
	unregister_reboot_notifier(&dcbm_reboot_nb);
	unregister_pm_notifier(&dcbm_pm_nb);
	dma_unregister_going_notifier(&dcbm_going_nb);
}

static int __init dcbm_init(void)
{
	int ret;

	ret = dma_register_going_notifier(&dcbm_going_nb);
	if (!ret)
		ret = register_pm_notifier(&dcbm_pm_nb);
	if (!ret)
		ret = register_reboot_notifier(&dcbm_reboot_nb);
	if (ret) {
		dcbm_unregister_notifiers();
		return ret;
	}

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

static void __exit dcbm_exit(void)
{
	struct dcbm_chan *dc;

	scoped_guard(mutex, &dcbm_mutex) {
		dcbm_phase = DCBM_GOING;
		dcbm_stop();
	}

	/*
	 * What is left is stuck. Nothing but the engine knows when it is done,
	 * and it can no longer tell us: its folios stay taken.
	 */
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
	/* Late: a channel may be unregistered while others are released */
	dcbm_unregister_notifiers();
	/* The notifier leaves the entry of a channel that it released */
	dcbm_release_chans();

	list_for_each_entry(dc, &dcbm_chans, node)
		pr_warn("%s never answered: %u pairs of folios are lost until reboot\n",
			dc->name, dc->nr_held);
	xa_destroy(&dcbm_ids);
}
module_exit(dcbm_exit);

MODULE_DESCRIPTION("DMA core batch migrator");
MODULE_LICENSE("GPL");

#ifdef CONFIG_MIGRATE_OFFLOAD_DCBM_KUNIT_TEST
#include "tests/dcbm-kunit.h"
#endif
