"""B15: many builds at once with one store."""

import hashlib

from bench import expect
from case import Case, Row

COUNT = 64
PATIENCE = 150  # seconds


class Many(Case):
    name = "B15"
    rows = {"B15": Row(f"{COUNT} builds of 4 steps at once, one new store with the base"),
            "B15n": Row("the same again, nothing changed")}
    peer_turns = 1

    def turn(self, bench, kind, number):
        builder = bench.warm(kind)
        contexts = [bench.context({"Dockerfile": f"FROM {bench.base()}\nCOPY file /\nRUN echo {i} >/number\nRUN mkdir /d{i} && cp /file /d{i}/\nLABEL number={i}\n",
                                   "file": f"{i}\n" * 100}) for i in range(COUNT)]
        commands = [builder.build(context, tag=f"bench-{i}") for i, context in enumerate(contexts)]
        bench.note("B15", builder, bench.time_many(builder, commands, PATIENCE))
        bench.note("B15n", builder, bench.time_many(builder, commands, PATIENCE))
        if number:
            return
        # All of kiln's, and each fourth of the others', whose images take longer to read than to build.
        for i, context in list(enumerate(contexts))[::1 if kind.name == "kiln" else 4]:
            tree, config = builder.image(context, tag=f"bench-{i}")
            expect(tree["number"].content.endswith(hashlib.sha256(f"{i}\n".encode()).hexdigest()), f"image {i} has its number")
            expect(f"d{i}/file" in tree and config["config"]["Labels"]["number"] == str(i), f"image {i} has its directory and label")


CASES = [Many]
