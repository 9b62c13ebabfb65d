# SPDX-License-Identifier: GPL-2.0
"""Used by harness/mutants/run: mutants, their tables, and how they are applied"""

import dataclasses
import difflib
import glob
import os
import re

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BUILD", os.path.join(TOP, "build"))
DOCUMENT = "Documentation/mm/migrate_offload.rst"
SELFTESTS = "tools/testing/selftests"
KINDS = ("kunit", "um", "x86_64", "boot", "selftest", "ptdma", "faults")


class Refused(Exception):
	"""A table, or what was asked for, makes no sense"""


@dataclasses.dataclass
class Test:
	"""A test that fails without the rule"""
	kind: str	# kunit, selftest, ptdma, faults or none
	what: str	# its name, the machine and the check, or why there is no test
	names: list	# of what has to fail
	script: str = ""
	arch: str = ""	# of a KUnit test

	@property
	def kinds(self):
		"""What selects it on the command line"""
		return {self.kind, self.arch or "boot"}

	def __str__(self):
		return f"{self.kind} {self.what}" + (" on x86_64" if self.arch == "x86_64" else "")


@dataclasses.dataclass
class Edit:
	"""Lines that are replaced in a function, or in a file if the function is "-" """
	file: str
	function: str
	old: list = dataclasses.field(default_factory=list)
	new: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Mutant:
	"""One record of a table"""
	name: str
	table: str
	rule: str = ""
	hazards: list = dataclasses.field(default_factory=list)
	tests: list = dataclasses.field(default_factory=list)
	dies: list = dataclasses.field(default_factory=list)
	edits: list = dataclasses.field(default_factory=list)

	@property
	def files(self):
		"""What it changes"""
		return sorted({edit.file for edit in self.edits})


def read_test(text):
	"""Return the Test that the value of a line "test:" means"""
	kind, _, what = text.partition(" ")
	words = what.split()
	if kind == "kunit" and re.fullmatch(r"[\w-]+\.\w+( on x86_64)?", what):
		return Test(kind, words[0], [words[0].split(".")[1]], arch="x86_64" if len(words) > 1 else "um")
	if kind == "selftest" and len(words) > 1:
		return Test(kind, what, words[1:], script=words[0])
	if kind == "ptdma" and len(words) > 1:
		return Test(kind, what, [what.partition(" ")[2]])
	if kind == "faults" and len(words) == 1:
		return Test(kind, what, words)
	if kind == "none:" and words:
		return Test("none", what, [])
	raise Refused(f"not a test: {text!r}")


def read_table(path):
	"""Return the mutants of a table"""
	table = os.path.basename(path).removesuffix(".rules")
	mutants, mutant, key = [], None, None

	def value(text):
		nonlocal mutant, key
		key, _, text = text.partition(":")
		text = text.strip()
		if key == "name":
			mutant = Mutant(text, table)
			mutants.append(mutant)
		elif mutant is None:
			raise Refused("a record begins with \"name:\"")
		elif key == "rule":
			mutant.rule = text
		elif key == "hazard":
			mutant.hazards += text.split()
		elif key == "test":
			mutant.tests.append(text)
		elif key == "dies":
			mutant.dies += text.split()
		elif key == "in":
			file, _, function = text.partition(" ")
			if not function:
				raise Refused("\"in:\" takes a file and a function, or \"-\" for the whole file")
			mutant.edits.append(Edit(file, function.removesuffix("()")))
		else:
			raise Refused(f"{key!r} is none of name, rule, hazard, test, dies and in")

	with open(path, encoding="utf-8") as file:
		for nr, line in enumerate(file, 1):
			line = line.rstrip("\n")
			try:
				if not line:
					mutant = None
				elif line[0] == "#" and mutant is None:
					pass
				elif key == "in" and mutant and line[0] in " +-":
					edit = mutant.edits[-1]
					if line[0] != "+":
						edit.old.append(line[1:])
					if line[0] != "-":
						edit.new.append(line[1:])
				elif key in ("rule", "test") and mutant and line[0] == " ":
					if key == "rule":
						mutant.rule += " " + line.strip()
					else:
						mutant.tests[-1] += " " + line.strip()
				else:
					value(line)
			except Refused as problem:
				raise Refused(f"{os.path.basename(path)}:{nr}: {problem}") from None
	for mutant in mutants:
		try:
			check_record(mutant)
		except Refused as problem:
			raise Refused(f"{mutant.table}.rules: {mutant.name}: {problem}") from None
	return mutants


