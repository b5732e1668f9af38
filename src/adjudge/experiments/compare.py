"""The comparison: methods × tasks × seeds on the same rows, prompts and budget, and the table they make.

OUT/TASK/METHOD/seed-N/          one run folder a cell ("/" in a task's name is written "-")
OUT/multi-task/METHOD/seed-N/    one run folder for all tasks: a cell of a method that is trained on their mixture
OUT/table.json, table.md, report.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from adjudge.config import Config
from adjudge.errors import AdjudgeError, ConfigError, RunError
from adjudge.experiments.execute import EVAL_SEED, ensure_model, fingerprint, score_line, training_rows
from adjudge.experiments.multitask import draw, load_pools, mixture_config, mixture_fingerprint, mixture_line
from adjudge.experiments.process import run_isolated
from adjudge.methods.registry import check_methods, get_entry, is_multi, own_settings
from adjudge.runs.folder import Run, differences, is_unused, read_json
from adjudge.runs.tasks import read_tasks, task_folder
from adjudge.system.console import note, warn
from adjudge.system.files import Lock, write_json, write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction
from adjudge.version import __version__

SCHEMA = 1

Runner = Callable[..., Mapping[str, Any]]
"""Runs a cell: (config, task or tasks, folder, force=…) → scores."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one task with one seed, or on the mixture of several."""

    config: Config
    spec: TaskSpec
    """The task; the first of a mixture."""
    folder: Path
    rows: str
    """Fingerprint of the rows it learns from and judges."""
    mixture: tuple[TaskSpec, ...] = ()
    """The tasks of a mixture; empty for one task."""

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks it learns and judges."""
        return self.mixture or (self.spec,)

    @property
    def title(self) -> str:
        """``glue/sst2 sft seed 0``."""
        return f"{self.config.task} {self.config.method} seed {self.config.seed}"

    def results(self) -> list[Cell]:
        """What it gives the table: itself, or, of a mixture, a cell a task, whose folder is that of the task's result."""
        if not self.mixture:
            return [self]
        config = self.config
        return [
            Cell(config.model_copy(update={"task": spec.name}), spec, task_folder(self.folder, spec.name), self.rows)
            for spec in self.mixture
        ]


