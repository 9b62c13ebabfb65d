// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that is written and checked all the time while it is migrated in
 * every way at once, for stress.sh to disturb.
 *
 * Areas of memory of each kind (anonymous of every folio size, tmpfs, files,
 * shared with children before and after copy on write) have an owner for every
 * 256 bytes: a thread, or a process where memory is shared. A word tells where
 * it belongs and which version it is. The owner remembers the version, never
 * writes a word without having checked it, and goes over all of it for ever, in
 * no order that migration could follow. So a write that got lost, a page that
 * is an older version of itself, or a part of another page, is seen by the next
 * one who comes along, and what it is can be told.
 *
 * Meanwhile other threads and processes move that memory: move_pages(),
 * migrate_pages() and mbind(), from inside and from outside, and compaction.
 * Processes are forked, executed and end while they are being moved.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/mempolicy.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "util.h"

#define EXIT_USAGE	2
/* Of a child that was executed and found its memory right */
#define EXIT_EXECUTED	42

#define MAX_AREAS	20
#define MAX_FILES	4
#define NR_WRITERS	2	/* threads that own a part of each area */
#define SHARED_SLOT	2	/* the part of the process that shares an area */
#define MAX_SLOTS	3
#define NR_VICTIMS	3

/* What changes its owner, in words */
#define LINE_WORDS	32
#define LINE_BYTES	(LINE_WORDS * sizeof(uint64_t))

/* What is done under the lock of an area, in pages and in words */
#define VISIT_PAGES	16
#define HAMMER_ROUNDS	64

/* Addresses that are moved by one call */
#define MAX_ADDRS	512

/* How long to go on for what has not happened yet, and until a lock is free */
#define GRACE_NS	(120 * 1000000000ULL)
#define LOCKED_NS	(10 * 1000000000ULL)

#define KPF_LOCKED	BIT_ULL(0)
#define KPF_NOPAGE	BIT_ULL(20)

enum area_kind {
	AREA_ANON,		/* private to this process */
	AREA_SHMEM,		/* shared with a child that writes too */
	AREA_FILE,		/* the same, and backed by a file */
	AREA_FILE_READONLY,	/* a file system without shared mappings */
	AREA_COW,		/* only read here; children write their copy */
};

struct area {
	struct region r;
	enum area_kind kind;
	char name[64];
	unsigned int id;
	unsigned int nr_slots;	/* owners; each has every nr_slots-th line */
	size_t nr_pages;
	int fd;
	char *path;
	uint32_t *gens;		/* version of each page, for each slot */
};

/* Everything that is to have happened at least once */
enum event {
	MOVE_PAGES_OWN,
	MOVE_PAGES_CHILD,
	MOVE_PAGES_PARENT,
	MIGRATE_PAGES_OWN,
	MIGRATE_PAGES_CHILD,
	MIGRATE_PAGES_PARENT,
	MBIND,
	COMPACTION,
	RENEWED,
	FORKED,
	EXITED,
	KILLED,
	EXECUTED,
	NR_EVENTS,
};

static const char * const event_names[NR_EVENTS] = {
	"moved_by_move_pages",
	"moved_by_move_pages_of_child",
	"moved_by_move_pages_of_parent",
	"moved_by_migrate_pages",
	"moved_by_migrate_pages_of_child",
	"moved_by_migrate_pages_of_parent",
	"moved_by_mbind",
	"isolated_by_compaction",
	"areas_allocated_anew",
	"forked",
	"exited",
	"killed",
	"executed",
};

/* What all processes see */
struct shared {
	pthread_rwlock_t locks[MAX_AREAS];
	unsigned long events[NR_EVENTS];
	unsigned long words;	/* that were checked */
	unsigned long wrong;
	pid_t victims[NR_VICTIMS];
	/* A hint: what somebody is moving just now */
	unsigned int hot_area;
	size_t hot_page;
	size_t hot_pages;
	bool stop;
};

/* Where a writer is in each area */
struct writer {
	unsigned int slot;
	uint64_t rng;
	size_t cursor[MAX_AREAS];
	size_t stride[MAX_AREAS];
};

static struct area areas[MAX_AREAS];
static unsigned int nr_areas;
static struct shared *sh;
static uint64_t start_ns;
static uint64_t hash_key;
/* Children that write to a copy of the same memory start from different ones */
static uint32_t first_version = 1;
static sig_atomic_t interrupted;

/* Command line */
static size_t area_bytes = 8UL << 20;
static unsigned int seconds = 60;
static const char *file_dirs[MAX_FILES];
static unsigned int nr_files;
static const char *victim_group;
static bool after_exec;

/* ---- small helpers ----------------------------------------------------- */

