// SPDX-License-Identifier: GPL-2.0
/*
 * Every way in which it could go wrong to copy folios ahead of the move. Each
 * test moves folios of a special kind together with ordinary ones, most of them
 * with something happening to the special ones between the copy and the move,
 * and verifies the content of all.
 *
 * Needs dcbm, and dma-sim as its engine: test_migrate_offload_hazards.sh loads
 * them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <linux/aio_abi.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <linux/mempolicy.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "migrate_offload_window.h"
#include "../../../../mm/gup_test.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define KPF_SWAPCACHE	BIT_ULL(13)
#define KPF_KSM		BIT_ULL(21)
/* Only for the kernel's own tools, as it says in linux/kernel-page-flags.h */
#define KPF_MLOCKED	BIT_ULL(33)

#define NR_SPECIAL	8
#define BLOCK		4096
#define IMAGE_BYTES	(16UL << 20)
#define HOLD_MS		"60000"
/* That of move_pages() */
#define REASON		"syscall_or_cpuset"
#define HWPOISON	"/sys/kernel/debug/hwpoison/"
#define MAX_BATCH	"/sys/module/migrate/parameters/max_batch_bytes"
#define MEMORY		"/sys/devices/system/memory/"
/* Folios that a migrator gets at once */
#define MAX_PAIRS	512

/* How long the tests that are not deterministic go on */
#define STRESS_NS	(8 * 1000000000ULL)

/* Why a test was skipped */
static char why[256];
/* A tmpfs of our own, which we work in, and which goes when we go */
static char dir[32];

static int __printf(1, 2) skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	return KSFT_SKIP;
}

static int result(bool ok)
{
	return ok ? KSFT_PASS : KSFT_FAIL;
}

static int __printf(1, 2) run(const char *fmt, ...)
{
	char command[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	return system(command);
}

static unsigned long pfn_of(void *addr)
{
	return pagemap_get_pfn(pagemap_fd, addr);
}

static uint64_t flags_of(void *addr)
{
	uint64_t flags = 0;

	pageflags_get(pfn_of(addr), kpageflags_fd, &flags);
	return flags;
}

/* What a test sees that is the same for all kinds of memory of ours */
static bool special_moved(struct batch *b, struct region *special,
			  const struct outcome *want, uint64_t gen)
{
	bool ok = batch_check(b, want);

	return region_verify(special, gen) && ok;
}

/* ---- two CPUs: one for who moves, one for who gets in the way ------------ */

struct two_cpus {
	cpu_set_t all, first, last;
};

static void run_on(const cpu_set_t *cpus)
{
	sched_setaffinity(0, sizeof(*cpus), cpus);
}

/* From here on, this thread and those that it creates run on the first one */
static bool two_cpus_take(struct two_cpus *c)
{
	int cpu;

	CPU_ZERO(&c->first);
	CPU_ZERO(&c->last);
	if (sched_getaffinity(0, sizeof(c->all), &c->all) ||
	    CPU_COUNT(&c->all) < 2)
		return false;
	for (cpu = 0; !CPU_ISSET(cpu, &c->all); cpu++)
		;
	CPU_SET(cpu, &c->first);
	for (cpu = CPU_SETSIZE - 1; !CPU_ISSET(cpu, &c->all); cpu--)
		;
	CPU_SET(cpu, &c->last);
	run_on(&c->first);
	return true;
}

static void two_cpus_give(struct two_cpus *c)
{
	run_on(&c->all);
}

/* ---- threads that are in the kernel while a batch is held --------------- */

struct io {
	int fd;
	void *buf;
	size_t len;
	off_t off;
	bool is_write;
	const char *from, *to;		/* to rename instead */
	int udmabuf;			/* to pin and write by way of, if any */
	const cpu_set_t *cpus;		/* where it runs, unless anywhere */

	pthread_t thread;
	atomic_int tid;
	atomic_bool done;
	ssize_t ret;
	int err;
};

/* Have the folios of a memfd pinned, without a page table, and write to them */
static ssize_t udmabuf_write(const struct io *io)
{
	struct udmabuf_create create = {
		.memfd = io->fd, .offset = io->off, .size = io->len,
	};
	int dmabuf = ioctl(io->udmabuf, UDMABUF_CREATE, &create);
	ssize_t ret = -1;
	char *mem;

	if (dmabuf < 0)
		return -1;
	mem = mmap(NULL, io->len, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, 0);
	if (mem != MAP_FAILED) {
		memcpy(mem, io->buf, io->len);
		munmap(mem, io->len);
		ret = io->len;
	}
	close(dmabuf);
	return ret;
}

static void *io_thread(void *arg)
{
	struct io *io = arg;

	if (io->cpus)
		sched_setaffinity(0, sizeof(*io->cpus), io->cpus);
	io->tid = gettid();
	errno = 0;
	if (io->from)
		io->ret = rename(io->from, io->to);
	else if (io->udmabuf)
		io->ret = udmabuf_write(io);
	else if (io->is_write)
		io->ret = pwrite(io->fd, io->buf, io->len, io->off);
	else
		io->ret = pread(io->fd, io->buf, io->len, io->off);
	io->err = errno;
	io->done = true;
	return NULL;
}

static bool io_start(struct io *io)
{
	return !pthread_create(&io->thread, NULL, io_thread, io);
}

static bool io_blocks(struct io *io)
{
	if (wait_for(io->done || thread_blocks(io->tid)) && !io->done)
		return true;
	ksft_print_msg("input or output did not wait for the batch\n");
	return false;
}

static bool io_join(struct io *io, ssize_t want)
{
	if (!wait_for(io->done)) {
		ksft_print_msg("input or output does not end\n");
		return false;
	}
	pthread_join(io->thread, NULL);
	if (io->ret == want)
		return true;
	ksft_print_msg("input or output: %zd of %zd: %s\n", io->ret, want,
		       strerror(io->err));
	return false;
}

/* ---- block devices and ext4 -------------------------------------------- */

struct disk {
	char path[32];
	int fd;
	char *map;
};

/* Attach a file to a loop device, which is given up when nobody uses it */
static bool disk_attach(struct disk *d, const char *path, size_t size)
{
	struct loop_config config = {
		.fd = open(path, O_RDWR),
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int ctl, nr;

	ctl = open("/dev/loop-control", O_RDWR);
	if (ctl < 0 || (int)config.fd < 0)
		return false;
	nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	snprintf(d->path, sizeof(d->path), "/dev/loop%d", nr);
	d->fd = open(d->path, O_RDWR);
	if (nr < 0 || d->fd < 0 || ioctl(d->fd, LOOP_CONFIGURE, &config)) {
		ksft_perror(d->path);
		close(config.fd);
		return false;
	}
	close(config.fd);
	/* udev looks at each new disk, and would read ahead what we need unread */
	run("udevadm settle --timeout=30 > /dev/null 2>&1");
	/* What is moved shall be what was touched, in single pages */
	posix_fadvise(d->fd, 0, 0, POSIX_FADV_RANDOM);
	d->map = mmap(NULL, size, PROT_READ, MAP_SHARED, d->fd, 0);
	if (d->map == MAP_FAILED) {
		close(d->fd);
		return false;
	}
	madvise(d->map, size, MADV_RANDOM);
	return true;
}

static void disk_detach(struct disk *d, size_t size)
{
	munmap(d->map, size);
	ioctl(d->fd, LOOP_CLR_FD);
	close(d->fd);
}

static bool mount_ext4(const struct disk *d)
{
	if (!mkdir("mnt", 0700) || errno == EEXIST)
		if (!mount(d->path, "mnt", "ext4", 0, NULL))
			return true;
	ksft_perror("mount ext4");
	return false;
}

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

static bool make_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, data, len) == (ssize_t)len;
	close(fd);
	return ok;
}

static const char *no_ext4(void)
{
	if (run("command -v mke2fs e2fsck > /dev/null"))
		return "no mke2fs or e2fsck";
	if (access("/dev/loop-control", F_OK))
		return "no loop devices";
	if (run("grep -qw ext4 /proc/filesystems"))
		return "no ext4";
	return NULL;
}

static bool make_ext4(const char *path, bool journal)
{
	if (truncate(path, IMAGE_BYTES) && !make_file(path, "", 0))
		return false;
	if (truncate(path, IMAGE_BYTES))
		return false;
	return !run("mke2fs -q -F -t ext4 -b %d -O %shas_journal,^dir_index %s > mke2fs.log 2>&1",
		    BLOCK, journal ? "" : "^", path);
}

static bool check_ext4(const char *path)
{
	if (!run("e2fsck -fn %s > e2fsck.log 2>&1", path))
		return true;
	fflush(stdout);
	run("sed 's/^/# e2fsck: /' e2fsck.log | head -n 20");
	return false;
}

/*
 * Start a rename that waits for the disk to give the block of the directory at
 * @new. Whoever reads the disk too may have had that block cached again, or keep
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

static int test_buffer_heads(void)
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
 * not see what has only been read by way of buffer heads, so add where ext4 has its
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

static int test_ext4_journal(void)
{
	return ext4_stress(true);
}

static int test_ext4_no_journal(void)
{
	return ext4_stress(false);
}

/* ---- files ------------------------------------------------------------- */

