// SPDX-License-Identifier: GPL-2.0
/*
 * Every way in which it could go wrong to copy folios ahead of the move. Each
 * test moves folios of a special kind together with ordinary ones, most of them
 * with something happening to the special ones between the copy and the move,
 * and verifies the content of all.
 *
 * The tests are in hazard_*.c, a file for each kind of memory. This is what runs
 * them, and what they share. "hazards -l" lists them.
 *
 * Needs dcbm, and dma-sim as its engine: hazards.sh loads them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <linux/userfaultfd.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"

char why[256];

static struct hazard *hazards;
static struct hazard **last = &hazards;
/* A tmpfs of our own, which we work in, and which goes when we go */
static char dir[32];

void hazard_register(struct hazard *h)
{
	*last = h;
	last = &h->next;
}

/* ---- what tests share -------------------------------------------------- */

int skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	return KSFT_SKIP;
}

int result(bool ok)
{
	return ok ? KSFT_PASS : KSFT_FAIL;
}

int run(const char *fmt, ...)
{
	char command[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	return system(command);
}

unsigned long pfn_of(void *addr)
{
	return pagemap_get_pfn(pagemap_fd, addr);
}

uint64_t flags_of(void *addr)
{
	uint64_t flags = 0;

	pageflags_get(pfn_of(addr), kpageflags_fd, &flags);
	return flags;
}

bool special_moved(struct batch *b, struct region *special,
		   const struct outcome *want, uint64_t gen)
{
	bool ok = batch_check(b, want);

	return region_verify(special, gen) && ok;
}

int move_special(struct region *special, uint64_t gen)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct batch b;
	bool ok;

	if (!batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, special);
	ok = batch_home(&b) && batch_run(&b) &&
	     special_moved(&b, special, &want, gen);
	batch_free(&b);
	return result(ok);
}

