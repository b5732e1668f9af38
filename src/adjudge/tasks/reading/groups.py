"""Find rows that belong to one group, such as the answer options of a question."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from adjudge.tasks.reading.same_text import text_key
from adjudge.types import Example


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


def keys_together(examples: Sequence[Example]) -> list[str]:
    """Return one key per row, equal for rows that must stay together in a split or a fold.

    Those are rows with equal texts or of one group, and rows connected through such rows (union-find over the texts).
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    first_of_group: dict[str, str] = {}
    texts = [text_key(example.fields) for example in examples]
    for example, text in zip(examples, texts, strict=True):
        if example.group:
            low, high = sorted((root(text), root(first_of_group.setdefault(example.group, text))))
            parent[high] = low
    return [root(text) for text in texts]
