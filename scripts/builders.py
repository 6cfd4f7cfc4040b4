"""The builders that are compared, and the cases they build: one method each, from a case to an image's tree and config."""

import json
import os
import resource
import shutil
import subprocess
import tarfile

from images import read_dir, read_oci
from servers import LONG_AGO

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIFFERENTIAL = os.path.join(ROOT, "crates/kiln/tests/differential")
CASES = os.path.join(DIFFERENTIAL, "cases")


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{output[-3000:]}")
    return output


PEERS = os.path.join(ROOT, "scripts/peers.sh")


def peer(command):
    return run([PEERS, "run", *command])


class Buildah:
    """Debian's buildah with a store of its own."""

    def __init__(self, work, registry):
        self.work, self.registry, self.isolation = work, registry, "oci"
        os.makedirs(work)
        # More than the hard limits cannot be given where CAP_SYS_RESOURCE is missing, and buildah asks for a million.
        limits = [f'"{name}={hard}:{hard}"' for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
                  for hard in [min(resource.getrlimit(kind)[1] % (1 << 63), 1024)]]
        self.write("containers.conf", f'[containers]\ndefault_ulimits = [{", ".join(limits)}]\n'
                                      '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n')
        # Its cache mounts would outlive it in the common temporary directory.
        self.env = dict(os.environ, CONTAINERS_CONF=f"{work}/containers.conf", CONTAINERS_STORAGE_CONF=f"{work}/storage.conf", TMPDIR=work)
        for driver in ("overlay", "vfs"):
            self.write("storage.conf", f'[storage]\ndriver = "{driver}"\nrunroot = "{work}/run-{driver}"\ngraphroot = "{work}/graph-{driver}"\n')
            for self.isolation in ("oci", "chroot"):
                if self.works():
                    self.driver = driver
                    return
        raise RuntimeError(f"buildah cannot run a step here:\n{self.why}")

    def write(self, name, text):
        with open(os.path.join(self.work, name), "w") as file:
            file.write(text)

    def works(self):
        self.write("Dockerfile.probe", f"FROM {self.registry}/busybox\nRUN true\n")
        try:
            self.command([os.path.join(self.work, "Dockerfile.probe")], "probe", [], self.work)
        except RuntimeError as error:
            self.why = error
            return False
        return True

    def command(self, dockerfiles, name, arguments, context):
        run(["buildah", "build", "--isolation", self.isolation, "--format", "docker", "--layers", "--network", "host",
             "--tls-verify=false", "--identity-label=false", *Case.files("-f", dockerfiles), "-t", name, *arguments, context], env=self.env)

    def build(self, case):
        self.command(case.reference_dockerfiles, case.name, case.arguments, case.context)
        return self.image(case.name, os.path.join(case.work, "reference"))

    def image(self, name, out):
        run(["buildah", "push", "--disable-compression", "--format", "v2s2", name, f"dir:{out}"], env=self.env)
        return read_dir(out)

    def describe(self):
        return f"{run(['buildah', '--version']).strip()}, isolation {self.isolation}, storage {self.driver}"

    def close(self):
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split()[4] for line in file]
        for mount in reversed([m for m in mounts if m.startswith(self.work + "/")]):
            subprocess.run(["umount", "-l", mount], check=False)


class PeerBuildah:
    """The buildah of scripts/peers.sh."""

    def __init__(self, registry):
        self.registry = registry

    def build(self, case):
        out = os.path.join(case.work, "reference")
        peer(["buildah", "build", "--isolation", "oci", "--format", "docker", "--layers", "--network", "host", "--tls-verify=false",
              "--identity-label=false", *case.files("-f", case.reference_dockerfiles), "-t", case.name, *case.arguments, case.context])
        peer(["buildah", "push", "--disable-compression", "--format", "v2s2", case.name, f"dir:{out}"])
        return read_dir(out)

    def describe(self):
        return " ".join(peer(["buildah", "--version"]).split()[:3]).replace(" version", "")


class BuildKit:
    """The BuildKit of scripts/peers.sh: the one built from source if there is one, else dockerd's."""

    def __init__(self, registry, name=None):
        self.registry = registry
        self.names = peer(["docker", "buildx", "ls", "--format", "{{.Name}}"]).split()
        self.name = name or ("source" if "source" in self.names else "default")

    def command(self, *arguments):
        return [PEERS, "run", "docker", "buildx", "build", "--builder", self.name, *arguments]

    def forget(self):
        """What it has kept may have come from a context with other times, even when it is told to use no cache."""
        peer(["docker", "buildx", "prune", "--builder", self.name, "--all", "--force"])

    def build(self, case):
        archive, layout = os.path.join(case.work, "reference.tar"), os.path.join(case.work, "reference")
        run(self.command("--no-cache", "--network", "host", "--allow", "network.host", "--allow", "security.insecure", "--provenance=false",
                         *case.files("-f", case.dockerfiles), "-o", f"type=oci,dest={archive}", *case.arguments, case.context))
        with tarfile.open(archive) as tar:
            tar.extractall(layout)
        return read_oci(layout)

    def describe(self):
        versions = dict(line.split(" ", 1) for line in run([PEERS, "versions"]).splitlines())
        build = f"BuildKit {versions['buildkitd']}" if self.name == "source" else f"docker {versions['docker']}"
        return f"{build}, buildx {versions['buildx']}"


