#!/usr/bin/env python3
"""Builds the cases of crates/kiln/tests/differential with kiln and compares trees, configs and histories with others'.

    compare.py [CASE]...                 with what BuildKit made, as recorded/ beside the cases remembers it
    compare.py --live buildah [CASE]...  with this machine's buildah, now
    compare.py --live peer-buildah       with the buildah of scripts/peers.sh; --live buildkit with its BuildKit
    compare.py --record [CASE]...        writes recorded/ anew (needs scripts/peers.sh start)

A case is a folder with a Dockerfile, a context, and if needed `context.sh` (makes what git cannot keep), `case.json` (see
the README there) and `Dockerfile.buildah` (the same build for a builder that lacks a feature). Differences we accept stand
with their reasons in accepted.json. Only what a build adds to its base counts, since bases differ between machines.
Exit code: 0 the same, 1 different, 3 when a tool is missing.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import urllib.request

import servers
from builders import CASES, DIFFERENTIAL, ROOT, Buildah, BuildKit, Case, Kiln, PeerBuildah, run
from images import Tree, read_layer

RECORDED = os.path.join(DIFFERENTIAL, "recorded")
LIVE = {"buildah": Buildah, "peer-buildah": PeerBuildah, "buildkit": BuildKit}
BASES = {"busybox": "latest", "debian": "bookworm-slim"}
# What the docker format of other builders has in common with BuildKit's.
CONFIG_FIELDS = ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
                 "Healthcheck", "Shell", "OnBuild"]
BEFORE_THE_BUILD = 1700000000  # later modification times are the build's own


# --- what a build adds to its base ------------------------------------------------------------------------------------

class Bases:
    """What the registry's images consist of, so that it can be taken away."""

    def __init__(self, registry):
        self.registry, self.known = registry, []
        # The registry is on loopback; a proxy has no business there.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for name, tag in BASES.items():
            manifest = json.loads(self.fetch(name, f"manifests/{tag}"))
            config = json.loads(self.fetch(name, f"blobs/{manifest['config']['digest']}"))
            self.known.append((name, config, manifest))
        self.trees = {}
        for name, config, manifest in self.known:
            self.tree(name, manifest, config["rootfs"]["diff_ids"])
        # Where a build has copied a base's file, its content is another on each machine.
        self.contents = {node.content: f"that of {name}'s {printable(path)}" for name, tree in sorted(self.trees.items())
                         for path, node in sorted(tree.items(), reverse=True) if node.content and int(node.content.split(" ")[0]) > 4096}

    def fetch(self, name, path):
        request = urllib.request.Request(f"http://{self.registry}/v2/{name}/{path}",
                                         headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        with self.opener.open(request) as answer:
            return answer.read()

    def below(self, config):
        """Name, tree and history of the base that an image with this config stands on."""
        for name, base, manifest in self.known:
            ids = base["rootfs"]["diff_ids"]
            if config["rootfs"]["diff_ids"][:len(ids)] == ids:
                return name, self.tree(name, manifest, ids), base.get("history", [])
        return None, Tree(), []

    def tree(self, name, manifest, diff_ids):
        if name not in self.trees:
            tree = Tree()
            for descriptor, diff_id in zip(manifest["layers"], diff_ids):
                with tempfile.NamedTemporaryFile() as file:
                    file.write(self.fetch(name, f"blobs/{descriptor['digest']}"))
                    file.flush()
                    tree.apply(read_layer(file.name, diff_id))
            self.trees[name] = tree
        return self.trees[name]


def printable(name):
    return "/" + name.encode("utf-8", "backslashreplace").decode()


def entry(tree, links, name, contents, has_time):
    fields = tree[name].fields()
    fields["content"] = contents.get(fields["content"], fields["content"])
    if has_time and tree[name].mtime < BEFORE_THE_BUILD:
        fields["mtime"] = tree[name].mtime
    if name in links:
        fields["links"] = [printable(other) for other in links[name] if other != name]
    return {key: value for key, value in fields.items() if value not in ("", {}, None)}


def summary(image, bases, addresses, is_thorough=True):
    """What a build made, as plain values without its base and without what changes from machine to machine."""
    tree, config = image
    base, below, before = bases.below(config)
    links, links_below = tree.links(), below.links()
    added = {}
    for name in sorted(set(tree) | set(below)):
        now = entry(tree, links, name, bases.contents, is_thorough) if name in tree else None
        if now != (entry(below, links_below, name, bases.contents, is_thorough) if name in below else None):
            added[printable(name)] = now
    history = [{key: value for key, value in step.items() if key != "created"} for step in config.get("history", [])[len(before):]]
    top = {key: value for key, value in config.items() if key not in ("config", "history", "rootfs", "created")}
    settings = {key: value for key, value in (config.get("config") or {}).items() if value not in (None, [], {}, "")}
    if not is_thorough:
        top = {key: top.get(key) for key in ("architecture", "os")}
        settings = {key: value for key, value in settings.items() if key in CONFIG_FIELDS}
    return neutral({"base": base, "tree": added, "config": {**top, **settings}, "history": history}, addresses)


def neutral(value, addresses):
    text = json.dumps(value)
    for name, address in addresses.items():
        text = text.replace(address, name)
    return json.loads(text)


# --- recordings -------------------------------------------------------------------------------------------------------

def recording(name):
    return os.path.join(RECORDED, f"{name}.json")


def write_recording(name, by, made):
    """One line for each file and step, so that a change is seen where it is."""
    line = lambda value: json.dumps(value, ensure_ascii=False)
    rows = lambda pairs: ",\n".join(f"  {line(key)}: {line(value)}" for key, value in pairs)
    text = (f'{{"by": {line(by)}, "base": {line(made["base"])}, "tree": {{\n{rows(made["tree"].items())}\n}}, "config": {{\n'
            f'{rows(sorted(made["config"].items()))}\n}}, "history": [\n' + ",\n".join("  " + line(step) for step in made["history"]) + "\n]}\n")
    os.makedirs(RECORDED, exist_ok=True)
    with open(recording(name), "w") as file:
        file.write(text)


def read_recording(name):
    try:
        with open(recording(name)) as file:
            return json.load(file)
    except FileNotFoundError:
        raise RuntimeError("nothing is recorded for it: `scripts/compare.py --record`") from None


# --- comparing --------------------------------------------------------------------------------------------------------

class Accepted:
    """The differences we accept. Each must still occur, or the list would rot."""

    def __init__(self, builder):
        with open(os.path.join(DIFFERENTIAL, "accepted.json")) as file:
            self.rules = [rule for rule in json.load(file) if rule["from"] == builder]
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


def differences(ours, theirs, is_thorough):
    """Yields (where, field, ours, theirs)."""
    for name in sorted(set(ours["tree"]) | set(theirs["tree"])):
        a, b = (side["tree"].get(name, "as in the base") for side in (ours, theirs))
        if not (isinstance(a, dict) and isinstance(b, dict)):
            if a != b:
                yield name, "existence", a, b
            continue
        for field in sorted(set(a) | set(b)):
            # Where theirs is the time of their build there is nothing to compare ours with.
            comparable = field != "mtime" or (is_thorough and field in b)
            if a.get(field) != b.get(field) and comparable:
                yield name, field, a.get(field), b.get(field)
    for field in sorted(set(ours["config"]) | set(theirs["config"])):
        if ours["config"].get(field) != theirs["config"].get(field):
            yield "config", field, ours["config"].get(field), theirs["config"].get(field)
    if not is_thorough:
        return
    if len(ours["history"]) != len(theirs["history"]):
        texts = lambda side: [step.get("created_by") for step in side["history"]]
        yield "history", "length", texts(ours), texts(theirs)
        return
    for index, (a, b) in enumerate(zip(ours["history"], theirs["history"])):
        for field in sorted(set(a) | set(b)):
            if a.get(field) != b.get(field):
                yield f"history {index}", field, a.get(field), b.get(field)


class Comparison:
    """kiln against one reference, case by case."""

    def __init__(self, options, work, addresses):
        self.options, self.work, self.addresses, self.bases = options, work, addresses, Bases(options.registry)
        self.kiln = Kiln(options.kiln, os.path.join(work, "state"))
        self.live = LIVE[options.live](*self.live_arguments()) if options.live else None
        self.who = {None: "buildkit", "peer-buildah": "buildah"}.get(options.live, options.live)
        self.accepted = Accepted(self.who)

    def live_arguments(self):
        at = [os.path.join(self.work, "buildah")] if self.options.live == "buildah" else []
        return at + [self.options.registry]

    def reference(self, case):
        if not self.live:
            return read_recording(case.name)
        return summary(self.live.build(case), self.bases, self.addresses, self.is_thorough(case))

    def ours(self, case):
        image = self.kiln.build(case)
        if self.live:
            self.kiln.judge(case, image[0])
        return summary(image, self.bases, self.addresses, self.is_thorough(case))

    def is_thorough(self, case):
        """buildah keeps other times, and writes a history of its own."""
        return self.who == "buildkit" and case.reference == "buildkit"

    def case(self, name):
        """What to say about a case, and how much of it nobody has accepted."""
        try:
            case = Case(name, self.work, self.addresses)
            theirs = self.reference(case)
            ours = self.ours(case)
        except (RuntimeError, ValueError) as error:
            return f"FAILED   {name}: {error}", 1
        found, silent = [], 0
        for where, field, a, b in differences(ours, theirs, self.is_thorough(case)):
            if self.accepted.covers(name, where, field):
                silent += 1
                continue
            found.append(f"  {name}: {where} {field}: kiln {a!r}, {self.who} {b!r}")
        verdict = f"{'DIFFERS' if found else 'same   '}  {name}" + (f" ({silent} accepted)" if silent else "")
        return "\n".join(found + [verdict]), len(found)

    def close(self):
        if self.live and hasattr(self.live, "close"):
            self.live.close()


def compare(options, names, work, addresses):
    comparison = Comparison(options, work, addresses)
    if comparison.live:
        print(f"reference: {comparison.live.describe()}")
    try:
        bad = 0
        # buildah's store is one for all.
        workers = 1 if options.live else os.cpu_count()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for said, count in pool.map(comparison.case, names):
                print(said, flush=True)
                bad += count
    finally:
        comparison.close()
    if names == all_cases():
        for rule in comparison.accepted.unused():
            print(f"  accepted.json: nothing differs any more: {rule}")
            bad += 1
    print(f"{len(names)} cases, {bad} unaccepted differences")
    return 1 if bad else 0


def record(options, names, work, addresses):
    bases = Bases(options.registry)
    builders, failed = {"buildkit": BuildKit(options.registry, options.builder), "buildah": PeerBuildah(options.registry)}, 0
    builders["buildkit"].forget()
    by = {name: builder.describe() for name, builder in builders.items()}
    for name in names:
        case = Case(name, work, addresses)
        try:
            made = builders[case.reference].build(case)
            write_recording(name, by[case.reference], summary(made, bases, addresses, case.reference == "buildkit"))
            print(f"recorded {name}", flush=True)
        except (RuntimeError, ValueError) as error:
            failed += 1
            print(f"FAILED   {name}: {error}", flush=True)
    return 1 if failed else 0


def all_cases():
    return sorted(os.listdir(CASES))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--kiln", default=os.path.join(ROOT, "target/debug/kiln"))
    parser.add_argument("--registry", help="default: the one of scripts/registry.sh")
    parser.add_argument("--live", choices=sorted(LIVE))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--builder", help="with --record: buildx's name of the BuildKit to ask")
    parser.add_argument("--keep", action="store_true", help="keep the work directory")
    options = parser.parse_args()
    options.registry = options.registry or run([os.path.join(ROOT, "scripts/registry.sh"), "address"]).strip()
    needed = (["buildah", "runc"] if options.live == "buildah" else []) + ([] if options.record else [options.kiln])
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        print(f"error: missing: {', '.join(missing)}", file=sys.stderr)
        return 3
    work = tempfile.mkdtemp(prefix="kiln-compare-")
    try:
        names = options.cases or all_cases()
        with servers.web(work) as web, servers.git(work) as git:
            addresses = {"REGISTRY": options.registry, "WEB": web, "GIT": git}
            return (record if options.record else compare)(options, names, work, addresses)
    finally:
        if options.keep:
            print(f"kept {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
