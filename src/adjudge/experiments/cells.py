"""The cells of a comparison: its runs, and which of them are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import Config, DataConfig
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.execute import run_settings
from adjudge.experiments.rows import RunRows, load_pools
from adjudge.experiments.same_run import Identity, difference_of, goes_on
from adjudge.experiments.sending import outgoing
from adjudge.methods.registry import check_names, get_entry, parse_name
from adjudge.methods.settings import load_reward_functions, load_reward_model
from adjudge.models.chat_api import Outgoing
from adjudge.rewards.function import recorded
from adjudge.runs.folder import Run, is_unused
from adjudge.runs.names import shown_name
from adjudge.runs.start import StartingPoint, starting_point
from adjudge.runs.tasks import folder_name, joint_name, task_folder
from adjudge.runs.work import has_work
from adjudge.system.console import note
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a comparison: a method with one seed (and fold), on one task or the mixture of several."""

    config: Config
    specs: tuple[TaskSpec, ...]
    folder: Path
    rows: str
    """Fingerprint of the rows it learns from and judges."""
    functions: Mapping[str, Any]
    """The hashes of its reward functions, as a run records them."""
    start: StartingPoint | None = None
    """The run whose adapter it starts from."""
    going: Outgoing | None = None
    """What it sends to an API to judge its rows."""

    @property
    def identity(self) -> Identity:
        """Return what the run in its folder is compared with."""
        return Identity(self.config, self.specs, self.rows, self.functions, self.start)

    @property
    def method(self) -> str:
        """Return the method's shown name: ``multi-sft`` on a mixture."""
        return shown_name(self.config.method, len(self.specs))

    @property
    def title(self) -> str:
        """Return the title: ``glue/sst2 sft seed 0``."""
        fold = "" if self.config.data.fold is None else f" fold {self.config.data.fold}"
        return f"{self.config.task} {self.method} seed {self.config.seed}{fold}"

    def results(self) -> list[Result]:
        """Return the cell's results, one per task."""
        if len(self.specs) == 1:
            return [Result(self.config, self.method, self.specs[0], self.folder)]
        return [Result(self.config, self.method, spec, task_folder(self.folder, spec.name)) for spec in self.specs]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a cell for one of its tasks, or the pooled result of its folds."""

    config: Config
    method: str
    spec: TaskSpec
    folder: Path
    folds: tuple[Path, ...] = ()
    """Of a pooled result: the run folders of its folds."""

    def predictions(self) -> list[Prediction]:
        """Read the judged rows."""
        return Run(self.folder, self.config).predictions(self.config.data.split)

    def scores(self) -> dict[str, Any]:
        """Read the scores."""
        return Run(self.folder, self.config).scores()


def plan_cells(
    config: Config, specs: Sequence[TaskSpec], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Return the cells in the order they run: task by task, then those of the mixture of all tasks.

    Reports the numbers of rows. Raises ConfigError for an unknown method, an empty list, or two tasks with the same
    name. Raises DataError for rows that cannot be read.
    """
    methods = check_names(methods)
    if not seeds or not specs:
        raise ConfigError("There is nothing to compare: name at least one task and one seed.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two tasks have the same name: {', '.join(names)}. Name each task once.")
    seeds = list(dict.fromkeys(seeds))
    parsed = [parse_name(name) for name in methods]
    single = [entry.name for entry, multi in parsed if not multi]
    mixed = [entry.name for entry, multi in parsed if multi]
    if mixed and len(specs) < 2:
        raise ConfigError(f"{shown_name(mixed[0], 2)} trains on several tasks: name them with --task NAME,NAME.")
    cells = [cell for spec in specs for cell in _task_cells(config, spec, single, seeds, out)] if single else []
    return cells + (_mixture_cells(config, specs, mixed, seeds, out) if mixed else [])


def _task_cells(config: Config, spec: TaskSpec, methods: Sequence[str], seeds: Sequence[int], out: Path) -> list[Cell]:
    pools = load_pools(config, [spec], train=any(get_entry(method).rows != "none" for method in methods))
    start = _start_of(config)
    cells, counts = [], []
    # By seed, fold, whether it learns, and rows to calibrate with; and fingerprints: all rows are hashed for one.
    drawn: dict[tuple[int, int | None, bool, int], tuple[RunRows, str]] = {}
    for method in methods:
        entry = get_entry(method)
        learns = entry.rows != "none"
        init = config.init if entry.trains_adapter else None
        functions: Mapping[str, Any] | None = None
        for seed, data in _seeds_and_folds(config, seeds):
            update = {"method": method, "seed": seed, "data": data, "init": init}
            cell_config = run_settings(config.model_copy(update=update), [spec])
            if functions is None:
                functions = _rewarded_by(cell_config, [spec])
            draw = (seed, data.fold, learns, cell_config.calibration.rows)
            if draw not in drawn:
                rows = pools.draw(cell_config)
                drawn[draw] = rows, rows.sha256()
            rows, rows_sha256 = drawn[draw]
            counts += [rows.train_count] if learns else []
            name = cell_name(seed, data.fold)
            folder = out / folder_name(spec.name) / method / name
            going = outgoing(cell_config, [spec], [part.rows for part in rows.parts], rows.eval_rows)
            from_run = None if cell_config.init is None else start
            named = _named(cell_config, method, name)
            cells.append(Cell(named, (spec,), folder, rows_sha256, functions, from_run, going))
    trained = f", {min(counts)} to train on" if counts else ""
    note(f"{spec.name}: {len(pools.eval_rows[0])} rows {_judged_how(config, spec)}{trained}.")
    return cells


