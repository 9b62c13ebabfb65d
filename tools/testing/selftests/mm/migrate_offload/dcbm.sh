#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test of the migration copy offload and of dcbm, the driver which copies the
# folios of a batch with DMA channels: its parameters, that they do what they
# say, and that nothing is lost when offloading is switched on and off, or the
# driver unloaded, under migration. The folios are moved and verified by
# ./bench.
#
# Environment:
#   KO_DIR    load dcbm from there, see testlib.sh
#   TOGGLES   how many times to switch offloading under migration (40)

# shellcheck disable=SC2317 # tests are called by their names
# shellcheck source=lib.sh
source "$(dirname "$(readlink -f "$0")")"/lib.sh

TOGGLES=${TOGGLES:-40}
REASONS=(compaction memory_failure memory_hotplug syscall_or_cpuset
	 mempolicy_mbind numa_misplaced contig_range longterm_pin demotion damon)
ALL_REASONS=$(IFS=,; echo "${REASONS[*]}")

# Move folios; dcbm must not copy any of them.
none_offloaded()
{
	set_param folios_migrated 0 || return 1
	set_param offloading Y || return 1
	bench -t 1 -b 4M -s 4K,64K || return 1
	[ "$(param folios_migrated)" -eq 0 ] && return 0
	msg "$(param folios_migrated) folios were offloaded"
	return 1
}

# ---- tests --------------------------------------------------------------

register readable "parameters are readable and valid"
test_readable()
{
	local name value ret=0

	for name in nr_dma_chan patience_ms timeout_ms folios_migrated \
		    folios_failures; do
		value=$(param "$name")
		[[ $value =~ ^[0-9]+$ ]] && continue
		msg "$name: '$value' is not a number"
		ret=1
	done
	[ "$(param nr_dma_chan)" -ge 1 ] || ret=1
	[[ $(param offloading) =~ ^[YN]$ ]] || ret=1
	[[ $(policy reasons) =~ ^[a-z_,]+$ ]] || ret=1
	param channels > /dev/null || ret=1
	for name in offloading $SETTABLE channels folios_migrated folios_failures; do
		msg "$name: $(param "$name" | tr '\n' ';')"
	done
	for name in migrator $SETTABLE_POLICY; do
		msg "$name: $(policy "$name")"
	done

	# What it was loaded with by us are the defaults.
	if [ -n "$loaded_here" ]; then
		[ "${saved[offloading]}" = N ] || ret=1
		[ "$(param folios_migrated)" -eq 0 ] || ret=1
		[ -z "$(param channels)" ] || ret=1
	fi
	return "$ret"
}

# What no parameter takes: nothing, negative, huge, NUL first, binary, blank,
# longer than a page
GARBAGE=('\n' -1 99999999999999999999999 '\00001' '\0377\0376\0001' ' '
	 "$(printf '9%.0s' {1..70000})")

register bad_offloading "offloading: wrong values are refused"
test_bad_offloading()
{
	is_refused "$PARAMS/offloading" "${GARBAGE[@]}" 2 maybe xyz || return 1
	set_param offloading Y || return 1
	is_refused "$PARAMS/offloading" "${GARBAGE[@]}" 2 maybe xyz
}

register bad_nr_dma_chan "nr_dma_chan: wrong values are refused"
test_bad_nr_dma_chan()
{
	is_refused "$PARAMS/nr_dma_chan" "${GARBAGE[@]}" 0 33 4294967296 eight 0x 1x '1 2'
}

register bad_reasons "reasons: wrong values are refused"
test_bad_reasons()
{
	is_refused "$KNOBS/reasons" "${GARBAGE[@]}" compactoin \
		compaction,bogus bogus,compaction 0x400 0xffffffff 0x3ffg \
		'compaction demotion' COMPACTIONS
}

register bad_min_bytes "min_folio_bytes, min_batch_bytes: wrong values are refused"
test_bad_min_bytes()
{
	local name ret=0

	for name in min_folio_bytes min_batch_bytes; do
		is_refused "$KNOBS/$name" "${GARBAGE[@]}" 1073741825 4294967295 \
			18446744073709551616 lots 0x 12q auto1 || ret=1
	done
	return "$ret"
}

