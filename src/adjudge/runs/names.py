"""Names of methods and of run folders as tables show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MULTI = "multi-"
"""Prefix of a method's name when it trains one adapter on several tasks: ``multi-sft``."""


def shown_name(name: str, tasks: int) -> str:
    """Return the name to show for a run: ``multi-sft`` for ``sft`` over several tasks."""
    return f"{MULTI}{name}" if tasks > 1 else name


def names_apart(folders: Sequence[Path]) -> list[str]:
    """Return one name per folder: its last part, or as many parts as tell the folders apart.

    A folder that is there twice has the same name twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-length:]).lstrip("/") for each in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(folder) for folder in folders]
