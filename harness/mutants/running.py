# SPDX-License-Identifier: GPL-2.0
"""Used by harness/mutants/run: build kernels without a rule, and see tests fail"""

import fcntl
import glob
import os
import re
import shutil
import subprocess
import time

from compiling import Objects, area
from kernel_copy import in_copy, make_copy, put
from tables import BUILD, TOP, Refused, mutate

KUNIT_ARGS = {"um": ["--timeout=300"],
	      "x86_64": ["--timeout=600", "--qemu_args=-smp 2", "--kernel_args=numa=fake=2"]}


def run(command, log, **kwargs):
	"""Run a command with all that it says in a log; return whether it ended well"""
	with open(log, "ab") as file:
		return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False,
				      cwd=kwargs.pop("cwd", TOP), **kwargs).returncode == 0


def read_log(path):
	"""Return the lines of a kernel's or a test's log"""
	try:
		with open(path, encoding="utf-8", errors="replace") as file:
			return [line.rstrip() for line in file.read().replace("\r", "").split("\n")]
	except FileNotFoundError:
		return []


class Machine:
	"""A copy of the kernel's source and of objects, in which rules are taken out"""

	next_step = "make build"	# makes the objects

	def __init__(self, tree, objects, copy, log):
		self.tree, self.objects, self.copy, self.log = tree, objects, copy, log
		self.kernel = os.path.join(copy, "kernel")
		self.mutated = set()	# files that differ in the copy
		if not os.path.isdir(objects):
			raise Refused(f"nothing was built in {objects}; next: {self.next_step}")
		os.makedirs(os.path.dirname(copy), exist_ok=True)
		# Until this program ends
		self.lock = open(f"{copy}.lock", "w", encoding="utf-8")	# pylint: disable=consider-using-with
		try:
			fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
		except BlockingIOError:
			self.lock.close()
			raise Refused(f"another run of this program uses {copy}") from None
		make_copy(tree, objects, copy)

	def in_copy(self, command):
		"""Run a command where the copy is in the place of the original"""
		return run(in_copy(self.tree, self.objects, self.copy, command), self.log)

	def note(self, text):
		"""Say something in the log"""
		with open(self.log, "a", encoding="utf-8") as file:
			file.write(f"{text}\n")

	def write(self, texts):
		"""Have these files differ, and no others; return the files that were written"""
		written = {}
		for file in self.mutated - set(texts):
			with open(os.path.join(self.tree, file), encoding="utf-8") as original:
				written[file] = original.read()
		written |= texts
		for file, text in written.items():
			put(os.path.join(self.copy, "linux", file), text)
		self.mutated = set(texts)
		return sorted(written)

	def prepare(self, tests, results):
		"""Build with all rules, and see all tests pass"""
		raise NotImplementedError

	def build(self, texts):
		"""Build with these files changed; return whether that was possible"""
		raise NotImplementedError

	def killed(self, mutant, test):
		"""Run the test; return whether it failed, and what shows that"""
		raise NotImplementedError


