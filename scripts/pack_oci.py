#!/usr/bin/env python3
"""Packs directory trees as an OCI image in an OCI layout. The same trees give the same bytes.

    pack_oci.py OUT --tag latest --layer ROOTFS [--from LAYOUT] [--env K=V]... [--cmd ARG]... [--workdir DIR]

`--from` puts the layers of another layout's image below. A layer directory may be an overlayfs upper directory:
its whiteouts and opaque directories become those of the OCI layer format.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import sys
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

EPOCH = 1_700_000_000  # the one time in these images, so that two runs agree
BLOCK = 1 << 20
ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}


class GzipWriter(io.RawIOBase):
    """One gzip member, deflated in parallel blocks that do not depend on the number of threads."""

    def __init__(self, out):
        self.out, self.sha, self.diff = out, hashlib.sha256(), hashlib.sha256()
        self.pool, self.pending, self.buffer = ThreadPoolExecutor(os.cpu_count()), [], bytearray()
        self.crc, self.raw_size, self.size = 0, 0, 0
        self._emit(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")

    def writable(self):
        return True

    def write(self, data):
        self.diff.update(data)
        self.crc = zlib.crc32(data, self.crc)
        self.raw_size += len(data)
        self.buffer += data
        while len(self.buffer) >= BLOCK:
            self._submit(bytes(self.buffer[:BLOCK]), zlib.Z_FULL_FLUSH)
            del self.buffer[:BLOCK]
        return len(data)

    def finish(self):
        self._submit(bytes(self.buffer), zlib.Z_FINISH)
        for job in self.pending:
            self._emit(job.result())
        self._emit(struct.pack("<II", self.crc, self.raw_size & 0xFFFFFFFF))
        self.pool.shutdown()

    def _submit(self, block, flush):
        self.pending.append(self.pool.submit(deflate, block, flush))
        while len(self.pending) > 16:
            self._emit(self.pending.pop(0).result())

    def _emit(self, data):
        self.sha.update(data)
        self.size += len(data)
        self.out.write(data)


def deflate(block, flush):
    engine = zlib.compressobj(4, zlib.DEFLATED, -15)
    return engine.compress(block) + engine.flush(flush)


def xattrs_of(path):
    kept = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(("user.", "security.capability")):
            value = os.getxattr(path, name, follow_symlinks=False)
            kept[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return kept


def is_opaque(path):
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def marker(name):
    entry = tarfile.TarInfo(name)
    entry.mtime = EPOCH
    entry.mode = 0
    return entry


def add_tree(tar, top, path, seen):
    """Adds the entries below `path` in name order."""
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        inside = os.path.relpath(full, top)
        info = os.lstat(full)
        if stat.S_ISSOCK(info.st_mode):
            continue
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            tar.addfile(marker(os.path.join(os.path.dirname(inside), ".wh." + name)))
            continue
        entry = entry_of(full, inside, info, seen)
        if entry.isreg():
            with open(full, "rb") as content:
                tar.addfile(entry, content)
        else:
            tar.addfile(entry)
        if entry.isdir():
            if is_opaque(full):
                tar.addfile(marker(os.path.join(inside, ".wh..wh..opq")))
            add_tree(tar, top, full, seen)


def entry_of(full, inside, info, seen):
    entry = tarfile.TarInfo(inside)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    entry.mtime = min(int(info.st_mtime), EPOCH)
    entry.pax_headers = xattrs_of(full)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    elif kind == stat.S_IFIFO:
        entry.type = tarfile.FIFOTYPE
    elif info.st_nlink > 1 and (info.st_dev, info.st_ino) in seen:
        entry.type, entry.linkname = tarfile.LNKTYPE, seen[info.st_dev, info.st_ino]
    else:
        entry.size = info.st_size
        seen[info.st_dev, info.st_ino] = inside
    return entry


class Layout:
    """An OCI layout being written."""

    def __init__(self, path):
        self.path = path
        self.blobs = os.path.join(path, "blobs", "sha256")
        os.makedirs(self.blobs)
        with open(os.path.join(path, "oci-layout"), "w") as file:
            file.write('{"imageLayoutVersion":"1.0.0"}')

    def add_layer(self, tree):
        temporary = os.path.join(self.path, "layer.tmp")
        with open(temporary, "wb") as out:
            writer = GzipWriter(out)
            with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK) as tar:
                add_tree(tar, tree, tree, {})
            writer.finish()
        os.rename(temporary, os.path.join(self.blobs, writer.sha.hexdigest()))
        descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                      "digest": "sha256:" + writer.sha.hexdigest(), "size": writer.size}
        return descriptor, "sha256:" + writer.diff.hexdigest()

    def add_json(self, media_type, value):
        data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}


def read_base(path):
    """The manifest and the config of the one image in a layout."""
    def blob(descriptor):
        with open(os.path.join(path, "blobs", *descriptor["digest"].split(":"))) as file:
            return json.load(file)
    with open(os.path.join(path, "index.json")) as file:
        manifest = blob(json.load(file)["manifests"][0])
    return manifest, blob(manifest["config"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--tag", required=True)
    parser.add_argument("--layer", required=True, help="directory tree")
    parser.add_argument("--from", dest="base", help="OCI layout whose image comes below")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--cmd", action="append", default=[])
    parser.add_argument("--workdir")
    options = parser.parse_args()

    temporary = options.out + ".tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    layout = Layout(temporary)
    layers, diff_ids, history, config = [], [], [], {}
    if options.base:
        manifest, below = read_base(options.base)
        layers, diff_ids = manifest["layers"], below["rootfs"]["diff_ids"]
        history, config = below["history"], below["config"]
        for layer in layers:
            name = layer["digest"].split(":")[1]
            os.link(os.path.join(options.base, "blobs", "sha256", name), os.path.join(layout.blobs, name))
    descriptor, diff_id = layout.add_layer(options.layer)
    config["Env"] = config.get("Env", []) + options.env
    if options.cmd:
        config["Cmd"] = options.cmd
    if options.workdir:
        config["WorkingDir"] = options.workdir
    created = "2023-11-14T22:13:20Z"
    config_descriptor = layout.add_json("application/vnd.oci.image.config.v1+json", {
        "created": created, "architecture": ARCHES.get(os.uname().machine, os.uname().machine), "os": "linux",
        "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids + [diff_id]},
        "history": history + [{"created": created, "created_by": "Debian packages"}]})
    manifest_descriptor = layout.add_json("application/vnd.oci.image.manifest.v1+json", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config_descriptor, "layers": layers + [descriptor]})
    manifest_descriptor["annotations"] = {"org.opencontainers.image.ref.name": options.tag}
    with open(os.path.join(temporary, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [manifest_descriptor]}, file)
    shutil.rmtree(options.out, ignore_errors=True)
    os.rename(temporary, options.out)
    print(manifest_descriptor["digest"])


if __name__ == "__main__":
    sys.exit(main())
