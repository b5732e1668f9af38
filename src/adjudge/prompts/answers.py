"""From a response to a judgement, and from a gold answer to the text that training teaches.

Reading is strict: a response is one label word (or one plain number) and nothing else, or it is unreadable. Nothing is
searched for inside a longer text ("Not sure" is no "No"), and nothing is guessed.

What is forgiven: whitespace around and between words, case, and *final* punctuation (`adjudge.tasks.answer_words`). Quotes, brackets,
markup and anything in front of the answer are not: a quote that closes was opened, so it is not final punctuation alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

from adjudge.errors import DataError, nearest
from adjudge.tasks.answer_words import as_it_stands, folded, stripped, too_long, without_final_punctuation
from adjudge.tasks.spec import NumberAnswer, TaskSpec
from adjudge.types import Judgement, Value

OPENING_TAG = "<Judgement>"
CLOSING_TAG = "</Judgement>"
OPENING_ANALYSIS = "<Analysis>"
CLOSING_ANALYSIS = "</Analysis>"

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_LINE_END = re.compile(r"[\r\n]")


def read_label(text: str, words: Sequence[str]) -> str | None:
    """Return the one of `words` that `text` is, or None when it is unreadable.

    What counts is the text before the first closing tag, or before a beginning of one (``</Jud``) at the very end: an answer
    that the token limit cut inside the tag. A word is looked for as it stands, then without final punctuation, then also
    without regard to case (Unicode NFC and case folding). The first of these that finds any decides, and finding several
    (``a.`` for the words "A" and "A.") is unreadable. So words that differ only in case, or end in punctuation, can be told apart.
    """
    body = _before_tag(text)
    longest = max(map(len, words), default=0)
    for candidate in dict.fromkeys((body, _without_partial_tag(body))):
        if too_long(candidate, longest):
            continue
        for form in _FORMS:
            wanted = form(candidate)
            found = [word for word in words if wanted and form(word) == wanted]
            if found:
                return found[0] if len(found) == 1 else None
    return None


def read_number(text: str, low: float, high: float) -> float | None:
    """Return the plain decimal number that `text` is, or None when it is unreadable or outside low..high (both ends count).

    Plain: ASCII digits with an optional sign and optional decimals after a point, so "3", "-1.5" and "+2.0", and with final
    punctuation "3." too, but neither ".5" nor "1e3", "inf", "3,5", "3/5" or "٣". The closing tag is treated as in `read_label`.
    """
    body = stripped(_without_partial_tag(_before_tag(text)))
    if not _PLAIN_NUMBER.fullmatch(body):
        return None
    value = float(body) + 0.0  # turns -0.0 into 0.0
    return value if low <= value <= high else None


def read_answer(text: str, spec: TaskSpec, stop: Literal["line", "tag"]) -> Judgement:
    """Read a generated response under one of the two rules for where an answer ends.

    `line` (ours): the answer ends at the first line end, at the closing tag, or where the text ends. An answer that begins with
    a line end is empty, hence unreadable: it is cut as it was generated. `tag` (arXiv 2410.11020): without a complete closing
    tag it is unreadable. The judgement keeps the text as it came.
    """
    if stop == "tag" and CLOSING_TAG not in text:
        return Judgement(text, None)
    body = _LINE_END.split(text, maxsplit=1)[0] if stop == "line" else text
    if spec.number is not None:
        return Judgement(text, read_number(body, spec.number.low, spec.number.high))
    return Judgement(text, read_label(body, spec.words))


def answer_text(value: Value, spec: TaskSpec) -> str:
    """Return what training teaches as the answer: the label word, or the number with the task's decimals.

    What it returns, `read_answer` reads. Raises DataError for a value that is no answer of this task.
    """
    if spec.number is not None:
        return _number_text(value, spec.number, spec.name)
    if value not in spec.words:
        raise DataError(f"{spec.name}: {value!r} is none of its answer words.{nearest(str(value), spec.words)}")
    return str(value)


def _number_text(value: Value, number: NumberAnswer, task: str) -> str:
    if isinstance(value, str) or not math.isfinite(value) or not number.low <= value <= number.high:
        raise DataError(f"{task}: {value!r} is no number between {number.low:g} and {number.high:g}.")
    text = f"{value:.{number.decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    if not number.low <= float(text) <= number.high:
        raise DataError(
            f"{task}: {value!r} becomes {text} with {number.decimals} decimals, outside {number.low:g} to {number.high:g}. "
            "Give the number answer more decimals or wider ends."
        )
    return text


def _before_tag(text: str) -> str:
    return text.partition(CLOSING_TAG)[0]


def _without_partial_tag(text: str) -> str:
    for length in range(len(CLOSING_TAG) - 1, 0, -1):
        if text.endswith(CLOSING_TAG[:length]):
            return text[:-length]
    return text


_FORMS: tuple[Callable[[str], str], ...] = (as_it_stands, without_final_punctuation, folded)
