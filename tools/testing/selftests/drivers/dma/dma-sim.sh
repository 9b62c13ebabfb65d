#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test dma-sim, which simulates DMA engines: its parameters and knobs, copies and
# lists under dmatest, and taking an engine away while it is in use. Needs a
# machine without other engines, since dmatest takes the channels of all.
#
# Environment:
#   KO_DIR    load modules from there, see testlib.sh

# shellcheck disable=SC2317 # tests are called by their names
# shellcheck source=../../kselftest/testlib.sh
source "$(dirname "$(readlink -f "$0")")"/../../kselftest/testlib.sh

KNOBS=/sys/kernel/debug/dma-sim
DRIVER=/sys/bus/platform/drivers/dma-sim
NODES=/sys/devices/system/node

sim_load()
{
	load_module dma-sim "$@"
}

sim_unload()
{
	rmmod dma-sim
}

dmatest_load()
{
	# It takes channels when it comes to "run", as the others are by then
	load_module dmatest "$@" run=1
}

channels()
{
	local dir

	for dir in "$KNOBS"/*/; do
		basename "$dir"
	done
}

logged()
{
	[[ $(log_since_mark) == *"$1"* ]]
}

# wait_for COMMAND...: a minute at most
wait_for()
{
	wait_until 60 "$@" && return
	msg "in vain: $*"
	return 1
}

summaries()
{
	log_since_mark | grep -E 'dmatest: .*: summary'
}

nr_summaries()
{
	[ "$(summaries | wc -l)" -eq "$1" ]
}

# dmatest_passes CHANNELS [PARAMETER...]: each has run, without a failure
dmatest_passes()
{
	local said ret=0

	log_mark
	# Its parameter "wait" does not wait for threads that have not begun
	dmatest_load iterations=60 "${@:2}" || return 1
	wait_for nr_summaries "$1" || ret=1
	rmmod dmatest || ret=1
	said=$(summaries)
	# shellcheck disable=SC2001 # every line of it
	sed 's/^/# /' <<< "$said"
	[ "$(grep -c 'summary 60 tests, 0 failures' <<< "$said")" -eq "$1" ] ||
		ret=1
	[ "$(cat "$KNOBS"/*/descriptors | sort -u)" = 60 ] || ret=1
	return "$ret"
}

# has_node NODE...: or else skip
has_node()
{
	local node

	for node; do
		[ -d "$NODES/node$node" ] || { skip "no node $node"; return; }
	done
}

# The attribute is only there if the device is on a node
numa_node()
{
	cat "$DRIVER/dma-sim.$1/numa_node" 2>/dev/null || echo none
}

# ---- parameters -----------------------------------------------------------

register sim_parameters "wrong parameters are refused"
test_sim_parameters()
{
	local bad name ret=0 values=()

	for name in channels nodes bandwidth public; do
		values+=("$name=" "$name=99999999999999999999"
			 "$name=-99999999999999999999" "$name="$'\1'
			 "$name="$'\377\376\1')
	done
	# Of what is true or false, the kernel looks at the first character only
	for name in channels nodes bandwidth; do
		values+=("$name=1"$'\377' "$name=$(printf '%01030d' 1)x")
	done
	for bad in "${values[@]}" channels=0 channels=65 channels=-1 channels=x \
		   nodes=99 nodes=-2 nodes=100000 nodes=x nodes=0,1,99 \
		   nodes=0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0 \
		   bandwidth=-1 bandwidth=1048577 bandwidth=fast \
		   public=maybe sg=maybe; do
		if sim_load "$bad"; then
			msg "loaded with $bad"
			sim_unload
			ret=1
		fi
		[ ! -e "$KNOBS" ] || { msg "$KNOBS stays after $bad"; ret=1; }
	done
	return "$ret"
}

# reads_back FILE WRITTEN READ
reads_back()
{
	local value

	echo "$2" > "$1" && read -r value < "$1" && [ "$value" = "$3" ]
}

