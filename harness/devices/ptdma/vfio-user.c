// SPDX-License-Identifier: GPL-2.0-only
/*
 * The server's side of the vfio-user protocol.
 *
 * A message that makes no sense is answered with an errno and the session goes
 * on. It ends only when the client is gone, or where the next message starts
 * can no longer be told.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vfio-user.h"

#define VERSION_MAJOR	0
#define VERSION_MINOR	0

#define STR(x)		STR_(x)
#define STR_(x)		#x

struct vfu_session {
	const struct vfu_device *vdev;
	int sock;
	pthread_mutex_t lock;		/* a message is sent whole */
	bool negotiated;

	/* The message at hand. The reply's body overwrites the request's. */
	struct vfu_header hdr;
	uint8_t body[VFU_MAX_BODY];
	size_t len;			/* of the request's body */
	int fds[VFU_MAX_FDS];		/* taken ones become -1 */
	unsigned int nr_fds;
	bool fds_lost;
};

static void log_message(const struct vfu_session *s, int level, int err)
{
	if (s->vdev->verbose < level)
		return;
	fprintf(stderr, "vfio-user: command %u, %zu bytes, %u fds: %s\n",
		s->hdr.command, s->len, s->nr_fds,
		err ? strerror(err) : "done");
}

/* Receiving */

static void collect_fds(struct vfu_session *s, struct msghdr *msg)
{
	struct cmsghdr *c;

	if (msg->msg_flags & MSG_CTRUNC)
		s->fds_lost = true;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t i, nr;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < nr; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (s->nr_fds < VFU_MAX_FDS) {
				s->fds[s->nr_fds++] = fd;
			} else {
				close(fd);
				s->fds_lost = true;
			}
		}
	}
}

/* All of @len bytes. -ENODATA: the client left before the first of them. */
static int receive(struct vfu_session *s, void *buf, size_t len)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(s->fds))];
	size_t got = 0;

	while (got < len) {
		struct iovec iov = { (char *)buf + got, len - got };
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(s->sock, &msg, MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != ECONNRESET)
			return -errno;
		if (n <= 0)
			return got ? -EPROTO : -ENODATA;
		collect_fds(s, &msg);
		got += n;
	}
	return 0;
}

/* Skip the body of a message that is too long, without storing it. */
static int skip(struct vfu_session *s, size_t len)
{
	while (len) {
		size_t n = len < sizeof(s->body) ? len : sizeof(s->body);
		int err = receive(s, s->body, n);

		if (err)
			return err;
		len -= n;
	}
	return 0;
}

static void close_fds(struct vfu_session *s)
{
	unsigned int i;

	for (i = 0; i < s->nr_fds; i++) {
		if (s->fds[i] >= 0)
			close(s->fds[i]);
	}
	s->nr_fds = 0;
	s->fds_lost = false;
}

/* Sending */

