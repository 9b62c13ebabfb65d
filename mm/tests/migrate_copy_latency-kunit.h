/* SPDX-License-Identifier: GPL-2.0 */
/* KUnit tests of how much is unmapped at once, included at the end of it */
#ifndef _MM_MIGRATE_COPY_LATENCY_KUNIT_H
#define _MM_MIGRATE_COPY_LATENCY_KUNIT_H

#include <kunit/test.h>
#include <linux/slab.h>

struct latency_test {
	struct migrate_budget budget;
	struct folio *folios[2];	/* a page, and 64 KiB */
	/* What the tests change, to be put back */
	typeof(migrate_folio_ns) folio_ns;
	struct ewma_migrate_ns submit_ns;
	unsigned long cpu_copy_ns;
	unsigned int latency_us;
	unsigned int chunk_bytes;
	bool share;
};

static void test_set_ns(struct ewma_migrate_ns *average, unsigned long ns)
{
	ewma_migrate_ns_init(average);
	if (ns)
		ewma_migrate_ns_add(average, ns);
}

/* What a folio of an order takes, and what a MiB does */
static void test_set_speed(unsigned int order, unsigned long unmap,
			   unsigned long move, unsigned long copy)
{
	test_set_ns(&migrate_folio_ns[order].unmap, unmap);
	test_set_ns(&migrate_folio_ns[order].move, move);
	test_set_ns(&migrate_folio_ns[order].copy, copy);
}

static int test_init(struct kunit *test)
{
	struct latency_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	if (PAGE_SIZE != SZ_4K)
		kunit_skip(test, "sizes are those of 4K pages");
	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->folios[0] = folio_alloc(GFP_KERNEL, 0);
	t->folios[1] = folio_alloc(GFP_KERNEL, 4);
	memcpy(t->folio_ns, migrate_folio_ns, sizeof(t->folio_ns));
	t->submit_ns = migrate_submit_ns;
	t->cpu_copy_ns = migrate_cpu_copy_ns;
	t->latency_us = migrate_latency_us;
	t->chunk_bytes = migrate_chunk_bytes;
	t->share = migrate_share;

	test_set_ns(&migrate_submit_ns, 0);
	migrate_cpu_copy_ns = 400 * NSEC_PER_USEC;
	migrate_latency_us = 0;
	migrate_chunk_bytes = 0;
	migrate_share = false;
	return t->folios[0] && t->folios[1] ? 0 : -ENOMEM;
}

static void test_exit(struct kunit *test)
{
	struct latency_test *t = test->priv;

	if (!t || !t->folios[0] || !t->folios[1])
		return;
	folio_put(t->folios[0]);
	folio_put(t->folios[1]);
	memcpy(migrate_folio_ns, t->folio_ns, sizeof(t->folio_ns));
	migrate_submit_ns = t->submit_ns;
	migrate_cpu_copy_ns = t->cpu_copy_ns;
	migrate_latency_us = t->latency_us;
	migrate_chunk_bytes = t->chunk_bytes;
	migrate_share = t->share;
}

/* How many such folios make a chunk? */
static unsigned int test_fill(struct kunit *test, struct folio *folio)
{
	struct latency_test *t = test->priv;

	migrate_budget_init(&t->budget);
	while (!migrate_budget_add(&t->budget, folio))
		;
	return t->budget.nr;
}

/* Nothing is known yet: as without a migrator, and nothing else meanwhile */
static void test_first(struct kunit *test)
{
	struct latency_test *t = test->priv;

	test_set_speed(0, 0, 0, 100000);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]),
			MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_TRUE(test, t->budget.alone);
	test_set_speed(4, 1000, 1000, 0);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[1]), 32);
	KUNIT_EXPECT_TRUE(test, t->budget.alone);
	test_set_speed(4, 1000, 1000, 1);
	KUNIT_EXPECT_GT(test, test_fill(test, t->folios[1]), 32);
	KUNIT_EXPECT_FALSE(test, t->budget.alone);
	/* The CPU copies what the migrator refuses */
	migrate_latency_refused(true);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[1]), 32);
	KUNIT_EXPECT_FALSE(test, t->budget.alone);
	migrate_latency_refused(false);
	KUNIT_EXPECT_GT(test, test_fill(test, t->folios[1]), 32);
}

