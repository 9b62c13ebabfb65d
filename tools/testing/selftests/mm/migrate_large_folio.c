// SPDX-License-Identifier: GPL-2.0
/*
 * Migrate large folios that PTEs map, in all the ways that they can be mapped.
 * A folio has to stay whole, and each page keeps its content and what its PTE
 * says of it: who may write, soft-dirty, uffd-wp, referenced.
 *
 * Needs root, two nodes with memory, and /proc/kpageflags.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "hugepage_settings.h"
#include "vm_util.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* Of /proc/kpageflags, see fs/proc/page.c */
#define KPF_MLOCKED BIT_ULL(33)

#define NR_MOVES 10

/* ---- memory ---------------------------------------------------------------- */

static int nodes[2] = { -1, -1 };

/* Return whether there are two nodes; @nodes are the first two */
static bool find_nodes(void)
{
	char path[64];
	int node, nr = 0;

	for (node = 0; node < 64 && nr < 2; node++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/meminfo", node);
		if (!access(path, F_OK))
			nodes[nr++] = node;
	}
	return nr == 2;
}

static uint64_t word(size_t offset, unsigned int seed)
{
	return ((uint64_t)seed << 48) ^ (offset * 0x9e3779b97f4a7c15ULL);
}

/* Fill @len bytes that are @offset into what is filled with @seed */
static void fill(char *addr, size_t offset, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t))
		*(uint64_t *)(addr + i) = word(offset + i, seed);
}

static bool has(const char *addr, size_t offset, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t))
		if (*(const uint64_t *)(addr + i) != word(offset + i, seed))
			return false;
	return true;
}

/* Move what is mapped at @addr to @node */
static int move(void *addr, int node)
{
	int status = -ENOENT;
	long ret;

	ret = syscall(__NR_move_pages, 0, 1UL, &addr, &node, &status,
		      MPOL_MF_MOVE_ALL);
	if (ret < 0)
		return -errno;
	return status < 0 ? status : status == node ? 0 : -EAGAIN;
}

/* ---- another process that maps the folio ------------------------------------ */

/* Both of the processes go on when both are here */
static void meet(int fd)
{
	char c = 0;

	if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
		_exit(1);
}

/* fork(); @fd is for meet() */
static pid_t fork_child(int *fd)
{
	int fds[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return -1;
	pid = fork();
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	*fd = fds[!pid];
	close(fds[!!pid]);
	return pid;
}

static bool child_passes(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       !WEXITSTATUS(status);
}

/* Fork a child that ends at once: no page of the process is exclusive then */
static bool share_all(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return child_passes(pid);
}

/* Return whether an access to @addr is answered by a signal */
static bool faults(const char *addr)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		FORCE_READ(*addr);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status);
}

static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* ---- the fixture ------------------------------------------------------------- */

FIXTURE(large_folio)
{
	size_t size, pmd_size;
	unsigned int nr;	/* of pages */
	char *area;		/* four times as much as a page table maps */
	size_t area_len;
	char *mem;		/* the folio, aligned, in a VMA of its own */
	int pagemap, kpageflags;
};

FIXTURE_VARIANT(large_folio)
{
	size_t size;
};

FIXTURE_VARIANT_ADD(large_folio, 16k) { .size = 16 << 10 };
FIXTURE_VARIANT_ADD(large_folio, 64k) { .size = 64 << 10 };
FIXTURE_VARIANT_ADD(large_folio, 256k) { .size = 256 << 10 };
FIXTURE_VARIANT_ADD(large_folio, 1m) { .size = 1 << 20 };

/* Are the pages from @addr on those of one folio of @self->size */
static bool is_whole(FIXTURE_DATA(large_folio) * self, char *addr)
{
	unsigned long first = pagemap_get_pfn(self->pagemap, addr);
	uint64_t flags;
	unsigned int i;

	for (i = 0; i < self->nr; i++) {
		if (pagemap_get_pfn(self->pagemap, addr + i * psize()) !=
		    first + i ||
		    pageflags_get(first + i, self->kpageflags, &flags) ||
		    !(flags & (i ? KPF_COMPOUND_TAIL : KPF_COMPOUND_HEAD)))
			return false;
	}
	return pageflags_get(first + i, self->kpageflags, &flags) ||
	       !(flags & KPF_COMPOUND_TAIL);
}

