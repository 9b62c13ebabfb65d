#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of tools/mm/migrate_offload_status on recorded trees, the files status/*.tree.

A tree is what --report prints: a path, and the lines of the file behind tabs. No machine needs
to be booted. The last line is 'N passed, N failed, N skipped'.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
TREES = os.path.join(HERE, "status")
TOP = os.path.join(HERE, "../../../../..")
PROGRAM = os.environ.get("MIGRATE_OFFLOAD_STATUS",
                         os.path.join(TOP, "tools/mm/migrate_offload_status"))
KNOBS = "/sys/kernel/mm/migrate_offload"
DCBM = "/sys/module/dcbm/parameters"
KSFT_SKIP = 4

# Events of Python that write, remove or make files, except open().
WRITES = ("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
          "os.symlink", "os.truncate", "os.utime", "os.system", "subprocess.Popen", "os.exec",
          "os.posix_spawn", "socket.connect", "os.setxattr")


def load():
    """Return the program as a module"""
    loader = importlib.machinery.SourceFileLoader("migrate_offload_status", PROGRAM)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def path_of(tree):
    """Return the path of a recorded tree"""
    return os.path.join(TREES, f"{tree}.tree")


def text_of(tree):
    """Return the text of a recorded tree"""
    with open(path_of(tree), encoding="utf-8") as file:
        return file.read()


def run(*args, **kwargs):
    """Run the program, and return its status, output and errors"""
    return subprocess.run([sys.executable, PROGRAM, *args], capture_output=True, text=True,
                          timeout=60, check=False, **kwargs)


class StatusTest(unittest.TestCase):
    """What all tests share"""

    @classmethod
    def setUpClass(cls):
        sys.dont_write_bytecode = True
        cls.program = load()

    def examine(self, tree, **changes):
        """Return what --json prints for a tree, with some files changed or, if None, removed"""
        return self.program.examine(self.recording(tree, changes))

    def recording(self, tree, changes):
        """Return the files of a tree, with some changed or, if None, removed"""
        files = self.program.Recording(text_of(tree))
        for path, text in changes.items():
            if text is None:
                files.files.pop(path)
            else:
                files.files[path] = text if isinstance(text, bytes) else text.encode()
        return files

    def directory(self, tree):
        """Make a directory of a tree, with symbolic links as in sysfs, and return its path"""
        top = tempfile.mkdtemp(prefix="migrate-offload-status-")
        self.addCleanup(shutil.rmtree, top)
        files = self.program.Recording(text_of(tree)).files
        devices = {}
        for path, data in sorted(files.items()):
            for device, name in devices.items():
                if path.startswith(device + "/"):
                    path = f"/sys/devices/{name}" + path[len(device):]
            if re.fullmatch("/sys/class/dma/[^/]*/device", path):
                devices[path] = data.decode().strip()
                os.makedirs(f"{top}/sys/devices/{devices[path]}", exist_ok=True)
                os.makedirs(os.path.dirname(top + path), exist_ok=True)
                os.symlink(f"../../../devices/{devices[path]}", top + path)
            elif path.endswith("/"):
                os.makedirs(top + path, exist_ok=True)
            elif path.endswith("/iommu_group"):
                os.symlink(f"../../kernel/iommu_groups/{data.decode().strip()}", top + path)
            else:
                os.makedirs(os.path.dirname(top + path), exist_ok=True)
                with open(top + path, "wb") as file:
                    file.write(data)
        return top


