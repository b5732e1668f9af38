"""Draw lines as SVG: panels side by side, one colour for a line in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Curve = Sequence[tuple[float, float]]
"""Points, x and y."""

COLOURS = ("#8a8a8a", "#b8860b", "#1f6fb4", "#8c3fb0", "#2a8a4a", "#c23b3b")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 230, 56, 44, 34


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves by name over one pair of axes."""

    title: str
    curves: Mapping[str, Curve]
    x_title: str
    log: bool = False
    """Both axes logarithmic, x to the base of 2 and y to the base of 10; points at 0 are left out."""
    y_least: float | None = None
    """The least value of the y axis; None: of the curves."""


def picture(panels: Sequence[Panel], columns: int = 2) -> str:
    """Return the panels and one legend below them as an SVG document."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colour_of = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = columns * WIDTH, rows * HEIGHT + 20 * len(names) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, panel in enumerate(panels):
        place = f"{index % columns * WIDTH} {index // columns * HEIGHT}"
        lines += [f'<g transform="translate({place})">', *_panel(panel, colour_of), "</g>"]
    for index, (name, colour) in enumerate(colour_of.items()):
        y = rows * HEIGHT + 20 * index + 10
        lines.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + 24}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{LEFT + 32}" y="{y + 4}" font-size="12">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, colour_of: Mapping[str, str]) -> list[str]:
    curves = {
        name: [point for point in curve if not panel.log or min(point) > 0] for name, curve in panel.curves.items()
    }
    points = [point for curve in curves.values() for point in curve]
    across = _scale([x for x, _ in points], LEFT, WIDTH - 16, 2 if panel.log else None)
    values = [y for _, y in points] + ([] if panel.y_least is None else [panel.y_least])
    up = _scale(values, HEIGHT - BOTTOM, TOP, 10 if panel.log else None)
    lines = [f'<text x="{LEFT}" y="20" font-size="12" font-weight="bold">{escape(panel.title)}</text>']
    for value in up.ticks:
        y = up.at(value)
        lines.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 16}" y2="{y}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4}" font-size="11" text-anchor="end">{value:g}</text>')
    for value in across.ticks:
        x = across.at(value)
        lines.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" font-size="11" text-anchor="middle">{value:g}</text>')
    lines.append(f'<text x="{LEFT}" y="{HEIGHT - 10}" font-size="11">{escape(panel.x_title)}</text>')
    for name, curve in curves.items():
        path = " ".join(f"{across.at(x)},{up.at(y)}" for x, y in curve)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour_of[name]}" stroke-width="2"/>')
    return lines


@dataclass(frozen=True, slots=True)
class _Scale:
    at: Callable[[float], float]
    ticks: Sequence[float]


def _scale(values: Sequence[float], begin: float, end: float, base: int | None) -> _Scale:
    if base is None:
        step = _round_step((max(values) - min(values) or 1.0) / 4)
        low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
        ticks = [round(low + index * step, 10) for index in range(round((high - low) / step) + 1)]
    else:
        low, high = math.floor(math.log(min(values), base)), math.ceil(math.log(max(values), base))
        ticks = [float(base) ** power for power in range(low, high + 1)]

    def at(value: float) -> float:
        share = ((value if base is None else math.log(value, base)) - low) / ((high - low) or 1)
        return round(begin + (end - begin) * share, 1)

    return _Scale(at, ticks)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
