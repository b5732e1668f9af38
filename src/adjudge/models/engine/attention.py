"""Attention over a packed sequence: the common prefix once, then all rests, each of which sees the prefix and itself.

Two ways to the same numbers. On a CPU plain matrix products, with a backward pass of their own: all
queries meet the prefix's keys in one product, and only the rests' own keys are laid out in a grid. torch's fused attention, whose
backward pass on a CPU is slow at these sizes, serves everything else: GPUs, and sequences whose weights would take much memory.

Shapes: ``N`` queries (those of the prefix first, unless it is cached), ``C`` tokens of the prefix, ``M`` of the rests, ``B`` rows,
``T`` longest rest, ``S`` = C + T keys, ``H`` heads, ``J`` key-value heads, ``G`` = H / J, ``F`` features of a head.
Source: arXiv 1706.03762, equation 1; 2305.13245 (key-value heads shared by a group).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adjudge.models.engine.packing import Packing

ATTENTION = "adjudge_packed"
"""Name under which transformers finds `packed_attention`; without a packing it is transformers' own sdpa."""

PLAIN_WEIGHTS = 2**25
"""Most attention weights (heads × queries × keys) that are held at once: 128 MiB of float32."""

KEPT_WEIGHTS = 2**20
"""Most weights of a layer that are kept for the backward pass: 4 MiB of float32, less than its other activations."""


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
    """Attention as transformers calls it: ``[1, H, N, F]`` and ``[1, J, C + M, F]`` to ``[1, N, H, F]``.

    Raises NotImplementedError for what a packed sequence cannot do (a window or a cap that bites, dropout).
    """
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
    common, longest = packing.common, packing.grid_BT.shape[1]
    window = named.get("sliding_window")
    if dropout or named.get("softcap") is not None or (window is not None and common + longest > window):
        raise NotImplementedError("attention with dropout, a cap, or a window shorter than the prompt")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = max(query.shape[2], packing.grid_BT.numel())
    if query.device.type == "cpu" and query.shape[1] * rows * (common + longest) <= PLAIN_WEIGHTS:
        return _Plain.apply(query[0], key[0], value[0], packing, scale).transpose(0, 1)[None], None
    return _fused(query, key, value, packing, scale), None


