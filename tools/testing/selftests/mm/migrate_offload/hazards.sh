#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Load what ./hazards needs, run it with the arguments, and unload that again:
# dcbm with an engine of dma-sim, and a zram device.
#
# Environment:
#   KO_DIR    load modules from there, see testlib.sh

# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

HAZARDS=${DIR}/hazards
modules=()			# which were loaded here, the last first

# need NAME [PARAMETER=VALUE...]: load it unless it is there
need()
{
	[ ! -d "/sys/module/${1//-/_}" ] || return 0
	load_module "$@" || return 1
	modules=("$1" "${modules[@]}")
}

unload_modules()
{
	local name

	trap - EXIT
	for name in "${modules[@]}"; do
		rmmod "$name" 2>/dev/null
	done
}

# Says so, rather than print a plan: that is for the program to do
give_up()
{
	ktap_print_header
	skip_all "$*"
}

while getopts :hlt: opt; do
	case $opt in
	h)
		print_usage
		exit 0
		;;
	l) exec "$HAZARDS" "$@" ;;
	*) ;;			# is for the program
	esac
done
# A wrong name or option is told, without loading anything
[ ! -x "$HAZARDS" ] || "$HAZARDS" -l "$@" > /dev/null || exit

[ "$(id -u)" -eq 0 ] || give_up "must be run as root"
[ -x "$HAZARDS" ] || give_up "$HAZARDS is missing, run make"
trap unload_modules EXIT
trap 'exit 1' INT TERM HUP

mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug

need dma-sim channels=1 || give_up "no dma-sim (KO_DIR=directory?)"
need dcbm || give_up "no dcbm (KO_DIR=directory?)"

# Without these, a test is skipped. modprobe knows what zram depends on.
if [ -n "$KO_DIR" ]; then
	for name in lzo_compress lzo_decompress zsmalloc; do
		need "$name"
	done
fi
for name in loop fuse ext4 zram hwpoison-inject; do
	need "$name"
done

"$HAZARDS" "$@"
