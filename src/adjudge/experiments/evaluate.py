"""Judge rows with a finished run's result: its own rows, a file's, or those of another task or split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, change, keys_of, value_of
from adjudge.errors import AdjudgeError, ConfigError, RunError
from adjudge.experiments.execute import drop_checkpoints
from adjudge.experiments.judging import ended, judge_rows, refuse_random_model, write_summary
from adjudge.experiments.judging_settings import judging_settings
from adjudge.experiments.rows import OVERLAP, eval_rows_for, fingerprint, learned_rows, report_overlap, rows_for
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import model_key
from adjudge.runs.base import pinned, with_base
from adjudge.runs.calibration import temperature_of
from adjudge.runs.environment import record_environment, recorded_model
from adjudge.runs.folder import Run, read_json
from adjudge.runs.portable import is_portable, read_judge
from adjudge.runs.tasks import pick_among, read_task, read_tasks, result_folders, task_folder, task_record, write_task
from adjudge.system.console import warn
from adjudge.system.timing import timed
from adjudge.tasks import on_file
from adjudge.tasks.reading.kept_rows import KEPT, keep_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import table_format
from adjudge.types import Example

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

LoadJudge = Callable[[Run, TaskSpec], "Judge"]


@dataclass(frozen=True, slots=True)
class Destination:
    """The folder an evaluation is written to."""

    folder: Path
    in_place: bool
    """True if it replaces the run's own result of these rows."""
    replaces: bool
    """True if whatever run the folder holds is replaced."""


def load_judge(
    folder: str | Path,
    *,
    spec: TaskSpec | None = None,
    decode: str | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Run, TaskSpec, Judge]:
    """Return the judge of a finished run, the run, and the task it judges.

    The task is the run's own unless `spec` names another. `model` names its base model where that has moved. `settings`
    are those of `judging_settings`. Raises RunError when the run is incomplete, or was trained on several tasks and
    there is no `spec`. Raises ConfigError for an unknown `decode`, and for settings that do not fit.
    """
    run, specs = open_folder(folder, model=model)
    spec = spec or pick_among(Path(folder), specs, None)
    changes = {} if decode is None else {"evaluation.decode": decode}
    run = Run(run.folder, change(run.config, changes | judging_settings(settings or {}, run.folder)))
    return run, spec, _load(_pinned(run, run.config), [spec])[spec.name]


def load_judges(
    folder: str | Path, *, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Judge]:
    """Return the judge of each task of a finished run or of a judge that left its run, by the task's name.

    `model` names its base model where that has moved. Raises RunError when the run is incomplete, and ConfigError for
    `settings` that are not those of `judging_settings`.
    """
    run, specs = open_folder(folder, model=model)
    config = change(run.config, judging_settings(settings or {}, run.folder))
    return _load(_pinned(run, config), specs)


def evaluate_tasks(
    folder: str | Path, *, spec: TaskSpec | None = None, **options: Any
) -> list[tuple[Path, dict[str, Any]]]:
    """Judge rows of `spec`, or of every task of the run, as `evaluate_run` does.

    Returns the folder and the scores of each result. When all tasks of a run over several are judged with the run's own
    settings, the run's folder and summary are returned. Raises what `evaluate_run` raises, and ConfigError for an `out`
    that would hold several results.
    """
    run = Run.open(folder)
    specs = read_tasks(run.folder)
    if spec is None and options.get("data") is not None:
        spec = read_task(run.folder)
    if spec is None and len(specs) > 1 and options.get("out") is not None:
        raise ConfigError(
            f"{run.folder} has {len(specs)} tasks, and --out is the folder of one result: name the task with --task."
        )
    if spec is not None or len(specs) == 1:
        results = [evaluate_run(folder, spec=spec, **options)]
    else:
        load = loading_once(specs)
        results = [evaluate_run(folder, spec=each, load=load, **options) for each in specs]
    own_folders = result_folders(run.folder)
    is_own = len(own_folders) > 1 and results[0][0] in own_folders
    if is_own and all((result / "scores.json").is_file() for result in own_folders):
        summary = write_summary(run)
        return [(run.folder, summary)] if len(results) > 1 else results
    return results


