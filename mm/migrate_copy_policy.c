// SPDX-License-Identifier: GPL-2.0
/*
 * Policy of the copy offload: the files in /sys/kernel/mm/migrate_offload.
 *
 * A migrator registers with the reasons and the minimum size of a folio that
 * suit it. They apply while the operator has "auto". A value that the operator
 * writes applies to every migrator.
 */
#include <linux/ctype.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/migrate.h>
#include <linux/migrate_copy_offload.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/time64.h>

#include "internal.h"
#include "migrate_copy_offload.h"

/*
 * By default, the CPU copies smaller batches, since starting an engine and
 * waiting for it costs as much CPU time as the copy. Copying is a smaller part
 * of migrating a small folio, so a batch of folios that average less than
 * SMALL_FOLIO_BYTES has to save more.
 */
#define AUTO_BATCH_BYTES	SZ_128K
#define AUTO_SMALL_BATCH_BYTES	SZ_192K
#define SMALL_FOLIO_BYTES	SZ_16K

/* Value of migrate_min_batch_bytes while the operator has "auto" */
#define BATCH_BYTES_AUTO	UINT_MAX

unsigned int migrate_min_batch_bytes __read_mostly = BATCH_BYTES_AUTO;

/* In effect: a mask of BIT(enum migrate_reason), and a number of bytes */
unsigned long migrate_offload_reasons __read_mostly;
unsigned int migrate_min_folio_bytes __read_mostly;

/* Protects writes to the two above, and what follows */
static DEFINE_MUTEX(policy_mutex);
static unsigned long default_reasons;
static unsigned int default_min_folio_bytes;
static bool reasons_are_auto = true;
static bool min_folio_bytes_is_auto = true;

/* Apply the defaults of the migrator in use where the operator has "auto" */
static void apply_defaults(void)
{
	lockdep_assert_held(&policy_mutex);
	if (reasons_are_auto)
		WRITE_ONCE(migrate_offload_reasons, default_reasons);
	if (min_folio_bytes_is_auto)
		WRITE_ONCE(migrate_min_folio_bytes, default_min_folio_bytes);
}

/**
 * migrate_policy_use - apply the defaults of the migrator that is now in use
 * @reasons: reasons to offload, a mask of BIT(enum migrate_reason)
 * @min_folio_bytes: minimum size of a folio, in bytes
 *
 * Context: Process context, may sleep.
 */
void migrate_policy_use(unsigned long reasons, unsigned int min_folio_bytes)
{
	guard(mutex)(&policy_mutex);
	default_reasons = reasons;
	default_min_folio_bytes = min_folio_bytes;
	apply_defaults();
}

/**
 * migrate_policy_min_bytes - get the minimum size of a batch
 *
 * Context: Any.
 *
 * Return: bytes. Batches of small folios may need more.
 */
size_t migrate_policy_min_bytes(void)
{
	const unsigned int fixed = READ_ONCE(migrate_min_batch_bytes);

	return fixed == BATCH_BYTES_AUTO ? AUTO_BATCH_BYTES : fixed;
}

/**
 * migrate_policy_takes - test whether a batch is large enough for a migrator
 * @bytes: size of the batch
 * @nr: number of its folios
 *
 * Context: Any.
 *
 * Return: true if it is.
 */
bool migrate_policy_takes(size_t bytes, unsigned int nr)
{
	const unsigned int fixed = READ_ONCE(migrate_min_batch_bytes);

	if (fixed != BATCH_BYTES_AUTO)
		return bytes >= fixed;
	return bytes >= (bytes < (size_t)nr * SMALL_FOLIO_BYTES ?
			 AUTO_SMALL_BATCH_BYTES : AUTO_BATCH_BYTES);
}

static int reason_by_name(const char *name, size_t len)
{
	int i;

	for (i = 0; i < MR_NEVER; i++)
		if (strlen(migrate_reason_names[i]) == len &&
		    !strncmp(migrate_reason_names[i], name, len))
			return i;
	return -EINVAL;
}

