#!/usr/bin/env python3
"""Measures whole builds: kiln, and every other builder that is installed, in turn.

    bench/run.py [--kiln target/release/kiln] [--only B1,B3] [--builders kiln,buildah] [--runs 5] [--registry HOST:PORT]

Needs the busybox base (scripts/bases.sh busybox). Each result is read back and checked. A cold run gets a brand-new
store, a context has a name of its own, and nothing is deleted before the end: all three distort what comes after.
Writes bench/results/<time>.json and .md. Read ratios and minima; one machine's seconds are not another's.

B1   no-op rebuild of 12 instructions          B3b  one of them changed
B2   20 x `RUN true`, per step                 B3c  none changed
B3   COPY of 20,000 files of 2 KiB, cold       B5   four stages of `sleep 2`, then COPY from all
B7b  what `pip install` leaves is kept, one file of the application changed
B4   COPY of 1 GiB of noise and 1 GiB of text, to a gzip OCI archive; needs 8 GiB of disk a run
B6   FROM ten layers of 80 MB at the registry, `RUN true`, cold      B6p  a push of an image that is there already
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import builders  # noqa: E402  (buildah's set-up)
import images  # noqa: E402  (the reader of images)

GOALS = {"B1": 0.015, "B2": 0.010, "B3": 1.2, "B3b": 0.6, "B3c": 0.08, "B4": 9, "B5": 2.15, "B6": 3.5, "B6p": 0.05, "B7b": 0.03}  # seconds
MEMORY, MEMORY_BIG = 100, 150  # MiB, in every case; in those with layers of 1 GiB
BIG = {"B4"}
# Runs a command beside this process: what a child was before it became the command counts as its memory, too.
RUNNER = """
import json, os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
measured = [time.perf_counter() - started, os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024]
with os.fdopen(int(sys.argv[1]), "w") as told:
    json.dump(measured, told)
