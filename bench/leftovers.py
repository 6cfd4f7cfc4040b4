"""The directory of one run, and what runs before it have left when they were killed."""

import fcntl
import glob
import os
import shutil
import subprocess
import sys
import tempfile


def claim(work):
    """Makes a run's own directory below the work directory, and removes those of dead runs: its path, and the lock that it lives by."""
    with open(os.path.join(work, "lock"), "w") as all_runs:
        fcntl.flock(all_runs, fcntl.LOCK_EX)
        for top in sorted(glob.glob(os.path.join(glob.escape(work), "bench-*"))):
            if is_dead(top):
                print(f"removing what a run before this one has left: {top}", file=sys.stderr)
                remove(top)
        top = tempfile.mkdtemp(prefix="bench-", dir=work)
        lock = open(os.path.join(top, "lock"), "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return top, lock


def is_dead(top):
    """Whether nobody holds the lock of a run's directory; one without a lock is not known to be dead."""
    try:
        with open(os.path.join(top, "lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove(top):
    """Removes a run's directory with its mounts, loop devices and image files, however far it came."""
    images = glob.glob(os.path.join(glob.escape(top), "case-*.img"))
    for image in images:
        quietly("umount", "--lazy", image.removesuffix(".img"))
        for line in quietly("losetup", "--associated", image).splitlines():
            quietly("losetup", "--detach", line.split(":")[0])
    shutil.rmtree(top, ignore_errors=True)


def quietly(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    except OSError:
        return ""
