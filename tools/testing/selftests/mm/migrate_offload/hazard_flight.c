// SPDX-License-Identifier: GPL-2.0
/*
 * Disturb a batch in flight: the engine copies it while the task that submitted
 * it sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"

/* Hold a batch of ordinary folios */
static bool in_flight(struct batch *b)
{
	if (!batch_init(b, 0))
		return false;
	if (batch_home(b) && batch_hold(b, NR_ORDINARY))
		return true;
	batch_free(b);
	return false;
}

static void on_signal(int sig)
{
}

/* A signal does not end the wait for the engine early */
HAZARD(signal_in_flight, "a signal while the engine copies")
{
	struct sigaction action = { .sa_handler = on_signal };
	struct batch b;
	bool ok;

	sigaction(SIGUSR1, &action, NULL);
	if (!in_flight(&b))
		return KSFT_FAIL;
	ok = !pthread_kill(b.thread, SIGUSR1);
	usleep(LULL_US);
	if (b.done)
		ksft_print_msg("the batch did not wait for its engine\n");
	ok = ok && !b.done;
	ok = batch_release(&b) && batch_check(&b, &all_copied) && ok;
	batch_free(&b);
	signal(SIGUSR1, SIG_DFL);
	return result(ok);
}

/*
 * Nothing is left behind by a process that dies: it ends when the engine is done,
 * and what others share with it is as it was.
 */
int killed_in_flight(size_t chunk)
{
	unsigned long faults = engine_get("faults");
	struct region special;
	pid_t child, ended;
	struct batch b;
	bool ok = true;
	int fd, status;

	fd = memfd_create("killed", MFD_CLOEXEC);
	if (fd < 0 || !map_special(&special, NR_SPECIAL, fd))
		return KSFT_FAIL;
	region_fill(&special, 7);

	if (!batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	batch_limit_set(chunk * psize());
	child = fork();
	if (!child) {
		/* It does not inherit the page tables of shared memory */
		region_fill(&special, 7);
		if (!batch_home(&b) || !batch_hold(&b, chunk))
			_exit(1);
		/* Ordinary folios of the next chunk are unmapped as well */
		if (chunk < b.nr && !wait_for(nr_unmapped(&b, getpid()) ==
					      2 * chunk - NR_SPECIAL))
			_exit(1);
		kill(getpid(), SIGKILL);
		pause();
	}
	wait_for(engine_get("faults") != faults);
	/* The thread that holds the folios cannot go yet */
	usleep(5 * LULL_US);
	ended = waitpid(child, &status, WNOHANG);
	if (ended) {
		ksft_print_msg("the process has ended with its batch in flight\n");
		ok = false;
	}
	ok &= engine_set("stall", 0);
	if (!ended)
		ok &= waitpid(child, &status, 0) == child;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		ksft_print_msg("the process ended with %x\n", status);
		ok = false;
	}
	ok = region_verify(&special, 7) && ok;
	batch_free(&b);
	/* They can be moved, so nobody has kept a lock or a reference */
	batch_limit_set(ROOMY_CHUNK);
	ok = ok && move_special(&special, 7) == KSFT_PASS;
	region_free(&special);
	close(fd);
	return result(ok);
}

HAZARD(killed_in_flight, "the process is killed while the engine copies")
{
	return killed_in_flight(NR_SPECIAL + NR_ORDINARY);
}

HAZARD(unregister_in_flight, "dcbm is turned off while its engine copies")
{
	struct batch b;

	return in_flight(&b) ? unregister(&b, &all_copied) : KSFT_FAIL;
}

/* Those who look for memory find folios that are locked, and leave them alone */
HAZARD(reclaim_in_flight, "reclaim and compaction while the engine copies")
{
	struct batch b;
	bool ok;

	if (!in_flight(&b))
		return KSFT_FAIL;
	/* Both wait while more is isolated than is left, and end by a signal */
	run("echo 1 >/proc/sys/vm/drop_caches");
	run("timeout 3 sh -c 'echo 16M >/sys/devices/system/node/node%d/reclaim' 2>/dev/null",
	    node_a);
	run("timeout 3 sh -c 'echo 1 >/proc/sys/vm/compact_memory' 2>/dev/null");
	ok = !b.done;
	ok = batch_release(&b) && batch_check(&b, &all_copied) && ok;
	batch_free(&b);
	return result(ok);
}

/* ---- a CPU that writes to what is not mapped any more --------------------- */

#define WRITER_PAGES	1024
#define WRITER_ROUNDS	20

static struct {
	sigjmp_buf fault;
	char *mem;
	/* Last value that was written to each page, for sure */
	uint32_t *written;
	atomic_bool go;
} writer;

static void on_fault(int sig)
{
	siglongjmp(writer.fault, 1);
}

/* Write to all pages, over and over, until they are gone */
static void *write_until_fault(void *unused)
{
	uint32_t value, *word;
	size_t i;

	if (sigsetjmp(writer.fault, 1))
		return NULL;
	atomic_store(&writer.go, true);
	for (value = 1;; value++) {
		for (i = 0; i < WRITER_PAGES; i++) {
			word = (uint32_t *)(writer.mem + i * psize());
			__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
			__atomic_store_n(&writer.written[i], value,
					 __ATOMIC_SEQ_CST);
		}
	}
}

/*
 * munmap() clears PTEs, and flushes TLBs later: what a CPU writes in between
 * must not be lost, though another mapping of the same folios is moved.
 */
HAZARD(munmap_writer, "written to while it is unmapped by another thread")
{
	struct sigaction action = { .sa_handler = on_fault };
	struct sigaction old_segv, old_bus;
	struct region special;
	struct move m;
	size_t i, lost = 0;
	pthread_t thread;
	int fd, round;
	bool ok = true;

	fd = memfd_create("munmap", MFD_CLOEXEC);
	writer.written = calloc(WRITER_PAGES, sizeof(*writer.written));
	if (fd < 0 || !writer.written || !map_special(&special, WRITER_PAGES, fd))
		return KSFT_FAIL;
	move_alloc(&m, special.nr);
	move_set_region(&m, &special);
	sigaction(SIGSEGV, &action, &old_segv);
	sigaction(SIGBUS, &action, &old_bus);

	for (round = 0; ok && round < WRITER_ROUNDS; round++) {
		writer.mem = mmap(NULL, special.len, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_POPULATE, fd, 0);
		if (writer.mem == MAP_FAILED)
			ksft_exit_fail_perror("mmap");
		memset(writer.written, 0, WRITER_PAGES * sizeof(uint32_t));
		atomic_store(&writer.go, false);
		if (pthread_create(&thread, NULL, write_until_fault, NULL))
			ksft_exit_fail_msg("cannot start a thread\n");
		wait_for(atomic_load(&writer.go));
		usleep(1000 * (round % 5));
		/* A child moves, while this process unmaps */
		if (!fork())
			_exit(!move_to(&m, round % 2 ? node_a : node_b, true));
		munmap(writer.mem, special.len);
		pthread_join(thread, NULL);
		wait(NULL);
		for (i = 0; i < WRITER_PAGES; i++)
			lost += *(uint32_t *)(special.mem + i * psize()) <
				writer.written[i];
		ok = !lost;
	}
	if (lost)
		ksft_print_msg("%zu writes were lost\n", lost);
	sigaction(SIGSEGV, &old_segv, NULL);
	sigaction(SIGBUS, &old_bus, NULL);
	move_free(&m);
	free(writer.written);
	region_free(&special);
	close(fd);
	return result(ok);
}
