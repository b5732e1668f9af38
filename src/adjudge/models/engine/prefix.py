"""Keys and values of the tokens that all prompts begin with: one row of them, viewed as many, and kept while the weights stay.

Works on transformers' cache objects; tensors in them are shared and never written.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adjudge.models.engine.batch import shared_start


@dataclass(slots=True)
class Prefilled:
    """Prompts already in the cache: what sampling and label scoring go on from."""

    cache: Any
    mask_BT: Tensor
    position_B: Tensor
    hidden_BD: Tensor
    """Last hidden state of each prompt: predicts the first response token."""
    grad: bool = False
    """Whether gradients flow through what is in the cache, and through what is computed from it."""

    def fork(self) -> Prefilled:
        """A copy that can be continued without touching this one (tensors are shared, never written)."""
        return replace(self, cache=copy_cache(self.cache))

    def keep(self, rows_B: Tensor) -> Prefilled:
        """Only these rows (this state is spent): the others have ended and cost nothing more."""
        self.cache.batch_select_indices(rows_B)
        return Prefilled(self.cache, self.mask_BT[rows_B], self.position_B[rows_B], self.hidden_BD[rows_B], self.grad)


def expand(cache: Any, rows: int) -> Any:
    """A cache of `rows` rows from one of a single row. Nothing is copied where a layer holds plain keys and values."""
    if not _all_plain(cache):
        cache.batch_repeat_interleave(rows)
        return cache
    return _with_layers(cache, lambda tensor: tensor.expand(rows, -1, -1, -1))


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """The cache of a prefix, and the state of the weights it was computed with."""

    ids: list[int]
    cache: Any
    version: int

    @classmethod
    def of(cls, prefix_C: Tensor, cache: Any, version: int) -> KeptPrefix:
        """Keep a copy of `cache` that nobody else continues."""
        return cls(prefix_C.tolist(), copy_cache(cache) if _all_plain(cache) else None, version)

    def reuse(self, prefix_C: Tensor, version: int) -> tuple[int, Any]:
        """How many tokens of `prefix_C` are here, and their cache; (0, None) when the weights have changed."""
        if self.cache is None or version != self.version:
            return 0, None
        shared = shared_start(self.ids, prefix_C.tolist())
        if shared == 0:
            return 0, None
        return shared, _with_layers(self.cache, lambda tensor: tensor[:, :, :shared])


def copy_cache(cache: Any) -> Any:
    """A cache that can be continued without touching this one: the layers are copied, their tensors shared."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


def _with_layers(cache: Any, change: Any) -> Any:
    found = copy_cache(cache)
    for layer in found.layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
    return found


def _all_plain(cache: Any) -> bool:
    return all(_is_plain(layer) for layer in cache.layers)


def _is_plain(layer: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    return type(layer) is DynamicLayer and isinstance(layer.keys, torch.Tensor) and layer.keys.dim() == 4