"""
UNITS = {"B2": "s a step"}
FILES, SIZE = 20_000, 2048


# --- builders: a new store, a timed build, the image read back --------------------------------------------------------

class Kiln:
    name = "kiln"

    def __init__(self, store, options):
        self.store, self.binary, self.exports = store, options.kiln, 0

    @staticmethod
    def present(options):
        return os.access(options.kiln, os.X_OK)

    def command(self, context):
        return [self.binary, "--state", self.store, "build", "--progress", "plain", "--network", "host", "-t", "bench", context]

    def archive(self, context, out):
        return self.command(context)[:-1] + ["-o", f"type=oci,dest={out}", context]

    def push(self, name):
        builders.run([self.binary, "--state", self.store, "tag", "bench", name])
        return [self.binary, "--state", self.store, "push", name]

    def environment(self):
        return os.environ

    def image(self, context):
        # A second name for what is cached, exported; not timed.
        self.exports += 1
        out = f"{self.store}-export-{self.exports}.tar"
        builders.run(self.archive(context, out))
        return read_archive(out)

    def close(self):
        pass


class Buildah:
    name = "buildah"

    def __init__(self, store, options):
        self.inner, self.store, self.exports = builders.Buildah(store, options.registry), store, 0

    @staticmethod
    def present(options):
        return bool(shutil.which("buildah") and shutil.which("runc"))

    def command(self, context):
        return ["buildah", "build", "--isolation", self.inner.isolation, "--layers", "--jobs", "4", "--network", "host",
                "--tls-verify=false", "-t", "bench", context]

    def archive(self, context, out):
        build = shlex.join(self.command(context))
        return ["sh", "-ec", f"{build}; exec buildah push --compression-format gzip bench oci-archive:{out}"]

    def push(self, name):
        return ["buildah", "push", "--tls-verify=false", "bench", f"docker://{name}"]

    def environment(self):
        return self.inner.env

    def image(self, context):
        self.exports += 1
        return self.inner.image("bench", f"{self.store}-export-{self.exports}")

    def close(self):
        self.inner.close()


class BuildKit:
    """buildctl with a buildkitd of our own, so that its store can be new."""
    name = "buildctl"

    def __init__(self, store, options):
        self.store, self.exports = store, 0
        os.makedirs(store)
        config = os.path.join(store, "buildkitd.toml")
        with open(config, "w") as file:
            file.write(f'[registry."{options.registry}"]\n  http = true\n')
        self.address = f"unix://{store}/socket"
        self.daemon = subprocess.Popen(["buildkitd", "--config", config, "--root", f"{store}/root", "--addr", self.address],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            if subprocess.run(["buildctl", "--addr", self.address, "debug", "workers"], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError("buildkitd does not answer")

    @staticmethod
    def present(options):
        return bool(shutil.which("buildctl") and shutil.which("buildkitd"))

    def command(self, context, output="type=image,name=bench"):
        return ["buildctl", "--addr", self.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local",
                f"context={context}", "--local", f"dockerfile={context}", "--output", output]

    def archive(self, context, out):
        return self.command(context, f"type=oci,dest={out}")

    def push(self, name):
        return None  # buildctl pushes what it builds, and nothing else

    def environment(self):
        return os.environ

    def image(self, context):
        self.exports += 1
        out = f"{self.store}-export-{self.exports}"
        builders.run(self.command(context, f"type=oci,tar=false,dest={out}"))
        return images.read_oci(out)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()


class Docker:
    """docker with the daemon that runs. Its store is emptied between cold runs, which is not the same as a new one."""
    name = "docker"

    def __init__(self, store, options):
        self.store, self.exports = store, 0
        builders.run(["docker", "builder", "prune", "--all", "--force"])

    @staticmethod
    def present(options):
        return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0

    def command(self, context):
        return ["docker", "build", "--progress", "plain", "--network", "host", "-t", "bench", context]

    def archive(self, context, out):
        return ["docker", "buildx", "build", "--progress", "plain", "-o", f"type=oci,dest={out}", context]

    def push(self, name):
        builders.run(["docker", "tag", "bench", name])
        return ["docker", "push", "--quiet", name]

    def environment(self):
        return dict(os.environ, DOCKER_BUILDKIT="1")

    def image(self, context):
        self.exports += 1
        out = f"{self.store}-export-{self.exports}"
        builders.run(["skopeo", "copy", "docker-daemon:bench:latest", f"dir:{out}"])
        return images.read_dir(out)

    def close(self):
        pass


BUILDERS = [Kiln, Buildah, BuildKit, Docker]


# --- measuring --------------------------------------------------------------------------------------------------------

class Bench:
    """The work directory and the numbers."""

    def __init__(self, options):
        self.options, self.results, self.count = options, {}, 0
        self.work = tempfile.mkdtemp(prefix="kiln-bench-", dir=options.work)
        self.open = []

    def builder(self, kind):
        """A builder with a brand-new store that holds the base image already."""
        made = self.cold(kind)
        warm = self.context({"Dockerfile": f"FROM {self.options.registry}/busybox\nLABEL warm=yes\n"})
        self.time(made, warm)
        return made

    def cold(self, kind):
        """A builder with a brand-new store."""
        self.count += 1
        made = kind(os.path.join(self.work, f"store-{self.count}"), self.options)
        self.open.append(made)
        return made

    def context(self, files):
        self.count += 1
        top = os.path.join(self.work, f"context-{self.count}")
        for name, content in files.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return top

    def time(self, builder, context):
        """One build: seconds, and the peak memory of its largest process in MiB."""
        return self.measure(builder, builder.command(context))

    def measure(self, builder, command):
        """One command, as a build is measured."""
        os.sync()  # what others wrote is not this one's to wait for
        log = open(os.path.join(self.work, "log"), "w+b")
        told, tell = os.pipe()
        command = [sys.executable, "-SE", "-c", RUNNER, str(tell), *command]
        subprocess.run(command, env=builder.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[tell], check=True)
        os.close(tell)
        with os.fdopen(told) as told:
            seconds, code, memory = json.load(told)
        if code != 0:
            log.seek(0)
            raise RuntimeError(f"{builder.name} failed:\n{log.read().decode(errors='replace')[-2000:]}")
        return seconds, memory

    def note(self, case, builder, measured, divide=1):
        seconds, memory = measured
        entry = self.results.setdefault(case, {}).setdefault(builder.name, {"seconds": [], "memory_mib": 0})
        entry["seconds"].append(round(seconds / divide, 5))
        entry["memory_mib"] = max(entry["memory_mib"], round(memory, 1))

    def close(self):
        for builder in self.open:
            builder.close()
        shutil.rmtree(self.work, ignore_errors=True)


def expect(condition, claim):
    if not condition:
        raise RuntimeError(f"the result is wrong: not so that {claim}")


def b1(bench, kinds, runs):
    text = f"""FROM {bench.options.registry}/busybox
