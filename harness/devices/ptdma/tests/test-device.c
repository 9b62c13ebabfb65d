// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the device: what a driver sees.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "ptdma-regs.h"
#include "tap.h"

#define SIZE32	4			/* ring size field: 32 slots */
#define SIZE4	1			/* 4 slots */

/* A copy that takes some 500 ms, in bursts of some 16 ms. */
#define SLOW	4			/* MB/s */
#define SLOW_LEN 0x1f0000u
#define SLOW_SRC (LOW + 0x10000)	/* crosses into HIGH with its end */
#define SLOW_DST HIGH

static void config_space(struct tap *t)
{
	uint32_t cap;
	struct client c;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);

	EQUAL(t, cfg_read(&c, PCI_VENDOR_ID, 2), 0x1022);
	EQUAL(t, cfg_read(&c, PCI_DEVICE_ID, 2), 0x1498);
	EQUAL(t, cfg_read(&c, PCI_HEADER_TYPE, 1), 0);
	EQUAL(t, cfg_read(&c, PCI_CLASS_REVISION, 4), 0x08800000);
	EQUAL(t, cfg_read(&c, PCI_INTERRUPT_PIN, 1), 0);
	CHECK(t, cfg_read(&c, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);

	cap = cfg_read(&c, PCI_CAPABILITY_LIST, 1);
	EQUAL(t, cfg_read(&c, cap, 2), PCI_CAP_ID_MSIX);	/* and last */
	EQUAL(t, cfg_read(&c, cap + PCI_MSIX_FLAGS, 2), 0);	/* 1 vector */
	EQUAL(t, cfg_read(&c, cap + PCI_MSIX_TABLE, 4), 4);	/* BAR4 */
	EQUAL(t, cfg_read(&c, cap + PCI_MSIX_PBA, 4), 0x804);
	cfg_write(&c, cap + PCI_MSIX_FLAGS, 0xffff, 2);
	EQUAL(t, cfg_read(&c, cap + PCI_MSIX_FLAGS, 2), 0xc000);

	/* BARs: sizes, and an address */
	cfg_write(&c, PCI_BASE_ADDRESS_2, ~0u, 4);
	EQUAL(t, cfg_read(&c, PCI_BASE_ADDRESS_2, 4), 0xffff0000);
	cfg_write(&c, PCI_BASE_ADDRESS_4, ~0u, 4);
	EQUAL(t, cfg_read(&c, PCI_BASE_ADDRESS_4, 4), 0xfffff000);
	cfg_write(&c, PCI_BASE_ADDRESS_0, ~0u, 4);
	EQUAL(t, cfg_read(&c, PCI_BASE_ADDRESS_0, 4), 0);
	cfg_write(&c, PCI_BASE_ADDRESS_2, 0xfe120000, 4);
	EQUAL(t, cfg_read(&c, PCI_BASE_ADDRESS_2, 4), 0xfe120000);

	/* What is fixed, and which commands there are */
	cfg_write(&c, PCI_VENDOR_ID, 0, 4);
	EQUAL(t, cfg_read(&c, PCI_VENDOR_ID, 4), 0x14981022);
	cfg_write(&c, PCI_COMMAND, 0xffff, 2);
	EQUAL(t, cfg_read(&c, PCI_COMMAND, 2), 0x0546);
	cfg_write(&c, PCI_COMMAND + 1, 0, 1);
	EQUAL(t, cfg_read(&c, PCI_COMMAND, 2), 0x0046);

	EQUAL(t, client_reset(&c), 0);
	EQUAL(t, cfg_read(&c, PCI_COMMAND, 2), 0);
	EQUAL(t, cfg_read(&c, PCI_BASE_ADDRESS_2, 4), 0);
	EQUAL(t, client_stop(&c), 0);
}

static void registers(struct tap *t)
{
	static const struct {
		uint32_t off, reset, writable;
	} regs[] = {
		{ 0x0000, 0, ~0u },	{ 0x0004, 0, ~0u },
		{ 0x0008, 0, ~0u },	{ 0x0010, 0x8005, 0 },
		{ 0x0040, 0, ~0u },	{ 0x1120, 0, ~0u },
		{ 0x6004, 0, ~0u },	{ 0x1004, 0, ~0x1fu },
		{ 0x1008, 0, ~0x1fu },	{ 0x100c, 0, 0xf },
		{ 0x1100, 0, 0 },	{ 0x1104, 0, 0 },
		{ 0x1108, 0, 0 },	{ 0x110c, 0, 0 },
		{ 0x1110, 0, 0 },	{ 0x1118, 0, ~0u },
		/* none */
		{ 0x000c, 0, 0 },	{ 0x1014, 0, 0 },
		{ 0x1114, 0, 0 },	{ 0x0200, 0, 0 },
		{ 0xfffc, 0, 0 },
	};
	const uint64_t two = 0x1111111122222222ull;
	struct client c;
	uint8_t byte;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), PT_Q_HALT);
	for (i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
		uint32_t off = regs[i].off;

		if (!EQUAL(t, reg_read(&c, off), regs[i].reset))
			printf("# register %#x\n", off);
		reg_write(&c, off, 0xa5a5a5a5);
		if (!EQUAL(t, reg_read(&c, off), (regs[i].reset &
			   ~regs[i].writable) | (0xa5a5a5a5 &
			   regs[i].writable)))
			printf("# register %#x\n", off);
		reg_write(&c, off, 0);
	}

	/* Two at once are two; half a register is refused. */
	EQUAL(t, client_write(&c, PT_BAR_REGS, PT_QUEUE_PRIO, &two, 8), 0);
	EQUAL(t, reg_read(&c, PT_QUEUE_PRIO), 0x22222222);
	EQUAL(t, reg_read(&c, PT_REQID_CONFIG), 0x11111111);
	EQUAL(t, client_write(&c, PT_BAR_REGS, PT_QUEUE_PRIO, &two, 2), EINVAL);
	EQUAL(t, client_write(&c, PT_BAR_REGS, PT_QUEUE_PRIO + 2, &two, 4),
	      EINVAL);
	EQUAL(t, reg_read(&c, PT_QUEUE_PRIO), 0x22222222);
	EQUAL(t, client_read(&c, PT_BAR_REGS, PT_VERSION + 1, &byte, 1), 0);
	EQUAL(t, byte, 0x80);

	EQUAL(t, client_reset(&c), 0);
	EQUAL(t, reg_read(&c, PT_QUEUE_PRIO), 0);
	EQUAL(t, client_stop(&c), 0);
}

