"""Attention over a packed sequence.

The sequence holds the common prefix once, then all rests. Each rest sees the prefix and itself.

There are two ways to the same numbers. On a CPU, plain matrix products with a hand-written backward pass: all queries
meet the prefix's keys in one product, and only the rests' own keys are laid out in a grid. Everywhere else, torch's
fused attention: on GPUs, and for sequences whose weights would take much memory. Its backward pass on a CPU is slow at
these sizes.

Shapes: ``N`` queries (those of the prefix first, unless it is cached), ``C`` tokens of the prefix, ``M`` of the rests,
``B`` rows, ``T`` longest rest, ``S`` = C + T keys, ``H`` heads, ``J`` key-value heads, ``G`` = H / J, ``F`` features of
a head.
Source: arXiv 1706.03762, equation 1; 2305.13245 (key-value heads shared by a group).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adjudge.models.engine.packing import Packing
from adjudge.models.engine.precision import at_least_float32

ATTENTION = "adjudge_packed"
"""The name under which transformers finds `packed_attention`."""

PLAIN_WEIGHTS = 2**25
"""Largest number of attention weights (heads × queries × keys) held at once: 128 MiB of float32."""

KEPT_WEIGHTS = 2**20
"""Largest number of attention weights that a layer keeps for the backward pass: 4 MiB of float32.

That is less than its other activations."""

KEPT_GRID = 2**23
"""Largest layout of keys in rows, each with the prefix before it, that a layer keeps: 16 MiB of bfloat16.

A 7B model's would take 4 GiB over all layers at 64 rows."""


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
    """Attend as transformers calls it: ``[1, H, N, F]`` and ``[1, J, C + M, F]`` to ``[1, N, H, F]``.

    Without a packing this is transformers' own sdpa. Raises NotImplementedError for what a packed sequence does not
    support: dropout, a cap on the scores, a window shorter than the longest row.
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
    if torch.is_grad_enabled() and packing.grid_BT.numel() * key[0, :, 0].numel() > KEPT_GRID:
        return _FusedAgain.apply(query, key, value, packing, scale), None
    return _fused(query, key, value, packing, scale), None


def register() -> None:
    """Register `packed_attention` with transformers under the name `ATTENTION`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


