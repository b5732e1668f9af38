"""Text from data as a tokenizer must take it: as text, whatever it spells.

A tokenizer turns ``<|im_end|>`` or ``[SEP]`` in a text into the token that ends a turn or a segment, unless it is told not to, and
fails at half a surrogate pair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def encodable(text: str) -> str:
    """Lone surrogates cannot be encoded; they become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def acting_tokens(tokenizer: Any, template: str = "") -> tuple[str, ...]:
    """Texts that would act as control tokens in spite of ``split_special_tokens``.

    Added tokens that `template` writes turns with though the tokenizer does not call them special, as some fine-tuned models have
    them; and special ones that the vocabulary holds as words too, as a unigram model's does.
    """
    added = {
        number: token
        for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if len(token.content) > 1
    }
    special = {
        number: token.content for number, token in added.items() if token.special and number != tokenizer.unk_token_id
    }
    found = [token.content for token in added.values() if not token.special and token.content in template]
    if special:
        encoded = tokenizer(list(special.values()), add_special_tokens=False, split_special_tokens=True).input_ids
        found += [text for (number, text), ids in zip(special.items(), encoded, strict=True) if number in ids]
    return tuple(found)


def pieces(text: str, apart: Sequence[str]) -> list[str]:
    """The text in pieces that spell none of the tokens `apart`: each is cut behind its first character."""
    if not apart:
        return [text]
    inside = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in apart)
    return re.split(inside, text)


def plain_ids(tokenizer: Any, text: str, apart: Sequence[str] = ()) -> list[int]:
    """Token ids of a text, none of them a control token."""
    return [
        token
        for piece in pieces(encodable(text), apart)
        for token in tokenizer(piece, add_special_tokens=False, split_special_tokens=True).input_ids
    ]


def end_of_tokens(tokenizer: Any, text: str, tokens: int, apart: Sequence[str] = ()) -> int:
    """Where in an encodable text its first `tokens` tokens (at least one) end, in characters."""
    begin = 0
    for piece in pieces(text, apart):
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = tokenizer(piece, **options)["offset_mapping"]
        if tokens <= len(offsets):
            return begin + int(offsets[tokens - 1][1])
        tokens, begin = tokens - len(offsets), begin + len(piece)
    return len(text)


def widest_token(tokenizer: Any) -> int:
    """The most characters that one token of the vocabulary is written with: a text of more tokens than that is longer than they are."""
    return max((len(token) for token in tokenizer.get_vocab()), default=1)
