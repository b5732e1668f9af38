"""Tokenise text from data as plain text, and as part of the whole text around it.

Two things go wrong otherwise. By default a tokenizer turns ``<|im_end|>`` or ``[SEP]`` in a text into the token that
ends a turn or a segment; it also fails at half a surrogate pair. And a text tokenised apart is not what it is inside a
longer one: SentencePiece tokenizers (Llama-2, Mistral) put a ``▁`` before it, others merge characters across its ends.

So a text is tokenised whole, and cut only inside what spells a control token.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

NEUTRAL = ("\n", ".", "a", "1", ")")
"""Texts that may stand before another without a token that reaches into it; the first that fits is used."""


def encodable(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def control_tokens(tokenizer: Any, template: str = "") -> dict[str, int]:
    """Return the texts of the tokens that must not come from data, with their ids.

    These are the special tokens, and added tokens that the chat `template` writes turns with, although the tokenizer
    does not mark them as special (some fine-tuned models have these). One character alone is no control token.
    """
    return {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if len(token.content) > 1 and (token.special or token.content in template)
    }


def acting_tokens(tokenizer: Any, template: str = "") -> tuple[str, ...]:
    """Return the texts that act as control tokens in spite of ``split_special_tokens``.

    There are two kinds: the added tokens of the `template` that are not special, and special tokens that the vocabulary
    also holds as words (a unigram model's does).
    """
    control, special = control_tokens(tokenizer, template), control_tokens(tokenizer)
    acting = [text for text in control if text not in special]
    words = {text: number for text, number in special.items() if number != tokenizer.unk_token_id}
    if words:
        encoded = tokenizer(list(words), add_special_tokens=False, split_special_tokens=True).input_ids
        acting += [text for (text, number), ids in zip(words.items(), encoded, strict=True) if number in ids]
    return tuple(acting)


def pieces(text: str, apart: Sequence[str]) -> list[str]:
    """Split a text into pieces that spell none of the tokens `apart`, which are cut after one character."""
    if not apart:
        return [text]
    inside = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in apart)
    return re.split(inside, text)


class PlainText:
    """A tokenizer that reads text from data as plain text.

    `template` is the text around the data; the control tokens that it writes act nowhere else.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        self._tokenizer = tokenizer
        self._control = control_tokens(tokenizer, template)
        self._control_ids = frozenset(self._control.values())
        self._heads: dict[str, list[int]] = {}

    def ids(self, parts: Sequence[str], before: str = "") -> list[int]:
        """Return the ids of a text given as template, data, template, data, …, where it follows `before`.

        They are those of the whole text wherever the data spell no control token. A control token that data spell, or
        take part in, is cut after its first character, and the text is tokenised in pieces.
        """
        texts = [encodable(part) if index % 2 else part for index, part in enumerate(parts)]
        ends = list(itertools.accumulate(map(len, texts), initial=0))
        ours = list(itertools.pairwise(ends))[::2]
        return [token for run in self._runs("".join(texts), before, ours) for token in run.ids]

    def following(self, text: str, before: str = "") -> list[int]:
        """Return the ids of plain `text` where it follows `before`; none is a control token.

        A token that would reach from `before` into the text is avoided: then the text follows something neutral.
        """
        return [token for run in self._runs(encodable(text), before or NEUTRAL[0], ()) for token in run.ids]

    def last_control(self, text: str) -> tuple[str, int]:
        """Return the last control token that a template's text writes, and where it begins; else "" and -1."""
        places = [(text.rfind(token), len(token), token) for token in self._control]
        begin, _, token = max(places, default=(-1, 0, ""))
        return (token, begin) if begin >= 0 else ("", -1)

    def end_of_tokens(self, text: str, tokens: int) -> int:
        """Return where the first `tokens` tokens (at least one) of an encodable text end, in characters."""
        for run in self._runs(text, NEUTRAL[0], ()):
            if tokens <= len(run.ids):
                return max(1, run.span(tokens - 1)[1])
            tokens -= len(run.ids)
        return len(text)

    def _runs(self, text: str, before: str, ours: Sequence[tuple[int, int]]) -> list[_Run]:
        """Tokenise a text in one run if possible: cut it until no control token lies outside the spans `ours`."""
        cuts = {0}
        while True:
            bounds = [*sorted(cuts), len(text)]
            runs, known = [], {}
            for begin, end in itertools.pairwise(bounds):
                piece = text[begin:end]
                if piece not in known:
                    known[piece] = self._run(piece, before if begin == 0 else NEUTRAL[0])
                runs.append(replace(known[piece], begin=begin))
            more = {cut for run in runs for cut in self._wrong(run, text, ours)} - cuts
            if not more:
                return runs
            cuts |= more

    def _wrong(self, run: _Run, text: str, ours: Sequence[tuple[int, int]]) -> Iterator[int]:
        """Yield a place to cut in each control token of a run that does not lie in `ours`."""
        for index, token in enumerate(run.ids):
            if token in self._control_ids:
                begin, end = run.span(index)
                core = text[begin:end].strip()  # some control tokens take the white space beside them
                begin += text[begin:end].find(core)
                if token == self._tokenizer.unk_token_id and core not in self._control:
                    continue  # it stands for characters outside the vocabulary, and acts on nothing
                if len(core) > 1 and not any(start <= begin and begin + len(core) <= stop for start, stop in ours):
                    yield begin + 1

    def _run(self, text: str, before: str) -> _Run:
        """Tokenise a text; unless `before` is empty, without what a tokenizer puts at every text's beginning."""
        for anchor in (before, *NEUTRAL) if before else ():
            head = self._head(anchor)
            encoding = self._encode(anchor + text)
            if head and encoding.ids[: len(head)] == head and len(encoding.ids) > len(head):
                return _Run(encoding, encoding.ids[len(head) :], len(head), len(anchor))
        encoding = self._encode(text)
        return _Run(encoding, encoding.ids, 0, 0)

    def _head(self, anchor: str) -> list[int]:
        if anchor not in self._heads:
            self._heads[anchor] = self._encode(anchor).ids
        return self._heads[anchor]

    def _encode(self, text: str) -> Any:
        return self._tokenizer(text, add_special_tokens=False)[0]


@dataclass(frozen=True, slots=True)
class _Run:
    """Tokens of one piece of a text."""

    encoding: Any
    ids: list[int]
    skipped: int
    """Number of the encoding's tokens before the piece's own, and in `anchor` of their characters."""
    anchor: int
    begin: int = 0
    """Where the piece begins in the text."""

    def span(self, index: int) -> tuple[int, int]:
        """Return the characters of the text that a token covers."""
        begin, end = self.encoding.token_to_chars(index + self.skipped)
        return begin - self.anchor + self.begin, end - self.anchor + self.begin


def widest_token(tokenizer: Any) -> int:
    """Return the number of characters of the longest token in the vocabulary."""
    return max((len(token) for token in tokenizer.get_vocab()), default=1)
