"""Token batches: prompts and responses as tensors, the tokens that all rows begin with kept apart.

Shapes: ``B`` rows, ``C`` tokens of the common prefix, ``T`` tokens of the rest (padded), ``R`` response tokens (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of ``prefix + rest``; each rest is the rest of the prompt and the response.

    `answer_BR` points at the places (in `ids_BT`) whose hidden state predicts each response token; padding points at place 0
    and is masked by `response_mask_BR`. Masks are True for real tokens and come from lengths, never from token values.
    """

    prefix_C: Tensor
    ids_BT: Tensor
    mask_BT: Tensor
    position_BT: Tensor
    answer_BR: Tensor
    response_BR: Tensor
    response_mask_BR: Tensor

    @property
    def attention_mask(self) -> Tensor:
        """Mask over prefix and rest, ``[B, C + T]``."""
        return torch.cat([self.mask_BT.new_ones(len(self.mask_BT), len(self.prefix_C)), self.mask_BT], dim=1)


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix that all `rows` share, leaving at least one token of each row out of it."""
    ordered = [list(row) for row in rows]
    shared = shared_start(
        min(ordered), max(ordered)
    )  # what these two share, all share: they are the ends in lexicographic order
    return max(0, min(shared, min(len(row) for row in rows) - 1))


def shared_start(first: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows have in common from their beginning."""
    pairs = zip(first, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(other)))


def build_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    device: torch.device | str = "cpu",
    share_prefix: bool = True,
    side: Side = "left",
    pad_id: int = 0,
) -> TokenBatch:
    """Pack prompts and their responses (empty ones to sample from) into one `TokenBatch`.

    The last response token is not fed to the model, since nothing is predicted from it. With an empty response the batch ends at the
    prompt's last token and ``R`` is 1: the place that predicts the first token. Any `pad_id` serves, since masks come from lengths.
    """
    prefix = common_prefix(prompts) if share_prefix else 0
    rests = [[*prompt[prefix:], *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    width, longest = max(map(len, rests)), max(1, *map(len, responses))
    ids = torch.full((len(rests), width), pad_id)
    mask = torch.zeros(len(rests), width, dtype=torch.bool)
    position = torch.zeros(len(rests), width, dtype=torch.long)
    answer = torch.zeros(len(rests), longest, dtype=torch.long)
    response_ids = torch.full((len(rests), longest), pad_id)
    response_mask = torch.zeros(len(rests), longest, dtype=torch.bool)
    for row, (prompt, response, rest) in enumerate(zip(prompts, responses, rests, strict=True)):
        begin = width - len(rest) if side == "left" else 0
        ids[row, begin : begin + len(rest)] = torch.tensor(rest)
        mask[row, begin : begin + len(rest)] = True
        position[row, begin : begin + len(rest)] = torch.arange(prefix, prefix + len(rest))
        places = max(1, len(response))
        answer[row, :places] = torch.arange(places) + begin + len(prompt) - prefix - 1
        response_ids[row, : len(response)] = torch.tensor(response, dtype=torch.long)
        response_mask[row, : len(response)] = True
    tensors = (
        torch.tensor(list(prompts[0][:prefix]), dtype=torch.long),
        ids,
        mask,
        position,
        answer,
        response_ids,
        response_mask,
    )
    return TokenBatch(*(tensor.to(device) for tensor in tensors))
