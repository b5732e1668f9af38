"""The name of a method as its runs and tables show it."""

from __future__ import annotations

MULTI = "multi-"
"""Prefix of a method's name when it trains one adapter on several tasks: ``multi-sft``."""


def shown_name(name: str, tasks: int) -> str:
    """Return the name to show for a run: ``multi-sft`` for ``sft`` over several tasks."""
    return f"{MULTI}{name}" if tasks > 1 else name
