#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Life of the migration copy offload under load. ./stress moves
# memory of every kind in every way while it is written and checked. Meanwhile
# everything around it changes, at random: the parameters of dcbm and of
# migration, dcbm itself, CPUs, memory blocks, cpusets, memory cgroups, and
# engines, if they are those of dma-sim. In the end not one word may have been
# wrong, each disturbance must have happened, and nothing may be left behind.
#
# Any tests that are picked run with the stress itself, and of disturbances with
# those only that are picked, if any is.
#
# Environment:
#   KO_DIR     load modules from there, see testlib.sh
#   DURATION   for how many seconds (60). It takes longer until each disturbance
#              has happened at least once.
#   SEED       of all choices (random)
#   FILE_DIRS  directories to have files in which are mapped, besides an ext4

# shellcheck disable=SC2317 # functions are called by their names
# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

DURATION=${DURATION:-60}
SEED=${SEED:-$RANDOM}
STRESS=$DIR/stress
STOP_SECONDS=300	# the program ends by itself long before
LEAK_KB=4096		# what the kernel may keep for itself
FAULTS="fail_read fail_write short_copy refuse_prep refuse_submit reorder delay_us stall"
# Parameters with which as much as possible is offloaded
OPEN="nr_dma_chan=16"
OPEN_POLICY="reasons=all min_folio_bytes=0 min_batch_bytes=0"

DISTURBANCES=(
	"offloading|offloading off and on"
	"nr_dma_chan|nr_dma_chan changed"
	"reasons|reasons changed"
	"min_bytes|min_folio_bytes and min_batch_bytes changed"
	"timeout_ms|timeout_ms changed"
	"chunk_bytes|chunk_bytes changed"
	"share|share on or off"
	"reload|dcbm unloaded and loaded"
	"cpu|a CPU offline and online"
	"memory_block|a memory block offline and online"
	"cpuset|cpuset.mems of processes changed"
	"memcg|processes moved to another memory cgroup and reclaimed"
	"memcg_end|memory cgroup removed with all its processes"
	"engine_fault|descriptors of an engine fail"
	"engine_stall|an engine stalls and goes on"
	"engine_unbind|an engine unbound from its driver and bound again"
)

declare -A did tried skipped
offloaded=0		# folios, by instances of dcbm that are gone
tmp=
group=			# of ours
group_was=		# of this shell
controllers=		# that were enabled by us
root=