static uint64_t rnd(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t rng_of(unsigned int who)
{
	uint64_t state = seed ^ ((uint64_t)who << 48);

	return rnd(&state);
}

static void count_event(enum event event, unsigned long nr)
{
	__atomic_fetch_add(&sh->events[event], nr, __ATOMIC_RELAXED);
}

static unsigned long events(enum event event)
{
	return __atomic_load_n(&sh->events[event], __ATOMIC_RELAXED);
}

static bool stopping(void)
{
	return __atomic_load_n(&sh->stop, __ATOMIC_RELAXED) ||
	       __atomic_load_n(&sh->wrong, __ATOMIC_RELAXED);
}

static void nap(unsigned int ms)
{
	usleep(ms * 1000);
}

static void on_signal(int sig)
{
	interrupted = sig;
}

static void *shared_alloc(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		ksft_exit_fail_perror("mmap of shared memory");
	return p;
}

static unsigned long read_vmstat(const char *name)
{
	unsigned long val = 0, v;
	char key[64];
	FILE *f;

	f = fopen("/proc/vmstat", "r");
	if (!f)
		return 0;
	while (fscanf(f, "%63s %lu", key, &v) == 2)
		if (!strcmp(key, name))
			val = v;
	fclose(f);
	return val;
}

/* ---- content ----------------------------------------------------------- */

/*
 * Word @i of an area is a hash of where it is, plus its version times an odd
 * constant: the version can be found again. The upper half counts the writes
 * between two versions.
 */
#define VERSION_STEP	0xd1342543de82ef95ULL
#define SUBVERSION(n)	((uint64_t)(n) << 32)
#define VERSION_LIMIT	BIT_ULL(26)

static inline uint64_t word_base(unsigned int id, size_t i)
{
	uint64_t x = hash_key ^ ((uint64_t)id << 40) ^ i;

	x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ULL;
	return x ^ (x >> 29);
}

static inline uint64_t word_value(uint64_t base, uint64_t version)
{
	return base + version * VERSION_STEP;
}

static uint64_t version_inverse(void)
{
	uint64_t inv = VERSION_STEP;
	int i;

	/* Newton: each round doubles the bits that are right */
	for (i = 0; i < 6; i++)
		inv *= 2 - VERSION_STEP * inv;
	return inv;
}

/* Whose word is this really? It takes long, but is needed once. */
static bool find_word(uint64_t got, unsigned int *id, size_t *i, uint64_t *version)
{
	const uint64_t inv = version_inverse();

	for (*id = 0; *id < nr_areas; (*id)++) {
		const size_t nr = areas[*id].r.len / sizeof(uint64_t);

		for (*i = 0; *i < nr; (*i)++) {
			*version = (got - word_base(*id, *i)) * inv;
			if ((uint32_t)*version < VERSION_LIMIT &&
			    *version >> 32 <= HAMMER_ROUNDS)
				return true;
		}
	}
	return false;
}

static void wrong_word(const struct area *a, size_t i, uint64_t version,
		       uint64_t got)
{
	const char *addr = a->r.mem + i * sizeof(uint64_t);
	unsigned long long now = FORCE_READ(*(uint64_t *)addr);
	unsigned int id;
	uint64_t found;
	size_t j;

	/* One is enough, and stops everything */
	if (__atomic_fetch_add(&sh->wrong, 1, __ATOMIC_RELAXED))
		return;

	ksft_print_msg("WRONG CONTENT after %.1f s in pid %d: %s at %p, page %zu, offset %#zx\n",
		       (now_ns() - start_ns) / 1e9, getpid(), a->name, addr,
		       i * sizeof(uint64_t) / psize(),
		       i * sizeof(uint64_t) % psize());
	ksft_print_msg("expected %#018llx, version %llu.%llu; got %#018llx, now %#018llx\n",
		       (unsigned long long)word_value(word_base(a->id, i), version),
		       (unsigned long long)(uint32_t)version,
		       (unsigned long long)version >> 32,
		       (unsigned long long)got, now);
	if (!find_word(got, &id, &j, &found)) {
		ksft_print_msg("that is no word of ours%s\n", got ? "" : ", but zero");
		return;
	}
	ksft_print_msg("that is version %llu.%llu of %s\n",
		       (unsigned long long)(uint32_t)found,
		       (unsigned long long)found >> 32,
		       id == a->id && i == j ? "the same word: a write was lost" :
					       "another word:");
	if (id != a->id || i != j)
		ksft_print_msg("%s, page %zu, offset %#zx\n", areas[id].name,
			       j * sizeof(uint64_t) / psize(),
			       j * sizeof(uint64_t) % psize());
}

static uint32_t *page_gen(const struct area *a, unsigned int slot, size_t page)
{
	return &a->gens[slot * a->nr_pages + page];
}

static size_t line_word(size_t page, size_t line)
{
	return (page * psize() + line * LINE_BYTES) / sizeof(uint64_t);
}

static uint32_t next_version(uint32_t gen)
{
	return gen ? gen + 1 : first_version;
}

static uint64_t load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store(uint64_t *p, uint64_t val)
{
	__atomic_store_n(p, val, __ATOMIC_RELAXED);
}

/* Check a line and, if @write, make it the next version */
static bool visit_line(const struct area *a, size_t i, uint32_t gen, bool write)
{
	uint64_t *p = (uint64_t *)a->r.mem + i;
	unsigned int k;

	for (k = 0; k < LINE_WORDS; k++) {
		const uint64_t base = word_base(a->id, i + k);
		const uint64_t got = load(p + k);

		if (got != word_value(base, gen)) {
			wrong_word(a, i + k, gen, got);
			return false;
		}
		if (write)
			store(p + k, word_value(base, next_version(gen)));
	}
	return true;
}

/* The same with system calls, which do not come by way of page tables */
static bool visit_line_syscall(const struct area *a, size_t i, uint32_t gen)
{
	const off_t off = i * sizeof(uint64_t);
	uint64_t line[LINE_WORDS];
	unsigned int k;

	if (pread(a->fd, line, sizeof(line), off) != sizeof(line))
		ksft_exit_fail_perror("pread");
	for (k = 0; k < LINE_WORDS; k++) {
		const uint64_t base = word_base(a->id, i + k);

		if (line[k] != word_value(base, gen)) {
			wrong_word(a, i + k, gen, line[k]);
			return false;
		}
		line[k] = word_value(base, next_version(gen));
	}
	if (pwrite(a->fd, line, sizeof(line), off) != sizeof(line))
		ksft_exit_fail_perror("pwrite");
	return true;
}

static bool visit_page(const struct area *a, unsigned int slot, size_t page,
		       bool write, bool syscalls)
{
	uint32_t *gen = page_gen(a, slot, page);
	size_t line;

	for (line = slot; line < psize() / LINE_BYTES; line += a->nr_slots) {
		size_t i = line_word(page, line);

		if (!(syscalls ? visit_line_syscall(a, i, *gen) :
				 visit_line(a, i, *gen, write)))
			return false;
		__atomic_fetch_add(&sh->words, LINE_WORDS, __ATOMIC_RELAXED);
	}
	if (write)
		*gen = next_version(*gen);
	return true;
}

/*
 * Write a line as fast as possible, each word checked before it is written
 * again: one of these writes is the last before the page is gone.
 */
static bool hammer_page(const struct area *a, unsigned int slot, size_t page)
{
	const uint32_t gen = *page_gen(a, slot, page);
	const size_t i = line_word(page, slot);
	uint64_t *p = (uint64_t *)a->r.mem + i;
	uint64_t n, k;

	for (n = 0; n <= HAMMER_ROUNDS; n++) {
		const uint64_t last = n == HAMMER_ROUNDS ? 0 : n + 1;

		for (k = 0; k < LINE_WORDS; k++) {
			const uint64_t base = word_base(a->id, i + k);
			const uint64_t version = gen + SUBVERSION(n);
			const uint64_t got = load(p + k);

			if (got != word_value(base, version)) {
				wrong_word(a, i + k, version, got);
				return false;
			}
			store(p + k, word_value(base, gen + SUBVERSION(last)));
		}
	}
	__atomic_fetch_add(&sh->words, n * LINE_WORDS, __ATOMIC_RELAXED);
	return true;
}

static bool check_area(const struct area *a)
{
	unsigned int slot;
	size_t page;

	for (page = 0; page < a->nr_pages; page++)
		for (slot = 0; slot < a->nr_slots; slot++)
			if (!visit_page(a, slot, page, false, false))
				return false;
	return true;
}

static void fill_area(const struct area *a)
{
	uint64_t *p = (uint64_t *)a->r.mem;
	size_t i;

	for (i = 0; i < a->r.len / sizeof(*p); i++)
		p[i] = word_base(a->id, i);
	memset(a->gens, 0, a->nr_slots * a->nr_pages * sizeof(*a->gens));
}

/* ---- areas ------------------------------------------------------------- */

static struct area *new_area(enum area_kind kind, const char *what, size_t size)
{
	struct area *a = &areas[nr_areas];

	if (nr_areas == MAX_AREAS)
		ksft_exit_fail_msg("too many areas\n");
	a->id = nr_areas;
	a->kind = kind;
	a->fd = -1;
	snprintf(a->name, sizeof(a->name), "%s %s", what, size_name(size));
	return a;
}

/* It is mapped: what is left is the same for all */
static void add_area(struct area *a)
{
	a->nr_pages = a->r.len / psize();
	switch (a->kind) {
	case AREA_ANON:
		a->nr_slots = NR_WRITERS;
		break;
	case AREA_SHMEM:
	case AREA_FILE:
		a->nr_slots = NR_WRITERS + 1;
		break;
	case AREA_FILE_READONLY:
	case AREA_COW:
		a->nr_slots = 1;
		break;
	}
	a->gens = shared_alloc(a->nr_slots * a->nr_pages * sizeof(*a->gens));
	if (a->kind != AREA_FILE_READONLY)
		fill_area(a);
	nr_areas++;
}

static void add_anon(enum area_kind kind, const char *what, size_t size)
{
	struct area *a = new_area(kind, what, size);
	const char *why = size_unsupported(size);

	if (why) {
		ksft_print_msg("%s is left out: %s\n", a->name, why);
		return;
	}
	push_settings(size);
	/* Folios of another size are better than none */
	if (!region_alloc(&a->r, size, max(area_bytes, 2 * size)))
		ksft_print_msg("%s is left out\n", a->name);
	else
		add_area(a);
	/* Copies that writing makes after a fork would be small folios */
	if (kind == AREA_ANON && a->r.map)
		madvise(a->r.mem, a->r.len, MADV_DONTFORK);
	pop_settings();
}

static void push_shmem_settings(size_t size)
{
	struct thp_settings settings;

	if (!thp_available())
		return;
	thp_read_settings(&settings);
	settings.shmem_enabled = size > psize() ? SHMEM_ADVISE : SHMEM_NEVER;
	thp_push_settings(&settings);
}

static void touch_shmem(const struct area *a)
{
	push_shmem_settings(a->r.size);
	if (a->r.size > psize())
		madvise(a->r.mem, a->r.len, MADV_HUGEPAGE);
	memset(a->r.mem, 0, a->r.len);
	madvise(a->r.mem, a->r.len, MADV_NOHUGEPAGE);
	pop_settings();
}

/* Map @fd so that folios of the size fit. */
static bool map_file(struct area *a, int prot, int flags)
{
	const size_t align = max(a->r.size, read_pmd_pagesize());
	struct region *r = &a->r;

	r->map_len = r->len + align;
	r->map = mmap(NULL, r->map_len, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->map == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	r->mem = (char *)(((uintptr_t)r->map + align - 1) & ~(align - 1));
	if (mmap(r->mem, r->len, prot, flags | MAP_FIXED, a->fd, 0) != MAP_FAILED)
		return true;
	region_free(r);
	return false;
}

static void add_shmem(size_t size)
{
	struct area *a = new_area(AREA_SHMEM, "tmpfs", size);

	a->r.size = size;
	a->r.len = max(area_bytes, 2 * size);
	a->r.nr = a->r.len / size;
	a->fd = memfd_create("migrate_offload_stress", MFD_CLOEXEC);
	if (a->fd < 0 || ftruncate(a->fd, a->r.len) ||
	    !map_file(a, PROT_READ | PROT_WRITE, MAP_SHARED))
		ksft_exit_fail_perror("tmpfs");
	touch_shmem(a);
	add_area(a);
}

/* Words of version 0, written to the file rather than to its mapping */
static bool fill_file(const struct area *a)
{
	uint64_t line[LINE_WORDS];
	size_t i, k;

	for (i = 0; i < a->r.len / sizeof(*line); i += LINE_WORDS) {
		for (k = 0; k < LINE_WORDS; k++)
			line[k] = word_base(a->id, i + k);
		if (write(a->fd, line, sizeof(line)) != sizeof(line))
			return false;
	}
	return !fsync(a->fd);
}

static void add_file(const char *dir)
{
	struct area *a = new_area(AREA_FILE, dir, psize());

	a->r.size = psize();
	a->r.len = area_bytes / 2;
	a->r.nr = a->r.len / a->r.size;
	if (asprintf(&a->path, "%s/migrate_offload_stress.XXXXXX", dir) < 0)
		ksft_exit_fail_msg("out of memory\n");
	a->fd = mkostemp(a->path, O_CLOEXEC);
	if (a->fd < 0) {
		ksft_print_msg("%s is left out: %s\n", dir, strerror(errno));
		free(a->path);
		a->path = NULL;
		return;
	}
	if (!fill_file(a)) {
		ksft_print_msg("%s is left out: cannot be written\n", dir);
		unlink(a->path);
		free(a->path);
		a->path = NULL;
		close(a->fd);
		return;
	}
	if (!map_file(a, PROT_READ | PROT_WRITE, MAP_SHARED)) {
		a->kind = AREA_FILE_READONLY;
		if (!map_file(a, PROT_READ, MAP_PRIVATE))
			ksft_exit_fail_perror(dir);
	}
	add_area(a);
}

static pid_t main_pid;

static void unlink_files(void)
{
	unsigned int i;

	/* Children end by exit() when something is badly wrong */
	if (getpid() != main_pid)
		return;
	for (i = 0; i < MAX_AREAS; i++)
		if (areas[i].path)
			unlink(areas[i].path);
}

static void add_areas(void)
{
	static const size_t sizes[] = {
		4 << 10, 16 << 10, 64 << 10, 256 << 10, 2 << 20,
	};
	unsigned int i;

	main_pid = getpid();
	atexit(unlink_files);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		add_anon(AREA_ANON, "anonymous", sizes[i]);
	for (i = 0; i < ARRAY_SIZE(sizes); i += 2)
		add_anon(AREA_COW, "copied on write", sizes[i]);
	add_shmem(psize());
	add_shmem(read_pmd_pagesize());
	for (i = 0; i < nr_files; i++)
		add_file(file_dirs[i]);
	for (i = 0; i < nr_areas; i++)
		ksft_print_msg("%s: %zu KiB\n", areas[i].name,
			       areas[i].r.len >> 10);
}

static void lock_init(void)
{
	pthread_rwlockattr_t attr;
	int i;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	/* Readers come without a pause */
	i = PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
	pthread_rwlockattr_setkind_np(&attr, i);
	for (i = 0; i < MAX_AREAS; i++)
		pthread_rwlock_init(&sh->locks[i], &attr);
}

static void lock_area(const struct area *a)
{
	pthread_rwlock_rdlock(&sh->locks[a->id]);
}

static void lock_area_excl(const struct area *a)
{
	pthread_rwlock_wrlock(&sh->locks[a->id]);
}

static void unlock_area(const struct area *a)
{
	pthread_rwlock_unlock(&sh->locks[a->id]);
}

/* Migration splits folios: from time to time, get new ones of the right size */
static void renew_area(struct area *a, uint64_t *rng)
{
	if (a->kind == AREA_FILE || a->kind == AREA_FILE_READONLY)
		return;

	lock_area_excl(a);
	/* Nobody but migration is using it: the last look at it */
	if (check_area(a)) {
		if (a->kind != AREA_SHMEM) {
			push_settings(a->r.size);
			region_renew(&a->r, rnd(rng) & 1 ? node_a : node_b);
			pop_settings();
		} else {
			if (madvise(a->r.mem, a->r.len, MADV_REMOVE))
				ksft_exit_fail_perror("MADV_REMOVE");
			touch_shmem(a);
		}
		fill_area(a);
		count_event(RENEWED, 1);
	}
	unlock_area(a);
}

/* ---- writing ----------------------------------------------------------- */

static void writer_init(struct writer *w, unsigned int slot, unsigned int who)
{
	unsigned int i;

	w->slot = slot;
	w->rng = rng_of(who);
	for (i = 0; i < nr_areas; i++) {
		w->cursor[i] = rnd(&w->rng) % areas[i].nr_pages;
		/* All pages in an order of its own: the number is a power of 2 */
		w->stride[i] = rnd(&w->rng) | 1;
	}
}

/* Half of the time, be where memory is being moved */
static const struct area *writer_area(struct writer *w)
{
	const struct area *a;

	if (rnd(&w->rng) & 1)
		return &areas[rnd(&w->rng) % nr_areas];
	a = &areas[FORCE_READ(sh->hot_area)];
	w->cursor[a->id] = (FORCE_READ(sh->hot_page) +
			    rnd(&w->rng) % (FORCE_READ(sh->hot_pages) + 1)) %
			   a->nr_pages;
	return a;
}

static bool writer_step(struct writer *w, const struct area *a, bool write)
{
	const bool hammer = write && rnd(&w->rng) % 2;
	const bool syscalls = write && a->fd >= 0 && rnd(&w->rng) % 8 == 0;
	const unsigned int slot = a->nr_slots > 1 ? w->slot : 0;
	size_t *page = &w->cursor[a->id];
	unsigned int n;

	if (hammer && !hammer_page(a, slot, *page))
		return false;
	for (n = 0; n < VISIT_PAGES; n++) {
		if (!visit_page(a, slot, *page, write, syscalls))
			return false;
		*page = (*page + w->stride[a->id]) % a->nr_pages;
	}
	return true;
}

static bool is_writable(const struct area *a)
{
	return a->kind != AREA_COW && a->kind != AREA_FILE_READONLY;
}

static bool is_shared(const struct area *a)
{
	return a->kind == AREA_SHMEM || a->kind == AREA_FILE;
}

static void *writer_thread(void *arg)
{
	struct writer *w = arg;

	while (!stopping()) {
		const struct area *a = writer_area(w);

		lock_area(a);
		writer_step(w, a, is_writable(a));
		unlock_area(a);
	}
	return NULL;
}

/* ---- moving ------------------------------------------------------------ */

struct mover {
	void *addrs[MAX_ADDRS];
	int nodes[MAX_ADDRS];
	int status[MAX_ADDRS];
	int before[MAX_ADDRS];
	int after[MAX_ADDRS];
	size_t nr;
	uint64_t rng;
};

static int random_node(struct mover *m)
{
	return rnd(&m->rng) & 1 ? node_a : node_b;
}

/* Some folios of an area, in order or not */
static void choose_folios(struct mover *m, const struct area *a)
{
	const bool scattered = rnd(&m->rng) % 4 == 0;
	size_t first = rnd(&m->rng) % a->r.nr, i;

	m->nr = min(a->r.nr, 1 + rnd(&m->rng) % MAX_ADDRS);
	for (i = 0; i < m->nr; i++) {
		size_t n = scattered ? rnd(&m->rng) : first + i;

		m->addrs[i] = a->r.mem + n % a->r.nr * a->r.size;
	}
}

static bool is_target(const struct area *a, pid_t pid)
{
	/* What else a child has is not its own business */
	return !pid || a->kind == AREA_COW || pid == main_pid;
}

static const struct area *choose_area(struct mover *m, pid_t pid)
{
	const struct area *a;

	do {
		a = &areas[rnd(&m->rng) % nr_areas];
	} while (!is_target(a, pid));
	return a;
}

/* How many of the chosen folios came to @node since @m->before was filled */
static size_t arrived(struct mover *m, pid_t pid, int node)
{
	size_t i, nr = 0;

	if (move_pages_of(pid, m->nr, m->addrs, NULL, m->after, 0))
		return 0;
	for (i = 0; i < m->nr; i++)
		nr += m->after[i] == node && m->before[i] >= 0 &&
		      m->before[i] != node;
	return nr;
}

static int move_flag(struct mover *m)
{
	return rnd(&m->rng) & 1 ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE;
}

static void set_node(unsigned long *mask, int node)
{
	const unsigned int bits = 8 * sizeof(long);

	mask[node / bits] |= 1UL << (node % bits);
}

static void do_move_pages(struct mover *m, pid_t pid, int node)
{
	size_t i;

	for (i = 0; i < m->nr; i++)
		m->nodes[i] = node;
	move_pages_of(pid, m->nr, m->addrs, m->nodes, m->status, move_flag(m));
}

static void do_migrate_pages(pid_t pid, int from, int to)
{
	unsigned long old[MAX_NODES / (8 * sizeof(long))] = { 0 };
	unsigned long new[MAX_NODES / (8 * sizeof(long))] = { 0 };

	set_node(old, from);
	set_node(new, to);
	syscall(__NR_migrate_pages, pid, MAX_NODES + 1, old, new);
}

static void do_mbind(struct mover *m, const struct area *a, int node)
{
	unsigned long mask[MAX_NODES / (8 * sizeof(long))] = { 0 };

	set_node(mask, node);
	syscall(__NR_mbind, a->r.mem, a->r.len, MPOL_PREFERRED, mask,
		MAX_NODES + 1, move_flag(m));
}

/*
 * Move some memory of @pid, 0 for our own, in one of the ways. Any of these may
 * fail, for that process may have ended, be in another cpuset, or have its
 * memory somewhere else by now. What counts is what arrived.
 */
static void move_some(struct mover *m, enum event how, pid_t pid)
{
	const struct area *a = choose_area(m, pid);
	const int node = random_node(m);
	const bool lock = !pid || pid == main_pid;

	/* Or those who allocate it anew could not tell what they got */
	if (lock)
		lock_area(a);
	choose_folios(m, a);
	sh->hot_area = a->id;
	sh->hot_page = ((char *)m->addrs[0] - a->r.mem) / psize();
	sh->hot_pages = m->nr * (a->r.size / psize());
	if (!move_pages_of(pid, m->nr, m->addrs, NULL, m->before, 0)) {
		switch (how) {
		case MOVE_PAGES_OWN:
		case MOVE_PAGES_CHILD:
		case MOVE_PAGES_PARENT:
			do_move_pages(m, pid, node);
			break;
		case MBIND:
			do_mbind(m, a, node);
			break;
		default:
			do_migrate_pages(pid, node == node_a ? node_b : node_a,
					 node);
		}
		count_event(how, arrived(m, pid, node));
	}
	if (lock)
		unlock_area(a);
}

static pid_t random_victim(struct mover *m)
{
	return FORCE_READ(sh->victims[rnd(&m->rng) % NR_VICTIMS]);
}

static struct mover *mover_alloc(unsigned int who)
{
	struct mover *m = malloc(sizeof(*m));

	if (!m)
		ksft_exit_fail_msg("out of memory\n");
	m->rng = rng_of(who);
	return m;
}

static void *own_mover_thread(void *arg)
{
	struct mover *m = arg;

	while (!stopping())
		move_some(m, MOVE_PAGES_OWN, 0);
	return NULL;
}

/* migrate_pages() moves all there is, and takes as long as many of the others */
static void *policy_mover_thread(void *arg)
{
	struct mover *m = arg;

	while (!stopping())
		move_some(m, rnd(&m->rng) % 8 ? MBIND : MIGRATE_PAGES_OWN, 0);
	return NULL;
}

static void *child_mover_thread(void *arg)
{
	struct mover *m = arg;

	while (!stopping()) {
		pid_t victim = random_victim(m);

		if (victim)
			move_some(m, rnd(&m->rng) % 4 ? MOVE_PAGES_CHILD :
							MIGRATE_PAGES_CHILD,
				  victim);
		else
			nap(10);
	}
	return NULL;
}

static void *compaction_thread(void *arg)
{
	struct mover *m = arg;

	while (!stopping()) {
		unsigned long isolated = read_vmstat("compact_isolated");

		compact_nodes(false);
		count_event(COMPACTION, read_vmstat("compact_isolated") - isolated);
		nap(rnd(&m->rng) % 500);
	}
	return NULL;
}

/* ---- processes --------------------------------------------------------- */

static void become_child(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != main_pid)
		_exit(KSFT_FAIL);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
}

static void __noreturn moving_child(unsigned int who)
{
	struct mover *m = mover_alloc(who);

	become_child();
	while (!stopping())
		move_some(m, rnd(&m->rng) % 4 ? MOVE_PAGES_PARENT :
						MIGRATE_PAGES_PARENT, main_pid);
	_exit(0);
}

/* Owns a part of what is shared, until it ends and another one takes over */
static void __noreturn sharing_child(unsigned int who)
{
	struct writer w = { };
	uint64_t end;

	become_child();
	writer_init(&w, SHARED_SLOT, who);
	end = now_ns() + (1 + rnd(&w.rng) % 4) * 1000000000ULL;
	while (!stopping() && now_ns() < end) {
		const struct area *a = writer_area(&w);

		if (!is_shared(a))
			continue;
		lock_area(a);
		writer_step(&w, a, true);
		unlock_area(a);
	}
	_exit(0);
}

static void __noreturn exec_self(void)
{
	char seed_arg[32];

	snprintf(seed_arg, sizeof(seed_arg), "%llu", (unsigned long long)seed);
	execl("/proc/self/exe", "stress", "--after-exec",
	      "--seed", seed_arg, "--bytes", "2M", NULL);
	_exit(KSFT_FAIL);
}

static void enter_group(void)
{
	char path[512];

	if (!victim_group)
		return;
	/* It may be gone for the moment */
	snprintf(path, sizeof(path), "%s/cgroup.procs", victim_group);
	write_text(path, "0");
}

/*
 * Writes to its copy of what it shares with its parent, and ends after some
 * time while it is being moved.
 */
static void __noreturn victim_child(unsigned int who)
{
	struct writer w = { };
	unsigned int i;
	uint64_t end;

	become_child();
	enter_group();
	for (i = 0; i < nr_areas; i++) {
		if (areas[i].kind != AREA_COW)
			continue;
		areas[i].gens = calloc(areas[i].nr_pages, sizeof(*areas[i].gens));
		if (!areas[i].gens)
			_exit(KSFT_FAIL);
	}
	first_version = who % (VERSION_LIMIT >> 12) << 12;
	writer_init(&w, 0, who);
	end = now_ns() + (500 + rnd(&w.rng) % 3000) * 1000000ULL;
	while (!stopping() && now_ns() < end) {
		const struct area *a = writer_area(&w);

		if (a->kind == AREA_COW)
			writer_step(&w, a, true);
	}
	for (i = 0; i < nr_areas; i++)
		if (areas[i].kind == AREA_COW)
			check_area(&areas[i]);
	switch (rnd(&w.rng) % 3) {
	case 0:
		raise(SIGKILL);
		break;
	case 1:
		exec_self();
	}
	_exit(0);
}

/* What a victim does in its next life, with memory of its own */
static int run_after_exec(void)
{
	const uint64_t end = now_ns() + 500 * 1000000ULL;
	struct area *a;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sh = shared_alloc(sizeof(*sh));
	start_ns = now_ns();
	a = new_area(AREA_COW, "executed", psize());
	a->r.size = psize();
	a->r.len = area_bytes;
	a->r.mem = mmap(NULL, a->r.len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a->r.mem == MAP_FAILED)
		return KSFT_FAIL;
	add_area(a);
	while (now_ns() < end) {
		size_t page;

		for (page = 0; page < a->nr_pages; page++)
			if (!visit_page(a, 0, page, true, false))
				return KSFT_FAIL;
	}
	/* Not a return: what is restored at exit is not ours to restore */
	_exit(EXIT_EXECUTED);
}

enum child_kind { CHILD_MOVING, CHILD_SHARING, CHILD_VICTIM };

struct child {
	enum child_kind kind;
	pid_t pid;
};

static struct child children[NR_VICTIMS + 2];

static void spawn(struct child *c)
{
	static unsigned int who = 1000;
	pid_t pid;

	who++;
	pid = fork();
	if (pid < 0) {
		/* Perhaps there is memory later */
		c->pid = 0;
		return;
	}
	if (!pid) {
		switch (c->kind) {
		case CHILD_MOVING:
			moving_child(who);
		case CHILD_SHARING:
			sharing_child(who);
		case CHILD_VICTIM:
			victim_child(who);
		}
	}
	c->pid = pid;
	count_event(FORKED, 1);
	if (c->kind == CHILD_VICTIM)
		sh->victims[c - children] = pid;
}

/* Look whether a child has ended, and how */
static void reap(struct child *c)
{
	int status;

	if (!c->pid || waitpid(c->pid, &status, WNOHANG) != c->pid)
		return;
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		count_event(EXITED, 1);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_EXECUTED) {
		count_event(EXECUTED, 1);
	} else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
		   c->kind == CHILD_VICTIM) {
		count_event(KILLED, 1);
	} else {
		ksft_print_msg("process %d of kind %d ended with status %#x\n",
			       c->pid, c->kind, status);
		__atomic_fetch_add(&sh->wrong, 1, __ATOMIC_RELAXED);
	}
	if (c->kind == CHILD_VICTIM)
		sh->victims[c - children] = 0;
	c->pid = 0;
}

