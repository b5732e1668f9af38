"""Token batches: prompts and responses as tensors, with their common prefix kept apart.

Shapes: ``B`` rows, ``C`` tokens of the common prefix, ``T`` tokens of the rest, ``R`` response tokens (both padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adjudge.models.instruction import Segments

Side = Literal["left", "right"]


class Rows(NamedTuple):
    """The rows of a batch as lists of token ids."""

    prefix: list[int]
    """What all rows begin with; it is not repeated in `rests`."""
    rests: list[list[int]]
    predicting: list[int]
    """How many of a rest's last tokens predict a response token: the length of its response."""


class Branches(NamedTuple):
    """Answers to one prompt as a tree.

    The root is the prompt's end, and a beginning that several share is there once. An answer's last token is not in it,
    since nothing is predicted from it.
    """

    ids: list[int]
    """The token of each node; a node comes after its parent."""
    parents: list[int]
    """The node before each node; −1 is the root."""


def branch(answers: Sequence[Sequence[int]]) -> tuple[Branches, dict[tuple[int, ...], int]]:
    """Return the tree of some answers, and where the state after each beginning is.

    The place 0 is the root, and n + 1 is node n.
    """
    places: dict[tuple[int, ...], int] = {(): 0}
    for answer in answers:
        for length in range(1, len(answer)):
            places.setdefault(tuple(answer[:length]), len(places))
    nodes = list(places)[1:]
    return Branches([node[-1] for node in nodes], [places[node[:-1]] - 1 for node in nodes]), places


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of ``prefix + rest``; each rest is the rest of the prompt and the response.

    `answer_BR` points at the columns of `ids_BT` whose hidden state predicts each response token. Padding points at
    column 0 and is masked by `response_mask_BR`. Masks are True for real tokens and come from lengths, never from
    token values.
    """

    prefix_C: Tensor
    ids_BT: Tensor
    mask_BT: Tensor
    position_BT: Tensor
    answer_BR: Tensor
    response_BR: Tensor
    response_mask_BR: Tensor
    rows: Rows
    segments: Segments | None = None
    """Where the prompts end; None without instruction embeddings."""
    sees_BTT: Tensor | None = None
    """Which of the row's own cells each cell sees; None: those before it, and itself."""

    @property
    def width(self) -> int:
        """Number of tokens of the longest row, with the prefix."""
        return len(self.prefix_C) + self.ids_BT.shape[1]

    @property
    def attention_mask(self) -> Tensor:
        """Mask over prefix and rest, ``[B, C + T]``."""
        return torch.cat([self.mask_BT.new_ones(len(self.mask_BT), len(self.prefix_C)), self.mask_BT], dim=1)


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix that leaves at least one token of each row."""
    ordered = [list(row) for row in rows]
    # The first and the last row in lexicographic order share what all rows share.
    shared = shared_start(min(ordered), max(ordered))
    return max(0, min(shared, min(len(row) for row in rows) - 1))


def shared_start(first: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two rows have in common from their beginning."""
    pairs = zip(first, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(other)))


def build_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    side: Side,
    device: torch.device | str = "cpu",
    share_prefix: bool = True,
    prefix_multiple: int = 1,
    segments: Segments | None = None,
) -> TokenBatch:
    """Lay out prompts and responses (empty ones to sample from) in one `TokenBatch`, padded on `side`.

    The last response token is not fed to the model, since nothing is predicted from it. With an empty response the row
    ends at the prompt's last token and ``R`` is 1: the column that predicts the first token. With `segments` the common
    prefix is the instruction, since what is added to later tokens depends on the row. Its length is a multiple of
    `prefix_multiple`: what is left over is part of the rests.
    """
    rows = split_rows(prompts, responses, share_prefix, prefix_multiple, segments)
    prefix, length_B = len(rows.prefix), torch.tensor([len(rest) for rest in rows.rests])
    width, longest = int(length_B.max()), max(1, *map(len, responses))
    begin_B = width - length_B if side == "left" else torch.zeros_like(length_B)
    column_BT = torch.arange(width) - begin_B[:, None]
    mask_BT = (column_BT >= 0) & (column_BT < length_B[:, None])
    position_BT = (prefix + column_BT).masked_fill(~mask_BT, 0)
    ids_BT = torch.zeros(mask_BT.shape, dtype=torch.long)
    ids_BT[mask_BT] = torch.tensor([token for rest in rows.rests for token in rest])
    count_B = torch.tensor(rows.predicting).clamp(min=1)
    column_R = torch.arange(longest)
    answer_BR = (begin_B + length_B - count_B)[:, None] + column_R
    answer_BR = answer_BR.masked_fill(column_R >= count_B[:, None], 0)
    response_mask_BR = column_R < torch.tensor(rows.predicting)[:, None]
    response_BR = torch.tensor([[*response, *[0] * (longest - len(response))] for response in responses])
    return TokenBatch(
        prefix_C=torch.tensor(rows.prefix, dtype=torch.long).to(device),
        ids_BT=ids_BT.to(device),
        mask_BT=mask_BT.to(device),
        position_BT=position_BT.to(device),
        answer_BR=answer_BR.to(device),
        response_BR=response_BR.long().to(device),
        response_mask_BR=response_mask_BR.to(device),
        rows=rows,
        segments=segments,
    )


def with_branches(batch: TokenBatch, branches: Sequence[Branches]) -> TokenBatch:
    """Let each node of a row's tree see the prompt and the nodes before it in the tree, none beside it.

    The batch is of each prompt with its nodes and one more token as the response, padded on the right.
    """
    width = batch.ids_BT.shape[1]
    sees_BTT = torch.ones(width, width, dtype=torch.bool).tril_().repeat(len(branches), 1, 1)
    position_BT = batch.position_BT.cpu().clone()
    known: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
    for row, (rest, tree) in enumerate(zip(batch.rows.rests, branches, strict=True)):
        size, begin = len(tree.ids), len(rest) - len(tree.ids)
        shape = tuple(tree.parents)
        if shape not in known:
            known[shape] = _ancestors(tree.parents)
        sees, depth = known[shape]
        sees_BTT[row, begin : begin + size, begin : begin + size] = sees
        position_BT[row, begin : begin + size] = len(batch.rows.prefix) + begin + depth
    device = batch.ids_BT.device
    return replace(batch, position_BT=position_BT.to(device), sees_BTT=sees_BTT.to(device))


def _ancestors(parents: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which nodes each node sees, itself included, and how many nodes are before it in the tree."""
    sees = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    return sees, sees.sum(1) - 1


def split_rows(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    share_prefix: bool = True,
    prefix_multiple: int = 1,
    segments: Segments | None = None,
) -> Rows:
    """Split rows into the common prefix and their rests, as `build_batch` lays them out."""
    prefix = common_prefix(prompts) if share_prefix else 0
    if segments is not None:
        prefix = min(prefix, len(segments.instruction_C))
    prefix -= prefix % prefix_multiple
    rests = [[*prompt[prefix:], *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    return Rows(list(prompts[0][:prefix]), rests, list(map(len, responses)))
