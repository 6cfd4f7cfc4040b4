#!/usr/bin/env python3
"""Counts the instructions of a build that finds everything in the cache, and compares them with the recorded number.

    instructions.py [KILN] [--runs 3] [--record]        KILN: target/debug/kiln, or target/release/kiln

The build is B1 of bench/run.py: twelve instructions, a base at the registry. It runs under callgrind, which counts what
the process itself executes: not the kernel's work, and no waiting. bench/README.md says how to read it.
A larger number is told, with the functions that take most, and fails nothing. --record keeps the number of this profile in
bench/instructions.json. Needs root, and the busybox base at the registry (scripts/bases.sh busybox).
"""

import argparse
import collections
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from cases.cached import DOCKERFILE, FILES  # noqa: E402

RECORDED = os.path.join(ROOT, "bench/instructions.json")
# More than this many parts in a hundred above the recorded number is told aloud.
MUCH = 5
# The base, WORKDIR, COPY and RUN: the others only change the config.
STEPS = 7


class Skipped(Exception):
    """Something is not there without which nothing can be counted."""


class Project:
    """The Dockerfile, its context, a state directory, and nothing of the machine's that a count may depend on."""

    def __init__(self, work, kiln, registry):
        self.work, self.kiln, self.context = work, os.path.join(work, "kiln"), os.path.join(work, "context")
        # Without line numbers, which callgrind would read for seconds.
        run(["strip", "--strip-debug", "-o", self.kiln, kiln])
        os.mkdir(self.context)
        for name, text in {"Dockerfile": DOCKERFILE.format(base=f"{registry}/busybox"), **FILES, "../registries": ""}.items():
            with open(os.path.join(self.context, name), "w") as file:
                file.write(text)

    def fill(self):
        """Builds until all is cached, and remembers what each counted build begins with: builds add to the database."""
        self.build()
        self.build()
        self.kept = {path: read_file(path) for path in self.database() if not path.endswith("-shm")}

    def restore(self):
        for path in self.database():
            # What is not kept is the index of the log, which is made anew.
            if path not in self.kept:
                os.remove(path)
        for path, content in self.kept.items():
            with open(path, "wb") as file:
                file.write(content)

    def database(self):
        return glob.glob(f"{self.work}/state/kiln.db*")

    def build(self, *under):
        """Builds, under another program if one is named; says how many steps were cached."""
        environment = {"PATH": os.environ["PATH"], "HOME": self.work, "CONTAINERS_REGISTRIES_CONF": f"{self.work}/registries"}
        told = run([*under, self.kiln, "--state", f"{self.work}/state", "build", "--progress", "plain", "--network", "host", "-t", "bench",
                    self.context], env=environment)
        return len(re.findall(r"^#\d+ CACHED$", told.stdout + told.stderr, re.MULTILINE))


class Callgrind:
    def __init__(self, work):
        found = subprocess.run([os.path.join(ROOT, "scripts/valgrind.sh")], stdout=subprocess.PIPE, text=True)
        if found.returncode != 0:
            raise Skipped("there is no valgrind that knows the system calls of kiln")
        self.usr, self.work = found.stdout.strip(), work
        program = os.path.join(self.usr, "bin/valgrind.bin")
        self.program = program if os.path.exists(program) else os.path.join(self.usr, "bin/valgrind")
        self.version = run([self.program, "--tool=callgrind", "--version"], env=self.environment()).stdout.strip().removeprefix("valgrind-")

    def environment(self):
        return {**os.environ, "VALGRIND_LIB": os.path.join(self.usr, "libexec/valgrind")}

    def count(self, project, number):
        """One build: how many instructions, and the file that says which."""
        out = os.path.join(self.work, f"callgrind.{number}")
        project.restore()
        lib = f"VALGRIND_LIB={self.environment()['VALGRIND_LIB']}"
        try:
            cached = project.build("env", lib, self.program, "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}")
        except RuntimeError as error:
            # It builds without: perhaps it makes a system call that this valgrind does not know.
            raise Skipped(f"kiln does not run under callgrind {self.version}: {error}") from error
        if cached != STEPS:
            raise RuntimeError(f"{cached} of {STEPS} steps were cached: this is not the build that is to be counted")
        with open(out) as file:
            return int(re.search(r"^summary: (\d+)$", file.read(), re.MULTILINE)[1]), out

    def most(self, out, functions=10):
        """The functions that execute most instructions themselves, one line each."""
        told = run(["perl", os.path.join(self.usr, "bin/callgrind_annotate"), "--auto=no", "--threshold=100", out]).stdout
        total, counts = 0, collections.Counter()
        for count, name in re.findall(r"^ *([\d,]+) +\([^)]*\) +(\S.*)$", told, re.MULTILINE):
            count = int(count.replace(",", ""))
            if name == "PROGRAM TOTALS":
                total = count
            else:
                # `file:function [object]`; one that is inlined stands in several files.
                counts[re.sub(r"^.*?:(?!:)| \[[^]]*\]$", "", name)] += count
        return [f"{millions(count)} ({count / total:.1%})  {name}" for name, count in counts.most_common(functions)]


