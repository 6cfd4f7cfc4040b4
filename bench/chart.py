"""Draws how many times kiln's time the others take, as an SVG that can be read in light and in dark. Pure."""

import math

import figures

# Told apart in shape too, not by colour alone. Colours are of one lightness each for a light and a dark ground.
MARKS = {"buildctl": ("circle", "#1f6fb4", "#6cb0ea"), "docker": ("square", "#b3541e", "#f09a63"),
         "buildah": ("diamond", "#6a4ba3", "#b79be8"), "podman": ("triangle", "#2b7a4b", "#71c795")}
LEFT, WIDTH, ROW, TOP, RIGHT = 420, 880, 22, 58, 24
MOST = 56  # characters of a title


def draw(rows, measured):
    """The drawing, or None when there is nothing to compare."""
    lines = [(name, row, measured[name]) for name, row in rows.items() if name in measured and compares(measured[name])]
    if not lines:
        return None
    ratios = {name: {b: figures.least(e) / max(figures.least(entries["kiln"]), 1e-5) for b, e in entries.items() if b != "kiln" and figures.has_time(e)}
              for name, _, entries in lines}
    every = [ratio for of_row in ratios.values() for ratio in of_row.values()]
    low, high = min(0.5, *every) * 0.95, max(10, *every) * 1.1
    place = lambda ratio: LEFT + (math.log(ratio) - math.log(low)) / (math.log(high) - math.log(low)) * (WIDTH - LEFT - RIGHT)
    height = TOP + ROW * len(lines) + 16
    parts = [head(height), f'<text x="12" y="18">Times kiln’s time: the further right, the slower (logarithmic)</text>', legend(present(ratios)), *axis(place, low, high, height)]
    for at, (name, row, _) in enumerate(lines):
        y = TOP + ROW * at + ROW / 2
        title = row.title.replace("`", "")
        title = title if len(title) <= MOST else title[:MOST - 1] + "…"
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(title)} <tspan class="name">{escape(name)}</tspan></text>')
        parts.append(f'<line class="row" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts += [mark(b, place(ratio), y, f"{b}, {name}: {ratio:.1f} times") for b, ratio in ratios[name].items()]
    return "\n".join([*parts, "</svg>", ""])


def compares(entries):
    return figures.has_time(entries.get("kiln")) and any(b in MARKS and figures.has_time(e) for b, e in entries.items())


def present(ratios):
    return [b for b in MARKS if any(b in of_row for of_row in ratios.values())]


def head(height):
    light = "".join(f".{b}{{fill:{colour}}}" for b, (_, colour, _) in MARKS.items())
    dark = "".join(f".{b}{{fill:{colour}}}" for b, (_, _, colour) in MARKS.items())
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="11">\n'
            "<title>How many times kiln's time the others take; the scale is logarithmic</title>\n"
            "<style>\n"
            f".ground{{fill:#ffffff}}text{{fill:#24292f}}.name,.tick{{fill:#59636e}}.row{{stroke:#d8dee4}}.grid{{stroke:#d8dee4;stroke-dasharray:2 3}}"
            f".one{{stroke:#24292f}}{light}\n"
            "@media (prefers-color-scheme: dark){"
            f".ground{{fill:#0d1117}}text{{fill:#e6edf3}}.name,.tick{{fill:#9198a1}}.row{{stroke:#2a313a}}.grid{{stroke:#2a313a}}"
            f".one{{stroke:#e6edf3}}{dark}}}\n"
            f'</style>\n<rect class="ground" width="{WIDTH}" height="{height}"/>')


def legend(names):
    parts, x = [], LEFT
    for name in names:
        parts.append(mark(name, x + 5, 14, name) + f'<text x="{x + 15}" y="18">{name}</text>')
        x += 84
    return "\n".join(parts)


def axis(place, low, high, height):
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= tick <= high]
    for tick in ticks:
        x, kind = place(tick), "one" if tick == 1 else "grid"
        word = "kiln" if tick == 1 else f"{tick:g}×"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - 10}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{word}</text>'


def mark(name, x, y, title):
    shape = MARKS[name][0]
    points = {"square": [(-4, -4), (4, -4), (4, 4), (-4, 4)], "diamond": [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)], "triangle": [(0, -5), (5, 4), (-5, 4)]}
    inside = f"<title>{escape(title)}</title>"
    if shape == "circle":
        return f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{inside}</circle>'
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[shape])
    return f'<polygon class="{name}" points="{corners}">{inside}</polygon>'


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")
