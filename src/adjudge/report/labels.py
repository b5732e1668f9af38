"""Precision, recall and F1 of each label, for label tasks.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from adjudge.report.summary import finite
from adjudge.report.text import count_text, decimal

FIGURES = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """A label with one method's figures, means over its seeds. None where there is nothing to divide by."""

    label: str
    gold: float
    """Rows of this label."""
    predicted: float
    """Rows that got it as an answer."""
    precision: float | None
    recall: float | None
    f1: float | None

    @property
    def texts(self) -> tuple[str, str, str]:
        """Precision, recall and F1 as they are shown."""
        return _text(self.precision), _text(self.recall), _text(self.f1)


def label_figures(table: Mapping[str, Any], task: str) -> dict[str, list[LabelFigures]]:
    """Return the figures of each label by method, in the task's order of labels; empty for number tasks.

    A seed without a figure (a label that it never answers has no precision) is left out of that mean.
    """
    per_label: dict[str, list[Mapping[str, Mapping[str, Any]]]] = {}
    for row in table.get("rows", ()):
        if str(row["task"]) == task and row.get("per_label"):
            per_label.setdefault(str(row["method"]), []).append(row["per_label"])
    return {method: [_over_seeds(label, seeds) for label in seeds[0]] for method, seeds in per_label.items()}


def label_columns(figures: Mapping[str, Sequence[LabelFigures]]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table of labels: a line per label, a column per method.

    A single method has a column per figure. Of several, each has F1 and, in brackets, precision and recall.
    """
    first = next(iter(figures.values()))
    by_label = {method: {item.label: item for item in items} for method, items in figures.items()}
    lines = [[item.label, count_text(item.gold)] for item in first]
    if len(figures) == 1:
        for line, item in zip(lines, first, strict=True):
            line += [count_text(item.predicted), *item.texts]
        return ["label", "rows", "answered", "precision", "recall", "F1"], lines
    for line, item in zip(lines, first, strict=True):
        line += [_cell(items.get(item.label)) for items in by_label.values()]
    return ["label", "rows", *figures], lines


def label_line(task: str, figures: Mapping[str, Sequence[LabelFigures]]) -> str:
    """Return the sentence that explains the table of labels."""
    if len(figures) == 1:
        return f"{task}: the rows of each label, how often it was answered, and how right that was."
    return f"{task}: F1 per label, and in brackets precision and recall; – where a label was never answered."


def _over_seeds(label: str, seeds: Sequence[Mapping[str, Mapping[str, Any]]]) -> LabelFigures:
    def mean(name: str) -> float | None:
        values = [value for seed in seeds if (value := finite(seed.get(label, {}).get(name))) is not None]
        return fmean(values) if values else None

    return LabelFigures(label, mean("gold") or 0.0, mean("predicted") or 0.0, *(mean(name) for name in FIGURES))


def _cell(item: LabelFigures | None) -> str:
    if item is None or item.f1 is None:
        return "–"
    precision, recall, f1 = item.texts
    return f"{f1} ({precision}, {recall})"


def _text(value: float | None) -> str:
    return "–" if value is None else decimal(value)
