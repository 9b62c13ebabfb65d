#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test of the migration copy offload with each user of page migration: that
# folios are offloaded when the knob reasons has nothing but the reason that
# they migrate for, that none is when it has all others, and that the content is
# right either way. The memory is held and verified by ./hold;
# that it was migrated, and for which reason, is told by the tracepoint
# migrate:mm_migrate_pages.
#
# A test is user_USER_with or user_USER_without the reason in the mask, or
# user_USER_never. USER alone, such as "demotion", is all tests of that user.
#
# Some tests need a machine that was made for them, and are skipped on others:
#   demotion, pressure, promotion
#                         two memory tiers, the slow one without CPUs
#   contig_range          most of a node in a CMA area, as cma=640M@0-1G for
#                         a node of 1 GiB
#
# Environment:
#   KO_DIR    load dcbm from there, see testlib.sh
#   SMALL, LARGE
#             how many small folios and folios of PMD size are held (4 MiB of each)

# shellcheck disable=SC2317,SC2329 # functions are called by their names
# shellcheck disable=SC2034,SC2154 # variables are shared with the library
# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

HOLDER=${DIR}/hold
NODES=/sys/devices/system/node
MEMORY=/sys/devices/system/memory
CGROUP=/sys/fs/cgroup
BALANCING=/proc/sys/kernel/numa_balancing
BALANCING_DEBUG=/sys/kernel/debug/sched/numa_balancing
TIERS=/sys/devices/virtual/memory_tiering
DEMOTION=/sys/kernel/mm/numa/demotion_enabled
CMA=/sys/kernel/debug/cma
PCP_FRACTION=/proc/sys/vm/percpu_pagelist_high_fraction
DAMON=/sys/kernel/mm/damon/admin/kdamonds

# Pages that are held: 4 MiB in small folios, 4 MiB in large ones
PAGE_SIZE=$(getconf PAGESIZE)
SMALL=${SMALL:-$((4 * 1024 * 1024 / PAGE_SIZE))}
LARGE=${LARGE:-2}

undo=()			# commands that restore what was changed, in order
answer=			# of the holder
cgroup=			# where the holder is to be started

# ---- undoing ------------------------------------------------------------

# later COMMAND...: have it called when the test is over
later()
{
	undo+=("${*@Q}")
}

undo_all()
{
	local i

	for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
		eval "${undo[i]}"
	done
	undo=()
	cgroup=
}

write_quietly()
{
	write_to "$1" "$2"
	return 0
}

# set_file FILE VALUE: until the test is over
set_file()
{
	local old

	old=$(cat "$1") || return 1
	if ! write_to "$1" "$2"; then
		msg "$1: '$2' is refused: $error"
		return 1
	fi
	later write_quietly "$1" "$old"
}

# ---- the holder ---------------------------------------------------------

# ask COMMAND...: sets $answer
ask()
{
	local line

	if ! { [ -n "${HOLD[1]}" ] && printf '%s\n' "$*" >&"${HOLD[1]}"; }; then
		msg "$1: hold is gone"
		return 1
	fi
	while read -r -t 300 line <&"${HOLD[0]}"; do
		case $line in
		'#'*) echo "$line" ;;
		ok*) answer=${line#ok}; answer=${answer# }; return 0 ;;
		'1..0 # SKIP'*) skip "${line#*SKIP }"; return ;;
		*) msg "$1: $line"; return 1 ;;
		esac
	done
	msg "$1: no answer from hold"
	return 1
}

# It restores what it has changed when nobody has commands any more.
hold_stop()
{
	local pid=$HOLD_PID fd=${HOLD[1]}

	[ -n "$fd" ] || return 0
	exec {fd}>&-
	wait "$pid"
}

