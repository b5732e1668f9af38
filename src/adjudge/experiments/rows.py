"""The rows of a run: what each of its tasks trains on, and what is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import ConfigError, DataError
from adjudge.experiments.calibration_rows import CalibrationRows, set_aside
from adjudge.methods.registry import Entry, get_entry
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.system.console import note, warn
from adjudge.tasks.reading.bad_rows import KeptRows
from adjudge.tasks.reading.kept_rows import placeless
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows, rows_per_task
from adjudge.types import Example

EVAL_SEED = 0
"""Seed of the judged rows: the same for every method and seed of a run, so their answers can be paired."""


OVERLAP = ("overlap", "overlap_exact", "overlap_share", "overlap_first")
"""Fields of `report_overlap`."""


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of one run: one part per task to train on, and per task the rows to judge."""

    parts: Sequence[TaskRows]
    eval_rows: Sequence[Sequence[Example]]
    calibration: Sequence[CalibrationRows] = ()
    """With ``calibration.rows``: per task the rows that the temperature is fitted on. No part has them."""

    @property
    def train_count(self) -> int:
        """Return the number of training rows of all tasks together."""
        return sum(len(part.rows) for part in self.parts)

    def of(self, specs: Sequence[TaskSpec]) -> RunRows:
        """Return the same rows as rows of `specs`: the same tasks, read from another place."""
        parts = [TaskRows(spec, part.rows) for spec, part in zip(specs, self.parts, strict=True)]
        return RunRows(parts, self.eval_rows, self.calibration)

    def sha256(self) -> str:
        """Return the fingerprint of all rows learned from, judged, and calibrated with."""
        every = (*(part.rows for part in self.parts), *self.eval_rows, *(each.rows for each in self.calibration))
        return fingerprint(row for rows in every for row in rows)

    def mixture_line(self) -> str:
        """Return ``a mixture of 1,500 training rows: glue/cola 1,000, glue/rte 500``."""
        listed = ", ".join(f"{part.spec.name} {len(part.rows):,}" for part in self.parts)
        return f"a mixture of {self.train_count:,} training rows: {listed}"


@dataclass(frozen=True, slots=True)
class Pools:
    """All rows for runs over the same tasks to draw from, read once for many runs."""

    specs: Sequence[TaskSpec]
    train: Sequence[Sequence[Example]]
    eval_rows: Sequence[Sequence[Example]]
    """With ``data.folds`` both hold every row of the folds; `of_fold` divides them."""
    _folds: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    """The fold of each row, by number of folds and seed."""

    def of_fold(self, config: Config) -> Pools:
        """Return the training and judged rows of the run's fold, or these pools without ``data.folds``.

        Raises ConfigError when the run names no fold, or the rows are too few for as many.
        """
        from adjudge.tasks import deal_folds

        folds, fold, seed = config.data.folds, config.data.fold, config.seed
        if folds is None:
            return self
        if fold is None:
            raise ConfigError(
                f"data.folds={folds} needs data.fold, the fold that is judged (1 to {folds}). "
                f"To judge all of them: adjudge compare --folds {folds}."
            )
        if (folds, seed) not in self._folds:
            self._folds[folds, seed] = [
                deal_folds(spec, rows, folds, seed) for spec, rows in zip(self.specs, self.train, strict=True)
            ]
        numbered = [list(zip(*part, strict=True)) for part in zip(self.train, self._folds[folds, seed], strict=True)]
        eval_rows = [[row for row, number in rows if number == fold] for rows in numbered]
        train = [[row for row, number in rows if number != fold] for rows in numbered]
        every_judged = [row for rows in eval_rows for row in rows]
        train = [_allowed(config, spec, rows, every_judged) for spec, rows in zip(self.specs, train, strict=True)]
        return Pools(self.specs, train, eval_rows)

    def draw(self, config: Config) -> RunRows:
        """Draw the rows of one run.

        Training rows are drawn by the run's seed, as a run of each task alone would draw the same number. Raises
        ConfigError when a task of a mixture would get no row.
        """
        from adjudge.tasks import take_rows, take_shots

        pools = self.of_fold(config)
        if config.data.folds is not None and config.init is not None:
            _refuse_learned(config, self.specs)
        if get_entry(config.method).rows == "none":
            return RunRows([TaskRows(spec, ()) for spec in self.specs], pools.eval_rows)
        every = pools.train
        if config.data.shots is not None:
            every = [
                take_shots(pool, spec.words, config.data.shots, config.seed)
                for spec, pool in zip(self.specs, every, strict=True)
            ]
        counts = self._counts(config, [len(pool) for pool in every])
        rows = [
            take_rows(pool, count, config.seed, whole_groups=False) for pool, count in zip(every, counts, strict=True)
        ]
        if not config.calibration.rows or not get_entry(config.method).trains:
            return RunRows([TaskRows(*part) for part in zip(self.specs, rows, strict=True)], pools.eval_rows)
        split = [
            set_aside(spec, learned, pool, eval_rows, config.calibration.rows, config.seed)
            for spec, learned, pool, eval_rows in zip(self.specs, rows, pools.train, pools.eval_rows, strict=True)
        ]
        parts = [TaskRows(spec, learned) for spec, (learned, _) in zip(self.specs, split, strict=True)]
        return RunRows(parts, pools.eval_rows, [held for _, held in split])

    def _counts(self, config: Config, sizes: Sequence[int]) -> list[int | None]:
        """Return how many of each task's training rows to take; None for all rows of a single task."""
        if len(self.specs) == 1:
            return [config.data.train_rows]
        mixture = config.data.mixture or "proportional"
        counts = rows_per_task(sizes, mixture, config.data.train_rows)
        for spec, count in zip(self.specs, counts, strict=True):
            if count == 0:
                raise ConfigError(
                    f"{spec.name} would get no row of the {sum(counts):,} in the mixture ({mixture}). "
                    "Raise --train-rows, or use --mixture equal."
                )
        return [*counts]


