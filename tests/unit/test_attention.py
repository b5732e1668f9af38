"""Packed attention, plain and fused, against attention row by row: figures and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adjudge.models.engine import attention
from adjudge.models.engine.attention import packed_attention
from adjudge.models.engine.batch import branch, build_batch, with_branches
from adjudge.models.engine.packing import Packing

HEADS, SHARED, WIDTH, SCALE = 6, 2, 8, 0.3
PROMPTS = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [1, 2, 3, 7, 7, 7, 8]]


def row_by_row(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """Attend with one query at a time over the keys it sees."""
    common, first = packing.common, query.shape[2] - len(packing.ids_M)
    seen_keys = [list(range(index + 1)) for index in range(first)]
    for row, (tokens_T, real_T) in enumerate(zip(packing.grid_BT, packing.is_real_BT, strict=True)):
        tokens = tokens_T[real_T].tolist()
        for end in range(len(tokens)):
            own = [token for place, token in enumerate(tokens) if place <= end and sees(packing, row, end, place)]
            seen_keys.append([*range(common), *(common + token for token in own)])
    out = []
    for index, keys in enumerate(seen_keys):
        heads = []
        for head in range(HEADS):
            shared = head // (HEADS // SHARED)
            weight = (SCALE * key[0, shared, keys] @ query[0, head, index]).softmax(0)
            heads.append(weight @ value[0, shared, keys])
        out.append(torch.stack(heads))
    return torch.stack(out)[None]


def sees(packing: Packing, row: int, cell: int, other: int) -> bool:
    return packing.sees_BTT is None or bool(packing.sees_BTT[row, cell, other])


def packed(share: bool, branches: bool) -> Packing:
    """Return a packing of the prompts, with answers that branch off them or without."""
    if not branches:
        batch = build_batch(PROMPTS, [[], [], []], share_prefix=share, side="left")
        return Packing.of(batch, torch.arange(3), torch.full((3,), -1))
    trees = [branch(answers)[0] for answers in ([[4, 5, 2], [4, 6, 2], [8, 2]], [[4, 2]], [[9, 2], [8, 9, 2]])]
    batch = build_batch(PROMPTS, [[*tree.ids, 0] for tree in trees], share_prefix=share, side="right")
    return Packing.of_answers(with_branches(batch, trees))


def tensors(packing: Packing, cached: bool, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    keys = packing.common + len(packing.ids_M)
    queries = len(packing.ids_M) if cached else keys
    sizes = ((HEADS, queries), (SHARED, keys), (SHARED, keys))
    return [torch.randn(1, *size, WIDTH, dtype=dtype, requires_grad=True) for size in sizes]


def laid_out_as_on_a_gpu(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return attention whose result lies in memory as a GPU's does: heads inside of tokens."""
    return lambda *args, **named: attend(*args, **named).transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("way", ["plain", "plain, weights computed again", "fused", "fused, computed again"])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("branches", [False, True])
def test_figures_and_gradients_equal_attention_row_by_row(
    branches: bool, share: bool, cached: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.startswith("plain"):
        monkeypatch.setattr(attention, "KEPT_WEIGHTS", 2**20 if way == "plain" else 0)
    else:
        monkeypatch.setattr(attention, "PLAIN_WEIGHTS", 0)
        monkeypatch.setattr(attention, "KEPT_GRID", 2**20 if way == "fused" else 0)
        functional = torch.nn.functional
        attend = laid_out_as_on_a_gpu(functional.scaled_dot_product_attention)
        monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    packing = packed(share, branches)
    inputs = tensors(packing, cached, torch.float64)
    ours, theirs = (
        packed_attention(None, *inputs, None, packing=packing, scaling=SCALE)[0],
        row_by_row(*inputs, packing),
    )
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    weight = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad((out * weight).sum(), inputs) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("way", ["plain", "fused"])
def test_bfloat16_sums_in_float32(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "fused":
        monkeypatch.setattr(attention, "PLAIN_WEIGHTS", 0)
    packing = Packing.of(build_batch(PROMPTS, [[], [], []], side="left"), torch.arange(3), torch.full((3,), -1))
    inputs = tensors(packing, False, torch.float64)
    out = packed_attention(None, *(tensor.bfloat16() for tensor in inputs), None, packing=packing, scaling=SCALE)[0]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), row_by_row(*inputs, packing), atol=0.03, rtol=0)


@pytest.mark.parametrize("named", [{"dropout": 0.1}, {"softcap": 30.0}, {"sliding_window": 6}])
def test_unsupported_attention_is_refused(named: dict[str, float]) -> None:
    packing = Packing.of(build_batch(PROMPTS, [[], [], []], side="left"), torch.arange(3), torch.full((3,), -1))
    with pytest.raises(NotImplementedError, match="window"):
        packed_attention(None, *tensors(packing, False, torch.float32), None, packing=packing, **named)
