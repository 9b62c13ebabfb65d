# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by the shell tests of the migration copy offload: the parameters of
# dcbm, which are restored at the end, loading and unloading it, and moving folios
# with ./bench. How tests are named, listed and picked is in testlib.sh.

# shellcheck disable=SC2034,SC2154 # variables are for those who source this
DIR="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
# shellcheck source=../../kselftest/testlib.sh
source "${DIR}"/../../kselftest/testlib.sh

BENCH=${DIR}/bench
STRESS=$BENCH			# what stress_start runs
START_SECONDS=${START_SECONDS:-120}	# how long that may take to begin
MODULE=/sys/module/dcbm
PARAMS=$MODULE/parameters
KNOBS=/sys/kernel/mm/migrate_offload
TEST_CHUNK=2097152		# chunk_bytes, unless a test sets it
TRACING=/sys/kernel/tracing
SIM=/sys/kernel/debug/dma-sim
SIM_DRIVER=/sys/bus/platform/drivers/dma-sim
SETTABLE="nr_dma_chan remote patience_ms timeout_ms"
SETTABLE_POLICY="reasons min_folio_bytes min_batch_bytes latency_us chunk_bytes share"

declare -A saved		# parameter values as found
loaded_here=			# set if dcbm was not there before
stress_pid=
stress_log=
trace=				# an instance of tracing, while there is one

# ---- parameters ---------------------------------------------------------

param()
{
	cat "$PARAMS/$1"
}

# The names of the channels that dcbm has, not of those that it passed over
claimed()
{
	grep -v ' unfit: ' "$PARAMS/channels" | cut -d ' ' -f 1
}

# set_in FOLDER NAME VALUE: a valid value, which must be taken
set_in()
{
	write_to "$1/$2" "$3" && return 0
	msg "$2: '$3' is refused: $error"
	return 1
}

# set_param NAME VALUE
set_param()
{
	set_in "$PARAMS" "$@"
}

# What the core decides, which is the same for all migrators
policy()
{
	cat "$KNOBS/$1"
}

# set_policy NAME VALUE
set_policy()
{
	set_in "$KNOBS" "$@"
}

# With so much patience, engines have timeout_ms, whatever their speed. With
# TEST_CHUNK, a chunk holds the same folios each time. Without share, engines copy
# all of it.
reset_params()
{
	set_param offloading N &&
	set_param nr_dma_chan 1 &&
	set_policy migrator auto &&
	set_policy reasons all &&
	set_policy min_folio_bytes 0 &&
	set_policy min_batch_bytes 0 &&
	set_param remote Y &&
	set_param patience_ms 60000 &&
	set_param timeout_ms "${saved[timeout_ms]}" &&
	set_param folios_migrated 0 &&
	set_param folios_failures 0 &&
	set_policy latency_us auto &&
	set_policy share 0 &&
	set_policy chunk_bytes "$TEST_CHUNK"
}

save_params()
{
	local name

	for name in offloading $SETTABLE; do
		saved[$name]=$(param "$name") || return 1
	done
	for name in $SETTABLE_POLICY; do
		saved[$name]=$(policy "$name") || return 1
	done
}

restore_params()
{
	local name

	set_policy migrator auto
	for name in $SETTABLE_POLICY; do
		set_policy "$name" "${saved[$name]}"
	done
	[ -d "$PARAMS" ] || return
	set_param offloading N
	for name in $SETTABLE; do
		set_param "$name" "${saved[$name]}"
	done
	set_param offloading "${saved[offloading]}"
}

# log_since prints what the kernel has said after log_mark
log_mark()
{
	log_point="migrate_offload mark $$ $RANDOM"
	echo "$log_point" > /dev/kmsg
}

log_since()
{
	dmesg | sed "1,/$log_point/d"
}

# Sum of the counters of /proc/vmstat that match
vmstat()
{
	awk -v pattern="^($1)$" '$1 ~ pattern { sum += $2 } END { print sum + 0 }' \
		/proc/vmstat
}

# ---- the module ---------------------------------------------------------

