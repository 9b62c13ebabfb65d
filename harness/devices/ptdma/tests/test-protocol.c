// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the vfio-user protocol.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "ptdma-regs.h"
#include "tap.h"

#define RW	(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)
#define MSIX	VFIO_PCI_MSIX_IRQ_INDEX
#define CONFIG	VFIO_PCI_CONFIG_REGION_INDEX
#define PAGE	4096ull

/* Still there, and still in step? */
static bool alive(struct client *c)
{
	return cfg_read(c, 0, 4) == (PT_PCI_DEVICE << 16 | PT_PCI_VENDOR);
}

static void version(struct tap *t)
{
	struct {
		struct vfu_version v;
		char json[512];
	} reply = { 0 };
	static const char hello[] = "\0\0\0\0{\"capabilities\":{}}";
	struct message m = {
		.command = VFU_VERSION, .body = hello,
		.reply = &reply, .room = sizeof(reply),
	};
	struct client c;

	CHECK(t, client_start(&c, &plain));
	/* Nothing works before it. */
	EQUAL(t, client_reset(&c), EPROTO);
	EQUAL(t, client_map(&c, 0, PAGE, RW, c.file, 0), EPROTO);
	EQUAL(t, client_hello(&c, 1), EINVAL);
	EQUAL(t, client_reset(&c), EPROTO);

	m.len = sizeof(hello) - 1;		/* no NUL at the end */
	EQUAL(t, client_call(&c, &m), EINVAL);
	m.len = 3;
	EQUAL(t, client_call(&c, &m), EINVAL);

	m.len = sizeof(hello);
	EQUAL(t, client_call(&c, &m), 0);
	EQUAL(t, reply.v.major, 0);
	EQUAL(t, reply.v.minor, 0);
	EQUAL(t, m.got, sizeof(reply.v) + strlen(reply.json) + 1);
	CHECK(t, strstr(reply.json, "\"max_msg_fds\":16,"));
	CHECK(t, strstr(reply.json, "\"max_data_xfer_size\":65536,"));
	CHECK(t, alive(&c));

	/* Once */
	EQUAL(t, client_call(&c, &m), EINVAL);
	CHECK(t, alive(&c));
	EQUAL(t, client_stop(&c), 0);
}

static void info(struct tap *t)
{
	static const uint64_t sizes[VFIO_PCI_NUM_REGIONS] = {
		[2] = 0x10000, [4] = 0x1000, [CONFIG] = 256,
	};
	struct vfu_device_info dev = { .argsz = sizeof(dev) };
	struct message m = {
		.command = VFU_GET_INFO, .body = &dev, .len = sizeof(dev),
		.reply = &dev, .room = sizeof(dev),
	};
	struct client c;
	uint32_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);

	EQUAL(t, client_call(&c, &m), 0);
	EQUAL(t, m.got, sizeof(dev));
	EQUAL(t, dev.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	EQUAL(t, dev.num_regions, VFIO_PCI_NUM_REGIONS);
	EQUAL(t, dev.num_irqs, VFIO_PCI_NUM_IRQS);
	dev.argsz = 4;
	EQUAL(t, client_call(&c, &m), EINVAL);

	for (i = 0; i <= VFIO_PCI_NUM_REGIONS; i++) {
		struct vfu_region_info r = { sizeof(r), 99, i, 99, 99, 99 };
		struct message m = {
			.command = VFU_GET_REGION_INFO, .body = &r,
			.len = sizeof(r), .reply = &r, .room = sizeof(r),
		};

		if (i == VFIO_PCI_NUM_REGIONS) {
			EQUAL(t, client_call(&c, &m), EINVAL);
			break;
		}
		EQUAL(t, client_call(&c, &m), 0);
		EQUAL(t, r.index, i);
		EQUAL(t, r.size, sizes[i]);
		EQUAL(t, r.flags, sizes[i] ? 3 : 0);
		EQUAL(t, r.cap_offset, 0);
		EQUAL(t, r.offset, 0);
	}

	for (i = 0; i <= VFIO_PCI_NUM_IRQS; i++) {
		struct vfu_irq_info q = { sizeof(q), 99, i, 99 };
		struct message m = {
			.command = VFU_GET_IRQ_INFO, .body = &q,
			.len = sizeof(q), .reply = &q, .room = sizeof(q),
		};

		if (i == VFIO_PCI_NUM_IRQS) {
			EQUAL(t, client_call(&c, &m), EINVAL);
			break;
		}
		EQUAL(t, client_call(&c, &m), 0);
		EQUAL(t, q.count, i == MSIX);
		EQUAL(t, q.flags, i == MSIX ? VFIO_IRQ_INFO_EVENTFD : 0);
	}
	EQUAL(t, client_stop(&c), 0);
}

