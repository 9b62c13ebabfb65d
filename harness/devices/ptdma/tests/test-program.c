// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the program: its command line, its socket and its signals.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "ptdma-regs.h"
#include "tap.h"

#define MAX_ARGS	8

struct program {
	char dir[32];
	char path[64];
	pid_t pid;
	int output;			/* its stdout and stderr */
	char text[8192];		/* what it has said, after finish() */
};

static bool prepare(struct tap *t, struct program *p)
{
	memset(p, 0, sizeof(*p));
	if (!t->device) {
		t->skip = "no program given";
		return false;
	}
	strcpy(p->dir, "/tmp/ptdma-test-XXXXXX");
	if (!CHECK(t, mkdtemp(p->dir)))
		return false;
	snprintf(p->path, sizeof(p->path), "%s/sock", p->dir);
	return true;
}

static void cleanup(struct program *p)
{
	unlink(p->path);
	rmdir(p->dir);
}

static bool start(struct tap *t, struct program *p, const char *const *args)
{
	char *argv[MAX_ARGS + 2] = { (char *)t->device };
	int fds[2], i;

	for (i = 0; i < MAX_ARGS && args[i]; i++)
		argv[i + 1] = (char *)args[i];
	if (pipe2(fds, O_CLOEXEC))
		return false;
	fflush(stdout);
	p->pid = fork();
	if (!p->pid) {
		/* It has to cope with SIGPIPE by itself. */
		signal(SIGPIPE, SIG_DFL);
		alarm(30);
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		execv(t->device, argv);
		_exit(127);
	}
	close(fds[1]);
	p->output = fds[0];
	return p->pid > 0;
}

/* Its exit status, or minus the signal that ended it. */
static int finish(struct program *p)
{
	size_t got = 0;
	ssize_t n;
	int status;

	while (got < sizeof(p->text) - 1 &&
	       (n = read(p->output, p->text + got,
			 sizeof(p->text) - 1 - got)) > 0)
		got += n;
	p->text[got] = 0;
	close(p->output);
	waitpid(p->pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int dial(const struct program *p)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, p->path);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	close(fd);
	return -1;
}

static int dial_when_ready(const struct program *p)
{
	int fd = -1, i;

	for (i = 0; fd < 0 && i < LATE; i++) {
		fd = dial(p);
		if (fd < 0)
			sleep_ms(1);
	}
	return fd;
}

static bool wait_for_socket(const struct program *p)
{
	int i;

	for (i = 0; i < LATE && access(p->path, F_OK); i++)
		sleep_ms(1);
	/* It is there a little before it can be connected to. */
	sleep_ms(50);
	return !access(p->path, F_OK);
}

static void command_line(struct tap *t)
{
	static const char *const bad[][MAX_ARGS] = {
		{ NULL },
		{ "s1", "s2" },
		{ "--nonsense", "s" },
		{ "--delay-us" },
		{ "--delay-us", "", "s" },
		{ "--delay-us", "-1", "s" },
		{ "--delay-us", "+1", "s" },
		{ "--delay-us", " 1", "s" },
		{ "--delay-us", "1x", "s" },
		{ "--delay-us", "0x10", "s" },
		{ "--delay-us", "60000001", "s" },
		{ "--delay-us", "99999999999999999999999", "s" },
		{ "--fail-nth", "0", "s" },
		{ "--fail-nth", "two", "s" },
		{ "--fail-nth", "2", "--fail-code", "0", "s" },
		{ "--fail-nth", "2", "--fail-code", "64", "s" },
		{ "--fail-code", "20", "s" },
		{ "--max-length", "0", "s" },
		{ "--max-length", "4294967296", "s" },
		{ "--stall-after", "-1", "s" },
		{ "--stall-after", "4294967296", "s" },
		{ "--overrun-us", "0", "s" },
		{ "--overrun-us", "60000001", "s" },
		{ "--head-late-us", "0", "s" },
		{ "--idle-dma-status", "4294967296", "s" },
		{ "--always-ioc=1", "s" },
		{ "--bandwidth", "0", "s" },
		{ "--bandwidth", "1000001", "s" },
	};
	static const char *const help[] = { "--help", NULL };
	struct program p;
	size_t i;

	if (!prepare(t, &p))
		return;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK(t, start(t, &p, bad[i]));
		EQUAL(t, finish(&p), 2);
		CHECK(t, strstr(p.text, "--help"));
		CHECK(t, strstr(p.text, "ptdma-device: "));
		if (t->bad) {
			printf("# bad[%zu]: %s\n", i, p.text);
			break;
		}
	}
	CHECK(t, start(t, &p, help));
	EQUAL(t, finish(&p), 0);
	CHECK(t, strstr(p.text, "Usage: ptdma-device [options] SOCKET"));
	CHECK(t, strstr(p.text, "--stall-after"));
	cleanup(&p);
}

