/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How code in the simulated machine calls the QEMU plugin in sim/plugin.
 *
 * The call is an instruction that does nothing on a real machine. RAX names the
 * function, RDI points to its arguments. The plugin returns its result in RAX;
 * without the plugin, RAX keeps the name, which is no result of any function.
 *
 * Included by the kernel, by programs in the guest, and by the plugin.
 */
#ifndef _SIM_CALL_H
#define _SIM_CALL_H

#define SIM_CALL_NAME	0x51ac0000

/* What SIM_CALL_INSN is made of: xchg %bx, %bx */
#define SIM_CALL_BYTES	{ 0x66, 0x87, 0xdb }

enum sim_call {
	/*
	 * Copy memory at physical addresses.
	 * In: now, pieces, number of pieces, bytes. The pieces are an array of
	 * three 64-bit numbers each: destination, source, length.
	 * Returns 0, or 1 if an address is not memory.
	 */
	SIM_COPY = SIM_CALL_NAME,
	/* Write a pattern. In: address, bytes, key. Returns 0, or 1 on failure. */
	SIM_FILL,
	/*
	 * Compare with the pattern.
	 * In: address, bytes, key. Returns the number of wrong 64-bit words.
	 */
	SIM_VERIFY,
	/* Begin to count. In: now. Returns 0. */
	SIM_BEGIN,
	/*
	 * The move is over: folios are not watched any more.
	 * In: now. Out: folios that were unmapped and mapped again, batches,
	 * mean nanoseconds for which the first folio of a batch was not mapped,
	 * longest of any folio. Returns 0, or 1 if time passed that the plugin
	 * does not know of, so that the nanoseconds are wrong.
	 */
	SIM_MOVED,
	/*
	 * In: a number for the name of the profile. Out: instructions since
	 * SIM_BEGIN. May be called again. Returns 0.
	 */
	SIM_END,
	SIM_CALL_LAST = SIM_END
};

#define SIM_CALL_ARGS	4

#if defined(__x86_64__) && !defined(SIM_PLUGIN)

static inline unsigned long sim_now(void)
{
	unsigned int lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi) : : "memory");
	return (unsigned long)hi << 32 | lo;
}

static inline unsigned long sim_call(enum sim_call name, unsigned long *args)
{
	unsigned long ret = name;

	asm volatile(".byte 0x66, 0x87, 0xdb"
		     : "+a" (ret) : "D" (args) : "memory");
	return ret;
}

#endif

#endif /* _SIM_CALL_H */