static void unknown_commands(struct tap *t)
{
	static const uint16_t commands[] = {
		0, VFU_GET_REGION_IO_FDS, VFU_DMA_READ, VFU_DMA_WRITE, 14, 15,
		16, 99, 0xffff,
	};
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct message m = {
			.command = commands[i], .body = "12345678", .len = 8,
		};

		EQUAL(t, client_call(&c, &m), EOPNOTSUPP);
	}
	CHECK(t, alive(&c));
	EQUAL(t, client_stop(&c), 0);
}

static void short_bodies(struct tap *t)
{
	static const struct {
		uint16_t command;
		size_t len;
	} least[] = {
		{ VFU_DMA_MAP, 32 }, { VFU_DMA_UNMAP, 24 },
		{ VFU_GET_INFO, 16 }, { VFU_GET_REGION_INFO, 32 },
		{ VFU_GET_IRQ_INFO, 16 }, { VFU_SET_IRQS, 20 },
		{ VFU_REGION_READ, 16 }, { VFU_REGION_WRITE, 16 },
	};
	/* Every field that is looked at is fine, was it not cut off. */
	const uint8_t body[32] = { 32, 0, 0, 0, 1 };
	struct client c;
	size_t i, len;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < sizeof(least) / sizeof(least[0]); i++) {
		for (len = 0; len < least[i].len; len++) {
			struct message m = {
				.command = least[i].command, .body = body,
				.len = len,
			};

			if (!EQUAL(t, client_call(&c, &m), EINVAL))
				printf("# command %u, %zu bytes\n",
				       least[i].command, len);
		}
	}
	CHECK(t, alive(&c));
	EQUAL(t, client_stop(&c), 0);
}

/* Send a header that lies about the size, with @len bytes after it. */
static int lie(struct client *c, uint32_t size, size_t len)
{
	struct message m = { .command = VFU_REGION_WRITE };
	struct vfu_header hdr = {
		.id = ++c->id, .command = VFU_REGION_WRITE, .size = size,
	};
	uint8_t *body = calloc(1, len + 1);
	bool good = send(c->sock, &hdr, sizeof(hdr), 0) == sizeof(hdr) &&
		    (!len || send(c->sock, body, len, 0) == (ssize_t)len);

	free(body);
	return good ? client_receive(c, &m) : -1;
}

static void sizes(struct tap *t)
{
	const uint32_t header = sizeof(struct vfu_header);
	struct client c;
	uint32_t size;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (size = 0; size < header; size++)
		EQUAL(t, lie(&c, size, 0), EINVAL);
	CHECK(t, alive(&c));

	/* The longest is fine (but nonsense); one more is skipped. */
	EQUAL(t, lie(&c, header + VFU_MAX_BODY, VFU_MAX_BODY), EINVAL);
	EQUAL(t, lie(&c, header + VFU_MAX_BODY + 1, VFU_MAX_BODY + 1),
	      EMSGSIZE);
	CHECK(t, alive(&c));
	EQUAL(t, lie(&c, header + 5000000, 5000000), EMSGSIZE);
	CHECK(t, alive(&c));

	/* Too long even for that */
	EQUAL(t, lie(&c, UINT32_MAX, 0), EMSGSIZE);
	CHECK(t, !alive(&c));
	EQUAL(t, -client_stop(&c), EMSGSIZE);
}

static void truncated(struct tap *t)
{
	struct vfu_header hdr = { .command = VFU_GET_INFO, .size = 32 };
	struct client c;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	EQUAL(t, send(c.sock, &hdr, 7, 0), 7);
	EQUAL(t, -client_stop(&c), EPROTO);

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	EQUAL(t, send(c.sock, &hdr, sizeof(hdr), 0), sizeof(hdr));
	EQUAL(t, -client_stop(&c), EPROTO);

	/* Oversized, and gone before the end of it */
	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	EQUAL(t, lie(&c, 5000000, 100), EMSGSIZE);
	EQUAL(t, -client_stop(&c), EPROTO);
}

