/* SPDX-License-Identifier: GPL-2.0 */
/* KUnit tests of what the operator can say, included at the end of it */
#ifndef _MM_MIGRATE_COPY_POLICY_KUNIT_H
#define _MM_MIGRATE_COPY_POLICY_KUNIT_H

#include <kunit/test.h>
#include <linux/slab.h>

/* ---- sets of reasons ---- */

#define TEST_UNTOUCHED	0xbadUL

static const struct test_good {
	const char *text;
	unsigned long reasons;
} test_goods[] = {
	{ "all", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "all\n", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "none", 0 },
	{ "none\n", 0 },
	{ "0", 0 },
	{ "0x0\n", 0 },
	{ "1", BIT(0) },
	{ "0x3ff", MIGRATE_OFFLOAD_ALL_REASONS },
	{ "0X108\n", BIT(MR_DEMOTION) | BIT(MR_SYSCALL) },
	{ "010", BIT(MR_SYSCALL) },
	{ "264", BIT(MR_DEMOTION) | BIT(MR_SYSCALL) },
	{ "demotion", BIT(MR_DEMOTION) },
	{ "demotion\n", BIT(MR_DEMOTION) },
	{ " \t demotion", BIT(MR_DEMOTION) },
	{ "demotion \t", BIT(MR_DEMOTION) },
	{ "demotion,demotion", BIT(MR_DEMOTION) },
	{ "damon,compaction,demotion\n",
	  BIT(MR_COMPACTION) | BIT(MR_DEMOTION) | BIT(MR_DAMON) },
};

KUNIT_ARRAY_PARAM_DESC(test_good, test_goods, text);

static void test_parse_good(struct kunit *test)
{
	const struct test_good *param = test->param_value;
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_EXPECT_EQ(test, parse_reasons(param->text, &reasons), 0);
	KUNIT_EXPECT_EQ(test, reasons, param->reasons);
}

static const struct test_bad {
	const char *text;
	int error;
} test_bads[] = {
	{ "", -EINVAL },
	{ "\n", -EINVAL },
	{ "  ", -EINVAL },
	{ "-1", -EINVAL },
	{ "-0x1", -EINVAL },
	/* One more than there are; all that fit in a long; more than fit */
	{ "0x400", -EINVAL },
	{ "0x401", -EINVAL },
	{ "0xffffffffffffffff", -EINVAL },
	{ "0x10000000000000000", -ERANGE },
	{ "99999999999999999999999999", -ERANGE },
	{ "1 2", -EINVAL },
	{ "1,2", -EINVAL },
	{ "0x", -EINVAL },
	{ "1.5", -EINVAL },
	{ "demotio", -EINVAL },
	{ "demotions", -EINVAL },
	{ "Demotion", -EINVAL },
	{ "All", -EINVAL },
	{ "all,demotion", -EINVAL },
	{ "demotion,all", -EINVAL },
	{ "demotion,none", -EINVAL },
	{ "demotion,1", -EINVAL },
	{ "demotion,", -EINVAL },
	{ ",demotion", -EINVAL },
	{ ",", -EINVAL },
	{ "demotion,,damon", -EINVAL },
	{ "demotion, damon", -EINVAL },
	{ "demotion ,damon", -EINVAL },
	{ "demotion damon", -EINVAL },
	{ "demotion\ndamon", -EINVAL },
	{ "damon,demotio", -EINVAL },
	{ "demotion;damon", -EINVAL },
	{ "\x01\x02\xff", -EINVAL },
	{ "demotion\xff", -EINVAL },
};

/* Some are empty or not fit to be printed */
static void test_bad_desc(const struct test_bad *param, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "\"%*pE\"",
		 (int)strlen(param->text), param->text);
}

KUNIT_ARRAY_PARAM(test_bad, test_bads, test_bad_desc);

static void test_parse_bad(struct kunit *test)
{
	const struct test_bad *param = test->param_value;
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_EXPECT_EQ(test, parse_reasons(param->text, &reasons),
			param->error);
	KUNIT_EXPECT_EQ(test, reasons, TEST_UNTOUCHED);
}

static void test_parse_names(struct kunit *test)
{
	int i;

	for (i = 0; i < MR_NEVER; i++) {
		const char *name = migrate_reason_names[i];
		unsigned long reasons = TEST_UNTOUCHED;
		int ret = parse_reasons(name, &reasons);

		KUNIT_EXPECT_EQ_MSG(test, ret, 0, "%s", name);
		KUNIT_EXPECT_EQ_MSG(test, reasons, BIT(i), "%s", name);
	}
}

/* A page's worth of anything is refused, but not overrun */
static void test_parse_long(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	unsigned long reasons = TEST_UNTOUCHED;

	KUNIT_ASSERT_NOT_NULL(test, text);
	memset(text, 'x', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, parse_reasons(text, &reasons),
			-EINVAL);
	memset(text, ',', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, parse_reasons(text, &reasons),
			-EINVAL);
	memset(text, '9', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, parse_reasons(text, &reasons),
			-ERANGE);
	KUNIT_EXPECT_EQ(test, reasons, TEST_UNTOUCHED);
}

