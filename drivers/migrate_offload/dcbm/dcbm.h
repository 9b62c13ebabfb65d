/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DMA core batch migrator: what its files share
 */
#ifndef _MIGRATE_OFFLOAD_DCBM_H
#define _MIGRATE_OFFLOAD_DCBM_H

#include <linux/atomic.h>
#include <linux/average.h>
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/completion.h>
#include <linux/dmaengine.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/migrate_copy_offload.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

/* Channels that can be in service */
#define DCBM_MAX_CHANS		32
/* Segments that a channel is given at once */
#define DCBM_MAX_SEGS		512
/* What a channel must get at least to be worth waking up */
#define DCBM_MIN_SHARE		SZ_64K

/*
 * Wait so many times as long as a share should take at the measured speed of
 * the channel, and patience_ms more, in case a busy machine delays a thread.
 */
#define DCBM_PATIENCE		16
/*
 * Without lists, each folio needs a descriptor and mostly an interrupt. They
 * cost the CPU more instructions than a copy of 4 KiB, and fewer than one of 16
 * KiB.
 */
#define DCBM_MIN_FOLIO_BYTES	SZ_16K
/* Names of drivers in "engines", with commas */
#define DCBM_MAX_ENGINES	128
/*
 * Each descriptor carries a token, by which dcbm_answer() matches its answer:
 * the ID of the channel, the number of the share, and the index of the
 * descriptor in that share. A late or repeated answer matches nothing, and is
 * only counted.
 */
#define DCBM_TOKEN_CHAN		GENMASK_ULL(63, 48)
#define DCBM_TOKEN_SHARE	GENMASK_ULL(47, 12)
#define DCBM_TOKEN_DESC		GENMASK_ULL(11, 0)
static_assert(DCBM_MAX_SEGS <= 1 << 12);

struct kernel_param;

enum dcbm_state {
	DCBM_IDLE,		/* in service, nobody uses it */
	DCBM_BUSY,		/* belongs to a batch, or is tested */
	DCBM_STUCK,		/* descriptors are open, out of service */
	DCBM_RECOVERED,		/* was stuck, has answered since */
	DCBM_FAILED,		/* failed the test after it had been stuck */
	DCBM_RELEASING,		/* about to be given back */
	DCBM_GONE,		/* its driver has unregistered it */
};

enum dcbm_phase {
	DCBM_LOADING,
	DCBM_LIVE,
	DCBM_GOING,
};

/* A place in a batch */
struct dcbm_pos {
	unsigned int pair;
	size_t offset;
};

/* How long a channel takes for a KiB, in nanoseconds */
DECLARE_EWMA(dcbm_speed, 4, 8)
/* Nanoseconds */
DECLARE_EWMA(dcbm_ns, 4, 8)

/* What it copies begins at @pos, and may go on through many folios */
struct dcbm_desc {
	struct dcbm_pos pos;
	size_t len;
	size_t good;			/* so many bytes, from its begin on */
};

/*
 * A channel, and its share of the batch that it works for. All of the share
 * belongs to the owner of the channel, except @state, @share, @open, @answered,
 * @spurious, @learns, @ended and the @good of descriptors, which the callback
 * uses too, under @lock.
 */
struct dcbm_chan {
	struct list_head node;		/* dcbm_lock */
	struct dma_chan *chan;
	struct device *dev;
	size_t max_seg;
	bool sg;			/* it can copy lists of segments */
	bool no_sg;			/* but shall not, for a test */
	bool shared;			/* with other clients of dmaengine */
	bool leaving;			/* it is being unregistered */
	bool releasing;			/* stuck, and somebody lets go of it */
	bool stopped;			/* terminated, but not released */
	bool pins;			/* the module, until it answers */
	u32 id;				/* in dcbm_ids */
	char name[32];

	spinlock_t lock;		/* what the callback uses too */
	enum dcbm_state state;
	u64 share;			/* number of the share, modulo 2^36 */
	unsigned int open;		/* descriptors with no answer yet */
	unsigned int spurious;		/* answers that came late or twice */
	bool learns;			/* how fast it is, from this share */
	ktime_t ended;			/* when the last answer came */
	DECLARE_BITMAP(answered, DCBM_MAX_SEGS);
	struct completion done;
	struct work_struct recover;

	struct dcbm_pos start;
	struct dcbm_pos resume;		/* what comes before has been copied */
	size_t resume_at;		/* that place, in bytes of the share */
	unsigned int last_pair;
	size_t bytes;
	ktime_t begun;
	struct ewma_dcbm_speed speed;
	bool mapped;
	struct sg_table src;
	struct sg_table dst;

	unsigned int nr_descs;
	unsigned int nr_held;
	struct dcbm_desc descs[DCBM_MAX_SEGS];
	struct migrate_pair held[DCBM_MAX_SEGS];
	struct scatterlist src_sgl[DCBM_MAX_SEGS];
	struct scatterlist dst_sgl[DCBM_MAX_SEGS];
};

