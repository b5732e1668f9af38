"""Train on rewards beyond right and wrong: they are recorded, a failing one stops, and stopped runs go on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews, write_reviews
from folders import content_of
from running import EPOCHS_ALONE, logged
from safetensors.torch import load_file
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import Config, load_config
from adjudge.errors import ConfigError, NotFiniteError, RewardError, RunError
from adjudge.experiments.cells import is_finished, plan_cells
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.runs.folder import Run, read_json
from adjudge.training.checkpoint import load_checkpoint

FILE = """
import os

def length(prompts, completions, gold, **columns):
    if os.path.exists(FLAG) and "number 5" in " ".join(columns["text"]):
        WHAT
    return [min(len(text), 9) / 9 - len(right) / 9 for text, right in zip(completions, gold)]
"""
SETTINGS: dict[str, Any] = {
    **EPOCHS_ALONE,
    "runtime.dtype": "float32",
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "data.train_rows": 12,
    "data.eval_rows": 4,
    "evaluation.resamples": 100,
    **{
        f"{method}.{key}": value
        for method in ("ppo", "rloo", "exact")
        for key, value in (("batch_size", 4), ("epochs", 2))
    },
    "ppo.optimizer.lr": 1e-3,
    "ppo.update_epochs": 1,
    "checkpoint.every_s": None,
}


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Put back what `runtime.threads` sets for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "my.py")


def write(path: Path, what: str = "raise ValueError('no')") -> Path:
    path.write_text(FILE.replace("FLAG", repr(str(path.with_name("flag")))).replace("WHAT", what))
    return path


def settings(model: Path, method: str = "ppo", **more: Any) -> Config:
    values = {key.replace("__", "."): value for key, value in more.items()}
    return load_config(values={**SETTINGS, "model": str(model), "method": method, **values})


def equal(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    return logged(Run.open(one)) == logged(Run.open(other)) and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("method", ["ppo", "rloo", "exact"])
def test_a_function_is_learned_from_and_recorded(method: str, tiny_llama: Path, tmp_path: Path, file: Path) -> None:
    name = f"{file}:length"
    config = settings(tiny_llama, method, **{f"{method}__reward__functions": name})
    scores = execute(config, reviews(tmp_path), tmp_path / "run")
    records = [record for record in logged(Run.open(tmp_path / "run")) if "reward" in record]
    assert records
    assert all(-1 <= record["reward"] <= 1 or method == "exact" for record in records)
    if method != "exact":
        assert all(record["rewards"] == {name: pytest.approx(record["reward"])} for record in records)
    recorded = read_json(tmp_path / "run" / "environment.json")["reward_functions"]
    assert recorded == scores["reward_functions"]
    assert list(recorded) == [name]
    assert len(recorded[name]) == 64


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("raise ValueError('no')", RewardError, r"Step \d: The reward function .*my\.py:length failed at .*my\.py:6"),
        ("return [float('inf')] * len(gold)", NotFiniteError, r"Step \d: the reward function .* returned inf for row"),
        ("return [0.0]", RewardError, "returned 1 rewards for 16 completions"),
    ],
)
def test_a_function_that_fails_stops_before_the_update_and_the_step_replays(
    what: str, kind: type[Exception], message: str, tiny_llama: Path, tmp_path: Path
) -> None:
    file, flag = write(tmp_path / "my.py", what), tmp_path / "flag"
    metric = {"ppo__reward__metric": "macro_f1", "ppo__reward__match_weight": 0.5, "ppo__reward__balance": True}
    config = settings(tiny_llama, ppo__reward__functions=f"{file}:length", **metric)
    spec = reviews(tmp_path)
    flag.touch()
    with pytest.raises(kind, match=message) as first:
        execute(config, spec, tmp_path / "run")
    failure = read_json(tmp_path / "run" / "failure.json")
    assert failure["replays"]
    assert "metric" not in failure["reason"]
    with pytest.raises(kind) as again:
        execute(config, spec, tmp_path / "run", resume=True)
    assert str(again.value) == str(first.value)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    step, state = load_checkpoint(checkpoint)
    assert len(state["rewarder 0"]["window"]) == 4 * 4 * (step - 3), "3 of 6 steps are the warm start"
    if kind is NotFiniteError:  # whatever it was, it is over
        flag.unlink()
        execute(config, spec, tmp_path / "run", resume=True)
        execute(config, spec, tmp_path / "whole")
        assert equal(tmp_path / "whole", tmp_path / "run")


def test_a_run_does_not_go_on_with_a_changed_file(tiny_llama: Path, tmp_path: Path, file: Path) -> None:
    config, spec = settings(tiny_llama, ppo__reward__functions=f"{file}:length"), reviews(tmp_path)
    (tmp_path / "flag").touch()
    with pytest.raises(RewardError):
        execute(config, spec, tmp_path / "run")
    (tmp_path / "flag").unlink()
    whole, before = file.read_text(), content_of(tmp_path / "run")
    file.write_text(f"{whole}\n# another\n")
    with pytest.raises(RunError, match=r"other reward functions .*my\.py:length changed"):
        execute(config, spec, tmp_path / "run", resume=True)
    assert content_of(tmp_path / "run") == before
    file.write_text(whole)
    execute(config, spec, tmp_path / "run", resume=True)
    file.write_text(f"{whole}\n# another\n")
    with pytest.raises(RunError, match="other reward functions"):
        execute(config, spec, tmp_path / "run", resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_function_that_failed_at_the_first_step_can_be_mended(
    resume: bool, tiny_llama: Path, tmp_path: Path, file: Path
) -> None:
    named = {"ppo__reward__functions": f"{file}:length", "ppo__warm_start": 0.0}
    config, spec = settings(tiny_llama, **named), reviews(tmp_path)
    right = file.read_text()
    file.write_text("def length(prompts, completions, **columns):\n    return 1 / 0\n")
    with pytest.raises(RewardError, match="Step 1"):
        execute(config, spec, tmp_path / "run")
    file.write_text(right)
    execute(config, spec, tmp_path / "run", resume=resume)
    assert Run.open(tmp_path / "run").state == "complete"


def test_only_training_runs_the_file(tiny_llama: Path, tmp_path: Path, file: Path) -> None:
    name = f"{file}:length"
    execute(settings(tiny_llama, ppo__reward__functions=name), reviews(tmp_path), tmp_path / "run")
    whole = file.read_text()
    file.write_text("raise SystemExit('this ran')")
    evaluate_run(tmp_path / "run", decode="labels")
    adjudge.open_run(tmp_path / "run").predict(["good film"])
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run")]).exit_code == 0
    with pytest.raises(RunError, match="add --reward-funcs"):
        rerun(tmp_path / "run")
    file.write_text(whole)
    again = rerun(tmp_path / "run", reward_funcs=[name])
    assert all(part.equal for part in compare_runs(tmp_path / "run", again))


def test_a_comparison_makes_its_run_again_when_the_file_changed(tiny_llama: Path, tmp_path: Path, file: Path) -> None:
    spec = reviews(tmp_path)
    config = settings(tiny_llama, ppo__reward__functions=f"{file}:length")
    (cell,) = plan_cells(config, [spec], ["ppo"], [0], tmp_path / "out")
    execute(cell.config, cell.specs, cell.folder)
    assert is_finished(cell)
    file.write_text(f"{file.read_text()}\n# another\n")
    (cell, untouched) = plan_cells(config, [spec], ["ppo", "zero-shot"], [0], tmp_path / "out")
    assert untouched.functions == {}
    with pytest.raises(RunError, match="other reward functions"):
        is_finished(cell)


def test_the_functions_of_python(tiny_llama: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def reward(completions: list[str], gold: list[str]) -> list[float | None]:
        seen.append(len(completions))
        return [None] * len(gold)

    options = {key.replace(".", "__"): value for key, value in SETTINGS.items()}
    task = reviews(tmp_path)
    run = adjudge.train(
        "rloo",
        task,
        model=str(tiny_llama),
        out=tmp_path / "run",
        reward_funcs=[reward],
        rloo__warm_start=0.0,
        **options,
    )
    assert seen == [16] * 6
    assert run.config.rloo.reward.functions == (f"{__file__}:test_the_functions_of_python.<locals>.reward",)
    with pytest.raises(ConfigError, match=r"for methods that learn from rewards .*, not for sft"):
        adjudge.train("sft", task, reward_funcs=[reward])
    with pytest.raises(ConfigError, match="is a list"):
        adjudge.train("ppo", task, reward_funcs=reward)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="wants 'sentiment'"):
        adjudge.train("ppo", task, model="nowhere", reward_funcs=[lambda sentiment: [0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sft", "--reward-funcs", "my.py:length"], "not for sft"),
        (["compare", "--methods", "zero-shot,sft", "--reward-funcs", "my.py:length"], "not for zero-shot, sft"),
        (["train", "ppo", "--reward-funcs", "our.py:length"], "there is no such file"),
        (["train", "ppo", "--reward-funcs", "my.py:width"], "has no 'width'"),
        (["compare", "--methods", "zero-shot,ppo", "--reward-funcs", "my.py:width"], "has no 'width'"),
        (["train", "ppo", "--reward-funcs", "length"], r"write FILE\.py:NAME"),
        (["train", "ppo", "ppo.reward.weights={great: 2}"], "has no label 'great'"),
        (["train", "ppo", "ppo.reward.metric=f1"], "not scored by 'f1'"),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(
    arguments: list[str], message: str, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADJUDGE_TRACEBACK", "1")
    data = ["--data", str(write_reviews(tmp_path / "reviews.csv")), "--text", "text", "--label", "label"]
    result = CliRunner().invoke(app, [*arguments, *data, "--model", "nowhere", "--out", "run"])
    assert isinstance(result.exception, ConfigError), result.output
    assert re.search(message, str(result.exception)), str(result.exception)
    assert not (tmp_path / "run").exists()


def test_each_task_of_a_mixture_has_a_window_that_survives_a_stop(tiny_llama: Path, tmp_path: Path, file: Path) -> None:
    spec = reviews(tmp_path)
    specs = [spec, spec.model_copy(update={"name": "second"})]
    more = {"ppo__reward__metric": "macro_f1", "ppo__reward__functions": f"{file}:length"}
    config = settings(tiny_llama, **more, data__train_rows=24)
    execute(config, specs, tmp_path / "whole")
    records = [record for record in logged(Run.open(tmp_path / "whole")) if "reward" in record]
    assert {record["task"] for record in records} == {spec.name, "second"}
    (tmp_path / "flag").touch()
    with pytest.raises(RewardError):
        execute(config, specs, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    step, state = load_checkpoint(checkpoint)
    answers = [len(state[f"rewarder {task}"]["window"]) for task in range(2)]
    assert sum(answers) == (step - 6) * 4 * 4, "6 of 12 steps are the warm start"
    (tmp_path / "flag").unlink()
    execute(config, specs, tmp_path / "run", resume=True)
    assert equal(tmp_path / "whole", tmp_path / "run")


def test_a_metric_without_window_is_not_for_a_method_that_samples_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    more = {"exact__reward__metric": "accuracy", "exact__reward__metric_window": 0}
    with pytest.raises(ConfigError, match="metric_window"):
        execute(settings(tiny_llama, "exact", **more), reviews(tmp_path), tmp_path / "run")


def test_the_settings_of_a_run_hold_its_rewards(tiny_llama: Path, tmp_path: Path) -> None:
    weights = {"good": 2.0, "bad": 1.0}
    execute(settings(tiny_llama, ppo__reward__weights=weights), reviews(tmp_path), tmp_path / "run")
    assert Run.open(tmp_path / "run").config.ppo.reward.weights == weights
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "complete"
