"""Reading what runs leave behind into plain values, for the report.

A run that is not complete is listed with its state; only a file that is damaged is an error.
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
from adjudge.runs.folder import read_json
from adjudge.runs.tasks import result_folders
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

DEPTH = 5
"""How many folders below a comparison a run folder may lie (task names such as ``glue/sst2`` take two)."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run folder. `scores` is None and `predictions` is empty when it was not evaluated."""

    folder: Path
    task: str
    method: str
    model: str
    seed: int | None
    state: str
    reason: str
    settings: str
    """config.yaml as text."""
    spec: TaskSpec | None
    metrics: tuple[Mapping[str, Any], ...]
    predictions: tuple[Prediction, ...]
    scores: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self.scores is not None


@dataclass(frozen=True, slots=True)
class Collection:
    """Everything a report shows: the runs, and the table they make (see `adjudge.report.tables`)."""

    folders: tuple[Path, ...]
    runs: tuple[RunRecord, ...]
    table: Mapping[str, Any]
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the files themselves say of their origin: command, version, date."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in the order of the table, then those that have only unfinished runs."""
        named = [str(row["task"]) for row in self.table["rows"]] + [run.task for run in self.runs]
        return tuple(dict.fromkeys(named))

    @property
    def methods(self) -> tuple[str, ...]:
        """Method names in the order of the table, then those that have only unfinished runs."""
        named = [str(row["method"]) for row in self.table["rows"]] + [run.method for run in self.runs]
        return tuple(dict.fromkeys(named))

    def spec(self, task: str) -> TaskSpec | None:
        """The task as its runs recorded it."""
        return next((run.spec for run in self.runs if run.task == task and run.spec is not None), None)


def collect(folders: Sequence[Path]) -> Collection:
    """Read comparison folders (with table.json, or with run folders below) and single run folders.

    A method that occurs in several of `folders` with the same task and seed is told apart by its folder's name.
    Raises RunError when a folder is neither, or a file in it is damaged.
    """
    if not folders:
        raise RunError("There is nothing to report on: name at least one run or comparison folder.")
    runs: list[RunRecord] = []
    rows: list[dict[str, Any]] = []
    merged: dict[str, list[Any]] = {"tests": [], "summary": [], "failed": [], "pending": []}
    unfinished = 0
    provenance: dict[str, str] = {}
    taken: set[tuple[str, str, int | None]] = set()
    for folder in map(Path, folders):
        found, table = _collect_folder(folder)
        keys = {(str(row["task"]), str(row["method"]), row.get("seed")) for row in table["rows"]}
        if keys & taken:
            found, table = _renamed(found, table, folder)
        taken |= keys
        runs += found
        rows += table["rows"]
        for key, entries in merged.items():
            entries.extend(table.get(key) or ())
        unfinished += int(table.get("unfinished") or 0)
        provenance |= {key: str(table[key]) for key in ("command", "version", "date") if table.get(key)}
    return Collection(
        tuple(map(Path, folders)), tuple(runs), {"rows": rows, **merged, "unfinished": unfinished}, provenance
    )


