// SPDX-License-Identifier: GPL-2.0
/*
 * Disturb two chunks in flight: the engine copies one, the next one is unmapped,
 * and the task that migrates sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"

/* Folios of a chunk, of which a batch makes four */
#define NR_CHUNK	(NR_ORDINARY / 4)
/* dcbm waits at most this long for an engine, and a hog runs for longer */
#define TIMEOUT_MS	"1000"
#define HOG_MS		1500

#define FAIR_SERVER	"/sys/kernel/debug/sched/fair_server/cpu%d/runtime"
#define SIM_DRIVER	"/sys/bus/platform/drivers/dma-sim/"
#define CGROUP		"/sys/fs/cgroup/migrate_offload/"

/* Hold the first of four chunks, until the next one is unmapped as well */
static bool hold_two(struct batch *b)
{
	if (batch_home(b) && batch_hold(b, NR_CHUNK)) {
		if (wait_for(nr_unmapped(b, getpid()) == 2 * NR_CHUNK))
			return true;
		ksft_print_msg("%zu folios are unmapped, should be %d\n",
			       nr_unmapped(b, getpid()), 2 * NR_CHUNK);
		batch_release(b);
	}
	return false;
}

static bool two_init(struct batch *b)
{
	batch_limit_set(NR_CHUNK * psize());
	return batch_init(b, 0);
}

static bool two_in_flight(struct batch *b)
{
	if (!two_init(b))
		return false;
	if (hold_two(b))
		return true;
	batch_free(b);
	return false;
}

/* While an engine copies a chunk, the next one is unmapped, and no other */
HAZARD(two_in_flight, "the next chunk is unmapped while the engine copies")
{
	struct batch b;
	bool ok;

	if (!two_in_flight(&b))
		return KSFT_FAIL;
	usleep(LULL_US);
	ok = nr_unmapped(&b, getpid()) == 2 * NR_CHUNK;
	ok = batch_release(&b) && batch_check(&b, &all_copied) && ok;
	batch_free(&b);
	return result(ok);
}

HAZARD(two_killed, "the process is killed with two chunks in flight")
{
	return killed_in_flight((NR_SPECIAL + NR_ORDINARY) / 4);
}

/* The CPU copies only the last folio of the first chunk */
HAZARD(two_fail, "the engine fails in the first of two chunks")
{
	struct outcome want = {
		.offloaded = NR_ORDINARY - 1,
		.cpu = 1,
		.failed = 1,
	};
	struct batch b;
	bool ok;

	if (!two_init(&b))
		return KSFT_FAIL;
	b.fault = "fail_read";
	ok = hold_two(&b) && batch_release(&b) && batch_check(&b, &want);
	engine_set(b.fault, 0);
	batch_free(&b);
	return result(ok);
}

/*
 * The engine may still read the folios of the first chunk, so they stay where
 * they are. dcbm gives it no other, and the CPU copies the other chunks.
 */
HAZARD(two_stuck, "the engine does not answer for the first of two chunks")
{
	struct outcome want = {
		.cpu = NR_ORDINARY - NR_CHUNK,
		.lost = NR_CHUNK,
		.failed = NR_ORDINARY,
	};
	struct batch b;
	bool ok;

	if (!set_for_test(DCBM_PARAMS "timeout_ms", TIMEOUT_MS) ||
	    !two_in_flight(&b))
		return KSFT_FAIL;
	ok = batch_join(&b) && batch_check(&b, &want);
	ok &= engine_set("stall", 0) && wait_for(channel_is(" idle"));
	ok = ok && batch_home(&b) && batch_run(&b) &&
	     batch_check(&b, &all_copied);
	batch_free(&b);
	return result(ok);
}

/* The answer counts, however late the task sees it */
HAZARD(two_preempted, "the task does not run until long after the answer")
{
	const struct sched_param fifo = { .sched_priority = 1 };
	int cpu = sched_getcpu();
	char path[96];
	uint64_t until;
	cpu_set_t set;
	struct batch b;
	bool ok;

	if (sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) < 2)
		return skip("needs two CPUs");
	/* Or the scheduler gives others a part of each second */
	snprintf(path, sizeof(path), FAIR_SERVER, cpu);
	if (!access(path, F_OK) && !set_for_test(path, "0"))
		return KSFT_FAIL;
	set_for_test("/proc/sys/kernel/sched_rt_runtime_us", "-1");

	/* The thread that migrates inherits this CPU */
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (!set_for_test(DCBM_PARAMS "timeout_ms", TIMEOUT_MS) ||
	    sched_setaffinity(0, sizeof(set), &set) || !two_in_flight(&b))
		return KSFT_FAIL;

	if (sched_setscheduler(0, SCHED_FIFO, &fifo))
		ksft_exit_fail_perror("sched_setscheduler");
	ok = engine_set("stall", 0);
	until = now_ns() + HOG_MS * 1000000ULL;
	while (now_ns() < until)
		;
	if (b.done) {
		ksft_print_msg("the task has run\n");
		ok = false;
	}
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param) { });

	ok = batch_join(&b) && batch_check(&b, &all_copied) && ok;
	ok &= channel_is(" idle");
	batch_free(&b);
	return result(ok);
}

