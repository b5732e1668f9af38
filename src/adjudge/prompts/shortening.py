"""Shorten a text to a number of tokens: at its end, at its start, or in its middle."""

from __future__ import annotations

from typing import Literal

from adjudge.models.plain_text import PlainText

Place = Literal["end", "start", "middle"]
"""Where a text loses tokens."""

GAP = " … "
"""What stands where the middle was."""


def surely_needed(text: str, most: int, place: Place) -> str:
    """Return a text without characters that are surely cut, where at most `most` characters are kept.

    What is left is longer than `most` if the text is, so it is cut again.
    """
    if len(text) <= most:
        return text
    if place == "end":
        return text[: most + 1]
    if place == "start":
        return text[-most - 1 :]
    return text if len(text) <= 2 * most + 2 else text[: most + 1] + text[-most - 1 :]


def cut(plain: PlainText, text: str, tokens: int, place: Place) -> str:
    """Return about `tokens` tokens (at least one) of an encodable text, and at least one character less than it."""
    if place == "end":
        end = plain.end_of_tokens(text, tokens)
        return text[: end if end < len(text) else len(text) - 1].rstrip()
    whole = len(plain.following(text))
    if place == "start":
        return text[_begin_of_last(plain, text, tokens, whole) :].lstrip()
    kept = tokens - len(plain.following(GAP))
    if kept >= 2:
        first = text[: plain.end_of_tokens(text, kept - kept // 2)]
        last = text[_begin_of_last(plain, text, kept // 2, whole) :]
        shorter = first.rstrip(GAP) + GAP + last.lstrip(GAP)
        if len(shorter) < len(text):
            return shorter
    return cut(plain, text, tokens, "end")


def _begin_of_last(plain: PlainText, text: str, tokens: int, whole: int) -> int:
    """Return where the last `tokens` of the `whole` tokens begin: after the first character, before the last."""
    begin = plain.end_of_tokens(text, whole - tokens) if whole > tokens else 1
    return max(1, min(begin, len(text) - 1))
