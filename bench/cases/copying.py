"""B3: a context of 20,000 files, cold, with one changed and with none changed."""

import hashlib
import os

from bench import expect
from case import Case, Row

FILES, SIZE = 20_000, 2048


class Copies(Case):
    name = "B3"
    rows = {"B3": Row("`COPY` of 20,000 files of 2 KiB, cold", goal=1.2),
            "B3b": Row("the same, one file changed", goal=0.6),
            "B3c": Row("the same, none changed", goal=0.08)}

    def prepare(self, bench):
        files = {f"d{i % 200:03}/f{i:05}": b"%017d\n" % i * (SIZE // 18) for i in range(FILES)}
        self.another = hashlib.sha256(files["d008/f00008"]).hexdigest()
        self.context = bench.context({**files, "Dockerfile": f"FROM {bench.base()}\nCOPY . /data\n"})

    def floor(self, bench, floors):
        floors.copied("B3", self.context)
        floors.copied("B3b", self.context)
        floors.looked_at("B3c", self.context)

    def turn(self, bench, kind, number):
        builder = bench.warm(kind)
        build = builder.build(self.context)
        bench.note("B3", builder, bench.time(builder, build))
        for _ in range(2):
            bench.note("B3c", builder, bench.time(builder, build))
        changed = f"{kind.name} {number}\n".encode() * 256
        with open(os.path.join(self.context, "d007/f00007"), "wb") as file:
            file.write(changed)
        bench.note("B3b", builder, bench.time(builder, build))
        tree, _ = builder.image(self.context)
        expect(sum(1 for name in tree if name.startswith("data/d") and tree[name].kind == "file") == FILES, f"{FILES} files were copied")
        expect(tree["data/d007/f00007"].content.endswith(hashlib.sha256(changed).hexdigest()), "the changed file is the changed one")
        expect(tree["data/d008/f00008"].content.endswith(self.another), "another file is itself")


CASES = [Copies]
