"""B6: a step upon an image that a registry has and the store has not; a push of what the registry has."""

import json
import os
import random
import subprocess
import tempfile

from bench import expect
from case import Case, Row
from room import ROOT

LAYERS = 10


def pack(layout, above, files):
    subprocess.run([os.path.join(ROOT, "scripts/pack_oci.py"), layout, "--tag", "latest", "--from", above, "--layer", files], check=True,
                   stdout=subprocess.DEVNULL)


def ten_layers(bench):
    """An image of ten layers of 80 MB, half noise and half text, in 1,500 files each; made once for a registry."""
    name = f"{bench.options.registry}/bench/ten-layers:1"
    if subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True).returncode == 0:
        return name
    noise = random.Random(6)
    with tempfile.TemporaryDirectory(dir=bench.work) as work:
        base = os.path.join(bench.options.bases, "busybox", "oci")
        for layer in range(LAYERS):
            for number in range(1500):
                path = f"{work}/files-{layer}/opt/layer{layer}/d{number % 50}/f{number}"
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(noise.randbytes(27_000) + b"%08d line of a file\n" % number * 1300)
            above = f"{work}/layout-{layer}"
            pack(above, base, f"{work}/files-{layer}")
            base = above
        subprocess.run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{base}:latest", f"docker://{name}"], check=True)
    return name


class Pulls(Case):
    name = "B6"
    rows = {"B6": Row("`RUN true` on ten layers of 80 MB at a registry, empty store", goal=3.5),
            "B6p": Row("a push of what the registry has", goal=0.05)}

    def prepare(self, bench):
        self.image = ten_layers(bench)
        self.context = bench.context({"Dockerfile": f"FROM {self.image}\nRUN true\n"})
        self.blobs = bench.path("blobs")
        subprocess.run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{self.image}", f"dir:{self.blobs}"], check=True)
        with open(f"{self.blobs}/manifest.json") as file:
            self.layers = [layer["digest"].split(":")[1] for layer in json.load(file)["layers"]]

    def floor(self, bench, floors):
        out = bench.path("floor")
        each = f"mkdir -p {out}/{{}}; tar -xzf {self.blobs}/{{}} -C {out}/{{}}"
        floors.take("B6", "`tar -xz` of the layers from files, two at a time", f"printf '%s\\n' {' '.join(self.layers)} | xargs -P2 -I{{}} sh -c '{each}'")
        repository = self.image.split("/", 1)[1].rsplit(":", 1)[0]
        addresses = " ".join(f"http://{bench.options.registry}/v2/{repository}/blobs/sha256:{layer}" for layer in self.layers)
        floors.take("B6p", "one `curl` that asks for each blob's size", f"curl -sfI --noproxy '*' {addresses} >/dev/null")

    def turn(self, bench, kind, number):
        builder = bench.cold(kind)
        bench.note("B6", builder, bench.time(builder, builder.build(self.context)))
        if number == 0:
            tree, config = builder.image(self.context)
            expect(len(config["rootfs"]["diff_ids"]) >= LAYERS + 1, "all layers of the base are there")
            expect(sum(1 for name in tree if name.startswith("opt/layer") and tree[name].kind == "file") == LAYERS * 1500, "all files are there")
        push = builder.push(f"{bench.options.registry}/bench/pushed-by-{builder.name}:1")
        if not push:
            bench.tell("B6p", "it pushes what it builds, and nothing else", kind.name)
        for again in range(3 if push else 0):
            measured = bench.time(builder, push)
            if again:
                bench.note("B6p", builder, measured)


CASES = [Pulls]