static void copies(struct tap *t)
{
	/* Aligned or not, within a burst or several, across the windows. */
	static const struct {
		uint64_t dst, src;
		uint32_t len;
	} jobs[] = {
		{ DATA, HIGH, 1 },
		{ DATA + 3, HIGH + 5, 7 },
		{ DATA, HIGH, 4096 },
		{ DATA + 1, HIGH + 4095, 65536 },
		{ DATA, HIGH, 512 * 1024 },
		{ DATA + 7, HIGH + 77, 300001 },
		{ HIGH + 0x100000, HIGH - 1000, 5000 },
		{ HIGH - 123, DATA, 70000 },
		{ HIGH - 0x10000, HIGH - 0x21000, 0x10001 },
	};
	struct ptdma_stats stats;
	uint64_t bytes = 0;
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	for (i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
		uint64_t dst = jobs[i].dst, src = jobs[i].src;
		uint32_t len = jobs[i].len;

		memset(at(&c, DATA), 0, HIGH - DATA);
		memset(at(&c, HIGH), 0, WINDOW);
		fill(&c, src, len, i);
		queue(&c, dst, src, len);
		run(&c);
		EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
		EQUAL(t, filled(&c, dst, len, i), len);
		EQUAL(t, *at(&c, dst - 1), 0);
		EQUAL(t, *at(&c, dst + len), 0);
		EQUAL(t, filled(&c, src, len, i), len);
		EQUAL(t, head(&c), i + 1);
		EQUAL(t, reg_read(&c, PT_Q_STATUS), 0);
		if (t->bad) {
			printf("# jobs[%zu]\n", i);
			break;
		}
		bytes += len;
	}
	EQUAL(t, irqs(&c, SOON), 0);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, i);
	EQUAL(t, stats.bytes, bytes);
	EQUAL(t, stats.interrupts, i);
	EQUAL(t, stats.faults, 0);
	EQUAL(t, client_stop(&c), 0);
}

/* As many descriptors as fit, over and over, of each ring size. */
static void ring_wrap(struct tap *t)
{
	struct client c;
	unsigned int size, i, round, seed = 0;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, 0));
	for (size = 0; size <= 6; size++) {
		struct ptdma_stats before, after;

		reset_ring(&c, size);
		ptdma_get_stats(c.pt, &before);
		/* What follows the ring is no descriptor. */
		memset(at(&c, RING), 0xff, 0x10000);
		for (round = 0; round < 5; round++) {
			unsigned int nr = c.slots - 1;
			uint32_t tail = (c.tail + nr) % c.slots;

			memset(at(&c, HIGH), 0, 256 * c.slots);
			for (i = 0; i < nr; i++) {
				fill(&c, DATA + 256 * i, 256, seed + i);
				queue(&c, HIGH + 256 * i, DATA + 256 * i, 256);
			}
			run(&c);
			CHECK(t, wait_head(&c, tail));
			for (i = 0; i < nr; i++)
				EQUAL(t, filled(&c, HIGH + 256 * i, 256,
						seed + i), 256);
			seed += nr;
			reg_write(&c, PT_Q_INT_STATUS, PT_INT_COMPLETION);
		}
		ptdma_get_stats(c.pt, &after);
		EQUAL(t, after.descriptors - before.descriptors,
		      5 * (c.slots - 1));
		EQUAL(t, after.faults, 0);
	}
	EQUAL(t, client_stop(&c), 0);
}

/* A tail that is in no ring must not make the engine run for ever. */
static void wild_tail(struct tap *t)
{
	struct ptdma_stats stats;
	struct client c;
	int i;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE4));
	for (i = 0; i < 3; i++)
		queue(&c, HIGH, DATA, 16);
	reg_write(&c, PT_Q_TAIL_LO, SLOT(3) + 0x100000);
	reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);
	CHECK(t, wait_head(&c, 3));
	sleep_ms(SOON);
	EQUAL(t, head(&c), 3);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 3);
	EQUAL(t, client_stop(&c), 0);
}

static void run_bit(struct tap *t)
{
	struct client c;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 64, 1);
	queue(&c, HIGH, DATA, 64);
	reg_write(&c, PT_Q_TAIL_LO, SLOT(1));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, head(&c), 0);
	EQUAL(t, *at(&c, HIGH), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
	reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_RUN);
	EQUAL(t, filled(&c, HIGH, 64, 1), 64);
	EQUAL(t, client_stop(&c), 0);
}

