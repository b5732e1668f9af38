"""Test the benchmark of the engine's steps: without a step, the engine gives the same result."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from policies import trained_looking

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is no part of the installed package

from adjudge.config import load_config
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.ppo import collect_batch
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.tasks import load_task
from adjudge.training.updates import clipped_updates
from adjudge.types import Example
from benchmarks import steps, table

TEXTS = ("a warm, funny film", "dull", "the plot is slow", "nobody should pay for this")


def learned(folder: Path, variant: steps.Variant) -> list[torch.Tensor]:
    """Weights after one PPO batch of two updates, without one step of the engine."""
    config = load_config(
        values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu", "ppo.mini_batch_size": 4}
    )
    with ExitStack() as stack:
        for replaced in variant.replaced():
            stack.enter_context(replaced)
        policy = trained_looking(folder)
        judge = PromptedJudge(PromptedTask(policy, load_task("glue/sst2"), config))
        examples = [
            Example(str(row), {"sentence": text}, judge.task.spec.words[row % 2]) for row, text in enumerate(TEXTS)
        ]
        # With other answers a ratio can lie at the edge of its clip, where rounding decides on a token's gradient.
        sampling = Sampling.of(config.ppo, torch.Generator().manual_seed(1))
        batch = collect_batch(judge.task, prompt_rows(judge.task, examples), config.ppo, 0.1, sampling)
        groups = [{"params": policy.adapter_parameters()}, {"params": list(policy.value_head.parameters())}]
        optimizer, order = torch.optim.SGD(groups, lr=1e-2), torch.Generator().manual_seed(0)
        clipped_updates(policy, optimizer, batch.rollout, batch.advantage_BR, config.ppo, order, batch.critic)
        return [parameter.detach().clone() for parameter in policy.parameters()]


@pytest.fixture(scope="module")
def whole(tiny_llama: Path) -> list[torch.Tensor]:
    return learned(tiny_llama, steps.VARIANTS[steps.WHOLE])


@pytest.mark.parametrize("name", [name for name, variant in steps.VARIANTS.items() if variant.replaced is not list])
def test_a_step_taken_away_changes_no_result(name: str, whole: list[torch.Tensor], tiny_llama: Path) -> None:
    for one, other in zip(learned(tiny_llama, steps.VARIANTS[name]), whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_ratios_are_of_the_pair_and_errors_are_kept() -> None:
    pair = ({"seconds": [2.0], "peak_gib": 1.0}, {"seconds": [5.0], "peak_gib": 3.0})
    other = ({"seconds": [2.0], "peak_gib": 1.0}, {"seconds": [3.0], "peak_gib": 3.0})
    row = steps.row_of("x", "ppo", [pair, other])
    assert row["ratios"] == [2.5, 1.5] and row["ratio"] == 2.0
    assert row["peak_gib"] == {"whole": 1.0, "without": 3.0}
    assert steps.row_of("x", "ppo", [({"error": "died"}, pair[1])])["error"] == "died"


def test_the_table_shows_both() -> None:
    machine = {"device": "a CPU", "cores": 2, "system": "Linux", "versions": {}}
    settings = dict.fromkeys(
        ("task", "model", "batch_size", "mini_batch_size", "update_epochs", "batches", "samples", "threads", "dtype"), 1
    )
    rows = [steps.row_of("x", "ppo", [({"seconds": [2.0], "peak_gib": 1.0}, {"seconds": [5.0], "peak_gib": 3.0})])]
    rows.append({"variant": "y", "what": "sft", "error": "died"})
    text = table._steps({"settings": settings, "machine": machine, "command": "c", "date": "d", "rows": rows})
    assert "| x | ppo | 2.00 / 5.00 | 2.50 | 1.00 / 3.00 |" in text
    assert "failed: died" in text
