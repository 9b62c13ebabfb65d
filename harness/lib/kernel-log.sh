# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by what reads a kernel's log: what in it is a complaint, and, in the
# guest, what was said since a mark.

# The last two end what a debug kernel looks for, and so would hide all the rest
complaints='BUG:|WARNING:|Oops|KASAN:|general protection|Kernel panic'
complaints+='|DMA-API: .*error|INFO: task|blocked for more than|rcu: INFO:'
complaints+='|pagealloc: |DMA-API: debugging out of memory'
complaints+='|turning off the locking correctness validator'

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
