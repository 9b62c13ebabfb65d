// SPDX-License-Identifier: GPL-2.0
/*
 * Hold open the time between the copy of a batch by an engine and the move of
 * its folios. dma-sim stops before the last descriptor of the batch: all folios
 * before that have been copied, none has been moved, and all are locked until
 * the engine may go on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/mempolicy.h>
#include <linux/perf_event.h>

#include "kselftest.h"
#include "vm_util.h"
#include "window.h"

#define SIM_DEBUGFS	"/sys/kernel/debug/dma-sim/"

#define MAX_WRITE	(128U << 10)

/* ---- an engine of dma-sim ---------------------------------------------- */

static char engine_dir[128];

/* Is the channel that dcbm has claimed one of dma-sim? */
bool engine_find(void)
{
	char buf[256];

	if (dcbm_read("channels", buf, sizeof(buf)) || !*buf)
		return false;
	buf[strcspn(buf, " ")] = '\0';
	snprintf(engine_dir, sizeof(engine_dir), SIM_DEBUGFS "%.32s/", buf);
	return !access(engine_dir, F_OK);
}

bool channel_is(const char *state)
{
	char buf[256];

	return !dcbm_read("channels", buf, sizeof(buf)) && strstr(buf, state);
}

bool engine_set(const char *knob, unsigned long val)
{
	char path[192], text[32];
	int err;

	snprintf(path, sizeof(path), "%s%s", engine_dir, knob);
	snprintf(text, sizeof(text), "%lu", val);
	err = write_text(path, text);
	if (err)
		ksft_print_msg("%s: %s\n", path, strerror(-err));
	return !err;
}

unsigned long engine_get(const char *knob)
{
	char path[192], text[32];

	snprintf(path, sizeof(path), "%s%s", engine_dir, knob);
	if (read_text(path, text, sizeof(text)))
		return 0;
	return strtoul(text, NULL, 0);
}

/* ---- what migration does, counted by kprobes ---------------------------- */

/* By perf, since somebody else, as kcompactd, may migrate at the same time */
#define PERF_KPROBE	"/sys/bus/event_source/devices/kprobe/type"

static struct {
	const char *symbol;
	int fd;
} probes[] = {
	[CPU_COPIES] = { "folio_mc_copy", -1 },
	[FILE_MOVES] = { "filemap_migrate_folio", -1 },
	[BUFFER_MOVES] = { "buffer_migrate_folio", -1 },
};

/* Counts what this thread and those that it creates from now on do */
bool probes_start(void)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		/* Not by processes: kprobe_func is an address, and read again */
		.inherit = 1,
		.inherit_thread = 1,
	};
	char type[16];
	unsigned int i;

	if (read_text(PERF_KPROBE, type, sizeof(type)))
		return false;
	attr.type = strtoul(type, NULL, 10);
	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		attr.kprobe_func = (uintptr_t)probes[i].symbol;
		probes[i].fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1,
				       PERF_FLAG_FD_CLOEXEC);
		if (probes[i].fd < 0)
			return false;
	}
	return true;
}

/* How often it has happened, or ANY */
long probe_hits(enum probe probe)
{
	uint64_t hits;

	if (read(probes[probe].fd, &hits, sizeof(hits)) != sizeof(hits))
		return ANY;
	return hits;
}

/* ---- a batch ----------------------------------------------------------- */

const struct outcome all_copied = { .offloaded = NR_ORDINARY };

static uint64_t generation;

bool batch_init(struct batch *b, size_t nr_special)
{
	*b = (struct batch) {
		.nr_special = nr_special,
		.nr = nr_special + NR_ORDINARY,
	};
	b->addrs = calloc(b->nr, sizeof(*b->addrs));
	b->nodes = calloc(b->nr, sizeof(*b->nodes));
	b->status = calloc(b->nr, sizeof(*b->status));
	b->where = calloc(b->nr, sizeof(*b->where));
	if (!b->addrs || !b->nodes || !b->status || !b->where)
		ksft_exit_fail_msg("out of memory\n");
	if (!region_alloc(&b->ordinary, psize(), NR_ORDINARY * psize()))
		return false;
	batch_add_region(b, nr_special, &b->ordinary);
	return true;
}

void batch_free(struct batch *b)
{
	if (b->running)
		batch_release(b);
	region_free(&b->ordinary);
	free(b->addrs);
	free(b->nodes);
	free(b->status);
	free(b->where);
}

/* Take the folios of @r into the batch, from place @first on */
void batch_add_region(struct batch *b, size_t first, const struct region *r)
{
	size_t i;

	for (i = 0; i < r->nr; i++)
		b->addrs[first + i] = r->mem + i * r->size;
}

