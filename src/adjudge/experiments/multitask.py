"""One adapter for several tasks, once: a run folder from its settings to the scores of each task.

A mixture holds training rows of every task, each once (`adjudge.training.mixture`); the adapter that is trained on it judges the rows of
each task as a run of that task alone would. `adjudge.runs.tasks` says where what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.experiments.execute import (
    EVAL_SEED,
    ended,
    ensure_model,
    evaluate_run,
    execute,
    fingerprint,
    judge_rows,
    report_overlap,
    timed,
    training_rows,
)
from adjudge.methods.registry import get_entry, get_method, is_multi, multi_name, own_settings
from adjudge.runs.environment import record_environment
from adjudge.runs.folder import Run, read_json
from adjudge.runs.resuming import drop_checkpoints, finished_scores, finished_training, init_identity
from adjudge.runs.tasks import read_tasks, result_folders, task_folder, task_record, write_task, write_tasks
from adjudge.system.console import note
from adjudge.system.files import write_json
from adjudge.system.memory import peak_rss_gib
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows, rows_per_task
from adjudge.types import Example

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge


def execute_tasks(
    config: Config,
    tasks: TaskSpec | Sequence[TaskSpec],
    folder: str | Path,
    *,
    force: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Train and judge as `execute` does: on one task, or one adapter on a mixture of several. Returns the scores.

    Of several tasks these are a summary; the scores of each lie in its folder. Raises ConfigError for a method that cannot train on several
    tasks, or a task that the mixture would give no row, and what `execute` raises.
    """
    specs = [tasks] if isinstance(tasks, TaskSpec) else list(tasks)
    if len(specs) == 1:
        if is_multi(config.method):
            plain = get_entry(config.method).name
            raise ConfigError(
                f"{config.method} trains on several tasks: name them with --task NAME,NAME, or use {plain}."
            )
        return execute(config, specs[0], folder, force=force, resume=resume)
    config = mixture_config(config, specs)
    pools, judged = load_pools(config, specs)
    parts = draw(config, specs, pools)
    ensure_model(config)
    note(mixture_line(parts))
    rows = mixture_fingerprint(parts, judged)
    if resume and (scores := finished_scores(folder, config, rows)):
        return scores
    with ended(Run.create(folder, config, force=force, resume=resume)) as run:
        run.identity = {"rows": rows, **init_identity(config)}
        training = finished_training(run, rows)
        if training is None:
            write_tasks(run, specs)
            judges, training = _train(run, parts, judged, rows)
            write_json(run.folder / "training.json", training)
        else:
            load = _loading_once()
            judges = [load(run, spec) for spec in specs]
        for spec, judge, those in zip(specs, judges, judged, strict=True):
            target = Run.create(task_folder(run.folder, spec.name), _of_task(config, spec), force=True)
            with ended(target):
                write_task(target, spec)
                judge_rows(target, spec, judge, those, task_record(training, spec.name))
        summary = write_summary(run)
        drop_checkpoints(run)
        return summary


def evaluate_tasks(
    folder: str | Path, *, spec: TaskSpec | None = None, **options: Any
) -> list[tuple[Path, dict[str, Any]]]:
    """Judge rows with what a run trained, as `evaluate_run` does: of `spec`, or of every task of the run.

    Returns folder and scores of each result; where all tasks of a run over several were judged as it does itself, its own summary. Raises
    what `evaluate_run` raises, and ConfigError for an `out` that would have to hold several results.
    """
    run = Run.open(folder)
    specs = read_tasks(run.folder)
    if spec is None and len(specs) > 1 and options.get("out") is not None:
        raise ConfigError(
            f"{run.folder} has {len(specs)} tasks, and --out is the folder of one result: name the task with --task."
        )
    if spec is not None or len(specs) == 1:
        results = [evaluate_run(folder, spec=spec, **options)]
    else:
        load = _loading_once()
        results = [evaluate_run(folder, spec=each, load=load, **options) for each in specs]
    own = result_folders(run.folder)
    if len(own) > 1 and results[0][0] in own and all((place / "scores.json").is_file() for place in own):
        summary = write_summary(run)
        return [(run.folder, summary)] if len(results) > 1 else results
    return results