static bool file_verify(int fd, const struct region *r, uint64_t gen)
{
	struct region copy = *r;
	bool ok;

	/* The pattern depends on the address, so put it to the same place */
	copy.mem = mmap(r->mem, r->len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (copy.mem == MAP_FAILED)
		return false;
	ok = pread(fd, copy.mem, r->len, 0) == (ssize_t)r->len;
	return ok && region_verify(&copy, gen);
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

static int test_ext4_clean(void)
{
	return move_ext4_file(false);
}

static int test_ext4_dirty(void)
{
	return move_ext4_file(true);
}

/*
 * iomap takes whatever is in folio->private for its own, and asks no flag: the
 * mark of the core must not be left there when the folio has been moved.
 */
static int test_iomap(void)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct held_file f = { .size = NR_SPECIAL * psize() };
	struct region special = { }, data = { };
	bool ok = false;
	struct batch b;
	int fd;

	if (access("/dev/fuse", F_OK))
		return skip("no /dev/fuse");
	if (!map_special(&data, NR_SPECIAL, -1) || !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	f.data = data.mem;
	if (!held_file_mount(&f, "iomap"))
		return KSFT_FAIL;
	fd = open(f.path, O_RDWR);
	if (map_special(&special, NR_SPECIAL, fd)) {
		batch_add_region(&b, 0, &special);
		ok = !msync(special.mem, special.len, MS_SYNC) &&
		     batch_home(&b) && batch_run(&b) &&
		     special_moved(&b, &special, &want, 0);
		/* It looks there when it writes back */
		region_fill(&special, 1);
		ok &= !msync(special.mem, special.len, MS_SYNC);
		ok &= !memcmp(special.mem, data.mem, data.len);
	}
	batch_free(&b);
	region_free(&special);
	close(fd);
	held_file_umount(&f);
	region_free(&data);
	return result(ok);
}

static int test_tmpfs(void)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	int fd = memfd_create("hazard", 0);
	struct region special = { };
	struct batch b;
	bool ok;

	if (!batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	ok = map_special(&special, NR_SPECIAL, fd);
	batch_add_region(&b, 0, &special);
	ok = ok && batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, &special, &want, 0) &&
	     file_verify(fd, &special, 0);
	batch_free(&b);
	region_free(&special);
	close(fd);
	return result(ok);
}

/* A write while the folio is held has to wait, and must be there afterwards */
static bool memfd_write(int udmabuf)
{
	struct outcome want = {
		.offloaded = NR_SPECIAL + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	int fd = memfd_create("hazard", MFD_ALLOW_SEALING);
	struct region special = { }, data = { };
	struct io write = { .fd = fd, .is_write = true, .udmabuf = udmabuf };
	struct batch b;
	bool ok;

	if (!batch_init(&b, NR_SPECIAL))
		return false;
	ok = map_special(&special, NR_SPECIAL, fd) &&
	     map_special(&data, NR_SPECIAL, -1) &&
	     !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	batch_add_region(&b, 0, &special);
	write.buf = data.mem;
	write.len = data.len;
	region_fill(&data, 1);
	ok = ok && batch_home(&b) &&
	     batch_hold(&b, NR_SPECIAL + NR_ORDINARY);
	if (ok) {
		ok = io_start(&write) && io_blocks(&write);
		ok &= batch_release(&b);
		ok &= io_join(&write, data.len);
		ok &= batch_check(&b, &want);
		if (memcmp(special.mem, data.mem, data.len)) {
			ksft_print_msg("WRONG CONTENT: what was written is lost\n");
			ok = false;
		}
	}
	batch_free(&b);
	region_free(&special);
	region_free(&data);
	close(fd);
	return ok;
}

static int test_tmpfs_write(void)
{
	return result(memfd_write(0));
}

static int with_udmabuf(bool (*test)(int udmabuf))
{
	int udmabuf = open("/dev/udmabuf", O_RDWR);
	bool ok;

	if (udmabuf < 0)
		return skip("no /dev/udmabuf");
	ok = test(udmabuf);
	close(udmabuf);
	return result(ok);
}

static int test_pin_memfd(void)
{
	return with_udmabuf(memfd_write);
}

/*
 * A process that pins a whole file waits for its first folio. Meanwhile the
 * others can be moved: nobody has a reference to them.
 */
static bool pin_memfd_others(int udmabuf)
{
	struct outcome want = {
		.offloaded = 1 + NR_ORDINARY, .cpu = ANY, .unmoved = ANY,
	};
	int fd = memfd_create("hazard", MFD_ALLOW_SEALING), err;
	struct region special = { }, data = { };
	struct io write = { .fd = fd, .is_write = true, .udmabuf = udmabuf };
	struct batch b;
	bool ok;

	if (!batch_init(&b, 1))
		return false;
	ok = map_special(&special, NR_SPECIAL, fd) &&
	     map_special(&data, NR_SPECIAL, -1) &&
	     !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	b.addrs[0] = special.mem;
	write.buf = data.mem;
	write.len = data.len;
	region_fill(&data, 1);
	ok = ok && batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		ok = io_start(&write) && io_blocks(&write);
		/* For another reason, which is left to the CPU */
		err = mbind_to_node(special.mem + psize(),
				    special.len - psize(), node_b,
				    MPOL_MF_MOVE | MPOL_MF_STRICT);
		if (err) {
			ksft_print_msg("other folios cannot be moved: %s\n",
				       strerror(-err));
			ok = false;
		}
		ok &= batch_release(&b);
		ok &= io_join(&write, data.len);
		ok &= batch_check(&b, &want);
		if (memcmp(special.mem, data.mem, data.len)) {
			ksft_print_msg("WRONG CONTENT: what was written is lost\n");
			ok = false;
		}
	}
	batch_free(&b);
	region_free(&special);
	region_free(&data);
	close(fd);
	return ok;
}

static int test_pin_memfd_others(void)
{
	return with_udmabuf(pin_memfd_others);
}

static bool file_blocks_are(int fd, long want)
{
	struct stat st;

	if (fstat(fd, &st) || st.st_blocks * 512 == want)
		return true;
	ksft_print_msg("%ld bytes of the file were allocated, should be %ld\n",
		       (long)st.st_blocks * 512, want);
	return false;
}

/*
 * A process that pins a whole file is killed while it waits for the first
 * folio. The rest of the file is a hole, which it would fill if it went on.
 */
static bool pin_memfd_killed(int udmabuf)
{
	struct outcome want = {
		.offloaded = 1 + NR_ORDINARY, .cpu = ANY, .unmoved = ANY,
	};
	struct udmabuf_create create = { .size = NR_SPECIAL * psize() };
	struct region special = { };
	struct batch b;
	pid_t pid;
	bool ok;

	create.memfd = memfd_create("hazard", MFD_ALLOW_SEALING);
	if (!batch_init(&b, 1))
		return false;
	ok = map_special(&special, 1, create.memfd) &&
	     !ftruncate(create.memfd, create.size) &&
	     !fcntl(create.memfd, F_ADD_SEALS, F_SEAL_SHRINK);
	batch_add_region(&b, 0, &special);
	ok = ok && batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		pid = fork();
		if (!pid) {
			ioctl(udmabuf, UDMABUF_CREATE, &create);
			_exit(0);
		}
		ok = pid > 0 && wait_for(thread_blocks(pid));
		if (!ok)
			ksft_print_msg("the pin did not wait for the batch\n");
		if (pid > 0)
			kill(pid, SIGKILL);
		ok &= batch_release(&b);
		if (pid > 0)
			waitpid(pid, NULL, 0);
		ok &= batch_check(&b, &want);
		ok &= file_blocks_are(create.memfd, psize());
		ok &= region_verify(&special, 0);
		/* Nothing is left pinned */
		ok = ok && batch_home(&b);
	}
	batch_free(&b);
	region_free(&special);
	close(create.memfd);
	return ok;
}

static int test_pin_memfd_killed(void)
{
	return with_udmabuf(pin_memfd_killed);
}

/* ---- secretmem --------------------------------------------------------- */

#define SECRET_WORDS	512

/* Not to be found anywhere but where it was put; not constant in our text */
static uint64_t secret_word(unsigned int i)
{
	return (seed ^ 0x5ec4e7) * (2 * i + 0x9e3779b97f4a7c15ULL);
}

static bool secret_in_page(const uint64_t *page)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		if (page[i] != secret_word(i))
			return false;
	return true;
}

struct kcore_segment {
	uint64_t phys, len, off;
};

/* Where /proc/kcore has ordinary memory */
static int kcore_segments(int fd, struct kcore_segment *s, int max)
{
	struct {
		unsigned char ident[16];
		uint16_t type, machine;
		uint32_t version;
		uint64_t entry, phoff, shoff;
		uint32_t flags;
		uint16_t ehsize, phentsize, phnum;
	} head;
	struct {
		uint32_t type, flags;
		uint64_t off, vaddr, paddr, filesz, memsz, align;
	} ph;
	int i, nr = 0;

	if (pread(fd, &head, 60, 0) != 60 || head.ident[4] != 2)
		return 0;
	for (i = 0; i < head.phnum && nr < max; i++) {
		if (pread(fd, &ph, sizeof(ph), head.phoff +
			  i * sizeof(ph)) != sizeof(ph))
			break;
		if (ph.type != 1 || ph.paddr == ~0ULL)
			continue;
		s[nr++] = (struct kcore_segment) {
			.phys = ph.paddr, .len = ph.memsz, .off = ph.off,
		};
	}
	return nr;
}

/* Look at all memory that has a direct map. False: the secret is out. */
static bool secret_is_secret(void)
{
	int fd = open("/proc/kcore", O_RDONLY);
	struct kcore_segment s[64];
	static uint64_t buf[32 * SECRET_WORDS];
	unsigned long pages = 0, found = 0;
	int i, j, nr;
	uint64_t off;

	nr = fd < 0 ? 0 : kcore_segments(fd, s, ARRAY_SIZE(s));
	for (i = 0; i < nr; i++) {
		for (off = 0; off < s[i].len; off += sizeof(buf)) {
			ssize_t n = pread(fd, buf, min(sizeof(buf),
						       s[i].len - off),
					  s[i].off + off);

			for (j = 0; j < n / BLOCK; j++, pages++)
				found += secret_in_page(buf + j * SECRET_WORDS);
		}
	}
	if (fd >= 0)
		close(fd);
	ksft_print_msg("the secret was looked for in %lu pages\n", pages);
	if (found)
		ksft_print_msg("THE SECRET IS OUT: %lu copies\n", found);
	return !found;
}

