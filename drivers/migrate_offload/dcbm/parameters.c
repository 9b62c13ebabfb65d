// SPDX-License-Identifier: GPL-2.0
/*
 * DMA core batch migrator: parameters, and turning dcbm on and off
 *
 * The operator turns dcbm on and off. Sleep of the system, a reboot and the
 * unloading of the module turn it off, too; it is on again after sleep.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/ctype.h>
#include <linux/dmaengine.h>
#include <linux/lockdep.h>
#include <linux/migrate_copy_offload.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/reboot.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <linux/sysfs.h>

#include "dcbm.h"

/*
 * Compaction of small folios gains nothing from engines. A long-term pin
 * migrates few folios, and a task waits for it. A task also waits for memory
 * that NUMA balancing migrates, but for less time than if the CPU copied, and
 * for timeout_ms at most if the engine hangs. Failing memory is left to the
 * CPU, which can survive an error when it reads.
 */
#define DCBM_DEFAULT_REASONS						\
	(BIT(MR_MEMORY_HOTPLUG) | BIT(MR_SYSCALL) |			\
	 BIT(MR_MEMPOLICY_MBIND) | BIT(MR_NUMA_MISPLACED) |		\
	 BIT(MR_CONTIG_RANGE) | BIT(MR_DEMOTION) | BIT(MR_DAMON))

/* Parameters, and what turns the driver on and off */
DEFINE_MUTEX(dcbm_mutex);
VISIBLE_IF_KUNIT enum dcbm_phase dcbm_phase;
bool dcbm_offloading;
unsigned int dcbm_nr_dma_chan = 16;
/* Channels that were there when offloading was turned on */
unsigned int dcbm_nr_claimed = DCBM_MAX_CHANS;
bool dcbm_remote = true;
unsigned int dcbm_patience_ms = 200;
unsigned int dcbm_timeout_ms = 2000;
char dcbm_engines[DCBM_MAX_ENGINES];
/* The system sleeps, or is about to; whether to be on when it wakes up */
static bool dcbm_sleeping;
static bool dcbm_on_wakeup;

/* ---- on and off ---------------------------------------------------------- */

/* What a folio must have to be worth it, with the channels that there are */
VISIBLE_IF_KUNIT unsigned int dcbm_min_folio_bytes(void)
{
	lockdep_assert_held(&dcbm_mutex);
	return dcbm_all_sg() ? 0 : DCBM_MIN_FOLIO_BYTES;
}

VISIBLE_IF_KUNIT int dcbm_start(void)
{
	unsigned int nr;
	int ret;

	/* Those that have recovered by now are as good as new */
	dcbm_release_chans();

	dcbm_forget_unfit();
	dcbm_forget_speed();
	nr = dcbm_claim_chans();
	dcbm_check_engines();
	if (!nr) {
		pr_info("no DMA channel that can copy memory is free\n");
		dcbm_release_chans();
		return -ENODEV;
	}

	WRITE_ONCE(dcbm_nr_claimed, nr);
	ret = migrate_offload_register(&dcbm_ops, DCBM_DEFAULT_REASONS,
				       dcbm_min_folio_bytes());
	if (ret) {
		dcbm_release_chans();
		return ret;
	}
	pr_info("%u channels\n", nr);
	WRITE_ONCE(dcbm_offloading, true);
	return 0;
}

static void dcbm_stop(void)
{
	WRITE_ONCE(dcbm_offloading, false);
	/* Waits for the batches that are being copied */
	migrate_offload_unregister(&dcbm_ops);
	dcbm_release_chans();
}

/*
 * While the system sleeps, engines lose their state, and their drivers seldom
 * bring it back: give all channels back before, and claim and test them after.
 */
static int dcbm_pm_notify(struct notifier_block *nb, unsigned long event,
			  void *unused)
{
	guard(mutex)(&dcbm_mutex);
	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		/* An open /dev/snapshot is a sleep that can hold others */
		if (!dcbm_sleeping)
			dcbm_on_wakeup = dcbm_offloading;
		dcbm_sleeping = true;
		if (dcbm_offloading) {
			dcbm_stop();
			pr_info("off while the system sleeps\n");
		}
		/* The image goes to memory that these may still write to */
		if (event == PM_RESTORE_PREPARE)
			dcbm_stop_stuck();
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		dcbm_sleeping = false;
		if (dcbm_phase == DCBM_LIVE && dcbm_on_wakeup && dcbm_start())
			pr_warn("offloading stays off after sleep; turn it on once there are channels\n");
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block dcbm_pm_nb = {
	.notifier_call = dcbm_pm_notify,
};

/*
 * The next kernel uses the same memory, and does not know what engines still
 * write to. Let batches finish, allow no others, and stop engines that are
 * stuck as far as their drivers can. The driver core then shuts devices down.
 */
static int dcbm_reboot_notify(struct notifier_block *nb, unsigned long event,
			      void *unused)
{
	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase != DCBM_LIVE)
		return NOTIFY_DONE;
	dcbm_phase = DCBM_GOING;
	if (dcbm_offloading) {
		dcbm_stop();
		pr_info("off for a reboot\n");
	}
	dcbm_stop_stuck();
	return NOTIFY_DONE;
}

