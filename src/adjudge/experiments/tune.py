"""Search methods' settings on held-out training rows: as many trials for each, no row of the split.

OUT/study.db                  the trials, in the file of the library that proposes them (optuna, extra ``tune``)
OUT/METHOD/trial-003/         an ordinary run folder per trial
OUT/tuned.json, tuned.md      the best settings of each method, and what they and the default reached
OUT/METHOD.yaml               the best settings, for ``--config``
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adjudge.config import Config, change
from adjudge.errors import AdjudgeError, ConfigError, RunError
from adjudge.experiments.execute import run_settings
from adjudge.experiments.judging import ensure_model
from adjudge.experiments.process import CellProcesses
from adjudge.experiments.rows import RunRows, load_pools
from adjudge.methods.for_tasks import decided
from adjudge.methods.registry import MULTI, check_names, get_entry, parse_name
from adjudge.methods.search_space import (
    Choices,
    Range,
    Space,
    chosen_space,
    default_space,
    default_values,
    fixed_values,
)
from adjudge.report.tuned import tuned_markdown
from adjudge.runs.environment import flat
from adjudge.runs.folder import SAME_RUN, read_json
from adjudge.system.console import note, warn
from adjudge.system.files import Lock, write_json, write_text
from adjudge.tasks import load_split
from adjudge.tasks.reading.kept_rows import placeless
from adjudge.tasks.spec import TaskSpec

SCHEMA = 1
FILE = "tuned.json"
HOLD_OUT = 300
"""Training rows that trials are judged on, unless the user says how many: at most a third of them."""
RANDOM_TRIALS = 4
"""Trials, the default's included, before the sampler learns from what it has seen."""

Runner = Callable[..., Mapping[str, Any]]
"""Runs one trial: (config, tasks, folder, resume=…) → scores."""