register moved "parameters that moved tell where they are"
test_moved()
{
	local name was ret=0
	local -A to=([reason_mask]=reasons [min_bytes]=min_folio_bytes
		     [min_batch_bytes]=min_batch_bytes)

	for name in "${!to[@]}"; do
		was=$(policy "${to[$name]}")
		log_mark
		! write_to "$PARAMS/$name" 0 && log_since |
			grep -q "dcbm: $name is now $KNOBS/${to[$name]}\$" &&
			[ "$(policy "${to[$name]}")" = "$was" ] && continue
		msg "$name: $error"
		ret=1
	done
	return "$ret"
}

# migrator_is TEXT: as it is read
migrator_is()
{
	[ "$(policy migrator)" = "$1" ] && return
	msg "migrator: $(policy migrator)"
	return 1
}

# What the operator chooses is used, and nothing else
register migrator "migrator: dcbm and none can be chosen, nothing else"
test_migrator()
{
	set_param offloading Y || return 1
	migrator_is "[dcbm] none" || return 1
	is_refused "$KNOBS/migrator" "${GARBAGE[@]}" all dcb '[dcbm]' || return 1
	set_policy migrator none || return 1
	migrator_is "dcbm [none]" || return 1
	bench -t 1 -b 4M -s 4K,64K || return 1
	[ "$(param folios_migrated)" -eq 0 ] || { msg "offloaded all the same"; return 1; }
	# It also holds for what registers after that
	set_param offloading N && set_param offloading Y || return 1
	migrator_is "dcbm [none]" || return 1
	set_policy migrator dcbm || return 1
	bench -t 1 -b 4M -s 4K,64K || return 1
	[ "$(param folios_migrated)" -gt 0 ]
}

register bad_remote "remote: wrong values are refused"
test_bad_remote()
{
	is_refused "$PARAMS/remote" "${GARBAGE[@]}" 2 maybe xyz
}

register bad_patience_ms "patience_ms: wrong values are refused"
test_bad_patience_ms()
{
	is_refused "$PARAMS/patience_ms" "${GARBAGE[@]}" 60001 4294967296 soon 10s
}

register bad_timeout_ms "timeout_ms: wrong values are refused"
test_bad_timeout_ms()
{
	is_refused "$PARAMS/timeout_ms" "${GARBAGE[@]}" 0 60001 4294967296 soon 10s
}

register bad_chunk_bytes "chunk_bytes: wrong values are refused"
test_bad_chunk_bytes()
{
	is_refused "$KNOBS/chunk_bytes" "${GARBAGE[@]}" 0 $(($(getconf PAGESIZE) - 1)) \
		1073741825 4294967296 18446744073709555712 many 512p
}

register bad_latency_us "latency_us: wrong values are refused"
test_bad_latency_us()
{
	is_refused "$KNOBS/latency_us" "${GARBAGE[@]}" 0 1000001 4294967297 soon 1ms
}

register bad_share "share: wrong values are refused"
test_bad_share()
{
	is_refused "$KNOBS/share" "${GARBAGE[@]}" 2 maybe xyz
}

register readonly_channels "channels: cannot be written"
test_readonly_channels()
{
	is_refused "$PARAMS/channels" 1 none
}

register reason_names "reasons: names, all, none and numbers"
test_reason_names()
{
	local name got ret=0

	# reads_back WRITTEN EXPECTED
	reads_back()
	{
		set_policy reasons "$1" || return 1
		got=$(policy reasons)
		[ "$got" = all ] && got=$ALL_REASONS
		[ "$got" = "$2" ] && return 0
		msg "reasons: '$1' reads back '$got', not '$2'"
		return 1
	}

	for name in "${REASONS[@]}"; do
		reads_back "$name" "$name" || ret=1
	done
	reads_back all "$ALL_REASONS" || ret=1
	reads_back none "none" || ret=1
	reads_back 0x3ff "$ALL_REASONS" || ret=1
	reads_back 1023 "$ALL_REASONS" || ret=1
	reads_back 0 none || ret=1
	reads_back 0x8 syscall_or_cpuset || ret=1
	reads_back demotion,compaction compaction,demotion || ret=1
	reads_back 'damon\n' damon || ret=1
	# What is read can be written.
	got=$(policy reasons)
	reads_back "$got" "$got" || ret=1
	return "$ret"
}