static void reap_all(void)
{
	unsigned int i;
	bool left = true;

	while (left) {
		left = false;
		for (i = 0; i < ARRAY_SIZE(children); i++) {
			reap(&children[i]);
			left |= children[i].pid;
		}
		nap(10);
	}
}

/* ---- all of it --------------------------------------------------------- */

static void show_events(void)
{
	int i;

	for (i = 0; i < NR_EVENTS; i++)
		ksft_print_msg("count %s %lu\n", event_names[i], events(i));
	ksft_print_msg("count words_checked %lu\n", sh->words);
}

static bool all_happened(void)
{
	int i;

	for (i = 0; i < NR_EVENTS; i++)
		if (!events(i))
			return false;
	return true;
}

/* Fork what has ended, and renew what has been split, until it is time to end */
static void supervise(void)
{
	uint64_t rng = rng_of(1), end, renew = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(children); i++)
		children[i].kind = i < NR_VICTIMS ? CHILD_VICTIM :
				   i == NR_VICTIMS ? CHILD_SHARING : CHILD_MOVING;

	end = start_ns + seconds * 1000000000ULL;
	while (!FORCE_READ(sh->wrong)) {
		const uint64_t now = now_ns();

		if (FORCE_READ(interrupted) && end > now)
			end = now;
		if (now >= end && (all_happened() || now > end + GRACE_NS))
			break;

		for (i = 0; i < ARRAY_SIZE(children); i++) {
			reap(&children[i]);
			if (!children[i].pid)
				spawn(&children[i]);
		}
		if (now >= renew) {
			struct area *a = &areas[rnd(&rng) % nr_areas];

			if (a->kind == AREA_FILE)
				msync(a->r.mem, a->r.len, MS_SYNC);
			else
				renew_area(a, &rng);
			renew = now + 500 * 1000000ULL;
		}
		nap(20);
	}
	__atomic_store_n(&sh->stop, true, __ATOMIC_RELAXED);
}