static void *batch_thread(void *arg)
{
	struct batch *b = arg;

	/* What is mapped by others too is to be moved as well */
	b->ret = syscall(__NR_move_pages, 0, b->nr, b->addrs, b->nodes,
			 b->status, MPOL_MF_MOVE_ALL);
	b->err = errno;
	b->done = true;
	return NULL;
}

static bool batch_start(struct batch *b, int node)
{
	size_t i;

	for (i = 0; i < b->nr; i++) {
		b->nodes[i] = node;
		b->status[i] = -1;
	}
	b->done = false;
	read_counters(&b->before);
	b->copies_before = probe_hits(CPU_COPIES);
	b->moves_before = probe_hits(FILE_MOVES);
	b->running = !pthread_create(&b->thread, NULL, batch_thread, b);
	if (!b->running)
		ksft_print_msg("cannot start a thread\n");
	return b->running;
}

/* Wait until the call has returned */
bool batch_join(struct batch *b)
{
	if (!wait_for(b->done)) {
		/* Whatever it waits for, nobody can help it any more. */
		ksft_exit_fail_msg("move_pages does not return\n");
	}
	pthread_join(b->thread, NULL);
	b->running = false;
	if (b->ret < 0 && b->err != ENOMEM && b->err != EBUSY &&
	    b->err != EAGAIN) {
		ksft_print_msg("move_pages: %s\n", strerror(b->err));
		return false;
	}
	return true;
}

static bool batch_where(struct batch *b)
{
	if (!move_pages(b->nr, b->addrs, NULL, b->where))
		return true;
	ksft_perror("move_pages query");
	return false;
}

/* Begin with all folios on node_a, and with fresh content of ordinary ones */
bool batch_home(struct batch *b)
{
	unsigned int attempt;
	size_t i;

	region_fill(&b->ordinary, ++generation);
	for (attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
		if (!batch_start(b, node_a) || !batch_join(b) ||
		    !batch_where(b))
			return false;
		for (i = 0; i < b->nr && b->where[i] == node_a; i++)
			;
		if (i == b->nr)
			return true;
	}
	ksft_print_msg("place %zu of the batch is on node %d and stays there\n",
		       i, b->where[i]);
	return false;
}

/*
 * Begin to move the batch, and stop when the engine is about to copy the
 * @nr_descs-th folio; that should be the last.
 */
bool batch_hold(struct batch *b, unsigned long nr_descs)
{
	unsigned long faults = engine_get("faults");

	if (!engine_set("times", b->fault ? 2 : 1) ||
	    !engine_set("stall", nr_descs) ||
	    (b->fault && !engine_set(b->fault, nr_descs)) ||
	    !batch_start(b, node_b))
		return false;
	wait_for(engine_get("faults") != faults || b->done);
	if (engine_get("faults") != faults)
		return true;
	ksft_print_msg("the engine was not given %lu folios\n", nr_descs);
	batch_release(b);
	return false;
}

/* As batch_hold(), but return when dcbm has given up waiting for the engine */
bool batch_give_up(struct batch *b, unsigned long nr_descs)
{
	return batch_hold(b, nr_descs) && batch_join(b);
}

bool batch_release(struct batch *b)
{
	/* Both: should there be no stall yet, there must not be one later */
	return engine_set("stall", 0) & batch_join(b);
}

/* Move the batch, without more ado */
bool batch_run(struct batch *b)
{
	return batch_start(b, node_b) && batch_join(b);
}

size_t nr_unmapped(struct batch *b, pid_t pid)
{
	char path[64];
	size_t i, nr = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		ksft_exit_fail_perror(path);
	/* Without touching any */
	for (i = 0; i < b->ordinary.nr; i++)
		nr += !(pagemap_get_entry(fd, (char *)b->ordinary.mem +
					  i * psize()) >> 63);
	close(fd);
	return nr;
}

static bool is(const char *what, long want, long got)
{
	if (want == ANY || got == want)
		return true;
	ksft_print_msg("%s: %ld, should be %ld\n", what, got, want);
	return false;
}

/* Where did everything go, who copied it, and are ordinary folios right? */
bool batch_check(struct batch *b, const struct outcome *want)
{
	long copies = probe_hits(CPU_COPIES), unmoved[2] = { };
	struct counters now;
	bool ok = true;
	size_t i;

	read_counters(&now);
	if (!batch_where(b))
		return false;
	for (i = 0; i < b->nr; i++)
		unmoved[i >= b->nr_special] += b->where[i] != node_b;

	ok &= is("ordinary folios not moved", want->lost, unmoved[1]);
	ok &= is("special folios not moved", want->unmoved, unmoved[0]);
	ok &= is("copied by the engine", want->offloaded,
		 now.migrated - b->before.migrated);
	ok &= is("failures of the engine", want->failed,
		 now.failures - b->before.failures);
	if (copies != ANY)
		ok &= is("copied by the CPU", want->cpu,
			 copies - b->copies_before);
	return region_verify(&b->ordinary, generation) && ok;
}