# hold NODE SMALL LARGE [GAPS]: so many folios; sets $held to the number of
# pages. So many GAPS of a page are left in the memory above them.
hold()
{
	coproc HOLD {
		[ -z "$cgroup" ] || echo "$BASHPID" > "$cgroup/cgroup.procs"
		exec "$HOLDER" "$1" "$2" "$3" "${4:-0}"
	}
	later hold_stop
	ask mark || return
	held=$answer
}

# Is all that is held on NODE?
all_on()
{
	ask on "$1" && [ "$answer" -eq "$held" ]
}

arrives_on()
{
	wait_until 120 all_on "$1" && return
	msg "$answer of $held pages are on node $1"
	return 1
}

# ---- what was migrated --------------------------------------------------

# How many pages were migrated, as "compaction:5 damon:2048 "
migrated()
{
	awk 'match($0, /nr_succeeded=[0-9]+/) {
			n = substr($0, RSTART + 13, RLENGTH - 13)
			if (n > 0)
				sum[substr($NF, 8)] += n
		}
		END {
			for (reason in sum)
				printf("%s:%d ", reason, sum[reason])
		}' "$trace/trace"
}

# Every reason there is, but for $1
other_reasons()
{
	set_policy reasons all || return
	policy reasons | tr ',' '\n' | grep -vx "$1" | paste -sd ,
}

# ---- the users ----------------------------------------------------------
#
# prepare_USER gets the memory held where it will be migrated from, and
# migrate_USER has it migrated. Both return KSFT_SKIP with the reason in $why
# for what cannot be done here.

prepare_move_pages()
{
	hold "$node_a" "$SMALL" "$LARGE"
}

migrate_move_pages()
{
	ask move "$node_b" && arrives_on "$node_b"
}

prepare_migratepages()
{
	command -v migratepages >/dev/null ||
		{ skip "no migratepages (package numactl)"; return; }
	hold "$node_a" "$SMALL" "$LARGE"
}

migrate_migratepages()
{
	migratepages "$HOLD_PID" "$node_a" "$node_b" && arrives_on "$node_b"
}

# in_cgroup CONTROLLER: have the holder started in a cgroup of its own
in_cgroup()
{
	local control=$CGROUP/cgroup.subtree_control

	grep -qw "$1" "$CGROUP/cgroup.controllers" 2>/dev/null ||
		{ skip "no cgroup v2 with the $1 controller"; return; }
	if ! grep -qw "$1" "$control"; then
		write_to "$control" "+$1" ||
			{ skip "the $1 controller is not for us: $error"; return; }
		later write_quietly "$control" "-$1"
	fi
	cgroup=$CGROUP/migrate_offload_users
	mkdir -p "$cgroup" || return 1
	later rmdir "$cgroup"
}

prepare_cpuset()
{
	in_cgroup cpuset || return
	write_to "$cgroup/cpuset.mems" "$node_a" || return 1
	hold "$node_a" "$SMALL" "$LARGE"
}

migrate_cpuset()
{
	write_to "$cgroup/cpuset.mems" "$node_b" && arrives_on "$node_b"
}

prepare_mbind()
{
	hold "$node_a" "$SMALL" "$LARGE"
}

migrate_mbind()
{
	ask mbind "$node_b" && arrives_on "$node_b"
}

# touched_on NODE MODE: move the holder to the node's CPUs, and have it read the
# memory until NUMA balancing in that mode has brought all of it there
touched_on()
{
	local cpus

	cpus=$(cat "$NODES/node$1/cpulist")
	taskset -a -p -c "$cpus" "$HOLD_PID" >/dev/null || return 1

	if [ -e "$BALANCING_DEBUG/scan_delay_ms" ]; then
		set_file "$BALANCING_DEBUG/scan_delay_ms" 10 &&
		set_file "$BALANCING_DEBUG/scan_period_min_ms" 50 || return 1
	fi
	set_file "$BALANCING" "$2" || return 1
	ask touch "$1" 240 || return 1
	msg "$answer of $held pages came to node $1"
}

