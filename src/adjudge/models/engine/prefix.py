"""Keys and values of the common prefix: one row of them, viewed as many, and kept between passes.

Works on transformers' cache objects. Tensors in them are shared and never written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adjudge.models.engine.batch import shared_start
from adjudge.models.instruction import Segments

POLICY, REFERENCE = "policy", "reference"
"""The two networks that a `PrefixStore` keeps a prefix for; both names are keys in a checkpoint."""


class Cached(NamedTuple):
    """Keys and values, and the vectors of the instruction that the tokens in them begin with."""

    cache: Any
    vectors: dict[int, Tensor]
    """By layer (`adjudge.models.instruction`); none without instruction embeddings."""


@dataclass(slots=True)
class Prefilled:
    """Prompts already in the cache: the state from which sampling and label scoring continue."""

    cache: Any
    mask_BT: Tensor
    position_B: Tensor
    hidden_BD: Tensor
    """Last hidden state of each prompt: predicts the first response token."""
    grad: bool = False
    """Gradients flow through the cache and through all that is computed from it."""
    segments: Segments | None = None
    vectors: dict[int, Tensor] = field(default_factory=dict)
    """What instruction embeddings add to further tokens, by layer."""
    keeps_for_nothing: ClassVar[bool] = False
    """Whether `keep` copies nothing."""

    def fork(self) -> Prefilled:
        """Return a copy that can be continued without touching this one (tensors are shared, never written)."""
        return replace(self, cache=copy_cache(self.cache))

    def keep(self, rows_B: Tensor) -> Prefilled:
        """Return a state of these rows, in this order, each as often as named; this state is used up."""
        self.cache.batch_select_indices(rows_B)
        return replace(
            self,
            mask_BT=self.mask_BT[rows_B],
            position_B=self.position_B[rows_B],
            hidden_BD=self.hidden_BD[rows_B],
            segments=self.segments and self.segments.keep(rows_B),
        )


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """The cache of a prefix, and the version of the weights it was computed with."""

    ids: list[int]
    cache: Any
    """None where the cache is of a kind that cannot be cut; such a prefix is never reused."""
    version: int
    vectors: dict[int, Tensor]
    """Those of `Cached`. They are of the whole prefix, so it is reused whole or not at all."""

    def reuse(self, prefix_C: Tensor, version: int) -> tuple[int, Any]:
        """Return how many tokens of `prefix_C` are kept, and their cache; (0, None) for other weights."""
        if self.cache is None or version != self.version:
            return 0, None
        shared = shared_start(self.ids, prefix_C.tolist())
        if shared == 0 or (self.vectors and not shared == len(self.ids) == len(prefix_C)):
            return 0, None
        return shared, _with_layers(self.cache, lambda tensor: tensor[:, :, :shared])


class PrefixStore:
    """The prefixes that were computed without gradient, one for the policy and one for the reference.

    A prefix that outlived its weights would give wrong figures silently. Four rules prevent it:

    1. Adding, loading or merging an adapter drops both prefixes (`forget_all`). Other code that changes weights may
       call `forget` at any time.
    2. A pass with gradient drops the prefix of the network that runs, since one comes before every update
       (`forget_acting`).
    3. Nothing new is kept while a parameter holds a gradient, since an update may follow (`may_keep`).
    4. A kept prefix is invalid once any parameter was written to; torch counts these writes (`_version`). This catches
       restored weights and optimizers that write through tensor methods, such as Adafactor. Fused AdamW is not
       counted, so with it the reference's prefix, which training leaves valid, lasts for the whole run.

    Whether a prefix was computed as a whole or continued from a shorter one shows in the last bits of all that follows.
    The rules are therefore part of a run's figures, and `ids` is part of its checkpoint.
    """

    def __init__(self, model: nn.Module) -> None:
        self.acting = POLICY
        """The network that runs now."""
        self._model = model
        self._kept: dict[str, KeptPrefix] = {}

    @contextmanager
    def acting_as(self, network: str) -> Iterator[None]:
        """Within this block, keep and reuse the prefix of `network`."""
        before, self.acting = self.acting, network
        try:
            yield
        finally:
            self.acting = before

    def reuse(self, prefix_C: Tensor) -> tuple[int, Any]:
        """Return how many tokens of `prefix_C` are kept for the acting network, and their cache (or None)."""
        kept = self._kept.get(self.acting)
        return kept.reuse(prefix_C, self._version()) if kept else (0, None)

    def may_keep(self) -> bool:
        """Return whether a prefix may be kept now: no parameter holds a gradient."""
        return all(parameter.grad is None for parameter in self._model.parameters())

    def keep(self, prefix_C: Tensor, prefix: Cached) -> None:
        """Keep a copy of `prefix` for the acting network; nobody else continues it."""
        copied = copy_cache(prefix.cache) if _all_plain(prefix.cache) else None
        self._kept[self.acting] = KeptPrefix(prefix_C.tolist(), copied, self._version(), prefix.vectors)

    def vectors(self) -> dict[int, Tensor]:
        """Return the instruction's vectors that are kept with the acting network's prefix."""
        kept = self._kept.get(self.acting)
        return kept.vectors if kept else {}

    def ids(self) -> dict[str, list[int]]:
        """Return the token ids of the valid prefixes, by network."""
        version = self._version()
        return {
            network: kept.ids
            for network, kept in self._kept.items()
            if kept.cache is not None and kept.version == version
        }

    def forget(self, network: str) -> None:
        """Drop the prefix of one network."""
        self._kept.pop(network, None)

    def forget_acting(self) -> None:
        """Drop the prefix of the network that runs now."""
        self.forget(self.acting)

    def forget_all(self) -> None:
        """Drop the prefixes of both networks."""
        self._kept.clear()

    def _version(self) -> int:
        """Return a number that changes when a weight is written to (but see rule 4)."""
        return sum(parameter._version for parameter in self._model.parameters())


def expand(cache: Any, rows: int) -> Any:
    """Return a cache of `rows` rows from one of a single row; plain keys and values are not copied."""
    if not _all_plain(cache):
        cache.batch_repeat_interleave(rows)
        return cache
    return _with_layers(cache, lambda tensor: tensor.expand(rows, -1, -1, -1))


def copy_cache(cache: Any) -> Any:
    """Return a cache that can be continued without touching this one: layers copied, tensors shared."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


def _with_layers(cache: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of `cache` with `change` applied to the keys and values of each layer."""
    changed = copy_cache(cache)
    for layer in changed.layers:
        layer.keys, layer.values = change(layer.keys), change(layer.values)
    return changed


def _all_plain(cache: Any) -> bool:
    """Return whether every layer holds plain keys and values."""
    return all(_is_plain(layer) for layer in cache.layers)


def _is_plain(layer: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    return type(layer) is DynamicLayer and isinstance(layer.keys, torch.Tensor) and layer.keys.dim() == 4
