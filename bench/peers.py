"""The builders: how each is given a new store, told to build, save and push, and how its images are read back."""

import os
import resource
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

from room import ROOT, Failed

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import images  # noqa: E402  (the reader of images)


class Builder:
    """One builder with a store of its own. Paths are the same in every room."""

    name = ""
    programs = ()  # that must be in the tree
    env = {}
    daemons = ()
    cache_tag = ":cache"  # of the reference where results are kept
    is_loaded = False  # what it builds is in docker already

    def __init__(self, bench, store):
        self.bench, self.room, self.options, self.store = bench, bench.room_of(type(self)), bench.options, store
        os.makedirs(store)
        self.log, self.exports = f"{store}.log", 0
        self.set_up()

    def set_up(self):
        pass

    def write(self, name, text):
        with open(os.path.join(self.store, name), "w") as file:
            file.write(text)

    def run(self, command, timeout=600):
        """Runs a command that is not measured; its output."""
        return self.room.run(command, f"{self.store}.aside.log", self.env, timeout)

    def build(self, context, *more, tag="bench"):
        """The command for a build into the builder's own store."""
        raise NotImplementedError

    def save(self, context, out):
        """The command that writes the image `bench`, built already, as an archive for `docker load`."""
        raise NotImplementedError

    def archive(self, context, out):
        """The command that builds and writes a gzip OCI archive."""
        raise NotImplementedError

    def push(self, name):
        """The command that pushes the image `bench`, and None where there is none."""
        return None

    def load(self, context, daemon):
        """The command that brings the image `bench` into a docker daemon."""
        raise NotImplementedError

    def cache_to(self, name):
        return ["--cache-to", f"type=registry,ref={name},mode=max"]

    def cache_from(self, name):
        return ["--cache-from", f"type=registry,ref={name}"]

    def image(self, context, tag="bench", more=()):
        """Tree and config of an image that was built; not timed. `more` is what it was built with, for who builds it again to export it."""
        raise NotImplementedError

    def export(self):
        self.exports += 1
        return f"{self.store}.export-{self.exports}"

    def read_saved(self, save):
        """The image that a command writes to an archive, which is gone again afterwards."""
        out = self.export()
        self.run(save(out))
        try:
            return read_archive(out)
        finally:
            os.remove(out)

    def close(self):
        """Ends daemons and mounts. Files stay: the bench removes them when nothing is timed."""


