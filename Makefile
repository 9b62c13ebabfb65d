# SPDX-License-Identifier: GPL-2.0
#
# The door of migrate-offload. "make help" lists what there is.

export BUILD	:= $(CURDIR)/build
TREE		:= $(BUILD)/linux
KBUILD		:= $(BUILD)/kernel
SELFTESTS	:= $(BUILD)/selftests

# The base: Debian's linux-source-7.3, or the user's own v7.3 tree
KERNEL		?=

# The same object for the same source, wherever and whenever it is built
export CCACHE_BASEDIR	:= $(BUILD)
export CCACHE_NOHASHDIR	:= 1
export CCACHE_IGNOREOPTIONS := -fmacro-prefix-map=*
export KBUILD_BUILD_TIMESTAMP := Sun Nov 22 00:00:00 UTC 2026
export KBUILD_BUILD_USER := migrate
export KBUILD_BUILD_HOST := offload

SAY		= @printf '==> %s\n'

.PHONY: help
help:
	@echo 'migrate-offload: batch copying and DMA offload for page migration'
	@echo
	@echo '  make run       build all, boot a machine with emulated DMA engines, move and'
	@echo '                 verify memory; boot one in simulated time, and print what'
	@echo '                 offloading brings'
	@echo '  make test      all tests'
	@echo '  make test-long  those that take long: KUnit on x86_64, each rule removed and'
	@echo '                 its test seen failing, ten minutes of stress, other tests of'
	@echo "                 mm compared with vanilla's results, and each patch built in"
	@echo '                 each configuration'
	@echo '  make test-debug  those that boot, on a kernel that looks for mistakes;'
	@echo '                 takes hours'
	@echo '  make bench     vanilla, patched, dcbm with 1 to 16 channels, and the RFC: what'
	@echo '                 they reach in simulated time, in tables and pictures'
	@echo '  make profile   instructions by function; PROFILE_ARGS="-s 64K -m dcbm -c 4"'
	@echo '  make bench-hw  throughput and latency with the engines of this machine, on'
	@echo '                 the kernel that it runs; as root'
	@echo '  make check     checkpatch, sparse, W=1, kernel-doc, a build of each patch'
	@echo '  make shell     a shell in the booted machine'
	@echo
	@echo '  make tree      base and series as a git repository in build/linux'
	@echo '  make refresh   write the commits of build/linux back to this repository;'
	@echo '                 with PATCH=N, its uncommitted edits become part of patch N'
	@echo '  make series    the patches as mails for git am, in build/series, and who'
	@echo '                 should get them, in build/series/recipients; to post them, with'
	@echo "                 POSTER='Name <address>', who is their author, and signs off"
	@echo
	@echo '  make kernel    the kernel that is booted; also fetch, ptdma, selftests'
	@echo '  make clean     remove what was built; distclean: and what was fetched'
	@echo
	@echo 'KERNEL=DIR takes your own v7.3 tree as the base. BENCH_ARGS= goes to'
	@echo 'harness/bench/bench or harness/bench/bench-hw, BOOT_ARGS= to harness/boot; each says'
	@echo 'with -h what it takes. RUN_ARGS= has make run run only the benchmark on the'
	@echo 'machine with DMA engines, see "make run RUN_ARGS=-h".'

# ---- what has to be there ----

.PHONY: packages fetch tree edited-tree kernel vanilla ptdma selftests sim build

packages:
	@harness/setup/install

fetch: packages
	@harness/setup/fetch $(BUILD)/fetch virtme-ng qemu $(if $(KERNEL),,linux)

COMPOSE_TREE = harness/series/compose tree --tree $(TREE) $(if $(KERNEL),--kernel $(KERNEL),\
	--source $(BUILD)/fetch/linux-source-7.3.tar.xz)

tree: fetch
	@$(COMPOSE_TREE)

# What is built may have edits that are not in series/ yet
edited-tree: fetch
	@$(COMPOSE_TREE) --keep-edits