static void bad_sockets(struct tap *t)
{
	struct program p;
	const char *args[] = { p.path, NULL };
	char path[200] = "/tmp/";
	const char *too_long[] = { path, NULL };
	struct stat st;
	int fd;

	if (!prepare(t, &p))
		return;
	memset(path + 5, 'x', 108 - 5);
	CHECK(t, start(t, &p, too_long));
	EQUAL(t, finish(&p), 2);
	CHECK(t, strstr(p.text, "too long"));

	/* Somebody's file */
	fd = open(p.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	EQUAL(t, write(fd, "data", 4), 4);
	close(fd);
	CHECK(t, start(t, &p, args));
	EQUAL(t, finish(&p), 1);
	CHECK(t, !stat(p.path, &st) && st.st_size == 4);
	unlink(p.path);

	rmdir(p.dir);
	CHECK(t, start(t, &p, args));
	EQUAL(t, finish(&p), 1);
	CHECK(t, strstr(p.text, "No such file"));
}

static void live_and_stale(struct tap *t)
{
	struct program p, q;
	const char *args[] = { p.path, NULL };
	struct client c;

	if (!prepare(t, &p))
		return;
	q = p;
	CHECK(t, start(t, &p, args));
	CHECK(t, wait_for_socket(&p));

	/* A second server gives way, and the first does not notice. */
	CHECK(t, start(t, &q, args));
	EQUAL(t, finish(&q), 1);
	CHECK(t, strstr(q.text, "in use"));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	EQUAL(t, client_hello(&c, 0), 0);

	/* The same once it has its client; and it takes no other. */
	CHECK(t, start(t, &q, args));
	EQUAL(t, finish(&q), 1);
	EQUAL(t, dial(&p), -1);
	EQUAL(t, cfg_read(&c, 0, 2), PT_PCI_VENDOR);

	/* One that was killed leaves a socket, which is no obstacle. */
	kill(p.pid, SIGKILL);
	EQUAL(t, finish(&p), -SIGKILL);
	client_stop(&c);
	CHECK(t, !access(p.path, F_OK));
	CHECK(t, start(t, &p, args));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	EQUAL(t, client_hello(&c, 0), 0);
	client_stop(&c);
	EQUAL(t, finish(&p), 0);
	CHECK(t, access(p.path, F_OK));
	cleanup(&p);
}

static void session(struct tap *t)
{
	struct program p;
	const char *args[] = { "--fail-nth", "3", "--fail-code", "39", p.path,
			       NULL };
	struct client c;
	int i;

	if (!prepare(t, &p))
		return;
	CHECK(t, start(t, &p, args));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	CHECK(t, client_setup(&c, 4));
	for (i = 0; i < 3; i++) {
		fill(&c, DATA, 1000, i);
		queue(&c, HIGH, DATA, 1000);
		run(&c);
		EQUAL(t, wait_done(&c), i < 2 ? PT_INT_COMPLETION :
						PT_INT_ERROR);
		if (i < 2)
			EQUAL(t, filled(&c, HIGH, 1000, i), 1000);
	}
	EQUAL(t, reg_read(&c, PT_Q_STATUS), 39);
	client_stop(&c);
	EQUAL(t, finish(&p), 0);
	if (!CHECK(t, !strcmp(p.text, "descriptors=3 bytes=2000 interrupts=3 "
			      "faults=1 cut-off=0\n")))
		printf("# %s\n", p.text);
	CHECK(t, access(p.path, F_OK));
	cleanup(&p);
}

static void termination(struct tap *t)
{
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP };
	struct program p;
	const char *args[] = { "--stall-after", "0", p.path, NULL };
	struct client c;
	size_t i;

	if (!prepare(t, &p))
		return;
	for (i = 0; i < 3; i++) {
		/* While it waits for a client */
		CHECK(t, start(t, &p, args));
		CHECK(t, wait_for_socket(&p));
		kill(p.pid, sigs[i]);
		EQUAL(t, finish(&p), 0);
		CHECK(t, strstr(p.text, "descriptors=0 "));
		CHECK(t, access(p.path, F_OK));

		/* While it has one, and hangs */
		CHECK(t, start(t, &p, args));
		CHECK(t, client_attach(&c, dial_when_ready(&p)));
		CHECK(t, client_setup(&c, 4));
		queue(&c, HIGH, DATA, 64);
		run(&c);
		EQUAL(t, irqs(&c, SOON), 0);
		kill(p.pid, sigs[i]);
		EQUAL(t, finish(&p), 0);
		CHECK(t, strstr(p.text, "descriptors=0 "));
		CHECK(t, access(p.path, F_OK));
		client_stop(&c);
	}
	cleanup(&p);
}

