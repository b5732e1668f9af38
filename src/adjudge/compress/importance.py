"""Score every group of a model, with gradients of the language-model loss on calibration rows where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adjudge.compress.groups import Kind, layers_of, linear
from adjudge.compress.score import fluctuation, fused, taylor_terms
from adjudge.errors import ModelError
from adjudge.system.console import progress

Criterion = Literal["taylor", "magnitude", "random", "saap"]
CRITERIA: tuple[Criterion, ...] = ("taylor", "magnitude", "random", "saap")
BATCHES = 8
"""Batches over which fluctuation is measured."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one kind of groups."""

    score_NG: Tensor
    """Of each group in each layer: the higher, the more important."""
    fluctuation_N: Tensor | None = None
    """Mean fluctuation of each layer's groups; for saap only."""


@dataclass(slots=True)
class _Weight:
    """One linear layer's weight with its gradient sums."""

    parameter: nn.Parameter
    gradient: Tensor
    squares: Tensor | None
    batches: list[Tensor] = field(default_factory=list)


def score_groups(
    model: Any,
    kinds: Sequence[Kind],
    rows: Sequence[Sequence[int]],
    criterion: Criterion,
    *,
    elementwise: bool = True,
    second_order: bool = False,
    seed: int = 0,
) -> dict[str, Scores]:
    """Return the scores of every kind. `rows` are token ids, used by taylor and saap only.

    Gradients are those of the mean loss of each row's next tokens, summed over the rows. Raises ModelError for a
    gradient that is not finite.
    """
    if criterion == "random":
        draw = torch.Generator().manual_seed(seed)
        return {kind.name: Scores(torch.rand(len(layers_of(model)), kind.count, generator=draw)) for kind in kinds}
    if criterion == "magnitude":
        return {
            kind.name: Scores(
                torch.stack(
                    [
                        kind.fold(
                            {member.name: linear(layer, member).weight.detach().float() for member in kind.members},
                            elementwise=elementwise,
                        )
                        for layer in layers_of(model)
                    ]
                )
            )
            for kind in kinds
        }
    return _by_gradients(model, kinds, rows, fuse=criterion == "saap", elementwise=elementwise, second=second_order)


def _by_gradients(
    model: Any, kinds: Sequence[Kind], rows: Sequence[Sequence[int]], *, fuse: bool, elementwise: bool, second: bool
) -> dict[str, Scores]:
    weights = [
        {
            member.name: _Weight(linear(layer, member).weight, *_buffers(linear(layer, member).weight, second=second))
            for kind in kinds
            for member in kind.members
        }
        for layer in layers_of(model)
    ]
    every_weight = [weight for layer in weights for weight in layer.values()]
    per_batch: dict[str, list[Tensor]] = {kind.name: [] for kind in kinds}
    size = -(-len(rows) // min(BATCHES, len(rows))) if fuse else len(rows)
    for weight in every_weight:
        weight.parameter.requires_grad_(True)
    try:
        with progress("gradients", len(rows)) as bar:
            for start in range(0, len(rows), size):
                before = [weight.gradient.clone() for weight in every_weight] if fuse else []
                for row in rows[start : start + size]:
                    _add_gradients(model, every_weight, row)
                    bar.advance()
                if fuse:
                    for weight, old in zip(every_weight, before, strict=True):
                        weight.batches[:] = [weight.gradient - old]
                    for kind in kinds:
                        per_batch[kind.name].append(_folded(kind, weights, last_batch=True, elementwise=True))
    finally:
        for weight in every_weight:
            weight.parameter.requires_grad_(False)
            weight.parameter.grad = None
    if not fuse:
        return {kind.name: Scores(_folded(kind, weights, elementwise=elementwise)) for kind in kinds}
    return {
        kind.name: Scores(
            fused(_folded(kind, weights, elementwise=False), _folded(kind, weights, elementwise=True)),
            fluctuation(torch.stack(per_batch[kind.name])).mean(1),
        )
        for kind in kinds
    }


def _buffers(weight: nn.Parameter, *, second: bool) -> tuple[Tensor, Tensor | None]:
    return torch.zeros_like(weight, dtype=torch.float32), torch.zeros_like(weight) if second else None


def _add_gradients(model: Any, weights: Sequence[_Weight], row: Sequence[int]) -> None:
    ids = torch.tensor([row], device=model.device)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    for weight in weights:
        gradient = weight.parameter.grad
        assert gradient is not None
        if not torch.isfinite(gradient).all():
            raise ModelError("A gradient is not finite: the model's weights or the calibration text are unusable.")
        weight.gradient += gradient
        if weight.squares is not None:
            weight.squares += gradient**2
        weight.parameter.grad = None


@torch.no_grad()
def _folded(
    kind: Kind, weights: Sequence[dict[str, _Weight]], *, elementwise: bool, last_batch: bool = False
) -> Tensor:
    """Return the scores of a kind in every layer, ``[N, G]``."""

    def terms(weight: _Weight) -> Tensor:
        gradient = weight.batches[-1] if last_batch else weight.gradient
        return taylor_terms(weight.parameter, gradient, None if last_batch else weight.squares)

    return torch.stack(
        [
            kind.fold({member.name: terms(layer[member.name]) for member in kind.members}, elementwise=elementwise)
            for layer in weights
        ]
    ).cpu()