/* What a batch keeps from submit() to wait() */
struct dcbm_job {
	struct dcbm_pos pos;		/* first byte that nobody has yet */
	struct dcbm_pos end;		/* the CPU has what comes next */
	size_t left;			/* bytes between the two */
	size_t given;			/* bytes that channels were given */
	bool shares;			/* the CPU takes part */
	bool last;			/* channels get no more of it */
	unsigned long deadline;		/* of the channels that are at work */
	unsigned long limit;		/* no channel begins after that */
	ktime_t begun;			/* this round */
	ktime_t expected;		/* when all should be done */
	unsigned int nr;
	struct dcbm_chan *dcs[DCBM_MAX_CHANS];
};

/* Can callbacks be stopped, without those of others? */
static inline bool dcbm_can_terminate(struct dcbm_chan *dc)
{
	return dc->chan->device->device_terminate_all && !dc->shared;
}

static inline struct dcbm_job *dcbm_job(struct migrate_offload_batch *batch)
{
	static_assert(sizeof(struct dcbm_job) <= MIGRATE_OFFLOAD_CB_SIZE);
	return (struct dcbm_job *)batch->cb;
}

/* parameters.c */
extern struct mutex dcbm_mutex;
extern bool dcbm_offloading;
extern unsigned int dcbm_nr_dma_chan;
extern unsigned int dcbm_nr_claimed;
extern bool dcbm_remote;
extern unsigned int dcbm_patience_ms;
extern unsigned int dcbm_timeout_ms;
extern char dcbm_engines[DCBM_MAX_ENGINES];

/* channels.c */
extern spinlock_t dcbm_lock;
extern struct list_head dcbm_chans;
extern struct xarray dcbm_ids;
extern atomic_t dcbm_batches;
extern struct notifier_block dcbm_going_nb;
unsigned int dcbm_take(struct dcbm_chan **dcs, unsigned int max, int src_nid,
		       int dst_nid);
void dcbm_put(struct dcbm_chan **dcs, unsigned int nr);
void dcbm_forget_unfit(void);
void dcbm_stop_stuck(void);
void dcbm_release_chans(void);
void dcbm_drop_stuck(void);
void dcbm_drop_rest(void);
bool dcbm_all_sg(void);
void dcbm_check_engines(void);
unsigned int dcbm_claim_chans(void);
int dcbm_show_channels(char *buf);

/* copy.c */
extern atomic64_t dcbm_migrated;
extern atomic64_t dcbm_failures;
extern const struct migrate_offload_ops dcbm_ops;
void dcbm_unmap(struct dcbm_chan *dc);
void dcbm_forget_speed(void);
void dcbm_begin(struct migrate_offload_batch *batch);
bool dcbm_end(struct migrate_offload_batch *batch);
unsigned int dcbm_nr_copied(struct migrate_offload_batch *batch);

#if IS_ENABLED(CONFIG_KUNIT)
/* parameters.c */
extern enum dcbm_phase dcbm_phase;
unsigned int dcbm_min_folio_bytes(void);
int dcbm_start(void);
int dcbm_engines_set(const char *val, const struct kernel_param *kp);

/* channels.c */
const char *dcbm_test_chan(struct dcbm_chan *dc);
bool dcbm_names_have(const char *names, const char *name);
const char *dcbm_chan_unfit(struct dma_chan *chan);
int dcbm_chan_init(struct dcbm_chan *dc, struct dma_chan *chan);
struct dcbm_chan *dcbm_next_release(void);
struct dcbm_chan *dcbm_next_stuck(bool once);
bool dcbm_take_leaving(struct dma_chan *chan, struct dcbm_chan **found,
		       bool *stuck);

/* copy.c */
extern struct ewma_dcbm_ns dcbm_share_ns;
extern struct ewma_dcbm_speed dcbm_all_speed;
extern bool dcbm_is_rough;
void *dcbm_token(struct dcbm_chan *dc, unsigned int desc);
void dcbm_callback(void *param, const struct dmaengine_result *result);
void dcbm_fill(struct dcbm_chan *dc, struct migrate_offload_batch *batch,
	       struct dcbm_pos *pos, size_t share, size_t left);
bool dcbm_map(struct dcbm_chan *dc);
void dcbm_submit(struct dcbm_chan *dc, struct migrate_offload_batch *batch);
bool dcbm_finish(struct dcbm_chan *dc, struct migrate_offload_batch *batch,
		 unsigned long deadline);
void dcbm_count(struct dcbm_chan *dc, struct migrate_offload_batch *batch);
unsigned int dcbm_may_take_ms(struct dcbm_chan *dc);
size_t dcbm_max_share(struct dcbm_chan *dc);
void dcbm_learn(struct dcbm_chan *dc);
size_t dcbm_part(struct migrate_offload_batch *batch, u64 busy_ns);
void dcbm_begin_round(struct migrate_offload_batch *batch, u64 busy_ns);
void dcbm_copy_tail(struct migrate_offload_batch *batch);
bool dcbm_end_round(struct migrate_offload_batch *batch);
unsigned int dcbm_nr_worth(size_t bytes, u64 busy_ns);
int dcbm_submit_batch(struct migrate_offload_batch *batch);
void dcbm_wait_batch(struct migrate_offload_batch *batch);
#endif

#endif /* _MIGRATE_OFFLOAD_DCBM_H */
