"""Find rows that belong to one group, such as the answer options of a question."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar


class Grouped(Protocol):
    """An example or a prediction."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...


_Row = TypeVar("_Row", bound=Grouped)


def is_grouped(rows: Sequence[_Row]) -> bool:
    """Return whether any row belongs to a group."""
    return any(row.group for row in rows)


def by_unit(rows: Sequence[_Row]) -> dict[Hashable, list[int]]:
    """Return the row indices of each unit, in order of first appearance.

    A unit is a group of rows, or a single row without a group.
    """
    units: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        units.setdefault(row.group or index, []).append(index)
    return units