/* What got to the disk, read back from there */
static bool check_file(struct area *a)
{
	const size_t len = a->r.len;
	char *copy = malloc(len);
	size_t done = 0;
	ssize_t n;
	bool ok;

	if (!copy)
		ksft_exit_fail_msg("out of memory\n");
	region_free(&a->r);
	if (fsync(a->fd))
		ksft_exit_fail_perror("fsync");
	posix_fadvise(a->fd, 0, 0, POSIX_FADV_DONTNEED);
	while (done < len) {
		n = pread(a->fd, copy + done, len - done, done);
		if (n <= 0)
			ksft_exit_fail_perror("pread");
		done += n;
	}
	a->r.mem = copy;
	ok = check_area(a);
	free(copy);
	return ok;
}

static bool check_all(void)
{
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		if (!check_area(&areas[i]))
			return false;
	for (i = 0; i < nr_areas; i++)
		if ((areas[i].kind == AREA_FILE ||
		     areas[i].kind == AREA_FILE_READONLY) &&
		    !check_file(&areas[i]))
			return false;
	return true;
}

static bool page_is_locked(uint64_t pfn)
{
	uint64_t flags;

	return !pageflags_get(pfn, kpageflags_fd, &flags) &&
	       (flags & KPF_LOCKED) && !(flags & KPF_NOPAGE);
}

