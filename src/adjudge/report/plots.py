"""The geometry of the report's charts: plain numbers that the templates draw as inline SVG.

Interval charts have positions in percent of the width, since they stretch with the page and their text does not.
Scatter plots have a fixed view box. Colours are numbers (see `adjudge.report.colours`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.colours import method_colour
from adjudge.report.summary import Summary
from adjudge.types import Prediction, Value

LEFT, RIGHT = 44, 14
"""Margins of a scatter plot, in view-box units."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers, from at most `low` to at least `high`."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # else ticks of twelve digits would be equal
        margin = abs(low) * 0.1 or 0.5
        low, high = low - margin, high + margin
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """Format a tick with as many decimals as its step needs; tiny steps get powers of ten."""
    if value == 0:
        return "0"
    if step < 1e-3 or abs(value) >= 1e6:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    decimals = next(d for d in range(6) if abs(step - round(step, d)) < step * 1e-6)
    return f"{value:,.{decimals}f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its position (percent or view-box units) and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """A method in an interval chart; positions in percent of the width."""

    method: str
    colour: int
    text: str
    at: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Methods with their 95 % intervals on one metric, best first."""

    metric: str
    rows: tuple[IntervalRow, ...]
    ticks: tuple[Tick, ...]
    reference: Tick | None
    """Value of a judge which always answers the majority label."""


def interval_chart(
    metric: str,
    summaries: Sequence[Summary],
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    majority: tuple[str, float] | None = None,
) -> IntervalChart | None:
    """Lay out one metric of one task; None when no method has it.

    `summaries` are in drawing order. `rows` are the cells behind them, shown as one faint dot per seed. `methods` are
    all methods of the report, for their colours. `majority` is the most frequent label and its share.
    """
    shown = [item for item in summaries if metric in item.metrics]
    if not shown:
        return None
    figures = [item.metrics[metric] for item in shown]
    values = [v for f in figures for v in (f.value, f.low, f.high) if v is not None]
    if majority:
        values.append(majority[1])
    marks = _interval_ticks(min(values), max(values))
    first, width = marks[0], marks[-1] - marks[0]

    def at(value: float) -> float:
        return round(100 * (value - first) / width, 2)

    drawn = []
    for item, figure in zip(shown, figures, strict=True):
        seeds = [
            row["metrics"][metric]["value"] for row in rows if row["method"] == item.method and metric in row["metrics"]
        ]
        drawn.append(
            IntervalRow(
                method=item.method,
                colour=method_colour(item.method, methods),
                text=str(figure),
                at=at(figure.value),
                low=None if figure.low is None else at(figure.low),
                high=None if figure.high is None else at(figure.high),
                seeds=tuple(at(value) for value in seeds) if len(seeds) > 1 else (),
            )
        )
    reference = Tick(at(majority[1]), f"always {majority[0]}: {majority[1]:.3f}") if majority else None
    shown_ticks = tuple(Tick(at(mark), tick_text(mark, marks[1] - marks[0])) for mark in marks)
    return IntervalChart(metric, tuple(drawn), shown_ticks, reference)


def _interval_ticks(low: float, high: float) -> list[float]:
    """Return ticks a little outside the data, but inside −1 to 1 (or 0 to 1) for metrics in that range."""
    pad = (high - low) * 0.04
    lowest = -1.0 if low < 0 else 0.0
    return ticks(
        max(low - pad, lowest) if low >= -1 else low - pad,
        min(high + pad, 1.0) if high <= 1 else high + pad,
    )


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """Rows of one gold label that got one answer; `share` is relative to the label's rows."""

    answer: str
    """The answer word; empty for the columns of other labels and of unreadable answers."""
    count: int
    share: float
    right: bool = False
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Confusion:
    """Gold labels against answers of a method, all seeds together; the last column is unreadable."""

    method: str
    colour: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[ConfusionCell, ...]], ...]
    """Gold label, number of its rows, cells."""
    left_out: int
    """Labels not shown because there are too many."""


LABELS_SHOWN = 12


def confusion(method: str, colour: int, words: Sequence[str], predictions: Iterable[Prediction]) -> Confusion | None:
    """Count gold labels against answers; None without a labelled row.

    With more than `LABELS_SHOWN` labels, the most frequent ones are shown and the others share one column.
    """
    counts = Counter(
        (str(p.gold), None if p.value is None else str(p.value)) for p in predictions if p.gold is not None
    )
    if not counts:
        return None
    totals: Counter[str] = Counter()
    for (gold, _), count in counts.items():
        totals[gold] += count
    labels = list(dict.fromkeys([*words, *totals, *(value for _, value in counts if value is not None)]))
    shown = labels
    if len(labels) > LABELS_SHOWN:
        shown = sorted(sorted(labels, key=lambda word: -totals[word])[: LABELS_SHOWN - 1], key=labels.index)
    hidden = [word for word in labels if word not in shown]
    rows = []
    for gold in shown:
        total = totals[gold]
        cells = [
            ConfusionCell(word, counts[gold, word], _share(counts[gold, word], total), right=word == gold)
            for word in shown
        ]
        if hidden:
            count = sum(counts[gold, word] for word in hidden)
            cells.append(ConfusionCell("", count, _share(count, total)))
        count = counts[gold, None]
        cells.append(ConfusionCell("", count, _share(count, total), unreadable=True))
        rows.append((gold, total, tuple(cells)))
    columns = (*shown, *(("other labels",) if hidden else ()), "unreadable")
    return Confusion(method, colour, columns, tuple(rows), len(hidden))


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Scatter:
    """Gold numbers against answered numbers; equal points are one larger dot. View box SCATTER × SCATTER."""

    method: str
    colour: int
    dots: tuple[tuple[float, float, float], ...]
    """x, y, radius."""
    ticks: tuple[tuple[float, float, str], ...]
    """Position on x, position on y, text."""
    n: int
    unreadable: int


SCATTER = 320
BINS = 60


def scatter(
    method: str, colour: int, ends: tuple[float, float] | None, predictions: Iterable[Prediction]
) -> Scatter | None:
    """Bin gold and answered numbers into dots; None without a labelled row.

    `ends` is the task's range; answers outside widen it.
    """
    rows = [p for p in predictions if is_number(p.gold)]
    pairs = [(float(p.gold or 0), float(p.value or 0)) for p in rows if is_number(p.value)]
    if not rows:
        return None
    values = [*(number for pair in pairs for number in pair), *(ends or ())]
    marks = ticks(min(values), max(values), 6) if values else [0.0, 1.0]
    low, width = marks[0], marks[-1] - marks[0]

    def position(value: float) -> float:
        return LEFT + (value - low) / width * (SCATTER - LEFT - RIGHT)

    binned = Counter((round((g - low) / width * BINS), round((v - low) / width * BINS)) for g, v in pairs)
    most = max(binned.values(), default=1)
    dots = tuple(
        (
            round(position(low + g / BINS * width), 1),
            round(SCATTER - position(low + v / BINS * width), 1),
            round(2.2 + 4.5 * math.sqrt((count - 1) / max(most - 1, 4)), 1),
        )
        for (g, v), count in sorted(binned.items())
    )
    step = marks[1] - marks[0]
    shown = tuple((round(position(m), 1), round(SCATTER - position(m), 1), tick_text(m, step)) for m in marks)
    return Scatter(method, colour, dots, shown, len(rows), len(rows) - len(pairs))


def is_number(value: Value | Any | None) -> bool:
    """True for a finite number; True and False do not count as numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
