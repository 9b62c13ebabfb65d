#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test of the migration copy offload and of dcbm, the driver which copies the
# folios of a batch with DMA channels: its parameters, that they do what they
# say, and that nothing is lost when offloading is switched on and off, or the
# driver unloaded, under migration. The folios are moved and verified by
# ./migrate_offload.
#
# Environment:
#   DCBM_KO   load this file rather than let modprobe find dcbm
#   TOGGLES   how many times to switch offloading under migration (40)

# shellcheck disable=SC2317 # tests are called by their names
DIR="$(dirname "$(readlink -f "$0")")"
# shellcheck source=../kselftest/ktap_helpers.sh
source "${DIR}"/../kselftest/ktap_helpers.sh

BENCH=${DIR}/migrate_offload
MODULE=/sys/module/dcbm
PARAMS=$MODULE/parameters
MAX_BATCHED=/sys/module/migrate/parameters/max_batched_pages
TOGGLES=${TOGGLES:-40}
REASONS=(compaction memory_failure memory_hotplug syscall_or_cpuset
	 mempolicy_mbind numa_misplaced contig_range longterm_pin demotion damon)
ALL_REASONS=$(IFS=,; echo "${REASONS[*]}")
SETTABLE="nr_dma_chan reason_mask min_bytes timeout_ms"
SPLATS='BUG|WARNING|Oops|KASAN|lockdep|DMA-API|general protection'

declare -A saved		# parameter values as found
loaded_here=			# set if dcbm was not there before
stress_pid=
stress_log=
why=				# reason of a skipped test

