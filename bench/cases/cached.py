"""B1: a rebuild of twelve instructions when nothing has changed."""

from bench import expect
from case import Case, Row
from floors import base_root


# Counted by scripts/instructions.py, too.
DOCKERFILE = """FROM {base}
ENV APP=bench
WORKDIR /app
COPY one.txt .
RUN echo first >first
RUN echo second >second
COPY two.txt ./
LABEL version=1
EXPOSE 8080
RUN echo third >third
USER nobody
CMD ["cat", "/app/one.txt"]
"""
FILES = {"one.txt": "one\n", "two.txt": "two\n"}


class Cached(Case):
    name = "B1"
    rows = {"B1": Row("a rebuild of 12 instructions, nothing changed", goal=0.015)}

    def prepare(self, bench):
        self.root = base_root(bench, "busybox")

    def floor(self, bench, floors):
        floors.take("B1", "a static program that does nothing, started by `sh`", f"{self.root}/bin/busybox true")

    def turn(self, bench, kind, number):
        if kind.name not in self.ready:
            builder = bench.warm(kind)
            context = bench.context({"Dockerfile": DOCKERFILE.format(base=bench.base()), **FILES})
            bench.time(builder, builder.build(context))
            tree, config = builder.image(context)
            expect({"app/one.txt", "app/two.txt", "app/first", "app/second", "app/third"} <= set(tree), "all five files are there")
            expect(config["config"]["User"] == "nobody", "the user is nobody")
            self.ready[kind.name] = builder, context
        builder, context = self.ready[kind.name]
        for _ in range(5):
            bench.note("B1", builder, bench.time(builder, builder.build(context)))


CASES = [Cached]
