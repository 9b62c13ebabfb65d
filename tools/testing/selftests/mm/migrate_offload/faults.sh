#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test that dcbm, which copies the folios of migration with DMA channels, loses
# nothing when the engines fail. The engines are those of dma-sim, which fail
# as they are told to. The folios are moved and every byte is verified by
# ./bench; a probe counts what the CPU copies, since each folio is to
# be copied exactly once, by the CPU or by an engine.
#
# Environment:
#   KO_DIR     load dcbm and dma-sim from there, see testlib.sh
#   SLACK_MS   how much longer than it should a move may take (3000)

# shellcheck disable=SC2317 # tests are called by their names
# shellcheck disable=SC2154 # $error, $stress_log are the library's
# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

SLACK_MS=${SLACK_MS:-3000}
# Folios that a batch has at most
MAX_PAIRS=256
NUMA_BALANCING=/proc/sys/kernel/numa_balancing
FAIL_SLAB=/sys/kernel/debug/failslab
FAIL_PAGE=/sys/kernel/debug/fail_page_alloc
FAULTS="fail_read fail_write short_copy refuse_prep refuse_submit lose_callback"

sim_loaded_here=
probe=				# set if there is one
numa_balancing=			# as it was
hog=				# a tmpfs

# ---- the engines --------------------------------------------------------

# knob NAME VALUE [CHANNEL...]: of all channels that dcbm has, by default
knob()
{
	local name=$1 value=$2 chan

	shift 2
	# shellcheck disable=SC2046 # names of channels have no blanks
	[ $# -gt 0 ] || set -- $(claimed)
	for chan; do
		write_to "$SIM/$chan/$name" "$value" && continue
		msg "$chan: $name: $error"
		return 1
	done
}

# Without a fault; what is stalled goes on
reset_knobs()
{
	local dir name

	for dir in "$SIM"/*/; do
		for name in $FAULTS stall reorder delay_us bandwidth; do
			echo 0 > "$dir/$name"
		done
		echo -1 > "$dir/times"
	done
}

# offload_on CHANNELS: as many of dma-sim, and no others
offload_on()
{
	local chan

	reset_knobs
	set_param offloading N &&
	set_policy reasons syscall_or_cpuset &&
	set_param nr_dma_chan "$1" &&
	set_param offloading Y || return 1
	if [ "$(claimed | wc -l)" -ne "$1" ]; then
		msg "not $1 channels: $(claimed | tr '\n' ' ')"
		return 1
	fi
	for chan in $(claimed); do
		[ -d "$SIM/$chan" ] && continue
		msg "$chan is not of dma-sim"
		return 1
	done
	# Slow enough for all of them to be worth their shares
	[ "$1" -eq 1 ] || knob bandwidth 200
}

# Faults that the engines have had since they were created
faults()
{
	awk '{ n += $1 } END { print n + 0 }' "$SIM"/*/faults
}

no_channel_is()
{
	! grep -q " $1\$" "$PARAMS/channels"
}

# in_state STATE NUMBER: wait until that many channels are
in_state()
{
	wait_until 60 channels_are "$@" && return
	msg "not $2 channels are $1: $(tr '\n' ';' < "$PARAMS/channels")"
	return 1
}

# not_in_state STATE: wait until no channel is
not_in_state()
{
	wait_until 60 no_channel_is "$1" && return
	msg "still $1: $(tr '\n' ';' < "$PARAMS/channels")"
	return 1
}

# failures_rise FROM: wait until more folios than that were left to the CPU
failures_rise()
{
	wait_until 60 failures_above "$1" && return
	msg "folios_failures stays $1"
	return 1
}

all_idle()
{
	! grep -v ' unfit: ' "$PARAMS/channels" | grep -qv ' idle$' && return 0
	msg "channels: $(tr '\n' ';' < "$PARAMS/channels")"
	return 1
}

# ---- who copied what ----------------------------------------------------

# Count those copies of folios by the CPU that our program asks for
probe_setup()
{
	trace_begin || return
	echo "p:migrate_offload/cpu_copy folio_mc_copy" \
		>> "$TRACING/kprobe_events" 2>/dev/null || return
	probe=1
	event=$trace/events/migrate_offload/cpu_copy
	echo 'comm == "bench"' > "$event/filter" &&
	echo 1 > "$event/enable"
}

probe_cleanup()
{
	trace_end
	[ -z "$probe" ] || echo "-:migrate_offload/cpu_copy" \
		>> "$TRACING/kprobe_events" 2>/dev/null
}

probe_reset()
{
	echo > "$trace/trace"
}

probe_count()
{
	awk '/^(entries|overrun):/ { n += $2 } END { print n + 0 }' \
		"$trace"/per_cpu/cpu*/stats
}

# How many folios dcbm has kept since the mark, for engines that are stuck
kept()
{
	log_since | awk '/did not answer in time/ {
			for (i = 2; i <= NF; i++)
				if ($i == "folios")
					n += $(i - 1)
		} END { print n + 0 }'
}

