"""The geometry of the report's charts: plain numbers that the templates draw as inline SVG.

Positions of interval charts are percentages of the width (they stretch with the page, their text does not); line charts and
scatter plots have a fixed view box. Colours are numbers, resolved in the style sheet for light and dark pages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.tables import Summary
from adjudge.types import Prediction, Value

COLOURS = 8
"""Colours in the style sheet; with more methods they repeat."""

USUAL = ("zero-shot", "few-shot", "sft", "ppo", "encoder")
"""Methods with a colour of their own, the same in every report."""

LEFT, RIGHT = 44, 14
"""Room beside the plot of a scatter, in view-box units."""


def colour_of(method: str, methods: Sequence[str]) -> int:
    """The colour number of a method: a fixed one for the usual methods, else the next that is free."""
    if method in USUAL:
        return USUAL.index(method)
    others = [name for name in methods if name not in USUAL]
    free = [
        number for number in range(COLOURS) if not any(USUAL.index(name) == number for name in methods if name in USUAL)
    ]
    return (free or list(range(COLOURS)))[others.index(method) % len(free or range(COLOURS))]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    if not high > low:
        margin = abs(low) * 0.1 or 0.5
        low, high = low - margin, high + margin
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number with as many decimals as its step needs; powers of ten for tiny steps."""
    if value == 0:
        return "0"
    if step < 1e-3 or abs(value) >= 1e6:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    decimals = next(d for d in range(6) if abs(step - round(step, d)) < step * 1e-6)
    return f"{value:,.{decimals}f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where (percent or view-box units), and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One method in an interval chart; positions in percent of the width."""

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
    """Where a judge would be that answers the majority label for everything."""


def interval_chart(
    metric: str,
    summaries: Sequence[Summary],
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    majority: tuple[str, float] | None = None,
) -> IntervalChart | None:
    """Lay out one metric of one task: `summaries` in drawing order, `rows` the cells behind them (a faint dot a seed)."""
    shown = [item for item in summaries if metric in item.metrics]
    if not shown:
        return None
    figures = [item.metrics[metric] for item in shown]
    values = [v for f in figures for v in (f.value, f.low, f.high) if v is not None] + (
        [majority[1]] if majority else []
    )
    low, high = min(values), max(values)
    pad = (high - low) * 0.04
    # Nice ends a little outside the data, but never outside what the metric can be.
    marks = ticks(
        max(low - pad, -1.0 if low < 0 else 0.0) if low >= -1 else low - pad,
        min(high + pad, 1.0) if high <= 1 else high + pad,
    )
    first, width = marks[0], marks[-1] - marks[0]

    def at(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - first) / width, 2)

    drawn = []
    for item, figure in zip(shown, figures, strict=True):
        seeds = [
            row["metrics"][metric]["value"] for row in rows if row["method"] == item.method and metric in row["metrics"]
        ]
        drawn.append(
            IntervalRow(
                method=item.method,
                colour=colour_of(item.method, methods),
                text=str(figure),
                at=at(figure.value) or 0.0,
                low=at(figure.low),
                high=at(figure.high),
                seeds=tuple(at(value) or 0.0 for value in seeds) if len(seeds) > 1 else (),
            )
        )
    reference = Tick(at(majority[1]) or 0.0, f"always {majority[0]}: {majority[1]:.3f}") if majority else None
    shown_ticks = tuple(Tick(at(mark) or 0.0, tick_text(mark, marks[1] - marks[0])) for mark in marks)
    return IntervalChart(metric, tuple(drawn), shown_ticks, reference)


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """Rows of one gold label that got one answer; `share` is of that gold label's rows."""

    answer: str
    count: int
    share: float
    right: bool
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Confusion:
    """Gold labels against answers of one method, its seeds together; the last column counts unreadable answers."""

    method: str
    colour: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[ConfusionCell, ...]], ...]
    left_out: int
    """Labels that are not shown because there are too many."""


LABELS_SHOWN = 12


def confusion(method: str, colour: int, words: Sequence[str], predictions: Iterable[Prediction]) -> Confusion | None:
    """Count gold against answer. With more than `LABELS_SHOWN` labels the most frequent are shown, the others as one column."""
    counts = Counter(
        (str(p.gold), None if p.value is None else str(p.value)) for p in predictions if p.gold is not None
    )
    if not counts:
        return None
    totals: Counter[str] = Counter()
    for (gold, _), count in counts.items():
        totals[gold] += count
    seen = list(dict.fromkeys([*words, *totals, *(value for _, value in counts if value is not None)]))
    shown = seen
    if len(seen) > LABELS_SHOWN:
        shown = sorted(sorted(seen, key=lambda word: -totals[word])[: LABELS_SHOWN - 1], key=seen.index)
    rows = []
    for gold in shown:
        total = totals[gold]

        def cell(
            answer: str, count: int, *, right: bool = False, unreadable: bool = False, of: int = total
        ) -> ConfusionCell:
            return ConfusionCell(answer, count, count / of if of else 0.0, right, unreadable)

        cells = [cell(word, counts[gold, word], right=word == gold) for word in shown]
        if len(shown) < len(seen):
            cells.append(
                cell(
                    "", sum(count for (g, v), count in counts.items() if g == gold and v is not None and v not in shown)
                )
            )
        cells.append(cell("", counts[gold, None], unreadable=True))
        rows.append((gold, total, tuple(cells)))
    columns = (*shown, *(("other labels",) if len(shown) < len(seen) else ()), "unreadable")
    return Confusion(method, colour, columns, tuple(rows), len(seen) - len(shown))


@dataclass(frozen=True, slots=True)
class Scatter:
    """Gold numbers against answered numbers; points that fall together are one larger dot. View box SCATTER × SCATTER."""

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
    """Bin gold and answered numbers into dots. `ends` is the task's range; answers outside widen it."""
    rows = [p for p in predictions if is_number(p.gold)]
    read = [(float(p.gold or 0), float(p.value or 0)) for p in rows if is_number(p.value)]
    if not rows:
        return None
    values = [*(number for pair in read for number in pair), *(ends or ())]
    marks = ticks(min(values), max(values), 6) if values else [0.0, 1.0]
    low, width = marks[0], marks[-1] - marks[0]

    def place(value: float) -> float:
        return LEFT + (value - low) / width * (SCATTER - LEFT - RIGHT)

    binned = Counter((round((g - low) / width * BINS), round((v - low) / width * BINS)) for g, v in read)
    most = max(binned.values(), default=1)
    dots = tuple(
        (
            round(place(low + g / BINS * width), 1),
            round(SCATTER - place(low + v / BINS * width), 1),
            round(2.2 + 4.5 * math.sqrt((count - 1) / max(most - 1, 4)), 1),
        )
        for (g, v), count in sorted(binned.items())
    )
    shown = tuple((round(place(m), 1), round(SCATTER - place(m), 1), tick_text(m, marks[1] - marks[0])) for m in marks)
    return Scatter(method, colour, dots, shown, len(rows), len(rows) - len(read))


def is_number(value: Value | Any | None) -> bool:
    """Whether a value is a finite number (True and False are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