static bool is_small(FIXTURE_DATA(large_folio) * self, char *addr)
{
	uint64_t flags;

	return !pageflags_get(pagemap_get_pfn(self->pagemap, addr),
			      self->kpageflags, &flags) &&
	       !(flags & (KPF_COMPOUND_HEAD | KPF_COMPOUND_TAIL));
}

static bool is_mlocked(FIXTURE_DATA(large_folio) * self)
{
	uint64_t flags;

	return !pageflags_get(pagemap_get_pfn(self->pagemap, self->mem),
			      self->kpageflags, &flags) &&
	       (flags & KPF_MLOCKED);
}

/* Fill each third page, those with i % 3 == 1 */
static void fill_thirds(FIXTURE_DATA(large_folio) * self, unsigned int seed)
{
	unsigned int i;

	for (i = 1; i < self->nr; i += 3)
		fill(self->mem + i * psize(), i * psize(), psize(), seed);
}

/* Have @self->mem be a new folio on the first node, filled with 1 */
static bool renew(FIXTURE_DATA(large_folio) * self)
{
	unsigned long mask = 1UL << nodes[0];
	int tries = 3;

	if (syscall(__NR_set_mempolicy, MPOL_BIND, &mask, 64UL))
		return false;
	do {
		if (mmap(self->area, self->area_len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
			 -1, 0) != self->area ||
		    mprotect(self->mem, self->size, PROT_READ | PROT_WRITE) ||
		    madvise(self->mem, self->size, MADV_HUGEPAGE))
			return false;
		fill(self->mem, 0, self->size, 1);
	} while (!is_whole(self, self->mem) && --tries);
	syscall(__NR_set_mempolicy, MPOL_DEFAULT, NULL, 0UL);
	return tries;
}

