"""The averages over GLUE and SuperGLUE that a comparison's tasks make, method by method.

Input is the mapping of table.json, as in `adjudge.report.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from adjudge.report.tables import decimal, summarise
from adjudge.tasks.scoring.suites import SUITES, Suite


@dataclass(frozen=True, slots=True)
class Average:
    """A mean of the scores of a suite's tasks. `name` is the average's own name only when no task is missing."""

    name: str
    value: float | None
    tasks: tuple[str, ...]
    of: int
    """How many tasks the average is of when all are there."""
    without: tuple[str, ...] = ()
    """Tasks that this average leaves out by definition."""

    @property
    def complete(self) -> bool:
        """Whether no task is missing."""
        return len(self.tasks) == self.of


@dataclass(frozen=True, slots=True)
class SuiteScores:
    """One method on one suite: the score of each task (None where it is missing), the averages, and what is missing."""

    suite: str
    method: str
    scores: Mapping[str, float | None]
    averages: tuple[Average, ...]
    missing: tuple[str, ...]
    """Tasks without a figure, with the reason: ``glue/rte (failed)``."""


def suite_scores(table: Mapping[str, Any]) -> list[list[SuiteScores]]:
    """The methods on each suite of which at least two tasks have a figure of some method, suite by suite."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for item in summarise(table):
        figures.setdefault(item.method, {})[item.task] = {name: figure.value for name, figure in item.metrics.items()}
    reasons = _reasons(table)
    ran = [(method, task) for method, tasks in figures.items() for task in tasks]
    found = []
    for suite in SUITES:
        parts = {part for member in suite.members for part in member.parts}
        methods = dict.fromkeys(method for method, task in [*ran, *reasons] if task in parts)
        scored = [_scores(suite, method, figures.get(method, {}), reasons) for method in methods]
        there = {title for item in scored for title, score in item.scores.items() if score is not None}
        if len(there) > 1:
            found.append(scored)
    return found


def suite_lines(scored: Sequence[SuiteScores]) -> list[str]:
    """Sentences below the table of one suite: what the figures are, and for each method what is missing."""
    said = [
        "A task's score is the mean of its official metrics, on the rows judged here and not on the leaderboard's test rows."
    ]
    for missing in dict.fromkeys(item.missing for item in scored if item.missing):
        methods = [item.method for item in scored if item.missing == missing]
        said.append(f"{', '.join(methods)}: the mean is without {', '.join(missing)}")
    if len({item.averages[0].tasks for item in scored}) > 1:
        said.append("The methods' means are over different tasks and cannot be compared.")
    return said


def suite_columns(scored: Sequence[SuiteScores]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of one suite: a row a task and a row an average, a column a method."""
    lines = [[title, *(_cell(item.scores[title]) for item in scored)] for title in scored[0].scores]
    for averages in zip(*(item.averages for item in scored), strict=True):
        whole = all(average.complete for average in averages)
        counts = ["" if whole or a.value is None else f" ({len(a.tasks)} of {a.of})" for a in averages]
        name = averages[0].name if whole else f"mean of the tasks that are there{_without(averages[0].without)}"
        lines.append([name, *(_cell(average.value) + count for average, count in zip(averages, counts, strict=True))])
    return [scored[0].suite, *(item.method for item in scored)], lines


def _scores(
    suite: Suite, method: str, figures: Mapping[str, Mapping[str, float]], reasons: Mapping[tuple[str, str], str]
) -> SuiteScores:
    scores = {member.title: member.score(figures) for member in suite.members}
    missing = [
        f"{part}{_why(reasons.get((method, part.partition(' ')[0])))}"
        for member in suite.members
        for part in member.lacking(figures)
    ]
    averages = [_average(suite, scores, ())]
    if suite.optional:
        averages.append(_average(suite, scores, suite.optional))
    return SuiteScores(suite.title, method, scores, tuple(averages), tuple(missing))


def _average(suite: Suite, scores: Mapping[str, float | None], without: tuple[str, ...]) -> Average:
    members = [member.title for member in suite.members if member.title not in without]
    there = {title: score for title in members if (score := scores[title]) is not None}
    whole = len(there) == len(members)
    what = f"{suite.title} average" if whole else f"mean of {len(there)} of {len(members)} {suite.title} tasks"
    return Average(
        what + _without(without), fmean(there.values()) if there else None, tuple(there), len(members), without
    )


def _reasons(table: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Why a method has no figure of a task, for those that were to have one."""
    found = {}
    for key, reason in (("pending", "not finished"), ("failed", "failed")):
        for cell in table.get(key) or ():
            for task in str(cell.get("task")).split(","):  # several, where one adapter is trained on them together
                found[str(cell.get("method")), task] = reason
    return found


def _without(titles: Sequence[str]) -> str:
    return f" without {', '.join(titles)}" if titles else ""


def _why(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _cell(value: float | None) -> str:
    return "–" if value is None else decimal(value)
