// SPDX-License-Identifier: GPL-2.0
/*
 * For how long a folio is not mapped while it is migrated: the time from the
 * trace event that says that its first address has got a migration entry to
 * the one that says that it is gone again. These events exist with and without
 * copy offload. They are recorded in a trace instance of our own, and only those
 * of that address in this process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "kselftest.h"
#include "migrate_offload_util.h"
#include "migrate_offload_latency.h"

static const char * const tracefs[] = {
	"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
};

/* A folio is mapped by PTEs or by a PMD. Not every kernel has the latter. */
static const char * const events[] = {
	"migrate/set_migration_pte", "migrate/remove_migration_pte",
	"thp/set_migration_pmd", "thp/remove_migration_pmd",
};

static char instance[64];

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

	/* Few events are recorded, and maybe not all on the same CPU. */
	if (trace_write("buffer_size_kb", "4") ||
	    trace_write("trace_clock", "mono"))
		return "tracefs takes no size or clock";
	return NULL;
}

/* Record what becomes of @addr from here on, and forget what was before */
void latency_begin(const void *addr)
{
	char text[192];
	int fd;

	snprintf(text, sizeof(text), "%s/trace", instance);
	fd = open(text, O_WRONLY | O_TRUNC);
	if (fd < 0)
		ksft_exit_fail_perror(text);
	close(fd);

	snprintf(text, sizeof(text), "addr == %#lx && common_pid == %d",
		 (unsigned long)addr, getpid());
	if (events_write("filter", text) || events_write("enable", "1"))
		ksft_exit_fail_msg("cannot trace migration entries\n");
}

/* The time before ": event:", in microseconds, or -1 if it is another event */
static long event_us(char *line, const char *event)
{
	unsigned long sec, usec;
	char *p = strstr(line, event);

	if (!p)
		return -1;
	*p = '\0';
	p = strrchr(line, ' ');
	if (!p || sscanf(p, "%lu.%6lu", &sec, &usec) != 2)
		return -1;
	return sec * 1000000 + usec;
}

/*
 * Stop recording. Return for how many microseconds the address was not mapped,
 * or -1 if it was not seen. If it took several attempts, that is the first.
 */
long latency_end(void)
{
	long begin = -1, end = -1;
	char path[192], line[512];
	FILE *f;

	events_write("enable", "0");

	snprintf(path, sizeof(path), "%s/trace", instance);
	f = fopen(path, "r");
	if (!f)
		return -1;
	while (end < 0 && fgets(line, sizeof(line), f)) {
		if (begin < 0)
			begin = event_us(line, ": set_migration_p");
		else
			end = event_us(line, ": remove_migration_p");
	}
	fclose(f);
	return end < 0 ? -1 : end - begin;
}