timeouts()
{
	log_since | grep -c 'did not answer in time'
}

count_begin()
{
	log_mark
	set_param folios_migrated 0 && set_param folios_failures 0 &&
	probe_reset
}

# count_end FILE: takes the numbers from what bench has printed
count_end()
{
	cpu=$(probe_count)
	migrated=$(param folios_migrated)
	failures=$(param folios_failures)
	moved=$(sed -n 's/.*: \([0-9]*\) folios moved, .* split$/\1/p' "$1")
	split=$(sed -n 's/.* \([0-9]*\) split$/\1/p' "$1")
	longest_ms=$(awk '/in the longest$/ { print int($(NF - 4) * 1000) }' "$1")
	lost=$(kept)
	msg "moved $moved: $migrated by engines, $cpu by the CPU;" \
		"$failures left to it, $lost copies given up"
	[ "${moved:-0}" -gt 0 ]
}

# counted ARGUMENT...: move folios, and count
counted()
{
	local ret=0

	count_begin || return 1
	msg "bench $*"
	"$BENCH" "$@" > "$stress_log" 2>&1 || ret=1
	sed 's/^/# /' "$stress_log"
	count_end "$stress_log" || ret=1
	return "$ret"
}

# Each folio that was moved was copied once, and all that dcbm was given is
# accounted for. A folio whose copy was given up counts as a failure, and was
# not moved: the engine may still read it.
copied_once()
{
	if [ "$split" -ne 0 ]; then
		msg "$split folios were split: cannot be counted"
		return 1
	fi
	if [ $((cpu + migrated)) -ne "$moved" ]; then
		msg "$moved folios were moved, but $((cpu + migrated)) copied"
		return 1
	fi
	if [ $((migrated + failures - lost)) -ne "$moved" ]; then
		msg "$moved folios were moved, but $((migrated + failures - lost)) counted"
		return 1
	fi
}

# ---- tests --------------------------------------------------------------

# Otherwise the other tests prove nothing
register counts "every folio is copied once without faults"
test_counts()
{
	set_param offloading N && counted -t 1 -b 4M -s 4K || return 1
	if [ "$cpu" -ne "$moved" ]; then
		msg "the CPU copied $cpu of $moved folios"
		return 1
	fi
	offload_on 2 && counted -t 1 -b 4M -s 4K && copied_once || return 1
	[ "$cpu" -eq 0 ] && [ "$failures" -eq 0 ] && all_idle
}

# descriptor_fault NAME: every fifth has it, and no other folio is affected
descriptor_fault()
{
	local before

	offload_on 1 || return 1
	before=$(faults)
	knob "$1" 5 && counted -t 1 -b 4M -s 4K && copied_once || return 1
	if [ "$failures" -ne $((moved / 5)) ] ||
	   [ "$failures" -ne $(($(faults) - before)) ]; then
		msg "$failures of $moved folios failed, $(($(faults) - before)) descriptors"
		return 1
	fi
	all_idle || return 1

	# Mixed sizes, more channels
	offload_on 4 && knob "$1" 5 || return 1
	counted -k -t 2 -b 8M -s 4K,64K,2M || return 1
	[ "$failures" -gt 0 ] && [ "$migrated" -gt 0 ] && all_idle
}

register fail_read "only the folios of these descriptors fall back"
test_fail_read()
{
	descriptor_fault fail_read
}

register fail_write "only the folios of these descriptors fall back"
test_fail_write()
{
	descriptor_fault fail_write
}

register short_copy "a residue is not copied"
test_short_copy()
{
	descriptor_fault short_copy
}