/* Read a number, "all", "none", or names with commas between them */
static int parse_reasons(const char *buf, unsigned long *reasons)
{
	unsigned long mask = 0;
	size_t len;
	int ret;

	if (sysfs_streq(buf, "all")) {
		*reasons = MIGRATE_OFFLOAD_ALL_REASONS;
		return 0;
	}
	if (sysfs_streq(buf, "none")) {
		*reasons = 0;
		return 0;
	}

	ret = kstrtoul(buf, 0, &mask);
	if (ret == -ERANGE)
		return ret;
	if (!ret) {
		if (mask & ~MIGRATE_OFFLOAD_ALL_REASONS)
			return -EINVAL;
		*reasons = mask;
		return 0;
	}

	mask = 0;
	buf = skip_spaces(buf);
	for (;;) {
		len = strcspn(buf, ", \t\n");
		ret = reason_by_name(buf, len);
		if (ret < 0)
			return ret;
		mask |= BIT(ret);
		buf += len;
		if (*buf != ',')
			break;
		buf++;
	}
	if (*skip_spaces(buf))
		return -EINVAL;
	*reasons = mask;
	return 0;
}

/* Append what parse_reasons() can read, and a line feed */
static int emit_reasons(char *buf, int at, unsigned long reasons)
{
	int len = at, i;

	if (!reasons)
		len += sysfs_emit_at(buf, len, "none");
	for_each_set_bit(i, &reasons, MR_NEVER)
		len += sysfs_emit_at(buf, len, "%s%s", len > at ? "," : "",
				     migrate_reason_names[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}

/*
 * Return what follows "auto", or NULL if @buf is something else. A value may
 * follow, since what was shown can be written back. Callers ignore that value.
 */
static const char *after_auto(const char *buf)
{
	if (strncmp(buf, "auto", 4) || (buf[4] && !isspace(buf[4])))
		return NULL;
	return skip_spaces(buf + 4);
}

/* Read a number from @min to @max, or "auto", which @auto_value stands for */
static int parse_auto(const char *buf, unsigned int min, unsigned int max,
		      unsigned int auto_value, unsigned int *value)
{
	const char *rest = after_auto(buf);
	unsigned int number;
	int ret;

	if (rest && !*rest) {
		WRITE_ONCE(*value, auto_value);
		return 0;
	}
	ret = kstrtouint(rest ?: buf, 0, &number);
	if (ret)
		return ret;
	if (rest) {
		WRITE_ONCE(*value, auto_value);
		return 0;
	}
	if (number < min || number > max)
		return -EINVAL;
	WRITE_ONCE(*value, number);
	return 0;
}

/* Show a number, or "auto" and what it stands for at the moment */
static ssize_t show_auto(char *buf, bool automatic, unsigned long number)
{
	return sysfs_emit(buf, "%s%lu\n", automatic ? "auto " : "", number);
}

static ssize_t migrator_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return migrate_offload_show_migrators(buf);
}

static ssize_t migrator_store(struct kobject *kobj,
			      struct kobj_attribute *attr, const char *buf,
			      size_t count)
{
	return migrate_offload_choose(buf) ?: count;
}

static struct kobj_attribute migrator_attr = __ATTR_RW(migrator);

static ssize_t reasons_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	int at = 0;

	guard(mutex)(&policy_mutex);
	if (reasons_are_auto)
		at = sysfs_emit(buf, "auto ");
	return emit_reasons(buf, at, migrate_offload_reasons);
}

static ssize_t reasons_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	const char *rest = after_auto(buf);
	unsigned long reasons;
	int ret;

	if (!rest || *rest) {
		ret = parse_reasons(rest ?: buf, &reasons);
		if (ret)
			return ret;
	}
	guard(mutex)(&policy_mutex);
	reasons_are_auto = rest;
	if (!reasons_are_auto)
		WRITE_ONCE(migrate_offload_reasons, reasons);
	apply_defaults();
	return count;
}

