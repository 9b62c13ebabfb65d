# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by the shell tests of the migration copy offload: the parameters of
# dcbm, which are restored at the end, loading and unloading it, moving folios
# with ./migrate_offload, and the loop that runs TESTS.
#
# Environment:
#   KO_DIR    load modules from this directory, not with modprobe: they are in it,
#             or it is the output directory of a kernel build

# shellcheck disable=SC2034,SC2154 # variables are for those who source this
DIR="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
# shellcheck source=../kselftest/ktap_helpers.sh
source "${DIR}"/../kselftest/ktap_helpers.sh

BENCH=${DIR}/migrate_offload
STRESS=$BENCH			# what stress_start runs
MODULE=/sys/module/dcbm
PARAMS=$MODULE/parameters
MAX_BATCH=/sys/module/migrate/parameters/max_batch_bytes
TRACING=/sys/kernel/tracing
SETTABLE="nr_dma_chan reason_mask min_bytes min_batch_bytes remote timeout_ms"
SPLATS='BUG:|WARNING:|Oops|KASAN:|DMA-API:.*error|general protection|rcu: INFO:'
SPLATS+='|pagealloc: |DMA-API: debugging out of memory'
SPLATS+='|turning off the locking correctness validator'

declare -A saved		# parameter values as found
loaded_here=			# set if dcbm was not there before
stress_pid=
stress_log=
trace=				# an instance of tracing, while there is one
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

# The names of the channels that dcbm has, not of those that it passed over
claimed()
{
	grep -v ' unfit: ' "$PARAMS/channels" | cut -d ' ' -f 1
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
	set_param min_batch_bytes 0 &&
	set_param remote Y &&
	set_param timeout_ms "${saved[timeout_ms]}" &&
	set_param folios_migrated 0 &&
	set_param folios_failures 0 || return 1

	[ -z "${saved[max_batch_bytes]}" ] ||
		write_to "$MAX_BATCH" "${saved[max_batch_bytes]}"
}

save_params()
{
	local name

	for name in offloading $SETTABLE; do
		saved[$name]=$(param "$name") || return 1
	done
	[ ! -r "$MAX_BATCH" ] || saved[max_batch_bytes]=$(cat "$MAX_BATCH")
}

restore_params()
{
	local name

	[ -z "${saved[max_batch_bytes]}" ] ||
		write_to "$MAX_BATCH" "${saved[max_batch_bytes]}"
	[ -d "$PARAMS" ] || return
	set_param offloading N
	for name in $SETTABLE; do
		set_param "$name" "${saved[$name]}"
	done
	set_param offloading "${saved[offloading]}"
}

# What a test of the limit of a batch begins with
has_max_batch()
{
	[ ! -e "$MAX_BATCH" ] || return 0
	why="no $MAX_BATCH"
	return "$KSFT_SKIP"
}

# ---- the module ---------------------------------------------------------

# module_file NAME: where it is in KO_DIR
module_file()
{
	local file=$KO_DIR/$1.ko

	[ -r "$file" ] ||
		file=$KO_DIR/$(sed -n "s|\(.*/$1\)\.o\$|\1.ko|p" \
			       "$KO_DIR/modules.order" 2>/dev/null)
	[ -f "$file" ] && echo "$file"
}

# load_module NAME [PARAMETER=VALUE...]: not what it depends on, with KO_DIR
load_module()
{
	local name=$1 file

	shift
	# It waits for one before that crashed while it was loaded
	if [ -n "$KO_DIR" ]; then
		file=$(module_file "$name") || return 1
		timeout 60 insmod "$file" "$@" 2>/dev/null
	else
		timeout 60 modprobe "$name" "$@" 2>/dev/null
	fi
}

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
	if [ -n "$KO_DIR" ]; then
		module_file dcbm >/dev/null
	else
		modprobe -n dcbm >/dev/null 2>&1
	fi && return
	why="dcbm could not be loaded again"
	return 1
}

# ---- tracing ------------------------------------------------------------

# trace_begin [EVENT...]: into $trace, an instance of our own
trace_begin()
{
	local event

	mountpoint -q "$TRACING" || mount -t tracefs none "$TRACING" 2>/dev/null
	for event; do
		[ ! -e "$TRACING/events/$event" ] || continue
		why="no tracepoint $event"
		return "$KSFT_SKIP"
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
	msg "migrate_offload $*"
	"$BENCH" "$@" 2>&1 | sed 's/^/# /'
	return "${PIPESTATUS[0]}"
}

# Move folios in the background until stress_stop.
stress_start()
{
	local i

	msg "${STRESS##*/} -t 3600 $*"
	"$STRESS" -t 3600 "$@" > "$stress_log" 2>&1 &
	stress_pid=$!
	for ((i = 0; i < 600; i++)); do
		grep -q '^# begin' "$stress_log" && return 0
		kill -0 "$stress_pid" 2>/dev/null || break
		sleep 0.2
	done
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

# Returns what migrate_offload found: any wrong byte fails.
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
	[ $? -ne "$KSFT_SKIP" ] || skip_all "migrate_offload cannot run here, see above"

	mark="migrate_offload selftest $$ $RANDOM begins"
	echo "$mark" > /dev/kmsg
}

# run_tests: each of TESTS, which are "function|description". A function returns
# 0, or KSFT_SKIP with the reason in $why. It begins with the parameters that
# reset_params sets.
run_tests()
{
	local entry desc ret

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
}
