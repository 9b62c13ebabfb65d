// SPDX-License-Identifier: GPL-2.0-only
/*
 * What QEMU and the guest's driver do, for tests.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "ptdma-regs.h"

const struct ptdma_options plain = { .stall_after = PTDMA_NEVER };

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
	usleep(ms * 1000);
}

/* Bytes */

static void set_patience(int sock)
{
	const struct timeval patience = { .tv_sec = LATE / 1000 };

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

static bool receive(int sock, void *buf, size_t len)
{
	return !len || recv(sock, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static bool transmit(int sock, const void *buf, size_t len)
{
	return send(sock, buf, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Life */

bool client_attach(struct client *c, int sock)
{
	memset(c, 0, sizeof(*c));
	c->sock = sock;
	c->replies = sock;
	c->pumped = -1;
	c->server_sock = -1;
	pthread_mutex_init(&c->sending, NULL);
	set_patience(sock);

	c->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->file = memfd_create("guest", MFD_CLOEXEC);
	if (c->irq < 0 || c->file < 0 || ftruncate(c->file, FILE_SIZE))
		return false;
	c->ram = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      c->file, 0);
	c->written = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			  c->file, 0);
	return c->ram != MAP_FAILED && c->written != MAP_FAILED;
}

static void *serve(void *arg)
{
	struct client *c = arg;

	c->result = vfu_serve(&c->vdev, c->server_sock);
	close(c->server_sock);
	return NULL;
}

bool client_start(struct client *c, const struct ptdma_options *opt)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) ||
	    !client_attach(c, sv[0]))
		return false;
	c->server_sock = sv[1];
	c->mem = guest_mem_create();
	if (!c->mem)
		return false;
	c->pt = ptdma_create(opt, c->mem);
	if (!c->pt)
		return false;
	ptdma_vfu_device(c->pt, &c->vdev);
	return !pthread_create(&c->thread, NULL, serve, c);
}

/*
 * The server has requests, too, once it has mappings: to write. The pump takes
 * all that comes, does those, and passes on the replies to our own.
 */
static bool write_ram(struct client *c, const struct vfu_dma_access *req,
		      const uint8_t *data)
{
	uint64_t i, end = req->iova + req->count;

	if ((req->iova < LOW || end > HIGH + WINDOW) &&
	    (req->iova < WRITEONLY || end > WRITEONLY + WINDOW))
		return false;
	for (i = 0; i < req->count; i++)
		c->written[at(c, req->iova + i) - c->ram] = data[i];
	return true;
}

static bool do_write(struct client *c, const struct vfu_header *hdr,
		     const uint8_t *body)
{
	struct vfu_dma_access req;
	int error = c->refuse;

	if (hdr->size < sizeof(*hdr) + sizeof(req))
		return false;
	memcpy(&req, body, sizeof(req));
	if (hdr->size != sizeof(*hdr) + sizeof(req) + req.count)
		return false;
	c->last_write = hdr->id;
	if (c->mute)
		return true;
	if (!error && !write_ram(c, &req, body + sizeof(req)))
		error = EFAULT;
	return client_answer(c, hdr->id, error);
}

static void *pump(void *arg)
{
	static const size_t room = sizeof(struct vfu_header) + VFU_MAX_BODY;
	uint8_t *buf = malloc(room);
	struct client *c = arg;
	struct vfu_header hdr;

	while (buf && receive(c->sock, buf, sizeof(hdr))) {
		memcpy(&hdr, buf, sizeof(hdr));
		if (hdr.size < sizeof(hdr) || hdr.size > room ||
		    !receive(c->sock, buf + sizeof(hdr),
			     hdr.size - sizeof(hdr)))
			break;
		if ((hdr.flags & VFU_F_TYPE_MASK) != VFU_F_REQUEST) {
			if (!transmit(c->pumped, buf, hdr.size))
				break;
		} else if (hdr.command != VFU_DMA_WRITE ||
			   !do_write(c, &hdr, buf + sizeof(hdr))) {
			break;
		}
	}
	free(buf);
	shutdown(c->pumped, SHUT_RDWR);
	return NULL;
}

