// SPDX-License-Identifier: GPL-2.0
/*
 * For how long folios are not mapped while they are migrated. A folio is not
 * mapped from the trace event that tells of its first migration entry to the one
 * that tells that the last entry was removed. These events exist with and without
 * copy offload.
 *
 * A trace instance of our own records the events of a region in this process. The
 * process stays on one CPU meanwhile, so that only one buffer has to be large.
 * When the buffer is full, it keeps what it has: the first folio's events.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "kselftest.h"
#include "vm_util.h"
#include "util.h"
#include "latency.h"

/* An event takes 36 to 40 bytes, and some more if the one before was long ago. */
#define EVENT_BYTES	48
#define MAX_BUFFER_KB	(64UL << 10)
#define MAX_CPU_SETS	8

/* One attempt to migrate a folio */
struct attempt {
	unsigned long begin_us;
	unsigned long entries;	/* migration entries that are there now */
	bool seen;		/* one attempt is over */
};

struct event {
	unsigned long us;
	unsigned long addr;
	bool set;		/* or removed */
};

static const char * const tracefs[] = {
	"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
};

/* A folio is mapped by PTEs or by a PMD. Not every kernel has the latter. */
static const char * const events[] = {
	"migrate/set_migration_pte", "migrate/remove_migration_pte",
	"thp/set_migration_pmd", "thp/remove_migration_pmd",
};

static char instance[64];
/* The CPU that this process is traced on, and the size of its buffer */
static int trace_cpu = -1;
static unsigned long buffer_kb;
/* What latency_end() restores */
static cpu_set_t allowed[MAX_CPU_SETS];

static int trace_write(const char *name, const char *val)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", instance, name);
	return write_text(path, val);
}

static int events_write(const char *file, const char *val)
{
	char name[96];
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(name, sizeof(name), "events/%s/%s", events[i], file);
		err = trace_write(name, val);
		if (err && err != -ENOENT)
			return err;
	}
	return 0;
}

static void latency_close(void)
{
	rmdir(instance);
}

/* Return why latency cannot be measured, or NULL */
const char *latency_open(void)
{
	char path[192];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tracefs); i++) {
		snprintf(path, sizeof(path), "%s/instances", tracefs[i]);
		if (!access(path, F_OK))
			break;
	}
	if (i == ARRAY_SIZE(tracefs))
		return "no tracefs in /sys/kernel/tracing";

	snprintf(path, sizeof(path), "%s/events/%s", tracefs[i], events[0]);
	if (access(path, F_OK))
		return "no trace events of migration entries";

	snprintf(instance, sizeof(instance), "%s/instances/migrate_offload",
		 tracefs[i]);
	/* One may be left of a process that was killed. */
	rmdir(instance);
	if (mkdir(instance, 0700))
		return "tracefs makes no instance named migrate_offload";
	atexit(latency_close);

	if (trace_write("buffer_size_kb", "4") ||
	    trace_write("options/overwrite", "0") ||
	    trace_write("trace_clock", "mono"))
		return "tracefs takes no size, option or clock";
	return NULL;
}

/* Stay on one CPU, always the same. */
static void stay_on_cpu(void)
{
	cpu_set_t set[MAX_CPU_SETS];

	if (sched_getaffinity(0, sizeof(allowed), allowed))
		ksft_exit_fail_perror("sched_getaffinity");
	if (trace_cpu < 0)
		trace_cpu = sched_getcpu();
	CPU_ZERO_S(sizeof(set), set);
	CPU_SET_S(trace_cpu, sizeof(set), set);
	if (sched_setaffinity(0, sizeof(set), set))
		ksft_exit_fail_perror("sched_setaffinity");
}

/* Make the buffer large enough for a region whose folios are mapped by PTEs. */
static void grow_buffer(const struct region *r)
{
	unsigned long kb = r->len / psize() * 2 * EVENT_BYTES / 1024 + 64;
	char name[64], val[32];

	kb = min(kb, MAX_BUFFER_KB);
	if (kb <= buffer_kb)
		return;
	buffer_kb = kb;
	snprintf(name, sizeof(name), "per_cpu/cpu%d/buffer_size_kb", trace_cpu);
	snprintf(val, sizeof(val), "%lu", kb);
	if (trace_write(name, val))
		ksft_print_msg("no memory for a trace buffer of %lu KiB: events may be lost\n",
			       kb);
}

