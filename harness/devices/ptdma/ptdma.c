// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model of one AMD PTDMA function.
 *
 * Two threads meet here: the one that serves the client, in the vfu_ops at the
 * end, and the engine, which executes descriptors. pt->lock guards everything.
 * The engine drops it only to wait and, with pt->in_dma set, to read one
 * burst and hand it to the client to write; so whoever needs the bus quiet
 * waits for that flag to clear. Nobody waits for the client's answer but the
 * engine, since it is the other thread that takes it.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pci-config.h"
#include "ptdma.h"
#include "ptdma-regs.h"

/* Copied at a time: what a reset or an unmap may have to wait for. */
#define BURST		VFU_MAX_XFER

/* Pacing below this is lost in the scheduler's noise. */
#define PACE_SLACK_NS	100000

#define NSEC_PER_SEC	1000000000ll

enum reg {
	REG_QUEUE_PRIO,
	REG_REQID_CONFIG,
	REG_TIMEOUT,
	REG_VERSION,
	REG_IRQ_MASK,
	REG_CONFIG,
	REG_CLK_GATE_CTL,
	REG_Q_CONTROL,
	REG_Q_TAIL_LO,
	REG_Q_HEAD_LO,
	REG_Q_INT_ENABLE,
	REG_Q_INT_STATUS,
	REG_Q_STATUS,
	REG_Q_Q_INT_STATUS,
	REG_Q_DMA_STATUS,
	REG_Q_DMA_RD_STATUS,
	REG_Q_DMA_WR_STATUS,
	REG_Q_AX_CACHE,
	NR_REGS,
};

struct reg_info {
	uint32_t offset;
	uint32_t writable;		/* bits that a write changes */
	uint32_t reset;
};

static const struct reg_info reg_info[NR_REGS] = {
	[REG_QUEUE_PRIO]	= { PT_QUEUE_PRIO, ~0u, 0 },
	[REG_REQID_CONFIG]	= { PT_REQID_CONFIG, ~0u, 0 },
	[REG_TIMEOUT]		= { PT_TIMEOUT, ~0u, 0 },
	[REG_VERSION]		= {
		PT_VERSION, 0, PT_VERSION_NUMBER(5) | PT_VERSION_QUEUES(1)
	},
	[REG_IRQ_MASK]		= { PT_IRQ_MASK, ~0u, 0 },
	[REG_CONFIG]		= { PT_CONFIG, ~0u, 0 },
	[REG_CLK_GATE_CTL]	= { PT_CLK_GATE_CTL, ~0u, 0 },
	[REG_Q_CONTROL]		= { PT_Q_CONTROL, PT_Q_CONTROL_WRITABLE, 0 },
	[REG_Q_TAIL_LO]		= { PT_Q_TAIL_LO, PT_Q_POINTER_WRITABLE, 0 },
	[REG_Q_HEAD_LO]		= { PT_Q_HEAD_LO, PT_Q_POINTER_WRITABLE, 0 },
	[REG_Q_INT_ENABLE]	= { PT_Q_INT_ENABLE, PT_INT_ALL, 0 },
	[REG_Q_INT_STATUS]	= { PT_Q_INT_STATUS, PT_INT_ALL, 0 },
	[REG_Q_STATUS]		= { PT_Q_STATUS, 0, 0 },
	[REG_Q_Q_INT_STATUS]	= { PT_Q_Q_INT_STATUS, 0, 0 },
	[REG_Q_DMA_STATUS]	= { PT_Q_DMA_STATUS, 0, 0 },
	[REG_Q_DMA_RD_STATUS]	= { PT_Q_DMA_RD_STATUS, 0, 0 },
	[REG_Q_DMA_WR_STATUS]	= { PT_Q_DMA_WR_STATUS, 0, 0 },
	[REG_Q_AX_CACHE]	= { PT_Q_AX_CACHE, ~0u, 0 },
};

