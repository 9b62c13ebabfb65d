// SPDX-License-Identifier: GPL-2.0
/*
 * Files of tmpfs and memory files: written, read and pinned as a whole while
 * they are moved.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <linux/mempolicy.h>
#include <linux/udmabuf.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"
#include "io.h"

HAZARD(tmpfs, "file of tmpfs")
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

/* For another reason, which is left to the CPU */
static bool others_move(const struct region *r, size_t nr_held)
{
	size_t held = nr_held * psize();
	int err;

	if (held == r->len)
		return true;
	err = mbind_to_node(r->mem + held, r->len - held, node_b,
			    MPOL_MF_MOVE | MPOL_MF_STRICT);
	if (!err)
		return true;
	ksft_print_msg("other folios cannot be moved: %s\n", strerror(-err));
	return false;
}

/*
 * A process writes to a whole file, or pins it and then writes, while the first
 * @nr_held folios of the file are held. It has to wait for them, and what it wrote
 * must be there afterwards. Meanwhile the others can be moved: nobody has a
 * reference to them.
 */
static bool write_while_held(int udmabuf, size_t nr_held)
{
	struct outcome want = {
		.offloaded = nr_held + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	int fd = memfd_create("hazard", MFD_ALLOW_SEALING);
	struct region special = { }, data = { };
	struct io write = { .fd = fd, .is_write = true, .udmabuf = udmabuf };
	struct batch b;
	size_t i;
	bool ok;

	if (!batch_init(&b, nr_held))
		return false;
	ok = map_special(&special, NR_SPECIAL, fd) &&
	     map_special(&data, NR_SPECIAL, -1) &&
	     !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	for (i = 0; i < nr_held; i++)
		b.addrs[i] = special.mem + i * psize();
	write.buf = data.mem;
	write.len = data.len;
	region_fill(&data, 1);
	ok = ok && batch_home(&b) && batch_hold(&b, want.offloaded);
	if (ok) {
		ok = io_start(&write) && io_blocks(&write);
		ok &= others_move(&special, nr_held);
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

HAZARD(tmpfs_write, "file of tmpfs, written meanwhile")
{
	return result(write_while_held(0, NR_SPECIAL));
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

static bool pin_while_all_held(int udmabuf)
{
	return write_while_held(udmabuf, NR_SPECIAL);
}

HAZARD(pin_memfd, "memory file, pinned and written to meanwhile")
{
	return with_udmabuf(pin_while_all_held);
}

static bool pin_while_first_held(int udmabuf)
{
	return write_while_held(udmabuf, 1);
}

HAZARD(pin_memfd_others, "memory file, of which others are moved while a pin waits")
{
	return with_udmabuf(pin_while_first_held);
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

HAZARD(pin_memfd_killed, "memory file, whose pin is killed while it waits")
{
	return with_udmabuf(pin_memfd_killed);
}

/* Readers of tmpfs wait for the lock of the folio, and have a reference */
HAZARD(undo_readers, "readers that wait for the lock")
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
