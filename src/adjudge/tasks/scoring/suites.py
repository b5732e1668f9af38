"""The tasks and metrics of GLUE and SuperGLUE, averaged as on their leaderboards.

A task's score is the mean of its official metrics; a suite's average is the mean of its tasks' scores. MNLI is one
task, the mean of its matched and mismatched rows. The diagnostic sets (AX, AX-b, AX-g) do not count.

Source: GLUE, arXiv 1804.07461, section 3 and table 1; SuperGLUE, arXiv 1905.00537, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

Figures = Mapping[str, Mapping[str, float]]
"""Maps task to metric to value."""


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a suite, as the leaderboard counts it.

    ``parts`` maps each of our tasks in it to its official metrics.
    """

    title: str
    parts: Mapping[str, tuple[str, ...]]

    def lacking(self, figures: Figures) -> list[str]:
        """Return the parts with missing figures; missing metrics are in brackets: ``glue/qqp (f1)``."""
        parts = []
        for task, metrics in self.parts.items():
            missing = [name for name in metrics if name not in figures.get(task, {})]
            if task not in figures:
                parts.append(task)
            elif missing:
                parts.append(f"{task} ({', '.join(missing)})")
        return parts

    def score(self, figures: Figures) -> float | None:
        """Return the mean of the parts, each the mean of its official metrics; None if any figure is missing."""
        if self.lacking(figures):
            return None
        return fmean(fmean(figures[task][name] for name in metrics) for task, metrics in self.parts.items())


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark of several tasks.

    Reports show a second average without the `optional` members, as papers often do.
    """

    title: str
    members: tuple[Member, ...]
    optional: tuple[str, ...] = ()


def _member(title: str, task: str, *metrics: str) -> Member:
    return Member(title, {task: metrics})


GLUE = Suite(
    "GLUE",
    (
        _member("CoLA", "glue/cola", "matthews"),
        _member("SST-2", "glue/sst2", "accuracy"),
        _member("MRPC", "glue/mrpc", "f1", "accuracy"),
        _member("STS-B", "glue/stsb", "pearson", "spearman"),
        _member("QQP", "glue/qqp", "f1", "accuracy"),
        Member("MNLI", {"glue/mnli": ("accuracy",), "glue/mnli-mm": ("accuracy",)}),
        _member("QNLI", "glue/qnli", "accuracy"),
        _member("RTE", "glue/rte", "accuracy"),
        _member("WNLI", "glue/wnli", "accuracy"),
    ),
    optional=("WNLI",),
)

SUPERGLUE = Suite(
    "SuperGLUE",
    (
        _member("BoolQ", "superglue/boolq", "accuracy"),
        _member("CB", "superglue/cb", "macro_f1", "accuracy"),
        _member("COPA", "superglue/copa", "accuracy"),
        _member("MultiRC", "superglue/multirc", "f1a", "group_exact"),
        _member("ReCoRD", "superglue/record", "record_f1", "record_em"),
        _member("RTE", "superglue/rte", "accuracy"),
        _member("WiC", "superglue/wic", "accuracy"),
        _member("WSC", "superglue/wsc", "accuracy"),
    ),
)

SUITES = (GLUE, SUPERGLUE)
