#!/usr/bin/env python3
"""Measures whole builds: kiln, and the builders of scripts/peers.sh, in turn.

    bench/run.py [--only B1,B3] [--builders kiln,docker] [--runs 3] [--publish]

Needs root, the bases busybox and python (scripts/bases.sh) with their registry, and for the others a tree
(scripts/peers.sh setup). What is absent is skipped, and said. scripts/bench.sh does all of that before.
bench/README.md tells what is measured and how. Results go to bench/results/; with --publish also to
docs/performance.{md,svg,json}, which are compared with before.
Exit code: 0 measured, 1 kiln failed or made something wrong, 2 usage, 3 something is missing, 130 interrupted.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import options as asked  # noqa: E402
import page  # noqa: E402
from bench import Bench, first_and_last  # noqa: E402
from cases import CASES  # noqa: E402
from floors import Floors  # noqa: E402
from peers import BUILDERS, images  # noqa: E402
from room import ROOT, Failed, Wrong  # noqa: E402


INSIDE = "KILN_BENCH_INSIDE"
PATIENCE = 100  # seconds; a case that has taken longer has further rounds with kiln alone
QUIET = 0.1  # the share of the processors that others may take without a word
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(*_):
    # The first one counts: what follows is clean-up.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def machine():
    with open("/proc/meminfo") as file:
        memory = round(int(file.readline().split()[1]) / (1 << 20))
    return f"{os.cpu_count()} cores, {memory} GiB, Linux {platform.release().split('-')[0]}"


def busy(seconds=2):
    """The share of the processors' time that others take (proc_stat(5))."""
    def look():
        with open("/proc/stat") as file:
            times = [int(field) for field in file.readline().split()[1:9]]
        return sum(times), times[3] + times[4]
    all_before, idle_before = look()
    time.sleep(seconds)
    all_now, idle_now = look()
    return 1 - (idle_now - idle_before) / max(all_now - all_before, 1)


def choose(bench, wanted):
    """The builders that are there, and why others are not."""
    kinds, skipped = [], {}
    for kind in BUILDERS:
        if kind.name not in wanted:
            skipped[kind.name] = page.NOT_ASKED
        elif not bench.has(kind):
            where = bench.options.kiln if kind.name == "kiln" else "the tree of scripts/peers.sh"
            skipped[kind.name] = f"not all of {', '.join(kind.programs) or 'it'} is in {where}"
        else:
            kinds.append(kind)
    return kinds, skipped


def versions_of(bench, kinds):
    """The version of each builder; who cannot tell it is skipped."""
    versions = {}
    with bench.case(kinds):
        for kind in list(kinds):
            try:
                versions[kind.name] = kind.version(bench)
            except (Failed, OSError, ValueError, IndexError) as error:
                kinds.remove(kind)
                bench.skip(kind.name, f"it does not say its version: {first_and_last(str(error))}")
    if "kiln" in versions:
        versions["kiln"] += f" ({asked.built_from(bench.options.kiln)})"
    return versions


def run_case(bench, case, kinds, runs):
    """All turns of a case; the names of builders that failed."""
    failed, floors, has_floor = set(), Floors(bench), True
    try:
        case.prepare(bench)
    except Exception as error:  # whatever it is, the other cases go on
        bench.skip(case.name, f"its inputs cannot be made: {first_and_last(str(error) or repr(error))}")
        return failed
    started, late = time.monotonic(), False
    for number in range(runs):
        try:
            if has_floor:
                case.floor(bench, floors)
        except Exception as error:
            has_floor = False
            told = f"the floor cannot be taken: {first_and_last(str(error) or repr(error))}"
            print(f"  {told}", file=sys.stderr)
            bench.tell(next(iter(case.rows)), told)
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            is_enough = number > 0 and kind.name != "kiln" and (number >= (case.peer_turns or runs) or late)
            if kind.name in failed or is_enough:
                continue
            try:
                case.turn(bench, kind, number)
            except Exception as error:
                failed.add(kind.name)
                is_told = isinstance(error, (Failed, OSError, subprocess.SubprocessError))
                # All others come from an image that cannot be read.
                told = str(error) if is_told else f"its image is broken: {error!r}"
                bench.failed(case.rows, kind.name, told, is_wrong=isinstance(error, Wrong) or not is_told)
            ready = [value[0] if isinstance(value, tuple) else value for value in case.ready.values()]
            bench.settle(ready)
        bench.sweep()
        late = time.monotonic() - started > PATIENCE
    case.finish(bench)
    return failed


