"""Compare methods × tasks × seeds on the same rows, prompts and budget, and write the table.

OUT/TASK/METHOD/seed-N/          one run folder per cell ("/" in a task's name is written "-")
OUT/multi-task/METHOD/seed-N/    one run folder for all tasks: a cell of a method that is trained on their mixture
OUT/TASK/METHOD/seed-N-fold-F/   with folds: one run folder per fold, and beside them seed-N-pooled/ with their results
OUT/table.json, table.md, report.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from adjudge.config import Config, RuntimeConfig
from adjudge.errors import AdjudgeError
from adjudge.experiments.cells import Cell, can_go_on, is_finished, plan_cells
from adjudge.experiments.dry_run import Estimate, estimate_all, expected_length, planned_runs
from adjudge.experiments.judging import ensure_model, score_line
from adjudge.experiments.process import CellProcesses
from adjudge.experiments.sending import check_sending
from adjudge.experiments.side_by_side import (
    check_jobs,
    check_launcher,
    job_environments,
    run_side_by_side,
    suggest_jobs,
)
from adjudge.experiments.table import warn_of_left_out, write_table
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
    jobs: int | None = None,
    launcher: str = "local",
    tuned: Mapping[str, Any] | None = None,
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Run every unfinished cell, write the table after each, and return it.

    All cells share `config`: the same prompts, rows, budget and decoding. A finished cell of the same settings and rows
    is reused, and a stopped one continues from its newest checkpoint. A failed cell is listed under ``failed``, and the
    others still run. Up to `jobs` cells (one by default) run side by side, each with its share of the processors or a
    GPU; with the launcher "ray" on the machines of a cluster (`adjudge.experiments.on_ray`). `tuned` is what the table
    records of a search of settings. By default `runner` is one process per cell; with another one the cells run one
    after the other.

    Raises RunError, before anything is run, when a cell's folder holds another run and `force` is not set, or when
    another process works in `out`. Raises ConfigError for fewer than one job and for a launcher that is not there,
    DataError when the rows cannot be read, and ModelError for a name that is no model. Raises KeyboardInterrupt, with
    the incomplete folder, after Ctrl-C.
    """
    check_jobs(jobs)
    check_launcher(launcher)
    out = Path(out)
    cells, todo = _planned(config, specs, methods, seeds, out, force=force)
    note(f"{len(todo)} of {len(cells)} runs to do" + (f": {', '.join(cell.title for cell in todo)}" if todo else "."))
    for cell in todo:
        ensure_model(cell.config)
    check_sending([(cell.config, cell.going, cell.folder) for cell in todo], say=True)
    if any(cell.config.init is not None for cell in todo):
        starting_point(config)
    warn_of_left_out(out, cells)
    lock = Lock(out)
    lock.acquire()
    try:
        places = min(jobs or 1, len(cells))  # not of what is left: a stopped run goes on with as many threads as it had
        if places > 1:
            todo.sort(key=lambda cell: expected_length(cell.config))  # no long run begins last, and alone
        board = _Board(cells, todo, out, command, tuned, force=force)
        if launcher == "ray" and todo and runner is None:
            board.run_on_ray(config.runtime, jobs)
        elif places > 1 and todo and runner is None:
            board.run_side_by_side(job_environments(places, config.runtime)[: len(todo)])
        else:
            if jobs is None and runner is None:
                suggest_jobs(len(todo), config.runtime)
            with CellProcesses() as processes:
                board.run_in_turn(runner or processes)
        return board.finish()
    finally:
        lock.release()


def dry_run(
    config: Config,
    specs: Sequence[TaskSpec],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    force: bool = False,
) -> list[Estimate]:
    """Return what the unfinished cells would take, one estimate per task and method.

    The arguments are those of `compare`. Nothing is written to `out`. Raises what `compare` raises before anything is
    run.
    """
    _, todo = _planned(config, specs, methods, seeds, Path(out), force=force)
    return estimate_all(planned_runs((cell.config, cell.specs) for cell in todo))


