"""Weights of classes in the loss: a row of weight 3 counts as three rows, in loss and gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from running import EPOCHS_ALONE, logged
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.execute import execute, run_settings
from adjudge.models.policy import load_policy
from adjudge.rollout.forward import taught_loss
from adjudge.rollout.prompted import PromptedTask, TaughtRow, taught_rows
from adjudge.runs.folder import Run
from adjudge.training.labelled import class_weights, head_loss
from adjudge.training.updates import accumulate
from adjudge.types import Example

LABELS = label_task("Negative", "Positive")
ROWS = [TaughtRow([5, 6, 7], [8, 9], weight=3.0), TaughtRow([5, 6], [10]), TaughtRow([4], [11, 12, 13], weight=2.0)]
REPEATED = [row._replace(weight=1.0) for row in ROWS for _ in range(int(row.weight))]


def settings(model: Path, **more: Any) -> Any:
    values = {**EPOCHS_ALONE, "model": str(model), "runtime.dtype": "float32", "runtime.device": "cpu", **more}
    return load_config(values=values)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_whole_weights_are_repeated_rows(micro_batch_size: int | None, able: Path) -> None:
    policy = load_policy(settings(able), adapter=True)

    def learned(rows: list[TaughtRow]) -> tuple[float, list[torch.Tensor]]:
        tokens = sum(row.weight * len(row.taught) for row in rows)
        figures = accumulate(rows, micro_batch_size, lambda part: taught_loss(policy, part, tokens))
        gradients = [parameter.grad.clone() for parameter in policy.adapter_parameters()]
        for parameter in policy.adapter_parameters():
            parameter.grad = None
        return figures["loss"], gradients

    (loss, gradients), (expected_loss, expected) = learned(ROWS), learned(REPEATED)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert any(float(gradient.abs().max()) > 1e-4 for gradient in expected)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert float((gradient - wanted).norm()) <= 1e-4 * float(wanted.norm()), "equal but for rounding"


def test_balanced_rows_are_weighted_by_their_label(able: Path) -> None:
    config = settings(able)
    task = PromptedTask(load_policy(config), LABELS, config)
    golds = ["Positive"] * 3 + ["Negative"]
    examples = [Example(f"r:{row}", {"text": "film"}, gold) for row, gold in enumerate(golds)]
    weights = [row.weight for row in taught_rows(task, examples, loss="sequence", balanced=True)]
    assert weights == pytest.approx([2 / 3] * 3 + [2.0])
    assert {row.weight for row in taught_rows(task, examples)} == {1.0}


def test_the_weights_of_a_head_are_repeated_rows() -> None:
    """Three positive rows and one negative: weights 2/3 and 2, in the ratio 1 : 3."""
    golds = ["Positive"] * 3 + ["Negative"]
    weight_L = class_weights([Example("", {}, gold) for gold in golds], LABELS)
    assert weight_L.tolist() == pytest.approx([2.0, 2 / 3])
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5], [0.1, 0.4], [0.2, 0.9]], requires_grad=True)
    targets = [1.0, 1.0, 1.0, 0.0]

    def loss_of(order: list[int], weights: torch.Tensor | None) -> torch.Tensor:
        loss, _ = head_loss(logits[order], [targets[row] for row in order], weights, 1.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        return torch.cat([loss[None], gradient.flatten()])

    torch.testing.assert_close(loss_of([0, 1, 2, 3], weight_L), loss_of([0, 1, 2, 3, 3, 3], None))


def test_sft_and_the_order_of_its_rows_with_balance(tiny_llama: Path, tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    more = {"method": "sft", "data.train_rows": 12, "data.eval_rows": 4, "evaluation.resamples": 100}
    more |= {"sft.batch_size": 4, "runtime.threads": 1}
    before = torch.get_num_threads()
    for name, changes in (
        ("plain", {}),
        ("weighted", {"sft.class_weight": "balanced"}),
        ("drawn", {"data.sampling": "balanced"}),
    ):
        execute(settings(tiny_llama, **more, **changes), spec, tmp_path / name)
    torch.set_num_threads(before)
    logs = [logged(Run.open(tmp_path / name)) for name in ("plain", "weighted", "drawn")]
    assert len(logs[0]) == len(logs[1]) == len(logs[2]) == 6
    assert logs[0] != logs[1]
    assert logs[0] != logs[2]


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("sft", "sft.class_weight=balanced"),
        ("encoder", "encoder.class_weight=balanced"),
        ("sft", "data.sampling=balanced"),
        ("ppo", "data.sampling=balanced"),
        ("encoder", "data.sampling=balanced"),
    ],
)
def test_numbers_have_no_classes(method: str, override: str) -> None:
    config = load_config(overrides=[f"method={method}", override])
    with pytest.raises(ConfigError, match=rf"{override.partition('=')[0]}.* is for labels, but mine is answered with"):
        run_settings(config, [number_task(0, 5)])
    run_settings(config, [LABELS])
    untrained = config.model_copy(update={"method": "zero-shot"})
    assert run_settings(untrained, [number_task(0, 5)]).data.sampling == "all"


@pytest.mark.parametrize(("method", "read"), [("sft", True), ("head", True), ("tfidf", False), ("bpo", False)])
def test_only_what_learns_in_batches_draws_them_balanced(method: str, read: bool) -> None:
    """A run does not record what it does not do."""
    config = run_settings(load_config(overrides=[f"method={method}", "data.sampling=balanced"]), [LABELS])
    assert config.data.sampling == ("balanced" if read else "all")
