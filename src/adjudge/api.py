"""The chain from Python: load a task, train, evaluate, predict.

import adjudge

task = adjudge.load_task("vader/movies")
run = adjudge.train("ppo", task, train_rows=200, eval_rows=200, out="runs/ppo")
print(run.scores["metrics"]["accuracy"])
print(run.predict(["A warm, funny surprise.", "Nobody should pay for this."]))
again = adjudge.open_run("runs/ppo")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import NULL, change, load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.experiments.execute import execute
from adjudge.experiments.finished_run import FinishedRun, dotted
from adjudge.experiments.own_rows import OwnRows, Task, as_task, chosen_tasks
from adjudge.methods.registry import GIVEN, entry_for, parse_name
from adjudge.methods.settings import base_model, function_settings, model_key, refuse_functions, rewarded_names
from adjudge.models.chat_api import consent as send_rows
from adjudge.rewards.checks import check_functions
from adjudge.rewards.function import RewardFunction, given_function
from adjudge.runs.default_folder import default_folder
from adjudge.runs.given_adapter import base_of_adapter, given_adapter
from adjudge.runs.names import shown_name
from adjudge.runs.portable import judge_folder
from adjudge.ship.push import check_push, push_trained
from adjudge.system.console import note, warn
from adjudge.tasks import infer_task, load_task
from adjudge.tasks import load_split as load_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

if TYPE_CHECKING:
    from adjudge.models.policy import Policy

__all__ = [
    "FinishedRun",
    "evaluate",
    "infer_task",
    "load_policy",
    "load_split",
    "load_task",
    "open_judge",
    "open_run",
    "send_rows",
    "train",
]


def load_split(task: Task, split: str = "train", data_dir: str | Path | None = None) -> list[Example]:
    """Return the checked rows of a task's split, in file order.

    `task` is a name, a file or a task. Raises DataError when no source has the rows, or one does not fit the task.
    """
    return load_rows(as_task(task), split, data_dir)


def load_policy(model: str = "smollm2-135m", **overrides: Any) -> Policy:
    """Load a model by name as `train` and `evaluate` do, to inspect its logits, tokenizer and dtype.

    `overrides` are settings with ``__`` for the dots, such as ``runtime__dtype="float32"``. The policy of a finished
    run is ``open_run(folder).judge.policy``. Raises ModelError and ConfigError.
    """
    from adjudge.models import policy

    values = {"model": model, **dotted(overrides)}
    return policy.load_policy(load_config(values=values))


def train(
    method: str,
    task: str | Path | TaskSpec | Sequence[str | Path | TaskSpec] | None = None,
    *,
    data: Any = None,
    dataset: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    dev: Any = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    kind: str | None = None,
    instruction: str | None = None,
    model: str | None = None,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    preset: str = "default",
    force: bool = False,
    resume: bool = False,
    reward_funcs: Sequence[str | Callable[..., Any]] = (),
    evaluate: bool = True,
    push_to_hub: str | None = None,
    **overrides: Any,
) -> FinishedRun:
    """Train `method` on a task, or on rows of your own, and judge the evaluation rows.

    `data` takes the place of `task`: a file, a data frame of any library, a `datasets.Dataset` or its splits, a list of
    mappings, or a pair ``(texts, answers)``. `dataset` is a data set of the hub by name. `text` and `label` name the
    columns, `dev` are rows to judge, and `labels`, `kind` and `instruction` are those of `infer_task`. Rows are written
    into the run folder.

    `adjudge methods` lists the methods. Those that train an adapter also accept a list of several tasks. For the method
    "encoder", `model` is the encoder. `overrides` are settings with ``__`` for the dots:
    ``ppo__clip=0.1, ppo__optimizer__lr=1e-4``. The run folder is ``runs/TASK/METHOD-seedN`` unless `out` names another.
    With `resume`, a stopped run with these settings continues from where it was. `reward_funcs` are your own rewards
    ``f(prompts, completions, **columns)``, as functions or as ``FILE.py:NAME``. Without `evaluate` no rows are judged.
    `push_to_hub` names a private repository of the hub, in which the finished judge is published; where that fails, a
    warning has the command to repeat it, and the run is returned.
    Raises ConfigError, TaskError, DataError, ModelError or RunError, with the messages of the command line.
    """
    if not parse_name(method)[0].trains:
        raise ConfigError(f"{method} is not trained: use adjudge.evaluate('{method}', task).")
    options = {"model": model, "train_rows": train_rows, "eval_rows": eval_rows, "seed": seed, "data_dir": data_dir}
    functions = _given_functions(method, reward_funcs)
    if functions:
        overrides |= function_settings([function.name for function in functions])
    options |= overrides
    own = OwnRows(data, dataset, text, label, dev, labels, kind, instruction)
    with chosen_tasks(task, own._asdict(), options) as specs:
        return _run(
            method,
            specs,
            out,
            preset,
            options,
            force=force,
            resume=resume,
            reward_functions=functions or None,
            evaluate=evaluate,
            push_to_hub=push_to_hub,
        )


def evaluate(
    method: str | None = None,
    task: str | Path | TaskSpec | None = None,
    *,
    adapter: str | Path | None = None,
    data: Any = None,
    dataset: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    dev: Any = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    kind: str | None = None,
    instruction: str | None = None,
    model: str | None = None,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    preset: str = "default",
    force: bool = False,
    **overrides: Any,
) -> FinishedRun:
    """Judge a task's evaluation rows with a method that does not train, like "zero-shot", or an adapter.

    `adjudge methods` lists the methods. In place of one, `adapter` is the folder of a LoRA adapter that peft or trl
    saved, judged on the base model that it names, or on `model`. The other arguments are those of `train`.
    Raises ConfigError unless one of the two is named, and RunError for an adapter that cannot be loaded.
    """
    if (method is None) == (adapter is None):
        raise ConfigError(
            "Name a method, as in adjudge.evaluate('zero-shot', task), or an adapter=FOLDER: one of them."
        )
    shown = None
    if adapter is not None:
        given = given_adapter(adapter)
        method, shown = GIVEN, f"{GIVEN}-{given.short_name}"
        overrides["adapter__folder"] = str(given.foreign.folder)
        model = base_of_adapter(given) if model is None else model
    assert method is not None
    if parse_name(method)[0].trains:
        raise ConfigError(
            f"{method} must be trained first: use adjudge.train('{method}', task), then .evaluate() of the run."
        )
    options = {"model": model, "train_rows": train_rows, "eval_rows": eval_rows, "seed": seed, "data_dir": data_dir}
    options |= overrides
    own = OwnRows(data, dataset, text, label, dev, labels, kind, instruction)
    with chosen_tasks(task, own._asdict(), options) as specs:
        return _run(method, specs, out, preset, options, force=force, shown=shown)


def _given_functions(method: str, functions: Sequence[str | Callable[..., Any]]) -> list[RewardFunction]:
    if functions and parse_name(method)[0].name not in rewarded_names():
        raise refuse_functions(method)
    if isinstance(functions, str) or not isinstance(functions, Sequence):
        raise ConfigError("reward_funcs is a list: write reward_funcs=[f], also for one function.")
    return [given_function(function) for function in functions]


def open_run(folder: str | Path, *, model: str | None = None, **settings: Any) -> FinishedRun:
    """Open a finished run, to judge with it.

    `model` names its base model where that has moved; its weights must be the same. `settings` are those of the machine
    and of judging, with ``__`` for the dots: ``runtime__threads=1``, ``evaluation__batch_size=8``. Raises RunError when
    the folder is not a run, and ConfigError for a setting that was fixed when it was trained.
    """
    return FinishedRun(folder, model=model, **settings)


def open_judge(source: str | Path, *, model: str | None = None, **settings: Any) -> FinishedRun:
    """Open a judge to predict with: a run folder, a folder of trained weights anywhere, or a hub id.

    `model` names the base model where a judge that left its run does not find it. `settings` are those of `open_run`.
    Raises RunError when there is no judge, and ModelError when the hub cannot be reached.
    """
    return FinishedRun(judge_folder(source), model=model, **settings)


_SHORT = {name: f"data.{name}" for name in ("train_rows", "shots", "eval_rows", "data_dir", "folds")}


def named_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that keyword arguments stand for, by their dotted keys.

    None is null for a setting with ``__``, and "not given" for a name of its own.
    """
    given = {key: NULL if value is None and "__" in key else value for key, value in options.items()}
    values = {_SHORT.get(key, key.replace("__", ".")): value for key, value in given.items()}
    if values.get("data.data_dir", NULL) not in (None, NULL):
        values["data.data_dir"] = str(values["data.data_dir"])
    return values


