// SPDX-License-Identifier: GPL-2.0
/*
 * Anonymous memory that is special to others: written through a stale TLB, locked,
 * shared, merged, in swap, tracked, or mapped in part.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "hazards.h"
#include "window.h"
#include "disk.h"
#include "io.h"

#define KPF_SWAPCACHE	BIT_ULL(13)
#define KPF_KSM		BIT_ULL(21)
/* Only for the kernel's own tools, as it says in linux/kernel-page-flags.h */
#define KPF_MLOCKED	BIT_ULL(33)

struct writer {
	uint64_t *words[NR_SPECIAL];
	atomic_ullong nr;
	unsigned int wrong;
	const cpu_set_t *cpus;
	pthread_t thread;
	atomic_int tid;
	atomic_bool stop;
};

/* Count in each page, and see that no number is ever forgotten */
static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	unsigned int i;

	run_on(w->cpus);
	w->tid = gettid();
	for (w->nr = 0; !w->stop; w->nr++)
		for (i = 0; i < NR_SPECIAL; i++) {
			if (__atomic_load_n(w->words[i], __ATOMIC_RELAXED) !=
			    w->nr) {
				w->wrong++;
				w->stop = true;
			}
			__atomic_store_n(w->words[i], w->nr + 1,
					 __ATOMIC_RELAXED);
		}
	return NULL;
}

/* The engine may happen to run on the writer's CPU, which says nothing then */
#define WRITER_ROUNDS	10

static bool move_under_writer(struct batch *b, struct writer *w)
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	unsigned long long nr;
	bool ok;

	if (!batch_home(b))
		return false;
	nr = w->nr;
	wait_for(w->nr > nr + 1000 || w->stop);
	ok = batch_hold(b, want.offloaded);
	if (ok && !wait_for(thread_blocks(w->tid))) {
		ksft_print_msg("the writer goes on while the batch is held\n");
		ok = false;
	}
	if (b->running)
		ok &= batch_release(b);
	return batch_check(b, &want) && ok && !w->stop;
}

/* Others write for as long as their TLB lets them, which must not be for long */
HAZARD(writer, "a writer on another CPU")
{
	struct region special = { };
	struct two_cpus cpus;
	struct writer w = { .cpus = &cpus.last };
	struct batch b;
	unsigned int i;
	bool ok;

	/* The TLB of this CPU is another one than that of the writer */
	if (!two_cpus_take(&cpus))
		return skip("no two CPUs");
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	for (i = 0; i < NR_SPECIAL; i++) {
		w.words[i] = (uint64_t *)(special.mem + i * psize());
		*w.words[i] = 0;
	}
	ok = !pthread_create(&w.thread, NULL, writer_thread, &w);
	if (ok) {
		for (i = 0; ok && i < WRITER_ROUNDS; i++)
			ok = move_under_writer(&b, &w);
		w.stop = true;
		pthread_join(w.thread, NULL);
		if (w.wrong)
			ksft_print_msg("WRONG CONTENT: what was written is lost\n");
		ok &= !w.wrong;
	}
	two_cpus_give(&cpus);
	batch_free(&b);
	region_free(&special);
	return result(ok);
}

static unsigned int nr_mlocked(const struct region *r)
{
	unsigned int nr = 0;
	size_t i;

	for (i = 0; i < r->nr; i++)
		nr += !!(flags_of(r->mem + i * psize()) & KPF_MLOCKED);
	return nr;
}

HAZARD(mlocked, "locked memory")
{
	struct region special = { };
	unsigned int before, after;
	int ret;

	if (!map_special(&special, NR_SPECIAL, -1))
		return KSFT_FAIL;
	if (mlock(special.mem, special.len)) {
		ret = skip("mlock: %s", strerror(errno));
	} else {
		before = nr_mlocked(&special);
		ret = move_special(&special, 0);
		after = nr_mlocked(&special);
		if (before != NR_SPECIAL || after != before) {
			ksft_print_msg("%u pages are locked, %u after the move\n",
				       before, after);
			ret = KSFT_FAIL;
		}
	}
	region_free(&special);
	return ret;
}