register chan_busy "nr_dma_chan: cannot change while offloading is on"
test_chan_busy()
{
	set_param nr_dma_chan 1 || return 1
	set_param offloading Y || return 1
	[ "$(claimed | wc -l)" -eq 1 ] || { msg "channels: $(param channels)"; return 1; }
	is_refused "$PARAMS/nr_dma_chan" 2 || return 1
	if ! [[ $error =~ busy ]]; then
		msg "nr_dma_chan with offloading on: $error"
		return 1
	fi
	set_param offloading N || return 1
	[ -z "$(claimed)" ] || { msg "channels are kept: $(param channels)"; return 1; }
	set_param nr_dma_chan 2
}

register benchmark "every folio is offloaded, content verified"
test_benchmark()
{
	bench -a -b 8M -r 1 -s 4K,64K,2M -c 1,2
}

register counters "counters count and can be reset"
test_counters()
{
	local name

	bench -m dcbm -c 1 -b 4M -r 1 -s 4K || return 1
	[ "$(param folios_migrated)" -gt 0 ] || { msg "nothing was counted"; return 1; }
	for name in folios_migrated folios_failures; do
		is_refused "$PARAMS/$name" "${GARBAGE[@]}" 1 12345 reset || return 1
		set_param "$name" 0 || return 1
		[ "$(param "$name")" = 0 ] || { msg "$name is not reset"; return 1; }
	done
}

register reason_off "reasons: nothing is offloaded without the reason"
test_reason_off()
{
	local mask

	for mask in none damon 0x3f7; do
		set_param offloading N && set_policy reasons "$mask" || return 1
		none_offloaded || return 1
	done
}

register reason_on "reasons: everything is offloaded with the reason"
test_reason_on()
{
	set_policy reasons syscall_or_cpuset || return 1
	bench -a -m dcbm -c 1 -b 4M -r 1 -s 4K,64K
}

# Of folios of two sizes in the same batch, the smaller are the CPU's
register min_bytes "smaller folios are left to the CPU"
test_min_bytes()
{
	set_policy min_folio_bytes 1073741824 || return 1
	none_offloaded || return 1
	set_param offloading N && set_policy min_folio_bytes 65536 || return 1
	bench -a -m dcbm -c 1 -b 4M -r 1 -s 64K || return 1
	set_param folios_migrated 0 && set_param offloading Y || return 1
	bench -t 1 -b 4M -s 4K,16K || return 1
	[ "$(param folios_migrated)" -eq 0 ] || return 1
	# It depends on the engines
	set_policy min_folio_bytes auto &&
		[[ $(policy min_folio_bytes) =~ ^auto\ (0|16384)$ ]] || return 1
	# It is not only looked at when offloading is turned on
	set_policy min_folio_bytes 0 && bench -t 1 -b 4M -s 4K || return 1
	[ "$(param folios_migrated)" -gt 0 ]
}

register min_batch_bytes "smaller batches are left to the CPU"
test_min_batch_bytes()
{
	set_policy min_batch_bytes 1073741824 || return 1
	none_offloaded || return 1
	set_policy min_batch_bytes auto && [ "$(policy min_batch_bytes)" = "auto 131072" ]
}

register batch_sizes "chunk_bytes: small, odd and large batches"
test_batch_sizes()
{
	local bytes

	for bytes in 8192 135169 16777216; do
		set_policy chunk_bytes "$bytes" || return 1
		msg "chunk_bytes: $(policy chunk_bytes)"
		# Which small batches are worth offloading is not for us to say.
		set_param offloading Y || return 1
		bench -t 1 -b 8M -s 4K,64K,2M || return 1
	done
	# The last were large.
	bench -m dcbm -c 1 -b 8M -r 1 -s 4K,64K,2M
}

