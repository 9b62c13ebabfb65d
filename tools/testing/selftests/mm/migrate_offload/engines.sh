#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test dcbm with engines of dma-sim that are taken away, and with public channels,
# which it shares with others. Each test loads dma-sim in another way.
#
# Environment:
#   KO_DIR    load dcbm and dma-sim from there, see testlib.sh

# shellcheck disable=SC2317 # tests are called by their names
# shellcheck disable=SC2154 # $stress_log is the library's
# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

sim_unload()
{
	rmmod dma-sim
}

# sim_stays: dma-sim cannot be unloaded, since dcbm has channels of it
sim_stays()
{
	local error

	if error=$(sim_unload 2>&1); then
		msg "unloaded under dcbm"
		return 1
	fi
	[[ $error == *"in use"* ]]
}

descriptors()
{
	cat "$SIM"/*/descriptors | awk '{ n += $1 } END { print n + 0 }'
}

descriptors_above()
{
	[ "$(descriptors)" -gt "$1" ]
}

# What is moved is right, and some of it is offloaded
shared_works()
{
	set_param folios_migrated 0 && bench -t 2 -b 8M -s 64K,2M &&
		[ "$(param folios_migrated)" -gt 0 ]
}

again()
{
	set_param offloading N && set_param offloading Y
}

# ---- tests ----------------------------------------------------------------

register engines_in_use "dcbm keeps the module of its engines"
test_engines_in_use()
{
	load_sim channels=2 && set_param offloading Y && sim_stays &&
		set_param offloading N && sim_unload
}

register engines_unbind "all engines unbound under migration"
test_engines_unbind()
{
	local from ret=0

	load_sim nodes=0,1 channels=4 && set_param nr_dma_chan 32 &&
		set_param offloading Y || return 1
	echo 100 | tee "$SIM"/*/delay_us > /dev/null
	stress_start -k -b 8M -s 4K,64K,2M || return 1
	wait_until 60 descriptors_above 200 || ret=1
	echo dma-sim.0 > "$SIM_DRIVER/unbind"
	from=$(descriptors)
	wait_until 60 descriptors_above $((from + 200)) || ret=1
	echo dma-sim.1 > "$SIM_DRIVER/unbind"
	from=$(param folios_failures)
	wait_until 60 failures_above $((from + 500)) || ret=1
	stress_stop || ret=1
	# It has let go of them before, but still tells of them
	channels_are gone 8 || ret=1
	set_param offloading N || ret=1
	return "$ret"
}

# One that does not answer is given up, and comes back
shared_stuck()
{
	local ret=0

	set_param timeout_ms 200
	echo 5 | tee "$SIM"/*/stall > /dev/null
	bench -t 2 -b 8M -s 2M
	grep -q ' shared stuck$' "$PARAMS/channels" || ret=1
	echo 0 | tee "$SIM"/*/stall > /dev/null
	wait_until 60 channels_are 'shared idle' 2 || ret=1
	set_param timeout_ms "${saved[timeout_ms]}"
	again && channels_are 'shared idle' 2 && shared_works && return "$ret"
}

# If one goes, the other serves on
shared_gone()
{
	echo dma-sim.0 > "$SIM_DRIVER/unbind"
	channels_are 'shared gone' 1 && channels_are 'shared idle' 1 &&
		shared_works && again &&
		! channels_are 'shared idle' 0 && shared_works
}

register engines_public "public channels are shared"
test_engines_public()
{
	local ret=0

	load_sim nodes=0,1 channels=2 public=Y && set_param nr_dma_chan 32 &&
		set_param offloading Y || return 1
	sed 's/^/# /' "$PARAMS/channels"
	# As many as dmaengine deals out to the CPUs
	channels_are 'shared idle' 2 &&
		[ "$(wc -l < "$PARAMS/channels")" -eq 2 ] || ret=1
	shared_works || ret=1
	# Nobody can have one of them alone, nor take the module away
	sim_stays || return 1
	shared_stuck || ret=1
	shared_gone || ret=1
	set_param offloading N && sim_unload || ret=1
	return "$ret"
}

register engines_removal_race "channels are claimed while the module goes"
test_engines_removal_race()
{
	local i pid ret=0

	while :; do
		echo 1 > "$PARAMS/offloading"
		echo 0 > "$PARAMS/offloading"
	done 2>/dev/null &
	pid=$!
	for ((i = 0; i < 3 && ret == 0; i++)); do
		load_sim nodes=0,1 channels=64 || ret=1
		wait_until 60 sim_unload 2>/dev/null || ret=1
	done
	kill "$pid"
	wait "$pid" 2>/dev/null
	return "$ret"
}

register engines_dmesg "no splat in the kernel log" no_splat

# Whatever a test has left
after_test()
{
	set_param offloading N
	[ ! -d /sys/module/dma_sim ] || sim_unload
}

cleanup_engines()
{
	cleanup
	[ ! -d /sys/module/dma_sim ] || sim_unload
}

parse_options "$@"
# There must be engines for setup to go on
loaded_sim=
if [ "$(id -u)" -eq 0 ] && [ ! -d /sys/module/dma_sim ]; then
	load_sim nodes=0,1 && loaded_sim=1
fi
setup
[ -n "$loaded_sim" ] ||
	skip_all "dma-sim is loaded already, or cannot be loaded for two nodes"
trap cleanup_engines EXIT
set_param offloading N && sim_unload || skip_all "dma-sim is in use"
[ -z "$(ls /sys/class/dma)" ] || skip_all "there are other engines"
run_tests
