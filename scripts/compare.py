#!/usr/bin/env python3
"""Builds the same Dockerfiles with buildah and with kiln and compares file trees and configs.

    compare.py [--kiln target/debug/kiln] [--registry 127.0.0.1:5000] [--reference-only] [CASE]...

A case is a folder of crates/kiln/tests/differential/cases: a Dockerfile, a context, and if needed `context.sh` (makes
what git cannot keep), `case.json` (more arguments) and `Dockerfile.buildah` (the same build for a builder that lacks
a feature). Differences we accept stand with their reasons in accepted.json beside the cases. Modification times are
not compared. Exit code: 0 the same, 1 different, 3 when a tool is missing.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = os.path.join(ROOT, "crates/kiln/tests/differential/cases")
CONFIG_FIELDS = ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
                 "Healthcheck", "Shell", "OnBuild"]


# --- images as plain values -------------------------------------------------------------------------------------------

class Node:
    """One inode of an image. Hard links share it."""

    def __init__(self, member, content):
        kinds = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.FIFOTYPE: "fifo",
                 tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block"}
        self.kind = kinds.get(member.type, "file")
        self.mode, self.owner = "%04o" % (member.mode & 0o7777), f"{member.uid}:{member.gid}"
        self.content = content
        self.target = member.linkname if self.kind == "symlink" else ""
        self.device = f"{member.devmajor}:{member.devminor}" if self.kind in ("char", "block") else ""
        prefix = "SCHILY.xattr."
        self.xattrs = {k[len(prefix):]: v.encode("utf-8", "surrogateescape").hex()
                       for k, v in member.pax_headers.items() if k.startswith(prefix)}
        if self.kind == "symlink":
            self.mode = "0777"  # the kernel ignores it

    def fields(self):
        return {"kind": self.kind, "mode": self.mode, "owner": self.owner, "content": self.content,
                "target": self.target, "device": self.device, "xattrs": self.xattrs}


class Tree(dict):
    """Path to node, as the layers leave it."""

    def drop(self, path, spared=()):
        for name in [n for n in self if (n == path or n.startswith(path + "/")) and n not in spared]:
            del self[name]

    def apply(self, entries):
        added = set()
        for name, kind, value in entries:
            parent, base = os.path.split(name)
            if base == ".wh..wh..opq":
                for child in [n for n in self if n.startswith(parent + "/") and n not in added]:
                    del self[child]
            elif base.startswith(".wh."):
                self.drop(os.path.join(parent, base[4:]), added)
            else:
                node = self[value] if kind == "link" else value
                if name in self and (node.kind, self[name].kind) != ("dir", "dir"):
                    self.drop(name)
                self[name] = node
                added.add(name)

    def links(self):
        """Path to the other names of the same file."""
        groups = {}
        for name, node in self.items():
            groups.setdefault(id(node), []).append(name)
        return {n: sorted(g) for g in groups.values() if len(g) > 1 for n in g}


LAYERS = {}  # diffID to entries: the base layers are read once


def read_layer(path, diff_id):
    if diff_id in LAYERS:
        return LAYERS[diff_id]
    entries = []
    with tarfile.open(path, "r:*", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = os.path.normpath("/" + member.name)[1:].lstrip("/")
            if not name:
                continue
            if member.islnk():
                entries.append((name, "link", os.path.normpath("/" + member.linkname).lstrip("/")))
                continue
            content = ""
            if member.isreg():
                data = tar.extractfile(member)
                content = f"{member.size} {hashlib.file_digest(data, 'sha256').hexdigest()}"
            entries.append((name, "node", Node(member, content)))
    LAYERS[diff_id] = entries
    return entries


def diff_id_of(path):
    """The digest of a layer's tar, whatever it is packed in."""
    with open(path, "rb") as file:
        magic = file.read(4)
    command = {b"\x1f\x8b": ["gzip", "-dc"], b"\x28\xb5": ["zstd", "-dc"]}.get(magic[:2], ["cat"])
    with subprocess.Popen(command + [path], stdout=subprocess.PIPE) as reader:
        return "sha256:" + hashlib.file_digest(reader.stdout, "sha256").hexdigest()