load_dcbm()
{
	load_module dcbm "$@"
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
	can_load dcbm && return
	why="dcbm could not be loaded again"
	return 1
}

# ---- engines of dma-sim -------------------------------------------------

load_sim()
{
	load_module dma-sim "$@"
}

# channels_are STATE NUMBER: so many of dcbm's channels
channels_are()
{
	[ "$(grep -c " $1\$" "$PARAMS/channels")" -eq "$2" ]
}

failures_above()
{
	[ "$(param folios_failures)" -gt "$1" ]
}

# ---- tracing ------------------------------------------------------------

# trace_begin [EVENT...]: into $trace, an instance of our own
trace_begin()
{
	local event

	mountpoint -q "$TRACING" || mount -t tracefs none "$TRACING" 2>/dev/null
	for event; do
		[ -e "$TRACING/events/$event" ] ||
			{ skip "no tracepoint $event"; return; }
	done
	mkdir "$TRACING/instances/migrate_offload_$$" || return 1
	trace=$TRACING/instances/migrate_offload_$$
	for event; do
		write_to "$trace/events/$event/enable" 1 || {
			trace_end
			return 1
		}
	done
}

trace_end()
{
	[ -z "$trace" ] || rmdir "$trace"
	trace=
}

# ---- moving folios ------------------------------------------------------

# bench ARGUMENT...: its output as comments, its exit status
bench()
{
	msg "bench $*"
	"$BENCH" "$@" 2>&1 | sed 's/^/# /'
	return "${PIPESTATUS[0]}"
}

stress_began_or_ended()
{
	grep -q '^# begin' "$stress_log" || ! kill -0 "$stress_pid" 2>/dev/null
}

# Move folios in the background until stress_stop.
stress_start()
{
	msg "${STRESS##*/} -t 3600 $*"
	"$STRESS" -t 3600 "$@" > "$stress_log" 2>&1 &
	stress_pid=$!
	wait_until "$START_SECONDS" stress_began_or_ended
	grep -q '^# begin' "$stress_log" && return 0
	msg "${STRESS##*/} does not begin"
	stress_stop
	return 1
}

stress_running()
{
	kill -0 "$stress_pid" 2>/dev/null && return
	msg "${STRESS##*/} ended by itself"
	return 1
}

# Returns what the program found: any wrong byte fails.
stress_stop()
{
	local ret

	kill -TERM "$stress_pid" 2>/dev/null
	wait "$stress_pid"
	ret=$?
	stress_pid=
	sed 's/^/# /' "$stress_log"
	[ "$ret" -eq 0 ] || msg "${STRESS##*/}: exit status $ret"
	return "$ret"
}

migrated_above()
{
	[ "$(param folios_migrated)" -gt "$1" ]
}

migrated_above_or_ended()
{
	migrated_above "$1" || ! kill -0 "$stress_pid" 2>/dev/null
}

# counter_rises FROM: wait until more folios than that were offloaded
counter_rises()
{
	wait_until 60 migrated_above_or_ended "$1"
	migrated_above "$1" && return 0
	stress_running || return 1
	msg "nothing is offloaded: folios_migrated stays $1"
	return 1
}

# ---- running the tests --------------------------------------------------

cleanup()
{
	trap - EXIT
	[ -z "$stress_pid" ] || stress_stop
	restore_params
	[ -z "$loaded_here" ] || is_builtin || rmmod dcbm 2>/dev/null
	rm -f "$stress_log"
}

# Load dcbm and see that folios can be moved with it, or skip everything.
setup()
{
	ktap_print_header

	[ "$(id -u)" -eq 0 ] || skip_all "must be run as root"
	[ -x "$BENCH" ] || skip_all "$BENCH is missing, run make"

	if [ ! -d "$PARAMS" ]; then
		load_dcbm || skip_all "dcbm is not there and cannot be loaded (KO_DIR=directory?)"
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
	[ $? -ne "$KSFT_SKIP" ] || skip_all "bench cannot run here, see above"

	log_mark
}

# The state each test begins with
before_test()
{
	reset_params
}
