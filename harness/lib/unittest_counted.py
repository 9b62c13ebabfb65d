# SPDX-License-Identifier: GPL-2.0
"""Run the unit tests of a script, and count them as harness/lib/common.sh wants it"""

import sys
import unittest


def names(suite):
	"""Yield the names of all tests, as they are given to the script"""
	for test in suite:
		if isinstance(test, unittest.TestSuite):
			yield from names(test)
		else:
			yield ".".join(test.id().split(".")[-2:])


def main():
	"""Run the tests of the script; the last line is 'N passed, N failed, N skipped'"""
	if "--list" in sys.argv[1:]:
		for name in names(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])):
			print(name)
		return
	run = unittest.main(exit=False, verbosity=1).result
	failed, skipped = len(run.failures) + len(run.errors), len(run.skipped)
	print(f"{max(0, run.testsRun - failed - skipped)} passed, {failed} failed, {skipped} skipped")
	sys.exit(1 if failed else 0)