def _planned(
    config: Config, specs: Sequence[TaskSpec], methods: Sequence[str], seeds: Sequence[int], out: Path, *, force: bool
) -> tuple[list[Cell], list[Cell]]:
    """Return all cells, and those to run. Names the finished ones."""
    cells = plan_cells(config, specs, methods, seeds, out)
    reused = [cell for cell in cells if is_finished(cell, force=force)]
    for cell in reused:
        note(f"reusing {cell.folder}")
    return cells, [cell for cell in cells if cell not in reused]


class _Board:
    """What is done and what is not: runs the cells of `todo`, and writes the table after each."""

    def __init__(
        self,
        cells: Sequence[Cell],
        todo: Sequence[Cell],
        out: Path,
        command: str,
        tuned: Mapping[str, Any] | None,
        *,
        force: bool,
    ) -> None:
        self._tuned = tuned
        self._cells, self._todo, self._out, self._command, self._force = cells, todo, out, command, force
        self._numbers = count(1)
        self._failed: dict[Path, str] = {}
        self._finished = {cell.folder for cell in cells if cell not in todo}
        self._write()

    def run_in_turn(self, runner: Runner) -> None:
        """Run one cell after the other."""
        for cell in self._todo:
            try:
                scores = self._run(runner, cell)
            except AdjudgeError as error:
                self._ended(cell, error)
            else:
                self._ended(cell, scores)

    def run_side_by_side(self, environments: Sequence[Mapping[str, str]]) -> None:
        """Run as many cells at a time as there are `environments`.

        Raises KeyboardInterrupt with the whole folder.
        """

        def run(processes: CellProcesses, cell: Cell) -> Mapping[str, Any]:
            return self._run(partial(processes, title=cell.title), cell)

        note(f"{len(environments)} runs side by side; their seconds are those of runs beside others.")
        try:
            run_side_by_side(self._todo, environments, run, self._ended)
        except KeyboardInterrupt as stop:
            raise type(stop)(str(self._out)) from None

    def run_on_ray(self, runtime: RuntimeConfig, jobs: int | None) -> None:
        """Run the cells on a Ray cluster. Raises KeyboardInterrupt with the whole folder."""
        from adjudge.experiments.on_ray import run_on_ray

        try:
            run_on_ray(self._todo, runtime, self._begin, self._ended, jobs=jobs)
        except KeyboardInterrupt as stop:
            raise type(stop)(str(self._out)) from None

    def finish(self) -> dict[str, Any]:
        """Write the whole table and the report, and return the table."""
        table = self._write(whole=True)
        if table["rows"]:
            from adjudge.report.html import render_report

            render_report([self._out], self._out / "report.html")
        return table

    def _run(self, runner: Runner, cell: Cell) -> Mapping[str, Any]:
        return runner(cell.config, cell.specs, cell.folder, **self._begin(cell))

    def _begin(self, cell: Cell) -> Mapping[str, bool]:
        """Announce a cell, and return how its folder is treated.

        --force replaces other runs, not the cell's own checkpoint.
        """
        note(f"[{next(self._numbers)}/{len(self._todo)}] {cell.title} → {cell.folder}")
        same = not self._force or can_go_on(cell)
        return {"force": not same, "resume": same}

    def _ended(self, cell: Cell, outcome: Mapping[str, Any] | AdjudgeError) -> None:
        if isinstance(outcome, AdjudgeError):
            self._failed[cell.folder] = str(outcome)
            warn(f"{cell.title} failed: {outcome}")
        else:
            self._finished.add(cell.folder)
            note(f"    {score_line(outcome)}")
        self._write()

    def _write(self, *, whole: bool = False) -> dict[str, Any]:
        arguments = self._cells, self._finished, self._out, self._failed, self._command
        return write_table(*arguments, self._tuned, whole=whole)