static bool start_pump(struct client *c)
{
	const struct timeval forever = { 0 };
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return false;
	c->pumped = sv[0];
	c->replies = sv[1];
	set_patience(c->replies);
	setsockopt(c->sock, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	return !pthread_create(&c->pump, NULL, pump, c);
}

bool client_setup(struct client *c, unsigned int ring_size)
{
	const uint32_t rd = VFIO_DMA_MAP_FLAG_READ;
	const uint32_t wr = VFIO_DMA_MAP_FLAG_WRITE;

	if (!start_pump(c) || client_hello(c, 0) ||
	    client_map(c, HIGH, WINDOW, rd | wr, c->file, HIGH_OFFSET) ||
	    client_map(c, LOW, WINDOW, rd | wr, c->file, 0) ||
	    client_map(c, READONLY, WINDOW, rd, c->file, READONLY_OFFSET) ||
	    client_map(c, WRITEONLY, WINDOW, wr, c->file, WRITEONLY_OFFSET) ||
	    client_map(c, NO_FILE, WINDOW, rd | wr, -1, 0))
		return false;
	if (client_irqs(c, VFIO_IRQ_SET_DATA_EVENTFD |
			VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX,
			0, 1, c->irq))
		return false;

	bus_master(c, true);
	reset_ring(c, ring_size);
	return true;
}

int client_stop(struct client *c)
{
	if (c->pumped >= 0) {
		shutdown(c->sock, SHUT_RDWR);
		pthread_join(c->pump, NULL);
		close(c->pumped);
		close(c->replies);
	}
	close(c->sock);
	if (c->pt) {
		pthread_join(c->thread, NULL);
		ptdma_destroy(c->pt);
		guest_mem_destroy(c->mem);
	}
	munmap(c->ram, FILE_SIZE);
	munmap(c->written, FILE_SIZE);
	close(c->file);
	close(c->irq);
	return c->result;
}

/* Messages */

bool client_send(struct client *c, const struct message *m)
{
	char control[CMSG_SPACE(32 * sizeof(int))] = { 0 };
	struct vfu_header hdr = {
		.id = ++c->id,
		.command = m->command,
		.size = sizeof(hdr) + m->len,
		.flags = m->flags,
	};
	struct iovec iov[2] = {
		{ &hdr, sizeof(hdr) },
		{ (void *)m->body, m->len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	bool sent;

	if (m->nr_fds) {
		struct cmsghdr *cm = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(m->nr_fds * sizeof(int));
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(m->nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cm), m->fds, m->nr_fds * sizeof(int));
	}
	pthread_mutex_lock(&c->sending);
	sent = sendmsg(c->sock, &msg, MSG_NOSIGNAL) == (ssize_t)hdr.size;
	pthread_mutex_unlock(&c->sending);
	return sent;
}

bool client_answer(struct client *c, uint16_t id, int error)
{
	const struct vfu_header hdr = {
		.id = id,
		.command = VFU_DMA_WRITE,
		.size = sizeof(hdr),
		.flags = VFU_F_REPLY | (error ? VFU_F_ERROR : 0),
		.error = error,
	};
	bool sent;

	pthread_mutex_lock(&c->sending);
	sent = transmit(c->sock, &hdr, sizeof(hdr));
	pthread_mutex_unlock(&c->sending);
	return sent;
}

int client_receive(struct client *c, struct message *m)
{
	struct vfu_header hdr;
	uint8_t *body;
	bool good;

	if (!receive(c->replies, &hdr, sizeof(hdr)))
		return -1;
	if (hdr.id != c->id || hdr.command != m->command ||
	    hdr.size < sizeof(hdr) ||
	    (hdr.flags & VFU_F_TYPE_MASK) != VFU_F_REPLY ||
	    !(hdr.flags & VFU_F_ERROR) != !hdr.error)
		return -1;

	m->got = hdr.size - sizeof(hdr);
	body = malloc(m->got + 1);
	if (!body)
		return -1;
	good = receive(c->replies, body, m->got);
	if (good && m->reply)
		memcpy(m->reply, body, m->got < m->room ? m->got : m->room);
	free(body);
	return good ? (int)hdr.error : -1;
}

int client_call(struct client *c, struct message *m)
{
	return client_send(c, m) ? client_receive(c, m) : -1;
}

int client_hello(struct client *c, uint16_t major)
{
	const struct vfu_version v = { .major = major };
	struct message m = {
		.command = VFU_VERSION, .body = &v, .len = sizeof(v),
	};

	return client_call(c, &m);
}

int client_map(struct client *c, uint64_t iova, uint64_t size, uint32_t flags,
	       int fd, uint64_t offset)
{
	const struct vfu_dma_map map = {
		sizeof(map), flags, offset, iova, size
	};
	struct message m = {
		.command = VFU_DMA_MAP, .body = &map, .len = sizeof(map),
		.fds = &fd, .nr_fds = fd >= 0,
	};

	return client_call(c, &m);
}

int client_unmap(struct client *c, uint64_t iova, uint64_t size,
		 uint32_t flags, uint64_t *unmapped)
{
	struct vfu_dma_unmap unmap = { sizeof(unmap), flags, iova, size };
	struct message m = {
		.command = VFU_DMA_UNMAP, .body = &unmap, .len = sizeof(unmap),
		.reply = &unmap, .room = sizeof(unmap),
	};
	int err = client_call(c, &m);

	if (!err && m.got != sizeof(unmap))
		return -1;
	if (unmapped)
		*unmapped = unmap.size;
	return err;
}

int client_read(struct client *c, uint32_t region, uint64_t off, void *buf,
		uint32_t len)
{
	const struct vfu_region_access req = { off, region, len };
	size_t size = sizeof(req) + len;
	uint8_t *reply = calloc(1, size);
	struct message m = {
		.command = VFU_REGION_READ, .body = &req, .len = sizeof(req),
		.reply = reply, .room = size,
	};
	int err = client_call(c, &m);

	if (!err && (m.got != size || memcmp(reply, &req, sizeof(req))))
		err = -1;
	if (!err)
		memcpy(buf, reply + sizeof(req), len);
	free(reply);
	return err;
}

int client_write(struct client *c, uint32_t region, uint64_t off,
		 const void *buf, uint32_t len)
{
	const struct vfu_region_access req = { off, region, len };
	uint8_t *body = malloc(sizeof(req) + len);
	struct message m = {
		.command = VFU_REGION_WRITE, .body = body,
		.len = sizeof(req) + len,
	};
	int err;

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), buf, len);
	err = client_call(c, &m);
	free(body);
	return err;
}