HAZARD(forked, "memory shared after fork")
{
	struct region special = { };
	int go[2], status = -1, ret;
	pid_t child;
	char c;

	if (!map_special(&special, NR_SPECIAL, -1) || pipe(go))
		return KSFT_FAIL;
	child = fork();
	if (!child) {
		close(go[1]);
		(void)!read(go[0], &c, 1);
		_exit(!region_verify(&special, 0));
	}
	ret = move_special(&special, 0);
	/* What we write from here on is not the child's */
	region_fill(&special, 1);
	close(go[1]);
	close(go[0]);
	if (waitpid(child, &status, 0) != child || status)
		ret = KSFT_FAIL;
	region_free(&special);
	return ret;
}

HAZARD(ksm, "KSM pages")
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region r[2] = { };
	unsigned int i, j, merged = 0;
	struct batch b;
	bool ok = true;

	if (access("/sys/kernel/mm/ksm/run", W_OK))
		return skip("no KSM");
	for (i = 0; i < 2; i++) {
		if (!map_special(&r[i], NR_SPECIAL, -1))
			return KSFT_FAIL;
		for (j = 0; j < NR_SPECIAL; j++)
			memset(r[i].mem + j * psize(), 'a' + j, psize());
		madvise(r[i].mem, r[i].len, MADV_MERGEABLE);
	}
	/* It leaves out what it cannot get hold of, until its next round */
	for (i = 0; i < MAX_ATTEMPTS && merged < NR_SPECIAL; i++) {
		if (ksm_start())
			return skip("KSM does not start");
		merged = 0;
		for (j = 0; j < NR_SPECIAL; j++)
			merged += !!(flags_of(r[0].mem + j * psize()) &
				     KPF_KSM);
	}
	write_text("/sys/kernel/mm/ksm/run", "0");

	if (merged != NR_SPECIAL)
		ksft_print_msg("only %u pages are merged\n", merged);
	ok = merged == NR_SPECIAL && batch_init(&b, NR_SPECIAL);
	if (ok) {
		batch_add_region(&b, 0, &r[0]);
		ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
		batch_free(&b);
	}
	for (i = 0; i < 2; i++)
		for (j = 0; j < NR_SPECIAL * psize(); j++)
			ok &= r[i].mem[j] == (char)('a' + j / psize());
	ksm_stop();
	region_free(&r[0]);
	region_free(&r[1]);
	return result(ok);
}

/* Pages that were swapped out and read again are in the swap cache still */
HAZARD(swap_cache, "pages in the swap cache")
{
	union {
		char page[4096];
		struct {
			char boot[1024];
			uint32_t version, last_page, nr_bad;
		};
	} head = { .version = 1, .last_page = IMAGE_BYTES / 4096 - 1 };
	const char *image = "swap";
	struct region special = { };
	unsigned int i, cached = 0;
	int ret = KSFT_FAIL;
	struct disk d;

	if (psize() != sizeof(head))
		return skip("pages are not 4K");
	if (access("/dev/loop-control", F_OK))
		return skip("no loop devices");
	memcpy(head.page + sizeof(head) - 10, "SWAPSPACE2", 10);
	if (!make_file(image, &head, sizeof(head)) ||
	    truncate(image, IMAGE_BYTES) ||
	    !disk_attach(&d, image, IMAGE_BYTES))
		return KSFT_FAIL;
	if (swapon(d.path, SWAP_FLAG_PREFER | 32000)) {
		ret = skip("swapon: %s", strerror(errno));
		goto detach;
	}
	if (map_special(&special, NR_SPECIAL, -1)) {
		madvise(special.mem, special.len, MADV_PAGEOUT);
		for (i = 0; i < NR_SPECIAL; i++)
			FORCE_READ(special.mem[i * psize()]);
		for (i = 0; i < NR_SPECIAL; i++)
			cached += !!(flags_of(special.mem + i * psize()) &
				     KPF_SWAPCACHE);
		ksft_print_msg("%u of %u pages are in the swap cache\n",
			       cached, NR_SPECIAL);
		ret = move_special(&special, 0);
		if (ret == KSFT_PASS && !cached)
			ret = skip("no page is in the swap cache");
	}
	region_free(&special);
	swapoff(d.path);
detach:
	disk_detach(&d, IMAGE_BYTES);
	unlink(image);
	return ret;
}