FIXTURE_SETUP(large_folio)
{
	struct thp_settings settings;
	int order;

	if (geteuid() || !find_nodes() || !thp_available())
		SKIP(return, "needs root, two nodes and THP");
	self->size = variant->size;
	self->nr = self->size / psize();
	self->pmd_size = read_pmd_pagesize();
	order = __builtin_ctzl(self->nr);
	if (self->nr < 4 || self->size >= self->pmd_size ||
	    !(thp_supported_orders() & (1UL << order)))
		SKIP(return, "no folios of that size that PTEs map");
	thp_read_settings(&settings);
	settings.hugepages[order].enabled = THP_ALWAYS;
	if (thp_shmem_supported_orders() & (1UL << order))
		settings.shmem_hugepages[order].enabled = SHMEM_ALWAYS;
	thp_push_settings(&settings);

	self->pagemap = open("/proc/self/pagemap", O_RDONLY);
	self->kpageflags = open("/proc/kpageflags", O_RDONLY);
	ASSERT_GE(self->pagemap, 0);
	ASSERT_GE(self->kpageflags, 0);
	self->area_len = 4 * self->pmd_size;
	self->area = mmap(NULL, self->area_len, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(self->area, MAP_FAILED);
	self->mem = (char *)(((uintptr_t)self->area + self->pmd_size - 1) &
			     ~(self->pmd_size - 1));
	ASSERT_TRUE(renew(self));
}

FIXTURE_TEARDOWN(large_folio)
{
	if (self->area)
		thp_restore_settings();
}

/* Move the folio at @addr ten times: it stays whole, and is filled with 1 */
static bool goes_to_and_fro(FIXTURE_DATA(large_folio) * self, char *addr)
{
	int i;

	for (i = 0; i < NR_MOVES; i++)
		if (move(addr, nodes[!(i % 2)]) || !is_whole(self, addr)) {
			ksft_print_msg("move %d: not moved, or not whole\n", i);
			return false;
		}
	return has(addr, 0, self->size, 1);
}

/* ---- whole, or split ---------------------------------------------------------- */

TEST_F(large_folio, to_and_fro)
{
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
}

/* A folio that does not migrate, since somebody has a reference, stays whole */
TEST_F(large_folio, failed)
{
	struct iovec iov = { .iov_base = self->mem + psize(), .iov_len = 1 };
	int pipes[2];

	ASSERT_EQ(pipe(pipes), 0);
	ASSERT_EQ(vmsplice(pipes[1], &iov, 1, 0), 1);
	ASSERT_NE(move(self->mem, nodes[1]), 0);
	ASSERT_TRUE(is_whole(self, self->mem));
	close(pipes[0]);
	close(pipes[1]);
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
}

/* A move splits a folio that is partially unmapped */
TEST_F(large_folio, half_unmapped_before)
{
	ASSERT_EQ(madvise(self->mem, self->size / 2, MADV_DONTNEED), 0);
	ASSERT_EQ(move(self->mem + self->size / 2, nodes[1]), 0);
	ASSERT_TRUE(is_small(self, self->mem + self->size / 2));
	ASSERT_TRUE(has(self->mem + self->size / 2, self->size / 2,
			self->size / 2, 1));
}

static void *move_thread(void *addr)
{
	move(addr, nodes[1]);
	return NULL;
}

/* If half of a folio is unmapped during a move, a later move splits it */
TEST_F_TIMEOUT(large_folio, half_unmapped_meanwhile, 120)
{
	char *rest = self->mem + self->size / 2;
	pthread_t thread;
	int i;

	for (i = 0; i < 100; i++) {
		ASSERT_TRUE(renew(self));
		ASSERT_EQ(pthread_create(&thread, NULL, move_thread, rest), 0);
		usleep(i * 10);
		ASSERT_EQ(madvise(self->mem, self->size / 2, MADV_DONTNEED), 0);
		pthread_join(thread, NULL);
		ASSERT_EQ(move(rest, nodes[0]), 0);
		if (!is_small(self, rest))
			ASSERT_EQ(move(rest, nodes[1]), 0);
		ASSERT_TRUE(is_small(self, rest));
		ASSERT_TRUE(has(rest, self->size / 2, self->size / 2, 1));
	}
}

/* ---- several processes and VMAs ------------------------------------------------ */

/* After a move, a page that is shared is copied when one of them writes */
TEST_F(large_folio, forked)
{
	pid_t pid;
	int fd;

	pid = fork_child(&fd);
	if (!pid) {
		meet(fd);
		/* The other has written to its own copy */
		meet(fd);
		_exit(!has(self->mem, 0, self->size, 1));
	}
	meet(fd);
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	fill(self->mem, 0, self->size, 2);
	meet(fd);
	ASSERT_TRUE(child_passes(pid));
	ASSERT_TRUE(has(self->mem, 0, self->size, 2));
}

/* A move does not change which pages can be written without a fault */
TEST_F(large_folio, exclusive)
{
	long before;
	int i;

	ASSERT_TRUE(share_all());
	fill_thirds(self, 1);
	if (!is_whole(self, self->mem))
		SKIP(return, "pages were copied");
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));

	/* No fault where it could write before */
	before = minor_faults();
	fill_thirds(self, 2);
	ASSERT_EQ(minor_faults(), before);

	/* Only the pages that were just written have new content */
	for (i = 0; i < self->nr; i++)
		ASSERT_TRUE(has(self->mem + i * psize(), i * psize(), psize(),
				i % 3 == 1 ? 2 : 1));
	/* A write to a page that is not exclusive still faults */
	before = minor_faults();
	fill(self->mem, 0, psize(), 3);
	ASSERT_GT(minor_faults(), before);
}

/*
 * Between pages of the folio, the child has a hole, a guard, and pages of its
 * own. One of these may be swapped out, and one is moved in the same call.
 */
TEST_F(large_folio, amid)
{
	char *mem = self->mem, *own = mem + psize(), *hole = mem + 2 * psize();
	void *addrs[2];
	int to[2] = { nodes[1], nodes[1] }, status[2] = { -1, -1 };
	bool guard = false;
	pid_t pid;
	int fd;

	pid = fork_child(&fd);
	if (!pid) {
		char *last = mem + self->size - psize();

		fill(own, 0, psize(), 5);
		madvise(hole, psize(), MADV_DONTNEED);
		if (self->nr > 4) {
			guard = !madvise(mem + 4 * psize(), psize(),
					 MADV_GUARD_INSTALL);
			fill(mem + 5 * psize(), 0, psize(), 6);
			madvise(mem + 5 * psize(), psize(), MADV_PAGEOUT);
		}
		meet(fd);
		meet(fd);
		_exit(!has(mem, 0, psize(), 1) || !has(own, 0, psize(), 5) ||
		      *(uint64_t *)hole || *(uint64_t *)(hole + psize() - 8) ||
		      (self->nr > 4 &&
		       ((guard && !faults(mem + 4 * psize())) ||
			!has(mem + 5 * psize(), 0, psize(), 6))) ||
		      !has(last, self->size - psize(), psize(), 1));
	}
	meet(fd);
	/* The page amid has a migration entry when the folio is unmapped */
	addrs[0] = own;
	addrs[1] = mem;
	ASSERT_EQ(syscall(__NR_move_pages, pid, 2UL, addrs, to, status,
			  MPOL_MF_MOVE_ALL), 0);
	ASSERT_EQ(status[0], nodes[1]);
	ASSERT_EQ(status[1], nodes[1]);
	ASSERT_TRUE(goes_to_and_fro(self, mem));
	meet(fd);
	ASSERT_TRUE(child_passes(pid));
	ASSERT_TRUE(has(mem, 0, self->size, 1));
}

