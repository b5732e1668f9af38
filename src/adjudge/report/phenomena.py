"""Figures per linguistic phenomenon, for tasks whose rows name them (GLUE's AX, SuperGLUE's AX-b).

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.summary import Figure, mean_figure

KEYS = ("diagnostics", "category", "phenomenon")
"""The list in a result, and the two keys that name an item of it."""

FEW_ROWS = 30
"""A phenomenon with fewer rows is marked and gets no interval: resampling so few rows makes it too narrow."""


@dataclass(frozen=True, slots=True)
class Phenomenon:
    """A phenomenon, or a whole category (`name` is None), with each method's figures by metric."""

    category: str
    name: str | None
    n: int
    """Rows that test it."""
    figures: Mapping[str, Mapping[str, Figure]]

    @property
    def title(self) -> str:
        """``Logic, all`` or ``Logic: Negation``."""
        return f"{self.category}: {self.name}" if self.name else f"{self.category}, all"

    @property
    def few(self) -> bool:
        """True when there are too few rows for a reliable figure."""
        return self.n < FEW_ROWS


def phenomena(table: Mapping[str, Any], task: str) -> list[Phenomenon]:
    """Return the phenomena of one task in the order of its first run; empty when its rows name none."""
    return tagged(table, task, KEYS)


def tagged(table: Mapping[str, Any], task: str, keys: tuple[str, str, str]) -> list[Phenomenon]:
    """Return the figures that the results of one task have per tag, in the order of its first run.

    `keys` are the list in a result, and the two keys that name an item. Over several seeds, figures are combined as in
    `mean_figure`.
    """
    runs: dict[str, list[Mapping[tuple[str, str | None], Mapping[str, Any]]]] = {}
    for row in table.get("rows", ()):
        if str(row["task"]) == task and row.get(keys[0]):
            runs.setdefault(str(row["method"]), []).append(_by_name(row, keys))
    pooled = {
        str(entry["method"]): _by_name(entry, keys)
        for entry in table.get("summary") or ()
        if str(entry["task"]) == task
    }
    first = next((seeds[0] for seeds in runs.values()), {})
    return [
        Phenomenon(
            *name,
            int(entry["n"]),
            {
                method: {
                    metric: _figure([seed[name] for seed in seeds], pooled.get(method, {}).get(name), metric)
                    for metric in entry["metrics"]
                }
                for method, seeds in runs.items()
                if all(name in seed for seed in seeds)
            },
        )
        for name, entry in first.items()
    ]


def phenomena_columns(items: Sequence[Phenomenon], title: str = "phenomenon") -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table of phenomena.

    A single method is shown with all its metrics, several methods with their first one (Matthews).
    """
    methods = list(dict.fromkeys(method for item in items for method in item.figures))
    metrics = list(dict.fromkeys(metric for item in items for figures in item.figures.values() for metric in figures))
    if len(methods) == 1:
        columns = {metric: (methods[0], metric) for metric in metrics}
    else:
        columns = {method: (method, metrics[0]) for method in methods}
    lines = [
        [item.title, f"{item.n}{' (few)' if item.few else ''}"]
        + [str(item.figures[method][metric]) if method in item.figures else "–" for method, metric in columns.values()]
        for item in items
    ]
    return [title, "rows", *columns], lines


def phenomena_line(task: str, items: Sequence[Phenomenon]) -> str:
    """Return the sentence that explains the table of phenomena."""
    few = any(item.few for item in items)
    note = f" Few: fewer than {FEW_ROWS} rows, so that a figure says little and no interval is given." if few else ""
    return f"{task}: Matthews correlation on the rows that test a phenomenon; a row can test several.{note}"


def _by_name(entry: Mapping[str, Any], keys: tuple[str, str, str]) -> dict[tuple[str, str | None], Mapping[str, Any]]:
    part, first, second = keys
    return {(str(item[first]), item[second]): item for item in entry.get(part) or ()}


def _figure(per_seed: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None, metric: str) -> Figure:
    pooled_figure = pooled["metrics"].get(metric) if pooled else None
    figure = mean_figure([item["metrics"][metric] for item in per_seed], pooled_figure)
    return Figure(figure.value) if int(per_seed[0]["n"]) < FEW_ROWS else figure