ENV APP=bench
WORKDIR /app
COPY one.txt .
RUN echo first >first
RUN echo second >second
COPY two.txt ./
LABEL version=1
EXPOSE 8080
RUN echo third >third
USER nobody
CMD ["cat", "/app/one.txt"]
"""
    ready = []
    for kind in kinds:
        builder = bench.builder(kind)
        context = bench.context({"Dockerfile": text, "one.txt": "one\n", "two.txt": "two\n"})
        bench.time(builder, context)
        ready.append((builder, context))
    for _ in range(runs * 2):
        for builder, context in ready:
            bench.note("B1", builder, bench.time(builder, context))
    for builder, context in ready:
        tree, config = builder.image(context)
        expect({"app/one.txt", "app/two.txt", "app/first", "app/third"} <= set(tree), "all five files are there")
        expect(config["config"]["User"] == "nobody", "the user is nobody")


def b2(bench, kinds, runs):
    text = f"FROM {bench.options.registry}/busybox\n" + "RUN true\n" * 20
    for _ in range(runs):
        for kind in kinds:
            builder, context = bench.builder(kind), bench.context({"Dockerfile": text})
            cold = bench.time(builder, context)
            again = bench.time(builder, context)
            bench.note("B2", builder, (max(cold[0] - again[0], 0), cold[1]), divide=20)
            _, config = builder.image(context)
            steps = [h for h in config["history"] if "true" in h.get("created_by", "")]
            expect(len(steps) == 20, "twenty steps are in the history")


def b3(bench, kinds, runs):
    for turn in range(runs):
        for kind in kinds:
            files = {f"d{i % 200:03}/f{i:05}": (b"%08d-%08d\n" % (turn, i)) * (SIZE // 18) for i in range(FILES)}
            builder = bench.builder(kind)
            context = bench.context(files)
            with open(os.path.join(context, "Dockerfile"), "w") as file:
                file.write(f"FROM {bench.options.registry}/busybox\nCOPY . /data\n")
            bench.note("B3", builder, bench.time(builder, context))
            for _ in range(2):
                bench.note("B3c", builder, bench.time(builder, context))
            changed = b"changed\n" * 256
            with open(os.path.join(context, "d007/f00007"), "wb") as file:
                file.write(changed)
            bench.note("B3b", builder, bench.time(builder, context))
            tree, _ = builder.image(context)
            expect(sum(1 for name in tree if name.startswith("data/d") and tree[name].kind == "file") == FILES, f"{FILES} files were copied")
            expect(tree["data/d007/f00007"].content == f"{len(changed)} {hashlib.sha256(changed).hexdigest()}", "the changed file is the changed one")
            expect(tree["data/d008/f00008"].content.endswith(hashlib.sha256(files["d008/f00008"]).hexdigest()), "another file is itself")


def b4(bench, kinds, runs):
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY . /data\n"})
    noise = random.Random(4)
    common = ["".join(noise.choices("etaoinshrdlu", k=2 + rank % 9)) for rank in range(5000)]
    words = " ".join(noise.choices(common, weights=[1 / (rank + 1) for rank in range(5000)], k=1 << 18)).encode()
    with open(os.path.join(context, "noise"), "wb") as file:
        for _ in range(1 << 8):
            file.write(noise.randbytes(4 << 20))
    with open(os.path.join(context, "text"), "wb") as file:
        # No two stretches that a compressor sees at once are alike.
        for turn in range((1 << 30) // len(words)):
            file.write(b"%012d " % turn + words[turn * 37 % len(words):] + words[:turn * 37 % len(words)])
    inputs = {name: digest(os.path.join(context, name)) for name in ("noise", "text")}
    for _ in range(runs):
        for kind in kinds:
            builder, out = bench.cold(kind), os.path.join(bench.work, "out.tar")
            bench.note("B4", builder, bench.measure(builder, builder.archive(context, out)))
            tree, _ = read_archive(out)
            for name, content in inputs.items():
                expect(tree[f"data/{name}"].content == content, f"{name} is in the archive")
            os.remove(out)


def read_archive(path):
    """The image of an OCI archive."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as layout:
        with tarfile.open(path) as tar:
            tar.extractall(layout)
        return images.read_oci(layout)


