/* SPDX-License-Identifier: GPL-2.0 */
/* Loop devices whose pages are moved, and ext4 on them. */
#ifndef _MIGRATE_OFFLOAD_DISK_H
#define _MIGRATE_OFFLOAD_DISK_H

#include <stdbool.h>
#include <stddef.h>

#define IMAGE_BYTES	(16UL << 20)

struct disk {
	char path[32];
	int fd;
	char *map;
};

bool disk_attach(struct disk *d, const char *path, size_t size);
void disk_detach(struct disk *d, size_t size);

bool make_file(const char *path, const void *data, size_t len);

/* Why there can be no ext4 on @d, or NULL. It is mounted at "mnt". */
const char *no_ext4(void);
bool make_ext4(const char *path, bool journal);
bool mount_ext4(const struct disk *d);
bool check_ext4(const char *path);

#endif /* _MIGRATE_OFFLOAD_DISK_H */
