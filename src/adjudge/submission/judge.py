"""Judge the test rows of a task with a run's judge. Predictions stay on disk: a stop costs little."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from adjudge.errors import RunError
from adjudge.experiments.evaluate import load_judge
from adjudge.runs.folder import Run, prediction_line, read_jsonl
from adjudge.runs.names import shown_name
from adjudge.runs.tasks import read_tasks
from adjudge.submission.formats import Form
from adjudge.submission.write import official_indices
from adjudge.system.console import note
from adjudge.system.files import SURROGATES, Lock
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

CHUNK_ROWS = 2_000
"""Rows per write to disk: an interruption loses fewer than these."""


def judge_test_rows(
    run: Run,
    spec: TaskSpec,
    form: Form,
    *,
    data_dir: str | None = None,
    decode: str | None = None,
    model: str | None = None,
) -> Path:
    """Judge the official test rows of a task unless that is done already; return the predictions' file.

    The file is in the run's ``predictions``: ``test.jsonl`` for the run's own task and decoding, else
    ``TASK-SPLIT-DECODE.jsonl``. Rows that an interrupted call judged are not judged again. `model` names the run's base
    model where that has moved. Raises RunError when nothing was trained, DataError when the test rows are missing or
    are not those that the site asks for.
    """
    from adjudge.tasks import load_split

    if decode is None or spec.is_number:  # numbers have only one way of decoding
        decode = run.config.evaluation.decode
    # Dev rows get another name: the run's own evaluation may have fewer of them, and no probabilities.
    same = form.split == "test" and [spec] == read_tasks(run.folder) and decode == run.config.evaluation.decode
    name = form.split if same else f"{spec.name.replace('/', '-')}-{form.split}-{decode}"
    path = run.folder / "predictions" / f"{name}.jsonl"
    if path.is_file():
        note(f"{form.file}: already judged, {path}")
        return path
    eval_rows = load_split(spec, form.split, data_dir or run.config.data.data_dir)
    official_indices(form, eval_rows, f"{spec.name}, the {form.split} rows")  # fail before hours of judging
    partial = path.with_name(f"{path.name}.partial")
    lock = Lock(run.folder)
    lock.acquire()
    try:
        done = _count_judged(partial, eval_rows)
        if done:
            note(f"{form.file}: continuing after row {done:,} of {len(eval_rows):,}, {partial}")
        _judge(run, spec, form, eval_rows[done:], partial, decode, model)
        os.replace(partial, path)
    except KeyboardInterrupt as stop:
        raise type(stop)(f"{partial} (the same command continues from there)") from None
    finally:
        lock.release()
    return path


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a file. Raises RunError with the line of a damaged one."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            yield Prediction(**record)
        except TypeError:
            raise RunError(
                f"{path}:{number}: is not a judged row. Remove the file, then its rows are judged again."
            ) from None


def _judge(
    run: Run, spec: TaskSpec, form: Form, rows: Sequence[Example], partial: Path, decode: str, model: str | None
) -> None:
    """Judge rows in chunks and append their predictions to a file."""
    _, _, judge = load_judge(run.folder, spec=spec, decode=decode, model=model)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            title = f"{shown_name(run.config.method, len(read_tasks(run.folder)))} on {spec.name}/{form.split}"
            if len(rows) > CHUNK_ROWS:
                title += f", {len(rows) - start:,} rows to go"
            # Probabilities cost little. They choose among ReCoRD's candidates and can replace unreadable answers.
            predictions = judge.judge(chunk, probabilities=not spec.is_number, title=title)
            file.write("".join(map(prediction_line, predictions)))
            file.flush()
            os.fsync(file.fileno())


def _count_judged(partial: Path, rows: Sequence[Example]) -> int:
    """Return how many of `rows`, from the first on, are judged in the file.

    A last line that was cut by an interruption is removed from the file. A file with other rows is deleted.
    """
    if not partial.is_file():
        return 0
    os.truncate(partial, _end_of_whole_lines(partial))
    count = 0
    for prediction in read_predictions(partial):
        if count == len(rows) or (prediction.id, prediction.fields) != (rows[count].id, rows[count].fields):
            note(f"{partial} has other rows; judging starts from the beginning.")
            partial.unlink()
            return 0
        count += 1
    return count


def _end_of_whole_lines(path: Path) -> int:
    """Return the number of bytes up to and including the last line end."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
    return end