def check_record(mutant):
	"""Refuse a record that lacks something"""
	if not re.fullmatch(r"[a-z0-9-]+", mutant.name):
		raise Refused("a name has letters, digits and dashes")
	if not mutant.rule or not mutant.tests or not mutant.edits:
		raise Refused("a record has \"rule:\", \"test:\" and \"in:\"")
	mutant.tests = [read_test(text) for text in mutant.tests]
	for edit in mutant.edits:
		if not edit.old:
			raise Refused(f"no old text in {edit.function}(); a line of context is one, too")
		if edit.old == edit.new:
			raise Refused(f"old and new text in {edit.function}() are the same")


def read_tables(folder):
	"""Return the mutants of all tables in the folder"""
	mutants = []
	for path in sorted(glob.glob(os.path.join(folder, "*.rules"))):
		mutants += read_table(path)
	names = [mutant.name for mutant in mutants]
	for name in names:
		if names.count(name) > 1:
			raise Refused(f"{name}: there are {names.count(name)} mutants of this name")
	return mutants


def select(mutants, words):
	"""Return which of the mutants were asked for, each with the tests that were asked for"""
	if not words:
		return mutants
	tables = sorted({mutant.table for mutant in mutants})
	for word in words:
		if word in KINDS or word in tables or any(mutant.name == word for mutant in mutants):
			continue
		like = difflib.get_close_matches(word, [mutant.name for mutant in mutants], 3, 0.5)
		raise Refused(f"no mutant {word!r}; mutants like it: {', '.join(like) or 'none'}; tables: "
			      f"{', '.join(tables)}; kinds: {', '.join(KINDS)}; \"--list\" has all")
	kinds = {word for word in words if word in KINDS}
	names = set(words) - kinds
	chosen = []
	for mutant in mutants:
		if names and not names & {mutant.name, mutant.table}:
			continue
		tests = [test for test in mutant.tests if not kinds or kinds & test.kinds]
		if tests:
			chosen.append(dataclasses.replace(mutant, tests=tests))
	return chosen


# ---- applying ----

def definitions(lines, function):
	"""Return begin and end of each definition of the function: to its brace in the first column"""
	found = []
	name = re.compile(r"(?:[A-Za-z_].*\W)?" + re.escape(function) + r"\(")
	for begin, line in enumerate(lines):
		if not name.match(line):
			continue
		for at in range(begin, len(lines)):
			if lines[at].startswith("{"):
				end = next((n for n in range(at, len(lines)) if lines[n].startswith("}")), None)
				if end is not None:
					found.append((begin, end + 1))
				break
			if lines[at].endswith("}"):
				found.append((begin, at + 1))
				break
			if ";" in lines[at] or not lines[at]:
				break
	return found


def apply_edit(lines, edit):
	"""Return the lines of a file after the edit"""
	where, what = edit.file, f"{edit.function}() of {edit.file}"
	spans = [(0, len(lines))]
	if edit.function != "-":
		spans = definitions(lines, edit.function)
		where = what
		if not spans:
			raise Refused(f"{edit.file} does not define {edit.function}()")
	size = len(edit.old)
	places = [at for begin, end in spans for at in range(begin, end - size + 1)
		  if lines[at:at + size] == edit.old]
	if len(places) != 1:
		raise Refused(f"old text {edit.old[0].strip()!r} stands {len(places)} times in {where}, not once")
	return lines[:places[0]] + edit.new + lines[places[0] + size:]


