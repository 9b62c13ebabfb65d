/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * AMD PTDMA: what the in-tree driver, drivers/dma/amd/ptdma, knows of it.
 *
 * PCI function 1022:1498. The registers are in BAR2, 64 KiB; the one MSI-X
 * vector's table and pending bits are in BAR4. All registers are 32 bits wide
 * and little endian.
 *
 * Registers of the device, offsets from BAR2:
 *
 *   offset  name          access  reset    use in this model
 *   ------  ------------  ------  -------  ----------------------------------
 *   0x0000  QUEUE_PRIO    rw      0        none, stored
 *   0x0004  REQID_CONFIG  rw      0        none, stored
 *   0x0008  TIMEOUT       rw      0        none, stored
 *   0x0010  VERSION       ro      0x8005   bits 5:0 version, 18:15 queues
 *   0x0040  IRQ_MASK      rw      0        none, stored
 *   0x1120  CONFIG        rw      0        none, stored
 *   0x6004  CLK_GATE_CTL  rw      0        none, stored
 *
 * Registers of the queue, offsets from BAR2 + 0x1000:
 *
 *   offset  name          access  reset    use in this model
 *   ------  ------------  ------  -------  ----------------------------------
 *   0x0000  CONTROL       rw      0x2      RUN, ring size, ring base 47:32
 *   0x0004  TAIL_LO       rw      0        31:0 of the first free slot
 *   0x0008  HEAD_LO       rw      0        31:0 of the next slot to execute
 *   0x000c  INT_ENABLE    rw      0        which of INT_STATUS interrupt
 *   0x0010  INT_STATUS    rw1c    0        what happened
 *   0x0100  STATUS        ro      0        error code of the last descriptor
 *   0x0104  Q_INT_STATUS  ro      0        INT_STATUS, without clearing
 *   0x0108  DMA_STATUS    ro      0        bit 0: data is being moved
 *   0x010c  DMA_RD_STATUS ro      0        zero
 *   0x0110  DMA_WR_STATUS ro      0        zero
 *   0x0118  AX_CACHE      rw      0        none, stored
 *
 * HALT in CONTROL shows that nothing is in flight and nothing will be started.
 * An error clears RUN and leaves the head behind the descriptor that failed.
 * What the driver assumes of these, and nothing proves, can be made untrue: see
 * struct ptdma_options.
 *
 * Everything else, among it ABORT at +0x114 and IRQ_STATUS at 0x200, which the
 * driver names and never touches, reads as zero and ignores writes.
 */
#ifndef PTDMA_REGS_H
#define PTDMA_REGS_H

#define PT_PCI_VENDOR			0x1022
#define PT_PCI_DEVICE			0x1498
#define PT_PCI_CLASS			0x088000	/* other peripheral */

#define PT_BAR_REGS			2
#define PT_BAR_REGS_SIZE		0x10000
#define PT_BAR_MSIX			4
#define PT_BAR_MSIX_SIZE		0x1000
#define PT_MSIX_VECTORS			1
#define PT_MSIX_TABLE			0x000
#define PT_MSIX_PBA			0x800

/* Device */
#define PT_QUEUE_PRIO			0x0000
#define PT_REQID_CONFIG			0x0004
#define PT_TIMEOUT			0x0008
#define PT_VERSION			0x0010
#define   PT_VERSION_NUMBER(v)		((v) & 0x3f)
#define   PT_VERSION_QUEUES(n)		(((n) & 0xf) << 15)
#define PT_IRQ_MASK			0x0040
#define PT_CONFIG			0x1120
#define PT_CLK_GATE_CTL			0x6004