def read_archive(path):
    """The image of an archive with an OCI layout in it."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as layout:
        with tarfile.open(path) as tar:
            tar.extractall(layout, filter="fully_trusted") if sys.version_info >= (3, 12) else tar.extractall(layout)
        return images.read_oci(layout)


class Kiln(Builder):
    name = "kiln"

    def kiln(self, *arguments):
        return [self.options.kiln, "--state", self.store, *arguments]

    def build(self, context, *more, tag="bench"):
        return self.kiln("build", "--progress", "plain", "--network", "host", "-t", tag, *more, context)

    def save(self, context, out):
        return self.kiln("save", "-o", out, "bench")

    def archive(self, context, out):
        return self.kiln("build", "--progress", "plain", "-o", f"type=oci,dest={out}", context)

    def push(self, name):
        self.run(self.kiln("tag", "bench", name))
        return self.kiln("push", name)

    def load(self, context, daemon):
        return ["env", f"DOCKER_HOST={daemon.address}", *self.build(context, "--load=docker")]

    def image(self, context, tag="bench", more=()):
        return self.read_saved(lambda out: self.kiln("save", "-o", out, tag))

    @staticmethod
    def version(bench):
        said = subprocess.run([bench.options.kiln, "--version"], capture_output=True, text=True, check=True).stdout.split()
        if said[:1] != ["kiln"]:
            raise ValueError(f"{bench.options.kiln} is no kiln: `--version` says {' '.join(said)[:40]}")
        return said[-1]


class Daemon(Builder):
    """One whose client talks to a daemon, which is started anew with an empty directory for each store."""

    def begin(self, command, probe):
        self.address = f"unix://{self.store}/socket"
        self.pid = self.room.start(command, f"{self.store}.daemon.log", self.env)
        self.daemons = (self.pid,)
        for _ in range(150):
            try:
                self.run(probe)
                return
            except Failed:
                time.sleep(0.2)
        self.close()
        with open(f"{self.store}.daemon.log", errors="replace") as file:
            raise Failed(f"{command[0]} does not answer\n{file.read()[-600:]}")

    def close(self):
        self.room.stop(self.pid)


class Buildctl(Daemon):
    name, programs = "buildctl", ("buildkitd", "buildctl", "runc")

    def set_up(self):
        registries = "".join(f'[registry."{name}"]\n  http = true\n' for name in self.bench.registries())
        self.write("buildkitd.toml", 'insecure-entitlements = ["network.host"]\n[worker.oci]\n  networkMode = "host"\n'
                                     f'  defaultCgroupParent = "kiln-peers"\n[worker.containerd]\n  enabled = false\n{registries}')
        self.begin(["buildkitd", "--config", f"{self.store}/buildkitd.toml", "--root", f"{self.store}/root", "--addr", f"unix://{self.store}/socket"],
                   ["buildctl", "--addr", f"unix://{self.store}/socket", "debug", "workers"])

    def build(self, context, *more, tag="bench", output=None):
        # `buildctl` has its own spelling of buildx's flags.
        words = ["--export-cache" if word == "--cache-to" else "--import-cache" if word == "--cache-from" else word for word in more]
        return ["buildctl", "--addr", self.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--allow", "network.host",
                "--local", f"context={context}", "--local", f"dockerfile={context}", "--output", output or f"type=image,name={tag}", *words]

    def save(self, context, out):
        return self.build(context, output=f"type=docker,name=bench,dest={out}")

    def archive(self, context, out):
        return self.build(context, output=f"type=oci,dest={out}")

    def load(self, context, daemon):
        piped = shlex.join(self.build(context, output="type=docker,name=bench,compression=uncompressed"))
        return ["sh", "-ec", f"{piped} | docker --host {daemon.address} load"]

    def image(self, context, tag="bench", more=()):
        out = self.export()
        self.run(self.build(context, *more, output=f"type=oci,tar=false,dest={out}"))
        try:
            return images.read_oci(out)
        finally:
            shutil.rmtree(out)

    @staticmethod
    def version(bench):
        return bench.tree.run(["buildkitd", "--version"], bench.log).split()[2].split("+")[0]


class Docker(Daemon):
    name, programs = "docker", ("dockerd", "docker", "containerd", "runc")
    is_loaded = True

    def set_up(self):
        registries = ", ".join(f'"{name}"' for name in self.bench.registries())
        self.write("daemon.json", f'{{"data-root": "{self.store}/data", "exec-root": "{self.store}/run", "pidfile": "{self.store}/pid", '
                                  '"features": {"containerd-snapshotter": true}, "bridge": "none", "iptables": false, "ip6tables": false, '
                                  f'"ip-forward": false, "ip-masq": false, "cgroup-parent": "kiln-peers", "insecure-registries": [{registries}]}}\n')
        self.env = {"DOCKER_HOST": f"unix://{self.store}/socket", "DOCKER_CONFIG": f"{self.store}/client"}
        self.begin(["dockerd", "--config-file", f"{self.store}/daemon.json", "--host", f"unix://{self.store}/socket"], ["docker", "version"])

    def build(self, context, *more, tag="bench"):
        return ["docker", "buildx", "build", "--progress", "plain", "--provenance=false", "--network", "host", "--allow", "network.host",
                "-t", tag, *more, context]

    def save(self, context, out):
        return ["docker", "save", "-o", out, "bench"]

    def archive(self, context, out):
        return ["docker", "buildx", "build", "--progress", "plain", "--provenance=false", "-o", f"type=oci,dest={out}", context]

    def push(self, name):
        self.run(["docker", "tag", "bench", name])
        return ["docker", "push", "--quiet", name]

    def image(self, context, tag="bench", more=()):
        return self.read_saved(lambda out: ["docker", "save", "-o", out, tag])

    @staticmethod
    def version(bench):
        said = bench.tree.run(["sh", "-ec", "dockerd --version; docker buildx version"], bench.log).replace(",", "").split()
        return f"{said[2].split('+')[0]}, buildx {said[said.index('github.com/docker/buildx') + 1].split('+')[0]}"


class Buildah(Builder):
    name, programs = "buildah", ("buildah", "runc")
    command, raw = ("buildah",), ("--disable-compression",)
    cache_tag = ""  # it makes tags of its own

    def set_up(self):
        # More than the hard limits cannot be given where CAP_SYS_RESOURCE is missing, and buildah asks for a million.
        limits = [f'"{name}={hard}:{hard}"' for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
                  for hard in [min(resource.getrlimit(kind)[1] % (1 << 63), 1024)]]
        self.write("containers.conf", f'[containers]\ndefault_ulimits = [{", ".join(limits)}]\n[engine]\nruntime = "runc"\n'
                                      'cgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
        self.write("storage.conf", f'[storage]\ndriver = "overlay"\nrunroot = "{self.store}/run"\ngraphroot = "{self.store}/graph"\n')
        os.mkdir(f"{self.store}/tmp")
        self.env = {"CONTAINERS_CONF": f"{self.store}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{self.store}/storage.conf",
                    "TMPDIR": f"{self.store}/tmp"}

    def build(self, context, *more, tag="bench"):
        return [*self.command, "build", "--isolation", "oci", "--layers", "--jobs", "4", "--network", "host", "--tls-verify=false",
                "-t", tag, *more, context]

    def save(self, context, out):
        return [*self.command, "push", "bench", f"docker-archive:{out}:bench:latest"]

    def archive(self, context, out):
        return ["sh", "-ec", f"{shlex.join(self.build(context))}; exec {self.command[0]} push --compression-format gzip bench oci-archive:{out}"]

    def push(self, name):
        return [*self.command, "push", "--tls-verify=false", "bench", f"docker://{name}"]

    def load(self, context, daemon):
        # Its own way (`docker-daemon:`) ends with a closed pipe where docker keeps its images in containerd.
        return ["sh", "-ec", f"{self.command[0]} push --quiet bench docker-archive:/dev/stdout:bench:latest | docker --host {daemon.address} load"]

    def cache_to(self, name):
        return ["--cache-to", name]

    def cache_from(self, name):
        return ["--cache-from", name]

    def image(self, context, tag="bench", more=()):
        out = self.export()
        self.run([*self.command, "push", *self.raw, tag, f"dir:{out}"])
        try:
            return images.read_dir(out)
        finally:
            shutil.rmtree(out)

    def close(self):
        self.room.run(["sh", "-c", f"grep -o ' {self.store}/[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l"], self.log)

    @classmethod
    def version(cls, bench):
        return bench.tree.run([cls.name, "--version"], bench.log).split()[2]


class Podman(Buildah):
    name, programs = "podman", ("podman", "runc")
    command, raw = ("podman", "--cgroup-manager", "cgroupfs"), ()

    def save(self, context, out):
        return [*self.command, "save", "--format", "docker-archive", "-o", out, "bench"]

    def load(self, context, daemon):
        return ["sh", "-ec", f"{shlex.join(self.command)} save --format docker-archive bench | docker --host {daemon.address} load"]


BUILDERS = [Kiln, Buildctl, Docker, Buildah, Podman]