def read_image(manifest, blob):
    """Tree and config of an image; `blob` turns a digest into a path. Every digest and size is checked."""
    def checked(descriptor):
        path = blob(descriptor["digest"])
        with open(path, "rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        if found != descriptor["digest"] or os.path.getsize(path) != descriptor["size"]:
            raise ValueError(f"blob {descriptor['digest']} is {found}, {os.path.getsize(path)} bytes")
        return path
    with open(checked(manifest["config"])) as file:
        config = json.load(file)
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest["layers"]):
        raise ValueError("config and manifest disagree about the number of layers")
    made = [h for h in config.get("history", []) if not h.get("empty_layer")]
    if len(made) != len(diff_ids):
        raise ValueError(f"{len(made)} history entries for {len(diff_ids)} layers")
    tree = Tree()
    for descriptor, diff_id in zip(manifest["layers"], diff_ids):
        path = checked(descriptor)
        if diff_id not in LAYERS and diff_id_of(path) != diff_id:
            raise ValueError(f"layer {descriptor['digest']} is not {diff_id}")
        tree.apply(read_layer(path, diff_id))
    return tree, config


def read_dir(path):
    """An image as skopeo's and buildah's `dir:` transport writes it."""
    with open(os.path.join(path, "manifest.json")) as file:
        return read_image(json.load(file), lambda digest: os.path.join(path, digest.split(":")[1]))


def read_oci(path):
    with open(os.path.join(path, "index.json")) as file:
        descriptor = json.load(file)["manifests"][0]
    def blob(digest):
        return os.path.join(path, "blobs", *digest.split(":"))
    with open(blob(descriptor["digest"])) as file:
        document = json.load(file)
    if "manifests" in document:
        with open(blob(document["manifests"][0]["digest"])) as file:
            document = json.load(file)
    return read_image(document, blob)


# --- builders ---------------------------------------------------------------------------------------------------------

def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{output[-3000:]}")
    return output


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
            self.command(os.path.join(self.work, "Dockerfile.probe"), "probe", [], self.work)
        except RuntimeError as error:
            self.why = error
            return False
        return True

    def command(self, dockerfile, name, arguments, context):
        run(["buildah", "build", "--isolation", self.isolation, "--format", "docker", "--layers", "--network", "host",
             "--tls-verify=false", "--identity-label=false", "-f", dockerfile, "-t", name, *arguments, context], env=self.env)

    def build(self, case):
        self.command(case.reference_dockerfile, case.name, case.arguments, case.context)
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


class Kiln:
    """The builder under test."""

    def __init__(self, binary, state):
        self.binary, self.state = binary, state

    def build(self, case):
        archive, layout = os.path.join(case.work, "kiln.tar"), os.path.join(case.work, "kiln")
        run([self.binary, "--state", self.state, "build", "--progress", "plain", "--network", "host", "-f", case.dockerfile,
             "-t", f"{case.name}:latest", "-o", f"type=oci,dest={archive}", *case.arguments, case.context])
        with tarfile.open(archive) as tar:
            tar.extractall(layout)
        tree, config = read_oci(layout)
        self.judge(case, layout, tree)
        return tree, config

    def judge(self, case, layout, tree):
        """What others' tools make of our image: umoci must find the same names in it."""
        # It takes long for a large base, and one such is enough.
        if not shutil.which("umoci") or (len(tree) > 2000 and case.name != "run-xattrs"):
            return
        bundle = os.path.join(case.work, "bundle")
        tag = json.load(open(os.path.join(layout, "index.json")))["manifests"][0].get("annotations", {})
        run(["umoci", "unpack", "--image", f"{layout}:{tag['org.opencontainers.image.ref.name']}", bundle])
        top = os.path.join(bundle, "rootfs")
        found = {os.path.relpath(os.path.join(at, name), top) for at, dirs, files in os.walk(top) for name in dirs + files}
        odd = found.symmetric_difference(tree)
        if odd:
            raise ValueError(f"umoci unpacks other names than the layers hold: {sorted(odd)[:5]}")


# --- cases ------------------------------------------------------------------------------------------------------------

class Case:
    def __init__(self, name, work, registry):
        self.name, source = name, os.path.join(CASES, name)
        self.work = os.path.join(work, "cases", name)
        # A context's path is unlike any other: builders remember contexts by name, size and time.
        self.context = os.path.join(self.work, f"context-{name}")
        self.dockerfile = os.path.join(source, "Dockerfile")
        twin = os.path.join(source, "Dockerfile.buildah")
        self.reference_dockerfile = twin if os.path.exists(twin) else self.dockerfile
        os.makedirs(self.work)
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
        extra = []
        if os.path.exists(os.path.join(source, "case.json")):
            with open(os.path.join(source, "case.json")) as file:
                extra = json.load(file).get("args", [])
        self.arguments = [a.replace("${CONTEXT}", self.context) for a in extra]
        if name != "scratch":
            self.arguments += ["--build-arg", f"REGISTRY={registry}"]


