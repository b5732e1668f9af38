"""Judge rows with the result of a finished run: its own rows, or those of another task or split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, parse_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.execute import drop_checkpoints
from adjudge.experiments.judging import ended, judge_rows, refuse_random_model, write_summary
from adjudge.experiments.rows import eval_rows_for, fingerprint
from adjudge.methods.registry import get_entry
from adjudge.runs.base import with_base
from adjudge.runs.environment import pinned, record_environment
from adjudge.runs.folder import Run, read_json
from adjudge.runs.portable import is_portable, read_judge
from adjudge.runs.tasks import read_task, read_tasks, result_folders, task_folder, task_record, write_task
from adjudge.system.timing import timed
from adjudge.tasks.spec import TaskSpec

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
    folder: str | Path, *, spec: TaskSpec | None = None, decode: str | None = None, model: str | None = None
) -> tuple[Run, TaskSpec, Judge]:
    """Return the judge of a finished run, the run, and the task it judges.

    The task is the run's own unless `spec` names another. `model` names its base model where that has moved. Raises RunError when the run is incomplete, or was trained on
    several tasks and there is no `spec`. Raises ConfigError for an unknown `decode`.
    """
    run, specs = open_folder(folder, model=model)
    if spec is None and len(specs) > 1:
        raise RunError(
            f"{folder} judges several tasks: name one with --task: {', '.join(each.name for each in specs)}."
        )
    spec = spec or specs[0]
    run = Run(run.folder, _changed(run.config, evaluation={"decode": decode}))
    return run, spec, _load(_pinned(run, run.config), [spec])[spec.name]


def load_judges(folder: str | Path, *, model: str | None = None) -> dict[str, Judge]:
    """Return the judge of each task of a finished run or of a judge that left its run, by the task's name.

    `model` names its base model where that has moved. Raises RunError when the run is incomplete.
    """
    run, specs = open_folder(folder, model=model)
    return _load(_pinned(run, run.config), specs)


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
    if spec is None and len(specs) > 1 and options.get("out") is not None:
        raise ConfigError(
            f"{run.folder} has {len(specs)} tasks, and --out is the folder of one result: name the task with --task."
        )
    if spec is not None or len(specs) == 1:
        results = [evaluate_run(folder, spec=spec, **options)]
    else:
        load = _loading_once(specs)
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
    split: str | None = None,
    eval_rows: int | None = None,
    decode: str | None = None,
    data_dir: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    model: str | None = None,
    load: LoadJudge | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Judge rows with the result of a run; return the folder of the results, and the scores.

    Arguments of None keep the run's value. `model` names the base model where it has moved. `destination` is where the results are written. `load` returns the judge,
    instead of the method's own loader. A run over several tasks needs a `spec`. Raises RunError when the run's training
    is not complete, when `out` is the run itself, or when `out` (without `force`) holds another run.
    """
    run = _open_trained(folder)
    training = read_json(run.folder / "training.json")
    trained_on = read_tasks(run.folder)
    spec = spec or read_task(run.folder)
    data = {"split": split, "eval_rows": eval_rows, "data_dir": data_dir}
    config = run.config.model_copy(update={"task": spec.name})
    config = _changed(config, data=data, evaluation={"decode": decode})
    to = destination(run, config, spec, out, force=force)
    rows = eval_rows_for(config, spec)  # before anything is replaced: a mistake in data or model keeps the results
    judging_run = _based(_pinned(run, config), model)
    load = load or _loading_once([spec])
    judge, setup_s = timed(lambda: load(judging_run, spec))
    with ExitStack() as open_runs:
        if to.in_place:
            open_runs.enter_context(_in_place(run))
        if to.folder == run.folder:
            target = run
        else:
            target = Run.create(to.folder, config, force=to.replaces)
            open_runs.enter_context(ended(target))
        write_task(target, spec)
        record = {**task_record(training, spec.name), "seconds": {**training["seconds"], "setup": setup_s}}
        if not to.in_place:  # the run's overlap figures describe its own rows, not these
            rows_sha256 = fingerprint(rows)
            to_record = Run(target.folder, judging_run.config)
            record_environment(to_record, get_entry(config.method).model, [spec], rows_sha256)
            record |= {"rows_sha256": rows_sha256, **{key: None for key in record if key.startswith("overlap")}}
        if spec not in trained_on:
            record |= {"trained_on": ",".join(each.name for each in trained_on)}
        return target.folder, judge_rows(target, spec, judge, rows, record, tasks=len(trained_on))


def destination(run: Run, config: Config, spec: TaskSpec, out: str | Path | None, *, force: bool) -> Destination:
    """Return where an evaluation of `run` with these settings is written.

    The run's own evaluation is written to the run folder (for a run over several tasks, to the task's folder). Any
    other (another task, split, number of rows or decoding) is written to `out`, or to a folder under ``evaluations/``.
    Raises RunError when `out` is the run itself and would lose its own results.
    """
    trained_on = read_tasks(run.folder)
    to_itself = out is None or Path(out).resolve() == run.folder.resolve()
    if to_itself and spec in trained_on and _is_judged_alike(config, run.config):
        if len(trained_on) == 1:
            return Destination(run.folder, in_place=True, replaces=True)
        return Destination(task_folder(run.folder, spec.name), in_place=True, replaces=True)
    if out is None:
        return Destination(run.folder / "evaluations" / _title(config, spec), in_place=False, replaces=True)
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
    return Run(run.folder, pinned(run.folder, config))


def _based(run: Run, model: str | None) -> Run:
    """Return the run with its base model in its place, or in that of `model`; see `with_base`."""
    key = get_entry(run.config.method).model
    environment = run.folder / "environment.json"
    recorded = (read_json(environment).get("model") if environment.is_file() else None) or {}
    return Run(run.folder, with_base(run.folder, run.config, key, recorded, model))


def _load(run: Run, specs: Sequence[TaskSpec]) -> dict[str, Judge]:
    """Return the judge of each task, by the task's name."""
    judges = get_entry(run.config.method).load().load(run, specs)
    return {spec.name: judge for spec, judge in zip(specs, judges, strict=True)}


def _loading_once(specs: Sequence[TaskSpec]) -> LoadJudge:
    """Return a loader that loads the judges of all tasks on its first call."""
    judges: dict[str, Judge] = {}

    def load(run: Run, spec: TaskSpec) -> Judge:
        if not judges:
            judges.update(_load(run, specs))
        return judges[spec.name]

    return load


def _changed(config: Config, **groups: Mapping[str, Any]) -> Config:
    """Return the settings with other values in some groups; None changes nothing. Raises ConfigError."""
    tree = config.model_dump()
    for group, values in groups.items():
        tree[group] |= {name: value for name, value in values.items() if value is not None}
    return parse_config(tree)


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


def _is_judged_alike(one: Config, other: Config) -> bool:
    return (one.data.split, one.data.eval_rows, one.evaluation.decode) == (
        other.data.split,
        other.data.eval_rows,
        other.evaluation.decode,
    )


def _title(config: Config, spec: TaskSpec) -> str:
    parts = [spec.name.replace("/", "-"), config.data.split, config.evaluation.decode]
    return "-".join(parts if config.data.eval_rows is None else [*parts, str(config.data.eval_rows)])
