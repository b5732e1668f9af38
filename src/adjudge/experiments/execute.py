"""One run: a method on one task or several, from its settings to its scores."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, change
from adjudge.errors import ConfigError
from adjudge.experiments.judging import ended, ensure_model, judge_run, task_scores
from adjudge.experiments.rows import RunRows, learned_rows, report_overlap, rows_for
from adjudge.experiments.same_run import Identity, goes_on
from adjudge.experiments.sending import check_sending, outgoing
from adjudge.experiments.temperature import calibrate_trained
from adjudge.experiments.tracked import tracked
from adjudge.experiments.what_was_read import warn_of_absent_labels
from adjudge.methods.for_tasks import settled
from adjudge.methods.registry import entry_for, get_entry
from adjudge.methods.settings import (
    check_settings,
    check_tasks,
    for_sets,
    load_reward_functions,
    load_reward_model,
    model_key,
    own_settings,
)
from adjudge.rewards.function import RewardFunction, recorded
from adjudge.runs.base import check_same_model, pinned, with_absolute_model
from adjudge.runs.environment import dated, record_environment, recorded_model
from adjudge.runs.folder import BEST, CHECKPOINTS, WRITER_LOG, Run, read_json, read_jsonl
from adjudge.runs.portable import write_portable
from adjudge.runs.shadow import config_of_process, folder_of_process
from adjudge.runs.start import StartingPoint, starting_point
from adjudge.runs.tasks import folder_name, write_tasks
from adjudge.system.console import note
from adjudge.system.files import write_bytes, write_json
from adjudge.system.parallel import asks_to_shard, joined, world_size
from adjudge.system.timing import timed
from adjudge.tasks.reading.kept_rows import keep_rows
from adjudge.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge


def execute(
    config: Config,
    tasks: TaskSpec | Sequence[TaskSpec],
    folder: str | Path,
    *,
    force: bool = False,
    resume: bool = False,
    reward_functions: Sequence[RewardFunction] | None = None,
    evaluate: bool = True,
    answers: Path | None = None,
) -> dict[str, Any]:
    """Train `config.method` on the tasks, judge their evaluation rows, and return the scores.

    Without `evaluate` nothing is judged, and there are no scores.

    Several tasks share one adapter, trained on a mixture of their rows. Their scores are a summary, and the scores of
    each task lie in its folder. Everything is written to `folder` (see `adjudge.runs.folder`), rows that a program gave
    included. Its state is "interrupted" after Ctrl-C and "failed" after an error. With `resume`, a stopped run of these
    settings continues from its newest checkpoint, or from its judging. A complete run is not changed. Seconds and peak
    memory are those of this process. `reward_functions` are those of the settings, if they are loaded already.
    `answers` is the log of another run's writer, whose calls are not made again.
    Started by `torchrun` or `accelerate launch`, several processes share the work, and the first one writes
    (`adjudge.system.parallel`).

    Raises RunError when the folder holds another run, ConfigError for a method that cannot train on several tasks, and
    whatever data, model or training raise.
    """
    specs = [tasks] if isinstance(tasks, TaskSpec) else list(tasks)
    with joined(), folder_of_process(Path(folder), resume=resume) as own_folder:
        return _execute(
            config_of_process(sharding(config)), specs, own_folder, force, resume, reward_functions, evaluate, answers
        )


def _execute(
    config: Config,
    specs: Sequence[TaskSpec],
    folder: Path,
    force: bool,
    resume: bool,
    reward_functions: Sequence[RewardFunction] | None,
    evaluate: bool,
    answers: Path | None,
) -> dict[str, Any]:
    config = run_settings(config, specs)
    if reward_functions is None:
        reward_functions = load_reward_functions(config, specs)
    rows = _rows(config, specs, evaluate=evaluate)  # before the folder exists: a mistake creates no files
    _check_processes(rows, config)
    ensure_model(config)
    going = outgoing(config, specs, [part.rows for part in rows.parts], rows.eval_rows)
    check_sending([(config, going, answers.parent if answers else folder)], say=True)
    start = starting_point(config)
    if start is not None:
        check_start(start, config)
    reward_model = load_reward_model(config, specs)
    rewarded_by = recorded(reward_functions) | (reward_model.recorded() if reward_model is not None else {})
    if len(specs) > 1:
        note(rows.mixture_line())
    identity = Identity(config, specs, rows.sha256(), rewarded_by, start)
    resume = not force and goes_on(folder, identity, resume=resume)
    if resume and (scores := _finished_scores(folder)):
        return scores
    run = Run.create(
        folder,
        config,
        force=force,
        resume=resume,
        rows_sha256=identity.rows_sha256,
        start=start,
        reward_functions=reward_functions,
        reward_model=reward_model,
    )
    if answers is not None and not run.resumed:
        write_bytes(run.folder / WRITER_LOG, answers.read_bytes())
    with tracked(run, specs), ended(run):
        specs = [keep_rows(spec, run.folder) for spec in specs]
        rows = rows.of(specs)
        if (training := _finished_training(run)) is None:
            write_tasks(run, specs)
            judges, training = _train(run, rows, identity.recorded())
            write_json(run.folder / "training.json", training)
        else:
            run.config = pinned(run.folder, config, model_key(config))
            judges = get_entry(config.method).load().load(run, specs)
        calibrate_trained(run, specs, judges, rows.calibration)
        scores = judge_run(run, specs, judges, rows.eval_rows, training) if evaluate else {}
        write_portable(run, specs, task_scores(run) if evaluate else [])
        drop_checkpoints(run)
        return scores


def _rows(config: Config, specs: Sequence[TaskSpec], *, evaluate: bool) -> RunRows:
    """Return the rows of a run, without rows to judge unless `evaluate`; warn of labels that have none."""
    rows = rows_for(config, specs)
    trains = get_entry(config.method).trains
    for part, eval_rows in zip(rows.parts, rows.eval_rows, strict=True):
        judged_rows = eval_rows if evaluate else None
        warn_of_absent_labels(part.spec, part.rows if trains else None, judged_rows, config.data)
    return rows if evaluate else RunRows(rows.parts, [[] for _ in specs], rows.calibration)


def run_settings(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """Return the settings of a run over these tasks, without those its method never reads.

    Raises ConfigError for several tasks with a method that takes one, unusable settings, or a repeated task.
    """
    names = [spec.name for spec in specs]
    if len({folder_name(name) for name in names}) < len(names):
        raise ConfigError(f"Two tasks have the same name: {', '.join(names)}. Name each task once.")
    entry = entry_for(config.method, len(specs))
    config = config.model_copy(update={"task": ",".join(names), "method": entry.name})
    config = with_absolute_model(config, model_key(config))
    if "writer" in entry.settings and config.writer.model is not None:
        config = with_absolute_model(config, "writer.model")
    check_settings(config)
    config = for_sets(settled(config, specs), specs)
    check_tasks(config, specs)
    return own_settings(config, len(specs))


def sharding(config: Config) -> Config:
    """Return the settings with ``runtime.shard_base`` where `accelerate launch` asks for it.

    Raises ConfigError when it asks for an engine that is not there.
    """
    return change(config, {"runtime.shard_base": True}) if asks_to_shard() else config


def _check_processes(rows: RunRows, config: Config) -> None:
    """Raise ConfigError for more processes than rows to share, or a base to divide that the method lacks."""
    if world_size() > 1 and config.runtime.shard_base and model_key(config) != "model":
        raise ConfigError(
            f"runtime.shard_base divides the frozen weights of `model`, and {config.method} does not run it. "
            "Leave the setting out, or start plain torchrun."
        )
    fewest = min(count for count in (rows.train_count, *map(len, rows.eval_rows)) if count)
    if world_size() > fewest:
        raise ConfigError(
            f"There are {world_size()} processes and only {fewest} rows to share among them. Start fewer processes."
        )


def check_start(start: StartingPoint, config: Config) -> None:
    """Raise RunError when the run to start from was made with another model than `config` names.

    A run folder without a record of its model is taken as it is.
    """
    if made_with := recorded_model(start.folder):
        check_same_model(start.folder, made_with, config.model)


def drop_checkpoints(run: Run) -> None:
    """Remove what only an incomplete run needs: its checkpoints and the record of an earlier failure.

    The best weights are kept.
    """
    folder = run.folder / CHECKPOINTS
    if (folder / BEST).is_dir():
        for path in folder.glob("step-*"):
            shutil.rmtree(path, ignore_errors=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    (run.folder / "failure.json").unlink(missing_ok=True)


def _train(run: Run, rows: RunRows, identity: Mapping[str, Any]) -> tuple[Sequence[Judge], dict[str, Any]]:
    """Train, and return one judge per task and the content of training.json."""
    entry = get_entry(run.config.method)
    learned = learned_rows(entry, run.config, rows)
    overlaps = {
        part.spec.name: report_overlap(learned, eval_rows, f"{part.spec.name}: " if len(rows.parts) > 1 else "")
        for part, eval_rows in zip(rows.parts, rows.eval_rows, strict=True)
    }
    method, import_s = timed(entry.load)
    if run.resumed:  # a model of the hub at the commit that the run began with
        run.config = pinned(run.folder, run.config, model_key(run.config))
    record_environment(run, model_key(run.config), [part.spec for part in rows.parts], identity["rows_sha256"])
    run.config = dated(run.folder, run.config)
    trained, train_s = timed(lambda: method.train(run, rows.parts))
    train_s += trained.earlier_s
    training: dict[str, Any] = {**identity, "train_rows": len(learned)}
    figures = trained.figures or [{} for _ in rows.parts]
    if len(rows.parts) == 1:
        training |= {**next(iter(overlaps.values())), **figures[0]}
    else:
        training |= {key: sum(each[key] for each in overlaps.values()) for key in ("overlap", "overlap_exact")}
        training["tasks"] = {
            part.spec.name: {"task_rows": len(part.rows), **overlaps[part.spec.name], **task_figures}
            for part, task_figures in zip(rows.parts, figures, strict=True)
        }
    if entry.trains:
        training["seconds"] = {"setup": import_s, "train": train_s}
        training["train_prompts_per_s"] = trained.rows / max(train_s, 1e-9)
        if len(rows.parts) == 1 and (fit := end_of_training(run)):
            training["fit"] = fit
    else:
        training["seconds"] = {"setup": import_s + train_s, "train": 0.0}
    return trained.judges, training


def end_of_training(run: Run) -> dict[str, float]:
    """Return how the training ended: what the last quarter of its steps got right, and how the loss fell.

    `right` is the share of training rows judged right. `loss` and `loss_before` (the quarter before) are there where
    the training ended with supervised steps.
    """
    records = list(read_jsonl(run.folder / "metrics.jsonl")) if (run.folder / "metrics.jsonl").is_file() else []
    quarter = max(1, len(records) // 4)
    last, before = records[-quarter:], records[-2 * quarter : -quarter]
    fit = {"right": fmean(record["right"] for record in last)} if last and all("right" in r for r in last) else {}
    if before and all("loss" in record and "rows" in record for record in (*before, *last)):
        fit |= {"loss": fmean(r["loss"] for r in last), "loss_before": fmean(r["loss"] for r in before)}
    return fit


def _finished_scores(folder: Path) -> dict[str, Any] | None:
    """Return the scores of a run to resume that is already complete, or None when there is work to do."""
    run = Run.open(folder)
    if run.state != "complete" or not (folder / "scores.json").is_file():
        return None
    note(f"{folder} is complete; there is nothing to resume.")
    return run.scores()


def _finished_training(run: Run) -> dict[str, Any] | None:
    """Return the content of training.json when a resumed run only needs judging."""
    if not run.resumed or not (run.folder / "training.json").is_file():
        return None
    note(f"{run.folder}: the training is complete; judging.")
    return dict(read_json(run.folder / "training.json"))