static void resume(struct tap *t)
{
	struct program p;
	const char *args[] = { "--stall-after", "1", p.path, NULL };
	struct client c;

	if (!prepare(t, &p))
		return;
	CHECK(t, start(t, &p, args));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	CHECK(t, client_setup(&c, 4));
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	queue(&c, HIGH, DATA, 64);
	run(&c);
	EQUAL(t, irqs(&c, 5 * SOON), 0);
	kill(p.pid, SIGUSR1);
	EQUAL(t, wait_done(&c), PT_INT_COMPLETION);
	client_stop(&c);
	EQUAL(t, finish(&p), 0);
	CHECK(t, strstr(p.text, "descriptors=2 "));
	cleanup(&p);
}

/* A client that asks much, reads nothing and leaves. */
static void rude_client(struct tap *t)
{
	const struct vfu_region_access req = { 0, PT_BAR_REGS, 0x10000 };
	const struct message m = {
		.command = VFU_REGION_READ, .body = &req, .len = sizeof(req),
	};
	struct program p;
	const char *args[] = { p.path, NULL };
	struct client c;
	int i;

	if (!prepare(t, &p))
		return;
	CHECK(t, start(t, &p, args));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < 20; i++)
		CHECK(t, client_send(&c, &m));
	sleep_ms(SOON);			/* let it block in its reply */
	client_stop(&c);
	EQUAL(t, finish(&p), 0);
	CHECK(t, strstr(p.text, "descriptors=0 "));
	CHECK(t, access(p.path, F_OK));

	/* The same, and SIGTERM instead */
	CHECK(t, start(t, &p, args));
	CHECK(t, client_attach(&c, dial_when_ready(&p)));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < 20; i++)
		CHECK(t, client_send(&c, &m));
	sleep_ms(SOON);
	kill(p.pid, SIGTERM);
	EQUAL(t, finish(&p), 0);
	CHECK(t, access(p.path, F_OK));
	client_stop(&c);
	cleanup(&p);
}

const struct test program_tests[] = {
	{ "program: command line", command_line },
	{ "program: places where no socket can be", bad_sockets },
	{ "program: live and stale sockets", live_and_stale },
	{ "program: a session and its statistics", session },
	{ "program: signals end it", termination },
	{ "program: SIGUSR1 ends a hang", resume },
	{ "program: a client that does not read", rude_client },
	{ }
};