def digest(path):
    with open(path, "rb") as file:
        return f"{os.path.getsize(path)} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def ten_layers(options):
    """An image of ten layers of 80 MB, half noise and half text, in 1,500 files each; made once for a registry."""
    name = f"{options.registry}/bench/ten-layers:1"
    if subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True).returncode == 0:
        return name
    noise = random.Random(6)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        builders.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{options.registry}/busybox", f"oci:{work}/base:latest"])
        base = f"{work}/base"
        for layer in range(10):
            for number in range(1500):
                path = f"{work}/files-{layer}/opt/layer{layer}/d{number % 50}/f{number}"
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(noise.randbytes(27_000) + b"%08d line of a file\n" % number * 1300)
            above = f"{work}/layout-{layer}"
            builders.run([os.path.join(ROOT, "scripts/pack_oci.py"), above, "--tag", "latest", "--from", base, "--layer", f"{work}/files-{layer}"])
            base = above
        builders.run(["skopeo", "copy", "--dest-tls-verify=false", f"oci:{base}:latest", f"docker://{name}"])
    return name


def b6(bench, kinds, runs):
    context = bench.context({"Dockerfile": f"FROM {ten_layers(bench.options)}\nRUN true\n"})
    for turn in range(runs):
        for kind in kinds:
            builder = bench.cold(kind)
            bench.note("B6", builder, bench.time(builder, context))
            _, config = builder.image(context) if turn == 0 else (None, None)
            expect(config is None or len(config["rootfs"]["diff_ids"]) >= 11, "all layers of the base are there")
            push = builder.push(f"{bench.options.registry}/bench/pushed-by-{builder.name}:1")
            for again in range(3 if push else 0):
                measured = bench.measure(builder, push)
                if again:
                    bench.note("B6p", builder, measured)


def b5(bench, kinds, runs):
    base = f"FROM {bench.options.registry}/busybox"
    stages = "".join(f"{base} AS s{i}\nRUN sleep 2 && echo {i} >/out{i}\n" for i in range(4))
    text = stages + base + "\n" + "".join(f"COPY --from=s{i} /out{i} /\n" for i in range(4))
    for _ in range(runs):
        for kind in kinds:
            builder, context = bench.builder(kind), bench.context({"Dockerfile": text})
            bench.note("B5", builder, bench.time(builder, context))
            tree, _ = builder.image(context)
            expect({f"out{i}" for i in range(4)} <= set(tree), "the files of all four stages are there")