/* A VMA that ends inside the folio */
TEST_F(large_folio, vma_ends)
{
	char *second = self->mem + self->size / 4;
	size_t rest = self->size - self->size / 4;

	ASSERT_EQ(mprotect(second, rest, PROT_READ), 0);
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	/* From another of its VMAs */
	ASSERT_EQ(move(second, nodes[1]), 0);
	ASSERT_TRUE(is_whole(self, self->mem));
	fill(self->mem, 0, self->size / 4, 1);
	ASSERT_EQ(mprotect(second, rest, PROT_READ | PROT_WRITE), 0);
	fill(second, self->size / 4, rest, 1);
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
}

TEST_F(large_folio, prot_none)
{
	ASSERT_EQ(mprotect(self->mem, self->size / 2, PROT_NONE), 0);
	ASSERT_EQ(move(self->mem + self->size / 2, nodes[1]), 0);
	ASSERT_EQ(move(self->mem + self->size / 2, nodes[0]), 0);
	ASSERT_TRUE(faults(self->mem));
	ASSERT_EQ(mprotect(self->mem, self->size / 2, PROT_READ | PROT_WRITE), 0);
	ASSERT_TRUE(is_whole(self, self->mem));
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
}

/* The same with PTEs that are otherwise alike, since the pages are shared */
TEST_F(large_folio, prot_none_shared)
{
	char *second = self->mem + self->size / 2;
	pid_t pid;
	int fd;

	pid = fork_child(&fd);
	if (!pid) {
		meet(fd);
		_exit(!has(self->mem, 0, self->size, 1));
	}
	ASSERT_EQ(mprotect(second, self->size / 2, PROT_NONE), 0);
	ASSERT_EQ(move(self->mem, nodes[1]), 0);
	ASSERT_TRUE(is_whole(self, self->mem));
	ASSERT_TRUE(faults(second));
	meet(fd);
	ASSERT_TRUE(child_passes(pid));
}

/* mremap() has put it where it is not aligned, and two page tables map it */
TEST_F(large_folio, two_page_tables)
{
	char *to = self->mem + 2 * self->pmd_size - self->size / 2 - psize();

	ASSERT_EQ(mremap(self->mem, self->size, self->size,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to), (void *)to);
	ASSERT_TRUE(goes_to_and_fro(self, to));
	fill(to, 0, self->size, 2);
	ASSERT_TRUE(has(to, 0, self->size, 2));
}

/* Two processes map a large folio of shmem at different places, one in parts */
TEST_F(large_folio, shmem)
{
	char *mem = self->mem, *other = mem + self->pmd_size + psize();
	const int prot = PROT_READ | PROT_WRITE;
	int shmem, fd;
	pid_t pid;

	shmem = memfd_create("large", 0);
	ASSERT_GE(shmem, 0);
	ASSERT_EQ(ftruncate(shmem, self->pmd_size), 0);
	ASSERT_EQ(mmap(mem, self->size, prot, MAP_SHARED | MAP_FIXED, shmem, 0),
		  (void *)mem);
	ASSERT_EQ(mmap(other, self->size, prot, MAP_SHARED | MAP_FIXED, shmem,
		       0), (void *)other);
	fill(mem, 0, self->size, 1);
	if (!is_whole(self, mem))
		SKIP(return, "no large folios of shmem");
	ASSERT_TRUE(has(other, 0, self->size, 1));
	pid = fork_child(&fd);
	if (!pid) {
		bool right;

		munmap(mem, self->size);
		munmap(other + psize(), psize());
		right = has(other, 0, psize(), 1);
		fill(other + 2 * psize(), 2 * psize(), psize(), 1);
		meet(fd);
		meet(fd);
		right = right && has(other, 0, psize(), 1) &&
			has(other + 2 * psize(), 2 * psize(),
			    self->size - 2 * psize(), 1);
		fill(other + 2 * psize(), 2 * psize(), psize(), 7);
		_exit(!right);
	}
	meet(fd);
	ASSERT_TRUE(goes_to_and_fro(self, mem));
	ASSERT_TRUE(has(other, 0, self->size, 1));
	meet(fd);
	ASSERT_TRUE(child_passes(pid));
	/* What the child has written is seen at both places: it is one folio */
	ASSERT_TRUE(has(mem + 2 * psize(), 2 * psize(), psize(), 7));
	ASSERT_TRUE(has(other + 2 * psize(), 2 * psize(), psize(), 7));
}

