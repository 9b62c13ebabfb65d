# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by scripts that build a kernel with some or no patches of the series.

# new_options TREE COMMIT [COMMIT]: the options that Kconfig files have only after
# the first commit: in the second, or else in the files of TREE
new_options() {
	local tree=$1
	shift

	git -C "$tree" diff --no-renames "$@" -- '*Kconfig*' |
		sed -nE 's/^\+\s*(menu)?config\s+(\w+)$/\2/p' | sort -u
}