# pick WORD...: one of them, in $picked
pick()
{
	picked=${*:RANDOM % $# + 1:1}
}

nap()
{
	sleep "0.$((RANDOM % 4))"
}

# ---- what is disturbed: parameters ---------------------------------------

# Back to what lets most be offloaded. A channel that has not answered is not
# claimed again until it has.
settle()
{
	local setting

	write_to "$PARAMS/offloading" N
	for setting in $OPEN "timeout_ms=${saved[timeout_ms]}"; do
		set_param "${setting%%=*}" "${setting#*=}" || return 1
	done
	for setting in $OPEN_POLICY; do
		set_policy "${setting%%=*}" "${setting#*=}" || return 1
	done
	write_to "$PARAMS/offloading" Y || :
}

d_offloading()
{
	set_param offloading N || return 1
	nap
	write_to "$PARAMS/offloading" Y
}

d_nr_dma_chan()
{
	set_param offloading N || return 1
	pick 1 2 3 5 32
	set_param nr_dma_chan "$picked" || return 1
	write_to "$PARAMS/offloading" Y
}

d_reasons()
{
	pick none compaction syscall_or_cpuset mempolicy_mbind,compaction 0x3f7 all
	set_policy reasons "$picked"
}

d_min_bytes()
{
	pick 0 1 8192 65536 1048576
	set_policy min_folio_bytes "$picked" || return 1
	pick 0 1 8192 65536 1048576
	set_policy min_batch_bytes "$picked"
}

# At 1 ms, engines are not always in time, so channels get stuck, and recover
d_timeout_ms()
{
	pick 1 1 20 500 60000
	set_param timeout_ms "$picked"
}

d_chunk_bytes()
{
	local page

	page=$(getconf PAGESIZE)
	pick "$page" $((2 * page)) $((33 * page + 1)) 2097152 8388608 \
		"${saved[chunk_bytes]}"
	set_policy chunk_bytes "$picked"
}

d_share()
{
	pick 0 1 1
	set_policy share "$picked"
}

# ---- dcbm -----------------------------------------------------------------

no_channel_stuck()
{
	! grep -q ' stuck$' "$PARAMS/channels"
}

# When an engine has not answered yet, it is too late once dcbm is gone
quiet()
{
	calm_engines
	set_param timeout_ms "${saved[timeout_ms]}" || return 1
	wait_until 20 no_channel_stuck && return
	msg "engines do not answer: $(param channels | tr '\n' ';')"
	return 1
}

unload_dcbm()
{
	quiet || return 1
	offloaded=$((offloaded + $(param folios_migrated)))
	error=$(timeout 60 rmmod dcbm 2>&1) && return
	offloaded=$((offloaded - $(param folios_migrated)))
	msg "rmmod: $error"
	return 1
}

d_reload()
{
	can_reload || return "$KSFT_SKIP"
	unload_dcbm || return 1
	nap
	pick "offloading=Y $OPEN" "$OPEN" ""
	# shellcheck disable=SC2086 # words
	load_dcbm $picked || load_dcbm || return 1
	settle
}

# ---- CPUs, memory blocks ---------------------------------------------------

d_cpu()
{
	local cpu cpus=()

	for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do
		[ -w "$cpu" ] && [ "$(cat "$cpu")" = 1 ] && cpus+=("$cpu")
	done
	if [ ${#cpus[@]} -eq 0 ]; then
		skip "no CPU can go offline"
		return
	fi
	pick "${cpus[@]}"
	write_to "$picked" 0 || return 1
	nap
	write_to "$picked" 1
}

# Takes a memory block away and gives it back to the zone where it was.
cycle_block()
{
	local block=$1 how=online_kernel

	[[ $(cat "$block/valid_zones") != Movable* ]] || how=online_movable
	# A signal ends the attempt
	timeout 10 bash -c "echo offline > $block/state" 2>/dev/null ||
		return 1
	nap
	write_to "$block/state" "$how"
}

d_memory_block()
{
	local block blocks=() i

	for block in /sys/devices/system/memory/memory[0-9]*; do
		grep -q '^online' "$block/state" 2>/dev/null &&
			! grep -q none "$block/valid_zones" && blocks+=("$block")
	done
	if [ ${#blocks[@]} -eq 0 ]; then
		skip "no memory block can go offline"
		return
	fi
	for ((i = 0; i < 4; i++)); do
		pick "${blocks[@]}"
		cycle_block "$picked" && return
	done
	return 1
}

# ---- cgroups ----------------------------------------------------------------

# One for the program, and two for its children
cgroup_setup()
{
	local c

	root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
	if [ -z "$root" ]; then
		mkdir "$tmp/cgroup"
		mount -t cgroup2 none "$tmp/cgroup" 2>/dev/null || return
		root=$tmp/cgroup
	fi
	group_was=$root$(sed -n 's/^0:://p' /proc/self/cgroup)
	for c in cpuset memory; do
		grep -qw $c "$root/cgroup.controllers" || return
	done
	for c in cpuset memory; do
		grep -qw $c "$root/cgroup.subtree_control" && continue
		write_to "$root/cgroup.subtree_control" "+$c" || return
		controllers+=" -$c"
	done
	group=$root/migrate_offload_stress.$$
	if ! { mkdir "$group" &&
	       write_to "$group/cgroup.subtree_control" "+cpuset +memory" &&
	       mkdir "$group"/{main,a,b}; }; then
		rmdir "$group"
		group=
	fi
}

cgroup_cleanup()
{
	local g

	if [ -n "$group" ]; then
		for g in "$group"/{a,b,main}; do
			wait_until 10 rmdir_quiet "$g"
		done
		rmdir "$group"
	fi
	[ -z "$controllers" ] ||
		write_to "$root/cgroup.subtree_control" "${controllers# }"
	! mountpoint -q "$tmp/cgroup" || umount "$tmp/cgroup"
}

rmdir_quiet()
{
	rmdir "$1" 2>/dev/null || [ ! -d "$1" ]
}

need_group()
{
	[ -n "$group" ] && return
	why="no cgroup v2 with cpuset and memory"
	return 1
}

pick_process()
{
	local pids

	mapfile -t pids < "$1/cgroup.procs"
	[ ${#pids[@]} -gt 0 ] || return 1
	pick "${pids[@]}"
}

has_process()
{
	[ -n "$(head -n 1 "$1/cgroup.procs")" ]
}

d_cpuset()
{
	local nodes

	need_group || return "$KSFT_SKIP"
	wait_until 30 has_process "$group/a" || return 1
	nodes=$(cat "$root/cpuset.mems.effective")
	nodes=${nodes//[,-]/ }
	# shellcheck disable=SC2086 # words
	pick $nodes
	write_to "$group/a/cpuset.mems" "$picked" || return 1
	nap
	# shellcheck disable=SC2086
	pick $nodes
	write_to "$group/b/cpuset.mems" "$picked" || return 1
	# Moves to the other nodes, at once
	pick_process "$group/a" && write_to "$group/b/cgroup.procs" "$picked"
	nap
	write_to "$group/a/cpuset.mems" "\n" &&
		write_to "$group/b/cpuset.mems" "\n"
}

d_memcg()
{
	local g

	need_group || return "$KSFT_SKIP"
	wait_until 30 has_process "$group/a" || return 1
	pick_process "$group/a" || return 1
	write_to "$group/b/cgroup.procs" "$picked" || return 1
	write_to "$group/b/memory.high" 1M || return 1
	# Fails if it cannot get that much
	for g in b main; do
		write_to "$group/$g/memory.reclaim" 4M
	done
	nap
	write_to "$group/b/memory.high" max
}

d_memcg_end()
{
	local ret=0

	need_group || return "$KSFT_SKIP"
	wait_until 30 has_process "$group/a" || return 1
	if [ ! -e "$group/a/cgroup.kill" ]; then
		skip "no cgroup.kill"
		return
	fi
	write_to "$group/a/cgroup.kill" 1 || return 1
	wait_until 10 rmdir_quiet "$group/a" || return 1
	nap
	mkdir "$group/a" || ret=1
	return "$ret"
}

# ---- engines of dma-sim -------------------------------------------------------

calm_engine()
{
	local knob

	for knob in $FAULTS; do
		write_to "$1/$knob" 0
	done
	write_to "$1/times" -1
}

calm_engines()
{
	local chan

	for chan in "$SIM"/*/; do
		[ ! -d "$chan" ] || calm_engine "$chan"
	done
}

# An engine of dma-sim that dcbm uses, in $picked
pick_engine()
{
	local name state chans=()

	if [ ! -d "$SIM" ]; then
		skip "no dma-sim"
		return
	fi
	while read -r name _ state; do
		[ "$state" = stuck ] || [ ! -d "$SIM/$name" ] ||
			chans+=("$SIM/$name")
	done < "$PARAMS/channels"
	[ ${#chans[@]} -gt 0 ] || return 1
	pick "${chans[@]}"
}

faults_rise()
{
	[ "$(cat "$1/faults")" -gt "$2" ]
}

d_engine_fault()
{
	local chan faults

	pick_engine || return
	chan=$picked
	calm_engine "$chan"
	pick reorder delay_us
	write_to "$chan/$picked" $((RANDOM % 50)) || return 1
	faults=$(cat "$chan/faults")
	pick fail_read fail_write short_copy refuse_prep refuse_submit
	write_to "$chan/$picked" $((RANDOM % 30 + 1)) || return 1
	# It stays like this until the engine's next turn
	wait_until 5 faults_rise "$chan" "$faults"
}

is_stuck()
{
	grep -q "^${1##*/} .* stuck$" "$PARAMS/channels"
}

is_not_stuck()
{
	! is_stuck "$1"
}

d_engine_stall()
{
	local chan ret=0

	pick_engine || return
	chan=$picked
	calm_engine "$chan"
	set_param timeout_ms 100 || return 1
	write_to "$chan/stall" $((RANDOM % 30 + 1)) || return 1
	wait_until 8 is_stuck "$chan" || ret=1
	nap
	write_to "$chan/stall" 0 || return 1
	if ! wait_until 20 is_not_stuck "$chan"; then
		msg "$chan does not answer again"
		ret=1
	fi
	set_param timeout_ms "${saved[timeout_ms]}" || ret=1
	return "$ret"
}

d_engine_unbind()
{
	local devices=("$SIM_DRIVER"/dma-sim.*) device ret=0

	if [ ! -e "${devices[0]}" ]; then
		skip "no dma-sim"
		return
	fi
	pick "${devices[@]##*/}"
	device=$picked
	write_to "$SIM_DRIVER/unbind" "$device" || return 1
	nap
	write_to "$SIM_DRIVER/bind" "$device" || ret=1
	settle
	return "$ret"
}

# ---- the test -------------------------------------------------------------------

disturb()
{
	local name=$1

	[ -z "${skipped[$name]}" ] || return 0
	why=
	"d_$name"
	case $? in
	0) did[$name]=$((did[$name] + 1)) ;;
	"$KSFT_SKIP") skipped[$name]=$why ;;
	*) tried[$name]=$((tried[$name] + 1)); return 1 ;;
	esac
}

# What must be the same afterwards
state_of_system()
{
	cat /sys/devices/system/cpu/online
	grep -H . /sys/devices/system/memory/memory*/{state,valid_zones} \
		"$KNOBS/chunk_bytes" /sys/kernel/mm/transparent_hugepage/{,*/}*enabled \
		/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan \
		2>/dev/null
	cut -d ' ' -f 1 /proc/modules | sort
}

# Tens of MiB can be on the lists of free pages that CPUs have for themselves, and
# some in counters of theirs that have not been added up.
free_kb()
{
	write_to /proc/sys/vm/stat_refresh 1
	awk -v kb=$(($(getconf PAGESIZE) / 1024)) \
		'$1 == "nr_free_pages" || $1 == "count:" { n += $2 }
		 END { print n * kb }' /proc/zoneinfo
}

isolated()
{
	awk '/^nr_isolated/ { n += $2 } END { print n }' /proc/vmstat
}

# What is only cached is not missing.
drop_caches()
{
	sync
	write_to /proc/sys/vm/drop_caches 3
	write_to /proc/sys/vm/compact_memory 1
}

start_stress()
{
	local args=(-S "$SEED") dir ret

	if command -v mkfs.ext4 >/dev/null && mkdir "$tmp/ext4" &&
	   truncate -s 64M "$tmp/disk" && mkfs.ext4 -q "$tmp/disk" &&
	   mount -o loop "$tmp/disk" "$tmp/ext4"; then
		args+=(-f "$tmp/ext4")
	else
		msg "no ext4: mkfs.ext4, loop or ext4 is missing"
	fi
	for dir in $FILE_DIRS; do
		args+=(-f "$dir")
	done
	[ -z "$group" ] || args+=(-g "$group/a")

	# Its memory is to be charged to a group of its own
	[ -z "$group" ] || write_to "$group/main/cgroup.procs" $$
	stress_start "${args[@]}"
	ret=$?
	[ -z "$group" ] || write_to "$group_was/cgroup.procs" $$
	return "$ret"
}

stress_ended()
{
	! kill -0 "$stress_pid" 2>/dev/null
}

# Like stress_stop, but tell what it waits for if it does not end.
end_stress()
{
	local task

	kill -TERM "$stress_pid" 2>/dev/null
	if ! wait_until $STOP_SECONDS stress_ended; then
		msg "stress does not end"
		for task in /proc/"$stress_pid"/task/*; do
			msg "$(cat "$task/comm"): $(cat "$task/wchan")"
			sed 's/^/#   /' "$task/stack"
		done
		kill -KILL "$stress_pid"
	fi
	stress_stop
}

all_names()
{
	local name names=()

	for name in "${DISTURBANCES[@]%%|*}"; do
		! is_picked "stress_$name" || names+=("$name")
	done
	[ ${#names[@]} -gt 0 ] || names=("${DISTURBANCES[@]%%|*}")
	printf '%s\n' "${names[@]}"
}

# Each once, in random order, but not for ever
disturb_each()
{
	local names name i

	mapfile -t names < <(all_names | shuf --random-source=<(yes "$SEED"))
	for name in "${names[@]}"; do
		for ((i = 0; i < 6; i++)); do
			stress_running || return 1
			disturb "$name" && break
			settle
		done
	done
}

disturb_randomly()
{
	local names name end=$1

	mapfile -t names < <(all_names)
	while [ "$SECONDS" -lt "$end" ]; do
		stress_running || return 1
		pick "${names[@]}"
		disturb "$picked"
		nap
		[ $((RANDOM % 2)) -ne 0 ] || settle
	done
}

register stress "every word is right, whatever happens"
test_stress()
{
	local end ret=0

	msg "DURATION=$DURATION SEED=$SEED"
	RANDOM=$SEED
	drop_caches
	free_before=$(free_kb)
	isolated_before=$(isolated)
	state_before=$(state_of_system)

	settle || return 1
	start_stress || return 1
	end=$((SECONDS + DURATION))
	disturb_each && disturb_randomly "$end"

	# It goes on to work after all that.
	settle
	quiet || ret=1
	settle
	[ "$ret" -ne 0 ] || counter_rises "$(param folios_migrated)" || ret=1
	end_stress || ret=1
	offloaded=$((offloaded + $(param folios_migrated)))
	umount_files
	return "$ret"
}

umount_files()
{
	! mountpoint -q "$tmp/ext4" || umount "$tmp/ext4"
	rm -f "$tmp/disk"
	rmdir "$tmp/ext4" 2>/dev/null
}

for entry in "${DISTURBANCES[@]}"; do
	register "stress_${entry%%|*}" "${entry#*|}" did "${entry%%|*}"
done

register stress_offloaded "folios were offloaded"
test_stress_offloaded()
{
	msg "$offloaded folios were offloaded"
	[ "$offloaded" -gt 0 ]
}

# did NAME
did()
{
	local name=$1

	if [ -n "${skipped[$name]}" ]; then
		skip "${skipped[$name]}"
		return
	fi
	msg "$name: $((did[$name])) times, and $((tried[$name])) times in vain"
	[ "$((did[$name]))" -gt 0 ]
}

# What has migrated by now, and how much of that is in the counters of the offload
counts()
{
	echo "$(vmstat pgmigrate_success)" \
	     "$(vmstat 'pgmigrate_offload_(success|fallback|uncopied)')"
}

counts_settle()
{
	local was=$counted

	sleep 1
	counted=$(counts)
	[ "$counted" = "$was" ]
}

# All reasons are wanted here, and nothing else changes
register stress_counters "each page that moves is counted once"
test_stress_counters()
{
	local before after counted='' ret=0

	settle || return 1
	wait_until 60 counts_settle || { msg "memory moves without us"; return 1; }
	read -ra before <<< "$counted"
	start_stress || return 1
	sleep 15
	end_stress || ret=1
	umount_files
	wait_until 60 counts_settle || { msg "memory moves without us"; return 1; }
	read -ra after <<< "$counted"
	msg "$((after[0] - before[0])) pages moved, $((after[1] - before[1])) are counted"
	[ $((after[0] - before[0])) -gt 0 ] || ret=1
	[ $((after[0] - before[0])) -eq $((after[1] - before[1])) ] || ret=1
	return "$ret"
}

register stress_state "CPUs, memory and settings are as they were"
test_stress_state()
{
	local now

	set_policy chunk_bytes "$TEST_CHUNK"
	now=$(state_of_system)
	[ "$now" = "$state_before" ] && return
	diff <(echo "$state_before") <(echo "$now") | sed 's/^/# /'
	return 1
}

nothing_isolated()
{
	[ "$(isolated)" -le "$isolated_before" ]
}

memory_is_back()
{
	drop_caches
	[ "$(free_kb)" -ge $((free_before - LEAK_KB)) ]
}

register stress_leaks "no memory, folio or channel is kept"
test_stress_leaks()
{
	local ret=0

	set_param offloading Y
	set_param offloading N || ret=1
	if [ -n "$(param channels)" ]; then
		msg "channels are kept: $(param channels | tr '\n' ';')"
		ret=1
	fi
	wait_until 20 nothing_isolated || { msg "$(isolated) pages stay isolated"; ret=1; }
	# Groups and whatever else is freed when RCU and workers get to it
	wait_until 180 memory_is_back || ret=1
	msg "free: $free_before KiB before, $(free_kb) KiB after"
	return "$ret"
}

register stress_dmesg "no splat in the kernel log" no_splat

stress_cleanup()
{
	[ -z "$stress_pid" ] || end_stress
	umount_files
	cgroup_cleanup
	calm_engines
	cleanup
	rm -rf "$tmp"
}

parse_options "$@"
# All others look at what it did
pick_test stress
setup
tmp=$(mktemp -d) || exit 1
trap stress_cleanup EXIT
[ -x "$STRESS" ] || skip_all "$STRESS is missing, run make"
cgroup_setup
run_tests