def load_pools(config: Config, specs: Sequence[TaskSpec], *, train: bool = True) -> Pools:
    """Read all training rows of each task (none unless `train`), and draw the rows to judge.

    With ``data.folds``, read the rows that the folds are made of. Raises what reading the data raises.
    """
    from adjudge.tasks import check_slices

    pools = _load_pools(config, specs, train=train)
    for spec, rows in zip(specs, pools.eval_rows, strict=True):
        check_slices(spec, rows)
    return pools


def _load_pools(config: Config, specs: Sequence[TaskSpec], *, train: bool) -> Pools:
    from adjudge.tasks import load_split, rows_to_fold

    data = config.data
    if data.folds is not None:
        every_row = [rows_to_fold(spec, data.data_dir, data.bad_rows) for spec in specs]
        return Pools(specs, every_row, every_row)
    if data.hold_out is not None:
        return _held_out(config, specs, data.hold_out)
    splits = [load_split(spec, data.split, data.data_dir, data.bad_rows) for spec in specs]
    # Rows judged for one task must not be trained on by another.
    every_split = [row for split in splits for row in split]
    pools = [training_rows(config, spec, every_split) if train else [] for spec in specs]
    return Pools(specs, pools, [_judged(split, data.eval_rows) for split in splits])


def _held_out(config: Config, specs: Sequence[TaskSpec], count: int) -> Pools:
    """Return pools whose judged rows are drawn from the training rows, the same for each seed and method.

    Rows with the texts of a held-out row, and those of its group, are not learned from. Raises DataError when fewer
    rows would remain to learn from than are held out.
    """
    from adjudge.tasks import load_split, take_rows, without_overlap

    train = [load_split(spec, "train", config.data.data_dir, config.data.bad_rows) for spec in specs]
    held = [take_rows(rows, count, EVAL_SEED) for rows in train]
    groups = [{row.group for row in rows if row.group} for rows in held]
    every_held = [row for rows in held for row in rows]
    rest = [
        without_overlap([row for row in rows if row.group not in known], every_held)
        for rows, known in zip(train, groups, strict=True)
    ]
    for spec, rows, eval_rows in zip(specs, rest, held, strict=True):
        if len(rows) < len(eval_rows):
            raise DataError(
                f"{spec.name}: data.hold_out={count} would judge {len(eval_rows):,} of its training rows and leave "
                f"{len(rows):,} to learn from. Hold out fewer."
            )
    return Pools(specs, rest, held)


