"""The geometry of learning curves: one panel per logged quantity, one curve per run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from adjudge.report.colours import label_colour
from adjudge.report.plots import Tick, is_number, tick_text, ticks

PANEL_WIDTH, PANEL_HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 30
POINTS = 240
"""Maximum number of points drawn per curve; longer curves are averaged over equal stretches."""

TITLES = {
    "reward": "Reward per answer",
    "loss": "Loss",
    "right": "Right answers while training (share)",
    "kl": "KL to the reference (nats)",
    "entropy": "Entropy (nats)",
    "unreadable": "Unreadable answers (share)",
    "label_entropy": "Entropy of the answered labels (nats)",
    "mean_error": "Mean distance to the gold number",
    "explained_variance": "Explained variance of the value head",
    "value_loss": "Value loss",
    "clip_fraction": "Clipped ratios (share)",
    "beta": "KL coefficient β",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
}
MAIN = ("reward", "loss", "right", "kl", "entropy", "unreadable", "mean_error")
"""Curves shown at once; the others open on a click."""

AXES = ("prompts", "rows", "step")
AXIS_TITLES = {"prompts": "prompts", "rows": "training rows", "step": "steps"}

Point = tuple[float, float]
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Curve:
    """The curve of a run as SVG path data: `raw` as logged (drawn faint), `smooth` a moving average."""

    name: str
    colour: int
    raw: str
    smooth: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A line chart in a view box of PANEL_WIDTH × PANEL_HEIGHT."""

    key: str
    title: str
    axis: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_range: Point
    y_range: Point
    main: bool = True

    @property
    def summary(self) -> str:
        """The chart in words, for screen readers."""
        ends = [f"{curve.name} from {_figure(curve.ys[0])} to {_figure(curve.ys[-1])}" for curve in self.curves]
        return f"{self.title} over {self.axis}: {'; '.join(ends)}"


def panels(runs: Sequence[tuple[str, int, Records]]) -> list[Panel]:
    """Return one line chart per logged numeric quantity, in the order of TITLES.

    `runs` are (name, colour, records).
    """
    curves: dict[str, list[tuple[str, int, list[Point]]]] = {}
    axes: dict[str, dict[str, None]] = {}
    for name, colour, records in runs:
        axis, xs = _axis(records)
        series: dict[str, list[Point]] = {}
        for x, record in zip(xs, records, strict=True):
            for key, value in record.items():
                if key not in AXES and is_number(value):
                    series.setdefault(key, []).append((x, float(value)))
        for key, points in series.items():
            curves.setdefault(key, []).append((name, colour, points))
            axes.setdefault(key, {})[AXIS_TITLES.get(axis, "records")] = None
    order = {key: number for number, key in enumerate(TITLES)}
    return [
        _panel(key, TITLES.get(key, key.replace("_", " ")), " or ".join(axes[key]), curves[key], key in MAIN)
        for key in sorted(curves, key=lambda key: (order.get(key, len(order)), key))
    ]


def recall_panel(title: str, records: Records) -> Panel | None:
    """Return the per-label recall of one run, one curve per label; None when none was logged.

    A collapse onto one label shows as one curve at 1 and the others at 0.
    """
    axis, xs = _axis(records)
    series: dict[str, list[Point]] = {}
    for x, record in zip(xs, records, strict=True):
        recall = record.get("recall")
        for word, value in recall.items() if isinstance(recall, Mapping) else ():
            if is_number(value):
                series.setdefault(str(word), []).append((x, float(value)))
    if not series:
        return None
    curves = [(word, label_colour(index), points) for index, (word, points) in enumerate(series.items())]
    return _panel("recall", title, AXIS_TITLES.get(axis, "records"), curves, True, (0.0, 1.0))


def stage_panel(title: str, tasks: Sequence[str], figures: Sequence[Sequence[float | None]]) -> Panel | None:
    """Return the figure of each task after every stage, one curve per task; None when none is known."""
    series = {
        task: [(float(stage), value) for stage, row in enumerate(figures) if (value := row[index]) is not None]
        for index, task in enumerate(tasks)
    }
    curves = [(task, number, points) for number, (task, points) in enumerate(series.items()) if points]
    return _panel("stages", title, "stages", curves, True) if curves else None


def _axis(records: Records) -> tuple[str, list[float]]:
    """Return the run's x axis and its value per record: prompts, rows or step, whichever was logged.

    The first of the three counts. Counts per step are summed up. Without any of the three, records are numbered.
    """
    for key in AXES:
        if records and all(is_number(record.get(key)) for record in records):
            xs = [float(record[key]) for record in records]
            if len(xs) > 1 and key != "step" and any(later <= earlier for earlier, later in pairwise(xs)):
                xs = [sum(xs[: number + 1]) for number in range(len(xs))]
            return key, xs
    return "", [float(number) for number in range(1, len(records) + 1)]


def _panel(
    key: str,
    title: str,
    axis: str,
    series: Sequence[tuple[str, int, list[Point]]],
    main: bool,
    y_range: Point | None = None,
) -> Panel:
    thinned = [(name, colour, _thin(points)) for name, colour, points in series]
    all_x = [x for _, _, points in thinned for x, _ in points]
    all_y = [y for _, _, points in thinned for _, y in points]
    marks_x = ticks(0.0 if min(all_x) >= 0 else min(all_x), max(all_x), 5)
    marks_y = ticks(*(y_range or (min(all_y), max(all_y))), 5)
    x0, x1, y0, y1 = marks_x[0], max(all_x), marks_y[0], marks_y[-1]
    x1 = x1 if x1 > x0 else marks_x[-1]

    def px(x: float) -> float:
        return round(LEFT + (x - x0) / (x1 - x0) * (PANEL_WIDTH - LEFT - RIGHT), 1)

    def py(y: float) -> float:
        return round(PANEL_HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (PANEL_HEIGHT - TOP - BOTTOM), 1)

    curves = []
    for name, colour, points in thinned:
        mean = _smooth(points)
        curves.append(
            Curve(
                name,
                colour,
                _path([(px(x), py(y)) for x, y in points]) if len(points) > 2 else "",
                _path([(px(x), py(y)) for x, y in mean]),
                tuple(x for x, _ in mean),
                tuple(y for _, y in mean),
            )
        )
    return Panel(
        key,
        title,
        axis,
        tuple(curves),
        tuple(Tick(px(m), tick_text(m, marks_x[1] - marks_x[0])) for m in marks_x if m <= x1),
        tuple(Tick(py(m), tick_text(m, marks_y[1] - marks_y[0])) for m in marks_y),
        (x0, x1),
        (y0, y1),
        main,
    )


def _thin(points: Sequence[Point]) -> list[Point]:
    """Reduce a curve to at most POINTS points: means over equal stretches."""
    if len(points) <= POINTS:
        return list(points)
    bounds = [round(number * len(points) / POINTS) for number in range(POINTS + 1)]
    parts = [points[a:b] for a, b in pairwise(bounds)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Return a centred moving average over a tenth of the curve; the window is cut off at both ends."""
    half = len(points) // 20
    windows = (points[max(0, number - half) : number + half + 1] for number in range(len(points)))
    return [(x, sum(y for _, y in window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


def _path(points: Iterable[Point]) -> str:
    points = list(points)
    if len(points) == 1:  # a path of one point draws nothing; with a round cap a short stroke is a dot
        (x, y) = points[0]
        return f"M{x:g} {y:g}h0.01"
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _figure(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
