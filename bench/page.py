"""Writes docs/performance.md: the tables between two marks, everything else stays as it was typed; and the numbers as JSON."""

import json
import os

import chart
import figures
import readme
from room import ROOT

PAGE, DATA, CHART = (os.path.join(ROOT, f"docs/performance.{kind}") for kind in ("md", "json", "svg"))
NOT_ASKED, NOT_TRIED = "not asked for", "not tried"
BEGIN, END = "<!-- begin: made by bench/run.py -->", "<!-- end: made by bench/run.py -->"
ORDER = ["kiln", "buildctl", "docker", "buildah", "podman"]
SIGNS = {"reached": "✓", "floor": "≈ floor", "missed": "✗", None: ""}


def published():
    """The results in docs/performance.json, or None."""
    try:
        with open(DATA) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def joined(before, now):
    """What is published after a run: what was not measured this time stays, with the day, the machine and the rounds it is of.

    `of` has these and kiln's version for a row, and as `row, builder` for one builder's time in a row that was measured with others.
    """
    if not before:
        return dict(now, of={})
    origin = {field: before[field] for field in ("when", "machine", "runs")} | {"kiln": before["versions"].get("kiln", "")}
    rows, of = {}, {}
    for row, entries in before["rows"].items():
        fresh = now["rows"].get(row)
        rows[row] = entries | (fresh or {})
        for name in entries if fresh else ():
            if name not in fresh:
                of[f"{row}, {name}"] = before["of"].get(f"{row}, {name}") or before["of"].get(row, origin)
        if not fresh:
            of[row] = before["of"].get(row, origin)
            of |= {key: value for key, value in before["of"].items() if key.startswith(f"{row}, ")}
    rows |= {row: entries for row, entries in now["rows"].items() if row not in rows}
    notes = [note for note in before["notes"] if note["row"] in of or f"{note['row']}, {note['builder']}" in of]
    floors = {row: floor for row, floor in before["floors"].items() if row in of} | now["floors"]
    shown = {name for entries in rows.values() for name in entries}
    skipped = {name: why for name, why in now["skipped"].items() if why != NOT_ASKED or name not in shown}
    return dict(now, versions=before["versions"] | now["versions"], rows=rows, floors=floors, notes=notes + now["notes"], of=of, skipped=skipped)


def of_one_run(results, row):
    """The times of a row that were taken in the same run as kiln's: only those are compared."""
    of, entries = results.get("of", {}), results["rows"][row]
    return {name: entry for name, entry in entries.items() if of.get(f"{row}, {name}") == of.get(f"{row}, kiln")}


def publish(rows, results, before):
    drawing = chart.draw(rows, {row: of_one_run(results, row) for row in results["rows"]})
    text = generated(rows, results, before, os.path.basename(CHART) if drawing else None)
    with open(PAGE) as file:
        whole = file.read()
    with open(PAGE, "w") as file:
        file.write(replaced(whole, text))
    with open(DATA, "w") as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
        file.write("\n")
    if drawing:
        with open(CHART, "w") as file:
            file.write(drawing)
    readme.write(results)


def replaced(whole, text):
    """The page with another generated part."""
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        raise ValueError(f"docs/performance.md needs one line `{BEGIN}` and below it one `{END}`")
    head, rest = whole.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}"


def generated(rows, results, before, chart):
    measured = results["rows"]
    names = [name for name in ORDER if any(name in entries for entries in measured.values())]
    parts = [summary(results), f"![how many times kiln's time the others take]({chart})" if chart else "",
             times(rows, results, names), footnotes(results), failures(results), floors(rows, results), memory(rows, results, names),
             growth(results), compared(before, results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results):
    built = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"Measured {results['when']} on {results['machine']}: {built}. Rounds: {results['runs']}, minutes: {results['minutes']}"
             f"{', for what is not named here with a run of its own' if results.get('of') else ''}."]
    lines += [f"**Skipped: {name}**: {why}." for name, why in results["skipped"].items()]
    origins = {}
    for row, origin in sorted(results.get("of", {}).items()):
        origins.setdefault((origin["when"], origin["machine"], origin["runs"], origin["kiln"]), []).append(row.replace(", ", " of "))
    lines += [f"From {when} on {where}, kiln {kiln}, rounds: {runs}: {', '.join(kept)}." for (when, where, runs, kiln), kept in sorted(origins.items())]
    return "\n\n".join(lines)


def cell(entry, ours, name):
    if not entry:
        return "–"
    if not entry["seconds"]:
        return NOT_TRIED if entry["failed"].startswith(NOT_TRIED) else "failed"
    text = f"{figures.seconds(figures.least(entry))} / {figures.seconds(figures.median(entry))}"
    if ours and name != "kiln" and figures.has_time(ours):
        text += f" ({figures.least(entry) / max(figures.least(ours), 1e-5):.1f}×)"
    return text