# A folio is on several channels, one of which does not copy its part
part_fault()
{
	offload_on 4 && knob "$1" 1 "$(claimed | sed -n "$2p")" || return 1
	counted -t 1 -b 2M -s 2M && copied_once || return 1
	[ "$migrated" -eq 0 ] && [ "$failures" -eq "$moved" ] && return 0
	msg "$migrated folios with a part that failed are taken as copied"
	return 1
}

register parts "a folio with a part that failed is not copied"
test_parts()
{
	part_fault fail_read 1 && part_fault fail_read 4 &&
	part_fault short_copy 2 && part_fault refuse_prep 3
}

# refusal NAME: what the engine does not take is the CPU's
refusal()
{
	offload_on 2 && knob "$1" 100 || return 1
	counted -t 1 -b 4M -s 4K && copied_once || return 1
	if [ "$failures" -eq 0 ] || [ "$migrated" -eq 0 ]; then
		msg "nothing was refused, or all"
		return 1
	fi
	# Everything
	knob "$1" 1 || return 1
	counted -t 1 -b 4M -s 4K && copied_once || return 1
	[ "$migrated" -eq 0 ] && [ "$failures" -eq "$moved" ] && all_idle
}

register refuse_prep "the CPU copies the rest"
test_refuse_prep()
{
	refusal refuse_prep
}

register refuse_submit "the CPU copies the rest"
test_refuse_submit()
{
	refusal refuse_submit
}

register reorder "the order of completion does not matter"
test_reorder()
{
	local before

	offload_on 1 || return 1
	before=$(faults)
	knob reorder 64 && knob delay_us 100 && knob fail_read 7 || return 1
	counted -t 1 -b 4M -s 4K && copied_once || return 1
	[ "$failures" -eq $((moved / 7)) ] &&
	[ "$failures" -eq $(($(faults) - before)) ] || return 1

	offload_on 4 && knob reorder 16 && knob delay_us 100 || return 1
	counted -k -t 2 -b 8M -s 4K,64K,2M || return 1
	[ "$failures" -eq 0 ] && all_idle
}

# What is slow is not stuck
register delay "delay_us and bandwidth: slow engines are waited for"
test_delay()
{
	offload_on 2 && knob delay_us 500 && knob bandwidth 50 || return 1
	counted -t 1 -b 4M -s 4K && copied_once || return 1
	[ "$cpu" -eq 0 ] && all_idle && [ "$(timeouts)" -eq 0 ]
}

# The CPU keeps folios for itself, and copies a part of what the engine has
register share "share: the CPU helps slow engines, and all bytes are right"
test_share()
{
	local before after ret=0

	offload_on 2 && knob bandwidth 20 || return 1
	set_policy share 1 && set_policy chunk_bytes auto || return 1
	before=$(vmstat pgmigrate_offload_shared)
	counted -t 1 -b 32M -s 4K,64K,2M || ret=1
	after=$(vmstat pgmigrate_offload_shared)
	msg "$((after - before)) pages were kept by the CPU"
	set_policy share 0 && set_policy chunk_bytes "$TEST_CHUNK" || ret=1
	[ "$((after - before))" -gt 0 ] && [ "$(param folios_migrated)" -gt 0 ] &&
		[ "$(timeouts)" -eq 0 ] && all_idle && return "$ret"
}

# Others go on, and it comes back when it is asked to
register stall_one "stall: one bounded wait, others go on, it comes back"
test_stall_one()
{
	local first ret=0

	offload_on 2 && set_param timeout_ms 1000 && count_begin || return 1
	first=$(claimed | head -n 1)
	knob stall 300 "$first" || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 1 && counter_rises "$(param folios_migrated)" || ret=1
	stress_stop || ret=1
	count_end "$stress_log" && copied_once || ret=1
	[ "$(timeouts)" -eq 1 ] && [ "$longest_ms" -lt $((1000 + SLACK_MS)) ] ||
		ret=1
	grep -q "^$first .* stuck$" "$PARAMS/channels" || ret=1
	# It keeps its channel, and offloading goes on with another
	set_param offloading N && set_param offloading Y || ret=1
	[ "$(claimed | wc -l)" -eq 3 ] || ret=1
	counted -t 1 -b 4M -s 4K && copied_once || ret=1
	[ "$cpu" -eq 0 ] || ret=1

	# There are two others, as many as it may have
	echo 0 > "$SIM/$first/stall"
	in_state recovered 1 || ret=1
	set_param offloading N && set_param offloading Y || ret=1
	[ "$(claimed | wc -l)" -eq 2 ] && all_idle || ret=1
	claimed | grep -qx "$first" || ret=1
	return "$ret"
}