class Verdict(StatusTest):
    """The verdict on each tree, and the exit status"""

    def check(self, tree, state, status, *words):
        """Check the name of the state, the exit status, and words of the verdict"""
        for how in ((), ("--json",)):
            result = run("--root", path_of(tree), *how)
            self.assertEqual(result.stderr, "")
            self.assertEqual(result.returncode, status, result.stdout)
            if how:
                told = json.loads(result.stdout)
                self.assertEqual(told["state"], state)
                verdict = told["verdict"]
            else:
                verdict = result.stdout.rstrip("\n").split("\n")[-1]
                self.assertTrue(verdict.startswith("Verdict "), verdict)
            for word in words:
                self.assertIn(word, verdict)
            self.assertNotIn("\n", verdict)

    def test_vanilla(self):
        """A vanilla kernel with a good engine: the verdict says what to build"""
        self.check("vanilla", "vanilla", 1, "7.3.4 has no migrate_offload; an engine is suitable",
                   "CONFIG_MIGRATE_OFFLOAD_DCBM=m")

    def test_vanilla_no_engine(self):
        """A vanilla kernel without an engine: the verdict says that, too"""
        self.check("vanilla_no_engine", "vanilla", 1, "no engine is suitable", "CONFIG_DMA_SIM=m")

    def test_vanilla_one_node(self):
        """A vanilla kernel on one node: the verdict does not have anybody build a kernel"""
        self.check("vanilla_one_node", "vanilla", 1, "all memory is on one node", "nothing to gain")
        self.assertNotIn("build", run("--root", path_of("vanilla_one_node")).stdout)

    def test_not_configured(self):
        """A kernel with the patches, but built without them"""
        self.check("not_configured", "vanilla", 1, "built without CONFIG_MIGRATE_OFFLOAD")

    def test_no_engine(self):
        """No engine at all"""
        self.check("no_engine", "no-engine", 1, "there is no DMA engine", "modprobe dma-sim")

    def test_no_driver(self):
        """A PTDMA whose driver is not loaded"""
        self.check("no_driver", "no-driver", 1, "AMD PTDMA at 0000:04:00.2 has no driver",
                   "modprobe ptdma")

    def test_untrusted(self):
        """Only engines that dcbm does not trust"""
        self.check("untrusted", "unsuitable", 1, "ae4dma, ioatdma: its driver does not report",
                   "dw_dmac_pci: it serves peripherals")

    def test_bounce_buffers(self):
        """Only channels that need bounce buffers"""
        self.check("bounce_buffers", "unsuitable", 1, "ptdma: it needs bounce buffers", "IOMMU")

    def test_no_dcbm(self):
        """A good engine, but dcbm is not loaded"""
        self.check("no_dcbm", "no-dcbm", 1, "dcbm is not loaded", "modprobe dcbm")

    def test_off(self):
        """dcbm is loaded, but off"""
        self.check("off", "off", 1, "dcbm is loaded, but off", f"echo 1 > {DCBM}/offloading")

    def test_ready(self):
        """dcbm is on, and nothing has been migrated yet"""
        self.check("ready", "ready", 0, "Ready: dcbm with 2 channels is in use")

    def test_few_pages(self):
        """A few pages that were too small do not mean that nothing pays"""
        self.check("few_pages", "ready", 0, "Ready:", "only 155 pages were tried")

    def test_working(self):
        """dcbm copies"""
        self.check("working", "working", 0, "dcbm with 2 channels copied 214016 pages, 99 %",
                   "Most others: mapping")

    def test_recorded(self):
        """A real recording, of a machine with an emulated PTDMA"""
        self.check("recorded", "working", 0, "dcbm with 1 channel copied 9664 pages, 57 %",
                   "Most others: shared")

    def test_stuck(self):
        """All channels are stuck, though the counters look well"""
        self.check("stuck", "out-of-service", 1, "no channel is in service: 2 stuck")

    def test_unfit(self):
        """All channels are unfit or gone"""
        self.check("unfit", "out-of-service", 1, "1 gone, 1 unfit (it failed to copy in a test)")

    def test_chosen_none(self):
        """The operator chose none"""
        self.check("chosen_none", "chosen-none", 1, "set to none", f"echo dcbm > {KNOBS}/migrator")

    def test_one_node(self):
        """One node and no tiers: nothing to migrate between"""
        self.check("one_node", "one-node", 1, "all memory is on one node")

    def test_no_reasons(self):
        """The operator wants nothing offloaded"""
        self.check("no_reasons", "no-reasons", 1, "reasons is none", "echo auto")

    def test_too_small(self):
        """Nothing pays, since all is too small"""
        self.check("too_small", "too-small", 1, "Not paying", "folios or batches are too small")

    def test_too_slow(self):
        """Nothing pays, since the CPU is faster"""
        self.check("too_slow", "too-slow", 1, "Not paying", "the engines are slower")

    def test_left_to_cpu(self):
        """Nothing pays, since all is files of a filesystem that copies by itself"""
        self.check("left_to_cpu", "left-to-cpu", 1, "Not paying", "for the cause mapping")

    def test_failing(self):
        """The engines fail more than they copy"""
        self.check("failing", "failing", 1, "failed to copy 460800 pages and copied 4096",
                   "1 more out of service")

    def test_other_migrator(self):
        """Another migrator copies; the channels of dcbm do not matter"""
        self.check("other_migrator", "working", 0, "Offloading: mtcopy copied 9000 pages")

    def test_all_trees(self):
        """Each tree has a test of its name"""
        trees = {name[:-5] for name in os.listdir(TREES) if name.endswith(".tree")}
        self.assertEqual(trees - {name[5:] for name in dir(self)}, set())