/* Did move_pages() say that it moved nothing, and is that so? */
bool batch_check_unmoved(struct batch *b)
{
	size_t i, moved = 0;

	if (!batch_where(b))
		return false;
	for (i = 0; i < b->nr; i++)
		moved += b->where[i] != node_a;
	return is("folios moved", 0, moved) &
	       is("move_pages", b->nr, b->ret) &
	       region_verify(&b->ordinary, generation);
}

/*
 * Map and populate @nr pages on node_a: private and anonymous, or of file @fd,
 * which is made as long. Content is for the caller.
 */
bool map_special(struct region *r, size_t nr, int fd)
{
	int err;

	*r = (struct region) {
		.size = psize(),
		.nr = nr,
		.len = nr * psize(),
		.map_len = nr * psize(),
	};
	if (fd >= 0 && ftruncate(fd, r->len)) {
		ksft_perror("ftruncate");
		return false;
	}
	r->map = mmap(NULL, r->len, PROT_READ | PROT_WRITE,
		      fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		ksft_perror("mmap");
		return false;
	}
	r->mem = r->map;
	err = bind_to_node(r->mem, r->len, node_a);
	if (err) {
		ksft_print_msg("mbind: %s\n", strerror(-err));
		return false;
	}
	madvise(r->mem, r->len, MADV_NOHUGEPAGE);
	region_fill(r, 0);
	return true;
}

/* How often has a thread that sleeps where signals do not wake it slept? */
static long uninterrupted(pid_t tid)
{
	const char *key = "\nvoluntary_ctxt_switches:";
	char path[64], buf[4096], *p;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	if (!tid || read_text(path, buf, sizeof(buf)) ||
	    !strstr(buf, "\nState:\tD"))
		return -1;
	p = strstr(buf, key);
	return p ? strtol(p + strlen(key), NULL, 10) : 0;
}

/* Does the thread sleep for longer than it takes to get a lock or so? */
bool thread_blocks(pid_t tid)
{
	long before = uninterrupted(tid);

	if (before < 0)
		return false;
	usleep(20000);
	return uninterrupted(tid) == before;
}

/* ---- a file whose reads can be held ------------------------------------ */

static void fuse_reply(struct held_file *f, uint64_t unique, int err,
		       const void *data, size_t len)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + len,
		.error = err,
		.unique = unique,
	};
	struct iovec iov[] = {
		{ &out, sizeof(out) },
		{ (void *)data, len },
	};

	if (writev(f->fuse, iov, len ? 2 : 1) < 0 && errno != ENOENT)
		ksft_perror("reply of the held file");
}

static void fuse_reply_attr(struct held_file *f, uint64_t unique)
{
	struct fuse_attr_out out = {
		.attr_valid = 3600,
		.attr = {
			.ino = FUSE_ROOT_ID,
			.size = f->size,
			.blocks = f->size / 512,
			.mode = S_IFREG | 0600,
			.nlink = 1,
			.blksize = psize(),
		},
	};

	fuse_reply(f, unique, 0, &out, sizeof(out));
}

static void fuse_reply_init(struct held_file *f, uint64_t unique,
			    const struct fuse_init_in *in)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.flags = in->flags & FUSE_ASYNC_READ,
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = MAX_WRITE,
		.time_gran = 1,
	};

	fuse_reply(f, unique, 0, &out, sizeof(out));
}

static void fuse_reply_read(struct held_file *f, uint64_t unique,
			    const struct fuse_read_in *in)
{
	size_t len = in->offset < f->size ?
		     min(in->size, f->size - in->offset) : 0;

	fuse_reply(f, unique, 0, f->data + in->offset, len);
}

static void fuse_read(struct held_file *f, const struct fuse_in_header *h,
		      const struct fuse_read_in *in)
{
	bool hold;

	pthread_mutex_lock(&f->lock);
	hold = !f->held && (off_t)in->offset < f->hold_end &&
	       (off_t)(in->offset + in->size) > f->hold;
	if (hold) {
		f->held_header = *h;
		f->held_read = *in;
		f->held = true;
	}
	pthread_mutex_unlock(&f->lock);
	if (!hold)
		fuse_reply_read(f, h->unique, in);
}

static void fuse_write(struct held_file *f, uint64_t unique,
		       const struct fuse_write_in *in)
{
	struct fuse_write_out out = { };

	if (in->offset < f->size)
		out.size = min(in->size, f->size - in->offset);
	memcpy(f->data + in->offset, in + 1, out.size);
	fuse_reply(f, unique, out.size ? 0 : -ENOSPC, &out,
		   out.size ? sizeof(out) : 0);
}