/* A descriptor, taken apart. */
struct command {
	uint32_t control;
	uint32_t length;
	uint64_t src;
	uint64_t dst;
	uint32_t error;			/* what is wrong with it, or 0 */
};

struct ptdma {
	struct ptdma_options opt;
	struct guest_mem *mem;
	struct vfu_session *session;	/* NULL: no client */
	pthread_t engine;

	pthread_mutex_t lock;
	pthread_cond_t kick;		/* the engine may have work to do */
	pthread_cond_t calm;		/* it has let go of something */

	struct pci_config config;
	uint32_t reg[NR_REGS];

	bool quit;
	bool busy;			/* a descriptor is being executed */
	bool moving;			/* and its data is on the way */
	bool abort;			/* and has to be dropped */
	bool in_dma;			/* a burst is on the bus */
	uint16_t write_id;		/* of the last write asked for */
	bool write_asked;		/* and not answered yet */
	int write_error;		/* the answer */
	uint8_t burst[BURST];		/* the engine's */

	uint64_t started;		/* descriptors, for the faults below */
	bool stalled;
	int64_t overrun_until;		/* runs until then, without RUN */
	uint32_t head_before;		/* HEAD_LO reads as this */
	int64_t head_late_until;	/* until then */

	int irq_fd;
	bool irq_line;			/* enabled, pending and deliverable */
	bool irq_pending;		/* signalled with no irq_fd there */

	struct ptdma_stats stats;
};

/* Interrupts */

static void signal_irq(struct ptdma *pt)
{
	struct pollfd pfd = { .fd = pt->irq_fd, .events = POLLOUT };
	const uint64_t one = 1;

	if (pt->irq_fd < 0) {
		pt->irq_pending = true;
		return;
	}

	/* The client's descriptor must not make this wait. */
	if (poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLOUT) ||
	    write(pt->irq_fd, &one, sizeof(one)) != sizeof(one)) {
		if (pt->opt.verbose)
			fprintf(stderr, "ptdma: interrupt lost\n");
		return;
	}
	pt->irq_pending = false;
	pt->stats.interrupts++;
}

/*
 * The queue's interrupt is a level, MSI-X has edges: a message goes out when
 * an enabled bit appears where there was none. As a write to memory it needs
 * the bus, too.
 */
static void update_irq(struct ptdma *pt)
{
	bool line = pt->reg[REG_Q_INT_STATUS] & pt->reg[REG_Q_INT_ENABLE] &&
		    pci_config_bus_master(&pt->config);

	if (line && !pt->irq_line)
		signal_irq(pt);
	if (!line)
		pt->irq_pending = false;
	pt->irq_line = line;
}

/* Time */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* Let time pass, unless the descriptor is dropped meanwhile. */
static void wait_until(struct ptdma *pt, int64_t when)
{
	struct timespec ts = {
		.tv_sec = when / NSEC_PER_SEC,
		.tv_nsec = when % NSEC_PER_SEC,
	};

	while (!pt->abort && now_ns() < when)
		pthread_cond_timedwait(&pt->kick, &pt->lock, &ts);
}

/* The engine */

static bool ring_empty(const struct ptdma *pt)
{
	uint64_t mask = PT_RING_BYTES(pt->reg[REG_Q_CONTROL]) - 1;

	return !((pt->reg[REG_Q_HEAD_LO] ^ pt->reg[REG_Q_TAIL_LO]) & mask);
}

static bool running(const struct ptdma *pt)
{
	return pt->reg[REG_Q_CONTROL] & PT_Q_RUN ||
	       (pt->overrun_until && now_ns() < pt->overrun_until);
}

static bool may_start(const struct ptdma *pt)
{
	return running(pt) && !ring_empty(pt) &&
	       pci_config_bus_master(&pt->config);
}

/* RUN is cleared, which has an effect at once or later. */
static void clear_run(struct ptdma *pt)
{
	if (pt->reg[REG_Q_CONTROL] & PT_Q_RUN && pt->opt.overrun_us)
		pt->overrun_until = now_ns() +
				    (int64_t)pt->opt.overrun_us * 1000;
	pt->reg[REG_Q_CONTROL] &= ~PT_Q_RUN;
}

