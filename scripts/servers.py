"""What cases fetch: a web server and a git server on loopback, with contents that are the same each time."""

import contextlib
import functools
import gzip
import http.server
import io
import os
import socket
import subprocess
import tarfile
import threading
import time

LONG_AGO = 1600000000


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def archive():
    """A gzipped tar of one directory with one file; not squeezed, as every zlib does that in another way."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=0, mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, data in (("top", tarfile.DIRTYPE, b""), ("top/leaf", tarfile.REGTYPE, b"leaf\n")):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime, member.uid = kind, len(data), LONG_AGO, 7
            member.mode = 0o750 if kind == tarfile.DIRTYPE else 0o640
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


@contextlib.contextmanager
def web(work):
    """Serves a few files; yields the address."""
    top = os.path.join(work, "web")
    for path, data in (("file.txt", b"from the web\n"), ("sub/other", b"another\n"), ("packed.tar.gz", archive())):
        os.makedirs(os.path.dirname(os.path.join(top, path)), exist_ok=True)
        with open(os.path.join(top, path), "wb") as file:
            file.write(data)
        os.utime(os.path.join(top, path), (LONG_AGO, LONG_AGO))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=top))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def make_repository(place):
    """Two commits, a tag, a branch, a subdirectory; the same ids on every machine."""
    env = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull, HOME=place)
    for who in ("AUTHOR", "COMMITTER"):
        env.update({f"GIT_{who}_NAME": "kiln", f"GIT_{who}_EMAIL": "kiln@localhost", f"GIT_{who}_DATE": f"{LONG_AGO} +0000"})
    script = """
        umask 022; git init -q -b main .; mkdir sub; echo one >file; echo in >sub/in; echo '#!/bin/sh' >run; chmod 755 run; ln -s file link
        git add -A; git commit -qm first; git tag v1
        echo two >file; git commit -qam second; git branch other; echo three >file; git commit -qam third"""
    os.makedirs(place)
    subprocess.run(["bash", "-euc", script], cwd=place, env=env, check=True)


@contextlib.contextmanager
def git(work):
    """Serves a repository; yields the address."""
    top = os.path.join(work, "git")
    make_repository(os.path.join(top, "repo.git"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={top}", "--export-all", top],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