kernel: edited-tree
	@harness/kbuild/kernel $(TREE) $(KBUILD) harness/kbuild/kernel.config

# The same without the series
vanilla: kernel
	@harness/kbuild/vanilla $(TREE) $(KBUILD) harness/kbuild/kernel.config $(BUILD)/vanilla
	@harness/sim/build $(BUILD)/vanilla/linux $(BUILD)/vanilla/kernel

ptdma: packages
	@$(MAKE) -s -C harness/devices/ptdma O=$(BUILD)/ptdma

selftests: kernel
	@harness/kbuild/selftests $(TREE) $(KBUILD) $(SELFTESTS)

# What the machine in simulated time needs
sim: kernel
	@harness/sim/build $(TREE) $(KBUILD)

build: kernel ptdma selftests sim

# ---- the series ----

.PHONY: refresh series

refresh:
	@harness/series/compose refresh --tree $(TREE) $(if $(PATCH),--patch $(PATCH))

series: edited-tree
	@harness/series/compose series --tree $(TREE) --out $(BUILD)/series $(if $(POSTER),--from "$$POSTER")
	@cd $(TREE) && scripts/get_maintainer.pl --nogit --nogit-fallback --nofixes \
		--norolestats $(BUILD)/series/*.patch \
		>$(BUILD)/series/recipients

# ---- the machine ----

.PHONY: run shell test test-long test-debug bench bench-hw profile plot-packages check

run: build
	@$(if $(RUN_ARGS),harness/boot $(BOOT_ARGS) -- harness/guest/run $(RUN_ARGS),\
		BOOT_ARGS='$(BOOT_ARGS)' harness/bench/run)

shell: build
	@echo 'In the machine, "harness/guest/run -l" loads ptdma and dcbm; Ctrl-D leaves.'
	@harness/boot $(BOOT_ARGS)

test: build series
	@harness/suites/all

test-long: build vanilla series
	@harness/suites/all -l

# The same on a kernel with KASAN, lockdep, DEBUG_VM and DMA_API_DEBUG: what
# needs a booted kernel, some ten times slower
test-debug: build
	@cat harness/kbuild/kernel.config harness/kbuild/debug.config >$(BUILD)/debug.config
	@harness/kbuild/kernel $(TREE) $(KBUILD)-debug $(BUILD)/debug.config
	@harness/suites/all -k $(KBUILD)-debug

plot-packages:
	@harness/setup/install plot

bench: build vanilla plot-packages
	@harness/bench/bench $(BENCH_ARGS)

profile: build
	@harness/sim/profile $(PROFILE_ARGS)

# Not a kernel, only the selftest
bench-hw: edited-tree plot-packages
	@mkdir -p $(KBUILD) $(BUILD)/bench
	@harness/kbuild/selftests $(TREE) $(KBUILD) $(SELFTESTS)
	@harness/bench/bench-hw -p $(SELFTESTS)/mm/migrate_offload -o $(BUILD)/bench/hw.csv $(BENCH_ARGS)

check: series
	@harness/check/all

.PHONY: clean distclean
clean:
	rm -rf $(KBUILD) $(KBUILD)-debug $(KBUILD)*-sim $(SELFTESTS) $(BUILD)/ptdma \
		$(BUILD)/series $(BUILD)/sim $(BUILD)/run $(BUILD)/profile \
		$(BUILD)/vanilla $(BUILD)/kunit $(BUILD)/mutants $(BUILD)/check \
		$(BUILD)/check-arch $(BUILD)/machine $(BUILD)/test $(BUILD)/bench \
		$(BUILD)/odd-dma $(BUILD)/example

# build/linux may hold edits that nobody has written back
distclean:
	@if [ -d $(TREE)/.git ] && { git -C $(TREE) status --porcelain | grep -q . || \
		! grep -q "$$(git -C $(TREE) rev-parse HEAD)" $(TREE)/.git/offload-composed; }; \
	then \
		echo 'build/linux has edits that are not in series/; first: make refresh' >&2; \
		exit 1; \
	fi
	rm -rf $(BUILD)
