"""Token batches: prompts and responses as tensors, with their common prefix kept apart.

Shapes: ``B`` rows, ``C`` tokens of the common prefix, ``T`` tokens of the rest, ``R`` response tokens (both padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adjudge.models.instruction import Segments

Side = Literal["left", "right"]


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
    segments: Segments | None = None
    """Where the prompts end; None without instruction embeddings."""

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
    segments: Segments | None = None,
) -> TokenBatch:
    """Lay out prompts and responses (empty ones to sample from) in one `TokenBatch`, padded on `side`.

    The last response token is not fed to the model, since nothing is predicted from it. With an empty response the row
    ends at the prompt's last token and ``R`` is 1: the column that predicts the first token. With `segments` the common
    prefix is the instruction, since what is added to later tokens depends on the row.
    """
    prefix = common_prefix(prompts) if share_prefix else 0
    if segments is not None:
        prefix = min(prefix, len(segments.instruction_C))
    rests = [[*prompt[prefix:], *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    width, longest = max(map(len, rests)), max(1, *map(len, responses))
    ids = torch.zeros(len(rests), width, dtype=torch.long)
    mask = torch.zeros(len(rests), width, dtype=torch.bool)
    position = torch.zeros(len(rests), width, dtype=torch.long)
    answer = torch.zeros(len(rests), longest, dtype=torch.long)
    response_ids = torch.zeros(len(rests), longest, dtype=torch.long)
    response_mask = torch.zeros(len(rests), longest, dtype=torch.bool)
    for row, (prompt, response, rest) in enumerate(zip(prompts, responses, rests, strict=True)):
        begin = width - len(rest) if side == "left" else 0
        ids[row, begin : begin + len(rest)] = torch.tensor(rest)
        mask[row, begin : begin + len(rest)] = True
        position[row, begin : begin + len(rest)] = torch.arange(prefix, prefix + len(rest))
        predicted = max(1, len(response))
        answer[row, :predicted] = torch.arange(predicted) + begin + len(prompt) - prefix - 1
        response_ids[row, : len(response)] = torch.tensor(response, dtype=torch.long)
        response_mask[row, : len(response)] = True
    return TokenBatch(
        prefix_C=torch.tensor(list(prompts[0][:prefix]), dtype=torch.long).to(device),
        ids_BT=ids.to(device),
        mask_BT=mask.to(device),
        position_BT=position.to(device),
        answer_BR=answer.to(device),
        response_BR=response_ids.to(device),
        response_mask_BR=response_mask.to(device),
        segments=segments,
    )
