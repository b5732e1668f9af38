"""Judging the test rows of a task with what a run trained. What is judged stays on disk, so that a stop costs little."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from adjudge.errors import RunError
from adjudge.experiments.evaluate import load_judge
from adjudge.runs.folder import Run, prediction_line, read_jsonl
from adjudge.runs.tasks import read_tasks
from adjudge.submission.formats import Form
from adjudge.submission.write import official_indices
from adjudge.system.console import note
from adjudge.system.files import SURROGATES, Lock
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

CHUNK_ROWS = 2_000
"""Rows that are judged before they go to disk: a stop loses fewer than these."""


def judge_test_rows(
    run: Run, spec: TaskSpec, form: Form, *, data_dir: str | None = None, decode: str | None = None
) -> Path:
    """Judge the official test rows of a task, unless they are judged already; return the file with the judged rows.

    They go into the run's ``predictions``: ``test.jsonl`` for its own task decoded as the run does, ``TASK-SPLIT-DECODE.jsonl`` for
    any other. Rows that an earlier call judged before it was stopped are not judged again. Raises RunError (nothing was trained),
    DataError (no test rows, or not those that the site asks for).
    """
    from adjudge.tasks import load_split

    if decode is None or spec.is_number:  # numbers are not decoded in several ways
        decode = run.config.evaluation.decode
    # Dev rows are kept apart: those of the run's own evaluation may be fewer, and without probabilities.
    own = form.split == "test" and [spec] == read_tasks(run.folder) and decode == run.config.evaluation.decode
    name = form.split if own else f"{spec.name.replace('/', '-')}-{form.split}-{decode}"
    done = run.folder / "predictions" / f"{name}.jsonl"
    if done.is_file():
        note(f"{form.file}: judged before, {done}")
        return done
    rows = load_split(spec, form.split, data_dir or run.config.data.data_dir)
    official_indices(form, rows, f"{spec.name}, the {form.split} rows")  # before hours are spent on them
    partial = done.with_name(f"{done.name}.partial")
    lock = Lock(run.folder)
    lock.acquire()
    try:
        judged = _judged_before(partial, rows)
        if judged:
            note(f"{form.file}: going on after row {judged:,} of {len(rows):,}, {partial}")
        _judge(run, spec, form, rows[judged:], partial, decode)
        os.replace(partial, done)
    except KeyboardInterrupt as stop:
        raise type(stop)(f"{partial} (the same command goes on from there)") from None
    finally:
        lock.release()
    return done


def read_predictions(path: Path) -> Iterator[Prediction]:
    """The judged rows of a file, one at a time. Raises RunError that names the line."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            yield Prediction(**record)
        except TypeError:
            raise RunError(
                f"{path}:{number}: is no judged row. Remove the file, so that the rows are judged again."
            ) from None


def _judge(run: Run, spec: TaskSpec, form: Form, rows: Sequence[Example], partial: Path, decode: str) -> None:
    """Judge rows, chunk by chunk, to the end of the file."""
    _, _, judge = load_judge(run.folder, spec=spec, decode=decode)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            title = f"{run.config.method} on {spec.name}/{form.split}"
            if len(rows) > CHUNK_ROWS:
                title += f", {len(rows) - start:,} rows to go"
            # Probabilities cost little, choose among ReCoRD's candidates, and can stand in for an answer that cannot be read.
            predictions = judge.judge(chunk, probabilities=not spec.is_number, title=title)
            file.write("".join(map(prediction_line, predictions)))
            file.flush()
            os.fsync(file.fileno())


def _judged_before(partial: Path, rows: Sequence[Example]) -> int:
    """How many of `rows` are judged in the file, from the first on; a line that a stop cut is taken off, and other rows' file away."""
    if not partial.is_file():
        return 0
    os.truncate(partial, _end_of_whole_lines(partial))
    count = 0
    for prediction in read_predictions(partial):
        if count == len(rows) or (prediction.id, prediction.fields) != (rows[count].id, rows[count].fields):
            note(f"{partial} is of other rows: they are judged from the beginning.")
            partial.unlink()
            return 0
        count += 1
    return count


def _end_of_whole_lines(path: Path) -> int:
    """Bytes up to and with the last line end."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
    return end