static void interrupts(struct tap *t)
{
	static const uint32_t no_ioc[PT_DESC_WORDS] = {
		DW0 & ~PT_DW0_IOC, 64, (uint32_t)DATA, DATA >> 32,
		(uint32_t)HIGH, HIGH >> 32,
	};
	static const uint32_t soc[PT_DESC_WORDS] = {
		DW0 | PT_DW0_SOC, 64, (uint32_t)DATA, DATA >> 32,
		(uint32_t)HIGH, HIGH >> 32,
	};
	struct client c;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));

	/* Disabled: the status tells, the interrupt does not come. */
	reg_write(&c, PT_Q_INT_ENABLE, 0);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	CHECK(t, wait_head(&c, 1));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), PT_INT_COMPLETION);
	EQUAL(t, reg_read(&c, PT_Q_Q_INT_STATUS), PT_INT_COMPLETION);
	/* Not for the wrong one, either; but late, when it is enabled. */
	reg_write(&c, PT_Q_INT_ENABLE, PT_INT_ERROR);
	EQUAL(t, irqs(&c, SOON), 0);
	reg_write(&c, PT_Q_INT_ENABLE, PT_INT_COMPLETION);
	EQUAL(t, irqs(&c, LATE), 1);

	/* Write one to clear: not zero, not another bit. */
	reg_write(&c, PT_Q_INT_STATUS, 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), PT_INT_COMPLETION);
	reg_write(&c, PT_Q_INT_STATUS, ~PT_INT_COMPLETION);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), PT_INT_COMPLETION);
	reg_write(&c, PT_Q_INT_STATUS, PT_INT_COMPLETION);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), 0);
	EQUAL(t, reg_read(&c, PT_Q_Q_INT_STATUS), 0);
	EQUAL(t, irqs(&c, 0), 0);

	/* Twice without an acknowledgment is one message. */
	queue(&c, HIGH, DATA, 64);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	CHECK(t, wait_head(&c, 3));
	EQUAL(t, irqs(&c, LATE), 1);
	/* What the driver's handler does must not lose the next. */
	reg_write(&c, PT_Q_INT_ENABLE, 0);
	reg_write(&c, PT_Q_INT_STATUS, PT_INT_COMPLETION);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	CHECK(t, wait_head(&c, 4));
	EQUAL(t, irqs(&c, SOON), 0);
	reg_write(&c, PT_Q_INT_ENABLE, PT_INT_COMPLETION | PT_INT_ERROR);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);

	/* A descriptor that asks for none; one that stops the queue. */
	queue_raw(&c, no_ioc);
	run(&c);
	CHECK(t, wait_head(&c, 5));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), 0);
	reg_write(&c, PT_Q_CONTROL, c.control);
	queue_raw(&c, soc);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, head(&c), 6);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
	EQUAL(t, client_stop(&c), 0);
}

/* With no eventfd there, the interrupt waits and shows as pending. */
static void late_eventfd(struct tap *t)
{
	uint32_t pba = 99;
	struct client c;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	EQUAL(t, client_irqs(&c, 0x21, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, -1), 0);
	EQUAL(t, client_read(&c, PT_BAR_MSIX, PT_MSIX_PBA, &pba, 4), 0);
	EQUAL(t, pba, 0);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	CHECK(t, wait_head(&c, 1));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_read(&c, PT_BAR_MSIX, PT_MSIX_PBA, &pba, 4), 0);
	EQUAL(t, pba, 1);
	EQUAL(t, client_irqs(&c, 0x24, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, c.irq),
	      0);
	EQUAL(t, irqs(&c, LATE), 1);
	EQUAL(t, client_read(&c, PT_BAR_MSIX, PT_MSIX_PBA, &pba, 4), 0);
	EQUAL(t, pba, 0);
	EQUAL(t, client_stop(&c), 0);
}

static void errors(struct tap *t)
{
	static const struct {
		uint32_t w[PT_DESC_WORDS];
		uint32_t code;
	} bad[] = {
#define D(dw0, len, src, src_flags, dst, dst_flags) { \
		dw0, len, (uint32_t)(src), (src) >> 32 | (src_flags), \
		(uint32_t)(dst), (dst) >> 32 | (dst_flags) }
		{ D(DW0 & ~0xf00000u, 64, DATA, 0, HIGH, 0), 1 },
		{ D(DW0 ^ 0x100000u, 64, DATA, 0, HIGH, 0), 1 },
		{ D(DW0 | 0x20u, 64, DATA, 0, HIGH, 0), 3 },
		{ D(DW0, 0, DATA, 0, HIGH, 0), 9 },
		{ D(DW0, 64, DATA, 1u << 31, HIGH, 0), 11 },
		{ D(DW0, 64, DATA, 0, HIGH, 1u << 31), 11 },
		{ D(DW0, 64, DATA, 1u << 16, HIGH, 0), 12 },
		{ D(DW0, 64, DATA, 0, HIGH, 2u << 16), 12 },
		{ D(DW0, 64, WRITEONLY, 0, HIGH, 0), 19 },
		{ D(DW0, 64, NO_FILE, 0, HIGH, 0), 19 },
		{ D(DW0, 64, NOWHERE, 0, HIGH, 0), 20 },
		{ D(DW0, 64, 0xffffffffffffull, 0, HIGH, 0), 20 },
		{ D(DW0, 64, DATA, 0, READONLY, 0), 38 },
		{ D(DW0, 64, DATA, 0, NO_FILE, 0), 38 },
		{ D(DW0, 64, DATA, 0, NOWHERE, 0), 39 },
		/* Both wrong: the read comes first. */
		{ D(DW0, 64, NOWHERE, 0, READONLY, 0), 20 },
		/* As long as can be */
		{ D(DW0, ~0u, READONLY, 0, WRITEONLY, 0), 20 },
#undef D
	};
	struct ptdma_stats stats;
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		reset_ring(&c, SIZE32);
		*at(&c, HIGH) = 0;
		memset(at(&c, DATA), 7, 64);
		memset(c.ram + READONLY_OFFSET, 0x99, 64);

		/* A good one, the bad one, and one that must not run. */
		queue(&c, DATA + 128, DATA, 64);
		queue_raw(&c, bad[i].w);
		queue(&c, HIGH + WINDOW - 64, DATA, 64);
		*at(&c, HIGH + WINDOW - 64) = 0;
		reg_write(&c, PT_Q_INT_ENABLE, PT_INT_ERROR);
		run(&c);

		EQUAL(t, irqs(&c, LATE), 1);
		EQUAL(t, reg_read(&c, PT_Q_INT_STATUS),
		      PT_INT_COMPLETION | PT_INT_ERROR);
		EQUAL(t, reg_read(&c, PT_Q_STATUS), bad[i].code);
		EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
		EQUAL(t, head(&c), 2);
		EQUAL(t, *at(&c, DATA + 128), 7);
		EQUAL(t, *at(&c, HIGH), 0);
		EQUAL(t, c.ram[READONLY_OFFSET], 0x99);
		EQUAL(t, *at(&c, HIGH + WINDOW - 64), 0);

		/* It stays halted until it is told to run. */
		reg_write(&c, PT_Q_INT_STATUS, ~0u);
		EQUAL(t, irqs(&c, 0), 0);
		reg_write(&c, PT_Q_INT_ENABLE, PT_INT_COMPLETION);
		reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);
		EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
		EQUAL(t, *at(&c, HIGH + WINDOW - 64), 7);
		EQUAL(t, reg_read(&c, PT_Q_STATUS), 0);
		if (t->bad) {
			printf("# bad[%zu]\n", i);
			break;
		}
	}
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 3 * i);
	EQUAL(t, stats.faults, i);
	EQUAL(t, client_stop(&c), 0);
}