static int test_secretmem(void)
{
	const unsigned int nr = NR_SPECIAL;
	struct outcome want = { .offloaded = NR_ORDINARY, .unmoved = nr };
	unsigned long policy[MAX_NODES / (8 * sizeof(long))] = { };
	struct batch b;
	uint64_t *mem;
	unsigned int i;
	bool ok;
	int fd;

	fd = syscall(__NR_memfd_secret, 0);
	if (fd < 0)
		return skip("no memfd_secret: %s", strerror(errno));
	if (ftruncate(fd, nr * psize()))
		return skip("memfd_secret: %s", strerror(errno));
	mem = mmap(NULL, nr * psize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	if (mem == MAP_FAILED)
		return skip("memfd_secret: %s", strerror(errno));
	/* It cannot be moved to where it shall be */
	policy[node_a / (8 * sizeof(long))] =
		1UL << node_a % (8 * sizeof(long));
	if (syscall(__NR_set_mempolicy, MPOL_BIND, policy, MAX_NODES))
		return skip("set_mempolicy: %s", strerror(errno));
	for (i = 0; i < nr * SECRET_WORDS; i++)
		mem[i] = secret_word(i % SECRET_WORDS);
	syscall(__NR_set_mempolicy, MPOL_DEFAULT, NULL, 0);

	if (!batch_init(&b, nr))
		return KSFT_FAIL;
	for (i = 0; i < nr; i++)
		b.addrs[i] = mem + i * SECRET_WORDS;
	/* An engine that tries to read it may well not survive that */
	dcbm_write("timeout_ms", "1000");
	ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
	dcbm_write("timeout_ms", HOLD_MS);
	for (i = 0; i < nr * SECRET_WORDS; i++)
		ok &= mem[i] == secret_word(i % SECRET_WORDS);
	ok = secret_is_secret() && ok;
	batch_free(&b);
	munmap(mem, nr * psize());
	close(fd);
	return result(ok);
}

/* ---- references from elsewhere ----------------------------------------- */

/* Memory of both kinds: a private one is not even unmapped while it is pinned */
static bool get_special(struct region *r, bool shared, int *fd)
{
	*fd = shared ? memfd_create("hazard", 0) : -1;
	return map_special(r, NR_SPECIAL, *fd);
}

/* How many pages are pinned now */
static long nr_pinned(void)
{
	unsigned long acquired = 0, released = 0, val;
	char line[128], name[64];
	FILE *f;

	/* Counted per CPU, and added up now and then */
	write_text("/proc/sys/vm/stat_refresh", "1");
	f = fopen("/proc/vmstat", "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %lu", name, &val) != 2)
			continue;
		if (!strcmp(name, "nr_foll_pin_acquired"))
			acquired = val;
		else if (!strcmp(name, "nr_foll_pin_released"))
			released = val;
	}
	if (f)
		fclose(f);
	return acquired - released;
}

/*
 * The same once it stays so for a while: what a test before has pinned goes
 * when it likes, as buffers of a ring do
 */
static long nr_pinned_settled(void)
{
	long now = nr_pinned(), before;
	unsigned int quiet = 0;

	do {
		before = now;
		usleep(20000);
		now = nr_pinned();
		quiet = now == before ? quiet + 1 : 0;
	} while (quiet < 5);
	return now;
}

static bool pins_are_gone(long before)
{
	if (wait_for(nr_pinned() <= before))
		return true;
	ksft_print_msg("memory stays pinned\n");
	return false;
}

/*
 * Direct I/O has pinned its buffer. The data come, or are fetched, and the pin
 * goes, while the batch is held.
 */
static bool io_in_window(struct held_file *f, struct disk *d,
			 struct region *special, bool is_write)
{
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = NR_SPECIAL };
	struct iocb iocb = {
		.aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = open(d->path, (is_write ? O_WRONLY : O_RDONLY) |
				   O_DIRECT),
		.aio_buf = (uintptr_t)special->mem,
		.aio_nbytes = special->len,
	}, *iocbs[] = { &iocb };
	struct timespec timeout = { .tv_sec = WAIT_MS / 1000 };
	long pinned = nr_pinned_settled();
	aio_context_t ctx = 0;
	struct io_event event;
	struct batch b;
	bool ok;

	if ((int)iocb.aio_fildes < 0 || syscall(__NR_io_setup, 1, &ctx) ||
	    !batch_init(&b, NR_SPECIAL))
		return false;
	batch_add_region(&b, 0, special);
	ok = batch_home(&b);
	if (is_write)
		held_file_stop(f);
	else
		held_file_hold(f, 0, BLOCK);
	/* Asynchronous, since others take the lock of the folio at the end */
	ok = ok && syscall(__NR_io_submit, ctx, 1, iocbs) == 1;
	if (ok && held_file_wait(f)) {
		ok = batch_hold(&b, NR_ORDINARY);
		held_file_release(f);
		if (syscall(__NR_io_getevents, ctx, 1, 1, &event, &timeout) != 1 ||
		    event.res != (int64_t)special->len) {
			ksft_print_msg("direct I/O did not end well\n");
			ok = false;
		}
		ok = ok && pins_are_gone(pinned);
		if (b.running)
			ok &= batch_release(&b);
		ok &= batch_check(&b, &want);
	} else {
		ksft_print_msg("nothing is asked of the disk\n");
		held_file_release(f);
		ok = false;
	}
	batch_free(&b);
	syscall(__NR_io_destroy, ctx);
	close(iocb.aio_fildes);
	return ok;
}

static int direct_io(bool is_write)
{
	struct held_file f = { .size = 1UL << 20, .direct = true };
	struct region special = { }, data = { };
	bool ok = false;
	struct disk d;
	int memfd;

	if (access("/dev/fuse", F_OK) || access("/dev/loop-control", F_OK))
		return skip("no FUSE or no loop devices");
	if (!map_special(&data, f.size / psize(), -1) ||
	    !get_special(&special, true, &memfd))
		return KSFT_FAIL;
	region_fill(&data, 1);
	f.data = data.mem;
	if (!held_file_mount(&f, "disk"))
		return KSFT_FAIL;
	if (disk_attach(&d, f.path, f.size)) {
		ok = io_in_window(&f, &d, &special, is_write);
		if (memcmp(special.mem, data.mem, special.len)) {
			ksft_print_msg("WRONG CONTENT: what was %s is lost\n",
				       is_write ? "written" : "read");
			ok = false;
		}
		if (is_write)
			ok &= region_verify(&special, 0);
		disk_detach(&d, f.size);
	}
	held_file_umount(&f);
	region_free(&special);
	region_free(&data);
	close(memfd);
	return result(ok);
}

static int test_direct_io(void)
{
	return direct_io(false);
}

static int test_direct_write(void)
{
	return direct_io(true);
}

struct ring {
	int fd;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
};

