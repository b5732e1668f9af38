"""Decide when two answers count as the same.

Reading forgives these differences, so two answer words of a task must differ by more than them.
"""

from __future__ import annotations

import re
import unicodedata

FINAL_PUNCTUATION = ".,!?;:…。，、！？；：؟،؛।"
"""Marks that may follow an answer any number of times: Latin, CJK, Arabic and Devanagari."""

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible marks that change the direction of writing."""

_INVISIBLE = re.compile("[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b\u2060-\u2065\u3164\ufeff\uffa0]")
"""Marks that nobody sees and that join nothing: zero-width space, byte-order mark, soft hyphen, fillers, …"""

_JOINERS = re.compile("[\u200c\u200d]+")
_VIRAMA = 9
"""The combining class of a mark after which a joiner ends a word in Malayalam and its kin."""

_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]+)\.0+")
_LONGEST_LABEL = 1000
"""Longest text that is compared as a label; normalising takes time quadratic in a run of accents."""

_LATIN = str.maketrans("аеорсухіјѕһԁАВЕКМНОРСТХІЈЅοαρνΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aeopcyxijshdABEKMHOPCTXIJSoapvABEZHIKMNOPTYX")
"""Cyrillic and Greek letters that look like Latin ones."""

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


def without_invisible(text: str) -> str:
    """Return the text without marks that nobody sees and that change no letter.

    Joiners stay where they belong: inside an emoji, and in words of a script with joined letters (Persian, Hindi).
    """
    if text.isascii():
        return text
    text = _INVISIBLE.sub("", text)
    return _JOINERS.sub(lambda match: match.group() if _is_joined(text, *match.span()) else "", text)


def _is_joined(text: str, begin: int, end: int) -> bool:
    """Return whether the joiners at begin:end stand where a script or an emoji needs them."""
    before, after = text[max(0, begin - 1) : begin], text[end : end + 1]
    if before and unicodedata.combining(before) == _VIRAMA:
        return True
    return _can_join(before) and _can_join(after)


def _can_join(mark: str) -> bool:
    """Return whether a mark belongs to an emoji, or to a script with joined letters (Arabic to Mongolian)."""
    if not mark:
        return False
    return (
        "\u0600" <= mark <= "\u109f"
        or "\u1780" <= mark <= "\u1cff"
        or "\ua840" <= mark <= "\uabff"
        or mark == "\ufe0f"
        or unicodedata.category(mark) in ("So", "Sk")
    )


def label_key(raw: str) -> str:
    """Return a raw label in the one form in which equal labels are equal.

    Labels that look alike are equal: white space, invisible marks and the ways to compose an accent do not count. A
    whole number is equal to itself with zeros after the point: 1 and 1.0.
    """
    if len(raw) > _LONGEST_LABEL:
        return raw.strip()
    shown = as_it_stands(without_invisible(raw))
    number = _WHOLE_NUMBER.fullmatch(shown)
    if number is None:
        return shown
    return number[1] if number[1].strip("+-0") else "0"


def look(text: str) -> str:
    """Return a form that is equal for texts which a reader takes for one.

    They may have full-width letters, or Cyrillic letters in place of Latin ones.
    """
    return unicodedata.normalize("NFKC", text[:_LONGEST_LABEL]).translate(_LATIN)


def too_long(text: str, longest: int) -> bool:
    """Return whether `text` is too long to equal a word of up to `longest` code points in any form above."""
    return len(stripped(text)) > _MOST_EXPANDED * longest


def unreadable_mark(word: str) -> str | None:
    """Return the first character an answer word must not have, as ``U+202E``, or None.

    These are control characters, halves of surrogate pairs, direction marks, and those of `without_invisible`.
    """
    wrong = next((mark for mark in word if unicodedata.category(mark) in ("Cc", "Cs") or mark in _DIRECTIONS), None)
    if wrong is None:
        kept = iter(without_invisible(word))
        wrong = next((mark for mark in word if mark != next(kept, None)), None)
    return None if wrong is None else f"U+{ord(wrong):04X}"
