# SPDX-License-Identifier: GPL-2.0
#
# The door of migrate-offload. "make help" lists what there is.

export BUILD	:= $(CURDIR)/build
TREE		:= $(BUILD)/linux
KBUILD		:= $(BUILD)/kernel
SELFTESTS	:= $(BUILD)/selftests

# The base: Debian's linux-source-7.3, or the user's own v7.3 tree
KERNEL		?=

# A group of series/, by number or name. Not from the environment: tcsh has GROUP there
GROUP		:=

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
	@echo 'try'
	@echo '  make run        build all, move and verify memory on a machine with DMA engines,'
	@echo '                  and print what offloading brings in simulated time    20 min'
	@echo '  make shell      a shell in the booted machine                           20 s'
	@echo 'test'
	@echo '  make smoke      the quickest of the tests, after a change              5 min'
	@echo '  make test       what CI runs                                          45 min'
	@echo '  make check      checkpatch, sparse, kernel-doc, documents; each patch is'
	@echo '                  compiled; GROUP=NN: one posting, with what it needs    10 min'
	@echo '  make test-long  KUnit on x86_64, each rule taken out, stress, the tests of mm'
	@echo '                  and other architectures                               hours'
	@echo '  make test-debug what boots, on a kernel that looks for mistakes        hours'
	@echo 'measure'
	@echo '  make bench      vanilla, patched, dcbm with 1 to 16 channels, and the RFC, in'
	@echo '                  simulated time; tables and pictures                   15 min'
	@echo '  make profile    instructions by function;'
	@echo '                  PROFILE_ARGS="-s 64K -m dcbm -c 4"                     1 min'
	@echo '  make bench-hw   the engines of this machine; as root                  10 min'
	@echo 'develop'
	@echo '  make tree       base and series as a git repository in build/linux     1 min'
	@echo '  make refresh    write its commits back to this repository; PATCH=GROUP/N: make'
	@echo '                  its uncommitted edits part of that patch                10 s'
	@echo '  make kernel     the kernel that is booted; also fetch, ptdma, selftests, sim'
	@echo '  make clean      remove what was built; distclean: and what was fetched'
	@echo 'post'
	@echo '  make series     the patches as mails for git am, in build/series, and who'
	@echo "                  should get them; GROUP=NN, POSTER='Name <address>'     1 min"
	@echo
	@echo 'The times are those of 2 cores without a cache. KERNEL=DIR takes your own v7.3'
	@echo 'tree as the base. BENCH_ARGS=, BOOT_ARGS=, PROFILE_ARGS=, RUN_ARGS= go to'
	@echo 'harness/bench/bench, harness/boot, harness/sim/profile and harness/guest/run,'
	@echo 'each of which answers -h. So does each other script; see harness/README.md.'

# ---- what has to be there ----

.PHONY: packages fetch source tree edited-tree kernel vanilla ptdma selftests sim build

packages:
	@harness/setup/install

fetch: packages
	@harness/setup/fetch $(BUILD)/fetch virtme-ng qemu $(if $(KERNEL),,linux)

# What a tree is made of. With KERNEL=, git and python3 are all that it takes
source:
	$(if $(KERNEL),,@harness/setup/install series && \
		harness/setup/fetch $(BUILD)/fetch linux)

COMPOSE_TREE = harness/series/compose tree --tree $(TREE) $(if $(KERNEL),--kernel $(KERNEL),\
	--source $(BUILD)/fetch/linux-source-7.3.tar.xz)

tree: source
	@$(COMPOSE_TREE)

# What is built may have edits that are not in series/ yet
edited-tree: source
	@$(COMPOSE_TREE) --keep-edits

kernel: fetch edited-tree
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
	@harness/series/compose series --tree $(TREE) --out $(BUILD)/series \
		$(if $(POSTER),--from "$$POSTER") $(if $(GROUP),--group '$(GROUP)')
	@harness/series/recipients $(TREE) $(BUILD)/series

# ---- the machine ----

.PHONY: run shell smoke test test-long test-debug bench bench-hw profile plot-packages check

run: kernel ptdma sim
	@harness/kbuild/selftests -o $(TREE) $(KBUILD) $(SELFTESTS)
	@$(if $(RUN_ARGS),harness/boot $(BOOT_ARGS) -- harness/guest/run $(RUN_ARGS),\
		BOOT_ARGS='$(BOOT_ARGS)' harness/bench/run)

shell: build
	@echo 'In the machine, "harness/guest/run -l" loads ptdma and dcbm; Ctrl-D leaves.'
	@harness/boot $(BOOT_ARGS)

smoke: build series
	@harness/suites/all -s

test: build series
	@harness/suites/all

test-long: build vanilla series
	@harness/setup/install arm64
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
bench-hw: packages edited-tree plot-packages
	@mkdir -p $(KBUILD) $(BUILD)/bench
	@harness/kbuild/selftests -o $(TREE) $(KBUILD) $(SELFTESTS)
	@harness/bench/bench-hw -p $(SELFTESTS)/mm/migrate_offload/bench -o $(BUILD)/bench/hw.csv $(BENCH_ARGS)

check: packages $(if $(GROUP),edited-tree,series)
	@$(if $(GROUP),harness/series/compose group-tree --tree $(TREE) --group '$(GROUP)')
	@$(MAKE) -s kernel
	@$(if $(GROUP),harness/check/builds --group '$(GROUP)',harness/check/all)

.PHONY: clean distclean
clean:
	rm -rf $(KBUILD) $(KBUILD)-debug $(KBUILD)*-sim $(SELFTESTS) $(BUILD)/ptdma \
		$(BUILD)/series $(BUILD)/sim $(BUILD)/run $(BUILD)/profile \
		$(BUILD)/vanilla $(BUILD)/kunit $(BUILD)/mutants $(BUILD)/check \
		$(BUILD)/check-arch $(BUILD)/arm64 $(BUILD)/machine $(BUILD)/test $(BUILD)/bench \
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
