"""Methods that learn from a reward model: what they learn, what is recorded, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny, tiny_llama_config
from fake_method import reviews
from policies import watched_loads
from running import logged, tiny_run

from adjudge.config import load_config
from adjudge.config.methods import own_group
from adjudge.errors import ConfigError, GuardError, RunError
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.methods import rewarding
from adjudge.rollout import collect
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.training import watch
from adjudge.types import Judgement


def values_of(method: str, model: Path, **values: Any) -> dict[str, Any]:
    own = {"data__eval_rows": 4, f"{own_group(method)}__optimizer__lr": 3e-3}
    return tiny_run(method, model, **{**own, **values})


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    return reviews(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(able: Path, spec: TaskSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a reward model's run."""
    folder = tmp_path_factory.mktemp("model") / "rm"
    values = values_of("reward-model", able, reward_model__epochs=6, reward_model__head_lr=1e-2)
    execute(load_config(values=values), spec, folder)
    return folder


def config_of(method: str, able: Path, model: Path | str, kind: str = "learned", **values: Any) -> Any:
    rewarded = {f"{method}.reward.kind": kind, f"{method}.reward.model": str(model)}
    return load_config(values={**values_of(method, able, **values), **rewarded})


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def with_accuracy(folder: Path, accuracy: float | None) -> None:
    training = json.loads((folder / "training.json").read_text())
    del training["pair_accuracy"]
    if accuracy is not None:
        training["pair_accuracy"] = accuracy
    (folder / "training.json").write_text(json.dumps(training))


