"""Batches without padding: the common prefix and the rests of all rows as one sequence.

Everything but attention works token by token, so all tokens of a batch go through the layers as one row, ``[1, N]``.
Each matrix product is then one large one, and no padding is computed. Only attention (attention.py) needs to know which
token belongs to which row: each rest sees the prefix and itself.

Shapes: ``N`` tokens of the sequence, ``C`` of them the prefix's and ``M`` the rests', ``B`` rows, ``T`` longest rest,
``S`` = C + T keys, ``K`` requested tokens, ``J`` key-value heads, ``F`` features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adjudge.models.engine.batch import TokenBatch


@dataclass(frozen=True)
class Packing:
    """Where the rests' tokens lie in the sequence, and which keys each of them sees."""

    ids_M: Tensor
    position_M: Tensor
    grid_BT: Tensor
    """For each cell of a grid with padding on the right, the index of its token among the rests' tokens.

    Padding has that of the row's last token.
    """
    is_real_BT: Tensor
    """Cells of the grid that hold a token."""
    real_M: Tensor
    """For each of the rests' tokens, the index of its cell in the flattened grid."""
    wanted_K: Tensor
    """Index, among the rests' tokens, of each token whose hidden state is requested."""
    common: int
    """C, the number of tokens in the prefix."""
    sees_BTT: Tensor | None = None
    """Which of the row's own cells each cell of the grid sees; None: those before it, and itself."""

    @classmethod
    def of(cls, batch: TokenBatch, row_K: Tensor, column_K: Tensor) -> Packing:
        """Pack a batch padded on either side; hidden states are requested at these cells of it."""
        mask_BT = batch.mask_BT
        length_B = mask_BT.sum(1)
        begin_B = length_B.cumsum(0) - length_B
        column_T = torch.arange(int(length_B.max()), device=mask_BT.device)
        token_BT = (mask_BT.flatten().cumsum(0) - 1).clamp(min=0).view(mask_BT.shape)
        is_real_BT = column_T < length_B[:, None]
        return cls(
            ids_M=batch.ids_BT[mask_BT],
            position_M=batch.position_BT[mask_BT],
            grid_BT=begin_B[:, None] + column_T.minimum(length_B[:, None] - 1),
            is_real_BT=is_real_BT,
            real_M=is_real_BT.flatten().nonzero().squeeze(1),
            wanted_K=token_BT[row_K, column_K],
            common=len(batch.prefix_C),
            sees_BTT=batch.sees_BTT,
        )

    @classmethod
    def of_answers(cls, batch: TokenBatch) -> Packing:
        """Pack a batch; the states that predict the responses' tokens are requested."""
        return cls.of(batch, *answer_cells(batch))

    @cached_property
    def mask_BTS(self) -> Tensor:
        """The keys (prefix, then the row's own) that each cell of the grid sees."""
        column_T = torch.arange(self.grid_BT.shape[1], device=self.grid_BT.device)
        # A row that is padding alone sees a key as well: attention to nothing is NaN, in the backward pass too.
        visible_BT = self.is_real_BT | (column_T == 0)
        seen_BTT = visible_BT[:, None, :] & self._own_mask
        return torch.cat([seen_BTT.new_ones(*seen_BTT.shape[:2], self.common), seen_BTT], dim=2)

    def own_bias(self, dtype: torch.dtype) -> Tensor:
        """Return what is added to the scores over a row's own keys, ``[B or 1, T, T]``: −inf at unseen ones.

        Keys at padding count as seen where they come before a cell.
        """
        return self._as_bias(("own", dtype), lambda: self._own_mask)

    @property
    def _own_mask(self) -> Tensor:
        if self.sees_BTT is not None:
            return self.sees_BTT
        column_T = torch.arange(self.grid_BT.shape[1], device=self.grid_BT.device)
        return (column_T <= column_T[:, None])[None]

    def bias(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """Return `mask_BTS` as what is added to scores, its queries repeated: ``[B, 1, repeats × T, S]``.

        It is made once per pass, not once per layer.
        """
        return self._as_bias((repeats, dtype), lambda: self.mask_BTS.repeat(1, repeats, 1)[:, None])

    def _as_bias(self, key: tuple[int | str, torch.dtype], mask_of: Callable[[], Tensor]) -> Tensor:
        if key not in self._biases:
            mask = mask_of()
            self._biases[key] = torch.zeros_like(mask, dtype=key[1]).masked_fill_(~mask, -torch.inf)
        return self._biases[key]

    def grouped(self, group: int, first: int) -> tuple[Tensor, Tensor]:
        """Return the indices that lay out queries of a group of heads in the grid, and those that undo it.

        The queries are ``[G (first + M)]``, a head's behind each other and `first` of the prefix before the rests'; in
        the grid they are ``[B G T]``.
        """
        key = (group, first)
        if key not in self._grouped:
            longest, device = self.grid_BT.shape[1], self.grid_BT.device
            head_G1 = torch.arange(group, device=device)[:, None]
            query_BGT = self.grid_BT[:, None] + first + head_G1 * (first + len(self.ids_M))
            cell_GM = self.real_M // longest * group * longest + head_G1 * longest + self.real_M % longest
            self._grouped[key] = query_BGT.flatten(), cell_GM.flatten()
        return self._grouped[key]

    @cached_property
    def _grouped(self) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _biases(self) -> dict[tuple[int | str, torch.dtype], Tensor]:
        return {}

    def in_rows(self, tensor_JMF: Tensor) -> Tensor:
        """Return what the rests' tokens hold, laid out in the grid: ``[J, M, F] → [B, J, T, F]``.

        The backward pass takes the cells at padding to have no gradient, as attention's have.
        """
        laid_out: Tensor = _InRows.apply(tensor_JMF, self)
        return laid_out

    def from_rows(self, tensor_BHTF: Tensor) -> Tensor:
        """Undo `in_rows` with the heads inside: ``[B, H, T, F] → [M, H, F]``."""
        taken: Tensor = _FromRows.apply(tensor_BHTF, self)
        return taken

    def spread(self, cache: Any, own_B: Tensor | None = None) -> Tensor:
        """Turn the packed sequence's cache into one with the batch's rows; return which cells hold a token.

        Rows are padded on the left, before the prefix: a gap inside a row would count against an attention window.
        `own_B` is how many tokens of each row's rest are kept; None keeps all.
        """
        own_B = self.is_real_BT.sum(1) if own_B is None else own_B
        column_S = torch.arange(self.common + int(own_B.max()), device=own_B.device)
        column_BS = column_S - (own_B.max() - own_B)[:, None]  # where a cell lies in its row; negative: padding
        is_own_BS = column_BS >= self.common
        index_BS = (column_BS + is_own_BS * self.grid_BT[:, :1]).clamp(min=0)
        for layer in cache.layers:
            layer.keys, layer.values = (_rows(tensor[0], index_BS) for tensor in (layer.keys, layer.values))
        return column_BS >= 0


def answer_cells(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Return row and column of each cell whose state predicts a token of a response, ``[K]`` each."""
    row_K, _ = batch.response_mask_BR.nonzero(as_tuple=True)
    return row_K, batch.answer_BR[batch.response_mask_BR]


def _rows(tensor_JMF: Tensor, index_BT: Tensor) -> Tensor:
    """Lay tokens out in rows, ``[J, M, F] → [B, J, T, F]``."""
    picked = tensor_JMF.index_select(1, index_BT.flatten())
    return picked.view(len(tensor_JMF), *index_BT.shape, -1).transpose(0, 1)


class _InRows(torch.autograd.Function):
    """Lay tokens out in the grid.

    Both ways are gathers, since every token has one cell that is not padding.
    """

    @staticmethod
    def forward(ctx: Any, tensor_JMF: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return _rows(tensor_JMF, packing.grid_BT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BJTF: Tensor) -> tuple[Tensor, None]:
        return grad_BJTF.transpose(0, 1).flatten(1, 2).index_select(1, ctx.packing.real_M), None


class _FromRows(torch.autograd.Function):
    """Take the tokens out of the grid."""

    @staticmethod
    def forward(ctx: Any, tensor_BHTF: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return tensor_BHTF.transpose(1, 2).flatten(0, 1).index_select(0, packing.real_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MHF: Tensor) -> tuple[Tensor, None]:
        grid_BT, is_real_BT = ctx.packing.grid_BT, ctx.packing.is_real_BT
        grad_BTHF = grad_MHF.index_select(0, grid_BT.flatten()).unflatten(0, grid_BT.shape)
        return (grad_BTHF * is_real_BT[..., None, None]).transpose(1, 2), None