/* The CPU copies what was unmapped for a migrator that is gone by then */
static const struct outcome rest_by_cpu = {
	.offloaded = NR_CHUNK,
	.cpu = NR_ORDINARY - NR_CHUNK,
};

HAZARD(two_unregister, "dcbm is turned off with two chunks in flight")
{
	struct batch b;

	return two_in_flight(&b) ? unregister(&b, &rest_by_cpu) : KSFT_FAIL;
}

/*
 * dma-sim stops its channels before dmaengine notifies dcbm, so the folio that
 * is being copied fails. The CPU copies that folio and all later ones.
 */
HAZARD(two_unbind, "the engine is unbound with two chunks in flight")
{
	struct outcome want = {
		.offloaded = NR_CHUNK - 1,
		.cpu = NR_ORDINARY - (NR_CHUNK - 1),
		.failed = NR_ORDINARY - (NR_CHUNK - 1),
	};
	struct batch b;
	bool ok;

	if (!two_in_flight(&b))
		return KSFT_FAIL;
	ok = !write_text(SIM_DRIVER "unbind", "dma-sim.0");
	ok = batch_join(&b) && batch_check(&b, &want) && ok;
	ok &= channel_is(" gone");
	ok &= !write_text(SIM_DRIVER "bind", "dma-sim.0");
	ok &= !dcbm_write("offloading", "N") &&
	      !dcbm_write("offloading", "Y") && engine_find();
	batch_free(&b);
	return result(ok);
}

static bool is_off(void)
{
	char offloading[8];

	return !dcbm_read("offloading", offloading, sizeof(offloading)) &&
	       *offloading == 'N';
}

/* dcbm is off while the system sleeps, and on again afterwards */
HAZARD(two_suspend, "the system goes to sleep with two chunks in flight")
{
	struct writing sleep = { "/sys/power/state", "freeze" };
	struct batch b;
	bool ok;

	/* The system freezes all tasks, waits for a second, and resumes */
	if (!set_for_test("/sys/power/pm_test", "freezer"))
		return skip("no pm_test");
	set_for_test("/sys/module/suspend/parameters/pm_test_delay", "1");
	if (!two_in_flight(&b))
		return KSFT_FAIL;
	writing_begin(&sleep);
	/* dcbm waits for the first chunk */
	ok = wait_for(is_off());
	usleep(LULL_US);
	ok &= !b.done;
	ok &= batch_release(&b);
	ok &= writing_end(&sleep);
	ok = batch_check(&b, &rest_by_cpu) && ok;
	ok &= wait_for(!is_off()) && engine_find();
	batch_free(&b);
	return result(ok);
}

static bool is_frozen(void)
{
	char events[64];

	return !read_text(CGROUP "cgroup.events", events, sizeof(events)) &&
	       strstr(events, "frozen 1");
}

static void cgroup_remove(void)
{
	rmdir(CGROUP);
}

/* A process freezes only after its batch has ended */
HAZARD(two_frozen, "the process is frozen with two chunks in flight")
{
	unsigned long faults = engine_get("faults");
	char text[16];
	struct batch b;
	pid_t child;
	int status;
	bool ok;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		return skip("no cgroups");
	atexit(cgroup_remove);
	if (write_text(CGROUP "cgroup.freeze", "0"))
		return skip("no freezer of cgroups");
	if (!two_init(&b))
		return KSFT_FAIL;
	child = fork();
	if (!child)
		_exit(!(hold_two(&b) && batch_join(&b) &&
			batch_check(&b, &all_copied)));

	ok = wait_for(engine_get("faults") != faults &&
		      nr_unmapped(&b, child) == 2 * NR_CHUNK);
	snprintf(text, sizeof(text), "%d", child);
	ok &= !write_text(CGROUP "cgroup.procs", text) &&
	      !write_text(CGROUP "cgroup.freeze", "1");
	usleep(LULL_US);
	if (is_frozen()) {
		ksft_print_msg("the process is frozen with its batch in flight\n");
		ok = false;
	}
	ok &= engine_set("stall", 0) && wait_for(is_frozen());
	ok &= !nr_unmapped(&b, child);
	write_text(CGROUP "cgroup.freeze", "0");
	ok = waitpid(child, &status, 0) == child && !status && ok;
	cgroup_remove();
	batch_free(&b);
	return result(ok);
}
