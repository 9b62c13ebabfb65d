// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU plugin for the machine in simulated time.
 *
 * The plugin does work that must not take guest time: it copies memory for the
 * engine, fills and verifies memory for the benchmark, counts
 * instructions, and measures for how long each folio is not mapped. The guest
 * calls it as sim-call.h says.
 *
 * Time is the guest's time stamp counter, which QEMU's -icount shift=0 makes
 * count nanoseconds and instructions alike. QEMU does not tell a plugin the
 * time. So the plugin takes it from each call and each time that the guest reads
 * its counter, and adds the instructions that have run since. Until then, it
 * misses time in which all CPUs were idle; SIM_MOVED finds out.
 *
 * Arguments:
 *   unmap=ADDRESS       try_to_migrate(), where a folio loses its mappings
 *   remap=ADDRESS-END   remove_migration_pte(), where it gets one of them back
 *   flush=ADDRESS       try_to_unmap_flush(), where a batch has been unmapped
 *   profile=FILE        write "address instructions" of each block of code that
 *                       ran between SIM_BEGIN and SIM_END to FILE.NUMBER
 * Without the addresses, no folio is watched.
 */
#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu-api.h"
#define SIM_PLUGIN
#include "../sim-call.h"

/* Maximum difference between the plugin's time and the guest's, in nanoseconds */
#define CLOCK_SLACK_NS	2000
/* What is read or written at once */
#define CHUNK_SIZE	(1 << 20)
/* Bytes of an instruction that are looked at */
#define MAX_CODE	5

static const unsigned char call_insn[] = SIM_CALL_BYTES;

QEMU_EXPORT int qemu_plugin_version = QEMU_PLUGIN_API;

static struct {
	struct qemu_plugin_register *rax;
	struct qemu_plugin_register *rdi;
	struct qemu_plugin_register *rcx;
	struct qemu_plugin_register *rdx;
} regs;

/* Addresses of instructions that follow one that reads the counter */
static GHashTable *after_rdtsc;

/* Code addresses to watch, 0 if they are not */
static struct {
	uint64_t unmap;
	uint64_t remap;
	uint64_t remap_end;
	uint64_t flush;
} watched;

/*
 * Instructions since the machine was started. With -icount, one thread of QEMU
 * runs all CPUs in turn.
 */
static uint64_t insns;

static struct {
	uint64_t now;		/* the time that the guest has told, */
	uint64_t insns;		/* the instructions at that time, */
	unsigned int cpu;	/* and on which CPU */
} clock_sync;

/* Between SIM_BEGIN and SIM_MOVED */
static struct {
	bool on;
	GHashTable *folios;	/* that are not mapped: address, struct unmapped */
	bool first;		/* the next one is the first of its batch */
	uint64_t remapping;	/* the folio that gets its mappings back now */
	uint64_t nr;
	uint64_t batches;
	uint64_t firsts_ns;
	uint64_t max_ns;
} watch;

struct unmapped {
	uint64_t since;
	uint64_t until;		/* the last mapping is back, 0: none is */
	bool first;
};

static uint64_t count_begin;

/* A block of code that was translated */
struct block {
	uint64_t address;
	uint64_t insns;
	uint64_t runs;
};

static const char *profile;
static GPtrArray *blocks;
static bool profiling;

/* ---- registers, memory and time ------------------------------------------ */

static uint64_t read_reg(struct qemu_plugin_register *reg)
{
	g_autoptr(GByteArray) buf = g_byte_array_new();
	uint64_t value = 0;

	qemu_plugin_read_register(reg, buf);
	memcpy(&value, buf->data, MIN(buf->len, sizeof(value)));
	return value;
}

static void write_reg(struct qemu_plugin_register *reg, uint64_t value)
{
	g_autoptr(GByteArray) buf = g_byte_array_new();

	g_byte_array_append(buf, (const guint8 *)&value, sizeof(value));
	qemu_plugin_write_register(reg, buf);
}

static bool find_regs(void)
{
	g_autoptr(GArray) all = qemu_plugin_get_registers();
	unsigned int i;

	for (i = 0; i < all->len; i++) {
		const qemu_plugin_reg_descriptor *reg =
			&g_array_index(all, qemu_plugin_reg_descriptor, i);

		if (!strcmp(reg->name, "rax"))
			regs.rax = reg->handle;
		else if (!strcmp(reg->name, "rdi"))
			regs.rdi = reg->handle;
		else if (!strcmp(reg->name, "rcx"))
			regs.rcx = reg->handle;
		else if (!strcmp(reg->name, "rdx"))
			regs.rdx = reg->handle;
	}
	return regs.rax && regs.rdi && regs.rcx && regs.rdx;
}