def read_run(folder: Path) -> RunRecord:
    """Read one run folder, complete or not. Raises RunError that names a damaged file."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it has no config.yaml.")
    settings, config = _read_yaml(path)
    status = read_json(folder / "status.json") if (folder / "status.json").is_file() else {"state": "unknown"}
    scores = read_json(folder / "scores.json") if (folder / "scores.json").is_file() else None
    if not isinstance(status, dict):
        raise RunError(f"{folder / 'status.json'}: is not a JSON object. Run this cell again with --force.")
    if scores is not None:
        _check_scores(scores, folder / "scores.json")
    state = str(status.get("state"))
    known = scores or {}
    split = str(known.get("split") or (config.get("data") or {}).get("split") or "dev")
    return RunRecord(
        folder=folder,
        task=str(known.get("task") or config.get("task")),
        method=str(known.get("method") or config.get("method")),
        model=str(known.get("model") or config.get("model")),
        seed=known.get("seed", config.get("seed")),
        state=state,
        reason=str(status.get("reason") or ""),
        settings=settings,
        spec=_read_spec(folder / "task.yaml"),
        metrics=tuple(_read_metrics(folder, state)),
        predictions=tuple(_read_predictions(folder / "predictions" / f"{split}.jsonl")),
        scores=scores,
    )


def read_runs(folder: Path) -> list[RunRecord]:
    """The run of a folder; of a finished run over several tasks, one for each task."""
    run = read_run(folder)
    if not run.finished or not (folder / "tasks.yaml").is_file():
        return [run]
    return [read_run(part) for part in result_folders(folder)]


def _collect_folder(folder: Path) -> tuple[list[RunRecord], dict[str, Any]]:
    """The runs of one folder and its table, read or made from the runs' scores."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder.")
    if (folder / "config.yaml").is_file() and not (folder / "table.json").is_file():
        runs = read_runs(folder)
        return runs, {"rows": [dict(run.scores) for run in runs if run.scores], "tests": []}
    places = sorted(_run_folders(folder))
    if not (folder / "table.json").is_file():
        if not places:
            raise RunError(f"{folder} is neither a run folder (no config.yaml) nor a comparison (no table.json).")
        runs = [run for place in places for run in read_runs(place)]
        return runs, {"rows": [dict(run.scores) for run in runs if run.scores], "tests": []}
    table = read_json(folder / "table.json")
    _check_table(table, folder / "table.json")
    wanted = [(folder / str(row["run"])).resolve() for row in table["rows"] if row.get("run")]
    missing = [path for path in wanted if not (path / "config.yaml").is_file()]
    if missing:
        raise RunError(
            f"{folder / 'table.json'}: names the run folder {missing[0]}, which is not there. Compare again."
        )
    runs = [read_run(path) for path in wanted]
    # Cells of an earlier comparison in the same folder are no part of this table; unfinished ones may be, and are listed.
    others = (read_run(place) for place in places if place.resolve() not in set(wanted))
    return runs + [run for run in others if not (run.finished and run.state == "complete")], table


def _run_folders(folder: Path, depth: int = DEPTH) -> Iterable[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            if (child / "config.yaml").is_file():
                yield child
            elif depth > 1:
                yield from _run_folders(child, depth - 1)


def _renamed(
    runs: Sequence[RunRecord], table: Mapping[str, Any], folder: Path
) -> tuple[list[RunRecord], dict[str, Any]]:
    def name(method: Any) -> str:
        return f"{method} ({folder.name})"

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
    for key in ("tests", "summary", "failed", "pending"):
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
    phenomena = scores.get("diagnostics") or []
    wanted = {"category", "phenomenon", "n", "metrics"}
    if not isinstance(phenomena, list) or not all(
        isinstance(item, dict) and wanted <= item.keys() for item in phenomena
    ):
        _damaged(path, f"{where}'diagnostics' is not a list of objects with {', '.join(sorted(wanted))}")


def _damaged(path: Path, what: str) -> NoReturn:
    raise RunError(f"{path}: {what}. The file is damaged; run this cell again with --force.")


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path}: holds no settings.")
    return text, tree


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
    """What a run logged. The result of one task of several (RUN/tasks/TASK) has that task's part of what the run logged."""
    whole = folder.parent.parent
    if folder.parent.name != "tasks" or not (whole / "tasks.yaml").is_file():
        return _read_records(folder / "metrics.jsonl", torn_end=state != "complete")
    records = _read_records(whole / "metrics.jsonl", torn_end=True)
    return [record for record in records if str(record.get("task", "")).replace("/", "-") == folder.name]


def _read_records(path: Path, *, torn_end: bool = False) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; none when it is missing.

    With `torn_end` a last line that is cut off is left out: that is what killing a run while it writes leaves behind.
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
            record = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        except ValueError as error:  # not UTF-8, not JSON, or NaN
            if torn_end and number == last:
                break
            raise RunError(f"{path}:{number}: is not JSON in UTF-8: {error}") from None
        if not isinstance(record, dict):
            raise RunError(f"{path}:{number}: is not a JSON object.")
        records.append(record)
    return records


def _no_constant(name: str) -> NoReturn:
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