def tune(
    config: Config,
    spec: TaskSpec,
    methods: Sequence[str],
    out: str | Path,
    *,
    trials: int = 12,
    budget_s: float | None = None,
    search: Mapping[str, Range | Choices] | None = None,
    command: str = "",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Search the settings of each method, and return what tuned.json holds.

    Every method gets `trials` trials in rounds, the first with the settings as they are. After `budget_s` seconds of
    trials no further round begins, so all methods have as many. Trials learn from ``data.train_rows`` rows and are
    judged on ``data.hold_out`` other training rows, the same for all. `search` are settings to search in place of those
    of `adjudge.methods.search_space`.

    A search that was stopped goes on in the same folder; more `trials` extend it. A trial that fails counts, and the
    search goes on. Raises ConfigError without optuna, for a method that trains several tasks at once, a setting that is
    no method's own, and no trials; RunError when `out` holds another search; and what reading the rows raises. Raises
    KeyboardInterrupt, with the folder, after Ctrl-C.
    """
    out = Path(out)
    if trials < 1:
        raise ConfigError(f"--trials {trials}: at least one is needed.")
    config = _with_held_out(config, spec)
    names = _checked(methods)
    learner = next((name for name in names if get_entry(name).rows != "none"), names[0])
    rows = load_pools(config, [spec]).draw(config.model_copy(update={"method": learner}))
    configs = {name: config.model_copy(update={"method": name}) for name in names}
    default = {name: decided(configs[name], [spec]) for name in names}
    spaces = chosen_space({name: default_space(name, default[name], rows.train_count) for name in names}, search or {})
    for name in names:
        run_settings(configs[name], [spec])
        ensure_model(configs[name])
        if not spaces[name]:
            note(f"{name} has no settings to search; it is compared as it is.")
    searched = {name: space for name, space in spaces.items() if space}
    if not searched:
        raise ConfigError(f"{', '.join(names)}: there is nothing to search. --search KEY=A..B names a setting.")
    note(
        f"{spec.name}: {trials} trials per method, each learning from {rows.train_count:,} rows and judged on "
        f"{len(rows.eval_rows[0]):,} other training rows. No row of {config.data.split} is read."
    )
    lock = Lock(out)
    lock.acquire()
    try:
        studies = _Search(configs, spec, searched, rows, out, command)
        with CellProcesses() as processes:
            try:
                studies.run(runner or processes, trials, budget_s)
            except KeyboardInterrupt as stop:
                raise type(stop)(str(out)) from None
        return studies.write()
    finally:
        lock.release()


def _checked(methods: Sequence[str]) -> list[str]:
    names = list(check_names(methods))
    for name in names:
        if parse_name(name)[1]:
            raise ConfigError(f"{name}: settings are searched on one task. Tune {name.removeprefix(MULTI)}.")
    return names


def _with_held_out(config: Config, spec: TaskSpec) -> Config:
    if config.data.hold_out is not None:
        return config
    count = len(load_split(spec, "train", config.data.data_dir, config.data.bad_rows))
    return change(config, {"data.hold_out": max(1, min(HOLD_OUT, count // 3))})


class _Search:
    """The studies of all methods, which take turns."""

    def __init__(
        self,
        configs: Mapping[str, Config],
        spec: TaskSpec,
        spaces: Mapping[str, Space],
        rows: RunRows,
        out: Path,
        command: str,
    ) -> None:
        self._configs, self._spec, self._spaces, self._rows = configs, spec, spaces, rows
        self._out, self._command = out, command
        self._optuna = import_optuna()
        self._studies = {name: self._open(name) for name in spaces}

    def run(self, runner: Runner, trials: int, budget_s: float | None) -> None:
        """Run what is missing of `trials` trials per method, in rounds."""
        for number in range(trials):
            if budget_s is not None and number and self._seconds() >= budget_s:
                note(f"the time is over after {number} of {trials} trials per method.")
                return
            for name, study in self._studies.items():
                if len(self._ended(study)) <= number:
                    self._trial(runner, name, study, f"{name}, trial {number + 1} of {trials}")

    def write(self) -> dict[str, Any]:
        """Write tuned.json, tuned.md and the settings of each method; return what tuned.json holds."""
        first = next(iter(self._configs.values()))
        tuned: dict[str, Any] = {
            "schema": SCHEMA,
            "command": self._command,
            "task": self._spec.name,
            "metric": self._spec.primary,
            "seed": first.seed,
            "train_rows": self._rows.train_count,
            "hold_out": len(self._rows.eval_rows[0]),
            "methods": {name: self._method(name) for name in self._configs},
        }
        write_json(self._out / FILE, tuned)
        write_text(self._out / "tuned.md", tuned_markdown(tuned))
        for name, result in tuned["methods"].items():
            if result["settings"]:
                write_text(self._out / f"{name}.yaml", yaml.safe_dump(_nested(result["settings"]), sort_keys=False))
        return tuned

    def _open(self, name: str) -> Any:
        """Open or make the study of a method. Raises RunError when the folder holds another search."""
        study = self._optuna.create_study(
            storage=f"sqlite:///{self._out / 'study.db'}",
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
        identity = _identity(self._configs[name], self._spec, self._spaces[name], self._rows)
        if study.user_attrs.setdefault("identity", identity) != identity:
            raise RunError(
                f"{self._out} holds a search of {name} with other settings, rows or ranges. Name another --out."
            )
        study.set_user_attr("identity", identity)
        return study

    def _trial(self, runner: Runner, name: str, study: Any, title: str) -> None:
        """Run one trial, or go on with the one that was stopped, and record its value."""
        config, space = self._configs[name], self._spaces[name]
        trial = next((each for each in study.trials if each.state.name == "RUNNING"), None)
        if trial is None:
            trial = self._asked(study, config, space, name)
        values = {key: trial.params[key] for key in space}
        folder = self._out / name / f"trial-{trial.number:03d}"
        note(f"{title}: {shown(values)} → {folder}")
        began = time.monotonic()
        try:
            scores = runner(change(config, {**fixed_values(name, space), **values}), self._spec, folder, resume=True)
        except AdjudgeError as error:
            warn(f"{title} failed: {error}")
            self._told(study, trial.number, None, time.monotonic() - began)
            return
        value = scores["metrics"][scores["primary"]]["value"]
        self._told(study, trial.number, value, sum(scores["seconds"].values()))
        best = self._best(study)
        text = "not defined" if value is None else f"{value:.3f}"
        note(f"    {scores['primary']} {text}; best {'–' if best is None else f'{best.value:.3f}'}")
        self.write()

    def _asked(self, study: Any, config: Config, space: Space, name: str) -> Any:
        """Return a new trial, in whose parameters each call gives what was drawn. The first has the default's."""
        optuna, number = self._optuna, len(study.trials)
        if number == 0:
            values = default_values(name, decided(config, [self._spec]), space, self._rows.train_count)
            within = {key: value for key, value in values.items() if _is_within(value, space[key])}
            study.enqueue_trial(within, skip_if_exists=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.sampler = optuna.samplers.TPESampler(seed=1000 * config.seed + number, n_startup_trials=RANDOM_TRIALS)
        return study.ask({key: _distribution(optuna, each) for key, each in space.items()})

    def _told(self, study: Any, number: int, value: float | None, seconds: float) -> None:
        state = self._optuna.trial.TrialState.FAIL if value is None else None
        study.tell(number, value, state=state)
        study.set_user_attr(f"seconds-{number}", seconds)

    def _seconds(self) -> float:
        """Return the time that all trials took, those before an interruption included."""
        return sum(self._seconds_of(study) for study in self._studies.values())

    def _seconds_of(self, study: Any) -> float:
        return sum(value for key, value in study.user_attrs.items() if key.startswith("seconds-"))

    def _ended(self, study: Any) -> list[Any]:
        return [trial for trial in study.trials if trial.state.is_finished()]

    def _best(self, study: Any) -> Any:
        """Return the best trial, the first of equal ones; None when none has a value."""
        valued = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        return max(valued, key=lambda trial: (trial.value, -trial.number), default=None)

    def _method(self, name: str) -> dict[str, Any]:
        """Return what is recorded of a method."""
        if name not in self._studies:
            return {"trials": 0, "failed": 0, "settings": {}}
        study, space = self._studies[name], self._spaces[name]
        ended, best = self._ended(study), self._best(study)
        first = next((trial for trial in ended if trial.number == 0 and trial.state.name == "COMPLETE"), None)
        return {
            "trials": len(ended),
            "failed": sum(trial.state.name == "FAIL" for trial in ended),
            "default": None if first is None else first.value,
            "best": None if best is None else best.value,
            "run": None if best is None else f"{name}/trial-{best.number:03d}",
            "settings": {}
            if best is None
            else {**fixed_values(name, space), **{key: best.params[key] for key in space}},
            "searched": {key: _shown_space(each) for key, each in space.items()},
            "seconds": self._seconds_of(study),
        }


def read_search(folder: str | Path) -> dict[str, Any]:
    """Return what a search's tuned.json holds. Raises RunError where there is no search."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise RunError(f"{folder} holds no search: it has no {FILE}. adjudge tune METHOD,METHOD --out DIR makes one.")
    return dict(read_json(path))


def tuned_settings(
    folder: str | Path, methods: Sequence[str], specs: Sequence[TaskSpec]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the best settings a search found for some methods, and what a comparison records of it.

    Warns when the methods had different numbers of trials, or another task was searched on. Raises RunError where there
    is no search, and ConfigError for a method that has settings to search and was not in it.
    """
    tuned = read_search(folder)
    names = [parse_name(name)[0].name for name in methods]
    lacking = [
        name for name in names if name not in tuned["methods"] and default_space(name, Config(), tuned["train_rows"])
    ]
    if lacking:
        raise ConfigError(
            f"{folder} has no settings for {', '.join(lacking)}: tuned methods are compared with tuned ones. Search "
            f"them too, or leave them out: adjudge tune {','.join([*tuned['methods'], *lacking])}."
        )
    results = {name: tuned["methods"][name] for name in names if name in tuned["methods"]}
    if failed := all_failed({"methods": results}):
        raise ConfigError(
            f"{folder}: every trial of {', '.join(failed)} failed, so there are no settings to compare with. Search "
            "again, or leave them out."
        )
    trials = {name: each["trials"] for name, each in results.items() if each["trials"]}
    if len(set(trials.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in trials.items())
        warn(f"{folder}: the methods had different numbers of trials: {listed}. The one with more has an advantage.")
    if any(spec.name != tuned["task"] for spec in specs):
        warn(f"{folder}: settings were searched on {tuned['task']}; what is best there may not be best elsewhere.")
    settings = {key: value for each in results.values() for key, value in each["settings"].items()}
    record = {name: tuned[name] for name in ("task", "hold_out", "train_rows")}
    return settings, {**record, "trials": trials, "settings": settings}


def all_failed(tuned: Mapping[str, Any]) -> list[str]:
    """Return the methods of a search of which every trial failed."""
    return [name for name, each in tuned["methods"].items() if each["failed"] and each["failed"] == each["trials"]]


def import_optuna() -> Any:
    """Return the library that proposes trials. Raises ConfigError without it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("A search needs optuna: pip install 'adjudge[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def shown(values: Mapping[str, Any]) -> str:
    """Return settings in one line, each by the last parts of its key: ``optimizer.lr 0.0003, epochs 4``."""
    return ", ".join(
        f"{key.partition('.')[2]} {f'{value:.3g}' if isinstance(value, float) else value}"
        for key, value in values.items()
    )


MATTERS = ("runtime.dtype", "runtime.quantization")
"""Settings of the machine that change results."""


def _identity(config: Config, spec: TaskSpec, space: Space, rows: RunRows) -> str:
    """Return the hash of what a search depends on."""
    parts = {
        "config": {
            key: value
            for key, value in flat(run_settings(config, [spec]).model_dump(mode="json"))
            if not key.startswith(SAME_RUN) and (key in MATTERS or not key.startswith("runtime."))
        },
        "task": placeless(spec).model_dump(mode="json"),
        "rows": rows.sha256(),
        "space": {key: _shown_space(each) for key, each in space.items()},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _distribution(optuna: Any, space: Range | Choices) -> Any:
    if isinstance(space, Choices):
        return optuna.distributions.CategoricalDistribution(space.values)
    return optuna.distributions.FloatDistribution(space.low, space.high, log=True)


def _is_within(value: Any, space: Range | Choices) -> bool:
    if isinstance(space, Choices):
        return value in space.values
    return isinstance(value, int | float) and space.low <= value <= space.high


def _shown_space(space: Range | Choices) -> str:
    if isinstance(space, Choices):
        return ",".join(map(str, space.values))
    return f"{space.low:g}..{space.high:g}"


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