/* A chunk of a fixed size ends with the folio that reaches it */
static void test_fixed(struct kunit *test)
{
	struct latency_test *t = test->priv;

	test_set_speed(0, USEC_PER_SEC, USEC_PER_SEC, USEC_PER_SEC);
	migrate_chunk_bytes = SZ_64K;
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 16);
	migrate_chunk_bytes = SZ_64K + 1;
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 17);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[1]), 2);
	/* There is no room for more in a batch */
	migrate_chunk_bytes = SZ_1G;
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]),
			MIGRATE_OFFLOAD_MAX_PAIRS);
	KUNIT_EXPECT_FALSE(test, t->budget.alone);
	KUNIT_EXPECT_EQ(test, t->budget.latency_ns, 0);
}

static void test_latency(struct kunit *test)
{
	struct latency_test *t = test->priv;

	/* The CPU is the slower one: n * (1 + 2 + 2) us, n in steps of 16 */
	test_set_speed(0, 1000, 2000, 1);
	migrate_latency_us = 1000;
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 192);
	/* Unmapping takes longer than moving: n * (2 + 2 + 1) us */
	test_set_speed(0, 2000, 1000, 1);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 192);
	/* The engine is the slowest: n * (1 + 7 + 2) us */
	test_set_speed(0, 1000, 2000, 7 * 256 * 1000);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 96);
	/* Two batches have to be submitted meanwhile */
	test_set_ns(&migrate_submit_ns, 50000);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 88);
	/* A batch that is too small is worth nothing, but one folio is */
	migrate_latency_us = 1;
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[0]), 64);
	test_set_speed(4, 1000, 2000, 1);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[1]), 4);
}

/* By default, as long as the CPU alone would need, less a margin */
static void test_auto(struct kunit *test)
{
	struct latency_test *t = test->priv;

	/* 512 * (2000 + 400000 / 256) ns */
	test_set_speed(0, 1000, 2000, 1);
	test_fill(test, t->folios[0]);
	KUNIT_EXPECT_EQ(test, t->budget.latency_ns,
			512 * 3562 - 512 * 3562 / 3);
	/* 32 * (20000 + 25000) ns */
	test_set_speed(4, 10000, 20000, 1);
	test_fill(test, t->folios[1]);
	KUNIT_EXPECT_EQ(test, t->budget.latency_ns, 1440000 - 1440000 / 16);
	/* Unmapping takes longer than moving and copying */
	test_set_speed(4, 50000, 20000, 1);
	test_fill(test, t->folios[1]);
	KUNIT_EXPECT_EQ(test, t->budget.latency_ns, 1600000 - 1600000 / 16);
	KUNIT_EXPECT_EQ(test, migrate_latency_ns_last, 1500000);
	KUNIT_EXPECT_EQ(test, migrate_chunk_bytes_last, t->budget.bytes);
}

/* A chunk of ten pages that took 10, 5, 50 and 20 us */
static struct migrate_chunk_times test_times(void)
{
	return (struct migrate_chunk_times) {
		.start = 1000,
		.unmapped = 11000,
		.submit = 11000,
		.submit_ns = 5000,
		.copied = 66000,
		.move_ns = 20000,
		.nr_folios = 10,
		.nr_pages = 10,
		.nr_copied = 10,
		.bytes = 10 * PAGE_SIZE,
	};
}

static unsigned long test_learned(unsigned int order)
{
	return ewma_migrate_ns_read(&migrate_folio_ns[order].unmap);
}

