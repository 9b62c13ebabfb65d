/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The 256 bytes of configuration space of a PCI function with memory BARs and
 * MSI-X.
 */
#ifndef PCI_CONFIG_H
#define PCI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCI_CONFIG_SIZE		256

struct pci_config {
	uint8_t value[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];	/* bits a write changes */
	uint8_t reset[PCI_CONFIG_SIZE];
};

struct pci_config_msix {
	unsigned int vectors;
	unsigned int bar;
	uint32_t table;			/* offsets into the BAR */
	uint32_t pba;
};

/* Set up, then reset once. Sizes of BARs are powers of two. */
void pci_config_init(struct pci_config *cfg, uint16_t vendor, uint16_t device,
		     uint32_t class);
void pci_config_add_bar(struct pci_config *cfg, unsigned int bar,
			uint32_t size);
void pci_config_add_msix(struct pci_config *cfg,
			 const struct pci_config_msix *msix);
void pci_config_reset(struct pci_config *cfg);

/* 0, or -EINVAL for a range that is not inside. */
int pci_config_read(const struct pci_config *cfg, uint64_t off, void *buf,
		    size_t len);
int pci_config_write(struct pci_config *cfg, uint64_t off, const void *buf,
		     size_t len);

bool pci_config_bus_master(const struct pci_config *cfg);

#endif /* PCI_CONFIG_H */