static int transmit(struct vfu_session *s, struct iovec *iov, int nr)
{
	int err = 0;

	pthread_mutex_lock(&s->lock);
	while (nr) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
		ssize_t n = sendmsg(s->sock, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err = -errno;
			break;
		}
		while (nr && (size_t)n >= iov->iov_len) {
			n -= iov->iov_len;
			iov++;
			nr--;
		}
		if (nr) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

int vfu_dma_write(struct vfu_session *s, uint16_t id, uint64_t iova,
		  const void *buf, size_t len)
{
	struct vfu_dma_access req = { .iova = iova, .count = len };
	struct vfu_header hdr = {
		.id = id,
		.command = VFU_DMA_WRITE,
		.size = sizeof(hdr) + sizeof(req) + len,
		.flags = VFU_F_REQUEST,
	};
	struct iovec iov[3] = {
		{ &hdr, sizeof(hdr) },
		{ &req, sizeof(req) },
		{ (void *)buf, len },
	};

	return transmit(s, iov, 3);
}

static int reply(struct vfu_session *s, int err, size_t len)
{
	struct vfu_header hdr = {
		.id = s->hdr.id,
		.command = s->hdr.command,
		.flags = VFU_F_REPLY | (err ? VFU_F_ERROR : 0),
		.error = err,
	};
	struct iovec iov[2] = {
		{ &hdr, sizeof(hdr) },
		{ s->body, err ? 0 : len },
	};

	log_message(s, err ? 1 : 2, err);
	/* First, so that a client with its reply sees nothing kept. */
	close_fds(s);
	if (s->hdr.flags & VFU_F_NO_REPLY)
		return 0;

	hdr.size = iov[0].iov_len + iov[1].iov_len;
	return transmit(s, iov, 2);
}

/*
 * Commands. Each finds its request in s->body, at least as long as the table
 * below says, and leaves its reply there. Returns the reply's length or a
 * negative errno.
 */

static ssize_t do_version(struct vfu_session *s)
{
	static const char caps[] =
		"{\"capabilities\":{"
		"\"max_msg_fds\":" STR(VFU_MAX_FDS) ","
		"\"max_data_xfer_size\":65536,"
		"\"max_dma_maps\":65535,"
		"\"pgsizes\":4096}}";
	struct vfu_version v;

	_Static_assert(VFU_MAX_XFER == 65536, "announced above");
	_Static_assert(GUEST_MEM_MAX_MAPS == 65535, "announced above");
	_Static_assert(GUEST_MEM_PAGE == 4096, "announced above");

	memcpy(&v, s->body, sizeof(v));
	if (s->negotiated || v.major != VERSION_MAJOR)
		return -EINVAL;
	if (s->len > sizeof(v) && s->body[s->len - 1])
		return -EINVAL;

	s->negotiated = true;
	v.minor = VERSION_MINOR;
	memcpy(s->body, &v, sizeof(v));
	memcpy(s->body + sizeof(v), caps, sizeof(caps));
	return sizeof(v) + sizeof(caps);
}

static ssize_t do_dma_map(struct vfu_session *s)
{
	struct vfu_dma_map req;
	uint32_t prot = 0;
	int err;

	memcpy(&req, s->body, sizeof(req));
	if (req.argsz < sizeof(req) ||
	    req.flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE))
		return -EINVAL;
	if (req.flags & VFIO_DMA_MAP_FLAG_READ)
		prot |= GUEST_MEM_READ;
	if (req.flags & VFIO_DMA_MAP_FLAG_WRITE)
		prot |= GUEST_MEM_WRITE;

	err = guest_mem_map(s->vdev->mem, req.iova, req.size, prot,
			    s->nr_fds ? s->fds[0] : -1, req.offset);
	if (s->vdev->verbose >= 2)
		fprintf(stderr, "vfio-user: map %#llx + %#llx prot %u: %d\n",
			(unsigned long long)req.iova,
			(unsigned long long)req.size, prot, err);
	return err;
}

static ssize_t do_dma_unmap(struct vfu_session *s)
{
	struct vfu_dma_unmap req;

	memcpy(&req, s->body, sizeof(req));
	if (req.argsz < sizeof(req))
		return -EINVAL;

	if (req.flags == VFIO_DMA_UNMAP_FLAG_ALL) {
		if (req.iova || req.size)
			return -EINVAL;
		req.size = guest_mem_unmap_all(s->vdev->mem);
	} else if (!req.flags) {
		uint64_t unmapped;
		int err = guest_mem_unmap(s->vdev->mem, req.iova, req.size,
					  &unmapped);

		if (err)
			return err;
		req.size = unmapped;
	} else {
		return -EINVAL;
	}

	req.argsz = sizeof(req);
	memcpy(s->body, &req, sizeof(req));
	return sizeof(req);
}

static ssize_t do_get_info(struct vfu_session *s)
{
	struct vfu_device_info info;

	memcpy(&info, s->body, sizeof(info));
	if (info.argsz < sizeof(info))
		return -EINVAL;

	info.argsz = sizeof(info);
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	memcpy(s->body, &info, sizeof(info));
	return sizeof(info);
}