class Rules(StatusTest):
    """What the verdict follows from, one change to a tree at a time"""

    def state(self, tree, **changes):
        """Return the name of the state"""
        return self.examine(tree, **changes)["state"]

    def counters(self, tree, **changes):
        """Return the state with other counters of pgmigrate_offload"""
        text = "\n".join(f"pgmigrate_offload_{name} {nr}" for name, nr in changes.items())
        return self.state(tree, **{"/proc/vmstat": text})

    def test_nodes(self):
        """Two tiers or two nodes are enough, and unknown nodes are no reason to give up"""
        has_memory = "/sys/devices/system/node/has_memory"
        self.assertEqual(self.state("one_node", **{has_memory: "0,8"}), "ready")
        self.assertEqual(self.state("one_node", **{has_memory: None}), "ready")
        self.assertEqual(self.state("off", **{has_memory: "0"}), "one-node")

    def test_one_node_works(self):
        """What has copied on one node works"""
        self.assertEqual(self.counters("one_node", success=5000, fallback=0), "working")

    def test_no_numa(self):
        """A kernel without CONFIG_NUMA has one node"""
        files = {"/sys/devices/system/node/has_memory": None,
                 "/proc/config": "# CONFIG_NUMA is not set"}
        self.assertEqual(self.state("ready", **files), "one-node")

    def test_failing_limit(self):
        """More failures than copies: failing"""
        self.assertEqual(self.counters("ready", success=100, fallback=100, failed=100), "working")
        self.assertEqual(self.counters("ready", success=100, fallback=101, failed=101), "failing")

    def test_paying_limit(self):
        """Nothing pays if the CPU copies more than ten times as much, of 512 pages or more"""
        self.assertEqual(self.counters("ready", success=100, fallback=1000, small=1000), "working")
        self.assertEqual(self.counters("ready", success=100, fallback=1001, small=1001),
                         "too-small")
        self.assertEqual(self.counters("ready", success=0, fallback=511, small=511), "ready")
        self.assertEqual(self.counters("ready", success=0, fallback=512, small=512), "too-small")

    def test_one_channel_serves(self):
        """One channel that serves is enough, idle or busy"""
        for state in ("idle", "busy"):
            channels = f"dma0chan0 0 {state}\ndma1chan0 1 shared stuck"
            told = self.examine("ready", **{f"{DCBM}/channels": channels})
            self.assertEqual(told["state"], "ready")
            self.assertIn("1 more out of service", told["verdict"])

    def test_no_channel_serves(self):
        """No other state of a channel counts as service"""
        for state in ("stuck", "recovered", "failed", "releasing", "gone", "unfit: for it"):
            channels = {f"{DCBM}/channels": f"dma0chan0 0 {state}"}
            self.assertEqual(self.state("ready", **channels), "out-of-service", state)

    def test_no_channels(self):
        """dcbm without channels does not copy"""
        self.assertEqual(self.state("ready", **{f"{DCBM}/channels": ""}), "out-of-service")

    def test_reasons(self):
        """Reasons by the operator or by default are fine"""
        self.assertEqual(self.state("ready", **{f"{KNOBS}/reasons": "demotion,damon"}), "ready")
        self.assertEqual(self.state("ready", **{f"{KNOBS}/reasons": "auto none"}), "no-reasons")

    def test_none_registered(self):
        """Without a registered migrator, nobody has chosen none"""
        self.assertEqual(self.state("off", **{f"{KNOBS}/migrator": "[none]"}), "off")
        self.assertEqual(self.state("chosen_none", **{f"{KNOBS}/migrator": "[none]"}),
                         "not-registered")

    def test_no_migrator_file(self):
        """Without the file migrator, offloading says whether dcbm is in use"""
        self.assertEqual(self.state("working", **{f"{KNOBS}/migrator": None}), "working")
        self.assertEqual(self.state("off", **{f"{KNOBS}/migrator": None}), "off")

    def test_offloading_unknown(self):
        """What cannot be read is not taken for off"""
        self.assertEqual(self.state("off", **{f"{DCBM}/offloading": None}), "unknown")
        self.assertEqual(self.state("off", **{f"{DCBM}/offloading": "perhaps"}), "unknown")

    def test_dcbm_not_configured(self):
        """modprobe is no help for a kernel that was built without dcbm"""
        told = self.examine("no_dcbm", **{"/proc/config":
                                          "# CONFIG_MIGRATE_OFFLOAD_DCBM is not set"})
        self.assertEqual(told["state"], "no-dcbm")
        self.assertIn("rebuild", told["next"])

    def test_no_counters(self):
        """Without counters, the verdict does not say what was copied"""
        told = self.examine("working", **{"/proc/vmstat": None})
        self.assertEqual(told["state"], "ready")
        self.assertIn("does not tell", told["verdict"])

    def test_nothing_readable(self):
        """An empty tree is no vanilla kernel"""
        self.assertEqual(self.program.examine(self.program.Recording(""))["state"], "unreadable")


