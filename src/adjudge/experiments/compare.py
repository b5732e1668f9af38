"""Compare methods × tasks × seeds on the same rows, prompts and budget, and write the table.

OUT/TASK/METHOD/seed-N/          one run folder per cell ("/" in a task's name is written "-")
OUT/multi-task/METHOD/seed-N/    one run folder for all tasks: a cell of a method that is trained on their mixture
OUT/TASK/METHOD/seed-N-fold-F/   with folds: one run folder per fold, and beside them seed-N-pooled/ with their results
OUT/table.json, table.md, report.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import AdjudgeError
from adjudge.experiments.cells import Cell, holds_the_same, is_finished, plan_cells
from adjudge.experiments.judging import ensure_model, score_line
from adjudge.experiments.process import CellProcesses
from adjudge.experiments.table import write_table
from adjudge.runs.start import starting_point
from adjudge.system.console import note, warn
from adjudge.system.files import Lock
from adjudge.tasks.spec import TaskSpec

Runner = Callable[..., Mapping[str, Any]]
"""Runs one cell: (config, tasks, folder, force=…, resume=…) → scores."""


def compare(
    config: Config,
    specs: Sequence[TaskSpec],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    force: bool = False,
    command: str = "",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Run every unfinished cell, write the table after each, and return it.

    All cells share `config`: the same prompts, rows, budget and decoding. A finished cell of the same settings and rows
    is reused, and a stopped one continues from its newest checkpoint. A failed cell is listed under ``failed``, and the
    others still run. Raises RunError, before anything is run, when a cell's folder holds another run and `force` is not
    set, or when another process works in `out`. Raises DataError when the rows cannot be read, and ModelError for a
    name that is no model. Raises KeyboardInterrupt, with the incomplete folder, after Ctrl-C. By default `runner` is
    one process per cell.
    """
    out = Path(out)
    cells = plan_cells(config, specs, methods, seeds, out)
    reused = [cell for cell in cells if is_finished(cell, force=force)]
    for cell in reused:
        note(f"reusing {cell.folder}")
    todo = [cell for cell in cells if cell not in reused]
    note(f"{len(todo)} of {len(cells)} cells to run" + (f": {', '.join(cell.title for cell in todo)}" if todo else "."))
    for cell in todo:
        ensure_model(cell.config)
    if any(cell.config.init is not None for cell in todo):
        starting_point(config)
    lock = Lock(out)
    lock.acquire()
    try:
        with CellProcesses() as processes:
            return _run_cells(cells, todo, out, force=force, command=command, runner=runner or processes)
    finally:
        lock.release()


def _run_cells(
    cells: Sequence[Cell], todo: Sequence[Cell], out: Path, *, force: bool, command: str, runner: Runner
) -> dict[str, Any]:
    failed: dict[Path, str] = {}
    finished = {cell.folder for cell in cells if cell not in todo}
    write_table(cells, finished, out, failed, command)
    for number, cell in enumerate(todo, 1):
        note(f"[{number}/{len(todo)}] {cell.title} → {cell.folder}")
        try:
            same = not force or holds_the_same(cell)  # --force replaces other runs, not this one's checkpoint
            scores = runner(cell.config, cell.specs, cell.folder, force=not same, resume=same)
        except AdjudgeError as error:
            failed[cell.folder] = str(error)
            warn(f"{cell.title} failed: {error}")
        else:
            finished.add(cell.folder)
            note(f"    {score_line(scores)}")
        write_table(cells, finished, out, failed, command)
    table = write_table(cells, finished, out, failed, command, whole=True)
    if table["rows"]:
        from adjudge.report.html import render_report

        render_report([out], out / "report.html")
    return table