def _judged(split: Sequence[Example], count: int | None) -> KeptRows:
    """Draw the rows to judge; they keep the number of bad rows that were dropped from their file."""
    from adjudge.tasks import take_rows

    return KeptRows(take_rows(split, count, EVAL_SEED), split.dropped if isinstance(split, KeptRows) else None)


def _refuse_learned(config: Config, specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError when the run to start from learned from rows of other folds.

    The run that starts from it would judge them.
    """
    folder = Path(str(config.init))
    if not (folder / "config.yaml").is_file():
        return
    start = Run.open(folder).config
    same_fold = (start.data.folds, start.data.fold, start.seed) == (config.data.folds, config.data.fold, config.seed)
    known = [placeless(task).source for task in read_tasks(folder)]
    if not same_fold and any(placeless(spec).source in known for spec in specs):
        raise ConfigError(
            f"{folder} learned from rows that data.folds would judge: folds cannot start from it (init). "
            "Start from a run of another task, or leave the folds out."
        )


def rows_for(config: Config, specs: Sequence[TaskSpec]) -> RunRows:
    """Return the rows of one run. Raises what `load_pools` and `Pools.draw` raise."""
    return load_pools(config, specs, train=get_entry(config.method).rows != "none").draw(config)


def eval_rows_for(config: Config, spec: TaskSpec) -> Sequence[Example]:
    """Return the rows to judge, the same for all methods and seeds.

    With ``data.folds`` they are those of the run's fold.
    """
    return load_pools(config, [spec], train=False).of_fold(config).eval_rows[0]


def training_rows(config: Config, spec: TaskSpec, split: Sequence[Example]) -> list[Example]:
    """Return the task's training rows.

    With `data.drop_overlap`, drop rows that also occur anywhere in the judged `split`. Raises DataError when no row
    remains, and whatever reading the rows raises.
    """
    from adjudge.tasks import load_split

    data = config.data
    return _allowed(config, spec, load_split(spec, "train", data.data_dir, data.bad_rows), split)


def _allowed(config: Config, spec: TaskSpec, train: list[Example], split: Sequence[Example]) -> list[Example]:
    from adjudge.tasks import without_overlap

    if not config.data.drop_overlap:
        return train
    kept = without_overlap(train, split)
    rows = f"of the {len(train):,} training rows of {spec.name}"
    if not kept:
        raise DataError(f"All {rows} are in {config.data.split} too, so data.drop_overlap leaves none to learn from.")
    note(f"{len(train) - len(kept):,} {rows} are in {config.data.split} too and are dropped (data.drop_overlap).")
    return kept


def fingerprint(rows: Iterable[Example]) -> str:
    """Return the SHA-256 over the rows' ids, fields and gold answers, in order: equal for equal rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.id, dict(row.fields), row.gold]).encode("ascii"))
    return digest.hexdigest()


def learned_rows(entry: Entry, config: Config, rows: RunRows) -> list[Example]:
    """Return the training rows the method sees.

    Of few-shot they are the demonstrations, and those of its label prior.
    """
    if entry.rows == "demonstrations":
        return [row for part in rows.parts for row in _seen(part, config)]
    return [row for part in rows.parts for row in part.rows]


def _seen(part: TaskRows, config: Config) -> list[Example]:
    from adjudge.prompts.demonstrations import choose_demonstrations, prior_rows

    shown = choose_demonstrations(part.rows, part.spec, config.prompt, config.seed)
    if config.prompt.prior != "training-rows":
        return shown
    measured_on = prior_rows(part.rows, shown, part.spec, config.prompt, config.seed)
    return list({row.id: row for row in (*shown, *measured_on)}.values())


def report_overlap(
    learned: Sequence[Example],
    eval_rows: Sequence[Example],
    where: str = "",
    advice: str = "data.drop_overlap=true drops such training rows.",
) -> dict[str, Any]:
    """Return the overlap of training and judged rows to record; warn of it, with `where` as prefix."""
    from adjudge.tasks import measure_overlap

    overlap = measure_overlap(learned, eval_rows)
    if overlap.normalised:
        warn(f"{where}{overlap.sentence()}; the figures may flatter. {advice}")
    pairs = [list(pair) for pair in overlap.first]
    return dict(zip(OVERLAP, (overlap.normalised, overlap.exact, overlap.share, pairs), strict=True))
