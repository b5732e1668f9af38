"""The noise of estimators from inner products of the labels' gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.config import RewardConfig, load_config
from adjudge.rl.losses import expected_reward
from adjudge.rollout.label_scoring import label_logps
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.tasks import load_task
from adjudge.types import Example
from benchmarks.gradients import SAMPLES, Gradients, drift, estimators, measure, noise, plot


def test_the_exact_gradient_is_that_of_the_expected_reward(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    task = PromptedTask(policy, load_task("glue/sst2"), load_config())
    words = task.spec.words
    rows = prompt_rows(task, [Example(str(i), {"sentence": f"film {i}"}, words[i % 2]) for i in range(3)])
    gradients = measure(task, rows, RewardConfig())
    ids = [task.end.taught_ids(word, task.spec) for word in words]
    logp_BL = label_logps(policy, policy.prefill([row.ids for row in rows], grad=True), ids)
    expected = expected_reward(logp_BL, gradients.reward_BA[:, :-1], -3.0).mean()
    parts = torch.autograd.grad(expected, policy.adapter_parameters())
    length = torch.cat([part.flatten() for part in parts]).norm()
    exact_K = gradients.exact()
    assert (exact_K @ gradients.product_KK @ exact_K).sqrt().item() == pytest.approx(length.item(), rel=1e-3)


def toy() -> Gradients:
    """Two prompts with one logit each; a right answer pays 1 and a wrong one 0, and others −3."""
    probability_BL = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    slope_BL = torch.stack([1 - probability_BL[:, 0], -probability_BL[:, 0]], dim=1)  # of each label's log-probability
    products = [torch.outer(slope_L, slope_L) for slope_L in slope_BL]
    return Gradients(probability_BL.log(), torch.block_diag(*products), torch.tensor([[1.0, 0, -3], [0, 1.0, -3]]))


def test_noise_falls_with_the_samples() -> None:
    figures = {
        (name, samples): noise(toy(), advantage_of, samples, 4000)
        for name, advantage_of in estimators().items()
        for samples in (2, 8)
    }
    for name in estimators():
        assert figures[name, 8]["noise"] < 0.5 * figures[name, 2]["noise"]
        assert figures[name, 8]["cosine"] > figures[name, 2]["cosine"]
    # By hand: right with probability 0.8 and 0.7. Without a baseline a right answer gives its slope, 0.2 or −0.3, and a
    # wrong one 0: means 0.16 and −0.21, variances 0.0064 and 0.0189 per answer, half of it for two answers.
    expected = (0.0064 + 0.0189) / 2 / (0.16**2 + 0.21**2)
    assert figures["REINFORCE, no baseline", 2]["noise"] == pytest.approx(expected, rel=0.1)


def test_a_step_toward_one_label_is_shared() -> None:
    gold_B = torch.tensor([0, 1])
    one_label = drift(toy(), torch.tensor([1.0, 0.0, 1.0, 0.0]), gold_B)
    assert one_label["shared"] > 2 * abs(one_label["toward_gold"])
    right = drift(toy(), torch.tensor([1.0, 0.0, 0.0, 1.0]), gold_B)
    assert right["toward_gold"] > 2 * right["shared"]


def test_the_plot_has_a_line_per_estimator() -> None:
    curves = {name: {samples: 1.0 / samples for samples in SAMPLES} for name in estimators()}
    drawn = plot(curves)
    assert drawn.count("<polyline") == len(curves)
    assert "RLOO" in drawn
