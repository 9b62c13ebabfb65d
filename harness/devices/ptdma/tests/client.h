/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What QEMU and the guest's driver do, for tests: a vfio-user client with some
 * memory, a ring in it and an interrupt.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ptdma.h"
#include "ptdma-regs.h"
#include "vfio-user.h"

/*
 * The memory: one file, and windows of the device's address space onto it.
 * LOW and HIGH adjoin there and not in the file.
 */
#define MB		0x100000ull
#define FILE_SIZE	(8 * MB)
#define WINDOW		(2 * MB)
#define LOW		0x1200000000ull		/* file offset 0 */
#define HIGH		(LOW + WINDOW)		/* file offset 6 MB */
#define HIGH_OFFSET	(6 * MB)
#define READONLY	0x3400000000ull		/* file offset 2 MB */
#define READONLY_OFFSET	(2 * MB)
#define WRITEONLY	0x5600000000ull		/* file offset 4 MB */
#define WRITEONLY_OFFSET (4 * MB)
#define NO_FILE		0x7800000000ull		/* mapped, without memory */
#define NOWHERE		0x9a00000000ull		/* not mapped */

#define RING		(LOW + 0x8000)		/* the ring's place */
#define SLOT(n)		((uint32_t)RING + PT_DESC_SIZE * (n))
#define DATA		(LOW + MB)		/* free to use, up to HIGH */

struct client {
	int sock;
	int replies;			/* to be read from here: @sock, or */
	int pumped;			/* where the pump puts them */
	pthread_t pump;
	pthread_mutex_t sending;	/* a message is sent whole */
	uint16_t id;			/* of the last message */

	/* How to answer requests to write */
	atomic_bool mute;		/* not at all */
	atomic_int refuse;		/* with this errno, and write nothing */
	atomic_ushort last_write;	/* the last one's id, for late answers */

	/* The server, if it is in this process */
	struct guest_mem *mem;
	struct ptdma *pt;
	pthread_t thread;
	int server_sock;
	int result;			/* of vfu_serve() */
	struct vfu_device vdev;

	int file;
	uint8_t *ram;			/* all of the file */
	uint8_t *written;		/* as well, for requests to write */
	int irq;			/* eventfd */

	/* The driver's view of its ring */
	uint32_t control;		/* size and high part of the base */
	uint32_t slots;
	uint32_t tail;			/* slot number */
};

/* Without faults, as fast as it goes. */
extern const struct ptdma_options plain;

/*
 * Start a server in this process and connect to it; or talk to one at @sock.
 * Both leave everything else to the caller, the next one does it all.
 */
bool client_start(struct client *c, const struct ptdma_options *opt);
bool client_attach(struct client *c, int sock);
/* Say hello, map the memory, enable the interrupt, the bus and a ring. */
bool client_setup(struct client *c, unsigned int ring_size);
/* Disconnect, wait for the server if it is here, and return its result. */
int client_stop(struct client *c);

/* Messages. Return an errno from the reply, 0, or -1 if no reply came. */
struct message {
	uint32_t command;
	uint32_t flags;
	const void *body;
	size_t len;
	const int *fds;
	unsigned int nr_fds;
	void *reply;			/* the reply's body goes here, */
	size_t room;			/* at most so much of it; */
	size_t got;			/* this is how long it was */
};

bool client_send(struct client *c, const struct message *m);
int client_receive(struct client *c, struct message *m);
int client_call(struct client *c, struct message *m);
/* Answer a request to write, with an errno. */
bool client_answer(struct client *c, uint16_t id, int error);

int client_hello(struct client *c, uint16_t major);
int client_map(struct client *c, uint64_t iova, uint64_t size, uint32_t flags,
	       int fd, uint64_t offset);
int client_unmap(struct client *c, uint64_t iova, uint64_t size,
		 uint32_t flags, uint64_t *unmapped);
int client_read(struct client *c, uint32_t region, uint64_t off, void *buf,
		uint32_t len);
int client_write(struct client *c, uint32_t region, uint64_t off,
		 const void *buf, uint32_t len);
int client_irqs(struct client *c, uint32_t flags, uint32_t index,
		uint32_t start, uint32_t count, int fd);
int client_reset(struct client *c);

/* Registers and configuration space; ~0 where the access fails. */
uint32_t reg_read(struct client *c, uint32_t off);
void reg_write(struct client *c, uint32_t off, uint32_t value);
uint32_t cfg_read(struct client *c, uint32_t off, uint32_t len);
void cfg_write(struct client *c, uint32_t off, uint32_t value, uint32_t len);
void bus_master(struct client *c, bool on);

/* The guest's pointer to what the device has in LOW, HIGH or WRITEONLY. */
uint8_t *at(struct client *c, uint64_t iova);
void fill(struct client *c, uint64_t iova, size_t len, unsigned int seed);
/* How many of the bytes from there are as fill() has put them. */
size_t filled(struct client *c, uint64_t iova, size_t len, unsigned int seed);

/* The driver's part. queue() writes a descriptor, run() tells the device. */
#define DW0	0x500012u		/* what the driver puts there */
void queue_raw(struct client *c, const uint32_t *words);
void queue(struct client *c, uint64_t dst, uint64_t src, uint32_t len);
void run(struct client *c);
void reset_ring(struct client *c, unsigned int ring_size);
uint32_t head(struct client *c);	/* slot number */
bool wait_head(struct client *c, uint32_t slot);

/* Interrupts within @ms milliseconds: 0, or how often it was signalled. */
uint64_t irqs(struct client *c, int ms);
/* Wait for it, then acknowledge and return what was pending. */
uint32_t wait_done(struct client *c);

#define SOON	20			/* ms in which nothing should happen */
#define LATE	10000			/* ms in which something has to */

int64_t now_ms(void);
void sleep_ms(int ms);

#endif /* CLIENT_H */
