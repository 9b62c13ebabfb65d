// SPDX-License-Identifier: GPL-2.0
/*
 * DMA core batch migrator: copying a batch
 *
 * dcbm copies batches of folios for page migration with the memory to memory
 * channels of dmaengine. A batch is spread by bytes over the channels that are
 * free; if none is, the CPU copies it. Each channel gets a contiguous share,
 * which is mapped as one scatterlist a side, and cut into descriptors. The core
 * moves other folios meanwhile, and then waits. A folio counts as copied when
 * every byte of it was in a descriptor that completed without an error; the
 * CPU copies all others.
 *
 * An engine that can copy a list of segments gets the whole share as one
 * descriptor, and answers once. If the list fails, its residue tells which
 * folios were copied.
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

#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/average.h>
#include <linux/bitfield.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/math.h>
#include <linux/math64.h>
#include <linux/migrate_copy_offload.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "dcbm.h"

/* Poll if less time is left: to sleep and wake up costs the CPU as much */
#define DCBM_POLL_NS		(10 * NSEC_PER_USEC)
/* If the CPU copies, too, a channel gets no less at a time */
#define DCBM_MIN_PIECE		max(SZ_32K, PAGE_SIZE)
/* What the CPU copies before it looks at the channels again */
#define DCBM_CPU_BYTES		max(SZ_32K, PAGE_SIZE)
/* A test of a channel copies less */
#define DCBM_ROUGH_BYTES	max(SZ_128K, 16 * PAGE_SIZE)
/* Learn how fast a channel is from one share of so many */
#define DCBM_LEARN_EVERY	8
/* For each descriptor: tell us, and nobody looks at it afterwards */
#define DCBM_FLAGS		(DMA_PREP_INTERRUPT | DMA_CTRL_ACK)
/*
 * Wait so long after the deadline: a virtual machine that did not run may not
 * have seen the answers yet.
 */
#define DCBM_GRACE_MS		50

atomic64_t dcbm_migrated;
atomic64_t dcbm_failures;

/* What a share costs the CPU, and how long a channel takes for a KiB */
VISIBLE_IF_KUNIT struct ewma_dcbm_ns dcbm_share_ns;
VISIBLE_IF_KUNIT struct ewma_dcbm_speed dcbm_all_speed;
/*
 * No more than the tests of channels were measured. They copy little, and so
 * take several times as long as the same in a batch.
 */
VISIBLE_IF_KUNIT bool dcbm_is_rough = true;

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

VISIBLE_IF_KUNIT void *dcbm_token(struct dcbm_chan *dc, unsigned int desc)
{
	u64 token = FIELD_PREP(DCBM_TOKEN_CHAN, dc->id) |
		    FIELD_PREP(DCBM_TOKEN_SHARE, dc->share) |
		    FIELD_PREP(DCBM_TOKEN_DESC, desc);

	return (void *)(unsigned long)token;
}

/* Called by the engine's driver, from any context */
VISIBLE_IF_KUNIT void dcbm_callback(void *param,
				    const struct dmaengine_result *result)
{
	u64 token = (unsigned long)param;
	struct dcbm_chan *dc;

	guard(rcu)();
	dc = xa_load(&dcbm_ids, FIELD_GET(DCBM_TOKEN_CHAN, token));
	if (dc)
		dcbm_answer(dc, token, result);
}

void dcbm_unmap(struct dcbm_chan *dc)
{
	if (!dc->mapped)
		return;
	dma_unmap_sgtable(dc->dev, &dc->src, DMA_TO_DEVICE, 0);
	dma_unmap_sgtable(dc->dev, &dc->dst, DMA_FROM_DEVICE, 0);
	dc->mapped = false;
}

/*
 * Give the channel some @share bytes of the batch from @pos on, @left at most,
 * and move @pos behind it. Small folios are not cut in two.
 */
VISIBLE_IF_KUNIT void dcbm_fill(struct dcbm_chan *dc,
				struct migrate_offload_batch *batch,
				struct dcbm_pos *pos, size_t share, size_t left)
{
	unsigned int nr = 0;

