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

import math
from collections.abc import Sequence
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

LOG2_E = math.log2(math.e)


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
    """Attention by matrix products; the backward pass computes the weights again where they are large.

    The result lies in memory with the heads inside of tokens, as the next layer reads it.
    """

    @staticmethod
    def forward(ctx: Any, query_HNF: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
        layout = _Layout(packing, query_HNF, key)
        weights = layout.weights(layout.queries(query_HNF), layout.keys(key), scale)
        out_HNF = layout.attend(weights, layout.keys(value))
        kept = weights if sum(weight.numel() for weight in weights) <= KEPT_WEIGHTS else ()
        ctx.save_for_backward(query_HNF, key, value, out_HNF, *kept)
        ctx.packing, ctx.scale = packing, scale
        return out_HNF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_HNF: Tensor) -> tuple[Any, ...]:
        query_HNF, key, value, out_HNF, *kept = ctx.saved_tensors
        layout = _Layout(ctx.packing, query_HNF, key)
        queries, keys = layout.queries(query_HNF), layout.keys(key)
        weights = kept or layout.weights(queries, keys, ctx.scale)
        grads = layout.queries(grad_HNF)
        # The weighted mean of the weights' gradients, both parts together.
        means = layout.queries((at_least_float32(grad_HNF) * out_HNF).sum(-1))
        grad_scores = [
            at_least_float32(grad @ values.mT).sub_(mean[..., None]).mul_(weight).to(weight.dtype)
            for grad, values, mean, weight in zip(grads, layout.keys(value), means, weights, strict=True)
        ]
        grad_query, grad_key = layout.attend(grad_scores, keys), layout.gather(grad_scores, queries)
        return grad_query.mul_(ctx.scale), grad_key.mul_(ctx.scale), layout.gather(weights, grads), None, None


