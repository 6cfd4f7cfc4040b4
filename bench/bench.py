"""The work directory, the rooms, the builders that are open, the inputs and the numbers of one run."""

import contextlib
import functools
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import leftovers
from disk import Disk
from room import ROOT, Failed, Room, Wrong

INSIDE = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
MOST = 10 << 30  # bytes that the stores of one case may take before they are swept


class Bench:
    """What a case is given."""

    def __init__(self, options):
        self.options, self.rows, self.floors, self.notes, self.skipped, self.open = options, {}, {}, [], {}, []
        self.top, self.lock = leftovers.claim(options.work)
        self.count, self.is_over = 0, False
        self.here, self.tree, self.disk = Room(), None, None
        self.own, self.server, self.closed = None, None, []

    # --- begin and end of a case ---

    @contextlib.contextmanager
    def case(self, kinds):
        """Begins and finishes, whatever happens in between."""
        try:
            self.begin(kinds)
            yield
        except KeyboardInterrupt:
            self.abandon()
            raise
        finally:
            self.finish()

    def begin(self, kinds):
        """An empty work directory, and the rooms that see it."""
        self.count += 1
        self.work = os.path.join(self.top, f"case-{self.count}")
        if self.options.plain:
            os.mkdir(self.work)
        else:
            self.disk = Disk(self.work)
        self.log, self.free = os.path.join(self.work, "log"), shutil.disk_usage(self.work).free
        if not self.here.is_alive():
            self.here = Room()
        if any(kind.name != "kiln" for kind in kinds):
            self.tree = Room(shared=self.work)

    def finish(self):
        """Ends what runs, and removes what was made."""
        for builder in self.open:
            self.end(builder)
        self.open.clear()
        self.closed.clear()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        if self.own:
            self.own[0].terminate()
            self.own[0].wait()
            self.own = None
        if self.tree:
            tree, self.tree = self.tree, None
            tree.close()
        if self.disk:
            disk, self.disk = self.disk, None
            disk.close()
        else:
            self.remove(self.work)
        if not self.is_over:
            rest()

    def abandon(self):
        """Ends all that runs, after an interrupt."""
        self.is_over = True
        self.open.clear()
        for room in (self.here, self.tree):
            if room:
                room.abandon()

    def close(self):
        self.here.close()
        leftovers.remove(self.top)
        self.lock.close()

    # --- builders ---

    def room_of(self, kind):
        return self.here if kind.name == "kiln" else self.tree

    def cold(self, kind):
        """A builder with a brand-new, empty store."""
        made = kind(self, self.path("store"))
        self.open.append(made)
        return made

    def warm(self, kind, base="busybox"):
        """A builder with a brand-new store that has a base image in it, and nothing else."""
        made = self.cold(kind)
        made.run(made.build(self.context({"Dockerfile": f"FROM {self.base(base)}\nLABEL warm=yes\n"}), tag="warm"))
        return made

    def base(self, name="busybox"):
        tags = {"busybox": "latest", "python": "bookworm"}
        return f"{self.options.registry}/{name}:{tags[name]}"

    def discard(self, builder):
        """Removes a builder whose store is a few large files: nothing made after that is the slower for it."""
        self.open.remove(builder)
        builder.close()
        self.remove(builder.store)
        if self.disk:
            self.disk.trim()

    def has(self, kind):
        """Whether its programs are there."""
        if kind.name == "kiln":
            return os.access(self.options.kiln, os.X_OK)
        return all(any(os.access(os.path.join(self.options.peers_tree, at, program), os.X_OK) for at in INSIDE) for program in kind.programs)

    def settle(self, kept):
        """Ends the daemons of a turn; what they have written stays until it is swept."""
        for builder in [builder for builder in self.open if builder not in kept]:
            self.open.remove(builder)
            self.end(builder)
            self.closed.append(builder)

    def end(self, builder):
        try:
            builder.close()
        except Failed as error:
            print(f"  {builder.name}: {error}", file=sys.stderr)

    def sweep(self):
        """Removes the stores of ended turns when they take much of the disk; between rounds, never between builders."""
        free = shutil.disk_usage(self.work).free
        if self.free - free > MOST:
            self.remove(*(builder.store for builder in self.closed))
            self.closed.clear()
            if self.disk:
                self.disk.trim()
            rest()

    # --- inputs ---

    def path(self, what):
        self.count += 1
        return os.path.join(self.work, f"{what}-{self.count}")

    def context(self, files):
        """A directory with files; its name is unlike any other, since BuildKit remembers contexts by name, size and time."""
        top = self.path("context")
        for name, content in files.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return top

    def registries(self):
        return [self.options.registry, *([self.own[1]] if self.own else [])]

    def own_registry(self):
        """A registry whose blobs go away with the work directory; its address."""
        if not self.own:
            address, top = f"127.0.0.1:{free_port()}", self.path("registry")
            os.makedirs(top)
            with open(f"{top}/config.yml", "w") as file:
                file.write(f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {top}/data}}}}\nhttp: {{addr: '{address}'}}\n")
            with open(f"{top}/log", "w") as log:
                process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve", f"{top}/config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            wait_for(address)
            self.own = process, address
        return self.own[1]

    def serve(self, directory):
        """Serves a directory on loopback; the address."""
        serving = functools.partial(Quiet, directory=directory)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serving)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{self.server.server_port}"

    # --- measuring ---

    def time(self, builder, command, timeout=300, sample=False):
        os.sync()  # what others wrote is not this one's to wait for
        return builder.room.measure([command], builder.log, builder.env, builder.daemons, timeout, sample)

    def time_many(self, builder, commands, timeout=300):
        os.sync()
        return builder.room.measure(commands, builder.log, builder.env, builder.daemons, timeout, sample=True)

    def note(self, row, builder, measured, divide=1, less=0.0):
        entry = self.rows.setdefault(row, {}).setdefault(builder.name, {"seconds": [], "memory": 0})
        entry["seconds"].append(round(max(measured.seconds - less, 0) / divide, 5))
        for field in ("memory", "files", "together"):
            value = getattr(measured, field)
            if value is not None:
                entry[field] = max(entry.get(field, 0), round(value))

    def floor(self, row, what, seconds):
        entry = self.floors.setdefault(row, {"what": what, "seconds": []})
        entry["seconds"].append(round(seconds, 5))

    def failed(self, rows, name, why, is_wrong=False):
        """Says that a builder could not do something; what it has not measured by now is told as failed, and all if it is wrong."""
        print(f"  {name}: {why}", file=sys.stderr)
        for row in rows:
            entry = self.rows.setdefault(row, {}).setdefault(name, {"seconds": [], "memory": 0})
            if is_wrong:
                entry["seconds"].clear()
            if not entry["seconds"]:
                entry["failed"] = self.public(first_and_last(why))

    def skip(self, what, why):
        """Says that a builder, a case or a row is not measured."""
        if what not in self.skipped:
            print(f"skipped: {what}: {why}", file=sys.stderr)
            self.skipped[what] = self.public(why)

    def public(self, text):
        """Without where the work directory of this run is, and the clone."""
        return text.replace(self.top + os.sep, "").replace(ROOT + os.sep, "")

    def tell(self, row, text, name=""):
        """A remark below the table."""
        remark = {"row": row, "builder": name, "text": self.public(text)}
        if remark not in self.notes:
            self.notes.append(remark)

    def remove(self, *paths):
        for path in paths:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.lexists(path):
                os.remove(path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


def first_and_last(text):
    """The first and the last line of what something said, in one; of long lines the beginning and the end."""
    lines = text.strip().splitlines()
    return " … ".join(line if len(line) <= 200 else f"{line[:120]} … {line[-80:]}" for line in (lines[:1] + lines[-1:] if len(lines) > 1 else lines))


def expect(condition, claim):
    if not condition:
        raise Wrong(f"the result is wrong: not so that {claim}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address):
    host, port = address.split(":")
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    raise Failed(f"nothing answers at {address}")


def written():
    """Sectors written to all disks so far."""
    with open("/proc/diskstats") as file:
        return sum(int(line.split()[9]) for line in file)


def rest():
    """Waits until nothing is written for a second, at most a quarter of a minute."""
    os.sync()
    before = written()
    for _ in range(15):
        time.sleep(1)
        now = written()
        if now - before < 2000:
            return
        before = now