/* In the middle of a transfer, and with a ring that is not there. */
static void late_errors(struct tap *t)
{
	struct client c;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, HIGH + WINDOW - 100000, 100000, 3);
	queue(&c, DATA, HIGH + WINDOW - 100000, 100001);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_ERROR);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), PT_ERR_IDMA_DECODE);
	EQUAL(t, filled(&c, DATA, 100000, 3), 100000);
	EQUAL(t, *at(&c, DATA + 100000), 0);

	reset_ring(&c, SIZE32);
	queue(&c, HIGH + WINDOW - 100000, DATA, 100001);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_ERROR);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), PT_ERR_ODMA_DECODE);

	reset_ring(&c, SIZE32);
	c.control = (NOWHERE >> 32) << 16 | SIZE32 << 3;
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_ERROR);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), PT_ERR_IDMA_DECODE);
	EQUAL(t, head(&c), 1);
	EQUAL(t, client_stop(&c), 0);
}

/*
 * Step by step what the driver does about an error. RUN is set from before, so
 * the write to the tail starts the descriptor, and when the driver then sets
 * RUN "again", it has already failed and must not be executed a second time.
 */
static void driver_recovery(struct tap *t)
{
	struct ptdma_stats stats;
	struct client c;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);
	queue(&c, HIGH, NOWHERE, 64);
	reg_write(&c, PT_Q_TAIL_LO, SLOT(1));
	EQUAL(t, irqs(&c, LATE), 1);
	reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);
	EQUAL(t, irqs(&c, SOON), 0);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 1);
	reg_write(&c, PT_Q_INT_ENABLE, 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), PT_INT_ERROR);
	reg_write(&c, PT_Q_INT_STATUS, PT_INT_ERROR);
	reg_write(&c, PT_Q_HEAD_LO, SLOT(1));
	fill(&c, DATA, 64, 4);
	reg_write(&c, PT_Q_INT_ENABLE, PT_INT_COMPLETION | PT_INT_ERROR);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, filled(&c, HIGH, 64, 4), 64);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_stop(&c), 0);
}

static void fail_nth(struct tap *t)
{
	const struct ptdma_options opt = {
		.fail_nth = 3, .fail_from = 3, .fail_code = 38,
		.stall_after = PTDMA_NEVER,
	};
	struct client c;
	int i;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 64, 1);
	for (i = 1; i <= 9; i++) {
		bool bad = i > 3 && i % 3 == 0;

		memset(at(&c, HIGH), 0, 64);
		queue(&c, HIGH, DATA, 64);
		run(&c);
		EQUAL(t, wait_done(&c), bad ? PT_INT_ERROR :
					      PT_INT_COMPLETION);
		EQUAL(t, reg_read(&c, PT_Q_STATUS), bad ? 38 : 0);
		EQUAL(t, filled(&c, HIGH, 64, 1), bad ? 0 : 64);
	}
	EQUAL(t, client_stop(&c), 0);
}

static void max_length(struct tap *t)
{
	const struct ptdma_options opt = {
		.max_length = 64, .stall_after = PTDMA_NEVER,
	};
	struct client c;
	int len;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 65, 1);
	for (len = 63; len <= 65; len++) {
		bool bad = len > 64;

		memset(at(&c, HIGH), 0, 65);
		queue(&c, HIGH, DATA, len);
		run(&c);
		EQUAL(t, wait_done(&c), bad ? PT_INT_ERROR :
					      PT_INT_COMPLETION);
		EQUAL(t, reg_read(&c, PT_Q_STATUS),
		      bad ? PT_ERR_BUFFER_LENGTH : 0);
		EQUAL(t, filled(&c, HIGH, len, 1), bad ? 0 : len);
	}
	EQUAL(t, client_stop(&c), 0);
}