skip_all()
{
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

msg()
{
	echo "# $*"
}

# ---- parameters ---------------------------------------------------------

param()
{
	cat "$PARAMS/$1"
}

# write_to FILE VALUE: VALUE may have escapes. Sets $error if it is refused.
write_to()
{
	error=$( { printf '%b' "$2" > "$1"; } 2>&1 )
	# printf tells which errno; keep this part of its message only.
	set -- $? "${error##*: }"
	error=$2
	return "$1"
}

# set_param NAME VALUE: a valid value, which must be taken
set_param()
{
	write_to "$PARAMS/$1" "$2" && return 0
	msg "$1: '$2' is refused: $error"
	return 1
}

# is_refused FILE VALUE...: each must fail and change nothing
is_refused()
{
	local file=$1 name=${1##*/} value before after ret=0

	shift
	for value in "$@"; do
		before=$(cat "$file")
		if write_to "$file" "$value"; then
			msg "$name: '$value' is accepted, reads back '$(cat "$file")'"
			printf '%s' "$before" > "$file" 2>/dev/null
			ret=1
			continue
		fi
		after=$(cat "$file")
		if [ "$before" != "$after" ]; then
			msg "$name: '$value' is refused ($error), but changed '$before' to '$after'"
			printf '%s' "$before" > "$file" 2>/dev/null
			ret=1
		fi
	done
	return "$ret"
}

# The state each test begins with
reset_params()
{
	set_param offloading N &&
	set_param nr_dma_chan 1 &&
	set_param reason_mask all &&
	set_param min_bytes 0 &&
	set_param timeout_ms "${saved[timeout_ms]}" &&
	set_param folios_migrated 0 &&
	set_param folios_failures 0 || return 1

	[ -z "${saved[max_batched_pages]}" ] ||
		write_to "$MAX_BATCHED" "${saved[max_batched_pages]}"
}

save_params()
{
	local name

	for name in offloading $SETTABLE; do
		saved[$name]=$(param "$name") || return 1
	done
	[ ! -r "$MAX_BATCHED" ] || saved[max_batched_pages]=$(cat "$MAX_BATCHED")
}

restore_params()
{
	local name

	[ -z "${saved[max_batched_pages]}" ] ||
		write_to "$MAX_BATCHED" "${saved[max_batched_pages]}"
	[ -d "$PARAMS" ] || return
	set_param offloading N
	for name in $SETTABLE; do
		set_param "$name" "${saved[$name]}"
	done
	set_param offloading "${saved[offloading]}"
}

# ---- the module ---------------------------------------------------------

# load_dcbm [PARAMETER=VALUE...]
load_dcbm()
{
	if [ -n "$DCBM_KO" ]; then
		insmod "$DCBM_KO" "$@" 2>/dev/null
	else
		modprobe dcbm "$@" 2>/dev/null
	fi
}

# A module that is built in has parameters but no state.
is_builtin()
{
	[ -d "$MODULE" ] && [ ! -e "$MODULE/initstate" ]
}

can_reload()
{
	if is_builtin; then
		why="dcbm is built in"
		return 1
	fi
	if [ -n "$DCBM_KO" ]; then
		[ -r "$DCBM_KO" ]
	else
		modprobe -n dcbm >/dev/null 2>&1
	fi && return
	why="dcbm could not be loaded again"
	return 1
}

# ---- moving folios ------------------------------------------------------

# bench ARGUMENT...: its output as comments, its exit status
bench()
{
	msg "migrate_offload $*"
	"$BENCH" "$@" 2>&1 | sed 's/^/# /'
	return "${PIPESTATUS[0]}"
}

# Move folios in the background until stress_stop.
stress_start()
{
	local i

	msg "migrate_offload -t 3600 $*"
	"$BENCH" -t 3600 "$@" > "$stress_log" 2>&1 &
	stress_pid=$!
	for ((i = 0; i < 600; i++)); do
		grep -q '^# begin' "$stress_log" && return 0
		kill -0 "$stress_pid" 2>/dev/null || break
		sleep 0.2
	done
	msg "migrate_offload does not begin"
	stress_stop
	return 1
}

stress_running()
{
	kill -0 "$stress_pid" 2>/dev/null && return
	msg "migrate_offload ended by itself"
	return 1
}

# Returns what migrate_offload found: any wrong byte fails.
stress_stop()
{
	local ret

	kill -TERM "$stress_pid" 2>/dev/null
	wait "$stress_pid"
	ret=$?
	stress_pid=
	sed 's/^/# /' "$stress_log"
	[ "$ret" -eq 0 ] || msg "migrate_offload: exit status $ret"
	return "$ret"
}

# counter_rises FROM: wait until more folios than that were offloaded
counter_rises()
{
	local i

	for ((i = 0; i < 300; i++)); do
		[ "$(param folios_migrated)" -gt "$1" ] && return 0
		stress_running || return 1
		sleep 0.1
	done
	msg "nothing is offloaded: folios_migrated stays $1"
	return 1
}

# Move folios; dcbm must not copy any of them.
none_offloaded()
{
	set_param folios_migrated 0 || return 1
	set_param offloading Y || return 1
	bench -t 1 -b 4M -s 4K,64K || return 1
	[ "$(param folios_migrated)" -eq 0 ] && return 0
	msg "$(param folios_migrated) folios were offloaded"
	return 1
}

# ---- tests --------------------------------------------------------------

test_readable()
{
	local name value ret=0

	for name in nr_dma_chan min_bytes timeout_ms folios_migrated folios_failures; do
		value=$(param "$name")
		[[ $value =~ ^[0-9]+$ ]] && continue
		msg "$name: '$value' is not a number"
		ret=1
	done
	[ "$(param nr_dma_chan)" -ge 1 ] || ret=1
	[[ $(param offloading) =~ ^[YN]$ ]] || ret=1
	[[ $(param reason_mask) =~ ^[a-z_,]+$ ]] || ret=1
	param channels > /dev/null || ret=1
	for name in offloading $SETTABLE channels folios_migrated folios_failures; do
		msg "$name: $(param "$name" | tr '\n' ';')"
	done

	# What it was loaded with by us are the defaults.
	if [ -n "$loaded_here" ]; then
		[ "${saved[offloading]}" = N ] || ret=1
		[ "$(param folios_migrated)" -eq 0 ] || ret=1
		[ -z "$(param channels)" ] || ret=1
	fi
	return "$ret"
}

# What no parameter takes: nothing, negative, huge, NUL first, binary, blank
GARBAGE=('\n' -1 99999999999999999999999 '\00001' '\0377\0376\0001' ' ')

test_bad_offloading()
{
	is_refused "$PARAMS/offloading" "${GARBAGE[@]}" 2 maybe xyz || return 1
	set_param offloading Y || return 1
	is_refused "$PARAMS/offloading" "${GARBAGE[@]}" 2 maybe xyz
}

test_bad_nr_dma_chan()
{
	is_refused "$PARAMS/nr_dma_chan" "${GARBAGE[@]}" 0 4294967296 eight 0x 1x '1 2'
}

test_bad_reason_mask()
{
	is_refused "$PARAMS/reason_mask" "${GARBAGE[@]}" compactoin \
		compaction,bogus bogus,compaction 0x400 0xffffffff 0x3ffg \
		'compaction demotion' COMPACTIONS
}

test_bad_min_bytes()
{
	is_refused "$PARAMS/min_bytes" "${GARBAGE[@]}" 18446744073709551616 lots 0x 12q
}

test_bad_timeout_ms()
{
	is_refused "$PARAMS/timeout_ms" "${GARBAGE[@]}" 4294967296 soon 10s
}

test_bad_max_batched_pages()
{
	if [ ! -e "$MAX_BATCHED" ]; then
		why="no $MAX_BATCHED"
		return "$KSFT_SKIP"
	fi
	is_refused "$MAX_BATCHED" "${GARBAGE[@]}" 0 4294967296 many 512p
}

test_readonly_channels()
{
	is_refused "$PARAMS/channels" 1 none
}

test_reason_names()
{
	local name got ret=0

	# reads_back WRITTEN EXPECTED
	reads_back()
	{
		set_param reason_mask "$1" || return 1
		got=$(param reason_mask)
		[ "$got" = all ] && got=$ALL_REASONS
		[ "$got" = "$2" ] && return 0
		msg "reason_mask: '$1' reads back '$got', not '$2'"
		return 1
	}

	for name in "${REASONS[@]}"; do
		reads_back "$name" "$name" || ret=1
	done
	reads_back all "$ALL_REASONS" || ret=1
	reads_back none "none" || ret=1
	reads_back 0x3ff "$ALL_REASONS" || ret=1
	reads_back 1023 "$ALL_REASONS" || ret=1
	reads_back 0 none || ret=1
	reads_back 0x8 syscall_or_cpuset || ret=1
	reads_back demotion,compaction compaction,demotion || ret=1
	reads_back 'damon\n' damon || ret=1
	# What is read can be written.
	got=$(param reason_mask)
	reads_back "$got" "$got" || ret=1
	return "$ret"
}

test_chan_busy()
{
	set_param nr_dma_chan 1 || return 1
	set_param offloading Y || return 1
	[ "$(param channels | wc -l)" -eq 1 ] || { msg "channels: $(param channels)"; return 1; }
	is_refused "$PARAMS/nr_dma_chan" 2 || return 1
	if ! [[ $error =~ busy ]]; then
		msg "nr_dma_chan with offloading on: $error"
		return 1
	fi
	set_param offloading N || return 1
	[ -z "$(param channels)" ] || { msg "channels are kept: $(param channels)"; return 1; }
	set_param nr_dma_chan 2
}

test_benchmark()
{
	bench -a -b 8M -r 1 -s 4K,64K,2M -c 1,2
}

test_counters()
{
	local name value ret=0

	bench -m dcbm -c 1 -b 4M -r 1 -s 4K || return 1
	[ "$(param folios_migrated)" -gt 0 ] || { msg "nothing was counted"; return 1; }
	set_param folios_migrated 0 || return 1
	[ "$(param folios_migrated)" -eq 0 ] || { msg "folios_migrated is not reset"; return 1; }

	for name in folios_migrated folios_failures; do
		for value in 0 12345 reset; do
			set_param "$name" "$value" || ret=1
			[ "$(param "$name")" = 0 ] && continue
			msg "$name: '$(param "$name")' after '$value' was written"
			ret=1
		done
	done
	return "$ret"
}

test_reason_off()
{
	local mask

	for mask in none damon 0x3f7; do
		set_param offloading N && set_param reason_mask "$mask" || return 1
		none_offloaded || return 1
	done
}

test_reason_on()
{
	set_param reason_mask syscall_or_cpuset || return 1
	bench -a -m dcbm -c 1 -b 4M -r 1 -s 4K,64K
}

test_min_bytes()
{
	set_param min_bytes 1073741824 || return 1
	none_offloaded
}

test_batch_sizes()
{
	local pages

	if [ ! -e "$MAX_BATCHED" ]; then
		why="no $MAX_BATCHED"
		return "$KSFT_SKIP"
	fi
	for pages in 2 33 4096; do
		if ! write_to "$MAX_BATCHED" "$pages"; then
			msg "max_batched_pages: '$pages' is refused: $error"
			return 1
		fi
		msg "max_batched_pages: $(cat "$MAX_BATCHED")"
		# Which small batches are worth offloading is not for us to say.
		set_param offloading Y || return 1
		bench -t 1 -b 8M -s 4K,64K,2M || return 1
	done
	# The last were large.
	bench -m dcbm -c 1 -b 8M -r 1 -s 4K,64K,2M
}

test_toggle()
{
	local i ret=0

	stress_start -k -b 8M -s 4K,64K,2M || return 1
	for ((i = 0; i < TOGGLES; i++)); do
		stress_running || ret=1
		set_param nr_dma_chan $((i % 3 + 1)) || ret=1
		set_param offloading Y || ret=1
		# Now and then at once, while a batch may be on its way
		if [ $((i % 4)) -eq 0 ]; then
			counter_rises "$(param folios_migrated)" || ret=1
		fi
		set_param offloading N || ret=1
		[ "$ret" -eq 0 ] || break
	done
	stress_stop || ret=1
	msg "offloading was switched $i times, $(param folios_migrated) folios were offloaded"
	return "$ret"
}

test_unload()
{
	local i before ret=0

	can_reload || return "$KSFT_SKIP"

	stress_start -k -b 8M -s 4K,64K,2M || return 1
	for ((i = 0; i < 3 && ret == 0; i++)); do
		if ! { set_param min_bytes 0 && set_param reason_mask all &&
		       set_param offloading Y; }; then
			ret=1
			break
		fi
		before=$(param folios_migrated)
		counter_rises "$before" || { ret=1; break; }

		# Waits for the batches that are on their way.
		if ! error=$(timeout 300 rmmod dcbm 2>&1) ||
		   [ -d "$MODULE" ]; then
			msg "dcbm was not unloaded: $error"
			ret=1
			break
		fi
		stress_running || ret=1
		sleep 1
		if ! load_dcbm || [ ! -d "$PARAMS" ]; then
			msg "dcbm cannot be loaded again"
			ret=1
			break
		fi
		[ "$(param offloading)" = N ] || { msg "offloading is on after loading"; ret=1; }
	done
	stress_stop || ret=1
	[ -d "$PARAMS" ] || load_dcbm || ret=1
	return "$ret"
}

test_load_parameters()
{
	local bad ret=0

	can_reload || return "$KSFT_SKIP"
	set_param offloading N || return 1
	rmmod dcbm || return 1
	for bad in reason_mask=bogus nr_dma_chan=0 min_bytes=lots timeout_ms=-1; do
		if load_dcbm "$bad"; then
			msg "loaded with $bad"
			rmmod dcbm
			ret=1
		fi
	done
	if load_dcbm reason_mask=demotion,damon nr_dma_chan=2 min_bytes=12345; then
		[ "$(param reason_mask)" = demotion,damon ] || ret=1
		[ "$(param nr_dma_chan)" = 2 ] || ret=1
		[ "$(param min_bytes)" = 12345 ] || ret=1
		[ "$ret" -eq 0 ] || msg "parameters are not those it was loaded with"
	else
		msg "cannot load with parameters"
		ret=1
	fi
	[ -d "$PARAMS" ] || load_dcbm || ret=1
	return "$ret"
}

test_hugetlb()
{
	bench -H -r 2
	case $? in
	0) ;;
	"$KSFT_SKIP") why="see above"; return "$KSFT_SKIP" ;;
	*) return 1 ;;
	esac
	set_param offloading Y || return 1
	bench -H -r 2
}