def _run(
    method: str,
    specs: Sequence[TaskSpec],
    out: str | Path | None,
    preset: str,
    options: Mapping[str, Any],
    *,
    force: bool,
    resume: bool = False,
    reward_functions: Sequence[RewardFunction] | None = None,
    evaluate: bool = True,
    push_to_hub: str | None = None,
    shown: str | None = None,
) -> FinishedRun:
    names = [spec.name for spec in specs]
    entry = entry_for(method, len(specs))
    values = named_settings(options)
    config = load_config(preset=preset, values={**values, "method": entry.name, "task": ",".join(names)})
    if values.get("model") is not None:
        if not entry.model:
            raise ConfigError(f"{entry.name} has no model: leave `model` out.")
        config = change(config, {model_key(config): values["model"]})
    shown = shown or shown_name(entry.name, len(specs))
    folder = Path(out) if out is not None else default_folder(specs, shown, config.seed, resume=resume)
    if reward_functions is not None:
        check_functions(reward_functions, specs)
    if push_to_hub is not None:
        check_push(push_to_hub, base_model(config))
    execute(config, specs, folder, force=force, resume=resume, reward_functions=reward_functions, evaluate=evaluate)
    if push_to_hub is not None:
        try:
            note(f"published: {push_trained(folder, push_to_hub)}")
        except ModelError as error:
            warn(str(error))
    return FinishedRun(folder)
