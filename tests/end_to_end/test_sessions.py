"""Test what a training loop does besides learning.

It stops before it does harm, saves the batch for a replay, keeps the best weights, and obeys the guards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from running import EPOCHS_ALONE, PLAIN_PPO, logged
from safetensors.torch import load_file

from adjudge.config import Config, load_config
from adjudge.errors import ConfigError, GuardError, NotFiniteError, RunError
from adjudge.evaluation.validation import hold_out
from adjudge.experiments.execute import execute
from adjudge.methods import base_loop
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.training import updates
from adjudge.training.checkpoint import load_checkpoint
from adjudge.training.mixture import TaskRows
from adjudge.training.session import Session
from adjudge.training.state import Carried, trained_weights
from adjudge.types import Example

SETTINGS = {
    **EPOCHS_ALONE,
    "runtime.dtype": "float32",
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "data.train_rows": 24,
    "data.eval_rows": 8,
    "evaluation.resamples": 100,
    "sft.batch_size": 4,
    **PLAIN_PPO,
    "ppo.batch_size": 4,
    "ppo.mini_batch_size": 4,
    "ppo.optimizer.lr": 1e-3,
}


def settings(model: Path, method: str, **more: Any) -> Config:
    return load_config(
        values={**SETTINGS, "model": str(model), "method": method, **{k.replace("__", "."): v for k, v in more.items()}}
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Put back what `runtime.threads` sets for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bad_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a gradient of a step's last update not finite."""

    def spoil(method: str, step: int) -> None:
        updates_per_step = 1 if method == "sft" else 2
        real, left = updates.clip_gradients, [updates_per_step * step]

        def spoilt(parameters: Any, limit: float | None) -> float:
            parameters = list(parameters)
            left[0] -= 1
            if left[0] == 0:
                left[0] = updates_per_step  # a resumed run begins with the failed step
                next(p for p in parameters if p.grad is not None).grad.fill_(float("nan"))
            return float(real(parameters, limit))

        monkeypatch.setattr(updates, "clip_gradients", spoilt)

    return spoil


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_a_value_that_is_not_finite_leaves_the_step_to_replay(
    method: str, bad_at: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    """PPO fails in the second update of its step: the first is undone, so that the whole step replays."""
    spec, config = reviews(tmp_path), settings(tiny_llama, method, checkpoint__every_s=None)
    bad_at(method, 4)
    with pytest.raises(NotFiniteError, match="Step 4: the gradient") as first:
        execute(config, spec, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    failure = read_json(run.folder / "failure.json")
    assert run.state == "failed"
    assert (failure["step"], failure["replays"], len(failure["rows"])) == (4, True, 4)
    assert all(row.startswith("reviews.csv:") for row in failure["rows"])
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-00000003"]
    assert [record["step"] for record in logged(run)] == [1, 2, 3]
    with pytest.raises(NotFiniteError) as again:
        execute(config, spec, run.folder, resume=True)
    assert str(again.value) == str(first.value)
    assert read_json(run.folder / "failure.json") == failure, "the same batch"


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_after_a_failed_step_the_run_ends_as_if_it_had_not_failed(
    method: str, bad_at: Any, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, config = reviews(tmp_path), settings(tiny_llama, method)
    execute(config, spec, tmp_path / "whole")
    bad_at(method, 4)
    with pytest.raises(NotFiniteError):
        execute(config, spec, tmp_path / "run")
    monkeypatch.undo()  # whatever it was, it does not happen again
    execute(config, spec, tmp_path / "run", resume=True)
    assert logged(Run.open(tmp_path / "run")) == logged(Run.open(tmp_path / "whole"))
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_weights_that_are_not_finite_are_never_a_result(tiny_llama: Path, tmp_path: Path) -> None:
    one_update = {
        "sft__optimizer__lr": 3.4e38,
        "sft__optimizer__warmup_share": 0.0,
        "sft__batch_size": 24,
        "sft__epochs": 1,
    }
    with pytest.raises(NotFiniteError, match="the adapter has weights that are not finite"):
        execute(settings(tiny_llama, "sft", **one_update), reviews(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()


def test_held_out_rows_choose_the_weights(tiny_llama: Path, tmp_path: Path) -> None:
    more = {
        "checkpoint__validate_every": 2,
        "checkpoint__validation_rows": 8,
        "sft__epochs": 3,
        "sft__optimizer__lr": 3e-3,
    }
    spec = reviews(tmp_path)
    execute(settings(tiny_llama, "sft", **more), spec, tmp_path / "last")
    scores = execute(settings(tiny_llama, "sft", **more, checkpoint__use="best"), spec, tmp_path / "best")
    found = list(read_jsonl(tmp_path / "best" / "validation.jsonl"))
    assert [record["step"] for record in found] == [2, 4, 6, 8, 10, 12], (
        "16 rows are left, and the last step is judged too"
    )
    assert scores["train_rows"] == 24
    assert list(read_jsonl(tmp_path / "last" / "validation.jsonl")) == found
    best = max(found, key=lambda record: record["value"])  # of equals, the first
    step, state = load_checkpoint(tmp_path / "best" / "checkpoints" / "best")
    assert (step, state["value"]) == (best["step"], best["value"])
    kept = weights(tmp_path / "best")
    assert len(kept) == len(state["trained"]) - 2  # the value head lies in a file of its own
    by_name = {name.replace(".default", "").removeprefix("lm."): value for name, value in state["trained"].items()}
    assert all(torch.equal(kept[name], by_name[name]) for name in kept)


def test_rows_held_out_are_no_rows_to_train_on() -> None:
    spec_rows = [Example(f"r:{place}", {"text": str(place)}, "good") for place in range(10)]
    from specs import label_task

    part = TaskRows(label_task("bad", "good"), spec_rows)
    config = Config().checkpoint.model_copy(update={"validate_every": 1, "validation_rows": 4})
    (left,), (held,) = hold_out([part], config, 0)
    assert len(held) == 4
    assert sorted(row.id for row in [*left.rows, *held]) == sorted(row.id for row in spec_rows)
    assert hold_out([part], Config().checkpoint, 0) == ([part], [[]])
    with pytest.raises(ConfigError, match="Hold out fewer"):
        hold_out([part], config.model_copy(update={"validation_rows": 6}), 0)


def test_a_guard_stops_when_asked_and_resuming_goes_on_all_the_same(tiny_llama: Path, tmp_path: Path) -> None:
    """All answers of a random model are unreadable; batches of 16 give 128 of them in 8 steps.

    The held-out rows are judged after the step in which a guard stops, too.
    """
    more = {"ppo__epochs": 10, "ppo__batch_size": 16, "ppo__mini_batch_size": 16, "checkpoint__every_s": None}
    more |= {"checkpoint__validate_every": 2, "checkpoint__validation_rows": 8, "checkpoint__use": "best"}
    spec = reviews(tmp_path)
    execute(settings(tiny_llama, "ppo", **more), spec, tmp_path / "whole")
    config = settings(tiny_llama, "ppo", **more, guard__stop_on=("unreadable",))
    with pytest.raises(
        GuardError, match=r"of the last 128 sampled answers are unreadable\. The run stopped, as guard\.stop_on demands"
    ):
        execute(config, spec, tmp_path / "run")
    assert "step-00000008" in [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(logged(Run.open(tmp_path / "run"))) == 8
    execute(config, spec, tmp_path / "run", resume=True)
    assert logged(Run.open(tmp_path / "run")) == logged(Run.open(tmp_path / "whole"))
    found, wanted = (list(read_jsonl(tmp_path / name / "validation.jsonl")) for name in ("run", "whole"))
    assert found == wanted
    assert [record["step"] for record in found] == [2, 4, 6, 8, 10]


def test_a_log_that_was_changed_is_not_gone_on_with(tiny_llama: Path, tmp_path: Path, bad_at: Any) -> None:
    spec, config = reviews(tmp_path), settings(tiny_llama, "sft")
    bad_at("sft", 4)
    with pytest.raises(NotFiniteError):
        execute(config, spec, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match=r"metrics\.jsonl has 0 bytes"):
        execute(config, spec, tmp_path / "run", resume=True)


@pytest.mark.parametrize("what", ["model", "version"])
def test_a_checkpoint_of_something_else_is_refused(what: str, tiny_llama: Path, tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    parts = {
        "trained": trained_weights(layer),
        "optimizer": Carried(dict, lambda _: None),
        "scheduler": Carried(dict, lambda _: None),
    }
    with Run.create(tmp_path / "run", Config()) as run, Session(run, parts) as session:
        session.save()
    with pytest.raises(RunError):
        assert run.state == "complete"
        run.set_state("interrupted")
        again = Run.create(tmp_path / "run", Config(), resume=True)
        other = (
            {"trained": trained_weights(torch.nn.Linear(3, 2))}
            if what == "model"
            else {"more": Carried(dict, lambda _: None)}
        )
        with again, Session(again, {**parts, **other}):
            pass
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_a_step_that_was_through_is_not_done_twice(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging the held-out rows fails after an update.

    The run resumes from the checkpoint before, not from the step whose update is already made.
    """
    spec, more = (
        reviews(tmp_path),
        {"checkpoint__validate_every": 3, "checkpoint__validation_rows": 8, "checkpoint__every_steps": 2},
    )
    execute(settings(tiny_llama, "sft", **more), spec, tmp_path / "whole")

    def failing(*_: Any) -> Any:
        def validate() -> Any:
            raise NotFiniteError("the logits are not finite.")

        return validate

    monkeypatch.setattr(base_loop, "validator", failing)
    with pytest.raises(NotFiniteError):
        execute(settings(tiny_llama, "sft", **more), spec, tmp_path / "run")
    assert read_json(tmp_path / "run" / "failure.json")["replays"] is False
    monkeypatch.undo()
    execute(settings(tiny_llama, "sft", **more), spec, tmp_path / "run", resume=True)
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not (tmp_path / "run" / "failure.json").exists()


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    parts = {
        "trained": trained_weights(layer),
        "optimizer": Carried(dict, lambda _: None),
        "scheduler": Carried(dict, lambda _: None),
    }
    with Run.create(tmp_path / "run", Config()) as run, Session(run, parts) as session:
        session.save()
        session.step = 1
        with torch.no_grad():
            layer.weight[0, 0] = float("nan")
        session.save()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000000"]