static struct notifier_block dcbm_reboot_nb = {
	.notifier_call = dcbm_reboot_notify,
};

static int dcbm_offloading_set(const char *val, const struct kernel_param *kp)
{
	bool on;
	int ret;

	ret = kstrtobool(val, &on);
	if (ret)
		return ret;

	guard(mutex)(&dcbm_mutex);
	switch (dcbm_phase) {
	case DCBM_LOADING:
		/* A wish, for dcbm_init() to fulfil */
		dcbm_offloading = on;
		return 0;
	case DCBM_GOING:
		return -ENODEV;
	case DCBM_LIVE:
		break;
	}

	if (dcbm_sleeping) {
		dcbm_on_wakeup = on;
		return 0;
	}
	if (on == dcbm_offloading)
		return 0;
	if (on)
		return dcbm_start();
	dcbm_stop();
	return 0;
}

static const struct kernel_param_ops dcbm_offloading_ops = {
	.set = dcbm_offloading_set,
	.get = param_get_bool,
};
module_param_cb(offloading, &dcbm_offloading_ops, &dcbm_offloading, 0644);
MODULE_PARM_DESC(offloading,
		 "Claim DMA channels and copy with them (default: N)");

static int dcbm_nr_dma_chan_set(const char *val, const struct kernel_param *kp)
{
	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase == DCBM_LIVE && dcbm_offloading)
		return -EBUSY;
	return param_set_uint_minmax(val, kp, 1, DCBM_MAX_CHANS);
}

static const struct kernel_param_ops dcbm_nr_dma_chan_ops = {
	.set = dcbm_nr_dma_chan_set,
	.get = param_get_uint,
};
module_param_cb(nr_dma_chan, &dcbm_nr_dma_chan_ops, &dcbm_nr_dma_chan, 0644);
MODULE_PARM_DESC(nr_dma_chan,
		 "DMA channels to claim at most, 1 to 32, to be set while offloading is off (default: 16)");

VISIBLE_IF_KUNIT int dcbm_engines_set(const char *val,
				      const struct kernel_param *kp)
{
	size_t len = strcspn(val, "\n"), i;

	if (len >= sizeof(dcbm_engines) || (val[len] && val[len + 1]))
		return -EINVAL;
	/* Names of at least one character, separated by single commas */
	for (i = 0; i < len; i++)
		if (val[i] == ',' ? !i || val[i - 1] == ',' || i == len - 1 :
				    !isalnum(val[i]) && !strchr("_-.", val[i]))
			return -EINVAL;

	guard(mutex)(&dcbm_mutex);
	if (dcbm_phase == DCBM_LIVE && dcbm_offloading)
		return -EBUSY;
	strscpy(dcbm_engines, val, len + 1);
	return 0;
}

static int dcbm_engines_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%s\n", dcbm_engines);
}

static const struct kernel_param_ops dcbm_engines_ops = {
	.set = dcbm_engines_set,
	.get = dcbm_engines_get,
};
module_param_cb(engines, &dcbm_engines_ops, NULL, 0644);
MODULE_PARM_DESC(engines,
		 "Drivers whose engines to use, with commas, to be set while offloading is off (default: all that report failed copies)");

/* What the core decides for all migrators was a parameter of dcbm once */
static int dcbm_moved_set(const char *val, const struct kernel_param *kp)
{
	pr_err("%s is now /sys/kernel/mm/migrate_offload/%s\n", kp->name,
	       (const char *)kp->arg);
	return -EOPNOTSUPP;
}

static const struct kernel_param_ops dcbm_moved_ops = {
	.set = dcbm_moved_set,
};
module_param_cb(reason_mask, &dcbm_moved_ops, "reasons", 0200);
MODULE_PARM_DESC(reason_mask, "Moved to /sys/kernel/mm/migrate_offload/reasons");
module_param_cb(min_bytes, &dcbm_moved_ops, "min_folio_bytes", 0200);
MODULE_PARM_DESC(min_bytes,
		 "Moved to /sys/kernel/mm/migrate_offload/min_folio_bytes");