static bool ring_setup(struct ring *r)
{
	const int prot = PROT_READ | PROT_WRITE;

	*r = (struct ring) { };
	r->fd = syscall(__NR_io_uring_setup, 4, &r->p);
	if (r->fd < 0)
		return false;
	r->sq = mmap(NULL, r->p.sq_off.array + 4 * sizeof(uint32_t), prot,
		     MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->cq = mmap(NULL, r->p.cq_off.cqes + 8 * sizeof(struct io_uring_cqe),
		     prot, MAP_SHARED | MAP_POPULATE, r->fd,
		     IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, 4 * sizeof(*r->sqes), prot,
		       MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	return r->sq != MAP_FAILED && r->cq != MAP_FAILED &&
	       r->sqes != MAP_FAILED;
}

static bool ring_fix(struct ring *r, const struct region *buf)
{
	struct iovec iov = { buf->mem, buf->len };

	return !syscall(__NR_io_uring_register, r->fd, IORING_REGISTER_BUFFERS,
			&iov, 1);
}

/* From @fd to the fixed buffer, or back; the only request, so it has slot 0 */
static bool ring_io(struct ring *r, int fd, const struct region *buf,
		    bool is_write)
{
	uint32_t *tail = (void *)(r->sq + r->p.sq_off.tail);
	struct io_uring_cqe *cqe = (void *)(r->cq + r->p.cq_off.cqes);

	r->sqes[0] = (struct io_uring_sqe) {
		.opcode = is_write ? IORING_OP_WRITE_FIXED :
				     IORING_OP_READ_FIXED,
		.fd = fd,
		.addr = (uintptr_t)buf->mem,
		.len = buf->len,
	};
	*(uint32_t *)(r->sq + r->p.sq_off.array) = 0;
	__atomic_store_n(tail, 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return false;
	if (cqe->res == (int)buf->len)
		return true;
	ksft_print_msg("io_uring: %s\n", strerror(-cqe->res));
	return false;
}

/*
 * Data are read into a fixed buffer, or written from it, while the batch is held,
 * which then ends
 */
static int uring(bool shared, bool is_write)
{
	/* Pinned private memory is tried again one by one, without the engine */
	struct outcome want = {
		.offloaded = NR_ORDINARY, .cpu = NR_SPECIAL,
		.unmoved = shared ? 0 : ANY,
	};
	struct region special = { }, data = { };
	long pinned = nr_pinned_settled();
	int fd, file;
	struct ring r;
	struct batch b;
	bool ok;

	if (!shared)
		want.cpu = ANY;
	if (!ring_setup(&r))
		return skip("no io_uring: %s", strerror(errno));
	file = memfd_create("data", 0);
	if (!map_special(&data, NR_SPECIAL, file) ||
	    !get_special(&special, shared, &fd) || !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	if (ok && !ring_fix(&r, &special)) {
		skip("buffers cannot be fixed: %s", strerror(errno));
		batch_free(&b);
		return KSFT_SKIP;
	}
	ok = ok && batch_hold(&b, NR_ORDINARY);
	ok = ok && ring_io(&r, file, &special, is_write);
	ok = ok && !syscall(__NR_io_uring_register, r.fd,
			    IORING_UNREGISTER_BUFFERS, NULL, 0);
	/* Requests that have ended may be put by the next call only */
	syscall(__NR_io_uring_enter, r.fd, 0, 0, IORING_ENTER_GETEVENTS, NULL,
		0);
	ok = ok && pins_are_gone(pinned);
	if (b.running)
		ok &= batch_release(&b);
	ok = ok && batch_check(&b, &want);
	if (memcmp(special.mem, data.mem, data.len)) {
		ksft_print_msg("WRONG CONTENT: what was %s is lost\n",
			       is_write ? "written" : "read");
		ok = false;
	}
	if (is_write)
		ok &= region_verify(&special, 0);
	batch_free(&b);
	close(r.fd);
	region_free(&special);
	region_free(&data);
	close(file);
	close(fd);
	return result(ok);
}

static int test_uring_shared(void)
{
	return uring(true, false);
}

static int test_uring_private(void)
{
	return uring(false, false);
}

static int test_uring_write(void)
{
	return uring(true, true);
}

/* A pipe has references that are no pins. They stay, or go in the window. */
static int vmsplice_reference(bool shared, bool stays)
{
	struct outcome want = {
		.offloaded = NR_ORDINARY,
		.cpu = stays ? 0 : NR_SPECIAL,
		.unmoved = stays ? NR_SPECIAL : 0,
	};
	struct region special = { };
	struct iovec iov;
	struct batch b;
	bool ok;
	int fd, p[2];

	if (pipe(p) || !get_special(&special, shared, &fd) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	iov = (struct iovec) { special.mem, special.len };
	ok = batch_home(&b) &&
	     vmsplice(p[1], &iov, 1, 0) == (ssize_t)special.len;
	if (stays) {
		ok = ok && batch_run(&b);
	} else {
		ok = ok && batch_hold(&b, NR_ORDINARY);
		close(p[0]);
		close(p[1]);
		if (b.running)
			ok &= batch_release(&b);
	}
	ok = ok && special_moved(&b, &special, &want, 0);
	if (stays) {
		close(p[0]);
		close(p[1]);
		want.offloaded = NR_SPECIAL + NR_ORDINARY;
		want.cpu = 0;
		want.unmoved = 0;
		ok = ok && batch_home(&b) && batch_run(&b) &&
		     special_moved(&b, &special, &want, 0);
	}
	batch_free(&b);
	region_free(&special);
	close(fd);
	return result(ok);
}

static int test_vmsplice_shared(void)
{
	return result(vmsplice_reference(true, true) == KSFT_PASS &&
		      vmsplice_reference(true, false) == KSFT_PASS);
}

static int test_vmsplice_private(void)
{
	return result(vmsplice_reference(false, true) == KSFT_PASS &&
		      vmsplice_reference(false, false) == KSFT_PASS);
}

static int longterm_pin(bool shared)
{
	struct outcome want = { .offloaded = NR_ORDINARY, .unmoved = NR_SPECIAL };
	struct pin_longterm_test pin = { .flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE };
	struct region special = { };
	int fd, gup = open("/sys/kernel/debug/gup_test", O_RDWR);
	uint64_t copy;
	struct batch b;
	bool ok;

	if (gup < 0)
		return skip("no gup_test (CONFIG_GUP_TEST)");
	if (!get_special(&special, shared, &fd) || !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	pin.addr = (uintptr_t)special.mem;
	pin.size = special.len;
	copy = (uintptr_t)malloc(special.len);
	ok = batch_home(&b) && !ioctl(gup, PIN_LONGTERM_TEST_START, &pin);
	if (ok) {
		ok = batch_run(&b) && special_moved(&b, &special, &want, 0);
		/* Who has pinned it must see the same */
		region_fill(&special, 1);
		ok &= !ioctl(gup, PIN_LONGTERM_TEST_READ, &copy) &&
		      !memcmp((void *)(uintptr_t)copy, special.mem, special.len);
		ioctl(gup, PIN_LONGTERM_TEST_STOP);
		want.unmoved = 0;
		want.offloaded += NR_SPECIAL;
		ok = batch_home(&b) && batch_run(&b) &&
		     special_moved(&b, &special, &want, 1) && ok;
	}
	batch_free(&b);
	region_free(&special);
	free((void *)(uintptr_t)copy);
	close(gup);
	close(fd);
	return result(ok);
}

static int test_pin_shared(void)
{
	return longterm_pin(true);
}

static int test_pin_private(void)
{
	return longterm_pin(false);
}

/* ---- memory failure ---------------------------------------------------- */

static sigjmp_buf on_sigbus;
static atomic_bool sigbus_expected;

static void sigbus(int sig)
{
	if (sigbus_expected)
		siglongjmp(on_sigbus, 1);
	signal(sig, SIG_DFL);
}

static bool reads_fail(const char *p)
{
	bool fails = sigsetjmp(on_sigbus, 1);

	sigbus_expected = !fails;
	if (!fails)
		FORCE_READ(*p);
	sigbus_expected = false;
	return fails;
}

/* Either is what we want: to fail at once, or when it is touched */
static bool inject(char *p, int how)
{
	bool ok = sigsetjmp(on_sigbus, 1);

	sigbus_expected = !ok;
	/* A folio that cannot be split is one that cannot be handled */
	if (!ok)
		ok = !madvise(p, psize(), how) || errno == EBUSY ||
		     errno == EHWPOISON;
	sigbus_expected = false;
	return ok;
}

static const char *no_hwpoison(void)
{
	return access(HWPOISON "corrupt-pfn", W_OK) ?
	       "no hwpoison-inject" : NULL;
}

static void unpoison(unsigned long pfn)
{
	int err = unpoison_memory(pfn);

	if (err)
		ksft_print_msg("a page stays poisoned: %s\n", strerror(-err));
}

/*
 * The neighbours of a page that failed, and of one that was taken out of use.
 * The one that failed is asked for with them, and cannot be moved.
 */
static int test_poison_before(void)
{
	struct outcome want = {
		.offloaded = NR_SPECIAL - 1 + NR_ORDINARY, .unmoved = 1,
	};
	struct region special = { }, rest;
	unsigned long pfn;
	struct batch b;
	bool ok;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	rest = special;
	rest.mem += psize();
	rest.len -= psize();
	rest.nr--;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	pfn = pfn_of(special.mem);
	ok = ok && inject(special.mem, MADV_HWPOISON) &&
	     !madvise(rest.mem, psize(), MADV_SOFT_OFFLINE) &&
	     batch_run(&b) && special_moved(&b, &rest, &want, 0);
	if (!reads_fail(special.mem)) {
		ksft_print_msg("a poisoned page can be read\n");
		ok = false;
	}
	batch_free(&b);
	region_free(&special);
	unpoison(pfn);
	return result(ok);
}

struct poisoner {
	unsigned long pfn;
	pthread_t thread;
	atomic_int tid;
	atomic_bool done;
};

static void *poisoner_thread(void *arg)
{
	struct poisoner *p = arg;
	char text[32];

	p->tid = gettid();
	snprintf(text, sizeof(text), "%#lx", p->pfn);
	write_text(HWPOISON "corrupt-pfn", text);
	p->done = true;
	return NULL;
}

/*
 * A page fails while the batch is held: it must fail alone. What becomes of it is
 * for those who handle the failure; most often they find no page that they know
 * how to handle, and it is moved. Then the CPU has copied it, not the engine, and
 * no other.
 */
static int poison_held(size_t nr_special)
{
	const unsigned int bad = 3;
	struct outcome want = {
		.offloaded = nr_special + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	struct region special = { }, page;
	struct poisoner p = { };
	struct batch b;
	unsigned int i;
	long copies;
	bool ok;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	if (!map_special(&special, nr_special, -1) ||
	    !batch_init(&b, nr_special))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	p.pfn = pfn_of(b.addrs[bad]);
	ok = ok && batch_hold(&b, want.offloaded);
	if (ok) {
		pthread_create(&p.thread, NULL, poisoner_thread, &p);
		/* It may have to wait for the folio */
		ok = wait_for(p.done || thread_blocks(p.tid));
		ok &= batch_release(&b);
		if (!wait_for(p.done)) {
			ksft_print_msg("memory failure does not end\n");
			ok = false;
		}
		pthread_join(p.thread, NULL);
		ok &= batch_check(&b, &want);
		copies = probe_hits(CPU_COPIES) - b.copies_before;
		ksft_print_msg("it is on node %d, copied %ld times by the CPU\n",
			       b.where[bad], copies);
		if (b.where[bad] == node_b && probe_hits(CPU_COPIES) != ANY)
			ok &= copies == 1;
	}
	page = special;
	page.len = psize();
	for (i = 0; i < nr_special; i++, page.mem += psize()) {
		if (i != bad)
			ok &= region_verify(&page, 0);
		else if (!reads_fail(page.mem))
			ok &= region_verify(&page, 0);
	}
	batch_free(&b);
	region_free(&special);
	unpoison(p.pfn);
	return result(ok);
}

static int test_poison_window(void)
{
	return poison_held(NR_SPECIAL);
}

/*
 * More than a migrator gets at once: it is done with the page that fails, and
 * with all that it got with it, and is held amid the rest.
 */
static int test_poison_before_move(void)
{
	char limit[32];
	int ret;

	if (read_text(MAX_BATCH, limit, sizeof(limit)))
		return skip("no %s", MAX_BATCH);
	if (write_text(MAX_BATCH, "4194304"))
		return KSFT_FAIL;
	ret = poison_held(MAX_PAIRS);
	write_text(MAX_BATCH, limit);
	return ret;
}

/*
 * A page of a large folio failed while the folio could not be split. It is
 * still there, and it can be split no more than before; but an engine must not
 * read it.
 */
static int test_poison_large(void)
{
	const size_t size = read_pmd_pagesize();
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = ANY,
				.unmoved = ANY };
	struct region special = { };
	struct iovec iov;
	struct batch b;
	unsigned long pfn;
	bool ok = false;
	int p[2];
	char *bad;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	if (!size || size_unsupported(size))
		return skip("no huge pages");
	push_settings(size);
	if (!region_alloc(&special, size, size)) {
		pop_settings();
		return skip("cannot get a huge page");
	}
	pop_settings();
	region_fill(&special, 0);
	if (pipe(p) || !batch_init(&b, 1))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	bad = special.mem + 5 * psize();
	pfn = pfn_of(bad);
	iov = (struct iovec) { special.mem, psize() };
	if (batch_home(&b) && vmsplice(p[1], &iov, 1, 0) == (ssize_t)psize() &&
	    inject(bad, MADV_HWPOISON)) {
		close(p[0]);
		close(p[1]);
		if (count_folios(&special, NULL) != 1)
			ksft_print_msg("the folio was split after all\n");
		else
			ok = batch_run(&b) && batch_check(&b, &want);
	}
	batch_free(&b);
	region_free(&special);
	unpoison(pfn);
	return result(ok);
}

/* ---- an engine that does not answer ------------------------------------ */

/* A memory block, and what to write to its state to have it back as it was */
struct block {
	char state[64];
	const char *online;
	unsigned long first_pfn, nr_pfns;
};

static void interrupt(int sig)
{
}

/* Offline the block, for @seconds at most. Return 0 or -errno. */
static int block_offline(const struct block *k, unsigned int seconds)
{
	const struct sigaction sa = { .sa_handler = interrupt };
	int err;

	sigaction(SIGALRM, &sa, NULL);
	alarm(seconds);
	err = write_text(k->state, "offline");
	alarm(0);
	return err;
}

/*
 * Have a memory block of node_a as ZONE_MOVABLE, where memory of ours goes
 * first. False if no block of the node goes offline.
 */
static bool block_take(struct block *k)
{
	unsigned long size, nr;
	char path[96], text[64];

	*k = (struct block) { };
	if (read_text(MEMORY "block_size_bytes", text, sizeof(text)))
		return false;
	size = strtoul(text, NULL, 16);
	for (nr = 4096; nr--; ) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/memory%lu/valid_zones",
			 node_a, nr);
		if (read_text(path, text, sizeof(text)))
			continue;
		snprintf(k->state, sizeof(k->state), MEMORY "memory%lu/state",
			 nr);
		k->online = strncmp(text, "Movable", strlen("Movable")) ?
			    "online_kernel" : "online_movable";
		k->nr_pfns = size / psize();
		k->first_pfn = nr * k->nr_pfns;
		if (block_offline(k, 5))
			continue;
		if (!write_text(k->state, "online_movable"))
			return true;
		write_text(k->state, k->online);
	}
	return false;
}

static void block_give(const struct block *k)
{
	char state[16];

	if (read_text(k->state, state, sizeof(state)) ||
	    strncmp(state, "offline", strlen("offline")))
		block_offline(k, 30);
	if (!write_text(k->state, k->online))
		return;
	ksft_print_msg("%s is not as it was\n", k->state);
}

static bool block_has(const struct block *k, void *addr)
{
	return pfn_of(addr) - k->first_pfn < k->nr_pfns;
}

static bool fails(const char *what, int want, int err)
{
	if (err == -want)
		return true;
	ksft_print_msg("%s: %s, should be %s\n", what, strerror(-err),
		       strerror(want));
	return false;
}

/* Is dcbm's one channel in this state? */
static bool channel_is(const char *state)
{
	char buf[256];

	return !dcbm_read("channels", buf, sizeof(buf)) && strstr(buf, state);
}

/* A migration of what the engine may still read fails with an error */
static bool stuck_fails(struct batch *b, struct region *special,
			const struct block *k)
{
	bool ok;

	ok = batch_run(b) && batch_check_unmoved(b);
	ok &= fails("mbind", EIO,
		    mbind_to_node(special->mem, special->len, node_b,
				  MPOL_MF_MOVE | MPOL_MF_STRICT));
	if (!no_hwpoison())
		ok &= fails("soft offline", EBUSY,
			    madvise(special->mem, psize(), MADV_SOFT_OFFLINE) ?
			    -errno : 0);
	if (k)
		ok &= fails("offline", EINTR, block_offline(k, 2));
	return ok;
}

/*
 * An engine gets stuck, and its batch is given up. It may still read the
 * sources, so these stay where they are, in use and with the right content,
 * until it has answered.
 */
static int test_stuck_source(void)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region special = { };
	struct block block;
	bool ok, have_block;
	struct batch b;

	have_block = block_take(&block);
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	if (have_block && !block_has(&block, special.mem)) {
		block_give(&block);
		have_block = false;
	}
	if (!have_block)
		ksft_print_msg("no memory block of ours can go offline\n");

	ok = ok && !dcbm_write("timeout_ms", "200") &&
	     batch_give_up(&b, want.offloaded) && batch_check_unmoved(&b) &&
	     channel_is(" stuck");
	if (ok) {
		/* What is written now must be there afterwards */
		region_fill(&special, 1);
		ok = stuck_fails(&b, &special, have_block ? &block : NULL);
		ok &= region_verify(&special, 1);
	}

	ok &= engine_set("stall", 0) && wait_for(!channel_is(" stuck"));
	ok &= !dcbm_write("timeout_ms", HOLD_MS) &&
	      !dcbm_write("offloading", "N") && !dcbm_write("offloading", "Y");
	if (ok && have_block)
		ok = fails("offline", 0, block_offline(&block, 30)) &&
		     !block_has(&block, special.mem) &&
		     region_verify(&special, 1);
	ok = ok && batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, &special, &want, 1);
	batch_free(&b);
	region_free(&special);
	if (have_block)
		block_give(&block);
	return result(ok);
}

/* ---- retry and undo ---------------------------------------------------- */

/*
 * A reader of the first folio has a reference to it, and waits for the second
 * to be moved, since that is where the data go. So the first pass fails for the
 * first folio, and the next succeeds, if the reader is quick: it has a CPU of
 * its own, and the time that it takes to move the others of the batch. Whoever
 * has a reference may write, so the folio must be copied again then.
 */
#define BATCH_PASSES	3
/* No more than the 512 pages of a batch altogether */
#define NR_OTHERS	384

static bool retry_once(struct held_file *f, const cpu_set_t *cpus, bool *again)
{
	struct outcome want = {
		.offloaded = 2 + NR_OTHERS + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	struct io read = { .len = psize(), .cpus = cpus };
	struct region target = { }, others = { };
	long copies, moves;
	struct batch b;
	char *cached;
	bool ok;

	read.fd = open(f->path, O_RDONLY);
	cached = mmap(NULL, psize(), PROT_READ, MAP_SHARED, read.fd, 0);
	if (cached == MAP_FAILED || !map_special(&target, 1, -1) ||
	    !map_special(&others, NR_OTHERS, -1) ||
	    !batch_init(&b, 2 + NR_OTHERS))
		return false;
	FORCE_READ(*cached);
	read.buf = target.mem;
	b.addrs[0] = cached;
	b.addrs[1] = target.mem;
	batch_add_region(&b, 2, &others);
	ok = batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		ok = io_start(&read) && io_blocks(&read);
		ok &= batch_release(&b);
		copies = probe_hits(CPU_COPIES) - b.copies_before;
		moves = probe_hits(FILE_MOVES) - b.moves_before;
		ok &= io_join(&read, psize()) && batch_check(&b, &want);
		ksft_print_msg("moved at the %ld. attempt, copied %ld times by the CPU\n",
			       moves, copies);
		/* If it was too slow, then it was moved alone, or not at all */
		*again = moves < 2 || moves > BATCH_PASSES;
		ok &= *again || copies == 1;
		ok &= !memcmp(cached, f->data, psize()) &&
		      !memcmp(target.mem, f->data, psize()) &&
		      region_verify(&others, 0);
	}
	batch_free(&b);
	munmap(cached, psize());
	region_free(&others);
	region_free(&target);
	close(read.fd);
	return ok;
}

static int test_retry(void)
{
	struct held_file f = { .size = psize() };
	struct region data = { };
	bool ok = true, again = true;
	struct two_cpus cpus;
	int i;

	if (access("/dev/fuse", F_OK))
		return skip("no /dev/fuse");
	if (probe_hits(CPU_COPIES) == ANY)
		return skip("no kprobe events");
	if (!map_special(&data, 1, -1))
		return KSFT_FAIL;
	f.data = data.mem;
	if (!held_file_mount(&f, "held"))
		return KSFT_FAIL;
	if (!two_cpus_take(&cpus)) {
		held_file_umount(&f);
		return skip("no two CPUs");
	}
	for (i = 0; i < 50 && ok && again; i++)
		ok = retry_once(&f, &cpus.last, &again);
	two_cpus_give(&cpus);
	held_file_umount(&f);
	region_free(&data);
	return result(ok && !again);
}

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

static bool uffd_read_missing(int uffd, struct uffd_msg *msg)
{
	return read(uffd, msg, sizeof(*msg)) == sizeof(*msg) &&
	       msg->event == UFFD_EVENT_PAGEFAULT;
}

/*
 * A reader comes while the batch is held, and stays: its data go to a page that
 * is missing, and we take our time to provide it. The folio must be given back
 * as it was, and can be moved once the reader has gone.
 */
static int test_undo(void)
{
	struct outcome want = { .offloaded = 1 + NR_ORDINARY, .unmoved = 1 };
	struct held_file f = { .size = psize() };
	struct io read = { .len = psize() };
	struct region data = { };
	struct uffd_msg msg = { };
	char *cached, *missing;
	struct uffdio_copy copy;
	struct batch b;
	int uffd;
	bool ok;

	if (access("/dev/fuse", F_OK))
		return skip("no /dev/fuse");
	uffd = open_uffd();
	if (uffd < 0)
		return skip("no userfaultfd: %s", strerror(errno));
	if (!map_special(&data, 1, -1) || !batch_init(&b, 1))
		return KSFT_FAIL;
	f.data = data.mem;
	if (!held_file_mount(&f, "held"))
		return KSFT_FAIL;
	read.fd = open(f.path, O_RDONLY);
	cached = mmap(NULL, psize(), PROT_READ, MAP_SHARED, read.fd, 0);
	missing = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FORCE_READ(*cached);
	read.buf = missing;
	b.addrs[0] = cached;
	copy = (struct uffdio_copy) {
		.dst = (uintptr_t)missing,
		.src = (uintptr_t)f.data,
		.len = psize(),
	};

	ok = !uffd_register(uffd, missing, psize(), true, false, false) &&
	     batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		ok = io_start(&read) &&
		     wait_for(uffd_read_missing(uffd, &msg));
		ok &= batch_release(&b);
		ok &= batch_check(&b, &want);
		ok &= !memcmp(cached, f.data, psize());
		ok &= !ioctl(uffd, UFFDIO_COPY, &copy);
		ok &= io_join(&read, psize());
		ok &= !memcmp(missing, f.data, psize());
		want.unmoved = 0;
		ok = ok && batch_home(&b) && batch_run(&b) &&
		     batch_check(&b, &want) &&
		     !memcmp(cached, f.data, psize());
	}
	batch_free(&b);
	munmap(cached, psize());
	munmap(missing, psize());
	close(read.fd);
	held_file_umount(&f);
	region_free(&data);
	close(uffd);
	return result(ok);
}

/* Readers of tmpfs wait for the lock of the folio, and have a reference */
static int test_undo_readers(void)
{
	struct outcome want = {
		.offloaded = NR_SPECIAL + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	int fd = memfd_create("hazard", 0);
	struct region special = { }, data = { };
	struct io read[NR_SPECIAL];
	struct batch b;
	bool ok;
	int i;

	ok = map_special(&special, NR_SPECIAL, fd) &&
	     map_special(&data, NR_SPECIAL, -1);
	if (!ok || !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	region_fill(&data, 1);
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		for (i = 0; i < NR_SPECIAL; i++) {
			read[i] = (struct io) {
				.fd = fd, .len = psize(), .off = i * psize(),
				.buf = data.mem + i * psize(),
			};
			ok &= io_start(&read[i]) && io_blocks(&read[i]);
		}
		ok &= batch_release(&b);
		for (i = 0; i < NR_SPECIAL; i++)
			ok &= io_join(&read[i], psize());
		ok &= special_moved(&b, &special, &want, 0);
		ok &= !memcmp(special.mem, data.mem, data.len);
	}
	/* Once more, without anybody in the way */
	want.cpu = 0;
	want.unmoved = 0;
	ok = ok && batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, &special, &want, 0);
	batch_free(&b);
	region_free(&special);
	region_free(&data);
	close(fd);
	return result(ok);
}

/* How many there were, before @add is added */
static unsigned long hugetlb_knob(const char *path, long add)
{
	unsigned long nr;
	char text[32];

	if (read_text(path, text, sizeof(text)))
		return 0;
	nr = strtoul(text, NULL, 0);
	if (add) {
		snprintf(text, sizeof(text), "%ld", (long)nr + add);
		write_text(path, text);
	}
	return nr;
}

static unsigned long hugetlb_node_knob(int node, const char *name, long add)
{
	char path[128];

	snprintf(path, sizeof(path),
		 NODE_SYSFS "node%d/hugepages/hugepages-%lukB/%s", node,
		 default_huge_page_size() >> 10, name);
	return hugetlb_knob(path, add);
}

static unsigned long hugetlb_pool(int node, long add)
{
	return hugetlb_node_knob(node, "nr_hugepages", add);
}

static unsigned long hugetlb_free(int node)
{
	return hugetlb_node_knob(node, "free_hugepages", 0);
}

/*
 * Fill node_b until nothing can be moved there any more. Huge pages do most of
 * that, since nobody has to clear them, and memory that is moved the rest.
 */
#define FILL_BYTES	(16UL << 20)

static bool fill_node(struct region *filler)
{
	const size_t chunk = 64;
	bool full = false;
	struct move m;
	size_t i, done;

	hugetlb_pool(node_b, (node_available(node_b) - FILL_BYTES) /
		     default_huge_page_size());
	if (node_available(node_a) < 8 * FILL_BYTES ||
	    !region_alloc(filler, psize(), 4 * FILL_BYTES))
		return false;
	move_alloc(&m, chunk);
	for (done = 0; !full && done < filler->nr; done += chunk) {
		for (i = 0; i < chunk; i++)
			m.addrs[i] = filler->mem + (done + i) * psize();
		if (!move_to(&m, node_b, true))
			break;
		full = m.unmoved;
	}
	move_free(&m);
	return full;
}

/* The target node is full amid the batch: what fits is moved, nothing is lost */
static int test_no_memory(void)
{
	struct region filler = { }, r = { };
	struct counters before, now;
	size_t moved, some = 0, i;
	unsigned long had;
	struct move m;
	bool ok;

	if (!default_huge_page_size() || !region_alloc(&r, psize(), 8UL << 20))
		return skip("no hugetlb pages to fill the node with");
	region_fill(&r, 1);
	had = hugetlb_pool(node_b, 0);
	ok = fill_node(&filler);
	if (!ok)
		skip("node %d cannot be filled", node_b);
	move_alloc(&m, r.nr);
	move_set_region(&m, &r);
	for (i = 0; ok && i < 3; i++) {
		hugetlb_pool(node_b, -1);
		read_counters(&before);
		ok = move_to(&m, node_b, true);
		read_counters(&now);
		moved = r.nr - m.unmoved;
		some += moved > 1 && m.unmoved &&
			now.migrated != before.migrated;
		ok = region_verify(&r, 1) && ok;
		ksft_print_msg("%zu of %zu folios found room, %lu offloaded\n",
			       moved, r.nr, now.migrated - before.migrated);
		ok = move_to(&m, node_a, true) && region_verify(&r, 1) && ok;
	}
	hugetlb_pool(node_b, had - hugetlb_pool(node_b, 0));
	move_free(&m);
	region_free(&r);
	region_free(&filler);
	if (*why)
		return KSFT_SKIP;
	if (ok && !some)
		ksft_print_msg("no batch was cut short\n");
	return result(ok && some);
}

/* ---- writers with a TLB of their own ------------------------------------ */

struct writer {
	uint64_t *words[NR_SPECIAL];
	atomic_ullong nr;
	unsigned int wrong;
	const cpu_set_t *cpus;
	pthread_t thread;
	atomic_int tid;
	atomic_bool stop;
};

/* Count in each page, and see that no number is ever forgotten */
static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	unsigned int i;

	run_on(w->cpus);
	w->tid = gettid();
	for (w->nr = 0; !w->stop; w->nr++)
		for (i = 0; i < NR_SPECIAL; i++) {
			if (__atomic_load_n(w->words[i], __ATOMIC_RELAXED) !=
			    w->nr) {
				w->wrong++;
				w->stop = true;
			}
			__atomic_store_n(w->words[i], w->nr + 1,
					 __ATOMIC_RELAXED);
		}
	return NULL;
}

