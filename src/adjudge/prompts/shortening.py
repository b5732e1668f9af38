"""Fit a text into a number of tokens: cut it at its end, start or middle, or divide it into pieces."""

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
    """Return about `tokens` tokens (at least one) of an encodable text.

    The result is at least one character shorter than the text.
    """
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


def divide(plain: PlainText, text: str, tokens: int) -> list[str]:
    """Return an encodable text as consecutive pieces of at most `tokens` tokens.

    They end between words if they can. Only a part of the text is tokenised at a time, so that the time grows with its
    length alone.
    """
    pieces, begin = [], 0
    while begin < len(text):
        window = 8 * tokens
        while True:
            rest = text[begin : begin + window]
            end = plain.end_of_tokens(rest, tokens)
            if end < len(rest) or begin + window >= len(text):
                break
            window *= 2
        if begin + end < len(text) and (space := rest.rfind(" ", end - end // 5, end)) > 0:
            end = space + 1
        if piece := rest[:end].strip():
            pieces.append(piece)
        begin += max(1, end)
    return pieces or [text]


def _begin_of_last(plain: PlainText, text: str, tokens: int, whole: int) -> int:
    """Return where the last `tokens` of `whole` tokens begin: after the first character, before the last."""
    begin = plain.end_of_tokens(text, whole - tokens) if whole > tokens else 1
    return max(1, min(begin, len(text) - 1))
