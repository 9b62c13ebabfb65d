# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by suites that boot a machine for each of their parts, after
# common.sh: the options that they share, and counting what the parts say. A
# suite sets $parts, and has a function usage().

# begin_parts [-k DIR] [PART ...]: set $kernel, $boot_args with -k, and $chosen,
# all parts without any. Answers -h and --list, which prints the parts.
begin_parts() {
	local name

	kernel=$build/kernel boot_args=() chosen=()
	while (($#)); do
		case $1 in
		-h | --help) usage; exit 0 ;;
		--list) printf '%s\n' "${parts[@]}"; exit 0 ;;
		-k)
			[ -d "${2:-}" ] || die "no kernel in '${2:-}'" "name a build tree with -k"
			kernel=$(realpath "$2")
			boot_args=(-k "$kernel")
			shift
			;;
		-*) die "no option $1" "see ${0##*/} -h" ;;
		*) chosen+=("$1") ;;
		esac
		shift
	done
	for name in "${chosen[@]}"; do
		[[ " ${parts[*]} " == *" $name "* ]] ||
			die "there is no $name" "choose from ${parts[*]}"
	done
	((${#chosen[@]})) || chosen=("${parts[@]}")
}

# run_parts FUNCTION: call it with the name of each chosen part. Shows and counts
# what it says; fails if one of them has.
run_parts() {
	local log name status start p f s passed=0 failed=0 skipped=0

	mkdir -p "$build/machine"
	log=$(mktemp "$build/machine/part.XXXXXX")
	for name in "${chosen[@]}"; do
		echo "# --- $name"
		start=$SECONDS status=0
		"$1" "$name" >"$log" 2>&1 || status=$?
		cat "$log"
		echo "# $name: $((SECONDS - start)) s"
		count_results "$log" $status
		# It died, or there was a splat
		((f == 0)) || grep -q '^not ok ' "$log" ||
			echo "not ok $name: status $status"
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done
	rm -f "$log"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}
