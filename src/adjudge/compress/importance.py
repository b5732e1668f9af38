"""Score every group of a model.

Where needed, this takes gradients of the language-model loss on calibration rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

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


Weights = Sequence[Mapping[str, Tensor]]
"""Per layer a tensor per member, shaped as its weight."""


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
                ).cpu()
            )
            for kind in kinds
        }
    return _by_gradients(model, kinds, rows, fuse=criterion == "saap", elementwise=elementwise, second=second_order)


def _by_gradients(
    model: Any, kinds: Sequence[Kind], rows: Sequence[Sequence[int]], *, fuse: bool, elementwise: bool, second: bool
) -> dict[str, Scores]:
    weights = [
        {member.name: linear(layer, member).weight for kind in kinds for member in kind.members}
        for layer in layers_of(model)
    ]
    size = -(-len(rows) // min(BATCHES, len(rows))) if fuse else len(rows)
    gradients, squares = _zeros(weights), _zeros(weights) if second else None
    per_batch: dict[str, list[Tensor]] = {kind.name: [] for kind in kinds}
    with progress("gradients", len(rows)) as bar, _differentiable(weights):
        for start in range(0, len(rows), size):
            batch = _zeros(weights) if fuse else gradients
            for row in rows[start : start + size]:
                _add_gradients(model, weights, row, batch, squares)
                bar.advance()
            if fuse:
                for kind in kinds:
                    per_batch[kind.name].append(_folded(kind, weights, batch, None, elementwise=True))
                for total, more in zip(gradients, batch, strict=True):
                    for name, gradient in total.items():
                        gradient.add_(more[name])
    scores = {}
    for kind in kinds:
        if fuse:
            vector, element = (_folded(kind, weights, gradients, None, elementwise=form) for form in (False, True))
            changing = fluctuation(torch.stack(per_batch[kind.name])).mean(1)
            scores[kind.name] = Scores(fused(vector, element), changing)
        else:
            scores[kind.name] = Scores(_folded(kind, weights, gradients, squares, elementwise=elementwise))
    return scores


def _zeros(weights: Weights) -> Weights:
    return [{name: torch.zeros_like(weight) for name, weight in layer.items()} for layer in weights]


@contextmanager
def _differentiable(weights: Weights) -> Iterator[None]:
    """Have these weights get gradients within the block."""
    every_weight = [weight for layer in weights for weight in layer.values()]
    for weight in every_weight:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in every_weight:
            weight.requires_grad_(False)
            weight.grad = None


def _add_gradients(
    model: Any, weights: Weights, row: Sequence[int], gradients: Weights, squares: Weights | None
) -> None:
    """Add a row's gradients, and their squares, to the sums."""
    ids = torch.tensor([row], device=model.device)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for index, layer in enumerate(weights):
        for name, weight in layer.items():
            gradient = weight.grad
            assert gradient is not None
            if not torch.isfinite(gradient).all():
                raise ModelError("A gradient is not finite: the model's weights or the calibration text are unusable.")
            gradients[index][name].add_(gradient)
            if squares is not None:
                squares[index][name].addcmul_(gradient, gradient)
            weight.grad = None


@torch.no_grad()
def _folded(kind: Kind, weights: Weights, gradients: Weights, squares: Weights | None, *, elementwise: bool) -> Tensor:
    """Return the scores of a kind in every layer, ``[N, G]``."""
    layers = []
    for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        terms = {
            member.name: taylor_terms(
                weight[member.name], gradient[member.name], None if squares is None else squares[index][member.name]
            )
            for member in kind.members
        }
        layers.append(kind.fold(terms, elementwise=elementwise))
    return torch.stack(layers).cpu()