register sim_knobs "knobs take what makes sense, and nothing else"
test_sim_knobs()
{
	local dir knob value long ret=0

	long=$(printf '%040d' 1)
	sim_load channels=1 bandwidth=77 || return 1
	dir=$KNOBS/$(channels)
	[ "$(cat "$dir/bandwidth")" = 77 ] || ret=1
	[ "$(cat "$dir/times")" = -1 ] || ret=1
	for knob in fail_read fail_write short_copy refuse_prep refuse_submit \
		    lose_callback corrupt stall times reorder delay_us bandwidth; do
		reads_back "$dir/$knob" 3 3 || ret=1
		is_refused "$dir/$knob" '\n' ' ' -2 2147483648 \
			99999999999999999999999 x one 3x 0x 1.5 '1 2' 1,2 \
			'\00001' '1\00002' '\0377\0376\0001' "$long" || ret=1
		[ "$knob" = times ] || is_refused "$dir/$knob" -1 || ret=1
		: > "$dir/$knob" && read -r value < "$dir/$knob"
		[ "$value" = 3 ] || ret=1
		reads_back "$dir/$knob" 0x10 16 || ret=1
		reads_back "$dir/$knob" 0 0 || ret=1
	done
	is_refused "$dir/reorder" 4097 || ret=1
	is_refused "$dir/delay_us" 10000001 || ret=1
	is_refused "$dir/bandwidth" 1048577 || ret=1
	for knob in descriptors bytes faults; do
		is_refused "$dir/$knob" 5 || ret=1
	done
	return "$ret"
}

# ---- copies ---------------------------------------------------------------

register sim_default "copies with the parameters it has by default"
test_sim_default()
{
	sim_load || return 1
	[ "$(numa_node 0)" = none ] && dmatest_passes 4
}

register sim_one_channel "copies with one channel"
test_sim_one_channel()
{
	sim_load nodes=0 channels=1 || return 1
	[ "$(numa_node 0)" = 0 ] && dmatest_passes 1
}

register sim_one_channel_public "copies with one public channel"
test_sim_one_channel_public()
{
	has_node 1 || return
	sim_load nodes=1 channels=1 public=Y || return 1
	[ "$(numa_node 0)" = 1 ] && dmatest_passes 1
}

register sim_sixteen_channels "copies with two engines of eight channels"
test_sim_sixteen_channels()
{
	has_node 0 1 || return
	sim_load nodes=0,1 channels=8 || return 1
	[ "$(numa_node 0)" = 0 ] && [ "$(numa_node 1)" = 1 ] &&
		dmatest_passes 16
}

register sim_sixteen_channels_public "copies with sixteen public channels"
test_sim_sixteen_channels_public()
{
	has_node 1 || return
	sim_load nodes=1 channels=16 public=Y && dmatest_passes 16
}

register sim_dmatest_notices "dmatest finds what is wrong"
test_sim_dmatest_notices()
{
	local said

	sim_load channels=1 || return 1
	echo 5 > "$KNOBS/$(channels)/short_copy"
	log_mark
	dmatest_load iterations=20
	wait_for nr_summaries 1
	rmmod dmatest
	said=$(summaries)
	msg "$said"
	[[ $said == *" 20 tests, 4 failures"* ]] &&
		[ "$(cat "$KNOBS/$(channels)/faults")" = 4 ]
}

# ---- lists: one descriptor for each copy, of whatever it has of segments ------

register sim_sg_one_channel "lists with one channel"
test_sim_sg_one_channel()
{
	sim_load channels=1 sg=Y &&
		dmatest_passes 1 dmatest=2 sg_segments=300
}

register sim_sg_sixteen_channels "lists with two engines of eight channels"
test_sim_sg_sixteen_channels()
{
	has_node 0 1 || return
	sim_load nodes=0,1 channels=8 sg=Y &&
		dmatest_passes 16 dmatest=2 sg_segments=20
}

register sim_sg_public "lists with public channels"
test_sim_sg_public()
{
	sim_load channels=4 public=Y sg=Y && dmatest_passes 4 dmatest=2
}

register sim_sg_polled "lists that are polled for"
test_sim_sg_polled()
{
	sim_load channels=1 sg=Y && dmatest_passes 1 dmatest=2 polled=1
}

register sim_sg_default "no lists unless they are asked for"
test_sim_sg_default()
{
	sim_load channels=2 || return 1
	log_mark
	dmatest_load iterations=5 dmatest=2
	wait_for logged 'Added 0 threads' || return 1
	rmmod dmatest
	[ "$(cat "$KNOBS"/*/descriptors | sort -u)" = 0 ]
}

