"""Judge the rows of a file and write them with the judgements: input columns first, unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adjudge.errors import DataError, nearest
from adjudge.evaluation.abstention import Decision, decide, expected_cost
from adjudge.experiments.kept_predictions import count_judged, judge_to_disk, read_predictions
from adjudge.runs.folder import Run
from adjudge.system.console import note, warn
from adjudge.system.files import SURROGATES, write_bytes, write_text
from adjudge.system.text import shorten
from adjudge.tasks.reading.bad_rows import BadRows, OnBadRows
from adjudge.tasks.reading.decimal_commas import with_point
from adjudge.tasks.reading.rows import parse_number
from adjudge.tasks.reading.table_rows import Columns, TableRow
from adjudge.tasks.reading.text_files import plain_name, text_lines
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import SEPARATORS, TableFormat
from adjudge.types import Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

Cell = str | float | bool | None

JSON_LINES = (".jsonl", ".ndjson")
WRITABLE = (".csv", ".tsv", *JSON_LINES, ".parquet")

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that spreadsheet programs compute."""

CLASH = "predicted_"
"""Prefix for an added column whose name the input already has."""


def predict_file(
    judge: Judge,
    spec: TaskSpec,
    source: str | Path,
    out: str | Path,
    *,
    force: bool = False,
    form: TableFormat | None = None,
    bad_rows: OnBadRows = "error",
    temperature: float | None = None,
    decision: Decision | None = None,
    identity: str = "judged",
    at_once: bool = False,
) -> list[Prediction]:
    """Judge every row of `source`, write `out` in the format of its suffix, and return the predictions.

    Added columns: ``label`` (``number`` for number tasks; empty when unreadable), ``p_WORD`` per label, ``unreadable``.
    The input columns come first, unchanged and in their order; a CSV written from a CSV keeps its separator. A name
    already in the input is written as ``predicted_label``. An existing `out` is replaced only with `force`. `form` says
    how `source` is separated and encoded, where it does not tell. With "drop", `bad_rows` are listed and left out.
    Judged rows are kept beside `out` until it is written, in a file named after the judge's `identity`: after a stop
    the next call goes on behind them. With `at_once` all rows are given to the judge together. Probabilities are
    divided by the judge's `temperature`. With a `decision`, ``label`` is empty for an answer that is held back, and a
    last column ``abstained`` says so.
    Raises DataError for a missing column, a bad row such as one with an empty text (with file and line), or cells the
    output format cannot hold.
    """
    from adjudge.evaluation.calibration import calibrated
    from adjudge.tasks import examples_for_prediction, read_table
    from adjudge.tasks.reading.table import require_columns

    source, out, form = Path(source), Path(out), form or TableFormat()
    check_out(source, out, force=force)
    bad = BadRows(source, bad_rows)
    columns, rows = read_table(source, form, bad)
    require_columns(source, columns, [name for name in spec.fields.values() if columns.count(name) > 1])  # named twice
    examples = examples_for_prediction(spec, rows, str(source), bad)
    if not examples:
        bad.stop()
    bad.end()
    rows = [row for row in rows if row.line not in bad.lines]
    decision = decision or Decision()
    names = added_names(spec, columns, abstains=bool(decision))
    kind = out.suffix.lower()
    _check_cells(out, columns, rows)
    if kind in (".csv", ".tsv"):
        _note_formulas(out, rows)
    partial = out.with_name(f"{out.name}.{identity}.partial")
    if done := count_judged(partial, examples):
        note(f"continuing after row {done:,} of {len(examples):,}, {partial}")
    left = examples[done:]
    title, probabilities = f"judging {source.name}", not spec.is_number
    judge_to_disk(judge, left, partial, probabilities=probabilities, title=title, at_once=at_once)
    answers = list(read_predictions(partial))
    if len(answers) != len(examples):
        partial.unlink()
        raise DataError(f"{out}: another command judges rows for the same file. Name another --out.")
    predictions = decide(calibrated(answers, temperature), decision)
    added = [dict(zip(names, _cells(spec, each, len(names)), strict=True)) for each in predictions]
    if kind == ".parquet":
        _write_parquet(source, out, columns, rows, added)
    elif kind in JSON_LINES:
        write_text(out, _as_json_lines(source, form, rows, added))
    elif kind == ".tsv":
        write_text(out, _as_tsv([*columns, *names], rows, added))
    else:
        keeps = columns.separator if plain_name(source).suffix.lower() == ".csv" else None
        write_text(out, _as_csv([*columns, *names], rows, added, keeps or ","))
    partial.unlink()
    note(f"{len(predictions)} rows judged, {_counts(predictions, decision)} → {out}")
    return predictions


