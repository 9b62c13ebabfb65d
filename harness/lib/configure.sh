# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced after steps.sh by scripts that compile for other machines: configure a
# build tree for one of them.

cc=gcc
! command -v ccache >/dev/null || cc='ccache gcc'

# for_arch DIR ARCH [PREFIX]: make's arguments, with the compiler PREFIXgcc
for_arch() {
	make_args=(-C "$tree" O="$1" ARCH="$2" CROSS_COMPILE="${3-}"
		CC="${cc/gcc/${3-}gcc}" -j"$(nproc)")
}

# configure DIR OPTION=VALUE...: with each option, and the default of others
configure() {
	local dir=$1
	shift

	mkdir -p "$dir"
	printf '%s\n' "$@" >"$dir.config"
	make "${make_args[@]}" KCONFIG_ALLCONFIG="$dir.config" alldefconfig &&
		make "${make_args[@]}" prepare
}

# has DIR OPTION...: so was asked for, but Kconfig may have said no
has() {
	local dir=$1 option
	shift

	for option; do
		grep -q "^CONFIG_$option=[ym]" "$dir/.config" ||
			{ echo "CONFIG_$option cannot be had"; return 1; }
	done
}