def compare(
    config: Config,
    specs: Sequence[TaskSpec],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    force: bool = False,
    command: str = "",
    runner: Runner = run_isolated,
) -> dict[str, Any]:
    """Run every cell that is not finished, from its newest checkpoint where it has one, write the table after each, and return it.

    All cells share `config`: the same prompts, rows, budget and way to decode. A finished cell of the same settings and rows
    is reused; a cell that fails is listed under ``failed`` and the others go on.
    Raises RunError before anything is run when a cell's folder holds another run and `force` is not set, or another process works in
    `out`; DataError when the rows cannot be read, ModelError for a name that is no model; KeyboardInterrupt, with the folder that is
    incomplete, after Ctrl-C.
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
    lock = Lock(out)
    lock.acquire()
    try:
        return _run_cells(cells, todo, out, force=force, command=command, runner=runner)
    finally:
        lock.release()


def _run_cells(
    cells: Sequence[Cell], todo: Sequence[Cell], out: Path, *, force: bool, command: str, runner: Runner
) -> dict[str, Any]:
    failed: dict[Path, str] = {}
    write_table(cells, out, failed, command)
    for number, cell in enumerate(todo, 1):
        note(f"[{number}/{len(todo)}] {cell.title} → {cell.folder}")
        try:
            same = not force or _holds_the_same(cell)  # what --force replaces is other runs, not this one's checkpoint
            scores = runner(cell.config, cell.mixture or cell.spec, cell.folder, force=not same, resume=same)
        except AdjudgeError as error:
            failed[cell.folder] = str(error)
            warn(f"{cell.title} failed: {error}")
        else:
            note(f"    {score_line(scores)}")
        write_table(cells, out, failed, command)
    table = write_table(cells, out, failed, command, whole=True)
    if table["rows"]:
        from adjudge.report.html import render_report

        render_report([out], out / "report.html")
    return table


def plan_cells(
    config: Config, specs: Sequence[TaskSpec], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """The cells in the order they are run: task by task, then those of the mixture of all tasks. Says how many rows there are.

    Raises ConfigError for an unknown method, an empty list, or two tasks of one name; DataError for rows that cannot be read.
    """
    methods = check_methods(methods)
    if not seeds or not specs:
        raise ConfigError("There is nothing to compare: name at least one task and one seed.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two tasks have the same name: {', '.join(names)}. Name each task once.")
    seeds = list(dict.fromkeys(seeds))
    alone, mixed = [name for name in methods if not is_multi(name)], [name for name in methods if is_multi(name)]
    if mixed and len(specs) < 2:
        raise ConfigError(f"{mixed[0]} trains on several tasks: name them with --task NAME,NAME.")
    cells = [cell for spec in specs for cell in _task_cells(config, spec, alone, seeds, out)] if alone else []
    return cells + (_mixture_cells(config, specs, mixed, seeds, out) if mixed else [])


def _task_cells(config: Config, spec: TaskSpec, methods: Sequence[str], seeds: Sequence[int], out: Path) -> list[Cell]:
    from adjudge.tasks import load_split, take_rows

    data = config.data
    split = load_split(spec, data.split, data.data_dir)
    judged = take_rows(split, data.eval_rows, EVAL_SEED)
    learns = any(get_entry(method).rows != "none" for method in methods)
    everything = training_rows(config, spec, split) if learns else []
    train = {seed: take_rows(everything, data.train_rows, seed, whole_groups=False) if learns else [] for seed in seeds}
    trained = f", {min(len(rows) for rows in train.values())} to train on" if learns else ""
    note(f"{spec.name}: {len(judged)} rows of {data.split} to judge{trained}.")
    cells = []
    for method in methods:
        for seed in seeds:
            own = own_settings(config.model_copy(update={"task": spec.name, "method": method, "seed": seed}))
            used = train[seed] if get_entry(method).rows != "none" else []
            folder = out / spec.name.replace("/", "-") / method / f"seed-{seed}"
            cells.append(Cell(own, spec, folder, fingerprint([*used, *judged])))
    return cells


def _mixture_cells(
    config: Config, specs: Sequence[TaskSpec], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Cells that learn from as many rows as the tasks' own cells do together; by default from the very same rows."""
    pools, judged = load_pools(config, specs)
    each = config.data.train_rows
    total = sum(len(pool) if each is None else min(each, len(pool)) for pool in pools)
    data = config.data.model_copy(update={"train_rows": total, "mixture": config.data.mixture or "equal"})
    cells: list[Cell] = []
    for method in methods:
        for seed in seeds:
            own = mixture_config(config.model_copy(update={"data": data, "method": method, "seed": seed}), specs)
            parts = draw(own, specs, pools)
            if not cells:
                note(mixture_line(parts))
            rows = mixture_fingerprint(parts, judged)
            cells.append(Cell(own, specs[0], out / "multi-task" / method / f"seed-{seed}", rows, tuple(specs)))
    return cells


def is_finished(cell: Cell, *, force: bool = False) -> bool:
    """Whether the cell's folder holds its result.

    Raises RunError when it holds a run of other settings, another task or other rows, unless `force`.
    """
    if is_unused(cell.folder):
        return False
    try:
        other = _otherness(cell, Run.open(cell.folder))
    except RunError:
        if force and (cell.folder / "config.yaml").is_file():
            return False
        raise
    if other and not force:
        raise RunError(f"{cell.folder} holds a run of {other}. Name another --out, or add --force to replace it.")
    run = Run.open(cell.folder)
    return not other and run.state == "complete" and (cell.folder / "scores.json").is_file()


def _holds_the_same(cell: Cell) -> bool:
    """Whether the cell's folder is empty, or holds the very run, however far it is."""
    if is_unused(cell.folder):
        return True
    try:
        return not _otherness(cell, Run.open(cell.folder))
    except RunError:
        return False


