"""Read what runs leave behind into plain values for the report.

An incomplete run is listed with its state. Only a damaged file is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from adjudge.errors import RunError
from adjudge.report.phenomena import KEYS as PHENOMENA
from adjudge.report.slices import KEYS as SLICES
from adjudge.runs.folder import read_json
from adjudge.runs.names import MULTI, names_apart, shown_name
from adjudge.runs.tasks import folder_name, read_tasks, result_folders
from adjudge.system.yaml_text import read_yaml
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

DEPTH = 5
"""How many folders below a comparison a run folder may lie (task names such as ``glue/sst2`` take two)."""

LISTS = ("tests", "summary", "failed", "pending", "apart")
"""Lists in table.json beside its rows."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder. Without an evaluation, `scores` is None and `predictions` is empty."""

    folder: Path
    task: str
    method: str
    model: str
    seed: int | None
    state: str
    reason: str
    settings: str
    """Text of config.yaml."""
    spec: TaskSpec | None
    metrics: tuple[Mapping[str, Any], ...]
    predictions: tuple[Prediction, ...]
    scores: Mapping[str, Any] | None
    fold: int | None = None
    """The fold it judged, in cross-validation."""

    @property
    def finished(self) -> bool:
        """True when the run has a result."""
        return self.scores is not None


@dataclass(frozen=True, slots=True)
class Collection:
    """Contents of a report: the runs, and the table they make (see `adjudge.report.summary`)."""

    folders: tuple[Path, ...]
    runs: tuple[RunRecord, ...]
    table: Mapping[str, Any]
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Command, version and date, as the files record them."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in the order of the table, then those with unfinished runs only."""
        names = [str(row["task"]) for row in self.table["rows"]] + [run.task for run in self.runs]
        return tuple(dict.fromkeys(names))

    @property
    def methods(self) -> tuple[str, ...]:
        """Method names in the order of the table, then those with unfinished runs only."""
        names = [str(row["method"]) for row in self.table["rows"]] + [run.method for run in self.runs]
        return tuple(dict.fromkeys(names))

    def spec(self, task: str) -> TaskSpec | None:
        """Return the task as its runs recorded it."""
        return next((run.spec for run in self.runs if run.task == task and run.spec is not None), None)


def collect(folders: Sequence[Path]) -> Collection:
    """Read comparison folders (with table.json, or with run folders below) and single run folders.

    When several of `folders` hold the same method, task and seed, the folder's name is added to the method's name, from
    the second on. A folder that is given twice is read once. Raises RunError when a folder is neither, or a file in it
    is damaged.
    """
    if not folders:
        raise RunError("There is nothing to report on: name at least one run or comparison folder.")
    runs: list[RunRecord] = []
    rows: list[dict[str, Any]] = []
    merged: dict[str, list[Any]] = {name: [] for name in LISTS}
    unfinished = 0
    published: Any = None
    provenance: dict[str, str] = {}
    known: set[tuple[str, str, int | None]] = set()
    folders = list({Path(folder).resolve(): Path(folder) for folder in folders}.values())
    for folder, short in zip(folders, names_apart(folders), strict=True):
        folder_runs, table = _collect_folder(folder)
        cells = {(str(row["task"]), str(row["method"]), row.get("seed")) for row in table["rows"]}
        if cells & known:
            folder_runs, table = _renamed(folder_runs, table, short)
        known |= cells
        runs += folder_runs
        rows += table["rows"]
        for name, entries in merged.items():
            entries.extend(table.get(name) or ())
        unfinished += int(table.get("unfinished") or 0)
        published = published or table.get("published")
        provenance |= {key: str(table[key]) for key in ("command", "version", "date") if table.get(key)}
    table = {"rows": rows, **merged, "unfinished": unfinished, "published": published}
    return Collection(tuple(folders), tuple(runs), table, provenance)


