# SPDX-License-Identifier: GPL-2.0
"""Used by harness/mutants/run: compile mutants by the commands that kbuild saved"""

import concurrent.futures
import glob
import os
import re
import shutil
import subprocess

from kernel_copy import put, saved_command
from tables import BUILD, mutate


def area(path):
	"""Return the folder of the kernel that a file belongs to: mm, drivers/dma, include"""
	parts = path.split("/")
	return "/".join(parts[:2 if parts[0] == "drivers" else 1])


class Objects:
	"""Where a kernel was built, and by which commands"""

	def __init__(self, folder):
		self.folder = folder
		self.users = {}

	def saved(self, target):
		"""Return kbuild's command for the target and its source, or None"""
		path = os.path.join(self.folder, os.path.dirname(target), f".{os.path.basename(target)}.cmd")
		try:
			with open(path, encoding="utf-8") as file:
				text = file.read()
		except FileNotFoundError:
			return None
		command = saved_command(text)
		if not command:
			return None
		source = command.split()[-1]
		return (command, source) if source.endswith((f"/{target[:-1]}c", f"/{target[:-1]}S")) else None

	def targets(self, file):
		"""Return the objects that have to be compiled to see that a file compiles"""
		if file.endswith(".c") and self.saved(file[:-1] + "o"):
			return [file[:-1] + "o"]
		if file not in self.users:
			self.users[file] = sorted(self.find_users(file))
		return self.users[file]

	def find_users(self, file):
		"""Yield the objects that depend on a file"""
		pattern = os.path.join(self.folder, area(file), "**/.*.o.cmd")
		for path in glob.glob(pattern, recursive=True, include_hidden=True):
			with open(path, encoding="utf-8") as cmd:
				text = cmd.read()
			# A name may have ".." in it
			names = re.findall(rf"\S*/{re.escape(os.path.basename(file))}(?=\s)", text)
			if any(os.path.normpath(name).endswith(f"/{file}") for name in names):
				folder, name = os.path.split(os.path.relpath(path, self.folder))
				target = os.path.join(folder, name[1:].removesuffix(".cmd"))
				if self.saved(target):
					yield target


def link_area(tree, overlay, name):
	"""Have a folder of the kernel in the overlay, with symbolic links for files"""
	os.makedirs(os.path.dirname(os.path.join(overlay, name)), exist_ok=True)
	shutil.copytree(os.path.join(tree, name), os.path.join(overlay, name),
			symlinks=True, copy_function=os.symlink)


def dependencies(path, folder):
	"""Return the names of files in what the compiler wrote; they may be relative to the folder"""
	with open(path, encoding="utf-8") as file:
		return [os.path.normpath(os.path.join(folder, name)) for name in file.read().split()]


def compile_object(objects, target, file, overlay):
	"""Compile an object from the file in the overlay; return what is wrong, or an empty text"""
	command, source = objects.saved(target)
	tree = source.removesuffix(target[:-1] + source[-1]).rstrip("/")
	for name in os.listdir(overlay):
		for folder in os.listdir(os.path.join(overlay, name)) if name == "drivers" else [""]:
			folder = os.path.join(name, folder).rstrip("/")
			command = re.sub(rf"{re.escape(tree)}/{re.escape(folder)}(?=[/\s]|$)",
					 f"{overlay}/{folder}", command)
	out = os.path.join(overlay, "out.o")
	deps = re.search(r"-Wp,-MMD,(\S+)", command)
	if not deps or f"-o {target} " not in command:
		return f"cannot make sense of the command for {target}"
	command = command.replace(deps[1], f"{out}.d").replace(f"-o {target} ", f"-o {out} ")
	# The dependencies that ccache has may be those of another clone
	for env in ({}, {"CCACHE_DISABLE": "1"}):
		done = subprocess.run(["sh", "-c", command], cwd=objects.folder, env=os.environ | env,
				      text=True, check=False, stdin=subprocess.DEVNULL,
				      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
		if done.returncode:
			return done.stdout or f"the compiler ended with {done.returncode}"
		if os.path.join(overlay, file) in dependencies(f"{out}.d", objects.folder):
			return ""
	return f"{target} was not compiled from the mutated {file}"


def compile_mutant(mutant, tree, candidates, overlay):
	"""Return what is wrong, or an empty text"""
	texts = mutate(mutant, tree)
	areas = sorted({area(file) for file in texts})
	try:
		for name in areas:
			link_area(tree, overlay, name)
		for file, text in texts.items():
			put(os.path.join(overlay, file), text)
		return compile_files(texts, candidates, overlay)
	finally:
		shutil.rmtree(overlay, ignore_errors=True)


def compile_files(files, candidates, overlay):
	"""Compile what the files are part of; return what is wrong, or an empty text"""
	for file in files:
		objects = next((objects for objects in candidates if objects.targets(file)), None)
		if not objects:
			return f"{file} was compiled in none of {', '.join(o.folder for o in candidates)}"
		for target in objects.targets(file):
			wrong = compile_object(objects, target, file, overlay)
			if wrong:
				return wrong
	return ""


def candidates_of(mutant, folder):
	"""Return where to look for the objects of a mutant: where its tests run first"""
	if folder:
		return [folder]
	folders = [f"{BUILD}/kunit/{test.arch}" for test in mutant.tests if test.arch]
	return folders + [f"{BUILD}/kernel"]


def compile_all(mutants, args, results):
	"""Compile each mutant, on all CPUs"""
	work = os.path.join(BUILD, "mutants/compile")
	shutil.rmtree(work, ignore_errors=True)
	cache = {}
	for mutant in mutants:
		for folder in candidates_of(mutant, args.objects):
			cache.setdefault(folder, Objects(folder))

	def one(mutant):
		# The same path each time, for ccache
		return compile_mutant(mutant, args.tree, [cache[folder] for folder in
				      candidates_of(mutant, args.objects)], os.path.join(work, mutant.name))

	with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
		for mutant, wrong in zip(mutants, pool.map(one, mutants)):
			if wrong:
				results.fail(f"{mutant.name} does not compile", wrong)
			else:
				results.ok(mutant.name, quiet=True)
	shutil.rmtree(work, ignore_errors=True)