def register() -> None:
    """Make `packed_attention` known to transformers under `ATTENTION`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


def _fused(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """By torch's fused attention. The queries of a group's heads stand below each other, so that no key is repeated."""
    attend = nn.functional.scaled_dot_product_attention
    (rows, longest), heads, shared = packing.grid_BT.shape, query.shape[1], key.shape[1]
    common, group = packing.common, heads // shared
    query_BHTF = packing.in_rows(query[0, :, query.shape[2] - len(packing.ids_M) :])
    key_BJSF, value_BJSF = (
        torch.cat([tensor[:, :, :common].expand(rows, -1, -1, -1), packing.in_rows(tensor[0, :, common:])], dim=2)
        for tensor in (key, value)
    )
    folded = query_BHTF.reshape(rows, shared, group * longest, -1)
    out = attend(
        folded, key_BJSF, value_BJSF, attn_mask=packing.mask_BTS.repeat(1, group, 1)[:, None], scale=scale
    ).view(rows, heads, longest, -1)
    out_MHF = out.transpose(1, 2).flatten(0, 1)[packing.real_M]
    if query.shape[2] > len(packing.ids_M):
        first_key, first_value = (_repeat(tensor[:, :, :common], group) for tensor in (key, value))
        first = attend(query[:, :, :common], first_key, first_value, is_causal=True, scale=scale)
        out_MHF = torch.cat([first[0].transpose(0, 1), out_MHF])
    return out_MHF[None]


class _Plain(torch.autograd.Function):
    """By matrix products; the backward pass computes the weights anew where they are large."""

    @staticmethod
    def forward(ctx: Any, query_HNF: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
        split = _Split(packing, query_HNF, key)
        weight = split.weights(query_HNF, key, scale)
        ctx.save_for_backward(query_HNF, key, value, weight if weight.numel() <= KEPT_WEIGHTS else None)
        ctx.packing, ctx.scale = packing, scale
        return split.sums(split.parts(weight), split.keys(value))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_HNF: Tensor) -> tuple[Any, ...]:
        query_HNF, key, value, weight = ctx.saved_tensors
        split = _Split(ctx.packing, query_HNF, key)
        if weight is None:
            weight = split.weights(query_HNF, key, ctx.scale)
        grads = split.queries(grad_HNF)
        over_prefix, own = (grad @ keys.mT for grad, keys in zip(grads, split.keys(value), strict=True))
        grad_weight = split.beside(over_prefix, own, outside=0.0)
        score = torch.ops.aten._softmax_backward_data(_wide(grad_weight), _wide(weight), -1, _wide(weight).dtype)
        scores = split.parts(score.mul_(ctx.scale).to(weight.dtype))
        grad_key = split.to_keys(scores, split.queries(query_HNF))
        return split.sums(scores, split.keys(key)), grad_key, split.to_keys(split.parts(weight), grads), None, None


class _Split:
    """Where queries, keys and weights of a packed sequence lie: a part over the prefix's keys, and a grid of rows over their own."""

    def __init__(self, packing: Packing, query_HNF: Tensor, key: Tensor) -> None:
        self.packing = packing
        self.shared, self.common = len(key), packing.common
        self.first = query_HNF.shape[1] - len(packing.ids_M)
        """Queries of the prefix: C, or none where it is cached."""

    def weights(self, query_HNF: Tensor, key: Tensor, scale: float) -> Tensor:
        """Attention weights ``[J, G, N, C + T]``."""
        over_prefix, own = (
            query @ keys.mT for query, keys in zip(self.queries(query_HNF * scale), self.keys(key), strict=True)
        )
        score = self.beside(over_prefix, own.add_(_later(own.shape[-1], own)), outside=-torch.inf)
        if self.first:
            score[:, :, : self.first, : self.common] += _later(self.common, score)
        return _wide(score).softmax(-1).to(score.dtype)

    def queries(self, tensor_HNF: Tensor) -> tuple[Tensor, Tensor]:
        """What stands where queries do, ``[H, N, …]``, for all keys of the prefix ``[J, G, N, …]`` and in the grid ``[J, G, B, T, …]``."""
        whole = tensor_HNF.reshape(self.shared, -1, *tensor_HNF.shape[1:])
        return whole, self._grid(whole[:, :, self.first :])

    def keys(self, tensor_JSF: Tensor) -> tuple[Tensor, Tensor]:
        """Keys or values of the prefix ``[J, 1, C, F]``, and of the rests ``[J, 1, B, T, F]``."""
        whole = tensor_JSF[:, None]
        return whole[:, :, : self.common], self._grid(whole[:, :, self.common :])

    def parts(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[J, G, N, C + T]`` as those over the prefix and, in the grid, those over a row's own keys; 0 at padding."""
        own = self._grid(tensor[:, :, self.first :, self.common :])
        return tensor[..., : self.common], own.mul_(self.packing.is_real_BT[..., None])

    def beside(self, over_prefix: Tensor, own: Tensor, *, outside: float) -> Tensor:
        """The inverse of `parts`; `outside` is what the prefix's queries have over keys after the prefix."""
        own = self._packed(own)
        if self.first:
            own = nn.functional.pad(own, (0, 0, self.first, 0), value=outside)
        return torch.cat([over_prefix, own], dim=-1)

    def sums(self, weights: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor]) -> Tensor:
        """What all keys give to each query, ``[H, N, F]``."""
        found = weights[0] @ keys[0]
        found[:, :, self.first :] += self._packed(weights[1] @ keys[1])
        return found.flatten(0, 1)

    def to_keys(self, weights: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]) -> Tensor:
        """What all queries give to each key, ``[J, C + M, F]``."""
        over_prefix = weights[0].flatten(1, 2).mT @ queries[0].flatten(1, 2)
        own = self._packed((weights[1].mT @ queries[1]).sum(1, keepdim=True))
        return torch.cat([over_prefix, own.squeeze(1)], dim=1)

    def _grid(self, tensor: Tensor) -> Tensor:
        """``[J, G, M, …]`` to ``[J, G, B, T, …]``."""
        index_BT = self.packing.grid_BT
        return tensor.index_select(2, index_BT.flatten()).unflatten(2, index_BT.shape)

    def _packed(self, tensor: Tensor) -> Tensor:
        """``[J, G, B, T, …]`` to ``[J, G, M, …]``."""
        return tensor.flatten(2, 3).index_select(2, self.packing.real_M)


def _later(size: int, like: Tensor) -> Tensor:
    """−inf above the diagonal of a square, else 0: no query sees a later key."""
    return like.new_full((size, size), -torch.inf).triu_(1)


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: sums over keys are not rounded to fewer bits."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Each key-value head for every head that shares it."""
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)
