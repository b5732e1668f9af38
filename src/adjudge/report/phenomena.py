"""A comparison's figures per linguistic phenomenon, for the tasks whose rows name phenomena (GLUE's AX, SuperGLUE's AX-b).

Input is the mapping of table.json, as in `adjudge.report.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.tables import Figure, mean_figure

FEW_ROWS = 30
"""A phenomenon with fewer rows is marked, and no interval is shown: resampling a handful of rows makes it too narrow."""


@dataclass(frozen=True, slots=True)
class Phenomenon:
    """One category (`name` None: all its rows) or phenomenon: its rows, and each method's figures by metric."""

    category: str
    name: str | None
    n: int
    figures: Mapping[str, Mapping[str, Figure]]

    @property
    def title(self) -> str:
        """``Logic, all`` or ``Logic: Negation``."""
        return f"{self.category}: {self.name}" if self.name else f"{self.category}, all"

    @property
    def few(self) -> bool:
        """Whether there are so few rows that a figure says little."""
        return self.n < FEW_ROWS


def phenomena(table: Mapping[str, Any], task: str) -> list[Phenomenon]:
    """The phenomena of one task in the order of its first run; empty when its rows name none. Several seeds: see `mean_figure`."""
    runs: dict[str, list[Mapping[tuple[str, str | None], Mapping[str, Any]]]] = {}
    for row in table.get("rows", ()):
        if str(row["task"]) == task and row.get("diagnostics"):
            runs.setdefault(str(row["method"]), []).append(_by_name(row))
    pooled = {
        str(entry["method"]): _by_name(entry) for entry in table.get("summary") or () if str(entry["task"]) == task
    }
    first = next((mine[0] for mine in runs.values()), {})
    return [
        Phenomenon(
            *name,
            int(entry["n"]),
            {
                method: {
                    metric: _figure([run[name] for run in mine], pooled.get(method, {}).get(name), metric)
                    for metric in entry["metrics"]
                }
                for method, mine in runs.items()
                if all(name in run for run in mine)
            },
        )
        for name, entry in first.items()
    ]


def phenomena_columns(found: Sequence[Phenomenon]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: with one method its metrics side by side, with several the first metric (Matthews) of each."""
    methods = list(dict.fromkeys(method for item in found for method in item.figures))
    metrics = list(dict.fromkeys(metric for item in found for figures in item.figures.values() for metric in figures))
    pairs = (
        [(methods[0], metric) for metric in metrics]
        if len(methods) == 1
        else [(method, metrics[0]) for method in methods]
    )
    head = ["phenomenon", "rows", *(metric if len(methods) == 1 else method for method, metric in pairs)]
    lines = [
        [item.title, f"{item.n}{' (few)' if item.few else ''}"]
        + [str(item.figures[method][metric]) if method in item.figures else "–" for method, metric in pairs]
        for item in found
    ]
    return head, lines


def phenomena_line(task: str, found: Sequence[Phenomenon]) -> str:
    """What the table above is, and what to know about it."""
    few = any(item.few for item in found)
    note = f" Few: fewer than {FEW_ROWS} rows, so that a figure says little and no interval is given." if few else ""
    return f"{task}: Matthews correlation on the rows that test a phenomenon; a row can test several.{note}"


def _by_name(entry: Mapping[str, Any]) -> dict[tuple[str, str | None], Mapping[str, Any]]:
    return {(str(item["category"]), item["phenomenon"]): item for item in entry.get("diagnostics") or ()}


def _figure(found: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None, metric: str) -> Figure:
    figure = mean_figure([item["metrics"][metric] for item in found], pooled["metrics"].get(metric) if pooled else None)
    return Figure(figure.value) if int(found[0]["n"]) < FEW_ROWS else figure
