// SPDX-License-Identifier: GPL-2.0
/*
 * Block devices, and ext4 on them: metadata with buffer heads that changes while
 * it is moved, and files.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <linux/fiemap.h>
#include <linux/fs.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"
#include "disk.h"
#include "io.h"

/* How long the tests that are not deterministic go on */
#define STRESS_NS	(8 * 1000000000ULL)

/* Where the first block of a directory is on disk, or 0 */
static off_t dir_block(const char *path)
{
	struct {
		struct fiemap map;
		struct fiemap_extent extent;
	} f = {
		.map = {
			.fm_length = BLOCK,
			.fm_flags = FIEMAP_FLAG_SYNC,
			.fm_extent_count = 1,
		},
	};
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	int err;

	if (fd < 0)
		return 0;
	err = ioctl(fd, FS_IOC_FIEMAP, &f.map);
	close(fd);
	return err || !f.map.fm_mapped_extents ? 0 : f.extent.fe_physical;
}

/*
 * Start a rename that waits for the disk to give the block of the directory at
 * @new. Another reader of the disk may have had that block cached again, or keep
 * it from being dropped; then the rename ends at once, and is taken back.
 */
static bool rename_until_held(struct held_file *f, struct disk *d,
			      struct io *io, off_t new)
{
	unsigned int attempt;

	for (attempt = 0; attempt < 20; attempt++) {
		if (ioctl(d->fd, BLKFLSBUF))
			ksft_perror("BLKFLSBUF");
		held_file_hold(f, new, BLOCK);
		io->done = false;
		if (!io_start(io))
			return false;
		if (wait_for(held_file_is_held(f) || io->done) &&
		    held_file_is_held(f))
			return true;
		held_file_release(f);
		if (!io_join(io, 0) || rename(io->to, io->from))
			return false;
		sync();
	}
	ksft_print_msg("rename does not read the directory\n");
	return false;
}

/*
 * A rename that has found the entry to delete, and waits for the disk to give
 * the directory that the new entry goes to, has a buffer head of the old
 * directory but no reference to its folio. It goes on while the folio is held
 * between copy and move.
 */
static bool rename_in_window(struct held_file *f, struct disk *d)
{
	struct io rename = {
		.from = "mnt/old/name",
		.to = "mnt/new/name",
	};
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = 1 };
	off_t old, new;
	struct batch b;
	struct stat st;
	bool ok;

	old = dir_block("mnt/old");
	new = dir_block("mnt/new");
	if (!old || !new) {
		ksft_print_msg("directories have no blocks\n");
		return false;
	}
	if (!batch_init(&b, 1))
		return false;
	b.addrs[0] = d->map + old;
	/* The new name is not there, and nobody must look once more */
	ok = stat(rename.from, &st) == 0 && stat(rename.to, &st) < 0;
	sync();
	FORCE_READ(d->map[old]);
	ok = ok && batch_home(&b) && rename_until_held(f, d, &rename, new);
	if (ok) {
		ok = batch_hold(&b, NR_ORDINARY);
		held_file_release(f);
		ok &= io_join(&rename, 0);
		if (b.running)
			ok &= batch_release(&b);
		ok &= batch_check(&b, &want);
	}
	batch_free(&b);
	return ok;
}

