"""B14: how the cost of a build grows with its steps and its stages."""

from bench import expect
from case import Case, Row

PATIENCE = 120  # seconds


class Steps(Case):
    """One count of `RUN true`."""

    count = 0

    def prepare(self, bench):
        # Each has a key of its own whatever a builder thinks of equal commands.
        self.text = f"FROM {bench.base()}\n" + "".join(f"RUN true {i}\n" for i in range(self.count))

    def turn(self, bench, kind, number):
        row = f"B14-{self.count}"
        fewer = bench.rows.get("B14-100", {}).get(kind.name, {})
        if self.count == 1000 and kind.name != "kiln" and (not fewer.get("seconds") or min(fewer["seconds"]) * 10 > PATIENCE * 2):
            took = "100 were not asked for" if "B14-100" not in bench.rows else "it has not managed 100"
            if fewer.get("seconds"):
                took = f"100 took it {min(fewer['seconds']):.0f} s"
            bench.failed(self.rows, kind.name, f"not tried: {took}")
            return
        builder, context = bench.warm(kind), bench.context({"Dockerfile": self.text})
        bench.note(row, builder, bench.time(builder, builder.build(context), PATIENCE * 2, sample=True))
        for _ in range(2):
            bench.note(f"B14n-{self.count}", builder, bench.time(builder, builder.build(context), PATIENCE, sample=True))
        if number == 0:
            _, config = builder.image(context)
            steps = sum(1 for h in config["history"] if "true " in h.get("created_by", ""))
            expect(steps == self.count, f"{self.count} steps are in the history: there are {steps}")


class Stages(Case):
    """One count of stages with a `RUN` each, of which a last one copies from all."""

    count = 0

    def prepare(self, bench):
        base = f"FROM {bench.base()}"
        stages = "".join(f"{base} AS s{i}\nRUN echo {i} >/out{i}\n" for i in range(self.count))
        self.text = stages + base + "\n" + "".join(f"COPY --from=s{i} /out{i} /out/\n" for i in range(self.count))

    def turn(self, bench, kind, number):
        builder, context = bench.warm(kind), bench.context({"Dockerfile": self.text})
        bench.note(f"B14s-{self.count}", builder, bench.time(builder, builder.build(context), PATIENCE, sample=True))
        if number == 0:
            tree, _ = builder.image(context)
            expect({f"out/out{i}" for i in range(self.count)} <= set(tree), f"the files of all {self.count} stages are there")


def steps(count):
    rows = {f"B14-{count}": Row(f"{count:,} × `RUN true`, new store with the base"), f"B14n-{count}": Row("the same again, nothing changed")}
    return type(f"Steps{count}", (Steps,), {"name": f"B14-{count}", "rows": rows, "count": count, "peer_turns": 1 if count > 10 else None})


def stages(count):
    rows = {f"B14s-{count}": Row(f"{count} {'stage' if count == 1 else 'stages'} of a `RUN` each, then `COPY --from` each")}
    return type(f"Stages{count}", (Stages,), {"name": f"B14s-{count}", "rows": rows, "count": count, "peer_turns": 1 if count > 16 else None})


CASES = [steps(10), steps(100), steps(1000), stages(1), stages(16), stages(64)]