/* The engine may happen to run on the writer's CPU, which says nothing then */
#define WRITER_ROUNDS	10

static bool move_under_writer(struct batch *b, struct writer *w)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	unsigned long long nr;
	bool ok;

	if (!batch_home(b))
		return false;
	nr = w->nr;
	wait_for(w->nr > nr + 1000 || w->stop);
	ok = batch_hold(b, want.offloaded);
	if (ok && !wait_for(thread_blocks(w->tid))) {
		ksft_print_msg("the writer goes on while the batch is held\n");
		ok = false;
	}
	if (b->running)
		ok &= batch_release(b);
	return batch_check(b, &want) && ok && !w->stop;
}

/* Others write for as long as their TLB lets them, which must not be for long */
static int test_writer(void)
{
	struct region special = { };
	struct two_cpus cpus;
	struct writer w = { .cpus = &cpus.last };
	struct batch b;
	unsigned int i;
	bool ok;

	/* The TLB of this CPU is another one than that of the writer */
	if (!two_cpus_take(&cpus))
		return skip("no two CPUs");
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	for (i = 0; i < NR_SPECIAL; i++) {
		w.words[i] = (uint64_t *)(special.mem + i * psize());
		*w.words[i] = 0;
	}
	ok = !pthread_create(&w.thread, NULL, writer_thread, &w);
	if (ok) {
		for (i = 0; ok && i < WRITER_ROUNDS; i++)
			ok = move_under_writer(&b, &w);
		w.stop = true;
		pthread_join(w.thread, NULL);
		if (w.wrong)
			ksft_print_msg("WRONG CONTENT: what was written is lost\n");
		ok &= !w.wrong;
	}
	two_cpus_give(&cpus);
	batch_free(&b);
	region_free(&special);
	return result(ok);
}