/* Every set that there is can be read back as it was shown */
static void test_round_trip(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	unsigned long in, out;

	KUNIT_ASSERT_NOT_NULL(test, text);
	/* sysfs_emit() insists on a page */
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(text));
	for (in = 0; in <= MIGRATE_OFFLOAD_ALL_REASONS; in++) {
		int len = emit_reasons(text, 0, in);
		int ret;

		out = TEST_UNTOUCHED;
		KUNIT_ASSERT_EQ(test, len, strlen(text));
		KUNIT_ASSERT_EQ(test, text[len - 1], '\n');
		ret = parse_reasons(text, &out);
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "%s", text);
		KUNIT_ASSERT_EQ_MSG(test, in, out, "%s", text);
	}
}

static void test_show(struct kunit *test)
{
	char *text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, text);
	KUNIT_ASSERT_TRUE(test, PAGE_ALIGNED(text));
	emit_reasons(text, 0, 0);
	KUNIT_EXPECT_STREQ(test, text, "none\n");
	emit_reasons(text, 0, BIT(MR_DEMOTION));
	KUNIT_EXPECT_STREQ(test, text, "demotion\n");
	emit_reasons(text, 0, BIT(MR_DEMOTION) | BIT(MR_COMPACTION));
	KUNIT_EXPECT_STREQ(test, text, "compaction,demotion\n");
}

static struct kunit_case reasons_test_cases[] = {
	KUNIT_CASE_PARAM(test_parse_good, test_good_gen_params),
	KUNIT_CASE_PARAM(test_parse_bad, test_bad_gen_params),
	KUNIT_CASE(test_parse_names),
	KUNIT_CASE(test_parse_long),
	KUNIT_CASE(test_round_trip),
	KUNIT_CASE(test_show),
	{}
};

static struct kunit_suite reasons_test_suite = {
	.name = "migrate_offload_reasons",
	.test_cases = reasons_test_cases,
};

/* ---- what is in effect ---- */

struct policy_test {
	char *text;
	/* To be put back */
	unsigned long reasons;
	unsigned int min_folio_bytes;
	unsigned int min_batch_bytes;
	bool reasons_were_auto;
	bool min_folio_bytes_was_auto;
	unsigned long default_reasons;
	unsigned int default_min_folio_bytes;
};

static int test_init(struct kunit *test)
{
	struct policy_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	if (!t)
		return -ENOMEM;
	t->text = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	/* sysfs_emit() insists on a page */
	if (!t->text || !PAGE_ALIGNED(t->text))
		return -ENOMEM;
	guard(mutex)(&policy_mutex);
	t->reasons = migrate_offload_reasons;
	t->min_folio_bytes = migrate_min_folio_bytes;
	t->min_batch_bytes = migrate_min_batch_bytes;
	t->reasons_were_auto = reasons_are_auto;
	t->min_folio_bytes_was_auto = min_folio_bytes_is_auto;
	t->default_reasons = default_reasons;
	t->default_min_folio_bytes = default_min_folio_bytes;
	reasons_are_auto = true;
	min_folio_bytes_is_auto = true;
	test->priv = t;
	return 0;
}

static void test_exit(struct kunit *test)
{
	struct policy_test *t = test->priv;

	if (!t)
		return;
	guard(mutex)(&policy_mutex);
	migrate_offload_reasons = t->reasons;
	migrate_min_folio_bytes = t->min_folio_bytes;
	migrate_min_batch_bytes = t->min_batch_bytes;
	reasons_are_auto = t->reasons_were_auto;
	min_folio_bytes_is_auto = t->min_folio_bytes_was_auto;
	default_reasons = t->default_reasons;
	default_min_folio_bytes = t->default_min_folio_bytes;
}

static ssize_t test_write(struct kobj_attribute *attr, const char *text)
{
	return attr->store(NULL, attr, text, strlen(text));
}

static const char *test_read(struct kunit *test, struct kobj_attribute *attr)
{
	struct policy_test *t = test->priv;

	KUNIT_EXPECT_GT(test, attr->show(NULL, attr, t->text), 0);
	return t->text;
}

/* The operator's word holds for any migrator, until it is "auto" again */
static void test_reasons(struct kunit *test)
{
	migrate_policy_use(BIT(MR_CONTIG_RANGE), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_CONTIG_RANGE));
	KUNIT_EXPECT_STREQ(test, test_read(test, &reasons_attr),
			   "auto contig_range\n");
	KUNIT_EXPECT_EQ(test, test_write(&reasons_attr, "longterm_pin\n"), 13);
	migrate_policy_use(BIT(MR_CONTIG_RANGE), 0);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));
	KUNIT_EXPECT_STREQ(test, test_read(test, &reasons_attr),
			   "longterm_pin\n");
	KUNIT_EXPECT_EQ(test, test_write(&reasons_attr, "bogus"), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_write(&reasons_attr, "auto,damon"), -EINVAL);
	KUNIT_EXPECT_EQ(test, test_write(&reasons_attr, "auto bogus"), -EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_LONGTERM_PIN));

	/* As it was read */
	KUNIT_EXPECT_EQ(test, test_write(&reasons_attr, "auto contig_range\n"),
			18);
	KUNIT_EXPECT_EQ(test, migrate_offload_reasons, BIT(MR_CONTIG_RANGE));
	migrate_policy_use(0, 0);
	KUNIT_EXPECT_STREQ(test, test_read(test, &reasons_attr), "auto none\n");
}

