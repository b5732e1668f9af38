"""Checks the rows of one file of a submission, line by line, without ever holding the file."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from adjudge.submission.formats import HEADER, HIGH, LOW, Form
from adjudge.submission.problems import Found, Problem, are, listed
from adjudge.system.text import quoted, shorten_json

MAX_LINE_BYTES = 2**18
MAX_FILE_BYTES = 2**26
"""Far above what any file of a submission needs (QQP.tsv has 4 MB): beyond it nothing is read, so that memory and time stay bounded."""

SPARE_LINES = 1_000
"""Beside twice its rows, how many lines of a file are read."""

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def check_file(form: Form, stream: BinaryIO, name: str) -> list[Problem]:
    """Everything that is wrong with the content of one file; `name` stands in the problems. Reads at most `MAX_FILE_BYTES`."""
    found = Found(name)
    check = _check_json_lines if form.is_json else _check_table
    check(form, _text_lines(stream, SPARE_LINES + 2 * form.rows, found), found)
    return found.problems()


def _text_lines(stream: BinaryIO, most: int, found: Found) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line that is UTF-8, without its end."""
    for number, raw in _raw_lines(stream, most, found):
        line = raw
        if number == 1 and raw.startswith(_WIDE_BOMS):
            found.add("encoding", "the file is UTF-16, not UTF-8", number)
            return
        if number == 1 and raw.startswith(_BOM):
            found.add("mark", "the file begins with a byte-order mark; save it as UTF-8 without one", number)
            line = raw.removeprefix(_BOM)
        if line.endswith(b"\r\n"):
            found.add("ends", r"the line ends with \r\n; end lines with \n alone", number)
        try:
            yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            found.add(
                "encoding",
                f"byte {line[error.start]:#04x} (byte {error.start + 1} of the line) is not valid UTF-8",
                number,
            )


def _raw_lines(stream: BinaryIO, most: int, found: Found) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each of at most `most` lines; one that is too long is left out, and reading ends where the file is too large."""
    size = 0
    for number in range(1, most + 2):
        line = part = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if number > most:
            found.add("size", f"the file has more than {most:,} lines; what follows was not read", number)
            return
        size += len(part)
        while part and not part.endswith(b"\n") and size <= MAX_FILE_BYTES:
            part = stream.readline(MAX_LINE_BYTES + 1)
            size += len(part)
        if size > MAX_FILE_BYTES:
            found.add(
                "size", f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB; what follows was not read", number
            )
            return
        if len(line) > MAX_LINE_BYTES:
            found.add("long", f"the line is longer than {MAX_LINE_BYTES // 2**10} KiB", number)
        else:
            yield number, line


class _Rows:
    """Which of the official indices were seen, and in what order."""

    def __init__(self, form: Form, found: Found, field: str) -> None:
        self._form, self._found, self._field = form, found, field
        self._line_of = array("L", [0]) * form.rows  # 0: not seen yet
        self._last = -1

    def see(self, index: int, line: int) -> None:
        add = self._found.add
        if index >= self._form.rows:
            add(
                "range",
                f"{index} is no row of the official test set, which has 0 to {self._form.rows - 1}",
                line,
                self._field,
            )
        elif self._line_of[index]:
            add("double", f"row {index} is here a second time; first in line {self._line_of[index]}", line, self._field)
        else:
            self._line_of[index] = line
            if index < self._last:
                add(
                    "order",
                    f"row {index} comes after row {self._last}; rows stand in ascending order",
                    line,
                    self._field,
                )
            self._last = max(self._last, index)

    def end(self) -> None:
        missing = [index for index, line in enumerate(self._line_of) if not line]
        if missing:
            what = f"{len(missing):,} of {self._form.rows:,} rows {are(len(missing))} missing: {listed(missing)}"
            self._found.add("missing", what, field=self._field)


def _check_table(form: Form, lines: Iterator[tuple[int, str]], found: Found) -> None:
    index_field, label_field = HEADER
    rows = _Rows(form, found, index_field)
    empty = True
    for number, text in lines:
        cells = text.split("\t")
        if number == 1 and not _is_data(cells):
            empty = False
            if tuple(cells) != HEADER:
                found.add("header", f"the header is {quoted(text)}; it has to be index, a tab, prediction", number)
            continue
        if number == 1:
            found.add("header", "there is no header line; it has to be index, a tab, prediction", number)
        empty = False
        if len(cells) != len(HEADER):
            what = (
                "the line is empty" if not text.strip() else f"the line has {len(cells)} column{'s' * (len(cells) > 1)}"
            )
            missing = label_field if len(cells) < len(HEADER) else ""
            found.add("columns", f"{what}; it has to be an index, a tab and a prediction", number, missing)
            continue
        if _INDEX.fullmatch(cells[0]):
            rows.see(int(cells[0]), number)
        else:
            found.add("index", f"{quoted(cells[0])} is not a whole number as the test set has it", number, index_field)
        if wrong := _wrong_cell(form, cells[1]):
            found.add("label", wrong, number, label_field)
    if empty and not found.problems():
        found.add("empty", "the file is empty")
    rows.end()


def _is_data(cells: list[str]) -> bool:
    return len(cells) == len(HEADER) and cells[0].isdigit()


def _wrong_cell(form: Form, cell: str) -> str:
    """What is wrong with a prediction of a GLUE file; empty when nothing is."""
    if form.shape != "number":
        return "" if cell in form.labels else f"{quoted(cell)} is none of {', '.join(map(str, form.labels))}"
    if not _NUMBER.fullmatch(cell):
        return f"{quoted(cell)} is not a number"
    return "" if LOW <= float(cell) <= HIGH else f"{quoted(cell)} is outside {LOW:g} to {HIGH:g}"


class _NotJsonError(Exception):
    """Why a line is not JSON as a site reads it."""


def _check_json_lines(form: Form, lines: Iterator[tuple[int, str]], found: Found) -> None:
    in_options = form.shape == "options"
    rows = _Rows(form, found, "passage.questions.answers.idx" if in_options else "idx")
    number = 0
    for number, text in lines:
        try:
            record = _parsed(text)
        except _NotJsonError as error:
            found.add("json", str(error), number)
            continue
        if not isinstance(record, dict):
            found.add("json", f"the line is {_shown(record)} and not an object", number)
        elif in_options:
            _check_passage(form, record, number, rows, found)
        else:
            index = _index(form, record, "", number, found)
            if index is not None:
                rows.see(index, number)
            _check_label(form, record, "", number, found)
    if not number and not found.problems():
        found.add("empty", "the file is empty")
    rows.end()


def _parsed(text: str) -> Any:
    """The JSON value of a line. Raises _NotJsonError: no JSON, NaN, a field twice, nested without end."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = (
            "the line is empty"
            if not text.strip()
            else f"the line is not JSON: {error.msg} at character {error.pos + 1}"
        )
        raise _NotJsonError(what) from None
    except RecursionError:
        raise _NotJsonError("the line is not JSON that can be read: it is nested too deep") from None
    except ValueError:  # a whole number of thousands of digits
        raise _NotJsonError("the line has a number that is too long") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotJsonError(f"the field {quoted(twice)} is there twice")
    return record


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(f"the line is not JSON: there is no {constant} in it")