/*
 * Return what HALT shows: nothing is in flight and nothing will be started.
 * With early_halt it only means that RUN is clear.
 */
static bool halted(const struct ptdma *pt)
{
	if (pt->opt.early_halt)
		return !(pt->reg[REG_Q_CONTROL] & PT_Q_RUN);
	return !running(pt) && !pt->busy;
}

static uint32_t next_slot(const struct ptdma *pt, uint32_t slot)
{
	uint64_t mask = PT_RING_BYTES(pt->reg[REG_Q_CONTROL]) - 1;

	return (slot & ~mask) | ((slot + PT_DESC_SIZE) & mask);
}

static uint32_t fault_code(enum guest_mem_fault fault)
{
	switch (fault) {
	case GUEST_MEM_OK:
		return 0;
	case GUEST_MEM_READ_UNMAPPED:
		return PT_ERR_IDMA_DECODE;
	case GUEST_MEM_READ_DENIED:
		return PT_ERR_IDMA_SLAVE;
	case GUEST_MEM_WRITE_UNMAPPED:
		return PT_ERR_ODMA_DECODE;
	case GUEST_MEM_WRITE_DENIED:
		return PT_ERR_ODMA_SLAVE;
	}
	abort();
}

static uint32_t check(const uint32_t *w)
{
	if (PT_DW0_ENGINE(w[0]) != PT_ENGINE_PASSTHRU)
		return PT_ERR_ILLEGAL_ENGINE;
	if (PT_DW0_FUNCTION(w[0]))		/* byte swaps, bit masks */
		return PT_ERR_ILLEGAL_FUNCTION;
	if (!w[1])
		return PT_ERR_BUFFER_LENGTH;
	if (PT_ADDR_MEM(w[3]) != PT_MEM_SYSTEM ||
	    PT_ADDR_MEM(w[5]) != PT_MEM_SYSTEM)
		return PT_ERR_MEM_SEL;
	if ((w[3] | w[5]) & PT_ADDR_FIXED)
		return PT_ERR_MEM_ADDR;
	return 0;
}

static void fetch(struct ptdma *pt, uint32_t slot, struct command *cmd)
{
	uint64_t hi = PT_Q_BASE_HI(pt->reg[REG_Q_CONTROL]);
	enum guest_mem_fault fault;
	uint32_t w[PT_DESC_WORDS];
	int i;

	memset(cmd, 0, sizeof(*cmd));
	fault = guest_mem_read(pt->mem, w, hi << 32 | slot, sizeof(w));
	if (fault) {
		cmd->error = fault_code(fault);
		return;
	}

	for (i = 0; i < PT_DESC_WORDS; i++)
		w[i] = le32toh(w[i]);
	cmd->control = w[0];
	cmd->length = w[1];
	cmd->src = (uint64_t)PT_ADDR_HI(w[3]) << 32 | w[2];
	cmd->dst = (uint64_t)PT_ADDR_HI(w[5]) << 32 | w[4];
	cmd->error = check(w);
}

/* What the client said about a write, in the terms of our own table. */
static enum guest_mem_fault write_fault(int error)
{
	switch (error) {
	case 0:
		return GUEST_MEM_OK;
	case ENODEV:
		return GUEST_MEM_WRITE_UNMAPPED;
	default:
		return GUEST_MEM_WRITE_DENIED;
	}
}