REGISTRY = os.path.join(ROOT, "scripts/registry.sh")


def registry():
    """The address of the project's own registry, which is started if it does not run."""
    done = subprocess.run([REGISTRY, "start"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed("the registry does not start: see above; --registry names another")
    return done.stdout.strip()


def main():
    options = asked.complete(asked.parser(__doc__, [kind.name for kind in BUILDERS]).parse_args())
    for number in SIGNALS:
        signal.signal(number, interrupted)
    is_ours = False
    try:
        cases = asked.selected(options.only, CASES)
        names = asked.wanted(options.builders, [kind.name for kind in BUILDERS])
        asked.check_words(options)
        if options.check:
            return 0
        asked.check(options, cases, names)
        if not options.plain and INSIDE not in os.environ:
            # Mounts of a name space of ours end with us, however we end.
            command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
            os.execvpe(command[0], command, dict(os.environ, **{INSIDE: "1"}))
        if not options.registry:
            is_ours = subprocess.run([REGISTRY, "status"], stdout=subprocess.DEVNULL).returncode != 0
            options.registry = registry()
        asked.check_bases(options)
        return measure(options, cases, names)
    except asked.Usage as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Failed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted; nothing is finished", file=sys.stderr)
        return 130
    finally:
        if is_ours:
            subprocess.run([REGISTRY, "stop"], check=False)


def measure(options, cases, names):
    """All cases, one after another; the exit code."""
    name = os.path.join(ROOT, "bench/results", time.strftime("%Y-%m-%dT%H-%M-%S"))
    bench, results = Bench(options), None
    try:
        kinds, bench.skipped = choose(bench, names)
        for kind, why in bench.skipped.items():
            print(f"skipped: {kind}: {why}", file=sys.stderr)
        versions = versions_of(bench, kinds)
        if not kinds:
            raise Failed("none of the builders can be measured")
        share = busy()
        if share > QUIET:
            print(f"warning: something else takes {share:.0%} of the processors: times will be too long", file=sys.stderr)
            bench.tell("all", f"something else took {share:.0%} of the processors when the run began")
        print(f"{machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}", file=sys.stderr)
        began, broken = time.monotonic(), set()
        for kind in cases:
            case, started = kind(), time.monotonic()
            print(f"{case.name} …", file=sys.stderr)
            try:
                with bench.case(kinds):
                    broken |= run_case(bench, case, kinds, options.runs)
            except (Failed, OSError) as error:
                bench.skip(case.name, f"its work directory cannot be made or removed: {first_and_last(str(error))}")
            images.LAYERS.clear()
            results = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "runs": options.runs, "versions": versions,
                       "skipped": bench.skipped, "minutes": round((time.monotonic() - began) / 60), "rows": bench.rows,
                       "floors": bench.floors, "notes": bench.notes}
            keep(results, name)  # what has been measured is not lost when a later case is
            print(f"{case.name} took {time.monotonic() - started:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"interrupted; finished cases are in {os.path.relpath(name)}.json" if results else "interrupted; nothing is finished", file=sys.stderr)
        return 130
    finally:
        bench.close()
    if not bench.rows:
        raise Failed("nothing could be measured; why is told above")
    if options.publish and "kiln" in broken:
        print("not published: kiln failed, see above; the page stays as it was", file=sys.stderr)
    tell(results, name, options.publish and "kiln" not in broken)
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
