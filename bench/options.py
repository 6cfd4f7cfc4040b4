"""What was asked for, and whether it can be had: options, cases, builders, and what must be there before anything is measured."""

import argparse
import os
import shutil
import subprocess
import urllib.error
import urllib.request

from floors import bases
from room import ROOT, Failed

GIB = 1 << 30


class Usage(Exception):
    """Something that was asked for does not exist; the text says what does."""


def parser(text, builders):
    """The options of bench/run.py; `text` is what it says of itself."""
    cache = os.environ.get("KILN_CACHE", os.path.join(ROOT, ".cache"))
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kiln", metavar="FILE", help="the kiln to measure; by default target/release/kiln")
    made.add_argument("--registry", metavar="HOST:PORT", help="a registry with the bases; by default that of scripts/registry.sh, started and stopped")
    made.add_argument("--only", metavar="CASES", help="cases or rows of the table: B3, B3b, B14 for all that begin with it; by default all")
    made.add_argument("--builders", metavar="NAMES", default=",".join(builders), help="which builders; by default %(default)s")
    made.add_argument("--runs", metavar="N", type=int, default=3, help="rounds, at least one; by default %(default)s")
    made.add_argument("--work", metavar="DIR", default=os.path.join(cache, "bench"), help="where stores and contexts go, up to 35 GiB; by default .cache/bench")
    made.add_argument("--plain", action="store_true", help="in the work directory itself, without a filesystem for each case")
    made.add_argument("--check", action="store_true", help="only say whether the options make sense")
    made.add_argument("--publish", action="store_true", help="write docs/performance.* and README's table, too; rows that are not measured stay")
    return made


def complete(options):
    """Paths that follow from what was given."""
    cache = os.environ.get("KILN_CACHE", os.path.join(ROOT, ".cache"))
    options.is_named = options.kiln is not None
    options.kiln = os.path.abspath(options.kiln or os.path.join(ROOT, "target/release/kiln"))
    options.work = os.path.abspath(options.work)
    options.bases, options.inputs, options.peers_tree = bases(), os.path.join(options.work, "inputs"), os.path.join(cache, "peers/tree")
    return options


def selected(only, cases):
    """The cases that are meant; a row stands for the case that it is of, `B14` for all of its counts, stages too."""
    if only is None:
        return cases
    found = set()
    known = {name for kind in cases for name in (kind.name, kind.name.split("-")[0], *kind.rows)}
    for name in (part.strip() for part in only.split(",")):
        meant = [kind for kind in cases if name == kind.name or name in kind.rows or name in families(kind)]
        if not meant:
            raise Usage(f"no case or row `{name}`; there are {', '.join(sorted(known))}")
        found.update(meant)
    return [kind for kind in cases if kind in found]


def families(kind):
    family = kind.name.split("-")[0]
    return {family, family.rstrip("s")}


def wanted(builders, known):
    """The names of the builders that are meant."""
    names = [name.strip() for name in builders.split(",")]
    for name in names:
        if name not in known:
            raise Usage(f"no builder `{name}`; there are {', '.join(known)}")
    return names


def profile(path):
    """`release` or `debug`, by the directory or the name of a program; otherwise nothing is known."""
    parts = path.split(os.sep)
    for part in (parts[-2] if len(parts) > 1 else "", parts[-1]):
        for name in ("release", "debug"):
            if name in part:
                return name
    return "unknown profile"


def built_from(path):
    """Where a kiln comes from: the commit of this tree and the profile when it is of this tree, else its name."""
    path = os.path.realpath(path)
    if not path.startswith(os.path.realpath(ROOT) + os.sep):
        return f"{os.path.basename(path)} from elsewhere, {profile(path)}"
    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return f"unknown commit, {profile(path)}"
    # The page and README's table change by being made.
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/performance.*", ":!README.md")
    return f"{commit}{' + changes' if dirty else ''}, {profile(path)}"


def git(*arguments):
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check_words(options):
    """Raises `Usage` for what makes no sense on any machine."""
    if options.runs < 1:
        raise Usage(f"--runs {options.runs}: at least one round is needed")
    if os.path.exists(options.work) and not os.path.isdir(options.work):
        raise Usage(f"--work {options.work}: that is no directory")


def check(options, cases, names):
    """Raises `Usage` or `Failed` for what would stop every case."""
    if options.publish and not options.is_named and profile(os.path.realpath(options.kiln)) == "debug":
        raise Usage(f"{options.kiln} is a debug build, which is not published unless --kiln names it")
    if os.geteuid() != 0:
        raise Failed("measuring needs root, also for kiln alone: floors mount overlays, and each case has a filesystem; run it by sudo")
    if "kiln" in names and not os.access(options.kiln, os.X_OK):
        raise Failed(f"there is no kiln at {options.kiln}; build it with `cargo build --release`, or name it with --kiln")
    need = space(cases, names)
    try:
        os.makedirs(options.work, exist_ok=True)
        free = shutil.disk_usage(options.work).free
    except OSError as error:
        raise Failed(f"--work {options.work}: {error.strerror}") from error
    if free < need * GIB:
        raise Failed(f"{options.work} has {free / GIB:.1f} GiB free, {need} are needed; name another directory with --work")


def space(cases, names):
    """GiB that the disk must have: what the largest case takes of it."""
    most = max(kind.disk for kind in cases)
    return most if len(names) > 1 else min(most, 12)


def check_bases(options):
    """Raises `Failed` when the registry does not answer or has no base, or when the bases' layouts are not there."""
    hint = "make it with `scripts/bases.sh busybox python`"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = f"http://{options.registry}/v2/busybox/manifests/latest"
    try:
        opener.open(urllib.request.Request(address, method="HEAD", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}), timeout=20).close()
    except urllib.error.HTTPError as error:
        raise Failed(f"the registry {options.registry} has no base busybox:latest ({error.code}); {hint}") from error
    except (OSError, ValueError) as error:
        raise Failed(f"the registry {options.registry} does not answer ({error}); `scripts/registry.sh start` starts one") from error
    if not os.path.exists(os.path.join(options.bases, "busybox/oci/index.json")):
        raise Failed(f"there is no base busybox in {options.bases}; {hint}, or set KILN_BASES")