static void test_min_folio_bytes(struct kunit *test)
{
	migrate_policy_use(0, SZ_16K);
	KUNIT_EXPECT_STREQ(test, test_read(test, &min_folio_bytes_attr),
			   "auto 16384\n");
	KUNIT_EXPECT_EQ(test, test_write(&min_folio_bytes_attr, "0"), 1);
	migrate_policy_use(0, SZ_64K);
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, 0);
	KUNIT_EXPECT_STREQ(test, test_read(test, &min_folio_bytes_attr), "0\n");
	KUNIT_EXPECT_EQ(test, test_write(&min_folio_bytes_attr, "1073741825"),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, 0);
	KUNIT_EXPECT_EQ(test, test_write(&min_folio_bytes_attr, "auto\n"), 5);
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, SZ_64K);
	migrate_policy_use(0, SZ_16K);
	KUNIT_EXPECT_EQ(test, migrate_min_folio_bytes, SZ_16K);
}

/* By default, small folios need half as much again */
static void test_min_batch_bytes(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, test_write(&min_batch_bytes_attr, "auto"), 4);
	KUNIT_EXPECT_STREQ(test, test_read(test, &min_batch_bytes_attr),
			   "auto 131072\n");
	KUNIT_EXPECT_TRUE(test, migrate_policy_takes(SZ_128K, 8));
	KUNIT_EXPECT_FALSE(test, migrate_policy_takes(SZ_128K - 1, 1));
	KUNIT_EXPECT_FALSE(test, migrate_policy_takes(SZ_128K, 9));
	KUNIT_EXPECT_FALSE(test, migrate_policy_takes(SZ_192K - 1, 48));
	KUNIT_EXPECT_EQ(test, migrate_policy_min_bytes(), SZ_128K);
	KUNIT_EXPECT_TRUE(test, migrate_policy_takes(SZ_192K, 48));

	KUNIT_EXPECT_EQ(test, test_write(&min_batch_bytes_attr, "8192\n"), 5);
	KUNIT_EXPECT_STREQ(test, test_read(test, &min_batch_bytes_attr),
			   "8192\n");
	KUNIT_EXPECT_FALSE(test, migrate_policy_takes(SZ_8K - 1, 2));
	KUNIT_EXPECT_TRUE(test, migrate_policy_takes(SZ_8K, 2));
	KUNIT_EXPECT_EQ(test, test_write(&min_batch_bytes_attr, "4294967295"),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, migrate_min_batch_bytes, SZ_8K);
	KUNIT_EXPECT_EQ(test, test_write(&min_batch_bytes_attr, "0"), 1);
	KUNIT_EXPECT_TRUE(test, migrate_policy_takes(1, 1));
}

static void test_parse_auto(struct kunit *test)
{
	static const char * const bad[] = {
		"", "\n", "automatic", "auto1", "auto x", "-1", "9", "101", "10s",
		"4294967306", "18446744073709551626",
	};
	unsigned int value = 55, i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		KUNIT_EXPECT_NE_MSG(test,
				    parse_auto(bad[i], 10, 100, 0, &value), 0,
				    "%s", bad[i]);
		KUNIT_EXPECT_EQ(test, value, 55);
	}
	KUNIT_EXPECT_EQ(test, parse_auto("10\n", 10, 100, 0, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 10);
	KUNIT_EXPECT_EQ(test, parse_auto("0x64", 10, 100, 0, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 100);
	KUNIT_EXPECT_EQ(test, parse_auto("auto\n", 10, 100, 7, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 7);
	/* As it is read */
	KUNIT_EXPECT_EQ(test, parse_auto("auto 835\n", 10, 100, 0, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 0);
}

static struct kunit_case policy_test_cases[] = {
	KUNIT_CASE(test_reasons),
	KUNIT_CASE(test_min_folio_bytes),
	KUNIT_CASE(test_min_batch_bytes),
	KUNIT_CASE(test_parse_auto),
	{}
};

static struct kunit_suite policy_test_suite = {
	.name = "migrate_offload_policy",
	.init = test_init,
	.exit = test_exit,
	.test_cases = policy_test_cases,
};

kunit_test_suites(&reasons_test_suite, &policy_test_suite);

#endif /* _MM_MIGRATE_COPY_POLICY_KUNIT_H */