static bool read_words(uint64_t address, uint64_t *words, size_t nr)
{
	g_autoptr(GByteArray) buf = g_byte_array_new();

	if (!qemu_plugin_read_memory_vaddr(address, buf, nr * sizeof(*words)) ||
	    buf->len != nr * sizeof(*words))
		return false;
	memcpy(words, buf->data, buf->len);
	return true;
}

static bool write_words(uint64_t address, const uint64_t *words, size_t nr)
{
	g_autoptr(GByteArray) buf = g_byte_array_new();

	g_byte_array_append(buf, (const guint8 *)words, nr * sizeof(*words));
	return qemu_plugin_write_memory_vaddr(address, buf);
}

static uint64_t now(void)
{
	return clock_sync.now + insns - clock_sync.insns;
}

static void sync_clock(uint64_t guest_now)
{
	clock_sync.now = guest_now;
	clock_sync.insns = insns;
}

/* ---- folios that are not mapped ------------------------------------------- */

/* Add what became of a folio to the results */
static gboolean add_folio(gpointer folio, gpointer value, gpointer unused)
{
	const struct unmapped *u = value;
	uint64_t ns;

	if (!u->until)
		return TRUE;
	ns = u->until - u->since;
	watch.nr++;
	watch.max_ns = MAX(watch.max_ns, ns);
	if (u->first) {
		watch.batches++;
		watch.firsts_ns += ns;
	}
	return TRUE;
}

static void folio_unmapped(unsigned int cpu, void *unused)
{
	struct unmapped *u;
	gpointer folio;

	if (!watch.on)
		return;
	folio = (gpointer)read_reg(regs.rdi);
	u = g_hash_table_lookup(watch.folios, folio);
	if (u && !u->until)
		return;
	if (u)
		add_folio(folio, u, NULL);
	u = g_new0(struct unmapped, 1);
	u->since = now();
	u->first = watch.first;
	watch.first = false;
	g_hash_table_insert(watch.folios, folio, u);
}

static void batch_unmapped(unsigned int cpu, void *unused)
{
	watch.first = true;
}

/* The fourth argument points to a pointer to the folio that was unmapped */
static void mapping_returns(unsigned int cpu, void *unused)
{
	if (watch.on && !read_words(read_reg(regs.rcx), &watch.remapping, 1))
		watch.remapping = 0;
}

static void mapping_returned(unsigned int cpu, void *unused)
{
	struct unmapped *u;

	if (!watch.on)
		return;
	u = g_hash_table_lookup(watch.folios, (gpointer)watch.remapping);
	if (u)
		u->until = now();
}

/* The counters of two CPUs differ: only that of the one that calls counts */
static void counter_was_read(unsigned int cpu, void *unused)
{
	if (watch.on && cpu == clock_sync.cpu)
		sync_clock(read_reg(regs.rdx) << 32 | (uint32_t)read_reg(regs.rax));
}

/* ---- the calls ----------------------------------------------------------- */

struct piece {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
};

static bool copy_piece(uint64_t dst, uint64_t src, uint64_t len)
{
	g_autoptr(GByteArray) buf = g_byte_array_new();

	return qemu_plugin_read_memory_hwaddr(src, buf, len) ==
	       QEMU_PLUGIN_HWADDR_OPERATION_OK && buf->len == len &&
	       qemu_plugin_write_memory_hwaddr(dst, buf) ==
	       QEMU_PLUGIN_HWADDR_OPERATION_OK;
}

static uint64_t call_copy(const uint64_t *args)
{
	uint64_t at = args[1], nr = args[2], left = args[3], i;

	sync_clock(args[0]);
	for (i = 0; i < nr && left; i++) {
		struct piece p;

		if (!read_words(at + i * sizeof(p), (uint64_t *)&p, 3))
			return 1;
		p.len = MIN(p.len, left);
		if (!copy_piece(p.dst, p.src, p.len))
			return 1;
		left -= p.len;
	}
	return 0;
}

static uint64_t pattern(uint64_t key, uint64_t address)
{
	uint64_t x = (key ^ address) * 0x9e3779b97f4a7c15ULL;

	return x ^ x >> 29;
}

static void make_pattern(uint64_t *words, size_t nr, uint64_t address,
			 uint64_t key)
{
	size_t i;

	for (i = 0; i < nr; i++)
		words[i] = pattern(key, address + i * sizeof(*words));
}

