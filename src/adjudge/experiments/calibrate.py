"""Calibrate a finished run, or a judge that left its run, and store the temperature with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import AdjudgeError, ConfigError, DataError
from adjudge.experiments.calibration_rows import UNUSED, CalibrationRows, unused_rows
from adjudge.experiments.evaluate import load_judges, open_folder
from adjudge.experiments.judging import task_scores
from adjudge.experiments.rows import load_pools, rows_for
from adjudge.experiments.temperature import fit_temperatures
from adjudge.runs.calibration import read_calibration, write_calibration
from adjudge.runs.folder import Run, read_json
from adjudge.runs.portable import FILE as JUDGE
from adjudge.runs.portable import is_portable, write_portable
from adjudge.runs.tasks import result_folders
from adjudge.system.console import note, warn
from adjudge.system.files import write_json
from adjudge.tasks.reading.kept_rows import KEPT
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import TableFormat
from adjudge.types import Example

ROWS = 500
"""Rows that a finished run is calibrated with, unless the user says how many."""


def calibrate_run(
    folder: str | Path,
    *,
    spec: TaskSpec | None = None,
    data: str | Path | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    form: TableFormat | None = None,
    rows: int = ROWS,
    data_dir: str | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit and store a temperature for `spec`, or for every task of a finished run.

    Returns what was fitted, by task. The rows are up to `rows` training rows that the run did not learn from, or those
    of the file `data` (`text`, `label` and `form` as in `adjudge.tasks.on_file`). Rows of the file that the run learned
    from or judged are dropped. The folder may be a judge that left its run; it then needs `data`. Raises ConfigError
    for a number task, when the run learned from all training rows, and for settings that do not fit; RunError and
    DataError as judging does.
    """
    run, specs = open_folder(folder, model=model)
    chosen = specs if spec is None else [spec]
    for each in chosen:
        if each.is_number:
            raise ConfigError(f"{each.name} is answered with numbers, which have no probabilities to calibrate.")
        if each.several:
            raise ConfigError(f"{each.name} is answered with sets of labels; one label per row can be calibrated.")
    if data is not None:
        if len(chosen) > 1:
            raise ConfigError(f"{folder} has several tasks: say with --task which of them the rows of {data} are.")
        calibration_rows = [_rows_of_file(run, specs, chosen[0], Path(data), text, label, form, settings or {})]
    elif is_portable(run.folder):
        raise ConfigError(f"{folder} left its run, and its training rows with it: give labelled rows with --data FILE.")
    else:
        calibration_rows = _rows_of_run(run, specs, chosen, rows, data_dir)
    judges = load_judges(run.folder, model=model, settings={"evaluation.decode": "labels", **(settings or {})})
    fitted = fit_temperatures(chosen, [judges[each.name] for each in chosen], calibration_rows)
    _store(run, specs, read_calibration(run.folder) | fitted)
    return fitted


def _rows_of_run(
    run: Run, specs: Sequence[TaskSpec], chosen: Sequence[TaskSpec], count: int, data_dir: str | None
) -> list[CalibrationRows]:
    """Return training rows of each chosen task that the run did not learn from.

    Raises ConfigError for a task without any.
    """
    from adjudge.tasks import take_rows

    config = run.config
    if data_dir is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"data_dir": data_dir})})
    pools = load_pools(config, specs)
    drawn, pools = pools.draw(config), pools.of_fold(config)
    calibration_rows = []
    for spec in chosen:
        index = [each.name for each in specs].index(spec.name)
        learned = drawn.parts[index].rows
        unused = unused_rows(learned, pools.train[index], pools.eval_rows[index])
        if not unused:
            raise ConfigError(
                f"{run.folder} learned from all {len(learned):,} training rows of {spec.name}. Give rows that it has "
                "not seen with --data FILE. Or train again with some kept apart, in another folder: "
                f"calibration.rows={max(1, len(learned) // 5)}."
            )
        calibration_rows.append(CalibrationRows(take_rows(unused, min(count, len(unused)), config.seed), UNUSED))
    return calibration_rows


def _rows_of_file(
    run: Run,
    specs: Sequence[TaskSpec],
    spec: TaskSpec,
    file: Path,
    text: Sequence[str],
    label: str | None,
    form: TableFormat | None,
    settings: Mapping[str, Any],
) -> CalibrationRows:
    """Return the rows of a file that the run neither learned from nor judged.

    Raises DataError when there are none.
    """
    from adjudge.tasks import load_split, on_file, without_overlap

    on = on_file(spec, file, text, label, form)
    rows: list[Example] = load_split(on, "dev", None, settings.get("data.bad_rows", "error"))
    source = "given rows" if KEPT.fullmatch(file.name) else f"rows of {file.name}"
    if is_portable(run.folder):
        note(f"whether the judge learned from rows of {file} cannot be told here: it left its run.")
        return CalibrationRows(rows, source)
    try:
        drawn = rows_for(run.config, specs)
    except AdjudgeError as error:
        warn(f"whether the run knows some of these rows cannot be told, its own rows are gone: {error}")
        return CalibrationRows(rows, source)
    known = [row for rows in (*(part.rows for part in drawn.parts), *drawn.eval_rows) for row in rows]
    kept = without_overlap(rows, known)
    if not kept:
        raise DataError(f"{file}: the run learned from or judged all of its rows. Give rows that it has not seen.")
    if len(kept) < len(rows):
        warn(f"{file}: {len(rows) - len(kept)} of {len(rows)} rows are training or judged rows and are left out.")
    return CalibrationRows(kept, source)


def _store(run: Run, specs: Sequence[TaskSpec], fitted: Mapping[str, Any]) -> None:
    """Write the temperatures beside the judge, and what follows: judge.json, card, and the run's scores."""
    if is_portable(run.folder):
        path = run.folder / JUDGE
        write_json(path, {**read_json(path), "calibration": dict(fitted)})
        return
    write_calibration(run.folder, fitted)
    folders = result_folders(run.folder)
    if not all((folder / "scores.json").is_file() for folder in folders):
        write_portable(run, specs, [])  # judging, which writes the scores, reads the temperatures
        return
    for spec, folder in zip(specs, folders, strict=True):
        if spec.name in fitted:
            _rescore(Run.open(folder), spec, float(fitted[spec.name]["temperature"]))
    write_portable(run, specs, task_scores(run))


def _rescore(result: Run, spec: TaskSpec, temperature: float) -> None:
    """Score the probabilities of judged rows again, with the temperature."""
    from adjudge.evaluation.calibration import probability_scores

    predictions = result.predictions(result.config.data.split)
    resamples = result.config.evaluation.resamples
    scores = probability_scores(spec, [predictions], [temperature], resamples=resamples) if predictions else None
    if scores is not None:
        result.write_scores({**result.scores(), "probabilities": scores})
