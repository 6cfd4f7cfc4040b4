"""Writes README's table: some rows of the page in plain words. Everything but what is between two marks stays as it was typed."""

import os

import figures
from room import ROOT

README = os.path.join(ROOT, "README.md")
BEGIN, END = "<!-- begin: made by bench/run.py -->", "<!-- end: made by bench/run.py -->"
WORDS = {
    "B1": "rebuild with nothing changed, 12 instructions",
    "B2": "one `RUN true` (of twenty)",
    "B3": "`COPY` of 20,000 files, cold",
    "B3b": "the same, one file changed",
    "B3c": "the same, nothing changed",
    "B4": "1 GiB of noise and 1 GiB of text, as a gzip OCI archive",
    "B5": "four stages of `sleep 2`, then `COPY` from all",
    "B6": "`RUN true` on ten layers of 80 MB from a registry, empty store",
    "B7": "`pip install flask requests numpy`, the base is there",
    "B7b": "an application on 6,000 installed files, one of its files changed",
    "B8": "a `RUN` that prints 200,000 lines, as far as they are logged",
    "B9": "a `RUN` that makes 30,000 files, then one changed",
}
NAMES = {"kiln": "kiln", "buildctl": "BuildKit", "docker": "docker", "buildah": "buildah", "podman": "podman"}


def table(results):
    """The rows that were measured, and a line on what they are."""
    rows = {row: results["rows"][row] for row in WORDS if results["rows"].get(row)}
    names = [name for name in NAMES if any(name in entries for entries in rows.values())]
    lines = ["| | " + " | ".join(NAMES[name] for name in names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {WORDS[row]} | " + " | ".join(cell(entries.get(name)) for name in names) + " |" for row, entries in rows.items()]
    versions = ", ".join(f"{NAMES[name]} {results['versions'][name]}" for name in names if name in results["versions"])
    memory = max((entries["kiln"]["memory"] for entries in results["rows"].values() if figures.has_time(entries.get("kiln"))), default=0)
    return "\n".join([*lines, "", f"{results['when']}, {results['machine']}: {versions}. kiln's largest process in all cases of the page: {memory} MiB."])


def cell(entry):
    return f"{figures.seconds(figures.least(entry))} / {figures.seconds(figures.median(entry))}" if figures.has_time(entry) else "–"


def write(results):
    with open(README) as file:
        head, rest = file.read().split(BEGIN)
    with open(README, "w") as file:
        file.write(f"{head}{BEGIN}\n\n{table(results)}\n\n{END}{rest.split(END)[1]}")
