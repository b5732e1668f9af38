"""Pick a run of a comparison, to judge new rows with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adjudge.errors import RunError, nearest
from adjudge.report.summary import ranked, summarise
from adjudge.runs.folder import read_json
from adjudge.system.console import note


def pick_run(folder: Path, task: str | None = None, method: str | None = None, seed: int | None = None) -> Path:
    """Return the folder itself, or the run of a comparison's folder: of the best method, its first seed.

    `task`, `method` and `seed` narrow the choice. Raises RunError where nothing fits, several tasks do, or the folder
    is a single run and `method` or `seed` is given.
    """
    table = folder / "table.json"
    if (folder / "config.yaml").is_file() or not table.is_file():
        if method is not None or seed is not None:
            raise RunError(f"{folder} is no comparison: --method and --seed choose among the runs of one.")
        return folder
    whole = read_json(table)
    rows: list[dict[str, Any]] = list(whole["rows"])
    if not rows:
        raise RunError(f"{folder} has no finished run yet.")
    rows = _narrowed(folder, rows, "task", task)
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    if len(tasks) > 1:
        raise RunError(f"{folder} compares several tasks: name one with --task {' or '.join(tasks)}.")
    rows = _narrowed(folder, rows, "method", method)
    rows = _narrowed(folder, rows, "seed", None if seed is None else str(seed))
    best = ranked(summarise({"rows": rows}))[0]
    row = next(row for row in rows if row["method"] == best.method)
    left = [f"{cell['method']}, seed {cell['seed']}" for cell in whole.get("pending") or () if method is None]
    if left:
        note(f"the comparison is not finished: {'; '.join(left[:4])}{' …' if len(left) > 4 else ''} may judge better.")
    chosen = _trained(folder / str((row.get("fold_runs") or [row["run"]])[0]))
    part = f"; it is the first of {row['folds']} folds and learned from the others" if row.get("folds") else ""
    note(f"judging with {chosen}: {best.method}, {best.primary} {best.metrics[best.primary]}{part}")
    return chosen


def _trained(folder: Path) -> Path:
    """Return the folder of the run whose result is in `folder`: each of several tasks has its own."""
    run = folder.parent.parent
    return run if folder.parent.name == "tasks" and (run / "tasks.yaml").is_file() else folder


def _narrowed(folder: Path, rows: list[dict[str, Any]], what: str, value: str | None) -> list[dict[str, Any]]:
    if value is None:
        return rows
    known = list(dict.fromkeys(str(row[what]) for row in rows))
    if value not in known:
        raise RunError(f"{folder} has no {what} '{value}'; it has {', '.join(known)}.{nearest(value, known)}")
    return [row for row in rows if str(row[what]) == value]