# One deadline for all channels, and no batch waits for them again
register stall_all "stall: one deadline for all channels"
test_stall_all()
{
	local ret=0 timeout=3000 waits

	offload_on 4 && set_param timeout_ms "$timeout" && count_begin || return 1
	knob stall 20 || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 4 || ret=1
	# Time for more, were they not out of service
	sleep 1
	[ "$ret" -eq 0 ] || knob stall 0
	stress_stop || ret=1
	count_end "$stress_log" || ret=1
	copied_once || ret=1
	# A batch may have used some of the channels, and the next one the others
	waits=$(((lost + MAX_PAIRS - 1) / MAX_PAIRS))
	if [ "$(timeouts)" -ne 4 ] || [ "$longest_ms" -lt "$timeout" ] ||
	   [ "$longest_ms" -gt $((waits * timeout + SLACK_MS)) ]; then
		msg "$(timeouts) timeouts, $longest_ms ms in the longest move"
		ret=1
	fi
	[ "$lost" -gt 0 ] || ret=1

	# They are tested, and back in service by themselves
	knob stall 0 && in_state idle 4 || ret=1
	[ "$ret" -eq 0 ] || return 1
	counted -t 1 -b 4M -s 4K && copied_once && [ "$cpu" -eq 0 ] && all_idle
}

# Nobody waits for as long as that if the channel is known to be fast
register patience "stall: a fast engine is given up long before timeout_ms"
test_patience()
{
	local ret=0

	offload_on 2 && set_param timeout_ms 60000 && count_begin || return 1
	# For them to show how fast they are
	counted -t 2 -b 4M -s 4K && [ "$migrated" -gt 0 ] || return 1
	set_param patience_ms 200 && knob stall 20 && count_begin || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 2 || ret=1
	stress_stop || ret=1
	count_end "$stress_log" || ret=1
	if [ "$longest_ms" -lt 200 ] || [ "$longest_ms" -gt $((1000 + SLACK_MS)) ]; then
		msg "$longest_ms ms in the longest move"
		ret=1
	fi
	knob stall 0 && in_state idle 2 || ret=1
	return "$ret"
}

# An engine that wakes up right after it was given up writes to nobody's memory,
# while the folios that it was to copy are moved and looked at
register late_write_live "late writes do not reach folios that are moved on"
test_late_write_live()
{
	local i ret=0

	offload_on 2 && set_param timeout_ms 100 || return 1
	stress_start -k -b 4M -s 4K || return 1
	for ((i = 0; i < 5 && ret == 0; i++)); do
		knob stall 100 && in_state stuck 2 || ret=1
		knob stall 0 && not_in_state stuck || ret=1
	done
	stress_stop || ret=1
	return "$ret"
}

# Nor if it does so after all memory that was free belongs to somebody else
register late_write_reused "late writes do not reach memory of others"
test_late_write_reused()
{
	local ret=0 free

	offload_on 2 && set_param timeout_ms 100 && knob stall 200 || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 2 || ret=1
	stress_stop || ret=1

	hog=$(mktemp -d) && mount -t tmpfs -o size=100% none "$hog" || return 1
	free=$(awk '/^MemFree:/ { print int($2 / 1024) }' /proc/meminfo)
	msg "filling $((free - 100)) of $free MB"
	head -c $((free - 100))M /dev/zero > "$hog/zeroes" || ret=1
	knob stall 0 && not_in_state stuck || ret=1
	if ! cmp -n $((free - 100))M "$hog/zeroes" /dev/zero; then
		msg "memory of others was written to"
		ret=1
	fi
	hog_cleanup
	set_param offloading N
	return "$ret"
}

hog_cleanup()
{
	[ -z "$hog" ] || { umount "$hog"; rmdir "$hog"; }
	hog=
}

