// SPDX-License-Identifier: GPL-2.0
/* Memory that fails, or is taken out of use, before and while it is moved. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hugepage_settings.h"
#include "hazards.h"
#include "window.h"

static sigjmp_buf on_sigbus;
static atomic_bool sigbus_expected;

static void sigbus(int sig)
{
	if (sigbus_expected)
		siglongjmp(on_sigbus, 1);
	signal(sig, SIG_DFL);
}

static void catch_sigbus(void)
{
	const struct sigaction sa = { .sa_handler = sigbus };

	sigaction(SIGBUS, &sa, NULL);
}

static bool reads_fail(const char *p)
{
	bool fails = sigsetjmp(on_sigbus, 1);

	sigbus_expected = !fails;
	if (!fails)
		FORCE_READ(*p);
	sigbus_expected = false;
	return fails;
}

/* Either is what we want: to fail at once, or when it is touched */
static bool inject(char *p, int how)
{
	bool ok = sigsetjmp(on_sigbus, 1);

	sigbus_expected = !ok;
	/* A folio that cannot be split is one that cannot be handled */
	if (!ok)
		ok = !madvise(p, psize(), how) || errno == EBUSY ||
		     errno == EHWPOISON;
	sigbus_expected = false;
	return ok;
}

static void unpoison(unsigned long pfn)
{
	int err = unpoison_memory(pfn);

	if (err)
		ksft_print_msg("a page stays poisoned: %s\n", strerror(-err));
}

/*
 * The neighbours of a page that failed, and of one that was taken out of use.
 * The one that failed is asked for with them, and cannot be moved.
 */
HAZARD(poison_before, "memory failure and soft offlining before the move")
{
	struct outcome want = {
		.offloaded = NR_SPECIAL - 1 + NR_ORDINARY, .unmoved = 1,
	};
	struct region special = { }, rest;
	unsigned long pfn;
	struct batch b;
	bool ok;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	catch_sigbus();
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	rest = special;
	rest.mem += psize();
	rest.len -= psize();
	rest.nr--;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	pfn = pfn_of(special.mem);
	ok = ok && inject(special.mem, MADV_HWPOISON) &&
	     !madvise(rest.mem, psize(), MADV_SOFT_OFFLINE) &&
	     batch_run(&b) && special_moved(&b, &rest, &want, 0);
	if (!reads_fail(special.mem)) {
		ksft_print_msg("a poisoned page can be read\n");
		ok = false;
	}
	batch_free(&b);
	region_free(&special);
	unpoison(pfn);
	return result(ok);
}

struct poisoner {
	unsigned long pfn;
	pthread_t thread;
	atomic_int tid;
	atomic_bool done;
};

static void *poisoner_thread(void *arg)
{
	struct poisoner *p = arg;
	char text[32];

	p->tid = gettid();
	snprintf(text, sizeof(text), "%#lx", p->pfn);
	write_text(HWPOISON "corrupt-pfn", text);
	p->done = true;
	return NULL;
}

/*
 * A page fails while the batch is held: it must fail alone. What becomes of it is
 * for those who handle the failure; most often they find no page that they know
 * how to handle, and it is moved. Then the CPU has copied it, not the engine, and
 * no other.
 */
HAZARD(poison_window, "memory failure between copy and move")
{
	const unsigned int bad = 3;
	struct outcome want = {
		.offloaded = NR_SPECIAL + NR_ORDINARY,
		.cpu = ANY, .unmoved = ANY,
	};
	struct region special = { }, page;
	struct poisoner p = { };
	struct batch b;
	unsigned int i;
	long copies;
	bool ok;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	catch_sigbus();
	if (!map_special(&special, NR_SPECIAL, -1) ||
	    !batch_init(&b, NR_SPECIAL))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	ok = batch_home(&b);
	p.pfn = pfn_of(b.addrs[bad]);
	ok = ok && batch_hold(&b, want.offloaded);
	if (ok) {
		pthread_create(&p.thread, NULL, poisoner_thread, &p);
		/* It may have to wait for the folio */
		ok = wait_for(p.done || thread_blocks(p.tid));
		ok &= batch_release(&b);
		if (!wait_for(p.done)) {
			ksft_print_msg("memory failure does not end\n");
			ok = false;
		}
		pthread_join(p.thread, NULL);
		ok &= batch_check(&b, &want);
		copies = probe_hits(CPU_COPIES) - b.copies_before;
		ksft_print_msg("it is on node %d, copied %ld times by the CPU\n",
			       b.where[bad], copies);
		if (b.where[bad] == node_b && probe_hits(CPU_COPIES) != ANY)
			ok &= copies == 1;
	}
	page = special;
	page.len = psize();
	for (i = 0; i < NR_SPECIAL; i++, page.mem += psize()) {
		if (i != bad)
			ok &= region_verify(&page, 0);
		else if (!reads_fail(page.mem))
			ok &= region_verify(&page, 0);
	}
	batch_free(&b);
	region_free(&special);
	unpoison(p.pfn);
	return result(ok);
}

/*
 * A page of a large folio failed while the folio could not be split. It is
 * still there, and it can be split no more than before; but an engine must not
 * read it.
 */
HAZARD(poison_large, "memory failure in a folio that cannot be split")
{
	const size_t size = read_pmd_pagesize();
	struct outcome want = { .offloaded = NR_ORDINARY, .cpu = ANY,
				.unmoved = ANY };
	struct region special = { };
	struct iovec iov;
	struct batch b;
	unsigned long pfn;
	bool ok = false;
	int p[2];
	char *bad;

	if (no_hwpoison())
		return skip("%s", no_hwpoison());
	catch_sigbus();
	if (!size || size_unsupported(size))
		return skip("no huge pages");
	push_settings(size);
	if (!region_alloc(&special, size, size)) {
		pop_settings();
		return skip("cannot get a huge page");
	}
	pop_settings();
	region_fill(&special, 0);
	if (pipe(p) || !batch_init(&b, 1))
		return KSFT_FAIL;
	batch_add_region(&b, 0, &special);
	bad = special.mem + 5 * psize();
	pfn = pfn_of(bad);
	iov = (struct iovec) { special.mem, psize() };
	if (batch_home(&b) && vmsplice(p[1], &iov, 1, 0) == (ssize_t)psize() &&
	    inject(bad, MADV_HWPOISON)) {
		close(p[0]);
		close(p[1]);
		if (count_folios(&special, NULL) != 1)
			ksft_print_msg("the folio was split after all\n");
		else
			ok = batch_run(&b) && batch_check(&b, &want);
	}
	batch_free(&b);
	region_free(&special);
	unpoison(pfn);
	return result(ok);
}
