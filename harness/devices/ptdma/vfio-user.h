/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The server's side of the vfio-user protocol, version 0.0, for one PCI
 * function with MSI-X interrupts and a client that passes its memory as file
 * descriptors.
 *
 * The server reads that memory, and asks the client to write. It could write
 * as well, but an emulator would not know: QEMU goes on executing what it has
 * translated from a page until it sees that page change, so code that a device
 * brings would be ignored for what was there before.
 */
#ifndef VFIO_USER_H
#define VFIO_USER_H

#include <linux/vfio.h>
#include <stddef.h>
#include <stdint.h>

#include "guest-mem.h"

#define VFU_MAX_FDS	16			/* with one message */
#define VFU_MAX_XFER	0x10000u		/* bytes of one region access */
#define VFU_MAX_BODY	(VFU_MAX_XFER + 64)	/* bytes after the header */
#define VFU_MAX_DISCARD	0x1000000u		/* of an oversized message */

enum vfu_command {
	VFU_VERSION		= 1,
	VFU_DMA_MAP		= 2,
	VFU_DMA_UNMAP		= 3,
	VFU_GET_INFO		= 4,
	VFU_GET_REGION_INFO	= 5,
	VFU_GET_REGION_IO_FDS	= 6,
	VFU_GET_IRQ_INFO	= 7,
	VFU_SET_IRQS		= 8,
	VFU_REGION_READ		= 9,
	VFU_REGION_WRITE	= 10,
	VFU_DMA_READ		= 11,
	VFU_DMA_WRITE		= 12,
	VFU_RESET		= 13,
};

/* On the wire, in the byte order of the machine. */
struct vfu_header {
	uint16_t id;
	uint16_t command;
	uint32_t size;			/* of the message with this header */
	uint32_t flags;
	uint32_t error;			/* an errno, in a reply */
};

#define VFU_F_TYPE_MASK		0xfu
#define VFU_F_REQUEST		0x0u
#define VFU_F_REPLY		0x1u
#define VFU_F_NO_REPLY		0x10u
#define VFU_F_ERROR		0x20u

struct vfu_version {
	uint16_t major;
	uint16_t minor;
	/* then, if anything, capabilities: JSON text with its final NUL */
};

struct vfu_dma_map {
	uint32_t argsz;
	uint32_t flags;
	uint64_t offset;
	uint64_t iova;
	uint64_t size;
};

struct vfu_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t iova;
	uint64_t size;
};

struct vfu_device_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
};

struct vfu_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset;
	uint64_t size;
	uint64_t offset;
};

struct vfu_irq_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

struct vfu_irq_set {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t start;
	uint32_t count;
	/* then, with VFIO_IRQ_SET_DATA_BOOL, @count bytes */
};

struct vfu_region_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	/* then the data, @count bytes */
};

struct vfu_dma_access {
	uint64_t iova;
	uint64_t count;
	/* then the data, @count bytes */
};

struct vfu_session;

/**
 * struct vfu_ops - what a device does
 * @session: there is a client now, to vfu_dma_write() to; NULL: no more
 * @region_read: read; the range is inside the region and not empty
 * @region_write: write, likewise
 * @irq_eventfd: signal vector @vector through @fd from now on; the device
 *	owns @fd, and -1 means not at all
 * @irq_trigger: signal vector @vector now
 * @dma_done: the client has answered vfu_dma_write() number @id; @error is 0
 *	or an errno
 * @reset: no DMA is under way any more when this returns, but for what the
 *	client was asked to write. It does not wait for an answer to that:
 *	the caller is who takes it
 *
 * Those that return an int return 0 or a negative errno.
 */
struct vfu_ops {
	void (*session)(void *dev, struct vfu_session *session);
	int (*region_read)(void *dev, unsigned int region, uint64_t off,
			   void *buf, size_t len);
	int (*region_write)(void *dev, unsigned int region, uint64_t off,
			    const void *buf, size_t len);
	void (*irq_eventfd)(void *dev, unsigned int vector, int fd);
	void (*irq_trigger)(void *dev, unsigned int vector);
	void (*dma_done)(void *dev, uint16_t id, int error);
	void (*reset)(void *dev);
};

/**
 * struct vfu_device - a device to serve
 * @ops: what it does
 * @dev: first argument of all of them
 * @mem: where the client's DMA mappings go
 * @region_size: bytes of each region, 0 for none
 * @msix_vectors: number of MSI-X vectors
 * @verbose: 1: log refused messages to stderr, 2: log all
 */
struct vfu_device {
	const struct vfu_ops *ops;
	void *dev;
	struct guest_mem *mem;
	uint64_t region_size[VFIO_PCI_NUM_REGIONS];
	unsigned int msix_vectors;
	int verbose;
};

/*
 * Serve one client until it disconnects. The device is then reset, with no
 * mappings and no eventfds. Returns 0 if the client left between two messages,
 * or a negative errno: -EPROTO if it left in the middle of one, -EMSGSIZE if
 * one was too long even to skip.
 */
int vfu_serve(const struct vfu_device *vdev, int sock);

/*
 * Ask the client to write @len bytes, VFU_MAX_XFER at most, to its memory. Only
 * sends the request, from any thread; ops->dma_done() tells how it went.
 * Returns 0 or a negative errno.
 */
int vfu_dma_write(struct vfu_session *session, uint16_t id, uint64_t iova,
		  const void *buf, size_t len);

#endif /* VFIO_USER_H */
