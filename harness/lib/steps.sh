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
			# What did not pass, and what it said before; or the end
			grep -E -B 10 '^not ok |^FAILED' "$log" | tail -n 60 |
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

# suite TITLE COMMAND...: counts the command's own results
suite() {
	local title=$1 start=$SECONDS status=0 log p f s
	shift
	log=$logs/${title//[^a-zA-Z0-9]/-}.log

	wanted "$title" || return 0
	"$@" >"$log" 2>&1 </dev/null || status=$?
	cd "$top" || exit
	count_results "$log" $status
	grep -E '^ok .*# *SKIP' "$log" | sed 's/^ok [0-9]* */skipped /'
	report "$log" $((SECONDS - start)) $((f != 0)) "$title: $p passed, $f failed, $s skipped"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	((f == 0))
}

skip() {
	wanted "$1" || return 0
	echo "skipped $1"
	skipped=$((skipped + 1))
}

# lanes FUNCTION...: call them at the same time, and count what all of them do
lanes() {
	local lane counts pids=() p f s

	if [ -n "$listing" ]; then
		for lane; do $lane; done
		return
	fi
	counts=$(mktemp -d)
	for lane; do
		{
			passed=0 failed=0 skipped=0
			$lane
			echo "$passed $failed $skipped" >"$counts/$lane"
		} &
		pids+=($!)
	done
	wait "${pids[@]}"
	for lane; do
		read -r p f s <"$counts/$lane" || p=0 f=1 s=0
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done
	rm -rf "$counts"
}

summary() {
	[ -z "$listing" ] || return 0
	((passed + failed + skipped)) ||
		die "no title matches '$only'" "choose from ${0##*harness/} --list"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}
