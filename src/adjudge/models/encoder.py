"""An encoder with a classification or regression head: loading it, and feeding it rows.

Legend: ``B`` rows in a batch, ``N`` rows, ``L`` labels (1 for a number task).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError
from adjudge.models.plain_text import acting_tokens, encodable, pieces
from adjudge.models.sources.loading import (
    LOAD_ERRORS,
    explain_load,
    load_tokenizer,
    locate,
    model_options,
    resolve_device,
)
from adjudge.models.sources.quiet import quiet
from adjudge.system.files import whole_folder
from adjudge.system.memory import keep_freed_memory

UNLIMITED = 10**6
"""A tokenizer that knows no limit says a huge number."""


_AS_TEXT = {"split_special_tokens": True}
"""``[SEP]`` in a text begins no new segment."""


@dataclass(frozen=True, slots=True)
class Texts:
    """One row as an encoder reads it: one text, or a pair."""

    first: str
    second: str | None = None


class Encoder:
    """A sequence classifier with its tokenizer, in float32 on any device (its weights are all trained)."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, _longest_input(model, tokenizer))
        self._apart = acting_tokens(tokenizer)

    @property
    def words(self) -> tuple[str, ...]:
        """The label words of the head, in its order; empty for a regression head."""
        if self.model.config.num_labels == 1:
            return ()
        return tuple(self.model.config.id2label[index] for index in range(self.model.config.num_labels))

    def lengths(self, rows: Sequence[Texts]) -> list[int]:
        """Tokens of each row before any shortening, special tokens included."""
        if not rows:
            return []
        encoded = self.tokenizer(*self._columns(rows), truncation=False, padding=False, verbose=False, **_AS_TEXT)
        return [len(ids) for ids in encoded["input_ids"]]

    def logits(self, rows: Sequence[Texts]) -> Tensor:
        """One forward over `rows`, padded to the longest of them, the longer text of a pair shortened first. Shape ``[B, L]``."""
        options = {
            "truncation": "longest_first",
            "max_length": self.max_tokens,
            "padding": "longest",
            "return_tensors": "pt",
        }
        batch = self.tokenizer(*self._columns(rows), **options, **_AS_TEXT)
        logits: Tensor = self.model(**batch.to(self.model.device)).logits
        return logits.float()

    def score(self, rows: Sequence[Texts], batch_size: int, done: Callable[[int], None] = lambda count: None) -> Tensor:
        """Logits of all rows in their order, without gradients, in batches of like length. Shape ``[N, L]``, on the CPU."""
        self.model.eval()
        lengths = self.lengths(rows)
        order = sorted(range(len(rows)), key=lambda index: -lengths[index])
        logits_NL = torch.zeros(len(rows), self.model.config.num_labels)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                logits_NL[chosen] = self.logits([rows[index] for index in chosen]).cpu()
                done(len(chosen))
        return logits_NL

    def _columns(self, rows: Sequence[Texts]) -> tuple[list[str], list[str] | None]:
        """Texts and second texts as the tokenizer takes them; rows of one task all have a second text or all have none."""
        seconds = [self._plain(row.second) for row in rows if row.second is not None]
        return [self._plain(row.first) for row in rows], seconds or None

    def _plain(self, text: str) -> str:
        # A space inside what would be a control token all the same: a pair cannot be encoded piece by piece.
        return " ".join(pieces(encodable(text), self._apart))

    def save(self, folder: Path) -> None:
        """Save model and tokenizer in transformers' safetensors layout; the folder is there whole or not at all."""
        with whole_folder(folder) as aside:
            with quiet():
                self.model.save_pretrained(aside)
            self.tokenizer.save_pretrained(aside)


def texts_of(fields: Mapping[str, str]) -> Texts:
    """An encoder's view of a row: the first field, and the others joined with a line end as the second text of a pair."""
    first, *others = fields.values()
    return Texts(first, "\n".join(others) if others else None)


def load_encoder(name: str, runtime: RuntimeConfig, max_tokens: int, words: Sequence[str] | None) -> Encoder:
    """Load the encoder `name` (bundled, folder or hub id) with a head for `words`, or one regression output when there are none.

    A head that does not fit is new, drawn from torch's global generator: seed it first. With ``words=None`` the model is taken as
    it was saved, head included. Raises ModelError: not found, not an encoder, weights missing, no fast tokenizer.
    """
    from transformers import AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification
    source, options = locate(name, runtime)
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    tokenizer = load_tokenizer(name, source, options)
    head: dict[str, Any] = {}
    if words is not None:
        head = {
            "num_labels": max(1, len(words)),
            "problem_type": "single_label_classification" if words else "regression",
        }
        if words:
            head |= {"id2label": dict(enumerate(words)), "label2id": {word: index for index, word in enumerate(words)}}
    keep_freed_memory()
    try:
        with quiet():
            model, info = auto.from_pretrained(
                source,
                **model_options(options),
                **head,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=words is not None,
                output_loading_info=True,
            )
    except LOAD_ERRORS as error:
        raise explain_load(name, error) from error
    _check_body(name, model, info, new_head=words is not None)
    return Encoder(model.to(resolve_device(runtime)).eval(), tokenizer, max_tokens)


def _check_body(name: str, model: Any, info: Mapping[str, Any], *, new_head: bool) -> None:
    """Only the head (and the pooler before it) may be new."""
    body = f"{model.base_model_prefix}."
    new = set(info.get("missing_keys") or ()) | {key for key, *_ in info.get("mismatched_keys") or ()}
    wrong = sorted(key for key in new if not new_head or (key.startswith(body) and ".pooler." not in key))
    if wrong:
        raise ModelError(
            f"{name} cannot serve as an encoder: its weights lack {len(wrong)} parameters of {type(model).__name__} "
            f"({', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''})."
        )


def _longest_input(model: Any, tokenizer: Any) -> int:
    if tokenizer.model_max_length < UNLIMITED:
        return int(tokenizer.model_max_length)
    return int(getattr(model.config, "max_position_embeddings", UNLIMITED))