/* Forget earlier events, and record those of @r until latency_end(). */
void latency_begin(const struct region *r)
{
	const unsigned long start = (unsigned long)r->mem;
	char text[192];
	int fd;

	stay_on_cpu();
	grow_buffer(r);

	snprintf(text, sizeof(text), "%s/trace", instance);
	fd = open(text, O_WRONLY | O_TRUNC);
	if (fd < 0)
		ksft_exit_fail_perror(text);
	close(fd);

	snprintf(text, sizeof(text),
		 "addr >= %#lx && addr < %#lx && common_pid == %d",
		 start, start + r->len, getpid());
	if (events_write("filter", text) || events_write("enable", "1"))
		ksft_exit_fail_msg("cannot trace migration entries\n");
}

/* Return whether @line, "COMM-PID [CPU] FLAGS TIME: EVENT: addr=...", is one. */
static bool parse_event(char *line, struct event *e)
{
	unsigned long sec, usec;
	char *name, *addr, *time;

	name = strstr(line, ": set_migration_p");
	e->set = name;
	if (!name)
		name = strstr(line, ": remove_migration_p");
	if (!name)
		return false;
	addr = strstr(name, "addr=");
	if (!addr || sscanf(addr, "addr=%lx", &e->addr) != 1)
		return false;

	*name = '\0';
	time = strrchr(line, ' ');
	if (!time || sscanf(time, "%lu.%6lu", &sec, &usec) != 2)
		return false;
	e->us = sec * 1000000 + usec;
	return true;
}

/*
 * Account for an event of the folio that @a is of. Return true if the folio is
 * mapped again, and false if it is not or if the set event is missing.
 */
static bool attempt_ends(struct attempt *a, const struct event *e, bool *missing)
{
	if (e->set) {
		if (!a->entries++)
			a->begin_us = e->us;
		return false;
	}
	if (!a->entries) {
		*missing = true;
		return false;
	}
	if (--a->entries)
		return false;
	a->seen = true;
	return true;
}

/* Return how many events found no room in the buffer. */
static unsigned long events_lost(void)
{
	unsigned long sum = 0, nr;
	char path[192], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/per_cpu/cpu%d/stats", instance,
		 trace_cpu);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "overrun: %lu", &nr) == 1 ||
		    sscanf(line, "dropped events: %lu", &nr) == 1)
			sum += nr;
	fclose(f);
	return sum;
}

/* Read what was recorded. Return false if not every folio was seen to the end. */
static bool read_events(const struct region *r, struct latency *l)
{
	struct attempt *attempts;
	char path[192], line[512];
	bool missing = false;
	struct event e;
	size_t i;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", instance);
	f = fopen(path, "r");
	attempts = calloc(r->nr, sizeof(*attempts));
	if (!f || !attempts)
		ksft_exit_fail_perror(path);
	while (fgets(line, sizeof(line), f)) {
		long us;

		if (!parse_event(line, &e))
			continue;
		i = (e.addr - (unsigned long)r->mem) / r->size;
		if (i >= r->nr || !attempt_ends(&attempts[i], &e, &missing))
			continue;
		us = e.us - attempts[i].begin_us;
		if (!i && l->first_us < 0)
			l->first_us = us;
		if (us > l->max_us)
			l->max_us = us;
	}
	fclose(f);

	for (i = 0; i < r->nr; i++)
		missing |= !attempts[i].seen || attempts[i].entries;
	free(attempts);
	return !missing;
}

/*
 * Stop recording, and return in @l for how long folios of @r were not mapped. A
 * folio may take several attempts: first_us is of the first, max_us of the
 * longest. max_us is not known if events were lost, first_us only if they were
 * events of the first folio.
 */
void latency_end(const struct region *r, struct latency *l)
{
	unsigned long lost;

	events_write("enable", "0");
	if (sched_setaffinity(0, sizeof(allowed), allowed))
		ksft_exit_fail_perror("sched_setaffinity");

	*l = (struct latency) { .first_us = -1, .max_us = -1 };
	lost = events_lost();
	if (lost)
		ksft_print_msg("max_us is not known: %lu trace events were lost\n",
			       lost);
	if (!read_events(r, l) || lost)
		l->max_us = -1;
}
