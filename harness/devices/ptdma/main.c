// SPDX-License-Identifier: GPL-2.0-only
/*
 * ptdma-device: one AMD PTDMA function for a virtual machine.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest-mem.h"
#include "listener.h"
#include "ptdma.h"
#include "ptdma-regs.h"
#include "vfio-user.h"

#define EXIT_USAGE	2

#define MAX_DELAY_US	60000000
#define MAX_BANDWIDTH	1000000

struct server {
	struct listener listener;
	struct guest_mem *mem;
	struct ptdma *pt;

	pthread_t signals;
	sigset_t handled;

	pthread_mutex_t lock;		/* guards the two below */
	int client;			/* -1 for none */
	bool stopping;
};

static const char usage[] =
	"Usage: ptdma-device [options] SOCKET\n"
	"\n"
	"Be one AMD PTDMA engine for the first QEMU (10.1 or later) that\n"
	"connects to SOCKET, with the options\n"
	"  -object memory-backend-memfd,id=m0,size=SIZE,share=on\n"
	"  -machine q35,memory-backend=m0\n"
	"  -device '{\"driver\":\"vfio-user-pci\",\n"
	"            \"socket\":{\"type\":\"unix\",\"path\":\"SOCKET\"}}'\n"
	"\n"
	"      --delay-us N     wait N microseconds before each descriptor\n"
	"      --bandwidth N    copy N MB/s (default: as fast as it goes)\n"
	"      --fail-nth N     make every Nth descriptor fail, uncopied\n"
	"      --fail-from N    but none of the first N (default: 0)\n"
	"      --fail-code N    error code of those, 1 to 63 (default: 19)\n"
	"      --max-length N   make descriptors of more than N bytes fail,\n"
	"                       uncopied\n"
	"      --stall-after N  hang after N descriptors, with the next one\n"
	"                       fetched but not copied; SIGUSR1 ends the hang\n"
	"\n"
	"What a driver may expect and does not get:\n"
	"      --error-keeps-run\n"
	"                       go on after an error until RUN is cleared\n"
	"      --overrun-us N   go on for N microseconds after RUN is cleared\n"
	"      --early-halt     show HALT when RUN is cleared, even if busy\n"
	"      --idle-dma-status N\n"
	"                       DMA_STATUS if no data moves, else ^ 1\n"
	"      --always-ioc     raise INT_COMPLETION after each descriptor\n"
	"      --head-late-us N show a new head only after N microseconds\n"
	"      --keep-head      do not let the head be moved after an error\n"
	"\n"
	"  -v, --verbose        log errors to stderr; twice: everything\n"
	"  -h, --help           show this\n"
	"\n"
	"Ends when QEMU disconnects, or on SIGTERM, SIGINT or SIGHUP, with\n"
	"one line of statistics on stdout.\n";

/* Options */

static bool parse_number(const char *name, const char *text, uint64_t min,
			 uint64_t max, uint64_t *value)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno || n < min ||
	    n > max) {
		fprintf(stderr, "ptdma-device: --%s: \"%s\" is not a number "
			"from %" PRIu64 " to %" PRIu64 "\n", name, text, min,
			max);
		return false;
	}
	*value = n;
	return true;
}