@pytest.mark.parametrize(
    ("method", "kind"),
    [("ppo", "learned"), ("reinforce", "mixed"), ("rloo", "learned"), ("grpo", "mixed"), ("exact", "learned")],
)
def test_every_method_with_rewards_learns_from_it(
    method: str, kind: str, able: Path, model: Path, spec: TaskSpec, tmp_path: Path
) -> None:
    values = {f"{method}__epochs": 1, "data__train_rows": 8}
    execute(config_of(method, able, model, kind, **values), spec, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    recorded = run.scores()["reward_model"]
    assert recorded["folder"] == str(model) and recorded["pair_accuracy"] == {spec.name: 1.0}
    assert len(recorded["sha256"]["value_head.safetensors"]) == 64
    assert json.loads((run.folder / "environment.json").read_text())["reward_model"] == recorded
    if method != "exact":
        assert "learned" in logged(run)[-1]["rewards"]


def knows(task: PromptedTask, prompts: Sequence[Sequence[int]], golds: dict[tuple[int, ...], Any]) -> torch.Tensor:
    return torch.tensor([[7.0 * (word == golds[tuple(ids)]) - 3 for word in task.spec.words] for ids in prompts])


@pytest.mark.parametrize("method", ["ppo", "reinforce"])
def test_a_model_that_knows_the_gold_answers_teaches_what_right_and_wrong_teach(
    method: str, able: Path, model: Path, spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golds: dict[tuple[int, ...], Any] = {}
    real = rewarding.prompt_rows

    def rows_of(task: PromptedTask, examples: Any) -> Any:
        rows = real(task, examples)
        golds.update({tuple(row.ids): row.example.gold for row in rows})
        return rows

    monkeypatch.setattr(rewarding, "prompt_rows", rows_of)
    monkeypatch.setattr(rewarding, "label_rewards", lambda task, prompts: knows(task, prompts, golds))
    # A random model hardly writes a label: its answers are read as one, by their length.
    read = lambda text, spec, stop: Judgement(text, spec.words[len(text) % len(spec.words)])  # noqa: E731
    monkeypatch.setattr(collect, "read_answer", read)
    plain = load_config(values={**values_of(method, able), f"{method}.reward.balance": False})
    execute(plain, spec, tmp_path / "match")
    execute(config_of(method, able, model), spec, tmp_path / "learned")
    match, learned = logged(Run.open(tmp_path / "match")), logged(Run.open(tmp_path / "learned"))
    assert any(record.get("right", 0) > 0 for record in match)
    for one, other in zip(match, learned, strict=True):
        for name in ("reward", "policy_loss", "grad_norm", "right"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-4)


def test_the_model_is_read_once_and_not_changed(
    able: Path, model: Path, spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    calls: list[int] = []
    real = rewarding.label_rewards
    monkeypatch.setattr(
        rewarding, "label_rewards", lambda task, prompts: (calls.append(len(prompts)), real(task, prompts))[1]
    )
    execute(config_of("ppo", able, model), spec, tmp_path / "run")
    assert calls == [20]
    assert before == {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}


def test_the_model_is_gone_before_the_first_step(
    able: Path, model: Path, spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, alive = Run.log, []

    def log(self: Run, *given: Any, **named: Any) -> None:
        alive.append(loads.alive)
        real(self, *given, **named)

    monkeypatch.setattr(Run, "log", log)
    with watched_loads("adjudge.methods.rewarding") as loads:
        values = {"ppo__epochs": 1, "data__train_rows": 8}
        execute(config_of("ppo", able, model, **values), spec, tmp_path / "run")
    assert len(loads.weights) == 1 and alive and not any(alive)


def test_a_rerun_is_equal_and_checks_the_model(able: Path, copy: Path, spec: TaskSpec, tmp_path: Path) -> None:
    execute(config_of("rloo", able, copy), spec, tmp_path / "run")
    again = rerun(tmp_path / "run", tmp_path / "again")
    assert all(part.equal for part in compare_runs(tmp_path / "run", again))
    head = copy / "adapter" / "value_head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"learned from the reward model in .*, which has changed since"):
        rerun(tmp_path / "run", tmp_path / "third")


def test_a_stopped_run_does_not_go_on_with_another_model(
    able: Path, copy: Path, spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("ppo", able, copy, checkpoint__every_steps=1)
    real, calls = Run.log, []

    def log(self: Run, *given: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *given, **named)

    monkeypatch.setattr(Run, "log", log)
    with pytest.raises(KeyboardInterrupt):
        execute(config, spec, tmp_path / "run")
    head = copy / "adapter" / "value_head.safetensors"
    original = head.read_bytes()
    head.write_bytes(original[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"holds a run of another reward model \(.*copy changed\)"):
        execute(config, spec, tmp_path / "run", resume=True)
    head.write_bytes(original)
    assert execute(config, spec, tmp_path / "run", resume=True)["n"] == 4


def test_a_weak_model_serves_nobody(able: Path, copy: Path, spec: TaskSpec, tmp_path: Path) -> None:
    with_accuracy(copy, 0.59)
    with pytest.raises(RunError, match=r"rates 0.59 of its held-out pairs of reviews in the right order"):
        execute(config_of("ppo", able, copy), spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with_accuracy(copy, 0.6)
    execute(config_of("ppo", able, copy, data__train_rows=8, ppo__epochs=1), spec, tmp_path / "run")


def test_a_run_that_learns_no_reward_is_none(able: Path, copy: Path, spec: TaskSpec, tmp_path: Path) -> None:
    with_accuracy(copy, None)
    with pytest.raises(RunError, match=r"which learns no reward. Name a run of adjudge train reward-model"):
        execute(config_of("ppo", able, copy), spec, tmp_path / "run")
    (copy / "state.json").unlink(missing_ok=True)
    with pytest.raises(RunError, match="nowhere is no run folder"):
        execute(config_of("ppo", able, tmp_path / "nowhere"), spec, tmp_path / "run")


def test_a_model_of_another_task_is_refused(able: Path, model: Path, spec: TaskSpec, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"rates answers to reviews, not to other. Train one on it"):
        execute(config_of("ppo", able, model), spec.model_copy(update={"name": "other"}), tmp_path / "run")
    asked = spec.model_copy(update={"instruction": "Is it bad?"})
    with pytest.raises(RunError, match="was trained on another version of reviews"):
        execute(config_of("ppo", able, model), asked, tmp_path / "run")


def test_a_model_on_another_base_is_refused(model: Path, spec: TaskSpec, tmp_path: Path) -> None:
    other = save_tiny(tiny_llama_config(), tmp_path / "llama")
    with pytest.raises(RunError, match=r"is not the model that .* was made with"):
        execute(config_of("ppo", other, model), spec, tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "learned"}, r"reward.kind=learned needs reward.model=RUN"),
        ({"model": "runs/rm"}, r"reward.model=runs/rm is not read with reward.kind=match"),
        ({"kind": "learned", "model": "runs/rm", "match_weight": 1.0}, r"reward.match_weight weighs right and wrong"),
        ({"kind": "learned", "model": "runs/rm", "costs": {"good": {"bad": -4.0}}}, r"reward.costs weighs right and"),
    ],
)
def test_settings_that_do_not_go_together(
    values: dict[str, Any], message: str, able: Path, spec: TaskSpec, tmp_path: Path
) -> None:
    given = {f"ppo.reward.{name}": value for name, value in values.items()}
    with pytest.raises(ConfigError, match=message):
        execute(load_config(values={**values_of("ppo", able), **given}), spec, tmp_path / "run")


def test_numbers_have_no_learned_reward(able: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward.kind=learned is for labels, but vader/movies-rating"):
        execute(config_of("ppo", able, model), load_task("vader/movies-rating"), tmp_path / "run")


def test_a_score_that_rises_while_right_answers_fall_stops_the_run(
    able: Path, model: Path, spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is taught by a model of the wrong answers."""
    golds: dict[tuple[int, ...], Any] = {}
    real = rewarding.prompt_rows

    def rows_of(task: PromptedTask, examples: Any) -> Any:
        rows = real(task, examples)
        golds.update({tuple(row.ids): row.example.gold for row in rows})
        return rows

    monkeypatch.setattr(rewarding, "prompt_rows", rows_of)
    monkeypatch.setattr(rewarding, "label_rewards", lambda task, prompts: -knows(task, prompts, golds))
    monkeypatch.setattr(watch, "WINDOW", 16)
    values = {"guard__stop_on": ["score"], "ppo__epochs": 40, "ppo__warm_start": 0.3, "ppo__kl_init": 0.0}
    with pytest.raises(GuardError, match=r"the learned reward rose from .* while the share of right answers fell"):
        execute(config_of("ppo", able, model, **values), spec, tmp_path / "run")