/* Count pages that stay locked although nobody is moving them any more */
static unsigned long locked_pages(unsigned long *seen)
{
	const uint64_t end = now_ns() + LOCKED_NS;
	static uint64_t flags[8192];
	unsigned long pfn = 0, locked = 0;
	ssize_t n, i;

	for (;;) {
		n = pread(kpageflags_fd, flags, sizeof(flags),
			  pfn * sizeof(*flags));
		if (n <= 0)
			break;
		n /= sizeof(*flags);
		for (i = 0; i < n; i++) {
			if (!(flags[i] & KPF_LOCKED) || (flags[i] & KPF_NOPAGE))
				continue;
			while (page_is_locked(pfn + i) && now_ns() < end)
				nap(10);
			if (page_is_locked(pfn + i)) {
				ksft_print_msg("page frame %#lx is locked\n",
					       pfn + i);
				locked++;
			}
		}
		pfn += n;
		if (now_ns() > end)
			break;
	}
	*seen = pfn;
	return locked;
}

static void run(void)
{
	static struct writer writers[NR_WRITERS];
	pthread_t threads[NR_WRITERS + 4];
	unsigned long moved, seen, locked;
	unsigned int i;
	bool ok;

	lock_init();
	ksft_set_plan(3);
	add_areas();
	moved = read_vmstat("pgmigrate_success");
	start_ns = now_ns();
	ksft_print_msg("begin: %u areas, seed %llu\n", nr_areas,
		       (unsigned long long)seed);

	for (i = 0; i < NR_WRITERS; i++) {
		writer_init(&writers[i], i, 10 + i);
		pthread_create(&threads[i], NULL, writer_thread, &writers[i]);
	}
	pthread_create(&threads[i++], NULL, own_mover_thread, mover_alloc(20));
	pthread_create(&threads[i++], NULL, policy_mover_thread, mover_alloc(21));
	pthread_create(&threads[i++], NULL, child_mover_thread, mover_alloc(22));
	pthread_create(&threads[i++], NULL, compaction_thread, mover_alloc(23));

	supervise();
	while (i--)
		pthread_join(threads[i], NULL);
	reap_all();

	/* Of a page that is freed, nobody can tell any more */
	locked = locked_pages(&seen);
	ok = !sh->wrong && check_all();
	moved = read_vmstat("pgmigrate_success") - moved;
	ksft_print_msg("%.1f s, %lu pages moved\n",
		       (now_ns() - start_ns) / 1e9, moved);
	show_events();
	ksft_test_result(ok, "%lu words checked, content %s\n", sh->words,
			 ok ? "verified" : "WRONG");
	ksft_test_result(!ok || (moved && all_happened()),
			 "memory moved and processes ended in every way\n");

	for (i = 0; i < nr_areas; i++)
		region_free(&areas[i].r);
	ksft_test_result(!locked, "%lu of %lu pages are still locked\n", locked,
			 seen);
}

