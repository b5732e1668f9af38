"""An encoder with a classification or regression head: loading, scoring, saving.

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
from adjudge.models.sources.device import resolve_device
from adjudge.models.sources.loading import (
    LOAD_ERRORS,
    explain_load,
    load_tokenizer,
    locate,
    model_options,
)
from adjudge.models.sources.quiet import quiet
from adjudge.system.files import whole_folder
from adjudge.system.memory import keep_freed_memory

UNLIMITED = 10**6
"""A tokenizer without a length limit reports a huge number."""

_AS_TEXT = {"split_special_tokens": True}
"""With this, ``[SEP]`` in a text starts no new segment."""


@dataclass(frozen=True, slots=True)
class Texts:
    """One row as an encoder reads it: a text, or a pair of texts."""

    first: str
    second: str | None = None


class Encoder:
    """A sequence classifier with its tokenizer, in float32 on any device (all its weights are trained)."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, _longest_input(model, tokenizer))
        self._apart = acting_tokens(tokenizer)

    @property
    def words(self) -> tuple[str, ...]:
        """Label words of the head, in its order; empty for a regression head."""
        if self.model.config.num_labels == 1:
            return ()
        return tuple(self.model.config.id2label[index] for index in range(self.model.config.num_labels))

    def lengths(self, rows: Sequence[Texts]) -> list[int]:
        """Return the number of tokens of each row before any shortening, with special tokens."""
        if not rows:
            return []
        encoded = self.tokenizer(*self._columns(rows), truncation=False, padding=False, verbose=False, **_AS_TEXT)
        return [len(ids) for ids in encoded["input_ids"]]

    def logits(self, rows: Sequence[Texts]) -> Tensor:
        """Return the logits of `rows` in one forward pass, ``[B, L]``.

        Rows are padded to the longest; in a pair that is too long, the longer text is shortened first.
        """
        logits: Tensor = self.model(**self.encoded(rows)).logits
        return logits.float()

    def vectors(
        self, texts: Sequence[str], batch_size: int, done: Callable[[int], None] = lambda count: None
    ) -> Tensor:
        """Return each text's mean last hidden state, scaled to length 1: ``[N, D]`` on the CPU.

        There are no gradients. Batches hold texts of similar length. `done` is called with the number of texts after
        each batch.
        """
        self.model.eval()
        body = getattr(self.model, self.model.base_model_prefix)
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        vectors: list[Tensor] = [torch.empty(0)] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                indices = order[start : start + batch_size]
                batch = self.encoded([Texts(texts[index]) for index in indices])
                hidden_BTD = body(**batch).last_hidden_state.float()
                real_BT1 = batch["attention_mask"][:, :, None].to(hidden_BTD)
                mean_BD = (hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1)
                for index, vector_D in zip(indices, torch.nn.functional.normalize(mean_BD).cpu(), strict=True):
                    vectors[index] = vector_D
                done(len(indices))
        return torch.stack(vectors)

    def score(self, rows: Sequence[Texts], batch_size: int, done: Callable[[int], None] = lambda count: None) -> Tensor:
        """Return the logits of all rows in their order, ``[N, L]`` on the CPU, without gradients.

        Batches hold rows of similar length. `done` is called with the number of rows after each batch.
        """
        self.model.eval()
        lengths = self.lengths(rows)
        order = sorted(range(len(rows)), key=lambda index: -lengths[index])
        logits_NL = torch.zeros(len(rows), self.model.config.num_labels)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                indices = order[start : start + batch_size]
                logits_NL[indices] = self.logits([rows[index] for index in indices]).cpu()
                done(len(indices))
        return logits_NL

    def encoded(self, rows: Sequence[Texts]) -> Any:
        """Return the padded batch of `rows` on the model's device."""
        options = {
            "truncation": "longest_first",
            "max_length": self.max_tokens,
            "padding": "longest",
            "return_tensors": "pt",
        }
        return self.tokenizer(*self._columns(rows), **options, **_AS_TEXT).to(self.model.device)

    def _columns(self, rows: Sequence[Texts]) -> tuple[list[str], list[str] | None]:
        """Return first and second texts for the tokenizer; all rows of a task have a second text or none."""
        seconds = [self._plain(row.second) for row in rows if row.second is not None]
        return [self._plain(row.first) for row in rows], seconds or None

    def _plain(self, text: str) -> str:
        # A space inside texts that would still act as control tokens: a pair cannot be encoded piece by piece.
        return " ".join(pieces(encodable(text), self._apart))

    def save(self, folder: Path) -> None:
        """Save model and tokenizer in transformers' safetensors layout; `folder` appears whole or not at all."""
        with whole_folder(folder) as temporary:
            with quiet():
                self.model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary)


def texts_of(fields: Mapping[str, str]) -> Texts:
    """Return a row as a pair of texts: the first field, and the others joined by line ends."""
    first, *others = fields.values()
    return Texts(first, "\n".join(others) if others else None)


def load_encoder(name: str, runtime: RuntimeConfig, max_tokens: int, words: Sequence[str] | None) -> Encoder:
    """Load the encoder `name`: bundled, a folder, or a hub id.

    The head has one output per word of `words`, or a single one for regression when `words` is empty.
    A head that does not fit is replaced by a new one, drawn from torch's global generator: seed it first. With
    ``words=None`` the model keeps the head it was saved with.
    Raises ModelError when the model is not found, is not an encoder, lacks weights, or has no fast tokenizer.
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
    # The head of a causal model reads the last real token: it must know the padding, which comes after the text.
    tokenizer.padding_side = "right"
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
    return Encoder(model.to(resolve_device(runtime)).eval(), tokenizer, max_tokens)


def _check_body(name: str, model: Any, info: Mapping[str, Any], *, new_head: bool) -> None:
    """Raise ModelError if weights other than those of the head, and of the pooler before it, are new."""
    body = f"{model.base_model_prefix}."
    new = set(info.get("missing_keys") or ()) | {key for key, *_ in info.get("mismatched_keys") or ()}
    missing = sorted(key for key in new if not new_head or (key.startswith(body) and ".pooler." not in key))
    if missing:
        raise ModelError(
            f"{name} cannot serve as an encoder: its weights lack {len(missing)} parameters of {type(model).__name__} "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})."
        )


def _longest_input(model: Any, tokenizer: Any) -> int:
    """Return the largest number of tokens that the encoder takes."""
    if tokenizer.model_max_length < UNLIMITED:
        return int(tokenizer.model_max_length)
    return int(getattr(model.config, "max_position_embeddings", UNLIMITED))
