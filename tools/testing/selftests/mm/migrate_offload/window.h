/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hold open the time between the copy of a batch by an engine and the move of
 * its folios, and do things meanwhile.
 */
#ifndef _MIGRATE_OFFLOAD_WINDOW_H
#define _MIGRATE_OFFLOAD_WINDOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <linux/fuse.h>

#include "util.h"

/* Bounds each wait; nothing but a failure gets there */
#define WAIT_MS		30000

/* Ordinary folios of a batch, which are copied by an engine whatever happens */
#define NR_ORDINARY	64

/* Does not matter, or cannot be said */
#define ANY		(-1L)

/* Wait for a condition, WAIT_MS at most. False if it does not come true. */
#define wait_for(cond)						\
({								\
	uint64_t until_ = now_ns() + WAIT_MS * 1000000ULL;	\
	bool ok_;						\
								\
	while (!(ok_ = (cond)) && now_ns() < until_)		\
		usleep(1000);					\
	ok_;							\
})

/* ---- an engine of dma-sim ---------------------------------------------- */

bool engine_find(void);
/* Return whether dcbm's channel is in @state, such as " stuck" */
bool channel_is(const char *state);
bool engine_set(const char *knob, unsigned long val);
unsigned long engine_get(const char *knob);

/* ---- what migration does, counted by kprobes ---------------------------- */

enum probe {
	CPU_COPIES,		/* folios that the CPU copied */
	FILE_MOVES,		/* attempts to move one of a file, but of tmpfs */
	BUFFER_MOVES,		/* the same of one that has buffers */
};

bool probes_start(void);
long probe_hits(enum probe probe);

/* ---- a batch ----------------------------------------------------------- */

/*
 * What is moved from node_a to node_b by one call: first the folios that a
 * test is about, then ordinary ones.
 */
struct batch {
	struct region ordinary;
	size_t nr_special;
	size_t nr;
	void **addrs;
	int *nodes;
	int *status;
	int *where;
	/* A knob that fails the folio at which batch_hold() stops, or NULL */
	const char *fault;
	long ret;
	int err;
	/* while it is being moved */
	pthread_t thread;
	bool running;
	atomic_bool done;
	/* from before the move */
	struct counters before;
	long copies_before;
	long moves_before;
};

/* What must have become of a batch; the numbers are of folios */
struct outcome {
	long offloaded;		/* copied by the engine */
	long cpu;		/* copied by the CPU, those that failed too */
	long unmoved;		/* special ones that stayed where they were */
	long lost;		/* ordinary ones that stayed where they were */
	long failed;		/* should have been copied by the engine */
};

/* The engine copied all ordinary folios, and there are no special ones */
extern const struct outcome all_copied;

bool batch_init(struct batch *b, size_t nr_special);
void batch_free(struct batch *b);
void batch_add_region(struct batch *b, size_t first, const struct region *r);
bool batch_home(struct batch *b);
bool batch_hold(struct batch *b, unsigned long nr_descs);
bool batch_give_up(struct batch *b, unsigned long nr_descs);
bool batch_release(struct batch *b);
bool batch_join(struct batch *b);
bool batch_run(struct batch *b);
/* How many ordinary folios does a process have that are not mapped? */
size_t nr_unmapped(struct batch *b, pid_t pid);
bool batch_check(struct batch *b, const struct outcome *want);
bool batch_check_unmoved(struct batch *b);

bool map_special(struct region *r, size_t nr, int fd);
bool thread_blocks(pid_t tid);

/* ---- a file whose reads can be held ------------------------------------ */

/*
 * A FUSE filesystem of a single file. @data is its content, which writes
 * change. A read of anything from @hold to @hold_end waits, or everything does.
 */
struct held_file {
	char path[64];
	char *data;
	size_t size;
	bool direct;		/* every read comes to us, and pins its buffer */

	int fuse;
	pthread_t thread;
	pthread_mutex_t lock;
	off_t hold, hold_end;
	bool stop;
	bool held;
	struct fuse_in_header held_header;
	struct fuse_read_in held_read;
};

bool held_file_mount(struct held_file *f, const char *path);
void held_file_umount(struct held_file *f);
void held_file_stop(struct held_file *f);
void held_file_hold(struct held_file *f, off_t from, size_t len);
bool held_file_is_held(struct held_file *f);
bool held_file_wait(struct held_file *f);
bool held_file_release(struct held_file *f);

#endif /* _MIGRATE_OFFLOAD_WINDOW_H */