def judge_identity(run: Run, spec: TaskSpec) -> str:
    """Return a name for the judge of a run and task, by which the files of judged rows are told apart."""
    trained = run.folder / "training.json"  # which calibration leaves as it is
    made = trained.stat().st_mtime_ns if trained.is_file() else 0
    parts = (str(run.folder.resolve()), made, run.config.model_dump_json(), spec.model_dump_json())
    return hashlib.sha256(repr(parts).encode("utf-8", SURROGATES)).hexdigest()[:8]


def _counts(predictions: Sequence[Prediction], decision: Decision) -> str:
    """Return ``0 answers unreadable, 12 held back``, and with a cost matrix the expected cost per row."""
    held_back = sum(prediction.abstained for prediction in predictions)
    unreadable = sum(prediction.value is None for prediction in predictions) - held_back
    parts = [f"{unreadable} answers unreadable", *([f"{held_back} held back"] if decision else [])]
    if decision.costs is not None:
        cost = sum(expected_cost(prediction, decision.costs) for prediction in predictions) / len(predictions)
        parts.append(f"expected cost {cost:.3f} per row")
    return ", ".join(parts)


def check_out(source: Path, out: Path, *, force: bool = False) -> None:
    """Raise DataError for an output that cannot be written, before a model is loaded.

    `force` replaces a file.
    """
    if out.suffix.lower() not in WRITABLE:
        raise DataError(
            f"{out}: '{out.suffix}' is no kind of table that can be written.{nearest(out.suffix, WRITABLE)}"
        )
    if out.exists() and source.exists() and out.samefile(source):
        raise DataError(f"{out} is the input itself. Name another --out.")
    if out.exists() and not force:
        raise DataError(f"{out} is there already. Name another --out, or add --force to replace it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: its folder cannot be made: {error.strerror}. Name another --out.") from None
    if not os.access(out.parent, os.W_OK):
        raise DataError(f"{out}: nothing can be written into {out.parent}. Name another --out.")


def added_names(spec: TaskSpec, columns: Sequence[str], *, abstains: bool = False) -> list[str]:
    """Return the names of the added columns, with ``abstained`` where answers may be held back.

    A name already in the input is reported and becomes ``predicted_NAME``.
    Raises DataError when ``predicted_NAME`` is taken as well.
    """
    wanted = ["number" if spec.is_number else "label", *(f"p_{word}" for word in spec.names), "unreadable"]
    wanted += ["abstained"] if abstains else []
    names = []
    for name in wanted:
        new = f"{CLASH}{name}" if name in columns else name
        if new in columns:
            raise DataError(
                f"The input has a column '{name}' and a column '{new}': rename one, so that ours has a name."
            )
        if new != name:
            warn(f"the input has a column '{name}'; ours is written as '{new}'.")
        names.append(new)
    return names


def _cells(spec: TaskSpec, prediction: Prediction, count: int) -> list[Cell]:
    """Return the first `count` added cells of a row."""
    chances = [prediction.probabilities.get(word) for word in spec.names]
    unreadable = prediction.value is None and not prediction.abstained
    shares = (None if p is None else round(p, 6) for p in chances)
    return [prediction.value, *shares, unreadable, prediction.abstained][:count]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell)


def _as_csv(names: Sequence[str], rows: Sequence[TableRow], added: Sequence[dict[str, Cell]], separator: str) -> str:
    lines = [list(names), *([*row.cells, *map(_text, ours.values())] for row, ours in zip(rows, added, strict=True))]
    # Any usual separator is quoted, not only the one in use, so that the header tells the right one.
    marks = (*SEPARATORS, separator) if separator != "," else (",",)
    return "".join(separator.join(_csv_cell(cell, marks) for cell in line) + "\n" for line in lines)


def _csv_cell(text: str, separators: Sequence[str]) -> str:
    """Return the cell, quoted where necessary.

    `csv.writer` does not quote a lone carriage return, and readers then end the row there.
    """
    if any(mark in text for mark in ('"', "\r", "\n", *separators)) or text.startswith("\ufeff"):
        return '"' + text.replace('"', '""') + '"'
    return text