/* ---- memory that is special to others ---------------------------------- */

static int move_special(struct region *special, uint64_t gen)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct batch b;
	bool ok;

	if (!batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, special);
	ok = batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, special, &want, gen);
	batch_free(&b);
	return result(ok);
}

static unsigned int nr_mlocked(const struct region *r)
{
	unsigned int nr = 0;
	size_t i;

	for (i = 0; i < r->nr; i++)
		nr += !!(flags_of(r->mem + i * psize()) & KPF_MLOCKED);
	return nr;
}

static int test_mlocked(void)
{
	struct region special = { };
	unsigned int before, after;
	int ret;

	if (!map_special(&special, NR_SPECIAL, -1))
		return KSFT_FAIL;
	if (mlock(special.mem, special.len)) {
		ret = skip("mlock: %s", strerror(errno));
	} else {
		before = nr_mlocked(&special);
		ret = move_special(&special, 0);
		after = nr_mlocked(&special);
		if (before != NR_SPECIAL || after != before) {
			ksft_print_msg("%u pages are locked, %u after the move\n",
				       before, after);
			ret = KSFT_FAIL;
		}
	}
	region_free(&special);
	return ret;
}

static int test_forked(void)
{
	struct region special = { };
	int go[2], status = -1, ret;
	pid_t child;
	char c;

	if (!map_special(&special, NR_SPECIAL, -1) || pipe(go))
		return KSFT_FAIL;
	child = fork();
	if (!child) {
		close(go[1]);
		(void)!read(go[0], &c, 1);
		_exit(!region_verify(&special, 0));
	}
	ret = move_special(&special, 0);
	/* What we write from here on is not the child's */
	region_fill(&special, 1);
	close(go[1]);
	close(go[0]);
	if (waitpid(child, &status, 0) != child || status)
		ret = KSFT_FAIL;
	region_free(&special);
	return ret;
}

