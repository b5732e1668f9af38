"""The arithmetic of instruction embeddings, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from adjudge.models.instruction import Bottleneck, pool, segment_weights

INSTRUCTION, PROMPT = 3, 7
"""Tokens of the instruction, and of the prompt: four of the input, n = 4."""


def weights(kind: Literal["sin", "linear"], positions: int = 13) -> list[float]:
    position_BT = torch.arange(positions)[None]
    return segment_weights(position_BT, INSTRUCTION, torch.tensor([PROMPT]), kind)[0].tolist()


def reader() -> Bottleneck:
    """Return a layer that reads tanh(h): both matrices are the identity, both biases zero."""
    bottleneck = Bottleneck(2, 2, torch.Generator())
    with torch.no_grad():
        bottleneck.down_KD.copy_(torch.eye(2))
        bottleneck.down_K.zero_()
        bottleneck.up_DK.copy_(torch.eye(2))
    return bottleneck


def test_the_largest_of_each_feature_is_added_by_weight() -> None:
    with torch.no_grad():
        read_D = pool(reader()(torch.tensor([[0.5, -0.5], [1.0, 0.0]])), "max")
    assert read_D.tolist() == pytest.approx([0.761594, 0.0], abs=1e-6)
    for strength, kind, expected in ((1, "sin", 0.538528), (10, "sin", 5.385284), (1, "linear", 0.190399)):
        first = weights(kind)[INSTRUCTION + 1]
        assert (strength * first * read_D).tolist() == pytest.approx([expected, 0.0], abs=1e-5)


def test_other_pools_take_the_mean_and_the_last() -> None:
    read_CD = torch.tensor([[1.0, -4.0], [3.0, 2.0]])
    assert pool(read_CD, "mean").tolist() == [2.0, -1.0] and pool(read_CD, "last").tolist() == [3.0, 2.0]


def test_weights_begin_at_zero_in_each_segment_and_turn_negative_in_a_long_answer() -> None:
    """The instruction has none, and the answer counts by the input's length: at i = 5 of n = 4, sin is −0.7071."""
    sine, linear = weights("sin"), weights("linear")
    assert sine[: INSTRUCTION + 1] == linear[: INSTRUCTION + 1] == [0.0] * 4
    assert sine[4:7] == pytest.approx([math.sin(math.pi / 4), 1.0, math.sin(math.pi / 4)], abs=1e-6)
    assert linear[4:7] == [0.25, 0.5, 0.75]
    assert sine[PROMPT] == linear[PROMPT] == 0.0
    assert sine[PROMPT + 5] == pytest.approx(-0.707107, abs=1e-6) and linear[PROMPT + 5] == 1.25


def test_a_fresh_reader_adds_exactly_nothing() -> None:
    with torch.no_grad():
        fresh = pool(Bottleneck(4, 3, torch.Generator().manual_seed(0))(torch.randn(5, 4)), "max")
    assert torch.equal(fresh, torch.zeros(4))


def test_tokens_that_tie_share_the_gradient() -> None:
    """At the start all tokens tie at zero."""
    read_CD = torch.zeros(4, 2, requires_grad=True)
    pool(read_CD, "max").sum().backward()
    assert read_CD.grad is not None and read_CD.grad.tolist() == [[0.25, 0.25]] * 4
