"""Reward models of answers with an analysis before the judgement, and the policies that learn from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from kill import differing
from running import EPOCHS_ALONE, logged

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.execute import execute
from adjudge.rollout import collect
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every answer of a random model be read as one of the labels, by its length."""

    def read(text: str, spec: TaskSpec, stop: str) -> Judgement:
        return Judgement(text, spec.words[len(text) % len(spec.words)])

    monkeypatch.setattr(collect, "read_answer", read)


def values_of(method: str, model: Path, **values: Any) -> dict[str, Any]:
    group = method.replace("-", "_")
    return {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "prompt.analysis": "before",
        "answer.analysis_tokens": 6,
        "answer.max_tokens": 4,
        "data.train_rows": 16,
        "data.eval_rows": 2,
        "evaluation.resamples": 100,
        f"{group}.batch_size": 4,
        f"{group}.epochs": 1,
        f"{group}.optimizer.lr": 3e-3,
        **{key.replace("__", "."): value for key, value in values.items()},
    }


def trained(method: str, model: Path, folder: Path, name: str, **values: Any) -> Run:
    execute(load_config(values=values_of(method, model, **values)), reviews(folder), folder / name)
    return Run.open(folder / name)


def good(run: Run) -> str:
    """Let a reward model be good enough, and return its folder."""
    path = run.folder / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pair_accuracy": 1.0}))
    return str(run.folder)


@pytest.mark.parametrize("kind", ["label", "rationale"])
def test_a_policy_learns_from_what_its_analyses_earn(kind: str, able: Path, tmp_path: Path, readable: None) -> None:
    run = trained("reward-model", able, tmp_path, "rm", reward_model__pairs=kind, reward_model__samples=6)
    first, *_ = logged(run)
    assert first["loss"] == pytest.approx(math.log(2), rel=0.5) and first["pairs"] + first["ties"] in (2, 4)
    scores = run.scores()
    assert scores["pair_kind"] == kind and scores["held_out_pairs"] in (0, 1, 2)
    rewarded = {"ppo__reward__kind": "mixed", "ppo__reward__model": good(run)}
    policy = trained("ppo", able, tmp_path, "ppo", **rewarded)
    assert all(abs(record["rewards"]["learned"]) < 4 for record in logged(policy))
    assert policy.scores()["reward_model"]["folder"] == str(run.folder)


def test_a_stopped_run_goes_on_to_the_same_result(
    able: Path, tmp_path: Path, readable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPO on analyses, and PPO on a learned reward, are killed in the kill tests."""
    method, values = "reward-model", {"checkpoint__every_steps": 1}
    whole = trained(method, able, tmp_path, "whole", **values)
    real, calls = Run.log, []

    def log(self: Run, *given: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, *given, **named)

    monkeypatch.setattr(Run, "log", log)
    config = load_config(values=values_of(method, able, **values))
    with pytest.raises(KeyboardInterrupt):
        execute(config, reviews(tmp_path), tmp_path / "run")
    execute(config, reviews(tmp_path), tmp_path / "run", resume=True)
    assert differing(whole.folder, tmp_path / "run") == []


def test_what_does_not_fit_is_refused(able: Path, tmp_path: Path, readable: None) -> None:
    with pytest.raises(ConfigError, match=r"pairs=rationale compares analyses before the judgement"):
        trained("reward-model", able, tmp_path, "a", prompt__analysis=False, reward_model__pairs="rationale")
    model = good(
        trained("reward-model", able, tmp_path, "rm", reward_model__pairs="rationale", reward_model__samples=6)
    )
    given = {"ppo__reward__kind": "learned", "ppo__reward__model": model}
    with pytest.raises(ConfigError, match=r"rates analyses, and no label"):
        trained("ppo", able, tmp_path, "b", **given)
    with pytest.raises(RunError, match=r"rates answers with an analysis before the judgement"):
        trained("ppo", able, tmp_path, "c", prompt__analysis=False, **given)


def test_no_two_right_answers_is_an_error(able: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"None of the 16 rows has a pair: no two analyses of a row led to the right"):
        trained("reward-model", able, tmp_path, "run", reward_model__pairs="rationale")
