/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tests that report in the Test Anything Protocol.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdio.h>

struct tap {
	const char *device;		/* the program to test, or NULL */
	unsigned int passed;
	unsigned int failed;
	unsigned int skipped;
	bool bad;			/* the test at hand has failed, */
	const char *skip;		/* or is skipped for this reason */
};

struct test {
	const char *name;
	void (*run)(struct tap *t);
};

/* Each ends with an empty one. */
extern const struct test guest_mem_tests[];
extern const struct test protocol_tests[];
extern const struct test device_tests[];
extern const struct test program_tests[];

static inline bool tap_check(struct tap *t, bool good, const char *what,
			     const char *file, int line)
{
	if (!good) {
		printf("# %s:%d: not so: %s\n", file, line, what);
		t->bad = true;
	}
	return good;
}

static inline bool tap_equal(struct tap *t, unsigned long long got,
			     unsigned long long want, const char *what,
			     const char *file, int line)
{
	if (got == want)
		return true;
	printf("# %s:%d: %s is %#llx, should be %#llx\n", file, line, what,
	       got, want);
	t->bad = true;
	return false;
}

#define CHECK(t, cond)	tap_check(t, cond, #cond, __FILE__, __LINE__)
#define EQUAL(t, got, want) \
	tap_equal(t, got, want, #got, __FILE__, __LINE__)

#endif /* TAP_H */
