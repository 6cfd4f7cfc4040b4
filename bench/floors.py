"""What the kernel, the disk or the program in the step take for the same work without a builder, measured in the same run."""

import json
import os
import shlex
import subprocess
import tarfile

from room import ROOT


class Floors:
    """Takes the time of plain commands on this machine."""

    def __init__(self, bench):
        self.bench = bench

    def take(self, row, what, script, divide=1):
        """One `sh` script, timed as builds are."""
        os.sync()
        measured = self.bench.here.measure([["sh", "-euc", script]], self.bench.log)
        self.bench.floor(row, what, measured.seconds / divide)

    def copied(self, row, source, what=None):
        """`cp` of a tree or a file, without links or reflinks."""
        self.take(row, what or "`cp -a` of the same files", shlex.join(["cp", "-a", "--reflink=never", source, self.bench.path("floor")]))

    def looked_at(self, row, source):
        self.take(row, "`find` that looks at every file's size and time", shlex.join(["find", source, "-newermt", "2100-01-01", "-size", "+1G"]))

    def in_root(self, row, what, root, script, divide=1):
        """A script run by `chroot` in an overlay of a tree, so that what it writes lands on the same disk in the same way."""
        top = self.bench.path("floor")
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{top}/{name}")
        mounts = (f"mount -t overlay overlay -o lowerdir={root},upperdir={top}/upper,workdir={top}/work {top}/merged; "
                  f"mount -t proc proc {top}/merged/proc; mount --rbind /dev {top}/merged/dev; ")
        inside = f"env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot {top}/merged /bin/sh -c {shlex.quote(script)}"
        self.take(row, what, shlex.join(["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-euc", mounts + inside]), divide)

    def mounts(self, row, what, root, times):
        """An overlay mounted, a program run in it by `chroot`, and unmounted, by one shell whose commands are built in."""
        top = self.bench.path("floor")
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{top}/{name}")
        busybox = f"{root}/bin/busybox"
        turn = (f"mount -t overlay -o lowerdir={root},upperdir={top}/upper,workdir={top}/work overlay {top}/merged; "
                f"chroot {top}/merged /bin/true; umount {top}/merged; ")
        loop = f"i=0; while [ $i -lt {times} ]; do {turn} i=$((i+1)); done"
        self.take(row, what, shlex.join(["unshare", "--mount", "--propagation", "private", busybox, "sh", "-euc", loop]), times)


def base_root(bench, name):
    """The tree of a base image, from its layout under KILN_BASES, with nothing of kiln: a directory."""
    layout, top = os.path.join(bench.options.bases, name, "oci"), bench.path(f"root-{name}")
    os.makedirs(top)

    def blob(descriptor):
        return os.path.join(layout, "blobs", *descriptor["digest"].split(":"))

    with open(os.path.join(layout, "index.json")) as file:
        manifest = json.load(file)["manifests"][0]
    with open(blob(manifest)) as file:
        layers = json.load(file)["layers"]
    for layer in layers:
        with tarfile.open(blob(layer)) as tar:
            gone = [member for member in tar.getnames() if os.path.basename(member).startswith(".wh.")]
        subprocess.run(["tar", "-xf", blob(layer), "-C", top, "--exclude=.wh.*"], check=True)
        for name_of in gone:
            parent, base = os.path.split(name_of)
            bench.remove(os.path.join(top, parent, base.removeprefix(".wh.")))
    for name_of in ("proc", "dev"):
        os.makedirs(os.path.join(top, name_of), exist_ok=True)
    return top


def bases():
    """Where scripts/bases.sh keeps what it makes."""
    cache = os.environ.get("KILN_CACHE", os.path.join(ROOT, ".cache"))
    return os.environ.get("KILN_BASES", os.path.join(cache, "bases"))