def _otherness(cell: Cell, run: Run) -> str:
    changed = differences(run.config, cell.config)
    if changed:
        return f"other settings ({', '.join(changed)})"
    written = any((run.folder / name).is_file() for name in ("task.yaml", "tasks.yaml"))
    if written and read_tasks(run.folder) != list(cell.specs):
        return "another version of the task"
    if (run.folder / "training.json").is_file() and read_json(run.folder / "training.json").get(
        "rows_sha256"
    ) != cell.rows:
        return "other rows (the data changed)"
    return ""


def write_table(
    cells: Sequence[Cell], out: Path, failed: Mapping[Path, str], command: str, *, whole: bool = False
) -> dict[str, Any]:
    """Write table.json and table.md from the finished cells. With `whole`, also intervals over seeds and paired tests."""
    from adjudge.report.markdown import comparison_markdown
    from adjudge.report.suites import suite_scores

    finished = [cell for cell in cells if cell.folder not in failed and _has_result(cell)]
    tasks = list(dict.fromkeys(spec.name for cell in cells for spec in cell.specs))
    done = sorted(
        (found for cell in finished for found in cell.results()), key=lambda found: tasks.index(found.spec.name)
    )
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": [{**Run.open(cell.folder).scores(), "run": cell.folder.relative_to(out).as_posix()} for cell in done],
        "summary": summaries(done) if whole else [],
        "tests": paired_tests(done) if whole else [],
        "failed": [{**_place(cell, out), "reason": failed[cell.folder]} for cell in cells if cell.folder in failed],
        "unfinished": len(cells) - len(finished) - len(failed),
        "pending": [_place(cell, out) for cell in cells if cell.folder not in failed and cell not in finished],
    }
    table["suites"] = [asdict(scores) for scored in suite_scores(table) for scores in scored]
    write_json(out / "table.json", table)
    write_text(out / "table.md", comparison_markdown(table))
    return table


def _place(cell: Cell, out: Path) -> dict[str, Any]:
    run = cell.folder.relative_to(out).as_posix()
    return {"task": cell.config.task, "method": cell.config.method, "seed": cell.config.seed, "run": run}


def _has_result(cell: Cell) -> bool:
    return (cell.folder / "scores.json").is_file() and is_finished(cell, force=True)


def summaries(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One entry a task and method: means over its seeds, metrics with the interval of the mean (units resampled)."""
    from adjudge.evaluation.diagnostics import diagnose
    from adjudge.evaluation.statistics import align_runs, metric_interval

    entries = []
    for runs in _by_method(cells).values():
        config, spec = runs[0].config, runs[0].spec
        aligned = align_runs(spec, [_predictions(cell) for cell in runs])
        resamples = config.evaluation.resamples
        scores = [Run.open(cell.folder).scores() for cell in runs]
        entries.append(
            {
                "task": spec.name,
                "method": config.method,
                "model": config.model,
                "seeds": [cell.config.seed for cell in runs],
                "n": scores[0]["n"],
                "train_rows": scores[0]["train_rows"],
                "primary": spec.primary,
                "metrics": {name: metric_interval(spec, name, aligned, resamples, 0) for name in spec.metrics},
                "unreadable": fmean(item["unreadable"] for item in scores),
                "seconds": {name: fmean(item["seconds"][name] for item in scores) for name in ("train", "evaluate")},
                "prompts_per_s": fmean(item["prompts_per_s"] for item in scores),
                "peak_rss_gib": max(item["peak_rss_gib"] for item in scores),
                **({"diagnostics": phenomena} if (phenomena := diagnose(spec, aligned, resamples=resamples)) else {}),
            }
        )
    return entries


def paired_tests(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The paired tests between all methods of each task on its primary metric, Holm over the whole table."""
    from adjudge.evaluation.statistics import compare_methods

    runs = {key: [_predictions(cell) for cell in found] for key, found in _by_method(cells).items()}
    specs = list({cell.spec.name: cell.spec for cell in cells}.values())
    resamples = max((cell.config.evaluation.resamples for cell in cells), default=0)
    return compare_methods(specs, runs, resamples=resamples)


def _by_method(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Task and method to its cells, one a seed."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.spec.name, cell.config.method), []).append(cell)
    return found


def _predictions(cell: Cell) -> list[Prediction]:
    return Run.open(cell.folder).predictions(cell.config.data.split)
