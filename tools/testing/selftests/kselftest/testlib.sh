# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by shell tests: tests that register themselves by name, options to list
# and to pick them, modules, and what the kernel logs meanwhile. A script has
#
#	register copies "what is copied is right"
#	test_copies()
#	{
#		...
#	}
#
#	parse_options "$@"
#	ktap_print_header
#	...
#	run_tests
#
# and a comment at its top, which is what -h prints. A test returns 0, or
# KSFT_SKIP with the reason in $why.
#
# Environment:
#   KO_DIR    load modules from this directory, not with modprobe: they are in it,
#             or it is the output directory of a kernel build

# shellcheck disable=SC2034,SC2154 # variables are for those who source this
# shellcheck source=ktap_helpers.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"/ktap_helpers.sh

SPLATS='BUG:|WARNING:|Oops|KASAN:|DMA-API:.*error|general protection|rcu: INFO:'
SPLATS+='|pagealloc: |DMA-API: debugging out of memory'
SPLATS+='|turning off the locking correctness validator'

test_names=()			# in the order in which they run
declare -A test_descs		# by name
declare -A test_commands
declare -A test_groups		# a name for several tests: theirs
picked_tests=" "			# names, with a blank around each
why=				# reason of a skipped test
first_mark=			# where in the kernel's log the script began
mark=				# and where its last part did

msg()
{
	echo "# $*"
}

skip()
{
	why=$*
	return "$KSFT_SKIP"
}

skip_all()
{
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

# ---- tests by name ------------------------------------------------------

# register NAME DESCRIPTION [COMMAND...]: test_NAME, unless another is given
register()
{
	local name=$1 desc=$2

	shift 2
	[ $# -gt 0 ] || set -- "test_$name"
	test_names+=("$name")
	test_descs[$name]=$desc
	test_commands[$name]=${*@Q}
}

is_picked()
{
	[[ $picked_tests == *" $1 "* ]]
}

# wrong_usage WHAT: one line, and the exit status of all who are called wrongly
wrong_usage()
{
	echo "${0##*/}: $*" >&2
	exit 2
}

# pick_test NAME: a test or a group of tests
pick_test()
{
	if [ -n "$1" ] && [ -n "${test_groups[$1]}" ]; then
		picked_tests+="${test_groups[$1]} "
	elif [ -n "$1" ] && [ -n "${test_descs[$1]}" ]; then
		picked_tests+="$1 "
	else
		wrong_usage "no test '$1'; there are: ${test_names[*]} ${!test_groups[*]}"
	fi
}

list_tests()
{
	local name

	for name in "${test_names[@]}"; do
		! is_picked "$name" || printf '%-28s %s\n' "$name" "${test_descs[$name]}"
	done
}

print_usage()
{
	echo "usage: ${0##*/} [-l] [-t TEST] ... [TEST ...]"
	echo "Runs all tests, or those that are named. -l lists them."
	# The comment at the top
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
}

parse_options()
{
	local opt only_list=

	while getopts :hlt: opt; do
		case $opt in
		h)
			print_usage
			exit 0
			;;
		l) only_list=1 ;;
		t) pick_test "$OPTARG" ;;
		*) wrong_usage "not '-$OPTARG'; there are -h, -l and -t TEST" ;;
		esac
	done
	shift $((OPTIND - 1))
	for opt; do
		pick_test "$opt"
	done
	[ "$picked_tests" != " " ] || picked_tests=" ${test_names[*]} "
	if [ -n "$only_list" ]; then
		list_tests
		exit 0
	fi
}

run_test()
{
	local name=$1 line="$1 # ${test_descs[$1]}" start=$SECONDS ret

	why=
	msg "--- $name: ${test_descs[$name]}"
	# What every test begins with, if the script has it
	if [ -z "$(type -t before_test)" ] || before_test; then
		eval "${test_commands[$name]}"
		ret=$?
	else
		ret=1
	fi
	[ -z "$(type -t after_test)" ] || after_test
	msg "$name: $((SECONDS - start)) s"
	case $ret in
	0) ktap_test_pass "$line" ;;
	"$KSFT_SKIP") ktap_test_skip "$line: $why" ;;
	*) ktap_test_fail "$line" ;;
	esac
}

# run_tests: those that are picked, and exit
run_tests()
{
	local name nr=0

	for name in "${test_names[@]}"; do
		! is_picked "$name" || nr=$((nr + 1))
	done
	ktap_set_plan "$nr"
	for name in "${test_names[@]}"; do
		! is_picked "$name" || run_test "$name"
	done
	ktap_finished
}

# ---- waiting ------------------------------------------------------------

# wait_until SECONDS COMMAND...: until it succeeds
wait_until()
{
	local end=$((SECONDS + $1))

	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# ---- files of settings --------------------------------------------------

# write_to FILE VALUE: VALUE may have escapes. Sets $error if it is refused.
write_to()
{
	error=$( { printf '%b' "$2" > "$1"; } 2>&1 )
	# printf tells which errno; keep this part of its message only.
	set -- $? "${error##*: }"
	error=$2
	return "$1"
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

# ---- modules ------------------------------------------------------------

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

# can_load NAME: is there such a module?
can_load()
{
	if [ -n "$KO_DIR" ]; then
		module_file "$1" >/dev/null
	else
		modprobe -n "$1" >/dev/null 2>&1
	fi
}

# ---- the kernel's log ---------------------------------------------------

log_mark()
{
	mark="${0##*/} $$ $RANDOM"
	first_mark=${first_mark:-$mark}
	echo "$mark" > /dev/kmsg
}

# log_since MARK: what was logged, or all if the ring buffer has gone over it
log_since()
{
	local all

	all=$(dmesg)
	[[ $all != *"$1"* ]] || all=${all##*"$1"}
	echo "$all"
}

log_since_mark()
{
	log_since "$mark"
}

# register NAME_dmesg "no splat in the kernel log" no_splat
no_splat()
{
	local splats

	splats=$(log_since "$first_mark" | grep -E "$SPLATS") || return 0
	head -n 40 <<< "$splats" | sed 's/^/# /'
	return 1
}