/* One burst. Drops the lock. Returns an error code, or 0; 0 also on abort. */
static uint32_t burst(struct ptdma *pt, uint64_t dst, uint64_t src, size_t len)
{
	enum guest_mem_fault fault, refused;
	uint16_t id = ++pt->write_id;
	size_t taken;
	int err = 0;

	pt->in_dma = true;
	pt->write_asked = true;
	pthread_mutex_unlock(&pt->lock);
	fault = guest_mem_take(pt->mem, pt->burst, dst, src, len, &taken);
	if (taken)
		err = vfu_dma_write(pt->session, id, dst, pt->burst, taken);
	pthread_mutex_lock(&pt->lock);
	pt->in_dma = false;
	pthread_cond_broadcast(&pt->calm);

	if (!taken)
		return fault_code(fault);
	if (err)
		return fault_code(GUEST_MEM_WRITE_DENIED);
	pt->stats.bytes += taken;
	while (pt->write_asked && !pt->abort)
		pthread_cond_wait(&pt->kick, &pt->lock);
	if (pt->abort)
		return 0;
	if (pt->opt.verbose && pt->write_error)
		fprintf(stderr, "ptdma: the client refuses to write: %s\n",
			strerror(pt->write_error));
	/* What was taken comes before that at which the taking stopped. */
	refused = write_fault(pt->write_error);
	return fault_code(refused ? refused : fault);
}

static uint32_t transfer(struct ptdma *pt, const struct command *cmd)
{
	int64_t start = now_ns();
	uint64_t done = 0;

	while (done < cmd->length) {
		uint64_t len = cmd->length - done;
		uint32_t error;

		while (!pt->abort && !pci_config_bus_master(&pt->config))
			pthread_cond_wait(&pt->kick, &pt->lock);
		if (pt->abort)
			return 0;

		if (len > BURST)
			len = BURST;
		error = burst(pt, cmd->dst + done, cmd->src + done, len);
		/* Refused because it came too late? Once more, then. */
		if (error && !pci_config_bus_master(&pt->config))
			continue;
		if (error)
			return error;
		done += len;

		if (pt->opt.bandwidth) {
			int64_t due = start + done * 1000 / pt->opt.bandwidth;

			if (done == cmd->length ||
			    due - now_ns() > PACE_SLACK_NS)
				wait_until(pt, due);
		}
	}
	return 0;
}

static void complete(struct ptdma *pt, uint32_t slot, uint32_t control,
		     uint32_t error)
{
	pt->stats.descriptors++;
	pt->reg[REG_Q_STATUS] = error & PT_Q_ERROR_MASK;

	/*
	 * Also after an error. The driver sets RUN after each write to the
	 * tail, when the descriptor may have failed already; it would be
	 * executed a second time. If software has moved the head meanwhile,
	 * it knows better.
	 */
	if (pt->reg[REG_Q_HEAD_LO] == slot) {
		pt->reg[REG_Q_HEAD_LO] = next_slot(pt, slot);
		pt->head_before = slot;
		pt->head_late_until = now_ns() +
				      (int64_t)pt->opt.head_late_us * 1000;
	}

	if (error) {
		pt->stats.faults++;
		if (!pt->opt.error_keeps_run)
			clear_run(pt);
		pt->reg[REG_Q_INT_STATUS] |= PT_INT_ERROR;
	} else {
		if (control & PT_DW0_SOC)
			clear_run(pt);
		if (control & PT_DW0_IOC || pt->opt.always_ioc)
			pt->reg[REG_Q_INT_STATUS] |= PT_INT_COMPLETION;
	}
	update_irq(pt);
}