def _note_formulas(out: Path, rows: Sequence[TableRow]) -> None:
    """Report cells that a spreadsheet would compute; they are kept because they are the user's."""
    formulas = sum(_is_formula(cell) for row in rows for cell in row.cells)
    if formulas:
        warn(
            f"{out}: {formulas:,} cells begin with '=', '+', '-' or '@' and are kept as they are. "
            "A spreadsheet program would run them as formulas: open the file in one only if you trust its input."
        )


def _is_formula(cell: str) -> bool:
    return cell.startswith(FORMULA) and parse_number(with_point(cell)) is None


def _check_cells(out: Path, columns: Columns, rows: Sequence[TableRow]) -> None:
    """Raise DataError for names or cells that the format of `out` cannot hold."""
    kind = out.suffix.lower()
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if kind in JSON_LINES and repeated:
        raise DataError(
            f"{out}: the input has several columns named '{shorten(repeated[0])}', which a {kind} cannot hold. "
            "Write a .csv, .tsv or .parquet."
        )
    if kind != ".tsv":
        return
    for name in columns:
        if any(mark in name for mark in "\t\r\n"):
            raise _tsv_error(out, f"the name of column '{shorten(name)}'")
    for number, row in enumerate(rows, 1):
        for name, cell in zip(columns, row.cells, strict=True):
            if any(mark in cell for mark in "\t\r\n"):
                raise _tsv_error(out, f"row {number}, column '{shorten(name)}'")


def _tsv_error(out: Path, where: str) -> DataError:
    return DataError(
        f"{out}: {where} has a tab or line break in it, which a .tsv cannot hold. Write a .csv, .jsonl or .parquet."
    )


def _as_tsv(names: Sequence[str], rows: Sequence[TableRow], added: Sequence[dict[str, Cell]]) -> str:
    lines = [list(names), *([*row.cells, *map(_text, ours.values())] for row, ours in zip(rows, added, strict=True))]
    return "".join("\t".join(line) + "\n" for line in lines)


def _as_json_lines(source: Path, form: TableFormat, rows: Sequence[TableRow], added: Sequence[dict[str, Cell]]) -> str:
    lines = []
    is_json = plain_name(source).suffix.lower() in JSON_LINES
    original = list(text_lines(source, encoding=form.encoding)) if is_json else None
    for row, ours in zip(rows, added, strict=True):
        if original is not None:  # the object as written, with the added fields before its last brace: 1e5 stays 1e5
            begun = original[row.line - 1].strip().removesuffix("}").rstrip()
        else:
            begun = json.dumps(dict(row), ensure_ascii=False).removesuffix("}")
        comma = "" if begun == "{" else ", "
        lines.append(f"{begun}{comma}{json.dumps(ours, ensure_ascii=False).removeprefix('{')}\n")
    return "".join(lines)


def _write_parquet(
    source: Path, out: Path, columns: Columns, rows: Sequence[TableRow], added: Sequence[dict[str, Cell]]
) -> None:
    import pyarrow
    import pyarrow.parquet

    if source.suffix.lower() == ".parquet":
        table = pyarrow.parquet.ParquetFile(source).read()
        if table.num_rows > len(rows):
            table = table.take([row.line - 1 for row in rows])
    else:
        cells = zip(*(row.cells for row in rows), strict=True)
        arrays = [pyarrow.array(map(_encodable, column), pyarrow.string()) for column in cells]
        table = pyarrow.table(arrays, names=list(columns))
    names = list(added[0])  # by place, not by name: a label may be called "label"
    kinds = [pyarrow.float64() if names[0].removeprefix(CLASH) == "number" else pyarrow.string()]
    flags = sum(isinstance(cell, bool) for cell in added[0].values())
    kinds += [pyarrow.float64()] * (len(names) - 1 - flags) + [pyarrow.bool_()] * flags
    for name, kind in zip(names, kinds, strict=True):
        values = [ours[name] for ours in added]
        table = table.append_column(name, pyarrow.array(values, kind))
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer)
    write_bytes(out, buffer.getvalue().to_pybytes())


def _encodable(text: str) -> str:
    """Escape half a surrogate pair, which UTF-8 cannot hold, as in JSON and in all written files."""
    return text.encode("utf-8", SURROGATES).decode("utf-8")