def read_run(folder: Path) -> RunRecord:
    """Read one run folder, complete or not. Raises RunError that names a damaged file."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it has no config.yaml.")
    settings, config = _read_yaml(path)
    state, reason = _read_status(folder / "status.json")
    scores = read_json(folder / "scores.json") if (folder / "scores.json").is_file() else None
    if scores is not None:
        _check_scores(scores, folder / "scores.json")
    recorded = scores or {}
    split = str(recorded.get("split") or (config.get("data") or {}).get("split") or "dev")
    return RunRecord(
        folder=folder,
        task=str(recorded.get("task") or config.get("task")),
        method=str(recorded.get("method") or config.get("method")),
        model=str(recorded.get("model", config.get("model"))),
        seed=recorded.get("seed", config.get("seed")),
        state=state,
        reason=reason,
        settings=settings,
        spec=_read_spec(folder / "task.yaml"),
        metrics=tuple(_read_metrics(folder, state)),
        predictions=tuple(_read_predictions(folder / "predictions" / f"{split}.jsonl")),
        scores=scores,
        fold=(config.get("data") or {}).get("fold"),
    )


def read_runs(folder: Path) -> list[RunRecord]:
    """Read the run of a folder; a run over several tasks gives one record per task, finished or not."""
    run = read_run(folder)
    tasks = run.task.split(",")
    if len(tasks) == 1:
        return [run]
    has_tasks = (folder / "tasks.yaml").is_file()
    if run.finished and has_tasks:
        return [read_run(part) for part in result_folders(folder)]
    specs = {spec.name: spec for spec in read_tasks(folder)} if has_tasks else {}
    method = shown_name(run.method.removeprefix(MULTI), len(tasks))
    logs = {task: tuple(record for record in run.metrics if record.get("task") == task) for task in tasks}
    return [replace(run, task=task, method=method, spec=specs.get(task), metrics=logs[task]) for task in tasks]


def _collect_folder(folder: Path) -> tuple[list[RunRecord], dict[str, Any]]:
    """Return the runs of one folder and its table, read from table.json or made from the runs' scores."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder.")
    has_table = (folder / "table.json").is_file()
    if (folder / "config.yaml").is_file() and not has_table:
        return _with_table(read_runs(folder))
    run_folders = sorted(_run_folders(folder))
    if not has_table:
        if not run_folders:
            raise RunError(f"{folder} is neither a run folder (no config.yaml) nor a comparison (no table.json).")
        return _with_table([run for run_folder in run_folders for run in read_runs(run_folder)])
    table = read_json(folder / "table.json")
    _check_table(table, folder / "table.json")
    listed = [(folder / str(row["run"])).resolve() for row in table["rows"] if row.get("run")]
    missing = [path for path in listed if not (path / "config.yaml").is_file()]
    if missing:
        raise RunError(
            f"{folder / 'table.json'}: names the run folder {missing[0]}, which is not there. Compare again."
        )
    runs = [read_run(path) for path in listed]
    certain = {run.folder: _certainty_of(run) for run in runs}
    rows = [{**row, **certain.get((folder / str(row.get("run"))).resolve(), {})} for row in table["rows"]]
    # A complete run outside the table belongs to an earlier comparison in this folder; an incomplete one may be a cell
    # of this comparison, and is listed.
    parts = [folder / str(part) for row in table["rows"] for part in row.get("fold_runs") or ()]
    folds = [_without_rows(run) for part in parts if (part / "config.yaml").is_file() for run in read_runs(part)]
    known = {*listed, *(part.resolve() for part in parts)}
    others = (run for path in run_folders if path.resolve() not in known for run in read_runs(path))
    unfinished = [run for run in others if not (run.finished and run.state == "complete")]
    return [*runs, *folds, *unfinished], {**table, "rows": rows}


def _certainty_of(run: RunRecord) -> dict[str, Any]:
    """Return a run's scores of its probabilities: it may have been calibrated after the comparison."""
    probabilities = (run.scores or {}).get("probabilities")
    return {"probabilities": probabilities} if probabilities else {}


def _with_table(runs: list[RunRecord]) -> tuple[list[RunRecord], dict[str, Any]]:
    """Return the runs and the table of their scores.

    Folds whose pooled result is there are part of it; the others stand alone.
    """
    pooled = {_identity(run) for run in runs if run.scores and run.fold is None and run.scores.get("folds")}
    shown = []
    for run in runs:
        if run.fold is None:
            shown.append(run)
        elif _identity(run) in pooled:
            shown.append(_without_rows(run))
        else:
            shown.append(replace(run, method=f"{run.method} (fold {run.fold})"))
    rows = [
        {**run.scores, "method": run.method}
        for run in shown
        if run.scores and (run.fold is None or _identity(run) not in pooled)
    ]
    return shown, {"rows": rows, "tests": []}


def _identity(run: RunRecord) -> tuple[str, str, int | None]:
    return run.task, run.method, run.seed


def _without_rows(fold: RunRecord) -> RunRecord:
    """Return the run of a fold without its predictions: the pooled result has them."""
    return replace(fold, predictions=())