int client_irqs(struct client *c, uint32_t flags, uint32_t index,
		uint32_t start, uint32_t count, int fd)
{
	const struct vfu_irq_set set = {
		sizeof(set), flags, index, start, count
	};
	struct message m = {
		.command = VFU_SET_IRQS, .body = &set, .len = sizeof(set),
		.fds = &fd, .nr_fds = fd >= 0,
	};

	return client_call(c, &m);
}

int client_reset(struct client *c)
{
	struct message m = { .command = VFU_RESET };

	return client_call(c, &m);
}

/* Registers */

uint32_t reg_read(struct client *c, uint32_t off)
{
	uint32_t value = 0;

	return client_read(c, PT_BAR_REGS, off, &value, 4) ? ~0u : value;
}

void reg_write(struct client *c, uint32_t off, uint32_t value)
{
	client_write(c, PT_BAR_REGS, off, &value, 4);
}

uint32_t cfg_read(struct client *c, uint32_t off, uint32_t len)
{
	uint32_t value = 0;

	return client_read(c, VFIO_PCI_CONFIG_REGION_INDEX, off, &value, len) ?
	       ~0u : value;
}

void cfg_write(struct client *c, uint32_t off, uint32_t value, uint32_t len)
{
	client_write(c, VFIO_PCI_CONFIG_REGION_INDEX, off, &value, len);
}

void bus_master(struct client *c, bool on)
{
	cfg_write(c, PCI_COMMAND, PCI_COMMAND_MEMORY |
		  (on ? PCI_COMMAND_MASTER : 0), 2);
}

/* Memory */

uint8_t *at(struct client *c, uint64_t iova)
{
	if (iova >= WRITEONLY)
		return c->ram + WRITEONLY_OFFSET + (iova - WRITEONLY);
	if (iova >= HIGH)
		return c->ram + HIGH_OFFSET + (iova - HIGH);
	return c->ram + (iova - LOW);
}

static uint8_t pattern(size_t i, unsigned int seed)
{
	return (i * 7 + i / 251 + seed) % 255 + 1;
}

void fill(struct client *c, uint64_t iova, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		*at(c, iova + i) = pattern(i, seed);
}

size_t filled(struct client *c, uint64_t iova, size_t len, unsigned int seed)
{
	size_t i, n = 0;

	for (i = 0; i < len; i++)
		n += *at(c, iova + i) == pattern(i, seed);
	return n;
}

/* The driver */

void reset_ring(struct client *c, unsigned int ring_size)
{
	c->slots = 2u << ring_size;
	c->tail = 0;
	c->control = (RING >> 32) << 16 | ring_size << 3;

	reg_write(c, PT_Q_CONTROL, 0);
	reg_write(c, PT_Q_INT_STATUS, ~0u);
	reg_write(c, PT_Q_TAIL_LO, SLOT(0));
	reg_write(c, PT_Q_HEAD_LO, SLOT(0));
	reg_write(c, PT_Q_CONTROL, c->control);
	reg_write(c, PT_Q_INT_ENABLE, PT_INT_COMPLETION | PT_INT_ERROR);
}

void queue_raw(struct client *c, const uint32_t *words)
{
	memcpy(at(c, RING + PT_DESC_SIZE * c->tail), words, PT_DESC_SIZE);
	c->tail = (c->tail + 1) % c->slots;
}

void queue(struct client *c, uint64_t dst, uint64_t src, uint32_t len)
{
	const uint32_t words[PT_DESC_WORDS] = {
		DW0, len, src, src >> 32, dst, dst >> 32,
	};

	queue_raw(c, words);
}

void run(struct client *c)
{
	reg_write(c, PT_Q_TAIL_LO, SLOT(c->tail));
	reg_write(c, PT_Q_CONTROL, c->control | PT_Q_RUN);
}

uint32_t head(struct client *c)
{
	return (reg_read(c, PT_Q_HEAD_LO) - SLOT(0)) / PT_DESC_SIZE;
}

bool wait_head(struct client *c, uint32_t slot)
{
	int64_t start = now_ms();

	while (head(c) != slot && now_ms() - start < LATE)
		sleep_ms(1);
	return head(c) == slot;
}

uint64_t irqs(struct client *c, int ms)
{
	struct pollfd pfd = { .fd = c->irq, .events = POLLIN };
	uint64_t n = 0;

	if (poll(&pfd, 1, ms) != 1)
		return 0;
	return read(c->irq, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

uint32_t wait_done(struct client *c)
{
	uint32_t status;

	if (!irqs(c, LATE))
		return 0;
	status = reg_read(c, PT_Q_INT_STATUS);
	reg_write(c, PT_Q_INT_STATUS, status);
	return status;
}
