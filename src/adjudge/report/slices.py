"""Figures per slice of the user's tags.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.report.phenomena import FEW_ROWS, Phenomenon, tagged

KEYS = ("slices", "tag", "slice")
"""The list in a result, and the two keys that name an item of it."""


class Slice(Phenomenon):
    """A slice with each method's figures by metric; `name` is None for the rows without a value."""

    @property
    def title(self) -> str:
        """Return ``topic: sport``, or ``topic: (no value)``."""
        return f"{self.category}: {self.name if self.name is not None else '(no value)'}"


def slices(table: Mapping[str, Any], task: str) -> list[Slice]:
    """Return the slices of one task in the order of its first run; empty when its rows have none."""
    return [Slice(item.category, item.name, item.n, item.figures) for item in tagged(table, task, KEYS)]


def slices_line(task: str, items: Sequence[Slice]) -> str:
    """Return the sentence that explains the table of slices."""
    metric = next((next(iter(figures)) for item in items for figures in item.figures.values() if figures), "")
    few = any(item.few for item in items)
    note = f" Few: fewer than {FEW_ROWS} rows, so that a figure says little and no interval is given." if few else ""
    return (
        f"{task}: {metric} on the rows of a slice; a row can be in several. Slices were not tested against each "
        f"other: of many, the best and the worst are partly chance.{note}"
    )
