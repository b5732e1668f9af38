"""Judge many rows with their predictions on disk: after a stop, the next call goes on behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adjudge.errors import RunError
from adjudge.runs.folder import prediction_line, read_jsonl
from adjudge.system.console import note
from adjudge.system.files import SURROGATES
from adjudge.types import Example, Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

FIRST_ROWS, CHUNK_ROWS = 100, 1_000
"""Rows of the first write to disk, and the most rows of a later one: an interruption loses fewer than these."""


def judge_to_disk(
    judge: Judge, rows: Sequence[Example], path: Path, *, probabilities: bool, title: str, at_once: bool = False
) -> None:
    """Judge rows in chunks and append their predictions to a file.

    The rows of a group are judged together. With `at_once` there is one chunk. Raises what the judge raises, and
    KeyboardInterrupt with the file's path, if there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for chunk in [range(len(rows))] if at_once else _chunks(rows):
            left = f", {len(rows) - chunk.start:,} rows to go" if len(rows) > len(chunk) else ""
            part = rows[chunk.start : chunk.stop]
            predictions = judge.judge(part, probabilities=probabilities, title=f"{title}{left}")
            with path.open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
                file.write("".join(map(prediction_line, predictions)))
                file.flush()
                os.fsync(file.fileno())
    except KeyboardInterrupt as stop:
        raise type(stop)(*[str(path)] * path.is_file()) from None


def count_judged(path: Path, rows: Sequence[Example]) -> int:
    """Return how many of `rows`, from the first on, are judged in the file.

    A last line that was cut by an interruption is removed from the file. A file with other rows is deleted.
    """
    if not path.is_file():
        return 0
    os.truncate(path, _end_of_whole_lines(path))
    count = 0
    for prediction in read_predictions(path):
        if count == len(rows) or (prediction.id, prediction.fields) != (rows[count].id, rows[count].fields):
            note(f"{path} has other rows; judging starts from the beginning.")
            path.unlink()
            return 0
        count += 1
    return count


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the predictions of a file. Raises RunError with the line of a damaged one."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            yield Prediction(**record)
        except TypeError:
            raise RunError(
                f"{path}:{number}: is not a judged row. Remove the file, then its rows are judged again."
            ) from None


def _chunks(rows: Sequence[Example]) -> Iterator[range]:
    """Return rows in growing chunks that divide no group.

    It is one chunk where rows of other groups stand between those of a group.
    """
    before = [None, *(row.group for row in rows)]
    beginnings = [row for row, group in zip(rows, before, strict=False) if row.group != group]
    groups = [row.group for row in beginnings if row.group]
    start, size = 0, FIRST_ROWS if len(set(groups)) == len(groups) else len(rows)
    while start < len(rows):
        stop = min(start + size, len(rows))
        while stop < len(rows) and rows[stop].group and rows[stop].group == rows[stop - 1].group:
            stop += 1
        yield range(start, stop)
        start, size = stop, min(2 * size, CHUNK_ROWS)


def _end_of_whole_lines(path: Path) -> int:
    """Return the number of bytes up to and including the last line end."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
    return end