static int test_ksm(void)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region r[2] = { };
	unsigned int i, j, merged = 0;
	struct batch b;
	bool ok = true;

	if (access("/sys/kernel/mm/ksm/run", W_OK))
		return skip("no KSM");
	for (i = 0; i < 2; i++) {
		if (!map_special(&r[i], NR_SPECIAL, -1))
			return KSFT_FAIL;
		for (j = 0; j < NR_SPECIAL; j++)
			memset(r[i].mem + j * psize(), 'a' + j, psize());
		madvise(r[i].mem, r[i].len, MADV_MERGEABLE);
	}
	/* It leaves out what it cannot get hold of, until its next round */
	for (i = 0; i < MAX_ATTEMPTS && merged < NR_SPECIAL; i++) {
		if (ksm_start())
			return skip("KSM does not start");
		merged = 0;
		for (j = 0; j < NR_SPECIAL; j++)
			merged += !!(flags_of(r[0].mem + j * psize()) &
				     KPF_KSM);
	}
	write_text("/sys/kernel/mm/ksm/run", "0");

	if (merged != NR_SPECIAL)
		ksft_print_msg("only %u pages are merged\n", merged);
	ok = merged == NR_SPECIAL && batch_init(&b, NR_SPECIAL);
	if (ok) {
		batch_add_region(&b, 0, &r[0]);
		ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
		batch_free(&b);
	}
	for (i = 0; i < 2; i++)
		for (j = 0; j < NR_SPECIAL * psize(); j++)
			ok &= r[i].mem[j] == (char)('a' + j / psize());
	ksm_stop();
	region_free(&r[0]);
	region_free(&r[1]);
	return result(ok);
}

/* Pages that were swapped out and read again are in the swap cache still */
static int test_swap_cache(void)
{
	union {
		char page[4096];
		struct {
			char boot[1024];
			uint32_t version, last_page, nr_bad;
		};
	} head = { .version = 1, .last_page = IMAGE_BYTES / 4096 - 1 };
	const char *image = "swap";
	struct region special = { };
	unsigned int i, cached = 0;
	int ret = KSFT_FAIL;
	struct disk d;

	if (psize() != sizeof(head))
		return skip("pages are not 4K");
	if (access("/dev/loop-control", F_OK))
		return skip("no loop devices");
	memcpy(head.page + sizeof(head) - 10, "SWAPSPACE2", 10);
	if (!make_file(image, &head, sizeof(head)) ||
	    truncate(image, IMAGE_BYTES) ||
	    !disk_attach(&d, image, IMAGE_BYTES))
		return KSFT_FAIL;
	if (swapon(d.path, SWAP_FLAG_PREFER | 32000)) {
		ret = skip("swapon: %s", strerror(errno));
		goto detach;
	}
	if (map_special(&special, NR_SPECIAL, -1)) {
		madvise(special.mem, special.len, MADV_PAGEOUT);
		for (i = 0; i < NR_SPECIAL; i++)
			FORCE_READ(special.mem[i * psize()]);
		for (i = 0; i < NR_SPECIAL; i++)
			cached += !!(flags_of(special.mem + i * psize()) &
				     KPF_SWAPCACHE);
		ksft_print_msg("%u of %u pages are in the swap cache\n",
			       cached, NR_SPECIAL);
		ret = move_special(&special, 0);
		if (ret == KSFT_PASS && !cached)
			ret = skip("no page is in the swap cache");
	}
	region_free(&special);
	swapoff(d.path);
detach:
	disk_detach(&d, IMAGE_BYTES);
	unlink(image);
	return ret;
}

static int test_userfaultfd(void)
{
	struct uffdio_writeprotect wp = {
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct region special = { };
	int uffd, ret;
	unsigned int i;

	uffd = open_uffd();
	if (uffd < 0)
		return skip("no userfaultfd: %s", strerror(errno));
	if (!map_special(&special, NR_SPECIAL, -1))
		return KSFT_FAIL;
	if (uffd_register(uffd, special.mem, special.len, true, true, false)) {
		ret = skip("no write protection by userfaultfd");
		goto free;
	}
	/* Half of it */
	wp.range.start = (uintptr_t)special.mem;
	wp.range.len = special.len / 2;
	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp)) {
		ret = skip("UFFDIO_WRITEPROTECT: %s", strerror(errno));
		goto free;
	}
	ret = move_special(&special, 0);
	for (i = 0; i < NR_SPECIAL; i++) {
		bool is = pagemap_get_entry(pagemap_fd, special.mem +
					    i * psize()) & PM_UFFD_WP;

		if (is == (i < NR_SPECIAL / 2))
			continue;
		ksft_print_msg("write protection of page %u is lost\n", i);
		ret = KSFT_FAIL;
	}
free:
	region_free(&special);
	close(uffd);
	return ret;
}

static int test_soft_dirty(void)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region special = { };
	struct batch b;
	unsigned int i;
	bool ok;

	if (!softdirty_supported())
		return skip("no soft-dirty bit");
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	clear_softdirty();
	for (i = 0; i < NR_SPECIAL; i += 2)
		__atomic_fetch_or(special.mem + i * psize(), 0,
				  __ATOMIC_RELAXED);
	ok = ok && batch_run(&b) && batch_check(&b, &want);
	for (i = 0; i < NR_SPECIAL; i++) {
		bool is = pagemap_is_softdirty(pagemap_fd, special.mem +
					       i * psize());

		if (is == !(i & 1))
			continue;
		ksft_print_msg("page %u: soft-dirty is %d\n", i, is);
		ok = false;
	}
	ok = region_verify(&special, 0) && ok;
	batch_free(&b);
	region_free(&special);
	return result(ok);
}

/* A huge page that is mapped in part only is split before it is moved */
static int test_partially_mapped(void)
{
	struct outcome want = { .offloaded = ANY };
	const size_t size = read_pmd_pagesize();
	struct region special = { }, head, tail;
	struct batch b;
	bool ok;

	if (!size || size_unsupported(size))
		return skip("no huge pages");
	push_settings(size);
	ok = region_alloc(&special, size, size);
	pop_settings();
	if (!ok)
		return skip("cannot get a huge page");
	region_fill(&special, 0);
	head = special;
	head.len = size / 4;
	tail = special;
	tail.mem += size / 2;
	tail.len = size / 2;
	if (munmap(head.mem + head.len, size / 4) || !batch_init(&b, 2))
		return KSFT_FAIL;
	b.addrs[0] = head.mem;
	b.addrs[1] = tail.mem;
	ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
	ok = region_verify(&head, 0) && region_verify(&tail, 0) && ok;
	batch_free(&b);
	region_free(&special);
	return result(ok);
}

/*
 * The node where it goes has no free hugetlb page. So a temporary one is
 * allocated, and that is a flag of hugetlb in the word that has our mark.
 */