def _mixture_cells(
    config: Config, specs: Sequence[TaskSpec], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Return cells that learn from as many rows as the tasks' own cells together.

    By default these are the very same rows.
    """
    pools = load_pools(config, specs)
    each, start = config.data.train_rows, _start_of(config)
    cells: list[Cell] = []
    for method in methods:
        functions: Mapping[str, Any] | None = None
        for seed, data in _seeds_and_folds(config, seeds):
            fold_config = config.model_copy(update={"data": data, "method": method, "seed": seed})
            total = sum(
                len(pool) if each is None else min(each, len(pool)) for pool in pools.of_fold(fold_config).train
            )
            mixture = {"train_rows": total, "mixture": config.data.mixture or "equal"}
            cell_config = run_settings(fold_config.model_copy(update={"data": data.model_copy(update=mixture)}), specs)
            rows = pools.draw(cell_config)
            if not cells:
                note(rows.mixture_line())
            shown, name = shown_name(method, len(specs)), cell_name(seed, data.fold)
            folder = out / "multi-task" / shown / name
            if functions is None:
                functions = _rewarded_by(cell_config, specs)
            named = _named(cell_config, shown, name)
            cells.append(Cell(named, tuple(specs), folder, rows.sha256(), functions, start))
    return cells


def _start_of(config: Config) -> StartingPoint | None:
    """Return the run that cells start from; None without one, and for one that is gone."""
    there = config.init is not None and (Path(config.init) / "adapter").is_dir()
    return starting_point(config) if there else None


def _rewarded_by(config: Config, specs: Sequence[TaskSpec]) -> Mapping[str, Any]:
    """Return what a run records of its reward functions and its reward model."""
    model = load_reward_model(config, specs)
    return recorded(load_reward_functions(config, specs)) | (model.recorded() if model is not None else {})


def _named(config: Config, method: str, cell: str) -> Config:
    """Return a cell's settings with a tracked run's name of its own, where the comparison's names it."""
    if config.tracking.run_name is None:
        return config
    name = f"{config.tracking.run_name}-{joint_name(config.task.split(','))}-{method}-{cell.replace('seed-', 'seed')}"
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"run_name": name})})


def cell_name(seed: int, fold: int | None) -> str:
    """Return the name of a cell's folder: ``seed-0``, or ``seed-0-fold-2`` in cross-validation."""
    return f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold}"


def _seeds_and_folds(config: Config, seeds: Sequence[int]) -> list[tuple[int, DataConfig]]:
    """Return each seed with the data settings of each of its folds.

    Without ``data.folds`` each seed comes once, with no fold.
    """
    folds = [None] if config.data.folds is None else list(range(1, config.data.folds + 1))
    return [(seed, config.data.model_copy(update={"fold": fold})) for seed in seeds for fold in folds]


def _judged_how(config: Config, spec: TaskSpec) -> str:
    from adjudge.tasks import has_own_dev

    if config.data.hold_out is not None:
        return "held out of train to judge"
    if config.data.folds is None:
        return f"of {config.data.split} to judge"
    whole = " of train (its own dev rows are left aside)" if has_own_dev(spec) else ""
    return f"{whole.strip()} in {config.data.folds} folds, each row judged once per seed".strip()


def is_finished(cell: Cell, *, force: bool = False) -> bool:
    """True if the cell's folder holds its result.

    Raises RunError when it holds work of other settings, another task or other rows, unless `force`.
    """
    if is_unused(cell.folder):
        return False
    try:
        run = Run.open(cell.folder)
        difference = difference_of(run, cell.identity)
    except RunError:
        if force and (cell.folder / "config.yaml").is_file():
            return False
        raise
    if difference and has_work(cell.folder) and not force:
        raise RunError(f"{cell.folder} holds a run of {difference}. Name another --out, or add --force to replace it.")
    return not difference and run.state == "complete" and has_scores(cell)


def has_scores(cell: Cell) -> bool:
    """True if the cell's folder has scores."""
    return (cell.folder / "scores.json").is_file()


def can_go_on(cell: Cell) -> bool:
    """True if the cell's folder is empty, or holds this run at a stage from which it goes on."""
    if is_unused(cell.folder):
        return True
    try:
        return goes_on(cell.folder, cell.identity, resume=True)
    except RunError:
        return False
