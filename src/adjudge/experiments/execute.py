"""One method, once: a run folder from its settings to its scores."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adjudge.config import Config, parse_config, value_of
from adjudge.errors import DataError, ModelError, RunError, nearest
from adjudge.methods.registry import Entry, check_settings, get_entry, get_method, own_settings
from adjudge.models.sources.random_models import refuse_random
from adjudge.runs.environment import pinned, record_environment
from adjudge.runs.folder import Run, read_json
from adjudge.runs.resuming import drop_checkpoints, finished_scores, finished_training, init_identity
from adjudge.runs.tasks import read_task, read_tasks, task_folder, task_record, write_task
from adjudge.system.console import note, warn
from adjudge.system.files import write_json
from adjudge.system.memory import peak_rss_gib
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

_Result = TypeVar("_Result")

EVAL_SEED = 0
"""Draws the judged rows: the same for every method and every seed of a run, so that their answers can be paired."""


def execute(
    config: Config, spec: TaskSpec, folder: str | Path, *, force: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Train `config.method` on the task's training rows, judge the evaluation rows, and return the scores.

    Everything is written to `folder` (see `adjudge.runs.folder`); its state is "interrupted" after Ctrl-C and "failed" after an
    error. With `resume`, a stopped run of these settings goes on from its newest checkpoint, or from its judging; a complete run
    is left as it is.
    Seconds and peak memory are those of this process: for figures of the method alone, run it in a process of its own.
    Raises RunError when the folder holds another run, and whatever data, model or training raise.
    """
    config = own_settings(config)
    entry = get_entry(config.method)
    train, judged = rows_for(config, spec)  # before there is a folder: a mistake in data or model leaves nothing behind
    ensure_model(config)
    rows = fingerprint([*train, *judged])
    if resume and (scores := finished_scores(folder, config, rows)):
        return scores
    with ended(Run.create(folder, config, force=force, resume=resume)) as run:
        run.identity = {"rows": rows, **init_identity(config)}
        if (training := finished_training(run, rows)) is not None:
            scores = judge_rows(run, spec, get_method(config.method).load(run, spec), judged, training)
            drop_checkpoints(run)
            return scores
        write_task(run, spec)
        overlap = report_overlap(_learned_from(entry, spec, config, train), judged)
        method, import_s = timed(lambda: get_method(config.method))
        record_environment(run, entry.model, [spec], rows)
        judge, build_s = timed(lambda: method.build(run, spec, train))
        build_s += run.earlier_s
        training = {
            "rows_sha256": rows,
            "train_rows": len(_learned_from(entry, spec, config, train)),
            **overlap,
            "seconds": {
                "setup": import_s + (0.0 if entry.trains else build_s),
                "train": build_s if entry.trains else 0.0,
            },
        }
        if entry.trains:
            epochs = getattr(getattr(config, entry.name, None), "epochs", 1)
            training["train_prompts_per_s"] = len(train) * epochs / max(build_s, 1e-9)
        write_json(run.folder / "training.json", training)
        scores = judge_rows(run, spec, judge, judged, training)
        drop_checkpoints(run)
        return scores