def _fused(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """Attend with torch's fused attention; a group's heads are stacked, so that no key is repeated."""
    attend = nn.functional.scaled_dot_product_attention
    (rows, longest), heads, shared = packing.grid_BT.shape, query.shape[1], key.shape[1]
    common, group = packing.common, heads // shared
    query_BHTF = packing.in_rows(query[0, :, query.shape[2] - len(packing.ids_M) :])
    key_BJSF, value_BJSF = (
        torch.cat([tensor[:, :, :common].expand(rows, -1, -1, -1), packing.in_rows(tensor[0, :, common:])], dim=2)
        for tensor in (key, value)
    )
    folded = query_BHTF.reshape(rows, shared, group * longest, -1)
    bias = packing.bias(group, query.dtype)
    out = attend(folded, key_BJSF, value_BJSF, attn_mask=bias, scale=scale)
    out_MHF = packing.from_rows(out.reshape(rows, heads, longest, -1))  # on a GPU, heads lie inside of tokens
    if query.shape[2] > len(packing.ids_M):
        first_key, first_value = (_repeat(tensor[:, :, :common], group) for tensor in (key, value))
        first = attend(query[:, :, :common], first_key, first_value, is_causal=True, scale=scale)
        out_MHF = torch.cat([first[0].transpose(0, 1), out_MHF])
    return out_MHF[None]


class _FusedAgain(torch.autograd.Function):
    """`_fused`, computed again in the backward pass: what it lays out in rows is not kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.packing, ctx.scale = packing, scale
        return _fused(query, key, value, packing, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
        query, key, value = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            out = _fused(query, key, value, ctx.packing, ctx.scale)
        return *torch.autograd.grad(out, (query, key, value), grad_out), None, None


class _Plain(torch.autograd.Function):
    """Attention by matrix products; the backward pass computes the weights again where they are large."""

    @staticmethod
    def forward(ctx: Any, query_HNF: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
        layout = _Layout(packing, query_HNF, key)
        weight = layout.weights(query_HNF, key, scale)
        ctx.save_for_backward(query_HNF, key, value, weight if weight.numel() <= KEPT_WEIGHTS else None)
        ctx.packing, ctx.scale = packing, scale
        return layout.attend(layout.split_weights(weight), layout.split_keys(value))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_HNF: Tensor) -> tuple[Any, ...]:
        query_HNF, key, value, weight = ctx.saved_tensors
        layout = _Layout(ctx.packing, query_HNF, key)
        if weight is None:
            weight = layout.weights(query_HNF, key, ctx.scale)
        grads = layout.split_queries(grad_HNF)
        grad_prefix, grad_rest = (grad @ keys.mT for grad, keys in zip(grads, layout.split_keys(value), strict=True))
        grad_weight = layout.join_weights(grad_prefix, grad_rest, 0.0)
        grad_score = torch.ops.aten._softmax_backward_data(
            at_least_float32(grad_weight), at_least_float32(weight), -1, at_least_float32(weight).dtype
        )
        grad_scores = layout.split_weights(grad_score.mul_(ctx.scale).to(weight.dtype))
        grad_query = layout.attend(grad_scores, layout.split_keys(key))
        grad_key = layout.attend_transposed(grad_scores, layout.split_queries(query_HNF))
        grad_value = layout.attend_transposed(layout.split_weights(weight), grads)
        return grad_query, grad_key, grad_value, None, None


class _Layout:
    """Where the queries, keys and weights of a packed sequence lie.

    Each is split in two: a part over the prefix's keys, and a grid of rows over their own keys.
    """

    def __init__(self, packing: Packing, query_HNF: Tensor, key: Tensor) -> None:
        self.packing = packing
        self.shared, self.common = len(key), packing.common
        self.first = query_HNF.shape[1] - len(packing.ids_M)
        """Number of queries of the prefix: C, or 0 where it is cached."""

    def weights(self, query_HNF: Tensor, key: Tensor, scale: float) -> Tensor:
        """Return the attention weights ``[J, G, N, C + T]``."""
        over_prefix, over_rest = (
            query @ keys.mT
            for query, keys in zip(self.split_queries(query_HNF * scale), self.split_keys(key), strict=True)
        )
        score = self.join_weights(over_prefix, over_rest.add_(_later(over_rest.shape[-1], over_rest)), -torch.inf)
        if self.first:
            score[:, :, : self.first, : self.common] += _later(self.common, score)
        return at_least_float32(score).softmax(-1).to(score.dtype)

    def split_queries(self, tensor_HNF: Tensor) -> tuple[Tensor, Tensor]:
        """Split queries ``[H, N, F]``: all, ``[J, G, N, F]``, and the rests' in the grid, ``[J, G, B, T, F]``."""
        whole = tensor_HNF.reshape(self.shared, -1, *tensor_HNF.shape[1:])
        return whole, self._to_grid(whole[:, :, self.first :])

    def split_keys(self, tensor_JSF: Tensor) -> tuple[Tensor, Tensor]:
        """Split keys or values: the prefix's, ``[J, 1, C, F]``, and the rests' grid, ``[J, 1, B, T, F]``."""
        whole = tensor_JSF[:, None]
        return whole[:, :, : self.common], self._to_grid(whole[:, :, self.common :])

    def split_weights(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Split weights ``[J, G, N, C + T]``: over the prefix, and in the grid over a row's own keys.

        Padding in the grid gets 0.
        """
        over_rest = self._to_grid(tensor[:, :, self.first :, self.common :])
        return tensor[..., : self.common], over_rest.mul_(self.packing.is_real_BT[..., None])

    def join_weights(self, over_prefix: Tensor, over_rest: Tensor, outside: float) -> Tensor:
        """Undo `split_weights`; the prefix's queries have the weight `outside` over keys after the prefix."""
        over_rest = self._from_grid(over_rest)
        if self.first:
            over_rest = nn.functional.pad(over_rest, (0, 0, self.first, 0), value=outside)
        return torch.cat([over_prefix, over_rest], dim=-1)

    def attend(self, weights: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor]) -> Tensor:
        """Sum keys (or values) with their weights for each query: ``[H, N, F]``."""
        sums = weights[0] @ keys[0]
        sums[:, :, self.first :] += self._from_grid(weights[1] @ keys[1])
        return sums.flatten(0, 1)

    def attend_transposed(self, weights: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]) -> Tensor:
        """Sum queries with their weights for each key: ``[J, C + M, F]``."""
        of_prefix = weights[0].flatten(1, 2).mT @ queries[0].flatten(1, 2)
        of_rest = self._from_grid((weights[1].mT @ queries[1]).sum(1, keepdim=True))
        return torch.cat([of_prefix, of_rest.squeeze(1)], dim=1)

    def _to_grid(self, tensor: Tensor) -> Tensor:
        """``[J, G, M, …]`` to ``[J, G, B, T, …]``."""
        index_BT = self.packing.grid_BT
        return tensor.index_select(2, index_BT.flatten()).unflatten(2, index_BT.shape)

    def _from_grid(self, tensor: Tensor) -> Tensor:
        """``[J, G, B, T, …]`` to ``[J, G, M, …]``."""
        return tensor.flatten(2, 3).index_select(2, self.packing.real_M)


def _later(size: int, like: Tensor) -> Tensor:
    """Return a square with −inf above the diagonal and 0 elsewhere: no query sees a later key."""
    return like.new_full((size, size), -torch.inf).triu_(1)


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Repeat each key-value head for every head that shares it."""
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)
