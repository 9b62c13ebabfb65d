// SPDX-License-Identifier: GPL-2.0
/*
 * For tests: DMA mappings as a client must expect them, and seldom sees them
 *
 * The DMA API may merge the segments of a scatterlist in any way it likes. What
 * iommu_dma_map_sg() makes of two lists with the same lengths is the same,
 * though, and it keeps to the length that the device states, so a client that
 * relies on either goes unnoticed. Since all of a list is one range of I/O
 * virtual addresses, it can be cut at other places as well: here, what the
 * device reads becomes segments some of which are longer than it states, and
 * what it writes becomes others, which end elsewhere. None ends where a folio
 * does but by chance.
 *
 * Devices can also be made to reach a part of memory only, as behind a bridge
 * that has fewer address lines.
 *
 * Everything is undone when the module is unloaded. There must be no mappings
 * when it is loaded or unloaded.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/array_size.h>
#include <linux/dma-mapping.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/string.h>

#define MAX_DEVICES	16

static char *driver = "ptdma";
module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "Whose PCI devices: a driver's name");

static unsigned int devices = MAX_DEVICES;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "How many of them at most, from the first on");

static bool recut;
module_param(recut, bool, 0444);
MODULE_PARM_DESC(recut, "Cut what an IOMMU maps at other places");

static unsigned int max_seg;
module_param(max_seg, uint, 0444);
MODULE_PARM_DESC(max_seg, "How long a segment the devices state, 0: as it is");

static unsigned int limit_bits;
module_param(limit_bits, uint, 0444);
MODULE_PARM_DESC(limit_bits, "Address bits that reach memory, 0: as it is");

/* Those that are cut at other places */
static unsigned long recuts;
module_param(recuts, ulong, 0444);

static struct odd_device {
	struct pci_dev *pdev;
	unsigned int max_seg;
	u64 bus_dma_limit;
} odd_devices[MAX_DEVICES];
static unsigned int nr_odd;

static bool is_odd(struct device *dev)
{
	unsigned int i;

	for (i = 0; i < nr_odd; i++)
		if (&odd_devices[i].pdev->dev == dev)
			return true;
	return false;
}

/* Pages of each segment, again and again */
static const unsigned int odd_read[] = { 5, 33, 18, 129, 3, 67 };
static const unsigned int odd_written[] = { 1, 3, 17, 2, 7, 1, 31, 5 };

static size_t odd_len(enum dma_data_direction dir, unsigned int i)
{
	if (dir == DMA_TO_DEVICE)
		return odd_read[i % ARRAY_SIZE(odd_read)] * PAGE_SIZE;
	return odd_written[i % ARRAY_SIZE(odd_written)] * PAGE_SIZE;
}

/*
 * Returns how many segments there are now. As many as the list has entries are
 * possible, so the last one is what is left.
 */
static int odd_cut(struct scatterlist *sgl, int nents, int ents,
		   enum dma_data_direction dir)
{
	dma_addr_t start = sg_dma_address(sgl), end = start;
	struct scatterlist *sg;
	int i, nr = 0;

	for_each_sg(sgl, sg, ents, i) {
		if (sg_dma_address(sg) != end)
			return ents;
		end += sg_dma_len(sg);
	}
	if (end - start > UINT_MAX)
		return ents;

	for_each_sg(sgl, sg, nents, i) {
		u64 len = end - start;

		if (i < nents - 1)
			len = min(len, (u64)odd_len(dir, i));
		sg_dma_address(sg) = len ? start : DMA_MAPPING_ERROR;
		sg_dma_len(sg) = len;
		start += len;
		nr += !!len;
	}
	return nr;
}

struct odd_call {
	struct scatterlist *sgl;
	int nents;
	enum dma_data_direction dir;
};

static int odd_entry(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	struct odd_call *call = (void *)ri->data;

	if (!is_odd((struct device *)regs_get_kernel_argument(regs, 0)))
		return 1;
	call->sgl = (void *)regs_get_kernel_argument(regs, 1);
	call->nents = regs_get_kernel_argument(regs, 2);
	call->dir = regs_get_kernel_argument(regs, 3);
	return 0;
}

static int odd_return(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	struct odd_call *call = (void *)ri->data;
	int ents = regs_return_value(regs);

	if (ents <= 0 || !sg_dma_len(call->sgl))
		return 0;
	regs_set_return_value(regs, odd_cut(call->sgl, call->nents, ents,
					    call->dir));
	WRITE_ONCE(recuts, recuts + 1);
	return 0;
}

static struct kretprobe odd_probe = {
	.kp.symbol_name = "iommu_dma_map_sg",
	.entry_handler = odd_entry,
	.handler = odd_return,
	.data_size = sizeof(struct odd_call),
	.maxactive = 64,
};

static void odd_restore(void)
{
	while (nr_odd) {
		struct odd_device *odd = &odd_devices[--nr_odd];
		struct device *dev = &odd->pdev->dev;

		dma_set_max_seg_size(dev, odd->max_seg);
		dev->bus_dma_limit = odd->bus_dma_limit;
		pci_dev_put(odd->pdev);
	}
}

static int __init odd_init(void)
{
	struct pci_dev *pdev = NULL;
	int ret;

	for_each_pci_dev(pdev) {
		struct device *dev = &pdev->dev;

		if (strcmp(dev_driver_string(dev), driver))
			continue;
		if (nr_odd == min(devices, MAX_DEVICES)) {
			pci_dev_put(pdev);
			break;
		}
		odd_devices[nr_odd++] = (struct odd_device) {
			.pdev = pci_dev_get(pdev),
			.max_seg = dma_get_max_seg_size(dev),
			.bus_dma_limit = dev->bus_dma_limit,
		};
		if (max_seg)
			dma_set_max_seg_size(dev, max_seg);
		if (limit_bits)
			dev->bus_dma_limit = DMA_BIT_MASK(limit_bits);
	}
	if (!nr_odd) {
		pr_err("no device of %s\n", driver);
		return -ENODEV;
	}
	if (recut) {
		ret = register_kretprobe(&odd_probe);
		if (ret) {
			odd_restore();
			return ret;
		}
	}
	pr_info("%u devices of %s\n", nr_odd, driver);
	return 0;
}
module_init(odd_init);

static void __exit odd_exit(void)
{
	if (recut)
		unregister_kretprobe(&odd_probe);
	odd_restore();
}
module_exit(odd_exit);

MODULE_DESCRIPTION("Odd DMA mappings, for tests");
MODULE_LICENSE("GPL");
