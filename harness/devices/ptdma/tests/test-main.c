// SPDX-License-Identifier: GPL-2.0-only
/*
 * test-ptdma [PROGRAM]: test the model, and the ptdma-device at PROGRAM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

/* A hang is a failure, too. Generous, for machines that do other things. */
#define TIMEOUT_S	60

enum { PASSED, FAILED, SKIPPED };

/* In a process of its own, so that none can take the others down with it. */
static int run_isolated(struct tap *t, const struct test *test)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return FAILED;
	if (!pid) {
		alarm(TIMEOUT_S);
		test->run(t);
		if (t->skip)
			printf("# %s\n", t->skip);
		exit(t->bad ? FAILED : t->skip ? SKIPPED : PASSED);
	}

	waitpid(pid, &status, 0);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("# ended by signal %d\n", WTERMSIG(status));
	return FAILED;
}

static void run(struct tap *t, const struct test *test)
{
	unsigned int nr = t->passed + t->failed + t->skipped + 1;

	switch (run_isolated(t, test)) {
	case PASSED:
		t->passed++;
		printf("ok %u - %s\n", nr, test->name);
		break;
	case SKIPPED:
		t->skipped++;
		printf("ok %u - %s # SKIP\n", nr, test->name);
		break;
	default:
		t->failed++;
		printf("not ok %u - %s\n", nr, test->name);
	}
}

int main(int argc, char **argv)
{
	const struct test *const groups[] = {
		guest_mem_tests, protocol_tests, device_tests, program_tests,
	};
	struct tap t = { .device = argc > 1 ? argv[1] : NULL };
	const struct test *test;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);

	puts("TAP version 13");
	for (i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		for (test = groups[i]; test->run; test++)
			run(&t, test);
	}

	printf("1..%u\n", t.passed + t.failed + t.skipped);
	printf("%u passed, %u failed, %u skipped\n", t.passed, t.failed,
	       t.skipped);
	return t.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
