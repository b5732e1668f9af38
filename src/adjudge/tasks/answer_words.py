"""Decide when two answers count as the same.

Reading forgives these differences, so two answer words of a task must differ by more than them.
"""

from __future__ import annotations

import unicodedata

FINAL_PUNCTUATION = ".,!?;:…。，、！？；：؟،؛।"
"""Marks that may follow an answer any number of times: Latin, CJK, Arabic and Devanagari."""

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible marks that change the direction of writing."""

_MOST_EXPANDED = 12
"""Most code points that one becomes by case folding (up to 3), then decomposing each of them (up to 4)."""


def as_it_stands(text: str) -> str:
    """Return the text in Unicode NFC with white space collapsed."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def without_final_punctuation(text: str) -> str:
    """Return the text as `as_it_stands` does, without final punctuation."""
    # The space is stripped too: "Yes ." and "Yes . ." end in punctuation as well.
    return as_it_stands(text).rstrip(FINAL_PUNCTUATION + " ")


def folded(text: str) -> str:
    """Return the text without final punctuation and with case folded."""
    # Case folding can undo the composition, hence NFC again.
    return unicodedata.normalize("NFC", without_final_punctuation(text).casefold())


def stripped(text: str) -> str:
    """Collapse white space and remove final punctuation, without Unicode normalisation.

    Normalising takes time quadratic in the length of a run of accents.
    """
    # U+037E becomes a semicolon in NFC.
    return " ".join(text.split()).rstrip(FINAL_PUNCTUATION + "\u037e ")


def too_long(text: str, longest: int) -> bool:
    """Return whether `text` is too long to equal a word of up to `longest` code points in any form above."""
    return len(stripped(text)) > _MOST_EXPANDED * longest


def unreadable_mark(word: str) -> str | None:
    """Return the first character an answer word must not have, as ``U+202E``, or None.

    These are control characters, halves of surrogate pairs and direction marks.
    """
    wrong = next((mark for mark in word if unicodedata.category(mark) in ("Cc", "Cs") or mark in _DIRECTIONS), None)
    return None if wrong is None else f"U+{ord(wrong):04X}"