class Accepted:
    """The differences we accept. Each must still occur, or the list would rot."""

    def __init__(self):
        with open(os.path.join(CASES, "..", "accepted.json")) as file:
            self.rules = json.load(file)
        self.used = set()

    def covers(self, case, where, field):
        for index, rule in enumerate(self.rules):
            if all(fnmatch.fnmatchcase(value, rule.get(key, "*")) for key, value in
                   (("case", case), ("where", where), ("field", field))):
                self.used.add(index)
                return True
        return False

    def unused(self):
        return [rule for index, rule in enumerate(self.rules) if index not in self.used]


def differences(ours, theirs):
    """Yields (where, field, ours, theirs)."""
    (tree_a, config_a), (tree_b, config_b) = ours, theirs
    links_a, links_b = tree_a.links(), tree_b.links()
    for name in sorted(set(tree_a) | set(tree_b)):
        where = "/" + name.encode("utf-8", "backslashreplace").decode()
        if name not in tree_b or name not in tree_a:
            there = lambda tree: tree[name].kind if name in tree else "absent"
            yield where, "existence", there(tree_a), there(tree_b)
            continue
        fields_b = tree_b[name].fields()
        for field, value in tree_a[name].fields().items():
            if value != fields_b[field]:
                yield where, field, value, fields_b[field]
        if links_a.get(name) != links_b.get(name):
            yield where, "hardlinks", links_a.get(name), links_b.get(name)
    for field in ("architecture", "os"):
        if config_a.get(field) != config_b.get(field):
            yield "config", field, config_a.get(field), config_b.get(field)
    for field in CONFIG_FIELDS:
        value_a, value_b = ((c.get("config") or {}).get(field) or None for c in (config_a, config_b))
        if value_a != value_b:
            yield "config", field, value_a, value_b


def compare(case, kiln, buildah, accepted):
    """Prints what differs and returns how much of it nobody has accepted."""
    theirs = buildah.build(case)
    if kiln is None:
        print(f"built    {case.name}: {len(theirs[0])} entries")
        return 0
    found, silent = 0, 0
    for where, field, a, b in differences(kiln.build(case), theirs):
        if accepted.covers(case.name, where, field):
            silent += 1
            continue
        found += 1
        print(f"  {case.name}: {where} {field}: kiln {a!r}, buildah {b!r}")
    print(f"{'DIFFERS' if found else 'same   '}  {case.name}" + (f" ({silent} accepted)" if silent else ""))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/debug/kiln"))
    parser.add_argument("--registry", default="127.0.0.1:5000")
    parser.add_argument("--reference-only", action="store_true", help="only check that buildah builds the cases")
    parser.add_argument("--keep", action="store_true", help="keep the work directory")
    options = parser.parse_args()
    needed = ["buildah", "runc"] + ([] if options.reference_only else [options.kiln])
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        print(f"error: missing: {', '.join(missing)}", file=sys.stderr)
        return 3
    work = tempfile.mkdtemp(prefix="kiln-compare-")
    names = options.cases or sorted(os.listdir(CASES))
    buildah = None
    try:
        buildah = Buildah(os.path.join(work, "buildah"), options.registry)
        print(f"reference: {buildah.describe()}")
        kiln = None if options.reference_only else Kiln(options.kiln, os.path.join(work, "state"))
        accepted, bad = Accepted(), 0
        for name in names:
            try:
                bad += compare(Case(name, work, options.registry), kiln, buildah, accepted)
            except (RuntimeError, ValueError) as error:
                print(f"FAILED   {name}: {error}")
                bad += 1
        if kiln and not options.cases:
            for rule in accepted.unused():
                print(f"  accepted.json: nothing differs any more: {rule}")
                bad += 1
        print(f"{len(names)} cases, {bad} unaccepted differences")
        return 1 if bad else 0
    finally:
        if buildah:
            buildah.close()
        if options.keep:
            print(f"kept {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