static int test_hugetlb(void)
{
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = 1 };
	struct region special = { .size = default_huge_page_size(), .nr = 1 };
	unsigned long had_a, had_b;
	int ret = KSFT_FAIL;
	struct batch b;

	if (!special.size || special.size > 64UL << 20)
		return skip("no hugetlb pages of a decent size");
	had_a = hugetlb_pool(node_a, 1);
	had_b = hugetlb_pool(node_b, 0);
	hugetlb_pool(node_b, -had_b);
	special.len = special.size;
	special.map_len = special.size;
	special.map = mmap(NULL, special.len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (special.map == MAP_FAILED) {
		special.map = NULL;
		ret = skip("no hugetlb page can be had");
		goto restore;
	}
	special.mem = special.map;
	bind_to_node(special.mem, special.len, node_a);
	region_fill(&special, 0);
	if (hugetlb_free(node_b)) {
		ret = skip("node %d has free hugetlb pages", node_b);
	} else if (batch_init(&b, 1)) {
		batch_add_region(&b, 0, &special);
		ret = result(batch_home(&b) && batch_run(&b) &&
			     special_moved(&b, &special, &want, 0));
		batch_free(&b);
	}
restore:
	region_free(&special);
	hugetlb_pool(node_a, had_a - hugetlb_pool(node_a, 0));
	hugetlb_pool(node_b, had_b - hugetlb_pool(node_b, 0));
	return ret;
}

/* ---- compaction -------------------------------------------------------- */

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

/* True if an engine was made use of */
static bool compact(void)
{
	struct counters before, now;
	unsigned int i;

	read_counters(&before);
	dcbm_write("reason_mask", "compaction");
	for (i = 0; i < 3; i++)
		write_text("/proc/sys/vm/compact_memory", "1");
	dcbm_write("reason_mask", REASON);
	read_counters(&now);
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
	return compact();
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
static int test_compaction(void)
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
	ok = compact();
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

static int test_compaction_ext4(void)
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

/* ---- all of it --------------------------------------------------------- */

static const struct {
	const char *name;
	int (*run)(void);
	const char *what;
} tests[] = {
	{ "buffer_heads", test_buffer_heads,
	  "block device: a rename goes on between copy and move" },
	{ "ext4_journal", test_ext4_journal,
	  "ext4 under change while its metadata is moved" },
	{ "ext4_no_journal", test_ext4_no_journal,
	  "ext4 without a journal, the same" },
	{ "ext4_clean", test_ext4_clean, "file of ext4, clean" },
	{ "ext4_dirty", test_ext4_dirty, "file of ext4, dirty" },
	{ "iomap", test_iomap,
	  "file of FUSE, written back after the move" },
	{ "tmpfs", test_tmpfs, "file of tmpfs" },
	{ "tmpfs_write", test_tmpfs_write, "file of tmpfs, written meanwhile" },
	{ "secretmem", test_secretmem, "secret memory stays where it is" },
	{ "direct_io", test_direct_io, "direct I/O ends between copy and move" },
	{ "direct_write", test_direct_write,
	  "direct I/O fetches what it writes between copy and move" },
	{ "uring_shared", test_uring_shared,
	  "io_uring reads into a fixed buffer, shared memory" },
	{ "uring_private", test_uring_private,
	  "io_uring reads into a fixed buffer, private memory" },
	{ "uring_write", test_uring_write,
	  "io_uring writes from a fixed buffer, shared memory" },
	{ "vmsplice_shared", test_vmsplice_shared,
	  "shared memory in a pipe" },
	{ "vmsplice_private", test_vmsplice_private,
	  "private memory in a pipe" },
	{ "pin_shared", test_pin_shared, "long-term pin of shared memory" },
	{ "pin_private", test_pin_private, "long-term pin of private memory" },
	{ "pin_memfd", test_pin_memfd,
	  "memory file, pinned and written to meanwhile" },
	{ "pin_memfd_others", test_pin_memfd_others,
	  "memory file, of which others are moved while a pin waits" },
	{ "pin_memfd_killed", test_pin_memfd_killed,
	  "memory file, whose pin is killed while it waits" },
	{ "poison_before", test_poison_before,
	  "memory failure and soft offlining before the move" },
	{ "poison_window", test_poison_window,
	  "memory failure between copy and move" },
	{ "poison_before_move", test_poison_before_move,
	  "memory failure after all was copied that is copied at once" },
	{ "poison_large", test_poison_large,
	  "memory failure in a folio that cannot be split" },
	{ "stuck_source", test_stuck_source,
	  "memory that an engine which is stuck may read" },
	{ "retry", test_retry, "a reference that goes during the move" },
	{ "undo", test_undo, "a reference that stays" },
	{ "undo_readers", test_undo_readers, "readers that wait for the lock" },
	{ "no_memory", test_no_memory, "no memory on the target node" },
	{ "writer", test_writer, "a writer on another CPU" },
	{ "mlocked", test_mlocked, "locked memory" },
	{ "forked", test_forked, "memory shared after fork" },
	{ "ksm", test_ksm, "KSM pages" },
	{ "swap_cache", test_swap_cache, "pages in the swap cache" },
	{ "userfaultfd", test_userfaultfd, "memory that userfaultfd protects" },
	{ "soft_dirty", test_soft_dirty, "soft-dirty bits" },
	{ "partially_mapped", test_partially_mapped,
	  "a huge page that is mapped in part" },
	{ "hugetlb", test_hugetlb, "a hugetlb page in the batch" },
	{ "compaction", test_compaction,
	  "compaction of zram and of a file of tmpfs that is not mapped" },
	{ "compaction_ext4", test_compaction_ext4,
	  "compaction of a file of ext4 that is not mapped" },
};

/* Parameters of dcbm that dcbm_save() does not save */
static struct {
	const char *path;
	const char *val;
	char saved[256];
} settings[] = {
	/* What else migrates, as kcompactd, is not counted, nor held */
	{ DCBM_PARAMS "reason_mask", REASON },
	{ DCBM_PARAMS "min_bytes", "0" },
	{ DCBM_PARAMS "min_batch_bytes", "0" },
	/* The engine is held for as long as we like */
	{ DCBM_PARAMS "timeout_ms", HOLD_MS },
	/* Nobody else shall move what we look at */
	{ "/proc/sys/kernel/numa_balancing", "0" },
	{ "/proc/sys/vm/compaction_proactiveness", "0" },
	/* What is freed can be had, instead of waiting on a CPU's own list */
	{ "/proc/sys/vm/percpu_pagelist_high_fraction", "100000" },
};

static void settings_restore(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (*settings[i].saved)
			write_text(settings[i].path, settings[i].saved);
}

static void settings_make(void)
{
	unsigned int i;

	atexit(settings_restore);
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (!read_text(settings[i].path, settings[i].saved,
			       sizeof(settings[i].saved)))
			write_text(settings[i].path, settings[i].val);
}

static int kmsg_fd = -1;

/* Has the kernel complained since we looked last? */
static bool kernel_complained(void)
{
	static const char * const splats[] = {
		"WARNING:", "BUG:", "Oops", "KASAN:", "DMA-API:",
		"general protection", "rcu: INFO:", "pagealloc: ",
		"turning off the locking correctness validator",
	};
	char line[8192];
	bool bad = false;
	unsigned int i;
	ssize_t n;

	while ((n = read(kmsg_fd, line, sizeof(line) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		line[max(n, 0L)] = '\0';
		for (i = 0; i < ARRAY_SIZE(splats); i++) {
			if (!strstr(line, splats[i]))
				continue;
			ksft_print_msg("%s", line);
			bad = true;
		}
	}
	return bad;
}

static void dir_remove(void)
{
	(void)!chdir("/");
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

static void setup(void)
{
	static const char * const faults[] = {
		"fail_read", "fail_write", "short_copy", "refuse_prep",
		"refuse_submit", "lose_callback", "stall", "reorder",
		"delay_us", "bandwidth",
	};
	struct sigaction sa = { .sa_handler = sigbus };
	unsigned int i;

	migrate_offload_setup();
	if (!dcbm_present())
		ksft_exit_skip("dcbm is not loaded\n");
	seed = now_ns();

	dcbm_save();
	settings_make();
	if (dcbm_write("offloading", "N") || dcbm_write("nr_dma_chan", "1") ||
	    dcbm_write("offloading", "Y"))
		ksft_exit_skip("no DMA channel\n");
	if (!engine_find())
		ksft_exit_skip("the engine of dcbm is not one of dma-sim\n");
	for (i = 0; i < ARRAY_SIZE(faults); i++)
		engine_set(faults[i], 0);
	if (!probes_start())
		ksft_print_msg("no kprobe events: copies by the CPU are not counted\n");

	kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	lseek(kmsg_fd, 0, SEEK_END);
	sigaction(SIGBUS, &sa, NULL);
	/* All that we mount goes with us */
	strcpy(dir, "/tmp/migrate_offload.XXXXXX");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE,
					  NULL) ||
	    !mkdtemp(dir))
		ksft_exit_fail_perror("directory");
	atexit(dir_remove);
	if (mount("tmpfs", dir, "tmpfs", 0, NULL) || chdir(dir))
		ksft_exit_fail_perror("tmpfs");
}

static bool wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (!strcmp(name, *names))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	unsigned int i, nr = 0;
	int ret;

	if (argc > 1 && *argv[1] == '-') {
		printf("usage: %s [TEST ...]\n", *argv);
		for (i = 0; i < ARRAY_SIZE(tests); i++)
			printf("  %-18s%s\n", tests[i].name, tests[i].what);
		return strcmp(argv[1], "-h") ? 2 : 0;
	}
	for (i = 0; i < ARRAY_SIZE(tests); i++)
		nr += wanted(tests[i].name, argv + 1);

	ksft_print_header();
	setup();
	ksft_set_plan(nr);
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		uint64_t start = now_ns();

		if (!wanted(tests[i].name, argv + 1))
			continue;
		*why = '\0';
		ret = tests[i].run();
		engine_set("stall", 0);
		if (kernel_complained())
			ret = KSFT_FAIL;
		ksft_print_msg("%s: %llu ms\n", tests[i].name,
			       (now_ns() - start) / 1000000ULL);
		ksft_test_result_code(ret, tests[i].name, "%s%s%s",
				      tests[i].what, *why ? ": " : "", why);
	}
	ksft_finished();
}
