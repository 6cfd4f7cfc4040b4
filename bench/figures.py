"""What the numbers say: minima, medians, ratios, goals, noise, and what has changed since another run. Pure."""

import statistics

FLOOR_RATIO = 1.3  # a goal that is missed is excused by a floor that is nearly reached
SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000}  # files of B13's contexts
NOISE = 0.05  # a change of less is never named


def least(entry):
    return min(entry["seconds"])


def median(entry):
    return statistics.median(entry["seconds"])


def has_time(entry):
    return bool(entry and entry.get("seconds"))


def goal_of(row, floor):
    """Seconds, or None for a row whose goal is to be the fastest."""
    if row.beyond_floor is not None:
        return least(floor) + row.beyond_floor if has_time(floor) else None
    return row.goal


def fastest_other(entries):
    """The name and seconds of the fastest other builder, or None."""
    times = [(least(entry), name) for name, entry in entries.items() if name != "kiln" and has_time(entry)]
    return min(times)[::-1] if times else None


def verdict(row, entries, floor):
    """`reached`, `floor` (missed, but near what the machine can do), `missed`, or None when there is nothing to judge by."""
    ours = entries.get("kiln")
    if not has_time(ours):
        return "missed" if ours else None
    goal = goal_of(row, floor)
    if goal is None:
        other = fastest_other(entries)
        goal = other[1] if other else None
    if goal is None:
        return None
    if least(ours) <= goal:
        return "reached"
    return "floor" if has_time(floor) and least(ours) <= least(floor) * FLOOR_RATIO else "missed"


def spread(entry):
    """How far apart the runs of one builder are, as a part of the least: the median's distance."""
    return median(entry) / least(entry) - 1 if least(entry) > 0 else 0.0


def changes(before, now):
    """What kiln needs more or less than in another run: `(row, before, now, beyond noise)`, in seconds."""
    found = []
    for row, entries in now.items():
        old, new = before.get(row, {}).get("kiln"), entries.get("kiln")
        if not (has_time(old) and has_time(new)) or least(old) <= 0:
            continue
        noise = max(NOISE, spread(old), spread(new))
        found.append((row, least(old), least(new), abs(least(new) / least(old) - 1) > noise))
    return found


def file_cost(rows, size, builder="kiln"):
    """Seconds for a file of a cold context of `1k`, `10k` or `100k`, or None."""
    entry = rows.get(f"B13-{size}", {}).get(builder)
    return least(entry) / SIZES[size] if has_time(entry) else None


def growth(rows, builder="kiln"):
    """Cost of a file at 100,000 files in units of that at 10,000, cold; None when either is missing."""
    small, large = file_cost(rows, "10k", builder), file_cost(rows, "100k", builder)
    return large / small if small and large else None


def seconds(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}" if value >= 0.01 else f"{value:.4f}"


def change(old, new):
    """`0.760 → 0.700 s, -8 %`"""
    return f"{seconds(old)} → {seconds(new)} s, {(new / old - 1) * 100:+.0f} %"