static struct kobj_attribute reasons_attr = __ATTR_RW(reasons);

static ssize_t min_folio_bytes_show(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	guard(mutex)(&policy_mutex);
	return show_auto(buf, min_folio_bytes_is_auto, migrate_min_folio_bytes);
}

static ssize_t min_folio_bytes_store(struct kobject *kobj,
				     struct kobj_attribute *attr,
				     const char *buf, size_t count)
{
	int ret;

	guard(mutex)(&policy_mutex);
	ret = parse_auto(buf, 0, SZ_1G, default_min_folio_bytes,
			 &migrate_min_folio_bytes);
	if (ret)
		return ret;
	min_folio_bytes_is_auto = after_auto(buf);
	return count;
}

static struct kobj_attribute min_folio_bytes_attr = __ATTR_RW(min_folio_bytes);

static ssize_t min_batch_bytes_show(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	const unsigned int fixed = READ_ONCE(migrate_min_batch_bytes);

	return show_auto(buf, fixed == BATCH_BYTES_AUTO,
			 migrate_policy_min_bytes());
}

static ssize_t min_batch_bytes_store(struct kobject *kobj,
				     struct kobj_attribute *attr,
				     const char *buf, size_t count)
{
	return parse_auto(buf, 0, SZ_1G, BATCH_BYTES_AUTO,
			  &migrate_min_batch_bytes) ?: count;
}

static struct kobj_attribute min_batch_bytes_attr = __ATTR_RW(min_batch_bytes);

static ssize_t latency_us_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	const unsigned int fixed = READ_ONCE(migrate_latency_us);

	return show_auto(buf, !fixed, fixed ?: migrate_latency_last_us());
}

static ssize_t latency_us_store(struct kobject *kobj,
				struct kobj_attribute *attr,
				const char *buf, size_t count)
{
	return parse_auto(buf, 1, USEC_PER_SEC, 0, &migrate_latency_us) ?:
	       count;
}

static struct kobj_attribute latency_us_attr = __ATTR_RW(latency_us);

static ssize_t chunk_bytes_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	const unsigned int fixed = READ_ONCE(migrate_chunk_bytes);

	return show_auto(buf, !fixed, fixed ?: migrate_latency_last_bytes());
}

static ssize_t chunk_bytes_store(struct kobject *kobj,
				 struct kobj_attribute *attr,
				 const char *buf, size_t count)
{
	return parse_auto(buf, PAGE_SIZE, SZ_1G, 0, &migrate_chunk_bytes) ?:
	       count;
}

static struct kobj_attribute chunk_bytes_attr = __ATTR_RW(chunk_bytes);

static ssize_t share_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(migrate_share));
}

static ssize_t share_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	bool share;
	int ret;

	ret = kstrtobool(buf, &share);
	if (ret)
		return ret;
	WRITE_ONCE(migrate_share, share);
	return count;
}

static struct kobj_attribute share_attr = __ATTR_RW(share);

static struct attribute *migrate_offload_attrs[] = {
	&migrator_attr.attr,
	&reasons_attr.attr,
	&min_folio_bytes_attr.attr,
	&min_batch_bytes_attr.attr,
	&latency_us_attr.attr,
	&chunk_bytes_attr.attr,
	&share_attr.attr,
	NULL,
};

static const struct attribute_group migrate_offload_group = {
	.attrs = migrate_offload_attrs,
};

static int __init migrate_offload_sysfs_init(void)
{
	struct kobject *kobj;
	int ret;

	kobj = kobject_create_and_add("migrate_offload", mm_kobj);
	if (!kobj)
		return -ENOMEM;
	ret = sysfs_create_group(kobj, &migrate_offload_group);
	if (ret)
		kobject_put(kobj);
	return ret;
}
subsys_initcall(migrate_offload_sysfs_init);

#ifdef CONFIG_MIGRATION_COPY_OFFLOAD_KUNIT_TEST
#include "tests/migrate_copy_policy-kunit.h"
#endif
