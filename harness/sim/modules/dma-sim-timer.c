// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: an engine for dma-sim that takes no time of a CPU to copy.
 *
 * Takes the place of drivers/dma/dma-sim/thread.c in the simulated machine. The
 * QEMU plugin copies, and a timer interrupts when an engine would have
 * finished. A channel starts a descriptor when the one before has finished, or
 * when it was issued, however late the CPU takes the interrupts.
 */
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "dma-sim/dma-sim.h"
#include "sim-call.h"

/*
 * Instructions to charge for each completion, so that it costs no less than that
 * of ptdma, which takes some 300 more than the timer
 */
#define COMPLETION_INSNS	500

/* c->vc.lock protects all of it */
struct dma_sim_engine {
	struct dma_sim_chan *c;
	struct hrtimer timer;
	bool armed;			/* the timer will end c->active */
	ktime_t busy_until;
	ktime_t woken;			/* when descriptors were issued last */
};

static void charge(unsigned int insns)
{
	unsigned long n = insns / 2;

	if (n)
		asm volatile("1: dec %0; jnz 1b" : "+r" (n));
}

static void copy(struct dma_sim_desc *d)
{
	unsigned long args[SIM_CALL_ARGS] = {
		sim_now(), (unsigned long)d->pieces, d->nr, d->todo
	};

	if (!d->todo)
		return;
	if (sim_call(SIM_COPY, args))
		d->vd.tx_result.result = DMA_TRANS_READ_FAILED;
	else
		d->done = d->todo;
}

/* Take up the next descriptor, and have the timer tell when it is done */
static void start(struct dma_sim_engine *e, ktime_t at)
{
	struct dma_sim_desc *d = e->c->active;
	ktime_t until;

	/* dma_sim_engine_stop() has cancelled the timer, or will */
	if (e->c->gone)
		return;
	if (!d)
		d = dma_sim_begin(e->c);
	if (!d || e->c->stalled)
		return;
	e->busy_until = ktime_add_ns(max(e->busy_until, at), d->busy_ns);
	until = ktime_add_ns(e->busy_until, d->delay_ns);
	e->armed = true;
	hrtimer_start(&e->timer, until, HRTIMER_MODE_ABS_PINNED_HARD);
}

static enum hrtimer_restart finished(struct hrtimer *timer)
{
	struct dma_sim_engine *e = container_of(timer, typeof(*e), timer);

	guard(spinlock_irqsave)(&e->c->vc.lock);
	/* dma_sim_engine_wake() ended the descriptor, and may have begun another */
	if (!e->armed || hrtimer_is_queued(timer))
		return HRTIMER_NORESTART;
	e->armed = false;
	charge(COMPLETION_INSNS);
	if (!e->c->active->terminated)
		copy(e->c->active);
	dma_sim_end(e->c, false);
	start(e, e->woken);
	return HRTIMER_NORESTART;
}

int dma_sim_engine_init(struct dma_sim_chan *c)
{
	struct dma_sim_engine *e;

	e = kzalloc_obj(*e);
	if (!e)
		return -ENOMEM;
	e->c = c;
	hrtimer_setup(&e->timer, finished, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS_PINNED_HARD);
	c->engine = e;
	return 0;
}

int dma_sim_engine_start(struct dma_sim_chan *c)
{
	return 0;
}

void dma_sim_engine_stop(struct dma_sim_chan *c)
{
	hrtimer_cancel(&c->engine->timer);
	guard(spinlock_irq)(&c->vc.lock);
	if (c->active)
		dma_sim_end(c, true);
}

void dma_sim_engine_wake(struct dma_sim_chan *c)
{
	struct dma_sim_engine *e = c->engine;

	guard(spinlock_irqsave)(&c->vc.lock);
	e->woken = ktime_get();
	if (c->active && c->active->terminated) {
		/* finished() may be waiting for the lock already */
		hrtimer_try_to_cancel(&e->timer);
		e->armed = false;
		e->busy_until = e->woken;
		dma_sim_end(c, false);
	}
	if (!e->armed)
		start(e, e->woken);
}

void dma_sim_engine_synchronize(struct dma_sim_chan *c)
{
	/* dma_sim_engine_wake() has dropped what was terminated */
}
