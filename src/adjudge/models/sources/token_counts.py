"""Count tokens with a model's tokenizer, without loading the model. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from adjudge.models.sources.bundled import bundled_folder, is_fetched
from adjudge.models.sources.hub import split_hub_id
from adjudge.models.sources.random_models import TOKENIZER_OF, is_random

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_TEXTS = 20
"""Number of texts that are tokenised to find the longest."""

FILE = "tokenizer.json"


def longest_in_tokens(model: str, texts: Sequence[str]) -> int | None:
    """Return the tokens of the longest text, or None while the model's tokenizer is not on this machine.

    Only the texts with the most characters are counted, so it may miss a shorter text with more tokens.
    """
    path = _tokenizer_file(model)
    if path is None or not texts:
        return None
    try:
        tokenizer = _tokenizer(path, path.stat().st_mtime_ns)
    except Exception:  # the library raises bare exceptions; loading the model reports what is wrong with the file
        return None
    longest = sorted(texts, key=len, reverse=True)[:_MOST_TEXTS]
    return max(len(encoding.ids) for encoding in tokenizer.encode_batch(longest, add_special_tokens=False))


@lru_cache(maxsize=2)  # reading one takes longer than counting
def _tokenizer(path: Path, _changed_ns: int) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    return tokenizer


def _tokenizer_file(model: str) -> Path | None:
    name = TOKENIZER_OF if is_random(model) else model
    folder = bundled_folder(name) if is_fetched(name) else Path(name).expanduser()
    if (folder / FILE).is_file():
        return folder / FILE
    if (parts := split_hub_id(name)) is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(parts[0], FILE, revision=parts[1])
    return Path(cached) if isinstance(cached, str) else None