static void execute(struct ptdma *pt)
{
	uint32_t slot = pt->reg[REG_Q_HEAD_LO];
	struct command cmd;

	fetch(pt, slot, &cmd);

	if (pt->started++ == pt->opt.stall_after)
		pt->stalled = true;
	if (!cmd.error && pt->opt.fail_nth &&
	    pt->started > pt->opt.fail_from &&
	    !(pt->started % pt->opt.fail_nth))
		cmd.error = pt->opt.fail_code;
	if (!cmd.error && pt->opt.max_length &&
	    cmd.length > pt->opt.max_length)
		cmd.error = PT_ERR_BUFFER_LENGTH;

	while (pt->stalled && !pt->abort)
		pthread_cond_wait(&pt->kick, &pt->lock);
	if (pt->opt.delay_us)
		wait_until(pt, now_ns() + (int64_t)pt->opt.delay_us * 1000);
	if (!pt->abort && !cmd.error) {
		pt->moving = true;
		cmd.error = transfer(pt, &cmd);
		pt->moving = false;
	}

	/* Also an interrupt, or the lack of RUN, would be seen. */
	while (!pt->abort && !pci_config_bus_master(&pt->config))
		pthread_cond_wait(&pt->kick, &pt->lock);
	if (pt->abort)
		return;

	if (pt->opt.verbose >= 2 || (pt->opt.verbose && cmd.error))
		fprintf(stderr, "ptdma: %#llx to %#llx + %#x: error %u\n",
			(unsigned long long)cmd.src,
			(unsigned long long)cmd.dst, cmd.length, cmd.error);
	complete(pt, slot, cmd.control, cmd.error);
}

static void *engine(void *arg)
{
	struct ptdma *pt = arg;

	pthread_mutex_lock(&pt->lock);
	while (!pt->quit) {
		if (!may_start(pt)) {
			pthread_cond_wait(&pt->kick, &pt->lock);
			continue;
		}
		pt->busy = true;
		pt->abort = false;
		execute(pt);
		pt->busy = false;
		pthread_cond_broadcast(&pt->calm);
	}
	pthread_mutex_unlock(&pt->lock);
	return NULL;
}

/* Drop the descriptor in flight, if any. Nothing of it happens after this. */
static void halt(struct ptdma *pt)
{
	pt->reg[REG_Q_CONTROL] &= ~PT_Q_RUN;
	pt->overrun_until = 0;
	pt->head_late_until = 0;
	pt->abort = true;
	pthread_cond_broadcast(&pt->kick);
	while (pt->busy)
		pthread_cond_wait(&pt->calm, &pt->lock);
}

static void reset_locked(struct ptdma *pt)
{
	size_t i;

	halt(pt);
	pci_config_reset(&pt->config);
	for (i = 0; i < NR_REGS; i++)
		pt->reg[i] = reg_info[i].reset;
	update_irq(pt);
}

/* Registers, by 32-bit word */

static int find_reg(uint32_t offset)
{
	int i;

	for (i = 0; i < NR_REGS; i++) {
		if (reg_info[i].offset == offset)
			return i;
	}
	return -1;
}

static uint32_t read_reg(const struct ptdma *pt, uint32_t offset)
{
	int i = find_reg(offset);

	switch (i) {
	case -1:
		return 0;
	case REG_Q_CONTROL:
		return pt->reg[i] | (halted(pt) ? PT_Q_HALT : 0);
	case REG_Q_HEAD_LO:
		return now_ns() < pt->head_late_until ? pt->head_before :
							pt->reg[i];
	case REG_Q_DMA_STATUS:
		return pt->opt.idle_dma_status ^ pt->moving;
	case REG_Q_Q_INT_STATUS:
		return pt->reg[REG_Q_INT_STATUS];
	default:
		return pt->reg[i];
	}
}

static void write_reg(struct ptdma *pt, uint32_t offset, uint32_t value)
{
	int i = find_reg(offset);

	if (i < 0)
		return;

	if (i == REG_Q_CONTROL) {
		if (value & PT_Q_RUN)
			pt->overrun_until = 0;
		else
			clear_run(pt);
	}
	if (i == REG_Q_HEAD_LO) {
		if (pt->opt.keep_head && pt->stats.faults)
			return;
		pt->head_late_until = 0;
	}

	if (i == REG_Q_INT_STATUS) {
		pt->reg[i] &= ~value;
	} else {
		pt->reg[i] &= ~reg_info[i].writable;
		pt->reg[i] |= value & reg_info[i].writable;
	}
	update_irq(pt);
	pthread_cond_broadcast(&pt->kick);
}

/* Regions; all with the lock held */