def evaluate_run(
    folder: str | Path,
    *,
    spec: TaskSpec | None = None,
    data: str | Path | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    split: str | None = None,
    eval_rows: int | None = None,
    decode: str | None = None,
    data_dir: str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    force: bool = False,
    model: str | None = None,
    load: LoadJudge | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Judge rows with the result of a run; return the folder of the results, and the scores.

    With `data`, every row of this file is judged as a row of the run's own task (`spec`, where there are several): with
    its prompt and its answer words. `text` and `label` name the file's columns (`adjudge.tasks.on_file`), and
    `separator` and `encoding` say how it is written.

    Other arguments of None keep the run's value. `model` names the base model where it has moved. `settings` are those
    of `judging_settings`. `destination` is where the results are written. `load` returns the judge, instead of the
    method's own loader. Raises RunError when the run's training is not complete, when `out` is the run itself, when
    `out` (without `force`) holds another run, and for a run over several tasks without a `spec`. Raises ConfigError for
    settings that do not fit, and DataError for rows.
    """
    run = _open_trained(folder)
    trained_on = read_tasks(run.folder)
    spec = spec or read_task(run.folder)
    changes: dict[str, Any] = {"data.split": split, "data.eval_rows": eval_rows, "data.data_dir": data_dir}
    changes = {key: value for key, value in (changes | {"evaluation.decode": decode}).items() if value is not None}
    if data is not None:
        if spec not in trained_on or split is not None:
            raise ConfigError(
                "A file is judged whole, with a task of the run: leave out any other task, and the split."
            )
        changes |= {"data.split": "dev", "data.eval_rows": eval_rows}
        spec = on_file(spec, data, text, label, table_format(separator, encoding))
    elif spec not in trained_on:
        _warn_of_fewer_answers(spec, trained_on)
    changes |= {"task": spec.name, **judging_settings(settings or {}, run.folder, also=("evaluation.resamples",))}
    config = run.config
    if spec not in trained_on or split is not None or eval_rows is not None or data is not None:
        config = _without_folds(run, config, spec, learned=spec in trained_on)
    config = change(config, changes)
    to = destination(run, config, spec, out, force=force, file=data)
    rows = eval_rows_for(config, spec)  # before anything is replaced: a mistake in data or model keeps the results
    judging_run = _based(_pinned(run, config), model)
    load = load or loading_once([spec])
    judge, setup_s = timed(lambda: load(judging_run, spec))
    record = _record(run, spec, rows, setup_s, data, in_place=to.in_place)
    with ExitStack() as open_runs:
        if to.in_place:
            open_runs.enter_context(_in_place(run))
        if to.folder == run.folder:
            target = run
        else:
            target = Run.create(to.folder, config, force=to.replaces)
            open_runs.enter_context(ended(target))
        judged_spec = spec if data is None else keep_rows(spec, target.folder, ("dev",))
        if data is not None and judged_spec.source.table is not None:
            record["file"] = judged_spec.source.table.dev
        write_task(target, judged_spec)
        if not to.in_place:
            to_record = Run(target.folder, judging_run.config)
            record_environment(to_record, model_key(config), [judged_spec], record["rows_sha256"])
        temperature = temperature_of(run.folder, spec.name)
        scores = judge_rows(target, judged_spec, judge, rows, record, tasks=len(trained_on), temperature=temperature)
        return target.folder, scores


def _record(
    run: Run, spec: TaskSpec, rows: Sequence[Example], setup_s: float, file: str | Path | None, *, in_place: bool
) -> dict[str, Any]:
    """Return what the scores say of the training and of the judged rows."""
    training = read_json(run.folder / "training.json")
    trained_on = read_tasks(run.folder)
    record = {**task_record(training, spec.name), "seconds": {**training["seconds"], "setup": setup_s}}
    if not in_place:  # the run's overlap figures describe its own rows, not these
        record |= {"rows_sha256": fingerprint(rows), **dict.fromkeys(OVERLAP)}
    if file is not None:
        record |= _overlap_with_training(run, trained_on, rows)
    elif spec not in trained_on:
        record |= {"trained_on": ",".join(each.name for each in trained_on)}
    return record


def _overlap_with_training(run: Run, trained_on: Sequence[TaskSpec], rows: Sequence[Example]) -> dict[str, Any]:
    """Count and report the rows of a file that the run was trained on; nothing where those cannot be read."""
    try:
        learned = learned_rows(get_entry(run.config.method), run.config, rows_for(run.config, trained_on))
    except AdjudgeError as error:
        warn(f"whether the run was trained on some of these rows cannot be told, its training rows are gone: {error}")
        return {}
    return report_overlap(learned, rows, advice="Judge rows that were not trained on.")


def _warn_of_fewer_answers(spec: TaskSpec, trained_on: Sequence[TaskSpec]) -> None:
    """Warn of another task whose answers are some of the run's own.

    It looks like the run's task read from a file.
    """
    for task in trained_on:
        lacking = [word for word in task.words if word not in spec.words]
        if spec.words and lacking and set(spec.words) < set(task.words):
            warn(
                f"{spec.name} has only some of the answers of {task.name}: nothing can be judged {', '.join(lacking)}. "
                "To judge a file with the run's own task, give the file alone: --data FILE (in Python data=FILE)."
            )


def destination(
    run: Run,
    config: Config,
    spec: TaskSpec,
    out: str | Path | None,
    *,
    force: bool,
    file: str | Path | None = None,
) -> Destination:
    """Return where an evaluation of `run` with these settings, or of a `file`, is written.

    The run's own evaluation is written to the run folder (for a run over several tasks, to the task's folder). Any
    other (another file, task, split, number of rows or setting) is written to `out`, or to a folder under
    ``evaluations/``.
    Raises RunError when `out` is the run itself and would lose its own results.
    """
    trained_on = read_tasks(run.folder)
    to_itself = out is None or Path(out).resolve() == run.folder.resolve()
    if to_itself and spec in trained_on and _is_judged_alike(config, run.config):
        if len(trained_on) == 1:
            return Destination(run.folder, in_place=True, replaces=True)
        return Destination(task_folder(run.folder, spec.name), in_place=True, replaces=True)
    if out is None:
        return Destination(run.folder / "evaluations" / _title(run, config, spec, file), in_place=False, replaces=True)
    if to_itself:
        raise RunError(
            f"{out} is the run that judges; its own results would be lost. Name another --out, or leave it away."
        )
    return Destination(Path(out), in_place=False, replaces=force)


def open_folder(folder: str | Path, *, model: str | None = None) -> tuple[Run, list[TaskSpec]]:
    """Open a run with complete training, or a judge that left its run, with its tasks.

    `model` names the base model where it has moved, and must be the same. Raises RunError.
    """
    if is_portable(Path(folder)):
        return read_judge(Path(folder), model)
    run = _open_trained(folder)
    return _based(run, model), read_tasks(run.folder)


def tasks_of(folder: Path) -> list[TaskSpec]:
    """Return the tasks of a run with complete training, or of a judge that left its run. Raises RunError."""
    return read_judge(folder)[1] if is_portable(folder) else read_tasks(_open_trained(folder).folder)


def _open_trained(folder: str | Path) -> Run:
    """Open a run with complete training.

    Raises RunError when its training is not complete, ModelError for random weights.
    """
    run = Run.open(folder)
    if not (run.folder / "training.json").is_file():
        raise RunError(
            f"{run.folder}: its training is not complete (it is {run.state}); there is no judge to load yet."
        )
    refuse_random_model(run.config)
    return run


def _pinned(run: Run, config: Config) -> Run:
    """Return the run as its judges are loaded: a model of the hub at the commit the run began with."""
    return Run(run.folder, pinned(run.folder, config, model_key(config)))


def _based(run: Run, model: str | None) -> Run:
    """Return the run with its base model in its place, or in that of `model`; see `with_base`."""
    key = model_key(run.config)
    return Run(run.folder, with_base(run.folder, run.config, key, recorded_model(run.folder), model))


def _load(run: Run, specs: Sequence[TaskSpec]) -> dict[str, Judge]:
    """Return the judge of each task, by the task's name."""
    judges = get_entry(run.config.method).load().load(run, specs)
    return {spec.name: judge for spec, judge in zip(specs, judges, strict=True)}