test_dmesg()
{
	local new

	new=$(dmesg)
	# All of it, if the ring buffer has gone over the mark
	[[ $new != *"$mark"* ]] || new=${new##*"$mark"}
	new=$(grep -E "$SPLATS" <<< "$new") || return 0
	head -n 40 <<< "$new" | sed 's/^/# /'
	return 1
}

TESTS=(
	"test_readable|parameters are readable and valid"
	"test_bad_offloading|offloading: wrong values are refused"
	"test_bad_nr_dma_chan|nr_dma_chan: wrong values are refused"
	"test_bad_reason_mask|reason_mask: wrong values are refused"
	"test_bad_min_bytes|min_bytes: wrong values are refused"
	"test_bad_timeout_ms|timeout_ms: wrong values are refused"
	"test_bad_max_batched_pages|max_batched_pages: wrong values are refused"
	"test_readonly_channels|channels: cannot be written"
	"test_reason_names|reason_mask: names, all, none and numbers"
	"test_chan_busy|nr_dma_chan: cannot change while offloading is on"
	"test_benchmark|every folio is offloaded, content verified"
	"test_counters|counters count and can be reset"
	"test_reason_off|reason_mask: nothing is offloaded without the reason"
	"test_reason_on|reason_mask: everything is offloaded with the reason"
	"test_min_bytes|min_bytes: smaller batches are left to the CPU"
	"test_batch_sizes|max_batched_pages: small, odd and large batches"
	"test_toggle|offloading switched on and off under migration"
	"test_unload|dcbm unloaded under migration"
	"test_load_parameters|dcbm loaded with parameters, good and bad"
	"test_hugetlb|hugetlb pages moved to temporary pages"
	"test_dmesg|no splat in the kernel log"
)

cleanup()
{
	trap - EXIT
	[ -z "$stress_pid" ] || stress_stop
	restore_params
	[ -z "$loaded_here" ] || is_builtin || rmmod dcbm 2>/dev/null
	rm -f "$stress_log"
}

# ---- begin --------------------------------------------------------------

ktap_print_header

[ "$(id -u)" -eq 0 ] || skip_all "must be run as root"
[ -x "$BENCH" ] || skip_all "$BENCH is missing, run make"

if [ ! -d "$PARAMS" ]; then
	load_dcbm || skip_all "dcbm is not there and cannot be loaded (DCBM_KO=path?)"
	loaded_here=1
fi
if [ ! -e "$PARAMS/offloading" ]; then
	[ -z "$loaded_here" ] || rmmod dcbm
	skip_all "dcbm has no parameters"
fi

stress_log=$(mktemp) || skip_all "no temporary file"
save_params || skip_all "cannot read the parameters of dcbm"
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

if [ "$(param offloading)" != Y ] && ! write_to "$PARAMS/offloading" Y; then
	[[ $error =~ "No such device" ]] && skip_all "no DMA memcpy channel"
	ktap_exit_fail_msg "cannot turn offloading on: $error"
fi
bench -t 1 -b 2M -s 4K
[ $? -ne "$KSFT_SKIP" ] || skip_all "migrate_offload cannot run here, see above"

mark="migrate_offload selftest $$ $RANDOM begins"
echo "$mark" > /dev/kmsg

ktap_set_plan ${#TESTS[@]}
for entry in "${TESTS[@]}"; do
	desc=${entry#*|}
	why=
	msg "--- $desc"
	if reset_params; then
		${entry%%|*}
		ret=$?
	else
		ret=1
	fi
	case $ret in
	0) ktap_test_pass "$desc" ;;
	"$KSFT_SKIP") ktap_test_skip "$desc: $why" ;;
	*) ktap_test_fail "$desc" ;;
	esac
done

ktap_finished
