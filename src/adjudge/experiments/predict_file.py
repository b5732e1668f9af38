"""Judge the rows of a file and write them with the judgements: input columns first, unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.errors import DataError, nearest
from adjudge.system.console import note, warn
from adjudge.system.files import SURROGATES, write_bytes, write_text
from adjudge.tasks.reading.rows import parse_number
from adjudge.tasks.reading.text_files import plain_name, text_lines
from adjudge.tasks.spec import TaskSpec
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
    judge: Judge, spec: TaskSpec, source: str | Path, out: str | Path, *, force: bool = False
) -> list[Prediction]:
    """Judge every row of `source`, write `out` in the format of its suffix, and return the predictions.

    Added columns: ``label`` (``number`` for number tasks; empty when unreadable), ``p_WORD`` per label, ``unreadable``.
    The input columns come first, unchanged and in their order. A name already in the input is written as
    ``predicted_label``. An existing `out` is replaced only with `force`. Raises DataError for a missing column, an
    empty text (with file and line), or cells the output format cannot hold.
    """
    from adjudge.tasks import examples_for_prediction, read_table

    source, out = Path(source), Path(out)
    check_out(source, out, force=force)
    columns, rows = read_table(source)
    examples = examples_for_prediction(spec, rows, str(source))
    names = added_names(spec, columns)
    if out.suffix.lower() == ".tsv":
        _check_tsv(out, rows)
    if out.suffix.lower() in (".csv", ".tsv"):
        _note_formulas(out, rows)
    predictions = judge.judge(examples, probabilities=not spec.is_number, title=f"judging {source.name}")
    added = [dict(zip(names, _cells(spec, prediction), strict=True)) for prediction in predictions]
    kind = out.suffix.lower()
    if kind == ".parquet":
        _write_parquet(source, out, columns, rows, added)
    elif kind in JSON_LINES:
        write_text(out, _as_json_lines(source, rows, added))
    elif kind == ".tsv":
        write_text(out, _as_tsv([*columns, *names], rows, added))
    else:
        write_text(out, _as_csv([*columns, *names], rows, added))
    unreadable = sum(prediction.value is None for prediction in predictions)
    note(f"{len(predictions)} rows judged, {unreadable} answers unreadable → {out}")
    return predictions


def check_out(source: Path, out: Path, *, force: bool = False) -> None:
    """Raise DataError for an output that cannot be written, before a model is loaded. `force` replaces a file."""
    if out.suffix.lower() not in WRITABLE:
        raise DataError(
            f"{out}: '{out.suffix}' is no kind of table that can be written.{nearest(out.suffix, WRITABLE)}"
        )
    if out.exists() and source.exists() and out.samefile(source):
        raise DataError(f"{out} is the input itself. Name another --out.")
    if out.exists() and not force:
        raise DataError(f"{out} is there already. Name another --out, or add --force to replace it.")


def added_names(spec: TaskSpec, columns: Sequence[str]) -> list[str]:
    """Return the names of the added columns.

    A name already in the input is reported and becomes ``predicted_NAME``.
    Raises DataError when ``predicted_NAME`` is taken as well.
    """
    wanted = ["number" if spec.is_number else "label", *(f"p_{word}" for word in spec.words), "unreadable"]
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


def _cells(spec: TaskSpec, prediction: Prediction) -> list[Cell]:
    chances = [prediction.probabilities.get(word) for word in spec.words]
    return [prediction.value, *(None if p is None else round(p, 6) for p in chances), prediction.value is None]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell)


def _as_csv(names: Sequence[str], rows: Sequence[dict[str, str]], added: Sequence[dict[str, Cell]]) -> str:
    lines = [list(names), *([*row.values(), *map(_text, ours.values())] for row, ours in zip(rows, added, strict=True))]
    return "".join(",".join(map(_csv_cell, line)) + "\n" for line in lines)


def _csv_cell(text: str) -> str:
    """Return the cell, quoted where necessary.

    `csv.writer` does not quote a lone carriage return, and readers then end the row there.
    """
    if any(mark in text for mark in ',"\r\n') or text.startswith("\ufeff"):
        return '"' + text.replace('"', '""') + '"'
    return text


def _note_formulas(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """Report cells that a spreadsheet would compute; they are kept because they are the user's."""
    formulas = sum(_is_formula(cell) for row in rows for cell in row.values())
    if formulas:
        warn(
            f"{out}: {formulas:,} cells begin with '=', '+', '-' or '@' and are kept as they are. "
            "A spreadsheet program would run them as formulas: open the file in one only if you trust its input."
        )


def _is_formula(cell: str) -> bool:
    return cell.startswith(FORMULA) and parse_number(cell) is None


def _check_tsv(out: Path, rows: Sequence[dict[str, str]]) -> None:
    for number, row in enumerate(rows, 1):
        for name, cell in row.items():
            if any(mark in cell for mark in "\t\r\n"):
                raise DataError(
                    f"{out}: row {number}, column '{name}' has a tab or line break in it, which a .tsv cannot hold. "
                    "Write a .csv, .jsonl or .parquet."
                )


def _as_tsv(names: Sequence[str], rows: Sequence[dict[str, str]], added: Sequence[dict[str, Cell]]) -> str:
    lines = [list(names), *([*row.values(), *map(_text, ours.values())] for row, ours in zip(rows, added, strict=True))]
    return "".join("\t".join(line) + "\n" for line in lines)


def _as_json_lines(source: Path, rows: Sequence[Any], added: Sequence[dict[str, Cell]]) -> str:
    lines = []
    original = list(text_lines(source)) if plain_name(source).suffix.lower() in JSON_LINES else None
    for row, ours in zip(rows, added, strict=True):
        if original is not None:  # the object as written, with the added fields before its last brace: 1e5 stays 1e5
            begun = original[row.line - 1].strip().removesuffix("}").rstrip()
        else:
            begun = json.dumps(dict(row), ensure_ascii=False).removesuffix("}")
        lines.append(f"{begun}, {json.dumps(ours, ensure_ascii=False).removeprefix('{')}\n")
    return "".join(lines)


def _write_parquet(
    source: Path, out: Path, columns: Sequence[str], rows: Sequence[dict[str, str]], added: Sequence[dict[str, Cell]]
) -> None:
    import pyarrow
    import pyarrow.parquet

    if source.suffix.lower() == ".parquet":
        table = pyarrow.parquet.ParquetFile(source).read()
    else:
        table = pyarrow.table(
            {column: pyarrow.array([_encodable(row[column]) for row in rows], pyarrow.string()) for column in columns}
        )
    names = list(added[0])  # by place, not by name: a label may be called "label"
    kinds = [pyarrow.float64() if names[0].removeprefix(CLASH) == "number" else pyarrow.string()]
    kinds += [pyarrow.float64()] * (len(names) - 2) + [pyarrow.bool_()]
    for name, kind in zip(names, kinds, strict=True):
        values = [ours[name] for ours in added]
        table = table.append_column(name, pyarrow.array(values, kind))
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer)
    write_bytes(out, buffer.getvalue().to_pybytes())


def _encodable(text: str) -> str:
    """Escape half a surrogate pair, which UTF-8 cannot hold, as in JSON and in all written files."""
    return text.encode("utf-8", SURROGATES).decode("utf-8")