# sg_fails KNOB RESULT: what every fifth copy ends with, and its residue is true
sg_fails()
{
	local said ret=0

	echo 5 > "$KNOBS/$(channels)/$1"
	log_mark
	dmatest_load iterations=20 dmatest=2 sg_segments=30
	wait_for nr_summaries 1
	rmmod dmatest
	said=$(summaries)
	msg "$1: $said"
	[[ $said == *" 20 tests, 4 failures"* ]] || ret=1
	[ "$(log_since_mark | grep -c "result #.*: '$2'")" = 4 ] || ret=1
	echo 0 > "$KNOBS/$(channels)/$1"
	return "$ret"
}

register sim_sg_faults "lists of which every fifth fails"
test_sim_sg_faults()
{
	local ret=0

	sim_load channels=1 sg=Y || return 1
	sg_fails fail_read 'transfer error' || ret=1
	sg_fails fail_write 'transfer error' || ret=1
	sg_fails short_copy 'transfer error' || ret=1
	sg_fails refuse_prep 'prep error' || ret=1
	sg_fails refuse_submit 'submit error' || ret=1
	[ "$(cat "$KNOBS/$(channels)/faults")" = 20 ] || ret=1
	return "$ret"
}

# ---- engines that go --------------------------------------------------------

register sim_in_use "a client that has a channel keeps the module"
test_sim_in_use()
{
	local error

	sim_load channels=2 && dmatest_load || return 1
	if error=$(sim_unload 2>&1); then
		msg "unloaded under dmatest"
		return 1
	fi
	[[ $error == *"in use"* ]] || return 1
	rmmod dmatest && sim_unload
}

copies_go_on()
{
	[ "$(cat "$KNOBS"/*/descriptors | awk '{ n += $1 } END { print n + 0 }')" -gt "$1" ]
}

register sim_unbind "engines unbound under dmatest, and bound again"
test_sim_unbind()
{
	local ret=0

	has_node 0 1 || return
	sim_load nodes=0,1 channels=8 || return 1
	echo 200 | tee "$KNOBS"/*/delay_us > /dev/null
	# One that is stalled, too
	echo 3 > "$KNOBS/$(channels | head -n 1)/stall"
	log_mark
	dmatest_load timeout=60000 || return 1
	wait_for copies_go_on 100 || ret=1
	echo dma-sim.0 > "$DRIVER/unbind"
	echo dma-sim.1 > "$DRIVER/unbind"
	[ -z "$(ls "$KNOBS")" ] || { msg "knobs are left"; ret=1; }
	# Clients are told of what was under way, and get nothing any more
	wait_for logged 'completion error status' || ret=1
	wait_for logged 'prep error' || ret=1
	if sim_unload 2>/dev/null; then
		msg "unloaded under dmatest"
		ret=1
	fi
	timeout 30 rmmod dmatest || ret=1
	if log_since_mark | grep -E 'timed out|mismatch|not copied|was copied|overwritten'; then
		ret=1
	fi

	# And back
	echo dma-sim.1 > "$DRIVER/bind" || ret=1
	dmatest_passes 8 || ret=1
	return "$ret"
}

register sim_dmesg "no splat in the kernel log" no_splat

# Whatever a test has left
after_test()
{
	[ ! -d /sys/module/dmatest ] || rmmod dmatest
	[ ! -d /sys/module/dma_sim ] || sim_unload
}

parse_options "$@"
ktap_print_header
[ "$(id -u)" -eq 0 ] || skip_all "must be run as root"
[ ! -d /sys/module/dma_sim ] || skip_all "dma-sim is loaded, or built in"
[ ! -d /sys/module/dmatest ] || skip_all "dmatest is loaded, or built in"
can_load dma-sim && can_load dmatest ||
	skip_all "no dma-sim or no dmatest (KO_DIR=directory?)"
[ -z "$(ls /sys/class/dma 2>/dev/null)" ] || skip_all "there are other engines"
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug

trap after_test EXIT
trap 'exit 1' INT TERM HUP
log_mark
run_tests