/* In pieces, as a socket may deliver it. */
static void piecemeal(struct tap *t)
{
	const struct vfu_region_access req = { 0, CONFIG, 4 };
	struct vfu_header hdr = {
		.id = 77, .command = VFU_REGION_READ,
		.size = sizeof(hdr) + sizeof(req),
	};
	struct {
		struct vfu_region_access req;
		uint32_t value;
	} reply;
	struct message m = {
		.command = VFU_REGION_READ, .reply = &reply,
		.room = sizeof(reply),
	};
	uint8_t bytes[sizeof(hdr) + sizeof(req)];
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), &req, sizeof(req));
	for (i = 0; i < sizeof(bytes); i++) {
		EQUAL(t, send(c.sock, bytes + i, 1, 0), 1);
		if (i % 8 == 0)
			sleep_ms(1);
	}
	c.id = 77;
	EQUAL(t, client_receive(&c, &m), 0);
	EQUAL(t, reply.value, PT_PCI_DEVICE << 16 | PT_PCI_VENDOR);
	EQUAL(t, client_stop(&c), 0);
}

static void silence(struct tap *t)
{
	struct message m = { .command = 99, .flags = VFU_F_NO_REPLY };
	struct client c;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	/* alive() would get these replies in place of its own. */
	CHECK(t, client_send(&c, &m));
	m.command = VFU_RESET;
	CHECK(t, client_send(&c, &m));
	m.flags = VFU_F_REPLY;
	CHECK(t, client_send(&c, &m));
	CHECK(t, alive(&c));
	EQUAL(t, client_stop(&c), 0);
}

static void region_bounds(struct tap *t)
{
	static const struct {
		uint32_t region;
		uint64_t off;
		uint32_t len;
	} bad[] = {
		{ 2, 0, 0 }, { 2, 0x10000, 4 }, { 2, 0xfffe, 4 },
		{ 2, 0xfffd, 4 }, { 2, 4, 0x10000 }, { 2, 0, 0x10001 },
		{ 2, UINT64_MAX, 4 }, { 2, UINT64_MAX - 3, 4 },
		{ 2, 1ull << 32, 4 }, { CONFIG, 256, 1 }, { CONFIG, 255, 2 },
		{ CONFIG, 0, 257 }, { CONFIG, UINT64_MAX - 1, 4 },
		{ 4, 0x1000, 4 }, { 0, 0, 4 }, { 1, 0, 1 }, { 3, 0, 4 },
		{ 5, 0, 4 }, { 6, 0, 4 }, { 8, 0, 4 }, { 9, 0, 4 },
		{ UINT32_MAX, 0, 4 },
	};
	uint8_t buf[0x10001] = { 0 };
	struct vfu_region_access req = { 0, 2, UINT32_MAX };
	struct message m = {
		.command = VFU_REGION_READ, .body = &req, .len = sizeof(req),
	};
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!EQUAL(t, client_read(&c, bad[i].region, bad[i].off, buf,
					  bad[i].len), EINVAL) ||
		    !EQUAL(t, client_write(&c, bad[i].region, bad[i].off, buf,
					   bad[i].len), EINVAL))
			printf("# bad[%zu]\n", i);
	}
	EQUAL(t, client_call(&c, &m), EINVAL);

	/* The data of a write has to be there, and no more. */
	m.command = VFU_REGION_WRITE;
	EQUAL(t, client_call(&c, &m), EINVAL);
	req.count = 4;
	EQUAL(t, client_call(&c, &m), EINVAL);
	memcpy(buf, &req, sizeof(req));
	m.body = buf;
	m.len = sizeof(req) + 3;
	EQUAL(t, client_call(&c, &m), EINVAL);
	m.len = sizeof(req) + 5;
	EQUAL(t, client_call(&c, &m), EINVAL);
	m.len = sizeof(req) + 4;
	EQUAL(t, client_call(&c, &m), 0);
	EQUAL(t, m.got, sizeof(req));

	/* All of a region at once is fine. */
	EQUAL(t, client_read(&c, 2, 0, buf, 0x10000), 0);
	EQUAL(t, buf[PT_VERSION], 0x05);
	EQUAL(t, buf[PT_VERSION + 1], 0x80);
	EQUAL(t, client_read(&c, CONFIG, 0, buf, 256), 0);
	EQUAL(t, client_read(&c, 2, 0xfffc, buf, 4), 0);
	EQUAL(t, client_stop(&c), 0);
}

static unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void descriptors(struct tap *t)
{
	struct vfu_dma_map map = { sizeof(map), RW, 0, 0x10000, PAGE };
	int fds[20], i;
	struct message m = {
		.command = VFU_DMA_MAP, .body = &map, .len = sizeof(map),
		.fds = fds, .nr_fds = 2,
	};
	unsigned int before;
	struct client c;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < 20; i++)
		fds[i] = c.file;
	before = open_fds();

	EQUAL(t, client_call(&c, &m), EINVAL);		/* takes one */
	m.nr_fds = 20;					/* more than any */
	EQUAL(t, client_call(&c, &m), EINVAL);
	m.nr_fds = 16;
	m.command = 99;
	EQUAL(t, client_call(&c, &m), EOPNOTSUPP);
	m.command = VFU_RESET;				/* takes none */
	m.nr_fds = 1;
	EQUAL(t, client_call(&c, &m), EINVAL);
	m.command = VFU_RESET;
	m.flags = VFU_F_REPLY;				/* not even a request */
	CHECK(t, client_send(&c, &m));
	CHECK(t, alive(&c));
	EQUAL(t, open_fds(), before);

	/* A mapping keeps none. */
	EQUAL(t, client_map(&c, 0, PAGE, RW, c.file, 0), 0);
	EQUAL(t, open_fds(), before);

	/* A vector keeps one, until it gets another. */
	EQUAL(t, client_irqs(&c, 0x24, MSIX, 0, 1, c.irq), 0);
	EQUAL(t, open_fds(), before + 1);
	EQUAL(t, client_irqs(&c, 0x24, MSIX, 0, 1, c.irq), 0);
	EQUAL(t, open_fds(), before + 1);
	EQUAL(t, client_irqs(&c, 0x24, MSIX, 0, 1, -1), 0);
	EQUAL(t, open_fds(), before);
	EQUAL(t, client_irqs(&c, 0x24, MSIX, 0, 1, c.irq), 0);
	EQUAL(t, client_irqs(&c, 0x21, MSIX, 0, 0, -1), 0);
	EQUAL(t, open_fds(), before);
	EQUAL(t, client_stop(&c), 0);
}

static void mapping(struct tap *t)
{
	struct client c;
	uint64_t n;
	size_t maps, files;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);

	EQUAL(t, client_map(&c, PAGE, 4 * PAGE, RW, c.file, 0), 0);
	EQUAL(t, client_map(&c, 4 * PAGE, 4 * PAGE, RW, c.file, 0), EEXIST);
	EQUAL(t, client_map(&c, 5 * PAGE, 4 * PAGE, RW, c.file, 0), 0);
	EQUAL(t, client_map(&c, -PAGE, 2 * PAGE, RW, c.file, 0), EINVAL);
	EQUAL(t, client_map(&c, 1ull << 40, -PAGE, RW, c.file, 0), EINVAL);
	EQUAL(t, client_map(&c, 1ull << 40, PAGE, RW, c.file, -PAGE), EINVAL);
	EQUAL(t, client_map(&c, 1ull << 40, PAGE, RW, c.file, FILE_SIZE),
	      EINVAL);
	EQUAL(t, client_map(&c, 1ull << 40, PAGE, RW | 4, c.file, 0), EINVAL);
	EQUAL(t, client_map(&c, 1ull << 40, PAGE, 0, c.file, 0), EINVAL);
	guest_mem_count(c.mem, &maps, &files);
	EQUAL(t, maps, 2);

	EQUAL(t, client_unmap(&c, PAGE, 4 * PAGE, 1, NULL), EINVAL);
	EQUAL(t, client_unmap(&c, PAGE, 2 * PAGE, 0, NULL), EINVAL);
	EQUAL(t, client_unmap(&c, PAGE, 4 * PAGE, 2, NULL), EINVAL);
	EQUAL(t, client_unmap(&c, 0, 6 * PAGE, 0, NULL), EINVAL);
	EQUAL(t, client_unmap(&c, PAGE, 4 * PAGE, 0, &n), 0);
	EQUAL(t, n, 4 * PAGE);
	EQUAL(t, client_unmap(&c, PAGE, 4 * PAGE, 0, &n), 0);
	EQUAL(t, n, 0);
	EQUAL(t, client_map(&c, PAGE, PAGE, RW, c.file, 0), 0);
	EQUAL(t, client_unmap(&c, 0, 0, 2, &n), 0);
	EQUAL(t, n, 5 * PAGE);
	guest_mem_count(c.mem, &maps, &files);
	EQUAL(t, maps, 0);
	EQUAL(t, client_stop(&c), 0);
}