/* ---- bits of single PTEs ---------------------------------------------------------- */

/* It is mlocked wherever it moves to, and not any more when it is unlocked */
TEST_F(large_folio, mlocked)
{
	int i;

	ASSERT_FALSE(is_mlocked(self));
	ASSERT_EQ(mlock(self->mem, self->size), 0);
	for (i = 0; i < NR_MOVES; i++) {
		ASSERT_EQ(move(self->mem, nodes[!(i % 2)]), 0);
		ASSERT_TRUE(is_mlocked(self));
	}
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	ASSERT_EQ(munlock(self->mem, self->size), 0);
	ASSERT_FALSE(is_mlocked(self));
}

/* The same if its PTEs come back in several runs, since they differ */
TEST_F(large_folio, mlocked_in_runs)
{
	if (!softdirty_supported())
		SKIP(return, "no soft-dirty bits");
	ASSERT_EQ(mlock(self->mem, self->size), 0);
	clear_softdirty();
	fill_thirds(self, 1);
	ASSERT_EQ(move(self->mem, nodes[1]), 0);
	ASSERT_TRUE(is_mlocked(self));
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	ASSERT_TRUE(is_mlocked(self));
}

static bool has_bit(FIXTURE_DATA(large_folio) * self, unsigned int page,
		    uint64_t bit)
{
	return pagemap_get_entry(self->pagemap, self->mem + page * psize()) & bit;
}

TEST_F(large_folio, uffd_wp)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	unsigned int i;
	int uffd;

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
	    uffd_register(uffd, self->mem, self->size, false, true, false))
		SKIP(return, "no write protection by userfaultfd");
	for (i = 1; i < self->nr; i += 3) {
		struct uffdio_writeprotect wp = {
			.range.start = (uintptr_t)self->mem + i * psize(),
			.range.len = psize(),
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};

		ASSERT_EQ(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), 0);
	}
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	for (i = 0; i < self->nr; i++)
		ASSERT_EQ(has_bit(self, i, PM_UFFD_WP), i % 3 == 1);
}

TEST_F(large_folio, soft_dirty)
{
	unsigned int i;

	if (!softdirty_supported())
		SKIP(return, "no soft-dirty bits");
	clear_softdirty();
	fill_thirds(self, 1);
	for (i = 0; i < self->nr; i++)
		ASSERT_EQ(has_bit(self, i, PM_SOFT_DIRTY), i % 3 == 1);
	ASSERT_TRUE(goes_to_and_fro(self, self->mem));
	/* That only reads */
	for (i = 0; i < self->nr; i++)
		ASSERT_EQ(has_bit(self, i, PM_SOFT_DIRTY), i % 3 == 1);
}

/* How much of the VMA is referenced, in bytes */
static unsigned long referenced(char *addr)
{
	unsigned long start, end, kib = 0;
	bool found = false;
	char line[512];
	FILE *smaps = fopen("/proc/self/smaps", "r");

	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			found = start == (uintptr_t)addr;
		else if (found && sscanf(line, "Referenced: %lu", &kib) == 1)
			break;
	}
	if (smaps)
		fclose(smaps);
	return kib << 10;
}