def mutate(mutant, tree):
	"""Return a dict of the files that the mutant changes, with what they contain then"""
	texts = {}
	for edit in mutant.edits:
		if edit.file not in texts:
			try:
				with open(os.path.join(tree, edit.file), encoding="utf-8") as file:
					texts[edit.file] = file.read()
			except FileNotFoundError:
				raise Refused(f"there is no {edit.file} in {tree}") from None
		texts[edit.file] = "\n".join(apply_edit(texts[edit.file].split("\n"), edit))
	return texts


def read_files(pattern):
	"""Return a dict of the files that match, with what they contain"""
	texts = {}
	for path in glob.glob(pattern, recursive=True):
		if os.path.isfile(path):
			with open(path, encoding="utf-8", errors="replace") as file:
				texts[path] = file.read()
	return texts


class Existing:
	"""What tests and hazards there are"""

	def __init__(self, tree, document):
		self.kunit = {}
		for area in ("mm/tests", "drivers/migrate_offload/**", "drivers/dma/**"):
			for text in read_files(os.path.join(tree, area, "*.[ch]")).values():
				self.read_kunit(text)
		files = read_files(os.path.join(tree, SELFTESTS, "mm/**/*migrate_offload*"))
		files |= read_files(os.path.join(tree, SELFTESTS, "mm/**/*migrate_offload*/**"))
		programs = read_files(os.path.join(tree, SELFTESTS, "mm/migrate_*.c"))
		self.scripts = {os.path.basename(path) for path in files}
		self.scripts |= {f"mm/{os.path.basename(path).removesuffix('.c')}" for path in programs}
		files |= programs
		self.selftests = set()
		for text in files.values():
			self.selftests |= set(re.findall(r"\w+", text))
		self.suites = {}
		for name in ("ptdma", "ptdma-faults"):
			with open(os.path.join(TOP, "harness/suites", name), encoding="utf-8") as file:
				self.suites[name] = file.read()
		with open(document, encoding="utf-8") as file:
			self.hazards = re.findall(r"^   \* - (H\d+[a-z]?): ", file.read(), flags=re.M)

	def read_kunit(self, text):
		"""Take note of the tests of each suite in a file"""
		for cases, name in re.findall(r"struct kunit_case \w+\[\] = \{(.*?)\n\};.*?\.name = \"([\w-]+)\"", text, re.S):
			self.kunit.setdefault(name, set()).update(re.findall(r"KUNIT_CASE\w*\((\w+)", cases))

	def check(self, mutant):
		"""Refuse a mutant that names a test or a hazard that does not exist"""
		for hazard in mutant.hazards:
			if hazard not in self.hazards:
				raise Refused(f"{DOCUMENT} has no hazard {hazard}")
		for test in mutant.tests:
			self.check_test(test)

	def check_test(self, test):
		"""Refuse a test that does not exist"""
		if test.kind == "kunit":
			suite, name = test.what.split(".")
			if name not in self.kunit.get(suite, ()):
				raise Refused(f"there is no KUnit test {test.what}")
		elif test.kind == "selftest":
			if test.script not in self.scripts:
				raise Refused(f"there is no selftest {test.script}")
			for name in test.names:
				# A program has FIXTURE.VARIANT.TEST
				if name.split(".")[-1] not in self.selftests:
					raise Refused(f"{test.script} has no test {name}")
		elif test.kind == "ptdma" and test.names[0] not in self.suites["ptdma"]:
			raise Refused(f"harness/suites/ptdma has no check {test.names[0]!r}")
		elif test.kind == "faults" and f"guest_{test.what}()" not in self.suites["ptdma-faults"]:
			raise Refused(f"harness/suites/ptdma-faults has no test {test.what}")


def refusals(mutants, tree, existing=None):
	"""Return a dict of the mutants that are refused, with the reason"""
	bad = {}
	for mutant in mutants:
		try:
			mutate(mutant, tree)
			if existing:
				existing.check(mutant)
		except Refused as problem:
			bad[mutant.name] = f"{mutant.table}.rules: {mutant.name}: {problem}"
	return bad
