// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's memory as a device sees it.
 *
 * An IOMMU makes thousands of small mappings of one file. A file is therefore
 * mmap()ed whole, once, and shared by all mappings of it; a mapping is a row
 * in a sorted array.
 *
 * Accesses hold the lock for reading, changes hold it for writing. Writers
 * are preferred, so a device that copies without a break cannot delay an
 * unmap by more than the access under way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "guest-mem.h"

/* A mmap()ed file, shared by all mappings of it. */
struct backing {
	struct backing *next;
	dev_t dev;
	ino_t ino;
	bool writable;
	uint64_t len;
	size_t users;
	uint8_t *base;
};

struct mapping {
	uint64_t first;			/* I/O virtual addresses, */
	uint64_t last;			/* both ends inclusive */
	uint32_t prot;
	struct backing *backing;	/* NULL: out of reach */
	uint64_t offset;		/* of @first in the file */
};

struct guest_mem {
	pthread_rwlock_t lock;
	struct mapping *maps;		/* sorted, no two overlap */
	size_t nr;
	size_t room;
	struct backing *backings;
};

struct guest_mem *guest_mem_create(void)
{
	struct guest_mem *gm = calloc(1, sizeof(*gm));
	pthread_rwlockattr_t attr;

	if (!gm)
		return NULL;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
			PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&gm->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return gm;
}

void guest_mem_destroy(struct guest_mem *gm)
{
	if (!gm)
		return;

	guest_mem_unmap_all(gm);
	pthread_rwlock_destroy(&gm->lock);
	free(gm->maps);
	free(gm);
}

static struct backing *backing_get(struct guest_mem *gm, int fd, bool write,
				   uint64_t end, int *err)
{
	struct backing *b;
	struct stat st;
	bool writable;
	void *base;
	int mode;

	mode = fcntl(fd, F_GETFL);
	if (mode < 0 || fstat(fd, &st)) {
		*err = -errno;
		return NULL;
	}
	mode &= O_ACCMODE;
	writable = mode == O_RDWR;
	if (mode == O_WRONLY || (write && !writable)) {
		*err = -EACCES;
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || end > (uint64_t)st.st_size) {
		*err = -EINVAL;
		return NULL;
	}

	/* A file that has grown since needs a second, longer mmap(). */
	for (b = gm->backings; b; b = b->next) {
		if (b->dev == st.st_dev && b->ino == st.st_ino &&
		    b->writable == writable && b->len >= end) {
			b->users++;
			return b;
		}
	}

	b = calloc(1, sizeof(*b));
	if (!b) {
		*err = -ENOMEM;
		return NULL;
	}
	base = mmap(NULL, st.st_size, PROT_READ | (writable ? PROT_WRITE : 0),
		    MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED) {
		*err = -errno;
		free(b);
		return NULL;
	}

	b->dev = st.st_dev;
	b->ino = st.st_ino;
	b->writable = writable;
	b->len = st.st_size;
	b->users = 1;
	b->base = base;
	b->next = gm->backings;
	gm->backings = b;
	return b;
}

static void backing_put(struct guest_mem *gm, struct backing *b)
{
	struct backing **p = &gm->backings;

	if (!b || --b->users)
		return;

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	munmap(b->base, b->len);
	free(b);
}

