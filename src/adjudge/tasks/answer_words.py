"""When two answers are the same: what is forgiven when an answer is read, and so what may not tell answer words apart."""

from __future__ import annotations

import unicodedata

FINAL_PUNCTUATION = ".,!?;:…。，、！？；：؟،؛।"
"""Marks that may follow an answer, any number of them: Latin, CJK, Arabic and Devanagari ones."""

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing and are not seen themselves."""

_MOST_EXPANDED = 12
"""Code points that one code point becomes at most when its case is folded (3) and each of these is decomposed (4)."""


def as_it_stands(text: str) -> str:
    """The text in Unicode NFC with white space collapsed."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def without_final_punctuation(text: str) -> str:
    """As it stands, final punctuation removed."""
    # The space is stripped too: "Yes ." and "Yes . ." end in punctuation as well.
    return as_it_stands(text).rstrip(FINAL_PUNCTUATION + " ")


def folded(text: str) -> str:
    """Without final punctuation, and the same for texts that differ only in case."""
    # Case folding can undo the composition, hence NFC again.
    return unicodedata.normalize("NFC", without_final_punctuation(text).casefold())


def stripped(text: str) -> str:
    """White space collapsed and final punctuation removed, and no normal form made: its time is in the square of a run of accents."""
    # U+037E becomes a semicolon in NFC.
    return " ".join(text.split()).rstrip(FINAL_PUNCTUATION + "\u037e ")


def too_long(text: str, longest: int) -> bool:
    """Whether no word of up to `longest` code points can be the same as `text` in any of the forms above."""
    return len(stripped(text)) > _MOST_EXPANDED * longest


def unreadable_mark(word: str) -> str | None:
    """The first character that an answer word cannot have, as ``U+202E``: a control, half a surrogate pair, a mark of direction."""
    wrong = next((mark for mark in word if unicodedata.category(mark) in ("Cc", "Cs") or mark in _DIRECTIONS), None)
    return None if wrong is None else f"U+{ord(wrong):04X}"
