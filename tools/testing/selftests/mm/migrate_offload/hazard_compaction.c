// SPDX-License-Identifier: GPL-2.0
/* Memory that nobody has mapped, moved by compaction: zram, tmpfs and ext4. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"
#include "disk.h"

#define ZRAM		"/sys/block/zram0/"
#define ZRAM_BYTES	(32UL << 20)

static void zram_block(uint64_t *buf, unsigned long i, uint64_t gen)
{
	unsigned int j;

	/* Half of it cannot be compressed, of a varying length */
	memset(buf, 0, BLOCK);
	for (j = 0; j < 64 + i * 37 % 256; j++)
		buf[j] = (seed ^ gen ^ (i << 20 | j)) * 0x9e3779b97f4a7c15ULL;
}

static bool zram_write(int fd, unsigned long from, unsigned long step)
{
	uint64_t buf[BLOCK / 8];
	unsigned long i;

	for (i = from; i < ZRAM_BYTES / BLOCK; i += step) {
		zram_block(buf, i, 0);
		if (pwrite(fd, buf, BLOCK, i * BLOCK) != BLOCK)
			return false;
	}
	return !fsync(fd);
}

static bool zram_verify(int fd, unsigned long from, unsigned long step)
{
	uint64_t buf[BLOCK / 8], got[BLOCK / 8];
	unsigned long i, wrong = 0;

	ioctl(fd, BLKFLSBUF);
	for (i = from; i < ZRAM_BYTES / BLOCK; i += step) {
		zram_block(buf, i, 0);
		if (pread(fd, got, BLOCK, i * BLOCK) != BLOCK ||
		    memcmp(buf, got, BLOCK))
			wrong++;
	}
	if (wrong)
		ksft_print_msg("WRONG CONTENT: %lu blocks of zram\n", wrong);
	return !wrong;
}

/*
 * Compact until an engine was made use of, and, with @buffers, folios with
 * buffers were to be moved. Return whether an engine was.
 */
static bool compact(bool buffers)
{
	struct counters before, now;
	long moves = probe_hits(BUFFER_MOVES);
	unsigned int i;

	read_counters(&before);
	write_text(KNOBS "reasons", "compaction");
	/* Not every round finds what the test is about */
	for (i = 0; i < 12; i++) {
		write_text("/proc/sys/vm/compact_memory", "1");
		read_counters(&now);
		if (i >= 2 && now.migrated != before.migrated &&
		    (!buffers || moves == ANY ||
		     probe_hits(BUFFER_MOVES) != moves))
			break;
	}
	write_text(KNOBS "reasons", REASON);
	ksft_print_msg("%lu folios were offloaded in compaction\n",
		       now.migrated - before.migrated);
	return now.migrated != before.migrated;
}

/* Every other page of what there is goes, so that compaction has work to do */
static bool compact_around(int zram, int file)
{
	unsigned long i;

	for (i = 0; i < ZRAM_BYTES / BLOCK; i += 2) {
		uint64_t range[] = { i * BLOCK, BLOCK };

		if (ioctl(zram, BLKDISCARD, range) ||
		    fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i * BLOCK, BLOCK)) {
			ksft_perror("cannot make holes");
			return false;
		}
	}
	return compact(false);
}

static bool file_odd_verify(const struct region *r)
{
	struct region page = *r;
	bool ok = true;

	page.len = BLOCK;
	for (page.mem += BLOCK; page.mem < r->mem + r->len;
	     page.mem += 2 * BLOCK)
		ok = ok && region_verify(&page, 0);
	return ok;
}

/* Pages of zram are no folios, but compaction moves them in the same batch */
HAZARD(compaction, "compaction of zram and of a file of tmpfs that is not mapped")
{
	struct region file = { };
	char text[32];
	bool ok = false;
	int fd, memfd;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		return skip("no compaction");
	if (read_text(ZRAM "disksize", text, sizeof(text)) || strcmp(text, "0"))
		return skip("no zram0, or it is in use");
	snprintf(text, sizeof(text), "%lu", ZRAM_BYTES);
	if (write_text(ZRAM "disksize", text))
		return skip("cannot set up zram0");
	fd = open("/dev/zram0", O_RDWR);
	memfd = memfd_create("hazard", 0);
	if (fd >= 0 && map_special(&file, ZRAM_BYTES / BLOCK, memfd) &&
	    zram_write(fd, 0, 1)) {
		/* Not mapped either: nothing but its mapping refers to it */
		munmap(file.map, file.len);
		ok = compact_around(fd, memfd) && zram_verify(fd, 1, 2);
		file.map = mmap(file.map, file.len, PROT_READ, MAP_SHARED |
				MAP_FIXED_NOREPLACE, memfd, 0);
		ok = file.map == file.mem && file_odd_verify(&file) && ok;
	}
	close(fd);
	write_text(ZRAM "reset", "1");
	region_free(&file);
	close(memfd);
	return result(ok);
}

