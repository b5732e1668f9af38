"""Where an answer ends, in tokens: the one rule that sampling, training and evaluation share.

Differs from arXiv 2410.11020's reference, which draws 12 to 32 tokens and never stops at ``</Judgement>`` (it still reads only what
stands before it): `stop: line` ends an answer at the closing tag, a line end, the end of the turn or a small limit, because an untrained
small model never writes the closing tag; `stop: tag` (preset paper) wants the tag, and stops there. An analysis, where one is asked for,
ends at its own tag, the end of the turn or its own limit, whatever the rule for answers: it may have many lines, and is never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adjudge.config import AnswerConfig
from adjudge.errors import ConfigError
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, answer_text, read_label
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Value

_SPARE = 2
"""Tokens beyond the longest answer and its closing tag, since a model may split a word otherwise than the tokenizer does."""


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The rule for one task and tokenizer. `max_tokens` counts the tokens of an answer and its end."""

    tokenizer: Any
    stop: Literal["line", "tag"]
    end_ids: tuple[int, ...]
    max_tokens: int
    min_tokens: int

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether a response that has just got its last token ends there (the limit aside)."""
        if self.stop == "line" and ids[-1] in self.end_ids:
            return True
        text = self.text(ids)
        return CLOSING_TAG in text or (self.stop == "line" and _has_line_end(text))

    def text(self, ids: Sequence[int]) -> str:
        """The response as text, the end-of-turn token left out."""
        return _decoded(self.tokenizer, self.end_ids, ids)

    def inside(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a response that has ended up to its closing tag; one that holds what is beyond, or the line end, is left out."""
        kept = _without_turn_end(self.end_ids, ids)
        text = self.text(kept)
        beyond = bool(text.partition(CLOSING_TAG)[2]) or (self.stop == "line" and _has_line_end(text))
        return kept[:-1] if beyond else kept

    def taught_ids(self, value: Value, spec: TaskSpec) -> list[int]:
        """What training teaches a model to emit for a gold answer: the answer and its end."""
        text = answer_text(value, spec)
        if self.stop == "line" and self.end_ids:
            return [*self._encode(text), self.end_ids[0]]
        return self._encode(text + CLOSING_TAG)

    def label_ids(self, spec: TaskSpec) -> list[list[int]]:
        """Token ids of each label word; with their end where one word's tokens begin another's, so that they can be told apart."""
        plain = [self._encode(word) for word in spec.words]
        clash = any(a != b and b[: len(a)] == a for a in plain for b in plain)
        return [self.taught_ids(word, spec) for word in spec.words] if clash else plain

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def answer_end(tokenizer: Any, end_ids: Sequence[int], spec: TaskSpec, config: AnswerConfig) -> AnswerEnd:
    """Build the rule. Unset limits: the longest answer and its end: one token (`line`), or the closing tag (`tag`, no end token).

    Raises ConfigError when a limit that is set has no room for the longest answer, and for an answer word that the tokenizer cannot
    write so that it is read again.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def tokens(text: str) -> int:
        return len(encode(text))

    for word in spec.words:  # a vocabulary without its script makes another word the same "unknown" token
        written = _decoded(tokenizer, end_ids, encode(word))
        if read_label(written, spec.words) != word:
            raise ConfigError(
                f"{spec.name}: the model's tokenizer cannot write the answer word {word!r}: it comes back as {written!r}. "
                "Name another word in 'labels' (--labels raw=Word), or use another model."
            )
    ends = (spec.number.low, spec.number.high) if spec.number else ()
    numbers = [answer_text(end, spec) for end in ends]
    # A tokenizer may know the ends ("0", "100") as one token and other numbers digit by digit: count characters too.
    longest = max(*map(tokens, [*spec.words, *numbers]), *map(len, numbers), 1)
    automatic = longest + 1 if config.stop == "line" and end_ids else longest + tokens(CLOSING_TAG) + _SPARE
    most = config.max_tokens or automatic
    needed = max(map(tokens, [*spec.words, *numbers]))
    if most < needed:
        raise ConfigError(
            f"answer.max_tokens={most} cuts off an answer of {spec.name}: its longest has {needed} tokens. Raise it, or leave it unset."
        )
    return AnswerEnd(tokenizer, config.stop, tuple(end_ids), most, min(config.min_tokens or most, most))


@dataclass(frozen=True, slots=True)
class AnalysisEnd:
    """Where an analysis ends: at its closing tag, the end of the turn, or after `max_tokens` (always as many)."""

    tokenizer: Any
    end_ids: tuple[int, ...]
    max_tokens: int

    @property
    def min_tokens(self) -> int:
        """The limit is not drawn."""
        return self.max_tokens

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether an analysis that has just got its last token ends there (the limit aside)."""
        return ids[-1] in self.end_ids or CLOSING_ANALYSIS in self.text(ids)

    def text(self, ids: Sequence[int]) -> str:
        """The analysis as text, the end-of-turn token left out."""
        return _decoded(self.tokenizer, self.end_ids, ids)

    def inside(self, ids: Sequence[int]) -> list[int]:
        """The tokens of an analysis that has ended up to its closing tag; one that holds what is beyond it is left out."""
        kept = _without_turn_end(self.end_ids, ids)
        return kept[:-1] if self.text(kept).partition(CLOSING_ANALYSIS)[2] else kept


def _without_turn_end(end_ids: Sequence[int], ids: Sequence[int]) -> list[int]:
    return list(ids[:-1] if ids and ids[-1] in end_ids else ids)


def _decoded(tokenizer: Any, end_ids: Sequence[int], ids: Sequence[int]) -> str:
    kept = _without_turn_end(end_ids, ids)
    return str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _has_line_end(text: str) -> bool:
    return "\n" in text or "\r" in text
