"""Batches without padding: the common prefix and the rests of all rows as one sequence, each rest seeing the prefix and itself.

Everything but attention works token by token, so that all tokens of a batch go through the layers as one row, ``[1, N]``: each matrix
product is one large one, and no padding is computed. Only attention (attention.py) needs to know which token belongs to which row.

Shapes: ``N`` tokens of the sequence, ``C`` of them the prefix's and ``M`` the rests', ``B`` rows, ``T`` longest rest, ``S`` = C + T keys,
``K`` tokens asked for, ``J`` key-value heads, ``F`` features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adjudge.models.engine.batch import TokenBatch


@dataclass(frozen=True)
class Packing:
    """Where the rests' tokens lie in the sequence, and who sees whom."""

    ids_M: Tensor
    position_M: Tensor
    place_BT: Tensor
    """For each place of the batch, its token among the rests' (padding: any)."""
    grid_BT: Tensor
    """For each place of a grid with padding on the right, its token among the rests' (padding: the row's last)."""
    is_real_BT: Tensor
    """Places of the grid that hold a token."""
    wanted_K: Tensor
    """Tokens among the rests' whose hidden state is asked for."""
    common: int
    """C, tokens of the prefix."""

    @classmethod
    def of(cls, batch: TokenBatch, row_K: Tensor, column_K: Tensor) -> Packing:
        """Pack a batch, whichever side its padding is on; hidden states are asked for at these places of it."""
        mask_BT = batch.mask_BT
        length_B = mask_BT.sum(1)
        begin_B = length_B.cumsum(0) - length_B
        column_T = torch.arange(int(length_B.max()), device=mask_BT.device)
        place_BT = (mask_BT.flatten().cumsum(0) - 1).clamp(min=0).view(mask_BT.shape)
        return cls(
            ids_M=batch.ids_BT[mask_BT],
            position_M=batch.position_BT[mask_BT],
            place_BT=place_BT,
            grid_BT=begin_B[:, None] + column_T.minimum(length_B[:, None] - 1),
            is_real_BT=column_T < length_B[:, None],
            wanted_K=place_BT[row_K, column_K],
            common=len(batch.prefix_C),
        )

    @cached_property
    def real_M(self) -> Tensor:
        """Places of the flattened grid that hold a token."""
        return self.is_real_BT.flatten().nonzero().squeeze(1)

    @cached_property
    def mask_BTS(self) -> Tensor:
        """Which keys (prefix, then the row's own) each place of the grid sees."""
        column_T = torch.arange(self.grid_BT.shape[1], device=self.grid_BT.device)
        own_BTT = self.is_real_BT[:, None, :] & (column_T <= column_T[:, None])
        return torch.cat([own_BTT.new_ones(*own_BTT.shape[:2], self.common), own_BTT], dim=2)

    def in_rows(self, tensor_JMF: Tensor) -> Tensor:
        """What the rests' tokens hold, laid out in the grid: ``[J, M, F] → [B, J, T, F]``."""
        return _rows(tensor_JMF, self.grid_BT)

    def spread(self, cache: Any) -> None:
        """Turn the cache of the packed sequence into one of a row for each row of the batch, in the batch's own places."""
        first = torch.arange(self.common, device=self.place_BT.device).expand(len(self.place_BT), -1)
        index_BS = torch.cat([first, self.common + self.place_BT], dim=1)
        for layer in cache.layers:
            layer.keys, layer.values = (_rows(tensor[0], index_BS) for tensor in (layer.keys, layer.values))


def _rows(tensor_JMF: Tensor, index_BT: Tensor) -> Tensor:
    """Tokens laid out in rows, ``[J, M, F] → [B, J, T, F]``."""
    picked = tensor_JMF.index_select(1, index_BT.flatten())
    return picked.view(len(tensor_JMF), *index_BT.shape, -1).transpose(0, 1)