static void stall(struct tap *t)
{
	const struct ptdma_options opt = { .stall_after = 2 };
	struct ptdma_stats stats;
	struct client c;
	int i;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 64, 1);
	/* Too early: there is no hang yet to end. */
	ptdma_resume(c.pt);
	for (i = 0; i < 2; i++) {
		queue(&c, HIGH, DATA, 64);
		run(&c);
		EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	}
	memset(at(&c, HIGH), 0, 64);
	queue(&c, HIGH, DATA, 64);
	queue(&c, HIGH + 64, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, 5 * SOON), 0);
	EQUAL(t, filled(&c, HIGH, 64, 1), 0);
	EQUAL(t, head(&c), 2);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), 0);
	reg_write(&c, PT_QUEUE_PRIO, 0x1234);
	EQUAL(t, reg_read(&c, PT_QUEUE_PRIO), 0x1234);
	/* Telling it to stop does not help: it is not at a standstill. */
	reg_write(&c, PT_Q_CONTROL, c.control);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control);
	reg_write(&c, PT_Q_CONTROL, c.control | PT_Q_RUN);

	/* The descriptor was fetched: it is this one that still happens. */
	memset(at(&c, RING + 2 * PT_DESC_SIZE), 0, PT_DESC_SIZE);
	ptdma_resume(c.pt);
	CHECK(t, irqs(&c, LATE));
	CHECK(t, wait_head(&c, 4));
	EQUAL(t, filled(&c, HIGH, 64, 1), 64);
	EQUAL(t, filled(&c, HIGH + 64, 64, 1), 64);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 4);
	EQUAL(t, stats.faults, 0);
	EQUAL(t, client_stop(&c), 0);
}

static void stall_and_reset(struct tap *t)
{
	const struct ptdma_options opt = { .stall_after = 0 };
	struct ptdma_stats stats;
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 64, 1);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_reset(&c), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), PT_Q_HALT);

	/* The hang goes on, with another descriptor. */
	bus_master(&c, true);
	reset_ring(&c, SIZE32);
	queue(&c, HIGH + 64, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, SOON), 0);
	ptdma_resume(c.pt);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, filled(&c, HIGH, 64, 1), 0);
	EQUAL(t, filled(&c, HIGH + 64, 64, 1), 64);

	/* And once it is over, it is over. */
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	/* Only the first one was cut off. It would end in a hang, too. */
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.cut_off, 1);
	EQUAL(t, client_stop(&c), 0);
}

static void hang_up_stalled(struct tap *t)
{
	const struct ptdma_options opt = { .stall_after = 0 };
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_stop(&c), 0);
}

/* Start a slow copy, and see that it is on its way and not done. */
static void start_slow(struct tap *t, struct client *c)
{
	int i;

	memset(at(c, SLOW_DST), 0, SLOW_LEN);
	memset(at(c, SLOW_SRC), 0x42, SLOW_LEN);
	queue(c, SLOW_DST, SLOW_SRC, SLOW_LEN);
	run(c);
	for (i = 0; i < LATE && !*at(c, SLOW_DST + 0x20000); i++)
		sleep_ms(1);
	CHECK(t, *at(c, SLOW_DST + 0x20000) == 0x42);
	CHECK(t, *at(c, SLOW_DST + SLOW_LEN - 1) == 0);
}

/* Wipe what was copied: nothing may come after it. */
static void expect_quiet(struct tap *t, struct client *c)
{
	size_t i, late = 0;

	memset(at(c, SLOW_DST), 0, SLOW_LEN);
	sleep_ms(5 * SOON);
	for (i = 0; i < SLOW_LEN; i++)
		late += *at(c, SLOW_DST + i) != 0;
	EQUAL(t, late, 0);
	EQUAL(t, irqs(c, 0), 0);
}

static const struct ptdma_options slow = {
	.bandwidth = SLOW, .stall_after = PTDMA_NEVER,
};

static void reset_in_flight(struct tap *t)
{
	struct ptdma_stats stats;
	struct client c;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	start_slow(t, &c);
	EQUAL(t, client_reset(&c), 0);
	expect_quiet(t, &c);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 0);

	EQUAL(t, reg_read(&c, PT_Q_CONTROL), PT_Q_HALT);
	EQUAL(t, reg_read(&c, PT_Q_HEAD_LO), 0);
	EQUAL(t, reg_read(&c, PT_Q_TAIL_LO), 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_ENABLE), 0);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS), 0);
	EQUAL(t, cfg_read(&c, PCI_COMMAND, 2), 0);

	/* It works again, with the mappings and the eventfd it had. */
	bus_master(&c, true);
	reset_ring(&c, SIZE32);
	fill(&c, DATA, 64, 5);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, filled(&c, HIGH, 64, 5), 64);
	EQUAL(t, client_stop(&c), 0);
}

/*
 * At full speed the engine is in the middle of a burst nearly all the time.
 * When the reset, or the write that takes the bus away, has returned, that
 * burst is over. Without a socket in between, to look at once.
 */
static void quiet_at_once(struct tap *t)
{
	const uint16_t off = PCI_COMMAND_MEMORY;
	struct client c;
	int i;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	for (i = 0; i < 60; i++) {
		const struct vfu_ops *ops = c.vdev.ops;
		struct ptdma_stats first, then, later;

		bus_master(&c, true);
		reset_ring(&c, SIZE32);
		while (c.tail < 31)
			queue(&c, HIGH, SLOW_SRC, SLOW_LEN);
		ptdma_get_stats(c.pt, &first);
		run(&c);
		do {
			ptdma_get_stats(c.pt, &then);
		} while (then.bytes == first.bytes);

		if (i % 2)
			ops->reset(c.vdev.dev);
		else
			ops->region_write(c.vdev.dev,
					  VFIO_PCI_CONFIG_REGION_INDEX,
					  PCI_COMMAND, &off, sizeof(off));
		ptdma_get_stats(c.pt, &then);
		sleep_ms(2);
		ptdma_get_stats(c.pt, &later);
		EQUAL(t, later.bytes, then.bytes);
		client_reset(&c);
	}
	EQUAL(t, client_stop(&c), 0);
}

