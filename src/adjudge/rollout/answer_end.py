"""Where an answer ends, in tokens: the one rule for sampling, training and evaluation.

- ``stop: line`` ends an answer at the closing tag, a line end, the end of the turn, or a small limit: an untrained
  small model never writes the closing tag.
- ``stop: tag`` (preset paper) requires the closing tag, and stops there.

An analysis ends at its closing tag, the end of the turn, or its own limit, under either rule. It may have many lines,
and is never read.

Differs from the reference of arXiv 2410.11020, which draws 12 to 32 tokens and does not stop at ``</Judgement>`` (it
reads only the text before the tag).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from adjudge.config import AnswerConfig
from adjudge.errors import ConfigError
from adjudge.models.plain_text import PlainText
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_TAG, answer_text, every_answer, read_words
from adjudge.prompts.chat import chat_template
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Value

_SPARE = 2
"""Tokens added to the longest answer and its closing tag: a model may split words differently than the tokenizer."""


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The rule for one task and tokenizer. `max_tokens` limits an answer together with its end."""

    tokenizer: Any
    stop: Literal["line", "tag"]
    end_ids: tuple[int, ...]
    max_tokens: int
    min_tokens: int

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether a response ends with its latest token, ignoring the limit."""
        if self.stop == "line" and ids[-1] in self.end_ids:
            return True
        text = self.text(ids)
        return CLOSING_TAG in text or (self.stop == "line" and _has_line_end(text))

    def text(self, ids: Sequence[int]) -> str:
        """Return the response as text, without the end-of-turn token."""
        return _decoded(self.tokenizer, self.end_ids, ids)

    def inside(self, ids: Sequence[int]) -> list[int]:
        """Return an ended response's tokens up to its closing tag.

        Drops a last token with text after the tag, or with the line end.
        """
        kept = _without_turn_end(self.end_ids, ids)
        text = self.text(kept)
        has_more = bool(text.partition(CLOSING_TAG)[2]) or (self.stop == "line" and _has_line_end(text))
        return kept[:-1] if has_more else kept

    def taught_ids(self, value: Value, spec: TaskSpec) -> list[int]:
        """Return the token ids to teach for a gold answer: the answer and its end."""
        text = answer_text(value, spec)
        if self.stop == "line" and self.end_ids:
            return [*self._encode(text), self.end_ids[0]]
        return self._encode(text + CLOSING_TAG)

    def label_ids(self, spec: TaskSpec) -> list[list[int]]:
        """Return the token ids of each label word.

        When one word's tokens begin another's, all include the end of the answer to tell them apart.
        """
        plain = [self._encode(answer.text) for answer in every_answer(spec)]
        clash = any(a != b and b[: len(a)] == a for a in plain for b in plain)
        return [self.taught_ids(word, spec) for word in spec.words] if clash else plain

    def _encode(self, text: str) -> list[int]:
        return answer_ids(self.tokenizer, text)


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Return an answer's ids after its opening tag, as a model writes it; none is a control token."""
    return list(_ids_after(tokenizer, text, OPENING_TAG))


@lru_cache(maxsize=4096)  # the answers of a task are few, its rows many
def _ids_after(tokenizer: Any, text: str, before: str) -> tuple[int, ...]:
    return tuple(PlainText(tokenizer, chat_template(tokenizer) or "").following(text, before))


def answer_end(tokenizer: Any, end_ids: Sequence[int], spec: TaskSpec, config: AnswerConfig) -> AnswerEnd:
    """Build the rule of a task and tokenizer.

    An unset limit allows the longest answer and its end. With ``stop: line`` the end is one token; with ``stop: tag``,
    or without an end token, it is the closing tag. Raises ConfigError when a set limit cuts off the longest answer, or
    when an answer word does not survive the tokenizer.
    """

    def tokens(text: str) -> int:
        return len(answer_ids(tokenizer, text))

    for word in spec.words:  # words in a script outside the vocabulary all become the same "unknown" token
        decoded = _decoded(tokenizer, end_ids, answer_ids(tokenizer, word))
        if read_words(decoded, spec) != word:
            raise ConfigError(
                f"{spec.name}: the model's tokenizer cannot write the answer word {word!r}: "
                f"it comes back as {decoded!r}. "
                "Name another word in 'labels' (--labels raw=Word), or use another model."
            )
    bounds = (spec.number.low, spec.number.high) if spec.number else ()
    numbers = [answer_text(bound, spec) for bound in bounds]
    # A tokenizer may have "0" and "100" as single tokens but split other numbers into digits: count characters too.
    longest = max(*map(tokens, [*spec.words, *numbers]), *map(len, numbers), 1)
    automatic = longest + 1 if config.stop == "line" and end_ids else longest + tokens(CLOSING_TAG) + _SPARE
    max_tokens = config.max_tokens or automatic
    needed = max(map(tokens, [*spec.words, *numbers]))
    if max_tokens < needed:
        raise ConfigError(
            f"answer.max_tokens={max_tokens} cuts off answers of {spec.name}: the longest has {needed} tokens. "
            "Raise it, or leave it unset."
        )
    return AnswerEnd(
        tokenizer, config.stop, tuple(end_ids), max_tokens, min(config.min_tokens or max_tokens, max_tokens)
    )


@dataclass(frozen=True, slots=True)
class AnalysisEnd:
    """The end of an analysis: its closing tag, the end of the turn, or `max_tokens` tokens."""

    tokenizer: Any
    end_ids: tuple[int, ...]
    max_tokens: int

    @property
    def min_tokens(self) -> int:
        """Return `max_tokens`: the limit of an analysis is fixed, not drawn."""
        return self.max_tokens

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether an analysis ends with its latest token, ignoring the limit."""
        return ids[-1] in self.end_ids or CLOSING_ANALYSIS in self.text(ids)

    def text(self, ids: Sequence[int]) -> str:
        """Return the analysis as text, without the end-of-turn token."""
        return _decoded(self.tokenizer, self.end_ids, ids)

    def inside(self, ids: Sequence[int]) -> list[int]:
        """Return an ended analysis's tokens up to its closing tag.

        Drops a last token with text after the tag.
        """
        kept = _without_turn_end(self.end_ids, ids)
        return kept[:-1] if self.text(kept).partition(CLOSING_ANALYSIS)[2] else kept


@dataclass(frozen=True, slots=True)
class TurnEnd(AnalysisEnd):
    """The end of free text: the end of the turn, or `max_tokens` tokens."""

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether the text ends with its latest token, ignoring the limit."""
        return ids[-1] in self.end_ids

    def inside(self, ids: Sequence[int]) -> list[int]:
        """Return an ended text's tokens without the end of the turn."""
        return _without_turn_end(self.end_ids, ids)


def _without_turn_end(end_ids: Sequence[int], ids: Sequence[int]) -> list[int]:
    return list(ids[:-1] if ids and ids[-1] in end_ids else ids)


def _decoded(tokenizer: Any, end_ids: Sequence[int], ids: Sequence[int]) -> str:
    kept = _without_turn_end(end_ids, ids)
    return str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _has_line_end(text: str) -> bool:
    return "\n" in text or "\r" in text