static void test_learn(struct kunit *test)
{
	struct migrate_chunk_times times = test_times();

	test_set_speed(0, 0, 0, 0);
	/* The CPU copied one of them, and they were not of one size */
	times.nr_copied = 9;
	migrate_latency_learn(&times);
	times = test_times();
	times.nr_pages = 20;
	migrate_latency_learn(&times);
	/* None was unmapped, and nobody took the time */
	times = (struct migrate_chunk_times) {};
	migrate_latency_learn(&times);
	times = test_times();
	times.start = 0;
	migrate_latency_learn(&times);
	KUNIT_EXPECT_EQ(test, test_learned(0), 0);

	times = test_times();
	migrate_latency_learn(&times);
	KUNIT_EXPECT_EQ(test, test_learned(0), 1000);
	KUNIT_EXPECT_EQ(test,
			ewma_migrate_ns_read(&migrate_folio_ns[0].move), 2000);
	KUNIT_EXPECT_EQ(test, ewma_migrate_ns_read(&migrate_submit_ns), 5000);

	migrate_latency_learn_copy(0, SZ_2M, 1000, false);
	KUNIT_EXPECT_EQ(test, copy_ns(0, SZ_1M), 500);
	/* 0 would mean that nothing is known */
	test_set_speed(0, 0, 0, 0);
	migrate_latency_learn_copy(0, SZ_2M, 0, false);
	KUNIT_EXPECT_EQ(test, copy_ns(0, SZ_1M), 1);
}

/* With a slow engine, the CPU copies, too, and unmaps nothing meanwhile */
static void test_share(struct kunit *test)
{
	struct latency_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, migrate_latency_cpu_ns(SZ_2M), 0);
	migrate_latency_learn_copy(4, SZ_1M, 800000, true);
	test_set_speed(4, 1000, 1000, 800000);
	test_fill(test, t->folios[1]);
	KUNIT_EXPECT_FALSE(test, t->budget.alone);
	KUNIT_EXPECT_FALSE(test, migrate_latency_is_shared(4));

	migrate_share = true;
	KUNIT_EXPECT_EQ(test, migrate_latency_cpu_ns(SZ_2M), 800000);
	KUNIT_EXPECT_EQ(test, test_fill(test, t->folios[1]), 32);
	KUNIT_EXPECT_TRUE(test, t->budget.alone);
	/* 800 us to copy and 32 to move them, or 1600 us: a third, and more */
	KUNIT_EXPECT_EQ(test, migrate_latency_move_ns(4, SZ_2M), 832000);
	KUNIT_EXPECT_EQ(test, migrate_latency_part(4, SZ_2M),
			mul_u64_u64_div_u64(SZ_2M + SZ_512K, 832, 2432));
	KUNIT_EXPECT_EQ(test, migrate_latency_part(4, SZ_64K), SZ_256K);
	/* It is no longer the slower one */
	migrate_latency_learn_copy(4, SZ_1M, 400000, false);
	test_fill(test, t->folios[1]);
	KUNIT_EXPECT_FALSE(test, t->budget.alone);
}

/* Sleep while the migrator copies, from the begin of submit() on */
static void test_pause(struct kunit *test)
{
	struct migrate_chunk_times times = test_times();
	struct migrate_budget next = { .unmap_ns = 8000 };
	u64 copied;

	times.bytes = SZ_2M;
	test_set_speed(0, 1, 1, 500000);
	copied = times.submit + copy_ns(0, SZ_2M);
	KUNIT_EXPECT_EQ(test, pause_ns(&times, &next, 31000),
			copied - 31000 - 8000 - PAUSE_MARGIN_NS);
	/* The migrator is late already */
	KUNIT_EXPECT_LT(test, pause_ns(&times, &next, copied), 0);
}

static struct kunit_case latency_test_cases[] = {
	KUNIT_CASE(test_first),
	KUNIT_CASE(test_fixed),
	KUNIT_CASE(test_latency),
	KUNIT_CASE(test_auto),
	KUNIT_CASE(test_learn),
	KUNIT_CASE(test_share),
	KUNIT_CASE(test_pause),
	{}
};

static struct kunit_suite latency_test_suite = {
	.name = "migrate_offload_latency",
	.init = test_init,
	.exit = test_exit,
	.test_cases = latency_test_cases,
};

kunit_test_suite(latency_test_suite);

#endif /* _MM_MIGRATE_COPY_LATENCY_KUNIT_H */