static void set_irqs(struct tap *t)
{
	static const struct {
		uint32_t flags, index, start, count;
	} bad[] = {
		{ 0x24, 5, 0, 1 },		/* no such kind */
		{ 0x24, 0, 0, 1 },		/* no INTx */
		{ 0x24, 1, 0, 1 },		/* no MSI */
		{ 0x24, MSIX, 1, 1 },		/* one vector only */
		{ 0x24, MSIX, 0, 2 },
		{ 0x24, MSIX, UINT32_MAX, 2 },
		{ 0x24, MSIX, 0, 0 },
		{ 0x0c, MSIX, 0, 1 },		/* cannot be masked */
		{ 0x14, MSIX, 0, 1 },
		{ 0x27, MSIX, 0, 1 },		/* all sorts of data */
		{ 0x20, MSIX, 0, 1 },
		{ 0x64, MSIX, 0, 1 },		/* unknown flag */
		{ 0x04, MSIX, 0, 1 },		/* no action */
		{ 0x21, MSIX, 0, 1 },		/* takes no descriptor */
	};
	struct {
		struct vfu_irq_set set;
		uint8_t bool_data;
	} __attribute__((packed)) set = {
		{ sizeof(set), 0x22, MSIX, 0, 1 }, 0
	};
	struct message m = {
		.command = VFU_SET_IRQS, .body = &set, .len = sizeof(set),
	};
	struct client c;
	size_t i;

	CHECK(t, client_start(&c, &plain));
	EQUAL(t, client_hello(&c, 0), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!EQUAL(t, client_irqs(&c, bad[i].flags, bad[i].index,
					  bad[i].start, bad[i].count, c.irq),
			   EINVAL))
			printf("# bad[%zu]\n", i);
	}
	/* A range whose end overflows, with nothing else wrong */
	EQUAL(t, client_irqs(&c, 0x21, MSIX, UINT32_MAX, 2, -1), EINVAL);
	EQUAL(t, client_irqs(&c, 0x24, MSIX, UINT32_MAX, 2, -1), EINVAL);

	/* Loop-back: signal the vector on request. */
	EQUAL(t, client_irqs(&c, 0x24, MSIX, 0, 1, c.irq), 0);
	EQUAL(t, irqs(&c, 0), 0);
	EQUAL(t, client_irqs(&c, 0x21, MSIX, 0, 1, -1), 0);
	EQUAL(t, irqs(&c, LATE), 1);
	EQUAL(t, client_call(&c, &m), 0);
	EQUAL(t, irqs(&c, 0), 0);
	set.bool_data = 1;
	EQUAL(t, client_call(&c, &m), 0);
	EQUAL(t, irqs(&c, LATE), 1);
	m.len = sizeof(set.set);
	EQUAL(t, client_call(&c, &m), EINVAL);
	EQUAL(t, irqs(&c, 0), 0);

	/* Disabled */
	EQUAL(t, client_irqs(&c, 0x21, MSIX, 0, 0, -1), 0);
	EQUAL(t, client_irqs(&c, 0x21, MSIX, 0, 1, -1), 0);
	EQUAL(t, irqs(&c, SOON), 0);
	EQUAL(t, client_stop(&c), 0);
}

const struct test protocol_tests[] = {
	{ "protocol: version comes first, and once", version },
	{ "protocol: device, regions and interrupts", info },
	{ "protocol: unknown commands", unknown_commands },
	{ "protocol: bodies that are too short", short_bodies },
	{ "protocol: sizes that are too small or too large", sizes },
	{ "protocol: messages that end early", truncated },
	{ "protocol: messages in pieces", piecemeal },
	{ "protocol: no reply where none is due", silence },
	{ "protocol: bounds of region accesses", region_bounds },
	{ "protocol: no file descriptor is lost or kept", descriptors },
	{ "protocol: DMA mappings", mapping },
	{ "protocol: interrupt set-up", set_irqs },
	{ }
};
