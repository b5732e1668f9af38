"""Decide which texts count as the same, and turn a text into a reproducible number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def normal_text(text: str) -> str:
    """Return the text with case folded and white space collapsed; texts are the same when these are equal."""
    return " ".join(text.split()).casefold()


def text_key(fields: Mapping[str, str]) -> str:
    """Return one string for all texts of a row; it is equal for rows with equal normal texts."""
    return "\x1f".join(f"{name}\x1e{normal_text(fields[name])}" for name in sorted(fields))


def hash_share(text: str, seed: int | None = None) -> float:
    """Return a number in [0, 1) that depends only on the text and the seed.

    It comes from SHA-256, so it is the same on every machine.
    """
    salted = text if seed is None else f"{seed}\x1d{text}"
    return int.from_bytes(hashlib.sha256(salted.encode("utf-8", "surrogatepass")).digest()[:7], "big") / 2**56