cpus_on_both_nodes()
{
	local node

	[ -e "$BALANCING" ] || { skip "no NUMA balancing"; return; }
	for node in "$node_a" "$node_b"; do
		[ -n "$(cat "$NODES/node$node/cpulist")" ] ||
			{ skip "node $node has no CPUs"; return; }
	done
}

prepare_balancing()
{
	cpus_on_both_nodes && hold "$node_a" 0 4
}

migrate_balancing()
{
	touched_on "$node_b" 1 && all_on "$node_b"
}

prepare_balancing_small()
{
	cpus_on_both_nodes && hold "$node_a" 256 0
}

migrate_balancing_small()
{
	touched_on "$node_b" 1
}

# two_tiers: sets $fast and $slow to a node of each
two_tiers()
{
	local tiers

	[ -e "$DEMOTION" ] || { skip "no memory tiers"; return; }
	# The fastest has the lowest number.
	mapfile -t tiers < <(printf '%s\n' "$TIERS"/memory_tier*/nodelist |
			     sort -V | xargs cat)
	((${#tiers[@]} > 1)) || { skip "all memory is in one tier"; return; }
	fast=${tiers[0]%%[-,]*}
	slow=${tiers[1]%%[-,]*}
	[ -n "$(cat "$NODES/node$fast/cpulist")" ] ||
		skip "node $fast has no CPUs"
}

prepare_demotion()
{
	two_tiers || return
	set_file "$DEMOTION" 1 || return
	in_cgroup memory || return
	hold "$fast" "$SMALL" "$LARGE"
}

migrate_demotion()
{
	local before

	before=$(vmstat 'pgdemote_.*')
	# Ends with an error when there is nothing left to reclaim.
	write_quietly "$cgroup/memory.reclaim" $((held * PAGE_SIZE))
	ask on "$slow" || return 1
	msg "$answer of $held pages are on node $slow, pgdemote_* rose by" \
		"$(($(vmstat 'pgdemote_.*') - before))"
	[ "$answer" -gt 0 ] && [ "$(vmstat 'pgdemote_.*')" -gt "$before" ]
}

prepare_pressure()
{
	prepare_demotion
}

# Nobody asks for reclaim. The group is over its limit all of a sudden, and what
# is demoted still counts, so all goes that can.
migrate_pressure()
{
	local before

	before=$(vmstat 'pgdemote_.*')
	write_to "$cgroup/memory.high" \
		$(($(cat "$cgroup/memory.current") - held * PAGE_SIZE / 2)) ||
		return 1
	write_to "$cgroup/memory.high" max
	ask on "$slow" || return 1
	msg "$answer of $held pages are on node $slow, pgdemote_* rose by" \
		"$(($(vmstat 'pgdemote_.*') - before))"
	[ "$answer" -gt 0 ] && [ "$(vmstat 'pgdemote_.*')" -gt "$before" ]
}

prepare_promotion()
{
	two_tiers || return
	[ -e "$BALANCING" ] || { skip "no NUMA balancing"; return; }
	set_file "$DEMOTION" 0 || return
	hold "$slow" 0 4
}

migrate_promotion()
{
	local before

	before=$(vmstat pgpromote_success)
	touched_on "$fast" 2 || return 1
	msg "pgpromote_success rose by $(($(vmstat pgpromote_success) - before))"
	[ "$answer" -gt 0 ] && [ "$(vmstat pgpromote_success)" -gt "$before" ]
}

# What is freed can be had by all, instead of waiting on a CPU's own list to be
# given to ours
free_at_once()
{
	set_file "$PCP_FRACTION" 100000
}

prepare_compaction()
{
	[ -e /proc/sys/vm/compact_memory ] || { skip "no compaction"; return; }
	# More gaps than there may be of what lies below and moves there first
	free_at_once || return 1
	hold "$node_b" "$SMALL" 0 $((16 * SMALL))
}

migrate_compaction()
{
	local before

	before=$(vmstat compact_isolated)
	write_to /proc/sys/vm/compact_memory 1 || return 1
	msg "compact_isolated rose by $(($(vmstat compact_isolated) - before))"
	[ "$(vmstat compact_isolated)" -gt "$before" ]
}

# The first of the CMA areas that holds pages: sets $area
holding_area()
{
	for area in "$CMA"/*; do
		[ -e "$area/alloc" ] || continue
		ask within "$(cat "$area/base_pfn")" "$(cat "$area/count")" ||
			return 1
		[ "$answer" -eq 0 ] || return 0
	done
	skip "no memory of ours gets into a CMA area (cma= on the command line?)"
}

prepare_contig_range()
{
	local node

	ls "$CMA"/*/alloc >/dev/null 2>&1 ||
		{ skip "no CMA area in debugfs (CONFIG_CMA_DEBUGFS, cma=)"; return; }
	free_at_once || return 1
	for node in "$node_a" "$node_b"; do
		hold "$node" "$SMALL" 0 || return
		holding_area && return
		hold_stop
	done
	return "$KSFT_SKIP"
}

# The area gives from its beginning, so take more until it was our turn.
migrate_contig_range()
{
	local chunk=$((32 * 1024 * 1024 / PAGE_SIZE)) took=0

	while write_to "$area/alloc" "$chunk"; do
		took=$((took + chunk))
		ask moved || break
		[ "$answer" -eq 0 ] || break
	done
	msg "$took pages of ${area##*/} were allocated"
	write_to "$area/free" "$took" && [ "$answer" -gt 0 ]
}

block_offline()
{
	write_quietly "$1/state" offline
	write_quietly "$1/state" "$2"
}

# Have a memory block of node_b as ZONE_MOVABLE, where memory of ours goes
# first: sets $block
movable_block()
{
	local zone node=$NODES/node$node_b

	[ -e "$MEMORY/block_size_bytes" ] || { skip "no memory hotplug"; return; }
	for block in $(printf '%s\n' "$node"/memory[0-9]* | sort -rV); do
		block=$MEMORY/${block##*/}
		[ "$(cat "$block/state")" = online ] || continue
		zone=$(cat "$block/valid_zones")
		write_to "$block/state" offline || continue
		if [ "$zone" = Movable ]; then
			later block_offline "$block" online_movable
		else
			later block_offline "$block" online_kernel
		fi
		write_to "$block/state" online_movable && return
	done
	skip "no memory block of node $node_b goes offline"
}

# Number of pages that are in the block
in_block()
{
	local size=$((0x$(cat "$MEMORY/block_size_bytes") / PAGE_SIZE))

	ask within $((0x$(cat "$block/phys_index") * size)) "$size"
}

prepare_hotplug()
{
	movable_block || return
	hold "$node_b" "$SMALL" "$LARGE" || return
	in_block || return
	[ "$answer" -gt 0 ] || skip "no memory of ours gets into ${block##*/}"
}

migrate_hotplug()
{
	msg "$answer of $held pages are in ${block##*/}"
	if ! write_to "$block/state" offline; then
		msg "${block##*/}: $error"
		return 1
	fi
	in_block && [ "$answer" -eq 0 ]
}

# What is held begins in a block that goes offline, for there are others that do
# not, where all of it might be
prepare_hotplug_all()
{
	prepare_hotplug
}

# Once around: each block of the node goes offline, and is back before the next
# one goes, so that what is held is driven through all of them. The kernel's own
# memory keeps some.
migrate_hotplug_all()
{
	local block zone online gone=0 all=0 ret=0

	for block in $(printf '%s\n' "$NODES/node$node_b"/memory[0-9]* | sort -V); do
		block=$MEMORY/${block##*/}
		[ "$(cat "$block/state")" = online ] || continue
		all=$((all + 1))
		zone=$(cat "$block/valid_zones")
		online=online_kernel
		[ "$zone" != Movable ] || online=online_movable
		write_to "$block/state" offline || continue
		gone=$((gone + 1))
		if ! in_block || [ "$answer" -ne 0 ]; then
			msg "$answer pages of ours are in ${block##*/}, which is offline"
			ret=1
		fi
		ask verify || ret=1
		if ! write_to "$block/state" $online; then
			msg "${block##*/} is not online again: $error"
			ret=1
		fi
	done
	msg "$gone of $all blocks of node $node_b were offline"
	[ $gone -gt 0 ] && return "$ret"
}

prepare_longterm_pin()
{
	if [ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null)" != 0 ]; then
		skip "no io_uring"
		return
	fi
	prepare_hotplug
}

migrate_longterm_pin()
{
	msg "$answer of $held pages are in ${block##*/}"
	ask pin || return 1
	in_block && [ "$answer" -eq 0 ]
}

prepare_soft_offline()
{
	[ -e /sys/kernel/debug/hwpoison/unpoison-pfn ] ||
		{ skip "no /sys/kernel/debug/hwpoison to undo it with"; return; }
	hold "$node_a" "$SMALL" 0
}

migrate_soft_offline()
{
	ask offline 16
}

# damon ACTION: for the holder, wherever and however often it accesses memory
damon()
{
	local file

	[ -d "$DAMON" ] || { skip "no DAMON_SYSFS"; return; }
	[ "$(cat "$DAMON/nr_kdamonds")" -eq 0 ] || { skip "DAMON is in use"; return; }
	set_file "$DAMON/nr_kdamonds" 1 || return 1
	local context=$DAMON/0/contexts/0 scheme=$DAMON/0/contexts/0/schemes/0

	write_to "$DAMON/0/contexts/nr_contexts" 1 || return 1
	if ! write_to "$context/operations" vaddr; then
		skip "no DAMON_VADDR"
		return
	fi
	write_to "$context/targets/nr_targets" 1 &&
	write_to "$context/targets/0/pid_target" "$HOLD_PID" &&
	write_to "$context/monitoring_attrs/intervals/sample_us" 5000 &&
	write_to "$context/monitoring_attrs/intervals/aggr_us" 50000 &&
	write_to "$context/schemes/nr_schemes" 1 &&
	write_to "$scheme/action" "$1" &&
	write_to "$scheme/target_nid" "$node_b" || return 1
	write_to "$scheme/access_pattern/sz/max" 18446744073709551615 || return 1
	for file in nr_accesses age; do
		write_to "$scheme/access_pattern/$file/max" 4294967295 || return 1
	done
	later write_quietly "$DAMON/0/state" off
}

prepare_damon_cold()
{
	hold "$node_a" "$SMALL" "$LARGE" && damon migrate_cold
}

prepare_damon_hot()
{
	hold "$node_a" "$SMALL" "$LARGE" && damon migrate_hot
}

migrate_damon_cold()
{
	write_to "$DAMON/0/state" on && arrives_on "$node_b"
}

migrate_damon_hot()
{
	migrate_damon_cold
}

# ---- tests --------------------------------------------------------------

# user NAME REASON MASK WHO: with this mask, WHO copies, dcbm or the CPU. Returns
# 2 if dcbm copied what it should not, but others were migrating as well.
user()
{
	local name=$1 reason=$2 mask=$3 who=$4 ret=0 copied moved=0 all

	"prepare_$name" || return
	set_policy reasons "$mask" || return 1
	set_param offloading Y || return 1
	ask mark || return 1
	set_param folios_migrated 0 || return 1
	: > "$trace/trace"

	"migrate_$name"
	ret=$?
	[ "$ret" -ne "$KSFT_SKIP" ] || return "$ret"
	ask moved && moved=$answer || ret=1

	copied=$(param folios_migrated)
	all=$(migrated)
	msg "pages migrated: ${all:-none}; $moved of $held held moved; dcbm copied $copied folios"

	ask verify || ret=1
	if [[ " $all" != *" $reason:"* || $moved -eq 0 ]]; then
		msg "nothing was migrated for $reason"
		ret=1
	fi
	if [ "$who" = dcbm ] && [ "$copied" -eq 0 ]; then
		msg "dcbm should have copied"
		ret=1
	elif [ "$who" = CPU ] && [ "$copied" -ne 0 ]; then
		msg "dcbm should not have copied"
		[[ $ret -eq 0 && "$all" == *:*:* ]] && return 2
		ret=1
	fi
	return "$ret"
}

test_user()
{
	local ret=2 try

	for ((try = 0; try < 3 && ret == 2; try++)); do
		set_param offloading N || return 1
		# It must not migrate what others are to migrate.
		[ ! -e "$BALANCING" ] || set_file "$BALANCING" 0 || return 1

		case $3 in
		with) user "$1" "$2" "$2" dcbm ;;
		without) user "$1" "$2" "$(other_reasons "$2")" CPU ;;
		never) user "$1" "$2" all CPU ;;
		esac
		ret=$?
		undo_all
	done
	return "$ret"
}

# What migrates: the user, its reason, what it is. Batches are offloaded.
USERS=(
	"move_pages|syscall_or_cpuset|move_pages()"
	"migratepages|syscall_or_cpuset|migratepages"
	"cpuset|syscall_or_cpuset|a cpuset whose mems change"
	"mbind|mempolicy_mbind|mbind(MPOL_MF_MOVE)"
	"balancing|numa_misplaced|NUMA balancing of PMD sized folios"
	"demotion|demotion|demotion to a slower tier"
	"pressure|demotion|demotion when memory.high is lowered"
	"promotion|numa_misplaced|promotion from a slower tier"
	"compaction|compaction|compaction"
	"contig_range|contig_range|allocation from a CMA area"
	"hotplug|memory_hotplug|a memory block that goes offline"
	"hotplug_all|memory_hotplug|all memory blocks of a node, one after another"
	"longterm_pin|longterm_pin|a long-term pin of ZONE_MOVABLE"
	"damon_cold|damon|DAMON's migrate_cold"
	"damon_hot|damon|DAMON's migrate_hot"
)

# These migrate one small folio a time. No engine is asked to copy that.
SINGLE_USERS=(
	"balancing_small|numa_misplaced|NUMA balancing of small folios"
	"soft_offline|memory_failure|soft offline"
)

# register_user SUFFIX NAME REASON DESCRIPTION
register_user()
{
	local test=user_$2_$1

	register "$test" "$4" test_user "$2" "$3" "$1"
	test_groups[$2]+=" $test"
}

for user in "${USERS[@]}"; do
	IFS='|' read -r name reason what <<< "$user"
	register_user with "$name" "$reason" "$what: offloaded with $reason"
	register_user without "$name" "$reason" "$what: copied by the CPU without $reason"
done
for user in "${SINGLE_USERS[@]}"; do
	IFS='|' read -r name reason what <<< "$user"
	register_user never "$name" "$reason" "$what: one folio a time, copied by the CPU"
done
register users_dmesg "no splat in the kernel log" no_splat

# The first two nodes that have memory
choose_nodes()
{
	local node nodes=()

	for node in $(printf '%s\n' "$NODES"/node[0-9]* | sort -V); do
		grep -q 'MemTotal: *[1-9]' "$node/meminfo" &&
			nodes+=("${node##*/node}")
	done
	node_a=${nodes[0]}
	node_b=${nodes[1]}
}

parse_options "$@"
setup
[ -x "$HOLDER" ] || skip_all "$HOLDER is missing, run make"
# The holder may be gone when it is asked.
trap '' PIPE
trap 'undo_all; trace_end; cleanup' EXIT
trace_begin migrate/mm_migrate_pages || skip_all "${why:-no instance of tracing}"
choose_nodes
run_tests