#define FILE_BLOCKS	2048

static bool ext4_file_write(int fd, unsigned long from, unsigned long step,
			    uint64_t gen)
{
	uint64_t buf[BLOCK / 8];
	unsigned long i;

	for (i = from; i < FILE_BLOCKS; i += step) {
		zram_block(buf, i, gen);
		if (pwrite(fd, buf, BLOCK, i * BLOCK) != BLOCK)
			return false;
	}
	return true;
}

static bool ext4_file_verify(int fd, unsigned long from, unsigned long step,
			     uint64_t gen)
{
	uint64_t buf[BLOCK / 8], got[BLOCK / 8];
	unsigned long i, wrong = 0;

	for (i = from; i < FILE_BLOCKS; i += step) {
		zram_block(buf, i, gen);
		if (pread(fd, got, BLOCK, i * BLOCK) != BLOCK ||
		    memcmp(buf, got, BLOCK))
			wrong++;
	}
	if (wrong)
		ksft_print_msg("WRONG CONTENT: %lu blocks of the file\n", wrong);
	return !wrong;
}

/*
 * Nobody has the file mapped. Every other block of it goes, so that compaction has
 * work to do, and half of what stays is dirty. Its folios have buffers, and are
 * for the CPU to copy.
 */
static bool compact_ext4_file(int fd)
{
	long copies, moves;
	unsigned long i;
	bool ok;

	/* In blocks, or it would be one folio */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	if (!ext4_file_write(fd, 0, 1, 0) || fsync(fd))
		return false;
	for (i = 0; i < FILE_BLOCKS; i += 2) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i * BLOCK, BLOCK)) {
			ksft_perror("cannot make holes");
			return false;
		}
	}
	if (!ext4_file_write(fd, 1, 4, 1))
		return false;

	copies = probe_hits(CPU_COPIES);
	moves = probe_hits(BUFFER_MOVES);
	ok = compact(true);
	if (moves != ANY) {
		copies = probe_hits(CPU_COPIES) - copies;
		moves = probe_hits(BUFFER_MOVES) - moves;
		ksft_print_msg("%ld folios with buffers to be moved, %ld copied by the CPU\n",
			       moves, copies);
		/* Some are in use, and not moved */
		ok = ok && moves && copies >= moves / 2;
	}
	return ok;
}

HAZARD(compaction_ext4, "compaction of a file of ext4 that is not mapped")
{
	const char *image = "image";
	bool ok = false;
	struct disk d;
	int fd;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		return skip("no compaction");
	if (no_ext4())
		return skip("%s", no_ext4());
	if (!make_ext4(image, true))
		return skip("mke2fs failed");
	if (!disk_attach(&d, image, IMAGE_BYTES))
		return KSFT_FAIL;
	if (!mount_ext4(&d))
		goto detach;
	fd = open("mnt/file", O_CREAT | O_RDWR, 0600);
	if (fd >= 0) {
		ok = compact_ext4_file(fd);
		ok &= ext4_file_verify(fd, 1, 4, 1);
		ok &= ext4_file_verify(fd, 3, 4, 0);
		/* And on disk */
		ok &= !fsync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		write_text("/proc/sys/vm/drop_caches", "3");
		ok &= ext4_file_verify(fd, 1, 4, 1);
		ok &= ext4_file_verify(fd, 3, 4, 0);
		close(fd);
	}
	ok = !umount("mnt") && ok;
detach:
	disk_detach(&d, IMAGE_BYTES);
	ok = check_ext4(image) && ok;
	unlink(image);
	return result(ok);
}
