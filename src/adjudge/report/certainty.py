"""How far probabilities can be believed: scores, reliability diagrams, and risk against coverage.

Input of the table of scores is the mapping of table.json, as in `adjudge.report.summary`; of the charts, the judged
rows. Charts are squares of CHART units with the margins of scatter plots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjudge.report.collect import RunRecord
from adjudge.report.colours import method_colour
from adjudge.report.plots import LEFT, RIGHT, tick_text, ticks
from adjudge.report.summary import Figure, finite, mean_figure
from adjudge.report.text import decimal
from adjudge.tasks.scoring.probabilities import Bin, Rated, rated, reliability, risk_coverage
from adjudge.tasks.spec import TaskSpec

CHART = 320
POINTS = 200
"""Most points of a curve of risk against coverage."""
TITLES = {"ece": "ECE", "brier": "Brier", "log_loss": "log loss", "auroc": "AUROC"}
HEAD = ["method", "temperature", *TITLES.values()]


@dataclass(frozen=True, slots=True)
class Certainty:
    """The scores of one method's probabilities: its own (`temperature` None), or after calibration."""

    method: str
    temperature: float | None
    figures: Mapping[str, Figure]
    rows: int
    by_chance: float | None
    """The ECE of a perfectly calibrated judge on as many rows."""

    @property
    def temperature_text(self) -> str:
        """The temperature; a dash for the judge's own probabilities."""
        return "–" if self.temperature is None else f"{self.temperature:.2f}"


def certainties(table: Mapping[str, Any], task: str) -> list[Certainty]:
    """Return the scores of each method's probabilities, before and after calibration; empty without any.

    Values are means over seeds. With several seeds, intervals are those of ``table["summary"]``.
    """
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for row in table.get("rows", ()):
        if str(row["task"]) == task and row.get("probabilities"):
            cells.setdefault(str(row["method"]), []).append(row["probabilities"])
    pooled = {
        str(entry["method"]): entry["probabilities"]
        for entry in table.get("summary") or ()
        if str(entry["task"]) == task and entry.get("probabilities")
    }
    items = []
    for method, seeds in cells.items():
        for kind in ("own", "calibrated"):
            if not all(kind in seed for seed in seeds):
                continue
            whole = pooled.get(method, {}).get(kind, {})
            figures = {name: _figure([seed[kind].get(name) for seed in seeds], whole.get(name)) for name in TITLES}
            known = {name: figure for name, figure in figures.items() if figure is not None}
            temperatures = [number for seed in seeds if (number := finite(seed.get("temperature"))) is not None]
            uncalibrated = kind == "own"
            items.append(
                Certainty(
                    method,
                    None if uncalibrated or not temperatures else sum(temperatures) / len(temperatures),
                    known,
                    int(seeds[0].get("rows") or 0),
                    finite(seeds[0].get("ece_by_chance")),
                )
            )
    return items


def _figure(per_seed: Sequence[Any], pooled: Any) -> Figure | None:
    if any(each is None or each.get("value") is None for each in per_seed):
        return None
    return mean_figure(per_seed, pooled)


