"""Optimizers and the schedule of the learning rate, against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from adjudge.config import OptimizerConfig, load_config
from adjudge.training.optim import build_optimizer, rate_factor


def factors(total: int, **settings) -> list[float]:
    return [rate_factor(update, total, OptimizerConfig(**settings)) for update in range(total)]


def test_linear() -> None:
    # ceil(0.55 * 10) = 6 updates of warm-up, then 4 updates from 1 towards 0, which would be the eleventh.
    expected = [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 1.0, 3 / 4, 2 / 4, 1 / 4]
    assert factors(10, schedule="linear", warmup_share=0.55) == pytest.approx(expected)


def test_cosine() -> None:
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert factors(4, schedule="cosine", warmup_share=0.0) == pytest.approx(expected)


def test_constant() -> None:
    assert factors(4, schedule="constant", warmup_share=0.0) == [1.0] * 4
    assert factors(4, schedule="constant", warmup_share=0.5) == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("total", "share", "rising"),
    [
        (15, 0.1, 6),  # a tenth is 2 and leads PPO to one label
        (30, 0.1, 6),
        (100, 0.1, 10),
        (100, 0.06, 6),
        (100, 1e-9, 6),
        (12, 0.1, 6),
        (11, 0.1, 5),  # at most half
        (3, 0.1, 1),
        (2, 0.1, 1),
        (1, 0.1, 1),
        (10, 0.8, 8),  # asked for
        (15, 0.0, 0),  # none asked for
        (1, 0.0, 0),
    ],
)
def test_a_warm_up_is_never_of_a_few_updates_only(total: int, share: float, rising: int) -> None:
    found = factors(total, schedule="constant", warmup_share=share)
    assert found == pytest.approx([(update + 1) / rising for update in range(rising)] + [1.0] * (total - rising))


def test_the_paper_has_no_warm_up() -> None:
    paper = load_config(preset="paper")
    for config in (paper.sft.optimizer, paper.ppo.optimizer):
        assert [rate_factor(update, 15, config) for update in range(15)] == [1.0] * 15


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 17])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
def test_every_update_has_a_rate(schedule: str, total: int, warmup: float) -> None:
    found = factors(total, schedule=schedule, warmup_share=warmup)
    assert all(0 < factor <= 1 for factor in found)
    assert rate_factor(total, total, OptimizerConfig(schedule=schedule, warmup_share=warmup)) >= 0


def parameter(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full((2, 3), value))


def step(config: OptimizerConfig, gradient: float, total: int = 1, **group) -> float:
    """How far one update moves a weight of 1."""
    weight = parameter()
    optimizer, _ = build_optimizer([{"params": [weight], **group}], config, total)
    weight.grad = torch.full_like(weight, gradient)
    optimizer.step()
    assert len(set(weight.detach().flatten().tolist())) == 1
    return weight.detach()[0, 0].item() - 1


def test_adamw_moves_by_the_rate() -> None:
    config = OptimizerConfig(lr=0.1, warmup_share=0.0)
    assert step(config, 3.0) == pytest.approx(
        -0.1, rel=1e-4
    )  # Adam's first step is the rate, whatever the gradient's size
    assert step(config, -0.01) == pytest.approx(0.1, rel=1e-4)


def test_adamw_decays_weights() -> None:
    config = OptimizerConfig(lr=0.1, weight_decay=0.5, warmup_share=0.0)
    assert step(config, 0.0) == pytest.approx(-0.05, rel=1e-5)
    assert step(config, 0.0, weight_decay=0.0) == 0.0


def test_adafactor_has_a_fixed_step() -> None:
    config = OptimizerConfig(name="adafactor", lr=0.1, warmup_share=0.0)
    assert step(config, 3.0) == pytest.approx(-0.1, rel=1e-3)  # not scaled by the weight, nor by 1 / sqrt(step)
    weight = parameter(1000.0)
    optimizer, _ = build_optimizer([{"params": [weight]}], config, 3)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight[0, 0].item() == pytest.approx(999.7, abs=1e-3)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_the_schedule_drives_each_group_at_its_own_rate(name: str) -> None:
    one, two = parameter(), parameter()
    config = OptimizerConfig(name=name, lr=0.2, warmup_share=0.5, schedule="linear")
    optimizer, scheduler = build_optimizer([{"params": [one]}, {"params": [two], "lr": 0.02}], config, 4)
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == seen[-1]
        one.grad, two.grad = torch.ones_like(one), torch.ones_like(two)
        before = one.detach().clone(), two.detach().clone()
        optimizer.step()
        assert (before[0] - one).max().item() == pytest.approx(seen[-1][0], rel=1e-2)
        assert (before[1] - two).max().item() == pytest.approx(seen[-1][1], rel=1e-2)
        scheduler.step()
    assert [rates[0] for rates in seen] == pytest.approx([0.1, 0.2, 0.2, 0.1])
    assert [rates[1] for rates in seen] == pytest.approx([0.01, 0.02, 0.02, 0.01])


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_rate_zero_moves_nothing(name: str) -> None:
    assert step(OptimizerConfig(name=name, lr=0.0), 1.0) == 0.0