class Kiln:
    """The builder under test."""

    def __init__(self, binary, state):
        self.binary, self.state = binary, state

    def command(self, *arguments):
        return [self.binary, "--state", self.state, "build", *arguments]

    def build(self, case):
        archive, layout = os.path.join(case.work, "kiln.tar"), os.path.join(case.work, "kiln")
        run(self.command("--progress", "plain", "--network", "host", *case.files("-f", case.dockerfiles), "-t", f"{case.name}:latest",
                         "-o", f"type=oci,dest={archive}", *case.arguments, *case.own_arguments, case.context))
        with tarfile.open(archive) as tar:
            tar.extractall(layout)
        return read_oci(layout)

    def judge(self, case, tree):
        """What others' tools make of our image: umoci must find the same names in it."""
        # It takes long for a large base, and one such is enough.
        if not shutil.which("umoci") or (len(tree) > 2000 and case.name != "run-xattrs"):
            return
        layout, bundle = os.path.join(case.work, "kiln"), os.path.join(case.work, "bundle")
        tag = json.load(open(os.path.join(layout, "index.json")))["manifests"][0].get("annotations", {})
        run(["umoci", "unpack", "--image", f"{layout}:{tag['org.opencontainers.image.ref.name']}", bundle])
        top = os.path.join(bundle, "rootfs")
        found = {os.path.relpath(os.path.join(at, name), top) for at, dirs, files in os.walk(top) for name in dirs + files}
        odd = found.symmetric_difference(tree)
        if odd:
            raise ValueError(f"umoci unpacks other names than the layers hold: {sorted(odd)[:5]}")


class Case:
    """A folder of cases, its context made anew in a working directory."""

    def __init__(self, name, work, addresses):
        self.name, source = name, os.path.join(CASES, name)
        self.work = os.path.join(work, "cases", name)
        # A context's path is unlike any other: builders remember contexts by name, size and time.
        self.context = os.path.join(self.work, f"context-{name}-{os.path.basename(work)}")
        os.makedirs(self.work)
        settings = {}
        if os.path.exists(os.path.join(source, "case.json")):
            with open(os.path.join(source, "case.json")) as file:
                settings = json.load(file)
        self.reference = settings.get("reference", "buildkit")
        self.has_base = settings.get("base", True)
        self.fill(source)
        # Beside the Dockerfile may lie its ignore file; builders look for it where the Dockerfile is.
        for entry in os.listdir(source):
            if os.path.isfile(os.path.join(source, entry)):
                shutil.copy(os.path.join(source, entry), self.work)
        self.dockerfiles = [os.path.join(self.work, name) for name in settings.get("files", ["Dockerfile"])]
        twin = os.path.join(self.work, "Dockerfile.buildah")
        self.reference_dockerfiles = [twin] if os.path.exists(twin) else self.dockerfiles
        place = {"${CONTEXT}": self.context} | {f"${{{name}}}": address for name, address in addresses.items()}
        filled = lambda arguments: [fill_in(argument, place) for argument in arguments]
        self.arguments, self.own_arguments = filled(settings.get("args", [])), filled(settings.get("kiln_args", []))
        if self.has_base:
            self.arguments += ["--build-arg", f"REGISTRY={addresses['REGISTRY']}"]

    @staticmethod
    def files(flag, paths):
        return [word for path in paths for word in (flag, path)]

    def fill(self, source):
        if os.path.isdir(os.path.join(source, "context")):
            shutil.copytree(os.path.join(source, "context"), self.context, symlinks=True, ignore=shutil.ignore_patterns(".keep"))
        else:
            os.mkdir(self.context)
        for at, dirs, files in os.walk(self.context):  # git's checkout follows the umask; images must not
            for entry in files:
                path = os.path.join(at, entry)
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
            for entry in dirs:
                os.chmod(os.path.join(at, entry), 0o755)
        script = os.path.join(source, "context.sh")
        if os.path.exists(script):
            run(["bash", "-euc", f"umask 022; cd {self.context!r}; . {script!r}"])
        for at, dirs, files in os.walk(os.fsencode(self.context), topdown=False):
            for entry in files + dirs + [b"."]:
                os.utime(os.path.join(at, entry), (LONG_AGO, LONG_AGO), follow_symlinks=False)


def fill_in(text, places):
    for name, value in places.items():
        text = text.replace(name, value)
    return text