def certainty_columns(items: Sequence[Certainty]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table."""
    lines = [
        [item.method, item.temperature_text, *(str(item.figures.get(name, "–")) for name in TITLES)] for item in items
    ]
    return HEAD, lines


def certainty_line(task: str, items: Sequence[Certainty], table: Mapping[str, Any] | None = None) -> str:
    """Return the sentence that explains the table.

    It also says which methods of `table` have no probabilities, and why.
    """
    by_chance = max((item.by_chance for item in items if item.by_chance is not None), default=None)
    text = f"{task}: how far the label probabilities can be believed; ECE, Brier and log loss are better when smaller"
    if any(item.temperature is not None for item in items):
        text += ", and – is a judge's own probabilities"
    if by_chance is not None:
        text += f". On {items[0].rows:,} rows chance alone gives an ECE of about {decimal(by_chance)}"
    row_methods = [str(row["method"]) for row in (table or {}).get("rows", ()) if str(row["task"]) == task]
    known = {item.method for item in items}
    read = [method for method in dict.fromkeys(row_methods) if method not in known]
    if read:
        text += f". {', '.join(read)}: answers were read, without probabilities; --decode labels weighs the labels"
    return f"{text}."


@dataclass(frozen=True, slots=True)
class Dots:
    """The bins of a reliability diagram: their path, and (x, y, radius) of each."""

    path: str
    dots: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against the share of right rows, of one method, all seeds together."""

    method: str
    colour: int
    own: Dots
    calibrated: Dots | None
    ticks: tuple[tuple[float, float, str], ...]
    """Position on x, position on y, text."""
    summary: str
    """The chart in words, for screen readers."""


@dataclass(frozen=True, slots=True)
class RiskCurve:
    """The share of wrong answers among the surest rows, of one method."""

    method: str
    colour: int
    path: str


@dataclass(frozen=True, slots=True)
class RiskChart:
    """One curve of risk against coverage per method."""

    curves: tuple[RiskCurve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    summary: str


def certainty_charts(
    methods: Sequence[str], spec: TaskSpec | None, runs: Sequence[RunRecord]
) -> tuple[list[Reliability], RiskChart | None]:
    """Lay out the charts of a task's runs; none for runs without label probabilities.

    A method is shown after calibration too where all of its runs are calibrated.
    """
    if spec is None or not spec.words or spec.several:
        return [], None
    before: dict[str, list[Rated]] = {}
    after: dict[str, list[Rated]] = {}
    for run in runs:
        rows = rated(spec, run.predictions)
        if rows is None:
            continue
        before.setdefault(run.method, []).append(rows)
        temperature = finite(((run.scores or {}).get("probabilities") or {}).get("temperature"))
        if temperature is not None and temperature > 0:
            after.setdefault(run.method, []).append(rows.scaled(temperature))
    diagrams, sure = [], {}
    for method, seeds in before.items():
        done = after.get(method, [])
        calibrated = _pooled(done) if len(done) == len(seeds) else None
        diagrams.append(_reliability(method, method_colour(method, methods), _pooled(seeds), calibrated))
        sure[method] = calibrated or _pooled(seeds)
    return diagrams, _risk_chart(methods, sure) if sure else None


def _pooled(seeds: Sequence[Rated]) -> Rated:
    return Rated(np.concatenate([rows.p_NL for rows in seeds]), np.concatenate([rows.gold_N for rows in seeds]))


def _reliability(method: str, colour: int, uncalibrated: Rated, calibrated: Rated | None) -> Reliability:
    before, after = reliability(uncalibrated), reliability(calibrated) if calibrated else None
    values = [value for each in (*before, *(after or ())) for value in (each.confidence, each.right)]
    marks = ticks(min(values), 1.0, 6)
    low, width = marks[0], marks[-1] - marks[0]

    def at(value: float) -> float:
        return round(LEFT + (value - low) / width * (CHART - LEFT - RIGHT), 1)

    def dots(bins: Sequence[Bin]) -> Dots:
        total = sum(each.rows for each in bins)
        places = tuple(
            (at(each.confidence), round(CHART - at(each.right), 1), round(2.5 + 6 * math.sqrt(each.rows / total), 1))
            for each in bins
        )
        return Dots(_path([(x, y) for x, y, _ in places]), places)

    step = marks[1] - marks[0]
    shown = tuple((at(mark), round(CHART - at(mark), 1), tick_text(mark, step)) for mark in marks)
    words = f"{method}: confidence against the share of right rows. {_in_words('Its own probabilities', before)}"
    if after is not None:
        words += f" {_in_words('After calibration', after)}"
    return Reliability(method, colour, dots(before), None if after is None else dots(after), shown, words)


def _in_words(what: str, bins: Sequence[Bin]) -> str:
    surest = bins[-1]
    return (
        f"{what}: of the {surest.rows:,} surest rows, with a mean confidence of {decimal(surest.confidence)}, "
        f"{decimal(surest.right)} are right."
    )


def _risk_chart(methods: Sequence[str], by_method: Mapping[str, Rated]) -> RiskChart:
    points = {method: risk_coverage(rows) for method, rows in by_method.items()}
    marks = ticks(0.0, max(float(risk.max()) for _, risk in points.values()), 5)

    def x(share: float) -> float:
        return round(LEFT + share * (CHART - LEFT - RIGHT), 1)

    def y(risk: float) -> float:
        return round(CHART - LEFT - risk / marks[-1] * (CHART - LEFT - RIGHT), 1)

    curves, words = [], []
    for method, (coverage, risk) in points.items():
        chosen = np.unique(np.linspace(0, len(coverage) - 1, min(POINTS, len(coverage))).round().astype(int))
        path = _path([(x(float(coverage[index])), y(float(risk[index]))) for index in chosen])
        curves.append(RiskCurve(method, method_colour(method, methods), path))
        half = int(np.searchsorted(coverage, 0.5))
        words.append(
            f"{method} {decimal(float(risk[-1]))} wrong of all rows, {decimal(float(risk[half]))} of the surer half"
        )
    x_ticks = tuple((x(mark), tick_text(mark, 0.25)) for mark in (0.0, 0.25, 0.5, 0.75, 1.0))
    y_ticks = tuple((y(mark), tick_text(mark, marks[1] - marks[0])) for mark in marks)
    return RiskChart(tuple(curves), x_ticks, y_ticks, f"Wrong answers among the surest rows: {'; '.join(words)}")


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return SVG path data; of one point a short stroke, since a path of one point draws nothing."""
    if len(points) == 1:
        return f"M{points[0][0]:g} {points[0][1]:g}h0.01"
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