/* Write the pattern, or return how many words differ from it */
static uint64_t call_pattern(const uint64_t *args, bool fill)
{
	g_autofree uint64_t *want = g_malloc(CHUNK_SIZE);
	g_autofree uint64_t *got = g_malloc(CHUNK_SIZE);
	uint64_t address = args[0], left = args[1], wrong = 0;

	while (left) {
		size_t len = MIN(left, CHUNK_SIZE), nr = len / sizeof(*want), i;

		make_pattern(want, nr, address, args[2]);
		if (fill) {
			if (!write_words(address, want, nr))
				return 1;
		} else if (!read_words(address, got, nr)) {
			wrong += nr;
		} else if (memcmp(want, got, len)) {
			for (i = 0; i < nr; i++)
				wrong += want[i] != got[i];
		}
		address += len;
		left -= len;
	}
	return wrong;
}

static uint64_t call_begin(const uint64_t *args)
{
	unsigned int i;

	g_hash_table_remove_all(watch.folios);
	watch.on = watched.unmap;
	watch.first = true;
	watch.nr = 0;
	watch.batches = 0;
	watch.firsts_ns = 0;
	watch.max_ns = 0;
	for (i = 0; profile && i < blocks->len; i++)
		((struct block *)g_ptr_array_index(blocks, i))->runs = 0;
	profiling = profile;
	sync_clock(args[0]);
	count_begin = clock_sync.insns;
	return 0;
}

static uint64_t call_moved(uint64_t *args)
{
	uint64_t guest_now = args[0], mine = now();

	watch.on = false;
	g_hash_table_foreach_remove(watch.folios, add_folio, NULL);
	args[0] = watch.nr;
	args[1] = watch.batches;
	args[2] = watch.batches ? watch.firsts_ns / watch.batches : 0;
	args[3] = watch.max_ns;
	return MAX(mine, guest_now) - MIN(mine, guest_now) > CLOCK_SLACK_NS;
}

static void write_profile(uint64_t number)
{
	g_autofree char *name = g_strdup_printf("%s.%" PRIu64, profile, number);
	FILE *file = fopen(name, "w");
	unsigned int i;

	if (!file) {
		perror(name);
		return;
	}
	for (i = 0; i < blocks->len; i++) {
		const struct block *b = g_ptr_array_index(blocks, i);

		if (b->runs)
			fprintf(file, "%" PRIx64 " %" PRIu64 "\n", b->address,
				b->runs * b->insns);
	}
	fclose(file);
}

static uint64_t call_end(uint64_t *args)
{
	if (profiling)
		write_profile(args[0]);
	args[0] = insns - count_begin;
	return 0;
}

static void called(unsigned int cpu, void *unused)
{
	uint64_t args[SIM_CALL_ARGS], address, result;
	uint64_t name;

	if (!regs.rax && !find_regs()) {
		fprintf(stderr, "sim plugin: this is no x86_64 machine\n");
		exit(1);
	}
	name = read_reg(regs.rax);
	if (name < SIM_CALL_NAME || name > SIM_CALL_LAST)
		return;
	address = read_reg(regs.rdi);
	if (!read_words(address, args, SIM_CALL_ARGS))
		return;
	switch (name) {
	case SIM_COPY:
		result = call_copy(args);
		break;
	case SIM_FILL:
	case SIM_VERIFY:
		result = call_pattern(args, name == SIM_FILL);
		break;
	case SIM_BEGIN:
		clock_sync.cpu = cpu;
		result = call_begin(args);
		break;
	case SIM_MOVED:
		result = call_moved(args);
		break;
	default:
		result = call_end(args);
		break;
	}
	if (write_words(address, args, SIM_CALL_ARGS))
		write_reg(regs.rax, result);
}

/* ---- translation ---------------------------------------------------------- */

static void count_insns(unsigned int cpu, void *nr)
{
	insns += (uintptr_t)nr;
}

static void block_runs(unsigned int cpu, void *data)
{
	struct block *b = data;

	insns += b->insns;
	if (profiling)
		b->runs++;
}

static void profile_block(struct qemu_plugin_tb *tb)
{
	struct block *b = g_new0(struct block, 1);

	b->address = qemu_plugin_tb_vaddr(tb);
	b->insns = qemu_plugin_tb_n_insns(tb);
	g_ptr_array_add(blocks, b);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs,
					     QEMU_PLUGIN_CB_NO_REGS, b);
}

