#!/usr/bin/env python3
"""Damages the ground kiln stands on, and looks that no wrong image comes of it.

    damage.py rot [N]     flips a bit in each of N random files of the state directory, one at a time (100)
    damage.py full        builds on small disks, with too few bytes or too few inodes (needs root)
    damage.py cap [N]     N builds that always add something, four at a time, under a cap of 100 MiB (1000)

--kiln names the binary, --seed makes the choices of an earlier run. Prints figures. Exit code: 0 all was right, 1 something
was not, 3 when it cannot be tried.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20
DOCKERFILE = """FROM busybox AS made
RUN i=0; while [ $i -lt 40 ]; do i=$((i+1)); seq 1 2000 >/f$i; done; mkdir /made && mv /f* /made
FROM busybox
COPY . /src
COPY --from=made /made /made
RUN --mount=type=cache,target=/cache cat /src/* | sha256sum >/sum; dd if=/dev/zero of=/zeros bs=65536 count=320
CMD ["cat", "/sum"]
"""


class Kiln:
    """A kiln with a state directory and a context of its own."""

    def __init__(self, binary, work, state):
        self.binary, self.work, self.state = binary, work, state
        self.context = os.path.join(work, "context")
        self.environment = dict(os.environ, DOCKER_CONFIG=os.path.join(work, "docker"), KILN_GC="off")

    def run(self, *words, cwd=None, state=None):
        command = [self.binary, "--state", state or self.state, *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=cwd, timeout=300)

    def prepare(self):
        """A base image of busybox, and a context."""
        base = os.path.join(self.work, "base")
        os.makedirs(base)
        shutil.copy(shutil.which("busybox"), os.path.join(base, "busybox"))
        with open(os.path.join(base, "Dockerfile"), "w") as file:
            file.write('FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n')
        must(self.run("build", "-q", "-t", "busybox", base))
        os.makedirs(self.context)
        for number in range(50):
            with open(os.path.join(self.context, f"f{number}"), "w") as file:
                file.write(f"file {number}\n" * (number + 1))
        with open(os.path.join(self.context, "Dockerfile"), "w") as file:
            file.write(DOCKERFILE)

    def build(self):
        """Builds an archive; its files' digest with the answer, or None."""
        out = os.path.join(self.work, "out.tar")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(out)
        done = self.run("build", "-t", "app", "-o", f"type=docker,dest={out}", self.context)
        return done, image_files(out) if done.returncode == 0 else None


def must(done):
    if done.returncode:
        sys.exit(f"error: {' '.join(done.args)}\n{done.stdout}{done.stderr}")


def image_files(archive):
    """What counts of an image: its layers' entries without their times, and what is in them."""
    digest = hashlib.sha256()
    with tarfile.open(archive) as image:
        manifest = json.load(image.extractfile("manifest.json"))[0]
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer), mode="r:*") as files:
                for entry in files:
                    digest.update(f"{entry.name} {entry.mode} {entry.uid} {entry.size} {entry.linkname}\n".encode())
                    if entry.isfile():
                        digest.update(files.extractfile(entry).read())
    return digest.hexdigest()


def rot(kiln, count):
    kiln.prepare()
    done, golden = kiln.build()
    must(done)
    whole = kiln.state + ".whole"
    shutil.move(kiln.state, whole)
    files = [os.path.join(at, name) for at, _, names in os.walk(whole) for name in names]
    files = [name for name in files if os.path.isfile(name) and not os.path.islink(name) and os.path.getsize(name)]
    kinds = {}
    for name in files:
        kinds.setdefault(os.path.relpath(name, whole).split(os.sep)[0], []).append(name)
    figures = {"right": 0, "named errors": 0, "right the second time": 0, "wrong": 0, "panics": 0, "not repaired": 0}
    for turn in range(count):
        # A kind first: there are many more files in layers than of anything else.
        chosen = os.path.relpath(random.choice(kinds[random.choice(sorted(kinds))]), whole)
        shutil.rmtree(kiln.state, ignore_errors=True)
        subprocess.run(["cp", "-a", whole, kiln.state], check=True)
        name = os.path.join(kiln.state, chosen)
        at = random.randrange(os.path.getsize(name))
        flip(name, at)
        done, made = kiln.build()
        what = f"{turn}: byte {at} of {chosen}"
        if done.returncode in (70, 101, -6, -11):
            tell(figures, "panics", what, done)
        elif done.returncode == 0:
            tell(figures, "right" if made == golden else "wrong", what, done)
            continue
        else:
            tell(figures, "named errors", what, done)
        done, made = kiln.build()
        if made == golden:
            figures["right the second time"] += 1
            continue
        repaired = kiln.run("fsck", "--repair", "--deep")
        done, made = kiln.build()
        if made is None and "busybox" in done.stderr:
            # The base image had no other source than this state directory: repairing could only take it out.
            must(kiln.run("build", "-q", "-t", "busybox", os.path.join(kiln.work, "base")))
            done, made = kiln.build()
        if made != golden:
            tell(figures, "not repaired", f"{what}: {repaired.stdout}{repaired.stderr}", done)
    return figures, ("wrong", "panics", "not repaired")


def tell(figures, kind, what, done):
    figures[kind] += 1
    if kind != "right":
        last = (done.stderr.strip() or "nothing said").splitlines()
        print(f"{kind}: {what}\n    exit {done.returncode}: " + "\n    ".join(last[-4:]), flush=True)


def flip(name, at):
    with open(name, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << random.randrange(8))]))


def full(kiln, _count):
    """Each disk is smaller than the next; on all, the build is right or says that there is no space, and then prune helps."""
    if os.geteuid():
        sys.exit(3)
    kiln.prepare()
    done, golden = kiln.build()
    must(done)
    base = os.path.join(kiln.work, "base")
    figures = {"right": 0, "no space": 0, "wrong": 0, "other errors": 0, "not usable afterwards": 0}
    disks = [(size, []) for size in range(4, 104, 4)] + [(300, ["-N", str(inodes)]) for inodes in (64, 200, 300, 600)]
    for size, options in disks:
        what = f"a disk of {size} MiB {' '.join(options)}"
        with disk(kiln.work, size, options) as place:
            small = Kiln(kiln.binary, kiln.work, os.path.join(place, "state"))
            small.context = kiln.context
            first = small.run("build", "-q", "-t", "busybox", base)
            done, made = small.build() if first.returncode == 0 else (first, None)
            if made:
                tell(figures, "right" if made == golden else "wrong", what, done)
                continue
            tell(figures, "no space" if done.returncode == 3 and "space" in done.stderr else "other errors", what, done)
            filled = fill(place)
            pruned = small.run("prune", "-af") if os.path.exists(os.path.join(small.state, "kiln.db")) else None
            os.unlink(filled)
            if pruned and pruned.returncode:
                tell(figures, "not usable afterwards", what, pruned)
            # On more space, what is there is of use or gone.
            moved = os.path.join(kiln.work, "moved")
            shutil.rmtree(moved, ignore_errors=True)
            subprocess.run(["cp", "-a", small.state, moved], check=False)
            small.state = moved
            must(small.run("build", "-q", "-t", "busybox", base))
            done, made = small.build()
            if made != golden:
                tell(figures, "not usable afterwards", what, done)
    return figures, ("wrong", "other errors", "not usable afterwards")


@contextlib.contextmanager
def disk(work, size, options):
    """A small ext4."""
    image, place = os.path.join(work, "disk"), os.path.join(work, "mounted")
    os.makedirs(place, exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(size * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", *options, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place):
    name = os.path.join(place, "filler")
    with open(name, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return name


def cap(kiln, count):
    """What builds add is taken away again, and none of them misses anything."""
    kiln.prepare()
    kiln.environment.update(KILN_GC="on", KILN_GC_MAX_USED_SPACE="100m")
    text = "FROM busybox\nARG N\nRUN echo $N >/n && head -c 3000000 /dev/urandom >/noise\nRUN cp /n /m && cat /m\n"
    with open(os.path.join(kiln.context, "Dockerfile"), "w") as file:
        file.write(text)
    figures = {"builds": 0, "failed": 0, "most MiB": 0, "in the end MiB": 0}

    def build(number):
        return kiln.run("build", "-q", "--build-arg", f"N={number}", kiln.context)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for number, done in enumerate(pool.map(build, range(count))):
            figures["builds"] += 1
            if done.returncode:
                tell(figures, "failed", f"build {number}", done)
            if number % 20 == 19:
                figures["most MiB"] = max(figures["most MiB"], used(kiln.state))
    figures["in the end MiB"] = used(kiln.state)
    # Four builds at once may each have added a layer that none of them has weighed yet.
    if figures["most MiB"] > 130 or figures["in the end MiB"] > 105:
        figures["failed"] += 1
    must(kiln.run("fsck", "--deep"))
    return figures, ("failed",)


def used(state):
    return int(subprocess.run(["du", "-s", "-B1M", state], capture_output=True, text=True).stdout.split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rot", "full", "cap"])
    parser.add_argument("count", type=int, nargs="?")
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/release/kiln"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    if not os.access(options.kiln, os.X_OK) or not shutil.which("busybox"):
        print("error: there is no kiln to try, or no busybox: run `cargo build --release`, or give --kiln", file=sys.stderr)
        return 3
    random.seed(options.seed)
    cases = {"rot": (rot, 100), "full": (full, 0), "cap": (cap, 1000)}
    case, count = cases[options.what]
    with tempfile.TemporaryDirectory(prefix="kiln-damage-") as work:
        kiln = Kiln(os.path.abspath(options.kiln), work, os.path.join(work, "state"))
        figures, bad = case(kiln, options.count or count)
    print(f"{options.what}, seed {options.seed}: " + ", ".join(f"{name} {figure}" for name, figure in figures.items()))
    return 1 if any(figures[name] for name in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
