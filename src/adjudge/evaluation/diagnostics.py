"""Scores per linguistic phenomenon of a diagnostic set (GLUE's AX, SuperGLUE's AX-b).

Tags of the rows name the phenomena they test. A row can test several phenomena, of one category or of different ones.
Source: GLUE, arXiv 1804.07461, section 4 and appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjudge.evaluation.statistics import Runs, metric_interval
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

CATEGORIES = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Lines")
"""Tags which hold phenomena, separated by SEPARATOR; ``Lines`` is the length of a program.

A further tag, ``Domain``, is a sentence's origin.
"""

SEPARATOR = ";"

METRICS = ("matthews", "accuracy")


def diagnose(spec: TaskSpec, runs: Runs, *, resamples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Score one method's aligned runs on the rows of each category and of each of its phenomena.

    Returns one dict per category (all its rows; ``phenomenon`` is None) and per phenomenon, in the order of
    `CATEGORIES` and then by name: ``category, phenomenon, n, metrics`` {name: {value, low, high}}, means over the runs.
    Empty for number tasks and for tasks whose rows name no phenomenon.
    """
    if spec.is_number:
        return []
    scores = []
    for category in CATEGORIES:
        phenomena_of = {
            index: phenomena for index, row in enumerate(runs[0]) if (phenomena := _phenomena(row, category))
        }
        names = sorted({name for phenomena in phenomena_of.values() for name in phenomena})
        for phenomenon in (None, *names) if names else ():
            chosen = [
                index for index, phenomena in phenomena_of.items() if phenomenon is None or phenomenon in phenomena
            ]
            part = [[run[index] for index in chosen] for run in runs]
            figures = {name: metric_interval(spec, name, part, resamples, seed) for name in METRICS}
            scores.append({"category": category, "phenomenon": phenomenon, "n": len(chosen), "metrics": figures})
    return scores


def _phenomena(row: Prediction, category: str) -> Sequence[str]:
    """Return the phenomena of a category which the row tests."""
    return [name.strip() for name in row.tags.get(category, "").split(SEPARATOR) if name.strip()]
