#!/usr/bin/env python3
"""Measures whole builds: kiln, and the builders of scripts/peers.sh, in turn.

    bench/run.py [--only B1,B3] [--builders kiln,docker] [--runs 3] [--publish]

Needs root, the bases busybox and python (scripts/bases.sh) with their registry, and for the others a tree
(scripts/peers.sh setup). What is absent is skipped, and said. bench/README.md tells what is measured and how.
Results go to bench/results/; with --publish also to docs/performance.{md,svg,json}, which are compared with before.
Exit code: 0 measured, 1 kiln failed or made something wrong, 2 usage, 3 something is missing,
130 interrupted.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import page  # noqa: E402
from bench import Bench  # noqa: E402
from cases import CASES  # noqa: E402
from floors import Floors, bases  # noqa: E402
from peers import BUILDERS, images  # noqa: E402
from room import ROOT, Failed, Wrong  # noqa: E402


INSIDE = "KILN_BENCH_INSIDE"
PATIENCE = 100  # seconds; a case that has taken longer has further rounds with kiln alone


def machine():
    with open("/proc/meminfo") as file:
        memory = round(int(file.readline().split()[1]) / (1 << 20))
    return f"{os.cpu_count()} cores, {memory} GiB, Linux {platform.release().split('-')[0]}"


def choose(bench, wanted):
    """The builders that are there, and why others are not."""
    kinds, skipped = [], {}
    for kind in BUILDERS:
        if kind.name not in wanted:
            skipped[kind.name] = "not asked for"
        elif kind.name != "kiln" and os.geteuid() != 0:
            skipped[kind.name] = "its name spaces need root"
        elif not bench.has(kind):
            where = bench.options.kiln if kind.name == "kiln" else "the tree of scripts/peers.sh"
            skipped[kind.name] = f"not all of {', '.join(kind.programs) or 'it'} is in {where}"
        else:
            kinds.append(kind)
    return kinds, skipped


def run_case(bench, case, kinds, runs):
    """All turns of a case; the names of builders that failed."""
    failed, floors = set(), Floors(bench)
    try:
        case.prepare(bench)
    except subprocess.CalledProcessError as error:
        bench.skipped[case.name] = f"its inputs cannot be made: {error}"
        print(f"skipped: {case.name}: {bench.skipped[case.name]}", file=sys.stderr)
        return failed
    started, late = time.monotonic(), False
    for number in range(runs):
        case.floor(bench, floors)
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            is_enough = number > 0 and kind.name != "kiln" and (number >= (case.peer_turns or runs) or late)
            if kind.name in failed or is_enough:
                continue
            try:
                case.turn(bench, kind, number)
            except (Failed, ValueError, KeyError, tarfile.TarError, EOFError) as error:
                # All but `Failed` come from an image that cannot be read.
                failed.add(kind.name)
                told = str(error) if isinstance(error, Failed) else f"its image is broken: {error!r}"
                bench.failed(case.rows, kind.name, told, is_wrong=isinstance(error, Wrong) or not isinstance(error, Failed))
            ready = [value[0] if isinstance(value, tuple) else value for value in case.ready.values()]
            bench.settle(ready)
        bench.sweep()
        late = time.monotonic() - started > PATIENCE
    case.finish(bench)
    return failed


def arguments():
    cache = os.environ.get("KILN_CACHE", os.path.join(ROOT, ".cache"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/release/kiln"))
    parser.add_argument("--registry", help="its address, by default that of scripts/registry.sh")
    parser.add_argument("--only", help="cases: B3, B14 for all that begin with it; by default all")
    parser.add_argument("--builders", default=",".join(kind.name for kind in BUILDERS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", default=os.path.join(cache, "bench"), help="where stores and contexts go; 35 GiB")
    parser.add_argument("--plain", action="store_true", help="in the work directory itself, without a filesystem for each case")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.*, too")
    options = parser.parse_args()
    options.plain |= os.geteuid() != 0
    options.kiln, options.work = os.path.abspath(options.kiln), os.path.abspath(options.work)
    options.bases, options.inputs, options.peers_tree = bases(), os.path.join(options.work, "inputs"), os.path.join(cache, "peers/tree")
    return options


def selected(only):
    if not only:
        return CASES
    wanted = only.split(",")
    known = {part for kind in CASES for part in (kind.name, kind.name.split("-")[0])}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"error: no case `{unknown[0]}`; there are {', '.join(sorted(known))}", file=sys.stderr)
        sys.exit(2)
    # `B14` stands for all of its counts, stages too.
    return [kind for kind in CASES if kind.name in wanted or kind.name.split("-")[0].rstrip("s") in wanted or kind.name.split("-")[0] in wanted]


def main():
    options = arguments()
    cases = selected(options.only)
    if not options.plain and INSIDE not in os.environ:
        # Mounts of a name space of ours end with us, however we end.
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe(command[0], command, dict(os.environ, **{INSIDE: "1"}))
    if not options.registry:
        script = os.path.join(ROOT, "scripts/registry.sh")
        options.registry = subprocess.run([script, "start"], capture_output=True, text=True, check=True).stdout.strip()
    bench = Bench(options)
    try:
        kinds, bench.skipped = choose(bench, options.builders.split(","))
        for name, why in bench.skipped.items():
            print(f"skipped: {name}: {why}", file=sys.stderr)
        if not kinds:
            print("error: none of the builders is here; build kiln with `cargo build --release`", file=sys.stderr)
            return 3
        bench.begin(kinds)
        versions = {kind.name: kind.version(bench) for kind in kinds}
        bench.finish()
        print(f"{machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}", file=sys.stderr)
        name = os.path.join(ROOT, "bench/results", time.strftime("%Y-%m-%dT%H-%M-%S"))
        began, broken = time.monotonic(), set()
        for kind in cases:
            case, started = kind(), time.monotonic()
            print(f"{case.name} …", file=sys.stderr)
            bench.begin(kinds)
            try:
                broken |= run_case(bench, case, kinds, options.runs)
            except KeyboardInterrupt:
                bench.abandon()
                raise
            finally:
                bench.finish()
            images.LAYERS.clear()
            results = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "runs": options.runs, "versions": versions,
                       "skipped": bench.skipped, "minutes": round((time.monotonic() - began) / 60), "rows": bench.rows,
                       "floors": bench.floors, "notes": bench.notes}
            keep(results, name)  # what has been measured is not lost when a later case is
            print(f"{case.name} took {time.monotonic() - started:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except Failed as error:
        print(f"error: {error}\nhint: `--plain` does without filesystems in files", file=sys.stderr)
        return 3
    finally:
        bench.close()
    tell(results, name, options.publish)
    return 1 if "kiln" in broken else 0


def keep(results, name):
    with open(name + ".json", "w") as file:
        json.dump(results, file, indent=1)


def tell(results, name, publish):
    """Prints the tables, and writes them down."""
    rows = {row: meaning for kind in CASES for row, meaning in kind.rows.items()}
    before = page.published()
    if publish:
        page.publish(rows, page.joined(before, results), before)
    text = page.generated(rows, results, before, chart=None)
    with open(name + ".md", "w") as file:
        file.write(text)
    print(text)
    print(f"written to {os.path.relpath(name)}.json and .md" + (" and docs/performance.*" if publish else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
