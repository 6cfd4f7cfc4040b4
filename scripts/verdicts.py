#!/usr/bin/env python3
"""Asks kiln what it thinks of Dockerfiles and compares that with what BuildKit was recorded to think.

    verdicts.py [--kiln target/debug/kiln] [KIND | KIND/NAME]...    compare
    verdicts.py --record [KIND | KIND/NAME]...                      ask the BuildKit of scripts/peers.sh (which must run)

The kinds are folders of crates/kiln/tests/differential: `refusals` (Dockerfiles nobody can build: is it refused, at which
line), `checks` (which rule warns at which lines) and `calls` (what `--call=outline` and `--call=targets` tell). What is
recorded lies in recorded/KIND.json; differences we accept stand with their reasons in accepted.json.
Exit code: 0 the same, 1 different, 3 when kiln is missing.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from builders import DIFFERENTIAL, ROOT, BuildKit, Kiln
from compare import RECORDED, Accepted

KINDS = ["refusals", "checks", "calls"]
CONTEXT = {"f": "f\n", "dir/x.log": "x\n", "ignored.txt": "i\n", ".dockerignore": "ignored.txt\n*/*.log\n"}


class Asked:
    """One builder, asked about one Dockerfile at a time."""

    def __init__(self, builder, work):
        self.builder, self.work = builder, work

    def context(self, kind, name):
        """A context of its own for each question, with the Dockerfile in it."""
        place = os.path.join(self.work, f"{kind}-{name}-{os.path.basename(self.work)}")
        for path, text in CONTEXT.items():
            os.makedirs(os.path.dirname(os.path.join(place, path)), exist_ok=True)
            with open(os.path.join(place, path), "w") as file:
                file.write(text)
        shutil.copy(source(kind, name), os.path.join(place, "Dockerfile"))
        return place

    def ask(self, place, *arguments):
        command = self.builder.command("-f", os.path.join(place, "Dockerfile"), *arguments, place)
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def refusals(self, name):
        """Is it refused, and at which line."""
        done = self.ask(self.context("refusals", name), "--progress", "plain", "--output", "type=cacheonly")
        if done.returncode not in (0, 1):
            raise RuntimeError(f"exit {done.returncode}: {done.stderr[-600:]}")
        return {"refused": done.returncode == 1, "line": error_line(done.stderr)}

    def checks(self, name):
        """The rules that warn and the lines they warn at, and where the build would fail."""
        found = self.call("checks", name, "check")
        warnings = [[w["ruleName"], span(w["location"].get("ranges", []))] for w in found.get("warnings") or []]
        error = found.get("buildError") or {}
        ranges = (error.get("location") or {}).get("ranges") or []
        return {"warnings": sorted(warnings), "fails": bool(error), "at": [r["start"]["line"] for r in ranges]}

    def calls(self, name):
        return {call: tidied(self.call("calls", name, call)) for call in ("outline", "targets")}

    def call(self, kind, name, call):
        done = self.ask(self.context(kind, name), f"--call={call},format=json")
        try:
            return json.loads(done.stdout[done.stdout.index("{"):])
        except ValueError:
            raise RuntimeError(f"exit {done.returncode}, no JSON: {done.stderr[-600:]}") from None


def span(ranges):
    """First and last line; BuildKit has a range for each line, kiln one for all."""
    lines = [at["line"] for place in ranges for at in (place["start"], place["end"])]
    return [min(lines), max(lines)] if lines else []


def error_line(text):
    """The line that an error is about: marked in BuildKit's excerpt, behind the path in kiln's."""
    marked = re.search(r"^ *(\d+) \| >>> ", text, re.M)
    placed = re.search(r"^error.*\n(?:.*\n)*? *--> .*Dockerfile:(\d+):", text, re.M)
    named = re.search(r"parse error on line (\d+)", text)
    found = marked or placed or named
    return int(found.group(1)) if found else None


def tidied(answer):
    """Without the Dockerfile itself, which BuildKit sends back."""
    return {key: value for key, value in answer.items() if key not in ("sources",)}


def source(kind, name):
    return os.path.join(DIFFERENTIAL, kind, f"{name}.Dockerfile")


def everything():
    return [(kind, file.removesuffix(".Dockerfile")) for kind in KINDS for file in sorted(os.listdir(os.path.join(DIFFERENTIAL, kind)))]


def read(kind):
    try:
        with open(os.path.join(RECORDED, f"{kind}.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def write(kind, verdicts):
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}" for name, value in sorted(verdicts.items()))
    with open(os.path.join(RECORDED, f"{kind}.json"), "w") as file:
        file.write("{\n" + rows + "\n}\n")


def record(names, work, builder):
    asked, by = Asked(builder, work), builder.describe()
    for kind in KINDS:
        verdicts = {"by": by} | {name: value for name, value in read(kind).items() if name != "by" and os.path.exists(source(kind, name))}
        for name in [name for of, name in names if of == kind]:
            verdicts[name] = getattr(asked, kind)(name)
        write(kind, verdicts)


def compare(names, work, kiln):
    asked, accepted, bad = Asked(kiln, work), Accepted("buildkit-verdict"), 0
    recorded = {kind: read(kind) for kind in KINDS}

    def verdict(item):
        try:
            return getattr(asked, item[0])(item[1])
        except RuntimeError as error:
            return {"failed": str(error)}

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (kind, name), ours in zip(names, pool.map(verdict, names)):
            theirs = recorded[kind].get(name, {})
            for field in sorted(set(ours) | set(theirs)):
                a, b = ours.get(field), theirs.get(field)
                # BuildKit does not always tell a place.
                is_same = a == b or (field == "line" and b is None)
                if not is_same and not accepted.covers(f"{kind}/{name}", kind, field):
                    bad += 1
                    print(f"  {kind}/{name}: {field}: kiln {a!r}, buildkit {b!r}")
    if names == everything():
        for rule in accepted.unused():
            print(f"  accepted.json: nothing differs any more: {rule}")
            bad += 1
    print(f"{len(names)} verdicts, {bad} unaccepted differences")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/debug/kiln"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if not options.record and not shutil.which(options.kiln):
        print(f"error: missing: {options.kiln}", file=sys.stderr)
        return 3
    names = [item for item in everything() if not options.names or item[0] in options.names or "/".join(item) in options.names]
    work = tempfile.mkdtemp(prefix="kiln-verdicts-")
    try:
        if options.record:
            return record(names, work, BuildKit(None))
        return compare(names, work, Kiln(options.kiln, os.path.join(work, "state")))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