def b7(bench, kinds, runs):
    # What a package manager leaves, without the network it needs: 6,000 files in 300 directories.
    install = ("for d in $(seq 300); do mkdir -p /usr/lib/python3/site-packages/p$d && cd /usr/lib/python3/site-packages/p$d && "
               "for f in $(seq 20); do seq $d $((d + 400)) >m$f.py; done; done")
    text = f"""FROM {bench.options.registry}/busybox
WORKDIR /app
COPY requirements.txt .
RUN {install}
COPY . .
CMD ["python3", "app.py"]
"""
    files = {f"app/m{i}.py": f"print({i})\n" * 40 for i in range(50)}
    ready = []
    for kind in kinds:
        builder = bench.builder(kind)
        context = bench.context({"Dockerfile": text, "requirements.txt": "flask\n", "app.py": "print(0)\n", **files})
        bench.time(builder, context)
        ready.append((builder, context))
    for turn in range(runs * 2):
        for builder, context in ready:
            with open(os.path.join(context, "app.py"), "w") as file:
                file.write(f"print({turn + 1})\n")
            bench.note("B7b", builder, bench.time(builder, context))
    for builder, context in ready:
        tree, _ = builder.image(context)
        with open(os.path.join(context, "app.py"), "rb") as file:
            content = file.read()
        expect(tree["app/app.py"].content == f"{len(content)} {hashlib.sha256(content).hexdigest()}", "the changed file is the changed one")
        expect(sum(name.endswith(".py") for name in tree) == 6051, "all of the packages and of the application is there")


CASES = {"B1": b1, "B2": b2, "B3": b3, "B4": b4, "B5": b5, "B6": b6, "B7": b7}


# --- telling ----------------------------------------------------------------------------------------------------------

def table(results, builders):
    """A row a case: minimum / median, how many times kiln's minimum the others take, kiln's goal, its memory at most."""
    rows = ["| case | " + " | ".join(builders) + f" | goal | memory, goal {MEMORY} MiB |", "|---|" + "---|" * (len(builders) + 2)]
    for case in sorted(results):
        ours = results[case].get("kiln")
        cells = []
        for name in builders:
            entry = results[case].get(name)
            if not entry:
                cells.append("–")
                continue
            least = min(entry["seconds"])
            cell = f"{least:.3f} / {statistics.median(entry['seconds']):.3f}"
            if ours and name != "kiln":
                cell += f" ({least / max(min(ours['seconds']), 1e-5):.1f}×)"
            cells.append(cell)
        goal = f"{GOALS[case]} {UNITS.get(case, 's')}"
        if ours:
            goal += " ✓" if min(ours["seconds"]) <= GOALS[case] else " ✗"
        most = MEMORY_BIG if case in BIG else MEMORY
        memory = f"{ours['memory_mib']:.0f} MiB {'✓' if ours['memory_mib'] <= most else '✗'}" if ours else "–"
        rows.append(f"| {case} | " + " | ".join(cells) + f" | {goal} | {memory} |")
    return "\n".join(rows)


def machine():
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) // (1 << 20)
    return f"{os.cpu_count()} cores, {memory} GiB, Linux {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/release/kiln"))
    parser.add_argument("--registry", default="127.0.0.1:5000")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--builders", default=",".join(kind.name for kind in BUILDERS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", help="where stores and contexts go, by default the system's temporary directory")
    options = parser.parse_args()
    kinds = [kind for kind in BUILDERS if kind.name in options.builders.split(",") and kind.present(options)]
    if not kinds:
        print("error: none of these builders is here; build kiln with `cargo build --release`", file=sys.stderr)
        return 3
    names = [kind.name for kind in kinds]
    print(f"{machine()}; {', '.join(names)}; seconds, minimum / median of {options.runs} runs", file=sys.stderr)
    wanted = {case[:2] for case in options.only.split(",")}  # B3b and B3c come with B3
    bench = Bench(options)
    try:
        for case in CASES:
            if case in wanted:
                print(f"{case} …", file=sys.stderr)
                CASES[case](bench, kinds, options.runs)
        results = bench.results
    finally:
        bench.close()
    text = table(results, names)
    print(text)
    out = os.path.join(ROOT, "bench/results", time.strftime("%Y-%m-%dT%H-%M-%S"))
    with open(out + ".json", "w") as file:
        json.dump({"machine": machine(), "runs": options.runs, "goals": GOALS, "results": results}, file, indent=1)
    with open(out + ".md", "w") as file:
        file.write(f"{machine()}. Seconds, minimum / median of {options.runs} runs.\n\n{text}\n")
    print(f"written to {os.path.relpath(out)}.json and .md", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
