"""Judge the rows of a run: its predictions, its scores, and the final state of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adjudge.config import Config
from adjudge.errors import ModelError, nearest
from adjudge.methods.settings import answers_likeliest, model_of
from adjudge.models.chat_api import is_api
from adjudge.models.sources.random_models import refuse_random
from adjudge.runs.calibration import temperature_of
from adjudge.runs.environment import jobs
from adjudge.runs.folder import Run, read_json
from adjudge.runs.names import shown_name
from adjudge.runs.tasks import read_tasks, result_folders, task_folder, task_record, write_task
from adjudge.system.memory import peaks
from adjudge.system.timing import timed
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge


def ensure_model(config: Config) -> None:
    """Fetch a bundled model that is missing, so the method's time does not include the download.

    Raises ModelError for a model with random weights, and for a name that is neither bundled, nor a folder, nor a hub
    id. Imports no torch.
    """
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder

    refuse_random_model(config)
    name = model_of(config)
    if not name or is_api(name):
        return
    if name in BUNDLED:
        bundled_folder(name)
    elif "/" not in name and ":" not in name and not Path(name).expanduser().is_dir():
        raise ModelError(
            f"There is no model '{name}': it is neither bundled, nor a folder here, "
            f"nor a hub id (owner/name).{nearest(name, BUNDLED)}"
        )


def refuse_random_model(config: Config) -> None:
    """Raise ModelError for a model with random weights: its accuracy means nothing."""
    refuse_random(model_of(config))


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """Record how the run ended, and name the incomplete folder after Ctrl-C."""
    try:
        with run:
            yield run
    except KeyboardInterrupt as stop:
        raise type(stop)(str(run.folder)) from None


def judge_run(
    run: Run,
    specs: Sequence[TaskSpec],
    judges: Sequence[Judge],
    eval_rows: Sequence[Sequence[Example]],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Judge the rows of a run's tasks and return its scores.

    For several tasks these are a summary, and the scores of each lie in its own folder.
    """
    if len(specs) == 1:
        temperature = temperature_of(run.folder, specs[0].name)
        return judge_rows(run, specs[0], judges[0], eval_rows[0], training, temperature=temperature)
    for spec, judge, rows in zip(specs, judges, eval_rows, strict=True):
        config = run.config.model_copy(update={"task": spec.name})
        target = Run.create(task_folder(run.folder, spec.name), config, force=True)
        with ended(target):
            write_task(target, spec)
            temperature = temperature_of(run.folder, spec.name)
            record = task_record(training, spec.name)
            judge_rows(target, spec, judge, rows, record, tasks=len(specs), temperature=temperature)
    return write_summary(run)


def judge_rows(
    run: Run,
    spec: TaskSpec,
    judge: Judge,
    eval_rows: Sequence[Example],
    training: Mapping[str, Any],
    *,
    tasks: int = 1,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Judge rows, write predictions and scores into the run folder, and return the scores.

    `training` is the content of training.json, and `tasks` the number of tasks the judge was trained on. With a
    `temperature`, the probabilities are also scored after it; those in the predictions are always the judge's own.
    """
    from adjudge.evaluation.score import score
    from adjudge.tasks.reading.bad_rows import KeptRows
    from adjudge.tasks.scoring.metrics import needs_probabilities

    config = run.config
    method = shown_name(config.method, tasks)
    probabilities = (answers_likeliest(config) or needs_probabilities(spec)) and not spec.is_number
    title = f"{method} on {spec.name}/{config.data.split}"
    predictions: list[Prediction]
    predictions, evaluate_s = timed(lambda: judge.judge(eval_rows, probabilities=probabilities, title=title))
    run.write_predictions(config.data.split, predictions)
    run.write_scores(
        {
            "task": spec.name,
            "method": method,
            "model": config.model,
            "seed": config.seed,
            **which_rows(config),
            "decode": config.evaluation.decode,
            "n": len(predictions),
            "dropped_rows": eval_rows.dropped if isinstance(eval_rows, KeptRows) else {},
            **{key: value for key, value in training.items() if key != "seconds"},
            **({"judging": spent} if (spent := getattr(judge, "spent", None)) else {}),
            **score(spec, predictions, resamples=config.evaluation.resamples, temperature=temperature),
            "seconds": {**training["seconds"], "evaluate": evaluate_s},
            "prompts_per_s": len(predictions) / max(evaluate_s, 1e-9),
            **peaks(),
            **({"jobs": jobs()} if jobs() > 1 else {}),
        }
    )
    return run.scores()


def which_rows(config: Config) -> dict[str, Any]:
    """Return which rows were judged, as fields of scores.json: the split, and the fold or held-out rows."""
    names = ("folds", "fold", "hold_out")
    others = {name: value for name in names if (value := getattr(config.data, name)) is not None}
    return {"split": config.data.split, **others}


def write_summary(run: Run) -> dict[str, Any]:
    """Write a summary of the results over several tasks: each primary metric, and their mean.

    It is written to the run's own scores.json.
    """
    scores = task_scores(run)
    values = [each["metrics"][each["primary"]]["value"] for each in scores]
    mean = None if None in values else fmean(values)
    evaluate_s = sum(each["seconds"]["evaluate"] for each in scores)
    rows = sum(each["n"] for each in scores)
    training = read_json(run.folder / "training.json")
    config = run.config
    kept = ("n", "primary", "metrics", "unreadable", "task_rows", "overlap")
    run.write_scores(
        {
            "task": config.task,
            "method": shown_name(config.method, len(read_tasks(run.folder))),
            "model": config.model,
            "seed": config.seed,
            **which_rows(config),
            "decode": config.evaluation.decode,
            "n": rows,
            **{key: value for key, value in training.items() if key not in {"seconds", "tasks"}},
            "primary": "mean_primary",
            "metrics": {"mean_primary": {"value": mean, "low": None, "high": None}},
            "unreadable": sum(each["unreadable"] for each in scores),
            "tasks": {each["task"]: {key: each[key] for key in kept} for each in scores},
            "seconds": {**training["seconds"], "evaluate": evaluate_s},
            "prompts_per_s": rows / max(evaluate_s, 1e-9),
            **peaks(),
            **({"jobs": jobs()} if jobs() > 1 else {}),
        }
    )
    return run.scores()


def task_scores(run: Run) -> list[dict[str, Any]]:
    """Return the scores of each of the run's tasks."""
    return [Run.open(folder).scores() for folder in result_folders(run.folder)]


def score_line(scores: Mapping[str, Any]) -> str:
    """Return a line with the scores of a run.

    ``glue/sst2 sft seed 0: accuracy 0.898 [0.877, 0.917], 0 unreadable of 872, 163 s training, 41 s judging``.
    """
    primary = scores["primary"]
    figure = scores["metrics"][primary]
    interval = "" if figure.get("low") is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    value = "undefined" if figure["value"] is None else f"{figure['value']:.3f}"
    seconds = scores["seconds"]
    fold = f" fold {scores['fold']}" if "fold" in scores else ""
    return (
        f"{scores['task']} {scores['method']} seed {scores['seed']}{fold}: {primary} {value}{interval}, "
        f"{scores['unreadable']} unreadable of {scores['n']}, "
        f"{seconds['train']:.0f} s training, {seconds['evaluate']:.0f} s judging{beside_others(scores)}"
    )


def beside_others(scores: Mapping[str, Any]) -> str:
    """Return what to add to the seconds of a run beside others: `` beside 1 other``; nothing if alone."""
    others = scores.get("jobs", 1) - 1
    return f" beside {others} {'other' if others == 1 else 'others'}" if others else ""
