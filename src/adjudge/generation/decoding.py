"""How a text is drawn, where it ends, and what its score is.

Shapes: ``A`` rows that are still written, ``V`` vocabulary.
Source: arXiv 2202.04538 (SuperGen).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CLOSED = r"['’)\]]*"
_SENTENCE_END = re.compile(rf"[.!?…؟।]{_CLOSED}(?=\s+[^\sa-z])|[.!?…؟।]{_CLOSED}(?=\s*\n)|[。！？]{_CLOSED}")
"""A stop before something that is no small letter, or before a line end; some scripts' stops need no space."""
_LAST_STOP = re.compile(rf"[.!?…؟।。！？]{_CLOSED}$")
_QUOTES = re.compile(r'["“”„«»「」]')
_OUTER = (('"', '"'), ("“", "”"), ("«", "»"))

UNFINISHED, QUOTES, EMPTY = "unfinished", "quotes", "empty"
"""Why a text is dropped as it is written."""


@dataclass(frozen=True, slots=True)
class TextEnd:
    """The end of a text: its first sentence, a line end, the end of the turn, or `max_tokens` tokens."""

    tokenizer: Any
    end_ids: tuple[int, ...]
    max_tokens: int

    @property
    def min_tokens(self) -> int:
        """Return `max_tokens`: the limit is fixed, not drawn."""
        return self.max_tokens

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether a text ends with its latest token, ignoring the limit."""
        if ids[-1] in self.end_ids:
            return True
        text = self.text(ids).lstrip()
        return "\n" in text or _SENTENCE_END.search(text) is not None

    def text(self, ids: Sequence[int]) -> str:
        """Return a text without the token that ends the turn."""
        kept = list(ids[:-1] if ids and ids[-1] in self.end_ids else ids)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def first_sentence(text: str) -> tuple[str, str | None]:
    """Return the first sentence of what was written, and why it is dropped (None: it is not).

    A text without letters is empty. One that has no stop is unfinished. Quotes around the whole text are removed; a
    text with other double quotes is dropped, since only a part of what they belong to may be there.
    """
    text = text.strip()
    line = text.partition("\n")[0]
    for opening, closing in _OUTER:
        if line.startswith(opening) and line.count(closing) == (2 if opening == closing else 1):
            inside = line[1:].partition(closing)[0]
            line = inside.strip()
    match = _SENTENCE_END.search(line)
    sentence = " ".join((line[: match.end()] if match else line).split())
    if not any(letter.isalpha() for letter in sentence):
        return sentence, EMPTY
    if _QUOTES.search(sentence):
        return sentence, QUOTES
    if not _LAST_STOP.search(sentence):
        return sentence, UNFINISHED
    return sentence, None


def span_of(end: TextEnd, ids: Sequence[int], sentence: str, start: str) -> slice:
    """Return which written tokens make up the sentence, without white space before it; at least one."""
    wanted = _length(sentence)
    lengths = [_length(f"{start}{end.text(ids[:count])}") for count in range(1, len(ids) + 1)]
    first = next((index for index, length in enumerate(lengths) if length > 0), 0)
    last = next((index for index, length in enumerate(lengths) if length >= wanted), len(ids) - 1)
    return slice(min(first, last), last + 1)


def _length(text: str) -> int:
    """Return the number of characters without white space, and without the quotes that are removed."""
    return len("".join(_QUOTES.sub("", text).split()))


def mean_logp(logp_R: Tensor) -> float:
    """Return a text's score: the mean log-probability of its tokens, which no length favours, in nats."""
    return float(logp_R.double().mean())


class Repetition:
    """Changes logits by what a text and the text it belongs to have already; also the temperature.

    With reward and penalty 1, logits are divided by the temperature alone. A positive logit is divided by the factor, a
    negative one is multiplied, so that below 1 a token becomes likelier.
    """

    def __init__(
        self,
        given_ids: Sequence[Sequence[int]],
        start_ids: Sequence[Sequence[int]],
        reward: float,
        penalty: float,
        temperature: float,
    ) -> None:
        self._given = [set(ids) for ids in given_ids]
        self._started = [set(ids) for ids in start_ids]
        self._reward, self._penalty, self._temperature = reward, penalty, temperature

    def __call__(self, rows: Sequence[int], ids: Sequence[Sequence[int]], logits_AV: Tensor) -> Tensor:
        """Return the logits to draw from."""
        if self._reward != 1 or self._penalty != 1:
            logits_AV = logits_AV.clone()
            for index, (row, written) in enumerate(zip(rows, ids, strict=True)):
                had = self._started[row] | set(written)
                _scale(logits_AV[index], self._given[row] - had, self._reward)
                _scale(logits_AV[index], had, self._penalty)
        return logits_AV if self._temperature in (0, 1) else logits_AV / self._temperature


def _scale(logits_V: Tensor, tokens: set[int], factor: float) -> None:
    if factor == 1 or not tokens:
        return
    index = torch.tensor(sorted(tokens), device=logits_V.device)
    chosen = logits_V[index]
    logits_V[index] = torch.where(chosen > 0, chosen / factor, chosen * factor)