static ssize_t do_get_region_info(struct vfu_session *s)
{
	struct vfu_region_info info;

	memcpy(&info, s->body, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;

	info.argsz = sizeof(info);
	info.cap_offset = 0;
	info.offset = 0;
	info.size = s->vdev->region_size[info.index];
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ |
				 VFIO_REGION_INFO_FLAG_WRITE : 0;
	memcpy(s->body, &info, sizeof(info));
	return sizeof(info);
}

static unsigned int vectors(const struct vfu_session *s, uint32_t index)
{
	return index == VFIO_PCI_MSIX_IRQ_INDEX ? s->vdev->msix_vectors : 0;
}

static ssize_t do_get_irq_info(struct vfu_session *s)
{
	struct vfu_irq_info info;

	memcpy(&info, s->body, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;

	info.argsz = sizeof(info);
	info.count = vectors(s, info.index);
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
	memcpy(s->body, &info, sizeof(info));
	return sizeof(info);
}

static ssize_t do_set_irqs(struct vfu_session *s)
{
	const struct vfu_ops *ops = s->vdev->ops;
	uint32_t action, data, i, nr;
	struct vfu_irq_set req;

	memcpy(&req, s->body, sizeof(req));
	action = req.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	data = req.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	if (req.argsz < sizeof(req) || req.index >= VFIO_PCI_NUM_IRQS ||
	    action != VFIO_IRQ_SET_ACTION_TRIGGER || req.flags != action + data)
		return -EINVAL;
	if (s->nr_fds && data != VFIO_IRQ_SET_DATA_EVENTFD)
		return -EINVAL;

	nr = vectors(s, req.index);
	if (data == VFIO_IRQ_SET_DATA_NONE && !req.start && !req.count) {
		for (i = 0; i < nr; i++)
			ops->irq_eventfd(s->vdev->dev, i, -1);
		return 0;
	}
	if (!req.count || req.start >= nr || req.count > nr - req.start)
		return -EINVAL;

	switch (data) {
	case VFIO_IRQ_SET_DATA_NONE:
		for (i = 0; i < req.count; i++)
			ops->irq_trigger(s->vdev->dev, req.start + i);
		return 0;
	case VFIO_IRQ_SET_DATA_BOOL:
		if (s->len - sizeof(req) < req.count)
			return -EINVAL;
		for (i = 0; i < req.count; i++) {
			if (s->body[sizeof(req) + i])
				ops->irq_trigger(s->vdev->dev, req.start + i);
		}
		return 0;
	case VFIO_IRQ_SET_DATA_EVENTFD:
		/* No descriptors at all take the present ones away. */
		if (s->nr_fds && s->nr_fds != req.count)
			return -EINVAL;
		for (i = 0; i < req.count; i++) {
			int fd = -1;

			if (s->nr_fds) {
				fd = s->fds[i];
				s->fds[i] = -1;
			}
			ops->irq_eventfd(s->vdev->dev, req.start + i, fd);
		}
		return 0;
	default:
		return -EINVAL;
	}
}

static bool access_valid(const struct vfu_session *s,
			 const struct vfu_region_access *req)
{
	uint64_t size;

	if (req->region >= VFIO_PCI_NUM_REGIONS)
		return false;
	size = s->vdev->region_size[req->region];
	return req->count && req->count <= VFU_MAX_XFER &&
	       req->count <= size && req->offset <= size - req->count;
}

static ssize_t do_region_read(struct vfu_session *s)
{
	struct vfu_region_access req;
	int err;

	memcpy(&req, s->body, sizeof(req));
	if (!access_valid(s, &req))
		return -EINVAL;

	err = s->vdev->ops->region_read(s->vdev->dev, req.region, req.offset,
					s->body + sizeof(req), req.count);
	return err ? err : (ssize_t)(sizeof(req) + req.count);
}

static ssize_t do_region_write(struct vfu_session *s)
{
	struct vfu_region_access req;
	int err;

	memcpy(&req, s->body, sizeof(req));
	if (!access_valid(s, &req) || s->len - sizeof(req) != req.count)
		return -EINVAL;

	err = s->vdev->ops->region_write(s->vdev->dev, req.region, req.offset,
					 s->body + sizeof(req), req.count);
	return err ? err : (ssize_t)sizeof(req);
}

static ssize_t do_reset(struct vfu_session *s)
{
	s->vdev->ops->reset(s->vdev->dev);
	return 0;
}

struct command {
	ssize_t (*handle)(struct vfu_session *s);
	size_t min_len;
	unsigned int max_fds;
};

static const struct command commands[] = {
	[VFU_VERSION] = { do_version, sizeof(struct vfu_version), 0 },
	[VFU_DMA_MAP] = { do_dma_map, sizeof(struct vfu_dma_map), 1 },
	[VFU_DMA_UNMAP] = { do_dma_unmap, sizeof(struct vfu_dma_unmap), 0 },
	[VFU_GET_INFO] = { do_get_info, sizeof(struct vfu_device_info), 0 },
	[VFU_GET_REGION_INFO] = {
		do_get_region_info, sizeof(struct vfu_region_info), 0
	},
	[VFU_GET_IRQ_INFO] = {
		do_get_irq_info, sizeof(struct vfu_irq_info), 0
	},
	[VFU_SET_IRQS] = {
		do_set_irqs, sizeof(struct vfu_irq_set), VFU_MAX_FDS
	},
	[VFU_REGION_READ] = {
		do_region_read, sizeof(struct vfu_region_access), 0
	},
	[VFU_REGION_WRITE] = {
		do_region_write, sizeof(struct vfu_region_access), 0
	},
	[VFU_RESET] = { do_reset, 0, 0 },
};

static ssize_t dispatch(struct vfu_session *s)
{
	const size_t nr = sizeof(commands) / sizeof(commands[0]);
	const struct command *cmd = &commands[s->hdr.command % nr];

	if (s->hdr.command >= nr || !cmd->handle)
		return -EOPNOTSUPP;
	if (s->len < cmd->min_len)
		return -EINVAL;
	if (s->fds_lost || s->nr_fds > cmd->max_fds)
		return -EINVAL;
	if (!s->negotiated && s->hdr.command != VFU_VERSION)
		return -EPROTO;
	return cmd->handle(s);
}

static void take_answer(struct vfu_session *s)
{
	int error = 0;

	if (s->hdr.flags & VFU_F_ERROR)
		error = s->hdr.error ? s->hdr.error : EIO;
	s->vdev->ops->dma_done(s->vdev->dev, s->hdr.id, error);
}

/* One message. Returns a negative errno if there can be no next one. */
static int serve_one(struct vfu_session *s)
{
	ssize_t ret;
	size_t len;
	int err;

	s->len = 0;
	err = receive(s, &s->hdr, sizeof(s->hdr));
	if (err)
		return err;

	if (s->hdr.size < sizeof(s->hdr))
		return reply(s, EINVAL, 0);
	len = s->hdr.size - sizeof(s->hdr);
	if (len > VFU_MAX_BODY) {
		err = reply(s, EMSGSIZE, 0);
		if (err)
			return err;
		err = len > VFU_MAX_DISCARD ? -EMSGSIZE : skip(s, len);
		return err == -ENODATA ? -EPROTO : err;
	}

	err = receive(s, s->body, len);
	if (err)
		return err == -ENODATA ? -EPROTO : err;
	s->len = len;

	if ((s->hdr.flags & VFU_F_TYPE_MASK) == VFU_F_REPLY &&
	    s->hdr.command == VFU_DMA_WRITE) {
		take_answer(s);
		return 0;
	}
	/* Nothing else was asked, so this answers nothing. */
	if ((s->hdr.flags & VFU_F_TYPE_MASK) != VFU_F_REQUEST) {
		log_message(s, 1, EPROTO);
		return 0;
	}

	ret = dispatch(s);
	return ret < 0 ? reply(s, -ret, 0) : reply(s, 0, ret);
}

int vfu_serve(const struct vfu_device *vdev, int sock)
{
	struct vfu_session *s = calloc(1, sizeof(*s));
	unsigned int i;
	int err;

	if (!s)
		return -ENOMEM;
	s->vdev = vdev;
	s->sock = sock;
	pthread_mutex_init(&s->lock, NULL);
	vdev->ops->session(vdev->dev, s);

	do {
		err = serve_one(s);
		close_fds(s);
	} while (!err);

	for (i = 0; i < vdev->msix_vectors; i++)
		vdev->ops->irq_eventfd(vdev->dev, i, -1);
	vdev->ops->reset(vdev->dev);
	vdev->ops->session(vdev->dev, NULL);
	guest_mem_unmap_all(vdev->mem);
	pthread_mutex_destroy(&s->lock);
	free(s);

	/* A client that is gone is the normal end. */
	return err == -ENODATA || err == -EPIPE ? 0 : err;
}
