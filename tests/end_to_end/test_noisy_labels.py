"""SFT on labels that may be wrong: nothing changes when it is off, and wrong labels are found when it is on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import EPOCHS_ALONE, logged, train_one
from safetensors.torch import load_file
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

LABELS = label_task("Negative", "Positive")
GOOD = ("a warm and funny film", "the charming surprise", "funny from the first scene")
BAD = ("a dull and slow film", "the plot is tired", "badly acted and dull")
EVERY = "sft.temporal_ensembling.every"
MICRO = "sft.micro_batch_size"
IDLE = {EVERY: 2, "sft.temporal_ensembling.kl": 0, "sft.temporal_ensembling.threshold": 0}


def rows(count: int) -> list[Example]:
    return [
        Example(f"r:{place}", {"text": (GOOD if place % 2 else BAD)[place // 2 % 3]}, LABELS.words[place % 2])
        for place in range(count)
    ]


def trained(folder: Path, model: Path, data: Sequence[Example], values: dict[str, Any], spec: TaskSpec = LABELS) -> Run:
    settings = {"model": str(model), "runtime.dtype": "float32", "runtime.device": "cpu", "method": "sft"}
    config = load_config(values={**EPOCHS_ALONE, **settings, "lora.dropout": 0.1, "sft.batch_size": 4, **values})
    with Run.create(folder, config) as run:
        train_one("sft", run, spec, data)
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def test_ensembling_without_weight_and_threshold_is_sft_bit_for_bit(able: Path, tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", able, rows(12), {})
    idle = trained(tmp_path / "idle", able, rows(12), IDLE)
    keys = ("loss", "right", "grad_norm")
    assert [[step[key] for key in keys] for step in logged(idle)] == [
        [step[key] for key in keys] for step in logged(plain)
    ]
    assert {step["kept"] for step in logged(idle)} == {1.0}
    assert all(torch.equal(weight, weights(plain)[name]) for name, weight in weights(idle).items())


def test_a_little_smoothing_changes_little(able: Path, tmp_path: Path) -> None:
    """Both compute the loss in their own way: the answers of a row one by one, or all labels at once."""
    plain = trained(tmp_path / "plain", able, rows(8), {"lora.dropout": 0.0})
    smooth = trained(tmp_path / "smooth", able, rows(8), {"lora.dropout": 0.0, "sft.label_smoothing": 1e-7})
    for one, other in zip(logged(plain), logged(smooth), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)


def test_smoothing_in_parts_of_a_batch(able: Path, tmp_path: Path) -> None:
    values = {"sft.label_smoothing": 0.5, "lora.dropout": 0.0}
    losses = [
        [step["loss"] for step in logged(trained(tmp_path / str(size), able, rows(8), {**values, MICRO: size}))]
        for size in (None, 1)
    ]
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)


def test_a_wrong_label_is_left_out_once_the_predictions_disagree(able: Path, tmp_path: Path) -> None:
    data = [Example(row.id, {"text": (BAD, GOOD)[place % 2][0]}, row.gold) for place, row in enumerate(rows(12))]
    data[0] = Example("r:0", data[0].fields, "Positive")  # five equal texts have the other label
    values = {EVERY: 3, "sft.temporal_ensembling.threshold": 0.5, "sft.epochs": 6, "sft.optimizer.lr": 3e-3}
    steps = logged(trained(tmp_path, able, data, {**values, "lora.dropout": 0.0}))
    assert all(step["kept"] == 1 for step in steps[:3])
    assert all("ensemble_kl" in step for step in steps[3:]) and "ensemble_kl" not in steps[0]
    assert sorted(step["kept"] for step in steps[-3:]) == [0.75, 1, 1]


def test_a_batch_without_a_trusted_row_updates_nothing(able: Path, tmp_path: Path) -> None:
    """Half of the rows is kept at least: batches of one row have kept and skipped ones."""
    values = {EVERY: 1, "sft.temporal_ensembling.threshold": 0.999, "sft.batch_size": 1, "sft.epochs": 2}
    steps = logged(trained(tmp_path, able, rows(6), values))
    skipped = [step for step in steps if step["kept"] == 0]
    assert skipped and all(step["loss"] == step["grad_norm"] == 0 for step in skipped)
    assert any(step["kept"] == 1 and step["grad_norm"] > 0 for step in steps[1:])


@pytest.mark.parametrize("setting", [{"sft.label_smoothing": 0.1}, {EVERY: 2}])
def test_what_does_not_go_with_it(able: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    for other in ({"sft.loss": "sequence"}, {"sft.minor_beta": 0.1}):
        with pytest.raises(ConfigError, match=r"Leave sft\.minor_beta unset, and use sft\.loss=answer"):
            trained(tmp_path / "a", able, rows(4), {**setting, **other})
    numbers = [Example("r:1", {"text": "a film"}, 1.0)]
    with pytest.raises(ConfigError, match="is for labels, but mine is answered with a number"):
        trained(tmp_path / "b", able, numbers, setting, number_task(0, 9, decimals=0))
