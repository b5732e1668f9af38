"""Train VinePPO, PPO with values from continuations inside an analysis, on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from running import EPOCHS_ALONE, logged
from test_documented_records import documented

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.tasks import load_task

FIGURES = ("steps", "split", "value_states", "value_variance", "value_noise", "extra_tokens", "sampled_tokens")


def values_of(model: Path, **values: Any) -> dict[str, Any]:
    return {
        **EPOCHS_ALONE,
        "method": "ppo",
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "prompt.analysis": "before",
        "answer.analysis_tokens": 5,
        "answer.max_tokens": 4,
        "data.train_rows": 8,
        "data.eval_rows": 2,
        "evaluation.resamples": 100,
        "ppo.values": "vine",
        "ppo.vine.split": "tokens",
        "ppo.vine.rollouts": 2,
        "ppo.samples": 2,
        "ppo.batch_size": 4,
        "ppo.epochs": 1,
        "ppo.optimizer.lr": 1e-3,
        **{key.replace("__", "."): value for key, value in values.items()},
    }


def trained(model: Path, folder: Path, **values: Any) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    execute(load_config(values=values_of(model, **values)), reviews(folder), folder / "run")
    return logged(Run.open(folder / "run"))


@pytest.mark.parametrize("values", ["vine", "vine-labels"])
def test_it_trains_and_says_what_the_values_cost(values: str, able: Path, tmp_path: Path) -> None:
    first, second = trained(able, tmp_path, ppo__values=values)
    assert first["kl"] == pytest.approx(0, abs=1e-4) and first["grad_norm"] > 0
    for record in (first, second):
        assert all(math.isfinite(record[name]) for name in FIGURES) and "value_loss" not in record
        assert record["sampled_tokens"] > record["extra_tokens"] > 0 and record["steps"] > 1
    assert second["kl"] != first["kl"]


def test_the_number_of_continuations_changes_no_answer(able: Path, tmp_path: Path) -> None:
    """With a rate of 0 the policy stays, so all answers are those that PPO samples with a critic."""
    shared = {"ppo__optimizer__lr": 0.0, "ppo__value_lr": 1e-9}
    forms = ({"ppo__vine__rollouts": 1}, {"ppo__vine__rollouts": 3, "ppo__vine__steps": 1}, {"ppo__values": "critic"})
    runs = [trained(able, tmp_path / str(number), **shared, **form) for number, form in enumerate(forms)]
    answers = [[(record["right"], record["reward"], record["entropy"]) for record in run] for run in runs]
    assert answers[0] == answers[1] == answers[2]
    assert [run[0]["sampled_tokens"] - run[0].get("extra_tokens", 0) for run in runs] == [
        runs[2][0]["sampled_tokens"]
    ] * 3
    assert runs[0][0]["extra_tokens"] < runs[1][0]["extra_tokens"]


def test_a_comparison_names_it(able: Path, tmp_path: Path) -> None:
    config = load_config(values=values_of(able, ppo__values="vine-labels", data__train_rows=4))
    compare(config, [reviews(tmp_path)], ["ppo"], [0], tmp_path / "out", runner=execute)
    table = " ".join((tmp_path / "out" / "table.md").read_text(encoding="utf-8").split())
    assert "ppo.values=vine-labels is VinePPO with exact values of labels, which are ours, not the paper's" in table


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt__analysis": False}, r"none comes before the answer\. Use prompt\.analysis=before, or ppo\.values="),
        ({"prompt__analysis": True, "ppo__values": "vine-labels"}, r"ppo\.values=vine-labels goes on from inside an"),
        ({"ppo__vine__rollouts": 0}, r"ppo\.vine\.rollouts"),
    ],
)
def test_what_cannot_be_valued_is_refused(values: dict[str, Any], message: str, able: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(able, tmp_path, **values)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_numbers_have_values_but_no_labels(able: Path, tmp_path: Path) -> None:
    config = load_config(values=values_of(able, ppo__values="vine-labels"))
    with pytest.raises(ConfigError, match=r"ppo\.values=vine-labels needs labels, and it is answered with a number"):
        execute(config, load_task("vader/movies-rating"), tmp_path / "run")


def test_its_page_describes_what_it_logs(able: Path, tmp_path: Path) -> None:
    pages = documented("methods/vineppo.md") | documented("methods/ppo.md")
    assert {key for record in trained(able, tmp_path) for key in record} - pages == set()
