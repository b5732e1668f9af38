"""Batches without padding: the common prefix and the rests of all rows as one sequence, each rest seeing the prefix and itself.

Everything but attention works token by token, so that all tokens of a batch go through the layers as one row, ``[1, N]``: each matrix
product is one large one, and no padding is computed. Only attention needs to know which token belongs to which row. Its queries, keys and
values are spread over a grid of rows (padding there costs little), with the prefix's keys and values beside each row's own.

Shapes: ``N`` tokens of the sequence, ``C`` of them the prefix's and ``M`` the rests', ``B`` rows, ``T`` longest rest, ``S`` = C + T keys,
``H`` heads, ``J`` key-value heads, ``F`` features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adjudge.models.batch import TokenBatch

ATTENTION = "adjudge_packed"
"""Name under which transformers finds `packed_attention`; without a packing it is transformers' own sdpa."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the rests' tokens lie in the sequence, and who sees whom."""

    ids_M: Tensor
    position_M: Tensor
    place_BT: Tensor
    """For each place of the batch, its token among the rests' (padding: any)."""
    grid_BT: Tensor
    """For each place of a grid with padding on the right, its token among the rests' (padding: the row's last)."""
    real_M: Tensor
    """Places of the flattened grid that hold a token."""
    mask_BTS: Tensor
    """Which keys (prefix, then the row's own) each place of the grid sees."""

    @classmethod
    def of(cls, batch: TokenBatch) -> Packing:
        """Pack a batch, whichever side its padding is on."""
        mask_BT, common = batch.mask_BT, len(batch.prefix_C)
        length_B = mask_BT.sum(1)
        begin_B = length_B.cumsum(0) - length_B
        column_T = torch.arange(int(length_B.max()), device=mask_BT.device)
        real_BT = column_T < length_B[:, None]
        own_BTT = real_BT[:, None, :] & (column_T <= column_T[:, None])
        return cls(
            ids_M=batch.ids_BT[mask_BT],
            position_M=batch.position_BT[mask_BT],
            place_BT=(mask_BT.flatten().cumsum(0) - 1).clamp(min=0).view(mask_BT.shape),
            grid_BT=begin_B[:, None] + column_T.minimum(length_B[:, None] - 1),
            real_M=real_BT.flatten().nonzero().squeeze(1),
            mask_BTS=torch.cat([own_BTT.new_ones(*own_BTT.shape[:2], common), own_BTT], dim=2),
        )

    def spread(self, cache: Any, common: int) -> None:
        """Turn the cache of the packed sequence into one of a row for each row of the batch, in the batch's own places."""
        first = torch.arange(common, device=self.place_BT.device).expand(len(self.place_BT), -1)
        index_BS = torch.cat([first, common + self.place_BT], dim=1)
        for layer in cache.layers:
            layer.keys, layer.values = (_rows(tensor[0], index_BS) for tensor in (layer.keys, layer.values))


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **named: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: ``[1, H, N, F]`` and ``[1, J, N, F]`` to ``[1, N, H, F]``; keys may begin with a cached prefix.

    The queries of the heads that share a key-value head stand below each other, so that no key is repeated.
    Raises NotImplementedError for what a packed sequence cannot do (a window or a cap that bites, dropout).
    """
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named)
    window = named.get("sliding_window")
    if dropout or named.get("softcap") is not None or (window is not None and packing.mask_BTS.shape[2] > window):
        raise NotImplementedError("attention with dropout, a cap, or a window shorter than the prompt")
    attend = nn.functional.scaled_dot_product_attention
    (rows, longest), heads, shared = packing.grid_BT.shape, query.shape[1], key.shape[1]
    common = key.shape[2] - len(packing.ids_M)
    group = heads // shared
    query_BHTF = _rows(query[0, :, query.shape[2] - len(packing.ids_M) :], packing.grid_BT)
    key_BJSF, value_BJSF = (
        torch.cat([tensor[:, :, :common].expand(rows, -1, -1, -1), _rows(tensor[0, :, common:], packing.grid_BT)], dim=2)
        for tensor in (key, value)
    )
    folded = query_BHTF.reshape(rows, shared, group * longest, -1)
    mask = packing.mask_BTS.repeat(1, group, 1)[:, None]
    out = attend(folded, key_BJSF, value_BJSF, attn_mask=mask, scale=scaling).view(rows, heads, longest, -1)
    out_MHF = out.transpose(1, 2).flatten(0, 1)[packing.real_M]
    if query.shape[2] > len(packing.ids_M):
        first_key, first_value = (_repeat(tensor[:, :, :common], group) for tensor in (key, value))
        first = attend(query[:, :, :common], first_key, first_value, is_causal=True, scale=scaling)
        out_MHF = torch.cat([first[0].transpose(0, 1), out_MHF])
    return out_MHF[None], None


def register() -> None:
    """Make `packed_attention` known to transformers under `ATTENTION`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


def _rows(tensor_JMF: Tensor, index_BT: Tensor) -> Tensor:
    """Tokens laid out in rows, ``[J, M, F] → [B, J, T, F]``."""
    picked = tensor_JMF.index_select(1, index_BT.flatten())
    return picked.view(len(tensor_JMF), *index_BT.shape, -1).transpose(0, 1)


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Each key-value head for every head that shares it."""
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)
