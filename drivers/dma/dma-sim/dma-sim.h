/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of dma-sim share: core.c is the interface to dmaengine and
 * debugfs, thread.c the engine that copies.
 */
#ifndef _DMA_SIM_H
#define _DMA_SIM_H

#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/types.h>

#include "../virt-dma.h"

/* How many cookies of failed descriptors device_tx_status() remembers */
#define DMA_SIM_NR_FAILED	16

enum dma_sim_knob {
	/* Faults: every n-th descriptor has one */
	DMA_SIM_FAIL_READ,
	DMA_SIM_FAIL_WRITE,
	DMA_SIM_SHORT_COPY,
	DMA_SIM_REFUSE_PREP,
	DMA_SIM_REFUSE_SUBMIT,
	DMA_SIM_LOSE_CALLBACK,
	DMA_SIM_CORRUPT,
	DMA_SIM_STALL,

	DMA_SIM_TIMES,
	DMA_SIM_REORDER,
	DMA_SIM_DELAY_US,
	DMA_SIM_BANDWIDTH,
	DMA_SIM_DESCRIPTOR_NS,
	DMA_SIM_PAGE_NS,
	DMA_SIM_NR_KNOBS,
};

/* Contiguous on both sides */
struct dma_sim_piece {
	dma_addr_t dst;
	dma_addr_t src;
	size_t len;
};

struct dma_sim_desc {
	struct virt_dma_desc vd;
	size_t len;		/* of all pieces */
	bool sg;

	/* From when the channel takes it up */
	size_t todo;		/* how much of it will be copied */
	size_t done;
	u64 busy_ns;		/* how long the copy occupies the channel */
	u64 delay_ns;		/* how much later it completes */
	bool stall;
	bool lose;
	bool corrupt;
	bool terminated;

	unsigned int nr;
	struct dma_sim_piece pieces[] __counted_by(nr);
};

struct dma_sim_setting {
	struct dma_sim_chan *c;
	enum dma_sim_knob knob;
	int value;
	unsigned int count;	/* descriptors since it was written */
};

struct dentry;
struct dma_sim_engine;

/* vc.lock protects everything except @engine */
struct dma_sim_chan {
	struct virt_dma_chan vc;
	struct dentry *dir;
	struct dma_sim_engine *engine;	/* belongs to the engine */

	struct dma_sim_desc *active;
	struct list_head held;		/* done, to be completed; last first */
	unsigned int nr_held;
	bool stalled;
	bool gone;			/* the driver has been unbound */

	dma_cookie_t failed[DMA_SIM_NR_FAILED];
	unsigned int nr_failed;
	struct dma_sim_setting set[DMA_SIM_NR_KNOBS];
	u64 descriptors;
	u64 bytes;
	u64 faults;
};

/* core.c: one descriptor after the other, with vc.lock held */
struct dma_sim_desc *dma_sim_begin(struct dma_sim_chan *c);
void dma_sim_end(struct dma_sim_chan *c, bool abort);

/* thread.c: the engine */
int dma_sim_engine_init(struct dma_sim_chan *c);
int dma_sim_engine_start(struct dma_sim_chan *c);
void dma_sim_engine_stop(struct dma_sim_chan *c);
void dma_sim_engine_wake(struct dma_sim_chan *c);
void dma_sim_engine_synchronize(struct dma_sim_chan *c);

#endif /* _DMA_SIM_H */
