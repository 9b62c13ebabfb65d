// SPDX-License-Identifier: GPL-2.0-only
/*
 * The configuration space of a PCI function.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "pci-config.h"

#define MSIX_CAP	0x40

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = v;
	p[1] = v >> 8;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

void pci_config_init(struct pci_config *cfg, uint16_t vendor, uint16_t device,
		     uint32_t class)
{
	memset(cfg, 0, sizeof(*cfg));
	put16(cfg->reset + PCI_VENDOR_ID, vendor);
	put16(cfg->reset + PCI_DEVICE_ID, device);
	put16(cfg->reset + PCI_SUBSYSTEM_VENDOR_ID, vendor);
	put16(cfg->reset + PCI_SUBSYSTEM_ID, device);
	put32(cfg->reset + PCI_CLASS_REVISION, class << 8);

	put16(cfg->writable + PCI_COMMAND,
	      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
	      PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	cfg->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	cfg->writable[PCI_LATENCY_TIMER] = 0xff;
	cfg->writable[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_config_add_bar(struct pci_config *cfg, unsigned int bar,
			uint32_t size)
{
	size_t at = PCI_BASE_ADDRESS_0 + 4 * bar;

	put32(cfg->reset + at,
	      PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_32);
	put32(cfg->writable + at, ~(size - 1));
}

void pci_config_add_msix(struct pci_config *cfg,
			 const struct pci_config_msix *msix)
{
	uint8_t *cap = cfg->reset + MSIX_CAP;

	put16(cfg->reset + PCI_STATUS, PCI_STATUS_CAP_LIST);
	cfg->reset[PCI_CAPABILITY_LIST] = MSIX_CAP;

	cap[PCI_CAP_LIST_ID] = PCI_CAP_ID_MSIX;
	cap[PCI_CAP_LIST_NEXT] = 0;
	put16(cap + PCI_MSIX_FLAGS, msix->vectors - 1);
	put32(cap + PCI_MSIX_TABLE, msix->table | msix->bar);
	put32(cap + PCI_MSIX_PBA, msix->pba | msix->bar);
	put16(cfg->writable + MSIX_CAP + PCI_MSIX_FLAGS,
	      PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
}

void pci_config_reset(struct pci_config *cfg)
{
	memcpy(cfg->value, cfg->reset, sizeof(cfg->value));
}

static bool inside(uint64_t off, size_t len)
{
	return len <= PCI_CONFIG_SIZE && off <= PCI_CONFIG_SIZE - len;
}

int pci_config_read(const struct pci_config *cfg, uint64_t off, void *buf,
		    size_t len)
{
	if (!inside(off, len))
		return -EINVAL;
	memcpy(buf, cfg->value + off, len);
	return 0;
}

int pci_config_write(struct pci_config *cfg, uint64_t off, const void *buf,
		     size_t len)
{
	const uint8_t *from = buf;
	size_t i;

	if (!inside(off, len))
		return -EINVAL;
	for (i = 0; i < len; i++) {
		uint8_t mask = cfg->writable[off + i];

		cfg->value[off + i] &= ~mask;
		cfg->value[off + i] |= from[i] & mask;
	}
	return 0;
}

bool pci_config_bus_master(const struct pci_config *cfg)
{
	return cfg->value[PCI_COMMAND] & PCI_COMMAND_MASTER;
}