class Engines(StatusTest):
    """Which engines dcbm can use, and why not"""

    def judge(self, driver, **changes):
        """Return whether an engine with this driver is suitable, and why"""
        uevent = {"/sys/class/dma/dma0chan0/device/uevent": f"DRIVER={driver}\n"}
        engine = self.examine("off", **uevent, **changes)["engines"][0]
        return engine["suitable"], engine["for_dcbm"]

    def test_trusted(self):
        """Drivers that set reports_errors are trusted"""
        for driver in ("ptdma", "dma-sim"):
            self.assertEqual(self.judge(driver), (True, "yes"))

    def test_not_trusted(self):
        """Other drivers are not, whatever they can do"""
        for driver in ("ae4dma", "ioatdma", "idxd", "plx_dma", "ccp", "hisi_dma", "ptdma2"):
            self.assertEqual(self.judge(driver),
                             (False, "no: its driver does not report failed copies"))

    def test_trusted_in_source(self):
        """The drivers that set reports_errors in the source are those that are trusted"""
        found, dirs = set(), {"dma-sim": "dma-sim", "ptdma": "ptdma"}
        if not os.path.isdir(os.path.join(TOP, "drivers/dma")):
            self.skipTest("no source of drivers here")
        for where, _, names in os.walk(os.path.join(TOP, "drivers/dma")):
            for name in names:
                if not name.endswith(".c"):
                    continue
                with open(os.path.join(where, name), encoding="utf-8", errors="replace") as file:
                    if re.search(r"->reports_errors = ", file.read()):
                        found.add(dirs.get(os.path.basename(where), name))
        if os.path.isdir(os.path.join(TOP, "drivers/dma/amd")):
            self.assertEqual(found, set(self.program.TRUSTED))
        self.assertLessEqual(found, set(self.program.TRUSTED))

    def test_peripherals(self):
        """Engines for peripherals are named as such"""
        self.assertEqual(self.judge("idma64"), (False, "no: it serves peripherals"))

    def test_no_driver_known(self):
        """An engine whose driver cannot be read is not suitable"""
        self.assertEqual(self.judge(""), (False, "no: its driver is not known"))

    def test_dma_sim_without_errors(self):
        """dma-sim is not trusted if it was told not to report errors"""
        path = "/sys/module/dma_sim/parameters/reports_errors"
        self.assertFalse(self.judge("dma-sim", **{path: "N"})[0])
        self.assertTrue(self.judge("dma-sim", **{path: "Y"})[0])

    def test_engines_parameter(self):
        """The parameter engines leaves out all other drivers"""
        path = f"{DCBM}/engines"
        self.assertEqual(self.judge("ptdma", **{path: "dma-sim,idxd"}),
                         (False, 'no: its driver is not among "engines"'))
        self.assertTrue(self.judge("ptdma", **{path: "dma-sim,ptdma"})[0])

    def test_swiotlb_force(self):
        """swiotlb=force needs an IOMMU, unless the engine has one that translates"""
        force = {"/proc/cmdline": "quiet swiotlb=65536,force"}
        group = {"/sys/class/dma/dma0chan0/device/iommu_group": "7"}
        types = "/sys/kernel/iommu_groups/7/type"
        self.assertEqual(self.judge("ptdma", **force), (False, "no: it needs bounce buffers"))
        self.assertFalse(self.judge("ptdma", **force, **group, **{types: "identity"})[0])
        self.assertTrue(self.judge("ptdma", **force, **group, **{types: "DMA-FQ"})[0])
        self.assertTrue(self.judge("ptdma", **{"/proc/cmdline": "swiotlb=65536"})[0])

    def test_other_clients(self):
        """A channel that somebody else uses is told of"""
        in_use = {"/sys/class/dma/dma0chan0/in_use": "1"}
        self.assertEqual(self.judge("ptdma", **in_use),
                         (True, "yes, but other clients use 1 of 1"))

    def test_dcbm_knows_better(self):
        """What dcbm says of a channel counts more than the name of its driver"""
        path = f"{DCBM}/channels"
        self.assertEqual(self.judge("ioatdma", **{path: "dma0chan0 0 idle"}),
                         (True, "yes, 1 of 1 in service"))
        self.assertEqual(self.judge("ptdma", **{path: "dma0chan0 0 unfit: it answered twice"}),
                         (False, "no: it answered twice"))
        self.assertEqual(self.judge("ptdma", **{path: "dma0chan0 0 gone"}), (True, "yes"))

    def test_channels_of_an_engine(self):
        """Channels of one engine are one line, and dma10 comes after dma2"""
        more = {f"/sys/class/dma/{name}/device/uevent": "DRIVER=ptdma\n"
                for name in ("dma10chan0", "dma2chan0", "dma2chan10", "dma2chan9")}
        engines = self.examine("off", **more)["engines"]
        self.assertEqual([engine["name"] for engine in engines], ["dma0", "dma2", "dma10"])
        self.assertEqual([channel["name"] for channel in engines[1]["channels"]],
                         ["dma2chan0", "dma2chan9", "dma2chan10"])

    def test_no_channel(self):
        """Hardware with a driver and without a channel is told of"""
        uevent = {"/sys/bus/pci/devices/0000:6a:01.0/uevent": "DRIVER=idxd\nPCI_ID=8086:0B25\n"}
        self.assertEqual(self.examine("no_engine", **uevent)["hardware"][0]["name"], "Intel DSA")


