"""Show values from files in messages: cut to a length, with unprintable characters escaped."""

from __future__ import annotations

import json
from typing import Any

LONGEST = 60
"""Characters of a value that a message shows."""


def shorten(text: str) -> str:
    r"""Return a value cut to `LONGEST` characters, with each unprintable character escaped as in ``\x1b``.

    Cells and names of files may hold anything, also characters that a terminal would obey or hide.
    """
    cut = _cut(text)
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in cut)


def quoted(text: str) -> str:
    """Return a shortened value in single quotes."""
    return f"'{shorten(text)}'"


def shorten_json(value: Any) -> str:
    """Return a value as JSON, cut: a string before it is encoded, so that its quotes stay in pairs."""
    if isinstance(value, str):
        return json.dumps(_cut(value))
    return _cut(json.dumps(value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
