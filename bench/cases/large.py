"""B4, B10: one GiB of noise and one of text: copied and exported; saved when it is cached; brought into docker."""

import hashlib
import json
import os
import random
import subprocess
import tarfile

from bench import expect
from case import Case, Row
from peers import Docker

PIECES = 1 << 8


def fill(context):
    """Writes `noise` and `text`; their digests."""
    noise = random.Random(4)
    common = ["".join(noise.choices("etaoinshrdlu", k=2 + rank % 9)) for rank in range(5000)]
    words = " ".join(noise.choices(common, weights=[1 / (rank + 1) for rank in range(5000)], k=1 << 18)).encode()
    # No two stretches that a compressor sees at once are alike.
    pieces = {"noise": (noise.randbytes(4 << 20) for _ in range(PIECES)),
              "text": (b"%012d " % turn + words[turn * 37 % len(words):] + words[:turn * 37 % len(words)]
                       for turn in range((1 << 30) // len(words)))}
    digests = {}
    for name, made in pieces.items():
        digest = hashlib.sha256()
        with open(os.path.join(context, name), "wb") as file:
            for piece in made:
                digest.update(piece)
                file.write(piece)
        digests[name] = digest.hexdigest()
    return digests


def large_files(archive):
    """The digests of `data/…` in an image archive, read as a stream: layers are tars, plain or gzip, inside of a tar."""
    found = {}
    with tarfile.open(archive) as outer:
        for member in outer:
            if not member.isreg() or member.size < 1 << 20:
                continue
            packed = outer.extractfile(member)
            command = ["gzip", "-dc"] if packed.read(2) == b"\x1f\x8b" else ["cat"]
            with open(archive, "rb") as raw, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inflate:
                raw.seek(member.offset_data)
                if not os.fork():
                    copy(raw, inflate.stdin, member.size)
                inflate.stdin.close()
                with tarfile.open(fileobj=inflate.stdout, mode="r|") as layer:
                    for entry in layer:
                        if entry.isreg():
                            found[entry.name.removeprefix("./")] = hashlib.file_digest(layer.extractfile(entry), "sha256").hexdigest()
                inflate.stdout.read()
            os.wait()
    return found


def copy(source, sink, size):
    """In a process of its own: a pipe is filled while another is read."""
    try:
        while size > 0 and (piece := source.read(min(size, 1 << 20))):
            sink.write(piece)
            size -= len(piece)
        sink.flush()
    finally:
        os._exit(0)


class Large(Case):
    """A context of two GiB."""

    disk = 35
    peer_turns = 1

    def prepare(self, bench):
        self.context = bench.context({"Dockerfile": "FROM scratch\nCOPY noise text /data/\n"})
        self.digests = fill(self.context)

    def check(self, archive):
        found = large_files(archive)
        for name, digest in self.digests.items():
            expect(found.get(f"data/{name}") == digest, f"{name} is in the archive")

    def copied(self, bench, floors, row):
        copy = bench.path("floor")
        floors.take(row, "`cp` of the same bytes", f"mkdir {copy}; cp --reflink=never {self.context}/noise {self.context}/text {copy}")
        bench.remove(copy)


class Exports(Large):
    name = "B4"
    rows = {"B4": Row("`COPY` of 1 GiB of noise and 1 GiB of text on a new store, as a gzip OCI archive", goal=9, memory=150)}

    def floor(self, bench, floors):
        self.copied(bench, floors, "B4")

    def turn(self, bench, kind, number):
        builder, out = bench.cold(kind), bench.path("archive")
        bench.note("B4", builder, bench.time(builder, builder.archive(self.context, out)))
        bench.tell("B4", f"its archive has {os.path.getsize(out) / (1 << 30):.2f} GiB", kind.name)
        if number == 0:
            self.check(out)
        bench.remove(out)
        bench.discard(builder)


class Saves(Large):
    name = "B10"
    rows = {"B10": Row("`save` of that image, cached, for `docker load`", memory=150),
            "B10l": Row("`--load` of that image, cached, into a docker that has nothing", memory=150)}

    def floor(self, bench, floors):
        self.copied(bench, floors, "B10")
        self.copied(bench, floors, "B10l")

    def turn(self, bench, kind, number):
        builder, out = bench.cold(kind), bench.path("archive")
        builder.run(builder.build(self.context))
        bench.note("B10", builder, bench.time(builder, builder.save(self.context, out)))
        if number == 0:
            self.check(out)
        bench.remove(out)
        if kind.is_loaded:
            bench.tell("B10l", "what it builds is there already", kind.name)
        elif bench.tree and bench.has(Docker):
            self.load(bench, builder)
        else:
            bench.skip("B10l", "there is no docker to load into: another builder than kiln has to be measured, and dockerd be in the tree")
        bench.discard(builder)

    def load(self, bench, builder):
        docker = bench.cold(Docker)
        bench.note("B10l", builder, bench.time(builder, builder.load(self.context, docker)))
        names = [name for name in docker.run(["docker", "image", "ls", "--format", "{{.Repository}}"]).split() if name.endswith("bench")]
        expect(names, "docker has the image")
        config = json.loads(docker.run(["docker", "image", "inspect", names[0]]))[0]
        expect(len(config["RootFS"]["Layers"]) == 1, "docker's image has one layer")
        bench.discard(docker)


CASES = [Exports, Saves]
