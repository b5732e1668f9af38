"""Train the policy-gradient methods by their defaults: first SFT, whose result is the reference, then rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from running import logged

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run

METHODS = ("ppo", "reinforce", "rloo", "grpo", "exact")


def trained(method: str, model: Path, folder: Path, **values: Any) -> Run:
    settings = {
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "data.train_rows": 16,
        "data.eval_rows": 4,
        "evaluation.resamples": 100,
        f"{method}.batch_size": 4,
        f"{method}.optimizer.lr": 1e-3,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    folder.mkdir(exist_ok=True)
    execute(load_config(values=settings), reviews(folder), folder / "run")
    return Run.open(folder / "run")


@pytest.mark.parametrize("method", METHODS)
def test_half_of_the_steps_are_sft_and_the_kl_begins_at_zero(method: str, able: Path, tmp_path: Path) -> None:
    records = logged(trained(method, able, tmp_path))
    assert [set(record) == {"step", "rows", "loss", "right", "grad_norm", "lr"} for record in records] == [
        *[True] * 4,
        *[False] * 4,
    ]
    assert [record.get("rows", record.get("prompts")) for record in records] == [4 * step for step in range(1, 9)]
    # The reference of the first sampled answers is the policy that gave them, and not the untrained model.
    assert records[4]["kl"] == pytest.approx(0, abs=1e-4)
    assert max(record["lr"] for record in records[:4]) == pytest.approx(3e-4)
    assert max(record["lr"] for record in records[4:]) == pytest.approx(1e-3)


def test_a_run_that_starts_from_another_has_no_warm_start(able: Path, tmp_path: Path) -> None:
    sft = trained("sft", able, tmp_path / "sft")
    records = logged(trained("rloo", able, tmp_path / "rloo", init=str(sft.folder)))
    assert all("reward" in record for record in records)
    assert records[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_the_warm_start_is_sft(able: Path, tmp_path: Path) -> None:
    """With the rate of SFT's schedule, its steps have SFT's figures, whatever method follows."""
    one, other = (logged(trained(method, able, tmp_path / method)) for method in ("ppo", "exact"))
    assert one[:4] == other[:4]


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("exact", {}, "answered with a number: `exact` needs a list of labels"),
        ("ppo", {"ppo__values": "exact"}, "ppo.values=exact needs labels, and it is answered with a number"),
    ],
)
def test_numbers_have_no_exact_values(
    method: str, values: dict[str, Any], message: str, able: Path, tmp_path: Path
) -> None:
    from adjudge.tasks import load_task

    settings = {"method": method, "model": str(able), "data.train_rows": 8, "data.eval_rows": 4}
    config = load_config(values={**settings, **{key.replace("__", "."): value for key, value in values.items()}})
    with pytest.raises(ConfigError, match=message):
        execute(config, load_task("vader/movies-rating"), tmp_path / "run")
