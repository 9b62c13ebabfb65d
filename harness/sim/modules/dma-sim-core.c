// SPDX-License-Identifier: GPL-2.0
/* In the guest: the part of dma-sim that does not copy, as it is posted */
#include "dma-sim/core.c"