def goal_cell(row, entries, floor):
    goal, sign = figures.goal_of(row, floor), figures.verdict(row, entries, floor)
    text = f"{figures.seconds(goal)}" if goal is not None else "fastest"
    if row.beyond_floor is not None:
        text += f" (floor + {row.beyond_floor})"
    return f"{text} {SIGNS[sign]}".strip()


def floor_cell(entries, floor):
    if not figures.has_time(floor):
        return "–"
    text, ours = figures.seconds(figures.least(floor)), entries.get("kiln")
    return f"{text} ({figures.least(ours) / figures.least(floor):.1f}×)" if figures.has_time(ours) else text


def times(rows, results, names):
    lines = ["Seconds, minimum / median; in brackets how many times kiln's minimum. The floor's bracket: kiln in units of it.", "",
             "| | what | " + " | ".join(names) + " | goal | floor |", "|---|---|" + "---|" * (len(names) + 2)]
    for name, row in rows.items():
        entries, floor = results["rows"].get(name), results["floors"].get(name)
        if entries:
            compared = of_one_run(results, name)
            cells = [cell(entries.get(builder), compared.get("kiln") if builder in compared else None, builder) for builder in names]
            unit = "" if row.unit == "s" else f" ({row.unit})"
            lines.append(f"| {name} | {row.title}{unit} | {' | '.join(cells)} | {goal_cell(row, compared, floor)} | {floor_cell(entries, floor)} |")
    return "\n".join(lines)


def footnotes(results):
    return "\n".join(f"- {', '.join(filter(None, (note['row'], note['builder'])))}: {note['text']}." for note in results["notes"])


def failures(results):
    lines = [f"- {row}, {name}: {entry['failed'].replace('|', '¦').replace('<', '‹')}" for row, entries in results["rows"].items()
             for name, entry in entries.items() if entry.get("failed")]
    return "What failed or was not tried:\n\n" + "\n".join(lines) if lines else ""


def floors(rows, results):
    lines = [f"- {name}: {results['floors'][name]['what']}" for name in rows if name in results["floors"]]
    return "The floors, taken in the same run, without a builder:\n\n" + "\n".join(lines) if lines else ""


def memory(rows, results, names):
    lines = ["Memory, MiB at most: the largest process, and of builders with daemons those with it.", "",
             "| | " + " | ".join(names) + " | kiln's goal |", "|---|" + "---|" * (len(names) + 1)]
    for name, row in rows.items():
        entries = results["rows"].get(name)
        if entries:
            ours = entries.get("kiln", {}).get("memory")
            sign = "" if not ours else " ✓" if ours <= row.memory else " ✗"
            lines.append(f"| {name} | {' | '.join(str(entries[b]['memory']) if figures.has_time(entries.get(b)) else '–' for b in names)} | {row.memory}{sign} |")
    together = [f"{name} {entries[b]['together']} ({b})" for name, entries in results["rows"].items() if name.startswith("B15")
                for b in names if entries.get(b, {}).get("together")]
    if together:
        lines += ["", f"All processes of B15 together, MiB, what they share counted once: {', '.join(together)}."]
    files = [f"{name} {entries['kiln']['files']}" for name, entries in results["rows"].items() if entries.get("kiln", {}).get("files")]
    if files:
        lines += ["", f"Files that one process of kiln had open at once, at most: {', '.join(files)}."]
    return "\n".join(lines)


def growth(results):
    told = [f"{name} {ratio:.2f}" for name in ORDER if (ratio := figures.growth(results["rows"], name)) is not None]
    ours = figures.growth(results["rows"])
    if ours is None:
        return ""
    each = ", ".join(f"{figures.file_cost(results['rows'], size) * 1e6:.0f} µs of {size}" for size in figures.SIZES
                     if figures.file_cost(results["rows"], size) is not None)
    return (f"What a file costs in a cold context of 100,000 in units of what it costs in one of 10,000, goal for kiln at most 1.5 "
            f"{'✓' if ours <= 1.5 else '✗'}: {', '.join(told)}. kiln takes for a file {each}.")


def compared(before, results):
    if not before:
        return ""
    found = figures.changes(before["rows"], {row: e for row, e in results["rows"].items() if row not in results.get("of", {})})
    named = [f"- {row} {figures.change(old, new)}" for row, old, new, is_beyond in found if is_beyond]
    quiet = [row for row, _, _, is_beyond in found if not is_beyond]
    if not found:
        return ""
    lines = [f"kiln, compared with {before['when']} ({before['machine']}); a change counts when it is larger than 5 % and than the distance "
             "between minimum and median:", "", *named]
    if quiet:
        lines.append(f"- within the noise: {', '.join(quiet)}")
    return "\n".join(lines)