static void fuse_request(struct held_file *f, const struct fuse_in_header *h)
{
	struct fuse_open_out opened = {
		/* Nobody would answer if we died */
		.open_flags = FOPEN_NOFLUSH | (f->direct ? FOPEN_DIRECT_IO :
							   FOPEN_KEEP_CACHE),
	};
	const void *arg = h + 1;

	switch (h->opcode) {
	case FUSE_INIT:
		fuse_reply_init(f, h->unique, arg);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		fuse_reply_attr(f, h->unique);
		break;
	case FUSE_OPEN:
		fuse_reply(f, h->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		fuse_read(f, h, arg);
		break;
	case FUSE_WRITE:
		fuse_write(f, h->unique, arg);
		break;
	case FUSE_FSYNC:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_DESTROY:
		fuse_reply(f, h->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		fuse_reply(f, h->unique, -ENOSYS, NULL, 0);
	}
}

/*
 * Nothing is fetched while we are told to stop, not even the next request: what is
 * to be written stays in the pages of whoever writes
 */
static void held_file_obey_stop(struct held_file *f)
{
	struct pollfd fd = { .fd = f->fuse, .events = POLLIN };
	bool stop;

	poll(&fd, 1, -1);
	do {
		pthread_mutex_lock(&f->lock);
		stop = f->stop;
		f->held |= stop;
		pthread_mutex_unlock(&f->lock);
		if (stop)
			usleep(1000);
	} while (stop);
}

static void *held_file_thread(void *arg)
{
	const size_t len = MAX_WRITE + psize();
	struct held_file *f = arg;
	char *buf = malloc(len);
	ssize_t n;

	while (buf) {
		held_file_obey_stop(f);
		n = read(f->fuse, buf, len);
		if (n >= (ssize_t)sizeof(struct fuse_in_header))
			fuse_request(f, (void *)buf);
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			break;
	}
	free(buf);
	return NULL;
}

/* Mount the file at @path, which must not exist */
bool held_file_mount(struct held_file *f, const char *path)
{
	char options[128];
	struct stat st;
	int fd;

	pthread_mutex_init(&f->lock, NULL);
	f->fuse = open("/dev/fuse", O_RDWR);
	if (f->fuse < 0)
		return false;
	snprintf(f->path, sizeof(f->path), "%s", path);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=100600,user_id=0,group_id=0", f->fuse);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		goto close;
	close(fd);
	if (mount("held_file", path, "fuse", MS_NODEV | MS_NOSUID, options))
		goto unlink;
	/* It has no size until somebody asks for it */
	if (!pthread_create(&f->thread, NULL, held_file_thread, f) &&
	    !stat(path, &st))
		return true;

	umount2(path, MNT_DETACH);
unlink:
	unlink(path);
close:
	ksft_perror("cannot mount a FUSE file");
	close(f->fuse);
	return false;
}

void held_file_umount(struct held_file *f)
{
	held_file_release(f);
	/* A loop device lets go of it a little later */
	if (!wait_for(!umount(f->path))) {
		ksft_perror("umount of the held file");
		umount2(f->path, MNT_DETACH);
	}
	pthread_join(f->thread, NULL);
	close(f->fuse);
	unlink(f->path);
}

void held_file_hold(struct held_file *f, off_t from, size_t len)
{
	pthread_mutex_lock(&f->lock);
	f->hold = from;
	f->hold_end = from + len;
	pthread_mutex_unlock(&f->lock);
}

/* From now on, whoever wants anything waits */
void held_file_stop(struct held_file *f)
{
	pthread_mutex_lock(&f->lock);
	f->stop = true;
	pthread_mutex_unlock(&f->lock);
}

/* Does somebody wait? */
bool held_file_is_held(struct held_file *f)
{
	bool held;

	pthread_mutex_lock(&f->lock);
	held = f->held;
	pthread_mutex_unlock(&f->lock);
	return held;
}

/* Wait for somebody to wait */
bool held_file_wait(struct held_file *f)
{
	return wait_for(held_file_is_held(f));
}

/* Let whoever waits go on with what @data holds now. False if nobody did. */
bool held_file_release(struct held_file *f)
{
	bool held, stop;

	pthread_mutex_lock(&f->lock);
	held = f->held;
	stop = f->stop;
	f->held = false;
	f->stop = false;
	f->hold = 0;
	f->hold_end = 0;
	pthread_mutex_unlock(&f->lock);
	/* If it was stopped, nothing has been read yet */
	if (held && !stop)
		fuse_reply_read(f, f->held_header.unique, &f->held_read);
	return held;
}
