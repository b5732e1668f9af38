"""A comparison from Python: the methods side by side, on the same rows, prompts and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.api import FinishedRun, named_settings
from adjudge.config import load_config
from adjudge.errors import RunError
from adjudge.experiments import compare as comparing
from adjudge.experiments.own_rows import Task, chosen_tasks
from adjudge.experiments.pick_run import pick_run
from adjudge.methods.registry import COMPARED, check_names
from adjudge.methods.settings import function_settings
from adjudge.runs.default_folder import comparison_folder
from adjudge.runs.folder import read_json


class Comparison:
    """A folder with the runs of a comparison, its table and its report."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "table.json").is_file():
            raise RunError(f"{self.folder} is no comparison: it has no table.json.")

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r})"

    @property
    def table(self) -> dict[str, Any]:
        """Return what table.json holds: ``rows``, one per run, tests, and what failed."""
        return dict(read_json(self.folder / "table.json"))

    def best(self, task: str | None = None) -> FinishedRun:
        """Return the first run of the best method.

        Raises RunError for several tasks and no `task`, and for no run.
        """
        return FinishedRun(pick_run(self.folder, task))


def compare(
    task: Task | Sequence[Task] | None = None,
    *,
    methods: Sequence[str] = COMPARED,
    data: Any = None,
    dataset: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    dev: Any = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    kind: str | None = None,
    instruction: str | None = None,
    model: str | None = None,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    folds: int | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    preset: str = "default",
    force: bool = False,
    jobs: int | None = None,
    launcher: str = "local",
    reward_funcs: Sequence[str] = (),
    **overrides: Any,
) -> Comparison:
    """Compare methods on a task or several, or on rows of your own, and write a table and a report.

    `data` and the arguments that describe it are those of `adjudge.train`; so are `overrides`. With `folds`, every row
    is judged once, by a run that has not seen it. Every run is a process of its own, one at a time unless `jobs` says
    more; with the launcher "ray" a task of a Ray cluster. In the folder of an earlier comparison, finished runs of the
    same settings and rows are reused, and stopped ones go on. `reward_funcs` are named by their files, as in
    ``FILE.py:NAME``. Raises what `adjudge.train` raises; a run that fails is listed in the table,
    and the others go on.
    """
    chosen = check_names([methods] if isinstance(methods, str) else list(methods))
    options = {"model": model, "train_rows": train_rows, "eval_rows": eval_rows, "folds": folds, "data_dir": data_dir}
    values = named_settings({**options, **overrides})
    if reward_funcs:
        values |= function_settings(tuple(reward_funcs))
    data_options = {"data": data, "dataset": dataset, "text": text, "label": label, "dev": dev}
    data_options |= {"labels": labels, "kind": kind, "instruction": instruction}
    with chosen_tasks(task, data_options, overrides) as specs:
        config = load_config(preset=preset, values={**values, "task": ",".join(spec.name for spec in specs)})
        folder = Path(out) if out is not None else comparison_folder(specs)
        comparing.compare(config, specs, chosen, list(seeds), folder, force=force, jobs=jobs, launcher=launcher)
    return Comparison(folder)
