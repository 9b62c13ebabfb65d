// SPDX-License-Identifier: GPL-2.0
/* Loop devices whose pages are moved, and ext4 on them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <linux/loop.h>

#include "kselftest.h"
#include "hazards.h"
#include "disk.h"

/* Attach a file to a loop device, which is given up when nobody uses it */
bool disk_attach(struct disk *d, const char *path, size_t size)
{
	struct loop_config config = {
		.fd = open(path, O_RDWR),
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int ctl, nr;

	ctl = open("/dev/loop-control", O_RDWR);
	if (ctl < 0 || (int)config.fd < 0)
		return false;
	nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	snprintf(d->path, sizeof(d->path), "/dev/loop%d", nr);
	d->fd = open(d->path, O_RDWR);
	if (nr < 0 || d->fd < 0 || ioctl(d->fd, LOOP_CONFIGURE, &config)) {
		ksft_perror(d->path);
		close(config.fd);
		return false;
	}
	close(config.fd);
	/* udev looks at each new disk, and would read ahead what we need unread */
	run("udevadm settle --timeout=30 > /dev/null 2>&1");
	/* What is moved shall be what was touched, in single pages */
	posix_fadvise(d->fd, 0, 0, POSIX_FADV_RANDOM);
	d->map = mmap(NULL, size, PROT_READ, MAP_SHARED, d->fd, 0);
	if (d->map == MAP_FAILED) {
		close(d->fd);
		return false;
	}
	madvise(d->map, size, MADV_RANDOM);
	return true;
}

void disk_detach(struct disk *d, size_t size)
{
	munmap(d->map, size);
	ioctl(d->fd, LOOP_CLR_FD);
	close(d->fd);
}

bool mount_ext4(const struct disk *d)
{
	if (!mkdir("mnt", 0700) || errno == EEXIST)
		if (!mount(d->path, "mnt", "ext4", 0, NULL))
			return true;
	ksft_perror("mount ext4");
	return false;
}

bool make_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, data, len) == (ssize_t)len;
	close(fd);
	return ok;
}

const char *no_ext4(void)
{
	if (run("command -v mke2fs e2fsck > /dev/null"))
		return "no mke2fs or e2fsck";
	if (access("/dev/loop-control", F_OK))
		return "no loop devices";
	if (run("grep -qw ext4 /proc/filesystems"))
		return "no ext4";
	return NULL;
}

bool make_ext4(const char *path, bool journal)
{
	if (truncate(path, IMAGE_BYTES) && !make_file(path, "", 0))
		return false;
	if (truncate(path, IMAGE_BYTES))
		return false;
	return !run("mke2fs -q -F -t ext4 -b %d -O %shas_journal,^dir_index %s > mke2fs.log 2>&1",
		    BLOCK, journal ? "" : "^", path);
}

bool check_ext4(const char *path)
{
	if (!run("e2fsck -fn %s > e2fsck.log 2>&1", path))
		return true;
	fflush(stdout);
	run("sed 's/^/# e2fsck: /' e2fsck.log | head -n 20");
	return false;
}
