"""`exact` on a number task: its answers are listed one by one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from policies import trained_looking
from running import EPOCHS_ALONE, logged

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.execute import execute
from adjudge.prompts.answers import every_answer
from adjudge.rollout import label_scoring
from adjudge.rollout.label_scoring import labels_of
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task, load_split
from adjudge.tasks.spec import NumberAnswer, TaskSpec


@pytest.fixture
def ratings(tmp_path: Path) -> TaskSpec:
    """Return a task of 24 texts rated 1.0 to 2.0."""
    path = tmp_path / "ratings.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("text", "stars"), *((f"a film of {row} acts", 1 + row % 11 / 10) for row in range(24))]
        )
    spec = infer_task(path, ["text"], "stars")
    return spec.model_copy(update={"number": NumberAnswer(low=1, high=2, decimals=1)})


def values(model: Path, **more: object) -> dict[str, object]:
    given: dict[str, object] = {
        "method": "exact",
        "model": str(model),
        "data.train_rows": 8,
        "data.eval_rows": 4,
        "runtime.device": "cpu",
    }
    return {
        **EPOCHS_ALONE,
        **given,
        "runtime.dtype": "float32",
        "exact.batch_size": 4,
        "evaluation.resamples": 100,
        **more,
    }


def test_a_number_task_is_trained_on(ratings: TaskSpec, able: Path, tmp_path: Path) -> None:
    execute(load_config(values=values(able)), ratings, tmp_path / "run")
    records = [record for record in logged(Run.open(tmp_path / "run")) if "reward" in record]
    assert len(records) == 3 and records[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert all(-0.5001 <= record["reward"] <= 0.5 and record["label_mass"] >= 0 for record in records), records


def test_rows_in_parts_have_the_same_probabilities(
    ratings: TaskSpec, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = trained_looking(tiny_llama)
    task = PromptedTask(policy, ratings, load_config(values=values(tiny_llama)))
    rows = prompt_rows(task, list(load_split(ratings, "train", None))[:4])
    whole = labels_of(task, rows, 1.0)
    assert whole.shape == (4, 11)
    monkeypatch.setattr(label_scoring, "MOST_COPIES", 11)
    parts = labels_of(task, rows, 1.0)
    assert float((whole - parts).abs().max()) < 1e-4


def test_too_many_numbers_are_refused(ratings: TaskSpec, able: Path, tmp_path: Path) -> None:
    fine = ratings.model_copy(update={"number": NumberAnswer(low=0, high=5, decimals=2)})
    with pytest.raises(ConfigError, match=r"has 501 answers from 0 to 5 with 2 decimals; at most 128"):
        execute(load_config(values=values(able)), fine, tmp_path / "run")
    assert [answer.text for answer in every_answer(ratings)] == [f"{1 + step / 10:.1f}" for step in range(11)]