class Output(StatusTest):
    """What is printed"""

    def show(self, tree, *args):
        """Return what the program prints for a tree"""
        return run("--root", path_of(tree), *args).stdout

    def test_advice(self):
        """Each cause that is not zero has advice, and no other"""
        for cause, advice in self.program.CAUSES.items():
            told = self.examine("ready", **{"/proc/vmstat": "pgmigrate_offload_success 1\n"
                                                            f"pgmigrate_offload_{cause} 1"})
            self.assertEqual(told["advice"], {cause: advice})
        text = " ".join(self.show("working").split())
        for cause, shown in (("small", True), ("mapping", True), ("busy", True),
                             ("shared", False), ("unfit", False), ("failed", False)):
            self.assertEqual(self.program.CAUSES[cause] in text, shown, cause)

    def test_sections(self):
        """All that was asked for is there"""
        text = self.show("working")
        for words in ("Kernel       7.4.0", "0000:04:00.2  0     DMA-FQ  yes, 1 of 1 in service",
                      "nodes: 0 (64.0 GiB), 1 (no CPUs, 64.0 GiB)",
                      "tiers: 4 (nodes 0), 22 (nodes 1); demotion on", "NUMA balancing: on",
                      "IOMMU        ivhd0", "not forced; 64 MiB reserved, 6 KiB in use",
                      "[dcbm] none", "latency_us: auto 835", "nr_dma_chan 16",
                      "dma1chan0, node 1: idle", "pgmigrate_offload_success    214016"):
            self.assertIn(words, text)

    def test_width(self):
        """Lines are short, except the verdict and what cannot be broken"""
        for tree in ("working", "vanilla", "untrusted", "failing"):
            for line in self.show(tree).split("\n"):
                if not line.startswith("Verdict") and "memory_hotplug" not in line:
                    self.assertLessEqual(len(line), 100, line)

    def test_unread(self):
        """What could not be read is named, and why"""
        files = self.recording("off", {})
        files.refused[f"{DCBM}/channels"] = "Permission denied"
        told = self.program.examine(files)
        self.assertEqual(told["unreadable"], {f"{DCBM}/channels": "Permission denied"})
        path = os.path.join(self.directory("off"), "report")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(files.dump()))
        self.assertIn(f"Not read     {DCBM}/channels: Permission denied",
                      run("--root", path).stdout)

    def test_directory(self):
        """A directory with the links of sysfs gives the same as its recording"""
        for tree in ("working", "untrusted", "vanilla", "no_engine"):
            self.assertEqual(run("--root", self.directory(tree), "--json").stdout,
                             self.show(tree, "--json"))

    def test_report_again(self):
        """A saved report gives the same verdict, and the same report"""
        for tree in ("working", "untrusted", "vanilla", "bounce_buffers"):
            first = self.show(tree, "--report")
            with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
                file.write(first)
                file.flush()
                self.assertEqual(run("--root", file.name, "--report").stdout, first)
                self.assertEqual(run("--root", file.name, "--json").stdout,
                                 self.show(tree, "--json"))

    def test_report_is_whole(self):
        """A report has kernel, command line, options, hardware, knobs, counters and log"""
        files = self.recording("working", {
            "/proc/config": "CONFIG_MIGRATE_OFFLOAD=y\nCONFIG_USB=y\n",
            "/proc/cpuinfo": "model name : Some CPU\nflags : fpu\nmodel name : Some CPU\n"})
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
            old, sys.stdout = sys.stdout, out
            try:
                self.program.report(files, self.program.examine(files))
            finally:
                sys.stdout = old
            out.seek(0)
            text = out.read()
        for line in ("7.4.0", "iommu.strict=0", "CONFIG_MIGRATE_OFFLOAD=y", "PCI_ID=1022:1498",
                     "auto 4194304", "pgmigrate_offload_mapping 1205", "dma0chan0 0 idle",
                     "[   93.116482] dcbm: 2 channels"):
            self.assertIn(f"\t{line}\n", text)
        self.assertEqual(text.count("Some CPU"), 1)
        self.assertNotIn("CONFIG_USB", text)
        self.assertNotIn("usb 1-1", text)

    def test_nothing_private(self):
        """A report has no host name, address, or serial number"""
        secret = "00:1a:2B:3c:4d:5e"
        files = {"/proc/cmdline": f"root=UUID=1234 ip=10.1.2.3 systemd.hostname=alpha {secret} "
                                  "iommu=pt -- swiotlb=alpha",
                 "/proc/sys/kernel/hostname": "alpha", "/proc/version": "Linux (me@alpha)",
                 "/sys/class/dma/dma0chan0/device/uevent": f"DRIVER=ptdma\nMAC={secret}\n",
                 "/sys/bus/pci/devices/0000:01:00.0/uevent": f"PCI_ID=8086:1521\nMAC={secret}\n",
                 "/dev/kmsg": f"6,1,2,-;ptdma: {secret} serial number: alpha1 at 192.168.1.7 "
                              "12345678-1234-1234-1234-123456789abc\n"
                              "6,1,2,-;Linux version 7 (migrate@alpha) dcbm\n"
                              "6,1,2,-;Command line: dcbm.x=alpha\n"
                              "6,1,2,-;usb dcbmalpha\n"}
        told = self.recording("working", files)
        state = self.program.examine(told)
        self.program.read_log(told)
        text = json.dumps(state) + "\n".join(told.dump())
        self.assertIn("iommu=pt", text)
        self.assertIn("ptdma: (left out)", text)
        for word in (secret, secret.lower(), "alpha", "10.1.2.3", "192.168", "1234", "8086:1521",
                     "0000:01:00.0"):
            self.assertNotIn(word, text)

    def test_host_name(self):
        """Lines of this machine's log do not have its name"""
        files = self.program.Files()
        name = os.uname().nodename
        line = self.program.without_names(f"dcbm: {name}: x", files)
        self.assertEqual(line, "dcbm: (host): x" if name != "localhost" else f"dcbm: {name}: x")

    def test_this_machine(self):
        """Whatever machine this is, there is a verdict"""
        for args in ((), ("--json",), ("--report",)):
            result = run(*args)
            self.assertIn(result.returncode, (0, 1))
            self.assertEqual(result.stderr, "")
            self.assertIn("verdict", result.stdout.lower())


