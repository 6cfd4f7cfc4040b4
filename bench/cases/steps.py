"""B2, B5, B8, B9: steps that do nothing, that wait, that print and that make many files."""

import hashlib
import re

from bench import expect
from case import Case, Row
from floors import base_root

LINES = 200_000
FILES = 30_000
MAKE = f"mkdir -p /data; cd /data; for d in $(seq 100); do mkdir d$d; done; for i in $(seq {FILES}); do echo $i >d$((i % 100 + 1))/f$i; done"


class Starts(Case):
    name = "B2"
    rows = {"B2": Row("one `RUN true`, of 20 on a new store, less a rebuild", goal=0.010, unit="s a step")}

    def prepare(self, bench):
        self.text, self.root = f"FROM {bench.base()}\n" + "RUN true\n" * 20, base_root(bench, "busybox")

    def floor(self, bench, floors):
        floors.mounts("B2", "an overlay mounted, `true` run in it by `chroot`, unmounted", self.root, 20)

    def turn(self, bench, kind, number):
        builder, context = bench.warm(kind), bench.context({"Dockerfile": self.text})
        cold = bench.time(builder, builder.build(context))
        again = bench.time(builder, builder.build(context))
        bench.note("B2", builder, cold, divide=20, less=again.seconds)
        if number == 0:
            _, config = builder.image(context)
            steps = [h for h in config["history"] if "true" in h.get("created_by", "")]
            expect(len(steps) == 20, "twenty steps are in the history")


class Waits(Case):
    name = "B5"
    rows = {"B5": Row("four stages of `sleep 2`, then `COPY --from` each", goal=2.15)}

    def prepare(self, bench):
        base = f"FROM {bench.base()}"
        stages = "".join(f"{base} AS s{i}\nRUN sleep 2 && echo {i} >/out{i}\n" for i in range(4))
        self.text = stages + base + "\n" + "".join(f"COPY --from=s{i} /out{i} /\n" for i in range(4))

    def floor(self, bench, floors):
        floors.take("B5", "`sleep 2`", "sleep 2")

    def turn(self, bench, kind, number):
        builder, context = bench.warm(kind), bench.context({"Dockerfile": self.text})
        bench.note("B5", builder, bench.time(builder, builder.build(context)))
        if number == 0:
            tree, _ = builder.image(context)
            expect({f"out{i}" for i in range(4)} <= set(tree), "the files of all four stages are there")


class Prints(Case):
    name = "B8"
    rows = {"B8": Row("a `RUN` that prints 200,000 lines", goal=0.15)}

    def prepare(self, bench):
        self.root = base_root(bench, "busybox")

    def floor(self, bench, floors):
        out = bench.path("lines")
        floors.take("B8", "the same lines through a pipe into a file", f"{self.root}/bin/busybox seq {LINES} | cat >{out}")

    def turn(self, bench, kind, number):
        if kind.name not in self.ready:
            self.ready[kind.name] = bench.warm(kind)
        builder = self.ready[kind.name]
        for again in range(2):
            context = bench.context({"Dockerfile": f"FROM {bench.base()}\nRUN : {number} {again}; seq {LINES}\n"})
            bench.note("B8", builder, bench.time(builder, builder.build(context)))
            told = self.told(builder.log)
            if kind.name == "kiln":
                expect(told == LINES, f"all {LINES} lines are in the log: there are {told}")
            elif number == again == 0:
                bench.tell("B8", f"{told:,} of the {LINES:,} lines are in its log", kind.name)

    @staticmethod
    def told(log):
        """How many of the lines are there."""
        with open(log, errors="replace") as file:
            found = {int(match[1]) for match in (re.search(r"(?:^|\s)(\d+)$", line.rstrip()) for line in file) if match}
        return sum(1 for number in found if 1 <= number <= LINES)


class Makes(Case):
    name = "B9"
    rows = {"B9": Row("a `RUN` that makes 30,000 files, a second that changes one; image stored", goal=1.5)}

    def prepare(self, bench):
        self.root = base_root(bench, "busybox")
        self.text = f"FROM {bench.base()}\nRUN {MAKE}\nRUN echo changed >/data/d8/f7\n"

    def floor(self, bench, floors):
        floors.in_root("B9", "the same commands by the same shell in a `chroot` on an overlay", self.root, f"{MAKE}; echo changed >/data/d8/f7")

    def turn(self, bench, kind, number):
        builder, context = bench.warm(kind), bench.context({"Dockerfile": self.text})
        bench.note("B9", builder, bench.time(builder, builder.build(context)))
        if number == 0:
            tree, _ = builder.image(context)
            expect(sum(1 for name in tree if re.fullmatch(r"data/d\d+/f\d+", name)) == FILES, f"{FILES} files are there")
            expect(tree["data/d8/f7"].content.endswith(hashlib.sha256(b"changed\n").hexdigest()), "the changed file is the changed one")


CASES = [Starts, Waits, Prints, Makes]