/* ---- command line ------------------------------------------------------ */

static void print_usage(FILE *f)
{
	static const char text[] =
		"usage: stress [options]\n"
		"\n"
		"Move memory of every kind in every way between two nodes while it is written\n"
		"and checked all the time. Changes no parameters of dcbm.\n"
		"\n"
		"  -t, --time SECONDS   for how long, or until a signal (60)\n"
		"  -b, --bytes SIZE     memory for each area, a power of two (8M)\n"
		"  -f, --file DIR       have a file there too; can be repeated\n"
		"  -g, --group DIR      cgroup that children go to\n"
		"  -S, --seed N         seed of content and choices (from the clock)\n"
		"  -h, --help           this text\n";

	fputs(text, f);
}

static void __noreturn bad_arg(const char *s, const char *what)
{
	fprintf(stderr, "stress: '%s' is not %s\n", s, what);
	exit(EXIT_USAGE);
}

/* A number, and M behind it if @unit says so */
static unsigned long long number_arg(const char *s, const char *unit)
{
	unsigned long long val;
	char *end;

	errno = 0;
	val = strtoull(s, &end, 0);
	if (*s < '0' || *s > '9' || errno || strcmp(end, unit))
		bad_arg(s, *unit ? "a number and M" : "a number");
	return val;
}