bool file_verify(int fd, const struct region *r, uint64_t gen)
{
	struct region copy = *r;
	bool ok;

	/* The pattern depends on the address, so put it to the same place */
	copy.mem = mmap(r->mem, r->len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (copy.mem == MAP_FAILED)
		return false;
	ok = pread(fd, copy.mem, r->len, 0) == (ssize_t)r->len;
	return ok && region_verify(&copy, gen);
}

static void *write_thread(void *arg)
{
	struct writing *w = arg;

	w->err = write_text(w->path, w->text);
	atomic_store(&w->done, true);
	return NULL;
}

void writing_begin(struct writing *w)
{
	if (pthread_create(&w->thread, NULL, write_thread, w))
		ksft_exit_fail_msg("cannot start a thread\n");
}

bool writing_end(struct writing *w)
{
	pthread_join(w->thread, NULL);
	if (w->err)
		ksft_print_msg("%s: %s: %s\n", w->path, w->text,
			       strerror(-w->err));
	return !w->err;
}

int unregister(struct batch *b, const struct outcome *want)
{
	struct writing off = { DCBM_PARAMS "offloading", "N" };
	bool ok = true;

	writing_begin(&off);
	usleep(LULL_US);
	if (atomic_load(&off.done) || b->done) {
		ksft_print_msg("dcbm did not wait for the batch\n");
		ok = false;
	}
	ok &= batch_release(b);
	ok &= writing_end(&off);
	ok = batch_check(b, want) && ok;
	ok &= !dcbm_write("offloading", "Y") && engine_find();
	batch_free(b);
	return result(ok);
}

int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

const char *no_hwpoison(void)
{
	return access(HWPOISON "corrupt-pfn", W_OK) ?
	       "no hwpoison-inject" : NULL;
}

/* ---- what they need, as it was afterwards ------------------------------- */

/* What has been written to, the last at the end */
static struct {
	char path[96];
	char saved[256];
} changed[16];
static unsigned int nr_changed;
/* Those of all tests come first */
static unsigned int nr_settings;
static cpu_set_t all_cpus;

/* Keep what @text says to write back: of several words, the one in brackets */
static void save_choice(char *saved, const char *text)
{
	const char *word = strchr(text, '[');
	size_t len;

	if (word)
		len = strcspn(++word, "]");
	else
		len = strlen(word = text);
	memcpy(saved, word, len);
	saved[len] = '\0';
}

bool set_for_test(const char *path, const char *val)
{
	char text[256];

	if (nr_changed == ARRAY_SIZE(changed) ||
	    read_text(path, text, sizeof(text)) || write_text(path, val))
		return false;
	snprintf(changed[nr_changed].path, sizeof(changed[0].path), "%s", path);
	save_choice(changed[nr_changed++].saved, text);
	return true;
}

/* Put back all but the first @nr */
static void restore(unsigned int nr)
{
	while (nr_changed > nr) {
		nr_changed--;
		write_text(changed[nr_changed].path, changed[nr_changed].saved);
	}
}

static void settings_restore(void)
{
	restore(0);
}

static void settings_make(void)
{
	atexit(settings_restore);
	sched_getaffinity(0, sizeof(all_cpus), &all_cpus);
	/* What else migrates, as kcompactd, is not counted, nor held */
	set_for_test(KNOBS "reasons", REASON);
	set_for_test(KNOBS "min_folio_bytes", "0");
	set_for_test(KNOBS "min_batch_bytes", "0");
	/* The engine copies all, and is held for as long as we like */
	set_for_test(SHARE, "0");
	set_for_test(DCBM_PARAMS "patience_ms", HOLD_MS);
	set_for_test(DCBM_PARAMS "timeout_ms", HOLD_MS);
	/* Nobody else shall move what we look at */
	set_for_test("/proc/sys/kernel/numa_balancing", "0");
	set_for_test("/proc/sys/vm/compaction_proactiveness", "0");
	/* What is freed can be had, instead of waiting on a CPU's own list */
	set_for_test("/proc/sys/vm/percpu_pagelist_high_fraction", "100000");
	nr_settings = nr_changed;
}

static int kmsg_fd = -1;

/* Has the kernel complained since we looked last? */
static bool kernel_complained(void)
{
	static const char * const splats[] = {
		"WARNING:", "BUG:", "Oops", "KASAN:", "DMA-API:",
		"general protection", "rcu: INFO:", "pagealloc: ",
		"turning off the locking correctness validator",
	};
	char line[8192];
	bool bad = false;
	unsigned int i;
	ssize_t n;

	while ((n = read(kmsg_fd, line, sizeof(line) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		line[max(n, 0L)] = '\0';
		for (i = 0; i < ARRAY_SIZE(splats); i++) {
			if (!strstr(line, splats[i]))
				continue;
			ksft_print_msg("%s", line);
			bad = true;
		}
	}
	return bad;
}

static void dir_remove(void)
{
	(void)!chdir("/");
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

static void setup(void)
{
	static const char * const faults[] = {
		"fail_read", "fail_write", "short_copy", "refuse_prep",
		"refuse_submit", "lose_callback", "stall", "reorder",
		"delay_us", "bandwidth",
	};
	unsigned int i;

	migrate_offload_setup();
	if (!dcbm_present())
		ksft_exit_skip("dcbm is not loaded\n");
	seed = now_ns();

	dcbm_save();
	batch_limit_save();
	settings_make();
	if (dcbm_write("offloading", "N") || dcbm_write("nr_dma_chan", "1") ||
	    dcbm_write("offloading", "Y"))
		ksft_exit_skip("no DMA channel\n");
	if (!engine_find())
		ksft_exit_skip("the engine of dcbm is not one of dma-sim\n");
	for (i = 0; i < ARRAY_SIZE(faults); i++)
		engine_set(faults[i], 0);
	if (!probes_start())
		ksft_print_msg("no kprobe events: copies by the CPU are not counted\n");

	kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	lseek(kmsg_fd, 0, SEEK_END);
	/* All that we mount goes with us */
	strcpy(dir, "/tmp/migrate_offload.XXXXXX");
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    !mkdtemp(dir))
		ksft_exit_fail_perror("directory");
	atexit(dir_remove);
	if (mount("tmpfs", dir, "tmpfs", 0, NULL) || chdir(dir))
		ksft_exit_fail_perror("tmpfs");
}

/* ---- running them ------------------------------------------------------ */

static struct hazard *hazard_find(const char *name)
{
	struct hazard *h;

	for (h = hazards; h; h = h->next)
		if (!strcmp(h->name, name))
			return h;
	return NULL;
}

static void __noreturn unknown(const char *name)
{
	struct hazard *h;

	fprintf(stderr, "hazards: no test '%s'; there are:", name);
	for (h = hazards; h; h = h->next)
		fprintf(stderr, " %s", h->name);
	fputc('\n', stderr);
	exit(2);
}

static void pick(const char *name)
{
	struct hazard *h = hazard_find(name);

	if (!h)
		unknown(name);
	h->picked = true;
}

static void list(void)
{
	struct hazard *h;

	for (h = hazards; h; h = h->next)
		if (h->picked)
			printf("%-20s %s\n", h->name, h->what);
}

static void hazard_run(struct hazard *h)
{
	uint64_t start = now_ns();
	int ret;

	*why = '\0';
	batch_limit_set(ROOMY_CHUNK);
	/* For dcbm to forget how slow an engine is that was held */
	if (dcbm_write("offloading", "N") || dcbm_write("offloading", "Y") ||
	    !engine_find())
		ksft_exit_fail_msg("dcbm has lost its engine\n");
	ret = h->run();
	restore(nr_settings);
	sched_setaffinity(0, sizeof(all_cpus), &all_cpus);
	engine_set("stall", 0);
	if (kernel_complained())
		ret = KSFT_FAIL;
	ksft_print_msg("%s: %llu ms\n", h->name,
		       (now_ns() - start) / 1000000ULL);
	ksft_test_result_code(ret, h->name, "%s%s%s", h->what,
			      *why ? ": " : "", why);
}

/* Return true if tests are only to be listed */
static bool parse_options(int argc, char **argv)
{
	bool only_list = false, all = true;
	struct hazard *h;
	int opt;

	opterr = 0;
	while ((opt = getopt(argc, argv, "hlt:")) != -1) {
		switch (opt) {
		case 'h':
			puts("usage: hazards [-l] [-t TEST] ... [TEST ...]\n"
			     "Runs all tests, or those that are named. -l lists them.");
			exit(0);
		case 'l':
			only_list = true;
			break;
		case 't':
			pick(optarg);
			all = false;
			break;
		default:
			fprintf(stderr, "hazards: not '-%c'; there are -h, -l and -t TEST\n",
				optopt);
			exit(2);
		}
	}
	for (; optind < argc; optind++) {
		pick(argv[optind]);
		all = false;
	}
	for (h = hazards; h; h = h->next)
		h->picked |= all;
	return only_list;
}

int main(int argc, char **argv)
{
	unsigned int nr = 0;
	struct hazard *h;

	if (parse_options(argc, argv)) {
		list();
		return 0;
	}
	for (h = hazards; h; h = h->next)
		nr += h->picked;

	ksft_print_header();
	setup();
	ksft_set_plan(nr);
	for (h = hazards; h; h = h->next)
		if (h->picked)
			hazard_run(h);
	ksft_finished();
}