class KUnitMachine(Machine):
	"""KUnit tests, on UML or in QEMU"""

	def __init__(self, tree, arch, log):
		self.arch, self.link = arch, None
		self.next_step = f"harness/suites/kunit {arch}"
		super().__init__(tree, f"{BUILD}/kunit/{arch}", f"{BUILD}/mutants/{arch}", log)

	def make(self, *args):
		"""Build the kernel"""
		cc = "ccache gcc" if shutil.which("ccache") else "gcc"
		return self.in_copy(["make", "-C", self.tree, f"ARCH={self.arch}", f"O={self.objects}", f"CC={cc}",
				     *args, "linux" if self.arch == "um" else "bzImage"])

	def stamps(self, file):
		"""Return when the objects that a file may be part of were made"""
		pattern = f"{file[:-1]}o" if file.endswith(".c") else f"{area(file)}/**/*.o"
		return {path: os.stat(path).st_mtime_ns for path in
			glob.glob(os.path.join(self.kernel, pattern), recursive=True)}

	def find_link(self):
		"""Return the command that links the kernel, of what make with V=1 has said, or None"""
		links = [line[2:] for line in read_log(self.log) if re.match(r"\+ .* -o vmlinux\.unstripped ", line)]
		return links[-1] if links and self.arch == "um" else None

	def relink(self, files):
		"""Compile these files and link, by kbuild's own commands. make takes four times as long to find them."""
		objects = Objects(self.kernel)
		commands = [objects.saved(target)[0] for file in files for target in objects.targets(file)]
		if not commands:
			self.note(f"{', '.join(files)}: compiled nowhere")
			return False
		script = " &&\n".join(["cd " + self.objects, *commands, self.link,
				       "cp vmlinux.unstripped vmlinux", "ln -f vmlinux linux"])
		return self.in_copy(["sh", "-c", script])

	def build(self, texts):
		files = self.write(texts)
		if self.link:
			return self.relink(files)
		# kbuild needs a while to find out that there is nothing to do elsewhere.
		# Have it look only where files differ, and then link: one goal after the
		# other, which -j would not do.
		folders = sorted({area(file) if not file.startswith("include/") else "." for file in files})
		os.utime(os.path.join(self.kernel, "built-in.a"))
		before = {file: self.stamps(file) for file in texts}
		if not self.make(f"build-dir={' '.join(folders)}", *folders):
			return False
		for file in texts:
			if self.stamps(file) == before[file]:
				self.note(f"{file} was not compiled")
				return False
		return True

	def kunit(self, *which):
		"""Run KUnit tests; return the kernel's log"""
		log = os.path.join(self.kernel, "test.log")
		if os.path.exists(log):
			os.unlink(log)
		env = {**os.environ, "PATH": f"{BUILD}/kunit/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
		run(["python3", f"{self.tree}/tools/testing/kunit/kunit.py", "exec", "--arch", self.arch,
		     "--build_dir", self.kernel, "--kunitconfig", f"{self.tree}/drivers/migrate_offload",
		     *KUNIT_ARGS[self.arch], *which], self.log, cwd=self.tree, env=env)
		return read_log(log)

	def prepare(self, tests, results):
		title = f"with all rules: {len(tests)} KUnit tests on {self.arch}"
		if os.path.exists(f"{self.kernel}/vmlinux.unstripped"):
			os.unlink(f"{self.kernel}/vmlinux.unstripped")
		built = self.make(f"-j{os.cpu_count() + 1}", "V=1")
		self.link = self.find_link()
		if not built:
			results.fail(f"{title}: the kernel does not build", "\n".join(read_log(self.log)))
			return False
		said = self.kunit()
		wrong = [test.what for test in tests if kunit_result(said, test.what) != "ok"]
		if wrong:
			results.fail(title, "not ok: " + " ".join(wrong))
			return False
		results.ok(title)
		return True

	def killed(self, mutant, test):
		result = kunit_result(self.kunit(test.what), test.what)
		return result in ("not ok", "died"), f"{test.what}: {result}"


def kunit_result(log, test):
	"""Return what a kernel's log says of a test: "ok", "not ok", "skipped", "died" or "was not run" """
	suite, name = test.split(".")
	result = "was not run"
	inside = False
	for line in log:
		line = re.sub(r"^\[ *\d+\.\d+\] ?", "", line).strip()
		if line.startswith("# Subtest: "):
			inside |= line == f"# Subtest: {suite}"
		if not inside:
			continue
		if re.fullmatch(rf"(not )?ok \d+ {name}( .*)?", line):
			if line.startswith("not"):
				return "not ok"
			return "skipped" if "# SKIP" in line else "ok"
		result = "died"
	return result


class BootMachine(Machine):
	"""Tests that boot a machine"""

	def __init__(self, tree, log):
		super().__init__(tree, f"{BUILD}/kernel", f"{BUILD}/mutants/kernel", log)

	def make(self):
		"""Build the kernel"""
		return self.in_copy(["harness/kbuild/kernel", self.tree, self.objects, "harness/kbuild/kernel.config"])

	def build(self, texts):
		self.write(texts)
		return self.make()

	def boot(self, kernel, test):
		"""Run a test; return whether it passed, and what it said"""
		env, log = dict(os.environ), os.path.join(os.path.dirname(self.log), "boot.log")
		if os.path.exists(log):
			os.unlink(log)
		if test.kind == "ptdma":
			env["ONLY"] = test.names[0]
			command = ["harness/suites/ptdma", "-k", kernel, test.what.split()[0]]
		elif test.kind == "faults":
			command = ["harness/suites/ptdma-faults", "-k", kernel, test.what]
		else:
			# A kernel that dies does so at once, and not when the time is over
			command = ["harness/boot", "-k", kernel, "-t", "900", "-e", "0", "-a", "oops=panic panic=-1",
				   "--", "harness/guest/selftest"]
			# A program runs all of its tests, some of which want to swap
			command += [test.script, *test.names] if test.script.endswith(".sh") else ["-z", test.script]
		ok = run(command, log, env=env)
		said = read_log(log)
		self.note("\n".join(said))
		return ok, said

	def prepare(self, tests, results):
		if not self.make():
			results.fail("with all rules: the kernel does not build", "\n".join(read_log(self.log)))
			return False
		for text, test in sorted({str(test): test for test in tests}.items()):
			ok, said = self.boot(self.kernel, test)
			if ok:
				results.ok(f"with all rules: {text}")
			else:
				results.fail(f"with all rules: {text}", "\n".join(said))
		return True

	def killed(self, mutant, test):
		_, said = self.boot(self.kernel, test)
		survived = [name for name in test.names if not boot_failed(said, name, name in mutant.dies)]
		why = "passes, or did not run: " if survived else "not ok: "
		return not survived, why + ", ".join(survived or test.names)


def boot_failed(log, name, dies):
	"""Return whether a test said that it failed, or said nothing if it may die"""
	said = [line for line in log if re.fullmatch(rf"(not )?ok (\d+ )?{re.escape(name)}( .*)?", line)]
	if any(line.startswith("not") for line in said):
		return True
	return dies and not said


def kill(mutant, tests, machine, results):
	"""Take one rule out, and see each of the tests fail"""
	start = time.monotonic()
	machine.log = os.path.join(BUILD, "mutants/logs", f"{mutant.name}.log")
	if os.path.exists(machine.log):
		os.unlink(machine.log)
	built = machine.build(mutate(mutant, machine.tree))
	for test in tests:
		title = f"{mutant.name} ({test}): {mutant.rule}"
		if not built:
			results.fail(f"{title}: does not build", "\n".join(read_log(machine.log)))
			continue
		killed, why = machine.killed(mutant, test)
		seconds = round(time.monotonic() - start)
		if killed:
			results.ok(f"{title} ({seconds} s)")
		else:
			results.fail(f"{title} ({seconds} s)", f"{why}; see {machine.log}")


def kill_all(mutants, args, results):
	"""Take out one rule after the other, machine by machine"""
	logs = os.path.join(BUILD, "mutants/logs")
	os.makedirs(logs, exist_ok=True)
	for mutant in mutants:
		for test in mutant.tests:
			if test.kind == "none":
				results.skip(f"{mutant.name}: no test: {test.what}")
	for name in ("um", "x86_64", "boot"):
		chosen = [(mutant, [test for test in mutant.tests if name in test.kinds and test.kind != "none"])
			  for mutant in mutants]
		chosen = [(mutant, tests) for mutant, tests in chosen if tests]
		if not chosen:
			continue
		log = os.path.join(logs, f"with-all-rules-{name}.log")
		if os.path.exists(log):
			os.unlink(log)
		try:
			machine = BootMachine(args.tree, log) if name == "boot" else KUnitMachine(args.tree, name, log)
		except Refused as problem:
			results.fail(f"{name}: {problem}")
			continue
		tests = {test.what: test for _, tests in chosen for test in tests}
		if not machine.prepare(list(tests.values()), results):
			continue
		# A file is put back only when the next mutant is of another
		for mutant, tests in sorted(chosen, key=lambda pair: pair[0].files):
			kill(mutant, tests, machine, results)
