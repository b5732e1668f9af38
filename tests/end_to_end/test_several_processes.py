"""Test training in several processes (gloo on the CPU): equal weights everywhere, and equal to one process."""

from __future__ import annotations

import filecmp
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from trained_worlds import command_in, compare_with_one, settings, weights
from worlds import printed, run_world

from adjudge.config import Config
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run, read_json
from adjudge.system import parallel
from adjudge.tasks.spec import TaskSpec

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
CASES = [
    ("sft", {}),
    ("ppo", {}),
    (
        "ppo",
        {"ppo__values": "critic", "ppo__samples": 1, "answer__min_tokens": 2, "ppo__warm_start": 0.0}
        | {"ppo__sft_weight": 1.0},
    ),
    (
        "ppo",
        {"ppo__values": "vine", "ppo__vine__split": "tokens", "ppo__vine__steps": 1, "ppo__vine__rollouts": 2}
        | {"ppo__samples": 1, "ppo__epochs": 1, "prompt__analysis": "before", "answer__analysis_tokens": 2},
    ),
    ("grpo", {"grpo__mini_batch_size": 3, "grpo__samples": 3}),
    ("critique-grpo", {"critique_grpo__samples": 2}),
    ("exact", {}),
    ("tdpo", {}),
    ("reward-model", {}),
]


@pytest.mark.parametrize("cases", [CASES[:5], CASES[5:]], ids=["sft to grpo", "critique-grpo to reward-model"])
def test_two_processes_give_the_weights_of_one(
    cases: list[tuple[str, dict[str, Any]]], able: Path, tmp_path: Path
) -> None:
    compare_with_one(cases, able, tmp_path)


EQUAL = ("metrics.jsonl", "predictions/dev.jsonl", "adapter/adapter_model.safetensors")


@pytest.fixture
def whole(able: Path, tmp_path: Path) -> tuple[Config, TaskSpec, Path]:
    """A run of two processes that nothing happened to."""
    spec, config = reviews(tmp_path), settings("sft", able, **{"data__train_rows": 20, "lora__dropout": 0.1})
    codes = run_world(2, command_in, tmp_path / "whole", config, spec, False, None, folder=tmp_path / "world")
    assert codes == [0, 0], printed(tmp_path / "world")
    return config, spec, tmp_path / "whole"


def test_stopped_and_resumed_by_as_many_processes_or_by_one(
    whole: tuple[Config, TaskSpec, Path], tmp_path: Path
) -> None:
    config, spec, before = whole
    assert read_json(before / "environment.json")["processes"] == 2
    for name, again in (("two", 2), ("alone", 1)):
        out, world = tmp_path / name, tmp_path / f"world-{name}"
        codes = run_world(2, command_in, out, config, spec, False, 3, folder=world)
        assert 0 not in codes, printed(world)
        assert Run.open(out).state == "interrupted", printed(world)
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000003"]
        codes = run_world(again, command_in, out, config, spec, True, None, folder=tmp_path / f"again-{name}")
        assert codes == [0] * again, printed(tmp_path / f"again-{name}")
        assert "resuming after step 3" in printed(tmp_path / f"again-{name}")[0]
    assert filecmp.cmpfiles(before, tmp_path / "two", EQUAL, shallow=False) == (list(EQUAL), [], [])
    assert read_json(tmp_path / "alone/environment.json")["resumed"][0]["changed"] == ["processes 2 → none"]
    assert sorted(path.name for path in before.iterdir()) == sorted(path.name for path in (tmp_path / "two").iterdir())


def test_when_a_process_dies_the_others_say_so_and_nothing_is_lost(able: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("sft", able, **{"data__train_rows": 20, "checkpoint__every_steps": 1})
    killed = (config, spec, False, 2, signal.SIGKILL)
    codes = run_world(2, command_in, tmp_path / "run", *killed, folder=tmp_path / "world")
    assert codes == [1, -signal.SIGKILL]
    said = printed(tmp_path / "world")[0]
    assert "process 0 of 2: another process has ended" in said
    assert "--resume goes on" in said
    assert Run.open(tmp_path / "run").state == "failed"
    assert list((tmp_path / "run/checkpoints").glob("step-*"))
    codes = run_world(2, command_in, tmp_path / "run", config, spec, True, None, folder=tmp_path / "again")
    assert codes == [0, 0], printed(tmp_path / "again")


def test_more_processes_than_rows_are_refused(able: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("sft", able, **{"data__train_rows": 1})
    assert run_world(2, command_in, tmp_path / "run", config, spec, False, None, folder=tmp_path / "a") == [1, 1]
    assert "There are 2 processes and only 1 rows to share" in printed(tmp_path / "a")[0]
    assert not (tmp_path / "run").exists()
    config = settings("sft", able, **{"data__train_rows": 8, "sft__batch_size": 1})
    assert run_world(2, command_in, tmp_path / "run", config, spec, False, None, folder=tmp_path / "b") == [1, 1]
    assert "sft.batch_size is 1, fewer than the 2 processes" in printed(tmp_path / "b")[0]


@pytest.mark.parametrize(
    ("named", "engine"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP of version 1"),
        ({"ACCELERATE_USE_FSDP": "1", "FSDP_VERSION": "1"}, "FSDP of version 1"),
    ],
)
def test_an_engine_that_is_not_here_is_refused(
    named: dict[str, str], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adjudge.errors import ConfigError

    for variable, value in named.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"asks for {engine}, which .*runtime.shard_base=true"), parallel.joined():
        pass


def fail_in_second(folder: Path, config: Config, spec: TaskSpec, where: str) -> None:
    """Train, with logits that are not finite in the second process alone."""
    from adjudge.errors import NotFiniteError
    from adjudge.rollout import sampler
    from adjudge.training import updates

    module, name = {"sampling": (sampler, "choose"), "update": (updates, "check_finite")}[where]
    real = getattr(module, name)

    def failing(*arguments: Any) -> Any:
        if parallel.rank() == 1:
            raise NotFiniteError("the figures of one process are not finite")
        return real(*arguments)

    setattr(module, name, failing)
    execute(config, spec, folder)


@pytest.mark.parametrize("where", ["sampling", "update"])
def test_an_error_in_one_process_is_that_of_all(where: str, able: Path, tmp_path: Path) -> None:
    more = {"ppo__warm_start": 0.0, "ppo__samples": 1, "ppo__values": "critic", "data__train_rows": 20}
    spec, config = reviews(tmp_path), settings("ppo", able, **more)
    codes = run_world(2, fail_in_second, tmp_path / "run", config, spec, where, folder=tmp_path / "world")
    assert codes == [1, 1]
    for said in printed(tmp_path / "world"):
        assert "NotFiniteError: Step 1: the figures of one process are not finite" in said
    assert read_json(tmp_path / "run/failure.json")["step"] == 1
    assert list((tmp_path / "run/checkpoints").glob("step-*")), "the step can be repeated"


def test_an_encoder_is_trained_by_several_processes(tiny_bert: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("encoder", tiny_bert, **{"data__train_rows": 15})
    codes = run_world(2, command_in, tmp_path / "run", config, spec, False, None, folder=tmp_path / "world")
    assert codes == [0, 0], printed(tmp_path / "world")
    assert Run.open(tmp_path / "run").scores()["n"] == 8
    assert weights(tmp_path / "run")
