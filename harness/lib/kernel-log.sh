# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by tests in the booted machine: what the kernel has said since the mark

mark() {
	mark="${0##*/} $$ $RANDOM"
	echo "$mark" >/dev/kmsg
}

log() {
	local all

	all=$(dmesg)
	# All of it, if so much was said that the mark is gone
	[[ $all != *"$mark"* ]] || all=${all##*"$mark"}
	echo "$all"
}