/* The first mapping that ends at or after @iova; gm->nr if there is none. */
static size_t find_first(const struct guest_mem *gm, uint64_t iova)
{
	size_t lo = 0, hi = gm->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (gm->maps[mid].last < iova)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Does a range run over the end of the address space? */
static bool wraps(uint64_t start, uint64_t size)
{
	return size && size - 1 > UINT64_MAX - start;
}

static bool range_valid(uint64_t start, uint64_t size)
{
	return size && !wraps(start, size) &&
	       !(start % GUEST_MEM_PAGE) && !(size % GUEST_MEM_PAGE);
}

static int make_room(struct guest_mem *gm)
{
	struct mapping *maps;
	size_t room;

	if (gm->nr >= GUEST_MEM_MAX_MAPS)
		return -ENOSPC;
	if (gm->nr < gm->room)
		return 0;

	room = gm->room ? gm->room * 2 : 64;
	maps = realloc(gm->maps, room * sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	gm->maps = maps;
	gm->room = room;
	return 0;
}

static int map_locked(struct guest_mem *gm, struct mapping *new, int fd)
{
	uint64_t last_byte = new->offset + (new->last - new->first);
	size_t i = find_first(gm, new->first);
	int err;

	if (i < gm->nr && gm->maps[i].first <= new->last)
		return -EEXIST;

	err = make_room(gm);
	if (err)
		return err;

	if (fd >= 0) {
		new->backing = backing_get(gm, fd, new->prot & GUEST_MEM_WRITE,
					   last_byte + 1, &err);
		if (!new->backing)
			return err;
	}

	memmove(&gm->maps[i + 1], &gm->maps[i],
		(gm->nr - i) * sizeof(*gm->maps));
	gm->maps[i] = *new;
	gm->nr++;
	return 0;
}

int guest_mem_map(struct guest_mem *gm, uint64_t iova, uint64_t size,
		  uint32_t prot, int fd, uint64_t offset)
{
	struct mapping new = {
		.first = iova,
		.last = iova + (size - 1),
		.prot = prot,
		.offset = offset,
	};
	int err;

	if (!prot || prot & ~(GUEST_MEM_READ | GUEST_MEM_WRITE))
		return -EINVAL;
	if (!range_valid(iova, size))
		return -EINVAL;
	if (offset % GUEST_MEM_PAGE || size > UINT64_MAX - offset)
		return -EINVAL;

	pthread_rwlock_wrlock(&gm->lock);
	err = map_locked(gm, &new, fd);
	pthread_rwlock_unlock(&gm->lock);
	return err;
}

/* Drop the mappings [from, to) of the table; returns their bytes. */
static uint64_t drop_locked(struct guest_mem *gm, size_t from, size_t to)
{
	uint64_t bytes = 0;
	size_t i;

	if (from == to)
		return 0;

	for (i = from; i < to; i++) {
		bytes += gm->maps[i].last - gm->maps[i].first + 1;
		backing_put(gm, gm->maps[i].backing);
	}
	memmove(&gm->maps[from], &gm->maps[to],
		(gm->nr - to) * sizeof(*gm->maps));
	gm->nr -= to - from;
	return bytes;
}

/*
 * As VFIO has it: a range that holds no mapping is no error, and one that
 * would cut a mapping in two is.
 */
int guest_mem_unmap(struct guest_mem *gm, uint64_t iova, uint64_t size,
		    uint64_t *unmapped)
{
	uint64_t last = iova + (size - 1);
	size_t from, to;
	int err = 0;

	*unmapped = 0;
	if (!range_valid(iova, size))
		return -EINVAL;

	pthread_rwlock_wrlock(&gm->lock);
	from = find_first(gm, iova);
	for (to = from; to < gm->nr && gm->maps[to].first <= last; to++) {
		if (gm->maps[to].first < iova || gm->maps[to].last > last) {
			err = -EINVAL;
			break;
		}
	}
	if (!err)
		*unmapped = drop_locked(gm, from, to);
	pthread_rwlock_unlock(&gm->lock);
	return err;
}

uint64_t guest_mem_unmap_all(struct guest_mem *gm)
{
	uint64_t bytes;

	pthread_rwlock_wrlock(&gm->lock);
	bytes = drop_locked(gm, 0, gm->nr);
	pthread_rwlock_unlock(&gm->lock);
	return bytes;
}

/*
 * Find the memory at @iova. *@len is cut to what is contiguous in this
 * process.
 */
static uint8_t *resolve(const struct guest_mem *gm, uint64_t iova,
			uint32_t prot, size_t *len, enum guest_mem_fault *fault)
{
	bool write = prot & GUEST_MEM_WRITE;
	size_t i = find_first(gm, iova);
	const struct mapping *map;
	uint64_t left;

	if (i == gm->nr || gm->maps[i].first > iova) {
		*fault = write ? GUEST_MEM_WRITE_UNMAPPED :
				 GUEST_MEM_READ_UNMAPPED;
		return NULL;
	}
	map = &gm->maps[i];
	if (!map->backing || !(map->prot & prot)) {
		*fault = write ? GUEST_MEM_WRITE_DENIED :
				 GUEST_MEM_READ_DENIED;
		return NULL;
	}

	left = map->last - iova;
	if (*len && *len - 1 > left)
		*len = left + 1;
	return map->backing->base + map->offset + (iova - map->first);
}

enum guest_mem_fault guest_mem_read(struct guest_mem *gm, void *buf,
				    uint64_t iova, size_t len)
{
	enum guest_mem_fault fault = GUEST_MEM_OK;
	uint8_t *to = buf;

	if (wraps(iova, len))
		return GUEST_MEM_READ_UNMAPPED;

	pthread_rwlock_rdlock(&gm->lock);
	while (len) {
		size_t n = len;
		uint8_t *from = resolve(gm, iova, GUEST_MEM_READ, &n, &fault);

		if (!from)
			break;
		memcpy(to, from, n);
		to += n;
		iova += n;
		len -= n;
	}
	pthread_rwlock_unlock(&gm->lock);
	return fault;
}

enum guest_mem_fault guest_mem_take(struct guest_mem *gm, void *buf,
				    uint64_t dst, uint64_t src, size_t len,
				    size_t *taken)
{
	enum guest_mem_fault fault = GUEST_MEM_OK;

	*taken = 0;
	if (wraps(src, len))
		return GUEST_MEM_READ_UNMAPPED;
	if (wraps(dst, len))
		return GUEST_MEM_WRITE_UNMAPPED;

	pthread_rwlock_rdlock(&gm->lock);
	while (len) {
		size_t n = len;
		uint8_t *from;

		from = resolve(gm, src, GUEST_MEM_READ, &n, &fault);
		if (!from)
			break;
		if (!resolve(gm, dst, GUEST_MEM_WRITE, &n, &fault))
			break;
		memcpy((uint8_t *)buf + *taken, from, n);
		*taken += n;
		src += n;
		dst += n;
		len -= n;
	}
	pthread_rwlock_unlock(&gm->lock);
	return fault;
}

void guest_mem_count(struct guest_mem *gm, size_t *maps, size_t *files)
{
	struct backing *b;

	pthread_rwlock_rdlock(&gm->lock);
	*maps = gm->nr;
	*files = 0;
	for (b = gm->backings; b; b = b->next)
		(*files)++;
	pthread_rwlock_unlock(&gm->lock);
}