static void read_regs(const struct ptdma *pt, uint64_t off, uint8_t *buf,
		      size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		uint32_t value = read_reg(pt, (off + i) & ~3ull);

		buf[i] = value >> 8 * ((off + i) & 3);
	}
}

/* Registers are written whole. */
static int write_regs(struct ptdma *pt, uint64_t off, const uint8_t *buf,
		      size_t len)
{
	size_t i;

	if (off % 4 || len % 4)
		return -EINVAL;
	for (i = 0; i < len; i += 4) {
		uint32_t value;

		memcpy(&value, buf + i, sizeof(value));
		write_reg(pt, off + i, le32toh(value));
	}
	return 0;
}

/* The client keeps the vector table; here are only the pending bits. */
static void read_msix(const struct ptdma *pt, uint64_t off, uint8_t *buf,
		      size_t len)
{
	memset(buf, 0, len);
	if (off <= PT_MSIX_PBA && off + len > PT_MSIX_PBA)
		buf[PT_MSIX_PBA - off] = pt->irq_pending;
}

static int write_config(struct ptdma *pt, uint64_t off, const void *buf,
			size_t len)
{
	bool master = pci_config_bus_master(&pt->config);
	int err = pci_config_write(&pt->config, off, buf, len);

	if (master && !pci_config_bus_master(&pt->config))
		pt->stats.cut_off += pt->busy;
	/* A function that was told to leave the bus has left it. */
	while (!pci_config_bus_master(&pt->config) && pt->in_dma)
		pthread_cond_wait(&pt->calm, &pt->lock);
	update_irq(pt);
	pthread_cond_broadcast(&pt->kick);
	return err;
}

/* What the client asks for */

static int op_region_read(void *dev, unsigned int region, uint64_t off,
			  void *buf, size_t len)
{
	struct ptdma *pt = dev;
	int err = 0;

	pthread_mutex_lock(&pt->lock);
	switch (region) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		err = pci_config_read(&pt->config, off, buf, len);
		break;
	case PT_BAR_REGS:
		read_regs(pt, off, buf, len);
		break;
	case PT_BAR_MSIX:
		read_msix(pt, off, buf, len);
		break;
	default:
		err = -EINVAL;
	}
	pthread_mutex_unlock(&pt->lock);
	return err;
}

static int op_region_write(void *dev, unsigned int region, uint64_t off,
			   const void *buf, size_t len)
{
	struct ptdma *pt = dev;
	int err = 0;

	pthread_mutex_lock(&pt->lock);
	switch (region) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		err = write_config(pt, off, buf, len);
		break;
	case PT_BAR_REGS:
		err = write_regs(pt, off, buf, len);
		break;
	case PT_BAR_MSIX:
		break;
	default:
		err = -EINVAL;
	}
	pthread_mutex_unlock(&pt->lock);
	return err;
}

static void op_irq_eventfd(void *dev, unsigned int vector, int fd)
{
	struct ptdma *pt = dev;

	(void)vector;
	pthread_mutex_lock(&pt->lock);
	if (pt->irq_fd >= 0)
		close(pt->irq_fd);
	pt->irq_fd = fd;
	if (fd >= 0 && pt->irq_pending)
		signal_irq(pt);
	pthread_mutex_unlock(&pt->lock);
}

static void op_irq_trigger(void *dev, unsigned int vector)
{
	struct ptdma *pt = dev;

	(void)vector;
	pthread_mutex_lock(&pt->lock);
	signal_irq(pt);
	pthread_mutex_unlock(&pt->lock);
}

static void op_session(void *dev, struct vfu_session *session)
{
	struct ptdma *pt = dev;

	pthread_mutex_lock(&pt->lock);
	if (!session)
		pt->stats.cut_off += pt->busy;
	pt->session = session;
	pthread_mutex_unlock(&pt->lock);
}

static void op_dma_done(void *dev, uint16_t id, int error)
{
	struct ptdma *pt = dev;

	pthread_mutex_lock(&pt->lock);
	/* Else it is about a descriptor that was dropped meanwhile. */
	if (pt->write_asked && id == pt->write_id) {
		pt->write_asked = false;
		pt->write_error = error;
		pthread_cond_broadcast(&pt->kick);
	}
	pthread_mutex_unlock(&pt->lock);
}

