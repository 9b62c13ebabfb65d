/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of the migration copy offload have in common. */
#ifndef _MIGRATE_OFFLOAD_UTIL_H
#define _MIGRATE_OFFLOAD_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DCBM_PARAMS	"/sys/module/dcbm/parameters/"
#define KNOBS		"/sys/kernel/mm/migrate_offload/"
#define CHUNK_BYTES	KNOBS "chunk_bytes"
#define SHARE		KNOBS "share"
#define NODE_SYSFS	"/sys/devices/system/node/"

#define KPF_HUGE	BIT_ULL(17)

#define MAX_NODES	1024

/* How often to try to get folios of a size */
#define MAX_ATTEMPTS	5

/* Makes the content of memory differ from run to run */
extern uint64_t seed;
/* Folios are moved between these; may be set before migrate_offload_setup() */
extern int node_a, node_b;
extern int pagemap_fd, kpageflags_fd;

/* Folios of one size in consecutive addresses */
struct region {
	char *map;		/* what was mapped */
	size_t map_len;
	char *mem;		/* the aligned part which is used */
	size_t len;
	size_t size;		/* of one folio */
	size_t nr;		/* number of folios */
};

/* Folios that are moved together, and what came of it */
struct move {
	void **addrs;
	int *nodes;
	int *status;
	int *query;
	size_t nr;
	size_t call;		/* number of folios in a call, 0: all of them */
	/* of the last move */
	uint64_t ns;
	size_t unmoved;
};

/* Those of dcbm */
struct counters {
	unsigned long migrated;
	unsigned long failures;
};

static inline unsigned long min(unsigned long a, unsigned long b)
{
	return a < b ? a : b;
}

static inline unsigned long max(unsigned long a, unsigned long b)
{
	return a > b ? a : b;
}

uint64_t now_ns(void);
const char *size_name(size_t size);

/* Return 0 or -errno */
int read_text(const char *path, char *buf, size_t len);
int write_text(const char *path, const char *val);

long move_pages_of(pid_t pid, size_t nr, void **addrs, const int *nodes,
		   int *status, int flags);
long move_pages(size_t nr, void **addrs, const int *nodes, int *status);
unsigned long node_available(int node);
void compact_nodes(bool drop_caches);
int mbind_to_node(void *addr, size_t len, int node, unsigned int flags);
int bind_to_node(void *addr, size_t len, int node);

bool dcbm_present(void);
int dcbm_read(const char *name, char *buf, size_t len);
int dcbm_write(const char *name, const char *val);
bool dcbm_counter(const char *name, unsigned long *val);
void dcbm_save(void);
int dcbm_restore(void);
void dcbm_show(void);
unsigned int dcbm_nr_claimed(void);

bool batch_limit_present(void);
void batch_limit_save(void);
int batch_limit_set(size_t bytes);
int batch_limit_restore(void);

void read_counters(struct counters *c);

const char *size_unsupported(size_t size);
void push_settings(size_t size);
void pop_settings(void);
size_t count_folios(const struct region *r, bool *good);
bool region_get(struct region *r, int node);
bool region_renew(struct region *r, int node);
void region_free(struct region *r);
bool region_alloc(struct region *r, size_t size, size_t bytes);
void region_fill(const struct region *r, uint64_t gen);
bool region_verify(const struct region *r, uint64_t gen);

void move_alloc(struct move *m, size_t nr);
void move_free(struct move *m);
void move_set_region(struct move *m, const struct region *r);
bool move_all_on(struct move *m, int node);
bool move_to(struct move *m, int node, bool quiet);

void migrate_offload_setup(void);

#endif /* _MIGRATE_OFFLOAD_UTIL_H */