def evaluate_run(
    folder: str | Path,
    *,
    spec: TaskSpec | None = None,
    split: str | None = None,
    eval_rows: int | None = None,
    decode: str | None = None,
    data_dir: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    load: Callable[[Run, TaskSpec], Judge] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Judge rows with what a run trained; return the folder the results are in, and the scores.

    What is None is as it was in the run. The same evaluation as the run's own is written into the run folder itself (of a run over several
    tasks, into the folder of the task); any other (another task, split, number of rows or way to decode) into `out`, or a folder under
    ``evaluations/``. `load` brings the judge in place of the method. A run over several tasks needs a `spec`.
    Raises RunError when the run's training is not complete, or `out` is the run itself or (without `force`) holds another run.
    """
    run = Run.open(folder)
    if not (run.folder / "training.json").is_file():
        raise RunError(
            f"{run.folder}: its training is not complete (it is {run.state}); there is nothing to evaluate yet."
        )
    _refuse_random(run.config)
    training = read_json(run.folder / "training.json")
    trained_on = read_tasks(run.folder)
    spec = spec or read_task(run.folder)
    data = {"split": split, "eval_rows": eval_rows, "data_dir": data_dir}
    config = _changed(run.config.model_copy(update={"task": spec.name}), data=data, evaluation={"decode": decode})
    same = spec in trained_on and _judged_alike(config, run.config)
    to_itself = out is None or Path(out).resolve() == run.folder.resolve()
    own = same and to_itself
    if to_itself and not own and out is not None:
        raise RunError(
            f"{out} is the run that judges; its own results would be lost. Name another --out, or leave it away."
        )
    judged = _eval_rows(
        config, spec
    )  # before anything is replaced: a mistake in data or model leaves the results as they are
    load = load or get_method(config.method).load
    judge, setup_s = timed(lambda: load(Run(run.folder, pinned(run.folder, config)), spec))
    with ExitStack() as open_runs:
        if own:
            open_runs.enter_context(_in_place(run))
        if own and len(trained_on) == 1:
            target = run
        else:
            place = task_folder(run.folder, spec.name) if own else run.folder / "evaluations" / _title(config, spec)
            target = Run.create(place if out is None or own else Path(out), config, force=force or own or out is None)
            open_runs.enter_context(ended(target))
        write_task(target, spec)
        record = {**task_record(training, spec.name), "seconds": {**training["seconds"], "setup": setup_s}}
        if not own:  # these speak of the rows that the run itself judged
            judging = Run(target.folder, pinned(run.folder, config))
            record_environment(judging, get_entry(config.method).model, [spec], fingerprint(judged))
            record |= {"rows_sha256": fingerprint(judged), **{key: None for key in record if key.startswith("overlap")}}
        if spec not in trained_on:
            record |= {"trained_on": ",".join(learned.name for learned in trained_on)}
        return target.folder, judge_rows(target, spec, judge, judged, record)


def load_judge(
    folder: str | Path, *, spec: TaskSpec | None = None, decode: str | None = None
) -> tuple[Run, TaskSpec, Judge]:
    """The judge of a finished run, with the run and the task it judges: that it was trained for, unless `spec` names another.

    Raises RunError when the run is incomplete, or was trained on several tasks and there is no `spec`; ConfigError for an unknown `decode`.
    """
    run = Run.open(folder)
    if not (run.folder / "training.json").is_file():
        raise RunError(
            f"{run.folder}: its training is not complete (it is {run.state}); there is no judge to load yet."
        )
    _refuse_random(run.config)
    spec = spec or read_task(run.folder)
    run = Run(run.folder, _changed(run.config, evaluation={"decode": decode}))
    method = get_method(run.config.method)
    return run, spec, method.load(Run(run.folder, pinned(run.folder, run.config)), spec)


def _changed(config: Config, **groups: Mapping[str, Any]) -> Config:
    """The settings with others in some groups; None changes nothing. Raises ConfigError for a value that does not fit."""
    tree = config.model_dump()
    for group, values in groups.items():
        tree[group] |= {name: value for name, value in values.items() if value is not None}
    return parse_config(tree)


def rows_for(config: Config, spec: TaskSpec) -> tuple[list[Example], list[Example]]:
    """Training rows (drawn by the seed; none for a method that needs none) and the rows to judge (the same for all)."""
    from adjudge.tasks import load_split, take_rows

    split = load_split(spec, config.data.split, config.data.data_dir)
    train: list[Example] = []
    if get_entry(config.method).rows != "none":
        everything = training_rows(config, spec, split)
        train = take_rows(everything, config.data.train_rows, config.seed, whole_groups=False)
    return train, take_rows(split, config.data.eval_rows, EVAL_SEED)


def training_rows(config: Config, spec: TaskSpec, split: Sequence[Example]) -> list[Example]:
    """All training rows of a task; with `data.drop_overlap` without those that are in `split`, the judged one, whatever is drawn of it.

    Raises DataError when none is left, and whatever reading them raises.
    """
    from adjudge.tasks import load_split, without_overlap

    train = load_split(spec, "train", config.data.data_dir)
    if not config.data.drop_overlap:
        return train
    kept = without_overlap(train, split)
    where = f"of the {len(train):,} training rows of {spec.name}"
    if not kept:
        raise DataError(
            f"All {where} are in {config.data.split} too, so that data.drop_overlap leaves none to learn from."
        )
    note(f"{len(train) - len(kept):,} {where} are in {config.data.split} too and are left out (data.drop_overlap).")
    return kept


def fingerprint(rows: Iterable[Example]) -> str:
    """SHA-256 over the rows' ids, fields and gold answers, in order: equal for equal rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.id, dict(row.fields), row.gold]).encode("ascii"))
    return digest.hexdigest()


def ensure_model(config: Config) -> None:
    """Fetch a bundled model that is not here yet, so that the method's time is not the network's.

    Raises ModelError for a name that is neither bundled, nor a folder, nor an id of the hub, and for a model with
    random weights; RunError when `init` names no run with an adapter; ConfigError as `check_settings`. Imports no torch.
    """
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder

    check_settings(config)
    _refuse_random(config)
    _check_init(config)
    key = get_entry(config.method).model
    name = str(value_of(config, key)) if key else ""
    if name in BUNDLED:
        bundled_folder(name)
    elif key and "/" not in name and ":" not in name and not Path(name).expanduser().is_dir():
        raise ModelError(
            f"There is no model '{name}': it is neither bundled, nor a folder here, nor a hub id (owner/name).{nearest(name, BUNDLED)}"
        )


def _refuse_random(config: Config) -> None:
    if key := get_entry(config.method).model:
        refuse_random(str(value_of(config, key)))