/* The same while it waits out its delay. */
static void reset_in_delay(struct tap *t)
{
	const struct ptdma_options opt = {
		.delay_us = 60000000, .stall_after = PTDMA_NEVER,
	};
	int64_t start = now_ms();
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_reset(&c), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), PT_Q_HALT);
	EQUAL(t, client_stop(&c), 0);
	CHECK(t, now_ms() - start < LATE);
}

static void bus_master_off(struct tap *t)
{
	struct client c;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));

	/* Nothing starts. */
	bus_master(&c, false);
	fill(&c, DATA, 64, 6);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, filled(&c, HIGH, 64, 6), 0);
	EQUAL(t, head(&c), 0);
	/* It was not even fetched: this one replaces it. */
	c.tail = 0;
	queue(&c, HIGH + 64, DATA, 64);
	bus_master(&c, true);
	EQUAL(t, irqs(&c, LATE), 1);
	EQUAL(t, filled(&c, HIGH, 64, 6), 0);
	EQUAL(t, filled(&c, HIGH + 64, 64, 6), 64);

	/* No interrupt, either. */
	reg_write(&c, PT_Q_INT_ENABLE, 0);
	bus_master(&c, false);
	reg_write(&c, PT_Q_INT_ENABLE, PT_INT_COMPLETION);
	EQUAL(t, irqs(&c, SOON), 0);
	bus_master(&c, true);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);

	/* In flight: it pauses, and goes on. */
	start_slow(t, &c);
	bus_master(&c, false);
	expect_quiet(t, &c);
	EQUAL(t, head(&c), 1);
	bus_master(&c, true);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, head(&c), 2);
	EQUAL(t, *at(&c, SLOW_DST + SLOW_LEN - 1), 0x42);
	EQUAL(t, client_stop(&c), 0);
}

static void unmap_in_flight(struct tap *t)
{
	struct client c;
	uint64_t n;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	start_slow(t, &c);
	EQUAL(t, client_unmap(&c, HIGH, WINDOW, 0, &n), 0);
	EQUAL(t, n, WINDOW);
	memset(at(&c, SLOW_DST), 0, SLOW_LEN);
	EQUAL(t, wait_done(&c), PT_INT_ERROR);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), PT_ERR_ODMA_DECODE);
	expect_quiet(t, &c);
	EQUAL(t, client_stop(&c), 0);
}

static void stop_in_flight(struct tap *t)
{
	struct client c;
	int i;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	memset(at(&c, DATA), 0x24, 64);
	start_slow(t, &c);
	queue(&c, LOW + 0x1000, DATA, 64);
	run(&c);

	/* The one in flight ends well, the next one does not start. */
	reg_write(&c, PT_Q_CONTROL, c.control);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, *at(&c, SLOW_DST + SLOW_LEN - 1), 0x42);
	for (i = 0; i < LATE; i++) {
		if (reg_read(&c, PT_Q_CONTROL) & PT_Q_HALT)
			break;
		sleep_ms(1);
	}
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
	EQUAL(t, head(&c), 1);
	EQUAL(t, *at(&c, LOW + 0x1000), 0);
	EQUAL(t, client_stop(&c), 0);
}

/* A driver that gives up moves the head; that must not be undone. */
static void head_moved_in_flight(struct tap *t)
{
	struct ptdma_stats stats;
	struct client c;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	start_slow(t, &c);
	c.tail = 5;
	reg_write(&c, PT_Q_TAIL_LO, SLOT(5));
	reg_write(&c, PT_Q_HEAD_LO, SLOT(5));
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, head(&c), 5);
	EQUAL(t, irqs(&c, SOON), 0);
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 1);
	EQUAL(t, client_stop(&c), 0);
}

static void hang_up_in_flight(struct tap *t)
{
	size_t i, late = 0, maps, files;
	struct ptdma_stats stats;
	struct client c;
	uint8_t *ram;

	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	start_slow(t, &c);
	ram = at(&c, SLOW_DST);

	shutdown(c.sock, SHUT_WR);
	pthread_join(c.thread, NULL);
	/* What the device asked for before, the client may still be writing */
	sleep_ms(SOON);
	memset(ram, 0, SLOW_LEN);
	sleep_ms(5 * SOON);
	for (i = 0; i < SLOW_LEN; i++)
		late += ram[i] != 0;
	EQUAL(t, late, 0);
	guest_mem_count(c.mem, &maps, &files);
	EQUAL(t, maps, 0);
	EQUAL(t, files, 0);
	EQUAL(t, c.result, 0);
	/* Dropped, not failed for want of mappings */
	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 0);
	EQUAL(t, stats.faults, 0);

	ptdma_destroy(c.pt);
	guest_mem_destroy(c.mem);
	c.pt = NULL;
	client_stop(&c);
}

/* The client is who writes, and may refuse; it knows best why. */
static void refused_writes(struct tap *t)
{
	static const struct {
		int error;
		uint32_t code;
	} refusals[] = {
		{ ENODEV, PT_ERR_ODMA_DECODE }, { EFAULT, PT_ERR_ODMA_SLAVE },
		{ EPERM, PT_ERR_ODMA_SLAVE }, { E2BIG, PT_ERR_ODMA_SLAVE },
	};
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	fill(&c, DATA, 64, 1);
	for (i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		memset(at(&c, HIGH), 0, 64);
		c.refuse = refusals[i].error;
		queue(&c, HIGH, DATA, 64);
		run(&c);
		EQUAL(t, wait_done(&c), PT_INT_ERROR);
		EQUAL(t, reg_read(&c, PT_Q_STATUS), refusals[i].code);
		EQUAL(t, filled(&c, HIGH, 64, 1), 0);

		c.refuse = 0;
		queue(&c, HIGH, DATA, 64);
		run(&c);
		EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
		EQUAL(t, filled(&c, HIGH, 64, 1), 64);
	}
	EQUAL(t, client_stop(&c), 0);
}

