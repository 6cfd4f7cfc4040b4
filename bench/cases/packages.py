"""B7: pip's own packages from an index on loopback; and what such a step leaves, kept while the application changes."""

import hashlib
import os
import shutil
import subprocess
import sys

from bench import expect
from case import Case, Row
from floors import base_root
from room import Failed

WANTED = ["flask", "requests", "numpy"]


def wheels(bench):
    """The wheels, fetched once by this machine's pip, whatever index that uses."""
    kept = os.path.join(bench.options.inputs, "wheels")
    if not os.path.exists(f"{kept}/done"):
        shutil.rmtree(kept, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", kept, "--only-binary=:all:", "--python-version", "3.11", *WANTED]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command[:4])} ended with {done.returncode}\n{done.stdout.strip()}")
        open(f"{kept}/done", "w").close()
    return kept


def index(bench, kept):
    """A simple index: a directory for each project, as a plain web server lists it."""
    top = bench.path("index")
    for name in os.listdir(kept):
        if name.endswith(".whl"):
            project = name.split("-")[0].lower().replace("_", "-").replace(".", "-")
            os.makedirs(f"{top}/simple/{project}", exist_ok=True)
            shutil.copy(f"{kept}/{name}", f"{top}/simple/{project}/")
    return top


class Installs(Case):
    name = "B7"
    rows = {"B7": Row("`pip install flask requests numpy` and `COPY` of an application, new store with the base", beyond_floor=0.3)}

    def prepare(self, bench):
        self.root = base_root(bench, "python")
        address = bench.serve(index(bench, wheels(bench)))
        self.install = ("pip install --quiet --no-cache-dir --disable-pip-version-check --trusted-host 127.0.0.1 "
                        f"--index-url http://{address}/simple {' '.join(WANTED)}")
        self.context = bench.context({"Dockerfile": f"FROM {bench.base('python')}\nRUN {self.install}\nCOPY app /app\nCMD [\"python\", \"/app/app.py\"]\n",
                                      **{f"app/m{i}.py": f"print({i})\n" * 40 for i in range(50)}, "app/app.py": "import flask\n"})

    def floor(self, bench, floors):
        floors.in_root("B7", "the same `pip` in a `chroot` on an overlay of the same tree", self.root, self.install)

    def turn(self, bench, kind, number):
        builder = bench.warm(kind, base="python")
        measured = bench.time(builder, builder.build(self.context), sample=True)
        measured.memory, measured.files, measured.together = measured.own, None, None  # pip takes more than any builder
        bench.note("B7", builder, measured)
        if number == 0:
            tree, _ = builder.image(self.context)
            expect(all(any(name.endswith(f"-packages/{package}/__init__.py") for name in tree) for package in WANTED), "the packages are there")
            expect("app/app.py" in tree, "the application is there")


class Changed(Case):
    name = "B7b"
    rows = {"B7b": Row("installed packages kept, one file of the application changed", goal=0.03)}
    # What a package manager leaves, without the network it needs: 6,000 files in 300 directories.
    install = ("for d in $(seq 300); do mkdir -p /usr/lib/python3/site-packages/p$d && cd /usr/lib/python3/site-packages/p$d && "
               "for f in $(seq 20); do seq $d $((d + 400)) >m$f.py; done; done")

    def prepare(self, bench):
        self.text = f"FROM {bench.base()}\nWORKDIR /app\nCOPY requirements.txt .\nRUN {self.install}\nCOPY . .\nCMD [\"python3\", \"app.py\"]\n"

    def files(self):
        return {"Dockerfile": self.text, "requirements.txt": "flask\n", "app.py": "print(0)\n", **{f"app/m{i}.py": f"print({i})\n" * 40 for i in range(50)}}

    def floor(self, bench, floors):
        floors.copied("B7b", bench.context(self.files()), "`cp -a` of the application")

    def turn(self, bench, kind, number):
        if kind.name not in self.ready:
            self.ready[kind.name] = bench.warm(kind), bench.context(self.files())
            builder, context = self.ready[kind.name]
            builder.run(builder.build(context))
        builder, context = self.ready[kind.name]
        for again in range(3):
            content = f"print({number}, {again})\n"
            with open(os.path.join(context, "app.py"), "w") as file:
                file.write(content)
            bench.note("B7b", builder, bench.time(builder, builder.build(context)))
        if number == 0:
            tree, _ = builder.image(context)
            expect(tree["app/app.py"].content.endswith(hashlib.sha256(content.encode()).hexdigest()), "the changed file is the changed one")
            expect(sum(name.endswith(".py") for name in tree) == 6051, "all of the packages and of the application is there")


CASES = [Installs, Changed]
