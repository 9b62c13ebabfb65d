/* SPDX-License-Identifier: GPL-2.0 */
/* For how long a folio is not mapped while it is migrated. */
#ifndef _MIGRATE_OFFLOAD_LATENCY_H
#define _MIGRATE_OFFLOAD_LATENCY_H

const char *latency_open(void);
void latency_begin(const void *addr);
long latency_end(void);

#endif /* _MIGRATE_OFFLOAD_LATENCY_H */
