"""Train one adapter for several tasks on a tiny random model: two label tasks and a number task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from running import EPOCHS_ALONE, PLAIN_PPO, logged
from safetensors.torch import load_file

from adjudge.config import Config, load_config
from adjudge.experiments.evaluate import evaluate_tasks
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.runs.tasks import task_folder
from adjudge.tasks import infer_task, load_split
from adjudge.tasks.spec import TaskSpec

PPO_KEYS = (
    "step task prompts reward kl policy_loss value_loss clip_fraction approx_kl entropy grad_norm explained_variance "
    "updates stopped beta lr sampled_tokens unreadable right"
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[TaskSpec]:
    """Return three tasks with 24, 16 and 32 training rows, in which each text has one answer.

    The dev rows repeat training rows, so the answers can be learned by heart.
    """
    folder = tmp_path_factory.mktemp("tasks")
    made = {
        "films": ([("a warm and funny film", "Good"), ("a dull and slow film", "Bad")], 24),
        "pairs": ([("the plot is tired", "No"), ("the scene is charming", "Yes"), ("nobody should pay", "Maybe")], 16),
        "stars": ([("badly acted", "1"), ("a charming surprise", "8")], 32),
    }
    specs = []
    for name, (kinds, count) in made.items():
        rows = [kinds[index % len(kinds)] for index in range(count)]
        for split, chosen in (("train", rows), ("dev", rows[:6])):
            (folder / f"{name}-{split}.csv").write_text(
                "text,label\n" + "".join(f"{text},{label}\n" for text, label in chosen)
            )
        number = {"low": 0.0, "high": 10.0, "decimals": 0}
        spec = infer_task(folder / f"{name}-train.csv", ["text"], "label", dev=folder / f"{name}-dev.csv")
        if name == "stars":
            plain = {
                **spec.model_dump(),
                "labels": None,
                "positive": None,
                "number": number,
                "metrics": ("pearson", "mae"),
            }
            spec = TaskSpec.model_validate(plain)
        specs.append(spec.model_copy(update={"name": name}))
    return specs


def settings(method: str, model: Path, **values: Any) -> Config:
    fixed = {"model": str(model), "runtime.dtype": "float32", "runtime.device": "cpu", "evaluation.resamples": 100}
    return load_config(
        values={
            **EPOCHS_ALONE,
            **PLAIN_PPO,
            **fixed,
            "method": method,
            **{key.replace("__", "."): value for key, value in values.items()},
        }
    )


@pytest.fixture(scope="module")
def warm(tasks: list[TaskSpec], able: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT run over the three tasks that has learned their rows by heart."""
    folder = tmp_path_factory.mktemp("warm") / "run"
    execute(settings("sft", able, sft__epochs=20, sft__optimizer__lr=3e-3, sft__batch_size=8), tasks, folder)
    return folder


def test_one_sft_adapter_learns_three_tasks_by_heart(warm: Path, tasks: list[TaskSpec]) -> None:
    scores = Run.open(warm).scores()
    for spec in tasks:
        found = Run.open(task_folder(warm, spec.name)).predictions("dev")
        assert [prediction.value for prediction in found] == [row.gold for row in load_split(spec, "dev")]
    assert scores["metrics"]["mean_primary"]["value"] == pytest.approx(1.0)
    records = logged(Run.open(warm))
    assert {record["task"] for record in records} == {"films", "pairs", "stars"}
    assert sorted(records[0]) == sorted(["step", "task", "rows", "loss", "right", "grad_norm", "lr"])
    assert records[-1]["rows"] == 20 * (24 + 16 + 32)
    assert len(records) == 20 * (3 + 2 + 4)
    for spec in tasks:
        losses = [record["loss"] for record in records if record["task"] == spec.name]
        assert losses[0] > 3
        assert losses[-1] < 0.1


def test_judging_again_gives_the_same_answers(warm: Path, tasks: list[TaskSpec]) -> None:
    before = {spec.name: Run.open(task_folder(warm, spec.name)).predictions("dev") for spec in tasks}
    ((folder, _),) = evaluate_tasks(warm)
    assert folder == warm
    assert {spec.name: Run.open(task_folder(warm, spec.name)).predictions("dev") for spec in tasks} == before


def test_an_adapter_is_asked_about_a_task_it_has_not_seen(warm: Path, tasks: list[TaskSpec]) -> None:
    """With the words of the other task: its own likeliest label is one of them, whatever it was taught."""
    other = tasks[0].model_copy(update={"name": "unseen", "labels": {"Good": "Fine", "Bad": "Poor"}})
    before = (warm / "scores.json").read_bytes()
    ((folder, scores),) = evaluate_tasks(warm, spec=other, decode="labels")
    assert folder == warm / "evaluations/unseen-dev-labels"
    assert {prediction.value for prediction in Run.open(folder).predictions("dev")} <= {"Fine", "Poor"}
    assert (scores["trained_on"], scores["unreadable"]) == ("films,pairs,stars", 0)
    assert (warm / "scores.json").read_bytes() == before


@pytest.fixture(scope="module")
def reinforced(warm: Path, tasks: list[TaskSpec], able: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reinforced") / "run"
    config = settings("ppo", able, init=str(warm), ppo__batch_size=8, ppo__mini_batch_size=8, data__train_rows=54)
    execute(config, tasks, folder)
    return folder


def test_ppo_logs_the_figures_of_each_task_on_one_scale(reinforced: Path) -> None:
    records = logged(Run.open(reinforced))
    shares = {"films": 18, "pairs": 12, "stars": 24}
    assert records[-1]["prompts"] == 54
    assert {name: sum(record["task"] == name for record in records) for name in shares} == {
        "films": 3,
        "pairs": 2,
        "stars": 3,
    }
    for record in records:
        own = "mean_error" if record["task"] == "stars" else "recall label_entropy sft_loss sft_rows"
        assert sorted(record) == sorted(f"{PPO_KEYS} {own}".split())
        assert set(record.get("recall", ())) == {"films": {"Good", "Bad"}, "pairs": {"No", "Yes", "Maybe"}}.get(
            record["task"], set()
        )
        assert -3 <= record["reward"] <= 1
        if record["task"] == "stars":  # the range is 10: 5 less the distance, divided by 5
            assert record["reward"] == pytest.approx(1 - record["mean_error"] / 5, abs=1e-5) or record["unreadable"] > 0
    assert max(record["reward"] for record in records if record["task"] == "stars") > 0.9


def test_the_reference_of_a_mixture_is_where_it_started(reinforced: Path, warm: Path) -> None:
    assert abs(logged(Run.open(reinforced))[0]["kl"]) < 1e-3
    before, after = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (warm, reinforced))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