/* What one page's PTE says of accesses is not said of others */
/* arm64 with 52-bit addresses loses the young bit of each page that migrates */
static bool small_stays_young(void)
{
	char *mem, *page;
	bool stays;

	mem = mmap(NULL, 3 * psize(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	if (mem == MAP_FAILED)
		return false;
	/* A VMA of its own, for referenced() to find */
	page = mem + psize();
	stays = !mprotect(page, psize(), PROT_READ | PROT_WRITE);
	if (stays) {
		*page = 1;
		stays = !move(page, nodes[0]) && !move(page, nodes[1]) &&
			referenced(page) == psize();
	}
	munmap(mem, 3 * psize());
	return stays;
}

TEST_F(large_folio, young)
{
	unsigned long before;
	int i, fd;

	if (!small_stays_young())
		SKIP(return, "small folios do not stay young either");
	fd = open("/proc/self/clear_refs", O_WRONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(write(fd, "1", 1), 1);
	/* That has not flushed the TLB, these do */
	ASSERT_EQ(mprotect(self->mem, self->size, PROT_READ), 0);
	ASSERT_EQ(mprotect(self->mem, self->size, PROT_READ | PROT_WRITE), 0);
	FORCE_READ(self->mem[psize()]);
	before = referenced(self->mem);
	if (before >= self->size || !before)
		SKIP(return, "it is not known for single pages");
	for (i = 0; i < NR_MOVES; i++) {
		ASSERT_EQ(move(self->mem, nodes[!(i % 2)]), 0);
		ASSERT_EQ(referenced(self->mem), before);
	}
	ASSERT_TRUE(has(self->mem, 0, self->size, 1));
}

/*
 * A ring pins a page in the middle of the folio, so the page cannot be shared.
 * Pages that were unmapped before it are mapped again, and it stays writable.
 */
TEST_F(large_folio, pinned)
{
	struct io_uring_params params = { };
	struct iovec iov = { .iov_base = self->mem + 2 * psize(),
			     .iov_len = psize() };
	long before;
	int ring;

	ASSERT_TRUE(share_all());
	/* This one is exclusive then, those before it are not */
	fill(self->mem + 2 * psize(), 2 * psize(), psize(), 1);
	ring = syscall(__NR_io_uring_setup, 1, &params);
	if (ring < 0)
		SKIP(return, "no io_uring");
	ASSERT_EQ(syscall(__NR_io_uring_register, ring,
			  IORING_REGISTER_BUFFERS, &iov, 1), 0);
	ASSERT_NE(move(self->mem, nodes[1]), 0);
	ASSERT_TRUE(is_whole(self, self->mem));
	ASSERT_TRUE(has(self->mem, 0, self->size, 1));
	/* It can still be written to, as what is pinned has to be */
	before = minor_faults();
	fill(self->mem + 2 * psize(), 2 * psize(), psize(), 1);
	ASSERT_EQ(minor_faults(), before);
	close(ring);
}

/* ---- 2 MiB ------------------------------------------------------------------------ */

/* One process maps it by a PMD, the other by PTEs */
TEST(pmd_and_ptes)
{
	size_t size = read_pmd_pagesize(), i;
	struct thp_settings settings;
	char *area, *mem;
	pid_t pid;
	int fd;

	if (geteuid() || !find_nodes() || !thp_available() || !size)
		SKIP(return, "needs root, two nodes and THP");
	thp_read_settings(&settings);
	settings.thp_enabled = THP_ALWAYS;
	settings.hugepages[__builtin_ctzl(size / psize())].enabled = THP_INHERIT;
	thp_push_settings(&settings);
	area = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(area, MAP_FAILED);
	mem = (char *)(((uintptr_t)area + size - 1) & ~(size - 1));
	ASSERT_EQ(madvise(mem, size, MADV_HUGEPAGE), 0);
	fill(mem, 0, size, 1);
	if (!check_huge_anon(mem, size, 1, size))
		SKIP(return, "no folio of 2 MiB");
	pid = fork_child(&fd);
	if (!pid) {
		mprotect(mem, psize(), PROT_READ);
		meet(fd);
		meet(fd);
		_exit(!has(mem, 0, size, 1));
	}
	meet(fd);
	for (i = 0; i < NR_MOVES; i++) {
		ASSERT_EQ(move(mem, nodes[!(i % 2)]), 0);
		ASSERT_TRUE(check_huge_anon(mem, size, 1, size));
	}
	ASSERT_TRUE(has(mem, 0, size, 1));
	fill(mem, 0, size, 2);
	meet(fd);
	ASSERT_TRUE(child_passes(pid));
	thp_restore_settings();
}

int main(int argc, char **argv)
{
	thp_save_settings();
	return test_harness_run(argc, argv);
}
