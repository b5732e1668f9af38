"""Ranks of the methods over the tasks of a comparison.

They are one verdict for many tasks with metrics of different kinds. On each task the best method has rank 1, and equal
ones share the mean of their ranks. Friedman's test asks whether all methods could be alike; two methods whose mean
ranks differ by less than the critical difference are not told apart.

Input is the mapping of table.json, as in `adjudge.report.summary`.
Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), sections 3.2.2 to 3.2.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.summary import summarise
from adjudge.report.text import p_text

FEWEST_TASKS, FEWEST_METHODS = 4, 3
"""With fewer of either, ranks say nothing that the tables do not."""

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Ranks:
    """The methods' mean ranks, best first."""

    mean: Mapping[str, float]
    wins: Mapping[str, int]
    """Tasks on which no other method was better."""
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]
    """Tasks on which some method has no figure."""
    p: float
    """Friedman's test: the chance of ranks this far apart if all methods were alike."""
    critical_difference: float

    @property
    def level_with_best(self) -> list[str]:
        """Return the methods that are not told apart from the best, which is one of them."""
        best = min(self.mean.values())
        return [method for method, rank in self.mean.items() if rank - best < self.critical_difference]


def method_ranks(table: Mapping[str, Any]) -> Ranks | None:
    """Return the ranks over tasks on which every method has a figure; None for too few tasks or methods."""
    scores: dict[str, dict[str, float]] = {}
    for item in summarise(table):
        if item.primary in item.metrics:
            scores.setdefault(item.task, {})[item.method] = item.metrics[item.primary].value
    methods = list(dict.fromkeys(method for of_task in scores.values() for method in of_task))
    whole = {task: of_task for task, of_task in scores.items() if len(of_task) == len(methods)}
    if len(whole) < FEWEST_TASKS or len(methods) < FEWEST_METHODS:
        return None
    by_task = [_ranks([of_task[method] for method in methods]) for of_task in whole.values()]
    columns = dict(zip(methods, zip(*by_task, strict=True), strict=True))
    mean = {method: sum(ranks) / len(ranks) for method, ranks in columns.items()}
    order = sorted(methods, key=lambda method: mean[method])
    best = [max(of_task.values()) for of_task in whole.values()]
    return Ranks(
        mean={method: mean[method] for method in order},
        wins={
            method: sum(of_task[method] == top for of_task, top in zip(whole.values(), best, strict=True))
            for method in order
        },
        tasks=tuple(whole),
        left_out=tuple(task for task in scores if task not in whole),
        p=friedman(by_task),
        critical_difference=critical_difference(len(methods), len(whole)),
    )


def friedman(ranks: Sequence[Sequence[float]]) -> float:
    """Return the p of Friedman's test for the methods' ranks per task, by Iman and Davenport's statistic."""
    from scipy.stats import f

    tasks, methods = len(ranks), len(ranks[0])
    means = [sum(column) / tasks for column in zip(*ranks, strict=True)]
    # With shared ranks the spread is smaller than that of 1 … k.
    spread = sum(rank**2 for row in ranks for rank in row) - tasks * methods * (methods + 1) ** 2 / 4
    if spread <= 0:
        return 1.0
    chi_square = (methods - 1) * tasks**2 * sum((mean - (methods + 1) / 2) ** 2 for mean in means) / spread
    largest = tasks * (methods - 1)
    if chi_square >= largest:
        return 0.0
    statistic = (tasks - 1) * chi_square / (largest - chi_square)
    return float(f.sf(statistic, methods - 1, (methods - 1) * (tasks - 1)))


def critical_difference(methods: int, tasks: int, level: float = LEVEL) -> float:
    """Return by how much two mean ranks must differ to be told apart, by Nemenyi's test."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * tasks))


def rank_columns(ranks: Ranks) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: one line per method, best first."""
    lines = [[method, f"{rank:.2f}", str(ranks.wins[method])] for method, rank in ranks.mean.items()]
    return ["method", "mean rank", "best on"], lines


def rank_lines(ranks: Ranks) -> list[str]:
    """Return the sentences below the ranks."""
    level = ranks.level_with_best
    verdict = f"not told apart from the best: {', '.join(level[1:])}" if len(level) > 1 else f"best: {level[0]}"
    lines = [
        f"Ranks of the primary metric over {len(ranks.tasks)} tasks; 1 is best, and equal methods share their ranks.",
        f"All methods alike: {p_text(ranks.p)} (Friedman). Two methods are told apart from a difference of "
        f"{ranks.critical_difference:.2f} (Nemenyi, 5 %); {verdict}.",
    ]
    if ranks.left_out:
        lines.append(f"Left out, since a method has no figure there: {', '.join(ranks.left_out)}.")
    return lines


def _ranks(scores: Sequence[float]) -> list[float]:
    from scipy.stats import rankdata

    return [float(rank) for rank in rankdata([-score for score in scores])]