HAZARD(userfaultfd, "memory that userfaultfd protects")
{
	struct uffdio_writeprotect wp = {
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct region special = { };
	int uffd, ret;
	unsigned int i;

	uffd = open_uffd();
	if (uffd < 0)
		return skip("no userfaultfd: %s", strerror(errno));
	if (!map_special(&special, NR_SPECIAL, -1))
		return KSFT_FAIL;
	if (uffd_register(uffd, special.mem, special.len, true, true, false)) {
		ret = skip("no write protection by userfaultfd");
		goto free;
	}
	/* Half of it */
	wp.range.start = (uintptr_t)special.mem;
	wp.range.len = special.len / 2;
	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp)) {
		ret = skip("UFFDIO_WRITEPROTECT: %s", strerror(errno));
		goto free;
	}
	ret = move_special(&special, 0);
	for (i = 0; i < NR_SPECIAL; i++) {
		bool is = pagemap_get_entry(pagemap_fd, special.mem +
					    i * psize()) & PM_UFFD_WP;

		if (is == (i < NR_SPECIAL / 2))
			continue;
		ksft_print_msg("write protection of page %u is lost\n", i);
		ret = KSFT_FAIL;
	}
free:
	region_free(&special);
	close(uffd);
	return ret;
}

HAZARD(soft_dirty, "soft-dirty bits")
{
	struct outcome want = { .offloaded = NR_SPECIAL + NR_ORDINARY };
	struct region special = { };
	struct batch b;
	unsigned int i;
	bool ok;

	if (!softdirty_supported())
		return skip("no soft-dirty bit");
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	clear_softdirty();
	for (i = 0; i < NR_SPECIAL; i += 2)
		__atomic_fetch_or(special.mem + i * psize(), 0,
				  __ATOMIC_RELAXED);
	ok = ok && batch_run(&b) && batch_check(&b, &want);
	for (i = 0; i < NR_SPECIAL; i++) {
		bool is = pagemap_is_softdirty(pagemap_fd, special.mem +
					       i * psize());

		if (is == !(i & 1))
			continue;
		ksft_print_msg("page %u: soft-dirty is %d\n", i, is);
		ok = false;
	}
	ok = region_verify(&special, 0) && ok;
	batch_free(&b);
	region_free(&special);
	return result(ok);
}

/* A huge page that is mapped in part only is split before it is moved */
HAZARD(partially_mapped, "a huge page that is mapped in part")
{
	struct outcome want = { .offloaded = ANY };
	const size_t size = read_pmd_pagesize();
	struct region special = { }, head, tail;
	struct batch b;
	bool ok;

	if (!size || size_unsupported(size))
		return skip("no huge pages");
	push_settings(size);
	ok = region_alloc(&special, size, size);
	pop_settings();
	if (!ok)
		return skip("cannot get a huge page");
	region_fill(&special, 0);
	head = special;
	head.len = size / 4;
	tail = special;
	tail.mem += size / 2;
	tail.len = size / 2;
	if (munmap(head.mem + head.len, size / 4) || !batch_init(&b, 2))
		return KSFT_FAIL;
	b.addrs[0] = head.mem;
	b.addrs[1] = tail.mem;
	ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
	ok = region_verify(&head, 0) && region_verify(&tail, 0) && ok;
	batch_free(&b);
	region_free(&special);
	return result(ok);
}