static void watch_insn(struct qemu_plugin_insn *insn, qemu_plugin_cpu_cb cb)
{
	qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, QEMU_PLUGIN_CB_R_REGS,
					       NULL);
}

/* Return whether an instruction of remove_migration_pte() returns to the caller */
static bool returns(uint64_t address, const unsigned char *code)
{
	int32_t offset;

	if (code[0] == 0xc3)	/* ret */
		return true;
	if (code[0] != 0xe9)	/* jmp, maybe to a return thunk */
		return false;
	memcpy(&offset, code + 1, sizeof(offset));
	address += 5 + offset;
	return address < watched.remap || address >= watched.remap_end;
}

static bool reads_counter(const unsigned char *code, size_t len)
{
	static const unsigned char rdtsc[] = { 0x0f, 0x31 };
	static const unsigned char rdtscp[] = { 0x0f, 0x01, 0xf9 };

	return (len == sizeof(rdtsc) && !memcmp(code, rdtsc, len)) ||
	       (len == sizeof(rdtscp) && !memcmp(code, rdtscp, len));
}

static void translated(struct qemu_plugin_tb *tb, void *unused)
{
	size_t nr = qemu_plugin_tb_n_insns(tb), i;

	if (profile)
		profile_block(tb);
	else
		qemu_plugin_register_vcpu_tb_exec_cb(tb, count_insns,
						     QEMU_PLUGIN_CB_NO_REGS,
						     (void *)nr);
	for (i = 0; i < nr; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		unsigned char code[MAX_CODE] = { 0 };
		size_t len;

		len = qemu_plugin_insn_data(insn, code, sizeof(code));
		if (len == sizeof(call_insn) && !memcmp(code, call_insn, len))
			qemu_plugin_register_vcpu_insn_exec_cb(
				insn, called, QEMU_PLUGIN_CB_RW_REGS, NULL);
		if (!watched.unmap)
			continue;
		/* The block may end between the two */
		if (reads_counter(code, len))
			g_hash_table_add(after_rdtsc, (gpointer)(address + len));
		else if (g_hash_table_contains(after_rdtsc, (gpointer)address))
			watch_insn(insn, counter_was_read);
		if (address == watched.unmap)
			watch_insn(insn, folio_unmapped);
		else if (address == watched.flush)
			watch_insn(insn, batch_unmapped);
		else if (address == watched.remap)
			watch_insn(insn, mapping_returns);
		else if (address > watched.remap &&
			 address < watched.remap_end && returns(address, code))
			watch_insn(insn, mapping_returned);
	}
}

/* ---- the start ------------------------------------------------------------ */

static bool parse_address(const char *text, uint64_t *address, char **end)
{
	*address = g_ascii_strtoull(text, end, 16);
	return *end != text && *address;
}

static bool parse_arg(const char *arg)
{
	const char *value = strchr(arg, '=');
	char *end;

	if (!value++)
		return false;
	if (g_str_has_prefix(arg, "unmap="))
		return parse_address(value, &watched.unmap, &end) && !*end;
	if (g_str_has_prefix(arg, "flush="))
		return parse_address(value, &watched.flush, &end) && !*end;
	if (g_str_has_prefix(arg, "remap="))
		return parse_address(value, &watched.remap, &end) &&
		       *end == '-' &&
		       parse_address(end + 1, &watched.remap_end, &end) &&
		       !*end;
	if (g_str_has_prefix(arg, "profile=")) {
		profile = g_strdup(value);
		return true;
	}
	return false;
}

QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
				    const qemu_info_t *info, int argc,
				    char **argv)
{
	int i;

	if (info->version.cur != QEMU_PLUGIN_API) {
		fprintf(stderr,
			"sim plugin: made for plugin API %d, but this QEMU has %d; next: use the QEMU that 'make fetch' brings\n",
			QEMU_PLUGIN_API, info->version.cur);
		return 1;
	}
	if (strcmp(info->target_name, "x86_64") || !info->system_emulation) {
		fprintf(stderr, "sim plugin: this is no x86_64 machine\n");
		return 1;
	}
	for (i = 0; i < argc; i++) {
		if (!parse_arg(argv[i])) {
			fprintf(stderr, "sim plugin: wrong argument '%s'\n",
				argv[i]);
			return 1;
		}
	}
	watch.folios = g_hash_table_new_full(g_direct_hash, g_direct_equal,
					     NULL, g_free);
	after_rdtsc = g_hash_table_new(g_direct_hash, g_direct_equal);
	blocks = g_ptr_array_new();
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
