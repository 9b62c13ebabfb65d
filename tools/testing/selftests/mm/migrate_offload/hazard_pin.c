// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that others refer to without a page table: buffers of direct I/O and of
 * io_uring, pipes, and long-term pins.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

#include "mm/gup_test.h"
#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"
#include "disk.h"

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

HAZARD(direct_io, "direct I/O ends between copy and move")
{
	return direct_io(false);
}

HAZARD(direct_write, "direct I/O fetches what it writes between copy and move")
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

HAZARD(uring_shared, "io_uring reads into a fixed buffer, shared memory")
{
	return uring(true, false);
}

HAZARD(uring_private, "io_uring reads into a fixed buffer, private memory")
{
	return uring(false, false);
}

HAZARD(uring_write, "io_uring writes from a fixed buffer, shared memory")
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

HAZARD(vmsplice_shared, "shared memory in a pipe")
{
	return result(vmsplice_reference(true, true) == KSFT_PASS &&
		      vmsplice_reference(true, false) == KSFT_PASS);
}

HAZARD(vmsplice_private, "private memory in a pipe")
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

HAZARD(pin_shared, "long-term pin of shared memory")
{
	return longterm_pin(true);
}

HAZARD(pin_private, "long-term pin of private memory")
{
	return longterm_pin(false);
}
