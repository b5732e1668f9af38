"""The averages over GLUE and SuperGLUE, method by method, from the tasks of a comparison.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from adjudge.report.summary import summarise
from adjudge.report.text import decimal
from adjudge.tasks.scoring.suites import SUITES, Figures, Suite


@dataclass(frozen=True, slots=True)
class Average:
    """A mean over a suite's tasks. `name` is the average's official name only when no task is missing."""

    name: str
    value: float | None
    tasks: tuple[str, ...]
    of: int
    """Number of tasks in the complete average."""
    without: tuple[str, ...] = ()
    """Tasks which this average excludes by definition."""
    half: float | None = None
    """Half of the 95 % interval, where every task's figure has one. The tasks' rows are different ones, so their errors
    add up as independent ones do; the metrics of one task are taken to err together."""

    @property
    def complete(self) -> bool:
        """True when no task is missing."""
        return len(self.tasks) == self.of


@dataclass(frozen=True, slots=True)
class SuiteScores:
    """A method on a suite: the score of each task (None where it is missing) and the averages."""

    suite: str
    method: str
    scores: Mapping[str, float | None]
    averages: tuple[Average, ...]
    missing: tuple[str, ...]
    """Tasks without a figure, with the reason: ``glue/rte (failed)``."""


def suite_scores(table: Mapping[str, Any]) -> list[list[SuiteScores]]:
    """Return the methods' scores suite by suite, for suites of which at least two tasks have a figure."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    halves: dict[str, dict[str, dict[str, float]]] = {}
    for item in summarise(table):
        figures.setdefault(item.method, {})[item.task] = {name: figure.value for name, figure in item.metrics.items()}
        halves.setdefault(item.method, {})[item.task] = {
            name: (figure.high - figure.low) / 2
            for name, figure in item.metrics.items()
            if figure.low is not None and figure.high is not None
        }
    reasons = _reasons(table)
    cells = [(method, task) for method, tasks in figures.items() for task in tasks]
    suites = []
    for suite in SUITES:
        parts = {part for member in suite.members for part in member.parts}
        methods = dict.fromkeys(method for method, task in [*cells, *reasons] if task in parts)
        scores = [
            _scores(suite, method, figures.get(method, {}), halves.get(method, {}), reasons) for method in methods
        ]
        scored_tasks = {title for item in scores for title, score in item.scores.items() if score is not None}
        if len(scored_tasks) > 1:
            suites.append(scores)
    return suites


def suite_lines(scores: Sequence[SuiteScores]) -> list[str]:
    """Return the sentences below a suite's table: what the figures are, and what each method lacks."""
    lines = [
        "A task's score is the mean of its official metrics, "
        "on the rows judged here and not on the leaderboard's test rows."
    ]
    for missing in dict.fromkeys(item.missing for item in scores if item.missing):
        methods = [item.method for item in scores if item.missing == missing]
        lines.append(f"{', '.join(methods)}: the mean is without {', '.join(missing)}")
    if len({item.averages[0].tasks for item in scores}) > 1:
        lines.append("The methods' means are over different tasks and cannot be compared.")
    return lines


def suite_columns(scores: Sequence[SuiteScores]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of one suite: one line per task and per average, one column per method."""
    lines = [[title, *(_cell(item.scores[title]) for item in scores)] for title in scores[0].scores]
    for averages in zip(*(item.averages for item in scores), strict=True):
        complete = all(average.complete for average in averages)
        counts = ["" if complete or a.value is None else f" ({len(a.tasks)} of {a.of})" for a in averages]
        name = averages[0].name if complete else f"mean of the tasks that are there{_without(averages[0].without)}"
        cells = [_cell(average.value) + _half(average) for average in averages]
        lines.append([name, *(cell + count for cell, count in zip(cells, counts, strict=True))])
    return [scores[0].suite, *(item.method for item in scores)], lines


def _scores(
    suite: Suite,
    method: str,
    figures: Figures,
    halves: Figures,
    reasons: Mapping[tuple[str, str], str],
) -> SuiteScores:
    """Score one method on one suite.

    `figures` maps its tasks to their metrics, `halves` to half their intervals.
    """
    scores = {member.title: member.score(figures) for member in suite.members}
    half = {member.title: member.score(halves) for member in suite.members}
    missing = [
        f"{part}{_because(reasons.get((method, part.partition(' ')[0])))}"
        for member in suite.members
        for part in member.lacking(figures)
    ]
    averages = [_average(suite, scores, half, ())]
    if suite.optional:
        averages.append(_average(suite, scores, half, suite.optional))
    return SuiteScores(suite.title, method, scores, tuple(averages), tuple(missing))


def _average(
    suite: Suite, scores: Mapping[str, float | None], half: Mapping[str, float | None], without: tuple[str, ...]
) -> Average:
    members = [member.title for member in suite.members if member.title not in without]
    present = {title: score for title in members if (score := scores[title]) is not None}
    complete = len(present) == len(members)
    name = f"{suite.title} average" if complete else f"mean of {len(present)} of {len(members)} {suite.title} tasks"
    value = fmean(present.values()) if present else None
    errors = [half[title] for title in present]
    known = [error for error in errors if error is not None]
    width = math.sqrt(sum(error**2 for error in known)) / len(known) if known and len(known) == len(errors) else None
    return Average(name + _without(without), value, tuple(present), len(members), without, width)


def _reasons(table: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Map (method, task) of the planned cells without a figure to the reason."""
    reasons = {}
    for key, reason in (("pending", "not finished"), ("failed", "failed")):
        for cell in table.get(key) or ():
            for task in str(cell.get("task")).split(","):  # several where one adapter is trained on all of them
                reasons[str(cell.get("method")), task] = reason
    return reasons


def _without(titles: Sequence[str]) -> str:
    return f" without {', '.join(titles)}" if titles else ""


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _half(average: Average) -> str:
    return "" if not average.half else f" ± {decimal(average.half)}"


def _cell(value: float | None) -> str:
    return "–" if value is None else decimal(value)
