/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's memory as a device sees it: a table of DMA mappings, each a
 * window of I/O virtual addresses onto a part of a file.
 */
#ifndef GUEST_MEM_H
#define GUEST_MEM_H

#include <stddef.h>
#include <stdint.h>

#define GUEST_MEM_PAGE		4096u
#define GUEST_MEM_MAX_MAPS	65535u

#define GUEST_MEM_READ		0x1u	/* the device may read */
#define GUEST_MEM_WRITE		0x2u	/* the device may write */

/**
 * enum guest_mem_fault - why an access ended early
 * @GUEST_MEM_OK: it did not
 * @GUEST_MEM_READ_UNMAPPED: no mapping at the source address
 * @GUEST_MEM_READ_DENIED: the source is mapped, but must not be read
 * @GUEST_MEM_WRITE_UNMAPPED: no mapping at the destination address
 * @GUEST_MEM_WRITE_DENIED: the destination is mapped, but must not be written
 *
 * A mapping that came without a file is known, but out of this process's
 * reach; accesses to it are denied.
 */
enum guest_mem_fault {
	GUEST_MEM_OK,
	GUEST_MEM_READ_UNMAPPED,
	GUEST_MEM_READ_DENIED,
	GUEST_MEM_WRITE_UNMAPPED,
	GUEST_MEM_WRITE_DENIED,
};

struct guest_mem;

struct guest_mem *guest_mem_create(void);
void guest_mem_destroy(struct guest_mem *gm);

/*
 * Changes. All return 0 or a negative errno. @fd stays the caller's; -1 makes
 * a mapping without memory. Once an unmap has returned, no access through the
 * removed mappings is under way any more.
 */
int guest_mem_map(struct guest_mem *gm, uint64_t iova, uint64_t size,
		  uint32_t prot, int fd, uint64_t offset);
int guest_mem_unmap(struct guest_mem *gm, uint64_t iova, uint64_t size,
		    uint64_t *unmapped);
uint64_t guest_mem_unmap_all(struct guest_mem *gm);

/*
 * Accesses, from any thread. A range may span mappings that adjoin. A change
 * has to wait for the access under way, so keep each one short.
 *
 * There is none that writes: the client does that, see vfu_dma_write().
 * guest_mem_take() reads from @src, but only as far as @dst may be written.
 */
enum guest_mem_fault guest_mem_read(struct guest_mem *gm, void *buf,
				    uint64_t iova, size_t len);
enum guest_mem_fault guest_mem_take(struct guest_mem *gm, void *buf,
				    uint64_t dst, uint64_t src, size_t len,
				    size_t *taken);

/* How many mappings, and how many mmap()ed files behind them. */
void guest_mem_count(struct guest_mem *gm, size_t *maps, size_t *files);

#endif /* GUEST_MEM_H */
