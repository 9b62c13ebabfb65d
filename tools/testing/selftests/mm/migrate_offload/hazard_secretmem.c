// SPDX-License-Identifier: GPL-2.0
/* Secret memory: it stays where it is, and no copy of it is left anywhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/mempolicy.h>

#include "kselftest.h"
#include "vm_util.h"
#include "hazards.h"
#include "window.h"

#define SECRET_WORDS	512

/* Not to be found anywhere but where it was put; not constant in our text */
static uint64_t secret_word(unsigned int i)
{
	return (seed ^ 0x5ec4e7) * (2 * i + 0x9e3779b97f4a7c15ULL);
}

static bool secret_in_page(const uint64_t *page)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		if (page[i] != secret_word(i))
			return false;
	return true;
}

struct kcore_segment {
	uint64_t phys, len, off;
};

/* Where /proc/kcore has ordinary memory */
static int kcore_segments(int fd, struct kcore_segment *s, int max)
{
	struct {
		unsigned char ident[16];
		uint16_t type, machine;
		uint32_t version;
		uint64_t entry, phoff, shoff;
		uint32_t flags;
		uint16_t ehsize, phentsize, phnum;
	} head;
	struct {
		uint32_t type, flags;
		uint64_t off, vaddr, paddr, filesz, memsz, align;
	} ph;
	int i, nr = 0;

	if (pread(fd, &head, 60, 0) != 60 || head.ident[4] != 2)
		return 0;
	for (i = 0; i < head.phnum && nr < max; i++) {
		if (pread(fd, &ph, sizeof(ph), head.phoff +
			  i * sizeof(ph)) != sizeof(ph))
			break;
		if (ph.type != 1 || ph.paddr == ~0ULL)
			continue;
		s[nr++] = (struct kcore_segment) {
			.phys = ph.paddr, .len = ph.memsz, .off = ph.off,
		};
	}
	return nr;
}

/* Look at all memory that has a direct map. False: the secret is out. */
static bool secret_is_secret(void)
{
	int fd = open("/proc/kcore", O_RDONLY);
	struct kcore_segment s[64];
	static uint64_t buf[32 * SECRET_WORDS];
	unsigned long pages = 0, found = 0;
	int i, j, nr;
	uint64_t off;

	nr = fd < 0 ? 0 : kcore_segments(fd, s, ARRAY_SIZE(s));
	for (i = 0; i < nr; i++) {
		for (off = 0; off < s[i].len; off += sizeof(buf)) {
			ssize_t n = pread(fd, buf, min(sizeof(buf),
						       s[i].len - off),
					  s[i].off + off);

			for (j = 0; j < n / BLOCK; j++, pages++)
				found += secret_in_page(buf + j * SECRET_WORDS);
		}
	}
	if (fd >= 0)
		close(fd);
	ksft_print_msg("the secret was looked for in %lu pages\n", pages);
	if (found)
		ksft_print_msg("THE SECRET IS OUT: %lu copies\n", found);
	return !found;
}

HAZARD(secretmem, "secret memory stays where it is")
{
	const unsigned int nr = NR_SPECIAL;
	struct outcome want = { .offloaded = NR_ORDINARY, .unmoved = nr };
	unsigned long policy[MAX_NODES / (8 * sizeof(long))] = { };
	struct batch b;
	uint64_t *mem;
	unsigned int i;
	bool ok;
	int fd;

	fd = syscall(__NR_memfd_secret, 0);
	if (fd < 0)
		return skip("no memfd_secret: %s", strerror(errno));
	if (ftruncate(fd, nr * psize()))
		return skip("memfd_secret: %s", strerror(errno));
	mem = mmap(NULL, nr * psize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	if (mem == MAP_FAILED)
		return skip("memfd_secret: %s", strerror(errno));
	/* It cannot be moved to where it shall be */
	policy[node_a / (8 * sizeof(long))] =
		1UL << node_a % (8 * sizeof(long));
	if (syscall(__NR_set_mempolicy, MPOL_BIND, policy, MAX_NODES))
		return skip("set_mempolicy: %s", strerror(errno));
	for (i = 0; i < nr * SECRET_WORDS; i++)
		mem[i] = secret_word(i % SECRET_WORDS);
	syscall(__NR_set_mempolicy, MPOL_DEFAULT, NULL, 0);

	if (!batch_init(&b, nr))
		return KSFT_FAIL;
	for (i = 0; i < nr; i++)
		b.addrs[i] = mem + i * SECRET_WORDS;
	/* An engine that tries to read it may well not survive that */
	dcbm_write("timeout_ms", "1000");
	ok = batch_home(&b) && batch_run(&b) && batch_check(&b, &want);
	dcbm_write("timeout_ms", HOLD_MS);
	for (i = 0; i < nr * SECRET_WORDS; i++)
		ok &= mem[i] == secret_word(i % SECRET_WORDS);
	ok = secret_is_secret() && ok;
	batch_free(&b);
	munmap(mem, nr * psize());
	close(fd);
	return result(ok);
}
