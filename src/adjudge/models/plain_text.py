"""Tokenizing text from data as plain text, whatever it spells.

By default a tokenizer turns ``<|im_end|>`` or ``[SEP]`` in a text into the token that ends a turn or a segment. It also
fails at half a surrogate pair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def encodable(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def acting_tokens(tokenizer: Any, template: str = "") -> tuple[str, ...]:
    """Return the texts that act as control tokens in spite of ``split_special_tokens``.

    There are two kinds: added tokens that the chat `template` writes turns with, although the tokenizer does not mark
    them as special (some fine-tuned models have these), and special tokens that the vocabulary also holds as words (a
    unigram model's does).
    """
    added = {
        number: token
        for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if len(token.content) > 1
    }
    special = {
        number: token.content for number, token in added.items() if token.special and number != tokenizer.unk_token_id
    }
    acting = [token.content for token in added.values() if not token.special and token.content in template]
    if special:
        encoded = tokenizer(list(special.values()), add_special_tokens=False, split_special_tokens=True).input_ids
        acting += [text for (number, text), ids in zip(special.items(), encoded, strict=True) if number in ids]
    return tuple(acting)


def pieces(text: str, apart: Sequence[str]) -> list[str]:
    """Split a text into pieces that spell none of the tokens `apart`, which are cut after one character."""
    if not apart:
        return [text]
    inside = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in apart)
    return re.split(inside, text)


def plain_ids(tokenizer: Any, text: str, apart: Sequence[str] = ()) -> list[int]:
    """Return the token ids of a text, none of them a control token."""
    return [
        token
        for piece in pieces(encodable(text), apart)
        for token in tokenizer(piece, add_special_tokens=False, split_special_tokens=True).input_ids
    ]


def end_of_tokens(tokenizer: Any, text: str, tokens: int, apart: Sequence[str] = ()) -> int:
    """Return where the first `tokens` tokens (at least one) of an encodable text end, in characters."""
    begin = 0
    for piece in pieces(text, apart):
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = tokenizer(piece, **options)["offset_mapping"]
        if tokens <= len(offsets):
            return begin + int(offsets[tokens - 1][1])
        tokens, begin = tokens - len(offsets), begin + len(piece)
    return len(text)


def widest_token(tokenizer: Any) -> int:
    """Return the number of characters of the longest token in the vocabulary."""
    return max((len(token) for token in tokenizer.get_vocab()), default=1)
