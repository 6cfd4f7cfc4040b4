#!/usr/bin/env python3
"""Tells what a test run left behind: mounts, cgroups, namespaces, processes, temporary files.

    leaks.py snapshot FILE      before
    leaks.py compare FILE       after; exit code 1 and a list when something is left
"""

import json
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def processes():
    """Processes that are ours for sure: built here, or in a namespace of their own. `pid start-time` to a description."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        executable = link(f"/proc/{pid}/exe")
        apart = [kind for kind in ("mnt", "pid", "net") if link(f"/proc/{pid}/ns/{kind}") not in ("", link(f"/proc/self/ns/{kind}"))]
        if not apart and not executable.startswith(os.path.join(ROOT, "target") + os.sep):
            continue
        try:
            with open(f"/proc/{pid}/stat") as file:
                started = file.read().rsplit(")", 1)[1].split()[19]
            with open(f"/proc/{pid}/cmdline") as file:
                command = file.read().replace("\0", " ").strip()
        except OSError:
            continue
        found[f"{pid} {started}"] = f"process {pid}: {command or executable} {'in its own ' + ', '.join(apart) if apart else ''}"
    return found


def cgroups():
    """Those named after kiln, or below the one the tests run in: others on the machine make cgroups too."""
    with open("/proc/self/cgroup") as file:
        own = {line.strip().split(":", 2)[2] for line in file} - {"/"}
    paths = (path for path, _, _ in os.walk("/sys/fs/cgroup"))
    return [path for path in paths if "kiln" in path or any(f"{name}/" in path for name in own)]


def state():
    with open("/proc/self/mountinfo") as file:
        mounts = {f"{f[0]} {f[4]}": f"mount {f[4]}" for f in map(str.split, file)}
    names = {}
    for folder in ("/run/netns", "/run/docker/netns"):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            names[f"{folder}/{name}"] = f"network namespace {folder}/{name}"
    temporary = os.environ.get("TMPDIR", "")
    files = {name: f"temporary file {temporary}/{name}" for name in (os.listdir(temporary) if temporary else [])}
    return {"mounts": mounts, "cgroups": {path: f"cgroup {path}" for path in cgroups()}, "names": names, "files": files, "processes": processes()}


def left(before):
    after = state()
    return [after[kind][key] for kind in after for key in sorted(after[kind]) if key not in before[kind]]


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("snapshot", "compare"):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == "snapshot":
        with open(sys.argv[2], "w") as file:
            json.dump(state(), file)
        return 0
    with open(sys.argv[2]) as file:
        before = json.load(file)
    # What was just told to end may take a moment.
    for _ in range(20):
        found = left(before)
        if not found:
            return 0
        time.sleep(0.1)
    for line in found:
        print(f"left behind: {line}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
