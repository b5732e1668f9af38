"""Train in several processes and in one, and compare what they leave behind."""

from __future__ import annotations

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

from adjudge.config import Config, change, load_config
from adjudge.experiments.execute import execute
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import load_reward_functions, rewarded_names
from adjudge.runs.folder import Run, read_jsonl
from adjudge.system import parallel
from adjudge.tasks import load_split
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows

SETTINGS: dict[str, Any] = {
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
    """Return the logged numbers, without those that are means of parts."""
    # Of equal log-ratios, rounding prefers one; what an instruction added is that of a process's last pass.
    apart = ("rewards", "recall", "explained_variance", "preferred", "added")
    return [
        {key: value for key, value in record.items() if key not in apart} | record.get("rewards", {})
        for record in read_jsonl(folder / "metrics.jsonl")
    ]


def train_each(cases: list[tuple[list[Path], Config]], spec: TaskSpec, rows: int) -> None:
    """Train case after case, as a process of a world.

    They meet once: a second meeting at the same port may find the first one's store, and wait for it in vain.
    """
    with parallel.joined():
        for folders, config in cases:
            train_in(folders, config, spec, rows)


def compare_with_one(
    cases: list[tuple[str, dict[str, Any]]], model: Path, folder: Path, alone: dict[str, Any] | None = None
) -> None:
    """Train each case in two processes and in one, with `alone` for the one, and compare what they leave."""
    (folder / "my.py").write_text(REWARD)
    spec, rows = reviews(folder), 15  # batches of 7, 7 and 1: uneven shares, and fewer rows than processes
    planned = []
    for number, (method, values) in enumerate(cases):
        functions = (
            {}
            if method not in rewarded_names()
            else {f"{method.replace('-', '_')}__reward__functions": [f"{folder / 'my.py'}:spread"]}
        )
        case = folder / f"{number}-{method}"
        case.mkdir()
        planned.append(([case / "first", case / "second"], settings(method, model, **values, **functions)))
    codes = run_world(2, train_each, planned, spec, rows, folder=folder / "world")
    assert codes == [0, 0], printed(folder / "world")
    for (first, _), config in planned:
        train_in([first.parent / "one"], change(config, alone or {}), spec, rows)
        check_world(first.parent)


def check_world(folder: Path) -> None:
    """Compare what two processes left in a folder with each other and with what one process left."""
    one, first, second = (folder / name for name in ("one", "first", "second"))
    assert largest_difference(first, second) == 0.0, f"{folder.name}: all processes have the same weights"
    assert largest_difference(one, first) < TOLERANCE, folder.name
    assert figures_of(first) == figures_of(second), f"{folder.name}: every process knows the figures of all rows"
    for alone, together in zip(figures_of(one), figures_of(first), strict=True):
        assert alone == pytest.approx(together, rel=1e-4, abs=1e-3), f"{folder.name}: the same answers are sampled"
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
