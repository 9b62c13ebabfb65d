/* SPDX-License-Identifier: GPL-2.0 */
/* For how long folios are not mapped while they are migrated. */
#ifndef _MIGRATE_OFFLOAD_LATENCY_H
#define _MIGRATE_OFFLOAD_LATENCY_H

struct region;

/* In microseconds; -1: not known */
struct latency {
	long first_us;	/* of the folio at the start of the region */
	long max_us;	/* the longest time of any folio */
};

const char *latency_open(void);
void latency_begin(const struct region *r);
void latency_end(const struct region *r, struct latency *l);

#endif /* _MIGRATE_OFFLOAD_LATENCY_H */