/* A power of two, or writers would not get to all pages */
static size_t size_arg(const char *s)
{
	unsigned long long mib = number_arg(s, "M");

	if (!mib || (mib & (mib - 1)) || mib > 1024)
		bad_arg(s, "a power of two from 1M to 1024M");
	return mib << 20;
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "time", required_argument, NULL, 't' },
		{ "bytes", required_argument, NULL, 'b' },
		{ "file", required_argument, NULL, 'f' },
		{ "group", required_argument, NULL, 'g' },
		{ "seed", required_argument, NULL, 'S' },
		{ "after-exec", no_argument, NULL, 'E' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	bool bad = false;
	int opt;

	seed = now_ns() * 0x9e3779b97f4a7c15ULL ^ getpid();
	while ((opt = getopt_long(argc, argv, "t:b:f:g:S:h", options,
				  NULL)) != -1) {
		switch (opt) {
		case 't':
			seconds = number_arg(optarg, "");
			break;
		case 'b':
			area_bytes = size_arg(optarg);
			break;
		case 'f':
			if (nr_files < MAX_FILES)
				file_dirs[nr_files++] = optarg;
			break;
		case 'g':
			victim_group = optarg;
			break;
		case 'S':
			seed = number_arg(optarg, "");
			break;
		case 'E':
			after_exec = true;
			break;
		case 'h':
			print_usage(stdout);
			exit(KSFT_PASS);
		default:
			bad = true;
		}
	}
	if (bad || optind < argc) {
		print_usage(stderr);
		exit(EXIT_USAGE);
	}
}

static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

int main(int argc, char **argv)
{
	parse_options(argc, argv);
	/* After exec, the process is another one */
	hash_key = rng_of(after_exec ? getpid() : 0);
	if (after_exec)
		return run_after_exec();

	ksft_print_header();
	migrate_offload_setup();
	sh = shared_alloc(sizeof(*sh));
	catch_signals();
	/* Keep khugepaged away for all of the time */
	push_settings(psize());
	run();
	pop_settings();
	ksft_finished();
}
