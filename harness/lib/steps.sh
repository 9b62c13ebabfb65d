# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by scripts that consist of steps and suites: run them, keep their output
# in files, count what passed, and say so at the end. With $listing, all that is
# only listed.

set -uo pipefail

# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top" || exit 1
export BUILD=${BUILD:-$top/build}
tree=$BUILD/linux
passed=0 failed=0 skipped=0
only=	# a pattern: what has another title is left out
listing=

# wanted TITLE: is it to be run
wanted() {
	[ -z "$listing" ] || { echo "$1"; return 1; }
	[[ $1 =~ $only ]]
}

# report FILE SECONDS STATUS TITLE: one line, and why if it failed
report() {
	local log=$1 seconds=$2 status=$3 title=$4

	if ((status == 0)); then
		echo "ok      $title ($seconds s)"
	else
		echo "FAILED  $title ($seconds s); the whole log is ${log#"$top"/}:"
		{
			# What did not pass, and what it said before; what a step
			# in this one said; or the end
			grep -E -B 10 '^not ok |^FAILED|^ {10}' "$log" | tail -n 60 |
				grep . || tail -n 15 "$log"
		} | grep -vE '^ok |^# *$' | sed 's/^/          /'
	fi
}

# step TITLE COMMAND...: passes if the command does
step() {
	local title=$1 start=$SECONDS status=0 log
	shift
	log=$logs/${title//[^a-zA-Z0-9]/-}.log

	wanted "$title" || return 0
	"$@" >"$log" 2>&1 </dev/null || status=$?
	cd "$top" || exit
	report "$log" $((SECONDS - start)) $status "$title"
	if ((status == 0)); then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	return $status
}

at_once=1	# how many suites run at the same time
running=0 started=0 counts='' pids=()

# suite TITLE COMMAND...: counts the command's own results. If $at_once is more
# than 1, returns while the command runs; summary() waits for all of them.
suite() {
	wanted "$1" || return 0
	if ((at_once == 1)); then
		run_suite "$@"
		return
	fi
	if [ -z "$counts" ]; then
		counts=$(mktemp -d)
		trap stop_suites EXIT
		trap 'exit 130' HUP INT TERM
	fi
	if ((running == at_once)); then
		wait -n
		running=$((running - 1))
	fi
	started=$((started + 1))
	# One that dies has failed
	echo '0 1 0' >"$counts/$started"
	set -m
	{
		passed=0 failed=0 skipped=0
		run_suite "$@"
		echo "$passed $failed $skipped" >"$counts/$started"
	} &
	set +m
	pids+=($!)
	running=$((running + 1))
}

# What was begun has process groups of its own, which can be stopped
stop_suites() {
	local pid

	for pid in "${pids[@]}"; do
		kill -- "-$pid" 2>/dev/null
	done
	rm -rf "$counts"
}

run_suite() {
	local title=$1 start=$SECONDS status=0 log p f s
	shift
	log=$logs/${title//[^a-zA-Z0-9]/-}.log

	"$@" >"$log" 2>&1 </dev/null || status=$?
	cd "$top" || exit
	count_results "$log" $status
	grep -E '^ok .*# *SKIP' "$log" | sed 's/^ok [0-9]* */skipped /'
	report "$log" $((SECONDS - start)) $((f != 0)) "$title: $p passed, $f failed, $s skipped"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	((f == 0))
}

# Wait for what suite() has begun, and count it
finish_suites() {
	local p f s

	[ -n "$counts" ] || return 0
	wait
	while read -r p f s; do
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done < <(cat "$counts"/*)
	rm -rf "$counts"
	trap - EXIT
	counts='' running=0 pids=()
}

skip() {
	wanted "$1" || return 0
	echo "skipped $1"
	skipped=$((skipped + 1))
}

summary() {
	[ -z "$listing" ] || return 0
	finish_suites
	((passed + failed + skipped)) ||
		die "no title matches '$only'" "choose from ${0##*harness/} --list"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}