def mixture_config(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """The settings of a run on a mixture of `specs`. Raises ConfigError for a method that takes one task, or a task that is there twice."""
    names = [spec.name for spec in specs]
    if len({name.replace("/", "-") for name in names}) < len(names):
        raise ConfigError(f"Two tasks have the same name: {', '.join(names)}. Name each task once.")
    return own_settings(config.model_copy(update={"task": ",".join(names), "method": multi_name(config.method)}))


def load_pools(config: Config, specs: Sequence[TaskSpec]) -> tuple[list[list[Example]], list[list[Example]]]:
    """All training rows of each task, and the rows to judge. Raises what the data raise."""
    from adjudge.tasks import load_split, take_rows

    data = config.data
    splits = [load_split(spec, data.split, data.data_dir) for spec in specs]
    judged = [
        row for split in splits for row in split
    ]  # of any task: what one task judges, another must not train on either
    pools = [training_rows(config, spec, judged) for spec in specs]
    return pools, [take_rows(split, data.eval_rows, EVAL_SEED) for split in splits]


def draw(config: Config, specs: Sequence[TaskSpec], pools: Sequence[Sequence[Example]]) -> list[TaskRows]:
    """The mixture: rows of each task's pool, drawn by the seed as a run of that task alone would draw as many.

    Raises ConfigError when a task would get no row.
    """
    from adjudge.tasks import take_rows

    mixture = config.data.mixture or "proportional"
    counts = rows_per_task([len(pool) for pool in pools], mixture, config.data.train_rows)
    parts = []
    for spec, pool, count in zip(specs, pools, counts, strict=True):
        if count == 0:
            raise ConfigError(
                f"{spec.name} would get no row of the {sum(counts):,} in the mixture ({mixture}). "
                "Raise --train-rows, or use --mixture equal."
            )
        parts.append(TaskRows(spec, take_rows(pool, count, config.seed, whole_groups=False)))
    return parts


def mixture_line(parts: Sequence[TaskRows]) -> str:
    """``a mixture of 1,500 rows: glue/cola 1,000, glue/rte 500``."""
    listed = ", ".join(f"{part.spec.name} {len(part.rows):,}" for part in parts)
    return f"a mixture of {sum(len(part.rows) for part in parts):,} training rows: {listed}"


def mixture_fingerprint(parts: Sequence[TaskRows], judged: Sequence[Sequence[Example]]) -> str:
    """The fingerprint of all rows that are learned from and judged."""
    return fingerprint(row for rows in (*(part.rows for part in parts), *judged) for row in rows)


def write_summary(run: Run) -> dict[str, Any]:
    """Sum up the results of a run's tasks in its own scores.json: what each task's primary metric is, and their mean."""
    scores = [Run.open(folder).scores() for folder in result_folders(run.folder)]
    values = [each["metrics"][each["primary"]]["value"] for each in scores]
    training = read_json(run.folder / "training.json")
    config = run.config
    kept = ("n", "primary", "metrics", "unreadable", "task_rows", "overlap")
    run.write_scores(
        {
            "task": config.task,
            "method": config.method,
            "model": config.model,
            "seed": config.seed,
            "split": config.data.split,
            "decode": config.evaluation.decode,
            "n": sum(each["n"] for each in scores),
            **{key: value for key, value in training.items() if key not in {"seconds", "tasks"}},
            "primary": "mean_primary",
            "metrics": {
                "mean_primary": {"value": None if None in values else fmean(values), "low": None, "high": None}
            },
            "unreadable": sum(each["unreadable"] for each in scores),
            "tasks": {each["task"]: {key: each[key] for key in kept} for each in scores},
            "seconds": {**training["seconds"], "evaluate": sum(each["seconds"]["evaluate"] for each in scores)},
            "prompts_per_s": sum(each["n"] for each in scores)
            / max(sum(each["seconds"]["evaluate"] for each in scores), 1e-9),
            "peak_rss_gib": peak_rss_gib(),
        }
    )
    return run.scores()


def _train(
    run: Run, parts: Sequence[TaskRows], judged: Sequence[Sequence[Example]], rows: str
) -> tuple[Sequence[Judge], dict[str, Any]]:
    """The judges, one a task, and what training.json says."""
    learned = [row for part in parts for row in part.rows]
    overlaps = [
        report_overlap(learned, those, f"{part.spec.name}: ") for part, those in zip(parts, judged, strict=True)
    ]
    method, import_s = timed(lambda: get_method(run.config.method))
    mix = method.mix
    if mix is None:  # the registry and the method say the same, which a test holds
        raise ConfigError(f"{run.config.method} cannot be trained on several tasks.")
    record_environment(run, get_entry(run.config.method).model, [part.spec for part in parts], rows)
    judges, train_s = timed(lambda: mix(run, parts))
    train_s += run.earlier_s
    epochs = getattr(run.config, get_entry(run.config.method).name).epochs
    training = {
        "rows_sha256": rows,
        "train_rows": len(learned),
        **{key: sum(overlap[key] for overlap in overlaps) for key in ("overlap", "overlap_exact")},
        "tasks": {
            part.spec.name: {"task_rows": len(part.rows), **overlap}
            for part, overlap in zip(parts, overlaps, strict=True)
        },
        "seconds": {"setup": import_s, "train": train_s},
        "train_prompts_per_s": len(learned) * epochs / max(train_s, 1e-9),
    }
    return judges, training


def _of_task(config: Config, spec: TaskSpec) -> Config:
    return config.model_copy(update={"task": spec.name})


def _loading_once() -> Callable[[Run, TaskSpec], Judge]:
    """Loads a run's judge for one task, and asks the same policy about the others."""
    from adjudge.evaluation.predict import PromptedJudge

    loaded: list[PromptedJudge] = []

    def load(run: Run, spec: TaskSpec) -> Judge:
        if loaded:
            return loaded[0].asked_about(spec)
        judge = get_method(run.config.method).load(run, spec)
        if isinstance(judge, PromptedJudge):
            loaded.append(judge)
        return judge

    return load
