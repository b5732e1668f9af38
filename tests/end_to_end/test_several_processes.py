"""Test training in several processes (gloo on the CPU): equal weights everywhere, and equal to one process."""

from __future__ import annotations

import filecmp
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from running import EPOCHS_ALONE
from safetensors.torch import load_file
from worlds import printed, run_world

from adjudge.config import Config, load_config
from adjudge.experiments.execute import execute
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import load_reward_functions, rewarded_names
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.system import parallel
from adjudge.tasks import load_split
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
SETTINGS: dict[str, Any] = {
    **({"runtime.shard_base": True} if os.environ.get("SHARD") else {}),
    **EPOCHS_ALONE,
    "runtime.dtype": "float32",
    "runtime.threads": 1,
    "evaluation.resamples": 100,
    "checkpoint.every_s": None,
}
TOLERANCE = 2e-5
"""Largest difference of a weight between one process and two: sums in another order, over a few updates at 3e-4."""


def settings(method: str, model: Path, **values: Any) -> Config:
    named = {name.replace("__", "."): value for name, value in values.items()}
    sizes = {
        f"{method.replace('-', '_')}.batch_size": 7,
        f"{method.replace('-', '_')}.epochs": 1,
        **({"encoder.model": str(model)} if method == "encoder" else {}),
    }
    return load_config(values={**SETTINGS, "method": method, "model": str(model), **sizes, **named})


def train_in(folders: list[Path], config: Config, spec: TaskSpec, rows: int) -> None:
    """Train in the folder of this process's rank: unlike a run's, it stays there to be compared."""
    functions = load_reward_functions(config, [spec])
    run = Run.create(folders[parallel.rank()], config, reward_functions=functions)
    examples = load_split(spec, "train")[:rows]
    judge = get_entry(config.method).load().train(run, [TaskRows(spec, examples)]).judges[0]
    run.write_predictions("dev", judge.judge(load_split(spec, "dev")))


REWARD = """
def spread(prompts, completions, **_):
    return [sum(map(ord, text)) % 17 / 17 for text in completions]
"""
"""A reward that differs from answer to answer: with equal ones all gradients would be rounding."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted([*folder.glob("adapter/*.safetensors"), *folder.glob("encoder/*.safetensors")])
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def figures_of(folder: Path) -> list[dict[str, Any]]:
    """Return the logged numbers, without those that only the first process has or that are means of parts."""
    apart = ("rewards", "recall", "explained_variance", "preferred")  # of equal log-ratios, rounding prefers one
    return [
        {key: value for key, value in record.items() if key not in apart}
        for record in read_jsonl(folder / "metrics.jsonl")
    ]


CASES = [
    ("sft", {}),
    ("ppo", {}),
    ("ppo", {"ppo__values": "critic", "ppo__samples": 1, "answer__min_tokens": 2, "ppo__warm_start": 0.0}),
    (
        "ppo",
        {"ppo__values": "vine", "ppo__vine__split": "tokens", "ppo__vine__steps": 1, "ppo__vine__rollouts": 2}
        | {"ppo__samples": 1, "ppo__epochs": 1, "prompt__analysis": "before", "answer__analysis_tokens": 2},
    ),
    ("grpo", {"grpo__mini_batch_size": 3, "grpo__samples": 3}),
    ("critique-grpo", {"critique_grpo__samples": 2}),
    ("exact", {}),
    ("dpo", {}),
    ("tdpo", {}),
    ("reward-model", {}),
]


def train_each(cases: list[tuple[list[Path], Config]], spec: TaskSpec, rows: int) -> None:
    """Train case after case, as a process of a world.

    They meet once: a second meeting at the same port may find the first one's store, and wait for it in vain.
    """
    with parallel.joined():
        for folders, config in cases:
            train_in(folders, config, spec, rows)


@pytest.mark.parametrize("cases", [CASES[:5], CASES[5:]], ids=["sft to grpo", "critique-grpo to reward-model"])
def test_two_processes_give_the_weights_of_one(
    cases: list[tuple[str, dict[str, Any]]], able: Path, tmp_path: Path
) -> None:
    (tmp_path / "my.py").write_text(REWARD)
    spec, rows = reviews(tmp_path), 15  # batches of 7, 7 and 1: uneven shares, and fewer rows than processes
    planned = []
    for number, (method, values) in enumerate(cases):
        functions = (
            {}
            if method not in rewarded_names()
            else {f"{method.replace('-', '_')}__reward__functions": [f"{tmp_path / 'my.py'}:spread"]}
        )
        folder = tmp_path / f"{number}-{method}"
        folder.mkdir()
        planned.append(([folder / "first", folder / "second"], settings(method, able, **values, **functions)))
    codes = run_world(2, train_each, planned, spec, rows, folder=tmp_path / "world")
    assert codes == [0, 0], printed(tmp_path / "world")
    for (first, _), config in planned:
        train_in([first.parent / "one"], config, spec, rows)
        check_world(first.parent)


def check_world(folder: Path) -> None:
    """Compare what two processes left in a folder with each other and with what one process left."""
    one, first, second = (folder / name for name in ("one", "first", "second"))
    assert largest_difference(first, second) == 0.0, f"{folder.name}: all processes have the same weights"
    assert largest_difference(one, first) < TOLERANCE, folder.name
    assert figures_of(first) == figures_of(second), f"{folder.name}: every process knows the figures of all rows"
    for alone, together in zip(figures_of(one), figures_of(first), strict=True):
        assert alone == pytest.approx(together, abs=1e-3), f"{folder.name}: the same answers are sampled"
    ids = [[record["id"] for record in read_jsonl(each / "predictions/dev.jsonl")] for each in (one, first, second)]
    assert ids[0] == ids[1] == ids[2], folder.name


def command_in(
    folder: Path,
    config: Config,
    spec: TaskSpec,
    resume: bool,
    stop_after: int | None,
    how: signal.Signals = signal.SIGTERM,
) -> None:
    """Run `execute` as a process of a world; with `stop_after`, the second gets a signal after that step."""
    if stop_after is not None:
        log = Run.log

        def log_and_stop(run: Run, record: dict[str, Any], **more: Any) -> None:
            log(run, record, **more)
            if record["step"] == stop_after and parallel.rank() == 1:  # one process gets it: all must stop
                os.kill(os.getpid(), how)

        Run.log = log_and_stop  # type: ignore[method-assign,assignment]
    execute(config, spec, folder, resume=resume)


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