def loading_once(specs: Sequence[TaskSpec]) -> LoadJudge:
    """Return a loader that loads the judges of all tasks on its first call."""
    judges: dict[str, Judge] = {}

    def load(run: Run, spec: TaskSpec) -> Judge:
        if not judges:
            judges.update(_load(run, specs))
        return judges[spec.name]

    return load


@contextmanager
def _in_place(run: Run) -> Iterator[None]:
    """Judge in the folder of a run, with the state "running" meanwhile and "complete" at the end.

    After an error the state is what it was before.
    """
    before = run.recorded_status()
    try:
        with ended(run):
            run.set_state("running")
            yield
    except BaseException:
        run.set_state(*before)
        raise
    drop_checkpoints(run)


def _without_folds(run: Run, config: Config, spec: TaskSpec, *, learned: bool) -> Config:
    """Return the settings to judge other rows than those of the run's fold.

    Raises ConfigError where these would hold rows the run learned from.
    """
    from adjudge.tasks import has_own_dev

    if config.data.folds is not None and learned and not has_own_dev(spec):
        raise ConfigError(
            f"{run.folder} is one of {config.data.folds} folds and learned from the rest of its table: "
            "--split and --eval-rows would draw rows it knows. Leave them out to judge its own fold again."
        )
    data = config.data.model_copy(update={"folds": None, "fold": None, "hold_out": None})
    return config.model_copy(update={"data": data})


def _is_judged_alike(one: Config, other: Config) -> bool:
    def judged(config: Config) -> tuple[Any, ...]:
        data = config.data
        rows = data.split, data.eval_rows, data.bad_rows, data.folds, data.fold, data.hold_out
        return *rows, config.evaluation, config.runtime

    return judged(one) == judged(other)


def _title(run: Run, config: Config, spec: TaskSpec, file: str | Path | None) -> str:
    """Return an evaluation's folder name: its task, rows, decoding, and settings unlike the run's."""
    rows = config.data.split
    if file is not None:  # many files of other folders have the same name
        path = Path(file).resolve()
        kept = KEPT.fullmatch(path.name)  # its name already tells its rows
        rows = path.stem if kept else f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    parts = [spec.name, rows, config.evaluation.decode]
    parts += [] if config.data.eval_rows is None else [str(config.data.eval_rows)]
    for key in keys_of():
        value = value_of(config, key)
        if key.startswith(("runtime.", "evaluation.", "data.bad_rows")) and key != "evaluation.decode":
            parts += [f"{key.rpartition('.')[2]}={value}"] if value != value_of(run.config, key) else []
    return "-".join(parts).replace("/", "-")
