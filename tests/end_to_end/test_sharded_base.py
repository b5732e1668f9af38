"""Test training with the frozen base divided over processes: the weights are those of one that has all of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from trained_worlds import SETTINGS, TOLERANCE, command_in, compare_with_one, largest_difference, settings, weights
from worlds import printed, run_world

from adjudge.config import Config, load_config
from adjudge.experiments.execute import execute, run_settings
from adjudge.methods.registry import get_entry
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.ship.export import export_judge
from adjudge.system import parallel
from adjudge.system.files import write_json
from adjudge.tasks import load_split
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
DIVIDED: dict[str, Any] = {"runtime__shard_base": True}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sft", {}),
    ("sft", {"runtime__checkpoint_activations": True, "sft__micro_batch_size": 2}),
    ("ppo", {"ppo__micro_batch_size": 2}),
    ("ppo", {"ppo__values": "critic", "ppo__samples": 1, "answer__min_tokens": 2, "ppo__warm_start": 0.0}),
    (
        "ppo",
        {"ppo__values": "vine", "ppo__vine__split": "tokens", "ppo__vine__steps": 1, "ppo__vine__rollouts": 2}
        | {"ppo__samples": 1, "ppo__epochs": 1, "prompt__analysis": "before", "answer__analysis_tokens": 2},
    ),
    ("grpo", {"grpo__mini_batch_size": 3, "grpo__samples": 3}),
    ("exact", {}),
    ("spin", {"spin__iterations": 1}),
    ("reward-model", {}),
    ("head", {}),
    ("swie", {}),
]


@pytest.mark.parametrize("cases", [CASES[:5], CASES[5:]], ids=["sft and ppo", "grpo to swie"])
def test_two_processes_with_half_of_the_base_give_the_weights_of_one(
    cases: list[tuple[str, dict[str, Any]]], able: Path, tmp_path: Path
) -> None:
    compare_with_one([(method, {**values, **DIVIDED}) for method, values in cases], able, tmp_path)
    assert "divided over 2 processes" in printed(tmp_path / "world")[0]


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("linear", {"linear.states": "policy"}),
    ("few-shot", {}),
    ("prp", {}),
    ("gepa-edits", {"gepa_edits.calls": 20}),
]


def ask_each(folders: list[Path], configs: list[Config], spec: TaskSpec) -> None:
    """Judge the task's rows with each method, in a folder of this process's own."""
    with parallel.joined():
        for config in configs:
            run = Run.create(folders[parallel.rank()] / config.method, config)
            part = TaskRows(spec, load_split(spec, "train")[:15])
            judge = get_entry(config.method).load().train(run, [part]).judges[0]
            run.write_predictions("dev", judge.judge(load_split(spec, "dev")))


def test_what_only_asks_a_divided_base_judges_as_with_the_whole_one(able: Path, tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    values = {**SETTINGS, "model": str(able), "runtime.shard_base": True}
    configs = [run_settings(load_config(values={**values, "method": method, **more}), [spec]) for method, more in ASKED]
    folders, world = [tmp_path / name for name in ("first", "second", "one")], tmp_path / "world"
    assert run_world(2, ask_each, folders, configs, spec, folder=world) == [0, 0], printed(world)
    ask_each(folders[2:], configs, spec)
    for method, _ in ASKED:
        first, second, one = ([*read_jsonl(folder / method / "predictions/dev.jsonl")] for folder in folders)
        assert len(first) == 8
        assert first == second, method
        assert [row["value"] for row in first] == [row["value"] for row in one], method


def test_a_reward_model_whose_base_is_divided_rates_in_the_first_process(able: Path, tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    model = settings("reward-model", able, **DIVIDED, **{"data__train_rows": 20, "guard__stop_on": ()})
    world = tmp_path / "world"
    assert run_world(2, command_in, tmp_path / "rm", model, spec, False, None, folder=world) == [0, 0], printed(world)
    training = read_json(tmp_path / "rm/training.json")
    write_json(tmp_path / "rm/training.json", training | {"pair_accuracy": 0.9})  # a tiny model learns no order
    reward = {"ppo__reward__model": str(tmp_path / "rm"), "ppo__reward__kind": "learned"}
    more = {**reward, "data__train_rows": 15, "ppo__values": "critic"}
    for name, number in (("two", 2), ("one", 1)):
        config = settings("ppo", able, **DIVIDED, **more)
        codes = run_world(number, command_in, tmp_path / name, config, spec, False, None, folder=tmp_path / f"w-{name}")
        assert codes == [0] * number, printed(tmp_path / f"w-{name}")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < TOLERANCE


def test_stopped_and_resumed_by_two_processes_or_by_one_with_the_whole_base(able: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("sft", able, **DIVIDED, **{"data__train_rows": 20})
    codes = run_world(2, command_in, tmp_path / "whole", config, spec, False, None, folder=tmp_path / "world")
    assert codes == [0, 0], printed(tmp_path / "world")
    plain = settings("sft", able, **{"data__train_rows": 20})
    for name, again, after in (("two", 2, config), ("alone", 1, config), ("plain", 2, plain)):
        out, world = tmp_path / name, tmp_path / f"world-{name}"
        codes = run_world(2, command_in, out, config, spec, False, 3, folder=world)
        assert 0 not in codes, printed(world)
        assert Run.open(out).state == "interrupted", printed(world)
        codes = run_world(again, command_in, out, after, spec, True, None, folder=tmp_path / f"again-{name}")
        assert codes == [0] * again, printed(tmp_path / f"again-{name}")
        assert "resuming after step 3" in printed(tmp_path / f"again-{name}")[0]
        assert largest_difference(tmp_path / "whole", out) < (TOLERANCE if name == "alone" else 1e-12)
    files = sorted(path.name for path in (tmp_path / "whole/adapter").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "alone/adapter").iterdir()), "nothing of the base is saved"


def as_accelerate(folder: Path, config: Config, spec: TaskSpec, version: str) -> None:
    """Run `execute` as `accelerate launch --use_fsdp` starts it."""
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION=version)
    execute(config, spec, folder)


def test_accelerate_asks_for_it_by_fsdp_of_version_2(able: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("sft", able, **{"data__train_rows": 15})
    for version, expected in (("2", [0, 0]), ("1", [1, 1])):
        world = tmp_path / f"world-{version}"
        codes = run_world(2, as_accelerate, tmp_path / f"run-{version}", config, spec, version, folder=world)
        assert codes == expected, printed(world)
    assert "divided over 2 processes" in printed(tmp_path / "world-2")[0]
    assert Run.open(tmp_path / "run-2").config.runtime.shard_base
    assert weights(tmp_path / "run-2")
    exported = export_judge(tmp_path / "run-2", "merged", tmp_path / "merged", dtype="float32")
    assert (exported.rows, exported.changed) == (8, 0), "merged in one process, it judges as it did with half of a base"
    assert "FSDP of version 1, which this program does not have" in printed(tmp_path / "world-1")[0]
    config = settings("sft", able, **{"data__train_rows": 15, "runtime__quantization": "4bit"})
    world = tmp_path / "quantised"
    assert run_world(2, as_accelerate, tmp_path / "run-q", config, spec, "2", folder=world) == [1, 1]
    assert "runtime.quantization=4bit cannot be divided" in printed(world)[0]


def test_a_method_without_a_frozen_base_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    spec, config = reviews(tmp_path), settings("encoder", tiny_bert, **DIVIDED, **{"data__train_rows": 15})
    world = tmp_path / "world"
    assert run_world(2, command_in, tmp_path / "run", config, spec, False, None, folder=world) == [1, 1]
    assert "runtime.shard_base divides the frozen weights of `model`, and encoder does not run it" in printed(world)[0]
    assert not (tmp_path / "run").exists()


def fail_in_second(folder: Path, config: Config, spec: TaskSpec) -> None:
    """Train, with a loss that is not finite in the second process alone, while the first runs its passes."""
    from adjudge.errors import NotFiniteError
    from adjudge.training import updates

    real = updates.check_finite

    def failing(*arguments: Any) -> None:
        if parallel.rank() == 1:
            raise NotFiniteError("the figures of one process are not finite")
        real(*arguments)

    updates.check_finite = failing
    execute(config, spec, folder)


def test_an_error_in_one_process_is_that_of_all(able: Path, tmp_path: Path) -> None:
    more = {"data__train_rows": 20, "sft__micro_batch_size": 1}
    spec, config = reviews(tmp_path), settings("sft", able, **DIVIDED, **more)
    world = tmp_path / "world"
    assert run_world(2, fail_in_second, tmp_path / "run", config, spec, folder=world) == [1, 1]
    for text in printed(world):
        assert "NotFiniteError: Step 1: the figures of one process are not finite" in text