register latency "latency_us: from one folio to the longest, and auto"
test_latency()
{
	local us ret=0

	set_policy chunk_bytes auto || return 1
	set_param offloading Y || return 1
	for us in 1 300 1000000 auto; do
		set_policy latency_us "$us" || ret=1
		bench -t 1 -b 8M -s 4K,64K,2M || ret=1
		msg "latency_us $us: chunk_bytes $(policy chunk_bytes)"
	done
	[ "$(cut -d' ' -f1 "$KNOBS/latency_us")" = auto ] || ret=1
	# What was read can be written
	set_policy latency_us "$(policy latency_us)" || ret=1
	return "$ret"
}

# Throughput and latency by the limit of a batch, which is as before then
register batch_sweep "chunk_bytes: throughput and latency by it"
test_batch_sweep()
{
	local limit

	limit=$(cat "$KNOBS/chunk_bytes")
	bench -N 64K,1M -a -c 1 -b 2M -r 1 -s 4K,2M || return 1
	[ "$(cut -d' ' -f1 "$KNOBS/chunk_bytes")" = "${limit%% *}" ]
}

register toggle "offloading switched on and off under migration"
test_toggle()
{
	local i ret=0

	stress_start -k -b 8M -s 4K,64K,2M || return 1
	for ((i = 0; i < TOGGLES; i++)); do
		stress_running || ret=1
		set_param nr_dma_chan $((i % 3 + 1)) || ret=1
		set_param offloading Y || ret=1
		# Now and then at once, while a batch may be on its way
		if [ $((i % 4)) -eq 0 ]; then
			counter_rises "$(param folios_migrated)" || ret=1
		fi
		set_param offloading N || ret=1
		[ "$ret" -eq 0 ] || break
	done
	stress_stop || ret=1
	msg "offloading was switched $i times, $(param folios_migrated) folios were offloaded"
	return "$ret"
}

register unload "dcbm unloaded under migration"
test_unload()
{
	local i before ret=0

	can_reload || return "$KSFT_SKIP"

	stress_start -k -b 8M -s 4K,64K,2M || return 1
	for ((i = 0; i < 3 && ret == 0; i++)); do
		if ! { set_policy min_folio_bytes 0 && set_policy reasons all &&
		       set_param offloading Y; }; then
			ret=1
			break
		fi
		before=$(param folios_migrated)
		counter_rises "$before" || { ret=1; break; }

		# Waits for the batches that are on their way.
		if ! error=$(timeout 300 rmmod dcbm 2>&1) ||
		   [ -d "$MODULE" ]; then
			msg "dcbm was not unloaded: $error"
			ret=1
			break
		fi
		stress_running || ret=1
		sleep 1
		if ! load_dcbm || [ ! -d "$PARAMS" ]; then
			msg "dcbm cannot be loaded again"
			ret=1
			break
		fi
		[ "$(param offloading)" = N ] || { msg "offloading is on after loading"; ret=1; }
	done
	stress_stop || ret=1
	[ -d "$PARAMS" ] || load_dcbm || ret=1
	return "$ret"
}

register load_parameters "dcbm loaded with parameters, good and bad"
test_load_parameters()
{
	local bad name values=() ret=0

	can_reload || return "$KSFT_SKIP"
	set_param offloading N || return 1
	rmmod dcbm || return 1
	for name in nr_dma_chan patience_ms timeout_ms offloading; do
		values+=("$name=99999999999999999999" "$name=-1"
			 "$name="$'\1' "$name="$'\377\376\1')
		# Of this, the kernel looks at the first character only
		[ "$name" = offloading ] || values+=("$name=1"$'\377')
	done
	for bad in "${values[@]}" reason_mask=all reason_mask min_bytes=0 \
		   min_batch_bytes=0 nr_dma_chan=0 nr_dma_chan=33 timeout_ms=0 \
		   offloading=maybe offloading= offloading remote=perhaps \
		   channels=none; do
		if load_dcbm "$bad"; then
			msg "loaded with $bad"
			rmmod dcbm
			ret=1
		fi
		if [ -d "$MODULE" ]; then
			msg "there is a module after $bad"
			ret=1
		fi
	done
	if load_dcbm nr_dma_chan=2 timeout_ms=1234; then
		[ "$(param nr_dma_chan)" = 2 ] || ret=1
		[ "$(param timeout_ms)" = 1234 ] || ret=1
		[ "$ret" -eq 0 ] || msg "parameters are not those it was loaded with"
	else
		msg "cannot load with parameters"
		ret=1
	fi
	[ -d "$PARAMS" ] || load_dcbm || ret=1
	return "$ret"
}

