/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Model of one AMD PTDMA function: a DMA engine with one queue.
 */
#ifndef PTDMA_H
#define PTDMA_H

#include <stdbool.h>
#include <stdint.h>

#include "guest-mem.h"
#include "vfio-user.h"

#define PTDMA_NEVER	UINT64_MAX

/**
 * struct ptdma_options - how the engine behaves
 * @delay_us: from the fetch of a descriptor to its first byte
 * @bandwidth: bytes per microsecond (MB/s), 0 for as fast as it goes
 * @fail_nth: every Nth descriptor fails and copies nothing; 0 for none
 * @fail_from: how many descriptors come before the first that may fail so
 * @fail_code: the error code that it then reports
 * @stall_after: how many descriptors the engine starts before it hangs, once,
 *	with the next one fetched; or PTDMA_NEVER
 * @max_length: bytes that a descriptor may ask for, 0 for no such limit. One that
 *	asks for more fails and copies nothing
 * @error_keeps_run: an error does not clear RUN, so the engine goes on until
 *	software clears RUN
 * @overrun_us: how long the engine goes on after RUN was cleared, by software or
 *	by an error. HALT shows when that is over
 * @early_halt: HALT is the opposite of RUN. Only DMA_STATUS shows that the engine
 *	moves data
 * @idle_dma_status: DMA_STATUS while no data is moved; else bit 0 is inverted
 * @always_ioc: each descriptor raises INT_COMPLETION, whatever it asks for
 * @head_late_us: how long HEAD_LO reads as the descriptor that has just ended
 * @keep_head: software cannot move the head once an error has occurred
 * @verbose: 1: log errors to stderr, 2: log every descriptor
 */
struct ptdma_options {
	uint64_t delay_us;
	uint64_t bandwidth;
	uint64_t fail_nth;
	uint64_t fail_from;
	uint32_t fail_code;
	uint64_t stall_after;
	uint64_t max_length;
	bool error_keeps_run;
	uint64_t overrun_us;
	bool early_halt;
	uint32_t idle_dma_status;
	bool always_ioc;
	uint64_t head_late_us;
	bool keep_head;
	int verbose;
};

struct ptdma_stats {
	uint64_t descriptors;	/* that ended, well or not */
	uint64_t bytes;		/* given to the client to write */
	uint64_t interrupts;	/* signalled to the client */
	uint64_t faults;	/* descriptors that ended with an error */
	uint64_t cut_off;	/* that ran when the client reset, left, or
				 * took bus mastering from the device */
};

struct ptdma;

/* NULL, with errno set, on failure. @mem has to outlive the device. */
struct ptdma *ptdma_create(const struct ptdma_options *opt,
			   struct guest_mem *mem);
void ptdma_destroy(struct ptdma *pt);

/* Describe the device to vfu_serve(). */
void ptdma_vfu_device(struct ptdma *pt, struct vfu_device *vdev);

/* End a hang that has begun. A reset does not, it only drops the descriptor. */
void ptdma_resume(struct ptdma *pt);

void ptdma_get_stats(struct ptdma *pt, struct ptdma_stats *stats);

#endif /* PTDMA_H */