static void op_reset(void *dev)
{
	struct ptdma *pt = dev;

	pthread_mutex_lock(&pt->lock);
	pt->stats.cut_off += pt->busy;
	reset_locked(pt);
	pthread_mutex_unlock(&pt->lock);
}

static const struct vfu_ops ptdma_ops = {
	.session = op_session,
	.region_read = op_region_read,
	.region_write = op_region_write,
	.irq_eventfd = op_irq_eventfd,
	.irq_trigger = op_irq_trigger,
	.dma_done = op_dma_done,
	.reset = op_reset,
};

void ptdma_vfu_device(struct ptdma *pt, struct vfu_device *vdev)
{
	memset(vdev, 0, sizeof(*vdev));
	vdev->ops = &ptdma_ops;
	vdev->dev = pt;
	vdev->mem = pt->mem;
	vdev->region_size[PT_BAR_REGS] = PT_BAR_REGS_SIZE;
	vdev->region_size[PT_BAR_MSIX] = PT_BAR_MSIX_SIZE;
	vdev->region_size[VFIO_PCI_CONFIG_REGION_INDEX] = PCI_CONFIG_SIZE;
	vdev->msix_vectors = PT_MSIX_VECTORS;
	vdev->verbose = pt->opt.verbose;
}

void ptdma_resume(struct ptdma *pt)
{
	pthread_mutex_lock(&pt->lock);
	pt->stalled = false;
	pthread_cond_broadcast(&pt->kick);
	pthread_mutex_unlock(&pt->lock);
}

void ptdma_get_stats(struct ptdma *pt, struct ptdma_stats *stats)
{
	pthread_mutex_lock(&pt->lock);
	*stats = pt->stats;
	pthread_mutex_unlock(&pt->lock);
}

static void config_init(struct pci_config *cfg)
{
	static const struct pci_config_msix msix = {
		.vectors = PT_MSIX_VECTORS,
		.bar = PT_BAR_MSIX,
		.table = PT_MSIX_TABLE,
		.pba = PT_MSIX_PBA,
	};

	pci_config_init(cfg, PT_PCI_VENDOR, PT_PCI_DEVICE, PT_PCI_CLASS);
	pci_config_add_bar(cfg, PT_BAR_REGS, PT_BAR_REGS_SIZE);
	pci_config_add_bar(cfg, PT_BAR_MSIX, PT_BAR_MSIX_SIZE);
	pci_config_add_msix(cfg, &msix);
}

struct ptdma *ptdma_create(const struct ptdma_options *opt,
			   struct guest_mem *mem)
{
	struct ptdma *pt = calloc(1, sizeof(*pt));
	pthread_condattr_t attr;
	int err;

	if (!pt)
		return NULL;
	pt->opt = *opt;
	pt->mem = mem;
	pt->irq_fd = -1;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&pt->lock, NULL);
	pthread_cond_init(&pt->kick, &attr);
	pthread_cond_init(&pt->calm, &attr);
	pthread_condattr_destroy(&attr);

	config_init(&pt->config);
	reset_locked(pt);

	err = pthread_create(&pt->engine, NULL, engine, pt);
	if (err) {
		free(pt);
		errno = err;
		return NULL;
	}
	return pt;
}

void ptdma_destroy(struct ptdma *pt)
{
	if (!pt)
		return;

	pthread_mutex_lock(&pt->lock);
	pt->quit = true;
	halt(pt);
	pthread_mutex_unlock(&pt->lock);
	pthread_join(pt->engine, NULL);

	if (pt->irq_fd >= 0)
		close(pt->irq_fd);
	pthread_cond_destroy(&pt->calm);
	pthread_cond_destroy(&pt->kick);
	pthread_mutex_destroy(&pt->lock);
	free(pt);
}
