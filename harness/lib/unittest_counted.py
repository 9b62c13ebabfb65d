# SPDX-License-Identifier: GPL-2.0
"""Run the unit tests of a script, and count them as harness/lib/steps.sh wants it"""

import sys
import unittest


def main():
	"""Run the tests of the script; the last line is 'N passed, N failed, N skipped'"""
	run = unittest.main(exit=False, verbosity=1).result
	failed, skipped = len(run.failures) + len(run.errors), len(run.skipped)
	print(f"{max(0, run.testsRun - failed - skipped)} passed, {failed} failed, {skipped} skipped")
	sys.exit(1 if failed else 0)