HAZARD(buffer_heads, "block device: a rename goes on between copy and move")
{
	struct held_file f = { .size = IMAGE_BYTES, .direct = true };
	const char *image = "image";
	bool ok = false;
	struct disk d;
	int fd;

	if (no_ext4())
		return skip("%s", no_ext4());
	if (access("/dev/fuse", F_OK))
		return skip("no /dev/fuse");
	/* A journal would keep a reference to the buffer head */
	if (!make_ext4(image, false))
		return skip("mke2fs failed");
	fd = open(image, O_RDWR);
	f.data = mmap(NULL, f.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (f.data == MAP_FAILED || !held_file_mount(&f, "disk"))
		return KSFT_FAIL;

	if (!disk_attach(&d, f.path, f.size))
		goto umount_file;
	if (!mount_ext4(&d))
		goto detach;
	ok = !mkdir("mnt/old", 0700) && !mkdir("mnt/new", 0700) &&
	     make_file("mnt/old/name", "content", 7);
	sync();
	ok = ok && rename_in_window(&f, &d);
	if (umount("mnt")) {
		ksft_perror("umount");
		umount2("mnt", MNT_DETACH);
		ok = false;
	}
detach:
	disk_detach(&d, f.size);
umount_file:
	held_file_umount(&f);
	munmap(f.data, f.size);
	ok = check_ext4(image) && ok;
	unlink(image);
	return result(ok);
}

/* What there must be in the filesystem; a name is a number */
#define NR_NAMES	128
#define NAME_LEN	32

struct names {
	unsigned int version[NR_NAMES];		/* 0: no such file */
	bool in_sub[NR_NAMES];
};

static void name_path(char *path, const struct names *n, unsigned int i)
{
	snprintf(path, NAME_LEN, "mnt/%sf%u", n->in_sub[i] ? "sub/" : "", i);
}

static size_t name_content(char *buf, unsigned int i, unsigned int version)
{
	size_t len = 100 + (i * 977 + version * 131) % 6000, j;

	for (j = 0; j < len; j++)
		buf[j] = i * 31 + version * 17 + j;
	return len;
}

/* One operation on metadata, of the @nr-th name */
static bool name_change(struct names *n, unsigned int i, unsigned int version)
{
	char path[NAME_LEN], other[NAME_LEN], buf[8192];
	size_t len;

	name_path(path, n, i);
	if (!n->version[i]) {
		len = name_content(buf, i, version);
		n->version[i] = version;
		return make_file(path, buf, len) &&
		       !setxattr(path, "user.version", &version,
				 sizeof(version), 0);
	}
	switch (version % 3) {
	case 0:
		n->version[i] = 0;
		return !unlink(path);
	case 1:
		n->in_sub[i] = !n->in_sub[i];
		name_path(other, n, i);
		return !rename(path, other);
	default:
		return !chmod(path, 0600 | (version & 077));
	}
}

static bool names_verify(const struct names *n)
{
	char path[NAME_LEN], want[8192], got[8192];
	unsigned int i, version, wrong = 0;

	for (i = 0; i < NR_NAMES; i++) {
		size_t len = name_content(want, i, n->version[i]);
		ssize_t size;
		int fd;

		name_path(path, n, i);
		fd = open(path, O_RDONLY);
		if (!n->version[i]) {
			wrong += fd >= 0;
		} else {
			size = fd < 0 ? -1 : read(fd, got, sizeof(got));
			wrong += size != (ssize_t)len ||
				 memcmp(want, got, len) ||
				 getxattr(path, "user.version", &version,
					  sizeof(version)) < 0 ||
				 version != n->version[i];
		}
		if (fd >= 0)
			close(fd);
	}
	if (wrong)
		ksft_print_msg("WRONG CONTENT: %u of %u files\n", wrong,
			       NR_NAMES);
	return !wrong;
}

struct changer {
	struct names names;
	pthread_t thread;
	atomic_bool stop;
	bool failed;
	unsigned int nr;
};

static void *changer_thread(void *arg)
{
	struct changer *c = arg;
	unsigned int i;

	for (c->nr = 1; !c->stop && !c->failed; c->nr++) {
		i = (c->nr * 2654435761U >> 8) % NR_NAMES;
		if (!name_change(&c->names, i, c->nr)) {
			ksft_perror("change of metadata");
			c->failed = true;
		}
		if (c->nr % 512 == 0)
			sync();
	}
	return NULL;
}

/*
 * Move what is cached of the disk to and fro, with ordinary memory. mincore() does
 * not see what has only been read through buffer heads, so add where ext4 has its
 * bitmaps, inodes and directories.
 */
#define METADATA_BLOCKS	320

static bool move_disk(struct disk *d, struct changer *c, unsigned long *moved)
{
	const size_t nr = IMAGE_BYTES / BLOCK;
	const off_t dirs[] = { dir_block("mnt"), dir_block("mnt/sub") };
	unsigned char *cached = malloc(nr);
	uint64_t until = now_ns() + STRESS_NS;
	struct region ordinary;
	struct move m;
	bool ok = true;
	size_t i;
	int node;

	if (!cached || !region_alloc(&ordinary, psize(),
				     NR_ORDINARY * psize()))
		return false;
	region_fill(&ordinary, 1);
	for (node = node_b; ok && now_ns() < until && !c->failed;
	     node = node_a + node_b - node) {
		if (mincore(d->map, IMAGE_BYTES, cached)) {
			ok = false;
			break;
		}
		memset(cached, 1, METADATA_BLOCKS);
		for (i = 0; i < ARRAY_SIZE(dirs); i++)
			cached[dirs[i] / BLOCK] = 1;
		move_alloc(&m, nr + NR_ORDINARY);
		move_set_region(&m, &ordinary);
		m.nr = NR_ORDINARY;
		for (i = 0; i < nr; i++) {
			if (!(cached[i] & 1))
				continue;
			FORCE_READ(d->map[i * BLOCK]);
			m.addrs[m.nr++] = d->map + i * BLOCK;
		}
		ok = move_to(&m, node, true);
		for (i = NR_ORDINARY; i < m.nr; i++)
			*moved += m.query[i] == node;
		ok = region_verify(&ordinary, 1) && ok;
		move_free(&m);
	}
	region_free(&ordinary);
	free(cached);
	return ok;
}

static int ext4_stress(bool journal)
{
	const char *image = "image";
	struct changer c = { };
	unsigned long moved = 0;
	struct counters before, now;
	bool ok = false;
	struct disk d;

	if (no_ext4())
		return skip("%s", no_ext4());
	if (!make_ext4(image, journal))
		return skip("mke2fs failed");
	if (!disk_attach(&d, image, IMAGE_BYTES))
		return KSFT_FAIL;
	if (!mount_ext4(&d))
		goto detach;
	if (mkdir("mnt/sub", 0700) ||
	    pthread_create(&c.thread, NULL, changer_thread, &c))
		goto umount;

	read_counters(&before);
	engine_set("delay_us", 500);
	ok = move_disk(&d, &c, &moved);
	engine_set("delay_us", 0);
	read_counters(&now);
	c.stop = true;
	pthread_join(c.thread, NULL);
	ksft_print_msg("%u changes of metadata, %lu blocks were moved, %lu folios were offloaded\n",
		       c.nr, moved, now.migrated - before.migrated);
	ok = ok && !c.failed && moved && now.migrated != before.migrated;
umount:
	ok = !umount("mnt") && ok;
	write_text("/proc/sys/vm/drop_caches", "3");
	ok = check_ext4(d.path) && ok;
	ok = mount_ext4(&d) && names_verify(&c.names) && ok;
	umount("mnt");
detach:
	disk_detach(&d, IMAGE_BYTES);
	ok = check_ext4(image) && ok;
	unlink(image);
	return result(ok);
}

HAZARD(ext4_journal, "ext4 under change while its metadata is moved")
{
	return ext4_stress(true);
}

HAZARD(ext4_no_journal, "ext4 without a journal, the same")
{
	return ext4_stress(false);
}

/* Of a file that is on disk: is it there after all, too? */
static int move_ext4_file(bool dirty)
{
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = NR_SPECIAL };
	const char *image = "image";
	struct region special = { };
	bool ok = false;
	struct batch b;
	struct disk d;
	int fd;

	if (no_ext4())
		return skip("%s", no_ext4());
	if (!make_ext4(image, true))
		return skip("mke2fs failed");
	if (!disk_attach(&d, image, IMAGE_BYTES))
		return KSFT_FAIL;
	if (!mount_ext4(&d))
		goto detach;
	fd = open("mnt/file", O_CREAT | O_RDWR, 0600);
	/* One by one, or they would be one folio */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	if (!map_special(&special, NR_SPECIAL, fd))
		goto umount;
	fsync(fd);
	if (!batch_init(&b, NR_SPECIAL))
		goto umount;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	if (dirty)
		region_fill(&special, 1);
	ok = ok && batch_run(&b) && special_moved(&b, &special, &want, dirty);
	batch_free(&b);

	fsync(fd);
	munmap(special.map, special.map_len);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	write_text("/proc/sys/vm/drop_caches", "3");
	ok = file_verify(fd, &special, dirty) && ok;
umount:
	region_free(&special);
	close(fd);
	ok = !umount("mnt") && ok;
detach:
	disk_detach(&d, IMAGE_BYTES);
	ok = check_ext4(image) && ok;
	unlink(image);
	return result(ok);
}

HAZARD(ext4_clean, "file of ext4, clean")
{
	return move_ext4_file(false);
}

HAZARD(ext4_dirty, "file of ext4, dirty")
{
	return move_ext4_file(true);
}
