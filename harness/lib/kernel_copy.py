# SPDX-License-Identifier: GPL-2.0
"""A copy of a kernel's source and objects, to change files in and compile them again"""

import os
import re
import shutil
import subprocess

IN_COPY = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../kbuild/in-copy")


def put(path, text):
	"""Write a file, of text or bytes, without writing through to others that it is linked with"""
	if os.path.lexists(path):
		os.unlink(path)
	mode, encoding = ("wb", None) if isinstance(text, bytes) else ("w", "utf-8")
	with open(path, mode, encoding=encoding) as file:
		file.write(text)


def make_copy(tree, objects, copy):
	"""Copy objects to copy/kernel, and all of tree but its history to copy/linux, as hard links"""
	shutil.rmtree(copy, ignore_errors=True)
	os.makedirs(os.path.join(copy, "linux"))
	subprocess.run(["cp", "-a", "--reflink=auto", objects, os.path.join(copy, "kernel")], check=True)
	put(os.path.join(copy, "kernel", ".copied"), "")
	entries = [entry for entry in os.listdir(tree) if entry != ".git"]
	subprocess.run(["cp", "-al", "-t", os.path.join(copy, "linux"), *entries], cwd=tree, check=True)


def in_copy(tree, objects, copy, command):
	"""Return the command that runs a command where the copy is in the place of the originals"""
	return [IN_COPY, tree, objects, copy, *command]


def saved_command(text):
	"""Return the compiler's command of all that kbuild has saved for an object, or None"""
	command = re.search(r"^savedcmd_\S+ := (.*)$", text, flags=re.M)
	# What follows is objtool's, and no business of the compiler
	return command and command[1].replace("$$", "$").replace("\\#", "#").split(";")[0]
