// SPDX-License-Identifier: GPL-2.0
/*
 * Files of FUSE: what iomap finds in a folio after the move, and moves that are
 * retried or undone since a reader holds a reference.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/userfaultfd.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"
#include "io.h"

/*
 * iomap takes whatever is in folio->private for its own, and asks no flag: the
 * mark of the core must not be left there when the folio has been moved.
 */
HAZARD(iomap, "file of FUSE, written back after the move")
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

/*
 * A reader of the first folio has a reference to it, and waits for the second
 * to be moved, since that is where the data go. So the first pass fails for the
 * first folio, and the next succeeds, if the reader is quick: it has a CPU of
 * its own, and the time that it takes to move the others of the batch. A holder
 * of a reference may write, so the folio must be copied again then.
 */
#define BATCH_PASSES	3
/* No more than the 256 folios of a chunk altogether */
#define NR_OTHERS	160

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

HAZARD(retry, "a reference that goes during the move")
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
HAZARD(undo, "a reference that stays")
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
