"""B11, B12: a machine that has never built this, with what another one left at a registry: results, and a cache mount."""

from bench import expect
from case import Case, Row

STEPS, OBJECTS = 6, 48


class Results(Case):
    name = "B11"
    rows = {"B11": Row(f"{STEPS} steps of 1,000 files each, results at a registry (`mode=max`), empty store")}

    def prepare(self, bench):
        bench.own_registry()
        # A step that runs again says so, and makes another id: log and image tell who was here.
        made = "".join(f"RUN mkdir -p /lib/p{s}; cd /lib/p{s}; for f in $(seq 1000); do seq $f $((f + 200)) >m$f; done; "
                       f"cat /proc/sys/kernel/random/uuid >id; echo ran-$((1 + 1))\n" for s in range(STEPS))
        self.text = f"FROM {bench.base()}\nCOPY requirements.txt /\n{made}COPY app /app\n"

    def turn(self, bench, kind, number):
        cache = f"{bench.own_registry()}/cache/{kind.name}-{number}{kind.cache_tag}"
        context = bench.context({"Dockerfile": self.text, "requirements.txt": f"{kind.name} {number}\n",
                                 **{f"app/m{i}": f"{i}\n" * 40 for i in range(200)}})
        first = bench.cold(kind)
        expect("ran-2" in first.run(first.build(context, *first.cache_to(cache))), "the steps have run on the first machine")
        before, _ = first.image(context)
        second = bench.cold(kind)
        bench.note("B11", second, bench.time(second, second.build(context, *second.cache_from(cache))))
        with open(second.log, errors="replace") as log:
            expect("ran-2" not in log.read(), "no step has run again")
        after, _ = second.image(context, more=second.cache_from(cache))
        for step in range(STEPS):
            expect(before[f"lib/p{step}/id"].content == after[f"lib/p{step}/id"].content, "no step has run again")
        expect(len(after) == len(before) and "app/m199" in after, "the image has all its files")


class Mounts(Case):
    name = "B12"
    rows = {"B12": Row(f"a changed step whose cache mount of {OBJECTS} objects (48 MB) another machine has filled, empty store")}

    def prepare(self, bench):
        bench.own_registry()
        self.make = ("cd /cache; made=0; for i in $(seq %d); do [ -e $i.o ] || { dd if=/dev/zero bs=1M count=32 2>/dev/null | sha256sum >$i.sum; "
                     "dd if=/dev/urandom of=$i.o bs=1M count=1 2>/dev/null; made=$((made + 1)); }; done; echo $made >/made; cat *.o >/program") % OBJECTS

    def text(self, bench, turn):
        return f"FROM {bench.base()}\nCOPY source /\nRUN --mount=type=cache,target=/cache,id={turn} {self.make}\n"

    def turn(self, bench, kind, number):
        cache = f"{bench.own_registry()}/mounts/{kind.name}-{number}:cache"
        is_carried = kind.name == "kiln"
        text = self.text(bench, f"{kind.name}-{number}")
        if is_carried:
            first = bench.cold(kind)
            context = bench.context({"Dockerfile": text, "source": "one\n"})
            first.run(first.build(context, "--cache-to", f"type=registry,ref={cache},mode=max,mounts=all"))
        second = bench.warm(kind)
        context = bench.context({"Dockerfile": text, "source": "two\n"})
        more = second.cache_from(cache) if is_carried else []
        bench.note("B12", second, bench.time(second, second.build(context, *more)))
        if not is_carried:
            bench.tell("B12", "its cache mounts do not travel: it runs the step from nothing", kind.name)
        out, _ = second.image(context)
        expect(out["program"].content.startswith(f"{OBJECTS << 20} "), "the program is made of all objects")
        made = {0: "0\n", OBJECTS: f"{OBJECTS}\n"}[0 if is_carried else OBJECTS]
        expect(out["made"].content.startswith(f"{len(made)} "), f"{made.strip()} objects were made anew")


CASES = [Results, Mounts]
