"""B13: how the cost of a context grows with its files."""

from bench import expect
from case import Case, Row
from figures import SIZES


class Contexts(Case):
    """One count of files."""

    size = ""

    def prepare(self, bench):
        files = {f"d{i // 500:03}/f{i:06}": b"%d\n" % i * 40 for i in range(SIZES[self.size])}
        self.context = bench.context({**files, "Dockerfile": f"FROM {bench.base()}\nCOPY d* /data/\n", "keep/one": "one\n"})
        self.ignored = f"{self.context}/.dockerignore"

    def floor(self, bench, floors):
        floors.copied(f"B13-{self.size}", self.context)
        floors.looked_at(f"B13n-{self.size}", self.context)

    def turn(self, bench, kind, number):
        count = SIZES[self.size]
        bench.remove(self.ignored)
        builder = bench.warm(kind)
        build = builder.build(self.context)
        bench.note(f"B13-{self.size}", builder, bench.time(builder, build, sample=True))
        for _ in range(2):
            bench.note(f"B13n-{self.size}", builder, bench.time(builder, build, sample=True))
        if number == 0:
            tree, _ = builder.image(self.context)
            found = sum(1 for name in tree if name.startswith("data/") and tree[name].kind == "file")
            expect(found == count, f"{count} files are there: there are {found}")
        if f"B13i-{self.size}" in self.rows:
            self.ignore(bench, kind, number)

    def ignore(self, bench, kind, number):
        with open(self.ignored, "w") as file:
            file.write("d*\n!d000\n")
        builder = bench.warm(kind)
        bench.note(f"B13i-{self.size}", builder, bench.time(builder, builder.build(self.context), sample=True))
        if number == 0:
            # Some builders build anew to be read back.
            tree, _ = builder.image(self.context)
            found = sum(1 for name in tree if name.startswith("data/") and tree[name].kind == "file")
            expect(found == 500, f"only the 500 files of `d000` are there: there are {found}")
        bench.remove(self.ignored)


def of(size, files, title, more):
    rows = {f"B13-{size}": Row(f"`COPY` of {files} small files, cold"), f"B13n-{size}": Row("the same, none changed"), **more}
    return type(f"Contexts{title}", (Contexts,), {"name": f"B13-{size}", "rows": rows, "size": size, "peer_turns": 1 if size == "100k" else None})


Thousand = of("1k", "1,000", "Thousand", {})
TenThousand = of("10k", "10,000", "TenThousand", {})
HundredThousand = of("100k", "100,000", "HundredThousand", {"B13i-100k": Row("the same context with a `.dockerignore` that leaves 500 of them")})

CASES = [Thousand, TenThousand, HundredThousand]
