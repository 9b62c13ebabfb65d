// SPDX-License-Identifier: GPL-2.0
/*
 * The engine of dma-sim: each channel is a thread that copies with the CPU
 */
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dmaengine.h>
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/wait.h>

#include "dma-sim.h"

/* A thread that slept too long makes up for at most this much of it */
#define DMA_SIM_MAX_LATE_NS	NSEC_PER_MSEC

struct dma_sim_engine {
	struct task_struct *task;
	wait_queue_head_t wait;		/* the thread waits for work */
	wait_queue_head_t idle;		/* terminators wait for the thread */
	ktime_t busy_until;		/* of the thread alone */
};

static bool dma_sim_has_work(struct dma_sim_chan *c)
{
	guard(spinlock_irq)(&c->vc.lock);
	return vchan_next_desc(&c->vc);
}

static bool dma_sim_interrupted(struct dma_sim_desc *d)
{
	return READ_ONCE(d->terminated) || kthread_should_stop();
}

/*
 * Copy by physical address, as an engine does, in the order of the pieces.
 * Stops early on an address without memory, and sets the result then.
 */
static void dma_sim_copy(struct dma_sim_chan *c, struct dma_sim_desc *d)
{
	struct device *dev = c->vc.chan.device->dev;
	const struct dma_sim_piece *p = d->pieces;
	size_t off = 0;

	while (d->done < d->todo && !dma_sim_interrupted(d)) {
		phys_addr_t src = dma_to_phys(dev, p->src + off);
		phys_addr_t dst = dma_to_phys(dev, p->dst + off);
		size_t len = min3(min(d->todo - d->done, p->len - off),
				  PAGE_SIZE - offset_in_page(src),
				  PAGE_SIZE - offset_in_page(dst));

		if (!pfn_valid(PHYS_PFN(src))) {
			d->vd.tx_result.result = DMA_TRANS_READ_FAILED;
			return;
		}
		if (!pfn_valid(PHYS_PFN(dst))) {
			d->vd.tx_result.result = DMA_TRANS_WRITE_FAILED;
			return;
		}
		memcpy(phys_to_virt(dst), phys_to_virt(src), len);
		if (d->corrupt && !d->done)
			*(u8 *)phys_to_virt(dst) ^= 1;
		WRITE_ONCE(d->done, d->done + len);
		off += len;
		if (off == p->len) {
			p++;
			off = 0;
		}
		cond_resched();
	}
}

/* Sleep until an engine would have finished @d */
static void dma_sim_pace(struct dma_sim_engine *e, struct dma_sim_desc *d)
{
	ktime_t now = ktime_get(), until;

	e->busy_until = ktime_add_ns(e->busy_until, d->busy_ns);
	e->busy_until = max(e->busy_until,
			    ktime_sub_ns(now, DMA_SIM_MAX_LATE_NS));
	until = ktime_add_ns(max(e->busy_until, now), d->delay_ns);
	e->busy_until = ktime_add_ns(e->busy_until, d->delay_ns);

	if (ktime_after(until, now))
		wait_event_interruptible_hrtimeout(e->wait,
						   dma_sim_interrupted(d),
						   ktime_sub(until, now));
	/* A descriptor that was cut short does not delay the next one */
	if (dma_sim_interrupted(d))
		e->busy_until = ktime_get();
}

static int dma_sim_thread(void *data)
{
	struct dma_sim_chan *c = data;
	struct dma_sim_engine *e = c->engine;
	struct dma_sim_desc *d;

	/* Delays are microseconds, so timers need a slack as short */
	current->timer_slack_ns = NSEC_PER_USEC;
	e->busy_until = ktime_get();

	while (!kthread_should_stop()) {
		scoped_guard(spinlock_irq, &c->vc.lock)
			d = dma_sim_begin(c);
		if (!d) {
			wait_event_idle(e->wait, dma_sim_has_work(c) ||
					kthread_should_stop());
			e->busy_until = ktime_get();
			continue;
		}
		if (d->stall) {
			wait_event_idle(e->wait, !READ_ONCE(c->stalled) ||
					dma_sim_interrupted(d));
			e->busy_until = ktime_get();
		}
		dma_sim_copy(c, d);
		dma_sim_pace(e, d);
		scoped_guard(spinlock_irq, &c->vc.lock)
			dma_sim_end(c, kthread_should_stop());
		wake_up_all(&e->idle);
	}
	return 0;
}

/**
 * dma_sim_engine_init - allocate the engine of a channel
 * @c: the channel; kfree() its @engine after the last client has gone
 *
 * Return: 0 or -ENOMEM. May sleep.
 */
int dma_sim_engine_init(struct dma_sim_chan *c)
{
	struct dma_sim_engine *e;

	e = kzalloc_obj(*e);
	if (!e)
		return -ENOMEM;
	init_waitqueue_head(&e->wait);
	init_waitqueue_head(&e->idle);
	c->engine = e;
	return 0;
}

/**
 * dma_sim_engine_start - let a channel begin to copy
 * @c: the channel, registered with dmaengine
 *
 * Return: 0 or -errno. May sleep.
 */
int dma_sim_engine_start(struct dma_sim_chan *c)
{
	struct dma_sim_engine *e = c->engine;

	e->task = kthread_create_on_node(dma_sim_thread, c,
					 dev_to_node(c->vc.chan.device->dev),
					 "%s", dma_chan_name(&c->vc.chan));
	if (IS_ERR(e->task))
		return PTR_ERR(e->task);
	wake_up_process(e->task);
	return 0;
}

/**
 * dma_sim_engine_stop - end the engine of a channel, and what it copies
 * @c: the channel, which need not have been started
 *
 * The active descriptor ends with DMA_TRANS_ABORTED. May sleep.
 */
void dma_sim_engine_stop(struct dma_sim_chan *c)
{
	if (!IS_ERR_OR_NULL(c->engine->task))
		kthread_stop(c->engine->task);
}

/**
 * dma_sim_engine_wake - tell the engine that there is something new
 * @c: the channel
 *
 * Descriptors were issued or terminated, or a knob was written. Any context.
 */
void dma_sim_engine_wake(struct dma_sim_chan *c)
{
	wake_up(&c->engine->wait);
}

static bool dma_sim_has_stopped(struct dma_sim_chan *c)
{
	guard(spinlock_irq)(&c->vc.lock);
	return !c->active || !c->active->terminated;
}

/**
 * dma_sim_engine_synchronize - wait for the engine to drop what was terminated
 * @c: the channel
 *
 * Nothing that was terminated is written to after this. May sleep.
 */
void dma_sim_engine_synchronize(struct dma_sim_chan *c)
{
	wait_event(c->engine->idle, dma_sim_has_stopped(c));
}