module_param_cb(min_batch_bytes, &dcbm_moved_ops, "min_batch_bytes", 0200);
MODULE_PARM_DESC(min_batch_bytes,
		 "Moved to /sys/kernel/mm/migrate_offload/min_batch_bytes");

module_param_named(remote, dcbm_remote, bool, 0644);
MODULE_PARM_DESC(remote,
		 "Use engines of nodes that memory neither comes from nor goes to (default: Y)");

static int dcbm_patience_ms_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, 60 * MSEC_PER_SEC);
}

static const struct kernel_param_ops dcbm_patience_ms_ops = {
	.set = dcbm_patience_ms_set,
	.get = param_get_uint,
};
module_param_cb(patience_ms, &dcbm_patience_ms_ops, &dcbm_patience_ms, 0644);
MODULE_PARM_DESC(patience_ms,
		 "Milliseconds that an engine gets in addition to 16 times the expected time of its share, 0 to 60000 (default: 200)");

static int dcbm_timeout_ms_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, 60 * MSEC_PER_SEC);
}

static const struct kernel_param_ops dcbm_timeout_ms_ops = {
	.set = dcbm_timeout_ms_set,
	.get = param_get_uint,
};
module_param_cb(timeout_ms, &dcbm_timeout_ms_ops, &dcbm_timeout_ms, 0644);
MODULE_PARM_DESC(timeout_ms,
		 "Milliseconds that an engine gets at most for its share, 1 to 60000 (default: 2000)");

static int dcbm_counter_set(const char *val, const struct kernel_param *kp)
{
	unsigned int zero;
	int ret;

	ret = kstrtouint(val, 0, &zero);
	if (ret)
		return ret;
	if (zero)
		return -EINVAL;
	atomic64_set((atomic64_t *)kp->arg, 0);
	return 0;
}

static int dcbm_counter_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%lld\n",
			  atomic64_read((atomic64_t *)kp->arg));
}

static const struct kernel_param_ops dcbm_counter_ops = {
	.set = dcbm_counter_set,
	.get = dcbm_counter_get,
};
module_param_cb(folios_migrated, &dcbm_counter_ops, &dcbm_migrated, 0644);
MODULE_PARM_DESC(folios_migrated,
		 "Folios that were copied; 0 resets the count");
module_param_cb(folios_failures, &dcbm_counter_ops, &dcbm_failures, 0644);
MODULE_PARM_DESC(folios_failures,
		 "Folios that should have been copied and were left to the CPU; 0 resets the count");

static int dcbm_channels_get(char *buf, const struct kernel_param *kp)
{
	return dcbm_show_channels(buf);
}

/* Not there, it would be called all the same when the module is loaded */
static int dcbm_channels_set(const char *val, const struct kernel_param *kp)
{
	return -EPERM;
}

static const struct kernel_param_ops dcbm_channels_ops = {
	.set = dcbm_channels_set,
	.get = dcbm_channels_get,
};
module_param_cb(channels, &dcbm_channels_ops, NULL, 0444);
MODULE_PARM_DESC(channels,
		 "Channels: name, NUMA node, and idle, busy, stuck, recovered, failed, releasing, gone, or unfit and why");

static void dcbm_unregister_notifiers(void)
{
	unregister_reboot_notifier(&dcbm_reboot_nb);
	unregister_pm_notifier(&dcbm_pm_nb);
	dma_unregister_going_notifier(&dcbm_going_nb);
}

static int __init dcbm_init(void)
{
	int ret;

	ret = dma_register_going_notifier(&dcbm_going_nb);
	if (!ret)
		ret = register_pm_notifier(&dcbm_pm_nb);
	if (!ret)
		ret = register_reboot_notifier(&dcbm_reboot_nb);
	if (ret) {
		dcbm_unregister_notifiers();
		return ret;
	}

	guard(mutex)(&dcbm_mutex);
	dcbm_phase = DCBM_LIVE;
	if (dcbm_offloading) {
		dcbm_offloading = false;
		if (dcbm_start())
			pr_warn("offloading stays off; turn it on once there are channels\n");
	}
	return 0;
}
late_initcall(dcbm_init); /* built in, after the drivers of the engines */

static void __exit dcbm_exit(void)
{
	scoped_guard(mutex, &dcbm_mutex) {
		dcbm_phase = DCBM_GOING;
		dcbm_stop();
	}

	dcbm_drop_stuck();
	/* Late: a channel may be unregistered while others are released */
	dcbm_unregister_notifiers();
	dcbm_drop_rest();
}
module_exit(dcbm_exit);

MODULE_DESCRIPTION("DMA core batch migrator");
MODULE_LICENSE("GPL");
