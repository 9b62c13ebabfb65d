// SPDX-License-Identifier: GPL-2.0-only
/*
 * Run in the machine: does code that an engine has moved run there?
 *
 * Each page holds a function that returns a number of its own. Pages move
 * between two nodes, where they come to lie where others were before, with
 * other numbers. An emulator that does not see what the engine writes goes on
 * running what it has translated of those.
 */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES	256
#define ROUNDS	8

/* mov $number, %eax; ret */
static void write_code(uint8_t *page, uint32_t number)
{
	page[0] = 0xb8;
	memcpy(page + 1, &number, sizeof(number));
	page[5] = 0xc3;
}

static uint32_t read_code(const uint8_t *page)
{
	uint32_t number;

	memcpy(&number, page + 1, sizeof(number));
	return number;
}

static uint32_t run_code(uint8_t *page)
{
	uint32_t (*code)(void);

	memcpy(&code, &page, sizeof(code));
	return code();
}

int main(void)
{
	const size_t page_size = sysconf(_SC_PAGESIZE);
	size_t moved = 0, wrong = 0, stale = 0;
	uint8_t *page[PAGES], *mem;
	int node[PAGES], status[PAGES];
	uint32_t round, i, number = 1;

	mem = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE | PROT_EXEC,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		perror("mmap");
		return EXIT_FAILURE;
	}

	for (round = 0; round < ROUNDS; round++, number += PAGES) {
		for (i = 0; i < PAGES; i++) {
			page[i] = mem + i * page_size;
			node[i] = round % 2;
			write_code(page[i], number + i);
			if (run_code(page[i]) != number + i)
				stale++;
		}
		if (syscall(SYS_move_pages, 0, PAGES, page, node, status,
			    MPOL_MF_MOVE)) {
			perror("move_pages");
			return EXIT_FAILURE;
		}
		for (i = 0; i < PAGES; i++) {
			moved += status[i] == node[i];
			wrong += read_code(page[i]) != number + i;
			stale += run_code(page[i]) != number + i;
		}
	}
	printf("# %zu pages moved, %zu wrong, in %zu other code ran\n", moved,
	       wrong, stale);
	return moved == PAGES * ROUNDS && !wrong && !stale ? EXIT_SUCCESS :
							     EXIT_FAILURE;
}
