"""A comparison from Python: methods side by side on the same rows, prompts and budget, tuned or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.api import FinishedRun, named_settings
from adjudge.config import change, load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments import compare as comparing
from adjudge.experiments import tune as tuning
from adjudge.experiments.own_rows import OwnRows, Task, chosen_tasks
from adjudge.experiments.pick_run import pick_run
from adjudge.methods.registry import COMPARED, check_names
from adjudge.methods.search_space import given_space
from adjudge.methods.settings import function_settings
from adjudge.runs.default_folder import comparison_folder, search_folder
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


class Search:
    """A folder with the trials of a search, and the best settings of each method."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        tuning.read_search(folder)

    def __repr__(self) -> str:
        return f"Search({str(self.folder)!r})"

    @property
    def tuned(self) -> dict[str, Any]:
        """Return what tuned.json holds: per method its trials, the best, the default's value, and settings."""
        return tuning.read_search(self.folder)

    def settings(self, method: str) -> dict[str, Any]:
        """Return the best settings of a method by their dotted keys, none where it has nothing to search.

        Raises RunError for a method that was not searched.
        """
        methods = self.tuned["methods"]
        if method not in methods:
            raise RunError(f"{self.folder} has no settings for {method}, only for {', '.join(methods)}.")
        return dict(methods[method]["settings"])


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
    tuned: Search | str | Path | None = None,
    **overrides: Any,
) -> Comparison:
    """Compare methods on a task or several, or on rows of your own, and write a table and a report.

    `data` and the arguments that describe it are those of `adjudge.train`; so are `overrides`. With `folds`, every row
    is judged once, by a run that has not seen it. Every run is a process of its own, one at a time unless `jobs` says
    more; with the launcher "ray" a task of a Ray cluster. In the folder of an earlier comparison, finished runs of the
    same settings and rows are reused, and stopped ones go on. `reward_funcs` are named by their files, as in
    ``FILE.py:NAME``. `tuned` is a search, or its folder: methods take the best settings it found, except those given
    here. Raises what `adjudge.train` raises; a run that fails is listed in the table, and the others go on.
    """
    chosen = check_names([methods] if isinstance(methods, str) else list(methods))
    options = {"model": model, "train_rows": train_rows, "eval_rows": eval_rows, "folds": folds, "data_dir": data_dir}
    values = named_settings({**options, **overrides})
    if reward_funcs:
        values |= function_settings(tuple(reward_funcs))
    own = OwnRows(data, dataset, text, label, dev, labels, kind, instruction)
    with chosen_tasks(task, own._asdict(), overrides) as specs:
        config = load_config(preset=preset, values={**values, "task": ",".join(spec.name for spec in specs)})
        searched = None
        if tuned is not None:
            source = tuned.folder if isinstance(tuned, Search) else tuned
            best, searched = tuning.tuned_settings(source, chosen, specs)
            config = change(config, {key: value for key, value in best.items() if key not in values})
        folder = Path(out) if out is not None else comparison_folder(specs)
        how: dict[str, Any] = {"force": force, "jobs": jobs, "launcher": launcher, "tuned": searched}
        comparing.compare(config, specs, chosen, list(seeds), folder, **how)
    return Comparison(folder)


def tune(
    methods: str | Sequence[str],
    task: Task | None = None,
    *,
    trials: int = 12,
    budget_s: float | None = None,
    search: Mapping[str, str | Sequence[Any]] | None = None,
    hold_out: int | None = None,
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
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    preset: str = "default",
    **overrides: Any,
) -> Search:
    """Search the settings of methods on held-out training rows: the same rows and as many trials for each.

    No round of trials begins after `budget_s` seconds of them. `search` are settings to search in place of the usual
    ones: ``{"sft.optimizer.lr": "1e-4..1e-3", "sft.batch_size": [8, 16]}``. Trials are judged on `hold_out` training
    rows (300 unless given, at most a third). Called again with the same folder, the search goes on. The other arguments
    are those of `compare`. Raises what `adjudge.experiments.tune.tune` raises.
    """
    chosen = [methods] if isinstance(methods, str) else list(methods)
    space = {key: given_space(key, values) for key, values in (search or {}).items()}
    options = {"model": model, "train_rows": train_rows, "data_dir": data_dir, "data__hold_out": hold_out}
    values = named_settings({**options, **overrides})
    own = OwnRows(data, dataset, text, label, dev, labels, kind, instruction)
    with chosen_tasks(task, own._asdict(), overrides) as specs:
        if len(specs) > 1:
            raise ConfigError("tune takes one task; compare takes several.")
        config = load_config(preset=preset, values={**values, "task": specs[0].name})
        folder = Path(out) if out is not None else search_folder(specs[0])
        tuning.tune(config, specs[0], chosen, folder, trials=trials, budget_s=budget_s, search=space)
    return Search(folder)