def run(command, **how):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **how)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def registry():
    """Where the base is."""
    named = os.environ.get("KILN_TEST_REGISTRY")
    if named:
        return named
    found = subprocess.run([os.path.join(ROOT, "scripts/registry.sh"), "address"], capture_output=True, text=True)
    if found.returncode != 0:
        raise Skipped("no registry runs; `scripts/bases.sh busybox` starts it")
    return found.stdout.strip()


def millions(count):
    return f"{count / 1e6:.2f} M"


def compare(profile, counts, most):
    """Says how the middle one of these numbers compares with the recorded one; `most` gives the functions that take most."""
    count = statistics.median_low(counts)
    spread = (max(counts) / min(counts) - 1) * 100
    recorded = read().get(profile)
    if recorded is None:
        print(f"no-op build: {millions(count)} instructions ({profile}, runs differ by {spread:.1f} %), none recorded")
        return
    more = (count / recorded["instructions"] - 1) * 100
    print(f"no-op build: {millions(count)} instructions, {millions(recorded['instructions'])} recorded ({more:+.1f} %; {profile}, "
          f"runs differ by {spread:.1f} %)")
    if more > MUCH:
        print(f"WARNING: {more:.1f} % more instructions than recorded with rustc {recorded['rustc']}. Most are in")
        for line in most():
            print(f"  {line}")
        print("bench/README.md says how to find what is new, and how to record the number if it is meant.")


def read():
    try:
        with open(RECORDED) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def record(profile, count, valgrind):
    rustc = run(["rustc", "--version"], cwd=ROOT).stdout.split()[1]
    kept = read() | {profile: {"instructions": count, "rustc": rustc, "valgrind": valgrind}}
    with open(RECORDED, "w") as file:
        json.dump(kept, file, indent=2, sort_keys=True)
        file.write("\n")
    print(f"recorded {millions(count)} instructions for {profile}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kiln", nargs="?", default=os.path.join(ROOT, "target/debug/kiln"), help="by default target/debug/kiln")
    parser.add_argument("--runs", type=int, default=3, help="builds that are counted, at least one; by default 3")
    parser.add_argument("--record", action="store_true", help="keep the number in bench/instructions.json")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs {options.runs}: at least one is needed")
    kiln = os.path.realpath(options.kiln)
    if not os.access(kiln, os.X_OK):
        sys.exit(f"error: there is no program at `{options.kiln}`: run `cargo build`, or name another")
    if os.geteuid() != 0:
        raise Skipped("the steps that are to be cached run as root")
    with tempfile.TemporaryDirectory(prefix="kiln-instructions-") as work:
        callgrind, project = Callgrind(work), Project(work, kiln, registry())
        project.fill()
        # How many threads there are, and which of them meet, depends on the number of processors.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        runs = [callgrind.count(project, number) for number in range(options.runs)]
        profile = os.path.basename(os.path.dirname(kiln))
        middle, out = statistics.median_low(runs)
        compare(profile, [count for count, _ in runs], lambda: callgrind.most(out))
        if options.record:
            record(profile, middle, callgrind.version)


if __name__ == "__main__":
    try:
        main()
    except Skipped as why:
        print(f"instructions of the no-op build: skipped: {why}")