register hugetlb_temporary "hugetlb pages moved to temporary pages"
test_hugetlb_temporary()
{
	bench -H -r 2
	case $? in
	0) ;;
	"$KSFT_SKIP") skip "see above"; return ;;
	*) return 1 ;;
	esac
	set_param offloading Y || return 1
	bench -H -r 2
}

# ---- what the kernel says of it ------------------------------------------

# read_vmstat NAME: sets the array NAME to all of pgmigrate_*
read_vmstat()
{
	local -n to=$1
	local name value

	while read -r name value; do
		[[ $name != pgmigrate_* ]] || to[${name#pgmigrate_}]=$value
	done < /proc/vmstat
}

# vmstat_of COMMAND...: sets $vm to how pgmigrate_* have changed meanwhile
vmstat_of()
{
	local -A before after
	local name

	read_vmstat before
	"$@" || return 1
	read_vmstat after
	for name in "${!after[@]}"; do
		vm[$name]=$((after[$name] - before[$name]))
	done
	msg "$(for name in "${!vm[@]}"; do
		echo -n "$name ${vm[$name]}, "
	done)"
}

# What the CPU has copied has a cause, or several if it was tried again
vmstat_adds_up()
{
	local sum=0 name

	for name in shared small mapping busy unfit failed; do
		sum=$((sum + vm[offload_$name]))
	done
	[ "$sum" -ge "${vm[offload_fallback]}" ] && return
	msg "the causes add up to $sum pages, and not to ${vm[offload_fallback]}"
	return 1
}

register vmstat "pgmigrate_offload_*: each page counts once, and adds up"
test_vmstat()
{
	local -A vm
	local page folios

	page=$(getconf PAGESIZE)
	if ! grep -q pgmigrate_offload_success /proc/vmstat; then
		skip "no pgmigrate_offload_success in /proc/vmstat"
		return
	fi
	# Nothing but what we move ourselves
	set_policy reasons syscall_or_cpuset || return 1

	# There and back, all of it copied
	vmstat_of bench -a -m dcbm -c 1 -b 4M -r 1 -s "$page" || return 1
	vmstat_adds_up || return 1
	folios=$(param folios_migrated)
	[ "${vm[offload_success]}" -eq "$folios" ] || return 1
	[ "${vm[offload_success]}" -eq $((2 * 4194304 / page)) ] || return 1
	[ "${vm[success]}" -ge "${vm[offload_success]}" ] || return 1

	# The same in large folios is as many pages
	if [ -r /sys/kernel/mm/transparent_hugepage/hpage_pmd_size ]; then
		set_param folios_migrated 0 || return 1
		vmstat_of bench -a -m dcbm -c 1 -b 4M -r 1 -s 2M || return 1
		vmstat_adds_up || return 1
		[ "${vm[offload_success]}" -eq $((2 * 4194304 / page)) ] || return 1
		[ "$(param folios_migrated)" -eq 4 ] || return 1
	fi

	# None of it, and we know why
	set_policy min_folio_bytes 1073741824 && set_param offloading Y || return 1
	vmstat_of bench -t 1 -b 4M -s "$page" || return 1
	vmstat_adds_up || return 1
	[ "${vm[offload_success]}" -eq 0 ] &&
		[ "${vm[offload_fallback]}" -ge $((4194304 / page)) ] &&
		[ "${vm[offload_small]}" -ge "${vm[offload_fallback]}" ] || return 1

	# None of it, since the batches do not pay
	set_policy min_folio_bytes 0 && set_policy min_batch_bytes 1073741824 || return 1
	vmstat_of bench -t 1 -b 4M -s "$page" || return 1
	vmstat_adds_up || return 1
	[ "${vm[offload_success]}" -eq 0 ] &&
		[ "${vm[offload_small]}" -ge $((4194304 / page)) ]
}

# Of each batch: nothing is missing, and the first folio is not the last
check_batches()
{
	grep 'mm_migrate_chunk_end:.*reason=syscall_or_cpuset' "$trace/trace" |
		sed 's/.*mm_migrate_chunk_end: //; s/[a-z_]*=//g' |
		awk -v wanted="$1" '
		# mode reason kind folios pages copied fallback unmap copy move first
		{
			copied += $6
			if ($4 != $6 + $7 || $5 != $4 || !$8 || !$9 || !$10 ||
			    !$11 || $11 > $8 + $9 + $10 || $11 < $8 + $9) {
				print "# " $0
				bad = 1
			}
		}
		END {
			print "# " NR " batches, " copied " folios were copied"
			exit bad || copied != wanted
		}'
}

register trace_batches "tracepoints: each batch with its folios and times"
test_trace_batches()
{
	local ret=0 page

	page=$(getconf PAGESIZE)
	trace_begin migrate/mm_migrate_{chunk_start,chunk_end,folio_not_offloaded} ||
		return
	set_policy reasons syscall_or_cpuset &&
		bench -a -m dcbm -c 1 -b 4M -r 1 -s "$page" || ret=1
	if [ "$ret" -eq 0 ]; then
		check_batches "$(param folios_migrated)" || ret=1
		[ "$(grep -c 'mm_migrate_chunk_start:.* batch ' "$trace/trace")" -eq \
		  "$(grep -c 'mm_migrate_chunk_end:.* batch ' "$trace/trace")" ] || ret=1
		! grep 'mm_migrate_folio_not_offloaded:.*syscall' "$trace/trace" || ret=1
	fi
	trace_end
	return "$ret"
}

register trace_left "tracepoints: why a folio is left to the CPU"
test_trace_left()
{
	local ret=0 page

	page=$(getconf PAGESIZE)
	trace_begin migrate/mm_migrate_folio_not_offloaded || return
	echo 8192 > "$trace/buffer_size_kb"
	set_policy reasons syscall_or_cpuset &&
		set_policy min_folio_bytes 1073741824 && set_param offloading Y &&
		bench -t 1 -b 1M -s "$page" || ret=1
	# There and back at least
	[ "$(grep -c 'syscall_or_cpuset cause=too_small' "$trace/trace")" -ge \
	  $((2 * 1048576 / page)) ] || ret=1
	! grep 'reason=syscall' "$trace/trace" | grep -v cause=too_small || ret=1
	trace_end
	return "$ret"
}

# held_move COMMAND CAUSE EVENT: memory that COMMAND holds does not move
held_move()
{
	local nodes ret=0

	trace_begin migrate/mm_migrate_folio_{{unmap,move}_failed,not_offloaded} || return
	mapfile -t nodes < <(tr ',-' '\n\n' < /sys/devices/system/node/has_memory)
	set_param offloading Y || ret=1
	printf '%s\n' "$1" "move ${nodes[1]}" "un$1" verify |
		"$DIR/hold" "${nodes[0]}" 64 0 0 > "$stress_log"
	sed 's/^/# /' "$stress_log"
	[ "$(grep -v '^#' "$stress_log" | tr '\n' ';')" = \
	  'ok;not everything was moved;ok;ok;' ] || ret=1
	grep -q "mm_migrate_folio_$3: .*error=-11 cause=$2" "$trace/trace" || {
		msg "no event folio_$3 with cause=$2:"
		grep -v '^#' "$trace/trace" | head -n 20 | sed 's/^/# /'
		ret=1
	}
	trace_end
	return "$ret"
}

register trace_pinned "tracepoints: why a pinned folio does not move"
test_trace_pinned()
{
	held_move pin pinned unmap_failed
}

register trace_references "tracepoints: why a folio with a reference does not move"
test_trace_references()
{
	held_move splice references move_failed
}

register dcbm_dmesg "no splat in the kernel log" no_splat

parse_options "$@"
setup
run_tests