# fail_allocations SLAB PAGE WAIT: so many percent of those of processes with
# make-it-fail. WAIT is Y to spare slab allocations that may wait.
fail_allocations()
{
	local dir

	for dir in "$FAIL_SLAB" "$FAIL_PAGE"; do
		write_to "$dir/task-filter" Y &&
		write_to "$dir/verbose" 0 &&
		write_to "$dir/interval" 1 &&
		write_to "$dir/times" -1 || return 1
	done
	write_to "$FAIL_SLAB/ignore-gfp-wait" "$3" &&
	write_to "$FAIL_PAGE/ignore-gfp-wait" N &&
	write_to "$FAIL_PAGE/ignore-gfp-highmem" N &&
	write_to "$FAIL_PAGE/min-order" 0 &&
	write_to "$FAIL_SLAB/probability" "$1" &&
	write_to "$FAIL_PAGE/probability" "$2"
}

# How often offloading could, and could not, be turned on
claim_without_memory()
{
	local i on=0

	exec 2>/dev/null
	echo 1 > "/proc/$BASHPID/make-it-fail" || return 1
	for ((i = 0; i < 100; i++)); do
		echo Y > "$PARAMS/offloading" && on=$((on + 1))
		until echo N > "$PARAMS/offloading"; do :; done
	done
	until echo 0 > "/proc/$BASHPID/make-it-fail"; do :; done
	echo "$on $((i - on))"
}

# Neither what is needed to begin, nor what a migration needs
register allocations "the CPU copies, or nobody, when memory cannot be had"
test_allocations()
{
	local ret=0 on off

	if [ ! -d "$FAIL_SLAB" ] || [ ! -d "$FAIL_PAGE" ]; then
		skip "no failslab or fail_page_alloc in this kernel"
		return
	fi
	fail_allocations 10 10 N || return 1
	read -r on off < <(claim_without_memory)
	msg "offloading was turned on $on times and failed $off times"
	[ "${on:-0}" -gt 0 ] && [ "${off:-0}" -gt 0 ] || ret=1
	# Nothing is left over of those
	set_param offloading N && [ -z "$(claimed)" ] && offload_on 4 &&
	counted -t 1 -b 4M -s 4K && copied_once && [ "$cpu" -eq 0 ] || ret=1

	# Descriptors of engines, and destinations
	count_begin && fail_allocations 5 2 Y &&
	stress_start -k -b 4M -s 4K || return 1
	echo 1 > "/proc/$stress_pid/make-it-fail" || ret=1
	counter_rises $(($(param folios_migrated) + 2000)) || ret=1
	echo 0 > "/proc/$stress_pid/make-it-fail" || ret=1
	stress_stop || ret=1
	fail_allocations 0 0 Y
	# Those that stayed are there already when they are to be moved back
	count_end "$stress_log" && [ "$failures" -gt 0 ] &&
	[ "$cpu" -ge "$failures" ] && all_idle || ret=1
	if grep -q ' 0 not moved' "$stress_log"; then
		msg "each folio has found a destination"
		ret=1
	fi
	return "$ret"
}

# An engine that copies wrong data and says nothing of it gets no batch
register self_test "self-test: an engine that copies wrong data is not used"
test_self_test()
{
	local ret=0 wrong

	wrong=$(ls "$SIM" | head -n 1)
	echo 1 > "$SIM/$wrong/corrupt" || return 1
	offload_on 2 || ret=1
	! claimed | grep -qx "$wrong" || ret=1
	grep -q "^$wrong .* unfit: it copied wrong data" "$PARAMS/channels" ||
		ret=1
	counted -t 1 -b 4M -s 4K && copied_once && [ "$cpu" -eq 0 ] || ret=1
	# It is tested anew each time
	echo 0 > "$SIM/$wrong/corrupt"
	set_param offloading N && set_param offloading Y || ret=1
	! grep -q unfit "$PARAMS/channels" || ret=1
	return "$ret"
}

# Nor does one that gets worse while it is stuck
register self_test_stuck "self-test: nor one that does so after it was stuck"
test_self_test_stuck()
{
	local ret=0

	offload_on 2 && set_param timeout_ms 200 && knob stall 50 || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 2 || ret=1
	stress_stop || ret=1
	knob corrupt 1 && knob stall 0 && in_state failed 2 || ret=1
	knob corrupt 0
	set_param offloading N && set_param offloading Y || ret=1
	all_idle || ret=1
	return "$ret"
}

