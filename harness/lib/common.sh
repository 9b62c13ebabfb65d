# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by all scripts, on the host and in the guest: how they end, and how
# results are counted.

# die WHAT [NEXT]: say what is wrong, with the name of the script, how the log
# $LOG ends if there is one, and what to do next
die() {
	echo "${0##*harness/}: $1${2:+; next: $2}" >&2
	if [ -s "${LOG:-}" ]; then
		echo "the last lines of $LOG:" >&2
		tail -n 12 "$LOG" | sed 's/^/    /' >&2
	fi
	exit 1
}

# check NAME COMMAND...: a line of TAP for it. Counts in $nr and $failed.
nr=0 failed=0
check() {
	local name=$1
	shift

	nr=$((nr + 1))
	if "$@"; then
		echo "ok $nr $name"
	else
		echo "not ok $nr $name"
		failed=$((failed + 1))
	fi
}

# count_results LOG STATUS: set $p, $f and $s to how many passed, failed and were
# skipped, by its last line "N passed, N failed, N skipped", or else its lines of
# TAP. What counts nothing has failed, and so has what ends with an error but
# reports none, and that of which nothing has passed.
count_results() {
	local log=$1 status=$2 last

	last=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" |
		tail -n 1)
	if [ -n "$last" ]; then
		read -r p f s <<<"$(tr -dc '0-9 ' <<<"$last")"
		s=${s:-0}
	else
		s=$(grep -cE '^ok .*# *SKIP' "$log")
		p=$(($(grep -cE '^ok ' "$log") - s))
		f=$(grep -cE '^not ok ' "$log")
	fi
	((f > 0 || (status == 0 && p > 0))) || f=1
}