def _check_passage(form: Form, record: Mapping[str, Any], number: int, rows: _Rows, found: Found) -> None:
    """MultiRC: {"idx", "passage": {"questions": [{"idx", "answers": [{"idx", "label"}]}]}}."""
    _index(form, record, "", number, found)
    passage = _part(record, "passage", "", dict, number, found)
    if passage is None:
        return
    for question, at in _objects(passage, "questions", "passage.", number, found):
        _index(form, question, f"{at}.", number, found)
        for answer, where in _objects(question, "answers", f"{at}.", number, found):
            index = _index(form, answer, f"{where}.", number, found)
            if index is not None:
                rows.see(index, number)
            _check_label(form, answer, f"{where}.", number, found)


def _objects(
    record: Mapping[str, Any], name: str, prefix: str, number: int, found: Found
) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, each with its place."""
    for place, value in enumerate(_part(record, name, prefix, list, number, found) or ()):
        where = f"{prefix}{name}[{place}]"
        if isinstance(value, dict):
            yield value, where
        else:
            found.add("shape", f"is {_shown(value)} and not an object", number, where)


def _part(record: Mapping[str, Any], name: str, prefix: str, kind: type, number: int, found: Found) -> Any:
    """A field that holds an object or a list; None, and a problem, when it does not."""
    if name not in record:
        found.add("field", "the field is missing", number, f"{prefix}{name}")
    elif not isinstance(record[name], kind):
        found.add("shape", f"is {_shown(record[name])} and not {_shown(kind())}", number, f"{prefix}{name}")
    else:
        return record[name]
    return None


def _index(form: Form, record: Mapping[str, Any], prefix: str, number: int, found: Found) -> int | None:
    field = f"{prefix}idx"
    if "idx" not in record:
        found.add("field", "the field is missing", number, field)
        return None
    value = record["idx"]
    if form.text_idx and isinstance(value, str) and _INDEX.fullmatch(value):
        return int(value)
    if type(value) is int and 0 <= value < 10**9:
        return value
    found.add("index", f"is {_shown(value)} and not a whole number as the test set has it", number, field)
    return None


def _check_label(form: Form, record: Mapping[str, Any], prefix: str, number: int, found: Found) -> None:
    field = f"{prefix}label"
    if "label" not in record:
        found.add("field", "the field is missing", number, field)
        return
    label = record["label"]
    if form.shape == "entity":
        if not isinstance(label, str) or not label.strip():
            found.add("label", f"is {_shown(label)} and not the text of an entity", number, field)
    elif not any(type(label) is type(right) and label == right for right in form.labels):
        found.add("label", f"is {_shown(label)} and none of {', '.join(map(json.dumps, form.labels))}", number, field)


def _shown(value: object) -> str:
    """Return a JSON value cut for a message; objects and lists are named by their kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shorten_json(value)