/* Start a copy that the client does not answer for, and return its number. */
static uint16_t start_mute(struct tap *t, struct client *c)
{
	uint16_t last = c->last_write;
	int i;

	c->mute = true;
	queue(c, HIGH, DATA, 64);
	run(c);
	for (i = 0; i < LATE && c->last_write == last; i++)
		sleep_ms(1);
	CHECK(t, c->last_write != last);
	EQUAL(t, irqs(c, SOON), 0);
	return c->last_write;
}

/*
 * A client that is in the middle of something else answers later. It must get
 * its own answers meanwhile, or both would wait for each other.
 */
static void late_answers(struct tap *t)
{
	struct ptdma_stats stats;
	struct client c;
	uint16_t first, second;

	CHECK(t, client_start(&c, &plain));
	CHECK(t, client_setup(&c, SIZE32));
	first = start_mute(t, &c);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_RUN);
	EQUAL(t, client_unmap(&c, WRITEONLY, WINDOW, 0, NULL), 0);
	EQUAL(t, client_reset(&c), 0);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), PT_Q_HALT);

	/* The answer to what was dropped is no answer to the next one. */
	bus_master(&c, true);
	reset_ring(&c, SIZE32);
	second = start_mute(t, &c);
	CHECK(t, second != first);
	CHECK(t, client_answer(&c, first, EFAULT));
	CHECK(t, client_answer(&c, second + 1, 0));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, head(&c), 0);
	CHECK(t, client_answer(&c, second, 0));
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	/* Nor is one that comes twice, or when nothing was asked. */
	CHECK(t, client_answer(&c, second, EFAULT));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), 0);

	ptdma_get_stats(c.pt, &stats);
	EQUAL(t, stats.descriptors, 1);
	EQUAL(t, stats.faults, 0);

	/* Refused because the bus was taken away: again when it is back. */
	first = start_mute(t, &c);
	bus_master(&c, false);
	CHECK(t, client_answer(&c, first, EFAULT));
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, reg_read(&c, PT_Q_STATUS), 0);
	c.mute = false;
	fill(&c, DATA, 64, 2);
	bus_master(&c, true);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, filled(&c, HIGH, 64, 2), 64);

	/* Gone without an answer */
	start_mute(t, &c);
	EQUAL(t, client_stop(&c), 0);
}

/*
 * Queue a descriptor that fails, and two good ones behind it. All three ask for
 * an interrupt.
 */
static void queue_failing(struct client *c)
{
	static const uint32_t bad[PT_DESC_WORDS] = {
		DW0, 64, (uint32_t)NOWHERE, NOWHERE >> 32,
		(uint32_t)HIGH, HIGH >> 32,
	};

	memset(at(c, SLOW_DST), 0, SLOW_LEN);
	fill(c, DATA, 64, 1);
	queue_raw(c, bad);
	queue(c, HIGH + 64, DATA, 64);
	queue(c, HIGH + 128, DATA, 64);
}

/* RUN stays set after an error, and the descriptors behind it are copied. */
static void error_keeps_run(struct tap *t)
{
	const struct ptdma_options opt = {
		.error_keeps_run = true, .stall_after = PTDMA_NEVER,
	};
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue_failing(&c);
	run(&c);
	CHECK(t, wait_head(&c, 3));
	EQUAL(t, filled(&c, HIGH + 64, 64, 1), 64);
	EQUAL(t, filled(&c, HIGH + 128, 64, 1), 64);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_RUN);
	EQUAL(t, reg_read(&c, PT_Q_INT_STATUS),
	      PT_INT_ERROR | PT_INT_COMPLETION);
	/* That of the last one */
	EQUAL(t, reg_read(&c, PT_Q_STATUS), 0);
	reg_write(&c, PT_Q_CONTROL, c.control);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
	EQUAL(t, client_stop(&c), 0);
}

/* The same without RUN, and not for ever; HALT tells. */
static void overrun(struct tap *t)
{
	const struct ptdma_options opt = {
		.overrun_us = 300000, .stall_after = PTDMA_NEVER,
	};
	struct client c;
	int64_t start;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue_failing(&c);
	start = now_ms();
	run(&c);
	CHECK(t, wait_head(&c, 3));
	EQUAL(t, filled(&c, HIGH + 128, 64, 1), 64);
	if (now_ms() - start < 200)
		EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control);
	while (!(reg_read(&c, PT_Q_CONTROL) & PT_Q_HALT) &&
	       now_ms() - start < LATE)
		sleep_ms(1);
	CHECK(t, now_ms() - start >= 300);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);

	/* Now it is at rest: nothing more without RUN. */
	memset(at(&c, HIGH), 0, 64);
	queue(&c, HIGH, DATA, 64);
	reg_write(&c, PT_Q_TAIL_LO, SLOT(4));
	sleep_ms(SOON);
	EQUAL(t, head(&c), 3);
	EQUAL(t, filled(&c, HIGH, 64, 1), 0);
	EQUAL(t, client_stop(&c), 0);
}