/* Queue */
#define PT_Q				0x1000
#define PT_Q_CONTROL			(PT_Q + 0x000)
#define   PT_Q_RUN			(1u << 0)
#define   PT_Q_HALT			(1u << 1)	/* ro: at rest */
#define   PT_Q_MEM_LOCATION		(1u << 2)
#define   PT_Q_SIZE(ctl)		(((ctl) >> 3) & 0x1f)
#define   PT_Q_BASE_HI(ctl)		((ctl) >> 16)
#define   PT_Q_CONTROL_WRITABLE		(~PT_Q_HALT)
#define PT_Q_TAIL_LO			(PT_Q + 0x004)
#define PT_Q_HEAD_LO			(PT_Q + 0x008)
#define   PT_Q_POINTER_WRITABLE		(~0x1fu)
#define PT_Q_INT_ENABLE			(PT_Q + 0x00c)
#define PT_Q_INT_STATUS			(PT_Q + 0x010)
#define   PT_INT_COMPLETION		(1u << 0)
#define   PT_INT_ERROR			(1u << 1)
#define   PT_INT_QUEUE_STOPPED		(1u << 2)	/* never raised: the */
#define   PT_INT_EMPTY_QUEUE		(1u << 3)	/* driver would take */
#define   PT_INT_ALL			0xfu		/* it for completion */
#define PT_Q_STATUS			(PT_Q + 0x100)
#define   PT_Q_ERROR_MASK		0x3fu
#define PT_Q_Q_INT_STATUS		(PT_Q + 0x104)
#define PT_Q_DMA_STATUS			(PT_Q + 0x108)
#define PT_Q_DMA_RD_STATUS		(PT_Q + 0x10c)
#define PT_Q_DMA_WR_STATUS		(PT_Q + 0x110)
#define PT_Q_AX_CACHE			(PT_Q + 0x118)

/*
 * The ring holds 2 << PT_Q_SIZE slots and is aligned to its own size, so head
 * and tail wrap in their low bits. It is empty when they are equal.
 */
#define PT_RING_BYTES(ctl)		((uint64_t)PT_DESC_SIZE << \
					 (PT_Q_SIZE(ctl) + 1))

/*
 * A descriptor is eight 32-bit words:
 *
 *   0  control, below
 *   1  bytes to copy
 *   2  source address 31:0
 *   3  source address 47:32, memory type, and bit 31: do not advance
 *   4  destination address 31:0
 *   5  destination address 47:32, memory type, and bit 31: do not advance
 *   6  reserved
 *   7  reserved
 */
#define PT_DESC_WORDS			8
#define PT_DESC_SIZE			32
#define PT_DW0_SOC			(1u << 0)	/* stop when done */
#define PT_DW0_IOC			(1u << 1)	/* INT_COMPLETION too */
#define PT_DW0_EOM			(1u << 4)
#define PT_DW0_FUNCTION(w)		(((w) >> 5) & 0x7fff)
#define PT_DW0_ENGINE(w)		(((w) >> 20) & 0xf)
#define   PT_ENGINE_PASSTHRU		5
#define PT_ADDR_HI(w)			((w) & 0xffff)
#define PT_ADDR_MEM(w)			(((w) >> 16) & 0x3)
#define   PT_MEM_SYSTEM			0
#define PT_ADDR_FIXED			(1u << 31)

/*
 * Error codes of the STATUS register, numbered as the driver's texts are. The
 * input side (IDMA) reads the descriptor and the source, the output side
 * (ODMA) writes the destination. "Decode" is an address that nothing answers
 * to, "slave" one that answers with a refusal.
 */
#define PT_ERR_ILLEGAL_ENGINE		1
#define PT_ERR_ILLEGAL_FUNCTION		3
#define PT_ERR_BUFFER_LENGTH		9
#define PT_ERR_MEM_ADDR			11
#define PT_ERR_MEM_SEL			12
#define PT_ERR_IDMA_SLAVE		19
#define PT_ERR_IDMA_DECODE		20
#define PT_ERR_ODMA_SLAVE		38
#define PT_ERR_ODMA_DECODE		39

#endif /* PTDMA_REGS_H */