class Garbled(StatusTest):
    """Files that are missing, or not as expected"""

    GARBAGE = (b"", b"\n\n", b"\0" * 4096, b"\xff\xfe\x80garbage\x1b[31m", b"[[[]]]", b"-",
               b"9" * 5000, b"auto", b"99999-0,x", b"pgmigrate_offload_success -\n" * 3,
               b"dma0chan0\ndma0chan0 0\n x y z w: \n", b"Y\nN\n", b"A=\n=B\n==\nDRIVER", b"0-9999")

    def test_each_file(self):
        """Whatever a file has, there is a verdict, and no character that a terminal obeys"""
        for tree in ("working", "untrusted"):
            for path in self.program.Recording(text_of(tree)).files:
                for data in (*self.GARBAGE, None):
                    state = self.examine(tree, **{path: data})
                    self.assertRegex(state["verdict"], r"\A[ -~]+\Z", (path, data))
                    self.program.json.dumps(state)

    def test_all_files(self):
        """Nor does it matter if all are garbled"""
        for data in self.GARBAGE:
            files = {path: data for path in self.program.Recording(text_of("working")).files}
            files["/proc/config"] = files["/proc/config.gz"] = data
            self.assertTrue(self.examine("working", **files)["verdict"])

    def test_refused_files(self):
        """Nor if none may be read"""
        files = self.program.Recording(text_of("working"))
        files.refused = {path: "Permission denied" for path in files.files}
        state = self.program.examine(files)
        self.assertFalse(state["works"] and state["state"] == "working")
        self.assertIn("/proc/vmstat", state["unreadable"])

    def test_garbled_is_told(self):
        """A file that is not understood is named"""
        for path in (f"{KNOBS}/migrator", f"{DCBM}/channels", f"{DCBM}/offloading",
                     "/proc/vmstat", "/sys/devices/system/node/has_memory"):
            data = "pgmigrate_success x" if path == "/proc/vmstat" else "?!"
            told = self.examine("working", **{path: data})
            self.assertEqual(told["unreadable"].get(path), "not understood", path)

    def test_garbled_channels(self):
        """Channels that are not understood are not taken for channels out of service"""
        self.assertEqual(self.examine("working", **{f"{DCBM}/channels": "?!"})["state"], "working")

    def test_config_gz(self):
        """The options of a kernel are read from config.gz, unless it is damaged"""
        gz = self.program.gzip.compress(b"CONFIG_NUMA=y\n# CONFIG_MIGRATE_OFFLOAD is not set\n")
        for data, words in ((gz, "was built without"), (gz[:-12], "has no migrate_offload"),
                            (gz[:12] + b"xx" + gz[14:], "has no migrate_offload")):
            top = self.directory("vanilla")
            with open(f"{top}/proc/config.gz", "wb") as file:
                file.write(data)
            result = run("--root", top)
            self.assertIn(words, result.stdout)
            self.assertEqual(result.stderr, "")

    def test_odd_files(self):
        """A directory, a FIFO, or an endless file in place of a file does not stop anything"""
        top = self.directory("working")
        os.remove(f"{top}/proc/vmstat")
        os.mkdir(f"{top}/proc/vmstat")
        os.remove(f"{top}{KNOBS}/share")
        os.mkfifo(f"{top}{KNOBS}/share")
        os.remove(f"{top}{KNOBS}/migrator")
        os.symlink("/dev/zero", f"{top}{KNOBS}/migrator")
        os.remove(f"{top}{KNOBS}/reasons")
        os.symlink("reasons", f"{top}{KNOBS}/reasons")
        result = run("--root", top)
        self.assertEqual(result.stderr, "")
        self.assertIn("/proc/vmstat: Is a directory", result.stdout)
        self.assertIn("Verdict      Ready", result.stdout)

    def test_terminal(self):
        """Escape sequences do not get through, and a terminal of ASCII is enough"""
        top = self.directory("working")
        with open(f"{top}{KNOBS}/reasons", "w", encoding="utf-8") as file:
            file.write("\x1b[2J\u00e9\u202e\n")
        result = run("--root", top, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
        self.assertEqual(result.stderr, "")
        self.assertNotIn("\x1b", result.stdout)
        self.assertIn("?[2J\\xe9?", result.stdout)


class Command(StatusTest):
    """Options, exit status, and streams"""

    def test_help(self):
        """-h tells the exit status and all options"""
        result = run("-h")
        self.assertEqual(result.returncode, 0)
        text = " ".join(result.stdout.split())
        for words in ("Exit status: 0 if", "1 if it does not work", "2 for wrong usage", "--json",
                      "--report", "--watch", "--root"):
            self.assertIn(words, text)

    def test_wrong_usage(self):
        """Wrong usage is status 2"""
        for args in (("--watch",), ("--watch", "0"), ("--watch", "x"), ("--watch", "nan"),
                     ("--watch", "-1"), ("--watch", "inf"), ("--json", "--report"),
                     ("--json", "--watch", "1"), ("--nonsense",), ("argument",),
                     ("--root", "/nonexistent"), ("--root", PROGRAM), ("--root", "")):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertIn("usage:", result.stderr)
            self.assertNotIn("Traceback", result.stderr)

    def test_broken_pipe(self):
        """A reader that goes is no error to shout about"""
        for args in ((), ("--json",), ("--report",), ("--watch", "0.01")):
            reader, writer = os.pipe()
            os.close(reader)
            process = subprocess.run([sys.executable, PROGRAM, "--root", path_of("working"), *args],
                                     stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
            os.close(writer)
            self.assertEqual(process.stderr, b"", args)
            self.assertEqual(process.returncode, 1)

    def test_full_disk(self):
        """Output that cannot be written is an error with a message"""
        with open("/dev/full", "w", encoding="utf-8") as full:
            process = subprocess.run([sys.executable, PROGRAM, "--root", path_of("working")],
                                     stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"cannot write: No space left", process.stderr)
        self.assertNotIn(b"Traceback", process.stderr)

    def test_no_stdout(self):
        """Without a standard output, there is the exit status"""
        command = f'"{sys.executable}" "{PROGRAM}" --root "{path_of("working")}" >&-'
        process = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, timeout=60,
                                 check=False)
        self.assertEqual((process.returncode, process.stderr), (0, b""))

    def test_watch(self):
        """--watch prints rates until it is interrupted"""
        top = self.directory("working")
        vmstat = f"{top}/proc/vmstat"
        with open(vmstat, encoding="utf-8") as file:
            text = file.read()
        # A shell starts what runs in the background with interrupts ignored.
        was = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, was)
        with subprocess.Popen([sys.executable, PROGRAM, "--root", top, "--watch", "0.05"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            head = process.stdout.readline().split()
            with open(f"{vmstat}.new", "w", encoding="utf-8") as file:
                file.write(text.replace("214016", "999999"))
            os.rename(f"{vmstat}.new", vmstat)
            rates, until = [], time.monotonic() + 20
            while not any(rates) and time.monotonic() < until:
                rates = [int(word) for word in process.stdout.readline().split()]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        self.assertEqual(head, ["pages/s", "success", "fallback", *self.program.CAUSES])
        self.assertGreater(rates[0], 0)
        self.assertEqual(rates[1:], [0] * 7)
        self.assertEqual((process.returncode, errors), (0, ""))

    def test_watch_vanilla(self):
        """--watch on a vanilla kernel says what is missing, and ends"""
        result = run("--root", path_of("vanilla"), "--watch", "1")
        self.assertEqual(result.returncode, 1)
        self.assertIn("has no migrate_offload", result.stdout)

    def test_writes_nothing(self):
        """No file is opened for writing, made or removed, nor any program run"""
        top = self.directory("working")
        for args in ((), ("--json",), ("--report",)):
            for where in (("--root", top), ()):
                code = (f"import sys; sys.argv = {['x', *where, *args]!r}; "
                        f"sys.path.insert(0, {HERE!r}); "
                        "import status as test; test.run_watched()")
                result = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True,
                                        text=True, timeout=60, check=False)
                self.assertEqual(result.stderr, "")


def run_watched():
    """Run the program in this process, and end it if it writes"""
    def hook(event, args):
        flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if event in WRITES or event == "open" and args[2] & flags:
            sys.stderr.write(f"{event} {args}\n")
            os._exit(3)

    sys.addaudithook(hook)
    runpy.run_path(PROGRAM, run_name="__main__")


def main():
    """Run the tests; the last line is 'N passed, N failed, N skipped'"""
    if not os.path.exists(PROGRAM):
        print(f"SKIP: {PROGRAM} is missing; set MIGRATE_OFFLOAD_STATUS to its path")
        sys.exit(KSFT_SKIP)
    result = unittest.main(exit=False, verbosity=1).result
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    print(f"{max(0, result.testsRun - failed - skipped)} passed, {failed} failed, "
          f"{skipped} skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