def _check_init(config: Config) -> None:
    init = config.init
    if init is not None and not (Path(init) / "adapter").is_dir():
        raise RunError(f"{init} holds no adapter to start PPO from: --init names the folder of a finished SFT run.")


@contextmanager
def _in_place(run: Run) -> Iterator[None]:
    """Judge in the folder of a run: it is at work meanwhile, complete at the end, and after an error what it was before."""
    before = run.recorded_status()
    try:
        with ended(run):
            run.set_state("running")
            yield
    except BaseException:
        run.set_state(*before)
        raise
    drop_checkpoints(run)


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """Leave the run's state behind, and let Ctrl-C name the folder that is incomplete."""
    try:
        with run:
            yield run
    except KeyboardInterrupt as stop:
        raise type(stop)(str(run.folder)) from None


def judge_rows(
    run: Run, spec: TaskSpec, judge: Judge, judged: Sequence[Example], training: Mapping[str, Any]
) -> dict[str, Any]:
    """Judge the rows, write predictions and scores into the run folder, and return the scores; `training` is what training.json says."""
    from adjudge.evaluation.score import score
    from adjudge.tasks.scoring.metrics import needs_probabilities

    config = run.config
    wants_probabilities = (config.evaluation.decode == "labels" or needs_probabilities(spec)) and not spec.is_number
    predictions: list[Prediction]
    predictions, evaluate_s = timed(
        lambda: judge.judge(
            judged, probabilities=wants_probabilities, title=f"{config.method} on {spec.name}/{config.data.split}"
        )
    )
    run.write_predictions(config.data.split, predictions)
    scores: dict[str, Any] = {
        "task": spec.name,
        "method": config.method,
        "model": config.model,
        "seed": config.seed,
        "split": config.data.split,
        "decode": config.evaluation.decode,
        "n": len(predictions),
        **{key: value for key, value in training.items() if key != "seconds"},
        **score(spec, predictions, resamples=config.evaluation.resamples),
        "seconds": {**training["seconds"], "evaluate": evaluate_s},
        "prompts_per_s": len(predictions) / max(evaluate_s, 1e-9),
        "peak_rss_gib": peak_rss_gib(),
    }
    run.write_scores(scores)
    return run.scores()


def _eval_rows(config: Config, spec: TaskSpec) -> list[Example]:
    from adjudge.tasks import load_split, take_rows

    return take_rows(load_split(spec, config.data.split, config.data.data_dir), config.data.eval_rows, EVAL_SEED)


def report_overlap(train: Sequence[Example], judged: Sequence[Example], where: str = "") -> dict[str, Any]:
    """Warn, `where` first, of judged rows that were learned from, and return what is recorded of them."""
    from adjudge.tasks import measure_overlap

    found = measure_overlap(train, judged)
    if found.normalised:
        warn(
            f"{where}{found.sentence()}; the figures may flatter. data.drop_overlap=true leaves such training rows out."
        )
    return {
        "overlap": found.normalised,
        "overlap_exact": found.exact,
        "overlap_share": found.share,
        "overlap_first": [list(pair) for pair in found.first],
    }


def _learned_from(entry: Entry, spec: TaskSpec, config: Config, train: Sequence[Example]) -> Sequence[Example]:
    """The training rows that the method sees: a few-shot prompt shows its demonstrations only."""
    from adjudge.prompts.demonstrations import choose_demonstrations

    return choose_demonstrations(train, spec, config.prompt) if entry.rows == "demonstrations" else train


def _judged_alike(one: Config, other: Config) -> bool:
    return (one.data.split, one.data.eval_rows, one.evaluation.decode) == (
        other.data.split,
        other.data.eval_rows,
        other.evaluation.decode,
    )


def _title(config: Config, spec: TaskSpec) -> str:
    parts = [spec.name.replace("/", "-"), config.data.split, config.evaluation.decode]
    return "-".join(parts if config.data.eval_rows is None else [*parts, str(config.data.eval_rows)])


def timed(action: Callable[[], _Result]) -> tuple[_Result, float]:
    """What an action returns, and the seconds it took."""
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def score_line(scores: Mapping[str, Any]) -> str:
    """``glue/sst2 sft seed 0: accuracy 0.898 [0.877, 0.917], 0 unreadable of 872, 163 s training, 41 s judging``."""
    primary = scores["primary"]
    figure = scores["metrics"][primary]
    interval = "" if figure.get("low") is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    value = "undefined" if figure["value"] is None else f"{figure['value']:.3f}"
    seconds = scores["seconds"]
    return (
        f"{scores['task']} {scores['method']} seed {scores['seed']}: {primary} {value}{interval}, "
        f"{scores['unreadable']} unreadable of {scores['n']}, "
        f"{seconds['train']:.0f} s training, {seconds['evaluate']:.0f} s judging"
    )