/* HALT says nothing, but DMA_STATUS does, whatever it is when idle. */
static void early_halt(struct tap *t)
{
	const struct ptdma_options opt = {
		.early_halt = true, .idle_dma_status = 0x5a, .bandwidth = SLOW,
		.stall_after = PTDMA_NEVER,
	};
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	EQUAL(t, reg_read(&c, PT_Q_DMA_STATUS), 0x5a);
	start_slow(t, &c);
	EQUAL(t, reg_read(&c, PT_Q_DMA_STATUS), 0x5b);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_RUN);
	reg_write(&c, PT_Q_CONTROL, c.control);
	EQUAL(t, reg_read(&c, PT_Q_CONTROL), c.control | PT_Q_HALT);
	EQUAL(t, reg_read(&c, PT_Q_DMA_STATUS), 0x5b);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, *at(&c, SLOW_DST + SLOW_LEN - 1), 0x42);
	EQUAL(t, reg_read(&c, PT_Q_DMA_STATUS), 0x5a);
	EQUAL(t, client_stop(&c), 0);
}

/* An interrupt comes while there is more to do. */
static void always_ioc(struct tap *t)
{
	static const uint32_t no_ioc[PT_DESC_WORDS] = {
		DW0 & ~PT_DW0_IOC, 64, (uint32_t)DATA, DATA >> 32,
		(uint32_t)HIGH, HIGH >> 32,
	};
	const struct ptdma_options opt = {
		.always_ioc = true, .bandwidth = SLOW,
		.stall_after = PTDMA_NEVER,
	};
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue_raw(&c, no_ioc);
	queue(&c, SLOW_DST, SLOW_SRC, SLOW_LEN);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, head(&c), 1);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	EQUAL(t, head(&c), 2);
	EQUAL(t, client_stop(&c), 0);
}

static void head_late(struct tap *t)
{
	const struct ptdma_options opt = {
		.head_late_us = 200000, .stall_after = PTDMA_NEVER,
	};
	struct client c;
	int64_t start;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue(&c, HIGH, DATA, 64);
	start = now_ms();
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	if (now_ms() - start < 100)
		EQUAL(t, head(&c), 0);
	CHECK(t, wait_head(&c, 1));
	CHECK(t, now_ms() - start >= 200);
	EQUAL(t, client_stop(&c), 0);
}

static void keep_head(struct tap *t)
{
	const struct ptdma_options opt = {
		.keep_head = true, .stall_after = PTDMA_NEVER,
	};
	struct client c;

	CHECK(t, client_start(&c, &opt));
	CHECK(t, client_setup(&c, SIZE32));
	queue_failing(&c);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_ERROR);
	EQUAL(t, head(&c), 1);
	reg_write(&c, PT_Q_HEAD_LO, SLOT(3));
	EQUAL(t, head(&c), 1);
	EQUAL(t, client_stop(&c), 0);
}

static void timing(struct tap *t)
{
	const struct ptdma_options late = {
		.delay_us = 30000, .stall_after = PTDMA_NEVER,
	};
	struct client c;
	int64_t start;
	int i;

	CHECK(t, client_start(&c, &late));
	CHECK(t, client_setup(&c, SIZE32));
	for (i = 0; i < 3; i++)
		queue(&c, HIGH, DATA, 64);
	start = now_ms();
	run(&c);
	CHECK(t, wait_head(&c, 3));
	CHECK(t, now_ms() - start >= 90);
	EQUAL(t, client_stop(&c), 0);

	/* 1 MB at 4 MB/s, as one and as many. */
	CHECK(t, client_start(&c, &slow));
	CHECK(t, client_setup(&c, SIZE32));
	queue(&c, HIGH, DATA, 1000000);
	start = now_ms();
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	CHECK(t, now_ms() - start >= 250);

	for (i = 0; i < 25; i++)
		queue(&c, HIGH, DATA, 40000);
	start = now_ms();
	run(&c);
	CHECK(t, wait_head(&c, 26));
	CHECK(t, now_ms() - start >= 250);
	EQUAL(t, client_stop(&c), 0);
}

const struct test device_tests[] = {
	{ "device: configuration space", config_space },
	{ "device: registers", registers },
	{ "device: copies", copies },
	{ "device: rings of all sizes wrap", ring_wrap },
	{ "device: a tail outside of the ring", wild_tail },
	{ "device: nothing runs without RUN", run_bit },
	{ "device: interrupts", interrupts },
	{ "device: an interrupt waits for its eventfd", late_eventfd },
	{ "device: errors are told apart and halt the queue", errors },
	{ "device: errors in the middle, and of the ring", late_errors },
	{ "device: the driver's way out of an error", driver_recovery },
	{ "device: every nth descriptor fails", fail_nth },
	{ "device: descriptors that are too long fail", max_length },
	{ "device: a hang, and its end", stall },
	{ "device: a hang survives a reset", stall_and_reset },
	{ "device: disconnect in a hang", hang_up_stalled },
	{ "device: reset in flight", reset_in_flight },
	{ "device: quiet means quiet at once", quiet_at_once },
	{ "device: reset in the delay", reset_in_delay },
	{ "device: nothing without bus master", bus_master_off },
	{ "device: unmap in flight", unmap_in_flight },
	{ "device: RUN cleared in flight", stop_in_flight },
	{ "device: head moved in flight", head_moved_in_flight },
	{ "device: disconnect in flight", hang_up_in_flight },
	{ "device: writes that the client refuses", refused_writes },
	{ "device: writes that the client answers late", late_answers },
	{ "device: delay and bandwidth", timing },
	{ "device: an error that does not stop the queue", error_keeps_run },
	{ "device: the queue goes on after RUN was cleared", overrun },
	{ "device: HALT while busy", early_halt },
	{ "device: an interrupt after each descriptor", always_ioc },
	{ "device: the head moves late", head_late },
	{ "device: the head cannot be moved after an error", keep_head },
	{ }
};
