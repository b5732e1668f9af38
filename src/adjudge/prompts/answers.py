"""Read a response as a judgement, and write a gold answer as the text that training teaches.

Reading is strict: a response is one label word (or one plain number) and nothing else, or it is unreadable. An answer
is not searched for inside a longer text ("Not sure" is not "No"), and never guessed.

Differences in white space, case and *final* punctuation are forgiven (`adjudge.tasks.answer_words`). Quotes, brackets,
markup and text before the answer are not: a closing quote follows an opening one, so it is not just final punctuation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

from adjudge.errors import ConfigError, DataError, nearest
from adjudge.tasks.answer_words import as_it_stands, folded, stripped, too_long, without_final_punctuation
from adjudge.tasks.sets import JOINT, MOST_LISTED, NOTHING, set_text
from adjudge.tasks.spec import NumberAnswer, TaskSpec
from adjudge.types import Judgement, Value

OPENING_TAG = "<Judgement>"
CLOSING_TAG = "</Judgement>"
OPENING_ANALYSIS = "<Analysis>"
CLOSING_ANALYSIS = "</Analysis>"

MOST_ANSWERS = 128
"""Largest number of answers that are listed one by one."""

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_LINE_END = re.compile(r"[\r\n]")


def read_label(text: str, words: Sequence[str]) -> str | None:
    """Return the one of `words` equal to `text`, or None when the text is unreadable.

    Only the text before the first closing tag counts. A partial tag at the very end (``</Jud``) is removed too, for
    answers which the token limit cut inside the tag.

    Words are compared as they stand, then without final punctuation, then also ignoring case (Unicode NFC and case
    folding). The first comparison with a match decides; several matches (``a.`` for the words "A" and "A.") are
    unreadable. So words which differ only in case or final punctuation can be told apart.
    """
    body = _before_tag(text)
    longest = max(map(len, words), default=0)
    for candidate in dict.fromkeys((body, _without_partial_tag(body))):
        if too_long(candidate, longest):
            continue
        for form in _FORMS:
            wanted = form(candidate)
            matches = [word for word in words if wanted and form(word) == wanted]
            if matches:
                return matches[0] if len(matches) == 1 else None
    return None


def read_number(text: str, low: float, high: float) -> float | None:
    """Return `text` as a plain decimal number, or None when it is unreadable.

    A number outside low..high (ends included) is unreadable too.

    A plain number has ASCII digits with an optional sign and optional decimals after a point: "3", "-1.5", "+2.0", and
    with final punctuation "3.". These are unreadable: ".5", "1e3", "inf", "3,5", "3/5", "٣". The closing tag is
    handled as in `read_label`.
    """
    body = stripped(_without_partial_tag(_before_tag(text)))
    if not _PLAIN_NUMBER.fullmatch(body):
        return None
    value = float(body) + 0.0  # turns -0.0 into 0.0
    return value if low <= value <= high else None


def read_answer(text: str, spec: TaskSpec, stop: Literal["line", "tag"]) -> Judgement:
    """Return the judgement of a generated response, under one of two rules for where an answer ends.

    `line` (ours): the answer ends at the first line end, the closing tag, or the end of the text. An answer which
    begins with a line end is empty, hence unreadable, just as generation would cut it.

    `tag` (arXiv 2410.11020): a response without a complete closing tag is unreadable. The judgement keeps the whole
    text.
    """
    if stop == "tag" and CLOSING_TAG not in text:
        return Judgement(text, None)
    body = _LINE_END.split(text, maxsplit=1)[0] if stop == "line" else text
    if spec.number is not None:
        return Judgement(text, read_number(body, spec.number.low, spec.number.high))
    return Judgement(text, read_words(body, spec))


def read_words(text: str, spec: TaskSpec) -> str | None:
    """Return the answer of a label task equal to `text`, or None when it is unreadable.

    Of a task with sets of labels, labels are separated by commas and may be in any order. A label twice, an unknown
    one, and a label beside "none" are unreadable.
    """
    if spec.several is None:
        return read_label(text, spec.words)
    body = _before_tag(text)
    for candidate in dict.fromkeys((body, _without_partial_tag(body))):
        if too_long(candidate, sum(map(len, spec.names)) + len(JOINT) * len(spec.names)):
            continue
        parts = [read_label(part, [*spec.names, NOTHING]) for part in candidate.split(JOINT.strip())]
        named = [part for part in parts if part is not None]
        if len(named) == len(parts) == len(set(named)) and (named == [NOTHING] or NOTHING not in named):
            return set_text(named, spec.names)
    return None


def answer_text(value: Value, spec: TaskSpec) -> str:
    """Return the answer as training teaches it: the label word, or the number with the task's decimals.

    `read_answer` can read the result. Raises DataError for a value which is not an answer of this task.
    """
    if spec.number is not None:
        return _number_text(value, spec.number, spec.name)
    if not spec.accepts(value):
        raise DataError(f"{spec.name}: {value!r} is not one of its answer words.{nearest(str(value), spec.words)}")
    return str(value)


def is_right(value: Value | None, gold: Value | None) -> bool:
    """Return whether an answer as read is the gold one; a number, whether it is less than 0.5 away."""
    if isinstance(value, int | float) and isinstance(gold, int | float):
        return abs(value - gold) < 0.5
    return value == gold


def every_answer(spec: TaskSpec) -> list[Judgement]:
    """Return all answers of the task: its label words in order, or its numbers from low to high.

    The numbers are those with the task's decimals. Raises ConfigError for a number task with more than `MOST_ANSWERS`
    of them, and for a task with too many sets of labels to list.
    """
    if spec.number is None:
        if not spec.lists_all:
            raise ConfigError(
                f"{spec.name} has 2^{len(spec.names)} sets of its {len(spec.names)} labels, too many to list: at most "
                f"{MOST_LISTED} labels. Use a method that samples or reads answers, or ask label by label "
                "(several: passes; --kind passes)."
            )
        return [Judgement(word, word) for word in spec.words]
    number = spec.number
    steps = count_answers(spec) - 1
    if steps >= MOST_ANSWERS:
        raise ConfigError(
            f"{spec.name} has {steps + 1:,} answers from {number.low:g} to {number.high:g} with {number.decimals} "
            f"decimals; at most {MOST_ANSWERS} can be listed. Give `number` fewer decimals, or use what reads "
            "or samples answers: --decode greedy, and ppo, rloo or grpo."
        )
    values = [round(number.low + step * 10**-number.decimals, number.decimals) + 0.0 for step in range(steps + 1)]
    return [Judgement(_number_text(value, number, spec.name), value) for value in values]


def count_answers(spec: TaskSpec) -> int:
    """Return how many answers the task has: its labels, or the numbers from low to high with its decimals."""
    if spec.number is None:
        return len(spec.words)
    return math.floor((spec.number.high - spec.number.low) * 10**spec.number.decimals + 1e-9) + 1


def _number_text(value: Value, number: NumberAnswer, task: str) -> str:
    if isinstance(value, str) or not math.isfinite(value) or not number.low <= value <= number.high:
        raise DataError(f"{task}: {value!r} is not a number between {number.low:g} and {number.high:g}.")
    text = f"{value:.{number.decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    if not number.low <= float(text) <= number.high:
        raise DataError(
            f"{task}: {value!r} becomes {text} with {number.decimals} decimals, outside {number.low:g} to "
            f"{number.high:g}. Give the number answer more decimals or wider ends."
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