# Drivers by name; one that is not there is told of
register engines "drivers are selected by name"
test_engines()
{
	local ret=0

	set_param engines nosuch || return 1
	! set_param offloading Y 2> /dev/null || ret=1
	dmesg | grep -q "engines: nosuch is not used" || ret=1
	! set_param engines 'a,,b' 2> /dev/null || ret=1
	[ "$(param engines)" = nosuch ] || ret=1
	set_param engines nosuch,dma-sim && offload_on 2 || ret=1
	! set_param engines '\n' 2> /dev/null || ret=1
	set_param offloading N && set_param engines '\n' || ret=1
	return "$ret"
}

register unbind "the CPU goes on when engines are taken away"
test_unbind()
{
	local dev ret=0

	# All of one engine, and some of the other
	offload_on 10 && knob delay_us 50 && count_begin || return 1
	stress_start -k -b 4M -s 4K || return 1
	for dev in 0 1; do
		counter_rises "$(param folios_migrated)" || ret=1
		echo dma-sim.$dev > "$SIM_DRIVER/unbind" || ret=1
	done
	# Whatever is given to them fails from now on
	failures_rise "$(param folios_failures)" || ret=1
	stress_stop || ret=1
	count_end "$stress_log" && copied_once || ret=1
	[ "$lost" -eq 0 ] && [ "$(grep -c ' gone$' "$PARAMS/channels")" -eq 10 ] ||
		ret=1
	set_param offloading N || ret=1
	for dev in 0 1; do
		echo dma-sim.$dev > "$SIM_DRIVER/bind" || ret=1
	done
	[ "$ret" -eq 0 ] || return 1
	offload_on 4 && counted -t 1 -b 4M -s 4K && copied_once &&
	[ "$cpu" -eq 0 ]
}

# It is never known that the engine is done, so what it was given is kept. The
# channel, and dma-sim with it, cannot be used for anything else afterwards.
register lose_callback "one bounded wait, others go on"
test_lose_callback()
{
	local ret=0

	offload_on 2 && set_param timeout_ms 1000 && count_begin || return 1
	knob times 1 && knob lose_callback 100 "$(claimed | head -n 1)" || return 1
	stress_start -k -b 4M -s 4K || return 1
	in_state stuck 1 && counter_rises "$(param folios_migrated)" || ret=1
	stress_stop || ret=1
	count_end "$stress_log" && copied_once || ret=1
	[ "$(timeouts)" -eq 1 ] && [ "$longest_ms" -lt $((1000 + SLACK_MS)) ] ||
		ret=1
	set_param offloading N || ret=1
	grep -q ' stuck$' "$PARAMS/channels" || ret=1
	return "$ret"
}

register faults_dmesg "no splat in the kernel log" no_splat

cleanup_faults()
{
	[ ! -d "$SIM" ] || reset_knobs
	[ ! -d "$FAIL_SLAB" ] || fail_allocations 0 0 Y
	[ -z "$(type -t cleanup)" ] || cleanup
	hog_cleanup
	probe_cleanup
	[ -z "$numa_balancing" ] || echo "$numa_balancing" > "$NUMA_BALANCING"
	[ -z "$sim_loaded_here" ] || rmmod dma-sim 2>/dev/null ||
		msg "dma-sim stays: a channel of it is lost until reboot"
}

parse_options "$@"
if [ "$(id -u)" -eq 0 ] && [ ! -d "$SIM" ]; then
	load_sim nodes=0,1 channels=8 && sim_loaded_here=1
fi
setup
trap cleanup_faults EXIT
[ -d "$SIM" ] ||
	skip_all "dma-sim is not there and cannot be loaded (KO_DIR=directory?)"
[ "$(find "$SIM" -mindepth 1 -maxdepth 1 | wc -l)" -eq 16 ] ||
	skip_all "dma-sim is loaded, but not with two engines of 8 channels"
# It moves pages of ours as well, and not by way of dcbm
if [ -e "$NUMA_BALANCING" ]; then
	numa_balancing=$(cat "$NUMA_BALANCING")
	echo 0 > "$NUMA_BALANCING"
fi
probe_setup || skip_all "no kprobe event can be set on folio_mc_copy"
run_tests