	share = min(share, left);
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
		/* The CPU has what follows */
		len = min(len, left - dc->bytes);

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

VISIBLE_IF_KUNIT bool dcbm_map(struct dcbm_chan *dc)
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
VISIBLE_IF_KUNIT void dcbm_submit(struct dcbm_chan *dc,
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
VISIBLE_IF_KUNIT bool dcbm_finish(struct dcbm_chan *dc,
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

VISIBLE_IF_KUNIT void dcbm_count(struct dcbm_chan *dc,
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
VISIBLE_IF_KUNIT unsigned int dcbm_may_take_ms(struct dcbm_chan *dc)
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
VISIBLE_IF_KUNIT size_t dcbm_max_share(struct dcbm_chan *dc)
{
	const unsigned long ns = ewma_dcbm_speed_read(&dc->speed);
	u64 limit = (u64)READ_ONCE(dcbm_timeout_ms) * NSEC_PER_MSEC;

	if (!ns)
		return SIZE_MAX;
	return max(div64_u64(limit, ns * DCBM_PATIENCE) * SZ_1K,
		   DCBM_MIN_SHARE);
}

/* Learn from a share that was copied how fast the channel is */
VISIBLE_IF_KUNIT void dcbm_learn(struct dcbm_chan *dc)
{
	s64 ns = ktime_to_ns(ktime_sub(dc->ended, dc->begun));
	unsigned int i;
	size_t good = 0;

	for (i = 0; i < dc->nr_descs; i++)
		good += dc->descs[i].good;
	if (good && good == dc->bytes && ns > 0) {
		ns = max(div_u64(ns, dc->bytes / SZ_1K), 1);
		ewma_dcbm_speed_add(&dc->speed, ns);
		if (READ_ONCE(dcbm_is_rough) && dc->bytes >= DCBM_ROUGH_BYTES) {
			ewma_dcbm_speed_init(&dcbm_all_speed);
			WRITE_ONCE(dcbm_is_rough, false);
		}
		ewma_dcbm_speed_add(&dcbm_all_speed, ns);
	}
}

void dcbm_forget_speed(void)
{
	ewma_dcbm_ns_init(&dcbm_share_ns);
	ewma_dcbm_speed_init(&dcbm_all_speed);
	WRITE_ONCE(dcbm_is_rough, true);
}

/* One deadline for all channels of a job, however many do not meet it */
static void dcbm_set_deadline(struct dcbm_job *job, unsigned int ms)
{
	job->deadline = jiffies + msecs_to_jiffies(ms) + 1;
}

/*
 * Return how many bytes the channels get in this round. If the CPU is faster
 * than all channels together, they get what they should be able to copy while
 * the CPU is busy with other folios. It then copies from the end of the batch
 * on. So they also get seven eighths of what they should be able to copy
 * meanwhile, and what is left in the next rounds, so that nobody waits long for
 * the last of them. If the CPU is done before them, they get nothing, except
 * one piece in DCBM_LEARN_EVERY batches, which shows whether they are still so
 * slow.
 */
VISIBLE_IF_KUNIT size_t dcbm_part(struct migrate_offload_batch *batch,
				  u64 busy_ns)
{
	struct dcbm_job *job = dcbm_job(batch);
	u64 cpu_ns, chan_ns, part;
	bool learn;

	if (!job->shares)
		return job->left;
	cpu_ns = mul_u64_u64_div_u64(batch->cpu_ns, job->left, batch->bytes);
	if (dcbm_copy_ns(&dcbm_all_speed, DCBM_MIN_PIECE) > busy_ns + cpu_ns) {
		learn = !((job->dcs[0]->share + 1) % DCBM_LEARN_EVERY);
		return learn && !job->given ? DCBM_MIN_PIECE : 0;
	}
	chan_ns = div_u64(dcbm_copy_ns(&dcbm_all_speed, job->left), job->nr);
	if (chan_ns <= busy_ns)
		return job->left;
	part = mul_u64_u64_div_u64(job->left, busy_ns, chan_ns);
	part += mul_u64_u64_div_u64(job->left - part, cpu_ns * 7 / 8,
				    cpu_ns + chan_ns);
	return max(part, DCBM_MIN_PIECE);
}

/* Have all channels begin, each with as much as it can take at once */
VISIBLE_IF_KUNIT void dcbm_begin_round(struct migrate_offload_batch *batch,
				       u64 busy_ns)
{
	struct dcbm_job *job = dcbm_job(batch);
	size_t part = dcbm_part(batch, busy_ns);
	unsigned int i, ms = 0;
	size_t each;
	u64 ns = 0;

	/* None of them is to take longer than the others */
	each = max(round_down(part / job->nr, PAGE_SIZE), DCBM_MIN_PIECE);
	job->begun = ktime_get();
	job->last = !part;

	for (i = 0; i < job->nr; i++) {
		struct dcbm_chan *dc = job->dcs[i];
		size_t share = DIV_ROUND_UP(part, job->nr - i);
		size_t limit = job->left;

		if (job->shares) {
			share = part ? each : 0;
			limit = min(limit, share);
		}
		dcbm_fill(dc, batch, &job->pos, min(share, dcbm_max_share(dc)),
			  limit);
		part -= min(part, dc->bytes);
		job->left -= dc->bytes;
		job->given += dc->bytes;
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
VISIBLE_IF_KUNIT bool dcbm_end_round(struct migrate_offload_batch *batch)
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

		if (dc->learns ||
		    (job->shares && dc->bytes >= DCBM_MIN_SHARE))
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
void dcbm_begin(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);

	job->pos = (struct dcbm_pos) {};
	job->end = (struct dcbm_pos) { .pair = batch->nr };
	job->left = batch->bytes;
	job->given = 0;
	job->limit = jiffies + msecs_to_jiffies(READ_ONCE(dcbm_timeout_ms));
	dcbm_begin_round(batch, batch->busy_ns);
}

static bool dcbm_is_at_work(const struct dcbm_job *job)
{
	unsigned int i;

	for (i = 0; i < job->nr; i++)
		if (dcbm_is_open(job->dcs[i]))
			return true;
	return false;
}

/*
 * Copy pages from the end of the batch on, as long as the channels are at work,
 * or else all that they do not get. No channel has these pages.
 */
VISIBLE_IF_KUNIT void dcbm_copy_tail(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	struct dcbm_pos *end = &job->end;
	size_t len;

	if (!job->shares)
		return;
	while (job->left && (job->last || dcbm_is_at_work(job))) {
		if (!end->offset)
			end->offset = folio_size(batch->pairs[--end->pair].src);
		len = min3(job->left, end->offset, DCBM_CPU_BYTES);
		end->offset -= len;
		job->left -= len;
		migrate_offload_copy_pages(batch, end->pair,
					   end->offset >> PAGE_SHIFT,
					   len >> PAGE_SHIFT);
	}
}

/* Return how long the channels alone would have taken, without the CPU */
static u64 dcbm_alone_ns(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);

	if (!job->given)
		return div_u64(dcbm_copy_ns(&dcbm_all_speed, batch->bytes),
			       job->nr);
	return mul_u64_u64_div_u64(batch->copy_ns, batch->bytes, job->given);
}

/*
 * Wait until the batch is done, or as much of it as time allows: the CPU is to
 * copy the rest. Returns false if an engine got stuck.
 */
bool dcbm_end(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	bool ended;

	for (;;) {
		dcbm_copy_tail(batch);
		ended = dcbm_end_round(batch);
		if (!ended || !job->left || time_after_eq(jiffies, job->limit))
			break;
		dcbm_begin_round(batch, 0);
	}
	batch->shared = job->shares;
	if (job->shares)
		batch->copy_ns = dcbm_alone_ns(batch);
	return ended;
}

unsigned int dcbm_nr_copied(struct migrate_offload_batch *batch)
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
VISIBLE_IF_KUNIT unsigned int dcbm_nr_worth(size_t bytes, u64 busy_ns)
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

/*
 * Return whether so many channels are slower than the CPU, which can help. The
 * measured time of a channel has half of what a share costs in it: the part of
 * submit(). Shares that were larger cost more, so allow for a quarter at most.
 */
static bool dcbm_is_slow(struct migrate_offload_batch *batch, unsigned int nr)
{
	const unsigned int margin = READ_ONCE(dcbm_is_rough) ? 4 : 1;
	u64 submit_ns = nr * ewma_dcbm_ns_read(&dcbm_share_ns) / 2;

	submit_ns = min(submit_ns, batch->cpu_ns / 4);
	return batch->cpu_ns &&
	       dcbm_copy_ns(&dcbm_all_speed, batch->bytes) >
	       margin * nr * (batch->cpu_ns + submit_ns);
}

VISIBLE_IF_KUNIT int dcbm_submit_batch(struct migrate_offload_batch *batch)
{
	struct dcbm_job *job = dcbm_job(batch);
	unsigned int i, max, nr = 0;
	bool slow;

	atomic_inc(&dcbm_batches);
	/* Is the CPU the faster one, whatever it does meanwhile? */
	max = min(dcbm_nr_worth(batch->bytes, 0), READ_ONCE(dcbm_nr_claimed));
	slow = dcbm_is_slow(batch, max);
	if (!slow)
		max = min(dcbm_nr_worth(batch->bytes, batch->busy_ns), max);
	job->nr = dcbm_take(job->dcs, max, batch->src_nid, batch->dst_nid);
	if (!job->nr) {
		atomic_dec(&dcbm_batches);
		atomic64_add(batch->nr, &dcbm_failures);
		return -EBUSY;
	}

	job->shares = (slow || job->nr < max) && dcbm_is_slow(batch, job->nr);
	dcbm_begin(batch);
	for (i = 0; i < job->nr; i++)
		nr += !!job->dcs[i]->bytes;
	/* The interrupt and the way back cost about as much */
	if (nr)
		ewma_dcbm_ns_add(&dcbm_share_ns,
				 2 * div_u64(ktime_get() - job->begun, nr));
	return 0;
}

VISIBLE_IF_KUNIT void dcbm_wait_batch(struct migrate_offload_batch *batch)
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

const struct migrate_offload_ops dcbm_ops = {
	.name = KBUILD_MODNAME,
	.submit = dcbm_submit_batch,
	.wait = dcbm_wait_batch,
};
