/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tests that register themselves by name, and what they share. A test begins
 *
 *	HAZARD(tmpfs, "file of tmpfs")
 *	{
 *
 * and returns KSFT_PASS, KSFT_FAIL, or what skip() returns.
 */
#ifndef _MIGRATE_OFFLOAD_HAZARDS_H
#define _MIGRATE_OFFLOAD_HAZARDS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kselftest.h"
#include "util.h"
#include "window.h"

struct hazard {
	const char *name;
	const char *what;
	int (*run)(void);
	bool picked;
	struct hazard *next;
};

void hazard_register(struct hazard *h);

#define HAZARD(name_, what_)						\
static int test_##name_(void);						\
static void __attribute__((constructor)) register_##name_(void)	\
{									\
	static struct hazard hazard = {					\
		.name = #name_, .what = what_, .run = test_##name_,	\
	};								\
									\
	hazard_register(&hazard);					\
}									\
static int test_##name_(void)

#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* Special folios of a batch */
#define NR_SPECIAL	8
/* A chunk has room for all folios that a test holds, unless it says otherwise */
#define ROOMY_CHUNK	(2UL << 20)
/* Of filesystems and of zram */
#define BLOCK		4096
/* For how long an engine may be held */
#define HOLD_MS		"60000"
/* That of move_pages() */
#define REASON		"syscall_or_cpuset"
#define HWPOISON	"/sys/kernel/debug/hwpoison/"

/* Why a test was skipped */
extern char why[256];

int __printf(1, 2) skip(const char *fmt, ...);
int result(bool ok);
/* Run a shell command, and return what system() does */
int __printf(1, 2) run(const char *fmt, ...);

unsigned long pfn_of(void *addr);
uint64_t flags_of(void *addr);

/* Has @want become of the batch, and has @special the content of @gen? */
bool special_moved(struct batch *b, struct region *special,
		   const struct outcome *want, uint64_t gen);
/* Move it with ordinary folios; an engine has to copy all. Return a result. */
int move_special(struct region *special, uint64_t gen);
/* Has the file the content of @gen? @r was mapped, and is replaced. */
bool file_verify(int fd, const struct region *r, uint64_t gen);

/* Write @val to the file @path, until the test has ended */
bool set_for_test(const char *path, const char *val);

/* How long to watch that something does not happen, in microseconds */
#define LULL_US		200000

/* A write to a file in another thread, since it may have to wait */
struct writing {
	const char *path;
	const char *text;
	pthread_t thread;
	atomic_bool done;
	int err;
};

void writing_begin(struct writing *w);
/* Wait for it. Return whether it succeeded. */
bool writing_end(struct writing *w);

/*
 * Turn dcbm off while @b is held, which has to wait for @b, and then release
 * @b. Return a result, which depends on what has become of @b, too.
 */
int unregister(struct batch *b, const struct outcome *want);
/* Kill a process with a batch of @chunk folios in flight. Return a result. */
int killed_in_flight(size_t chunk);

/* Return a userfaultfd or -1 */
int open_uffd(void);
/* Why no memory failures can be injected, or NULL */
const char *no_hwpoison(void);

/* How many hugetlb pages a node had, before @add is added */
unsigned long hugetlb_pool(int node, long add);

#endif /* _MIGRATE_OFFLOAD_HAZARDS_H */