class _Layout:
    """Where the queries, keys and weights of a packed sequence lie.

    Each is split in two: what meets the prefix's keys, and, in a grid of rows, what meets a row's own keys.
    The heads of a group lie behind each other, so no key is repeated.
    The weights are one softmax over both parts: each part is summed for itself, and then the sums are joined.
    """

    def __init__(self, packing: Packing, query_HNF: Tensor, key: Tensor) -> None:
        self.packing = packing
        self.shared, self.group = len(key), len(query_HNF) // len(key)
        self.first = query_HNF.shape[1] - len(packing.ids_M)
        """Number of queries of the prefix: C, or 0 where it is cached."""
        self.to_grid, self.from_grid = packing.grouped(self.group, self.first)

    def queries(self, tensor_HN: Tensor) -> tuple[Tensor, Tensor]:
        """Split what belongs to queries, ``[H, N, …]``, into all of it and the rests'.

        The shapes are ``[J, G N, …]`` and ``[J B, G T, …]``.
        """
        whole = tensor_HN.reshape(self.shared, -1, *tensor_HN.shape[2:])
        rests = whole.index_select(1, self.to_grid)
        return whole, rests.view(-1, self.group * self.packing.grid_BT.shape[1], *tensor_HN.shape[2:])

    def keys(self, tensor_JSF: Tensor) -> tuple[Tensor, Tensor]:
        """Split keys or values: the prefix's, ``[J, C, F]``, and the rests', ``[J B, T, F]``."""
        prefix, rests = tensor_JSF.split([self.packing.common, len(self.packing.ids_M)], 1)
        index_BT = self.packing.grid_BT
        return prefix, rests.index_select(1, index_BT.flatten()).view(-1, index_BT.shape[1], rests.shape[-1])

    def weights(self, queries: Sequence[Tensor], keys: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """Return the attention weights over the prefix and over a row's own keys.

        The shapes are ``[J, G N, C]`` and ``[J B, G T, T]``. Padding in the grid gets 0.
        """
        scale *= LOG2_E  # powers of 2, since `exp` of −inf is ten times as slow on a CPU
        over_prefix, over_own = (query @ key.mT for query, key in zip(queries, keys, strict=True))
        dtype, common = over_own.dtype, over_prefix.shape[-1]
        longest = over_own.shape[-1]
        grid_scores = over_own.view(self.shared, -1, self.group, longest, longest)
        grid_scores += self.packing.own_bias(dtype)[:, None]
        if self.first:
            over_prefix.unflatten(1, (self.group, -1))[:, :, : self.first] += _later(common, over_prefix)
        powers_own, highest_own, sum_own = _powers(over_own, scale)
        highest_own, sum_own = self._by_query(highest_own, -torch.inf), self._by_query(sum_own, 0.0)
        if not common:
            return over_prefix, powers_own.mul_(self._in_grid(1 / sum_own)).to(dtype)
        powers_prefix, highest, sum_prefix = _powers(over_prefix, scale)
        top = torch.maximum(highest, highest_own)
        scale_prefix, scale_own = ((largest - top).mul_(scale).exp2_() for largest in (highest, highest_own))
        total = scale_prefix * sum_prefix + scale_own * sum_own
        return (
            powers_prefix.mul_((scale_prefix / total)[..., None]).to(dtype),
            powers_own.mul_(self._in_grid(scale_own / total)).to(dtype),
        )

    def attend(self, weights: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """Sum keys (or values) with their weights for each query: ``[H, N, F]``."""
        over_prefix, over_own = (weight @ key for weight, key in zip(weights, keys, strict=True))
        over_prefix = over_prefix.unflatten(1, (self.group, -1))
        out_NHF = over_prefix.new_empty(over_prefix.shape[2], self.shared * self.group, over_prefix.shape[-1])
        out = out_NHF.unflatten(1, (self.shared, self.group)).permute(1, 2, 0, 3)
        out[:, :, : self.first] = over_prefix[:, :, : self.first]
        over_own = over_own.view(self.shared, -1, over_own.shape[-1]).index_select(1, self.from_grid)
        over_own = over_own.unflatten(1, (self.group, -1))
        torch.add(over_prefix[:, :, self.first :], over_own, out=out[:, :, self.first :])
        return out_NHF.transpose(0, 1)

    def gather(self, weights: Sequence[Tensor], queries: Sequence[Tensor]) -> Tensor:
        """Sum queries (or their gradients) with their weights for each key: ``[J, C + M, F]``."""
        of_prefix, of_own = (weight.mT @ query for weight, query in zip(weights, queries, strict=True))
        of_own = of_own.view(self.shared, -1, of_own.shape[-1]).index_select(1, self.packing.real_M)
        return torch.cat([of_prefix, of_own], dim=1)

    def _by_query(self, of_grid: Tensor, of_prefix: float) -> Tensor:
        """Return a figure of the grid's queries, ``[J B, G T]``, for all queries, ``[J, G N]``."""
        rests = of_grid.view(self.shared, -1).index_select(1, self.from_grid).unflatten(1, (self.group, -1))
        return nn.functional.pad(rests, (self.first, 0), value=of_prefix).flatten(1)

    def _in_grid(self, by_query: Tensor) -> Tensor:
        """Undo `_by_query`, with 0 at padding and one more dimension."""
        is_real_BT = self.packing.is_real_BT
        grid = by_query.index_select(1, self.to_grid).view(self.shared, len(is_real_BT), self.group, -1)
        return (grid * is_real_BT[:, None]).view(-1, self.group * is_real_BT.shape[1], 1)


def _powers(score: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return each query's powers of 2, its largest score, and the sum of its powers.

    The exponents are the query's scores less its largest, scaled. The largest score is returned unscaled.
    """
    wide = at_least_float32(score)
    highest = wide.amax(-1)
    powers = wide.sub_(highest[..., None]).mul_(scale).exp2_()
    return powers, highest, powers.sum(-1)


def _later(size: int, like: Tensor) -> Tensor:
    """Return a square with −inf above the diagonal and 0 elsewhere: no query sees a later key."""
    return like.new_full((size, size), -torch.inf).triu_(1)


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Repeat each key-value head for every head that shares it."""
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)