/* Returns the exit status to end with, or -1 to go on. */
static int parse_options(int argc, char **argv, struct ptdma_options *opt,
			 const char **path)
{
	enum { DELAY_US = 256, BANDWIDTH, FAIL_NTH, FAIL_FROM, FAIL_CODE,
	       MAX_LENGTH, STALL_AFTER, ERROR_KEEPS_RUN, OVERRUN_US, EARLY_HALT,
	       IDLE_DMA_STATUS, ALWAYS_IOC, HEAD_LATE_US, KEEP_HEAD };
	static const struct option options[] = {
		{ "delay-us", required_argument, NULL, DELAY_US },
		{ "bandwidth", required_argument, NULL, BANDWIDTH },
		{ "fail-nth", required_argument, NULL, FAIL_NTH },
		{ "fail-from", required_argument, NULL, FAIL_FROM },
		{ "fail-code", required_argument, NULL, FAIL_CODE },
		{ "max-length", required_argument, NULL, MAX_LENGTH },
		{ "stall-after", required_argument, NULL, STALL_AFTER },
		{ "error-keeps-run", no_argument, NULL, ERROR_KEEPS_RUN },
		{ "overrun-us", required_argument, NULL, OVERRUN_US },
		{ "early-halt", no_argument, NULL, EARLY_HALT },
		{ "idle-dma-status", required_argument, NULL, IDLE_DMA_STATUS },
		{ "always-ioc", no_argument, NULL, ALWAYS_IOC },
		{ "head-late-us", required_argument, NULL, HEAD_LATE_US },
		{ "keep-head", no_argument, NULL, KEEP_HEAD },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	uint64_t code = PT_ERR_IDMA_SLAVE, dma_status = 0;
	bool code_given = false;
	int c, index = 0;

	memset(opt, 0, sizeof(*opt));
	opt->stall_after = PTDMA_NEVER;

	while ((c = getopt_long(argc, argv, "vh", options, &index)) != -1) {
		const char *name = options[index].name;
		bool ok = true;

		switch (c) {
		case DELAY_US:
			ok = parse_number(name, optarg, 0, MAX_DELAY_US,
					  &opt->delay_us);
			break;
		case BANDWIDTH:
			ok = parse_number(name, optarg, 1, MAX_BANDWIDTH,
					  &opt->bandwidth);
			break;
		case FAIL_NTH:
			ok = parse_number(name, optarg, 1, UINT32_MAX,
					  &opt->fail_nth);
			break;
		case FAIL_FROM:
			ok = parse_number(name, optarg, 0, UINT32_MAX,
					  &opt->fail_from);
			break;
		case FAIL_CODE:
			ok = parse_number(name, optarg, 1, PT_Q_ERROR_MASK,
					  &code);
			code_given = true;
			break;
		case MAX_LENGTH:
			ok = parse_number(name, optarg, 1, UINT32_MAX,
					  &opt->max_length);
			break;
		case STALL_AFTER:
			ok = parse_number(name, optarg, 0, UINT32_MAX,
					  &opt->stall_after);
			break;
		case ERROR_KEEPS_RUN:
			opt->error_keeps_run = true;
			break;
		case OVERRUN_US:
			ok = parse_number(name, optarg, 1, MAX_DELAY_US,
					  &opt->overrun_us);
			break;
		case EARLY_HALT:
			opt->early_halt = true;
			break;
		case IDLE_DMA_STATUS:
			ok = parse_number(name, optarg, 0, UINT32_MAX,
					  &dma_status);
			break;
		case ALWAYS_IOC:
			opt->always_ioc = true;
			break;
		case HEAD_LATE_US:
			ok = parse_number(name, optarg, 1, MAX_DELAY_US,
					  &opt->head_late_us);
			break;
		case KEEP_HEAD:
			opt->keep_head = true;
			break;
		case 'v':
			opt->verbose++;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			ok = false;
		}
		if (!ok)
			goto hint;
	}
	opt->fail_code = code;
	opt->idle_dma_status = dma_status;

	if (code_given && !opt->fail_nth) {
		fputs("ptdma-device: --fail-code needs --fail-nth\n", stderr);
		goto hint;
	}
	if (optind != argc - 1) {
		fprintf(stderr, "ptdma-device: %s\n", optind == argc ?
			"no socket given" : "more than one socket given");
		goto hint;
	}
	*path = argv[optind];
	return -1;

hint:
	fputs("Try 'ptdma-device --help'.\n", stderr);
	return EXIT_USAGE;
}

/* Signals: taken by a thread of their own, so there are no handlers. */

static void stop(struct server *srv)
{
	pthread_mutex_lock(&srv->lock);
	srv->stopping = true;
	listener_cancel(&srv->listener);
	if (srv->client >= 0)
		shutdown(srv->client, SHUT_RDWR);
	pthread_mutex_unlock(&srv->lock);
}

static void *take_signals(void *arg)
{
	struct server *srv = arg;
	int sig;

	for (;;) {
		if (sigwait(&srv->handled, &sig))
			continue;
		if (sig == SIGUSR1)
			ptdma_resume(srv->pt);
		else
			stop(srv);
	}
	return NULL;
}

/* Every thread inherits this, so it has to come before the first of them. */
static void block_signals(struct server *srv)
{
	sigemptyset(&srv->handled);
	sigaddset(&srv->handled, SIGTERM);
	sigaddset(&srv->handled, SIGINT);
	sigaddset(&srv->handled, SIGHUP);
	sigaddset(&srv->handled, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &srv->handled, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* The client, once. Returns 0 or a negative errno. */

static int serve(struct server *srv)
{
	struct vfu_device vdev;
	int client, err = 0;
	bool stopping;

	client = listener_accept(&srv->listener);
	if (client < 0)
		return client == -ECANCELED ? 0 : client;

	ptdma_vfu_device(srv->pt, &vdev);

	pthread_mutex_lock(&srv->lock);
	srv->client = client;
	stopping = srv->stopping;
	pthread_mutex_unlock(&srv->lock);

	if (!stopping)
		err = vfu_serve(&vdev, client);

	pthread_mutex_lock(&srv->lock);
	srv->client = -1;
	stopping = srv->stopping;
	pthread_mutex_unlock(&srv->lock);

	close(client);
	return stopping ? 0 : err;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "ptdma-device: %s: %s\n", what, strerror(-err));
	return EXIT_FAILURE;
}

static int run(struct server *srv)
{
	struct ptdma_stats stats;
	int err;

	err = -pthread_create(&srv->signals, NULL, take_signals, srv);
	if (err)
		return fail("signal thread", err);

	err = serve(srv);

	pthread_cancel(srv->signals);
	pthread_join(srv->signals, NULL);

	ptdma_get_stats(srv->pt, &stats);
	printf("descriptors=%" PRIu64 " bytes=%" PRIu64 " interrupts=%" PRIu64
	       " faults=%" PRIu64 " cut-off=%" PRIu64 "\n",
	       stats.descriptors, stats.bytes, stats.interrupts, stats.faults,
	       stats.cut_off);

	return err ? fail("vfio-user session", err) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct server srv = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.client = -1,
	};
	int err, status = EXIT_FAILURE;
	struct ptdma_options opt;
	const char *path;

	err = parse_options(argc, argv, &opt, &path);
	if (err >= 0)
		return err;

	block_signals(&srv);

	err = listener_open(&srv.listener, path);
	if (err) {
		fail(path, err);
		return err == -ENAMETOOLONG ? EXIT_USAGE : EXIT_FAILURE;
	}
	if (opt.verbose)
		fprintf(stderr, "ptdma-device: listening on %s\n", path);

	srv.mem = guest_mem_create();
	if (srv.mem)
		srv.pt = ptdma_create(&opt, srv.mem);
	if (srv.pt)
		status = run(&srv);
	else
		fail("no device", -errno);

	ptdma_destroy(srv.pt);
	guest_mem_destroy(srv.mem);
	listener_close(&srv.listener);
	return status;
}
