// SPDX-License-Identifier: GPL-2.0
/*
 * In the guest: make the copy of a page by the CPU cost more instructions.
 *
 * A preset needs this if the CPU of its machine copies slower, relative to all
 * other code. A probe at the function that copies each page of a folio loops
 * for as many instructions as the parameter says, less what the probe costs.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static unsigned int page_insns = 1000;
module_param(page_insns, uint, 0444);
MODULE_PARM_DESC(page_insns, "Additional instructions for each page, 100000 at most");

/* Instructions that the probe itself costs, as the machine counted them */
#define PROBE_INSNS	164

static int copying(struct kprobe *p, struct pt_regs *regs)
{
	unsigned long n = 0;

	if (page_insns > PROBE_INSNS)
		n = (page_insns - PROBE_INSNS) / 2;
	if (n)
		asm volatile("1: dec %0; jnz 1b" : "+r" (n));
	return 0;
}
NOKPROBE_SYMBOL(copying);

static struct kprobe probe = {
	.symbol_name = "copy_mc_to_kernel",
	.pre_handler = copying,
};

static int __init copy_cost_init(void)
{
	if (page_insns > 100000)
		return -EINVAL;
	return register_kprobe(&probe);
}
module_init(copy_cost_init);

static void __exit copy_cost_exit(void)
{
	unregister_kprobe(&probe);
}
module_exit(copy_cost_exit);

MODULE_DESCRIPTION("Makes the CPU's copy of a page cost more");
MODULE_LICENSE("GPL");