def _run_folders(folder: Path, depth: int = DEPTH) -> Iterable[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            if (child / "config.yaml").is_file():
                yield child
            elif depth > 1:
                yield from _run_folders(child, depth - 1)


def _renamed(
    runs: Sequence[RunRecord], table: Mapping[str, Any], folder: str
) -> tuple[list[RunRecord], dict[str, Any]]:
    """Add the name of their folder to the name of every method."""

    def name(method: Any) -> str:
        return f"{method} ({folder})"

    renamed = {key: value for key, value in table.items() if key not in {"rows", "tests", "summary"}}
    renamed["rows"] = [{**row, "method": name(row["method"])} for row in table["rows"]]
    renamed["summary"] = [{**row, "method": name(row["method"])} for row in table.get("summary") or ()]
    for key in ("failed", "pending"):
        renamed[key] = [{**cell, "method": name(cell.get("method"))} for cell in table.get(key) or ()]
    renamed["tests"] = [
        {**test, "a": name(test.get("a")), "b": name(test.get("b"))} for test in table.get("tests") or ()
    ]
    return [replace(run, method=name(run.method)) for run in runs], renamed


def _check_table(table: Any, path: Path) -> None:
    if not isinstance(table, dict) or not isinstance(table.get("rows"), list):
        _damaged(path, "has no list of rows")
    if not isinstance(table.get("unfinished") or 0, int):
        _damaged(path, "'unfinished' is not a number")
    for key in LISTS:
        entries = table.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            _damaged(path, f"'{key}' is not a list of objects")
    for number, row in enumerate(table["rows"]):
        _check_scores(row, path, f"row {number}: ")


def _check_scores(scores: Any, path: Path, where: str = "") -> None:
    if not isinstance(scores, dict):
        _damaged(path, f"{where}is not a JSON object")
    for key in ("task", "method", "metrics"):
        if key not in scores:
            _damaged(path, f"{where}has no '{key}'")
    metrics = scores["metrics"]
    if not isinstance(metrics, dict) or not all(
        isinstance(item, dict) and "value" in item for item in metrics.values()
    ):
        _damaged(path, f"{where}'metrics' is not a mapping of names to value, low and high")
    for part, *names in (PHENOMENA, SLICES):
        items, required = scores.get(part) or [], {*names, "n", "metrics"}
        if not isinstance(items, list) or not all(isinstance(item, dict) and required <= item.keys() for item in items):
            _damaged(path, f"{where}'{part}' is not a list of objects with {', '.join(sorted(required))}")


def _damaged(path: Path, what: str) -> NoReturn:
    raise RunError(f"{path}: {what}. The file is damaged; do this run again with --force.")


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = read_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path}: holds no settings.")
    return text, tree


def _read_status(path: Path) -> tuple[str, str]:
    """Return state and reason as recorded. A run without the file was stopped while it was set up."""
    if not path.is_file():
        return "interrupted", "stopped while it was set up"
    status = read_json(path)
    if not isinstance(status, dict):
        raise RunError(f"{path}: is not a JSON object. Do this run again with --force.")
    return str(status.get("state")), str(status.get("reason") or "")


def _read_spec(path: Path) -> TaskSpec | None:
    if not path.is_file():
        return None
    try:
        return TaskSpec.model_validate(_read_yaml(path)[1])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path}: is not a task: {where}: {first['msg']}") from None


def _read_metrics(folder: Path, state: str) -> list[dict[str, Any]]:
    """Read a run's log; for one task of several (RUN/tasks/TASK), the run's records of this task."""
    run_folder = folder.parent.parent
    if folder.parent.name != "tasks" or not (run_folder / "tasks.yaml").is_file():
        return _read_records(folder / "metrics.jsonl", torn_end=state != "complete")
    records = _read_records(run_folder / "metrics.jsonl", torn_end=True)
    return [record for record in records if folder_name(str(record.get("task", ""))) == folder.name]


def _read_records(path: Path, *, torn_end: bool = False) -> list[dict[str, Any]]:
    """Read the objects of a JSON-lines file; none when it is missing.

    With `torn_end`, drop a last line that is cut off, as a run leaves it when it is killed while writing.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except ValueError as error:  # not UTF-8, not JSON, or NaN
            if torn_end and number == last:
                break
            raise RunError(f"{path}:{number}: is not JSON in UTF-8: {error}") from None
        if not isinstance(record, dict):
            raise RunError(f"{path}:{number}: is not a JSON object.")
        records.append(record)
    return records


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _read_predictions(path: Path) -> list[Prediction]:
    predictions = []
    for number, record in enumerate(_read_records(path), 1):
        try:
            prediction = Prediction(**record)
        except TypeError as error:
            raise RunError(f"{path}:{number}: is no prediction: {str(error).partition('() ')[2]}") from None
        if not all(isinstance(part, dict) for part in (prediction.fields, prediction.probabilities, prediction.tags)):
            raise RunError(f"{path}:{number}: is no prediction: 'fields', 'probabilities' and 'tags' are mappings.")
        predictions.append(prediction)
    return predictions
